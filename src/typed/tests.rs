//! The typed cache against a clock that is told the time and backends that misbehave.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use proptest::prelude::*;
use tokio::sync::Notify;

use bytes::Bytes;

use super::*;
use crate::backend::{
    BackendUsage, CacheBackend, Capability, Condition, Cursor, Glob, KeyPage, MemoryBackend,
    MemoryConfig, StoredValue, Write,
};
use crate::clock::{Clock, ManualClock};

/// A memory backend that counts, and fails on command.
#[derive(Debug)]
struct Store {
    memory: MemoryBackend,
    failing: AtomicBool,
    writes: AtomicUsize,
    batches: AtomicUsize,
}

impl Store {
    fn check(&self) -> Result<()> {
        if self.failing.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::BackendUnavailable, "told to fail").retryable());
        }
        Ok(())
    }
}

impl CacheBackend for Store {
    fn name(&self) -> &str {
        "store"
    }

    fn capability(&self) -> Capability {
        CacheBackend::capability(&self.memory)
    }

    async fn get(&self, key: &[u8]) -> Result<Option<StoredValue>> {
        self.check()?;
        CacheBackend::get(&self.memory, key).await
    }

    async fn set(&self, key: &[u8], value: Bytes, expires: Option<Timestamp>) -> Result<()> {
        self.check()?;
        self.writes.fetch_add(1, Ordering::SeqCst);
        CacheBackend::set(&self.memory, key, value, expires).await
    }

    async fn delete(&self, key: &[u8]) -> Result<bool> {
        self.check()?;
        CacheBackend::delete(&self.memory, key).await
    }

    async fn clear(&self) -> Result<()> {
        self.check()?;
        CacheBackend::clear(&self.memory).await
    }

    async fn usage(&self) -> Result<BackendUsage> {
        CacheBackend::usage(&self.memory).await
    }

    async fn get_many(&self, keys: &[Bytes]) -> Vec<Result<Option<StoredValue>>> {
        self.batches.fetch_add(1, Ordering::SeqCst);
        let mut found = Vec::new();
        for key in keys {
            found.push(CacheBackend::get(self, key).await);
        }
        found
    }

    async fn set_many(&self, writes: &[Write]) -> Vec<Result<()>> {
        self.batches.fetch_add(1, Ordering::SeqCst);
        let mut stored = Vec::new();
        for write in writes {
            stored.push(
                CacheBackend::set(self, &write.key, write.value.clone(), write.expires).await,
            );
        }
        stored
    }

    async fn set_if(
        &self,
        key: &[u8],
        value: Bytes,
        expires: Option<Timestamp>,
        condition: Condition<'_>,
    ) -> Result<bool> {
        self.check()?;
        CacheBackend::set_if(&self.memory, key, value, expires, condition).await
    }

    async fn delete_if(&self, key: &[u8], expected: &[u8]) -> Result<bool> {
        self.check()?;
        CacheBackend::delete_if(&self.memory, key, expected).await
    }

    async fn scan(&self, pattern: &Glob, cursor: Cursor, limit: usize) -> Result<KeyPage> {
        self.check()?;
        CacheBackend::scan(&self.memory, pattern, cursor, limit).await
    }
}

struct Fixture {
    cache: Cache,
    clock: Arc<ManualClock>,
    store: Arc<Store>,
}

fn fixture() -> Fixture {
    let clock = ManualClock::starting_at(Timestamp::from_millis(1_790_000_000_000));
    let memory = MemoryBackend::builder(MemoryConfig::default()).clock(Arc::clone(&clock) as _);
    let store = Arc::new(Store {
        memory: memory.build().unwrap(),
        failing: AtomicBool::new(false),
        writes: AtomicUsize::new(0),
        batches: AtomicUsize::new(0),
    });
    let cache = Cache::builder(Arc::clone(&store) as _).clock(Arc::clone(&clock) as _);
    Fixture {
        cache: cache.build().unwrap(),
        clock,
        store,
    }
}

fn key() -> Key {
    Key::new("key").part(1)
}

const MINUTE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Point {
    x: u8,
}

impl CacheValue for Point {
    fn schema() -> std::borrow::Cow<'static, str> {
        "point@1".into()
    }
}

/// The same fields under another name.
#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Pixel {
    x: u8,
}

impl CacheValue for Pixel {
    fn schema() -> std::borrow::Cow<'static, str> {
        "pixel@1".into()
    }
}

// ---- what is stored and found ----

#[tokio::test]
async fn a_value_a_null_a_miss_and_a_failure_are_four_things() {
    let Fixture { cache, store, .. } = fixture();
    assert_eq!(cache.get::<u8>(&key()).await.unwrap(), Lookup::Miss);
    assert!(!cache.exists(&key()).await.unwrap());
    cache.set_null(&key(), MINUTE).await.unwrap();
    assert_eq!(cache.get::<u8>(&key()).await.unwrap(), Lookup::Null);
    assert!(cache.exists(&key()).await.unwrap());
    cache.set(&key(), &0_u8, MINUTE).await.unwrap();
    assert_eq!(cache.get::<u8>(&key()).await.unwrap(), Lookup::Hit(0));
    store.failing.store(true, Ordering::SeqCst);
    let error = cache.get::<u8>(&key()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BackendUnavailable);
}

#[tokio::test]
async fn w_04_delete_and_exists_tell_the_truth() {
    let Fixture { cache, store, .. } = fixture();
    assert!(!cache.delete(&key()).await.unwrap());
    cache.set(&key(), &1_u8, MINUTE).await.unwrap();
    assert!(cache.exists(&key()).await.unwrap());
    assert!(cache.delete(&key()).await.unwrap());
    assert!(!cache.exists(&key()).await.unwrap());
    store.failing.store(true, Ordering::SeqCst);
    assert!(cache.exists(&key()).await.is_err());
    assert!(cache.delete(&key()).await.is_err());
    assert!(cache.set(&key(), &1_u8, MINUTE).await.is_err());
}

#[tokio::test]
async fn w_03_a_batch_answers_for_each_key() {
    let Fixture { cache, .. } = fixture();
    let keys: Vec<_> = (0..4).map(Key::new).collect();
    let values = [(keys[0].clone(), 10_u8), (keys[2].clone(), 12)];
    assert!(
        cache
            .set_many(&values, MINUTE)
            .await
            .iter()
            .all(Result::is_ok)
    );
    cache
        .set(&keys[3], &"no number".to_owned(), MINUTE)
        .await
        .unwrap();
    let found = cache.get_many::<u8>(&keys).await;
    let found: Vec<_> = found
        .into_iter()
        .map(|found| found.map_err(|e| e.kind()))
        .collect();
    let expected = [
        Ok(Lookup::Hit(10)),
        Ok(Lookup::Miss),
        Ok(Lookup::Hit(12)),
        Err(ErrorKind::Corrupt),
    ];
    assert_eq!(found, expected);
    let deleted = cache.delete_many(&keys).await;
    let deleted: Vec<_> = deleted.into_iter().map(Result::unwrap).collect();
    assert_eq!(deleted, [true, false, true, true]);
}

#[tokio::test]
async fn w_20_values_keep_their_types() {
    async fn same<T: CacheValue + PartialEq + fmt::Debug>(cache: &Cache, value: T) {
        cache.set(&key(), &value, MINUTE).await.unwrap();
        assert_eq!(cache.get::<T>(&key()).await.unwrap(), Lookup::Hit(value));
    }
    let Fixture { cache, .. } = fixture();
    same(&cache, (1_u8, "tuple".to_owned())).await;
    same(&cache, std::collections::BTreeSet::from([3, 1])).await;
    same(&cache, Bytes::from_static(&[0, 255])).await;
    same(&cache, HashMap::from([(7_u32, 'x')])).await;
    same(&cache, Duration::new(1, 1)).await;
    same(&cache, u128::MAX).await;
    same(&cache, i128::MIN).await;
    same(&cache, u64::MAX).await;
    same(&cache, false).await;
    same(&cache, "false".to_owned()).await;
    same(&cache, f64::INFINITY).await;
    same(
        &cache,
        serde_json::json!({ "null": null, "list": [1, 2.5, "x"] }),
    )
    .await;
    cache.set(&key(), &f64::NAN, MINUTE).await.unwrap();
    assert!(
        cache
            .get::<f64>(&key())
            .await
            .unwrap()
            .hit()
            .unwrap()
            .is_nan()
    );
    assert_eq!(
        cache.get::<bool>(&key()).await.unwrap_err().kind(),
        ErrorKind::Corrupt
    );
}

#[tokio::test]
async fn a_value_is_not_read_as_a_type_that_looks_the_same() {
    let Fixture { cache, .. } = fixture();
    cache.set(&key(), &Point { x: 7 }, MINUTE).await.unwrap();
    let error = cache.get::<Pixel>(&key()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(
        error
            .to_string()
            .contains("stored: point@1, asked: pixel@1"),
        "{error}"
    );
    assert!(
        cache.exists(&key()).await.unwrap(),
        "it is another's value, not rubbish"
    );
}

#[tokio::test]
async fn w_22_no_value_is_taken_for_bookkeeping() {
    let Fixture { cache, .. } = fixture();
    let sly = serde_json::json!([1, "point@1", { "x": 7 }]);
    cache.set(&key(), &sly, MINUTE).await.unwrap();
    assert_eq!(cache.get(&key()).await.unwrap(), Lookup::Hit(sly));
    assert!(cache.get::<Point>(&key()).await.is_err());
    let nested = vec![0_u8];
    cache.set(&key(), &nested, MINUTE).await.unwrap();
    assert_eq!(cache.get(&key()).await.unwrap(), Lookup::Hit(nested));
}

#[tokio::test]
async fn w_23_namespaces_never_share() {
    let Fixture {
        cache,
        clock,
        store,
    } = fixture();
    let named = |name: &'static str| {
        let cache = Cache::builder(Arc::clone(&store) as _).clock(Arc::clone(&clock) as _);
        cache.namespace(name).build().unwrap()
    };
    let users = named("users");
    let spaces = [
        cache.clone(),
        users,
        cache.namespace("flags"),
        cache.namespace("flag").namespace("s"),
    ];
    for (at, space) in spaces.iter().enumerate() {
        assert_eq!(space.get::<usize>(&key()).await.unwrap(), Lookup::Miss);
        space.set(&key(), &at, MINUTE).await.unwrap();
    }
    for (at, space) in spaces.iter().enumerate() {
        assert_eq!(space.get(&key()).await.unwrap(), Lookup::Hit(at));
    }
    assert_eq!(
        named("flags").get(&key()).await.unwrap(),
        Lookup::Hit(2_usize),
        "by another handle too"
    );
}

// ---- how long it lives ----

#[tokio::test]
async fn w_27_a_life_is_none_or_more_than_zero() {
    let Fixture {
        cache,
        clock,
        store,
    } = fixture();
    for ttl in [Ttl::For(Duration::ZERO), Ttl::from(Some(Duration::ZERO))] {
        let error = cache.set(&key(), &1_u8, ttl).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert_eq!(
            cache.set_null(&key(), ttl).await.unwrap_err().kind(),
            ErrorKind::InvalidRequest
        );
    }
    assert!(
        Cache::builder(Arc::clone(&store) as _)
            .default_ttl(Duration::ZERO)
            .build()
            .is_err()
    );

    cache
        .set(&key(), &1_u8, Duration::from_millis(250))
        .await
        .unwrap();
    clock.advance(Duration::from_millis(249));
    assert_eq!(cache.get(&key()).await.unwrap(), Lookup::Hit(1_u8));
    clock.advance(Duration::from_millis(1));
    assert_eq!(cache.get::<u8>(&key()).await.unwrap(), Lookup::Miss);
    assert!(!cache.delete(&key()).await.unwrap());

    cache
        .set(&key(), &1_u8, Duration::from_nanos(1))
        .await
        .unwrap();
    assert!(
        cache.exists(&key()).await.unwrap(),
        "a short life is not none"
    );

    cache.set(&key(), &1_u8, None).await.unwrap();
    clock.advance(Duration::from_secs(1_000_000_000));
    assert!(cache.exists(&key()).await.unwrap());
}

#[tokio::test]
async fn the_default_life_is_the_builders() {
    let Fixture { clock, store, .. } = fixture();
    let cache = Cache::builder(store)
        .clock(Arc::clone(&clock) as _)
        .default_ttl(MINUTE);
    let cache = cache.build().unwrap();
    cache
        .set(&Key::new("a"), &1_u8, Ttl::Default)
        .await
        .unwrap();
    cache
        .set(&Key::new("b"), &1_u8, Ttl::Forever)
        .await
        .unwrap();
    clock.advance(MINUTE);
    assert!(!cache.exists(&Key::new("a")).await.unwrap());
    assert!(cache.exists(&Key::new("b")).await.unwrap());
}

#[tokio::test]
async fn a_backend_that_returns_the_dead_is_not_believed() {
    let Fixture {
        cache,
        clock,
        store,
    } = fixture();
    // The backend's clock stays behind.
    let ahead = ManualClock::starting_at(clock.now().after(2 * MINUTE));
    cache.set(&key(), &1_u8, MINUTE).await.unwrap();
    let later = Cache::builder(store).clock(ahead).build().unwrap();
    assert_eq!(later.get::<u8>(&key()).await.unwrap(), Lookup::Miss);
    assert!(!later.exists(&key()).await.unwrap());
}

// ---- loads ----

#[tokio::test]
async fn w_01_a_miss_runs_the_producer_once_and_returns_its_value() {
    let Fixture { cache, .. } = fixture();
    let calls = AtomicUsize::new(0);
    for _ in 0..3 {
        let value = cache
            .get_or_set(&key(), MINUTE, || async {
                calls.fetch_add(1, Ordering::SeqCst);
                42_u8
            })
            .await;
        assert_eq!(value, 42);
    }
    assert_eq!(calls.into_inner(), 1);
}

#[tokio::test]
async fn w_13_a_hundred_callers_make_one_load() {
    let Fixture { cache, .. } = fixture();
    let (calls, release) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let callers: Vec<_> = (0..100)
        .map(|_| {
            let (cache, calls, release) = (cache.clone(), calls.clone(), release.clone());
            tokio::spawn(async move {
                let load = || async {
                    calls.fetch_add(1, Ordering::SeqCst);
                    release.notified().await;
                    Point { x: 9 }
                };
                cache.get_or_set(&key(), MINUTE, load).await
            })
        })
        .collect();
    settle().await;
    release.notify_one();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), Point { x: 9 });
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert_eq!(format!("{:?}", cache.inner.gates), "Gates { busy: 0 }");
}

#[tokio::test]
async fn an_error_is_shared_and_not_cached() {
    let Fixture { cache, store, .. } = fixture();
    let calls = AtomicUsize::new(0);
    let load = || async {
        let call = calls.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        Err::<u8, _>(format!("failure {call}"))
    };
    let key = key();
    let one = cache.get_or_try_set(&key, MINUTE, load);
    let two = cache.get_or_try_set(&key, MINUTE, load);
    let (one, two) = tokio::join!(one, two);
    assert_eq!(
        (one.unwrap_err(), two.unwrap_err()),
        ("failure 0".into(), "failure 0".into())
    );
    let later = cache.get_or_try_set(&key, MINUTE, load).await;
    assert_eq!(later.unwrap_err(), "failure 1");
    assert_eq!(store.writes.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn waiters_survive_a_cancelled_leader() {
    let Fixture { cache, .. } = fixture();
    let leader = tokio::spawn({
        let cache = cache.clone();
        async move {
            cache
                .get_or_set(&key(), MINUTE, std::future::pending::<u8>)
                .await
        }
    });
    settle().await;
    let calls = Arc::new(AtomicUsize::new(0));
    let waiters: Vec<_> = (0..20)
        .map(|_| {
            let (cache, calls) = (cache.clone(), calls.clone());
            let load = || async move {
                calls.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                5_u8
            };
            tokio::spawn(async move { cache.get_or_set(&key(), MINUTE, load).await })
        })
        .collect();
    settle().await;
    leader.abort();
    for waiter in waiters {
        assert_eq!(waiter.await.unwrap(), 5);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_panic_reaches_its_own_caller_only() {
    let Fixture { cache, .. } = fixture();
    let release = Arc::new(Notify::new());
    let leader = tokio::spawn({
        let (cache, release) = (cache.clone(), release.clone());
        let load = || async move {
            release.notified().await;
            panic!("the loader fails hard")
        };
        async move { cache.get_or_set::<u8, _, _>(&key(), MINUTE, load).await }
    });
    settle().await;
    let waiter = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get_or_set(&key(), MINUTE, || async { 3_u8 }).await }
    });
    settle().await;
    release.notify_one();
    let panic = leader.await.unwrap_err().into_panic();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"the loader fails hard"));
    assert_eq!(waiter.await.unwrap(), 3);
}

#[tokio::test]
async fn a_failing_backend_never_takes_the_caller_down() {
    let Fixture { cache, store, .. } = fixture();
    store.failing.store(true, Ordering::SeqCst);
    for call in 0..3_u8 {
        assert_eq!(
            cache.get_or_set(&key(), MINUTE, || async { call }).await,
            call
        );
    }
    store.failing.store(false, Ordering::SeqCst);
    assert_eq!(cache.get_or_set(&key(), MINUTE, || async { 7_u8 }).await, 7);
    assert_eq!(cache.get(&key()).await.unwrap(), Lookup::Hit(7_u8));
}

#[tokio::test]
async fn what_cannot_be_used_is_loaded_anew_and_replaced() {
    let Fixture { cache, store, .. } = fixture();
    cache.set(&key(), &Point { x: 1 }, MINUTE).await.unwrap();
    assert_eq!(
        cache
            .get_or_set(&key(), MINUTE, || async { Pixel { x: 2 } })
            .await,
        Pixel { x: 2 }
    );
    assert_eq!(
        cache.get(&key()).await.unwrap(),
        Lookup::Hit(Pixel { x: 2 })
    );

    let rubbish = Bytes::from_static(b"rubbish");
    CacheBackend::set(&*store, &cache.place(&key()).name, rubbish, None)
        .await
        .unwrap();
    assert_eq!(
        cache.get::<u8>(&key()).await.unwrap_err().kind(),
        ErrorKind::Corrupt
    );
    assert_eq!(cache.get_or_set(&key(), MINUTE, || async { 3_u8 }).await, 3);
    assert_eq!(cache.get(&key()).await.unwrap(), Lookup::Hit(3_u8));
}

#[tokio::test]
async fn callers_of_two_types_under_one_key_each_get_their_own() {
    let Fixture { cache, .. } = fixture();
    let key = key();
    let point = cache.get_or_set(&key, MINUTE, || async {
        tokio::task::yield_now().await;
        Point { x: 1 }
    });
    let pixel = cache.get_or_set(&key, MINUTE, || async { Pixel { x: 2 } });
    assert_eq!(tokio::join!(point, pixel), (Point { x: 1 }, Pixel { x: 2 }));
}

#[tokio::test]
async fn w_21_none_is_cached_only_when_asked_and_for_its_own_time() {
    let Fixture { cache, clock, .. } = fixture();
    let calls = AtomicUsize::new(0);
    let load = || async {
        calls.fetch_add(1, Ordering::SeqCst);
        Ok::<Option<u8>, String>(None)
    };
    for _ in 0..2 {
        assert_eq!(cache.load(&key()).ttl(MINUTE).run(load).await, Ok(None));
    }
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    for _ in 0..2 {
        let load = cache
            .load(&key())
            .ttl(10 * MINUTE)
            .negative_ttl(MINUTE)
            .run(load);
        assert_eq!(load.await, Ok(None));
    }
    assert_eq!(calls.load(Ordering::SeqCst), 3);
    clock.advance(MINUTE);
    assert_eq!(cache.get::<u8>(&key()).await.unwrap(), Lookup::Miss);

    cache.set_null(&key(), MINUTE).await.unwrap();
    assert_eq!(
        cache.get_or_set(&key(), MINUTE, || async { 4_u8 }).await,
        4,
        "null is no number"
    );
}

#[tokio::test]
async fn a_zero_life_is_refused_but_the_caller_gets_its_value() {
    let Fixture { cache, store, .. } = fixture();
    assert_eq!(
        cache
            .get_or_set(&key(), Duration::ZERO, || async { 4_u8 })
            .await,
        4
    );
    assert_eq!(store.writes.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn w_26_a_write_during_a_load_wins() {
    for by_delete in [true, false] {
        let Fixture { cache, .. } = fixture();
        let release = Arc::new(Notify::new());
        let early = tokio::spawn({
            let (cache, release) = (cache.clone(), release.clone());
            let load = || async move {
                release.notified().await;
                1_u8
            };
            async move { cache.get_or_set(&key(), MINUTE, load).await }
        });
        settle().await;
        if by_delete {
            cache.delete(&key()).await.unwrap();
            let late = cache.get_or_set(&key(), MINUTE, || async { 2_u8 }).await;
            assert_eq!(late, 2, "not given what was loaded before the delete");
        } else {
            cache.set(&key(), &2_u8, MINUTE).await.unwrap();
        }
        release.notify_one();
        assert_eq!(early.await.unwrap(), 1, "asked before the write");
        assert_eq!(cache.get(&key()).await.unwrap(), Lookup::Hit(2_u8));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn loads_and_writes_on_many_threads_leave_nothing_behind() {
    let Fixture { cache, .. } = fixture();
    let tasks: Vec<_> = (0..8_u64)
        .map(|task| {
            let cache = cache.clone();
            tokio::spawn(async move {
                for turn in 0..500_u64 {
                    let key = Key::new(turn % 3);
                    if (turn + task).is_multiple_of(5) {
                        cache.delete(&key).await.unwrap();
                    }
                    let load = || async {
                        tokio::task::yield_now().await;
                        turn % 3
                    };
                    assert_eq!(cache.get_or_set(&key, MINUTE, load).await, turn % 3);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(format!("{:?}", cache.inner.gates), "Gates { busy: 0 }");
    assert_eq!(cache.inner.loads.running(), 0);
}

async fn settle() {
    for _ in 0..300 {
        tokio::task::yield_now().await;
    }
}

// ---- against a map ----

#[derive(Clone, Debug)]
enum Op {
    Set(u8, u16, Option<u64>),
    SetNull(u8, Option<u64>),
    Delete(u8),
    Load(u8, Option<u16>, u64),
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let life = || prop::option::of(1_u64..500);
    prop_oneof![
        (0_u8..4, any::<u16>(), life()).prop_map(|(key, value, life)| Op::Set(key, value, life)),
        (0_u8..4, life()).prop_map(|(key, life)| Op::SetNull(key, life)),
        (0_u8..4).prop_map(Op::Delete),
        (0_u8..4, any::<Option<u16>>(), 1_u64..500)
            .prop_map(|(key, value, life)| Op::Load(key, value, life)),
        (1_u64..300).prop_map(Op::Wait),
    ]
}

proptest! {
    #[test]
    fn the_cache_is_a_map_with_lives(ops in prop::collection::vec(op(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let Fixture { cache, clock, .. } = fixture();
            let mut map: HashMap<u8, (Option<u16>, Option<u64>)> = HashMap::new();
            let mut now = 0_u64;
            for op in ops {
                map.retain(|_, (_, dies)| dies.is_none_or(|dies| now < dies));
                let life = |life: Option<u64>| Ttl::from(life.map(Duration::from_millis));
                match op {
                    Op::Set(key, value, lives) => {
                        cache.set(&Key::new(key), &value, life(lives)).await.unwrap();
                        map.insert(key, (Some(value), lives.map(|lives| now + lives)));
                    }
                    Op::SetNull(key, lives) => {
                        cache.set_null(&Key::new(key), life(lives)).await.unwrap();
                        map.insert(key, (None, lives.map(|lives| now + lives)));
                    }
                    Op::Delete(key) => {
                        let had = map.remove(&key).is_some();
                        prop_assert_eq!(cache.delete(&Key::new(key)).await.unwrap(), had);
                    }
                    Op::Load(key, value, lives) => {
                        let load = cache.load(&Key::new(key)).ttl(life(Some(lives))).negative_ttl(None);
                        let loaded = load.run(|| async { value }).await;
                        let dies = value.map(|_| now + lives);
                        prop_assert_eq!(loaded, map.entry(key).or_insert((value, dies)).0);
                    }
                    Op::Wait(millis) => {
                        clock.advance(Duration::from_millis(millis));
                        now += millis;
                        map.retain(|_, (_, dies)| dies.is_none_or(|dies| now < dies));
                    }
                }
                for key in 0..4 {
                    let found = cache.get::<u16>(&Key::new(key)).await.unwrap().known();
                    prop_assert_eq!(found, map.get(&key).map(|(value, _)| *value));
                }
            }
            Ok(())
        })?;
    }
}
