//! What a verifier changes: candidates that the policy nearly served, and nothing else.
//!
//! The policy here takes the similarity for the probability. It serves from 0.99 on, and nothing below 0.5 is near.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use askonce::backend::{BoxFuture, ByteSize};
use askonce::clock::ManualClock;
use askonce::config::{DecisionLogConfig, VerifierConfig, VerifierModelConfig};
use askonce::learning::decision_log;
use askonce::policy::guard::GuardKind;
use askonce::policy::{Decision, Evidence, HitPolicy, PassReason};
use askonce::verify::{Verification, Verifier, VerifierQuestion};
use askonce::{
    Answer, CacheBuilder, Config, Error, ErrorKind, Fill, HitKind, LookupOptions, MissReason,
    Outcome, Result, Scope, SemanticCache, StoreOptions, Verdict,
};
use parking_lot::Mutex;

use crate::support::{AngleEmbedder, answer_to, ask, builder, clock, put, put_with, similarity};

/// Stops what lies in this band by a guard, whatever its probability.
const GUARDED: std::ops::Range<f32> = 44.0..46.0;

#[derive(Debug)]
struct Graded;

impl HitPolicy for Graded {
    fn name(&self) -> &'static str {
        "graded"
    }

    fn decide(&self, evidence: &Evidence) -> Decision {
        let probability = Some(f64::from(evidence.similarity));
        let pass = |reason| Decision::Pass {
            reason,
            probability,
        };
        let degrees = evidence.similarity.clamp(-1.0, 1.0).acos().to_degrees();
        if GUARDED.contains(&degrees) {
            pass(PassReason::Guard(GuardKind::Number))
        } else if evidence.similarity < 0.99 {
            pass(PassReason::BelowCutoff)
        } else {
            Decision::Serve {
                probability,
                utility: f64::from(evidence.similarity),
            }
        }
    }

    fn least_similarity(&self) -> f32 {
        0.5
    }
}

/// Says of each stored question what the test says.
#[derive(Debug, Default)]
struct Oracle {
    says: Mutex<HashMap<&'static str, f64>>,
    /// In place of an answer.
    fault: Mutex<Fault>,
    asked: Mutex<Vec<VerifierQuestion>>,
    running: AtomicUsize,
    most: AtomicUsize,
}

#[derive(Clone, Copy, Debug, Default)]
enum Fault {
    #[default]
    None,
    Fails,
    Hangs,
    /// So long.
    Slow(Duration),
    /// Numbers for other candidates than those asked about.
    TooMany,
    /// This number.
    Says(f64),
}

impl Oracle {
    fn saying(says: &[(&'static str, f64)]) -> Arc<Self> {
        Arc::new(Self {
            says: Mutex::new(says.iter().copied().collect()),
            ..Self::default()
        })
    }

    fn ill(fault: Fault) -> Arc<Self> {
        Arc::new(Self {
            fault: Mutex::new(fault),
            ..Self::default()
        })
    }

    fn times_asked(&self) -> usize {
        self.asked.lock().len()
    }

    async fn answer(&self, question: &VerifierQuestion) -> Result<Verification> {
        self.asked.lock().push(question.clone());
        let fault = *self.fault.lock();
        let said = question.candidates.iter();
        let said = said.map(|candidate| self.says.lock().get(&*candidate.query).copied());
        let mut probabilities: Vec<_> = said.collect();
        match fault {
            Fault::None => {}
            Fault::Fails => return Err(Error::new(ErrorKind::Upstream, "the oracle is ill")),
            Fault::Hangs => std::future::pending().await,
            Fault::Slow(time) => {
                let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
                self.most.fetch_max(running, Ordering::SeqCst);
                tokio::time::sleep(time).await;
                self.running.fetch_sub(1, Ordering::SeqCst);
            }
            Fault::TooMany => probabilities.push(Some(1.0)),
            Fault::Says(number) => probabilities.fill(Some(number)),
        }
        Ok(Verification {
            probabilities,
            usd: 0.002,
        })
    }
}

impl Verifier for Oracle {
    fn name(&self) -> &str {
        "oracle"
    }

    fn verify<'a>(&'a self, question: &'a VerifierQuestion) -> BoxFuture<'a, Result<Verification>> {
        Box::pin(self.answer(question))
    }
}

fn embedder() -> Arc<AngleEmbedder> {
    AngleEmbedder::new(&[
        ("asked", 0.0),
        ("sure", 5.0),
        ("near", 20.0),
        ("farther", 25.0),
        ("guarded", 45.0),
        // A probability below 0.6.
        ("far", 55.0),
    ])
}

/// Settings that serve at 0.9 what the policy gives 0.6.
fn settings() -> Config {
    let mut config = Config::default();
    let verifier = VerifierConfig::new(VerifierModelConfig::LanguageModel, 0.9);
    config.semantic.verifier = Some(VerifierConfig {
        low: 0.6,
        ..verifier
    });
    config
}

fn given(clock: &Arc<ManualClock>, config: &Config) -> CacheBuilder {
    builder(clock)
        .config(config)
        .policy(Arc::new(Graded))
        .embedder(embedder())
}

async fn verified_by(
    oracle: &Arc<Oracle>,
    change: impl FnOnce(&mut VerifierConfig),
) -> SemanticCache {
    let mut config = settings();
    if let Some(verifier) = &mut config.semantic.verifier {
        change(verifier);
    }
    let cache = given(&clock(), &config).verifier(Arc::clone(oracle) as _);
    cache.build().await.unwrap()
}

fn reasons(miss: &askonce::Miss) -> Vec<&'static str> {
    miss.reasons.iter().map(|reason| reason.as_str()).collect()
}

#[tokio::test]
async fn what_the_verifier_finds_right_is_served_and_the_hit_says_so() {
    let oracle = Oracle::saying(&[("near", 0.95)]);
    let cache = verified_by(&oracle, |_| {}).await;
    put(&cache, "near", "the answer").await;
    let hit = cache.lookup(&ask("asked")).await.hit().unwrap();
    assert_eq!(hit.answer.as_str(), "the answer");
    let HitKind::Semantic {
        similarity: near,
        probability,
        verified,
    } = hit.kind
    else {
        panic!("{:?}", hit.kind);
    };
    assert!((near - similarity(20.0)).abs() < 1e-3);
    assert_eq!(verified, Some(0.95));
    assert!(
        probability.unwrap() < 0.99,
        "the policy's own number is kept"
    );
    let asked = oracle.asked.lock();
    assert_eq!(asked[0].query, "asked");
    let candidate = &asked[0].candidates[0];
    assert_eq!(
        (&*candidate.query, &*candidate.answer),
        ("near", "the answer")
    );
    assert!(!format!("{:?}", asked[0]).contains("answer"));
    let costs = cache.savings().costs.unwrap();
    let price = askonce::savings::Usd::from_micros(2_000);
    assert_eq!((costs.verification, costs.total()), (price, price));
}

#[tokio::test]
async fn what_it_finds_wrong_is_a_miss_with_its_name() {
    let oracle = Oracle::saying(&[("near", 0.89)]);
    let cache = verified_by(&oracle, |_| {}).await;
    put(&cache, "near", "near").await;
    let miss = cache.lookup(&ask("asked")).await.miss().unwrap();
    assert_eq!(reasons(&miss), ["verifier_refused"]);
    assert_eq!(
        miss.nearest.unwrap().stopped_by,
        MissReason::VerifierRefused
    );
}

#[tokio::test]
async fn the_best_that_it_passes_is_served_though_another_is_nearer() {
    let oracle = Oracle::saying(&[("near", 0.2), ("farther", 0.97)]);
    let cache = verified_by(&oracle, |_| {}).await;
    put(&cache, "near", "near").await;
    put(&cache, "farther", "farther").await;
    assert_eq!(answer_to(&cache, &ask("asked")).await, Ok("farther".into()));
    // One question for both, the more probable first.
    let asked = oracle.asked.lock().pop().unwrap();
    let order: Vec<_> = asked.candidates.iter().map(|c| &*c.query).collect();
    assert_eq!(order, ["near", "farther"]);
    // Of two that pass, it is its own number that counts.
    oracle.says.lock().insert("near", 0.91);
    assert_eq!(answer_to(&cache, &ask("asked")).await, Ok("farther".into()));
    // Where one alone is asked about, it is the more probable.
    let cache = verified_by(&oracle, |config| config.candidates = 1).await;
    put(&cache, "near", "near").await;
    put(&cache, "farther", "farther").await;
    assert_eq!(answer_to(&cache, &ask("asked")).await, Ok("near".into()));
}

#[tokio::test]
async fn it_is_asked_in_the_grey_band_only_and_beats_no_guard() {
    let oracle = Oracle::saying(&[("sure", 1.0), ("guarded", 1.0), ("far", 1.0)]);
    let cache = verified_by(&oracle, |_| {}).await;
    // Hopeless, or stopped by a guard: the policy's word is the last.
    put(&cache, "far", "far").await;
    put(&cache, "guarded", "guarded").await;
    let reason = answer_to(&cache, &ask("asked")).await.unwrap_err();
    assert_eq!(reason, "guard_number");
    // Served by the policy.
    put(&cache, "sure", "sure").await;
    let hit = cache.lookup(&ask("asked")).await.hit().unwrap();
    assert!(matches!(hit.kind, HitKind::Semantic { verified: None, .. }));
    // The same request.
    assert!(cache.lookup(&ask("far")).await.is_hit());
    assert_eq!(oracle.times_asked(), 0);
}

#[tokio::test]
async fn a_guard_that_the_policy_did_not_come_to_is_not_beaten_either() {
    let (old, new) = ("open port 80 for me", "open port 443 for me");
    let oracle = Oracle::saying(&[(old, 1.0)]);
    let cache = builder(&clock())
        .config(&settings())
        .policy(Arc::new(Graded))
        .embedder(AngleEmbedder::new(&[(old, 0.0), (new, 20.0)]))
        .verifier(Arc::clone(&oracle) as _);
    let cache = cache.build().await.unwrap();
    put(&cache, old, "done").await;
    let explained = cache.explain(&ask(new)).await;
    let evidence = explained.candidates[0].evidence.unwrap();
    assert!(evidence.guards.conflict().is_some());
    let reason = answer_to(&cache, &ask(new)).await.unwrap_err();
    assert_eq!(reason, "below_cutoff");
    assert_eq!(oracle.times_asked(), 0);
}

#[tokio::test]
async fn what_was_reported_wrong_is_not_asked_about_again() {
    let oracle = Oracle::saying(&[("near", 1.0)]);
    let cache = verified_by(&oracle, |_| {}).await;
    put(&cache, "near", "near").await;
    let hit = cache.lookup(&ask("asked")).await.hit().unwrap();
    let query = ask("asked");
    cache
        .feedback(hit.entry, Verdict::Wrong { query })
        .await
        .unwrap();
    let reason = answer_to(&cache, &ask("asked")).await.unwrap_err();
    assert_eq!(reason, "reported_wrong");
    assert_eq!(oracle.times_asked(), 1);
}

#[tokio::test]
async fn without_a_word_a_lookup_ends_as_without_a_verifier() {
    let cache = given(&clock(), &Config::default()).build().await.unwrap();
    put(&cache, "near", "near").await;
    let without = cache.lookup(&ask("asked")).await.miss().unwrap();
    let oracle = Oracle::saying(&[]);
    let cache = verified_by(&oracle, |_| {}).await;
    put(&cache, "near", "near").await;
    let with = cache.lookup(&ask("asked")).await.miss().unwrap();
    assert_eq!(oracle.times_asked(), 1);
    assert_eq!(with.reasons, without.reasons);
    assert_eq!(with.reason().as_str(), "below_cutoff");
}

#[tokio::test(start_paused = true)]
async fn a_verifier_that_fails_hangs_or_talks_nonsense_serves_nothing_and_fails_nothing() {
    for (fault, named) in [
        (Fault::Fails, "verify_failed"),
        (Fault::Hangs, "verify_timeout"),
        (Fault::TooMany, "verify_failed"),
        (Fault::Says(f64::NAN), "verify_failed"),
        (Fault::Says(1.5), "verify_failed"),
    ] {
        let oracle = Oracle::ill(fault);
        let cache = verified_by(&oracle, |_| {}).await;
        put(&cache, "near", "near").await;
        let began = tokio::time::Instant::now();
        let miss = cache.lookup(&ask("asked")).await.miss().unwrap();
        assert_eq!(reasons(&miss), ["below_cutoff", named], "{fault:?}");
        assert_eq!(miss.nearest.unwrap().stopped_by.as_str(), "below_cutoff");
        assert!(began.elapsed() <= Duration::from_millis(501), "{fault:?}");
    }
}

#[tokio::test]
async fn beyond_its_budget_it_is_not_asked_until_the_minute_is_over() {
    let oracle = Oracle::saying(&[("near", 1.0)]);
    let mut config = settings();
    if let Some(verifier) = &mut config.semantic.verifier {
        verifier.per_minute = 2;
    }
    let clock = clock();
    let cache = given(&clock, &config).verifier(Arc::clone(&oracle) as _);
    let cache = cache.build().await.unwrap();
    put(&cache, "near", "near").await;
    for _ in 0..2 {
        assert!(cache.lookup(&ask("asked")).await.is_hit());
    }
    let miss = cache.lookup(&ask("asked")).await.miss().unwrap();
    assert_eq!(reasons(&miss), ["below_cutoff", "verify_over_budget"]);
    assert_eq!(oracle.times_asked(), 2);
    clock.advance(Duration::from_secs(60));
    assert!(cache.lookup(&ask("asked")).await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn so_many_lookups_ask_at_the_same_time_and_the_others_do_not_wait_for_ever() {
    let oracle = Oracle::saying(&[("near", 1.0)]);
    *oracle.fault.lock() = Fault::Slow(Duration::from_millis(200));
    let cache = verified_by(&oracle, |config| config.concurrency = 2).await;
    put(&cache, "near", "near").await;
    // An answer takes 200 ms, and a turn is waited for 250 ms: two are served at once, two after them.
    let lookups = (0..6).map(|_| {
        let cache = cache.clone();
        tokio::spawn(async move { cache.lookup(&ask("asked")).await })
    });
    let lookups: Vec<_> = lookups.collect();
    let mut hits = 0;
    for lookup in lookups {
        match lookup.await.unwrap() {
            Outcome::Hit(_) => hits += 1,
            Outcome::Miss(miss) => assert_eq!(reasons(&miss), ["below_cutoff", "verify_busy"]),
        }
    }
    assert_eq!(hits, 4);
    assert_eq!(oracle.most.load(Ordering::SeqCst), 2);
    assert_eq!(oracle.times_asked(), 4);
}

#[tokio::test]
async fn an_explanation_shows_what_it_said_and_equals_the_lookup() {
    let oracle = Oracle::saying(&[("near", 0.2), ("farther", 0.97)]);
    let cache = verified_by(&oracle, |_| {}).await;
    put(&cache, "near", "near").await;
    let farther = put(&cache, "farther", "farther").await;
    let explained = cache.explain(&ask("asked")).await;
    assert_eq!(explained.verifier.as_deref(), Some("oracle"));
    let said: Vec<_> = explained
        .candidates
        .iter()
        .map(|c| (c.verified, c.serve, c.stopped_by.map(MissReason::as_str)))
        .collect();
    assert_eq!(
        said,
        [
            (Some(0.2), false, Some("verifier_refused")),
            (Some(0.97), true, None)
        ]
    );
    let stages: Vec<_> = explained
        .stage_micros
        .iter()
        .map(|(name, _)| *name)
        .collect();
    assert_eq!(stages, ["exact", "embed", "search", "decide", "verify"]);
    let hit = cache.lookup(&ask("asked")).await.hit().unwrap();
    let told = explained.hit.unwrap();
    assert_eq!((told.entry, told.kind), (farther, hit.kind));
    let json = serde_json::to_value(cache.explain(&ask("asked")).await).unwrap();
    assert_eq!(json["hit"]["verified"], 0.97);
}

#[tokio::test]
async fn the_decision_log_keeps_what_it_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("decisions.jsonl");
    let mut config = settings();
    config.semantic.learning.log = Some(DecisionLogConfig {
        path: path.clone(),
        max_bytes: ByteSize::mib(1),
        keep: 1,
    });
    let oracle = Oracle::saying(&[("near", 0.95)]);
    let cache = given(&clock(), &config).verifier(oracle);
    let cache = cache.build().await.unwrap();
    let entry = put(&cache, "near", "near").await;
    assert!(cache.lookup(&ask("asked")).await.is_hit());
    cache.save_learning().await.unwrap();
    let log = decision_log::read(&path).unwrap().decisions;
    let logged = &log[0].verified;
    assert_eq!((logged[0].entry, logged[0].probability), (entry, 0.95));
    assert_eq!(log[0].served, Some(entry));
}

#[tokio::test]
async fn what_is_too_old_for_the_caller_is_neither_shown_nor_served() {
    let oracle = Oracle::saying(&[("near", 1.0)]);
    let config = settings();
    let clock = clock();
    let cache = given(&clock, &config).verifier(Arc::clone(&oracle) as _);
    let cache = cache.build().await.unwrap();
    put(&cache, "near", "near").await;
    clock.advance(Duration::from_secs(100));
    let mut options = LookupOptions::default();
    options.control.max_age = Some(Duration::from_secs(50));
    let miss = cache
        .lookup_with(&ask("asked"), &options)
        .await
        .miss()
        .unwrap();
    assert_eq!(reasons(&miss), ["too_old"]);
    assert_eq!(oracle.times_asked(), 0);
}

#[tokio::test]
async fn a_tripped_breaker_holds_the_verifier_back_until_it_is_reset() {
    let oracle = Oracle::saying(&[("near", 1.0)]);
    let mut config = settings();
    let audit = &mut config.semantic.learning.audit;
    (audit.enabled, audit.uniform_rate, audit.calls_per_day) = (true, 1.0, 1_000);
    let cache = given(&clock(), &config).verifier(Arc::clone(&oracle) as _);
    let cache = cache.build().await.unwrap();
    // Every hit is audited and found wrong, each in a scope of its own: none is served twice.
    let mut tripped = false;
    for n in 0..40 {
        let scope = Scope::tenant(format!("tenant {n}"));
        let stored = ask("sure").scope(scope.clone());
        put_with(&cache, &stored, "It takes 3 days.", StoreOptions::default()).await;
        let call =
            || async { Ok::<_, std::io::Error>(Fill::from(Answer::text("It takes 5 days."))) };
        let asked = ask("asked").scope(scope);
        cache.get_or_call(&asked, call).await.unwrap();
        for _ in 0..500 {
            let learning = cache.stats().await.learning;
            let category = learning.categories.get("");
            let audits = category.and_then(|of| of.labels.get("audit").copied());
            tripped = category.is_some_and(|of| of.tripped);
            if tripped || audits == Some([0, n + 1]) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if tripped {
            break;
        }
    }
    assert!(tripped);
    put(&cache, "near", "near").await;
    let reason = answer_to(&cache, &ask("asked")).await.unwrap_err();
    assert_eq!(reason, "below_cutoff");
    assert_eq!(oracle.times_asked(), 0);
    cache.reset_breaker(None);
    assert_eq!(answer_to(&cache, &ask("asked")).await, Ok("near".into()));
    assert_eq!(oracle.times_asked(), 1);
}

#[tokio::test]
async fn a_verifier_and_its_settings_come_together() {
    let refused = |built: Result<SemanticCache>| format!("{:?}", built.unwrap_err());
    let oracle = Oracle::saying(&[]);
    let alone = given(&clock(), &Config::default())
        .verifier(oracle)
        .build()
        .await;
    let alone = refused(alone);
    assert!(
        alone.contains("semantic.verifier") && alone.contains("serve_at"),
        "{alone}"
    );
    let nobody = refused(given(&clock(), &settings()).build().await);
    assert!(nobody.contains("semantic.verifier.model.type"), "{nobody}");
    assert!(nobody.contains("CacheBuilder::verifier"), "{nobody}");
}
