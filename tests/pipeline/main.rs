//! Whole lookups through the public API: hit, near hit, pass, expiry, invalidation, feedback, one
//! upstream call. Each test is a promise of the engine.

mod agents;
mod ledger;
mod refining;
mod replaying;
#[path = "../support/mod.rs"]
mod support;
mod verifying;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use askonce::backend::{ByteSize, MemoryConfig};
use askonce::cache::NotStored;
use askonce::config::{BackendConfig, VolatileAction};
use askonce::policy::{ExactOnly, PolicyConfig, Threshold};
use askonce::savings::Usage;
use askonce::{
    Answer, CacheControl, Config, Fill, HitKind, LookupOptions, MissReason, Outcome, Request,
    Scope, Selector, SemanticCache, Source, StoreOptions, StoreOutcome, Ttl, Verdict,
};
use serde_json::json;
use support::{AngleEmbedder, answer_to, ask, builder, clock, put, put_with};
use tokio::sync::Notify;

/// A cache of real embeddings that serves from a similarity of 0.8 on, unless a guard objects.
async fn bold() -> SemanticCache {
    let policy = Arc::new(Threshold::new(0.8).unwrap());
    SemanticCache::builder()
        .policy(policy)
        .build()
        .await
        .unwrap()
}

// ---- matching ----

/// Settings with the embedding table of this file.
fn with_table(path: &std::path::Path) -> Config {
    let embedder = json!({ "type": "static", "path": path });
    serde_json::from_value(json!({ "semantic": { "embedder": embedder } })).unwrap()
}

#[tokio::test]
async fn a_table_from_a_file_embeds_as_the_same_table_in_the_binary() {
    let table =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/assets/static-128.bin");
    let cache = SemanticCache::builder()
        .config(&with_table(&table))
        .build()
        .await
        .unwrap();
    put(&cache, "How do I reset my password?", "Open Settings.").await;
    let hit = cache
        .lookup(&ask("how can I reset my password"))
        .await
        .hit();
    assert!(matches!(hit.unwrap().kind, HitKind::Semantic { .. }));
}

#[tokio::test]
async fn a_table_that_cannot_be_read_is_refused_with_the_field_and_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let damaged = folder.path().join("damaged.bin");
    std::fs::write(&damaged, "askemb\r\n").unwrap();
    for path in [folder.path().join("missing.bin"), damaged] {
        let config = with_table(&path);
        let error = SemanticCache::builder().config(&config).build().await;
        let error = format!("{:?}", error.unwrap_err());
        for part in ["semantic.embedder.path", "askonce train"] {
            assert!(error.contains(part), "{error}");
        }
    }
}

#[tokio::test]
async fn the_same_request_hits_exactly_and_a_reworded_one_semantically() {
    let cache = SemanticCache::in_memory().unwrap();
    let entry = put(&cache, "How do I reset my password?", "Open Settings.").await;

    let hit = cache
        .lookup(&ask("How do I reset my password?"))
        .await
        .hit()
        .unwrap();
    assert_eq!(hit.entry, entry);
    assert!(matches!(&hit.kind, HitKind::Exact { tier } if &**tier == "memory"));

    let hit = cache
        .lookup(&ask("how can I reset my password"))
        .await
        .hit()
        .unwrap();
    assert_eq!(hit.entry, entry);
    assert_eq!(hit.answer, Answer::text("Open Settings."));
    let HitKind::Semantic {
        similarity,
        probability,
        verified: None,
    } = hit.kind
    else {
        panic!("{:?}", hit.kind)
    };
    assert!(similarity > 0.9 && probability.unwrap() > 0.8);
}

#[tokio::test]
async fn a_near_miss_is_refused_with_its_reason_and_its_neighbour() {
    let embedder = AngleEmbedder::new(&[("stored", 0.0), ("near", 30.0), ("far", 60.0)]);
    let cache = builder(&clock()).embedder(embedder).build().await.unwrap();
    let entry = put(&cache, "stored", "answer").await;
    let miss = cache.lookup(&ask("near")).await.miss().unwrap();
    let nearest = miss.nearest.unwrap();
    assert_eq!(nearest.entry, entry);
    assert!((nearest.similarity - 0.866).abs() < 1e-3, "{nearest:?}");
    assert_eq!(nearest.stopped_by, miss.reason());
    assert_eq!(miss.reason().as_str(), "below_threshold");

    // Nobody looks so far for a miss, and the reason is the same. An explanation does look.
    let miss = cache.lookup(&ask("far")).await.miss().unwrap();
    assert_eq!(miss.reason().as_str(), "below_threshold");
    assert_eq!(miss.nearest, None);
    let explained = cache.explain(&ask("far")).await;
    assert_eq!(explained.candidates[0].entry, entry);
    assert_eq!(explained.miss, Some(miss));
    let elsewhere = cache.lookup(&ask("far").model("other")).await;
    assert_eq!(elsewhere.miss().unwrap().reason().as_str(), "not_found");
}

#[tokio::test]
async fn another_question_is_below_what_the_default_policy_could_serve() {
    let cache = SemanticCache::in_memory().unwrap();
    put(&cache, "How do I reset my password?", "Open Settings.").await;
    let reason = answer_to(&cache, &ask("How do I delete my account?")).await;
    assert_eq!(reason.unwrap_err(), "below_threshold");
}

#[tokio::test]
async fn opposites_that_embed_alike_are_stopped_by_a_guard() {
    let cache = bold().await;
    put(&cache, "How do I enable two factor login?", "Yes, like so.").await;
    let reason = answer_to(&cache, &ask("How do I disable two factor login?"))
        .await
        .unwrap_err();
    assert_eq!(reason, "guard_antonym");
}

#[tokio::test]
async fn w_02_an_empty_cache_misses_and_invalidating_nothing_removes_nothing() {
    let cache = SemanticCache::in_memory().unwrap();
    assert_eq!(
        answer_to(&cache, &ask("anything")).await,
        Err("not_found".to_owned())
    );
    assert_eq!(
        cache
            .invalidate(Selector::Key(ask("anything").exact_key()))
            .await,
        0
    );
}

#[tokio::test]
async fn answers_cross_no_scope_model_system_prompt_or_parameter() {
    let cache = SemanticCache::in_memory().unwrap();
    let base = || Request::prompt("How do I reset my password?").model("gpt-4o");
    put_with(
        &cache,
        &base().scope(Scope::tenant("acme")),
        "acme's",
        StoreOptions::default(),
    )
    .await;
    let same_words = "how can I reset my password";
    for words in ["How do I reset my password?", same_words] {
        let others = [
            Request::prompt(words)
                .model("gpt-4o")
                .scope(Scope::tenant("umbrella")),
            Request::prompt(words).model("gpt-4o"),
            Request::prompt(words)
                .model("gpt-4o-mini")
                .scope(Scope::tenant("acme")),
            Request::prompt(words)
                .model("gpt-4o")
                .system("Be rude.")
                .scope(Scope::tenant("acme")),
            Request::prompt(words)
                .model("gpt-4o")
                .param("temperature", 0.1)
                .scope(Scope::tenant("acme")),
        ];
        for other in others {
            assert!(!cache.lookup(&other).await.is_hit(), "{other:?}");
        }
        let own = Request::prompt(words)
            .model("gpt-4o")
            .scope(Scope::tenant("acme"));
        assert!(cache.lookup(&own).await.is_hit());
    }
}

#[tokio::test]
async fn w_38_letter_case_separates_exact_keys() {
    let cache = SemanticCache::in_memory().unwrap();
    put(&cache, "what does rm -r x do", "recursive").await;
    let other = answer_to(&cache, &ask("what does rm -R x do")).await;
    assert!(other.is_err(), "{other:?}");
}

#[tokio::test]
async fn w_34_a_dead_neighbour_does_not_hide_a_live_one() {
    let clock = clock();
    let embedder = AngleEmbedder::new(&[("query", 0.0), ("near", 5.0), ("far", 10.0)]);
    let cache = builder(&clock).embedder(embedder).build().await.unwrap();
    let short = StoreOptions::default().ttl(Duration::from_secs(1));
    put_with(&cache, &ask("near"), "near", short).await;
    put(&cache, "far", "far").await;
    assert_eq!(
        answer_to(&cache, &ask("query")).await,
        Ok("near".to_owned())
    );
    clock.advance(Duration::from_secs(2));
    assert_eq!(answer_to(&cache, &ask("query")).await, Ok("far".to_owned()));
}

#[tokio::test]
async fn candidates_behind_a_refused_one_are_tried() {
    let clock = clock();
    let embedder = AngleEmbedder::new(&[
        ("is it 5 miles", 0.0),
        ("is it 6 miles", 2.0),
        ("would that be 5 miles", 12.0),
    ]);
    let cache = builder(&clock).embedder(embedder).build().await.unwrap();
    put(&cache, "is it 6 miles", "six").await;
    put(&cache, "would that be 5 miles", "five").await;
    assert_eq!(
        answer_to(&cache, &ask("is it 5 miles")).await,
        Ok("five".to_owned())
    );
}

#[tokio::test]
async fn chat_requests_match_within_their_conversation_only() {
    let cache = SemanticCache::in_memory().unwrap();
    let chat = |history: &str, last: &str| {
        let body = json!({"model": "gpt-4o", "messages": [
            {"role": "user", "content": history},
            {"role": "assistant", "content": "Sure."},
            {"role": "user", "content": last},
        ]});
        Request::from_openai_chat(&body, Scope::tenant("acme")).unwrap()
    };
    let stored = chat("Tell me of Rome", "How do I reset my password?");
    put_with(&cache, &stored, "answer", StoreOptions::default()).await;
    let reworded = "how can I reset my password";
    assert!(
        cache
            .lookup(&chat("Tell me of Rome", reworded))
            .await
            .is_hit()
    );
    assert!(
        !cache
            .lookup(&chat("Tell me of Oslo", reworded))
            .await
            .is_hit()
    );
}

#[tokio::test]
async fn a_request_that_may_not_match_by_similarity_says_why() {
    let cache = SemanticCache::in_memory().unwrap();
    let body = json!({"model": "gpt-4o", "messages": [
        {"role": "user", "content": "run it"},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "42"},
    ]});
    let request = Request::from_openai_chat(&body, Scope::local()).unwrap();
    assert_eq!(
        answer_to(&cache, &request).await,
        Err("tool_result_turn".to_owned())
    );
    assert_eq!(
        answer_to(&cache, &ask("   ")).await,
        Err("empty_user_text".to_owned())
    );
    let long = "word ".repeat(3_000);
    assert_eq!(
        answer_to(&cache, &ask(&long)).await,
        Err("text_too_long".to_owned())
    );
    put(&cache, &long, "still matches exactly").await;
    assert!(cache.lookup(&ask(&long)).await.is_hit());
}

#[tokio::test]
async fn similarity_can_be_switched_off_by_config_policy_and_lookup() {
    let mut config = Config::default();
    config.semantic.enabled = false;
    let off = SemanticCache::builder()
        .config(&config)
        .build()
        .await
        .unwrap();
    let exact = SemanticCache::builder()
        .policy(Arc::new(ExactOnly))
        .build()
        .await
        .unwrap();
    for cache in [off, exact] {
        put(&cache, "How do I reset my password?", "x").await;
        assert!(
            cache
                .lookup(&ask("How do I reset my password?"))
                .await
                .is_hit()
        );
        assert!(
            !cache
                .lookup(&ask("how can I reset my password"))
                .await
                .is_hit()
        );
    }
    let cache = SemanticCache::in_memory().unwrap();
    put(&cache, "How do I reset my password?", "x").await;
    let options = LookupOptions {
        exact_only: true,
        ..LookupOptions::default()
    };
    let outcome = cache
        .lookup_with(&ask("how can I reset my password"), &options)
        .await;
    assert_eq!(outcome.miss().unwrap().reason(), MissReason::SimilarityOff);
}

// ---- life and death ----

#[tokio::test]
async fn an_entry_dies_at_its_age_and_hits_do_not_prolong_it() {
    let clock = clock();
    let cache = builder(&clock).build().await.unwrap();
    let options = StoreOptions::default().ttl(Duration::from_secs(10));
    put_with(&cache, &ask("How do I reset my password?"), "x", options).await;
    for _ in 0..3 {
        clock.advance(Duration::from_secs(3));
        assert!(
            cache
                .lookup(&ask("How do I reset my password?"))
                .await
                .is_hit()
        );
        assert!(
            cache
                .lookup(&ask("how can I reset my password"))
                .await
                .is_hit()
        );
    }
    clock.advance(Duration::from_secs(1));
    assert!(
        !cache
            .lookup(&ask("How do I reset my password?"))
            .await
            .is_hit()
    );
    assert!(
        !cache
            .lookup(&ask("how can I reset my password"))
            .await
            .is_hit()
    );
}

#[tokio::test]
async fn age_and_remaining_life_are_reported_and_can_be_bounded() {
    let clock = clock();
    let cache = builder(&clock).build().await.unwrap();
    put_with(
        &cache,
        &ask("q"),
        "a",
        StoreOptions::default().ttl(Duration::from_secs(100)),
    )
    .await;
    clock.advance(Duration::from_secs(30));
    let hit = cache.lookup(&ask("q")).await.hit().unwrap();
    assert_eq!(hit.age, Duration::from_secs(30));
    assert_eq!(hit.ttl, Some(Duration::from_secs(70)));
    for (max_age, min_fresh, served) in [
        (Some(30), None, true),
        (Some(29), None, false),
        (None, Some(69), true),
        (None, Some(71), false),
    ] {
        let mut control = CacheControl::default();
        control.max_age = max_age.map(Duration::from_secs);
        control.min_fresh = min_fresh.map(Duration::from_secs);
        let outcome = cache.lookup(&ask("q").cache_control(control.clone())).await;
        assert_eq!(outcome.is_hit(), served, "{control:?}");
    }
}

#[tokio::test]
async fn a_life_of_zero_is_refused_and_forever_is_forever() {
    let clock = clock();
    let cache = builder(&clock).build().await.unwrap();
    let zero = StoreOptions {
        ttl: Ttl::For(Duration::ZERO),
        ..StoreOptions::default()
    };
    let stored = cache.store(&ask("q"), Answer::text("a"), zero).await;
    assert_eq!(
        stored,
        StoreOutcome::NotStored {
            reason: NotStored::NoLife
        }
    );
    let forever = StoreOptions {
        ttl: Ttl::Forever,
        ..StoreOptions::default()
    };
    put_with(&cache, &ask("q"), "a", forever).await;
    clock.advance(Duration::from_secs(100 * 365 * 24 * 3600));
    assert!(cache.lookup(&ask("q")).await.is_hit());
}

#[tokio::test]
async fn volatile_prompts_live_briefly_and_match_exactly_only() {
    let clock = clock();
    let cache = builder(&clock).build().await.unwrap();
    let prompt = "What is the weather in Oslo today?";
    put(&cache, prompt, "rain").await;
    assert_eq!(answer_to(&cache, &ask(prompt)).await, Ok("rain".to_owned()));
    let reworded = ask("what's the weather in Oslo today");
    assert_eq!(
        answer_to(&cache, &reworded).await,
        Err("volatile".to_owned())
    );
    clock.advance(Duration::from_secs(301));
    assert!(!cache.lookup(&ask(prompt)).await.is_hit());

    let mut config = Config::default();
    config.semantic.volatile.action = VolatileAction::NoStore;
    let cache = SemanticCache::builder()
        .config(&config)
        .build()
        .await
        .unwrap();
    let stored = cache
        .store(&ask(prompt), Answer::text("rain"), StoreOptions::default())
        .await;
    assert_eq!(
        stored,
        StoreOutcome::NotStored {
            reason: NotStored::Volatile
        }
    );
}

#[tokio::test]
async fn empty_answers_are_not_stored() {
    let cache = SemanticCache::in_memory().unwrap();
    let stored = cache
        .store(&ask("q"), Answer::text(" \n"), StoreOptions::default())
        .await;
    assert_eq!(
        stored,
        StoreOutcome::NotStored {
            reason: NotStored::EmptyAnswer
        }
    );
    assert!(!cache.lookup(&ask("q")).await.is_hit());
}

#[tokio::test]
async fn an_answer_larger_than_the_tier_is_not_stored_and_nothing_is_left_behind() {
    let memory = MemoryConfig {
        max_bytes: ByteSize::mib(1),
        ..MemoryConfig::default()
    };
    let config = Config {
        backends: vec![BackendConfig::Memory(memory).into()],
        ..Config::default()
    };
    let cache = SemanticCache::builder()
        .config(&config)
        .build()
        .await
        .unwrap();
    let big = Answer::text("x".repeat(2 << 20));
    let usage = StoreOptions::default().usage(Usage::new(1, 1));
    let stored = cache.store(&ask("q"), big, usage).await;
    assert_eq!(
        stored,
        StoreOutcome::NotStored {
            reason: NotStored::TooLarge
        }
    );
    let stats = cache.stats().await;
    assert_eq!(
        (stats.entries, stats.searchable, stats.partitions),
        (0, 0, 0)
    );
}

#[tokio::test]
async fn w_36_memory_is_bounded_and_the_index_follows_evictions() {
    let memory = MemoryConfig {
        max_bytes: ByteSize::mib(2),
        ..MemoryConfig::default()
    };
    let config = Config {
        backends: vec![BackendConfig::Memory(memory).into()],
        ..Config::default()
    };
    let cache = SemanticCache::builder()
        .config(&config)
        .build()
        .await
        .unwrap();
    for i in 0..3_000 {
        let options = StoreOptions::default().usage(Usage::new(1, 1));
        put_with(
            &cache,
            &ask(&format!("question number {i} of many")),
            "some answer",
            options,
        )
        .await;
    }
    let stats = cache.stats().await;
    // Evictions are reported as housekeeping finds them; what is found by then is gone everywhere.
    let held = stats.tiers[0].entries as usize;
    assert!(held < 2_900, "{stats:?}");
    let stats = cache.stats().await;
    assert_eq!((stats.entries, stats.searchable), (held, held));
    assert!(stats.tiers[0].bytes <= 2 << 20, "{stats:?}");
    assert!(stats.index_bytes < 4 << 20, "{stats:?}");
    // Every survivor is found by its own words.
    let mut found = 0;
    for i in 0..3_000 {
        let request = ask(&format!("question number {i} of many"));
        found += usize::from(cache.lookup(&request).await.is_hit());
    }
    assert!(found >= held, "{found} of {held}");
}

#[tokio::test]
async fn storing_again_replaces_the_answer_and_its_index_row() {
    let cache = SemanticCache::in_memory().unwrap();
    let first = put(&cache, "How do I reset my password?", "old").await;
    let second = put(&cache, "How do I reset my password?", "new").await;
    assert_ne!(first, second);
    let reworded = ask("how can I reset my password");
    assert_eq!(answer_to(&cache, &reworded).await, Ok("new".to_owned()));
    let stats = cache.stats().await;
    assert_eq!((stats.entries, stats.searchable), (1, 1));
    assert!(cache.entry(first).await.is_none());
}

// ---- invalidation ----

#[tokio::test]
async fn entries_are_invalidated_by_id_key_scope_tag_model_and_age() {
    let selectors: [fn(&Request) -> Selector; 5] = [
        |request| Selector::Key(request.exact_key()),
        |request| Selector::Scope(request.scope_ref().clone()),
        |_| Selector::tag("doc:42"),
        |_| Selector::model("gpt-4o"),
        |_| Selector::OlderThan(Duration::from_secs(60)),
    ];
    for selector in selectors {
        let clock = clock();
        let cache = builder(&clock).build().await.unwrap();
        let request = ask("How do I reset my password?");
        put_with(&cache, &request, "x", StoreOptions::default().tag("doc:42")).await;
        clock.advance(Duration::from_secs(61));
        let other = Request::prompt("Who wrote Hamlet?").model("gpt-4o-mini");
        put_with(&cache, &other, "Shakespeare", StoreOptions::default()).await;
        let selector = selector(&request);
        assert_eq!(cache.count(&selector), 1, "{selector:?}");
        assert!(cache.lookup(&request).await.is_hit());
        assert_eq!(cache.invalidate(selector.clone()).await, 1, "{selector:?}");
        assert!(!cache.lookup(&request).await.is_hit());
        assert!(
            !cache
                .lookup(&ask("how can I reset my password"))
                .await
                .is_hit()
        );
        assert!(cache.lookup(&other).await.is_hit(), "{selector:?}");
        assert_eq!(cache.invalidate(selector).await, 0);
    }
    let cache = SemanticCache::in_memory().unwrap();
    let entry = put(&cache, "a question", "x").await;
    put(&cache, "something else entirely", "y").await;
    assert_eq!(cache.invalidate(Selector::Entry(entry)).await, 1);
    assert_eq!(cache.invalidate(Selector::All).await, 1);
    let stats = cache.stats().await;
    assert_eq!(
        (stats.entries, stats.searchable, stats.partitions),
        (0, 0, 0)
    );
}

#[tokio::test]
async fn an_answer_whose_source_was_invalidated_while_it_was_made_is_not_stored() {
    let cache = SemanticCache::in_memory().unwrap();
    let (started, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let filling = tokio::spawn({
        let (cache, started, release) = (cache.clone(), started.clone(), release.clone());
        async move {
            let call = || async move {
                started.notify_one();
                release.notified().await;
                let options = StoreOptions::default().tag("doc:42");
                Ok::<_, askonce::Error>(Fill::keep(Answer::text("of the old doc"), options))
            };
            cache
                .get_or_call(&ask("what does the doc say"), call)
                .await
                .unwrap()
        }
    });
    started.notified().await;
    assert_eq!(cache.invalidate(Selector::tag("doc:42")).await, 0);
    release.notify_one();
    let served = filling.await.unwrap();
    assert_eq!(served.answer.as_str(), "of the old doc");
    let Source::Upstream { stored, .. } = served.source else {
        panic!("{:?}", served.source)
    };
    assert_eq!(
        stored,
        StoreOutcome::NotStored {
            reason: NotStored::Invalidated
        }
    );
    assert!(!cache.lookup(&ask("what does the doc say")).await.is_hit());
    assert_eq!(cache.stats().await.entries, 0);
}

// ---- feedback ----

#[tokio::test]
async fn a_wrong_hit_is_never_served_for_that_query_again() {
    let clock = clock();
    let embedder = AngleEmbedder::new(&[("stored", 0.0), ("asked", 5.0), ("also asked", 6.0)]);
    let cache = builder(&clock).embedder(embedder).build().await.unwrap();
    let entry = put(&cache, "stored", "answer").await;
    assert!(cache.lookup(&ask("asked")).await.is_hit());
    cache
        .feedback(
            entry,
            Verdict::Wrong {
                query: ask("asked"),
            },
        )
        .await
        .unwrap();
    assert_eq!(
        answer_to(&cache, &ask("asked")).await,
        Err("reported_wrong".to_owned())
    );
    assert!(cache.lookup(&ask("also asked")).await.is_hit());
    assert!(cache.lookup(&ask("stored")).await.is_hit());
    assert_eq!(cache.stats().await.wrong_hits, 1);
}

#[tokio::test]
async fn a_wrong_exact_hit_removes_the_entry() {
    let cache = SemanticCache::in_memory().unwrap();
    let entry = put(&cache, "q", "wrong").await;
    cache
        .feedback(entry, Verdict::Wrong { query: ask("q") })
        .await
        .unwrap();
    assert!(!cache.lookup(&ask("q")).await.is_hit());
}

#[tokio::test]
async fn an_entry_that_is_often_wrong_answers_its_own_request_only() {
    let clock = clock();
    let mut angles: Vec<(&'static str, f32)> = vec![("stored", 0.0)];
    let queries: Vec<&'static str> = (0..17)
        .map(|i| &*Box::leak(format!("query {i}").into_boxed_str()))
        .collect();
    angles.extend(
        queries
            .iter()
            .enumerate()
            .map(|(i, &query)| (query, i as f32 / 10.0)),
    );
    let cache = builder(&clock)
        .embedder(AngleEmbedder::new(&angles))
        .build()
        .await
        .unwrap();
    let entry = put(&cache, "stored", "answer").await;
    for query in &queries[..16] {
        assert!(cache.lookup(&ask(query)).await.is_hit(), "{query}");
        cache
            .feedback(entry, Verdict::Wrong { query: ask(query) })
            .await
            .unwrap();
    }
    assert_eq!(
        answer_to(&cache, &ask(queries[16])).await,
        Err("not_found".to_owned())
    );
    assert!(cache.lookup(&ask("stored")).await.is_hit());
}

#[tokio::test]
async fn feedback_on_what_could_not_have_been_served_is_refused() {
    let cache = SemanticCache::in_memory().unwrap();
    let entry = put(&cache, "q", "a").await;
    let stranger = ask("q").scope(Scope::tenant("umbrella"));
    assert!(
        cache
            .feedback(entry, Verdict::Wrong { query: stranger })
            .await
            .is_err()
    );
    let gone = "00000000000000ff".parse().unwrap();
    assert!(cache.feedback(gone, Verdict::Right).await.is_err());
}

#[tokio::test]
async fn a_wrong_hit_gives_back_what_it_claimed_to_save() {
    let cache = SemanticCache::in_memory().unwrap();
    let usage = StoreOptions::default().usage(Usage::new(1_000_000, 0));
    let entry = put_with(&cache, &ask("How do I reset my password?"), "x", usage).await;
    let reworded = ask("how can I reset my password");
    assert!(cache.lookup(&reworded).await.is_hit());
    let before = cache.savings();
    assert!(before.net_usd.as_dollars() > 1.0, "{before}");
    cache
        .feedback(entry, Verdict::Wrong { query: reworded })
        .await
        .unwrap();
    let after = cache.savings();
    assert!(after.totals.net_usd().is_zero(), "{after}");
    assert_eq!(after.totals.hits_wrong, 1);
    // And costs what the default policy puts on a wrong answer.
    assert_eq!(after.net_usd, -after.costs.unwrap().wrong_hit);
    assert!(after.net_usd < -before.net_usd, "{after}");
}

// ---- upstream ----

#[tokio::test]
async fn concurrent_misses_make_one_call_also_when_the_first_caller_goes_away() {
    let cache = SemanticCache::in_memory().unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let release = Arc::new(Notify::new());
    let spawn = || {
        let (cache, calls, release) = (cache.clone(), calls.clone(), release.clone());
        tokio::spawn(async move {
            let call = || async move {
                calls.fetch_add(1, Ordering::SeqCst);
                release.notified().await;
                Ok::<_, askonce::Error>(Fill::from(Answer::text("answer")))
            };
            cache.get_or_call(&ask("the same question"), call).await
        })
    };
    let first = spawn();
    while calls.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    first.abort();
    let others: Vec<_> = (0..200).map(|_| spawn()).collect();
    while cache.stats().await.miss_reasons.values().sum::<u64>() < 201 {
        tokio::task::yield_now().await;
    }
    release.notify_one();
    for other in others {
        assert_eq!(other.await.unwrap().unwrap().answer.as_str(), "answer");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert!(cache.lookup(&ask("the same question")).await.is_hit());
}

#[tokio::test]
async fn an_upstream_error_reaches_the_callers_and_is_not_kept() {
    let cache = SemanticCache::in_memory().unwrap();
    let fail = || async { Err::<Fill, _>(std::io::Error::other("no route to host")) };
    let error = cache.get_or_call(&ask("q"), fail).await.unwrap_err();
    assert_eq!(error.kind(), askonce::ErrorKind::Upstream);
    assert_eq!(
        std::error::Error::source(&error).unwrap().to_string(),
        "no route to host"
    );
    let work = || async { Ok::<_, std::io::Error>(Fill::from(Answer::text("a"))) };
    assert_eq!(
        cache
            .get_or_call(&ask("q"), work)
            .await
            .unwrap()
            .answer
            .as_str(),
        "a"
    );
    let stats = cache.stats().await;
    assert_eq!((stats.upstream_ok, stats.upstream_failed), (1, 1));
}

#[tokio::test]
async fn an_answer_passed_on_reaches_those_who_wait_and_nobody_later() {
    let cache = SemanticCache::in_memory().unwrap();
    let call = || async { Ok::<_, askonce::Error>(Fill::pass_on(Answer::text("cut sho"))) };
    let served = cache.get_or_call(&ask("q"), call).await.unwrap();
    assert_eq!(served.answer.as_str(), "cut sho");
    assert!(!cache.lookup(&ask("q")).await.is_hit());
}

#[tokio::test]
async fn a_bypass_calls_upstream_and_replaces_what_is_stored() {
    let cache = SemanticCache::in_memory().unwrap();
    put(&cache, "q", "old").await;
    let fresh = ask("q").cache_control(CacheControl::from_header("no-cache"));
    let call = || async { Ok::<_, askonce::Error>(Fill::from(Answer::text("new"))) };
    let served = cache.get_or_call(&fresh, call).await.unwrap();
    assert_eq!(served.answer.as_str(), "new");
    assert_eq!(answer_to(&cache, &ask("q")).await, Ok("new".to_owned()));
}

#[tokio::test]
async fn a_request_that_must_not_be_stored_is_answered_and_forgotten() {
    let cache = SemanticCache::in_memory().unwrap();
    let private = ask("q").cache_control(CacheControl::from_header("no-store"));
    let call = || async { Ok::<_, askonce::Error>(Fill::from(Answer::text("a"))) };
    let served = cache.get_or_call(&private, call).await.unwrap();
    let Source::Upstream { stored, .. } = served.source else {
        panic!("served from cache")
    };
    assert_eq!(
        stored,
        StoreOutcome::NotStored {
            reason: NotStored::Declined
        }
    );
    assert!(!cache.lookup(&ask("q")).await.is_hit());
}

#[tokio::test]
async fn w_39_a_miss_and_its_fill_embed_once() {
    let clock = clock();
    let embedder = AngleEmbedder::new(&[]);
    let cache = builder(&clock)
        .embedder(embedder.clone())
        .build()
        .await
        .unwrap();
    let call = || async { Ok::<_, askonce::Error>(Fill::from(Answer::text("a"))) };
    cache.get_or_call(&ask("q"), call).await.unwrap();
    assert_eq!(embedder.calls.load(Ordering::SeqCst), 1);
    assert_eq!(cache.stats().await.searchable, 1);
}

// ---- money ----

#[tokio::test]
async fn hits_are_booked_at_the_price_of_their_model() {
    let cache = SemanticCache::in_memory().unwrap();
    let usage = StoreOptions::default()
        .usage(Usage::new(1_000, 2_000))
        .latency(Duration::from_secs(3));
    put_with(&cache, &ask("q"), "a", usage.clone()).await;
    let unpriced = Request::prompt("q")
        .model("my-own-model")
        .scope(Scope::tenant("acme"));
    put_with(&cache, &unpriced, "a", usage).await;
    let hit = cache.lookup(&ask("q")).await.hit().unwrap();
    assert_eq!(hit.saved.usd.unwrap().as_dollars(), 0.0225);
    assert_eq!(hit.saved.duration, Duration::from_secs(3));
    let hit = cache.lookup(&unpriced).await.hit().unwrap();
    assert_eq!(hit.saved.usd, None);
    let savings = cache.savings();
    assert_eq!(savings.totals.saved.usage.total(), 6_000);
    assert_eq!(savings.unpriced_models, ["my-own-model"]);

    let call = || async {
        let options = StoreOptions::default().usage(Usage::new(1_000, 2_000));
        Ok::<_, askonce::Error>(Fill::keep(Answer::text("a"), options))
    };
    cache.get_or_call(&ask("another"), call).await.unwrap();
    let savings = cache.savings();
    assert_eq!(
        (savings.totals.calls, savings.totals.spent.usage.total()),
        (1, 3_000)
    );
}

#[tokio::test]
async fn tokens_are_counted_when_the_provider_does_not_say() {
    let cache = SemanticCache::in_memory().unwrap();
    let entry = put(&cache, "How do I reset my password?", "Open Settings.").await;
    let entry = cache.entry(entry).await.unwrap();
    assert!(
        entry.usage.input_tokens >= 7 && entry.usage.output_tokens >= 3,
        "{:?}",
        entry.usage
    );
    assert!(entry.cost.is_some());
}

// ---- explaining ----

#[tokio::test]
async fn an_explanation_tells_what_a_lookup_does() {
    let cache = bold().await;
    put(&cache, "How do I enable two factor login?", "Yes, like so.").await;
    put(&cache, "How do I reset my password?", "Open Settings.").await;
    for text in [
        "How do I reset my password?",
        "how can I reset my password",
        "How do I disable two factor login?",
        "Who wrote Hamlet?",
        "",
    ] {
        let before = cache.stats().await;
        let explained = cache.explain(&ask(text)).await;
        let after = cache.stats().await;
        assert_eq!(
            (before.hits_semantic, before.misses),
            (after.hits_semantic, after.misses)
        );
        match cache.lookup(&ask(text)).await {
            Outcome::Hit(hit) => {
                let told = explained.hit.unwrap();
                assert_eq!((told.entry, told.kind), (hit.entry, hit.kind), "{text}");
            }
            Outcome::Miss(miss) => assert_eq!(explained.miss.unwrap(), miss, "{text}"),
        }
    }
    let explained = cache
        .explain(&ask("How do I disable two factor login?"))
        .await;
    assert_eq!(explained.candidates.len(), 2);
    let json = serde_json::to_value(&explained).unwrap();
    assert_eq!(json["candidates"][0]["stopped_by"], "guard_antonym");
    assert_eq!(
        json["candidates"][0]["evidence"]["guards"]["antonym"],
        "conflict"
    );
    assert!(
        !json.to_string().contains("factor"),
        "no prompt text in an explanation"
    );
}

// ---- settings ----

#[tokio::test]
async fn settings_out_of_range_are_refused_by_name() {
    let mut config = Config::default();
    config.semantic.policy = PolicyConfig::Threshold {
        threshold: 1.7,
        guards: true,
    };
    let error = SemanticCache::builder()
        .config(&config)
        .build()
        .await
        .unwrap_err()
        .to_string();
    for part in ["semantic.policy.threshold", "1.7", "0 to 1"] {
        assert!(error.contains(part), "{error}");
    }
    let mut config = Config::default();
    config.semantic.candidates = 0;
    let error = config.validate().unwrap_err().to_string();
    assert!(
        error.contains("semantic.candidates") && error.contains("1 to 64"),
        "{error}"
    );
    let config = Config {
        backends: Vec::new(),
        ..Config::default()
    };
    assert!(
        config
            .validate()
            .unwrap_err()
            .to_string()
            .contains("backends")
    );
}

// ---- partitions ----

#[tokio::test]
async fn a_scope_that_is_invalidated_takes_its_partitions_along_and_no_others() {
    let cache = SemanticCache::in_memory().unwrap();
    for tenant in 0..20 {
        for text in ["How do I reset my password?", "Where is my invoice?"] {
            let request = Request::prompt(text)
                .model("gpt-4o")
                .scope(Scope::tenant(format!("tenant {tenant}")));
            put_with(&cache, &request, "answer", StoreOptions::default()).await;
        }
    }
    let stats = cache.stats().await;
    assert_eq!((stats.partitions, stats.searchable), (20, 40));
    let index = stats.index.unwrap();
    assert_eq!((index.small.partitions, index.small.rows), (20, 40));
    assert!(index.large.is_empty() && index.folder.is_none());
    let removed = cache
        .invalidate(Selector::Scope(Scope::tenant("tenant 3")))
        .await;
    assert_eq!(removed, 2);
    let stats = cache.stats().await;
    assert_eq!((stats.partitions, stats.searchable), (19, 38));
    assert_eq!(cache.invalidate(Selector::model("gpt-4o")).await, 38);
    let stats = cache.stats().await;
    assert_eq!(
        (stats.partitions, stats.searchable, stats.entries),
        (0, 0, 0)
    );
}
