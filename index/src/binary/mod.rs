//! The index made for a cache: it reads codes of one bit a component, and scores what is near.
//!
//! ```text
//! query ─ rotate, round ─ choose cells ─ codes within the radius ─ score by 8 bits ─ by all bits
//!         encode, rotate    directory, twins   cell, kernel, tuning   search
//! write ─ rotate, round ─ cell of the vector ─ append, publish ─ split, shrink, merge cells
//!                            directory        cell, twins             writer, split
//! ```
//!
//! Design: `directory` and `twins` (which cells), `cell` (rows without locks), `tuning` (how far to
//! look), `writer` and `split` (how cells change), `file` and `room` (cells at rest, searched in
//! place). Why codes and cells and no graph: a cache writes one row at a time and removes it again,
//! looks for few rows above a threshold, and must find every row it stores. A scan of short codes
//! does that, reads little because it knows the threshold, and leaves nothing to repair.
//!
//! Always true: searches take no lock, but for one that rows were moved under three times in a row;
//! writes are made one at a time; a row is found by its own vector from the moment its write
//! returned, because a search looks into the cells that hold a row like the query first.

use std::io::{Read, Write};
use std::mem::size_of;
use std::path::Path;
use std::sync::Arc;

pub use self::config::{BinaryConfig, Precision, Verify};
use self::directory::Directory;
use self::encode::{Encoded, Encoder};
use self::file::{Image, Still};
use self::search::{Member, Scratch, Searcher, with_scratch};
use self::sync::{ArcSwap, AtomicU64, AtomicUsize, Mutex, Ordering, fence};
use self::tuning::Tuning;
use self::twins::Twins;
use self::writer::Writer;
use crate::neighbor::TopK;
use crate::rows::Rows;
use crate::snapshot::{self, Content, Engine, inconsistent};
use crate::vector::{check, check_dimension, with_unit};
use crate::{
    Audit, Backlog, Capability, Expiry, IndexError, Neighbor, Query, Row, RowId, VectorIndex,
};

#[expect(unsafe_code, reason = "rows that are appended to while they are read")]
mod cell;
mod config;
mod directory;
mod encode;
pub(crate) mod file;
#[expect(unsafe_code, reason = "columns on the heap or in a mapped file")]
mod room;
mod rotate;
mod search;
mod split;
mod sync;
#[cfg(test)]
mod tests;
mod tuning;
mod twins;
mod writer;

/// Components of a vector are rounded up to whole words of a code, which are whole lines of a row.
const LANE: usize = 64;

/// Times that a search begins anew because rows were moved under it, before it holds writers up.
const RETRIES: usize = 3;

/// Queries that are answered together at most: enough to share cells, few enough that their lists
/// of cells stay in the CPU's cache.
const BATCH: usize = 64;

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
    /// Rows at which a cell is split, at least.
    cell_rows: usize,
    encoder: Encoder,
    tuning: Arc<Tuning>,
    directory: ArcSwap<Directory>,
    twins: Twins,
    moves: Moves,
}

/// Counts the times that rows moved. Odd while they do. A search at that time may see a row in both
/// of its places; or, if it looked at the one too early and at the other too late, dead in one, or
/// not even that if the dead were dropped meanwhile.
#[derive(Debug, Default)]
struct Moves {
    count: AtomicU64,
    drops: AtomicU64,
}

/// How often rows had moved, and the dead been dropped, when a search began.
#[derive(Clone, Copy, Debug)]
struct Began {
    count: u64,
    drops: u64,
}

impl Moves {
    fn begin(&self) -> Moving<'_> {
        self.count.fetch_add(1, Ordering::AcqRel);
        Moving(self)
    }

    /// Says that a cell is about to be exchanged for one without its dead rows.
    fn drop_dead(&self) {
        self.drops.fetch_add(1, Ordering::AcqRel);
    }

    fn now(&self) -> Began {
        Began {
            count: self.count.load(Ordering::Acquire),
            drops: self.drops.load(Ordering::Acquire),
        }
    }

    /// Whether no row moved since then.
    fn are_still(&self, began: Began) -> bool {
        fence(Ordering::Acquire);
        began.count.is_multiple_of(2) && self.count.load(Ordering::Relaxed) == began.count
    }

    /// Whether dead rows were dropped since then.
    fn dropped_dead(&self, began: Began) -> bool {
        fence(Ordering::Acquire);
        self.drops.load(Ordering::Relaxed) != began.drops
    }
}

struct Moving<'m>(&'m Moves);

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        self.0.count.fetch_add(1, Ordering::AcqRel);
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
        let twins = Twins::new();
        let (writer, directory) = Writer::new(encoder.lines(), config.precision);
        Ok(Self::of(
            dimension, config, encoder, tuning, twins, writer, directory,
        ))
    }

    /// An index with the rows of a snapshot, which may be of any engine. Cells of the precision that
    /// is asked for are taken over as they are, and answer as the index that wrote them did; other
    /// rows are inserted one by one.
    ///
    /// # Errors
    /// Those of [`BinaryIndex::new`]; [`IndexError::Snapshot`] if the bytes are not a whole,
    /// unchanged snapshot, [`IndexError::Io`] if the reader fails.
    pub fn restore(reader: &mut dyn Read, config: BinaryConfig) -> Result<Self, IndexError> {
        config.validate()?;
        match snapshot::open(reader)?.1 {
            Content::Rows(rows) => Self::from_rows(&rows, config),
            Content::Cells(image) => Self::from_image(image, config),
        }
    }

    /// An index with the cells of a snapshot if they are of the precision that is asked for, else
    /// with their rows.
    pub(crate) fn from_image(image: Image, config: BinaryConfig) -> Result<Self, IndexError> {
        config.validate()?;
        if image.precision() == config.precision {
            Self::of_image(image, config)
        } else {
            Self::from_rows(&image.into_rows()?, config)
        }
    }

    /// Opens the file of an index that was saved, and searches it in place: its rows are mapped, not
    /// read. It takes writes as any other index does, and keeps what changes on the heap; the file
    /// stays as it is until the index is saved.
    ///
    /// What remains to be done is to enter the ids: 100 000 rows of 128 or 256 components, verified,
    /// are ready in 7 to 18 ms of one thread (2 shared cores, file in the system's cache), where
    /// inserting them takes a second.
    ///
    /// While the index lives, nobody may write into the file or cut it. To delete it, or to rename
    /// another file to its name as [`save`](Self::save) does, is safe, where the system allows that
    /// for a mapped file, as Unix systems do.
    ///
    /// ```
    /// use askonce_index::{BinaryConfig, BinaryIndex, RowId, VectorIndex};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// let path = folder.path().join("scope.index");
    /// let index = BinaryIndex::new(2, BinaryConfig::default())?;
    /// index.upsert(RowId(1), &[0.6, 0.8])?;
    /// index.save(&path)?;
    /// assert!(BinaryIndex::open(&path, BinaryConfig::default())?.contains(RowId(1)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`IndexError::InvalidConfig`] for a setting out of range; [`IndexError::Snapshot`] if the file
    /// is not a whole, unchanged snapshot of cells of the precision in `config`;
    /// [`IndexError::Io`] if it cannot be opened or mapped.
    pub fn open(path: impl AsRef<Path>, config: BinaryConfig) -> Result<Self, IndexError> {
        Self::open_with(path, config, Verify::AtOpen)
    }

    /// [`open`](Self::open), with a say in when the file is compared with its checksums.
    ///
    /// # Errors
    /// As there.
    pub fn open_with(
        path: impl AsRef<Path>,
        config: BinaryConfig,
        verify: Verify,
    ) -> Result<Self, IndexError> {
        config.validate()?;
        let image = Image::open(path.as_ref(), config.precision, verify)?;
        Self::of_image(image, config)
    }

    /// Compares the file whose rows are still searched in place with its checksums. An index without
    /// such rows has nothing to compare.
    ///
    /// # Errors
    /// [`IndexError::Snapshot`] if the file changed since it was written; rows that were read from
    /// it may be wrong, so the index should be dropped.
    pub fn verify(&self) -> Result<(), IndexError> {
        let directory = self.shared.directory.load();
        let maps = |cell: &ArcSwap<cell::Cell>| cell.load().map().cloned();
        match directory.cells.iter().find_map(maps) {
            Some(map) => file::verify(&map),
            None => Ok(()),
        }
    }

    /// Saves the index as it is at one moment to a file that [`open`](Self::open) maps and
    /// [`restore`](Self::restore) reads. Lookups go on meanwhile; writes wait while the cells are
    /// taken hold of, a tenth of a millisecond at 100 000 rows, and not while they are written out.
    ///
    /// The file is put in place as [`crate::save`] does it.
    ///
    /// # Errors
    /// [`IndexError::Io`] if the file cannot be written; then the old one is as it was.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), IndexError> {
        crate::save(self, path)
    }

    /// Writes the cells as they are now, in the name of this engine.
    pub(crate) fn write(&self, engine: Engine, out: &mut dyn Write) -> Result<(), IndexError> {
        self.still().write(engine, out)
    }

    /// Bytes of rows that are searched in place in a file, and so not counted by
    /// [`bytes`](VectorIndex::bytes).
    #[must_use]
    pub fn mapped_bytes(&self) -> usize {
        let directory = self.shared.directory.load();
        let cells = directory.cells.iter();
        cells.map(|cell| cell.load().mapped_bytes()).sum()
    }

    /// The index as it is now.
    fn still(&self) -> Still {
        let Shared {
            encoder,
            tuning,
            directory,
            ..
        } = &self.shared;
        // Held while the cells are taken hold of, and not while they are written out.
        let writer = self.writer.lock();
        Still {
            dimension: self.dimension,
            precision: encoder.precision(),
            learned: tuning.learned(),
            directory: directory.load_full(),
            cells: writer.still(),
        }
    }

    /// An index with these cells, which are of the precision in `config`.
    fn of_image(image: Image, config: BinaryConfig) -> Result<Self, IndexError> {
        let Image {
            dimension,
            learned,
            about,
            centers,
            cells,
            ..
        } = image;
        let encoder = Encoder::new(dimension, config.precision);
        let spread = config.spread.unwrap_or(learned.spread);
        let tuning = Tuning::new(encoder.bits(), config.recall, Some(spread));
        tuning.take_over(learned);
        let twins = Twins::new();
        let directory = Directory {
            lines: encoder.lines(),
            about,
            centers,
            cells: cells
                .iter()
                .map(|cell| ArcSwap::new(Arc::clone(cell.cell())))
                .collect(),
        };
        let writer = Writer::of_cells(encoder.lines(), cells, &twins)
            .ok_or_else(|| inconsistent("each id occurs once"))?;
        Ok(Self::of(
            dimension, config, encoder, tuning, twins, writer, directory,
        ))
    }

    fn of(
        dimension: usize,
        config: BinaryConfig,
        encoder: Encoder,
        tuning: Tuning,
        twins: Twins,
        writer: Writer,
        directory: Directory,
    ) -> Self {
        let index = Self {
            dimension,
            shared: Shared {
                config,
                cell_rows: config
                    .cell_rows
                    .unwrap_or_else(|| cell_rows(encoder.lines())),
                encoder,
                tuning: Arc::new(tuning),
                directory: ArcSwap::from_pointee(directory),
                twins,
                moves: Moves::default(),
            },
            writer: Mutex::new(writer),
            len: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        };
        index.count(&index.writer.lock());
        index
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
        let shared = self.shared.directory.load().bytes() + self.shared.twins.bytes();
        let bytes = size_of::<Shared>() + shared + writer.bytes();
        self.len.store(writer.len(), Ordering::Release);
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Answers the query, which is encoded in the scratch room, once. `false` if rows moved
    /// meanwhile in a way that may have changed the answer.
    fn run(&self, query: &Query<'_>, scratch: &mut Scratch, out: &mut Vec<Neighbor>) -> bool {
        let Shared {
            config,
            encoder,
            tuning,
            directory,
            twins,
            moves,
            ..
        } = &self.shared;
        let began = moves.now();
        let hash = twins.hash(&scratch.query.high);
        let directory = loop {
            let read = directory.load();
            twins.cells(hash, &mut scratch.twins);
            // The cells are numbered as in the directory only if that was current all the time.
            if Arc::ptr_eq(&read, &directory.load()) {
                break read;
            }
        };
        let searcher = Searcher {
            encoder,
            directory: &directory,
            tuning,
            probes: config.probes,
        };
        let start = out.len();
        let rows = self.len();
        // To list a good part of the rows, reading all of them is as fast.
        let unbounded = query.min_score <= -1.0;
        let mut met_dead = false;
        let mut complete = false;
        if !(query.exact || unbounded && query.k.saturating_mul(4) >= rows) {
            let mut top = TopK::new(out, query.k, rows);
            met_dead = searcher.run(query, scratch, &mut top);
            top.finish();
            complete = !unbounded || out.len() - start >= query.k.min(rows);
        }
        if !complete {
            out.truncate(start);
            let mut top = TopK::new(out, query.k, rows);
            met_dead |= searcher.run_exact(query, scratch, &mut top);
            top.finish();
        }
        if moves.are_still(began) {
            return true;
        }
        !met_dead && !moves.dropped_dead(began) && !has_duplicates(&out[start..])
    }

    /// Answers queries cell by cell.
    fn run_together(
        &self,
        queries: &[Query<'_>],
        out: &mut Vec<Vec<Neighbor>>,
    ) -> Result<(), IndexError> {
        let Shared {
            config,
            encoder,
            tuning,
            directory,
            twins,
            moves,
            ..
        } = &self.shared;
        let mut encoded = Vec::with_capacity(queries.len());
        for query in queries {
            with_unit(self.dimension, query.vector, |unit| {
                let mut row = Encoded::default();
                encoder.encode(unit, &mut row);
                encoded.push(row);
                Ok(())
            })?;
        }
        let began = moves.now();
        let hashes = encoded.iter().map(|row| twins.hash(&row.high));
        let cells: Vec<Vec<u32>> = hashes
            .map(|hash| {
                let mut cells = Vec::new();
                twins.cells(hash, &mut cells);
                cells
            })
            .collect();
        let directory = directory.load();
        let searcher = Searcher {
            encoder,
            directory: &directory,
            tuning,
            probes: config.probes,
        };
        let rows = self.len();
        let mut found = vec![Vec::new(); queries.len()];
        let mut members: Vec<Member<'_, '_>> = queries
            .iter()
            .zip(&encoded)
            .zip(&cells)
            .zip(&mut found)
            .map(|(((query, encoded), twins), found)| Member {
                query,
                encoded,
                twins,
                top: TopK::new(found, query.k, rows),
            })
            .collect();
        with_scratch(|scratch| searcher.run_many(&mut members, scratch));
        for member in members {
            member.top.finish();
        }
        if moves.are_still(began) {
            out.append(&mut found);
            return Ok(());
        }
        // Rows moved meanwhile: one by one, each asks again until it is sure.
        for query in queries {
            let mut found = Vec::new();
            self.query(query, &mut found)?;
            out.push(found);
        }
        Ok(())
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
                Precision::Int8 => 1e-2,
                Precision::Int16 => 1e-4,
            },
            keeps_vectors: false,
            uses_threshold: true,
            filters_inside: true,
            lock_free_reads: true,
            removes_in_place: false,
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
                    if self.run(query, scratch, out) {
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

    fn query_batch(
        &self,
        queries: &[Query<'_>],
        out: &mut Vec<Vec<Neighbor>>,
    ) -> Result<(), IndexError> {
        for query in queries {
            check(self.dimension, query.vector)?;
        }
        // A list without a threshold, or of every row, is a search of its own.
        let together = |query: &Query<'_>| query.min_score > -1.0 && !query.exact;
        for part in queries.chunks(BATCH) {
            if part.len() > 1 && part.iter().all(together) {
                self.run_together(part, out)?;
            } else {
                for query in part {
                    let mut found = Vec::new();
                    self.query(query, &mut found)?;
                    out.push(found);
                }
            }
        }
        Ok(())
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
        self.write(Engine::Binary, out)
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
                let step = 256.0 * scratch.query.step as f32;
                let high = &scratch.query.high;
                directory.similarities(encoder, high, step, &mut products, &mut similarities);
                let best = similarities.iter().copied().fold(f32::MIN, f32::max);
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
                    let behind = best - similarity;
                    let nearer = similarities.iter().filter(|&&other| other > similarity);
                    let score = neighbor.score;
                    tuning.learn(bits.sum(), from_center, score, behind, nearer.count());
                }
                scratch.similarities = similarities;
                Ok(())
            })
        })
    }
}

/// Whether a row is listed twice.
fn has_duplicates(found: &[Neighbor]) -> bool {
    let mut ids: Vec<RowId> = found.iter().map(|neighbor| neighbor.id).collect();
    ids.sort_unstable();
    ids.windows(2).any(|pair| pair[0] == pair[1])
}

/// Rows at which a cell is split, if codes are this many words long.
fn cell_rows(words: usize) -> usize {
    const CODES: usize = 8 * 1024;
    (CODES / (8 * words)).clamp(128, 512)
}
