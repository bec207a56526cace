//! Which vectors an index takes, and how they are brought to unit length.
//!
//! Rows are kept at unit length so that a dot product is a cosine. A vector that is at unit length
//! already, within f32 rounding, is kept bit for bit: what an embedder made is what a snapshot and
//! [`crate::VectorIndex::for_each`] give back.

use std::cell::Cell;

use crate::IndexError;
use crate::kernel::Kernel;

/// Largest dimension an index takes. Embedding models stay below 10 thousand.
pub const MAX_DIMENSION: usize = 65_536;

/// How far a squared length may be from 1 to count as unit length. Normalizing in f32 leaves an
/// error of about 1e-6, and a cosine of two such rows is off by no more than that.
const UNIT_TOLERANCE: f64 = 4e-6;

thread_local! {
    /// Room for one query brought to unit length, so that a lookup does not allocate.
    static SCRATCH: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Checks that an index of `dimension` can be made.
pub(crate) fn check_dimension(dimension: usize) -> Result<(), IndexError> {
    if (1..=MAX_DIMENSION).contains(&dimension) {
        Ok(())
    } else {
        Err(IndexError::UnsupportedDimension {
            dimension,
            maximum: MAX_DIMENSION,
        })
    }
}

/// The length that a vector must be divided by, or why it cannot be used. Exactly 1 for a vector
/// that is to be kept as it is.
fn length(dimension: usize, vector: &[f32]) -> Result<f64, IndexError> {
    if vector.len() != dimension {
        return Err(IndexError::WrongDimension {
            expected: dimension,
            actual: vector.len(),
        });
    }
    let squared = squared_length(vector);
    // Squares of f32 cannot overflow or vanish in f64, so the sum tells of every bad component.
    if !squared.is_finite() {
        let position = vector
            .iter()
            .position(|x| !x.is_finite())
            .unwrap_or_default();
        return Err(IndexError::NotFinite { position });
    }
    if squared == 0.0 {
        return Err(IndexError::ZeroVector);
    }
    Ok(if is_unit(squared) {
        1.0
    } else {
        squared.sqrt()
    })
}

fn is_unit(squared: f64) -> bool {
    (squared - 1.0).abs() <= UNIT_TOLERANCE
}

/// Whether a stored row is what [`with_unit`] would have stored.
pub(crate) fn is_unit_row(row: &[f32]) -> bool {
    is_unit(squared_length(row))
}

fn squared_length(vector: &[f32]) -> f64 {
    Kernel::detect().squared_length(vector)
}

/// Whether the vector can be stored or searched for, or why not.
pub(crate) fn check(dimension: usize, vector: &[f32]) -> Result<(), IndexError> {
    length(dimension, vector).map(drop)
}

/// Runs `body` on the vector at unit length, or tells why it has none.
pub(crate) fn with_unit<T>(
    dimension: usize,
    vector: &[f32],
    body: impl FnOnce(&[f32]) -> Result<T, IndexError>,
) -> Result<T, IndexError> {
    let length = length(dimension, vector)?;
    if length == 1.0 {
        return body(vector);
    }
    // Taken out of the cell, so a nested call finds an empty one and not a broken one.
    let mut unit = SCRATCH.take();
    unit.clear();
    unit.extend(vector.iter().map(|&x| (f64::from(x) / length) as f32));
    let result = body(&unit);
    SCRATCH.set(unit);
    result
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_normalized_vector_counts_as_unit_and_is_then_kept(
            vector in prop::collection::vec(-1e30f32..1e30, 1..200),
        ) {
            prop_assume!(vector.iter().any(|&x| x != 0.0));
            let unit = with_unit(vector.len(), &vector, |unit| Ok(unit.to_vec())).unwrap();
            prop_assert!(is_unit_row(&unit));
            let again = with_unit(vector.len(), &unit, |unit| Ok(unit.to_vec())).unwrap();
            prop_assert_eq!(unit, again);
        }
    }

    #[test]
    fn the_smallest_and_the_largest_numbers_have_a_direction() {
        for x in [f32::from_bits(1), f32::MAX] {
            let unit = with_unit(2, &[0.0, x], |unit| Ok(unit.to_vec())).unwrap();
            assert_eq!(unit, [0.0, 1.0]);
        }
    }

    #[test]
    fn the_first_component_that_is_not_finite_is_named() {
        let vector = [1.0, f32::NAN, f32::INFINITY];
        let error = with_unit(3, &vector, |_| Ok(())).unwrap_err();
        assert!(matches!(error, IndexError::NotFinite { position: 1 }));
    }
}
