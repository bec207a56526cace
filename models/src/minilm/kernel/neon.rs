//! Products of 8-bit codes with the 128-bit vectors of aarch64.
//!
//! Products of signed codes are 16 bits wide; two of them are added there, where 127 * 127 * 2
//! fits, and pairs of those are added up in 32 bits. A CPU with the dot product instruction could
//! do better; the intrinsic is not stable in the oldest compiler that is supported.

use std::arch::aarch64::{
    float32x4_t, int32x4_t, vaddq_f32, vcombine_s8, vdup_n_s32, vdupq_n_f32, vdupq_n_s32,
    vget_low_s8, vld1q_f32, vld1q_s8, vmlal_high_s8, vmlal_s8, vmull_high_s8, vmull_s8, vmulq_f32,
    vpadalq_s16, vpaddq_s32, vreinterpret_s8_s32, vst1q_f32, vst1q_s32,
};

use super::{Multiply, ROWS, Sums, check, check_outer, dispatch};
use crate::minilm::file::{PANEL, PANELS, Weights};
use crate::minilm::forward::{self, Batch};
use crate::minilm::math::LANES;

/// Vectors of a panel's group of four inputs.
const QUARTERS: usize = 4;

/// Rows of a product of floats that fit the registers.
const QUAD: usize = 4;

/// Proof that this CPU has NEON.
#[derive(Clone, Copy, Debug)]
pub(in crate::minilm) struct Neon(());

impl Neon {
    /// The proof, if the CPU has it.
    pub(super) fn new() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Self(()))
    }

    /// See [`super::Kernel::run`].
    pub(super) fn run(self, weights: &Weights, adapter: &[f32], batch: &Batch, out: &mut [f32]) {
        // SAFETY: a value of this type exists only where the CPU has NEON.
        unsafe { run(self, weights, adapter, batch, out) }
    }
}

#[target_feature(enable = "neon")]
fn run(kernel: Neon, weights: &Weights, adapter: &[f32], batch: &Batch, out: &mut [f32]) {
    forward::run(kernel, weights, adapter, batch, out);
}

impl Multiply for Neon {
    const TOKENS: usize = 2;
    const FLIP: u8 = 0;

    #[inline(always)]
    fn tile(
        self,
        panels: [&[u8]; PANELS],
        _offsets: &[i32; PANEL * PANELS],
        codes: &[&[u8]],
        sums: &mut Sums,
    ) {
        check(panels, codes, Self::TOKENS);
        for (at, panel) in panels.iter().enumerate() {
            // SAFETY: a value of this type exists only where the CPU has NEON, and `check` has
            // compared the lengths.
            unsafe {
                dispatch!(codes.len(), product(panel, at, codes, sums), 1 2);
            }
        }
    }

    #[inline(always)]
    fn outer(
        self,
        a: &[f32],
        a_row: usize,
        b: &[f32],
        b_row: usize,
        steps: usize,
    ) -> [[f32; LANES]; ROWS] {
        check_outer(a, a_row, b, b_row, steps);
        let mut sums = [[0.0; LANES]; ROWS];
        for (at, sums) in sums.as_chunks_mut::<QUAD>().0.iter_mut().enumerate() {
            // SAFETY: a value of this type exists only where the CPU has NEON, and
            // `check_outer` has checked the indexes.
            unsafe { outer(&a[at * QUAD * a_row..], a_row, b, b_row, steps, sums) };
        }
        sums
    }
}

/// # Safety
/// `codes` are `M` tokens, and the lengths are those that [`check`] asks for.
#[target_feature(enable = "neon")]
unsafe fn product<const M: usize>(panel: &[u8], at: usize, codes: &[&[u8]], sums: &mut Sums) {
    // Two partial sums for each output.
    let mut found: [[[int32x4_t; 2]; QUARTERS]; M] = [[[vdupq_n_s32(0); 2]; QUARTERS]; M];
    let tokens: [*const u8; M] = std::array::from_fn(|token| codes[token].as_ptr());
    let start = panel.as_ptr().cast::<i8>();
    let steps = panel.len() / (4 * PANEL);
    let mut step = 0;
    // SAFETY: the panel has 64 bytes for each step, and each token has four.
    unsafe {
        let four = |token: *const u8, step: usize| {
            let four = vreinterpret_s8_s32(vdup_n_s32(
                token.add(step * 4).cast::<i32>().read_unaligned(),
            ));
            vcombine_s8(four, four)
        };
        while step + 1 < steps {
            let weights = start.add(step * 4 * PANEL);
            for (found, token) in found.iter_mut().zip(tokens) {
                let (a, b) = (four(token, step), four(token, step + 1));
                for (quarter, [low, high]) in found.iter_mut().enumerate() {
                    let first = vld1q_s8(weights.add(quarter * 16));
                    let second = vld1q_s8(weights.add(4 * PANEL + quarter * 16));
                    let pairs = vmull_s8(vget_low_s8(first), vget_low_s8(a));
                    let pairs = vmlal_s8(pairs, vget_low_s8(second), vget_low_s8(b));
                    *low = vpadalq_s16(*low, pairs);
                    let pairs = vmlal_high_s8(vmull_high_s8(first, a), second, b);
                    *high = vpadalq_s16(*high, pairs);
                }
            }
            step += 2;
        }
        if step < steps {
            let weights = start.add(step * 4 * PANEL);
            for (found, token) in found.iter_mut().zip(tokens) {
                let a = four(token, step);
                for (quarter, [low, high]) in found.iter_mut().enumerate() {
                    let first = vld1q_s8(weights.add(quarter * 16));
                    *low = vpadalq_s16(*low, vmull_s8(vget_low_s8(first), vget_low_s8(a)));
                    *high = vpadalq_s16(*high, vmull_high_s8(first, a));
                }
            }
        }
        for (found, sums) in found.iter().zip(sums) {
            for (quarter, [low, high]) in found.iter().enumerate() {
                vst1q_s32(
                    sums[at].as_mut_ptr().add(quarter * 4),
                    vpaddq_s32(*low, *high),
                );
            }
        }
    }
}

/// # Safety
/// The indexes are those that [`check_outer`] asks for, for the rows of `sums`.
#[target_feature(enable = "neon")]
unsafe fn outer(
    a: &[f32],
    a_row: usize,
    b: &[f32],
    b_row: usize,
    steps: usize,
    sums: &mut [[f32; LANES]; QUAD],
) {
    const VECTORS: usize = LANES / 4;
    let mut found: [[float32x4_t; VECTORS]; QUAD] = [[vdupq_n_f32(0.0); VECTORS]; QUAD];
    let (a, b) = (a.as_ptr(), b.as_ptr());
    for step in 0..steps {
        // SAFETY: the caller has checked the indexes.
        unsafe {
            let b = b.add(step * b_row);
            let b: [float32x4_t; VECTORS] = std::array::from_fn(|at| vld1q_f32(b.add(at * 4)));
            for (row, found) in found.iter_mut().enumerate() {
                let a = vdupq_n_f32(*a.add(row * a_row + step));
                for (found, b) in found.iter_mut().zip(b) {
                    *found = vaddq_f32(*found, vmulq_f32(a, b));
                }
            }
        }
    }
    for (found, sums) in found.iter().zip(sums) {
        for (found, sums) in found.iter().zip(sums.chunks_exact_mut(4)) {
            // SAFETY: `sums` holds 4 floats.
            unsafe { vst1q_f32(sums.as_mut_ptr(), *found) };
        }
    }
}
