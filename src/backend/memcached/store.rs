//! The backend itself: keys, headers, generations and expiry. See the module above for the design.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::config::MemcachedConfig;
use super::server::{Delete, Get, Reply, Server, Set};
use crate::backend::{BackendUsage, CacheBackend, Capability, StoredValue};
use crate::clock::{Clock, ClockHandle, SystemClock, Timestamp};
use crate::error::{Error, ErrorKind, Result};

/// Bytes of a generation.
const GENERATION: usize = 8;
/// Bytes before a value: its generation, then its expiry in milliseconds, both big-endian.
const HEADER: usize = GENERATION + 8;
/// In place of an expiry: the value has none.
const NEVER: u64 = u64::MAX;
/// The longest key that memcached takes.
const LONGEST_KEY: usize = 250;
/// Seconds that memcached's expiry lies behind ours: its clock ticks once a second, and it counts from
/// a tick that may be nearly two seconds old.
const LATE_SECS: u64 = 2;
/// Above this, memcached reads a number of seconds as a date.
const LONGEST_RELATIVE_SECS: u64 = 30 * 24 * 60 * 60;
/// Attempts at making a generation while others make or evict theirs.
const GENERATION_ATTEMPTS: usize = 4;

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
        Ok(MemcachedBackend {
            servers: config.servers.iter().map(server).collect(),
            generation_key: format!("{}:generation", config.key_prefix),
            max_value_bytes: usize::try_from(config.max_value_bytes.as_u64()).unwrap_or(usize::MAX),
            name: config.name,
            key_prefix: config.key_prefix,
            clock,
        })
    }
}

/// The memcached backend: a tier that several processes share. Its servers need memcached 1.6.
pub struct MemcachedBackend {
    name: String,
    clock: ClockHandle,
    key_prefix: String,
    /// No key of ours is spelled like this one: it has letters that are not hex digits.
    generation_key: String,
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

    fn place(&self, key: &[u8]) -> &Server {
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
        let prefix = &self.key_prefix;
        if prefix.len() + 1 + key.len() * 2 > LONGEST_KEY {
            return format!("{prefix}:h{}", blake3::hash(key).to_hex());
        }
        let mut wire = String::with_capacity(prefix.len() + 1 + key.len() * 2);
        wire.push_str(prefix);
        wire.push(':');
        for byte in key {
            for digit in [byte >> 4, byte & 15] {
                wire.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
            }
        }
        wire
    }

    /// The generation in force on `server`, made when there is none.
    async fn generation(&self, server: &Server) -> Result<[u8; GENERATION]> {
        for _ in 0..GENERATION_ATTEMPTS {
            let [held] = server.run([Get::new(&self.generation_key).into()]).await?;
            let held = held.into_value();
            if let Some(generation) = held.as_deref().and_then(as_generation) {
                return Ok(generation);
            }
            let fresh = fresh_generation();
            let mut made = Set::new(&self.generation_key, fresh);
            if held.is_none() {
                // Whoever comes first decides; the others read it in their next attempt.
                made = made.add();
            }
            let [made] = server.run([made.into()]).await?;
            if made.is_changed() {
                return Ok(fresh);
            }
        }
        Err(Error::new(
            ErrorKind::BackendUnavailable,
            "the server drops the generation of this cache at once",
        )
        .with("tier", &self.name)
        .with("server", server.address())
        .retryable())
    }

    /// The value in `stored`, when it is of this generation and alive.
    fn live(&self, generation: Reply, stored: Reply) -> Option<StoredValue> {
        let generation = as_generation(&generation.into_value()?)?;
        let stored = Bytes::from(stored.into_value()?);
        let (header, _) = stored.split_first_chunk::<HEADER>()?;
        let (of, expires) = header.split_first_chunk::<GENERATION>()?;
        let expires = u64::from_be_bytes(expires.try_into().ok()?);
        let expires = (expires != NEVER).then(|| Timestamp::from_millis(expires));
        let alive = expires.is_none_or(|expires| self.clock.now() < expires);
        (*of == generation && alive).then(|| StoredValue::new(stored.slice(HEADER..), expires))
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
            conditional_writes: false,
            lists_keys: false,
        }
    }

    async fn get(&self, key: &[u8]) -> Result<Option<StoredValue>> {
        let server = self.place(key);
        let commands = [
            Get::new(&self.generation_key).into(),
            Get::new(self.wire_key(key)).into(),
        ];
        let [generation, stored] = server.within_deadline(server.run(commands)).await?;
        Ok(self.live(generation, stored))
    }

    async fn set(&self, key: &[u8], value: Bytes, expires: Option<Timestamp>) -> Result<()> {
        // The server would refuse it too, but only after dropping what the key held before.
        if value.len() > self.max_value_bytes {
            return Err(
                Error::new(ErrorKind::TooLarge, "the value does not fit into the tier")
                    .with("tier", &self.name)
                    .with("bytes", value.len())
                    .with("allowed", self.max_value_bytes),
            );
        }
        let server = self.place(key);
        let wire_key = self.wire_key(key);
        let now = self.clock.now();
        if expires.is_some_and(|expires| expires <= now) {
            let commands = [Delete::new(wire_key).into()];
            return server
                .within_deadline(server.run(commands))
                .await
                .map(|_| ());
        }
        let exptime = exptime(expires.map(|at| at.since(now)), SystemClock.now());
        server
            .within_deadline(async {
                let generation = self.generation(server).await?;
                let mut bytes = Vec::with_capacity(HEADER + value.len());
                bytes.extend(generation);
                bytes.extend(expires.map_or(NEVER, Timestamp::as_millis).to_be_bytes());
                bytes.extend_from_slice(&value);
                let mut command = Set::new(wire_key, []).ttl_raw(exptime);
                command.value = bytes;
                let [stored] = server.run([command.into()]).await?;
                if stored.is_changed() {
                    return Ok(());
                }
                Err(
                    Error::new(ErrorKind::BackendUnavailable, "memcached did not store")
                        .with("tier", &self.name)
                        .with("server", server.address())
                        .retryable(),
                )
            })
            .await
    }

    async fn delete(&self, key: &[u8]) -> Result<bool> {
        let server = self.place(key);
        let wire_key = self.wire_key(key);
        let commands = [
            Get::new(&self.generation_key).into(),
            Get::new(&wire_key).into(),
            Delete::new(&wire_key).into(),
        ];
        let [generation, stored, deleted] = server.within_deadline(server.run(commands)).await?;
        let was_live = self.live(generation, stored);
        // Of several who delete at once, the server says yes to one.
        Ok(deleted.is_changed() && was_live.is_some())
    }

    async fn clear(&self) -> Result<()> {
        let key = &self.generation_key;
        self.on_every_server(|server| {
            let command = Set::new(key, fresh_generation());
            async move { server.run([command.into()]).await }
        })
        .await
        .map(|_| ())
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
}

fn as_generation(bytes: &[u8]) -> Option<[u8; GENERATION]> {
    bytes.try_into().ok()
}

fn fresh_generation() -> [u8; GENERATION] {
    rand::random()
}

/// When memcached may give the memory of a value back that has `life` left: 0 for never, a number of
/// seconds, or a date. A date is by the wall clock, whatever clock measured the life.
fn exptime(life: Option<Duration>, wall: Timestamp) -> u32 {
    let Some(life) = life else { return 0 };
    let secs = ceil_secs(life).saturating_add(LATE_SECS);
    let secs = if secs > LONGEST_RELATIVE_SECS {
        let date = wall.after(life).as_millis().div_ceil(1_000);
        date.saturating_add(LATE_SECS)
    } else {
        secs
    };
    // memcached reads a signed number; what lies beyond it is left to eviction and the header.
    i32::try_from(secs).map_or(0, i32::unsigned_abs)
}

fn ceil_secs(duration: Duration) -> u64 {
    let part = u64::from(duration.subsec_nanos() > 0);
    duration.as_secs().saturating_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: Timestamp = Timestamp::from_millis(1_800_000_000_001);
    const DAY: u64 = 24 * 60 * 60;

    fn backend(servers: &[&str]) -> MemcachedBackend {
        let config = MemcachedConfig {
            servers: servers.iter().map(ToString::to_string).collect(),
            ..MemcachedConfig::default()
        };
        MemcachedBackend::builder(config).build().unwrap()
    }

    #[test]
    fn the_expiry_of_the_server_is_never_before_ours() {
        assert_eq!(exptime(None, WALL), 0);
        for (millis, secs) in [(1, 3), (999, 3), (1_000, 3), (1_001, 4), (60_000, 62)] {
            assert_eq!(exptime(Some(Duration::from_millis(millis)), WALL), secs);
        }
        let days = |days| exptime(Some(Duration::from_secs(days * DAY)), WALL);
        assert_eq!(u64::from(days(29)), 29 * DAY + 2);
        // More than thirty days as a number of seconds would be a date in 1970: gone at once.
        assert_eq!(u64::from(days(30)), 1_800_000_001 + 30 * DAY + 2);
        assert_eq!(u64::from(days(365)), 1_800_000_001 + 365 * DAY + 2);
        // Beyond 2038 the field overflows.
        assert_eq!(days(36_500), 0);
        assert_eq!(exptime(Some(Duration::MAX), WALL), 0);
    }

    #[test]
    fn keys_on_the_wire_are_ones_that_memcached_takes_and_never_collide() {
        let backend = backend(&["h:1"]);
        assert_eq!(backend.wire_key(b""), "askonce:");
        assert_eq!(backend.wire_key(b"\0 \r\n\xff"), "askonce:00200d0aff");
        let long = backend.wire_key(&[7; 2_000]);
        assert_eq!(long.len(), "askonce:h".len() + 64);
        for length in 0..400 {
            let wire = backend.wire_key(&vec![b' '; length]);
            assert!(wire.len() <= LONGEST_KEY, "{wire}");
            assert!(wire.bytes().all(|byte| byte.is_ascii_graphic()), "{wire}");
            assert_ne!(wire, backend.generation_key);
        }
        // A key that is another key's hash is not that key.
        let digest = blake3::hash(&[7; 2_000]);
        assert_ne!(backend.wire_key(digest.as_bytes()), long);
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
