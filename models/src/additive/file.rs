//! An additive model as a file holds it, checked when it is read.

use serde::{Deserialize, Serialize};

use super::{Additive, Curve};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AdditiveFile {
    base: f64,
    curves: Vec<CurveFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CurveFile {
    /// Ascending; at least one.
    knots: Vec<f32>,
    /// Log-odds at each knot.
    values: Vec<f64>,
    /// Log-odds where the value is not known.
    unknown: f64,
}

impl From<Additive> for AdditiveFile {
    fn from(model: Additive) -> Self {
        let curves = model.curves.into_iter().map(|curve| CurveFile {
            knots: curve.knots,
            values: curve.values,
            unknown: curve.unknown,
        });
        Self {
            base: model.base,
            curves: curves.collect(),
        }
    }
}

impl TryFrom<AdditiveFile> for Additive {
    type Error = String;

    fn try_from(file: AdditiveFile) -> Result<Self, String> {
        if !file.base.is_finite() {
            return Err("the base of an additive model is not finite".to_owned());
        }
        let curve = |(feature, curve): (usize, CurveFile)| {
            let CurveFile {
                knots,
                values,
                unknown,
            } = curve;
            if knots.is_empty() || knots.len() != values.len() {
                return Err(format!(
                    "the curve of feature {feature} has not one value per knot, and at least one"
                ));
            }
            let finite = knots.iter().all(|knot| knot.is_finite())
                && values.iter().all(|value| value.is_finite())
                && unknown.is_finite();
            if !finite {
                return Err(format!(
                    "the curve of feature {feature} has a number that is not finite"
                ));
            }
            if !knots.is_sorted_by(|a, b| a < b) {
                return Err(format!("the knots of feature {feature} do not ascend"));
            }
            Ok(Curve {
                knots,
                values,
                unknown,
            })
        };
        Ok(Self {
            base: file.base,
            curves: file
                .curves
                .into_iter()
                .enumerate()
                .map(curve)
                .collect::<Result<_, _>>()?,
        })
    }
}
