//! Serve within a promised rate of wrong answers: a fitted model, calibrated and certified on labelled
//! decisions.
//!
//! What a candidate's evidence is worth is learnt, not set by hand:
//!
//! ```text
//! evidence -> model -> calibration -> category -> entry -> p     (the probability of being right)
//! p >= certified cut-off   and   cautious p >= floor   and   expected gain > 0   =>   served
//! ```
//!
//! - The model reads all features of [`Evidence`]; calibration was fitted on other decisions than the
//!   model ([`CalibrationMap`]); a category shifts the log-odds, and so does what was learnt of the entry.
//! - The cut-off is the loosest that was *certified* for the promise that the settings name: a rate of
//!   wrong answers per request, per hit, or both. What was never certified cannot be asked for.
//! - With a second embedding there are two models. The first decides what is clear; in the grey band it
//!   says [`Decision::Refine`], and the second decides with both cosines.
//! - Texts that are the same but for case, punctuation, contractions, spelling and courtesy have a measured
//!   probability of their own ([`WordingFit`]), and the surer of the two counts, unless a guard finds a conflict.
//! - A guard's conflict is weighed by the model, and leaves no more of the probability than labels have shown
//!   ([`GuardFit`]): at a tight promise such a candidate is not served, at a loose one it may be. It is a veto only
//!   where the data proved it.
//!
//! The promise holds for traffic like that of the certificate. Prices can only withhold answers that the
//! cut-off would let through: that keeps a promise per request, and a promise per hit as long as prices do
//! not depend on whether the answer is right.
//!
//! Always true: raising the similarity, all else equal, never turns a serve into a pass, because the
//! models are monotone in it and every map rises. That an evidence is no number is a pass.

mod file;
mod map;
mod model;
mod scorer;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use scorer::{Weighed, at_least};

use super::utility::Utility;
use super::{Category, Decision, Evidence, HitPolicy, PassReason, WrongAnswerCost, out_of_range};
use crate::error::{Error, ErrorKind, Result};

pub use file::{
    Bound, Card, CategoryFit, Cutoff, Cutoffs, DataSet, FORMAT, GreyBand, GuardFit, PolicyFile,
    Reach, Stages, WordingFit,
};
pub use map::{CalibrationKnot, CalibrationMap, Interval};
pub use model::{Stage, StageModel};
pub(crate) use scorer::{SECOND_SPACE, Scorer, Verdict};

/// How a [`Calibrated`] policy is used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct CalibratedSettings {
    /// The policy file, as `askonce calibrate` writes it. Default: the built-in policy.
    pub path: Option<PathBuf>,
    /// Most requests that may be answered wrongly, as a share of all requests; `null` for no such
    /// promise. The file must certify it. Default: 0.01.
    pub wrong_per_request: Option<f64>,
    /// Most answers by similarity that may be wrong, as a share of them; `null` for no such promise. The
    /// file must certify it. Default: none.
    pub wrong_per_hit: Option<f64>,
    /// How sure the promises must be, 0 to below 1: the probability, over the data of the calibration,
    /// that they hold. 0 is enough for a promise per request that holds on average. Default: 0.95.
    pub confidence: f64,
    /// What a wrong answer costs: `4x` (times the typical saving of a hit) or dollars, `$0.05`. Default:
    /// `4x`. Raise it where a wrong answer hurts.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub wrong_answer_cost: WrongAnswerCost,
    /// Least cautious probability of being right at which anything is served, 0 to 1. Default: 0.5.
    pub floor: f64,
    /// What a second of waiting is worth, in dollars. Default: 0, only money counts.
    pub usd_per_second: f64,
    /// How many standard deviations of what is not known about a probability are taken off before it is
    /// compared with the floor and the cost, 0 or more. Default: 0.
    pub caution: f64,
    /// Whether a guard's conflict is a pass, whatever is promised. Default: false: the conflict leaves no more of the
    /// probability than labels have shown, so it stops a match at a tight promise and may not at a loose one; a pass
    /// in any case is only what the data proved.
    pub guards: bool,
}

impl Default for CalibratedSettings {
    fn default() -> Self {
        Self {
            path: None,
            wrong_per_request: Some(0.01),
            wrong_per_hit: None,
            confidence: 0.95,
            wrong_answer_cost: WrongAnswerCost::TimesSaving(4.0),
            floor: 0.5,
            usd_per_second: 0.0,
            caution: 0.0,
            guards: false,
        }
    }
}

/// Serves within a certified rate of wrong answers. See the module documentation.
#[derive(Clone, Debug)]
pub struct Calibrated {
    file: Arc<PolicyFile>,
    scorer: Scorer,
    /// Least probabilities, of the category or of all.
    common: Least,
    own: HashMap<Category, Least>,
    /// Similarity from which on these are reached.
    least_similarity: f32,
    utility: Utility,
    floor: f64,
    caution: f64,
    guards: bool,
    /// Whether the numbers came with the program and not from a file that was asked for.
    builtin: bool,
}

/// The least probabilities that are served.
#[derive(Clone, Copy, Debug)]
struct Least {
    /// Where the second cosine can be had.
    cascade: f64,
    /// Where it cannot.
    fast: f64,
}

impl Calibrated {
    /// The policy of `file` under `settings`, whose path is not looked at.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when a setting is out of range, or names a promise that the file does not
    /// certify: the error says what is certified.
    pub fn new(file: PolicyFile, settings: &CalibratedSettings) -> Result<Self> {
        let field = |error: Error, name: &'static str| error.with("setting", name);
        if !(0.0..1.0).contains(&settings.confidence) {
            let error = out_of_range(settings.confidence, "0 to below 1");
            return Err(field(error, "confidence"));
        }
        if !(0.0..=1.0).contains(&settings.floor) {
            return Err(field(out_of_range(settings.floor, "0 to 1"), "floor"));
        }
        if !(settings.caution >= 0.0 && settings.caution.is_finite()) {
            return Err(field(
                out_of_range(settings.caution, "0 or more"),
                "caution",
            ));
        }
        let utility = Utility::new(settings.wrong_answer_cost)
            .usd_per_second(settings.usd_per_second)
            .map_err(|error| field(error, "usd_per_second"))?;
        let common = Least::certified(&file.cutoffs, file.stages.full.is_some(), settings)?;
        let own: HashMap<Category, Least> = file
            .categories
            .iter()
            .map(|(name, fit)| (Category::named(name), common.or_own(&fit.cutoffs, settings)))
            .collect();
        let loosest = own
            .values()
            .chain([&common])
            .map(Least::loosest)
            .fold(1.0, f64::min);
        if let Some(worth) = utility.least_probability().filter(|p| *p > common.cascade) {
            tracing::info!(
                cutoff = common.cascade,
                worth_from = worth,
                "what a wrong answer costs holds back matches that the promise would serve: lower \
                 wrong_answer_cost to have them"
            );
        }
        let reached = file
            .reach
            .iter()
            .filter(|reach| reach.probability <= loosest);
        let nearest = reached.map(|reach| reach.similarity);
        Ok(Self {
            scorer: Scorer::new(&file)?,
            least_similarity: nearest.fold(file.least_similarity, f32::max),
            file: Arc::new(file),
            common,
            own,
            utility,
            floor: settings.floor,
            caution: settings.caution,
            guards: settings.guards,
            builtin: false,
        })
    }

    /// The policy that the settings name: that of the file, or the built-in one.
    ///
    /// # Errors
    /// As [`Calibrated::new`] and [`PolicyFile::read`].
    pub fn from_settings(settings: &CalibratedSettings) -> Result<Self> {
        match &settings.path {
            Some(path) => Self::new(PolicyFile::read(path)?, settings),
            None => Ok(Self {
                builtin: true,
                ..Self::new(PolicyFile::builtin()?, settings)?
            }),
        }
    }

    /// What the policy was made from.
    #[must_use]
    pub fn file(&self) -> &PolicyFile {
        &self.file
    }

    /// Variance of the prior of the entries' shifts.
    #[must_use]
    pub fn prior_variance(&self) -> f64 {
        self.file.prior_variance
    }

    /// Why a candidate of too small a probability is passed: a guard, where it would do without that.
    fn too_improbable(&self, weighed: Weighed, least: f64, evidence: &Evidence) -> PassReason {
        match self.scorer.bound(evidence) {
            Some((guard, _)) if weighed.unguarded >= least => PassReason::Doubted(guard),
            _ => PassReason::BelowCutoff,
        }
    }

    /// What stops a candidate with this probability, or what serving it gains.
    fn stopped(
        &self,
        weighed: Weighed,
        least: f64,
        evidence: &Evidence,
    ) -> Result<f64, PassReason> {
        at_least(weighed.probability, least)
            .ok_or_else(|| self.too_improbable(weighed, least, evidence))?;
        at_least(weighed.cautious, self.floor).ok_or(PassReason::BelowFloor)?;
        let gain = self.utility.gain(weighed.cautious, evidence);
        if gain > 0.0 {
            Ok(gain)
        } else {
            Err(PassReason::NotWorthTheRisk)
        }
    }
}

impl Least {
    fn loosest(&self) -> f64 {
        self.cascade.min(self.fast)
    }

    /// The least probability that keeps every promise of `settings`.
    fn certified(cutoffs: &Cutoffs, cascade: bool, settings: &CalibratedSettings) -> Result<Self> {
        let of = |cutoffs: &[Cutoff]| {
            let mut least = 0.0_f64;
            for (bound, rate) in promises(settings) {
                let found = tightest(cutoffs, bound, rate, settings.confidence);
                least = least.max(found.ok_or_else(|| not_certified(cutoffs, bound, rate))?);
            }
            Ok::<_, Error>(least)
        };
        let fast = of(&cutoffs.fast);
        if cascade {
            let cascade = of(&cutoffs.cascade)?;
            // Without a certificate of its own, the fast stage alone serves nothing.
            let fast = fast.unwrap_or(f64::INFINITY);
            Ok(Self { cascade, fast })
        } else {
            let fast = fast?;
            Ok(Self {
                cascade: fast,
                fast,
            })
        }
    }

    /// The same for a category, which may have cut-offs of its own for all promises.
    fn or_own(self, cutoffs: &Cutoffs, settings: &CalibratedSettings) -> Self {
        let of = |cutoffs: &[Cutoff], common: f64| {
            let mut least = 0.0_f64;
            for (bound, rate) in promises(settings) {
                match tightest(cutoffs, bound, rate, settings.confidence) {
                    Some(own) => least = least.max(own),
                    None => return common,
                }
            }
            if cutoffs.is_empty() { common } else { least }
        };
        Self {
            cascade: of(&cutoffs.cascade, self.cascade),
            fast: of(&cutoffs.fast, self.fast),
        }
    }
}

/// The promises that the settings name.
fn promises(settings: &CalibratedSettings) -> impl Iterator<Item = (Bound, f64)> {
    [
        (Bound::PerRequest, settings.wrong_per_request),
        (Bound::PerHit, settings.wrong_per_hit),
    ]
    .into_iter()
    .filter_map(|(bound, rate)| rate.map(|rate| (bound, rate)))
}

/// The loosest cut-off that is certified for the promise or a stricter one.
fn tightest(cutoffs: &[Cutoff], bound: Bound, rate: f64, confidence: f64) -> Option<f64> {
    cutoffs
        .iter()
        .filter(|cutoff| {
            cutoff.bound == bound && cutoff.rate <= rate + 1e-12 && cutoff.confidence >= confidence
        })
        .map(|cutoff| cutoff.probability)
        .min_by(f64::total_cmp)
}

fn not_certified(cutoffs: &[Cutoff], bound: Bound, rate: f64) -> Error {
    let mut certified: Vec<_> = cutoffs
        .iter()
        .map(|cutoff| {
            let name = cutoff.bound.as_str();
            format!("{name} {} at confidence {}", cutoff.rate, cutoff.confidence)
        })
        .collect();
    certified.dedup();
    let certified = if certified.is_empty() {
        "nothing".to_owned()
    } else {
        certified.join(", ")
    };
    Error::new(
        ErrorKind::Config,
        "the policy does not certify the promised rate of wrong answers",
    )
    .with("setting", bound.as_str())
    .with("value", rate)
    .with("certified", certified)
}

/// Why a candidate is not served as it is.
enum Stop {
    /// The second cosine is asked for.
    Refine,
    Pass(PassReason),
}

impl HitPolicy for Calibrated {
    fn name(&self) -> &'static str {
        "calibrated"
    }

    fn decide(&self, evidence: &Evidence) -> Decision {
        let pass = |reason, probability| Decision::Pass {
            reason,
            probability,
        };
        let near = f64::from(self.scorer.least_similarity);
        if at_least(f64::from(evidence.similarity), near).is_none() {
            return pass(PassReason::BelowThreshold, None);
        }
        let least = self.own.get(&evidence.category).unwrap_or(&self.common);
        let second = evidence.refined.is_some() || evidence.can_refine;
        let (weighed, verdict) = if self.scorer.has_full() && second {
            match self.scorer.weigh(evidence, self.caution) {
                Verdict::Hopeless(weighed) => (
                    weighed.aged(evidence),
                    Err(Stop::Pass(PassReason::BelowCutoff)),
                ),
                Verdict::Clear(weighed) => {
                    let weighed = weighed.aged(evidence);
                    let verdict = self.stopped(weighed, least.cascade, evidence);
                    (weighed, verdict.map_err(Stop::Pass))
                }
                Verdict::Grey { fast, above } => {
                    let fast = fast.aged(evidence);
                    let served = self.stopped(fast, least.cascade, evidence);
                    // Where a guard leaves too little, no second cosine would change it.
                    let bound = self.scorer.bound(evidence);
                    let doubted = bound.filter(|&(_, most)| most < least.cascade);
                    let verdict = match (served, doubted) {
                        (Ok(gain), _) if above => Ok(gain),
                        (_, Some((guard, _))) => Err(Stop::Pass(PassReason::Doubted(guard))),
                        _ if evidence.can_refine && evidence.refined.is_none() => Err(Stop::Refine),
                        (Ok(_), _) => Err(Stop::Pass(PassReason::BelowCutoff)),
                        (Err(reason), _) => Err(Stop::Pass(reason)),
                    };
                    (fast, verdict)
                }
            }
        } else {
            let weighed = self.scorer.fast(evidence, self.caution).aged(evidence);
            let verdict = self.stopped(weighed, least.fast, evidence);
            (weighed, verdict.map_err(Stop::Pass))
        };
        let probability = Some(weighed.probability);
        // Too far for these promises, though not for any.
        if evidence.similarity < self.least_similarity {
            return pass(PassReason::BelowThreshold, probability);
        }
        if let Some(guard) = self.scorer.veto(evidence) {
            return pass(PassReason::Guard(guard), probability);
        }
        let conflict = evidence.guards.conflict().filter(|_| self.guards);
        match (verdict, conflict) {
            // No second cosine would change it, so none is asked for.
            (Ok(_) | Err(Stop::Refine), Some(guard)) => pass(PassReason::Guard(guard), probability),
            (Ok(utility), None) => Decision::Serve {
                probability,
                utility,
            },
            (Err(Stop::Refine), None) => Decision::Refine { probability },
            (Err(Stop::Pass(reason)), _) => pass(reason, probability),
        }
    }

    fn calibrated_for(&self) -> &[String] {
        &self.file.spaces
    }

    fn may_refine(&self) -> bool {
        self.file.stages.full.is_some()
    }

    fn on_other_embedding(&self) -> super::OtherEmbedding {
        if self.builtin {
            super::OtherEmbedding::ServeNothing
        } else {
            super::OtherEmbedding::Refuse
        }
    }

    fn least_similarity(&self) -> f32 {
        self.least_similarity
    }
}

#[cfg(test)]
mod tests;
