//! Single flight and leases under many orders of events.
//!
//! The single flight in place has few await points, so three callers of it are tried in every order, with
//! any of them cancelled anywhere. The typed cache has too many: its orders are drawn by seed, from
//! processes that load, write, delete and go away in the midst of it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use askonce::backend::{BackendHandle, MemoryBackend, MemoryConfig};
use askonce::stampede::{Flight, SingleFlight};
use askonce::typed::{Cache, Key, LeaseOptions, Lookup};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::stepped::{Stepped, Task, step};

/// Goes through all sequences of choices, by the number of options at each.
#[derive(Default)]
struct Choices {
    /// What was chosen, of how many.
    path: Vec<(usize, usize)>,
    at: usize,
}

impl Choices {
    fn choose(&mut self, options: usize) -> usize {
        if self.at == self.path.len() {
            self.path.push((0, options));
        }
        let (chosen, of) = self.path[self.at];
        assert_eq!(of, options, "the same choices lead to the same place");
        self.at += 1;
        chosen
    }

    /// Moves on to the next sequence; `false` after the last.
    fn advance(&mut self) -> bool {
        self.at = 0;
        while let Some((chosen, of)) = self.path.pop() {
            if chosen + 1 < of {
                self.path.push((chosen + 1, of));
                return true;
            }
        }
        false
    }
}

/// Three callers of one key, each with a call of two steps, in one order; at most two are cancelled.
fn three_callers(choices: &mut Choices) {
    let flights = SingleFlight::<u8, u32>::default();
    let (running, most, calls) = (Cell::new(0_u32), Cell::new(0_u32), Cell::new(0_u32));
    /// Ends with its call, however that ends.
    struct Running<'a>(&'a Cell<u32>);
    impl Drop for Running<'_> {
        fn drop(&mut self) {
            self.0.set(self.0.get() - 1);
        }
    }
    let caller = |number: u32| {
        let (flights, running, most, calls) = (&flights, &running, &most, &calls);
        Task::new(async move {
            let call = async move {
                running.set(running.get() + 1);
                let _running = Running(running);
                most.set(most.get().max(running.get()));
                calls.set(calls.get() + 1);
                step().await;
                step().await;
                number
            };
            flights.run_in_place(1, call).await
        })
    };
    let mut tasks = [caller(1), caller(2), caller(3)];
    let mut cancelled = 0_usize;
    loop {
        let woken: Vec<_> = (0..3).filter(|&task| tasks[task].is_woken()).collect();
        let alive: Vec<_> = (0..3).filter(|&task| tasks[task].is_alive()).collect();
        if alive.is_empty() {
            break;
        }
        assert!(!woken.is_empty(), "those who are left wait for nobody");
        let drops = if cancelled < 2 { alive.len() } else { 0 };
        match choices.choose(woken.len() + drops) {
            chosen if chosen < woken.len() => tasks[woken[chosen]].poll(),
            chosen => {
                tasks[alive[chosen - woken.len()]].cancel();
                cancelled += 1;
            }
        }
    }
    assert_eq!(most.get(), 1, "one call at a time");
    assert_eq!(flights.running(), 0, "nothing is left behind");
    let outputs: Vec<_> = tasks.iter().filter_map(|task| task.output).collect();
    assert_eq!(outputs.len(), 3 - cancelled);
    let led = outputs.iter().filter(|(_, flight)| *flight == Flight::Led);
    let led = led.count();
    // Every call gave somebody a result, but for those that were cancelled.
    assert!((led..=led + cancelled).contains(&(calls.get() as usize)));
    for (task, number) in tasks.iter().zip(1..) {
        match task.output {
            Some((value, Flight::Led)) => assert_eq!(value, number, "its own"),
            Some((value, Flight::Followed)) => {
                let leader = &tasks[value as usize - 1];
                assert_eq!(
                    leader.output,
                    Some((value, Flight::Led)),
                    "that of a leader"
                );
            }
            None => {}
        }
    }
}

#[test]
fn a_single_flight_is_right_in_every_order_of_three_callers_and_two_cancellations() {
    let mut choices = Choices::default();
    let mut orders = 0_u32;
    loop {
        three_callers(&mut choices);
        orders += 1;
        if !choices.advance() {
            break;
        }
    }
    // Fewer would mean that the callers never met.
    assert!(orders > 1_000, "{orders}");
    println!("{orders} orders");
}

/// Callers on several threads, each of which asks, yields and goes away as its seed says. The threads decide
/// the order: this can show a fault, and cannot prove that there is none.
#[test]
fn a_single_flight_on_many_threads_makes_one_call_at_a_time_and_strands_nobody() {
    use std::sync::atomic::{AtomicU32, Ordering};
    /// Ends with its call, also when that panics.
    struct Running(Arc<AtomicU32>);
    impl Drop for Running {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .build()
        .expect("a runtime");
    let flights = SingleFlight::<u8, u64>::default();
    let running: [Arc<AtomicU32>; 3] = std::array::from_fn(|_| Arc::default());
    let most = Arc::new(AtomicU32::new(0));
    runtime.block_on(async {
        for seed in 0..200_u64 {
            let callers: Vec<_> = (0..16_u64)
                .map(|caller| {
                    let (flights, most) = (flights.clone(), Arc::clone(&most));
                    let running = running.clone();
                    tokio::spawn(async move {
                        let mut chance = StdRng::seed_from_u64(seed << 8 | caller);
                        let key = chance.random_range(0..3_u8);
                        let running = Arc::clone(&running[usize::from(key)]);
                        let yields = chance.random_range(0..4);
                        let panics = chance.random_bool(0.1);
                        let call = move || async move {
                            let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                            most.fetch_max(now, Ordering::SeqCst);
                            let _running = Running(running);
                            for _ in 0..yields {
                                tokio::task::yield_now().await;
                            }
                            if panics {
                                std::panic::resume_unwind(Box::new("as planned"));
                            }
                            u64::from(key) << 32 | caller
                        };
                        let asked = flights.run(key, call);
                        if chance.random_bool(0.2) {
                            // Looks once, and goes away.
                            let mut asked = Task::new(asked);
                            asked.poll();
                            return true;
                        }
                        match asked.await {
                            Some((value, _)) => value >> 32 == u64::from(key),
                            None => panics,
                        }
                    })
                })
                .collect();
            for caller in callers {
                assert!(caller.await.expect("no caller panics"), "seed {seed}");
            }
        }
        // Calls whose callers have all gone away end on their own.
        for _ in 0..10_000 {
            if flights.running() == 0 {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("{} calls never end", flights.running());
    });
    assert_eq!(most.load(Ordering::SeqCst), 1);
}

/// What the values are made of: it changes, and a cache must not show what it was.
#[derive(Default)]
struct Source {
    now: Cell<u64>,
    /// Loads that are under way, and the most there have been.
    loading: Cell<u32>,
    most: Cell<u32>,
    loads: Cell<u32>,
}

struct Loading(Rc<Source>);

impl Drop for Loading {
    fn drop(&mut self) {
        self.0.loading.set(self.0.loading.get() - 1);
    }
}

impl Source {
    async fn read(self: Rc<Self>) -> u64 {
        self.loads.set(self.loads.get() + 1);
        self.loading.set(self.loading.get() + 1);
        self.most.set(self.most.get().max(self.loading.get()));
        let _loading = Loading(Rc::clone(&self));
        step().await;
        // Read in the midst: what is returned may be old when it is.
        let read = self.now.get();
        step().await;
        read
    }
}

const LEASE: Duration = Duration::from_millis(300);

/// How a run of several processes goes about it.
#[derive(Clone, Copy, Debug)]
struct Plan {
    seed: u64,
    leases: bool,
    /// Whether the source changes, and the key with it.
    changes: bool,
    /// Whether callers go away.
    cancels: bool,
}

/// What a caller was given, and the source as it was when it asked.
type Given = Rc<RefCell<Vec<(u64, u64)>>>;

async fn processes(plan: Plan) {
    let clock = crate::support::clock();
    let memory = MemoryBackend::builder(MemoryConfig::default()).clock(Arc::clone(&clock) as _);
    let memory = memory.build().expect("the default settings are valid");
    let backend: BackendHandle = Arc::new(Stepped(Arc::new(memory)));
    let process = || {
        let builder = Cache::builder(Arc::clone(&backend)).clock(Arc::clone(&clock) as _);
        builder.namespace("app").build().expect("a cache")
    };
    // A change is only announced through its own process, and through the store by a lease.
    let caches = if plan.leases || !plan.changes {
        vec![process(), process(), process()]
    } else {
        vec![process()]
    };
    let key = Key::new("key");
    let source = Rc::new(Source::default());
    let given = Given::default();
    // The last change that each process has announced.
    let announced = Rc::new(RefCell::new(vec![0_u64; caches.len()]));
    let mut chance = StdRng::seed_from_u64(plan.seed);
    let mut tasks: Vec<Task<'_, ()>> = Vec::new();
    let mut to_come = 14_u32;
    let mut idle = 0_u32;
    while to_come > 0 || tasks.iter().any(Task::is_alive) {
        if to_come > 0 && chance.random_bool(0.3) {
            to_come -= 1;
            let own = chance.random_range(0..caches.len());
            let cache = caches[own].clone();
            let (key, source) = (&key, Rc::clone(&source));
            let (given, announced) = (Rc::clone(&given), Rc::clone(&announced));
            if plan.changes && chance.random_bool(0.3) {
                tasks.push(Task::new(async move {
                    source.now.set(source.now.get() + 1);
                    let changed = source.now.get();
                    cache.delete(key).await.expect("the store works");
                    // From here on nobody who asks is given what was before.
                    let own = &mut announced.borrow_mut()[own];
                    *own = changed.max(*own);
                }));
            } else {
                // The last change that was announced before this caller asked. If its process has a load
                // under way it may share that, and knows of what other processes wrote only when the load
                // is to be stored.
                let shares = !format!("{cache:?}").contains("running: 0");
                let announced = announced.borrow();
                let known = announced.iter().enumerate();
                let known = known.filter(|(other, _)| *other == own || !shares);
                let known = known.map(|(_, changed)| *changed).max().unwrap_or(0);
                tasks.push(Task::new(async move {
                    let load = cache.load(key);
                    let load = if plan.leases {
                        load.lease(LeaseOptions::new().ttl(LEASE))
                    } else {
                        load
                    };
                    let value: u64 = load.run(|| Rc::clone(&source).read()).await;
                    given.borrow_mut().push((value, known));
                }));
            }
        }
        let woken: Vec<_> = (0..tasks.len())
            .filter(|&task| tasks[task].is_woken())
            .collect();
        let alive: Vec<_> = (0..tasks.len())
            .filter(|&task| tasks[task].is_alive())
            .collect();
        if plan.cancels && !alive.is_empty() && chance.random_bool(0.03) {
            tasks[alive[chance.random_range(0..alive.len())]].cancel();
        } else if !woken.is_empty() && chance.random_bool(0.9) {
            tasks[woken[chance.random_range(0..woken.len())]].poll();
            idle = 0;
        } else if woken.is_empty() && to_come == 0 {
            // Somebody waits for time to pass: for a lease of one who has gone away to run out.
            let pause = Duration::from_millis(20);
            tokio::time::sleep(pause).await;
            clock.advance(pause);
            idle += 1;
            assert!(idle < 200, "{plan:?}: stuck for {:?}", 200 * pause);
        } else {
            // What was left to the runtime: leases that are given back.
            tokio::task::yield_now().await;
        }
    }
    for &(value, known) in given.borrow().iter() {
        assert!(
            value >= known,
            "{plan:?}: given {value} after {known} was announced"
        );
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    // What is stored is what the source says, or nothing.
    for cache in &caches {
        assert!(
            format!("{cache:?}").contains("running: 0"),
            "{plan:?}: {cache:?}"
        );
        let mut last = Task::new(cache.get::<u64>(&key));
        while last.is_alive() {
            last.poll();
        }
        match last.output.expect("it has ended").expect("the store works") {
            // A change whose announcement was cancelled may not have come through.
            Lookup::Hit(value) if !plan.cancels => assert_eq!(value, source.now.get(), "{plan:?}"),
            Lookup::Hit(_) | Lookup::Miss => {}
            other => panic!("{plan:?}: {other:?}"),
        }
    }
    if !plan.changes && !plan.cancels && (plan.leases || caches.len() == 1) {
        assert_eq!((source.most.get(), source.loads.get()), (1, 1), "{plan:?}");
    } else if !plan.changes && plan.leases {
        // A load that is cancelled is replaced, and never by two at a time.
        assert_eq!(source.most.get(), 1, "{plan:?}");
    }
}

fn many_orders(leases: bool, changes: bool, cancels: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    for seed in 0..500 {
        let plan = Plan {
            seed,
            leases,
            changes,
            cancels,
        };
        runtime.block_on(processes(plan));
    }
}

/// A caller who asks during a load that another process's write has made worthless is not given its value.
#[tokio::test(start_paused = true)]
async fn a_leased_load_is_for_those_only_who_asked_before_another_process_wrote() {
    use askonce::typed::Fresh;
    use tokio::sync::Notify;
    let memory = MemoryBackend::builder(MemoryConfig::default()).build();
    let backend: BackendHandle = Arc::new(memory.expect("the default settings are valid"));
    let process = || {
        let builder = Cache::builder(Arc::clone(&backend)).namespace("app");
        builder.build().expect("the settings are valid")
    };
    let (one, two, key) = (process(), process(), Key::new("key"));
    for stored in [true, false] {
        let (began, go_on) = (Notify::new(), Notify::new());
        let leased = || one.load(&key).lease(LeaseOptions::new());
        let first = leased().run(|| async {
            began.notify_one();
            go_on.notified().await;
            let fresh = Fresh::new(1_u64);
            if stored { fresh } else { fresh.unstored() }
        });
        let later = async {
            began.notified().await;
            two.delete(&key).await.expect("the store works");
            let mut later = Task::new(leased().run(|| async { Fresh::new(2_u64) }));
            while later.is_woken() {
                later.poll();
            }
            assert!(later.is_alive(), "it waits for the load that is under way");
            go_on.notify_one();
            while later.is_alive() {
                tokio::task::yield_now().await;
                later.poll();
            }
            later.output.expect("it has ended")
        };
        let (first, later) = tokio::join!(first, later);
        assert_eq!((first.value, later.value), (1, 2), "stored: {stored}");
        let found = two.get(&key).await.expect("the store works");
        assert_eq!(found, Lookup::Hit(2_u64));
        two.delete(&key).await.expect("the store works");
    }
}

#[test]
fn many_processes_make_one_load_in_any_order() {
    many_orders(true, false, false);
}

#[test]
fn callers_who_go_away_strand_nobody_and_never_make_two_loads_at_once() {
    many_orders(true, false, true);
}

#[test]
fn a_change_is_never_followed_by_what_was_before_in_any_order() {
    many_orders(false, true, false);
    many_orders(false, true, true);
}

#[test]
fn a_change_by_another_process_is_never_followed_by_what_was_before_in_any_order() {
    many_orders(true, true, false);
    many_orders(true, true, true);
}
