//! From a model's score to a probability.

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// How far the order of scores is kept where the map is flat: log-odds gained per unit of score. Small
/// enough to change no probability, and enough that equal probabilities still have an order, so that a
/// cut-off can lie between them.
const TIE_BREAK: f64 = 1e-3;

/// Probabilities nearer to 0 and 1 than this are not told apart.
const LEAST: f64 = 1e-6;

/// The interval of probabilities that a calibration map gives: at one of its ends the prediction is
/// perfectly calibrated, and its width tells how little was known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The probability if the answer were wrong.
    pub low: f64,
    /// The probability if the answer were right; not below `low`.
    pub high: f64,
}

impl Interval {
    /// The one probability that loses least in log loss: `high / (1 - low + high)`.
    #[must_use]
    pub fn mean(self) -> f64 {
        self.high / (1.0 - self.low + self.high)
    }
}

/// One point of a [`CalibrationMap::Steps`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibrationKnot {
    /// The model's score, in log-odds.
    pub score: f64,
    /// [`Interval::low`] there.
    pub low: f64,
    /// [`Interval::high`] there.
    pub high: f64,
}

impl CalibrationKnot {
    /// [`Interval::mean`] of the knot.
    #[must_use]
    pub fn probability(&self) -> f64 {
        Interval {
            low: self.low,
            high: self.high,
        }
        .mean()
    }
}

/// A rising map from a model's score to the probability that the answer is right.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum CalibrationMap {
    /// Straight lines between knots, flat beyond the ends: Venn-Abers prediction, as a table.
    Steps {
        /// By rising score; both probabilities rise.
        knots: Vec<CalibrationKnot>,
    },
    /// A logistic curve over the score (Platt scaling): for few labels.
    Logistic {
        /// Factor of the score, 0 or more.
        slope: f64,
        /// Added to it.
        intercept: f64,
    },
}

impl CalibrationMap {
    /// The interval of probabilities at `score`.
    #[must_use]
    pub fn probability(&self, score: f64) -> Interval {
        match self {
            Self::Steps { knots } => {
                let after = knots.partition_point(|knot| knot.score <= score);
                match (
                    after.checked_sub(1).and_then(|i| knots.get(i)),
                    knots.get(after),
                ) {
                    (Some(a), Some(b)) => {
                        let share = (score - a.score) / (b.score - a.score);
                        Interval {
                            low: a.low + share * (b.low - a.low),
                            high: a.high + share * (b.high - a.high),
                        }
                    }
                    (Some(end), None) | (None, Some(end)) => Interval {
                        low: end.low,
                        high: end.high,
                    },
                    (None, None) => Interval {
                        low: 0.0,
                        high: 1.0,
                    },
                }
            }
            Self::Logistic { slope, intercept } => {
                let p = sigmoid(slope * score + intercept);
                Interval { low: p, high: p }
            }
        }
    }

    /// Log-odds at `score`: of the interval's mean, and of its lower end. Both rise strictly with the
    /// score. Not-a-number for a score that is none.
    pub(super) fn log_odds(&self, score: f64) -> (f64, f64) {
        let interval = self.probability(score);
        // A score beyond any model's, such as infinity, must not turn the order of others round.
        let order = TIE_BREAK * score.clamp(-50.0, 50.0);
        (
            log_odds(interval.mean()) + order,
            log_odds(interval.low) + order,
        )
    }

    /// Checks that the map rises and is finite.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`], saying what is wrong.
    pub(super) fn validate(&self) -> Result<()> {
        let refuse = |message: &'static str| Err(Error::new(ErrorKind::Corrupt, message));
        match self {
            Self::Steps { knots } => {
                let in_range = |p: f64| (0.0..=1.0).contains(&p);
                if knots.is_empty() {
                    return refuse("a calibration map has no knots");
                }
                if !knots.iter().all(|knot| {
                    knot.score.is_finite()
                        && in_range(knot.low)
                        && in_range(knot.high)
                        && knot.low <= knot.high + 1e-9
                }) {
                    return refuse("a knot of a calibration map is out of range");
                }
                if !knots.windows(2).all(|knots| {
                    knots[0].score < knots[1].score
                        && knots[0].low <= knots[1].low
                        && knots[0].high <= knots[1].high
                }) {
                    return refuse("a calibration map falls");
                }
            }
            Self::Logistic { slope, intercept } => {
                if !(*slope >= 0.0 && slope.is_finite() && intercept.is_finite()) {
                    return refuse("a calibration curve falls or is not finite");
                }
            }
        }
        Ok(())
    }
}

/// Log-odds of a probability, finite.
pub(super) fn log_odds(p: f64) -> f64 {
    let p = p.clamp(LEAST, 1.0 - LEAST);
    (p / (1.0 - p)).ln()
}

/// The inverse of [`log_odds`].
pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
