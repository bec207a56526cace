//! A new cache, as it is without a word of configuration, and the first prompts that a person tries on it.
//! The README shows what this prints.

use std::time::Duration;

use askonce::config::EmbedderConfig;
use askonce::{Answer, Config, Fill, Outcome, Request, SemanticCache};

use crate::data::{Label, Pair, pairs};

/// The settings of a fresh start, but for how long a lookup in doubt may wait: tests run on busy machines.
fn config() -> Config {
    let mut config = Config::default();
    match &mut config.semantic.embedder {
        EmbedderConfig::Cascade { deadline, .. } => *deadline = Duration::from_secs(10),
        other => panic!("the default embedder is {other:?}"),
    }
    config
}

/// Stores an answer for one text in a new cache and asks for the other: whether it is served.
async fn is_served(pair: &Pair) -> bool {
    let cache = SemanticCache::builder()
        .config(&config())
        .build()
        .await
        .expect("the default settings");
    let call = || async { Ok::<_, std::io::Error>(Fill::from(Answer::text("stored"))) };
    let stored = cache.get_or_call(&Request::prompt(&pair.a), call).await;
    assert!(stored.is_ok_and(|answer| answer.source.hit().is_none()));
    let outcome = cache.lookup(&Request::prompt(&pair.b)).await;
    let told = match &outcome {
        Outcome::Hit(_) => "served".to_owned(),
        Outcome::Miss(miss) => miss.reason().to_string(),
    };
    println!("{told:20} {:?} / {:?}", pair.a, pair.b);
    outcome.hit().is_some()
}

#[tokio::test]
async fn a_fresh_start_serves_the_same_words_in_other_dress_and_refuses_every_near_miss() {
    for pair in pairs().iter().filter(|pair| pair.file == "newcomer") {
        let expected = pair.label == Label::Same;
        assert_eq!(
            is_served(pair).await,
            expected,
            "{:?} / {:?}",
            pair.a,
            pair.b
        );
    }
    // Other words are for the models, whose certified cut-off decides: printed, not promised.
    for pair in pairs()
        .iter()
        .filter(|pair| pair.file == "newcomer_reworded")
    {
        is_served(pair).await;
    }
}
