//! Dot products and Hamming distances with vector instructions.
//!
//! One file per instruction set, each behind a type whose constructor checks the CPU, so that the
//! methods are safe to call. [`Kernel::detect`] asks the CPU once in the life of the process.
//!
//! Every kernel adds in a fixed order of its own, so a score depends on the two vectors and the
//! CPU only, never on a row's place. Kernels of different instruction sets differ in the last
//! bits of an f32 product; distances and products of int8 codes are equal everywhere.
//!
//! No load or store assumes more of an address than the type of its reference says. The tests run
//! under Miri, which sees the instruction sets that it is told to emulate:
//!
//! ```text
//! RUSTFLAGS=-Ctarget-feature=+avx2,+fma cargo +nightly miri test -p askonce-index --lib kernel
//! ```

use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

/// Codes in a block: as many words as the widest vector register holds.
pub(crate) const LANES: usize = 8;

/// How many rows ahead of the one being scored are brought near.
const AHEAD: usize = 16;

/// Lines of a row that are brought near ahead; the CPU follows a longer row by itself.
const AHEAD_LINES: usize = 8;

/// The code chosen for this CPU.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kernel {
    /// Portable code; the reference for the others.
    Scalar,
    /// 256-bit vectors with fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    /// 512-bit vectors that count bits and multiply int8 codes.
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
    /// 128-bit vectors of aarch64.
    #[cfg(target_arch = "aarch64")]
    Neon(neon::Neon),
}

/// One word each of eight codes, side by side: 512 bits, as wide as the widest vector register.
///
/// Codes of `w` words lie in blocks of eight: a block is `w` lines, and line `i` holds word `i` of
/// each of its codes. So one distance step serves eight codes, and no step adds across lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(64))]
pub(crate) struct CodeLine(pub(crate) [u64; LANES]);

/// 64 components of a quantized row. A row is padded with zeros to whole lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub(crate) struct RowLine(pub(crate) [i8; 64]);

/// A code within the radius of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Near {
    /// Place of the code: eight times the block, plus the lane.
    pub(crate) position: u32,
    /// Bits in which it differs from the query.
    pub(crate) distance: u32,
}

impl Kernel {
    /// The fastest kernel that this CPU can run.
    pub(crate) fn detect() -> Self {
        static FASTEST: OnceLock<Kernel> = OnceLock::new();
        *FASTEST.get_or_init(|| *Self::all().last().unwrap_or(&Self::Scalar))
    }

    /// Every kernel that this CPU can run, the fastest last.
    fn all() -> Vec<Self> {
        let mut kernels = vec![Self::Scalar];
        #[cfg(target_arch = "x86_64")]
        {
            kernels.extend(avx2::Avx2::new().map(Self::Avx2));
            kernels.extend(avx512::Avx512::new().map(Self::Avx512));
        }
        #[cfg(target_arch = "aarch64")]
        kernels.extend(neon::Neon::new().map(Self::Neon));
        kernels
    }

    /// Dot product of each row of `rows`, a matrix of `query.len()` columns, with `query`.
    ///
    /// # Panics
    /// If `rows` is not `scores.len()` rows of `query.len()` components.
    pub(crate) fn dot_rows(self, query: &[f32], rows: &[f32], scores: &mut [f32]) {
        assert_eq!(
            rows.len(),
            query.len() * scores.len(),
            "rows and scores do not match"
        );
        match self {
            Self::Scalar => scalar::dot_rows(query, rows, scores),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(avx2) => avx2.dot_rows(query, rows, scores),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(avx512) => avx512.avx2.dot_rows(query, rows, scores),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(neon) => neon.dot_rows(query, rows, scores),
        }
    }

    /// Appends the codes of `blocks` that differ from `query` in at most `radius` bits, by position;
    /// positions count from `start`.
    ///
    /// # Panics
    /// If `blocks` is not whole blocks of codes as long as the query.
    pub(crate) fn near_codes(
        self,
        query: &[u64],
        blocks: &[CodeLine],
        radius: u32,
        start: u32,
        out: &mut Vec<Near>,
    ) {
        assert_eq!(blocks.len() % query.len(), 0, "a block is not whole");
        match self {
            Self::Scalar => scalar::near_codes(query, blocks, radius, start, out),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(avx2) => avx2.near_codes(query, blocks, radius, start, out),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(avx512) => avx512.near_codes(query, blocks, radius, start, out),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(neon) => neon.near_codes(query, blocks, radius, start, out),
        }
    }

    /// Dot product of each row of `rows` with `query`. Exact: all kernels give the same integers.
    ///
    /// # Panics
    /// If `rows` is not `scores.len()` rows as long as the query.
    pub(crate) fn dot_lines(self, query: &[RowLine], rows: &[RowLine], scores: &mut [i32]) {
        assert_eq!(
            rows.len(),
            query.len() * scores.len(),
            "rows and scores do not match"
        );
        match self {
            Self::Scalar => scalar::dot_lines(query, rows, scores),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(avx2) => avx2.dot_lines(query, rows, scores),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(avx512) => avx512.dot_lines(query, rows, scores),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(neon) => neon.dot_lines(query, rows, scores),
        }
    }

    /// Dot product of `query` with the rows at these positions of `rows`, where row `i` begins at
    /// line `i * query.len()`. Rows to come are brought near while one is scored, so that rows far
    /// apart do not cost a wait each. Exact, as [`dot_lines`](Self::dot_lines).
    ///
    /// # Panics
    /// If there are not as many scores as positions, or if a row is not inside `rows`.
    pub(crate) fn dot_lines_at(
        self,
        query: &[RowLine],
        rows: &[RowLine],
        at: &[u32],
        scores: &mut [i32],
    ) {
        assert_eq!(at.len(), scores.len(), "positions and scores do not match");
        for &position in at.iter().take(AHEAD) {
            prefetch(rows, query.len(), position);
        }
        match self {
            Self::Scalar => scalar::dot_lines_at(query, rows, at, scores),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(avx2) => avx2.dot_lines_at(query, rows, at, scores),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(avx512) => avx512.dot_lines_at(query, rows, at, scores),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(neon) => neon.dot_lines_at(query, rows, at, scores),
        }
    }

    /// The Hadamard transform of a power of two of components, at least eight, times `scale`. The same
    /// bits on every CPU.
    pub(crate) fn hadamard(self, vector: &mut [f32], scale: f32) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(avx2) => avx2.hadamard(vector, scale),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(avx512) => avx512.avx2.hadamard(vector, scale),
            _ => scalar::hadamard(vector, scale),
        }
    }

    /// Largest size of a component; 0 for none.
    pub(crate) fn largest(self, vector: &[f32]) -> f32 {
        scalar::largest(vector)
    }

    /// Rounds `vector * inverse` to integers of 16 bits, `256 * high + low`. The products must be
    /// between -32512 and 32512.
    pub(crate) fn planes(
        self,
        vector: &[f32],
        inverse: f32,
        high: &mut [RowLine],
        low: &mut [RowLine],
    ) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(avx2) => avx2.planes(vector, inverse, high, low),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(avx512) => avx512.avx2.planes(vector, inverse, high, low),
            _ => scalar::planes(vector, inverse, high, low),
        }
    }

    /// Product of two vectors, in sixteen sums side by side: one after the other, each addition would
    /// wait for the last. The same bits on every CPU.
    pub(crate) fn sum_of_products(self, a: &[f32], b: &[f32]) -> f32 {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(avx2) => avx2.sum_of_products(a, b),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(avx512) => avx512.avx2.sum_of_products(a, b),
            _ => scalar::sum_of_products(a, b),
        }
    }

    /// Product of a vector and the components of a center. The same bits on every CPU.
    pub(crate) fn center_product(self, vector: &[f32], center: &[RowLine]) -> f32 {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(avx2) => avx2.center_product(vector, center),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(avx512) => avx512.avx2.center_product(vector, center),
            _ => scalar::center_product(vector, center),
        }
    }

    /// Adds a vector to a sum. The same bits on every CPU.
    pub(crate) fn add(self, vector: &[f32], sum: &mut [f32]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(avx2) => avx2.add(vector, sum),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(avx512) => avx512.avx2.add(vector, sum),
            _ => scalar::add(vector, sum),
        }
    }

    /// The components of a row as floats.
    pub(crate) fn widen(self, row: &[RowLine], out: &mut [f32]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(avx2) => avx2.widen(row, out),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(avx512) => avx512.avx2.widen(row, out),
            _ => scalar::widen(row, out),
        }
    }

    /// Sum of squares in f64, in eight lanes. The same bits on every CPU.
    pub(crate) fn squared_length(self, vector: &[f32]) -> f64 {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(avx2) => avx2.squared_length(vector),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(avx512) => avx512.avx2.squared_length(vector),
            _ => scalar::squared_length(vector),
        }
    }

    /// The code of a vector relative to a center: a bit for each component, set where the vector
    /// is below the center. `scale` is what a component of the center is worth.
    ///
    /// # Panics
    /// If the three are not of one length.
    pub(crate) fn residual_code(
        self,
        vector: &[f32],
        center: &[RowLine],
        scale: f32,
        code: &mut [u64],
    ) {
        assert_eq!(
            vector.len(),
            center.len() * 64,
            "vector and center do not match"
        );
        assert_eq!(code.len(), center.len(), "center and code do not match");
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(avx2) => avx2.residual_code(vector, center, scale, code),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(avx512) => avx512.residual_code(vector, center, scale, code),
            _ => scalar::residual_code(vector, center, scale, code),
        }
    }

    /// Dot product of two rows of codes, cut to the shorter one. At most
    /// [`crate::MAX_DIMENSION`] codes, none of them -128.
    #[cfg(feature = "hnsw")]
    pub(crate) fn dot_codes(self, a: &[i8], b: &[i8]) -> i32 {
        match self {
            Self::Scalar => scalar::dot_codes(a, b),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(avx2) => avx2.dot_codes(a, b),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(avx512) => avx512.avx2.dot_codes(a, b),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(neon) => neon.dot_codes(a, b),
        }
    }
}

/// Has the row brought near that is to be scored [`AHEAD`] rows after the `i`th.
#[inline]
fn prefetch_ahead(rows: &[RowLine], length: usize, at: &[u32], i: usize) {
    if let Some(&position) = at.get(i + AHEAD) {
        prefetch(rows, length, position);
    }
}

/// Has the row at this position brought near, to be read soon. A position outside `rows` does no
/// harm.
#[inline]
pub(crate) fn prefetch<T>(rows: &[T], length: usize, position: u32) {
    let row = rows
        .as_ptr()
        .wrapping_add((position as usize).wrapping_mul(length));
    for i in 0..length.min(AHEAD_LINES) {
        fetch(row.wrapping_add(i));
    }
}

/// Has a value brought near, to be read soon.
#[inline]
pub(crate) fn prefetch_value<T>(value: &T) {
    let start = std::ptr::from_ref(value).cast::<u8>();
    for at in (0..size_of::<T>()).step_by(64) {
        fetch(start.wrapping_add(at));
    }
}

/// Has a line of the cache brought near.
#[inline]
fn fetch<T>(line: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint: nothing is read, and an address without memory is passed over.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(line.cast());
    }
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    // SAFETY: a hint: nothing is read, and an address without memory is passed over.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{}]", in(reg) line, options(nostack, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", all(target_arch = "aarch64", not(miri)))))]
    let _ = line;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn exact(a: &[f32], b: &[f32]) -> (f64, f64) {
        let products = a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y));
        products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()))
    }

    /// An interpreter that looks for undefined behaviour is slow, and has no files to note
    /// failures in.
    fn config() -> ProptestConfig {
        let mut config = ProptestConfig::default();
        if cfg!(miri) {
            config.cases = 3;
            config.failure_persistence = None;
        }
        config
    }

    proptest! {
        #![proptest_config(config())]

        #[test]
        fn sums_are_the_same_bits_everywhere(
            length in 1usize..200,
            seed in prop::collection::vec(-1.0f32..1.0, 400),
            codes: u64,
        ) {
            let (a, b) = (&seed[..length], &seed[200..200 + length]);
            let center = Random(codes).rows(3);
            let sums = |kernel: Kernel| {
                let (mut sum, mut floats) = (b.to_vec(), vec![0.0; 192]);
                kernel.add(a, &mut sum);
                kernel.widen(&center, &mut floats);
                let products = [kernel.sum_of_products(a, b), kernel.center_product(&seed, &center)];
                let bits = |x: &f32| x.to_bits();
                let all: Vec<u32> = sum.iter().chain(&floats).chain(&products).map(bits).collect();
                (all, kernel.squared_length(a).to_bits())
            };
            let scalar = sums(Kernel::Scalar);
            for kernel in Kernel::all() {
                prop_assert_eq!(&sums(kernel), &scalar, "{:?}", kernel);
            }
            let (sum, size) = exact(a, b);
            let product = Kernel::detect().sum_of_products(a, b);
            prop_assert!((f64::from(product) - sum).abs() <= 1e-5 * size + 1e-30);
        }

        #[test]
        fn every_kernel_agrees_with_exact_arithmetic(
            dimension in 1usize..140,
            rows in 0usize..6,
            seed in prop::collection::vec(-1.0f32..1.0, 1000),
        ) {
            let query = &seed[..dimension];
            let matrix = &seed[140..140 + rows * dimension];
            for kernel in Kernel::all() {
                let mut scores = vec![f32::NAN; rows];
                kernel.dot_rows(query, matrix, &mut scores);
                for (row, &score) in matrix.chunks_exact(dimension).zip(&scores) {
                    let (sum, size) = exact(query, row);
                    prop_assert!((f64::from(score) - sum).abs() <= 1e-6 * size + 1e-30);
                }
            }
        }

        #[test]
        fn rounding_is_to_the_nearest(x in -40_000.0f32..40_000.0) {
            prop_assert_eq!(scalar::round(x), x.round_ties_even() as i32);
        }

        #[test]
        fn transforms_and_planes_are_the_same_everywhere(
            blocks in 1usize..5,
            seed in prop::collection::vec(-1.0f32..1.0, 1024),
        ) {
            let length = 64 << (blocks - 1);
            let transformed = |kernel: Kernel| {
                let mut vector = seed[..length].to_vec();
                kernel.hadamard(&mut vector, 0.125);
                let mut planes = vec![RowLine([0; 64]); 2 * length / 64];
                let (high, low) = planes.split_at_mut(length / 64);
                kernel.planes(&vector, 250.0, high, low);
                (vector.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), planes)
            };
            let scalar = transformed(Kernel::Scalar);
            for kernel in Kernel::all() {
                prop_assert_eq!(&transformed(kernel), &scalar);
            }
            // Component 0 is the sum of all, and 256 * high + low the steps.
            let sum: f64 = seed[..length].iter().map(|&x| f64::from(x)).sum();
            prop_assert!((f64::from(f32::from_bits(scalar.0[0])) - sum / 8.0).abs() < 1e-3);
            for (at, bits) in scalar.0.iter().enumerate() {
                let steps = 256 * i32::from(scalar.1[at / 64].0[at % 64])
                    + i32::from(scalar.1[length / 64 + at / 64].0[at % 64]);
                prop_assert_eq!(steps, scalar::round(f32::from_bits(*bits) * 250.0));
            }
        }

        #[test]
        fn a_score_does_not_depend_on_the_place_of_the_row(
            dimension in 1usize..140,
            seed in prop::collection::vec(-1.0f32..1.0, 280),
        ) {
            let (query, row) = (&seed[..dimension], &seed[140..140 + dimension]);
            for kernel in Kernel::all() {
                let mut scores = [f32::NAN; 7];
                kernel.dot_rows(query, &row.repeat(7), &mut scores);
                let mut swapped = [f32::NAN];
                kernel.dot_rows(row, query, &mut swapped);
                for score in scores {
                    prop_assert_eq!(score.to_bits(), scores[0].to_bits());
                    prop_assert_eq!(score.to_bits(), swapped[0].to_bits());
                }
            }
        }

        #[test]
        fn every_kernel_lists_the_same_near_codes_in_order(
            words in words(),
            blocks in 0usize..20,
            radius in 0.0f64..1.0,
            seed: u64,
        ) {
            let mut random = Random(seed);
            let (query, blocks) = codes(&mut random, words, blocks);
            let radius = (radius * (64 * words) as f64) as u32;
            let exact = nearest(&query, &blocks, radius);
            let held = Near { position: 7, distance: 7 };
            for kernel in Kernel::all() {
                let mut out = vec![held];
                kernel.near_codes(&query, &blocks, radius, 0, &mut out);
                prop_assert_eq!(out[0], held);
                prop_assert_eq!(&out[1..], &exact, "{:?}", kernel);
            }
        }


        #[test]
        fn products_of_rows_are_the_same_everywhere(
            lines in 1usize..30,
            rows in 0usize..12,
            picks in prop::collection::vec(0usize..1000, 0..40),
            seed: u64,
        ) {
            let lines = if cfg!(miri) { lines.min(3) } else { lines };
            let mut random = Random(seed);
            let query = random.rows(lines);
            let matrix = random.rows(lines * rows);
            let exact: Vec<i32> = matrix.chunks_exact(lines).map(|row| product(&query, row)).collect();
            let at: Vec<u32> =
                picks.iter().filter_map(|&pick| Some(pick.checked_rem(rows)? as u32)).collect();
            for kernel in Kernel::all() {
                let mut scores = vec![0; rows];
                kernel.dot_lines(&query, &matrix, &mut scores);
                prop_assert_eq!(&scores, &exact, "{:?}", kernel);
                let mut scores = vec![0; at.len()];
                kernel.dot_lines_at(&query, &matrix, &at, &mut scores);
                let picked: Vec<i32> = at.iter().map(|&i| exact[i as usize]).collect();
                prop_assert_eq!(&scores, &picked, "{:?}", kernel);
            }
        }

        #[cfg_attr(
            all(miri, target_feature = "avx512f"),
            ignore = "Miri cannot compare floats of 512 bits"
        )]
        #[test]
        fn codes_of_what_is_left_are_the_same_everywhere(
            lines in 1usize..8,
            scale in 0.0f32..0.1,
            seed: u64,
        ) {
            let mut random = Random(seed);
            let center = random.rows(lines);
            // Some of them on the center, where a rounding would show.
            let vector: Vec<f32> = center
                .iter()
                .flat_map(|line| line.0)
                .map(|c| f32::from(c) * scale + (random.word() % 3) as f32 * 1e-3 - 1e-3)
                .collect();
            let mut exact = vec![0; lines];
            for (i, (x, c)) in vector.iter().zip(center.iter().flat_map(|line| line.0)).enumerate() {
                exact[i / 64] |= u64::from(*x < f32::from(c) * scale) << (i % 64);
            }
            for kernel in Kernel::all() {
                let mut code = vec![!0; lines];
                kernel.residual_code(&vector, &center, scale, &mut code);
                prop_assert_eq!(&code, &exact, "{:?}", kernel);
            }
        }

        #[cfg(feature = "hnsw")]
        #[test]
        fn products_of_codes_are_the_same_everywhere(
            codes in prop::collection::vec((-127i8..=127, -127i8..=127), 0..200),
        ) {
            let (a, b): (Vec<i8>, Vec<i8>) = codes.into_iter().unzip();
            let exact: i32 = a.iter().zip(&b).map(|(&x, &y)| i32::from(x) * i32::from(y)).sum();
            for kernel in Kernel::all() {
                prop_assert_eq!(kernel.dot_codes(&a, &b), exact);
            }
        }
    }
    /// Lengths that have a loop of their own, and others around them.
    fn words() -> impl Strategy<Value = usize> {
        prop_oneof![
            prop::sample::select(vec![1usize, 2, 4, 6, 8, 12, 24]),
            1usize..70,
        ]
    }

    /// SplitMix64 (Steele, Lea and Flood, 2014).
    struct Random(u64);

    impl Random {
        fn word(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }

        fn words(&mut self, count: usize) -> Vec<u64> {
            (0..count).map(|_| self.word()).collect()
        }

        /// Codes over the whole range of `i8`.
        fn rows(&mut self, lines: usize) -> Vec<RowLine> {
            let mut line = || RowLine(std::array::from_fn(|_| self.word() as i8));
            (0..lines).map(|_| line()).collect()
        }
    }

    /// A query and blocks of codes, at every distance from it.
    fn codes(random: &mut Random, words: usize, blocks: usize) -> (Vec<u64>, Vec<CodeLine>) {
        let query = random.words(words);
        let mut lines = vec![CodeLine::default(); words * blocks];
        for (block, lane) in (0..blocks).flat_map(|b| (0..LANES).map(move |lane| (b, lane))) {
            // Each bit differs with a chance of one half, a quarter and so on, or stays so.
            let (halvings, near) = (random.word() % 6, random.word().is_multiple_of(2));
            for (word, line) in query.iter().zip(&mut lines[block * words..]) {
                let flips = (0..halvings).fold(!0, |flips, _| flips & random.word());
                line.0[lane] = word ^ if near { flips } else { !flips };
            }
        }
        (query, lines)
    }

    /// What [`Kernel::near_codes`] promises, one code after the other.
    fn nearest(query: &[u64], blocks: &[CodeLine], radius: u32) -> Vec<Near> {
        let codes = blocks.len() / query.len() * LANES;
        let distance = |i: usize| {
            let lines = &blocks[i / LANES * query.len()..];
            let words = query.iter().zip(lines);
            words
                .map(|(word, line)| (word ^ line.0[i % LANES]).count_ones())
                .sum()
        };
        let all = (0..codes).map(|i| Near {
            position: i as u32,
            distance: distance(i),
        });
        all.filter(|near| near.distance <= radius).collect()
    }

    fn product(a: &[RowLine], b: &[RowLine]) -> i32 {
        let codes = a
            .iter()
            .flat_map(|line| line.0)
            .zip(b.iter().flat_map(|line| line.0));
        codes.map(|(x, y)| i32::from(x) * i32::from(y)).sum()
    }

    #[test]
    fn the_smallest_and_the_largest_radius_mean_what_they_say() {
        let query = [0x0123_4567_89ab_cdef; 3];
        let mut blocks = vec![CodeLine([!query[0]; LANES]); 3 * 3];
        for line in &mut blocks[3..6] {
            line.0[5] = query[0];
        }
        for kernel in Kernel::all() {
            let mut out = Vec::new();
            kernel.near_codes(&query, &blocks, 0, 0, &mut out);
            assert_eq!(
                out,
                [Near {
                    position: 13,
                    distance: 0
                }],
                "{kernel:?}"
            );
            for radius in [192, u32::MAX] {
                out.clear();
                kernel.near_codes(&query, &blocks, radius, 0, &mut out);
                let positions: Vec<u32> = out.iter().map(|near| near.position).collect();
                assert_eq!(positions, Vec::from_iter(0..24), "{kernel:?}");
            }
            out.clear();
            kernel.near_codes(&query, &blocks, 191, 0, &mut out);
            assert_eq!(out.len(), 1, "{kernel:?}");
        }
    }

    #[test]
    fn the_largest_codes_do_not_saturate() {
        for value in [i8::MIN, -127, i8::MAX] {
            let lines = if cfg!(miri) { 4 } else { 1024 };
            let exact = 64 * lines as i32 * i32::from(value) * i32::from(value);
            let lines = vec![RowLine([value; 64]); lines];
            for kernel in Kernel::all() {
                let mut scores = [0];
                kernel.dot_lines(&lines, &lines, &mut scores);
                assert_eq!(scores, [exact], "{kernel:?}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "range end index")]
    fn a_position_outside_the_rows_is_refused() {
        let rows = vec![RowLine([1; 64]); 4];
        Kernel::detect().dot_lines_at(&rows[..2], &rows, &[0, 2], &mut [0; 2]);
    }

    #[test]
    #[should_panic(expected = "a block is not whole")]
    fn half_a_block_is_refused() {
        Kernel::detect().near_codes(&[0; 2], &[CodeLine::default(); 3], 0, 0, &mut Vec::new());
    }
}
