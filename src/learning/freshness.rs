//! How fast right answers go wrong, from audits by the age of the answer.
//!
//! The model is `P(right at age a) = p exp(-h a)`: `p` is what the policy knows, `h` the hazard of a category, in
//! shares a day. Audits are kept as sums in bins of age, weighted back to all hits. The hazard is the most
//! probable one, of `p` and `h` together; some right answers of an age of a month are counted in beforehand, so
//! that few audits do not argue for a large one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// Upper ends of the bins, in days; what is older falls into one more.
const ENDS: [f64; 10] = [0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

const BINS: usize = ENDS.len() + 1;

/// As many audits are needed before anything is said.
const LEAST: f64 = 30.0;

/// What is counted in beforehand: so many right answers of this age, in days.
const BEFOREHAND: (f64, f64) = (5.0, 30.0);

/// Hazards a day that are tried, the least and the most, and how many.
const HAZARDS: (f64, f64, i32) = (1e-3, 2.0, 60);

const DAY: f64 = 86_400.0;

/// Sums over the audits of one age.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Bin {
    right: f64,
    wrong: f64,
    /// Days, weighted.
    ages: f64,
}

/// Audits of a category by age.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ages {
    bins: [Bin; BINS],
    weights: f64,
    squares: f64,
    at: Timestamp,
}

impl Ages {
    /// Takes in an audit that stands for `weight` hits; of what was there before, `retention` is left after
    /// a day.
    pub(crate) fn add(
        &mut self,
        age: Duration,
        wrong: bool,
        weight: f64,
        now: Timestamp,
        retention: f64,
    ) {
        let left = retention.powf(now.since(self.at).as_secs_f64() / DAY);
        for bin in &mut self.bins {
            bin.right *= left;
            bin.wrong *= left;
            bin.ages *= left;
        }
        self.weights = self.weights * left + weight;
        self.squares = self.squares * left * left + weight * weight;
        self.at = now.max(self.at);
        let days = age.as_secs_f64() / DAY;
        let bin = &mut self.bins[ENDS.partition_point(|end| *end < days)];
        bin.ages += days * weight;
        if wrong {
            bin.wrong += weight;
        } else {
            bin.right += weight;
        }
    }

    /// The hazard, in shares a day; `None` before there are enough audits.
    pub(crate) fn hazard(&self) -> Option<f64> {
        if self.squares <= 0.0 {
            return None;
        }
        let effective = self.weights * self.weights / self.squares;
        if effective < LEAST {
            return None;
        }
        // As many as the weighted ones are worth, or the count beforehand would be nothing beside them.
        let scale = effective / self.weights;
        let mut observed: Vec<(f64, f64, f64)> = self
            .bins
            .iter()
            .filter(|bin| bin.right + bin.wrong > 0.0)
            .map(|bin| {
                let age = bin.ages / (bin.right + bin.wrong);
                (age, bin.right * scale, bin.wrong * scale)
            })
            .collect();
        observed.push((BEFOREHAND.1, BEFOREHAND.0, 0.0));
        let likelihood = |fresh: f64, hazard: f64| -> f64 {
            let terms = observed.iter().map(|(age, right, wrong)| {
                let p = (fresh * (-hazard * age).exp()).clamp(1e-12, 1.0 - 1e-9);
                right * p.ln() + wrong * (1.0 - p).ln()
            });
            terms.sum()
        };
        let (least, most, steps) = HAZARDS;
        let hazards = (0..steps)
            .map(|step| least * (most / least).powf(f64::from(step) / f64::from(steps - 1)));
        let mut best = (f64::NEG_INFINITY, 0.0);
        for hazard in std::iter::once(0.0).chain(hazards) {
            for step in 0..60 {
                let fresh = 1.0 - 0.5 * (f64::from(step) / 60.0).powi(2);
                let likelihood = likelihood(fresh, hazard);
                if likelihood > best.0 {
                    best = (likelihood, hazard);
                }
            }
        }
        Some(best.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    fn audits(hazard: f64, fresh: f64, count: usize, seed: u64) -> Ages {
        let (mut rng, mut ages) = (StdRng::seed_from_u64(seed), Ages::default());
        for _ in 0..count {
            let days = rng.random::<f64>() * 40.0;
            let right = rng.random::<f64>() < fresh * (-hazard * days).exp();
            let age = Duration::from_secs_f64(days * DAY);
            ages.add(age, !right, 20.0, NOW, 0.98);
        }
        ages
    }

    #[test]
    fn a_hazard_is_found_again_from_audits() {
        for truth in [0.01, 0.05, 0.2] {
            let mut sum = 0.0;
            for seed in 0..10 {
                sum += audits(truth, 0.97, 400, seed).hazard().unwrap();
            }
            let mean = sum / 10.0;
            assert!(
                mean > truth * 0.6 && mean < truth * 1.5,
                "{mean} for {truth}"
            );
        }
    }

    #[test]
    fn where_age_does_not_matter_there_is_next_to_no_hazard() {
        for fresh in [1.0, 0.95, 0.8] {
            let hazard = audits(0.0, fresh, 400, 3).hazard().unwrap();
            assert!(hazard < 0.008, "{hazard} at {fresh}");
        }
    }

    #[test]
    fn few_audits_say_nothing() {
        assert_eq!(Ages::default().hazard(), None);
        assert_eq!(audits(0.5, 0.9, 29, 1).hazard(), None);
        assert!(audits(0.5, 0.9, 31, 1).hazard().is_some());
    }
}
