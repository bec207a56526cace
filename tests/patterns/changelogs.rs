//! One test for each fault in the change logs of other caches and their clients.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use askonce::backend::{
    BackendHandle, ByteSize, CacheBackend, Cursor, Glob, MemoryBackend, MemoryConfig, RemovalCause,
};
use askonce::clock::{Clock, ManualClock};
use askonce::tier::{TierConfig, TieredBackend};
use askonce::typed::{Cache, Key, Lookup, SetOptions};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn memory(clock: &Arc<ManualClock>) -> Arc<MemoryBackend> {
    let builder = MemoryBackend::builder(MemoryConfig::default()).clock(Arc::clone(clock) as _);
    Arc::new(builder.build().expect("the default settings are valid"))
}

/// A memory tier over `far`, that hears of changes by the far tier's feed.
fn tiers(clock: &Arc<ManualClock>, far: BackendHandle) -> Arc<TieredBackend> {
    let config = TierConfig {
        feed_wait: Duration::from_millis(20),
        feed_lag: DAY,
        ..TierConfig::default()
    };
    let builder = TieredBackend::builder(memory(clock), far).clock(Arc::clone(clock) as _);
    Arc::new(
        builder
            .config(config)
            .build()
            .expect("the settings are valid"),
    )
}

#[cfg(feature = "redis")]
fn redis(clock: &Arc<ManualClock>) -> Option<BackendHandle> {
    let config = crate::support::server::RedisServer::shared()?.config();
    let builder = askonce::backend::RedisBackend::builder(config).clock(Arc::clone(clock) as _);
    Some(Arc::new(builder.build().expect("the settings are valid")))
}

#[cfg(feature = "memcached")]
fn memcached(clock: &Arc<ManualClock>) -> Option<BackendHandle> {
    let config = crate::memcached::shared()?;
    let builder = askonce::backend::MemcachedBackend::builder(config).clock(Arc::clone(clock) as _);
    Some(Arc::new(builder.build().expect("the settings are valid")))
}

/// A backend of each kind whose server is there.
fn stores(clock: &Arc<ManualClock>) -> Vec<BackendHandle> {
    let stores: Vec<Option<BackendHandle>> = vec![
        Some(memory(clock)),
        Some(tiers(clock, memory(clock))),
        #[cfg(feature = "redis")]
        redis(clock),
        #[cfg(feature = "memcached")]
        memcached(clock),
    ];
    stores.into_iter().flatten().collect()
}

fn cache(backend: BackendHandle, clock: &Arc<ManualClock>) -> Cache {
    let builder = Cache::builder(backend).clock(Arc::clone(clock) as _);
    builder
        .namespace("app")
        .build()
        .expect("the settings are valid")
}

fn key() -> Key {
    Key::new("key")
}

/// An old value served for an error was stored again as if it were new, over what another writer had
/// stored meanwhile.
#[tokio::test]
async fn an_old_value_that_stands_in_for_an_error_is_not_written_back_over_a_newer_one() {
    let clock = crate::support::clock();
    let cache = cache(memory(&clock), &clock);
    let stale = SetOptions::new(MINUTE).stale_for(10 * MINUTE);
    cache.set(&key(), &1_u8, stale).await.unwrap();
    clock.advance(2 * MINUTE);
    let failing = || async {
        // In the midst of the load somebody stores a new value.
        cache.set(&key(), &2_u8, MINUTE).await.unwrap();
        Err::<u8, _>("the source is down")
    };
    let load = cache.load(&key()).ttl(MINUTE).stale_if_error(10 * MINUTE);
    let given = load.run(failing).await;
    assert_eq!(given, Ok(1), "what it had, in place of an error");
    assert_eq!(cache.get(&key()).await.unwrap(), Lookup::Hit(2_u8));

    // Without another writer it stays as old as it was.
    let stale = SetOptions::new(MINUTE).stale_for(10 * MINUTE);
    cache.set(&key(), &3_u8, stale).await.unwrap();
    clock.advance(2 * MINUTE);
    let load = cache.load(&key()).ttl(MINUTE).stale_if_error(10 * MINUTE);
    let given = load
        .run(|| async { Err::<u8, _>("the source is down") })
        .await;
    assert_eq!(given, Ok(3));
    assert_eq!(cache.get(&key()).await.unwrap(), Lookup::Stale(3_u8));
}

/// `a:b` with nothing after it was the key of `a` with `b` after it.
#[tokio::test]
async fn parts_of_a_key_never_run_into_each_other() {
    let clock = crate::support::clock();
    let keys = [
        Key::new("a:b"),
        Key::new("a").part("b"),
        Key::new("a:b").part(""),
        Key::new("a").part("b").part(""),
        Key::new("a").part("b:"),
        Key::new("a/b"),
        Key::new("a").part(("b", "")),
        Key::new(vec!["a", "b"]),
        Key::new("a%3Ab"),
        Key::new("a").part("1"),
        Key::new("a").part(1),
    ];
    for backend in stores(&clock) {
        let tier = backend.name().to_owned();
        let cache = cache(backend, &clock);
        for (number, key) in (0_u64..).zip(&keys) {
            cache.set(key, &number, MINUTE).await.unwrap();
        }
        // As a part of a namespace, too.
        let inner = cache.namespace("a");
        inner.set(&Key::new("b"), &100_u64, MINUTE).await.unwrap();
        for (number, key) in (0_u64..).zip(&keys) {
            assert_eq!(cache.get(key).await.unwrap(), Lookup::Hit(number), "{tier}");
        }
    }
}

/// One key that is no UTF-8 made every later clear fail.
#[tokio::test]
async fn a_key_that_is_no_text_is_listed_and_cleared_like_any_other() {
    let clock = crate::support::clock();
    let names: [&'static [u8]; 4] = [b"\xff\xfe", b"", b"\0\r\n ", b"plain"];
    for backend in stores(&clock) {
        let tier = backend.name().to_owned();
        for name in names {
            backend.set(name, Bytes::from("v"), None).await.unwrap();
        }
        if backend.capability().lists_keys {
            let page = backend.scan(&Glob::new("*"), Cursor::default(), 100).await;
            let listed: BTreeSet<_> = page.unwrap().keys.into_iter().collect();
            let names = names.map(Bytes::from_static);
            assert_eq!(listed, BTreeSet::from(names), "{tier}");
            assert_eq!(backend.delete_matching(&Glob::new("*")).await.unwrap(), 4);
            backend.set(b"\xff", Bytes::from("v"), None).await.unwrap();
        }
        backend.clear().await.unwrap();
        for name in names.into_iter().chain([&b"\xff"[..]]) {
            assert_eq!(backend.get(name).await.unwrap(), None, "{tier}");
        }
    }
}

/// A stored file that was cut or had a flipped bit was a panic, and the cache of no more use.
#[tokio::test]
async fn damaged_bytes_are_an_error_and_then_a_load_and_never_a_panic() {
    let clock = crate::support::clock();
    let store = memory(&clock);
    let cache = cache(store.clone(), &clock);
    let text = "a value of some length".repeat(3);
    cache.set(&key(), &text, MINUTE).await.unwrap();
    let name = b"app/key";
    let held = CacheBackend::get(&*store, name).await.unwrap();
    let whole = held.expect("it lies under its readable name").bytes;
    let mut damaged: Vec<Vec<u8>> = (0..whole.len()).map(|end| whole[..end].to_vec()).collect();
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        damaged.push(bytes);
    }
    for bytes in damaged {
        let set = CacheBackend::set(&*store, name, bytes.clone().into(), None);
        set.await.unwrap();
        // Never another value. A miss is right where the flipped bit says that it is none.
        match cache.get::<String>(&key()).await {
            Err(error) => assert_eq!(error.kind(), askonce::ErrorKind::Corrupt),
            Ok(found) => assert_eq!(found, Lookup::Miss, "{} bytes", bytes.len()),
        }
        let loaded = cache
            .get_or_set(&key(), MINUTE, || async { text.clone() })
            .await;
        assert_eq!(loaded, text);
        assert_eq!(cache.get(&key()).await.unwrap(), Lookup::Hit(text.clone()));
    }
}

/// The callback of evictions was called for entries that stayed.
#[tokio::test]
async fn whoever_is_told_of_a_removal_finds_it_gone_and_of_nothing_else() {
    let clock = crate::support::clock();
    let told: Arc<Mutex<HashMap<Vec<u8>, Vec<RemovalCause>>>> = Arc::default();
    let config = MemoryConfig {
        max_bytes: ByteSize::mib(1),
        ..MemoryConfig::default()
    };
    let noted = Arc::clone(&told);
    let store = MemoryBackend::builder(config)
        .clock(Arc::clone(&clock) as _)
        .on_removal(move |key, cause| noted.lock().entry(key.to_vec()).or_default().push(cause))
        .build()
        .unwrap();
    for number in 0..3_000_u32 {
        let (name, value) = (number.to_le_bytes(), Bytes::from(vec![0; 500]));
        store.set(&name, value, None).await.unwrap();
    }
    store.usage().await.unwrap();
    let evicted = told.lock().clone();
    assert!(!evicted.is_empty() && evicted.len() < 3_000);
    for number in 0..3_000_u32 {
        let name = number.to_le_bytes();
        let held = store.get(&name).await.unwrap();
        let causes = evicted.get(&name[..]).map(Vec::as_slice);
        match held {
            Some(_) => assert_eq!(causes, None, "{number} stayed"),
            None => assert_eq!(
                causes,
                Some(&[RemovalCause::Evicted][..]),
                "{number} is gone"
            ),
        }
    }
}

/// Reading a value whose own life was over made it live again.
#[tokio::test]
async fn reading_never_prolongs_a_life() {
    let clock = crate::support::clock();
    for backend in stores(&clock) {
        let tier = backend.name().to_owned();
        let cache = cache(backend.clone(), &clock);
        cache.set(&key(), &1_u8, MINUTE).await.unwrap();
        let expires = Some(clock.now().after(MINUTE));
        backend
            .set(b"raw", Bytes::from("v"), expires)
            .await
            .unwrap();
        for _ in 0..59 {
            clock.advance(Duration::from_secs(1));
            assert_eq!(
                cache.get(&key()).await.unwrap(),
                Lookup::Hit(1_u8),
                "{tier}"
            );
            let held = backend.get(b"raw").await.unwrap().expect("it is alive");
            assert_eq!(held.expires, expires, "{tier}");
        }
        clock.advance(Duration::from_secs(1));
        for _ in 0..3 {
            assert_eq!(
                cache.get::<u8>(&key()).await.unwrap(),
                Lookup::Miss,
                "{tier}"
            );
            assert_eq!(backend.get(b"raw").await.unwrap(), None, "{tier}");
        }
    }
}

/// Of two who computed a new value from an old one, one was forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_change_that_is_computed_from_what_was_there_is_lost() {
    let clock = crate::support::clock();
    for backend in stores(&clock) {
        if !backend.capability().conditional_writes {
            println!("SKIPPED: {} has no conditional writes", backend.name());
            continue;
        }
        let tier = backend.name().to_owned();
        let processes = [cache(backend.clone(), &clock), cache(backend, &clock)];
        let tasks: Vec<_> = (0..8)
            .map(|task| {
                let cache = processes[task % 2].clone();
                tokio::spawn(async move {
                    for _ in 0..10 {
                        cache
                            .increment(&Key::new("count"), 1, MINUTE)
                            .await
                            .unwrap();
                        loop {
                            let key = key();
                            let versioned = cache.get_versioned::<Vec<u64>>(&key).await;
                            let (found, version) = versioned.unwrap();
                            let mut list = found.hit().unwrap_or_default();
                            list.push(task as u64);
                            let set = cache.compare_and_set(&key, &version, &list, MINUTE);
                            if set.await.unwrap() {
                                break;
                            }
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let count = processes[0].get(&Key::new("count")).await.unwrap();
        assert_eq!(count, Lookup::Hit(80_i64), "{tier}");
        let list = processes[1].get::<Vec<u64>>(&key()).await.unwrap().hit();
        assert_eq!(list.map(|list| list.len()), Some(80), "{tier}");
    }
}

/// A load whose key was invalidated on the way was given to callers who asked after that, or kept.
#[tokio::test]
async fn a_load_whose_key_is_invalidated_on_the_way_is_for_those_who_asked_before() {
    let clock = crate::support::clock();
    let cache = cache(memory(&clock), &clock);
    let (began, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let ask = |value: u8| {
        let (cache, began, go_on) = (cache.clone(), began.clone(), go_on.clone());
        tokio::spawn(async move {
            let loader = || async {
                began.notify_one();
                go_on.notified().await;
                value
            };
            cache.get_or_set(&key(), MINUTE, loader).await
        })
    };
    let first = ask(1);
    began.notified().await;
    let follower = ask(10);
    tokio::task::yield_now().await;
    cache.delete(&key()).await.unwrap();
    let second = ask(2);
    // Though the first is still running, this one does not wait for it.
    began.notified().await;
    go_on.notify_waiters();
    assert_eq!(first.await.unwrap(), 1);
    assert_eq!(follower.await.unwrap(), 1);
    assert_eq!(second.await.unwrap(), 2);
    assert_eq!(cache.get(&key()).await.unwrap(), Lookup::Hit(2_u8));
}

/// A refresh in the background was cancelled with the request that had caused it.
#[tokio::test]
async fn a_refresh_does_not_end_with_the_caller_who_began_it() {
    let clock = crate::support::clock();
    let cache = cache(memory(&clock), &clock);
    let stale = SetOptions::new(MINUTE).stale_for(10 * MINUTE);
    cache.set(&key(), &1_u8, stale).await.unwrap();
    clock.advance(2 * MINUTE);
    let (began, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let caller = {
        let (cache, began, go_on) = (cache.clone(), began.clone(), go_on.clone());
        tokio::spawn(async move {
            let load = cache.load(&key()).ttl(MINUTE).detached();
            let load = load.stale_while_revalidate(10 * MINUTE);
            let given: u8 = load
                .run(move || async move {
                    began.notify_one();
                    go_on.notified().await;
                    2_u8
                })
                .await
                .unwrap();
            assert_eq!(given, 1);
            std::future::pending::<()>().await;
        })
    };
    began.notified().await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    go_on.notify_one();
    eventually("the refresh has ended", || async {
        cache.get::<u8>(&key()).await.unwrap() == Lookup::Hit(2)
    })
    .await;
}

/// The near tier of a namespace was not told what the far tier's other users did.
#[tokio::test]
async fn every_namespace_of_a_stack_of_tiers_hears_of_changes() {
    let clock = crate::support::clock();
    let store = memory(&clock);
    let (one, two) = (tiers(&clock, store.clone()), tiers(&clock, store));
    for stack in [&one, &two] {
        let _ = stack.ping().await;
        eventually("the near tier is trusted", || async {
            stack.coherence() == askonce::tier::Coherence::Trusted
        })
        .await;
    }
    let spaces = |cache: &Cache| {
        [
            cache.clone(),
            cache.namespace("b"),
            cache.namespace(("c", 1)),
        ]
    };
    let (one, two) = (spaces(&cache(one, &clock)), spaces(&cache(two, &clock)));
    for (one, two) in one.iter().zip(&two) {
        one.set(&key(), &1_u8, MINUTE).await.unwrap();
        // Now the second process has a copy.
        assert_eq!(two.get(&key()).await.unwrap(), Lookup::Hit(1_u8));
        one.set(&key(), &2_u8, MINUTE).await.unwrap();
        eventually("the change is heard of", || async {
            two.get::<u8>(&key()).await.unwrap() == Lookup::Hit(2)
        })
        .await;
        one.clear().await.unwrap();
        eventually("the clear is heard of", || async {
            two.get::<u8>(&key()).await.unwrap() == Lookup::Miss
        })
        .await;
    }
}

/// A request for keys of several slots of a cluster was refused as a whole.
#[cfg(feature = "redis")]
#[tokio::test]
async fn keys_of_all_slots_of_a_cluster_go_in_one_batch() {
    use askonce::backend::Write;
    let Some(cluster) = crate::support::server::RedisCluster::start() else {
        return;
    };
    let builder = askonce::backend::RedisBackend::builder(cluster.config());
    let backend: BackendHandle = Arc::new(builder.build().unwrap());
    let keys: Vec<_> = (0..200)
        .map(|number| Bytes::from(format!("key:{number}")))
        .collect();
    let writes: Vec<_> = keys
        .iter()
        .map(|key| Write {
            key: key.clone(),
            value: key.clone(),
            expires: None,
        })
        .collect();
    for set in backend.set_many(&writes).await {
        set.unwrap();
    }
    for (key, held) in keys.iter().zip(backend.get_many(&keys).await) {
        assert_eq!(held.unwrap().map(|held| held.bytes).as_ref(), Some(key));
    }
    let deleted = backend.delete_many(&keys[..150]).await;
    assert!(deleted.into_iter().all(|deleted| deleted.unwrap()));
    assert_eq!(
        backend.delete_matching(&Glob::new("key:*")).await.unwrap(),
        50
    );
}

/// The sum of one kind of counter, by its label.
#[derive(Default)]
struct Counted(Arc<Mutex<HashMap<String, Arc<AtomicU64>>>>);

impl metrics::Recorder for Counted {
    fn describe_counter(
        &self,
        _: metrics::KeyName,
        _: Option<metrics::Unit>,
        _: metrics::SharedString,
    ) {
    }
    fn describe_gauge(
        &self,
        _: metrics::KeyName,
        _: Option<metrics::Unit>,
        _: metrics::SharedString,
    ) {
    }
    fn describe_histogram(
        &self,
        _: metrics::KeyName,
        _: Option<metrics::Unit>,
        _: metrics::SharedString,
    ) {
    }
    fn register_counter(&self, key: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Counter {
        let mut name = key.name().to_owned();
        for label in key.labels() {
            name += &format!(" {}={}", label.key(), label.value());
        }
        let counter = Arc::clone(self.0.lock().entry(name).or_default());
        metrics::Counter::from_arc(counter)
    }
    fn register_gauge(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Gauge {
        metrics::Gauge::noop()
    }
    fn register_histogram(
        &self,
        _: &metrics::Key,
        _: &metrics::Metadata<'_>,
    ) -> metrics::Histogram {
        metrics::Histogram::noop()
    }
}

/// A lookup with a loader counted a miss when it looked, and another when it loaded.
#[test]
fn a_lookup_with_a_loader_is_counted_once() {
    let counted = Counted::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    metrics::with_local_recorder(&counted, || {
        runtime.block_on(async {
            let clock = crate::support::clock();
            let cache = cache(memory(&clock), &clock);
            for _ in 0..3 {
                cache.get_or_set(&key(), MINUTE, || async { 1_u8 }).await;
            }
        });
    });
    let counts = counted.0.lock();
    let loads: BTreeSet<_> = counts
        .iter()
        .filter(|(name, _)| name.starts_with("askonce_typed_loads"))
        .map(|(name, count)| {
            let outcome = name.rsplit('=').next().unwrap_or_default();
            (outcome.to_owned(), count.load(Ordering::SeqCst))
        })
        .collect();
    assert_eq!(
        loads,
        BTreeSet::from([("hit".to_owned(), 2), ("loaded".to_owned(), 1)])
    );
}

/// The same in the semantic cache, which looks into several tiers and the index.
#[tokio::test]
async fn a_lookup_with_an_upstream_call_is_counted_once() {
    use askonce::{Answer, Fill};
    let clock = crate::support::clock();
    let cache = crate::support::builder(&clock).build().await.unwrap();
    for _ in 0..3 {
        let call = || async { Ok::<_, askonce::Error>(Fill::from(Answer::text("answer"))) };
        cache
            .get_or_call(&crate::support::ask("a question"), call)
            .await
            .unwrap();
    }
    let stats = cache.stats().await;
    assert_eq!(
        (stats.misses, stats.hits_exact, stats.hits_semantic),
        (1, 2, 0)
    );
    assert_eq!(
        (stats.upstream_ok, stats.miss_reasons.values().sum()),
        (1, 1_u64)
    );
}

/// A key that held the end of a line was a command of its own.
#[tokio::test]
async fn a_key_is_never_a_command() {
    let clock = crate::support::clock();
    for backend in stores(&clock) {
        let tier = backend.name().to_owned();
        backend
            .set(b"victim", Bytes::from("alive"), None)
            .await
            .unwrap();
        let attacks = [
            "x\r\ndelete victim\r\n",
            "x\r\nflush_all\r\nmg victim",
            "x\r\n*1\r\n$8\r\nFLUSHALL\r\n",
            "x victim 0 0 0",
            "{victim}",
            "victim\0",
        ];
        let cache = cache(backend.clone(), &clock);
        for attack in attacks {
            let value = Bytes::from(format!("{attack}\r\nflush_all\r\n"));
            let name = attack.as_bytes();
            backend.set(name, value.clone(), None).await.unwrap();
            let held = backend.get(name).await.unwrap().map(|held| held.bytes);
            assert_eq!(held, Some(value), "{tier}");
            assert!(backend.delete(name).await.unwrap(), "{tier}");
            // As a part of a key, a namespace and a tag.
            let space = cache.namespace(attack);
            let tagged = SetOptions::new(MINUTE).tags([attack]);
            let key = Key::new(attack);
            space.set(&key, &attack.to_owned(), tagged).await.unwrap();
            let found = space.get(&key).await.unwrap();
            assert_eq!(found, Lookup::Hit(attack.to_owned()), "{tier}");
            space.invalidate_tag(attack).await.unwrap();
            assert_eq!(
                space.get::<String>(&key).await.unwrap(),
                Lookup::Miss,
                "{tier}"
            );
            let victim = backend.get(b"victim").await.unwrap().map(|held| held.bytes);
            assert_eq!(victim.as_deref(), Some(&b"alive"[..]), "{tier}: {attack:?}");
        }
    }
}

/// The reply to a request whose caller had gone away was read as the reply to the next.
#[tokio::test]
async fn the_reply_to_a_cancelled_request_is_nobody_elses() {
    let clock = crate::support::clock();
    for backend in stores(&clock) {
        let tier = backend.name().to_owned();
        let name = |number: u64| format!("key:{number}");
        for number in 0..20_u64 {
            let value = Bytes::from(number.to_string().repeat(2_000));
            backend
                .set(name(number).as_bytes(), value, None)
                .await
                .unwrap();
        }
        for round in 0..60_u64 {
            let (backend_of_task, asked) = (Arc::clone(&backend), name(round % 20));
            let task = tokio::spawn(async move {
                let _ = backend_of_task.get(asked.as_bytes()).await;
            });
            // After more and more time: before it is sent, while it is on its way, when it is back.
            for _ in 0..round % 7 {
                tokio::task::yield_now().await;
            }
            tokio::time::sleep(Duration::from_micros(round * 20)).await;
            task.abort();
            let other = (round + 7) % 20;
            let held = backend
                .get(name(other).as_bytes())
                .await
                .unwrap()
                .expect("it is there");
            assert_eq!(
                held.bytes,
                other.to_string().repeat(2_000).as_bytes(),
                "{tier}: {round}"
            );
        }
    }
}

/// White space at the end of a value was taken for the end of the line, and cut off.
#[tokio::test]
async fn values_keep_their_first_and_last_bytes() {
    let clock = crate::support::clock();
    let values: [&'static [u8]; 6] = [b" ", b"\r\n", b"a \t\r\n", b"\n a", b"\0", b"END\r\n"];
    for backend in stores(&clock) {
        for value in values {
            let value = Bytes::from_static(value);
            backend.set(b"key", value.clone(), None).await.unwrap();
            let held = backend.get(b"key").await.unwrap().map(|held| held.bytes);
            assert_eq!(held, Some(value), "{}", backend.name());
        }
    }
}

/// memcached takes a life of more than thirty days for a date of 1970: such values were dead at once.
#[tokio::test]
async fn a_life_of_more_than_thirty_days_is_no_date_of_1970() {
    let clock = crate::support::clock();
    for backend in stores(&clock) {
        let tier = backend.name().to_owned();
        let cache = cache(backend, &clock);
        for days in [29, 30, 31, 365, 40 * 365] {
            cache.set(&key(), &days, days * DAY).await.unwrap();
            assert_eq!(
                cache.get(&key()).await.unwrap(),
                Lookup::Hit(days),
                "{tier}, {days} days"
            );
        }
    }
}

/// A cache whose store fails in any way, as a program sees it: the fault layer's schedule is seeded.
#[cfg(feature = "test-support")]
#[tokio::test(start_paused = true)]
async fn a_store_that_fails_by_any_schedule_gives_no_wrong_value_and_no_error_to_those_who_load() {
    use std::sync::atomic::{AtomicBool, AtomicUsize};

    use askonce::fault::{FaultLayer, FaultPlan};
    for seed in 0..20 {
        let clock = crate::support::clock();
        let faulty = Arc::new(FaultLayer::new(memory(&clock), seed));
        faulty.set_plan(FaultPlan {
            errors: 0.1,
            lost_answers: 0.1,
            lost_writes: 0.1,
            garbage: 0.1,
            delay: Duration::ZERO..=Duration::from_millis(3),
            ..FaultPlan::default()
        });
        let cache = cache(faulty.clone(), &clock);
        let loads = Arc::new(AtomicUsize::new(0));
        let wrong = Arc::new(AtomicBool::new(false));
        let tasks: Vec<_> = (0..8_u64)
            .map(|task| {
                let (cache, loads, wrong) = (cache.clone(), loads.clone(), wrong.clone());
                tokio::spawn(async move {
                    for round in 0..30 {
                        let number = (task + round) % 5;
                        let key = Key::new("square").part(number);
                        let loaded = cache.get_or_set(&key, MINUTE, || async {
                            loads.fetch_add(1, Ordering::SeqCst);
                            number * number
                        });
                        wrong.fetch_or(loaded.await != number * number, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert!(!wrong.load(Ordering::SeqCst), "seed {seed}");
        let loads = loads.load(Ordering::SeqCst);
        assert!(
            faulty.injected() > 0 && (5..240).contains(&loads),
            "seed {seed}: {loads}"
        );
    }
}

/// Waits until something is so. The bound is for a machine that hangs.
async fn eventually<F: Future<Output = bool>>(what: &str, so: impl Fn() -> F) {
    for _ in 0..20_000 {
        if so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("waited in vain until {what}");
}
