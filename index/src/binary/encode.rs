//! From a vector to the integers that are kept and compared.
//!
//! A unit vector is rotated, then rounded to 16 bits a component in two planes of 8: `high` and
//! `low`, where a component is `256 * high + low` steps. A row keeps `high`, or both; a query has
//! both. A product of two is exact in integers, so every CPU scores alike.
//!
//! A score is the product scaled so that the row's own vector scores 1. That also takes out the
//! bias of rounding: what remains is what of the rounding error lies along the query (compare Gao
//! and Long, "RaBitQ", SIGMOD 2024, who scale 1-bit codes so).

use super::LANE;
use super::config::Precision;
use super::rotate::Rotation;
use crate::kernel::{Kernel, RowLine};

/// Largest number of steps, so that `high` is at most 127.
const STEPS: f32 = 127.0 * 256.0;

/// A vector, rotated and rounded.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    /// The rotated vector.
    pub(super) rotated: Vec<f32>,
    pub(super) high: Vec<RowLine>,
    pub(super) low: Vec<RowLine>,
    /// What one step is worth.
    pub(super) step: f64,
}

/// Makes and compares encoded vectors of one dimension.
#[derive(Debug)]
pub(super) struct Encoder {
    rotation: Rotation,
    precision: Precision,
    pub(super) kernel: Kernel,
}

impl Encoder {
    pub(super) fn new(dimension: usize, precision: Precision) -> Self {
        Self {
            rotation: Rotation::new(dimension),
            precision,
            kernel: Kernel::detect(),
        }
    }

    pub(super) fn precision(&self) -> Precision {
        self.precision
    }

    /// Lines of a row in one plane, and words of a code.
    pub(super) fn lines(&self) -> usize {
        self.rotation.padded() / LANE
    }

    /// Bits of a code.
    pub(super) fn bits(&self) -> usize {
        self.rotation.padded()
    }

    /// Rotates and rounds a unit vector.
    pub(super) fn encode(&self, unit: &[f32], out: &mut Encoded) {
        self.rotation.apply(unit, &mut out.rotated);
        let largest = self.kernel.largest(&out.rotated);
        let inverse = STEPS / largest;
        out.step = f64::from(largest) / f64::from(STEPS);
        let lines = self.lines();
        out.high.resize(lines, RowLine([0; LANE]));
        out.low.resize(lines, RowLine([0; LANE]));
        self.kernel
            .planes(&out.rotated, inverse, &mut out.high, &mut out.low);
    }

    /// What the scores of this row are multiplied by, so that its own is 1.
    pub(super) fn factor(&self, row: &Encoded) -> f32 {
        let own = self.product(row, &row.high, self.low_of(&row.low));
        (1.0 / (own as f64 * row.step)) as f32
    }

    /// The second plane, if this precision has one.
    pub(super) fn low_of<'r>(&self, low: &'r [RowLine]) -> Option<&'r [RowLine]> {
        (self.precision == Precision::Int16).then_some(low)
    }

    /// Product of a query and a row, in steps of both.
    pub(super) fn product(
        &self,
        query: &Encoded,
        high: &[RowLine],
        low: Option<&[RowLine]>,
    ) -> i64 {
        let dot = |a: &[RowLine], b: &[RowLine]| {
            let mut score = [0];
            self.kernel.dot_lines(a, b, &mut score);
            i64::from(score[0])
        };
        let coarse = 256 * dot(&query.high, high) + dot(&query.low, high);
        match low {
            None => coarse,
            Some(low) => 256 * coarse + 256 * dot(&query.high, low) + dot(&query.low, low),
        }
    }

    /// The cosine that a product of a query and a row stands for.
    pub(super) fn score(&self, query: &Encoded, product: i64, factor: f32) -> f32 {
        let score = product as f64 * query.step * f64::from(factor);
        (score as f32).clamp(-1.0, 1.0)
    }

    /// The unit vector that a row stands for, still rotated.
    pub(super) fn decode(&self, high: &[RowLine], low: Option<&[RowLine]>, out: &mut Vec<f32>) {
        out.resize(high.len() * LANE, 0.0);
        self.kernel.widen(high, out);
        if let Some(low) = low {
            for (part, low) in out.as_chunks_mut::<LANE>().0.iter_mut().zip(low) {
                for (x, &low) in part.iter_mut().zip(&low.0) {
                    *x = 256.0 * *x + f32::from(low);
                }
            }
        }
        self.normalize(out);
    }

    /// The vector in the caller's components.
    pub(super) fn unrotate(&self, rotated: &mut Vec<f32>) {
        self.rotation.undo(rotated);
        self.normalize(rotated);
    }

    /// Brings a vector to unit length.
    fn normalize(&self, vector: &mut [f32]) {
        let scale = 1.0 / self.kernel.sum_of_products(vector, vector).sqrt();
        for x in vector {
            *x *= scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::binary::rotate::split_mix;
    use crate::vector::with_unit;

    fn vector(dimension: usize, state: &mut u64) -> Vec<f32> {
        let raw: Vec<f32> = (0..dimension)
            .map(|_| (split_mix(state) >> 40) as f32 / (1 << 24) as f32 - 0.5)
            .collect();
        with_unit(dimension, &raw, |unit| Ok(unit.to_vec())).unwrap()
    }

    proptest! {
        #[test]
        fn scores_are_cosines_within_the_stated_error(
            dimension in prop::sample::select(vec![1usize, 2, 24, 64, 100, 128, 384]),
            seed in any::<u64>(),
        ) {
            let mut state = seed;
            let (a, b) = (vector(dimension, &mut state), vector(dimension, &mut state));
            let exact: f32 = a.iter().zip(&b).map(|(x, y)| x * y).sum();
            for (precision, error) in [(Precision::Int8, 5e-3), (Precision::Int16, 1e-4)] {
                let encoder = Encoder::new(dimension, precision);
                let (mut query, mut row) = (Encoded::default(), Encoded::default());
                encoder.encode(&a, &mut query);
                encoder.encode(&b, &mut row);
                let factor = encoder.factor(&row);
                let low = encoder.low_of(&row.low);
                let product = encoder.product(&query, &row.high, low);
                let score = encoder.score(&query, product, factor);
                prop_assert!((score - exact).abs() < error, "{score} for {exact}");
                let own = encoder.product(&row, &row.high, low);
                prop_assert!((encoder.score(&row, own, factor) - 1.0).abs() < 1e-6);
            }
        }
    }
}
