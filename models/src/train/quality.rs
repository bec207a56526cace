//! How well cosines tell positive pairs from negative ones.

use std::collections::BTreeMap;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

use super::Example;

/// How often groups are drawn anew for an interval.
const RESAMPLES: usize = 400;

/// How well scores rank pairs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quality {
    /// Area under the ROC curve: the chance that a positive pair scores above a negative one, ties counting
    /// half.
    pub auc: f64,
    /// Average precision: mean precision at the positive pairs, best score first.
    pub average_precision: f64,
}

impl Quality {
    /// Of these scores of pairs with these labels.
    #[must_use]
    pub fn of(scores: &[f32], labels: &[bool]) -> Self {
        let ones = vec![1; scores.len()];
        Self::weighed(&ranked(scores), scores, labels, &ones)
    }

    /// As [`of`](Self::of), each pair counting so many times; `order` is that of descending scores.
    fn weighed(order: &[usize], scores: &[f32], labels: &[bool], times: &[u32]) -> Self {
        let (mut positives, mut negatives) = (0.0, 0.0);
        let (mut below, mut precisions) = (0.0, 0.0);
        // Pairs of one score at a time: their order means nothing.
        for tied in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
            let count = |label: bool| -> f64 {
                let of_label = tied.iter().filter(|&&at| labels[at] == label);
                of_label.map(|&at| f64::from(times[at])).sum()
            };
            let (up, down) = (count(true), count(false));
            below += down * (positives + up / 2.0);
            positives += up;
            negatives += down;
            if up > 0.0 {
                precisions += up * positives / (positives + negatives);
            }
        }
        let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        Self {
            auc: share(below, positives * negatives),
            average_precision: share(precisions, positives),
        }
    }
}

/// Change of the area under the ROC curve, with an interval of 95 % by bootstrap over groups.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Gain {
    /// What the area gained.
    pub auc: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Gain {
    pub(super) fn of(before: &[f32], after: &[f32], pairs: &[Example], seed: u64) -> Self {
        let labels = labels(pairs);
        let mut groups: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (at, pair) in pairs.iter().enumerate() {
            groups.entry(pair.group).or_default().push(at);
        }
        let groups: Vec<_> = groups.into_values().collect();
        let orders = [ranked(before), ranked(after)];
        let gain = |times: &[u32]| {
            let [old, new] = [(before, &orders[0]), (after, &orders[1])]
                .map(|(scores, order)| Quality::weighed(order, scores, &labels, times).auc);
            new - old
        };
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut drawn: Vec<f64> = (0..RESAMPLES)
            .map(|_| {
                let mut times = vec![0; before.len()];
                for _ in 0..groups.len() {
                    for &at in &groups[random.random_range(0..groups.len())] {
                        times[at] += 1;
                    }
                }
                gain(&times)
            })
            .collect();
        drawn.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| drawn[(share * (RESAMPLES - 1) as f64).round() as usize];
        Self {
            auc: gain(&vec![1; before.len()]),
            low: at(0.025),
            high: at(0.975),
        }
    }
}

pub(super) fn labels(pairs: &[Example]) -> Vec<bool> {
    pairs.iter().map(|pair| pair.same).collect()
}

/// Positions by descending score.
fn ranked(scores: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_area_is_the_share_of_pairs_of_pairs_in_the_right_order() {
        let scores = [0.9, 0.8, 0.8, 0.3, 0.1];
        let labels = [true, true, false, false, true];
        let found = Quality::of(&scores, &labels);
        // Six comparisons: two and two right of the first, one and a half of the second, none of the last.
        assert!((found.auc - 3.5 / 6.0).abs() < 1e-12);
        let expected = (1.0 + 2.0 / 3.0 + 3.0 / 5.0) / 3.0;
        assert!((found.average_precision - expected).abs() < 1e-12);
    }

    #[test]
    fn a_pair_that_counts_twice_is_there_twice() {
        let scores = [0.9, 0.5, 0.4, 0.2];
        let labels = [false, true, false, true];
        let weighed = Quality::weighed(&ranked(&scores), &scores, &labels, &[1, 2, 0, 1]);
        let repeated = Quality::of(&[0.9, 0.5, 0.5, 0.2], &[false, true, true, true]);
        assert_eq!(weighed, repeated);
    }
}
