//! The read path. [`Inner::lookup`] reads as the path itself: one line a stage.
//!
//! A stage that cannot go on names its reason and the lookup ends as a miss; a failing part never
//! becomes an error. Explaining a request runs the same code to the end instead of stopping at the
//! first candidate that is served, so an explanation cannot differ from what happens.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::learn::Noted;
use super::outcome::{Hit, HitKind, Miss, MissReason, Nearest, Outcome};
use super::{Inner, Semantic};
use crate::clock::Timestamp;
use crate::config::VolatileAction;
use crate::decision::CandidateRecord;
use crate::embed::Vector;
use crate::entry::Entry;
use crate::error::ErrorKind;
use crate::observe;
use crate::policy::{Decision, Evidence, GuardReport};
use crate::request::{CacheControl, Eligibility, PartitionKey, Request};
use crate::savings::Usd;
use crate::search::Candidate;
use crate::tier::{Check, TierFault};

/// What a caller accepts from the cache. The default accepts everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LookupOptions {
    /// Bounds on age and freshness, or a wish for a fresh answer.
    pub control: CacheControl,
    /// Serve the same request only, nothing similar.
    pub exact_only: bool,
}

impl LookupOptions {
    /// What the request itself asks for.
    #[must_use]
    pub fn of(request: &Request) -> Self {
        Self {
            control: request.control().clone(),
            exact_only: false,
        }
    }

    /// Whether nothing may be served from the cache.
    #[must_use]
    pub fn bypass(&self) -> bool {
        self.control.no_cache || self.control.use_cache == Some(false)
    }

    fn accepts(&self, entry: &Entry, now: Timestamp) -> bool {
        let lifetime = entry
            .expires
            .map_or(Duration::MAX, |end| end.since(entry.created));
        self.control.accepts(now.since(entry.created), lifetime)
    }
}

/// How far to go through the candidates.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// To the first that is served.
    FirstServed,
    /// Through all of them, keeping what was found.
    All,
}

/// A finished lookup: its outcome, and what later steps can use.
pub(super) struct Lookup {
    pub(super) outcome: Outcome,
    /// The query's vector, if it was made: a store after a miss need not make it again.
    pub(super) vector: Option<Vector>,
    /// What was decided, for what is learnt from it.
    pub(super) noted: Option<Noted>,
    /// Every candidate that was judged, when the depth asked for it.
    pub(super) judged: Vec<Judged>,
    /// Time taken by each stage that was reached.
    pub(super) stages: Vec<(&'static str, Duration)>,
}

/// One candidate and what became of it.
pub(super) struct Judged {
    pub(super) candidate: Candidate,
    pub(super) evidence: Option<Evidence>,
    pub(super) verdict: Verdict,
}

pub(super) enum Verdict {
    Serve {
        entry: Box<Entry>,
        probability: Option<f64>,
    },
    Stop {
        reason: MissReason,
        probability: Option<f64>,
    },
}

/// Collects what happens on the way.
struct Trail {
    depth: Depth,
    /// The generations that have been read on the way.
    check: Check,
    reasons: Vec<MissReason>,
    faults: Vec<MissReason>,
    nearest: Option<Nearest>,
    vector: Option<Vector>,
    judged: Vec<Judged>,
    candidates: Vec<CandidateRecord>,
    noted: Option<Noted>,
    stages: Vec<(&'static str, Duration)>,
    since: Instant,
}

impl Trail {
    fn new(depth: Depth, check: Check) -> Self {
        Self {
            depth,
            check,
            reasons: Vec::new(),
            faults: Vec::new(),
            nearest: None,
            vector: None,
            judged: Vec::new(),
            candidates: Vec::new(),
            noted: None,
            stages: Vec::new(),
            since: Instant::now(),
        }
    }

    fn stage_done(&mut self, stage: &'static str) {
        let now = Instant::now();
        let took = now - self.since;
        self.since = now;
        observe::stage(stage, took);
        if self.depth == Depth::All {
            self.stages.push((stage, took));
        }
    }

    fn finish(mut self, hit: Option<Hit>) -> Lookup {
        let outcome = match hit {
            Some(hit) => Outcome::Hit(hit),
            None => {
                self.reasons.append(&mut self.faults);
                if self.reasons.is_empty() {
                    self.reasons.push(MissReason::NotFound);
                }
                Outcome::Miss(Miss {
                    reasons: self.reasons,
                    nearest: self.nearest,
                })
            }
        };
        Lookup {
            outcome,
            vector: self.vector,
            noted: self.noted,
            judged: self.judged,
            stages: self.stages,
        }
    }
}

impl Inner {
    /// The whole read path.
    pub(super) async fn lookup(
        &self,
        request: &Request,
        options: &LookupOptions,
        depth: Depth,
    ) -> Lookup {
        let mut trail = Trail::new(depth, self.check(request));
        if !self.enabled {
            trail.reasons.push(MissReason::Disabled);
            return trail.finish(None);
        }
        let hit = match self.same_request(request, options, &mut trail).await {
            Some(hit) => Some(hit),
            None => self.similar_request(request, options, &mut trail).await,
        };
        trail.finish(hit)
    }

    /// Stage 2: the exact tiers.
    async fn same_request(
        &self,
        request: &Request,
        options: &LookupOptions,
        trail: &mut Trail,
    ) -> Option<Hit> {
        if options.bypass() {
            trail.reasons.push(MissReason::Bypassed);
            return None;
        }
        let now = self.clock.now();
        let key = request.exact_key();
        let answer = self.tiers.look(&key, &[], &mut trail.check, now).await;
        trail.stage_done("exact");
        trail.faults.extend(answer.fault.map(|fault| match fault {
            TierFault::Unavailable => MissReason::TierUnavailable,
            TierFault::Corrupt => MissReason::TierCorrupt,
            TierFault::Invalidated => MissReason::Invalidated,
            TierFault::GenerationUnavailable => MissReason::GenerationUnavailable,
        }));
        let (entry, tier) = answer.found?;
        if entry.digests != request.digests() {
            trail.faults.push(MissReason::IdentityMismatch);
            return None;
        }
        if !options.accepts(&entry, now) {
            trail.faults.push(MissReason::TooOld);
            return None;
        }
        let kind = HitKind::Exact {
            tier: Arc::clone(&self.tier_names[tier]),
        };
        Some(serve(entry, kind, now))
    }

    /// Stages 3 to 5: embed, search, decide.
    async fn similar_request(
        &self,
        request: &Request,
        options: &LookupOptions,
        trail: &mut Trail,
    ) -> Option<Hit> {
        let (semantic, text) = match self.comparable_text(request, options) {
            Ok(comparable) => comparable,
            Err(reason) => {
                trail.reasons.extend(reason);
                return None;
            }
        };
        let vector = match semantic.embed.embed(text).await {
            Ok(vector) => vector,
            Err(error) => {
                trail.reasons.push(match error.kind() {
                    ErrorKind::InvalidRequest => MissReason::NotEmbeddable,
                    ErrorKind::Timeout => MissReason::EmbeddingTimeout,
                    _ => MissReason::EmbeddingFailed,
                });
                tracing::debug!(%error, "the query was not embedded");
                return None;
            }
        };
        trail.stage_done("embed");
        let (partition, now) = (request.partition(), self.clock.now());
        let (search, candidates) = (&semantic.search, semantic.settings.candidates);
        let least = worth_a_look(semantic);
        let found = match trail.depth {
            Depth::FirstServed => search.nearest_above(&partition, &vector, candidates, now, least),
            Depth::All => search.nearest(&partition, &vector, candidates, now),
        };
        trail.vector = Some(vector);
        trail.stage_done("search");
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                trail.reasons.push(MissReason::IndexFailed);
                tracing::warn!(%error, "the index did not answer");
                return None;
            }
        };
        let hit = self
            .first_served(semantic, request, text, options, found.candidates, trail)
            .await;
        if hit.is_none() && trail.nearest.is_none() && found.has_rows {
            // There is something, and all of it is farther than was looked: the policy says what that means.
            let evidence = Evidence::similarity(least);
            if let Decision::Pass { reason, .. } = semantic.policy.decide(&evidence) {
                trail.reasons.push(MissReason::Policy(reason));
            }
        }
        if trail.depth == Depth::FirstServed {
            let (decided, served) = (std::mem::take(&mut trail.candidates), hit.as_ref());
            trail.noted = self.note(request, decided, None, served.map(|hit| hit.entry));
        }
        trail.stage_done("decide");
        hit
    }

    /// The text to compare, or why there is nothing to compare. `None` as the reason: already known.
    fn comparable_text<'a>(
        &'a self,
        request: &'a Request,
        options: &LookupOptions,
    ) -> Result<(&'a Semantic, &'a str), Option<MissReason>> {
        if options.bypass() {
            return Err(None);
        }
        let semantic = self.semantic.as_ref().filter(|_| !options.exact_only);
        let semantic = semantic.ok_or(Some(MissReason::SimilarityOff))?;
        if let Eligibility::ExactOnly(reason) = request.eligibility() {
            return Err(Some(MissReason::Ineligible(reason)));
        }
        if let Some(reason) = request.volatility()
            && semantic.settings.volatile.action != VolatileAction::Ignore
        {
            return Err(Some(MissReason::Volatile(reason)));
        }
        let text = request
            .fuzzy_text()
            .ok_or(Some(MissReason::NotEmbeddable))?;
        Ok((semantic, text))
    }

    /// Judges candidates, best first, until one is served.
    async fn first_served(
        &self,
        semantic: &Semantic,
        request: &Request,
        text: &str,
        options: &LookupOptions,
        candidates: Vec<Candidate>,
        trail: &mut Trail,
    ) -> Option<Hit> {
        let now = self.clock.now();
        let mut hit = None;
        for candidate in candidates {
            let judged = self
                .judge(
                    semantic,
                    (request, text),
                    options,
                    candidate,
                    &mut trail.check,
                    now,
                )
                .await;
            trail
                .candidates
                .extend(judged.evidence.map(|evidence| CandidateRecord {
                    entry: candidate.id,
                    evidence,
                    right: None,
                }));
            match &judged.verdict {
                Verdict::Serve { entry, probability } if hit.is_none() => {
                    let kind = HitKind::Semantic {
                        similarity: candidate.similarity,
                        probability: *probability,
                    };
                    hit = Some(serve(Entry::clone(entry), kind, now));
                }
                Verdict::Serve { .. } => {}
                Verdict::Stop {
                    reason,
                    probability,
                } => {
                    // The decisive reason is that of the best candidate still alive, among those that a lookup
                    // looks at.
                    let decides = trail
                        .nearest
                        .is_none_or(|nearest| is_dead(nearest.stopped_by));
                    if decides && candidate.similarity >= worth_a_look(semantic) {
                        trail.nearest = Some(Nearest {
                            entry: candidate.id,
                            similarity: candidate.similarity,
                            probability: *probability,
                            stopped_by: *reason,
                        });
                    }
                }
            }
            let hopeless = candidate.similarity < semantic.policy.least_similarity();
            if trail.depth == Depth::All {
                trail.judged.push(judged);
            } else if hit.is_some() || hopeless {
                break;
            }
        }
        trail
            .reasons
            .extend(trail.nearest.map(|nearest| nearest.stopped_by));
        hit
    }

    /// Fetches and checks the entry of one candidate, weighs the evidence and decides.
    async fn judge(
        &self,
        semantic: &Semantic,
        (request, text): (&Request, &str),
        options: &LookupOptions,
        candidate: Candidate,
        check: &mut Check,
        now: Timestamp,
    ) -> Judged {
        let stop = |reason| Judged {
            candidate,
            evidence: None,
            verdict: Verdict::Stop {
                reason,
                probability: None,
            },
        };
        if self.was_wrong(request, candidate.id) {
            return stop(MissReason::ReportedWrong);
        }
        if candidate.similarity < semantic.policy.least_similarity() {
            // Cannot be served whatever its entry says, so the entry is not fetched.
            let evidence = Evidence::similarity(candidate.similarity);
            return match semantic.policy.decide(&evidence) {
                Decision::Pass {
                    reason,
                    probability,
                } => Judged {
                    candidate,
                    evidence: Some(evidence),
                    verdict: Verdict::Stop {
                        reason: MissReason::Policy(reason),
                        probability,
                    },
                },
                Decision::Serve { .. } | Decision::Refine { .. } => stop(MissReason::NotFound),
            };
        }
        let entry = match self
            .fetch(semantic, request.partition(), candidate, check, now)
            .await
        {
            Ok(entry) => entry,
            Err(reason) => return stop(reason),
        };
        if !entry.digests.same_partition(&request.digests()) {
            return stop(MissReason::IdentityMismatch);
        }
        if !options.accepts(&entry, now) {
            return stop(MissReason::TooOld);
        }
        let evidence = Evidence {
            guards: GuardReport::compare(text, entry.text.as_deref().unwrap_or_default()),
            saving_usd: entry.cost.map(Usd::as_dollars),
            latency: entry.latency,
            typical_saving_usd: self.typical_cost.mean(),
            record: self.learning.record(candidate.id, now),
            ..Evidence::similarity(candidate.similarity)
        };
        let verdict = match semantic.policy.decide(&evidence) {
            Decision::Refine { probability } => Verdict::Stop {
                reason: MissReason::NotFound,
                probability,
            },
            Decision::Serve { probability, .. } if !self.learning.serves(evidence.category) => {
                Verdict::Stop {
                    reason: MissReason::BreakerOpen,
                    probability,
                }
            }
            Decision::Serve { probability, .. } => Verdict::Serve {
                entry: Box::new(entry),
                probability,
            },
            Decision::Pass {
                reason,
                probability,
            } => Verdict::Stop {
                reason: MissReason::Policy(reason),
                probability,
            },
        };
        Judged {
            candidate,
            evidence: Some(evidence),
            verdict,
        }
    }

    /// The live entry that a candidate points at, or why it cannot be served; takes the candidate out of
    /// the index when it is dead.
    async fn fetch(
        &self,
        semantic: &Semantic,
        partition: PartitionKey,
        candidate: Candidate,
        check: &mut Check,
        now: Timestamp,
    ) -> Result<Entry, MissReason> {
        let id = candidate.id;
        let Some((key, expires)) = self.catalog.locate(id) else {
            // An entry is listed before it is searchable: what is not listed any more is dead.
            semantic.search.remove(&partition, id);
            return Err(MissReason::Gone);
        };
        if expires.is_some_and(|expires| expires <= now) {
            self.forget(id, "expired");
            return Err(MissReason::Gone);
        }
        // Read along with the entry, where they count.
        let tags = if self.tiers.is_shared() {
            let row = self.catalog.get(id).ok_or(MissReason::Gone)?;
            self.tag_marks(&row.scope, &row.tags)
        } else {
            Vec::new()
        };
        let answer = self.tiers.look(&key, &tags, check, now).await;
        match (answer.found, answer.fault) {
            (Some((entry, _)), _) if entry.id == id => Ok(entry),
            // A tier that failed may still hold the entry: keep the lead.
            (None, Some(TierFault::Unavailable)) => Err(MissReason::Gone),
            (None, Some(TierFault::GenerationUnavailable)) => {
                Err(MissReason::GenerationUnavailable)
            }
            (None, Some(TierFault::Invalidated)) => {
                self.forget(id, "invalidated");
                Err(MissReason::Invalidated)
            }
            _ => {
                self.forget(id, "gone");
                Err(MissReason::Gone)
            }
        }
    }
}

/// How far below the least similarity that could be served a lookup still looks, so that a miss tells of
/// what was near. Farther out an index would read much more, for a number that nobody acts on;
/// [`explain`](super::SemanticCache::explain) looks at any distance.
const NEAR_MISS: f32 = 0.15;

/// The least similarity at which a plain lookup looks at candidates.
fn worth_a_look(semantic: &Semantic) -> f32 {
    // A policy that serves nothing asks for more than there is, and still gives its reason.
    semantic.policy.least_similarity().min(1.0) - NEAR_MISS
}

/// Whether what was stopped was no live entry.
fn is_dead(stopped_by: MissReason) -> bool {
    matches!(stopped_by, MissReason::Gone | MissReason::Invalidated)
}

fn serve(entry: Entry, kind: HitKind, now: Timestamp) -> Hit {
    Hit {
        entry: entry.id,
        kind,
        age: now.since(entry.created),
        ttl: entry.expires.map(|expires| expires.since(now)),
        saved: entry.saved(),
        answer: entry.answer,
    }
}
