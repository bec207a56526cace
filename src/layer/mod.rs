//! What stands around a backend, in the one right order.
//!
//! ```text
//! caller -> metrics, events -> deadline -> retry -> breaker -> backend
//! ```
//!
//! [`Layered`] is a [`CacheBackend`] around another. Every operation goes through one function
//! (`Layered::run`), so that no operation can be forgotten:
//!
//! - **Metrics and events** see what the caller sees: one operation, its outcome, its whole duration.
//! - The **deadline** bounds all attempts and the waits between them. What it cuts off is a failure of
//!   the backend, unlike a caller that goes away.
//! - A **retry** waits with jittered exponential backoff. Only failures that say so are tried again, a
//!   timeout never (a store that hangs is not quicker the second time), and only operations that may
//!   happen twice: after a failure nobody knows whether a counter was incremented.
//! - The **breaker** is innermost, so that it sees every attempt and stops the attempts of an operation
//!   that is under way. Reads and writes have one each: a full or read-only store still reads.
//!
//! A backend in this process has the first layer only: it does not fail in ways that the others help
//! against. Falling back to another tier when one fails is [`crate::tier`]'s.
//!
//! Always true: an operation that the breaker refuses does not reach the backend, ends at once, and is an
//! [`ErrorKind::BackendUnavailable`] error that is not retryable.

mod breaker;
mod config;
mod latency;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use parking_lot::Mutex;
use serde::Serialize;

use crate::backend::{
    BackendHandle, BackendUsage, BoxFuture, CacheBackend, Capability, Condition, Cursor,
    FeedHandle, Glob, KeyPage, ServerFacts, StoredValue, Write,
};
use crate::clock::{ClockHandle, SystemClock, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Events};
use crate::observe::{self, TierMeters};

use breaker::{Breaker, Verdict};

pub use crate::event::BreakerState;
pub use config::{BreakerConfig, LayerConfig};
pub use latency::Latency;

/// What is asked of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Get,
    GetMany,
    Set,
    SetMany,
    Delete,
    DeleteMany,
    SetIf,
    DeleteIf,
    Take,
    Touch,
    Increment,
    Scan,
    DeleteMatching,
    Clear,
    Usage,
    Ping,
}

impl Operation {
    const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::GetMany => "get_many",
            Self::Set => "set",
            Self::SetMany => "set_many",
            Self::Delete => "delete",
            Self::DeleteMany => "delete_many",
            Self::SetIf => "set_if",
            Self::DeleteIf => "delete_if",
            Self::Take => "take",
            Self::Touch => "touch",
            Self::Increment => "increment",
            Self::Scan => "scan",
            Self::DeleteMatching => "delete_matching",
            Self::Clear => "clear",
            Self::Usage => "usage",
            Self::Ping => "ping",
        }
    }

    /// Whether it leaves the same state when it happens twice.
    const fn may_repeat(self) -> bool {
        !matches!(
            self,
            Self::SetIf | Self::DeleteIf | Self::Take | Self::Increment
        )
    }

    const fn writes(self) -> bool {
        !matches!(
            self,
            Self::Get | Self::GetMany | Self::Scan | Self::Usage | Self::Ping
        )
    }

    /// Whether it goes through all keys, and takes as long as there are keys.
    const fn sweeps(self) -> bool {
        matches!(
            self,
            Self::Scan | Self::DeleteMatching | Self::Clear | Self::Usage
        )
    }
}

/// What an operation gives: a result, or one for each item of a batch.
trait Reply: Send {
    /// A reply of `items` that all met the same error.
    fn refused(error: Error, items: usize) -> Self;
    /// The error that stands for the whole: of a batch, the first, and only if every item failed.
    fn failure(&self) -> Option<&Error>;
}

impl<T: Send> Reply for Result<T> {
    fn refused(error: Error, _: usize) -> Self {
        Err(error)
    }

    fn failure(&self) -> Option<&Error> {
        self.as_ref().err()
    }
}

impl<T: Send> Reply for Vec<Result<T>> {
    fn refused(error: Error, items: usize) -> Self {
        (0..items).map(|_| Err(error.clone())).collect()
    }

    fn failure(&self) -> Option<&Error> {
        if self.iter().any(Result::is_ok) {
            return None;
        }
        self.first()?.as_ref().err()
    }
}

/// Counts of what went through a [`Layered`], since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LayerCounts {
    /// Keys asked for that had a live value. Those of batches count one by one.
    pub hits: u64,
    /// Keys asked for that had none.
    pub misses: u64,
    /// Values stored.
    pub sets: u64,
    /// Live values that were deleted.
    pub deletes: u64,
    /// Operations, or items of batches, that failed after all their attempts, refused ones included.
    pub errors: u64,
    /// Attempts after the first.
    pub retries: u64,
    /// Attempts that a breaker refused.
    pub refused: u64,
}

impl LayerCounts {
    /// Share of the keys asked for that had a live value, 0 to 1; `None` before the first was asked for.
    /// Failed reads are neither.
    #[must_use]
    pub fn hit_rate(&self) -> Option<f64> {
        let asked = self.hits + self.misses;
        (asked > 0).then(|| self.hits as f64 / asked as f64)
    }
}

#[derive(Debug, Default)]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    sets: AtomicU64,
    deletes: AtomicU64,
    errors: AtomicU64,
    retries: AtomicU64,
    refused: AtomicU64,
}

/// A failure that has been seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LastError {
    /// What kind it was.
    #[serde(serialize_with = "kind_name")]
    pub kind: ErrorKind,
    /// In which operation.
    pub operation: &'static str,
    /// When.
    pub at: Timestamp,
}

fn kind_name<S: serde::Serializer>(kind: &ErrorKind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind.as_str())
}

/// How the breakers of a backend stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BreakerStates {
    /// The breaker of reads.
    pub read: BreakerState,
    /// The breaker of writes.
    pub write: BreakerState,
}

/// Builds a [`Layered`].
#[derive(Debug)]
pub struct LayeredBuilder {
    backend: BackendHandle,
    config: LayerConfig,
    clock: ClockHandle,
    events: Events,
    metrics: bool,
}

impl LayeredBuilder {
    /// The settings of the layers. Default: [`LayerConfig::default`]. Without use for a backend in this
    /// process.
    #[must_use]
    pub fn config(mut self, config: LayerConfig) -> Self {
        self.config = config;
        self
    }

    /// The clock of the breakers. Default: the system clock.
    #[must_use]
    pub fn clock(mut self, clock: ClockHandle) -> Self {
        self.clock = clock;
        self
    }

    /// Where to tell what happens. Default: a stream that nobody can subscribe to.
    #[must_use]
    pub fn events(mut self, events: Events) -> Self {
        self.events = events;
        self
    }

    /// Whether operations are counted and timed in metrics. Default: true. [`Layered::counts`] counts either
    /// way.
    #[must_use]
    pub fn metrics(mut self, metrics: bool) -> Self {
        self.metrics = metrics;
        self
    }

    /// The backend in its layers.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when a setting is out of range.
    pub fn build(self) -> Result<Layered> {
        self.config.validate("layers")?;
        let config = self.config.for_timeout(None);
        let tier: Arc<str> = Arc::from(self.backend.name());
        let outside = !self.backend.capability().in_process;
        let breaker = |path| {
            let clock = Arc::clone(&self.clock);
            Guard {
                breaker: Breaker::new(config.breaker.clone(), clock),
                path,
            }
        };
        let guards = (outside && config.breaker.enabled).then(|| Guards {
            read: breaker("read"),
            write: breaker("write"),
        });
        Ok(Layered {
            backend: self.backend,
            tier,
            guards,
            config: outside.then_some(config),
            clock: self.clock,
            events: self.events,
            metrics: self.metrics,
            meters: TierMeters::default(),
            counters: Counters::default(),
            latency: latency::Histogram::default(),
            last_error: Mutex::default(),
            is_down: AtomicBool::new(false),
        })
    }
}

/// A backend in its layers; see the [module](self).
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use askonce::backend::{MemoryBackend, MemoryConfig};
/// use askonce::layer::{LayerConfig, Layered};
///
/// # fn main() -> askonce::Result<()> {
/// # let store = MemoryBackend::builder(MemoryConfig::default()).build()?;
/// let layered = Layered::builder(Arc::new(store))
///     .config(LayerConfig {
///         deadline: Some(Duration::from_millis(300)),
///         ..LayerConfig::default()
///     })
///     .build()?;
/// # Ok(())
/// # }
/// ```
pub struct Layered {
    backend: BackendHandle,
    tier: Arc<str>,
    /// `None` for a backend in this process.
    config: Option<LayerConfig>,
    guards: Option<Guards>,
    clock: ClockHandle,
    events: Events,
    /// Whether metrics are told.
    metrics: bool,
    meters: TierMeters,
    counters: Counters,
    latency: latency::Histogram,
    last_error: Mutex<Option<LastError>>,
    /// The store itself failed last.
    is_down: AtomicBool,
}

#[derive(Debug)]
struct Guards {
    read: Guard,
    write: Guard,
}

#[derive(Debug)]
struct Guard {
    breaker: Breaker,
    path: &'static str,
}

impl fmt::Debug for Layered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layered")
            .field("backend", &self.backend)
            .field("breakers", &self.breakers())
            .finish_non_exhaustive()
    }
}

/// Whether it is the store that failed, and not the request or what is stored.
fn is_outage(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::BackendUnavailable | ErrorKind::Timeout
    )
}

fn add(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Ordering::Relaxed);
}

impl Layered {
    /// A builder for layers around `backend`.
    #[must_use]
    pub fn builder(backend: BackendHandle) -> LayeredBuilder {
        LayeredBuilder {
            backend,
            config: LayerConfig::default(),
            clock: Arc::new(SystemClock),
            events: Events::default(),
            metrics: true,
        }
    }

    /// Counts since it was made.
    #[must_use]
    pub fn counts(&self) -> LayerCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        LayerCounts {
            hits: read(&counters.hits),
            misses: read(&counters.misses),
            sets: read(&counters.sets),
            deletes: read(&counters.deletes),
            errors: read(&counters.errors),
            retries: read(&counters.retries),
            refused: read(&counters.refused),
        }
    }

    /// How long operations took, all attempts together; `None` before the first.
    #[must_use]
    pub fn latency(&self) -> Option<Latency> {
        self.latency.summary()
    }

    /// How the breakers stand; `None` where there are none.
    #[must_use]
    pub fn breakers(&self) -> Option<BreakerStates> {
        let guards = self.guards.as_ref()?;
        Some(BreakerStates {
            read: guards.read.breaker.state(),
            write: guards.write.breaker.state(),
        })
    }

    /// Why a breaker is not closed, as a kind of error or `slow`.
    #[must_use]
    pub fn breaker_reason(&self) -> Option<&'static str> {
        let guards = self.guards.as_ref()?;
        let read = guards.read.breaker.reason();
        read.or_else(|| guards.write.breaker.reason())
    }

    /// The last failure of the store that was seen, however long ago.
    #[must_use]
    pub fn last_error(&self) -> Option<LastError> {
        *self.last_error.lock()
    }

    /// Makes one operation of up to all attempts, and accounts for it.
    async fn run<'a, R: Reply>(
        &'a self,
        operation: Operation,
        items: usize,
        attempt: impl Fn() -> BoxFuture<'a, R> + Send + Sync,
        outcome: impl Fn(&R) -> &'static str + Send + Sync,
    ) -> R {
        let started = Instant::now();
        let reply = match &self.config {
            None => attempt().await,
            Some(config) => self.attempts(config, operation, items, attempt).await,
        };
        let label = match reply.failure() {
            Some(error) => {
                let kind = error.kind();
                let tier = &self.tier;
                self.events.emit(|_| Event::Failed {
                    tier: Arc::clone(tier),
                    operation: operation.name(),
                    kind,
                });
                kind.as_str()
            }
            None => outcome(&reply),
        };
        let took = started.elapsed();
        self.latency.record(took);
        if self.metrics {
            self.meters
                .operation(&self.tier, operation.name(), label, took);
        }
        reply
    }

    /// Deadline and retry.
    async fn attempts<'a, R: Reply>(
        &'a self,
        config: &LayerConfig,
        operation: Operation,
        items: usize,
        attempt: impl Fn() -> BoxFuture<'a, R> + Send + Sync,
    ) -> R {
        // Timers run on the runtime's time, which tests can pause: not on the clock that decides expiry.
        let deadline = config
            .deadline
            .filter(|_| !operation.sweeps())
            .map(|deadline| tokio::time::Instant::now() + deadline);
        let retries = if operation.may_repeat() {
            config.retries
        } else {
            0
        };
        let mut waits = ExponentialBuilder::new()
            .with_min_delay(config.retry_base)
            .with_max_times(retries)
            .with_jitter()
            .build();
        loop {
            let reply = self.attempt(operation, items, deadline, attempt()).await;
            let again = reply
                .failure()
                .is_some_and(|error| error.is_retryable() && error.kind() != ErrorKind::Timeout);
            let Some(wait) = waits.next().filter(|_| again) else {
                return reply;
            };
            let due = tokio::time::Instant::now() + wait;
            if deadline.is_some_and(|deadline| due >= deadline) {
                return reply;
            }
            tokio::time::sleep_until(due).await;
            add(&self.counters.retries, 1);
            if self.metrics {
                observe::backend_retry(&self.tier, operation.name());
            }
        }
    }

    /// One attempt through the breaker.
    async fn attempt<R: Reply>(
        &self,
        operation: Operation,
        items: usize,
        deadline: Option<tokio::time::Instant>,
        attempt: BoxFuture<'_, R>,
    ) -> R {
        let guard = self.guards.as_ref().map(|guards| {
            if operation.writes() {
                &guards.write
            } else {
                &guards.read
            }
        });
        // Asking whether the store is there is what finds out that it is.
        let guard = guard.filter(|_| operation != Operation::Ping);
        let permit = match guard {
            None => None,
            Some(guard) => {
                let (permit, changed) = guard.breaker.admit();
                self.announce(guard, changed);
                match permit {
                    Ok(permit) => Some((guard, permit)),
                    Err(refused) => {
                        add(&self.counters.refused, 1);
                        let error =
                            Error::new(ErrorKind::BackendUnavailable, "the breaker is open")
                                .with("tier", &self.tier)
                                .with("operation", operation.name())
                                .with("reason", refused.reason)
                                .with("retry in", format!("{:?}", refused.retry_in));
                        return R::refused(error, items);
                    }
                }
            }
        };
        let reply = match deadline {
            None => attempt.await,
            Some(deadline) => match tokio::time::timeout_at(deadline, attempt).await {
                Ok(reply) => reply,
                Err(_) => R::refused(self.too_late(operation), items),
            },
        };
        let outage = reply.failure().filter(|error| is_outage(error));
        let verdict = match outage {
            Some(error) => Verdict::Failed(error.kind().as_str()),
            None => Verdict::Answered,
        };
        self.note(operation, outage);
        if let Some((guard, permit)) = permit {
            let changed = permit.finish(verdict, !operation.sweeps());
            self.announce(guard, changed);
            if changed == Some(BreakerState::Closed) {
                self.works();
            }
        } else if operation == Operation::Ping && verdict == Verdict::Answered {
            self.works();
        }
        reply
    }

    /// The store works: what is open need not wait any longer to find out.
    fn works(&self) {
        let Some(Guards { read, write }) = &self.guards else {
            return;
        };
        for guard in [read, write] {
            self.announce(guard, guard.breaker.hint());
        }
    }

    fn too_late(&self, operation: Operation) -> Error {
        Error::new(ErrorKind::Timeout, "the tier did not answer in time")
            .with("tier", &self.tier)
            .with("operation", operation.name())
            .retryable()
    }

    /// Remembers how the store did.
    fn note(&self, operation: Operation, outage: Option<&Error>) {
        let Some(error) = outage else {
            // Looked at first: the flag is written to only when it changes.
            if self.is_down.load(Ordering::Relaxed) && self.is_down.swap(false, Ordering::Relaxed) {
                self.events.emit(|_| Event::Reconnected {
                    tier: Arc::clone(&self.tier),
                });
            }
            return;
        };
        self.is_down.store(true, Ordering::Relaxed);
        *self.last_error.lock() = Some(LastError {
            kind: error.kind(),
            operation: operation.name(),
            at: self.clock.now(),
        });
    }

    fn announce(&self, guard: &Guard, changed: Option<BreakerState>) {
        let Some(state) = changed else { return };
        let Guard { breaker, path } = guard;
        let tier = &*self.tier;
        let reason = breaker.reason().unwrap_or_default();
        match state {
            BreakerState::Open => {
                tracing::warn!(tier, path, reason, "breaker opened: the tier is left alone");
            }
            BreakerState::HalfOpen => tracing::debug!(tier, path, "breaker lets probes through"),
            BreakerState::Closed => tracing::info!(tier, path, "breaker closed: the tier works"),
        }
        let value = match state {
            BreakerState::Closed => 0.0,
            BreakerState::HalfOpen => 1.0,
            BreakerState::Open => 2.0,
        };
        if self.metrics {
            observe::breaker_state(&self.tier, path, value);
        }
        self.events.emit(|_| Event::BreakerChanged {
            tier: Arc::clone(&self.tier),
            path,
            state,
        });
    }

    /// Accounts for a key that was asked for.
    fn read<'r>(
        &self,
        key: &[u8],
        result: &'r Result<Option<StoredValue>>,
    ) -> Option<&'r StoredValue> {
        let tier = &self.tier;
        match result {
            Ok(Some(held)) => {
                add(&self.counters.hits, 1);
                self.events.emit(|events| Event::Hit {
                    tier: Arc::clone(tier),
                    key: events.digest(key),
                });
                Some(held)
            }
            Ok(None) => {
                add(&self.counters.misses, 1);
                self.events.emit(|events| Event::Miss {
                    tier: Arc::clone(tier),
                    key: events.digest(key),
                });
                None
            }
            Err(_) => {
                add(&self.counters.errors, 1);
                None
            }
        }
    }

    /// Accounts for a value that was to be stored.
    fn stored(&self, key: &[u8], bytes: usize, result: &Result<bool>) {
        match result {
            Ok(true) => {
                add(&self.counters.sets, 1);
                self.events.emit(|events| Event::Set {
                    tier: Arc::clone(&self.tier),
                    key: events.digest(key),
                    bytes,
                });
            }
            Ok(false) => {}
            Err(_) => add(&self.counters.errors, 1),
        }
    }

    /// Accounts for a key that was to be deleted.
    fn deleted(&self, key: &[u8], result: &Result<bool>) {
        match result {
            Ok(true) => {
                add(&self.counters.deletes, 1);
                self.events.emit(|events| Event::Deleted {
                    tier: Arc::clone(&self.tier),
                    key: events.digest(key),
                });
            }
            Ok(false) => {}
            Err(_) => add(&self.counters.errors, 1),
        }
    }

    /// Accounts for an operation that says nothing of keys.
    fn other<T>(&self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            add(&self.counters.errors, 1);
        }
        result
    }
}

fn found(reply: &Result<Option<StoredValue>>) -> &'static str {
    match reply {
        Ok(Some(_)) => "hit",
        _ => "miss",
    }
}

fn done(reply: &Result<bool>) -> &'static str {
    match reply {
        Ok(true) => "ok",
        _ => "unchanged",
    }
}

/// The outcome of an operation that does not say more than that it went well.
fn ok<R>(_: &R) -> &'static str {
    "ok"
}

/// The outcome of a batch of which at least one item succeeded.
fn mixed<T>(reply: &[Result<T>]) -> &'static str {
    if reply.iter().all(Result::is_ok) {
        "ok"
    } else {
        "partial"
    }
}

impl CacheBackend for Layered {
    fn name(&self) -> &str {
        &self.tier
    }

    fn capability(&self) -> Capability {
        self.backend.capability()
    }

    async fn get(&self, key: &[u8]) -> Result<Option<StoredValue>> {
        let attempt = || self.backend.get(key);
        let result = self.run(Operation::Get, 1, attempt, found).await;
        self.read(key, &result);
        result
    }

    async fn set(&self, key: &[u8], value: Bytes, expires: Option<Timestamp>) -> Result<()> {
        let bytes = value.len();
        let attempt = || self.backend.set(key, value.clone(), expires);
        let result = self.run(Operation::Set, 1, attempt, ok).await;
        let result = result.map(|()| true);
        self.stored(key, bytes, &result);
        result.map(drop)
    }

    async fn delete(&self, key: &[u8]) -> Result<bool> {
        let attempt = || self.backend.delete(key);
        let result = self.run(Operation::Delete, 1, attempt, done).await;
        self.deleted(key, &result);
        result
    }

    async fn clear(&self) -> Result<()> {
        let attempt = || self.backend.clear();
        let result = self.run(Operation::Clear, 1, attempt, ok).await;
        if result.is_ok() {
            self.events.emit(|_| Event::Cleared {
                tier: Arc::clone(&self.tier),
            });
        }
        self.other(result)
    }

    async fn usage(&self) -> Result<BackendUsage> {
        let attempt = || self.backend.usage();
        let result = self.run(Operation::Usage, 1, attempt, ok).await;
        self.other(result)
    }

    async fn get_many(&self, keys: &[Bytes]) -> Vec<Result<Option<StoredValue>>> {
        let attempt = || self.backend.get_many(keys);
        let results = self
            .run(Operation::GetMany, keys.len(), attempt, |reply| {
                mixed(reply)
            })
            .await;
        for (key, result) in keys.iter().zip(&results) {
            self.read(key, result);
        }
        results
    }

    async fn set_many(&self, writes: &[Write]) -> Vec<Result<()>> {
        let attempt = || self.backend.set_many(writes);
        let results = self
            .run(Operation::SetMany, writes.len(), attempt, |reply| {
                mixed(reply)
            })
            .await;
        for (write, result) in writes.iter().zip(&results) {
            let result = match result {
                Ok(()) => Ok(true),
                Err(error) => Err(error.clone()),
            };
            self.stored(&write.key, write.value.len(), &result);
        }
        results
    }

    async fn delete_many(&self, keys: &[Bytes]) -> Vec<Result<bool>> {
        let attempt = || self.backend.delete_many(keys);
        let results = self
            .run(Operation::DeleteMany, keys.len(), attempt, |reply| {
                mixed(reply)
            })
            .await;
        for (key, result) in keys.iter().zip(&results) {
            self.deleted(key, result);
        }
        results
    }

    async fn set_if(
        &self,
        key: &[u8],
        value: Bytes,
        expires: Option<Timestamp>,
        condition: Condition<'_>,
    ) -> Result<bool> {
        let bytes = value.len();
        let attempt = || self.backend.set_if(key, value.clone(), expires, condition);
        let result = self.run(Operation::SetIf, 1, attempt, done).await;
        self.stored(key, bytes, &result);
        result
    }

    async fn delete_if(&self, key: &[u8], expected: &[u8]) -> Result<bool> {
        let attempt = || self.backend.delete_if(key, expected);
        let result = self.run(Operation::DeleteIf, 1, attempt, done).await;
        self.deleted(key, &result);
        result
    }

    async fn take(&self, key: &[u8]) -> Result<Option<StoredValue>> {
        let attempt = || self.backend.take(key);
        let result = self.run(Operation::Take, 1, attempt, found).await;
        if self.read(key, &result).is_some() {
            self.deleted(key, &Ok(true));
        }
        result
    }

    async fn touch(&self, key: &[u8], expires: Option<Timestamp>) -> Result<bool> {
        let attempt = || self.backend.touch(key, expires);
        let result = self.run(Operation::Touch, 1, attempt, done).await;
        self.other(result)
    }

    async fn increment(&self, key: &[u8], by: i64, expires: Option<Timestamp>) -> Result<i64> {
        let attempt = || self.backend.increment(key, by, expires);
        let result = self.run(Operation::Increment, 1, attempt, ok).await;
        self.other(result)
    }

    async fn scan(&self, pattern: &Glob, cursor: Cursor, limit: usize) -> Result<KeyPage> {
        let attempt = || self.backend.scan(pattern, cursor.clone(), limit);
        let result = self.run(Operation::Scan, 1, attempt, ok).await;
        self.other(result)
    }

    async fn delete_matching(&self, pattern: &Glob) -> Result<u64> {
        let attempt = || self.backend.delete_matching(pattern);
        let result = self.run(Operation::DeleteMatching, 1, attempt, ok).await;
        if let Ok(removed) = result {
            self.counters.deletes.fetch_add(removed, Ordering::Relaxed);
        }
        self.other(result)
    }

    async fn ping(&self) -> Result<()> {
        let attempt = || self.backend.ping();
        let result = self.run(Operation::Ping, 1, attempt, ok).await;
        self.other(result)
    }

    async fn servers(&self) -> Result<Vec<ServerFacts>> {
        // Asked by people, one at a time: it counts for nothing and is not kept from a store that is ill.
        self.backend.servers().await
    }

    fn feed(&self) -> Option<FeedHandle> {
        // A feed waits by design, and whoever reads one has its own rules for outages.
        self.backend.feed()
    }

    async fn close(&self) {
        self.backend.close().await;
    }
}

#[cfg(test)]
mod tests;
