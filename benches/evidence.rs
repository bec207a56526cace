//! What a lookup pays for evidence beyond embedding and search.
//!
//! Measured: reading the traits of one prompt of 12 and of 200 words (once per lookup, and once per
//! stored entry at insert), comparing a query with 8 entries, as near as a search would give and as
//! unlike as two prompts get, and the same with what the default policy says of each, before the second
//! cosine is known and with it. The built-in table and the policy are loaded before.
//!
//! `cargo bench --bench evidence`

use askonce::policy::{Evidence, PolicyConfig, TextTraits};
use divan::{Bencher, black_box};

const QUERY: &str = "how do I reset the password of my work account on windows?";

const NEAR: [&str; 8] = [
    "how can I reset the password of my work account in windows",
    "how do I change the password of my school account on windows?",
    "what is the way to reset a forgotten password on linux",
    "how do I delete my work account on windows?",
    "how do I reset the PIN of my bank card?",
    "can I reset the password of somebody else's account?",
    "where do I reset my password on android 14",
    "how long must the password of a work account be?",
];

const FAR: [&str; 8] = [
    "which planets of the solar system have rings, and why do they have them?",
    "convert 25 miles per hour to kilometres per hour and show the formula",
    "write a haiku about autumn leaves in the style of Matsuo Basho",
    "what did the treaty of Westphalia change for the princes of the empire?",
    "explain the borrow checker of Rust to somebody who knows only Python",
    "how much flour does a sourdough loaf of 900 g need at 75% hydration?",
    "is ibuprofen or paracetamol better for a child with a high fever?",
    "list the five longest rivers of Africa as JSON with their lengths in km",
];

fn main() {
    let _ = TextTraits::of(QUERY);
    divan::main();
}

#[divan::bench(args = [1, 16])]
fn traits_of_a_prompt(bencher: Bencher<'_, '_>, repeats: usize) {
    let text = format!("{QUERY} ").repeat(repeats);
    bencher.bench(|| TextTraits::of(black_box(&text)));
}

fn compare(bencher: Bencher<'_, '_>, entries: &[&str]) {
    let query = TextTraits::of(QUERY);
    let entries: Vec<TextTraits> = entries.iter().map(|text| TextTraits::of(text)).collect();
    let mut features = Vec::new();
    bencher.bench_local(|| {
        for entry in &entries {
            let comparison = query.compare(black_box(entry));
            let evidence = Evidence {
                text: comparison.features,
                guards: comparison.guards,
                ..Evidence::similarity(0.8)
            };
            evidence.features(&mut features);
            black_box(&features);
        }
    });
}

#[divan::bench]
fn eight_near_entries(bencher: Bencher<'_, '_>) {
    compare(bencher, &NEAR);
}

#[divan::bench]
fn eight_far_entries(bencher: Bencher<'_, '_>) {
    compare(bencher, &FAR);
}

/// Reading the query, comparing it with `entries` and deciding on each: what a lookup pays beyond its
/// embeddings and its search.
fn decide(bencher: Bencher<'_, '_>, entries: &[&str], refined: Option<f32>) {
    let policy = PolicyConfig::default()
        .build()
        .expect("the built-in policy");
    let entries: Vec<TextTraits> = entries.iter().map(|text| TextTraits::of(text)).collect();
    bencher.bench_local(|| {
        let query = TextTraits::of(black_box(QUERY));
        for entry in &entries {
            let comparison = query.compare(black_box(entry));
            let evidence = Evidence {
                text: comparison.features,
                guards: comparison.guards,
                refined,
                can_refine: refined.is_none(),
                ..Evidence::similarity(0.9)
            };
            let _ = black_box(policy.decide(&evidence));
        }
    });
}

#[divan::bench]
fn eight_near_decisions(bencher: Bencher<'_, '_>) {
    decide(bencher, &NEAR, None);
}

#[divan::bench]
fn eight_near_decisions_refined(bencher: Bencher<'_, '_>) {
    decide(bencher, &NEAR, Some(0.9));
}

#[divan::bench]
fn eight_far_decisions(bencher: Bencher<'_, '_>) {
    decide(bencher, &FAR, None);
}
