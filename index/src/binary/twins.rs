//! In which cell a row lies, by its components: so that a search by a row's own vector finds it.
//!
//! A row lies in the cell whose center was most similar when it was written. Centers move as cells
//! split, and another may be more similar later. Searches look at many cells and would hardly ever
//! miss it; this table makes it never: it names the cell of every row by a hash of the row, and a
//! search looks into the cells that its own hash names before all others.
//!
//! One writer, readers without locks. An entry is one word: 32 bits of hash, which also say where it
//! belongs (linear probing), and the cell. Rows that are alike in the same cell share an entry, so
//! that thousands of them make no long walks.
//!
//! Always true: the published directory has each live row in a cell that an entry with the hash of the
//! row names. While rows move to the next directory, there are entries for both. So a reader that
//! finds the same directory before and after it looked here knows all cells. Between writes there are
//! no other entries.

use std::hash::BuildHasher;
use std::mem::size_of;
use std::sync::Arc;

use hashbrown::hash_map::Entry;
use hashbrown::{DefaultHashBuilder, HashMap};

use super::sync::{ArcSwap, AtomicU64, Ordering};
use crate::kernel::RowLine;

const EMPTY: u64 = 0;
const GONE: u64 = 1;
/// Entries are told from the two marks by this.
const FIRST_CELL: u64 = 2;
/// Cells that one search is told of: more rows than this that are equal bit for bit are not in
/// more cells.
const MOST_CELLS: usize = 8;

#[derive(Debug)]
pub(super) struct Twins {
    slots: ArcSwap<Vec<AtomicU64>>,
    hasher: DefaultHashBuilder,
}

/// What only the writer knows of the table.
#[derive(Debug, Default)]
pub(super) struct Count {
    used: usize,
    gone: usize,
    /// Rows of an entry that has several, without the first.
    more: HashMap<u64, u32>,
}

impl Count {
    pub(super) fn bytes(&self) -> usize {
        self.more.allocation_size()
    }

    /// Takes one of several rows from an entry; `false` if it has but one.
    fn take_one_of_several(&mut self, entry: u64) -> bool {
        let Entry::Occupied(mut more) = self.more.entry(entry) else {
            return false;
        };
        if *more.get() > 1 {
            *more.get_mut() -= 1;
        } else {
            more.remove();
            if self.more.len() < self.more.capacity() / 4 {
                self.more.shrink_to_fit();
            }
        }
        true
    }
}

impl Twins {
    pub(super) fn new() -> Self {
        Self {
            slots: ArcSwap::from_pointee(Vec::new()),
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// Hash of a row's first plane.
    pub(super) fn hash(&self, high: &[RowLine]) -> u32 {
        let mut state = self.hasher.build_hasher();
        for line in high {
            std::hash::Hasher::write(&mut state, &line.0.map(i8::cast_unsigned));
        }
        std::hash::Hasher::finish(&state) as u32
    }

    /// Cells that hold a row of this hash, each once.
    pub(super) fn cells(&self, hash: u32, out: &mut Vec<u32>) {
        out.clear();
        let slots = self.slots.load();
        for at in walk(slots.len(), hash) {
            let entry = slots[at].load(Ordering::Acquire);
            if entry == EMPTY || out.len() == MOST_CELLS {
                break;
            }
            if let Some(cell) = cell_of(entry, hash)
                && !out.contains(&cell)
            {
                out.push(cell);
            }
        }
    }

    /// Puts these entries, a hash and a cell each, in the place of all that there were.
    pub(super) fn fill(&self, entries: impl ExactSizeIterator<Item = (u32, u32)>) -> Count {
        let size = size_for(entries.len());
        let mut slots = vec![EMPTY; size];
        let mut count = Count::default();
        for (hash, cell) in entries {
            let entry = entry_of(hash, cell);
            match walk(size, hash).find(|&at| slots[at] == EMPTY || slots[at] == entry) {
                Some(at) if slots[at] == entry => *count.more.entry(entry).or_default() += 1,
                Some(at) => {
                    slots[at] = entry;
                    count.used += 1;
                }
                None => {}
            }
        }
        let slots = slots.into_iter().map(AtomicU64::new).collect();
        self.slots.store(Arc::new(slots));
        count
    }

    pub(super) fn insert(&self, count: &mut Count, hash: u32, cell: u32) {
        // At most three quarters are in use, so that walks are short.
        if (count.used + count.gone + 1) * 4 > self.slots.load().len() * 3 {
            self.rebuild(count);
        }
        let slots = self.slots.load();
        let new = entry_of(hash, cell);
        let mut free = None;
        for at in walk(slots.len(), hash) {
            let entry = slots[at].load(Ordering::Relaxed);
            if entry == new {
                *count.more.entry(new).or_default() += 1;
                return;
            }
            if entry < FIRST_CELL && free.is_none() {
                free = Some((at, entry));
            }
            if entry == EMPTY {
                break;
            }
        }
        if let Some((at, was)) = free {
            count.gone -= usize::from(was == GONE);
            count.used += 1;
            slots[at].store(new, Ordering::Release);
        }
    }

    /// Takes one row from the entry of this hash and cell, or gives it to that of another cell.
    pub(super) fn change(&self, count: &mut Count, hash: u32, cell: u32, to: Option<u32>) {
        let old = entry_of(hash, cell);
        if count.take_one_of_several(old) {
            if let Some(to) = to {
                self.insert(count, hash, to);
            }
            return;
        }
        let new = to.map(|to| entry_of(hash, to));
        let slots = self.slots.load();
        let (mut from, mut other) = (None, None);
        for at in walk(slots.len(), hash) {
            let entry = slots[at].load(Ordering::Relaxed);
            if entry == old {
                from = Some(at);
            } else if Some(entry) == new {
                other = new;
            }
            // An entry that goes need not be compared with others.
            if entry == EMPTY || from.is_some() && (new.is_none() || other.is_some()) {
                break;
            }
        }
        let Some(at) = from else {
            return;
        };
        match (new, other) {
            // In its place, so that a reader on its way meets one or the other.
            (Some(new), None) => slots[at].store(new, Ordering::Release),
            (_, other) => {
                if let Some(other) = other {
                    *count.more.entry(other).or_default() += 1;
                }
                slots[at].store(GONE, Ordering::Release);
                count.used -= 1;
                count.gone += 1;
            }
        }
    }

    /// Puts the entries into a table of the right size.
    pub(super) fn rebuild(&self, count: &mut Count) {
        let size = size_for(count.used);
        let slots: Vec<AtomicU64> = (0..size).map(|_| AtomicU64::new(EMPTY)).collect();
        for entry in self.slots.load().iter() {
            let entry = entry.load(Ordering::Relaxed);
            if entry < FIRST_CELL {
                continue;
            }
            let free = walk(size, (entry >> 32) as u32)
                .find(|&at| slots[at].load(Ordering::Relaxed) == EMPTY);
            if let Some(at) = free {
                slots[at].store(entry, Ordering::Relaxed);
            }
        }
        count.gone = 0;
        self.slots.store(Arc::new(slots));
    }

    /// Gives memory back once three quarters of it are idle.
    pub(super) fn give_back(&self, count: &mut Count) {
        if count.used * 4 + 64 < self.slots.load().len() {
            self.rebuild(count);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.slots.load().capacity() * size_of::<AtomicU64>()
    }
}

/// Places of a table for so many entries and some more.
fn size_for(used: usize) -> usize {
    used + used / 2 + 16
}

/// All places, from the one that the hash belongs to.
fn walk(size: usize, hash: u32) -> impl Iterator<Item = usize> {
    let first = ((u64::from(hash) * size as u64) >> 32) as usize;
    (first..size).chain(0..first)
}

fn entry_of(hash: u32, cell: u32) -> u64 {
    u64::from(hash) << 32 | (u64::from(cell) + FIRST_CELL)
}

fn cell_of(entry: u64, hash: u32) -> Option<u32> {
    let is_it = entry >> 32 == u64::from(hash) && entry & u64::from(u32::MAX) >= FIRST_CELL;
    is_it.then(|| (entry as u32).wrapping_sub(FIRST_CELL as u32))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::binary::rotate::split_mix;

    #[test]
    fn the_table_agrees_with_a_map_of_lists() {
        let twins = Twins::new();
        let mut count = Count::default();
        let mut map: HashMap<u32, Vec<u32>> = HashMap::new();
        let mut state = 9;
        for step in 0..20_000u32 {
            // Few hashes, spread over the range, so that some have several cells.
            let hash = (split_mix(&mut state) as u32 % 500).wrapping_mul(0x9e37_79b9);
            let cells = map.entry(hash).or_default();
            let shrinking = step % 4000 > 2500;
            match split_mix(&mut state) % 4 {
                0 | 1 if !shrinking && cells.len() < 6 => {
                    let cell = split_mix(&mut state) as u32 % 9;
                    twins.insert(&mut count, hash, cell);
                    cells.push(cell);
                }
                2 if !cells.is_empty() => {
                    let cell = step % 9;
                    twins.change(&mut count, hash, cells[0], Some(cell));
                    cells[0] = cell;
                }
                _ => {
                    if let Some(cell) = cells.pop() {
                        twins.change(&mut count, hash, cell, None);
                        twins.give_back(&mut count);
                    }
                }
            }
            let mut found = Vec::new();
            twins.cells(hash, &mut found);
            found.sort_unstable();
            let mut expected = cells.clone();
            expected.sort_unstable();
            expected.dedup();
            assert_eq!(found, expected, "step {step}");
            let rows = count.used
                + count
                    .more
                    .values()
                    .map(|&more| more as usize)
                    .sum::<usize>();
            assert_eq!(rows, map.values().map(Vec::len).sum::<usize>());
        }
    }
}
