//! Faults that other caches have had, by their changelogs, and this one must not.

use askonce::typed::{LeaseOptions, Lookup, SetOptions};

use super::*;

#[tokio::test(start_paused = true)]
async fn an_old_value_that_stands_in_is_not_written_over_a_newer_one() {
    for leased in [true, false] {
        let world = World::new();
        let (one, two) = (world.process(), world.process());
        let options = SetOptions::new(SECOND).stale_for(MINUTE);
        one.set(&key(), &1_u8, options).await.unwrap();
        tokio::time::advance(SECOND).await;
        let failing = tokio::spawn(async move {
            let load = one.load(&key()).stale_if_error(MINUTE);
            let load = if leased {
                load.lease(LeaseOptions::new())
            } else {
                load
            };
            let fails = || Loader::default().load(SECOND, Err::<u8, _>("down".to_owned()));
            load.run(fails).await
        });
        settle().await;
        two.set(&key(), &2_u8, MINUTE).await.unwrap();
        assert_eq!(failing.await.unwrap(), Ok(1));
        assert_eq!(two.get(&key()).await.unwrap(), Lookup::Hit(2_u8));
    }
}

#[tokio::test(start_paused = true)]
async fn keys_that_are_no_text_do_not_stop_a_listing_or_a_clear() {
    let world = World::new();
    for name in [&b"app/\xff\xfe"[..], b"\xff", b"", b"app/%zz"] {
        let bytes = Bytes::from_static(b"of another program");
        CacheBackend::set(&*world.store, name, bytes, None)
            .await
            .unwrap();
    }
    let cache = world.process();
    cache.set(&key(), &1_u8, MINUTE).await.unwrap();
    assert_eq!(cache.len().await.unwrap(), 3);
    assert_eq!(cache.delete_pattern("*").await.unwrap(), 3);
    let root = world.builder().build().unwrap();
    assert_eq!(root.delete_pattern("*").await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn reading_prolongs_no_life() {
    let cache = World::new().process();
    cache.set(&key(), &1_u8, 10 * SECOND).await.unwrap();
    for _ in 0..9 {
        tokio::time::advance(SECOND).await;
        assert_eq!(cache.get(&key()).await.unwrap(), Lookup::Hit(1_u8));
        let loaded = cache.load(&key()).ttl(MINUTE).run(|| async { 2_u8 });
        assert_eq!(loaded.await, 1);
    }
    tokio::time::advance(SECOND).await;
    assert_eq!(cache.get::<u8>(&key()).await.unwrap(), Lookup::Miss);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_does_not_end_with_the_caller_that_set_it_off() {
    let world = World::new();
    let cache = world.process();
    let options = SetOptions::new(SECOND).stale_for(MINUTE);
    cache.set(&key(), &1_u8, options).await.unwrap();
    tokio::time::advance(SECOND).await;
    let caller = tokio::spawn({
        let (cache, load) = (cache.clone(), Loader::default().load(SECOND, 2_u8));
        async move {
            let load_ = cache.load(&key()).ttl(MINUTE).detached();
            let served = load_.stale_while_revalidate(MINUTE).run(|| load).await;
            assert_eq!(served.unwrap(), 1);
            std::future::pending::<()>().await;
        }
    });
    settle().await;
    caller.abort();
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(cache.get(&key()).await.unwrap(), Lookup::Hit(2_u8));
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_not_stored_is_still_given_to_all_who_wait() {
    let world = World::new();
    let cache = world.process();
    let loader = Loader::default();
    let callers: Vec<_> = (0..20)
        .map(|_| {
            let (cache, load) = (cache.clone(), loader.load(SECOND, None::<u8>));
            tokio::spawn(async move { cache.load(&key()).run(|| load).await })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), None);
    }
    assert_eq!(
        loader.runs(),
        1,
        "not one after the other, though nothing is stored"
    );
}

#[tokio::test(start_paused = true)]
async fn values_with_trailing_white_space_and_control_bytes_stay_as_they_are() {
    let cache = World::new().process();
    let sly = "set x 0 0 1\r\ny\r\n \t\0 ".to_owned();
    let name = Key::new(&sly);
    cache.set(&name, &sly, MINUTE).await.unwrap();
    assert_eq!(cache.get(&name).await.unwrap(), Lookup::Hit(sly));
    assert_eq!(
        cache.get::<String>(&Key::new("set x 0 0 1")).await.unwrap(),
        Lookup::Miss
    );
}

#[tokio::test(start_paused = true)]
async fn a_load_cancelled_at_any_point_leaves_nothing_behind() {
    // Every number of polls is a place to be cancelled at.
    for polls in 0..40 {
        let world = World::new();
        let cache = world.process();
        let name = key();
        let leased = cache.load(&name).ttl(MINUTE).lease(LeaseOptions::new());
        let mut load = Box::pin(leased.run(|| async {
            tokio::task::yield_now().await;
            1_u8
        }));
        let mut done = false;
        for _ in 0..polls {
            let once = std::future::poll_fn(|context| {
                std::task::Poll::Ready(load.as_mut().poll(context).is_ready())
            });
            done = once.await;
            if done {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(load);
        let before = world.now();
        let next = cache.load(&name).ttl(MINUTE).lease(LeaseOptions::new());
        let value = next.run(|| async { 2_u8 }).await;
        assert_eq!(
            value,
            if done { 1 } else { 2 },
            "cancelled after {polls} polls"
        );
        assert!(
            world.now().since(before) < SECOND,
            "nobody waits for a lease of nobody"
        );
        if done {
            return;
        }
    }
    panic!("the load never ends");
}
