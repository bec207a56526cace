//! Functions that cache what they return, through the public API.
//!
//! Most tests here are named after a fault of the system that this engine is measured against, and
//! show the call that went wrong there: keys made of memory addresses or of nothing at all, a `None`
//! that could not be kept, a producer that never ran. What must not compile is in `ui/`, each file
//! beside the messages it must produce.
#![cfg(feature = "macros")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use askonce::backend::{MemoryBackend, MemoryConfig};
use askonce::clock::{ManualClock, Timestamp};
use askonce::repository::CacheEntity;
use askonce::typed::{CacheValue, Key, Lookup, SyncCache, Ttl};
use askonce::{Cache, cache_invalidate, cache_put, cacheable};
use serde::{Deserialize, Serialize};

fn memory(clock: &Arc<ManualClock>) -> Cache {
    let backend = MemoryBackend::builder(MemoryConfig::default()).clock(Arc::clone(clock) as _);
    let backend = backend.build().expect("the default settings are valid");
    let builder = Cache::builder(Arc::new(backend)).clock(Arc::clone(clock) as _);
    builder.build().expect("the settings are valid")
}

fn clock() -> Arc<ManualClock> {
    ManualClock::starting_at(Timestamp::from_millis(1_790_000_000_000))
}

#[derive(Clone, Debug, Default)]
struct Calls(Arc<AtomicUsize>);

impl Calls {
    /// Counts one and says how many there were before.
    fn next(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst)
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CacheValue)]
#[cache_value(name = "user")]
struct User {
    id: u64,
    name: String,
}

/// An error that cannot be cloned, as most cannot.
#[derive(Debug, PartialEq)]
struct Down;

/// A repository of one tenant over a cache that all tenants share.
struct Users {
    cache: Cache,
    tenant: String,
    calls: Calls,
}

impl Users {
    fn new(cache: &Cache, tenant: &str) -> Self {
        Self {
            cache: cache.clone(),
            tenant: tenant.to_owned(),
            calls: Calls::default(),
        }
    }

    #[cacheable(cache = self.cache, namespace = "users", key = "{self.tenant}:{id}", ttl = "5m")]
    async fn find(&self, id: u64) -> Result<User, Down> {
        self.calls.next();
        if id == 0 {
            return Err(Down);
        }
        Ok(User {
            id,
            name: format!("{} {id}", self.tenant),
        })
    }

    #[cacheable(
        cache = self.cache,
        namespace = "users",
        key(self.tenant, name),
        ttl = "5m",
        negative_ttl = "30s",
    )]
    async fn by_name(&self, name: &str) -> Result<Option<User>, Down> {
        self.calls.next();
        Ok((name == "Ada").then(|| User {
            id: 7,
            name: name.to_owned(),
        }))
    }

    #[cacheable(cache = self.cache, namespace = "users", key(self.tenant, name))]
    async fn email(&self, name: &str) -> Option<String> {
        self.calls.next();
        (name == "Ada").then(|| "ada@example.com".to_owned())
    }

    #[cache_put(cache = self.cache, namespace = "users", of = find, key = "{self.tenant}:{id}", ttl = "5m")]
    async fn rename(&self, id: u64, name: &str) -> Result<User, Down> {
        if name.is_empty() {
            Err(Down)
        } else {
            Ok(User {
                id,
                name: name.to_owned(),
            })
        }
    }

    #[cache_invalidate(cache = self.cache, namespace = "users", of = find, key = "{self.tenant}:{id}")]
    async fn remove(&self, id: u64) -> Result<(), Down> {
        if id == 13 { Err(Down) } else { Ok(()) }
    }

    #[cache_invalidate(cache = self.cache, namespace = "users", of = find, key = "{self.tenant}:{id}", before = true)]
    async fn reset(&self, id: u64) -> Result<(), Down> {
        let _ = id;
        Err(Down)
    }
}

#[tokio::test]
async fn w_16_method_keys_never_use_addresses() {
    let cache = memory(&clock());
    // Short-lived instances reuse addresses; the moved and the boxed one lie elsewhere.
    for tenant in ["a", "b", "c", "a", "b", "c"] {
        let users = Box::new(Users::new(&cache, tenant));
        assert_eq!(users.find(1).await.unwrap().name, format!("{tenant} 1"));
        let moved = *users;
        assert_eq!(moved.find(1).await.unwrap().name, format!("{tenant} 1"));
        assert!(moved.calls.count() <= 1, "an equal instance shares");
    }
}

#[tokio::test]
async fn w_17_two_tenants_never_share() {
    let cache = memory(&clock());
    let (one, two) = (Users::new(&cache, "one"), Users::new(&cache, "two"));
    assert_eq!(one.find(1).await.unwrap().name, "one 1");
    assert_eq!(two.find(1).await.unwrap().name, "two 1");
    assert_eq!((one.calls.count(), two.calls.count()), (1, 1));

    // A text with arguments in it is no place for one to pose as another.
    let (a, b) = (Users::new(&cache, "x:1"), Users::new(&cache, "x"));
    a.find(1).await.unwrap();
    assert_eq!(b.find(11).await.unwrap().name, "x 11");
}

mod here {
    use super::*;

    #[cacheable(cache = cache, key(id))]
    pub(super) async fn place(cache: &Cache, id: u64) -> String {
        format!("here {id}")
    }
}

mod there {
    use super::*;

    #[cacheable(cache = cache, key(id))]
    pub(super) async fn place(cache: &Cache, id: u64) -> String {
        format!("there {id}")
    }
}

#[tokio::test]
async fn w_17_functions_of_one_name_in_two_modules_do_not_meet() {
    let cache = memory(&clock());
    assert_eq!(here::place(&cache, 1).await, "here 1");
    assert_eq!(there::place(&cache, 1).await, "there 1");
}

#[cacheable(cache = cache, key(a, b), ignore(calls))]
async fn sum(cache: &Cache, a: i64, b: Option<i64>, calls: &Calls) -> i64 {
    calls.next();
    a + b.unwrap_or(100)
}

#[tokio::test]
async fn w_19_arguments_are_part_of_the_key() {
    let (cache, calls) = (memory(&clock()), Calls::default());
    for _ in 0..2 {
        assert_eq!(sum(&cache, 1, Some(2), &calls).await, 3);
        assert_eq!(sum(&cache, 2, Some(1), &calls).await, 3);
        assert_eq!(sum(&cache, 1, None, &calls).await, 101);
        assert_eq!(sum(&cache, 1, Some(0), &calls).await, 1);
    }
    assert_eq!(calls.count(), 4);
}

#[tokio::test]
async fn w_21_none_is_cached_only_when_asked_and_for_its_own_time() {
    let clock = clock();
    let users = Users::new(&memory(&clock), "t");
    for _ in 0..3 {
        assert_eq!(users.email("Bob").await, None);
    }
    assert_eq!(
        users.calls.count(),
        3,
        "not asked: each caller runs the body"
    );

    for _ in 0..3 {
        assert_eq!(users.by_name("Bob").await, Ok(None));
    }
    assert_eq!(users.calls.count(), 4, "asked: one does");
    users.by_name("Ada").await.unwrap();
    clock.advance(Duration::from_secs(31));
    users.by_name("Ada").await.unwrap();
    assert_eq!(users.calls.count(), 5, "a value outlives a null");
    users.by_name("Bob").await.unwrap();
    assert_eq!(users.calls.count(), 6, "a null has a life of its own");
}

#[tokio::test]
async fn w_27_a_value_lives_as_long_as_it_says() {
    let clock = clock();
    let users = Users::new(&memory(&clock), "t");
    users.find(1).await.unwrap();
    clock.advance(Duration::from_millis(299_999));
    users.find(1).await.unwrap();
    assert_eq!(users.calls.count(), 1);
    clock.advance(Duration::from_millis(1));
    users.find(1).await.unwrap();
    assert_eq!(users.calls.count(), 2);
}

#[tokio::test]
async fn an_error_is_returned_and_never_cached() {
    let users = Users::new(&memory(&clock()), "t");
    assert_eq!(users.find(0).await, Err(Down));
    assert_eq!(users.find(0).await, Err(Down));
    assert_eq!(users.calls.count(), 2);
}

#[tokio::test]
async fn w_24_protected_and_plain_values_share_one_key() {
    let cache = memory(&clock());
    let users = Users::new(&cache, "t");
    let key = Key::new("users").part("find").part("t").part(":").part(7);
    assert_eq!(cache.get::<User>(&key).await.unwrap(), Lookup::Miss);
    let user = users.find(7).await.unwrap();
    assert_eq!(cache.get(&key).await.unwrap(), Lookup::Hit(user));

    let other = User {
        id: 7,
        name: "by hand".to_owned(),
    };
    cache.set(&key, &other, Ttl::Forever).await.unwrap();
    assert_eq!(users.find(7).await, Ok(other));
    assert!(cache.delete(&key).await.unwrap());
    assert_eq!(users.find(7).await.unwrap().name, "t 7");
}

#[tokio::test]
async fn a_put_stores_what_it_returns_and_leaves_the_value_when_it_fails() {
    let users = Users::new(&memory(&clock()), "t");
    users.find(7).await.unwrap();
    users.rename(7, "Grace").await.unwrap();
    assert_eq!(users.find(7).await.unwrap().name, "Grace");
    assert_eq!(users.rename(7, "").await, Err(Down));
    assert_eq!(users.find(7).await.unwrap().name, "Grace");
    assert_eq!(users.calls.count(), 1);
}

#[tokio::test]
async fn an_invalidation_follows_success_unless_it_comes_before() {
    let users = Users::new(&memory(&clock()), "t");
    for id in [7, 13] {
        users.find(id).await.unwrap();
        let _ = users.remove(id).await;
        users.find(id).await.unwrap();
    }
    assert_eq!(users.calls.count(), 3, "7 was loaded anew, 13 was kept");
    assert_eq!(users.reset(13).await, Err(Down));
    users.find(13).await.unwrap();
    assert_eq!(users.calls.count(), 4);
}

#[cacheable(
    cache = cache,
    key(n),
    ignore(calls),
    ttl = Duration::from_secs(n.into()),
    condition = n != 13,
    unless = |value: &u32| *value > 1_000,
)]
async fn square(cache: Cache, n: u32, calls: Calls) -> u32 {
    calls.next();
    n * n
}

#[tokio::test]
async fn conditions_on_arguments_and_on_values_are_heeded() {
    let clock = clock();
    let (cache, calls) = (memory(&clock), Calls::default());
    let ask = async |n, expected| {
        for _ in 0..2 {
            square(cache.clone(), n, calls.clone()).await;
        }
        assert_eq!(calls.0.swap(0, Ordering::SeqCst), expected, "{n}");
    };
    ask(3, 1).await;
    ask(13, 2).await;
    ask(40, 2).await;
    clock.advance(Duration::from_secs(3));
    ask(3, 1).await;
}

#[cacheable(cache = cache, key(id), ignore(calls))]
async fn question(cache: &Cache, id: u32, calls: &Calls) -> Result<u32, std::num::ParseIntError> {
    calls.next();
    tokio::task::yield_now().await;
    // `?` and an early return are as good as anywhere.
    let number: u32 = "12".parse()?;
    if id == 0 {
        return "no number".parse();
    }
    Ok(number + id)
}

#[cacheable(cache = cache, key(id), ignore(calls))]
async fn unclonable(cache: &Cache, id: u32, calls: &Calls) -> Result<u32, Down> {
    let turn = calls.next();
    tokio::task::yield_now().await;
    if turn < 3 { Err(Down) } else { Ok(id) }
}

#[tokio::test]
async fn errors_are_shared_if_they_can_be_and_taken_in_turn_if_not() {
    let (cache, calls) = (memory(&clock()), Calls::default());
    let five = || (0..5).map(|_| question(&cache, 0, &calls));
    let results = join_all(five()).await;
    assert!(results.iter().all(Result::is_err));
    assert_eq!(calls.count(), 1, "a clone for everybody");

    let (cache, calls) = (memory(&clock()), Calls::default());
    let results = join_all((0..5).map(|_| unclonable(&cache, 7, &calls))).await;
    assert_eq!(results.iter().filter(|result| result.is_err()).count(), 3);
    assert_eq!(
        calls.count(),
        4,
        "three had an error of their own, the fourth a value for the fifth"
    );
}

#[tokio::test]
async fn w_01_a_miss_runs_the_body_once_and_returns_its_value() {
    let (cache, calls) = (memory(&clock()), Calls::default());
    let results = join_all((0..100).map(|_| question(&cache, 5, &calls))).await;
    assert!(results.into_iter().all(|result| result == Ok(17)));
    assert_eq!(calls.count(), 1);
}

#[cacheable(cache = cache, key(id), ignore(value))]
async fn generic<T: CacheValue + Clone>(cache: &Cache, id: u32, value: &T) -> T {
    value.clone()
}

#[tokio::test]
async fn w_20_a_generic_function_never_returns_a_value_of_another_type() {
    let cache = memory(&clock());
    assert_eq!(generic(&cache, 1, &7_u64).await, 7);
    assert_eq!(generic(&cache, 1, &"text".to_owned()).await, "text");
    assert!(generic(&cache, 1, &true).await);
}

#[cacheable(cache = cache, ttl = "forever")]
async fn without_arguments(cache: &Cache) -> u8 {
    1
}

#[tokio::test]
async fn cached_functions_can_be_sent_between_threads() {
    fn sent<T: Send>(value: T) -> T {
        value
    }
    let cache = memory(&clock());
    let users = Users::new(&cache, "t");
    let find = sent(users.find(1));
    let rename = sent(users.rename(1, "x"));
    let remove = sent(users.remove(1));
    let _ = (find.await, rename.await, remove.await);
    assert_eq!(without_arguments(&cache).await, 1);
}

struct Catalog {
    cache: Cache,
    tenant: &'static str,
    calls: Calls,
}

impl Catalog {
    #[cacheable(
        cache = self.cache,
        namespace = "catalog",
        instance = self.tenant,
        key(id),
        tags = ["tenant:{self.tenant}", "item:{id}"],
    )]
    async fn item(&self, id: u64) -> usize {
        let _ = id;
        self.calls.next()
    }

    #[cacheable(cache = self.cache, namespace = "catalog", instance = self.tenant, tags = ["all"])]
    async fn count(&self) -> usize {
        self.calls.next()
    }

    #[cache_invalidate(cache = self.cache, tags = ["item:{id}"])]
    async fn item_changed(&self, id: u64) {}

    #[cache_invalidate(cache = self.cache, tags = ["all", "tenant:{self.tenant}"], only_if_ok = false)]
    async fn tenant_changed(&self) -> Result<(), Down> {
        Err(Down)
    }

    #[cache_invalidate(cache = self.cache, namespace = "catalog", of = item, pattern = "{self.tenant}:*")]
    async fn items_changed(&self) {}

    #[cache_invalidate(cache = self.cache, pattern = "catalog:item:*:{id}")]
    async fn item_changed_everywhere(&self, id: u64) {}

    #[cache_invalidate(cache = self.cache, all)]
    async fn everything_changed(&self) {}
}

#[tokio::test]
async fn w_17_an_instance_is_a_namespace_of_its_own() {
    let (cache, calls) = (memory(&clock()), Calls::default());
    let catalog = |tenant| Catalog {
        cache: cache.clone(),
        tenant,
        calls: calls.clone(),
    };
    let (a, b) = (catalog("a"), catalog("b"));
    assert_eq!((a.item(1).await, b.item(1).await), (0, 1));
    assert_eq!((a.count().await, b.count().await), (2, 3));
    assert_eq!(catalog("a").item(1).await, 0, "an equal instance shares");
    let key = Key::new("catalog").part("item").part("b").part(1);
    assert_eq!(cache.get(&key).await.unwrap(), Lookup::Hit(1_usize));
}

#[tokio::test]
async fn w_72_tags_patterns_and_all_really_invalidate_and_only_what_they_name() {
    let cache = memory(&clock()).namespace("shop");
    let calls = Calls::default();
    let catalog = |tenant| Catalog {
        cache: cache.clone(),
        tenant,
        calls: calls.clone(),
    };
    // A tenant whose name would mean something in a pattern, if it were not written as a value.
    let (a, star) = (catalog("a"), catalog("*"));
    let elsewhere = Key::new("elsewhere");
    cache.set(&elsewhere, &7_u8, Ttl::Forever).await.unwrap();
    let fresh = async || {
        calls.0.store(0, Ordering::SeqCst);
        for catalog in [&a, &star] {
            for id in [1, 2] {
                catalog.item(id).await;
            }
            catalog.count().await;
        }
        calls.count()
    };
    assert_eq!((fresh().await, fresh().await), (6, 0));
    a.item_changed(1).await;
    assert_eq!(fresh().await, 2, "item 1 of both");
    a.tenant_changed().await.unwrap_err();
    assert_eq!(
        fresh().await,
        4,
        "two items of one, and both counts, though it failed"
    );
    star.items_changed().await;
    assert_eq!(fresh().await, 2, "the items of one tenant");
    a.items_changed().await;
    assert_eq!(fresh().await, 2);
    a.item_changed_everywhere(2).await;
    assert_eq!(fresh().await, 2);
    assert!(cache.exists(&elsewhere).await.unwrap());
    a.everything_changed().await;
    assert_eq!(fresh().await, 6);
    assert!(!cache.exists(&elsewhere).await.unwrap());
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CacheValue)]
#[cache_value(name = "refused")]
struct Refused(usize);

#[cacheable(cache = cache, namespace = "quota", key(id), ignore(calls), ttl = "1h", cache_err = "10s")]
async fn quota(cache: &Cache, id: u64, calls: &Calls) -> Result<usize, Refused> {
    let call = calls.next();
    if id == 0 && call < 2 {
        Err(Refused(call))
    } else {
        Ok(call)
    }
}

#[cache_invalidate(cache = cache, namespace = "quota", of = quota, key(id))]
async fn raise_quota(cache: &Cache, id: u64) {}

#[tokio::test]
async fn an_error_is_kept_only_where_it_is_asked_for_and_for_its_own_time() {
    let clock = clock();
    let (cache, calls) = (memory(&clock), Calls::default());
    for _ in 0..3 {
        assert_eq!(quota(&cache, 0, &calls).await, Err(Refused(0)));
    }
    clock.advance(Duration::from_secs(10));
    assert_eq!(quota(&cache, 0, &calls).await, Err(Refused(1)));
    // Whoever invalidates the value invalidates the error.
    raise_quota(&cache, 0).await;
    for _ in 0..2 {
        assert_eq!(quota(&cache, 0, &calls).await, Ok(2));
        clock.advance(Duration::from_secs(60));
    }
    assert_eq!(quota(&cache, 1, &calls).await, Ok(3));
}

#[cacheable(cache = cache, key(id), ignore(calls), ttl = "1m", stale_if_error = "1h", jitter = 0.0, sync)]
async fn rate(cache: &Cache, id: u64, calls: &Calls) -> Result<usize, Down> {
    match calls.next() {
        0 => Ok(7),
        _ => Err(Down),
    }
}

#[tokio::test]
async fn an_old_value_stands_in_for_an_error_where_that_is_asked_for() {
    let clock = clock();
    let (cache, calls) = (memory(&clock), Calls::default());
    assert_eq!(rate(&cache, 1, &calls).await, Ok(7));
    clock.advance(Duration::from_secs(600));
    assert_eq!(rate(&cache, 1, &calls).await, Ok(7));
    assert_eq!(calls.count(), 2, "asked, and failed");
    clock.advance(Duration::from_secs(3600));
    assert_eq!(rate(&cache, 1, &calls).await, Err(Down));
}

/// Not async: over a cache in this process.
struct Parser {
    cache: SyncCache,
    calls: Calls,
}

impl Parser {
    #[cacheable(cache = self.cache, namespace = "parser", key(text), ignore(self), negative_ttl = "1m", tags = ["parsed"])]
    fn parse(&self, text: &str) -> Result<Option<u64>, std::num::ParseIntError> {
        self.calls.next();
        if text.is_empty() {
            return Ok(None);
        }
        Ok(Some(text.parse()?))
    }

    #[cache_put(cache = self.cache, namespace = "parser", of = parse, key(text))]
    fn define(&self, text: &str, value: u64) -> Option<u64> {
        (value > 0).then_some(value)
    }

    #[cache_invalidate(cache = self.cache, namespace = "parser", of = parse, key(text))]
    fn forget(&self, text: &str) {}

    #[cache_invalidate(cache = self.cache, tags = ["parsed"], before)]
    fn forget_all(&self) {}
}

fn parser() -> Parser {
    Parser {
        cache: SyncCache::new(memory(&clock())).expect("memory is in this process"),
        calls: Calls::default(),
    }
}

fn use_a_parser() {
    let parser = parser();
    for _ in 0..2 {
        assert_eq!(parser.parse("12"), Ok(Some(12)));
        assert_eq!(parser.parse(""), Ok(None));
    }
    assert_eq!(parser.calls.count(), 2);
    for _ in 0..2 {
        assert!(parser.parse("x").is_err());
    }
    assert_eq!(parser.calls.count(), 4);
    parser.define("12", 13);
    assert_eq!(parser.parse("12"), Ok(Some(13)));
    parser.define("12", 0);
    assert_eq!(
        parser.parse("12"),
        Ok(Some(12)),
        "out of date, and nothing in its place"
    );
    parser.forget("12");
    assert_eq!(
        (parser.parse("12"), parser.calls.count()),
        (Ok(Some(12)), 6)
    );
    parser.forget_all();
    assert_eq!(
        (parser.parse("12"), parser.calls.count()),
        (Ok(Some(12)), 7)
    );
}

#[test]
fn w_47_a_function_that_is_not_async_is_cached_outside_of_a_runtime() {
    use_a_parser();
}

#[tokio::test]
async fn w_47_a_function_that_is_not_async_is_cached_within_a_runtime_of_one_thread() {
    use_a_parser();
    tokio::task::spawn_blocking(use_a_parser).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w_47_a_function_that_is_not_async_is_cached_within_a_runtime_of_several_threads() {
    tokio::spawn(async { use_a_parser() }).await.unwrap();
}

#[cacheable(cache = cache, key(id), ignore(calls, meet))]
fn slow(cache: &SyncCache, id: u64, calls: &Calls, meet: &Barrier) -> Result<usize, String> {
    let call = calls.next();
    meet.wait();
    // Time for the others to come and wait.
    std::thread::sleep(Duration::from_millis(50));
    if id == 0 {
        Err(format!("call {call}"))
    } else {
        Ok(call)
    }
}

#[test]
fn w_46_threads_that_ask_at_once_share_one_call_and_its_error() {
    for (id, expected) in [(1, Ok(0)), (0, Err("call 0".to_owned()))] {
        let (cache, calls) = (parser().cache, Calls::default());
        let meet = Barrier::new(2);
        std::thread::scope(|scope| {
            let leader = scope.spawn(|| slow(&cache, id, &calls, &meet));
            meet.wait();
            let others: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| slow(&cache, id, &calls, &meet)))
                .collect();
            assert_eq!(leader.join().unwrap(), expected);
            for other in others {
                assert_eq!(other.join().unwrap(), expected);
            }
        });
        assert_eq!(calls.count(), 1);
    }
}

#[tokio::test]
async fn a_function_that_is_not_async_never_waits_for_an_async_load() {
    let cache = parser().cache;
    let key = Key::new("user").part(7);
    let loading = cache.as_async().get_or_set(&key, Ttl::Forever, || async {
        // This very thread is needed for the load to go on.
        assert_eq!(cache.get_or_set(&key, Ttl::Forever, || 1_u8), 1);
        2_u8
    });
    assert_eq!(loading.await, 2);
    assert_eq!(cache.get(&key).unwrap(), Lookup::Hit(2_u8));
    // Nor for itself.
    let other = Key::new("other");
    let outer = cache.get_or_set(&other, Ttl::Forever, || {
        cache.get_or_set(&other, Ttl::Forever, || 3_u8) + 1
    });
    assert_eq!(outer, 4);
    assert!(cache.delete(&other).unwrap());
    cache.set(&other, &5_u8, Ttl::Forever).unwrap();
    assert_eq!(cache.get(&other).unwrap(), Lookup::Hit(5_u8));
}

#[test]
fn a_panic_in_a_function_that_is_not_async_is_its_own_callers() {
    let (cache, key) = (parser().cache, Key::new("user"));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        cache.get_or_set::<u8>(&key, Ttl::Forever, || panic!("a bug"))
    }));
    assert!(panicked.is_err());
    assert_eq!(cache.get_or_set(&key, Ttl::Forever, || 1_u8), 1);
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CacheEntity)]
#[cache_entity(
    name = "invoice",
    version = 3,
    key = "number",
    ttl = "1h",
    list_ttl = "forever"
)]
struct Invoice {
    number: String,
    cents: u64,
}

#[test]
fn an_entity_says_its_name_its_id_and_how_long_it_is_kept() {
    let invoice = Invoice {
        number: "7/26".to_owned(),
        cents: 100,
    };
    assert_eq!(
        (Invoice::NAME, Invoice::schema().as_ref()),
        ("invoice", "invoice@3")
    );
    assert_eq!(invoice.id(), "7/26");
    assert_eq!(Invoice::ttl(), Ttl::For(Duration::from_secs(3600)));
    assert_eq!(
        (Invoice::negative_ttl(), Invoice::list_ttl()),
        (None, Ttl::Forever)
    );
}

/// Drives futures of one kind together.
async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut pending = false;
        for (future, output) in futures.iter_mut().filter(|(_, output)| output.is_none()) {
            match future.as_mut().poll(context) {
                std::task::Poll::Ready(value) => *output = Some(value),
                std::task::Poll::Pending => pending = true,
            }
        }
        if pending {
            std::task::Poll::Pending
        } else {
            std::task::Poll::Ready(())
        }
    })
    .await;
    futures
        .into_iter()
        .filter_map(|(_, output)| output)
        .collect()
}

#[test]
fn w_18_what_has_no_declared_identity_cannot_be_in_a_key() {
    trybuild::TestCases::new().compile_fail("tests/macros/ui/w_18/*.rs");
}

#[test]
fn mistakes_are_named_where_they_stand() {
    trybuild::TestCases::new().compile_fail("tests/macros/ui/*.rs");
}
