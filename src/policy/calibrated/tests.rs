use proptest::prelude::*;

use std::collections::BTreeMap;

use super::*;
use crate::policy::{Category, EntryRecord, GuardKind, GuardReport, GuardState, TextTraits};

fn curve(feature: &str) -> Stage {
    Stage {
        model: StageModel::Curve {
            feature: feature.to_owned(),
            intercept: -20.0,
            slope: 25.0,
        },
        calibration: CalibrationMap::Logistic {
            slope: 1.0,
            intercept: 0.0,
        },
        share: 1.0,
    }
}

fn cutoff(bound: Bound, rate: f64, confidence: f64, probability: f64) -> Cutoff {
    Cutoff {
        bound,
        rate,
        confidence,
        probability,
        wrong: 3,
        served: 400,
        requests: 1000,
    }
}

/// A policy over the similarity, and the second cosine if asked for.
fn file(full: bool) -> PolicyFile {
    let cutoffs = vec![
        cutoff(Bound::PerRequest, 0.01, 0.95, 0.9),
        cutoff(Bound::PerRequest, 0.05, 0.95, 0.7),
        cutoff(Bound::PerHit, 0.02, 0.95, 0.95),
    ];
    PolicyFile {
        format: FORMAT,
        created: "2026-01-01T00:00:00Z".to_owned(),
        spaces: vec!["first".to_owned(), "second".to_owned()],
        features: vec!["similarity".to_owned(), "refined".to_owned()],
        stages: Stages {
            fast: curve("similarity"),
            full: full.then(|| curve("refined")),
        },
        same_wording: None,
        prior_variance: 1.0,
        band: full.then_some(GreyBand {
            low: 0.3,
            high: 0.97,
        }),
        least_similarity: 0.2,
        reach: Vec::new(),
        guards: BTreeMap::new(),
        vetoes: vec!["negation".to_owned()],
        cutoffs: Cutoffs {
            cascade: if full { cutoffs.clone() } else { Vec::new() },
            fast: cutoffs,
        },
        categories: [(
            "code".to_owned(),
            CategoryFit {
                offset: -1.0,
                cutoffs: Cutoffs::default(),
            },
        )]
        .into(),
        card: Card::default(),
        digest: String::new(),
    }
}

fn free() -> CalibratedSettings {
    CalibratedSettings {
        wrong_answer_cost: WrongAnswerCost::TimesSaving(0.0),
        floor: 0.0,
        guards: false,
        ..CalibratedSettings::default()
    }
}

fn policy(full: bool) -> Calibrated {
    Calibrated::new(file(full), &free()).unwrap()
}

/// The cosine with which a curve of [`file`] gives `p`.
fn cosine(p: f64) -> f32 {
    ((map::log_odds(p) + 20.0) / 25.0) as f32
}

fn serves(policy: &Calibrated, evidence: &Evidence) -> bool {
    matches!(policy.decide(evidence), Decision::Serve { .. })
}

fn probability(decision: Decision) -> f64 {
    match decision {
        Decision::Serve { probability, .. }
        | Decision::Refine { probability }
        | Decision::Pass { probability, .. } => probability.unwrap(),
    }
}

#[test]
fn a_file_survives_being_written_and_read() {
    let file = file(true);
    let bytes = file.to_json().unwrap();
    let read = PolicyFile::parse(&bytes).unwrap();
    assert_eq!(
        PolicyFile {
            digest: String::new(),
            ..read.clone()
        },
        file
    );
    assert_eq!(read.to_json().unwrap(), bytes);
}

#[test]
fn a_changed_file_is_refused() {
    let json = String::from_utf8(file(true).to_json().unwrap()).unwrap();
    let changed = json.replace("\"probability\":0.9,", "\"probability\":0.5,");
    assert_ne!(json, changed);
    let error = PolicyFile::parse(changed.as_bytes()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("changed or damaged"));
}

#[test]
fn a_file_of_another_format_or_with_unknown_features_is_refused() {
    let sealed = |file: PolicyFile| {
        let mut value = serde_json::to_value(&file).unwrap();
        value["digest"] = String::new().into();
        serde_json::to_vec(&value).unwrap()
    };
    let other = PolicyFile {
        format: 2,
        ..file(true)
    };
    let error = PolicyFile::parse(&sealed(other)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let other = PolicyFile {
        features: vec!["similarity".to_owned(), "mood".to_owned()],
        ..file(false)
    };
    let error = other.to_json().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("mood"));
    assert!(PolicyFile::parse(b"{}").is_err());
}

#[test]
fn a_promise_that_was_not_certified_is_refused_with_what_is() {
    let settings = CalibratedSettings {
        wrong_per_request: Some(0.001),
        ..free()
    };
    let error = Calibrated::new(file(false), &settings).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(
        error.to_string().contains("wrong_per_request 0.01"),
        "{error}"
    );
    let surer = CalibratedSettings {
        confidence: 0.99,
        ..free()
    };
    assert!(Calibrated::new(file(false), &surer).is_err());
}

#[test]
fn the_stricter_of_two_promises_decides() {
    let evidence = Evidence::similarity(cosine(0.92));
    assert!(serves(&policy(false), &evidence));
    let both = CalibratedSettings {
        wrong_per_hit: Some(0.03),
        ..free()
    };
    let both = Calibrated::new(file(false), &both).unwrap();
    assert!(!serves(&both, &evidence));
    assert!(serves(&both, &Evidence::similarity(cosine(0.96))));
}

#[test]
fn a_promise_between_two_certified_ones_takes_the_stricter() {
    let settings = CalibratedSettings {
        wrong_per_request: Some(0.03),
        ..free()
    };
    let policy = Calibrated::new(file(false), &settings).unwrap();
    assert!(!serves(&policy, &Evidence::similarity(cosine(0.85))));
}

#[test]
fn the_second_cosine_is_asked_for_in_the_grey_band_only() {
    let policy = policy(true);
    let at = |p| Evidence {
        can_refine: true,
        ..Evidence::similarity(cosine(p))
    };
    assert!(matches!(policy.decide(&at(0.5)), Decision::Refine { .. }));
    assert!(matches!(policy.decide(&at(0.95)), Decision::Refine { .. }));
    assert!(serves(&policy, &at(0.98)));
    assert!(matches!(
        policy.decide(&at(0.1)),
        Decision::Pass {
            reason: PassReason::BelowCutoff,
            ..
        }
    ));
    let refined = |p| Evidence {
        refined: Some(cosine(p)),
        ..at(0.5)
    };
    assert!(serves(&policy, &refined(0.95)));
    assert!(!serves(&policy, &refined(0.85)));
}

#[test]
fn without_the_second_cosine_the_fast_stages_own_cut_off_decides() {
    let policy = policy(true);
    assert!(serves(&policy, &Evidence::similarity(cosine(0.92))));
    let none = PolicyFile {
        cutoffs: Cutoffs {
            fast: Vec::new(),
            ..file(true).cutoffs
        },
        ..file(true)
    };
    let policy = Calibrated::new(none, &free()).unwrap();
    assert!(!serves(&policy, &Evidence::similarity(1.0)));
}

#[test]
fn an_entry_nothing_is_known_of_has_the_calibrated_probability() {
    for p in [0.3, 0.7, 0.93] {
        let said = probability(policy(false).decide(&Evidence::similarity(cosine(p))));
        assert!((said - p).abs() < 2e-3, "{p}: {said}");
    }
}

#[test]
fn what_was_learnt_of_an_entry_moves_its_probability() {
    let with = |shift, precision| {
        probability(policy(false).decide(&Evidence {
            record: EntryRecord { shift, precision },
            ..Evidence::similarity(cosine(0.8))
        }))
    };
    assert!(with(-1.5, 3.0) < 0.55);
    assert!(with(1.5, 3.0) > 0.93);
}

#[test]
fn a_category_shifts_the_log_odds() {
    let said = probability(policy(false).decide(&Evidence {
        category: Category::named("code"),
        ..Evidence::similarity(cosine(0.8))
    }));
    assert!(
        (map::log_odds(0.8) - map::log_odds(said) - 1.0).abs() < 0.05,
        "{said}"
    );
}

#[test]
fn caution_and_cost_withhold_what_is_too_uncertain() {
    let evidence = Evidence::similarity(cosine(0.93));
    assert!(serves(&policy(false), &evidence));
    let cautious = CalibratedSettings {
        caution: 1.0,
        floor: 0.9,
        ..free()
    };
    let decision = Calibrated::new(file(false), &cautious)
        .unwrap()
        .decide(&evidence);
    assert!(matches!(
        decision,
        Decision::Pass {
            reason: PassReason::BelowFloor,
            ..
        }
    ));
    let dear = CalibratedSettings {
        wrong_answer_cost: WrongAnswerCost::TimesSaving(20.0),
        ..free()
    };
    let decision = Calibrated::new(file(false), &dear)
        .unwrap()
        .decide(&evidence);
    assert!(matches!(
        decision,
        Decision::Pass {
            reason: PassReason::NotWorthTheRisk,
            ..
        }
    ));
}

#[test]
fn only_a_proved_guard_is_a_veto() {
    let policy = policy(false);
    let with = |a, b| Evidence {
        guards: GuardReport::compare(a, b),
        ..Evidence::similarity(0.99)
    };
    let negated = with("eat meat", "do not eat meat");
    assert!(matches!(
        policy.decide(&negated),
        Decision::Pass {
            reason: PassReason::Guard(GuardKind::Negation),
            ..
        }
    ));
    let number = with("wait 3 days", "wait 5 days");
    assert!(number.guards.conflict().is_some());
    assert!(serves(&policy, &number));
}

#[test]
fn a_conflict_stops_a_match_at_a_tight_promise_and_leaves_it_at_a_loose_one() {
    let policy = |rate: f64| {
        let mut file = file(false);
        let shown = GuardFit {
            most: 0.8,
            right: 92,
            of: 109,
        };
        file.guards.insert("number".to_owned(), shown);
        let settings = CalibratedSettings {
            wrong_per_request: Some(rate),
            ..free()
        };
        Calibrated::new(file, &settings).unwrap()
    };
    let conflict = |p: f64| Evidence {
        guards: GuardReport::compare("wait 3 days", "wait 5 days"),
        ..Evidence::similarity(cosine(p))
    };
    // The cut-offs are 0.9 and 0.7.
    let (tight, loose) = (policy(0.01), policy(0.05));
    let Decision::Pass { reason, .. } = tight.decide(&conflict(0.99)) else {
        panic!("served");
    };
    assert_eq!(reason, PassReason::Doubted(GuardKind::Number));
    assert_eq!(reason.as_str(), "guard_number");
    assert!(serves(&tight, &Evidence::similarity(cosine(0.99))));
    assert!(serves(&loose, &conflict(0.99)));
    // What would be too improbable without it is not put down to the guard.
    let Decision::Pass { reason, .. } = tight.decide(&conflict(0.8)) else {
        panic!("served");
    };
    assert_eq!(reason, PassReason::BelowCutoff);
}

proptest! {
    #[test]
    fn what_a_conflict_leaves_keeps_its_order_and_stays_within_the_bound(
        most in 0.05..1.0_f64,
        p in 0.0..1.0_f64,
        more in 0.0..1.0_f64,
    ) {
        let mut file = file(false);
        let shown = GuardFit { most, right: 1, of: 2 };
        file.guards.insert("number".to_owned(), shown);
        let policy = Calibrated::new(file, &free()).unwrap();
        let left = |p: f64| {
            let evidence = Evidence {
                guards: GuardReport::compare("wait 3 days", "wait 5 days"),
                ..Evidence::similarity(cosine(p.clamp(0.01, 0.999)))
            };
            let known = probability(policy.decide(&evidence));
            prop_assert!(known <= most + 1e-12);
            let free = probability(policy.decide(&Evidence { guards: GuardReport::default(), ..evidence }));
            prop_assert!(known <= free + 1e-12);
            Ok(known)
        };
        prop_assert!(left(p)? <= left(p + more * (1.0 - p))? + 1e-12);
    }
}

#[test]
fn where_guards_are_kept_no_cosine_outweighs_a_conflict() {
    let settings = CalibratedSettings {
        guards: true,
        ..free()
    };
    let conflict = |similarity, refined| Evidence {
        guards: GuardReport::compare("wait 3 days", "wait 5 days"),
        can_refine: true,
        refined,
        ..Evidence::similarity(similarity)
    };
    let policy = Calibrated::new(file(true), &settings).unwrap();
    // Clear, in doubt, and after the second cosine: nothing is served, and none is asked for.
    for (similarity, refined) in [(0.99, None), (cosine(0.7), None), (0.99, Some(0.99))] {
        let decision = policy.decide(&conflict(similarity, refined));
        let reason = PassReason::Guard(GuardKind::Number);
        let probability = Some(probability(decision));
        assert_eq!(
            decision,
            Decision::Pass {
                reason,
                probability
            }
        );
    }
    let without = Calibrated::new(file(true), &free()).unwrap();
    assert!(serves(&without, &conflict(0.99, Some(0.99))));
}

/// A policy that knows what the same wording is worth, with evidence that its models find improbable.
fn worded(full: bool) -> (Calibrated, Evidence) {
    let file = PolicyFile {
        same_wording: Some(WordingFit {
            probability: 0.93,
            right: 940,
            of: 1_000,
        }),
        prior_variance: 0.0,
        ..file(full)
    };
    let evidence = Evidence {
        can_refine: full,
        same_wording: true,
        ..Evidence::similarity(cosine(0.5))
    };
    (Calibrated::new(file, &free()).unwrap(), evidence)
}

#[test]
fn the_same_wording_has_a_probability_of_its_own_and_needs_no_second_cosine() {
    for full in [false, true] {
        let (policy, evidence) = worded(full);
        let decision = policy.decide(&evidence);
        assert!(matches!(decision, Decision::Serve { .. }), "{decision:?}");
        assert!((probability(decision) - 0.93).abs() < 1e-6);
        let other = Evidence {
            same_wording: false,
            ..evidence
        };
        assert!(!serves(&policy, &other));
    }
    // A second cosine that is known does not lower it.
    let (policy, evidence) = worded(true);
    let refined = Evidence {
        refined: Some(cosine(0.4)),
        can_refine: false,
        ..evidence
    };
    assert!((probability(policy.decide(&refined)) - 0.93).abs() < 1e-6);
}

#[test]
fn the_same_wording_is_overruled_by_a_guard_and_by_what_was_learnt_of_the_entry() {
    let (policy, evidence) = worded(true);
    let mut conflict = evidence;
    conflict.guards.number = GuardState::Conflict;
    assert!(!serves(&policy, &conflict));
    let wrong_before = Evidence {
        record: EntryRecord {
            shift: -3.0,
            precision: 4.0,
        },
        ..evidence
    };
    assert!(!serves(&policy, &wrong_before));
    // Nothing below the least similarity, whatever the words.
    let far = Evidence {
        similarity: 0.1,
        ..evidence
    };
    assert!(!serves(&policy, &far));
}

#[test]
fn a_probability_of_the_same_wording_that_is_none_is_refused() {
    for probability in [0.0, 1.0, f64::NAN] {
        let file = PolicyFile {
            same_wording: Some(WordingFit {
                probability,
                right: 1,
                of: 1,
            }),
            ..file(false)
        };
        assert!(file.to_json().is_err(), "{probability}");
    }
}

#[test]
fn evidence_that_is_no_number_is_a_pass() {
    for full in [false, true] {
        let policy = policy(full);
        let nothing = Evidence::similarity(f32::NAN);
        assert!(matches!(policy.decide(&nothing), Decision::Pass { .. }));
        let half = Evidence {
            refined: Some(f32::NAN),
            ..Evidence::similarity(cosine(0.9))
        };
        assert!(!full || !serves(&policy, &half));
    }
}

#[test]
fn a_map_that_falls_is_refused() {
    let knot = |score, low, high| CalibrationKnot { score, low, high };
    for knots in [
        vec![],
        vec![knot(0.0, 0.5, 0.6), knot(1.0, 0.4, 0.7)],
        vec![knot(1.0, 0.1, 0.2), knot(0.0, 0.3, 0.4)],
        vec![knot(0.0, 0.1, 1.2)],
    ] {
        let mut file = file(false);
        file.stages.fast.calibration = CalibrationMap::Steps { knots };
        assert!(file.to_json().is_err());
    }
}

proptest! {
    #[test]
    fn raising_the_similarity_never_turns_a_serve_into_a_pass(
        low in -1.0_f32..=1.0, high in -1.0_f32..=1.0,
        refined in prop::option::of(0.5_f32..=1.0), can_refine: bool,
        shift in -3.0_f32..3.0, caution in 0.0_f64..2.0,
    ) {
        let (low, high) = if low <= high { (low, high) } else { (high, low) };
        let settings = CalibratedSettings { caution, floor: 0.4, ..free() };
        let policy = Calibrated::new(file(true), &settings).unwrap();
        // What the engine does of one candidate: asks once, and tells what came of it.
        let served = |similarity| {
            let evidence = Evidence {
                can_refine,
                record: EntryRecord { shift, precision: 0.5 },
                ..Evidence::similarity(similarity)
            };
            match policy.decide(&evidence) {
                Decision::Refine { .. } => serves(&policy, &Evidence { refined, can_refine: false, ..evidence }),
                decision => matches!(decision, Decision::Serve { .. }),
            }
        };
        // Without an answer the engine goes on as if there were no second embedding.
        prop_assume!(!can_refine || refined.is_some());
        prop_assert!(!served(low) || served(high));
    }

    #[test]
    fn nothing_below_the_least_similarity_is_served(similarity in -1.0_f32..=1.0) {
        let policy = policy(false);
        let evidence = Evidence::similarity(similarity);
        prop_assert!(!serves(&policy, &evidence) || similarity >= policy.least_similarity());
    }
}

/// What the engine would know of a pair of texts in a cache of a thousand others, without a second cosine.
fn evidence_of(query: &str, entry: &str) -> Evidence {
    let embedder = askonce_models::StaticEmbedder::builtin();
    let rows = embedder.embed_sync(&[query, entry]).unwrap();
    let (a, b) = rows.split_at(embedder.dimension());
    let similarity = a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    let compared = TextTraits::of(query).compare(&TextTraits::of(entry));
    Evidence {
        guards: compared.guards,
        text: compared.features,
        same_wording: compared.same_wording,
        rows: 1_000,
        ..Evidence::similarity(similarity)
    }
}

#[test]
fn the_built_in_policy_serves_rewordings_and_no_opposites() {
    let policy = Calibrated::from_settings(&CalibratedSettings::default()).unwrap();
    assert_eq!(
        policy.on_other_embedding(),
        crate::policy::OtherEmbedding::ServeNothing
    );
    for (query, entry) in [
        ("How do I enable dark mode?", "How do I disable dark mode?"),
        (
            "Is it safe to eat raw eggs?",
            "Is it not safe to eat raw eggs?",
        ),
        ("Convert 10 miles to km", "Convert 20 miles to km"),
        ("Is Python faster than Java?", "Is Java faster than Python?"),
        (
            "What is the capital of France?",
            "What is the capital of Germany?",
        ),
        ("How do I reset my password?", "How do I delete my account?"),
        ("What does rm -r do?", "What does rm -R do?"),
    ] {
        let decision = policy.decide(&evidence_of(query, entry));
        assert!(
            !matches!(decision, Decision::Serve { .. }),
            "{query} / {entry}: {decision:?}"
        );
    }
    let clear = evidence_of("How do I reset my password?", "how can I reset my password");
    let decision = policy.decide(&clear);
    assert!(matches!(decision, Decision::Serve { .. }), "{decision:?}");
    let dressed = evidence_of(
        "What is the capital of France?",
        "what's the capital of france",
    );
    // The models alone are in doubt; that the words are the same settles it.
    let models = Evidence {
        can_refine: true,
        same_wording: false,
        ..dressed
    };
    let decision = policy.decide(&models);
    assert!(matches!(decision, Decision::Refine { .. }), "{decision:?}");
    let decision = policy.decide(&Evidence {
        can_refine: true,
        ..dressed
    });
    assert!(matches!(decision, Decision::Serve { .. }), "{decision:?}");
}
