//! The map of partitions, made for very many of them.
//!
//! A million partitions of one row and one of a million rows stand side by side, so:
//!
//! - The map is split into shards by the first byte of the key, which is a digest. Opening a partition
//!   locks its shard for the time of one insertion, and a search for the time of one look-up.
//! - Writes to a partition are made one at a time under a lock of its own, which also guards what was
//!   counted of it and whether it has left the map. So no row is ever added to an index that is gone, and
//!   dropping a partition is one operation whatever its size.
//! - Nothing walks the map to count: rows and bytes are brought up to date with each write. Where counting
//!   bytes may take a while, in a partition of [`LARGE_ROWS`] and more, they are counted when asked for;
//!   each of those few has paid for that with its rows.

use std::collections::HashMap;
use std::mem::size_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use askonce_index::{Expiry, IndexError, RowId, VectorIndex};
use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::request::PartitionKey;

/// Shards of the map.
const SHARDS: usize = 64;

/// Rows from which on a partition is large: listed apart, and its bytes are counted when asked for.
pub(super) const LARGE_ROWS: usize = 1024;

/// Seconds from one look for expired rows in a partition to the next.
const EXPIRY_GAP: u32 = 60;

/// One partition.
#[derive(Debug)]
pub(super) struct Partition {
    index: Box<dyn VectorIndex>,
    earliest: Earliest,
    state: Mutex<State>,
}

/// What a partition is guarded by while it is written to.
#[derive(Debug, Default)]
struct State {
    /// Rows, as added to the totals.
    rows: u32,
    /// Bytes, as added to the totals; 0 while the partition is large.
    bytes: u32,
    /// Whether it has left the map.
    is_gone: bool,
}

impl Partition {
    fn new(index: Box<dyn VectorIndex>) -> Self {
        Self {
            index,
            earliest: Earliest::default(),
            state: Mutex::default(),
        }
    }

    /// The index, to read from. Who writes to it goes by [`Partitions`].
    pub(super) fn index(&self) -> &dyn VectorIndex {
        &*self.index
    }

    /// Heap bytes beside those that the index counts.
    fn own_bytes(&self) -> usize {
        // The counts beside a shared value are two words.
        2 * size_of::<usize>() + size_of::<Self>() + size_of_val(&*self.index)
    }
}

/// The second before which no row expires; 0 when none does.
#[derive(Debug, Default)]
struct Earliest(AtomicU32);

impl Earliest {
    fn note(&self, expires: Expiry) {
        let Some(seconds) = expires.seconds() else {
            return;
        };
        let sooner = |earliest| (earliest == 0 || seconds < earliest).then_some(seconds);
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, sooner);
    }

    fn get(&self) -> Expiry {
        Expiry::at_seconds(u64::from(self.0.load(Ordering::Relaxed)))
    }

    /// Whether something may have expired; if so, what is noted from now on is all that is known.
    fn take_if_past(&self, now: Expiry) -> bool {
        let is_past = self.get().is_past(now);
        if is_past {
            self.0.store(0, Ordering::Relaxed);
        }
        is_past
    }
}

/// On a cache line of its own: neighbours are locked by others.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard {
    open: RwLock<HashMap<PartitionKey, Arc<Partition>>>,
    /// Of all its partitions.
    earliest: Earliest,
}

/// All partitions of a stage.
#[derive(Debug)]
pub(super) struct Partitions {
    shards: Box<[Shard]>,
    large: Mutex<HashMap<PartitionKey, Arc<Partition>>>,
    open: AtomicUsize,
    rows: AtomicUsize,
    /// Of the partitions that are not large.
    bytes: AtomicUsize,
}

impl Default for Partitions {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            large: Mutex::default(),
            open: AtomicUsize::new(0),
            rows: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        }
    }
}

impl Partitions {
    fn shard(&self, key: &PartitionKey) -> &Shard {
        &self.shards[usize::from(key.as_bytes()[0]) % SHARDS]
    }

    fn note_expiry(&self, key: &PartitionKey, partition: &Partition, expires: Expiry) {
        partition.earliest.note(expires);
        self.shard(key).earliest.note(expires);
    }

    /// The partition, if it is open.
    pub(super) fn get(&self, key: &PartitionKey) -> Option<Arc<Partition>> {
        self.shard(key).open.read().get(key).map(Arc::clone)
    }

    /// Writes to a partition, opened if need be. `write` runs under the partition's lock.
    ///
    /// # Errors
    /// Those of `open` and `write`; then a partition without rows is not kept.
    pub(super) fn upsert(
        &self,
        key: PartitionKey,
        open: impl Fn() -> Result<Box<dyn VectorIndex>, IndexError>,
        expires: Expiry,
        write: impl Fn(&dyn VectorIndex) -> Result<(), IndexError>,
    ) -> Result<(), IndexError> {
        loop {
            let partition = match self.get(&key) {
                Some(partition) => partition,
                None => self.open(key, open()?),
            };
            let state = partition.state.lock();
            if state.is_gone {
                drop(state);
                self.detach(&key, &partition);
                continue;
            }
            let written = write(partition.index());
            if written.is_ok() {
                self.note_expiry(&key, &partition, expires);
            }
            self.settle(&key, &partition, state);
            return written;
        }
    }

    /// Takes an index into the map, where no partition is open yet; the one that is open otherwise.
    fn open(&self, key: PartitionKey, index: Box<dyn VectorIndex>) -> Arc<Partition> {
        let mut shard = self.shard(&key).open.write();
        let mut is_new = false;
        let partition = shard.entry(key).or_insert_with(|| {
            is_new = true;
            Arc::new(Partition::new(index))
        });
        let partition = Arc::clone(partition);
        drop(shard);
        if is_new {
            self.open.fetch_add(1, Ordering::Relaxed);
            self.bytes
                .fetch_add(partition.own_bytes(), Ordering::Relaxed);
        }
        partition
    }

    /// Opens a partition with the rows of `index`, the earliest of which expires at `earliest`. One that is
    /// open already is dropped.
    pub(super) fn adopt(&self, key: PartitionKey, index: Box<dyn VectorIndex>, earliest: Expiry) {
        self.drop_partition(&key, || ());
        if index.is_empty() {
            return;
        }
        let partition = self.open(key, index);
        self.note_expiry(&key, &partition, earliest);
        self.settle(&key, &partition, partition.state.lock());
    }

    /// Removes from a partition; `remove` runs under its lock and tells how many rows it removed. The last
    /// row takes the partition with it.
    pub(super) fn remove(
        &self,
        key: &PartitionKey,
        remove: impl FnOnce(&dyn VectorIndex) -> usize,
    ) -> usize {
        let Some(partition) = self.get(key) else {
            return 0;
        };
        let state = partition.state.lock();
        if state.is_gone {
            return 0;
        }
        let removed = remove(partition.index());
        self.settle(key, &partition, state);
        removed
    }

    /// Removes these rows of a partition, as one operation if it has no others. `told` hears under the
    /// partition's lock how it was done.
    pub(super) fn remove_all(
        &self,
        key: &PartitionKey,
        ids: &[RowId],
        told: impl FnOnce(Removed),
    ) -> usize {
        let Some(partition) = self.get(key) else {
            return 0;
        };
        let state = partition.state.lock();
        if state.is_gone {
            return 0;
        }
        let index = partition.index();
        let is_all = ids.len() >= index.len()
            && ids.iter().filter(|id| index.contains(**id)).count() == index.len();
        if is_all {
            let rows = index.len();
            told(Removed::Partition);
            self.close(key, &partition, state);
            return rows;
        }
        let removed = ids
            .iter()
            .filter(|id| index.remove(**id).unwrap_or(false))
            .count();
        told(Removed::Rows);
        self.settle(key, &partition, state);
        removed
    }

    /// Drops a partition with all its rows; tells how many they were. Searches that run go on with what
    /// they hold; its memory is given back after the last of them. `told` runs under the partition's lock.
    pub(super) fn drop_partition(&self, key: &PartitionKey, told: impl FnOnce()) -> usize {
        let Some(partition) = self.get(key) else {
            return 0;
        };
        let state = partition.state.lock();
        if state.is_gone {
            return 0;
        }
        let rows = partition.index.len();
        told();
        self.close(key, &partition, state);
        rows
    }

    /// Ends a write: counts what there is now, or closes a partition that has become empty.
    fn settle(
        &self,
        key: &PartitionKey,
        partition: &Arc<Partition>,
        mut state: MutexGuard<'_, State>,
    ) {
        if partition.index.is_empty() {
            self.close(key, partition, state);
        } else {
            self.count(*key, partition, &mut state);
        }
    }

    /// Takes a partition out of the totals and the map. Who holds it yet sees in its state that it is gone.
    fn close(
        &self,
        key: &PartitionKey,
        partition: &Arc<Partition>,
        mut state: MutexGuard<'_, State>,
    ) {
        state.is_gone = true;
        if state.rows as usize >= LARGE_ROWS {
            self.large.lock().remove(key);
        }
        add(&self.rows, state.rows, 0);
        add(&self.bytes, state.bytes, 0);
        self.bytes
            .fetch_sub(partition.own_bytes(), Ordering::Relaxed);
        self.open.fetch_sub(1, Ordering::Relaxed);
        // A shard is never locked while a partition is: a write may take a while.
        drop(state);
        self.detach(key, partition);
    }

    /// Takes this partition out of the map, unless another has its place already.
    fn detach(&self, key: &PartitionKey, partition: &Arc<Partition>) {
        let mut shard = self.shard(key).open.write();
        if shard
            .get(key)
            .is_some_and(|open| Arc::ptr_eq(open, partition))
        {
            shard.remove(key);
            if shard.len() < shard.capacity() / 4 {
                let keep = 2 * shard.len();
                shard.shrink_to(keep);
            }
        }
    }

    /// Removes what is expired, where there may be something; tells how many rows they were.
    pub(super) fn remove_expired(&self, now: Expiry) -> usize {
        let Some(seconds) = now.seconds() else {
            return 0;
        };
        // Which of the rows that stay expires first is not known without reading them all.
        let next = Expiry::at_seconds(u64::from(seconds.saturating_add(EXPIRY_GAP)));
        let mut removed = 0;
        for shard in &self.shards {
            if !shard.earliest.take_if_past(now) {
                continue;
            }
            let mut due = Vec::new();
            for (key, partition) in &*shard.open.read() {
                if partition.earliest.get().is_past(now) {
                    due.push(*key);
                } else {
                    shard.earliest.note(partition.earliest.get());
                }
            }
            for key in due {
                let Some(partition) = self.get(&key) else {
                    continue;
                };
                removed += self.remove(&key, |index| {
                    let _ = partition.earliest.take_if_past(now);
                    self.note_expiry(&key, &partition, next);
                    index.remove_expired(now).unwrap_or(0)
                });
            }
        }
        removed
    }

    /// Brings the totals up to date with what the partition holds now.
    fn count(&self, key: PartitionKey, partition: &Arc<Partition>, state: &mut State) {
        let rows = partition.index.len();
        let is_large = rows >= LARGE_ROWS;
        let bytes = if is_large { 0 } else { partition.index.bytes() };
        if is_large != (state.rows as usize >= LARGE_ROWS) {
            let mut large = self.large.lock();
            if is_large {
                large.insert(key, Arc::clone(partition));
            } else {
                large.remove(&key);
            }
        }
        let (rows, bytes) = (number(rows), number(bytes));
        add(&self.rows, state.rows, rows);
        add(&self.bytes, state.bytes, bytes);
        (state.rows, state.bytes) = (rows, bytes);
    }

    /// Rows over all partitions.
    pub(super) fn rows(&self) -> usize {
        self.rows.load(Ordering::Relaxed)
    }

    /// Open partitions.
    pub(super) fn len(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// The large partitions.
    pub(super) fn large(&self) -> Vec<Arc<Partition>> {
        self.large.lock().values().map(Arc::clone).collect()
    }

    /// Bytes of the partitions that are not large, and of the map.
    pub(super) fn small_bytes(&self) -> usize {
        let slots: usize = self
            .shards
            .iter()
            .map(|shard| shard.open.read().capacity())
            .sum();
        let slot = size_of::<(PartitionKey, Arc<Partition>)>() + 1;
        self.bytes.load(Ordering::Relaxed) + slots * 8 / 7 * slot + SHARDS * size_of::<Shard>()
    }

    /// Calls `f` with each partition, shard by shard and without a lock.
    pub(super) fn for_each<E>(
        &self,
        mut f: impl FnMut(PartitionKey, &Partition) -> Result<(), E>,
    ) -> Result<(), E> {
        for shard in &self.shards {
            let held: Vec<_> = shard
                .open
                .read()
                .iter()
                .map(|(key, partition)| (*key, Arc::clone(partition)))
                .collect();
            for (key, partition) in held {
                f(key, &partition)?;
            }
        }
        Ok(())
    }
}

/// What [`Partitions::remove_all`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removed {
    /// Rows, one by one.
    Rows,
    /// The partition, with all its rows.
    Partition,
}

/// Replaces what a partition contributes to a total.
fn add(total: &AtomicUsize, before: u32, now: u32) {
    // Wraps around on the way down, which adds up.
    total.fetch_add(
        (now as usize).wrapping_sub(before as usize),
        Ordering::Relaxed,
    );
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
