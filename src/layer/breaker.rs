//! A circuit breaker: leaves a store alone that does not work, and looks now and then whether it does.
//!
//! Closed, it lets all calls through and remembers how the last ones went. When too many failed or were
//! slow it opens: calls are refused at once. After a while it is half open: a few calls go through as
//! probes; if they succeed it closes, and if one does not it opens again.
//!
//! Always true:
//! - A call that was let through when the breaker was in another state than now changes nothing: late
//!   answers from before an outage cannot close it, nor those from within one keep it open.
//! - A call that is dropped counts as nothing, and gives the right to probe back.
//! - Time is the injected clock's. A call costs two short locks and no allocation, refused or not.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;

use super::config::BreakerConfig;
use crate::clock::{ClockHandle, Timestamp};
use crate::event::BreakerState;

/// How a call went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The store answered, whatever it said.
    Answered,
    /// The store failed.
    Failed(&'static str),
}

/// A refused call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// Why the breaker is open.
    pub(super) reason: &'static str,
    /// When it lets a probe through.
    pub(super) retry_in: Duration,
}

#[derive(Debug)]
pub(super) struct Breaker {
    config: BreakerConfig,
    clock: ClockHandle,
    core: Mutex<Core>,
}

#[derive(Debug)]
struct Core {
    phase: Phase,
    /// Counts changes of the phase.
    generation: u64,
    /// The last calls while closed, oldest first.
    window: VecDeque<Outcome>,
    failed: usize,
    slow: usize,
    /// Why it was last opened.
    reason: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed,
    Open {
        until: Timestamp,
    },
    HalfOpen {
        running: usize,
        passed: usize,
        /// When the last probe was let through.
        last: Timestamp,
    },
}

impl Phase {
    const fn state(self) -> BreakerState {
        match self {
            Self::Closed => BreakerState::Closed,
            Self::Open { .. } => BreakerState::Open,
            Self::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Outcome {
    failed: bool,
    slow: bool,
}

/// The right to make one call. Dropped without [`finish`](Self::finish), the call counts as nothing.
#[derive(Debug)]
#[must_use]
pub(super) struct Permit<'a> {
    breaker: &'a Breaker,
    generation: u64,
    probe: bool,
    since: Timestamp,
}

impl Breaker {
    pub(super) fn new(config: BreakerConfig, clock: ClockHandle) -> Self {
        Self {
            core: Mutex::new(Core {
                phase: Phase::Closed,
                generation: 0,
                window: VecDeque::with_capacity(config.window),
                failed: 0,
                slow: 0,
                reason: "",
            }),
            config,
            clock,
        }
    }

    pub(super) fn state(&self) -> BreakerState {
        self.core.lock().phase.state()
    }

    /// Why it is not closed.
    pub(super) fn reason(&self) -> Option<&'static str> {
        let core = self.core.lock();
        (core.phase != Phase::Closed).then_some(core.reason)
    }

    /// The right to make a call, and the state that asking for it has changed to.
    pub(super) fn admit(&self) -> (Result<Permit<'_>, Refused>, Option<BreakerState>) {
        let now = self.clock.now();
        let mut core = self.core.lock();
        let mut changed = None;
        if let Phase::Open { until } = core.phase {
            let left = until.since(now);
            // A clock that was set back must not keep it open for as long as that.
            if !left.is_zero() && left <= self.longest_open() {
                return (Err(core.refuse(left)), None);
            }
            core.enter(Phase::half_open(now));
            changed = Some(BreakerState::HalfOpen);
        }
        let budget = self.config.half_open_probes;
        if let Phase::HalfOpen { running, last, .. } = core.phase
            && running > 0
            && (now < last || now.since(last) >= self.config.open_for)
        {
            // Probes that do not come back, as one that goes through very many keys, hold nobody up: others
            // take their places.
            core.enter(Phase::half_open(now));
        }
        let probe = match &mut core.phase {
            Phase::HalfOpen {
                running,
                passed,
                last,
            } if *running + *passed < budget => {
                *running += 1;
                *last = now;
                true
            }
            Phase::HalfOpen { .. } => {
                return (Err(core.refuse(Duration::ZERO)), changed);
            }
            Phase::Closed | Phase::Open { .. } => false,
        };
        let permit = Permit {
            breaker: self,
            generation: core.generation,
            probe,
            since: now,
        };
        (Ok(permit), changed)
    }

    /// The store was seen to work by other means: while open, the next calls are probes.
    pub(super) fn hint(&self) -> Option<BreakerState> {
        let mut core = self.core.lock();
        if !matches!(core.phase, Phase::Open { .. }) {
            return None;
        }
        core.enter(Phase::half_open(self.clock.now()));
        Some(BreakerState::HalfOpen)
    }

    /// As long as it may stay open, the jitter included.
    fn longest_open(&self) -> Duration {
        self.config.open_for.mul_f64(1.0 + self.config.open_jitter)
    }

    fn open(&self, core: &mut Core, reason: &'static str) -> BreakerState {
        let open_for = self.config.open_for;
        let jitter = open_for.mul_f64(self.config.open_jitter * rand::random::<f64>());
        let until = self.clock.now().after(open_for + jitter);
        core.reason = reason;
        core.enter(Phase::Open { until });
        BreakerState::Open
    }

    /// Books a call; the new state if it has changed.
    fn book(
        &self,
        permit: &Permit<'_>,
        verdict: Verdict,
        may_be_slow: bool,
    ) -> Option<BreakerState> {
        let took = self.clock.now().since(permit.since);
        let slow = may_be_slow && self.config.slow_call.is_some_and(|slow| took >= slow);
        let mut core = self.core.lock();
        if core.generation != permit.generation {
            return None;
        }
        let why = match verdict {
            Verdict::Failed(kind) => Some(kind),
            Verdict::Answered if slow => Some("slow"),
            Verdict::Answered => None,
        };
        if let Phase::HalfOpen {
            running, passed, ..
        } = &mut core.phase
        {
            *running -= 1;
            if let Some(why) = why {
                return Some(self.open(&mut core, why));
            }
            *passed += 1;
            if *passed < self.config.half_open_probes {
                return None;
            }
            core.enter(Phase::Closed);
            return Some(BreakerState::Closed);
        }
        let failed = verdict != Verdict::Answered;
        core.push(Outcome { failed, slow }, self.config.window);
        if core.window.len() < self.config.min_calls {
            return None;
        }
        let share = |part: usize| part as f64 / core.window.len() as f64;
        let opens = failed && share(core.failed) >= self.config.error_rate
            || slow && share(core.slow) >= self.config.slow_rate;
        match why {
            Some(why) if opens => Some(self.open(&mut core, why)),
            _ => None,
        }
    }
}

impl Phase {
    const fn half_open(now: Timestamp) -> Self {
        Self::HalfOpen {
            running: 0,
            passed: 0,
            last: now,
        }
    }
}

impl Core {
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.generation += 1;
        self.window.clear();
        (self.failed, self.slow) = (0, 0);
    }

    fn refuse(&self, retry_in: Duration) -> Refused {
        Refused {
            reason: self.reason,
            retry_in,
        }
    }

    fn push(&mut self, outcome: Outcome, window: usize) {
        if self.window.len() == window
            && let Some(oldest) = self.window.pop_front()
        {
            self.failed -= usize::from(oldest.failed);
            self.slow -= usize::from(oldest.slow);
        }
        self.failed += usize::from(outcome.failed);
        self.slow += usize::from(outcome.slow);
        self.window.push_back(outcome);
    }
}

impl Permit<'_> {
    /// Books how the call went; the new state if that has changed it. A call that goes through all keys
    /// cannot be slow.
    pub(super) fn finish(mut self, verdict: Verdict, may_be_slow: bool) -> Option<BreakerState> {
        let changed = self.breaker.book(&self, verdict, may_be_slow);
        self.probe = false;
        changed
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if !self.probe {
            return;
        }
        let mut core = self.breaker.core.lock();
        if core.generation == self.generation
            && let Phase::HalfOpen { running, .. } = &mut core.phase
        {
            *running -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::ManualClock;

    const FAILED: Verdict = Verdict::Failed("timeout");

    fn breaker(config: BreakerConfig) -> (Breaker, Arc<ManualClock>) {
        let clock = ManualClock::starting_at(Timestamp::from_millis(1_790_000_000_000));
        (Breaker::new(config, Arc::clone(&clock) as _), clock)
    }

    fn plain() -> BreakerConfig {
        BreakerConfig {
            open_jitter: 0.0,
            ..BreakerConfig::default()
        }
    }

    /// Makes one call; whether it was let through.
    fn call(breaker: &Breaker, verdict: Verdict) -> bool {
        let (permit, _) = breaker.admit();
        permit.is_ok_and(|permit| {
            permit.finish(verdict, true);
            true
        })
    }

    fn opened(config: BreakerConfig) -> (Breaker, Arc<ManualClock>) {
        let (breaker, clock) = breaker(config);
        while breaker.state() != BreakerState::Open {
            assert!(call(&breaker, FAILED));
        }
        (breaker, clock)
    }

    #[test]
    fn it_opens_at_the_stated_share_of_failures_and_not_before_the_least_number_of_calls() {
        let (breaker, _) = breaker(plain());
        for _ in 0..4 {
            assert!(call(&breaker, FAILED));
            assert_eq!(breaker.state(), BreakerState::Closed);
        }
        assert!(call(&breaker, FAILED));
        assert_eq!(breaker.state(), BreakerState::Open);
        assert_eq!(breaker.reason(), Some("timeout"));
        assert!(!call(&breaker, Verdict::Answered));
    }

    #[test]
    fn a_store_that_worked_for_long_is_given_up_within_half_a_window() {
        let (breaker, _) = breaker(plain());
        for _ in 0..100 {
            assert!(call(&breaker, Verdict::Answered));
        }
        let mut failures = 0;
        while call(&breaker, FAILED) {
            failures += 1;
        }
        assert_eq!(failures, 5);
    }

    #[test]
    fn after_a_while_it_lets_probes_through_and_closes_when_they_succeed() {
        let (breaker, clock) = opened(plain());
        clock.advance(Duration::from_millis(4_999));
        let (refused, _) = breaker.admit();
        assert_eq!(refused.unwrap_err().retry_in, Duration::from_millis(1));
        clock.advance(Duration::from_millis(1));
        let (first, changed) = breaker.admit();
        assert_eq!(changed, Some(BreakerState::HalfOpen));
        let (second, _) = breaker.admit();
        let (third, _) = breaker.admit();
        assert!(third.is_err(), "two probes at a time");
        assert_eq!(first.unwrap().finish(Verdict::Answered, true), None);
        assert!(breaker.admit().0.is_err(), "one has passed, one runs");
        let changed = second.unwrap().finish(Verdict::Answered, true);
        assert_eq!(changed, Some(BreakerState::Closed));
        assert_eq!(breaker.reason(), None);
        assert!(call(&breaker, FAILED));
        assert_eq!(breaker.state(), BreakerState::Closed, "a fresh window");
    }

    #[test]
    fn a_probe_that_fails_or_is_slow_opens_it_again() {
        for slow in [false, true] {
            let (breaker, clock) = opened(plain());
            clock.advance(Duration::from_secs(5));
            let (probe, _) = breaker.admit();
            let verdict = if slow {
                clock.advance(Duration::from_secs(1));
                Verdict::Answered
            } else {
                FAILED
            };
            let changed = probe.unwrap().finish(verdict, true);
            assert_eq!(changed, Some(BreakerState::Open));
            assert_eq!(
                breaker.reason(),
                Some(if slow { "slow" } else { "timeout" })
            );
            clock.advance(Duration::from_millis(4_999));
            assert!(!call(&breaker, Verdict::Answered));
        }
    }

    #[test]
    fn a_call_that_is_dropped_counts_as_nothing_and_leaks_no_probe() {
        let (breaker, clock) = breaker(plain());
        for _ in 0..100 {
            drop(breaker.admit());
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        while call(&breaker, FAILED) {}
        clock.advance(Duration::from_secs(5));
        for _ in 0..100 {
            let (probe, _) = breaker.admit();
            drop(probe.unwrap());
        }
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert!(call(&breaker, Verdict::Answered));
        assert!(call(&breaker, Verdict::Answered));
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn late_answers_from_before_a_change_are_not_counted() {
        let (breaker, clock) = breaker(plain());
        let early: Vec<_> = (0..3).map(|_| breaker.admit().0.unwrap()).collect();
        while call(&breaker, FAILED) {}
        clock.advance(Duration::from_secs(5));
        let (probe, _) = breaker.admit();
        for permit in early {
            assert_eq!(permit.finish(Verdict::Answered, true), None);
        }
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        let late = probe.unwrap();
        assert!(call(&breaker, FAILED), "the second probe");
        assert_eq!(breaker.state(), BreakerState::Open);
        assert_eq!(late.finish(Verdict::Answered, true), None);
        assert_eq!(breaker.state(), BreakerState::Open);
    }

    #[test]
    fn a_store_that_answers_too_slowly_opens_it() {
        let (breaker, clock) = breaker(plain());
        for round in 0..5 {
            assert_eq!(breaker.state(), BreakerState::Closed, "{round}");
            let (permit, _) = breaker.admit();
            clock.advance(Duration::from_secs(1));
            permit.unwrap().finish(Verdict::Answered, true);
        }
        assert_eq!(breaker.state(), BreakerState::Open);
        assert_eq!(breaker.reason(), Some("slow"));
    }

    #[test]
    fn a_call_through_all_keys_cannot_be_slow() {
        let (breaker, clock) = breaker(plain());
        for _ in 0..20 {
            let (permit, _) = breaker.admit();
            clock.advance(Duration::from_secs(10));
            permit.unwrap().finish(Verdict::Answered, false);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn reopening_is_spread_over_the_stated_share() {
        let config = BreakerConfig {
            open_jitter: 0.5,
            ..BreakerConfig::default()
        };
        let mut waits = Vec::new();
        for _ in 0..50 {
            let (breaker, _) = opened(config.clone());
            waits.push(breaker.admit().0.unwrap_err().retry_in);
        }
        let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
        assert!(*least >= Duration::from_secs(5), "{least:?}");
        assert!(*most <= Duration::from_millis(7_501), "{most:?}");
        assert!(*most - *least > Duration::from_millis(500), "{waits:?}");
    }

    #[test]
    fn a_probe_that_does_not_come_back_gives_its_place_up() {
        let (breaker, clock) = opened(plain());
        clock.advance(Duration::from_secs(5));
        let (lost, _) = breaker.admit();
        assert!(call(&breaker, Verdict::Answered));
        assert!(!call(&breaker, Verdict::Answered), "both probes are taken");
        clock.advance(Duration::from_secs(5));
        assert!(call(&breaker, Verdict::Answered));
        assert!(call(&breaker, Verdict::Answered));
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert_eq!(lost.unwrap().finish(FAILED, true), None);
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_keep_it_open() {
        /// Shows what it is told, also less than before.
        #[derive(Debug)]
        struct Loose(std::sync::atomic::AtomicU64);
        impl crate::clock::Clock for Loose {
            fn now(&self) -> Timestamp {
                Timestamp::from_millis(self.0.load(std::sync::atomic::Ordering::SeqCst))
            }
        }
        let clock = Arc::new(Loose(1_790_000_000_000.into()));
        let breaker = Breaker::new(plain(), Arc::clone(&clock) as _);
        while call(&breaker, FAILED) {}
        clock
            .0
            .store(1_780_000_000_000, std::sync::atomic::Ordering::SeqCst);
        assert!(call(&breaker, Verdict::Answered));
        assert!(call(&breaker, Verdict::Answered));
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn a_hint_that_the_store_works_ends_the_wait() {
        let (breaker, _) = opened(plain());
        assert_eq!(breaker.hint(), Some(BreakerState::HalfOpen));
        assert_eq!(breaker.hint(), None);
        assert!(call(&breaker, Verdict::Answered));
    }
}
