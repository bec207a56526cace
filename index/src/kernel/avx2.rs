//! Dot products with 256-bit vectors and fused multiply-add.

use std::arch::x86_64::{
    __m256, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_movehdup_ps, _mm_movehl_ps, _mm256_add_ps,
    _mm256_castps256_ps128, _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_loadu_ps,
    _mm256_setzero_ps,
};

const LANES: usize = 8;
/// Four sums in flight hide the latency of the multiply-add.
const BLOCK: usize = 4 * LANES;

/// Proof that this CPU has AVX2 and FMA.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// The proof, if the CPU has both.
    pub(super) fn new() -> Option<Self> {
        let supported = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        supported.then_some(Self(()))
    }

    /// See [`super::Kernel::dot_rows`].
    pub(super) fn dot_rows(self, query: &[f32], rows: &[f32], scores: &mut [f32]) {
        // SAFETY: a value of this type exists only where the CPU has AVX2 and FMA.
        unsafe { dot_rows(query, rows, scores) }
    }

    /// See [`super::Kernel::dot_codes`].
    #[cfg(feature = "hnsw")]
    pub(super) fn dot_codes(self, a: &[i8], b: &[i8]) -> i32 {
        // SAFETY: a value of this type exists only where the CPU has AVX2 and FMA.
        unsafe { codes::dot(a, b) }
    }
}

#[target_feature(enable = "avx2,fma")]
fn dot_rows(query: &[f32], rows: &[f32], scores: &mut [f32]) {
    for (score, row) in scores.iter_mut().zip(rows.chunks_exact(query.len())) {
        *score = dot(query, row);
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a_blocks, a_rest) = a.as_chunks::<BLOCK>();
    let (b_blocks, b_rest) = b.as_chunks::<BLOCK>();
    let mut sums = [_mm256_setzero_ps(); BLOCK / LANES];
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        let (x, _) = x.as_chunks::<LANES>();
        let (y, _) = y.as_chunks::<LANES>();
        for (sum, (x, y)) in sums.iter_mut().zip(x.iter().zip(y)) {
            *sum = _mm256_fmadd_ps(load(x), load(y), *sum);
        }
    }
    let (a_rest, a_tail) = a_rest.as_chunks::<LANES>();
    let (b_rest, b_tail) = b_rest.as_chunks::<LANES>();
    for (sum, (x, y)) in sums.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *sum = _mm256_fmadd_ps(load(x), load(y), *sum);
    }
    let [s0, s1, s2, s3] = sums;
    let mut total = add_lanes(_mm256_add_ps(_mm256_add_ps(s0, s1), _mm256_add_ps(s2, s3)));
    for (x, y) in a_tail.iter().zip(b_tail) {
        total = x.mul_add(*y, total);
    }
    total
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load(lanes: &[f32; LANES]) -> __m256 {
    // SAFETY: the reference covers the 32 bytes that are read; the load needs no alignment.
    unsafe { _mm256_loadu_ps(lanes.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_lanes(sum: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps::<1>(sum));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

/// Products of int8 codes: widened to 16 bits, multiplied, and added in pairs to 32 bits.
#[cfg(feature = "hnsw")]
mod codes {
    use std::arch::x86_64::{
        __m256i, _mm_add_epi32, _mm_cvtsi128_si32, _mm_loadu_si128, _mm_shuffle_epi32,
        _mm256_add_epi32, _mm256_castsi256_si128, _mm256_cvtepi8_epi16, _mm256_extracti128_si256,
        _mm256_madd_epi16, _mm256_setzero_si256,
    };

    const LANES: usize = 16;

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn dot(a: &[i8], b: &[i8]) -> i32 {
        let length = a.len().min(b.len());
        let (a_blocks, a_tail) = a[..length].as_chunks::<LANES>();
        let (b_blocks, b_tail) = b[..length].as_chunks::<LANES>();
        let mut sum = _mm256_setzero_si256();
        for (x, y) in a_blocks.iter().zip(b_blocks) {
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(widen(x), widen(y)));
        }
        let tail: i32 = a_tail
            .iter()
            .zip(b_tail)
            .map(|(&x, &y)| i32::from(x) * i32::from(y))
            .sum();
        add_lanes(sum) + tail
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn widen(codes: &[i8; LANES]) -> __m256i {
        // SAFETY: the reference covers the 16 bytes that are read; the load needs no alignment.
        _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(codes.as_ptr().cast()) })
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn add_lanes(sum: __m256i) -> i32 {
        let low = _mm256_castsi256_si128(sum);
        let four = _mm_add_epi32(low, _mm256_extracti128_si256::<1>(sum));
        let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
        _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two)))
    }
}
