//! Stores that fail on purpose, for tests.
//!
//! A [`FaultLayer`] around a backend makes it fail, hang, answer late, lose what it was given or give
//! garbage, as a [`FaultPlan`] says; so does the feed it hands out. Put it under what is to be tested: a
//! [`Layered`](crate::layer::Layered), a tier, a cache.
//!
//! Chance is a function of the seed and of the number of the operation, so a run repeats: the n-th
//! operation meets the same fault under the same plan, whatever happened before it. Print the seed when a
//! test fails. Tests of tasks that run at the same time repeat as far as their order does.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> askonce::Result<()> {
//! use std::sync::Arc;
//! use std::time::Duration;
//! use askonce::typed::{Cache, Key};
//! use askonce::backend::{MemoryBackend, MemoryConfig};
//! use askonce::fault::{FaultLayer, FaultPlan};
//!
//! let store = MemoryBackend::builder(MemoryConfig::default()).build()?;
//! let faulty = Arc::new(FaultLayer::new(Arc::new(store), 7));
//! faulty.set_plan(FaultPlan { errors: 0.5, ..FaultPlan::default() });
//!
//! let cache = Cache::new(faulty.clone());
//! let minute = Duration::from_secs(60);
//! for user in 0..100_u64 {
//!     let key = Key::new("name").part(user);
//!     let name = cache.get_or_set(&key, minute, || async move { format!("user {user}") }).await;
//!     assert_eq!(name, format!("user {user}"));
//! }
//! assert!(faulty.injected() > 0);
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::backend::{
    BackendHandle, BackendUsage, BoxFuture, CacheBackend, Capability, Condition, Cursor, Feed,
    FeedBatch, FeedHandle, FeedPosition, Glob, KeyPage, ServerFacts, StoredValue, Write,
};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};

/// How often what goes wrong. Rates are from 0 (never) to 1 (always); the default is a store that works.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultPlan {
    /// Operations that fail without having been done, with a retryable
    /// [`BackendUnavailable`](ErrorKind::BackendUnavailable) error.
    pub errors: f64,
    /// Operations that are done and whose answer is lost: a [`Timeout`](ErrorKind::Timeout) error.
    pub lost_answers: f64,
    /// Operations that never end.
    pub hangs: f64,
    /// Writes and deletes that are acknowledged and not done.
    pub lost_writes: f64,
    /// Reads of a value that give other bytes of the same length.
    pub garbage: f64,
    /// How long an operation takes on top, on the runtime's time.
    pub delay: RangeInclusive<Duration>,
    /// Messages of the feed that a reader does not get to see.
    pub feed_drops: f64,
    /// Messages of the feed that a reader gets twice.
    pub feed_duplicates: f64,
    /// How late a reader of the feed gets its messages.
    pub feed_delay: RangeInclusive<Duration>,
}

impl Default for FaultPlan {
    fn default() -> Self {
        Self {
            errors: 0.0,
            lost_answers: 0.0,
            hangs: 0.0,
            lost_writes: 0.0,
            garbage: 0.0,
            delay: Duration::ZERO..=Duration::ZERO,
            feed_drops: 0.0,
            feed_duplicates: 0.0,
            feed_delay: Duration::ZERO..=Duration::ZERO,
        }
    }
}

impl FaultPlan {
    /// A store that answers nothing but errors.
    #[must_use]
    pub fn down() -> Self {
        Self {
            errors: 1.0,
            ..Self::default()
        }
    }

    /// A store that never answers.
    #[must_use]
    pub fn hung() -> Self {
        Self {
            hangs: 1.0,
            ..Self::default()
        }
    }
}

/// What goes wrong with one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    Error,
    LostAnswer,
    Hang,
    LostWrite,
    Garbage,
}

/// Kinds of chance within one operation.
#[derive(Clone, Copy)]
enum Draw {
    Delay,
    Error,
    LostAnswer,
    Hang,
    LostWrite,
    Garbage,
    Bytes,
    FeedDrop,
    FeedDuplicate,
}

/// What an operation does, as far as faults differ.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Does {
    Read,
    Write,
    Other,
}

/// A backend that misbehaves as planned; see the [module](self).
pub struct FaultLayer {
    inner: BackendHandle,
    chance: Arc<Chance>,
    remote: bool,
}

struct Chance {
    seed: u64,
    plan: Mutex<Arc<FaultPlan>>,
    operations: AtomicU64,
    injected: AtomicU64,
}

impl fmt::Debug for FaultLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultLayer")
            .field("inner", &self.inner)
            .field("seed", &self.chance.seed)
            .field("plan", &self.plan())
            .finish_non_exhaustive()
    }
}

impl Chance {
    fn plan(&self) -> Arc<FaultPlan> {
        Arc::clone(&self.plan.lock())
    }

    fn next(&self) -> u64 {
        self.operations.fetch_add(1, Ordering::Relaxed)
    }

    /// From 0 up to and without 1.
    fn draw(&self, operation: u64, item: usize, draw: Draw) -> f64 {
        let place = [operation, item as u64, draw as u64].map(u64::to_le_bytes);
        let hash = xxh3_64_with_seed(place.as_flattened(), self.seed);
        (hash >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn happens(&self, operation: u64, item: usize, draw: Draw, rate: f64) -> bool {
        let happens = self.draw(operation, item, draw) < rate;
        if happens {
            self.injected.fetch_add(1, Ordering::Relaxed);
        }
        happens
    }

    async fn wait(&self, operation: u64, delay: &RangeInclusive<Duration>) {
        let spread = delay.end().saturating_sub(*delay.start());
        let wait = *delay.start() + spread.mul_f64(self.draw(operation, 0, Draw::Delay));
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    fn fault(&self, plan: &FaultPlan, operation: u64, does: Does) -> Fault {
        let happens = |draw, rate| self.happens(operation, 0, draw, rate);
        if happens(Draw::Hang, plan.hangs) {
            Fault::Hang
        } else if happens(Draw::Error, plan.errors) {
            Fault::Error
        } else if happens(Draw::LostAnswer, plan.lost_answers) {
            Fault::LostAnswer
        } else if does == Does::Write && happens(Draw::LostWrite, plan.lost_writes) {
            Fault::LostWrite
        } else if does == Does::Read && happens(Draw::Garbage, plan.garbage) {
            Fault::Garbage
        } else {
            Fault::None
        }
    }

    /// Other bytes of the same length.
    fn garbage(&self, operation: u64, item: usize, bytes: &Bytes) -> Bytes {
        let mut state = (self.draw(operation, item, Draw::Bytes) * f64::from(u32::MAX)) as u64;
        bytes
            .iter()
            .map(|byte| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                // Never zero: every byte differs.
                byte ^ ((state >> 33) as u8 | 1)
            })
            .collect()
    }
}

impl FaultLayer {
    /// Faults around `inner`, none until a plan is [set](Self::set_plan).
    #[must_use]
    pub fn new(inner: BackendHandle, seed: u64) -> Self {
        let remote = !inner.capability().in_process;
        let chance = Chance {
            seed,
            plan: Mutex::default(),
            operations: AtomicU64::new(0),
            injected: AtomicU64::new(0),
        };
        Self {
            inner,
            chance: Arc::new(chance),
            remote,
        }
    }

    /// Says of itself that it is not in this process, so that a memory backend can stand in for a server.
    #[must_use]
    pub fn as_remote(mut self) -> Self {
        self.remote = true;
        self
    }

    /// What goes wrong from now on. Operations that hang already go on hanging.
    pub fn set_plan(&self, plan: FaultPlan) {
        *self.chance.plan.lock() = Arc::new(plan);
    }

    /// What goes wrong now.
    #[must_use]
    pub fn plan(&self) -> FaultPlan {
        (*self.chance.plan()).clone()
    }

    /// Operations so far, those of the feed included.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.chance.operations.load(Ordering::Relaxed)
    }

    /// Faults so far. A delay is none.
    #[must_use]
    pub fn injected(&self) -> u64 {
        self.chance.injected.load(Ordering::Relaxed)
    }

    fn error(&self) -> Error {
        Error::new(ErrorKind::BackendUnavailable, "a fault was planned")
            .with("tier", self.inner.name())
            .retryable()
    }

    /// Makes one operation as planned. `lost` is what a lost write answers; with a fault other than
    /// garbage, what is returned is what the caller gets.
    async fn act<T>(
        &self,
        does: Does,
        operation: BoxFuture<'_, T>,
        lost: impl FnOnce() -> T + Send,
        refused: impl FnOnce(Error) -> T + Send,
    ) -> (T, Option<u64>) {
        let (chance, number) = (&self.chance, self.chance.next());
        let plan = chance.plan();
        chance.wait(number, &plan.delay).await;
        let answer = match chance.fault(&plan, number, does) {
            Fault::None => operation.await,
            Fault::Hang => std::future::pending().await,
            Fault::Error => refused(self.error()),
            Fault::LostWrite => lost(),
            Fault::Garbage => return (operation.await, Some(number)),
            Fault::LostAnswer => {
                operation.await;
                let error = Error::new(ErrorKind::Timeout, "a fault was planned")
                    .with("tier", self.inner.name())
                    .retryable();
                refused(error)
            }
        };
        (answer, None)
    }

    async fn write<T>(
        &self,
        operation: BoxFuture<'_, Result<T>>,
        lost: impl FnOnce() -> T + Send,
    ) -> Result<T> {
        let (answer, _) = self.act(Does::Write, operation, || Ok(lost()), Err).await;
        answer
    }

    async fn other<T>(&self, operation: BoxFuture<'_, Result<T>>) -> Result<T> {
        let lost = || Err(self.error());
        self.act(Does::Other, operation, lost, Err).await.0
    }
}

fn each<T>(items: usize) -> impl FnOnce(Error) -> Vec<Result<T>> + Send {
    move |error| (0..items).map(|_| Err(error.clone())).collect()
}

impl CacheBackend for FaultLayer {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn capability(&self) -> Capability {
        Capability {
            in_process: !self.remote,
            ..self.inner.capability()
        }
    }

    async fn get(&self, key: &[u8]) -> Result<Option<StoredValue>> {
        let lost = || Ok(None);
        let (mut answer, garbage) = self.act(Does::Read, self.inner.get(key), lost, Err).await;
        if let (Some(number), Ok(Some(held))) = (garbage, &mut answer) {
            held.bytes = self.chance.garbage(number, 0, &held.bytes);
        }
        answer
    }

    async fn set(&self, key: &[u8], value: Bytes, expires: Option<Timestamp>) -> Result<()> {
        self.write(self.inner.set(key, value, expires), || ()).await
    }

    async fn delete(&self, key: &[u8]) -> Result<bool> {
        self.write(self.inner.delete(key), || true).await
    }

    async fn clear(&self) -> Result<()> {
        self.write(self.inner.clear(), || ()).await
    }

    async fn usage(&self) -> Result<BackendUsage> {
        self.other(self.inner.usage()).await
    }

    async fn get_many(&self, keys: &[Bytes]) -> Vec<Result<Option<StoredValue>>> {
        let lost = || keys.iter().map(|_| Ok(None)).collect();
        let operation = self.inner.get_many(keys);
        let (mut answers, garbage) = self
            .act(Does::Read, operation, lost, each(keys.len()))
            .await;
        if let Some(number) = garbage {
            for (item, answer) in answers.iter_mut().enumerate() {
                if let Ok(Some(held)) = answer {
                    held.bytes = self.chance.garbage(number, item, &held.bytes);
                }
            }
        }
        answers
    }

    async fn set_many(&self, writes: &[Write]) -> Vec<Result<()>> {
        let lost = || writes.iter().map(|_| Ok(())).collect();
        let operation = self.inner.set_many(writes);
        self.act(Does::Write, operation, lost, each(writes.len()))
            .await
            .0
    }

    async fn delete_many(&self, keys: &[Bytes]) -> Vec<Result<bool>> {
        let lost = || keys.iter().map(|_| Ok(true)).collect();
        let operation = self.inner.delete_many(keys);
        self.act(Does::Write, operation, lost, each(keys.len()))
            .await
            .0
    }

    async fn set_if(
        &self,
        key: &[u8],
        value: Bytes,
        expires: Option<Timestamp>,
        condition: Condition<'_>,
    ) -> Result<bool> {
        let operation = self.inner.set_if(key, value, expires, condition);
        self.write(operation, || true).await
    }

    async fn delete_if(&self, key: &[u8], expected: &[u8]) -> Result<bool> {
        self.write(self.inner.delete_if(key, expected), || true)
            .await
    }

    async fn take(&self, key: &[u8]) -> Result<Option<StoredValue>> {
        self.other(self.inner.take(key)).await
    }

    async fn touch(&self, key: &[u8], expires: Option<Timestamp>) -> Result<bool> {
        self.write(self.inner.touch(key, expires), || true).await
    }

    async fn increment(&self, key: &[u8], by: i64, expires: Option<Timestamp>) -> Result<i64> {
        self.other(self.inner.increment(key, by, expires)).await
    }

    async fn scan(&self, pattern: &Glob, cursor: Cursor, limit: usize) -> Result<KeyPage> {
        self.other(self.inner.scan(pattern, cursor, limit)).await
    }

    async fn delete_matching(&self, pattern: &Glob) -> Result<u64> {
        self.write(self.inner.delete_matching(pattern), || 0).await
    }

    async fn ping(&self) -> Result<()> {
        self.other(self.inner.ping()).await
    }

    async fn servers(&self) -> Result<Vec<ServerFacts>> {
        self.other(self.inner.servers()).await
    }

    fn feed(&self) -> Option<FeedHandle> {
        Some(Arc::new(FaultyFeed {
            inner: self.inner.feed()?,
            chance: Arc::clone(&self.chance),
        }))
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

/// A feed that misbehaves towards its readers.
struct FaultyFeed {
    inner: FeedHandle,
    chance: Arc<Chance>,
}

impl fmt::Debug for FaultyFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyFeed")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl FaultyFeed {
    /// Fails or hangs as operations of the backend do; the number of the operation.
    async fn meet(&self) -> Result<(u64, Arc<FaultPlan>)> {
        let number = self.chance.next();
        let plan = self.chance.plan();
        match self.chance.fault(&plan, number, Does::Other) {
            Fault::Hang => std::future::pending().await,
            Fault::Error | Fault::LostAnswer => {
                let error = Error::new(ErrorKind::BackendUnavailable, "a fault was planned");
                Err(error.retryable())
            }
            Fault::None | Fault::LostWrite | Fault::Garbage => Ok((number, plan)),
        }
    }
}

impl Feed for FaultyFeed {
    fn append(&self, message: Bytes) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.meet().await?;
            self.inner.append(message).await
        })
    }

    fn tail(&self) -> BoxFuture<'_, Result<FeedPosition>> {
        Box::pin(async move {
            self.meet().await?;
            self.inner.tail().await
        })
    }

    fn read(&self, after: FeedPosition, wait: Duration) -> BoxFuture<'_, Result<FeedBatch>> {
        Box::pin(async move {
            let (number, plan) = self.meet().await?;
            let mut batch = self.inner.read(after, wait).await?;
            let mut messages = Vec::with_capacity(batch.messages.len());
            for (item, message) in batch.messages.into_iter().enumerate() {
                let happens = |draw, rate| self.chance.happens(number, item, draw, rate);
                if happens(Draw::FeedDrop, plan.feed_drops) {
                    continue;
                }
                if happens(Draw::FeedDuplicate, plan.feed_duplicates) {
                    messages.push(message.clone());
                }
                messages.push(message);
            }
            batch.messages = messages;
            self.chance.wait(number, &plan.feed_delay).await;
            Ok(batch)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{MemoryBackend, MemoryConfig};

    fn faulty(seed: u64, plan: FaultPlan) -> FaultLayer {
        let store = MemoryBackend::builder(MemoryConfig::default()).build();
        let layer = FaultLayer::new(Arc::new(store.unwrap()), seed);
        layer.set_plan(plan);
        layer
    }

    async fn set(layer: &FaultLayer) -> Result<()> {
        CacheBackend::set(layer, b"k", Bytes::from_static(b"value"), None).await
    }

    async fn get(layer: &FaultLayer) -> Result<Option<Bytes>> {
        let held = CacheBackend::get(layer, b"k").await?;
        Ok(held.map(|held| held.bytes))
    }

    async fn outcomes(seed: u64) -> Vec<bool> {
        let plan = FaultPlan {
            errors: 0.3,
            ..FaultPlan::default()
        };
        let layer = faulty(seed, plan);
        let mut outcomes = Vec::new();
        for _ in 0..300 {
            outcomes.push(set(&layer).await.is_err());
        }
        let failed = outcomes.iter().filter(|failed| **failed).count();
        assert!((50..=130).contains(&failed), "{failed} of 300");
        assert_eq!(layer.injected(), failed as u64);
        assert_eq!(layer.operations(), 300);
        outcomes
    }

    #[tokio::test]
    async fn the_same_seed_gives_the_same_faults_and_another_gives_others() {
        assert_eq!(outcomes(1).await, outcomes(1).await);
        assert_ne!(outcomes(1).await, outcomes(2).await);
    }

    #[tokio::test]
    async fn a_failed_write_is_not_done_one_with_a_lost_answer_is_and_a_lost_one_is_not() {
        let layer = faulty(1, FaultPlan::down());
        assert!(set(&layer).await.unwrap_err().is_retryable());
        layer.set_plan(FaultPlan {
            lost_writes: 1.0,
            ..FaultPlan::default()
        });
        set(&layer).await.unwrap();
        assert_eq!(get(&layer).await.unwrap(), None);
        layer.set_plan(FaultPlan {
            lost_answers: 1.0,
            ..FaultPlan::default()
        });
        assert_eq!(set(&layer).await.unwrap_err().kind(), ErrorKind::Timeout);
        layer.set_plan(FaultPlan::default());
        assert_eq!(get(&layer).await.unwrap().unwrap(), "value");
    }

    #[tokio::test]
    async fn garbage_is_other_bytes_of_the_same_length_and_only_in_the_answer() {
        let layer = faulty(1, FaultPlan::default());
        set(&layer).await.unwrap();
        layer.set_plan(FaultPlan {
            garbage: 1.0,
            ..FaultPlan::default()
        });
        let bytes = get(&layer).await.unwrap().unwrap();
        assert_eq!(bytes.len(), 5);
        assert_ne!(bytes, "value");
        layer.set_plan(FaultPlan::default());
        assert_eq!(get(&layer).await.unwrap().unwrap(), "value");
    }

    #[tokio::test(start_paused = true)]
    async fn hangs_never_end_and_delays_stay_in_their_range() {
        let layer = faulty(1, FaultPlan::hung());
        let hour = Duration::from_secs(3_600);
        assert!(tokio::time::timeout(hour, get(&layer)).await.is_err());
        let (least, most) = (Duration::from_millis(10), Duration::from_millis(50));
        layer.set_plan(FaultPlan {
            delay: least..=most,
            ..FaultPlan::default()
        });
        let mut waits = Vec::new();
        for _ in 0..50 {
            let before = tokio::time::Instant::now();
            set(&layer).await.unwrap();
            waits.push(before.elapsed());
        }
        // The timer has a resolution of a millisecond.
        let bound = most + Duration::from_millis(2);
        assert!(
            waits.iter().all(|wait| (least..=bound).contains(wait)),
            "{waits:?}"
        );
        assert!(waits.iter().max() > waits.iter().min());
    }

    /// A feed of the numbers 0 to 99.
    #[derive(Debug)]
    struct Numbers;

    impl Feed for Numbers {
        fn append(&self, _: Bytes) -> BoxFuture<'_, Result<()>> {
            Box::pin(async { Ok(()) })
        }

        fn tail(&self) -> BoxFuture<'_, Result<FeedPosition>> {
            Box::pin(async { Ok(FeedPosition::new(Bytes::new())) })
        }

        fn read(&self, after: FeedPosition, _: Duration) -> BoxFuture<'_, Result<FeedBatch>> {
            Box::pin(async {
                Ok(FeedBatch {
                    messages: (0..100_u8).map(|i| Bytes::from(vec![i])).collect(),
                    next: after,
                    gap: false,
                })
            })
        }
    }

    #[tokio::test]
    async fn a_feed_loses_and_repeats_messages_and_keeps_their_order() {
        let feed = |plan| {
            let layer = faulty(3, plan);
            FaultyFeed {
                inner: Arc::new(Numbers),
                chance: Arc::clone(&layer.chance),
            }
        };
        let read = async |plan| {
            let start = FeedPosition::new(Bytes::new());
            let batch = feed(plan).read(start, Duration::ZERO).await;
            batch.map(|batch| batch.messages)
        };
        let all = read(FaultPlan::default()).await.unwrap();
        assert_eq!(all.len(), 100);
        let dropped = read(FaultPlan {
            feed_drops: 0.5,
            ..FaultPlan::default()
        });
        let dropped = dropped.await.unwrap();
        assert!((20..=80).contains(&dropped.len()), "{}", dropped.len());
        assert!(dropped.is_sorted());
        let repeated = read(FaultPlan {
            feed_duplicates: 0.5,
            ..FaultPlan::default()
        });
        let mut repeated = repeated.await.unwrap();
        assert!(repeated.len() > 120 && repeated.is_sorted());
        repeated.dedup();
        assert_eq!(repeated, all);
        assert!(read(FaultPlan::down()).await.is_err());
    }
}
