//! The backend itself: values with their header, and the command for each operation.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use super::RedisConfig;
use super::feed::RedisFeed;
use super::link::Link;
use super::scan::Walk;
use super::script::{self, Call, Script};
use crate::backend::keyspace::Keyspace;
use crate::backend::{
    BackendUsage, CacheBackend, Capability, Condition, Cursor, FeedHandle, Glob, KeyPage,
    MAX_COUNT, ServerFacts, StoredValue, Write, ahead_ms,
};
use crate::clock::{ClockHandle, SystemClock, Timestamp};
use crate::error::{Error, ErrorKind, Result};

/// Bytes before a value: its expiry.
const HEADER: usize = 8;

/// The header of a value that does not expire.
const NEVER: [u8; HEADER] = [0xff; HEADER];

/// How much longer than its life Redis keeps a value, for clocks that differ.
const PHYSICAL_GRACE: Duration = Duration::from_secs(60);

/// Lives longer than this are not told to Redis, which refuses expiries that overflow.
const LONGEST_LIFE: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// How long a count of all keys is good for.
const USAGE_AGE: Duration = Duration::from_secs(30);

/// Builds a [`RedisBackend`].
pub struct RedisBackendBuilder {
    config: RedisConfig,
    clock: ClockHandle,
}

impl fmt::Debug for RedisBackendBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBackendBuilder")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl RedisBackendBuilder {
    /// The clock that decides what has expired. Default: the system clock.
    #[must_use]
    pub fn clock(mut self, clock: ClockHandle) -> Self {
        self.clock = clock;
        self
    }

    /// The backend. Does not connect: the server may be down.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when a setting is out of range, or a file for TLS cannot be used.
    pub fn build(self) -> Result<RedisBackend> {
        const PATH: &str = "backends[redis]";
        self.config.validate(PATH)?;
        let certificates = super::tls::certificates(&self.config, PATH)?;
        let link = Link::new(&self.config, certificates).map_err(|_| {
            // The cause may quote the address.
            Error::new(ErrorKind::Config, "the address of Redis cannot be used")
                .with("field", format!("{PATH}.redis_url"))
                .with("value", self.config.shown_url())
        })?;
        let keys = Keyspace::new(&self.config.key_prefix);
        Ok(RedisBackend {
            feed: Arc::new(RedisFeed::new(Arc::clone(&link), keys.reserved("feed"))),
            keys,
            config: self.config,
            clock: self.clock,
            link,
            counted: Mutex::default(),
        })
    }
}

/// A tier in a Redis or Valkey server, shared by processes. See the module documentation.
pub struct RedisBackend {
    config: RedisConfig,
    pub(super) keys: Keyspace,
    clock: ClockHandle,
    pub(super) link: Arc<Link>,
    feed: Arc<RedisFeed>,
    counted: Mutex<Option<(Instant, BackendUsage)>>,
}

impl fmt::Debug for RedisBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBackend")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

fn header(expires: Option<Timestamp>) -> [u8; HEADER] {
    expires.map_or(NEVER, |expires| expires.as_millis().to_be_bytes())
}

/// When a value that starts with `header` dies; `None`: never.
fn expiry(header: &[u8]) -> Option<Timestamp> {
    let header = *header.first_chunk::<HEADER>()?;
    (header != NEVER).then(|| Timestamp::from_millis(u64::from_be_bytes(header)))
}

/// Whether a value that starts with `header` is alive; `None` when it is no header.
fn is_live(header: &[u8], now: Timestamp) -> Option<bool> {
    let header = *header.first_chunk::<HEADER>()?;
    Some(header == NEVER || now < Timestamp::from_millis(u64::from_be_bytes(header)))
}

/// How long Redis is told to keep a value, in milliseconds; empty: for ever.
fn kept(expires: Option<Timestamp>, now: Timestamp) -> String {
    match expires.map(|expires| expires.since(now)) {
        Some(life) if life < LONGEST_LIFE => {
            life.saturating_add(PHYSICAL_GRACE).as_millis().to_string()
        }
        _ => String::new(),
    }
}

/// What `INFO` says.
fn facts(info: &str) -> ServerFacts {
    let field = |name: &str| {
        let mut lines = info.lines().filter_map(|line| line.split_once(':'));
        lines
            .find(|(field, _)| *field == name)
            .map(|(_, value)| value)
    };
    let number = |name| field(name).and_then(|value| value.parse().ok());
    let valkey = field("valkey_version");
    ServerFacts {
        software: if valkey.is_some() { "valkey" } else { "redis" },
        version: valkey.or(field("redis_version")).map(str::to_owned),
        used_bytes: number("used_memory"),
        max_bytes: number("maxmemory").filter(|bytes| *bytes > 0),
        eviction_policy: field("maxmemory_policy").map(str::to_owned),
        evicted: number("evicted_keys"),
        ..ServerFacts::default()
    }
}

fn is_past(expires: Option<Timestamp>, now: Timestamp) -> bool {
    expires.is_some_and(|expires| expires <= now)
}

impl RedisBackend {
    /// A builder for a backend with these settings.
    #[must_use]
    pub fn builder(config: RedisConfig) -> RedisBackendBuilder {
        RedisBackendBuilder {
            config,
            clock: Arc::new(SystemClock),
        }
    }

    /// Refuses what can never fit.
    fn check_size(&self, value: &Bytes) -> Result<()> {
        if value.len() as u64 > self.config.max_value_bytes.as_u64() {
            return Err(
                Error::new(ErrorKind::TooLarge, "the value does not fit into the tier")
                    .with("tier", &self.config.name)
                    .with("bytes", value.len())
                    .with("allowed", self.config.max_value_bytes.as_u64()),
            );
        }
        Ok(())
    }

    /// A value as it is stored; empty when it is dead already.
    fn stored(&self, value: &[u8], expires: Option<Timestamp>, now: Timestamp) -> Bytes {
        if is_past(expires, now) {
            return Bytes::new();
        }
        let mut stored = Vec::with_capacity(HEADER + value.len());
        stored.extend_from_slice(&header(expires));
        stored.extend_from_slice(value);
        Bytes::from(stored)
    }

    /// The live value in what Redis holds.
    fn opened(
        &self,
        operation: &'static str,
        held: Option<Vec<u8>>,
    ) -> Result<Option<StoredValue>> {
        let Some(held) = held.map(Bytes::from) else {
            return Ok(None);
        };
        match is_live(&held, self.clock.now()) {
            Some(true) => Ok(Some(StoredValue::new(held.slice(HEADER..), expiry(&held)))),
            Some(false) => Ok(None),
            None => Err(self.link.foreign(operation)),
        }
    }

    fn setting(&self, key: &[u8], value: &Bytes, expires: Option<Timestamp>) -> Call {
        let now = self.clock.now();
        let key = self.keys.encode(key);
        let stored = self.stored(value, expires, now);
        if stored.is_empty() {
            return Call::plain("UNLINK", key, &[]);
        }
        match kept(expires, now).as_str() {
            "" => Call::plain("SET", key, &[&stored]),
            life => Call::plain("SET", key, &[&stored, b"PX", life.as_bytes()]),
        }
    }

    /// A call of a script, which is told the time before its other arguments.
    fn script<const N: usize>(
        &self,
        script: &'static Script,
        key: &[u8],
        arguments: [Bytes; N],
    ) -> Call {
        let mut all = Vec::with_capacity(N + 1);
        all.push(Bytes::from(self.clock.now().as_millis().to_string()));
        all.extend(arguments);
        Call::Script {
            script,
            key: self.keys.encode(key),
            arguments: all,
        }
    }

    /// Bytes of these keys and their values.
    async fn measure(&self, keys: &[Vec<u8>]) -> Result<u64> {
        let calls: Vec<Call> = keys
            .iter()
            .map(|key| Call::plain("STRLEN", key.clone(), &[]))
            .collect();
        let mut bytes: u64 = keys.iter().map(|key| key.len() as u64).sum();
        for length in self.link.calls::<u64>("usage", &calls).await {
            match length {
                Ok(length) => bytes += length,
                // Another program's, and of a kind that has no length.
                Err(error) if error.kind() == ErrorKind::Corrupt => {}
                Err(error) => return Err(error),
            }
        }
        Ok(bytes)
    }

    /// Those of these keys that hold live values, as callers know them.
    async fn live(&self, keys: Vec<(Vec<u8>, Vec<u8>)>) -> Result<Vec<Bytes>> {
        let last = (HEADER - 1).to_string();
        let calls: Vec<Call> = keys
            .iter()
            .map(|(wire, _)| Call::plain("GETRANGE", wire.clone(), &[b"0", last.as_bytes()]))
            .collect();
        let headers = self.link.calls::<Vec<u8>>("scan", &calls).await;
        let now = self.clock.now();
        let mut live = Vec::with_capacity(keys.len());
        for ((_, key), header) in keys.into_iter().zip(headers) {
            match header {
                Ok(header) if is_live(&header, now) == Some(true) => live.push(Bytes::from(key)),
                Ok(_) => {}
                // Another program's.
                Err(error) if error.kind() == ErrorKind::Corrupt => {}
                Err(error) => return Err(error),
            }
        }
        Ok(live)
    }

    /// Of keys as the server sees them, those that match, with what callers know them as.
    fn matching(&self, wire: Vec<Vec<u8>>, pattern: &Glob) -> Vec<(Vec<u8>, Vec<u8>)> {
        wire.into_iter()
            .filter_map(|wire| {
                let key = self.keys.decode(&wire)?;
                pattern.matches(&key).then_some((wire, key))
            })
            .collect()
    }
}

impl CacheBackend for RedisBackend {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn capability(&self) -> Capability {
        Capability {
            in_process: false,
            // When the server has a bound on its memory and a policy to evict.
            evicts: true,
            counts_exactly: false,
            max_value_bytes: usize::try_from(self.config.max_value_bytes.as_u64()).ok(),
            conditional_writes: true,
            lists_keys: true,
        }
    }

    async fn get(&self, key: &[u8]) -> Result<Option<StoredValue>> {
        let call = Call::plain("GET", self.keys.encode(key), &[]);
        let held = self.link.call("get", &call).await?;
        self.opened("get", held)
    }

    async fn get_many(&self, keys: &[Bytes]) -> Vec<Result<Option<StoredValue>>> {
        let calls: Vec<Call> = keys
            .iter()
            .map(|key| Call::plain("GET", self.keys.encode(key), &[]))
            .collect();
        let held = self.link.calls("get_many", &calls).await;
        held.into_iter()
            .map(|held| held.and_then(|held| self.opened("get_many", held)))
            .collect()
    }

    async fn set(&self, key: &[u8], value: Bytes, expires: Option<Timestamp>) -> Result<()> {
        self.check_size(&value)?;
        let call = self.setting(key, &value, expires);
        self.link.call::<redis::Value>("set", &call).await.map(drop)
    }

    async fn set_many(&self, writes: &[Write]) -> Vec<Result<()>> {
        let sizes: Vec<Result<()>> = writes
            .iter()
            .map(|write| self.check_size(&write.value))
            .collect();
        let calls: Vec<Call> = writes
            .iter()
            .zip(&sizes)
            .filter(|(_, size)| size.is_ok())
            .map(|(write, _)| self.setting(&write.key, &write.value, write.expires))
            .collect();
        let mut stored = self
            .link
            .calls::<redis::Value>("set_many", &calls)
            .await
            .into_iter();
        sizes
            .into_iter()
            .map(|size| {
                size?;
                stored.next().map_or(Ok(()), |stored| stored.map(drop))
            })
            .collect()
    }

    async fn set_if(
        &self,
        key: &[u8],
        value: Bytes,
        expires: Option<Timestamp>,
        condition: Condition<'_>,
    ) -> Result<bool> {
        self.check_size(&value)?;
        let now = self.clock.now();
        let (name, expected): (&'static str, &[u8]) = match condition {
            Condition::Absent => ("absent", b""),
            Condition::Present => ("present", b""),
            Condition::Equals(expected) => ("equals", expected),
        };
        let arguments = [
            Bytes::from_static(name.as_bytes()),
            Bytes::copy_from_slice(expected),
            self.stored(&value, expires, now),
            Bytes::from(kept(expires, now)),
        ];
        let call = self.script(&script::SET_IF, key, arguments);
        self.link.call("set_if", &call).await
    }

    async fn delete(&self, key: &[u8]) -> Result<bool> {
        let call = self.script(&script::DELETE, key, []);
        self.link.call("delete", &call).await
    }

    async fn delete_many(&self, keys: &[Bytes]) -> Vec<Result<bool>> {
        let calls: Vec<Call> = keys
            .iter()
            .map(|key| self.script(&script::DELETE, key, []))
            .collect();
        self.link.calls("delete_many", &calls).await
    }

    async fn delete_if(&self, key: &[u8], expected: &[u8]) -> Result<bool> {
        let expected = Bytes::copy_from_slice(expected);
        let call = self.script(&script::DELETE_IF, key, [expected]);
        self.link.call("delete_if", &call).await
    }

    async fn take(&self, key: &[u8]) -> Result<Option<StoredValue>> {
        let call = self.script(&script::TAKE, key, []);
        let held = self.link.call("take", &call).await?;
        self.opened("take", held)
    }

    async fn touch(&self, key: &[u8], expires: Option<Timestamp>) -> Result<bool> {
        let now = self.clock.now();
        let arguments = [
            self.stored(b"", expires, now),
            Bytes::from(kept(expires, now)),
        ];
        let call = self.script(&script::TOUCH, key, arguments);
        self.link.call("touch", &call).await
    }

    async fn increment(&self, key: &[u8], by: i64, expires: Option<Timestamp>) -> Result<i64> {
        let refuse = |what: &'static str| {
            Error::new(ErrorKind::InvalidRequest, what).with("tier", &self.config.name)
        };
        let overflow = || {
            refuse("the counter would overflow")
                .with("allowed", format!("-{MAX_COUNT} to {MAX_COUNT}"))
        };
        let now = self.clock.now();
        let halves = [by / 2, by - by / 2];
        if halves.iter().any(|half| half.abs() > MAX_COUNT) {
            return Err(overflow());
        }
        let arguments = [
            Bytes::from(halves[0].to_string()),
            Bytes::from(halves[1].to_string()),
            Bytes::from(MAX_COUNT.to_string()),
            self.stored(b"", expires, now),
            Bytes::from(kept(expires, now)),
        ];
        let call = self.script(&script::INCREMENT, key, arguments);
        let (code, digits): (i64, String) = self.link.call("increment", &call).await?;
        match code {
            script::count::COUNTED => digits.parse().map_err(|_| self.link.foreign("increment")),
            script::count::NO_COUNTER => Err(refuse("the key holds something else than a counter")
                .with("remedy", "count under a key that is only ever incremented")),
            _ => Err(overflow()),
        }
    }

    /// Asks on until there are `limit` keys, or the timeout has passed: other programs' keys may be many.
    async fn scan(&self, pattern: &Glob, cursor: Cursor, limit: usize) -> Result<KeyPage> {
        let mut walk = Walk::from_cursor(&cursor).ok_or_else(|| self.unknown_cursor())?;
        let started = Instant::now();
        let mut page = KeyPage::default();
        loop {
            let (wire, next) = self.step("scan", walk).await?;
            page.keys
                .extend(self.live(self.matching(wire, pattern)).await?);
            match next {
                None => return Ok(page),
                Some(next)
                    if page.keys.len() >= limit || started.elapsed() >= self.link.timeout() =>
                {
                    page.next = Some(next.into_cursor());
                    return Ok(page);
                }
                Some(next) => walk = next,
            }
        }
    }

    async fn delete_matching(&self, pattern: &Glob) -> Result<u64> {
        let mut walk = Walk::default();
        let mut removed = 0;
        loop {
            let (wire, next) = self.step("delete_matching", walk).await?;
            let calls: Vec<Call> = self
                .matching(wire, pattern)
                .into_iter()
                .map(|(_, key)| self.script(&script::DELETE, &key, []))
                .collect();
            for deleted in self.link.calls::<bool>("delete_matching", &calls).await {
                removed += u64::from(deleted?);
            }
            match next {
                Some(next) => walk = next,
                None => return Ok(removed),
            }
        }
    }

    /// Removes every key of the prefix, batch by batch, each within the timeout; a key that is written
    /// meanwhile may stay. The feed stays.
    async fn clear(&self) -> Result<()> {
        *self.counted.lock() = None;
        let mut walk = Walk::default();
        loop {
            let (keys, next) = self.step("clear", walk).await?;
            let calls: Vec<Call> = keys
                .into_iter()
                .map(|key| Call::plain("UNLINK", key, &[]))
                .collect();
            for unlinked in self.link.calls::<u64>("clear", &calls).await {
                unlinked?;
            }
            match next {
                Some(next) => walk = next,
                None => return Ok(()),
            }
        }
    }

    /// What was counted within the timeout: less than there is when the server holds very many keys.
    /// A count is kept for half a minute, and the server then only asked whether it is there.
    async fn usage(&self) -> Result<BackendUsage> {
        let counted = *self.counted.lock();
        if let Some((at, usage)) = counted
            && at.elapsed() < USAGE_AGE
        {
            self.ping().await?;
            return Ok(usage);
        }
        let started = Instant::now();
        let mut usage = BackendUsage::default();
        let mut walk = Walk::default();
        loop {
            let (keys, next) = self.step("usage", walk).await?;
            usage.entries += keys.len() as u64;
            usage.bytes += self.measure(&keys).await?;
            match next {
                Some(next) if started.elapsed() < self.link.timeout() => walk = next,
                _ => {
                    *self.counted.lock() = Some((Instant::now(), usage));
                    return Ok(usage);
                }
            }
        }
    }

    /// A cluster answers when every master does.
    async fn ping(&self) -> Result<()> {
        self.link
            .command::<redis::Value>("ping", &redis::cmd("PING"))
            .await
            .map(drop)
    }

    /// The masters, one after the other.
    async fn servers(&self) -> Result<Vec<ServerFacts>> {
        let mut servers = Vec::new();
        for shard in self.link.shards("servers").await? {
            let ask = redis::cmd("TIME");
            let asked = self.clock.now().as_millis();
            let time = self.link.command_at::<(u64, u64)>("servers", &shard, &ask);
            let (seconds, micros) = time.await?;
            let middle = asked.midpoint(self.clock.now().as_millis());
            let ask = redis::cmd("INFO");
            let info = self.link.command_at::<String>("servers", &shard, &ask);
            let mut facts = facts(&info.await?);
            facts.address = match shard.node.as_str() {
                "" if self.config.sentinels.is_empty() => self.config.shown_url(),
                "" => format!("master {}", self.config.sentinel_master),
                node => format!("node {node}"),
            };
            facts.encrypted = self.config.url().starts_with("rediss");
            let theirs = seconds.saturating_mul(1_000).saturating_add(micros / 1_000);
            facts.clock_ahead_ms = ahead_ms(theirs, middle);
            servers.push(facts);
        }
        Ok(servers)
    }

    fn feed(&self) -> Option<FeedHandle> {
        Some(Arc::clone(&self.feed) as _)
    }

    async fn close(&self) {
        self.feed.close();
        self.link.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_says_until_when_a_value_lives() {
        let at = Timestamp::from_millis;
        assert_eq!(is_live(&header(Some(at(5))), at(4)), Some(true));
        assert_eq!(is_live(&header(Some(at(5))), at(5)), Some(false));
        assert_eq!(is_live(&header(None), at(u64::MAX)), Some(true));
        assert_eq!(is_live(b"short", at(0)), None);
    }
}
