//! Who has asked is counted in the store, so one process counts what another serves by.

use askonce::admit::AdmissionConfig;
use askonce::{HitKind, Outcome};

use crate::process::{World, eventually};
use crate::support::{ask, put_with};

const ASKED: &str = "How do I reset my password?";
const SIMILAR: &str = "how do I reset my password";

#[tokio::test]
async fn who_asks_in_one_process_is_counted_in_all() {
    for near in [true, false] {
        let world = World::new();
        let admission = AdmissionConfig {
            min_principals: 2,
            ..AdmissionConfig::default()
        };
        let one = world.admitting(near, &admission).await;
        let other = world.admitting(near, &admission).await;
        let mallory = ask(ASKED).principal("mallory");
        put_with(&one.cache, &mallory, "To mallory.", Default::default()).await;
        let asks = || async {
            match one.cache.lookup(&ask(SIMILAR).principal("bob")).await {
                Outcome::Hit(hit) => matches!(hit.kind, HitKind::Semantic { .. }),
                Outcome::Miss(miss) => {
                    assert_eq!(miss.reason().as_str(), "too_few_principals");
                    false
                }
            }
        };
        assert!(!asks().await);
        let exact = other.cache.lookup(&ask(ASKED).principal("alice")).await;
        assert!(exact.is_hit());
        eventually("the other's count is seen", asks).await;
    }
}
