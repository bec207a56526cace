//! The index of a partition whose size nobody knows.
//!
//! A cache has very many partitions of a few rows and a few of very many. So a partition begins as
//! flat rows, which cost what they hold and are exact, and goes on as a [`BinaryIndex`] once it has
//! more than [`AutoConfig::flat_limit`] of them. It does not go back: a partition that was large is
//! likely to be so again, and one that becomes empty is dropped by its owner.
//!
//! The write that makes the rows too many builds the binary index of them, while the rows are locked
//! against other writers and open to searches, then publishes it, then empties the rows. That is as
//! many inserts as the limit has rows, some hundred microseconds at the default.
//!
//! Always true: `grown` is set once, by a writer that holds the rows; every write after that goes
//! there; the rows are emptied after it was set and with no search among them. So whoever has locked
//! the rows and then finds `grown` unset has all of them before him, and once it is set nobody asks
//! for the lock.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::mem::size_of;
use std::sync::OnceLock;

use parking_lot::{RwLock, RwLockReadGuard, RwLockUpgradableReadGuard, RwLockWriteGuard};

use crate::binary::file::Image;
use crate::config::AutoConfig;
use crate::neighbor::TopK;
use crate::rows::Rows;
use crate::snapshot::{self, Content, Engine};
use crate::vector::{check, check_dimension, with_unit};
use crate::{
    Audit, Backlog, BinaryIndex, Capability, Expiry, IndexError, Neighbor, Query, Row, RowId,
    VectorIndex, query,
};

/// An index that changes its structure with its size: flat rows first, then a [`BinaryIndex`].
///
/// # The limit
/// Median time of a search for the nearest row at a cosine of 0.85 or more, half of the queries with
/// such a row and half without, clustered data, one thread of a shared machine with 2 cores
/// (AVX-512), default settings:
///
/// | rows | flat, 128-d | binary, 128-d | flat, 384-d | binary, 384-d | flat, 1536-d | binary, 1536-d |
/// |---|---|---|---|---|---|---|
/// | 16 | 0.5 µs | 1.2 µs | 1.2 µs | 3.4 µs | 4.8 µs | 14 µs |
/// | 64 | 1.6 µs | 1.2 µs | 4.3 µs | 3.6 µs | 17 µs | 15 µs |
/// | 256 | 6.2 µs | 1.3 µs | 17 µs | 3.9 µs | 206 µs | 16 µs |
/// | 1024 | 46 µs | 2.1 µs | 152 µs | 5.0 µs | 0.9 ms | 18 µs |
/// | 4096 | 245 µs | 3.7 µs | 785 µs | 8.6 µs | 5.2 ms | 71 µs |
///
/// The lines cross near 64 rows whatever the dimension, as both read in proportion to it. Up to there
/// a partition is exact and costs what its rows cost: an empty one takes less than 200 bytes, one of
/// three rows little more than their vectors.
///
/// ```
/// use askonce_index::{AutoConfig, AutoIndex, RowId, VectorIndex};
///
/// let config = AutoConfig {
///     flat_limit: 2,
///     ..AutoConfig::default()
/// };
/// let index = AutoIndex::new(3, config)?;
/// index.upsert(RowId(1), &[1.0, 0.0, 0.0])?;
/// index.upsert(RowId(2), &[0.0, 1.0, 0.0])?;
/// assert!(index.capability().exact);
/// index.upsert(RowId(3), &[0.0, 0.0, 1.0])?;
/// assert!(index.capability().lock_free_reads);
/// # Ok::<(), askonce_index::IndexError>(())
/// ```
#[derive(Debug)]
pub struct AutoIndex {
    dimension: usize,
    config: AutoConfig,
    rows: RwLock<Rows>,
    /// In a box, as most partitions never have one.
    grown: OnceLock<Box<BinaryIndex>>,
}

/// Where the rows are to be found.
enum Place<'a> {
    Rows(RwLockReadGuard<'a, Rows>),
    Grown(&'a BinaryIndex),
}

impl AutoIndex {
    /// An empty index for vectors of `dimension` components. Allocates nothing.
    ///
    /// # Errors
    /// [`IndexError::UnsupportedDimension`] outside `1..=`[`crate::MAX_DIMENSION`],
    /// [`IndexError::InvalidConfig`] for a setting out of range.
    pub fn new(dimension: usize, config: AutoConfig) -> Result<Self, IndexError> {
        check_dimension(dimension)?;
        Self::from_rows(Rows::new(dimension), config)
    }

    /// An index with the rows of a snapshot, which may be of any engine.
    ///
    /// # Errors
    /// Those of [`AutoIndex::new`]; [`IndexError::Snapshot`] if the bytes are not a whole,
    /// unchanged snapshot, [`IndexError::Io`] if the reader fails.
    pub fn restore(reader: &mut dyn Read, config: AutoConfig) -> Result<Self, IndexError> {
        match snapshot::open(reader)?.1 {
            Content::Rows(rows) => Self::from_rows(rows, config),
            Content::Cells(image) => Self::from_image(image, config),
        }
    }

    /// An index with the cells of a snapshot, taken over as they are even where they are few: read out
    /// of them, rows would be rounded.
    pub(crate) fn from_image(image: Image, config: AutoConfig) -> Result<Self, IndexError> {
        config.validate()?;
        let grown = BinaryIndex::from_image(image, config.binary)?;
        Ok(Self {
            dimension: grown.dimension(),
            config,
            rows: RwLock::new(Rows::new(grown.dimension())),
            grown: OnceLock::from(Box::new(grown)),
        })
    }

    pub(crate) fn from_rows(rows: Rows, config: AutoConfig) -> Result<Self, IndexError> {
        config.validate()?;
        let index = Self {
            dimension: rows.dimension(),
            config,
            rows: RwLock::new(rows),
            grown: OnceLock::new(),
        };
        let rows = index.rows.upgradable_read();
        if rows.len() > config.flat_limit {
            index.grow(rows)?;
        } else {
            drop(rows);
        }
        Ok(index)
    }

    fn grown(&self) -> Option<&BinaryIndex> {
        self.grown.get().map(AsRef::as_ref)
    }

    fn place(&self) -> Place<'_> {
        if let Some(grown) = self.grown() {
            return Place::Grown(grown);
        }
        let rows = self.rows.read();
        match self.grown() {
            Some(grown) => Place::Grown(grown),
            None => Place::Rows(rows),
        }
    }

    /// The rows, to be written to, or the index that has taken their place.
    fn writable(&self) -> Result<RwLockWriteGuard<'_, Rows>, &BinaryIndex> {
        if let Some(grown) = self.grown() {
            return Err(grown);
        }
        let rows = self.rows.write();
        self.grown().map_or(Ok(rows), Err)
    }

    /// Publishes a binary index of the rows, then empties them.
    fn grow(&self, rows: RwLockUpgradableReadGuard<'_, Rows>) -> Result<&BinaryIndex, IndexError> {
        let built = BinaryIndex::from_rows(&rows, self.config.binary)?;
        // The lock that is held keeps out whoever else would set it.
        let grown = self.grown.get_or_init(|| Box::new(built));
        *RwLockUpgradableReadGuard::upgrade(rows) = Rows::new(self.dimension);
        Ok(grown)
    }
}

impl VectorIndex for AutoIndex {
    fn dimension(&self) -> usize {
        self.dimension
    }

    fn capability(&self) -> Capability {
        let now = match self.grown() {
            Some(grown) => grown.capability(),
            None => crate::flat::CAPABILITY,
        };
        Capability {
            engine: "auto",
            ..now
        }
    }

    fn upsert_until(&self, id: RowId, vector: &[f32], expires: Expiry) -> Result<(), IndexError> {
        with_unit(self.dimension, vector, |unit| match self.writable() {
            Err(grown) => grown.upsert_until(id, unit, expires),
            Ok(mut rows) => {
                rows.upsert(id, unit, expires)?;
                if rows.len() > self.config.flat_limit {
                    self.grow(RwLockWriteGuard::downgrade_to_upgradable(rows))?;
                }
                Ok(())
            }
        })
    }

    fn upsert_batch(&self, batch: &[Row<'_>]) -> Result<(), IndexError> {
        for row in batch {
            check(self.dimension, row.vector)?;
        }
        let mut rows = match self.writable() {
            Err(grown) => return grown.upsert_batch(batch),
            Ok(rows) => rows,
        };
        let ids = batch.iter().map(|row| row.id);
        let new: HashSet<RowId> = ids.filter(|&id| rows.slot(id).is_none()).collect();
        if rows.len() + new.len() > self.config.flat_limit {
            let rows = RwLockWriteGuard::downgrade_to_upgradable(rows);
            return self.grow(rows)?.upsert_batch(batch);
        }
        for row in batch {
            with_unit(self.dimension, row.vector, |unit| {
                rows.upsert(row.id, unit, row.expires)
            })?;
        }
        Ok(())
    }

    fn remove(&self, id: RowId) -> Result<bool, IndexError> {
        match self.writable() {
            Err(grown) => grown.remove(id),
            Ok(mut rows) => {
                let slot = rows.slot(id);
                if let Some(slot) = slot {
                    rows.swap_remove(slot);
                }
                Ok(slot.is_some())
            }
        }
    }

    fn remove_expired(&self, now: Expiry) -> Result<usize, IndexError> {
        match self.writable() {
            Err(grown) => grown.remove_expired(now),
            Ok(mut rows) => Ok(rows.remove_expired(now)),
        }
    }

    fn contains(&self, id: RowId) -> bool {
        match self.place() {
            Place::Rows(rows) => rows.slot(id).is_some(),
            Place::Grown(grown) => grown.contains(id),
        }
    }

    fn query(&self, query: &Query<'_>, out: &mut Vec<Neighbor>) -> Result<(), IndexError> {
        match self.place() {
            Place::Grown(grown) => grown.query(query, out),
            Place::Rows(rows) => with_unit(self.dimension, query.vector, |unit| {
                let mut top = TopK::new(out, query.k, rows.len());
                rows.scan(query, unit, 0..rows.len(), &mut top);
                top.finish();
                Ok(())
            }),
        }
    }

    fn query_batch(
        &self,
        queries: &[Query<'_>],
        out: &mut Vec<Vec<Neighbor>>,
    ) -> Result<(), IndexError> {
        match self.grown() {
            Some(grown) => grown.query_batch(queries, out),
            None => query::one_by_one(self, queries, out),
        }
    }

    fn audit(&self, queries: &[Query<'_>]) -> Result<Audit, IndexError> {
        match self.grown() {
            Some(grown) => grown.audit(queries),
            None => query::audit(self, queries),
        }
    }

    fn len(&self) -> usize {
        match self.place() {
            Place::Rows(rows) => rows.len(),
            Place::Grown(grown) => grown.len(),
        }
    }

    fn bytes(&self) -> usize {
        match self.place() {
            Place::Rows(rows) => rows.bytes(),
            Place::Grown(grown) => size_of::<BinaryIndex>() + grown.bytes(),
        }
    }

    fn backlog(&self) -> Backlog {
        self.grown()
            .map_or_else(Backlog::default, VectorIndex::backlog)
    }

    fn settle(&self) {
        if let Some(grown) = self.grown() {
            grown.settle();
        }
    }

    fn snapshot(&self, out: &mut dyn Write) -> Result<(), IndexError> {
        // Copied first, so that a slow writer holds up no one.
        let rows = match self.place() {
            Place::Rows(rows) => rows.copy(),
            Place::Grown(grown) => return grown.write(Engine::Auto, out),
        };
        snapshot::write(Engine::Auto, &rows, out)
    }

    fn for_each(&self, f: &mut dyn FnMut(Row<'_>)) {
        match self.place() {
            Place::Rows(rows) => rows.iter().for_each(f),
            Place::Grown(grown) => grown.for_each(f),
        }
    }
}
