//! Dot products with the 128-bit vectors of aarch64.

use std::arch::aarch64::{float32x4_t, vaddq_f32, vaddvq_f32, vdupq_n_f32, vfmaq_f32, vld1q_f32};
use std::arch::is_aarch64_feature_detected;

const LANES: usize = 4;
/// Four sums in flight hide the latency of the multiply-add.
const BLOCK: usize = 4 * LANES;

/// Proof that this CPU has NEON.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Neon(());

impl Neon {
    /// The proof, if the CPU has it.
    pub(super) fn new() -> Option<Self> {
        is_aarch64_feature_detected!("neon").then_some(Self(()))
    }

    /// See [`super::Kernel::dot_rows`].
    pub(super) fn dot_rows(self, query: &[f32], rows: &[f32], scores: &mut [f32]) {
        // SAFETY: a value of this type exists only where the CPU has NEON.
        unsafe { dot_rows(query, rows, scores) }
    }

    /// See [`super::Kernel::dot_codes`].
    #[cfg(feature = "hnsw")]
    pub(super) fn dot_codes(self, a: &[i8], b: &[i8]) -> i32 {
        // SAFETY: a value of this type exists only where the CPU has NEON.
        unsafe { codes::dot(a, b) }
    }
}

#[target_feature(enable = "neon")]
fn dot_rows(query: &[f32], rows: &[f32], scores: &mut [f32]) {
    for (score, row) in scores.iter_mut().zip(rows.chunks_exact(query.len())) {
        *score = dot(query, row);
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a_blocks, a_tail) = a.as_chunks::<BLOCK>();
    let (b_blocks, b_tail) = b.as_chunks::<BLOCK>();
    let mut sums = [vdupq_n_f32(0.0); BLOCK / LANES];
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        let (x, _) = x.as_chunks::<LANES>();
        let (y, _) = y.as_chunks::<LANES>();
        for (sum, (x, y)) in sums.iter_mut().zip(x.iter().zip(y)) {
            *sum = vfmaq_f32(*sum, load(x), load(y));
        }
    }
    let [s0, s1, s2, s3] = sums;
    let mut total = vaddvq_f32(vaddq_f32(vaddq_f32(s0, s1), vaddq_f32(s2, s3)));
    for (x, y) in a_tail.iter().zip(b_tail) {
        total = x.mul_add(*y, total);
    }
    total
}

#[inline]
#[target_feature(enable = "neon")]
fn load(lanes: &[f32; LANES]) -> float32x4_t {
    // SAFETY: the reference covers the 16 bytes that are read; the load needs no alignment.
    unsafe { vld1q_f32(lanes.as_ptr()) }
}

/// Products of int8 codes: multiplied to 16 bits, and added in pairs to 32 bits.
#[cfg(feature = "hnsw")]
mod codes {
    use std::arch::aarch64::{int8x8_t, vaddvq_s32, vdupq_n_s32, vld1_s8, vmull_s8, vpadalq_s16};

    const LANES: usize = 8;

    #[target_feature(enable = "neon")]
    pub(super) fn dot(a: &[i8], b: &[i8]) -> i32 {
        let length = a.len().min(b.len());
        let (a_blocks, a_tail) = a[..length].as_chunks::<LANES>();
        let (b_blocks, b_tail) = b[..length].as_chunks::<LANES>();
        let mut sum = vdupq_n_s32(0);
        for (x, y) in a_blocks.iter().zip(b_blocks) {
            sum = vpadalq_s16(sum, vmull_s8(load(x), load(y)));
        }
        let tail: i32 = a_tail
            .iter()
            .zip(b_tail)
            .map(|(&x, &y)| i32::from(x) * i32::from(y))
            .sum();
        vaddvq_s32(sum) + tail
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn load(codes: &[i8; LANES]) -> int8x8_t {
        // SAFETY: the reference covers the 8 bytes that are read; the load needs no alignment.
        unsafe { vld1_s8(codes.as_ptr()) }
    }
}
