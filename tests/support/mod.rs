//! What the engine's tests share: a clock that is told the time, an embedder whose similarities are
//! chosen by the test, a backend that misbehaves on command, and short ways to say common things.
#![allow(dead_code, reason = "each test binary uses its own part")]

#[cfg(feature = "redis")]
pub(crate) mod server;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use askonce::backend::{
    BackendUsage, CacheBackend, Capability, MemoryBackend, MemoryConfig, StoredValue,
};
use askonce::clock::{ManualClock, Timestamp};
use askonce::policy::Threshold;
use askonce::{
    Answer, CacheBuilder, EntryId, Error, ErrorKind, Request, Result, Scope, SemanticCache,
    StoreOptions,
};
use askonce_models::{Embedder, ModelError, ModelId};
use bytes::Bytes;
use parking_lot::Mutex;

/// A clock that shows a plausible date.
pub(crate) fn clock() -> Arc<ManualClock> {
    ManualClock::starting_at(Timestamp::from_millis(1_790_000_000_000))
}

/// A request of tenant `acme` to `gpt-4o`.
pub(crate) fn ask(text: &str) -> Request {
    Request::prompt(text)
        .model("gpt-4o")
        .scope(Scope::tenant("acme"))
}

/// A builder whose cache serves at a similarity of 0.9 and reads `clock`.
pub(crate) fn builder(clock: &Arc<ManualClock>) -> CacheBuilder {
    let policy = Threshold::new(0.9).expect("0.9 is in range");
    SemanticCache::builder()
        .clock(Arc::clone(clock) as _)
        .policy(Arc::new(policy))
}

/// Stores a text answer and returns its entry.
pub(crate) async fn put(cache: &SemanticCache, text: &str, answer: &str) -> EntryId {
    put_with(cache, &ask(text), answer, StoreOptions::default()).await
}

/// Stores a text answer with options and returns its entry.
pub(crate) async fn put_with(
    cache: &SemanticCache,
    request: &Request,
    answer: &str,
    options: StoreOptions,
) -> EntryId {
    let stored = cache.store(request, Answer::text(answer), options).await;
    stored
        .entry()
        .unwrap_or_else(|| panic!("not stored: {stored:?}"))
}

/// The answer that `request` is given, or the name of the reason why there is none.
pub(crate) async fn answer_to(cache: &SemanticCache, request: &Request) -> Result<String, String> {
    match cache.lookup(request).await {
        askonce::Outcome::Hit(hit) => Ok(hit.answer.as_str().to_owned()),
        askonce::Outcome::Miss(miss) => Err(miss.reason().to_string()),
    }
}

/// Embeds texts by a table of two-dimensional angles, so that a test chooses similarities. Texts not in
/// the table are at right angles to all others, each in a dimension of its own.
#[derive(Debug)]
pub(crate) struct AngleEmbedder {
    id: ModelId,
    degrees: HashMap<&'static str, f32>,
    others: Mutex<Vec<String>>,
    pub(crate) calls: AtomicUsize,
    pub(crate) fail: AtomicBool,
    pub(crate) hang: AtomicBool,
}

impl AngleEmbedder {
    const DIMENSION: usize = 64;

    pub(crate) fn new(degrees: &[(&'static str, f32)]) -> Arc<Self> {
        Self::named("angles", degrees)
    }

    /// One of another space.
    pub(crate) fn named(name: &str, degrees: &[(&'static str, f32)]) -> Arc<Self> {
        Arc::new(Self {
            id: ModelId::new(name, "1", "none"),
            degrees: degrees.iter().copied().collect(),
            others: Mutex::default(),
            calls: AtomicUsize::new(0),
            fail: AtomicBool::new(false),
            hang: AtomicBool::new(false),
        })
    }
}

/// The similarity of two texts that are so many degrees apart.
pub(crate) fn similarity(degrees: f32) -> f32 {
    degrees.to_radians().cos()
}

impl Embedder for AngleEmbedder {
    fn id(&self) -> &ModelId {
        &self.id
    }

    fn dimension(&self) -> usize {
        Self::DIMENSION
    }

    async fn embed(&self, texts: &[&str]) -> Result<Vec<f32>, ModelError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.hang.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.fail.load(Ordering::SeqCst) {
            return Err(ModelError::NotFinite {
                model: "angles".to_owned(),
                position: 0,
            });
        }
        let mut rows = Vec::new();
        for &text in texts {
            let mut row = [0.0; Self::DIMENSION];
            if let Some(degrees) = self.degrees.get(text) {
                (row[0], row[1]) = (degrees.to_radians().cos(), degrees.to_radians().sin());
            } else {
                let mut others = self.others.lock();
                let known = others.iter().position(|other| other == text);
                let place = known.unwrap_or_else(|| {
                    others.push(text.to_owned());
                    others.len() - 1
                });
                row[2 + place % (Self::DIMENSION - 2)] = 1.0;
            }
            rows.extend(row);
        }
        Ok(rows)
    }
}

/// How a [`FaultyBackend`] misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Every operation is an error.
    Fail,
    /// Writes are acknowledged and lost.
    DropWrites,
    /// Reads return bytes that are no envelope.
    Garbage,
    /// Reads return another key's value.
    WrongKey,
    /// Expired values are returned as if they were alive.
    Undead,
}

/// A memory backend that misbehaves on command.
#[derive(Debug)]
pub(crate) struct FaultyBackend {
    name: &'static str,
    fault: Mutex<Fault>,
    values: Mutex<HashMap<Vec<u8>, Bytes>>,
    good: MemoryBackend,
}

impl FaultyBackend {
    pub(crate) fn new(name: &'static str, clock: &Arc<ManualClock>) -> Arc<Self> {
        let good = MemoryBackend::builder(MemoryConfig::default()).clock(Arc::clone(clock) as _);
        Arc::new(Self {
            name,
            fault: Mutex::new(Fault::None),
            values: Mutex::default(),
            good: good.build().expect("the default settings are valid"),
        })
    }

    pub(crate) fn set_fault(&self, fault: Fault) {
        *self.fault.lock() = fault;
    }

    fn fault(&self) -> Fault {
        *self.fault.lock()
    }

    fn check(&self) -> Result<()> {
        if self.fault() == Fault::Fail {
            return Err(Error::new(ErrorKind::BackendUnavailable, "told to fail").retryable());
        }
        Ok(())
    }
}

/// A value that claims to live forever.
fn alive(bytes: Bytes) -> StoredValue {
    StoredValue::new(bytes, None)
}

impl CacheBackend for FaultyBackend {
    fn name(&self) -> &str {
        self.name
    }

    fn capability(&self) -> Capability {
        CacheBackend::capability(&self.good)
    }

    async fn get(&self, key: &[u8]) -> Result<Option<StoredValue>> {
        self.check()?;
        match self.fault() {
            Fault::Garbage => Ok(Some(alive(Bytes::from_static(b"garbage in a tier")))),
            Fault::WrongKey => Ok(self.values.lock().values().next().cloned().map(alive)),
            Fault::Undead => Ok(self.values.lock().get(key).cloned().map(alive)),
            _ => CacheBackend::get(&self.good, key).await,
        }
    }

    async fn set(&self, key: &[u8], value: Bytes, expires: Option<Timestamp>) -> Result<()> {
        self.check()?;
        if self.fault() == Fault::DropWrites {
            return Ok(());
        }
        self.values.lock().insert(key.to_vec(), value.clone());
        CacheBackend::set(&self.good, key, value, expires).await
    }

    async fn delete(&self, key: &[u8]) -> Result<bool> {
        self.check()?;
        self.values.lock().remove(key);
        CacheBackend::delete(&self.good, key).await
    }

    async fn clear(&self) -> Result<()> {
        self.check()?;
        self.values.lock().clear();
        CacheBackend::clear(&self.good).await
    }

    async fn usage(&self) -> Result<BackendUsage> {
        self.check()?;
        CacheBackend::usage(&self.good).await
    }
}
