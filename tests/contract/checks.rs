//! The checks of the contract of [`CacheBackend`](askonce::backend::CacheBackend), for any backend.
//!
//! A test binary mounts this file as its module `checks`, with `#[macro_use]`, and gives `contract!` a
//! constructor for each backend: `contract! { name: make; }` makes a module `name` with one test for each
//! check. Each check is given a backend of its own, empty, and the clock that it reads.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use askonce::ErrorKind;
use askonce::backend::{
    BackendHandle, Condition, Cursor, FeedHandle, FeedPosition, Glob, MAX_COUNT, StoredValue, Write,
};
use askonce::clock::{Clock, ManualClock, Timestamp};
use bytes::Bytes;
use proptest::prelude::*;

/// A fresh backend that reads the clock and has room for the values of the checks; `None`, said aloud,
/// where its server is not installed.
pub(crate) type Make = fn(&Arc<ManualClock>) -> Option<BackendHandle>;

/// A clock that shows a plausible date.
pub(crate) fn clock() -> Arc<ManualClock> {
    ManualClock::starting_at(Timestamp::from_millis(1_790_000_000_000))
}

/// One module of tests for each backend.
macro_rules! contract {
    (@checks $make:expr; $($check:ident)*) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $check() {
            let clock = crate::checks::clock();
            let make: crate::checks::Make = $make;
            if let Some(backend) = make(&clock) {
                crate::checks::$check(&clock, backend).await;
            }
        }
    )* };
    ($($name:ident: $make:expr;)*) => { $(mod $name {
        use super::*;
        contract!(@checks $make;
            what_is_set_is_read_back
            an_absent_key_is_none
            the_empty_value_is_a_value
            any_bytes_are_a_key
            a_value_comes_with_its_expiry
            a_value_is_gone_at_its_expiry_and_not_before
            a_life_of_one_millisecond_is_one_millisecond
            a_value_without_expiry_stays
            replacing_a_value_replaces_its_expiry
            an_expiry_in_the_past_leaves_the_key_absent
            delete_says_whether_there_was_a_value
            deleting_an_expired_value_says_false
            clear_removes_everything
            a_value_that_can_never_fit_is_refused_and_changes_nothing
            usage_counts_live_values
            many_tasks_may_use_it_at_once
            it_answers_a_ping_and_works_after_a_close
            what_it_cannot_do_it_refuses_by_name
            set_if_absent_stores_only_where_there_is_nothing
            set_if_present_stores_only_where_there_is_something
            set_if_equals_stores_only_over_the_same_bytes
            an_expired_value_is_absent_to_every_condition
            a_conditional_write_with_an_expiry_in_the_past_removes_what_it_replaces
            a_conditional_write_that_can_never_fit_is_refused_and_changes_nothing
            one_of_many_gets_to_be_the_first_writer
            no_conditional_write_is_lost_among_others
            delete_if_removes_only_the_same_bytes
            what_was_cleared_is_absent_to_every_condition
            take_gives_what_it_removes
            one_of_many_takers_gets_the_value
            touch_changes_the_expiry_and_nothing_else
            touching_an_absent_or_expired_key_says_false
            touching_into_the_past_removes
            a_counter_starts_at_zero_and_lives_until_its_expiry
            a_counter_keeps_its_own_expiry
            a_counter_goes_down_and_below_zero
            a_counter_that_would_overflow_stays_as_it_was
            what_is_no_counter_is_not_counted
            many_tasks_count_exactly
            get_many_answers_in_order_whatever_is_asked
            set_many_stores_each_and_the_last_of_a_key_stays
            one_item_that_does_not_fit_leaves_the_others
            delete_many_says_for_each_whether_there_was_a_value
            batches_of_hundreds_come_back_in_order
            a_scan_finds_every_key
            a_scan_finds_only_what_matches
            deleting_by_pattern_counts_and_leaves_the_rest
            a_feed_gives_messages_in_order_and_once
            a_feed_has_an_end_to_start_from
            a_reader_that_waits_is_woken_by_a_message
            a_feed_keeps_a_thousand_messages
            a_feed_that_does_not_know_a_position_says_so
        );
        #[test]
        fn any_sequence_of_operations_matches_a_map() {
            crate::checks::matches_a_map($make);
        }
    })* };
}

/// The bytes under `key`.
async fn value(backend: &BackendHandle, key: &[u8]) -> Option<Bytes> {
    backend.get(key).await.unwrap().map(|held| held.bytes)
}

pub(crate) async fn what_is_set_is_read_back(_: &Arc<ManualClock>, backend: BackendHandle) {
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

pub(crate) async fn an_absent_key_is_none(_: &Arc<ManualClock>, backend: BackendHandle) {
    assert_eq!(value(&backend, b"k").await, None);
}

pub(crate) async fn the_empty_value_is_a_value(_: &Arc<ManualClock>, backend: BackendHandle) {
    backend.set(b"k", Bytes::new(), None).await.unwrap();
    assert_eq!(value(&backend, b"k").await, Some(Bytes::new()));
}

pub(crate) async fn any_bytes_are_a_key(_: &Arc<ManualClock>, backend: BackendHandle) {
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

pub(crate) async fn a_value_is_gone_at_its_expiry_and_not_before(
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

pub(crate) async fn a_value_without_expiry_stays(clock: &Arc<ManualClock>, backend: BackendHandle) {
    backend
        .set(b"k", Bytes::from_static(b"v"), None)
        .await
        .unwrap();
    clock.advance(Duration::from_secs(10 * 365 * 24 * 60 * 60));
    assert!(backend.get(b"k").await.unwrap().is_some());
}

pub(crate) async fn replacing_a_value_replaces_its_expiry(
    clock: &Arc<ManualClock>,
    backend: BackendHandle,
) {
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

pub(crate) async fn an_expiry_in_the_past_leaves_the_key_absent(
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

pub(crate) async fn delete_says_whether_there_was_a_value(
    _: &Arc<ManualClock>,
    backend: BackendHandle,
) {
    backend
        .set(b"k", Bytes::from_static(b"v"), None)
        .await
        .unwrap();
    assert!(backend.delete(b"k").await.unwrap());
    assert!(!backend.delete(b"k").await.unwrap());
    assert_eq!(value(&backend, b"k").await, None);
}

pub(crate) async fn deleting_an_expired_value_says_false(
    clock: &Arc<ManualClock>,
    backend: BackendHandle,
) {
    let soon = clock.now().after(Duration::from_secs(1));
    backend
        .set(b"k", Bytes::from_static(b"v"), Some(soon))
        .await
        .unwrap();
    clock.advance(Duration::from_secs(1));
    assert!(!backend.delete(b"k").await.unwrap());
}

pub(crate) async fn clear_removes_everything(_: &Arc<ManualClock>, backend: BackendHandle) {
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

pub(crate) async fn a_value_that_can_never_fit_is_refused_and_changes_nothing(
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

pub(crate) async fn usage_counts_live_values(_: &Arc<ManualClock>, backend: BackendHandle) {
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

pub(crate) async fn many_tasks_may_use_it_at_once(_: &Arc<ManualClock>, backend: BackendHandle) {
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

pub(crate) async fn a_value_comes_with_its_expiry(
    clock: &Arc<ManualClock>,
    backend: BackendHandle,
) {
    let expires = clock.now().after(Duration::from_millis(61_234));
    set(&backend, b"k", b"v", Some(expires)).await;
    let held = backend.get(b"k").await.unwrap().unwrap();
    assert_eq!(held.expires, Some(expires));
    set(&backend, b"k", b"v", None).await;
    assert_eq!(backend.get(b"k").await.unwrap().unwrap().expires, None);
}

pub(crate) async fn a_life_of_one_millisecond_is_one_millisecond(
    clock: &Arc<ManualClock>,
    backend: BackendHandle,
) {
    let expires = clock.now().after(Duration::from_millis(1));
    set(&backend, b"k", b"v", Some(expires)).await;
    assert!(value(&backend, b"k").await.is_some());
    clock.advance(Duration::from_millis(1));
    assert_eq!(value(&backend, b"k").await, None);
}

pub(crate) async fn it_answers_a_ping_and_works_after_a_close(
    _: &Arc<ManualClock>,
    backend: BackendHandle,
) {
    backend.ping().await.unwrap();
    set(&backend, b"k", b"v", None).await;
    backend.close().await;
    set(&backend, b"k", b"w", None).await;
    assert_eq!(value(&backend, b"k").await.as_deref(), Some(&b"w"[..]));
    backend.ping().await.unwrap();
}

/// Whether the backend can write conditionally. The check then goes on; that the others refuse it is a
/// check of its own.
fn is_conditional(backend: &BackendHandle) -> bool {
    backend.capability().conditional_writes
}

pub(crate) async fn what_it_cannot_do_it_refuses_by_name(
    _: &Arc<ManualClock>,
    backend: BackendHandle,
) {
    set(&backend, b"k", b"v", None).await;
    let mut refused = Vec::new();
    if !is_conditional(&backend) {
        for condition in [
            Condition::Absent,
            Condition::Present,
            Condition::Equals(b"v"),
        ] {
            let written = backend.set_if(b"k", Bytes::from_static(b"w"), None, condition);
            refused.push(written.await.map(drop));
        }
        refused.push(backend.delete_if(b"k", b"v").await.map(drop));
        refused.push(backend.take(b"k").await.map(drop));
        refused.push(backend.touch(b"k", None).await.map(drop));
        refused.push(backend.increment(b"count", 1, None).await.map(drop));
    }
    if !backend.capability().lists_keys {
        let all = Glob::everything();
        refused.push(backend.scan(&all, Cursor::default(), 10).await.map(drop));
        refused.push(backend.delete_matching(&all).await.map(drop));
    }
    for (i, refused) in refused.into_iter().enumerate() {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{i}: {error}");
        assert!(error.to_string().contains("operation: "), "{i}: {error}");
    }
    assert_eq!(value(&backend, b"k").await.as_deref(), Some(&b"v"[..]));
    assert_eq!(value(&backend, b"count").await, None);
}

async fn set(
    backend: &BackendHandle,
    key: &[u8],
    value: &'static [u8],
    expires: Option<Timestamp>,
) {
    let value = Bytes::from_static(value);
    backend.set(key, value, expires).await.unwrap();
}

async fn set_if(
    backend: &BackendHandle,
    key: &[u8],
    value: &'static [u8],
    condition: Condition<'_>,
) -> bool {
    let value = Bytes::from_static(value);
    backend.set_if(key, value, None, condition).await.unwrap()
}

pub(crate) async fn set_if_absent_stores_only_where_there_is_nothing(
    clock: &Arc<ManualClock>,
    backend: BackendHandle,
) {
    if !is_conditional(&backend) {
        return;
    }
    let soon = clock.now().after(Duration::from_secs(1));
    let first = Bytes::from_static(b"first");
    let absent = Condition::Absent;
    assert!(
        backend
            .set_if(b"k", first, Some(soon), absent)
            .await
            .unwrap()
    );
    assert!(!set_if(&backend, b"k", b"second", absent).await);
    // Neither the value nor its expiry is the second's.
    let held = backend.get(b"k").await.unwrap();
    let first = StoredValue::new(Bytes::from_static(b"first"), Some(soon));
    assert_eq!(
        held.map(|held| (held.bytes, held.expires)),
        Some((first.bytes, first.expires))
    );
    backend.delete(b"k").await.unwrap();
    assert!(set_if(&backend, b"k", b"", absent).await);
    // The empty value is a value.
    assert!(!set_if(&backend, b"k", b"third", absent).await);
}

pub(crate) async fn set_if_present_stores_only_where_there_is_something(
    clock: &Arc<ManualClock>,
    backend: BackendHandle,
) {
    if !is_conditional(&backend) {
        return;
    }
    assert!(!set_if(&backend, b"k", b"v", Condition::Present).await);
    assert_eq!(value(&backend, b"k").await, None);
    let soon = clock.now().after(Duration::from_secs(1));
    set(&backend, b"k", b"", Some(soon)).await;
    assert!(set_if(&backend, b"k", b"v", Condition::Present).await);
    // Value and expiry are replaced together.
    clock.advance(Duration::from_secs(2));
    assert_eq!(value(&backend, b"k").await.as_deref(), Some(&b"v"[..]));
}

pub(crate) async fn set_if_equals_stores_only_over_the_same_bytes(
    _: &Arc<ManualClock>,
    backend: BackendHandle,
) {
    if !is_conditional(&backend) {
        return;
    }
    assert!(!set_if(&backend, b"k", b"v", Condition::Equals(b"")).await);
    let binary = b"\0\xff\r\n  ";
    set(&backend, b"k", binary, None).await;
    for other in [&b""[..], b"\0\xff\r\n ", b"\0\xff\r\n  \0", b"v"] {
        assert!(!set_if(&backend, b"k", b"v", Condition::Equals(other)).await);
        assert_eq!(value(&backend, b"k").await.as_deref(), Some(&binary[..]));
    }
    assert!(set_if(&backend, b"k", b"", Condition::Equals(binary)).await);
    assert!(!set_if(&backend, b"k", b"w", Condition::Equals(binary)).await);
    assert!(set_if(&backend, b"k", b"w", Condition::Equals(b"")).await);
    assert_eq!(value(&backend, b"k").await.as_deref(), Some(&b"w"[..]));
}

pub(crate) async fn an_expired_value_is_absent_to_every_condition(
    clock: &Arc<ManualClock>,
    backend: BackendHandle,
) {
    if !is_conditional(&backend) {
        return;
    }
    let soon = clock.now().after(Duration::from_millis(500));
    for key in [b"a", b"b", b"c"] {
        set(&backend, key, b"v", Some(soon)).await;
    }
    clock.advance(Duration::from_millis(500));
    assert!(!set_if(&backend, b"a", b"w", Condition::Present).await);
    assert!(!set_if(&backend, b"a", b"w", Condition::Equals(b"v")).await);
    assert!(!backend.delete_if(b"a", b"v").await.unwrap());
    assert_eq!(backend.take(b"b").await.unwrap(), None);
    assert!(set_if(&backend, b"a", b"w", Condition::Absent).await);
    assert_eq!(value(&backend, b"a").await.as_deref(), Some(&b"w"[..]));
    // What is no counter is none any more either.
    assert_eq!(backend.increment(b"c", 3, None).await.unwrap(), 3);
}

pub(crate) async fn a_conditional_write_with_an_expiry_in_the_past_removes_what_it_replaces(
    clock: &Arc<ManualClock>,
    backend: BackendHandle,
) {
    if !is_conditional(&backend) {
        return;
    }
    let now = Some(clock.now());
    let write = |condition| backend.set_if(b"k", Bytes::from_static(b"w"), now, condition);
    assert!(write(Condition::Absent).await.unwrap());
    assert_eq!(value(&backend, b"k").await, None);
    for condition in [Condition::Present, Condition::Equals(b"v")] {
        assert!(!write(condition).await.unwrap());
        set(&backend, b"k", b"v", None).await;
        assert!(!write(Condition::Absent).await.unwrap());
        assert!(!write(Condition::Equals(b"x")).await.unwrap());
        assert!(value(&backend, b"k").await.is_some());
        assert!(write(condition).await.unwrap());
        assert_eq!(value(&backend, b"k").await, None);
    }
}

pub(crate) async fn a_conditional_write_that_can_never_fit_is_refused_and_changes_nothing(
    _: &Arc<ManualClock>,
    backend: BackendHandle,
) {
    let Some(most) = backend.capability().max_value_bytes else {
        return;
    };
    if !is_conditional(&backend) {
        return;
    }
    set(&backend, b"k", b"v", None).await;
    let large = Bytes::from(vec![0; most + 1]);
    for condition in [Condition::Present, Condition::Equals(b"v")] {
        let written = backend.set_if(b"k", large.clone(), None, condition);
        assert_eq!(written.await.unwrap_err().kind(), ErrorKind::TooLarge);
        assert_eq!(value(&backend, b"k").await.as_deref(), Some(&b"v"[..]));
    }
}

/// Runs `task` sixteen times at once and gives what each returned.
async fn at_once<T, F>(backend: &BackendHandle, task: impl Fn(usize, BackendHandle) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let tasks = (0..16).map(|i| tokio::spawn(task(i, Arc::clone(backend))));
    let mut returned = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        returned.push(task.await.unwrap());
    }
    returned
}

pub(crate) async fn one_of_many_gets_to_be_the_first_writer(
    _: &Arc<ManualClock>,
    backend: BackendHandle,
) {
    if !is_conditional(&backend) {
        return;
    }
    for round in 0..20_u8 {
        let won = at_once(&backend, move |i, backend| async move {
            let own = Bytes::from(vec![u8::try_from(i).unwrap()]);
            backend
                .set_if(&[round], own, None, Condition::Absent)
                .await
                .unwrap()
        });
        let won = won.await;
        assert_eq!(won.iter().filter(|won| **won).count(), 1, "round {round}");
        let held = value(&backend, &[round]).await.unwrap();
        assert!(won[usize::from(held[0])], "what is held is the winner's");
    }
}

pub(crate) async fn no_conditional_write_is_lost_among_others(
    _: &Arc<ManualClock>,
    backend: BackendHandle,
) {
    if !is_conditional(&backend) {
        return;
    }
    // Each writer adds its own letter by reading, appending and comparing.
    set(&backend, b"k", b"", None).await;
    at_once(&backend, |i, backend| async move {
        for _ in 0..5 {
            loop {
                let held = value(&backend, b"k").await.unwrap();
                let mut longer = held.to_vec();
                longer.push(b'a' + u8::try_from(i).unwrap());
                let same = Condition::Equals(&held);
                if backend
                    .set_if(b"k", longer.into(), None, same)
                    .await
                    .unwrap()
                {
                    break;
                }
            }
        }
    })
    .await;
    let held = value(&backend, b"k").await.unwrap();
    for letter in b'a'..b'a' + 16 {
        assert_eq!(held.iter().filter(|byte| **byte == letter).count(), 5);
    }
}

pub(crate) async fn delete_if_removes_only_the_same_bytes(
    _: &Arc<ManualClock>,
    backend: BackendHandle,
) {
    if !is_conditional(&backend) {
        return;
    }
    assert!(!backend.delete_if(b"k", b"").await.unwrap());
    set(&backend, b"k", b"v\0", None).await;
    for other in [&b""[..], b"v", b"v\0\0"] {
        assert!(!backend.delete_if(b"k", other).await.unwrap());
    }
    assert!(value(&backend, b"k").await.is_some());
    assert!(backend.delete_if(b"k", b"v\0").await.unwrap());
    assert!(!backend.delete_if(b"k", b"v\0").await.unwrap());
    assert_eq!(value(&backend, b"k").await, None);
}

pub(crate) async fn what_was_cleared_is_absent_to_every_condition(
    _: &Arc<ManualClock>,
    backend: BackendHandle,
) {
    if !is_conditional(&backend) {
        return;
    }
    for key in [b"a", b"b", b"c"] {
        set(&backend, key, b"7", None).await;
    }
    backend.clear().await.unwrap();
    assert!(!set_if(&backend, b"a", b"w", Condition::Present).await);
    assert!(!set_if(&backend, b"a", b"w", Condition::Equals(b"7")).await);
    assert!(!backend.delete_if(b"a", b"7").await.unwrap());
    assert!(!backend.touch(b"b", None).await.unwrap());
    assert_eq!(backend.take(b"b").await.unwrap(), None);
    assert_eq!(backend.increment(b"c", 1, None).await.unwrap(), 1);
    assert!(set_if(&backend, b"a", b"w", Condition::Absent).await);
}

pub(crate) async fn take_gives_what_it_removes(clock: &Arc<ManualClock>, backend: BackendHandle) {
    if !is_conditional(&backend) {
        return;
    }
    assert_eq!(backend.take(b"k").await.unwrap(), None);
    let soon = clock.now().after(Duration::from_secs(1));
    set(&backend, b"k", b"", Some(soon)).await;
    let taken = backend.take(b"k").await.unwrap().unwrap();
    assert_eq!((taken.bytes, taken.expires), (Bytes::new(), Some(soon)));
    assert_eq!(value(&backend, b"k").await, None);
    assert_eq!(backend.take(b"k").await.unwrap(), None);
}

pub(crate) async fn one_of_many_takers_gets_the_value(
    _: &Arc<ManualClock>,
    backend: BackendHandle,
) {
    if !is_conditional(&backend) {
        return;
    }
    for round in 0..20 {
        set(&backend, b"k", b"v", None).await;
        let taken = at_once(&backend, |_, backend| async move {
            backend.take(b"k").await.unwrap().map(|held| held.bytes)
        });
        let taken: Vec<_> = taken.await.into_iter().flatten().collect();
        assert_eq!(taken, [Bytes::from_static(b"v")], "round {round}");
    }
}

pub(crate) async fn touch_changes_the_expiry_and_nothing_else(
    clock: &Arc<ManualClock>,
    backend: BackendHandle,
) {
    if !is_conditional(&backend) {
        return;
    }
    let in_secs = |secs| Some(clock.now().after(Duration::from_secs(secs)));
    set(&backend, b"k", b"v", in_secs(1)).await;
    assert!(backend.touch(b"k", in_secs(5)).await.unwrap());
    clock.advance(Duration::from_secs(4));
    assert_eq!(value(&backend, b"k").await.as_deref(), Some(&b"v"[..]));
    assert!(backend.touch(b"k", None).await.unwrap());
    clock.advance(Duration::from_secs(400));
    assert_eq!(value(&backend, b"k").await.as_deref(), Some(&b"v"[..]));
    assert!(backend.touch(b"k", in_secs(1)).await.unwrap());
    clock.advance(Duration::from_secs(1));
    assert_eq!(value(&backend, b"k").await, None);
}

pub(crate) async fn touching_an_absent_or_expired_key_says_false(
    clock: &Arc<ManualClock>,
    backend: BackendHandle,
) {
    if !is_conditional(&backend) {
        return;
    }
    assert!(!backend.touch(b"k", None).await.unwrap());
    let soon = clock.now().after(Duration::from_secs(1));
    set(&backend, b"k", b"v", Some(soon)).await;
    clock.advance(Duration::from_secs(1));
    // It does not come back to life.
    assert!(!backend.touch(b"k", None).await.unwrap());
    assert_eq!(value(&backend, b"k").await, None);
}

pub(crate) async fn touching_into_the_past_removes(
    clock: &Arc<ManualClock>,
    backend: BackendHandle,
) {
    if !is_conditional(&backend) {
        return;
    }
    set(&backend, b"k", b"v", None).await;
    assert!(backend.touch(b"k", Some(clock.now())).await.unwrap());
    assert_eq!(value(&backend, b"k").await, None);
    assert!(!backend.touch(b"k", Some(clock.now())).await.unwrap());
}

pub(crate) async fn a_counter_starts_at_zero_and_lives_until_its_expiry(
    clock: &Arc<ManualClock>,
    backend: BackendHandle,
) {
    if !is_conditional(&backend) {
        return;
    }
    let soon = clock.now().after(Duration::from_secs(2));
    assert_eq!(backend.increment(b"k", 5, Some(soon)).await.unwrap(), 5);
    // Its digits are what is stored.
    assert_eq!(value(&backend, b"k").await.as_deref(), Some(&b"5"[..]));
    clock.advance(Duration::from_secs(2));
    assert_eq!(value(&backend, b"k").await, None);
    assert_eq!(backend.increment(b"k", 1, None).await.unwrap(), 1);
}

pub(crate) async fn a_counter_keeps_its_own_expiry(
    clock: &Arc<ManualClock>,
    backend: BackendHandle,
) {
    if !is_conditional(&backend) {
        return;
    }
    let in_secs = |secs| Some(clock.now().after(Duration::from_secs(secs)));
    backend.increment(b"a", 1, in_secs(2)).await.unwrap();
    backend.increment(b"a", 1, None).await.unwrap();
    backend.increment(b"b", 1, None).await.unwrap();
    backend.increment(b"b", 1, in_secs(2)).await.unwrap();
    clock.advance(Duration::from_secs(2));
    assert_eq!(value(&backend, b"a").await, None);
    assert_eq!(value(&backend, b"b").await.as_deref(), Some(&b"2"[..]));
}

pub(crate) async fn a_counter_goes_down_and_below_zero(
    _: &Arc<ManualClock>,
    backend: BackendHandle,
) {
    if !is_conditional(&backend) {
        return;
    }
    for (by, count) in [(10, 10), (-3, 7), (0, 7), (-100, -93), (93, 0), (-1, -1)] {
        assert_eq!(backend.increment(b"k", by, None).await.unwrap(), count);
    }
    assert_eq!(value(&backend, b"k").await.as_deref(), Some(&b"-1"[..]));
    // Shorter digits leave nothing of longer ones behind.
    set(&backend, b"k", b"100", None).await;
    assert_eq!(backend.increment(b"k", -1, None).await.unwrap(), 99);
    assert_eq!(value(&backend, b"k").await.as_deref(), Some(&b"99"[..]));
}

pub(crate) async fn a_counter_that_would_overflow_stays_as_it_was(
    _: &Arc<ManualClock>,
    backend: BackendHandle,
) {
    if !is_conditional(&backend) {
        return;
    }
    for (end, beyond) in [(MAX_COUNT, 1), (-MAX_COUNT, -1)] {
        backend.delete(b"k").await.unwrap();
        assert_eq!(backend.increment(b"k", end, None).await.unwrap(), end);
        for by in [
            beyond,
            beyond * MAX_COUNT,
            if beyond > 0 { i64::MAX } else { i64::MIN },
        ] {
            let error = backend.increment(b"k", by, None).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{by}");
        }
        assert_eq!(backend.increment(b"k", 0, None).await.unwrap(), end);
    }
    // One that is not there yet is not made.
    backend.delete(b"k").await.unwrap();
    let error = backend
        .increment(b"k", MAX_COUNT + 1, None)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert_eq!(value(&backend, b"k").await, None);
}

pub(crate) async fn what_is_no_counter_is_not_counted(
    _: &Arc<ManualClock>,
    backend: BackendHandle,
) {
    if !is_conditional(&backend) {
        return;
    }
    let others: [&[u8]; 9] = [
        b"", b"secret", b"01", b"+1", b"-0", b" 1", b"1\n", b"1.5", b"\xff\0",
    ];
    for other in others {
        set(&backend, b"k", other, None).await;
        let error = backend.increment(b"k", 1, None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{other:?}");
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        assert_eq!(value(&backend, b"k").await.as_deref(), Some(other));
    }
}

pub(crate) async fn many_tasks_count_exactly(_: &Arc<ManualClock>, backend: BackendHandle) {
    if !is_conditional(&backend) {
        return;
    }
    let seen = at_once(&backend, |_, backend| async move {
        let mut seen = Vec::new();
        for _ in 0..50 {
            seen.push(backend.increment(b"k", 1, None).await.unwrap());
        }
        seen
    });
    let seen: BTreeSet<i64> = seen.await.into_iter().flatten().collect();
    assert!(seen.into_iter().eq(1..=800), "each count is given once");
    assert_eq!(value(&backend, b"k").await.as_deref(), Some(&b"800"[..]));
}

fn keys(keys: &[&'static [u8]]) -> Vec<Bytes> {
    keys.iter().map(|key| Bytes::from_static(key)).collect()
}

async fn values(backend: &BackendHandle, keys: &[Bytes]) -> Vec<Option<Bytes>> {
    let found = backend.get_many(keys).await;
    found
        .into_iter()
        .map(|found| found.unwrap().map(|held| held.bytes))
        .collect()
}

pub(crate) async fn get_many_answers_in_order_whatever_is_asked(
    clock: &Arc<ManualClock>,
    backend: BackendHandle,
) {
    assert!(backend.get_many(&[]).await.is_empty());
    set(&backend, b"a", b"1", None).await;
    set(&backend, b"b", b"", None).await;
    let soon = clock.now().after(Duration::from_secs(1));
    set(&backend, b"dead", b"3", Some(soon)).await;
    clock.advance(Duration::from_secs(1));
    let asked = keys(&[b"b", b"none", b"a", b"dead", b"a", b"\xff \r\n"]);
    let one = Some(Bytes::from_static(b"1"));
    let expected = [Some(Bytes::new()), None, one.clone(), None, one, None];
    assert_eq!(values(&backend, &asked).await, expected);
}

fn write(key: &'static [u8], value: &'static [u8], expires: Option<Timestamp>) -> Write {
    Write {
        key: Bytes::from_static(key),
        value: Bytes::from_static(value),
        expires,
    }
}

pub(crate) async fn set_many_stores_each_and_the_last_of_a_key_stays(
    clock: &Arc<ManualClock>,
    backend: BackendHandle,
) {
    assert!(backend.set_many(&[]).await.is_empty());
    set(&backend, b"old", b"v", None).await;
    let soon = clock.now().after(Duration::from_secs(1));
    let writes = [
        write(b"a", b"1", None),
        write(b"b\r\n", b"", Some(soon)),
        write(b"a", b"2", Some(soon)),
        write(b"old", b"w", Some(clock.now())),
        write(b"c", b"3", None),
    ];
    let stored = backend.set_many(&writes).await;
    assert_eq!(stored.len(), 5);
    assert!(stored.into_iter().all(|stored| stored.is_ok()));
    let asked = keys(&[b"a", b"b\r\n", b"old", b"c"]);
    let three = Some(Bytes::from_static(b"3"));
    let two = Some(Bytes::from_static(b"2"));
    let expected = [two, Some(Bytes::new()), None, three.clone()];
    assert_eq!(values(&backend, &asked).await, expected);
    clock.advance(Duration::from_secs(1));
    assert_eq!(values(&backend, &asked).await, [None, None, None, three]);
}

pub(crate) async fn one_item_that_does_not_fit_leaves_the_others(
    _: &Arc<ManualClock>,
    backend: BackendHandle,
) {
    let Some(most) = backend.capability().max_value_bytes else {
        return;
    };
    set(&backend, b"b", b"old", None).await;
    let mut writes = [
        write(b"a", b"1", None),
        write(b"b", b"", None),
        write(b"c", b"3", None),
    ];
    writes[1].value = Bytes::from(vec![0; most + 1]);
    let stored = backend.set_many(&writes).await;
    assert!(stored[0].is_ok() && stored[2].is_ok(), "{stored:?}");
    assert_eq!(stored[1].as_ref().unwrap_err().kind(), ErrorKind::TooLarge);
    let held = values(&backend, &keys(&[b"a", b"b", b"c"])).await;
    let held: Vec<_> = held.iter().map(Option::as_deref).collect();
    assert_eq!(held, [Some(&b"1"[..]), Some(b"old"), Some(b"3")]);
}

pub(crate) async fn delete_many_says_for_each_whether_there_was_a_value(
    clock: &Arc<ManualClock>,
    backend: BackendHandle,
) {
    assert!(backend.delete_many(&[]).await.is_empty());
    let soon = clock.now().after(Duration::from_secs(1));
    set(&backend, b"a", b"1", None).await;
    set(&backend, b"b", b"", None).await;
    set(&backend, b"c", b"3", None).await;
    set(&backend, b"dead", b"4", Some(soon)).await;
    clock.advance(Duration::from_secs(1));
    let gone = keys(&[b"a", b"none", b"b", b"dead", b"a"]);
    let deleted = backend.delete_many(&gone).await;
    let deleted: Vec<bool> = deleted.into_iter().map(Result::unwrap).collect();
    assert_eq!(deleted[1..4], [false, true, false]);
    assert!(
        deleted[0] != deleted[4],
        "one of the two removed it: {deleted:?}"
    );
    assert!(values(&backend, &gone).await.iter().all(Option::is_none));
    assert!(value(&backend, b"c").await.is_some());
}

pub(crate) async fn batches_of_hundreds_come_back_in_order(
    _: &Arc<ManualClock>,
    backend: BackendHandle,
) {
    let writes: Vec<Write> = (0..700_u32)
        .map(|i| Write {
            key: Bytes::from(format!("key:{i}")),
            value: Bytes::from(vec![b'x'; 100 + i as usize]),
            expires: None,
        })
        .collect();
    assert!(backend.set_many(&writes).await.iter().all(Result::is_ok));
    let keys: Vec<Bytes> = writes.iter().map(|write| write.key.clone()).collect();
    let held = values(&backend, &keys).await;
    assert_eq!(held.len(), 700);
    for (held, write) in held.iter().zip(&writes) {
        assert_eq!(held.as_ref(), Some(&write.value));
    }
    let deleted = backend.delete_many(&keys).await;
    assert!(deleted.into_iter().all(Result::unwrap));
    assert!(values(&backend, &keys).await.iter().all(Option::is_none));
}

/// Every key that the scan shows, by pages of about `limit`.
async fn scan(backend: &BackendHandle, pattern: &Glob, limit: usize) -> BTreeSet<Bytes> {
    let mut found = BTreeSet::new();
    let mut cursor = Cursor::default();
    for _ in 0..10_000 {
        let page = backend.scan(pattern, cursor, limit).await.unwrap();
        found.extend(page.keys);
        match page.next {
            Some(next) => cursor = next,
            None => return found,
        }
    }
    panic!("the scan does not end");
}

pub(crate) async fn a_scan_finds_every_key(_: &Arc<ManualClock>, backend: BackendHandle) {
    if !backend.capability().lists_keys {
        return;
    }
    assert!(scan(&backend, &Glob::everything(), 10).await.is_empty());
    let mut stored: BTreeSet<Bytes> = (0..300).map(|i| Bytes::from(format!("key:{i}"))).collect();
    stored.extend(keys(&[
        b"",
        b"\0",
        b"\xff \r\n",
        b"*",
        b"[a]",
        b"%41",
        b"a::b",
        b"{a}b",
    ]));
    for key in &stored {
        set(&backend, key, b"v", None).await;
    }
    for limit in [1, 7, 10_000] {
        assert_eq!(scan(&backend, &Glob::everything(), limit).await, stored);
    }
}

pub(crate) async fn a_scan_finds_only_what_matches(_: &Arc<ManualClock>, backend: BackendHandle) {
    if !backend.capability().lists_keys {
        return;
    }
    for key in keys(&[
        b"user:1",
        b"user:2",
        b"user:10",
        b"users:1",
        b"user:*",
        b"\xffuser:1",
    ]) {
        set(&backend, &key, b"v", None).await;
    }
    for (pattern, expected) in [
        ("user:?", keys(&[b"user:1", b"user:2", b"user:*"])),
        ("user:1*", keys(&[b"user:1", b"user:10"])),
        ("user:[12]", keys(&[b"user:1", b"user:2"])),
        ("user:[^1]", keys(&[b"user:2", b"user:*"])),
        (r"user:\*", keys(&[b"user:*"])),
        ("*r:1", keys(&[b"user:1", b"\xffuser:1"])),
        ("nobody:*", keys(&[])),
        ("", keys(&[])),
    ] {
        let found = scan(&backend, &Glob::new(pattern), 2).await;
        assert_eq!(found, expected.into_iter().collect(), "{pattern}");
    }
}

pub(crate) async fn deleting_by_pattern_counts_and_leaves_the_rest(
    clock: &Arc<ManualClock>,
    backend: BackendHandle,
) {
    if !backend.capability().lists_keys {
        return;
    }
    let soon = clock.now().after(Duration::from_secs(1));
    for i in 0..250 {
        set(&backend, format!("a:{i}").as_bytes(), b"v", None).await;
    }
    set(&backend, b"a:dead", b"v", Some(soon)).await;
    set(&backend, b"b:1", b"v", None).await;
    set(&backend, b"aa:1", b"v", None).await;
    clock.advance(Duration::from_secs(1));
    let pattern = Glob::new("a:*");
    assert_eq!(backend.delete_matching(&pattern).await.unwrap(), 250);
    assert_eq!(backend.delete_matching(&pattern).await.unwrap(), 0);
    let left = scan(&backend, &Glob::everything(), 10).await;
    assert_eq!(left, keys(&[b"b:1", b"aa:1"]).into_iter().collect());
}

/// Everything after `position`, in as many reads as it takes.
async fn read_all(feed: &FeedHandle, mut position: FeedPosition) -> (Vec<Bytes>, FeedPosition) {
    let mut messages = Vec::new();
    loop {
        let batch = feed.read(position, Duration::ZERO).await.unwrap();
        assert!(!batch.gap, "nothing was trimmed");
        position = batch.next;
        if batch.messages.is_empty() {
            return (messages, position);
        }
        messages.extend(batch.messages);
    }
}

pub(crate) async fn a_feed_gives_messages_in_order_and_once(
    _: &Arc<ManualClock>,
    backend: BackendHandle,
) {
    let Some(feed) = backend.feed() else { return };
    let start = feed.tail().await.unwrap();
    let sent = keys(&[b"first", b"\0\xff\r\n", b"", b"first"]);
    for message in &sent {
        feed.append(message.clone()).await.unwrap();
    }
    let (read, end) = read_all(&feed, start.clone()).await;
    assert_eq!(read, sent);
    // Another reader, with a handle of its own, reads the same; this one goes on where it was.
    let other = backend.feed().unwrap();
    assert_eq!(read_all(&other, start).await.0, sent);
    other.append(Bytes::from_static(b"later")).await.unwrap();
    assert_eq!(read_all(&feed, end).await.0, keys(&[b"later"]));
}

pub(crate) async fn a_feed_has_an_end_to_start_from(_: &Arc<ManualClock>, backend: BackendHandle) {
    let Some(feed) = backend.feed() else { return };
    feed.append(Bytes::from_static(b"before")).await.unwrap();
    let tail = feed.tail().await.unwrap();
    assert!(read_all(&feed, tail.clone()).await.0.is_empty());
    feed.append(Bytes::from_static(b"after")).await.unwrap();
    assert_eq!(read_all(&feed, tail).await.0, keys(&[b"after"]));
}

pub(crate) async fn a_reader_that_waits_is_woken_by_a_message(
    _: &Arc<ManualClock>,
    backend: BackendHandle,
) {
    let Some(feed) = backend.feed() else { return };
    let tail = feed.tail().await.unwrap();
    let quiet = feed
        .read(tail.clone(), Duration::from_millis(20))
        .await
        .unwrap();
    assert!(quiet.messages.is_empty() && !quiet.gap);
    let reader = tokio::spawn({
        let feed = Arc::clone(&feed);
        async move { feed.read(tail, Duration::from_secs(3_600)).await.unwrap() }
    });
    // Most likely it waits by then; the check holds either way.
    tokio::time::sleep(Duration::from_millis(50)).await;
    feed.append(Bytes::from_static(b"now")).await.unwrap();
    let batch = tokio::time::timeout(Duration::from_secs(60), reader).await;
    let batch = batch.expect("it returns long before its hour").unwrap();
    assert_eq!(batch.messages, keys(&[b"now"]));
}

pub(crate) async fn a_feed_keeps_a_thousand_messages(_: &Arc<ManualClock>, backend: BackendHandle) {
    let Some(feed) = backend.feed() else { return };
    feed.append(Bytes::from_static(b"before")).await.unwrap();
    let start = feed.tail().await.unwrap();
    let sent: Vec<Bytes> = (0..999).map(|i| Bytes::from(format!("{i}"))).collect();
    for message in &sent {
        feed.append(message.clone()).await.unwrap();
    }
    assert_eq!(read_all(&feed, start).await.0, sent);
}

pub(crate) async fn a_feed_that_does_not_know_a_position_says_so(
    _: &Arc<ManualClock>,
    backend: BackendHandle,
) {
    let Some(feed) = backend.feed() else { return };
    feed.append(Bytes::from_static(b"m")).await.unwrap();
    let unknown = FeedPosition::new(&b"not a position"[..]);
    let batch = feed.read(unknown, Duration::ZERO).await.unwrap();
    assert!(batch.gap, "{batch:?}");
    // It can go on from there.
    feed.append(Bytes::from_static(b"n")).await.unwrap();
    let (read, _) = read_all(&feed, batch.next).await;
    assert_eq!(read.last().map(|last| &last[..]), Some(&b"n"[..]));
}

#[derive(Clone, Copy, Debug)]
enum If {
    Absent,
    Present,
    /// The bytes that the model holds, if it holds any.
    Same,
    /// These very likely are not.
    Other,
}

#[derive(Clone, Debug)]
enum Step {
    Set {
        key: u8,
        value: Vec<u8>,
        life: Option<u16>,
    },
    SetIf {
        key: u8,
        value: Vec<u8>,
        life: Option<u16>,
        condition: If,
    },
    DeleteIf {
        key: u8,
        same: bool,
    },
    Get {
        key: u8,
    },
    Take {
        key: u8,
    },
    Touch {
        key: u8,
        life: Option<u16>,
    },
    Increment {
        key: u8,
        by: i64,
        life: Option<u16>,
    },
    Delete {
        key: u8,
    },
    SetMany {
        items: Vec<(u8, Vec<u8>, Option<u16>)>,
    },
    GetMany {
        keys: Vec<u8>,
    },
    DeleteMany {
        keys: Vec<u8>,
    },
    Scan,
    Advance {
        millis: u16,
    },
    Clear,
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..6_u8;
    let life = || prop::option::of(0..2_000_u16);
    let value = || {
        prop_oneof![
            2 => prop::collection::vec(any::<u8>(), 0..40),
            1 => (-100..100_i32).prop_map(|count| count.to_string().into_bytes()),
        ]
    };
    let condition = prop::sample::select(vec![If::Absent, If::Present, If::Same, If::Other]);
    let some_keys = || prop::collection::vec(0..6_u8, 0..8);
    prop_oneof![
        4 => (key.clone(), value(), life())
            .prop_map(|(key, value, life)| Step::Set { key, value, life }),
        4 => (key.clone(), value(), life(), condition)
            .prop_map(|(key, value, life, condition)| Step::SetIf { key, value, life, condition }),
        2 => (key.clone(), any::<bool>()).prop_map(|(key, same)| Step::DeleteIf { key, same }),
        4 => key.clone().prop_map(|key| Step::Get { key }),
        2 => key.clone().prop_map(|key| Step::Take { key }),
        3 => (key.clone(), life()).prop_map(|(key, life)| Step::Touch { key, life }),
        3 => (key.clone(), -1_000..1_000_i64, life())
            .prop_map(|(key, by, life)| Step::Increment { key, by, life }),
        2 => key.clone().prop_map(|key| Step::Delete { key }),
        2 => prop::collection::vec((key, value(), life()), 0..6)
            .prop_map(|items| Step::SetMany { items }),
        2 => some_keys().prop_map(|keys| Step::GetMany { keys }),
        1 => some_keys().prop_map(|keys| Step::DeleteMany { keys }),
        1 => Just(Step::Scan),
        3 => (0..1_500_u16).prop_map(|millis| Step::Advance { millis }),
        1 => Just(Step::Clear),
    ]
}

/// What a backend should hold: each value with its expiry.
#[derive(Debug)]
struct Model {
    now: Timestamp,
    held: HashMap<u8, (Vec<u8>, Option<Timestamp>)>,
}

impl Model {
    fn expires(&self, life: Option<u16>) -> Option<Timestamp> {
        life.map(|life| self.now.after(Duration::from_millis(life.into())))
    }

    fn write(&mut self, key: u8, value: Vec<u8>, expires: Option<Timestamp>) {
        self.held.insert(key, (value, expires));
        self.expire();
    }

    fn expire(&mut self) {
        let now = self.now;
        self.held
            .retain(|_, (_, expires)| expires.is_none_or(|expires| now < expires));
    }

    fn value(&self, key: u8) -> Option<&Vec<u8>> {
        self.held.get(&key).map(|(value, _)| value)
    }
}

fn held_bytes(held: Option<StoredValue>) -> Option<Vec<u8>> {
    held.map(|held| held.bytes.to_vec())
}

/// Runs one step on both and compares what they say.
async fn both(backend: &BackendHandle, model: &mut Model, step: Step) -> Result<(), TestCaseError> {
    let conditional = is_conditional(backend);
    match step {
        Step::Set { key, value, life } => {
            let expires = model.expires(life);
            backend
                .set(&[key], value.clone().into(), expires)
                .await
                .unwrap();
            model.write(key, value, expires);
        }
        Step::SetIf {
            key,
            value,
            life,
            condition,
        } if conditional => {
            let expires = model.expires(life);
            let now = model.value(key).cloned();
            let other = b"something else altogether, and long".to_vec();
            let (asked, holds) = match condition {
                If::Absent => (Condition::Absent, now.is_none()),
                If::Present => (Condition::Present, now.is_some()),
                If::Same => (
                    Condition::Equals(now.as_deref().unwrap_or_default()),
                    now.is_some(),
                ),
                If::Other => (Condition::Equals(&other), now.as_ref() == Some(&other)),
            };
            let done = backend
                .set_if(&[key], value.clone().into(), expires, asked)
                .await
                .unwrap();
            prop_assert_eq!(done, holds);
            if holds {
                model.write(key, value, expires);
            }
        }
        Step::DeleteIf { key, same } if conditional => {
            let now = model.value(key).cloned();
            let mut expected = now.clone().unwrap_or_default();
            if !same {
                expected.push(0);
            }
            let done = backend.delete_if(&[key], &expected).await.unwrap();
            prop_assert_eq!(done, now.is_some() && same);
            if done {
                model.held.remove(&key);
            }
        }
        Step::Get { key } => {
            let held = backend.get(&[key]).await.unwrap();
            let held = held.map(|held| (held.bytes.to_vec(), held.expires));
            prop_assert_eq!(held.as_ref(), model.held.get(&key));
        }
        Step::Take { key } if conditional => {
            let taken = held_bytes(backend.take(&[key]).await.unwrap());
            prop_assert_eq!(taken, model.held.remove(&key).map(|(value, _)| value));
        }
        Step::Touch { key, life } if conditional => {
            let expires = model.expires(life);
            let touched = backend.touch(&[key], expires).await.unwrap();
            let held = model.value(key).cloned();
            prop_assert_eq!(touched, held.is_some());
            if let Some(value) = held {
                model.write(key, value, expires);
            }
        }
        Step::Increment { key, by, life } if conditional => {
            let counted = backend.increment(&[key], by, model.expires(life)).await;
            let (now, expires) = match model.held.get(&key) {
                Some((digits, expires)) => (count(digits), *expires),
                None => (Some(0), model.expires(life)),
            };
            match now {
                Some(now) => {
                    prop_assert_eq!(counted.unwrap(), now + by);
                    model.write(key, (now + by).to_string().into_bytes(), expires);
                }
                None => prop_assert_eq!(counted.unwrap_err().kind(), ErrorKind::InvalidRequest),
            }
        }
        Step::Delete { key } => {
            let had = backend.delete(&[key]).await.unwrap();
            prop_assert_eq!(had, model.held.remove(&key).is_some());
        }
        Step::SetMany { items } => {
            let writes: Vec<Write> = items
                .iter()
                .map(|(key, value, life)| Write {
                    key: vec![*key].into(),
                    value: value.clone().into(),
                    expires: model.expires(*life),
                })
                .collect();
            let stored = backend.set_many(&writes).await;
            prop_assert_eq!(stored.len(), items.len());
            prop_assert!(stored.into_iter().all(|stored| stored.is_ok()));
            for (key, value, life) in items {
                model.write(key, value, model.expires(life));
            }
        }
        Step::GetMany { keys } => {
            let asked: Vec<Bytes> = keys.iter().map(|key| vec![*key].into()).collect();
            let found = backend.get_many(&asked).await.into_iter();
            let found: Vec<_> = found.map(|held| held_bytes(held.unwrap())).collect();
            let expected: Vec<_> = keys.iter().map(|key| model.value(*key).cloned()).collect();
            prop_assert_eq!(found, expected);
        }
        Step::DeleteMany { keys } => {
            let gone: Vec<Bytes> = keys.iter().map(|key| vec![*key].into()).collect();
            let deleted = backend.delete_many(&gone).await.into_iter();
            let deleted = deleted.filter(|deleted| *deleted.as_ref().unwrap()).count();
            let held = model.held.len();
            model.held.retain(|key, _| !keys.contains(key));
            prop_assert_eq!(deleted, held - model.held.len());
        }
        Step::Scan if backend.capability().lists_keys => {
            let found = scan(backend, &Glob::everything(), 2).await;
            for key in model.held.keys() {
                prop_assert!(found.contains(&[*key][..]), "{} is not listed", key);
            }
        }
        Step::Clear => {
            backend.clear().await.unwrap();
            model.held.clear();
        }
        Step::Advance { .. }
        | Step::SetIf { .. }
        | Step::DeleteIf { .. }
        | Step::Take { .. }
        | Step::Touch { .. }
        | Step::Increment { .. }
        | Step::Scan => {}
    }
    Ok(())
}

/// The count that these digits spell, if they are the digits of one.
fn count(digits: &[u8]) -> Option<i64> {
    let count: i64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (count.to_string().as_bytes() == digits).then_some(count)
}

/// The backend and a map of values with their expiry agree after any sequence of operations.
pub(crate) fn matches_a_map(make: Make) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    proptest!(ProptestConfig::with_cases(64), |(steps in prop::collection::vec(step(), 1..60))| {
        runtime.block_on(async {
            let clock = clock();
            let Some(backend) = make(&clock) else {
                return Ok(());
            };
            let mut model = Model { now: clock.now(), held: HashMap::new() };
            for step in steps {
                if let Step::Advance { millis } = step {
                    clock.advance(Duration::from_millis(millis.into()));
                    model.now = clock.now();
                    model.expire();
                }
                both(&backend, &mut model, step).await?;
            }
            Ok::<(), TestCaseError>(())
        })?;
    });
}
