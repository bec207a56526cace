//! The index of a partition whose size nobody knows.
//!
//! A cache has very many partitions of a few rows and a few of very many. The rule:
//!
//! 1. Up to [`AutoConfig::flat_limit`] rows a partition is flat: two plain buffers, scanned. One of
//!    no rows owns one small allocation, one of three rows costs little more than their vectors.
//! 2. Above that it is a graph of its own. Partitions do not share one: a search would wade through
//!    the rows of others, and no partition could be dropped.
//! 3. Above [`AutoConfig::shard_limit`] rows it is several graphs, each searched, so that building
//!    one anew takes bounded time and memory.
//! 4. A partition that shrank to a quarter of `flat_limit` is flat again.
//!
//! Moving from flat to graph builds the graph aside while the rows answer as before. Writes go to
//! the rows and are noted; when the graph is ready they are applied to it, and it takes the place of
//! the rows. A lookup waits for neither, only for the exchange of a pointer; a write may wait for
//! the noted writes to be applied, about a microsecond each.
//!
//! Always true: writes are made one at a time (`writes`), and each is either in the structure that
//! answers or, while one is being built, in both that and the journal.

use std::io::{Read, Write};
use std::mem::size_of;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::config::{AutoConfig, IndexKind};
use crate::neighbor::TopK;
use crate::rows::Rows;
use crate::snapshot::{self, Engine};
use crate::vector::{check_dimension, with_unit};
use crate::{Capability, Expiry, IndexError, Neighbor, Query, Row, RowId, VectorIndex};

#[cfg(feature = "hnsw")]
mod grow;

#[cfg(feature = "hnsw")]
use self::grow::Shards;

/// An index that changes its structure with its size: flat while that is best, then graphs.
///
/// In a build without feature `hnsw` it is flat at every size.
///
/// # The rule
/// 1. Up to [`AutoConfig::flat_limit`] rows: flat. An empty index takes less than 200 bytes, one of
///    three rows little more than their vectors.
/// 2. Above: a graph of its own, built aside while lookups and writes go on.
/// 3. Above [`AutoConfig::shard_limit`] rows: several graphs, each searched.
/// 4. Shrunk to a quarter of `flat_limit`: flat again.
///
/// # Measured
/// Median time of a search for the nearest row, k = 1, 128 components, clustered data, one thread of
/// a shared machine with 2 cores (AVX2 kernel, load of others 3 to 9), default settings; recall@1
/// was 1.000 and every stored row was found by itself in all of them. `benches/index.rs` makes the
/// table, `benches/README.md` keeps it with what it leaves out.
///
/// | rows | flat | graph | graph, built in |
/// |---|---|---|---|
/// | 1 000 | 20 µs | 69 µs | 0.3 s |
/// | 4 000 | 77 µs | 249 µs | 4.5 s |
/// | 8 000 | 84 µs | 248 µs | 11 s |
/// | 16 000 | 167 µs | 453 µs | 40 s |
/// | 32 000 | 743 µs | 979 µs | 247 s |
/// | 100 000 | 3.3 ms | | |
///
/// So the graph does not pay below some 32 thousand rows of 128 components, and takes 2400 bytes a
/// row where flat takes 600. A scan grows with the components and a graph much less, so the lines
/// should cross earlier at 384 (not measured). And a graph of tens of thousands of rows takes minutes
/// of a core to build. So the default limit is 65 536: past it a scan takes milliseconds.
/// Graphs above 32 thousand rows, real text and other dimensions are not covered.
///
/// ```
/// use askonce_index::{AutoConfig, AutoIndex, RowId, VectorIndex};
///
/// let index = AutoIndex::new(3, AutoConfig::default())?;
/// index.upsert(RowId(1), &[1.0, 0.0, 0.0])?;
/// assert!(!index.is_approximate());
/// # Ok::<(), askonce_index::IndexError>(())
/// ```
#[derive(Debug)]
pub struct AutoIndex {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dimension: usize,
    #[cfg(feature = "hnsw")]
    config: AutoConfig,
    /// Held by whoever writes a row or exchanges the structure.
    writes: Mutex<()>,
    /// Held by whoever builds graphs of the rows; taken before `writes`.
    #[cfg(feature = "hnsw")]
    growing: Mutex<()>,
    state: RwLock<State>,
}

#[derive(Debug)]
enum State {
    Flat {
        rows: Rows,
        /// Ids written since a graph is being built of the rows.
        #[cfg(feature = "hnsw")]
        #[expect(clippy::box_collection, reason = "unused in nearly every index")]
        journal: Option<Box<Vec<RowId>>>,
    },
    #[cfg(feature = "hnsw")]
    Graphs(Shards),
}

impl State {
    fn flat(rows: Rows) -> Self {
        Self::Flat {
            rows,
            #[cfg(feature = "hnsw")]
            journal: None,
        }
    }
}

impl AutoIndex {
    /// An empty index for vectors of `dimension` components.
    ///
    /// # Errors
    /// [`IndexError::UnsupportedDimension`] outside `1..=`[`crate::MAX_DIMENSION`],
    /// [`IndexError::InvalidConfig`] for a setting out of range, [`IndexError::EngineNotBuilt`]
    /// for [`IndexKind::Hnsw`] in a build without it.
    pub fn new(dimension: usize, config: AutoConfig) -> Result<Self, IndexError> {
        check_dimension(dimension)?;
        Self::from_rows(Rows::new(dimension), config)
    }

    /// An index with the rows of a snapshot, which may be of any engine. It answers at once, flat,
    /// and moves to a graph if it has the rows for one.
    ///
    /// # Errors
    /// Those of [`AutoIndex::new`]; [`IndexError::Snapshot`] if the bytes are not a whole,
    /// unchanged snapshot, [`IndexError::Io`] if the reader fails.
    pub fn restore(reader: &mut dyn Read, config: AutoConfig) -> Result<Self, IndexError> {
        let (_, rows) = snapshot::read(reader)?;
        Self::from_rows(rows, config)
    }

    pub(crate) fn from_rows(rows: Rows, config: AutoConfig) -> Result<Self, IndexError> {
        config.validate()?;
        let dimension = rows.dimension();
        let state = match config.kind {
            #[cfg(feature = "hnsw")]
            IndexKind::Hnsw => State::Graphs(Shards::of_rows(&rows, &config)?),
            #[cfg(not(feature = "hnsw"))]
            IndexKind::Hnsw => {
                return Err(IndexError::EngineNotBuilt {
                    engine: "hnsw",
                    feature: "hnsw",
                });
            }
            IndexKind::Auto | IndexKind::Flat => State::flat(rows),
        };
        let inner = Inner {
            dimension,
            #[cfg(feature = "hnsw")]
            config,
            writes: Mutex::new(()),
            #[cfg(feature = "hnsw")]
            growing: Mutex::new(()),
            state: RwLock::new(state),
        };
        let index = Self {
            inner: Arc::new(inner),
        };
        #[cfg(feature = "hnsw")]
        if let State::Graphs(shards) = &*index.inner.state.read() {
            shards.see_to_work();
        }
        index.grow_if_due();
        Ok(index)
    }

    #[cfg(not(feature = "hnsw"))]
    fn grow_if_due(&self) {}
}

impl Inner {
    /// The rows as they are at one moment.
    fn copy_rows(&self) -> Result<Rows, IndexError> {
        let _turn = self.writes.lock();
        match &*self.state.read() {
            State::Flat { rows, .. } => Ok(rows.copy()),
            #[cfg(feature = "hnsw")]
            State::Graphs(shards) => shards.copy_rows(self.dimension),
        }
    }
}

impl VectorIndex for AutoIndex {
    fn dimension(&self) -> usize {
        self.inner.dimension
    }

    fn capability(&self) -> Capability {
        let exact = match &*self.inner.state.read() {
            State::Flat { .. } => true,
            #[cfg(feature = "hnsw")]
            State::Graphs(_) => false,
        };
        Capability {
            engine: "auto",
            exact,
            ..crate::flat::CAPABILITY
        }
    }

    fn upsert_until(&self, id: RowId, vector: &[f32], expires: Expiry) -> Result<(), IndexError> {
        with_unit(self.inner.dimension, vector, |unit| {
            let _turn = self.inner.writes.lock();
            #[cfg(feature = "hnsw")]
            if let Some(shard) = self.inner.shard_for(id)? {
                return shard.upsert_until(id, unit, expires);
            }
            match &mut *self.inner.state.write() {
                #[cfg(feature = "hnsw")]
                State::Flat { rows, journal } => {
                    rows.upsert(id, unit, expires)?;
                    if let Some(journal) = journal {
                        journal.push(id);
                    }
                }
                #[cfg(not(feature = "hnsw"))]
                State::Flat { rows } => {
                    rows.upsert(id, unit, expires)?;
                }
                #[cfg(feature = "hnsw")]
                State::Graphs(_) => {}
            }
            Ok(())
        })?;
        self.grow_if_due();
        Ok(())
    }

    fn remove(&self, id: RowId) -> Result<bool, IndexError> {
        let _turn = self.inner.writes.lock();
        #[cfg(feature = "hnsw")]
        if let Some(shard) = self.inner.shard_of(id) {
            let held = shard.remove(id)?;
            self.inner.shrink_if_due()?;
            return Ok(held);
        }
        match &mut *self.inner.state.write() {
            State::Flat {
                rows,
                #[cfg(feature = "hnsw")]
                journal,
            } => {
                let Some(slot) = rows.slot(id) else {
                    return Ok(false);
                };
                rows.swap_remove(slot);
                #[cfg(feature = "hnsw")]
                if let Some(journal) = journal {
                    journal.push(id);
                }
                Ok(true)
            }
            #[cfg(feature = "hnsw")]
            State::Graphs(_) => Ok(false),
        }
    }

    fn remove_expired(&self, now: Expiry) -> Result<usize, IndexError> {
        let mut expired = Vec::new();
        self.for_each(&mut |row| {
            if row.expires.is_past(now) {
                expired.push(row.id);
            }
        });
        let mut removed = 0;
        for id in expired {
            removed += usize::from(self.remove(id)?);
        }
        Ok(removed)
    }

    fn contains(&self, id: RowId) -> bool {
        match &*self.inner.state.read() {
            State::Flat { rows, .. } => rows.slot(id).is_some(),
            #[cfg(feature = "hnsw")]
            State::Graphs(shards) => shards.holding(id).is_some(),
        }
    }

    fn query(&self, query: &Query<'_>, out: &mut Vec<Neighbor>) -> Result<(), IndexError> {
        with_unit(self.inner.dimension, query.vector, |unit| {
            match &*self.inner.state.read() {
                State::Flat { rows, .. } => {
                    let mut top = TopK::new(out, query.k, rows.len());
                    rows.scan(query, unit, 0..rows.len(), &mut top);
                    top.finish();
                    Ok(())
                }
                #[cfg(feature = "hnsw")]
                State::Graphs(shards) => shards.query(query, out),
            }
        })
    }

    fn len(&self) -> usize {
        match &*self.inner.state.read() {
            State::Flat { rows, .. } => rows.len(),
            #[cfg(feature = "hnsw")]
            State::Graphs(shards) => shards.len(),
        }
    }

    /// Exact while flat. The share of graphs is an estimate: `hnsw_rs` does not tell what it holds.
    fn bytes(&self) -> usize {
        // The counts beside a shared value are two words.
        let own = size_of::<Inner>() + 2 * size_of::<usize>();
        own + match &*self.inner.state.read() {
            State::Flat { rows, .. } => rows.bytes(),
            #[cfg(feature = "hnsw")]
            State::Graphs(shards) => shards.bytes(),
        }
    }

    #[cfg(feature = "hnsw")]
    fn settle(&self) {
        self.inner.settle();
    }

    fn snapshot(&self, out: &mut dyn Write) -> Result<(), IndexError> {
        // Copied first, so that a slow writer holds up no one.
        snapshot::write(Engine::Auto, &self.inner.copy_rows()?, out)
    }

    fn for_each(&self, f: &mut dyn FnMut(Row<'_>)) {
        match &*self.inner.state.read() {
            State::Flat { rows, .. } => rows.iter().for_each(f),
            #[cfg(feature = "hnsw")]
            State::Graphs(shards) => shards.for_each(f),
        }
    }
}
