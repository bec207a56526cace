//! Rows of unit length, so that a dot product is a cosine.

use crate::{ModelError, ModelId};

/// Brings the row of text `position` to unit length.
///
/// # Errors
/// [`ModelError::NotFinite`] and [`ModelError::ZeroVector`], of a row without a direction.
pub(crate) fn to_unit(row: &mut [f32], position: usize, model: &ModelId) -> Result<(), ModelError> {
    let model = || model.to_string();
    // In f64 no square of a finite f32 overflows.
    let square: f64 = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    if !square.is_finite() {
        return Err(ModelError::NotFinite {
            position,
            model: model(),
        });
    }
    if square == 0.0 {
        return Err(ModelError::ZeroVector {
            position,
            model: model(),
        });
    }
    let length = square.sqrt();
    for x in row {
        *x = (f64::from(*x) / length) as f32;
    }
    Ok(())
}
