//! Answers that go wrong with age: what was sure when it was stored is not served later.

use std::sync::Arc;
use std::time::Duration;

use askonce::Config;
use askonce::policy::{CostAware, WrongAnswerCost};

use crate::support::{answer_to, ask, clock, put};
use crate::{call, labels, until};

#[tokio::test]
async fn an_answer_is_served_while_it_is_young_and_explain_tells_why_not_later() {
    let (clock, mut config) = (clock(), Config::default());
    let hazards = &mut config.semantic.learning.freshness.hazard_per_day;
    hazards.insert("prices".to_owned(), 2.0);
    let policy = CostAware::new(WrongAnswerCost::TimesSaving(4.0));
    let builder = crate::cache(&clock, &config).policy(Arc::new(policy));
    let cache = builder.build().await.unwrap();
    put(&cache, "stored", "It costs 3 dollars.").await;
    let prices = ask("near").category("prices");
    let probability = async || {
        cache.explain(&prices).await.candidates[0]
            .probability
            .unwrap()
    };
    assert!(answer_to(&cache, &prices).await.is_ok());
    let young = probability().await;

    clock.advance(Duration::from_secs(6 * 3600));
    assert_eq!(answer_to(&cache, &prices).await.unwrap_err(), "below_floor");
    let explained = cache.explain(&prices).await;
    let evidence = explained.candidates[0].evidence.unwrap();
    assert_eq!(evidence.hazard_per_day, 2.0);
    assert_eq!(evidence.age, Duration::from_secs(6 * 3600));
    // Two a day is half of one in six hours.
    assert!((probability().await / young - (-0.5_f64).exp()).abs() < 1e-6);
    // What other traffic asks is as fresh as ever.
    assert!(answer_to(&cache, &ask("near")).await.is_ok());
}

#[tokio::test]
async fn the_hazard_is_estimated_from_audits_where_that_is_asked_for() {
    let (clock, mut config) = (clock(), crate::audited());
    config.semantic.learning.freshness.estimate = true;
    config.semantic.learning.breaker.enabled = false;
    config.semantic.learning.retention_per_day = 1.0;
    config.default_ttl = Some(Duration::from_secs(90 * 86_400));
    let cache = crate::cache(&clock, &config).build().await.unwrap();
    let hazard = |stats: &askonce::cache::Stats| {
        let category = stats.learning.categories.get("");
        category.map_or(0.0, |category| category.hazard_per_day)
    };
    // Young answers are right, those of ten days are wrong.
    for n in 0..60_u64 {
        let scope = askonce::Scope::tenant(format!("tenant {n}"));
        let stored = ask("stored").scope(scope.clone());
        let options = askonce::StoreOptions::default();
        crate::support::put_with(&cache, &stored, "It takes 3 days.", options).await;
        let old = n % 2 == 1;
        if old {
            clock.advance(Duration::from_secs(10 * 86_400));
        }
        let fresh = if old {
            "It takes 5 days."
        } else {
            "It takes 3 days."
        };
        let answer = move || async move {
            Ok::<_, std::io::Error>(askonce::Fill::from(askonce::Answer::text(fresh)))
        };
        let near = ask("near").scope(scope);
        let served = cache.get_or_call(&near, answer).await.unwrap();
        assert!(served.source.hit().is_some(), "{n}");
        let all = |stats: &askonce::cache::Stats| labels(stats, "audit").iter().sum::<u64>();
        let stats = until(&cache, |stats| all(stats) == n + 1).await;
        if n < 10 {
            assert_eq!(hazard(&stats), 0.0, "too few to tell");
        }
    }
    let stats = cache.stats().await;
    assert!(hazard(&stats) > 0.1, "{}", hazard(&stats));
    let _ = call(&cache, "stored", "It takes 3 days.").await;
    let explained = cache.explain(&ask("near")).await;
    assert!(explained.candidates[0].evidence.unwrap().hazard_per_day > 0.1);
}
