//! Tags and clears: one write, seen by every process, also by loads that had begun before it.

use askonce::typed::{Fresh, Lookup, SetOptions, Ttl};

use super::*;

fn tagged(tags: &[&str]) -> SetOptions {
    SetOptions::new(MINUTE).tags(tags.iter().copied())
}

async fn value(cache: &Cache, key: &Key) -> Lookup<u8> {
    cache.get(key).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn w_56_a_tag_is_invalid_for_all_processes_however_many_values_it_has() {
    let world = World::new();
    let (one, two) = (world.process(), world.process());
    for n in 0..200_u8 {
        let tags = if n % 2 == 0 {
            vec!["even", "all"]
        } else {
            vec!["all"]
        };
        one.set(&Key::new(n), &n, tagged(&tags)).await.unwrap();
    }
    one.set(&Key::new("untagged"), &1_u8, MINUTE).await.unwrap();
    world.store.requests();
    two.invalidate_tag("even").await.unwrap();
    assert_eq!(world.store.requests(), 2, "not one for each value");
    for n in 0..200_u8 {
        let expected = if n % 2 == 0 {
            Lookup::Miss
        } else {
            Lookup::Hit(n)
        };
        assert_eq!(value(&one, &Key::new(n)).await, expected);
    }
    assert_eq!(value(&one, &Key::new("untagged")).await, Lookup::Hit(1));
    one.set(&Key::new(0), &5_u8, tagged(&["even"]))
        .await
        .unwrap();
    assert_eq!(
        value(&two, &Key::new(0)).await,
        Lookup::Hit(5),
        "stored after it"
    );
    two.invalidate_tags(&["odd", "all"]).await.unwrap();
    assert_eq!(value(&one, &Key::new(1)).await, Lookup::Miss);
    // There is no index: a name that nobody uses any more costs nothing, and none is ever dropped.
    world.process().invalidate_tag("never seen").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_tag_is_known_to_a_process_that_starts_later() {
    let world = World::new();
    world
        .process()
        .set(&key(), &1_u8, tagged(&["t"]))
        .await
        .unwrap();
    let later = world.process();
    assert_eq!(value(&later, &key()).await, Lookup::Hit(1));
    later.invalidate_tag("t").await.unwrap();
    assert_eq!(value(&world.process(), &key()).await, Lookup::Miss);
}

#[tokio::test(start_paused = true)]
async fn a_clear_reaches_what_lies_within_and_nothing_beside() {
    let world = World::new();
    let (one, two) = (world.process(), world.process());
    let (inner, beside) = (
        one.namespace("inner"),
        world.builder().namespace("apple").build().unwrap(),
    );
    for cache in [&one, &inner, &beside] {
        cache.set(&key(), &1_u8, Ttl::Forever).await.unwrap();
    }
    two.namespace("inner").clear().await.unwrap();
    assert_eq!(value(&inner, &key()).await, Lookup::Miss);
    assert_eq!(value(&one, &key()).await, Lookup::Hit(1));
    inner.set(&key(), &2_u8, MINUTE).await.unwrap();
    world.store.requests();
    two.clear().await.unwrap();
    assert_eq!(world.store.requests(), 1);
    assert_eq!(value(&one, &key()).await, Lookup::Miss);
    assert_eq!(value(&inner, &key()).await, Lookup::Miss);
    assert_eq!(value(&beside, &key()).await, Lookup::Hit(1));
    one.set(&key(), &3_u8, MINUTE).await.unwrap();
    assert_eq!(value(&two, &key()).await, Lookup::Hit(3));
}

#[tokio::test(start_paused = true)]
async fn tags_of_two_namespaces_are_two_tags() {
    let world = World::new();
    let (acme, globex) = (world.process().namespace(1), world.process().namespace(2));
    acme.set(&key(), &1_u8, tagged(&["users"])).await.unwrap();
    globex.set(&key(), &2_u8, tagged(&["users"])).await.unwrap();
    acme.invalidate_tag("users").await.unwrap();
    assert_eq!(value(&acme, &key()).await, Lookup::Miss);
    assert_eq!(value(&globex, &key()).await, Lookup::Hit(2));
}

#[tokio::test(start_paused = true)]
async fn without_generations_a_clear_goes_through_the_keys() {
    let world = World::new();
    let plain = world
        .builder()
        .namespace("app")
        .generations(false)
        .build()
        .unwrap();
    plain.set(&key(), &1_u8, MINUTE).await.unwrap();
    world.store.requests();
    assert_eq!(value(&plain, &key()).await, Lookup::Hit(1));
    assert_eq!(world.store.requests(), 1);
    let beside = world
        .builder()
        .namespace("apple")
        .generations(false)
        .build()
        .unwrap();
    beside.set(&key(), &2_u8, tagged(&["t"])).await.unwrap();
    plain.clear().await.unwrap();
    assert_eq!(value(&plain, &key()).await, Lookup::Miss);
    assert_eq!(value(&beside, &key()).await, Lookup::Hit(2));
    beside.invalidate_tag("t").await.unwrap();
    assert_eq!(
        value(&beside, &key()).await,
        Lookup::Miss,
        "tags need no generation of a namespace"
    );
}

async fn lose_marks(world: &World) -> u64 {
    let marks = Glob::new("!mark:*");
    CacheBackend::delete_matching(&*world.store, &marks)
        .await
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_lost_mark_kills_and_revives_nothing() {
    let world = World::new();
    let cache = world.process();
    cache.set(&key(), &1_u8, tagged(&["t"])).await.unwrap();
    assert_eq!(lose_marks(&world).await, 2, "the namespace's and the tag's");
    assert_eq!(value(&cache, &key()).await, Lookup::Miss);
    // The marks are made anew for another value; the first stays dead.
    cache
        .set(&Key::new("other"), &2_u8, tagged(&["t"]))
        .await
        .unwrap();
    assert_eq!(value(&cache, &Key::new("other")).await, Lookup::Hit(2));
    assert_eq!(value(&cache, &key()).await, Lookup::Miss);
}

#[tokio::test(start_paused = true)]
async fn marks_live_as_long_as_what_carries_them() {
    let day = 24 * 60 * MINUTE;
    let world = World::new();
    let cache = world.process();
    let forever = SetOptions::new(Ttl::Forever).tags(["a"]);
    cache
        .set(&Key::new("forever"), &1_u8, forever)
        .await
        .unwrap();
    let year = SetOptions::new(365 * day).tags(["b"]);
    cache.set(&Key::new("year"), &2_u8, year).await.unwrap();
    tokio::time::advance(364 * day).await;
    assert_eq!(value(&cache, &Key::new("forever")).await, Lookup::Hit(1));
    assert_eq!(value(&cache, &Key::new("year")).await, Lookup::Hit(2));
    // One that is used goes on.
    let cache = world.builder().namespace("daily").build().unwrap();
    for _ in 0..100 {
        let day_long = SetOptions::new(2 * day).tags(["c"]);
        cache.set(&key(), &3_u8, day_long).await.unwrap();
        tokio::time::advance(day).await;
        assert_eq!(value(&cache, &key()).await, Lookup::Hit(3));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_loaded_before_an_invalidation_is_not_served_after_it() {
    for by_tag in [true, false] {
        for same_process in [true, false] {
            let world = World::new();
            let cache = world.process();
            let other = if same_process {
                cache.clone()
            } else {
                world.process()
            };
            let loader = Loader::default();
            let early = tokio::spawn({
                let (cache, load) = (cache.clone(), loader.load(SECOND, 1_u8));
                async move {
                    cache
                        .load(&key())
                        .ttl(MINUTE)
                        .tags(["t"])
                        .run(|| load)
                        .await
                }
            });
            settle().await;
            if by_tag {
                other.invalidate_tag("t").await.unwrap();
            } else {
                other.clear().await.unwrap();
            }
            let late = tokio::spawn({
                let (cache, load) = (cache.clone(), loader.load(SECOND, 2_u8));
                async move {
                    cache
                        .load(&key())
                        .ttl(MINUTE)
                        .tags(["t"])
                        .run(|| load)
                        .await
                }
            });
            assert_eq!(late.await.unwrap(), 2, "asked after it");
            assert_eq!(early.await.unwrap(), 1, "asked before it");
            assert_eq!(value(&cache, &key()).await, Lookup::Hit(2));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_old_load_that_ends_last_does_not_take_the_new_values_place() {
    let world = World::new();
    let cache = world.process();
    let early = tokio::spawn({
        let (cache, load) = (cache.clone(), Loader::default().load(2 * SECOND, 1_u8));
        async move {
            cache
                .load(&key())
                .ttl(MINUTE)
                .tags(["t"])
                .run(|| load)
                .await
        }
    });
    settle().await;
    cache.invalidate_tag("t").await.unwrap();
    let late = cache
        .load(&key())
        .ttl(MINUTE)
        .tags(["t"])
        .run(|| async { 2_u8 });
    assert_eq!(late.await, 2);
    assert_eq!(early.await.unwrap(), 1);
    assert_eq!(value(&cache, &key()).await, Lookup::Hit(2));
}

#[tokio::test(start_paused = true)]
async fn a_loader_can_say_what_its_value_depends_on() {
    let world = World::new();
    let (cache, other) = (world.process(), world.process());
    let load = || async { Fresh::new(1_u8).tags(["doc:1"]) };
    assert_eq!(cache.load(&key()).ttl(MINUTE).run(load).await.value, 1);
    assert_eq!(value(&other, &key()).await, Lookup::Hit(1));
    other.invalidate_tag("doc:1").await.unwrap();
    assert_eq!(value(&cache, &key()).await, Lookup::Miss);

    let slow = || async {
        tokio::time::sleep(SECOND).await;
        Ok::<_, String>(Fresh::new(Some(2_u8)).tags(["doc:2"]))
    };
    let (loaded, ()) = tokio::join!(cache.load(&key()).ttl(MINUTE).run(slow), async {
        settle().await;
        other.invalidate_tag("doc:2").await.unwrap();
    });
    assert_eq!(loaded.unwrap().value, Some(2));
    assert_eq!(
        value(&cache, &key()).await,
        Lookup::Miss,
        "it may be from before"
    );
    let loaded = cache.load(&key()).ttl(MINUTE).run(slow).await;
    assert_eq!(loaded.unwrap().value, Some(2));
    assert_eq!(value(&cache, &key()).await, Lookup::Hit(2));
}

#[tokio::test(start_paused = true)]
async fn a_loader_can_say_how_long_and_whether() {
    let cache = World::new().process();
    let load = || async { Fresh::new(1_u8).ttl(5 * SECOND) };
    cache.load(&key()).ttl(MINUTE).run(load).await;
    tokio::time::advance(4 * SECOND).await;
    assert_eq!(value(&cache, &key()).await, Lookup::Hit(1));
    tokio::time::advance(SECOND).await;
    assert_eq!(value(&cache, &key()).await, Lookup::Miss);
    let load = || async { Fresh::new(2_u8).unstored() };
    assert_eq!(cache.load(&key()).run(load).await.value, 2);
    assert_eq!(value(&cache, &key()).await, Lookup::Miss);
    let none = || async { Fresh::new(None::<u8>).ttl(SECOND) };
    cache.load(&key()).negative_ttl(MINUTE).run(none).await;
    assert_eq!(value(&cache, &key()).await, Lookup::Null);
    tokio::time::advance(SECOND).await;
    assert_eq!(value(&cache, &key()).await, Lookup::Miss);
}

#[tokio::test(start_paused = true)]
async fn a_mark_that_cannot_be_read_fails_a_get_and_no_load() {
    let world = World::new();
    let cache = world.process();
    cache.set(&key(), &1_u8, tagged(&["t"])).await.unwrap();
    world.fail(true);
    assert_eq!(
        cache.get::<u8>(&key()).await.unwrap_err().kind(),
        ErrorKind::BackendUnavailable
    );
    let loaded = cache.load(&key()).tags(["t"]).run(|| async { 2_u8 });
    assert_eq!(loaded.await, 2);
    world.fail(false);
    assert_eq!(value(&cache, &key()).await, Lookup::Hit(1));
}
