//! The same over a Redis, as it is configured.

use std::sync::Arc;
use std::time::Duration;

use askonce::backend::{BackendConfig, ByteSize, MemoryConfig, RedisConfig};
use askonce::cache::NotStored;
use askonce::clock::ManualClock;
use askonce::config::{BackendSection, Config};
use askonce::layer::{BreakerConfig, LayerConfig};
use askonce::{
    Answer, Fill, HitKind, Outcome, Selector, SemanticCache, StoreOptions, StoreOutcome,
};

use crate::process::{eventually, tiers};
use crate::support::server::RedisServer;
use crate::support::{answer_to, ask, builder, clock, put_with};

const ONES: &str = "How do I reset my password?";
const OTHERS: &str = "How do I download my invoices?";
const OTHERS_REWORDED: &str = "how can I download my invoices";

fn tagged() -> StoreOptions {
    StoreOptions::default().tag("doc:1")
}

async fn process(redis: &RedisConfig, clock: &Arc<ManualClock>) -> SemanticCache {
    with_memory(redis, clock, MemoryConfig::default()).await
}

async fn with_memory(
    redis: &RedisConfig,
    clock: &Arc<ManualClock>,
    memory: MemoryConfig,
) -> SemanticCache {
    let mut section = BackendSection::from(BackendConfig::Redis(redis.clone()));
    section.layers = Some(LayerConfig {
        retries: 0,
        breaker: BreakerConfig {
            enabled: false,
            ..BreakerConfig::default()
        },
        ..LayerConfig::default()
    });
    let config = Config {
        backends: vec![BackendConfig::Memory(memory).into(), section],
        tiers: tiers(),
        ..Config::default()
    };
    let built = builder(clock).config(&config).build().await;
    built.expect("the settings are valid")
}

async fn hits(cache: &SemanticCache, text: &str) -> bool {
    cache.lookup(&ask(text)).await.is_hit()
}

async fn is_near(cache: &SemanticCache, text: &str) -> bool {
    match cache.lookup(&ask(text)).await {
        Outcome::Hit(hit) => {
            matches!(&hit.kind, HitKind::Exact { tier } if &**tier == "memory")
        }
        Outcome::Miss(_) => false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_process_invalidates_no_other_serves() {
    let Some(server) = RedisServer::shared() else {
        return;
    };
    let selectors = [
        Selector::tag("doc:1"),
        Selector::Scope(askonce::Scope::tenant("acme")),
        Selector::model("gpt-4o"),
        Selector::All,
    ];
    let (redis, clock) = (server.config(), clock());
    let (one, other) = (process(&redis, &clock).await, process(&redis, &clock).await);
    for (round, selector) in selectors.into_iter().enumerate() {
        let answer = format!("round {round}");
        put_with(&one, &ask(ONES), &answer, tagged()).await;
        put_with(&other, &ask(OTHERS), &answer, tagged()).await;
        eventually("it is shared and near", || async {
            answer_to(&other, &ask(ONES)).await.as_ref() == Ok(&answer)
                && is_near(&other, ONES).await
        })
        .await;
        assert!(hits(&other, OTHERS_REWORDED).await);
        one.invalidate(selector.clone()).await;
        assert!(!hits(&one, OTHERS).await, "{selector:?}");
        eventually("the other process has heard", || async {
            !hits(&other, OTHERS_REWORDED).await
                && !hits(&other, OTHERS).await
                && !hits(&other, ONES).await
        })
        .await;
    }
    put_with(&one, &ask(ONES), "last", tagged()).await;
    eventually("it is shared", || hits(&other, ONES)).await;
    assert_eq!(
        other.invalidate(Selector::Key(ask(ONES).exact_key())).await,
        1
    );
    eventually("the key is gone", || async { !hits(&one, ONES).await }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_hangs_and_goes_on_learns_what_was_invalidated() {
    let Some(mut server) = RedisServer::start() else {
        return;
    };
    let redis = RedisConfig {
        timeout: Duration::from_millis(300),
        ..server.config()
    };
    let clock = clock();
    let (one, other) = (process(&redis, &clock).await, process(&redis, &clock).await);
    put_with(&other, &ask(ONES), "old", tagged()).await;
    eventually("both have it near", || async {
        is_near(&one, ONES).await && is_near(&other, ONES).await
    })
    .await;
    server.hang();
    assert!(hits(&one, ONES).await, "what is near is served");
    one.invalidate(Selector::tag("doc:1")).await;
    assert!(!hits(&one, ONES).await);
    let call = || async { Ok::<_, askonce::Error>(Fill::from(Answer::text("made"))) };
    let served = one.get_or_call(&ask(OTHERS), call).await;
    assert_eq!(served.expect("never an error").answer.as_str(), "made");
    server.wake();
    eventually("the others have heard", || async {
        !hits(&other, ONES).await
    })
    .await;
    assert!(!hits(&one, ONES).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_stay_searchable_while_redis_has_them_and_no_longer() {
    let Some(server) = RedisServer::start() else {
        return;
    };
    let small = MemoryConfig {
        max_bytes: ByteSize::mib(1),
        ..MemoryConfig::default()
    };
    let cache = with_memory(&server.config(), &clock(), small).await;
    let long = "word ".repeat(2_000);
    for i in 0..200 {
        let text = format!("question number {i}");
        put_with(&cache, &ask(&text), &long, StoreOptions::default()).await;
    }
    let stats = cache.stats().await;
    assert!(stats.tiers[0].entries < 150, "memory is full: {stats:?}");
    assert_eq!(stats.entries, 200, "what memory dropped is in Redis");

    redis::cmd("FLUSHALL").exec(&mut server.raw()).unwrap();
    // Other values push the rest out of memory, and nothing else holds them.
    for i in 0..200 {
        let request = ask(&format!("another question, number {i}"));
        let store = async || {
            let options = StoreOptions::default();
            cache.store(&request, Answer::text(&*long), options).await
        };
        let mut stored = store().await;
        // The generations went with the rest: whoever began with one of them is refused, and begins anew.
        let lost = StoreOutcome::NotStored {
            reason: NotStored::Invalidated,
        };
        if stored == lost {
            stored = store().await;
        }
        assert!(stored.entry().is_some(), "{stored:?}");
    }
    let stats = cache.stats().await;
    assert!(stats.entries < 400, "{stats:?}");
    assert_eq!(
        stats.removals.get("evicted"),
        Some(&(400 - stats.entries as u64))
    );
}
