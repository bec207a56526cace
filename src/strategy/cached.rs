//! A function with a cache in front of it, for those who prefer this to an attribute.

use std::fmt;
use std::marker::PhantomData;

use crate::entry::Ttl;
use crate::error::Result;
use crate::typed::{Cache, Key, Loaded};

/// A function whose results are kept; made by [`cached`].
pub struct Cached<A, K, F> {
    cache: Cache,
    key: K,
    function: F,
    ttl: Ttl,
    negative_ttl: Option<Ttl>,
    takes: PhantomData<fn(A)>,
}

impl<A, K, F> fmt::Debug for Cached<A, K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached")
            .field("cache", &self.cache)
            .field("ttl", &self.ttl)
            .field("negative_ttl", &self.negative_ttl)
            .finish_non_exhaustive()
    }
}

/// Puts `cache` in front of `function`. `key` names the result for given arguments; several arguments
/// are one tuple.
///
/// ```
/// # use std::sync::Arc;
/// # use std::time::Duration;
/// # use askonce::backend::{MemoryBackend, MemoryConfig};
/// # use askonce::Cache;
/// use askonce::strategy::cached;
/// use askonce::typed::Key;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> askonce::Result<()> {
/// # let cache = Cache::new(Arc::new(MemoryBackend::builder(MemoryConfig::default()).build()?));
/// let square = cached(
///     &cache,
///     |n: &u64| Key::new("square").part(n),
///     |n: u64| async move { n * n },
/// )
/// .ttl(Duration::from_secs(60));
///
/// assert_eq!(square.call(3).await, 9);
/// assert_eq!(square.call(3).await, 9); // Not computed again.
/// square.forget(&3).await?;
/// # Ok(())
/// # }
/// ```
pub fn cached<A, K, F, Fut>(cache: &Cache, key: K, function: F) -> Cached<A, K, F>
where
    K: Fn(&A) -> Key,
    F: Fn(A) -> Fut,
    Fut: Future<Output: Loaded>,
{
    Cached {
        cache: cache.clone(),
        key,
        function,
        ttl: Ttl::Default,
        negative_ttl: None,
        takes: PhantomData,
    }
}

impl<A, K, F> Cached<A, K, F>
where
    K: Fn(&A) -> Key,
{
    /// How long a result is kept. Default: [`Ttl::Default`].
    #[must_use]
    pub fn ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.ttl = ttl.into();
        self
    }

    /// Keeps a `None` too, for `ttl`. Default: it is not kept.
    #[must_use]
    pub fn negative_ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.negative_ttl = Some(ttl.into());
        self
    }

    /// What is kept for `arguments`, or else what the function returns for them.
    ///
    /// The function runs once for all who ask at the same time. An `Err` is given to all of them and
    /// not kept.
    pub async fn call<Fut>(&self, arguments: A) -> Fut::Output
    where
        F: Fn(A) -> Fut,
        Fut: Future,
        Fut::Output: Loaded<Error: Clone + Send + Sync + 'static>,
    {
        let key = self.key(&arguments);
        let mut load = self.cache.load(&key).ttl(self.ttl);
        if let Some(ttl) = self.negative_ttl {
            load = load.negative_ttl(ttl);
        }
        load.run(|| (self.function)(arguments)).await
    }

    /// Where the result for `arguments` is kept.
    pub fn key(&self, arguments: &A) -> Key {
        (self.key)(arguments)
    }

    /// Removes what is kept for `arguments`; `true` when there was something.
    ///
    /// # Errors
    /// Whatever the backend reports. The result may then still be kept.
    pub async fn forget(&self, arguments: &A) -> Result<bool> {
        self.cache.delete(&self.key(arguments)).await
    }
}
