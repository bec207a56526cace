//! What is learnt, kept and shared, without a cache around it.

use std::sync::Arc;

use super::*;
use crate::backend::{MemoryBackend, MemoryConfig};
use crate::clock::{ClockHandle, ManualClock};
use crate::policy::{CostAware, PolicyHandle, WrongAnswerCost};

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000 + millis)
}

fn policy() -> PolicyHandle {
    Arc::new(CostAware::new(WrongAnswerCost::default()))
}

fn learning(config: &LearningConfig, file: Option<PathBuf>) -> Learning {
    Learning::new(config, file, None, true).unwrap()
}

fn candidate(entry: u64, similarity: f32) -> CandidateRecord {
    CandidateRecord {
        entry: EntryId::new(entry),
        evidence: Evidence::similarity(similarity),
        right: None,
    }
}

fn teach(learning: &Learning, entry: u64, right: bool, drawn: Option<Drawn>) {
    let label = Label {
        decision: 1,
        category: Some("faq"),
        candidate: &candidate(entry, 0.9),
        right,
        source: if drawn.is_some() {
            LabelSource::Audit
        } else {
            LabelSource::Miss
        },
        drawn,
    };
    learning.learn(&label, &*policy(), at(0));
}

fn shift(learning: &Learning, entry: u64) -> f32 {
    learning.standing(EntryId::new(entry), at(0)).record.shift
}

#[test]
fn a_label_moves_the_record_of_its_entry_and_of_no_other() {
    let learning = learning(&LearningConfig::default(), None);
    assert_eq!(
        learning.standing(EntryId::new(1), at(0)).record,
        EntryRecord::default()
    );
    teach(&learning, 1, false, None);
    assert!(shift(&learning, 1) < -0.1);
    assert_eq!(shift(&learning, 2), 0.0);
    learning.forget(EntryId::new(1));
    assert_eq!(shift(&learning, 1), 0.0);
}

#[test]
fn uniform_audits_trip_the_breaker_of_their_category_alone_and_a_reset_closes_it() {
    let learning = learning(&LearningConfig::default(), None);
    let drawn = |uniform| {
        Some(Drawn {
            probability: 0.02,
            uniform,
        })
    };
    for _ in 0..50 {
        teach(&learning, 1, false, drawn(false));
    }
    assert!(
        learning.serves(Category::named("faq")),
        "doubtful hits are no fair sample"
    );
    for _ in 0..10 {
        teach(&learning, 1, false, drawn(true));
    }
    assert!(!learning.serves(Category::named("faq")));
    assert!(learning.serves(Category::default()));
    let stats = &learning.stats().categories["faq"];
    assert!(stats.tripped && stats.breaker_wealth >= 20.0);
    assert_eq!(stats.labels["audit"], [0, 60]);
    assert_eq!(stats.false_hits.unwrap().rate, 1.0);
    learning.reset(Some("faq"));
    assert!(learning.serves(Category::named("faq")));
}

#[test]
fn only_a_promising_candidate_of_a_miss_is_compared() {
    let learning = learning(&LearningConfig::default(), None);
    let decision = |similarities: &[f32]| DecisionRecord {
        candidates: (1..)
            .zip(similarities)
            .map(|(id, s)| candidate(id, *s))
            .collect(),
        ..DecisionRecord::default()
    };
    let found = |decision: &DecisionRecord| {
        let promising = learning.promising(decision, &*policy());
        promising.map(|candidate| candidate.entry.get())
    };
    assert_eq!(found(&decision(&[])), None);
    assert_eq!(found(&decision(&[0.1])), None);
    assert_eq!(found(&decision(&[0.93, 0.9])), Some(1));
    assert_eq!(found(&decision(&[0.9, 0.93])), Some(2));
}

#[test]
fn what_was_learnt_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("deep/index.learning");
    let first = learning(&LearningConfig::default(), Some(file.clone()));
    teach(&first, 1, false, None);
    let query = [7; 32];
    assert!(!first.accuse(EntryId::new(2), query, Accuser::Caller(Some("ann")), at(0)));
    assert!(first.accuse(EntryId::new(2), query, Accuser::Audit, at(0)));
    first.charge(Purse::Judge, 1, 0.5, at(0));
    assert!(first.save().unwrap());

    let second = learning(&LearningConfig::default(), Some(file.clone()));
    assert_eq!(shift(&second, 1), shift(&first, 1));
    assert!(second.quarantined(EntryId::new(2)));
    assert_eq!(second.wrong_pairs(), [(EntryId::new(2), vec![query])]);
    assert_eq!(second.stats(), first.stats());

    fs::write(&file, b"ASKLEARN and then nonsense").unwrap();
    let third = learning(&LearningConfig::default(), Some(file));
    assert_eq!(shift(&third, 1), 0.0);
    assert_eq!(third.stats().entries, 0);
}

#[tokio::test]
async fn processes_that_share_a_tier_come_to_know_the_same() {
    let clock: ClockHandle = ManualClock::starting_at(at(0));
    let tier = MemoryBackend::builder(MemoryConfig::default())
        .clock(clock)
        .build()
        .unwrap();
    let [one, other] = [(); 2].map(|()| learning(&LearningConfig::default(), None));
    teach(&one, 1, false, None);
    teach(&other, 1, false, None);
    teach(&other, 3, true, None);
    let query = [7; 32];
    let accuse = |learning: &Learning, who| {
        learning.accuse(EntryId::new(2), query, Accuser::Caller(Some(who)), at(0))
    };
    assert!(!accuse(&one, "ann"));
    assert!(!accuse(&other, "bob"));
    let alone = shift(&one, 1);

    one.exchange(&tier, at(0)).await.unwrap();
    let news = other.exchange(&tier, at(0)).await.unwrap();
    assert_eq!(news.quarantined, [EntryId::new(2)]);
    let news = one.exchange(&tier, at(0)).await.unwrap();
    assert_eq!(news.quarantined, [EntryId::new(2)]);
    assert!(one.quarantined(EntryId::new(2)) && other.quarantined(EntryId::new(2)));
    for entry in [1, 3] {
        assert_eq!(shift(&one, entry), shift(&other, entry));
    }
    assert!(shift(&one, 1) < alone, "both labels count");
    let both = one.stats().categories["faq"].labels["miss"];
    assert_eq!(both, [1, 2]);

    // Nothing is counted twice, however often it is exchanged.
    for _ in 0..3 {
        assert_eq!(one.exchange(&tier, at(0)).await.unwrap(), News::default());
        assert_eq!(other.exchange(&tier, at(0)).await.unwrap(), News::default());
    }
    assert_eq!(one.stats().categories["faq"].labels["miss"], both);
    // Who comes later begins with it.
    let late = learning(&LearningConfig::default(), None);
    late.exchange(&tier, at(0)).await.unwrap();
    assert_eq!(shift(&late, 1), shift(&one, 1));
}

#[tokio::test]
async fn shared_bytes_that_cannot_be_read_are_left_alone() {
    let clock: ClockHandle = ManualClock::starting_at(at(0));
    let tier = MemoryBackend::builder(MemoryConfig::default())
        .clock(clock)
        .build()
        .unwrap();
    let bytes = Bytes::from_static(b"from the future");
    CacheBackend::set(&tier, SHARED_KEY, bytes.clone(), None)
        .await
        .unwrap();
    let one = learning(&LearningConfig::default(), None);
    teach(&one, 1, false, None);
    let error = one.exchange(&tier, at(0)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let lies = CacheBackend::get(&tier, SHARED_KEY).await.unwrap().unwrap();
    assert_eq!(lies.bytes, bytes);
    assert!(shift(&one, 1) < 0.0);
}

#[test]
fn one_principal_is_heard_so_often_and_no_more() {
    let mut config = LearningConfig::default();
    config.feedback.per_principal = 2;
    let learning = learning(&config, None);
    assert!(learning.admits(Some("ann"), at(0)) && learning.admits(Some("ann"), at(1)));
    assert!(!learning.admits(Some("ann"), at(2)));
    assert!(learning.admits(Some("bob"), at(2)) && learning.admits(None, at(2)));
    assert!(learning.admits(Some("ann"), at(3_600_001)));
    assert_eq!(learning.stats().refused, 1);
}

/// Decisions on one candidate each, whose answer is right the likelier the more similar it is; `drift` is the
/// share of right ones that have gone wrong.
fn logged(seed: u64, count: u64, drift: f64) -> Vec<DecisionRecord> {
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};
    let mut random = StdRng::seed_from_u64(seed);
    (0..count)
        .map(|at| {
            let similarity: f64 = random.random();
            let right = similarity > 0.6 && random.random::<f64>() >= drift;
            DecisionRecord {
                at,
                group: at,
                spaces: vec!["first".to_owned()],
                candidates: vec![CandidateRecord {
                    right: Some(right),
                    ..candidate(at, similarity as f32)
                }],
                ..DecisionRecord::default()
            }
        })
        .collect()
}

#[test]
fn a_policy_is_fitted_anew_where_the_log_carries_its_promises_and_not_where_it_does_not() {
    use crate::calibrate::{FitSettings, Models, Parts, fit};
    use crate::config::DecisionLogConfig;
    use crate::policy::CalibratedSettings;

    let folder = tempfile::tempdir().unwrap();
    let made = logged(1, 6_000, 0.0);
    let settings = FitSettings {
        models: Models::Curve,
        ..FitSettings::default()
    };
    let (policy, _) = fit(&Parts::split(&made, 0.4, 0.3, 1), &settings).unwrap();
    let path = folder.path().join("policy.json");
    fs::write(&path, policy.to_json().unwrap()).unwrap();
    let settings = CalibratedSettings {
        path: Some(path),
        wrong_per_request: None,
        wrong_per_hit: Some(0.05),
        ..CalibratedSettings::default()
    };

    let refitted = |name: &str, count, drift| {
        let config = DecisionLogConfig {
            path: folder.path().join(name),
            max_bytes: bytesize::ByteSize::mib(64),
            keep: 1,
        };
        let log = DecisionLog::open(&config).unwrap();
        for (id, mut decision) in (0..).zip(logged(2, count, drift)) {
            let labelled = decision.candidates[0];
            decision.candidates[0].right = None;
            log.decision(id, &decision);
            let label = LoggedLabel {
                entry: labelled.entry,
                right: labelled.right.unwrap(),
                source: LabelSource::Miss,
                weight: 1.0,
                at: 0,
            };
            log.label(id, label);
            if id % 256 == 0 {
                log.flush().unwrap();
            }
        }
        drop(log);
        refit(&config.path, &settings, at(0)).unwrap()
    };
    let kept = refitted("good", 4_000, 0.0);
    assert_eq!(kept.decisions, 4_000);
    let policy = kept.policy.unwrap();
    assert_eq!(policy.calibrated_for(), ["first"]);
    let served = |similarity| {
        let decision = policy.decide(&Evidence::similarity(similarity));
        matches!(decision, Decision::Serve { .. })
    };
    assert!(served(0.95) && !served(0.3));

    // Three in ten of the best are wrong: no cut-off keeps 5 %.
    let refused = refitted("bad", 4_000, 0.3);
    assert!(refused.policy.is_err());
    let few = refitted("few", 60, 0.0);
    assert!(few.policy.is_err());
    assert_eq!(few.decisions, 60);
}
