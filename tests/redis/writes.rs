//! Conditional writes, counters, batches and listing, on one server.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use askonce::backend::{
    BackendHandle, ByteSize, Condition, Cursor, Glob, MAX_COUNT, RedisBackend, RedisConfig,
    StoredValue, Write,
};
use askonce::clock::Clock;
use askonce::{ErrorKind, Result};
use bytes::Bytes;

use super::support::server::RedisServer;
use super::{backend, support};

const V: Bytes = Bytes::from_static(b"v");

/// What `key` holds.
pub(crate) async fn held(backend: &BackendHandle, key: &[u8]) -> Option<Bytes> {
    backend.get(key).await.unwrap().map(|held| held.bytes)
}

/// Every key that matches, page by page.
pub(crate) async fn listed(backend: &BackendHandle, pattern: &Glob, limit: usize) -> Vec<Bytes> {
    let (mut keys, mut cursor) = (Vec::new(), Cursor::default());
    loop {
        let page = backend.scan(pattern, cursor, limit).await.unwrap();
        keys.extend(page.keys);
        match page.next {
            Some(next) => cursor = next,
            None => return keys,
        }
    }
}

/// Runs `work` in 16 tasks, by turns on two backends, and gives what each came to.
pub(crate) async fn in_sixteen_tasks<T, R>(
    backends: &[BackendHandle; 2],
    work: impl Fn(BackendHandle, usize) -> R,
) -> Vec<T>
where
    T: Send + 'static,
    R: Future<Output = T> + Send + 'static,
{
    let tasks: Vec<_> = (0..16)
        .map(|task| tokio::spawn(work(Arc::clone(&backends[task % 2]), task)))
        .collect();
    let mut done = Vec::new();
    for task in tasks {
        done.push(task.await.unwrap());
    }
    done
}

/// What holds of conditional writes when many come at once, on any topology.
pub(crate) async fn conditional_writes_are_atomic(backends: &[BackendHandle; 2]) {
    let one = &backends[0];
    let won = in_sixteen_tasks(backends, |backend, task| async move {
        let value = Bytes::from(task.to_string());
        backend
            .set_if(b"first", value, None, Condition::Absent)
            .await
            .unwrap()
    });
    let won = won.await;
    assert_eq!(won.iter().filter(|won| **won).count(), 1);
    let winner = won.iter().position(|won| *won).unwrap();
    assert_eq!(
        held(one, b"first").await.unwrap(),
        winner.to_string().as_bytes()
    );

    // A counter made of conditional writes loses no step.
    one.set(b"steps", Bytes::from_static(b"0"), None)
        .await
        .unwrap();
    in_sixteen_tasks(backends, |backend, _| async move {
        for _ in 0..20 {
            loop {
                let now = held(&backend, b"steps").await.unwrap();
                let count: u32 = std::str::from_utf8(&now).unwrap().parse().unwrap();
                let next = Bytes::from((count + 1).to_string());
                let same = Condition::Equals(&now);
                if backend.set_if(b"steps", next, None, same).await.unwrap() {
                    break;
                }
            }
        }
    })
    .await;
    assert_eq!(held(one, b"steps").await.unwrap(), &b"320"[..]);

    let counts = in_sixteen_tasks(backends, |backend, task| async move {
        let mut counts = Vec::new();
        for _ in 0..20 {
            let by = if task % 2 == 0 { 1 } else { 1_000 };
            counts.push(backend.increment(b"count", by, None).await.unwrap());
        }
        counts
    })
    .await;
    let counts: HashSet<i64> = counts.into_iter().flatten().collect();
    assert_eq!(counts.len(), 320, "each saw another count");
    assert_eq!(counts.iter().max(), Some(&(160 + 160_000)));

    for round in 0..10 {
        one.set(b"prize", Bytes::from(vec![round]), None)
            .await
            .unwrap();
        let taken = in_sixteen_tasks(backends, |backend, task| async move {
            if task % 4 == 3 {
                let deleted = backend.delete_if(b"prize", &[round]).await.unwrap();
                usize::from(deleted)
            } else {
                usize::from(backend.take(b"prize").await.unwrap().is_some())
            }
        });
        assert_eq!(taken.await.iter().sum::<usize>(), 1);
        assert_eq!(held(one, b"prize").await, None);
    }

    one.set(b"touched", V, None).await.unwrap();
    let touched = in_sixteen_tasks(backends, |backend, task| async move {
        if task == 8 {
            backend.delete(b"touched").await.unwrap();
        }
        backend.touch(b"touched", None).await.unwrap()
    });
    assert!(!touched.await[8], "nothing comes back to life");
    assert_eq!(held(one, b"touched").await, None);
}

/// What holds of batches and listing, on any topology.
pub(crate) async fn batches_and_lists_are_whole(backend: &BackendHandle) {
    let key = |i: usize| Bytes::from(format!("item:{i:04}"));
    let writes: Vec<Write> = (0..2_000)
        .map(|i| Write {
            key: key(i),
            value: Bytes::from(vec![b'x'; i % 50]),
            expires: None,
        })
        .collect();
    let stored = backend.set_many(&writes).await;
    assert_eq!(stored.len(), 2_000);
    assert!(stored.iter().all(Result::is_ok), "{stored:?}");

    // Every other one, and as many that are not there.
    let asked: Vec<Bytes> = (0..2_000).map(|i| key(2 * i)).collect();
    let found = backend.get_many(&asked).await;
    for (i, found) in found.into_iter().enumerate() {
        let expected = (2 * i < 2_000).then(|| 2 * i % 50);
        assert_eq!(found.unwrap().map(|found| found.bytes.len()), expected);
    }

    let mut keys = listed(backend, &Glob::new("item:*"), 100).await;
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys, (0..2_000).map(key).collect::<Vec<_>>());
    assert_eq!(backend.usage().await.unwrap().entries, 2_000);

    let deleted = backend.delete_many(&[key(1), key(9_999), key(3)]).await;
    let deleted: Vec<bool> = deleted.into_iter().map(Result::unwrap).collect();
    assert_eq!(deleted, [true, false, true]);
    let removed = backend
        .delete_matching(&Glob::new("item:1*"))
        .await
        .unwrap();
    assert_eq!(removed, 1_000);
    assert_eq!(listed(backend, &Glob::everything(), 10).await.len(), 998);
    backend.clear().await.unwrap();
    assert_eq!(listed(backend, &Glob::everything(), 10).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_sixteen_writers_over_two_backends_each_sees_what_the_one_before_it_left() {
    let Some(server) = RedisServer::shared() else {
        return;
    };
    let redis = server.config();
    let several = RedisConfig {
        redis_pool_size: 3,
        ..redis.clone()
    };
    conditional_writes_are_atomic(&[backend(redis), backend(several)]).await;
}

#[tokio::test]
async fn batches_and_lists_are_whole_among_thousands_of_keys() {
    let Some(server) = RedisServer::shared() else {
        return;
    };
    batches_and_lists_are_whole(&backend(server.config())).await;
}

#[tokio::test]
async fn a_dead_value_is_an_absent_one_to_every_operation() {
    let Some(server) = RedisServer::shared() else {
        return;
    };
    let clock = support::clock();
    let built = RedisBackend::builder(server.config()).clock(Arc::clone(&clock) as _);
    let backend: BackendHandle = Arc::new(built.build().unwrap());
    let die = async |key: &[u8], value: &'static [u8]| {
        let soon = clock.now().after(Duration::from_millis(250));
        backend
            .set(key, Bytes::from_static(value), Some(soon))
            .await
            .unwrap();
        clock.advance(Duration::from_millis(249));
        assert!(backend.get(key).await.unwrap().is_some());
        clock.advance(Duration::from_millis(1));
    };
    die(b"k", b"v").await;
    let equals = Condition::Equals(b"v");
    assert!(!backend.set_if(b"k", V, None, equals).await.unwrap());
    assert!(
        !backend
            .set_if(b"k", V, None, Condition::Present)
            .await
            .unwrap()
    );
    assert!(!backend.delete_if(b"k", b"v").await.unwrap());
    assert!(!backend.touch(b"k", None).await.unwrap());
    assert_eq!(
        backend.get_many(&[Bytes::from_static(b"k")]).await[0]
            .as_ref()
            .unwrap(),
        &None
    );
    assert_eq!(listed(&backend, &Glob::everything(), 10).await.len(), 0);
    assert_eq!(
        backend.delete_matching(&Glob::everything()).await.unwrap(),
        0
    );
    die(b"k", b"v").await;
    assert_eq!(backend.take(b"k").await.unwrap(), None);
    die(b"k", b"7").await;
    assert_eq!(backend.increment(b"k", 1, None).await.unwrap(), 1);
    die(b"k", b"v").await;
    assert!(
        backend
            .set_if(b"k", V, None, Condition::Absent)
            .await
            .unwrap()
    );
    let past = Some(clock.now());
    assert!(
        backend
            .set_if(b"k", V, past, Condition::Present)
            .await
            .unwrap()
    );
    assert_eq!(backend.get(b"k").await.unwrap(), None);
}

#[tokio::test]
async fn w_27_a_life_is_told_to_redis_in_milliseconds_and_none_is_for_ever() {
    let Some(server) = RedisServer::shared() else {
        return;
    };
    let redis = server.config();
    let wire = format!("{}::k", redis.key_prefix);
    let clock = support::clock();
    let built = RedisBackend::builder(redis).clock(Arc::clone(&clock) as _);
    let backend: BackendHandle = Arc::new(built.build().unwrap());
    let mut raw = server.raw();
    let mut life = || {
        redis::cmd("PTTL")
            .arg(&wire)
            .query::<i64>(&mut raw)
            .unwrap()
    };
    // Redis keeps a value for a minute more; the upper bound is exact, the lower leaves it time.
    let about = |life: i64, millis: i64| (30_000 + millis..=60_000 + millis).contains(&life);
    let at = |millis| Some(clock.now().after(Duration::from_millis(millis)));

    backend.set(b"k", V, None).await.unwrap();
    assert_eq!(life(), -1);
    backend.set(b"k", V, at(250)).await.unwrap();
    assert!(about(life(), 250));
    assert!(backend.touch(b"k", None).await.unwrap());
    assert_eq!(life(), -1);
    assert!(backend.touch(b"k", at(90_500)).await.unwrap());
    assert!(about(life(), 90_500));
    assert_eq!(
        backend.get(b"k").await.unwrap(),
        Some(StoredValue::new(V, at(90_500)))
    );
    // An expiry of now, or before: gone at once, and no error.
    assert!(backend.touch(b"k", at(0)).await.unwrap());
    assert_eq!(life(), -2);
    backend.set(b"k", V, None).await.unwrap();
    backend.set(b"k", V, at(0)).await.unwrap();
    assert_eq!(life(), -2);

    assert_eq!(backend.increment(b"k", 5, at(1_500)).await.unwrap(), 5);
    assert!(about(life(), 1_500));
    assert_eq!(backend.increment(b"k", 5, at(900_000)).await.unwrap(), 10);
    assert!(about(life(), 1_500), "a counter keeps its own expiry");
    assert_eq!(backend.get(b"k").await.unwrap().unwrap().expires, at(1_500));
    backend
        .set(
            b"k",
            V,
            Some(askonce::clock::Timestamp::from_millis(u64::MAX - 1)),
        )
        .await
        .unwrap();
    assert_eq!(life(), -1, "longer than Redis can count");
}

#[tokio::test]
async fn a_counter_counts_exactly_to_its_end_and_no_further() {
    let Some(server) = RedisServer::shared() else {
        return;
    };
    let backend = backend(server.config());
    assert_eq!(
        backend.increment(b"k", MAX_COUNT, None).await.unwrap(),
        MAX_COUNT
    );
    assert_eq!(
        held(&backend, b"k").await.unwrap(),
        MAX_COUNT.to_string().as_bytes()
    );
    for by in [1, MAX_COUNT, i64::MAX] {
        let error = backend.increment(b"k", by, None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(!error.is_retryable());
    }
    // Further than a number of Lua can be told apart from its neighbours.
    assert_eq!(
        backend
            .increment(b"k", 1 - 2 * MAX_COUNT, None)
            .await
            .unwrap(),
        1 - MAX_COUNT
    );
    assert_eq!(backend.increment(b"k", -1, None).await.unwrap(), -MAX_COUNT);
    assert!(backend.increment(b"k", i64::MIN, None).await.is_err());
    assert_eq!(
        backend.increment(b"k", 2 * MAX_COUNT, None).await.unwrap(),
        MAX_COUNT
    );
    assert_eq!(backend.increment(b"k", -MAX_COUNT, None).await.unwrap(), 0);
    assert_eq!(held(&backend, b"k").await.unwrap(), &b"0"[..]);

    for other in [
        "", "v", "01", "+1", "1.5", "1e3", "-0", "-", " 1", "0x10", "1\n",
    ] {
        let other = Bytes::copy_from_slice(other.as_bytes());
        backend.set(b"k", other.clone(), None).await.unwrap();
        let error = backend.increment(b"k", 1, None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{other:?}");
        assert_eq!(held(&backend, b"k").await, Some(other));
    }
}

#[tokio::test]
async fn another_programs_value_is_an_error_to_conditional_writes_and_stays() {
    let Some(server) = RedisServer::shared() else {
        return;
    };
    let redis = server.config();
    let wire = format!("{}::k", redis.key_prefix);
    let backend = backend(redis);
    let mut raw = server.raw();
    for command in ["SET", "RPUSH"] {
        redis::cmd(command)
            .arg(&wire)
            .arg("x")
            .exec(&mut raw)
            .unwrap();
        let dump = |raw: &mut redis::Connection| {
            redis::cmd("DUMP").arg(&wire).query::<Vec<u8>>(raw).unwrap()
        };
        let before = dump(&mut raw);
        let corrupt = |result: Result<String>| {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            assert!(!error.is_retryable());
        };
        let said = |result: Result<bool>| result.map(|said| said.to_string());
        for condition in [
            Condition::Absent,
            Condition::Present,
            Condition::Equals(b"x"),
        ] {
            corrupt(said(backend.set_if(b"k", V, None, condition).await));
        }
        corrupt(said(backend.delete_if(b"k", b"x").await));
        corrupt(said(backend.touch(b"k", None).await));
        corrupt(
            backend
                .increment(b"k", 1, None)
                .await
                .map(|count| count.to_string()),
        );
        corrupt(backend.take(b"k").await.map(|held| format!("{held:?}")));
        let many = backend.get_many(&[Bytes::from_static(b"k"), V]).await;
        assert_eq!(many[0].as_ref().unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(
            many[1].as_ref().unwrap(),
            &None,
            "one failure says nothing of the others"
        );
        assert_eq!(listed(&backend, &Glob::everything(), 10).await.len(), 0);
        backend.usage().await.unwrap();
        assert_eq!(dump(&mut raw), before);
        assert!(!backend.delete(b"k").await.unwrap());
        let there: bool = redis::cmd("EXISTS").arg(&wire).query(&mut raw).unwrap();
        assert!(!there, "what is to be deleted is gone, whatever it was");
    }
}

#[tokio::test]
async fn scripts_come_back_after_the_server_has_forgotten_them() {
    let Some(server) = RedisServer::start() else {
        return;
    };
    let backend = backend(server.config());
    let mut raw = server.raw();
    let mut forget = || redis::cmd("SCRIPT").arg("FLUSH").exec(&mut raw).unwrap();
    forget();
    assert_eq!(backend.increment(b"n", 1, None).await.unwrap(), 1);
    forget();
    assert_eq!(backend.increment(b"n", 1, None).await.unwrap(), 2);
    let keys: Vec<Bytes> = (0..50_u8).map(|i| Bytes::from(vec![i])).collect();
    for key in &keys {
        backend.set(key, V, None).await.unwrap();
    }
    forget();
    for deleted in backend.delete_many(&keys).await {
        assert!(deleted.unwrap());
    }
    forget();
    backend.feed().unwrap().append(V).await.unwrap();
}

#[tokio::test]
async fn a_list_has_the_keys_of_its_prefix_whatever_characters_they_have() {
    let Some(server) = RedisServer::shared() else {
        return;
    };
    let redis = server.config();
    let prefix = redis.key_prefix.clone();
    let longer = RedisConfig {
        key_prefix: format!("{prefix}:b"),
        ..redis.clone()
    };
    let (ours, others) = (backend(redis), backend(longer));
    let mut foreign = redis::pipe();
    for i in 0..3_000 {
        foreign
            .cmd("SET")
            .arg(format!("{prefix}-foreign:{i}"))
            .arg("x")
            .ignore();
        foreign
            .cmd("SET")
            .arg(format!("{prefix}:{i}"))
            .arg("x")
            .ignore();
    }
    foreign.exec(&mut server.raw()).unwrap();
    let odd: [&[u8]; 8] = [
        b"a*b", b"a?b", b"[ab]", b"a\\b", b"{tag}x", b"", b"\xff\0", b"a b",
    ];
    for key in odd {
        ours.set(key, V, None).await.unwrap();
        others.set(key, V, None).await.unwrap();
    }
    let writes: Vec<Write> = (0..5_000)
        .map(|i| Write {
            key: Bytes::from(format!("users:{i}")),
            value: V,
            expires: None,
        })
        .collect();
    assert!(ours.set_many(&writes).await.iter().all(Result::is_ok));

    let set = |keys: Vec<Bytes>| keys.into_iter().collect::<HashSet<_>>();
    let all = set(listed(&ours, &Glob::everything(), 500).await);
    assert_eq!(all.len(), 5_008);
    assert!(odd.iter().all(|key| all.contains(*key)));
    let users = set(listed(&ours, &Glob::new("users:?"), 500).await);
    assert_eq!(users.len(), 10);
    for key in odd {
        let only = set(listed(&ours, &Glob::literal(key), 10).await);
        assert_eq!(only, HashSet::from([Bytes::from_static(key)]));
    }
    assert_eq!(
        ours.delete_matching(&Glob::literal("a*b")).await.unwrap(),
        1
    );
    assert!(ours.get(b"a?b").await.unwrap().is_some());
    assert_eq!(
        ours.delete_matching(&Glob::new("users:*")).await.unwrap(),
        5_000
    );
    ours.clear().await.unwrap();
    assert_eq!(listed(&ours, &Glob::everything(), 10).await.len(), 0);
    assert_eq!(
        listed(&others, &Glob::everything(), 10).await.len(),
        odd.len()
    );
    let mut raw = server.raw();
    let left: Vec<String> = redis::cmd("KEYS")
        .arg(format!("{prefix}*"))
        .query(&mut raw)
        .unwrap();
    assert_eq!(left.len(), 6_000 + odd.len());
    let error = ours
        .scan(&Glob::everything(), Cursor::new("x"), 1)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
}

#[tokio::test]
async fn one_value_that_cannot_be_stored_says_nothing_of_the_others() {
    let Some(server) = RedisServer::shared() else {
        return;
    };
    let backend = backend(RedisConfig {
        max_value_bytes: ByteSize::kib(1),
        ..server.config()
    });
    let write = |key: &'static str, size: usize| Write {
        key: Bytes::from(key),
        value: Bytes::from(vec![7; size]),
        expires: None,
    };
    let stored = backend
        .set_many(&[write("a", 1), write("b", 2_000), write("c", 3)])
        .await;
    assert_eq!(stored[1].as_ref().unwrap_err().kind(), ErrorKind::TooLarge);
    assert!(stored[0].is_ok() && stored[2].is_ok());
    let refused = backend
        .set_if(b"a", Bytes::from(vec![7; 2_000]), None, Condition::Present)
        .await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(held(&backend, b"a").await.unwrap().len(), 1);
    assert_eq!(held(&backend, b"b").await, None);
    assert_eq!(held(&backend, b"c").await.unwrap().len(), 3);
}

#[tokio::test]
async fn w_61_a_password_of_any_characters_is_used_as_it_is_and_never_shown() {
    const PASSWORD: &str = "p@ss/w#rd:%41?&=[ü";
    let Some(server) = RedisServer::start() else {
        return;
    };
    let mut raw = server.raw();
    let secret = format!(">{PASSWORD}");
    let user = ["SETUSER", "me@home", "on", &secret, "~*", "+@all"];
    redis::cmd("ACL").arg(&user).exec(&mut raw).unwrap();
    redis::cmd("ACL")
        .arg(&["SETUSER", "default", "off"])
        .exec(&mut raw)
        .unwrap();
    let redis = RedisConfig {
        redis_url: String::new(),
        redis_port: server.port,
        redis_db: 3,
        redis_username: Some("me@home".to_owned()),
        redis_password: Some(PASSWORD.to_owned()),
        ..server.config()
    };
    let wire = format!("{}::k", redis.key_prefix);
    let shown = format!("{redis:?} {}", redis.shown_url());
    let json = serde_json::to_string(&redis).unwrap();
    let backend = backend(redis.clone());
    backend.set(b"k", V, None).await.unwrap();
    redis::cmd("SELECT").arg(3).exec(&mut raw).unwrap();
    let there: bool = redis::cmd("EXISTS").arg(&wire).query(&mut raw).unwrap();
    assert!(there, "in the database that was asked for");
    let wrong = super::backend(RedisConfig {
        redis_password: Some(format!("{PASSWORD}!")),
        ..redis
    });
    let error = wrong.get(b"k").await.unwrap_err();
    let all = format!("{shown} {json} {error} {error:?} {backend:?}");
    assert!(!all.contains("p@ss") && !all.contains("p%40ss"), "{all}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_connections_as_asked_for_are_used_and_given_back() {
    let Some(server) = RedisServer::start() else {
        return;
    };
    let backend = backend(RedisConfig {
        redis_pool_size: 4,
        ..server.config()
    });
    let mut raw = server.raw();
    let mut clients = || {
        let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut raw).unwrap();
        list.lines().count() - 1
    };
    for _ in 0..20 {
        backend.ping().await.unwrap();
    }
    assert_eq!(clients(), 4);
    backend.close().await;
    super::eventually("closed connections", async || clients() == 0).await;
    backend.set(b"k", V, None).await.unwrap();
    assert_eq!(held(&backend, b"k").await, Some(V));
}
