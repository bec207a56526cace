//! The exact index: every search compares the query with every row.
//!
//! Cheap where it matters most to a cache: an insert appends, a removal moves one row, an empty
//! index owns no heap, and no row is ever out of reach. A search reads each row once, so its time
//! grows with the rows; [`crate::AutoIndex`] tells up to where that is the best choice.
//!
//! One reader-writer lock guards the rows. Searches run side by side; a write holds them up for
//! the time of one append.

use std::io::{Read, Write};

use parking_lot::RwLock;

use crate::neighbor::TopK;
use crate::rows::Rows;
use crate::snapshot::{self, Engine};
use crate::vector::{check_dimension, with_unit};
use crate::{Capability, Expiry, IndexError, Neighbor, Query, Row, RowId, VectorIndex};

/// What a scan of `f32` rows can do.
pub(crate) const CAPABILITY: Capability = Capability {
    engine: "flat",
    exact: true,
    // A row kept as it was given may be off unit length by 2e-6, and so may a query.
    score_error: 5e-6,
    keeps_vectors: true,
    uses_threshold: false,
    filters_inside: true,
    lock_free_reads: false,
    removes_in_place: true,
};

/// An exact index; see the [crate documentation](crate#engines) for when to use it.
///
/// ```
/// use askonce_index::{FlatIndex, RowId, VectorIndex};
///
/// let index = FlatIndex::new(2)?;
/// index.upsert(RowId(1), &[3.0, 4.0])?;
/// let mut found = Vec::new();
/// index.search(&[0.6, 0.8], 1, &mut found)?;
/// assert_eq!((found[0].id, found[0].score), (RowId(1), 1.0));
/// # Ok::<(), askonce_index::IndexError>(())
/// ```
#[derive(Debug)]
pub struct FlatIndex {
    dimension: usize,
    rows: RwLock<Rows>,
}

impl FlatIndex {
    /// An empty index for vectors of `dimension` components. Allocates nothing.
    ///
    /// # Errors
    /// [`IndexError::UnsupportedDimension`] outside `1..=`[`crate::MAX_DIMENSION`].
    pub fn new(dimension: usize) -> Result<Self, IndexError> {
        check_dimension(dimension)?;
        Ok(Self::from_rows(Rows::new(dimension)))
    }

    /// An index with the rows of a snapshot, which may be of any engine.
    ///
    /// # Errors
    /// [`IndexError::Snapshot`] if the bytes are not a whole, unchanged snapshot, [`IndexError::Io`]
    /// if the reader fails.
    pub fn restore(reader: &mut dyn Read) -> Result<Self, IndexError> {
        let (_, rows) = snapshot::read(reader)?;
        Ok(Self::from_rows(rows))
    }

    /// The rows as they are now.
    pub(crate) fn copy_rows(&self) -> Rows {
        self.rows.read().copy()
    }

    pub(crate) fn from_rows(rows: Rows) -> Self {
        Self {
            dimension: rows.dimension(),
            rows: RwLock::new(rows),
        }
    }
}

impl VectorIndex for FlatIndex {
    fn dimension(&self) -> usize {
        self.dimension
    }

    fn capability(&self) -> Capability {
        CAPABILITY
    }

    fn upsert_until(&self, id: RowId, vector: &[f32], expires: Expiry) -> Result<(), IndexError> {
        with_unit(self.dimension, vector, |unit| {
            self.rows.write().upsert(id, unit, expires).map(drop)
        })
    }

    fn remove(&self, id: RowId) -> Result<bool, IndexError> {
        let mut rows = self.rows.write();
        let slot = rows.slot(id);
        if let Some(slot) = slot {
            rows.swap_remove(slot);
        }
        Ok(slot.is_some())
    }

    fn remove_expired(&self, now: Expiry) -> Result<usize, IndexError> {
        Ok(self.rows.write().remove_expired(now))
    }

    fn contains(&self, id: RowId) -> bool {
        self.rows.read().slot(id).is_some()
    }

    fn query(&self, query: &Query<'_>, out: &mut Vec<Neighbor>) -> Result<(), IndexError> {
        with_unit(self.dimension, query.vector, |unit| {
            let rows = self.rows.read();
            let mut top = TopK::new(out, query.k, rows.len());
            rows.scan(query, unit, 0..rows.len(), &mut top);
            top.finish();
            Ok(())
        })
    }

    fn len(&self) -> usize {
        self.rows.read().len()
    }

    fn bytes(&self) -> usize {
        self.rows.read().bytes()
    }

    fn snapshot(&self, out: &mut dyn Write) -> Result<(), IndexError> {
        // Copied first, so that a slow writer holds up no one.
        snapshot::write(Engine::Flat, &self.copy_rows(), out)
    }

    fn for_each(&self, f: &mut dyn FnMut(Row<'_>)) {
        self.rows.read().iter().for_each(f);
    }
}
