//! Writes that pass through to the source.

use super::Outdated;
use crate::entry::Ttl;
use crate::typed::{Cache, CacheValue, Key};

/// Writes to the source by `write`, then keeps what it returned under `key` for `ttl`.
///
/// What is kept is the source's value, with the ids and defaults it filled in, not the caller's. A load
/// that began before the write is not stored over it; of two writes at the same time neither is kept, as
/// only the source knows which was the later. Where the value cannot be kept, what was there is
/// deleted; where that fails too, it lives on until it expires, which is logged and counted.
///
/// # Errors
/// Only what `write` returns. What was cached is then deleted, as is that of a write whose caller goes
/// away: an error or silence does not say that the source is as it was.
///
/// ```
/// # use std::sync::Arc;
/// # use std::time::Duration;
/// # use askonce::backend::{MemoryBackend, MemoryConfig};
/// # use askonce::{Cache, typed::Lookup};
/// use askonce::strategy::write_through;
/// use askonce::typed::Key;
///
/// # async fn insert(name: &str) -> Result<String, std::io::Error> { Ok(name.trim().to_owned()) }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let cache = Cache::new(Arc::new(MemoryBackend::builder(MemoryConfig::default()).build()?));
/// let key = Key::new("name").part(7);
/// let name = write_through(&cache, &key, Duration::from_secs(60), || insert(" Ada ")).await?;
/// assert_eq!(cache.get::<String>(&key).await?, Lookup::Hit(name));
/// # Ok(())
/// # }
/// ```
pub async fn write_through<T, E, F, Fut>(
    cache: &Cache,
    key: &Key,
    ttl: impl Into<Ttl>,
    write: F,
) -> Result<T, E>
where
    T: CacheValue,
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let ttl = ttl.into();
    let outdated = Outdated::begin::<T>(cache, key).await;
    let written = write().await;
    match &written {
        Ok(value) => outdated.replace(value, ttl).await,
        Err(_) => outdated.forget().await,
    }
    written
}

/// Deletes from the source by `delete`, then what is cached under `key`, whatever `delete` returned.
///
/// # Errors
/// Only what `delete` returns.
pub async fn delete_through<T, E, F, Fut>(cache: &Cache, key: &Key, delete: F) -> Result<T, E>
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let outdated = Outdated::deleting(cache, key);
    let deleted = delete().await;
    outdated.forget().await;
    deleted
}
