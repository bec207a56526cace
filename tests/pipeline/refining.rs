//! What is served when several candidates could be, and when a second embedding is asked.
//!
//! The policy here is one that a test can read: it serves from one number on, passes below another, and is
//! in doubt between them until it has the second cosine.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use askonce::backend::{ByteSize, MemoryConfig};
use askonce::cache::ExplainedDecision;
use askonce::config::{BackendConfig, CategoryRule, EmbedderConfig};
use askonce::embed::OffThread;
use askonce::policy::{Category, Decision, Evidence, HitPolicy, PassReason, Threshold};
use askonce::savings::Usage;
use askonce::{Config, EntryId, MissReason, Outcome, Request, SemanticCache, StoreOptions};
use parking_lot::Mutex;

use crate::support::{
    AngleEmbedder, Fault, FaultyBackend, answer_to, ask, builder, clock, put, put_with, similarity,
};

/// Serves from `sure` on, passes below `doubt`; in between the second cosine decides, by `refined`.
#[derive(Debug)]
struct Banded {
    doubt: f32,
    sure: f32,
    refined: f32,
    /// What was decided on, in order.
    seen: Mutex<Vec<Evidence>>,
}

impl Banded {
    fn new(doubt: f32, sure: f32, refined: f32) -> Arc<Self> {
        Arc::new(Self {
            doubt,
            sure,
            refined,
            seen: Mutex::default(),
        })
    }
}

impl HitPolicy for Banded {
    fn name(&self) -> &'static str {
        "banded"
    }

    fn decide(&self, evidence: &Evidence) -> Decision {
        self.seen.lock().push(*evidence);
        let serve = |utility: f32| Decision::Serve {
            probability: None,
            utility: f64::from(utility),
        };
        match evidence.refined {
            Some(refined) if refined >= self.refined => serve(refined),
            None if evidence.similarity >= self.sure => serve(evidence.similarity),
            None if evidence.can_refine && evidence.similarity >= self.doubt => {
                Decision::Refine { probability: None }
            }
            _ => Decision::Pass {
                reason: PassReason::BelowThreshold,
                probability: None,
            },
        }
    }

    fn least_similarity(&self) -> f32 {
        self.doubt
    }
}

/// Serves all, and gains from each what the test says of its similarity in degrees.
#[derive(Debug)]
struct Worth(HashMap<u32, f64>);

impl HitPolicy for Worth {
    fn name(&self) -> &'static str {
        "worth"
    }

    fn decide(&self, evidence: &Evidence) -> Decision {
        let degrees = evidence.similarity.clamp(-1.0, 1.0).acos().to_degrees();
        Decision::Serve {
            probability: None,
            utility: self
                .0
                .get(&(degrees.round() as u32))
                .copied()
                .unwrap_or(0.0),
        }
    }

    fn least_similarity(&self) -> f32 {
        0.5
    }
}

/// Two embeddings of the same texts, the second of which disagrees about one of them.
fn spaces() -> (Arc<AngleEmbedder>, Arc<AngleEmbedder>) {
    let first = &[
        ("asked", 0.0),
        ("clear", 5.0),
        ("near", 20.0),
        ("other", 22.0),
    ];
    let second = &[
        ("asked", 0.0),
        ("clear", 5.0),
        ("near", 60.0),
        ("other", 3.0),
    ];
    (AngleEmbedder::new(first), AngleEmbedder::new(second))
}

async fn banded(policy: &Arc<Banded>) -> (SemanticCache, Arc<AngleEmbedder>) {
    let (first, second) = spaces();
    let cache = builder(&clock())
        .policy(Arc::clone(policy) as _)
        .embedder(first)
        .refiner(Arc::clone(&second) as _)
        .build()
        .await
        .unwrap();
    (cache, second)
}

fn calls(embedder: &AngleEmbedder) -> usize {
    embedder.calls.load(Ordering::SeqCst)
}

#[tokio::test]
async fn the_second_embedding_is_asked_in_doubt_only() {
    let policy = Banded::new(0.9, 0.99, 0.95);
    let (cache, second) = banded(&policy).await;
    put(&cache, "clear", "clear").await;
    put(&cache, "unrelated", "unrelated").await;
    cache.refined_all().await;
    let made = calls(&second);
    assert_eq!(made, 2, "one vector for each entry, made in the background");

    // Sure of it at once, and sure that there is nothing.
    assert_eq!(answer_to(&cache, &ask("asked")).await, Ok("clear".into()));
    assert!(answer_to(&cache, &ask("nothing like it")).await.is_err());
    assert_eq!(calls(&second), made);

    put(&cache, "near", "near").await;
    put(&cache, "other", "other").await;
    cache.refined_all().await;
    let made = calls(&second);
    // A clear answer is given at once, whatever is in doubt beside it.
    assert_eq!(answer_to(&cache, &ask("asked")).await, Ok("clear".into()));
    assert_eq!(calls(&second), made);
    let clear = ask("clear").exact_key();
    cache.invalidate(askonce::Selector::Key(clear)).await;
    // In doubt about both; by the second cosine the farther of them is right.
    assert_eq!(answer_to(&cache, &ask("asked")).await, Ok("other".into()));
    assert_eq!(calls(&second), made + 1, "the query's vector and no other");
}

#[tokio::test]
async fn a_vector_that_is_missing_is_made_by_the_lookup_that_needs_it() {
    let policy = Banded::new(0.9, 0.99, 0.95);
    let (cache, second) = banded(&policy).await;
    second.fail.store(true, Ordering::SeqCst);
    put(&cache, "other", "other").await;
    tokio::task::yield_now().await;
    second.fail.store(false, Ordering::SeqCst);
    assert_eq!(answer_to(&cache, &ask("asked")).await, Ok("other".into()));
}

#[tokio::test(start_paused = true)]
async fn a_second_embedding_that_fails_or_hangs_never_fails_a_lookup() {
    let policy = Banded::new(0.9, 0.99, 0.95);
    let (cache, second) = banded(&policy).await;
    put(&cache, "other", "other").await;
    cache.refined_all().await;

    second.hang.store(true, Ordering::SeqCst);
    let miss = cache.lookup(&ask("asked")).await.miss().unwrap();
    assert_eq!(miss.reason().as_str(), "below_threshold");
    let reasons: Vec<_> = miss.reasons.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(reasons, ["below_threshold", "refine_timeout"]);
    let told = *policy.seen.lock().last().unwrap();
    assert!(!told.can_refine && told.refined.is_none());

    second.hang.store(false, Ordering::SeqCst);
    second.fail.store(true, Ordering::SeqCst);
    let reasons = |outcome: Outcome| outcome.miss().unwrap().reasons;
    for _ in 0..4 {
        let reasons = reasons(cache.lookup(&ask("asked")).await);
        assert_eq!(reasons.last().unwrap().as_str(), "refine_failed");
    }
    // It has failed five times in a row: now nobody asks, and the policy knows beforehand.
    let before = calls(&second);
    let reasons = reasons(cache.lookup(&ask("asked")).await);
    assert_eq!(reasons, [MissReason::Policy(PassReason::BelowThreshold)]);
    assert_eq!(calls(&second), before);

    // After a rest it is tried again, and is back.
    second.fail.store(false, Ordering::SeqCst);
    tokio::time::advance(Duration::from_secs(11)).await;
    assert_eq!(answer_to(&cache, &ask("asked")).await, Ok("other".into()));
}

#[tokio::test]
async fn a_model_off_thread_gives_what_it_gives() {
    let policy = Banded::new(0.9, 0.99, 0.95);
    let (first, second) = spaces();
    let cache = builder(&clock())
        .policy(Arc::clone(&policy) as _)
        .embedder(first)
        .refiner(Arc::new(OffThread::new(Arc::clone(&second) as _, 1)))
        .build()
        .await
        .unwrap();
    put(&cache, "other", "other").await;
    assert_eq!(answer_to(&cache, &ask("asked")).await, Ok("other".into()));
    assert!(calls(&second) >= 2);
    assert_eq!(cache.refiner_fingerprint(), Some("angles@1+none"));
}

#[tokio::test]
async fn the_most_useful_candidate_is_served_not_the_nearest() {
    let embedder = AngleEmbedder::new(&[("asked", 0.0), ("near", 5.0), ("far", 30.0)]);
    let policy = Worth(HashMap::from([(5, 1.0), (30, 2.0)]));
    let clock = clock();
    let backend = FaultyBackend::new("tier", &clock);
    let cache = builder(&clock)
        .embedder(embedder)
        .policy(Arc::new(policy))
        .backend(Arc::clone(&backend) as _)
        .build()
        .await
        .unwrap();
    put(&cache, "near", "near").await;
    put(&cache, "far", "far").await;
    assert_eq!(answer_to(&cache, &ask("asked")).await, Ok("far".into()));

    // Where the best is dead the next is served, though the index still knows both.
    let far = ask("far").exact_key();
    askonce::backend::CacheBackend::delete(&*backend, far.as_bytes())
        .await
        .unwrap();
    assert_eq!(answer_to(&cache, &ask("asked")).await, Ok("near".into()));
    assert_eq!(cache.stats().await.entries, 1, "the dead one is forgotten");
    backend.set_fault(Fault::Fail);
    assert!(answer_to(&cache, &ask("asked")).await.is_err());
}

#[tokio::test]
async fn the_margin_counts_answers_and_the_density_entries() {
    let embedder = AngleEmbedder::new(&[("asked", 0.0), ("a", 5.0), ("b", 8.0), ("c", 25.0)]);
    let policy = Banded::new(0.8, 0.99, 2.0);
    let cache = builder(&clock())
        .embedder(embedder)
        .policy(Arc::clone(&policy) as _)
        .build()
        .await
        .unwrap();
    put(&cache, "a", "the same").await;
    put(&cache, "b", "the same").await;
    put(&cache, "c", "another").await;
    let seen = || std::mem::take(&mut *policy.seen.lock());
    assert_eq!(
        answer_to(&cache, &ask("asked")).await,
        Ok("the same".into())
    );
    let told = seen();
    let gap = similarity(5.0) - similarity(25.0);
    assert!(
        (told[0].margin.unwrap() - gap).abs() < 1e-4,
        "{:?}",
        told[0]
    );
    assert!(
        (told[2].margin.unwrap() + gap).abs() < 1e-4,
        "{:?}",
        told[2]
    );
    let of = |f: fn(&Evidence) -> u64| told.iter().map(f).collect::<Vec<_>>();
    assert_eq!(of(|e| u64::from(e.density)), [1, 1, 2]);
    assert_eq!(of(|e| u64::from(e.rank)), [0, 1, 2]);
    assert_eq!(of(|e| e.rows), [3, 3, 3]);

    // Another answer for the second makes the margin of the first small.
    put(&cache, "b", "not the same").await;
    assert!(cache.lookup(&ask("asked")).await.is_hit());
    let gap = similarity(5.0) - similarity(8.0);
    assert!((seen()[0].margin.unwrap() - gap).abs() < 1e-4);
}

#[tokio::test]
async fn no_entry_is_fetched_to_be_weighed() {
    let clock = clock();
    let embedder = AngleEmbedder::new(&[("asked", 0.0), ("near", 20.0)]);
    let backend = FaultyBackend::new("tier", &clock);
    // One embedding, also where the build has a second: to ask it would take the entry's text.
    let mut config = Config::default();
    config.semantic.embedder = EmbedderConfig::Static { path: None };
    let cache = builder(&clock)
        .config(&config)
        .embedder(embedder)
        .policy(Banded::new(0.9, 0.99, 2.0))
        .backend(Arc::clone(&backend) as _)
        .build()
        .await
        .unwrap();
    put(&cache, "near", "near").await;
    // The tier is gone, and yet the reason is what the policy says of the entry.
    backend.set_fault(Fault::Fail);
    let miss = cache.lookup(&ask("asked")).await.miss().unwrap();
    assert_eq!(miss.reason().as_str(), "below_threshold");
}

#[tokio::test]
async fn an_explanation_tells_what_refining_changed_and_equals_the_lookup() {
    let policy = Banded::new(0.9, 0.99, 0.95);
    let (cache, _) = banded(&policy).await;
    let near = put(&cache, "near", "near").await;
    let other = put(&cache, "other", "other").await;
    cache.refined_all().await;
    let explained = cache.explain(&ask("asked")).await;
    let hit = cache.lookup(&ask("asked")).await.hit().unwrap();
    let told = explained.hit.unwrap();
    assert_eq!((told.entry, told.kind), (hit.entry, hit.kind));
    assert_eq!(told.entry, other);
    let ids: Vec<EntryId> = explained.candidates.iter().map(|c| c.entry).collect();
    assert_eq!(ids, [near, other]);
    for candidate in &explained.candidates {
        let before = candidate.before.unwrap();
        assert!(
            matches!(before, ExplainedDecision::Refine { .. }),
            "{before:?}"
        );
        let refined = candidate.evidence.unwrap().refined.unwrap();
        let degrees = if candidate.entry == near { 60.0 } else { 3.0 };
        assert!((refined - similarity(degrees)).abs() < 0.01);
        assert_eq!(candidate.serve, candidate.entry == other);
    }
    let margin = explained.candidates[1].evidence.unwrap().refined_margin;
    assert_eq!(margin, None, "no other answer is near in the second space");
    let stages: Vec<_> = explained
        .stage_micros
        .iter()
        .map(|(name, _)| *name)
        .collect();
    assert_eq!(
        stages,
        ["exact", "embed", "search", "decide", "refine", "fetch"]
    );
}

#[tokio::test]
async fn whatever_lies_near_an_explanation_says_what_the_lookup_does() {
    const TEXTS: [&str; 8] = ["asked", "a", "b", "c", "d", "e", "f", "g"];
    let (mut hits, mut refined) = (0, 0);
    for seed in 1..60_u32 {
        let mut state = seed.wrapping_mul(2_654_435_761);
        let mut below = |most: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) % most
        };
        let mut space = || {
            let degrees = TEXTS.map(|text| (text, f32::from(below(40) as u8)));
            AngleEmbedder::new(&degrees)
        };
        let (first, second) = (space(), space());
        let cache = builder(&clock())
            .policy(Banded::new(0.85, 0.9995, 0.999))
            .embedder(first)
            .refiner(second)
            .build()
            .await
            .unwrap();
        for text in &TEXTS[1..] {
            put(&cache, text, ["yes", "no", "perhaps"][below(3) as usize]).await;
        }
        // Otherwise the lookup would know vectors that the explanation has made.
        cache.refined_all().await;
        let explained = cache.explain(&ask("asked")).await;
        let outcome = cache.lookup(&ask("asked")).await;
        let told = explained.hit.map(|hit| (hit.entry, hit.kind));
        match outcome {
            Outcome::Hit(hit) => {
                hits += 1;
                assert_eq!(told, Some((hit.entry, hit.kind)), "seed {seed}");
            }
            Outcome::Miss(miss) => {
                assert_eq!(told, None, "seed {seed}");
                assert_eq!(explained.miss, Some(miss), "seed {seed}");
            }
        }
        refined += u32::from(
            explained
                .stage_micros
                .iter()
                .any(|(name, _)| *name == "refine"),
        );
    }
    assert!(hits > 10 && refined > 10, "{hits} {refined}");
}

#[tokio::test]
async fn a_rule_or_the_caller_says_what_kind_of_traffic_a_request_is() {
    let policy = Banded::new(0.9, 0.99, 2.0);
    let embedder = AngleEmbedder::new(&[("asked", 0.0), ("near", 5.0)]);
    let rule = |name: &str, models: &[&str], routes: &[&str]| CategoryRule {
        name: name.to_owned(),
        models: models.iter().map(|&model| model.to_owned()).collect(),
        routes: routes.iter().map(|&route| route.to_owned()).collect(),
        ..CategoryRule::default()
    };
    let mut config = Config::default();
    config.semantic.categories = vec![
        rule("support", &[], &["support/*"]),
        rule("cheap", &["gpt-4o*"], &[]),
    ];
    let cache = builder(&clock())
        .config(&config)
        .embedder(embedder)
        .policy(Arc::clone(&policy) as _)
        .build()
        .await
        .unwrap();
    put(&cache, "near", "near").await;
    for (request, expected) in [
        (ask("asked"), "cheap"),
        (ask("asked").route("support/web"), "support"),
        (ask("asked").route("support/web").category("mine"), "mine"),
    ] {
        // The kind is in no key: the same entry answers.
        assert!(cache.lookup(&request).await.is_hit());
        let told = policy.seen.lock().pop().unwrap();
        assert_eq!(told.category, Category::named(expected));
        let explained = cache.explain(&request).await;
        assert_eq!(explained.category.as_deref(), Some(expected));
    }
    config.semantic.categories[1].name = "support".to_owned();
    let error = config.validate().unwrap_err().to_string();
    assert!(error.contains("semantic.categories[1].name"), "{error}");
}

#[tokio::test]
async fn a_policy_of_another_second_embedding_does_not_get_this_one() {
    #[derive(Debug)]
    struct Fitted(Vec<String>, Arc<Banded>);
    impl HitPolicy for Fitted {
        fn name(&self) -> &'static str {
            "fitted"
        }
        fn decide(&self, evidence: &Evidence) -> Decision {
            self.1.decide(evidence)
        }
        fn calibrated_for(&self) -> &[String] {
            &self.0
        }
        fn least_similarity(&self) -> f32 {
            self.1.least_similarity()
        }
    }
    for (second, asks) in [("angles@1+none", true), ("another@1+mean", false)] {
        let fitted = vec!["angles@1+none".to_owned(), second.to_owned()];
        let policy = Fitted(fitted, Banded::new(0.9, 0.99, 0.95));
        let (first, refiner) = spaces();
        let cache = builder(&clock())
            .policy(Arc::new(policy))
            .embedder(first)
            .refiner(refiner)
            .build()
            .await
            .unwrap();
        put(&cache, "other", "other").await;
        assert_eq!(cache.lookup(&ask("asked")).await.is_hit(), asks);
        assert_eq!(cache.refiner_fingerprint().is_some(), asks);
    }
}

#[tokio::test]
async fn the_memory_bound_counts_what_lookups_weigh_by() {
    let memory = MemoryConfig {
        max_bytes: ByteSize::mib(2),
        ..MemoryConfig::default()
    };
    let config = Config {
        backends: vec![BackendConfig::Memory(memory).into()],
        ..Config::default()
    };
    let (first, second) = spaces();
    let cache = SemanticCache::builder()
        .config(&config)
        .embedder(first)
        .refiner(second)
        .policy(Arc::new(Threshold::new(0.9).unwrap()))
        .build()
        .await
        .unwrap();
    for i in 0..1_500 {
        let text = format!("question number {i} {}", "of many words ".repeat(i % 40));
        let options = StoreOptions::default().usage(Usage::new(1, 1));
        put_with(&cache, &ask(&text), "some answer", options).await;
    }
    let _ = cache.stats().await;
    let stats = cache.stats().await;
    let all = stats.tiers[0].bytes as usize;
    assert!(all <= 2 << 20 && stats.entries < 1_400, "{stats:?}");
    // What the entries themselves take is left out: only a part of the bound is theirs.
    assert!(stats.profiles > 0 && stats.profile_bytes < all, "{stats:?}");
    cache.invalidate(askonce::Selector::All).await;
    let stats = cache.stats().await;
    assert_eq!((stats.profiles, stats.profile_bytes), (0, 0));
}

#[tokio::test]
async fn what_another_embedding_made_searchable_is_embedded_anew() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.semantic.index.path = Some(folder.path().into());
    let clock = clock();
    let backend = FaultyBackend::new("tier", &clock);
    let texts = [("asked", 0.0), ("near", 5.0), ("gone", 7.0)];
    let build = |name: &str| {
        let builder = builder(&clock)
            .config(&config)
            .embedder(AngleEmbedder::named(name, &texts))
            .backend(Arc::clone(&backend) as _);
        async move { builder.build().await.unwrap() }
    };
    let old = build("old").await;
    let near = put(&old, "near", "near").await;
    put(&old, "gone", "gone").await;
    assert!(old.save_index().await.unwrap());
    assert_eq!(old.stats().await.migration, None);
    drop(old);
    let gone = ask("gone").exact_key();
    askonce::backend::CacheBackend::delete(&*backend, gone.as_bytes())
        .await
        .unwrap();

    let new = build("new").await;
    for _ in 0..500 {
        if new.stats().await.migration.unwrap().waiting == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let hit = new.lookup(&ask("asked")).await.hit().unwrap();
    assert_eq!(hit.entry, near);
    let stats = new.stats().await;
    let migration = stats.migration.unwrap();
    assert_eq!((migration.embedded, migration.dropped), (1, 1));
    assert_eq!((stats.entries, stats.searchable), (1, 1));
}

/// With the transformer itself, where the repository has its weights.
#[cfg(feature = "minilm")]
#[tokio::test(flavor = "multi_thread")]
async fn the_configured_cascade_asks_the_transformer() {
    let weights = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/models/assets/minilm-l6-int8.bin"
    );
    if !std::path::Path::new(weights).exists() {
        println!("SKIPPED: {weights} is not there");
        return;
    }
    let section = serde_json::json!({"type": "cascade", "deadline": "10s",
        "refiner": {"type": "minilm", "path": weights}});
    let mut config = Config::default();
    config.semantic.embedder = serde_json::from_value(section).unwrap();
    let policy = Banded::new(0.3, 2.0, 0.7);
    let cache = SemanticCache::builder()
        .config(&config)
        .policy(Arc::clone(&policy) as _)
        .build()
        .await
        .unwrap();
    put(&cache, "How do I reset my password?", "Open Settings.").await;
    put(&cache, "How do I reset my router?", "Press the button.").await;
    cache.refined_all().await;
    let asked = ask("how can I reset my password");
    let explained = cache.explain(&asked).await;
    let refined = explained.candidates[0].evidence.unwrap().refined.unwrap();
    assert!(refined > 0.7, "{refined}");
    assert_eq!(answer_to(&cache, &asked).await, Ok("Open Settings.".into()));
    assert_ne!(cache.refiner_fingerprint(), cache.fingerprint());
    config.semantic.embedder = serde_json::from_value(serde_json::json!(
        {"type": "minilm", "path": weights}))
    .unwrap();
    let alone = SemanticCache::builder()
        .config(&config)
        .build()
        .await
        .unwrap();
    assert_eq!(alone.fingerprint(), cache.refiner_fingerprint());
    put(&alone, "How do I reset my password?", "Open Settings.").await;
    let similarity = alone.explain(&asked).await.candidates[0].similarity;
    assert!(
        (similarity - refined).abs() < 0.01,
        "{similarity} {refined}"
    );
}

#[test]
fn a_request_tells_its_labels() {
    let request = Request::prompt("x")
        .route("r")
        .tag("a")
        .tag("b")
        .category("c");
    assert_eq!(request.route_name(), Some("r"));
    assert!(request.tags().eq(["a", "b"]));
    assert_eq!(request.category_name(), Some("c"));
    assert_eq!(request.exact_key(), Request::prompt("x").exact_key());
}
