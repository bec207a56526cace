//! Values that a write to their source makes out of date.
//!
//! From the moment a write begins nobody can say what the source will hold: it may apply the write and
//! report a failure, or its caller may go away before the answer. So whoever writes holds an
//! [`Outdated`], and however the write ends, by a result, an error, a panic or a dropped future, what
//! was cached before goes.

use rand::random;

use super::passed_over;
use crate::entry::Ttl;
use crate::typed::{Cache, CacheValue, Key};

/// A write to the source that is under way.
pub(crate) struct Outdated(Option<Stale>);

struct Stale {
    cache: Cache,
    key: Key,
    /// A number that others put in their keys: a new one makes all of them new.
    generation: Option<Key>,
}

impl Outdated {
    /// A write that will change what `key` stands for.
    pub(crate) fn new(cache: &Cache, key: Key) -> Self {
        Self(Some(Stale {
            cache: cache.clone(),
            key,
            generation: None,
        }))
    }

    /// Renews the number under `key` too.
    pub(crate) fn generation(mut self, key: Key) -> Self {
        if let Some(stale) = &mut self.0 {
            stale.generation = Some(key);
        }
        self
    }

    /// The source has returned `value`: it takes the place of what was there, or nothing does.
    pub(crate) async fn replace<T: CacheValue>(self, value: &T, ttl: Ttl) {
        if let Some(stale) = &self.0 {
            match stale.cache.set(&stale.key, value, ttl).await {
                Ok(()) => return self.renew().await,
                Err(error) => passed_over("set", &error),
            }
        }
        self.forget().await;
    }

    /// What was there goes, and nothing takes its place.
    pub(crate) async fn forget(self) {
        if let Some(stale) = &self.0 {
            stale.forget().await;
        }
        self.renew().await;
    }

    async fn renew(mut self) {
        if let Some(stale) = &self.0 {
            stale.renew().await;
        }
        // Not before: until here, a dropped future is an unfinished write.
        self.0 = None;
    }
}

impl Stale {
    async fn forget(&self) {
        if let Err(error) = self.cache.delete(&self.key).await {
            passed_over("delete", &error);
        }
    }

    async fn renew(&self) {
        if let Some(generation) = &self.generation
            && let Err(error) = self
                .cache
                .set(generation, &random::<u64>(), Ttl::Forever)
                .await
        {
            passed_over("set", &error);
        }
    }
}

impl Drop for Outdated {
    fn drop(&mut self) {
        let Some(stale) = self.0.take() else { return };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(async move {
                    stale.forget().await;
                    stale.renew().await;
                });
            }
            Err(_) => tracing::warn!(
                operation = "delete",
                "a write was abandoned outside a runtime; what is cached lives on until it expires"
            ),
        }
    }
}
