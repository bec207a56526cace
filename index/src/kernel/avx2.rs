//! Dot products and Hamming distances with 256-bit vectors and fused multiply-add.
//!
//! Bits are counted by nibbles, with a table that `vpshufb` looks up in every byte at once (Muła,
//! Kurz and Lemire, "Faster Population Counts Using AVX2 Instructions", 2018). Products of
//! int8 codes use `vpmaddubsw`, whose first factor is unsigned: it is the size of the row's code, whose
//! sign goes to the query. It saturates for a query with -128 only, which is widened to 16 bits and
//! multiplied so.

use std::arch::x86_64::{
    __m256, __m256i, _CMP_LT_OQ, _mm_add_epi32, _mm_add_ps, _mm_add_ss, _mm_cvtsi128_si32,
    _mm_cvtss_f32, _mm_loadl_epi64, _mm_loadu_si128, _mm_movehdup_ps, _mm_movehl_ps,
    _mm_shuffle_epi32, _mm_storeu_si128, _mm256_abs_epi8, _mm256_add_epi8, _mm256_add_epi32,
    _mm256_add_epi64, _mm256_add_ps, _mm256_and_si256, _mm256_castps_si256, _mm256_castps256_ps128,
    _mm256_castsi256_ps, _mm256_castsi256_si128, _mm256_cmp_ps, _mm256_cmpeq_epi8,
    _mm256_cvtepi8_epi16, _mm256_cvtepi8_epi32, _mm256_cvtepi32_ps, _mm256_extractf128_ps,
    _mm256_extracti128_si256, _mm256_fmadd_ps, _mm256_hadd_epi32, _mm256_load_si256,
    _mm256_loadu_ps, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_movemask_ps, _mm256_mul_ps,
    _mm256_or_si256, _mm256_permute_ps, _mm256_permute2f128_ps, _mm256_permute4x64_epi64,
    _mm256_sad_epu8, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_epi64x,
    _mm256_set1_ps, _mm256_setr_epi8, _mm256_setr_ps, _mm256_setzero_ps, _mm256_setzero_si256,
    _mm256_shuffle_epi8, _mm256_shuffle_ps, _mm256_sign_epi8, _mm256_srli_epi16, _mm256_storeu_ps,
    _mm256_storeu_si256, _mm256_sub_epi32, _mm256_sub_ps, _mm256_testz_si256, _mm256_xor_ps,
    _mm256_xor_si256,
};

use super::{CodeLine, LANES, Near, RowLine, prefetch_ahead, scalar};

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

    /// See [`super::Kernel::near_codes`]; positions count from `start`.
    pub(super) fn near_codes(
        self,
        query: &[u64],
        blocks: &[CodeLine],
        radius: u32,
        start: u32,
        out: &mut Vec<Near>,
    ) {
        // SAFETY: a value of this type exists only where the CPU has AVX2 and FMA.
        unsafe { near_codes(query, blocks, radius, start, out) }
    }

    /// See [`super::Kernel::dot_lines`].
    pub(super) fn dot_lines(self, query: &[RowLine], rows: &[RowLine], scores: &mut [i32]) {
        // SAFETY: a value of this type exists only where the CPU has AVX2 and FMA.
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
        // SAFETY: a value of this type exists only where the CPU has AVX2 and FMA.
        unsafe { dot_lines_at(query, rows, at, scores) }
    }

    /// See [`super::Kernel::hadamard`].
    pub(super) fn hadamard(self, vector: &mut [f32], scale: f32) {
        // SAFETY: a value of this type exists only where the CPU has AVX2 and FMA.
        unsafe { hadamard(vector, scale) }
    }

    /// See [`super::Kernel::planes`].
    pub(super) fn planes(
        self,
        vector: &[f32],
        inverse: f32,
        high: &mut [RowLine],
        low: &mut [RowLine],
    ) {
        // SAFETY: a value of this type exists only where the CPU has AVX2 and FMA.
        unsafe { planes(vector, inverse, high, low) }
    }

    /// See [`super::Kernel::residual_code`].
    pub(super) fn residual_code(
        self,
        vector: &[f32],
        center: &[RowLine],
        scale: f32,
        code: &mut [u64],
    ) {
        // SAFETY: a value of this type exists only where the CPU has AVX2 and FMA.
        unsafe { residual_code(vector, center, scale, code) }
    }

    /// See [`super::Kernel::sum_of_products`].
    pub(super) fn sum_of_products(self, a: &[f32], b: &[f32]) -> f32 {
        // SAFETY: a value of this type exists only where the CPU has AVX2 and FMA.
        unsafe { sum_of_products(a, b) }
    }

    /// See [`super::Kernel::center_product`].
    pub(super) fn center_product(self, vector: &[f32], center: &[RowLine]) -> f32 {
        // SAFETY: a value of this type exists only where the CPU has AVX2 and FMA.
        unsafe { center_product(vector, center) }
    }

    /// See [`super::Kernel::add`].
    pub(super) fn add(self, vector: &[f32], sum: &mut [f32]) {
        // SAFETY: a value of this type exists only where the CPU has AVX2 and FMA.
        unsafe { add(vector, sum) }
    }

    /// See [`super::Kernel::widen`].
    pub(super) fn widen(self, row: &[RowLine], out: &mut [f32]) {
        // SAFETY: a value of this type exists only where the CPU has AVX2 and FMA.
        unsafe { to_floats(row, out) }
    }

    /// See [`super::Kernel::squared_length`].
    pub(super) fn squared_length(self, vector: &[f32]) -> f64 {
        // SAFETY: a value of this type exists only where the CPU has AVX2 and FMA.
        unsafe { squared_length(vector) }
    }

    /// See [`super::Kernel::dot_codes`].
    #[cfg(feature = "hnsw")]
    pub(super) fn dot_codes(self, a: &[i8], b: &[i8]) -> i32 {
        // SAFETY: a value of this type exists only where the CPU has AVX2 and FMA.
        unsafe { dot_codes(a, b) }
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

/// Picks the loop for the length of the code.
#[target_feature(enable = "avx2,fma")]
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

/// Codes of `WORDS` words. Two blocks at a time: mostly neither has a near code, which is one question.
#[target_feature(enable = "avx2,fma")]
fn near_fixed<const WORDS: usize>(
    query: &[u64; WORDS],
    blocks: &[CodeLine],
    radius: u32,
    mut start: u32,
    out: &mut Vec<Near>,
) {
    let limit = limit(radius);
    let (blocks, _) = blocks.as_chunks::<WORDS>();
    let (pairs, rest) = blocks.as_chunks::<2>();
    for [first, second] in pairs {
        let (first, second) = (distances(query, first), distances(query, second));
        let far = _mm256_and_si256(
            _mm256_sub_epi32(limit, first),
            _mm256_sub_epi32(limit, second),
        );
        if signs(far) != 0xff {
            push(first, limit, start, out);
            push(second, limit, start + LANES as u32, out);
        }
        start += 2 * LANES as u32;
    }
    for block in rest {
        push(distances(query, block), limit, start, out);
    }
}

/// Codes of any length.
#[target_feature(enable = "avx2,fma")]
fn near_any(query: &[u64], blocks: &[CodeLine], radius: u32, start: u32, out: &mut Vec<Near>) {
    let limit = limit(radius);
    let starts = (start..).step_by(LANES);
    for (start, block) in starts.zip(blocks.chunks_exact(query.len())) {
        push(distances(query, block), limit, start, out);
    }
}

/// The radius in every lane. No code has 2^31 bits.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn limit(radius: u32) -> __m256i {
    _mm256_set1_epi32(radius.min(i32::MAX.cast_unsigned()).cast_signed())
}

/// Words whose differing bits can be counted in bytes: each adds up to 8 to a byte.
const COUNTED: usize = 31;

/// Distances of the codes of a block, in the order 0 1 4 5 2 3 6 7.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn distances(query: &[u64], block: &[CodeLine]) -> __m256i {
    let [low, high] = if query.len() <= COUNTED {
        count_differing(query, block)
    } else {
        let mut sums = [_mm256_setzero_si256(); 2];
        for (words, lines) in query.chunks(COUNTED).zip(block.chunks(COUNTED)) {
            for (sum, added) in sums.iter_mut().zip(count_differing(words, lines)) {
                *sum = _mm256_add_epi64(*sum, added);
            }
        }
        sums
    };
    // The lower half of each lane: the upper ones are zero.
    _mm256_castps_si256(_mm256_shuffle_ps::<0b10_00_10_00>(
        _mm256_castsi256_ps(low),
        _mm256_castsi256_ps(high),
    ))
}

/// Bits in which up to [`COUNTED`] words of the query differ from those of four codes each.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn count_differing(words: &[u64], lines: &[CodeLine]) -> [__m256i; 2] {
    let mut bytes = [_mm256_setzero_si256(); 2];
    for (&word, line) in words.iter().zip(lines) {
        let word = _mm256_set1_epi64x(word.cast_signed());
        for (bytes, half) in bytes.iter_mut().zip(load_codes(line)) {
            *bytes = _mm256_add_epi8(*bytes, count_ones(_mm256_xor_si256(word, half)));
        }
    }
    bytes.map(|bytes| _mm256_sad_epu8(bytes, _mm256_setzero_si256()))
}

/// The sign of each of the eight lanes, as a bit.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn signs(lanes: __m256i) -> u32 {
    _mm256_movemask_ps(_mm256_castsi256_ps(lanes)).cast_unsigned()
}

/// Bits set in each byte.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn count_ones(bits: __m256i) -> __m256i {
    let table = _mm256_setr_epi8(
        0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, // for the lower 16 bytes
        0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, // and for the upper ones
    );
    let nibble = _mm256_set1_epi8(0x0f);
    let low = _mm256_and_si256(bits, nibble);
    let high = _mm256_and_si256(_mm256_srli_epi16::<4>(bits), nibble);
    _mm256_add_epi8(
        _mm256_shuffle_epi8(table, low),
        _mm256_shuffle_epi8(table, high),
    )
}

/// Appends the codes of a block that are within the limit, given their [`distances`].
#[inline]
#[target_feature(enable = "avx2,fma")]
fn push(distances: __m256i, limit: __m256i, start: u32, out: &mut Vec<Near>) {
    let distances = _mm256_permute4x64_epi64::<0b11_01_10_00>(distances);
    let mut near = !signs(_mm256_sub_epi32(limit, distances)) & 0xff;
    if near == 0 {
        return;
    }
    let mut each = [0u32; LANES];
    // SAFETY: the array is the 32 bytes that are written, at any alignment.
    unsafe { _mm256_storeu_si256(each.as_mut_ptr().cast(), distances) }
    out.reserve(LANES);
    while near != 0 {
        let lane = near.trailing_zeros();
        near &= near - 1;
        out.push(Near {
            position: start + lane,
            distance: each[lane as usize % LANES],
        });
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load_codes(line: &CodeLine) -> [__m256i; 2] {
    let words = line.0.as_ptr();
    // SAFETY: the line is 64 bytes at an alignment of 64, so both halves are inside and aligned.
    unsafe {
        [
            _mm256_load_si256(words.cast()),
            _mm256_load_si256(words.add(LANES / 2).cast()),
        ]
    }
}

#[target_feature(enable = "avx2,fma")]
fn dot_lines(query: &[RowLine], rows: &[RowLine], scores: &mut [i32]) {
    let length = query.len();
    if has_least(query) {
        for (score, row) in scores.iter_mut().zip(rows.chunks_exact(length)) {
            *score = dot_row(query, row);
        }
        return;
    }
    let (scores, scores_rest) = scores.as_chunks_mut::<SIDE_BY_SIDE>();
    let rows_rest = &rows[scores.len() * SIDE_BY_SIDE * length..];
    for (scores, rows) in scores
        .iter_mut()
        .zip(rows.chunks_exact(SIDE_BY_SIDE * length))
    {
        let row = |i: usize| &rows[i * length..][..length];
        *scores = dot_four(query, [row(0), row(1), row(2), row(3)]);
    }
    for (score, row) in scores_rest.iter_mut().zip(rows_rest.chunks_exact(length)) {
        *score = dot_one(query, row);
    }
}

#[target_feature(enable = "avx2,fma")]
fn dot_lines_at(query: &[RowLine], rows: &[RowLine], at: &[u32], scores: &mut [i32]) {
    let length = query.len();
    let row = |position: u32| &rows[position as usize * length..][..length];
    if has_least(query) {
        for (i, (score, &position)) in scores.iter_mut().zip(at).enumerate() {
            prefetch_ahead(rows, length, at, i);
            *score = dot_row(query, row(position));
        }
        return;
    }
    let (scores, scores_rest) = scores.as_chunks_mut::<SIDE_BY_SIDE>();
    let (fours, at_rest) = at.as_chunks::<SIDE_BY_SIDE>();
    for (i, (scores, four)) in scores.iter_mut().zip(fours).enumerate() {
        for lane in 0..SIDE_BY_SIDE {
            prefetch_ahead(rows, length, at, i * SIDE_BY_SIDE + lane);
        }
        *scores = dot_four(query, four.map(row));
    }
    for (score, &position) in scores_rest.iter_mut().zip(at_rest) {
        *score = dot_one(query, row(position));
    }
}

/// Rows whose sums are added up together.
const SIDE_BY_SIDE: usize = 4;

/// Whether a code of the query is -128, which has no positive twin.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn has_least(query: &[RowLine]) -> bool {
    let least = _mm256_set1_epi8(i8::MIN);
    let mut found = _mm256_setzero_si256();
    for half in query.iter().flat_map(|line| load_row(line)) {
        found = _mm256_or_si256(found, _mm256_cmpeq_epi8(half, least));
    }
    _mm256_testz_si256(found, found) == 0
}

/// Products of a query without -128 and four rows.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn dot_four(query: &[RowLine], rows: [&[RowLine]; SIDE_BY_SIDE]) -> [i32; SIDE_BY_SIDE] {
    let mut sums = [_mm256_setzero_si256(); SIDE_BY_SIDE];
    for (i, line) in query.iter().enumerate() {
        let query = load_row(line);
        for (sum, row) in sums.iter_mut().zip(rows) {
            for (query, row) in query.into_iter().zip(load_row(&row[i])) {
                *sum = _mm256_add_epi32(*sum, products(query, row));
            }
        }
    }
    let [s0, s1, s2, s3] = sums;
    let four = _mm256_hadd_epi32(_mm256_hadd_epi32(s0, s1), _mm256_hadd_epi32(s2, s3));
    let four = _mm_add_epi32(
        _mm256_castsi256_si128(four),
        _mm256_extracti128_si256::<1>(four),
    );
    let mut scores = [0; SIDE_BY_SIDE];
    // SAFETY: the array is the 16 bytes that are written, at any alignment.
    unsafe { _mm_storeu_si128(scores.as_mut_ptr().cast(), four) };
    scores
}

/// Product of a query without -128 and a row.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn dot_one(query: &[RowLine], row: &[RowLine]) -> i32 {
    let mut sums = [_mm256_setzero_si256(); 2];
    for (query, row) in query.iter().zip(row) {
        let halves = load_row(query).into_iter().zip(load_row(row));
        for (sum, (query, row)) in sums.iter_mut().zip(halves) {
            *sum = _mm256_add_epi32(*sum, products(query, row));
        }
    }
    add_int_lanes(_mm256_add_epi32(sums[0], sums[1]))
}

/// Products of the codes of half a line, added up by four. The signs of the row go to the query,
/// which must not have -128: two products are 2 * 127 * 128 at most, so nothing saturates.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn products(query: __m256i, row: __m256i) -> __m256i {
    let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(row), _mm256_sign_epi8(query, row));
    _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load_row(line: &RowLine) -> [__m256i; 2] {
    let codes = line.0.as_ptr();
    // SAFETY: the line is 64 bytes at an alignment of 64, so both halves are inside and aligned.
    unsafe {
        [
            _mm256_load_si256(codes.cast()),
            _mm256_load_si256(codes.add(32).cast()),
        ]
    }
}

/// Product of two rows of one length, whatever their codes.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn dot_row(a: &[RowLine], b: &[RowLine]) -> i32 {
    let mut sums = [_mm256_setzero_si256(); 4];
    for (x, y) in a.iter().zip(b) {
        let (x, _) = x.0.as_chunks::<WIDENED>();
        let (y, _) = y.0.as_chunks::<WIDENED>();
        for (sum, (x, y)) in sums.iter_mut().zip(x.iter().zip(y)) {
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(widen(x), widen(y)));
        }
    }
    let [s0, s1, s2, s3] = sums;
    add_int_lanes(_mm256_add_epi32(
        _mm256_add_epi32(s0, s1),
        _mm256_add_epi32(s2, s3),
    ))
}

/// Int8 codes that fill a register once they are widened to 16 bits.
const WIDENED: usize = 16;

/// See [`super::Kernel::dot_codes`].
#[cfg(feature = "hnsw")]
#[target_feature(enable = "avx2,fma")]
fn dot_codes(a: &[i8], b: &[i8]) -> i32 {
    let length = a.len().min(b.len());
    let (a_blocks, a_tail) = a[..length].as_chunks::<WIDENED>();
    let (b_blocks, b_tail) = b[..length].as_chunks::<WIDENED>();
    let mut sum = _mm256_setzero_si256();
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(widen(x), widen(y)));
    }
    let tail: i32 = a_tail
        .iter()
        .zip(b_tail)
        .map(|(&x, &y)| i32::from(x) * i32::from(y))
        .sum();
    add_int_lanes(sum) + tail
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn widen(codes: &[i8; WIDENED]) -> __m256i {
    // SAFETY: the reference covers the 16 bytes that are read; the load needs no alignment.
    _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(codes.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_int_lanes(sum: __m256i) -> i32 {
    let low = _mm256_castsi256_si128(sum);
    let four = _mm_add_epi32(low, _mm256_extracti128_si256::<1>(sum));
    let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
    _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two)))
}

#[target_feature(enable = "avx2,fma")]
fn residual_code(vector: &[f32], center: &[RowLine], scale: f32, code: &mut [u64]) {
    let scale = _mm256_set1_ps(scale);
    let parts = vector.as_chunks::<64>().0.iter();
    for ((part, center), word) in parts.zip(center).zip(code) {
        let (values, _) = part.as_chunks::<8>();
        let (components, _) = center.0.as_chunks::<8>();
        *word = 0;
        for (at, (values, components)) in values.iter().zip(components).enumerate() {
            // SAFETY: the references cover the 32 and the 8 bytes that are read; neither load
            // needs an alignment.
            let (values, components) = unsafe {
                (
                    _mm256_loadu_ps(values.as_ptr()),
                    _mm_loadl_epi64(components.as_ptr().cast()),
                )
            };
            let components = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(components));
            let below = _mm256_mul_ps(components, scale);
            let bits = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(values, below));
            *word |= u64::from(bits.cast_unsigned()) << (8 * at);
        }
    }
}

/// Three stages within a register, each a sum of the components in other places and of those in
/// their own, some of them negated; then the stages between registers.
#[target_feature(enable = "avx2,fma")]
fn hadamard(vector: &mut [f32], scale: f32) {
    let scale = _mm256_set1_ps(scale);
    let odd = _mm256_setr_ps(0.0, -0.0, 0.0, -0.0, 0.0, -0.0, 0.0, -0.0);
    let second_pair = _mm256_setr_ps(0.0, 0.0, -0.0, -0.0, 0.0, 0.0, -0.0, -0.0);
    let second_half = _mm256_setr_ps(0.0, 0.0, 0.0, 0.0, -0.0, -0.0, -0.0, -0.0);
    let (groups, _) = vector.as_chunks_mut::<8>();
    for group in &mut *groups {
        let x = load(group);
        let x = _mm256_add_ps(_mm256_permute_ps::<0b10_11_00_01>(x), _mm256_xor_ps(x, odd));
        let x = _mm256_add_ps(
            _mm256_permute_ps::<0b01_00_11_10>(x),
            _mm256_xor_ps(x, second_pair),
        );
        let x = _mm256_add_ps(
            _mm256_permute2f128_ps::<1>(x, x),
            _mm256_xor_ps(x, second_half),
        );
        // SAFETY: the reference covers the 32 bytes that are written; the store needs no alignment.
        unsafe { _mm256_storeu_ps(group.as_mut_ptr(), _mm256_mul_ps(x, scale)) };
    }
    let mut half = 1;
    while half < groups.len() {
        for pair in groups.chunks_exact_mut(2 * half) {
            let (low, high) = pair.split_at_mut(half);
            for (low, high) in low.iter_mut().zip(high) {
                let (a, b) = (load(low), load(high));
                // SAFETY: the references cover the 32 bytes that are written each; the stores need
                // no alignment.
                unsafe {
                    _mm256_storeu_ps(low.as_mut_ptr(), _mm256_add_ps(a, b));
                    _mm256_storeu_ps(high.as_mut_ptr(), _mm256_sub_ps(a, b));
                }
            }
        }
        half *= 2;
    }
}

#[target_feature(enable = "avx2,fma")]
fn planes(vector: &[f32], inverse: f32, high: &mut [RowLine], low: &mut [RowLine]) {
    scalar::planes(vector, inverse, high, low);
}

#[target_feature(enable = "avx2,fma")]
fn sum_of_products(a: &[f32], b: &[f32]) -> f32 {
    scalar::sum_of_products(a, b)
}

#[target_feature(enable = "avx2,fma")]
fn center_product(vector: &[f32], center: &[RowLine]) -> f32 {
    scalar::center_product(vector, center)
}

#[target_feature(enable = "avx2,fma")]
fn add(vector: &[f32], sum: &mut [f32]) {
    scalar::add(vector, sum);
}

#[target_feature(enable = "avx2,fma")]
fn to_floats(row: &[RowLine], out: &mut [f32]) {
    scalar::widen(row, out);
}

#[target_feature(enable = "avx2,fma")]
fn squared_length(vector: &[f32]) -> f64 {
    scalar::squared_length(vector)
}
