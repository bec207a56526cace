//! One memcached server: connections made when needed, a deadline, and errors in our terms.
//!
//! All that is specific to the client library is in this file.

use std::io;
use std::time::Duration;

use memcache::exp::{AsyncMetaClient, Error as ClientError, Meta, MutationStatus, OpResult};
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::backend::{BackendUsage, ServerFacts, ahead_ms};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};

pub(super) use memcache::exp::{Delete, Get, Op, Set};

/// Asks for a value with its version.
pub(super) fn get_versioned(key: &str) -> Get {
    Get::new(key).meta(Meta::NONE.cas())
}

/// Operations under way at once; later ones wait, within their own deadline. Bounds the connections
/// that a slow server can cost.
const MOST_AT_ONCE: usize = 64;

/// Connections kept open between operations.
const MOST_IDLE: usize = 16;

/// Most bytes of an answer to `stats`: a real one has about 3 KiB.
const STATS_BYTES: u64 = 256 * 1024;

/// One server.
pub(super) struct Server {
    tier: String,
    address: String,
    timeout: Duration,
    at_once: Semaphore,
    /// Made by the first operation, and anew after the connection failed: a name may then lead to
    /// another machine.
    client: Mutex<Option<AsyncMetaClient>>,
}

/// What a command found.
#[derive(Debug)]
pub(super) enum Reply {
    /// The value, or that there is none.
    Value(Option<Held>),
    /// Whether a change took effect.
    Changed(bool),
}

/// What a server holds under a key.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) bytes: Vec<u8>,
    /// Changes with every write; only where it was asked for, and never where the server was started
    /// without.
    pub(super) version: Option<u64>,
}

impl Reply {
    pub(super) fn into_held(self) -> Option<Held> {
        match self {
            Self::Value(held) => held,
            Self::Changed(_) => None,
        }
    }

    pub(super) fn into_value(self) -> Option<Vec<u8>> {
        self.into_held().map(|held| held.bytes)
    }

    pub(super) fn is_changed(&self) -> bool {
        matches!(self, Self::Changed(true))
    }
}

impl Server {
    pub(super) fn new(tier: &str, address: &str, timeout: Duration) -> Self {
        Self {
            tier: tier.to_owned(),
            address: address.to_owned(),
            timeout,
            at_once: Semaphore::new(MOST_AT_ONCE),
            client: Mutex::new(None),
        }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Finishes `operation` within the deadline. One operation may be several round trips.
    pub(super) async fn within_deadline<T>(
        &self,
        operation: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let timed = tokio::time::timeout(self.timeout, async {
            // Closed never, so this only waits.
            let _permit = self.at_once.acquire().await;
            operation.await
        });
        match timed.await {
            Ok(result) => result,
            Err(_) => {
                self.client.lock().take();
                Err(self.timed_out())
            }
        }
    }

    /// Sends `commands` in one write and returns one reply each. They run in order, though commands of
    /// other connections may come between.
    pub(super) async fn run<const N: usize>(&self, commands: [Op; N]) -> Result<[Reply; N]> {
        let replies: Result<Vec<Reply>> =
            self.run_each(commands.into()).await.into_iter().collect();
        <[Reply; N]>::try_from(replies?).map_err(|_| self.unreadable("replies are missing"))
    }

    /// As [`run`](Self::run), but what became of one command says nothing of the others. What the server
    /// had no answer to are those after a failed one, too: they may have taken effect.
    pub(super) async fn run_each(&self, commands: Vec<Op>) -> Vec<Result<Reply>> {
        let asked = commands.len();
        let replies = match self.client().await {
            Ok(client) => client.run_batch(commands).await,
            Err(error) => Err(error),
        };
        let replies = replies.map_err(|error| self.noted(error));
        match replies {
            Ok(replies) => replies
                .into_iter()
                .map(|reply| {
                    reply
                        .map(read)
                        .map_err(|error| self.noted(innermost(error)))
                })
                .collect(),
            Err(error) => (0..asked).map(|_| Err(error.clone())).collect(),
        }
    }

    /// The client's error in our terms; a connection that failed is not used again.
    fn noted(&self, error: ClientError) -> Error {
        if matches!(error, ClientError::Io(_)) {
            self.client.lock().take();
        }
        self.failed(error)
    }

    /// Whether it answers at all.
    pub(super) async fn ping(&self) -> Result<()> {
        let answered = match self.client().await {
            Ok(client) => client.noop().await,
            Err(error) => Err(error),
        };
        answered.map_err(|error| self.noted(innermost(error)))
    }

    /// Gives the connections back. The next operation makes new ones.
    pub(super) fn close(&self) {
        self.client.lock().take();
    }

    async fn client(&self) -> Result<AsyncMetaClient, ClientError> {
        if let Some(client) = &*self.client.lock() {
            return Ok(client.clone());
        }
        // Resolves the name; the connections follow with the first command on each. The deadlines and
        // the bound on connections are ours.
        let made = AsyncMetaClient::builder()
            .connect_timeout(None)
            .io_timeout(None)
            .max_idle(MOST_IDLE)
            .connect_async(self.address.as_str())
            .await?;
        Ok(self.client.lock().get_or_insert(made).clone())
    }

    /// What the whole server holds, of all who use it.
    pub(super) async fn usage(&self) -> Result<BackendUsage> {
        let mut usage = BackendUsage::default();
        self.stats(|name, value| {
            match name {
                "curr_items" => usage.entries = number(value)?,
                "bytes" => usage.bytes = number(value)?,
                _ => {}
            }
            Ok(())
        })
        .await?;
        Ok(usage)
    }

    /// What the server says of itself.
    pub(super) async fn facts(&self, clock: &dyn Clock) -> Result<ServerFacts> {
        let mut facts = ServerFacts {
            address: self.address.clone(),
            software: "memcached",
            eviction_policy: Some("lru".to_owned()),
            ..ServerFacts::default()
        };
        let (mut seconds, asked) = (None, clock.now().as_millis());
        self.stats(|name, value| {
            match name {
                "version" => facts.version = Some(value.to_owned()),
                "bytes" => facts.used_bytes = Some(number(value)?),
                "limit_maxbytes" => facts.max_bytes = Some(number(value)?),
                "evictions" => facts.evicted = Some(number(value)?),
                "time" => seconds = Some(number(value)?),
                _ => {}
            }
            Ok(())
        })
        .await?;
        let middle = asked.midpoint(clock.now().as_millis());
        // The server tells whole seconds; it is half a second past them on average.
        let theirs = seconds.map(|seconds| seconds.saturating_mul(1_000).saturating_add(500));
        facts.clock_ahead_ms = theirs.and_then(|theirs| ahead_ms(theirs, middle));
        Ok(facts)
    }

    /// Tells `each` of the server's counts and their values.
    async fn stats(&self, mut each: impl FnMut(&str, &str) -> io::Result<()>) -> Result<()> {
        let read = async {
            let mut stream = TcpStream::connect(self.address.as_str()).await?;
            stream.write_all(b"stats\r\n").await?;
            let mut lines = BufReader::new(stream.take(STATS_BYTES)).lines();
            while let Some(line) = lines.next_line().await? {
                let mut words = line.split(' ');
                match (words.next(), words.next(), words.next()) {
                    (Some("STAT"), Some(name), Some(value)) => each(name, value)?,
                    (Some("END"), ..) => return Ok(()),
                    _ => {}
                }
            }
            Err(io::Error::from(io::ErrorKind::UnexpectedEof))
        };
        read.await
            .map_err(|error| self.failed(ClientError::Io(error)))
    }

    fn timed_out(&self) -> Error {
        self.error(
            ErrorKind::Timeout,
            "memcached did not answer within the deadline",
        )
        .with("timeout", format!("{:?}", self.timeout))
        .retryable()
    }

    fn unreadable(&self, why: impl std::fmt::Display) -> Error {
        self.error(
            ErrorKind::BackendUnavailable,
            "memcached sent an answer that cannot be read",
        )
        .with("answer", why)
        .retryable()
    }

    /// The client's error in our terms. Its keys stay out of it.
    fn failed(&self, error: ClientError) -> Error {
        match error {
            ClientError::Timeout { .. } => self.timed_out(),
            ClientError::Io(error) => self
                .error(ErrorKind::BackendUnavailable, "memcached cannot be reached")
                .caused_by(error)
                .retryable(),
            ClientError::Server(answer) if answer.contains("too large") => self
                .error(
                    ErrorKind::TooLarge,
                    "the value is larger than the server's item size",
                )
                .with(
                    "remedy",
                    "lower max_value_bytes, or start memcached with a larger -I",
                ),
            ClientError::Server(answer) => self
                .error(
                    ErrorKind::BackendUnavailable,
                    "memcached answered with an error",
                )
                .with("answer", answer)
                .retryable(),
            ClientError::Rejected(answer) => self
                .error(ErrorKind::BackendUnavailable, "memcached refused a command")
                .with("answer", answer)
                .with("remedy", "use memcached 1.6 or newer"),
            ClientError::Protocol(why) => self.unreadable(why),
            other => self.unreadable(innermost(other)),
        }
    }

    pub(super) fn error(&self, kind: ErrorKind, message: &'static str) -> Error {
        Error::new(kind, message)
            .with("tier", &self.tier)
            .with("server", &self.address)
    }
}

fn read(answer: OpResult) -> Reply {
    match answer {
        OpResult::Get(got) => Reply::Value(got.value.map(|bytes| Held {
            bytes,
            // A server that was started with `-C` calls every version 0.
            version: got.item.cas.filter(|version| *version != 0),
        })),
        OpResult::Mutation(mutation) => Reply::Changed(mutation.status == MutationStatus::Applied),
        _ => Reply::Changed(false),
    }
}

/// What went wrong, without whether the command may have taken effect: after a failure, that is never
/// known.
fn innermost(error: ClientError) -> ClientError {
    match error {
        ClientError::Ambiguous { source, .. } => innermost(*source),
        other => other,
    }
}

fn number(text: &str) -> io::Result<u64> {
    text.trim()
        .parse()
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
