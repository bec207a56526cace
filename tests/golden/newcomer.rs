//! A new cache, as it is without a word of configuration, and the first prompts that a person tries on it.

use std::time::Duration;

use askonce::config::EmbedderConfig;
use askonce::{Answer, Config, Fill, Request, SemanticCache};

use crate::data::{Label, pairs};

/// The settings of a fresh start, but for how long a lookup in doubt may wait: tests run on busy machines.
fn config() -> Config {
    let mut config = Config::default();
    match &mut config.semantic.embedder {
        EmbedderConfig::Cascade { deadline, .. } => *deadline = Duration::from_secs(10),
        other => panic!("the default embedder is {other:?}"),
    }
    config
}

#[tokio::test]
async fn a_fresh_start_serves_rewordings_and_refuses_every_near_miss() {
    let (mut served, mut rewordings) = (0, 0);
    for pair in pairs().into_iter().filter(|pair| pair.file == "newcomer") {
        let cache = SemanticCache::builder()
            .config(&config())
            .build()
            .await
            .expect("the default settings");
        let call = || async { Ok::<_, std::io::Error>(Fill::from(Answer::text("stored"))) };
        let stored = cache.get_or_call(&Request::prompt(&pair.a), call).await;
        assert!(stored.is_ok_and(|answer| answer.source.hit().is_none()));
        let outcome = cache.lookup(&Request::prompt(&pair.b)).await;
        println!("{:?} / {:?}: {outcome:?}", pair.a, pair.b);
        let hits = outcome.hit().is_some();
        match pair.label {
            Label::Different => assert!(!hits, "{:?} / {:?}", pair.a, pair.b),
            Label::Same => {
                rewordings += 1;
                served += usize::from(hits);
            }
        }
    }
    assert_eq!(rewordings, 8);
    assert!(
        served >= 6,
        "{served} of {rewordings} rewordings are served"
    );
}
