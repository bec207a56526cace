//! Single values and batches: what each operation does, and what it asks of the backend.

use std::collections::HashSet;

use askonce::typed::{Lookup, Remaining, SetOptions, Ttl};

use super::*;

#[tokio::test(start_paused = true)]
async fn add_stores_only_where_there_is_nothing() {
    let cache = World::new().process();
    assert!(cache.add(&key(), &1_u8, MINUTE).await.unwrap());
    assert!(!cache.add(&key(), &2_u8, MINUTE).await.unwrap());
    assert_eq!(cache.get(&key()).await.unwrap(), Lookup::Hit(1_u8));
    tokio::time::advance(MINUTE).await;
    assert!(cache.add(&key(), &3_u8, MINUTE).await.unwrap(), "expired");
    cache.clear().await.unwrap();
    assert!(cache.add(&key(), &4_u8, MINUTE).await.unwrap(), "cleared");
    assert_eq!(cache.get(&key()).await.unwrap(), Lookup::Hit(4_u8));
    cache.set_null(&key(), MINUTE).await.unwrap();
    assert!(
        !cache.add(&key(), &5_u8, MINUTE).await.unwrap(),
        "a null is known"
    );
}

#[tokio::test(start_paused = true)]
async fn of_many_who_add_at_once_one_does() {
    let world = World::new();
    let adders = (0..20_u8).map(|own| {
        let cache = world.process();
        tokio::spawn(async move { cache.add(&key(), &own, MINUTE).await.unwrap() })
    });
    let adders: Vec<_> = adders.collect();
    let mut added = 0;
    for adder in adders {
        added += usize::from(adder.await.unwrap());
    }
    assert_eq!(added, 1);
}

#[tokio::test(start_paused = true)]
async fn compare_and_set_replaces_only_what_was_read() {
    let world = World::new();
    let (one, two) = (world.process(), world.process());
    let (found, empty) = one.get_versioned::<u8>(&key()).await.unwrap();
    assert_eq!(found, Lookup::Miss);
    assert!(
        one.compare_and_set(&key(), &empty, &1_u8, MINUTE)
            .await
            .unwrap()
    );
    assert!(
        !two.compare_and_set(&key(), &empty, &2_u8, MINUTE)
            .await
            .unwrap()
    );
    let (found, version) = two.get_versioned::<u8>(&key()).await.unwrap();
    assert_eq!(found, Lookup::Hit(1));
    one.set(&key(), &1_u8, 2 * MINUTE).await.unwrap();
    assert!(
        !two.compare_and_set(&key(), &version, &3_u8, MINUTE)
            .await
            .unwrap(),
        "the same value, written again, is another version"
    );
    let (_, version) = two.get_versioned::<u8>(&key()).await.unwrap();
    assert!(
        two.compare_and_set(&key(), &version, &3_u8, MINUTE)
            .await
            .unwrap()
    );
    assert_eq!(one.get(&key()).await.unwrap(), Lookup::Hit(3_u8));
    assert_eq!(format!("{version:?}"), "Version { .. }");
}

#[tokio::test(start_paused = true)]
async fn counts_of_many_processes_add_up() {
    let world = World::new();
    let counters: Vec<_> = (0..8)
        .map(|_| {
            let cache = world.process();
            tokio::spawn(async move {
                for _ in 0..50 {
                    cache.increment(&key(), 3, MINUTE).await.unwrap();
                }
            })
        })
        .collect();
    for counter in counters {
        counter.await.unwrap();
    }
    let cache = world.process();
    assert_eq!(cache.get(&key()).await.unwrap(), Lookup::Hit(1_200_i64));
    assert_eq!(cache.increment(&key(), -1_201, MINUTE).await.unwrap(), -1);
}

#[tokio::test(start_paused = true)]
async fn a_count_keeps_its_life_and_ends_with_its_namespace() {
    let cache = World::new().process();
    assert_eq!(cache.increment(&key(), 1, MINUTE).await.unwrap(), 1);
    tokio::time::advance(MINUTE / 2).await;
    assert_eq!(cache.increment(&key(), 1, 10 * MINUTE).await.unwrap(), 2);
    let left = cache.ttl(&key()).await.unwrap();
    assert_eq!(left, Some(Remaining::For(MINUTE / 2)));
    tokio::time::advance(MINUTE / 2).await;
    assert_eq!(cache.increment(&key(), 1, MINUTE).await.unwrap(), 1);
    cache.clear().await.unwrap();
    assert_eq!(cache.increment(&key(), 5, MINUTE).await.unwrap(), 5);
    cache.set(&key(), &7_i64, MINUTE).await.unwrap();
    assert_eq!(
        cache.increment(&key(), 1, MINUTE).await.unwrap(),
        8,
        "a value that is a count"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_no_count_is_left_as_it_is() {
    let cache = World::new().process();
    cache.set(&key(), &"text".to_owned(), MINUTE).await.unwrap();
    let error = cache.increment(&key(), 1, MINUTE).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert_eq!(
        cache.get(&key()).await.unwrap(),
        Lookup::Hit("text".to_owned())
    );
    let most = askonce::backend::MAX_COUNT;
    cache.set(&key(), &most, MINUTE).await.unwrap();
    for by in [1, i64::MAX] {
        let error = cache.increment(&key(), by, MINUTE).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    }
    assert_eq!(cache.get(&key()).await.unwrap(), Lookup::Hit(most));
    let zero = cache.increment(&Key::new("other"), 1, Duration::ZERO).await;
    assert_eq!(zero.unwrap_err().kind(), ErrorKind::InvalidRequest);
}

#[tokio::test(start_paused = true)]
async fn a_touch_gives_another_life_and_keeps_the_value() {
    let world = World::new();
    let cache = world.process();
    assert!(!cache.touch(&key(), MINUTE).await.unwrap());
    let tagged = SetOptions::new(MINUTE).tags(["t"]).stale_for(MINUTE);
    cache.set(&key(), &1_u8, tagged).await.unwrap();
    assert!(cache.touch(&key(), 3 * MINUTE).await.unwrap());
    tokio::time::advance(2 * MINUTE).await;
    assert_eq!(cache.get(&key()).await.unwrap(), Lookup::Hit(1_u8));
    tokio::time::advance(MINUTE).await;
    assert_eq!(
        cache.get(&key()).await.unwrap(),
        Lookup::Stale(1_u8),
        "it still ends so"
    );
    assert!(!cache.touch(&key(), MINUTE).await.unwrap(), "too late");
    cache
        .set(&key(), &2_u8, SetOptions::new(MINUTE).tags(["t"]))
        .await
        .unwrap();
    assert!(cache.touch(&key(), None).await.unwrap());
    assert_eq!(cache.ttl(&key()).await.unwrap(), Some(Remaining::Forever));
    let zero = cache.touch(&key(), Duration::ZERO).await;
    assert_eq!(zero.unwrap_err().kind(), ErrorKind::InvalidRequest);
    cache.invalidate_tag("t").await.unwrap();
    assert!(
        !cache.touch(&key(), MINUTE).await.unwrap(),
        "a touch revives nothing"
    );
}

#[tokio::test(start_paused = true)]
async fn ttl_tells_nothing_forever_and_how_long_apart() {
    let cache = World::new().process();
    assert_eq!(cache.ttl(&key()).await.unwrap(), None);
    cache.set(&key(), &1_u8, Ttl::Forever).await.unwrap();
    assert_eq!(cache.ttl(&key()).await.unwrap(), Some(Remaining::Forever));
    cache
        .set(&key(), &1_u8, Duration::from_millis(1_500))
        .await
        .unwrap();
    tokio::time::advance(SECOND).await;
    let left = Remaining::For(Duration::from_millis(500));
    assert_eq!(cache.ttl(&key()).await.unwrap(), Some(left));
}

#[tokio::test(start_paused = true)]
async fn of_many_who_take_one_gets_it() {
    let world = World::new();
    world.process().set(&key(), &9_u8, MINUTE).await.unwrap();
    let takers: Vec<_> = (0..20)
        .map(|_| {
            let cache = world.process();
            tokio::spawn(async move { cache.take::<u8>(&key()).await.unwrap() })
        })
        .collect();
    let mut got = Vec::new();
    for taker in takers {
        got.extend(taker.await.unwrap().hit());
    }
    assert_eq!(got, [9]);
    let cache = world.process();
    cache.set(&key(), &"text".to_owned(), MINUTE).await.unwrap();
    assert!(cache.take::<u8>(&key()).await.is_err());
    assert!(
        cache.exists(&key()).await.unwrap(),
        "what is not understood is not taken"
    );
}

#[tokio::test(start_paused = true)]
async fn w_03_a_batch_is_one_request_for_all() {
    let world = World::new();
    let cache = world.builder().build().unwrap();
    let keys: Vec<_> = (0..100).map(Key::new).collect();
    let values: Vec<_> = keys.iter().cloned().zip(0_u32..).collect();
    assert!(
        cache
            .set_many(&values, MINUTE)
            .await
            .iter()
            .all(Result::is_ok)
    );
    assert_eq!(world.store.requests(), 1);
    let found = cache.get_many::<u32>(&keys).await;
    assert_eq!(world.store.requests(), 1);
    for (at, found) in (0_u32..).zip(found) {
        assert_eq!(found.unwrap(), Lookup::Hit(at));
    }
    assert!(
        cache
            .delete_many(&keys)
            .await
            .into_iter()
            .all(Result::unwrap)
    );
    assert_eq!(world.store.requests(), 1);

    let named = world.process();
    named.set_many(&values, MINUTE).await;
    world.store.requests();
    named.get_many::<u32>(&keys).await;
    assert_eq!(
        world.store.requests(),
        1,
        "generations come with the values"
    );
    let zero = named.set_many(&values, Duration::ZERO).await;
    assert!(zero.iter().all(Result::is_err));
    world.fail(true);
    assert!(
        named
            .set_many(&values, MINUTE)
            .await
            .iter()
            .all(Result::is_err)
    );
    assert!(
        named
            .get_many::<u32>(&keys)
            .await
            .iter()
            .all(Result::is_err)
    );
}

#[tokio::test(start_paused = true)]
async fn w_04_exists_and_delete_tell_what_is_so() {
    let world = World::new();
    let cache = world.process();
    assert!(!cache.exists(&key()).await.unwrap() && !cache.delete(&key()).await.unwrap());
    cache.set_null(&key(), MINUTE).await.unwrap();
    assert!(cache.exists(&key()).await.unwrap() && cache.delete(&key()).await.unwrap());
    assert!(!cache.exists(&key()).await.unwrap());
    world.fail(true);
    assert!(cache.exists(&key()).await.is_err() && cache.delete(&key()).await.is_err());
    assert!(cache.invalidate_tag("t").await.is_err() && cache.clear().await.is_err());
    assert!(cache.ttl(&key()).await.is_err() && cache.touch(&key(), MINUTE).await.is_err());
    assert!(cache.delete_pattern("*").await.is_err() && cache.len().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn w_55_a_delete_reads_nothing() {
    let world = World::new();
    let cache = world.process();
    cache
        .set(&key(), &vec![0_u8; 100_000], MINUTE)
        .await
        .unwrap();
    world.store.reads.store(0, Ordering::SeqCst);
    assert!(cache.delete(&key()).await.unwrap());
    cache.delete_many(&[key(), Key::new("other")]).await;
    assert_eq!(world.store.reads.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn w_24_there_is_one_place_for_each_key() {
    let world = World::new();
    let (cache, other) = (world.process(), world.process());
    let loaded = cache
        .load(&key())
        .ttl(MINUTE)
        .tags(["t"])
        .run(|| async { 1_u8 });
    assert_eq!(loaded.await, 1);
    assert_eq!(cache.get(&key()).await.unwrap(), Lookup::Hit(1_u8));
    assert!(
        other.delete(&key()).await.unwrap(),
        "delete sees what was loaded"
    );
    cache.set(&key(), &2_u8, MINUTE).await.unwrap();
    let found = cache.get_or_set(&key(), MINUTE, || async { 3_u8 }).await;
    assert_eq!(found, 2, "a load sees what was set");
    other.increment(&Key::new("n"), 4, MINUTE).await.unwrap();
    let found = cache
        .get_or_set(&Key::new("n"), MINUTE, || async { 0_i64 })
        .await;
    assert_eq!(found, 4, "and what was counted");
}

#[tokio::test(start_paused = true)]
async fn jitter_shortens_by_its_share_and_never_lengthens() {
    let world = World::new();
    let cache = world.builder().jitter(0.2).build().unwrap();
    let mut lives = Vec::new();
    for n in 0..500_u32 {
        cache.set(&Key::new(n), &n, 100 * SECOND).await.unwrap();
        match cache.ttl(&Key::new(n)).await.unwrap() {
            Some(Remaining::For(life)) => lives.push(life.as_secs_f64()),
            other => panic!("{other:?}"),
        }
    }
    let mean = lives.iter().sum::<f64>() / 500.0;
    assert!(
        lives.iter().all(|life| (80.0..=100.0).contains(life)),
        "{lives:?}"
    );
    assert!(
        (89.0..91.0).contains(&mean),
        "uniform from 80 to 100, not {mean}"
    );
    let again = world.builder().jitter(0.2).build().unwrap();
    again.set(&key(), &1_u8, 100 * SECOND).await.unwrap();
    let Some(Remaining::For(first)) = again.ttl(&key()).await.unwrap() else {
        panic!("it has a life");
    };
    assert_eq!(
        first.as_secs_f64(),
        lives[0],
        "the same seed, the same lives"
    );

    cache.set(&key(), &1_u8, Ttl::Forever).await.unwrap();
    assert_eq!(cache.ttl(&key()).await.unwrap(), Some(Remaining::Forever));
    let exact = SetOptions::new(MINUTE).jitter(0.0);
    cache.set(&key(), &1_u8, exact).await.unwrap();
    assert_eq!(
        cache.ttl(&key()).await.unwrap(),
        Some(Remaining::For(MINUTE))
    );
    assert!(world.builder().jitter(1.5).build().is_err());
    assert!(world.builder().jitter(f64::NAN).build().is_err());
}

#[tokio::test(start_paused = true)]
async fn patterns_reach_as_far_as_the_namespace() {
    let world = World::new();
    let (users, other) = (
        world.process(),
        world.builder().namespace("apple").build().unwrap(),
    );
    for n in 0..5_u8 {
        users
            .set(&Key::new("name").part(n), &n, MINUTE)
            .await
            .unwrap();
        users
            .set(&Key::new("mail").part(n), &n, MINUTE)
            .await
            .unwrap();
        other
            .set(&Key::new("name").part(n), &n, MINUTE)
            .await
            .unwrap();
    }
    users
        .set(&Key::new("name").part("*"), &1_u8, MINUTE)
        .await
        .unwrap();
    assert_eq!(
        users.delete_pattern("name:%2A").await.unwrap(),
        1,
        "a star in a key is no pattern"
    );
    assert_eq!(users.len().await.unwrap(), 10);
    let page = users.scan("name:*", Cursor::default(), 100).await.unwrap();
    let found: HashSet<_> = page.keys.iter().map(String::as_str).collect();
    assert_eq!(
        found,
        HashSet::from(["name:0", "name:1", "name:2", "name:3", "name:4"])
    );
    assert_eq!(users.delete_pattern("name:[0-2]").await.unwrap(), 3);
    assert_eq!(users.len().await.unwrap(), 7);
    assert_eq!(users.delete_pattern("nothing:*").await.unwrap(), 0);
    assert_eq!(other.len().await.unwrap(), 5);
    assert!(!users.is_empty().await.unwrap());

    let root = world.builder().build().unwrap();
    assert_eq!(
        root.len().await.unwrap(),
        12,
        "values, and not the marks beside them"
    );
    assert_eq!(root.delete_pattern("app/*").await.unwrap(), 7);
    assert_eq!(root.delete_pattern("*").await.unwrap(), 5);
    assert!(root.is_empty().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_pattern_stops_loads_that_are_under_way() {
    let cache = World::new().process();
    let loading = tokio::spawn({
        let cache = cache.clone();
        async move {
            let load = || Loader::default().load(SECOND, 1_u8);
            cache.get_or_set(&key(), MINUTE, load).await
        }
    });
    settle().await;
    cache.delete_pattern("key:*").await.unwrap();
    assert_eq!(loading.await.unwrap(), 1);
    assert_eq!(cache.get::<u8>(&key()).await.unwrap(), Lookup::Miss);
}
