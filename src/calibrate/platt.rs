//! Logistic calibration of a score, for folds too small for monotone regression.
//!
//! Platt scaling (J. Platt 1999) by Newton steps, with his softened targets in place of 0 and 1 and an
//! L2 pull of the slope towards 1 and of the intercept towards 0: without labels, the score's own
//! log-odds are taken as they are.

use super::isotonic::Labelled;

/// A fitted logistic curve over a score that is in log-odds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Platt {
    /// Factor of the score, 0 or more.
    pub slope: f64,
    /// Added to it.
    pub intercept: f64,
}

pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Fits `p = sigmoid(slope * score + intercept)`; `pull` is the strength of the L2 term, in labels.
#[must_use]
pub fn fit(rows: &[Labelled], pull: f64) -> Platt {
    let rows = || {
        rows.iter()
            .filter(|row| row.score.is_finite() && row.weight > 0.0)
    };
    let total = |right: bool| -> f64 {
        rows()
            .filter(|row| row.right == right)
            .map(|row| row.weight)
            .sum()
    };
    let (right, wrong) = (total(true), total(false));
    let (target_right, target_wrong) = ((right + 1.0) / (right + 2.0), 1.0 / (wrong + 2.0));
    let (mut slope, mut intercept) = (1.0_f64, 0.0_f64);
    let loss = |slope: f64, intercept: f64| -> f64 {
        let fitted: f64 = rows()
            .map(|row| {
                let target = if row.right {
                    target_right
                } else {
                    target_wrong
                };
                let x = slope * row.score + intercept;
                // ln(1 + e^x) - target * x, without overflow.
                row.weight * (x.max(0.0) + (-x.abs()).exp().ln_1p() - target * x)
            })
            .sum();
        fitted + 0.5 * pull * ((slope - 1.0).powi(2) + intercept.powi(2))
    };
    let mut now = loss(slope, intercept);
    for _ in 0..100 {
        let (mut g_slope, mut g_intercept) = (pull * (slope - 1.0), pull * intercept);
        let (mut h_ss, mut h_si, mut h_ii) = (pull + 1e-9, 0.0, pull + 1e-9);
        for row in rows() {
            let target = if row.right {
                target_right
            } else {
                target_wrong
            };
            let p = sigmoid(slope * row.score + intercept);
            let (error, curve) = (row.weight * (p - target), row.weight * p * (1.0 - p));
            g_slope += error * row.score;
            g_intercept += error;
            h_ss += curve * row.score * row.score;
            h_si += curve * row.score;
            h_ii += curve;
        }
        let determinant = h_ss * h_ii - h_si * h_si;
        let step_slope = (h_ii * g_slope - h_si * g_intercept) / determinant;
        let step_intercept = (h_ss * g_intercept - h_si * g_slope) / determinant;
        // Newton's step, halved until the loss falls.
        let mut share = 1.0;
        let better = loop {
            let to = (
                slope - share * step_slope,
                intercept - share * step_intercept,
            );
            let there = loss(to.0, to.1);
            if there <= now {
                break Some((to, there));
            }
            share *= 0.5;
            if share < 1e-6 {
                break None;
            }
        };
        let Some(((s, i), there)) = better else { break };
        let gain = now - there;
        (slope, intercept, now) = (s, i, there);
        if gain < 1e-12 * (1.0 + now.abs()) {
            break;
        }
    }
    Platt {
        // A score that says the opposite of the truth is worth nothing; it is not turned round.
        slope: slope.max(0.0),
        intercept,
    }
}

/// The shift of log-odds that makes `rows` calibrated, pulled towards 0 as by a normal prior of this
/// `variance`: the maximum of the posterior, by Newton steps. Scores are log-odds.
#[must_use]
pub fn offset(rows: &[Labelled], variance: f64) -> f64 {
    let mut shift = 0.0;
    for _ in 0..50 {
        let (mut gradient, mut curve) = (shift / variance, 1.0 / variance);
        for row in rows {
            let p = sigmoid(row.score + shift);
            gradient += row.weight * (p - f64::from(u8::from(row.right)));
            curve += row.weight * p * (1.0 - p);
        }
        // Bounded, so that a flat curve far out cannot throw it.
        let step = (gradient / curve).clamp(-1.0, 1.0);
        shift -= step;
        if step.abs() < 1e-10 {
            break;
        }
    }
    shift
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    fn draw(n: usize, slope: f64, intercept: f64) -> Vec<Labelled> {
        let mut random = StdRng::seed_from_u64(3);
        (0..n)
            .map(|_| {
                let score = random.random::<f64>() * 8.0 - 4.0;
                Labelled {
                    score,
                    right: random.random::<f64>() < sigmoid(slope * score + intercept),
                    weight: 1.0,
                }
            })
            .collect()
    }

    #[test]
    fn the_curve_that_made_the_labels_is_found() {
        let fitted = fit(&draw(20_000, 0.6, -1.0), 1.0);
        assert!((fitted.slope - 0.6).abs() < 0.05, "{fitted:?}");
        assert!((fitted.intercept + 1.0).abs() < 0.08, "{fitted:?}");
    }

    #[test]
    fn without_labels_the_score_is_believed() {
        assert_eq!(
            fit(&[], 1.0),
            Platt {
                slope: 1.0,
                intercept: 0.0
            }
        );
        assert_eq!(offset(&[], 1.0), 0.0);
    }

    #[test]
    fn labels_that_separate_stay_finite() {
        let rows: Vec<_> = (-10..10)
            .map(|i| Labelled {
                score: f64::from(i) + 0.5,
                right: i >= 0,
                weight: 1.0,
            })
            .collect();
        let fitted = fit(&rows, 1.0);
        assert!(fitted.slope.is_finite() && fitted.slope > 0.1 && fitted.slope < 20.0);
    }

    #[test]
    fn a_small_category_stays_near_its_parent_and_a_large_one_goes_its_own_way() {
        let small = offset(&draw(10, 1.0, -2.0), 0.25);
        let large = offset(&draw(5_000, 1.0, -2.0), 0.25);
        assert!(small < 0.0 && small > -1.0, "{small}");
        assert!((large + 2.0).abs() < 0.15, "{large}");
    }
}
