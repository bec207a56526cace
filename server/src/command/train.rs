//! `askonce train`: adapts the embedding table to labelled pairs of one's own.
//!
//! Texts are split by what hangs together, as every tool here splits them, so that no text is both trained
//! on and judged by, and what is kept for calibration and for tests is not touched. The trained table is
//! written only if it ranks the pairs that it did not see no worse than the table it started from.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use askonce_models::StaticEmbedder;
use askonce_models::train::{Pair, TrainReport, TrainSettings, Trained, fine_tune};
use clap::Args as ClapArgs;
use serde_json::{Value, json};

use super::{Global, print};
use crate::quality::corpus::{self, Set};
use crate::quality::lab::Progress;
use crate::quality::split::{Part, Rule, normalise};

/// Layout of the report.
const SCHEMA: &str = "askonce.train/1";

const TABLE: &str = "static-tuned.bin";
const REPORT: &str = "static-tuned.json";

/// Settings of the training.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "A row is {\"a\": text, \"b\": text, \"label\": 1 or 0}; 1: one answer serves both texts.\n\
    The table is used with semantic.embedder: {type: static, path: DIR/static-tuned.bin}. Its vectors are not\n\
    those of the table before, so stored entries are embedded anew and the policy is to be calibrated again."
)]
pub(crate) struct Args {
    /// Labelled pairs: JSON lines, plain or gzip. May be given several times.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    pairs: Vec<PathBuf>,

    /// The folder that the table and the report are written to; made if it is not there.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,

    /// The table to start from. Default: the built-in one.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,

    /// Passes over the pairs.
    #[arg(long, value_name = "N", default_value_t = TrainSettings::default().epochs)]
    epochs: u32,

    /// How far a step moves a value of the table at most.
    #[arg(long, value_name = "RATE", default_value_t = TrainSettings::default().rate)]
    rate: f32,

    /// Pairs per step.
    #[arg(long, value_name = "N", default_value_t = TrainSettings::default().batch)]
    batch: usize,

    /// Seed of every random choice.
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,
}

/// Trains, judges, and writes what holds.
///
/// # Errors
/// A file cannot be read or written, there are too few pairs, or the trained table ranks unseen pairs worse.
pub(crate) async fn run(args: Args, global: &Global) -> Result<()> {
    let hidden = global.json;
    let (output, done) = tokio::task::spawn_blocking(move || {
        train(&args, Progress::new(hidden)).map(|done| (args.output, done))
    })
    .await
    .context("training panicked")??;
    let Done {
        trained,
        mut report,
    } = done;
    if !trained.report.holds() {
        let TrainReport { before, after, .. } = &trained.report;
        bail!(
            "the trained table ranks pairs that it did not see worse (area under the ROC curve {:.4}, before \
             {:.4}), so nothing is written: give more pairs, fewer --epochs or a lower --rate",
            after.auc,
            before.auc
        );
    }
    fs::create_dir_all(&output).with_context(|| format!("failed to make {}", output.display()))?;
    let table = output.join(TABLE);
    report["table"] = json!(table);
    write(&table, &trained.file)?;
    write(&output.join(REPORT), format!("{report:#}\n").as_bytes())?;
    print(global, &report, |_| words(&trained.report, &table))
}

struct Done {
    trained: Trained,
    report: Value,
}

fn train(args: &Args, progress: Progress) -> Result<Done> {
    let sets = corpus::read(&args.pairs)?;
    if let Some(set) = sets.iter().find(|set| set.pairs.is_empty()) {
        bail!(
            "{} holds clusters: training needs pairs, of both labels",
            set.source.name
        );
    }
    let base = match &args.from {
        Some(path) => StaticEmbedder::open(path)?,
        None => StaticEmbedder::builtin(),
    };
    let settings = TrainSettings {
        epochs: args.epochs,
        rate: args.rate,
        batch: args.batch,
        seed: args.seed,
        ..TrainSettings::default()
    };
    let (pairs, held_out) = split(&sets);
    let mut bar = None;
    let trained = fine_tune(&base, &pairs, &held_out, &settings, |at| {
        bar.get_or_insert_with(|| progress.bar("training", at.steps))
            .set_position(at.step as u64);
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let trained = trained?;
    let sources: Vec<_> = sets.iter().map(|set| &set.source).collect();
    let report = json!({
        "schema": SCHEMA,
        "sources": sources,
        "settings": settings,
        "result": trained.report,
    });
    Ok(Done { trained, report })
}

/// What a pair is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Train,
    Judge,
}

/// The pairs to train on, and those to judge by.
///
/// Of files that the shipped models were trained on, what they were trained on and what they were judged
/// by. Of other files the part that verifiers are fitted on: one component in five is judged by. Calibration
/// and test parts are left alone.
fn split(sets: &[Set]) -> (Vec<Pair<'_>>, Vec<Pair<'_>>) {
    let (mut pairs, mut held_out) = (Vec::new(), Vec::new());
    for set in sets {
        let used = |text| match (set.rule, set.texts.part(text)?) {
            (Rule::Trained, Part::Train) => Some(Use::Train),
            (Rule::Trained, Part::Dev) => Some(Use::Judge),
            (Rule::Unseen | Rule::ByKind, Part::Dev) => match set.texts.group(text) % 5 {
                0 => Some(Use::Judge),
                _ => Some(Use::Train),
            },
            _ => None,
        };
        for pair in set.pairs_of(&Part::ALL) {
            let [a, b] = [pair.a, pair.b].map(|text| set.texts.text(text));
            let list = match used(pair.a) {
                Some(Use::Train) => &mut pairs,
                Some(Use::Judge) => &mut held_out,
                None => continue,
            };
            list.push(Pair {
                a,
                b,
                same: pair.same,
                group: set.texts.group(pair.a),
            });
        }
    }
    // Components are made per file: a text of one may be in another.
    let seen: HashSet<String> = pairs
        .iter()
        .flat_map(|pair| [pair.a, pair.b])
        .map(normalise)
        .collect();
    held_out.retain(|pair| {
        ![pair.a, pair.b]
            .into_iter()
            .map(normalise)
            .any(|text| seen.contains(&text))
    });
    (pairs, held_out)
}

/// Puts a file in place whole, or not at all.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = || format!("failed to write {}", path.display());
    let part = path.with_extension("part");
    fs::write(&part, bytes).with_context(failed)?;
    fs::rename(&part, path).with_context(failed)
}

fn words(report: &TrainReport, table: &Path) -> String {
    let TrainReport {
        pairs,
        held_out,
        rows_changed,
        before,
        after,
        gain,
        ..
    } = report;
    format!(
        "trained on {pairs} pairs, {rows_changed} rows changed; on {held_out} pairs of other texts:\n\
         {:24}{:>8}{:>8}\n\
         {:24}{:>8.4}{:>8.4}   change {:+.4}, 95 % from {:+.4} to {:+.4}\n\
         {:24}{:>8.4}{:>8.4}\n\
         written to {}; use it with\n\
         \n  semantic:\n    embedder: {{ type: static, path: {} }}\n\n\
         and calibrate the policy again: its numbers are those of the table before.",
        "",
        "before",
        "after",
        "area under ROC curve",
        before.auc,
        after.auc,
        gain.auc,
        gain.low,
        gain.high,
        "average precision",
        before.average_precision,
        after.average_precision,
        table.display(),
        table.display(),
    )
}
