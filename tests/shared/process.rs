//! Pretended processes over one store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use askonce::admit::AdmissionConfig;
use askonce::backend::{
    BackendHandle, BackendUsage, BoxFuture, CacheBackend, Capability, Condition, Cursor, Feed,
    FeedBatch, FeedHandle, FeedPosition, Glob, KeyPage, MemoryBackend, MemoryConfig, StoredValue,
};
use askonce::clock::{ManualClock, Timestamp};
use askonce::config::Config;
use askonce::layer::{BreakerConfig, LayerConfig, Layered};
use askonce::tier::TierConfig;
use askonce::{Error, ErrorKind, HitKind, Outcome, Request, Result, SemanticCache};
use bytes::Bytes;

use crate::support::{builder, clock};

/// Longest life of a near copy in these tests.
pub(crate) const BOUND: Duration = Duration::from_secs(60);

/// Settings under which nothing happens by accident.
pub(crate) fn tiers() -> TierConfig {
    TierConfig {
        near_ttl: BOUND,
        near_ttl_jitter: 0.0,
        recovery_interval: Duration::from_millis(2),
        feed_wait: Duration::from_millis(20),
        feed_lag: Duration::from_secs(24 * 60 * 60),
        ..TierConfig::default()
    }
}

/// What all processes share.
pub(crate) struct World {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) store: Arc<MemoryBackend>,
}

pub(crate) fn memory(name: &str, clock: &Arc<ManualClock>) -> Arc<MemoryBackend> {
    let config = MemoryConfig {
        name: name.to_owned(),
        ..MemoryConfig::default()
    };
    let built = MemoryBackend::builder(config).clock(Arc::clone(clock) as _);
    Arc::new(built.build().expect("the settings are valid"))
}

/// One process: its cache, and its way to the store.
pub(crate) struct Process {
    pub(crate) cache: SemanticCache,
    pub(crate) way: Arc<Way>,
}

impl World {
    pub(crate) fn new() -> Self {
        let clock = clock();
        Self {
            store: memory("store", &clock),
            clock,
        }
    }

    /// A process with a memory tier of its own.
    pub(crate) async fn process(&self) -> Process {
        self.admitting(true, &AdmissionConfig::default()).await
    }

    /// A process that has nothing near.
    pub(crate) async fn bare(&self) -> Process {
        self.admitting(false, &AdmissionConfig::default()).await
    }

    /// A process with these rules for what is kept and shared.
    pub(crate) async fn admitting(&self, near: bool, admission: &AdmissionConfig) -> Process {
        let way = Way::to(&self.store);
        let layers = LayerConfig {
            retries: 0,
            breaker: BreakerConfig {
                enabled: false,
                ..BreakerConfig::default()
            },
            ..LayerConfig::default()
        };
        let layered = Layered::builder(Arc::clone(&way) as BackendHandle)
            .config(layers)
            .clock(Arc::clone(&self.clock) as _)
            .build()
            .expect("the settings are valid");
        let config = Config {
            tiers: tiers(),
            admission: admission.clone(),
            ..Config::default()
        };
        let mut built = builder(&self.clock).config(&config);
        if near {
            built = built.backend(memory("near", &self.clock));
        }
        let cache = built.layered(Arc::new(layered)).build().await;
        Process {
            cache: cache.expect("the settings are valid"),
            way,
        }
    }
}

impl Process {
    /// Which tier answers exactly this request; `None` when it is a miss.
    pub(crate) async fn tier_of(&self, request: &Request) -> Option<String> {
        match self.cache.lookup(request).await {
            Outcome::Hit(hit) => match hit.kind {
                HitKind::Exact { tier } => Some(tier.to_string()),
                HitKind::Semantic { .. } => Some("semantic".to_owned()),
            },
            Outcome::Miss(_) => None,
        }
    }

    /// Waits until a request is answered from memory.
    pub(crate) async fn has_near(&self, request: &Request) {
        eventually("it is near", || async {
            self.tier_of(request).await.as_deref() == Some("near")
        })
        .await;
    }

    /// Waits until a request is answered no more.
    pub(crate) async fn misses(&self, request: &Request) {
        eventually("it is a miss", || async {
            !self.cache.lookup(request).await.is_hit()
        })
        .await;
    }
}

/// Waits until something is so. The bound is for a machine that hangs.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, so: impl Fn() -> F) {
    for _ in 0..20_000 {
        if so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("waited in vain until {what}");
}

/// One process's way to the shared store, that can be cut off.
#[derive(Debug)]
pub(crate) struct Way {
    store: Arc<MemoryBackend>,
    /// Nothing comes through.
    pub(crate) down: AtomicBool,
    /// Reads of generations do not come through.
    pub(crate) no_marks: AtomicBool,
    /// Whether the store passes for a server.
    pub(crate) near: AtomicBool,
    /// Questions asked, of however many keys.
    pub(crate) reads: AtomicUsize,
    feed: Arc<WayToFeed>,
}

impl Way {
    pub(crate) fn to(store: &Arc<MemoryBackend>) -> Arc<Self> {
        Arc::new(Self {
            store: Arc::clone(store),
            down: AtomicBool::new(false),
            no_marks: AtomicBool::new(false),
            near: AtomicBool::new(false),
            reads: AtomicUsize::new(0),
            feed: Arc::new(WayToFeed {
                feed: CacheBackend::feed(&**store).expect("the memory backend has a feed"),
                down: AtomicBool::new(false),
                deaf: AtomicBool::new(false),
            }),
        })
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
        self.feed.down.store(down, Ordering::SeqCst);
    }

    /// Messages are lost on the way here, and nobody notices.
    pub(crate) fn deafen(&self) {
        self.feed.deaf.store(true, Ordering::SeqCst);
    }

    fn check(&self) -> Result<()> {
        check(&self.down)
    }

    async fn read(&self, key: &[u8]) -> Result<Option<StoredValue>> {
        self.check()?;
        if key.starts_with(b"!mark:") {
            check(&self.no_marks)?;
        }
        CacheBackend::get(&*self.store, key).await
    }
}

fn check(fault: &AtomicBool) -> Result<()> {
    if fault.load(Ordering::SeqCst) {
        return Err(Error::new(ErrorKind::BackendUnavailable, "told to fail"));
    }
    Ok(())
}

impl CacheBackend for Way {
    fn name(&self) -> &str {
        "store"
    }

    fn capability(&self) -> Capability {
        let mut capability = CacheBackend::capability(&*self.store);
        capability.in_process = self.near.load(Ordering::SeqCst);
        capability
    }

    async fn get(&self, key: &[u8]) -> Result<Option<StoredValue>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.read(key).await
    }

    async fn get_many(&self, keys: &[Bytes]) -> Vec<Result<Option<StoredValue>>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let mut found = Vec::new();
        for key in keys {
            found.push(self.read(key).await);
        }
        found
    }

    async fn set(&self, key: &[u8], value: Bytes, expires: Option<Timestamp>) -> Result<()> {
        self.check()?;
        CacheBackend::set(&*self.store, key, value, expires).await
    }

    async fn delete(&self, key: &[u8]) -> Result<bool> {
        self.check()?;
        CacheBackend::delete(&*self.store, key).await
    }

    async fn clear(&self) -> Result<()> {
        self.check()?;
        CacheBackend::clear(&*self.store).await
    }

    async fn usage(&self) -> Result<BackendUsage> {
        self.check()?;
        CacheBackend::usage(&*self.store).await
    }

    async fn set_if(
        &self,
        key: &[u8],
        value: Bytes,
        expires: Option<Timestamp>,
        condition: Condition<'_>,
    ) -> Result<bool> {
        self.check()?;
        CacheBackend::set_if(&*self.store, key, value, expires, condition).await
    }

    async fn touch(&self, key: &[u8], expires: Option<Timestamp>) -> Result<bool> {
        self.check()?;
        CacheBackend::touch(&*self.store, key, expires).await
    }

    async fn scan(&self, pattern: &Glob, cursor: Cursor, limit: usize) -> Result<KeyPage> {
        self.check()?;
        CacheBackend::scan(&*self.store, pattern, cursor, limit).await
    }

    fn feed(&self) -> Option<FeedHandle> {
        Some(Arc::clone(&self.feed) as FeedHandle)
    }
}

#[derive(Debug)]
struct WayToFeed {
    feed: FeedHandle,
    down: AtomicBool,
    deaf: AtomicBool,
}

impl Feed for WayToFeed {
    fn append(&self, message: Bytes) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            check(&self.down)?;
            self.feed.append(message).await
        })
    }

    fn tail(&self) -> BoxFuture<'_, Result<FeedPosition>> {
        Box::pin(async move {
            check(&self.down)?;
            self.feed.tail().await
        })
    }

    fn read(&self, after: FeedPosition, wait: Duration) -> BoxFuture<'_, Result<FeedBatch>> {
        Box::pin(async move {
            check(&self.down)?;
            let mut batch = self.feed.read(after, wait).await?;
            check(&self.down)?;
            if self.deaf.load(Ordering::SeqCst) {
                batch.messages.clear();
            }
            Ok(batch)
        })
    }
}
