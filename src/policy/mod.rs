//! Step 5: serve a candidate or pass. Decisions are values.
//!
//! A policy is a pure function of [`Evidence`]: no I/O, no clock, no state. So it can be
//! property-tested, replayed over a log, and explained: every pass has a [`PassReason`], and the
//! reasons are metric labels.
//!
//! | policy | serves when | use it |
//! |---|---|---|
//! | [`Calibrated`] | the probability reaches a certified cut-off, and the expected gain is above zero | the default; with a policy file of one's own |
//! | [`Threshold`] | similarity reaches one number | to reproduce what other caches do |
//! | [`CostAware`] | the expected gain is above zero and the probability above a floor | where nothing is calibrated for the embedding |
//! | [`ExactOnly`] | never, by similarity | to switch similarity off |
//!
//! [`VcacheRule`] is the rule of another cache, to compare with; it is no policy, because it keeps labels.
//!
//! All of them treat a [`guard`] conflict as a pass unless told otherwise. Exact matches never reach
//! a policy.

mod calibrated;
mod cost_aware;
mod curve;
mod evidence;
mod slot;
mod threshold;
mod utility;
mod vcache;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

pub use calibrated::{
    Bound, Calibrated, CalibratedSettings, CalibrationKnot, CalibrationMap, Card, CategoryFit,
    Cutoff, Cutoffs, DataSet, FORMAT, GreyBand, GuardFit, Interval, PolicyFile, Reach, Stage,
    StageModel, Stages, WordingFit,
};
pub(crate) use calibrated::{SECOND_SPACE, Scorer, Verdict};
pub use cost_aware::CostAware;
pub use curve::SimilarityCurve;
pub use evidence::guard::{self, GuardKind, GuardReport, GuardState};
pub use evidence::{Category, EntryRecord, Evidence, TextComparison, TextFeatures, TextTraits};
pub(crate) use slot::PolicySlot;
pub use threshold::Threshold;
pub use utility::WrongAnswerCost;
pub use vcache::{Observation, VcacheRule};

/// Why a policy did not serve a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PassReason {
    /// The similarity is below the policy's threshold.
    BelowThreshold,
    /// The probability of being right is below the cut-off that keeps the promised rate of wrong answers.
    BelowCutoff,
    /// The probability of being right is below the policy's floor.
    BelowFloor,
    /// Being wrong would cost more than being right saves.
    NotWorthTheRisk,
    /// A guard found a conflict between the two texts, which stops a match whatever its probability.
    Guard(GuardKind),
    /// A guard found a conflict between the two texts, and the probability that this leaves is below the cut-off.
    Doubted(GuardKind),
    /// The policy serves exact matches only.
    ExactOnly,
}

impl PassReason {
    /// The stable name used in metrics, headers and reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BelowThreshold => "below_threshold",
            Self::BelowCutoff => "below_cutoff",
            Self::BelowFloor => "below_floor",
            Self::NotWorthTheRisk => "not_worth_the_risk",
            Self::Guard(GuardKind::Number) | Self::Doubted(GuardKind::Number) => "guard_number",
            Self::Guard(GuardKind::Negation) | Self::Doubted(GuardKind::Negation) => {
                "guard_negation"
            }
            Self::Guard(GuardKind::Antonym) | Self::Doubted(GuardKind::Antonym) => "guard_antonym",
            Self::Guard(GuardKind::Identifier) | Self::Doubted(GuardKind::Identifier) => {
                "guard_identifier"
            }
            Self::Guard(GuardKind::Calendar) | Self::Doubted(GuardKind::Calendar) => {
                "guard_calendar"
            }
            Self::Guard(GuardKind::Quote) | Self::Doubted(GuardKind::Quote) => "guard_quote",
            Self::Guard(GuardKind::Order) | Self::Doubted(GuardKind::Order) => "guard_order",
            Self::Guard(GuardKind::Substitution) | Self::Doubted(GuardKind::Substitution) => {
                "guard_substitution"
            }
            Self::Guard(GuardKind::Question) | Self::Doubted(GuardKind::Question) => {
                "guard_question"
            }
            Self::Guard(GuardKind::Format) | Self::Doubted(GuardKind::Format) => "guard_format",
            Self::Guard(GuardKind::Language) | Self::Doubted(GuardKind::Language) => {
                "guard_language"
            }
            Self::Guard(GuardKind::Entity) | Self::Doubted(GuardKind::Entity) => "guard_entity",
            Self::Guard(GuardKind::Pronoun) | Self::Doubted(GuardKind::Pronoun) => "guard_pronoun",
            Self::Guard(GuardKind::Connective) | Self::Doubted(GuardKind::Connective) => {
                "guard_connective"
            }
            Self::ExactOnly => "exact_only",
        }
    }
}

impl fmt::Display for PassReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a policy says of one candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub enum Decision {
    /// The candidate's answer may be given.
    Serve {
        /// Estimated probability that the answer is right, where the policy has one.
        probability: Option<f64>,
        /// What serving is expected to gain: of several candidates that may be given, the one that gains
        /// most is. In dollars or any other unit that is the same for all candidates of a lookup.
        utility: f64,
    },
    /// The cosine of the second space would help: decide again with [`Evidence::refined`], or with
    /// [`Evidence::can_refine`] false when it cannot be had. Said only where `can_refine` is true.
    Refine {
        /// Estimated probability that the answer is right, as far as can be told without.
        probability: Option<f64>,
    },
    /// The candidate is not good enough.
    Pass {
        /// What stopped it.
        reason: PassReason,
        /// Estimated probability that the answer would have been right, where the policy has one.
        probability: Option<f64>,
    },
}

/// What becomes of a policy whose numbers were fitted on another embedding than the one in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherEmbedding {
    /// It is used, with a warning: its probabilities mean little.
    Warn,
    /// Nothing is served by similarity, with a warning: nobody asked for these numbers.
    ServeNothing,
    /// The cache is not built: these numbers were asked for.
    Refuse,
}

/// Decides whether a candidate is served.
///
/// # Contract
/// - The result depends on the evidence alone.
/// - Raising the similarity, all else equal, never turns a serve into a pass.
pub trait HitPolicy: fmt::Debug + Send + Sync + 'static {
    /// The name in metrics, reports and config.
    fn name(&self) -> &'static str;

    /// Judges one candidate.
    fn decide(&self, evidence: &Evidence) -> Decision;

    /// The fingerprints of the embeddings that this policy's numbers were fitted on: of the first space, and
    /// of the second if it asks for one. Empty when they were not fitted at all.
    fn calibrated_for(&self) -> &[String] {
        &[]
    }

    /// Whether it may ever say [`Decision::Refine`]. If not, no vectors are made for it in the second space.
    fn may_refine(&self) -> bool {
        true
    }

    /// What becomes of the policy beside another embedding than that of
    /// [`calibrated_for`](Self::calibrated_for).
    fn on_other_embedding(&self) -> OtherEmbedding {
        OtherEmbedding::Warn
    }

    /// No candidate below this similarity can be served: the engine asks the index for no others.
    fn least_similarity(&self) -> f32;
}

/// A shared policy of any kind.
pub type PolicyHandle = Arc<dyn HitPolicy>;

/// Never serves by similarity.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExactOnly;

impl HitPolicy for ExactOnly {
    fn name(&self) -> &'static str {
        "exact_only"
    }

    fn decide(&self, _: &Evidence) -> Decision {
        Decision::Pass {
            reason: PassReason::ExactOnly,
            probability: None,
        }
    }

    fn may_refine(&self) -> bool {
        false
    }

    fn least_similarity(&self) -> f32 {
        f32::INFINITY
    }
}

/// Which policy to use, with its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum PolicyConfig {
    /// [`Threshold`].
    Threshold {
        /// Least cosine similarity that is served, 0 to 1. Default: 0.95, the customary number of
        /// other caches; see the README for what it means in wrong hits with the built-in model.
        #[serde(default = "default_threshold")]
        threshold: f64,
        /// Whether a guard's conflict is a pass. Default: true.
        #[serde(default = "yes")]
        guards: bool,
    },
    /// [`CostAware`].
    CostAware {
        /// What a wrong answer costs: `20x` (times the typical saving of a hit) or dollars, `$0.05`.
        /// Default: `20x`. Raise it where a wrong answer hurts; `5x` is bold, `100x` timid.
        #[serde(default)]
        #[cfg_attr(feature = "schema", schemars(with = "String"))]
        wrong_answer_cost: WrongAnswerCost,
        /// Least probability of being right at which anything is served, whatever it saves; 0.5 to
        /// 1. Default: 0.8.
        #[serde(default = "default_floor")]
        floor: f64,
        /// What a second of waiting is worth, in dollars. Default: 0, only money counts.
        #[serde(default)]
        usd_per_second: f64,
        /// Whether a guard's conflict is a pass. Default: true.
        #[serde(default = "yes")]
        guards: bool,
        /// From similarity to probability. Default: a cautious one, set by hand for the built-in model.
        #[serde(default)]
        curve: Option<SimilarityCurve>,
    },
    /// [`Calibrated`].
    Calibrated(CalibratedSettings),
    /// [`ExactOnly`].
    ExactOnly,
}

const fn default_threshold() -> f64 {
    0.95
}

const fn default_floor() -> f64 {
    0.8
}

const fn yes() -> bool {
    true
}

impl Default for PolicyConfig {
    /// The built-in calibrated policy under its usual promise.
    fn default() -> Self {
        Self::Calibrated(CalibratedSettings::default())
    }
}

impl PolicyConfig {
    /// What a wrong answer costs by these settings; `None` where the policy does not ask.
    #[must_use]
    pub const fn wrong_answer_cost(&self) -> Option<WrongAnswerCost> {
        match self {
            Self::CostAware {
                wrong_answer_cost, ..
            } => Some(*wrong_answer_cost),
            Self::Calibrated(settings) => Some(settings.wrong_answer_cost),
            Self::Threshold { .. } | Self::ExactOnly => None,
        }
    }

    /// Checks every field; `path` is where this section stands in the file.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the field, its value and the allowed range.
    pub fn validate(&self, path: &str) -> Result<()> {
        self.build_at(path).map(drop)
    }

    /// The policy that these settings describe.
    ///
    /// # Errors
    /// As [`PolicyConfig::validate`].
    pub fn build(&self) -> Result<PolicyHandle> {
        self.build_at("semantic.policy")
    }

    fn build_at(&self, path: &str) -> Result<PolicyHandle> {
        let at = |error: Error, field: &str| error.with("field", format!("{path}.{field}"));
        Ok(match self {
            Self::Threshold { threshold, guards } => Arc::new(
                Threshold::new(*threshold)
                    .map_err(|error| at(error, "threshold"))?
                    .guards(*guards),
            ),
            Self::CostAware {
                wrong_answer_cost,
                floor,
                usd_per_second,
                guards,
                curve,
            } => Arc::new(
                CostAware::new(*wrong_answer_cost)
                    .guards(*guards)
                    .curve(curve.clone().unwrap_or_default())
                    .map_err(|error| at(error, "curve"))?
                    .floor(*floor)
                    .map_err(|error| at(error, "floor"))?
                    .usd_per_second(*usd_per_second)
                    .map_err(|error| at(error, "usd_per_second"))?,
            ),
            Self::Calibrated(settings) => Arc::new(
                Calibrated::from_settings(settings)
                    .map_err(|error| error.with("field", path.to_owned()))?,
            ),
            Self::ExactOnly => Arc::new(ExactOnly),
        })
    }
}

/// An error for a number outside its range; the caller adds the field's path.
fn out_of_range(value: f64, allowed: &str) -> Error {
    Error::new(ErrorKind::Config, "a setting is out of range")
        .with("value", value)
        .with("allowed", allowed)
}
