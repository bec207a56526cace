//! Dot products and Hamming distances with the 128-bit vectors of aarch64.

use std::arch::aarch64::{
    float32x4_t, int8x16_t, int32x4_t, uint8x16_t, uint64x2_t, vaddq_f32, vaddq_s32, vaddq_u8,
    vaddq_u64, vaddvq_f32, vaddvq_s32, vcntq_u8, vdupq_n_f32, vdupq_n_s32, vdupq_n_u8, vdupq_n_u64,
    veorq_u8, vfmaq_f32, vget_low_s8, vgetq_lane_u64, vld1q_f32, vld1q_s8, vld1q_u64,
    vmull_high_s8, vmull_s8, vpadalq_s16, vpaddlq_u8, vpaddlq_u16, vpaddlq_u32,
    vreinterpretq_u8_u64,
};
use std::arch::is_aarch64_feature_detected;

use super::{CodeLine, LANES as CODES, Near, RowLine, prefetch_ahead};

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

    /// See [`super::Kernel::near_codes`]; positions count from `start`.
    pub(super) fn near_codes(
        self,
        query: &[u64],
        blocks: &[CodeLine],
        radius: u32,
        start: u32,
        out: &mut Vec<Near>,
    ) {
        // SAFETY: a value of this type exists only where the CPU has NEON.
        unsafe { near_codes(query, blocks, radius, start, out) }
    }

    /// See [`super::Kernel::dot_lines`].
    pub(super) fn dot_lines(self, query: &[RowLine], rows: &[RowLine], scores: &mut [i32]) {
        // SAFETY: a value of this type exists only where the CPU has NEON.
        unsafe { dot_lines(query, rows, scores) }
    }

    /// See [`super::Kernel::dot_lines_at`].
    pub(super) fn dot_lines_at(
        self,
        query: &[RowLine],
        rows: &[RowLine],
        at: &[u32],
        scores: &mut [i32],
    ) {
        // SAFETY: a value of this type exists only where the CPU has NEON.
        unsafe { dot_lines_at(query, rows, at, scores) }
    }

    /// See [`super::Kernel::dot_codes`].
    #[cfg(feature = "hnsw")]
    pub(super) fn dot_codes(self, a: &[i8], b: &[i8]) -> i32 {
        // SAFETY: a value of this type exists only where the CPU has NEON.
        unsafe { dot_codes(a, b) }
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

/// Picks the loop for the length of the code.
#[target_feature(enable = "neon")]
fn near_codes(query: &[u64], blocks: &[CodeLine], radius: u32, start: u32, out: &mut Vec<Near>) {
    macro_rules! lengths {
        ($($words:literal)+) => {
            match query.len() {
                $($words => {
                    if let Some(query) = query.first_chunk::<$words>() {
                        near_fixed::<$words>(query, blocks, radius, start, out);
                    }
                })+
                _ => near_any(query, blocks, radius, start, out),
            }
        };
    }
    lengths!(1 2 4 6 8 12 24);
}

/// Codes of `WORDS` words.
#[target_feature(enable = "neon")]
fn near_fixed<const WORDS: usize>(
    query: &[u64; WORDS],
    blocks: &[CodeLine],
    radius: u32,
    start: u32,
    out: &mut Vec<Near>,
) {
    let (blocks, _) = blocks.as_chunks::<WORDS>();
    for (start, block) in (start..).step_by(CODES).zip(blocks) {
        near_block(query, block, radius, start, out);
    }
}

/// Codes of any length.
#[target_feature(enable = "neon")]
fn near_any(query: &[u64], blocks: &[CodeLine], radius: u32, start: u32, out: &mut Vec<Near>) {
    let starts = (start..).step_by(CODES);
    for (start, block) in starts.zip(blocks.chunks_exact(query.len())) {
        near_block(query, block, radius, start, out);
    }
}

/// Words whose differing bits can be counted in bytes: each adds up to 8 to a byte.
const COUNTED: usize = 31;

/// One block of codes: four registers of two codes each.
#[inline]
#[target_feature(enable = "neon")]
fn near_block(query: &[u64], block: &[CodeLine], radius: u32, start: u32, out: &mut Vec<Near>) {
    let mut sums = [vdupq_n_u64(0); CODES / 2];
    for (words, lines) in query.chunks(COUNTED).zip(block.chunks(COUNTED)) {
        let mut bytes = [vdupq_n_u8(0); CODES / 2];
        for (&word, line) in words.iter().zip(lines) {
            let word = vreinterpretq_u8_u64(vdupq_n_u64(word));
            let (pairs, _) = line.0.as_chunks::<2>();
            for (bytes, pair) in bytes.iter_mut().zip(pairs) {
                *bytes = vaddq_u8(*bytes, vcntq_u8(veorq_u8(word, load_pair(pair))));
            }
        }
        for (sum, bytes) in sums.iter_mut().zip(bytes) {
            *sum = vaddq_u64(*sum, vpaddlq_u32(vpaddlq_u16(vpaddlq_u8(bytes))));
        }
    }
    for (start, sum) in (start..).step_by(2).zip(sums) {
        push(start, sum, radius, out);
    }
}

/// Appends those of the two codes that are within the radius.
#[inline]
#[target_feature(enable = "neon")]
fn push(start: u32, sum: uint64x2_t, radius: u32, out: &mut Vec<Near>) {
    let distances = [vgetq_lane_u64::<0>(sum), vgetq_lane_u64::<1>(sum)];
    for (position, distance) in (start..).zip(distances) {
        // A code has less than 2^32 bits.
        let distance = distance as u32;
        if distance <= radius {
            out.push(Near { position, distance });
        }
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn load_pair(pair: &[u64; 2]) -> uint8x16_t {
    // SAFETY: the reference covers the 16 bytes that are read; the load needs no more alignment.
    vreinterpretq_u8_u64(unsafe { vld1q_u64(pair.as_ptr()) })
}

#[target_feature(enable = "neon")]
fn dot_lines(query: &[RowLine], rows: &[RowLine], scores: &mut [i32]) {
    for (score, row) in scores.iter_mut().zip(rows.chunks_exact(query.len())) {
        *score = dot_row(query, row);
    }
}

#[target_feature(enable = "neon")]
fn dot_lines_at(query: &[RowLine], rows: &[RowLine], at: &[u32], scores: &mut [i32]) {
    let length = query.len();
    for (i, (score, &position)) in scores.iter_mut().zip(at).enumerate() {
        prefetch_ahead(rows, length, at, i);
        *score = dot_row(query, &rows[position as usize * length..][..length]);
    }
}

/// Int8 codes in a register.
const INT_LANES: usize = 16;

/// Product of two rows of one length.
#[inline]
#[target_feature(enable = "neon")]
fn dot_row(a: &[RowLine], b: &[RowLine]) -> i32 {
    let mut sums = [vdupq_n_s32(0); 4];
    for (x, y) in a.iter().zip(b) {
        let (x, _) = x.0.as_chunks::<INT_LANES>();
        let (y, _) = y.0.as_chunks::<INT_LANES>();
        for (sum, (x, y)) in sums.iter_mut().zip(x.iter().zip(y)) {
            *sum = add_products(*sum, load_codes(x), load_codes(y));
        }
    }
    let [s0, s1, s2, s3] = sums;
    vaddvq_s32(vaddq_s32(vaddq_s32(s0, s1), vaddq_s32(s2, s3)))
}

/// See [`super::Kernel::dot_codes`].
#[cfg(feature = "hnsw")]
#[target_feature(enable = "neon")]
fn dot_codes(a: &[i8], b: &[i8]) -> i32 {
    let length = a.len().min(b.len());
    let (a_blocks, a_tail) = a[..length].as_chunks::<INT_LANES>();
    let (b_blocks, b_tail) = b[..length].as_chunks::<INT_LANES>();
    let mut sum = vdupq_n_s32(0);
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        sum = add_products(sum, load_codes(x), load_codes(y));
    }
    let tail: i32 = a_tail
        .iter()
        .zip(b_tail)
        .map(|(&x, &y)| i32::from(x) * i32::from(y))
        .sum();
    vaddvq_s32(sum) + tail
}

/// Adds the products, made in 16 bits, in pairs to 32 bits.
#[inline]
#[target_feature(enable = "neon")]
fn add_products(sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    let low = vpadalq_s16(sum, vmull_s8(vget_low_s8(a), vget_low_s8(b)));
    vpadalq_s16(low, vmull_high_s8(a, b))
}

#[inline]
#[target_feature(enable = "neon")]
fn load_codes(codes: &[i8; INT_LANES]) -> int8x16_t {
    // SAFETY: the reference covers the 16 bytes that are read; the load needs no alignment.
    unsafe { vld1q_s8(codes.as_ptr()) }
}
