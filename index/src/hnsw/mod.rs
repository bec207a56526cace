//! Graphs of the crate `hnsw_rs`, with what that crate leaves out: removal, update, filters, and a
//! promise that stored rows are found.
//!
//! The rows are kept here, as the flat index keeps them; a graph only names candidates, which are
//! then checked and scored by the rows. The slots of the rows fall into three parts:
//!
//! ```text
//! 0 ......... linked ......... tried ......... len
//!   in the      |  tried, and     |  written since
//!   graph       |  out of reach   |  the graph was built
//! ```
//!
//! A search walks the graph for the first part and scans the other two. So a write only appends or
//! removes a row, which takes a microsecond, and whatever the graph does not know is found by the
//! scan.
//!
//! - *Sealed*: a graph is built aside, published whole, and never changed after; `hnsw_rs` does not
//!   promise that one may be searched while it grows. Once the rows written since are
//!   [`HnswConfig::seal_rows`], and a quarter of those in the graph, another is built of all rows.
//!   So each row is linked about five times in the life of an index that only grows.
//! - *Remove* forgets the row; its node stays in the graph as a way station and is not listed. When
//!   the share of such nodes passes [`HnswConfig::dead_share`], another graph is built.
//! - *Update* is remove and append: a node never changes its vector. A row that is written again as
//!   it was stays where it is.
//! - *Reach*: `hnsw_rs` drops the farthest link of a full list without regard to what it cuts off,
//!   so some nodes cannot be found by their own vector. Each is looked up once the graph is built;
//!   one that is not found belongs to the scanned part, until the next graph tries it again.
//! - *Narrow searches* (a filter, a time, a threshold) leave rows out after the walk. The walk is
//!   widened fourfold until enough rows may answer or the threshold is passed; when it would have
//!   to visit a good part of the graph, a scan of the rows takes its place.
//!
//! Always true: a node is listed only while `slot_of_node` names its slot and `node_of_slot` names
//! it back; no id is in two slots; searches take one read lock, which nothing holds for writing
//! longer than a few memory moves, or some milliseconds when a graph of 100 thousand is published.
//!
//! A search allocates inside `hnsw_rs`, some hundred small blocks.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::mem::size_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};

use self::graph::{Codes, Found, Graph};
use crate::config::{BuildThread, HnswConfig};
use crate::neighbor::TopK;
use crate::rows::Rows;
use crate::snapshot::{self, Engine};
use crate::vector::{check_dimension, with_unit};
use crate::{
    Backlog, Capability, Expiry, IndexError, Neighbor, Query, Row, RowId, VectorIndex, background,
};

mod graph;

/// Marks a node without a row, and a row without a node.
const DEAD: u32 = u32::MAX;

/// Candidates that are rescored beyond twice the `k` asked for. The codes put the best row among
/// the first few; the rest is margin for rows that differ by less than the codes resolve.
const RESCORED: usize = 14;

/// A walk is not widened past this share of the graph: a scan costs less, and misses nothing.
const WALKED_SHARE: usize = 8;

/// Cosines by the codes are off by less than this.
const CODE_ERROR: f32 = 0.01;

/// Another graph is built once the rows written since are this share of those in it.
const WAITING_SHARE: usize = 4;

/// A graph smaller than this is not built anew for its dead nodes.
const REBUILT_FROM: usize = 32;

/// Rows copied for a build before writers get a turn.
const COPIED: usize = 1024;

/// An approximate index by graphs; see the [crate documentation](crate#engines) for when to use it.
///
/// ```
/// use askonce_index::{HnswConfig, HnswRsIndex, RowId, VectorIndex};
///
/// let index = HnswRsIndex::new(2, HnswConfig::default())?;
/// index.upsert(RowId(1), &[3.0, 4.0])?;
/// index.upsert(RowId(1), &[4.0, 3.0])?;
/// let mut found = Vec::new();
/// index.search(&[0.8, 0.6], 3, &mut found)?;
/// assert_eq!((found.len(), found[0].id), (1, RowId(1)));
/// # Ok::<(), askonce_index::IndexError>(())
/// ```
#[derive(Debug)]
pub struct HnswRsIndex {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dimension: usize,
    config: HnswConfig,
    state: RwLock<State>,
    /// Held by whoever builds a graph.
    builder: Mutex<()>,
    /// Whether the shared thread has been asked to build.
    asked: AtomicBool,
}

#[derive(Debug)]
struct State {
    rows: Rows,
    /// The number of the write that put the row into each slot.
    stamps: Vec<u64>,
    writes: u64,
    linked: usize,
    tried: usize,
    /// The node of each linked slot.
    node_of_slot: Vec<u32>,
    /// The slot of each node of the graph, or [`DEAD`].
    slot_of_node: Vec<u32>,
    graph: Arc<Graph>,
}

/// A graph that is not published yet, with the stamp of the row that each node stands for.
struct Built {
    graph: Graph,
    stamps: Vec<u64>,
    reached: Vec<bool>,
}

impl HnswRsIndex {
    /// An empty index for vectors of `dimension` components.
    ///
    /// # Errors
    /// [`IndexError::UnsupportedDimension`] outside `1..=`[`crate::MAX_DIMENSION`],
    /// [`IndexError::InvalidConfig`] for a setting out of range.
    pub fn new(dimension: usize, config: HnswConfig) -> Result<Self, IndexError> {
        check_dimension(dimension)?;
        Self::from_rows(Rows::new(dimension), config)
    }

    /// An index with the rows of a snapshot, which may be of any engine. It answers at once, by a
    /// scan of the rows until the graph is built.
    ///
    /// # Errors
    /// Those of [`HnswRsIndex::new`]; [`IndexError::Snapshot`] if the bytes are not a whole,
    /// unchanged snapshot, [`IndexError::Io`] if the reader fails.
    pub fn restore(reader: &mut dyn Read, config: HnswConfig) -> Result<Self, IndexError> {
        let (_, rows) = snapshot::read(reader)?;
        Self::from_rows(rows, config)
    }

    /// An index with these rows, of which none is linked yet.
    pub(crate) fn from_rows(rows: Rows, config: HnswConfig) -> Result<Self, IndexError> {
        config.validate()?;
        let state = State {
            stamps: (0..rows.len() as u64).collect(),
            writes: rows.len() as u64,
            linked: 0,
            tried: 0,
            node_of_slot: Vec::new(),
            slot_of_node: Vec::new(),
            graph: Arc::new(Graph::new(&config, 0)),
            rows,
        };
        let inner = Inner {
            dimension: state.rows.dimension(),
            config,
            state: RwLock::new(state),
            builder: Mutex::new(()),
            asked: AtomicBool::new(false),
        };
        let index = Self {
            inner: Arc::new(inner),
        };
        index.build_if_due();
        Ok(index)
    }

    /// Has another graph built if one is due: at once, or soon by the shared thread.
    fn build_if_due(&self) {
        let inner = &self.inner;
        if !inner.state.read().build_is_due(&inner.config) {
            return;
        }
        match inner.config.build {
            BuildThread::Caller => inner.build_while(&|| true),
            BuildThread::Shared => {
                if !inner.asked.swap(true, Ordering::AcqRel) {
                    let shared = Arc::clone(inner);
                    if !background::run(move || shared.build_in_background()) {
                        inner.asked.store(false, Ordering::Release);
                        // No thread to be had: the rows stay in the scanned part.
                    }
                }
            }
        }
    }
}

impl Inner {
    fn build_in_background(self: Arc<Self>) {
        loop {
            // No one holds the index any more once this is the last count.
            self.build_while(&|| Arc::strong_count(&self) > 1);
            self.asked.store(false, Ordering::Release);
            // A build that became due before the flag was cleared found it set, and asked no one.
            let due = self.state.read().build_is_due(&self.config);
            let wanted = Arc::strong_count(&self) > 1;
            if !due || !wanted || self.asked.swap(true, Ordering::AcqRel) {
                break;
            }
        }
    }

    /// Builds and publishes graphs as long as one is due and `wanted`.
    fn build_while(&self, wanted: &dyn Fn() -> bool) {
        let _turn = self.builder.lock();
        while wanted() && self.state.read().build_is_due(&self.config) {
            let Some(built) = self.build(wanted) else {
                return;
            };
            self.publish(built);
        }
    }

    /// Builds a graph of all rows; `None` once it is not `wanted`. The caller holds `builder`.
    fn build(&self, wanted: &dyn Fn() -> bool) -> Option<Built> {
        let (codes, stamps) = self.copy_codes();
        let graph = Graph::new(&self.config, stamps.len());
        for (node, codes) in (0..).zip(codes.iter()) {
            if !wanted() {
                return None;
            }
            graph.insert(codes, node);
        }
        let mut reached = Vec::with_capacity(stamps.len());
        for (node, codes) in (0..).zip(codes.iter()) {
            if !wanted() {
                return None;
            }
            reached.push(is_found(&graph.search(codes, self.config.ef_search), node));
        }
        Some(Built {
            graph,
            stamps,
            reached,
        })
    }

    /// Codes and stamps of the rows, newest first. Writers get a turn every [`COPIED`] rows: a row
    /// that they move goes to a lower slot, so it may be seen twice and is not missed. One that is
    /// written meanwhile may be missed, and waits for the next graph.
    fn copy_codes(&self) -> (Codes, Vec<u64>) {
        let mut end = self.state.read().rows.len();
        let mut codes = Codes::new(self.dimension, end);
        let mut stamps = Vec::with_capacity(end);
        while end > 0 {
            let state = self.state.read();
            end = end.min(state.rows.len());
            let start = end.saturating_sub(COPIED);
            for slot in (start..end).rev() {
                codes.push(state.rows.vector(slot));
                stamps.push(state.stamps[slot]);
            }
            end = start;
        }
        // Nodes are numbered below the mark for a dead one.
        stamps.truncate(DEAD as usize);
        (codes, stamps)
    }

    fn publish(&self, built: Built) {
        let old = self.state.write().publish(built);
        // Freed when the lock is free again.
        drop(old);
    }
}

impl State {
    fn waiting(&self) -> usize {
        self.rows.len() - self.tried
    }

    /// Nodes whose row is gone: each row that was tried has one node, in use or not.
    fn gone(&self) -> usize {
        self.slot_of_node.len() - self.tried
    }

    fn build_is_due(&self, config: &HnswConfig) -> bool {
        let nodes = self.slot_of_node.len();
        let waiting = config.seal_rows.max(self.linked / WAITING_SHARE);
        let crowded = self.gone() as f32 > config.dead_share * nodes as f32;
        self.waiting() >= waiting || nodes >= REBUILT_FROM && crowded
    }

    /// Appends or replaces a row, and leaves the graph alone.
    fn write(&mut self, id: RowId, unit: &[f32], expires: Expiry) -> Result<(), IndexError> {
        if let Some(slot) = self.rows.slot(id) {
            if self.rows.vector(slot) == unit {
                return self.rows.upsert(id, unit, expires).map(drop);
            }
            self.take_out(slot);
        }
        self.rows.push(id, unit, expires)?;
        self.stamps.push(self.writes);
        self.writes += 1;
        Ok(())
    }

    /// Exchanges two rows within one part.
    fn swap(&mut self, a: usize, b: usize) {
        self.rows.swap(a, b);
        self.stamps.swap(a, b);
    }

    /// Moves a linked row to the second part and returns its slot there.
    fn cut_link(&mut self, slot: usize) -> usize {
        let last = self.linked - 1;
        self.swap(slot, last);
        let node = self.node_of_slot.swap_remove(slot);
        self.slot_of_node[node as usize] = DEAD;
        if let Some(&moved) = self.node_of_slot.get(slot) {
            self.slot_of_node[moved as usize] = number(slot);
        }
        self.linked = last;
        last
    }

    /// Removes the row in this slot.
    fn take_out(&mut self, mut slot: usize) {
        if slot < self.linked {
            slot = self.cut_link(slot);
        }
        if slot < self.tried {
            self.tried -= 1;
            self.swap(slot, self.tried);
            slot = self.tried;
        }
        let last = self.rows.len() - 1;
        self.swap(slot, last);
        self.rows.swap_remove(last);
        self.stamps.truncate(last);
        give_back(&mut self.stamps);
        give_back(&mut self.node_of_slot);
    }

    /// Puts a graph in place of the old one, which is returned. Rows that it does not know wait.
    fn publish(&mut self, built: Built) -> Arc<Graph> {
        let mut nodes_by_stamp = HashMap::with_capacity(built.stamps.len());
        for (node, &stamp) in (0u32..).zip(&built.stamps) {
            nodes_by_stamp.insert(stamp, node);
        }
        let node_of = |stamp: &u64| nodes_by_stamp.get(stamp).copied();
        let is_reached = |node: u32| built.reached.get(node as usize) == Some(&true);
        let mut nodes: Vec<u32> = Vec::with_capacity(self.rows.len());
        nodes.extend(
            self.stamps
                .iter()
                .map(|stamp| node_of(stamp).unwrap_or(DEAD)),
        );

        let mut end = 0;
        for slot in 0..nodes.len() {
            if is_reached(nodes[slot]) {
                self.swap(slot, end);
                nodes.swap(slot, end);
                end += 1;
            }
        }
        self.linked = end;
        for slot in self.linked..nodes.len() {
            if nodes[slot] != DEAD {
                self.swap(slot, end);
                nodes.swap(slot, end);
                end += 1;
            }
        }
        self.tried = end;

        nodes.truncate(self.linked);
        nodes.shrink_to_fit();
        self.slot_of_node = vec![DEAD; built.stamps.len()];
        for (slot, &node) in nodes.iter().enumerate() {
            self.slot_of_node[node as usize] = number(slot);
        }
        self.node_of_slot = nodes;
        std::mem::replace(&mut self.graph, Arc::new(built.graph))
    }

    fn search(&self, query: &Query<'_>, unit: &[f32], ef_search: usize, out: &mut Vec<Neighbor>) {
        let rows = self.rows.len();
        let mut top = TopK::new(out, query.k, rows);
        match self.candidates(query, unit, ef_search) {
            Some(candidates) => {
                self.rows.scan(query, unit, self.linked..rows, &mut top);
                for neighbor in candidates {
                    top.offer(neighbor.id, neighbor.score);
                }
            }
            None => self.rows.scan(query, unit, 0..rows, &mut top),
        }
        top.finish();
    }

    /// Linked rows near the vector that may answer, or `None` if a scan of all is due.
    fn candidates(
        &self,
        query: &Query<'_>,
        unit: &[f32],
        ef_search: usize,
    ) -> Option<Vec<Neighbor>> {
        // To list a good part of the rows a scan is both faster and exact.
        if query.exact || query.k.saturating_mul(4) >= self.linked {
            return None;
        }
        let wanted = 2 * query.k + RESCORED;
        let codes = graph::encode(unit);
        let mut ef = ef_search.max(wanted);
        let mut candidates = Vec::with_capacity(wanted);
        loop {
            let found = self.graph.search(&codes, ef);
            candidates.clear();
            let slots = found
                .iter()
                .filter_map(|found| self.slot_of_node.get(found.node as usize))
                .filter(|&&slot| slot != DEAD);
            for row in slots.map(|&slot| self.rows.row(slot as usize)) {
                let score = Rows::score(unit, row.vector);
                if query.admits(row.id, score, row.expires) {
                    candidates.push(Neighbor { id: row.id, score });
                    if candidates.len() == wanted {
                        break;
                    }
                }
            }
            let passed = found
                .last()
                .is_some_and(|last| 1.0 - last.distance < query.min_score - CODE_ERROR);
            if candidates.len() >= query.k || passed {
                return Some(candidates);
            }
            // Rows that may not answer crowd the way, or parts of the graph are cut off.
            ef *= 4;
            if ef.saturating_mul(WALKED_SHARE) >= self.slot_of_node.len() || found.len() * 4 < ef {
                return None;
            }
        }
    }

    fn bytes(&self, config: &HnswConfig) -> usize {
        let tables = self.node_of_slot.capacity() + self.slot_of_node.capacity();
        let graph = Graph::bytes(self.slot_of_node.len(), self.rows.dimension(), config.links);
        let stamps = self.stamps.capacity() * size_of::<u64>();
        self.rows.bytes() + tables * size_of::<u32>() + stamps + graph
    }
}

/// Whether a search by a node's own vector leads to it, or ends among so many equals that it need
/// not be listed.
fn is_found(found: &[Found], node: u32) -> bool {
    const EQUAL: f32 = 1e-6;
    let listed = &found[..found.len().min(RESCORED + 2)];
    listed.iter().any(|found| found.node == node)
        || listed.len() > RESCORED && listed.iter().all(|found| found.distance <= EQUAL)
}

/// A slot as it is kept. Lossless, as [`Rows`] takes no more rows than u32 can number.
fn number(slot: usize) -> u32 {
    u32::try_from(slot).unwrap_or(DEAD)
}

/// Returns memory once three quarters of it are idle.
fn give_back<T>(table: &mut Vec<T>) {
    if table.len() < table.capacity() / 4 {
        table.shrink_to(table.len() * 2);
    }
}

impl VectorIndex for HnswRsIndex {
    fn dimension(&self) -> usize {
        self.inner.dimension
    }

    fn capability(&self) -> Capability {
        Capability {
            engine: "hnsw_rs",
            exact: false,
            filters_inside: false,
            removes_in_place: false,
            ..crate::flat::CAPABILITY
        }
    }

    fn upsert_until(&self, id: RowId, vector: &[f32], expires: Expiry) -> Result<(), IndexError> {
        with_unit(self.inner.dimension, vector, |unit| {
            self.inner.state.write().write(id, unit, expires)
        })?;
        self.build_if_due();
        Ok(())
    }

    fn remove(&self, id: RowId) -> Result<bool, IndexError> {
        let held = {
            let mut state = self.inner.state.write();
            let slot = state.rows.slot(id);
            if let Some(slot) = slot {
                state.take_out(slot);
            }
            slot.is_some()
        };
        if held {
            self.build_if_due();
        }
        Ok(held)
    }

    fn remove_expired(&self, now: Expiry) -> Result<usize, IndexError> {
        let removed = {
            let mut state = self.inner.state.write();
            let expired = state.rows.expired(now);
            for &id in &expired {
                if let Some(slot) = state.rows.slot(id) {
                    state.take_out(slot);
                }
            }
            expired.len()
        };
        if removed > 0 {
            self.build_if_due();
        }
        Ok(removed)
    }

    fn contains(&self, id: RowId) -> bool {
        self.inner.state.read().rows.slot(id).is_some()
    }

    fn query(&self, query: &Query<'_>, out: &mut Vec<Neighbor>) -> Result<(), IndexError> {
        with_unit(self.inner.dimension, query.vector, |unit| {
            self.inner
                .state
                .read()
                .search(query, unit, self.inner.config.ef_search, out);
            Ok(())
        })
    }

    fn len(&self) -> usize {
        self.inner.state.read().rows.len()
    }

    /// The graph's share is an estimate: `hnsw_rs` does not tell what it holds.
    fn bytes(&self) -> usize {
        // The counts beside a shared value are two words.
        let own = size_of::<Inner>() + 2 * size_of::<usize>();
        own + self.inner.state.read().bytes(&self.inner.config)
    }

    fn backlog(&self) -> Backlog {
        let state = self.inner.state.read();
        Backlog {
            waiting: state.waiting(),
            dead: state.gone(),
        }
    }

    /// Builds one graph of all rows, if any is in none or any was removed since.
    fn settle(&self) {
        let inner = &self.inner;
        let _turn = inner.builder.lock();
        let is_settled = {
            let state = inner.state.read();
            state.waiting() == 0 && state.gone() == 0
        };
        if !is_settled && let Some(built) = inner.build(&|| true) {
            inner.publish(built);
        }
    }

    fn snapshot(&self, out: &mut dyn Write) -> Result<(), IndexError> {
        // Copied first, so that a slow writer holds up no one.
        let rows = self.inner.state.read().rows.copy();
        snapshot::write(Engine::Hnsw, &rows, out)
    }

    fn for_each(&self, f: &mut dyn FnMut(Row<'_>)) {
        self.inner.state.read().rows.iter().for_each(f);
    }
}
