//! Loads that outlive their callers.
//!
//! The load runs as a task of its own, under the same single flight as all others, so a caller can stop
//! waiting (its time is up, an old value will do, it has gone away) while the value is still made and
//! stored. The price: what the loader uses must be its own.

use std::fmt;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Cache;
use super::held::Held;
use super::key::{Digest, Place};
use super::load::{Examined, Load, Loaded, Settings, Sharing};
use crate::error::{Error, ErrorKind, Result};
use crate::observe;

/// A lookup with a loader that runs on when its caller does not wait for it, begun by
/// [`Load::detached`].
#[must_use = "nothing is loaded before `run`"]
pub struct Detached {
    cache: Cache,
    place: Place,
    settings: Settings,
    soft: Option<Duration>,
    hard: Option<Duration>,
}

impl fmt::Debug for Detached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detached")
            .field("cache", &self.cache)
            .field("soft_timeout", &self.soft)
            .field("hard_timeout", &self.hard)
            .finish_non_exhaustive()
    }
}

impl Load<'_> {
    /// A load that goes on when its caller stops waiting, which allows for time limits and for
    /// refreshes in the background.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use std::time::Duration;
    /// # use askonce::backend::{MemoryBackend, MemoryConfig};
    /// # use askonce::typed::{Cache, Key};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> askonce::Result<()> {
    /// # let cache = Cache::new(Arc::new(MemoryBackend::builder(MemoryConfig::default()).build()?));
    /// let minute = Duration::from_secs(60);
    /// let answer: String = cache
    ///     .load(&Key::new("answer").part(42))
    ///     .ttl(10 * minute)
    ///     .detached()
    ///     .stale_while_revalidate(minute)
    ///     .hard_timeout(minute)
    ///     .run(|| async { "It is about caches.".to_owned() })
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn detached(self) -> Detached {
        Detached {
            cache: self.cache.clone(),
            place: self.place,
            settings: self.settings,
            soft: None,
            hard: None,
        }
    }
}

/// Whether a value is being replaced in the background; one task per key.
struct Refreshing {
    cache: Cache,
    key: Digest,
}

impl Refreshing {
    fn begin(cache: &Cache, key: Digest) -> Option<Self> {
        let first = cache.inner.refreshing.lock().insert(key);
        first.then(|| Self {
            cache: cache.clone(),
            key,
        })
    }
}

impl Drop for Refreshing {
    fn drop(&mut self) {
        self.cache.inner.refreshing.lock().remove(&self.key);
    }
}

impl Detached {
    /// Serves the old value, up to `stale` after its life, and makes a new one in the background.
    /// Default: zero, callers wait for the new one.
    pub fn stale_while_revalidate(mut self, stale: Duration) -> Self {
        self.settings.while_revalidating = stale;
        self
    }

    /// How long to wait for the loader if there is an old value that
    /// [`stale_if_error`](Load::stale_if_error) or
    /// [`stale_while_revalidate`](Self::stale_while_revalidate) allows to serve: then that is served.
    /// Default: as long as it takes.
    pub fn soft_timeout(mut self, limit: Duration) -> Self {
        self.soft = Some(limit);
        self
    }

    /// How long to wait for the loader in any case: then an old value is served, or else an error.
    /// Default: as long as it takes.
    pub fn hard_timeout(mut self, limit: Duration) -> Self {
        self.hard = Some(limit);
        self
    }

    /// What is stored, or else what `loader` gives. Must be called within a tokio runtime with time.
    ///
    /// # Errors
    /// - [`ErrorKind::Timeout`] when the hard timeout is over and there is nothing to serve. The load
    ///   goes on, and fills the cache.
    /// - [`ErrorKind::Upstream`] when the loader panics.
    ///
    /// No failure of the backend; what `loader` itself reports as an error is within `L`.
    pub async fn run<L, F, Fut>(self, loader: F) -> Result<L>
    where
        L: Loaded<Error: Clone + Send + Sync + 'static> + Send + 'static,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = L> + Send + 'static,
    {
        let load = Load {
            cache: &self.cache,
            place: self.place.clone(),
            settings: self.settings.clone(),
        };
        let examined = load.examine(&load.names::<L>()).await;
        let mut old = None;
        match &examined.held {
            Held::Fresh(sealed) => {
                if let Some(known) = load.known(sealed) {
                    observe::typed_load("hit");
                    if load.is_early(&sealed.envelope.header) {
                        let early = Some(sealed.bytes.clone());
                        self.refresh(examined, early, loader);
                    }
                    return Ok(known);
                }
            }
            Held::Stale(sealed) => {
                // Judged when it was read: it may be served for as long as it is kept.
                old = load.known::<L>(sealed);
                if load.is_within(sealed, self.settings.while_revalidating)
                    && let Some(known) = old
                {
                    observe::typed_load("stale");
                    self.refresh(examined, None, loader);
                    return Ok(known);
                }
            }
            _ => {}
        }
        let task = self.spawn(examined, None, None, loader);
        self.wait(task, old).await
    }

    /// Waits for a load as long as this caller wants to.
    async fn wait<L>(&self, mut task: JoinHandle<L>, old: Option<L>) -> Result<L> {
        let limit = match (&old, self.soft) {
            (Some(_), Some(soft)) => Some(self.hard.map_or(soft, |hard| hard.min(soft))),
            _ => self.hard,
        };
        let joined = match limit {
            None => (&mut task).await,
            Some(limit) => match timeout(limit, &mut task).await {
                Ok(joined) => joined,
                Err(_) => {
                    observe::typed_load("timeout");
                    return old.ok_or_else(|| {
                        Error::new(ErrorKind::Timeout, "the loader is still running")
                            .with("limit_ms", limit.as_millis())
                            .retryable()
                    });
                }
            },
        };
        joined.map_err(|_| Error::new(ErrorKind::Upstream, "the loader panicked or was aborted"))
    }

    /// Makes a new value in the background, unless that is going on.
    fn refresh<L, F, Fut>(&self, examined: Examined, early: Option<bytes::Bytes>, loader: F)
    where
        L: Loaded<Error: Clone + Send + Sync + 'static> + Send + 'static,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = L> + Send + 'static,
    {
        if let Some(refreshing) = Refreshing::begin(&self.cache, self.place.digest) {
            drop(self.spawn(examined, early, Some(refreshing), loader));
        }
    }

    /// Runs the load in a task of its own.
    fn spawn<L, F, Fut>(
        &self,
        examined: Examined,
        early: Option<bytes::Bytes>,
        refreshing: Option<Refreshing>,
        loader: F,
    ) -> JoinHandle<L>
    where
        L: Loaded<Error: Clone + Send + Sync + 'static> + Send + 'static,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = L> + Send + 'static,
    {
        let (cache, place) = (self.cache.clone(), self.place.clone());
        let settings = self.settings.clone();
        tokio::spawn(async move {
            let _refreshing = refreshing;
            let load = Load {
                cache: &cache,
                place,
                settings,
            };
            load.run_from(examined, early, Sharing::CLONE, |_| false, loader)
                .await
        })
    }
}
