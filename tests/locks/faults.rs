//! Stores that fail, hang, or do what they were asked and do not say so.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use askonce::backend::{
    BackendUsage, BoxFuture, CacheBackend, Capability, Condition, MemoryBackend, MemoryConfig,
    StoredValue,
};
use askonce::clock::{ManualClock, Timestamp};
use askonce::lock::{LockOptions, Locks, Loss};
use askonce::{Error, ErrorKind, Result};
use bytes::Bytes;
use parking_lot::Mutex;

use crate::{PATIENCE, TTL, failure, is_held_by_another, once, patient, support, until};

const WORKS: u8 = 0;
const FAILS: u8 = 1;
const HANGS: u8 = 2;
/// Does it, and then fails.
const LOSES_ANSWERS: u8 = 3;

/// What happens once, in the middle of an operation.
type Interlude = Mutex<Option<BoxFuture<'static, ()>>>;

/// Memory whose conditional writes misbehave on command.
struct Faulty {
    inner: MemoryBackend,
    /// Before the next count.
    before_count: Interlude,
    /// After the next conditional write, before its answer.
    after_write: Interlude,
    fault: AtomicU8,
    /// Conditional writes asked for.
    writes: AtomicUsize,
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty").finish_non_exhaustive()
    }
}

async fn play(interlude: &Interlude) {
    let now = interlude.lock().take();
    if let Some(now) = now {
        now.await;
    }
}

impl Faulty {
    fn be(&self, fault: u8) {
        self.fault.store(fault, Ordering::SeqCst);
    }

    async fn around<T>(&self, operation: impl Future<Output = Result<T>>) -> Result<T> {
        let broken = || Error::new(ErrorKind::BackendUnavailable, "told to fail").retryable();
        match self.fault.load(Ordering::SeqCst) {
            FAILS => Err(broken()),
            HANGS => std::future::pending().await,
            LOSES_ANSWERS => operation.await.and_then(|_| Err(broken())),
            _ => operation.await,
        }
    }
}

impl CacheBackend for Faulty {
    fn name(&self) -> &str {
        "faulty"
    }
    fn capability(&self) -> Capability {
        CacheBackend::capability(&self.inner)
    }
    async fn get(&self, key: &[u8]) -> Result<Option<StoredValue>> {
        CacheBackend::get(&self.inner, key).await
    }
    async fn set(&self, key: &[u8], value: Bytes, expires: Option<Timestamp>) -> Result<()> {
        CacheBackend::set(&self.inner, key, value, expires).await
    }
    async fn delete(&self, key: &[u8]) -> Result<bool> {
        CacheBackend::delete(&self.inner, key).await
    }
    async fn clear(&self) -> Result<()> {
        CacheBackend::clear(&self.inner).await
    }
    async fn usage(&self) -> Result<BackendUsage> {
        CacheBackend::usage(&self.inner).await
    }
    async fn set_if(
        &self,
        key: &[u8],
        value: Bytes,
        expires: Option<Timestamp>,
        condition: Condition<'_>,
    ) -> Result<bool> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        let written = CacheBackend::set_if(&self.inner, key, value, expires, condition);
        let written = self.around(written).await;
        play(&self.after_write).await;
        written
    }
    async fn increment(&self, key: &[u8], by: i64, expires: Option<Timestamp>) -> Result<i64> {
        play(&self.before_count).await;
        let counted = CacheBackend::increment(&self.inner, key, by, expires);
        self.around(counted).await
    }
    async fn delete_if(&self, key: &[u8], expected: &[u8]) -> Result<bool> {
        let deleted = CacheBackend::delete_if(&self.inner, key, expected);
        self.around(deleted).await
    }
}

fn faulty() -> (Arc<ManualClock>, Arc<Faulty>, Locks) {
    let clock = support::clock();
    let inner = MemoryBackend::builder(MemoryConfig::default()).clock(Arc::clone(&clock) as _);
    let faulty = Arc::new(Faulty {
        inner: inner.build().unwrap(),
        before_count: Mutex::default(),
        after_write: Mutex::default(),
        fault: AtomicU8::new(WORKS),
        writes: AtomicUsize::new(0),
    });
    let locks = Locks::new(Arc::clone(&faulty) as _, Arc::clone(&clock) as _);
    (clock, faulty, locks)
}

fn renewed() -> LockOptions {
    LockOptions {
        renew: true,
        ..once()
    }
}

#[tokio::test]
async fn a_store_that_fails_is_told_apart_from_a_lock_that_is_held() {
    let (_, store, locks) = faulty();
    store.be(FAILS);
    for options in [once(), patient()] {
        let error = failure(locks.acquire("job", options).await);
        assert_eq!(error.kind(), ErrorKind::BackendUnavailable);
        assert!(!format!("{error:?}").contains("job"), "{error:?}");
    }
    store.be(WORKS);
    let guard = locks.acquire("job", once()).await.unwrap();
    assert!(is_held_by_another(&locks.acquire("job", once()).await));
    drop(guard);
}

#[tokio::test]
async fn a_store_that_hangs_costs_no_more_than_the_wait_and_is_no_holder() {
    let (_, store, locks) = faulty();
    store.be(HANGS);
    let options = LockOptions {
        wait: Some(Duration::from_millis(50)),
        ..patient()
    };
    let acquiring = tokio::time::timeout(PATIENCE, locks.acquire("job", options));
    let error = failure(acquiring.await.expect("long before"));
    assert_eq!(error.kind(), ErrorKind::Timeout);
}

#[tokio::test]
async fn a_claim_whose_answer_was_lost_is_taken_back() {
    let (_, store, locks) = faulty();
    store.be(LOSES_ANSWERS);
    let error = failure(locks.acquire("job", once()).await);
    assert_eq!(error.kind(), ErrorKind::BackendUnavailable);
    store.be(WORKS);
    // The clock stands still, so it does not run out: it was removed.
    until(|| async { !locks.is_held("job").await.unwrap() }).await;
}

#[tokio::test]
async fn renewals_that_fail_are_tried_again_and_cost_nothing_in_time() {
    let (clock, store, locks) = faulty();
    let guard = locks.acquire("job", renewed()).await.unwrap();
    // One that was asked for just before may end under the same fault; the second has met it whole.
    let two_more = async || {
        let before = store.writes.load(Ordering::SeqCst);
        until(|| async { store.writes.load(Ordering::SeqCst) > before + 1 }).await;
    };
    for fault in [FAILS, LOSES_ANSWERS] {
        store.be(fault);
        two_more().await;
        assert!(guard.is_held());
        clock.advance(TTL / 2);
        store.be(WORKS);
        two_more().await;
        clock.advance(TTL / 2);
        assert!(guard.is_held(), "it was renewed meanwhile");
        two_more().await;
    }
    assert!(guard.release().await.unwrap());
}

#[tokio::test]
async fn w_50_a_holder_whose_renewals_fail_is_told_when_its_time_is_over() {
    for fault in [FAILS, HANGS] {
        let (clock, store, locks) = faulty();
        let guard = locks.acquire("job", renewed()).await.unwrap();
        store.be(fault);
        clock.advance(TTL);
        assert!(!guard.is_held(), "it knows at once, by its own clock");
        let loss = tokio::time::timeout(PATIENCE, guard.lost()).await;
        assert_eq!(loss.unwrap(), Loss::Expired);
        // A store that comes back does not bring the lock back to a holder that was told.
        store.be(WORKS);
        assert!(!guard.is_held());
    }
}

#[tokio::test(start_paused = true)]
async fn w_50_the_shortest_lock_is_not_renewed_more_often_than_every_third_of_its_life() {
    let (_, store, locks) = faulty();
    let options = LockOptions {
        ttl: Duration::from_millis(100),
        retry: Duration::from_millis(10),
        ..renewed()
    };
    let guard = locks.acquire("job", options).await.unwrap();
    let before = store.writes.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let renewals = store.writes.load(Ordering::SeqCst) - before;
    assert!((20..=31).contains(&renewals), "{renewals} in a second");
    assert!(guard.is_held());
}

#[tokio::test]
async fn w_50_a_life_too_short_to_be_renewed_is_refused() {
    let (_, store, locks) = faulty();
    for millis in [0, 1, 99] {
        let options = LockOptions {
            ttl: Duration::from_millis(millis),
            retry: Duration::from_millis(1),
            ..once()
        };
        let error = failure(locks.acquire("job", options).await);
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("options.ttl"), "{error}");
    }
    assert_eq!(store.writes.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_release_that_failed_is_made_up_for_in_the_background() {
    let (_, store, locks) = faulty();
    let guard = locks.acquire("job", once()).await.unwrap();
    store.be(FAILS);
    let error = guard.release().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BackendUnavailable);
    store.be(WORKS);
    until(|| async { !locks.is_held("job").await.unwrap() }).await;
}

#[tokio::test]
async fn a_claim_that_ran_out_before_it_was_counted_is_no_lock() {
    let (clock, store, locks) = faulty();
    let another = Bytes::from_static(b"another's token");
    let meanwhile = {
        let (clock, store, another) = (Arc::clone(&clock), Arc::clone(&store), another.clone());
        async move {
            clock.advance(TTL);
            CacheBackend::set(&store.inner, b"lock:held:job", another, None)
                .await
                .unwrap();
        }
    };
    *store.before_count.lock() = Some(Box::pin(meanwhile));
    assert!(is_held_by_another(&locks.acquire("job", once()).await));
    let held = CacheBackend::get(&store.inner, b"lock:held:job").await;
    assert_eq!(held.unwrap().unwrap().bytes, another);
}

#[tokio::test]
async fn a_renewal_that_is_answered_too_late_does_not_bring_a_lost_lock_back() {
    let (clock, store, locks) = faulty();
    let guard = locks.acquire("job", renewed()).await.unwrap();
    // The store renews in time; its answer comes when the time is over here, and nobody may have worked
    // under the lock since.
    clock.advance(TTL / 3 * 2);
    let late = {
        let clock = Arc::clone(&clock);
        async move { clock.advance(TTL / 2) }
    };
    *store.after_write.lock() = Some(Box::pin(late));
    let loss = tokio::time::timeout(PATIENCE, guard.lost()).await;
    assert_eq!(loss.unwrap(), Loss::Expired);
    assert!(!guard.is_held());
}
