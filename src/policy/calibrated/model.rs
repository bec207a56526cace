//! What gives a candidate a score: a fitted model over the evidence, and the map from its score to a
//! probability.

use askonce_models::additive::Additive;
use askonce_models::trees::Forest;
use serde::{Deserialize, Serialize};

use super::map::CalibrationMap;
use crate::error::{Error, ErrorKind, Result};

/// A fitted model: features in, log-odds out. Log-odds are not calibrated yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum StageModel {
    /// Gradient boosted trees.
    Forest {
        /// The trees.
        forest: Forest,
    },
    /// A sum of one monotone curve per feature: weaker, and open to inspection.
    Additive {
        /// The curves.
        additive: Additive,
    },
    /// A logistic curve over one feature, such as the similarity alone.
    Curve {
        /// The feature's name.
        feature: String,
        /// Log-odds at 0.
        intercept: f64,
        /// Gain in log-odds from 0 to 1; above 0.
        slope: f64,
    },
}

impl StageModel {
    /// The stable name used in reports.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Forest { .. } => "forest",
            Self::Additive { .. } => "additive",
            Self::Curve { .. } => "curve",
        }
    }

    /// Log-odds that the answer is right, for features in the order of `names`.
    #[must_use]
    pub fn margin(&self, names: &[String], features: &[f32]) -> f64 {
        match self {
            Self::Forest { forest } => forest.margin(features),
            Self::Additive { additive } => additive.margin(features),
            Self::Curve {
                feature,
                intercept,
                slope,
            } => {
                let value = names
                    .iter()
                    .position(|name| name == feature)
                    .and_then(|at| features.get(at))
                    .copied()
                    .unwrap_or(f32::NAN);
                intercept + slope * f64::from(value)
            }
        }
    }

    fn validate(&self, names: &[String]) -> Result<()> {
        let refuse = |message: &'static str| Err(Error::new(ErrorKind::Corrupt, message));
        match self {
            Self::Forest { forest } if forest.features() != names.len() => {
                refuse("the trees were fitted on another number of features")
            }
            Self::Additive { additive } if additive.features() != names.len() => {
                refuse("the additive model was fitted on another number of features")
            }
            Self::Curve { feature, .. } if !names.contains(feature) => {
                refuse("the curve reads a feature that is not listed")
            }
            Self::Curve {
                intercept, slope, ..
            } if !(*slope > 0.0 && slope.is_finite() && intercept.is_finite()) => {
                refuse("the curve falls or is not finite")
            }
            _ => Ok(()),
        }
    }
}

/// A model and its calibration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Evidence to score.
    pub model: StageModel,
    /// Score to probability.
    pub calibration: CalibrationMap,
    /// Share of the candidates of calibration that reached the stage.
    pub share: f64,
}

impl Stage {
    pub(super) fn validate(&self, names: &[String]) -> Result<()> {
        self.model.validate(names)?;
        self.calibration.validate()
    }
}
