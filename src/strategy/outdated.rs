//! Values that a write to their source makes out of date.
//!
//! From the moment a write begins nobody can say what the source will hold: it may apply the write and
//! report a failure, or its caller may go away before the answer. So whoever writes holds an
//! [`Outdated`], and however the write ends, by a result, an error, a panic or a dropped future, what
//! was cached before goes.
//!
//! Of two writes of one key at the same time, in one process or several, nobody but the source knows which
//! was the later. So the result of a write takes the place only of what was there before the write
//! began; where something else is, both go, and the next reader asks the source.

use super::passed_over;
use crate::entry::Ttl;
use crate::error::{ErrorKind, Result};
use crate::typed::{Cache, CacheValue, Key, Version};

/// A write to the source that is under way.
pub(crate) struct Outdated(Option<Stale>);

struct Stale {
    cache: Cache,
    key: Key,
    /// What was there; `None` when that could not be found out.
    before: Option<Version>,
    /// What else is out of date.
    tag: Option<&'static str>,
}

impl Outdated {
    /// A write that will change what `key` stands for, a `T`.
    pub(crate) async fn begin<T: CacheValue>(cache: &Cache, key: &Key) -> Self {
        let before = match cache.get_versioned::<T>(key).await {
            Ok((_, version)) => Some(version),
            Err(error) => {
                passed_over("get", &error);
                None
            }
        };
        Self(Some(Stale {
            cache: cache.clone(),
            key: key.clone(),
            before,
            tag: None,
        }))
    }

    /// A write after which there will be nothing.
    pub(crate) fn deleting(cache: &Cache, key: &Key) -> Self {
        Self(Some(Stale {
            cache: cache.clone(),
            key: key.clone(),
            before: None,
            tag: None,
        }))
    }

    /// Everything with this tag goes too.
    pub(crate) fn tag(mut self, tag: &'static str) -> Self {
        if let Some(stale) = &mut self.0 {
            stale.tag = Some(tag);
        }
        self
    }

    /// The source has returned `value`: it takes the place of what was there, or nothing does.
    pub(crate) async fn replace<T: CacheValue>(mut self, value: &T, ttl: Ttl) {
        if let Some(stale) = &self.0 {
            if !stale.replace(value, ttl).await {
                stale.forget().await;
            }
            stale.invalidate().await;
        }
        // Not before: until here, a dropped future is an unfinished write.
        self.0 = None;
    }

    /// What was there goes, and nothing takes its place.
    pub(crate) async fn forget(mut self) {
        if let Some(stale) = &self.0 {
            stale.forget().await;
            stale.invalidate().await;
        }
        self.0 = None;
    }
}

impl Stale {
    /// `false` when something else is there, or it could not be done.
    async fn replace<T: CacheValue>(&self, value: &T, ttl: Ttl) -> bool {
        let Some(before) = &self.before else {
            return false;
        };
        let Self { cache, key, .. } = self;
        let replaced: Result<bool> = match cache.compare_and_set(key, before, value, ttl).await {
            // A backend that cannot compare belongs to one process, or its writers take their chance.
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                cache.set(key, value, ttl).await.map(|()| true)
            }
            replaced => replaced,
        };
        replaced.unwrap_or_else(|error| {
            passed_over("set", &error);
            false
        })
    }

    async fn forget(&self) {
        if let Err(error) = self.cache.delete(&self.key).await {
            passed_over("delete", &error);
        }
    }

    async fn invalidate(&self) {
        if let Some(tag) = self.tag
            && let Err(error) = self.cache.invalidate_tag(tag).await
        {
            passed_over("invalidate_tag", &error);
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
                    stale.invalidate().await;
                });
            }
            Err(_) => tracing::warn!(
                operation = "delete",
                "a write was abandoned outside a runtime; what is cached lives on until it expires"
            ),
        }
    }
}
