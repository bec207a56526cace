//! The statistics of a report: shares with their uncertainty, ranking quality, percentiles.

use std::time::Duration;

use serde::Serialize;

/// Two-sided 95 % of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// `part / whole`; `None` when there is no whole.
pub(crate) fn share(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Where a true share lies with 95 % confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Interval {
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// Wilson's score interval (E. Wilson 1927). Holds for few and for none, where the textbook interval
/// has no width. `None` when there is no whole.
pub(crate) fn wilson(part: usize, whole: usize) -> Option<Interval> {
    let p = share(part, whole)?;
    let n = whole as f64;
    let z2 = Z * Z;
    let center = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    Some(Interval {
        low: (center - half).max(0.0),
        high: (center + half).min(1.0),
    })
}

/// The upper bound at 95 % on a share of which `part` of `whole` were seen (C. Clopper, E. Pearson 1934);
/// `None` when there is no whole.
pub(crate) fn upper_bound(part: usize, whole: usize) -> Option<f64> {
    share(part, whole)?;
    Some(askonce::calibrate::upper_bound(
        part as f64,
        whole as f64,
        0.95,
    ))
}

/// How well a score ranks what is positive above what is not.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Ranking {
    /// Chance that a positive scores above a negative; ties count half.
    pub(crate) auc: f64,
    /// Mean precision over all positives, best score first; equal scores enter together.
    pub(crate) average_precision: f64,
}

/// Ranks `(score, positive)`; `None` unless both kinds are there.
pub(crate) fn ranking(scored: &[(f32, bool)]) -> Option<Ranking> {
    let positives = scored.iter().filter(|(_, positive)| *positive).count();
    let negatives = scored.len() - positives;
    if positives == 0 || negatives == 0 {
        return None;
    }
    let mut sorted = scored.to_vec();
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut seen_positive, mut seen_negative) = (0_usize, 0_usize);
    let (mut pairs_in_order, mut average_precision) = (0.0, 0.0);
    for tied in sorted.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq()) {
        let positive = tied.iter().filter(|(_, positive)| *positive).count();
        let negative = tied.len() - positive;
        let below = negatives - seen_negative - negative;
        pairs_in_order += positive as f64 * (below as f64 + negative as f64 / 2.0);
        seen_positive += positive;
        seen_negative += negative;
        let precision = seen_positive as f64 / (seen_positive + seen_negative) as f64;
        average_precision += precision * positive as f64 / positives as f64;
    }
    let auc = pairs_in_order / (positives as f64 * negatives as f64);
    Some(Ranking {
        auc,
        average_precision,
    })
}

/// How long something took.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Timing {
    pub(crate) samples: usize,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// Percentiles by nearest rank; `None` without samples.
pub(crate) fn timing(mut samples: Vec<Duration>) -> Option<Timing> {
    samples.sort_unstable();
    let at = |q: f64| {
        let rank = (q * samples.len() as f64).ceil() as usize;
        samples
            .get(rank.saturating_sub(1))
            .map(|took| took.as_secs_f64() * 1e6)
    };
    Some(Timing {
        samples: samples.len(),
        p50_us: at(0.50)?,
        p99_us: at(0.99)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-4
    }

    #[test]
    fn wilson_agrees_with_published_values() {
        // Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
        for (part, whole, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ] {
            let interval = wilson(part, whole).unwrap();
            assert!(close(interval.low, low), "{interval:?}");
            assert!(close(interval.high, high), "{interval:?}");
        }
        assert_eq!(wilson(0, 0), None);
    }

    #[test]
    fn the_upper_bound_is_the_published_one() {
        // Hits needed to show 1 % at 95 %: 299 without a wrong one, 473 with one, 1,693 with ten.
        for (wrong, needed) in [(0, 299), (1, 473), (10, 1_693)] {
            assert!(upper_bound(wrong, needed).unwrap() <= 0.01);
            assert!(upper_bound(wrong, needed - 1).unwrap() > 0.01);
        }
        assert_eq!(upper_bound(3, 3), Some(1.0));
        assert_eq!(upper_bound(0, 0), None);
    }

    #[test]
    fn ranking_agrees_with_a_hand_count() {
        // The example of scikit-learn's documentation.
        let scored = [(0.1, false), (0.4, false), (0.35, true), (0.8, true)];
        let ranking = ranking(&scored).unwrap();
        assert!(close(ranking.auc, 0.75));
        assert!(close(ranking.average_precision, 0.833_333));
    }

    #[test]
    fn a_score_that_says_nothing_ranks_at_the_base_rate() {
        let scored: Vec<_> = (0..100).map(|i| (0.5, i % 4 == 0)).collect();
        let ranking = ranking(&scored).unwrap();
        assert!(close(ranking.auc, 0.5));
        assert!(close(ranking.average_precision, 0.25));
        assert!(super::ranking(&[(0.1, true)]).is_none());
    }

    #[test]
    fn percentiles_are_samples() {
        let samples = (1..=100).rev().map(Duration::from_micros).collect();
        let timing = timing(samples).unwrap();
        assert!(close(timing.p50_us, 50.0) && close(timing.p99_us, 99.0));
        assert_eq!(super::timing(Vec::new()), None);
        let one = super::timing(vec![Duration::from_micros(7)]).unwrap();
        assert!(close(one.p50_us, 7.0) && close(one.p99_us, 7.0));
    }
}
