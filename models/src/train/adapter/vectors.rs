//! The vectors of all texts, made once, on all cores.

use std::collections::HashMap;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use ndarray::{Array2, ArrayView1, ArrayView2, Axis};

use super::{Example, Pair};
use crate::MiniLm;

/// Texts that are embedded together.
const BATCH: usize = 32;

/// Rows that are multiplied by a matrix together.
const BLOCK: usize = 1024;

/// Rows of distinct texts, of unit length, and the pairs over them in two parts.
pub(super) struct Vectors {
    pub(super) rows: Array2<f32>,
    pub(super) parts: [Part; 2],
}

/// Pairs whose texts can be embedded.
pub(super) struct Part {
    pub(super) pairs: Vec<Example>,
    /// Pairs left out because a text has no word or is too long.
    pub(super) unusable: usize,
}

impl Vectors {
    /// `each` is told how many texts are done, and how many there are.
    pub(super) fn of(
        model: &MiniLm,
        parts: [&[Pair<'_>]; 2],
        each: impl FnMut(usize, usize),
    ) -> Self {
        let mut texts = Vec::new();
        let mut numbers = HashMap::new();
        for pair in parts.into_iter().flatten() {
            for text in [pair.a, pair.b] {
                numbers.entry(text).or_insert_with(|| {
                    texts.push(text);
                    texts.len() - 1
                });
            }
        }
        let rows = embedded(model, &texts, each);
        let usable: Vec<bool> = rows
            .rows()
            .into_iter()
            .map(|row| row.iter().all(|value| value.is_finite()))
            .collect();
        let parts = parts.map(|pairs| {
            let numbered: Vec<Example> = pairs
                .iter()
                .map(|pair| Example {
                    texts: [pair.a, pair.b].map(|text| numbers[text]),
                    same: pair.same,
                    group: pair.group,
                })
                .filter(|pair| pair.texts.iter().all(|&text| usable[text]))
                .collect();
            Part {
                unusable: pairs.len() - numbered.len(),
                pairs: numbered,
            }
        });
        Self { rows, parts }
    }

    /// Cosine of each pair after `matrix`, the outputs of each input; 0 where a vector is zero.
    pub(super) fn cosines(&self, pairs: &[Example], matrix: &Array2<f32>) -> Vec<f32> {
        pairs
            .chunks(BLOCK)
            .flat_map(|pairs| {
                let [a, b] = [0, 1].map(|side| {
                    let texts: Vec<usize> = pairs.iter().map(|pair| pair.texts[side]).collect();
                    self.rows.select(Axis(0), &texts).dot(matrix)
                });
                a.rows()
                    .into_iter()
                    .zip(b.rows())
                    .map(|(a, b)| cosine(&a, &b))
                    .collect::<Vec<_>>()
            })
            .collect()
    }
}

fn cosine(a: &ArrayView1<'_, f32>, b: &ArrayView1<'_, f32>) -> f32 {
    let length = (a.dot(a) * b.dot(b)).sqrt();
    if length > 0.0 { a.dot(b) / length } else { 0.0 }
}

/// One row per text; of a text that the model refuses a row of NaN.
fn embedded(model: &MiniLm, texts: &[&str], mut each: impl FnMut(usize, usize)) -> Array2<f32> {
    // Texts of like length go together, the longest first, so that no core is left with them at the end.
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|&text| std::cmp::Reverse(texts[text].len()));
    let batches: Vec<&[usize]> = order.chunks(BATCH).collect();
    let mut rows = Array2::from_elem((texts.len(), model.dimension()), f32::NAN);
    let next = AtomicUsize::new(0);
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        let (done, found) = mpsc::channel();
        for _ in 0..cores {
            let (done, next, batches) = (done.clone(), &next, &batches);
            scope.spawn(move || {
                while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let texts: Vec<&str> = batch.iter().map(|&text| texts[text]).collect();
                    if done.send((*batch, batch_rows(model, &texts))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        let mut count = 0;
        for (batch, found) in found {
            let shape = (batch.len(), model.dimension());
            if let Ok(found) = ArrayView2::from_shape(shape, &found) {
                for (&text, found) in batch.iter().zip(found.rows()) {
                    rows.row_mut(text).assign(&found);
                }
            }
            count += batch.len();
            each(count, texts.len());
        }
    });
    rows
}

fn batch_rows(model: &MiniLm, texts: &[&str]) -> Vec<f32> {
    model.embed_sync(texts).unwrap_or_else(|_| {
        let mut rows = Vec::with_capacity(texts.len() * model.dimension());
        for text in texts {
            if model.embed_one(text, &mut rows).is_err() {
                rows.extend(std::iter::repeat_n(f32::NAN, model.dimension()));
            }
        }
        rows
    })
}
