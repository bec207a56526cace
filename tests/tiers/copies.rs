//! What the near tier holds, and for how long.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use askonce::backend::{CacheBackend, Condition, Glob, Write};
use askonce::clock::{Clock, ManualClock};
use askonce::tier::{TierConfig, TieredBackend};
use bytes::Bytes;

use crate::support::{Process, clock, config, eventually, heard, memory};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_value_found_far_away_is_near_the_next_time_with_its_own_expiry() {
    let clock = clock();
    let store = memory(&clock);
    let process = Process::of(&store, &clock).await;
    let expires = Some(clock.now().after(3600 * SECOND));
    CacheBackend::set(&*store, b"k", Bytes::from("v"), expires)
        .await
        .unwrap();
    for depth in [1, 0, 0] {
        let held = process.tiers.get(b"k").await.unwrap().unwrap();
        assert_eq!((&held.bytes[..], held.depth), (&b"v"[..], depth));
        assert_eq!(held.expires, expires, "not that of the copy");
    }
}

#[tokio::test]
async fn w_25_a_copy_dies_with_the_value_it_was_made_of() {
    let clock = clock();
    let store = memory(&clock);
    let process = Process::of(&store, &clock).await;
    let expires = Some(clock.now().after(5 * SECOND));
    CacheBackend::set(&*store, b"read", Bytes::from("v"), expires)
        .await
        .unwrap();
    process
        .tiers
        .set(b"written", Bytes::from("v"), expires)
        .await
        .unwrap();
    clock.advance(4 * SECOND);
    for key in ["read", "written"] {
        assert!(process.value(key).await.is_some(), "{key}");
        assert!(process.has_copy(key).await, "{key}");
    }
    clock.advance(SECOND);
    for key in ["read", "written"] {
        assert_eq!(process.value(key).await, None, "{key}");
        assert!(!process.has_copy(key).await, "{key}");
    }
}

#[tokio::test]
async fn w_25_a_copy_of_an_endless_value_ends_at_the_bound() {
    let clock = clock();
    let store = memory(&clock);
    let process = Process::of(&store, &clock).await;
    process.set("k", "old").await;
    // Behind everybody's back: no news of it is sent.
    CacheBackend::set(&*store, b"k", Bytes::from("new"), None)
        .await
        .unwrap();
    clock.advance(59 * SECOND);
    assert_eq!(process.value("k").await.as_deref(), Some("old"));
    clock.advance(SECOND);
    assert_eq!(process.value("k").await.as_deref(), Some("new"));
}

#[tokio::test]
async fn jitter_shortens_the_lives_of_copies_and_spreads_them() {
    let clock = clock();
    let store = memory(&clock);
    let config = TierConfig {
        near_ttl_jitter: 0.5,
        ..config()
    };
    let process = Process::with(&store, &clock, config).await;
    let keys: Vec<String> = (0..200).map(|i| i.to_string()).collect();
    for key in &keys {
        process.set(key, "v").await;
    }
    let copies = async || {
        let mut copies = 0;
        for key in &keys {
            copies += usize::from(process.has_copy(key).await);
        }
        copies
    };
    clock.advance(29 * SECOND);
    assert_eq!(copies().await, 200, "half the bound is safe");
    clock.advance(16 * SECOND);
    let left = copies().await;
    assert!((40..160).contains(&left), "{left} of 200 in the middle");
    clock.advance(15 * SECOND);
    assert_eq!(copies().await, 0, "none beyond the bound");
}

#[tokio::test]
async fn that_there_is_no_value_is_not_copied() {
    let clock = clock();
    let store = memory(&clock);
    let process = Process::of(&store, &clock).await;
    assert_eq!(process.value("k").await, None);
    CacheBackend::set(&*store, b"k", Bytes::from("v"), None)
        .await
        .unwrap();
    assert_eq!(process.value("k").await.as_deref(), Some("v"));
}

#[tokio::test]
async fn many_keys_are_read_near_first_and_the_rest_in_one_go() {
    let clock = clock();
    let store = memory(&clock);
    let process = Process::of(&store, &clock).await;
    process.set("near", "1").await;
    for (key, value) in [("far", "2"), ("farther", "3")] {
        CacheBackend::set(&*store, key.as_bytes(), Bytes::from(value), None)
            .await
            .unwrap();
    }
    let keys = ["far", "near", "absent", "farther"].map(Bytes::from);
    let reads = process.far.reads.load(Ordering::SeqCst);
    let expected = [
        [Some((1, "2")), Some((0, "1")), None, Some((1, "3"))],
        [Some((0, "2")), Some((0, "1")), None, Some((0, "3"))],
    ];
    for expected in expected {
        let found = process.tiers.get_many(&keys).await;
        let found: Vec<_> = found.into_iter().map(Result::unwrap).collect();
        let shown: Vec<_> = found
            .iter()
            .map(|held| {
                let held = held.as_ref()?;
                Some((held.depth, std::str::from_utf8(&held.bytes).unwrap()))
            })
            .collect();
        assert_eq!(shown, expected);
    }
    let reads = process.far.reads.load(Ordering::SeqCst) - reads;
    assert_eq!(reads, 2, "one read of the far tier for each");
}

#[tokio::test]
async fn many_values_are_written_and_removed_in_both_tiers() {
    let clock = clock();
    let store = memory(&clock);
    let process = Process::of(&store, &clock).await;
    let keys = ["a", "b"].map(Bytes::from);
    let writes = keys.clone().map(|key| Write {
        value: key.clone(),
        key,
        expires: None,
    });
    for stored in process.tiers.set_many(&writes).await {
        stored.unwrap();
    }
    assert_eq!(process.found("a").await, Some(("a".to_owned(), 0)));
    assert!(CacheBackend::get(&*store, b"b").await.unwrap().is_some());
    let keys = [keys[0].clone(), keys[1].clone(), Bytes::from("absent")];
    let deleted = process.tiers.delete_many(&keys).await;
    let deleted: Vec<_> = deleted.into_iter().map(Result::unwrap).collect();
    assert_eq!(deleted, [true, true, false]);
    for key in ["a", "b"] {
        assert_eq!(process.value(key).await, None);
        assert!(!process.has_copy(key).await);
    }
}

/// A read has found the old value and has not copied it yet; then something happens to the key.
async fn a_copy_is_cancelled_by(
    what: &str,
    happens: impl AsyncFnOnce(&Process, &Process),
    clock: &Arc<ManualClock>,
) {
    let store = memory(clock);
    let reader = Process::of(&store, clock).await;
    let other = Process::of(&store, clock).await;
    CacheBackend::set(&*store, b"k", Bytes::from("1"), None)
        .await
        .unwrap();
    let pause = reader.far.pause_next_read();
    let (read, ()) = tokio::join!(reader.tiers.get(b"k"), async {
        pause.reached.notified().await;
        happens(&reader, &other).await;
        pause.go_on.notify_one();
    });
    // The read itself began before: it may say either.
    assert_eq!(read.unwrap().unwrap().bytes, "1", "{what}");
    let now = reader.tiers.get(b"k").await.unwrap();
    let truth = CacheBackend::get(&*store, b"k").await.unwrap();
    assert_eq!(
        now.map(|held| (held.bytes, held.expires)),
        truth.map(|held| (held.bytes, held.expires)),
        "{what}"
    );
}

#[tokio::test]
async fn whatever_happens_to_a_key_between_reading_and_copying_cancels_the_copy() {
    let clock = clock();
    let soon = Some(clock.now().after(SECOND));
    let v = || Bytes::from("2");
    let k = b"k";
    let clock = &clock;
    a_copy_is_cancelled_by("set", async |p, _| p.set("k", "2").await, clock).await;
    let delete = async |p: &Process, _: &Process| assert!(p.tiers.delete(k).await.unwrap());
    a_copy_is_cancelled_by("delete", delete, clock).await;
    let set_if = async |p: &Process, _: &Process| {
        let done = p.tiers.set_if(k, v(), None, Condition::Present).await;
        assert!(done.unwrap());
    };
    a_copy_is_cancelled_by("set_if", set_if, clock).await;
    let delete_if =
        async |p: &Process, _: &Process| assert!(p.tiers.delete_if(k, b"1").await.unwrap());
    a_copy_is_cancelled_by("delete_if", delete_if, clock).await;
    let take = async |p: &Process, _: &Process| {
        assert_eq!(p.tiers.take(k).await.unwrap().unwrap().bytes, "1");
    };
    a_copy_is_cancelled_by("take", take, clock).await;
    let touch = async |p: &Process, _: &Process| assert!(p.tiers.touch(k, soon).await.unwrap());
    a_copy_is_cancelled_by("touch", touch, clock).await;
    let increment = async |p: &Process, _: &Process| {
        assert_eq!(p.tiers.increment(k, 1, None).await.unwrap(), 2);
    };
    a_copy_is_cancelled_by("increment", increment, clock).await;
    let clear = async |p: &Process, _: &Process| p.tiers.clear().await.unwrap();
    a_copy_is_cancelled_by("clear", clear, clock).await;
    let matching = async |p: &Process, _: &Process| {
        assert_eq!(p.tiers.delete_matching(&Glob::new("*")).await.unwrap(), 1);
    };
    a_copy_is_cancelled_by("delete_matching", matching, clock).await;
    let many = async |p: &Process, _: &Process| {
        let deleted = p.tiers.delete_many(&[Bytes::from("k")]).await;
        assert!(deleted.into_iter().all(Result::unwrap));
    };
    a_copy_is_cancelled_by("delete_many", many, clock).await;
}

#[tokio::test]
async fn news_from_elsewhere_between_reading_and_copying_cancels_the_copy() {
    let clock = clock();
    let told = async |reader: &Process, other: &Process| {
        other.set("k", "2").await;
        heard(other, reader).await;
    };
    a_copy_is_cancelled_by("set elsewhere", told, &clock).await;
    let cleared = async |reader: &Process, other: &Process| {
        other.tiers.clear().await.unwrap();
        heard(other, reader).await;
    };
    a_copy_is_cancelled_by("clear elsewhere", cleared, &clock).await;
}

#[tokio::test]
async fn atomic_operations_are_those_of_the_far_tier() {
    let clock = clock();
    let store = memory(&clock);
    let one = Process::of(&store, &clock).await;
    let two = Process::of(&store, &clock).await;
    let count = async |process: &Process| {
        for _ in 0..50 {
            process.tiers.increment(b"count", 1, None).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(count(&one), count(&two), count(&one));
    assert_eq!(one.tiers.increment(b"count", 0, None).await.unwrap(), 150);
    one.set("job", "x").await;
    assert!(two.value("job").await.is_some(), "a copy in the other");
    let (a, b) = tokio::join!(one.tiers.take(b"job"), two.tiers.take(b"job"));
    let taken = [a.unwrap(), b.unwrap()];
    assert_eq!(taken.iter().flatten().count(), 1);
}

#[tokio::test]
async fn three_tiers_are_two_upon_two_and_say_how_deep_a_value_was() {
    let clock = clock();
    let store = memory(&clock);
    let inner = Process::of(&store, &clock).await;
    let other = Process::of(&store, &clock).await;
    let middle = Arc::clone(&inner.near);
    let outer = TieredBackend::builder(memory(&clock), Arc::new(inner.tiers))
        .clock(Arc::clone(&clock) as _)
        .config(config())
        .name("three")
        .build()
        .unwrap();
    CacheBackend::set(&*store, b"k", Bytes::from("v"), None)
        .await
        .unwrap();
    let depth = async || outer.get(b"k").await.unwrap().map(|held| held.depth);
    assert_eq!(depth().await, Some(2));
    eventually("it is near", || async { depth().await == Some(0) }).await;
    assert!(CacheBackend::get(&*middle, b"k").await.unwrap().is_some());
    assert!(other.tiers.delete(b"k").await.unwrap());
    eventually("it is gone from all three", || async {
        depth().await.is_none()
    })
    .await;
    assert_eq!(outer.name(), "three");
}

#[tokio::test]
async fn a_value_that_is_too_large_for_the_far_tier_stays_near_and_replaces_what_was_there() {
    let clock = clock();
    let store = memory(&clock);
    let one = Process::of(&store, &clock).await;
    let two = Process::of(&store, &clock).await;
    one.set("k", "small").await;
    assert!(two.value("k").await.is_some());
    one.far.limit.store(10, Ordering::SeqCst);
    one.set("k", "much too large").await;
    assert_eq!(one.value("k").await.as_deref(), Some("much too large"));
    assert!(CacheBackend::get(&*store, b"k").await.unwrap().is_none());
    eventually("the other hears", || async {
        two.value("k").await.is_none()
    })
    .await;
    assert!(one.tiers.delete(b"k").await.unwrap(), "it was a value");
    assert_eq!(one.value("k").await, None);

    // Too large for both: refused, and what was there stays.
    one.far.limit.store(usize::MAX, Ordering::SeqCst);
    one.set("k", "small").await;
    one.far.limit.store(10, Ordering::SeqCst);
    let huge = Bytes::from(vec![0; 5 << 20]);
    let refused = one.tiers.set(b"k", huge, None).await.unwrap_err();
    assert_eq!(refused.kind(), askonce::ErrorKind::TooLarge);
    assert_eq!(one.value("k").await.as_deref(), Some("small"));
    assert_eq!(one.tiers.owed(), 0);
}
