//! How one backend is, asked no more often than it must be.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::stats::{HealthStatus, PROBE_DEADLINE, TierHealth, health_of};
use crate::backend::CacheBackend;
use crate::clock::{ClockHandle, Timestamp};
use crate::layer::{BreakerState, LastError, Layered};

/// The turn to ask one backend how it is, and what it said.
///
/// Only good news is kept, and only until the backend is next seen to fail. Whoever waited for a turn while
/// another asked is content with that answer, so however many ask, a backend is asked one question at a
/// time.
#[derive(Debug)]
pub(crate) struct Probe {
    interval: Duration,
    /// Answers that have come in.
    answered: AtomicU64,
    /// Held while the backend is asked, on purpose.
    last: Mutex<Option<Answer>>,
}

#[derive(Debug)]
struct Answer {
    at: Timestamp,
    /// The failure that was the last when it was asked.
    before: Option<LastError>,
    health: TierHealth,
}

impl Probe {
    /// A probe whose good news is good for `interval`.
    pub(crate) fn new(interval: Duration) -> Self {
        Self {
            interval,
            answered: AtomicU64::new(0),
            last: Mutex::default(),
        }
    }

    /// How `backend` is; asked now, if it is to be asked at all. Takes as long as a probe may take.
    pub(crate) async fn ask(
        &self,
        backend: &Arc<Layered>,
        clock: &ClockHandle,
        checks: bool,
    ) -> TierHealth {
        if !checks {
            return seen(backend);
        }
        let deadline = Instant::now() + PROBE_DEADLINE;
        let asked = timeout_at(deadline, self.in_turn(backend, clock, deadline)).await;
        asked
            .ok()
            .flatten()
            .unwrap_or_else(|| health_of(backend, None))
    }

    /// `None` when the time was up before it was this caller's turn.
    async fn in_turn(
        &self,
        backend: &Arc<Layered>,
        clock: &ClockHandle,
        deadline: Instant,
    ) -> Option<TierHealth> {
        let answered = self.answered.load(Ordering::Acquire);
        let mut last = self.last.lock().await;
        if let Some(answer) = &*last
            && (self.answered.load(Ordering::Acquire) != answered
                || self.still_holds(answer, backend, clock))
        {
            return Some(answer.health.clone());
        }
        // Those whose time is up leave together: none of them asks on the way out.
        if Instant::now() >= deadline {
            return None;
        }
        let before = backend.last_error();
        // In a task: one that panics has not answered. It ends with the set.
        let mut asking = JoinSet::new();
        let asked = Arc::clone(backend);
        asking.spawn(async move { CacheBackend::ping(&*asked).await });
        let answer = asking.join_next().await.and_then(Result::ok);
        let health = health_of(backend, answer);
        *last = Some(Answer {
            at: clock.now(),
            before,
            health: health.clone(),
        });
        self.answered.fetch_add(1, Ordering::Release);
        Some(health)
    }

    fn still_holds(&self, answer: &Answer, backend: &Layered, clock: &ClockHandle) -> bool {
        let breakers = answer.health.breakers == backend.breakers();
        answer.health.status == HealthStatus::Healthy
            && breakers
            && answer.before == backend.last_error()
            && clock.now() < answer.at.after(self.interval)
    }
}

/// What is known of a backend without asking it.
fn seen(backend: &Layered) -> TierHealth {
    let open = |state| state == BreakerState::Open;
    let health = health_of(backend, Some(Ok(())));
    match health.breakers {
        Some(breakers) if open(breakers.read) && open(breakers.write) => TierHealth {
            up: false,
            status: HealthStatus::Unhealthy,
            ..health
        },
        _ => health,
    }
}
