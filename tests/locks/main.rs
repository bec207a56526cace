//! Locks that processes share: one holder at a time, fences that grow, losses that are told, and nothing
//! left behind by those who went away. Run over every backend that writes conditionally; the others must
//! say that they cannot.
//!
//! Expiry is by a clock that is told the time. Renewals come by the runtime's timer, so tests wait for
//! what must happen, with patience, and never for a time to pass.

#[cfg(feature = "memcached")]
#[path = "../support/memcached.rs"]
mod memcached_server;
#[path = "../support/mod.rs"]
mod support;

mod faults;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use askonce::backend::{BackendHandle, MemoryBackend, MemoryConfig};
use askonce::clock::{Clock, ManualClock};
use askonce::lock::{LockConfig, LockError, LockOptions, Locks, Loss};
use askonce::{Error, ErrorKind};
use bytes::Bytes;

/// A fresh backend that reads the clock; `None`, said aloud, where its server is not installed.
type Make = fn(&Arc<ManualClock>) -> Option<BackendHandle>;

fn memory(clock: &Arc<ManualClock>) -> Option<BackendHandle> {
    let built = MemoryBackend::builder(MemoryConfig::default()).clock(Arc::clone(clock) as _);
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

macro_rules! locks {
    (@tests $make:expr; $($test:ident)*) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            let clock = support::clock();
            let make: Make = $make;
            let Some(backend) = make(&clock) else { return };
            let locks = Locks::new(Arc::clone(&backend), Arc::clone(&clock) as _);
            if backend.capability().conditional_writes {
                super::$test(&clock, &backend, locks).await;
            } else {
                let refused = locks.acquire("job", once()).await;
                assert_eq!(failure(refused).kind(), ErrorKind::Unsupported);
            }
        }
    )* };
    ($($name:ident: $make:expr;)*) => { $(mod $name {
        use super::*;
        locks!(@tests $make;
            one_of_many_holds_it_at_a_time_and_fences_grow
            a_lock_is_free_again_when_it_is_released
            w_12_a_released_lock_can_be_acquired_at_once
            w_15_every_kind_of_store_is_acquired_asked_and_released
            locks_of_other_names_and_prefixes_are_other_locks
            it_is_not_reentrant
            an_expired_lock_lets_the_next_in_and_its_holder_learns_of_it
            w_50_a_late_release_leaves_the_lock_of_the_next_holder
            w_50_a_late_renewal_leaves_the_lock_of_the_next_holder
            w_50_the_holder_is_told_when_its_lock_is_gone
            w_50_a_holder_that_slept_has_the_smaller_fence
            w_51_an_expiry_inside_the_block_is_an_answer_and_no_error
            w_51_the_guards_of_one_name_do_not_forget_each_other
            renewal_keeps_a_lock_beyond_its_time_to_live
            without_renewal_it_ends_after_its_time_to_live
            who_waits_gets_it_when_it_is_released
            who_waits_in_vain_is_told_that_another_holds_it
            a_dropped_guard_releases
            a_cancelled_acquire_leaves_nothing_behind
            a_fence_grows_even_when_the_store_has_lost_its_counter
        );
    })* };
}

locks! {
    memory_backend: memory;
}

#[cfg(feature = "memcached")]
locks! {
    memcached_backend: memcached;
}

#[cfg(feature = "redis")]
locks! {
    redis_backend: redis;
}

const TTL: Duration = Duration::from_millis(300);
/// Far more than anything takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// One attempt at a lock that is not renewed.
fn once() -> LockOptions {
    LockOptions {
        ttl: TTL,
        renew: false,
        ..LockOptions::default()
    }
}

/// A lock that is waited for.
fn patient() -> LockOptions {
    LockOptions {
        wait: Some(PATIENCE),
        retry: Duration::from_millis(2),
        ..LockOptions::default()
    }
}

fn is_held_by_another<T>(acquired: &Result<T, LockError>) -> bool {
    matches!(acquired, Err(LockError::Held))
}

fn failure<T>(acquired: Result<T, LockError>) -> Error {
    match acquired {
        Err(LockError::Failed(error)) => error,
        Err(LockError::Held) => panic!("held by another"),
        Ok(_) => panic!("acquired"),
    }
}

/// Waits until `condition` holds.
async fn until<F: Future<Output = bool>>(condition: impl Fn() -> F) {
    let holds = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, holds).await;
    waited.expect("it happens long before");
}

async fn one_of_many_holds_it_at_a_time_and_fences_grow(
    clock: &Arc<ManualClock>,
    backend: &BackendHandle,
    locks: Locks,
) {
    // Two that share nothing but the store, as in two processes.
    let other = Locks::new(Arc::clone(backend), Arc::clone(clock) as _);
    let inside = Arc::new(AtomicUsize::new(0));
    let fences = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let tasks = (0..16).map(|i| {
        let locks = if i % 2 == 0 { &locks } else { &other }.clone();
        let (inside, fences) = (Arc::clone(&inside), Arc::clone(&fences));
        tokio::spawn(async move {
            for _ in 0..5 {
                let guard = locks.acquire("job", patient()).await.unwrap();
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "alone");
                fences.lock().push(guard.fence());
                tokio::task::yield_now().await;
                assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1, "still alone");
                assert!(guard.release().await.unwrap());
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let fences = fences.lock();
    assert_eq!(fences.len(), 80);
    assert!(fences.is_sorted_by(|a, b| a < b), "{fences:?}");
}

async fn a_lock_is_free_again_when_it_is_released(
    _: &Arc<ManualClock>,
    _: &BackendHandle,
    locks: Locks,
) {
    assert!(!locks.is_held("job").await.unwrap());
    let guard = locks.acquire("job", once()).await.unwrap();
    assert!(guard.is_held() && locks.is_held("job").await.unwrap());
    assert!(is_held_by_another(&locks.acquire("job", once()).await));
    assert!(guard.release().await.unwrap());
    assert!(!locks.is_held("job").await.unwrap());
}

async fn w_12_a_released_lock_can_be_acquired_at_once(
    _: &Arc<ManualClock>,
    _: &BackendHandle,
    locks: Locks,
) {
    let mut last = 0;
    for renew in [false, true, false, true] {
        let options = LockOptions { renew, ..once() };
        let guard = locks.acquire("job", options).await.unwrap();
        assert!(guard.fence() > last);
        last = guard.fence();
        assert!(guard.release().await.unwrap());
    }
}

async fn w_15_every_kind_of_store_is_acquired_asked_and_released(
    _: &Arc<ManualClock>,
    backend: &BackendHandle,
    locks: Locks,
) {
    let guard = locks.acquire("job", once()).await.unwrap();
    let held = backend.get(b"lock:held:job").await.unwrap().unwrap();
    // Token and fence, until the lock runs out.
    assert_eq!(held.bytes.len(), 16 + 8);
    assert!(held.bytes.ends_with(&guard.fence().to_be_bytes()));
    assert!(held.expires.is_some());
    assert!(guard.release().await.unwrap());
    assert_eq!(backend.get(b"lock:held:job").await.unwrap(), None);
    // The counter stays: it has no expiry, or fences would begin again.
    let counter = backend.get(b"lock:fence:job").await.unwrap().unwrap();
    assert_eq!(counter.expires, None);
}

async fn locks_of_other_names_and_prefixes_are_other_locks(
    clock: &Arc<ManualClock>,
    backend: &BackendHandle,
    locks: Locks,
) {
    let config = LockConfig {
        prefix: "jobs".to_owned(),
        ..LockConfig::default()
    };
    let other = Locks::with_config(Arc::clone(backend), Arc::clone(clock) as _, &config).unwrap();
    let mut guards = Vec::new();
    let long = "x".repeat(500);
    for name in ["job", "", "job:1", "fence:job", "\u{fc} \r\n", &long] {
        guards.push(locks.acquire(name, once()).await.unwrap());
        assert!(is_held_by_another(&locks.acquire(name, once()).await));
        guards.push(other.acquire(name, once()).await.unwrap());
    }
    for guard in guards {
        assert!(guard.release().await.unwrap());
    }
}

async fn it_is_not_reentrant(_: &Arc<ManualClock>, _: &BackendHandle, locks: Locks) {
    let guard = locks.acquire("job", once()).await.unwrap();
    assert!(is_held_by_another(&locks.acquire("job", once()).await));
    assert!(guard.is_held());
}

async fn an_expired_lock_lets_the_next_in_and_its_holder_learns_of_it(
    clock: &Arc<ManualClock>,
    _: &BackendHandle,
    locks: Locks,
) {
    let first = locks.acquire("job", once()).await.unwrap();
    clock.advance(TTL - Duration::from_millis(1));
    assert!(first.is_held());
    assert!(is_held_by_another(&locks.acquire("job", once()).await));
    clock.advance(Duration::from_millis(1));
    assert!(!first.is_held(), "it knows by its own clock");
    let second = locks.acquire("job", once()).await.unwrap();
    assert!(second.fence() > first.fence());
    let loss = tokio::time::timeout(PATIENCE, first.lost()).await;
    assert_eq!(loss.unwrap(), Loss::Expired);
    assert!(second.is_held());
}

async fn w_50_a_late_release_leaves_the_lock_of_the_next_holder(
    clock: &Arc<ManualClock>,
    _: &BackendHandle,
    locks: Locks,
) {
    let first = locks.acquire("job", once()).await.unwrap();
    let third = locks.acquire("other", once()).await.unwrap();
    clock.advance(TTL);
    let second = locks.acquire("job", once()).await.unwrap();
    assert!(!first.release().await.unwrap(), "not ours any more");
    assert!(locks.is_held("job").await.unwrap() && second.is_held());
    // Nor does a guard that is dropped late.
    let fourth = locks.acquire("other", once()).await.unwrap();
    drop(third);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(locks.is_held("other").await.unwrap());
    assert!(second.release().await.unwrap() && fourth.release().await.unwrap());
}

async fn w_50_a_late_renewal_leaves_the_lock_of_the_next_holder(
    _: &Arc<ManualClock>,
    backend: &BackendHandle,
    locks: Locks,
) {
    let options = LockOptions {
        renew: true,
        ..once()
    };
    let guard = locks.acquire("job", options).await.unwrap();
    // Another has it, unknown to the holder, whose next renewal finds out.
    let another = Bytes::from_static(b"another's token");
    backend
        .set(b"lock:held:job", another.clone(), None)
        .await
        .unwrap();
    let loss = tokio::time::timeout(PATIENCE, guard.lost()).await;
    assert_eq!(loss.unwrap(), Loss::Gone);
    assert!(!guard.release().await.unwrap());
    let held = backend.get(b"lock:held:job").await.unwrap().unwrap();
    assert_eq!((held.bytes, held.expires), (another, None));
}

async fn w_50_the_holder_is_told_when_its_lock_is_gone(
    _: &Arc<ManualClock>,
    backend: &BackendHandle,
    locks: Locks,
) {
    let options = LockOptions {
        renew: true,
        ..once()
    };
    let guard = locks.acquire("job", options).await.unwrap();
    assert!(guard.is_held());
    backend.clear().await.unwrap();
    // Two that ask are both told, and so is one that asks later.
    let both = async {
        let (one, two) = (guard.lost(), guard.lost());
        (one.await, two.await)
    };
    let told = tokio::time::timeout(PATIENCE, both).await.unwrap();
    assert_eq!(told, (Loss::Gone, Loss::Gone));
    assert_eq!(guard.lost().await, Loss::Gone);
    assert!(!guard.is_held());
}

async fn w_50_a_holder_that_slept_has_the_smaller_fence(
    clock: &Arc<ManualClock>,
    _: &BackendHandle,
    locks: Locks,
) {
    // A resource that remembers the largest fence it has seen refuses the sleeper.
    let sleeper = locks.acquire("job", once()).await.unwrap();
    let mut fences = vec![sleeper.fence()];
    for _ in 0..5 {
        clock.advance(TTL);
        let next = locks.acquire("job", once()).await.unwrap();
        fences.push(next.fence());
        // Not released: the next one waits for its end.
        std::mem::forget(next);
    }
    assert!(fences.is_sorted_by(|a, b| a < b), "{fences:?}");
}

async fn w_51_an_expiry_inside_the_block_is_an_answer_and_no_error(
    clock: &Arc<ManualClock>,
    _: &BackendHandle,
    locks: Locks,
) {
    let guard = locks.acquire("job", once()).await.unwrap();
    clock.advance(TTL);
    assert!(!guard.release().await.unwrap());
    // What is not held by anyone and what another holds are told apart at the next acquire.
    let guard = locks.acquire("job", once()).await.unwrap();
    let error = Error::from(locks.acquire("job", once()).await.unwrap_err());
    assert!(error.is_retryable() && error.to_string().contains("held by another"));
    assert!(guard.release().await.unwrap());
}

async fn w_51_the_guards_of_one_name_do_not_forget_each_other(
    clock: &Arc<ManualClock>,
    _: &BackendHandle,
    locks: Locks,
) {
    let first = locks.acquire("job", once()).await.unwrap();
    clock.advance(TTL);
    let second = locks.acquire("job", once()).await.unwrap();
    assert!(!first.is_held() && second.is_held());
    assert!(!first.release().await.unwrap());
    assert!(second.is_held());
    assert!(second.release().await.unwrap());
}

async fn renewal_keeps_a_lock_beyond_its_time_to_live(
    clock: &Arc<ManualClock>,
    backend: &BackendHandle,
    locks: Locks,
) {
    let options = LockOptions {
        renew: true,
        ..once()
    };
    let guard = locks.acquire("job", options).await.unwrap();
    for _ in 0..6 {
        clock.advance(TTL / 2);
        let renewed = clock.now().after(TTL);
        until(|| async {
            let held = backend.get(b"lock:held:job").await.unwrap();
            held.is_some_and(|held| held.expires == Some(renewed))
        })
        .await;
        assert!(guard.is_held());
        assert!(is_held_by_another(&locks.acquire("job", once()).await));
    }
    assert!(guard.release().await.unwrap());
    assert!(!locks.is_held("job").await.unwrap());
}

async fn without_renewal_it_ends_after_its_time_to_live(
    clock: &Arc<ManualClock>,
    backend: &BackendHandle,
    locks: Locks,
) {
    let guard = locks.acquire("job", once()).await.unwrap();
    let held = backend.get(b"lock:held:job").await.unwrap().unwrap();
    assert_eq!(held.expires, Some(clock.now().after(TTL)));
    clock.advance(TTL);
    let loss = tokio::time::timeout(PATIENCE, guard.lost()).await;
    assert_eq!(loss.unwrap(), Loss::Expired);
    assert!(!locks.is_held("job").await.unwrap());
}

async fn who_waits_gets_it_when_it_is_released(
    _: &Arc<ManualClock>,
    _: &BackendHandle,
    locks: Locks,
) {
    let first = locks.acquire("job", LockOptions::default()).await.unwrap();
    let waiting = tokio::spawn({
        let locks = locks.clone();
        async move { locks.acquire("job", patient()).await.unwrap() }
    });
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert!(!waiting.is_finished());
    let fence = first.fence();
    assert!(first.release().await.unwrap());
    let second = tokio::time::timeout(PATIENCE, waiting).await.unwrap();
    assert!(second.unwrap().fence() > fence);
}

async fn who_waits_in_vain_is_told_that_another_holds_it(
    _: &Arc<ManualClock>,
    _: &BackendHandle,
    locks: Locks,
) {
    let guard = locks.acquire("job", once()).await.unwrap();
    let options = LockOptions {
        wait: Some(Duration::from_millis(500)),
        ..patient()
    };
    assert!(is_held_by_another(&locks.acquire("job", options).await));
    assert!(guard.is_held());
}

async fn a_dropped_guard_releases(_: &Arc<ManualClock>, _: &BackendHandle, locks: Locks) {
    drop(locks.acquire("job", once()).await.unwrap());
    until(|| async { !locks.is_held("job").await.unwrap() }).await;
    // Also from a thread that no runtime runs on.
    let guard = locks.acquire("job", once()).await.unwrap();
    std::thread::spawn(move || drop(guard)).join().unwrap();
    until(|| async { !locks.is_held("job").await.unwrap() }).await;
    // And with the work that was given up.
    let work = tokio::spawn({
        let locks = locks.clone();
        async move {
            let _guard = locks.acquire("job", LockOptions::default()).await.unwrap();
            std::future::pending::<()>().await;
        }
    });
    until(|| async { locks.is_held("job").await.unwrap() }).await;
    work.abort();
    until(|| async { !locks.is_held("job").await.unwrap() }).await;
}

async fn a_cancelled_acquire_leaves_nothing_behind(
    _: &Arc<ManualClock>,
    _: &BackendHandle,
    locks: Locks,
) {
    // One that waits for another's lock.
    let guard = locks.acquire("job", once()).await.unwrap();
    let waiting = locks.acquire("job", patient());
    let waited = tokio::time::timeout(Duration::from_millis(20), waiting).await;
    assert!(waited.is_err());
    assert!(guard.release().await.unwrap());
    until(|| async { !locks.is_held("job").await.unwrap() }).await;
    // One that is cancelled anywhere in the middle of getting it. The clock stands still: what is left
    // behind would stay for ever.
    for micros in (0..3_000).step_by(100) {
        let acquiring = locks.acquire("job", patient());
        let acquired = tokio::time::timeout(Duration::from_micros(micros), acquiring).await;
        drop(acquired);
    }
    let guard = locks.acquire("job", patient()).await.unwrap();
    assert!(guard.release().await.unwrap());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!locks.is_held("job").await.unwrap());
}

async fn a_fence_grows_even_when_the_store_has_lost_its_counter(
    clock: &Arc<ManualClock>,
    backend: &BackendHandle,
    locks: Locks,
) {
    let mut last = 0;
    for _ in 0..3 {
        for _ in 0..5 {
            let guard = locks.acquire("job", once()).await.unwrap();
            assert!(guard.fence() > last);
            last = guard.fence();
            assert!(guard.release().await.unwrap());
        }
        backend.clear().await.unwrap();
        clock.advance(Duration::from_millis(1));
    }
}
