//! Hamming distances and int8 dot products with 512-bit vectors.
//!
//! A [`CodeLine`] is one register: eight codes take a word of the query each step, and one
//! `vpopcntq` counts for all of them. Products use `vpdpbusd`, whose first factor is unsigned: the
//! row is shifted by 128, and 128 times the sum of the query is taken off at the end. Nothing
//! saturates on the way. Products of `f32` are left to the 256-bit code.

use std::arch::x86_64::{
    __m512i, _CMP_LT_OQ, _mm_loadu_si128, _mm512_add_epi32, _mm512_add_epi64, _mm512_cmp_ps_mask,
    _mm512_cmple_epu64_mask, _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32,
    _mm512_load_si512, _mm512_loadu_ps, _mm512_maskz_compress_epi64, _mm512_min_epu64,
    _mm512_mul_ps, _mm512_or_si512, _mm512_popcnt_epi64, _mm512_reduce_add_epi32, _mm512_set_epi64,
    _mm512_set1_epi8, _mm512_set1_epi64, _mm512_set1_ps, _mm512_setzero_si512, _mm512_slli_epi64,
    _mm512_storeu_si512, _mm512_xor_si512,
};

use super::avx2::Avx2;
use super::{CodeLine, LANES, Near, RowLine, fetch, prefetch_ahead};

/// Proof that this CPU has AVX-512 F, BW, VL, VPOPCNTDQ and VNNI, and POPCNT.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512 {
    /// Every such CPU has AVX2, too.
    pub(super) avx2: Avx2,
}

impl Avx512 {
    /// The proof, if the CPU has all of them.
    pub(super) fn new() -> Option<Self> {
        let supported = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vpopcntdq")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("popcnt");
        let avx2 = Avx2::new()?;
        supported.then_some(Self { avx2 })
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
        // SAFETY: a value of this type exists only where the CPU has these instructions.
        unsafe { near_codes(query, blocks, radius, start, out) }
    }

    /// See [`super::Kernel::dot_lines`].
    pub(super) fn dot_lines(self, query: &[RowLine], rows: &[RowLine], scores: &mut [i32]) {
        // SAFETY: a value of this type exists only where the CPU has these instructions.
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
        // SAFETY: a value of this type exists only where the CPU has these instructions.
        unsafe { dot_lines_at(query, rows, at, scores) }
    }

    /// See [`super::Kernel::residual_code`].
    pub(super) fn residual_code(
        self,
        vector: &[f32],
        center: &[RowLine],
        scale: f32,
        code: &mut [u64],
    ) {
        // SAFETY: a value of this type exists only where the CPU has these instructions.
        unsafe { residual_code(vector, center, scale, code) }
    }
}

/// Lines between the ones counted and the ones asked for meanwhile, one page of memory. The CPU
/// looks ahead by itself, but not far enough to keep memory busy at this speed.
const FETCHED: usize = 64;

/// Picks the loop for the length of the code. The number of blocks taken at once makes about
/// sixteen lines of work between two branches.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vpopcntdq,popcnt")]
fn near_codes(query: &[u64], blocks: &[CodeLine], radius: u32, start: u32, out: &mut Vec<Near>) {
    macro_rules! lengths {
        ($($words:literal x $group:literal),+) => {
            match query.len() {
                $($words => {
                    if let Some(query) = query.first_chunk::<$words>() {
                        near_fixed::<$words, $group>(query, blocks, radius, start, out);
                    }
                })+
                _ => near_any(query, blocks, radius, start, out),
            }
        };
    }
    lengths!(1 x 8, 2 x 8, 4 x 4, 6 x 4, 8 x 2, 12 x 1, 24 x 1);
}

/// Codes of `WORDS` words, `GROUP` blocks between two branches.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vpopcntdq,popcnt")]
fn near_fixed<const WORDS: usize, const GROUP: usize>(
    query: &[u64; WORDS],
    blocks: &[CodeLine],
    radius: u32,
    mut start: u32,
    out: &mut Vec<Near>,
) {
    let (blocks, _) = blocks.as_chunks::<WORDS>();
    let (groups, rest) = blocks.as_chunks::<GROUP>();
    let ahead = FETCHED.div_ceil(WORDS * GROUP);
    let (early, late) = groups.split_at(groups.len().saturating_sub(ahead));
    if WORDS <= 8 {
        near_groups::<WORDS, GROUP, true>(query, early, radius, start, out);
    } else {
        near_groups::<WORDS, GROUP, false>(query, early, radius, start, out);
    }
    start += (early.len() * GROUP * LANES) as u32;
    near_groups::<WORDS, GROUP, false>(query, late, radius, start, out);
    start += (late.len() * GROUP * LANES) as u32;
    push_blocks(query, rest, radius, start, out);
}

/// Whole groups of blocks. `FETCH` asks for lines [`FETCHED`] after each one, which must be there
/// if it is to be of use.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vpopcntdq,popcnt")]
fn near_groups<const WORDS: usize, const GROUP: usize, const FETCH: bool>(
    query: &[u64; WORDS],
    groups: &[[[CodeLine; WORDS]; GROUP]],
    radius: u32,
    mut start: u32,
    out: &mut Vec<Near>,
) {
    let words = spread_all(query);
    let limit = spread(radius.into());
    for group in groups {
        let mut least = _mm512_set1_epi64(-1);
        for block in group {
            if FETCH {
                for line in block {
                    fetch((&raw const *line).wrapping_add(FETCHED));
                }
            }
            least = _mm512_min_epu64(least, distances(&words, block));
        }
        if _mm512_cmple_epu64_mask(least, limit) != 0 {
            push_blocks(query, group, radius, start, out);
        }
        start += (GROUP * LANES) as u32;
    }
}

/// Appends the near codes of a few blocks. They are counted once more, which costs less than to
/// keep the counts of every group that has none.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vpopcntdq,popcnt")]
fn push_blocks<const WORDS: usize>(
    query: &[u64; WORDS],
    blocks: &[[CodeLine; WORDS]],
    radius: u32,
    start: u32,
    out: &mut Vec<Near>,
) {
    let words = spread_all(query);
    let limit = spread(radius.into());
    for (start, block) in (start..).step_by(LANES).zip(blocks) {
        push(distances(&words, block), limit, start, out);
    }
}

/// Codes of any length.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vpopcntdq,popcnt")]
fn near_any(query: &[u64], blocks: &[CodeLine], radius: u32, start: u32, out: &mut Vec<Near>) {
    let limit = spread(radius.into());
    let starts = (start..).step_by(LANES);
    for (start, block) in starts.zip(blocks.chunks_exact(query.len())) {
        let mut sum = _mm512_setzero_si512();
        for (&word, line) in query.iter().zip(block) {
            sum = _mm512_add_epi64(sum, differing(spread(word), line));
        }
        push(sum, limit, start, out);
    }
}

/// Bits in which each code of the block differs from the query.
#[inline]
#[target_feature(enable = "avx512f,avx512vpopcntdq")]
fn distances<const WORDS: usize>(words: &[__m512i; WORDS], block: &[CodeLine; WORDS]) -> __m512i {
    let mut sum = _mm512_setzero_si512();
    for (&word, line) in words.iter().zip(block) {
        sum = _mm512_add_epi64(sum, differing(word, line));
    }
    sum
}

#[inline]
#[target_feature(enable = "avx512f,avx512vpopcntdq")]
fn differing(word: __m512i, line: &CodeLine) -> __m512i {
    _mm512_popcnt_epi64(_mm512_xor_si512(word, load_codes(line)))
}

/// The lanes named by the mask, first. In the register: a compressing store is slow on some CPUs.
#[inline]
#[target_feature(enable = "avx512f")]
fn pack(near: u8, pairs: __m512i) -> __m512i {
    #[cfg(not(miri))]
    return _mm512_maskz_compress_epi64(near, pairs);
    // Miri does not know the instruction.
    #[cfg(miri)]
    {
        let mut lanes = [0u64; LANES];
        // SAFETY: the array is the 64 bytes that are written and read, at any alignment.
        unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), pairs) }
        let mut packed = [0u64; LANES];
        let kept = (0..LANES).filter(|lane| near >> lane & 1 != 0);
        for (to, lane) in kept.enumerate() {
            packed[to] = lanes[lane];
        }
        // SAFETY: as above.
        unsafe { std::arch::x86_64::_mm512_loadu_si512(packed.as_ptr().cast()) }
    }
}

/// Appends the lanes within the limit. Without a branch, as none could be foretold.
#[inline]
#[target_feature(enable = "avx512f,popcnt")]
fn push(distances: __m512i, limit: __m512i, start: u32, out: &mut Vec<Near>) {
    let near = _mm512_cmple_epu64_mask(distances, limit);
    // A lane becomes a `Near`: the position in its low half, the distance in its high half.
    let lanes = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0);
    let positions = _mm512_add_epi64(spread(start.into()), lanes);
    let pairs = _mm512_or_si512(_mm512_slli_epi64::<32>(distances), positions);
    let packed = pack(near, pairs);
    if out.capacity() - out.len() < LANES {
        out.reserve(LANES);
    }
    let length = out.len();
    // SAFETY: there is room for eight more of them, which are the 64 bytes written, at any
    // alignment. The first `count_ones` lanes hold a `Near` each: two `u32`, the position first in
    // the byte order of x86.
    unsafe {
        _mm512_storeu_si512(out.as_mut_ptr().add(length).cast(), packed);
        out.set_len(length + near.count_ones() as usize);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn dot_lines(query: &[RowLine], rows: &[RowLine], scores: &mut [i32]) {
    let shift = shift(query);
    for (score, row) in scores.iter_mut().zip(rows.chunks_exact(query.len())) {
        *score = dot(query, row).wrapping_sub(shift);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn dot_lines_at(query: &[RowLine], rows: &[RowLine], at: &[u32], scores: &mut [i32]) {
    let shift = shift(query);
    let length = query.len();
    for (i, (score, &position)) in scores.iter_mut().zip(at).enumerate() {
        prefetch_ahead(rows, length, at, i);
        let row = &rows[position as usize * length..][..length];
        *score = dot(query, row).wrapping_sub(shift);
    }
}

/// What the shift of the rows adds to every product: 128 times the sum of the query.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn shift(query: &[RowLine]) -> i32 {
    let weights = _mm512_set1_epi8(1);
    let mut sum = _mm512_setzero_si512();
    for line in query {
        sum = _mm512_dpbusd_epi32(sum, weights, load_row(line));
    }
    128 * _mm512_reduce_add_epi32(sum)
}

/// The product of the query with the row shifted by 128.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn dot(query: &[RowLine], row: &[RowLine]) -> i32 {
    let flip = _mm512_set1_epi8(-128);
    let mut even = _mm512_setzero_si512();
    let mut odd = _mm512_setzero_si512();
    let (query_pairs, query_last) = query.as_chunks::<2>();
    let (row_pairs, row_last) = row.as_chunks::<2>();
    for ([q0, q1], [r0, r1]) in query_pairs.iter().zip(row_pairs) {
        even = _mm512_dpbusd_epi32(even, _mm512_xor_si512(load_row(r0), flip), load_row(q0));
        odd = _mm512_dpbusd_epi32(odd, _mm512_xor_si512(load_row(r1), flip), load_row(q1));
    }
    if let ([q], [r]) = (query_last, row_last) {
        even = _mm512_dpbusd_epi32(even, _mm512_xor_si512(load_row(r), flip), load_row(q));
    }
    _mm512_reduce_add_epi32(_mm512_add_epi32(even, odd))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn spread_all<const WORDS: usize>(query: &[u64; WORDS]) -> [__m512i; WORDS] {
    let mut words = [_mm512_setzero_si512(); WORDS];
    for (word, &bits) in words.iter_mut().zip(query) {
        *word = spread(bits);
    }
    words
}

#[inline]
#[target_feature(enable = "avx512f")]
fn spread(word: u64) -> __m512i {
    _mm512_set1_epi64(word.cast_signed())
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_codes(line: &CodeLine) -> __m512i {
    // SAFETY: the reference covers the 64 bytes that are read, at the alignment of its type.
    unsafe { _mm512_load_si512(line.0.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_row(line: &RowLine) -> __m512i {
    // SAFETY: the reference covers the 64 bytes that are read, at the alignment of its type.
    unsafe { _mm512_load_si512(line.0.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
fn residual_code(vector: &[f32], center: &[RowLine], scale: f32, code: &mut [u64]) {
    let scale = _mm512_set1_ps(scale);
    let parts = vector.as_chunks::<64>().0.iter();
    for ((part, center), word) in parts.zip(center).zip(code) {
        let (values, _) = part.as_chunks::<16>();
        let (components, _) = center.0.as_chunks::<16>();
        *word = 0;
        for (at, (values, components)) in values.iter().zip(components).enumerate() {
            // SAFETY: the references cover the 64 and the 16 bytes that are read; neither load
            // needs an alignment.
            let (values, components) = unsafe {
                (
                    _mm512_loadu_ps(values.as_ptr()),
                    _mm_loadu_si128(components.as_ptr().cast()),
                )
            };
            let components = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(components));
            let below = _mm512_mul_ps(components, scale);
            let bits = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(values, below);
            *word |= u64::from(bits) << (16 * at);
        }
    }
}
