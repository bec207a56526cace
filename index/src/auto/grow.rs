//! The way from rows to graphs and back.

use std::mem::size_of;
use std::sync::Arc;

use super::{AutoIndex, Inner, State};
use crate::config::{AutoConfig, BuildThread, IndexKind};
use crate::rows::Rows;
use crate::{HnswRsIndex, IndexError, Neighbor, Query, Row, RowId, VectorIndex, background};

/// Rows, by way of which an index is flat again, are this share of the limit at which it is not.
const SHRUNK: usize = 4;

/// The graphs of one large index. An id is in one of them at most.
#[derive(Debug)]
pub(super) struct Shards {
    shards: Vec<HnswRsIndex>,
}

impl Shards {
    /// Shards that hold these rows; none is linked yet.
    pub(super) fn of_rows(rows: &Rows, config: &AutoConfig) -> Result<Self, IndexError> {
        let mut shards = Self { shards: Vec::new() };
        shards.make_room(rows.dimension(), config)?;
        for row in rows.iter() {
            shards.stage(row, config)?;
        }
        Ok(shards)
    }

    /// Appends or replaces a row, and leaves the graphs alone.
    fn stage(&mut self, row: Row<'_>, config: &AutoConfig) -> Result<(), IndexError> {
        if self.holding(row.id).is_none() {
            self.make_room(row.vector.len(), config)?;
        }
        match self.holding(row.id).or_else(|| self.with_room(config)) {
            Some(shard) => shard.stage(row.id, row.vector, row.expires),
            None => Err(IndexError::Full {
                limit: config.shard_limit,
            }),
        }
    }

    fn remove(&self, id: RowId) -> Result<(), IndexError> {
        self.holding(id)
            .map_or(Ok(false), |shard| shard.remove(id))
            .map(drop)
    }

    /// Adds a shard if all are full.
    fn make_room(&mut self, dimension: usize, config: &AutoConfig) -> Result<(), IndexError> {
        if self.with_room(config).is_none() {
            self.shards.push(HnswRsIndex::new(dimension, config.hnsw)?);
        }
        Ok(())
    }

    fn with_room(&self, config: &AutoConfig) -> Option<&HnswRsIndex> {
        self.shards
            .iter()
            .rev()
            .find(|shard| shard.len() < config.shard_limit)
    }

    /// The shard that holds this row.
    pub(super) fn holding(&self, id: RowId) -> Option<&HnswRsIndex> {
        self.shards.iter().find(|shard| shard.contains(id))
    }

    pub(super) fn query(
        &self,
        query: &Query<'_>,
        out: &mut Vec<Neighbor>,
    ) -> Result<(), IndexError> {
        let start = out.len();
        for shard in &self.shards {
            shard.query(query, out)?;
        }
        if self.shards.len() > 1 {
            out[start..].sort_unstable_by(Neighbor::rank);
            out.truncate(start.saturating_add(query.k));
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(VectorIndex::len).sum()
    }

    pub(super) fn bytes(&self) -> usize {
        let own = self.shards.capacity() * size_of::<HnswRsIndex>();
        own + self.shards.iter().map(VectorIndex::bytes).sum::<usize>()
    }

    pub(super) fn for_each(&self, f: &mut dyn FnMut(Row<'_>)) {
        for shard in &self.shards {
            shard.for_each(f);
        }
    }

    pub(super) fn copy_rows(&self, dimension: usize) -> Result<Rows, IndexError> {
        let mut rows = Rows::new(dimension);
        rows.reserve(self.len());
        for shard in &self.shards {
            for row in shard.copy_rows().iter() {
                rows.push(row.id, row.vector, row.expires)?;
            }
        }
        Ok(rows)
    }

    /// Does what the shards have to do, as long as `wanted`.
    fn settle(&self, wanted: &dyn Fn() -> bool) {
        for shard in self.shards.iter().take_while(|_| wanted()) {
            shard.settle_while(wanted);
        }
    }

    /// Has the shards do what they have to do, in the way they are set to.
    pub(super) fn see_to_work(&self) {
        for shard in &self.shards {
            shard.see_to_work(false);
        }
    }

    /// Second handles to the same shards.
    fn share(&self) -> Self {
        Self {
            shards: self.shards.iter().map(HnswRsIndex::share).collect(),
        }
    }
}

impl AutoIndex {
    /// Begins a move to graphs if the rows are many enough and none is under way.
    pub(super) fn grow_if_due(&self) {
        let inner = &self.inner;
        if inner.config.kind != IndexKind::Auto || !inner.is_large() {
            return;
        }
        {
            let _turn = inner.writes.lock();
            match &mut *inner.state.write() {
                State::Flat {
                    journal: journal @ None,
                    rows,
                } if rows.len() > inner.config.flat_limit => {
                    *journal = Some(Box::default());
                }
                State::Flat { .. } | State::Graphs(_) => return,
            }
        }
        match inner.config.hnsw.build {
            BuildThread::Caller => inner.grow(&|| true),
            BuildThread::Shared => {
                let shared = Arc::clone(inner);
                let queued =
                    background::run(move || shared.grow(&|| Arc::strong_count(&shared) > 1));
                if !queued {
                    // Without a thread it stays flat; the next write tries again.
                    inner.stay_flat();
                }
            }
        }
    }
}

impl Inner {
    /// Whether the rows are more than a flat index should have. Cheap, asked after every write.
    fn is_large(&self) -> bool {
        match &*self.state.read() {
            State::Flat {
                rows,
                journal: None,
            } => rows.len() > self.config.flat_limit,
            State::Flat { .. } | State::Graphs(_) => false,
        }
    }

    fn stay_flat(&self) {
        if let State::Flat { journal, .. } = &mut *self.state.write() {
            *journal = None;
        }
    }

    /// The graph that a row with this id belongs to, new or not; `None` while flat. The caller
    /// holds `writes`.
    pub(super) fn shard_for(&self, id: RowId) -> Result<Option<HnswRsIndex>, IndexError> {
        if let State::Graphs(shards) = &*self.state.read() {
            if let Some(shard) = shards
                .holding(id)
                .or_else(|| shards.with_room(&self.config))
            {
                return Ok(Some(shard.share()));
            }
        } else {
            return Ok(None);
        }
        if let State::Graphs(shards) = &mut *self.state.write() {
            shards.make_room(self.dimension, &self.config)?;
            return Ok(shards.with_room(&self.config).map(HnswRsIndex::share));
        }
        Ok(None)
    }

    /// The graph that holds this row. The caller holds `writes`.
    pub(super) fn shard_of(&self, id: RowId) -> Option<HnswRsIndex> {
        match &*self.state.read() {
            State::Flat { .. } => None,
            State::Graphs(shards) => shards.holding(id).map(HnswRsIndex::share),
        }
    }

    /// Moves to graphs, if that was begun: builds them aside, applies what was written meanwhile,
    /// exchanges.
    fn grow(&self, wanted: &dyn Fn() -> bool) {
        let _turn = self.growing.lock();
        let rows = match &*self.state.read() {
            State::Flat {
                rows,
                journal: Some(_),
            } => rows.copy(),
            State::Flat { .. } | State::Graphs(_) => return,
        };
        let built = Shards::of_rows(&rows, &self.config);
        drop(rows);
        let grown = built.and_then(|shards| {
            shards.settle(wanted);
            self.exchange(shards)
        });
        if grown.is_err() {
            // Only a full index gives an error; it stays flat and as it was.
            self.stay_flat();
        }
    }

    /// Brings the graphs up to date with the rows and puts them in their place.
    fn exchange(&self, mut shards: Shards) -> Result<(), IndexError> {
        let _turn = self.writes.lock();
        if let State::Flat {
            rows,
            journal: Some(journal),
        } = &*self.state.read()
        {
            for &id in journal.iter() {
                match rows.slot(id) {
                    Some(slot) => shards.stage(rows.row(slot), &self.config)?,
                    None => shards.remove(id)?,
                }
            }
        }
        let exchanged = std::mem::replace(&mut *self.state.write(), State::Graphs(shards));
        // Freed when the lock is free again.
        drop(exchanged);
        if let State::Graphs(shards) = &*self.state.read() {
            shards.see_to_work();
        }
        self.shrink_if_due()
    }

    /// Moves back to rows if few are left. The caller holds `writes`.
    pub(super) fn shrink_if_due(&self) -> Result<(), IndexError> {
        let rows = match &*self.state.read() {
            State::Graphs(shards)
                if self.config.kind == IndexKind::Auto
                    && shards.len() < self.config.flat_limit / SHRUNK =>
            {
                shards.copy_rows(self.dimension)?
            }
            State::Flat { .. } | State::Graphs(_) => return Ok(()),
        };
        let exchanged = std::mem::replace(&mut *self.state.write(), State::flat(rows));
        // Freed when the lock is free again.
        drop(exchanged);
        Ok(())
    }

    /// Does what is begun or due, on this thread.
    pub(super) fn settle(&self) {
        self.grow(&|| true);
        let shards = match &*self.state.read() {
            State::Flat { .. } => return,
            State::Graphs(shards) => shards.share(),
        };
        shards.settle(&|| true);
    }
}
