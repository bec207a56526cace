//! A far tier that can be cut off, paused and deceived, one handle per pretended process, and short ways
//! to build stacks over it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use askonce::backend::{
    BackendHandle, BackendUsage, BoxFuture, ByteSize, CacheBackend, Capability, Condition, Cursor,
    Feed, FeedBatch, FeedHandle, FeedPosition, Glob, KeyPage, MemoryBackend, MemoryConfig,
    StoredValue, Write,
};
use askonce::clock::{ManualClock, Timestamp};
use askonce::tier::{Coherence, TierConfig, TieredBackend};
use askonce::{Error, ErrorKind, Result};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

pub(crate) fn clock() -> Arc<ManualClock> {
    ManualClock::starting_at(Timestamp::from_millis(1_790_000_000_000))
}

pub(crate) fn memory(clock: &Arc<ManualClock>) -> Arc<MemoryBackend> {
    let config = MemoryConfig {
        max_bytes: ByteSize::mib(4),
        ..MemoryConfig::default()
    };
    let builder = MemoryBackend::builder(config).clock(Arc::clone(clock) as _);
    Arc::new(builder.build().expect("the settings are valid"))
}

/// Settings under which nothing happens by accident: copies live a minute, whatever the clock does the
/// feed is not overdue, and what can be tried again is tried at once.
pub(crate) fn config() -> TierConfig {
    TierConfig {
        near_ttl: Duration::from_secs(60),
        near_ttl_jitter: 0.0,
        recovery_interval: Duration::from_millis(2),
        feed_wait: Duration::from_millis(20),
        feed_lag: Duration::from_secs(24 * 60 * 60),
        ..TierConfig::default()
    }
}

/// What one pretended process has: its near tier, its way to the far one, and the stack of both.
pub(crate) struct Process {
    pub(crate) near: Arc<MemoryBackend>,
    pub(crate) far: Arc<Far>,
    pub(crate) tiers: TieredBackend,
}

impl Process {
    /// A process that shares `store`, as soon as it trusts its near tier.
    pub(crate) async fn of(store: &Arc<MemoryBackend>, clock: &Arc<ManualClock>) -> Self {
        Self::with(store, clock, config()).await
    }

    pub(crate) async fn with(
        store: &Arc<MemoryBackend>,
        clock: &Arc<ManualClock>,
        config: TierConfig,
    ) -> Self {
        let process = Self::starting(clock, config, Far::over(store));
        process.is_trusted().await;
        process
    }

    /// A process that has not done anything yet.
    pub(crate) fn starting(clock: &Arc<ManualClock>, config: TierConfig, far: Arc<Far>) -> Self {
        let near = memory(clock);
        let builder = TieredBackend::builder(near.clone(), far.clone() as BackendHandle);
        let builder = builder.clock(Arc::clone(clock) as _).config(config);
        let tiers = builder.build().expect("the settings are valid");
        Self { near, far, tiers }
    }

    pub(crate) async fn is_trusted(&self) {
        // An operation starts the task that reads the feed.
        let _ = self.tiers.ping().await;
        eventually("the near tier is trusted", || async {
            self.tiers.coherence() == Coherence::Trusted
        })
        .await;
    }

    pub(crate) async fn set(&self, key: &str, value: &str) {
        let value = Bytes::copy_from_slice(value.as_bytes());
        self.tiers.set(key.as_bytes(), value, None).await.unwrap();
    }

    pub(crate) async fn value(&self, key: &str) -> Option<String> {
        Some(text(&self.tiers.get(key.as_bytes()).await.unwrap()?))
    }

    /// The value and how far away it was.
    pub(crate) async fn found(&self, key: &str) -> Option<(String, u8)> {
        let held = self.tiers.get(key.as_bytes()).await.unwrap()?;
        Some((text(&held), held.depth))
    }

    /// Whether the near tier has something under `key`.
    pub(crate) async fn has_copy(&self, key: &str) -> bool {
        let held = CacheBackend::get(&*self.near, key.as_bytes()).await;
        held.unwrap().is_some()
    }

    pub(crate) async fn nothing_owed(&self) {
        eventually("nothing is owed", || async { self.tiers.owed() == 0 }).await;
    }
}

pub(crate) fn text(held: &StoredValue) -> String {
    String::from_utf8(held.bytes.to_vec()).unwrap()
}

/// Waits until all that `writer` has said so far has been heard by `reader`.
pub(crate) async fn heard(writer: &Process, reader: &Process) {
    // The feed is in order: when the news of this key has come, so has everything before it.
    static SIGNS: AtomicUsize = AtomicUsize::new(0);
    let sign = format!("sign-{}", SIGNS.fetch_add(1, Ordering::SeqCst));
    let planted = Bytes::from_static(b"planted");
    CacheBackend::set(&*reader.near, sign.as_bytes(), planted, None)
        .await
        .unwrap();
    writer.tiers.delete(sign.as_bytes()).await.unwrap();
    eventually("the other process has heard", || async {
        !reader.has_copy(&sign).await
    })
    .await;
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

/// How one operation of a [`Far`] is to go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Nothing happens, and that is said.
    Down,
    /// It happens and no answer comes: a timeout.
    NoAnswer,
    /// It happens and the answer never comes.
    Hang,
}

/// What a paused read waits for.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    pub(crate) reached: Notify,
    pub(crate) go_on: Notify,
}

/// One process's way to a shared store.
#[derive(Debug)]
pub(crate) struct Far {
    store: Arc<MemoryBackend>,
    fault: Mutex<Fault>,
    pub(crate) feed: Arc<FarFeed>,
    pub(crate) has_feed: AtomicBool,
    pub(crate) lists_keys: AtomicBool,
    /// Largest value taken.
    pub(crate) limit: AtomicUsize,
    pub(crate) reads: AtomicUsize,
    pause: Mutex<Option<Arc<Pause>>>,
}

impl Far {
    pub(crate) fn over(store: &Arc<MemoryBackend>) -> Arc<Self> {
        Arc::new(Self {
            store: Arc::clone(store),
            fault: Mutex::new(Fault::None),
            feed: Arc::new(FarFeed {
                feed: CacheBackend::feed(&**store).expect("the memory backend has a feed"),
                down: AtomicBool::new(false),
                deaf: AtomicBool::new(false),
                mute: AtomicBool::new(false),
            }),
            has_feed: AtomicBool::new(true),
            lists_keys: AtomicBool::new(true),
            limit: AtomicUsize::new(usize::MAX),
            reads: AtomicUsize::new(0),
            pause: Mutex::default(),
        })
    }

    pub(crate) fn set_fault(&self, fault: Fault) {
        *self.fault.lock() = fault;
        self.feed.down.store(fault == Fault::Down, Ordering::SeqCst);
    }

    /// Stops the next read between what it found and its answer.
    pub(crate) fn pause_next_read(&self) -> Arc<Pause> {
        let pause = Arc::new(Pause::default());
        *self.pause.lock() = Some(Arc::clone(&pause));
        pause
    }

    async fn go<T>(&self, operation: impl Future<Output = Result<T>>) -> Result<T> {
        let fault = *self.fault.lock();
        if fault == Fault::Down {
            return Err(Error::new(ErrorKind::BackendUnavailable, "told to fail"));
        }
        let result = operation.await;
        match fault {
            Fault::Hang => std::future::pending().await,
            Fault::NoAnswer => Err(Error::new(ErrorKind::Timeout, "told not to answer")),
            Fault::None | Fault::Down => result,
        }
    }
}

impl CacheBackend for Far {
    fn name(&self) -> &str {
        "far"
    }

    fn capability(&self) -> Capability {
        let mut capability = CacheBackend::capability(&*self.store);
        capability.lists_keys = self.lists_keys.load(Ordering::SeqCst);
        capability
    }

    async fn get(&self, key: &[u8]) -> Result<Option<StoredValue>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let found = self.go(CacheBackend::get(&*self.store, key)).await;
        let pause = self.pause.lock().take();
        if let Some(pause) = pause {
            pause.reached.notify_one();
            pause.go_on.notified().await;
        }
        found
    }

    async fn get_many(&self, keys: &[Bytes]) -> Vec<Result<Option<StoredValue>>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let mut found = Vec::new();
        for key in keys {
            found.push(self.go(CacheBackend::get(&*self.store, key)).await);
        }
        found
    }

    async fn set(&self, key: &[u8], value: Bytes, expires: Option<Timestamp>) -> Result<()> {
        if value.len() > self.limit.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::TooLarge, "told to be small"));
        }
        self.go(CacheBackend::set(&*self.store, key, value, expires))
            .await
    }

    async fn set_many(&self, writes: &[Write]) -> Vec<Result<()>> {
        let mut stored = Vec::new();
        for write in writes {
            let Write {
                key,
                value,
                expires,
            } = write.clone();
            stored.push(CacheBackend::set(self, &key, value, expires).await);
        }
        stored
    }

    async fn delete(&self, key: &[u8]) -> Result<bool> {
        self.go(CacheBackend::delete(&*self.store, key)).await
    }

    async fn clear(&self) -> Result<()> {
        self.go(CacheBackend::clear(&*self.store)).await
    }

    async fn usage(&self) -> Result<BackendUsage> {
        self.go(CacheBackend::usage(&*self.store)).await
    }

    async fn set_if(
        &self,
        key: &[u8],
        value: Bytes,
        expires: Option<Timestamp>,
        condition: Condition<'_>,
    ) -> Result<bool> {
        let done = CacheBackend::set_if(&*self.store, key, value, expires, condition);
        self.go(done).await
    }

    async fn delete_if(&self, key: &[u8], expected: &[u8]) -> Result<bool> {
        self.go(CacheBackend::delete_if(&*self.store, key, expected))
            .await
    }

    async fn take(&self, key: &[u8]) -> Result<Option<StoredValue>> {
        self.go(CacheBackend::take(&*self.store, key)).await
    }

    async fn touch(&self, key: &[u8], expires: Option<Timestamp>) -> Result<bool> {
        self.go(CacheBackend::touch(&*self.store, key, expires))
            .await
    }

    async fn increment(&self, key: &[u8], by: i64, expires: Option<Timestamp>) -> Result<i64> {
        self.go(CacheBackend::increment(&*self.store, key, by, expires))
            .await
    }

    async fn scan(&self, pattern: &Glob, cursor: Cursor, limit: usize) -> Result<KeyPage> {
        self.go(CacheBackend::scan(&*self.store, pattern, cursor, limit))
            .await
    }

    async fn delete_matching(&self, pattern: &Glob) -> Result<u64> {
        self.go(CacheBackend::delete_matching(&*self.store, pattern))
            .await
    }

    fn feed(&self) -> Option<FeedHandle> {
        let has_feed = self.has_feed.load(Ordering::SeqCst);
        has_feed.then(|| Arc::clone(&self.feed) as FeedHandle)
    }
}

/// One process's way to the feed of a shared store.
#[derive(Debug)]
pub(crate) struct FarFeed {
    feed: FeedHandle,
    /// Every operation is an error.
    pub(crate) down: AtomicBool,
    /// Messages are lost on the way here, and nobody notices.
    pub(crate) deaf: AtomicBool,
    /// Messages from here are refused.
    pub(crate) mute: AtomicBool,
}

impl FarFeed {
    fn check(&self, fault: &AtomicBool) -> Result<()> {
        if fault.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::BackendUnavailable, "told to fail"));
        }
        Ok(())
    }
}

impl Feed for FarFeed {
    fn append(&self, message: Bytes) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.check(&self.down)?;
            self.check(&self.mute)?;
            self.feed.append(message).await
        })
    }

    fn tail(&self) -> BoxFuture<'_, Result<FeedPosition>> {
        Box::pin(async move {
            self.check(&self.down)?;
            self.feed.tail().await
        })
    }

    fn read(&self, after: FeedPosition, wait: Duration) -> BoxFuture<'_, Result<FeedBatch>> {
        Box::pin(async move {
            self.check(&self.down)?;
            let mut batch = self.feed.read(after, wait).await?;
            // Also for a read that was under way when the connection went down.
            self.check(&self.down)?;
            if self.deaf.load(Ordering::SeqCst) {
                batch.messages.clear();
            }
            Ok(batch)
        })
    }
}
