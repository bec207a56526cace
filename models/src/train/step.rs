//! One step of training: the losses of a batch, their gradients, and Adam on the rows that it read.

use ndarray::{Array2, ArrayView1, Axis, Zip, azip};
use rand::RngExt;
use rand::rngs::Xoshiro256PlusPlus;

use super::{Examples, TrainSettings};

/// What the built-in table's training started the learnt scalars from: logarithm of the softmax's inverse
/// temperature, scale and bias of the cosine.
const SCALARS: [f32; 3] = [2.995_732_3, 10.0, -7.0];
const SCALAR_RATE: f32 = 2e-2;

const FIRST: f32 = 0.9;
const SECOND: f32 = 0.999;
const EPSILON: f32 = 1e-8;

/// Share of the steps in which the rate rises to its full height, and where it ends.
const WARM_UP: f32 = 0.1;
const LEAST_RATE: f32 = 0.02;

/// The table, and what Adam remembers of it.
pub(super) struct Trainer<'a> {
    settings: &'a TrainSettings,
    start: Array2<f32>,
    table: Array2<f32>,
    mean: Array2<f32>,
    square: Array2<f32>,
    /// How often each row was moved: rows have clocks of their own, since most batches miss most rows.
    moves: Vec<i32>,
    gradient: Array2<f32>,
    /// Rows that the batch at hand reads.
    touched: Vec<usize>,
    is_touched: Vec<bool>,
    scalars: [f32; 3],
    scalar_mean: [f32; 3],
    scalar_square: [f32; 3],
    step: usize,
    steps: usize,
}

impl<'a> Trainer<'a> {
    pub(super) fn new(start: Array2<f32>, settings: &'a TrainSettings, steps: usize) -> Self {
        let zeros = || Array2::zeros(start.dim());
        Self {
            settings,
            table: start.clone(),
            mean: zeros(),
            square: zeros(),
            gradient: zeros(),
            moves: vec![0; start.nrows()],
            touched: Vec::new(),
            is_touched: vec![false; start.nrows()],
            scalars: SCALARS,
            scalar_mean: [0.0; 3],
            scalar_square: [0.0; 3],
            step: 0,
            steps,
            start,
        }
    }

    pub(super) fn table(&self) -> &Array2<f32> {
        &self.table
    }

    /// Takes one step on these pairs. Gives the two losses before it.
    pub(super) fn step(
        &mut self,
        examples: &Examples,
        batch: &[usize],
        random: &mut Xoshiro256PlusPlus,
    ) -> (f32, f32) {
        let labels: Vec<bool> = batch.iter().map(|&at| examples.pairs[at].same).collect();
        let sides = [0, 1].map(|side| {
            let texts = batch.iter().map(|&at| examples.pairs[at].texts[side]);
            texts
                .map(|text| dropped(examples.rows(text), self.settings.dropout, random))
                .collect::<Vec<_>>()
        });
        let sums = [0, 1].map(|side| self.sums(&sides[side]));
        let losses = losses(&sums, &labels, self.scalars, self.settings.softmax_weight);
        for (side, gradient) in sides.iter().zip(&losses.sums) {
            self.scatter(side, gradient);
        }
        self.step += 1;
        let done = self.step as f32 / self.steps as f32;
        let decay = (done / WARM_UP).min(1.0) * (1.0 - done).max(LEAST_RATE);
        self.move_rows(self.settings.rate * decay);
        self.move_scalars(losses.scalars, SCALAR_RATE * decay);
        (losses.pair, losses.softmax)
    }

    /// Sum of the rows of each text.
    fn sums(&self, texts: &[Vec<u32>]) -> Array2<f32> {
        let mut sums = Array2::zeros((texts.len(), self.table.ncols()));
        for (mut sum, rows) in sums.rows_mut().into_iter().zip(texts) {
            for &row in rows {
                sum += &self.table.row(row as usize);
            }
        }
        sums
    }

    /// Adds each text's gradient to those of its rows.
    fn scatter(&mut self, texts: &[Vec<u32>], gradients: &Array2<f32>) {
        for (rows, gradient) in texts.iter().zip(gradients.rows()) {
            for &row in rows {
                let row = row as usize;
                if !std::mem::replace(&mut self.is_touched[row], true) {
                    self.touched.push(row);
                }
                let mut sum = self.gradient.row_mut(row);
                sum += &gradient;
            }
        }
    }

    fn move_rows(&mut self, rate: f32) {
        for row in self.touched.drain(..) {
            self.is_touched[row] = false;
            self.moves[row] += 1;
            let moves = self.moves[row];
            let first_seen = 1.0 - FIRST.powi(moves);
            let second_seen = 1.0 - SECOND.powi(moves);
            let anchor = self.settings.anchor;
            Zip::from(self.table.row_mut(row))
                .and(self.start.row(row))
                .and(self.mean.row_mut(row))
                .and(self.square.row_mut(row))
                .and(self.gradient.row_mut(row))
                .for_each(|value, &start, mean, square, gradient| {
                    let slope = *gradient + anchor * (*value - start);
                    *mean += (1.0 - FIRST) * (slope - *mean);
                    *square += (1.0 - SECOND) * (slope * slope - *square);
                    let root = (*square / second_seen).sqrt();
                    *value -= rate * (*mean / first_seen) / (root + EPSILON);
                    *gradient = 0.0;
                });
        }
    }

    fn move_scalars(&mut self, gradient: [f32; 3], rate: f32) {
        let step = i32::try_from(self.step).unwrap_or(i32::MAX);
        let (first_seen, second_seen) = (1.0 - FIRST.powi(step), 1.0 - SECOND.powi(step));
        for (at, slope) in gradient.into_iter().enumerate() {
            let (mean, square) = (&mut self.scalar_mean[at], &mut self.scalar_square[at]);
            *mean += (1.0 - FIRST) * (slope - *mean);
            *square += (1.0 - SECOND) * (slope * slope - *square);
            let root = (*square / second_seen).sqrt();
            self.scalars[at] -= rate * (*mean / first_seen) / (root + EPSILON);
        }
    }
}

/// Leaves out a share of the rows; texts of one or two tokens keep all, and no text loses all.
fn dropped(rows: &[u32], rate: f32, random: &mut Xoshiro256PlusPlus) -> Vec<u32> {
    if rows.len() <= 2 || rate == 0.0 {
        return rows.to_vec();
    }
    let kept: Vec<u32> = rows
        .iter()
        .copied()
        .filter(|_| random.random::<f32>() >= rate)
        .collect();
    if kept.is_empty() { rows.to_vec() } else { kept }
}

/// The losses of a batch, and the gradients of their weighted sum.
struct Losses {
    pair: f32,
    softmax: f32,
    /// By the sums of either side.
    sums: [Array2<f32>; 2],
    scalars: [f32; 3],
}

fn losses(
    sums: &[Array2<f32>; 2],
    labels: &[bool],
    [log_temperature, scale, bias]: [f32; 3],
    softmax_weight: f32,
) -> Losses {
    let [(a, a_norms), (b, b_norms)] = [unit(&sums[0]), unit(&sums[1])];
    let units = [a, b];
    let count = labels.len() as f32;

    let mut pair = 0.0;
    let mut scalars = [0.0; 3];
    let mut gradients = [Array2::zeros(units[0].dim()), Array2::zeros(units[0].dim())];
    for (at, &label) in labels.iter().enumerate() {
        let [left, right] = [units[0].row(at), units[1].row(at)];
        let cosine = left.dot(&right);
        let logit = scale * cosine + bias;
        let truth = f32::from(u8::from(label));
        pair += (logit.max(0.0) + (-logit.abs()).exp().ln_1p() - truth * logit) / count;
        let slope = (1.0 / (1.0 + (-logit).exp()) - truth) / count;
        gradients[0].row_mut(at).scaled_add(slope * scale, &right);
        gradients[1].row_mut(at).scaled_add(slope * scale, &left);
        scalars[1] += slope * cosine;
        scalars[2] += slope;
    }

    let positive: Vec<usize> = (0..labels.len()).filter(|&at| labels[at]).collect();
    let mut softmax = 0.0;
    if !positive.is_empty() && softmax_weight > 0.0 {
        let temperature = log_temperature.exp();
        let share = 1.0 / (2.0 * positive.len() as f32);
        for (left, right) in [(0, 1), (1, 0)] {
            let asking = units[left].select(Axis(0), &positive);
            let similar = asking.dot(&units[right].t());
            let mut weights = &similar * temperature;
            for (mut row, &own) in weights.rows_mut().into_iter().zip(&positive) {
                softmax -= share * log_softmax(&row.view(), own);
                let most = row.fold(f32::NEG_INFINITY, |most, &value| most.max(value));
                row.mapv_inplace(|value| (value - most).exp());
                let total = row.sum();
                row.mapv_inplace(|value| value / total);
                row[own] -= 1.0;
            }
            weights *= softmax_weight * share * temperature;
            azip!((&weight in &weights, &cosine in &similar) scalars[0] += weight * cosine);
            let asked = weights.dot(&units[right]);
            for (row, &at) in asked.rows().into_iter().zip(&positive) {
                let mut gradient = gradients[left].row_mut(at);
                gradient += &row;
            }
            gradients[right] += &weights.t().dot(&asking);
        }
    }

    // From unit vectors to sums: what lies along the vector changes its length only.
    for ((gradient, unit), norms) in gradients.iter_mut().zip(&units).zip([a_norms, b_norms]) {
        for ((mut gradient, unit), norm) in
            gradient.rows_mut().into_iter().zip(unit.rows()).zip(norms)
        {
            let radial = gradient.dot(&unit);
            gradient.scaled_add(-radial, &unit);
            gradient.mapv_inplace(|value| value / norm);
        }
    }
    Losses {
        pair,
        softmax,
        sums: gradients,
        scalars,
    }
}

fn log_softmax(row: &ArrayView1<'_, f32>, own: usize) -> f32 {
    let most = row.fold(f32::NEG_INFINITY, |most, &value| most.max(value));
    let total: f32 = row.iter().map(|value| (value - most).exp()).sum();
    row[own] - most - total.ln()
}

/// Rows of unit length, and the lengths they had. A row of zeros stays.
fn unit(sums: &Array2<f32>) -> (Array2<f32>, Vec<f32>) {
    let mut units = sums.clone();
    let norms = units
        .rows_mut()
        .into_iter()
        .map(|mut row| {
            let norm = row.dot(&row).sqrt().max(1e-12);
            row.mapv_inplace(|value| value / norm);
            norm
        })
        .collect();
    (units, norms)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    /// Sums of a batch that look random.
    fn batch() -> [Array2<f32>; 2] {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(7);
        [0, 1].map(|_| Array2::from_shape_fn((6, 5), |_| random.random::<f32>() - 0.4))
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let labels = [true, false, true, true, false, false];
        let scalars = [1.5, 4.0, -1.0];
        let total = |sums: &[Array2<f32>; 2], scalars| {
            let found = losses(sums, &labels, scalars, 0.6);
            f64::from(found.pair) + 0.6 * f64::from(found.softmax)
        };
        let sums = batch();
        let found = losses(&sums, &labels, scalars, 0.6);
        let step = 1e-2;
        for side in 0..2 {
            for (at, &gradient) in found.sums[side].indexed_iter() {
                let [up, down] = [step, -step].map(|step| {
                    let mut moved = sums.clone();
                    moved[side][at] += step;
                    total(&moved, scalars)
                });
                let expected = (up - down) / (2.0 * f64::from(step));
                let off = (f64::from(gradient) - expected).abs();
                assert!(off < 2e-3, "side {side} {at:?}: {gradient} for {expected}");
            }
        }
        for at in 0..3 {
            let [up, down] = [step, -step].map(|step| {
                let mut moved = scalars;
                moved[at] += step;
                total(&sums, moved)
            });
            let expected = (up - down) / (2.0 * f64::from(step));
            let off = (f64::from(found.scalars[at]) - expected).abs();
            assert!(
                off < 1e-3,
                "scalar {at}: {} for {expected}",
                found.scalars[at]
            );
        }
    }

    #[test]
    fn a_batch_without_positive_pairs_has_no_softmax() {
        let found = losses(&batch(), &[false; 6], [1.0, 4.0, -1.0], 0.6);
        assert_eq!(found.softmax, 0.0);
        assert!(found.pair > 0.0);
        assert!(found.sums[0].iter().all(|value| value.is_finite()));
    }

    #[test]
    fn dropout_never_takes_a_whole_text() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
        let rows = [1, 2, 3];
        let mut fewer = 0;
        for _ in 0..200 {
            let kept = dropped(&rows, 0.5, &mut random);
            assert!(!kept.is_empty());
            fewer += usize::from(kept.len() < 3);
        }
        assert!(fewer > 100);
        assert_eq!(dropped(&rows[..2], 0.5, &mut random), [1, 2]);
    }
}
