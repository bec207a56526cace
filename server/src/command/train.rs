//! `askonce train`: adapts the embedding models to labelled pairs of one's own.
//!
//! Texts are split by what hangs together, as every tool here splits them, so that no text is both trained
//! on and judged by, and what is kept for calibration and for tests is not touched. A trained model is
//! written only if it ranks the pairs that it did not see no worse than the model that it takes the place of.

mod models;
mod parts;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use askonce_models::train::{TrainError, TrainReport};
use clap::{Args as ClapArgs, ValueEnum};
use serde_json::{Value, json};

use super::{Global, print};
use crate::quality::corpus;
use crate::quality::lab::Progress;
use models::Trained;
use parts::Parts;

/// Layout of the report.
const SCHEMA: &str = "askonce.train/2";

/// Settings of the training.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "A row is {\"a\": text, \"b\": text, \"label\": 1 or 0}; 1: one answer serves both texts.\n\
    The models are used with semantic.embedder:\n\
    \n  {type: cascade, table: DIR/static-tuned.bin, refiner: {type: minilm, adapter: DIR/minilm-adapter.bin}}\n\n\
    Their vectors are not those of the models before, so stored entries are embedded anew and the policy is to\n\
    be calibrated again."
)]
pub(crate) struct Args {
    /// Labelled pairs: JSON lines, plain or gzip. May be given several times.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    pairs: Vec<PathBuf>,

    /// The folder that the models and their reports are written to; made if it is not there.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,

    /// What is trained: the table, the adapter of the transformer, or both. Default: both where the
    /// transformer is in the binary, the table where not.
    #[arg(long, value_enum, value_name = "MODEL")]
    model: Option<Which>,

    /// The table to start from. Default: the built-in one.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,

    /// The transformer to train an adapter of. Default: the built-in one.
    #[arg(long, value_name = "FILE")]
    transformer: Option<PathBuf>,

    /// The adapter to start from, of an earlier training. Default: the transformer's own.
    #[arg(long, value_name = "FILE", conflicts_with = "from_scratch")]
    from_adapter: Option<PathBuf>,

    /// Starts the adapter from a map that changes nothing.
    #[arg(long)]
    from_scratch: bool,

    /// Passes over the pairs. Default: 4 for the table, 8 for the adapter.
    #[arg(long, value_name = "N")]
    epochs: Option<u32>,

    /// How far a step moves a value at most. Default: 0.002 for the table, 0.0005 for the adapter.
    #[arg(long, value_name = "RATE")]
    rate: Option<f32>,

    /// Pairs per step at most. Default: 512.
    #[arg(long, value_name = "N")]
    batch: Option<usize>,

    /// Seed of every random choice.
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,
}

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    /// The table.
    Static,
    /// The last map of the transformer.
    Adapter,
    /// Both.
    Both,
}

impl Args {
    fn trains(&self, model: Which) -> bool {
        let default = if cfg!(feature = "minilm") {
            Which::Both
        } else {
            Which::Static
        };
        let which = self.model.unwrap_or(default);
        which == model || which == Which::Both
    }
}

/// Trains, judges, and writes what holds.
///
/// # Errors
/// A file cannot be read or written, there are too few pairs, or every trained model ranks unseen pairs worse.
pub(crate) async fn run(args: Args, global: &Global) -> Result<()> {
    let hidden = global.json;
    let (args, done) = tokio::task::spawn_blocking(move || {
        train(&args, Progress::new(hidden)).map(|done| (args, done))
    })
    .await
    .context("training panicked")??;
    let Done { trained, sources } = done;
    if !trained.iter().any(Trained::holds) {
        let models: Vec<String> = trained.iter().map(refusal).collect();
        bail!(
            "{}, so nothing is written: give more pairs, fewer --epochs or a lower --rate",
            models.join("; ")
        );
    }
    let output = &args.output;
    fs::create_dir_all(output).with_context(|| format!("failed to make {}", output.display()))?;
    let mut models = Vec::new();
    for model in &trained {
        let path = output.join(model.file_name);
        let mut entry = json!({
            "model": model.name,
            "written": model.holds(),
            "settings": model.settings,
            "result": model.report,
        });
        if model.holds() {
            entry["file"] = json!(path);
            write(&path, &model.file)?;
            let report = json!({ "schema": SCHEMA, "sources": sources, "models": [entry] });
            let text = format!("{report:#}\n");
            write(&path.with_extension("json"), text.as_bytes())?;
        }
        models.push(entry);
    }
    let report = json!({ "schema": SCHEMA, "sources": sources, "models": models });
    print(global, &report, |_| words(&trained, output))
}

struct Done {
    trained: Vec<Trained>,
    sources: Value,
}

fn train(args: &Args, progress: Progress) -> Result<Done> {
    let sets = corpus::read(&args.pairs)?;
    if let Some(set) = sets.iter().find(|set| set.pairs.is_empty()) {
        bail!(
            "{} holds clusters: training needs pairs, of both labels",
            set.source.name
        );
    }
    let parts = Parts::of(&sets);
    let mut trained = Vec::new();
    if args.trains(Which::Static) {
        trained
            .push(models::table(args, &parts, progress).map_err(|error| missing(error, &parts))?);
    }
    if args.trains(Which::Adapter) {
        trained
            .push(models::adapter(args, &parts, progress).map_err(|error| missing(error, &parts))?);
    }
    let sources: Vec<_> = sets.iter().map(|set| &set.source).collect();
    Ok(Done {
        trained,
        sources: json!(sources),
    })
}

/// Says what a lack of pairs in one part means for the files.
fn missing(error: anyhow::Error, parts: &Parts<'_>) -> anyhow::Error {
    let (of, used) = match error.downcast_ref() {
        Some(TrainError::TooFewPairs { part, .. } | TrainError::OneLabel { part, .. }) => {
            match *part {
                "held-out" => (parts.all, parts.held_out.len()),
                _ => (parts.all, parts.pairs.len()),
            }
        }
        _ => return error,
    };
    error.context(format!(
        "of the {of} pairs given, {} are to train on and {} to judge by, the others are for calibration and \
         tests: a part that has {used} of {of} gets that share of what is added",
        parts.pairs.len(),
        parts.held_out.len(),
    ))
}

/// Puts a file in place whole, or not at all.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = || format!("failed to write {}", path.display());
    let part = path.with_extension("part");
    fs::write(&part, bytes).with_context(failed)?;
    fs::rename(&part, path).with_context(failed)
}

fn refusal(model: &Trained) -> String {
    let TrainReport { before, after, .. } = &model.report;
    format!(
        "the trained {} ranks pairs that it did not see {} (area under the ROC curve {:.4}, before {:.4})",
        model.name,
        if after.auc < before.auc {
            "worse"
        } else {
            "no better"
        },
        after.auc,
        before.auc
    )
}

fn words(trained: &[Trained], output: &Path) -> String {
    let mut text = String::new();
    for model in trained {
        text += &figures(model);
        text += &match model.holds() {
            true => format!("written to {}\n\n", output.join(model.file_name).display()),
            false => format!("{}, so it is not written\n\n", refusal(model)),
        };
    }
    text += "use what is written with\n\n  semantic:\n";
    for line in trained.iter().filter(|model| model.holds()) {
        let path = output.join(line.file_name);
        text += &format!("    {}\n", (line.setting)(&path.display().to_string()));
    }
    text + "\nand calibrate the policy again: its numbers are those of the models before."
}

fn figures(model: &Trained) -> String {
    let TrainReport {
        pairs,
        held_out,
        rows_changed,
        before,
        after,
        gain,
        ..
    } = &model.report;
    let changed = rows_changed.map_or(String::new(), |rows| format!(", {rows} rows changed"));
    format!(
        "the {} was trained on {pairs} pairs{changed}; on {held_out} pairs of other texts:\n\
         {:24}{:>8}{:>8}\n\
         {:24}{:>8.4}{:>8.4}   change {:+.4}, 95 % from {:+.4} to {:+.4}\n\
         {:24}{:>8.4}{:>8.4}\n",
        model.name,
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
    )
}

#[cfg(all(test, feature = "minilm"))]
mod tests;
