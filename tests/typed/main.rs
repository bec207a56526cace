//! The typed cache over its backends: several caches over one store stand for several processes.
//!
//! Time is tokio's, paused: it moves when everybody waits, and the caches' clock moves with it.

#[cfg(feature = "memcached")]
#[path = "../support/memcached.rs"]
mod memcached;
#[path = "../support/mod.rs"]
mod support;

mod keys;
mod leases;
mod loads;
mod model;
mod operations;
mod patterns;
mod servers;
mod tags;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use askonce::backend::{
    BackendHandle, BackendUsage, CacheBackend, Capability, Condition, Cursor, Glob, KeyPage,
    MemoryBackend, MemoryConfig, StoredValue, Write,
};
use askonce::clock::{Clock, Timestamp};
use askonce::typed::{Cache, CacheBuilder, Key};
use askonce::{Error, ErrorKind, Result};
use bytes::Bytes;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Shows tokio's time, which tests pause.
#[derive(Debug)]
struct TokioClock(Instant);

impl TokioClock {
    fn new() -> Arc<Self> {
        Arc::new(Self(Instant::now()))
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_790_000_000_000).after(self.0.elapsed())
    }
}

/// A memory backend that counts its requests, and fails on command.
#[derive(Debug)]
struct Store {
    memory: MemoryBackend,
    failing: AtomicBool,
    reads: AtomicUsize,
    requests: AtomicUsize,
}

impl Store {
    fn request(&self) -> Result<()> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        if self.failing.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::BackendUnavailable, "told to fail").retryable());
        }
        Ok(())
    }

    fn requests(&self) -> usize {
        self.requests.swap(0, Ordering::SeqCst)
    }
}

impl CacheBackend for Store {
    fn name(&self) -> &str {
        "store"
    }
    fn capability(&self) -> Capability {
        CacheBackend::capability(&self.memory)
    }
    async fn get(&self, key: &[u8]) -> Result<Option<StoredValue>> {
        self.request()?;
        self.reads.fetch_add(1, Ordering::SeqCst);
        CacheBackend::get(&self.memory, key).await
    }
    async fn set(&self, key: &[u8], value: Bytes, expires: Option<Timestamp>) -> Result<()> {
        self.request()?;
        CacheBackend::set(&self.memory, key, value, expires).await
    }
    async fn delete(&self, key: &[u8]) -> Result<bool> {
        self.request()?;
        CacheBackend::delete(&self.memory, key).await
    }
    async fn clear(&self) -> Result<()> {
        self.request()?;
        CacheBackend::clear(&self.memory).await
    }
    async fn usage(&self) -> Result<BackendUsage> {
        CacheBackend::usage(&self.memory).await
    }
    async fn get_many(&self, keys: &[Bytes]) -> Vec<Result<Option<StoredValue>>> {
        if let Err(error) = self.request() {
            return keys.iter().map(|_| Err(error.clone())).collect();
        }
        self.reads.fetch_add(1, Ordering::SeqCst);
        CacheBackend::get_many(&self.memory, keys).await
    }
    async fn set_many(&self, writes: &[Write]) -> Vec<Result<()>> {
        if let Err(error) = self.request() {
            return writes.iter().map(|_| Err(error.clone())).collect();
        }
        CacheBackend::set_many(&self.memory, writes).await
    }
    async fn delete_many(&self, keys: &[Bytes]) -> Vec<Result<bool>> {
        if let Err(error) = self.request() {
            return keys.iter().map(|_| Err(error.clone())).collect();
        }
        CacheBackend::delete_many(&self.memory, keys).await
    }
    async fn set_if(
        &self,
        key: &[u8],
        value: Bytes,
        expires: Option<Timestamp>,
        condition: Condition<'_>,
    ) -> Result<bool> {
        self.request()?;
        // Others get a turn between what was read and what is written.
        tokio::task::yield_now().await;
        CacheBackend::set_if(&self.memory, key, value, expires, condition).await
    }
    async fn delete_if(&self, key: &[u8], expected: &[u8]) -> Result<bool> {
        self.request()?;
        tokio::task::yield_now().await;
        CacheBackend::delete_if(&self.memory, key, expected).await
    }
    async fn touch(&self, key: &[u8], expires: Option<Timestamp>) -> Result<bool> {
        self.request()?;
        CacheBackend::touch(&self.memory, key, expires).await
    }
    async fn scan(&self, pattern: &Glob, cursor: Cursor, limit: usize) -> Result<KeyPage> {
        self.request()?;
        CacheBackend::scan(&self.memory, pattern, cursor, limit).await
    }
}

/// A store, and the time.
struct World {
    store: Arc<Store>,
    clock: Arc<TokioClock>,
}

impl World {
    fn new() -> Self {
        let clock = TokioClock::new();
        let memory = MemoryBackend::builder(MemoryConfig::default()).clock(Arc::clone(&clock) as _);
        let store = Arc::new(Store {
            memory: memory.build().expect("the default settings are valid"),
            failing: AtomicBool::new(false),
            reads: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
        });
        Self { store, clock }
    }

    fn backend(&self) -> BackendHandle {
        Arc::clone(&self.store) as _
    }

    fn builder(&self) -> CacheBuilder {
        Cache::builder(self.backend())
            .clock(Arc::clone(&self.clock) as _)
            .seed(7)
    }

    /// A process: a cache that shares nothing with others but the store.
    fn process(&self) -> Cache {
        self.builder().namespace("app").build().unwrap()
    }

    fn fail(&self, failing: bool) {
        self.store.failing.store(failing, Ordering::SeqCst);
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

fn key() -> Key {
    Key::new("key").part(1)
}

/// Counts its runs.
#[derive(Clone, Default)]
struct Loader(Arc<AtomicUsize>);

impl Loader {
    /// A load of `value` that takes so long.
    fn load<T>(&self, takes: Duration, value: T) -> impl Future<Output = T> + use<T> {
        let runs = Arc::clone(&self.0);
        async move {
            runs.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(takes).await;
            value
        }
    }

    fn runs(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Lets everything happen that needs no time.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}
