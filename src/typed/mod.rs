//! A typed cache over any backend: what a program uses to keep the results of its own work.
//!
//! A [`Cache`] keeps serde values under [`Key`]s made of declared parts. A value, the knowledge that
//! there is none, an empty place and a failure are four different answers ([`Lookup`] and an error).
//! [`Cache::get_or_set`] and its kin run one load per key, however many callers ask at once, and never
//! fail because the cache does; [`Load`] adds stale values, early refreshes, time limits and leases that
//! make it one load for many processes. The attribute macros `cacheable`, `cache_put` and
//! `cache_invalidate` (feature `macros`) write these calls around a function.
//!
//! Always true: values written in one way are seen in every other, as there is one key for each; a
//! value of another type, and bytes that are damaged or belong to another key, are never returned; a
//! load that began before a write of its key is neither stored over it nor handed to callers who ask
//! after it; what was loaded before its tag was invalidated or its namespace cleared is not served
//! after that, in any process; a loader's error is never stored.
//!
//! Left to others: where the bytes lie ([`crate::backend`]) and in what form ([`crate::codec`]).
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use askonce::backend::{MemoryBackend, MemoryConfig};
//! use askonce::typed::{Cache, Key, Lookup};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> askonce::Result<()> {
//! let backend = Arc::new(MemoryBackend::builder(MemoryConfig::default()).build()?);
//! let cache = Cache::builder(backend).namespace("users").build()?;
//!
//! let key = Key::new("name").part(7);
//! let name = cache.get_or_set(&key, Duration::from_secs(60), || async { "Ada".to_owned() }).await;
//! assert_eq!(name, "Ada");
//! assert_eq!(cache.get::<String>(&key).await?, Lookup::Hit(name));
//!
//! cache.delete(&key).await?;
//! assert_eq!(cache.get::<String>(&key).await?, Lookup::Miss);
//! # Ok(())
//! # }
//! ```

mod backoff;
mod builder;
mod detached;
mod fresh;
mod gate;
mod held;
mod key;
mod lease;
mod load;
mod marks;
mod ops;
mod options;
mod sync;
mod value;

#[doc(hidden)]
pub mod expansion;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::backend::BackendHandle;
use crate::clock::{ClockHandle, Timestamp};
use crate::codec::{Codec, EnvelopeError, Header, Mark};
use crate::entry::{jittered, zero_life};
use crate::error::{Error, ErrorKind, Result};
use crate::observe;
use crate::stampede::SingleFlight;

use backoff::Backoff;
use gate::Gates;
use key::{Digest, Namespace, Place};
use load::{Landed, LoadId};
use marks::MarkName;
use value::{Found, Payload};

pub use crate::entry::Ttl;
#[cfg(feature = "macros")]
pub use askonce_macros::CacheValue;
pub use builder::CacheBuilder;
pub use detached::Detached;
pub use fresh::Fresh;
pub use key::{Key, KeyPart, KeyWriter, Text};
pub use lease::LeaseOptions;
pub use load::{Load, Loaded};
pub use ops::{Keys, Remaining, Version};
pub use options::SetOptions;
pub use sync::SyncCache;
pub use value::{CacheValue, Lookup};

/// A typed cache in one namespace of a backend; see the [module](self).
///
/// Cheap to clone. Clones and [namespaces](Self::namespace) share their loads and see each other's
/// writes during them; two caches built separately over one backend share only what is stored.
#[derive(Clone)]
pub struct Cache {
    inner: Arc<Inner>,
    namespace: Arc<Space>,
}

/// A namespace, and the marks of what lies in it: its own, and those of the namespaces around it.
#[derive(Clone, Debug, Default)]
struct Space {
    name: Namespace,
    marks: Vec<MarkName>,
}

impl Space {
    fn within(&self, name: &impl KeyPart) -> Self {
        let name = self.name.within(name);
        let mut marks = self.marks.clone();
        marks.push(marks::of_namespace(&name));
        Self { name, marks }
    }
}

/// What a cache and its namespaces share.
struct Inner {
    backend: BackendHandle,
    clock: ClockHandle,
    default_ttl: Option<Duration>,
    jitter: f64,
    hashed_keys: bool,
    generations: bool,
    /// Whether callers share loads.
    single_flight: bool,
    /// How loads are shared with other processes, unless a load says.
    lease: Option<LeaseOptions>,
    codec: Codec,
    chance: Mutex<StdRng>,
    gates: Gates,
    loads: SingleFlight<LoadId, Landed>,
    /// Keys whose old values are being replaced in the background.
    refreshing: Mutex<HashSet<Digest>>,
    backoff: Backoff,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("backend", &self.inner.backend.name())
            .field("default_ttl", &self.inner.default_ttl)
            .field("loads", &self.inner.loads)
            .finish_non_exhaustive()
    }
}

impl Inner {
    /// A number from 0 to 1, the latter not included.
    fn draw(&self) -> f64 {
        self.chance.lock().random()
    }
}

impl Cache {
    /// A cache without a namespace, whose values live forever unless told otherwise.
    #[must_use]
    pub fn new(backend: BackendHandle) -> Self {
        CacheBuilder::new(backend).finish()
    }

    /// Starts a cache with settings of its own.
    #[must_use]
    pub fn builder(backend: BackendHandle) -> CacheBuilder {
        CacheBuilder::new(backend)
    }

    /// The part of this cache under `name`: no key of it is a key of this cache, or of a part under
    /// another name.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use askonce::backend::{MemoryBackend, MemoryConfig};
    /// # use askonce::typed::{Cache, Key, Lookup, Ttl};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> askonce::Result<()> {
    /// # let backend = Arc::new(MemoryBackend::builder(MemoryConfig::default()).build()?);
    /// let cache = Cache::new(backend);
    /// let (acme, globex) = (cache.namespace(("tenant", 1)), cache.namespace(("tenant", 2)));
    /// acme.set(&Key::new("plan"), &"gold".to_owned(), Ttl::Forever).await?;
    /// assert_eq!(globex.get::<String>(&Key::new("plan")).await?, Lookup::Miss);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn namespace(&self, name: impl KeyPart) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            namespace: Arc::new(self.namespace.within(&name)),
        }
    }

    /// The value under `key`, or else the one that `loader` gives, which is then stored for `ttl`.
    ///
    /// `loader` runs once for all callers that ask at the same time; [`load`](Self::load) tells what
    /// happens if it is cancelled, panics, or meets a write. No failure of the backend surfaces here:
    /// it is logged and counted, and the loader runs.
    pub async fn get_or_set<T, F, Fut>(&self, key: &Key, ttl: impl Into<Ttl>, loader: F) -> T
    where
        T: CacheValue,
        F: FnOnce() -> Fut,
        Fut: Future<Output = T>,
    {
        self.load(key).ttl(ttl).run(loader).await
    }

    /// As [`get_or_set`](Self::get_or_set), for a loader that may fail.
    ///
    /// # Errors
    /// Only what `loader` returns. The error is given to everybody who waits for this load, and not
    /// kept: the next caller loads anew. An error that is not [`Clone`] fits in an [`Arc`].
    pub async fn get_or_try_set<T, E, F, Fut>(
        &self,
        key: &Key,
        ttl: impl Into<Ttl>,
        loader: F,
    ) -> Result<T, E>
    where
        T: CacheValue,
        E: Clone + Send + Sync + 'static,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        self.load(key).ttl(ttl).run(loader).await
    }

    fn place(&self, key: &Key) -> Place {
        self.namespace.name.place(key, self.inner.hashed_keys)
    }

    /// The header of a value that is stored now for `ttl`, less a share that `jitter` allows, and may
    /// be served for `stale` after that.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] when it would live for no time.
    fn header(
        &self,
        ttl: Ttl,
        jitter: Option<f64>,
        stale: Duration,
        marks: Vec<Mark>,
    ) -> Result<Header> {
        let inner = &self.inner;
        let life = ttl.life(inner.default_ttl);
        if life == Some(Duration::ZERO) {
            return Err(zero_life());
        }
        let jitter = jitter.unwrap_or(inner.jitter);
        let life = match life {
            Some(life) if jitter > 0.0 => Some(jittered(life, jitter, inner.draw())),
            life => life,
        };
        let created = inner.clock.now();
        let expires = life.map(|life| created.after(life.max(Duration::from_millis(1))));
        Ok(Header {
            created,
            expires,
            stale_until: expires
                .filter(|_| !stale.is_zero())
                .map(|expires| expires.after(stale)),
            marks,
            ..Header::default()
        })
    }

    /// The stored form of a value, or of a null.
    fn seal<T: CacheValue>(
        &self,
        place: &Place,
        header: &Header,
        value: Option<&T>,
    ) -> Result<Bytes> {
        let key = place.digest.as_bytes();
        let sealed = self.inner.codec.seal(key, header, &Payload(value));
        let readable = sealed.and_then(|bytes| self.readable::<T>(key, bytes));
        readable.map_err(|error| {
            let kind = match error {
                EnvelopeError::TooLarge { .. } => ErrorKind::TooLarge,
                _ => ErrorKind::InvalidRequest,
            };
            Error::new(kind, "the value has no stored form")
                .with("type", T::schema())
                .caused_by(error)
        })
    }

    fn unusable(&self, message: &'static str) -> Error {
        Error::new(ErrorKind::Corrupt, message).with("tier", self.inner.backend.name())
    }

    /// The error of an operation that others have kept from finishing.
    fn contended(&self, operation: &'static str) -> Error {
        Error::new(ErrorKind::BackendUnavailable, "too many writers of one key")
            .with("tier", self.inner.backend.name())
            .with("operation", operation)
            .retryable()
    }

    fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// `bytes`, if what is sealed in them can be read. Where the format does not describe itself, that
    /// a value can be written does not mean that.
    fn readable<T: CacheValue>(
        &self,
        key: &[u8; 32],
        bytes: Bytes,
    ) -> Result<Bytes, EnvelopeError> {
        let codec = &self.inner.codec;
        let serializer = codec.serializer();
        if serializer.is_self_describing() {
            return Ok(bytes);
        }
        let envelope = codec.open(key, &bytes)?;
        match envelope.read_front::<Found<T>>() {
            Ok((Found::Value(_) | Found::Null, true)) => Ok(bytes),
            _ => Err(EnvelopeError::Unfaithful {
                serializer: serializer.as_str(),
            }),
        }
    }

    /// Notes a failure that must not reach the caller.
    fn report(&self, operation: &'static str, error: &Error) {
        let tier = self.inner.backend.name();
        observe::backend_error(tier, operation);
        tracing::warn!(tier, operation, kind = %error.kind(), %error, "the cache was passed over");
    }
}

#[cfg(test)]
mod tests;
