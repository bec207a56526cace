//! What a calibration measured of itself: for people, and for charts.

use serde::Serialize;

use crate::policy::{Bound, Cutoff, GuardFit};

/// What came out of a calibration, beside the policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct FitReport {
    /// Decisions used for models, calibration and certificates.
    pub fitted: u64,
    /// Decisions that the maps were fitted on.
    pub calibrated: u64,
    /// Decisions that the certificates rest on.
    pub certified: u64,
    /// Decisions left out because nobody labelled any of their candidates.
    pub unlabelled: u64,
    /// Training rows of the fast and of the full model; 0 for a model that was kept.
    pub rows: [u64; 2],
    /// Every promise that was asked for, and what became of it.
    pub promises: Vec<PromiseReport>,
    /// Probability said against share right, among the best candidates of the certification.
    pub reliability: Vec<ReliabilityBin>,
    /// Mean squared error of the probabilities of the best candidates.
    pub brier: f64,
    /// Share of requests served and share of the served that is right, from strict to loose.
    pub curve: Vec<CurvePoint>,
    /// Area under precision over hit rate, from no hits to all requests with a right answer.
    pub area: f64,
    /// By category; the default category has the empty name.
    pub categories: Vec<CategoryReport>,
    /// What each guard would earn as a veto.
    pub guards: Vec<GuardEarnings>,
    /// Share of the candidates that reach the second stage.
    pub refined: f64,
}

/// One promise, and the cut-off or what is missing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PromiseReport {
    /// `cascade` with both embeddings, `fast` with the first alone.
    pub stages: &'static str,
    /// The category that it is for; `None` for all traffic.
    pub category: Option<String>,
    /// What is promised.
    pub bound: Bound,
    /// The promised rate.
    pub rate: f64,
    /// How sure.
    pub confidence: f64,
    /// The cut-off, where it was certified.
    pub cutoff: Option<Cutoff>,
    /// Served, wrong and missing decisions, where it was not.
    pub shortage: Option<ShortageReport>,
}

/// Why a promise was not certified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ShortageReport {
    /// Decisions that the best cut-off serves.
    pub served: u64,
    /// Of them wrong.
    pub wrong: u64,
    /// Labelled decisions there were.
    pub requests: u64,
    /// Labelled decisions that are missing; `None` when more labels would not do.
    pub missing: Option<u64>,
}

/// Decisions whose probability is in one range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ReliabilityBin {
    /// Mean of the probabilities.
    pub said: f64,
    /// Share that was right.
    pub right: f64,
    /// 95 % interval of that share (Clopper-Pearson).
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// Decisions.
    pub count: u64,
}

/// One cut-off on the way from strict to loose.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CurvePoint {
    /// The least probability served.
    pub probability: f64,
    /// Served, of all requests.
    pub hit_rate: f64,
    /// Right, of the served.
    pub precision: f64,
    /// Wrong, of all requests.
    pub wrong_per_request: f64,
}

/// One category.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CategoryReport {
    /// Its name.
    pub name: String,
    /// Decisions of the certification.
    pub requests: u64,
    /// Shift of its log-odds.
    pub offset: f64,
    /// Whether it has cut-offs of its own.
    pub own_cutoffs: bool,
    /// Served at the cut-off of the first certified promise, of its requests.
    pub hit_rate: f64,
    /// Of them wrong, of its requests.
    pub wrong_per_request: f64,
}

/// What a guard would do as a veto, among candidates that are otherwise served.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GuardEarnings {
    /// The guard.
    pub guard: &'static str,
    /// Wrong hits that it stops, of all wrong hits.
    pub wrong_stopped: f64,
    /// Right hits that it costs, of all right hits.
    pub right_lost: f64,
    /// Hits on which it fires.
    pub fires: u64,
    /// Of them right.
    pub right: u64,
    /// Upper 95 % bound of the share of right ones among them (Clopper-Pearson).
    pub right_at_most: f64,
    /// Whether it was made a veto: when that bound is below the probability that is served anyway.
    pub veto: bool,
    /// What its conflict leaves of a probability; `None` for a guard that only the models weigh.
    pub most: Option<GuardFit>,
}
