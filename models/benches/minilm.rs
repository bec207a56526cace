//! What an embedding by the transformer costs on one thread, and how near it is to the model in f32.
//!
//! A line for each length: the text alone (the start and the end token come on top), and sixteen of them
//! together, per text. Times are the thread's own CPU time where the system tells it (Linux), so that other
//! work on the machine does not count, and by the clock elsewhere: the median and the least of some rounds.
//! The file is in the page cache when it is loaded, and its checksum is computed.
//!
//! The cosines are to rows of the source model in f32, over the texts in `tests/golden/minilm_l6.jsonl`. To
//! the other kernels of this machine there is nothing to compare: they give the same bits, as a test says.
//!
//! `cargo bench -p askonce-models --features minilm --bench minilm [-- FILTER]`; a filter is a word of a line.
//! `training/onnx_speed.py` measures ONNX Runtime in the same way.

use std::fs;
use std::hint::black_box;
use std::time::{Duration, Instant};

use askonce_models::MiniLm;
use serde_json::Value;

const WORDS: &str = "how do i reset the password of my account when the old phone is gone and no \
                     backup code was ever printed";
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/minilm-l6-int8.bin");
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/minilm_l6.jsonl");

/// Rounds of a line, and how long one takes at least: the system counts CPU time in steps of some milliseconds.
const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_millis(200);

fn main() {
    // `cargo test` runs benches too, with another argument, and wants no figures.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filter = arguments
        .iter()
        .find(|argument| !argument.starts_with("--"));
    let wanted = |line: &str| filter.is_none_or(|filter| line.contains(&**filter));
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    let Ok(model) = MiniLm::open(FILE) else {
        eprintln!("SKIPPED: the weights are not here, {FILE}");
        return;
    };
    let clock = if thread_time().is_some() {
        "CPU time of the thread"
    } else {
        "wall clock"
    };
    println!("{}, kernel {}, {clock}", model.id(), model.instructions());
    println!("{:<18}{:>12}{:>12}", "", "median ms", "least ms");
    for tokens in [8, 16, 32, 64, 128, 256] {
        let text = english(tokens);
        let line = format!("{tokens} tokens");
        if wanted(&line) {
            show(&line, 1, || model.embed_sync(&[&text]));
        }
    }
    for tokens in [8, 16] {
        let text = english(tokens);
        let texts = [&*text; 16];
        let line = format!("16 of {tokens} tokens");
        if wanted(&line) {
            show(&line, texts.len(), || model.embed_sync(&texts));
        }
    }
    if wanted("load") {
        show("load", 1, || MiniLm::open(FILE));
    }
    if wanted("cosines") {
        cosines(&model);
    }
}

/// A text of exactly `tokens` tokens: every word above is one.
fn english(tokens: usize) -> String {
    let words: Vec<_> = WORDS.split(' ').cycle().take(tokens).collect();
    words.join(" ")
}

/// Prints what a call costs, divided by what it does at once.
fn show<T>(line: &str, at_once: usize, mut call: impl FnMut() -> T) {
    let start = Instant::now();
    black_box(call());
    let calls = ROUND.as_nanos() / start.elapsed().as_nanos().max(1) + 1;
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = (thread_time(), Instant::now());
            for _ in 0..calls {
                black_box(call());
            }
            let spent = match (start.0, thread_time()) {
                (Some(start), Some(end)) => end.saturating_sub(start),
                _ => start.1.elapsed(),
            };
            spent.as_secs_f64() * 1e3 / calls as f64 / at_once as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    println!("{line:<18}{:>12.3}{:>12.3}", rounds[ROUNDS / 2], rounds[0]);
}

/// CPU time of this thread so far.
fn thread_time() -> Option<Duration> {
    let told = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds = told.split(' ').next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

fn cosines(model: &MiniLm) {
    let Ok(golden) = fs::read_to_string(GOLDEN) else {
        eprintln!("SKIPPED: the rows in f32 are not here, {GOLDEN}");
        return;
    };
    let mut cosines: Vec<f64> = golden
        .lines()
        .filter_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            let found = model.embed_sync(&[line["text"].as_str()?]).ok()?;
            let row = line["row"].as_array()?.iter().filter_map(Value::as_f64);
            let (mut dot, mut square) = (0.0, 0.0);
            for (found, exact) in found.iter().zip(row) {
                dot += f64::from(*found) * exact;
                square += exact * exact;
            }
            Some(dot / square.sqrt())
        })
        .collect();
    cosines.sort_by(f64::total_cmp);
    let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
    println!(
        "cosine to f32 over {} texts: mean {mean:.4}, median {:.4}, least {:.4}",
        cosines.len(),
        cosines[cosines.len() / 2],
        cosines[0]
    );
}
