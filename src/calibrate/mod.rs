//! From labelled decisions to a calibrated policy with a certificate: offline, and pure.
//!
//! | file | does |
//! |---|---|
//! | `split.rs` | which decisions are fitted on, calibrated on, certified on |
//! | `fit.rs` | the whole way: models, maps, categories, vetoes, certificates |
//! | `isotonic.rs` | monotone regression and Venn-Abers prediction |
//! | `platt.rs` | logistic calibration, for few labels; offsets of categories |
//! | `prior.rs` | how much entries differ |
//! | `certify.rs` | the cut-off that keeps a promise, or what is missing for it |
//! | `beta.rs` | exact binomial bounds |
//! | `report.rs` | what was measured on the way |
//!
//! What is certified is the *decision*: of all candidates of a request the one with the highest
//! probability, served if that reaches the cut-off. Its loss is 1 when it is served and wrong. Decisions
//! are scored by the code that serves, on records that neither the model nor the calibration saw.
//!
//! Always true: the same records and settings give the same policy; no certificate rests on a decision
//! that was fitted on; what cannot be certified is not in the policy.

mod beta;
mod certify;
mod fit;
mod isotonic;
mod platt;
mod prior;
mod report;
mod split;

pub use askonce_models::FitError;
pub use askonce_models::additive::AdditiveSettings;
pub use askonce_models::trees::ForestSettings;

use crate::error::Error;

pub use beta::{inverse_regularised_beta, lower_bound, regularised_beta, upper_bound};
pub use certify::{Outcome, Promise, Shortage, certify};
pub use fit::{FitSettings, Models, fit};
pub use isotonic::{Labelled, MOST_KNOTS, Step, fit as isotonic_regression, knots, venn_abers};
pub use platt::{Platt, fit as platt_scaling, offset as category_offset};
pub use prior::{DEFAULT_VARIANCE, shift_variance};
pub use report::{
    CategoryReport, CurvePoint, FitReport, GuardEarnings, PromiseReport, ReliabilityBin,
    ShortageReport,
};
pub use split::Parts;

/// Why no policy could be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CalibrateError {
    /// There are too few labels to fit or calibrate anything.
    #[error("{found} usable labels where at least {needed} of a kind are needed")]
    NoLabels {
        /// Labels of the rarer kind.
        found: usize,
        /// Labels that would do.
        needed: usize,
    },
    /// The records do not say which embedding they are from.
    #[error("the records name no embedding")]
    NoEmbedding,
    /// The records come from different embeddings.
    #[error("the records come from different embeddings: {first} and {other}")]
    MixedEmbeddings {
        /// Fingerprints of the first record.
        first: String,
        /// Fingerprints of one that differs.
        other: String,
    },
    /// The policy whose models are kept reads another embedding.
    #[error("the policy reads {policy}, and the records come from {records}")]
    OtherEmbedding {
        /// Fingerprints of the policy.
        policy: String,
        /// Fingerprints of the records.
        records: String,
    },
    /// A model could not be fitted.
    #[error("a model could not be fitted")]
    Model(#[from] FitError),
    /// The result is no valid policy.
    #[error("the fitted policy is not valid")]
    Policy(#[from] Error),
}

#[cfg(test)]
mod tests;
