//! One load for all processes, whatever becomes of the one that makes it.

use askonce::typed::{LeaseOptions, Lookup, SetOptions};

use super::*;

const LEASE: Duration = Duration::from_secs(30);

async fn load(cache: Cache, load: impl Future<Output = u8>) -> u8 {
    let leased = cache.load(&key()).ttl(MINUTE).lease(LeaseOptions::new());
    leased.run(|| load).await
}

#[tokio::test(start_paused = true)]
async fn w_48_ten_processes_make_one_load() {
    let world = World::new();
    let loader = Loader::default();
    let callers: Vec<_> = (0..10)
        .flat_map(|_| {
            let process = world.process();
            // Longer than a lease: it is renewed.
            [(); 5].map(|()| tokio::spawn(load(process.clone(), loader.load(5 * LEASE, 7_u8))))
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), 7);
    }
    assert_eq!(loader.runs(), 1);
    assert_eq!(
        world.process().get(&key()).await.unwrap(),
        Lookup::Hit(7_u8)
    );
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_a_miss_to_those_who_only_read() {
    let world = World::new();
    let (one, two) = (world.process(), world.process());
    let loading = tokio::spawn(load(one, Loader::default().load(SECOND, 1_u8)));
    settle().await;
    assert_eq!(two.get::<u8>(&key()).await.unwrap(), Lookup::Miss);
    assert!(!two.exists(&key()).await.unwrap());
    assert_eq!(two.ttl(&key()).await.unwrap(), None);
    assert!(!two.touch(&key(), MINUTE).await.unwrap());
    assert_eq!(two.take::<u8>(&key()).await.unwrap(), Lookup::Miss);
    assert_eq!(loading.await.unwrap(), 1);
    assert_eq!(two.get(&key()).await.unwrap(), Lookup::Hit(1_u8));
}

/// Ends a process: nothing of it runs on, so nothing gives its lease back.
fn kill(process: tokio::runtime::Runtime) {
    process.shutdown_background();
}

#[test]
fn when_the_leader_is_killed_another_takes_over_after_the_lease() {
    let start = || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true).build().unwrap()
    };
    let doomed = start();
    let clock = support::clock();
    let memory = MemoryBackend::builder(MemoryConfig::default()).clock(Arc::clone(&clock) as _);
    let backend: BackendHandle = Arc::new(memory.build().unwrap());
    let process = || {
        let builder = Cache::builder(Arc::clone(&backend)).clock(Arc::clone(&clock) as _);
        builder.namespace("app").build().unwrap()
    };
    doomed.block_on(async {
        let one = process();
        tokio::spawn(load(one, std::future::pending::<u8>()));
        settle().await;
    });
    kill(doomed);

    let survivor = start();
    survivor.block_on(async {
        let waiting = tokio::spawn(load(process(), async { 2_u8 }));
        clock.advance(LEASE - Duration::from_millis(1));
        tokio::time::sleep(10 * MINUTE).await;
        assert!(!waiting.is_finished(), "the lease still runs");
        clock.advance(Duration::from_millis(1));
        assert_eq!(waiting.await.unwrap(), 2);
    });
}

#[tokio::test(start_paused = true)]
async fn when_the_leader_is_cancelled_another_takes_over_at_once() {
    let world = World::new();
    let (one, two) = (world.process(), world.process());
    let leader = tokio::spawn(load(one, std::future::pending::<u8>()));
    settle().await;
    let before = world.now();
    let waiting = tokio::spawn(load(two, async { 2_u8 }));
    settle().await;
    leader.abort();
    assert_eq!(waiting.await.unwrap(), 2);
    assert!(world.now().since(before) < 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn when_the_loader_fails_another_takes_over_at_once() {
    let world = World::new();
    let (one, two) = (world.process(), world.process());
    let failing = tokio::spawn(async move {
        let load = || Loader::default().load(SECOND, Err::<u8, _>("down".to_owned()));
        one.load(&key()).lease(LeaseOptions::new()).run(load).await
    });
    settle().await;
    let before = world.now();
    let waiting = tokio::spawn(load(two, async { 2_u8 }));
    assert_eq!(failing.await.unwrap(), Err("down".to_owned()));
    assert_eq!(waiting.await.unwrap(), 2);
    assert!(world.now().since(before) < 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn w_26_a_write_by_another_process_during_a_load_wins() {
    for by_delete in [true, false] {
        let world = World::new();
        let (one, two) = (world.process(), world.process());
        let loading = tokio::spawn(load(one.clone(), Loader::default().load(SECOND, 1_u8)));
        settle().await;
        let expected = if by_delete {
            two.delete(&key()).await.unwrap();
            Lookup::Miss
        } else {
            two.set(&key(), &2_u8, MINUTE).await.unwrap();
            Lookup::Hit(2_u8)
        };
        assert_eq!(loading.await.unwrap(), 1, "who asked before is answered");
        assert_eq!(one.get(&key()).await.unwrap(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn an_invalidation_by_another_process_during_a_load_wins() {
    let world = World::new();
    let (one, two) = (world.process(), world.process());
    let loading = tokio::spawn({
        let one = one.clone();
        async move {
            let leased = one.load(&key()).tags(["t"]).lease(LeaseOptions::new());
            leased.run(|| Loader::default().load(SECOND, 1_u8)).await
        }
    });
    settle().await;
    two.invalidate_tag("t").await.unwrap();
    assert_eq!(loading.await.unwrap(), 1);
    assert_eq!(one.get::<u8>(&key()).await.unwrap(), Lookup::Miss);
}

#[tokio::test(start_paused = true)]
async fn whoever_lost_its_lease_stores_nothing() {
    let world = World::new();
    let (one, two) = (world.process(), world.process());
    let short = LeaseOptions::new().ttl(3 * SECOND);
    let slow = tokio::spawn({
        let one = one.clone();
        async move {
            let leased = one.load(&key()).ttl(MINUTE).lease(short);
            leased
                .run(|| Loader::default().load(20 * SECOND, 1_u8))
                .await
        }
    });
    settle().await;
    // Its renewals do not come through.
    world.fail(true);
    tokio::time::sleep(5 * SECOND).await;
    world.fail(false);
    let leased = two.load(&key()).ttl(MINUTE).lease(short);
    assert_eq!(leased.run(|| async { 2_u8 }).await, 2);
    assert_eq!(slow.await.unwrap(), 1);
    assert_eq!(one.get(&key()).await.unwrap(), Lookup::Hit(2_u8));
}

#[tokio::test(start_paused = true)]
async fn others_use_the_old_value_while_one_makes_a_new_one() {
    let world = World::new();
    let processes: Vec<_> = (0..5).map(|_| world.process()).collect();
    let options = SetOptions::new(SECOND).stale_for(10 * MINUTE);
    processes[0].set(&key(), &1_u8, options).await.unwrap();
    tokio::time::advance(2 * SECOND).await;
    let loader = Loader::default();
    for process in &processes {
        let leased = process
            .load(&key())
            .ttl(MINUTE)
            .lease(LeaseOptions::new())
            .detached();
        let load = loader.load(5 * SECOND, 2_u8);
        let served = leased.stale_while_revalidate(MINUTE).run(|| load).await;
        assert_eq!(served.unwrap(), 1);
        settle().await;
        assert_eq!(
            process.get(&key()).await.unwrap(),
            Lookup::Stale(1_u8),
            "leased, and still there"
        );
    }
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(loader.runs(), 1);
    for process in &processes {
        assert_eq!(process.get(&key()).await.unwrap(), Lookup::Hit(2_u8));
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_refresh_gives_the_old_value_back_as_it_was() {
    let world = World::new();
    let cache = world.process();
    let options = SetOptions::new(SECOND).stale_for(MINUTE);
    cache.set(&key(), &1_u8, options).await.unwrap();
    tokio::time::advance(SECOND).await;
    let before = CacheBackend::get(&*world.store, b"app/key:1")
        .await
        .unwrap();
    for _ in 0..2 {
        let load = cache
            .load(&key())
            .stale_if_error(MINUTE)
            .lease(LeaseOptions::new());
        let served = load.run(|| async { Err::<u8, _>("down".to_owned()) });
        assert_eq!(served.await, Ok(1));
    }
    assert_eq!(
        CacheBackend::get(&*world.store, b"app/key:1")
            .await
            .unwrap(),
        before
    );
}

#[tokio::test(start_paused = true)]
async fn who_will_not_wait_longer_loads_and_stores_nothing() {
    let world = World::new();
    let (one, two) = (world.process(), world.process());
    let slow = tokio::spawn(load(one.clone(), Loader::default().load(MINUTE, 1_u8)));
    settle().await;
    let before = world.now();
    let impatient = two.load(&key()).lease(LeaseOptions::new().wait(2 * SECOND));
    assert_eq!(impatient.run(|| async { 2_u8 }).await, 2);
    let waited = world.now().since(before);
    assert!(waited >= 2 * SECOND && waited < 4 * SECOND, "{waited:?}");
    assert_eq!(two.get::<u8>(&key()).await.unwrap(), Lookup::Miss);
    assert_eq!(slow.await.unwrap(), 1);
    assert_eq!(two.get(&key()).await.unwrap(), Lookup::Hit(1_u8));
}

#[tokio::test(start_paused = true)]
async fn no_failure_of_the_store_reaches_those_who_load_under_a_lease() {
    let world = World::new();
    let cache = world.process();
    world.fail(true);
    assert_eq!(load(cache.clone(), async { 1_u8 }).await, 1);
    world.fail(false);
    let loading = tokio::spawn(load(cache.clone(), Loader::default().load(5 * LEASE, 2_u8)));
    settle().await;
    world.fail(true);
    assert_eq!(loading.await.unwrap(), 2);
    world.fail(false);
    tokio::time::advance(LEASE).await;
    assert_eq!(load(cache, async { 3_u8 }).await, 3);
}
