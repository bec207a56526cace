//! The promises of [`CacheBackend`], run over every backend.
//!
//! A new backend adds one constructor to `backends!` and inherits every test. Each test is one bullet
//! of the trait's contract.

#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "memcached")]
#[path = "../support/memcached.rs"]
mod memcached_server;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use askonce::ErrorKind;
use askonce::backend::{BackendHandle, ByteSize, MemoryBackend, MemoryConfig};
use askonce::clock::{Clock, ManualClock, Timestamp};
use bytes::Bytes;
use proptest::prelude::*;

/// A fresh backend that reads `clock` and has room for the tests' values; `None`, said aloud, where its
/// server is not installed.
type Make = fn(&Arc<ManualClock>) -> Option<BackendHandle>;

fn memory(clock: &Arc<ManualClock>) -> Option<BackendHandle> {
    let config = MemoryConfig {
        max_bytes: ByteSize::mib(8),
        ..MemoryConfig::default()
    };
    let built = MemoryBackend::builder(config).clock(Arc::clone(clock) as _);
    Some(Arc::new(built.build().unwrap()))
}

#[cfg(feature = "memcached")]
fn memcached(clock: &Arc<ManualClock>) -> Option<BackendHandle> {
    let builder = askonce::backend::MemcachedBackend::builder(memcached_server::shared()?);
    Some(Arc::new(
        builder.clock(Arc::clone(clock) as _).build().unwrap(),
    ))
}

#[cfg(feature = "redis")]
fn redis(clock: &Arc<ManualClock>) -> Option<BackendHandle> {
    let config = support::server::RedisServer::shared()?.config();
    let built = askonce::backend::RedisBackend::builder(config).clock(Arc::clone(clock) as _);
    Some(Arc::new(built.build().unwrap()))
}

macro_rules! backends {
    ($($name:ident: $make:expr;)*) => { $(mod $name {
        use super::*;
        contract!($make;
            what_is_set_is_read_back
            an_absent_key_is_none
            the_empty_value_is_a_value
            any_bytes_are_a_key
            a_value_is_gone_at_its_expiry_and_not_before
            a_value_without_expiry_stays
            replacing_a_value_replaces_its_expiry
            an_expiry_in_the_past_leaves_the_key_absent
            delete_says_whether_there_was_a_value
            deleting_an_expired_value_says_false
            clear_removes_everything
            a_value_that_can_never_fit_is_refused_and_changes_nothing
            usage_counts_live_values
            many_tasks_may_use_it_at_once
        );
        #[test]
        fn any_sequence_of_operations_matches_a_map() {
            matches_a_map($make);
        }
    })* };
}

macro_rules! contract {
    ($make:expr; $($test:ident)*) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            let clock = support::clock();
            let make: Make = $make;
            if let Some(backend) = make(&clock) {
                super::$test(&clock, backend).await;
            }
        }
    )* };
}

backends! {
    memory_backend: memory;
}

#[cfg(feature = "memcached")]
backends! {
    memcached_backend: memcached;
}

#[cfg(feature = "redis")]
backends! {
    redis_backend: redis;
}

/// The bytes under `key`.
async fn value(backend: &BackendHandle, key: &[u8]) -> Option<Bytes> {
    backend.get(key).await.unwrap().map(|held| held.bytes)
}

async fn what_is_set_is_read_back(_: &Arc<ManualClock>, backend: BackendHandle) {
    backend
        .set(b"k", Bytes::from_static(b"v"), None)
        .await
        .unwrap();
    assert_eq!(value(&backend, b"k").await.as_deref(), Some(&b"v"[..]));
    backend
        .set(b"k", Bytes::from_static(b"w"), None)
        .await
        .unwrap();
    assert_eq!(value(&backend, b"k").await.as_deref(), Some(&b"w"[..]));
}

async fn an_absent_key_is_none(_: &Arc<ManualClock>, backend: BackendHandle) {
    assert_eq!(value(&backend, b"k").await, None);
}

async fn the_empty_value_is_a_value(_: &Arc<ManualClock>, backend: BackendHandle) {
    backend.set(b"k", Bytes::new(), None).await.unwrap();
    assert_eq!(value(&backend, b"k").await, Some(Bytes::new()));
}

async fn any_bytes_are_a_key(_: &Arc<ManualClock>, backend: BackendHandle) {
    let keys: [&[u8]; 4] = [b"", b"\0", b"\xff\xfe with spaces\r\n", &[7; 2_000]];
    for (i, key) in keys.iter().enumerate() {
        backend
            .set(key, Bytes::from(vec![i as u8]), None)
            .await
            .unwrap();
    }
    for (i, key) in keys.iter().enumerate() {
        assert_eq!(value(&backend, key).await.as_deref(), Some(&[i as u8][..]));
    }
}

async fn a_value_is_gone_at_its_expiry_and_not_before(
    clock: &Arc<ManualClock>,
    backend: BackendHandle,
) {
    let expires = clock.now().after(Duration::from_millis(50));
    backend
        .set(b"k", Bytes::from_static(b"v"), Some(expires))
        .await
        .unwrap();
    clock.advance(Duration::from_millis(49));
    assert!(backend.get(b"k").await.unwrap().is_some());
    clock.advance(Duration::from_millis(1));
    assert_eq!(value(&backend, b"k").await, None);
}

async fn a_value_without_expiry_stays(clock: &Arc<ManualClock>, backend: BackendHandle) {
    backend
        .set(b"k", Bytes::from_static(b"v"), None)
        .await
        .unwrap();
    clock.advance(Duration::from_secs(10 * 365 * 24 * 60 * 60));
    assert!(backend.get(b"k").await.unwrap().is_some());
}

async fn replacing_a_value_replaces_its_expiry(clock: &Arc<ManualClock>, backend: BackendHandle) {
    let soon = clock.now().after(Duration::from_secs(1));
    backend
        .set(b"k", Bytes::from_static(b"v"), Some(soon))
        .await
        .unwrap();
    backend
        .set(b"k", Bytes::from_static(b"w"), None)
        .await
        .unwrap();
    clock.advance(Duration::from_secs(2));
    assert_eq!(value(&backend, b"k").await.as_deref(), Some(&b"w"[..]));
}

async fn an_expiry_in_the_past_leaves_the_key_absent(
    clock: &Arc<ManualClock>,
    backend: BackendHandle,
) {
    backend
        .set(b"k", Bytes::from_static(b"old"), None)
        .await
        .unwrap();
    backend
        .set(b"k", Bytes::from_static(b"v"), Some(clock.now()))
        .await
        .unwrap();
    assert_eq!(value(&backend, b"k").await, None);
}

async fn delete_says_whether_there_was_a_value(_: &Arc<ManualClock>, backend: BackendHandle) {
    backend
        .set(b"k", Bytes::from_static(b"v"), None)
        .await
        .unwrap();
    assert!(backend.delete(b"k").await.unwrap());
    assert!(!backend.delete(b"k").await.unwrap());
    assert_eq!(value(&backend, b"k").await, None);
}

async fn deleting_an_expired_value_says_false(clock: &Arc<ManualClock>, backend: BackendHandle) {
    let soon = clock.now().after(Duration::from_secs(1));
    backend
        .set(b"k", Bytes::from_static(b"v"), Some(soon))
        .await
        .unwrap();
    clock.advance(Duration::from_secs(1));
    assert!(!backend.delete(b"k").await.unwrap());
}

async fn clear_removes_everything(_: &Arc<ManualClock>, backend: BackendHandle) {
    for i in 0..100_u8 {
        backend.set(&[i], Bytes::from(vec![i]), None).await.unwrap();
    }
    backend.clear().await.unwrap();
    for i in 0..100_u8 {
        assert_eq!(value(&backend, &[i]).await, None);
    }
    backend
        .set(b"k", Bytes::from_static(b"v"), None)
        .await
        .unwrap();
    assert!(backend.get(b"k").await.unwrap().is_some());
}

async fn a_value_that_can_never_fit_is_refused_and_changes_nothing(
    _: &Arc<ManualClock>,
    backend: BackendHandle,
) {
    let Some(most) = backend.capability().max_value_bytes else {
        return;
    };
    backend
        .set(b"k", Bytes::from_static(b"v"), None)
        .await
        .unwrap();
    let error = backend
        .set(b"k", Bytes::from(vec![0; most + 1]), None)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert_eq!(value(&backend, b"k").await.as_deref(), Some(&b"v"[..]));
}

async fn usage_counts_live_values(_: &Arc<ManualClock>, backend: BackendHandle) {
    for i in 0..10_u8 {
        backend
            .set(&[i], Bytes::from(vec![0; 100]), None)
            .await
            .unwrap();
    }
    backend.delete(&[0]).await.unwrap();
    let usage = backend.usage().await.unwrap();
    if backend.capability().counts_exactly {
        assert_eq!(usage.entries, 9);
    }
    assert!(usage.bytes >= 900, "{usage:?}");
}

async fn many_tasks_may_use_it_at_once(_: &Arc<ManualClock>, backend: BackendHandle) {
    let tasks = (0..8_u8).map(|task| {
        let backend = Arc::clone(&backend);
        tokio::spawn(async move {
            for round in 0..200_u8 {
                let key = [task, round % 10];
                backend
                    .set(&key, Bytes::from(vec![task; 64]), None)
                    .await
                    .unwrap();
                let value = backend
                    .get(&key)
                    .await
                    .unwrap()
                    .expect("nobody else writes this key");
                assert!(value.bytes.iter().all(|&byte| byte == task));
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

#[derive(Clone, Debug)]
enum Step {
    Set {
        key: u8,
        value: Vec<u8>,
        life: Option<u16>,
    },
    Get {
        key: u8,
    },
    Delete {
        key: u8,
    },
    Advance {
        millis: u16,
    },
    Clear,
}

fn step() -> impl Strategy<Value = Step> {
    let value = prop::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        4 => (0..6_u8, value, prop::option::of(0..2_000_u16))
            .prop_map(|(key, value, life)| Step::Set { key, value, life }),
        4 => (0..6_u8).prop_map(|key| Step::Get { key }),
        2 => (0..6_u8).prop_map(|key| Step::Delete { key }),
        2 => (0..1_500_u16).prop_map(|millis| Step::Advance { millis }),
        1 => Just(Step::Clear),
    ]
}

/// The backend and a map of values with their expiry agree after any sequence of operations.
fn matches_a_map(make: Make) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    proptest!(ProptestConfig::with_cases(64), |(steps in prop::collection::vec(step(), 1..60))| {
        runtime.block_on(async {
            let clock = support::clock();
            let Some(backend) = make(&clock) else {
                return Ok(());
            };
            let mut model: HashMap<u8, (Vec<u8>, Option<Timestamp>)> = HashMap::new();
            for step in steps {
                let now = clock.now();
                model.retain(|_, (_, expires)| expires.is_none_or(|expires| now < expires));
                match step {
                    Step::Set { key, value, life } => {
                        let expires = life.map(|life| now.after(Duration::from_millis(life.into())));
                        backend.set(&[key], value.clone().into(), expires).await.unwrap();
                        model.insert(key, (value, expires));
                        model.retain(|_, (_, expires)| expires.is_none_or(|expires| now < expires));
                    }
                    Step::Get { key } => {
                        let got = value(&backend, &[key]).await;
                        let want = model.get(&key).map(|(value, _)| value.clone());
                        prop_assert_eq!(got.map(|bytes| bytes.to_vec()), want);
                    }
                    Step::Delete { key } => {
                        let had = backend.delete(&[key]).await.unwrap();
                        prop_assert_eq!(had, model.remove(&key).is_some());
                    }
                    Step::Advance { millis } => clock.advance(Duration::from_millis(millis.into())),
                    Step::Clear => {
                        backend.clear().await.unwrap();
                        model.clear();
                    }
                }
            }
            Ok(())
        })?;
    });
}
