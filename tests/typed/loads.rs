//! Loads: old values in place of errors and waits, time limits, refreshes before the end.

use askonce::typed::Detached;
use askonce::typed::{Load, Lookup, SetOptions};

use super::*;

/// Stores 1, which is stale from now on for a minute.
async fn stale(cache: &Cache) {
    let options = SetOptions::new(SECOND).stale_for(MINUTE);
    cache.set(&key(), &1_u8, options).await.unwrap();
    tokio::time::advance(SECOND).await;
    assert_eq!(cache.get(&key()).await.unwrap(), Lookup::Stale(1_u8));
}

fn fails() -> std::future::Ready<Result<u8, String>> {
    std::future::ready(Err("down".to_owned()))
}

#[tokio::test(start_paused = true)]
async fn a_stale_value_is_a_thing_of_its_own() {
    let cache = World::new().process();
    stale(&cache).await;
    assert!(!cache.exists(&key()).await.unwrap());
    assert_eq!(cache.ttl(&key()).await.unwrap(), None);
    let loaded = cache.get_or_set(&key(), MINUTE, || async { 2_u8 }).await;
    assert_eq!(loaded, 2, "nobody who did not ask for it is served it");
    stale(&cache).await;
    tokio::time::advance(MINUTE).await;
    assert_eq!(cache.get::<u8>(&key()).await.unwrap(), Lookup::Miss);
}

#[tokio::test(start_paused = true)]
async fn an_old_value_stands_in_for_an_error_and_no_longer_than_allowed() {
    let cache = World::new().process();
    let loader = Loader::default();
    let failing = |cache: Cache| {
        let loader = loader.clone();
        async move {
            let load = || loader.load(SECOND, Err::<u8, _>("down".to_owned()));
            let stale = 10 * SECOND;
            cache
                .load(&key())
                .ttl(SECOND)
                .stale_if_error(stale)
                .run(load)
                .await
        }
    };
    assert_eq!(failing(cache.clone()).await, Err("down".to_owned()));
    let load = cache.load(&key()).ttl(SECOND).stale_if_error(10 * SECOND);
    assert_eq!(load.run(|| async { Ok::<_, String>(1_u8) }).await, Ok(1));
    tokio::time::advance(2 * SECOND).await;
    let callers = (0..20).map(|_| tokio::spawn(failing(cache.clone())));
    for caller in callers.collect::<Vec<_>>() {
        assert_eq!(caller.await.unwrap(), Ok(1), "to all who wait");
    }
    assert_eq!(loader.runs(), 2);
    tokio::time::advance(10 * SECOND).await;
    assert_eq!(failing(cache.clone()).await, Err("down".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_fails_is_left_alone_longer_each_time() {
    let cache = World::new().process();
    let stale = 60 * MINUTE;
    let options = SetOptions::new(SECOND).stale_for(stale);
    cache.set(&key(), &1_u8, options).await.unwrap();
    tokio::time::advance(SECOND).await;
    let loader = Loader::default();
    let ask = || async {
        let load = cache.load(&key()).stale_if_error(stale);
        let failing = || loader.load(Duration::ZERO, Err::<u8, _>("down".to_owned()));
        assert_eq!(load.run(failing).await, Ok(1));
        loader.runs()
    };
    assert_eq!(ask().await, 1);
    let mut waits = Vec::new();
    for failures in 1..=7 {
        let mut seconds = 0;
        while ask().await == failures {
            tokio::time::advance(SECOND).await;
            seconds += 1;
        }
        waits.push(seconds);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);

    tokio::time::advance(MINUTE).await;
    let load = cache.load(&key()).ttl(SECOND).stale_if_error(stale);
    assert_eq!(load.run(|| async { Ok::<_, String>(1_u8) }).await, Ok(1));
    tokio::time::advance(SECOND).await;
    assert_eq!(ask().await, 9, "what is over is forgotten");
}

fn revalidating(cache: &Cache) -> Detached {
    let load: Load<'_> = cache.load(&key()).ttl(10 * SECOND);
    load.detached().stale_while_revalidate(MINUTE)
}

#[tokio::test(start_paused = true)]
async fn an_old_value_is_served_at_once_while_one_load_makes_a_new_one() {
    let world = World::new();
    let cache = world.process();
    let loader = Loader::default();
    let first = revalidating(&cache).run({
        let load = loader.load(SECOND, 1_u8);
        || load
    });
    assert_eq!(first.await.unwrap(), 1);
    tokio::time::advance(20 * SECOND).await;
    let before = world.now();
    for _ in 0..50 {
        let load = loader.load(SECOND, 2_u8);
        assert_eq!(revalidating(&cache).run(|| load).await.unwrap(), 1);
    }
    assert_eq!(world.now(), before, "nobody has waited");
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(loader.runs(), 2);
    assert_eq!(cache.get(&key()).await.unwrap(), Lookup::Hit(2_u8));
    // A refresh that fails leaves what there is, and the next caller tries again.
    tokio::time::advance(20 * SECOND).await;
    let loads = AtomicUsize::new(0);
    for _ in 0..2 {
        let load = cache.load(&key()).ttl(10 * SECOND).detached();
        let load = load.stale_while_revalidate(MINUTE).run(fails);
        loads.fetch_add(1, Ordering::SeqCst);
        assert_eq!(load.await.unwrap(), Ok(2));
        settle().await;
    }
    tokio::time::advance(MINUTE).await;
    let load = cache
        .load(&key())
        .detached()
        .stale_while_revalidate(MINUTE)
        .run(fails);
    assert_eq!(
        load.await.unwrap(),
        Err("down".to_owned()),
        "past all bounds"
    );
}

#[tokio::test(start_paused = true)]
async fn w_45_a_soft_limit_serves_the_old_value_and_the_load_goes_on() {
    let world = World::new();
    let cache = world.process();
    stale(&cache).await;
    let before = world.now();
    let load = Loader::default().load(10 * SECOND, 2_u8);
    let soft = cache
        .load(&key())
        .ttl(MINUTE)
        .detached()
        .soft_timeout(SECOND);
    assert_eq!(soft.run(|| load).await.unwrap(), 1);
    assert_eq!(world.now().since(before), SECOND);
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(cache.get(&key()).await.unwrap(), Lookup::Hit(2_u8));
    // With nothing to serve, a soft limit is none.
    cache.delete(&key()).await.unwrap();
    let load = Loader::default().load(10 * SECOND, 3_u8);
    let soft = cache.load(&key()).detached().soft_timeout(SECOND);
    assert_eq!(soft.run(|| load).await.unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn w_45_a_hard_limit_is_kept_by_leader_and_followers_and_the_load_fills_the_cache() {
    let world = World::new();
    let cache = world.process();
    let loader = Loader::default();
    let before = world.now();
    let callers: Vec<_> = (0..10)
        .map(|_| {
            let (cache, load) = (cache.clone(), loader.load(10 * SECOND, 1_u8));
            let hard = cache
                .load(&key())
                .ttl(MINUTE)
                .detached()
                .hard_timeout(SECOND);
            tokio::spawn(hard.run(|| load))
        })
        .collect();
    for caller in callers {
        let error = caller.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.is_retryable());
    }
    assert_eq!(world.now().since(before), SECOND);
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(cache.get(&key()).await.unwrap(), Lookup::Hit(1_u8));
    assert_eq!(loader.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn w_46_a_detached_load_survives_its_caller_and_failures_are_shared() {
    let cache = World::new().process();
    let loader = Loader::default();
    let leader = tokio::spawn({
        let (cache, load) = (cache.clone(), loader.load(SECOND, 1_u8));
        async move { cache.load(&key()).ttl(MINUTE).detached().run(|| load).await }
    });
    settle().await;
    let follower = tokio::spawn({
        let (cache, load) = (cache.clone(), loader.load(SECOND, 2_u8));
        async move { cache.load(&key()).ttl(MINUTE).detached().run(|| load).await }
    });
    settle().await;
    leader.abort();
    assert_eq!(follower.await.unwrap().unwrap(), 1);
    assert_eq!(loader.runs(), 1);

    let failing = Loader::default();
    let callers: Vec<_> = (0..20)
        .map(|_| {
            let load = failing.load(SECOND, Err::<u8, _>("down".to_owned()));
            let load = cache.load(&Key::new("failing")).detached().run(|| load);
            tokio::spawn(load)
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap(), Err("down".to_owned()));
    }
    assert_eq!(failing.runs(), 1, "not one after the other");
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_detached_load_is_an_error_to_its_caller() {
    let cache = World::new().process();
    let load = cache.load(&key()).detached().run(|| async {
        if true {
            panic!("the loader fails hard");
        }
        1_u8
    });
    assert_eq!(load.await.unwrap_err().kind(), ErrorKind::Upstream);
    let load = cache.load(&key()).detached().run(|| async { 2_u8 });
    assert_eq!(load.await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn w_47_whatever_gives_a_future_is_awaited() {
    fn plain(value: u8) -> std::pin::Pin<Box<dyn Future<Output = u8> + Send>> {
        Box::pin(async move { value })
    }
    let cache = World::new().process();
    assert_eq!(cache.get_or_set(&key(), MINUTE, || plain(1)).await, 1);
    assert_eq!(cache.get(&key()).await.unwrap(), Lookup::Hit(1_u8));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_races_with_a_write_loses() {
    let cache = World::new().process();
    stale(&cache).await;
    let load = Loader::default().load(SECOND, 2_u8);
    assert_eq!(revalidating(&cache).run(|| load).await.unwrap(), 1);
    settle().await;
    cache.set(&key(), &3_u8, MINUTE).await.unwrap();
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(cache.get(&key()).await.unwrap(), Lookup::Hit(3_u8));
}

/// Reads every `step` through a life of 1000 s whose value took 10 s to make, and gives the seconds that
/// were left when it was made anew.
async fn early_refresh(seed: u64, beta: f64, step: Duration) -> Option<f64> {
    let world = World::new();
    let cache = world.builder().seed(seed).build().unwrap();
    let loader = Loader::default();
    let life = 1_000 * SECOND;
    cache
        .load(&key())
        .ttl(life)
        .run(|| loader.load(10 * SECOND, 1_u8))
        .await;
    let stored = world.now();
    for _ in 0..(life.as_secs() / step.as_secs() - 1) {
        tokio::time::advance(step).await;
        let before = world.now();
        let load = cache.load(&key()).ttl(life).early_refresh(beta);
        load.run(|| loader.load(10 * SECOND, 2_u8)).await;
        if loader.runs() == 2 {
            return Some((life - before.since(stored)).as_secs_f64());
        }
    }
    None
}

#[tokio::test(start_paused = true)]
async fn w_48_early_refreshes_come_as_xfetch_says() {
    let mut leads = Vec::new();
    for seed in 0..400 {
        leads.extend(early_refresh(seed, 1.0, 5 * SECOND).await);
    }
    // A reader with r seconds left goes early with a chance of exp(-r / 10). That none of the readers
    // at 5, 10, .. r does has the product of their chances not to.
    let spared = |above: u32| -> f64 {
        (above..200)
            .map(|n| 1.0 - (-f64::from(n) * 0.5).exp())
            .product()
    };
    assert!(leads.len() as f64 / 400.0 > 0.85, "{} of 400", leads.len());
    for (seconds, readers) in [(10.0, 2), (20.0, 4), (40.0, 8)] {
        let expected = 1.0 - spared(readers);
        let seen = leads.iter().filter(|lead| **lead >= seconds).count() as f64 / 400.0;
        // Four standard deviations.
        let margin = 4.0 * (expected * (1.0 - expected) / 400.0).sqrt();
        assert!(
            (seen - expected).abs() < margin,
            "{seconds} s: {seen} not {expected}"
        );
    }
    // However eager, not before the last tenth on average.
    let eager = early_refresh(1, 1e9, 5 * SECOND).await.unwrap();
    assert!(eager < 1_000.0, "{eager}");
    let mut sum = 0.0;
    for seed in 0..50 {
        sum += early_refresh(seed, 1e9, 5 * SECOND).await.unwrap();
    }
    assert!(
        sum / 50.0 < 600.0,
        "bounded by a share of the life, not by beta: {}",
        sum / 50.0
    );
}

#[tokio::test(start_paused = true)]
async fn an_early_refresh_that_fails_leaves_what_there_is() {
    let world = World::new();
    let cache = world.process();
    let load = cache.load(&key()).ttl(10 * SECOND);
    load.run(|| Loader::default().load(SECOND, Ok::<u8, String>(1)))
        .await
        .unwrap();
    tokio::time::advance(10 * SECOND - Duration::from_millis(1)).await;
    let early = cache
        .load(&key())
        .ttl(10 * SECOND)
        .early_refresh(1e9)
        .run(fails);
    assert_eq!(early.await, Ok(1));
    // Detached, nobody waits for it. In another process: this one leaves the source alone for a while.
    let cache = world.process();
    let load = Loader::default().load(SECOND, 2_u8);
    let early = cache
        .load(&key())
        .ttl(10 * SECOND)
        .early_refresh(1e9)
        .detached();
    let before = world.now();
    assert_eq!(early.run(|| load).await.unwrap(), 1);
    assert_eq!(world.now(), before);
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(cache.get(&key()).await.unwrap(), Lookup::Hit(2_u8));
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_gone_does_not_stand_in_later() {
    let cache = World::new().process();
    stale(&cache).await;
    let load = cache.load(&key()).stale_if_error(MINUTE);
    let gone = load.run(|| async { Ok::<Option<u8>, String>(None) });
    assert_eq!(gone.await, Ok(None));
    let load = cache.load(&key()).stale_if_error(MINUTE);
    assert_eq!(load.run(fails).await, Err("down".to_owned()));
}
