//! The rule of vCache, to compare with: every entry learns its own threshold from its own labels.
//!
//! vCache (L. Schroeder and others, arXiv 2502.03771, ICLR 2026) bounds wrong answers per request by a
//! coin: the less an entry's labels say that a candidate is right, the more often the model is asked
//! anyway. This is the published rule, derived again from its description; nothing is taken from its code.
//!
//! **It serves no cache here.** An entry must have been asked for at least four times before it serves, and
//! most never are; and where its threshold lies high it serves about twice the bound of its traffic, however
//! sure it is. `askonce bench quality` runs the rule beside our policies, and this is what it runs.

use super::out_of_range;
use crate::error::Result;

/// A label of one entry: the similarity of a question, and whether the entry's answer was right for it.
pub type Observation = (f32, bool);

/// Serves with a probability under which wrong answers are at most a share `delta` of the requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VcacheRule {
    delta: f64,
}

/// Labels that every entry is born with: nothing alike is wrong, the same is right.
const BORN_WITH: [Observation; 2] = [(0.0, false), (1.0, true)];

/// Fewest labels, those an entry is born with among them, with which it may serve.
const LEAST: usize = 6;

/// Variance of the threshold when a similarity separates right from wrong, by the number of labels. The
/// paper's authors give a table; between its rows it is interpolated here, and beyond the last it stays.
const SEPARATED: [(usize, f64); 6] = [
    (6, 0.0354),
    (10, 0.0194),
    (15, 0.0093),
    (20, 0.0131),
    (31, 0.0046),
    (48, 0.0153),
];

/// Confidence levels that are tried.
const LEVELS: usize = 50;

impl VcacheRule {
    /// The rule with this bound on wrong answers per request.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when `delta` is not above 0 and below 1.
    pub fn new(delta: f64) -> Result<Self> {
        if !(delta > 0.0 && delta < 1.0) {
            return Err(out_of_range(delta, "above 0 and below 1"));
        }
        Ok(Self { delta })
    }

    /// How likely a question at this similarity is served by the entry that these labels belong to, 0 to 1.
    /// The caller draws, and asks the model where the draw says so; the answer's label is then the entry's.
    ///
    /// ```
    /// use askonce::policy::VcacheRule;
    ///
    /// let rule = VcacheRule::new(0.01)?;
    /// let labels = [(0.90, true), (0.92, true), (0.93, true), (0.95, true)];
    /// assert_eq!(rule.serve_probability(&labels[..3], 0.93), 0.0);
    /// assert!(rule.serve_probability(&labels, 0.93) > 0.2);
    /// # Ok::<(), askonce::Error>(())
    /// ```
    #[must_use]
    pub fn serve_probability(&self, labels: &[Observation], similarity: f32) -> f64 {
        let labels: Vec<(f64, bool)> = BORN_WITH
            .iter()
            .chain(labels)
            .map(|&(similarity, right)| (rounded(similarity), right))
            .collect();
        if labels.len() < LEAST {
            return 0.0;
        }
        let (similarity, fit) = (rounded(similarity), Sigmoid::fit(&labels));
        let deviation = fit.threshold_variance(&labels).sqrt();
        let threshold = fit.threshold();
        // The largest lower bound on being right that any confidence level gives.
        let surest = (0..LEVELS)
            .map(|i| {
                let miss = 1e-6 + (1.0 - 2e-6) * i as f64 / (LEVELS - 1) as f64;
                let cautious =
                    (threshold + normal_quantile(1.0 - miss) * deviation).clamp(0.0, 1.0);
                (1.0 - miss) * sigmoid(fit.slope * (similarity - cautious))
            })
            .fold(0.0, f64::max);
        (self.delta / (1.0 - surest).max(f64::MIN_POSITIVE)).min(1.0)
    }
}

/// To three decimals, as the rule has it.
fn rounded(similarity: f32) -> f64 {
    (f64::from(similarity) * 1e3).round() / 1e3
}

/// `P(right) = sigmoid(intercept + slope * similarity)`.
#[derive(Clone, Copy, Debug)]
struct Sigmoid {
    intercept: f64,
    slope: f64,
}

impl Sigmoid {
    /// Greatest likelihood by Newton's method. Where the labels separate there is no greatest: the climb
    /// ends when the gradient is flat, which is where the published rule ends too.
    fn fit(labels: &[(f64, bool)]) -> Self {
        let mut fit = Self {
            intercept: 0.0,
            slope: 0.0,
        };
        let mut likelihood = fit.log_likelihood(labels);
        for _ in 0..100 {
            let (mut g0, mut g1) = (0.0, 0.0);
            for &(x, right) in labels {
                let residual = f64::from(u8::from(right)) - fit.at(x);
                g0 += residual;
                g1 += residual * x;
            }
            if g0.hypot(g1) <= 1e-7 {
                break;
            }
            let Some([v00, v01, v11]) = inverse(fit.information(labels)) else {
                break;
            };
            let (mut d0, mut d1) = (v00 * g0 + v01 * g1, v01 * g0 + v11 * g1);
            let mut better = None;
            for _ in 0..30 {
                let next = Self {
                    intercept: fit.intercept + d0,
                    slope: fit.slope + d1,
                };
                let reached = next.log_likelihood(labels);
                if reached > likelihood {
                    better = Some((next, reached));
                    break;
                }
                (d0, d1) = (d0 / 2.0, d1 / 2.0);
            }
            let Some((next, reached)) = better else {
                break;
            };
            (fit, likelihood) = (next, reached);
        }
        fit.slope = fit.slope.max(1e-6);
        fit
    }

    fn at(&self, similarity: f64) -> f64 {
        sigmoid(self.intercept + self.slope * similarity)
    }

    fn log_likelihood(&self, labels: &[(f64, bool)]) -> f64 {
        let term = |&(x, right): &(f64, bool)| {
            let odds = self.intercept + self.slope * x;
            let odds = if right { odds } else { -odds };
            // ln sigmoid(odds), without overflow.
            odds.min(0.0) - (-odds.abs()).exp().ln_1p()
        };
        labels.iter().map(term).sum()
    }

    /// The upper half of the Fisher information of intercept and slope.
    fn information(&self, labels: &[(f64, bool)]) -> [f64; 3] {
        labels.iter().fold([0.0; 3], |[a, b, c], &(x, _)| {
            let p = self.at(x);
            let w = p * (1.0 - p);
            [a + w, b + w * x, c + w * x * x]
        })
    }

    /// The similarity at which right and wrong are equally likely, within 0 and 1.
    fn threshold(&self) -> f64 {
        (-self.intercept / self.slope).clamp(0.0, 1.0)
    }

    /// Variance of the threshold: by the delta method, or by table where the labels separate.
    fn threshold_variance(&self, labels: &[(f64, bool)]) -> f64 {
        let of = |right| labels.iter().filter(move |label| label.1 == right);
        let most_wrong = of(false).map(|label| label.0).fold(f64::MIN, f64::max);
        let least_right = of(true).map(|label| label.0).fold(f64::MAX, f64::min);
        if most_wrong < least_right {
            return by_table(labels.len());
        }
        let Some([v00, v01, v11]) = inverse(self.information(labels)) else {
            return 1.0;
        };
        let (g0, g1) = (
            -1.0 / self.slope,
            self.intercept / (self.slope * self.slope),
        );
        let variance = g0 * g0 * v00 + 2.0 * g0 * g1 * v01 + g1 * g1 * v11;
        if variance.is_finite() {
            variance.max(0.0)
        } else {
            1.0
        }
    }
}

fn by_table(n: usize) -> f64 {
    let after = SEPARATED.iter().position(|(rows, _)| *rows >= n);
    let Some(after) = after else {
        return SEPARATED[SEPARATED.len() - 1].1;
    };
    let (high, at_high) = SEPARATED[after];
    let (low, at_low) = SEPARATED[after.saturating_sub(1)];
    if high == low {
        return at_high;
    }
    at_low + (at_high - at_low) * (n - low) as f64 / (high - low) as f64
}

/// The inverse of a symmetric 2x2 matrix by its upper half; `None` when it has none.
fn inverse([a, b, c]: [f64; 3]) -> Option<[f64; 3]> {
    let determinant = a * c - b * b;
    (determinant > 1e-300 && determinant.is_finite())
        .then(|| [c / determinant, -b / determinant, a / determinant])
}

fn sigmoid(odds: f64) -> f64 {
    1.0 / (1.0 + (-odds).exp())
}

/// The quantile of the standard normal distribution, by P. Acklam's rational approximation (2003), whose
/// relative error is below 1.2e-9.
fn normal_quantile(p: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969683028665376e1,
        2.209460984245205e2,
        -2.759285104469687e2,
        1.38357751867269e2,
        -3.066479806614716e1,
        2.506628277459239,
    ];
    const B: [f64; 6] = [
        -5.447609879822406e1,
        1.615858368580409e2,
        -1.556989798598866e2,
        6.680131188771972e1,
        -1.328068155288572e1,
        1.0,
    ];
    const C: [f64; 6] = [
        -7.784894002430293e-3,
        -3.223964580411365e-1,
        -2.400758277161838,
        -2.549732539343734,
        4.374664141464968,
        2.938163982698783,
    ];
    const D: [f64; 5] = [
        7.784695709041462e-3,
        3.224671290700398e-1,
        2.445134137142996,
        3.754408661907416,
        1.0,
    ];
    let polynomial = |terms: &[f64], x: f64| terms.iter().fold(0.0, |sum, term| sum * x + term);
    let tail = |p: f64| {
        let q = (-2.0 * p.ln()).sqrt();
        polynomial(&C, q) / polynomial(&D, q)
    };
    if p < 0.02425 {
        tail(p)
    } else if p > 1.0 - 0.02425 {
        -tail(1.0 - p)
    } else {
        let q = p - 0.5;
        q * polynomial(&A, q * q) / polynomial(&B, q * q)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_entry_with_few_labels_serves_nothing() {
        let rule = VcacheRule::new(0.05).unwrap();
        assert_eq!(rule.serve_probability(&[(0.95, true); 3], 0.99), 0.0);
        assert!(rule.serve_probability(&[(0.95, true); 4], 0.99) > 0.0);
    }

    #[test]
    fn the_rule_gives_what_its_formula_was_worked_out_to_give() {
        // Labels, similarity, and how often it is served at 1 %, 2 % and 5 %.
        type Case = (&'static [Observation], f32, [f64; 3]);
        let cases: [Case; 3] = [
            (
                &[(0.90, true), (0.92, true), (0.93, true), (0.95, true)],
                0.93,
                [0.26, 0.51, 1.0],
            ),
            (
                &[(0.91, true), (0.93, true), (0.86, false), (0.88, false)],
                0.97,
                [0.027, 0.054, 0.14],
            ),
            (
                &[(0.88, false), (0.90, false), (0.93, false), (0.95, false)],
                0.99,
                [0.020, 0.041, 0.10],
            ),
        ];
        // Where the labels separate, the likelihood has no maximum and each optimiser ends at a slope of its own.
        for ((labels, similarity, expected), tolerance) in cases.into_iter().zip([0.2, 0.08, 0.08])
        {
            for (delta, expected) in [0.01, 0.02, 0.05].into_iter().zip(expected) {
                let rule = VcacheRule::new(delta).unwrap();
                let served = rule.serve_probability(labels, similarity);
                assert!(
                    (served - expected).abs() <= tolerance * expected,
                    "{labels:?} at {delta}: {served}, not {expected}"
                );
            }
        }
    }

    #[test]
    fn quantiles_of_the_normal_distribution_are_known() {
        for (p, z) in [
            (0.5, 0.0),
            (0.975, 1.959_964),
            (0.01, -2.326_348),
            (1e-6, -4.753_424),
        ] {
            assert!((normal_quantile(p) - z).abs() < 1e-5, "{p}");
        }
    }

    #[test]
    fn a_bound_that_is_no_share_is_refused() {
        for delta in [0.0, 1.0, -0.1, f64::NAN] {
            assert!(VcacheRule::new(delta).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_labels_give_a_probability(
            labels in proptest::collection::vec((-1.0_f32..=1.0, any::<bool>()), 0..60),
            similarity in -1.0_f32..=1.0,
            delta in 0.001_f64..0.5,
        ) {
            let served = VcacheRule::new(delta).unwrap().serve_probability(&labels, similarity);
            prop_assert!((0.0..=1.0).contains(&served), "{served}");
        }
    }
}
