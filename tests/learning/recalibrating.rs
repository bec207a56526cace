//! A policy that is fitted anew on the log: it outlives the process where a file is named for it, and where the
//! labels do not carry its promises the one before stays.

use std::fs;
use std::path::Path;

use askonce::backend::ByteSize;
use askonce::calibrate::{FitSettings, Models, Parts, fit};
use askonce::config::DecisionLogConfig;
use askonce::decision::{CandidateRecord, DecisionRecord};
use askonce::learning::{PolicyOrigin, PolicyStatus, Recalibration};
use askonce::policy::{CalibratedSettings, Evidence, PolicyConfig, PolicyFile};
use askonce::{Config, EntryId, SemanticCache};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;

use crate::support::clock;

/// Decisions on one candidate each, right when it is similar, but for a share that has gone wrong.
fn decisions(space: &str, count: u64, gone_wrong: f64) -> Vec<DecisionRecord> {
    let mut random = StdRng::seed_from_u64(count);
    let decision = |at| {
        let similarity: f64 = random.random();
        let right = similarity > 0.6 && random.random::<f64>() >= gone_wrong;
        DecisionRecord {
            at,
            group: at,
            spaces: vec![space.to_owned()],
            candidates: vec![CandidateRecord {
                entry: EntryId::new(at),
                evidence: Evidence::similarity(similarity as f32),
                right: Some(right),
            }],
            ..DecisionRecord::default()
        }
    };
    (0..count).map(decision).collect()
}

fn write_log(path: &Path, decisions: &[DecisionRecord]) {
    let line = |decision: &DecisionRecord| {
        let id = format!("{:016x}", decision.at);
        json!({ "id": id, "decision": decision }).to_string() + "\n"
    };
    fs::write(path, decisions.iter().map(line).collect::<String>()).unwrap();
}

async fn start(config: &Config) -> SemanticCache {
    let builder = SemanticCache::builder().clock(clock() as _).config(config);
    builder.embedder(crate::angles()).build().await.unwrap()
}

async fn status(cache: &SemanticCache) -> PolicyStatus {
    cache.stats().await.policy_status.unwrap()
}

#[tokio::test]
async fn what_was_fitted_anew_decides_after_a_restart_and_what_was_refused_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let space = crate::cache(&clock(), &Config::default()).build().await;
    let space = space.unwrap().fingerprint().unwrap().to_owned();
    let made = decisions(&space, 6_000, 0.0);
    let settings = FitSettings {
        models: Models::Curve,
        ..FitSettings::default()
    };
    let (base, _) = fit(&Parts::split(&made, 0.4, 0.3, 1), &settings).unwrap();
    fs::write(file("base.json"), base.to_json().unwrap()).unwrap();
    let mut config = Config::default();
    config.semantic.policy = PolicyConfig::Calibrated(CalibratedSettings {
        path: Some(file("base.json")),
        wrong_per_request: None,
        wrong_per_hit: Some(0.05),
        ..CalibratedSettings::default()
    });
    let learning = &mut config.semantic.learning;
    learning.recalibrated_path = Some(file("anew.json"));
    learning.log = Some(DecisionLogConfig {
        path: file("log.jsonl"),
        max_bytes: ByteSize::mib(64),
        keep: 1,
    });

    write_log(&file("log.jsonl"), &decisions(&space, 4_000, 0.0));
    let first = start(&config).await;
    let before = status(&first).await;
    assert_eq!(
        (before.origin, &before.last),
        (PolicyOrigin::Configured, &None)
    );
    let outcome = first.recalibrate().await.unwrap();
    assert_eq!(outcome, Recalibration::Replaced { decisions: 4_000 });
    let after = status(&first).await;
    assert_eq!(after.origin, PolicyOrigin::Recalibrated);
    assert_ne!(after.digest, before.digest);
    assert_eq!(after.last.as_ref().unwrap().digest, after.digest);
    drop(first);

    // Later labels do not carry the promise: what was fitted before stays, here and on disk.
    let second = start(&config).await;
    let picked_up = status(&second).await;
    assert_eq!(picked_up.origin, PolicyOrigin::Recalibrated);
    assert_eq!(picked_up.digest, after.digest);
    assert_eq!(picked_up.last, after.last);
    write_log(&file("log.jsonl"), &decisions(&space, 4_000, 0.3));
    let outcome = second.recalibrate().await.unwrap();
    assert!(
        matches!(outcome, Recalibration::Refused { .. }),
        "{outcome:?}"
    );
    let refused = status(&second).await;
    assert_eq!(refused.digest, after.digest);
    assert_eq!(refused.last.unwrap().outcome, outcome);
    let kept = PolicyFile::read(&file("anew.json")).unwrap();
    assert_eq!(Some(kept.digest), after.digest);
    let report = fs::read_to_string(file("anew.json.report.json")).unwrap();
    assert!(
        report.contains("\"refused\"") && report.contains("reason"),
        "{report}"
    );
    drop(second);

    // Another policy is configured: what was made from the old one is out of date.
    let other = decisions(&space, 7_000, 0.0);
    let (other, _) = fit(&Parts::split(&other, 0.4, 0.3, 1), &settings).unwrap();
    fs::write(file("base.json"), other.to_json().unwrap()).unwrap();
    assert_eq!(
        status(&start(&config).await).await.origin,
        PolicyOrigin::Configured
    );
}
