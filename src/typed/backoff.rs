//! Sources that fail, left alone for a while.
//!
//! Where an old value stands in for an error, every caller could ask the failing source anew, one after
//! the other. So after a failed load its key waits: a time that doubles with each failure in a row, up to
//! a limit, in which the old value is served without asking. A load that ends well
//! ends the wait. It is kept in this process alone, as is what it is made from; a value that is written
//! meanwhile is fresh, and nobody asks.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use super::key::Digest;
use crate::clock::Timestamp;

/// The wait after the first failure.
const FIRST: Duration = Duration::from_secs(1);

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(30);

/// Keys remembered at once; the ones that wait no longer make room.
const MOST: usize = 10_000;

/// The keys whose loads have failed.
#[derive(Default)]
pub(super) struct Backoff {
    failed: Mutex<HashMap<Digest, Failed>>,
}

#[derive(Clone, Copy)]
struct Failed {
    times: u32,
    until: Timestamp,
}

impl Backoff {
    /// Whether the source is to be left alone for now.
    pub(super) fn waits(&self, key: Digest, now: Timestamp) -> bool {
        let failed = self.failed.lock();
        failed.get(&key).is_some_and(|failed| now < failed.until)
    }

    /// Notes a failed load.
    pub(super) fn failed(&self, key: Digest, now: Timestamp) {
        let mut failed = self.failed.lock();
        if failed.len() >= MOST && !failed.contains_key(&key) {
            failed.retain(|_, failed| now < failed.until);
            // Then the source is asked more often than it should be, which is what it was before.
            if failed.len() >= MOST {
                return;
            }
        }
        let times = failed.get(&key).map_or(0, |failed| failed.times);
        let wait = FIRST.saturating_mul(1 << times.min(16)).min(LONGEST);
        let until = now.after(wait);
        let times = times + 1;
        failed.insert(key, Failed { times, until });
    }

    /// Notes that the source has given a value.
    pub(super) fn recovered(&self, key: Digest) {
        let mut failed = self.failed.lock();
        // Most of the time nothing fails: spare the hash.
        if !failed.is_empty() {
            failed.remove(&key);
        }
    }
}
