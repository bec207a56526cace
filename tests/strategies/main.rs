//! Patterns over the typed cache: around functions, beside a source of truth, within one request.
//!
//! Each file holds one of them. Many tests are named after a fault of the system that this engine is
//! measured against: a warmer that loaded nothing and reported success, repositories that read each
//! other's values, a source that was written after the cache, tasks of a request that each loaded the
//! same thing. The backend can be told to fail, and the source to fail, to wait and to count.

mod repository;
mod scoped;
mod warm;
mod write;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use askonce::backend::{
    BackendUsage, CacheBackend, Capability, Condition, MemoryBackend, MemoryConfig, StoredValue,
};
use askonce::clock::{ManualClock, Timestamp};
use askonce::{Cache, Error, ErrorKind, Result};
use bytes::Bytes;

fn clock() -> Arc<ManualClock> {
    ManualClock::starting_at(Timestamp::from_millis(1_790_000_000_000))
}

/// A memory backend that can be told to refuse writes, or everything.
#[derive(Debug)]
struct Flaky {
    memory: MemoryBackend,
    no_writes: AtomicBool,
    down: AtomicBool,
    sets: AtomicUsize,
}

impl Flaky {
    fn new(clock: &Arc<ManualClock>) -> Arc<Self> {
        let memory = MemoryBackend::builder(MemoryConfig::default()).clock(Arc::clone(clock) as _);
        Arc::new(Self {
            memory: memory.build().expect("the default settings are valid"),
            no_writes: AtomicBool::new(false),
            down: AtomicBool::new(false),
            sets: AtomicUsize::new(0),
        })
    }

    fn read(&self) -> Result<()> {
        if self.down.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::BackendUnavailable, "down").with("tier", "flaky"));
        }
        Ok(())
    }

    fn write(&self) -> Result<()> {
        self.sets.fetch_add(1, Ordering::SeqCst);
        if self.no_writes.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::BackendUnavailable, "full").with("tier", "flaky"));
        }
        self.read()
    }
}

impl CacheBackend for Flaky {
    fn name(&self) -> &str {
        "flaky"
    }
    fn capability(&self) -> Capability {
        CacheBackend::capability(&self.memory)
    }
    async fn get(&self, key: &[u8]) -> Result<Option<StoredValue>> {
        self.read()?;
        CacheBackend::get(&self.memory, key).await
    }
    async fn set(&self, key: &[u8], value: Bytes, expires: Option<Timestamp>) -> Result<()> {
        self.write()?;
        CacheBackend::set(&self.memory, key, value, expires).await
    }
    async fn set_if(
        &self,
        key: &[u8],
        value: Bytes,
        expires: Option<Timestamp>,
        condition: Condition<'_>,
    ) -> Result<bool> {
        self.write()?;
        CacheBackend::set_if(&self.memory, key, value, expires, condition).await
    }
    async fn delete_if(&self, key: &[u8], expected: &[u8]) -> Result<bool> {
        self.read()?;
        CacheBackend::delete_if(&self.memory, key, expected).await
    }
    async fn delete(&self, key: &[u8]) -> Result<bool> {
        self.read()?;
        CacheBackend::delete(&self.memory, key).await
    }
    async fn clear(&self) -> Result<()> {
        CacheBackend::clear(&self.memory).await
    }
    async fn usage(&self) -> Result<BackendUsage> {
        CacheBackend::usage(&self.memory).await
    }
}

fn over(backend: &Arc<Flaky>, clock: &Arc<ManualClock>) -> Cache {
    let builder = Cache::builder(Arc::clone(backend) as _).clock(Arc::clone(clock) as _);
    builder.build().expect("the settings are valid")
}

/// A cache in memory that works.
fn cache() -> Cache {
    let clock = clock();
    over(&Flaky::new(&clock), &clock)
}
