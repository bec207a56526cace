//! Two caches that share what they learn through a real Redis, each with an index of its own that began as a
//! copy of one: they know the same entries, and what one is told of them holds in both.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use askonce::backend::{BackendConfig, MemoryConfig, RedisConfig};
use askonce::clock::ManualClock;
use askonce::{Config, SemanticCache, Verdict};

use crate::support::server::RedisServer;
use crate::support::{answer_to, ask, clock, put};

async fn process(redis: &RedisConfig, clock: &Arc<ManualClock>, index: &Path) -> SemanticCache {
    let mut config = Config {
        backends: vec![
            BackendConfig::Memory(MemoryConfig::default()).into(),
            BackendConfig::Redis(redis.clone()).into(),
        ],
        ..Config::default()
    };
    config.semantic.index.path = Some(index.to_owned());
    let built = crate::cache(clock, &config).build().await;
    built.expect("the settings are valid")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() {
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
}

/// Each tells what it learnt, and hears what the other did.
async fn share(caches: [&SemanticCache; 2]) {
    for cache in [caches[0], caches[1], caches[0]] {
        cache.share_learning().await.unwrap();
    }
}

/// Waits until a lookup ends like this: what is far is a miss while its tier is being reached.
async fn ends(cache: &SemanticCache, text: &str, expected: Result<(), &str>) {
    let mut last = Ok(());
    for _ in 0..200 {
        last = answer_to(cache, &ask(text)).await.map(drop);
        let found = match &last {
            Ok(()) => Ok(()),
            Err(reason) => Err(reason.to_string()),
        };
        if found == expected.map_err(str::to_owned) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{text}: {last:?} and not {expected:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_is_told_of_an_entry_holds_in_both_and_after_restarts_too() {
    let Some(server) = RedisServer::start() else {
        return;
    };
    let redis = server.config();
    let (folder, clock) = (tempfile::tempdir().unwrap(), clock());
    let index = |name: &str| folder.path().join(name);
    let one = process(&redis, &clock, &index("one")).await;
    let entry = put(&one, "stored", "It takes 3 days.").await;
    assert!(one.save_index().await.unwrap());
    copy(&index("one"), &index("other"));
    let other = process(&redis, &clock, &index("other")).await;
    for cache in [&one, &other] {
        ends(cache, "near", Ok(())).await;
        ends(cache, "near too", Ok(())).await;
    }

    // A pair that is wrong at one is wrong at the other, and only that pair.
    let wrong = |text: &str| Verdict::Wrong { query: ask(text) };
    assert!(
        one.feedback_from(entry, wrong("near"), "ann")
            .await
            .unwrap()
    );
    share([&one, &other]).await;
    for cache in [&one, &other] {
        ends(cache, "near", Err("reported_wrong")).await;
        ends(cache, "near too", Ok(())).await;
        assert_eq!(cache.learning_stats().quarantined, 0);
    }

    // The same principal at the other is no second one; another is.
    assert!(
        other
            .feedback_from(entry, wrong("near"), "ann")
            .await
            .unwrap()
    );
    share([&one, &other]).await;
    assert_eq!(one.learning_stats().quarantined, 0);
    assert!(
        other
            .feedback_from(entry, wrong("near too"), "bob")
            .await
            .unwrap()
    );
    share([&other, &one]).await;
    let check = async |cache: &SemanticCache| {
        assert_eq!(cache.learning_stats().quarantined, 1);
        for text in ["near", "near too"] {
            assert!(answer_to(cache, &ask(text)).await.is_err(), "{text}");
        }
        // Exactly it matches.
        ends(cache, "stored", Ok(())).await;
    };
    check(&one).await;
    check(&other).await;
    assert_eq!(
        one.learning_stats().categories,
        other.learning_stats().categories
    );

    // Both end and begin again; one has lost its own file and knows it from Redis.
    for cache in [&one, &other] {
        assert!(cache.save_index().await.unwrap());
        assert!(cache.save_learning().await.unwrap());
    }
    drop((one, other));
    let mut lost: PathBuf = index("one");
    lost.set_extension("learning");
    fs::remove_file(&lost).unwrap();
    let one = process(&redis, &clock, &index("one")).await;
    let other = process(&redis, &clock, &index("other")).await;
    check(&other).await;
    one.share_learning().await.unwrap();
    check(&one).await;
}
