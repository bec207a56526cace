//! Step 4: the nearest stored texts, within one partition.
//!
//! There is one vector index per partition, so a search cannot see a row of another. Most partitions
//! are small (a system prompt, a conversation, a tenant), a few are large. A small one is a flat list
//! of rows that costs what its rows cost; a partition that grows past the limit of
//! [`IndexConfig`] goes on in another structure without blocking lookups; one that becomes empty is dropped.
//!
//! A [`Candidate`] is a lead: the entry itself must be fetched and checked before it is served.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use askonce_index::{IndexConfig, IndexError, Neighbor, RowId, VectorIndex};
use parking_lot::RwLock;

use crate::entry::EntryId;
use crate::error::{Error, ErrorKind, Result};
use crate::request::PartitionKey;

/// A stored text that is close to the query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The entry to look at.
    pub id: EntryId,
    /// Cosine of the two vectors, -1 to 1.
    pub similarity: f32,
}

/// The vector indexes of one embedding space, one per partition.
pub struct SearchStage {
    dimension: usize,
    config: IndexConfig,
    /// Upserts hold the lock for reading while they write to an index, and a partition is dropped
    /// under the lock for writing, so no row is ever added to an index that has left the map.
    partitions: RwLock<HashMap<PartitionKey, Arc<dyn VectorIndex>>>,
}

impl fmt::Debug for SearchStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SearchStage")
            .field("dimension", &self.dimension)
            .field("partitions", &self.partitions.read().len())
            .finish_non_exhaustive()
    }
}

impl SearchStage {
    /// An empty stage for vectors of `dimension` numbers.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the settings are out of range.
    pub fn new(dimension: usize, config: IndexConfig) -> Result<Self> {
        config.open(dimension).map_err(|error| {
            Error::new(ErrorKind::Config, "the index settings are not usable")
                .with("field", "semantic.index")
                .caused_by(error)
        })?;
        Ok(Self {
            dimension,
            config,
            partitions: RwLock::default(),
        })
    }

    /// Adds or replaces the vector of an entry.
    ///
    /// # Errors
    /// [`ErrorKind::Index`] when the vector is refused: wrong length, not finite, zero.
    pub fn upsert(&self, partition: PartitionKey, id: EntryId, vector: &[f32]) -> Result<()> {
        let row = RowId(id.get());
        if let Some(index) = self.partitions.read().get(&partition) {
            return index.upsert(row, vector).map_err(refused);
        }
        let mut partitions = self.partitions.write();
        if let Some(index) = partitions.get(&partition) {
            return index.upsert(row, vector).map_err(refused);
        }
        let index = self.config.open(self.dimension).map_err(refused)?;
        index.upsert(row, vector).map_err(refused)?;
        partitions.insert(partition, Arc::from(index));
        Ok(())
    }

    /// Removes an entry; `true` when it was there. The last row takes its partition with it.
    pub fn remove(&self, partition: &PartitionKey, id: EntryId) -> bool {
        let (removed, is_empty) = {
            let partitions = self.partitions.read();
            let Some(index) = partitions.get(partition) else {
                return false;
            };
            (
                index.remove(RowId(id.get())).unwrap_or(false),
                index.is_empty(),
            )
        };
        if is_empty {
            let mut partitions = self.partitions.write();
            if partitions
                .get(partition)
                .is_some_and(|index| index.is_empty())
            {
                partitions.remove(partition);
            }
        }
        removed
    }

    /// The `k` nearest entries of a partition, best first.
    ///
    /// # Errors
    /// [`ErrorKind::Index`] when the query vector is refused.
    pub fn nearest(
        &self,
        partition: &PartitionKey,
        query: &[f32],
        k: usize,
    ) -> Result<Vec<Candidate>> {
        let mut found: Vec<Neighbor> = Vec::new();
        // The search runs without the lock, so that a new partition need not wait for it.
        let index = self.partitions.read().get(partition).map(Arc::clone);
        if let Some(index) = index {
            index.search(query, k, &mut found).map_err(refused)?;
        }
        let candidates = found.into_iter().map(|neighbor| Candidate {
            id: EntryId::new(neighbor.id.0),
            similarity: neighbor.score,
        });
        Ok(candidates.collect())
    }

    /// Number of rows over all partitions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.partitions
            .read()
            .values()
            .map(|index| index.len())
            .sum()
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.partitions
            .read()
            .values()
            .all(|index| index.is_empty())
    }

    /// Number of partitions that hold at least one row.
    #[must_use]
    pub fn partitions(&self) -> usize {
        self.partitions.read().len()
    }

    /// Bytes held by all indexes and the map of partitions.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let partitions = self.partitions.read();
        let slot = size_of::<(PartitionKey, Arc<dyn VectorIndex>)>() + 1;
        partitions.capacity() * slot
            + partitions
                .values()
                .map(|index| index.bytes())
                .sum::<usize>()
    }
}

fn refused(error: IndexError) -> Error {
    Error::new(ErrorKind::Index, "the vector index refused the operation").caused_by(error)
}
