//! Connections: to one server, to the one that Sentinels call the master, to a cluster.
//!
//! Every round trip ends within the timeout, connecting included, and connecting goes on when the
//! operation that began it has given up, so that slow servers are reached in the end. How a lost
//! connection comes back depends on what it leads to:
//!
//! - One server: the client connects anew, to the same address.
//! - Sentinels: the connection is given up at the first failure and at the first refusal to write, and
//!   the Sentinels are asked for the master again. A client that reconnects by itself would go back to
//!   a former master, which is a replica now and answers reads with what it missed.
//! - A cluster: the client follows redirections and learns of new masters while it is used.
//!
//! Nothing is tried twice here but what the server refused without doing anything: a script that it does
//! not know, a key that has moved. Retries are for those who know whether they may wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::aio::{
    ConnectionLike, ConnectionManager, ConnectionManagerConfig, MultiplexedConnection,
};
use redis::cluster::{ClusterClient, ClusterConfig};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{Route, RoutingInfo, SingleNodeRoutingInfo, Slot, SlotAddr};
use redis::io::tcp::TcpSettings;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, FromRedisValue,
    IntoConnectionInfo, Pipeline, RedisError, RedisFuture, RedisResult, TlsCertificates, TlsMode,
    Value,
};

use super::RedisConfig;
use super::config::host_and_port;
use super::script::Call;
use super::tls::{self, Refusal};
use crate::error::{Error, ErrorKind, Result};

/// Connections made anew by hand, at most one in this time. The client does it after failures of the
/// network, but keeps a refused login for ever.
const RENEW_INTERVAL: Duration = Duration::from_secs(1);

/// Timeouts are taken for a node that hangs from this age of the connection on.
const HUNG_AFTER: Duration = Duration::from_secs(5);

/// How long the failure to connect is the answer to all who ask, before it is tried again.
const REFUSED_FOR: Duration = Duration::from_millis(50);

/// Connecting is given at least this time, whatever the timeout of an operation.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// When the network swallows what was sent, the connection is given up after this time.
const LOST_AFTER: Duration = Duration::from_secs(10);

/// Commands that are sent at once.
const BATCH: usize = 512;

/// Bytes that are sent at once, or one command if that is longer.
const BATCH_BYTES: usize = 4 << 20;

/// How often a cluster's client follows a redirection, and how long it waits before it does, in
/// milliseconds.
const REDIRECTIONS: u32 = 2;
const REDIRECTION_WAIT: (u64, u64) = (5, 50);

/// Ways to the servers, shared by all that ask them.
pub(super) struct Link {
    name: String,
    timeout: Duration,
    target: Target,
    slots: Box<[LinkSlot]>,
    turn: AtomicUsize,
}

/// What the connections lead to.
enum Target {
    Server(Box<Client>),
    /// Whom the Sentinels name.
    Master(Box<tokio::sync::Mutex<SentinelClient>>),
    /// With what the address says of user and TLS.
    Cluster(Box<ClusterClient>, Box<ConnectionInfo>),
}

/// The place of one connection.
#[derive(Default)]
struct LinkSlot {
    connected: Mutex<Option<Connected>>,
    /// Held by the one who connects; the last failure.
    connecting: tokio::sync::Mutex<Option<(Instant, RedisError)>>,
}

#[derive(Clone)]
struct Connected {
    wire: Wire,
    since: Instant,
}

/// One connection, or what stands for several of a cluster.
#[derive(Clone)]
pub(super) enum Wire {
    Server(ConnectionManager),
    Master(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl ConnectionLike for Wire {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Server(wire) => wire.req_packed_command(cmd),
            Self::Master(wire) => wire.req_packed_command(cmd),
            Self::Cluster(wire) => wire.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Server(wire) => wire.req_packed_commands(pipeline, offset, count),
            Self::Master(wire) => wire.req_packed_commands(pipeline, offset, count),
            Self::Cluster(wire) => wire.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Server(wire) => wire.get_db(),
            Self::Master(wire) => wire.get_db(),
            Self::Cluster(wire) => wire.get_db(),
        }
    }
}

/// A server that holds a part of the keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Shard {
    /// The first slot it holds; 0 without a cluster.
    slot: u16,
    /// Its name in the cluster; empty without one.
    pub(super) node: String,
}

/// Slots from the first to the last, and the address of their master.
struct SlotRange {
    first: u16,
    last: u16,
    /// `None`: that of the node that was asked.
    host: Option<String>,
    port: u16,
    node: String,
}

impl Link {
    /// Ways to the servers of `config`, which was checked, with its certificates. Does not connect.
    pub(super) fn new(
        config: &RedisConfig,
        certificates: Option<TlsCertificates>,
    ) -> RedisResult<Arc<Self>> {
        let tcp = TcpSettings::default().set_nodelay(true);
        #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
        let tcp = tcp.set_user_timeout(LOST_AFTER);
        let info = config.url().into_connection_info()?;
        let mut info = info.set_tcp_settings(tcp.clone());
        if matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
            tls::install_provider();
        }
        if let Some(certificates) = certificates.clone() {
            // What the client makes of the certificates is private to it, and comes with the address.
            let client = Client::build_with_tls(info, certificates)?;
            info = client.get_connection_info().clone();
        }
        let connect = config.timeout.max(CONNECT_TIMEOUT);
        let target = if !config.sentinels.is_empty() {
            Target::Master(Box::new(tokio::sync::Mutex::new(sentinel(
                config,
                &info,
                certificates,
                tcp,
            )?)))
        } else if config.is_cluster() {
            let nodes = config.cluster_nodes.iter().map(String::as_str);
            let mut seeds: Vec<_> = nodes
                .filter_map(host_and_port)
                .map(|(host, port)| at(&info, host, port))
                .collect();
            if seeds.is_empty() {
                seeds.push(info.clone());
            }
            let (least, most) = REDIRECTION_WAIT;
            let mut client = ClusterClient::builder(seeds);
            if let Some(certificates) = certificates {
                // Those of the addresses are for the first nodes alone.
                client = client.certs(certificates);
            }
            let client = client
                .retries(REDIRECTIONS)
                .min_retry_wait(least)
                .max_retry_wait(most)
                .connection_timeout(connect)
                .response_timeout(config.timeout)
                .tcp_settings(tcp)
                .build()?;
            Target::Cluster(Box::new(client), Box::new(info))
        } else {
            Target::Server(Box::new(Client::open(info)?))
        };
        Ok(Arc::new(Self {
            name: config.name.clone(),
            timeout: config.timeout,
            target,
            slots: (0..config.redis_pool_size)
                .map(|_| LinkSlot::default())
                .collect(),
            turn: AtomicUsize::new(0),
        }))
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Within which a connection is made.
    pub(super) fn connect_timeout(&self) -> Duration {
        self.timeout.max(CONNECT_TIMEOUT)
    }

    /// Gives the connections back.
    pub(super) fn close(&self) {
        for slot in &self.slots {
            *slot.connected.lock() = None;
        }
    }

    /// A connection, and which it is.
    async fn connected(self: &Arc<Self>) -> RedisResult<(usize, Connected)> {
        let place = self.turn.fetch_add(1, Ordering::Relaxed) % self.slots.len();
        if let Some(connected) = self.slots[place].connected.lock().clone() {
            return Ok((place, connected));
        }
        let link = Arc::clone(self);
        // In a task of its own: who waits may give up, and the next finds what has come of it.
        let connecting = tokio::spawn(async move { link.connect(place).await });
        match connecting.await {
            Ok(connected) => connected.map(|connected| (place, connected)),
            Err(_) => Err(RedisError::from(std::io::Error::other(
                "connecting was given up",
            ))),
        }
    }

    async fn connect(&self, place: usize) -> RedisResult<Connected> {
        let slot = &self.slots[place];
        let mut failed = slot.connecting.lock().await;
        if let Some(connected) = slot.connected.lock().clone() {
            return Ok(connected);
        }
        if let Some((at, error)) = &*failed
            && at.elapsed() < REFUSED_FOR
        {
            return Err(error.clone());
        }
        let made = tokio::time::timeout(self.connect_timeout(), self.wire()).await;
        let made = made.unwrap_or_else(|_| {
            let slow = std::io::Error::from(std::io::ErrorKind::TimedOut);
            Err(RedisError::from(slow))
        });
        match made {
            Ok(wire) => {
                let connected = Connected {
                    wire,
                    since: Instant::now(),
                };
                *slot.connected.lock() = Some(connected.clone());
                *failed = None;
                Ok(connected)
            }
            Err(error) => {
                *failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    async fn wire(&self) -> RedisResult<Wire> {
        match &self.target {
            Target::Server(client) => {
                let settings = ConnectionManagerConfig::new()
                    // Each operation is an attempt of its own; waiting between attempts would only
                    // make it slower to fail.
                    .set_number_of_retries(0)
                    .set_connection_timeout(Some(self.connect_timeout()))
                    .set_response_timeout(Some(self.timeout));
                let client = Client::clone(client);
                ConnectionManager::new_lazy_with_config(client, settings).map(Wire::Server)
            }
            Target::Master(_) => {
                let client = self.master().await?;
                let settings = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(self.connect_timeout()))
                    .set_response_timeout(Some(self.timeout));
                client
                    .get_multiplexed_async_connection_with_config(&settings)
                    .await
                    .map(Wire::Master)
            }
            Target::Cluster(client, _) => client
                .get_async_connection_with_config(ClusterConfig::new())
                .await
                .map(Wire::Cluster),
        }
    }

    /// The way to the master of this moment.
    async fn master(&self) -> RedisResult<Client> {
        match &self.target {
            Target::Server(client) => Ok(Client::clone(client)),
            Target::Master(sentinels) => sentinels.lock().await.async_get_client().await,
            Target::Cluster(..) => Err(RedisError::from((
                redis::ErrorKind::Client,
                "a cluster has several masters",
            ))),
        }
    }

    /// A connection for commands that wait, to the server that holds `key`: on a connection that others
    /// use, all would wait. It does not reconnect.
    pub(super) async fn dedicated(
        self: &Arc<Self>,
        key: &[u8],
    ) -> RedisResult<MultiplexedConnection> {
        let client = match &self.target {
            Target::Cluster(_, info) => {
                let slot = Slot::for_key(key);
                let (_, connected) = self.connected().await?;
                let ranges = slot_ranges(connected.wire).await?;
                let holder = ranges.into_iter().find(|range| {
                    (range.first..=range.last).any(|number| Slot::new(number) == Some(slot))
                });
                let holder = holder.ok_or_else(|| {
                    let what = "no node holds the slot";
                    RedisError::from((redis::ErrorKind::ClusterConnectionNotFound, what))
                })?;
                let host = holder.host.or_else(|| match info.addr() {
                    ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => {
                        Some(host.clone())
                    }
                    _ => None,
                });
                Client::open(at(info, host.unwrap_or_default(), holder.port))?
            }
            Target::Server(_) | Target::Master(_) => self.master().await?,
        };
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout()))
            .set_response_timeout(None);
        client
            .get_multiplexed_async_connection_with_config(&settings)
            .await
    }

    /// Does what a failure says of the connection it came from.
    fn learn(&self, used: Option<&(usize, Connected)>, error: &RedisError) {
        let Some((place, from)) = used else {
            return;
        };
        let refused_command = matches!(error.code(), Some("WRONGTYPE" | "OOM" | "NOSCRIPT"));
        let give_up = match &self.target {
            // The client keeps to a node that hangs, also when another has taken its place.
            Target::Cluster(..) if error.is_timeout() => from.since.elapsed() >= HUNG_AFTER,
            // The client sees to failures of the network.
            Target::Server(_) | Target::Cluster(..) => {
                !error.is_io_error()
                    && !error.is_cluster_error()
                    && !refused_command
                    && from.since.elapsed() >= RENEW_INTERVAL
            }
            // A slow answer is no lost connection, unless it stays that way.
            Target::Master(_) if error.is_timeout() => from.since.elapsed() >= RENEW_INTERVAL,
            Target::Master(_) => !refused_command,
        };
        if give_up {
            let mut connected = self.slots[*place].connected.lock();
            // Another may have made a new one meanwhile.
            if connected
                .as_ref()
                .is_some_and(|now| now.since == from.since)
            {
                *connected = None;
            }
        }
    }

    /// One round trip, within the deadline, and the connection that it took.
    async fn round_trip<T, F>(
        self: &Arc<Self>,
        ask: impl FnOnce(Wire) -> F,
    ) -> (Option<(usize, Connected)>, RedisResult<T>)
    where
        F: Future<Output = RedisResult<T>>,
    {
        let mut used = None;
        let asking = async {
            let (place, connected) = self.connected().await?;
            let wire = connected.wire.clone();
            used = Some((place, connected));
            ask(wire).await
        };
        let answer = tokio::time::timeout(self.timeout, asking).await;
        let slow = |_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into());
        (used, answer.unwrap_or_else(slow))
    }

    /// One round trip, within the deadline.
    async fn ask<T, F>(
        self: &Arc<Self>,
        operation: &'static str,
        ask: impl FnOnce(Wire) -> F,
    ) -> Result<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let (used, answer) = self.round_trip(ask).await;
        answer.map_err(|error| {
            self.learn(used.as_ref(), &error);
            self.failure(operation, &error)
        })
    }

    /// One command, within the deadline.
    pub(super) async fn command<T: FromRedisValue>(
        self: &Arc<Self>,
        operation: &'static str,
        command: &Cmd,
    ) -> Result<T> {
        self.ask(operation, async |mut wire| {
            command.query_async(&mut wire).await
        })
        .await
    }

    /// One call, within the deadline.
    pub(super) async fn call<T: FromRedisValue>(
        self: &Arc<Self>,
        operation: &'static str,
        call: &Call,
    ) -> Result<T> {
        self.ask(operation, async |mut wire| {
            match call.command().query_async(&mut wire).await {
                Err(error) if is_unknown_script(&error) => {
                    call.in_full().query_async(&mut wire).await
                }
                answer => answer,
            }
        })
        .await
    }

    /// Many calls, in as few round trips as may be, each within the deadline. One answer for each.
    pub(super) async fn calls<T: FromRedisValue>(
        self: &Arc<Self>,
        operation: &'static str,
        calls: &[Call],
    ) -> Vec<Result<T>> {
        let mut answers = Vec::with_capacity(calls.len());
        let mut rest = calls;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fitting = rest.iter().take(BATCH).take_while(|call| {
                let fits = bytes < BATCH_BYTES;
                bytes += call.size();
                fits
            });
            let (batch, after) = rest.split_at(fitting.count());
            rest = after;
            let (used, sent) = self
                .round_trip(async |wire| Ok(send(wire, batch).await))
                .await;
            let sent =
                sent.unwrap_or_else(|error| batch.iter().map(|_| Err(error.clone())).collect());
            answers.extend(sent.into_iter().map(|answer| {
                let answer = answer.and_then(|value| Ok(redis::from_redis_value(value)?));
                answer.map_err(|error| {
                    self.learn(used.as_ref(), &error);
                    self.failure(operation, &error)
                })
            }));
        }
        answers
    }

    /// The servers that hold the keys between them, in an order that lasts as long as they do.
    pub(super) async fn shards(self: &Arc<Self>, operation: &'static str) -> Result<Vec<Shard>> {
        if !matches!(self.target, Target::Cluster(..)) {
            return Ok(vec![Shard {
                slot: 0,
                node: String::new(),
            }]);
        }
        let ranges = self.ask(operation, slot_ranges).await?;
        let mut shards: Vec<Shard> = Vec::new();
        for SlotRange { first, node, .. } in ranges {
            match shards.iter_mut().find(|shard| shard.node == node) {
                Some(shard) => shard.slot = shard.slot.min(first),
                None => shards.push(Shard { slot: first, node }),
            }
        }
        shards.sort_unstable();
        Ok(shards)
    }

    /// One command to one of the [shards](Self::shards), within the deadline.
    pub(super) async fn command_at<T: FromRedisValue>(
        self: &Arc<Self>,
        operation: &'static str,
        shard: &Shard,
        command: &Cmd,
    ) -> Result<T> {
        self.ask(operation, async |mut wire| match &mut wire {
            Wire::Cluster(wire) => {
                let slot = Slot::new(shard.slot).unwrap_or_else(|| Slot::for_key(b""));
                let route = Route::with_slot(slot, SlotAddr::Master);
                let one = RoutingInfo::SingleNode(SingleNodeRoutingInfo::SpecificNode(route));
                let value = wire.route_command(command.clone(), one).await?;
                Ok(redis::from_redis_value(value)?)
            }
            wire => command.query_async(wire).await,
        })
        .await
    }

    fn too_slow(&self, operation: &'static str) -> Error {
        Error::new(ErrorKind::Timeout, "Redis did not answer in time")
            .with("tier", &self.name)
            .with("operation", operation)
            .with("timeout", format!("{:?}", self.timeout))
            .retryable()
    }

    /// The error of a value that is none of ours.
    pub(super) fn foreign(&self, operation: &'static str) -> Error {
        Error::new(
            ErrorKind::Corrupt,
            "another program's value stands under a key of the cache",
        )
        .with("tier", &self.name)
        .with("operation", operation)
    }

    /// What the client's error is to the engine.
    pub(super) fn failure(&self, operation: &'static str, error: &RedisError) -> Error {
        use redis::ErrorKind as Redis;

        if error.is_timeout() {
            return self.too_slow(operation);
        }
        if error.code() == Some("WRONGTYPE") {
            return self.foreign(operation);
        }
        // Never the server's own words, which may repeat the command with the value.
        let problem = match error.code() {
            Some(code) => format!("{}: {code}", error.category()),
            None if error.is_io_error() => error.to_string(),
            None => error.category().to_owned(),
        };
        let failure = |message| {
            Error::new(ErrorKind::BackendUnavailable, message)
                .with("tier", &self.name)
                .with("operation", operation)
                .with("problem", problem)
        };
        match tls::refusal(error) {
            Some(Refusal::Ours) => return failure("the certificate of Redis is not trusted"),
            Some(Refusal::Theirs) => return failure("Redis refuses the client's certificate"),
            None => {}
        }
        match error.kind() {
            Redis::AuthenticationFailed => failure("Redis refuses the user or the password"),
            _ => failure("Redis cannot be used now").retryable(),
        }
    }
}

/// Sends calls at once: those of one slot together and in order.
async fn send(wire: Wire, calls: &[Call]) -> Vec<RedisResult<Value>> {
    let mut groups: Vec<(Option<Slot>, Vec<usize>)> = Vec::new();
    if matches!(wire, Wire::Cluster(_)) {
        let mut places = std::collections::HashMap::new();
        for (at, call) in calls.iter().enumerate() {
            let slot = Slot::for_key(call.key());
            let place = *places.entry(slot).or_insert_with(|| {
                groups.push((Some(slot), Vec::new()));
                groups.len() - 1
            });
            groups[place].1.push(at);
        }
    } else {
        groups.push((None, (0..calls.len()).collect()));
    }
    let sent = join_all(groups.iter().map(|(_, group)| {
        let mut wire = wire.clone();
        async move {
            if let [alone] = group[..] {
                return vec![calls[alone].command().query_async(&mut wire).await];
            }
            let mut pipeline = redis::pipe();
            pipeline.ignore_errors();
            for at in group {
                pipeline.add_command(calls[*at].command().into_owned());
            }
            match pipeline.query_async::<Vec<Value>>(&mut wire).await {
                Ok(answers) => answers.into_iter().map(Value::extract_error).collect(),
                Err(error) => group.iter().map(|_| Err(error.clone())).collect(),
            }
        }
    }))
    .await;
    let mut answers: Vec<Option<RedisResult<Value>>> = calls.iter().map(|_| None).collect();
    for ((_, group), sent) in groups.iter().zip(sent) {
        for (at, answer) in group.iter().zip(sent) {
            answers[*at] = Some(answer);
        }
    }
    let mut done = Vec::with_capacity(calls.len());
    for (answer, call) in answers.into_iter().zip(calls) {
        done.push(match answer {
            Some(Err(error)) if is_unknown_script(&error) => {
                call.in_full().query_async(&mut wire.clone()).await
            }
            // The client follows redirections of single commands, not of pipelines.
            Some(Err(error)) if error.redirect_node().is_some() => {
                call.in_full().query_async(&mut wire.clone()).await
            }
            Some(answer) => answer,
            None => Err(RedisError::from((
                redis::ErrorKind::UnexpectedReturnType,
                "the server left a command unanswered",
            ))),
        });
    }
    done
}

fn is_unknown_script(error: &RedisError) -> bool {
    error.code() == Some("NOSCRIPT")
}

/// The address of another server, with user and TLS of the one that `info` leads to.
fn at(info: &ConnectionInfo, host: String, port: u16) -> ConnectionInfo {
    let addr = match info.addr() {
        ConnectionAddr::TcpTls {
            insecure,
            tls_params,
            ..
        } => ConnectionAddr::TcpTls {
            host,
            port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        },
        _ => ConnectionAddr::Tcp(host, port),
    };
    info.clone().set_addr(addr)
}

/// What asks the Sentinels. They are reached with TLS when the master is.
fn sentinel(
    config: &RedisConfig,
    info: &ConnectionInfo,
    certificates: Option<TlsCertificates>,
    tcp: TcpSettings,
) -> RedisResult<SentinelClient> {
    let sentinels = config.sentinels.iter().map(String::as_str);
    let sentinels = sentinels
        .filter_map(host_and_port)
        .map(|(host, port)| at(info, host, port).addr().clone());
    let master = SentinelServerType::Master;
    let mut builder = SentinelClientBuilder::new(sentinels, &config.sentinel_master, master)?
        .set_client_to_redis_tcp_settings(tcp.clone())
        .set_client_to_sentinel_tcp_settings(tcp)
        .set_client_to_redis_db(info.redis_settings().db());
    if let ConnectionAddr::TcpTls { insecure, .. } = info.addr() {
        builder = builder.set_client_to_redis_tls_mode(match insecure {
            true => TlsMode::Insecure,
            false => TlsMode::Secure,
        });
    }
    // The Sentinels' addresses have theirs.
    if let Some(certificates) = certificates {
        builder = builder.set_client_to_redis_certificates(certificates);
    }
    if let Some(user) = info.redis_settings().username() {
        builder = builder.set_client_to_redis_username(user);
    }
    if let Some(password) = info.redis_settings().password() {
        builder = builder.set_client_to_redis_password(password);
    }
    if let Some(user) = &config.sentinel_username {
        builder = builder.set_client_to_sentinel_username(user);
    }
    if let Some(password) = &config.sentinel_password {
        builder = builder.set_client_to_sentinel_password(password);
    }
    builder.build()
}

/// Which master holds which slots.
async fn slot_ranges(wire: Wire) -> RedisResult<Vec<SlotRange>> {
    let Wire::Cluster(mut wire) = wire else {
        return Ok(Vec::new());
    };
    let mut command = redis::cmd("CLUSTER");
    command.arg("SLOTS");
    let any = RoutingInfo::SingleNode(SingleNodeRoutingInfo::RandomPrimary);
    let value = wire.route_command(command, any).await?;
    let rows: Vec<Vec<Value>> = redis::from_redis_value(value)?;
    let mut ranges = Vec::with_capacity(rows.len());
    for row in rows {
        let mut row = row.into_iter();
        let (Some(first), Some(last), Some(master)) = (row.next(), row.next(), row.next()) else {
            continue;
        };
        let master: Vec<Value> = redis::from_redis_value(master)?;
        let mut master = master.into_iter();
        let (Some(host), Some(port), Some(node)) = (master.next(), master.next(), master.next())
        else {
            continue;
        };
        ranges.push(SlotRange {
            first: redis::from_redis_value(first)?,
            last: redis::from_redis_value(last)?,
            host: redis::from_redis_value::<Option<String>>(host)?
                .filter(|host| !host.is_empty() && host != "?"),
            port: redis::from_redis_value(port)?,
            node: redis::from_redis_value(node)?,
        });
    }
    Ok(ranges)
}
