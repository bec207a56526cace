//! The read path. [`Inner::lookup`] reads as the path itself: one line a stage.
//!
//! A stage that cannot go on names its reason and the lookup ends as a miss; a failing part never
//! becomes an error. All candidates are weighed before any is fetched, and of those that the policy would
//! serve the most useful that is alive is served, not the most similar. Explaining a request runs the same
//! code to the end instead of stopping at the one that is served, so an explanation cannot differ from what
//! happens.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::Span;
use tracing::field::Empty;

use super::learn::Noted;
use super::outcome::{Hit, HitKind, Miss, MissReason, Nearest, Outcome};
use super::profile::Profile;
use super::weigh::{self, Place};
use super::{Inner, Semantic};
use crate::clock::Timestamp;
use crate::config::VolatileAction;
use crate::embed::{Unrefined, Vector};
use crate::entry::{Entry, EntryId};
use crate::error::ErrorKind;
use crate::observe::{Meters, SPANS};
use crate::policy::{Category, Decision, Evidence, HitPolicy, TextTraits};
use crate::request::{CacheControl, Eligibility, ExactKey, PartitionKey, Request};
use crate::search::{Candidate, Found};
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
            exact_only: request.control().exact_only,
        }
    }

    /// Whether nothing may be served from the cache.
    #[must_use]
    pub fn bypass(&self) -> bool {
        self.control.no_cache || self.control.use_cache == Some(false)
    }

    pub(super) fn accepts(&self, entry: &Entry, now: Timestamp) -> bool {
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
    /// What was made of the query's text on the way: a store after a miss need not make it again.
    pub(super) made: Made,
    /// What was decided, for what is learnt from it.
    pub(super) noted: Option<Noted>,
    /// Every candidate, most similar first, as far as the lookup came with it.
    pub(super) judged: Vec<Judged>,
    /// Time taken by each stage that was reached.
    pub(super) stages: Vec<(&'static str, Duration)>,
}

/// Vectors of a query, as far as they were needed.
#[derive(Clone, Default)]
pub(super) struct Made {
    pub(super) vector: Option<Vector>,
    /// In the second space.
    pub(super) second: Option<Vector>,
}

/// One candidate and what became of it.
pub(super) struct Judged {
    pub(super) candidate: Candidate,
    pub(super) evidence: Option<Evidence>,
    /// What the policy said by the first cosine alone.
    pub(super) first: Option<Decision>,
    /// What it said last.
    pub(super) decision: Option<Decision>,
    pub(super) verdict: Verdict,
    /// What the verifier said, where the policy nearly served it.
    pub(super) verified: Option<f64>,
    profile: Option<Arc<Profile>>,
    /// The entry, where its profile had to be made.
    pub(super) fetched: Option<Arc<Entry>>,
}

/// How a lookup leaves a candidate.
pub(super) enum Verdict {
    /// Nothing more was to be found out: another is served.
    Open,
    /// It may be served; its entry was fetched and checked.
    Serve,
    Stop(MissReason),
}

impl Judged {
    fn new(candidate: Candidate) -> Self {
        Self {
            candidate,
            evidence: None,
            first: None,
            decision: None,
            verdict: Verdict::Open,
            verified: None,
            profile: None,
            fetched: None,
        }
    }

    fn is_open(&self) -> bool {
        matches!(self.verdict, Verdict::Open)
    }

    /// The policy's estimate that the answer is right.
    pub(super) fn probability(&self) -> Option<f64> {
        match self.decision? {
            Decision::Serve { probability, .. }
            | Decision::Refine { probability }
            | Decision::Pass { probability, .. } => probability,
        }
    }

    /// Whether another decision may change what becomes of it: it is alive, and what it was given so far is
    /// a decision of the policy.
    fn is_undecided(&self) -> bool {
        self.profile.is_some()
            && self.decision.is_some()
            && matches!(
                self.verdict,
                Verdict::Open | Verdict::Stop(MissReason::Policy(_))
            )
    }

    /// Where it stands among the others; `None` for what is dead, or farther than `least`.
    fn place(&self, least: f32, group: Option<u64>) -> Option<Place> {
        let dead = matches!(self.verdict, Verdict::Stop(reason) if is_dead(reason));
        (!dead && self.candidate.similarity >= least).then(|| Place {
            similarity: self.candidate.similarity,
            answer: self.profile.as_ref().map(|profile| profile.answer),
            group,
        })
    }

    pub(super) fn stop(&mut self, reason: MissReason) {
        self.verdict = Verdict::Stop(reason);
    }

    /// Asks the policy, and keeps what it says.
    fn decide(&mut self, policy: &dyn HitPolicy) {
        let Some(evidence) = &self.evidence else {
            return;
        };
        let decision = policy.decide(evidence);
        self.first.get_or_insert(decision);
        self.decision = Some(decision);
        self.verdict = match decision {
            Decision::Pass { reason, .. } => Verdict::Stop(MissReason::Policy(reason)),
            Decision::Serve { .. } | Decision::Refine { .. } => Verdict::Open,
        };
    }
}

/// What is asked, for the stages that compare.
pub(super) struct Asked<'a> {
    pub(super) semantic: &'a Semantic,
    request: &'a Request,
    pub(super) text: &'a str,
    pub(super) options: &'a LookupOptions,
    pub(super) now: Timestamp,
}

/// Collects what happens on the way.
pub(super) struct Trail {
    meters: Arc<Meters>,
    depth: Depth,
    /// The generations that have been read on the way.
    pub(super) check: Check,
    reasons: Vec<MissReason>,
    pub(super) faults: Vec<MissReason>,
    nearest: Option<Nearest>,
    made: Made,
    noted: Option<Noted>,
    judged: Vec<Judged>,
    stages: Vec<(&'static str, Duration)>,
    since: Instant,
    span: Span,
    /// That of the stage that runs.
    stage: Span,
}

impl Trail {
    fn new(meters: &Arc<Meters>, depth: Depth, check: Check) -> Self {
        Self {
            meters: Arc::clone(meters),
            depth,
            check,
            reasons: Vec::new(),
            faults: Vec::new(),
            nearest: None,
            made: Made::default(),
            noted: None,
            judged: Vec::new(),
            stages: Vec::new(),
            since: Instant::now(),
            span: tracing::debug_span!(
                target: SPANS,
                "lookup",
                askonce.outcome = Empty,
                askonce.hit = Empty,
                askonce.tier = Empty,
                askonce.similarity = Empty,
                askonce.probability = Empty,
                askonce.reason = Empty,
            ),
            stage: Span::none(),
        }
    }

    /// Opens the span of a stage, which ends with the stage or, where that fails, with the lookup.
    pub(super) fn stage(&mut self, stage: &'static str) {
        self.stage =
            tracing::debug_span!(target: SPANS, parent: &self.span, "stage", otel.name = stage);
    }

    pub(super) fn stage_done(&mut self, stage: &'static str) {
        let now = Instant::now();
        let took = now - self.since;
        self.since = now;
        self.stage = Span::none();
        self.meters.stage(stage, took);
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
        if !self.span.is_disabled() {
            tell(&self.span, &outcome);
        }
        Lookup {
            outcome,
            made: self.made,
            noted: self.noted,
            judged: self.judged,
            stages: self.stages,
        }
    }
}

/// Writes into the span of a lookup what came of it.
fn tell(span: &Span, outcome: &Outcome) {
    match outcome {
        Outcome::Hit(hit) => {
            span.record("askonce.outcome", "hit");
            span.record("askonce.hit", hit.kind.as_str());
            match &hit.kind {
                HitKind::Exact { tier } => {
                    span.record("askonce.tier", &**tier);
                }
                HitKind::Semantic {
                    similarity,
                    probability,
                    ..
                } => {
                    span.record("askonce.similarity", f64::from(*similarity));
                    if let Some(probability) = probability {
                        span.record("askonce.probability", probability);
                    }
                }
            }
        }
        Outcome::Miss(miss) => {
            span.record("askonce.outcome", "miss");
            span.record("askonce.reason", miss.reason().as_str());
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
        let mut trail = Trail::new(&self.meters, depth, self.check(request));
        if !self.enabled {
            trail.reasons.push(MissReason::Disabled);
            return trail.finish(None);
        }
        if let Some(reason) = request.bypass() {
            trail.reasons.push(MissReason::NotCacheable(reason));
            return trail.finish(None);
        }
        let hit = match self.same_request(request, options, &mut trail).await {
            Some(hit) => Some(hit),
            // On its own, so that a hit on the same request does not carry the room that this takes.
            None => Box::pin(self.similar_request(request, options, &mut trail)).await,
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
        trail.stage("exact");
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
        self.count_in(request, &entry, now).await;
        let kind = HitKind::Exact {
            tier: Arc::clone(&self.tier_names[tier]),
        };
        Some(serve(&entry, kind, now))
    }

    /// Stages 3 to 5: embed, search, decide (and in doubt, refine).
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
        trail.stage("embed");
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
        trail.stage("search");
        let (partition, now) = (request.partition(), self.clock.now());
        let (search, candidates) = (&semantic.search, semantic.settings.candidates);
        let least = worth_a_look(semantic);
        let found = match trail.depth {
            Depth::FirstServed => search.nearest_above(&partition, &vector, candidates, now, least),
            Depth::All => search.nearest(&partition, &vector, candidates, now),
        };
        trail.made.vector = Some(vector);
        trail.stage_done("search");
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                trail.reasons.push(MissReason::IndexFailed);
                tracing::warn!(%error, "the index did not answer");
                return None;
            }
        };
        let asked = Asked {
            semantic,
            request,
            text,
            options,
            now,
        };
        let has_rows = found.has_rows;
        let hit = self.best_of(&asked, found, trail).await;
        if hit.is_none() && trail.nearest.is_none() && has_rows {
            // There is something, and all of it is farther than was looked: the policy says what that means.
            let evidence = Evidence::similarity(least);
            if let Decision::Pass { reason, .. } = semantic.policy.decide(&evidence) {
                trail.reasons.push(MissReason::Policy(reason));
            }
        }
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

    /// Of all candidates that the policy would serve, the one that gains most and is alive. The second
    /// embedding is asked for where the policy is in doubt and nothing else can be served.
    async fn best_of(&self, asked: &Asked<'_>, found: Found, trail: &mut Trail) -> Option<Hit> {
        trail.stage("decide");
        let mut leads: Vec<_> = found.candidates.into_iter().map(Judged::new).collect();
        self.profile(asked, &mut leads, trail).await;
        self.weigh(asked, found.rows, &mut leads);
        let policy = asked.semantic.policy.current();
        for lead in leads.iter_mut().filter(|lead| lead.is_open()) {
            lead.decide(&*policy);
        }
        self.stop_if_tripped(asked, &mut leads);
        trail.stage_done("decide");
        let mut hit = self.serve_best(asked, &mut leads, trail).await;
        if hit.is_none() && leads.iter().any(wants_refining) {
            trail.stage("refine");
            self.refine(asked, &mut leads, trail).await;
            for lead in leads.iter_mut().filter(|lead| lead.is_undecided()) {
                lead.decide(&*policy);
            }
            trail.stage_done("refine");
            hit = self.serve_best(asked, &mut leads, trail).await;
        }
        if hit.is_none() {
            hit = self.verify(asked, &mut leads, trail).await;
        }
        if hit.is_none() {
            // A policy that is still in doubt serves nothing.
            for lead in leads.iter_mut().filter(|lead| lead.is_open()) {
                lead.stop(MissReason::NotFound);
            }
        }
        trail.nearest = nearest(&leads, worth_a_look(asked.semantic));
        let stopped_by = trail.nearest.map(|nearest| nearest.stopped_by);
        trail.reasons.extend(stopped_by);
        if trail.depth == Depth::FirstServed {
            let served = hit.as_ref().map(|hit| hit.entry);
            let category = asked.semantic.category_of(asked.request);
            trail.noted = self.note(asked.request, &leads, category, served);
        }
        trail.judged = leads;
        hit
    }

    /// Serves none of what the policy would serve, where too many hits of the category were wrong.
    fn stop_if_tripped(&self, asked: &Asked<'_>, leads: &mut [Judged]) {
        if self.may_serve(asked) {
            return;
        }
        for lead in leads.iter_mut().filter(|lead| lead.is_open()) {
            lead.stop(MissReason::BreakerOpen);
        }
    }

    /// Whether few enough hits of the category were wrong.
    pub(super) fn may_serve(&self, asked: &Asked<'_>) -> bool {
        let category = asked.semantic.category_of(asked.request);
        self.learning
            .serves(category.map(Category::named).unwrap_or_default())
    }

    /// Stops what is known to be dead or wrong, and finds the profiles of what could be served.
    async fn profile(&self, asked: &Asked<'_>, leads: &mut [Judged], trail: &mut Trail) {
        let semantic = asked.semantic;
        let near = worth_a_look(semantic);
        let known = semantic
            .profiles
            .get(leads.iter().map(|lead| lead.candidate.id));
        let too_old = trail.faults.contains(&MissReason::TooOld);
        for (lead, profile) in leads.iter_mut().zip(known) {
            let id = lead.candidate.id;
            if lead.candidate.similarity >= near {
                lead.profile = profile;
            }
            if self.was_wrong(asked.request, id) {
                lead.stop(MissReason::ReportedWrong);
            } else if lead.candidate.similarity >= semantic.policy.least_similarity() {
                match self.alive(semantic, asked.request.partition(), id, asked.now) {
                    Err(reason) => lead.stop(reason),
                    // The very entry that was found, and is too old for this caller.
                    Ok(key) if too_old && key == asked.request.exact_key() => {
                        lead.stop(MissReason::TooOld);
                    }
                    Ok(_) if lead.profile.is_none() => self.profile_anew(asked, lead, trail).await,
                    Ok(_) => {}
                }
            }
        }
    }

    /// Makes the profile of an entry that came from elsewhere, for which it is fetched.
    async fn profile_anew(&self, asked: &Asked<'_>, lead: &mut Judged, trail: &mut Trail) {
        let id = lead.candidate.id;
        match self.fetch_checked(asked, id, &mut trail.check).await {
            Ok(entry) => match Profile::of(&entry) {
                Some(profile) => {
                    let entries = self.catalog.len();
                    lead.profile = Some(asked.semantic.profiles.insert(id, profile, entries));
                    lead.fetched = Some(entry);
                }
                None => lead.stop(MissReason::NotEmbeddable),
            },
            Err(reason) => lead.stop(reason),
        }
    }

    /// Puts together what the policy is told of each candidate.
    fn weigh(&self, asked: &Asked<'_>, rows: usize, leads: &mut [Judged]) {
        let semantic = asked.semantic;
        let (least, near) = (semantic.policy.least_similarity(), worth_a_look(semantic));
        let standing = |lead: &Judged| self.learning.standing(lead.candidate.id, asked.now);
        let standings: Vec<_> = leads.iter().map(standing).collect();
        let places: Vec<Option<Place>> = leads
            .iter()
            .zip(&standings)
            .map(|(lead, standing)| lead.place(near, standing.group))
            .collect();
        let traits = leads
            .iter()
            .any(|lead| lead.is_open() && lead.candidate.similarity >= least)
            .then(|| TextTraits::of(asked.text));
        let can_refine = semantic
            .refiner
            .as_ref()
            .is_some_and(|refiner| refiner.is_ready());
        let category = semantic.category_of(asked.request).map(Category::named);
        let hazard_per_day = self.learning.hazard(category.unwrap_or_default());
        let typical_saving_usd = self.typical_cost.mean();
        for (at, lead) in leads.iter_mut().enumerate() {
            if !lead.is_open() {
                continue;
            }
            let bare = Evidence::similarity(lead.candidate.similarity);
            let comparable = lead.profile.as_ref().zip(traits.as_ref());
            lead.evidence = Some(match comparable {
                Some((profile, traits)) if lead.candidate.similarity >= least => {
                    let compared = traits.compare(&profile.traits);
                    // What others of its group were right for says nothing against a guard.
                    let alone =
                        standings[at].group.is_some() && compared.guards.conflict().is_some();
                    let (places, record) = if alone {
                        let places = weigh::without_group(&places, at);
                        (Cow::Owned(places), standings[at].own)
                    } else {
                        (Cow::Borrowed(&places), standings[at].record)
                    };
                    Evidence {
                        can_refine,
                        margin: weigh::margin(&places, at),
                        density: weigh::density(&places, at),
                        rank: u16::try_from(at).unwrap_or(u16::MAX),
                        rows: rows as u64,
                        guards: compared.guards,
                        text: compared.features,
                        same_wording: compared.same_wording,
                        record,
                        hazard_per_day,
                        category: category.unwrap_or_default(),
                        age: asked.now.since(profile.created),
                        saving_usd: profile.cost,
                        latency: profile.latency,
                        typical_saving_usd,
                        ..bare
                    }
                }
                // Cannot be served whatever its entry says, so it was not looked at.
                _ => bare,
            });
        }
    }

    /// Asks for the second embedding of the query, and compares by it. Where it cannot be had the policy
    /// is told so.
    async fn refine(&self, asked: &Asked<'_>, leads: &mut [Judged], trail: &mut Trail) {
        let semantic = asked.semantic;
        // Entries whose vector is not made yet: those in doubt, the most similar first.
        let mut lacking = Vec::new();
        for (at, lead) in leads.iter_mut().enumerate() {
            let lacks = lead.profile.as_ref().is_some_and(|p| p.lacks_second());
            if lacking.len() == MADE_AT_ONCE || !lacks || !wants_refining(lead) {
                continue;
            }
            if lead.fetched.is_none() {
                let id = lead.candidate.id;
                match self.fetch_checked(asked, id, &mut trail.check).await {
                    Ok(entry) => lead.fetched = Some(entry),
                    Err(reason) => {
                        lead.stop(reason);
                        continue;
                    }
                }
            }
            let text = lead.fetched.as_ref().and_then(|entry| entry.text.clone());
            lacking.extend(text.map(|text| (at, text)));
        }
        let texts: Vec<&str> = lacking.iter().map(|(_, text)| text.as_str()).collect();
        let answer = match &semantic.refiner {
            Some(refiner) => refiner.embed(asked.text, &texts).await,
            None => Err(Unrefined::Resting),
        };
        let vector = match answer {
            Ok((vector, others)) => {
                for ((at, _), other) in lacking.iter().zip(others) {
                    if let Some(profile) = &leads[*at].profile {
                        match other {
                            Ok(vector) => profile.keep_second(Some(&vector)),
                            Err(Unrefined::NotEmbeddable) => profile.keep_second(None),
                            Err(_) => {}
                        }
                    }
                }
                Some(vector)
            }
            Err(why) => {
                trail.faults.push(MissReason::NotRefined(why));
                None
            }
        };
        let cosine = |lead: &Judged| lead.profile.as_ref()?.second_cosine(vector.as_deref()?);
        let refined: Vec<Option<f32>> = leads.iter().map(cosine).collect();
        let places = leads.iter().zip(&refined).map(|(lead, refined)| {
            let group = self.learning.standing(lead.candidate.id, asked.now).group;
            let place = lead.place(f32::NEG_INFINITY, group)?;
            let similarity = (*refined)?;
            Some(Place {
                similarity,
                ..place
            })
        });
        let places: Vec<Option<Place>> = places.collect();
        let least = semantic.policy.least_similarity();
        for (at, lead) in leads.iter_mut().enumerate() {
            if let Some(evidence) = &mut lead.evidence
                && lead.candidate.similarity >= least
            {
                evidence.can_refine = false;
                evidence.refined = refined[at];
                evidence.refined_margin = if evidence.guards.conflict().is_some() {
                    weigh::margin(&weigh::without_group(&places, at), at)
                } else {
                    weigh::margin(&places, at)
                };
            }
        }
        trail.made.second = vector;
    }

    /// Fetches and checks what the policy would serve, the most useful first, until one is alive.
    async fn serve_best(
        &self,
        asked: &Asked<'_>,
        leads: &mut [Judged],
        trail: &mut Trail,
    ) -> Option<Hit> {
        let decisions: Vec<_> = leads
            .iter()
            .map(|lead| lead.decision.filter(|_| lead.is_open()))
            .collect();
        let order = weigh::by_utility(&decisions);
        if order.is_empty() {
            return None;
        }
        trail.stage("fetch");
        let mut hit = None;
        for at in order {
            let lead = &mut leads[at];
            let id = lead.candidate.id;
            let entry = match lead.fetched.take() {
                Some(entry) => Ok(entry),
                None => self.fetch_checked(asked, id, &mut trail.check).await,
            };
            match entry {
                Ok(entry) if asked.options.accepts(&entry, asked.now) => {
                    lead.verdict = Verdict::Serve;
                    let kind = HitKind::Semantic {
                        similarity: lead.candidate.similarity,
                        probability: lead.probability(),
                        verified: None,
                    };
                    hit = hit.or_else(|| Some(serve(&entry, kind, asked.now)));
                }
                Ok(_) => lead.stop(MissReason::TooOld),
                Err(reason) => lead.stop(reason),
            }
            if hit.is_some() && trail.depth == Depth::FirstServed {
                break;
            }
        }
        trail.stage_done("fetch");
        hit
    }

    /// As [`fetch`](Self::fetch), for an entry of the request's own partition.
    pub(super) async fn fetch_checked(
        &self,
        asked: &Asked<'_>,
        id: EntryId,
        check: &mut Check,
    ) -> Result<Arc<Entry>, MissReason> {
        let partition = asked.request.partition();
        let entry = self
            .fetch(asked.semantic, partition, id, check, asked.now)
            .await?;
        if !entry.digests.same_partition(&asked.request.digests()) {
            return Err(MissReason::IdentityMismatch);
        }
        let (key, needed) = (entry.digests.exact(), self.admission.min_principals());
        if !entry.trust.serves(&key, asked.request, needed) {
            return Err(MissReason::TooFewPrincipals);
        }
        Ok(entry)
    }

    /// Where an entry is stored, as far as this process knows without asking a tier; takes it out of the
    /// index when it is dead.
    fn alive(
        &self,
        semantic: &Semantic,
        partition: PartitionKey,
        id: EntryId,
        now: Timestamp,
    ) -> Result<ExactKey, MissReason> {
        let Some((key, expires)) = self.catalog.locate(id) else {
            // An entry is listed before it is searchable: what is not listed any more is dead.
            semantic.search.remove(&partition, id);
            return Err(MissReason::Gone);
        };
        if expires.is_some_and(|expires| expires <= now) {
            self.forget(id, "expired");
            return Err(MissReason::Gone);
        }
        Ok(key)
    }

    /// The live entry that a candidate points at, or why it cannot be served; takes the candidate out of
    /// the index when it is dead.
    async fn fetch(
        &self,
        semantic: &Semantic,
        partition: PartitionKey,
        id: EntryId,
        check: &mut Check,
        now: Timestamp,
    ) -> Result<Arc<Entry>, MissReason> {
        let key = self.alive(semantic, partition, id, now)?;
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
///
/// No less than margins reach, so that they do not depend on the policy.
const NEAR_MISS: f32 = weigh::MARGIN;

/// Entries whose vector in the second space a lookup makes itself, where they have none yet.
const MADE_AT_ONCE: usize = 4;

/// The least similarity at which a plain lookup looks at candidates.
fn worth_a_look(semantic: &Semantic) -> f32 {
    // A policy that serves nothing asks for more than there is, and still gives its reason.
    semantic.policy.least_similarity().min(1.0) - NEAR_MISS
}

/// Whether the policy would know better with the second cosine.
fn wants_refining(lead: &Judged) -> bool {
    lead.is_open() && matches!(lead.decision, Some(Decision::Refine { .. }))
}

/// The most similar of the candidates that were stopped, and what stopped it: of a live entry, if there is
/// one.
fn nearest(leads: &[Judged], least: f32) -> Option<Nearest> {
    let stopped = leads.iter().filter_map(|lead| match lead.verdict {
        Verdict::Stop(stopped_by) if lead.candidate.similarity >= least => Some(Nearest {
            entry: lead.candidate.id,
            similarity: lead.candidate.similarity,
            probability: lead.probability(),
            stopped_by,
        }),
        _ => None,
    });
    let mut stopped = stopped.peekable();
    let first = stopped.peek().copied();
    stopped
        .find(|nearest| !is_dead(nearest.stopped_by))
        .or(first)
}

/// Whether what was stopped was no live entry.
fn is_dead(stopped_by: MissReason) -> bool {
    matches!(stopped_by, MissReason::Gone | MissReason::Invalidated)
}

pub(super) fn serve(entry: &Entry, kind: HitKind, now: Timestamp) -> Hit {
    Hit {
        entry: entry.id,
        kind,
        age: now.since(entry.created),
        ttl: entry.expires.map(|expires| expires.since(now)),
        saved: entry.saved(),
        answer: entry.answer.clone(),
    }
}
