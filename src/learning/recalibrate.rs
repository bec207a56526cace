//! A policy fitted anew on the labels of a decision log, as far as they carry its promises.
//!
//! The models stay; the maps from score to probability, the categories and the cut-offs are made of the log,
//! the earlier half of it for the maps and the later for the certificate. Decisions without labels are left
//! out, which are most hits: those that were audited stand for them by their weights. A candidate that
//! nobody labelled counts as wrong.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::decision_log;
use crate::calibrate::{self, FitSettings, Models, Parts};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::policy::{Calibrated, CalibratedSettings, Card, PolicyFile};
use crate::savings::Day;

/// What came of fitting a policy anew.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Recalibration {
    /// The new policy keeps its promises on the log, and decides from now on.
    Replaced {
        /// Labelled decisions that it was made of.
        decisions: usize,
    },
    /// The policy stays, as the labels do not carry its promises (yet).
    Refused {
        /// Labelled decisions that there were.
        decisions: usize,
        /// What they lack.
        reason: String,
    },
}

/// What came of the last attempt to fit the policy anew, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecalibrationReport {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// What came of it, and why.
    #[serde(flatten)]
    pub outcome: Recalibration,
    /// Digest of the new policy; `None` where there is none.
    pub digest: Option<String>,
}

/// Where the policy that decides comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyOrigin {
    /// From the settings.
    Configured,
    /// The program gave it.
    Given,
    /// It was fitted anew on the decision log, by this process or one before.
    Recalibrated,
}

impl PolicyOrigin {
    /// The stable name used in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::Given => "given",
            Self::Recalibrated => "recalibrated",
        }
    }
}

/// Which policy decides, and since when.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PolicyStatus {
    /// Its name.
    pub name: &'static str,
    /// Where it comes from.
    pub origin: PolicyOrigin,
    /// Since when it decides in this process, in milliseconds since 1970.
    pub since: u64,
    /// When it was made; `None` for one that was not calibrated or is not known.
    pub created: Option<String>,
    /// Digest of its file; `None` as above.
    pub digest: Option<String>,
    /// The last attempt to fit it anew; `None` before the first.
    pub last: Option<RecalibrationReport>,
}

/// What a fit came to: the new policy, or why there is none.
pub(crate) struct Refit {
    pub(crate) decisions: usize,
    pub(crate) policy: Result<Calibrated, String>,
}

/// Fits a policy on the log at `path`, with the models and promises of the one that `settings` name.
///
/// # Errors
/// Those of reading the log or that policy.
pub(crate) fn refit(path: &Path, settings: &CalibratedSettings, now: Timestamp) -> Result<Refit> {
    let base = match &settings.path {
        Some(path) => PolicyFile::read(path)?,
        None => PolicyFile::builtin()?,
    };
    let mut decisions = decision_log::read(path)?.decisions;
    decisions.retain(|decision| {
        let mut candidates = decision.candidates.iter();
        decision.spaces == base.spaces && candidates.any(|candidate| candidate.right.is_some())
    });
    let labelled = decisions.len();
    let card = Card {
        made_by: "a running cache, from its decision log".to_owned(),
        limits: "Decisions that nobody labelled are not in it.".to_owned(),
        made_from: Some(base.digest.clone()),
        ..base.card.clone()
    };
    let fit = FitSettings {
        per_request: settings.wrong_per_request.into_iter().collect(),
        per_hit: settings.wrong_per_hit.into_iter().collect(),
        // An average is promised by the same cut-offs.
        confidence: if settings.confidence > 0.0 {
            settings.confidence
        } else {
            FitSettings::default().confidence
        },
        models: Models::Keep(Box::new(base)),
        created: serde_json::to_value(Day::of(now))
            .ok()
            .and_then(|day| day.as_str().map(str::to_owned))
            .unwrap_or_default(),
        card,
        ..FitSettings::default()
    };
    let parts = Parts::split(&decisions, 0.0, 0.5, fit.seed);
    let policy = calibrate::fit(&parts, &fit)
        .map_err(|error| {
            Error::new(ErrorKind::Config, "no policy can be fitted on the log").caused_by(error)
        })
        .and_then(|(file, _)| {
            // As it will be read: digest and all.
            Calibrated::new(PolicyFile::parse(&file.to_json()?)?, settings)
        })
        .map_err(|error| match std::error::Error::source(&error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        });
    Ok(Refit {
        decisions: labelled,
        policy,
    })
}
