//! Monotone regression, and what Venn-Abers prediction makes of it.
//!
//! [`fit`] is the pool-adjacent-violators algorithm (M. Ayer et al. 1955): the rising step function
//! nearest to the labels. [`venn_abers`] asks it twice about a score, once with the score labelled
//! wrong and once labelled right (V. Vovk and I. Petej 2014, inductive form): one of the two answers is
//! perfectly calibrated, whatever the distribution, so their distance tells how little is known.
//!
//! A step function gives all scores of a step one probability and so loses their order. As in centred
//! isotonic regression (A. Oron and N. Flournoy 2017) the probabilities are therefore kept at the
//! centres of the steps and drawn in straight lines between them.

use crate::policy::CalibrationKnot;

/// Labelled scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Labelled {
    /// The score, finite.
    pub score: f64,
    /// Whether the answer was right.
    pub right: bool,
    /// Weight, above 0.
    pub weight: f64,
}

/// One step of a monotone regression.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Weighted mean of the scores of the step.
    pub centre: f64,
    /// Least score of the step.
    pub from: f64,
    /// Weighted share of right labels.
    pub probability: f64,
    /// Sum of the weights.
    pub weight: f64,
}

impl Step {
    fn join(&mut self, other: &Self) {
        let weight = self.weight + other.weight;
        let mean = |a: f64, b: f64| (a * self.weight + b * other.weight) / weight;
        self.centre = mean(self.centre, other.centre);
        self.probability = mean(self.probability, other.probability);
        self.weight = weight;
    }
}

/// The labels by rising score, equal scores joined. Scores that are no number are left out.
fn by_score(rows: &[Labelled]) -> Vec<Step> {
    let mut rows: Vec<_> = rows
        .iter()
        .filter(|row| row.score.is_finite() && row.weight > 0.0)
        .map(|row| Step {
            centre: row.score,
            from: row.score,
            probability: f64::from(u8::from(row.right)),
            weight: row.weight,
        })
        .collect();
    rows.sort_by(|a, b| a.centre.total_cmp(&b.centre));
    rows.dedup_by(|later, earlier| {
        let same = later.from == earlier.from;
        if same {
            earlier.join(later);
            // Rounding of the mean must not move what is one score.
            earlier.centre = earlier.from;
        }
        same
    });
    rows
}

/// Joins neighbours until probabilities rise.
fn pool(rows: impl Iterator<Item = Step>) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for row in rows {
        steps.push(row);
        while let [.., left, right] = &steps[..]
            && left.probability >= right.probability
        {
            let right = *right;
            steps.pop();
            if let Some(left) = steps.last_mut() {
                left.join(&right);
            }
        }
    }
    steps
}

/// The monotone regression of `rows`, by rising score; probabilities strictly rise from step to step.
#[must_use]
pub fn fit(rows: &[Labelled]) -> Vec<Step> {
    pool(by_score(rows).into_iter())
}

/// The probability of being right at `score`, fitted with one more row there of label wrong, and of
/// label right. In O(rows) from rows that are sorted.
fn venn_abers_at(sorted: &[Step], score: f64) -> (f64, f64) {
    let at = sorted.partition_point(|row| row.from < score);
    let fitted = |right: bool| {
        let mut here = Step {
            centre: score,
            from: score,
            probability: f64::from(u8::from(right)),
            weight: 1.0,
        };
        let mut after = at;
        if let Some(same) = sorted.get(at).filter(|row| row.from == score) {
            here.join(same);
            after += 1;
        }
        let steps = pool(
            sorted[..at]
                .iter()
                .copied()
                .chain([here])
                .chain(sorted[after..].iter().copied()),
        );
        let above = steps.partition_point(|step| step.from <= score);
        steps
            .get(above.wrapping_sub(1))
            .map_or(0.5, |step| step.probability)
    };
    (fitted(false), fitted(true))
}

/// The two probabilities of Venn-Abers prediction at `score`.
#[must_use]
pub fn venn_abers(rows: &[Labelled], score: f64) -> (f64, f64) {
    venn_abers_at(&by_score(rows), score)
}

/// Most knots of a calibration map.
pub const MOST_KNOTS: usize = 64;

/// Venn-Abers probabilities at the centres of the steps of the monotone regression of `rows`, as a
/// table of at most [`MOST_KNOTS`] knots, rising in both probabilities. Empty without rows.
#[must_use]
pub fn knots(rows: &[Labelled]) -> Vec<CalibrationKnot> {
    let sorted = by_score(rows);
    let steps = pool(sorted.iter().copied());
    let mut knots: Vec<CalibrationKnot> = Vec::with_capacity(steps.len());
    for step in &steps {
        let (low, high) = venn_abers_at(&sorted, step.centre);
        // They rise by theory; rounding may differ in the last bit.
        let (low, high) = knots
            .last()
            .map_or((low, high), |last| (low.max(last.low), high.max(last.high)));
        knots.push(CalibrationKnot {
            score: step.centre,
            low,
            high,
        });
    }
    compact(&knots, MOST_KNOTS)
}

/// The `most` knots that describe the line through all of them best: the ends, and then again and
/// again the one that the line so far misses most, in log-odds. A subset of rising knots rises.
fn compact(knots: &[CalibrationKnot], most: usize) -> Vec<CalibrationKnot> {
    if knots.len() <= most.max(2) {
        return knots.to_vec();
    }
    let height = |knot: &CalibrationKnot| log_odds(knot.probability());
    let mut kept = vec![0, knots.len() - 1];
    while kept.len() < most {
        let worst = kept
            .windows(2)
            .flat_map(|ends| {
                let (a, b) = (&knots[ends[0]], &knots[ends[1]]);
                let slope = (height(b) - height(a)) / (b.score - a.score);
                (ends[0] + 1..ends[1]).map(move |i| {
                    let line = height(a) + slope * (knots[i].score - a.score);
                    ((height(&knots[i]) - line).abs(), i)
                })
            })
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let Some((_, worst)) = worst else { break };
        let place = kept.partition_point(|&i| i < worst);
        kept.insert(place, worst);
    }
    kept.into_iter().map(|i| knots[i]).collect()
}

/// Log-odds of `p`, finite.
pub(super) fn log_odds(p: f64) -> f64 {
    let p = p.clamp(1e-6, 1.0 - 1e-6);
    (p / (1.0 - p)).ln()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    fn rows(labels: &[(i32, bool)]) -> Vec<Labelled> {
        labels
            .iter()
            .map(|&(score, right)| Labelled {
                score: f64::from(score),
                right,
                weight: 1.0,
            })
            .collect()
    }

    #[test]
    fn violators_are_pooled_to_their_mean() {
        let steps = fit(&rows(&[(1, false), (2, true), (3, false), (4, true)]));
        let probabilities: Vec<_> = steps.iter().map(|step| step.probability).collect();
        assert_eq!(probabilities, [0.0, 0.5, 1.0]);
        assert_eq!(steps[1].centre, 2.5);
    }

    #[test]
    fn a_score_seen_often_has_a_narrow_interval() {
        let few = rows(&[(0, false), (1, true)]);
        let many: Vec<_> = (0..200).flat_map(|_| few.clone()).collect();
        let width = |rows: &[Labelled]| {
            let (low, high) = venn_abers(rows, 1.0);
            high - low
        };
        assert!(width(&few) > 0.3);
        assert!(width(&many) < 0.01);
    }

    #[test]
    fn venn_abers_is_calibrated_whatever_the_scores_mean() {
        // The true probability is a curve of the score that no logistic fits.
        let truth = |score: f64| {
            if score < 0.7 {
                0.2
            } else {
                0.2 + score * score * 0.7
            }
        };
        let mut random = StdRng::seed_from_u64(7);
        let mut draw = |n: usize| -> Vec<Labelled> {
            (0..n)
                .map(|_| {
                    let score = random.random::<f64>();
                    Labelled {
                        score,
                        right: random.random::<f64>() < truth(score),
                        weight: 1.0,
                    }
                })
                .collect()
        };
        let knots = knots(&draw(20_000));
        assert!(knots.len() <= MOST_KNOTS);
        let map = crate::policy::CalibrationMap::Steps { knots };
        for cell in 0..10 {
            let score = (f64::from(cell) + 0.5) / 10.0;
            let p = map.probability(score).mean();
            assert!((p - truth(score)).abs() < 0.05, "{score}: {p}");
        }
    }

    proptest! {
        #[test]
        fn the_steps_rise_and_keep_the_mean(labels in prop::collection::vec((0_i32..50, any::<bool>()), 1..200)) {
            let rows = rows(&labels);
            let steps = fit(&rows);
            prop_assert!(steps.windows(2).all(|pair| pair[0].probability < pair[1].probability));
            let mean = steps.iter().map(|s| s.probability * s.weight).sum::<f64>() / rows.len() as f64;
            let right = labels.iter().filter(|(_, right)| *right).count() as f64 / rows.len() as f64;
            prop_assert!((mean - right).abs() < 1e-9);
        }

        #[test]
        fn both_probabilities_rise_and_enclose_the_fit(labels in prop::collection::vec((0_i32..30, any::<bool>()), 1..100)) {
            let rows = rows(&labels);
            let mut last = (0.0, 0.0);
            for score in 0..30 {
                let (low, high) = venn_abers(&rows, f64::from(score));
                prop_assert!(low <= high + 1e-12);
                prop_assert!(low >= last.0 - 1e-12 && high >= last.1 - 1e-12);
                last = (low, high);
            }
            let knots = knots(&rows);
            prop_assert!(knots.windows(2).all(|k| k[0].low <= k[1].low && k[0].high <= k[1].high && k[0].score < k[1].score));
        }
    }
}
