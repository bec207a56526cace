//! How much of what there is the index finds, measured on the lookups that are made.
//!
//! One of N lookups in an approximate index is kept: its vector and its threshold, never its text. Later, in
//! the background, it is asked again, once as usual and once exactly. The vectors stay in memory and are
//! forgotten then.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};

use askonce_index::Audit;
use parking_lot::Mutex;

use crate::request::PartitionKey;

/// Lookups kept for the next audit; later ones take the place of earlier ones.
const KEPT: usize = 64;

/// Audited lookups after which the older half of what is known is forgotten.
const WINDOW: usize = 1024;

/// A lookup that was kept.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) partition: PartitionKey,
    pub(super) vector: Box<[f32]>,
    pub(super) k: usize,
    /// The least score that the search was told.
    pub(super) least: f32,
}

/// The lookups that were kept, and what audits have found.
#[derive(Debug)]
pub(super) struct Auditor {
    /// One of this many lookups is kept; 0: none.
    every: u32,
    lookups: AtomicU32,
    kept: Mutex<VecDeque<Sample>>,
    found: Mutex<Found>,
}

#[derive(Debug, Default)]
struct Found {
    total: u64,
    /// The last [`WINDOW`] audited lookups are within these two.
    now: Audit,
    before: Audit,
}

impl Auditor {
    pub(super) fn new(every: u32) -> Self {
        Self {
            every,
            lookups: AtomicU32::new(0),
            kept: Mutex::default(),
            found: Mutex::default(),
        }
    }

    /// Whether it is the turn of this lookup. Cheap, as every lookup asks.
    pub(super) fn is_due(&self) -> bool {
        self.every != 0
            && self
                .lookups
                .fetch_add(1, Ordering::Relaxed)
                .is_multiple_of(self.every)
    }

    /// Keeps a lookup.
    pub(super) fn keep(&self, sample: Sample) {
        // A lookup does not wait for an audit.
        if let Some(mut kept) = self.kept.try_lock() {
            if kept.len() >= KEPT {
                kept.pop_front();
            }
            kept.push_back(sample);
        }
    }

    /// Takes what was kept.
    pub(super) fn take(&self) -> Vec<Sample> {
        self.kept.lock().drain(..).collect()
    }

    /// Adds what an audit found.
    pub(super) fn add(&self, audit: &Audit) {
        let mut found = self.found.lock();
        found.total += audit.queries as u64;
        found.now.merge(audit);
        if found.now.queries >= WINDOW / 2 {
            found.before = std::mem::take(&mut found.now);
        }
    }

    /// How many lookups were audited, and what the last of them found; `None` before the first.
    pub(super) fn found(&self) -> (u64, Option<Audit>) {
        let found = self.found.lock();
        let mut recent = found.before;
        recent.merge(&found.now);
        (found.total, (recent.queries > 0).then_some(recent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Sample {
        Sample {
            partition: PartitionKey::from_bytes([1; 32]),
            vector: [1.0].into(),
            k: 1,
            least: 0.5,
        }
    }

    #[test]
    fn one_of_n_lookups_is_kept_and_only_the_newest() {
        let auditor = Auditor::new(4);
        let kept = (0..400).filter(|_| auditor.is_due()).count();
        assert_eq!(kept, 100);
        for _ in 0..kept {
            auditor.keep(sample());
        }
        assert_eq!(auditor.take().len(), KEPT);
        assert!(auditor.take().is_empty());
        let off = Auditor::new(0);
        assert!((0..100).all(|_| !off.is_due()));
    }

    #[test]
    fn what_was_found_long_ago_is_forgotten() {
        let auditor = Auditor::new(1);
        assert_eq!(auditor.found(), (0, None));
        let audit = |found| Audit {
            queries: WINDOW / 2,
            with_neighbor: WINDOW / 2,
            best_found: found,
            neighbors: WINDOW / 2,
            neighbors_found: found,
        };
        auditor.add(&audit(0));
        assert_eq!(auditor.found().1.map(|audit| audit.recall()), Some(0.0));
        for _ in 0..2 {
            auditor.add(&audit(WINDOW / 2));
        }
        let (total, recent) = auditor.found();
        assert_eq!(total, 3 * WINDOW as u64 / 2);
        assert_eq!(recent.map(|audit| audit.recall()), Some(1.0));
    }
}
