//! A cache whose second tier is a real Redis: shared, restarted, killed, hung, misused.
#![cfg(feature = "redis")]

#[path = "../support/mod.rs"]
mod support;

mod feed;
mod tls;
mod topology;
mod writes;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use askonce::backend::{BackendHandle, MemoryConfig, RedisBackend, RedisConfig};
use askonce::config::{BackendConfig, Config};
use askonce::{Answer, ErrorKind, Fill, Outcome, SemanticCache, StoreOptions};
use bytes::Bytes;
use support::server::{RedisServer, free_port};
use support::{answer_to, ask, put, put_with};

const ASKED: &str = "How do I reset my password?";
const REWORDED: &str = "how can I reset my password";

fn backend(config: RedisConfig) -> BackendHandle {
    Arc::new(RedisBackend::builder(config).build().unwrap())
}

/// Memory over Redis, or Redis alone.
async fn cache(redis: &RedisConfig, memory: bool) -> SemanticCache {
    let mut backends = vec![BackendConfig::Redis(redis.clone()).into()];
    if memory {
        backends.insert(0, BackendConfig::Memory(MemoryConfig::default()).into());
    }
    let config = Config {
        backends,
        ..Config::default()
    };
    let built = SemanticCache::builder().config(&config).build().await;
    built.unwrap()
}

async fn hit_kind(cache: &SemanticCache, text: &str) -> String {
    match cache.lookup(&ask(text)).await {
        Outcome::Hit(hit) => format!("{:?}", hit.kind),
        Outcome::Miss(miss) => format!("{miss:?}"),
    }
}

/// Whether the cache takes an answer.
async fn stores(cache: &SemanticCache) -> bool {
    let answer = Answer::text("right");
    let stored = cache
        .store(&ask(ASKED), answer, StoreOptions::default())
        .await;
    stored.entry().is_some()
}

/// Asks until `done` says yes, for at most a minute.
async fn eventually(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !done().await {
        assert!(started.elapsed() < Duration::from_secs(60), "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn an_answer_outlives_its_process_and_is_found_by_its_exact_key() {
    let Some(server) = RedisServer::shared() else {
        return;
    };
    let redis = server.config();
    let first = cache(&redis, true).await;
    put(&first, ASKED, "right").await;
    assert!(hit_kind(&first, REWORDED).await.contains("Semantic"));
    drop(first);

    let second = cache(&redis, true).await;
    // Similarity is local to a process until its index hears of others' entries.
    assert!(hit_kind(&second, REWORDED).await.contains("Miss"));
    assert!(hit_kind(&second, ASKED).await.contains("redis"));
    // The near tier is believed once news of others is known to come.
    eventually("an answer from the near tier", async || {
        hit_kind(&second, ASKED).await.contains("memory")
    })
    .await;
    assert_eq!(
        answer_to(&second, &ask(ASKED)).await,
        Ok("right".to_owned())
    );
}

#[tokio::test]
async fn w_09_a_key_on_the_wire_is_its_prefix_once_and_the_key() {
    let Some(server) = RedisServer::shared() else {
        return;
    };
    let redis = server.config();
    let request = ask(ASKED);
    let life = Duration::from_secs(3_600);
    put_with(
        &cache(&redis, false).await,
        &request,
        "right",
        StoreOptions::default().ttl(life),
    )
    .await;
    let mut raw = server.raw();
    let pattern = format!("*{}*", redis.key_prefix);
    let mut keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query(&mut raw).unwrap();
    let generations = format!("{}::!mark:", redis.key_prefix);
    let all = keys.len();
    keys.retain(|key| !key.starts_with(&generations));
    assert!(keys.len() < all, "what invalidations renew");
    // What was learnt of entries is shared under one key.
    let learning = format!("{}::!learning", redis.key_prefix);
    keys.retain(|key| *key != learning);
    let hex: String = request
        .exact_key()
        .as_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(keys, [format!("{}::%{hex}", redis.key_prefix)]);
    let left: u64 = redis::cmd("PTTL").arg(&keys[0]).query(&mut raw).unwrap();
    assert!((3_600_000..=3_660_000).contains(&left), "{left}");

    let named = RedisConfig {
        key_prefix: format!("{}:app", redis.key_prefix),
        ..redis
    };
    let wire = format!("{}::users:7", named.key_prefix);
    backend(named)
        .set(b"users:7", Bytes::from_static(b"v"), None)
        .await
        .unwrap();
    let there: bool = redis::cmd("EXISTS").arg(&wire).query(&mut raw).unwrap();
    assert!(there, "{wire}");
}

#[tokio::test]
async fn w_08_clear_removes_the_keys_of_its_prefix_and_no_other() {
    let Some(server) = RedisServer::shared() else {
        return;
    };
    let short = server.config();
    let long = RedisConfig {
        key_prefix: format!("{}:ab", short.key_prefix),
        ..short.clone()
    };
    let foreign = format!("{}:session", short.key_prefix);
    let (ours, others) = (backend(short), backend(long));
    let mut raw = server.raw();
    redis::cmd("SET")
        .arg(&foreign)
        .arg("x")
        .exec(&mut raw)
        .unwrap();
    for i in 0..2_500_u32 {
        let key = i.to_be_bytes();
        ours.set(&key, Bytes::from_static(b"v"), None)
            .await
            .unwrap();
    }
    others
        .set(b"k", Bytes::from_static(b"v"), None)
        .await
        .unwrap();
    assert_eq!(ours.usage().await.unwrap().entries, 2_500);

    ours.clear().await.unwrap();
    assert_eq!(ours.usage().await.unwrap().entries, 0);
    assert_eq!(ours.get(&7_u32.to_be_bytes()).await.unwrap(), None);
    assert!(others.get(b"k").await.unwrap().is_some());
    let left: bool = redis::cmd("EXISTS").arg(&foreign).query(&mut raw).unwrap();
    assert!(left, "a key of another program");
}

#[tokio::test]
async fn another_programs_value_is_an_error_until_it_is_overwritten() {
    let Some(server) = RedisServer::shared() else {
        return;
    };
    let redis = server.config();
    let key = format!("{}::k", redis.key_prefix);
    let backend = backend(redis);
    let mut raw = server.raw();
    for command in ["SET", "RPUSH"] {
        redis::cmd(command)
            .arg(&key)
            .arg("x")
            .exec(&mut raw)
            .unwrap();
        let error = backend.get(b"k").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        backend
            .set(b"k", Bytes::from_static(b"v"), None)
            .await
            .unwrap();
        assert!(backend.get(b"k").await.unwrap().is_some());
        backend.delete(b"k").await.unwrap();
    }
}

#[tokio::test]
async fn a_user_who_may_touch_the_prefix_only_is_enough() {
    let Some(server) = RedisServer::shared() else {
        return;
    };
    let mut redis = server.config();
    let keys = format!("~{}::*", redis.key_prefix);
    redis::cmd("ACL")
        .arg(&[
            "SETUSER",
            "app",
            "on",
            ">p@ss",
            &keys,
            "+@all",
            "-@dangerous",
            "-@admin",
        ])
        .exec(&mut server.raw())
        .unwrap();
    redis.redis_url = format!("redis://app:p%40ss@127.0.0.1:{}", server.port);
    let backend = backend(redis);
    backend
        .set(b"k", Bytes::from_static(b"v"), None)
        .await
        .unwrap();
    assert!(backend.get(b"k").await.unwrap().is_some());
    assert_eq!(backend.usage().await.unwrap().entries, 1);
    assert!(backend.delete(b"k").await.unwrap());
    backend.clear().await.unwrap();
}

#[tokio::test]
async fn a_refused_password_is_named_never_shown_and_tried_again() {
    let Some(server) = RedisServer::start() else {
        return;
    };
    let mut raw = server.raw();
    let lock = ["SET", "requirepass", "another"];
    redis::cmd("CONFIG").arg(&lock).exec(&mut raw).unwrap();
    let mut redis = server.config();
    redis.redis_url = format!("redis://:hunter2@127.0.0.1:{}", server.port);
    let backend = backend(redis.clone());
    let error = backend.get(b"k").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BackendUnavailable);
    assert!(error.to_string().contains("password"), "{error}");
    let cache = cache(&redis, true).await;
    let config = BackendConfig::Redis(redis);
    let shown = format!("{error} {error:?} {backend:?} {cache:?} {config:?}");
    assert!(!shown.contains("hunter2"), "{shown}");

    let open = ["SET", "requirepass", "hunter2"];
    redis::cmd("CONFIG").arg(&open).exec(&mut raw).unwrap();
    eventually("a login after the password was put right", async || {
        backend.get(b"k").await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn tls_to_a_server_without_it_is_an_error() {
    let Some(server) = RedisServer::shared() else {
        return;
    };
    let redis = RedisConfig {
        redis_url: format!("rediss://127.0.0.1:{}", server.port),
        timeout: Duration::from_secs(2),
        ..server.config()
    };
    let error = backend(redis).get(b"k").await.unwrap_err();
    assert!(
        matches!(
            error.kind(),
            ErrorKind::BackendUnavailable | ErrorKind::Timeout
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_cache_starts_before_its_redis() {
    if RedisServer::shared().is_none() {
        return;
    }
    let port = free_port();
    let redis = RedisConfig {
        redis_url: format!("redis://127.0.0.1:{port}"),
        ..RedisConfig::default()
    };
    let cache = cache(&redis, true).await;
    assert!(hit_kind(&cache, ASKED).await.contains("TierUnavailable"));
    assert!(!cache.health().await.healthy);

    let _server = RedisServer::start_at(port).expect("the port is still free");
    eventually("a store once Redis is there", async || stores(&cache).await).await;
    assert!(cache.health().await.healthy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w_07_a_killed_redis_is_named_misses_and_comes_back() {
    let Some(server) = RedisServer::start() else {
        return;
    };
    let port = server.port;
    let cache = cache(&server.config(), false).await;
    put(&cache, ASKED, "right").await;

    let stop = Arc::new(AtomicBool::new(false));
    let rounds = Arc::new(AtomicUsize::new(0));
    let load = (0..8).map(|task| {
        let (cache, stop, rounds) = (cache.clone(), Arc::clone(&stop), Arc::clone(&rounds));
        tokio::spawn(async move {
            let mut reasons = Vec::new();
            for round in 0.. {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                if let Outcome::Miss(miss) = cache.lookup(&ask(ASKED)).await {
                    reasons.extend(miss.reasons);
                }
                let text = format!("question {round} of task {task}");
                let call = || async { Ok::<_, askonce::Error>(Fill::from(Answer::text("made"))) };
                let served = cache.get_or_call(&ask(&text), call).await;
                assert_eq!(served.expect("no error").answer.as_str(), "made");
                rounds.fetch_add(1, Ordering::SeqCst);
            }
            reasons
        })
    });
    let load: Vec<_> = load.collect();
    let further = async |by: usize| {
        let goal = rounds.load(Ordering::SeqCst) + by;
        eventually("the load goes on", async || {
            rounds.load(Ordering::SeqCst) >= goal
        })
        .await;
    };
    further(40).await;
    tokio::task::spawn_blocking(move || drop(server))
        .await
        .unwrap();
    further(40).await;
    let start = tokio::task::spawn_blocking(move || RedisServer::start_at(port));
    let _server = start.await.unwrap().expect("the port is still free");
    eventually("a store after the restart", async || stores(&cache).await).await;
    further(40).await;
    stop.store(true, Ordering::SeqCst);
    let mut reasons = Vec::new();
    for task in load {
        reasons.extend(task.await.unwrap());
    }
    assert!(
        reasons
            .iter()
            .any(|reason| reason.as_str() == "tier_unavailable"),
        "{reasons:?}"
    );
    assert_eq!(answer_to(&cache, &ask(ASKED)).await, Ok("right".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_redis_costs_each_lookup_no_more_than_the_deadline() {
    let Some(mut server) = RedisServer::start() else {
        return;
    };
    let redis = RedisConfig {
        timeout: Duration::from_millis(300),
        ..server.config()
    };
    let alone = cache(&redis, false).await;
    let layered = cache(&redis, true).await;
    eventually("a store", async || stores(&layered).await).await;
    server.hang();
    // Room for a busy machine, and far below the minutes that a hung connection can last.
    let bound = Duration::from_millis(300) + Duration::from_secs(2);
    for _ in 0..5 {
        let started = Instant::now();
        assert!(hit_kind(&alone, ASKED).await.contains("TierUnavailable"));
        assert!(started.elapsed() < bound, "{:?}", started.elapsed());
        assert_eq!(
            answer_to(&layered, &ask(ASKED)).await,
            Ok("right".to_owned())
        );
    }
    let error = backend(redis).get(b"k").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(
        error.is_retryable() && error.to_string().contains("300ms"),
        "{error}"
    );
    server.wake();
    eventually("a hit after it woke", async || {
        answer_to(&alone, &ask(ASKED)).await.is_ok()
    })
    .await;
}
