//! The shared store goes away and comes back.

use std::sync::atomic::Ordering;

use askonce::{Answer, Fill, Selector, StoreOptions};

use crate::process::{BOUND, Process, World, eventually};
use crate::support::{answer_to, ask, put_with};

const STORED: &str = "How do I reset my password?";
const REWORDED: &str = "how can I reset my password";
const NEW: &str = "How do I download my invoices?";

fn tagged() -> StoreOptions {
    StoreOptions::default().tag("doc:1")
}

/// Asks for an answer that is made on the spot if there is none.
async fn ask_for(process: &Process, text: &str) -> String {
    let call = || async { Ok::<_, askonce::Error>(Fill::keep(Answer::text("made"), tagged())) };
    let served = process.cache.get_or_call(&ask(text), call).await;
    served.expect("never an error").answer.as_str().to_owned()
}

#[tokio::test]
async fn while_the_store_is_away_there_are_young_copies_and_misses_and_no_errors() {
    let world = World::new();
    let (one, other) = (world.process().await, world.process().await);
    put_with(&other.cache, &ask(STORED), "right", tagged()).await;
    put_with(&one.cache, &ask(REWORDED), "right", tagged()).await;
    one.has_near(&ask(STORED)).await;
    one.has_near(&ask(REWORDED)).await;
    one.way.set_down(true);
    assert_eq!(ask_for(&one, STORED).await, "right");
    assert_eq!(ask_for(&one, NEW).await, "made");
    assert_eq!(
        answer_to(&one.cache, &ask(NEW)).await,
        Ok("made".to_owned()),
        "a store that is away does not keep the cache from filling"
    );

    world.clock.advance(BOUND);
    assert!(!one.cache.lookup(&ask(NEW)).await.is_hit());
    for text in [STORED, REWORDED] {
        let miss = one.cache.lookup(&ask(text)).await.miss();
        let miss = miss.unwrap_or_else(|| panic!("{text}: served past the bound"));
        assert!(
            miss.reasons
                .iter()
                .any(|reason| reason.as_str() == "tier_unavailable"),
            "{text}: {miss:?}"
        );
    }
    // It is nobody's but this process's, who cannot know what others have invalidated: for the bound.
    assert_eq!(ask_for(&one, NEW).await, "made");
    assert_eq!(
        answer_to(&one.cache, &ask(NEW)).await,
        Ok("made".to_owned())
    );
    assert!(!other.cache.lookup(&ask(NEW)).await.is_hit());

    one.way.set_down(false);
    world.clock.advance(BOUND);
    assert!(!one.cache.lookup(&ask(NEW)).await.is_hit());
    for text in [STORED, REWORDED] {
        eventually("what is stored is served again", || async {
            answer_to(&one.cache, &ask(text)).await == Ok("right".to_owned())
        })
        .await;
    }
}

#[tokio::test]
async fn an_invalidation_while_the_store_is_away_is_made_good_when_it_is_back() {
    for near in [true, false] {
        for selector in [
            Selector::tag("doc:1"),
            Selector::All,
            Selector::model("gpt-4o"),
        ] {
            let world = World::new();
            let (one, other) = if near {
                (world.process().await, world.process().await)
            } else {
                (world.bare().await, world.bare().await)
            };
            put_with(&other.cache, &ask(STORED), "old", tagged()).await;
            eventually("both have it", || async {
                one.cache.lookup(&ask(STORED)).await.is_hit()
            })
            .await;
            one.way.set_down(true);
            one.cache.invalidate(selector.clone()).await;
            assert!(!one.cache.lookup(&ask(STORED)).await.is_hit());
            assert!(other.cache.lookup(&ask(STORED)).await.is_hit());
            one.way.set_down(false);
            assert!(
                !one.cache.lookup(&ask(STORED)).await.is_hit(),
                "{selector:?}: it holds where it was made"
            );
            // What a cache does every ten seconds.
            let _ = one.cache.stats().await;
            other.misses(&ask(STORED)).await;
            other.misses(&ask(REWORDED)).await;
            assert!(!one.cache.lookup(&ask(STORED)).await.is_hit());
        }
    }
}

#[tokio::test]
async fn generations_that_cannot_be_read_are_a_named_miss_and_no_loss() {
    let world = World::new();
    let one = world.bare().await;
    put_with(&one.cache, &ask(STORED), "right", tagged()).await;
    one.way.no_marks.store(true, Ordering::SeqCst);
    for text in [STORED, REWORDED] {
        let miss = one
            .cache
            .lookup(&ask(text))
            .await
            .miss()
            .expect("it fails closed");
        assert!(
            miss.reasons
                .iter()
                .any(|reason| reason.as_str() == "generation_unavailable"),
            "{text}: {miss:?}"
        );
    }
    assert_eq!(ask_for(&one, STORED).await, "made");
    one.way.no_marks.store(false, Ordering::SeqCst);
    for text in [STORED, REWORDED] {
        assert_eq!(
            answer_to(&one.cache, &ask(text)).await,
            Ok("right".to_owned())
        );
    }
}
