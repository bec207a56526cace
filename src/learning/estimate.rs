//! How often hits are wrong, from audits that were drawn with known probabilities.
//!
//! An audit that was drawn with probability rho stands for 1/rho hits. The rate is the ratio of the two
//! weighted sums (Hájek's form of the Horvitz-Thompson estimator), which needs no count of all hits. Its
//! interval is Wilson's score interval for as many audits as the weighted ones are worth (Kish's effective
//! size). It holds at any one moment; [`always`] gives one that holds at all moments together, from
//! uniformly drawn audits alone.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::config::CheckedLabels;

/// What the standard normal distribution exceeds with 2.5 %.
const Z: f64 = 1.959_963_985;

const DAY: f64 = 86_400_000.0;

/// Sensitivity and specificity less 1, below which labels tell nothing.
const LEAST_INFORMED: f64 = 0.1;

/// The share of hits by similarity that were wrong, as far as audits tell.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FalseHitRate {
    /// The estimate, 0 to 1.
    pub rate: f64,
    /// The lower end of its interval at 95 %.
    pub lower: f64,
    /// The upper end.
    pub upper: f64,
    /// How many uniformly drawn audits the weighted ones are worth.
    pub effective_audits: f64,
}

/// Sums over audits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Audits {
    weights: f64,
    wrong: f64,
    squares: f64,
    at: Timestamp,
}

impl Audits {
    /// Takes in an audit that stands for `weight` hits; of what was there before, `retention` is left after
    /// a day.
    pub(crate) fn add(&mut self, wrong: bool, weight: f64, now: Timestamp, retention: f64) {
        let days = now.since(self.at).as_millis() as f64 / DAY;
        let left = retention.powf(days);
        self.weights = self.weights * left + weight;
        self.wrong = self.wrong * left + weight * f64::from(u8::from(wrong));
        self.squares = self.squares * left * left + weight * weight;
        self.at = now.max(self.at);
    }

    /// The rate and its interval; `None` before the first audit.
    pub(crate) fn rate(&self) -> Option<FalseHitRate> {
        if self.weights <= 0.0 || self.squares <= 0.0 {
            return None;
        }
        let n = self.weights * self.weights / self.squares;
        let p = (self.wrong / self.weights).clamp(0.0, 1.0);
        let z2 = Z * Z;
        let centre = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
        let half = Z / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
        Some(FalseHitRate {
            rate: p,
            lower: (centre - half).clamp(0.0, p),
            upper: (centre + half).clamp(p, 1.0),
            effective_audits: n,
        })
    }
}

impl FalseHitRate {
    /// The rate and interval, corrected for labels that are wrong themselves as often as a `checked` sample of
    /// them shows (Rogan and Gladen 1978); the interval takes in that the sample is small (Lang and
    /// Reiczigel, "Confidence limits for prevalence of disease adjusted for estimated sensitivity and
    /// specificity", 2014). It is all of 0 to 1 where labels are no better than chance.
    pub(crate) fn corrected(&self, checked: &CheckedLabels) -> Self {
        let share = |part: u64, whole: u64| part as f64 / whole as f64;
        let (se, sp) = (
            share(checked.called_wrong, checked.wrong),
            share(checked.called_right, checked.right),
        );
        let (wrong, right) = (checked.wrong as f64, checked.right as f64);
        let moved_se = (wrong * se + 1.0) / (wrong + 2.0);
        let moved_sp = (right * sp + 1.0) / (right + 2.0);
        let informed = moved_se + moved_sp - 1.0;
        if se + sp - 1.0 <= LEAST_INFORMED || informed <= LEAST_INFORMED {
            return Self {
                rate: self.rate,
                lower: 0.0,
                upper: 1.0,
                ..*self
            };
        }
        let n = self.effective_audits;
        let z2 = Z * Z;
        let observed = (n * self.rate + z2 / 2.0) / (n + z2);
        let centre = (observed + moved_sp - 1.0) / informed;
        let of_se = moved_se * (1.0 - moved_se) / (wrong + 2.0);
        let of_sp = moved_sp * (1.0 - moved_sp) / (right + 2.0);
        let shift = 2.0 * z2 * (centre * of_se - (1.0 - centre) * of_sp);
        let spread = observed * (1.0 - observed) / (n + z2)
            + centre * centre * of_se
            + (1.0 - centre) * (1.0 - centre) * of_sp;
        let half = Z * spread.max(0.0).sqrt() / informed;
        let rate = ((self.rate + sp - 1.0) / (se + sp - 1.0)).clamp(0.0, 1.0);
        Self {
            rate,
            lower: (centre + shift - half).clamp(0.0, rate),
            upper: (centre + shift + half).clamp(rate, 1.0),
            effective_audits: n,
        }
    }
}

/// The interval of a share that `wrong` of `audits` had, which at all times together leaves the true one
/// out with probability `miss` at most: where the ratio of a beta-binomial mixture to the likelihood stays
/// below `1/miss` (Robbins, "Statistical methods related to the law of the iterated logarithm", 1970).
pub(crate) fn always(wrong: u64, audits: u64, miss: f64) -> (f64, f64) {
    let (k, n) = (wrong.min(audits) as f64, audits as f64);
    if audits == 0 {
        return (0.0, 1.0);
    }
    let mixture = ln_beta(k + 0.5, n - k + 0.5) - ln_beta(0.5, 0.5);
    let limit = (1.0 / miss).ln();
    let term = |count: f64, share: f64| {
        if count == 0.0 {
            0.0
        } else {
            count * share.ln()
        }
    };
    let out = |share: f64| mixture - term(k, share) - term(n - k, 1.0 - share) >= limit;
    let mode = k / n;
    // Between a share that is out, or the end, and the mode, which is in.
    let edge = |end: f64| {
        if !out(end) {
            return end;
        }
        let (mut outside, mut inside) = (end, mode);
        for _ in 0..60 {
            let middle = 0.5 * (outside + inside);
            if out(middle) {
                outside = middle;
            } else {
                inside = middle;
            }
        }
        outside
    };
    (edge(0.0), edge(1.0))
}

fn ln_beta(a: f64, b: f64) -> f64 {
    ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b)
}

/// The logarithm of the gamma function for arguments above 0: Stirling's series, after steps up to where
/// it is exact to ten digits.
fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut below) = (x, 0.0);
    while x < 10.0 {
        below += x.ln();
        x += 1.0;
    }
    let inverse = 1.0 / x;
    let square = inverse * inverse;
    let series = inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0)));
    (x - 0.5) * x.ln() - x + 0.5 * std::f64::consts::TAU.ln() + series - below
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    #[test]
    fn the_logarithm_of_the_gamma_function_is_that_of_factorials() {
        let mut factorial = 1.0_f64;
        for n in 1..20_u32 {
            let exact = factorial.ln();
            assert!((ln_gamma(f64::from(n)) - exact).abs() < 1e-9, "{n}");
            factorial *= f64::from(n);
        }
        assert!((ln_gamma(0.5) - std::f64::consts::PI.sqrt().ln()).abs() < 1e-9);
    }

    #[test]
    fn audits_that_are_drawn_more_often_where_hits_are_bad_do_not_bias_the_rate() {
        // Nine hits in ten are good (1 % wrong, audited 2 %), one is bad (30 % wrong, audited 20 %).
        let truth = 0.9 * 0.01 + 0.1 * 0.3;
        let (mut covered, mut sum, runs) = (0, 0.0, 400);
        for seed in 0..runs {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut audits = Audits::default();
            for _ in 0..8_000 {
                let bad = rng.random::<f64>() < 0.1;
                let (wrong, drawn) = if bad { (0.3, 0.2) } else { (0.01, 0.02) };
                if rng.random::<f64>() < drawn {
                    audits.add(rng.random::<f64>() < wrong, 1.0 / drawn, NOW, 0.98);
                }
            }
            let rate = audits.rate().unwrap();
            sum += rate.rate;
            covered += usize::from(rate.lower <= truth && truth <= rate.upper);
        }
        let mean = sum / runs as f64;
        println!("truth {truth}, mean {mean:.4}, covered {covered} of {runs}");
        assert!((mean - truth).abs() < 0.002, "{mean} against {truth}");
        assert!(covered as f64 >= 0.9 * runs as f64, "{covered} of {runs}");
    }

    #[test]
    fn labels_that_are_wrong_as_often_as_was_checked_leave_the_corrected_rate_right() {
        // Labels find 85 % of the wrong hits and call 3 % of the right ones wrong.
        let (se, sp) = (0.85, 0.97);
        for truth in [0.01, 0.05, 0.2] {
            let (mut covered, mut naive, mut sum, runs) = (0, 0, 0.0, 500);
            for seed in 0..runs {
                let mut rng = StdRng::seed_from_u64(seed);
                let mut count = |of: u64, share: f64| {
                    (0..of).filter(|_| rng.random::<f64>() < share).count() as u64
                };
                let checked = CheckedLabels {
                    wrong: 60,
                    called_wrong: count(60, se),
                    right: 200,
                    called_right: count(200, sp),
                };
                let mut audits = Audits::default();
                for _ in 0..400 {
                    let wrong = rng.random::<f64>() < truth;
                    let called = rng.random::<f64>() < if wrong { se } else { 1.0 - sp };
                    audits.add(called, 1.0, NOW, 0.98);
                }
                let observed = audits.rate().unwrap();
                let rate = observed.corrected(&checked);
                assert!(rate.lower <= rate.rate && rate.rate <= rate.upper);
                sum += rate.rate;
                covered += usize::from(rate.lower <= truth && truth <= rate.upper);
                naive += usize::from(observed.lower <= truth && truth <= observed.upper);
            }
            let (covered, naive) = (covered as f64 / runs as f64, naive as f64 / runs as f64);
            let mean = sum / runs as f64;
            println!("truth {truth}: mean {mean:.4}, covered {covered}, uncorrected {naive}");
            assert!(covered >= 0.93, "{covered} at {truth}");
            // What is below 0 is cut off, so the mean is a little above.
            assert!((mean - truth).abs() < 0.01, "{mean} at {truth}");
        }
    }

    #[test]
    fn labels_no_better_than_chance_tell_nothing() {
        let mut audits = Audits::default();
        for n in 0..100 {
            audits.add(n % 2 == 0, 1.0, NOW, 1.0);
        }
        let chance = CheckedLabels {
            wrong: 50,
            called_wrong: 25,
            right: 50,
            called_right: 25,
        };
        let rate = audits.rate().unwrap().corrected(&chance);
        assert_eq!((rate.lower, rate.upper), (0.0, 1.0));
    }

    #[test]
    fn the_interval_that_always_holds_leaves_the_truth_out_in_few_runs_at_any_moment() {
        let (truth, runs) = (0.05, 400);
        let left_out = (0..runs)
            .filter(|seed| {
                let mut rng = StdRng::seed_from_u64(*seed);
                let mut wrong = 0;
                (1..=600).any(|audits| {
                    wrong += u64::from(rng.random::<f64>() < truth);
                    let (lower, upper) = always(wrong, audits, 0.05);
                    truth < lower || truth > upper
                })
            })
            .count();
        assert!(
            left_out as f64 <= 0.05 * runs as f64,
            "{left_out} of {runs}"
        );
        let (lower, upper) = always(0, 300, 0.05);
        assert!(lower == 0.0 && upper < 0.03, "{upper}");
    }

    proptest! {
        #[test]
        fn every_interval_holds_its_estimate(
            audits in prop::collection::vec((any::<bool>(), 1.0..500.0), 1..80),
        ) {
            let mut sums = Audits::default();
            let mut wrong = 0;
            for (is_wrong, weight) in &audits {
                sums.add(*is_wrong, *weight, NOW, 0.98);
                wrong += u64::from(*is_wrong);
            }
            let rate = sums.rate().unwrap();
            prop_assert!(0.0 <= rate.lower && rate.lower <= rate.rate);
            prop_assert!(rate.rate <= rate.upper && rate.upper <= 1.0);
            prop_assert!(rate.effective_audits <= audits.len() as f64 + 1e-6);
            let share = wrong as f64 / audits.len() as f64;
            let (lower, upper) = always(wrong, audits.len() as u64, 0.05);
            prop_assert!(lower <= share && share <= upper);
        }
    }
}
