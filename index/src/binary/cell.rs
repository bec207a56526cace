//! The rows of one cell: written at the end by one thread, read by all without a lock.
//!
//! A cell has room for a fixed number of rows. The one [`Appender`] of a cell writes a row behind
//! the last and then publishes the new length; a reader takes the length first and reads nothing
//! behind it. What is published never changes, but for the bit that tells whether a row is live.
//! A full cell is replaced by a larger one, or by two.
//!
//! ```text
//! codes   blocks of eight rows, word by word (see `CodeLine`)   read by every scan
//! metas   id, factor, spread, expiry                            read for rows within the radius
//! high    the row at 8 bits a component                         read for those within the spread
//! low     the next 8 bits, if kept                              read for those near the bar
//! ```
//!
//! Its rule, which the `unsafe` code here and in `room` keeps: places below the published length are
//! only read, places from it on are only touched by the appender, and the length is stored with
//! `Release` after the places and loaded with `Acquire` before them.

use std::mem::size_of;
use std::sync::Arc;

use super::room::{Map, Room};
use super::sync::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::kernel::{CodeLine, RowLine};
use crate::{Expiry, RowId};

/// Codes in a block.
pub(super) const BLOCK: usize = 8;

/// Bytes of a [`Meta`], in memory and in a file.
pub(super) const META_BYTES: usize = size_of::<Meta>();

/// What is kept of a row beside its code and its components.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Meta {
    id_low: u32,
    id_high: u32,
    /// See [`super::encode::Encoder::factor`].
    pub(super) factor: f32,
    /// Distance from the center of the cell.
    pub(super) spread: f32,
    pub(super) expires: Expiry,
}

impl Meta {
    pub(super) fn new(id: RowId, factor: f32, spread: f32, expires: Expiry) -> Self {
        Self {
            id_low: id.0 as u32,
            id_high: (id.0 >> 32) as u32,
            factor,
            spread,
            expires,
        }
    }

    /// The same row, seen from another center.
    pub(super) fn with_spread(self, spread: f32) -> Self {
        Self { spread, ..self }
    }

    pub(super) fn id(&self) -> RowId {
        RowId(u64::from(self.id_high) << 32 | u64::from(self.id_low))
    }

    /// As in a file: little-endian, and so as in memory where that is.
    pub(super) fn to_bytes(self) -> [u8; META_BYTES] {
        let mut bytes = [0; META_BYTES];
        let fields = [
            self.id_low,
            self.id_high,
            self.factor.to_bits(),
            self.spread.to_bits(),
            self.expires.0,
        ];
        for (bytes, field) in bytes.as_chunks_mut().0.iter_mut().zip(fields) {
            *bytes = field.to_le_bytes();
        }
        bytes
    }

    pub(super) fn of_bytes(bytes: &[u8; META_BYTES]) -> Self {
        let mut fields = [0; 5];
        for (field, bytes) in fields.iter_mut().zip(bytes.as_chunks().0) {
            *field = u32::from_le_bytes(*bytes);
        }
        let [id_low, id_high, factor, spread, expires] = fields;
        Self {
            id_low,
            id_high,
            factor: f32::from_bits(factor),
            spread: f32::from_bits(spread),
            expires: Expiry(expires),
        }
    }
}

/// The rows of a cell, as readers see them.
pub(super) struct Cell {
    lines: usize,
    capacity: usize,
    codes: Room<CodeLine>,
    metas: Room<Meta>,
    high: Room<RowLine>,
    low: Option<Room<RowLine>>,
    live: Box<[AtomicU64]>,
    published: AtomicUsize,
    dead: AtomicUsize,
    /// Bits of the least and the largest spread of any row.
    least_spread: AtomicU32,
    largest_spread: AtomicU32,
}

/// What a cell is made of beside what changes: see the module.
pub(super) struct Columns {
    pub(super) codes: Room<CodeLine>,
    pub(super) metas: Room<Meta>,
    pub(super) high: Room<RowLine>,
    /// Left out if the cell keeps one plane.
    pub(super) low: Option<Room<RowLine>>,
}

/// A cell at one moment: it holds on to the rows of then, whatever is written or removed later.
pub(super) struct StillCell {
    cell: Arc<Cell>,
    len: usize,
    dead: usize,
    live: Box<[u64]>,
}

impl StillCell {
    /// Live rows.
    pub(super) fn len(&self) -> usize {
        self.len - self.dead
    }

    /// Runs `body` on the live rows, side by side.
    pub(super) fn with_rows<T>(&self, body: impl FnOnce(Rows<'_>) -> T) -> T {
        let rows = Rows {
            cell: &self.cell,
            len: self.len,
        };
        if self.dead == 0 {
            return body(rows);
        }
        let is_live = |&at: &usize| self.live[at / 64] >> (at % 64) & 1 == 1;
        let packed = rows.packed((0..self.len).filter(is_live), self.len());
        body(packed.cell.rows())
    }
}

/// A row to be appended.
#[derive(Clone, Copy)]
pub(super) struct NewRow<'r> {
    pub(super) code: &'r [u64],
    pub(super) high: &'r [RowLine],
    /// Left out if the cell keeps one plane.
    pub(super) low: Option<&'r [RowLine]>,
    pub(super) meta: Meta,
}

impl Cell {
    fn new(lines: usize, capacity: usize, two_planes: bool) -> Self {
        let capacity = capacity.next_multiple_of(BLOCK);
        Self {
            lines,
            capacity,
            codes: Room::new(capacity / BLOCK * lines),
            metas: Room::new(capacity),
            high: Room::new(capacity * lines),
            low: two_planes.then(|| Room::new(capacity * lines)),
            live: (0..capacity.div_ceil(64))
                .map(|_| AtomicU64::new(0))
                .collect(),
            published: AtomicUsize::new(0),
            dead: AtomicUsize::new(0),
            least_spread: AtomicU32::new(f32::INFINITY.to_bits()),
            largest_spread: AtomicU32::new(0f32.to_bits()),
        }
    }

    /// A full cell of columns that hold `rows` rows. `None` if one is of another length.
    fn full(lines: usize, rows: usize, columns: Columns) -> Option<Self> {
        let Columns {
            codes,
            metas,
            high,
            low,
        } = columns;
        let is_whole = codes.capacity() == rows.div_ceil(BLOCK) * lines
            && metas.capacity() == rows
            && high.capacity() == rows * lines
            && low
                .as_ref()
                .is_none_or(|low| low.capacity() == rows * lines);
        if !is_whole {
            return None;
        }
        let live = (0..rows.div_ceil(64)).map(|word| {
            let bits = (rows - word * 64).min(64);
            AtomicU64::new(u64::MAX >> (64 - bits))
        });
        let cell = Self {
            lines,
            capacity: rows,
            codes,
            metas,
            high,
            low,
            live: live.collect(),
            published: AtomicUsize::new(rows),
            dead: AtomicUsize::new(0),
            least_spread: AtomicU32::new(f32::INFINITY.to_bits()),
            largest_spread: AtomicU32::new(0f32.to_bits()),
        };
        for meta in cell.rows().metas() {
            cell.widen(meta.spread);
        }
        Some(cell)
    }

    /// Takes a spread in; called by the appender only.
    fn widen(&self, spread: f32) {
        let load = |bits: &AtomicU32| f32::from_bits(bits.load(Ordering::Relaxed));
        if spread < load(&self.least_spread) {
            self.least_spread.store(spread.to_bits(), Ordering::Relaxed);
        }
        if spread > load(&self.largest_spread) {
            self.largest_spread
                .store(spread.to_bits(), Ordering::Relaxed);
        }
    }

    /// The cell as it is now. To be called while nobody writes.
    pub(super) fn still(self: &Arc<Self>) -> StillCell {
        let len = self.rows().len;
        StillCell {
            len,
            dead: self.dead(),
            live: self
                .live
                .iter()
                .map(|w| w.load(Ordering::Acquire))
                .collect(),
            cell: Arc::clone(self),
        }
    }

    /// The rows published by now.
    pub(super) fn rows(&self) -> Rows<'_> {
        Rows {
            cell: self,
            len: self.published.load(Ordering::Acquire),
        }
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Rows that were removed.
    pub(super) fn dead(&self) -> usize {
        self.dead.load(Ordering::Relaxed)
    }

    /// Takes a row out of sight; `false` if it was already.
    pub(super) fn kill(&self, position: usize) -> bool {
        let bit = 1 << (position % 64);
        let was = self.live[position / 64].fetch_and(!bit, Ordering::AcqRel) & bit != 0;
        if was {
            self.dead.fetch_add(1, Ordering::Relaxed);
        }
        was
    }

    /// Bytes of rows that are in a map.
    pub(super) fn mapped_bytes(&self) -> usize {
        self.codes.mapped_bytes()
            + self.metas.mapped_bytes()
            + self.high.mapped_bytes()
            + self.low.as_ref().map_or(0, Room::mapped_bytes)
    }

    /// The map that the rows are in.
    pub(super) fn map(&self) -> Option<&Arc<Map>> {
        self.codes.map()
    }

    /// Heap bytes, and those of the cell itself.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.codes.bytes()
            + self.metas.bytes()
            + self.high.bytes()
            + self.low.as_ref().map_or(0, Room::bytes)
            + size_of_val(&*self.live)
    }
}

impl std::fmt::Debug for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cell")
            .field("rows", &self.rows().len)
            .field("dead", &self.dead())
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

/// The rows of a cell that were published when this was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<'c> {
    cell: &'c Cell,
    len: usize,
}

impl<'c> Rows<'c> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whole blocks of codes. The rows behind them are in [`Self::tail`].
    pub(super) fn blocks(&self) -> &'c [CodeLine] {
        // SAFETY: the blocks hold rows below the published length only.
        unsafe {
            let count = self.len / BLOCK * self.cell.lines;
            self.cell.codes.published(0, count)
        }
    }

    /// Copies the codes behind the last whole block into a block of its own, and tells how many
    /// they are. Lanes without a code are zero.
    pub(super) fn tail(&self, block: &mut Vec<CodeLine>) -> usize {
        let lanes = self.len % BLOCK;
        block.clear();
        if lanes == 0 {
            return 0;
        }
        let first = self.len / BLOCK * self.cell.lines;
        for line in first..first + self.cell.lines {
            let mut words = [0; BLOCK];
            for (lane, word) in words.iter_mut().enumerate().take(lanes) {
                // SAFETY: the word belongs to a row below the published length. The line is not
                // borrowed as a whole, as the appender may be writing its other lanes.
                *word = unsafe {
                    let line: *const u64 = self.cell.codes.as_ptr().add(line).cast();
                    line.add(lane).read()
                };
            }
            block.push(CodeLine(words));
        }
        lanes
    }

    pub(super) fn metas(&self) -> &'c [Meta] {
        // SAFETY: below the published length.
        unsafe { self.cell.metas.published(0, self.len) }
    }

    /// The first planes of all rows, side by side.
    pub(super) fn high(&self) -> &'c [RowLine] {
        // SAFETY: below the published length.
        unsafe { self.cell.high.published(0, self.len * self.cell.lines) }
    }

    /// The second planes of all rows, side by side, if the cell keeps them.
    pub(super) fn low(&self) -> Option<&'c [RowLine]> {
        let low = self.cell.low.as_ref()?;
        // SAFETY: below the published length.
        Some(unsafe { low.published(0, self.len * self.cell.lines) })
    }

    /// The first plane of one row.
    pub(super) fn high_of(&self, position: usize) -> &'c [RowLine] {
        &self.high()[position * self.cell.lines..][..self.cell.lines]
    }

    /// The second plane of one row, if the cell keeps it.
    pub(super) fn low_of(&self, position: usize) -> Option<&'c [RowLine]> {
        let low = self.cell.low.as_ref()?;
        assert!(position < self.len, "a row that is not there");
        // SAFETY: below the published length.
        Some(unsafe { low.published(position * self.cell.lines, self.cell.lines) })
    }

    pub(super) fn is_live(&self, position: usize) -> bool {
        let word = self.cell.live[position / 64].load(Ordering::Acquire);
        word >> (position % 64) & 1 == 1
    }

    /// Places of the rows that are live.
    pub(super) fn live(self) -> impl Iterator<Item = usize> + 'c {
        (0..self.len).filter(move |&position| self.is_live(position))
    }

    /// Least and largest distance of a row from the center.
    pub(super) fn spreads(&self) -> (f32, f32) {
        let load = |bits: &AtomicU32| f32::from_bits(bits.load(Ordering::Relaxed));
        (
            load(&self.cell.least_spread),
            load(&self.cell.largest_spread),
        )
    }
}

/// The right to append to one cell. There is one for each cell.
#[derive(Debug)]
pub(super) struct Appender {
    cell: Arc<Cell>,
}

impl Appender {
    /// A cell with room for so many rows or a few more, and the right to fill it.
    pub(super) fn new(lines: usize, capacity: usize, two_planes: bool) -> Self {
        Self {
            cell: Arc::new(Cell::new(lines, capacity, two_planes)),
        }
    }

    /// A full cell of columns that hold `rows` rows. `None` if one is of another length.
    pub(super) fn full(lines: usize, rows: usize, columns: Columns) -> Option<Self> {
        let cell = Arc::new(Cell::full(lines, rows, columns)?);
        Some(Self { cell })
    }

    pub(super) fn cell(&self) -> &Arc<Cell> {
        &self.cell
    }

    /// Appends a row and publishes it; its place, or `None` if the cell is full.
    pub(super) fn append(&mut self, row: &NewRow<'_>) -> Option<usize> {
        let cell = &*self.cell;
        // Only this appender stores the length.
        let at = cell.published.load(Ordering::Relaxed);
        if at == cell.capacity {
            return None;
        }
        let lines = cell.lines;
        assert!(
            row.code.len() == lines && row.high.len() == lines,
            "a row of another length"
        );
        // SAFETY: `at` is below the capacity and not published, and the one appender is borrowed
        // mutably. The words of a code are written one by one, as readers may be reading the
        // published lanes of the same lines.
        unsafe {
            let block: *mut u64 = cell.codes.as_ptr().add(at / BLOCK * lines).cast();
            for (word, &bits) in row.code.iter().enumerate() {
                block.add(word * BLOCK + at % BLOCK).write(bits);
            }
            for (line, &components) in row.high.iter().enumerate() {
                cell.high.write(at * lines + line, components);
            }
            if let (Some(room), Some(low)) = (&cell.low, row.low) {
                for (line, &components) in low.iter().enumerate().take(lines) {
                    room.write(at * lines + line, components);
                }
            }
            cell.metas.write(at, row.meta);
        }
        cell.widen(row.meta.spread);
        cell.live[at / 64].fetch_or(1 << (at % 64), Ordering::Relaxed);
        cell.published.store(at + 1, Ordering::Release);
        Some(at)
    }

    /// A cell of another capacity with the live rows of this one, in the same order.
    pub(super) fn compacted(&self, capacity: usize) -> Self {
        let rows = self.cell.rows();
        rows.packed(rows.live(), capacity)
    }

    /// A cell of a larger capacity with all rows of this one, dead ones too, in the same places.
    pub(super) fn grown(&self, capacity: usize) -> Self {
        let rows = self.cell.rows();
        let mut grown = Self::new(self.cell.lines, capacity, self.cell.low.is_some());
        let mut code = vec![0; self.cell.lines];
        for position in 0..rows.len() {
            grown.append(&rows.copy_of(position, &mut code));
            if !rows.is_live(position) {
                grown.cell.kill(position);
            }
        }
        grown
    }
}

impl<'c> Rows<'c> {
    /// A cell with these rows only.
    fn packed(&self, positions: impl Iterator<Item = usize>, capacity: usize) -> Appender {
        let cell = self.cell;
        let mut packed = Appender::new(cell.lines, capacity, cell.low.is_some());
        let mut code = vec![0; cell.lines];
        for position in positions {
            packed.append(&self.copy_of(position, &mut code));
        }
        packed
    }

    /// A row as it would be appended to another cell with the same center.
    fn copy_of<'r>(&self, position: usize, code: &'r mut [u64]) -> NewRow<'r>
    where
        'c: 'r,
    {
        self.code_of(position, code);
        NewRow {
            code,
            high: self.high_of(position),
            low: self.low_of(position),
            meta: self.metas()[position],
        }
    }

    /// Copies the code of one row.
    pub(super) fn code_of(&self, position: usize, code: &mut [u64]) {
        assert!(position < self.len, "a row that is not there");
        let block = position / BLOCK * self.cell.lines;
        for (line, word) in (block..).zip(code) {
            // SAFETY: the word belongs to a row below the published length.
            *word = unsafe {
                let line: *const u64 = self.cell.codes.as_ptr().add(line).cast();
                line.add(position % BLOCK).read()
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(at: u64, code: &[u64], high: &[RowLine]) -> (Vec<u64>, Vec<RowLine>, Meta) {
        let code = code.iter().map(|word| word ^ at).collect();
        let high = high
            .iter()
            .map(|_| RowLine([at as i8; 64]))
            .collect::<Vec<_>>();
        let meta = Meta::new(
            RowId(at << 40 | at),
            at as f32,
            at as f32,
            Expiry::at_seconds(at),
        );
        (code, high, meta)
    }

    #[test]
    fn rows_are_read_as_they_were_written_while_more_are_appended() {
        let rows = if cfg!(miri) { 40 } else { 4000 };
        let mut appender = Appender::new(2, rows, true);
        let cell = Arc::clone(appender.cell());
        let (code, high) = ([7, 9], [RowLine([0; 64]); 2]);
        let check = |cell: &Cell| {
            let rows = cell.rows();
            let mut found = vec![0; 2];
            for position in 0..rows.len() {
                let (code, high, meta) = row(position as u64, &code, &high);
                rows.code_of(position, &mut found);
                assert_eq!(found, code);
                assert_eq!(rows.high_of(position), high);
                assert_eq!(rows.low_of(position), Some(&high[..]));
                assert_eq!(rows.metas()[position].id(), meta.id());
                assert!(rows.is_live(position));
            }
            let mut tail = Vec::new();
            let lanes = rows.tail(&mut tail);
            assert_eq!(rows.blocks().len() / 2 * BLOCK + lanes, rows.len());
            for lane in 0..lanes {
                let position = rows.len() - lanes + lane;
                assert_eq!(tail[0].0[lane], 7 ^ position as u64);
            }
            rows.len()
        };
        std::thread::scope(|scope| {
            scope.spawn(|| while check(&cell) < rows {});
            for at in 0..rows {
                let (code, high, meta) = row(at as u64, &code, &high);
                let new = NewRow {
                    code: &code,
                    high: &high,
                    low: Some(&high),
                    meta,
                };
                assert_eq!(appender.append(&new), Some(at));
            }
        });
        let (code, high, meta) = row(0, &code, &high);
        let new = NewRow {
            code: &code,
            high: &high,
            low: None,
            meta,
        };
        assert_eq!(appender.append(&new), None, "there is no room for more");
    }

    #[test]
    fn a_dead_row_is_out_of_sight_and_left_behind_by_a_move() {
        let mut appender = Appender::new(1, 10, false);
        for at in 0..10 {
            let (code, high, meta) = row(at, &[0], &[RowLine([0; 64])]);
            appender.append(&NewRow {
                code: &code,
                high: &high,
                low: None,
                meta,
            });
        }
        assert!(appender.cell().kill(3));
        assert!(!appender.cell().kill(3), "dead already");
        assert_eq!(appender.cell().dead(), 1);
        let moved = appender.compacted(9);
        let rows = moved.cell().rows();
        let ids: Vec<u64> = rows.metas().iter().map(|meta| meta.id().0 & 0xff).collect();
        assert_eq!(ids, [0, 1, 2, 4, 5, 6, 7, 8, 9]);
        assert_eq!(rows.live().count(), 9);
        assert_eq!(rows.spreads(), (0.0, 9.0));
    }
}
