//! Products of 8-bit matrices with vector instructions, and the choice among them.
//!
//! One file per instruction set, each behind a type whose constructor checks the CPU, so that the
//! methods are safe to call. [`Kernel::detect`] asks the CPU once in the life of the process. A
//! kernel compiles the whole forward pass for its instruction set; what it writes by hand is the
//! integer product, whose sums are exact, and the rest is the arithmetic of [`super::math`]. So
//! every kernel gives the same bits.

use std::sync::OnceLock;

use super::file::{PANEL, PANELS, Weights};
use super::forward::{self, Batch};
use super::math::LANES;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

/// Most tokens of a tile.
pub(super) const TILE: usize = 8;

/// Rows of a product of floats.
pub(super) const ROWS: usize = 8;

/// Dot products of a tile: token, panel, output.
pub(super) type Sums = [[[i32; PANEL]; PANELS]; TILE];

/// The product of a tile of tokens with some outputs of a linear map.
pub(super) trait Multiply: Copy {
    /// Tokens that are multiplied together, at most [`TILE`].
    const TOKENS: usize;

    /// What the codes of activations are combined with, by exclusive or: 0x80 makes them unsigned
    /// with an offset of 128.
    const FLIP: u8;

    /// Sets the first `codes.len()` rows of `sums` to the dot products of signed codes: of each
    /// token with each output of two panels. `offsets` are the sums of the codes of each output.
    ///
    /// # Panics
    /// If a panel is not 16 times as long as a token's codes, or these are no multiple of four.
    fn tile(
        self,
        panels: [&[u8]; PANELS],
        offsets: &[i32; PANEL * PANELS],
        codes: &[&[u8]],
        sums: &mut Sums,
    );

    /// The matrix product of [`ROWS`] rows of `a` with [`LANES`] columns of `b`: entry `(row, lane)`
    /// is the sum over `steps` of `a[row * a_row + step] * b[step * b_row + lane]`, added up from the
    /// first step on, with a rounding after each multiplication and each addition.
    ///
    /// # Panics
    /// If an index is out of range.
    fn outer(
        self,
        a: &[f32],
        a_row: usize,
        b: &[f32],
        b_row: usize,
        steps: usize,
    ) -> [[f32; LANES]; ROWS];
}

/// The code chosen for this CPU.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kernel {
    /// Portable code; the reference for the others.
    Portable(portable::Portable),
    /// 256-bit vectors.
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    /// 512-bit vectors that multiply 8-bit codes.
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
    /// 128-bit vectors of aarch64.
    #[cfg(target_arch = "aarch64")]
    Neon(neon::Neon),
}

impl Kernel {
    /// The fastest kernel that this CPU can run.
    pub(super) fn detect() -> Self {
        static FASTEST: OnceLock<Kernel> = OnceLock::new();
        *FASTEST.get_or_init(|| {
            let portable = Self::Portable(portable::Portable);
            *Self::all().last().unwrap_or(&portable)
        })
    }

    /// Every kernel that this CPU can run, the fastest last.
    pub(super) fn all() -> Vec<Self> {
        let mut kernels = vec![Self::Portable(portable::Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            kernels.extend(avx2::Avx2::new().map(Self::Avx2));
            kernels.extend(avx512::Avx512::new().map(Self::Avx512));
        }
        #[cfg(target_arch = "aarch64")]
        kernels.extend(neon::Neon::new().map(Self::Neon));
        kernels
    }

    /// What the instruction set is called.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Portable(_) => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512-vnni",
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => "neon",
        }
    }

    /// Runs the model over a batch: see [`forward::run`].
    pub(super) fn run(self, weights: &Weights, adapter: &[f32], batch: &Batch, out: &mut [f32]) {
        match self {
            Self::Portable(portable) => forward::run(portable, weights, adapter, batch, out),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(avx2) => avx2.run(weights, adapter, batch, out),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(avx512) => avx512.run(weights, adapter, batch, out),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(neon) => neon.run(weights, adapter, batch, out),
        }
    }
}

/// Checks what every kernel counts on before it reads through pointers.
#[inline(always)]
fn check(panels: [&[u8]; PANELS], codes: &[&[u8]], tokens: usize) {
    assert!(codes.len() <= tokens, "too many tokens");
    let inputs = panels[0].len() / PANEL;
    assert_eq!(inputs % 4, 0, "inputs come in fours");
    for panel in panels {
        assert_eq!(panel.len(), inputs * PANEL, "panels of unequal length");
    }
    for codes in codes {
        assert_eq!(codes.len(), inputs, "codes and panels do not match");
    }
}

/// Checks the indexes of [`Multiply::outer`].
#[inline(always)]
fn check_outer(a: &[f32], a_row: usize, b: &[f32], b_row: usize, steps: usize) {
    assert!(steps > 0, "no steps");
    assert!((ROWS - 1) * a_row + steps <= a.len(), "rows of a");
    assert!((steps - 1) * b_row + LANES <= b.len(), "columns of b");
}

/// Calls `$tile::<M>` with the number of tokens as a constant.
macro_rules! dispatch {
    ($tokens:expr, $tile:ident $arguments:tt, $($m:literal)*) => {
        match $tokens {
            $($m => $tile::<$m> $arguments,)*
            _ => {}
        }
    };
}
use dispatch;

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that look random, and always the same.
    fn bytes(count: usize, mut seed: u64) -> Vec<u8> {
        (0..count)
            .map(|_| {
                seed = seed
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                let code = (seed >> 33) % 255;
                (code as i32 - 127) as i8 as u8
            })
            .collect()
    }

    fn products<K: Multiply>(kernel: K, panels: [&[u8]; PANELS], tokens: &[Vec<u8>]) -> Sums {
        let inputs = tokens[0].len();
        let offsets = std::array::from_fn(|output| {
            let panel = panels[output / PANEL];
            (0..inputs)
                .map(|input| {
                    let at = input / 4 * 4 * PANEL + output % PANEL * 4 + input % 4;
                    i32::from(panel[at].cast_signed())
                })
                .sum()
        });
        let flipped: Vec<Vec<u8>> = tokens
            .iter()
            .map(|codes| codes.iter().map(|code| code ^ K::FLIP).collect())
            .collect();
        let mut sums = Sums::default();
        for (at, tile) in flipped.chunks(K::TOKENS).enumerate() {
            let tile: Vec<&[u8]> = tile.iter().map(|codes| &codes[..]).collect();
            let mut found = Sums::default();
            kernel.tile(panels, &offsets, &tile, &mut found);
            let start = at * K::TOKENS;
            sums[start..start + tile.len()].copy_from_slice(&found[..tile.len()]);
        }
        sums
    }

    fn of(kernel: Kernel, panels: [&[u8]; PANELS], tokens: &[Vec<u8>]) -> Sums {
        match kernel {
            Kernel::Portable(portable) => products(portable, panels, tokens),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2(avx2) => products(avx2, panels, tokens),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512(avx512) => products(avx512, panels, tokens),
            #[cfg(target_arch = "aarch64")]
            Kernel::Neon(neon) => products(neon, panels, tokens),
        }
    }

    #[test]
    fn every_kernel_finds_the_dot_products_exactly() {
        for inputs in [4, 8, 12, 32, 384, 1536] {
            for count in 1..=TILE {
                let panels = bytes(PANELS * PANEL * inputs, inputs as u64);
                let (first, second) = panels.split_at(PANEL * inputs);
                let mut tokens: Vec<Vec<u8>> = (0..count)
                    .map(|token| bytes(inputs, 99 + token as u64))
                    .collect();
                // The extremes, where an instruction that saturates would show.
                tokens[0].fill(127);
                if count > 1 {
                    tokens[1].fill((-127_i8).cast_unsigned());
                }
                for (panel, at) in [(first, 0), (second, 1)] {
                    for kernel in Kernel::all() {
                        let sums = of(kernel, [first, second], &tokens);
                        for (token, codes) in tokens.iter().enumerate() {
                            for (output, &found) in sums[token][at].iter().enumerate() {
                                let expected: i32 = (0..inputs)
                                    .map(|input| {
                                        let place = input / 4 * 4 * PANEL + output * 4 + input % 4;
                                        i32::from(panel[place].cast_signed())
                                            * i32::from(codes[input].cast_signed())
                                    })
                                    .sum();
                                assert_eq!(found, expected, "{kernel:?}, {inputs} inputs");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn every_kernel_multiplies_floats_to_the_same_bits() {
        let floats = |count, seed| -> Vec<f32> {
            let bytes = bytes(count, seed);
            bytes
                .iter()
                .map(|&byte| f32::from(byte.cast_signed()) / 7.0)
                .collect()
        };
        for (steps, a_row, b_row) in [(1, 1, 16), (3, 5, 16), (32, 32, 48), (250, 256, 32)] {
            let a = floats((ROWS - 1) * a_row + steps, 1);
            let b = floats((steps - 1) * b_row + LANES, 2);
            for kernel in Kernel::all() {
                let found = match kernel {
                    Kernel::Portable(kernel) => kernel.outer(&a, a_row, &b, b_row, steps),
                    #[cfg(target_arch = "x86_64")]
                    Kernel::Avx2(kernel) => kernel.outer(&a, a_row, &b, b_row, steps),
                    #[cfg(target_arch = "x86_64")]
                    Kernel::Avx512(kernel) => kernel.outer(&a, a_row, &b, b_row, steps),
                    #[cfg(target_arch = "aarch64")]
                    Kernel::Neon(kernel) => kernel.outer(&a, a_row, &b, b_row, steps),
                };
                for (row, found) in found.iter().enumerate() {
                    for (lane, found) in found.iter().enumerate() {
                        let mut expected = 0.0_f32;
                        for step in 0..steps {
                            expected += a[row * a_row + step] * b[step * b_row + lane];
                        }
                        assert_eq!(found.to_bits(), expected.to_bits(), "{kernel:?}, {steps}");
                    }
                }
            }
        }
    }

    #[test]
    fn extreme_codes_do_not_saturate() {
        let inputs = 1536;
        for (weight, code) in [(127_i8, 127_i8), (-127, 127), (127, -127), (-127, -127)] {
            let panel = vec![weight.cast_unsigned(); PANEL * inputs];
            let tokens = vec![vec![code.cast_unsigned(); inputs]; TILE];
            for kernel in Kernel::all() {
                let sums = of(kernel, [&panel, &panel], &tokens);
                let expected = i32::from(weight) * i32::from(code) * inputs as i32;
                assert!(
                    sums.as_flattened()
                        .as_flattened()
                        .iter()
                        .all(|&sum| sum == expected),
                    "{kernel:?}"
                );
            }
        }
    }
}
