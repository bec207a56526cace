//! The figures of a policy on counted decisions, with their intervals.
//!
//! Intervals are by bootstrap over components (B. Efron 1979): decisions of one component stand or fall
//! together, so components are drawn with repetition, not decisions. They cover 95 %.
//!
//! Two kinds of figures are told apart. At the policy's own operating point: what it serves. Along its
//! curve: how well its score ranks, as the cut-off falls from strict to loose. A figure along the curve at
//! a bound takes the loosest cut-off that the judged decisions themselves allow, so it compares scores and
//! promises nothing; `promise.rs` is about promises.

use std::collections::BTreeMap;

use serde::Serialize;

use super::replay::Call;
use super::seed::Rng;
use super::stats::{Interval, upper_bound};

/// Draws of a bootstrap.
const DRAWS: usize = 400;

/// Costs of a wrong answer, in savings of a right one, at which utility is given.
pub(crate) const ERROR_COSTS: [f64; 3] = [5.0, 20.0, 100.0];

/// Wrong answers per request up to which hits are given.
pub(crate) const PER_REQUEST: [f64; 3] = [0.01, 0.02, 0.05];

/// Wrong answers per hit up to which hits are given.
pub(crate) const PER_HIT: f64 = 0.01;

/// Bounds on wrong answers per hit that clean labels may prove.
pub(crate) const PROVEN: [f64; 4] = [PER_HIT, 0.02, 0.05, 0.1];

/// A figure and where it lies with 95 % confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Figure {
    /// The figure; `None` where there is nothing to divide by.
    pub(crate) value: Option<f64>,
    /// Its interval.
    pub(crate) interval: Option<Interval>,
}

/// What a policy served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Counts {
    /// Decisions.
    pub(crate) requests: f64,
    /// Decisions with a right answer stored.
    pub(crate) answerable: f64,
    /// Right hits.
    pub(crate) right: f64,
    /// Wrong hits.
    pub(crate) wrong: f64,
    /// Decisions for which the second cosine was asked.
    pub(crate) refined: f64,
}

impl Counts {
    fn add(&mut self, call: &Call) {
        self.requests += 1.0;
        self.answerable += f64::from(u8::from(call.answerable));
        self.right += f64::from(u8::from(call.served == Some(true)));
        self.wrong += f64::from(u8::from(call.served == Some(false)));
        self.refined += f64::from(u8::from(call.refined));
    }

    fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.answerable += other.answerable;
        self.right += other.right;
        self.wrong += other.wrong;
        self.refined += other.refined;
    }

    /// What all decisions come to.
    pub(crate) fn of(calls: &[Call]) -> Self {
        let mut counts = Self::default();
        for call in calls {
            counts.add(call);
        }
        counts
    }

    pub(crate) fn hit_rate(&self) -> Option<f64> {
        ratio(self.right + self.wrong, self.requests)
    }

    pub(crate) fn true_hit_rate(&self) -> Option<f64> {
        ratio(self.right, self.answerable)
    }

    pub(crate) fn wrong_per_hit(&self) -> Option<f64> {
        ratio(self.wrong, self.right + self.wrong)
    }

    pub(crate) fn wrong_per_request(&self) -> Option<f64> {
        ratio(self.wrong, self.requests)
    }

    /// Wrong hits among the decisions without a right answer. Where a right answer was stored too, a wrong
    /// hit counts here as well, so that this never looks better than it is.
    pub(crate) fn must_not_served(&self) -> Option<f64> {
        ratio(
            self.wrong,
            (self.requests - self.answerable).max(self.wrong),
        )
    }

    /// Savings of right hits less the cost of wrong ones, per request, in savings of one right hit.
    pub(crate) fn utility(&self, error_cost: f64) -> Option<f64> {
        ratio(self.right - error_cost * self.wrong, self.requests)
    }
}

fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

/// The figures at the operating point.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Operating {
    /// What they are made of.
    pub(crate) counts: Counts,
    /// Hits per request.
    pub(crate) hit_rate: Figure,
    /// Right hits per request with a right answer stored.
    pub(crate) true_hit_rate: Figure,
    /// Wrong hits per hit.
    pub(crate) wrong_per_hit: Figure,
    /// Wrong hits per hit, an upper bound at 95 % (C. Clopper, E. Pearson 1934), decisions taken as
    /// independent.
    pub(crate) wrong_per_hit_upper: Option<f64>,
    /// Wrong hits per request.
    pub(crate) wrong_per_request: Figure,
    /// Wrong hits per request without a right answer stored.
    pub(crate) must_not_served: Figure,
    /// Utility per request at each of [`ERROR_COSTS`].
    pub(crate) utility: [Figure; ERROR_COSTS.len()],
    /// Share of decisions for which the second cosine was asked.
    pub(crate) refined: Option<f64>,
}

impl Operating {
    /// The figures of these decisions.
    pub(crate) fn of(calls: &[Call], seed: u64) -> Self {
        let mut groups: BTreeMap<u64, Counts> = BTreeMap::new();
        for call in calls {
            groups.entry(call.group).or_default().add(call);
        }
        let groups: Vec<Counts> = groups.into_values().collect();
        let mut rng = Rng::new(seed);
        let draws: Vec<Counts> = (0..DRAWS)
            .map(|_| {
                let mut drawn = Counts::default();
                for _ in 0..groups.len() {
                    drawn.merge(&groups[rng.below(groups.len())]);
                }
                drawn
            })
            .collect();
        let counts = Counts::of(calls);
        let figure = |of: &dyn Fn(&Counts) -> Option<f64>| Figure {
            value: of(&counts),
            interval: middle(draws.iter().filter_map(of).collect()),
        };
        let (wrong, hits) = (
            counts.wrong as usize,
            (counts.right + counts.wrong) as usize,
        );
        Self {
            hit_rate: figure(&Counts::hit_rate),
            true_hit_rate: figure(&Counts::true_hit_rate),
            wrong_per_hit: figure(&Counts::wrong_per_hit),
            wrong_per_hit_upper: upper_bound(wrong, hits),
            wrong_per_request: figure(&Counts::wrong_per_request),
            must_not_served: figure(&Counts::must_not_served),
            utility: ERROR_COSTS.map(|cost| figure(&|counts: &Counts| counts.utility(cost))),
            refined: ratio(counts.refined, counts.requests),
            counts,
        }
    }
}

/// The figures along the curve.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Curve {
    /// Area under precision against hit rate: the mean precision over all requests, a request that is never
    /// served counting as nought.
    pub(crate) area: Figure,
    /// Right hits per request with a right answer stored, at each of [`PER_REQUEST`].
    pub(crate) hits_at_wrong_per_request: [Figure; PER_REQUEST.len()],
    /// The same while at most [`PER_HIT`] of the hits are wrong.
    pub(crate) hits_at_wrong_per_hit: Figure,
    /// The same while an upper bound at 95 % on the share of wrong hits is at most [`PER_HIT`]; nought
    /// where there are too few hits to show it.
    pub(crate) hits_at_proven_wrong_per_hit: f64,
    /// The same at each of [`PROVEN`].
    pub(crate) proven: [Proven; PROVEN.len()],
    /// Precision against hit rate, from strict to loose.
    pub(crate) points: Vec<Point>,
}

/// Right hits while an upper bound at 95 % on the share of wrong ones is within a bound.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Proven {
    pub(crate) wrong_per_hit: f64,
    /// Right hits per request with a right answer stored; nought where there are too few to show it.
    pub(crate) found: f64,
    /// How many times those of the best threshold on a cosine of the same embedding; `None` where no threshold has
    /// any, and for thresholds.
    pub(crate) against_static: Option<f64>,
}

/// A cut-off of a [`Curve`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Point {
    pub(crate) cutoff: f64,
    pub(crate) hit_rate: f64,
    pub(crate) precision: f64,
    pub(crate) wrong_per_request: f64,
}

/// Points kept of a curve.
const POINTS: usize = 200;

/// What a sweep of the cut-off finds, for one weighting of the decisions.
#[derive(Clone, Copy, Debug, Default)]
struct Swept {
    area: f64,
    at_request: [f64; PER_REQUEST.len()],
    at_hit: f64,
}

/// A decision with a score; the strictest first.
struct Scored {
    score: f64,
    right: bool,
    group: usize,
}

impl Curve {
    /// The curve of these decisions; `None` where no score can be swept.
    pub(crate) fn of(calls: &[Call], seed: u64) -> Option<Self> {
        let mut places: BTreeMap<u64, usize> = BTreeMap::new();
        for call in calls {
            let next = places.len();
            places.entry(call.group).or_insert(next);
        }
        let mut requests = vec![0.0; places.len()];
        let mut answerable = vec![0.0; places.len()];
        let mut scored = Vec::new();
        for call in calls {
            let group = places.get(&call.group).copied()?;
            requests[group] += 1.0;
            answerable[group] += f64::from(u8::from(call.answerable));
            scored.extend(call.surest.map(|(score, right)| Scored {
                score,
                right,
                group,
            }));
        }
        if scored.is_empty() {
            return None;
        }
        scored.sort_by(|a, b| b.score.total_cmp(&a.score));
        let total = |weights: &[f64], of: &[f64]| -> f64 {
            weights.iter().zip(of).map(|(weight, n)| weight * n).sum()
        };
        let sweep = |weights: &[f64]| {
            let (n, m) = (total(weights, &requests), total(weights, &answerable));
            sweep(&scored, weights, n, m)
        };
        let once = vec![1.0; places.len()];
        let all = sweep(&once);
        let mut rng = Rng::new(seed);
        let draws: Vec<Swept> = (0..DRAWS)
            .map(|_| {
                let mut weights = vec![0.0; places.len()];
                for _ in 0..places.len() {
                    weights[rng.below(places.len())] += 1.0;
                }
                sweep(&weights)
            })
            .collect();
        let figure = |of: &dyn Fn(&Swept) -> f64| Figure {
            value: Some(of(&all)),
            interval: middle(draws.iter().map(of).collect()),
        };
        let m: f64 = answerable.iter().sum();
        Some(Self {
            area: figure(&|swept| swept.area),
            hits_at_wrong_per_request: std::array::from_fn(|i| {
                figure(&|swept: &Swept| swept.at_request[i])
            }),
            hits_at_wrong_per_hit: figure(&|swept| swept.at_hit),
            hits_at_proven_wrong_per_hit: proven(&scored, m, PER_HIT),
            proven: PROVEN.map(|bound| Proven {
                wrong_per_hit: bound,
                found: proven(&scored, m, bound),
                against_static: None,
            }),
            points: points(&scored, calls.len() as f64),
        })
    }
}

/// Says of each curve how many times it proves what the best of the curves of thresholds does.
pub(crate) fn compare_proven(statics: &[Curve], curve: &mut Curve) {
    for (at, proven) in curve.proven.iter_mut().enumerate() {
        let found = statics.iter().filter_map(|curve| curve.proven.get(at));
        let best = found.map(|proven| proven.found).fold(0.0, f64::max);
        proven.against_static = (best > 0.0).then(|| proven.found / best);
    }
}

/// Calls `each` with the right and wrong hits so far after every run of equal scores.
fn walk(scored: &[Scored], weights: &[f64], mut each: impl FnMut(&Scored, f64, f64, f64)) {
    let (mut right, mut wrong) = (0.0, 0.0);
    for tied in scored.chunk_by(|a, b| a.score.total_cmp(&b.score).is_eq()) {
        let mut weight = 0.0;
        for one in tied {
            let w = weights[one.group];
            weight += w;
            if one.right {
                right += w;
            } else {
                wrong += w;
            }
        }
        if let Some(first) = tied.first() {
            each(first, weight, right, wrong);
        }
    }
}

fn sweep(scored: &[Scored], weights: &[f64], requests: f64, answerable: f64) -> Swept {
    let mut swept = Swept::default();
    let hits = |right: f64| {
        if answerable > 0.0 {
            right / answerable
        } else {
            0.0
        }
    };
    walk(scored, weights, |_, weight, right, wrong| {
        if right + wrong <= 0.0 || requests <= 0.0 {
            return;
        }
        swept.area += right / (right + wrong) * weight / requests;
        for (at, budget) in swept.at_request.iter_mut().zip(PER_REQUEST) {
            if wrong <= budget * requests {
                *at = hits(right);
            }
        }
        if wrong <= PER_HIT * (right + wrong) {
            swept.at_hit = hits(right);
        }
    });
    swept
}

fn proven(scored: &[Scored], answerable: f64, bound: f64) -> f64 {
    let groups = scored
        .iter()
        .map(|one| one.group)
        .max()
        .map_or(0, |last| last + 1);
    let mut best = 0.0;
    walk(scored, &vec![1.0; groups], |_, _, right, wrong| {
        let upper = upper_bound(wrong as usize, (right + wrong) as usize);
        if upper.is_some_and(|upper| upper <= bound) && answerable > 0.0 {
            best = right / answerable;
        }
    });
    best
}

fn points(scored: &[Scored], requests: f64) -> Vec<Point> {
    let groups = scored
        .iter()
        .map(|one| one.group)
        .max()
        .map_or(0, |last| last + 1);
    let mut all = Vec::new();
    walk(scored, &vec![1.0; groups], |first, _, right, wrong| {
        all.push(Point {
            cutoff: first.score,
            hit_rate: (right + wrong) / requests,
            precision: right / (right + wrong),
            wrong_per_request: wrong / requests,
        });
    });
    let step = all.len().div_ceil(POINTS).max(1);
    let last = all.len().saturating_sub(1);
    let kept = all.iter().enumerate();
    kept.filter(|(i, _)| i % step == 0 || *i == last)
        .map(|(_, point)| *point)
        .collect()
}

/// The middle 95 % of bootstrap draws.
fn middle(mut draws: Vec<f64>) -> Option<Interval> {
    draws.sort_by(f64::total_cmp);
    let at = |q: f64| {
        let place = q * draws.len().saturating_sub(1) as f64;
        draws.get(place.round() as usize).copied()
    };
    Some(Interval {
        low: at(0.025)?,
        high: at(0.975)?,
    })
}

/// How probabilities turn out: decisions in bins of equal size by the score of the surest candidate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Bin {
    /// Mean score.
    pub(crate) score: f64,
    /// Share that was right.
    pub(crate) right: f64,
    /// Decisions.
    pub(crate) decisions: usize,
}

/// Bins of a reliability plot.
const BINS: usize = 12;

/// The reliability of a score; empty without scores.
pub(crate) fn reliability(calls: &[Call]) -> Vec<Bin> {
    let mut scored: Vec<(f64, bool)> = calls.iter().filter_map(|call| call.surest).collect();
    scored.sort_by(|a, b| a.0.total_cmp(&b.0));
    let size = scored.len().div_ceil(BINS).max(1);
    scored
        .chunks(size)
        .map(|bin| {
            let n = bin.len() as f64;
            Bin {
                score: bin.iter().map(|(score, _)| score).sum::<f64>() / n,
                right: bin.iter().filter(|(_, right)| *right).count() as f64 / n,
                decisions: bin.len(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(group: u64, score: f64, right: bool, served: bool) -> Call {
        Call {
            group,
            answerable: right,
            surest: Some((score, right)),
            served: served.then_some(right),
            refined: false,
        }
    }

    fn ranked(n: u64) -> Vec<Call> {
        // Every fourth is wrong, but for the surest quarter.
        (0..n)
            .map(|i| {
                let right = i < n / 4 || i % 4 != 0;
                call(i / 2, 1.0 - i as f64 / n as f64, right, i < n / 2)
            })
            .collect()
    }

    #[test]
    fn shares_are_those_of_a_hand_count() {
        let calls = [
            call(1, 0.9, true, true),
            call(1, 0.8, false, true),
            call(2, 0.7, true, false),
            call(3, 0.6, false, false),
        ];
        let figures = Operating::of(&calls, 1);
        assert_eq!(figures.hit_rate.value, Some(0.5));
        assert_eq!(figures.true_hit_rate.value, Some(0.5));
        assert_eq!(figures.wrong_per_hit.value, Some(0.5));
        assert_eq!(figures.wrong_per_request.value, Some(0.25));
        assert_eq!(figures.must_not_served.value, Some(0.5));
        assert_eq!(figures.utility[0].value, Some((1.0 - 5.0) / 4.0));
        let curve = Curve::of(&calls, 1).unwrap();
        // Precisions 1, 1/2, 2/3, 2/4 over four requests.
        let area = (1.0 + 0.5 + 2.0 / 3.0 + 0.5) / 4.0;
        assert!((curve.area.value.unwrap() - area).abs() < 1e-12);
        assert_eq!(curve.hits_at_wrong_per_request[0].value, Some(0.5));
        assert_eq!(curve.hits_at_proven_wrong_per_hit, 0.0);
    }

    #[test]
    fn what_is_proven_is_compared_with_the_best_threshold() {
        // Four hundred right ones without a wrong one prove 1 %; the other has a wrong one in twenty.
        let clean: Vec<Call> = (0..400)
            .map(|i| call(i, 1.0 - i as f64 / 1e3, true, true))
            .collect();
        let noisy: Vec<Call> = (0..400)
            .map(|i| call(i, 1.0 - i as f64 / 1e3, i % 20 != 19, true))
            .collect();
        let mut curve = Curve::of(&clean, 1).unwrap();
        assert_eq!(curve.proven[0].found, 1.0);
        let none = Curve::of(&noisy, 1).unwrap();
        assert_eq!(none.proven[0].found, 0.0);
        assert!(none.proven[3].found > 0.5);
        compare_proven(std::slice::from_ref(&none), &mut curve);
        assert_eq!(curve.proven[0].against_static, None);
        let times = curve.proven[3].against_static.unwrap();
        assert!((times - 1.0 / none.proven[3].found).abs() < 1e-12);
    }

    #[test]
    fn equal_scores_are_served_together() {
        let calls = [call(1, 0.9, true, true), call(2, 0.9, false, true)];
        let curve = Curve::of(&calls, 1).unwrap();
        assert_eq!(curve.hits_at_wrong_per_request[2].value, Some(0.0));
        assert_eq!(curve.points.len(), 1);
    }

    #[test]
    fn a_looser_bound_gives_no_fewer_hits() {
        let calls = ranked(4_000);
        let curve = Curve::of(&calls, 1).unwrap();
        let at = curve
            .hits_at_wrong_per_request
            .map(|figure| figure.value.unwrap());
        assert!(at[0] > 0.3 && at[0] <= at[1] && at[1] <= at[2], "{at:?}");
        assert!(curve.hits_at_proven_wrong_per_hit > 0.2);
        assert!(curve.hits_at_proven_wrong_per_hit <= curve.hits_at_wrong_per_hit.value.unwrap());
    }

    #[test]
    fn intervals_hold_their_figure_and_narrow_with_more_data() {
        let width = |n| {
            let figure = Operating::of(&ranked(n), 1).wrong_per_request;
            let interval = figure.interval.unwrap();
            assert!((interval.low..=interval.high).contains(&figure.value.unwrap()));
            interval.high - interval.low
        };
        assert!(width(8_000) * 2.0 < width(400));
    }

    #[test]
    fn decisions_of_one_component_count_as_one() {
        let apart: Vec<Call> = (0..400).map(|i| call(i, 0.9, i % 10 != 0, true)).collect();
        let together: Vec<Call> = (0..400)
            .map(|i| call(i % 10, 0.9, i % 10 != 0, true))
            .collect();
        let width = |calls: &[Call]| {
            let interval = Operating::of(calls, 1).wrong_per_hit.interval.unwrap();
            interval.high - interval.low
        };
        assert!(width(&together) > 3.0 * width(&apart));
    }

    #[test]
    fn nothing_to_divide_by_is_no_figure() {
        let figures = Operating::of(&[], 1);
        assert_eq!(figures.hit_rate.value, None);
        assert_eq!(figures.hit_rate.interval, None);
        assert!(Curve::of(&[], 1).is_none());
        assert!(reliability(&[]).is_empty());
    }
}
