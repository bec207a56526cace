//! A typed cache over any backend: what a program uses to keep the results of its own work.
//!
//! A [`Cache`] keeps serde values under [`Key`]s made of declared parts. A value, the knowledge that
//! there is none, an empty place and a failure are four different answers ([`Lookup`] and an error).
//! [`Cache::get_or_set`] and its kin run one load per key, however many callers ask at once, and never
//! fail because the cache does. The attribute macros `cacheable`, `cache_put` and `cache_invalidate`
//! (feature `macros`) write these calls around a function.
//!
//! Always true: values written in one way are seen in every other, as there is one key for each; a
//! value of another type, and bytes that are damaged or belong to another key, are never returned; a
//! load that began before a write of its key is neither stored over it nor handed to callers who ask
//! after it; a loader's error is never stored.
//!
//! Left to others: where the bytes lie ([`crate::backend`]) and in what form ([`crate::codec`]).
//! Coalescing across processes, tags and clearing a namespace need more than the backends promise
//! today, so there is no method that would only pretend to do it.
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

mod builder;
mod gate;
mod key;
mod load;
mod value;

#[doc(hidden)]
pub mod expansion;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::backend::BackendHandle;
use crate::clock::{ClockHandle, Timestamp};
use crate::codec::{Codec, Envelope, Header};
use crate::error::{Error, ErrorKind, Result};
use crate::observe;
use crate::stampede::SingleFlight;

use gate::Gates;
use key::Digest;
use load::{Landed, LoadId};
use value::{Found, Payload};

pub use crate::entry::Ttl;
#[cfg(feature = "macros")]
pub use askonce_macros::CacheValue;
pub use builder::CacheBuilder;
pub use key::{Key, KeyPart, KeyWriter, Text};
pub use load::{Load, Loaded};
pub use value::{CacheValue, Lookup};

/// A typed cache in one namespace of a backend; see the [module](self).
///
/// Cheap to clone. Clones and [namespaces](Self::namespace) share their loads and see each other's
/// writes during them; two caches built separately over one backend share only what is stored.
#[derive(Clone)]
pub struct Cache {
    inner: Arc<Inner>,
    namespace: KeyWriter,
}

/// What a cache and its namespaces share.
struct Inner {
    backend: BackendHandle,
    clock: ClockHandle,
    codec: Codec,
    default_ttl: Option<Duration>,
    gates: Gates,
    loads: SingleFlight<LoadId, Landed>,
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

/// A live value as a backend gave it.
struct Sealed {
    envelope: Envelope,
    bytes: Bytes,
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
        let mut namespace = self.namespace.clone();
        name.write(&mut namespace);
        Self {
            inner: Arc::clone(&self.inner),
            namespace,
        }
    }

    /// What is stored under `key`.
    ///
    /// # Errors
    /// - [`ErrorKind::Corrupt`] when what is stored is no `T`, is damaged, or belongs to another key.
    /// - Whatever the backend reports.
    pub async fn get<T: CacheValue>(&self, key: &Key) -> Result<Lookup<T>> {
        self.read(self.digest(key)).await.map(|(lookup, _)| lookup)
    }

    /// What is stored under each key, in order. That one of them cannot be read says nothing of the
    /// others.
    pub async fn get_many<T: CacheValue>(&self, keys: &[Key]) -> Vec<Result<Lookup<T>>> {
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            found.push(self.get(key).await);
        }
        found
    }

    /// Stores `value` under `key`, in place of what is there, for `ttl`.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidRequest`] when `ttl` is zero, or `value` has no faithful stored form.
    /// - Whatever the backend reports. What was stored before may then still be.
    pub async fn set<T: CacheValue>(
        &self,
        key: &Key,
        value: &T,
        ttl: impl Into<Ttl>,
    ) -> Result<()> {
        self.put(self.digest(key), Some(value), ttl.into()).await
    }

    /// Stores each value under its key for `ttl`; one result for each, in order.
    pub async fn set_many<T: CacheValue>(
        &self,
        values: &[(Key, T)],
        ttl: impl Into<Ttl>,
    ) -> Vec<Result<()>> {
        let ttl = ttl.into();
        let mut stored = Vec::with_capacity(values.len());
        for (key, value) in values {
            stored.push(self.set(key, value, ttl).await);
        }
        stored
    }

    /// Stores that there is no value under `key`, in place of what is there, for `ttl`.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub async fn set_null(&self, key: &Key, ttl: impl Into<Ttl>) -> Result<()> {
        self.put(self.digest(key), None::<&String>, ttl.into())
            .await
    }

    /// Removes what is stored under `key`; `true` when it was a value or a null that was alive.
    ///
    /// # Errors
    /// Whatever the backend reports. The value may then still be stored.
    pub async fn delete(&self, key: &Key) -> Result<bool> {
        let digest = self.digest(key);
        let backend = &self.inner.backend;
        self.inner
            .gates
            .of(digest)
            .write(backend.delete(digest.as_bytes()))
            .await
    }

    /// Removes what is stored under each key; one result for each, in order.
    pub async fn delete_many(&self, keys: &[Key]) -> Vec<Result<bool>> {
        let mut deleted = Vec::with_capacity(keys.len());
        for key in keys {
            deleted.push(self.delete(key).await);
        }
        deleted
    }

    /// Whether a value or a null, of whatever type, is stored under `key`.
    ///
    /// # Errors
    /// As [`get`](Self::get), except that every type will do.
    pub async fn exists(&self, key: &Key) -> Result<bool> {
        self.sealed(self.digest(key))
            .await
            .map(|sealed| sealed.is_some())
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

    fn digest(&self, key: &Key) -> Digest {
        key.digest(&self.namespace)
    }

    /// What is stored, and in what form.
    async fn read<T: CacheValue>(&self, key: Digest) -> Result<(Lookup<T>, Bytes)> {
        match self.sealed(key).await? {
            Some(Sealed { envelope, bytes }) => Ok((self.open(&envelope)?, bytes)),
            None => Ok((Lookup::Miss, Bytes::new())),
        }
    }

    /// The live envelope under `key`. A backend that returns the dead is not believed.
    async fn sealed(&self, key: Digest) -> Result<Option<Sealed>> {
        let Some(held) = self.inner.backend.get(key.as_bytes()).await? else {
            return Ok(None);
        };
        let bytes = held.bytes;
        let opened = self.inner.codec.open(key.as_bytes(), &bytes);
        let envelope = opened.map_err(|error| {
            self.unusable("the stored bytes cannot be read")
                .caused_by(error)
        })?;
        let now = self.inner.clock.now();
        let live = envelope.header.is_fresh(now);
        Ok(live.then_some(Sealed { envelope, bytes }))
    }

    fn open<T: CacheValue>(&self, envelope: &Envelope) -> Result<Lookup<T>> {
        match envelope.read::<Found<T>>() {
            Ok(Found::Value(value)) => Ok(Lookup::Hit(value)),
            Ok(Found::Null) => Ok(Lookup::Null),
            Ok(Found::Other(stored)) => Err(self
                .unusable("the stored value is of another type")
                .with("stored", stored)
                .with("asked", T::schema())),
            Err(error) => Err(self
                .unusable("the stored value does not fit its type")
                .with("asked", T::schema())
                .caused_by(error)),
        }
    }

    fn unusable(&self, message: &'static str) -> Error {
        Error::new(ErrorKind::Corrupt, message).with("tier", self.inner.backend.name())
    }

    /// Stores a value, or a null, whatever else is going on under `key`.
    async fn put<T: CacheValue>(&self, key: Digest, value: Option<&T>, ttl: Ttl) -> Result<()> {
        let now = self.inner.clock.now();
        let expires = ttl.expires(now, self.inner.default_ttl)?;
        let bytes = self.seal(key, now, expires, value)?;
        let backend = &self.inner.backend;
        self.inner
            .gates
            .of(key)
            .write(backend.set(key.as_bytes(), bytes, expires))
            .await
    }

    /// The stored form of a value, or of a null.
    fn seal<T: CacheValue>(
        &self,
        key: Digest,
        now: Timestamp,
        expires: Option<Timestamp>,
        value: Option<&T>,
    ) -> Result<Bytes> {
        let header = Header {
            created: now,
            expires,
            ..Header::default()
        };
        let sealed = self
            .inner
            .codec
            .seal(key.as_bytes(), &header, &Payload(value));
        sealed.map_err(|error| {
            Error::new(ErrorKind::InvalidRequest, "the value has no stored form")
                .with("type", T::schema())
                .caused_by(error)
        })
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
