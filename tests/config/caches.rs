//! Named caches do what their settings say.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use askonce::backend::{
    BackendContext, BackendFactory, BackendHandle, BackendRegistry, BackendUsage, BoxFuture,
    CacheBackend, Capability, Condition, CustomConfig, MemoryBackend, MemoryConfig, StoredValue,
};
use askonce::clock::{Clock, Timestamp};
use askonce::lock::LockOptions;
use askonce::typed::{Key, Lookup, Remaining, Ttl};
use askonce::{
    Answer, Caches, Config, ErrorKind, MissReason, Outcome, Request, Result, Scope, SemanticCache,
    StoreOptions, StoreOutcome,
};
use bytes::Bytes;

use super::support::clock;

fn config(json: &str) -> Config {
    serde_json::from_str(json).unwrap()
}

async fn caches(json: &str) -> Caches {
    Caches::from_config(&config(json)).await.unwrap()
}

fn key(name: &str) -> Key {
    Key::new("test").part(name)
}

fn text(text: &str) -> String {
    text.to_owned()
}

/// A memory backend outside this process, as far as it says, that counts and obeys.
#[derive(Debug, Default)]
struct Far {
    pings: AtomicUsize,
    closed: AtomicUsize,
    reads: AtomicUsize,
    hangs: AtomicUsize,
}

#[derive(Debug)]
struct FarBackend {
    store: MemoryBackend,
    name: String,
    told: Arc<Far>,
}

impl CacheBackend for FarBackend {
    fn name(&self) -> &str {
        &self.name
    }
    fn capability(&self) -> Capability {
        let mut capability = CacheBackend::capability(&self.store);
        capability.in_process = false;
        capability
    }
    async fn get(&self, key: &[u8]) -> Result<Option<StoredValue>> {
        self.told.reads.fetch_add(1, Ordering::SeqCst);
        CacheBackend::get(&self.store, key).await
    }
    async fn set(&self, key: &[u8], value: Bytes, expires: Option<Timestamp>) -> Result<()> {
        CacheBackend::set(&self.store, key, value, expires).await
    }
    async fn set_if(
        &self,
        key: &[u8],
        value: Bytes,
        expires: Option<Timestamp>,
        condition: Condition<'_>,
    ) -> Result<bool> {
        CacheBackend::set_if(&self.store, key, value, expires, condition).await
    }
    async fn delete_if(&self, key: &[u8], expected: &[u8]) -> Result<bool> {
        CacheBackend::delete_if(&self.store, key, expected).await
    }
    async fn delete(&self, key: &[u8]) -> Result<bool> {
        CacheBackend::delete(&self.store, key).await
    }
    async fn clear(&self) -> Result<()> {
        CacheBackend::clear(&self.store).await
    }
    async fn usage(&self) -> Result<BackendUsage> {
        CacheBackend::usage(&self.store).await
    }
    async fn ping(&self) -> Result<()> {
        self.told.pings.fetch_add(1, Ordering::SeqCst);
        if self.told.hangs.load(Ordering::SeqCst) > 0 {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
    async fn close(&self) {
        self.told.closed.fetch_add(1, Ordering::SeqCst);
    }
}

#[derive(Debug, Default)]
struct FarFactory(Arc<Far>);

impl BackendFactory for FarFactory {
    fn build<'a>(
        &'a self,
        config: &'a CustomConfig,
        context: &'a BackendContext,
    ) -> BoxFuture<'a, Result<BackendHandle>> {
        Box::pin(async move {
            let store = MemoryBackend::builder(MemoryConfig::default());
            let built = FarBackend {
                store: store.clock(context.clock()).build()?,
                name: config.name().to_owned(),
                told: Arc::clone(&self.0),
            };
            Ok(Arc::new(built) as BackendHandle)
        })
    }
}

/// The caches of a configuration that may use the type `far`, and what its backends are asked.
async fn with_far(json: &str) -> (Caches, Arc<Far>, Arc<askonce::clock::ManualClock>) {
    let (told, clock) = (Arc::<Far>::default(), clock());
    let registry = BackendRegistry::default();
    let registry = registry
        .register("far", FarFactory(Arc::clone(&told)))
        .unwrap();
    let caches = Caches::builder()
        .config(&config(json))
        .registry(registry)
        .clock(Arc::clone(&clock) as _)
        .build();
    (caches.await.unwrap(), told, clock)
}

#[tokio::test]
async fn w_10_a_named_cache_is_that_of_its_backend() {
    let caches = caches(r#"{"backends": [{"type": "memory", "name": "a"}, {"type": "memory", "name": "b", "default": true}]}"#).await;
    assert_eq!(caches.names(), ["a", "b"]);
    let (a, b) = (caches.cache("a").unwrap(), caches.cache("b").unwrap());
    a.set(&key("k"), &text("of a"), Ttl::Default).await.unwrap();
    assert_eq!(b.get::<String>(&key("k")).await.unwrap(), Lookup::Miss);
    b.set(&key("k"), &text("of b"), Ttl::Default).await.unwrap();
    assert_eq!(a.get(&key("k")).await.unwrap(), Lookup::Hit(text("of a")));
    let default = caches.default_cache();
    assert_eq!(
        default.get(&key("k")).await.unwrap(),
        Lookup::Hit(text("of b"))
    );
    for (name, values) in [("a", 1), ("b", 1)] {
        let backend = caches.backend(name).unwrap();
        let usage = CacheBackend::usage(&*backend).await.unwrap();
        assert_eq!(usage.entries, values, "{name}");
    }
    let error = caches.cache("c").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(
        error.to_string().contains("value: c, allowed: a, b"),
        "{error}"
    );
    assert!(caches.locks("c").is_err() && caches.backend("").is_err());
}

#[tokio::test]
async fn w_14_a_configuration_that_says_nothing_gives_memory() {
    for caches in [
        Caches::in_memory().unwrap(),
        Caches::from_config(&Config::default()).await.unwrap(),
        Caches::from_config(&config("{}")).await.unwrap(),
    ] {
        assert_eq!(caches.names(), ["memory"]);
        let cache = caches.default_cache();
        let key = key("k");
        let value = cache.get_or_set(&key, Ttl::Default, || async { text("v") });
        assert_eq!(value.await, "v");
        assert_eq!(cache.get(&key).await.unwrap(), Lookup::Hit(text("v")));
        assert!(caches.health().await.healthy);
    }
}

#[tokio::test]
async fn w_66_the_default_is_the_one_that_is_named_then_marked_then_the_first_enabled() {
    let backends = r#"[
        {"type": "memory", "name": "off", "enabled": false},
        {"type": "memory", "name": "a"},
        {"type": "memory", "name": "b" MARK}]"#;
    for (mark, service, expected) in [
        ("", "{}", "a"),
        (r#", "default": true"#, "{}", "b"),
        (r#", "default": true"#, r#"{"default_backend": "a"}"#, "a"),
    ] {
        let backends = backends.replace("MARK", mark);
        let json = format!(r#"{{"backends": {backends}, "service": {service}}}"#);
        let caches = Caches::from_config(&config(&json)).await.unwrap();
        assert_eq!(caches.names(), ["a", "b"]);
        caches
            .default_cache()
            .set(&key("k"), &1_u8, Ttl::Default)
            .await
            .unwrap();
        let expected = caches.cache(expected).unwrap();
        assert!(expected.exists(&key("k")).await.unwrap());
    }
    for name in ["off", "nobody"] {
        let backends = backends.replace("MARK", "");
        let json =
            format!(r#"{{"backends": {backends}, "service": {{"default_backend": "{name}"}}}}"#);
        let error = config(&json).validate().unwrap_err().to_string();
        assert!(error.contains("field: service.default_backend"), "{error}");
        assert!(error.contains("allowed: a, b"), "{error}");
    }
}

#[tokio::test]
async fn w_66_a_cache_that_is_switched_off_keeps_nothing_and_fails_nowhere() {
    let off = config(
        r#"{"enabled": false, "backends": [{"type": "memory", "name": "a"},
            {"type": "memory", "name": "b"}, {"type": "memory", "name": "c"},
            {"type": "tiered", "name": "both", "near": "b", "far": "c"}]}"#,
    );
    let caches = Caches::from_config(&off).await.unwrap();
    assert_eq!(caches.names(), ["a", "both"]);
    for name in caches.names() {
        let cache = caches.cache(name).unwrap();
        cache.set(&key("k"), &1_u8, Ttl::Default).await.unwrap();
        assert_eq!(cache.get::<u8>(&key("k")).await.unwrap(), Lookup::Miss);
        let tagged = askonce::typed::SetOptions::new(Ttl::Default).tags(["t"]);
        cache.set(&key("k"), &1_u8, tagged).await.unwrap();
        cache.invalidate_tag("t").await.unwrap();
        assert!(cache.add(&key("k"), &1_u8, Ttl::Default).await.unwrap());
        assert!(!cache.delete(&key("k")).await.unwrap());
        assert_eq!(cache.delete_pattern("*").await.unwrap(), 0);
        cache.clear().await.unwrap();
        let space = cache.namespace("space");
        for expected in 1..=3_u8 {
            let loads = AtomicUsize::new(usize::from(expected) - 1);
            let load = || async { loads.fetch_add(1, Ordering::SeqCst) as u8 + 1 };
            assert_eq!(space.load(&key("n")).tags(["t"]).run(load).await, expected);
        }
        space.clear().await.unwrap();
        let locks = caches.locks(name).unwrap();
        assert!(locks.acquire("x", LockOptions::default()).await.is_err());
    }
    assert!(caches.health().await.healthy);

    let cache = SemanticCache::builder().config(&off).build().await.unwrap();
    let request = Request::prompt("who?").model("m").scope(Scope::tenant("t"));
    let stored = cache
        .store(&request, Answer::text("me"), StoreOptions::default())
        .await;
    assert!(
        matches!(stored, StoreOutcome::NotStored { .. }),
        "{stored:?}"
    );
    let Outcome::Miss(miss) = cache.lookup(&request).await else {
        panic!("a hit");
    };
    assert_eq!(miss.reasons, [MissReason::Disabled]);
    assert_eq!(cache.stats().await.entries, 0);
}

#[tokio::test]
async fn each_backend_has_its_own_time_to_live() {
    let (caches, _, clock) = with_far(
        r#"{"default_ttl": "1h", "backends": [{"type": "memory", "name": "a"},
            {"type": "far", "name": "b", "default_ttl": "10s"}]}"#,
    )
    .await;
    for (name, seconds) in [("a", 3_600), ("b", 10)] {
        let cache = caches.cache(name).unwrap();
        cache.set(&key("k"), &1_u8, Ttl::Default).await.unwrap();
        let left = cache.ttl(&key("k")).await.unwrap();
        assert_eq!(
            left,
            Some(Remaining::For(Duration::from_secs(seconds))),
            "{name}"
        );
    }
    clock.advance(Duration::from_secs(11));
    assert!(!caches.cache("b").unwrap().exists(&key("k")).await.unwrap());
}

#[tokio::test]
async fn protection_is_one_load_and_without_it_each_caller_has_its_own() {
    for (service, expected) in [("{}", 1), (r#"{"enable_protection": false}"#, 5)] {
        let caches = caches(&format!(r#"{{"service": {service}}}"#)).await;
        let cache = caches.default_cache();
        let loads = AtomicUsize::new(0);
        let barrier = tokio::sync::Semaphore::new(0);
        let load = || async {
            loads.fetch_add(1, Ordering::SeqCst);
            let _ = barrier.acquire().await.unwrap();
            7_u8
        };
        let key = key("k");
        let calls = (0..5).map(|_| cache.get_or_set(&key, Ttl::Default, load));
        let all = futures_util::future::join_all(calls);
        let open = async {
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            barrier.add_permits(5);
        };
        let (values, ()) = tokio::join!(all, open);
        assert_eq!(values, [7; 5]);
        assert_eq!(loads.load(Ordering::SeqCst), expected, "{service}");
    }
}

/// Two processes, as far as the store can tell: two caches over one backend.
#[tokio::test(start_paused = true)]
async fn protection_spans_processes_for_as_long_as_it_says() {
    for (wait, follower_waits) in [("10", true), ("0", false)] {
        let json = format!(
            r#"{{"backends": [{{"type": "far"}}], "service": {{"protection_max_wait": "{wait}s",
                "protection_lock_ttl": "60s", "protection_retry_interval": "1s"}}}}"#
        );
        let (caches, told, _) = with_far(&json).await;
        let first = caches.cache("far").unwrap();
        let second = askonce::Cache::builder(caches.backend("far").unwrap());
        let second = second
            .clock(clock())
            .lease(
                askonce::typed::LeaseOptions::new()
                    .wait(
                        (wait != "0")
                            .then_some(Duration::from_secs(10))
                            .or(Some(Duration::ZERO)),
                    )
                    .poll(Duration::from_secs(1)),
            )
            .build()
            .unwrap();
        let key = key("k");
        let leads = first.get_or_set(&key, Duration::from_secs(60), || async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            1_u8
        });
        let follows = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let before = told.reads.load(Ordering::SeqCst);
            let value = second
                .get_or_set(&key, Duration::from_secs(60), || async { 2_u8 })
                .await;
            (value, told.reads.load(Ordering::SeqCst) - before)
        };
        let (led, (followed, looks)) = tokio::join!(leads, follows);
        assert_eq!(led, 1);
        assert_eq!(followed, if follower_waits { 1 } else { 2 });
        // Pauses of a second, not of ten milliseconds.
        assert!(looks < 12, "{looks}");
    }
}

#[tokio::test]
async fn a_stack_is_made_of_two_others_and_takes_their_place() {
    let (caches, told, _) = with_far(
        r#"{"backends": [{"type": "memory", "name": "l1"}, {"type": "far", "name": "l2"},
            {"type": "tiered", "name": "both", "near": "l1", "far": "l2", "near_ttl": "5s", "default": true}]}"#,
    )
    .await;
    assert_eq!(caches.names(), ["both"]);
    let cache = caches.default_cache();
    cache.set(&key("k"), &1_u8, Ttl::Default).await.unwrap();
    let before = told.reads.load(Ordering::SeqCst);
    assert_eq!(cache.get(&key("k")).await.unwrap(), Lookup::Hit(1_u8));
    assert_eq!(
        told.reads.load(Ordering::SeqCst),
        before,
        "the near copy is served"
    );
    let error = caches.cache("l1").unwrap_err().to_string();
    assert!(error.contains("allowed: both"), "{error}");
    assert!(caches.health().await.healthy);
}

#[test]
fn stacks_that_cannot_be_are_refused_by_field() {
    let refused = |backends: &str| {
        let error = config(&format!(r#"{{"backends": [{backends}]}}"#)).validate();
        error.unwrap_err().to_string()
    };
    let a = r#"{"type": "memory", "name": "a"}"#;
    let b = r#"{"type": "memory", "name": "b"}"#;
    for (backends, problem) in [
        (
            format!(r#"{a}, {{"type": "tiered", "near": "a", "far": "x"}}"#),
            "backends[1].far, value: x",
        ),
        (
            format!(r#"{a}, {{"type": "tiered", "near": "a", "far": "a"}}"#),
            "backends[1].far",
        ),
        (
            format!(r#"{a}, {{"type": "tiered", "name": "t", "near": "a", "far": "t"}}"#),
            "made of itself",
        ),
        (
            format!(
                r#"{a}, {b}, {{"type": "tiered", "name": "t", "near": "a", "far": "u"}},
                   {{"type": "tiered", "name": "u", "near": "b", "far": "t"}}"#
            ),
            "made of itself",
        ),
        (
            format!(r#"{a}, {b}, {{"type": "tiered", "near": "a", "far": "b", "near_ttl": "0s"}}"#),
            "backends[2].near_ttl",
        ),
        (
            format!(r#"{a}, {b}, {{"type": "tiered", "near": "a", "far": "b", "layers": {{}}}}"#),
            "backends[2].layers",
        ),
        (
            format!(
                r#"{a}, {{"type": "memory", "name": "b", "default_ttl": "5s"}},
                   {{"type": "tiered", "near": "a", "far": "b"}}"#
            ),
            "backends[1].default_ttl",
        ),
        (
            format!(
                r#"{a}, {{"type": "memory", "name": "b", "default": true}},
                   {{"type": "tiered", "near": "a", "far": "b"}}"#
            ),
            "tier of: tiered",
        ),
    ] {
        let error = refused(&backends);
        assert!(error.contains(problem), "{problem}: {error}");
    }
    let missing =
        serde_json::from_str::<Config>(r#"{"backends": [{"type": "tiered", "near": "a"}]}"#);
    assert!(
        missing
            .unwrap_err()
            .to_string()
            .contains("missing field `far`")
    );
}

#[tokio::test(start_paused = true)]
async fn w_11_health_asks_each_backend_once_and_is_bounded() {
    let (caches, told, clock) = with_far(
        r#"{"backends": [{"type": "far", "name": "a"},
            {"type": "far", "name": "b", "health_check_interval": "0s"}]}"#,
    )
    .await;
    let health = caches.health().await;
    assert!(health.healthy && health.tiers.len() == 2);
    let pings = || told.pings.load(Ordering::SeqCst);
    assert_eq!(pings(), 2);
    // The answer of `a` is good for thirty seconds, that of `b` for none.
    caches.health().await;
    assert_eq!(pings(), 3);
    clock.advance(Duration::from_secs(31));
    caches.health().await;
    assert_eq!(pings(), 5);

    told.hangs.store(1, Ordering::SeqCst);
    clock.advance(Duration::from_secs(31));
    let before = tokio::time::Instant::now();
    let asked = (0..100).map(|_| caches.health());
    let all = futures_util::future::join_all(asked).await;
    assert!(
        before.elapsed() < Duration::from_secs(4),
        "{:?}",
        before.elapsed()
    );
    assert!(all.iter().all(|health| !health.healthy));
    assert!(pings() <= 5 + 8, "{}", pings());
}

#[tokio::test]
async fn without_health_checks_no_backend_is_asked() {
    let (caches, told, _) =
        with_far(r#"{"backends": [{"type": "far"}], "service": {"enable_health_checks": false}}"#)
            .await;
    assert!(caches.health().await.healthy);
    assert_eq!(told.pings.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn w_59_closing_reaches_every_backend_the_tiers_of_stacks_too() {
    let (caches, told, _) = with_far(
        r#"{"backends": [{"type": "memory"}, {"type": "far", "name": "b"}, {"type": "far", "name": "c"},
            {"type": "tiered", "near": "memory", "far": "c"}]}"#,
    )
    .await;
    caches.close().await;
    assert_eq!(told.closed.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn w_58_the_configured_serializer_writes_the_values() {
    for (service, looks_like) in [
        (r#"{"default_serializer": "json"}"#, &br#"{"n":1}"#[..]),
        ("{}", &[0x81, 0xa1, b'n', 1][..]),
    ] {
        let caches = caches(&format!(r#"{{"service": {service}}}"#)).await;
        let value = std::collections::BTreeMap::from([(text("n"), 1_u8)]);
        let cache = caches.default_cache();
        cache.set(&key("k"), &value, Ttl::Default).await.unwrap();
        let backend = caches.backend("memory").unwrap();
        let all = askonce::backend::Glob::new("*");
        let keys = CacheBackend::scan(&*backend, &all, Default::default(), 10).await;
        let name = keys.unwrap().keys.remove(0);
        let stored = CacheBackend::get(&*backend, &name)
            .await
            .unwrap()
            .unwrap()
            .bytes;
        let found = stored
            .windows(looks_like.len())
            .any(|bytes| bytes == looks_like);
        assert!(found, "{service}: {stored:?}");
    }
}

#[tokio::test]
async fn the_semantic_cache_asks_backends_in_this_process_first_whatever_is_the_default() {
    let told = Arc::<Far>::default();
    let registry = BackendRegistry::default();
    let registry = registry
        .register("far", FarFactory(Arc::clone(&told)))
        .unwrap();
    let config = config(
        r#"{"backends": [{"type": "far", "default": true, "default_ttl": "10s"}, {"type": "memory"}]}"#,
    );
    let cache = SemanticCache::builder().config(&config).registry(registry);
    let cache = cache.clock(clock()).build().await.unwrap();
    let stats = cache.stats().await;
    let names: Vec<_> = stats.tiers.iter().map(|tier| &*tier.name).collect();
    assert_eq!(names, ["memory", "far"]);
    let request = Request::prompt("who?").model("m").scope(Scope::tenant("t"));
    let stored = cache
        .store(&request, Answer::text("me"), StoreOptions::default())
        .await;
    let StoreOutcome::Stored { expires, .. } = stored else {
        panic!("{stored:?}");
    };
    assert_eq!(expires, Some(clock().now().after(Duration::from_secs(10))));
}

#[cfg(feature = "redis")]
#[tokio::test]
async fn name_and_version_tell_applications_apart_in_a_store_that_they_share() {
    let Some(server) = super::support::server::RedisServer::shared() else {
        return;
    };
    let settings = server.config();
    let caches = |name: &str, version: &str| {
        let mut config = Config {
            backends: vec![askonce::config::BackendConfig::Redis(settings.clone()).into()],
            ..Config::default()
        };
        config.name = (!name.is_empty()).then(|| name.to_owned());
        config.version = (!version.is_empty()).then(|| version.to_owned());
        async move { Caches::from_config(&config).await.unwrap().default_cache() }
    };
    let key = key("k");
    let (one, two) = (caches("shop", "1").await, caches("shop", "2").await);
    one.set(&key, &1_u8, Ttl::Default).await.unwrap();
    assert_eq!(two.get::<u8>(&key).await.unwrap(), Lookup::Miss);
    two.clear().await.unwrap();
    assert_eq!(
        caches("shop", "1").await.get(&key).await.unwrap(),
        Lookup::Hit(1_u8)
    );
    for (name, version) in [("", ""), ("shop", ""), ("blog", "1"), ("", "1")] {
        let other = caches(name, version).await;
        assert_eq!(
            other.get::<u8>(&key).await.unwrap(),
            Lookup::Miss,
            "{name} {version}"
        );
    }
    let prefix = settings.key_prefix;
    let mut raw = server.raw();
    let ours = format!("{prefix}*");
    let keys: Vec<String> = redis::cmd("KEYS").arg(ours).query(&mut raw).unwrap();
    assert!(!keys.is_empty());
    let start = format!("{prefix}:shop:1::");
    assert!(keys.iter().all(|key| key.starts_with(&start)), "{keys:?}");
}
