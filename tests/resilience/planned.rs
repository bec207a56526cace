//! Stores that fail by plan.

use std::sync::Arc;
use std::time::Duration;

use askonce::backend::{
    BackendContext, BackendFactory, BackendHandle, BackendRegistry, BoxFuture, ByteSize,
    CustomConfig, MemoryBackend, MemoryConfig, RemovalCause,
};
use askonce::cache::HealthStatus;
use askonce::clock::ManualClock;
use askonce::config::BackendConfig;
use askonce::event::{Event, Received};
use askonce::fault::{FaultLayer, FaultPlan};
use askonce::layer::{BreakerState, LayerConfig, Layered};
use askonce::typed::{Cache, Key};
use askonce::{
    Answer, Config, ErrorKind, Fill, Result, Selector, SemanticCache, StoreOptions, StoreOutcome,
};

use crate::support::{answer_to, ask, builder, clock, put};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A memory backend that passes for a server.
fn server(name: &str, clock: &Arc<ManualClock>, seed: u64) -> Arc<FaultLayer> {
    let config = MemoryConfig {
        name: name.to_owned(),
        ..MemoryConfig::default()
    };
    let store = MemoryBackend::builder(config).clock(Arc::clone(clock) as _);
    let store = store.build().unwrap();
    Arc::new(FaultLayer::new(Arc::new(store), seed).as_remote())
}

async fn cache(clock: &Arc<ManualClock>, tiers: &[&Arc<FaultLayer>]) -> SemanticCache {
    // What is learnt is shared through the tiers too, which are counted here.
    let mut config = Config::default();
    config.semantic.learning.enabled = false;
    let mut builder = builder(clock).config(&config);
    for tier in tiers {
        builder = builder.backend(Arc::clone(tier) as _);
    }
    builder.build().await.unwrap()
}

/// Asks for an answer that is made on the spot if there is none.
async fn ask_for(cache: &SemanticCache, text: &str) -> String {
    let call = || async { Ok::<_, askonce::Error>(Fill::from(Answer::text("made"))) };
    let served = cache.get_or_call(&ask(text), call).await;
    served.expect("no error").answer.as_str().to_owned()
}

#[tokio::test(start_paused = true)]
async fn w_11_health_is_bounded_in_time_and_asks_each_tier_once() {
    let clock = clock();
    let (near, far) = (server("near", &clock, 1), server("far", &clock, 2));
    let cache = cache(&clock, &[&near, &far]).await;
    let health = cache.health().await;
    assert!(health.healthy);
    assert_eq!(health.status, HealthStatus::Healthy);
    assert!(health.tiers.iter().all(|tier| tier.reason.is_none()));

    // The first round of what runs in the background is over.
    tokio::time::sleep(Duration::from_millis(1)).await;
    far.set_plan(FaultPlan::hung());
    let asked = (near.operations(), far.operations());
    let before = tokio::time::Instant::now();
    let health = cache.health().await;
    assert!(before.elapsed() <= Duration::from_secs(1));
    assert_eq!(
        (near.operations() - asked.0, far.operations() - asked.1),
        (1, 1)
    );
    assert!(!health.healthy);
    assert_eq!(health.status, HealthStatus::Degraded);
    assert!(health.tiers[0].up && !health.tiers[1].up);
    assert!(health.tiers[1].reason.as_ref().unwrap().contains("1s"));

    // However many ask, few questions are open, and one tier that hangs does not speak for the other.
    let asked = far.operations();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let cache = cache.clone();
        callers.spawn(async move { cache.health().await });
    }
    let before = tokio::time::Instant::now();
    for health in callers.join_all().await {
        assert!(health.tiers[0].up && !health.tiers[1].up);
    }
    assert!(before.elapsed() <= Duration::from_secs(2));
    assert!(
        far.operations() - asked <= 8,
        "{}",
        far.operations() - asked
    );
}

#[tokio::test(start_paused = true)]
async fn health_shows_what_the_breakers_do_and_why() {
    let clock = clock();
    let tier = server("far", &clock, 1);
    let cache = cache(&clock, &[&tier]).await;
    tier.set_plan(FaultPlan::down());
    for i in 0..10 {
        ask_for(&cache, &format!("question {i}")).await;
        cache.invalidate(Selector::tag("doc:1")).await;
    }
    let health = cache.health().await;
    assert_eq!(health.status, HealthStatus::Unhealthy);
    let far = &health.tiers[0];
    let breakers = far.breakers.unwrap();
    assert_eq!(
        (breakers.read, breakers.write),
        (BreakerState::Open, BreakerState::Open)
    );
    let last = far.last_error.unwrap();
    assert_eq!(last.kind, ErrorKind::BackendUnavailable);
    let json = serde_json::to_value(&health).unwrap();
    assert_eq!(json["status"], "unhealthy");
    assert_eq!(json["tiers"][0]["breakers"]["read"], "open");
    assert_eq!(
        json["tiers"][0]["last_error"]["kind"],
        "backend_unavailable"
    );

    tier.set_plan(FaultPlan::default());
    let health = cache.health().await;
    assert!(health.healthy, "it answers");
    assert_eq!(health.status, HealthStatus::Degraded);
    let reason = health.tiers[0].reason.as_ref().unwrap();
    assert!(reason.contains("backend_unavailable"), "{reason}");
    // The question has ended the wait: calls are let through as probes.
    for i in 0..3 {
        put(&cache, &format!("question {i}"), "stored").await;
        assert_eq!(ask_for(&cache, &format!("question {i}")).await, "stored");
    }
    let health = cache.health().await;
    assert_eq!(health.status, HealthStatus::Healthy, "{health:?}");
}

#[tokio::test(start_paused = true)]
async fn a_far_tier_that_hangs_costs_a_few_deadlines_and_then_nothing() {
    let clock = clock();
    let (near, far) = (server("near", &clock, 1), server("far", &clock, 2));
    let cache = cache(&clock, &[&near, &far]).await;
    far.set_plan(FaultPlan::hung());
    for i in 0..20 {
        assert_eq!(ask_for(&cache, &format!("question {i}")).await, "made");
    }
    let (asked, before) = (far.operations(), tokio::time::Instant::now());
    assert!(asked < 30, "{asked}");
    for i in 0..20 {
        for _ in 0..10 {
            assert_eq!(ask_for(&cache, &format!("question {i}")).await, "made");
        }
        assert_eq!(
            ask_for(&cache, &format!("another question {i}")).await,
            "made"
        );
    }
    assert_eq!(far.operations(), asked);
    assert!(before.elapsed() < Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn w_07_no_schedule_of_faults_gives_a_caller_an_error_or_a_wrong_value() {
    for seed in 0..20 {
        let clock = clock();
        let (near, far) = (server("near", &clock, seed), server("far", &clock, !seed));
        let semantic = cache(&clock, &[&near, &far]).await;
        let layered = Layered::builder(Arc::clone(&far) as _).clock(Arc::clone(&clock) as _);
        let typed = Cache::new(Arc::new(layered.build().unwrap()));
        let faults = FaultPlan {
            errors: 0.2,
            lost_answers: 0.1,
            hangs: 0.02,
            lost_writes: 0.1,
            garbage: 0.1,
            delay: Duration::ZERO..=Duration::from_millis(20),
            ..FaultPlan::default()
        };
        near.set_plan(faults.clone());
        far.set_plan(faults);
        for round in 0..60_u64 {
            let number = round % 12;
            assert_eq!(
                ask_for(&semantic, &format!("question {number}")).await,
                "made",
                "seed {seed}"
            );
            let key = Key::new("square").part(number);
            let square = typed.get_or_set(&key, DAY, || async move { number * number });
            assert_eq!(square.await, number * number, "seed {seed}");
            clock.advance(Duration::from_millis(500));
        }
        assert!(near.injected() > 0 && far.injected() > 0, "seed {seed}");
    }
}

/// Builds a store that hangs.
#[derive(Debug)]
struct Hung;

impl BackendFactory for Hung {
    fn build<'a>(
        &'a self,
        config: &'a CustomConfig,
        context: &'a BackendContext,
    ) -> BoxFuture<'a, Result<BackendHandle>> {
        Box::pin(async move {
            let memory = MemoryConfig {
                name: config.name().to_owned(),
                ..MemoryConfig::default()
            };
            let store = MemoryBackend::builder(memory).clock(context.clock());
            let layer = FaultLayer::new(Arc::new(store.build()?), 1).as_remote();
            layer.set_plan(FaultPlan::hung());
            Ok(Arc::new(layer) as BackendHandle)
        })
    }
}

#[tokio::test(start_paused = true)]
async fn w_45_and_w_71_a_third_partys_type_and_its_deadline_are_taken_from_configuration() {
    let config: Config = serde_json::from_str(
        r#"{"backends": [
            {"type": "memory"},
            {"type": "hung", "name": "far", "layers": {"deadline": "70ms"}}
        ]}"#,
    )
    .unwrap();
    let error = SemanticCache::builder().config(&config).build().await;
    assert!(error.unwrap_err().to_string().contains("backends[1].type"));
    let registry = BackendRegistry::default().register("hung", Hung).unwrap();
    let built = SemanticCache::builder().config(&config).registry(registry);
    let cache = built.build().await.unwrap();
    let before = tokio::time::Instant::now();
    assert!(!cache.lookup(&ask("anything")).await.is_hit());
    assert_eq!(before.elapsed(), Duration::from_millis(70));
}

#[tokio::test]
async fn w_66_a_disabled_backend_shifts_nothing() {
    let config: Config = serde_json::from_str(
        r#"{"backends": [
            {"type": "memory", "name": "off", "enabled": false},
            {"type": "memory", "name": "second"},
            {"type": "memory", "name": "first", "default": true}
        ]}"#,
    )
    .unwrap();
    let cache = SemanticCache::builder().config(&config).build().await;
    let tiers = cache.unwrap().stats().await.tiers;
    let names: Vec<_> = tiers.iter().map(|tier| tier.name.as_str()).collect();
    assert_eq!(
        names,
        ["second", "first"],
        "as listed, whichever is the default"
    );
}

#[tokio::test]
async fn w_69_and_w_70_tiers_count_what_happens_and_tell_it_with_its_true_cause() {
    let config = Config {
        backends: vec![
            BackendConfig::Memory(MemoryConfig {
                max_bytes: ByteSize::mib(1),
                ..MemoryConfig::default()
            })
            .into(),
        ],
        ..Config::default()
    };
    let cache = SemanticCache::builder().config(&config).build().await;
    let cache = cache.unwrap();
    let mut events = cache.subscribe();
    put(&cache, "a question that is asked again", "right").await;
    assert!(
        answer_to(&cache, &ask("a question that is asked again"))
            .await
            .is_ok()
    );
    let tier = &cache.stats().await.tiers[0];
    assert_eq!(tier.counts.sets, 1);
    assert_eq!(tier.counts.hit_rate(), Some(1.0));

    let short = StoreOptions::default().ttl(Duration::from_millis(1));
    let stored = cache
        .store(&ask("soon dead"), Answer::text("x"), short)
        .await;
    assert!(matches!(stored, StoreOutcome::Stored { .. }), "{stored:?}");
    let mut seen = [0, 0];
    let mut until = |cause| {
        while let Some(received) = events.try_next() {
            if let Received::Event(Event::Removed { cause, .. }) = received {
                match cause {
                    RemovalCause::Expired => seen[0] += 1,
                    RemovalCause::Evicted => seen[1] += 1,
                }
            }
        }
        let [expired, evicted] = seen;
        match cause {
            RemovalCause::Expired => expired,
            RemovalCause::Evicted => evicted,
        }
    };
    for round in 0.. {
        // The engine's own housekeeping runs with the question what is held.
        cache.stats().await;
        if until(RemovalCause::Expired) == 1 {
            break;
        }
        assert!(round < 200, "the dead value is never reported");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(until(RemovalCause::Evicted), 0);
    for i in 0..40 {
        let answer = Answer::text("long ".repeat(10_000));
        let request = ask(&format!("question {i}"));
        let _ = cache.store(&request, answer, StoreOptions::default()).await;
        cache.stats().await;
    }
    assert!(until(RemovalCause::Evicted) > 0);
}

#[tokio::test(start_paused = true)]
async fn a_tier_that_brings_its_own_layers_is_not_put_into_others() {
    let clock = clock();
    let tier = server("far", &clock, 1);
    let layered = Layered::builder(Arc::clone(&tier) as _)
        .config(LayerConfig {
            retries: 0,
            ..LayerConfig::default()
        })
        .clock(Arc::clone(&clock) as _);
    let layered = Arc::new(layered.build().unwrap());
    let built = builder(&clock).layered(Arc::clone(&layered)).build().await;
    let cache = built.unwrap();
    tier.set_plan(FaultPlan::down());
    let _ = cache.lookup(&ask("anything")).await;
    assert_eq!(tier.operations(), 1, "one attempt, as its layers say");
    assert_eq!(layered.counts().errors, 5, "the entry and four generations");
}
