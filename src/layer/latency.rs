//! How long operations take: a histogram that costs an operation one addition.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

/// Two buckets for each doubling, from a microsecond to more than an hour.
const BUCKETS: usize = 64;

/// How long the operations of a tier took, all attempts together, in seconds.
///
/// A quantile is the upper end of the bucket that it falls into: at most 42 % more than it was.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Latency {
    /// Operations that were timed. A batch is one.
    pub operations: u64,
    /// The mean.
    pub mean_seconds: f64,
    /// Half of them took no longer.
    pub p50_seconds: f64,
    /// 95 of 100 took no longer.
    pub p95_seconds: f64,
    /// 99 of 100 took no longer.
    pub p99_seconds: f64,
}

#[derive(Debug)]
pub(super) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    micros: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            micros: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    pub(super) fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(micros)].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// `None` before the first operation.
    pub(super) fn summary(&self) -> Option<Latency> {
        let counts = self
            .buckets
            .each_ref()
            .map(|bucket| bucket.load(Ordering::Relaxed));
        let operations: u64 = counts.iter().sum();
        if operations == 0 {
            return None;
        }
        let quantile = |share: f64| {
            let rank = (operations as f64 * share).ceil() as u64;
            let mut seen = 0;
            let found = counts.iter().position(|count| {
                seen += count;
                seen >= rank
            });
            upper_end(found.unwrap_or(BUCKETS - 1))
        };
        let micros = self.micros.load(Ordering::Relaxed);
        Some(Latency {
            operations,
            mean_seconds: micros as f64 / operations as f64 / 1e6,
            p50_seconds: quantile(0.5),
            p95_seconds: quantile(0.95),
            p99_seconds: quantile(0.99),
        })
    }
}

/// The bucket of a duration: from 2^(n/2) microseconds on.
fn bucket(micros: u64) -> usize {
    let micros = micros.max(1);
    let doublings = micros.ilog2();
    let upper_half = micros as f64 >= 2_f64.powf(f64::from(doublings) + 0.5);
    (2 * doublings as usize + usize::from(upper_half)).min(BUCKETS - 1)
}

/// In seconds.
fn upper_end(bucket: usize) -> f64 {
    2_f64.powf((bucket + 1) as f64 / 2.0) / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w_69_nothing_timed_is_no_latency_and_what_was_timed_is_told_within_its_bucket() {
        let histogram = Histogram::default();
        assert_eq!(histogram.summary(), None);
        for _ in 0..98 {
            histogram.record(Duration::from_micros(100));
        }
        histogram.record(Duration::from_millis(50));
        histogram.record(Duration::from_secs(100_000));
        let told = histogram.summary().unwrap();
        assert_eq!(told.operations, 100);
        assert!((1e-4..1.42e-4).contains(&told.p50_seconds), "{told:?}");
        assert!((1e-4..1.42e-4).contains(&told.p95_seconds), "{told:?}");
        assert!((0.05..0.071).contains(&told.p99_seconds), "{told:?}");
        assert!(told.mean_seconds > 999.0, "{told:?}");
    }

    #[test]
    fn every_duration_lies_below_the_upper_end_of_its_bucket() {
        for micros in [0, 1, 2, 3, 7, 1_000, 1_414_214, 4_000_000_000] {
            let end = upper_end(bucket(micros)) * 1e6;
            assert!(
                micros as f64 <= end && end <= (micros.max(1) as f64) * 2.0 + 1.0,
                "{micros}: {end}"
            );
        }
    }
}
