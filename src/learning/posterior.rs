//! What labels say of one entry: a Gaussian over the shift of its log-odds, one step a label.
//!
//! The model is `logit P(right) = h + a`, where `h` is the policy's log-odds without the entry's own
//! record and `a ~ N(0, s²)` belongs to the entry. A label is taken in by one Newton step (assumed-density
//! filtering; Opper, 1998). The state is kept in natural parameters, in which labels add up: so they can be
//! taken in by several processes, in any order, and the sums joined.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::policy::EntryRecord;

/// Milliseconds of a day.
const DAY: f64 = 86_400_000.0;

/// The smallest and the largest variance that labels can argue for.
const VARIANCES: (f64, f64) = (0.05, 9.0);

/// What the configured variance counts beside the labels: as much as this information, squared. About
/// eighty pairs of labels in full doubt.
const PRIOR_INFORMATION: f64 = 5.0;

/// What one label adds to an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Step {
    /// To the precision times the mean.
    natural: f32,
    /// To the precision.
    precision: f32,
    /// Label less probability, without the entry's shift.
    score: f32,
    /// Variance of the label, without the entry's shift.
    information: f32,
}

/// What is known of one entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Posterior {
    sum: Step,
    /// When `sum` was last brought up to date.
    at: Timestamp,
}

/// What the labels of a category say about how far its entries differ.
///
/// Of two labels of one entry, the product of their scores is on average the variance times the product
/// of their informations; one label alone says nothing. So the sums of both, over all pairs of labels
/// of an entry, give a moment estimate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    products: f64,
    informations: f64,
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The log-odds of a probability, kept finite.
pub(crate) fn log_odds(probability: f64) -> f64 {
    let p = probability.clamp(1e-6, 1.0 - 1e-6);
    (p / (1.0 - p)).ln()
}

impl Step {
    /// What a label adds to an entry whose mean shift is `shift`: the policy's log-odds were `log_odds`
    /// without it, and the label counts `weight`, 0 to 1.
    pub(crate) fn new(log_odds: f64, shift: f64, right: bool, weight: f64) -> Self {
        let label = f64::from(u8::from(right));
        let with = sigmoid(log_odds + shift);
        let precision = weight * with * (1.0 - with);
        let without = sigmoid(log_odds);
        Self {
            natural: (precision * shift + weight * (label - with)) as f32,
            precision: precision as f32,
            score: (weight * (label - without)) as f32,
            information: (weight * without * (1.0 - without)) as f32,
        }
    }
}

impl Posterior {
    /// The same at a later moment: of what was known, `retention` is left after a day.
    fn at(self, now: Timestamp, retention: f64) -> Self {
        let days = now.since(self.at).as_millis() as f64 / DAY;
        let left = retention.powf(days) as f32;
        Self {
            sum: Step {
                natural: self.sum.natural * left,
                precision: self.sum.precision * left,
                score: self.sum.score * left,
                information: self.sum.information * left,
            },
            at: now.max(self.at),
        }
    }

    /// Takes a label in.
    pub(crate) fn add(&mut self, step: Step, now: Timestamp, retention: f64, spread: &mut Spread) {
        let before = self.at(now, retention);
        spread.products += 2.0 * f64::from(before.sum.score) * f64::from(step.score);
        spread.informations +=
            2.0 * f64::from(before.sum.information) * f64::from(step.information);
        *self = Self {
            sum: Step {
                natural: before.sum.natural + step.natural,
                precision: before.sum.precision + step.precision,
                score: before.sum.score + step.score,
                information: before.sum.information + step.information,
            },
            at: before.at,
        };
    }

    /// What two of one answer group are told together: natural parameters add up.
    pub(crate) fn plus(self, other: Self, retention: f64) -> Self {
        let now = self.at.max(other.at);
        let (one, other) = (self.at(now, retention), other.at(now, retention));
        Self {
            sum: Step {
                natural: one.sum.natural + other.sum.natural,
                precision: one.sum.precision + other.sum.precision,
                score: one.sum.score + other.sum.score,
                information: one.sum.information + other.sum.information,
            },
            at: now,
        }
    }

    /// What a policy is told, under a prior of this variance.
    pub(crate) fn record(&self, variance: f64, now: Timestamp, retention: f64) -> EntryRecord {
        let sum = self.at(now, retention).sum;
        EntryRecord {
            shift: (f64::from(sum.natural) / (1.0 / variance + f64::from(sum.precision))) as f32,
            precision: sum.precision,
        }
    }

    /// When a label last came in.
    pub(crate) fn last(&self) -> Timestamp {
        self.at
    }
}

impl Spread {
    /// The variance of the shifts, drawn towards `prior` while there are few labels.
    pub(crate) fn variance(&self, prior: f64) -> f64 {
        let variance =
            (PRIOR_INFORMATION * prior + self.products) / (PRIOR_INFORMATION + self.informations);
        variance.clamp(VARIANCES.0, VARIANCES.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    fn learn(posterior: &mut Posterior, log_odds: f64, right: bool) {
        let record = posterior.record(1.0, NOW, 1.0);
        let step = Step::new(log_odds, f64::from(record.shift), right, 1.0);
        posterior.add(step, NOW, 1.0, &mut Spread::default());
    }

    #[test]
    fn one_wrong_answer_at_a_high_probability_takes_most_of_a_log_odd_at_once() {
        let mut posterior = Posterior::default();
        learn(&mut posterior, log_odds(0.97), false);
        let shift = posterior.record(1.0, NOW, 1.0).shift;
        assert!((-1.0..-0.9).contains(&shift), "{shift}");
    }

    #[test]
    fn labels_of_one_kind_approach_the_mode_of_the_posterior() {
        // By hand: a maximises 20 log sigma(a) - a²/2, so a = 20 sigma(-a).
        let mut posterior = Posterior::default();
        for _ in 0..20 {
            learn(&mut posterior, 0.0, true);
        }
        let shift = f64::from(posterior.record(1.0, NOW, 1.0).shift);
        let mode = 2.0_f64;
        let exact = (0..200).fold(mode, |a, _| 0.5 * a + 0.5 * 20.0 * sigmoid(-a));
        assert!((shift - exact).abs() < 0.35, "{shift} against {exact}");
    }

    proptest! {
        #[test]
        fn a_right_label_never_lowers_the_shift_and_a_wrong_one_never_raises_it(
            labels in prop::collection::vec((-4.0..4.0, any::<bool>(), 0.1..1.0), 1..60),
        ) {
            let mut posterior = Posterior::default();
            for (log_odds, right, weight) in labels {
                let before = posterior.record(1.0, NOW, 1.0);
                let step = Step::new(log_odds, f64::from(before.shift), right, weight);
                posterior.add(step, NOW, 1.0, &mut Spread::default());
                let after = posterior.record(1.0, NOW, 1.0);
                prop_assert!(after.shift.is_finite() && after.precision >= before.precision);
                let moved = after.shift - before.shift;
                prop_assert!(if right { moved >= -1e-4 } else { moved <= 1e-4 }, "{moved}");
            }
        }

        #[test]
        fn the_order_in_which_steps_are_joined_does_not_matter(
            labels in prop::collection::vec((-3.0..3.0, any::<bool>()), 2..30),
        ) {
            let steps: Vec<_> = labels.iter().map(|(h, right)| Step::new(*h, 0.0, *right, 1.0)).collect();
            let sum = |steps: &mut dyn Iterator<Item = &Step>| {
                let mut posterior = Posterior::default();
                for step in steps {
                    posterior.add(*step, NOW, 0.98, &mut Spread::default());
                }
                posterior.record(1.0, NOW, 0.98)
            };
            let (ahead, back) = (sum(&mut steps.iter()), sum(&mut steps.iter().rev()));
            prop_assert!((ahead.shift - back.shift).abs() < 1e-4);
            prop_assert!((ahead.precision - back.precision).abs() < 1e-4);
        }

        #[test]
        fn what_was_learnt_fades_and_never_grows(days in 0.0..400.0_f64) {
            let mut posterior = Posterior::default();
            for _ in 0..5 {
                learn(&mut posterior, 0.0, false);
            }
            let then = NOW.after(std::time::Duration::from_secs_f64(days * 86_400.0));
            let (now, later) = (posterior.record(1.0, NOW, 0.98), posterior.record(1.0, then, 0.98));
            prop_assert!(later.shift >= now.shift && later.shift <= 0.0);
            prop_assert!(later.precision <= now.precision);
            let left = f64::from(later.precision / now.precision);
            prop_assert!((left - 0.98_f64.powf(days)).abs() < 1e-3);
        }
    }

    #[test]
    fn the_variance_of_the_shifts_is_found_again_from_labels() {
        for truth in [0.25_f64, 1.0, 3.0] {
            let mut rng = StdRng::seed_from_u64(7);
            let mut spread = Spread::default();
            for _ in 0..4_000 {
                // A sum of twelve uniform numbers less six is near enough to a standard normal one.
                let normal = (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
                let shift = normal * truth.sqrt();
                let mut posterior = Posterior::default();
                for _ in 0..4 {
                    let right = rng.random::<f64>() < sigmoid(shift);
                    let step = Step::new(0.0, 0.0, right, 1.0);
                    posterior.add(step, NOW, 1.0, &mut spread);
                }
            }
            // The moment is linear in the shift: it falls short where shifts are large.
            let found = spread.variance(1.0);
            assert!(
                found > truth * 0.4 && found < truth * 1.25,
                "{found} for {truth}"
            );
        }
        assert_eq!(Spread::default().variance(1.5), 1.5);
    }
}
