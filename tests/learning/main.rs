//! What a cache learns from its own decisions, seen from outside: labels from misses, a judge, audits,
//! reports, the breaker, and what a restart keeps.

mod freshness;
mod groups;
#[cfg(feature = "redis")]
mod over_redis;
mod recalibrating;
#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use askonce::backend::{
    BackendUsage, BoxFuture, CacheBackend, Capability, Condition, MemoryBackend, MemoryConfig,
    StoredValue,
};
use askonce::cache::Stats;
use askonce::clock::{ManualClock, Timestamp};
use askonce::config::DecisionLogConfig;
use askonce::learning::{Agreement, Judge, JudgeQuestion, Judgement, decision_log};
use askonce::policy::{Decision, Evidence, ExactOnly, HitPolicy, Threshold};
use askonce::{
    Answer, CacheBuilder, Config, ErrorKind, Fill, Result, SemanticCache, Served, Verdict,
};
use bytes::Bytes;
use support::{AngleEmbedder, answer_to, ask, clock, put};

/// Texts at angles: "near" is served, "grey" is not and may be right.
fn angles() -> Arc<AngleEmbedder> {
    AngleEmbedder::new(&[
        ("stored", 0.0),
        ("near", 8.0),
        ("near too", 9.0),
        ("grey", 14.0),
        ("far", 80.0),
    ])
}

fn cache(clock: &Arc<ManualClock>, config: &Config) -> CacheBuilder {
    // From 0.975, 12.8 degrees, on.
    SemanticCache::builder()
        .clock(Arc::clone(clock) as _)
        .policy(Arc::new(Threshold::new(0.975).unwrap()))
        .embedder(angles())
        .config(config)
}

async fn call(cache: &SemanticCache, text: &str, answer: &str) -> Served {
    let answer = Answer::text(answer);
    let call = move || async move { Ok::<_, std::io::Error>(Fill::from(answer)) };
    cache.get_or_call(&ask(text), call).await.unwrap()
}

/// Waits, for a while, until what happens in the background has happened.
async fn until(cache: &SemanticCache, done: impl Fn(&Stats) -> bool) -> Stats {
    for _ in 0..500 {
        let stats = cache.stats().await;
        if done(&stats) {
            return stats;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("nothing happened: {:?}", cache.stats().await.learning);
}

fn labels(stats: &Stats, source: &str) -> [u64; 2] {
    let category = stats.learning.categories.get("");
    let counts = category.and_then(|category| category.labels.get(source));
    counts.copied().unwrap_or_default()
}

#[tokio::test]
async fn the_fresh_answer_of_a_miss_labels_the_candidate_that_was_passed_on() {
    let cache = cache(&clock(), &Config::default()).build().await.unwrap();
    put(&cache, "stored", "It takes 3 days.").await;
    let served = call(&cache, "grey", "It takes 5 days.").await;
    assert!(served.source.hit().is_none());
    let stats = until(&cache, |stats| labels(stats, "miss") != [0, 0]).await;
    assert_eq!(labels(&stats, "miss"), [0, 1]);
    assert_eq!(stats.learning.entries, 1);
}

#[tokio::test]
async fn an_answer_that_is_stored_after_a_lookup_labels_the_candidate_too_but_not_much_later() {
    let clock = clock();
    let cache = cache(&clock, &Config::default()).build().await.unwrap();
    put(&cache, "stored", "It takes 3 days.").await;
    assert!(answer_to(&cache, &ask("grey")).await.is_err());
    put(&cache, "grey", "It takes 5 days.").await;
    let stats = until(&cache, |stats| labels(stats, "miss") != [0, 0]).await;
    assert_eq!(labels(&stats, "miss"), [0, 1]);

    // Stored again without a lookup, or long after it: what it would be compared with is not known.
    put(&cache, "grey", "It takes 5 days.").await;
    cache
        .invalidate(askonce::Selector::Key(ask("grey").exact_key()))
        .await;
    assert!(answer_to(&cache, &ask("grey")).await.is_err());
    clock.advance(Duration::from_secs(601));
    put(&cache, "grey", "It takes 5 days.").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(labels(&cache.stats().await, "miss"), [0, 1]);
}

#[tokio::test]
async fn a_label_changes_what_the_policy_is_told_of_the_entry() {
    let cache = cache(&clock(), &Config::default()).build().await.unwrap();
    let entry = put(&cache, "stored", "It takes 3 days.").await;
    let record = async || {
        let explained = cache.explain(&ask("near")).await;
        let candidate = explained
            .candidates
            .into_iter()
            .find(|candidate| candidate.entry == entry);
        candidate.unwrap().evidence.unwrap().record
    };
    assert_eq!(record().await.shift, 0.0);
    let _ = call(&cache, "grey", "It takes 5 days.").await;
    until(&cache, |stats| labels(stats, "miss") == [0, 1]).await;
    let after = record().await;
    assert!(after.shift < 0.0 && after.precision > 0.0, "{after:?}");
}

#[tokio::test]
async fn answers_that_differ_in_words_make_no_label_without_a_judge() {
    let cache = cache(&clock(), &Config::default()).build().await.unwrap();
    put(
        &cache,
        "stored",
        "Plants make sugar from light in their leaves.",
    )
    .await;
    let _ = call(
        &cache,
        "grey",
        "By photosynthesis, using carbon dioxide and water.",
    )
    .await;
    let stats = until(&cache, |stats| stats.learning.unsure == 1).await;
    assert_eq!(labels(&stats, "miss"), [0, 0]);
}

/// Says that all answers are the same, or fails.
#[derive(Debug, Default)]
struct Agreeable {
    asked: AtomicUsize,
    fails: bool,
}

impl Judge for Agreeable {
    fn judge<'a>(&'a self, question: &'a JudgeQuestion) -> BoxFuture<'a, Result<Judgement>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        assert_eq!(question.stored_query, "stored");
        let judged = if self.fails {
            Err(askonce::Error::new(ErrorKind::Upstream, "the judge is ill"))
        } else {
            Ok(Judgement {
                agreement: Agreement::Same,
                usd: 0.001,
            })
        };
        Box::pin(async move { judged })
    }
}

#[tokio::test]
async fn a_judge_is_asked_where_cheap_means_are_unsure_and_within_its_budget() {
    for (calls, fails, expected) in [(1, false, [1, 0]), (0, false, [0, 0]), (5, true, [0, 0])] {
        let mut config = Config::default();
        config.semantic.learning.judge.calls_per_day = calls;
        let judge = Arc::new(Agreeable {
            fails,
            ..Agreeable::default()
        });
        let cache = cache(&clock(), &config)
            .judge(Arc::clone(&judge) as _)
            .build()
            .await
            .unwrap();
        put(
            &cache,
            "stored",
            "Plants make sugar from light in their leaves.",
        )
        .await;
        let _ = call(
            &cache,
            "grey",
            "By photosynthesis, using carbon dioxide and water.",
        )
        .await;
        let stats = until(&cache, |stats| {
            stats.learning.unsure > 0 || labels(stats, "judge") != [0, 0]
        })
        .await;
        assert_eq!(labels(&stats, "judge"), expected);
        assert_eq!(judge.asked.load(Ordering::SeqCst), usize::from(calls > 0));
        let cost = cache.savings().costs.unwrap().judge;
        assert_eq!(cost.is_zero(), expected == [0, 0]);
    }
}

/// Every hit is audited, as one drawn uniformly.
fn audited() -> Config {
    let mut config = Config::default();
    let audit = &mut config.semantic.learning.audit;
    (audit.enabled, audit.uniform_rate, audit.calls_per_day) = (true, 1.0, 1_000);
    config
}

#[tokio::test]
async fn hits_are_not_audited_unless_asked_for() {
    let cache = cache(&clock(), &Config::default()).build().await.unwrap();
    put(&cache, "stored", "It takes 3 days.").await;
    for _ in 0..20 {
        assert!(
            call(&cache, "near", "It takes 5 days.")
                .await
                .source
                .hit()
                .is_some()
        );
    }
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(cache.stats().await.upstream_ok, 0);
}

#[tokio::test]
async fn an_audit_that_finds_a_wrong_hit_keeps_it_from_being_served_again() {
    let cache = cache(&clock(), &audited()).build().await.unwrap();
    put(&cache, "stored", "It takes 3 days.").await;
    let served = call(&cache, "near", "It takes 5 days.").await;
    // Whoever is audited gets the stored answer and does not wait.
    assert_eq!(served.answer, Answer::text("It takes 3 days."));
    let stats = until(&cache, |stats| labels(stats, "audit") == [0, 1]).await;
    assert_eq!((stats.upstream_ok, stats.wrong_hits), (1, 1));
    // The audit's call is a cost of the cache, no call that a caller needed.
    let books = cache.savings();
    let costs = books.costs.unwrap();
    assert_eq!((books.totals.calls, books.totals.hits_wrong), (0, 1));
    assert!(!costs.shadow.is_zero() && !costs.wrong_hit.is_zero());
    assert!(books.totals.net_usd().is_zero() && books.net_usd < askonce::savings::Usd::ZERO);
    // The one wrong hit is known, so the estimate adds none.
    let estimate = books.wrong_hits.unwrap();
    assert_eq!((estimate.rate, estimate.hits), (1.0, 0.0));
    assert_eq!(estimate.net_usd, books.net_usd);
    assert!(books.to_string().contains("estimated  "));
    let rate = stats.learning.categories[""].false_hits.unwrap();
    assert!(
        rate.rate == 1.0 && rate.lower > 0.0 && rate.lower < 1.0,
        "{rate:?}"
    );
    assert_eq!(
        answer_to(&cache, &ask("near")).await.unwrap_err(),
        "reported_wrong"
    );
    assert_eq!(
        answer_to(&cache, &ask("near too")).await.unwrap(),
        "It takes 3 days."
    );
}

#[tokio::test]
async fn audits_end_with_the_budget_of_the_day_and_go_on_the_next() {
    let (clock, mut config) = (clock(), audited());
    config.semantic.learning.audit.calls_per_day = 2;
    let cache = cache(&clock, &config).build().await.unwrap();
    put(&cache, "stored", "It takes 3 days.").await;
    for n in 1..=5 {
        let _ = call(&cache, "near", "It takes 3 days.").await;
        until(&cache, |stats| labels(stats, "audit")[0] == n.min(2)).await;
    }
    assert_eq!(cache.stats().await.upstream_ok, 2);
    clock.advance(Duration::from_secs(20 * 3600));
    let _ = call(&cache, "near", "It takes 3 days.").await;
    until(&cache, |stats| labels(stats, "audit") == [3, 0]).await;
}

#[tokio::test]
async fn too_many_wrong_hits_leave_exact_hits_alone_until_the_breaker_is_reset() {
    let cache = cache(&clock(), &audited()).build().await.unwrap();
    let mut wrong = 0;
    for n in 0..40_u32 {
        // Each pair in a place of its own, as a wrong one is not served twice.
        let scope = askonce::Scope::tenant(format!("tenant {n}"));
        let stored = ask("stored").scope(scope.clone());
        support::put_with(
            &cache,
            &stored,
            "It takes 3 days.",
            askonce::StoreOptions::default(),
        )
        .await;
        let call =
            || async { Ok::<_, std::io::Error>(Fill::from(Answer::text("It takes 5 days."))) };
        let served = cache
            .get_or_call(&ask("near").scope(scope), call)
            .await
            .unwrap();
        if served.source.hit().is_none() {
            break;
        }
        wrong += 1;
        until(&cache, |stats| labels(stats, "audit")[1] == wrong).await;
    }
    assert!((2..20).contains(&wrong), "tripped after {wrong}");
    put(&cache, "stored", "It takes 3 days.").await;
    assert_eq!(
        answer_to(&cache, &ask("near")).await.unwrap_err(),
        "breaker_open"
    );
    assert!(answer_to(&cache, &ask("stored")).await.is_ok());
    assert!(cache.stats().await.learning.categories[""].tripped);
    cache.reset_breaker(None);
    assert!(answer_to(&cache, &ask("near")).await.is_ok());
}

#[tokio::test]
async fn a_category_that_is_stopped_stops_no_other() {
    let cache = cache(&clock(), &audited()).build().await.unwrap();
    put(&cache, "stored", "It takes 3 days.").await;
    for n in 0..40_u64 {
        let scope = askonce::Scope::tenant(format!("tenant {n}"));
        let stored = ask("stored").scope(scope.clone());
        let options = askonce::StoreOptions::default();
        support::put_with(&cache, &stored, "It takes 3 days.", options).await;
        let call =
            || async { Ok::<_, std::io::Error>(Fill::from(Answer::text("It takes 5 days."))) };
        let near = ask("near").scope(scope).category("returns");
        if cache
            .get_or_call(&near, call)
            .await
            .unwrap()
            .source
            .hit()
            .is_none()
        {
            break;
        }
        until(&cache, |stats| {
            let category = stats.learning.categories.get("returns");
            category.is_some_and(|category| category.uniform_audits == n + 1)
        })
        .await;
    }
    let near = ask("near").category("returns");
    assert_eq!(answer_to(&cache, &near).await.unwrap_err(), "breaker_open");
    assert!(answer_to(&cache, &ask("near")).await.is_ok());
    cache.reset_breaker(Some("returns"));
    assert!(answer_to(&cache, &near).await.is_ok());
}

#[tokio::test]
async fn two_principals_quarantine_an_entry_and_one_does_not() {
    let cache = cache(&clock(), &Config::default()).build().await.unwrap();
    let entry = put(&cache, "stored", "It takes 3 days.").await;
    let wrong = |text: &str| Verdict::Wrong { query: ask(text) };
    for text in ["near", "far"] {
        assert!(
            cache
                .feedback_from(entry, wrong(text), "ann")
                .await
                .unwrap()
        );
    }
    assert_eq!(
        answer_to(&cache, &ask("near")).await.unwrap_err(),
        "reported_wrong"
    );
    assert!(answer_to(&cache, &ask("near too")).await.is_ok());
    assert!(
        cache
            .feedback_from(entry, wrong("near"), "bob")
            .await
            .unwrap()
    );
    assert!(answer_to(&cache, &ask("near too")).await.is_err());
    assert!(answer_to(&cache, &ask("stored")).await.is_ok());
    assert_eq!(cache.stats().await.learning.quarantined, 1);
}

#[tokio::test]
async fn a_principal_that_reports_without_end_is_not_heard() {
    let mut config = Config::default();
    config.semantic.learning.feedback.per_principal = 1;
    let cache = cache(&clock(), &config).build().await.unwrap();
    let entry = put(&cache, "stored", "It takes 3 days.").await;
    assert!(
        cache
            .feedback_from(entry, Verdict::Right, "eve")
            .await
            .unwrap()
    );
    let wrong = Verdict::Wrong { query: ask("near") };
    assert!(!cache.feedback_from(entry, wrong, "eve").await.unwrap());
    assert!(answer_to(&cache, &ask("near")).await.is_ok());
    assert_eq!(cache.stats().await.learning.refused, 1);
}

#[tokio::test]
async fn reports_move_the_record_in_part_and_both_ways() {
    let cache = cache(&clock(), &Config::default()).build().await.unwrap();
    let [bad, good] = [
        put(&cache, "stored", "It takes 3 days.").await,
        put(&cache, "far", "Nothing.").await,
    ];
    assert!(answer_to(&cache, &ask("near")).await.is_ok());
    cache
        .feedback(bad, Verdict::Wrong { query: ask("near") })
        .await
        .unwrap();
    cache.feedback(good, Verdict::Right).await.unwrap();
    let stats = cache.stats().await;
    assert_eq!(labels(&stats, "feedback"), [1, 1]);
    let explained = cache.explain(&ask("near too")).await;
    let record = |entry| {
        let mut candidates = explained.candidates.iter();
        let found = candidates.find(|candidate| candidate.entry == entry);
        found
            .and_then(|found| found.evidence)
            .map(|evidence| evidence.record.shift)
    };
    let shift = record(bad).unwrap();
    assert!(shift < 0.0 && shift > -0.6, "{shift}");
}

#[tokio::test]
async fn a_principal_has_one_voice_in_an_entry() {
    let cache = cache(&clock(), &Config::default()).build().await.unwrap();
    let entry = put(&cache, "stored", "It takes 3 days.").await;
    for _ in 0..10 {
        assert!(
            cache
                .feedback_from(entry, Verdict::Right, "eve")
                .await
                .unwrap()
        );
    }
    assert_eq!(labels(&cache.stats().await, "feedback"), [1, 0]);
    assert!(
        cache
            .feedback_from(entry, Verdict::Right, "ann")
            .await
            .unwrap()
    );
    assert_eq!(labels(&cache.stats().await, "feedback"), [2, 0]);
}

fn kept_in(folder: &Path) -> Config {
    let mut config = Config::default();
    config.semantic.learning.path = Some(folder.join("learnt"));
    config.semantic.learning.log = Some(DecisionLogConfig {
        path: folder.join("decisions.jsonl"),
        max_bytes: askonce::backend::ByteSize::mib(1),
        keep: 1,
    });
    config
}

#[tokio::test]
async fn a_restart_keeps_what_was_learnt() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), clock());
    let config = kept_in(folder.path());
    let first = cache(&clock, &config).build().await.unwrap();
    let entry = put(&first, "stored", "It takes 3 days.").await;
    for who in ["ann", "bob"] {
        let wrong = Verdict::Wrong { query: ask("near") };
        first.feedback_from(entry, wrong, who).await.unwrap();
    }
    let _ = call(&first, "near", "It takes 5 days.").await;
    assert!(first.save_learning().await.unwrap());
    let before = first.learning_stats();
    assert_eq!((before.quarantined, before.entries), (1, 1));

    let second = cache(&clock, &config).build().await.unwrap();
    let after = second.learning_stats();
    assert_eq!((after.quarantined, after.entries), (1, 1));
    assert_eq!(after.categories, before.categories);
}

#[tokio::test]
async fn the_decision_log_holds_what_was_decided_and_what_came_of_it_and_no_text() {
    let folder = tempfile::tempdir().unwrap();
    let config = kept_in(folder.path());
    let cache = cache(&clock(), &config).build().await.unwrap();
    let entry = put(&cache, "stored", "It takes 3 days.").await;
    assert!(call(&cache, "near", "").await.source.hit().is_some());
    let _ = call(&cache, "grey", "It takes 5 days.").await;
    until(&cache, |stats| labels(stats, "miss") == [0, 1]).await;
    cache.feedback(entry, Verdict::Right).await.unwrap();
    assert!(cache.save_learning().await.unwrap());

    let path = folder.path().join("decisions.jsonl");
    let logged = decision_log::read(&path).unwrap();
    assert_eq!(
        (logged.decisions.len(), logged.labels, logged.unreadable),
        (2, 2, 0)
    );
    let [hit, miss] = &logged.decisions[..] else {
        panic!("{logged:?}")
    };
    assert_eq!(
        (hit.served, hit.candidates[0].right),
        (Some(entry), Some(true))
    );
    assert_eq!((miss.served, miss.candidates[0].right), (None, Some(false)));
    assert_eq!(hit.policy, "threshold");
    let text = std::fs::read_to_string(&path).unwrap();
    for word in ["stored", "near", "grey", "days"] {
        assert!(
            !text.contains(&format!("\"{word}")) && !text.contains("days"),
            "{word}"
        );
    }
}

/// A store outside the process, as far as it says.
#[derive(Debug)]
struct Far(MemoryBackend);

impl CacheBackend for Far {
    fn name(&self) -> &str {
        "far"
    }
    fn capability(&self) -> Capability {
        let mut capability = CacheBackend::capability(&self.0);
        capability.in_process = false;
        capability
    }
    async fn get(&self, key: &[u8]) -> Result<Option<StoredValue>> {
        CacheBackend::get(&self.0, key).await
    }
    async fn set(&self, key: &[u8], value: Bytes, expires: Option<Timestamp>) -> Result<()> {
        CacheBackend::set(&self.0, key, value, expires).await
    }
    async fn set_if(
        &self,
        key: &[u8],
        value: Bytes,
        expires: Option<Timestamp>,
        condition: Condition<'_>,
    ) -> Result<bool> {
        CacheBackend::set_if(&self.0, key, value, expires, condition).await
    }
    async fn delete_if(&self, key: &[u8], expected: &[u8]) -> Result<bool> {
        CacheBackend::delete_if(&self.0, key, expected).await
    }
    async fn delete(&self, key: &[u8]) -> Result<bool> {
        CacheBackend::delete(&self.0, key).await
    }
    async fn clear(&self) -> Result<()> {
        CacheBackend::clear(&self.0).await
    }
    async fn usage(&self) -> Result<BackendUsage> {
        CacheBackend::usage(&self.0).await
    }
}

#[tokio::test]
async fn what_one_process_learnt_holds_in_those_that_share_its_tier() {
    let (clock, config) = (clock(), audited());
    let store = MemoryBackend::builder(MemoryConfig::default()).clock(Arc::clone(&clock) as _);
    let far = Arc::new(Far(store.build().unwrap()));
    let mut caches = Vec::new();
    for _ in 0..2 {
        let builder = cache(&clock, &config).backend(Arc::clone(&far) as _);
        caches.push(builder.build().await.unwrap());
    }
    let [one, other] = &caches[..] else {
        unreachable!()
    };
    let mut wrong = 0;
    while !one
        .learning_stats()
        .categories
        .get("")
        .is_some_and(|category| category.tripped)
    {
        wrong += 1;
        assert!(wrong < 20);
        let scope = askonce::Scope::tenant(format!("tenant {wrong}"));
        let stored = ask("stored").scope(scope.clone());
        support::put_with(
            one,
            &stored,
            "It takes 3 days.",
            askonce::StoreOptions::default(),
        )
        .await;
        let call =
            || async { Ok::<_, std::io::Error>(Fill::from(Answer::text("It takes 5 days."))) };
        let _ = one
            .get_or_call(&ask("near").scope(scope), call)
            .await
            .unwrap();
        until(one, |stats| labels(stats, "audit")[1] == wrong).await;
    }
    one.share_learning().await.unwrap();
    other.share_learning().await.unwrap();
    assert!(other.learning_stats().categories[""].tripped);
    other.reset_breaker(None);
    for cache in [other, one] {
        cache.share_learning().await.unwrap();
        assert!(!cache.learning_stats().categories[""].tripped);
    }
}

#[tokio::test]
async fn a_policy_is_replaced_while_the_cache_runs() {
    let cache = cache(&clock(), &Config::default()).build().await.unwrap();
    put(&cache, "stored", "It takes 3 days.").await;
    assert!(answer_to(&cache, &ask("near")).await.is_ok());
    let before = cache.replace_policy(Arc::new(ExactOnly)).unwrap();
    assert!(answer_to(&cache, &ask("near")).await.is_err());
    cache.replace_policy(before).unwrap();
    assert!(answer_to(&cache, &ask("near")).await.is_ok());
    let foreign = Arc::new(Foreign(vec!["another embedding".to_owned()]));
    let refused = cache.replace_policy(foreign).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Config);
    assert!(answer_to(&cache, &ask("near")).await.is_ok());
}

/// A policy that was fitted on embeddings that no test has.
#[derive(Debug)]
struct Foreign(Vec<String>);

impl HitPolicy for Foreign {
    fn name(&self) -> &'static str {
        "foreign"
    }
    fn decide(&self, evidence: &Evidence) -> Decision {
        ExactOnly.decide(evidence)
    }
    fn calibrated_for(&self) -> &[String] {
        &self.0
    }
    fn least_similarity(&self) -> f32 {
        0.0
    }
}
