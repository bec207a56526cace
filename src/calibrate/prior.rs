//! How much entries differ: the variance of the shift of log-odds that an entry has beyond what its
//! evidence says.

use std::collections::BTreeMap;

use super::platt::sigmoid;
use crate::entry::EntryId;

/// Variance of the prior where too few entries have more than one label to tell.
pub const DEFAULT_VARIANCE: f64 = 1.0;

/// Entries with two labels or more from which on the data is asked.
const LEAST_ENTRIES: usize = 50;

/// Moment estimate of the variance, from `(entry, log-odds, right)` rows.
///
/// For an entry with labels y and probabilities p, the sum of `y - p` has the variance
/// `V + variance * V^2` to first order, with V the sum of `p (1 - p)`. Kept within 0.05 and 4, so that
/// neither a lucky sample freezes entries nor an unlucky one believes a single label.
#[must_use]
pub fn shift_variance(rows: impl Iterator<Item = (EntryId, f64, bool)>) -> f64 {
    // In order, so that sums are the same each time.
    let mut entries: BTreeMap<EntryId, (f64, f64, u32)> = BTreeMap::new();
    for (entry, log_odds, right) in rows {
        let p = sigmoid(log_odds);
        let sums = entries.entry(entry).or_default();
        sums.0 += f64::from(u8::from(right)) - p;
        sums.1 += p * (1.0 - p);
        sums.2 += 1;
    }
    let several = || entries.values().filter(|(.., labels)| *labels >= 2);
    if several().count() < LEAST_ENTRIES {
        return DEFAULT_VARIANCE;
    }
    let (excess, squares) = several().fold((0.0, 0.0), |(excess, squares), (rest, v, _)| {
        (excess + rest * rest - v, squares + v * v)
    });
    if squares > 0.0 {
        (excess / squares).clamp(0.05, 4.0)
    } else {
        DEFAULT_VARIANCE
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    fn rows(variance: f64, entries: u64) -> Vec<(EntryId, f64, bool)> {
        let mut random = StdRng::seed_from_u64(11);
        let mut rows = Vec::new();
        for entry in 0..entries {
            // A sum of twelve uniform numbers is near enough to a normal one.
            let normal: f64 = (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0;
            for _ in 0..6 {
                let h = random.random::<f64>() * 2.0 - 1.0;
                let p = sigmoid(h + variance.sqrt() * normal);
                rows.push((EntryId::new(entry), h, random.random::<f64>() < p));
            }
        }
        rows
    }

    #[test]
    fn entries_that_differ_are_told_from_entries_that_do_not() {
        let same = shift_variance(rows(0.0, 4_000).into_iter());
        let differ = shift_variance(rows(0.5, 4_000).into_iter());
        assert!(same < 0.1, "{same}");
        // The first-order moment is low by about a third here.
        assert!((0.25..0.7).contains(&differ), "{differ}");
    }

    #[test]
    fn few_entries_tell_nothing() {
        assert_eq!(shift_variance(rows(0.5, 20).into_iter()), DEFAULT_VARIANCE);
    }
}
