//! What is particular to memcached, against real servers: bytes of every kind, several servers, servers
//! that die and return, prefixes that share one. The common contract is in `tests/contract`.
#![cfg(feature = "memcached")]

#[path = "../support/memcached.rs"]
mod memcached;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use askonce::backend::{
    ByteSize, CacheBackend, Condition, MemcachedBackend, MemcachedConfig, Write,
};
use askonce::clock::{Clock, ManualClock};
use askonce::config::BackendConfig;
use askonce::typed::{Cache, Key, Lookup, Ttl};
use askonce::{
    Answer, Config, Error, ErrorKind, Fill, Outcome, SemanticCache, Source, StoreOptions,
};
use bytes::Bytes;
use memcached::{Server, free_port, settings, shared};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn backend(config: &MemcachedConfig, clock: &Arc<ManualClock>) -> MemcachedBackend {
    MemcachedBackend::builder(config.clone())
        .clock(Arc::clone(clock) as _)
        .build()
        .unwrap()
}

async fn set(backend: &MemcachedBackend, key: &[u8], value: &'static [u8]) -> Result<(), Error> {
    CacheBackend::set(backend, key, Bytes::from_static(value), None).await
}

async fn get(backend: &MemcachedBackend, key: &[u8]) -> Option<Bytes> {
    let held = CacheBackend::get(backend, key).await.unwrap();
    held.map(|held| held.bytes)
}

/// Asserts that `error` is one of a server that may come back.
fn assert_outage(error: &Error) {
    assert!(
        matches!(
            error.kind(),
            ErrorKind::BackendUnavailable | ErrorKind::Timeout
        ),
        "{error:?}"
    );
    assert!(error.is_retryable(), "{error:?}");
    assert!(error.to_string().contains("server: 127.0.0.1:"), "{error}");
}

#[tokio::test]
async fn w_06_values_of_every_type_come_back_as_what_they_were() {
    use std::collections::BTreeMap;
    let Some(config) = shared() else { return };
    let cache = Cache::new(Arc::new(backend(&config, &support::clock())));
    let (map, number, text) = (Key::new("map"), Key::new("number"), Key::new("text"));
    let value = BTreeMap::from([("a".to_owned(), 1.5), ("b".to_owned(), -2.0)]);
    cache.set(&map, &value, Ttl::Forever).await.unwrap();
    cache.set(&number, &42_i64, Ttl::Forever).await.unwrap();
    cache
        .set(&text, &"42".to_owned(), Ttl::Forever)
        .await
        .unwrap();
    let found = cache.get::<BTreeMap<String, f64>>(&map).await.unwrap();
    assert_eq!(found, Lookup::Hit(value));
    // One by one and in a batch alike, and a number is no text.
    assert_eq!(cache.get::<i64>(&number).await.unwrap(), Lookup::Hit(42));
    let both = cache.get_many::<String>(&[text, number]).await;
    assert_eq!(*both[0].as_ref().unwrap(), Lookup::Hit("42".to_owned()));
    assert_eq!(both[1].as_ref().unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn every_kind_of_bytes_comes_back_as_it_was() {
    let Some(config) = shared() else { return };
    let backend = backend(&config, &support::clock());
    let all: Vec<u8> = (0..=255).collect();
    let values: [&[u8]; 12] = [
        b"",
        b"0",
        b"1790000000000",
        b"\r\n",
        b"END\r\n",
        b"VA 3 c7\r\nabc\r\n",
        b"STORED\r\nflush_all\r\n",
        b"{\"a\": [1, null]}",
        "Gr\u{fc}\u{df}e \u{1f600}".as_bytes(),
        b"\0\0\0",
        b"\xff\xfe\xc3\x28",
        &all,
    ];
    for value in values {
        for key in [b"k".as_slice(), value, &[value, &[9; 300]].concat()] {
            let value = Bytes::copy_from_slice(value);
            CacheBackend::set(&backend, key, value.clone(), None)
                .await
                .unwrap();
            assert_eq!(get(&backend, key).await, Some(value));
        }
    }
}

#[tokio::test]
async fn the_largest_value_fits_and_one_byte_more_is_refused() {
    let Some(config) = shared() else { return };
    let backend = backend(&config, &support::clock());
    let most = CacheBackend::capability(&backend).max_value_bytes.unwrap();
    // The longest key takes most of the room that the limit leaves.
    for key in [b"k".as_slice(), &[1; 120], &[1; 500]] {
        let value = Bytes::from(vec![0xab; most]);
        CacheBackend::set(&backend, key, value.clone(), None)
            .await
            .unwrap();
        assert_eq!(get(&backend, key).await, Some(value.clone()));
        let more = Bytes::from(vec![0; most + 1]);
        let error = CacheBackend::set(&backend, key, more, None)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert_eq!(get(&backend, key).await, Some(value));
    }

    // A limit above the server's: its refusal says what to do, and the connection is of use after it.
    let beyond = MemcachedConfig {
        max_value_bytes: ByteSize::mib(4),
        ..config
    };
    let beyond = self::backend(&beyond, &support::clock());
    let value = Bytes::from(vec![0; 2 << 20]);
    let error = CacheBackend::set(&beyond, b"big", value, None)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error:?}");
    assert!(error.to_string().contains("-I"), "{error}");
    set(&beyond, b"small", b"v").await.unwrap();
    assert!(get(&beyond, b"small").await.is_some());
}

#[tokio::test]
async fn long_lives_are_kept_and_the_servers_own_expiry_comes_no_earlier_than_ours() {
    let Some(config) = shared() else { return };
    let clock = support::clock();
    let backend = backend(&config, &clock);
    for days in [1, 29, 30, 31, 365, 40_000] {
        let expires = clock.now().after(DAY * days);
        CacheBackend::set(&backend, b"k", Bytes::from_static(b"v"), Some(expires))
            .await
            .unwrap();
        assert!(get(&backend, b"k").await.is_some(), "{days} days");
    }
    // By a clock that stands still the value is alive, so memcached must still have it after as long.
    let expires = clock.now().after(Duration::from_millis(1_000));
    CacheBackend::set(&backend, b"k", Bytes::from_static(b"v"), Some(expires))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    assert!(get(&backend, b"k").await.is_some());
    clock.advance(Duration::from_millis(1_000));
    assert_eq!(get(&backend, b"k").await, None);
}

#[tokio::test]
async fn clearing_one_prefix_leaves_another_and_is_seen_by_every_process() {
    let Some(config) = shared() else { return };
    let Some(other) = shared() else { return };
    let clock = support::clock();
    let (ours, theirs) = (backend(&config, &clock), backend(&other, &clock));
    // As another process would see it: nothing in common but the settings.
    let elsewhere = backend(&config, &clock);
    set(&ours, b"k", b"ours").await.unwrap();
    set(&theirs, b"k", b"theirs").await.unwrap();
    assert_eq!(get(&elsewhere, b"k").await.as_deref(), Some(&b"ours"[..]));

    CacheBackend::clear(&ours).await.unwrap();
    assert_eq!(get(&elsewhere, b"k").await, None);
    assert!(!CacheBackend::delete(&elsewhere, b"k").await.unwrap());
    assert_eq!(get(&theirs, b"k").await.as_deref(), Some(&b"theirs"[..]));

    // What is written after a clear elsewhere is kept, whoever writes it.
    set(&elsewhere, b"k", b"new").await.unwrap();
    CacheBackend::clear(&ours).await.unwrap();
    set(&elsewhere, b"k", b"newer").await.unwrap();
    assert_eq!(get(&ours, b"k").await.as_deref(), Some(&b"newer"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_writers_at_once_agree_on_a_generation() {
    let Some(config) = shared() else { return };
    let clock = support::clock();
    let writers = (0..16_u8).map(|i| {
        let backend = backend(&config, &clock);
        tokio::spawn(async move { set(&backend, &[i], b"v").await.unwrap() })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let reader = backend(&config, &clock);
    for i in 0..16_u8 {
        assert!(get(&reader, &[i]).await.is_some(), "writer {i}");
    }
}

#[tokio::test]
async fn of_two_servers_a_dead_one_takes_only_its_own_keys_with_it() {
    let (Some(first), Some(mut second)) = (Server::start(), Server::start()) else {
        return;
    };
    let backend = backend(&settings(&[&first, &second]), &support::clock());
    let (mut on_first, mut on_second) = (Vec::new(), Vec::new());
    for i in 0..100_u8 {
        set(&backend, &[i], b"v").await.unwrap();
        if backend.server_of(&[i]) == first.address() {
            on_first.push(i);
        } else {
            on_second.push(i);
        }
    }
    assert!(on_first.len() > 20 && on_second.len() > 20);
    let usage = CacheBackend::usage(&backend).await.unwrap();
    assert_eq!(usage.entries, 102, "and a generation on each");

    second.kill();
    for &i in &on_first {
        assert!(get(&backend, &[i]).await.is_some());
        set(&backend, &[i], b"w").await.unwrap();
    }
    for &i in &on_second {
        assert_outage(&CacheBackend::get(&backend, &[i]).await.unwrap_err());
        assert_outage(&set(&backend, &[i], b"w").await.unwrap_err());
        assert_outage(&CacheBackend::delete(&backend, &[i]).await.unwrap_err());
    }
    assert_outage(&CacheBackend::usage(&backend).await.unwrap_err());

    // A clear that did not reach every server says so, and has cleared those that it reached.
    assert_outage(&CacheBackend::clear(&backend).await.unwrap_err());
    assert_eq!(get(&backend, &[on_first[0]]).await, None);

    // It comes back empty, and is of use at once.
    second.resume();
    assert_eq!(get(&backend, &[on_second[0]]).await, None);
    set(&backend, &[on_second[0]], b"again").await.unwrap();
    assert!(get(&backend, &[on_second[0]]).await.is_some());
    CacheBackend::clear(&backend).await.unwrap();
}

#[tokio::test]
async fn a_backend_may_be_made_before_its_server() {
    let Some(mut server) = Server::start() else {
        return;
    };
    server.kill();
    let backend = backend(&settings(&[&server]), &support::clock());
    assert_outage(&CacheBackend::get(&backend, b"k").await.unwrap_err());
    server.resume();
    set(&backend, b"k", b"v").await.unwrap();
    assert!(get(&backend, b"k").await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_server_is_empty_and_of_use_without_an_error_between() {
    let Some(mut server) = Server::start() else {
        return;
    };
    let backend = backend(&settings(&[&server]), &support::clock());
    // Several connections, all of them dead afterwards.
    let backend = Arc::new(backend);
    let writers = (0..8_u8).map(|i| {
        let backend = Arc::clone(&backend);
        tokio::spawn(async move { set(&backend, &[i], b"v").await.unwrap() })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    for round in 0..3 {
        server.kill();
        server.resume();
        for i in 0..8_u8 {
            assert_eq!(get(&backend, &[i]).await, None, "round {round}");
            set(&backend, &[i], b"v").await.unwrap();
            assert!(get(&backend, &[i]).await.is_some(), "round {round}");
        }
    }
}

#[tokio::test]
async fn a_server_that_never_answers_costs_no_more_than_the_deadline() {
    // Accepts connections, as the backlog does, and says nothing.
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let config = MemcachedConfig {
        servers: vec![silent.local_addr().unwrap().to_string()],
        timeout: Duration::from_millis(100),
        ..MemcachedConfig::default()
    };
    let backend = backend(&config, &support::clock());
    let started = Instant::now();
    let error = CacheBackend::get(&backend, b"k").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_outage(&error);
    assert_eq!(
        set(&backend, b"k", b"v").await.unwrap_err().kind(),
        ErrorKind::Timeout
    );
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_server_that_speaks_something_else_is_an_error_that_says_so() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap();
    let config = MemcachedConfig {
        servers: vec![listener.local_addr().unwrap().to_string()],
        ..MemcachedConfig::default()
    };
    // What memcached before 1.6 says to a meta command.
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut command = [0; 512];
            let _ = stream.read(&mut command).await;
            let _ = stream.write_all(b"ERROR\r\n").await;
        }
    });
    let backend = backend(&config, &support::clock());
    let error = CacheBackend::get(&backend, b"k").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BackendUnavailable);
    assert!(error.to_string().contains("1.6"), "{error}");
}

#[tokio::test]
async fn a_cancelled_operation_leaves_no_trace_in_the_next() {
    let Some(config) = shared() else { return };
    let backend = backend(&config, &support::clock());
    let large = Bytes::from(vec![7; 900_000]);
    CacheBackend::set(&backend, b"large", large.clone(), None)
        .await
        .unwrap();
    set(&backend, b"small", b"v").await.unwrap();
    for micros in (0..2_000).step_by(50) {
        let get_large = CacheBackend::get(&backend, b"large");
        let _ = tokio::time::timeout(Duration::from_micros(micros), get_large).await;
        let small = get(&backend, b"small").await;
        assert_eq!(small.as_deref(), Some(&b"v"[..]));
    }
    assert_eq!(get(&backend, b"large").await, Some(large));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_the_cache_a_killed_server_is_a_named_miss_and_never_an_error() {
    let Some(mut server) = Server::start() else {
        return;
    };
    let config = Config {
        backends: vec![BackendConfig::Memcached(settings(&[&server])).into()],
        ..Config::default()
    };
    let cache = SemanticCache::builder()
        .config(&config)
        .build()
        .await
        .unwrap();
    let request = support::ask("How do I reset my password?");
    let store = || async {
        cache
            .store(&request, Answer::text("right"), StoreOptions::default())
            .await
    };
    assert!(store().await.entry().is_some());
    assert_eq!(
        support::answer_to(&cache, &request).await,
        Ok("right".to_owned())
    );

    server.kill();
    let Outcome::Miss(miss) = cache.lookup(&request).await else {
        panic!("a hit")
    };
    assert!(
        miss.reasons
            .iter()
            .any(|reason| reason.as_str() == "tier_unavailable"),
        "{miss:?}"
    );
    let call = || async { Ok::<_, Error>(Fill::from(Answer::text("fresh"))) };
    let served = cache.get_or_call(&request, call).await.unwrap();
    assert_eq!(served.answer.as_str(), "fresh");
    assert!(matches!(served.source, Source::Upstream { .. }));
    assert!(store().await.entry().is_none());
    assert!(!cache.health().await.healthy);

    server.resume();
    assert!(
        cache.health().await.healthy,
        "asking ends the wait of the breakers"
    );
    assert!(store().await.entry().is_some());
    assert_eq!(
        support::answer_to(&cache, &request).await,
        Ok("right".to_owned())
    );
}

#[test]
fn settings_are_read_as_documented() {
    let read = |tier: &str| {
        serde_json::from_str::<Config>(&format!(r#"{{"backends": [{tier}]}}"#))
            .map_err(|error| error.to_string())
    };
    let config = read(
        r#"{"type": "memcached", "servers": ["a:1", "b:2"], "timeout": "250ms",
            "max_value_bytes": "4MiB", "key_prefix": "p"}"#,
    )
    .unwrap();
    config.validate().unwrap();
    let expected = MemcachedConfig {
        servers: vec!["a:1".to_owned(), "b:2".to_owned()],
        timeout: Duration::from_millis(250),
        max_value_bytes: ByteSize::mib(4),
        key_prefix: "p".to_owned(),
        ..MemcachedConfig::default()
    };
    assert_eq!(config.backends, [BackendConfig::Memcached(expected).into()]);

    let error = read(r#"{"type": "memcached", "server": "a:1"}"#).unwrap_err();
    assert!(
        error.contains("server") && error.contains("servers"),
        "{error}"
    );
    let config = read(r#"{"type": "memcached", "servers": ["a"]}"#).unwrap();
    let error = config.validate().unwrap_err().to_string();
    assert!(error.contains("backends[0].servers[0]"), "{error}");
}

#[tokio::test]
async fn a_cache_starts_while_its_server_is_down() {
    let nobody = format!("127.0.0.1:{}", free_port());
    let config = Config {
        backends: vec![
            BackendConfig::Memcached(MemcachedConfig {
                servers: vec![nobody],
                ..MemcachedConfig::default()
            })
            .into(),
        ],
        ..Config::default()
    };
    let cache = SemanticCache::builder()
        .config(&config)
        .build()
        .await
        .unwrap();
    let miss = cache.lookup(&support::ask("Anyone?")).await.miss().unwrap();
    assert!(
        miss.reasons
            .iter()
            .any(|reason| reason.as_str() == "tier_unavailable"),
        "{miss:?}"
    );
}

#[tokio::test]
async fn what_another_process_cleared_is_absent_to_every_condition() {
    let Some(config) = shared() else { return };
    let clock = support::clock();
    let (ours, theirs) = (backend(&config, &clock), backend(&config, &clock));
    let set_if = async |condition| {
        let value = Bytes::from_static(b"new");
        let written = CacheBackend::set_if(&ours, b"k", value, None, condition);
        written.await.unwrap()
    };
    set(&ours, b"k", b"old").await.unwrap();
    CacheBackend::clear(&theirs).await.unwrap();
    assert!(!set_if(Condition::Present).await);
    assert!(!set_if(Condition::Equals(b"old")).await);
    assert!(!CacheBackend::delete_if(&ours, b"k", b"old").await.unwrap());
    assert_eq!(CacheBackend::take(&ours, b"k").await.unwrap(), None);
    // The dead value is still on the server: it is replaced, not added to.
    assert!(set_if(Condition::Absent).await);
    assert_eq!(get(&theirs, b"k").await.as_deref(), Some(&b"new"[..]));
}

/// An address that leads to `server`, and runs `before` once, when the first command that stores under a
/// key with `mark` in it arrives and has not yet been passed on.
async fn detour<F>(server: String, mark: &'static str, before: F) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let mut before = Some(before);
        // One connection is enough: the tests use it for one operation after another.
        let (client, _) = listener.accept().await.unwrap();
        let server = tokio::net::TcpStream::connect(server).await.unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        tokio::spawn(async move {
            let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
        });
        let mut sent = Vec::new();
        while from_client.read_buf(&mut sent).await.is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&sent).into_owned();
            let stores = text.starts_with("ms ") && text.contains(mark);
            if stores && let Some(before) = before.take() {
                before.await;
            }
            to_server.write_all(&sent).await.unwrap();
            sent.clear();
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_a_clear_came_into_covers_no_newer_value_with_a_dead_one() {
    let Some(config) = shared() else { return };
    let clock = support::clock();
    let theirs = Arc::new(backend(&config, &clock));
    set(&theirs, b"mark", b"old").await.unwrap();
    let clear_and_write = {
        let theirs = Arc::clone(&theirs);
        async move {
            CacheBackend::clear(&*theirs).await.unwrap();
            set(&theirs, b"mark", b"newer").await.unwrap();
        }
    };
    let server = config.servers[0].clone();
    let ours = MemcachedConfig {
        servers: vec![detour(server, "mark", clear_and_write).await],
        ..config
    };
    let ours = backend(&ours, &clock);
    set(&ours, b"mark", b"ours").await.unwrap();
    // Read by either: it was written in the generation that is in force now.
    assert_eq!(get(&theirs, b"mark").await.as_deref(), Some(&b"ours"[..]));
    assert_eq!(get(&ours, b"mark").await.as_deref(), Some(&b"ours"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conditional_write_that_another_came_into_decides_anew() {
    let Some(config) = shared() else { return };
    let clock = support::clock();
    let theirs = Arc::new(backend(&config, &clock));
    set(&theirs, b"mark", b"1").await.unwrap();
    let count = {
        let theirs = Arc::clone(&theirs);
        async move {
            let counted = CacheBackend::increment(&*theirs, b"mark", 10, None);
            assert_eq!(counted.await.unwrap(), 11);
        }
    };
    let server = config.servers[0].clone();
    let ours = MemcachedConfig {
        servers: vec![detour(server, "mark", count).await],
        ..config
    };
    let ours = backend(&ours, &clock);
    let counted = CacheBackend::increment(&ours, b"mark", 1, None);
    assert_eq!(counted.await.unwrap(), 12, "neither count is lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_of_several_processes_are_never_lost() {
    let Some(config) = shared() else { return };
    let clock = support::clock();
    let counting = (0..8).map(|_| {
        let backend = backend(&config, &clock);
        tokio::spawn(async move {
            for _ in 0..25 {
                CacheBackend::increment(&backend, b"count", 2, None)
                    .await
                    .unwrap();
            }
        })
    });
    for task in counting.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let held = get(&backend(&config, &clock), b"count").await;
    assert_eq!(held.as_deref(), Some(&b"400"[..]));
}

#[tokio::test]
async fn a_cancelled_count_is_made_once_or_not_at_all() {
    let Some(config) = shared() else { return };
    let backend = backend(&config, &support::clock());
    let mut finished = 0;
    for micros in (0..4_000).step_by(50) {
        let count = CacheBackend::increment(&backend, b"count", 1, None);
        let counted = tokio::time::timeout(Duration::from_micros(micros), count).await;
        finished += i64::from(matches!(counted, Ok(Ok(_))));
        // The reply that nobody waited for is not taken for this one's.
        assert_eq!(get(&backend, b"other").await, None);
    }
    let count = CacheBackend::increment(&backend, b"count", 0, None);
    let count = count.await.unwrap();
    assert!((finished..=80).contains(&count), "{finished} of {count}");
}

#[tokio::test]
async fn a_server_without_versions_refuses_conditional_writes_and_says_what_to_do() {
    let Some(server) = Server::start_with("-C") else {
        return;
    };
    let backend = backend(&settings(&[&server]), &support::clock());
    set(&backend, b"k", b"1").await.unwrap();
    let error = CacheBackend::increment(&backend, b"k", 1, None)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("without -C"), "{error}");
    assert_eq!(get(&backend, b"k").await.as_deref(), Some(&b"1"[..]));
}

fn many_keys(range: std::ops::Range<u32>) -> Vec<Bytes> {
    range.map(|i| Bytes::from(format!("key:{i}"))).collect()
}

fn writes(keys: &[Bytes], value: &Bytes) -> Vec<Write> {
    let write = |key: &Bytes| Write {
        key: key.clone(),
        value: value.clone(),
        expires: None,
    };
    keys.iter().map(write).collect()
}

#[tokio::test]
async fn a_batch_over_two_servers_fails_only_where_one_is_dead() {
    let (Some(first), Some(mut second)) = (Server::start(), Server::start()) else {
        return;
    };
    let backend = backend(&settings(&[&first, &second]), &support::clock());
    let keys = many_keys(0..500);
    let value = Bytes::from_static(b"v");
    let stored = CacheBackend::set_many(&backend, &writes(&keys, &value)).await;
    assert!(stored.iter().all(Result::is_ok));
    second.kill();
    let found = CacheBackend::get_many(&backend, &keys).await;
    let stored = CacheBackend::set_many(&backend, &writes(&keys, &value)).await;
    let deleted = CacheBackend::delete_many(&backend, &keys).await;
    let mut dead = 0;
    for (i, key) in keys.iter().enumerate() {
        if backend.server_of(key) == first.address() {
            assert!(found[i].as_ref().unwrap().is_some());
            assert!(stored[i].is_ok());
            assert!(*deleted[i].as_ref().unwrap());
        } else {
            dead += 1;
            assert_outage(found[i].as_ref().unwrap_err());
            assert_outage(stored[i].as_ref().unwrap_err());
            assert_outage(deleted[i].as_ref().unwrap_err());
        }
    }
    assert!((100..400).contains(&dead), "{dead}");
    assert_outage(&CacheBackend::ping(&backend).await.unwrap_err());
    second.resume();
    CacheBackend::ping(&backend).await.unwrap();
}

#[tokio::test]
async fn one_value_above_the_servers_own_limit_leaves_the_rest_of_its_batch() {
    let Some(config) = shared() else { return };
    let config = MemcachedConfig {
        max_value_bytes: ByteSize::mib(4),
        ..config
    };
    let backend = backend(&config, &support::clock());
    let keys = many_keys(0..20);
    let mut writes = writes(&keys, &Bytes::from_static(b"v"));
    // Each alone in its batch, and the small ones behind it in the next.
    for large in [5, 11] {
        writes[large].value = Bytes::from(vec![0; 2 << 20]);
    }
    let stored = CacheBackend::set_many(&backend, &writes).await;
    for (i, stored) in stored.iter().enumerate() {
        if [5, 11].contains(&i) {
            let error = stored.as_ref().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TooLarge);
        } else {
            assert!(stored.is_ok(), "{i}: {stored:?}");
            assert!(get(&backend, &keys[i]).await.is_some(), "{i}");
        }
    }
}

#[tokio::test]
async fn many_large_values_asked_for_at_once_do_not_block_the_connection() {
    let Some(config) = shared() else { return };
    let backend = backend(&config, &support::clock());
    // Keys as long as they can be and answers of several megabytes: more than any buffer holds.
    let keys: Vec<Bytes> = (0..600)
        .map(|i| Bytes::from(format!("{i:0>200}")))
        .collect();
    let value = Bytes::from(vec![7; 20_000]);
    let stored = CacheBackend::set_many(&backend, &writes(&keys, &value)).await;
    assert!(stored.iter().all(Result::is_ok));
    for found in CacheBackend::get_many(&backend, &keys).await {
        assert_eq!(found.unwrap().unwrap().bytes, value);
    }
}

#[tokio::test]
async fn a_readable_key_can_be_read_by_any_tool() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let Some(config) = shared() else { return };
    let backend = backend(&config, &support::clock());
    set(&backend, b"users:7", b"value").await.unwrap();
    let mut stream = tokio::net::TcpStream::connect(&config.servers[0])
        .await
        .unwrap();
    let ask = format!("get {}::users:7\r\n", config.key_prefix);
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"END\r\n") {
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0);
    }
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("value\r\n"), "{answer}");
}
