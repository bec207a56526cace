//! Faults of the reference system that no other test belongs to, each proven absent here.
//!
//! `docs/reference-parity.md` lists all of them, and where the others are tested.

#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use askonce::backend::{
    BackendConfig, BackendHandle, ByteSize, CacheBackend, MemcachedConfig, MemoryBackend,
    MemoryConfig, RedisConfig,
};
use askonce::policy::Threshold;
use askonce::typed::{Cache, Key};
use askonce::{
    Answer, Caches, Config, Error, ErrorKind, Fill, Outcome, Request, Scope, Selector, Verdict,
};
use askonce_models::{Embedder, ModelError, ModelId};
use bytes::Bytes;
use support::{AngleEmbedder, Fault, FaultyBackend, answer_to, ask, builder, clock, put};

#[tokio::test]
async fn w_30_an_answer_is_for_its_model_prompt_parameters_and_tenant() {
    let base = || ask("How do I reset my password?");
    let others = [
        ("model", base().model("gpt-4o-mini")),
        ("system prompt", base().system("Answer like a pirate.")),
        ("temperature", base().param("temperature", 1.5)),
        (
            "response format",
            base().param("response_format", "json_object"),
        ),
        ("locale", base().param("locale", "de")),
        ("tenant", base().scope(Scope::tenant("globex"))),
        ("namespace", base().namespace("drafts")),
    ];
    let clock = clock();
    let cache = builder(&clock).build().await.unwrap();
    put(&cache, "How do I reset my password?", "right").await;
    assert_eq!(answer_to(&cache, &base()).await, Ok("right".to_owned()));
    let keys = others
        .iter()
        .map(|(_, request)| request.exact_key().to_string());
    let keys: BTreeSet<_> = keys.chain([base().exact_key().to_string()]).collect();
    assert_eq!(keys.len(), others.len() + 1);
    for (what, request) in &others {
        // Neither the same words nor similar ones.
        assert_ne!(request.partition(), base().partition(), "{what}");
        assert!(answer_to(&cache, request).await.is_err(), "{what}");
    }
}

/// Gives vectors that are not of unit length, as some models do.
#[derive(Debug)]
struct RawEmbedder(ModelId);

impl Embedder for RawEmbedder {
    fn id(&self) -> &ModelId {
        &self.0
    }
    fn dimension(&self) -> usize {
        2
    }
    async fn embed(&self, texts: &[&str]) -> Result<Vec<f32>, ModelError> {
        let rows = texts.iter().map(|text| match *text {
            "stored" => [10.0, 0.0],
            // At a cosine of 0.486 to it; their product is 48.6.
            "far" => [4.86, 8.74],
            // At a cosine of 0.995, and short.
            "near" => [0.0995, 0.01],
            _ => [0.0, 1.0],
        });
        Ok(rows.flatten().collect())
    }
}

#[tokio::test]
async fn w_32_similarity_does_not_depend_on_the_length_of_vectors() {
    let clock = clock();
    let raw = Arc::new(RawEmbedder(ModelId::new("raw", "1", "none")));
    let policy = Arc::new(Threshold::new(0.95).unwrap());
    let cache = builder(&clock).embedder(raw).policy(policy);
    let cache = cache.build().await.unwrap();
    put(&cache, "stored", "answer").await;
    assert!(answer_to(&cache, &ask("far")).await.is_err());
    let Outcome::Hit(hit) = cache.lookup(&ask("near")).await else {
        panic!("no hit at a cosine of 0.995");
    };
    let shown = format!("{:?}", hit.kind);
    assert!(shown.contains("similarity: 0.99"), "{shown}");
}

#[tokio::test]
async fn w_35_every_typed_section_builds_or_says_what_it_needs() {
    let sections = [
        (BackendConfig::Memory(MemoryConfig::default()), true),
        (
            BackendConfig::Redis(RedisConfig::default()),
            cfg!(feature = "redis"),
        ),
        (
            BackendConfig::Memcached(MemcachedConfig::default()),
            cfg!(feature = "memcached"),
        ),
    ];
    for (section, is_built) in sections {
        let (name, type_name) = (section.name().to_owned(), section.type_name().to_owned());
        let config = Config {
            backends: vec![section.into()],
            ..Config::default()
        };
        // Nothing connects before the first operation: the servers need not be there.
        let built = Caches::builder().config(&config).build().await;
        match built {
            Ok(caches) => {
                assert!(is_built, "{type_name}");
                assert!(caches.cache(&name).is_ok(), "{type_name}");
            }
            Err(error) => {
                assert!(!is_built, "{error}");
                assert!(
                    error.to_string().contains(&format!("feature {type_name}")),
                    "{error}"
                );
            }
        }
    }
}

#[tokio::test]
async fn w_37_a_new_process_finds_what_is_stored_by_its_exact_key_and_from_a_folder_what_is_similar()
 {
    let clock = clock();
    let store = MemoryBackend::builder(MemoryConfig::default()).clock(Arc::clone(&clock) as _);
    let store: BackendHandle = Arc::new(store.build().unwrap());
    let angles = [
        ("asked", 0.0),
        ("reworded", 5.0),
        ("other", 90.0),
        ("like other", 93.0),
    ];
    let embedder = AngleEmbedder::new(&angles);
    let folder = tempfile::tempdir().unwrap();
    let process = async |path: Option<&std::path::Path>| {
        let mut config = Config::default();
        config.semantic.index.path = path.map(Into::into);
        let builder = builder(&clock).backend(Arc::clone(&store)).config(&config);
        builder.embedder(embedder.clone()).build().await.unwrap()
    };
    let first = process(Some(folder.path())).await;
    put(&first, "asked", "right").await;
    assert!(first.save_index().await.unwrap());
    // Since then: one more, of which a caller said what it must not answer; and one that goes again.
    let other = put(&first, "other", "also right").await;
    let verdict = Verdict::Wrong {
        query: ask("like other"),
    };
    first.feedback(other, verdict).await.unwrap();
    let gone = put(&first, "in a place of its own", "gone").await;
    assert_eq!(first.invalidate(Selector::Entry(gone)).await, 1);
    let calls = embedder.calls.load(Ordering::SeqCst);
    drop(first);

    // Without the folder the values are in the store, and the index was in the process.
    let without = process(None).await;
    assert_eq!(without.stats().await.searchable, 0);
    assert_eq!(
        answer_to(&without, &ask("reworded")).await,
        Err("not_found".to_owned())
    );
    assert_eq!(
        answer_to(&without, &ask("asked")).await,
        Ok("right".to_owned())
    );
    assert!(!without.save_index().await.unwrap());

    // With it nothing is embedded again but what is asked.
    embedder.calls.store(0, Ordering::SeqCst);
    let second = process(Some(folder.path())).await;
    let stats = second.stats().await;
    assert_eq!((stats.entries, stats.searchable), (2, 2));
    assert_eq!(embedder.calls.load(Ordering::SeqCst), 0, "{calls} before");
    assert_eq!(
        answer_to(&second, &ask("reworded")).await,
        Ok("right".to_owned())
    );
    assert_eq!(
        answer_to(&second, &ask("like other")).await,
        Err("reported_wrong".to_owned())
    );
    // A tag, a scope or an id leads to what the process before stored.
    assert_eq!(
        second
            .invalidate(Selector::Scope(Scope::tenant("acme")))
            .await,
        2
    );
    assert!(answer_to(&second, &ask("asked")).await.is_err());
    assert_eq!(second.stats().await.partitions, 0);
    drop(second);
    let third = process(Some(folder.path())).await;
    assert_eq!(third.stats().await.searchable, 0);
}

#[tokio::test]
async fn an_index_row_whose_entry_went_while_no_process_looked_is_removed_when_it_is_found() {
    let clock = clock();
    let store = MemoryBackend::builder(MemoryConfig::default()).clock(Arc::clone(&clock) as _);
    let store: BackendHandle = Arc::new(store.build().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let process = async || {
        let mut config = Config::default();
        config.semantic.index.path = Some(folder.path().into());
        let embedder = AngleEmbedder::new(&[("asked", 0.0), ("reworded", 5.0)]);
        let builder = builder(&clock).backend(Arc::clone(&store)).config(&config);
        builder.embedder(embedder).build().await.unwrap()
    };
    let first = process().await;
    put(&first, "asked", "right").await;
    drop(first);
    store.clear().await.unwrap();
    let second = process().await;
    assert_eq!(second.stats().await.searchable, 1);
    assert_eq!(
        answer_to(&second, &ask("reworded")).await,
        Err("gone".to_owned())
    );
    assert_eq!(second.stats().await.searchable, 0);
}

#[tokio::test]
async fn w_40_equal_prompts_make_one_call_and_a_refused_write_leaves_no_trace_in_the_index() {
    let clock = clock();
    let tier = FaultyBackend::new("flaky", &clock);
    let embedder = AngleEmbedder::new(&[("asked", 0.0), ("reworded", 5.0)]);
    let cache = builder(&clock).backend(tier.clone()).embedder(embedder);
    let cache = cache.build().await.unwrap();
    tier.set_fault(Fault::Fail);
    let calls = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..20)
        .map(|_| {
            let (cache, calls) = (cache.clone(), calls.clone());
            tokio::spawn(async move {
                let call = move || async move {
                    calls.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    Ok::<_, Error>(Fill::from(Answer::text("answer")))
                };
                cache.get_or_call(&ask("asked"), call).await.unwrap().answer
            })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap().as_str(), "answer");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    let stats = cache.stats().await;
    assert_eq!((stats.searchable, stats.entries), (0, 0));
    // And it is counted.
    assert_eq!((stats.misses, stats.upstream_ok), (20, 1));
    assert_eq!(stats.stores.get("tier_unavailable"), Some(&1));
    tier.set_fault(Fault::None);
    assert_eq!(
        answer_to(&cache, &ask("reworded")).await,
        Err("not_found".to_owned())
    );
}

#[tokio::test]
async fn w_41_a_negation_a_number_and_a_name_stop_what_looks_the_same() {
    let pairs = [
        (
            "Can I take this with milk?",
            "Can I not take this with milk?",
        ),
        ("How do I enable it?", "How do I disable it?"),
        (
            "What is 5 miles in kilometres?",
            "What is 6 miles in kilometres?",
        ),
        (
            "What is the capital of Slovakia?",
            "What is the capital of Slovenia?",
        ),
    ];
    for (stored, asked) in pairs {
        // To the embedder they are the same.
        let embedder = AngleEmbedder::new(&[(stored, 0.0), (asked, 0.0)]);
        let clock = clock();
        let cache = builder(&clock).embedder(embedder).build().await.unwrap();
        put(&cache, stored, "answer").await;
        let reason = answer_to(&cache, &ask(asked)).await.unwrap_err();
        assert!(reason.starts_with("guard_"), "{asked} {reason}");
    }
    // And without a difference, such a similarity is a hit.
    let embedder = AngleEmbedder::new(&[("How do I pay?", 0.0), ("how can I pay", 0.0)]);
    let clock = clock();
    let cache = builder(&clock).embedder(embedder).build().await.unwrap();
    put(&cache, "How do I pay?", "answer").await;
    assert!(answer_to(&cache, &ask("how can I pay")).await.is_ok());
}

/// Processor time of this thread in nanoseconds; `None` where the system does not tell.
fn processor_time() -> Option<u64> {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    told.split_whitespace().next()?.parse().ok()
}

/// What a thousand inserts into a full store of about `values` values cost.
async fn inserts_when_full(values: u64) -> Option<u64> {
    let evicted = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&evicted);
    let config = MemoryConfig {
        max_bytes: ByteSize::b(values * 600),
        ..MemoryConfig::default()
    };
    let store = MemoryBackend::builder(config)
        .on_removal(move |_, _| {
            counted.fetch_add(1, Ordering::SeqCst);
        })
        .build()
        .unwrap();
    let expires = Some(askonce::clock::Timestamp::from_millis(u64::MAX / 2));
    let insert = async |number: u64| {
        let value = Bytes::from_static(&[0; 150]);
        store
            .set(&number.to_le_bytes(), value, expires)
            .await
            .unwrap();
    };
    for number in 0..2 * values {
        insert(number).await;
    }
    store.usage().await.unwrap();
    let before = evicted.load(Ordering::SeqCst);
    assert!(before > 0, "it is full");
    let began = processor_time()?;
    for number in 0..1_000 {
        insert(u64::MAX - number).await;
    }
    let took = processor_time()? - began;
    store.usage().await.unwrap();
    let evicted = evicted.load(Ordering::SeqCst) - before;
    assert!(
        (500..2_000).contains(&evicted),
        "one goes for each that comes: {evicted}"
    );
    Some(took)
}

#[tokio::test]
async fn w_53_an_insert_into_a_full_store_does_not_look_at_all_values() {
    let small = inserts_when_full(2_000).await;
    let large = inserts_when_full(50_000).await;
    let (Some(small), Some(large)) = (small, large) else {
        println!("SKIPPED: this system does not tell the processor time of a thread");
        return;
    };
    println!("a thousand inserts: {small} ns into 2 000 values, {large} ns into 50 000");
    // Twenty-five times as many values. Looking at all of them would cost as many times as much.
    assert!(large < 8 * small, "{small} ns and {large} ns");
}

#[tokio::test]
async fn w_54_a_value_in_memory_is_shared_and_neither_copied_nor_parsed() {
    let store = MemoryBackend::builder(MemoryConfig::default())
        .build()
        .unwrap();
    let value = Bytes::from(vec![7; 100_000]);
    store.set(b"key", value.clone(), None).await.unwrap();
    for _ in 0..3 {
        let held = store.get(b"key").await.unwrap().unwrap();
        assert_eq!(held.bytes.as_ptr(), value.as_ptr());
        let many = store.get_many(&[Bytes::from("key")]).await;
        let held = many.into_iter().next().unwrap().unwrap().unwrap();
        assert_eq!(held.bytes.as_ptr(), value.as_ptr());
    }
    // The time that takes is measured by what is compiled with the tests, not guessed here.
    let benches = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("benches");
    let lookup = std::fs::read_to_string(benches.join("lookup.rs")).unwrap();
    assert!(lookup.contains("fn main"));
}

#[tokio::test]
async fn w_73_an_error_says_what_failed_and_neither_key_nor_value() {
    let clock = clock();
    let tier = FaultyBackend::new("flaky", &clock);
    let cache = Cache::builder(tier.clone()).build().unwrap();
    let key = Key::new("customer").part("jane.doe@example.com");
    let value = "4111 1111 1111 1111".to_owned();
    cache.set(&key, &value, None).await.unwrap();
    let hidden = |error: &Error| {
        for shown in [
            error.to_string(),
            format!("{error:?}"),
            format!("{error:#?}"),
        ] {
            assert!(
                !shown.contains("jane") && !shown.contains("4111"),
                "{shown}"
            );
        }
    };
    tier.set_fault(Fault::Fail);
    let read = cache.get::<String>(&key).await.unwrap_err();
    let written = cache.set(&key, &value, None).await.unwrap_err();
    tier.set_fault(Fault::Garbage);
    let damaged = cache.get::<String>(&key).await.unwrap_err();
    tier.set_fault(Fault::None);
    let mistyped = cache.get::<u64>(&key).await.unwrap_err();
    let refused = cache.set(&key, &value, Duration::ZERO).await.unwrap_err();
    let expected = [
        (&read, ErrorKind::BackendUnavailable),
        (&written, ErrorKind::BackendUnavailable),
        (&damaged, ErrorKind::Corrupt),
        (&mistyped, ErrorKind::Corrupt),
        (&refused, ErrorKind::InvalidRequest),
    ];
    for (error, kind) in expected {
        assert_eq!(error.kind(), kind, "{error}");
        hidden(error);
        // One type of error, which is an error like any other.
        let error: &(dyn std::error::Error + Send + Sync) = error;
        assert!(!error.to_string().is_empty());
    }
}

/// A read that fails is told as a read, also by a real client.
#[cfg(feature = "redis")]
#[tokio::test]
async fn w_73_a_failed_read_is_told_as_a_read() {
    use askonce::backend::RedisBackend;
    let config = RedisConfig {
        redis_url: format!("redis://127.0.0.1:{}", support::server::free_port()),
        timeout: Duration::from_millis(500),
        ..RedisConfig::default()
    };
    let redis = RedisBackend::builder(config).build().unwrap();
    let operation = |error: &Error| {
        let named = error
            .context()
            .iter()
            .find(|(name, _)| *name == "operation");
        named.map(|(_, operation)| operation.clone())
    };
    let read = redis.get(b"secret-key").await.unwrap_err();
    let written = redis.set(b"secret-key", Bytes::from("value"), None).await;
    let written = written.unwrap_err();
    assert_eq!(operation(&read).as_deref(), Some("get"));
    assert_eq!(operation(&written).as_deref(), Some("set"));
    for error in [read, written] {
        assert_eq!(error.kind(), ErrorKind::BackendUnavailable);
        assert!(!format!("{error} {error:?}").contains("secret-key"));
    }
}

/// Requests that only look alike are other requests: what [`Request`] makes of them is in `tests/identity`.
#[test]
fn w_38_white_space_folds_for_similarity_alone() {
    let (one, two) = (Request::prompt("a  b"), Request::prompt("a b"));
    assert_ne!(one.exact_key(), two.exact_key());
    assert_eq!(one.fuzzy_text(), two.fuzzy_text());
    assert_eq!(one.partition(), two.partition());
}
