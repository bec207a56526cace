//! The whole way on made-up decisions whose truth is known.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::platt::sigmoid;
use super::*;
use crate::decision::{CandidateRecord, DecisionRecord};
use crate::entry::EntryId;
use crate::policy::{
    Bound, Calibrated, CalibratedSettings, Cutoff, Decision, Evidence, GreyBand, GuardState,
    HitPolicy, PolicyFile, WrongAnswerCost,
};

/// Requests with three candidates. The similarity tells a little of the truth, the second cosine more.
fn records(seed: u64, count: u64, second: bool) -> Vec<DecisionRecord> {
    let mut random = StdRng::seed_from_u64(seed);
    (0..count)
        .map(|at| {
            let mut candidates: Vec<_> = (0..3)
                .map(|_| {
                    let truth: f64 = random.random();
                    let right = random.random::<f64>() < sigmoid(20.0 * (truth - 0.7));
                    let noise = |random: &mut StdRng, share: f64| {
                        (truth * (1.0 - share) + share * random.random::<f64>()) as f32
                    };
                    CandidateRecord {
                        entry: EntryId::new(random.random_range(0..2_000)),
                        evidence: Evidence {
                            refined: second.then(|| noise(&mut random, 0.1)),
                            can_refine: second,
                            rows: 2_000,
                            ..Evidence::similarity(noise(&mut random, 0.4))
                        },
                        right: Some(right),
                    }
                })
                .collect();
            candidates.sort_by(|a, b| b.evidence.similarity.total_cmp(&a.evidence.similarity));
            DecisionRecord {
                at,
                group: at,
                set: Some("made up".to_owned()),
                category: (at % 3 == 0).then(|| "third".to_owned()),
                spaces: if second {
                    vec!["first".to_owned(), "second".to_owned()]
                } else {
                    vec!["first".to_owned()]
                },
                candidates,
                ..DecisionRecord::default()
            }
        })
        .collect()
}

fn settings() -> FitSettings {
    FitSettings {
        models: Models::Curve,
        created: "2026-01-01T00:00:00Z".to_owned(),
        ..FitSettings::default()
    }
}

fn fitted(records: &[DecisionRecord], settings: &FitSettings) -> (PolicyFile, FitReport) {
    fit(&Parts::split(records, 0.3, 0.35, 1), settings).unwrap()
}

/// What the policy does with the records, deciding as the engine does: hits and wrong ones.
fn played(policy: &Calibrated, records: &[DecisionRecord]) -> (f64, f64) {
    let (mut hits, mut wrong) = (0.0, 0.0);
    for record in records {
        let served = record
            .candidates
            .iter()
            .filter_map(|candidate| {
                let asked = Evidence {
                    refined: None,
                    ..candidate.evidence
                };
                let decision = match policy.decide(&asked) {
                    Decision::Refine { .. } => policy.decide(&candidate.evidence),
                    decision => decision,
                };
                match decision {
                    Decision::Serve { utility, .. } => Some((utility, candidate.right)),
                    _ => None,
                }
            })
            .max_by(|a, b| a.0.total_cmp(&b.0));
        if let Some((_, right)) = served {
            hits += 1.0;
            wrong += f64::from(u8::from(right != Some(true)));
        }
    }
    (hits, wrong)
}

fn budget(wrong_per_request: Option<f64>, wrong_per_hit: Option<f64>) -> CalibratedSettings {
    CalibratedSettings {
        wrong_per_request,
        wrong_per_hit,
        wrong_answer_cost: WrongAnswerCost::TimesSaving(0.0),
        floor: 0.0,
        ..CalibratedSettings::default()
    }
}

#[test]
fn what_is_promised_is_kept_on_decisions_that_nobody_saw() {
    // Each promise may be broken by one calibration in twenty: of sixty, eight is four standard deviations.
    let mut broken = 0;
    let mut cases = 0;
    for seed in 0..15 {
        let second = seed % 2 == 0;
        let (file, _) = fitted(&records(seed, 9_000, second), &settings());
        let fresh = records(1_000 + seed, 20_000, second);
        for (per_request, per_hit) in [
            (Some(0.01), None),
            (Some(0.05), None),
            (None, Some(0.1)),
            (Some(0.02), Some(0.1)),
        ] {
            let Ok(policy) = Calibrated::new(file.clone(), &budget(per_request, per_hit)) else {
                continue;
            };
            cases += 1;
            let (hits, wrong) = played(&policy, &fresh);
            let requests = fresh.len() as f64;
            let over_requests = per_request.is_some_and(|rate| wrong / requests > rate);
            let over_hits = per_hit.is_some_and(|rate| hits > 0.0 && wrong / hits > rate);
            broken += u32::from(over_requests || over_hits);
        }
    }
    assert!(cases >= 40, "{cases}");
    assert!(broken <= 8, "{broken} of {cases}");
}

#[test]
fn the_second_cosine_earns_hits_at_the_same_promise() {
    let all = records(3, 12_000, true);
    let (file, report) = fitted(&all, &settings());
    let policy = Calibrated::new(file, &budget(Some(0.02), None)).unwrap();
    let fresh = records(77, 10_000, true);
    let (with, _) = played(&policy, &fresh);
    let without: Vec<_> = fresh
        .iter()
        .cloned()
        .map(|mut record| {
            for candidate in &mut record.candidates {
                candidate.evidence.refined = None;
                candidate.evidence.can_refine = false;
            }
            record
        })
        .collect();
    let (fast, _) = played(&policy, &without);
    assert!(with > 1.2 * fast, "{with} against {fast}");
    assert!(
        report.refined > 0.0 && report.refined < 1.0,
        "{}",
        report.refined
    );
}

#[test]
fn what_is_served_at_once_would_be_served_at_the_tightest_promise() {
    let settings = settings();
    let tightest = settings.per_request.iter().copied().fold(1.0, f64::min);
    let (file, _) = fitted(&records(5, 12_000, true), &settings);
    let always_asked = PolicyFile {
        band: file.band.map(|band| GreyBand {
            low: band.low,
            high: 1.0,
        }),
        ..file.clone()
    };
    let least = budget(Some(tightest), None);
    let as_it_is = Calibrated::new(file, &least).unwrap();
    let always_asked = Calibrated::new(always_asked, &least).unwrap();
    let (mut at_once, mut stopped) = (0, 0);
    for candidate in records(78, 10_000, true).iter().flat_map(|r| &r.candidates) {
        let asked = Evidence {
            refined: None,
            ..candidate.evidence
        };
        if matches!(as_it_is.decide(&asked), Decision::Serve { .. }) {
            at_once += 1;
            let full = always_asked.decide(&candidate.evidence);
            stopped += usize::from(!matches!(full, Decision::Serve { .. }));
        }
    }
    assert!(at_once >= 20, "{at_once}");
    assert!(20 * stopped <= at_once, "{stopped} of {at_once}");
}

#[test]
fn the_same_records_give_the_same_bytes() {
    let all = records(5, 4_000, true);
    let settings = FitSettings {
        models: Models::Forest(askonce_models::trees::ForestSettings {
            trees: 20,
            ..Default::default()
        }),
        ..settings()
    };
    let bytes = || fitted(&all, &settings).0.to_json().unwrap();
    let first = bytes();
    assert!(first == bytes());
    let file = PolicyFile::parse(&first).unwrap();
    assert_eq!(file.stages.fast.model.as_str(), "forest");
}

#[test]
fn models_can_be_kept_and_only_calibrated_anew() {
    let (file, _) = fitted(&records(5, 6_000, false), &settings());
    let settings = FitSettings {
        models: Models::Keep(Box::new(file.clone())),
        ..settings()
    };
    let other = records(6, 6_000, false);
    let (kept, report) = fit(&Parts::split(&other, 0.0, 0.5, 1), &settings).unwrap();
    assert_eq!(kept.stages.fast.model, file.stages.fast.model);
    assert_ne!(kept.stages.fast.calibration, file.stages.fast.calibration);
    assert_eq!(report.rows, [0, 0]);
}

#[test]
fn models_of_another_embedding_are_not_kept() {
    let (file, _) = fitted(&records(5, 6_000, false), &settings());
    let settings = FitSettings {
        models: Models::Keep(Box::new(file)),
        ..settings()
    };
    let other = records(6, 6_000, true);
    let error = fit(&Parts::split(&other, 0.0, 0.5, 1), &settings).unwrap_err();
    assert!(matches!(error, CalibrateError::OtherEmbedding { .. }));
}

#[test]
fn too_few_labels_certify_nothing_and_say_what_is_missing() {
    let (file, report) = fitted(&records(5, 900, false), &settings());
    let promise = report
        .promises
        .iter()
        .find(|p| p.bound == Bound::PerRequest && p.rate == 0.005 && p.confidence > 0.0)
        .unwrap();
    assert!(promise.cutoff.is_none());
    let missing = promise.shortage.unwrap().missing.unwrap();
    // 598 flawless decisions are needed, and there are about 315.
    assert!((200..400).contains(&missing), "{missing}");
    assert!(Calibrated::new(file, &budget(Some(0.005), None)).is_err());
    let error = fit(
        &Parts::split(&records(5, 60, false), 0.3, 0.35, 1),
        &settings(),
    )
    .unwrap_err();
    assert!(matches!(error, CalibrateError::NoLabels { .. }));
}

#[test]
fn records_of_different_embeddings_are_not_mixed() {
    let mut all = records(5, 3_000, false);
    all.extend(records(6, 3_000, true));
    let error = fit(&Parts::split(&all, 0.3, 0.35, 1), &settings()).unwrap_err();
    assert!(matches!(error, CalibrateError::MixedEmbeddings { .. }));
}

#[test]
fn a_candidate_that_nobody_labelled_counts_as_wrong() {
    let all = records(5, 6_000, false);
    let certified = |records: &[DecisionRecord]| {
        let parts = Parts {
            certification: records.iter().collect(),
            ..Parts::split(&all, 0.5, 0.5, 1)
        };
        let (_, report) = fit(&parts, &settings()).unwrap();
        report
            .promises
            .iter()
            .any(|p| p.bound == Bound::PerHit && p.cutoff.is_some())
    };
    let mut fresh = records(55, 4_000, false);
    assert!(certified(&fresh));
    for record in &mut fresh {
        // Only the least similar is labelled.
        for candidate in &mut record.candidates[..2] {
            candidate.right = None;
        }
    }
    assert!(!certified(&fresh));
}

#[test]
fn reliability_and_the_curve_are_those_of_the_decisions() {
    let (_, report) = fitted(&records(9, 9_000, true), &settings());
    for bin in report.reliability.iter().filter(|bin| bin.count > 100) {
        assert!((bin.said - bin.right).abs() < 0.1, "{bin:?}");
        assert!(bin.low <= bin.right && bin.right <= bin.high);
    }
    assert!(
        report
            .curve
            .windows(2)
            .all(|p| p[0].hit_rate < p[1].hit_rate)
    );
    assert!(report.curve.first().unwrap().precision > report.curve.last().unwrap().precision);
    assert!(report.area > 0.2 && report.area < 1.0);
    assert_eq!(report.categories.len(), 2);
}

#[test]
fn what_a_conflict_leaves_is_what_labels_showed_of_it() {
    let with = |right: fn(bool) -> bool| {
        let mut records = records(8, 6_000, false);
        for (i, candidate) in records
            .iter_mut()
            .flat_map(|record| &mut record.candidates)
            .enumerate()
        {
            if i % 4 == 0 {
                candidate.evidence.guards.number = GuardState::Conflict;
                candidate.right = candidate.right.map(right);
            }
        }
        let (file, report) = fitted(&records, &settings());
        let shown = report.guards.iter().find(|row| row.guard == "number");
        assert_eq!(shown.unwrap().most, Some(file.guards["number"]));
        file.guards
    };
    let harmless = with(|right| right);
    assert!(harmless["number"].most > 0.8, "{harmless:?}");
    assert!(harmless["number"].right <= harmless["number"].of);
    // A guard of which no label speaks is taken for one like the others.
    assert_eq!(harmless["negation"].of, 0);
    assert_eq!(harmless["negation"].most, harmless["number"].most);
    let deadly = with(|_| false);
    assert!(deadly["number"].most < 0.1, "{deadly:?}");
}

#[test]
fn what_guards_stop_is_not_spent_on_other_matches() {
    let with = |state: GuardState| {
        let mut records = records(9, 6_000, false);
        let candidates = records.iter_mut().flat_map(|record| &mut record.candidates);
        for (i, candidate) in candidates.step_by(4).enumerate() {
            candidate.evidence.guards.number = state;
            // Worse than others, and not bad enough to be a veto.
            if i % 5 == 0 {
                candidate.right = Some(false);
            }
        }
        let (file, _) = fitted(&records, &settings());
        assert!(file.vetoes.is_empty());
        file.cutoffs.fast
    };
    let (guarded, free) = (with(GuardState::Conflict), with(GuardState::Agree));
    let per_request = |cutoffs: &[Cutoff]| -> Vec<(f64, f64, f64)> {
        let of = cutoffs.iter().filter(|c| c.bound == Bound::PerRequest);
        of.map(|c| (c.rate, c.confidence, c.probability)).collect()
    };
    let (guarded, free) = (per_request(&guarded), per_request(&free));
    assert!(!free.is_empty());
    for (rate, confidence, least) in free {
        let kept = guarded.iter().find(|c| (c.0, c.1) == (rate, confidence));
        let kept = kept.expect("certified with guards too");
        assert!(kept.2 >= least, "{rate} at {confidence}: {kept:?} {least}");
    }
}
