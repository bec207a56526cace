//! A far tier that is away, answers late or not at all, and comes back; callers that go away.

use std::sync::atomic::Ordering;
use std::time::Duration;

use askonce::ErrorKind;
use askonce::backend::{CacheBackend, Condition, Glob};
use askonce::tier::TierConfig;
use bytes::Bytes;

use crate::support::{Fault, Process, clock, config, eventually, heard, memory};

const SECOND: Duration = Duration::from_secs(1);

/// Settings under which nothing is repeated but by the test.
fn by_hand() -> TierConfig {
    TierConfig {
        recovery_interval: 3600 * SECOND,
        ..config()
    }
}

#[tokio::test]
async fn a_value_set_without_the_far_tier_is_kept_near_and_the_older_one_is_never_believed() {
    let clock = clock();
    let store = memory(&clock);
    let one = Process::with(&store, &clock, by_hand()).await;
    let two = Process::of(&store, &clock).await;
    one.set("k", "old").await;
    heard(&one, &two).await;
    assert!(two.value("k").await.is_some());
    one.far.set_fault(Fault::Down);
    one.set("k", "new").await;
    assert_eq!(one.value("k").await.as_deref(), Some("new"));
    assert_eq!(one.tiers.owed(), 1);

    one.far.set_fault(Fault::None);
    clock.advance(60 * SECOND);
    assert!(CacheBackend::get(&*store, b"k").await.unwrap().is_some());
    assert_eq!(one.value("k").await, None, "the old one is still there");
    one.tiers.recover().await.unwrap();
    assert_eq!(one.tiers.owed(), 0);
    assert!(CacheBackend::get(&*store, b"k").await.unwrap().is_none());
    eventually("the other hears", || async {
        two.value("k").await.is_none()
    })
    .await;
}

#[tokio::test]
async fn a_delete_that_the_far_tier_missed_is_an_error_holds_here_and_is_repeated() {
    let clock = clock();
    let store = memory(&clock);
    let one = Process::with(&store, &clock, by_hand()).await;
    let two = Process::of(&store, &clock).await;
    one.set("k", "v").await;
    one.set("left", "v").await;
    assert!(two.value("k").await.is_some());
    one.far.set_fault(Fault::Down);
    let error = one.tiers.delete(b"k").await.unwrap_err();
    assert!(error.is_retryable());
    assert_eq!(one.value("k").await, None);
    assert_eq!(one.value("left").await.as_deref(), Some("v"));

    one.far.set_fault(Fault::None);
    assert_eq!(one.value("k").await, None, "though the far tier has it");
    let page = one
        .tiers
        .scan(&Glob::everything(), Default::default(), 10)
        .await;
    assert_eq!(page.unwrap().keys, ["left"], "nor is it listed");
    assert!(
        !one.tiers.delete(b"k").await.unwrap(),
        "it was deleted before"
    );
    assert_eq!(one.tiers.owed(), 0, "and that was the repetition");
    eventually("the other hears", || async {
        two.value("k").await.is_none()
    })
    .await;
    assert_eq!(two.value("left").await.as_deref(), Some("v"));
}

#[tokio::test]
async fn what_was_missed_is_repeated_by_itself_when_the_far_tier_is_back() {
    let clock = clock();
    let store = memory(&clock);
    let one = Process::of(&store, &clock).await;
    let two = Process::of(&store, &clock).await;
    for key in ["a", "b", "c:1", "c:2"] {
        one.set(key, "v").await;
        heard(&one, &two).await;
        assert!(two.value(key).await.is_some());
    }
    one.far.set_fault(Fault::Down);
    one.tiers.delete(b"a").await.unwrap_err();
    one.set("b", "new").await;
    let pattern = Glob::new("c:*");
    one.tiers.delete_matching(&pattern).await.unwrap_err();
    assert_eq!(one.value("c:1").await, None, "it holds here at once");
    assert_eq!(one.tiers.owed(), 3);
    one.far.set_fault(Fault::None);
    one.nothing_owed().await;
    heard(&one, &two).await;
    for key in ["a", "b", "c:1", "c:2"] {
        assert_eq!(two.value(key).await, None, "{key}");
    }
    assert_eq!(one.value("b").await.as_deref(), Some("new"), "near alone");
}

#[tokio::test]
async fn a_later_success_makes_the_repetition_needless() {
    let clock = clock();
    let store = memory(&clock);
    let one = Process::with(&store, &clock, by_hand()).await;
    one.far.set_fault(Fault::Down);
    one.set("k", "missed").await;
    assert_eq!(one.tiers.owed(), 1);
    one.far.set_fault(Fault::None);
    one.set("k", "newest").await;
    assert_eq!(one.tiers.owed(), 0);
    one.tiers.recover().await.unwrap();
    assert_eq!(one.value("k").await.as_deref(), Some("newest"));
    assert!(CacheBackend::get(&*store, b"k").await.unwrap().is_some());
}

#[tokio::test]
async fn a_clear_that_the_far_tier_missed_holds_here_and_is_repeated() {
    let clock = clock();
    let store = memory(&clock);
    let one = Process::with(&store, &clock, by_hand()).await;
    one.set("k", "v").await;
    one.far.set_fault(Fault::Down);
    assert!(
        one.tiers
            .clear()
            .await
            .unwrap_err()
            .to_string()
            .contains("told to fail")
    );
    assert_eq!(one.value("k").await, None);
    one.far.set_fault(Fault::None);
    assert_eq!(one.value("k").await, None, "though the far tier has it");
    assert_eq!(
        one.tiers
            .delete_matching(&Glob::everything())
            .await
            .unwrap(),
        1
    );
    one.tiers.recover().await.unwrap();
    one.set("k", "new").await;
    assert_eq!(one.value("k").await.as_deref(), Some("new"));
}

#[tokio::test]
async fn more_missed_changes_than_are_remembered_clear_the_far_tier() {
    let clock = clock();
    let store = memory(&clock);
    let config = TierConfig {
        recovery_queue: 2,
        ..by_hand()
    };
    let one = Process::with(&store, &clock, config).await;
    let keys = ["a", "b", "c", "bystander"];
    for key in keys {
        one.set(key, "old").await;
    }
    one.far.set_fault(Fault::Down);
    for key in ["a", "b", "c"] {
        one.set(key, "new").await;
    }
    assert_eq!(one.tiers.owed(), 1, "they have become one");
    clock.advance(60 * SECOND);
    one.far.set_fault(Fault::None);
    for key in keys {
        assert_eq!(one.value(key).await, None, "{key} is not believed");
    }
    one.tiers.recover().await.unwrap();
    let usage = CacheBackend::usage(&*store).await.unwrap();
    assert_eq!(usage.entries, 0);
}

#[tokio::test]
async fn an_answer_that_did_not_come_is_taken_for_both_what_happened_and_what_did_not() {
    let clock = clock();
    let store = memory(&clock);
    let one = Process::with(&store, &clock, by_hand()).await;
    let two = Process::of(&store, &clock).await;
    for key in ["set", "deleted", "counted"] {
        one.set(key, "1").await;
        heard(&one, &two).await;
        assert!(two.value(key).await.is_some());
    }
    one.far.set_fault(Fault::NoAnswer);
    one.set("set", "2").await;
    let deleted = one.tiers.delete(b"deleted").await.unwrap_err();
    assert!(deleted.is_retryable());
    let counted = one.tiers.increment(b"counted", 1, None).await.unwrap_err();
    assert_eq!(counted.kind(), ErrorKind::Timeout);
    one.far.set_fault(Fault::None);
    assert_eq!(one.value("set").await.as_deref(), Some("2"));
    assert_eq!(one.value("deleted").await, None);
    // The far tier decides what a counter is.
    assert_eq!(one.value("counted").await.as_deref(), Some("2"));
    one.tiers.recover().await.unwrap();
    heard(&one, &two).await;
    for (key, expected) in [("set", None), ("deleted", None), ("counted", Some("2"))] {
        assert_eq!(two.value(key).await.as_deref(), expected, "{key}");
    }
}

#[tokio::test]
async fn atomic_operations_do_not_act_upon_a_value_that_is_not_believed() {
    let clock = clock();
    let store = memory(&clock);
    let one = Process::with(&store, &clock, by_hand()).await;
    one.set("lock", "held").await;
    one.far.set_fault(Fault::Down);
    one.tiers.delete(b"lock").await.unwrap_err();
    let acquire = || {
        one.tiers
            .set_if(b"lock", Bytes::from("mine"), None, Condition::Absent)
    };
    assert!(acquire().await.unwrap_err().is_retryable());
    one.far.set_fault(Fault::None);
    assert!(acquire().await.unwrap(), "it was deleted");
    assert_eq!(one.tiers.owed(), 0);
}

#[tokio::test]
async fn a_caller_who_goes_away_leaves_no_copy_that_is_wrong() {
    let clock = clock();
    let store = memory(&clock);
    let one = Process::of(&store, &clock).await;
    let two = Process::of(&store, &clock).await;
    let patience = Duration::from_millis(5);
    for operation in ["set", "delete", "touch", "clear", "matching", "set_many"] {
        one.set("k", "old").await;
        heard(&one, &two).await;
        assert!(two.value("k").await.is_some());
        one.far.set_fault(Fault::Hang);
        let new = Bytes::from("new");
        let cut_off = match operation {
            "set" => tokio::time::timeout(patience, one.tiers.set(b"k", new, None))
                .await
                .is_err(),
            "delete" => tokio::time::timeout(patience, one.tiers.delete(b"k"))
                .await
                .is_err(),
            "touch" => {
                tokio::time::timeout(patience, one.tiers.touch(b"k", Some(Default::default())))
                    .await
                    .is_err()
            }
            "clear" => tokio::time::timeout(patience, one.tiers.clear())
                .await
                .is_err(),
            "matching" => {
                tokio::time::timeout(patience, one.tiers.delete_matching(&Glob::new("k")))
                    .await
                    .is_err()
            }
            _ => {
                let writes = [askonce::backend::Write {
                    key: Bytes::from("k"),
                    value: new,
                    expires: None,
                }];
                tokio::time::timeout(patience, one.tiers.set_many(&writes))
                    .await
                    .is_err()
            }
        };
        assert!(cut_off, "{operation}");
        one.far.set_fault(Fault::None);
        let truth = CacheBackend::get(&*store, b"k").await.unwrap();
        let truth = truth.map(|held| crate::support::text(&held));
        assert_ne!(truth.as_deref(), Some("old"), "{operation} had happened");
        assert_eq!(one.value("k").await, truth, "{operation}");
        one.nothing_owed().await;
        heard(&one, &two).await;
        assert_eq!(two.value("k").await, truth, "{operation}");
    }
}

#[tokio::test]
async fn news_that_could_not_be_sent_is_sent_later() {
    let clock = clock();
    let store = memory(&clock);
    let one = Process::of(&store, &clock).await;
    let two = Process::of(&store, &clock).await;
    one.set("k", "old").await;
    heard(&one, &two).await;
    assert!(two.value("k").await.is_some());
    one.far.feed.mute.store(true, Ordering::SeqCst);
    one.set("k", "new").await;
    assert_eq!(one.value("k").await.as_deref(), Some("new"));
    assert_eq!(two.value("k").await.as_deref(), Some("old"), "not told yet");
    // Meanwhile the far tier decides, here too.
    let counted = one
        .tiers
        .set_if(b"k", Bytes::from("newer"), None, Condition::Equals(b"new"));
    assert!(counted.await.unwrap());
    assert_eq!(one.value("k").await.as_deref(), Some("newer"));
    one.far.feed.mute.store(false, Ordering::SeqCst);
    one.nothing_owed().await;
    eventually("the other hears", || async {
        two.value("k").await.as_deref() == Some("newer")
    })
    .await;
}

#[tokio::test]
async fn w_25_a_value_set_without_the_far_tier_is_not_ahead_of_it_for_longer_than_the_bound() {
    let clock = clock();
    let store = memory(&clock);
    let one = Process::of(&store, &clock).await;
    let two = Process::of(&store, &clock).await;
    one.far.set_fault(Fault::Down);
    one.set("k", "here").await;
    one.far.set_fault(Fault::None);
    one.nothing_owed().await;
    assert_eq!(one.value("k").await.as_deref(), Some("here"));
    assert_eq!(two.value("k").await, None);
    clock.advance(60 * SECOND);
    assert_eq!(one.value("k").await, None);
}

#[tokio::test]
async fn without_the_far_tier_what_is_near_is_served_and_the_rest_is_its_error() {
    let clock = clock();
    let store = memory(&clock);
    let one = Process::of(&store, &clock).await;
    one.set("near", "v").await;
    CacheBackend::set(&*store, b"far", Bytes::from("v"), None)
        .await
        .unwrap();
    one.far.set_fault(Fault::Down);
    assert_eq!(one.value("near").await.as_deref(), Some("v"));
    let error = one.tiers.get(b"far").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BackendUnavailable);
    let keys = ["near", "far"].map(Bytes::from);
    let found = one.tiers.get_many(&keys).await;
    assert!(found[0].as_ref().unwrap().is_some() && found[1].is_err());
    assert!(one.tiers.ping().await.is_err() && one.tiers.usage().await.is_err());
    assert_eq!(one.tiers.owed(), 0, "reading owes nothing");
}
