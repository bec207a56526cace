//! Adapts the embedding models to labelled pairs of one's own: the table here, the last map of the
//! transformer in `adapter`.
//!
//! **The table**: two losses share each batch of pairs, as when the built-in table was made: the logistic loss on
//! `scale * cosine + bias` over all pairs, and for the positive ones a softmax over the other sides of the
//! whole batch, which asks each text to find its partner, in both directions (van den Oord et al.,
//! "Representation learning with contrastive predictive coding", 2018). Adam (Kingma and Ba, 2015) moves
//! only the rows that a batch reads, and a pull towards where they started keeps what few pairs cannot
//! teach. So a few thousand pairs take seconds, and words that no pair has stay as they were, to the last
//! bit.
//!
//! Whether it helped is measured on pairs of texts that training did not see, with the 8-bit table as it
//! would be used.
//!
//! Always true: the same pairs, settings and seed give the same table; what training saw and what it is
//! judged by share no text.

#[cfg(feature = "minilm")]
mod adapter;
mod quality;
mod step;

use std::collections::{HashMap, HashSet};

use ndarray::Array2;
use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::{FitError, ModelError, StaticEmbedder};
use step::Trainer;

#[cfg(feature = "minilm")]
pub use adapter::{AdapterProgress, AdapterSettings, Start, TrainedAdapter, fit_adapter};
use quality::labels;
pub use quality::{Gain, Quality};

/// Least number of held-out pairs of either label.
const LEAST_HELD_OUT: usize = 20;

/// Two texts, and whether one answer serves both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair<'a> {
    /// One text.
    pub a: &'a str,
    /// The other.
    pub b: &'a str,
    /// Whether one answer serves both.
    pub same: bool,
    /// What the pair hangs together with: pairs of one group share texts, or are about one thing.
    /// Intervals count groups, not pairs.
    pub group: u64,
}

/// How the table is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainSettings {
    /// Passes over the pairs, 1 to 100. Default: 4.
    pub epochs: u32,
    /// Pairs per step, 8 to 8,192. Default: 512.
    pub batch: usize,
    /// How far a step moves a row's values at most, above 0 and at most 1. Default: 0.002.
    pub rate: f32,
    /// Pull of a row back to where it started, per step, 0 or more. Default: 0.0001.
    pub anchor: f32,
    /// Share of a text's tokens that a step leaves out, 0 to 0.5. Default: 0.05.
    pub dropout: f32,
    /// Weight of the softmax beside the logistic loss, 0 to 10. Default: 0.6.
    pub softmax_weight: f32,
    /// What dropout and the order of pairs start from. Default: 0.
    pub seed: u64,
}

impl Default for TrainSettings {
    fn default() -> Self {
        Self {
            epochs: 4,
            batch: 512,
            rate: 2e-3,
            anchor: 1e-4,
            dropout: 0.05,
            softmax_weight: 0.6,
            seed: 0,
        }
    }
}

impl TrainSettings {
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
            self.anchor >= 0.0 && self.anchor.is_finite(),
            "anchor",
            &self.anchor,
            "give a number of 0 or more",
        )?;
        require(
            (0.0..=0.5).contains(&self.dropout),
            "dropout",
            &self.dropout,
            "give a share up to 0.5",
        )?;
        require(
            (0.0..=10.0).contains(&self.softmax_weight),
            "softmax_weight",
            &self.softmax_weight,
            "give a number up to 10",
        )
    }
}

fn require(
    good: bool,
    field: &'static str,
    found: &dyn ToString,
    remedy: &'static str,
) -> Result<(), FitError> {
    match good {
        true => Ok(()),
        false => Err(FitError::Setting {
            field,
            found: found.to_string(),
            remedy,
        }),
    }
}

/// Why a model could not be trained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A setting is out of range.
    #[error(transparent)]
    Setting(#[from] FitError),

    /// There are too few pairs of one label to train on, or to judge by.
    #[error("{found} {part} pairs are labelled {label}, at least {least} are needed: add {}", least - found)]
    TooFewPairs {
        /// `training` or `held-out`.
        part: &'static str,
        /// Whether one answer serves both texts.
        label: bool,
        /// How many there are.
        found: usize,
        /// How many are needed.
        least: usize,
    },

    /// All pairs of a part have one label: nothing says what is to be told apart.
    #[error(
        "all {pairs} {part} pairs are labelled {label}: add pairs that are labelled {}, {}",
        !label,
        if *label { "which look alike and must not share an answer" } else { "which one answer serves" }
    )]
    OneLabel {
        /// `training` or `held-out`.
        part: &'static str,
        /// The label that all have.
        label: bool,
        /// How many pairs there are.
        pairs: usize,
    },

    /// A text is both trained on and judged by.
    #[error(
        "{texts} texts are in training pairs and in held-out pairs: split the pairs so that texts that \
         are connected by pairs stay together"
    )]
    SharedTexts {
        /// How many.
        texts: usize,
    },

    /// The trained model cannot be used.
    #[error("the trained model cannot be used")]
    Model(#[from] ModelError),
}

/// How far training has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Steps done.
    pub step: usize,
    /// Steps in all.
    pub steps: usize,
    /// Logistic loss of the last batch.
    pub pair_loss: f32,
    /// Softmax loss of the last batch; 0 for a batch without positive pairs.
    pub softmax_loss: f32,
}

/// What training did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrainReport {
    /// Fingerprint of the model that the trained one takes the place of.
    pub from: String,
    /// Fingerprint of the trained model.
    pub to: String,
    /// Pairs trained on.
    pub pairs: usize,
    /// Pairs judged by.
    pub held_out: usize,
    /// Pairs left out because a text has no word or is too long.
    pub unusable: usize,
    /// Rows of the table that changed; none of an adapter, which changes all vectors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows_changed: Option<usize>,
    /// Held-out pairs under the model as it was.
    pub before: Quality,
    /// Held-out pairs under the trained model.
    pub after: Quality,
    /// Change of the area under the ROC curve.
    pub gain: Gain,
}

impl TrainReport {
    /// Whether the trained model is no worse on the pairs that it did not see.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.gain.auc >= 0.0
    }
}

/// A trained table, and what it is worth.
#[derive(Debug)]
pub struct Trained {
    /// The table, as [`StaticEmbedder::open`] reads it from a file.
    pub file: Vec<u8>,
    /// The same, ready to embed.
    pub embedder: StaticEmbedder,
    /// What training did.
    pub report: TrainReport,
}

/// Trains a copy of `base` on `pairs` and measures it on `held_out`. `each_step` is told how far it has
/// come.
///
/// The caller decides, by [`TrainReport::holds`], whether to use the result.
///
/// # Errors
/// [`TrainError`] when a setting is out of range, pairs of one label are missing, or the two parts share a
/// text.
pub fn fine_tune(
    base: &StaticEmbedder,
    pairs: &[Pair<'_>],
    held_out: &[Pair<'_>],
    settings: &TrainSettings,
    mut each_step: impl FnMut(Progress),
) -> Result<Trained, TrainError> {
    settings.check()?;
    check_apart(pairs, held_out)?;
    let train = Examples::new(base, pairs);
    let judged = Examples::new(base, held_out);
    check_labels(&train.pairs, "training", 1)?;
    check_labels(&judged.pairs, "held-out", LEAST_HELD_OUT)?;

    let mut random = Xoshiro256PlusPlus::seed_from_u64(settings.seed);
    let scale = base.scale();
    let mut start = Array2::zeros((base.rows(), base.dimension()));
    for (number, mut row) in (0..).zip(start.rows_mut()) {
        for (value, small) in row.iter_mut().zip(base.row(number)) {
            *value = f32::from(small) * scale;
        }
    }
    let per_epoch = train.pairs.len().div_ceil(settings.batch);
    let steps = per_epoch * settings.epochs as usize;
    let mut trainer = Trainer::new(start, settings, steps);
    let mut order: Vec<usize> = (0..train.pairs.len()).collect();
    let mut step = 0;
    for _ in 0..settings.epochs {
        order.shuffle(&mut random);
        for batch in order.chunks(settings.batch) {
            let (pair_loss, softmax_loss) = trainer.step(&train, batch, &mut random);
            step += 1;
            each_step(Progress {
                step,
                steps,
                pair_loss,
                softmax_loss,
            });
        }
    }

    let (rows, rows_changed) = quantised(base, trainer.table());
    let file = base.with_rows(&rows)?;
    let embedder = StaticEmbedder::from_bytes(file.clone(), "the trained table")?;
    let old = judged.cosines(base);
    let new = judged.cosines(&embedder);
    let report = TrainReport {
        from: base.id().fingerprint().to_owned(),
        to: embedder.id().fingerprint().to_owned(),
        pairs: train.pairs.len(),
        held_out: judged.pairs.len(),
        unusable: train.unusable + judged.unusable,
        rows_changed: Some(rows_changed),
        before: Quality::of(&old, &labels(&judged.pairs)),
        after: Quality::of(&new, &labels(&judged.pairs)),
        gain: Gain::of(&old, &new, &judged.pairs, settings.seed),
    };
    Ok(Trained {
        file,
        embedder,
        report,
    })
}

/// Rounds to the table's own scale, so that what did not move stays as it was to the last bit. Gives the
/// rows, and how many differ from the base's.
fn quantised(base: &StaticEmbedder, table: &Array2<f32>) -> (Vec<i8>, usize) {
    let scale = base.scale();
    let mut rows = Vec::with_capacity(table.len());
    let mut changed = 0;
    for (number, row) in (0..).zip(table.rows()) {
        let start = rows.len();
        rows.extend(
            row.iter()
                .map(|value| (value / scale).round_ties_even().clamp(-127.0, 127.0) as i8),
        );
        changed += usize::from(!base.row(number).eq(rows[start..].iter().copied()));
    }
    (rows, changed)
}

fn check_apart(pairs: &[Pair<'_>], held_out: &[Pair<'_>]) -> Result<(), TrainError> {
    let seen: HashSet<&str> = pairs.iter().flat_map(|pair| [pair.a, pair.b]).collect();
    let shared: HashSet<&str> = held_out
        .iter()
        .flat_map(|pair| [pair.a, pair.b])
        .filter(|text| seen.contains(text))
        .collect();
    match shared.len() {
        0 => Ok(()),
        texts => Err(TrainError::SharedTexts { texts }),
    }
}

/// Whether there are enough pairs of either label.
fn check_labels(pairs: &[Example], part: &'static str, least: usize) -> Result<(), TrainError> {
    let positive = pairs.iter().filter(|pair| pair.same).count();
    for (label, found) in [(true, positive), (false, pairs.len() - positive)] {
        if found == 0 && !pairs.is_empty() {
            return Err(TrainError::OneLabel {
                part,
                label: !label,
                pairs: pairs.len(),
            });
        }
        if found < least {
            return Err(TrainError::TooFewPairs {
                part,
                label,
                found,
                least,
            });
        }
    }
    Ok(())
}

/// Pairs over distinct texts, and the table rows of each text.
struct Examples {
    /// Rows of the texts, one text after the other.
    rows: Vec<u32>,
    /// Where each text's rows end.
    ends: Vec<usize>,
    pairs: Vec<Example>,
    unusable: usize,
}

struct Example {
    /// Numbers of the texts.
    texts: [usize; 2],
    same: bool,
    group: u64,
}

impl Examples {
    fn new(base: &StaticEmbedder, pairs: &[Pair<'_>]) -> Self {
        let mut examples = Self {
            rows: Vec::new(),
            ends: Vec::new(),
            pairs: Vec::with_capacity(pairs.len()),
            unusable: 0,
        };
        let mut numbers = HashMap::new();
        for pair in pairs {
            let texts = [pair.a, pair.b].map(|text| {
                *numbers
                    .entry(text)
                    .or_insert_with(|| examples.add(base, text))
            });
            match texts {
                [Some(a), Some(b)] => examples.pairs.push(Example {
                    texts: [a, b],
                    same: pair.same,
                    group: pair.group,
                }),
                _ => examples.unusable += 1,
            }
        }
        examples
    }

    fn add(&mut self, base: &StaticEmbedder, text: &str) -> Option<usize> {
        let start = self.rows.len();
        if base.row_numbers(text, &mut self.rows).is_err() {
            self.rows.truncate(start);
            return None;
        }
        self.ends.push(self.rows.len());
        Some(self.ends.len() - 1)
    }

    fn rows(&self, text: usize) -> &[u32] {
        let start = text.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.rows[start..self.ends[text]]
    }

    /// Cosine of each pair under an embedder of the same vocabulary. 0 where rows cancel out.
    fn cosines(&self, embedder: &StaticEmbedder) -> Vec<f32> {
        let vectors: Vec<Vec<f64>> = (0..self.ends.len())
            .map(|text| {
                let mut sums = vec![0.0; embedder.dimension()];
                for &row in self.rows(text) {
                    for (sum, value) in sums.iter_mut().zip(embedder.row(row)) {
                        *sum += f64::from(value);
                    }
                }
                sums
            })
            .collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        self.pairs
            .iter()
            .map(|pair| {
                let [a, b] = pair.texts.map(|text| &vectors[text]);
                let length = (dot(a, a) * dot(b, b)).sqrt();
                if length > 0.0 {
                    (dot(a, b) / length) as f32
                } else {
                    0.0
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
