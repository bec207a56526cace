//! What a loader says of its value.

use super::Ttl;

/// A value, and what its loader knows of how it should be stored: for how long, under which tags, or
/// not at all. A loader returns it in place of the value.
///
/// ```
/// # use std::sync::Arc;
/// # use std::time::Duration;
/// # use askonce::backend::{MemoryBackend, MemoryConfig};
/// # use askonce::typed::{Cache, Fresh, Key, Remaining};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> askonce::Result<()> {
/// # let cache = Cache::new(Arc::new(MemoryBackend::builder(MemoryConfig::default()).build()?));
/// let key = Key::new("rate").part("EUR");
/// let rate = cache
///     .load(&key)
///     .run(|| async {
///         // The source says how long its answer holds.
///         Fresh::new(1.08).ttl(Duration::from_secs(90)).tags(["rates"])
///     })
///     .await;
/// assert_eq!(rate.value, 1.08);
/// assert!(matches!(cache.ttl(&key).await?, Some(Remaining::For(_))));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Fresh<L> {
    /// The value.
    pub value: L,
    pub(super) advice: Advice,
}

/// What a loader says of how its value should be stored.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq)]
pub struct Advice {
    pub(super) ttl: Option<Ttl>,
    pub(super) tags: Vec<String>,
    pub(super) store: bool,
}

impl Default for Advice {
    fn default() -> Self {
        Self {
            ttl: None,
            tags: Vec::new(),
            store: true,
        }
    }
}

impl<L> Fresh<L> {
    /// A value to be stored as the load says.
    pub fn new(value: L) -> Self {
        Self {
            value,
            advice: Advice::default(),
        }
    }

    /// How long the value lives, or a `None` is remembered, whatever the load says.
    #[must_use]
    pub fn ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.advice.ttl = Some(ttl.into());
        self
    }

    /// Tags besides those of the load. If one of the tags of the namespace is invalidated while
    /// the loader runs, the value is not stored: what the loader has read was not known to carry them.
    #[must_use]
    pub fn tags<S: Into<String>>(mut self, tags: impl IntoIterator<Item = S>) -> Self {
        self.advice.tags.extend(tags.into_iter().map(Into::into));
        self
    }

    /// Does not store the value. Those who wait for this load are still given it.
    #[must_use]
    pub fn unstored(mut self) -> Self {
        self.advice.store = false;
        self
    }
}
