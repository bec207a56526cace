//! Every operation of the typed cache, dropped at each of its await points.
//!
//! After each: the next operation on the key goes on, what is stored is what was there before or what was
//! to be there, and a lease is free again when its life is over.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use askonce::Result;
use askonce::backend::{BackendHandle, MemoryBackend, MemoryConfig};
use askonce::clock::ManualClock;
use askonce::typed::{Cache, Key, LeaseOptions, Lookup, SetOptions};

use crate::stepped::{Stepped, Task, step};

const MINUTE: Duration = Duration::from_secs(60);
const LEASE: Duration = Duration::from_secs(1);
/// More steps than any operation takes.
const MOST: usize = 500;

struct World {
    clock: Arc<ManualClock>,
    backend: BackendHandle,
}

impl World {
    fn new() -> Self {
        let clock = crate::support::clock();
        let memory = MemoryBackend::builder(MemoryConfig::default()).clock(Arc::clone(&clock) as _);
        let memory = memory.build().expect("the default settings are valid");
        let backend = Arc::new(Stepped(Arc::new(memory)));
        Self { clock, backend }
    }

    fn process(&self) -> Cache {
        let builder = Cache::builder(Arc::clone(&self.backend));
        let builder = builder.clock(Arc::clone(&self.clock) as _).namespace("app");
        builder.build().expect("the settings are valid")
    }
}

fn a() -> Key {
    Key::new("a")
}
fn b() -> Key {
    Key::new("b")
}

/// What a long value looks like: a torn one would not.
fn long(letter: char) -> String {
    letter.to_string().repeat(5_000)
}

/// An operation that leaves under `a` what `old` or `new` says.
async fn operation(name: &str, cache: &Cache) -> Result<()> {
    let tagged = SetOptions::new(MINUTE).tags(["t"]);
    match name {
        "get" => drop(cache.get::<String>(&a()).await?),
        "get_many" => drop(cache.get_many::<String>(&[a(), b()]).await),
        "set" => cache.set(&a(), &long('n'), tagged).await?,
        "set_many" => drop(
            cache
                .set_many(&[(a(), long('n')), (b(), long('n'))], tagged)
                .await,
        ),
        "set_null" => cache.set_null(&a(), tagged).await?,
        "add" => drop(cache.add(&b(), &long('n'), tagged).await?),
        "compare_and_set" => {
            let (_, version) = cache.get_versioned::<String>(&a()).await?;
            cache
                .compare_and_set(&a(), &version, &long('n'), tagged)
                .await?;
        }
        "increment" => drop(cache.increment(&Key::new("count"), 1, tagged).await?),
        "touch" => drop(cache.touch(&a(), MINUTE).await?),
        "take" => drop(cache.take::<String>(&a()).await?),
        "ttl" => drop(cache.ttl(&a()).await?),
        "exists" => drop(cache.exists(&a()).await?),
        "delete" => drop(cache.delete(&a()).await?),
        "delete_many" => drop(cache.delete_many(&[a(), b()]).await),
        "delete_pattern" => drop(cache.delete_pattern("a*").await?),
        "scan" => drop(cache.scan("*", Default::default(), 1).await?),
        "len" => drop(cache.len().await?),
        "clear" => cache.clear().await?,
        "invalidate_tag" => cache.invalidate_tag("t").await?,
        "get_or_set" => drop(cache.get_or_set(&b(), MINUTE, slow).await),
        "load with a lease" => {
            let leased = cache
                .load(&b())
                .ttl(MINUTE)
                .lease(LeaseOptions::new().ttl(LEASE));
            leased.run(slow).await;
        }
        other => unreachable!("{other}"),
    }
    Ok(())
}

const OPERATIONS: [&str; 21] = [
    "get",
    "get_many",
    "set",
    "set_many",
    "set_null",
    "add",
    "compare_and_set",
    "increment",
    "touch",
    "take",
    "ttl",
    "exists",
    "delete",
    "delete_many",
    "delete_pattern",
    "scan",
    "len",
    "clear",
    "invalidate_tag",
    "get_or_set",
    "load with a lease",
];

async fn slow() -> String {
    step().await;
    step().await;
    long('n')
}

/// Runs to the end by hand, with time for the runtime between the steps.
async fn finish<T>(what: &str, clock: &ManualClock, future: impl Future<Output = T>) -> T {
    let mut task = Task::new(future);
    for _ in 0..MOST {
        if task.is_woken() {
            task.poll();
        } else {
            let pause = Duration::from_millis(10);
            tokio::time::sleep(pause).await;
            clock.advance(pause);
        }
        if let Some(output) = task.output.take() {
            return output;
        }
    }
    panic!("{what}: still not done");
}

/// `true` when the operation was done before it could be dropped.
async fn dropped_after(steps: usize, name: &str) -> bool {
    let world = World::new();
    let (cache, clock) = (world.process(), &world.clock);
    let what = format!("{name}, dropped after {steps} steps");
    let tagged = SetOptions::new(MINUTE).tags(["t"]);
    let (key, old, new) = (a(), long('o'), long('x'));
    let set = cache.set(&key, &old, tagged);
    finish(&what, clock, set).await.expect("the store works");

    let mut task = Task::new(operation(name, &cache));
    for _ in 0..steps {
        if task.is_woken() {
            task.poll();
        }
    }
    let done = !task.is_alive();
    drop(task);
    assert!(
        format!("{cache:?}").contains("running: 0"),
        "{what}: {cache:?}"
    );

    // Nothing is torn, here and in a process that has seen nothing of it.
    for reader in [&cache, &world.process()] {
        for key in [a(), b()] {
            let found = finish(&what, clock, reader.get::<String>(&key)).await;
            match found.expect("what is stored can be read") {
                Lookup::Hit(value) => assert!(value == long('o') || value == long('n'), "{what}"),
                Lookup::Null | Lookup::Miss => {}
                Lookup::Stale(_) => panic!("{what}: nothing may be stale"),
            }
        }
        let count = finish(&what, clock, reader.get::<i64>(&Key::new("count"))).await;
        assert!(
            matches!(count, Ok(Lookup::Miss | Lookup::Hit(1))),
            "{what}: {count:?}"
        );
    }
    // Nobody is kept from the key: not by a gate, a flight, or a lease longer than it lives.
    let began = askonce::clock::Clock::now(&**clock);
    for (next, who) in [(&world.process(), "another"), (&cache, "the same")] {
        let runs = Cell::new(0);
        let load = next
            .load(&b())
            .lease(LeaseOptions::new().ttl(LEASE))
            .run(|| {
                runs.set(runs.get() + 1);
                slow()
            });
        let loaded = finish(&format!("{what}: a load by {who} process"), clock, load).await;
        assert!(loaded == long('n') && runs.get() <= 1, "{what}");
        let set = next.set(&key, &new, MINUTE);
        finish(&what, clock, set).await.expect("the store works");
        let found = finish(&what, clock, next.get::<String>(&a())).await;
        assert_eq!(
            found.expect("the store works"),
            Lookup::Hit(long('x')),
            "{what}"
        );
    }
    let waited = askonce::clock::Clock::now(&**clock).since(began);
    assert!(waited <= 2 * LEASE, "{what}: waited for {waited:?}");
    done
}

#[test]
fn an_operation_may_be_dropped_at_any_of_its_await_points() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    for name in OPERATIONS {
        let steps = (0..MOST)
            .find(|&steps| runtime.block_on(dropped_after(steps, name)))
            .unwrap_or_else(|| panic!("{name} never ends"));
        assert!(steps > 1, "{name} has no await point");
    }
}
