//! How one backend is, asked no more often than it must be.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::backend::CacheBackend;
use crate::cache::{HealthStatus, PROBE_DEADLINE, TierHealth, health_of};
use crate::clock::{ClockHandle, Timestamp};
use crate::layer::{BreakerState, Layered};

/// The last answer of one backend, and the turn to ask for the next.
///
/// Whoever waited for a turn while another asked is content with that answer: so nobody waits for more
/// than one question besides its own, however many ask.
#[derive(Debug)]
pub(super) struct Probe {
    interval: Duration,
    /// Answers that have come in.
    answered: AtomicU64,
    /// Held while the backend is asked, on purpose.
    last: Mutex<Option<(Timestamp, TierHealth)>>,
}

impl Probe {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            answered: AtomicU64::new(0),
            last: Mutex::default(),
        }
    }

    pub(super) async fn ask(
        &self,
        backend: &Arc<Layered>,
        clock: &ClockHandle,
        checks: bool,
    ) -> TierHealth {
        if !checks {
            return seen(backend);
        }
        let answered = self.answered.load(Ordering::Acquire);
        let mut last = self.last.lock().await;
        if let Some((at, health)) = &*last
            && (self.answered.load(Ordering::Acquire) != answered
                || clock.now() < at.after(self.interval))
        {
            return health.clone();
        }
        let answer = timeout(PROBE_DEADLINE, CacheBackend::ping(&**backend)).await;
        let health = health_of(backend, answer.ok());
        *last = Some((clock.now(), health.clone()));
        self.answered.fetch_add(1, Ordering::Release);
        health
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
