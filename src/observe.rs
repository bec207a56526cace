//! Names of metrics and spans, in one place, so that dashboards can rely on them.
//!
//! The engine records through the [`metrics`] facade: without a recorder every call is a no-op, and
//! the application chooses the exporter, and installs its recorder before it builds a cache: what every hit
//! moves is asked of the recorder once. Labels are bounded: tiers, stages, outcomes and reasons come
//! from enums and configuration, never from requests.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};

/// The target of all spans: those of a request (the server's), `lookup` and below it its stages, `store`. They are
/// at level `debug`, and without a subscriber that wants them they cost a comparison. They hold names, numbers and
/// outcomes; never a prompt, an answer or a key.
pub const SPANS: &str = "askonce::span";
/// Lookups by `tier`, `outcome` and `reason`.
pub const LOOKUPS: &str = "askonce_lookups_total";
/// Seconds spent in each `stage` of a lookup.
pub const LOOKUP_SECONDS: &str = "askonce_lookup_duration_seconds";
/// Lookups that reached each `stage`: `exact`, `embed`, `search`, `decide`, `refine`, `verify`, `fetch`.
pub const LOOKUP_STAGES: &str = "askonce_lookup_stages_total";
/// Lookups in doubt that asked for the second embedding, by `outcome`: `refined`, `not_embeddable`, `busy`,
/// `timeout`, `failed`, or `resting` after several failures.
pub const REFINEMENTS: &str = "askonce_refine_total";
/// What a verifier said, by `outcome`: of a candidate `passed`, `refused` or `no_word`; of a lookup `busy`,
/// `over_budget`, `timeout` or `failed`.
pub const VERIFIER: &str = "askonce_verifier_total";
/// Hits that were served because a verifier passed them.
pub const VERIFIER_HITS: &str = "askonce_verifier_hits_total";
/// Dollars that a verifier cost.
pub const VERIFIER_USD: &str = "askonce_verifier_usd_total";
/// Entries that wait for a vector, by `reason`: `second` (in the second embedding space), `migration` (found
/// under an embedding that is not in use any more).
pub const EMBEDDING_WAITING: &str = "askonce_embedding_waiting";
/// Answers stored, by `outcome`.
pub const STORES: &str = "askonce_stores_total";
/// Answers that were not stored for a secret or personal data, by `detector`.
pub const ADMISSION_FINDINGS: &str = "askonce_admission_findings_total";
/// Entries removed, by `cause`.
pub const REMOVALS: &str = "askonce_removals_total";
/// Live entries.
pub const ENTRIES: &str = "askonce_entries";
/// Bytes held, by `part`: `tier`, `index`, or `profile` (what lookups weigh entries by).
pub const BYTES: &str = "askonce_bytes";
/// Share of true neighbours that the audited lookups of late found, 0 to 1.
pub const INDEX_RECALL: &str = "askonce_index_recall";
/// Lookups in an approximate index that were asked again exactly.
pub const INDEX_AUDITS: &str = "askonce_index_audits_total";
/// Dollars that hits did not spend.
pub const SAVED_USD: &str = "askonce_saved_usd_total";
/// Tokens that hits did not use.
pub const SAVED_TOKENS: &str = "askonce_saved_tokens_total";
/// Seconds that callers did not wait.
pub const SAVED_SECONDS: &str = "askonce_saved_seconds_total";
/// Dollars that the cache spent on itself, by `kind`: `embedding`, `verification`, `judge`, `shadow` (calls made
/// beside hits), `wrong_hit` (what the policy's settings put on answers that were found wrong).
pub const COST_USD: &str = "askonce_cost_usd_total";
/// Upstream calls, by `outcome`.
pub const UPSTREAM_CALLS: &str = "askonce_upstream_calls_total";
/// Failed operations of a tier that a cache went on without, by `tier` and `operation`.
pub const BACKEND_ERRORS: &str = "askonce_backend_errors_total";
/// Operations of a tier by `tier`, `operation` and `outcome`: `hit`, `miss`, `ok`, `unchanged`, `partial`
/// (some items of a batch failed), or the kind of the error.
pub const BACKEND_OPERATIONS: &str = "askonce_backend_operations_total";
/// Seconds that an operation of a tier took, all attempts together, by `tier` and `operation`.
pub const BACKEND_SECONDS: &str = "askonce_backend_duration_seconds";
/// Attempts after the first, by `tier` and `operation`.
pub const BACKEND_RETRIES: &str = "askonce_backend_retries_total";
/// Circuit breakers by `tier` and `path` (`read`, `write`): 0 closed, 1 half open, 2 open.
pub const BREAKER_STATE: &str = "askonce_breaker_state";
/// Lookups with a loader in typed caches, by `outcome`: `hit`, `stale`, `stale_if_error`, `shared` (with
/// another caller's load), `loaded`, `failed`, `timeout`; and `refused` for values that were loaded but
/// not stored, as something was written or invalidated meanwhile.
pub const TYPED_LOADS: &str = "askonce_typed_loads_total";
/// Reports by callers that a hit was `right` or `wrong`.
pub const FEEDBACK: &str = "askonce_feedback_total";
/// Labels of candidates, by `source` (miss, judge, audit, feedback) and `verdict`.
pub const LABELS: &str = "askonce_labels_total";
/// Comparisons of answers that made no label, by `reason`: `unsure`, or `dropped` when too many waited.
pub const UNLABELLED: &str = "askonce_unlabelled_total";
/// Estimated share of hits by similarity that were wrong, 0 to 1, by `category` and `bound`: `estimate`, and
/// `lower` and `upper` at 95 %.
pub const FALSE_HIT_RATE: &str = "askonce_false_hit_rate";
/// Whether a `category` serves nothing by similarity as too many hits were wrong: 0 or 1.
pub const SIMILARITY_BREAKER: &str = "askonce_similarity_breaker_open";
/// When the policy that decides began to, in seconds since 1970, by `policy` and `origin` (configured, given,
/// recalibrated); 0 for those that decide no more.
pub const POLICY_SINCE: &str = "askonce_policy_since_seconds";
/// Attempts to fit the policy anew, by `outcome`: replaced, refused (the labels do not carry its promises), failed.
pub const RECALIBRATIONS: &str = "askonce_recalibrations_total";
/// What became of locks, by `outcome`: acquired, held, failed, lost, released, or released_late
pub const LOCKS: &str = "askonce_locks_total";

/// Tells the installed recorder what each metric means. Call once, after installing it.
pub fn describe() {
    describe_counter!(LOOKUPS, "Lookups by tier, outcome and reason");
    describe_histogram!(
        LOOKUP_SECONDS,
        Unit::Seconds,
        "Time spent in each stage of a lookup"
    );
    describe_counter!(LOOKUP_STAGES, "Lookups that reached each stage");
    describe_counter!(
        REFINEMENTS,
        "Lookups that asked for the second embedding, by outcome"
    );
    describe_counter!(VERIFIER, "What a verifier said, by outcome");
    describe_counter!(VERIFIER_HITS, "Hits that a verifier passed");
    describe_gauge!(VERIFIER_USD, "Dollars that a verifier cost");
    describe_gauge!(
        EMBEDDING_WAITING,
        "Entries that wait for a vector, by reason"
    );
    describe_counter!(STORES, "Answers stored, by outcome");
    describe_counter!(
        ADMISSION_FINDINGS,
        "Answers not stored for a secret or personal data, by detector"
    );
    describe_counter!(REMOVALS, "Entries removed, by cause");
    describe_gauge!(ENTRIES, "Live entries");
    describe_gauge!(BYTES, Unit::Bytes, "Bytes held, by part");
    describe_gauge!(
        INDEX_RECALL,
        "Share of true neighbours that the audited lookups of late found"
    );
    describe_counter!(INDEX_AUDITS, "Lookups that were asked again exactly");
    describe_gauge!(SAVED_USD, "Dollars that hits did not spend");
    describe_counter!(SAVED_TOKENS, "Tokens that hits did not use");
    describe_gauge!(SAVED_SECONDS, "Seconds that callers did not wait");
    describe_gauge!(COST_USD, "Dollars that the cache spent on itself, by kind");
    describe_counter!(UPSTREAM_CALLS, "Upstream calls, by outcome");
    describe_counter!(
        BACKEND_ERRORS,
        "Failed tier operations, by tier and operation"
    );
    describe_counter!(
        BACKEND_OPERATIONS,
        "Tier operations, by tier, operation and outcome"
    );
    describe_histogram!(
        BACKEND_SECONDS,
        Unit::Seconds,
        "Time that a tier operation took, all attempts together"
    );
    describe_counter!(
        BACKEND_RETRIES,
        "Attempts of tier operations after the first"
    );
    describe_gauge!(
        BREAKER_STATE,
        "Circuit breakers: 0 closed, 1 half open, 2 open"
    );
    describe_counter!(TYPED_LOADS, "Lookups of typed caches, by outcome");
    describe_counter!(FEEDBACK, "Reports by callers on hits, by verdict");
    describe_counter!(LABELS, "Labels of candidates, by source and verdict");
    describe_counter!(
        UNLABELLED,
        "Comparisons of answers that made no label, by reason"
    );
    describe_gauge!(
        FALSE_HIT_RATE,
        "Estimated share of wrong hits by similarity, by category and bound"
    );
    describe_gauge!(
        SIMILARITY_BREAKER,
        "Categories that serve nothing by similarity: 0 or 1"
    );
    describe_gauge!(
        POLICY_SINCE,
        Unit::Seconds,
        "When the policy that decides began to, since 1970; 0 for others"
    );
    describe_counter!(
        RECALIBRATIONS,
        "Attempts to fit the policy anew, by outcome"
    );
    describe_counter!(LOCKS, "What became of locks, by outcome");
}

/// Stages of a lookup, by their place in [`Meters`].
const STAGES: [&str; 7] = [
    "exact", "embed", "search", "decide", "refine", "verify", "fetch",
];

/// The metrics that every hit moves. To find one by its labels costs as much as the tier itself, so the recorder
/// is asked for each once, when it first moves.
#[derive(Default)]
pub(crate) struct Meters {
    stages: [OnceLock<(Counter, Histogram)>; STAGES.len()],
    /// By the position of the tier.
    exact_hits: Box<[OnceLock<Counter>]>,
    semantic_hits: OnceLock<Counter>,
    saved_usd: OnceLock<Gauge>,
    saved: OnceLock<(Counter, Gauge)>,
}

impl std::fmt::Debug for Meters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meters")
    }
}

impl Meters {
    /// For a cache with so many tiers.
    pub(crate) fn new(tiers: usize) -> Self {
        Self {
            exact_hits: (0..tiers).map(|_| OnceLock::new()).collect(),
            ..Self::default()
        }
    }

    /// Counts a lookup that reached a stage, and records the time that it took there.
    pub(crate) fn stage(&self, stage: &'static str, took: Duration) {
        let register = || {
            (
                counter!(LOOKUP_STAGES, "stage" => stage),
                histogram!(LOOKUP_SECONDS, "stage" => stage),
            )
        };
        let place = STAGES.iter().position(|name| *name == stage);
        let Some(kept) = place.and_then(|place| self.stages.get(place)) else {
            debug_assert!(false, "{stage} is no stage");
            return;
        };
        let (reached, seconds) = kept.get_or_init(register);
        reached.increment(1);
        seconds.record(took.as_secs_f64());
    }

    /// Counts one hit on a tier, which is one of `tiers`.
    pub(crate) fn exact_hit(&self, tier: &Arc<str>, tiers: &[Arc<str>]) {
        let register = || lookups(Arc::clone(tier), "hit", "exact");
        let position = tiers.iter().position(|name| name == tier);
        match position.and_then(|position| self.exact_hits.get(position)) {
            Some(kept) => kept.get_or_init(register).increment(1),
            None => register().increment(1),
        }
    }

    /// Counts one hit by similarity.
    pub(crate) fn semantic_hit(&self) {
        let hits = self
            .semantic_hits
            .get_or_init(|| lookups("semantic".into(), "hit", "semantic"));
        hits.increment(1);
    }

    /// Adds up what a hit saved.
    pub(crate) fn saved(&self, usd: Option<f64>, tokens: u64, time: Duration) {
        if let Some(usd) = usd {
            let dollars = self.saved_usd.get_or_init(|| gauge!(SAVED_USD));
            dollars.increment(usd);
        }
        let register = || (counter!(SAVED_TOKENS), gauge!(SAVED_SECONDS));
        let (saved_tokens, seconds) = self.saved.get_or_init(register);
        saved_tokens.increment(tokens);
        seconds.increment(time.as_secs_f64());
    }
}

fn lookups(tier: Arc<str>, outcome: &'static str, reason: &'static str) -> Counter {
    counter!(LOOKUPS, "tier" => tier, "outcome" => outcome, "reason" => reason)
}

/// Counts one lookup that missed.
pub(crate) fn miss(reason: &'static str) {
    lookups("none".into(), "miss", reason).increment(1);
}

/// Counts one lookup that asked for the second embedding.
pub(crate) fn refine(outcome: &'static str) {
    counter!(REFINEMENTS, "outcome" => outcome).increment(1);
}

/// Counts what a verifier said of a candidate, or why it said nothing of a lookup.
pub(crate) fn verifier(outcome: &'static str) {
    counter!(VERIFIER, "outcome" => outcome).increment(1);
}

/// Counts one hit that a verifier passed.
pub(crate) fn verifier_hit() {
    counter!(VERIFIER_HITS).increment(1);
}

/// Adds up what a verifier cost.
pub(crate) fn verifier_usd(usd: f64) {
    gauge!(VERIFIER_USD).increment(usd);
}

/// Shows how many entries wait for a vector.
pub(crate) fn embedding_waiting(reason: &'static str, entries: usize) {
    gauge!(EMBEDDING_WAITING, "reason" => reason).set(entries as f64);
}

/// Counts one stored or refused answer.
pub(crate) fn store(outcome: &'static str) {
    counter!(STORES, "outcome" => outcome).increment(1);
}

/// Counts one answer in which a detector found something.
pub(crate) fn admission_finding(detector: &str) {
    counter!(ADMISSION_FINDINGS, "detector" => detector.to_owned()).increment(1);
}

/// Counts removed entries.
pub(crate) fn removal(cause: &'static str, entries: usize) {
    counter!(REMOVALS, "cause" => cause).increment(entries as u64);
}

/// Adds up what the cache spent on itself.
pub(crate) fn cost(kind: &'static str, usd: f64) {
    gauge!(COST_USD, "kind" => kind).increment(usd);
}

/// Shows how much is held.
pub(crate) fn holding(entries: u64, parts: [(&'static str, u64); 3]) {
    gauge!(ENTRIES).set(entries as f64);
    for (part, bytes) in parts {
        gauge!(BYTES, "part" => part).set(bytes as f64);
    }
}

/// Counts audited lookups, and shows what those of late found.
pub(crate) fn index_audit(lookups: usize, recall: f64) {
    counter!(INDEX_AUDITS).increment(lookups as u64);
    gauge!(INDEX_RECALL).set(recall);
}

/// Counts one upstream call.
pub(crate) fn upstream(outcome: &'static str) {
    counter!(UPSTREAM_CALLS, "outcome" => outcome).increment(1);
}

/// Counts one failed tier operation.
pub(crate) fn backend_error(tier: &str, operation: &'static str) {
    counter!(BACKEND_ERRORS, "tier" => tier.to_owned(), "operation" => operation).increment(1);
}

/// The metrics of reads from a tier, which are most of its operations.
#[derive(Default)]
pub(crate) struct TierMeters {
    hits: OnceLock<Counter>,
    misses: OnceLock<Counter>,
    get_seconds: OnceLock<Histogram>,
}

impl TierMeters {
    /// Counts one operation of a tier and records the time it took.
    pub(crate) fn operation(
        &self,
        tier: &Arc<str>,
        operation: &'static str,
        outcome: &'static str,
        took: Duration,
    ) {
        let counted = || {
            counter!(
                BACKEND_OPERATIONS,
                "tier" => Arc::clone(tier), "operation" => operation, "outcome" => outcome
            )
        };
        let timed =
            || histogram!(BACKEND_SECONDS, "tier" => Arc::clone(tier), "operation" => operation);
        match (operation, outcome) {
            ("get", "hit") => self.hits.get_or_init(counted).increment(1),
            ("get", "miss") => self.misses.get_or_init(counted).increment(1),
            _ => counted().increment(1),
        }
        match operation {
            "get" => self
                .get_seconds
                .get_or_init(timed)
                .record(took.as_secs_f64()),
            _ => timed().record(took.as_secs_f64()),
        }
    }
}

/// Counts one attempt after the first.
pub(crate) fn backend_retry(tier: &Arc<str>, operation: &'static str) {
    counter!(BACKEND_RETRIES, "tier" => Arc::clone(tier), "operation" => operation).increment(1);
}

/// Shows what a circuit breaker does.
pub(crate) fn breaker_state(tier: &Arc<str>, path: &'static str, value: f64) {
    gauge!(BREAKER_STATE, "tier" => Arc::clone(tier), "path" => path).set(value);
}

/// Counts one lock that was acquired or not, lost or released.
pub(crate) fn lock(outcome: &'static str) {
    counter!(LOCKS, "outcome" => outcome).increment(1);
}

/// Counts how a lookup of a typed cache ended, or one of its parts.
pub(crate) fn typed_load(outcome: &'static str) {
    counter!(TYPED_LOADS, "outcome" => outcome).increment(1);
}

/// Counts one report by a caller.
pub(crate) fn feedback(verdict: &'static str) {
    counter!(FEEDBACK, "verdict" => verdict).increment(1);
}

/// Counts one label of a candidate.
pub(crate) fn label(source: &'static str, right: bool) {
    let verdict = if right { "right" } else { "wrong" };
    counter!(LABELS, "source" => source, "verdict" => verdict).increment(1);
}

/// Counts one comparison that came to nothing.
pub(crate) fn learning_unsure() {
    counter!(UNLABELLED, "reason" => "unsure").increment(1);
}

/// Counts one comparison that found no room.
pub(crate) fn learning_dropped() {
    counter!(UNLABELLED, "reason" => "dropped").increment(1);
}

/// Shows how many hits of a category are wrong.
pub(crate) fn false_hit_rate(category: &str, estimate: f64, lower: f64, upper: f64) {
    for (bound, value) in [("estimate", estimate), ("lower", lower), ("upper", upper)] {
        gauge!(FALSE_HIT_RATE, "category" => category.to_owned(), "bound" => bound).set(value);
    }
}

/// Shows which policy decides from `since` on, in seconds since 1970; 0: it decides no more.
pub(crate) fn policy_since(policy: &'static str, origin: &'static str, since: f64) {
    gauge!(POLICY_SINCE, "policy" => policy, "origin" => origin).set(since);
}

/// Counts one attempt to fit the policy anew.
pub(crate) fn recalibration(outcome: &'static str) {
    counter!(RECALIBRATIONS, "outcome" => outcome).increment(1);
}

/// Shows whether a category serves by similarity.
pub(crate) fn similarity_breaker(category: &str, open: bool) {
    gauge!(SIMILARITY_BREAKER, "category" => category.to_owned()).set(if open { 1.0 } else { 0.0 });
}
