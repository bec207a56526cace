//! What lookups read of what was learnt: sharded, so that a label holds up few of them, and free where
//! nothing was learnt.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

use super::posterior::Posterior;
use super::state::{Op, State};
use crate::clock::Timestamp;
use crate::config::LearningConfig;
use crate::entry::EntryId;
use crate::policy::{Category, EntryRecord};

const SHARDS: usize = 16;

/// What is known of one entry.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Of the entry and its answer group.
    pooled: Posterior,
    /// Of the entry alone.
    own: Posterior,
    group: Option<u64>,
    /// Of the shifts of its category.
    variance: f64,
    quarantined: bool,
}

/// How an entry stands with those who decide.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Standing {
    /// What its labels say, and those of its answer group.
    pub(crate) record: EntryRecord,
    /// What its own labels say.
    pub(crate) own: EntryRecord,
    /// Entries of equal groups were found to give the same answer.
    pub(crate) group: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct View {
    shards: [RwLock<HashMap<EntryId, Seen>>; SHARDS],
    /// Whether any shard holds anything.
    any: AtomicBool,
    tripped: RwLock<HashSet<Category>>,
    any_tripped: AtomicBool,
    hazards: RwLock<HashMap<Category, f32>>,
    any_hazard: AtomicBool,
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

    pub(super) fn standing(&self, entry: EntryId, now: Timestamp, retention: f64) -> Standing {
        let Some(seen) = self.seen(entry) else {
            return Standing::default();
        };
        let record = |posterior: Posterior| {
            if seen.variance > 0.0 {
                posterior.record(seen.variance, now, retention)
            } else {
                EntryRecord::default()
            }
        };
        let own = record(seen.own);
        Standing {
            record: seen.group.map_or(own, |_| record(seen.pooled)),
            own,
            group: seen.group,
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

    /// Shows what an operation has changed in `state`, about the entries that it touched.
    pub(super) fn follow(
        &self,
        op: &Op,
        touched: &[EntryId],
        state: &State,
        config: &LearningConfig,
    ) {
        let labelled = match op {
            Op::Label {
                entry, category, ..
            } => Some((*entry, category.as_str())),
            Op::Audit { .. } | Op::Reset { .. } => {
                self.show_tripped(state);
                None
            }
            Op::Wrong { .. } | Op::Merge { .. } | Op::Spent { .. } => None,
        };
        for entry in touched {
            let pooled = state.pooled(*entry, config.retention_per_day);
            let mut shard = self.shard(*entry).write();
            let seen = shard.entry(*entry).or_default();
            seen.pooled = pooled;
            seen.own = state.records.get(entry).copied().unwrap_or_default();
            seen.group = state.group(*entry);
            let accused = state.accused.get(entry);
            seen.quarantined = accused.is_some_and(super::state::Accused::quarantined);
            match labelled {
                Some((labelled, category)) if labelled == *entry => {
                    seen.variance = state.variance(category, config.prior_variance);
                }
                _ if seen.variance == 0.0 => {
                    seen.variance = state.variance("", config.prior_variance);
                }
                _ => {}
            }
            self.any.store(true, Ordering::Release);
        }
        let most = state.records.len() + state.accused.len() + state.groups.len() + 4_096;
        let shown: usize = self.shards.iter().map(|shard| shard.read().len()).sum();
        if shown > most {
            // The state has let go of old entries.
            self.replace(state, config);
        }
    }

    /// Shows `state`, and nothing else. Which category an entry is of is not known any more: its variance
    /// is that of the default one until its next label.
    pub(super) fn replace(&self, state: &State, config: &LearningConfig) {
        let variance = state.variance("", config.prior_variance);
        let mut shards: [HashMap<EntryId, Seen>; SHARDS] = Default::default();
        let mut seen_of = |entry: EntryId, set: &dyn Fn(&mut Seen)| {
            let shard = &mut shards[(entry.get() % SHARDS as u64) as usize];
            set(shard.entry(entry).or_default());
        };
        for (entry, posterior) in &state.records {
            seen_of(*entry, &|seen| {
                (seen.own, seen.pooled, seen.variance) = (*posterior, *posterior, variance);
            });
        }
        let mut sums = HashMap::<u64, Posterior>::new();
        for (entry, grouped) in &state.groups {
            let own = state.records.get(entry).copied().unwrap_or_default();
            let sum = sums.entry(grouped.group).or_default();
            *sum = sum.plus(own, config.retention_per_day);
        }
        for (entry, grouped) in &state.groups {
            let pooled = sums.get(&grouped.group).copied().unwrap_or_default();
            seen_of(*entry, &|seen| {
                (seen.pooled, seen.variance) = (pooled, variance);
                seen.group = Some(grouped.group);
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

    /// What share of the right answers of a category goes wrong in a day.
    pub(super) fn hazard(&self, category: Category) -> f32 {
        if !self.any_hazard.load(Ordering::Acquire) {
            return 0.0;
        }
        self.hazards.read().get(&category).copied().unwrap_or(0.0)
    }

    pub(super) fn show_hazard(&self, category: Category, hazard: f64) {
        let mut hazards = self.hazards.write();
        if hazard > 0.0 {
            hazards.insert(category, hazard as f32);
        } else {
            hazards.remove(&category);
        }
        self.any_hazard
            .store(!hazards.is_empty(), Ordering::Release);
    }

    fn show_tripped(&self, state: &State) {
        let tripped = state.tripped();
        let any = !tripped.is_empty();
        *self.tripped.write() = tripped;
        self.any_tripped.store(any, Ordering::Release);
    }
}
