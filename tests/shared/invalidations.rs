//! What one process invalidates the others do not serve.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use askonce::cache::{KeyQuery, StoredKind};
use askonce::{Answer, Request, Scope, Selector, StoreOptions};

use crate::process::{BOUND, Process, World, eventually};
use crate::support::{answer_to, ask, builder, put_with};

const ONES: &str = "How do I reset my password?";
const OTHERS: &str = "How do I download my invoices?";
const OTHERS_REWORDED: &str = "how can I download my invoices";

fn globex() -> Request {
    ask(ONES)
        .model("gpt-4o-mini")
        .scope(Scope::tenant("globex"))
}

fn tagged() -> StoreOptions {
    StoreOptions::default().tag("doc:1").tag("doc:2")
}

/// One process stores an entry, the other two more, one of them for somebody else.
async fn both_store(one: &Process, other: &Process) {
    put_with(&one.cache, &ask(ONES), "one's", tagged()).await;
    put_with(&other.cache, &ask(OTHERS), "other's", tagged()).await;
    let stranger = StoreOptions::default().tag("doc:3");
    put_with(&other.cache, &globex(), "stranger's", stranger).await;
}

#[tokio::test]
async fn what_one_process_invalidates_no_other_serves() {
    let selectors = [
        Selector::tag("doc:1"),
        Selector::tag("doc:2").within(Scope::tenant("acme")),
        Selector::Scope(Scope::tenant("acme")),
        Selector::All.within(Scope::tenant("acme")),
        Selector::model("gpt-4o"),
        Selector::model("gpt-4o").within(Scope::tenant("acme")),
        Selector::All,
    ];
    for selector in selectors {
        let world = World::new();
        let (one, other) = (world.process().await, world.process().await);
        both_store(&one, &other).await;
        other.has_near(&ask(ONES)).await;
        other.has_near(&ask(OTHERS)).await;
        other.has_near(&globex()).await;
        let similar = ask(OTHERS_REWORDED);
        assert_eq!(
            other.tier_of(&similar).await.as_deref(),
            Some("semantic"),
            "{selector:?}"
        );

        one.cache.invalidate(selector.clone()).await;
        assert!(!one.cache.lookup(&ask(ONES)).await.is_hit());
        for request in [ask(ONES), similar, ask(OTHERS)] {
            other.misses(&request).await;
        }
        let all = selector == Selector::All;
        if all {
            other.misses(&globex()).await;
        } else {
            assert!(other.cache.lookup(&globex()).await.is_hit(), "{selector:?}");
        }
        // A process that comes later sees it, too.
        let later = world.process().await;
        assert!(!later.cache.lookup(&ask(OTHERS)).await.is_hit());
        assert_eq!(later.cache.lookup(&globex()).await.is_hit(), !all);

        // What is stored afterwards is served by all.
        put_with(&one.cache, &ask(ONES), "new", tagged()).await;
        eventually("the new answer is shared", || async {
            answer_to(&other.cache, &ask(ONES)).await == Ok("new".to_owned())
        })
        .await;
    }
}

#[tokio::test]
async fn an_entry_removed_by_key_or_id_is_gone_from_the_memory_of_the_others() {
    let world = World::new();
    let (one, other) = (world.process().await, world.process().await);
    both_store(&one, &other).await;
    let key = ask(ONES).exact_key();
    let within = |tenant| Selector::Key(key).within(Scope::tenant(tenant));

    other.has_near(&ask(ONES)).await;
    assert_eq!(other.cache.invalidate(within("globex")).await, 0);
    assert!(other.cache.lookup(&ask(ONES)).await.is_hit());
    assert_eq!(other.cache.invalidate(within("acme")).await, 1);
    assert!(!other.cache.lookup(&ask(ONES)).await.is_hit());
    one.misses(&ask(ONES)).await;

    let id = put_with(&one.cache, &ask(ONES), "again", tagged()).await;
    other.has_near(&ask(ONES)).await;
    assert_eq!(one.cache.invalidate(Selector::Entry(id)).await, 1);
    other.misses(&ask(ONES)).await;
    assert!(other.cache.lookup(&ask(OTHERS)).await.is_hit());
}

#[tokio::test]
async fn with_all_news_lost_an_invalidation_holds_after_the_bound() {
    let world = World::new();
    let (one, other) = (world.process().await, world.process().await);
    both_store(&one, &other).await;
    other.has_near(&ask(ONES)).await;
    other.has_near(&ask(OTHERS)).await;
    other.way.deafen();
    one.cache.invalidate(Selector::tag("doc:1")).await;
    one.cache
        .invalidate(Selector::Key(ask(ONES).exact_key()))
        .await;
    assert!(!one.cache.lookup(&ask(OTHERS)).await.is_hit());
    let similar = ask(OTHERS_REWORDED);
    assert!(
        other.cache.lookup(&similar).await.is_hit(),
        "no news was lost, so nothing is shown"
    );
    world.clock.advance(BOUND);
    for request in [ask(ONES), similar, ask(OTHERS)] {
        assert!(!other.cache.lookup(&request).await.is_hit());
    }
    assert!(other.cache.lookup(&globex()).await.is_hit());
}

#[tokio::test]
async fn an_invalidated_entry_is_a_named_miss() {
    let world = World::new();
    let (one, other) = (world.bare().await, world.bare().await);
    both_store(&one, &other).await;
    one.cache.invalidate(Selector::tag("doc:1")).await;
    let miss = other.cache.lookup(&ask(OTHERS)).await.miss().unwrap();
    let names: Vec<_> = miss.reasons.iter().map(|reason| reason.as_str()).collect();
    assert!(names.contains(&"invalidated"), "{names:?}");
    let similar = ask(OTHERS_REWORDED);
    assert_eq!(
        answer_to(&other.cache, &similar).await,
        Err("not_found".to_owned()),
        "its row is gone since"
    );
    assert_eq!(other.cache.stats().await.entries, 1);
}

#[tokio::test]
async fn an_entry_that_carries_no_generations_is_not_served_from_a_shared_tier() {
    let world = World::new();
    let way = crate::process::Way::to(&world.store);
    way.near.store(true, Ordering::SeqCst);
    let alone = builder(&world.clock).backend(way).build().await.unwrap();
    put_with(&alone, &ask(ONES), "old", StoreOptions::default()).await;
    assert!(alone.lookup(&ask(ONES)).await.is_hit());
    let shared = world.process().await;
    let miss = shared.cache.lookup(&ask(ONES)).await.miss().unwrap();
    assert!(
        miss.reasons.iter().any(|why| why.as_str() == "invalidated"),
        "{miss:?}"
    );
}

#[tokio::test]
async fn a_cache_in_one_process_asks_for_no_generations() {
    let world = World::new();
    let way = crate::process::Way::to(&world.store);
    way.near.store(true, Ordering::SeqCst);
    let tier = Arc::clone(&way);
    let alone = builder(&world.clock).backend(tier).build().await.unwrap();
    let request = ask(ONES);
    let stored = alone.store(&request, Answer::text("a"), tagged()).await;
    assert!(stored.entry().is_some());
    assert_eq!(way.reads.load(Ordering::SeqCst), 0);
    assert!(alone.lookup(&request).await.is_hit());
    assert_eq!(way.reads.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_hit_in_a_shared_tier_costs_one_round_trip_and_tags_one_more() {
    let world = World::new();
    let (one, other) = (world.bare().await, world.bare().await);
    both_store(&one, &other).await;
    put_with(&one.cache, &ask("untagged"), "a", StoreOptions::default()).await;
    let trips = async |process: &Process, request: &Request| {
        let before = process.way.reads.load(Ordering::SeqCst);
        assert!(process.cache.lookup(request).await.is_hit());
        process.way.reads.load(Ordering::SeqCst) - before
    };
    assert_eq!(trips(&one, &ask("untagged")).await, 1);
    assert_eq!(trips(&one, &ask(OTHERS)).await, 2);
    // One that is not there, and the candidate with its tags.
    assert_eq!(trips(&other, &ask(OTHERS_REWORDED)).await, 2);
}

#[tokio::test]
async fn a_near_copy_that_dies_leaves_the_entry_searchable() {
    let world = World::new();
    let one = world.process().await;
    put_with(&one.cache, &ask(OTHERS), "a", tagged()).await;
    one.has_near(&ask(OTHERS)).await;
    world.clock.advance(BOUND);
    let stats = one.cache.stats().await;
    assert_eq!((stats.entries, stats.searchable), (1, 1));
    let similar = ask(OTHERS_REWORDED);
    assert_eq!(one.tier_of(&similar).await.as_deref(), Some("semantic"));
    one.has_near(&ask(OTHERS)).await;
}

#[tokio::test]
async fn an_operator_sees_the_entries_of_every_tier() {
    let world = World::new();
    let one = world.process().await;
    put_with(&one.cache, &ask(ONES), "a", tagged()).await;
    one.has_near(&ask(ONES)).await;
    for tier in ["near", "store"] {
        let query = KeyQuery {
            tier: Some(tier.to_owned()),
            ..KeyQuery::default()
        };
        let found = one.cache.keys(&query, 100).await.unwrap().keys;
        let entries = found.iter().filter(|key| key.kind == StoredKind::Entry);
        assert_eq!(entries.count(), 1, "{tier}: {found:?}");
        let unreadable = found.iter().any(|key| key.kind == StoredKind::Unreadable);
        assert!(!unreadable, "{tier}: {found:?}");
    }
}
