//! What callers hold: [`SemanticCache`]. It orchestrates the stages and contains no algorithm.
//!
//! Read `lookup.rs` first: the read path, one line a stage. `store.rs` is the write path, `call.rs`
//! ties both to the upstream call, `invalidate.rs` takes entries out again.

mod backlog;
mod builder;
mod call;
mod entries;
mod epoch;
mod explain;
mod invalidate;
mod keys;
mod learn;
mod lookup;
mod many;
mod marks;
mod metered;
mod migrate;
mod outcome;
mod pending;
mod probe;
mod profile;
mod recent;
mod replay;
mod stats;
mod store;
mod stream;
mod verify;
mod weigh;

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::admit::{Admission, Quotas};
use crate::backend::{BackendContext, CacheBackend};
use crate::clock::{ClockHandle, Timestamp};
use crate::config::{SemanticConfig, VolatileConfig};
use crate::embed::{EmbedStage, Refiner};
use crate::entry::catalog::Catalog;
use crate::entry::{Answer, Entry, EntryId};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Events, RemovalCause, Subscription};
use crate::layer::Layered;
use crate::learning::{FalseHitRate, Learning, PolicyStatus};
use crate::observe::{self, Meters};
use crate::policy::{PolicyHandle, PolicySlot, WrongAnswerCost};
use crate::request::{ExactKey, Request};
use crate::savings::{
    Account, CostKind, HitKindLabel, Ledger, PriceTable, Saved, SavingsFilter, SavingsReport,
    TokenCounter, Usage, Usd, WrongHitEstimate,
};
use crate::search::{Known, Restored, SearchStage};
use crate::stampede::SingleFlight;
use crate::tier::TierStack;
use crate::verify::VerifyStage;

pub use builder::CacheBuilder;
pub use call::Fill;
pub use entries::{EntryList, EntryQuery, ListedEntry};
pub use explain::{ExplainedCandidate, ExplainedDecision, ExplainedHit, Explanation};
pub use invalidate::Verdict;
pub use keys::{
    FoundKey, KeyQuery, KeyReport, StoredKind, Swept, TierTrouble, key_name, read_key_name,
};
pub use lookup::LookupOptions;
pub use migrate::MigrationStats;
pub use outcome::{
    Hit, HitKind, Miss, MissReason, Nearest, NotStored, Outcome, Served, Source, StoreOutcome,
};
pub(crate) use probe::Probe;
pub use recent::{RecentFilter, RecentLookup};
pub use replay::Form;
use replay::Ready;
pub use stats::{Health, HealthStatus, Stats, TierHealth, TierStats};
pub use store::StoreOptions;
pub use stream::{Live, Sink, Streamed};

use backlog::Backlog;
use call::Landed;
use epoch::InvalidationLog;
use invalidate::WrongHits;
use learn::Noted;
use lookup::{Depth, Made};
use many::Batches;
use metered::Spent;
use migrate::Migration;
use pending::Pending;
use profile::Profiles;
use recent::Ring;
use stats::{Counters, Probes, RunningMean};
use stream::Lives;

/// Dead entries taken out per call of [`Inner::tend`], so that no store waits long for others' dead.
const TEND_BATCH: usize = 64;

/// Keys looked for in shared tiers per call of [`Inner::tend_shared`].
const TEND_SHARED: usize = 1_024;

/// A cache of LLM answers that also answers requests worded differently.
///
/// Cheap to clone; clones share everything. All methods may be called from any task or thread.
///
/// ```
/// use askonce::{Answer, Request, SemanticCache, StoreOptions};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> askonce::Result<()> {
/// let cache = SemanticCache::in_memory()?;
/// let stored = Request::prompt("How do I reset my password?").model("gpt-4o");
/// let _ = cache.store(&stored, Answer::text("Open Settings ..."), StoreOptions::default()).await;
///
/// let asked = Request::prompt("how can I reset my password").model("gpt-4o");
/// assert!(cache.lookup(&asked).await.is_hit());
///
/// let other = Request::prompt("How do I delete my account?").model("gpt-4o");
/// assert!(!cache.lookup(&other).await.is_hit());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SemanticCache {
    inner: Arc<Inner>,
}

/// The parts of one cache.
struct Inner {
    clock: ClockHandle,
    tiers: TierStack,
    tier_names: Box<[Arc<str>]>,
    /// What the stack is made of, nearest first.
    layers: Box<[Arc<Layered>]>,
    events: Events,
    /// What the tiers were built with.
    context: BackendContext,
    probes: Probes,
    /// The questions how each layer is, by its place.
    health: Box<[Probe]>,
    /// Whether health is asked for, or told from what was seen.
    checks: bool,
    catalog: Catalog,
    semantic: Option<Semantic>,
    flights: SingleFlight<ExactKey, Result<Landed>>,
    /// Flights that share a call with those of other requests.
    batches: Batches,
    lives: Lives,
    epochs: InvalidationLog,
    wrong_hits: WrongHits,
    ready: Ready,
    meters: Arc<Meters>,
    learning: Learning,
    /// Misses whose answers may be stored by a call of their own.
    pending: Pending<Noted>,
    migration: Migration,
    prices: PriceTable,
    tokens: TokenCounter,
    ledger: Ledger,
    ledger_path: Option<PathBuf>,
    /// Mean cost of the calls whose answers are stored, in dollars.
    typical_cost: RunningMean,
    counters: Counters,
    recent: Ring,
    /// Keys that a tier dropped on its own and that still have a catalogue row.
    dropped: Arc<Mutex<Vec<(ExactKey, RemovalCause)>>>,
    default_ttl: Option<Duration>,
    /// Whether anything is looked up or stored.
    enabled: bool,
    /// Whether callers with the same request share an upstream call.
    protection: bool,
    volatile: VolatileConfig,
    admission: Arc<Admission>,
    quotas: Quotas,
    started: Timestamp,
}

/// The parts that match by similarity.
struct Semantic {
    embed: EmbedStage,
    search: SearchStage,
    policy: PolicySlot,
    /// Which policy is in there.
    status: Mutex<PolicyStatus>,
    /// The second embedding, where there is one.
    refiner: Option<Arc<Refiner>>,
    /// What still needs a vector of it.
    backlog: Option<Arc<Backlog>>,
    /// Who is asked about what the policy nearly served, where there is somebody.
    verifier: Option<VerifyStage>,
    profiles: Profiles,
    /// What paid embedding models cost that is not booked yet.
    embedding_spent: Arc<Spent>,
    settings: SemanticConfig,
}

impl Semantic {
    /// The kind of traffic that a request is of; `None` for the default kind.
    fn category_of<'a>(&'a self, request: &'a Request) -> Option<&'a str> {
        request.category_name().or_else(|| {
            let mut rules = self.settings.categories.iter();
            let rule = rules.find(|rule| rule.matches(request))?;
            Some(&rule.name)
        })
    }
}

impl SemanticCache {
    /// A builder with default settings.
    #[must_use]
    pub fn builder() -> CacheBuilder {
        CacheBuilder::default()
    }

    /// A cache with default settings: 512 MiB of memory, the built-in embedding, no network, no files.
    ///
    /// # Errors
    /// None in practice; the builder's.
    pub fn in_memory() -> Result<Self> {
        CacheBuilder::default().build_local()
    }

    /// The stored answer that may be given for `request`, or why there is none.
    pub async fn lookup(&self, request: &Request) -> Outcome {
        self.lookup_with(request, &LookupOptions::of(request)).await
    }

    /// As [`lookup`](Self::lookup), with a say in what may be served.
    pub async fn lookup_with(&self, request: &Request, options: &LookupOptions) -> Outcome {
        let inner = &self.inner;
        let lookup = inner.lookup(request, options, Depth::FirstServed).await;
        inner.account(request, &lookup.outcome);
        inner.expect_answer(request, &lookup.outcome, lookup.noted);
        lookup.outcome
    }

    /// Stores `answer` for `request`, in place of the one stored before. Prefer
    /// [`get_or_call`](Self::get_or_call), which also notices an invalidation that came in while the
    /// answer was made. After a [`lookup`](Self::lookup) of the same request that was a miss, within ten
    /// minutes, what is stored also labels the candidate that was passed on.
    pub async fn store(
        &self,
        request: &Request,
        answer: Answer,
        options: StoreOptions,
    ) -> StoreOutcome {
        let epoch = self.inner.epochs.now();
        let tags = Some(options.tags.as_slice());
        let inner = &self.inner;
        let began = inner.begin(epoch, request, tags).await;
        let missed = inner.pending.take(&request.exact_key(), inner.clock.now());
        let missed = missed.map(|noted| (noted, answer.clone()));
        let made = Made::default();
        let stored = inner.store(request, answer, options, &began, made).await;
        if let Some((noted, fresh)) = missed {
            inner.learn_from_miss(request, &noted, &fresh, &stored);
        }
        stored
    }

    /// The live entry with this id.
    pub async fn entry(&self, id: EntryId) -> Option<Entry> {
        self.inner.entry(id).await.map(Arc::unwrap_or_clone)
    }

    /// The rules for what may be kept. The cache asks them itself; a proxy asks them before, to tell why.
    #[must_use]
    pub fn admission(&self) -> &Admission {
        &self.inner.admission
    }

    /// What hits have saved so far.
    #[must_use]
    pub fn savings(&self) -> SavingsReport {
        self.inner.savings(&SavingsFilter::default())
    }

    /// What hits have saved for one tenant, model or route, or in the last days.
    #[must_use]
    pub fn savings_for(&self, filter: &SavingsFilter) -> SavingsReport {
        self.inner.savings(filter)
    }

    /// Writes the books to their file; tells whether there is one
    /// ([`path`](crate::savings::LedgerConfig::path)). Without this call a later process begins with what was
    /// written last, a minute before at most.
    ///
    /// # Errors
    /// [`ErrorKind::BackendUnavailable`] when the file cannot be written.
    pub async fn save_savings(&self) -> Result<bool> {
        Inner::save_savings(Arc::clone(&self.inner)).await
    }

    /// Writes the index to its folder, so that a process started later begins with it; tells whether
    /// [`path`](crate::search::IndexConfig::path) names one. Without this call a later process begins with
    /// the last snapshot and the journal since, which lacks some seconds at most.
    ///
    /// # Errors
    /// [`ErrorKind::Index`] when the folder cannot be written.
    pub async fn save_index(&self) -> Result<bool> {
        let inner = Arc::clone(&self.inner);
        let save = move || match &inner.semantic {
            Some(semantic) => semantic
                .search
                .save(inner.clock.now(), &|id| inner.known(id)),
            None => Ok(false),
        };
        tokio::task::spawn_blocking(save)
            .await
            .unwrap_or_else(|error| {
                Err(Error::new(ErrorKind::Index, "the index was not written").caused_by(error))
            })
    }

    /// What happens in the tiers from now on: hits, misses, stores, evictions, outages. A subscriber that is
    /// too slow loses events and holds nobody up.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        self.inner.events.subscribe()
    }

    /// The name of the embedding space; `None` when similarity is off.
    #[must_use]
    pub fn fingerprint(&self) -> Option<&str> {
        self.inner
            .semantic
            .as_ref()
            .map(|semantic| semantic.embed.fingerprint())
    }

    /// The policy that decides now; `None` when similarity is off.
    #[must_use]
    pub fn policy(&self) -> Option<PolicyHandle> {
        let semantic = self.inner.semantic.as_ref()?;
        Some(semantic.policy.current())
    }

    /// The name of the second embedding space; `None` where there is none.
    #[must_use]
    pub fn refiner_fingerprint(&self) -> Option<&str> {
        let refiner = self.inner.semantic.as_ref()?.refiner.as_ref()?;
        Some(refiner.fingerprint())
    }

    /// Waits until all that was stored so far has its vector in the second space, which is made in the
    /// background. Lookups need not wait: one that lacks a vector makes it itself. For measurements.
    pub async fn refined_all(&self) {
        let semantic = self.inner.semantic.as_ref();
        let Some(backlog) = semantic.and_then(|semantic| semantic.backlog.as_ref()) else {
            return;
        };
        while backlog.len() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Inner {
    /// The live entry with this id.
    async fn entry(&self, id: EntryId) -> Option<Arc<Entry>> {
        let row = self.catalog.get(id)?;
        let mut check = self.check_of(&row.scope, &row.model);
        let answer = self
            .tiers
            .look(&row.exact, &[], &mut check, self.clock.now());
        let (entry, _) = answer.await.found?;
        (entry.id == id).then_some(entry)
    }

    /// Counts a finished lookup, and books what a hit saved.
    fn account(&self, request: &Request, outcome: &Outcome) {
        self.note_recent(request, outcome);
        match outcome {
            Outcome::Hit(hit) => {
                let label = match &hit.kind {
                    HitKind::Exact { tier } => {
                        self.meters.exact_hit(tier, &self.tier_names);
                        HitKindLabel::Exact
                    }
                    HitKind::Semantic { .. } => {
                        self.meters.semantic_hit();
                        HitKindLabel::Semantic
                    }
                };
                let usd = hit.saved.usd.map(Usd::as_dollars);
                self.meters
                    .saved(usd, hit.saved.usage.total(), hit.saved.duration);
                self.counters.hit(&hit.kind);
                let scope = request.scope_ref().label();
                let model = request.model_name().unwrap_or_default();
                let route = request.route_name().unwrap_or_default();
                let account = (&*scope, model, route);
                self.ledger.record_hit(account, label, &hit.saved);
            }
            Outcome::Miss(miss) => {
                let reason = miss.reason();
                observe::miss(reason.as_str());
                self.counters.miss(reason);
            }
        }
    }

    /// Books an upstream call.
    fn book_call(&self, request: &Request, usage: Usage, took: Duration) {
        let model = request.model_name().unwrap_or_default();
        let route = request.route_name().unwrap_or_default();
        let usd = self.prices.cost(model, &usage);
        let tenant = request.scope_ref().label();
        let account = (&*tenant, model, route);
        self.ledger.record_upstream(account, usage, usd, took);
    }

    /// Books what the cache spent on itself.
    fn book_cost(&self, kind: CostKind, usd: Usd) {
        if !usd.is_zero() {
            self.ledger.record_cost(kind, usd);
            observe::cost(kind.as_str(), usd.as_dollars());
        }
    }

    /// Takes back what a hit that was wrong claimed to save, and books what a wrong answer costs.
    fn book_wrong_hit<'a>(&self, account: impl Into<Account<'a>>, saved: &Saved) {
        self.ledger.record_wrong_hit(account, saved);
        let saving = saved.usd.map_or(0.0, Usd::as_dollars);
        let saving = self.typical_cost.mean().unwrap_or(saving);
        self.book_cost(CostKind::WrongHit, self.wrong_answer_usd(saving));
    }

    /// What a wrong answer costs by the policy's settings, where a hit saves so many dollars.
    fn wrong_answer_usd(&self, saving: f64) -> Usd {
        let semantic = self.semantic.as_ref();
        let cost = semantic.and_then(|semantic| semantic.settings.policy.wrong_answer_cost());
        Usd::from_dollars(match cost {
            Some(WrongAnswerCost::TimesSaving(times)) => times * saving,
            Some(WrongAnswerCost::Usd(usd)) => usd,
            None => 0.0,
        })
    }

    /// Books what embedding cost since this was last done.
    fn settle(&self) {
        if let Some(semantic) = &self.semantic {
            self.book_cost(CostKind::Embedding, semantic.embedding_spent.take());
        }
    }

    /// The report on the books, with what they do not hold: which prices were used, and what wrong hits that
    /// nobody found may have cost.
    fn savings(&self, filter: &SavingsFilter) -> SavingsReport {
        self.settle();
        let mut report = self.ledger.report(self.clock.now(), filter);
        report.prices = Some(self.prices.version());
        if filter.is_of_all() {
            report.wrong_hits = self.wrong_hits_of(&report);
        }
        report
    }

    /// What hits that nobody found wrong may have cost, by the audits of all categories together.
    fn wrong_hits_of(&self, report: &SavingsReport) -> Option<WrongHitEstimate> {
        let stats = self.learning.stats();
        let rates = stats.categories.values();
        let rates = rates.filter_map(|category| {
            let audits = category.false_hits?.effective_audits;
            let rate = category.false_hits_corrected.or(category.false_hits)?;
            Some((audits, rate))
        });
        let rates: Vec<_> = rates.collect();
        let audits: f64 = rates.iter().map(|(audits, _)| audits).sum();
        if audits <= 0.0 {
            return None;
        }
        let mean = |of: fn(&FalseHitRate) -> f64| {
            let weighted = rates.iter().map(|(audits, rate)| audits * of(rate));
            weighted.sum::<f64>() / audits
        };
        let totals = &report.totals;
        let rate = mean(|rate| rate.rate);
        let hits = (rate * totals.hits_semantic as f64 - totals.hits_wrong as f64).max(0.0);
        let saving = totals.saved.usd.as_dollars() / (totals.hits().max(1) as f64);
        let each = saving + self.wrong_answer_usd(saving).as_dollars();
        let usd = Usd::from_dollars(hits * each);
        Some(WrongHitEstimate {
            rate,
            lower: mean(|rate| rate.lower),
            upper: mean(|rate| rate.upper),
            hits,
            usd,
            net_usd: report.net_usd - usd,
        })
    }

    async fn save_savings(inner: Arc<Self>) -> Result<bool> {
        inner.settle();
        let save = move || match &inner.ledger_path {
            Some(path) => inner.ledger.save(path).map(|()| true),
            None => Ok(false),
        };
        tokio::task::spawn_blocking(save)
            .await
            .unwrap_or_else(|error| {
                let message = "the books were not written";
                Err(Error::new(ErrorKind::BackendUnavailable, message).caused_by(error))
            })
    }

    /// Takes out what has died: entries past their expiry, and rows whose tier dropped the value.
    async fn tend(&self) {
        if let Some(semantic) = &self.semantic {
            semantic.profiles.trim(self.catalog.len());
        }
        // Where a tier is shared, most of what a near tier drops lives on in it, and asking is not for
        // free: see `tend_shared`.
        if !self.tiers.is_shared() {
            let dropped = std::mem::take(&mut *self.dropped.lock());
            for (key, cause) in dropped {
                // It may have been stored again since, or live on in another tier.
                if let Some(id) = self.catalog.id_of(&key)
                    && !self.tiers.contains(&key).await
                {
                    self.forget(id, cause.as_str());
                }
            }
        }
        for id in self.catalog.expired(self.clock.now(), TEND_BATCH) {
            if let Some((key, _)) = self.catalog.locate(id) {
                self.events.emit(|events| Event::Removed {
                    tier: self.tier_names.first().cloned().unwrap_or_default(),
                    key: events.digest(key.as_bytes()),
                    cause: RemovalCause::Expired,
                });
            }
            if self.tiers.is_shared() {
                // What lies there is dead by itself, or the work of another process.
                self.forget(id, "expired");
            } else {
                self.remove(id, "expired").await;
            }
        }
    }

    /// Lists what an earlier process made searchable. Each is a lead: whether the entry is alive shows when
    /// it is looked at.
    fn list_again(&self, restored: Vec<Restored>) {
        let count = restored.len();
        for Restored {
            id,
            row,
            wrong,
            embedded,
        } in restored
        {
            self.wrong_hits.restore(id, wrong);
            if !embedded {
                self.migration.push(id);
            }
            if let Some((old, old_row)) = self.catalog.insert(id, row) {
                self.unlink(old, &old_row);
            }
        }
        if count > 0 {
            tracing::info!(entries = count, "the index was restored");
            if self
                .layers
                .iter()
                .all(|tier| CacheBackend::capability(&**tier).in_process)
            {
                tracing::warn!(
                    "semantic.index.path is set, and no backend outlives the process: what the index leads to is gone"
                );
            }
        }
    }

    /// What a snapshot of the index keeps of an entry.
    fn known(&self, id: EntryId) -> Option<Known> {
        let row = self.catalog.get(id)?;
        Some((row, self.wrong_hits.of(id)))
    }

    /// Does what is due in the index, on a thread that may work.
    async fn tend_index(inner: Arc<Self>) {
        if inner.semantic.is_none() {
            return;
        }
        let work = move || {
            if let Some(semantic) = &inner.semantic {
                semantic
                    .search
                    .tend(inner.clock.now(), &|id| inner.known(id));
            }
        };
        // A panic in there is told by the runtime; the next look comes anyway.
        let _ = tokio::task::spawn_blocking(work).await;
    }

    /// Does again what a shared tier did not do, and takes out rows of entries that no tier holds any more.
    async fn tend_shared(&self) {
        if !self.tiers.is_shared() {
            return;
        }
        self.tiers.catch_up().await;
        let mut dropped = std::mem::take(&mut *self.dropped.lock());
        let mut known = HashSet::new();
        dropped.retain(|(key, _)| self.catalog.id_of(key).is_some() && known.insert(*key));
        let mut later = dropped.split_off(dropped.len().min(TEND_SHARED));
        for dropped in dropped.chunks(TEND_BATCH) {
            let keys: Vec<_> = dropped.iter().map(|(key, _)| *key).collect();
            let held = self.tiers.held(&keys).await;
            for ((key, cause), held) in dropped.iter().zip(held) {
                match held {
                    Some(true) => {}
                    Some(false) => {
                        if let Some(id) = self.catalog.id_of(key) {
                            self.forget(id, cause.as_str());
                        }
                    }
                    None => later.push((*key, *cause)),
                }
            }
        }
        self.dropped.lock().append(&mut later);
    }
}

impl fmt::Debug for SemanticCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SemanticCache")
            .field("tiers", &self.inner.tiers)
            .field("entries", &self.inner.catalog.len())
            .field("embedder", &self.fingerprint())
            .finish_non_exhaustive()
    }
}
