//! Vector indexes over `f32` rows and ids, made for the workload of a cache.
//!
//! A cache writes rows one at a time while it is read, removes and replaces them all the time, and
//! keeps very many small partitions beside a few large ones. It asks for the nearest rows, and
//! checks every one it is given. So what counts here is that a stored row is found, that a removed
//! one is not, that a lookup never waits for a build, and that a partition of two rows costs what
//! two rows cost. This crate knows slices of `f32` and ids; texts, models, expiry and the decision
//! to serve are the caller's.
//!
//! # Engines
//! All pass one suite, `tests/contract.rs`, which has a named test for every promise of
//! [`VectorIndex`].
//!
//! | engine | name | search | for |
//! |---|---|---|---|
//! | [`AutoIndex`] | `auto` | flat rows, then binary | a partition of unknown size: **start here** |
//! | [`FlatIndex`] | `flat` | exact, reads every row | up to some hundred rows; as the truth |
//! | [`BinaryIndex`] | `binary` | 1-bit codes in cells, then finer rows; no locks | any number of rows |
//! | `HnswRsIndex` (feature `hnsw`) | `hnsw_rs` | graphs of the crate `hnsw_rs`, built aside | comparisons |
//! | `FaissIndex` (feature `faiss`) | `faiss` | what FAISS builds by a factory string | comparisons, bulk loads |
//!
//! [`IndexConfig::open`] makes the one that its settings name. What an engine can and cannot do is told
//! by its [`Capability`].
//!
//! # Files
//! A [`snapshot`](VectorIndex::snapshot) of any engine can be restored by any other. [`save`] puts it
//! into a file, whole or not at all, and [`IndexConfig::open_file`] opens that: binary rows are searched
//! in place, so an index of any size answers at once. Damaged, cut and newer files are refused with what
//! is wrong with them; the index is then rebuilt from its entries.

use std::fmt::Debug;
use std::io;
use std::path::Path;

use snapshot::Content;

// What callers hold.
mod error;
mod neighbor;
mod query;
#[cfg(feature = "ndarray")]
mod view;
// The engines.
mod auto;
mod binary;
mod config;
#[cfg(feature = "faiss")]
mod faiss;
mod flat;
#[cfg(feature = "hnsw")]
mod hnsw;
// What the engines share.
#[cfg(any(feature = "hnsw", feature = "faiss"))]
mod background;
#[expect(unsafe_code, reason = "vector instructions")]
mod kernel;
mod rows;
mod snapshot;
mod vector;

pub use auto::AutoIndex;
pub use binary::{BinaryConfig, BinaryIndex, Precision, Verify};
pub use config::{AutoConfig, BuildThread, HnswConfig, IndexConfig, IndexKind};
pub use error::{IndexError, SnapshotFault};
#[cfg(feature = "faiss")]
pub use faiss::{FaissConfig, FaissIndex};
pub use flat::FlatIndex;
#[cfg(feature = "hnsw")]
pub use hnsw::HnswRsIndex;
pub use neighbor::{Neighbor, RowId};
pub use query::{Audit, Backlog, Capability, Expiry, Query, Row};
pub use vector::MAX_DIMENSION;
#[cfg(feature = "ndarray")]
pub use view::VectorIndexExt;

/// The version of `ndarray` whose views are taken.
#[cfg(feature = "ndarray")]
pub use ndarray;

/// A set of rows, each an id and a vector, that can be searched for the nearest to a query.
///
/// # Contract
/// - A vector is refused if it has another dimension, a component that is not finite, or no length;
///   then nothing changes. Queries are refused for the same reasons.
/// - Vectors of any length are compared by direction.
/// - Once [`upsert`](Self::upsert) returned, a search by the same vector finds the row, and the
///   vector it replaced is gone.
/// - Once [`remove`](Self::remove) returned, no search finds the row, until the id is inserted
///   again.
/// - A search that asks for the `k` best of all rows gets `min(k, len)`, none of them twice. One that
///   narrows them down, by a threshold, a time or a filter, gets no row that it left out.
/// - A score is the row's cosine within [`Capability::score_error`], and 1 within a few roundings of
///   `f32` for the row's own vector.
/// - An index that is [`exact`](Capability::exact), and any index when asked by [`Query::exact`],
///   lists exactly the best rows by its scores.
/// - Results are listed by descending score, ties by ascending id. On one CPU an exact index gives
///   the same answer to the same rows and query, whatever the order of the writes.
/// - All methods may be called from many threads at once. A search sees each row as some write
///   left it, never half of one.
///
/// A search is CPU work and nothing waits inside; whoever wants a thread pool owns one.
pub trait VectorIndex: Debug + Send + Sync + 'static {
    /// Components that every vector has.
    fn dimension(&self) -> usize;

    /// What this engine can do, as it stands now.
    fn capability(&self) -> Capability;

    /// Inserts a row, or replaces the vector and the expiry of the row with this id.
    ///
    /// # Errors
    /// [`IndexError::WrongDimension`], [`IndexError::NotFinite`] or [`IndexError::ZeroVector`] for
    /// a vector that cannot be compared, [`IndexError::Full`] past 4 billion rows.
    fn upsert_until(&self, id: RowId, vector: &[f32], expires: Expiry) -> Result<(), IndexError>;

    /// [`upsert_until`](Self::upsert_until) of a row that does not expire.
    ///
    /// # Errors
    /// As there.
    fn upsert(&self, id: RowId, vector: &[f32]) -> Result<(), IndexError> {
        self.upsert_until(id, vector, Expiry::NEVER)
    }

    /// Writes many rows, in order; cheaper than one by one where the engine can make it so. Every
    /// vector is checked first: if one is refused, no row is written.
    ///
    /// # Errors
    /// As [`upsert_until`](Self::upsert_until), for the first row at fault. [`IndexError::Full`] may
    /// come after some rows were written.
    fn upsert_batch(&self, rows: &[Row<'_>]) -> Result<(), IndexError> {
        for row in rows {
            vector::check(self.dimension(), row.vector)?;
        }
        for row in rows {
            self.upsert_until(row.id, row.vector, row.expires)?;
        }
        Ok(())
    }

    /// Removes a row; tells whether it was there.
    ///
    /// # Errors
    /// Those of an engine outside this process; the engines of this crate always succeed.
    fn remove(&self, id: RowId) -> Result<bool, IndexError>;

    /// Removes the rows that are expired at `now`, and tells how many they were.
    ///
    /// # Errors
    /// As [`remove`](Self::remove).
    fn remove_expired(&self, now: Expiry) -> Result<usize, IndexError>;

    /// Whether a row with this id is held, expired or not.
    fn contains(&self, id: RowId) -> bool;

    /// Appends the rows asked for to `out`, best first, ties by id. What `out` held stays.
    ///
    /// # Errors
    /// As [`upsert`](Self::upsert) for the query; then `out` is as it was.
    fn query(&self, query: &Query<'_>, out: &mut Vec<Neighbor>) -> Result<(), IndexError>;

    /// The `k` best rows, however far they are.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    fn search(&self, query: &[f32], k: usize, out: &mut Vec<Neighbor>) -> Result<(), IndexError> {
        self.query(&Query::new(query, k), out)
    }

    /// The `k` best of the rows that score at least `min_score`.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    fn search_above(
        &self,
        query: &[f32],
        min_score: f32,
        k: usize,
        out: &mut Vec<Neighbor>,
    ) -> Result<(), IndexError> {
        self.query(&Query::new(query, k).above(min_score), out)
    }

    /// Answers many queries, in order: one list each, appended to `out`. Engines that can share
    /// work between queries do.
    ///
    /// # Errors
    /// As [`query`](Self::query) for the first query at fault; then `out` is as it was.
    fn query_batch(
        &self,
        queries: &[Query<'_>],
        out: &mut Vec<Vec<Neighbor>>,
    ) -> Result<(), IndexError> {
        query::one_by_one(self, queries, out)
    }

    /// Compares the answers to these queries with those of an exact search.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    fn audit(&self, queries: &[Query<'_>]) -> Result<Audit, IndexError> {
        query::audit(self, queries)
    }

    /// Rows held, expired ones included until they are removed.
    fn len(&self) -> usize;

    /// Whether no row is held.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Heap bytes held, spare capacity included. Where a dependency hides its buffers this is an
    /// estimate, and the engine says so.
    fn bytes(&self) -> usize;

    /// Work that is due and not done.
    fn backlog(&self) -> Backlog {
        Backlog::default()
    }

    /// Finishes, on this thread, the work that the index would do in the background: after a bulk
    /// load, before a measurement. Lookups and writes go on; answers are as complete without it.
    fn settle(&self) {}

    /// Writes all rows as they are at one moment, in a versioned format with checksums that
    /// [`restore`] and the constructors of the engines read. `out` is written row by row, so give
    /// a buffered writer. The rows are copied or held on to first: a slow writer holds up no one.
    ///
    /// # Errors
    /// [`IndexError::Io`] if `out` fails.
    fn snapshot(&self, out: &mut dyn io::Write) -> Result<(), IndexError>;

    /// Calls `f` for each row, in no stated order. `f` must not call into this index, which may be
    /// locked for writes meanwhile.
    fn for_each(&self, f: &mut dyn FnMut(Row<'_>));
}

/// An index of the engine that wrote the snapshot, with default settings, but for the precision of
/// its rows, which stays as it was. The bytes may come from
/// anywhere: memory use is bounded by what is read. Give a buffered reader.
///
/// ```
/// use askonce_index::{FlatIndex, RowId, VectorIndex, restore};
///
/// let index = FlatIndex::new(2)?;
/// index.upsert(RowId(1), &[0.0, 1.0])?;
/// let mut bytes = Vec::new();
/// index.snapshot(&mut bytes)?;
/// assert!(restore(&mut bytes.as_slice())?.contains(RowId(1)));
/// # Ok::<(), askonce_index::IndexError>(())
/// ```
///
/// # Errors
/// [`IndexError::Snapshot`] if the bytes are not a whole, unchanged snapshot,
/// [`IndexError::EngineNotBuilt`] if its engine is not in this build,
/// [`IndexError::UnsupportedCpu`] if it cannot run here, [`IndexError::Io`] if the reader fails.
pub fn restore(reader: &mut dyn io::Read) -> Result<Box<dyn VectorIndex>, IndexError> {
    let (engine, content) = snapshot::open(reader)?;
    let mut config = IndexConfig {
        kind: engine.kind(),
        ..IndexConfig::default()
    };
    if let Content::Cells(image) = &content {
        config.binary.precision = image.precision();
    }
    config.of_content(content)
}

/// Saves a [`snapshot`](VectorIndex::snapshot) to a file that [`IndexConfig::open_file`] opens.
///
/// The file is written under another name in the same folder, brought to the disk, and renamed: a
/// crash leaves the old file or the new one under the name. It may leave an unfinished one,
/// `.NAME.new-…`, beside it, which a save deletes once it is a day old.
///
/// ```
/// use askonce_index::{IndexConfig, RowId, save};
///
/// # let folder = tempfile::tempdir()?;
/// let path = folder.path().join("scope.index");
/// let config = IndexConfig::default();
/// let index = config.open(2)?;
/// index.upsert(RowId(1), &[0.6, 0.8])?;
/// save(&*index, &path)?;
/// assert!(config.open_file(&path)?.contains(RowId(1)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`IndexError::Io`] if the file cannot be written; then the old one is as it was.
pub fn save(index: &dyn VectorIndex, path: impl AsRef<Path>) -> Result<(), IndexError> {
    binary::file::replace(path.as_ref(), |out| index.snapshot(out))
}
