//! What an embedding by the transformer costs, on one thread.
//!
//! Measured: one text of 8 to 256 tokens (the start and the end token come on top), a batch of short
//! texts, and loading the weights from a file in the page cache, checksum included.
//!
//! `cargo bench -p askonce-models --features minilm --bench minilm`

use askonce_models::MiniLm;
use divan::Bencher;
use divan::counter::ItemsCount;

const WORDS: &str = "how do i reset the password of my account when the old phone is gone and no \
                     backup code was ever printed";
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/minilm-l6-int8.bin");

fn main() {
    if std::fs::exists(FILE).is_ok_and(|there| there) {
        divan::main();
    } else {
        eprintln!("skipped: the weights are not here, {FILE}");
    }
}

/// A text of exactly `tokens` tokens: every word above is one.
fn english(tokens: usize) -> String {
    let words: Vec<_> = WORDS.split(' ').cycle().take(tokens).collect();
    words.join(" ")
}

#[divan::bench(args = [8, 16, 32, 64, 128, 256])]
fn embed_one(bencher: Bencher<'_, '_>, tokens: usize) {
    let model = MiniLm::open(FILE).expect("the weights are in the repository");
    let text = english(tokens);
    bencher
        .counter(ItemsCount::new(tokens))
        .bench_local(|| model.embed_sync(&[&text]));
}

#[divan::bench(args = [8, 16])]
fn batch_of_16(bencher: Bencher<'_, '_>, tokens: usize) {
    let model = MiniLm::open(FILE).expect("the weights are in the repository");
    let text = english(tokens);
    let texts = [&*text; 16];
    bencher
        .counter(ItemsCount::new(16 * tokens))
        .bench_local(|| model.embed_sync(&texts));
}

#[divan::bench]
fn load_from_file() -> MiniLm {
    MiniLm::open(FILE).expect("the weights are in the repository")
}
