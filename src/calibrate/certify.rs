//! Which cut-off keeps a promise: finite-sample certificates.
//!
//! A decision is served when its score reaches the cut-off, and the loss of a request is 1 when it is
//! served and wrong. Three certificates, for three promises:
//!
//! - **per request, on average** (confidence 0): Conformal Risk Control (A. Angelopoulos et al. 2022). The
//!   loosest cut-off with `(wrong + 1) / (requests + 1) <= rate`; the rate of wrong answers of a further
//!   request, averaged over calibrations, is then at most the promise. About half of the calibrations
//!   exceed it by a little.
//! - **per request, with confidence**: fixed-sequence testing from strict to loose; each cut-off is tested
//!   with the exact binomial bound (Clopper-Pearson), and the first that fails ends the sequence.
//! - **per hit, with confidence**: the same with the served decisions as trials (Learn then Test,
//!   A. Angelopoulos et al. 2021). The sequence starts where it is likeliest to pass by the scores alone,
//!   which are probabilities and blind to the labels of the certification; cut-offs so strict that they
//!   cannot pass by size would end it at once.
//!
//! Decisions of one group depend on each other, and counted as independent they would promise too much.
//! The bounds with confidence therefore count effective trials: trials over the design effect, which is
//! the variance between groups against that of independent trials (E. Korn and B. Graubard 1998). Where
//! fewer than two wrong answers were seen nothing can be said of the design effect, and each group counts
//! once.

use std::collections::HashMap;

use super::beta::upper_bound;
use crate::policy::{Bound, Cutoff};

/// One decision of the certification.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Score of the candidate that would be served; minus infinity where there is none.
    pub score: f64,
    /// Whether serving it would be wrong.
    pub wrong: bool,
    /// What belongs together.
    pub group: u64,
}

/// A rate of wrong answers that is not to be exceeded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Promise {
    /// The rate of what.
    pub bound: Bound,
    /// The rate, above 0 and below 1.
    pub rate: f64,
    /// The probability, over the data of the certification, that the promise holds; 0 for a promise per
    /// request that holds on average.
    pub confidence: f64,
}

/// Why a promise cannot be certified.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shortage {
    /// The promise.
    pub promise: Promise,
    /// Decisions that the best cut-off served, of them wrong, and decisions in all.
    pub served: u64,
    /// Of `served`.
    pub wrong: u64,
    /// Labelled decisions there were.
    pub requests: u64,
    /// Labelled decisions that are missing, at the rates seen; `None` when no number of labels would do,
    /// because even the surest answers are wrong more often than was promised.
    pub missing: Option<u64>,
}

/// The decisions by falling score, with what is counted on the way down.
struct Ranked {
    requests: usize,
    /// Ranks at which a cut-off may lie: behind the last of equal scores.
    cuts: Vec<Cut>,
    /// Groups of all decisions, and the sum of the squares of their sizes.
    groups: f64,
    sizes: f64,
}

/// A cut-off, and what it serves.
#[derive(Clone, Copy)]
struct Cut {
    score: f64,
    served: usize,
    wrong: usize,
    /// Wrong ones by the scores.
    expected: f64,
    /// Groups that are served.
    groups: usize,
    /// Sums over groups, for the design effect. With k wrong and m served of n decisions of a group:
    /// of k k, k m, m m and k n.
    sums: [f64; 4],
}

impl Ranked {
    fn new(outcomes: &[Outcome]) -> Self {
        // Groups by dense numbers, each with its wrong, served and all decisions.
        let mut numbers: HashMap<u64, usize> = HashMap::new();
        let mut counts: Vec<[f64; 3]> = Vec::new();
        let group_of: Vec<usize> = outcomes
            .iter()
            .map(|outcome| {
                let next = numbers.len();
                let number = *numbers.entry(outcome.group).or_insert(next);
                if number == counts.len() {
                    counts.push([0.0; 3]);
                }
                counts[number][2] += 1.0;
                number
            })
            .collect();
        let mut order: Vec<usize> = (0..outcomes.len())
            .filter(|&i| outcomes[i].score > f64::NEG_INFINITY)
            .collect();
        order.sort_by(|&a, &b| outcomes[b].score.total_cmp(&outcomes[a].score));
        let mut cuts = Vec::new();
        let mut cut = Cut {
            score: f64::INFINITY,
            served: 0,
            wrong: 0,
            expected: 0.0,
            groups: 0,
            sums: [0.0; 4],
        };
        for (rank, &i) in order.iter().enumerate() {
            let outcome = &outcomes[i];
            let [k, m, n] = &mut counts[group_of[i]];
            let products = |k: f64, m: f64| [k * k, k * m, m * m, k * *n];
            let before = products(*k, *m);
            cut.groups += usize::from(*m == 0.0);
            *k += f64::from(u8::from(outcome.wrong));
            *m += 1.0;
            for ((sum, after), before) in cut.sums.iter_mut().zip(products(*k, *m)).zip(before) {
                *sum += after - before;
            }
            cut.score = outcome.score;
            cut.served = rank + 1;
            cut.wrong += usize::from(outcome.wrong);
            cut.expected += 1.0 - outcome.score.clamp(0.0, 1.0);
            if order.get(rank + 1).map(|&i| outcomes[i].score) != Some(outcome.score) {
                cuts.push(cut);
            }
        }
        Self {
            requests: outcomes.len(),
            cuts,
            groups: counts.len() as f64,
            sizes: counts.iter().map(|[.., n]| n * n).sum(),
        }
    }

    /// The first cut-off at each of a row of ranks that grow by a twentieth from `first` on, and the last.
    fn grid(&self, first: usize) -> impl Iterator<Item = Cut> {
        let mut least = first.max(1);
        let last = self.cuts.last().map_or(0, |cut| cut.served);
        self.cuts.iter().copied().filter(move |cut| {
            let taken = cut.served >= least || (cut.served == last && last >= first);
            if taken {
                least = cut.served + (cut.served / 20).max(1);
            }
            taken
        })
    }

    /// Upper bound of the rate of wrong answers among the served, or among all requests.
    fn bound(&self, cut: Cut, promise: Promise) -> f64 {
        let wrong = cut.wrong as f64;
        let [kk, km, mm, kn] = cut.sums;
        let (trials, groups, cross, squares) = match promise.bound {
            Bound::PerHit => (cut.served as f64, cut.groups as f64, km, mm),
            Bound::PerRequest => (self.requests as f64, self.groups, kn, self.sizes),
        };
        let effect = if cut.wrong < 2 {
            trials / groups
        } else {
            // How much more the rate varies between samples of groups than of single trials.
            let rate = wrong / trials;
            let residuals = kk - 2.0 * rate * cross + rate * rate * squares;
            let between = groups / (groups - 1.0) * residuals / (trials * trials);
            let independent = rate * (1.0 - rate) / trials;
            if groups < 2.0 || independent <= 0.0 {
                trials / groups
            } else {
                (between / independent).max(1.0)
            }
        };
        upper_bound(wrong / effect, trials / effect, promise.confidence)
    }
}

/// The loosest cut-off that keeps the promise.
///
/// # Errors
/// [`Shortage`] when none does.
pub fn certify(outcomes: &[Outcome], promise: Promise) -> Result<Cutoff, Shortage> {
    let ranked = Ranked::new(outcomes);
    let requests = outcomes.len();
    let cutoff = |cut: Cut| Cutoff {
        bound: promise.bound,
        rate: promise.rate,
        confidence: promise.confidence,
        probability: cut.score,
        wrong: cut.wrong as u64,
        served: cut.served as u64,
        requests: requests as u64,
    };
    let passed = match promise.bound {
        Bound::PerRequest if promise.confidence == 0.0 => ranked
            .cuts
            .iter()
            .copied()
            .take_while(|cut| (cut.wrong as f64 + 1.0) / (requests as f64 + 1.0) <= promise.rate)
            .last(),
        Bound::PerRequest => ranked
            .grid(1)
            .take_while(|cut| ranked.bound(*cut, promise) <= promise.rate)
            .last(),
        Bound::PerHit => {
            let first = ranked.start(promise);
            ranked
                .grid(first)
                .take_while(|cut| ranked.bound(*cut, promise) <= promise.rate)
                .last()
        }
    };
    passed.map(cutoff).ok_or_else(|| ranked.shortage(promise))
}

/// Trials that pass without one wrong answer.
fn flawless_trials(promise: Promise) -> f64 {
    if promise.confidence == 0.0 {
        return 1.0 / promise.rate - 1.0;
    }
    (1.0 - promise.confidence).ln() / (-promise.rate).ln_1p()
}

impl Ranked {
    /// The rank at which a promise per hit is likeliest to pass by the scores alone.
    fn start(&self, promise: Promise) -> usize {
        let needed = flawless_trials(promise);
        let enough = self.cuts.iter().find(|cut| cut.groups as f64 >= needed);
        self.grid(enough.map_or(usize::MAX, |cut| cut.served))
            .map(|cut| {
                // Trials count as groups: what else they depend on, labels would have to tell.
                let share = cut.groups as f64 / cut.served as f64;
                let bound =
                    upper_bound(cut.expected * share, cut.groups as f64, promise.confidence);
                (bound, cut.served)
            })
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .map_or(usize::MAX, |(_, served)| served)
    }

    /// What is missing, from the cut-off that comes nearest.
    fn shortage(&self, promise: Promise) -> Shortage {
        let requests = self.requests as u64;
        if promise.bound == Bound::PerRequest {
            // The strictest cut-off failed. A request that nothing is served for is never wrong, so more of
            // the same always helps.
            let first = self.cuts.first();
            let wrong = first.map_or(0, |cut| cut.wrong) as u64;
            let needed = trials_for(wrong as f64, 1.0_f64.max(requests as f64), promise, false);
            return Shortage {
                promise,
                served: first.map_or(0, |cut| cut.served) as u64,
                wrong,
                requests,
                missing: needed.map(|n| (n.ceil() as u64).saturating_sub(requests).max(1)),
            };
        }
        // Of the cut-offs that serve enough to tell a rate, the one with the least.
        let enough = 20.min(self.cuts.last().map_or(0, |cut| cut.served));
        let rate = |cut: &Cut| cut.wrong as f64 / cut.served as f64;
        let best = self
            .grid(enough)
            .min_by(|a, b| rate(a).total_cmp(&rate(b)).then(b.served.cmp(&a.served)));
        let (served, wrong) = best.map_or((0, 0), |cut| (cut.served, cut.wrong));
        let missing = trials_for(wrong as f64, served as f64, promise, true).map(|hits| {
            let share = if served > 0 {
                requests as f64 / served as f64
            } else {
                1.0
            };
            ((hits * share).ceil() as u64)
                .saturating_sub(requests)
                .max(1)
        });
        Shortage {
            promise,
            served: served as u64,
            wrong: wrong as u64,
            requests,
            missing,
        }
    }
}

/// Trials that would keep the promise if `wrong` of `trials` went on (`scale`), or if there came no more
/// wrong ones. `None` when none do.
fn trials_for(wrong: f64, trials: f64, promise: Promise, scale: bool) -> Option<f64> {
    let rate = if scale && trials > 0.0 {
        wrong / trials
    } else {
        0.0
    };
    if rate >= promise.rate {
        return None;
    }
    let fixed = if scale { 0.0 } else { wrong };
    let passes = |n: f64| {
        let wrong = fixed + (rate * n).ceil();
        if promise.confidence == 0.0 {
            (wrong + 1.0) / (n + 1.0) <= promise.rate
        } else {
            upper_bound(wrong, n, promise.confidence) <= promise.rate
        }
    };
    let mut high = flawless_trials(promise).ceil().max(1.0);
    while !passes(high) {
        high *= 2.0;
        if high > 1e9 {
            return None;
        }
    }
    let mut low = high / 2.0;
    for _ in 0..40 {
        let middle = 0.5 * (low + high);
        if passes(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    Some(high.ceil())
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    /// Decisions with a true probability of being right that is the score, and its square evenly spread; a
    /// third has no candidate. Each group holds `size` decisions that are all right or all wrong together.
    fn draw(random: &mut StdRng, groups: usize, size: usize) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for group in 0..groups {
            let luck: f64 = random.random();
            let score = random.random::<f64>().sqrt();
            let nothing = random.random::<f64>() < 0.33;
            for _ in 0..size {
                outcomes.push(Outcome {
                    score: if nothing { f64::NEG_INFINITY } else { score },
                    wrong: luck > score,
                    group: group as u64,
                });
            }
        }
        outcomes
    }

    /// The true rate of wrong answers at a cut-off on the score, by integration.
    fn truth(cutoff: f64, bound: Bound) -> f64 {
        let served = 1.0 - cutoff * cutoff;
        let right = 2.0 / 3.0 * (1.0 - cutoff.powi(3));
        match bound {
            Bound::PerHit => (served - right) / served,
            Bound::PerRequest => 0.67 * (served - right),
        }
    }

    /// Of `runs` certificates, the share that promises more than is true, and the mean true rate.
    fn broken(promise: Promise, groups: usize, size: usize, runs: u64) -> (f64, f64) {
        let (mut broken, mut sum) = (0.0, 0.0);
        for seed in 0..runs {
            let mut random = StdRng::seed_from_u64(seed);
            // Nothing certified serves nothing wrong.
            let rate = certify(&draw(&mut random, groups, size), promise)
                .map_or(0.0, |cutoff| truth(cutoff.probability, promise.bound));
            broken += f64::from(u8::from(rate > promise.rate));
            sum += rate;
        }
        (broken / runs as f64, sum / runs as f64)
    }

    #[test]
    fn a_promise_with_confidence_is_broken_at_most_as_often_as_allowed() {
        for bound in [Bound::PerHit, Bound::PerRequest] {
            for (rate, groups) in [(0.05, 6_000), (0.02, 2_000), (0.05, 400)] {
                let promise = Promise {
                    bound,
                    rate,
                    confidence: 0.9,
                };
                let (share, mean) = broken(promise, groups, 1, 200);
                // 0.1 allowed; three standard errors of 200 runs are 0.064.
                assert!(share <= 0.164, "{bound:?} {rate} {groups}: broken {share}");
                if groups == 6_000 {
                    assert!(mean > 0.4 * rate, "{bound:?} {rate}: useless, {mean}");
                }
            }
        }
    }

    #[test]
    fn groups_that_stand_and_fall_together_do_not_count_as_many() {
        for bound in [Bound::PerHit, Bound::PerRequest] {
            let promise = Promise {
                bound,
                rate: 0.05,
                confidence: 0.9,
            };
            let (share, _) = broken(promise, 600, 8, 200);
            assert!(share <= 0.165, "{bound:?}: broken {share}");
        }
    }

    #[test]
    fn the_promise_on_average_holds_on_average_and_hugs_it() {
        for rate in [0.01, 0.02, 0.05] {
            let promise = Promise {
                bound: Bound::PerRequest,
                rate,
                confidence: 0.0,
            };
            let (_, mean) = broken(promise, 1_500, 1, 300);
            assert!(mean <= rate * 1.03, "{rate}: {mean}");
            assert!(mean >= rate * 0.8, "{rate}: {mean}");
        }
    }

    #[test]
    fn the_shortage_names_the_labels_that_are_missing() {
        let flawless = |n: u64| -> Vec<Outcome> {
            (0..n)
                .map(|i| Outcome {
                    score: 1.0 / (i + 1) as f64,
                    wrong: false,
                    group: i,
                })
                .collect()
        };
        let promise = Promise {
            bound: Bound::PerHit,
            rate: 0.01,
            confidence: 0.95,
        };
        let shortage = certify(&flawless(200), promise).unwrap_err();
        assert_eq!(shortage.missing, Some(99));
        assert!(certify(&flawless(299), promise).is_ok());
        let on_average = Promise {
            bound: Bound::PerRequest,
            rate: 0.01,
            confidence: 0.0,
        };
        assert_eq!(
            certify(&flawless(50), on_average).unwrap_err().missing,
            Some(49)
        );
        assert!(certify(&flawless(99), on_average).is_ok());
    }

    #[test]
    fn answers_that_are_wrong_too_often_cannot_be_certified_by_more_labels() {
        let outcomes: Vec<_> = (0..1000)
            .map(|i| Outcome {
                score: f64::from(i % 100) / 100.0,
                wrong: i / 100 % 5 == 0,
                group: i as u64,
            })
            .collect();
        let promise = Promise {
            bound: Bound::PerHit,
            rate: 0.02,
            confidence: 0.95,
        };
        assert_eq!(certify(&outcomes, promise).unwrap_err().missing, None);
    }

    #[test]
    fn equal_scores_are_served_together() {
        let outcomes: Vec<_> = (0..200)
            .map(|i| Outcome {
                score: 0.9,
                wrong: i >= 195,
                group: i,
            })
            .collect();
        let promise = |rate| Promise {
            bound: Bound::PerRequest,
            rate,
            confidence: 0.0,
        };
        assert!(certify(&outcomes, promise(0.02)).is_err());
        assert_eq!(certify(&outcomes, promise(0.05)).unwrap().served, 200);
    }

    #[test]
    fn nothing_is_certified_from_nothing() {
        for bound in [Bound::PerHit, Bound::PerRequest] {
            let promise = Promise {
                bound,
                rate: 0.05,
                confidence: 0.95,
            };
            let shortage = certify(&[], promise).unwrap_err();
            assert_eq!(shortage.requests, 0);
            assert!(shortage.missing.is_some());
        }
    }
}
