//! From evidence to a calibrated probability. Serving and certification run this same code, so what
//! was certified is what is served.

use std::collections::HashMap;
use std::f64::consts::PI;

use super::file::{GreyBand, PolicyFile};
use super::map::{log_odds, sigmoid};
use super::model::Stage;
use crate::error::Result;
use crate::policy::evidence::FEATURES;
use crate::policy::{Category, Evidence, GuardKind, GuardState};

/// What of a policy makes probabilities.
#[derive(Clone, Debug)]
pub(crate) struct Scorer {
    names: Vec<String>,
    /// Places of the features in [`Evidence::features`].
    columns: Vec<usize>,
    /// Places among `columns` of what the fast stage must not see.
    second: Vec<usize>,
    fast: Stage,
    full: Option<(Stage, GreyBand)>,
    /// Log-odds of the same words in other dress.
    same_wording: Option<f64>,
    prior_variance: f64,
    offsets: HashMap<Category, f64>,
    /// The most probable that a guard's conflict lets a candidate be.
    bounds: Vec<(GuardKind, f64)>,
    pub(super) vetoes: Vec<GuardKind>,
    pub(super) least_similarity: f32,
}

/// Names of the features of the second embedding.
pub(crate) const SECOND_SPACE: [&str; 2] = ["refined", "refined_margin"];

/// What one stage says of one candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Weighed {
    /// Probability that the answer is right.
    pub(crate) probability: f64,
    /// The same, less what is not known about it.
    pub(crate) cautious: f64,
    /// The probability without the bound that a guard's conflict sets.
    pub(super) unguarded: f64,
}

impl Weighed {
    /// The same of an answer of this age.
    pub(super) fn aged(self, evidence: &Evidence) -> Self {
        let left = evidence.freshness();
        Self {
            probability: self.probability * left,
            cautious: self.cautious * left,
            unguarded: self.unguarded * left,
        }
    }
}

/// What the stages together say of a candidate whose second cosine is known or can be had.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// So improbable that the second cosine is not asked for.
    Hopeless(Weighed),
    /// The last word.
    Clear(Weighed),
    /// The second cosine would help.
    Grey {
        /// What is said without.
        fast: Weighed,
        /// Whether the probability is high enough to be served without.
        above: bool,
    },
}

impl Scorer {
    pub(crate) fn new(file: &PolicyFile) -> Result<Self> {
        let known: Vec<_> = Evidence::feature_names().collect();
        // Validation has made sure that each is found.
        let columns = file
            .features
            .iter()
            .filter_map(|name| known.iter().position(|known| known == name))
            .collect();
        let second = file
            .features
            .iter()
            .enumerate()
            .filter(|(_, name)| SECOND_SPACE.contains(&name.as_str()))
            .map(|(at, _)| at)
            .collect();
        Ok(Self {
            names: file.features.clone(),
            columns,
            second,
            fast: file.stages.fast.clone(),
            full: file.stages.full.clone().zip(file.band),
            same_wording: file.same_wording.map(|fit| log_odds(fit.probability)),
            prior_variance: file.prior_variance,
            offsets: file
                .categories
                .iter()
                .map(|(name, fit)| (Category::named(name), fit.offset))
                .collect(),
            bounds: file.guard_bounds()?,
            vetoes: file.vetoing_guards()?,
            least_similarity: file.least_similarity,
        })
    }

    /// The first proved guard that finds a conflict.
    pub(crate) fn veto(&self, evidence: &Evidence) -> Option<GuardKind> {
        self.vetoes
            .iter()
            .copied()
            .find(|&kind| evidence.guards.state(kind) == GuardState::Conflict)
    }

    /// The guard whose conflict leaves least of the probability of this candidate, and how much that is at most.
    pub(crate) fn bound(&self, evidence: &Evidence) -> Option<(GuardKind, f64)> {
        self.bounds
            .iter()
            .copied()
            .filter(|&(kind, _)| evidence.guards.state(kind) == GuardState::Conflict)
            .min_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// Whether there is a stage for the second cosine.
    pub(crate) fn has_full(&self) -> bool {
        self.full.is_some()
    }

    /// Similarity below which nothing is served.
    pub(crate) fn least_similarity(&self) -> f32 {
        self.least_similarity
    }

    /// The model's own score of a stage, before calibration; `None` where the stage has nothing to say:
    /// there is no full stage, or no second cosine for it.
    pub(crate) fn margin(&self, evidence: &Evidence, full: bool) -> Option<f64> {
        let features = self.features(evidence);
        let score = if full {
            evidence.refined.filter(|cosine| !cosine.is_nan())?;
            self.score(&self.full.as_ref()?.0, &features)
        } else {
            self.score(&self.fast, &self.without_second(features))
        };
        Some(score).filter(|score| score.is_finite())
    }

    /// The models' features of `evidence`, in the order of `columns`.
    fn features(&self, evidence: &Evidence) -> Features {
        let all = evidence.feature_values();
        let mut features = [f32::NAN; FEATURES];
        for (feature, &column) in features.iter_mut().zip(&self.columns) {
            *feature = all.get(column).copied().unwrap_or(f32::NAN);
        }
        features
    }

    /// The same, as if there were no second space.
    fn without_second(&self, mut features: Features) -> Features {
        for &at in &self.second {
            features[at] = f32::NAN;
        }
        features
    }

    fn score(&self, stage: &Stage, features: &Features) -> f64 {
        stage
            .model
            .margin(&self.names, &features[..self.columns.len()])
    }

    /// Probabilities by `stage`. `caution` is the number of standard deviations that the cautious one
    /// lies below.
    fn by(&self, stage: &Stage, features: &Features, evidence: &Evidence, caution: f64) -> Weighed {
        let log_odds = stage.calibration.log_odds(self.score(stage, features));
        self.settle(log_odds, evidence, caution)
    }

    /// What is said of the same words in other dress; `None` of other words, and where a guard finds a
    /// conflict all the same.
    fn by_wording(&self, evidence: &Evidence, caution: f64) -> Option<Weighed> {
        let known = self.same_wording.filter(|_| evidence.same_wording)?;
        let conflict = evidence.guards.conflict();
        conflict
            .is_none()
            .then(|| self.settle((known, known), evidence, caution))
    }

    /// Probabilities from log-odds and their cautious companion, by category and by what was learnt of the
    /// entry.
    fn settle(&self, (mean, low): (f64, f64), evidence: &Evidence, caution: f64) -> Weighed {
        let offset = self
            .offsets
            .get(&evidence.category)
            .copied()
            .unwrap_or_default();
        // The calibrated probability is the mean over entries, which differ by a normal shift. The centre of
        // that distribution has larger log-odds (the usual probit approximation), and is what the entry's
        // own shift is added to: so an entry nothing is known of gets the calibrated probability.
        let variance = self.prior_variance;
        let spread = |variance: f64| (1.0 + PI * variance / 8.0).sqrt();
        let (shift, precision) = (
            f64::from(evidence.record.shift),
            f64::from(evidence.record.precision).max(0.0),
        );
        let left = if variance > 0.0 {
            1.0 / (1.0 / variance + precision)
        } else {
            0.0
        };
        let centre = |log_odds: f64| (log_odds + offset) * spread(variance) + shift;
        // A mixture of two rising values rises too.
        let trust = caution.clamp(0.0, 1.0);
        let below = mean + trust * (low - mean).min(0.0);
        let probability = sigmoid(centre(mean) / spread(left));
        let cautious = sigmoid(centre(below) / spread(left) - caution * left.sqrt());
        // Last of all: what was learnt of an entry was learnt of other questions than one in conflict with it.
        let bounded = |p: f64| self.bound(evidence).map_or(p, |(_, most)| pressed(p, most));
        Weighed {
            probability: bounded(probability),
            cautious: bounded(cautious),
            unguarded: probability,
        }
    }

    /// What the stages say of a candidate whose second cosine is known or can be had.
    pub(crate) fn weigh(&self, evidence: &Evidence, caution: f64) -> Verdict {
        let features = self.features(evidence);
        let modelled = self.by(
            &self.fast,
            &self.without_second(features),
            evidence,
            caution,
        );
        let wording = self.by_wording(evidence, caution);
        let fast = modelled.or_surer(wording);
        let Some((stage, band)) = &self.full else {
            return Verdict::Clear(fast);
        };
        if at_least(fast.probability, band.low).is_none() {
            return Verdict::Hopeless(fast);
        }
        // The second cosine has nothing to add to the same words.
        let above = fast.probability >= band.high || wording.is_some();
        if evidence.refined.is_none_or(f32::is_nan) {
            return Verdict::Grey { fast, above };
        }
        let full = self.by(stage, &features, evidence, caution);
        // What the fast stage would have served at once stays served.
        Verdict::Clear(if above {
            full.or_surer(Some(fast))
        } else {
            full
        })
    }

    /// The word of the fast stage and of the wording.
    pub(crate) fn fast(&self, evidence: &Evidence, caution: f64) -> Weighed {
        let features = self.without_second(self.features(evidence));
        self.by(&self.fast, &features, evidence, caution)
            .or_surer(self.by_wording(evidence, caution))
    }
}

impl Weighed {
    /// The more probable of two; of equals this one.
    fn or_surer(self, other: Option<Self>) -> Self {
        match other {
            Some(other) if other.probability > self.probability => other,
            _ => self,
        }
    }
}

/// As many values as any policy can read.
type Features = [f32; FEATURES];

/// Share of a bound below which it changes nothing.
const FREE: f64 = 0.9;

/// A probability pressed below a bound: the same well below it, and otherwise still in its order.
fn pressed(probability: f64, most: f64) -> f64 {
    let free = FREE * most;
    if probability <= free {
        return probability;
    }
    free + (most - free) * (probability - free) / (1.0 - free)
}

/// `value`, where it reaches `least`: what is no number reaches nothing.
pub(super) fn at_least(value: f64, least: f64) -> Option<f64> {
    (value >= least).then_some(value)
}
