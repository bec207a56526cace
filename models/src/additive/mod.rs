//! An additive model: the log-odds of a yes as a sum of one curve per feature, each drawn straight between
//! a few points.
//!
//! A logistic regression whose curves can be read, plotted and held monotone: for those who want to see
//! why, and the yardstick for what forests earn. It knows no interplay of features. (Generalised additive
//! models: Hastie and Tibshirani, 1986.)
//!
//! Always true: a model that was read from a file gives a finite margin; where a feature was fitted as
//! monotone, the margin never moves against it.

mod file;
mod solve;

use serde::{Deserialize, Serialize};

use crate::FitError;
use crate::fit::{TrainingRows, check_monotone, log_loss, sigmoid, weighed};
use file::AdditiveFile;
use solve::{Slopes, least_square};

/// Most points of a curve.
const MOST_KNOTS: usize = 16;

/// A sum of piecewise linear curves with a logistic loss.
///
/// ```
/// use askonce_models::additive::{Additive, AdditiveSettings};
///
/// let similarity: Vec<f32> = (0..100).map(|i| i as f32 / 100.0).collect();
/// let labels: Vec<bool> = (0..100).map(|i| i % 10 < i / 10).collect();
/// let settings = AdditiveSettings { monotone: vec![1], ..AdditiveSettings::default() };
///
/// let model = Additive::fit(&[similarity], &labels, &[], &settings)?;
/// assert!(model.margin(&[0.9]) > model.margin(&[0.5]));
/// assert!(model.margin(&[2.0]) == model.margin(&[0.99]), "level beyond what was seen");
/// # Ok::<(), askonce_models::FitError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "AdditiveFile", into = "AdditiveFile")]
pub struct Additive {
    base: f64,
    curves: Vec<Curve>,
}

/// How an [`Additive`] model is fitted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdditiveSettings {
    /// Most points of a curve, 2 to 16; they lie where they part the rows into equal weights. Default: 16.
    pub knots: u8,
    /// Penalty on the square of each rise between two points: draws curves level. Above 0. Default: 1.
    pub l2: f64,
    /// Most passes over all features, 1 to 10,000; it ends before when a pass gains nothing. Default: 100.
    pub passes: u32,
    /// Per feature 1 when a greater value must never lower the margin, -1 when it must never raise it,
    /// 0 when it may do either; empty for 0 throughout. Default: empty.
    pub monotone: Vec<i8>,
}

impl Default for AdditiveSettings {
    fn default() -> Self {
        Self {
            knots: MOST_KNOTS as u8,
            l2: 1.0,
            passes: 100,
            monotone: Vec::new(),
        }
    }
}

impl AdditiveSettings {
    fn check(&self, features: usize) -> Result<(), FitError> {
        let wrong = |field, found, remedy| {
            Err(FitError::Setting {
                field,
                found,
                remedy,
            })
        };
        if !(2..=MOST_KNOTS).contains(&usize::from(self.knots)) {
            return wrong("knots", self.knots.to_string(), "give 2 to 16");
        }
        if !(self.l2.is_finite() && self.l2 > 0.0) {
            return wrong("l2", self.l2.to_string(), "give a number above 0");
        }
        if !(1..=10_000).contains(&self.passes) {
            return wrong("passes", self.passes.to_string(), "give 1 to 10,000");
        }
        check_monotone(&self.monotone, features)
    }
}

/// What one feature adds: straight between the knots, level beyond them.
#[derive(Clone, Debug, PartialEq)]
struct Curve {
    /// Ascending; at least one.
    knots: Vec<f32>,
    /// Log-odds at the knots.
    values: Vec<f64>,
    /// Log-odds where the value is not known.
    unknown: f64,
}

impl Curve {
    fn at(&self, value: f32) -> f64 {
        match Place::of(value, &self.knots) {
            Place::Unknown => self.unknown,
            Place::Between { knot, part } => {
                let low = self.values[knot];
                // Read at the last knot too, which has none behind it.
                let high = self.values.get(knot + 1).copied().unwrap_or(low);
                low + (high - low) * f64::from(part)
            }
        }
    }
}

/// Where a value lies on a curve.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Unknown,
    /// This part, below 1, of the way from this knot to the next.
    Between {
        knot: usize,
        part: f32,
    },
}

impl Place {
    fn of(value: f32, knots: &[f32]) -> Self {
        if value.is_nan() {
            return Self::Unknown;
        }
        let behind = knots.partition_point(|knot| *knot <= value);
        let (knot, part) = match behind.checked_sub(1) {
            None => (0, 0.0),
            Some(last) if behind == knots.len() => (last, 0.0),
            Some(knot) => {
                let (low, high) = (f64::from(knots[knot]), f64::from(knots[behind]));
                (knot, ((f64::from(value) - low) / (high - low)) as f32)
            }
        };
        Self::Between { knot, part }
    }
}

impl Additive {
    /// Fits a model. `columns` holds one slice of values per feature, `weights` one number per row or none
    /// at all, which stands for 1 throughout.
    ///
    /// # Errors
    /// [`FitError`] names the setting, the row or the column that is wrong, and what is allowed.
    pub fn fit<C: AsRef<[f32]>>(
        columns: &[C],
        labels: &[bool],
        weights: &[f32],
        settings: &AdditiveSettings,
    ) -> Result<Self, FitError> {
        settings.check(columns.len())?;
        let rows = TrainingRows::new(columns, labels, weights)?;
        let base = rows.log_odds(labels.len())?;
        let mut fit = Fitting::new(&rows, base, settings);
        let mut before = fit.objective();
        for _ in 0..settings.passes {
            for feature in 0..rows.features() {
                fit.improve(feature);
            }
            let after = fit.objective();
            if before - after <= 1e-6 * before {
                break;
            }
            before = after;
        }
        Ok(fit.finish())
    }

    /// The log-odds of a yes. A value that is not-a-number, or missing at the end of `features`, is not
    /// known; values behind the last feature are not read.
    #[must_use]
    pub fn margin(&self, features: &[f32]) -> f64 {
        let known = features.iter().copied();
        let all = known.chain(std::iter::repeat(f32::NAN));
        let parts = self.curves.iter().zip(all);
        self.base + parts.map(|(curve, value)| curve.at(value)).sum::<f64>()
    }

    /// The probability of a yes, between 0 and 1: as the rows of the fit had it, not calibrated on others.
    #[must_use]
    pub fn probability(&self, features: &[f32]) -> f64 {
        sigmoid(self.margin(features))
    }

    /// What each feature adds to the log-odds, written over `out`. With [`base`](Self::base) they sum to
    /// the margin.
    pub fn contributions(&self, features: &[f32], out: &mut Vec<f64>) {
        out.clear();
        let all = features.iter().copied().chain(std::iter::repeat(f32::NAN));
        let parts = self.curves.iter().zip(all);
        out.extend(parts.map(|(curve, value)| curve.at(value)));
    }

    /// The log-odds of a row whose features add nothing.
    #[must_use]
    pub fn base(&self) -> f64 {
        self.base
    }

    /// Number of features of a row.
    #[must_use]
    pub fn features(&self) -> usize {
        self.curves.len()
    }

    /// Per feature, the distance from the lowest to the highest point of its curve, in log-odds.
    #[must_use]
    pub fn importance(&self) -> Vec<f32> {
        let range = |curve: &Curve| {
            let low = curve.values.iter().copied().fold(f64::INFINITY, f64::min);
            let high = curve
                .values
                .iter()
                .copied()
                .fold(f64::NEG_INFINITY, f64::max);
            (high - low) as f32
        };
        self.curves.iter().map(range).collect()
    }
}

/// A curve as it is fitted: the rise to each knot behind the first, and the value of the unknown. The value
/// at the first knot is 0 and the base takes its place.
struct FittedCurve {
    knots: Vec<f32>,
    places: Vec<Place>,
    /// Per knot behind the first; then that of the unknown.
    weights: Vec<f64>,
    /// How much of each rise the mean known row has, and -1: the unknown is drawn to what is known in the
    /// mean, not to 0.
    centre: Vec<f64>,
    sign: i8,
}

impl FittedCurve {
    fn new(column: &[f32], weights: &[f32], most: usize, sign: i8) -> Self {
        let (values, _) = weighed(column, weights);
        let knots = knots(&values, most);
        let places = column.iter().map(|&v| Place::of(v, &knots)).collect();
        let mut fitted = Self {
            places,
            weights: vec![0.0; knots.len()],
            centre: Vec::new(),
            knots,
            sign,
        };
        fitted.centre = fitted.centre(weights);
        fitted
    }

    fn centre(&self, weights: &[f32]) -> Vec<f64> {
        let mut slopes = Slopes::new(self.weights.len());
        let mut total = 0.0;
        for (place, &weight) in self.places.iter().zip(weights) {
            if *place != Place::Unknown {
                total += f64::from(weight);
                slopes.add(*place, f64::from(weight), 0.0);
            }
        }
        let mut mean = slopes.finish().slope;
        for part in &mut mean {
            *part /= if total > 0.0 { total } else { 1.0 };
        }
        let last = mean.len() - 1;
        mean[last] = -1.0;
        mean
    }

    /// What a row at `place` gets with these weights.
    fn value(&self, place: Place, weights: &[f64]) -> f64 {
        let rises = weights.len() - 1;
        match place {
            Place::Unknown => weights[rises],
            Place::Between { knot, part } => {
                let whole: f64 = weights[..knot].iter().sum();
                let rest = if knot < rises { weights[knot] } else { 0.0 };
                whole + rest * f64::from(part)
            }
        }
    }

    /// Takes out what rounding put on the wrong side of 0.
    fn hold_sign(&self, weights: &mut [f64]) {
        let rises = weights.len() - 1;
        for rise in &mut weights[..rises] {
            if *rise * f64::from(self.sign) < 0.0 {
                *rise = 0.0;
            }
        }
    }

    fn penalty(&self, weights: &[f64], l2: f64) -> f64 {
        let rises = &weights[..weights.len() - 1];
        let off: f64 = weights.iter().zip(&self.centre).map(|(w, c)| w * c).sum();
        0.5 * l2 * (rises.iter().map(|rise| rise * rise).sum::<f64>() + off * off)
    }
}

/// At most `most` values that part the rows into equal weights, the least and the greatest among them. One
/// where there is only one value, and 0 where there is none.
fn knots(values: &[(f32, f64)], most: usize) -> Vec<f32> {
    if values.len() <= most {
        return match values.is_empty() {
            true => vec![0.0],
            false => values.iter().map(|(value, _)| *value).collect(),
        };
    }
    let total: f64 = values.iter().map(|(_, weight)| weight).sum();
    let (mut knots, mut below) = (vec![values[0].0], 0.0);
    for &(value, weight) in &values[..values.len() - 1] {
        below += weight;
        let share = total * knots.len() as f64 / (most - 1) as f64;
        if below >= share && knots.len() < most - 1 && Some(&value) != knots.last() {
            knots.push(value);
        }
    }
    knots.push(values[values.len() - 1].0);
    knots
}

/// Coordinate descent, one curve after the other: each step solves the second-order expansion of the loss
/// for the whole curve and the base, within the curve's sign, and is halved until the objective falls. The objective is convex,
/// so this nears its one minimum.
struct Fitting<'a> {
    rows: &'a TrainingRows<'a>,
    l2: f64,
    base: f64,
    curves: Vec<FittedCurve>,
    margins: Vec<f64>,
    /// Of the margins as they are.
    loss: f64,
}

impl<'a> Fitting<'a> {
    fn new(rows: &'a TrainingRows<'a>, base: f64, settings: &AdditiveSettings) -> Self {
        let curve = |(feature, column): (usize, &&[f32])| {
            let sign = settings.monotone.get(feature).copied().unwrap_or(0);
            FittedCurve::new(column, &rows.weights, settings.knots.into(), sign)
        };
        let mut fit = Self {
            rows,
            l2: settings.l2,
            base,
            curves: rows.columns.iter().enumerate().map(curve).collect(),
            margins: vec![base; rows.labels.len()],
            loss: 0.0,
        };
        fit.loss = fit.loss_with(|_| 0.0);
        fit
    }

    /// The loss when each row's margin is shifted.
    fn loss_with(&self, shift: impl Fn(usize) -> f64) -> f64 {
        let rows = self.rows.labels.iter().zip(&self.rows.weights);
        rows.enumerate()
            .map(|(row, (&label, &weight))| {
                f64::from(weight) * log_loss(self.margins[row] + shift(row), label)
            })
            .sum()
    }

    fn objective(&self) -> f64 {
        let penalties = self.curves.iter().map(|c| c.penalty(&c.weights, self.l2));
        self.loss + penalties.sum::<f64>()
    }

    /// First and second derivative of a row's loss by its margin.
    fn derivatives(&self, row: usize) -> (f64, f64) {
        let probability = sigmoid(self.margins[row]);
        let weight = f64::from(self.rows.weights[row]);
        let label = f64::from(u8::from(self.rows.labels[row]));
        (
            weight * (probability - label),
            weight * probability * (1.0 - probability),
        )
    }

    fn improve(&mut self, feature: usize) {
        let curve = &self.curves[feature];
        let count = curve.weights.len();
        let mut slopes = Slopes::new(count);
        for (row, &place) in curve.places.iter().enumerate() {
            let (first, second) = self.derivatives(row);
            slopes.add(place, first, second);
        }
        let mut found = slopes.finish();
        let off: f64 = curve
            .weights
            .iter()
            .zip(&curve.centre)
            .map(|(w, c)| w * c)
            .sum();
        found.follow_base();
        for a in 0..count {
            let ridge = if a + 1 < count { 1.0 } else { 0.0 };
            found.slope[a] += self.l2 * (ridge * curve.weights[a] + off * curve.centre[a]);
            found.curvature[a * count + a] += self.l2 * ridge;
            for b in 0..count {
                found.curvature[a * count + b] += self.l2 * curve.centre[a] * curve.centre[b];
            }
        }
        let target = least_square(&curve.weights, &found.slope, &found.curvature, curve.sign);
        let whole: Vec<f64> = target
            .iter()
            .zip(&curve.weights)
            .map(|(t, w)| t - w)
            .collect();
        let whole_base = found.base_step(&whole);

        let before = self.loss + curve.penalty(&curve.weights, self.l2);
        let mut part = 1.0;
        for _ in 0..HALVINGS {
            let step: Vec<f64> = whole.iter().map(|whole| whole * part).collect();
            let mut tried: Vec<f64> = curve
                .weights
                .iter()
                .zip(&step)
                .map(|(w, s)| w + s)
                .collect();
            curve.hold_sign(&mut tried);
            let base_step = whole_base * part;
            let shift = |row: usize| base_step + curve.value(curve.places[row], &step);
            let loss = self.loss_with(shift);
            if loss + curve.penalty(&tried, self.l2) < before {
                let shifts: Vec<f64> = (0..self.margins.len()).map(shift).collect();
                for (margin, shift) in self.margins.iter_mut().zip(shifts) {
                    *margin += shift;
                }
                self.loss = loss;
                self.base += base_step;
                self.curves[feature].weights = tried;
                return;
            }
            part /= 2.0;
        }
    }

    fn finish(self) -> Additive {
        let mut base = self.base;
        let curves = self
            .curves
            .into_iter()
            .map(|curve| {
                // Moved so that the mean known row gets 0.
                let (unknown, rises) = match curve.weights.split_last() {
                    Some((unknown, rises)) => (*unknown, rises),
                    None => (0.0, &[][..]),
                };
                let mean: f64 = rises.iter().zip(&curve.centre).map(|(r, c)| r * c).sum();
                base += mean;
                let mut height = -mean;
                let mut values = vec![height];
                for rise in rises {
                    height += rise;
                    values.push(height);
                }
                Curve {
                    knots: curve.knots,
                    values,
                    unknown: unknown - mean,
                }
            })
            .collect();
        Additive { base, curves }
    }
}

/// A step that gains nothing at a thousandth of its length gains nothing.
const HALVINGS: usize = 10;

#[cfg(test)]
mod tests;
