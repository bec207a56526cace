use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use askonce::Ttl;
use askonce::strategy::{Failure, Progress, Warmer};
use askonce::typed::{Key, Lookup};

use super::{Flaky, cache, clock, over};

fn key(id: &u64) -> Key {
    Key::new("user").part(id)
}

#[tokio::test]
async fn w_05_a_warmed_value_was_loaded_and_is_readable() {
    let (cache, loads) = (cache(), AtomicUsize::new(0));
    let kept = key(&2);
    cache
        .set(&kept, &"kept".to_owned(), Ttl::Forever)
        .await
        .unwrap();
    let load = |id: u64| {
        loads.fetch_add(1, Ordering::SeqCst);
        async move { Ok::<_, ()>(format!("user {id}")) }
    };
    let warmed = Warmer::new(&cache).warm([1, 2, 3], key, load).await;
    assert_eq!((warmed.loaded, warmed.skipped), (2, 1));
    assert!(warmed.failed.is_empty());
    assert_eq!(
        loads.load(Ordering::SeqCst),
        2,
        "what is there is not loaded"
    );
    for (id, value) in [(1, "user 1"), (2, "kept"), (3, "user 3")] {
        assert_eq!(
            cache.get(&key(&id)).await.unwrap(),
            Lookup::Hit(value.to_owned())
        );
    }

    let warmer = Warmer::new(&cache).skip_existing(false);
    assert_eq!(warmer.warm([2], key, load).await.loaded, 1);
    assert_eq!(
        cache.get(&kept).await.unwrap(),
        Lookup::Hit("user 2".to_owned())
    );
}

#[tokio::test]
async fn each_failure_is_told_with_its_item_and_stops_no_other() {
    let cache = cache();
    let load = |id: u64| async move {
        match id {
            1 => Err("no such user"),
            2 => panic!("a bug"),
            _ => Ok(id),
        }
    };
    let warmed = Warmer::new(&cache)
        .concurrency(2)
        .warm(1..=5, key, load)
        .await;
    assert_eq!(warmed.loaded, 3);
    let mut failed = warmed.failed;
    failed.sort_by_key(|failed| failed.item);
    assert!(
        matches!(failed[0].why, Failure::Load("no such user")),
        "{failed:?}"
    );
    assert!(matches!(failed[1].why, Failure::Panicked), "{failed:?}");
    assert_eq!(failed.len(), 2);
}

#[tokio::test]
async fn w_05_a_value_that_the_cache_refused_is_not_reported_as_warm() {
    let clock = clock();
    let flaky = Flaky::new(&clock);
    let cache = over(&flaky, &clock);
    flaky.no_writes.store(true, Ordering::SeqCst);
    let load = |id: u64| async move { Ok::<_, ()>(id) };
    let warmed = Warmer::new(&cache).warm([1], key, load).await;
    assert_eq!(warmed.loaded, 0);
    assert!(matches!(warmed.failed[0].why, Failure::NotKept(None)));
    flaky.down.store(true, Ordering::SeqCst);
    let warmed = Warmer::new(&cache).warm([1], key, load).await;
    assert!(matches!(warmed.failed[0].why, Failure::NotKept(Some(_))));
}

#[tokio::test(start_paused = true)]
async fn no_more_loads_run_at_once_than_allowed_and_progress_is_told() {
    let (cache, told) = (cache(), Arc::new(Mutex::new(Vec::new())));
    let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let load = async |id: u64| {
        let now = running.fetch_add(1, Ordering::SeqCst) + 1;
        most.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(1)).await;
        running.fetch_sub(1, Ordering::SeqCst);
        if id == 7 { Err(()) } else { Ok(id) }
    };
    let listener = Arc::clone(&told);
    let warmed = Warmer::new(&cache)
        .concurrency(3)
        .on_progress(move |progress| listener.lock().unwrap().push(progress))
        .warm(0..10, key, load)
        .await;
    assert_eq!((warmed.loaded, warmed.failed.len()), (9, 1));
    assert_eq!(most.load(Ordering::SeqCst), 3);
    let told = told.lock().unwrap();
    let done: Vec<_> = told.iter().map(Progress::done).collect();
    assert_eq!(done, (1..=10).collect::<Vec<_>>());
    assert!(told.iter().all(|progress| progress.total == Some(10)));
}

#[tokio::test]
async fn callers_who_come_meanwhile_share_the_warmers_load() {
    let (cache, loads) = (cache(), AtomicUsize::new(0));
    let warmer = Warmer::new(&cache);
    let warming = warmer.warm([1], key, async |_| {
        loads.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        Ok::<_, ()>("warm".to_owned())
    });
    let key = key(&1);
    let asking = cache.get_or_set(&key, Ttl::Forever, || async {
        loads.fetch_add(1, Ordering::SeqCst);
        "asked".to_owned()
    });
    let (warmed, asked) = tokio::join!(warming, asking);
    assert_eq!((warmed.loaded, asked.as_str()), (1, "warm"));
    assert_eq!(loads.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn rounds_come_again_until_the_schedule_is_stopped_or_dropped() {
    let (cache, rounds) = (cache(), Arc::new(AtomicUsize::new(0)));
    let start = |jitter| {
        let rounds = Arc::clone(&rounds);
        Warmer::new(&cache).repeat(Duration::from_secs(60), jitter, move |_| {
            let round = rounds.fetch_add(1, Ordering::SeqCst);
            async move { assert_ne!(round, 1, "one round fails, and the next comes") }
        })
    };
    let schedule = start(0.0);
    tokio::time::sleep(Duration::from_secs(150)).await;
    assert_eq!(rounds.load(Ordering::SeqCst), 3);
    assert_eq!(schedule.rounds(), 3);
    schedule.stop().await;
    tokio::time::sleep(Duration::from_secs(150)).await;
    assert_eq!(rounds.load(Ordering::SeqCst), 3);

    drop(start(0.5));
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(
        rounds.load(Ordering::SeqCst),
        3,
        "dropped before its first round"
    );
}
