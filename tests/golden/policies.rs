//! The golden pairs, run by every built-in policy.
//!
//! Bounds rather than pairs by name: a better model may serve more of the same and fewer of the
//! different, and then the bounds are moved. The printed table says where each policy stands.

use std::sync::Arc;

use askonce::policy::{
    CostAware, Decision, Evidence, ExactOnly, GuardReport, HitPolicy, TextTraits, Threshold,
    WrongAnswerCost,
};
use askonce_models::StaticEmbedder;

use crate::data::{Label, Pair, pairs};

/// How many pairs of each label a policy serves.
#[derive(Debug, Default)]
struct Served {
    same: usize,
    different: usize,
}

fn evidence(embedder: &StaticEmbedder, pair: &Pair) -> Evidence {
    let vectors = embedder.embed_sync(&[&pair.a, &pair.b]);
    let similarity = vectors.map_or(0.0, |rows| {
        let (a, b) = rows.split_at(embedder.dimension());
        a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>()
    });
    Evidence {
        guards: GuardReport::compare(&pair.a, &pair.b),
        ..Evidence::similarity(similarity)
    }
}

fn served(policy: &dyn HitPolicy) -> Served {
    let embedder = StaticEmbedder::builtin();
    let mut served = Served::default();
    for pair in pairs() {
        if matches!(
            policy.decide(&evidence(&embedder, &pair)),
            Decision::Serve { .. }
        ) {
            match pair.label {
                Label::Same => served.same += 1,
                Label::Different => served.different += 1,
            }
        }
    }
    served
}

#[test]
fn every_policy_serves_few_different_pairs_and_some_same_ones() {
    let total = pairs().len();
    let different = pairs()
        .iter()
        .filter(|pair| pair.label == Label::Different)
        .count();
    let cost = |text: &str| text.parse::<WrongAnswerCost>().expect("a valid cost");
    // Name, policy, least same pairs served, most different pairs served.
    let policies: [(&str, Arc<dyn HitPolicy>, usize, usize); 6] = [
        (
            "cost_aware, 20x",
            Arc::new(CostAware::new(WrongAnswerCost::default())),
            9,
            3,
        ),
        (
            "cost_aware, 5x",
            Arc::new(CostAware::new(cost("5x"))),
            15,
            9,
        ),
        (
            "cost_aware, 100x",
            Arc::new(CostAware::new(cost("100x"))),
            1,
            1,
        ),
        (
            "threshold 0.95",
            Arc::new(Threshold::new(0.95).expect("in range")),
            9,
            3,
        ),
        (
            "threshold 0.85",
            Arc::new(Threshold::new(0.85).expect("in range")),
            40,
            20,
        ),
        ("exact_only", Arc::new(ExactOnly), 0, 0),
    ];
    println!(
        "golden pairs: {} same, {different} different",
        total - different
    );
    for (name, policy, least_same, most_different) in policies {
        let served = served(&*policy);
        println!(
            "{name:18} serves {:3} same, {:3} different",
            served.same, served.different
        );
        assert!(served.same >= least_same, "{name}: {served:?}");
        assert!(served.different <= most_different, "{name}: {served:?}");
    }
}

#[test]
fn guards_stop_most_of_the_different_pairs_that_embed_alike() {
    let with = served(&Threshold::new(0.9).expect("in range"));
    let without = served(&Threshold::new(0.9).expect("in range").guards(false));
    println!("at 0.9 with guards {with:?}, without {without:?}");
    assert!(
        with.different * 8 < without.different,
        "{with:?} {without:?}"
    );
}

#[test]
fn no_pair_that_must_not_match_has_the_same_words_in_other_dress() {
    let mut same = 0;
    for pair in pairs() {
        let compared = TextTraits::of(&pair.a).compare(&TextTraits::of(&pair.b));
        if compared.same_wording && compared.guards.conflict().is_none() {
            assert_eq!(pair.label, Label::Same, "{} / {}", pair.a, pair.b);
            same += 1;
        }
    }
    println!("{same} pairs have the same words in other dress");
    assert!(same >= 12, "{same}");
}

#[test]
fn the_newcomers_first_prompts_do_what_a_person_expects() {
    let policy = CostAware::new(WrongAnswerCost::default());
    let embedder = StaticEmbedder::builtin();
    let expected = [
        (
            "How do I reset my password?",
            "how can I reset my password",
            true,
        ),
        (
            "What is the capital of France?",
            "what's the capital of france",
            true,
        ),
        (
            "How do I reset my password?",
            "How do I delete my account?",
            false,
        ),
        (
            "What is the capital of France?",
            "What is the capital of Germany?",
            false,
        ),
        (
            "How do I enable dark mode?",
            "How do I disable dark mode?",
            false,
        ),
        (
            "Is it safe to eat raw eggs?",
            "Is it not safe to eat raw eggs?",
            false,
        ),
        ("Convert 10 miles to km", "Convert 20 miles to km", false),
        (
            "Is Python faster than Java?",
            "Is Java faster than Python?",
            false,
        ),
        ("What does rm -r do?", "What does rm -R do?", false),
        (
            "Translate \"good morning\" to Spanish",
            "Translate \"good night\" to Spanish",
            false,
        ),
    ];
    for (a, b, same) in expected {
        let pair = Pair::new(a, b, if same { Label::Same } else { Label::Different });
        let evidence = evidence(&embedder, &pair);
        let serves = matches!(policy.decide(&evidence), Decision::Serve { .. });
        assert_eq!(serves, same, "{a} / {b}: {evidence:?}");
    }
}
