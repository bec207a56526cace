//! What a decision pays for a fitted model, and what fitting one takes.
//!
//! Measured on one thread: a forest of 200 trees of 15 leaves over 45 features, asked row after row
//! about rows it was not fitted to (so that branches are not learnt by heart), the additive model on the same
//! rows, and fitting either to 30,000 rows. Rows are random numbers with a label that eight of the features
//! decide. How well models predict is measured elsewhere.
//!
//! `cargo bench -p askonce-models --bench trees`

use askonce_models::additive::{Additive, AdditiveSettings};
use askonce_models::trees::{Forest, ForestSettings};
use divan::Bencher;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

const FEATURES: usize = 45;

fn main() {
    divan::main();
}

fn rows(count: usize, seed: u64) -> (Vec<Vec<f32>>, Vec<bool>) {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let columns: Vec<Vec<f32>> = (0..FEATURES)
        .map(|_| (0..count).map(|_| random.random::<f32>()).collect())
        .collect();
    let labels = (0..count)
        .map(|row| {
            let sum: f32 = columns[..8].iter().map(|column| column[row]).sum();
            sum + 2.0 * random.random::<f32>() > 5.0
        })
        .collect();
    (columns, labels)
}

fn across(columns: &[Vec<f32>]) -> Vec<Vec<f32>> {
    (0..columns[0].len())
        .map(|row| columns.iter().map(|column| column[row]).collect())
        .collect()
}

#[divan::bench]
fn forest_margin(bencher: Bencher<'_, '_>) {
    let (columns, labels) = rows(5_000, 1);
    let forest = Forest::fit(&columns, &labels, &[], &ForestSettings::default())
        .expect("the rows have both labels");
    let unseen = across(&rows(4_096, 2).0);
    let mut at = 0;
    bencher.bench_local(|| {
        at = (at + 1) % unseen.len();
        forest.margin(&unseen[at])
    });
}

#[divan::bench]
fn additive_margin(bencher: Bencher<'_, '_>) {
    let (columns, labels) = rows(5_000, 1);
    let model = Additive::fit(&columns, &labels, &[], &AdditiveSettings::default())
        .expect("the rows have both labels");
    let unseen = across(&rows(4_096, 2).0);
    let mut at = 0;
    bencher.bench_local(|| {
        at = (at + 1) % unseen.len();
        model.margin(&unseen[at])
    });
}

#[divan::bench(sample_count = 5)]
fn fit_forest(bencher: Bencher<'_, '_>) {
    let (columns, labels) = rows(30_000, 1);
    bencher.bench(|| Forest::fit(&columns, &labels, &[], &ForestSettings::default()));
}

#[divan::bench(sample_count = 5)]
fn fit_additive(bencher: Bencher<'_, '_>) {
    let (columns, labels) = rows(30_000, 1);
    bencher.bench(|| Additive::fit(&columns, &labels, &[], &AdditiveSettings::default()));
}
