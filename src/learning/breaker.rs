//! Whether more than a promised share of hits is wrong: tests that hold at any time.
//!
//! [`EProcess`] bets against "at most `bound` of the hits are wrong" with each audit, z = 1 where the hit
//! was wrong: its wealth is multiplied by `1 + b (z - bound)`. While the promise holds the wealth is a
//! non-negative supermartingale that starts at 1, so by Ville's inequality it ever reaches `1/zeta` with
//! probability `zeta` at most, however often it is looked at. One bet that began at the first audit would
//! have lost everything by the time that traffic drifts. So a part of the wealth begins to bet at each audit,
//! such that `1/(1 + ln(1 + t))` of it is still kept after t of them; that is a mixture of supermartingales,
//! and so is one over several sizes of the bet. Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (2024);
//! Shin, Ramdas and Rinaldo, "E-detectors" (2023).
//!
//! [`PageHinkley`] watches a mean for a shift to either side, as a warning without a guarantee.

use serde::{Deserialize, Serialize};

/// Wrong shares that the bets are best against, as multiples of the bound.
const RATIOS: [f64; 4] = [1.5, 2.5, 5.0, 10.0];

/// A bet against a bound on the share of wrong hits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct EProcess {
    audits: u64,
    /// What has begun to bet, for each size of the bet.
    invested: [f64; RATIOS.len()],
}

impl EProcess {
    /// Takes in one uniformly drawn audit.
    pub(crate) fn add(&mut self, wrong: bool, bound: f64) {
        let before = self.kept();
        self.audits += 1;
        let begins = before - self.kept();
        let z = f64::from(u8::from(wrong));
        for (ratio, wealth) in RATIOS.iter().zip(&mut self.invested) {
            // The bet whose wealth grows fastest when the share is `rate` (Kelly).
            let rate = (ratio * bound).min(0.5 * (1.0 + bound));
            let bet = ((rate - bound) / (bound * (1.0 - bound))).min(0.95 / bound);
            *wealth = ((*wealth + begins) * (1.0 + bet * (z - bound))).min(1e300);
        }
    }

    /// The wealth: 1 before the first audit. Evidence against the bound.
    pub(crate) fn wealth(&self) -> f64 {
        let invested: f64 = self.invested.iter().sum();
        self.kept() + invested / RATIOS.len() as f64
    }

    /// What has not begun to bet.
    fn kept(&self) -> f64 {
        1.0 / (1.0 + (self.audits as f64).ln_1p())
    }
}

/// The Page-Hinkley test for a change of a mean, to both sides.
///
/// E. S. Page, "Continuous inspection schemes" (1954); D. V. Hinkley (1971).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PageHinkley {
    values: u64,
    mean: f64,
    up: f64,
    down: f64,
}

impl PageHinkley {
    /// Changes of the mean up to this are no change.
    const TOLERANCE: f64 = 0.05;
    /// The sum of what goes beyond at which the mean has changed.
    const ALARM: f64 = 25.0;
    /// Values before the mean is one.
    const SETTLED: u64 = 30;

    /// Takes in a value, 0 to 1; `true` when the mean has changed, after which the test starts anew.
    pub(crate) fn add(&mut self, value: f64) -> bool {
        self.values += 1;
        self.mean += (value - self.mean) / self.values as f64;
        if self.values < Self::SETTLED {
            return false;
        }
        let off = value - self.mean;
        self.up = (self.up + off - Self::TOLERANCE).max(0.0);
        self.down = (self.down - off - Self::TOLERANCE).max(0.0);
        let changed = self.up.max(self.down) > Self::ALARM;
        if changed {
            *self = Self::default();
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    const BOUND: f64 = 0.05;
    const ZETA: f64 = 0.05;

    /// After how many audits the breaker trips, of `rates` one after the other.
    fn trips(seed: u64, rates: &[(usize, f64)]) -> Option<usize> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut process = EProcess::default();
        let mut audits = 0;
        for (count, rate) in rates {
            for _ in 0..*count {
                audits += 1;
                process.add(rng.random::<f64>() < *rate, BOUND);
                if process.wealth() >= 1.0 / ZETA {
                    return Some(audits);
                }
            }
        }
        None
    }

    #[test]
    fn it_stays_quiet_while_the_bound_is_kept_over_a_thousand_seeds() {
        for (rate, most) in [(BOUND, 0.05), (BOUND / 2.0, 0.02), (0.0, 0.0)] {
            let alarms = (0..1_000)
                .filter(|seed| trips(*seed, &[(3_000, rate)]).is_some())
                .count();
            let share = alarms as f64 / 1_000.0;
            println!("wrong {rate}: {alarms} false alarms in 1000 runs of 3000 audits");
            assert!(share <= most, "{share} at {rate}");
        }
    }

    #[test]
    fn it_trips_soon_after_the_hits_go_wrong_also_after_a_long_quiet_time() {
        for (quiet, rate, within) in [(0, 0.2, 150), (1_000, 0.2, 200), (1_000, 0.3, 100)] {
            let mut after: Vec<_> = (0..300)
                .map(|seed| {
                    let trip = trips(seed, &[(quiet, 0.01), (2_000, rate)]);
                    trip.map_or(usize::MAX, |trip| trip.saturating_sub(quiet))
                })
                .collect();
            after.sort_unstable();
            let (median, most) = (after[150], after[285]);
            println!("{quiet} quiet, then {rate}: trips after {median} audits, 95 % by {most}");
            assert!(most <= within, "{most} at {rate} after {quiet}");
        }
    }

    proptest! {
        #[test]
        fn what_the_next_audit_is_expected_to_bring_is_no_more_than_the_wealth(
            before in prop::collection::vec(any::<bool>(), 0..200),
            bound in 0.005..0.5_f64,
        ) {
            let mut process = EProcess::default();
            for wrong in before {
                process.add(wrong, bound);
            }
            let after = |wrong| {
                let mut next = process;
                next.add(wrong, bound);
                next.wealth()
            };
            prop_assert!(process.wealth() >= 0.0);
            let expected = bound * after(true) + (1.0 - bound) * after(false);
            prop_assert!(expected <= process.wealth() * (1.0 + 1e-9), "{expected}");
        }
    }

    #[test]
    fn page_hinkley_tells_a_shift_of_the_mean_and_rarely_anything_else() {
        let mut alarms = 0;
        let mut late = 0;
        for seed in 0..200 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut test = PageHinkley::default();
            for _ in 0..2_000 {
                alarms += usize::from(test.add(f64::from(u8::from(rng.random::<f64>() < 0.6))));
            }
            let told = (0..600).any(|_| test.add(f64::from(u8::from(rng.random::<f64>() < 0.3))));
            late += usize::from(!told);
        }
        assert!(alarms <= 4, "{alarms} false alarms");
        assert!(late <= 2, "{late} shifts that were not told");
    }
}
