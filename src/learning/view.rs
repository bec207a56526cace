//! What lookups read of what was learnt: sharded, so that a label holds up few of them, and free where
//! nothing was learnt.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

use super::posterior::Posterior;
use super::state::{Op, State};
use crate::clock::Timestamp;
use crate::entry::EntryId;
use crate::policy::{Category, EntryRecord};

const SHARDS: usize = 16;

/// What is known of one entry.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    posterior: Posterior,
    /// Of the shifts of its category.
    variance: f64,
    quarantined: bool,
}

#[derive(Debug, Default)]
pub(super) struct View {
    shards: [RwLock<HashMap<EntryId, Seen>>; SHARDS],
    /// Whether any shard holds anything.
    any: AtomicBool,
    tripped: RwLock<HashSet<Category>>,
    any_tripped: AtomicBool,
}

impl View {
    fn shard(&self, entry: EntryId) -> &RwLock<HashMap<EntryId, Seen>> {
        // The bits of an id are random.
        &self.shards[(entry.get() % SHARDS as u64) as usize]
    }

    fn seen(&self, entry: EntryId) -> Option<Seen> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        self.shard(entry).read().get(&entry).copied()
    }

    pub(super) fn record(&self, entry: EntryId, now: Timestamp, retention: f64) -> EntryRecord {
        match self.seen(entry) {
            Some(seen) if seen.variance > 0.0 => {
                seen.posterior.record(seen.variance, now, retention)
            }
            _ => EntryRecord::default(),
        }
    }

    pub(super) fn quarantined(&self, entry: EntryId) -> bool {
        self.seen(entry).is_some_and(|seen| seen.quarantined)
    }

    pub(super) fn serves(&self, category: Category) -> bool {
        !self.any_tripped.load(Ordering::Acquire) || !self.tripped.read().contains(&category)
    }

    /// Takes out an entry; `true` when it was known.
    pub(super) fn forget(&self, entry: EntryId) -> bool {
        self.any.load(Ordering::Acquire) && self.shard(entry).write().remove(&entry).is_some()
    }

    /// Shows what an operation has changed in `state`.
    pub(super) fn follow(&self, op: &Op, state: &State, prior: f64) {
        match op {
            Op::Label {
                entry, category, ..
            } => {
                let mut shard = self.shard(*entry).write();
                let seen = shard.entry(*entry).or_default();
                seen.posterior = state.records.get(entry).copied().unwrap_or_default();
                seen.variance = state.variance(category, prior);
                self.any.store(true, Ordering::Release);
            }
            Op::Wrong { entry, .. } => {
                let accused = state.accused.get(entry);
                let mut shard = self.shard(*entry).write();
                let seen = shard.entry(*entry).or_default();
                seen.quarantined = accused.is_some_and(super::state::Accused::quarantined);
                self.any.store(true, Ordering::Release);
            }
            Op::Audit { .. } | Op::Reset { .. } => self.show_tripped(state),
            Op::Spent { .. } => {}
        }
        let most = state.records.len() + state.accused.len() + 4_096;
        if self
            .shards
            .iter()
            .map(|shard| shard.read().len())
            .sum::<usize>()
            > most
        {
            // The state has let go of old entries.
            self.replace(state, prior);
        }
    }

    /// Shows `state`, and nothing else. Which category an entry is of is not known any more: its variance
    /// is that of the default one until its next label.
    pub(super) fn replace(&self, state: &State, prior: f64) {
        let variance = state.variance("", prior);
        let mut shards: [HashMap<EntryId, Seen>; SHARDS] = Default::default();
        let mut seen_of = |entry: EntryId, set: &dyn Fn(&mut Seen)| {
            let shard = &mut shards[(entry.get() % SHARDS as u64) as usize];
            set(shard.entry(entry).or_default());
        };
        for (entry, posterior) in &state.records {
            seen_of(*entry, &|seen| {
                (seen.posterior, seen.variance) = (*posterior, variance);
            });
        }
        for (entry, accused) in &state.accused {
            let quarantined = accused.quarantined();
            seen_of(*entry, &|seen| seen.quarantined = quarantined);
        }
        let any = shards.iter().any(|shard| !shard.is_empty());
        for (shard, new) in self.shards.iter().zip(shards) {
            *shard.write() = new;
        }
        self.any.store(any, Ordering::Release);
        self.show_tripped(state);
    }

    fn show_tripped(&self, state: &State) {
        let tripped = state.tripped();
        let any = !tripped.is_empty();
        *self.tripped.write() = tripped;
        self.any_tripped.store(any, Ordering::Release);
    }
}
