use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use askonce::Ttl;
use askonce::strategy::{cached, delete_through, write_through};
use askonce::typed::{Key, Lookup};
use tokio::sync::Notify;

use super::{Flaky, cache, clock, over};

fn text(text: &str) -> String {
    text.to_owned()
}

#[tokio::test]
async fn w_26_write_through_keeps_what_the_source_returned() {
    let (cache, key) = (cache(), Key::new("user").part(7));
    let written = write_through(&cache, &key, Ttl::Forever, || async {
        Ok::<_, ()>(text("Ada, id 7"))
    });
    assert_eq!(written.await, Ok(text("Ada, id 7")));
    assert_eq!(
        cache.get(&key).await.unwrap(),
        Lookup::Hit(text("Ada, id 7"))
    );
}

#[tokio::test]
async fn w_26_the_cache_is_never_ahead_of_the_source() {
    let (cache, key) = (cache(), Key::new("user").part(7));
    cache.set(&key, &text("old"), Ttl::Forever).await.unwrap();
    let seen = write_through(&cache, &key, Ttl::Forever, || async {
        // While the source is being written, the cache does not know of it.
        assert_eq!(cache.get(&key).await.unwrap(), Lookup::Hit(text("old")));
        Err::<String, _>("the source timed out")
    });
    assert_eq!(seen.await, Err("the source timed out"));
    // The source may or may not have applied it: the next reader asks.
    assert_eq!(cache.get::<String>(&key).await.unwrap(), Lookup::Miss);
}

#[tokio::test]
async fn w_26_a_value_that_cannot_be_kept_leaves_no_stale_one() {
    let clock = clock();
    let flaky = Flaky::new(&clock);
    let (cache, key) = (over(&flaky, &clock), Key::new("user").part(7));
    cache.set(&key, &text("old"), Ttl::Forever).await.unwrap();
    flaky.no_writes.store(true, Ordering::SeqCst);
    let written = write_through(&cache, &key, Ttl::Forever, || async {
        Ok::<_, ()>(text("new"))
    });
    assert_eq!(written.await, Ok(text("new")), "the caller is not told");
    flaky.no_writes.store(false, Ordering::SeqCst);
    assert_eq!(cache.get::<String>(&key).await.unwrap(), Lookup::Miss);
}

#[tokio::test]
async fn w_26_a_load_that_began_before_a_write_is_not_stored_over_it() {
    let (cache, key) = (cache(), Key::new("user").part(7));
    let (began, goes_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let loading = tokio::spawn({
        let (cache, key) = (cache.clone(), key.clone());
        let (began, goes_on) = (Arc::clone(&began), Arc::clone(&goes_on));
        async move {
            let load = || async {
                began.notify_one();
                goes_on.notified().await;
                text("old")
            };
            cache.get_or_set(&key, Ttl::Forever, load).await
        }
    });
    began.notified().await;
    let written = write_through(&cache, &key, Ttl::Forever, || async {
        Ok::<_, ()>(text("new"))
    });
    written.await.unwrap();
    goes_on.notify_one();
    assert_eq!(loading.await.unwrap(), "old");
    assert_eq!(cache.get(&key).await.unwrap(), Lookup::Hit(text("new")));
}

#[tokio::test]
async fn w_26_of_two_writes_at_once_the_later_is_never_hidden_by_the_earlier() {
    // Two caches over one backend, as two processes have them.
    let clock = clock();
    let flaky = Flaky::new(&clock);
    let (one, two) = (over(&flaky, &clock), over(&flaky, &clock));
    let (key, source) = (
        Key::new("user").part(7),
        parking_lot::Mutex::new(text("old")),
    );
    one.set(&key, &text("old"), Ttl::Forever).await.unwrap();
    let answered = Notify::new();
    let earlier = write_through(&one, &key, Ttl::Forever, || async {
        *source.lock() = text("earlier");
        // The answer comes late.
        answered.notified().await;
        Ok::<_, ()>(text("earlier"))
    });
    let later = async {
        let write = || async {
            *source.lock() = text("later");
            Ok::<_, ()>(text("later"))
        };
        write_through(&two, &key, Ttl::Forever, write)
            .await
            .unwrap();
        answered.notify_one();
    };
    let (earlier, ()) = tokio::join!(earlier, later);
    earlier.unwrap();
    let load = || async { source.lock().clone() };
    assert_eq!(one.get_or_set(&key, Ttl::Forever, load).await, "later");
}

#[tokio::test]
async fn a_write_whose_caller_goes_away_leaves_nothing_stale() {
    let (cache, key) = (cache(), Key::new("user").part(7));
    cache.set(&key, &text("old"), Ttl::Forever).await.unwrap();
    let (written, hang) = (Arc::new(Notify::new()), Duration::from_secs(3600));
    let writing = tokio::spawn({
        let (cache, key, written) = (cache.clone(), key.clone(), Arc::clone(&written));
        async move {
            write_through(&cache, &key, Ttl::Forever, || async {
                // Applied, and the answer is lost.
                written.notify_one();
                tokio::time::sleep(hang).await;
                Ok::<_, ()>(text("new"))
            })
            .await
        }
    });
    written.notified().await;
    writing.abort();
    assert!(writing.await.unwrap_err().is_cancelled());
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(cache.get::<String>(&key).await.unwrap(), Lookup::Miss);
}

#[tokio::test]
async fn a_deletion_passes_through_whatever_the_source_says() {
    let (cache, key) = (cache(), Key::new("user").part(7));
    for answer in [Ok(true), Err("timed out")] {
        cache.set(&key, &text("old"), Ttl::Forever).await.unwrap();
        let deleted = delete_through(&cache, &key, || async { answer });
        assert_eq!(deleted.await, answer);
        assert_eq!(cache.get::<String>(&key).await.unwrap(), Lookup::Miss);
    }
}

#[tokio::test]
async fn a_cached_function_runs_once_for_each_argument() {
    let (cache, calls) = (cache(), AtomicUsize::new(0));
    let find = cached(
        &cache,
        |(tenant, id): &(u64, u64)| Key::new("find").part(tenant).part(id),
        |(tenant, id): (u64, u64)| {
            calls.fetch_add(1, Ordering::SeqCst);
            async move {
                match id {
                    0 => Err("down"),
                    1 => Ok(None),
                    _ => Ok(Some(format!("{tenant}/{id}"))),
                }
            }
        },
    )
    .ttl(Duration::from_secs(60))
    .negative_ttl(Duration::from_secs(5));
    for _ in 0..2 {
        assert_eq!(find.call((1, 2)).await, Ok(Some(text("1/2"))));
        assert_eq!(find.call((2, 2)).await, Ok(Some(text("2/2"))));
        assert_eq!(find.call((1, 1)).await, Ok(None));
    }
    assert_eq!(
        calls.load(Ordering::SeqCst),
        3,
        "a `None` is kept, as asked"
    );
    for _ in 0..2 {
        assert_eq!(find.call((1, 0)).await, Err("down"));
    }
    assert_eq!(calls.load(Ordering::SeqCst), 5, "an error is not");
    assert!(find.forget(&(1, 2)).await.unwrap());
    find.call((1, 2)).await.unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 6);
}
