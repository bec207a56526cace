//! What only writers touch: where each row is, and how cells grow, split, shrink and merge.
//!
//! All of it is local to one cell and those around it, and done by the write that makes it due, in
//! microseconds: there is no rebuild of the whole and no thread. A full cell gets an eighth more
//! room, or is cut in two if it is large; one with too many dead rows is copied without them; one
//! with few rows left is dissolved into those around it. Lookups see the old cells until the new
//! ones are complete.
//!
//! Always true: `places` names each live row's cell and place, and no other, and `twins` its cell;
//! the directory that is published has the cells of `appenders`, in order. At no time is a live row
//! in no cell of the published directory.

use std::hash::BuildHasher;
use std::mem::size_of;
use std::sync::Arc;

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::Shared;
use super::cell::{Appender, Cell, Meta, NewRow, StillCell};
use super::config::Precision;
use super::directory::{Center, Directory, most_similar};
use super::encode::Encoded;
use super::split::{center_of, cut, mean_of};
use super::sync::ArcSwap;
use super::twins::{Count, Twins};
use crate::kernel::{Kernel, RowLine};
use crate::{Expiry, IndexError, RowId};

/// Most rows: places and cells are numbered in 32 bits.
const MAX_ROWS: usize = u32::MAX as usize - 1;
/// A cell is copied without its dead rows when they are more than this part of it.
const DEAD_PART: usize = 4;
/// A cell is dissolved when it has less than this part of the rows at which it would be split.
const FEW_PART: usize = 5;
/// Room for rows of a cell beyond those it has, as a part of them.
const SPARE_PART: usize = 10;
/// The same for a cell that loses rows, too: making room for the next ones frees the places of others.
const CHURN_PART: usize = 16;

/// Cells around each half of a cell that is cut, whose rows are looked at again. Around the halves
/// and not around the whole: when new topics arrive, the rows of one are spread over cells that have
/// nothing in common but a few of them, and only its first center of its own draws them together.
const AROUND: usize = 24;
/// A row moves to another cell if that is more similar by this much: not for what rounding decides.
const BETTER: f32 = 0.002;

/// Where a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) cell: u32,
    pub(super) position: u32,
}

/// A row that moves to one half of a cell that is cut.
#[derive(Clone, Copy, Debug)]
struct Joining {
    from: Place,
    to: usize,
}

#[derive(Debug)]
pub(super) struct Writer {
    appenders: Vec<Appender>,
    places: HashTable<Place>,
    hasher: DefaultHashBuilder,
    twins: Count,
    cell_bytes: usize,
    code: Vec<u64>,
    products: Vec<i32>,
    similarities: Vec<f32>,
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
            twins: Count::default(),
            code: vec![0; lines],
            products: Vec::new(),
            similarities: Vec::new(),
        };
        (writer, directory)
    }

    /// A writer of cells whose rows are all live, in the order of their directory. `None` if an id
    /// occurs twice.
    pub(super) fn of_cells(lines: usize, appenders: Vec<Appender>, twins: &Twins) -> Option<Self> {
        let count = appenders.iter().map(|a| a.cell().rows().len()).sum();
        let hasher = DefaultHashBuilder::default();
        let mut places = HashTable::with_capacity(count);
        let mut entries = Vec::with_capacity(count);
        for (number, appender) in appenders.iter().enumerate() {
            let rows = appender.cell().rows();
            for (position, meta) in rows.metas().iter().enumerate() {
                let id = meta.id();
                let entry = places.entry(
                    hasher.hash_one(id.0),
                    |&place| id_at(&appenders, place) == id,
                    |&place| hasher.hash_one(id_at(&appenders, place).0),
                );
                let Entry::Vacant(entry) = entry else {
                    return None;
                };
                entry.insert(place(number, position));
                entries.push((twins.hash(rows.high_of(position)), number as u32));
            }
        }
        Some(Self {
            cell_bytes: appenders.iter().map(|a| a.cell().bytes()).sum(),
            appenders,
            places,
            hasher,
            twins: twins.fill(entries.into_iter()),
            code: vec![0; lines],
            products: Vec::new(),
            similarities: Vec::new(),
        })
    }

    /// The cells as they are now.
    pub(super) fn still(&self) -> Vec<StillCell> {
        self.appenders.iter().map(|a| a.cell().still()).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Rows that are dead and not freed.
    pub(super) fn dead(&self) -> usize {
        self.appenders.iter().map(|a| a.cell().dead()).sum()
    }

    pub(super) fn bytes(&self) -> usize {
        self.cell_bytes
            + self.places.allocation_size()
            + self.appenders.capacity() * size_of::<Appender>()
            + self.twins.bytes()
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
        let hash = shared.twins.hash(&row.high);
        match self.place(id) {
            None => {
                let place = append(&mut self.appenders, cell, &new);
                self.enter(id, place);
                shared.twins.insert(&mut self.twins, hash, place.cell);
            }
            Some(old) => {
                {
                    // The new row first: a search may see both, but not neither. It is told so.
                    let _moving = shared.moves.begin();
                    let place = append(&mut self.appenders, cell, &new);
                    shared.twins.insert(&mut self.twins, hash, place.cell);
                    self.point(id, old, place);
                    self.bury(shared, old);
                }
                self.tidy(shared, old.cell as usize);
            }
        }
        Ok(())
    }

    /// Takes a row out of sight, which `places` no longer names.
    fn bury(&mut self, shared: &Shared, place: Place) {
        let cell = self.appenders[place.cell as usize].cell();
        cell.kill(place.position as usize);
        let hash = shared
            .twins
            .hash(cell.rows().high_of(place.position as usize));
        shared.twins.change(&mut self.twins, hash, place.cell, None);
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
        self.bury(shared, place);
        self.tidy(shared, place.cell as usize);
        self.give_back();
        shared.twins.give_back(&mut self.twins);
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
        shared.cell_rows.max(by_root as usize)
    }

    /// The cell that a row belongs to, once it has room for it.
    fn home_with_room(&mut self, shared: &Shared, high: &[RowLine]) -> usize {
        let mut may_split = true;
        loop {
            let directory = shared.directory.load();
            let (products, similarities) = (&mut self.products, &mut self.similarities);
            directory.similarities(&shared.encoder, high, 1.0, products, similarities);
            let home = most_similar(similarities);
            let cell = self.cell(home);
            let (len, dead) = (cell.rows().len(), cell.dead());
            if len < cell.capacity() {
                return home;
            }
            let live = len - dead;
            let limit = self.limit(shared);
            // Once, so that no write waits for a chain of them.
            if live >= limit && std::mem::take(&mut may_split) && self.split(shared, home) {
                continue;
            }
            // Not beyond where it would be split, unless it cannot be.
            let part = if dead > 0 { CHURN_PART } else { SPARE_PART };
            let spare = (live / part).max(8);
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
        spread_of(shared.encoder.kernel, unit, center, about)
    }

    fn cell(&self, number: usize) -> &Arc<Cell> {
        self.appenders[number].cell()
    }

    /// Books a row that is new.
    fn enter(&mut self, id: RowId, place: Place) {
        self.clear_marks();
        let (appenders, hasher) = (&self.appenders, &self.hasher);
        let hash = hasher.hash_one(id.0);
        self.places.insert_unique(hash, place, |place| {
            hasher.hash_one(id_at(appenders, *place).0)
        });
    }

    /// A map that is full of the marks of entries that went would grow to twice its size. It is made
    /// anew in the size that it has, if that leaves room for a good while.
    fn clear_marks(&mut self) {
        let len = self.places.len();
        let room = self.places.num_buckets() / 8 * 7;
        if len < self.places.capacity() || room < len + len / 16 + 8 {
            return;
        }
        let (appenders, hasher) = (&self.appenders, &self.hasher);
        let hash = |place: &Place| hasher.hash_one(id_at(appenders, *place).0);
        let mut places = HashTable::with_capacity(room);
        for &place in &self.places {
            places.insert_unique(hash(&place), place, hash);
        }
        self.places = places;
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
        let few = self.limit(shared) / FEW_PART;
        if live <= few && self.appenders.len() > 1 {
            self.dissolve(shared, cell);
        } else if is_worn(len, dead) {
            self.resize(shared, cell, live + live / CHURN_PART);
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
        let moved = self.appenders[number].compacted(capacity);
        let old = Arc::clone(self.cell(number));
        if old.dead() > 0 {
            shared.moves.drop_dead();
            // Each goes to the same place or one before it, which is free by then.
            for (at, position) in old.rows().live().enumerate() {
                let (from, to) = (place(number, position), place(number, at));
                self.repoint(shared, &old, from, to);
            }
        }
        shared.directory.load().cells[number].store(Arc::clone(moved.cell()));
        self.exchange(number, moved);
    }

    fn exchange(&mut self, number: usize, appender: Appender) {
        self.cell_bytes += appender.cell().bytes();
        self.cell_bytes -= self.cell(number).bytes();
        self.appenders[number] = appender;
    }

    /// Cuts a cell in two, and moves the rows around it that belong elsewhere now. `false` if its
    /// rows are all alike.
    fn split(&mut self, shared: &Shared, number: usize) -> bool {
        let encoder = &shared.encoder;
        let width = encoder.bits();
        let cell = Arc::clone(self.cell(number));
        let rows = cell.rows();
        let live: Vec<usize> = rows.live().collect();
        let units = self.decode(shared, &cell, &live);
        let Some(sides) = cut(encoder.kernel, &units, width) else {
            return false;
        };

        let old = shared.directory.load_full();
        let mut directory = old.copy();
        let lines = directory.lines;
        let other = directory.cells.len();
        directory.about.push(Center::NONE);
        directory
            .centers
            .resize((other + 1) * lines, RowLine([0; 64]));
        for (at, side) in [(number, true), (other, false)] {
            let mean = mean_of(encoder.kernel, &units, width, |row| sides[row] == side);
            let (center, about) = center_of(&mean);
            directory.set_center(at, &center, about);
        }
        let mut around = self.around(shared, &old, directory.center(number));
        around.extend(self.around(shared, &old, directory.center(other)));
        around.sort_unstable();
        around.dedup();
        around.retain(|&at| at != number);
        let joining = self.joining(shared, &directory, &around, [number, other]);

        // Each row of the cell goes to the most similar of the two and those around.
        let mut choices = vec![number, other];
        choices.extend(&around);
        let gathered: Vec<RowLine> = choices
            .iter()
            .flat_map(|&at| directory.center(at))
            .copied()
            .collect();
        let mut products = vec![0; choices.len()];
        let mut similarities = vec![0.0; choices.len()];
        let choose = |high: &[RowLine]| {
            encoder.kernel.dot_lines(high, &gathered, &mut products);
            for ((similarity, &at), &product) in
                similarities.iter_mut().zip(&choices).zip(&products)
            {
                *similarity = directory.about[at].cosine(product, 1.0);
            }
            choices[most_similar(&similarities)]
        };
        let chosen: Vec<usize> = live
            .iter()
            .map(|&at| rows.high_of(at))
            .map(choose)
            .collect();

        let counts = [number, other].map(|half| {
            let staying = chosen.iter().filter(|&&at| at == half).count();
            let coming = joining.iter().filter(|joining| joining.to == half).count();
            staying + coming
        });
        if counts.contains(&0) {
            // The centers are alike once rounded. A cell without rows would never be taken away.
            return false;
        }

        // Until the new directory is there, rows that move are seen twice: where they are, and
        // where they will be.
        let moving = shared.moves.begin();
        let two_planes = encoder.precision() == Precision::Int16;
        let mut halves =
            counts.map(|count| Appender::new(lines, count + count / SPARE_PART, two_planes));
        let mut leaving = Vec::new();
        let mut unit = Vec::new();
        for ((&position, &to), unit) in live.iter().zip(&chosen).zip(units.chunks_exact(width)) {
            let from = place(number, position);
            if to == number || to == other {
                let half = &mut halves[usize::from(to == other)];
                let spread = self.relate(shared, to, &directory, unit);
                if let Some(at) = half.append(&moved(&cell, position, &self.code, spread)) {
                    leaving.extend(self.announce(shared, &cell, from, place(to, at)));
                }
            } else {
                self.join(shared, &cell, from, to, &directory, unit);
            }
        }
        for joining in &joining {
            let (from, to) = (joining.from, joining.to);
            let cell = Arc::clone(self.cell(from.cell as usize));
            let position = from.position as usize;
            let (high, low) = (cell.rows().high_of(position), cell.rows().low_of(position));
            encoder.decode(high, low, &mut unit);
            let spread = self.relate(shared, to, &directory, &unit);
            let half = &mut halves[usize::from(to == other)];
            if let Some(at) = half.append(&moved(&cell, position, &self.code, spread)) {
                leaving.extend(self.announce(shared, &cell, from, place(to, at)));
            }
        }
        let [left, right] = halves;
        directory.cells[number].store(Arc::clone(left.cell()));
        directory.cells.push(ArcSwap::new(Arc::clone(right.cell())));
        // Cells around may have been exchanged for larger ones meanwhile.
        for &at in &around {
            directory.cells[at].store(Arc::clone(self.cell(at)));
        }
        shared.directory.store(Arc::new(directory));
        self.leave(shared, &leaving);
        for joining in &joining {
            let from = joining.from;
            self.cell(from.cell as usize).kill(from.position as usize);
        }
        self.exchange(number, left);
        self.cell_bytes += right.cell().bytes();
        self.appenders.push(right);
        for &at in &around {
            let (len, dead) = (self.cell(at).rows().len(), self.cell(at).dead());
            if is_worn(len, dead) {
                let live = len - dead;
                self.resize(shared, at, live + live / CHURN_PART);
            }
        }
        drop(moving);
        // From the last on: the cell that takes a number has been looked at. Cells with a few rows stay
        // for now: where these go, the next cell might be full.
        for &at in around.iter().rev() {
            if self.cell(at).rows().len() == self.cell(at).dead() {
                self.dissolve(shared, at);
            }
        }
        true
    }

    /// Books a row of this cell as moved to a place of the next directory. Until that is published,
    /// `twins` names both cells; the one that [`Self::leave`] must take out after it is returned.
    fn announce(
        &mut self,
        shared: &Shared,
        cell: &Cell,
        from: Place,
        to: Place,
    ) -> Option<(u32, u32)> {
        let rows = cell.rows();
        let position = from.position as usize;
        self.point(rows.metas()[position].id(), from, to);
        (from.cell != to.cell).then(|| {
            let hash = shared.twins.hash(rows.high_of(position));
            shared.twins.insert(&mut self.twins, hash, to.cell);
            (hash, from.cell)
        })
    }

    /// Takes out what `twins` still says of the directory before.
    fn leave(&mut self, shared: &Shared, leaving: &[(u32, u32)]) {
        for &(hash, cell) in leaving {
            shared.twins.change(&mut self.twins, hash, cell, None);
        }
    }

    /// Rows of the cells around that are more similar to one of two new centers than to their own.
    fn joining(
        &self,
        shared: &Shared,
        directory: &Directory,
        around: &[usize],
        halves: [usize; 2],
    ) -> Vec<Joining> {
        let kernel = shared.encoder.kernel;
        let mut joining = Vec::new();
        let mut products = [Vec::new(), Vec::new(), Vec::new()];
        for &at in around {
            let rows = self.cell(at).rows();
            let centers = [halves[0], halves[1], at];
            for (products, &center) in products.iter_mut().zip(&centers) {
                products.resize(rows.len(), 0);
                kernel.dot_lines(directory.center(center), rows.high(), products);
            }
            for position in rows.live() {
                // In steps of the row, so the margin is taken by its own similarity.
                let cosine =
                    |of: usize| directory.about[centers[of]].cosine(products[of][position], 1.0);
                let (left, right, own) = (cosine(0), cosine(1), cosine(2));
                if left.max(right) > own + own.abs() * BETTER {
                    joining.push(Joining {
                        from: place(at, position),
                        to: halves[usize::from(right > left)],
                    });
                }
            }
        }
        joining
    }

    /// Copies a row to the end of another cell, whose place it has from now on.
    fn join(
        &mut self,
        shared: &Shared,
        cell: &Cell,
        from: Place,
        to: usize,
        directory: &Directory,
        unit: &[f32],
    ) {
        let (len, capacity) = (self.cell(to).rows().len(), self.cell(to).capacity());
        if len == capacity {
            // Not compacted: other rows of it may be on their way, known by their places.
            let grown = self.appenders[to].grown(len + (len / SPARE_PART).max(8));
            shared.directory.load().cells[to].store(Arc::clone(grown.cell()));
            self.exchange(to, grown);
        }
        let spread = self.relate(shared, to, directory, unit);
        let row = moved(cell, from.position as usize, &self.code, spread);
        let place = append(&mut self.appenders, to, &row);
        self.repoint(shared, cell, from, place);
    }

    /// Books a row of this cell as moved to a place that lookups see already.
    fn repoint(&mut self, shared: &Shared, cell: &Cell, from: Place, to: Place) {
        let rows = cell.rows();
        let position = from.position as usize;
        self.point(rows.metas()[position].id(), from, to);
        if from.cell != to.cell {
            let hash = shared.twins.hash(rows.high_of(position));
            shared
                .twins
                .change(&mut self.twins, hash, from.cell, Some(to.cell));
        }
    }

    /// Takes a cell away, whose rows go to those around it.
    fn dissolve(&mut self, shared: &Shared, number: usize) {
        let cell = Arc::clone(self.cell(number));
        let live: Vec<usize> = cell.rows().live().collect();
        let units = self.decode(shared, &cell, &live);
        // Until the new directory is there, rows are seen twice.
        let _moving = shared.moves.begin();
        let old = shared.directory.load_full();
        for (&position, unit) in live.iter().zip(units.chunks_exact(shared.encoder.bits())) {
            let (products, similarities) = (&mut self.products, &mut self.similarities);
            let high = cell.rows().high_of(position);
            old.similarities(&shared.encoder, high, 1.0, products, similarities);
            similarities[number] = f32::NEG_INFINITY;
            let to = most_similar(similarities);
            self.join(shared, &cell, place(number, position), to, &old, unit);
        }
        let mut directory = old.copy();
        directory.take_out(number);
        let last = self.appenders.len() - 1;
        self.cell_bytes -= cell.bytes();
        self.appenders.swap_remove(number);
        let mut leaving = Vec::new();
        if number != last {
            let renumbered = Arc::clone(self.cell(number));
            for position in renumbered.rows().live() {
                let (from, to) = (place(last, position), place(number, position));
                leaving.extend(self.announce(shared, &renumbered, from, to));
            }
        }
        shared.directory.store(Arc::new(directory));
        self.leave(shared, &leaving);
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

    /// The cells most similar to this center, in no order.
    fn around(&mut self, shared: &Shared, directory: &Directory, center: &[RowLine]) -> Vec<usize> {
        let (products, similarities) = (&mut self.products, &mut self.similarities);
        directory.similarities(&shared.encoder, center, 1.0, products, similarities);
        let mut order: Vec<usize> = (0..directory.cells.len()).collect();
        if order.len() > AROUND {
            let descending = |&a: &usize, &b: &usize| similarities[b].total_cmp(&similarities[a]);
            order.select_nth_unstable_by(AROUND, descending);
            order.truncate(AROUND);
        }
        order
    }
}
/// Whether a cell has so many dead rows that it should be copied without them.
fn is_worn(len: usize, dead: usize) -> bool {
    dead * DEAD_PART > len.max(4 * DEAD_PART)
}

/// A row of this cell, seen from another center.
fn moved<'r>(cell: &'r Cell, position: usize, code: &'r [u64], spread: f32) -> NewRow<'r> {
    let rows = cell.rows();
    NewRow {
        code,
        high: rows.high_of(position),
        low: rows.low_of(position),
        meta: rows.metas()[position].with_spread(spread),
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
fn spread_of(kernel: Kernel, unit: &[f32], center: &[RowLine], about: Center) -> f32 {
    if about.norm == 0.0 {
        return 1.0;
    }
    let product = kernel.center_product(unit, center);
    let cosine = product * about.scale / about.norm;
    about.squared_distance(cosine).sqrt()
}
