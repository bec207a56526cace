//! The models that can be trained, each as the command writes and reports it.

use anyhow::Result;
use askonce_models::StaticEmbedder;
use askonce_models::train::{TrainReport, TrainSettings, fine_tune};
use serde_json::{Value, json};

use super::Args;
use super::parts::Parts;
use crate::quality::lab::Progress;

/// A trained model and what it is worth.
pub(super) struct Trained {
    /// What it is called in words and in reports.
    pub(super) name: &'static str,
    pub(super) file_name: &'static str,
    /// The line of the configuration that uses a file of it.
    pub(super) setting: fn(&str) -> String,
    pub(super) file: Vec<u8>,
    pub(super) settings: Value,
    pub(super) report: TrainReport,
    /// Whether it has to be better, where another has to be no worse.
    strict: bool,
}

impl Trained {
    /// Whether it is worth writing.
    pub(super) fn holds(&self) -> bool {
        self.report.holds() && (!self.strict || self.report.gain.auc > 0.0)
    }
}

/// Trains the table.
pub(super) fn table(args: &Args, parts: &Parts<'_>, progress: Progress) -> Result<Trained> {
    let base = match &args.from {
        Some(path) => StaticEmbedder::open(path)?,
        None => StaticEmbedder::builtin(),
    };
    let defaults = TrainSettings::default();
    let settings = TrainSettings {
        epochs: args.epochs.unwrap_or(defaults.epochs),
        rate: args.rate.unwrap_or(defaults.rate),
        batch: args.batch.unwrap_or(defaults.batch),
        seed: args.seed,
        ..defaults
    };
    let mut bar = None;
    let trained = fine_tune(&base, &parts.pairs, &parts.held_out, &settings, |at| {
        bar.get_or_insert_with(|| progress.bar("training the table", at.steps))
            .set_position(at.step as u64);
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let trained = trained?;
    Ok(Trained {
        name: "table",
        file_name: "static-tuned.bin",
        setting: |path| format!("embedder.table: {path}   # of a cascade; path of type static"),
        file: trained.file,
        settings: json!(settings),
        report: trained.report,
        strict: false,
    })
}

/// Trains the adapter of the transformer.
#[cfg(feature = "minilm")]
pub(super) fn adapter(args: &Args, parts: &Parts<'_>, progress: Progress) -> Result<Trained> {
    use askonce_models::MiniLm;
    use askonce_models::train::{AdapterProgress, AdapterSettings, Start, fit_adapter};

    let mut base = match &args.transformer {
        Some(path) => MiniLm::open(path)?,
        None => MiniLm::builtin(),
    };
    if let Some(path) = &args.from_adapter {
        base = base.with_adapter(path)?;
    }
    let defaults = AdapterSettings::default();
    let settings = AdapterSettings {
        start: match args.from_scratch {
            true => Start::Identity,
            false => Start::Own,
        },
        epochs: args.epochs.unwrap_or(defaults.epochs),
        rate: args.rate.unwrap_or(defaults.rate),
        batch: args.batch.unwrap_or(defaults.batch),
        seed: args.seed,
        ..defaults
    };
    let (mut embedding, mut training) = (None, None);
    let trained = fit_adapter(
        &base,
        &parts.pairs,
        &parts.held_out,
        &settings,
        |at| match at {
            AdapterProgress::Embedding { texts, of } => embedding
                .get_or_insert_with(|| progress.bar("embedding", of))
                .set_position(texts as u64),
            AdapterProgress::Training { step, steps, .. } => training
                .get_or_insert_with(|| progress.bar("training the adapter", steps))
                .set_position(step as u64),
        },
    );
    for bar in [embedding, training].into_iter().flatten() {
        bar.finish_and_clear();
    }
    let trained = trained?;
    Ok(Trained {
        name: "adapter",
        file_name: "minilm-adapter.bin",
        setting: |path| {
            format!("embedder.refiner.adapter: {path}   # of a cascade; adapter of type minilm")
        },
        file: trained.file,
        settings: json!(settings),
        report: trained.report,
        strict: true,
    })
}

#[cfg(not(feature = "minilm"))]
pub(super) fn adapter(_: &Args, _: &Parts<'_>, _: Progress) -> Result<Trained> {
    anyhow::bail!(
        "this build has no transformer: build with the feature minilm, or give --model static"
    )
}
