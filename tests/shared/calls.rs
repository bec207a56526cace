//! Upstream calls in one process and invalidations in another.

use std::sync::Arc;

use askonce::cache::NotStored;
use askonce::{Answer, Fill, Selector, Source, StoreOptions, StoreOutcome};
use tokio::sync::Notify;

use crate::process::{Process, World, eventually};
use crate::support::{answer_to, ask, put_with};

const ASKED: &str = "How do I reset my password?";
const SIGN: &str = "How do I download my invoices?";

fn tagged() -> StoreOptions {
    StoreOptions::default().tag("doc:1")
}

/// One process calls upstream; meanwhile the other invalidates, which the first hears. What became of
/// the answer.
async fn invalidated_during_a_call(one: &Process, other: &Process, selector: Selector) -> Source {
    put_with(&other.cache, &ask(SIGN), "a", tagged()).await;
    eventually("both have the sign", || async {
        one.cache.lookup(&ask(SIGN)).await.is_hit()
    })
    .await;
    let (called, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (cache, reached, waits) = (one.cache.clone(), called.clone(), go_on.clone());
    let call = tokio::spawn(async move {
        let upstream = move || async move {
            reached.notify_one();
            waits.notified().await;
            Ok::<_, askonce::Error>(Fill::keep(Answer::text("made of old"), tagged()))
        };
        cache.get_or_call(&ask(ASKED), upstream).await
    });
    called.notified().await;
    other.cache.invalidate(selector).await;
    // The news of it comes before that of the sign.
    let sign = Selector::Key(ask(SIGN).exact_key());
    other.cache.invalidate(sign).await;
    one.misses(&ask(SIGN)).await;
    go_on.notify_one();
    let served = call.await.unwrap().expect("never an error");
    assert_eq!(served.answer.as_str(), "made of old");
    served.source
}

#[tokio::test]
async fn an_invalidation_in_another_process_during_a_call_refuses_its_fill() {
    let selectors = [
        Selector::tag("doc:1"),
        Selector::tag("doc:1").within(askonce::Scope::tenant("acme")),
        Selector::Scope(askonce::Scope::tenant("acme")),
        Selector::model("gpt-4o"),
        Selector::All,
        Selector::Key(ask(ASKED).exact_key()),
    ];
    for near in [true, false] {
        for selector in selectors.clone() {
            let world = World::new();
            let (one, other) = if near {
                (world.process().await, world.process().await)
            } else {
                (world.bare().await, world.bare().await)
            };
            let source = invalidated_during_a_call(&one, &other, selector.clone()).await;
            let Source::Upstream { stored, .. } = source else {
                panic!("served from cache")
            };
            let reason = NotStored::Invalidated;
            assert_eq!(stored, StoreOutcome::NotStored { reason }, "{selector:?}");
            for process in [&one, &other] {
                assert!(!process.cache.lookup(&ask(ASKED)).await.is_hit());
            }
        }
    }
}

#[tokio::test]
async fn an_invalidation_of_something_else_refuses_nothing() {
    let world = World::new();
    let (one, other) = (world.process().await, world.process().await);
    put_with(&other.cache, &ask(SIGN), "a", StoreOptions::default()).await;
    let cache = other.cache.clone();
    let call = move || async move {
        cache.invalidate(Selector::model("gpt-4o-mini")).await;
        cache
            .invalidate(Selector::Scope(askonce::Scope::tenant("globex")))
            .await;
        Ok::<_, askonce::Error>(Fill::keep(Answer::text("right"), tagged()))
    };
    let served = one.cache.get_or_call(&ask(ASKED), call).await.unwrap();
    let Source::Upstream { stored, .. } = served.source else {
        panic!("served from cache")
    };
    assert!(stored.entry().is_some(), "{stored:?}");
    eventually("the other process has it, too", || async {
        answer_to(&other.cache, &ask(ASKED)).await == Ok("right".to_owned())
    })
    .await;
}
