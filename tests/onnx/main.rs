//! A cache over models that a user brings: as the embedder, as the second embedder, as the verifier.
//!
//! The models are those of `models/tests/onnx/make_models.py`, which says what they compute.

#[path = "../../models/tests/onnx/runtime.rs"]
mod runtime;
#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::sync::Arc;

use askonce::policy::guard::GuardKind;
use askonce::policy::{Decision, Evidence, HitPolicy, PassReason, Threshold};
use askonce::{Config, HitKind, Result, SemanticCache};
use serde_json::{Value, json};
use support::{AngleEmbedder, answer_to, ask, builder, clock, put};

/// Settings of a model of these tests; `None` where there is nothing to run it.
fn model(kind: &str, name: &str) -> Option<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tests/onnx");
    Some(json!({
        "type": kind,
        "path": folder.join(name),
        "max_tokens": 24,
        "library": runtime::library()?,
    }))
}

fn with(field: &str, value: &Value) -> Config {
    serde_json::from_value(json!({ "semantic": { field: value } })).unwrap()
}

fn refused(built: Result<SemanticCache>) -> String {
    format!("{:?}", built.unwrap_err())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_of_ones_own_finds_what_is_reworded() {
    let Some(model) = model("onnx", "sentence.onnx") else {
        return;
    };
    let cache = builder(&clock()).config(&with("embedder", &model));
    let cache = cache.build().await.unwrap();
    assert!(cache.fingerprint().unwrap().starts_with("sentence@"));
    put(&cache, "how do i reset my password", "like so").await;
    let reworded = answer_to(&cache, &ask("i forgot my login")).await;
    assert_eq!(reworded, Ok("like so".into()));
    let other = answer_to(&cache, &ask("is the weather sunny")).await;
    assert_eq!(other, Err("below_threshold".into()));
    // Words that the model does not know have no place in its space.
    let unknown = answer_to(&cache, &ask("qwertz uiop")).await;
    assert_eq!(unknown, Err("not_embeddable".into()));
    let long = answer_to(&cache, &ask(&"rain ".repeat(30))).await;
    assert_eq!(long, Err("not_embeddable".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_lookups_at_once_share_one_model() {
    let Some(model) = model("onnx", "sentence.onnx") else {
        return;
    };
    let cache = builder(&clock()).config(&with("embedder", &model));
    let cache = cache.build().await.unwrap();
    put(&cache, "how do i reset my password", "like so").await;
    let lookups = (0..20).map(|_| {
        let cache = cache.clone();
        tokio::spawn(async move { answer_to(&cache, &ask("i forgot my login")).await })
    });
    for lookup in lookups.collect::<Vec<_>>() {
        assert_eq!(lookup.await.unwrap(), Ok("like so".into()));
    }
}

/// In doubt about everything until it has the second cosine.
#[derive(Debug)]
struct Doubtful;

impl HitPolicy for Doubtful {
    fn name(&self) -> &'static str {
        "doubtful"
    }

    fn decide(&self, evidence: &Evidence) -> Decision {
        match evidence.refined {
            None if evidence.can_refine => Decision::Refine { probability: None },
            Some(refined) if refined > 0.9 => Decision::Serve {
                probability: None,
                utility: f64::from(refined),
            },
            _ => Decision::Pass {
                reason: PassReason::BelowThreshold,
                probability: None,
            },
        }
    }

    fn least_similarity(&self) -> f32 {
        -1.0
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_of_ones_own_takes_the_second_place_of_the_cascade() {
    let Some(model) = model("onnx", "sentence.onnx") else {
        return;
    };
    let cascade = json!({ "type": "cascade", "refiner": model, "deadline": "10s" });
    let cache = builder(&clock())
        .config(&with("embedder", &cascade))
        .policy(Arc::new(Doubtful));
    let cache = cache.build().await.unwrap();
    assert!(
        cache
            .refiner_fingerprint()
            .unwrap()
            .starts_with("sentence@")
    );
    put(&cache, "how do i reset my password", "like so").await;
    put(&cache, "is it sunny", "no").await;
    cache.refined_all().await;
    assert_eq!(
        answer_to(&cache, &ask("forgot my login")).await,
        Ok("like so".into())
    );
    assert_eq!(answer_to(&cache, &ask("sunny rain")).await, Ok("no".into()));
}

/// Serves nothing and finds all of it half right, but for one guard.
#[derive(Debug)]
struct Half;

impl HitPolicy for Half {
    fn name(&self) -> &'static str {
        "half"
    }

    fn decide(&self, evidence: &Evidence) -> Decision {
        let reason = if evidence.similarity > 0.5 {
            PassReason::BelowCutoff
        } else {
            PassReason::Guard(GuardKind::Number)
        };
        Decision::Pass {
            reason,
            probability: Some(0.5),
        }
    }

    fn least_similarity(&self) -> f32 {
        -1.0
    }
}

async fn verified(model: &Value) -> Result<SemanticCache> {
    let verifier = json!({ "model": model, "serve_at": 0.7, "deadline": "10s" });
    let near = AngleEmbedder::new(&[
        ("reset my password", 0.0),
        ("forgot login", 10.0),
        ("sunny weather", 5.0),
    ]);
    builder(&clock())
        .config(&with("verifier", &verifier))
        .policy(Arc::new(Half))
        .embedder(near)
        .build()
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cross_encoder_of_ones_own_verifies_what_the_policy_nearly_served() {
    let Some(mut model) = model("cross_encoder", "pair.onnx") else {
        return;
    };
    for direction in ["forward", "both"] {
        model["direction"] = json!(direction);
        let cache = verified(&model).await.unwrap();
        put(&cache, "sunny weather", "Take a hat.").await;
        let reason = answer_to(&cache, &ask("reset my password")).await;
        assert_eq!(reason, Err("verifier_refused".into()));
        put(&cache, "forgot login", "like so").await;
        let hit = cache.lookup(&ask("reset my password")).await.hit().unwrap();
        assert_eq!(hit.answer.as_str(), "like so");
        let HitKind::Semantic { verified, .. } = hit.kind else {
            panic!("{:?}", hit.kind);
        };
        assert!(verified.unwrap() > 0.7);
    }
    // Read with the answers instead, of which it knows no word: it says nothing.
    model["direction"] = json!("forward");
    model["with"] = json!("answer");
    let cache = verified(&model).await.unwrap();
    put(&cache, "forgot login", "qwertz").await;
    let reason = answer_to(&cache, &ask("reset my password")).await;
    assert_eq!(reason, Err("below_cutoff".into()));
    put(&cache, "sunny weather", "reset the password").await;
    let answer = answer_to(&cache, &ask("reset my password")).await;
    assert_eq!(answer, Ok("reset the password".into()));
}

#[tokio::test]
async fn what_does_not_fit_is_refused_with_the_path_of_its_field() {
    let Some(sound) = model("onnx", "sentence.onnx") else {
        return;
    };
    let with_change = |field: &str, value: Value| {
        let mut model = sound.clone();
        model[field] = value;
        model
    };
    for (field, value) in [
        ("path", json!("no/such.onnx")),
        ("output", json!("pooled")),
        ("library", json!("no/such.so")),
        ("max_tokens", json!(25)),
        ("max_tokens", json!(1)),
    ] {
        let model = with_change(field, value);
        let alone = with("embedder", &model);
        let alone = refused(SemanticCache::builder().config(&alone).build().await);
        assert!(
            alone.contains(&format!("semantic.embedder.{field}")),
            "{alone}"
        );
        let cascade = json!({ "type": "cascade", "refiner": model });
        let second = with("embedder", &cascade);
        let second = refused(SemanticCache::builder().config(&second).build().await);
        let path = format!("semantic.embedder.refiner.{field}");
        assert!(second.contains(&path), "{second}");
    }
    let mut three = model("cross_encoder", "pair_of_three.onnx").unwrap();
    let unnamed = refused(verified(&three).await);
    assert!(
        unnamed.contains("semantic.verifier.model.label"),
        "{unnamed}"
    );
    three["label"] = json!(2);
    verified(&three).await.unwrap();
}

/// The built-in policy was fitted on other cosines.
#[tokio::test(flavor = "multi_thread")]
async fn the_built_in_policy_serves_nothing_beside_a_model_that_it_does_not_know() {
    let Some(model) = model("onnx", "sentence.onnx") else {
        return;
    };
    let cache = SemanticCache::builder().config(&with("embedder", &model));
    let cache = cache.build().await.unwrap();
    put(&cache, "how do i reset my password", "like so").await;
    let reworded = answer_to(&cache, &ask("how do i reset the password")).await;
    assert_eq!(reworded, Err("exact_only".into()));
    let policy = Threshold::new(0.9).unwrap();
    let cache = SemanticCache::builder()
        .config(&with("embedder", &model))
        .policy(Arc::new(policy));
    let cache = cache.build().await.unwrap();
    put(&cache, "how do i reset my password", "like so").await;
    let reworded = answer_to(&cache, &ask("how do i reset the password")).await;
    assert_eq!(reworded, Ok("like so".into()));
}
