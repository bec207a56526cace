//! Answers that were found to say the same: they do not count against each other any more, until one of them is
//! found wrong, and never against a guard.

use std::sync::Arc;

use askonce::policy::{Decision, Evidence, HitPolicy, PassReason};
use askonce::{Config, SemanticCache, Verdict};

use crate::support::{AngleEmbedder, answer_to, ask, clock, put};
use crate::{call, labels, until};

/// Serves what is near and stands apart from other answers.
#[derive(Debug)]
struct Apart;

impl HitPolicy for Apart {
    fn name(&self) -> &'static str {
        "apart"
    }
    fn decide(&self, evidence: &Evidence) -> Decision {
        let apart = evidence.margin.is_none_or(|margin| margin > 0.05);
        if evidence.similarity > 0.975 && apart && evidence.guards.conflict().is_none() {
            return Decision::Serve {
                probability: Some(0.99),
                utility: f64::from(evidence.similarity),
            };
        }
        Decision::Pass {
            reason: PassReason::BelowCutoff,
            probability: Some(0.6),
        }
    }
    fn calibrated_for(&self) -> &[String] {
        &[]
    }
    fn least_similarity(&self) -> f32 {
        0.9
    }
}

const THREE: &str = "It takes 3 days.";
/// The same in other bytes.
const THREE_TOO: &str = "it takes 3 days";

async fn cache(config: &Config) -> SemanticCache {
    let angles = AngleEmbedder::new(&[
        ("stored", 0.0),
        ("grey", 14.0),
        ("between", 10.0),
        ("between too", 11.0),
        ("how long for 2 boxes", 0.0),
        ("how long for 5 boxes", 14.0),
        ("how long for 5 big boxes", 10.0),
    ]);
    let builder = SemanticCache::builder().clock(clock() as _).config(config);
    let builder = builder.policy(Arc::new(Apart)).embedder(angles);
    builder.build().await.unwrap()
}

/// Margin, density and record of an entry for a query.
async fn seen(cache: &SemanticCache, query: &str, entry: askonce::EntryId) -> Evidence {
    let explained = cache.explain(&ask(query)).await;
    let mut candidates = explained.candidates.into_iter();
    let found = candidates.find(|candidate| candidate.entry == entry);
    found.unwrap().evidence.unwrap()
}

#[tokio::test]
async fn a_grey_match_that_was_right_lets_the_next_such_request_hit() {
    let mut off = Config::default();
    off.semantic.learning.enabled = false;
    for (config, hits) in [(off, false), (Config::default(), true)] {
        let cache = cache(&config).await;
        put(&cache, "stored", THREE).await;
        assert!(call(&cache, "grey", THREE_TOO).await.source.hit().is_none());
        if hits {
            let stats = until(&cache, |stats| stats.learning.grouped == 2).await;
            assert_eq!(labels(&stats, "miss"), [1, 0]);
        }
        assert_eq!(answer_to(&cache, &ask("between")).await.is_ok(), hits);
    }
}

#[tokio::test]
async fn a_group_shares_its_labels_and_stands_apart_as_one() {
    let cache = cache(&Config::default()).await;
    let stored = put(&cache, "stored", THREE).await;
    let _ = call(&cache, "grey", THREE_TOO).await;
    until(&cache, |stats| stats.learning.grouped == 2).await;
    let grey = cache.lookup(&ask("grey")).await.hit().unwrap().entry;
    let [one, other] = [
        seen(&cache, "between", stored).await,
        seen(&cache, "between", grey).await,
    ];
    assert!(one.record.shift > 0.0);
    assert_eq!(one.record, other.record);
    assert_eq!((one.margin, other.margin), (None, None));
    assert_eq!((one.density, other.density), (0, 0));
}

#[tokio::test]
async fn a_wrong_hit_ends_its_group_for_good() {
    let cache = cache(&Config::default()).await;
    put(&cache, "stored", THREE).await;
    let _ = call(&cache, "grey", THREE_TOO).await;
    until(&cache, |stats| stats.learning.grouped == 2).await;
    let hit = cache.lookup(&ask("between")).await.hit().unwrap();
    let query = ask("between");
    cache
        .feedback(hit.entry, Verdict::Wrong { query })
        .await
        .unwrap();
    assert_eq!(cache.learning_stats().grouped, 0);
    // Neither the one that was wrong nor the other, which stands too near to it.
    assert!(answer_to(&cache, &ask("between")).await.is_err());
    assert!(answer_to(&cache, &ask("between too")).await.is_err());
    // That a later answer is the same again changes nothing.
    let _ = call(&cache, "between too", THREE).await;
    until(&cache, |stats| labels(stats, "miss") == [2, 0]).await;
    assert_eq!(cache.learning_stats().grouped, 0);
}

#[tokio::test]
async fn questions_that_a_guard_tells_apart_are_never_merged() {
    let cache = cache(&Config::default()).await;
    put(&cache, "how long for 2 boxes", THREE).await;
    let _ = call(&cache, "how long for 5 boxes", THREE_TOO).await;
    until(&cache, |stats| labels(stats, "miss") == [1, 0]).await;
    // The label is kept in any case; the group would come right after it.
    tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    assert_eq!(cache.learning_stats().grouped, 0);
    assert!(
        answer_to(&cache, &ask("how long for 5 big boxes"))
            .await
            .is_err()
    );
}
