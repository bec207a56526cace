//! One step of training: the loss of a batch, its gradients, and AdamW on the matrix.

use ndarray::{Array2, ArrayView1, Axis, Zip};
use rand::RngExt;
use rand::rngs::Xoshiro256PlusPlus;

use super::{AdapterSettings, Example};

/// How far a step moves scale and bias at most.
const SCALAR_RATE: f32 = 1e-2;

const FIRST: f32 = 0.9;
const SECOND: f32 = 0.999;
const EPSILON: f32 = 1e-8;

/// Scale and bias of the cosine, to begin with where pairs do not tell: a cosine of 0.75 is in doubt.
const SCALARS: [f32; 2] = [12.0, -9.0];

/// The matrix, and what Adam remembers of it.
pub(super) struct Trainer<'a> {
    settings: &'a AdapterSettings,
    rows: &'a Array2<f32>,
    pairs: &'a [Example],
    /// The outputs of the first input, of the second, and so on: a row vector goes in from the left.
    matrix: Moved,
    scalars: Moved,
    step: usize,
    steps: usize,
}

/// What is trained, and the moments of its gradients.
struct Moved {
    values: Array2<f32>,
    mean: Array2<f32>,
    square: Array2<f32>,
}

impl Moved {
    fn new(values: Array2<f32>) -> Self {
        Self {
            mean: Array2::zeros(values.dim()),
            square: Array2::zeros(values.dim()),
            values,
        }
    }

    /// Adam (Kingma and Ba, 2015); `step` counts from 1.
    fn step(&mut self, gradient: &Array2<f32>, rate: f32, step: usize) {
        let step = i32::try_from(step).unwrap_or(i32::MAX);
        let (first_seen, second_seen) = (1.0 - FIRST.powi(step), 1.0 - SECOND.powi(step));
        Zip::from(&mut self.values)
            .and(&mut self.mean)
            .and(&mut self.square)
            .and(gradient)
            .for_each(|value, mean, square, &slope| {
                *mean += (1.0 - FIRST) * (slope - *mean);
                *square += (1.0 - SECOND) * (slope * slope - *square);
                let root = (*square / second_seen).sqrt();
                *value -= rate * (*mean / first_seen) / (root + EPSILON);
            });
    }
}

impl<'a> Trainer<'a> {
    pub(super) fn new(
        start: Array2<f32>,
        rows: &'a Array2<f32>,
        pairs: &'a [Example],
        settings: &'a AdapterSettings,
        steps: usize,
    ) -> Self {
        Self {
            settings,
            rows,
            pairs,
            matrix: Moved::new(start),
            scalars: Moved::new(Array2::from(vec![SCALARS])),
            step: 0,
            steps,
        }
    }

    pub(super) fn into_matrix(self) -> Array2<f32> {
        self.matrix.values
    }

    /// Takes one step on these pairs. Gives the loss before it.
    pub(super) fn step(&mut self, batch: &[usize], random: &mut Xoshiro256PlusPlus) -> f32 {
        let labels: Vec<bool> = batch.iter().map(|&at| self.pairs[at].same).collect();
        let [mut a, b] = [0, 1].map(|side| {
            let texts: Vec<usize> = batch.iter().map(|&at| self.pairs[at].texts[side]).collect();
            self.rows.select(Axis(0), &texts)
        });
        shake(&mut a, self.settings.noise, random);
        let scalars = [self.scalars.values[(0, 0)], self.scalars.values[(0, 1)]];
        let losses = losses(&self.matrix.values, [&a, &b], &labels, scalars);

        let left = 1.0 - self.step as f32 / self.steps as f32;
        self.step += 1;
        let rate = self.settings.rate * left;
        self.matrix.values *= 1.0 - rate * self.settings.decay;
        self.matrix.step(&losses.matrix, rate, self.step);
        let scalars = Array2::from(vec![losses.scalars]);
        self.scalars.step(&scalars, SCALAR_RATE * left, self.step);
        losses.mean
    }
}

/// Adds noise to unit vectors and brings them back to unit length.
fn shake(rows: &mut Array2<f32>, deviation: f32, random: &mut Xoshiro256PlusPlus) {
    if deviation == 0.0 {
        return;
    }
    // Two normal numbers at a time (Box and Muller, 1958).
    let mut second = None;
    let mut normal = || {
        second.take().unwrap_or_else(|| {
            let radius = (-2.0 * (1.0 - random.random::<f32>()).ln()).sqrt();
            let (sine, cosine) = (std::f32::consts::TAU * random.random::<f32>()).sin_cos();
            second = Some(radius * sine);
            radius * cosine
        })
    };
    rows.mapv_inplace(|value| value + deviation * normal());
    unit(rows);
}

/// The loss of a batch, and its gradients.
struct Losses {
    mean: f32,
    matrix: Array2<f32>,
    scalars: [f32; 2],
}

/// The mean logistic loss on `scale * cosine + bias` of two sides that `matrix` maps.
fn losses(
    matrix: &Array2<f32>,
    sides: [&Array2<f32>; 2],
    labels: &[bool],
    [scale, bias]: [f32; 2],
) -> Losses {
    let mut mapped = sides.map(|side| side.dot(matrix));
    let lengths = mapped.each_mut().map(unit);
    let count = labels.len() as f32;
    let mut mean = 0.0;
    let mut scalars = [0.0; 2];
    let mut slopes = sides.map(|side| Array2::zeros((side.nrows(), matrix.ncols())));
    for (at, &label) in labels.iter().enumerate() {
        let [left, right] = mapped.each_ref().map(|side| side.row(at));
        let cosine = left.dot(&right);
        let logit = scale * cosine + bias;
        let truth = f32::from(u8::from(label));
        mean += (logit.max(0.0) + (-logit.abs()).exp().ln_1p() - truth * logit) / count;
        let slope = (1.0 / (1.0 + (-logit).exp()) - truth) / count;
        scalars[0] += slope * cosine;
        scalars[1] += slope;
        // Of a cosine by a vector that is not of unit length: what lies along it changes nothing.
        let toward = |to: &ArrayView1<'_, f32>, from: &ArrayView1<'_, f32>, length: f32| {
            (to - &(from * cosine)) * (slope * scale / length)
        };
        slopes[0]
            .row_mut(at)
            .assign(&toward(&right, &left, lengths[0][at]));
        slopes[1]
            .row_mut(at)
            .assign(&toward(&left, &right, lengths[1][at]));
    }
    let [first, second] = [0, 1].map(|side| sides[side].t().dot(&slopes[side]));
    Losses {
        mean,
        matrix: first + second,
        scalars,
    }
}

/// Brings rows to unit length; gives the lengths they had.
fn unit(rows: &mut Array2<f32>) -> Vec<f32> {
    rows.rows_mut()
        .into_iter()
        .map(|mut row| {
            let length = row.dot(&row).sqrt().max(1e-12);
            row.mapv_inplace(|value| value / length);
            length
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn random_rows(rows: usize, columns: usize, seed: u64) -> Array2<f32> {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        Array2::from_shape_fn((rows, columns), |_| random.random::<f32>() - 0.4)
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let labels = [true, false, true, true, false, false];
        let [a, b] = [1, 2].map(|seed| random_rows(6, 5, seed));
        let matrix = random_rows(5, 5, 3);
        let scalars = [4.0, -1.0];
        let mean = |matrix: &Array2<f32>, scalars| {
            f64::from(losses(matrix, [&a, &b], &labels, scalars).mean)
        };
        let found = losses(&matrix, [&a, &b], &labels, scalars);
        let step = 1e-2;
        for (at, &gradient) in found.matrix.indexed_iter() {
            let [up, down] = [step, -step].map(|step| {
                let mut moved = matrix.clone();
                moved[at] += step;
                mean(&moved, scalars)
            });
            let expected = (up - down) / (2.0 * f64::from(step));
            let off = (f64::from(gradient) - expected).abs();
            assert!(off < 2e-3, "{at:?}: {gradient} for {expected}");
        }
        let largest = found.matrix.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
        assert!(largest > 0.05, "{largest}: gradients too small to be seen");
        for at in 0..2 {
            let [up, down] = [step, -step].map(|step| {
                let mut moved = scalars;
                moved[at] += step;
                mean(&matrix, moved)
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
    fn noise_is_of_the_deviation_asked_for_and_lengths_stay() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
        let mut still = random_rows(400, 384, 4);
        unit(&mut still);
        let mut shaken = still.clone();
        shake(&mut shaken, 0.0, &mut random);
        assert_eq!(shaken, still);
        shake(&mut shaken, 0.01, &mut random);
        let mut cosines = 0.0;
        for (shaken, still) in shaken.rows().into_iter().zip(still.rows()) {
            assert!((shaken.dot(&shaken) - 1.0).abs() < 1e-5);
            cosines += shaken.dot(&still) / 400.0;
        }
        // One over the length that noise of 384 times 0.01 squared leaves.
        let expected = 1.0 / (1.0_f32 + 384.0 * 1e-4).sqrt();
        assert!((cosines - expected).abs() < 1e-3, "{cosines} {expected}");
    }
}
