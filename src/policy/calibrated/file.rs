//! The policy as a file: JSON, versioned, and bound to the embedding that it was fitted on.
//!
//! Always true of a [`PolicyFile`] that was read: its digest fits its content, every feature that it
//! reads is one that this build computes, and every map in it rises.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::model::Stage;
use crate::error::{Error, ErrorKind, Result};
use crate::policy::{Evidence, GuardKind};

/// The version of the format that this build reads and writes.
pub const FORMAT: u32 = 1;

/// The most bytes of a file that is read.
const MOST_BYTES: u64 = 64 << 20;

/// A calibrated policy with its certificate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// [`FORMAT`].
    pub format: u32,
    /// When it was made, RFC 3339.
    pub created: String,
    /// Fingerprints of the embeddings: of the similarity, and of the second cosine where there is one.
    pub spaces: Vec<String>,
    /// Names of the features that the models read, in their order.
    pub features: Vec<String>,
    /// The models.
    pub stages: Stages,
    /// How often two texts that are the same but for their dress share an answer; `None` where the data had
    /// too few of them to tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_wording: Option<WordingFit>,
    /// Variance of the shift of log-odds that entries differ by; 0 or more.
    pub prior_variance: f64,
    /// When to ask for the second cosine; `None` without a second stage.
    pub band: Option<GreyBand>,
    /// No candidate below this similarity is served.
    pub least_similarity: f32,
    /// Similarities from which on a cut-off is reached, so that a tight promise looks no farther than it has to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reach: Vec<Reach>,
    /// What a guard's conflict leaves of a probability, by the guard's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub guards: BTreeMap<String, GuardFit>,
    /// Guards whose conflict is a pass, by name: those that the data proved.
    pub vetoes: Vec<String>,
    /// Cut-offs that hold for all traffic together.
    pub cutoffs: Cutoffs,
    /// What differs by category, by the category's name.
    pub categories: BTreeMap<String, CategoryFit>,
    /// What it was made from, and what it does not promise.
    pub card: Card,
    /// BLAKE3 of the file without this field, hexadecimal. Tells damage, not forgery.
    pub digest: String,
}

/// One model for each amount of evidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stages {
    /// Without the second cosine.
    pub fast: Stage,
    /// With it.
    pub full: Option<Stage>,
}

/// What [`Evidence::same_wording`] without a guard's conflict is worth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WordingFit {
    /// Probability that such a candidate is right; above 0 and below 1.
    pub probability: f64,
    /// Labelled candidates of that kind that were right.
    pub right: u64,
    /// Labelled candidates of that kind.
    pub of: u64,
}

/// How near a candidate has to be for a probability.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reach {
    /// From this probability on ...
    pub probability: f64,
    /// ... hardly any right candidate is less similar than this.
    pub similarity: f32,
}

/// What labels showed of candidates in which a guard finds a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardFit {
    /// No such candidate is more probable, 0 to 1: a lower bound of how often the surest of all guards' were right,
    /// within what those of this guard allow.
    pub most: f64,
    /// Labelled candidates among those that were right.
    pub right: u64,
    /// Labelled candidates that the bound rests on.
    pub of: u64,
}

/// Probabilities of the fast stage between which the second cosine is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GreyBand {
    /// Below, the candidate is passed at once.
    pub low: f64,
    /// From here on, a candidate that may be served is served at once.
    pub high: f64,
}

/// Cut-offs for each way in which decisions are made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cutoffs {
    /// Where the second cosine can be had.
    pub cascade: Vec<Cutoff>,
    /// Where it cannot.
    pub fast: Vec<Cutoff>,
}

/// Which rate of wrong answers is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Requests that are answered wrongly, of all requests.
    PerRequest,
    /// Wrong answers, of all answers served by similarity.
    PerHit,
}

impl Bound {
    /// The stable name used in config and reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PerRequest => "wrong_per_request",
            Self::PerHit => "wrong_per_hit",
        }
    }
}

/// A certified cut-off: decisions served from this probability on keep a promise.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cutoff {
    /// What is promised.
    pub bound: Bound,
    /// The promised rate.
    pub rate: f64,
    /// The probability with which calibration gives a cut-off that keeps the promise; 0 for a promise
    /// in expectation over calibrations.
    pub confidence: f64,
    /// The least probability that is served.
    pub probability: f64,
    /// Decisions of the certification that it serves wrongly.
    pub wrong: u64,
    /// Decisions of the certification that it serves.
    pub served: u64,
    /// Decisions of the certification.
    pub requests: u64,
}

/// What a category has of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CategoryFit {
    /// Added to the log-odds of all its candidates.
    pub offset: f64,
    /// Cut-offs certified on the category alone, used in place of the common ones.
    pub cutoffs: Cutoffs,
}

/// Where a policy comes from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// The command or call that made it.
    pub made_by: String,
    /// The data.
    pub data: Vec<DataSet>,
    /// Decisions used for models, for calibration and for certificates.
    pub fitted: u64,
    /// Decisions that calibration used.
    pub calibrated: u64,
    /// Decisions that certification used.
    pub certified: u64,
    /// What it does not promise, for people.
    pub limits: String,
    /// Digest of the policy whose models it has, where it was fitted anew from one; `None` otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_from: Option<String>,
}

/// A set of labelled data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSet {
    /// Its name.
    pub name: String,
    /// SHA-256 of the file, hexadecimal; empty where there is none.
    pub sha256: String,
    /// Decisions taken from it.
    pub decisions: u64,
}

impl PolicyFile {
    /// The policy that comes with the program.
    ///
    /// # Errors
    /// As [`PolicyFile::parse`].
    pub fn builtin() -> Result<Self> {
        Self::parse(include_bytes!("default.json"))
    }

    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when it cannot be read; otherwise as [`PolicyFile::parse`].
    pub fn read(path: &Path) -> Result<Self> {
        let unreadable = |error: std::io::Error| {
            Error::new(ErrorKind::Config, "the policy file cannot be read")
                .with("path", path.display())
                .caused_by(error)
        };
        let size = std::fs::metadata(path).map_err(unreadable)?.len();
        if size > MOST_BYTES {
            return Err(
                Error::new(ErrorKind::TooLarge, "the policy file is too large")
                    .with("path", path.display())
                    .with("bytes", size)
                    .with("allowed", MOST_BYTES),
            );
        }
        let bytes = std::fs::read(path).map_err(unreadable)?;
        Self::parse(&bytes).map_err(|error| error.with("path", path.display()))
    }

    /// Reads and checks a policy.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for another version of the format or features that this build does
    /// not compute; [`ErrorKind::Corrupt`] for anything else that is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        /// The version, whatever else there is.
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let corrupt = |error: serde_json::Error| {
            Error::new(ErrorKind::Corrupt, "the policy file is no policy").caused_by(error)
        };
        let Version { format } = serde_json::from_slice(bytes).map_err(corrupt)?;
        if format != FORMAT {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the policy file has another format: make it anew with `askonce calibrate`",
            )
            .with("found", format)
            .with("expected", FORMAT));
        }
        let file: Self = serde_json::from_slice(bytes).map_err(corrupt)?;
        let digest = file.content_digest()?;
        if digest != file.digest {
            return Err(
                Error::new(ErrorKind::Corrupt, "the policy file was changed or damaged")
                    .with("digest", &file.digest)
                    .with("content", digest),
            );
        }
        file.validate()?;
        Ok(file)
    }

    /// The file as JSON, with the digest of its content.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when a number in it is not finite, or as [`PolicyFile::parse`].
    pub fn to_json(&self) -> Result<Vec<u8>> {
        self.validate()?;
        let sealed = Self {
            digest: self.content_digest()?,
            ..self.clone()
        };
        serde_json::to_vec(&sealed).map_err(unwritable)
    }

    /// The digest that fits the content.
    fn content_digest(&self) -> Result<String> {
        let bare = Self {
            digest: String::new(),
            ..self.clone()
        };
        let bytes = serde_json::to_vec(&bare).map_err(unwritable)?;
        Ok(blake3::hash(&bytes).to_hex().to_string())
    }

    fn validate(&self) -> Result<()> {
        let corrupt = |message: &'static str| Error::new(ErrorKind::Corrupt, message);
        let known: Vec<_> = Evidence::feature_names().collect();
        if let Some(unknown) = self
            .features
            .iter()
            .find(|name| !known.contains(&name.as_str()))
        {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the policy reads a feature that this build does not compute",
            )
            .with("feature", unknown));
        }
        if (self.features.iter().enumerate()).any(|(at, name)| self.features[..at].contains(name)) {
            return Err(corrupt("the policy lists a feature twice"));
        }
        if (self.same_wording).is_some_and(|fit| !(fit.probability > 0.0 && fit.probability < 1.0))
        {
            return Err(corrupt(
                "the probability of the same wording is out of range",
            ));
        }
        if self.spaces.is_empty() {
            return Err(corrupt("the policy names no embedding"));
        }
        self.stages.fast.validate(&self.features)?;
        if let Some(full) = &self.stages.full {
            full.validate(&self.features)?;
            if self.spaces.len() < 2 {
                return Err(corrupt("the policy names no second embedding"));
            }
            let band = self
                .band
                .ok_or_else(|| corrupt("the policy has a second stage and no grey band"))?;
            if !(0.0 <= band.low && band.low <= band.high && band.high <= 1.0) {
                return Err(corrupt("the grey band is out of range"));
            }
        }
        if !(self.prior_variance >= 0.0 && self.prior_variance.is_finite()) {
            return Err(corrupt("the variance of the entries is out of range"));
        }
        if !(-1.0..=1.0).contains(&self.least_similarity) {
            return Err(corrupt("the least similarity is out of range"));
        }
        let in_reach = |reach: &Reach| {
            (0.0..=1.0).contains(&reach.probability) && (-1.0..=1.0).contains(&reach.similarity)
        };
        if !self.reach.iter().all(in_reach) {
            return Err(corrupt("how near a candidate has to be is out of range"));
        }
        for veto in &self.vetoes {
            guard_named(veto)?;
        }
        for (guard, fit) in &self.guards {
            guard_named(guard)?;
            if !(0.0..=1.0).contains(&fit.most) {
                return Err(corrupt(
                    "what a guard leaves of a probability is out of range",
                ));
            }
        }
        let categories = self.categories.values();
        if !categories
            .clone()
            .all(|category| category.offset.is_finite())
        {
            return Err(corrupt("the offset of a category is not finite"));
        }
        let cutoffs = categories
            .map(|category| &category.cutoffs)
            .chain([&self.cutoffs]);
        for cutoff in cutoffs.flat_map(|cutoffs| cutoffs.cascade.iter().chain(&cutoffs.fast)) {
            let in_range = |p: f64| (0.0..=1.0).contains(&p);
            if !in_range(cutoff.probability)
                || !in_range(cutoff.rate)
                || !(0.0..1.0).contains(&cutoff.confidence)
            {
                return Err(corrupt("a certified cut-off is out of range"));
            }
        }
        Ok(())
    }

    /// The guards whose conflict is a pass.
    pub(super) fn vetoing_guards(&self) -> Result<Vec<GuardKind>> {
        self.vetoes.iter().map(|name| guard_named(name)).collect()
    }

    /// The most probable that a guard's conflict lets a candidate be.
    pub(super) fn guard_bounds(&self) -> Result<Vec<(GuardKind, f64)>> {
        let bound = |(name, fit): (&String, &GuardFit)| Ok((guard_named(name)?, fit.most));
        self.guards.iter().map(bound).collect()
    }
}

fn unwritable(error: serde_json::Error) -> Error {
    Error::new(ErrorKind::Corrupt, "the policy cannot be written").caused_by(error)
}

fn guard_named(name: &str) -> Result<GuardKind> {
    GuardKind::ALL
        .into_iter()
        .find(|kind| kind.as_str() == name)
        .ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, "the policy names an unknown guard")
                .with("guard", name)
        })
}
