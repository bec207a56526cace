//! Trains the last map of the transformer, the adapter, on labelled pairs.
//!
//! The layers stay as they are: each text is embedded once, without an adapter, on all cores, and what is
//! trained is one matrix by which both vectors of a pair are multiplied. The loss is the logistic one on
//! `scale * cosine + bias`, with AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization",
//! 2019) and a little noise on one side of each pair. A softmax over the batch, as the table's training
//! has beside it, made the matrix worse when the shipped one was made. The matrix starts as the model's own, or as
//! the identity.
//!
//! Whether it helped is measured on pairs of texts that training did not see, beside the model as it is.
//!
//! Always true: the same pairs, settings and seed give the same matrix on one machine; the number of cores
//! has no part in it.

mod step;
mod vectors;

use ndarray::{Array2, ArrayView2};
use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::quality::labels;
use super::{
    Example, Gain, LEAST_HELD_OUT, Pair, Quality, TrainError, TrainReport, check_apart,
    check_labels, require,
};
use crate::{FitError, MiniLm};
use step::Trainer;
use vectors::Vectors;

/// Least number of pairs of either label to train on.
const LEAST_TRAINED: usize = 20;

/// Steps of a pass, and pairs of a step, that a batch is made smaller for, not below the latter.
const LEAST_STEPS: usize = 32;
const LEAST_BATCH: usize = 32;

/// What the matrix starts as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// The adapter that the model has.
    #[default]
    Own,
    /// A map that changes nothing: the adapter is trained from scratch.
    Identity,
}

/// How the adapter is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdapterSettings {
    /// What the matrix starts as. Default: `own`.
    pub start: Start,
    /// Passes over the pairs, 1 to 100. Default: 8.
    pub epochs: u32,
    /// Pairs per step at most, 8 to 8,192. A pass takes 32 steps at least where that leaves 32 pairs to each:
    /// few pairs teach more in more steps. Default: 512.
    pub batch: usize,
    /// How far a step moves a weight at most, above 0 and at most 1; falls to 0 over the steps. Default: 0.0005.
    pub rate: f32,
    /// Share of a weight that a step takes away, times the rate, 0 to 10. Default: 0.01.
    pub decay: f32,
    /// Standard deviation of the noise on each component of one side, 0 to 1. Default: 0.01.
    pub noise: f32,
    /// What noise and the order of pairs start from. Default: 0.
    pub seed: u64,
}

impl Default for AdapterSettings {
    fn default() -> Self {
        Self {
            start: Start::Own,
            epochs: 8,
            batch: 512,
            rate: 5e-4,
            decay: 0.01,
            noise: 0.01,
            seed: 0,
        }
    }
}

impl AdapterSettings {
    /// Pairs per step for so many pairs.
    fn batch_of(&self, pairs: usize) -> usize {
        self.batch.min((pairs / LEAST_STEPS).max(LEAST_BATCH))
    }

    fn check(&self) -> Result<(), FitError> {
        require(
            (1..=100).contains(&self.epochs),
            "epochs",
            &self.epochs,
            "give 1 to 100",
        )?;
        require(
            (8..=8192).contains(&self.batch),
            "batch",
            &self.batch,
            "give 8 to 8,192",
        )?;
        require(
            self.rate > 0.0 && self.rate <= 1.0,
            "rate",
            &self.rate,
            "give a number above 0 and up to 1",
        )?;
        require(
            (0.0..=10.0).contains(&self.decay),
            "decay",
            &self.decay,
            "give a number up to 10",
        )?;
        require(
            (0.0..=1.0).contains(&self.noise),
            "noise",
            &self.noise,
            "give a number up to 1",
        )
    }
}

/// How far training has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AdapterProgress {
    /// Texts are embedded.
    Embedding {
        /// Texts done.
        texts: usize,
        /// Texts in all.
        of: usize,
    },
    /// The matrix is trained.
    Training {
        /// Steps done.
        step: usize,
        /// Steps in all.
        steps: usize,
        /// Loss of the last batch, before the step.
        loss: f32,
    },
}

/// A trained adapter, and what it is worth.
#[derive(Debug)]
pub struct TrainedAdapter {
    /// The adapter, as [`MiniLm::with_adapter`] reads it from a file.
    pub file: Vec<u8>,
    /// The transformer with it, ready to embed.
    pub embedder: MiniLm,
    /// What training did.
    pub report: TrainReport,
}

/// Trains an adapter of `base` on `pairs` and measures it on `held_out`, where `base` as it is stands for
/// before. `progress` is told how far it has come, on the calling thread.
///
/// The caller decides, by [`TrainReport::holds`], whether to use the result.
///
/// # Errors
/// [`TrainError`] when a setting is out of range, there are too few pairs of a label, or the two parts
/// share a text.
pub fn fit_adapter(
    base: &MiniLm,
    pairs: &[Pair<'_>],
    held_out: &[Pair<'_>],
    settings: &AdapterSettings,
    mut progress: impl FnMut(AdapterProgress),
) -> Result<TrainedAdapter, TrainError> {
    settings.check()?;
    check_apart(pairs, held_out)?;
    // What is missing is told before the texts are embedded, which can take minutes.
    let given = |pairs: &[Pair<'_>]| -> Vec<Example> { pairs.iter().map(unnumbered).collect() };
    check_labels(&given(pairs), "training", LEAST_TRAINED)?;
    check_labels(&given(held_out), "held-out", LEAST_HELD_OUT)?;

    let all = Vectors::of(&base.bare(), [pairs, held_out], |texts, of| {
        progress(AdapterProgress::Embedding { texts, of });
    });
    let [train, judged] = &all.parts;
    check_labels(&train.pairs, "training", LEAST_TRAINED)?;
    check_labels(&judged.pairs, "held-out", LEAST_HELD_OUT)?;

    let width = base.dimension();
    let own = ArrayView2::from_shape((width, width), base.adapter())
        .map_err(|_| FitError::Empty)?
        .to_owned();
    let start = match settings.start {
        Start::Own => own.clone(),
        Start::Identity => Array2::eye(width),
    };
    let matrix = fitted(&all.rows, &train.pairs, start, settings, &mut progress);

    let file = base.adapter_file(matrix.iter().copied().collect())?;
    let embedder = base.with_trained(&file)?;
    let old = all.cosines(&judged.pairs, &own);
    let new = all.cosines(&judged.pairs, &matrix);
    let report = TrainReport {
        from: base.id().fingerprint().to_owned(),
        to: embedder.id().fingerprint().to_owned(),
        pairs: train.pairs.len(),
        held_out: judged.pairs.len(),
        unusable: train.unusable + judged.unusable,
        rows_changed: None,
        before: Quality::of(&old, &labels(&judged.pairs)),
        after: Quality::of(&new, &labels(&judged.pairs)),
        gain: Gain::of(&old, &new, &judged.pairs, settings.seed),
    };
    Ok(TrainedAdapter {
        file,
        embedder,
        report,
    })
}

fn unnumbered(pair: &Pair<'_>) -> Example {
    Example {
        texts: [0, 0],
        same: pair.same,
        group: pair.group,
    }
}

/// The matrix that training ends with.
fn fitted(
    rows: &Array2<f32>,
    pairs: &[Example],
    start: Array2<f32>,
    settings: &AdapterSettings,
    progress: &mut impl FnMut(AdapterProgress),
) -> Array2<f32> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(settings.seed);
    let batch = settings.batch_of(pairs.len());
    let steps = pairs.len().div_ceil(batch) * settings.epochs as usize;
    let mut trainer = Trainer::new(start, rows, pairs, settings, steps);
    let mut order: Vec<usize> = (0..pairs.len()).collect();
    let mut step = 0;
    for _ in 0..settings.epochs {
        order.shuffle(&mut random);
        for batch in order.chunks(batch) {
            let loss = trainer.step(batch, &mut random);
            step += 1;
            progress(AdapterProgress::Training { step, steps, loss });
        }
    }
    trainer.into_matrix()
}

#[cfg(test)]
mod tests;
