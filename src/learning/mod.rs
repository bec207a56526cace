//! What became of decisions, learnt from: records of entries, an estimate of the wrong hits, and a breaker.
//!
//! | label | comes from | counts for |
//! |---|---|---|
//! | miss | a miss whose fresh answer is compared with that of the candidate that was passed on | the entry |
//! | judge | the same, where only a [`Judge`] could tell | the entry |
//! | audit | a hit whose upstream call was made all the same | the entry, the estimate, the breaker |
//! | feedback | a caller's report | the entry, in part |
//!
//! All of it happens in the background and is bounded: queue, calls, dollars, reports of one principal. What
//! cannot be told for sure makes no label. `compare` tells what is sure, `posterior` what a label says of its
//! entry, `audit` and `estimate` how the share of wrong hits is measured, `breaker` when it is too much,
//! `state` what is kept and shared.
//!
//! Always true: lookups take no lock that a label holds for long, and nothing here makes a caller wait.

mod audit;
mod breaker;
mod caps;
mod compare;
pub mod decision_log;
mod estimate;
mod freshness;
mod judge;
mod kept_policy;
mod posterior;
mod recalibrate;
mod recent;
mod state;
mod tail;
mod view;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use askonce_models::StaticEmbedder;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::backend::{CacheBackend, Condition};
use crate::clock::Timestamp;
use crate::config::LearningConfig;
use crate::decision::{CandidateRecord, DecisionRecord};
use crate::entry::{Answer, EntryId};
use crate::error::{Error, ErrorKind, Result};
use crate::files::write_whole;
use crate::observe;
use crate::policy::{Category, Decision, EntryRecord, Evidence, HitPolicy, PolicyFile};

pub use compare::Agreement;
pub use estimate::FalseHitRate;
pub use judge::{Judge, JudgeHandle, JudgeQuestion, Judgement};
pub use recalibrate::{PolicyOrigin, PolicyStatus, Recalibration, RecalibrationReport};

pub(crate) use audit::Drawn;
pub(crate) use kept_policy::{last_report, picked_up};
pub(crate) use recalibrate::{Refit, refit};

use caps::Windows;
use decision_log::{DecisionId, DecisionLog, LoggedLabel};
use posterior::Step;
use recent::Recent;
use state::{CategoryState, Effect, Op, State};
use tail::Tail;
use view::View;

pub(crate) use view::Standing;

/// The key under which processes that share a tier keep what they learnt.
const SHARED_KEY: &[u8] = b"!learning";

/// How long that is kept after the last of them is gone.
const SHARED_LIFE: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Operations that wait for the shared tier; while it is away, the oldest go.
const MOST_PENDING: usize = 8_192;

/// How often a process tries to add to what others write at the same time.
const TRIES: usize = 16;

/// Audits whose calls run at the same time; more are not made.
const AUDITS_AT_ONCE: usize = 4;

/// Stands for the engine among the principals that find hits wrong.
const AUDITOR: u64 = 0;

/// Stands for callers of whom no more is known.
const SOMEBODY: u64 = 1;

/// The probability of a hit whose evidence is not known any more.
const TYPICAL_HIT: f64 = 0.9;

/// Where a label comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LabelSource {
    /// A miss, by comparing two answers.
    Miss,
    /// A miss, by a [`Judge`].
    Judge,
    /// A hit whose upstream call was made all the same.
    Audit,
    /// A report by a caller.
    Feedback,
}

impl LabelSource {
    /// The stable name used in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Miss => "miss",
            Self::Judge => "judge",
            Self::Audit => "audit",
            Self::Feedback => "feedback",
        }
    }
}

/// What a budget is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum Purse {
    Audits,
    Judge,
}

/// A fresh answer to be compared with the one that was or might have been served.
pub(crate) struct Comparison {
    pub(crate) decision: DecisionId,
    pub(crate) category: Option<String>,
    pub(crate) candidate: CandidateRecord,
    /// The query's text, for a judge.
    pub(crate) query: String,
    /// The query's fingerprint, for the memory of wrong hits.
    pub(crate) fingerprint: [u8; 32],
    pub(crate) fresh: Answer,
    /// The answer that was served; `None` for a miss, whose candidate is fetched.
    pub(crate) served: Option<Answer>,
    /// How the hit was drawn; `None` for a miss.
    pub(crate) drawn: Option<Drawn>,
    /// The entry that holds the fresh answer; `None` where it was not stored.
    pub(crate) stored: Option<EntryId>,
    /// Where the request went, for the books.
    pub(crate) route: String,
}

/// A label of one candidate.
pub(crate) struct Label<'a> {
    pub(crate) decision: DecisionId,
    pub(crate) category: Option<&'a str>,
    pub(crate) candidate: &'a CandidateRecord,
    pub(crate) right: bool,
    pub(crate) source: LabelSource,
    pub(crate) drawn: Option<Drawn>,
}

/// What others found wrong, as it came in with the shared state.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// Pairs that must not be served.
    pub(crate) wrong: Vec<(EntryId, [u8; 32])>,
    /// Entries that are exact only from now on.
    pub(crate) quarantined: Vec<EntryId>,
}

/// What has been learnt, for people.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LearningStats {
    /// Entries with labels.
    pub entries: usize,
    /// Entries that match exactly only, as two principals found them wrong.
    pub quarantined: usize,
    /// Entries in answer groups: what they answer was found to say the same.
    pub grouped: usize,
    /// Comparisons that wait.
    pub waiting: usize,
    /// Comparisons that found no room in the queue.
    pub dropped: u64,
    /// Comparisons that made no label, as nobody was sure.
    pub unsure: u64,
    /// Reports that were refused, as their principal had made too many.
    pub refused: u64,
    /// Lines of the decision log that found no room; `None` when there is none.
    pub log_dropped: Option<u64>,
    /// The categories by name; that of the default is empty.
    pub categories: BTreeMap<String, CategoryStats>,
}

/// What has been learnt of one category.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CategoryStats {
    /// Labels by source, right ones and wrong ones.
    pub labels: BTreeMap<&'static str, [u64; 2]>,
    /// The share of wrong hits, from all audits; `None` before the first.
    pub false_hits: Option<FalseHitRate>,
    /// The same less what labels get wrong; `None` without
    /// [`checked`](crate::config::AuditConfig::checked) labels.
    pub false_hits_corrected: Option<FalseHitRate>,
    /// Uniformly drawn audits since the breaker was last reset.
    pub uniform_audits: u64,
    /// An interval of the share of wrong hits among them that holds at 95 % however often it is looked at.
    pub false_hits_always: Option<(f64, f64)>,
    /// Evidence against the bound: the breaker trips at one over its false alarm probability.
    pub breaker_wealth: f64,
    /// Whether nothing is served by similarity.
    pub tripped: bool,
    /// How often the share of right answers in the grey band has changed.
    pub drifts: u64,
    /// Variance of the entries' shifts, in log-odds squared.
    pub variance: f64,
    /// What share of the right answers goes wrong in a day, as far as decisions heed it.
    pub hazard_per_day: f64,
}

/// What learns.
pub(crate) struct Learning {
    config: LearningConfig,
    file: Option<PathBuf>,
    judge: Option<JudgeHandle>,
    log: Option<DecisionLog>,
    tail: Tail,
    /// What lookups read.
    view: View,
    held: Mutex<Held>,
    recent: Recent,
    windows: Mutex<Windows>,
    /// Reports of one principal of one entry.
    voices: Mutex<Windows>,
    queue: mpsc::Sender<Comparison>,
    waiting: Mutex<Option<mpsc::Receiver<Comparison>>>,
    embedder: OnceLock<StaticEmbedder>,
    audits: Arc<Semaphore>,
    shares: bool,
    dropped: AtomicU64,
    unsure: AtomicU64,
    refused: AtomicU64,
    /// The file lacks something.
    dirty: AtomicBool,
    /// When the policy was last fitted anew, or tried to.
    recalibrated: Mutex<Option<Timestamp>>,
}

/// What labels change.
#[derive(Default)]
struct Held {
    state: State,
    /// What the shared state lacks.
    pending: Vec<Op>,
    /// Digest of the shared state when it was last read.
    seen: Option<[u8; 32]>,
}

impl fmt::Debug for Learning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Learning")
            .field("enabled", &self.config.enabled)
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

impl Learning {
    /// Begins with what `file` holds. A damaged file is told in a warning, and nothing is known then.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the decision log cannot be written.
    pub(crate) fn new(
        config: &LearningConfig,
        file: Option<PathBuf>,
        judge: Option<JudgeHandle>,
        shares: bool,
    ) -> Result<Self> {
        let (queue, waiting) = mpsc::channel(config.queue);
        let log = config.log.as_ref().map(DecisionLog::open).transpose()?;
        let state = file.as_deref().map_or_else(State::default, restored);
        let learning = Self {
            config: config.clone(),
            file,
            judge,
            log,
            tail: Tail::default(),
            view: View::default(),
            held: Mutex::default(),
            recent: Recent::default(),
            windows: Mutex::default(),
            voices: Mutex::default(),
            queue,
            waiting: Mutex::new(Some(waiting)),
            embedder: OnceLock::new(),
            audits: Arc::new(Semaphore::new(AUDITS_AT_ONCE)),
            shares,
            dropped: AtomicU64::new(0),
            unsure: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            dirty: AtomicBool::new(false),
            recalibrated: Mutex::default(),
        };
        learning.view.replace(&state, &learning.config);
        learning.held.lock().state = state;
        for (category, hazard) in &learning.config.freshness.hazard_per_day {
            learning
                .view
                .show_hazard(Category::named(category), *hazard);
        }
        learning.show_all();
        Ok(learning)
    }

    /// Whether decisions are worth keeping: something is learnt of them, or they are logged.
    pub(crate) fn listens(&self) -> bool {
        self.config.enabled || self.log.is_some() || self.tail.listens()
    }

    /// Keeps the last `room` decisions in memory, those at the end of the log for a beginning.
    pub(crate) fn keep_recent(&mut self, room: usize) {
        self.tail = Tail::new(room);
        if let Some(path) = self.log_path()
            && let Err(error) = self.tail.fill(path)
        {
            tracing::warn!(%error, "what was decided before is not known: the decision log cannot be read");
        }
    }

    /// The last decisions with their labels, oldest first.
    pub(crate) fn recent_decisions(&self) -> Vec<DecisionRecord> {
        self.tail.decisions()
    }

    /// Whether answers are compared.
    pub(crate) fn compares(&self) -> bool {
        self.config.enabled
    }

    // ---- what lookups ask ----

    /// What is known of an entry.
    pub(crate) fn standing(&self, entry: EntryId, now: Timestamp) -> Standing {
        self.view
            .standing(entry, now, self.config.retention_per_day)
    }

    /// What share of the right answers of a category goes wrong in a day.
    pub(crate) fn hazard(&self, category: Category) -> f32 {
        self.view.hazard(category)
    }

    /// Whether an entry matches exactly only.
    pub(crate) fn quarantined(&self, entry: EntryId) -> bool {
        self.view.quarantined(entry)
    }

    /// Whether a category may serve by similarity.
    pub(crate) fn serves(&self, category: Category) -> bool {
        self.view.serves(category)
    }

    // ---- what lookups tell ----

    /// Logs a decision, and keeps what was served for the reports that may come.
    pub(crate) fn note(&self, decision: &DecisionRecord, query: [u8; 32]) -> DecisionId {
        let id = rand::random();
        if let Some(log) = &self.log {
            log.decision(id, decision);
        }
        self.tail.decision(id, decision);
        let served = decision.served.and_then(|served| {
            let mut candidates = decision.candidates.iter();
            candidates.find(|candidate| candidate.entry == served)
        });
        if let Some(candidate) = served {
            self.recent
                .keep(query, id, *candidate, decision.category.clone());
        }
        id
    }

    /// The candidate of a miss that is worth comparing with the fresh answer.
    pub(crate) fn promising<'a>(
        &self,
        decision: &'a DecisionRecord,
        policy: &dyn HitPolicy,
    ) -> Option<&'a CandidateRecord> {
        if !self.config.enabled {
            return None;
        }
        let least = self.config.least_probability;
        let told = |candidate: &&CandidateRecord| probability(policy, &candidate.evidence);
        let best = decision.candidates.iter().max_by(|one, other| {
            let [one, other] = [one, other].map(|candidate| {
                (
                    told(candidate).unwrap_or(0.0),
                    candidate.evidence.similarity,
                )
            });
            one.0.total_cmp(&other.0).then(one.1.total_cmp(&other.1))
        })?;
        told(&best).is_none_or(|p| p >= least).then_some(best)
    }

    /// Whether a hit of this probability is audited, and the budget allows for it.
    pub(crate) fn draw(&self, probability: Option<f64>, now: Timestamp) -> Option<Drawn> {
        let audit = &self.config.audit;
        if !self.config.enabled || !audit.enabled {
            return None;
        }
        let drawn = audit::draw(audit, probability, rand::random())?;
        self.may_spend(Purse::Audits, now).then_some(drawn)
    }

    /// The right to make the call of an audit now.
    pub(crate) fn turn_to_audit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.audits).try_acquire_owned().ok()
    }

    /// Puts a comparison into the queue, or drops it.
    pub(crate) fn offer(&self, comparison: Comparison) {
        if self.queue.try_send(comparison).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            observe::learning_dropped();
        }
    }

    /// The other end of the queue, once.
    pub(crate) fn take_queue(&self) -> Option<mpsc::Receiver<Comparison>> {
        self.waiting.lock().take()
    }

    // ---- labels ----

    /// Compares two answers, by cheap means and then by the judge. `stored_query` is what the stored answer
    /// was given to. With it what the judge cost, in dollars, if it was asked.
    pub(crate) async fn agreement(
        &self,
        comparison: &Comparison,
        stored: &Answer,
        stored_query: &str,
        now: Timestamp,
    ) -> (Agreement, Option<f64>) {
        let embedder = self.embedder.get_or_init(StaticEmbedder::builtin);
        let cheap = compare::compare(&comparison.fresh, stored, embedder);
        if cheap != Agreement::Unsure {
            return (cheap, None);
        }
        let Some(judge) = &self.judge else {
            return (cheap, None);
        };
        if !self.may_spend(Purse::Judge, now) {
            return (cheap, None);
        }
        let question = JudgeQuestion {
            query: comparison.query.clone(),
            stored_query: stored_query.to_owned(),
            stored_answer: stored.words().into_owned(),
            fresh_answer: comparison.fresh.words().into_owned(),
        };
        let judged = tokio::time::timeout(self.config.judge.timeout, judge.judge(&question)).await;
        let (agreement, usd) = match judged {
            Ok(Ok(judgement)) => (judgement.agreement, judgement.usd),
            Ok(Err(error)) => {
                tracing::debug!(%error, "the judge failed: no label");
                (Agreement::Unsure, 0.0)
            }
            Err(_) => {
                tracing::debug!("the judge did not answer in time: no label");
                (Agreement::Unsure, 0.0)
            }
        };
        // A call that failed was made all the same.
        self.charge(Purse::Judge, 1, usd, now);
        (agreement, Some(usd))
    }

    /// Notes that a comparison made no label.
    pub(crate) fn unsure(&self) {
        self.unsure.fetch_add(1, Ordering::Relaxed);
        observe::learning_unsure();
    }

    /// Takes in a label.
    pub(crate) fn learn(&self, label: &Label<'_>, policy: &dyn HitPolicy, now: Timestamp) {
        let Label {
            decision,
            category,
            candidate,
            right,
            source,
            drawn,
        } = *label;
        let category = category.unwrap_or_default().to_owned();
        observe::label(source.as_str(), right);
        let logged = LoggedLabel {
            entry: candidate.entry,
            right,
            source,
            weight: drawn.map_or(1.0, |drawn| 1.0 / drawn.probability),
            at: now.as_millis(),
        };
        if let Some(log) = &self.log {
            log.label(decision, logged);
        }
        self.tail.label(decision, &logged);
        let without = Evidence {
            record: EntryRecord::default(),
            ..candidate.evidence
        };
        let p = probability(policy, &without).unwrap_or(0.5);
        let weight = match source {
            LabelSource::Feedback => self.config.feedback.weight,
            _ => 1.0,
        };
        let shift = f64::from(self.standing(candidate.entry, now).record.shift);
        let op = Op::Label {
            entry: candidate.entry,
            category: category.clone(),
            step: Step::new(posterior::log_odds(p), shift, right, weight),
            source,
            right,
            grey: source != LabelSource::Feedback && (0.2..0.8).contains(&p),
            at: now,
        };
        if self.apply(op).drifted {
            tracing::warn!(
                category,
                "the share of right answers in the grey band has changed"
            );
        }
        if let Some(drawn) = drawn {
            let op = Op::Audit {
                category: category.clone(),
                wrong: !right,
                weight: 1.0 / drawn.probability,
                uniform: drawn.uniform,
                age: candidate.evidence.age,
                at: now,
            };
            if self.apply(op).tripped {
                tracing::error!(
                    category,
                    bound = self.config.breaker.bound,
                    "too many hits were wrong: nothing is served by similarity until the breaker is reset"
                );
            }
        }
        self.show(&category);
    }

    /// Notes that two entries give one answer, which is not done for entries that were found wrong. `true`
    /// when it was.
    pub(crate) fn merge(&self, one: EntryId, other: EntryId, now: Timestamp) -> bool {
        let op = Op::Merge {
            one,
            other,
            at: now,
        };
        self.apply(op).merged
    }

    /// Whether a report of `principal` is taken; one that the application vouches for is always.
    pub(crate) fn admits(&self, principal: Option<&str>, now: Timestamp) -> bool {
        let Some(principal) = principal else {
            return true;
        };
        let feedback = &self.config.feedback;
        let admitted = self.windows.lock().admit(
            digest(principal),
            now,
            feedback.per_principal,
            feedback.window,
        );
        if !admitted {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }

    /// Takes in a report that a hit was right or wrong, as a label. Without the query, of its last hit. A
    /// principal has one voice in an entry within the window, lest it talk the entry up or down alone.
    pub(crate) fn reported(
        &self,
        entry: EntryId,
        report: Report<'_>,
        policy: &dyn HitPolicy,
        now: Timestamp,
    ) {
        let Report {
            query,
            right,
            principal,
        } = report;
        if !self.config.enabled {
            return;
        }
        if let Some(principal) = principal {
            let voice = digest(principal) ^ entry.get();
            let window = self.config.feedback.window;
            if !self.voices.lock().admit(voice, now, 1, window) {
                return;
            }
        }
        if let Some(hit) = self.recent.find(entry, query) {
            let label = Label {
                decision: hit.decision,
                category: hit.category.as_deref(),
                candidate: &hit.candidate,
                right,
                source: LabelSource::Feedback,
                drawn: None,
            };
            self.learn(&label, policy, now);
            return;
        }
        observe::label(LabelSource::Feedback.as_str(), right);
        let shift = f64::from(self.standing(entry, now).record.shift);
        let log_odds = posterior::log_odds(TYPICAL_HIT);
        self.apply(Op::Label {
            entry,
            category: String::new(),
            step: Step::new(log_odds, shift, right, self.config.feedback.weight),
            source: LabelSource::Feedback,
            right,
            grey: false,
            at: now,
        });
    }

    /// Notes that a hit was wrong, by `principal` or by an audit; `true` when the entry is quarantined by it.
    pub(crate) fn accuse(
        &self,
        entry: EntryId,
        query: [u8; 32],
        accuser: Accuser<'_>,
        now: Timestamp,
    ) -> bool {
        let accuser = match accuser {
            Accuser::Audit => AUDITOR,
            Accuser::Caller(None) => SOMEBODY,
            Accuser::Caller(Some(principal)) => digest(principal),
        };
        let op = Op::Wrong {
            entry,
            query,
            accuser,
            at: now,
        };
        self.apply(op).quarantined
    }

    fn may_spend(&self, purse: Purse, now: Timestamp) -> bool {
        let (calls, usd) = match purse {
            Purse::Audits => (
                self.config.audit.calls_per_day,
                self.config.audit.usd_per_day,
            ),
            Purse::Judge => (
                self.config.judge.calls_per_day,
                self.config.judge.usd_per_day,
            ),
        };
        let held = self.held.lock();
        let spent = held.state.spent.get(&purse).copied().unwrap_or_default();
        spent.allows(now, calls, usd)
    }

    /// Takes calls and dollars off a day's budget.
    pub(crate) fn charge(&self, purse: Purse, calls: u64, usd: f64, now: Timestamp) {
        self.apply(Op::Spent {
            purse,
            calls,
            usd,
            at: now,
        });
    }

    /// Lets categories serve by similarity again: one, or all.
    pub(crate) fn reset(&self, category: Option<&str>) {
        let category = category.map(str::to_owned);
        self.apply(Op::Reset { category });
        self.show_all();
    }

    /// An entry is gone.
    pub(crate) fn forget(&self, entry: EntryId) {
        if self.view.forget(entry) {
            let mut held = self.held.lock();
            held.state.records.remove(&entry);
            held.state.accused.remove(&entry);
            held.state.groups.remove(&entry);
            self.dirty.store(true, Ordering::Relaxed);
        }
    }

    /// Pairs that must not be served, as this process or those before it were told.
    pub(crate) fn wrong_pairs(&self) -> Vec<(EntryId, Vec<[u8; 32]>)> {
        let held = self.held.lock();
        let accused = held.state.accused.iter();
        accused
            .map(|(entry, accused)| (*entry, accused.queries.clone()))
            .collect()
    }

    fn apply(&self, op: Op) -> Effect {
        let mut held = self.held.lock();
        // A group may end with the operation, or begin.
        let mut touched = held.state.touched(&op);
        let effect = held.state.apply(&op, &self.config);
        touched.extend(held.state.touched(&op));
        touched.sort_unstable();
        touched.dedup();
        self.view.follow(&op, &touched, &held.state, &self.config);
        if self.shares {
            if held.pending.len() >= MOST_PENDING {
                held.pending.drain(..MOST_PENDING / 8);
            }
            held.pending.push(op);
        }
        self.dirty.store(true, Ordering::Relaxed);
        effect
    }

    /// Shows what is known of all categories.
    fn show_all(&self) {
        let names: Vec<_> = self.held.lock().state.categories.keys().cloned().collect();
        for name in names {
            self.show(&name);
        }
    }

    /// Shows what is known of a category.
    fn show(&self, category: &str) {
        let held = self.held.lock();
        let Some(state) = held.state.categories.get(category) else {
            return;
        };
        if let Some(rate) = state.audits.rate() {
            let rate = self.corrected(rate).unwrap_or(rate);
            observe::false_hit_rate(category, rate.rate, rate.lower, rate.upper);
        }
        observe::similarity_breaker(category, state.tripped);
        let freshness = &self.config.freshness;
        if freshness.estimate && !freshness.hazard_per_day.contains_key(category) {
            let ages = held.state.ages.get(category).copied();
            drop(held);
            let hazard = ages.and_then(|ages| ages.hazard());
            self.view
                .show_hazard(Category::named(category), hazard.unwrap_or(0.0));
        }
    }

    /// A share of wrong hits less what labels get wrong, where that is known.
    fn corrected(&self, rate: FalseHitRate) -> Option<FalseHitRate> {
        let checked = self.config.audit.checked.as_ref()?;
        Some(rate.corrected(checked))
    }

    /// What has been learnt.
    pub(crate) fn stats(&self) -> LearningStats {
        let held = self.held.lock();
        let categories = held.state.categories.iter();
        let quarantined = held
            .state
            .accused
            .values()
            .filter(|accused| accused.quarantined());
        LearningStats {
            entries: held.state.records.len(),
            quarantined: quarantined.count(),
            grouped: held.state.groups.len(),
            waiting: self.queue.max_capacity() - self.queue.capacity(),
            dropped: self.dropped.load(Ordering::Relaxed),
            unsure: self.unsure.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            log_dropped: self.log.as_ref().map(DecisionLog::dropped),
            categories: categories
                .map(|(name, state)| (name.clone(), self.stats_of(name, state)))
                .collect(),
        }
    }

    fn stats_of(&self, name: &str, state: &CategoryState) -> CategoryStats {
        let labels = state.labels.iter();
        let always = || estimate::always(state.uniform_wrong, state.uniform, 0.05);
        CategoryStats {
            labels: labels
                .map(|(source, counts)| (source.as_str(), [counts.right, counts.wrong]))
                .collect(),
            false_hits: state.audits.rate(),
            false_hits_corrected: state.audits.rate().and_then(|rate| self.corrected(rate)),
            uniform_audits: state.uniform,
            false_hits_always: (state.uniform > 0).then(always),
            breaker_wealth: state.breaker.wealth(),
            tripped: state.tripped,
            drifts: state.drifts,
            variance: state.spread.variance(self.config.prior_variance),
            hazard_per_day: f64::from(self.view.hazard(Category::named(name))),
        }
    }

    /// The decision log's file, where there is one.
    pub(crate) fn log_path(&self) -> Option<&Path> {
        self.config.log.as_ref().map(|log| log.path.as_path())
    }

    /// Keeps what came of fitting the policy anew for those who ask and for a later process, where a file is
    /// named. Blocks.
    ///
    /// # Errors
    /// [`ErrorKind::BackendUnavailable`] when a file cannot be written.
    pub(crate) fn keep_policy(
        &self,
        policy: Option<&PolicyFile>,
        report: &RecalibrationReport,
    ) -> Result<()> {
        let Some(path) = &self.config.recalibrated_path else {
            return Ok(());
        };
        if let Some(policy) = policy {
            kept_policy::keep(path, policy)?;
        }
        kept_policy::report(path, report)
    }

    /// Whether the policy is to be fitted anew now, which is then taken as done. The first time is at once.
    pub(crate) fn recalibration_is_due(&self, now: Timestamp) -> bool {
        let Some(every) = self.config.recalibrate_every else {
            return false;
        };
        let mut last = self.recalibrated.lock();
        let due = last.is_none_or(|last| now.since(last) >= every);
        if due {
            *last = Some(now);
        }
        due
    }

    // ---- what outlives the process ----

    /// Writes what was learnt to its file, if it lacks something, and the log to the end. Blocks.
    ///
    /// # Errors
    /// [`ErrorKind::BackendUnavailable`] when a file cannot be written.
    pub(crate) fn save(&self) -> Result<bool> {
        if let Some(log) = &self.log {
            log.flush()?;
        }
        let Some(file) = &self.file else {
            return Ok(false);
        };
        if !self.dirty.swap(false, Ordering::Relaxed) {
            return Ok(true);
        }
        let bytes = self.held.lock().state.encode()?;
        write_whole(file, &bytes).map_err(|error| {
            self.dirty.store(true, Ordering::Relaxed);
            Error::new(
                ErrorKind::BackendUnavailable,
                "what was learnt was not written",
            )
            .with("path", file.display())
            .caused_by(error)
        })?;
        Ok(true)
    }

    /// Adds what was learnt here to what lies in a shared tier, and takes on what others added.
    ///
    /// # Errors
    /// Those of the tier; [`ErrorKind::Corrupt`] when what lies there cannot be read, which leaves it as
    /// it is. What was to be added waits for the next time.
    pub(crate) async fn exchange(&self, tier: &impl CacheBackend, now: Timestamp) -> Result<News> {
        if !self.config.enabled {
            return Ok(News::default());
        }
        for _ in 0..TRIES {
            let lies = tier.get(SHARED_KEY).await?.map(|value| value.bytes);
            let digest = lies.as_ref().map(|bytes| *blake3::hash(bytes).as_bytes());
            let (mut state, pending) = {
                let held = self.held.lock();
                if held.pending.is_empty() && digest.is_some() && digest == held.seen {
                    return Ok(News::default());
                }
                let pending = held.pending.clone();
                match &lies {
                    Some(bytes) => (State::decode(bytes)?, pending),
                    // Nobody was here before: what is known is the beginning, and all of it is in there.
                    None => (held.state.clone(), pending),
                }
            };
            if lies.is_some() {
                for op in &pending {
                    state.apply(op, &self.config);
                }
            }
            let mut digest = digest;
            if !pending.is_empty() || lies.is_none() {
                let bytes = Bytes::from(state.encode()?);
                digest = Some(*blake3::hash(&bytes).as_bytes());
                let condition = match &lies {
                    Some(lies) => Condition::Equals(lies),
                    None => Condition::Absent,
                };
                let until = Some(now.after(SHARED_LIFE));
                if !tier.set_if(SHARED_KEY, bytes, until, condition).await? {
                    continue;
                }
            }
            return Ok(self.adopt(state, pending.len(), digest));
        }
        Err(Error::new(
            ErrorKind::BackendUnavailable,
            "too many processes tell what they learnt at the same time",
        ))
    }

    /// Takes on a shared state that holds the first `told` pending operations.
    fn adopt(&self, mut state: State, told: usize, digest: Option<[u8; 32]>) -> News {
        let mut held = self.held.lock();
        let told = told.min(held.pending.len());
        held.pending.drain(..told);
        for op in &held.pending {
            state.apply(op, &self.config);
        }
        let mut news = News::default();
        for (entry, accused) in &state.accused {
            let before = held.state.accused.get(entry);
            let knew =
                |query: &&[u8; 32]| before.is_none_or(|before| !before.queries.contains(query));
            let queries = accused.queries.iter().filter(knew);
            news.wrong.extend(queries.map(|query| (*entry, *query)));
            let was = before.is_some_and(state::Accused::quarantined);
            if accused.quarantined() && !was {
                news.quarantined.push(*entry);
            }
        }
        self.view.replace(&state, &self.config);
        held.state = state;
        held.seen = digest;
        self.dirty.store(true, Ordering::Relaxed);
        drop(held);
        self.show_all();
        news
    }
}

/// What a caller says of a hit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report<'a> {
    /// Fingerprint of the query that was answered, if it was told.
    pub(crate) query: Option<[u8; 32]>,
    pub(crate) right: bool,
    /// Who says so; `None` when the application vouches for it.
    pub(crate) principal: Option<&'a str>,
}

/// Who found a hit wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Accuser<'a> {
    Audit,
    /// A caller, by name if it is known.
    Caller(Option<&'a str>),
}

fn digest(principal: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(principal.as_bytes())
}

/// The policy's probability that a candidate is right, with no further cosine.
fn probability(policy: &dyn HitPolicy, evidence: &Evidence) -> Option<f64> {
    let evidence = Evidence {
        can_refine: false,
        ..*evidence
    };
    match policy.decide(&evidence) {
        Decision::Serve { probability, .. }
        | Decision::Refine { probability }
        | Decision::Pass { probability, .. } => probability,
    }
}

fn restored(file: &Path) -> State {
    let bytes = match fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return State::default(),
        Err(error) => {
            tracing::warn!(%error, path = %file.display(), "what was learnt cannot be read: nothing is known");
            return State::default();
        }
    };
    State::decode(&bytes).unwrap_or_else(|error| {
        tracing::warn!(%error, path = %file.display(), "what was learnt cannot be read: nothing is known");
        State::default()
    })
}

#[cfg(test)]
mod tests;
