//! The books of a cache: by tenant, model, route and day, with what the cache itself costs, and over restarts.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use askonce::clock::{Clock as _, ManualClock};
use askonce::savings::{By, PriceConfig, SavingsFilter, Usage, Usd};
use askonce::{Answer, Config, Fill, Outcome, Request, SemanticCache, Verdict};

use crate::support::{ask, builder, clock};

const ASKED: &str = "How do I reset my password?";
const SIMILAR: &str = "how can I reset my password";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

async fn cache(clock: &Arc<ManualClock>, path: Option<&Path>) -> SemanticCache {
    let mut config = Config {
        default_ttl: None,
        ..Config::default()
    };
    config.ledger.path = path.map(Path::to_owned);
    let price = PriceConfig {
        input: 1.0,
        cached_input: None,
        output: 1.0,
    };
    config.prices.models.insert("ours".to_owned(), price);
    builder(clock).config(&config).build().await.unwrap()
}

/// Asks through the cache; a call uses a million tokens.
async fn call(cache: &SemanticCache, request: &Request) -> bool {
    let call = || async {
        let fill = Fill::from(Answer::text("Open Settings."));
        Ok::<_, std::io::Error>(fill.usage(Usage::new(600_000, 400_000)))
    };
    let served = cache.get_or_call(request, call).await.unwrap();
    served.source.hit().is_some()
}

fn dollars(dollars: i64) -> Usd {
    Usd::from_micros(dollars * 1_000_000)
}

#[tokio::test]
async fn each_part_of_the_books_adds_up_and_names_its_prices() {
    let clock = clock();
    let cache = cache(&clock, None).await;
    for (tenant, model, route) in [
        ("acme", "ours", "eu"),
        ("acme", "ours", "us"),
        ("globex", "ours", "eu"),
        ("globex", "house-model", "eu"),
    ] {
        let scope = askonce::Scope::tenant(tenant);
        let request = ask(ASKED).model(model).scope(scope).route(route);
        // A route is in no key: the second of acme's is a hit.
        assert_eq!(call(&cache, &request).await, route == "us");
        assert!(call(&cache, &request).await);
        clock.advance(DAY);
    }
    let all = cache.savings();
    assert_eq!((all.totals.hits(), all.totals.calls), (5, 3));
    assert_eq!(all.net_usd, dollars(4));
    assert_eq!(all.unpriced_models, ["house-model"]);
    let names = |lines: &[askonce::savings::NamedLine]| -> Vec<(String, Usd)> {
        let named = lines.iter();
        named
            .map(|line| (line.name.clone(), line.line.net_usd()))
            .collect()
    };
    // Of two that saved as much, the one with more tokens is first.
    let both = [("eu".to_owned(), dollars(2)), ("us".to_owned(), dollars(2))];
    assert_eq!(names(&all.by_route), both);
    assert_eq!(names(&all.by_tenant)[0], ("acme".to_owned(), dollars(3)));
    assert_eq!(all.by_day.len(), 4);
    let prices = all.prices.clone().unwrap();
    assert!(prices.builtin.is_some());
    assert_eq!(prices.configured, 1);
    let shown = all.to_string();
    for words in [
        "prices     list of ",
        ", 1 of your own",
        "no price   house-model (tokens only; set prices.models)",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }

    let of = |filter: SavingsFilter| cache.savings_for(&filter);
    let us = of(SavingsFilter {
        route: Some("us".to_owned()),
        ..SavingsFilter::default()
    });
    assert_eq!((us.totals.hits(), us.totals.calls), (2, 0));
    assert_eq!(us.costs, None);
    let by_route = of(SavingsFilter {
        by: Some(By::Route),
        ..SavingsFilter::default()
    });
    assert_eq!(by_route.totals, all.totals);
    assert_eq!(by_route.by_route, all.by_route);
    assert!(by_route.by_tenant.is_empty() && by_route.by_day.is_empty());
    let since = of(SavingsFilter {
        since: all.by_day[2].day,
        ..SavingsFilter::default()
    });
    assert_eq!((since.totals.hits(), since.totals.calls), (2, 2));
    assert_eq!(since.by_day, all.by_day[2..]);
}

#[tokio::test]
async fn the_books_outlive_the_cache() {
    let (clock, folder) = (clock(), tempfile::tempdir().unwrap());
    let path = folder.path().join("books.json");
    let before = {
        let cache = cache(&clock, Some(&path)).await;
        call(&cache, &ask(ASKED).model("ours")).await;
        call(&cache, &ask(ASKED).model("ours")).await;
        assert!(cache.save_savings().await.unwrap());
        cache.savings()
    };
    assert_eq!(before.net_usd, dollars(1));
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("password") && !text.contains("Settings"));
    let cache = cache(&clock, Some(&path)).await;
    assert_eq!(cache.savings(), before);
    // What is in memory only is gone, the books are not: a call, then a hit.
    call(&cache, &ask(ASKED).model("ours")).await;
    call(&cache, &ask(ASKED).model("ours")).await;
    assert_eq!(cache.savings().net_usd, dollars(2));
    assert_eq!(cache.savings().totals.calls, 2);
}

#[tokio::test]
async fn beside_an_index_the_books_have_a_file_of_their_own() {
    let (clock, folder) = (clock(), tempfile::tempdir().unwrap());
    let mut config = Config::default();
    config.semantic.index.path = Some(folder.path().join("index"));
    let cache = builder(&clock).config(&config).build().await.unwrap();
    call(&cache, &ask(ASKED)).await;
    assert!(cache.save_savings().await.unwrap());
    assert!(folder.path().join("index.savings").exists());
}

#[tokio::test]
async fn a_wrong_hit_saved_nothing_and_costs_what_the_settings_say() {
    let clock = clock();
    // Four savings a wrong answer, by the default policy's settings.
    let cache = cache(&clock, None).await;
    call(&cache, &ask(ASKED).model("ours").route("eu")).await;
    let query = ask(SIMILAR).model("ours").route("eu");
    let Outcome::Hit(hit) = cache.lookup(&query).await else {
        panic!("the wordings are near");
    };
    assert_eq!(cache.savings().net_usd, dollars(1));
    let wrong = Verdict::Wrong { query };
    cache.feedback(hit.entry, wrong).await.unwrap();
    let report = cache.savings();
    assert_eq!(report.totals.net_usd(), Usd::ZERO);
    assert_eq!(report.costs.unwrap().wrong_hit, dollars(4));
    assert_eq!(report.net_usd, dollars(-4));
    assert_eq!(report.by_route.len(), 1, "withdrawn where it was claimed");
    // Nobody audited, so nothing is estimated.
    assert_eq!(report.wrong_hits, None);
    assert_eq!(report.generated_at, clock.now());
}
