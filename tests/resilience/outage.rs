//! A Redis that is killed, stopped, restarted or replaced by something else while callers go on.
//!
//! The breakers run on a clock that stands still, so that "left alone" is a count of zero and not a
//! matter of timing.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use askonce::backend::{
    BackendHandle, BackendUsage, CacheBackend, Capability, RedisBackend, RedisConfig, StoredValue,
};
use askonce::clock::{ManualClock, Timestamp};
use askonce::layer::{BreakerState, Layered};
use askonce::typed::{Cache, Key};
use askonce::{Answer, Fill, Result, SemanticCache};
use bytes::Bytes;

use crate::support::server::RedisServer;
use crate::support::{ask, clock};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Counts what reaches the backend.
#[derive(Debug)]
struct Counted {
    inner: BackendHandle,
    calls: AtomicUsize,
}

impl Counted {
    fn count(&self) -> &BackendHandle {
        self.calls.fetch_add(1, Ordering::SeqCst);
        &self.inner
    }
}

impl CacheBackend for Counted {
    fn name(&self) -> &str {
        self.inner.name()
    }
    fn capability(&self) -> Capability {
        self.inner.capability()
    }
    async fn get(&self, key: &[u8]) -> Result<Option<StoredValue>> {
        self.count().get(key).await
    }
    async fn get_many(&self, keys: &[Bytes]) -> Vec<Result<Option<StoredValue>>> {
        self.count().get_many(keys).await
    }
    async fn set(&self, key: &[u8], value: Bytes, expires: Option<Timestamp>) -> Result<()> {
        self.count().set(key, value, expires).await
    }
    async fn delete(&self, key: &[u8]) -> Result<bool> {
        self.count().delete(key).await
    }
    async fn clear(&self) -> Result<()> {
        self.count().clear().await
    }
    async fn usage(&self) -> Result<BackendUsage> {
        self.count().usage().await
    }
}

/// A Redis in its layers under a semantic and a typed cache.
struct Stand {
    redis: Arc<Counted>,
    layered: Arc<Layered>,
    clock: Arc<ManualClock>,
    semantic: SemanticCache,
    typed: Cache,
}

impl Stand {
    async fn new(config: RedisConfig) -> Self {
        let inner = Arc::new(RedisBackend::builder(config).build().unwrap());
        let calls = AtomicUsize::new(0);
        let redis = Arc::new(Counted { inner, calls });
        let clock = clock();
        let layered = Layered::builder(Arc::clone(&redis) as _)
            .clock(Arc::clone(&clock) as _)
            .build();
        let layered = Arc::new(layered.unwrap());
        let semantic = SemanticCache::builder().layered(Arc::clone(&layered));
        Self {
            semantic: semantic.build().await.unwrap(),
            typed: Cache::new(Arc::clone(&layered) as _),
            redis,
            layered,
            clock,
        }
    }

    fn calls(&self) -> usize {
        self.redis.calls.load(Ordering::SeqCst)
    }

    fn states(&self) -> [BreakerState; 2] {
        let breakers = self.layered.breakers().unwrap();
        [breakers.read, breakers.write]
    }

    /// Both breakers are open, and what was under way when they opened has ended.
    async fn opens(&self, load: &Load) {
        eventually("both breakers open", async || {
            self.states() == [BreakerState::Open; 2]
        })
        .await;
        load.further(TASKS * 4).await;
    }

    /// The breakers let probes through and close.
    async fn closes(&self) {
        eventually("both breakers close", async || {
            self.clock.advance(Duration::from_secs(10));
            self.states() == [BreakerState::Closed; 2]
        })
        .await;
    }

    /// A value that Redis holds is found.
    async fn hits(&self) {
        let before = self.layered.counts().hits;
        eventually("a hit", async || self.layered.counts().hits > before).await;
    }
}

/// Asks until `done` says yes, for at most 30 seconds.
async fn eventually(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !done().await {
        assert!(started.elapsed() < Duration::from_secs(30), "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

const TASKS: usize = 8;

/// Eight tasks that ask without a pause worth speaking of, half of them a semantic cache and half a typed
/// one. Each panics at the first error or wrong value.
struct Load {
    rounds: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(stand: &Stand) -> Self {
        let (rounds, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let tasks = (0..TASKS).map(|task| {
            let (semantic, typed) = (stand.semantic.clone(), stand.typed.clone());
            let (rounds, stop) = (Arc::clone(&rounds), Arc::clone(&stop));
            tokio::spawn(async move {
                for round in 0_u64.. {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    // Every question is asked twice: of Redis when it works.
                    let number = round / 2;
                    if task % 2 == 0 {
                        let text = format!("question {number} of task {task}");
                        let call =
                            || async { Ok::<_, askonce::Error>(Fill::from(Answer::text("made"))) };
                        let served = semantic.get_or_call(&ask(&text), call).await;
                        assert_eq!(served.expect("no error").answer.as_str(), "made");
                    } else {
                        let key = Key::new("double").part(task as u64).part(number);
                        let load = || async move { number * 2 };
                        assert_eq!(typed.get_or_set(&key, DAY, load).await, number * 2);
                    }
                    rounds.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            })
        });
        Self {
            tasks: tasks.collect(),
            rounds,
            stop,
        }
    }

    async fn further(&self, by: usize) {
        let goal = self.rounds.load(Ordering::SeqCst) + by;
        eventually("the load goes on", async || {
            let failed = self.tasks.iter().any(tokio::task::JoinHandle::is_finished);
            assert!(!failed, "a caller got an error");
            self.rounds.load(Ordering::SeqCst) >= goal
        })
        .await;
    }

    async fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.expect("no caller got an error");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w_07_a_redis_that_is_killed_and_restarted_under_load_costs_no_caller_an_error() {
    let Some(server) = RedisServer::start() else {
        return;
    };
    let port = server.port;
    let stand = Stand::new(server.config()).await;
    let load = Load::start(&stand);
    stand.hits().await;

    tokio::task::spawn_blocking(move || drop(server))
        .await
        .unwrap();
    stand.opens(&load).await;
    let calls = stand.calls();
    load.further(200).await;
    assert_eq!(stand.calls(), calls, "a dead Redis is left alone");

    let start = tokio::task::spawn_blocking(move || RedisServer::start_at(port));
    let _server = start.await.unwrap().expect("the port is still free");
    stand.closes().await;
    stand.hits().await;
    load.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_hangs_under_load_costs_a_few_timeouts_and_then_nothing() {
    let Some(mut server) = RedisServer::start() else {
        return;
    };
    let config = RedisConfig {
        timeout: Duration::from_millis(300),
        ..server.config()
    };
    let stand = Stand::new(config).await;
    let load = Load::start(&stand);
    stand.hits().await;

    let mut server = tokio::task::spawn_blocking(move || {
        server.hang();
        server
    })
    .await
    .unwrap();
    stand.opens(&load).await;
    let calls = stand.calls();
    load.further(400).await;
    assert_eq!(stand.calls(), calls, "a hung Redis is left alone");
    // What it costs to look again: no more than the probes of both breakers, however many ask.
    stand.clock.advance(Duration::from_secs(10));
    stand.opens(&load).await;
    let probes = stand.calls() - calls;
    assert!(probes <= 4, "{probes}");

    let woken = tokio::task::spawn_blocking(move || {
        server.wake();
        server
    });
    let _server = woken.await.unwrap();
    stand.closes().await;
    stand.hits().await;
    load.end().await;
}

/// Takes connections and answers each with `reply` at once and again to whatever it is sent.
fn speaks(reply: &'static [u8]) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&connections);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            counted.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || {
                let mut heard = [0; 1_024];
                while stream.write_all(reply).is_ok() {
                    if !matches!(stream.read(&mut heard), Ok(1..)) {
                        return;
                    }
                }
            });
        }
    });
    (port, connections)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_no_redis_costs_no_caller_an_error_and_is_left_alone() {
    for reply in [
        b"HTTP/1.1 400 Bad Request\r\n\r\n".as_slice(),
        b"\x00\xff\x80garbage\r\n\r\n$-7\r\n*99999999\r\n",
        b"-LOADING wait\r\n",
    ] {
        let (port, connections) = speaks(reply);
        let stand = Stand::new(RedisConfig {
            redis_url: format!("redis://127.0.0.1:{port}"),
            timeout: Duration::from_millis(300),
            ..RedisConfig::default()
        })
        .await;
        let load = Load::start(&stand);
        stand.opens(&load).await;
        let (calls, connected) = (stand.calls(), connections.load(Ordering::SeqCst));
        load.further(200).await;
        assert_eq!(stand.calls(), calls);
        assert!(connections.load(Ordering::SeqCst) <= connected + 1);
        load.end().await;
    }
}
