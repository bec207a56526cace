//! What only writers touch: where each row is, and how cells grow, split, shrink and merge.
//!
//! All of it is local to one cell and done by the write that makes it due, in microseconds: there
//! is no rebuild of the whole and no thread. A full cell gets an eighth more room, or is cut in two
//! if it is large; one with too many dead rows is copied without them; one with few rows left is
//! dissolved into its neighbours. Lookups see the old cell until the new one is complete.
//!
//! Always true: `places` names each live row's cell and place, and no other; the directory that is
//! published has the cells of `appenders`, in order.

use std::hash::BuildHasher;
use std::mem::size_of;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::Shared;
use super::cell::{Appender, Cell, Meta, NewRow};
use super::config::Precision;
use super::directory::{Center, Child, Directory, Node};
use super::encode::Encoded;
use super::split::{center_of, cut, mean_of};
use crate::kernel::RowLine;
use crate::{Expiry, IndexError, RowId};

/// Most rows: places and cells are numbered in 32 bits.
const MAX_ROWS: usize = u32::MAX as usize - 1;
/// A cell is copied without its dead rows when they are more than this part of it.
const DEAD_PART: usize = 4;
/// A cell is dissolved when it has less than this part of the rows at which it would be split.
const FEW_PART: usize = 8;
/// Room for rows of a cell beyond those it has, as a part of them.
const SPARE_PART: usize = 8;

/// Where a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) cell: u32,
    pub(super) position: u32,
}

#[derive(Debug)]
pub(super) struct Writer {
    appenders: Vec<Appender>,
    places: HashTable<Place>,
    hasher: DefaultHashBuilder,
    cell_bytes: usize,
    code: Vec<u64>,
}

impl Writer {
    /// A writer with one empty cell, and its directory.
    pub(super) fn new(lines: usize, precision: Precision) -> (Self, Directory) {
        let appender = Appender::new(lines, 0, precision == Precision::Int16);
        let directory = Directory::of_one(lines, appender.cell());
        let writer = Self {
            cell_bytes: appender.cell().bytes(),
            appenders: vec![appender],
            places: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            code: vec![0; lines],
        };
        (writer, directory)
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Rows that are dead and not freed.
    pub(super) fn dead(&self) -> usize {
        self.appenders.iter().map(|a| a.cell().dead()).sum()
    }

    pub(super) fn bytes(&self) -> usize {
        // One byte of control for each bucket, of which seven eighths may be used.
        let buckets = (self.places.capacity() * 8 / 7).next_power_of_two();
        self.cell_bytes
            + buckets * (size_of::<Place>() + 1)
            + self.appenders.capacity() * size_of::<Appender>()
    }

    pub(super) fn place(&self, id: RowId) -> Option<Place> {
        let appenders = &self.appenders;
        let hash = self.hasher.hash_one(id.0);
        self.places
            .find(hash, |place| id_at(appenders, *place) == id)
            .copied()
    }

    /// Appends the row, which is encoded, and takes an older one with its id out of sight.
    pub(super) fn upsert(
        &mut self,
        shared: &Shared,
        id: RowId,
        row: &Encoded,
        expires: Expiry,
    ) -> Result<(), IndexError> {
        if self.len() >= MAX_ROWS {
            return Err(IndexError::Full { limit: MAX_ROWS });
        }
        let factor = shared.encoder.factor(row);
        let low = shared.encoder.low_of(&row.low);
        let cell = self.home_with_room(shared, &row.high);
        let directory = shared.directory.load();
        let spread = self.relate(shared, cell, &directory, &row.rotated);
        drop(directory);
        let new = NewRow {
            code: &self.code,
            high: &row.high,
            low,
            meta: Meta::new(id, factor, spread, expires),
        };
        match self.place(id) {
            None => {
                let place = append(&mut self.appenders, cell, &new);
                self.enter(id, place);
            }
            Some(old) => {
                {
                    let _moving = shared.moves.begin();
                    let place = append(&mut self.appenders, cell, &new);
                    self.point(id, old, place);
                    self.cell(old.cell as usize).kill(old.position as usize);
                }
                self.tidy(shared, old.cell as usize);
            }
        }
        Ok(())
    }

    /// Removes a row; `false` if there was none.
    pub(super) fn remove(&mut self, shared: &Shared, id: RowId) -> bool {
        let appenders = &self.appenders;
        let hash = self.hasher.hash_one(id.0);
        let Ok(entry) = self
            .places
            .find_entry(hash, |place| id_at(appenders, *place) == id)
        else {
            return false;
        };
        let (place, _) = entry.remove();
        self.appenders[place.cell as usize]
            .cell()
            .kill(place.position as usize);
        self.tidy(shared, place.cell as usize);
        self.give_back();
        true
    }

    /// Ids of the rows that are expired at `now`.
    pub(super) fn expired(&self, now: Expiry) -> Vec<RowId> {
        let mut expired = Vec::new();
        for appender in &self.appenders {
            let rows = appender.cell().rows();
            let metas = rows.metas();
            let past = rows.live().map(|at| &metas[at]);
            expired.extend(past.filter(|m| m.expires.is_past(now)).map(Meta::id));
        }
        expired
    }

    /// Rows at which a cell is cut in two. Grows with the root of all rows, as the time to choose
    /// cells grows with their number and the time to look into them with their size.
    fn limit(&self, shared: &Shared) -> usize {
        let by_root = (self.len() as f64).sqrt() * 0.8;
        shared.config.cell_rows.max(by_root as usize)
    }

    /// The cell that a row belongs to, once it has room for it.
    fn home_with_room(&mut self, shared: &Shared, high: &[RowLine]) -> usize {
        loop {
            let directory = shared.directory.load();
            let home = directory.home(&shared.encoder, high);
            let cell = self.cell(home);
            let (len, dead) = (cell.rows().len(), cell.dead());
            if len < cell.capacity() {
                return home;
            }
            let live = len - dead;
            let limit = self.limit(shared);
            if live >= limit && self.split(shared, home) {
                continue;
            }
            // Not beyond where it would be split, unless it cannot be.
            let spare = (live / SPARE_PART).max(8);
            let wanted = live + spare;
            let capacity = if live < limit {
                wanted.min(limit.max(live + 1))
            } else {
                wanted
            };
            self.resize(shared, home, capacity);
        }
    }

    /// Leaves the code of a row relative to the center of its cell in `self.code`; returns its
    /// distance from the center.
    fn relate(&mut self, shared: &Shared, cell: usize, directory: &Directory, unit: &[f32]) -> f32 {
        let (center, about) = (directory.center(cell), directory.about[cell]);
        shared
            .encoder
            .kernel
            .residual_code(unit, center, about.scale, &mut self.code);
        spread_of(unit, center, about)
    }

    fn cell(&self, number: usize) -> &Arc<Cell> {
        self.appenders[number].cell()
    }

    /// Books a row that is new.
    fn enter(&mut self, id: RowId, place: Place) {
        let (appenders, hasher) = (&self.appenders, &self.hasher);
        let hash = hasher.hash_one(id.0);
        self.places.insert_unique(hash, place, |place| {
            hasher.hash_one(id_at(appenders, *place).0)
        });
    }

    /// Books a row that was at `old`, which still holds it, and is now at `new`.
    fn point(&mut self, id: RowId, old: Place, new: Place) {
        let hash = self.hasher.hash_one(id.0);
        if let Some(place) = self.places.find_mut(hash, |place| *place == old) {
            *place = new;
        }
    }

    /// Does what is due after a row of this cell died.
    fn tidy(&mut self, shared: &Shared, cell: usize) {
        let (len, dead) = {
            let cell = self.appenders[cell].cell();
            (cell.rows().len(), cell.dead())
        };
        let live = len - dead;
        let few = shared.config.cell_rows / FEW_PART;
        if live <= few && self.appenders.len() > 1 {
            self.dissolve(shared, cell);
        } else if dead * DEAD_PART > len.max(4 * DEAD_PART) {
            self.resize(shared, cell, live + live / SPARE_PART);
        } else if live == 0 {
            self.resize(shared, cell, 0);
        }
    }

    /// Returns memory of the map once three quarters of it are idle.
    fn give_back(&mut self) {
        if self.places.len() < self.places.capacity() / 4 {
            let (appenders, hasher) = (&self.appenders, &self.hasher);
            self.places.shrink_to(self.places.len() * 2, |place| {
                hasher.hash_one(id_at(appenders, *place).0)
            });
        }
    }

    /// Puts a cell of another capacity, without dead rows, in place of this one.
    fn resize(&mut self, shared: &Shared, number: usize, capacity: usize) {
        let moved = self.appenders[number].moved_to(capacity);
        let old = Arc::clone(self.cell(number));
        if old.dead() > 0 {
            self.repoint(number, &old, number, &moved);
        }
        shared.directory.load().cells[number].store(Arc::clone(moved.cell()));
        self.exchange(number, moved);
    }

    fn exchange(&mut self, number: usize, appender: Appender) {
        self.cell_bytes += appender.cell().bytes();
        self.cell_bytes -= self.cell(number).bytes();
        self.appenders[number] = appender;
    }

    /// Books the live rows of a cell as moved, in order, to another.
    fn repoint(&mut self, from: usize, old: &Cell, to: usize, new: &Appender) {
        // Each goes to the same place or one before it, which is free by then.
        let metas = new.cell().rows().metas();
        for ((position, meta), old) in metas.iter().enumerate().zip(old.rows().live()) {
            self.point(meta.id(), place(from, old), place(to, position));
        }
    }

    /// Cuts a cell in two. `false` if its rows are all alike.
    fn split(&mut self, shared: &Shared, number: usize) -> bool {
        let encoder = &shared.encoder;
        let cell = Arc::clone(self.cell(number));
        let rows = cell.rows();
        let live: Vec<usize> = rows.live().collect();
        let units = self.decode(shared, &cell, &live);
        let width = encoder.bits();
        let Some(cut) = cut(encoder, &units, |at| rows.high_of(live[at])) else {
            return false;
        };

        let mut directory = shared.directory.load().copy();
        let lines = directory.lines;
        let other = directory.cells.len();
        let node = directory.nodes.len() as u32;
        directory.link(Child::Cell(number as u32), Child::Node(node));
        directory.nodes.push(Node {
            bias: cut.bias,
            left: Child::Cell(number as u32),
            right: Child::Cell(other as u32),
        });
        directory.planes.extend_from_slice(&cut.plane);
        directory
            .centers
            .resize((other + 1) * lines, RowLine([0; 64]));
        directory.about.push(Center::NONE);
        let mut sides = [(number, true), (other, false)].map(|(number, left)| {
            let count = cut.goes_left.iter().filter(|&&side| side == left).count();
            let mean = mean_of(&units, width, |at| cut.goes_left[at] == left);
            let (center, about) = center_of(&mean);
            directory.centers[number * lines..][..lines].copy_from_slice(&center);
            directory.about[number] = about;
            let capacity = count + count / SPARE_PART;
            Appender::new(lines, capacity, encoder.precision() == Precision::Int16)
        });
        for ((&position, unit), &left) in live
            .iter()
            .zip(units.chunks_exact(width))
            .zip(&cut.goes_left)
        {
            let to = if left { number } else { other };
            let spread = self.relate(shared, to, &directory, unit);
            let meta = rows.metas()[position];
            let new = NewRow {
                code: &self.code,
                high: rows.high_of(position),
                low: rows.low_of(position),
                meta: meta.with_spread(spread),
            };
            if let Some(at) = sides[usize::from(!left)].append(&new) {
                self.point(meta.id(), place(number, position), place(to, at));
            }
        }
        let [left, right] = sides;
        directory.cells[number].store(Arc::clone(left.cell()));
        directory.cells.push(ArcSwap::new(Arc::clone(right.cell())));
        shared.directory.store(Arc::new(directory));
        self.exchange(number, left);
        self.cell_bytes += right.cell().bytes();
        self.appenders.push(right);
        true
    }

    /// Rows of a cell as unit vectors, rotated, side by side.
    fn decode(&self, shared: &Shared, cell: &Cell, positions: &[usize]) -> Vec<f32> {
        let rows = cell.rows();
        let mut units = Vec::with_capacity(positions.len() * shared.encoder.bits());
        let mut unit = Vec::new();
        for &position in positions {
            let (high, low) = (rows.high_of(position), rows.low_of(position));
            shared.encoder.decode(high, low, &mut unit);
            units.extend_from_slice(&unit);
        }
        units
    }

    /// Takes a cell away and gives its rows to those that now lie around them.
    fn dissolve(&mut self, shared: &Shared, number: usize) {
        let cell = Arc::clone(self.cell(number));
        let rows = cell.rows();
        let live: Vec<usize> = rows.live().collect();
        let units = self.decode(shared, &cell, &live);
        // Between the two directories a row is in none or in both.
        let _moving = shared.moves.begin();
        for &position in &live {
            let hash = self.hasher.hash_one(rows.metas()[position].id().0);
            let from = place(number, position);
            if let Ok(entry) = self.places.find_entry(hash, |place| *place == from) {
                entry.remove();
            }
        }
        let mut directory = shared.directory.load().copy();
        directory.take_out(number);
        let last = self.appenders.len() - 1;
        self.cell_bytes -= cell.bytes();
        self.appenders.swap_remove(number);
        if number != last {
            let moved = Arc::clone(self.cell(number));
            for position in moved.rows().live() {
                let id = moved.rows().metas()[position].id();
                self.point(id, place(last, position), place(number, position));
            }
        }
        shared.directory.store(Arc::new(directory));
        for (&position, unit) in live.iter().zip(units.chunks_exact(shared.encoder.bits())) {
            let high = rows.high_of(position);
            let home = self.home_with_room(shared, high);
            let directory = shared.directory.load();
            let spread = self.relate(shared, home, &directory, unit);
            let meta = rows.metas()[position];
            let new = NewRow {
                code: &self.code,
                high,
                low: rows.low_of(position),
                meta: meta.with_spread(spread),
            };
            let place = append(&mut self.appenders, home, &new);
            self.enter(meta.id(), place);
        }
    }
}

/// Where the row is that was just made room for.
fn append(appenders: &mut [Appender], cell: usize, row: &NewRow<'_>) -> Place {
    let position = appenders[cell].append(row);
    debug_assert!(position.is_some(), "room was made for it");
    place(cell, position.unwrap_or_default())
}

fn place(cell: usize, position: usize) -> Place {
    // Lossless, as no more than MAX_ROWS rows are taken.
    Place {
        cell: cell as u32,
        position: position as u32,
    }
}

fn id_at(appenders: &[Appender], place: Place) -> RowId {
    let rows = appenders[place.cell as usize].cell().rows();
    rows.metas()[place.position as usize].id()
}

/// Distance of a unit vector from a center.
fn spread_of(unit: &[f32], center: &[RowLine], about: Center) -> f32 {
    if about.norm == 0.0 {
        return 1.0;
    }
    let components = center.iter().flat_map(|line| line.0).map(f32::from);
    let product: f32 = unit.iter().zip(components).map(|(x, c)| x * c).sum();
    let cosine = product * about.scale / about.norm;
    about.squared_distance(cosine).sqrt()
}
