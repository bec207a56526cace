//! Where bytes live: one file per store, all behind [`CacheBackend`].
//!
//! A backend moves opaque bytes under opaque keys and honours an absolute expiry. It knows nothing
//! of entries, serializers or similarity: those are [`crate::codec`] and the stages above. What only
//! some stores can do is a field of [`Capability`], which callers ask instead of matching on names.
//!
//! Implementors write plain `async fn`; the blanket impl of [`DynCacheBackend`] boxes the futures
//! for callers that hold backends of several kinds in one list.

mod feed;
mod glob;
#[cfg(any(feature = "memcached", feature = "redis"))]
mod keyspace;
mod memcached;
mod memory;
mod null;
mod redis;
mod registry;
mod tiered;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};

pub use crate::event::RemovalCause;
pub use bytesize::ByteSize;
pub use feed::{Feed, FeedBatch, FeedHandle, FeedPosition};
pub use glob::Glob;
pub use memcached::MemcachedConfig;
#[cfg(feature = "memcached")]
pub use memcached::{MemcachedBackend, MemcachedBackendBuilder};
pub use memory::{MemoryBackend, MemoryBackendBuilder, MemoryConfig};
pub use null::NullBackend;
pub use redis::RedisConfig;
#[cfg(feature = "redis")]
pub use redis::{RedisBackend, RedisBackendBuilder};
pub(crate) use registry::build_built_in;
pub use registry::{
    BackendConfig, BackendContext, BackendFactory, BackendRegistry, CustomConfig, RemovalCounts,
};
pub use tiered::{TierConfig, TieredConfig};

/// What a backend can do beyond the common contract.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capability {
    /// The bytes live in this process: reads need no network and no serializer.
    pub in_process: bool,
    /// The backend drops values on its own when it is full.
    pub evicts: bool,
    /// [`CacheBackend::usage`] is exact rather than an estimate.
    pub counts_exactly: bool,
    /// Largest value that [`CacheBackend::set`] takes, in bytes; `None` when there is no limit.
    pub max_value_bytes: Option<usize>,
    /// [`CacheBackend::set_if`] and [`CacheBackend::delete_if`] work, and with them all that is built on
    /// them: counters, locks, leases.
    pub conditional_writes: bool,
    /// [`CacheBackend::scan`] works, and with it deleting by pattern.
    pub lists_keys: bool,
}

/// A live value, as a backend gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredValue {
    /// What was stored.
    pub bytes: Bytes,
    /// From when on it is dead; `None`: never.
    pub expires: Option<Timestamp>,
    /// How many tiers were asked in vain before the one that had it: 0 for the nearest, and for a
    /// backend that is not a stack of tiers.
    pub depth: u8,
}

impl StoredValue {
    /// A value that came from the backend itself.
    #[must_use]
    pub const fn new(bytes: Bytes, expires: Option<Timestamp>) -> Self {
        Self {
            bytes,
            expires,
            depth: 0,
        }
    }
}

/// One value to be stored, for [`CacheBackend::set_many`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Where.
    pub key: Bytes,
    /// What.
    pub value: Bytes,
    /// Until when; `None`: it does not expire.
    pub expires: Option<Timestamp>,
}

/// What a key must hold for a [conditional write](CacheBackend::set_if) to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition<'a> {
    /// No live value.
    Absent,
    /// Any live value.
    Present,
    /// Exactly these bytes.
    Equals(&'a [u8]),
}

/// Where a [scan](CacheBackend::scan) goes on. Opaque: only the backend that made it can read it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor(Bytes);

impl Cursor {
    /// A position in a backend's own terms. Empty bytes are the beginning, as is the default.
    #[must_use]
    pub fn new(position: impl Into<Bytes>) -> Self {
        Self(position.into())
    }

    /// What [`new`](Self::new) was given.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Some of the keys of a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPage {
    /// The keys, in no order.
    pub keys: Vec<Bytes>,
    /// Where to go on; `None`: these were the last.
    pub next: Option<Cursor>,
}

/// How much a backend holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendUsage {
    /// Live keys.
    pub entries: u64,
    /// Bytes of keys, values and bookkeeping.
    pub bytes: u64,
}

/// What a store says of one of the servers that it is made of. What it does not say is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ServerFacts {
    /// Where it is, without user and password.
    pub address: String,
    /// What runs there, such as `redis`, `valkey` or `memcached`.
    pub software: &'static str,
    /// Its version.
    pub version: Option<String>,
    /// Whether the connection to it is encrypted.
    pub encrypted: bool,
    /// Bytes of memory that it uses, for all its users.
    pub used_bytes: Option<u64>,
    /// Bytes of memory that it may use; `None` also when there is no bound.
    pub max_bytes: Option<u64>,
    /// What it does when its memory is full, in its own words.
    pub eviction_policy: Option<String>,
    /// Values that it has dropped because its memory was full, since it was started, for all its users.
    pub evicted: Option<u64>,
    /// How far its clock is ahead of ours, in milliseconds; negative when it is behind. As exact as half
    /// the time that the question took, and for memcached a second at best.
    pub clock_ahead_ms: Option<i64>,
}

/// How far one clock is ahead of another, both in milliseconds since the epoch.
#[cfg(any(feature = "memcached", feature = "redis"))]
fn ahead_ms(theirs: u64, ours: u64) -> Option<i64> {
    i64::try_from(theirs)
        .ok()?
        .checked_sub(i64::try_from(ours).ok()?)
}

/// The largest magnitude of a [counter](CacheBackend::increment): what every store can count to exactly.
pub const MAX_COUNT: i64 = (1 << 53) - 1;

/// How often an operation that is built on conditional writes tries before it gives up: as many writers
/// as this would have to come between.
const CONFLICTS: usize = 64;

/// A store of bytes with absolute expiry.
///
/// Only the first seven methods must be written. Those that are built on them can be replaced where a
/// store has a shorter way; conditional writes and listing are for stores that can
/// ([`Capability::conditional_writes`], [`Capability::lists_keys`]) and are an
/// [`Unsupported`](ErrorKind::Unsupported) error elsewhere.
///
/// # Contract
/// - `get` at or past the expiry returns `Ok(None)`, never stale bytes.
/// - An acknowledged `set` is what the next `get` of that key returns, until it expires, is deleted,
///   or is evicted to make room for a *later* `set`.
/// - A `set` whose expiry has passed already leaves the key absent.
/// - `set` replaces value and expiry together; `None` means the value does not expire.
/// - A value that can never fit is refused with
///   [`TooLarge`](crate::ErrorKind::TooLarge), and what the key held before stays.
/// - `delete` of an absent key succeeds and says `false`.
/// - `clear` removes every key of this backend and nothing else.
/// - Keys and values are any bytes; the empty value is a value.
/// - Dropping a returned future leaves the key as it was or as written, never torn.
/// - Conditional writes, `take`, `touch` and `increment` are atomic: of several at once, each sees what
///   the one before it left. An expired value is an absent one to all of them.
/// - The `_many` methods give one result for each item, in order; that one item failed says nothing of
///   the others. They are not atomic.
pub trait CacheBackend: fmt::Debug + Send + Sync + 'static {
    /// The configured name of this backend: the `tier` label of metrics and reports.
    fn name(&self) -> &str;

    /// What this backend can do beyond the common contract.
    fn capability(&self) -> Capability;

    /// The value under `key`, or `None` when there is none that is still alive.
    fn get(&self, key: &[u8]) -> impl Future<Output = Result<Option<StoredValue>>> + Send;

    /// Stores `value` under `key` until `expires`.
    fn set(
        &self,
        key: &[u8],
        value: Bytes,
        expires: Option<Timestamp>,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Removes `key`; `true` when it held a live value.
    fn delete(&self, key: &[u8]) -> impl Future<Output = Result<bool>> + Send;

    /// Removes every key.
    fn clear(&self) -> impl Future<Output = Result<()>> + Send;

    /// How much this backend holds now.
    fn usage(&self) -> impl Future<Output = Result<BackendUsage>> + Send;

    /// The value under each key.
    fn get_many(
        &self,
        keys: &[Bytes],
    ) -> impl Future<Output = Vec<Result<Option<StoredValue>>>> + Send {
        async move {
            let mut found = Vec::with_capacity(keys.len());
            for key in keys {
                found.push(self.get(key).await);
            }
            found
        }
    }

    /// Stores each value.
    fn set_many(&self, writes: &[Write]) -> impl Future<Output = Vec<Result<()>>> + Send {
        async move {
            let mut stored = Vec::with_capacity(writes.len());
            for write in writes {
                let Write {
                    key,
                    value,
                    expires,
                } = write;
                stored.push(self.set(key, value.clone(), *expires).await);
            }
            stored
        }
    }

    /// Removes each key; `true` where it held a live value.
    fn delete_many(&self, keys: &[Bytes]) -> impl Future<Output = Vec<Result<bool>>> + Send {
        async move {
            let mut deleted = Vec::with_capacity(keys.len());
            for key in keys {
                deleted.push(self.delete(key).await);
            }
            deleted
        }
    }

    /// Stores `value` if `condition` holds; `false` when it does not, and nothing has changed.
    ///
    /// As with [`set`](Self::set), an expiry that has passed leaves the key absent, if the condition holds.
    fn set_if(
        &self,
        key: &[u8],
        value: Bytes,
        expires: Option<Timestamp>,
        condition: Condition<'_>,
    ) -> impl Future<Output = Result<bool>> + Send {
        let _ = (key, value, expires, condition);
        async { Err(self.unsupported("set_if")) }
    }

    /// Removes `key` if it holds exactly `expected`; `false` when it does not.
    fn delete_if(&self, key: &[u8], expected: &[u8]) -> impl Future<Output = Result<bool>> + Send {
        let _ = (key, expected);
        async { Err(self.unsupported("delete_if")) }
    }

    /// Removes `key` and returns what it held: one of several callers gets it.
    fn take(&self, key: &[u8]) -> impl Future<Output = Result<Option<StoredValue>>> + Send {
        async move {
            for _ in 0..CONFLICTS {
                let Some(held) = self.get(key).await? else {
                    return Ok(None);
                };
                if self.delete_if(key, &held.bytes).await? {
                    return Ok(Some(held));
                }
            }
            Err(self.contended("take"))
        }
    }

    /// Gives the value under `key` another expiry; `false` when there is none. An expiry that has passed
    /// removes it.
    fn touch(
        &self,
        key: &[u8],
        expires: Option<Timestamp>,
    ) -> impl Future<Output = Result<bool>> + Send {
        async move {
            for _ in 0..CONFLICTS {
                let Some(StoredValue { bytes, .. }) = self.get(key).await? else {
                    return Ok(false);
                };
                let same = Condition::Equals(&bytes);
                if self.set_if(key, bytes.clone(), expires, same).await? {
                    return Ok(true);
                }
            }
            Err(self.contended("touch"))
        }
    }

    /// Adds `by` to the counter under `key` and returns what it has come to. An absent counter starts at
    /// zero and lives until `expires`; one that is there keeps its own expiry.
    ///
    /// A counter is stored as its decimal digits ([`MAX_COUNT`] at most, either sign). Beyond that, and
    /// where the key holds anything else, nothing changes and the answer is an
    /// [`InvalidRequest`](ErrorKind::InvalidRequest) error.
    fn increment(
        &self,
        key: &[u8],
        by: i64,
        expires: Option<Timestamp>,
    ) -> impl Future<Output = Result<i64>> + Send {
        async move {
            for _ in 0..CONFLICTS {
                let held = self.get(key).await?;
                let count = count_after(held.as_ref().map(|held| &held.bytes), by)
                    .map_err(|error| error.with("tier", CacheBackend::name(self)))?;
                let digits = Bytes::from(count.to_string());
                let changed = match &held {
                    Some(held) => {
                        let same = Condition::Equals(&held.bytes);
                        self.set_if(key, digits, held.expires, same).await?
                    }
                    None => self.set_if(key, digits, expires, Condition::Absent).await?,
                };
                if changed {
                    return Ok(count);
                }
            }
            Err(self.contended("increment"))
        }
    }

    /// Some of the keys that match `pattern`, from `cursor` on; about `limit` of them, or more.
    ///
    /// Following the cursors to the end shows every key that was there all the time, perhaps twice, and
    /// any of the others.
    fn scan(
        &self,
        pattern: &Glob,
        cursor: Cursor,
        limit: usize,
    ) -> impl Future<Output = Result<KeyPage>> + Send {
        let _ = (pattern, cursor, limit);
        async { Err(self.unsupported("scan")) }
    }

    /// Removes the keys that match `pattern` and returns how many there were. Keys that are written
    /// meanwhile may stay.
    fn delete_matching(&self, pattern: &Glob) -> impl Future<Output = Result<u64>> + Send {
        async move {
            let mut cursor = Cursor::default();
            let mut removed = 0;
            loop {
                let page = self.scan(pattern, cursor, SCAN_BATCH).await?;
                for deleted in self.delete_many(&page.keys).await {
                    removed += u64::from(deleted?);
                }
                match page.next {
                    Some(next) => cursor = next,
                    None => return Ok(removed),
                }
            }
        }
    }

    /// Asks whether the store answers, as cheaply as it can be asked.
    fn ping(&self) -> impl Future<Output = Result<()>> + Send {
        async { self.usage().await.map(drop) }
    }

    /// What the servers of this store say of themselves; none where the values are in this process.
    fn servers(&self) -> impl Future<Output = Result<Vec<ServerFacts>>> + Send {
        async { Ok(Vec::new()) }
    }

    /// The log of changes that all users of this store share, for tiers that keep copies of its values;
    /// `None` when this kind of store has none.
    fn feed(&self) -> Option<FeedHandle> {
        None
    }

    /// Gives connections back. Operations after it may open new ones.
    fn close(&self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// The error of an operation that this kind of store has no means for.
    #[doc(hidden)]
    fn unsupported(&self, operation: &'static str) -> Error {
        Error::new(
            ErrorKind::Unsupported,
            "this kind of backend cannot do that",
        )
        .with("tier", CacheBackend::name(self))
        .with("operation", operation)
    }

    /// The error of an operation that others have kept from finishing.
    #[doc(hidden)]
    fn contended(&self, operation: &'static str) -> Error {
        Error::new(ErrorKind::BackendUnavailable, "too many writers of one key")
            .with("tier", CacheBackend::name(self))
            .with("operation", operation)
            .retryable()
    }
}

/// Keys asked for, and removed, per step of a scan.
const SCAN_BATCH: usize = 1_000;

/// What a counter comes to: `held` is what its key holds now.
pub(crate) fn count_after(held: Option<&Bytes>, by: i64) -> Result<i64> {
    let now = match held {
        None => 0,
        Some(digits) => as_count(digits).ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidRequest,
                "the key holds something else than a counter",
            )
            .with("remedy", "count under a key that is only ever incremented")
        })?,
    };
    now.checked_add(by)
        .filter(|count| (-MAX_COUNT..=MAX_COUNT).contains(count))
        .ok_or_else(|| {
            Error::new(ErrorKind::InvalidRequest, "the counter would overflow")
                .with("allowed", format!("-{MAX_COUNT} to {MAX_COUNT}"))
        })
}

/// The count that these bytes stand for, if they are a counter's.
pub(crate) fn as_count(bytes: &[u8]) -> Option<i64> {
    let count: i64 = std::str::from_utf8(bytes).ok()?.parse().ok()?;
    // One spelling only: `+1` and `01` are not what a counter writes.
    (count.to_string().as_bytes() == bytes).then_some(count)
}

/// A boxed future, as the object-safe twin of a trait returns it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// [`CacheBackend`] as a trait object. Implemented for every backend; never implement it by hand.
pub trait DynCacheBackend: fmt::Debug + Send + Sync + 'static {
    /// See [`CacheBackend::name`].
    fn name(&self) -> &str;
    /// See [`CacheBackend::capability`].
    fn capability(&self) -> Capability;
    /// See [`CacheBackend::get`].
    fn get<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<StoredValue>>>;
    /// See [`CacheBackend::set`].
    fn set<'a>(
        &'a self,
        key: &'a [u8],
        value: Bytes,
        expires: Option<Timestamp>,
    ) -> BoxFuture<'a, Result<()>>;
    /// See [`CacheBackend::delete`].
    fn delete<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<bool>>;
    /// See [`CacheBackend::clear`].
    fn clear(&self) -> BoxFuture<'_, Result<()>>;
    /// See [`CacheBackend::usage`].
    fn usage(&self) -> BoxFuture<'_, Result<BackendUsage>>;
    /// See [`CacheBackend::get_many`].
    fn get_many<'a>(&'a self, keys: &'a [Bytes])
    -> BoxFuture<'a, Vec<Result<Option<StoredValue>>>>;
    /// See [`CacheBackend::set_many`].
    fn set_many<'a>(&'a self, writes: &'a [Write]) -> BoxFuture<'a, Vec<Result<()>>>;
    /// See [`CacheBackend::delete_many`].
    fn delete_many<'a>(&'a self, keys: &'a [Bytes]) -> BoxFuture<'a, Vec<Result<bool>>>;
    /// See [`CacheBackend::set_if`].
    fn set_if<'a>(
        &'a self,
        key: &'a [u8],
        value: Bytes,
        expires: Option<Timestamp>,
        condition: Condition<'a>,
    ) -> BoxFuture<'a, Result<bool>>;
    /// See [`CacheBackend::delete_if`].
    fn delete_if<'a>(&'a self, key: &'a [u8], expected: &'a [u8]) -> BoxFuture<'a, Result<bool>>;
    /// See [`CacheBackend::take`].
    fn take<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<StoredValue>>>;
    /// See [`CacheBackend::touch`].
    fn touch<'a>(
        &'a self,
        key: &'a [u8],
        expires: Option<Timestamp>,
    ) -> BoxFuture<'a, Result<bool>>;
    /// See [`CacheBackend::increment`].
    fn increment<'a>(
        &'a self,
        key: &'a [u8],
        by: i64,
        expires: Option<Timestamp>,
    ) -> BoxFuture<'a, Result<i64>>;
    /// See [`CacheBackend::scan`].
    fn scan<'a>(
        &'a self,
        pattern: &'a Glob,
        cursor: Cursor,
        limit: usize,
    ) -> BoxFuture<'a, Result<KeyPage>>;
    /// See [`CacheBackend::delete_matching`].
    fn delete_matching<'a>(&'a self, pattern: &'a Glob) -> BoxFuture<'a, Result<u64>>;
    /// See [`CacheBackend::ping`].
    fn ping(&self) -> BoxFuture<'_, Result<()>>;
    /// See [`CacheBackend::servers`].
    fn servers(&self) -> BoxFuture<'_, Result<Vec<ServerFacts>>>;
    /// See [`CacheBackend::feed`].
    fn feed(&self) -> Option<FeedHandle>;
    /// See [`CacheBackend::close`].
    fn close(&self) -> BoxFuture<'_, ()>;
}

impl<B: CacheBackend> DynCacheBackend for B {
    fn name(&self) -> &str {
        CacheBackend::name(self)
    }
    fn capability(&self) -> Capability {
        CacheBackend::capability(self)
    }
    fn get<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<StoredValue>>> {
        Box::pin(CacheBackend::get(self, key))
    }
    fn set<'a>(
        &'a self,
        key: &'a [u8],
        value: Bytes,
        expires: Option<Timestamp>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(CacheBackend::set(self, key, value, expires))
    }
    fn delete<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<bool>> {
        Box::pin(CacheBackend::delete(self, key))
    }
    fn clear(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(CacheBackend::clear(self))
    }
    fn usage(&self) -> BoxFuture<'_, Result<BackendUsage>> {
        Box::pin(CacheBackend::usage(self))
    }
    fn get_many<'a>(
        &'a self,
        keys: &'a [Bytes],
    ) -> BoxFuture<'a, Vec<Result<Option<StoredValue>>>> {
        Box::pin(CacheBackend::get_many(self, keys))
    }
    fn set_many<'a>(&'a self, writes: &'a [Write]) -> BoxFuture<'a, Vec<Result<()>>> {
        Box::pin(CacheBackend::set_many(self, writes))
    }
    fn delete_many<'a>(&'a self, keys: &'a [Bytes]) -> BoxFuture<'a, Vec<Result<bool>>> {
        Box::pin(CacheBackend::delete_many(self, keys))
    }
    fn set_if<'a>(
        &'a self,
        key: &'a [u8],
        value: Bytes,
        expires: Option<Timestamp>,
        condition: Condition<'a>,
    ) -> BoxFuture<'a, Result<bool>> {
        Box::pin(CacheBackend::set_if(self, key, value, expires, condition))
    }
    fn delete_if<'a>(&'a self, key: &'a [u8], expected: &'a [u8]) -> BoxFuture<'a, Result<bool>> {
        Box::pin(CacheBackend::delete_if(self, key, expected))
    }
    fn take<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<StoredValue>>> {
        Box::pin(CacheBackend::take(self, key))
    }
    fn touch<'a>(
        &'a self,
        key: &'a [u8],
        expires: Option<Timestamp>,
    ) -> BoxFuture<'a, Result<bool>> {
        Box::pin(CacheBackend::touch(self, key, expires))
    }
    fn increment<'a>(
        &'a self,
        key: &'a [u8],
        by: i64,
        expires: Option<Timestamp>,
    ) -> BoxFuture<'a, Result<i64>> {
        Box::pin(CacheBackend::increment(self, key, by, expires))
    }
    fn scan<'a>(
        &'a self,
        pattern: &'a Glob,
        cursor: Cursor,
        limit: usize,
    ) -> BoxFuture<'a, Result<KeyPage>> {
        Box::pin(CacheBackend::scan(self, pattern, cursor, limit))
    }
    fn delete_matching<'a>(&'a self, pattern: &'a Glob) -> BoxFuture<'a, Result<u64>> {
        Box::pin(CacheBackend::delete_matching(self, pattern))
    }
    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(CacheBackend::ping(self))
    }
    fn servers(&self) -> BoxFuture<'_, Result<Vec<ServerFacts>>> {
        Box::pin(CacheBackend::servers(self))
    }
    fn feed(&self) -> Option<FeedHandle> {
        CacheBackend::feed(self)
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(CacheBackend::close(self))
    }
}

/// A shared backend of any kind.
pub type BackendHandle = Arc<dyn DynCacheBackend>;
