//! Columns as small integers: where a tree may cut, and which side of each cut a row lies on.

use crate::fit::{TrainingRows, weighed};

/// One column in at most 255 bins, and one more for rows whose value is not known.
pub(super) struct Binned {
    /// Upper ends of the bins but the last: a value lies in the first bin whose end is not below it.
    ends: Vec<f32>,
    /// Bin per row.
    pub(super) bins: Vec<u8>,
}

impl Binned {
    /// Cuts a column so that the bins hold about equal weight; where it has no more than `most`
    /// distinct values, between all of them.
    pub(super) fn new(column: &[f32], weights: &[f32], most: u8) -> Self {
        let (values, _) = weighed(column, weights);
        let ends = ends(&values, most);
        let unknown = ends.len() as u8 + 1;
        let bins = column
            .iter()
            .map(|value| match value.is_nan() {
                true => unknown,
                false => ends.partition_point(|end| end < value) as u8,
            })
            .collect();
        Self { ends, bins }
    }

    pub(super) fn of(rows: &TrainingRows<'_>, most: u8) -> Vec<Self> {
        rows.columns
            .iter()
            .map(|column| Self::new(column, &rows.weights, most))
            .collect()
    }

    /// Number of bins, the one for the unknown left out.
    pub(super) fn known(&self) -> usize {
        self.ends.len() + 1
    }

    /// The greatest value on the left side of the cut behind `bin`. Behind the last bin all values
    /// are on the left, and only the unknown is on the right.
    pub(super) fn threshold(&self, bin: u8) -> f32 {
        self.ends.get(usize::from(bin)).copied().unwrap_or(f32::MAX)
    }
}

fn ends(values: &[(f32, f64)], most: u8) -> Vec<f32> {
    let most = usize::from(most);
    let between = |pair: &[(f32, f64)]| middle(pair[0].0, pair[1].0);
    if values.len() <= most {
        return values.windows(2).map(between).collect();
    }
    let total: f64 = values.iter().map(|(_, weight)| weight).sum();
    let mut ends = Vec::with_capacity(most - 1);
    let (mut below, mut at) = (0.0, 0.0);
    for pair in values.windows(2) {
        below += pair[0].1;
        // A value that fills several bins' weight ends one bin, and the rest is shared out again.
        let share = (total - at) / (most - ends.len()) as f64;
        if below - at >= share {
            ends.push(between(pair));
            at = below;
            if ends.len() == most - 1 {
                break;
            }
        }
    }
    ends
}

/// A number of at least `low` and below `high`, in the middle where there is one.
fn middle(low: f32, high: f32) -> f32 {
    let middle = ((f64::from(low) + f64::from(high)) / 2.0) as f32;
    if middle < high { middle } else { low }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binned(column: &[f32], most: u8) -> Binned {
        Binned::new(column, &vec![1.0; column.len()], most)
    }

    #[test]
    fn few_distinct_values_are_all_told_apart() {
        let found = binned(&[3.0, 1.0, f32::NAN, 1.0, 2.0, 0.0, -0.0], 8);
        assert_eq!(found.ends, [0.5, 1.5, 2.5]);
        assert_eq!(found.bins, [3, 1, 4, 1, 2, 0, 0]);
    }

    #[test]
    fn many_values_fall_into_bins_of_about_equal_weight() {
        let column: Vec<f32> = (0..1000).map(|i| (i * i) as f32).collect();
        let found = binned(&column, 10);
        let mut counts = [0; 10];
        for &bin in &found.bins {
            counts[usize::from(bin)] += 1;
        }
        assert_eq!(counts, [100; 10]);
    }

    #[test]
    fn a_value_that_most_rows_have_leaves_bins_for_the_others() {
        let mut column = vec![0.0; 900];
        column.extend((1..=100).map(|i| i as f32));
        let found = binned(&column, 11);
        assert_eq!(found.known(), 11);
        assert_eq!(found.threshold(0), 0.5);
    }

    #[test]
    fn neighbouring_floats_are_told_apart() {
        let next = 1.0f32.next_up();
        let found = binned(&[1.0, next], 8);
        assert_eq!(found.bins, [0, 1]);
        assert!(found.threshold(0) >= 1.0 && found.threshold(0) < next);
    }
}
