//! Every number that goes into one decision.

use std::time::Duration;

use serde::Serialize;

use super::SemanticCache;
use super::lookup::{Depth, LookupOptions, Verdict};
use super::outcome::{HitKind, Miss, MissReason, Outcome};
use crate::entry::EntryId;
use crate::policy::{Decision, Evidence, PassReason};
use crate::request::{ExactKey, IneligibleReason, PartitionKey, Request, VolatileReason};

/// How a lookup of one request goes, in full. Free of prompt and answer text.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The request's exact key.
    pub key: ExactKey,
    /// Where it may match by similarity.
    pub partition: PartitionKey,
    /// Why it can only match exactly; `None` when it may match by similarity.
    pub ineligible: Option<&'static str>,
    /// Which rule finds its answer volatile.
    pub volatile: Option<&'static str>,
    /// The exact tiers, in the order asked.
    pub tiers: Vec<String>,
    /// The embedding space; `None` when similarity is off.
    pub embedder: Option<String>,
    /// The second embedding space; `None` when there is none.
    pub refiner: Option<String>,
    /// The policy; `None` when similarity is off.
    pub policy: Option<&'static str>,
    /// The verifier; `None` when there is none.
    pub verifier: Option<String>,
    /// The kind of traffic; `None` for the default kind.
    pub category: Option<String>,
    /// Least similarity that the policy could serve at all.
    pub least_similarity: Option<f32>,
    /// The candidates, most similar first.
    pub candidates: Vec<ExplainedCandidate>,
    /// The hit that a lookup would give.
    pub hit: Option<ExplainedHit>,
    /// The miss that a lookup would give.
    pub miss: Option<Miss>,
    /// Microseconds taken by each stage that was reached.
    pub stage_micros: Vec<(&'static str, f64)>,
}

/// The hit of an [`Explanation`].
#[derive(Clone, Debug, Serialize)]
pub struct ExplainedHit {
    /// The entry.
    pub entry: EntryId,
    /// How it was found.
    #[serde(flatten)]
    pub kind: HitKind,
    /// Seconds since it was stored.
    pub age_seconds: u64,
}

/// One candidate and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct ExplainedCandidate {
    /// The entry.
    pub entry: EntryId,
    /// Cosine of the two texts' embeddings.
    pub similarity: f32,
    /// Whether the policy, or the verifier after it, would serve it and its entry is alive.
    pub serve: bool,
    /// The policy's estimate that its answer is right.
    pub probability: Option<f64>,
    /// What stopped it.
    pub stopped_by: Option<MissReason>,
    /// What the policy said by the first cosine alone; `None` when the candidate did not get so far.
    pub before: Option<ExplainedDecision>,
    /// What it said in the end: differs where the second cosine was asked for.
    pub decision: Option<ExplainedDecision>,
    /// The verifier's estimate that its answer is right, where it was asked and had one.
    pub verified: Option<f64>,
    /// What the policy was told; `None` when the candidate did not get so far.
    pub evidence: Option<Evidence>,
}

/// What a policy said of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum ExplainedDecision {
    /// It may be served.
    Serve {
        /// Estimated probability that its answer is right.
        probability: Option<f64>,
        /// What serving it is expected to gain: the best of all is served.
        utility: f64,
    },
    /// The second cosine would help.
    Refine {
        /// Estimated probability that its answer is right.
        probability: Option<f64>,
    },
    /// It is not good enough.
    Pass {
        /// Estimated probability that its answer is right.
        probability: Option<f64>,
        /// What stopped it.
        reason: PassReason,
    },
}

impl From<Decision> for ExplainedDecision {
    fn from(decision: Decision) -> Self {
        match decision {
            Decision::Serve {
                probability,
                utility,
            } => Self::Serve {
                probability,
                utility,
            },
            Decision::Refine { probability } => Self::Refine { probability },
            Decision::Pass {
                reason,
                probability,
            } => Self::Pass {
                probability,
                reason,
            },
        }
    }
}

impl SemanticCache {
    /// How a lookup of `request` goes: every stage, every candidate, and what stopped each. Counts as
    /// no lookup and saves nothing.
    ///
    /// An exact hit ends a lookup before any candidate is looked at: ask with a wording that is not
    /// stored to see candidates.
    pub async fn explain(&self, request: &Request) -> Explanation {
        let inner = &self.inner;
        let lookup = inner
            .lookup(request, &LookupOptions::of(request), Depth::All)
            .await;
        let candidates = lookup.judged.into_iter().map(|judged| ExplainedCandidate {
            entry: judged.candidate.id,
            similarity: judged.candidate.similarity,
            serve: matches!(judged.verdict, Verdict::Serve),
            probability: judged.probability(),
            stopped_by: match judged.verdict {
                Verdict::Stop(reason) => Some(reason),
                Verdict::Open | Verdict::Serve => None,
            },
            before: judged.first.map(ExplainedDecision::from),
            decision: judged.decision.map(ExplainedDecision::from),
            verified: judged.verified,
            evidence: judged.evidence,
        });
        let semantic = inner.semantic.as_ref();
        let (hit, miss) = match lookup.outcome {
            Outcome::Hit(hit) => {
                let age_seconds = hit.age.as_secs();
                (
                    Some(ExplainedHit {
                        entry: hit.entry,
                        kind: hit.kind,
                        age_seconds,
                    }),
                    None,
                )
            }
            Outcome::Miss(miss) => (None, Some(miss)),
        };
        let micros = |took: Duration| took.as_secs_f64() * 1e6;
        Explanation {
            key: request.exact_key(),
            partition: request.partition(),
            ineligible: request.eligibility().reason().map(IneligibleReason::as_str),
            volatile: request.volatility().map(VolatileReason::as_str),
            tiers: inner.tiers.names().map(str::to_owned).collect(),
            embedder: self.fingerprint().map(str::to_owned),
            refiner: self.refiner_fingerprint().map(str::to_owned),
            policy: semantic.map(|semantic| semantic.policy.name()),
            verifier: semantic
                .and_then(|semantic| semantic.verifier.as_ref())
                .map(|verifier| verifier.name().to_owned()),
            category: semantic
                .and_then(|semantic| semantic.category_of(request))
                .map(str::to_owned),
            least_similarity: semantic.map(|semantic| semantic.policy.least_similarity()),
            candidates: candidates.collect(),
            hit,
            miss,
            stage_micros: lookup
                .stages
                .iter()
                .map(|&(name, took)| (name, micros(took)))
                .collect(),
        }
    }
}
