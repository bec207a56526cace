//! The backend itself: commands, deadlines, errors, the connection.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::io::tcp::TcpSettings;
use redis::{Client, ConnectionAddr, FromRedisValue, IntoConnectionInfo, RedisError, RedisResult};

use super::RedisConfig;
use crate::backend::keyspace::Keyspace;
use crate::backend::{BackendUsage, CacheBackend, Capability, StoredValue};
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

/// Keys asked for, and removed, per round trip of a scan.
const SCAN_BATCH: usize = 1_000;

/// How long a count of all keys is good for.
const USAGE_AGE: Duration = Duration::from_secs(30);

/// Connections made anew by hand, at most one in this time. The manager does it after failures of the
/// network, but keeps a refused login for ever.
const RENEW_INTERVAL: Duration = Duration::from_secs(1);

/// When the network swallows what was sent, the connection is given up after this time.
const LOST_AFTER: Duration = Duration::from_secs(10);

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
    /// [`ErrorKind::Config`] when a setting is out of range.
    pub fn build(self) -> Result<RedisBackend> {
        const PATH: &str = "backends[redis]";
        self.config.validate(PATH)?;
        let unusable = |_| {
            // The cause may quote the address.
            Error::new(ErrorKind::Config, "the address of Redis cannot be used")
                .with("field", format!("{PATH}.redis_url"))
                .with("value", self.config.shown_url())
        };
        let info = self.config.redis_url.as_str().into_connection_info();
        let info = info.map_err(unusable)?;
        if matches!(info.addr(), ConnectionAddr::TcpTls { .. })
            && rustls::crypto::CryptoProvider::get_default().is_none()
        {
            // An error says that another thread was first, which is as good.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        }
        let tcp = TcpSettings::default().set_nodelay(true);
        #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
        let tcp = tcp.set_user_timeout(LOST_AFTER);
        let client = Client::open(info.set_tcp_settings(tcp)).map_err(unusable)?;
        Ok(RedisBackend {
            keys: Keyspace::new(&self.config.key_prefix),
            config: self.config,
            clock: self.clock,
            client,
            link: Mutex::default(),
            counted: Mutex::default(),
        })
    }
}

/// A tier in a Redis or Valkey server, shared by processes. See the module documentation.
pub struct RedisBackend {
    config: RedisConfig,
    keys: Keyspace,
    clock: ClockHandle,
    client: Client,
    link: Mutex<Option<Link>>,
    counted: Mutex<Option<(Instant, BackendUsage)>>,
}

/// The connection in use.
struct Link {
    manager: ConnectionManager,
    since: Instant,
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

impl RedisBackend {
    /// A builder for a backend with these settings.
    #[must_use]
    pub fn builder(config: RedisConfig) -> RedisBackendBuilder {
        RedisBackendBuilder {
            config,
            clock: Arc::new(SystemClock),
        }
    }

    fn connection(&self) -> RedisResult<ConnectionManager> {
        let mut link = self.link.lock();
        if let Some(link) = &*link {
            return Ok(link.manager.clone());
        }
        let settings = ConnectionManagerConfig::new()
            // Each operation is an attempt of its own; waiting between attempts would only make it
            // slower to fail.
            .set_number_of_retries(0)
            .set_connection_timeout(Some(self.config.timeout.max(Duration::from_secs(2))))
            .set_response_timeout(Some(self.config.timeout));
        let manager = ConnectionManager::new_lazy_with_config(self.client.clone(), settings)?;
        *link = Some(Link {
            manager: manager.clone(),
            since: Instant::now(),
        });
        Ok(manager)
    }

    /// Lets the next operation connect anew.
    fn renew(&self) {
        let mut link = self.link.lock();
        if link
            .as_ref()
            .is_some_and(|link| link.since.elapsed() >= RENEW_INTERVAL)
        {
            *link = None;
        }
    }

    /// One round trip, within the deadline.
    async fn ask<T, F>(
        &self,
        operation: &'static str,
        ask: impl FnOnce(ConnectionManager) -> F,
    ) -> Result<T>
    where
        T: FromRedisValue,
        F: Future<Output = RedisResult<T>>,
    {
        let connection = self
            .connection()
            .map_err(|error| self.failure(operation, &error))?;
        match tokio::time::timeout(self.config.timeout, ask(connection)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                if !error.is_io_error() {
                    self.renew();
                }
                Err(self.failure(operation, &error))
            }
            Err(_) => Err(self.too_slow(operation)),
        }
    }

    fn too_slow(&self, operation: &'static str) -> Error {
        Error::new(ErrorKind::Timeout, "Redis did not answer in time")
            .with("tier", &self.config.name)
            .with("operation", operation)
            .with("timeout", format!("{:?}", self.config.timeout))
            .retryable()
    }

    fn failure(&self, operation: &'static str, error: &RedisError) -> Error {
        use redis::ErrorKind as Redis;

        if error.is_timeout() {
            return self.too_slow(operation);
        }
        // Never the server's own words, which may repeat the command with the value.
        let problem = match error.code() {
            Some(code) => format!("{}: {code}", error.category()),
            None if error.is_io_error() => error.to_string(),
            None => error.category().to_owned(),
        };
        let (kind, message, retryable) = match error.kind() {
            _ if error.code() == Some("WRONGTYPE") => {
                let message = "another program's value stands under a key of the cache";
                (ErrorKind::Corrupt, message, false)
            }
            Redis::AuthenticationFailed => {
                let message = "Redis refuses the user or the password";
                (ErrorKind::BackendUnavailable, message, false)
            }
            _ => {
                let message = "Redis cannot be used now";
                (ErrorKind::BackendUnavailable, message, true)
            }
        };
        let failure = Error::new(kind, message)
            .with("tier", &self.config.name)
            .with("operation", operation)
            .with("problem", problem);
        if retryable {
            failure.retryable()
        } else {
            failure
        }
    }

    /// The next keys of this backend, from `cursor` on, and where to go on; 0 at the end.
    async fn scan(&self, operation: &'static str, cursor: u64) -> Result<(u64, Vec<Vec<u8>>)> {
        let (next, mut keys) = self
            .ask(operation, async |mut connection| {
                redis::cmd("SCAN")
                    .arg(cursor)
                    .arg("MATCH")
                    .arg(self.keys.pattern())
                    .arg("COUNT")
                    .arg(SCAN_BATCH)
                    .query_async::<(u64, Vec<Vec<u8>>)>(&mut connection)
                    .await
            })
            .await?;
        keys.retain(|key| self.keys.decode(key).is_some());
        Ok((next, keys))
    }

    /// Bytes of these keys and their values.
    async fn measure(&self, keys: &[Vec<u8>]) -> Result<u64> {
        if keys.is_empty() {
            return Ok(0);
        }
        let lengths: Vec<u64> = self
            .ask("usage", async |mut connection| {
                let mut lengths = redis::pipe();
                for key in keys {
                    lengths.cmd("STRLEN").arg(key);
                }
                lengths.query_async(&mut connection).await
            })
            .await?;
        let names: usize = keys.iter().map(Vec::len).sum();
        Ok(lengths.into_iter().sum::<u64>() + names as u64)
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
            conditional_writes: false,
            lists_keys: false,
        }
    }

    async fn get(&self, key: &[u8]) -> Result<Option<StoredValue>> {
        let value: Option<Vec<u8>> = self
            .ask("get", async |mut connection| {
                redis::cmd("GET")
                    .arg(self.keys.encode(key))
                    .query_async(&mut connection)
                    .await
            })
            .await?;
        let Some(value) = value.map(Bytes::from) else {
            return Ok(None);
        };
        match is_live(&value, self.clock.now()) {
            Some(true) => Ok(Some(StoredValue::new(
                value.slice(HEADER..),
                expiry(&value),
            ))),
            Some(false) => Ok(None),
            None => Err(Error::new(
                ErrorKind::Corrupt,
                "another program's value stands under a key of the cache",
            )
            .with("tier", &self.config.name)
            .with("operation", "get")),
        }
    }

    async fn set(&self, key: &[u8], value: Bytes, expires: Option<Timestamp>) -> Result<()> {
        if value.len() as u64 > self.config.max_value_bytes.as_u64() {
            return Err(
                Error::new(ErrorKind::TooLarge, "the value does not fit into the tier")
                    .with("tier", &self.config.name)
                    .with("bytes", value.len())
                    .with("allowed", self.config.max_value_bytes.as_u64()),
            );
        }
        let now = self.clock.now();
        let key = self.keys.encode(key);
        let command = if expires.is_some_and(|expires| expires <= now) {
            redis::cmd("UNLINK").arg(key).take()
        } else {
            let mut stored = Vec::with_capacity(HEADER + value.len());
            stored.extend_from_slice(&header(expires));
            stored.extend_from_slice(&value);
            let mut set = redis::cmd("SET");
            set.arg(key).arg(stored);
            let life = expires.map(|expires| expires.since(now));
            if let Some(life) = life.filter(|life| *life < LONGEST_LIFE) {
                let kept = life.saturating_add(PHYSICAL_GRACE).as_millis();
                set.arg("PX").arg(u64::try_from(kept).unwrap_or(u64::MAX));
            }
            set
        };
        self.ask("set", async |mut connection| {
            command.query_async::<redis::Value>(&mut connection).await
        })
        .await
        .map(drop)
    }

    async fn delete(&self, key: &[u8]) -> Result<bool> {
        let key = self.keys.encode(key);
        let (header, removed): (Vec<u8>, u64) = self
            .ask("delete", async |mut connection| {
                redis::pipe()
                    .atomic()
                    .cmd("GETRANGE")
                    .arg(&key)
                    .arg(0)
                    .arg(HEADER - 1)
                    .cmd("UNLINK")
                    .arg(&key)
                    .query_async(&mut connection)
                    .await
            })
            .await?;
        Ok(removed > 0 && is_live(&header, self.clock.now()).unwrap_or(false))
    }

    /// Removes every key of the prefix, batch by batch, each within the timeout; a key that is written
    /// meanwhile may stay.
    async fn clear(&self) -> Result<()> {
        *self.counted.lock() = None;
        let mut cursor = 0;
        loop {
            let (next, keys) = self.scan("clear", cursor).await?;
            if !keys.is_empty() {
                self.ask("clear", async |mut connection| {
                    redis::cmd("UNLINK")
                        .arg(&keys)
                        .query_async::<u64>(&mut connection)
                        .await
                })
                .await?;
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// What was counted within the timeout: less than there is when the server holds very many keys.
    /// A count is kept for half a minute, and the server then only asked whether it is there.
    async fn usage(&self) -> Result<BackendUsage> {
        let counted = *self.counted.lock();
        if let Some((at, usage)) = counted
            && at.elapsed() < USAGE_AGE
        {
            self.ask("usage", async |mut connection| {
                redis::cmd("PING")
                    .query_async::<redis::Value>(&mut connection)
                    .await
            })
            .await?;
            return Ok(usage);
        }
        let started = Instant::now();
        let mut usage = BackendUsage::default();
        let mut cursor = 0;
        loop {
            let (next, keys) = self.scan("usage", cursor).await?;
            usage.entries += keys.len() as u64;
            usage.bytes += self.measure(&keys).await?;
            if next == 0 || started.elapsed() >= self.config.timeout {
                *self.counted.lock() = Some((Instant::now(), usage));
                return Ok(usage);
            }
            cursor = next;
        }
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
