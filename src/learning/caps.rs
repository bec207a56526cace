//! How much may be done in a time: reports of one principal in a window, calls and dollars in a day.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// Principals that are told apart; of more, those whose window began first are forgotten.
const PRINCIPALS: usize = 4_096;

/// Reports that principals have made.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    /// When a principal's window began, and reports since.
    open: HashMap<u64, (Timestamp, u32)>,
}

impl Windows {
    /// Whether a principal may report once more, and notes it if so.
    pub(crate) fn admit(
        &mut self,
        principal: u64,
        now: Timestamp,
        most: u32,
        window: Duration,
    ) -> bool {
        if self.open.len() >= PRINCIPALS && !self.open.contains_key(&principal) {
            self.open.retain(|_, (since, _)| now.since(*since) < window);
            if self.open.len() >= PRINCIPALS
                && let Some(oldest) = self.open.iter().min_by_key(|(_, (since, _))| *since)
            {
                let oldest = *oldest.0;
                self.open.remove(&oldest);
            }
        }
        let (since, made) = self.open.entry(principal).or_insert((now, 0));
        if now.since(*since) >= window {
            (*since, *made) = (now, 0);
        }
        let admitted = *made < most;
        *made += u32::from(admitted);
        admitted
    }
}

/// What was spent on one day, by UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spent {
    day: u64,
    calls: u64,
    usd: f64,
}

impl Spent {
    fn day_of(now: Timestamp) -> u64 {
        now.as_millis() / 86_400_000
    }

    /// Whether another call is within a day's budget. A call is only charged once it was made, so the last
    /// one may go beyond the dollars.
    pub(crate) fn allows(&self, now: Timestamp, calls: u64, usd: f64) -> bool {
        if self.day != Self::day_of(now) {
            return calls > 0 && usd > 0.0;
        }
        self.calls < calls && self.usd < usd
    }

    /// Charges calls. Those of a day that is over change nothing.
    pub(crate) fn charge(&mut self, at: Timestamp, calls: u64, usd: f64) {
        let day = Self::day_of(at);
        if day > self.day {
            *self = Self {
                day,
                ..Self::default()
            };
        }
        if day == self.day {
            self.calls += calls;
            self.usd += usd.max(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_790_000_000_000 + seconds * 1000)
    }

    proptest! {
        #[test]
        fn nobody_reports_more_than_twice_the_cap_within_any_hour(
            gaps in prop::collection::vec(0_u64..600, 1..300),
            most in 1_u32..20,
        ) {
            let mut windows = Windows::default();
            let mut now = 0;
            let mut taken = Vec::new();
            for gap in gaps {
                now += gap;
                if windows.admit(1, at(now), most, HOUR) {
                    taken.push(now);
                }
            }
            for (i, first) in taken.iter().enumerate() {
                let within = taken[i..].iter().filter(|time| *time - first < 3600).count();
                prop_assert!(within <= 2 * most as usize);
            }
        }

        #[test]
        fn no_day_has_more_calls_than_its_budget(
            gaps in prop::collection::vec(0_u64..20_000, 1..200),
            calls in 0_u64..5,
        ) {
            let mut spent = Spent::default();
            let mut now = 0;
            let mut days = HashMap::<u64, u64>::new();
            for gap in gaps {
                now += gap;
                if spent.allows(at(now), calls, 1.0) {
                    spent.charge(at(now), 1, 0.001);
                    *days.entry(Spent::day_of(at(now))).or_default() += 1;
                }
            }
            prop_assert!(days.values().all(|made| *made <= calls));
        }
    }

    #[test]
    fn one_principal_does_not_use_up_the_reports_of_another() {
        let mut windows = Windows::default();
        assert!(windows.admit(1, at(0), 1, HOUR));
        assert!(!windows.admit(1, at(1), 1, HOUR));
        assert!(windows.admit(2, at(1), 1, HOUR));
        assert!(windows.admit(1, at(3601), 1, HOUR));
    }

    #[test]
    fn the_windows_stay_few_however_many_report() {
        let mut windows = Windows::default();
        for principal in 0..10_000 {
            assert!(windows.admit(principal, at(0), 1, HOUR));
        }
        assert!(windows.open.len() <= PRINCIPALS);
    }

    #[test]
    fn dollars_end_a_day_as_calls_do() {
        let mut spent = Spent::default();
        assert!(!spent.allows(at(0), 10, 0.0));
        spent.charge(at(0), 1, 0.6);
        assert!(spent.allows(at(0), 10, 1.0));
        spent.charge(at(0), 1, 0.6);
        assert!(!spent.allows(at(0), 10, 1.0));
        assert!(spent.allows(at(86_400), 10, 1.0));
    }
}
