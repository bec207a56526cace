//! The index made for a cache: it reads codes of one bit a component, and scores what is near.
//!
//! ```text
//! query ─ rotate, round ─ choose cells ─ codes within the radius ─ score by 8 bits ─ by all bits
//!         encode, rotate    directory      cell, kernel, tuning       search
//! write ─ rotate, round ─ cell of the vector ─ append, publish ─ split, shrink, merge cells
//!                            directory            cell                writer, split
//! ```
//!
//! Design: `directory` (which cells), `cell` (rows without locks), `tuning` (how far to look),
//! `writer` (how cells change). Why codes and cells and no graph: a cache writes one row at a time
//! and removes it again, looks for few rows above a threshold, and must find every row it stores.
//! A scan of short codes does that, reads little because it knows the threshold, and leaves
//! nothing to repair.
//!
//! Always true: searches take no lock, but for one that rows were moved under three times in a row;
//! writes are made one at a time; a row is found by its own vector from the moment its write
//! returned, because its cell is the first that a search by that vector looks at.

use std::io::Write;
use std::mem::size_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

pub use self::config::{BinaryConfig, Precision};
use self::directory::Directory;
use self::encode::Encoder;
use self::search::{Scratch, Searcher, with_scratch};
use self::tuning::Tuning;
use self::writer::Writer;
use crate::neighbor::TopK;
use crate::rows::Rows;
use crate::snapshot::{self, Engine};
use crate::vector::{check_dimension, with_unit};
use crate::{
    Audit, Backlog, Capability, Expiry, IndexError, Neighbor, Query, Row, RowId, VectorIndex,
};

#[expect(unsafe_code, reason = "rows that are appended to while they are read")]
mod cell;
mod config;
mod directory;
mod encode;
mod rotate;
mod search;
mod split;
mod tuning;
mod writer;

/// Components of a vector are rounded up to whole words of a code, which are whole lines of a row.
const LANE: usize = 64;

/// Times that a search begins anew because rows were moved under it, before it holds writers up.
const RETRIES: usize = 3;

/// Searches an audit learns from: those that look for something at least this near.
const LEARNED_FROM: f32 = 0.5;

/// The default index for more than a handful of rows; see the [crate documentation](crate#engines).
///
/// ```
/// use askonce_index::{BinaryConfig, BinaryIndex, RowId, VectorIndex};
///
/// let index = BinaryIndex::new(2, BinaryConfig::default())?;
/// index.upsert(RowId(1), &[3.0, 4.0])?;
/// let mut found = Vec::new();
/// index.search_above(&[0.6, 0.8], 0.9, 1, &mut found)?;
/// assert_eq!(found[0].id, RowId(1));
/// # Ok::<(), askonce_index::IndexError>(())
/// ```
#[derive(Debug)]
pub struct BinaryIndex {
    dimension: usize,
    shared: Shared,
    writer: Mutex<Writer>,
    len: AtomicUsize,
    bytes: AtomicUsize,
}

/// What readers and the writer share.
#[derive(Debug)]
struct Shared {
    config: BinaryConfig,
    encoder: Encoder,
    tuning: Arc<Tuning>,
    directory: ArcSwap<Directory>,
    moves: Moves,
}

/// Counts the times that rows moved in a way that a search could see them twice or not at all. Odd
/// while they do.
#[derive(Debug, Default)]
struct Moves(AtomicU64);

impl Moves {
    fn begin(&self) -> Moving<'_> {
        self.0.fetch_add(1, Ordering::AcqRel);
        Moving(self)
    }

    /// The count, if no row is moving.
    fn still(&self) -> Option<u64> {
        let count = self.0.load(Ordering::Acquire);
        count.is_multiple_of(2).then_some(count)
    }

    /// Whether no row moved since.
    fn are_still(&self, count: u64) -> bool {
        fence(Ordering::Acquire);
        self.0.load(Ordering::Relaxed) == count
    }
}

struct Moving<'m>(&'m Moves);

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::AcqRel);
    }
}

impl BinaryIndex {
    /// An empty index for vectors of `dimension` components.
    ///
    /// # Errors
    /// [`IndexError::UnsupportedDimension`] outside `1..=`[`crate::MAX_DIMENSION`],
    /// [`IndexError::InvalidConfig`] for a setting out of range.
    pub fn new(dimension: usize, config: BinaryConfig) -> Result<Self, IndexError> {
        check_dimension(dimension)?;
        config.validate()?;
        let encoder = Encoder::new(dimension, config.precision);
        let tuning = Tuning::new(encoder.bits(), config.recall, config.spread);
        let (writer, directory) = Writer::new(encoder.lines(), config.precision);
        let index = Self {
            dimension,
            shared: Shared {
                config,
                encoder,
                tuning: Arc::new(tuning),
                directory: ArcSwap::from_pointee(directory),
                moves: Moves::default(),
            },
            writer: Mutex::new(writer),
            len: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        };
        index.count(&index.writer.lock());
        Ok(index)
    }

    /// An index with these rows.
    pub(crate) fn from_rows(rows: &Rows, config: BinaryConfig) -> Result<Self, IndexError> {
        let index = Self::new(rows.dimension(), config)?;
        for row in rows.iter() {
            index.upsert_until(row.id, row.vector, row.expires)?;
        }
        Ok(index)
    }

    /// Cells that the rows are in.
    #[must_use]
    pub fn cells(&self) -> usize {
        self.shared.directory.load().cells.len()
    }

    /// Publishes what the writer holds.
    fn count(&self, writer: &Writer) {
        let bytes = size_of::<Shared>() + self.shared.directory.load().bytes() + writer.bytes();
        self.len.store(writer.len(), Ordering::Release);
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    fn run(&self, query: &Query<'_>, scratch: &mut Scratch, out: &mut Vec<Neighbor>) {
        let directory = self.shared.directory.load();
        let searcher = Searcher {
            encoder: &self.shared.encoder,
            directory: &directory,
            tuning: &self.shared.tuning,
            probes: self.shared.config.probes,
        };
        let start = out.len();
        let rows = self.len();
        // To list a good part of the rows, reading all of them is as fast.
        let many = query.k.saturating_mul(4) >= rows && query.min_score <= -1.0;
        if !query.exact && !many {
            let mut top = TopK::new(out, query.k, rows);
            searcher.run(query, scratch, &mut top);
            top.finish();
            let found = out.len() - start;
            if query.min_score > -1.0 || found >= query.k.min(rows) {
                return;
            }
            out.truncate(start);
        }
        let mut top = TopK::new(out, query.k, rows);
        searcher.run_exact(query, scratch, &mut top);
        top.finish();
    }

    fn rows(&self) -> Rows {
        let mut rows = Rows::new(self.dimension);
        rows.reserve(self.len());
        self.for_each(&mut |row| {
            // There is room: an index of rows has as much as this one.
            let _ = rows.push(row.id, row.vector, row.expires);
        });
        rows
    }
}

impl VectorIndex for BinaryIndex {
    fn dimension(&self) -> usize {
        self.dimension
    }

    fn capability(&self) -> Capability {
        Capability {
            engine: "binary",
            exact: false,
            score_error: match self.shared.config.precision {
                Precision::Int8 => 5e-3,
                Precision::Int16 => 1e-4,
            },
            keeps_vectors: false,
            uses_threshold: true,
            filters_inside: true,
            lock_free_reads: true,
            removes_in_place: true,
        }
    }

    fn upsert_until(&self, id: RowId, vector: &[f32], expires: Expiry) -> Result<(), IndexError> {
        with_unit(self.dimension, vector, |unit| {
            with_scratch(|scratch| {
                let row = &mut scratch.query;
                self.shared.encoder.encode(unit, row);
                let mut writer = self.writer.lock();
                let written = writer.upsert(&self.shared, id, row, expires);
                self.count(&writer);
                written
            })
        })
    }

    fn remove(&self, id: RowId) -> Result<bool, IndexError> {
        let mut writer = self.writer.lock();
        let removed = writer.remove(&self.shared, id);
        self.count(&writer);
        Ok(removed)
    }

    fn remove_expired(&self, now: Expiry) -> Result<usize, IndexError> {
        let mut writer = self.writer.lock();
        let expired = writer.expired(now);
        for &id in &expired {
            writer.remove(&self.shared, id);
        }
        self.count(&writer);
        Ok(expired.len())
    }

    fn contains(&self, id: RowId) -> bool {
        self.writer.lock().place(id).is_some()
    }

    fn query(&self, query: &Query<'_>, out: &mut Vec<Neighbor>) -> Result<(), IndexError> {
        with_unit(self.dimension, query.vector, |unit| {
            with_scratch(|scratch| {
                self.shared.encoder.encode(unit, &mut scratch.query);
                let start = out.len();
                for _ in 0..RETRIES {
                    let Some(count) = self.shared.moves.still() else {
                        std::hint::spin_loop();
                        continue;
                    };
                    self.run(query, scratch, out);
                    if self.shared.moves.are_still(count) {
                        return Ok(());
                    }
                    out.truncate(start);
                }
                let _still = self.writer.lock();
                self.run(query, scratch, out);
                Ok(())
            })
        })
    }

    fn audit(&self, queries: &[Query<'_>]) -> Result<Audit, IndexError> {
        let mut audit = Audit::default();
        let (mut found, mut truth) = (Vec::new(), Vec::new());
        for query in queries {
            found.clear();
            truth.clear();
            self.query(query, &mut found)?;
            self.query(&query.exact(), &mut truth)?;
            audit.add(&found, &truth);
            self.learn(query, &truth)?;
        }
        self.shared
            .tuning
            .follow(self.shared.config.spread.is_some());
        Ok(audit)
    }

    fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn backlog(&self) -> Backlog {
        Backlog {
            waiting: 0,
            dead: self.writer.lock().dead(),
        }
    }

    fn snapshot(&self, out: &mut dyn Write) -> Result<(), IndexError> {
        snapshot::write(Engine::Binary, &self.rows(), out)
    }

    fn for_each(&self, f: &mut dyn FnMut(Row<'_>)) {
        // Held, so that no row is seen twice or not at all.
        let _still = self.writer.lock();
        let directory = self.shared.directory.load();
        let mut vector = Vec::new();
        for cell in &directory.cells {
            let cell = cell.load();
            let rows = cell.rows();
            for position in rows.live() {
                let (high, low) = (rows.high_of(position), rows.low_of(position));
                self.shared.encoder.decode(high, low, &mut vector);
                self.shared.encoder.unrotate(&mut vector);
                let meta = &rows.metas()[position];
                f(Row {
                    id: meta.id(),
                    vector: &vector,
                    expires: meta.expires,
                });
            }
        }
    }
}

impl BinaryIndex {
    /// Tells the tuning what it takes to find these rows.
    fn learn(&self, query: &Query<'_>, truth: &[Neighbor]) -> Result<(), IndexError> {
        with_unit(self.dimension, query.vector, |unit| {
            with_scratch(|scratch| {
                let Shared {
                    encoder, tuning, ..
                } = &self.shared;
                encoder.encode(unit, &mut scratch.query);
                let writer = self.writer.lock();
                let directory = self.shared.directory.load();
                let mut similarities = std::mem::take(&mut scratch.similarities);
                let mut products = Vec::new();
                directory.similarities(encoder, &scratch.query, &mut products, &mut similarities);
                let best = similarities.iter().copied().fold(f32::MIN, f32::max);
                let home = directory.home(encoder, &scratch.query.high);
                for neighbor in truth.iter().filter(|n| n.score >= LEARNED_FROM) {
                    let Some(place) = writer.place(neighbor.id) else {
                        continue;
                    };
                    let number = place.cell as usize;
                    let cell = directory.cells[number].load();
                    let rows = cell.rows();
                    let (about, similarity) = (directory.about[number], similarities[number]);
                    let (mut code, mut row) = (vec![0; encoder.lines()], vec![0; encoder.lines()]);
                    let center = directory.center(number);
                    let vector = &scratch.query.rotated;
                    encoder
                        .kernel
                        .residual_code(vector, center, about.scale, &mut code);
                    rows.code_of(place.position as usize, &mut row);
                    let bits = code.iter().zip(&row).map(|(a, b)| (a ^ b).count_ones());
                    let a = about.squared_distance(similarity).sqrt();
                    let b = rows.metas()[place.position as usize].spread;
                    let apart = 2.0 - 2.0 * neighbor.score;
                    let from_center = (a * a + b * b - apart) / (2.0 * a * b).max(1e-6);
                    let behind = if number == home {
                        0.0
                    } else {
                        best - similarity
                    };
                    tuning.learn(bits.sum(), from_center, neighbor.score, behind);
                }
                scratch.similarities = similarities;
                Ok(())
            })
        })
    }
}
impl BinaryIndex {
    #[doc(hidden)]
    #[allow(missing_docs)]
    pub fn tuning_report(&self) -> String {
        format!("reach {} ", self.shared.tuning.gap(0.0)) + &self.shared.tuning.report()
    }
}
