//! What the general cache costs: stores, tiers, leases, beside moka alone and the reference system.
//!
//! All subjects of a group take turns in every round, so that the noise of a shared machine hits all of
//! them, and what is compared is the ratio to the group's first subject, round by round. A table shows
//! the median of the rounds and the fastest. Every read is checked: a line says how many of them gave
//! the right value, as speed alone says nothing. One thread; values are a text of 200 characters and a
//! number, 10,000 keys in process and 500 in Redis; Redis is a private process on this machine.
//!
//! `cargo bench --bench backends`. The reference system takes part where `python3` (or the interpreter
//! that `ASKONCE_PYTHON` names) can import it: `pip install lexigram-cache redis`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use askonce::Cache;
use askonce::backend::{BackendHandle, MemoryBackend, MemoryConfig};
use askonce::layer::Layered;
use askonce::typed::{CacheValue, Key, LeaseOptions, Lookup};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::runtime::{Builder, Runtime};

#[cfg(feature = "redis")]
#[path = "../tests/support/server.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod server;

/// Rounds in which every subject has its turn.
const ROUNDS: usize = 15;

/// Keys of the subjects in this process.
const KEYS: usize = 10_000;

/// Keys of the subjects behind a socket.
const REMOTE_KEYS: usize = 500;

/// Keys asked for at once where batches are timed.
const BATCH: usize = 100;

/// What is stored: the same as in `peers/lexigram_cache.py`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CacheValue)]
#[cache_value(name = "bench-answer")]
struct Answer {
    answer: String,
    tokens: u32,
}

impl Answer {
    fn new() -> Self {
        Self {
            answer: "x".repeat(200),
            tokens: 50,
        }
    }
}

/// One thing that is timed: `calls` operations, and how many gave the right answer.
struct Subject<'a> {
    name: &'static str,
    calls: usize,
    run: Box<dyn FnMut(usize) -> Result<Timed, String> + 'a>,
}

struct Timed {
    took: Duration,
    right: usize,
}

impl<'a> Subject<'a> {
    fn new(name: &'static str, calls: usize, mut run: impl FnMut(usize) -> usize + 'a) -> Self {
        let run = move |calls| {
            let started = Instant::now();
            let right = run(calls);
            Ok(Timed {
                took: started.elapsed(),
                right,
            })
        };
        Self {
            name,
            calls,
            run: Box::new(run),
        }
    }
}

/// Lets all subjects take turns, and prints the group's table.
fn compare(title: &str, mut subjects: Vec<Subject<'_>>) {
    let mut nanos: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    let mut right: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
    let mut absent: BTreeMap<usize, String> = BTreeMap::new();
    for round in 0..=ROUNDS {
        for (at, subject) in subjects.iter_mut().enumerate() {
            if absent.contains_key(&at) {
                continue;
            }
            match (subject.run)(subject.calls) {
                Err(why) => drop(absent.insert(at, why)),
                // The first round fills caches and wakes the machine up.
                Ok(_) if round == 0 => {}
                Ok(timed) => {
                    let each = timed.took.as_secs_f64() * 1e9 / subject.calls as f64;
                    nanos.entry(at).or_default().push(each);
                    let sum = right.entry(at).or_default();
                    *sum = (sum.0 + timed.right, sum.1 + subject.calls);
                }
            }
        }
    }
    println!("\n{title}");
    println!(
        "{:<44} {:>11} {:>11} {:>9} {:>8}",
        "", "median", "fastest", "ratio", "right"
    );
    let first = nanos.get(&0).cloned().unwrap_or_default();
    for (at, subject) in subjects.iter().enumerate() {
        if let Some(why) = absent.get(&at) {
            println!("{:<44} not run: {why}", subject.name);
            continue;
        }
        let own = &nanos[&at];
        let ratios = own.iter().zip(&first).map(|(own, first)| own / first);
        let (right, calls) = right[&at];
        println!(
            "{:<44} {:>11} {:>11} {:>8.2}x {:>7.1}%",
            subject.name,
            shown(median(own.clone())),
            shown(own.iter().copied().fold(f64::INFINITY, f64::min)),
            median(ratios.collect()),
            100.0 * right as f64 / calls as f64,
        );
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn shown(nanos: f64) -> String {
    if nanos < 10_000.0 {
        format!("{nanos:.0} ns")
    } else {
        format!("{:.1} us", nanos / 1_000.0)
    }
}

/// The reference system, in a process of its own, asked line by line.
struct Peer {
    child: Child,
    ask: ChildStdin,
    tell: BufReader<ChildStdout>,
}

impl Peer {
    fn start(redis: Option<String>) -> Result<Self, String> {
        let python = std::env::var("ASKONCE_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/benches/peers/lexigram_cache.py"
        );
        let mut child = Command::new(python)
            .arg(script)
            .args(redis)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("python cannot be started: {error}"))?;
        let (Some(ask), Some(tell)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("python has no streams".to_owned());
        };
        let tell = BufReader::new(tell);
        Ok(Self { child, ask, tell })
    }

    fn time(&mut self, operation: &str, calls: usize) -> Result<Timed, String> {
        let asked = serde_json::json!({ "operation": operation, "calls": calls });
        writeln!(self.ask, "{asked}").map_err(|error| error.to_string())?;
        loop {
            let mut line = String::new();
            match self.tell.read_line(&mut line) {
                Ok(0) => return Err("it ended: pip install lexigram-cache redis".to_owned()),
                Ok(_) => {}
                Err(error) => return Err(error.to_string()),
            }
            // Whatever else it prints is no answer.
            let Ok(reply) = serde_json::from_str::<serde_json::Value>(&line) else {
                continue;
            };
            if let Some(nanos) = reply["nanoseconds"].as_f64() {
                return Ok(Timed {
                    took: Duration::from_secs_f64(nanos * calls as f64 / 1e9),
                    right: reply["right"].as_u64().unwrap_or(0) as usize,
                });
            }
            if let Some(why) = reply["unavailable"].as_str() {
                return Err(why.to_owned());
            }
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

type SharedPeer = std::rc::Rc<std::cell::RefCell<Result<Peer, String>>>;

/// The reference system as a subject.
fn reference<'a>(
    peer: &SharedPeer,
    name: &'static str,
    operation: &'static str,
    calls: usize,
) -> Subject<'a> {
    let peer = SharedPeer::clone(peer);
    let run = move |calls| match &mut *peer.borrow_mut() {
        Ok(peer) => peer.time(operation, calls),
        Err(why) => Err(why.clone()),
    };
    Subject {
        name,
        calls,
        run: Box::new(run),
    }
}

fn main() {
    // A list or a test run of all targets must not take minutes.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    #[cfg(feature = "redis")]
    let redis = server::RedisServer::start();
    #[cfg(feature = "redis")]
    let url = redis
        .as_ref()
        .map(|server| format!("redis://127.0.0.1:{}/0", server.port));
    #[cfg(not(feature = "redis"))]
    let url = None;
    let peer: SharedPeer = std::rc::Rc::new(std::cell::RefCell::new(Peer::start(url)));
    in_process(&runtime, &peer);
    loads(&runtime, "a load on a miss, in process", memory(), 2_000);
    #[cfg(feature = "redis")]
    match &redis {
        Some(server) => remote(&runtime, &peer, server),
        None => println!("\nRedis: not run, redis-server is not installed"),
    }
}

fn memory() -> BackendHandle {
    let memory = MemoryBackend::builder(MemoryConfig::default()).build();
    Arc::new(memory.expect("the default settings are valid"))
}

fn layered(backend: BackendHandle) -> BackendHandle {
    Arc::new(
        Layered::builder(backend)
            .build()
            .expect("the default settings are valid"),
    )
}

fn typed(backend: BackendHandle) -> Cache {
    Cache::builder(backend)
        .namespace("bench")
        .build()
        .expect("the settings are valid")
}

fn keys(count: usize) -> Vec<Bytes> {
    (0..count)
        .map(|number| Bytes::from(format!("key:{number}")))
        .collect()
}

fn typed_keys(count: usize) -> Vec<Key> {
    (0..count)
        .map(|number| Key::new("key").part(number))
        .collect()
}

fn in_process(runtime: &Runtime, peer: &SharedPeer) {
    const CALLS: usize = 20_000;
    let raw_keys = keys(KEYS);
    let value = Bytes::from(rmp_serde::to_vec_named(&Answer::new()).expect("an answer has a form"));

    let moka = moka::sync::Cache::<Box<[u8]>, Bytes>::builder()
        .max_capacity(512 << 20)
        .eviction_policy(moka::policy::EvictionPolicy::lru())
        .weigher(|key, value| (key.len() + value.len()) as u32)
        .build();
    let backend = memory();
    let around = layered(memory());
    let cache = typed(memory());
    let bare = Cache::builder(memory()).build().expect("valid settings");
    let names = typed_keys(KEYS);
    let answer = Answer::new();
    let life = Duration::from_secs(3_600);

    let set = |backend: &BackendHandle, calls: usize| {
        runtime.block_on(async {
            let mut right = 0;
            for number in 0..calls {
                let key = &raw_keys[number % KEYS];
                right += usize::from(backend.set(key, value.clone(), None).await.is_ok());
            }
            right
        })
    };
    let get = |backend: &BackendHandle, calls: usize| {
        runtime.block_on(async {
            let mut right = 0;
            for number in 0..calls {
                let held = backend.get(&raw_keys[number % KEYS]).await;
                right += usize::from(matches!(held, Ok(Some(held)) if held.bytes == value));
            }
            right
        })
    };
    let typed_set = |cache: &Cache, calls: usize| {
        runtime.block_on(async {
            let mut right = 0;
            for number in 0..calls {
                let stored = cache.set(&names[number % KEYS], &answer, life).await;
                right += usize::from(stored.is_ok());
            }
            right
        })
    };
    let typed_get = |cache: &Cache, calls: usize| {
        runtime.block_on(async {
            let mut right = 0;
            for number in 0..calls {
                let held = cache.get::<Answer>(&names[number % KEYS]).await;
                right += usize::from(matches!(held, Ok(Lookup::Hit(held)) if held == answer));
            }
            right
        })
    };
    compare(
        "set, in process",
        vec![
            Subject::new("moka alone", CALLS, |calls| {
                for number in 0..calls {
                    moka.insert((&*raw_keys[number % KEYS]).into(), value.clone());
                }
                calls
            }),
            Subject::new("memory backend", CALLS, |calls| set(&backend, calls)),
            Subject::new("memory backend in its layers", CALLS, |calls| {
                set(&around, calls)
            }),
            Subject::new("typed cache (serialized, sealed)", CALLS, |calls| {
                typed_set(&cache, calls)
            }),
            Subject::new("typed cache without a namespace", CALLS, |calls| {
                typed_set(&bare, calls)
            }),
            reference(peer, "lexigram-cache, memory", "memory set", 2_000),
        ],
    );
    compare(
        "get, in process",
        vec![
            Subject::new("moka alone", CALLS, |calls| {
                let mut right = 0;
                for number in 0..calls {
                    let held = moka.get(&*raw_keys[number % KEYS]);
                    right += usize::from(held.is_some_and(|held| held == value));
                }
                right
            }),
            Subject::new("memory backend", CALLS, |calls| get(&backend, calls)),
            Subject::new("memory backend in its layers", CALLS, |calls| {
                get(&around, calls)
            }),
            Subject::new("typed cache (checked, deserialized)", CALLS, |calls| {
                typed_get(&cache, calls)
            }),
            Subject::new("typed cache without a namespace", CALLS, |calls| {
                typed_get(&bare, calls)
            }),
            reference(peer, "lexigram-cache, memory", "memory get", 2_000),
        ],
    );
}

/// Loads of keys that are not there: in this process alone, and under a lease among processes.
fn loads(runtime: &Runtime, title: &str, backend: BackendHandle, calls: usize) {
    let cache = typed(backend);
    let answer = Answer::new();
    let next = std::cell::Cell::new(0_u64);
    let load = |lease: bool, calls: usize| {
        runtime.block_on(async {
            let mut right = 0;
            for _ in 0..calls {
                next.set(next.get() + 1);
                let key = Key::new("load").part(next.get());
                let mut load = cache.load(&key).ttl(Duration::from_secs(60));
                if lease {
                    load = load.lease(LeaseOptions::new());
                }
                let loaded: Answer = load.run(|| async { answer.clone() }).await;
                right += usize::from(loaded == answer);
            }
            right
        })
    };
    compare(
        title,
        vec![
            Subject::new("one load per process", calls, |calls| load(false, calls)),
            Subject::new("under a lease among processes", calls, |calls| {
                load(true, calls)
            }),
        ],
    );
}

#[cfg(feature = "redis")]
fn remote(runtime: &Runtime, peer: &SharedPeer, server: &server::RedisServer) {
    use askonce::backend::{RedisBackend, Write as Store};
    use askonce::tier::TieredBackend;

    const CALLS: usize = 1_000;
    let config = askonce::backend::RedisConfig {
        key_prefix: "bench".to_owned(),
        timeout: Duration::from_secs(5),
        ..server.config()
    };
    let redis: BackendHandle = Arc::new(
        RedisBackend::builder(config)
            .build()
            .expect("the settings are valid"),
    );
    let around = layered(Arc::clone(&redis));
    let names = keys(REMOTE_KEYS);
    let value = Bytes::from(rmp_serde::to_vec_named(&Answer::new()).expect("an answer has a form"));
    let client = redis::Client::open(format!("redis://127.0.0.1:{}/0", server.port))
        .expect("the address is valid");
    let connection = runtime
        .block_on(redis::aio::ConnectionManager::new(client))
        .expect("the server runs");

    let get = |backend: &BackendHandle, calls: usize| {
        runtime.block_on(async {
            let mut right = 0;
            for number in 0..calls {
                let held = backend.get(&names[number % REMOTE_KEYS]).await;
                right += usize::from(matches!(held, Ok(Some(held)) if held.bytes == value));
            }
            right
        })
    };
    let set = |backend: &BackendHandle, calls: usize| {
        runtime.block_on(async {
            let mut right = 0;
            for number in 0..calls {
                let key = &names[number % REMOTE_KEYS];
                right += usize::from(backend.set(key, value.clone(), None).await.is_ok());
            }
            right
        })
    };
    let set_many = |backend: &BackendHandle, calls: usize| {
        let writes: Vec<Store> = names[..BATCH]
            .iter()
            .map(|key| Store {
                key: key.clone(),
                value: value.clone(),
                expires: None,
            })
            .collect();
        runtime.block_on(async {
            let mut right = 0;
            for _ in 0..calls / BATCH {
                let stored = backend.set_many(&writes).await;
                right += stored.iter().filter(|stored| stored.is_ok()).count();
            }
            right
        })
    };
    let get_many = |backend: &BackendHandle, calls: usize| {
        runtime.block_on(async {
            let mut right = 0;
            for _ in 0..calls / BATCH {
                let held = backend.get_many(&names[..BATCH]).await;
                let is_right = |held: &&askonce::Result<Option<askonce::backend::StoredValue>>| {
                    matches!(held, Ok(Some(held)) if held.bytes == value)
                };
                right += held.iter().filter(is_right).count();
            }
            right
        })
    };
    let bare = |name: &'static str, calls: usize| {
        runtime.block_on(async {
            let mut connection = connection.clone();
            let mut right = 0;
            for number in 0..calls {
                let mut command = redis::cmd(name);
                command.arg(format!("bare:{}", number % REMOTE_KEYS));
                if name == "SET" {
                    let done = command.arg(&*value).exec_async(&mut connection).await;
                    right += usize::from(done.is_ok());
                } else {
                    let held = command
                        .query_async::<Option<Vec<u8>>>(&mut connection)
                        .await;
                    right += usize::from(held.is_ok_and(|held| held.as_deref() == Some(&*value)));
                }
            }
            right
        })
    };
    compare(
        "set, Redis on this machine",
        vec![
            Subject::new("crate redis alone", CALLS, |calls| bare("SET", calls)),
            Subject::new("Redis backend", CALLS, |calls| set(&redis, calls)),
            Subject::new("Redis backend in its layers", CALLS, |calls| {
                set(&around, calls)
            }),
            Subject::new("Redis backend, 100 at once", 10 * CALLS, |calls| {
                set_many(&redis, calls)
            }),
            reference(peer, "lexigram-cache, Redis", "redis set", 200),
        ],
    );
    compare(
        "get, Redis on this machine",
        vec![
            Subject::new("crate redis alone", CALLS, |calls| bare("GET", calls)),
            Subject::new("Redis backend", CALLS, |calls| get(&redis, calls)),
            Subject::new("Redis backend in its layers", CALLS, |calls| {
                get(&around, calls)
            }),
            Subject::new("Redis backend, 100 at once", 10 * CALLS, |calls| {
                get_many(&redis, calls)
            }),
            reference(peer, "lexigram-cache, Redis", "redis get", 200),
        ],
    );

    let tiered: BackendHandle = {
        let _context = runtime.enter();
        let tiered = TieredBackend::builder(memory(), Arc::clone(&around)).build();
        Arc::new(tiered.expect("the default settings are valid"))
    };
    // The feed's reader has its turn first: a near tier is believed once it is up to date.
    runtime.block_on(async {
        for name in &names {
            tiered.get(name).await.expect("the server runs");
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    });
    let near = memory();
    set(&near, REMOTE_KEYS);
    compare(
        "get, memory over Redis, near hit",
        vec![
            Subject::new("memory backend", CALLS, |calls| get(&near, calls)),
            Subject::new("tiered backend", CALLS, |calls| get(&tiered, calls)),
            Subject::new("Redis backend", CALLS, |calls| get(&redis, calls)),
            reference(peer, "lexigram-cache, tiered", "tiered get", 500),
        ],
    );
    loads(runtime, "a load on a miss, Redis", around, 300);
}
