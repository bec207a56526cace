//! Time: of the processor where the machine is shared, of the wall where a caller waits.

use std::time::{Duration, Instant};

use cpu_time::{ProcessTime, ThreadTime};
use serde::Serialize;

/// Processor time of this thread that `work` takes.
pub(crate) fn thread_cpu<R>(work: impl FnOnce() -> R) -> (R, Duration) {
    let start = ThreadTime::now();
    let result = work();
    (result, start.elapsed())
}

/// Processor time of all threads, and time on the wall, that pass during `work`: what runs in the
/// background is counted too.
pub(crate) fn process_cpu<R>(work: impl FnOnce() -> R) -> (R, Duration, Duration) {
    let (cpu, wall) = (ProcessTime::now(), Instant::now());
    let result = work();
    (result, cpu.elapsed(), wall.elapsed())
}

/// The middle of the values; `None` of none.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Percentiles of how long calls took, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    /// Half of the calls took no longer.
    pub p50: f64,
    /// 99 of 100 took no longer.
    pub p99: f64,
}

impl Latency {
    /// By nearest rank.
    pub(crate) fn of(mut taken: Vec<Duration>) -> Self {
        taken.sort_unstable();
        let at = |share: f64| {
            let rank = (share * taken.len() as f64).ceil() as usize;
            let taken = taken.get(rank.saturating_sub(1));
            taken.map_or(0.0, |taken| taken.as_secs_f64() * 1e6)
        };
        Self {
            p50: at(0.5),
            p99: at(0.99),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let taken = (1..=200).rev().map(Duration::from_micros).collect();
        let latency = Latency::of(taken);
        assert!((latency.p50 - 100.0).abs() < 1e-9);
        assert!((latency.p99 - 198.0).abs() < 1e-9);
        assert_eq!(Latency::of(Vec::new()), Latency::default());
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(Vec::new()), None);
    }
}
