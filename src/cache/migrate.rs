//! After the embedding was changed: entries that an earlier process made searchable in another space are
//! embedded anew, in the background and a few at a time.
//!
//! Until it is its turn such an entry matches exactly only: vectors of two spaces are never compared. What
//! cannot be read or embedded now is tried again; what no tier holds any more is forgotten. The old files of
//! the index stay until all is done, so a process that ends in between loses nothing.

use std::collections::VecDeque;
use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;

use super::profile::Profile;
use super::{Inner, Semantic};
use crate::entry::EntryId;
use crate::error::ErrorKind;
use crate::observe;
use crate::tier::TierFault;

/// Entries embedded between two pauses.
const BATCH: usize = 16;

/// The pause: with the batch it makes some 200 entries a second at most.
const PAUSE: Duration = Duration::from_millis(80);

/// How long to leave a tier or a model alone that does not answer.
const REST: Duration = Duration::from_secs(5);

/// How far the entries of another embedding have been embedded anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MigrationStats {
    /// Entries that wait. They match exactly only.
    pub waiting: usize,
    /// Entries that were embedded anew.
    pub embedded: u64,
    /// Entries that no tier holds any more, or that the new model cannot embed.
    pub dropped: u64,
}

/// The entries that wait.
#[derive(Debug, Default)]
pub(super) struct Migration {
    waiting: Mutex<VecDeque<EntryId>>,
    embedded: AtomicU64,
    dropped: AtomicU64,
}

/// What became of one entry.
enum Step {
    Embedded,
    Dropped,
    /// Not now.
    Later,
}

impl Migration {
    pub(super) fn push(&self, id: EntryId) {
        self.waiting.lock().push_back(id);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.lock().is_empty()
    }

    /// How it stands; `None` when there was nothing to do.
    pub(super) fn stats(&self) -> Option<MigrationStats> {
        let stats = MigrationStats {
            waiting: self.waiting.lock().len(),
            embedded: self.embedded.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
        };
        (stats.waiting > 0 || stats.embedded > 0 || stats.dropped > 0).then_some(stats)
    }
}

impl Inner {
    /// Embeds anew what waits for it, to the end.
    pub(super) async fn migrate(inner: Weak<Self>) {
        loop {
            let Some(inner) = inner.upgrade() else { return };
            let Some(semantic) = &inner.semantic else {
                return;
            };
            let migration = &inner.migration;
            let batch: Vec<EntryId> = {
                let mut waiting = migration.waiting.lock();
                let count = waiting.len().min(BATCH);
                waiting.drain(..count).collect()
            };
            let mut pause = PAUSE;
            for id in batch {
                match inner.embed_anew(semantic, id).await {
                    Step::Embedded => migration.embedded.fetch_add(1, Ordering::Relaxed),
                    Step::Dropped => migration.dropped.fetch_add(1, Ordering::Relaxed),
                    Step::Later => {
                        migration.push(id);
                        pause = REST;
                        0
                    }
                };
            }
            let left = migration.waiting.lock().len();
            observe::embedding_waiting("migration", left);
            if left == 0 {
                semantic.search.migrated();
                let stats = migration.stats();
                tracing::info!(
                    ?stats,
                    "all entries of another embedding were embedded anew"
                );
                return;
            }
            drop(inner);
            tokio::time::sleep(pause).await;
        }
    }

    async fn embed_anew(&self, semantic: &Semantic, id: EntryId) -> Step {
        let Some(row) = self.catalog.get(id) else {
            return Step::Dropped;
        };
        let mut check = self.check_of(&row.scope, &row.model);
        let tags = self.tag_marks(&row.scope, &row.tags);
        let now = self.clock.now();
        let answer = self.tiers.look(&row.exact, &tags, &mut check, now).await;
        let entry = match (answer.found, answer.fault) {
            (Some((entry, _)), _) if entry.id == id => entry,
            (None, Some(TierFault::Unavailable | TierFault::GenerationUnavailable)) => {
                return Step::Later;
            }
            _ => {
                self.forget(id, "gone");
                return Step::Dropped;
            }
        };
        let Some(text) = &entry.text else {
            return Step::Dropped;
        };
        let vector = match semantic.embed.embed(text).await {
            Ok(vector) => vector,
            Err(error) if error.kind() == ErrorKind::InvalidRequest => return Step::Dropped,
            Err(_) => return Step::Later,
        };
        if let Some(profile) = Profile::of(&entry) {
            let entries = self.catalog.len();
            let profile = semantic.profiles.insert(id, profile, entries);
            if let Some(backlog) = &semantic.backlog
                && semantic.policy.may_refine()
            {
                backlog.push(&profile, text);
            }
        }
        match semantic.search.upsert(id, &row, &vector) {
            Ok(()) => Step::Embedded,
            Err(error) => {
                tracing::warn!(entry = %id, %error, "an entry was not embedded anew");
                Step::Dropped
            }
        }
    }
}
