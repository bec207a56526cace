//! Names in the store: readable, or not at all.

use askonce::typed::Lookup;

use super::*;

async fn names(world: &World) -> Vec<String> {
    let all = Glob::everything();
    let page = CacheBackend::scan(&*world.store, &all, Cursor::default(), 100).await;
    let mut names: Vec<_> = page
        .unwrap()
        .keys
        .iter()
        .map(|key| String::from_utf8(key.to_vec()).unwrap())
        .filter(|name| !name.starts_with("!mark:"))
        .collect();
    names.sort();
    names
}

#[tokio::test(start_paused = true)]
async fn keys_can_be_read_in_the_store() {
    let world = World::new();
    let cache = world.process();
    cache
        .set(&Key::new("name").part(7), &1_u8, MINUTE)
        .await
        .unwrap();
    let inner = cache.namespace(("tenant", 3));
    inner.set(&Key::new("x:y"), &1_u8, MINUTE).await.unwrap();
    assert_eq!(names(&world).await, ["app/(tenant,3)/x%3Ay", "app/name:7"]);
}

#[tokio::test(start_paused = true)]
async fn hashed_keys_show_nothing_and_match_nothing_but_all() {
    let world = World::new();
    let cache = world
        .builder()
        .namespace("app")
        .hashed_keys(true)
        .build()
        .unwrap();
    cache.set(&Key::new("secret"), &1_u8, MINUTE).await.unwrap();
    assert_eq!(
        cache.get(&Key::new("secret")).await.unwrap(),
        Lookup::Hit(1_u8)
    );
    let names = names(&world).await;
    assert!(
        names[0].starts_with("app/~") && names.len() == 1,
        "{names:?}"
    );
    let error = cache.delete_pattern("sec*").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(cache.delete_pattern("*").await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_holds_anothers_value_gives_an_error_and_no_value() {
    let world = World::new();
    let cache = world.builder().build().unwrap();
    cache.set(&Key::new("a"), &1_u8, MINUTE).await.unwrap();
    let stored = CacheBackend::get(&*world.store, b"a")
        .await
        .unwrap()
        .unwrap();
    CacheBackend::set(&*world.store, b"b", stored.bytes, None)
        .await
        .unwrap();
    let error = cache.get::<u8>(&Key::new("b")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let loaded = cache
        .get_or_set(&Key::new("b"), MINUTE, || async { 2_u8 })
        .await;
    assert_eq!(loaded, 2);
    assert_eq!(cache.get(&Key::new("b")).await.unwrap(), Lookup::Hit(2_u8));
}
