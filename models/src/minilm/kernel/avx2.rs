//! Products of 8-bit codes with 256-bit vectors.
//!
//! `vpmaddubsw` multiplies unsigned by signed codes and adds pairs in 16 bits, where 255 * 127 * 2
//! would saturate. So the first factor is the activation's magnitude, and its sign moves to the
//! weight: codes are from -127 to 127, and 127 * 127 * 2 fits.

use std::arch::x86_64::{
    __m256, __m256i, _mm256_abs_epi8, _mm256_add_epi32, _mm256_add_ps, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_set1_epi16,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256, _mm256_sign_epi8,
    _mm256_storeu_ps, _mm256_storeu_si256,
};

use super::{Multiply, ROWS, Sums, check, check_outer, dispatch};
use crate::minilm::file::{PANEL, PANELS, Weights};
use crate::minilm::forward::{self, Batch};
use crate::minilm::math::LANES;

/// Vectors of a panel's group of four inputs.
const HALVES: usize = 2;

/// Rows of a product of floats that fit the registers.
const QUAD: usize = 4;

/// Proof that this CPU has AVX2.
#[derive(Clone, Copy, Debug)]
pub(in crate::minilm) struct Avx2(());

impl Avx2 {
    /// The proof, if the CPU has it.
    pub(super) fn new() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }

    /// See [`super::Kernel::run`].
    pub(super) fn run(self, weights: &Weights, adapter: &[f32], batch: &Batch, out: &mut [f32]) {
        // SAFETY: a value of this type exists only where the CPU has AVX2.
        unsafe { run(self, weights, adapter, batch, out) }
    }
}

#[target_feature(enable = "avx2")]
fn run(kernel: Avx2, weights: &Weights, adapter: &[f32], batch: &Batch, out: &mut [f32]) {
    forward::run(kernel, weights, adapter, batch, out);
}

impl Multiply for Avx2 {
    const TOKENS: usize = 5;
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
            // SAFETY: a value of this type exists only where the CPU has AVX2, and `check` has
            // compared the lengths.
            unsafe {
                dispatch!(codes.len(), product(panel, at, codes, sums), 1 2 3 4 5);
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
            // SAFETY: a value of this type exists only where the CPU has AVX2, and
            // `check_outer` has checked the indexes.
            unsafe { outer(&a[at * QUAD * a_row..], a_row, b, b_row, steps, sums) };
        }
        sums
    }
}

/// # Safety
/// `codes` are `M` tokens, and the lengths are those that [`check`] asks for.
#[target_feature(enable = "avx2")]
unsafe fn product<const M: usize>(panel: &[u8], at: usize, codes: &[&[u8]], sums: &mut Sums) {
    let ones = _mm256_set1_epi16(1);
    let mut found: [[__m256i; HALVES]; M] = [[_mm256_setzero_si256(); HALVES]; M];
    let tokens: [*const u8; M] = std::array::from_fn(|token| codes[token].as_ptr());
    let start = panel.as_ptr();
    for step in 0..panel.len() / (4 * PANEL) {
        // SAFETY: the panel has 64 bytes for this step, and each token has four.
        unsafe {
            let weights = start.add(step * 4 * PANEL);
            let weights: [__m256i; HALVES] =
                std::array::from_fn(|half| _mm256_loadu_si256(weights.add(half * 32).cast()));
            let magnitudes = weights.map(|weights| _mm256_abs_epi8(weights));
            for (found, token) in found.iter_mut().zip(tokens) {
                let four = _mm256_set1_epi32(token.add(step * 4).cast::<i32>().read_unaligned());
                for (half, found) in found.iter_mut().enumerate() {
                    let signed = _mm256_sign_epi8(four, weights[half]);
                    let pairs = _mm256_maddubs_epi16(magnitudes[half], signed);
                    *found = _mm256_add_epi32(*found, _mm256_madd_epi16(pairs, ones));
                }
            }
        }
    }
    for (found, sums) in found.iter().zip(sums) {
        for (half, found) in found.iter().enumerate() {
            // SAFETY: a panel's sums are 16 words, two vectors.
            unsafe { _mm256_storeu_si256(sums[at].as_mut_ptr().add(half * 8).cast(), *found) };
        }
    }
}

/// # Safety
/// The indexes are those that [`check_outer`] asks for, for the rows of `sums`.
#[target_feature(enable = "avx2")]
unsafe fn outer(
    a: &[f32],
    a_row: usize,
    b: &[f32],
    b_row: usize,
    steps: usize,
    sums: &mut [[f32; LANES]; QUAD],
) {
    const VECTORS: usize = LANES / 8;
    let mut found: [[__m256; VECTORS]; QUAD] = [[_mm256_setzero_ps(); VECTORS]; QUAD];
    let (a, b) = (a.as_ptr(), b.as_ptr());
    for step in 0..steps {
        // SAFETY: the caller has checked the indexes.
        unsafe {
            let b = b.add(step * b_row);
            let b: [__m256; VECTORS] = std::array::from_fn(|at| _mm256_loadu_ps(b.add(at * 8)));
            for (row, found) in found.iter_mut().enumerate() {
                let a = _mm256_set1_ps(*a.add(row * a_row + step));
                for (found, b) in found.iter_mut().zip(b) {
                    *found = _mm256_add_ps(*found, _mm256_mul_ps(a, b));
                }
            }
        }
    }
    for (found, sums) in found.iter().zip(sums) {
        for (found, sums) in found.iter().zip(sums.chunks_exact_mut(8)) {
            // SAFETY: `sums` holds 8 floats.
            unsafe { _mm256_storeu_ps(sums.as_mut_ptr(), *found) };
        }
    }
}
