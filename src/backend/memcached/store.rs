//! The backend itself: which server and which key, one operation or many. See the module above for the
//! design.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::config::MemcachedConfig;
use super::record::{Change, Record, Records};
use super::server::Server;
use crate::backend::keyspace::Keyspace;
use crate::backend::{
    BackendUsage, CacheBackend, Capability, Condition, ServerFacts, StoredValue, Write, count_after,
};
use crate::clock::{ClockHandle, SystemClock, Timestamp};
use crate::error::{Error, ErrorKind, Result};

/// The longest key that memcached takes.
const LONGEST_KEY: usize = 250;

/// Items of one exchange with a server, and bytes that it may send: the server stops reading while its
/// answers are not read, so what is sent before must fit into the buffers between.
const BATCH: usize = 100;
const BATCH_BYTES: usize = 1 << 20;

/// Builds a [`MemcachedBackend`].
pub struct MemcachedBackendBuilder {
    config: MemcachedConfig,
    clock: ClockHandle,
}

impl fmt::Debug for MemcachedBackendBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemcachedBackendBuilder")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl MemcachedBackendBuilder {
    /// The clock that decides what has expired. Default: the system clock.
    #[must_use]
    pub fn clock(mut self, clock: ClockHandle) -> Self {
        self.clock = clock;
        self
    }

    /// The backend. Nothing is connected yet, so the servers may be down.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when a setting is out of range.
    pub fn build(self) -> Result<MemcachedBackend> {
        let Self { config, clock } = self;
        config.validate("backends[memcached]")?;
        let server = |address: &String| {
            let server = Server::new(&config.name, address, config.timeout);
            (xxh3_64(address.as_bytes()), Arc::new(server))
        };
        let servers = config.servers.iter().map(server).collect();
        let records = Records {
            // After the `%` come only hex digits in a key that is written in hex, and `h` in a hash.
            generation_key: format!("{}::%generation", config.key_prefix),
            clock,
        };
        Ok(MemcachedBackend {
            servers,
            records,
            max_value_bytes: usize::try_from(config.max_value_bytes.as_u64()).unwrap_or(usize::MAX),
            keys: Keyspace::new(&config.key_prefix),
            name: config.name,
            key_prefix: config.key_prefix,
        })
    }
}

/// The memcached backend: a tier that several processes share. Its servers need memcached 1.6.
pub struct MemcachedBackend {
    name: String,
    key_prefix: String,
    keys: Keyspace,
    records: Records,
    max_value_bytes: usize,
    /// Each with the hash of its address.
    servers: Vec<(u64, Arc<Server>)>,
}

impl MemcachedBackend {
    /// A builder for a backend with these settings.
    #[must_use]
    pub fn builder(config: MemcachedConfig) -> MemcachedBackendBuilder {
        MemcachedBackendBuilder {
            config,
            clock: Arc::new(SystemClock),
        }
    }

    /// The address of the server that keeps `key`, as it stands in the settings.
    #[must_use]
    pub fn server_of(&self, key: &[u8]) -> &str {
        self.place(key).address()
    }

    fn place(&self, key: &[u8]) -> &Arc<Server> {
        let weight = |seed: u64| xxh3_64_with_seed(key, seed);
        let heaviest = self.servers.iter().max_by(|(a, left), (b, right)| {
            // Equal weights are as good as impossible; the address keeps them independent of the order.
            let by_address = || left.address().cmp(right.address());
            weight(*a).cmp(&weight(*b)).then_with(by_address)
        });
        let (_, server) = heaviest.expect("the settings were checked: there is a server");
        server
    }

    /// `key` as memcached sees it.
    fn wire_key(&self, key: &[u8]) -> String {
        match String::from_utf8(self.keys.encode(key)) {
            Ok(wire) if wire.len() <= LONGEST_KEY => wire,
            _ => format!("{}::%h{}", self.key_prefix, blake3::hash(key).to_hex()),
        }
    }

    /// Refuses what can never fit. The server would refuse it too, but only after dropping what the key
    /// held before.
    fn check_size(&self, value: &[u8]) -> Result<()> {
        if value.len() <= self.max_value_bytes {
            return Ok(());
        }
        Err(
            Error::new(ErrorKind::TooLarge, "the value does not fit into the tier")
                .with("tier", &self.name)
                .with("bytes", value.len())
                .with("allowed", self.max_value_bytes),
        )
    }

    /// Changes `key` as `decide` says.
    async fn change<T>(
        &self,
        key: &[u8],
        decide: impl Fn(Option<&StoredValue>) -> Result<Change<T>>,
    ) -> Result<T> {
        let server = self.place(key);
        let wire_key = self.wire_key(key);
        let changed = self.records.change(server, &wire_key, decide);
        server.within_deadline(changed).await
    }

    /// Runs `operation` on every server at once; the first failure, when all have ended.
    async fn on_every_server<T, F>(&self, operation: impl Fn(Arc<Server>) -> F) -> Result<Vec<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut tasks = JoinSet::new();
        for (_, server) in &self.servers {
            let work = operation(Arc::clone(server));
            let server = Arc::clone(server);
            tasks.spawn(async move { server.within_deadline(work).await });
        }
        tasks.join_all().await.into_iter().collect()
    }

    /// Runs `operation` over `items` in batches: the servers at once, the batches of one server in order,
    /// each within a deadline of its own. One result for each item, in order. When a server fails a whole
    /// batch, the rest of its share fails with it instead of waiting as long each time.
    async fn in_batches<I, T, F>(
        &self,
        items: Vec<Placed<I>>,
        operation: impl Fn(Records, Arc<Server>, Vec<I>) -> F + Clone + Send + 'static,
    ) -> Vec<Result<T>>
    where
        I: Send + 'static,
        T: Send + 'static,
        F: Future<Output = Result<Vec<Result<T>>>> + Send + 'static,
    {
        let mut shares: Vec<Share<I>> = Vec::new();
        for item in items {
            let same = |share: &&mut Share<I>| Arc::ptr_eq(&share.server, &item.server);
            match shares.iter_mut().find(same) {
                Some(share) => share.add(item),
                None => shares.push(Share::of(item)),
            }
        }
        let mut tasks = JoinSet::new();
        for Share {
            server, batches, ..
        } in shares
        {
            let (records, operation) = (self.records.clone(), operation.clone());
            tasks.spawn(async move {
                let mut ended = Vec::new();
                let mut failed = None;
                for (indices, items) in batches {
                    let results = match failed.clone() {
                        Some(error) => Err(error),
                        None => {
                            let work = operation(records.clone(), Arc::clone(&server), items);
                            server.within_deadline(work).await
                        }
                    };
                    match results {
                        Ok(results) => ended.extend(indices.into_iter().zip(results)),
                        Err(error) => {
                            ended.extend(indices.iter().map(|i| (*i, Err(error.clone()))));
                            failed = Some(error);
                        }
                    }
                }
                ended
            });
        }
        let mut ended: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
        ended.sort_unstable_by_key(|(i, _)| *i);
        ended.into_iter().map(|(_, result)| result).collect()
    }

    fn placed<I>(&self, index: usize, key: &[u8], bytes: usize, item: I) -> Placed<I> {
        Placed {
            index,
            server: Arc::clone(self.place(key)),
            bytes,
            item,
        }
    }

    fn placed_keys(&self, keys: &[Bytes]) -> Vec<Placed<String>> {
        let keys = keys.iter().enumerate();
        keys.map(|(i, key)| self.placed(i, key, 0, self.wire_key(key)))
            .collect()
    }
}

/// One item of many, and whose it is.
struct Placed<I> {
    index: usize,
    server: Arc<Server>,
    /// What it takes to send it, beyond its key.
    bytes: usize,
    item: I,
}

/// The items of one server, in batches, each item with its index.
struct Share<I> {
    server: Arc<Server>,
    batches: Vec<(Vec<usize>, Vec<I>)>,
    /// Of the last batch.
    bytes: usize,
}

impl<I> Share<I> {
    fn of(first: Placed<I>) -> Self {
        Self {
            server: first.server,
            batches: vec![(vec![first.index], vec![first.item])],
            bytes: first.bytes,
        }
    }

    fn add(&mut self, next: Placed<I>) {
        match self.batches.last_mut() {
            Some((indices, items))
                if items.len() < BATCH && self.bytes + next.bytes <= BATCH_BYTES =>
            {
                indices.push(next.index);
                items.push(next.item);
                self.bytes += next.bytes;
            }
            _ => {
                self.batches.push((vec![next.index], vec![next.item]));
                self.bytes = next.bytes;
            }
        }
    }
}

impl fmt::Debug for MemcachedBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers: Vec<_> = self.servers.iter().map(|(_, s)| s.address()).collect();
        f.debug_struct("MemcachedBackend")
            .field("name", &self.name)
            .field("key_prefix", &self.key_prefix)
            .field("servers", &servers)
            .finish_non_exhaustive()
    }
}

/// The one result of a batch of one.
fn only<T>(results: Vec<Result<T>>, server: &Server) -> Result<T> {
    results.into_iter().next().unwrap_or_else(|| {
        Err(server
            .error(ErrorKind::BackendUnavailable, "a reply is missing")
            .retryable())
    })
}

impl CacheBackend for MemcachedBackend {
    fn name(&self) -> &str {
        &self.name
    }

    fn capability(&self) -> Capability {
        Capability {
            in_process: false,
            evicts: true,
            counts_exactly: false,
            max_value_bytes: Some(self.max_value_bytes),
            conditional_writes: true,
            lists_keys: false,
        }
    }

    async fn get(&self, key: &[u8]) -> Result<Option<StoredValue>> {
        let server = self.place(key);
        let keys = [self.wire_key(key)];
        let found = self.records.get(server, &keys);
        only(server.within_deadline(found).await?, server)
    }

    async fn set(&self, key: &[u8], value: Bytes, expires: Option<Timestamp>) -> Result<()> {
        self.check_size(&value)?;
        let server = self.place(key);
        let records = [Record {
            wire_key: self.wire_key(key),
            value,
            expires,
        }];
        let stored = self.records.set(server, &records);
        only(server.within_deadline(stored).await?, server)
    }

    async fn delete(&self, key: &[u8]) -> Result<bool> {
        let server = self.place(key);
        let keys = [self.wire_key(key)];
        let deleted = self.records.delete(server, &keys);
        only(server.within_deadline(deleted).await?, server)
    }

    async fn get_many(&self, keys: &[Bytes]) -> Vec<Result<Option<StoredValue>>> {
        let get = |records: Records, server: Arc<Server>, keys: Vec<String>| async move {
            records.get(&server, &keys).await
        };
        self.in_batches(self.placed_keys(keys), get).await
    }

    async fn set_many(&self, writes: &[Write]) -> Vec<Result<()>> {
        let items = writes.iter().enumerate().map(|(i, write)| {
            let record = self.check_size(&write.value).map(|()| Record {
                wire_key: self.wire_key(&write.key),
                value: write.value.clone(),
                expires: write.expires,
            });
            let bytes = record.as_ref().map_or(0, |record| record.value.len());
            self.placed(i, &write.key, bytes, record)
        });
        let set = |records: Records, server: Arc<Server>, items: Vec<Result<Record>>| async move {
            let fitting: Vec<Record> = items.iter().flatten().cloned().collect();
            let mut stored = if fitting.is_empty() {
                Vec::new()
            } else {
                records.set(&server, &fitting).await?
            };
            // The server's refusal of one ends the batch; what came after it has not been answered.
            for (record, stored) in fitting.iter().zip(&mut stored) {
                if matches!(stored, Err(error) if error.kind() == ErrorKind::TooLarge) {
                    let alone = std::slice::from_ref(record);
                    *stored = only(records.set(&server, alone).await?, &server);
                }
            }
            let mut stored = stored.into_iter();
            let each = items.into_iter().map(|item| match item {
                Ok(_) => only(stored.next().into_iter().collect(), &server),
                Err(refused) => Err(refused),
            });
            Ok(each.collect())
        };
        self.in_batches(items.collect(), set).await
    }

    async fn delete_many(&self, keys: &[Bytes]) -> Vec<Result<bool>> {
        let delete = |records: Records, server: Arc<Server>, keys: Vec<String>| async move {
            records.delete(&server, &keys).await
        };
        self.in_batches(self.placed_keys(keys), delete).await
    }

    async fn set_if(
        &self,
        key: &[u8],
        value: Bytes,
        expires: Option<Timestamp>,
        condition: Condition<'_>,
    ) -> Result<bool> {
        self.check_size(&value)?;
        self.change(key, |held| {
            let holds = match (condition, held) {
                (Condition::Absent, held) => held.is_none(),
                (Condition::Present, held) => held.is_some(),
                (Condition::Equals(expected), Some(held)) => held.bytes == expected,
                (Condition::Equals(_), None) => false,
            };
            Ok(if holds {
                Change::Write(value.clone(), expires, true)
            } else {
                Change::Leave(false)
            })
        })
        .await
    }

    async fn delete_if(&self, key: &[u8], expected: &[u8]) -> Result<bool> {
        self.change(key, |held| {
            Ok(match held {
                Some(held) if held.bytes == expected => Change::Remove(true),
                _ => Change::Leave(false),
            })
        })
        .await
    }

    async fn take(&self, key: &[u8]) -> Result<Option<StoredValue>> {
        self.change(key, |held| {
            Ok(match held {
                Some(held) => Change::Remove(Some(held.clone())),
                None => Change::Leave(None),
            })
        })
        .await
    }

    async fn touch(&self, key: &[u8], expires: Option<Timestamp>) -> Result<bool> {
        self.change(key, |held| {
            Ok(match held {
                Some(held) => Change::Write(held.bytes.clone(), expires, true),
                None => Change::Leave(false),
            })
        })
        .await
    }

    /// Not by memcached's own counters: those know neither a sign nor our header.
    async fn increment(&self, key: &[u8], by: i64, expires: Option<Timestamp>) -> Result<i64> {
        self.change(key, |held| {
            let count = count_after(held.map(|held| &held.bytes), by)
                .map_err(|error| error.with("tier", &self.name))?;
            let expires = held.map_or(expires, |held| held.expires);
            Ok(Change::Write(
                Bytes::from(count.to_string()),
                expires,
                count,
            ))
        })
        .await
    }

    async fn clear(&self) -> Result<()> {
        self.on_every_server(|server| {
            let records = self.records.clone();
            async move { records.clear(&server).await }
        })
        .await
        .map(drop)
    }

    /// What the servers report: all they hold, of this cache and of everyone else, dead values that
    /// they have not yet given up included.
    async fn usage(&self) -> Result<BackendUsage> {
        let each = self
            .on_every_server(|server| async move { server.usage().await })
            .await?;
        Ok(BackendUsage {
            entries: each.iter().map(|usage| usage.entries).sum(),
            bytes: each.iter().map(|usage| usage.bytes).sum(),
        })
    }

    /// Whether every server answers.
    async fn ping(&self) -> Result<()> {
        let pinged = self.on_every_server(|server| async move { server.ping().await });
        pinged.await.map(drop)
    }

    async fn servers(&self) -> Result<Vec<ServerFacts>> {
        let clock = &self.records.clock;
        self.on_every_server(|server| {
            let clock = Arc::clone(clock);
            async move { server.facts(&*clock).await }
        })
        .await
    }

    async fn close(&self) {
        for (_, server) in &self.servers {
            server.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(servers: &[&str]) -> MemcachedBackend {
        let config = MemcachedConfig {
            servers: servers.iter().map(ToString::to_string).collect(),
            ..MemcachedConfig::default()
        };
        MemcachedBackend::builder(config).build().unwrap()
    }

    #[test]
    fn keys_on_the_wire_are_ones_that_memcached_takes_and_never_collide() {
        let backend = backend(&["h:1"]);
        assert_eq!(backend.wire_key(b"users:7"), "askonce::users:7");
        assert_eq!(backend.wire_key(b""), "askonce::%");
        assert_eq!(backend.wire_key(b"\0 \r\n\xff"), "askonce::%00200d0aff");
        let long = backend.wire_key(&[7; 2_000]);
        assert_eq!(long.len(), "askonce::%h".len() + 64);
        let generation_key = &backend.records.generation_key;
        for length in 0..400 {
            for byte in [b' ', b'g'] {
                let wire = backend.wire_key(&vec![byte; length]);
                assert!(wire.len() <= LONGEST_KEY, "{wire}");
                assert!(wire.bytes().all(|byte| byte.is_ascii_graphic()), "{wire}");
                assert_ne!(wire, *generation_key);
            }
        }
        // A key that is another key's hash, or is spelled like one or like the generation, is not that.
        let digest = blake3::hash(&[7; 2_000]);
        let spelled = long.strip_prefix("askonce::").unwrap();
        assert_ne!(backend.wire_key(digest.as_bytes()), long);
        assert_ne!(backend.wire_key(spelled.as_bytes()), long);
        let spelled = generation_key.strip_prefix("askonce::").unwrap();
        assert_ne!(backend.wire_key(spelled.as_bytes()), *generation_key);
        // Neither is a key of another prefix.
        assert_ne!(backend.wire_key(b":x"), "askonce:::x");
    }

    #[test]
    fn placement_is_fixed_even_and_independent_of_the_order() {
        let here = backend(&["a:1", "b:2", "c:3"]);
        let there = backend(&["c:3", "a:1", "b:2"]);
        let fewer = backend(&["c:3", "a:1"]);
        let mut counts = std::collections::BTreeMap::new();
        for i in 0..3_000_u32 {
            let key = i.to_le_bytes();
            let server = here.server_of(&key);
            assert_eq!(server, there.server_of(&key));
            if server != "b:2" {
                assert_eq!(server, fewer.server_of(&key), "only what b had may move");
            }
            *counts.entry(server.to_owned()).or_insert(0) += 1;
        }
        assert!(
            counts.values().all(|&count| (850..1_150).contains(&count)),
            "{counts:?}"
        );
        // Recorded once: another hash would lose the contents of every cluster in use.
        let placed: Vec<_> = (0..8_u8).map(|i| here.server_of(&[i])).collect();
        assert_eq!(
            placed,
            ["c:3", "c:3", "a:1", "b:2", "a:1", "c:3", "b:2", "a:1"]
        );
    }
}
