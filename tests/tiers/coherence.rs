//! News of other processes' changes: how it arrives, and what a near copy is worth while it may not.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use askonce::backend::{CacheBackend, Glob};
use askonce::tier::{Coherence, SuspectReason, TierConfig};
use bytes::Bytes;

use crate::support::{Far, Fault, Process, clock, config, eventually, heard, memory};

const SECOND: Duration = Duration::from_secs(1);

fn reason(process: &Process) -> Option<SuspectReason> {
    match process.tiers.coherence() {
        Coherence::Suspect { reason, .. } => Some(reason),
        _ => None,
    }
}

#[tokio::test]
async fn a_change_in_one_process_is_seen_by_the_others() {
    let clock = clock();
    let store = memory(&clock);
    let one = Process::of(&store, &clock).await;
    let two = Process::of(&store, &clock).await;
    let agrees = async |expected: Option<&str>, what: &str| {
        eventually(what, || async {
            two.value("key:1").await.as_deref() == expected
        })
        .await;
    };
    one.set("key:1", "1").await;
    agrees(Some("1"), "a value").await;
    one.set("key:1", "2").await;
    agrees(Some("2"), "another value").await;
    assert!(one.tiers.delete(b"key:1").await.unwrap());
    agrees(None, "no value").await;
    for round in 0..3 {
        one.set("key:1", "3").await;
        agrees(Some("3"), "a value again").await;
        match round {
            0 => drop(one.tiers.take(b"key:1").await.unwrap()),
            1 => one.tiers.clear().await.unwrap(),
            _ => assert_eq!(
                one.tiers
                    .delete_matching(&Glob::new("key:*"))
                    .await
                    .unwrap(),
                1
            ),
        }
        agrees(None, "none again").await;
    }
}

#[tokio::test]
async fn a_process_keeps_the_copies_of_what_it_has_written_itself() {
    let clock = clock();
    let store = memory(&clock);
    let one = Process::of(&store, &clock).await;
    let two = Process::of(&store, &clock).await;
    one.set("k", "v").await;
    heard(&one, &two).await;
    heard(&two, &one).await;
    assert_eq!(one.found("k").await, Some(("v".to_owned(), 0)));
}

#[tokio::test]
async fn news_that_is_lost_makes_a_copy_no_older_than_the_bound() {
    let clock = clock();
    let store = memory(&clock);
    let one = Process::of(&store, &clock).await;
    let two = Process::of(&store, &clock).await;
    one.set("set", "old").await;
    one.set("deleted", "old").await;
    heard(&one, &two).await;
    for key in ["set", "deleted"] {
        assert_eq!(two.value(key).await.as_deref(), Some("old"));
    }
    two.far.feed.deaf.store(true, Ordering::SeqCst);
    one.set("set", "new").await;
    assert!(one.tiers.delete(b"deleted").await.unwrap());
    clock.advance(59 * SECOND);
    assert_eq!(
        two.value("set").await.as_deref(),
        Some("old"),
        "the news was lost, or this test shows nothing"
    );
    clock.advance(SECOND);
    assert_eq!(two.value("set").await.as_deref(), Some("new"));
    assert_eq!(two.value("deleted").await, None);
}

#[tokio::test]
async fn a_near_tier_is_not_trusted_before_its_feed_has_been_read() {
    let clock = clock();
    let store = memory(&clock);
    let far = Far::over(&store);
    far.feed.down.store(true, Ordering::SeqCst);
    let process = Process::starting(&clock, config(), far);
    assert_eq!(reason(&process), Some(SuspectReason::Starting));
    process.set("k", "1").await;
    CacheBackend::set(&*store, b"k", Bytes::from("2"), None)
        .await
        .unwrap();
    assert_eq!(process.value("k").await.as_deref(), Some("2"), "checked");
    process.far.feed.down.store(false, Ordering::SeqCst);
    process.is_trusted().await;
    assert_eq!(process.value("k").await.as_deref(), Some("2"));
}

#[tokio::test]
async fn without_its_feed_a_near_tier_is_checked_hit_by_hit() {
    let clock = clock();
    let store = memory(&clock);
    let one = Process::of(&store, &clock).await;
    let two = Process::of(&store, &clock).await;
    for key in ["same", "set", "deleted"] {
        one.set(key, "old").await;
        heard(&one, &two).await;
        assert!(two.value(key).await.is_some());
    }
    two.far.feed.down.store(true, Ordering::SeqCst);
    eventually("it notices", || async {
        reason(&two) == Some(SuspectReason::FeedUnavailable)
    })
    .await;
    one.set("set", "new").await;
    assert!(one.tiers.delete(b"deleted").await.unwrap());
    for (key, expected) in [
        ("same", Some("old")),
        ("set", Some("new")),
        ("deleted", None),
    ] {
        assert_eq!(two.value(key).await.as_deref(), expected, "{key}");
    }
    let keys = ["same", "set", "deleted"].map(Bytes::from);
    let found = two.tiers.get_many(&keys).await;
    let found: Vec<_> = found
        .into_iter()
        .map(|held| held.unwrap().is_some())
        .collect();
    assert_eq!(found, [true, true, false]);
    assert!(!two.has_copy("deleted").await);

    // Now the far tier is away too: what is near is served until its bound.
    two.far.set_fault(Fault::Down);
    assert_eq!(two.value("set").await.as_deref(), Some("new"));
    assert!(two.tiers.get(b"deleted").await.is_err(), "nobody knows");
    clock.advance(60 * SECOND);
    assert!(two.tiers.get(b"set").await.is_err());
}

#[tokio::test]
async fn a_process_that_was_cut_off_catches_up_before_it_trusts_again() {
    let clock = clock();
    let store = memory(&clock);
    let one = Process::of(&store, &clock).await;
    let two = Process::of(&store, &clock).await;
    for key in ["a", "b"] {
        one.set(key, "old").await;
        heard(&one, &two).await;
        assert!(two.value(key).await.is_some());
    }
    two.far.set_fault(Fault::Down);
    eventually("it notices", || async { reason(&two).is_some() }).await;
    one.set("a", "new").await;
    two.far.set_fault(Fault::None);
    two.is_trusted().await;
    assert!(!two.has_copy("a").await, "the news was read late, not lost");
    assert!(two.has_copy("b").await, "and nothing else was dropped");
}

#[tokio::test]
async fn when_messages_were_lost_every_copy_goes() {
    let clock = clock();
    let store = memory(&clock);
    let one = Process::of(&store, &clock).await;
    let two = Process::of(&store, &clock).await;
    one.set("k", "old").await;
    one.set("other", "old").await;
    heard(&one, &two).await;
    assert!(two.value("k").await.is_some() && two.value("other").await.is_some());
    two.far.set_fault(Fault::Down);
    eventually("it notices", || async { reason(&two).is_some() }).await;
    one.set("k", "new").await;
    let feed = CacheBackend::feed(&*store).unwrap();
    // More than the feed keeps. A number of our own version that says nothing.
    for _ in 0..10_001 {
        let message = b"\x01\x04another.number!!";
        feed.append(Bytes::from_static(message)).await.unwrap();
    }
    two.far.set_fault(Fault::None);
    two.is_trusted().await;
    assert!(!two.has_copy("k").await && !two.has_copy("other").await);
    assert_eq!(two.value("k").await.as_deref(), Some("new"));
}

#[tokio::test]
async fn a_message_that_cannot_be_read_makes_every_copy_go() {
    let clock = clock();
    let store = memory(&clock);
    let process = Process::of(&store, &clock).await;
    process.set("k", "v").await;
    let feed = CacheBackend::feed(&*store).unwrap();
    feed.append(Bytes::from_static(b"\x02 of a later version"))
        .await
        .unwrap();
    eventually("the copy goes", || async { !process.has_copy("k").await }).await;
    assert_eq!(process.value("k").await.as_deref(), Some("v"));
    assert_eq!(process.tiers.coherence(), Coherence::Trusted);
}

#[tokio::test]
async fn a_feed_that_has_not_been_read_for_too_long_is_not_trusted() {
    let clock = clock();
    let store = memory(&clock);
    let config = TierConfig {
        feed_wait: 3600 * SECOND,
        feed_lag: 3601 * SECOND,
        near_ttl: 3 * 3600 * SECOND,
        ..config()
    };
    let process = Process::with(&store, &clock, config).await;
    process.set("k", "old").await;
    // The read of the feed is waiting; as after a suspension, time has passed meanwhile.
    tokio::time::sleep(Duration::from_millis(20)).await;
    clock.advance(2 * 3600 * SECOND);
    assert_eq!(reason(&process), Some(SuspectReason::Lagging));
    CacheBackend::set(&*store, b"k", Bytes::from("new"), None)
        .await
        .unwrap();
    assert_eq!(process.value("k").await.as_deref(), Some("new"), "checked");
}

#[tokio::test]
async fn a_far_tier_without_a_feed_leaves_the_bound() {
    let clock = clock();
    let store = memory(&clock);
    let without = |far: Arc<Far>| {
        far.has_feed.store(false, Ordering::SeqCst);
        Process::starting(&clock, config(), far)
    };
    let one = without(Far::over(&store));
    let two = without(Far::over(&store));
    assert_eq!(one.tiers.coherence(), Coherence::NoFeed);
    one.set("k", "old").await;
    assert_eq!(two.found("k").await, Some(("old".to_owned(), 1)));
    one.set("k", "new").await;
    assert_eq!(one.found("k").await, Some(("new".to_owned(), 0)));
    assert_eq!(two.found("k").await, Some(("old".to_owned(), 0)));
    clock.advance(60 * SECOND);
    assert_eq!(two.found("k").await, Some(("new".to_owned(), 1)));
}

#[tokio::test]
async fn a_closed_backend_doubts_its_copies_until_it_is_used_again() {
    let clock = clock();
    let store = memory(&clock);
    let one = Process::of(&store, &clock).await;
    let two = Process::of(&store, &clock).await;
    one.set("k", "old").await;
    heard(&one, &two).await;
    assert!(two.value("k").await.is_some());
    two.tiers.close().await;
    eventually("the task has ended", || async {
        reason(&two) == Some(SuspectReason::Stopped)
    })
    .await;
    one.set("k", "new").await;
    assert_eq!(two.value("k").await.as_deref(), Some("new"));
    two.is_trusted().await;
    one.set("k", "newer").await;
    eventually("it hears again", || async {
        two.value("k").await.as_deref() == Some("newer")
    })
    .await;
}

#[test]
fn a_backend_outlives_the_runtime_it_was_first_used_in() {
    let clock = clock();
    let store = memory(&clock);
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let process = runtime().block_on(Process::of(&store, &clock));
    assert_eq!(reason(&process), Some(SuspectReason::Stopped));
    runtime().block_on(async {
        process.set("k", "v").await;
        process.is_trusted().await;
        assert_eq!(process.value("k").await.as_deref(), Some("v"));
    });
}

#[tokio::test]
async fn what_debug_shows_is_no_key_and_no_value() {
    let clock = clock();
    let store = memory(&clock);
    let process = Process::of(&store, &clock).await;
    process.far.set_fault(Fault::Down);
    process.set("secret-key", "secret-value").await;
    let shown = format!("{:?}", process.tiers);
    assert!(!shown.contains("secret"), "{shown}");
    assert!(shown.contains("owed: 1"), "{shown}");
}
