//! What a cache has done and what it holds.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::migrate::MigrationStats;
use super::outcome::{HitKind, MissReason};
use super::{Inner, SemanticCache};
use crate::backend::{CacheBackend, RemovalCounts};
use crate::error::Result;
use crate::layer::{BreakerState, BreakerStates, LastError, Latency, LayerCounts, Layered};
use crate::learning::{LearningStats, PolicyStatus};
use crate::observe;
use crate::search::IndexStats;

/// Counts since start, and what is held now.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stats {
    /// Hits on the same request.
    pub hits_exact: u64,
    /// Hits on a similar request.
    pub hits_semantic: u64,
    /// Lookups that found nothing to serve.
    pub misses: u64,
    /// Misses by decisive reason.
    pub miss_reasons: BTreeMap<&'static str, u64>,
    /// Answers offered to the cache, by what became of them.
    pub stores: BTreeMap<&'static str, u64>,
    /// Upstream calls that gave an answer.
    pub upstream_ok: u64,
    /// Upstream calls that failed.
    pub upstream_failed: u64,
    /// Hits that callers reported as wrong.
    pub wrong_hits: u64,
    /// Upstream calls that are running.
    pub in_flight: usize,
    /// Entries that were removed, by what for: `expired`, `evicted`, `invalidated`, `reported_wrong`, or
    /// `gone` when their tiers were found not to hold them any more.
    pub removals: BTreeMap<&'static str, u64>,
    /// Live entries.
    pub entries: usize,
    /// Rows in the vector index.
    pub searchable: usize,
    /// Partitions with at least one row.
    pub partitions: usize,
    /// Bytes of the vector index.
    pub index_bytes: usize,
    /// How the vector index stands; `None` when similarity is off.
    pub index: Option<IndexStats>,
    /// Entries that a lookup can weigh without fetching them.
    pub profiles: usize,
    /// Bytes of what it weighs them by, vectors in the second space included.
    pub profile_bytes: usize,
    /// Entries that wait for their vector in the second space; 0 when there is none.
    pub waiting_for_refiner: usize,
    /// How far entries of an earlier embedding have been embedded anew; `None` when there were none.
    pub migration: Option<MigrationStats>,
    /// What each tier holds, nearest first.
    pub tiers: Vec<TierStats>,
    /// The embedding space; `None` when similarity is off.
    pub embedder: Option<String>,
    /// The second embedding space; `None` when there is none.
    pub refiner: Option<String>,
    /// The policy's name; `None` when similarity is off.
    pub policy: Option<&'static str>,
    /// Where the policy comes from, and since when it decides; `None` when similarity is off.
    pub policy_status: Option<PolicyStatus>,
    /// What has been learnt from decisions.
    pub learning: LearningStats,
    /// Seconds since the cache was built.
    pub uptime_seconds: u64,
}

impl Stats {
    /// Share of lookups that were hits, 0 to 1; `None` before the first lookup.
    #[must_use]
    pub fn hit_rate(&self) -> Option<f64> {
        let hits = self.hits_exact + self.hits_semantic;
        let lookups = hits + self.misses;
        (lookups > 0).then(|| hits as f64 / lookups as f64)
    }
}

/// What one tier holds and has done.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TierStats {
    /// The tier's name.
    pub name: String,
    /// Whether it answered.
    pub up: bool,
    /// Live values; 0 when it did not answer.
    pub entries: u64,
    /// Bytes; 0 when it did not answer.
    pub bytes: u64,
    /// Hits, misses and the like of this process, since the cache was built.
    pub counts: LayerCounts,
    /// Share of the keys asked for that had a live value, 0 to 1; `None` before the first was asked for.
    pub hit_rate: Option<f64>,
    /// How long its operations took; `None` before the first.
    pub latency: Option<Latency>,
    /// Values that it dropped on its own; `None` where that happens in another process, which does not
    /// tell.
    pub removals: Option<RemovalCounts>,
}

/// Whether a cache can do its work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    /// Whether every tier answers. A cache with a failing tier still works, with fewer hits.
    pub healthy: bool,
    /// The whole: as good as the tiers when they agree, `degraded` when they do not.
    pub status: HealthStatus,
    /// The tiers, nearest first.
    pub tiers: Vec<TierHealth>,
}

/// How well something does its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// As it should.
    Healthy,
    /// Not all of it, or not for all.
    Degraded,
    /// Not at all.
    Unhealthy,
}

/// Whether one tier can do its work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TierHealth {
    /// The tier's name.
    pub name: String,
    /// Whether it answered now.
    pub up: bool,
    /// `degraded` when it answers and yet a breaker keeps calls from it.
    pub status: HealthStatus,
    /// What is wrong; `None` when nothing is.
    pub reason: Option<String>,
    /// Its breakers; `None` where it has none.
    pub breakers: Option<BreakerStates>,
    /// The last failure that was seen, however long ago.
    pub last_error: Option<LastError>,
}

impl SemanticCache {
    /// Counts since start, and what is held now.
    pub async fn stats(&self) -> Stats {
        let inner = &self.inner;
        inner.tend().await;
        inner.tend_shared().await;
        let tiers = inner.tier_stats().await;
        let counters = &inner.counters;
        // Cloned in statements of their own: guards made inside the literal would live to its end.
        let miss_reasons = counters.misses.lock().clone();
        let stores = counters.stores.lock().clone();
        let removals = counters.removals.lock().clone();
        let semantic = inner.semantic.as_ref();
        let index_bytes = semantic.map_or(0, |semantic| semantic.search.bytes());
        let tier_bytes = tiers.iter().map(|tier| tier.bytes).sum();
        inner.show_bytes(tier_bytes);
        Stats {
            hits_exact: counters.exact.load(Ordering::Relaxed),
            hits_semantic: counters.semantic.load(Ordering::Relaxed),
            misses: miss_reasons.values().sum(),
            miss_reasons,
            stores,
            removals,
            upstream_ok: counters.upstream_ok.load(Ordering::Relaxed),
            upstream_failed: counters.upstream_failed.load(Ordering::Relaxed),
            wrong_hits: counters.wrong_hits.load(Ordering::Relaxed),
            in_flight: inner.flights.running() + inner.batches.running(),
            entries: inner.catalog.len(),
            searchable: semantic.map_or(0, |semantic| semantic.search.len()),
            partitions: semantic.map_or(0, |semantic| semantic.search.partitions()),
            index_bytes,
            index: semantic.map(|semantic| semantic.search.stats(inner.clock.now())),
            tiers,
            profiles: semantic.map_or(0, |semantic| semantic.profiles.len()),
            profile_bytes: semantic.map_or(0, |semantic| semantic.profiles.bytes()),
            waiting_for_refiner: semantic
                .and_then(|semantic| semantic.backlog.as_ref())
                .map_or(0, |backlog| backlog.len()),
            migration: inner.migration.stats(),
            embedder: self.fingerprint().map(str::to_owned),
            refiner: self.refiner_fingerprint().map(str::to_owned),
            policy: semantic.map(|semantic| semantic.policy.name()),
            policy_status: semantic.map(|semantic| semantic.status.lock().clone()),
            learning: inner.learning.stats(),
            uptime_seconds: inner.clock.now().since(inner.started).as_secs(),
        }
    }

    /// How the vector index stands; `None` when similarity is off. Asks no tier.
    #[must_use]
    pub fn index_stats(&self) -> Option<IndexStats> {
        let semantic = self.inner.semantic.as_ref()?;
        Some(semantic.search.stats(self.inner.clock.now()))
    }

    /// How long ago the cache was built.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.inner.clock.now().since(self.inner.started)
    }

    /// Whether every part answers. Takes a second at most, whatever hangs, and asks each tier once, all at the
    /// same time. A configured tier that was well and has not failed since is not asked again within its
    /// `health_check_interval`; none is asked where `service.enable_health_checks` is off.
    pub async fn health(&self) -> Health {
        Health::of(self.inner.tier_health().await)
    }
}

impl Health {
    /// The health of a whole of these parts.
    pub(crate) fn of(tiers: Vec<TierHealth>) -> Self {
        let all = |status| tiers.iter().all(|tier| tier.status == status);
        let status = if all(HealthStatus::Healthy) {
            HealthStatus::Healthy
        } else if all(HealthStatus::Unhealthy) {
            HealthStatus::Unhealthy
        } else {
            HealthStatus::Degraded
        };
        Self {
            healthy: tiers.iter().all(|tier| tier.up),
            status,
            tiers,
        }
    }
}

/// How long a tier may take to say what it holds, or that it is there.
pub(super) const PROBE_DEADLINE: Duration = Duration::from_secs(1);

/// Questions to one tier that may be open at the same time.
const OPEN_PROBES: usize = 4;

/// The right to ask a tier how it is: however often health is asked for, no tier is asked more often at
/// the same time, and one that hangs takes no other's turn.
#[derive(Debug)]
pub(super) struct Probes(Box<[Arc<Semaphore>]>);

impl Probes {
    pub(super) fn new(tiers: usize) -> Self {
        let turns = || Arc::new(Semaphore::new(OPEN_PROBES));
        Self((0..tiers).map(|_| turns()).collect())
    }
}

impl Inner {
    /// Puts a question to all tiers at once; `None` for those that did not answer in time.
    async fn ask_tiers<T, F>(&self, ask: impl Fn(Arc<Layered>) -> F) -> Vec<Option<Result<T>>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut asked = JoinSet::new();
        for (position, (tier, turns)) in self.layers.iter().zip(&self.probes.0).enumerate() {
            let (turns, asking) = (Arc::clone(turns), ask(Arc::clone(tier)));
            asked.spawn(async move {
                let deadline = Instant::now() + PROBE_DEADLINE;
                let answer = tokio::time::timeout_at(deadline, async {
                    let _turn = turns.acquire().await;
                    // Those whose time is up leave together: none of them asks on the way out.
                    if Instant::now() >= deadline {
                        return None;
                    }
                    Some(asking.await)
                });
                (position, answer.await.ok().flatten())
            });
        }
        let mut answers: Vec<_> = self.layers.iter().map(|_| None).collect();
        while let Some(answer) = asked.join_next().await {
            // A tier that panics has not answered.
            if let Ok((position, answer)) = answer {
                answers[position] = answer;
            }
        }
        answers
    }

    async fn tier_health(&self) -> Vec<TierHealth> {
        let tiers = self.layers.iter().zip(&self.health);
        let asked = tiers.map(|(tier, probe)| probe.ask(tier, &self.clock, self.checks));
        join_all(asked).await
    }

    async fn tier_stats(&self) -> Vec<TierStats> {
        let answers = self
            .ask_tiers(|tier| async move { CacheBackend::usage(&*tier).await })
            .await;
        let tiers = self.layers.iter().zip(answers);
        tiers
            .map(|(tier, usage)| {
                let usage = usage.and_then(Result::ok);
                let held = usage.unwrap_or_default();
                TierStats {
                    name: CacheBackend::name(&**tier).to_owned(),
                    up: usage.is_some(),
                    entries: held.entries,
                    bytes: held.bytes,
                    hit_rate: tier.counts().hit_rate(),
                    latency: tier.latency(),
                    removals: self.context.removal_counts(CacheBackend::name(&**tier)),
                    counts: tier.counts(),
                }
            })
            .collect()
    }

    /// Tells the metrics what is held.
    pub(super) async fn show_holdings(&self) {
        let bytes = self.tier_stats().await.iter().map(|tier| tier.bytes).sum();
        self.show_bytes(bytes);
    }

    fn show_bytes(&self, tiers: u64) {
        let semantic = self.semantic.as_ref();
        let index = semantic.map_or(0, |semantic| semantic.search.bytes());
        let profiles = semantic.map_or(0, |semantic| semantic.profiles.bytes());
        let parts = [
            ("tier", tiers),
            ("index", index as u64),
            ("profile", profiles as u64),
        ];
        observe::holding(self.catalog.len() as u64, parts);
    }
}

/// What an answer to a probe says of a tier; `None`: there was none in time.
pub(super) fn health_of(tier: &Layered, answer: Option<Result<()>>) -> TierHealth {
    let breakers = tier.breakers();
    let closed = breakers.is_none_or(|breakers| {
        breakers.read == BreakerState::Closed && breakers.write == BreakerState::Closed
    });
    let (status, reason) = match answer {
        Some(Ok(())) if closed => (HealthStatus::Healthy, None),
        Some(Ok(())) => {
            let why = tier.breaker_reason().unwrap_or("unknown");
            let reason = format!("answers, but a breaker is not closed yet: {why}");
            (HealthStatus::Degraded, Some(reason))
        }
        Some(Err(error)) => {
            let reason = format!("does not answer: {}", error.kind());
            (HealthStatus::Unhealthy, Some(reason))
        }
        None => {
            let reason = format!("did not answer within {PROBE_DEADLINE:?}");
            (HealthStatus::Unhealthy, Some(reason))
        }
    };
    TierHealth {
        name: CacheBackend::name(tier).to_owned(),
        up: status != HealthStatus::Unhealthy,
        status,
        reason,
        breakers,
        last_error: tier.last_error(),
    }
}

/// Counts since start. The common ones are atomics; misses and stores are counted by name.
#[derive(Debug, Default)]
pub(super) struct Counters {
    exact: AtomicU64,
    semantic: AtomicU64,
    upstream_ok: AtomicU64,
    upstream_failed: AtomicU64,
    wrong_hits: AtomicU64,
    misses: Mutex<BTreeMap<&'static str, u64>>,
    stores: Mutex<BTreeMap<&'static str, u64>>,
    removals: Mutex<BTreeMap<&'static str, u64>>,
}

impl Counters {
    pub(super) fn hit(&self, kind: &HitKind) {
        let counter = match kind {
            HitKind::Exact { .. } => &self.exact,
            HitKind::Semantic { .. } => &self.semantic,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn miss(&self, reason: MissReason) {
        *self.misses.lock().entry(reason.as_str()).or_default() += 1;
    }

    pub(super) fn store(&self, outcome: &'static str) {
        *self.stores.lock().entry(outcome).or_default() += 1;
    }

    pub(super) fn removal(&self, cause: &'static str) {
        *self.removals.lock().entry(cause).or_default() += 1;
    }

    pub(super) fn upstream(&self, ok: bool) {
        let counter = if ok {
            &self.upstream_ok
        } else {
            &self.upstream_failed
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn wrong_hit(&self) {
        self.wrong_hits.fetch_add(1, Ordering::Relaxed);
    }
}

/// A mean of all values so far.
#[derive(Debug, Default)]
pub(super) struct RunningMean {
    sum: Mutex<(f64, u64)>,
}

impl RunningMean {
    pub(super) fn add(&self, value: f64) {
        let mut sum = self.sum.lock();
        sum.0 += value;
        sum.1 += 1;
    }

    /// `None` before the first value.
    pub(super) fn mean(&self) -> Option<f64> {
        let (sum, count) = *self.sum.lock();
        (count > 0).then(|| sum / count as f64)
    }
}
