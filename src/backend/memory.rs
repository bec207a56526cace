//! The in-process backend: moka, bounded in bytes.
//!
//! Every value carries its absolute expiry and `get` checks it against the injected [`Clock`], so a
//! dead value is never returned however late the engine's housekeeping runs. moka's own timer is
//! set to the same moment, only so that dead values give their memory back, and only on a clock that moves
//! as real time does.
//!
//! Eviction is least-recently-used. moka's default, TinyLFU, may drop the value that was just
//! written because the cache has not seen its key often enough; a cache that has acknowledged a
//! store must find it again, so admission filters are out.
//!
//! A value is weighed as key + value + `ENTRY_OVERHEAD` + what the owner adds for structures of its
//! own that live and die with the value (index row, catalogue row), so the byte bound covers them.
//!
//! Its feed is shared by all who hold the backend, so that it can stand behind several stacks of tiers.

mod feed;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use bytesize::ByteSize;
use moka::notification;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    BackendUsage, CacheBackend, Capability, Condition, Cursor, FeedHandle, Glob, KeyPage,
    RemovalCause, StoredValue, count_after,
};
use crate::clock::{ClockHandle, SystemClock, Timestamp};
use crate::error::{Error, ErrorKind, Result};

use feed::MemoryFeed;

/// Bytes counted per value for moka's node, hash slot, queue links and timer: measured as resident
/// memory over a million small values, rounded up.
pub(crate) const ENTRY_OVERHEAD: usize = 400;

/// Settings of the memory backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct MemoryConfig {
    /// Name in metrics, reports and `Cache-Status`. Default: `memory`.
    pub name: String,
    /// Most bytes held, bookkeeping and vectors included: a number, or `512MiB`. Default: 512 MiB. At
    /// least 1 MiB.
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::Bytes"))]
    pub max_bytes: ByteSize,
    /// Most values held, 1 or more. Default: `null`, as many as there are bytes for. Enforced together with
    /// `max_bytes`: each value weighs at least `max_bytes / max_size`, so that neither bound is passed, and
    /// where some values are far larger than others the least recently used go a little early.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub max_size: Option<u64>,
    /// What the keys of a [typed cache](crate::typed) over it begin with, as its namespace; at most 64
    /// bytes. Default: empty, nothing. No other process sees this memory, so it tells values apart only in
    /// listings.
    pub key_prefix: String,
    /// How often values that have died give their memory back when nobody reads or writes, 1ms to 24h.
    /// Default: `60s`. Reads and writes do the same work in small portions.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::Time"))]
    pub cleanup_interval: Duration,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            name: "memory".to_owned(),
            max_bytes: ByteSize::mib(512),
            max_size: None,
            key_prefix: String::new(),
            cleanup_interval: Duration::from_secs(60),
        }
    }
}

impl MemoryConfig {
    const LEAST_BYTES: ByteSize = ByteSize::mib(1);
    const LONGEST_PREFIX: usize = 64;
    const LONGEST_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

    /// Checks every field; `path` is where this section stands in the file.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the field, its value and the allowed range.
    pub fn validate(&self, path: &str) -> Result<()> {
        if self.name.is_empty() {
            return Err(Error::new(ErrorKind::Config, "a backend needs a name")
                .with("field", format!("{path}.name")));
        }
        if self.max_bytes < Self::LEAST_BYTES {
            return Err(Error::new(
                ErrorKind::Config,
                "the memory bound is too small to be useful",
            )
            .with("field", format!("{path}.max_bytes"))
            .with("value", self.max_bytes)
            .with("allowed", format!("at least {}", Self::LEAST_BYTES)));
        }
        let refuse = |field: &str, value: String, allowed: &'static str| {
            Err(Error::new(ErrorKind::Config, "a setting is out of range")
                .with("field", format!("{path}.{field}"))
                .with("value", value)
                .with("allowed", allowed))
        };
        if self.max_size == Some(0) {
            let allowed = "1 or more, or null for as many as there are bytes for";
            return refuse("max_size", "0".to_owned(), allowed);
        }
        if self.key_prefix.len() > Self::LONGEST_PREFIX {
            let length = format!("{} bytes", self.key_prefix.len());
            return refuse("key_prefix", length, "at most 64 bytes");
        }
        let interval = self.cleanup_interval;
        if interval.as_millis() == 0 || interval > Self::LONGEST_INTERVAL {
            return refuse("cleanup_interval", format!("{interval:?}"), "1ms to 24h");
        }
        Ok(())
    }

    /// The least weight of a value, and the weight of all: at most `max_size` times the former.
    fn weights(&self) -> (u32, u64) {
        let bytes = self.max_bytes.as_u64();
        match self.max_size {
            None => (0, bytes),
            Some(size) => {
                // A value of the greatest weight that there is would count as too large.
                let least = (bytes / size.max(1)).clamp(1, u64::from(u32::MAX - 1));
                let least_weight = u32::try_from(least).unwrap_or(u32::MAX - 1);
                (least_weight, least.saturating_mul(size).min(bytes))
            }
        }
    }
}

type OnRemoval = Arc<dyn Fn(&[u8], RemovalCause) + Send + Sync>;

/// Builds a [`MemoryBackend`].
pub struct MemoryBackendBuilder {
    config: MemoryConfig,
    clock: ClockHandle,
    extra_bytes: usize,
    on_removal: Option<OnRemoval>,
}

impl fmt::Debug for MemoryBackendBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBackendBuilder")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl MemoryBackendBuilder {
    /// The clock that decides what has expired. Default: the system clock.
    #[must_use]
    pub fn clock(mut self, clock: ClockHandle) -> Self {
        self.clock = clock;
        self
    }

    /// Bytes to count per value for structures that the owner keeps beside it. Default: 0.
    #[must_use]
    pub fn extra_bytes_per_value(mut self, bytes: usize) -> Self {
        self.extra_bytes = bytes;
        self
    }

    /// Called with the key of each value that expired or was evicted, perhaps in the middle of a write:
    /// it must not write to this backend. Not called for values that were deleted, replaced or cleared.
    #[must_use]
    pub fn on_removal(mut self, f: impl Fn(&[u8], RemovalCause) + Send + Sync + 'static) -> Self {
        self.on_removal = Some(Arc::new(f));
        self
    }

    /// The backend.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when a setting is out of range.
    pub fn build(self) -> Result<MemoryBackend> {
        self.config.validate("backends[memory]")?;
        let extra = self.extra_bytes;
        let (least_weight, capacity) = self.config.weights();
        let mut builder = Cache::<Box<[u8]>, Slot>::builder()
            .name(&self.config.name)
            .max_capacity(capacity)
            .eviction_policy(EvictionPolicy::lru())
            .weigher(move |key, slot| weigh(key, &slot.value, extra).max(least_weight))
            .expire_after(PhysicalExpiry);
        if let Some(on_removal) = self.on_removal {
            builder = builder.eviction_listener(move |key: Arc<Box<[u8]>>, _, cause| {
                let cause = match cause {
                    notification::RemovalCause::Expired => RemovalCause::Expired,
                    notification::RemovalCause::Size => RemovalCause::Evicted,
                    notification::RemovalCause::Explicit | notification::RemovalCause::Replaced => {
                        return;
                    }
                };
                on_removal(&key, cause);
            });
        }
        let name = self.config.name;
        Ok(MemoryBackend {
            name,
            clock: self.clock,
            max_bytes: capacity,
            counts_values: self.config.max_size.is_some(),
            extra_bytes: extra,
            slots: builder.build(),
            stripes: Box::new([const { Mutex::new(()) }; STRIPES]),
            feed: Arc::new(MemoryFeed::new()),
        })
    }
}

/// The in-process backend. See the module documentation.
pub struct MemoryBackend {
    name: String,
    clock: ClockHandle,
    max_bytes: u64,
    /// Whether values weigh more than their bytes.
    counts_values: bool,
    extra_bytes: usize,
    slots: Cache<Box<[u8]>, Slot>,
    /// Writes of one key take turns: moka's own compute does not keep plain inserts out.
    stripes: Box<[Mutex<()>; STRIPES]>,
    feed: Arc<MemoryFeed>,
}

/// Locks that all keys share.
const STRIPES: usize = 64;

/// A key that nobody else writes to.
struct Locked<'a> {
    /// What it holds, if that is alive.
    held: Option<Slot>,
    _guard: MutexGuard<'a, ()>,
}

impl Locked<'_> {
    fn stored(self) -> Option<StoredValue> {
        let Slot { value, expires, .. } = self.held?;
        Some(StoredValue::new(value, expires))
    }
}

#[derive(Clone)]
struct Slot {
    value: Bytes,
    expires: Option<Timestamp>,
    /// Remaining life at the time of writing, for moka's own timer.
    life: Option<Duration>,
}

impl Slot {
    fn is_live(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

/// Tells moka when a value may be reclaimed. Replacing a value starts its life anew.
struct PhysicalExpiry;

impl moka::Expiry<Box<[u8]>, Slot> for PhysicalExpiry {
    fn expire_after_create(&self, _: &Box<[u8]>, slot: &Slot, _: Instant) -> Option<Duration> {
        slot.life
    }
    fn expire_after_update(
        &self,
        _: &Box<[u8]>,
        slot: &Slot,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        slot.life
    }
}

fn weigh(key: &[u8], value: &Bytes, extra: usize) -> u32 {
    let bytes = key.len() + value.len() + ENTRY_OVERHEAD + extra;
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

impl MemoryBackend {
    /// A builder for a backend with these settings.
    #[must_use]
    pub fn builder(config: MemoryConfig) -> MemoryBackendBuilder {
        MemoryBackendBuilder {
            config,
            clock: Arc::new(SystemClock),
            extra_bytes: 0,
            on_removal: None,
        }
    }

    /// Refuses what can never fit.
    fn check_size(&self, key: &[u8], value: &Bytes) -> Result<()> {
        let weight = u64::from(weigh(key, value, self.extra_bytes));
        if weight > self.max_bytes || weight == u64::from(u32::MAX) {
            return Err(
                Error::new(ErrorKind::TooLarge, "the value does not fit into the tier")
                    .with("tier", &self.name)
                    .with("bytes", weight)
                    .with("allowed", self.max_bytes),
            );
        }
        Ok(())
    }

    fn is_past(&self, expires: Option<Timestamp>) -> bool {
        expires.is_some_and(|expires| expires <= self.clock.now())
    }

    /// What to keep; `None` when it is dead already.
    fn slot(&self, value: Bytes, expires: Option<Timestamp>) -> Option<Slot> {
        if self.is_past(expires) {
            return None;
        }
        let now = self.clock.now();
        let life = expires
            .filter(|_| self.clock.is_real_time())
            .map(|expires| expires.since(now));
        Some(Slot {
            value,
            expires,
            life,
        })
    }

    /// The live slot of `key`, and the right to replace it: no other write of the key comes between.
    fn lock(&self, key: &[u8]) -> Locked<'_> {
        let stripe = xxh3_64(key) as usize % STRIPES;
        let guard = self.stripes[stripe].lock();
        let now = self.clock.now();
        let held = self.slots.get(key).filter(|slot| slot.is_live(now));
        Locked {
            held,
            _guard: guard,
        }
    }

    /// Writes a slot, or what stands for one that is dead already. The key must be locked.
    fn write(&self, key: &[u8], slot: Option<Slot>) {
        match slot {
            Some(slot) => self.slots.insert(key.into(), slot),
            None => self.slots.invalidate(key),
        }
    }

    /// Runs pending housekeeping now, so that [`CacheBackend::usage`] is exact and removals have been
    /// reported. moka otherwise does this in small portions during reads and writes.
    pub fn settle(&self) {
        self.slots.run_pending_tasks();
    }

    /// [Settles](Self::settle) every so often, in a task that ends with the backend. Without a tokio runtime
    /// nothing happens.
    pub(crate) fn keep_settled(self: &Arc<Self>, every: Duration) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let weak = Arc::downgrade(self);
        runtime.spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                let Some(backend) = weak.upgrade() else {
                    return;
                };
                backend.settle();
            }
        });
    }
}

impl fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBackend")
            .field("name", &self.name)
            .field("max_bytes", &self.max_bytes)
            .field("entries", &self.slots.entry_count())
            .finish_non_exhaustive()
    }
}

impl CacheBackend for MemoryBackend {
    fn name(&self) -> &str {
        &self.name
    }

    fn capability(&self) -> Capability {
        Capability {
            in_process: true,
            evicts: true,
            counts_exactly: true,
            max_value_bytes: usize::try_from(self.max_bytes).ok(),
            conditional_writes: true,
            lists_keys: true,
        }
    }

    async fn get(&self, key: &[u8]) -> Result<Option<StoredValue>> {
        let slot = self.slots.get(key);
        let live = slot.filter(|slot| slot.is_live(self.clock.now()));
        Ok(live.map(|slot| StoredValue::new(slot.value, slot.expires)))
    }

    async fn set(&self, key: &[u8], value: Bytes, expires: Option<Timestamp>) -> Result<()> {
        self.check_size(key, &value)?;
        let _locked = self.lock(key);
        self.write(key, self.slot(value, expires));
        Ok(())
    }

    async fn set_if(
        &self,
        key: &[u8],
        value: Bytes,
        expires: Option<Timestamp>,
        condition: Condition<'_>,
    ) -> Result<bool> {
        self.check_size(key, &value)?;
        let locked = self.lock(key);
        let holds = match (condition, &locked.held) {
            (Condition::Absent, held) => held.is_none(),
            (Condition::Present, held) => held.is_some(),
            (Condition::Equals(expected), Some(held)) => held.value == expected,
            (Condition::Equals(_), None) => false,
        };
        if holds {
            self.write(key, self.slot(value, expires));
        }
        Ok(holds)
    }

    async fn delete_if(&self, key: &[u8], expected: &[u8]) -> Result<bool> {
        let locked = self.lock(key);
        let holds = locked
            .held
            .as_ref()
            .is_some_and(|held| held.value == expected);
        if holds {
            self.write(key, None);
        }
        Ok(holds)
    }

    async fn take(&self, key: &[u8]) -> Result<Option<StoredValue>> {
        let locked = self.lock(key);
        self.write(key, None);
        Ok(locked.stored())
    }

    async fn touch(&self, key: &[u8], expires: Option<Timestamp>) -> Result<bool> {
        let locked = self.lock(key);
        if let Some(held) = &locked.held {
            self.write(key, self.slot(held.value.clone(), expires));
        }
        Ok(locked.held.is_some())
    }

    async fn increment(&self, key: &[u8], by: i64, expires: Option<Timestamp>) -> Result<i64> {
        let locked = self.lock(key);
        let held = locked.held.as_ref();
        let count = count_after(held.map(|held| &held.value), by)
            .map_err(|error| error.with("tier", &self.name))?;
        let expires = held.map_or(expires, |held| held.expires);
        self.write(key, self.slot(Bytes::from(count.to_string()), expires));
        Ok(count)
    }

    /// All matching keys at once: the keys are in no order that a cursor could go on from.
    async fn scan(&self, pattern: &Glob, _: Cursor, _: usize) -> Result<KeyPage> {
        let now = self.clock.now();
        let keys = self
            .slots
            .iter()
            .filter(|(key, slot)| slot.is_live(now) && pattern.matches(key))
            .map(|(key, _)| Bytes::copy_from_slice(&key))
            .collect();
        Ok(KeyPage { keys, next: None })
    }

    async fn ping(&self) -> Result<()> {
        Ok(())
    }

    async fn delete(&self, key: &[u8]) -> Result<bool> {
        let locked = self.lock(key);
        self.write(key, None);
        Ok(locked.held.is_some())
    }

    async fn clear(&self) -> Result<()> {
        // `invalidate_all` hides values written before this instant, at the timer's resolution;
        // a write in the same tick must survive, so keys are removed one by one.
        let keys: Vec<_> = self.slots.iter().map(|(key, _)| key).collect();
        for key in keys {
            let _locked = self.lock(&key);
            self.write(&key, None);
        }
        Ok(())
    }

    fn feed(&self) -> Option<FeedHandle> {
        Some(Arc::clone(&self.feed) as FeedHandle)
    }

    async fn usage(&self) -> Result<BackendUsage> {
        self.settle();
        Ok(BackendUsage {
            entries: self.slots.entry_count(),
            bytes: if self.counts_values {
                let weight = |(key, slot): (_, Slot)| -> u64 {
                    let key: Arc<Box<[u8]>> = key;
                    u64::from(weigh(&key, &slot.value, self.extra_bytes))
                };
                self.slots.iter().map(weight).sum()
            } else {
                self.slots.weighted_size()
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(max_bytes: u64) -> MemoryConfig {
        MemoryConfig {
            max_bytes: ByteSize(max_bytes),
            ..MemoryConfig::default()
        }
    }

    #[test]
    fn a_bound_below_one_mebibyte_is_refused_by_name() {
        let error = MemoryBackend::builder(config(1_000)).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("max_bytes"), "{error}");
        assert!(error.to_string().contains("1000 B"), "{error}");
    }

    #[tokio::test]
    async fn memory_stays_under_its_bound_and_evictions_name_their_keys() {
        let evicted = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&evicted);
        let backend = MemoryBackend::builder(config(1 << 20))
            .extra_bytes_per_value(1_000)
            .on_removal(move |key, cause| seen.lock().push((key.to_vec(), cause)))
            .build()
            .unwrap();
        for i in 0..2_000_u32 {
            backend
                .set(&i.to_le_bytes(), Bytes::from(vec![0; 1_000]), None)
                .await
                .unwrap();
        }
        let usage = CacheBackend::usage(&backend).await.unwrap();
        assert!(usage.bytes <= 1 << 20, "{usage:?}");
        let evicted = evicted.lock();
        assert_eq!(evicted.len() as u64, 2_000 - usage.entries);
        assert!(
            evicted
                .iter()
                .all(|(_, cause)| *cause == RemovalCause::Evicted)
        );
    }

    #[tokio::test]
    async fn the_value_just_written_survives_in_a_full_cache() {
        let backend = MemoryBackend::builder(config(1 << 20)).build().unwrap();
        for i in 0..5_000_u32 {
            let key = i.to_le_bytes();
            backend
                .set(&key, Bytes::from(vec![1; 2_000]), None)
                .await
                .unwrap();
            assert!(
                CacheBackend::get(&backend, &key).await.unwrap().is_some(),
                "write {i}"
            );
        }
    }

    fn of_size(max_size: u64) -> MemoryConfig {
        MemoryConfig {
            max_size: Some(max_size),
            ..config(1 << 20)
        }
    }

    #[tokio::test]
    async fn no_more_values_are_held_than_max_size_and_their_bytes_are_told_as_they_are() {
        for max_size in [1, 10, 700] {
            let backend = MemoryBackend::builder(of_size(max_size)).build().unwrap();
            for i in 0..max_size + 50 {
                let key = i.to_le_bytes();
                backend
                    .set(&key, Bytes::from_static(b"v"), None)
                    .await
                    .unwrap();
                assert!(CacheBackend::get(&backend, &key).await.unwrap().is_some());
                backend.settle();
            }
            let usage = CacheBackend::usage(&backend).await.unwrap();
            assert_eq!(usage.entries, max_size);
            assert_eq!(usage.bytes, max_size * (8 + 1 + ENTRY_OVERHEAD as u64));
        }
        // The other bound holds as before.
        let backend = MemoryBackend::builder(of_size(1_000_000)).build().unwrap();
        for i in 0..5_000_u32 {
            let value = Bytes::from(vec![0; 1_000]);
            backend.set(&i.to_le_bytes(), value, None).await.unwrap();
        }
        let usage = CacheBackend::usage(&backend).await.unwrap();
        assert!(usage.bytes <= 1 << 20 && usage.entries > 500, "{usage:?}");
    }

    #[test]
    fn w_65_what_is_out_of_range_is_refused_by_name() {
        let refused = |config: MemoryConfig| config.validate("b").unwrap_err().to_string();
        let error = refused(of_size(0));
        assert!(error.contains("b.max_size, value: 0, allowed"), "{error}");
        let error = refused(MemoryConfig {
            cleanup_interval: Duration::ZERO,
            ..MemoryConfig::default()
        });
        assert!(error.contains("b.cleanup_interval, value: 0ns"), "{error}");
        let error = refused(MemoryConfig {
            key_prefix: "x".repeat(65),
            ..MemoryConfig::default()
        });
        assert!(error.contains("b.key_prefix"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn w_52_dead_values_give_their_memory_back_though_nobody_asks_for_them() {
        let seen = Arc::new(Mutex::new(0));
        let told = Arc::clone(&seen);
        let backend = MemoryBackend::builder(config(1 << 20))
            .on_removal(move |_, _| *told.lock() += 1)
            .build();
        let backend = Arc::new(backend.unwrap());
        backend.keep_settled(Duration::from_secs(60));
        // More than fits: what must go, goes when the backend is next looked after.
        for i in 0..200_u32 {
            let value = Bytes::from(vec![0; 10_000]);
            backend.set(&i.to_le_bytes(), value, None).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(61)).await;
        let removed = *seen.lock();
        assert_eq!(removed, 200 - backend.slots.entry_count());
        assert!(removed >= 95, "{removed}");
        let weak = Arc::downgrade(&backend);
        drop(backend);
        assert!(weak.upgrade().is_none(), "its task does not keep it alive");
    }
}
