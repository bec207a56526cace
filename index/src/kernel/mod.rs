//! Dot products and Hamming distances with vector instructions.
//!
//! One file per instruction set, each behind a type whose constructor checks the CPU, so that the
//! methods are safe to call. [`Kernel::detect`] picks the best once per search, which costs one
//! load of a flag that `std` caches.
//!
//! Every kernel adds in a fixed order of its own, so a score depends on the two vectors and the
//! CPU only, never on a row's place. Kernels of different instruction sets differ in the last
//! bits of an f32 product; products of int8 codes are equal everywhere.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

/// The dot-product code chosen for this CPU.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kernel {
    /// Portable code; the reference for the others.
    Scalar,
    /// 256-bit vectors with fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
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
pub(crate) struct CodeLine(pub(crate) [u64; 8]);

/// 64 components of a quantized row. A row is padded with zeros to whole lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub(crate) struct RowLine(pub(crate) [i8; 64]);

/// A code within the radius of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Near {
    /// Place of the code: eight times the block, plus the lane.
    pub(crate) position: u32,
    /// Bits in which it differs from the query.
    pub(crate) distance: u32,
}

impl Kernel {
    /// The fastest kernel that this CPU can run.
    pub(crate) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = avx2::Avx2::new() {
            return Self::Avx2(avx2);
        }
        #[cfg(target_arch = "aarch64")]
        if let Some(neon) = neon::Neon::new() {
            return Self::Neon(neon);
        }
        Self::Scalar
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
            #[cfg(target_arch = "aarch64")]
            Self::Neon(neon) => neon.dot_rows(query, rows, scores),
        }
    }

    /// Appends the codes of `blocks` that differ from `query` in at most `radius` bits, by place.
    ///
    /// # Panics
    /// If `blocks` is not whole blocks of codes as long as the query.
    pub(crate) fn near_codes(
        self,
        query: &[u64],
        blocks: &[CodeLine],
        radius: u32,
        out: &mut Vec<Near>,
    ) {
        assert_eq!(blocks.len() % query.len(), 0, "a block is not whole");
        scalar::near_codes(query, blocks, radius, out);
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
        scalar::dot_lines(query, rows, scores);
    }

    /// Dot product of `query` with the rows at these places: row `i` begins at line
    /// `at[i] * query.len()`.
    ///
    /// # Panics
    /// If there are not as many scores as places, or a place is outside `rows`.
    pub(crate) fn dot_lines_at(
        self,
        query: &[RowLine],
        rows: &[RowLine],
        at: &[u32],
        scores: &mut [i32],
    ) {
        assert_eq!(at.len(), scores.len(), "places and scores do not match");
        for (&at, score) in at.iter().zip(scores) {
            let row = &rows[at as usize * query.len()..][..query.len()];
            self.dot_lines(query, row, std::slice::from_mut(score));
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
        scalar::residual_code(vector, center, scale, code);
    }

    /// Dot product of two rows of codes, cut to the shorter one. At most
    /// [`crate::MAX_DIMENSION`] codes, none of them -128.
    #[cfg(feature = "hnsw")]
    pub(crate) fn dot_codes(self, a: &[i8], b: &[i8]) -> i32 {
        match self {
            Self::Scalar => scalar::dot_codes(a, b),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(avx2) => avx2.dot_codes(a, b),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(neon) => neon.dot_codes(a, b),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every kernel that this CPU can run.
    fn kernels() -> Vec<Kernel> {
        vec![Kernel::Scalar, Kernel::detect()]
    }

    fn exact(a: &[f32], b: &[f32]) -> (f64, f64) {
        let products = a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y));
        products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()))
    }

    proptest! {
        #[test]
        fn every_kernel_agrees_with_exact_arithmetic(
            dimension in 1usize..140,
            rows in 0usize..6,
            seed in prop::collection::vec(-1.0f32..1.0, 1000),
        ) {
            let query = &seed[..dimension];
            let matrix = &seed[140..140 + rows * dimension];
            for kernel in kernels() {
                let mut scores = vec![f32::NAN; rows];
                kernel.dot_rows(query, matrix, &mut scores);
                for (row, &score) in matrix.chunks_exact(dimension).zip(&scores) {
                    let (sum, size) = exact(query, row);
                    prop_assert!((f64::from(score) - sum).abs() <= 1e-6 * size + 1e-30);
                }
            }
        }

        #[test]
        fn a_score_does_not_depend_on_the_place_of_the_row(
            dimension in 1usize..140,
            seed in prop::collection::vec(-1.0f32..1.0, 280),
        ) {
            let (query, row) = (&seed[..dimension], &seed[140..140 + dimension]);
            for kernel in kernels() {
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

        #[cfg(feature = "hnsw")]
        #[test]
        fn products_of_codes_are_the_same_everywhere(
            codes in prop::collection::vec((-127i8..=127, -127i8..=127), 0..200),
        ) {
            let (a, b): (Vec<i8>, Vec<i8>) = codes.into_iter().unzip();
            let exact: i32 = a.iter().zip(&b).map(|(&x, &y)| i32::from(x) * i32::from(y)).sum();
            for kernel in kernels() {
                prop_assert_eq!(kernel.dot_codes(&a, &b), exact);
            }
        }
    }
}
