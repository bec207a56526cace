//! Step 4: the nearest stored texts, within one partition.
//!
//! There is one vector index per partition, so a search cannot see a row of another. Most partitions
//! are small (a system prompt, a conversation, a tenant), a few are large. A small one is a flat list
//! of rows that costs what its rows cost; one that grows is moved to a structure for many rows without
//! blocking lookups; one that becomes empty is dropped.
//!
//! A [`Candidate`] is a lead: the entry itself must be fetched and checked before it is served. The index
//! knows when entries expire and from which similarity on they matter, and reads less for both.
//!
//! With a folder the rows outlive the process, and what the catalogue knows of their entries with them; see
//! the module `disk`. Some of the lookups in an approximate index are asked again, exactly, to know what it
//! misses; see the module `audit`.

mod audit;
mod config;
mod disk;
mod engine;
mod partitions;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use askonce_index::{Audit, Expiry, IndexError, Neighbor, Query, RowId, VectorIndex};
use serde::Serialize;

use self::audit::{Auditor, Sample};
use self::disk::Folder;
use self::engine::Engine;
use self::partitions::{Partitions, Removed};
use crate::clock::Timestamp;
use crate::entry::EntryId;
use crate::entry::catalog::Row;
use crate::error::{Error, ErrorKind, Result};
use crate::observe;
use crate::request::PartitionKey;

pub use config::{IndexConfig, IndexType, Precision};
pub use disk::{FolderReport, FolderStats, Known, Restored, inspect};

/// How long a start waits for whoever used the folder before.
const HANDOVER: Duration = Duration::from_secs(5);

/// A stored text that is close to the query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The entry to look at.
    pub id: EntryId,
    /// Cosine of the two vectors, -1 to 1.
    pub similarity: f32,
}

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// The nearest entries, best first.
    pub candidates: Vec<Candidate>,
    /// Whether the partition holds anything, near or far.
    pub has_rows: bool,
    /// How many rows it holds, dead ones among them.
    pub rows: usize,
}

/// How the indexes of one engine and size class stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EngineStats {
    /// Partitions.
    pub partitions: usize,
    /// Rows in them.
    pub rows: usize,
    /// Bytes of them, with those of the map.
    pub bytes: usize,
    /// Rows that are searched in a slower way until they have their place.
    pub waiting: usize,
    /// Removed rows whose room is not free yet.
    pub dead: usize,
}

/// How the index stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct IndexStats {
    /// The configured type.
    pub r#type: &'static str,
    /// Partitions of fewer than 1024 rows, which are not looked at one by one: neither rows that wait nor
    /// dead ones are counted.
    pub small: EngineStats,
    /// The larger ones, by the engine that each has now.
    pub large: BTreeMap<&'static str, EngineStats>,
    /// Lookups that were asked again exactly, since start.
    pub audited: u64,
    /// Share of true neighbours that the last of them found, 0 to 1; `None` before the first. Exact
    /// indexes are not audited.
    pub recall: Option<f64>,
    /// Share of those with a neighbour that found the best one.
    pub best_recall: Option<f64>,
    /// The folder on disk; `None` when there is none.
    pub folder: Option<FolderStats>,
}

/// The vector indexes of one embedding space, one per partition.
pub struct SearchStage {
    kind: IndexType,
    engine: Engine,
    partitions: Partitions,
    auditor: Auditor,
    folder: Option<Folder>,
    snapshot_every: Duration,
}

impl fmt::Debug for SearchStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SearchStage")
            .field("type", &self.kind)
            .field("dimension", &self.engine.dimension())
            .field("partitions", &self.partitions.len())
            .field("rows", &self.partitions.rows())
            .finish_non_exhaustive()
    }
}

impl SearchStage {
    /// An empty stage for vectors of `dimension` numbers, in memory only.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the settings are out of range, or of an engine that is not in this build.
    pub fn new(dimension: usize, config: &IndexConfig) -> Result<Self> {
        let engine = Engine::new(dimension, config);
        engine.open().map_err(|error| {
            Error::new(ErrorKind::Config, "the index settings are not usable")
                .with("field", "semantic.index")
                .caused_by(error)
        })?;
        Ok(Self {
            kind: config.kind,
            engine,
            partitions: Partitions::default(),
            auditor: Auditor::new(config.audit_every),
            folder: None,
            snapshot_every: config.snapshot_every,
        })
    }

    /// As [`new`](Self::new), with the rows in the folder that the settings name, if they name one, and what
    /// is known of their entries. From then on the folder follows what happens here. Damaged files are not
    /// used; a warning tells. Of files of another embedding than `fingerprint` the entries are told, to be
    /// embedded anew; the files stay until [`migrated`](Self::migrated).
    ///
    /// # Errors
    /// Those of [`new`](Self::new); [`ErrorKind::Config`] when another process uses the folder,
    /// [`ErrorKind::Index`] when it cannot be read or written.
    pub fn restored(
        dimension: usize,
        config: &IndexConfig,
        fingerprint: &str,
        now: Timestamp,
    ) -> Result<(Self, Vec<Restored>)> {
        let mut stage = Self::new(dimension, config)?;
        let Some(path) = &config.path else {
            return Ok((stage, Vec::new()));
        };
        let (folder, restored) = Folder::open(
            Path::new(path),
            fingerprint,
            &stage.engine,
            &stage.partitions,
            now,
        )?;
        stage.folder = Some(folder);
        Ok((stage, restored))
    }

    /// Waits until nobody uses the folder that the settings name, if they name one, or for a few seconds if
    /// somebody keeps it. A cache that was dropped, or a process that is being replaced, may need a moment to
    /// let go.
    pub async fn handed_over(config: &IndexConfig) {
        let Some(path) = &config.path else { return };
        let began = std::time::Instant::now();
        while disk::is_in_use(Path::new(path)) && began.elapsed() < HANDOVER {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Notes that all [`Restored`] entries without a vector have been seen to.
    pub fn migrated(&self) {
        if let Some(folder) = &self.folder {
            folder.migrated();
        }
    }

    /// Adds or replaces the vector of the entry that `row` tells of.
    ///
    /// # Errors
    /// [`ErrorKind::Index`] when the vector is refused: wrong length, not finite, zero.
    pub fn upsert(&self, id: EntryId, row: &Row, vector: &[f32]) -> Result<()> {
        let expires = expiry(row.expires);
        let write = |index: &dyn VectorIndex| {
            index.upsert_until(row_id(id), vector, expires)?;
            if let Some(folder) = &self.folder {
                folder.upserted(id, row, vector);
            }
            Ok(())
        };
        self.partitions
            .upsert(row.partition, || self.engine.open(), expires, write)
            .map_err(refused)
    }

    /// Removes an entry; `true` when it was there. The last row takes its partition with it.
    pub fn remove(&self, partition: &PartitionKey, id: EntryId) -> bool {
        let remove = |index: &dyn VectorIndex| {
            let was_there = index.remove(row_id(id)).unwrap_or(false);
            if was_there && let Some(folder) = &self.folder {
                folder.removed(*partition, id);
            }
            usize::from(was_there)
        };
        self.partitions.remove(partition, remove) > 0
    }

    /// Removes these entries of a partition, and tells how many were there. A partition that holds no others
    /// is dropped as a whole.
    pub fn remove_all(&self, partition: &PartitionKey, ids: &[EntryId]) -> usize {
        let rows: Vec<RowId> = ids.iter().copied().map(row_id).collect();
        self.partitions.remove_all(partition, &rows, |how| {
            let Some(folder) = &self.folder else { return };
            match how {
                Removed::Partition => folder.dropped(*partition),
                Removed::Rows => ids.iter().for_each(|id| folder.removed(*partition, *id)),
            }
        })
    }

    /// Drops a partition whatever its size, and tells how many rows it had.
    pub fn drop_partition(&self, partition: &PartitionKey) -> usize {
        self.partitions.drop_partition(partition, || {
            if let Some(folder) = &self.folder {
                folder.dropped(*partition);
            }
        })
    }

    /// Removes the rows of entries that are dead at `now`, and tells how many they were. Each partition is
    /// looked at once a minute at most, and only if something in it may have died.
    pub fn remove_expired(&self, now: Timestamp) -> usize {
        // A start leaves out what is expired, so the journal need not tell.
        self.partitions.remove_expired(floor(now))
    }

    /// Notes on disk that an entry must not answer the query of this fingerprint.
    pub fn note_wrong(&self, partition: &PartitionKey, id: EntryId, query: [u8; 32]) {
        if let Some(folder) = &self.folder {
            folder.wrong(*partition, id, query);
        }
    }

    /// The `k` nearest entries of a partition that are alive at `now`, best first.
    ///
    /// # Errors
    /// [`ErrorKind::Index`] when the query vector is refused.
    pub fn nearest(
        &self,
        partition: &PartitionKey,
        query: &[f32],
        k: usize,
        now: Timestamp,
    ) -> Result<Found> {
        self.search(partition, query, k, now, None)
    }

    /// As [`nearest`](Self::nearest), of those whose similarity is at least `least`. The higher it is, the
    /// less a large partition reads. An entry whose score rounding has put below it is found.
    ///
    /// # Errors
    /// As there.
    pub fn nearest_above(
        &self,
        partition: &PartitionKey,
        query: &[f32],
        k: usize,
        now: Timestamp,
        least: f32,
    ) -> Result<Found> {
        self.search(partition, query, k, now, Some(least))
    }

    fn search(
        &self,
        partition: &PartitionKey,
        vector: &[f32],
        k: usize,
        now: Timestamp,
        least: Option<f32>,
    ) -> Result<Found> {
        // Held without a lock, so that a new partition need not wait for the search.
        let Some(open) = self.partitions.get(partition) else {
            return Ok(Found::default());
        };
        let index = open.index();
        let mut query = Query::new(vector, k).at(floor(now));
        let mut found: Vec<Neighbor> = Vec::new();
        if let Some(least) = least {
            let capability = index.capability();
            let least = least - capability.score_error;
            query = query.above(least);
            if !capability.exact && self.auditor.is_due() {
                self.auditor.keep(Sample {
                    partition: *partition,
                    vector: vector.into(),
                    k,
                    least,
                });
            }
        }
        index.query(&query, &mut found).map_err(refused)?;
        let candidates = found.into_iter().map(|neighbor| Candidate {
            id: EntryId::new(neighbor.id.0),
            similarity: neighbor.score,
        });
        Ok(Found {
            candidates: candidates.collect(),
            has_rows: true,
            rows: index.len(),
        })
    }

    /// Asks the lookups that were kept again, once as usual and once exactly, and tells what was found. CPU
    /// work of some milliseconds for each in a partition of a million rows: not for an async thread.
    pub fn audit(&self, now: Timestamp) -> Audit {
        let mut kept: BTreeMap<PartitionKey, Vec<Sample>> = BTreeMap::new();
        for sample in self.auditor.take() {
            kept.entry(sample.partition).or_default().push(sample);
        }
        let mut all = Audit::default();
        for (partition, samples) in kept {
            let Some(open) = self.partitions.get(&partition) else {
                continue;
            };
            let queries: Vec<Query<'_>> = samples
                .iter()
                .map(|sample| {
                    Query::new(&sample.vector, sample.k)
                        .above(sample.least)
                        .at(floor(now))
                })
                .collect();
            match open.index().audit(&queries) {
                Ok(audit) => all.merge(&audit),
                Err(error) => tracing::warn!(%error, "lookups were not audited"),
            }
        }
        if all.queries > 0 {
            self.auditor.add(&all);
            let (_, recent) = self.auditor.found();
            observe::index_audit(all.queries, recent.unwrap_or(all).recall());
        }
        all
    }

    /// Does what is due: removes dead rows, audits lookups, brings the folder up to date. CPU and disk
    /// work: not for an async thread. `known` tells of an entry what the catalogue knows.
    pub fn tend(&self, now: Timestamp, known: &dyn Fn(EntryId) -> Option<Known>) {
        self.remove_expired(now);
        self.audit(now);
        let Some(folder) = &self.folder else { return };
        folder.sync();
        if folder.is_due(now, self.snapshot_every)
            && let Err(error) = folder.save(&self.partitions, known, now)
        {
            tracing::warn!(%error, "the index was not written as a whole: the journal goes on");
        }
    }

    /// Writes the index to its folder as a whole, if it has one; tells whether it has. Disk work: not for an
    /// async thread. Entries that `known` does not know are left out.
    ///
    /// # Errors
    /// [`ErrorKind::Index`] when the folder cannot be written; what it held before is still there.
    pub fn save(&self, now: Timestamp, known: &dyn Fn(EntryId) -> Option<Known>) -> Result<bool> {
        match &self.folder {
            Some(folder) => folder.save(&self.partitions, known, now).map(|()| true),
            None => Ok(false),
        }
    }

    /// Number of rows over all partitions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.partitions.rows()
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of partitions that hold at least one row.
    #[must_use]
    pub fn partitions(&self) -> usize {
        self.partitions.len()
    }

    /// Bytes held by all indexes and the map of partitions.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let large = self.partitions.large();
        let large: usize = large.iter().map(|open| open.index().bytes()).sum();
        self.partitions.small_bytes() + large
    }

    /// How the index stands at `now`. Looks at large partitions only, of which there are few.
    #[must_use]
    pub fn stats(&self, now: Timestamp) -> IndexStats {
        let mut large: BTreeMap<&'static str, EngineStats> = BTreeMap::new();
        let mut small = EngineStats {
            partitions: self.partitions.len(),
            rows: self.partitions.rows(),
            bytes: self.partitions.small_bytes(),
            ..EngineStats::default()
        };
        for open in self.partitions.large() {
            let index = open.index();
            let (rows, backlog) = (index.len(), index.backlog());
            let stats = large.entry(index.capability().engine).or_default();
            stats.partitions += 1;
            stats.rows += rows;
            stats.bytes += index.bytes();
            stats.waiting += backlog.waiting;
            stats.dead += backlog.dead;
            // Counted a moment later than the totals, so it may be more.
            small.partitions = small.partitions.saturating_sub(1);
            small.rows = small.rows.saturating_sub(rows);
        }
        let (audited, recent) = self.auditor.found();
        IndexStats {
            r#type: self.kind.as_str(),
            small,
            large,
            audited,
            recall: recent.map(|audit| audit.recall()),
            best_recall: recent.map(|audit| audit.best_recall()),
            folder: self.folder.as_ref().map(|folder| folder.stats(now)),
        }
    }
}

fn row_id(id: EntryId) -> RowId {
    RowId(id.get())
}

/// The first second at which an entry is dead for sure.
fn expiry(expires: Option<Timestamp>) -> Expiry {
    expires.map_or(Expiry::NEVER, second)
}

/// The first second that is not before `end`.
fn second(end: Timestamp) -> Expiry {
    Expiry::at_seconds(end.as_millis().div_ceil(1000))
}

/// The second that `now` is in.
fn floor(now: Timestamp) -> Expiry {
    Expiry::at_seconds(now.as_millis() / 1000)
}

fn refused(error: IndexError) -> Error {
    Error::new(ErrorKind::Index, "the vector index refused the operation").caused_by(error)
}

#[cfg(test)]
mod tests;
