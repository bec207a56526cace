//! A miss: one load per key, shared by all who ask.
//!
//! The first caller of a key leads: it looks again, runs its loader in its own task, stores the value
//! and hands the stored form to those who wait. Running in place lets a loader borrow from its caller,
//! needs no runtime, and lets a panic unwind to the caller whose loader it was. The price: if the
//! leader's future is dropped, so is its load. One of those who wait then runs its own, as after a
//! panic. A load that must outlive its caller belongs in a task that the loader spawns and awaits.
//!
//! Those who wait are given the stored form, so they see exactly what a later hit will see, and no
//! value needs to be [`Clone`]. Whoever cannot use what is handed over (an error that cannot be
//! shared, a value of another type) takes its turn with its own loader.

use std::any::Any;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::gate::{Gate, Seen};
use super::key::Digest;
use super::value::{CacheValue, Lookup};
use super::{Cache, Key, Ttl};
use crate::clock::Timestamp;
use crate::error::Result;

/// Callers with the same id share a load: the same key, and the same writes before it.
pub(super) type LoadId = (Digest, Seen);

/// An error, to be given to several callers.
pub(super) type Shared = Arc<dyn Any + Send + Sync>;

/// What a load hands to those who wait for it.
#[derive(Clone)]
pub(super) enum Landed {
    /// An envelope with a value or a null.
    Sealed(Bytes),
    Failed(Shared),
    /// Something that only the leader can use.
    Unshared,
}

mod sealed {
    pub trait Sealed {}
    impl<T: super::CacheValue> Sealed for T {}
    impl<T: super::CacheValue> Sealed for Option<T> {}
    impl<L: super::Present, E> Sealed for Result<L, E> {}
}

/// What a loader may give: a [`CacheValue`], an `Option` of one, or a `Result` of either.
///
/// An `Err` is never stored. A `None` is stored only for a [`negative_ttl`](Load::negative_ttl).
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be cached",
    label = "neither a `CacheValue`, nor an `Option` or `Result` of one",
    note = "give your own type a name: `#[derive(Serialize, Deserialize, CacheValue)] #[cache_value(name = \"...\")]`"
)]
pub trait Loaded: sealed::Sealed + Sized {
    /// What is stored.
    type Value: CacheValue;
    /// What is not.
    type Error;

    #[doc(hidden)]
    fn view(&self) -> Result<Option<&Self::Value>, &Self::Error>;
    /// `None` when this type has no way to say that there is no value.
    #[doc(hidden)]
    fn from_known(known: Option<Self::Value>) -> Option<Self>;
    #[doc(hidden)]
    fn from_error(error: Self::Error) -> Self;
}

impl<T: CacheValue> Loaded for T {
    type Value = T;
    type Error = Infallible;

    fn view(&self) -> Result<Option<&T>, &Infallible> {
        Ok(Some(self))
    }
    fn from_known(known: Option<T>) -> Option<T> {
        known
    }
    fn from_error(error: Infallible) -> T {
        match error {}
    }
}

impl<T: CacheValue> Loaded for Option<T> {
    type Value = T;
    type Error = Infallible;

    fn view(&self) -> Result<Option<&T>, &Infallible> {
        Ok(self.as_ref())
    }
    fn from_known(known: Option<T>) -> Option<Self> {
        Some(known)
    }
    fn from_error(error: Infallible) -> Self {
        match error {}
    }
}

impl<L: Present, E> Loaded for Result<L, E> {
    type Value = L::Value;
    type Error = E;

    fn view(&self) -> Result<Option<&L::Value>, &E> {
        match self {
            Ok(value) => value.view().map_err(|never| match *never {}),
            Err(error) => Err(error),
        }
    }
    fn from_known(known: Option<L::Value>) -> Option<Self> {
        L::from_known(known).map(Ok)
    }
    fn from_error(error: E) -> Self {
        Err(error)
    }
}

/// A [`CacheValue`] or an `Option` of one: what cannot fail to be loaded.
pub trait Present: Loaded<Error = Infallible> {}
impl<T: CacheValue> Present for T {}
impl<T: CacheValue> Present for Option<T> {}

/// What becomes of a result.
enum Plan {
    /// Neither stored nor shared in its stored form: an error, or a value without such a form.
    Leave,
    /// Shared in this form, and stored if it is given a life: `Some(None)` is one without end.
    Keep {
        bytes: Bytes,
        expires: Option<Option<Timestamp>>,
    },
}

/// A lookup with a loader, begun by [`Cache::load`].
#[must_use = "nothing is loaded before `run`"]
pub struct Load<'a> {
    cache: &'a Cache,
    key: Digest,
    ttl: Ttl,
    negative_ttl: Option<Ttl>,
}

impl fmt::Debug for Load<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Load")
            .field("cache", self.cache)
            .field("ttl", &self.ttl)
            .field("negative_ttl", &self.negative_ttl)
            .finish_non_exhaustive()
    }
}

impl Cache {
    /// Begins a lookup that falls back on a loader; [`Load::run`] ends it.
    ///
    /// - The loader runs once for all callers that ask for `key` at the same time.
    /// - If the caller whose loader runs is cancelled, or its loader panics, one of those who wait runs
    ///   its own. The panic unwinds to its own caller.
    /// - A `set` or `delete` of `key` while the loader runs wins: the loaded value is returned to those
    ///   who asked before it, and not stored.
    /// - A failing backend, and stored bytes that are of no use, are logged and counted; the loader
    ///   runs.
    /// - A loader that asks for its own key waits for itself. So does a task that starts a load, keeps
    ///   its future without polling it, and asks for the key again.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use std::time::Duration;
    /// # use askonce::backend::{MemoryBackend, MemoryConfig};
    /// # use askonce::typed::{Cache, Key, Lookup};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> askonce::Result<()> {
    /// # let cache = Cache::new(Arc::new(MemoryBackend::builder(MemoryConfig::default()).build()?));
    /// let key = Key::new("email").part(7);
    /// let email: Option<String> = cache
    ///     .load(&key)
    ///     .ttl(Duration::from_secs(300))
    ///     .negative_ttl(Duration::from_secs(30))
    ///     .run(|| async { None })
    ///     .await;
    /// assert_eq!(email, None);
    /// assert_eq!(cache.get::<String>(&key).await?, Lookup::Null);
    /// # Ok(())
    /// # }
    /// ```
    pub fn load(&self, key: &Key) -> Load<'_> {
        Load {
            cache: self,
            key: self.digest(key),
            ttl: Ttl::Default,
            negative_ttl: None,
        }
    }
}

impl<'a> Load<'a> {
    /// How long a loaded value lives. Default: [`Ttl::Default`].
    pub fn ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.ttl = ttl.into();
        self
    }

    /// Stores that there is no value, for `ttl`, when the loader gives `None`. Default: a `None` is not
    /// stored, and the next caller loads anew.
    pub fn negative_ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.negative_ttl = Some(ttl.into());
        self
    }

    /// What is stored, or else what `loader` gives.
    ///
    /// A stored null is `None` to a loader that gives options; to any other it is a miss.
    pub async fn run<L, F, Fut>(self, loader: F) -> L
    where
        L: Loaded<Error: Clone + Send + Sync + 'static>,
        F: FnOnce() -> Fut,
        Fut: Future<Output = L>,
    {
        self.run_with(Sharing::CLONE, |_| false, loader).await
    }

    /// As [`run`](Self::run), with a say in which values are stored and which errors are shared.
    pub(super) async fn run_with<L, F, Fut>(
        self,
        sharing: Sharing<L::Error>,
        unless: impl FnOnce(&L::Value) -> bool,
        loader: F,
    ) -> L
    where
        L: Loaded,
        F: FnOnce() -> Fut,
        Fut: Future<Output = L>,
    {
        if let Some((known, _)) = self.known().await {
            return known;
        }
        let gate = self.cache.inner.gates.of(self.key);
        let mut caller = Some((unless, loader));
        loop {
            let seen = gate.seen().await;
            let mut own = None;
            let lead = async {
                // Between this caller's look and its turn another load may have landed.
                if let Some((known, bytes)) = self.known().await {
                    own = Some(known);
                    return Landed::Sealed(bytes);
                }
                let Some((unless, loader)) = caller.take() else {
                    unreachable!("a caller that has led has a result of its own")
                };
                let loaded = loader().await;
                let plan = self.plan(&loaded, unless);
                let shared = loaded.view().err().and_then(|error| (sharing.pack)(error));
                own = Some(loaded);
                let Plan::Keep { bytes, expires } = plan else {
                    return shared.map_or(Landed::Unshared, Landed::Failed);
                };
                if let Some(expires) = expires {
                    self.fill(&gate, seen, bytes.clone(), expires).await;
                }
                Landed::Sealed(bytes)
            };
            let (landed, _) = self
                .cache
                .inner
                .loads
                .run_in_place((self.key, seen), lead)
                .await;
            if let Some(own) = own {
                return own;
            }
            if let Some(shared) = self.unpack(&landed, sharing) {
                return shared;
            }
        }
    }

    /// What the cache knows, if `L` can say it.
    async fn known<L: Loaded>(&self) -> Option<(L, Bytes)> {
        match self.cache.read::<L::Value>(self.key).await {
            Ok((Lookup::Miss, _)) => None,
            Ok((lookup, bytes)) => Some((L::from_known(lookup.known()?)?, bytes)),
            Err(error) => {
                self.cache.report("get", &error);
                None
            }
        }
    }

    /// What to do with what was loaded. Not `async`, so that nothing borrows the value while waiting.
    fn plan<L: Loaded>(&self, loaded: &L, unless: impl FnOnce(&L::Value) -> bool) -> Plan {
        let Ok(value) = loaded.view() else {
            return Plan::Leave;
        };
        let ttl = match value {
            Some(value) => (!unless(value)).then_some(self.ttl),
            None => self.negative_ttl,
        };
        let inner = &self.cache.inner;
        let now = inner.clock.now();
        let expires = ttl.and_then(|ttl| {
            let expires = ttl.expires(now, inner.default_ttl);
            expires
                .map_err(|error| self.cache.report("set", &error))
                .ok()
        });
        match self.cache.seal(self.key, now, expires.flatten(), value) {
            Ok(bytes) => Plan::Keep { bytes, expires },
            Err(error) => {
                self.cache.report("encode", &error);
                Plan::Leave
            }
        }
    }

    /// Stores what was loaded, unless something was written meanwhile.
    async fn fill(&self, gate: &Gate<'_>, seen: Seen, bytes: Bytes, expires: Option<Timestamp>) {
        let set = self
            .cache
            .inner
            .backend
            .set(self.key.as_bytes(), bytes, expires);
        if let Some(Err(error)) = gate.fill(seen, set).await {
            self.cache.report("set", &error);
        }
    }

    /// Another caller's result, if `L` can say it.
    fn unpack<L: Loaded>(&self, landed: &Landed, sharing: Sharing<L::Error>) -> Option<L> {
        match landed {
            Landed::Sealed(bytes) => {
                let codec = &self.cache.inner.codec;
                let envelope = codec.open(self.key.as_bytes(), bytes).ok()?;
                L::from_known(self.cache.open(&envelope).ok()?.known()?)
            }
            Landed::Failed(error) => (sharing.unpack)(error).map(L::from_error),
            Landed::Unshared => None,
        }
    }

    /// Stores what was made without a loader, as if it had been loaded; deletes what it makes out of
    /// date. Failures are logged and counted.
    pub(super) fn keep<L: Loaded, U: FnOnce(&L::Value) -> bool>(
        self,
        loaded: &L,
        unless: U,
    ) -> impl Future<Output = ()> + use<'a, L, U> {
        let failed = loaded.view().is_err();
        let plan = self.plan(loaded, unless);
        async move {
            if let Plan::Keep {
                bytes,
                expires: Some(expires),
            } = plan
            {
                let Self { cache, key, .. } = self;
                let set = cache.inner.backend.set(key.as_bytes(), bytes, expires);
                match cache.inner.gates.of(key).write(set).await {
                    Ok(()) => return,
                    Err(error) => cache.report("set", &error),
                }
            }
            // What was there is out of date, though nothing took its place.
            if !failed {
                self.forget().await;
            }
        }
    }

    /// Deletes what is stored. Failures are logged and counted.
    pub(super) async fn forget(self) {
        let Self { cache, key, .. } = self;
        let deleted = cache.inner.backend.delete(key.as_bytes());
        if let Err(error) = cache.inner.gates.of(key).write(deleted).await {
            cache.report("delete", &error);
        }
    }
}

/// How an error reaches callers that did not cause it.
pub struct Sharing<E> {
    pack: fn(&E) -> Option<Shared>,
    unpack: fn(&Shared) -> Option<E>,
}

impl<E> Clone for Sharing<E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Sharing<E> {}

impl<E> fmt::Debug for Sharing<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sharing").finish_non_exhaustive()
    }
}

impl<E: Clone + Send + Sync + 'static> Sharing<E> {
    /// Each caller is given a clone.
    pub const CLONE: Self = Self {
        pack: |error| Some(Arc::new(error.clone())),
        unpack: |shared| shared.downcast_ref().cloned(),
    };
}

impl<E> Sharing<E> {
    /// Only the caller whose loader failed is given the error; the others take their turn.
    pub const NEVER: Self = Self {
        pack: |_| None,
        unpack: |_| None,
    };
}
