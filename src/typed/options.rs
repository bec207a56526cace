//! How a value is to be stored.

use std::time::Duration;

use super::Ttl;

/// How a value is to be stored. A [`Ttl`], a [`Duration`] or an `Option<Duration>` is one that says no
/// more than that.
///
/// ```
/// # use std::sync::Arc;
/// # use std::time::Duration;
/// # use askonce::backend::{MemoryBackend, MemoryConfig};
/// # use askonce::typed::{Cache, Key, Lookup, SetOptions};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> askonce::Result<()> {
/// # let cache = Cache::new(Arc::new(MemoryBackend::builder(MemoryConfig::default()).build()?));
/// let hour = Duration::from_secs(3600);
/// let key = Key::new("summary").part(42);
/// let summary = "It is about caches.".to_owned();
/// cache.set(&key, &summary, SetOptions::new(hour).tags(["doc:42"])).await?;
/// cache.invalidate_tag("doc:42").await?;
/// assert_eq!(cache.get::<String>(&key).await?, Lookup::Miss);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SetOptions {
    pub(super) ttl: Ttl,
    pub(super) tags: Vec<String>,
    pub(super) stale: Duration,
    pub(super) jitter: Option<f64>,
}

impl SetOptions {
    /// A value that lives for `ttl`.
    #[must_use]
    pub fn new(ttl: impl Into<Ttl>) -> Self {
        Self {
            ttl: ttl.into(),
            ..Self::default()
        }
    }

    /// What the value can be invalidated by, besides its key. Default: nothing. Adds to the tags that
    /// were given before.
    #[must_use]
    pub fn tags<S: Into<String>>(mut self, tags: impl IntoIterator<Item = S>) -> Self {
        self.tags.extend(tags.into_iter().map(Into::into));
        self
    }

    /// How long after its life the value is kept, to be served as [`Lookup::Stale`](super::Lookup::Stale)
    /// and by loads that allow it. Default: zero, not at all.
    #[must_use]
    pub fn stale_for(mut self, stale: Duration) -> Self {
        self.stale = stale;
        self
    }

    /// The share of its life, from 0 to 1, that may be taken off at random; see
    /// [`CacheBuilder::jitter`](super::CacheBuilder::jitter). Default: the cache's.
    #[must_use]
    pub fn jitter(mut self, share: f64) -> Self {
        self.jitter = Some(share);
        self
    }
}

impl From<Ttl> for SetOptions {
    fn from(ttl: Ttl) -> Self {
        Self::new(ttl)
    }
}

impl From<Duration> for SetOptions {
    fn from(life: Duration) -> Self {
        Self::new(life)
    }
}

impl From<Option<Duration>> for SetOptions {
    fn from(life: Option<Duration>) -> Self {
        Self::new(life)
    }
}
