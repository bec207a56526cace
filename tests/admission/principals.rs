//! One principal plants an answer; no other is given it for another question until a second has asked the
//! same.

use std::time::Duration;

use askonce::admit::AdmissionConfig;
use askonce::{Answer, Config, HitKind, Outcome, Request, Selector, SemanticCache, StoreOptions};

use crate::support::{AngleEmbedder, ask, builder, clock, put_with};

const ASKED: &str = "How do I reset my password?";
const SIMILAR: &str = "how can I reset my password";
const PLANTED: &str = "Send it to mallory.";

async fn cache(min_principals: usize) -> SemanticCache {
    let config = Config {
        admission: AdmissionConfig {
            min_principals,
            ..AdmissionConfig::default()
        },
        ..Config::default()
    };
    let built = builder(&clock())
        .config(&config)
        .embedder(AngleEmbedder::new(&[(ASKED, 0.0), (SIMILAR, 10.0)]));
    built.build().await.unwrap()
}

fn by(name: &str, text: &str) -> Request {
    ask(text).principal(name)
}

async fn plant(cache: &SemanticCache) {
    put_with(
        cache,
        &by("mallory", ASKED),
        PLANTED,
        StoreOptions::default(),
    )
    .await;
}

/// How `request` is answered, or why it is not.
async fn told(cache: &SemanticCache, request: &Request) -> Result<&'static str, &'static str> {
    match cache.lookup(request).await {
        Outcome::Hit(hit) => Ok(match hit.kind {
            HitKind::Exact { .. } => "exact",
            HitKind::Semantic { .. } => "semantic",
        }),
        Outcome::Miss(miss) => Err(miss.reason().as_str()),
    }
}

#[tokio::test]
async fn a_planted_answer_serves_nobody_else_until_a_second_asked_the_same() {
    let cache = cache(2).await;
    plant(&cache).await;
    for victim in ["alice", "bob"] {
        let asked = told(&cache, &by(victim, SIMILAR)).await;
        assert_eq!(asked, Err("too_few_principals"), "{victim}");
    }
    assert_eq!(told(&cache, &ask(SIMILAR)).await, Err("too_few_principals"));
    // Its own principal is given it, and so counts for nothing.
    assert_eq!(told(&cache, &by("mallory", SIMILAR)).await, Ok("semantic"));
    assert_eq!(told(&cache, &by("mallory", ASKED)).await, Ok("exact"));
    assert_eq!(
        told(&cache, &by("bob", SIMILAR)).await,
        Err("too_few_principals")
    );
    let explained = cache.explain(&by("bob", SIMILAR)).await;
    assert_eq!(explained.candidates.len(), 1);

    assert_eq!(told(&cache, &by("alice", ASKED)).await, Ok("exact"));
    assert_eq!(told(&cache, &by("bob", SIMILAR)).await, Ok("semantic"));
    assert_eq!(told(&cache, &ask(SIMILAR)).await, Ok("semantic"));
}

#[tokio::test]
async fn another_answer_in_its_place_begins_anew() {
    let cache = cache(2).await;
    put_with(
        &cache,
        &by("alice", ASKED),
        "To us.",
        StoreOptions::default(),
    )
    .await;
    assert_eq!(told(&cache, &by("bob", ASKED)).await, Ok("exact"));
    assert_eq!(told(&cache, &by("carol", SIMILAR)).await, Ok("semantic"));
    // The same answer again keeps its standing, another has none.
    put_with(
        &cache,
        &by("mallory", ASKED),
        "To us.",
        StoreOptions::default(),
    )
    .await;
    assert_eq!(told(&cache, &by("carol", SIMILAR)).await, Ok("semantic"));
    plant(&cache).await;
    assert_eq!(
        told(&cache, &by("carol", SIMILAR)).await,
        Err("too_few_principals")
    );
}

#[tokio::test]
async fn an_approved_answer_serves_all_at_once_until_another_takes_its_place() {
    let cache = cache(8).await;
    let approved = StoreOptions::default().approved();
    put_with(&cache, &by("admin", ASKED), "To us.", approved).await;
    assert_eq!(told(&cache, &by("bob", SIMILAR)).await, Ok("semantic"));
    plant(&cache).await;
    assert_eq!(
        told(&cache, &by("bob", SIMILAR)).await,
        Err("too_few_principals")
    );
}

#[tokio::test]
async fn by_default_one_principal_is_enough() {
    let cache = cache(1).await;
    plant(&cache).await;
    assert_eq!(told(&cache, &by("bob", SIMILAR)).await, Ok("semantic"));
}

#[tokio::test]
async fn where_nobody_is_named_all_are_one() {
    let cache = cache(8).await;
    put_with(&cache, &ask(ASKED), "To us.", StoreOptions::default()).await;
    assert_eq!(told(&cache, &ask(SIMILAR)).await, Ok("semantic"));
    assert_eq!(
        told(&cache, &by("bob", SIMILAR)).await,
        Err("too_few_principals")
    );
}

#[tokio::test]
async fn who_waits_for_anothers_call_has_asked_too() {
    let cache = cache(2).await;
    let (started, running) = tokio::sync::oneshot::channel();
    let (go, may_go) = tokio::sync::oneshot::channel::<()>();
    let leader = {
        let (cache, request) = (cache.clone(), by("alice", ASKED));
        tokio::spawn(async move {
            let call = || async move {
                let _ = started.send(());
                let _ = may_go.await;
                Ok::<_, std::io::Error>(Answer::text("To us.").into())
            };
            cache.get_or_call(&request, call).await.unwrap()
        })
    };
    running.await.unwrap();
    let follower = {
        let (cache, request) = (cache.clone(), by("bob", ASKED));
        tokio::spawn(async move {
            let call = || async { Err(std::io::Error::other("not to be called")) };
            cache.get_or_call(&request, call).await.unwrap()
        })
    };
    // Until the follower waits.
    tokio::time::sleep(Duration::from_millis(50)).await;
    go.send(()).unwrap();
    let (led, followed) = (leader.await.unwrap(), follower.await.unwrap());
    assert_eq!(led.answer, followed.answer);
    assert_eq!(told(&cache, &by("carol", SIMILAR)).await, Ok("semantic"));
}

#[tokio::test]
async fn counting_somebody_in_brings_nothing_back() {
    let cache = cache(8).await;
    plant(&cache).await;
    let asks = (0..32).map(|i| {
        let (cache, request) = (cache.clone(), by(&format!("p{i}"), ASKED));
        tokio::spawn(async move { cache.lookup(&request).await.is_hit() })
    });
    let asks: Vec<_> = asks.collect();
    cache.invalidate(Selector::All).await;
    for ask in asks {
        let _ = ask.await.unwrap();
    }
    assert!(!cache.lookup(&by("alice", ASKED)).await.is_hit());
    assert_eq!(cache.stats().await.entries, 0);
}

#[tokio::test]
async fn what_is_kept_tells_no_names() {
    let cache = cache(2).await;
    let stored = by("a-telling-name", ASKED);
    let entry = put_with(&cache, &stored, "To us.", StoreOptions::default()).await;
    let entry = cache.entry(entry).await.unwrap();
    assert_eq!(entry.trust.principals(), 1);
    let shown = format!("{entry:?} {}", serde_json::to_string(&entry).unwrap());
    assert!(!shown.contains("telling"));
}
