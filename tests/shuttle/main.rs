//! The single flight under a scheduler of threads: callers that start, wait, end and go away, interleaved
//! at every lock.
//!
//! `src/stampede/single_flight.rs` is compiled a second time, with the locks of [`shuttle`] in place of
//! `parking_lot`'s: shuttle runs each thread until its next lock, yield or wait and then chooses who goes
//! on, at random and by PCT (probabilistic concurrency testing, Burckhardt and others, ASPLOS 2010), from
//! fixed seeds. The channel between leader and followers is tokio's own and counts as one step. Leases
//! are permuted from await point to await point by `tests/patterns`.

// The file's `use parking_lot::Mutex` finds this crate's.
extern crate self as parking_lot;

#[path = "../../src/stampede/single_flight.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "the engine and its own tests use the rest"
)]
mod single_flight;

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};

use shuttle::future::block_on;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner, thread};

use single_flight::{Flight, SingleFlight};

/// A lock of shuttle's with the face of `parking_lot`'s.
#[derive(Debug, Default)]
pub struct Mutex<T>(shuttle::sync::Mutex<T>);

impl<T> Mutex<T> {
    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A lock that is held.
#[derive(Debug)]
pub struct MutexGuard<'a, T>(shuttle::sync::MutexGuard<'a, T>);

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// Counts a call while it runs.
struct Running<'a>(&'a AtomicUsize);

impl<'a> Running<'a> {
    fn begin(running: &'a AtomicUsize) -> Self {
        assert_eq!(
            running.fetch_add(1, Ordering::SeqCst),
            0,
            "two calls at once"
        );
        Self(running)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Three callers of one key, each a thread: one call at a time, and everybody has the value of a call
/// that ended.
fn callers_share_one_call_at_a_time() {
    let flights = SingleFlight::<u8, usize>::default();
    let running = Arc::new(AtomicUsize::new(0));
    let ended = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..3)
        .map(|_| {
            let (flights, running) = (flights.clone(), Arc::clone(&running));
            let ended = Arc::clone(&ended);
            thread::spawn(move || {
                block_on(async {
                    let call = async {
                        let _running = Running::begin(&running);
                        shuttle::future::yield_now().await;
                        ended.fetch_add(1, Ordering::SeqCst) + 1
                    };
                    let (value, flight) = flights.run_in_place(1, call).await;
                    let calls = ended.load(Ordering::SeqCst);
                    assert!((1..=calls).contains(&value), "a value of a call that ended");
                    flight
                })
            })
        })
        .collect();
    let flights_of = callers.into_iter().map(|caller| caller.join().unwrap());
    let led = flights_of.filter(|flight| *flight == Flight::Led).count();
    assert_eq!(
        led,
        ended.load(Ordering::SeqCst),
        "each call has one leader"
    );
    assert_eq!(flights.running(), 0);
}

/// A leader that goes away half-way strands nobody: the others end with a value, and nothing is left.
fn a_leader_that_goes_away_strands_nobody() {
    let flights = SingleFlight::<u8, usize>::default();
    let running = Arc::new(AtomicUsize::new(0));
    let leaver = {
        let (flights, running) = (flights.clone(), Arc::clone(&running));
        thread::spawn(move || {
            block_on(async {
                let call = async {
                    let _running = Running::begin(&running);
                    shuttle::future::yield_now().await;
                    shuttle::future::yield_now().await;
                    7
                };
                let mut waiting = Box::pin(flights.run_in_place(1, call));
                // Polled once and dropped, wherever that leaves it.
                let polled = std::future::poll_fn(|context| {
                    std::task::Poll::Ready(waiting.as_mut().poll(context).is_ready())
                });
                let _ = polled.await;
            });
        })
    };
    let stayers: Vec<_> = (0..2_usize)
        .map(|own| {
            let (flights, running) = (flights.clone(), Arc::clone(&running));
            thread::spawn(move || {
                block_on(async {
                    let call = async {
                        let _running = Running::begin(&running);
                        shuttle::future::yield_now().await;
                        own
                    };
                    flights.run_in_place(1, call).await.0
                })
            })
        })
        .collect();
    leaver.join().unwrap();
    for stayer in stayers {
        let value = stayer.join().unwrap();
        assert!(value < 2, "{value} is of a call that was dropped");
    }
    assert_eq!(flights.running(), 0);
}

/// A call that panics promotes one of those who wait.
fn a_panic_promotes_one_waiter() {
    let flights = SingleFlight::<u8, usize>::default();
    let panics = {
        let flights = flights.clone();
        thread::spawn(move || {
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                block_on(flights.run_in_place(1, async {
                    shuttle::future::yield_now().await;
                    std::panic::resume_unwind(Box::new("told to"))
                }))
            }));
            // It may have followed the other's call instead.
            if let Ok((value, flight)) = ended {
                assert_eq!((value, flight), (1, Flight::Followed));
            }
        })
    };
    let stays = {
        let flights = flights.clone();
        thread::spawn(move || block_on(flights.run_in_place(1, async { 1 })).0)
    };
    panics.join().unwrap();
    assert_eq!(stays.join().unwrap(), 1);
    assert_eq!(flights.running(), 0);
}

fn main() {
    let checks: [(&str, fn()); 3] = [
        (
            "callers_share_one_call_at_a_time",
            callers_share_one_call_at_a_time,
        ),
        (
            "a_leader_that_goes_away_strands_nobody",
            a_leader_that_goes_away_strands_nobody,
        ),
        ("a_panic_promotes_one_waiter", a_panic_promotes_one_waiter),
    ];
    if std::env::args().any(|argument| argument == "--list") {
        for (name, _) in checks {
            println!("{name}: test");
        }
        return;
    }
    for (name, check) in checks {
        let random = RandomScheduler::new_from_seed(42, 5_000);
        let random = Runner::new(random, Config::new()).run(check);
        let pct = PctScheduler::new_from_seed(42, 3, 5_000);
        let pct = Runner::new(pct, Config::new()).run(check);
        println!("test {name} ... ok ({} schedules)", random + pct);
    }
    println!(
        "\ntest result: ok. {} passed; 0 failed; 0 ignored",
        checks.len()
    );
}
