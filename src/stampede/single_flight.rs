//! One call per key in this process.
//!
//! The first caller of a key becomes its leader: the call runs in a task of its own, so it goes on
//! when the leader's caller hangs up. With [`SingleFlight::run_in_place`] it runs in the leader's own
//! task instead, so it may borrow, and ends when the leader's caller hangs up. Everybody who asks for
//! the key while the call runs waits for its result, an error included, which is shared with those
//! present and not kept.
//!
//! A call that panics or is aborted gives no result. One waiter then runs its own call in its place;
//! the others wait for that one. Each caller's call runs at most once, so a call that always panics
//! ends with an error for each caller and never loops.
//!
//! Always true: at most one call per key runs; no lock is held across a call; a finished flight is
//! removed by identity, so that it never removes its successor. Waiting across processes is not
//! handled here.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::Instrument as _;

/// How a caller came by its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flight {
    /// This caller's call ran.
    Led,
    /// The call of another caller ran.
    Followed,
}

enum State<V> {
    Running,
    Done(V),
    /// The call ended without a result: it panicked or its task was aborted.
    Abandoned,
}

type Calls<K, V> = Mutex<HashMap<K, watch::Receiver<State<V>>>>;

/// Runs at most one call per key at a time. Cheap to clone; clones share the calls.
pub struct SingleFlight<K, V> {
    calls: Arc<Calls<K, V>>,
}

impl<K, V> Clone for SingleFlight<K, V> {
    fn clone(&self) -> Self {
        Self {
            calls: Arc::clone(&self.calls),
        }
    }
}

impl<K, V> Default for SingleFlight<K, V> {
    fn default() -> Self {
        Self {
            calls: Arc::default(),
        }
    }
}

impl<K, V> fmt::Debug for SingleFlight<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleFlight")
            .field("running", &self.calls.lock().len())
            .finish()
    }
}

/// Ends a flight, whatever way its task ends: with a result, by panic, or by being dropped.
struct Landing<K: Eq + Hash, V> {
    calls: Weak<Calls<K, V>>,
    key: K,
    sender: watch::Sender<State<V>>,
    result: Option<V>,
}

impl<K: Eq + Hash, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        if let Some(calls) = self.calls.upgrade() {
            let mut calls = calls.lock();
            if calls
                .get(&self.key)
                .is_some_and(|call| call.same_channel(&self.sender.subscribe()))
            {
                calls.remove(&self.key);
            }
        }
        // After the removal: a waiter that wakes up and finds nothing running may start anew.
        self.sender
            .send_replace(self.result.take().map_or(State::Abandoned, State::Done));
    }
}

/// What a caller that makes its calls itself finds for a key.
#[must_use = "a lead that is dropped abandons its flight"]
pub enum Claim<K: Eq + Hash, V> {
    /// No call was running: this caller is to make it.
    Leads(Lead<K, V>, Waiter<V>),
    /// Another's is.
    Follows(Waiter<V>),
}

impl<K: Eq + Hash, V> fmt::Debug for Claim<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leads(..) => "Claim::Leads",
            Self::Follows(_) => "Claim::Follows",
        })
    }
}

/// A flight that waits for its result. One that is dropped without is abandoned.
pub struct Lead<K: Eq + Hash, V>(Landing<K, V>);

impl<K: Eq + Hash, V> Lead<K, V> {
    /// Gives the result to all who wait.
    pub fn land(mut self, value: V) {
        self.0.result = Some(value);
    }
}

impl<K: Eq + Hash, V> fmt::Debug for Lead<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lead")
    }
}

/// The wait for a flight's result.
pub struct Waiter<V>(watch::Receiver<State<V>>);

impl<V: Clone> Waiter<V> {
    /// The result, once it is there; `None` of a flight that was abandoned.
    pub async fn landed(mut self) -> Option<V> {
        let running = |state: &State<V>| matches!(state, State::Running);
        // Every flight sends once before its sender goes away, so an error means abandoned.
        let state = self.0.wait_for(|state| !running(state)).await.ok()?;
        match &*state {
            State::Done(value) => Some(value.clone()),
            State::Running | State::Abandoned => None,
        }
    }
}

impl<V> fmt::Debug for Waiter<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waiter")
    }
}

/// What a caller finds when it asks for a key.
enum Joined<K: Eq + Hash, V, F> {
    /// A call is running.
    Running(watch::Receiver<State<V>>),
    /// None was; the caller's own is registered and must be started.
    Leads {
        call: F,
        landing: Landing<K, V>,
        receiver: watch::Receiver<State<V>>,
    },
    /// None was, and the caller's own has run already.
    Spent,
}

impl<K, V> SingleFlight<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// The number of calls that are running.
    #[must_use]
    pub fn running(&self) -> usize {
        self.calls.lock().len()
    }

    /// Whether a call for `key` is running.
    #[must_use]
    pub fn is_running(&self, key: &K) -> bool {
        self.calls.lock().contains_key(key)
    }

    /// The result of the call for `key`: of the one that is running, or of `call`.
    ///
    /// `None` when this caller's own call panicked or was aborted. Must be called within a tokio
    /// runtime, where the call runs as a task.
    pub async fn run<F, Fut>(&self, key: K, call: F) -> Option<(V, Flight)>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = V> + Send + 'static,
    {
        let mut call = Some(call);
        let mut flight = Flight::Followed;
        loop {
            let mut receiver = match self.join(&key, &mut call) {
                Joined::Running(receiver) => receiver,
                Joined::Leads {
                    call,
                    landing,
                    receiver,
                } => {
                    flight = Flight::Led;
                    // Outside the lock: a runtime that is shutting down drops the task here and now,
                    // and the landing takes the lock again.
                    let flight = async move {
                        let mut landing = landing;
                        landing.result = Some(call().await);
                    };
                    // What the call does is part of what its first caller asked for.
                    tokio::spawn(flight.in_current_span());
                    receiver
                }
                Joined::Spent => return None,
            };
            // Every flight sends once before its sender goes away, so an error means abandoned.
            if let Ok(state) = receiver
                .wait_for(|state| !matches!(state, State::Running))
                .await
                && let State::Done(value) = &*state
            {
                return Some((value.clone(), flight));
            }
            flight = Flight::Followed;
        }
    }

    /// As [`run`](Self::run), with the call in the caller's own task: `call` may borrow, and no runtime
    /// is needed. Dropping the returned future ends the call, if it is this caller's, and one of those
    /// who wait then runs its own. A panic unwinds to this caller.
    ///
    /// `call` is polled only if it is this caller's that runs.
    pub async fn run_in_place<Fut>(&self, key: K, call: Fut) -> (V, Flight)
    where
        Fut: Future<Output = V>,
    {
        let mut call = Some(call);
        loop {
            let mut receiver = match self.join(&key, &mut call) {
                Joined::Running(receiver) => receiver,
                Joined::Leads {
                    call, mut landing, ..
                } => {
                    let value = call.await;
                    landing.result = Some(value.clone());
                    return (value, Flight::Led);
                }
                Joined::Spent => unreachable!("a caller that has led has returned"),
            };
            if let Ok(state) = receiver
                .wait_for(|state| !matches!(state, State::Running))
                .await
                && let State::Done(value) = &*state
            {
                return (value.clone(), Flight::Followed);
            }
        }
    }

    /// Joins the running call of `key`, or registers one that this caller is to make, together with those of
    /// other keys perhaps.
    pub fn claim(&self, key: &K) -> Claim<K, V> {
        match self.join(key, &mut Some(())) {
            Joined::Leads {
                landing, receiver, ..
            } => Claim::Leads(Lead(landing), Waiter(receiver)),
            Joined::Running(receiver) => Claim::Follows(Waiter(receiver)),
            Joined::Spent => unreachable!("there is always a call to give"),
        }
    }

    /// Joins the running call of `key`, or registers a new one with `call`.
    fn join<F>(&self, key: &K, call: &mut Option<F>) -> Joined<K, V, F> {
        match self.calls.lock().entry(key.clone()) {
            Entry::Occupied(running) => Joined::Running(running.get().clone()),
            Entry::Vacant(vacant) => {
                let Some(call) = call.take() else {
                    return Joined::Spent;
                };
                let (sender, receiver) = watch::channel(State::Running);
                vacant.insert(receiver.clone());
                let calls = Arc::downgrade(&self.calls);
                let landing = Landing {
                    calls,
                    key: key.clone(),
                    sender,
                    result: None,
                };
                Joined::Leads {
                    call,
                    landing,
                    receiver,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::sync::Notify;

    use super::*;

    type Flights = SingleFlight<u8, Result<u32, String>>;

    #[tokio::test]
    async fn a_claim_is_led_by_one_until_it_lands_or_is_given_up() {
        let flights = Flights::default();
        let Claim::Leads(lead, own) = flights.claim(&1) else {
            panic!("nobody else asked");
        };
        let Claim::Follows(other) = flights.claim(&1) else {
            panic!("one leads");
        };
        assert!(matches!(flights.claim(&2), Claim::Leads(..)));
        lead.land(Ok(7));
        assert_eq!(own.landed().await, Some(Ok(7)));
        assert_eq!(other.landed().await, Some(Ok(7)));
        assert_eq!(flights.running(), 0);
        let Claim::Leads(lead, _) = flights.claim(&1) else {
            panic!("the flight is over");
        };
        let Claim::Follows(left) = flights.claim(&1) else {
            panic!("one leads");
        };
        drop(lead);
        assert_eq!(left.landed().await, None);
    }

    #[tokio::test]
    async fn a_thousand_callers_make_one_call() {
        let flights = Flights::default();
        let calls = Arc::new(AtomicUsize::new(0));
        let release = Arc::new(Notify::new());
        let callers: Vec<_> = (0..1_000)
            .map(|_| {
                let (flights, calls, release) = (flights.clone(), calls.clone(), release.clone());
                tokio::spawn(async move {
                    let call = || async move {
                        calls.fetch_add(1, Ordering::SeqCst);
                        release.notified().await;
                        Ok(42)
                    };
                    flights.run(1, call).await.unwrap()
                })
            })
            .collect();
        while calls.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        for _ in 0..2_000 {
            tokio::task::yield_now().await;
        }
        release.notify_one();
        let mut leaders = 0;
        for caller in callers {
            let (value, flight) = caller.await.unwrap();
            assert_eq!(value, Ok(42));
            leaders += usize::from(flight == Flight::Led);
        }
        assert_eq!((calls.load(Ordering::SeqCst), leaders), (1, 1));
        assert_eq!(flights.running(), 0);
    }

    #[tokio::test]
    async fn waiters_survive_a_cancelled_leader() {
        let flights = Flights::default();
        let release = Arc::new(Notify::new());
        let leader = tokio::spawn({
            let (flights, release) = (flights.clone(), release.clone());
            async move {
                let call = || async move {
                    release.notified().await;
                    Ok(7)
                };
                flights.run(1, call).await
            }
        });
        while flights.running() == 0 {
            tokio::task::yield_now().await;
        }
        leader.abort();
        assert!(leader.await.unwrap_err().is_cancelled());
        let follower = tokio::spawn({
            let flights = flights.clone();
            async move {
                flights
                    .run(1, || async { Err("second call".to_owned()) })
                    .await
            }
        });
        tokio::task::yield_now().await;
        release.notify_one();
        assert_eq!(follower.await.unwrap(), Some((Ok(7), Flight::Followed)));
    }

    #[tokio::test]
    async fn a_panic_promotes_one_waiter() {
        let flights = Flights::default();
        let release = Arc::new(Notify::new());
        let leader = tokio::spawn({
            let (flights, release) = (flights.clone(), release.clone());
            async move {
                let call = || async move {
                    release.notified().await;
                    panic!("the call fails hard");
                };
                flights.run(1, call).await
            }
        });
        while flights.running() == 0 {
            tokio::task::yield_now().await;
        }
        let calls = Arc::new(AtomicUsize::new(0));
        let waiters: Vec<_> = (0..20)
            .map(|_| {
                let (flights, calls) = (flights.clone(), calls.clone());
                tokio::spawn(async move {
                    let call = || async move {
                        calls.fetch_add(1, Ordering::SeqCst);
                        tokio::time::sleep(Duration::from_millis(5)).await;
                        Ok(9)
                    };
                    flights.run(1, call).await.unwrap().0
                })
            })
            .collect();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        release.notify_one();
        for waiter in waiters {
            assert_eq!(waiter.await.unwrap(), Ok(9));
        }
        // Its own call gave nothing; it may have seen a waiter's.
        assert!(
            leader
                .await
                .unwrap()
                .is_none_or(|(value, _)| value == Ok(9))
        );
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_call_in_place_ends_with_its_leader_and_a_waiter_takes_over() {
        let flights = SingleFlight::<u8, u32>::default();
        let text = String::from("borrowed by the call");
        let mut leader = Box::pin(flights.run_in_place(1, async {
            assert!(!text.is_empty());
            std::future::pending().await
        }));
        let mut waiter = Box::pin(flights.run_in_place(1, async { 2 }));
        assert!(polled(leader.as_mut()).is_none());
        assert!(polled(waiter.as_mut()).is_none());
        drop(leader);
        assert_eq!(waiter.await, (2, Flight::Led));
        assert_eq!(flights.running(), 0);
    }

    #[tokio::test]
    async fn a_call_in_place_is_shared() {
        let flights = SingleFlight::<u8, u32>::default();
        let release = Notify::new();
        let led = flights.run_in_place(1, async {
            release.notified().await;
            1
        });
        let followed = async {
            let unpolled = async { panic!("the call of a follower is not polled") };
            let mut followed = Box::pin(flights.run_in_place(1, unpolled));
            assert!(polled(followed.as_mut()).is_none());
            release.notify_one();
            followed.await
        };
        let (led, followed) = tokio::join!(biased; led, followed);
        assert_eq!((led, followed), ((1, Flight::Led), (1, Flight::Followed)));
    }

    fn polled<F: Future + ?Sized>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match future.poll(&mut context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn an_error_is_shared_once_and_not_kept() {
        let flights = Flights::default();
        let failed = flights.run(1, || async { Err("down".to_owned()) }).await;
        assert_eq!(failed, Some((Err("down".to_owned()), Flight::Led)));
        assert_eq!(
            flights.run(1, || async { Ok(1) }).await,
            Some((Ok(1), Flight::Led))
        );
    }

    #[tokio::test]
    async fn keys_do_not_wait_for_each_other() {
        let flights = Flights::default();
        let inner = flights.clone();
        let call = || async move { inner.run(2, || async { Ok(2) }).await.unwrap().0 };
        assert_eq!(flights.run(1, call).await, Some((Ok(2), Flight::Led)));
    }

    /// What one caller has come to.
    enum Caller {
        Waiting(std::pin::Pin<Box<dyn Future<Output = (u32, Flight)>>>),
        Served(u32),
        Gone,
    }

    proptest! {
        /// Callers of one key are polled and dropped in any order, calls end in any order: at most one
        /// call runs at a time, and everybody who stays is served by a call that ended.
        #[test]
        fn in_any_order_one_call_runs_and_all_who_stay_are_served(
            steps in prop::collection::vec((0_usize..6, 0_u8..6), 0..120),
        ) {
            let flights = SingleFlight::<u8, u32>::default();
            let running = Arc::new(AtomicUsize::new(0));
            let ended = Arc::new(AtomicUsize::new(0));
            /// Counts a call as running until it ends or is dropped.
            struct Running(Arc<AtomicUsize>);
            impl Drop for Running {
                fn drop(&mut self) {
                    self.0.fetch_sub(1, Ordering::SeqCst);
                }
            }
            let mut callers: Vec<Caller> = (0..6_u32)
                .map(|own| {
                    let (flights, running) = (flights.clone(), Arc::clone(&running));
                    let ended = Arc::clone(&ended);
                    Caller::Waiting(Box::pin(async move {
                        let call = async move {
                            running.fetch_add(1, Ordering::SeqCst);
                            let _running = Running(running);
                            for _ in 0..3 {
                                let mut first = true;
                                std::future::poll_fn(|_| {
                                    if std::mem::take(&mut first) {
                                        std::task::Poll::Pending
                                    } else {
                                        std::task::Poll::Ready(())
                                    }
                                })
                                .await;
                            }
                            ended.fetch_add(1, Ordering::SeqCst);
                            own
                        };
                        flights.run_in_place(1, call).await
                    }))
                })
                .collect();
            let mut step = |who: usize, drops: bool| {
                let Caller::Waiting(future) = &mut callers[who] else {
                    return Ok(true);
                };
                if drops {
                    callers[who] = Caller::Gone;
                } else {
                    if let Some((value, _)) = polled(future.as_mut()) {
                        callers[who] = Caller::Served(value);
                    }
                }
                prop_assert!(running.load(Ordering::SeqCst) <= 1);
                prop_assert!(flights.running() <= 1);
                Ok(matches!(callers[who], Caller::Waiting(_)))
            };
            for (who, what) in steps {
                step(who, what == 0)?;
            }
            // Those who are left are polled in turn, and all of them get there.
            for _ in 0..40 {
                for who in 0..6 {
                    step(who, false)?;
                }
            }
            let mut served = false;
            for caller in &callers {
                match caller {
                    Caller::Waiting(_) => prop_assert!(false, "stranded"),
                    // What a caller of this flight made, whoever it was.
                    Caller::Served(value) => {
                        prop_assert!(*value < 6);
                        served = true;
                    }
                    Caller::Gone => {}
                }
            }
            prop_assert!(!served || ended.load(Ordering::SeqCst) > 0);
            prop_assert_eq!(flights.running(), 0);
        }
    }
}
