//! Reading and writing single values, and many at a time.
//!
//! What depends on what is there ([`Cache::add`], [`Cache::compare_and_set`], [`Cache::increment`] and
//! their kin) reads, decides, and writes on the condition that nothing has changed; if something has,
//! it begins again. So it needs a backend with
//! [conditional writes](crate::backend::Capability::conditional_writes), and no other process can come
//! between. In this process they take turns.

use std::time::Duration;

use bytes::Bytes;

use super::held::{Held, Sealed};
use super::key::Place;
use super::marks::Generations;
use super::options::SetOptions;
use super::value::{CacheValue, Lookup};
use super::{Cache, Key, Ttl};
use crate::backend::{Cursor, Glob, MAX_COUNT, Write};
use crate::clock::Timestamp;
use crate::codec::{Header, Mark};
use crate::error::{Error, ErrorKind, Result};

/// How often a conditional change tries before it gives up: as many other processes as this would have
/// to come between.
const CONFLICTS: usize = 64;

/// Keys asked for at a time where all of them are counted.
const PAGE: usize = 1_000;

/// What was under a key when it was read, for [`Cache::compare_and_set`]: opaque, and only to be
/// compared.
#[derive(Clone, PartialEq, Eq)]
pub struct Version(Option<Bytes>);

/// Shows nothing of the value.
impl std::fmt::Debug for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Version").finish_non_exhaustive()
    }
}

/// How much longer a value lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remaining {
    /// Until it is evicted, deleted or invalidated.
    Forever,
    /// For this long.
    For(Duration),
}

/// Some of the keys of a cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// Their readable forms, without the namespace, in no order.
    pub keys: Vec<String>,
    /// Where to go on; `None`: these were the last.
    pub next: Option<Cursor>,
}

/// What a conditional change comes to.
enum Next<R> {
    Leave(R),
    Write(Bytes, Option<Timestamp>, R),
    Remove(R),
}

impl Cache {
    /// What is stored under `key`.
    ///
    /// # Errors
    /// - [`ErrorKind::Corrupt`] when what is stored is no `T`, is damaged, or belongs to another key.
    /// - Whatever the backend reports.
    pub async fn get<T: CacheValue>(&self, key: &Key) -> Result<Lookup<T>> {
        let (held, _) = self.look(&self.place(key), self.namespace_marks()).await?;
        self.lookup(&held)
    }

    /// What is stored under each key, in order, in one request to the backend. That one of them cannot
    /// be read says nothing of the others.
    pub async fn get_many<T: CacheValue>(&self, keys: &[Key]) -> Vec<Result<Lookup<T>>> {
        let places: Vec<_> = keys.iter().map(|key| self.place(key)).collect();
        let (held, _) = self.look_many(&places, self.namespace_marks()).await;
        held.into_iter().map(|held| self.lookup(&held?)).collect()
    }

    /// What is stored under `key`, and a version to [compare](Self::compare_and_set) with later.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn get_versioned<T: CacheValue>(&self, key: &Key) -> Result<(Lookup<T>, Version)> {
        let (held, _) = self.look(&self.place(key), self.namespace_marks()).await?;
        let lookup = self.lookup(&held)?;
        let version = match held {
            Held::Nothing => None,
            Held::Dead(bytes) | Held::Leased(bytes) | Held::Unusable(bytes, _) => Some(bytes),
            Held::Stale(sealed) | Held::Fresh(sealed) => Some(sealed.bytes),
        };
        Ok((lookup, Version(version)))
    }

    /// Stores `value` under `key`, in place of what is there. The options are often just a
    /// [`Duration`], or `None` for a value that does not expire.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidRequest`] when the time to live is zero, or `value` has no faithful
    ///   stored form.
    /// - Whatever the backend reports. What was stored before may then still be.
    pub async fn set<T: CacheValue>(
        &self,
        key: &Key,
        value: &T,
        options: impl Into<SetOptions>,
    ) -> Result<()> {
        self.put(self.place(key), Some(value), options.into()).await
    }

    /// Stores each value under its key; one result for each, in order, and one request to the backend
    /// for all of them.
    pub async fn set_many<T: CacheValue>(
        &self,
        values: &[(Key, T)],
        options: impl Into<SetOptions>,
    ) -> Vec<Result<()>> {
        let options = options.into();
        let (marks, generations) = match self.current_marks(&self.marks_with(&options.tags)).await {
            Ok(marks) => marks,
            Err(error) => return values.iter().map(|_| Err(error.clone())).collect(),
        };
        let mut results = Vec::with_capacity(values.len());
        let (mut places, mut writes) = (Vec::new(), Vec::new());
        for (key, value) in values {
            let place = self.place(key);
            results.push(
                self.sealed_for(&place, Some(value), &options, marks.clone())
                    .map(|(value, expires)| {
                        let key = place.name.clone();
                        writes.push(Write {
                            key,
                            value,
                            expires,
                        });
                        places.push(place);
                    }),
            );
        }
        // The one that lives longest is what the marks must outlive.
        let longest = writes.iter().map(|write| write.expires);
        let longest = longest.max_by_key(|expires| expires.map_or(u64::MAX, Timestamp::as_millis));
        let backend = &self.inner.backend;
        let stored = self
            .inner
            .gates
            .write_all(&places, backend.set_many(&writes));
        let mut stored = stored.await.into_iter();
        for result in results.iter_mut().filter(|result| result.is_ok()) {
            *result = stored.next().unwrap_or(Ok(()));
        }
        if let Some(longest) = longest {
            self.prolong_marks(&generations, longest).await;
        }
        results
    }

    /// Stores that there is no value under `key`, in place of what is there.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub async fn set_null(&self, key: &Key, options: impl Into<SetOptions>) -> Result<()> {
        self.put(self.place(key), None::<&String>, options.into())
            .await
    }

    /// Stores `value` under `key` if there is neither a value nor a null; `true` when it has.
    ///
    /// # Errors
    /// As [`set`](Self::set), and [`ErrorKind::Corrupt`] when what is there cannot be read.
    pub async fn add<T: CacheValue>(
        &self,
        key: &Key,
        value: &T,
        options: impl Into<SetOptions>,
    ) -> Result<bool> {
        let place = self.place(key);
        let (bytes, expires) = self.prepared(&place, Some(value), options.into()).await?;
        self.exchange(&place, "add", |held, _| {
            Ok(match held.fresh()? {
                Some(_) => Next::Leave(false),
                None => Next::Write(bytes.clone(), expires, true),
            })
        })
        .await
    }

    /// Stores `value` under `key` if that holds what it held when `version` was
    /// [read](Self::get_versioned); `true` when it has. A version of an empty place asks for an empty
    /// place.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub async fn compare_and_set<T: CacheValue>(
        &self,
        key: &Key,
        version: &Version,
        value: &T,
        options: impl Into<SetOptions>,
    ) -> Result<bool> {
        let place = self.place(key);
        let (bytes, expires) = self.prepared(&place, Some(value), options.into()).await?;
        let condition = match &version.0 {
            None => crate::backend::Condition::Absent,
            Some(bytes) => crate::backend::Condition::Equals(bytes),
        };
        let backend = &self.inner.backend;
        let set = backend.set_if(&place.name, bytes, expires, condition);
        self.inner.gates.of(&place).write(set).await
    }

    /// Adds `by` to the count under `key` and returns what it has come to; `get::<i64>` reads it. An
    /// absent count starts at zero and lives for `ttl`; one that is there keeps its own life.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidRequest`] when the key holds something else than an `i64`, or the count
    ///   would pass [`MAX_COUNT`] either way.
    /// - Whatever the backend reports; [`ErrorKind::Unsupported`] where it has no conditional writes.
    pub async fn increment(
        &self,
        key: &Key,
        by: i64,
        options: impl Into<SetOptions>,
    ) -> Result<i64> {
        let options = options.into();
        let place = self.place(key);
        let names = self.marks_with(&options.tags);
        let (marks, generations) = self.current_marks(&names).await?;
        // Refuses a life of zero, whether or not it comes to that.
        let fresh = self.header(options.ttl, options.jitter, options.stale, marks)?;
        let count = self
            .exchange(&place, "increment", |held, _| {
                let (header, now) = match held.fresh()? {
                    None => (&fresh, 0),
                    Some(sealed) => {
                        let now = self.unseal::<i64>(sealed).ok().flatten().ok_or_else(|| {
                            let error = Error::new(
                                ErrorKind::InvalidRequest,
                                "the key holds something else than a count",
                            );
                            error.with("remedy", "count under a key that is only ever incremented")
                        })?;
                        (&sealed.envelope.header, now)
                    }
                };
                let count = now
                    .checked_add(by)
                    .filter(|count| (-MAX_COUNT..=MAX_COUNT).contains(count))
                    .ok_or_else(|| {
                        Error::new(ErrorKind::InvalidRequest, "the count would overflow")
                            .with("allowed", format!("-{MAX_COUNT} to {MAX_COUNT}"))
                    })?;
                let bytes = self.seal(&place, header, Some(&count))?;
                Ok(Next::Write(bytes, header.physical_expiry(), count))
            })
            .await?;
        self.prolong_marks(&generations, fresh.physical_expiry())
            .await;
        Ok(count)
    }

    /// Gives what is under `key` another life, from now on; `false` when there is nothing. How long it
    /// may be served stale after that stays as it was.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidRequest`] when `ttl` is zero.
    /// - [`ErrorKind::Corrupt`] when what is there cannot be read.
    /// - Whatever the backend reports.
    pub async fn touch(&self, key: &Key, ttl: impl Into<Ttl>) -> Result<bool> {
        let place = self.place(key);
        let lives = self.header(ttl.into(), None, Duration::ZERO, Vec::new())?;
        let mut kept = Generations::default();
        let touched = self
            .exchange(&place, "touch", |held, generations| {
                let Some(sealed) = held.fresh()? else {
                    return Ok(Next::Leave(false));
                };
                kept = generations.clone();
                let stale = match (
                    sealed.envelope.header.expires,
                    sealed.envelope.header.stale_until,
                ) {
                    (Some(expires), Some(until)) => until.since(expires),
                    _ => Duration::ZERO,
                };
                let header = Header {
                    expires: lives.expires,
                    stale_until: lives
                        .expires
                        .filter(|_| !stale.is_zero())
                        .map(|expires| expires.after(stale)),
                    ..sealed.envelope.header.clone()
                };
                let bytes = self.reseal(&place, sealed, &header)?;
                Ok(Next::Write(bytes, header.physical_expiry(), true))
            })
            .await?;
        if touched {
            self.prolong_marks(&kept, lives.expires).await;
        }
        Ok(touched)
    }

    /// Removes what is under `key` and returns it: one of several callers gets it.
    ///
    /// # Errors
    /// As [`get`](Self::get). What cannot be read stays.
    pub async fn take<T: CacheValue>(&self, key: &Key) -> Result<Lookup<T>> {
        let place = self.place(key);
        self.exchange(&place, "take", |held, _| {
            Ok(match self.lookup(held)? {
                Lookup::Miss => Next::Leave(Lookup::Miss),
                found => Next::Remove(found),
            })
        })
        .await
    }

    /// How much longer what is under `key` is fresh; `None` when there is nothing.
    ///
    /// # Errors
    /// As [`exists`](Self::exists).
    pub async fn ttl(&self, key: &Key) -> Result<Option<Remaining>> {
        let (held, _) = self.look(&self.place(key), self.namespace_marks()).await?;
        let now = self.now();
        Ok(held
            .fresh()?
            .map(|sealed| match sealed.envelope.header.expires {
                None => Remaining::Forever,
                Some(expires) => Remaining::For(expires.since(now)),
            }))
    }

    /// Whether a fresh value or a null, of whatever type, is stored under `key`.
    ///
    /// # Errors
    /// As [`get`](Self::get), except that every type will do.
    pub async fn exists(&self, key: &Key) -> Result<bool> {
        let (held, _) = self.look(&self.place(key), self.namespace_marks()).await?;
        Ok(held.fresh()?.is_some())
    }

    /// Removes what is stored under `key`, without reading it; `true` when there was something that the
    /// backend still had.
    ///
    /// # Errors
    /// Whatever the backend reports. The value may then still be stored.
    pub async fn delete(&self, key: &Key) -> Result<bool> {
        let place = self.place(key);
        let backend = &self.inner.backend;
        let gate = self.inner.gates.of(&place);
        gate.write(backend.delete(&place.name)).await
    }

    /// Removes what is stored under each key; one result for each, in order, and one request to the
    /// backend for all of them.
    pub async fn delete_many(&self, keys: &[Key]) -> Vec<Result<bool>> {
        let places: Vec<_> = keys.iter().map(|key| self.place(key)).collect();
        let names: Vec<_> = places.iter().map(|place| place.name.clone()).collect();
        let deleted = self.inner.backend.delete_many(&names);
        self.inner.gates.write_all(&places, deleted).await
    }

    /// Removes every value whose readable key matches `pattern`, and returns how many the backend had.
    ///
    /// The pattern is a [`Glob`] over the keys as [`scan`](Self::scan) shows them: `name:*` for those of
    /// `Key::new("name").part(..)`. Goes through all keys of the backend's prefix: a
    /// [tag](Self::invalidate_tag) costs the same for any number of values.
    ///
    /// # Errors
    /// - [`ErrorKind::Unsupported`] where the backend cannot list its keys, or the keys of this cache
    ///   are [hashed](super::CacheBuilder::hashed_keys) and `pattern` is not `*`.
    /// - Whatever the backend reports. Some of the values may then still be stored.
    pub async fn delete_pattern(&self, pattern: &str) -> Result<u64> {
        let glob = self.glob(pattern)?;
        self.inner
            .gates
            .count_where(|name| glob.matches(name))
            .await;
        if !self.namespace.name.is_root() {
            return self.inner.backend.delete_matching(&glob).await;
        }
        // Here the pattern could match marks, and the values of whole namespaces would go with one.
        let (mut cursor, mut removed) = (Cursor::default(), 0);
        loop {
            let page = self.inner.backend.scan(&glob, cursor, PAGE).await?;
            let keys: Vec<_> = page.keys.into_iter().filter(|key| is_value(key)).collect();
            for deleted in self.inner.backend.delete_many(&keys).await {
                removed += u64::from(deleted?);
            }
            match page.next {
                Some(next) => cursor = next,
                None => return Ok(removed),
            }
        }
    }

    /// Makes every value in this namespace, and in those within it, a miss: in this process and all
    /// others, however many there are. So is what loads bring that are under way.
    ///
    /// A cache without a namespace is the whole backend, and clears it, other caches in it included.
    /// Where [generations](super::CacheBuilder::generations) are switched off, the values are looked up
    /// and deleted one by one.
    ///
    /// # Errors
    /// Whatever the backend reports. Some or all of the values may then still be alive.
    pub async fn clear(&self) -> Result<()> {
        let inner = &self.inner;
        if self.namespace.name.is_root() {
            inner.gates.count_where(|_| true).await;
            return inner.backend.clear().await;
        }
        match self.namespace_marks().last() {
            Some(own) => self.renew(std::slice::from_ref(own)).await,
            None => self.delete_pattern("*").await.map(drop),
        }
    }

    /// Some of the keys that match `pattern`, from `cursor` on; about `limit` of them.
    ///
    /// Keys are shown as [`Key`] describes, and long ones cut. Following the cursors to the end shows every
    /// key that was there all the time, perhaps twice. Nothing is read but keys: what is only
    /// kept to be served stale is shown too, and so is, until the backend drops it, what
    /// [`clear`](Self::clear) and [`invalidate_tag`](Self::invalidate_tag) have made a miss.
    ///
    /// # Errors
    /// As [`delete_pattern`](Self::delete_pattern).
    pub async fn scan(&self, pattern: &str, cursor: Cursor, limit: usize) -> Result<Keys> {
        let glob = self.glob(pattern)?;
        let start = self.namespace.name.start().len();
        let page = self.inner.backend.scan(&glob, cursor, limit).await?;
        let keys = page.keys.iter().filter(|key| is_value(key));
        Ok(Keys {
            keys: keys
                .filter_map(|key| Some(String::from_utf8_lossy(key.get(start..)?).into_owned()))
                .collect(),
            next: page.next,
        })
    }

    /// How many keys [`scan`](Self::scan) shows in all. Goes through all keys of the backend's prefix.
    ///
    /// # Errors
    /// As [`delete_pattern`](Self::delete_pattern).
    pub async fn len(&self) -> Result<u64> {
        let mut seen = std::collections::HashSet::new();
        let mut cursor = Cursor::default();
        loop {
            let page = self.scan("*", cursor, PAGE).await?;
            // Hashes, not keys: a scan may show one twice, and there may be many.
            seen.extend(page.keys.iter().map(|key| {
                let hash = blake3::hash(key.as_bytes());
                u128::from_le_bytes(std::array::from_fn(|at| hash.as_bytes()[at]))
            }));
            match page.next {
                Some(next) => cursor = next,
                None => return Ok(seen.len() as u64),
            }
        }
    }

    /// Whether [`len`](Self::len) is zero.
    ///
    /// # Errors
    /// As [`delete_pattern`](Self::delete_pattern).
    pub async fn is_empty(&self) -> Result<bool> {
        Ok(self.len().await? == 0)
    }

    fn glob(&self, pattern: &str) -> Result<Glob> {
        if self.inner.hashed_keys && pattern != "*" {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "hashed keys match no pattern but `*`",
            ));
        }
        Ok(Glob::new(pattern).after(self.namespace.name.start()))
    }

    /// Stores a value, or a null, whatever else is going on in its place.
    async fn put<T: CacheValue>(
        &self,
        place: Place,
        value: Option<&T>,
        options: SetOptions,
    ) -> Result<()> {
        let (bytes, expires) = self.prepared(&place, value, options).await?;
        let backend = &self.inner.backend;
        let gate = self.inner.gates.of(&place);
        gate.write(backend.set(&place.name, bytes, expires)).await
    }

    /// A value ready to be stored, its marks seen to.
    async fn prepared<T: CacheValue>(
        &self,
        place: &Place,
        value: Option<&T>,
        options: SetOptions,
    ) -> Result<(Bytes, Option<Timestamp>)> {
        // Before anything is asked of the backend.
        self.header(options.ttl, None, Duration::ZERO, Vec::new())?;
        let (marks, generations) = self.current_marks(&self.marks_with(&options.tags)).await?;
        let (bytes, expires) = self.sealed_for(place, value, &options, marks)?;
        self.prolong_marks(&generations, expires).await;
        Ok((bytes, expires))
    }

    fn sealed_for<T: CacheValue>(
        &self,
        place: &Place,
        value: Option<&T>,
        options: &SetOptions,
        marks: Vec<Mark>,
    ) -> Result<(Bytes, Option<Timestamp>)> {
        let header = self.header(options.ttl, options.jitter, options.stale, marks)?;
        let bytes = self.seal(place, &header, value)?;
        Ok((bytes, header.physical_expiry()))
    }

    /// The same value under another header.
    pub(super) fn reseal(&self, place: &Place, sealed: &Sealed, header: &Header) -> Result<Bytes> {
        let key = place.digest.as_bytes();
        let resealed = self.inner.codec.reseal(key, header, &sealed.envelope);
        resealed.map_err(|error| {
            self.unusable("the stored value cannot be rewritten")
                .caused_by(error)
        })
    }

    /// Changes what lies in `place` by what `step` makes of it, on the condition that nothing else
    /// changes it.
    async fn exchange<R>(
        &self,
        place: &Place,
        operation: &'static str,
        mut step: impl FnMut(&Held, &Generations) -> Result<Next<R>>,
    ) -> Result<R> {
        let backend = &self.inner.backend;
        let change = async {
            for attempt in 0..CONFLICTS {
                // Those who came between each other go on at different times.
                for _ in 0..rand::random_range(0..=attempt) {
                    tokio::task::yield_now().await;
                }
                let (held, generations) = self.look(place, self.namespace_marks()).await?;
                let (changed, result) = match step(&held, &generations)? {
                    Next::Leave(result) => return Ok((false, result)),
                    Next::Write(bytes, expires, result) => {
                        let unchanged = held.unchanged();
                        let set = backend.set_if(&place.name, bytes, expires, unchanged);
                        (set.await?, result)
                    }
                    Next::Remove(result) => match held.unchanged() {
                        crate::backend::Condition::Equals(bytes) => {
                            (backend.delete_if(&place.name, bytes).await?, result)
                        }
                        _ => (true, result),
                    },
                };
                if changed {
                    return Ok((true, result));
                }
            }
            Err(self.contended(operation))
        };
        self.inner.gates.of(place).exchange(change).await
    }
}

/// Whether a key of the backend is a value's, and not a mark's.
fn is_value(key: &[u8]) -> bool {
    !key.starts_with(b"!mark:")
}
