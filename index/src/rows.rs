//! Rows side by side in memory: the exact core that every engine keeps.
//!
//! A partition of a cache often holds one to three rows, and there may be a million partitions, so
//! this is three plain buffers that grow by a quarter and not by doubling, and the map from id to
//! slot appears only once a scan over the ids costs more than a hash. Slots are numbered from 0
//! without gaps: a removal moves the last row into the hole.
//!
//! [`Rows::scan`] is the seam for a faster core: whatever replaces the f32 scan (codes of fewer
//! bits with a rescore) replaces it there and keeps the rest.

use std::collections::HashMap;
use std::mem::size_of;
use std::ops::Range;

use crate::kernel::Kernel;
use crate::{Expiry, IndexError, Query, Row, RowId, neighbor::TopK};

/// Rows from which on ids are found by hash. Comparing 256 ids takes about as long as one hashed
/// look-up that misses the CPU cache, and the map costs 17 to 39 bytes a row.
const MAPPED_FROM: usize = 256;

/// Below this share of the map's threshold the map is given up again.
const UNMAPPED_BELOW: usize = MAPPED_FROM / 2;

/// Rows scored between two rounds of selection.
const SCAN_BLOCK: usize = 64;

/// Slots are u32, and the last value is left to mark "none".
pub(crate) const MAX_ROWS: usize = u32::MAX as usize - 1;

/// Ids and unit-length vectors, by slot.
#[derive(Debug)]
pub(crate) struct Rows {
    dimension: usize,
    ids: Vec<RowId>,
    expiries: Vec<Expiry>,
    vectors: Vec<f32>,
    #[expect(
        clippy::box_collection,
        reason = "an unused map would add 40 bytes to every index"
    )]
    slots: Option<Box<HashMap<RowId, u32>>>,
}

impl Rows {
    /// No rows, and nothing allocated.
    pub(crate) fn new(dimension: usize) -> Self {
        Self {
            dimension,
            ids: Vec::new(),
            expiries: Vec::new(),
            vectors: Vec::new(),
            slots: None,
        }
    }

    pub(crate) fn dimension(&self) -> usize {
        self.dimension
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// The slot of the row with this id.
    pub(crate) fn slot(&self, id: RowId) -> Option<usize> {
        match &self.slots {
            Some(slots) => slots.get(&id).map(|&slot| slot as usize),
            None => self.ids.iter().position(|&other| other == id),
        }
    }

    pub(crate) fn id(&self, slot: usize) -> RowId {
        self.ids[slot]
    }

    pub(crate) fn vector(&self, slot: usize) -> &[f32] {
        &self.vectors[slot * self.dimension..][..self.dimension]
    }

    /// The vectors in these slots, one after the other.
    #[cfg(feature = "faiss")]
    pub(crate) fn vectors(&self, slots: Range<usize>) -> &[f32] {
        &self.vectors[slots.start * self.dimension..slots.end * self.dimension]
    }

    /// The row in this slot.
    #[cfg(feature = "hnsw")]
    pub(crate) fn row(&self, slot: usize) -> Row<'_> {
        Row {
            id: self.ids[slot],
            vector: self.vector(slot),
            expires: self.expiries[slot],
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Row<'_>> {
        let rows = self.ids.iter().zip(&self.expiries);
        rows.zip(self.vectors.chunks_exact(self.dimension))
            .map(|((&id, &expires), vector)| Row {
                id,
                vector,
                expires,
            })
    }

    /// Ids of the rows that are expired at `now`.
    pub(crate) fn expired(&self, now: Expiry) -> Vec<RowId> {
        let rows = self.ids.iter().zip(&self.expiries);
        rows.filter(|(_, expires)| expires.is_past(now))
            .map(|(&id, _)| id)
            .collect()
    }

    /// Puts the vector in place of the row with this id, or appends it. Returns the slot.
    pub(crate) fn upsert(
        &mut self,
        id: RowId,
        unit: &[f32],
        expires: Expiry,
    ) -> Result<usize, IndexError> {
        match self.slot(id) {
            Some(slot) => {
                self.expiries[slot] = expires;
                self.vectors[slot * self.dimension..][..self.dimension].copy_from_slice(unit);
                Ok(slot)
            }
            None => self.push(id, unit, expires),
        }
    }

    /// Appends a row whose id is not held yet.
    pub(crate) fn push(
        &mut self,
        id: RowId,
        unit: &[f32],
        expires: Expiry,
    ) -> Result<usize, IndexError> {
        debug_assert_eq!(unit.len(), self.dimension);
        let slot = self.len();
        if slot >= MAX_ROWS {
            return Err(IndexError::Full { limit: MAX_ROWS });
        }
        if self.ids.capacity() == slot {
            self.reserve(1 + slot / 4);
        }
        self.ids.push(id);
        self.expiries.push(expires);
        self.vectors.extend_from_slice(unit);
        if let Some(slots) = &mut self.slots {
            slots.insert(id, number(slot));
        } else if self.len() >= MAPPED_FROM {
            let numbered = self
                .ids
                .iter()
                .enumerate()
                .map(|(slot, &id)| (id, number(slot)));
            self.slots = Some(Box::new(numbered.collect()));
        }
        Ok(slot)
    }

    /// Makes room for `more` rows and no further.
    pub(crate) fn reserve(&mut self, more: usize) {
        self.ids.reserve_exact(more);
        self.expiries.reserve_exact(more);
        self.vectors.reserve_exact(more * self.dimension);
    }

    /// Exchanges two rows.
    pub(crate) fn swap(&mut self, a: usize, b: usize) {
        if a == b {
            return;
        }
        let (low, high) = (a.min(b), a.max(b));
        let (head, tail) = self.vectors.split_at_mut(high * self.dimension);
        head[low * self.dimension..][..self.dimension].swap_with_slice(&mut tail[..self.dimension]);
        self.ids.swap(low, high);
        self.expiries.swap(low, high);
        if let Some(slots) = &mut self.slots {
            slots.insert(self.ids[low], number(low));
            slots.insert(self.ids[high], number(high));
        }
    }

    /// Removes the row in this slot; the last row takes its place.
    pub(crate) fn swap_remove(&mut self, slot: usize) {
        let Some(last) = self.len().checked_sub(1) else {
            return;
        };
        self.swap(slot, last);
        if let Some(id) = self.ids.pop()
            && let Some(slots) = &mut self.slots
        {
            slots.remove(&id);
        }
        self.expiries.truncate(last);
        self.vectors.truncate(last * self.dimension);
        self.give_back();
    }

    /// Removes the rows that are expired at `now`; tells how many.
    pub(crate) fn remove_expired(&mut self, now: Expiry) -> usize {
        let expired = self.expired(now);
        for &id in &expired {
            if let Some(slot) = self.slot(id) {
                self.swap_remove(slot);
            }
        }
        expired.len()
    }

    /// Returns memory once three quarters of it are idle, so that shrinking costs no more per row
    /// than growing.
    fn give_back(&mut self) {
        let rows = self.len();
        if rows < UNMAPPED_BELOW {
            self.slots = None;
        }
        if rows < self.ids.capacity() / 4 {
            let keep = rows + rows / 4;
            self.ids.shrink_to(keep);
            self.expiries.shrink_to(keep);
            self.vectors.shrink_to(keep * self.dimension);
            if let Some(slots) = &mut self.slots {
                slots.shrink_to(keep);
            }
        }
    }

    /// The cosine of two unit-length vectors, as [`scan`](Self::scan) computes it.
    #[cfg(feature = "hnsw")]
    pub(crate) fn score(unit: &[f32], vector: &[f32]) -> f32 {
        let mut scores = [0.0];
        Kernel::detect().dot_rows(unit, vector, &mut scores);
        scores[0].clamp(-1.0, 1.0)
    }

    /// Offers those of the rows in these slots that `query` admits, with their cosine to `unit`, its
    /// vector at unit length.
    pub(crate) fn scan(
        &self,
        query: &Query<'_>,
        unit: &[f32],
        slots: Range<usize>,
        top: &mut TopK<'_>,
    ) {
        let kernel = Kernel::detect();
        let ids = self.ids[slots.clone()].chunks(SCAN_BLOCK);
        let expiries = self.expiries[slots.clone()].chunks(SCAN_BLOCK);
        let vectors = self.vectors[slots.start * self.dimension..slots.end * self.dimension]
            .chunks(SCAN_BLOCK * self.dimension);
        let mut scores = [0.0f32; SCAN_BLOCK];
        for ((ids, expiries), vectors) in ids.zip(expiries).zip(vectors) {
            let scores = &mut scores[..ids.len()];
            kernel.dot_rows(unit, vectors, scores);
            for ((&id, &expires), &score) in ids.iter().zip(expiries).zip(&*scores) {
                // What is not good enough for the list need not be admitted.
                let score = score.clamp(-1.0, 1.0);
                if top.wants(id, score) && query.admits(id, score, expires) {
                    top.offer(id, score);
                }
            }
        }
    }

    /// A copy without spare room.
    pub(crate) fn copy(&self) -> Self {
        Self {
            dimension: self.dimension,
            ids: self.ids.clone(),
            expiries: self.expiries.clone(),
            vectors: self.vectors.clone(),
            slots: self.slots.clone(),
        }
    }

    /// Heap bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.ids.capacity() * size_of::<RowId>()
            + self.expiries.capacity() * size_of::<Expiry>()
            + self.vectors.capacity() * size_of::<f32>()
            + self.slots.as_ref().map_or(0, |slots| {
                size_of::<HashMap<RowId, u32>>() + map_bytes::<RowId, u32>(slots.capacity())
            })
    }
}

/// Heap bytes of a `std` hash map of this capacity: a power of two of buckets, at most seven
/// eighths of them used, with one control byte each and one group of control bytes more.
fn map_bytes<K, V>(capacity: usize) -> usize {
    if capacity == 0 {
        return 0;
    }
    let buckets = (capacity * 8 / 7).next_power_of_two();
    buckets * (size_of::<(K, V)>() + 1) + 16
}

/// A slot as it is kept. Lossless, as no more than [`MAX_ROWS`] rows are taken.
fn number(slot: usize) -> u32 {
    u32::try_from(slot).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_comes_and_goes_with_the_rows_and_never_changes_an_answer() {
        let mut rows = Rows::new(1);
        for id in 0..1000u64 {
            rows.push(RowId(id), &[1.0], Expiry::NEVER).unwrap();
        }
        assert!(rows.slots.is_some());
        for id in 0..1000u64 {
            assert_eq!(
                rows.slot(RowId(id)).map(|slot| rows.id(slot)),
                Some(RowId(id))
            );
        }
        for id in 3..1000u64 {
            let slot = rows.slot(RowId(id)).unwrap();
            rows.swap_remove(slot);
            assert_eq!(rows.slot(RowId(id)), None);
            assert!(rows.slot(RowId(2)).is_some());
        }
        assert!(rows.slots.is_none());
        assert_eq!(rows.len(), 3);
        assert!(
            rows.bytes() <= 16 * 16,
            "{} bytes for three rows",
            rows.bytes()
        );
    }

    #[test]
    fn a_first_row_takes_room_for_one_row() {
        let mut rows = Rows::new(128);
        rows.push(RowId(1), &[0.5; 128], Expiry::NEVER).unwrap();
        assert_eq!(rows.bytes(), 8 + 4 + 512);
    }
}
