//! A graph index over `hnsw_rs`, with what that crate leaves out: removal, update, and a promise
//! that stored rows are found.
//!
//! The rows are kept here, as the flat index keeps them; the graph only names candidates, which are
//! then checked and scored by the rows. The slots of the rows fall into three parts:
//!
//! ```text
//! 0 ......... linked ......... tried ......... len
//!   in the      |  tried, and     |  waiting to
//!   graph       |  out of reach   |  be linked
//! ```
//!
//! A search walks the graph for the first part and scans the other two. So a write only appends or
//! removes a row, which takes a microsecond, and linking (a millisecond) is done later by one
//! thread. Whatever the graph does not know yet is found by the scan.
//!
//! - *Remove* forgets the row; its node stays in the graph as a way station and is not listed. When
//!   the share of such nodes passes [`HnswConfig::dead_share`], a new graph is built aside from the
//!   rows and put in place of the old one.
//! - *Update* is remove and append: a node never changes its vector.
//! - *Reach*: `hnsw_rs` drops the farthest link of a full list without regard to what it cuts off,
//!   so some nodes cannot be found by their own vector. Each is looked up once it is linked, and an
//!   audit repeats that for all whenever the graph has grown by half. One that is not found
//!   belongs to the scanned part, until a rebuild tries it again.
//!
//! Always true: a node is listed only while `slot_of_node` names its slot and `node_of_slot` names
//! it back; no id is in two slots; searches take one read lock, which nothing holds for writing
//! longer than a few memory moves, or a millisecond or two when a graph of 100 thousand is replaced.
//!
//! What it leaves to others: choosing between this and a scan ([`crate::AutoIndex`]). A search
//! allocates inside `hnsw_rs`, some hundred small blocks.

use std::io::{Read, Write};
use std::mem::{replace, size_of};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};

use self::graph::{Found, Graph};
use crate::config::{BuildThread, HnswConfig};
use crate::neighbor::TopK;
use crate::rows::Rows;
use crate::snapshot::{self, Engine};
use crate::vector::{check_dimension, with_unit};
use crate::{
    Backlog, Capability, Expiry, IndexError, Neighbor, Query, Row, RowId, VectorIndex, background,
};

mod graph;

/// Marks a node without a row.
const DEAD: u32 = u32::MAX;

/// Live candidates that are rescored beyond twice the `k` asked for. The codes put the best row
/// among the first few; the rest is margin for rows that differ by less than the codes resolve.
const RESCORED: usize = 14;

/// Times as many candidates as wanted that a search with a filter looks at.
const FILTERED: usize = 8;

/// Waiting rows above which a writer links one row for each that it adds, so that a writer that
/// outruns the shared thread is slowed down before scanning them gets dear.
const WAITING_LIMIT: usize = 4096;

/// A graph smaller than this is not built anew for its dead nodes.
const REBUILT_FROM: usize = 32;

/// An approximate index for many rows; see the [crate documentation](crate#engines) for when to
/// use it.
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
    /// Held by whoever changes the graph: links a row, audits, or puts another graph in place.
    linker: Mutex<()>,
    /// Whether the shared thread has been asked to tend this index.
    tending: AtomicBool,
}

#[derive(Debug)]
struct State {
    rows: Rows,
    linked: usize,
    tried: usize,
    /// The node of each linked slot.
    node_of_slot: Vec<u32>,
    /// The slot of each node of the graph, or [`DEAD`].
    slot_of_node: Vec<u32>,
    /// The slot of the row that is being linked, wherever writes have moved it.
    linking: Option<usize>,
    /// Rows linked since the last audit.
    unaudited: usize,
    graph: Arc<Graph>,
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
    /// scan of the rows that wait to be linked.
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
        let dimension = rows.dimension();
        let graph = Arc::new(Graph::new(&config, rows.len()));
        let state = State {
            rows,
            linked: 0,
            tried: 0,
            node_of_slot: Vec::new(),
            slot_of_node: Vec::new(),
            linking: None,
            unaudited: 0,
            graph,
        };
        let inner = Inner {
            dimension,
            config,
            state: RwLock::new(state),
            linker: Mutex::new(()),
            tending: AtomicBool::new(false),
        };
        let index = Self {
            inner: Arc::new(inner),
        };
        index.see_to_work(false);
        Ok(index)
    }

    /// Appends or replaces a row, and leaves the graph alone.
    pub(crate) fn stage(&self, id: RowId, unit: &[f32], expires: Expiry) -> Result<(), IndexError> {
        let mut state = self.inner.state.write();
        if let Some(slot) = state.rows.slot(id) {
            state.take_out(slot);
        }
        state.rows.push(id, unit, expires).map(drop)
    }

    /// A second handle to the same index.
    pub(crate) fn share(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }

    /// The rows as they are now.
    pub(crate) fn copy_rows(&self) -> Rows {
        self.inner.state.read().rows.copy()
    }

    /// Does all work that is due on this thread, in steps, as long as `wanted`.
    pub(crate) fn settle_while(&self, wanted: &dyn Fn() -> bool) {
        self.inner.tend_while(wanted);
    }

    /// Has the due work done: at once, or soon by the shared thread.
    pub(crate) fn see_to_work(&self, by_writer: bool) {
        let inner = &self.inner;
        let (due, crowded) = {
            let state = inner.state.read();
            (
                state.work_is_due(&inner.config),
                state.rows.len() - state.tried > WAITING_LIMIT,
            )
        };
        if !due {
            return;
        }
        match inner.config.build {
            BuildThread::Caller => inner.tend(),
            BuildThread::Shared => {
                if !inner.tending.swap(true, Ordering::AcqRel) {
                    let shared = Arc::clone(inner);
                    if !background::run(move || shared.tend_in_background()) {
                        inner.tending.store(false, Ordering::Release);
                        // No thread to be had: the rows stay in the scanned part.
                    }
                }
                if by_writer && crowded {
                    inner.link_next();
                }
            }
        }
    }
}

impl Inner {
    fn tend_in_background(self: Arc<Self>) {
        loop {
            self.tend_while(&|| Arc::strong_count(&self) > 1);
            self.tending.store(false, Ordering::Release);
            // Work that came up before the flag was cleared found it set, and asked no one.
            let due = self.state.read().work_is_due(&self.config);
            let wanted = Arc::strong_count(&self) > 1;
            if !due || !wanted || self.tending.swap(true, Ordering::AcqRel) {
                break;
            }
        }
    }

    fn tend(&self) {
        self.tend_while(&|| true);
    }

    /// Does all work that is due, in steps, as long as `wanted`.
    fn tend_while(&self, wanted: &dyn Fn() -> bool) {
        while wanted() {
            let (rebuild, audit) = {
                let state = self.state.read();
                (state.rebuild_is_due(&self.config), state.audit_is_due())
            };
            if rebuild {
                self.rebuild(wanted);
            } else if !self.link_next() {
                if !audit {
                    break;
                }
                self.audit(wanted);
            }
        }
    }

    /// Links the first waiting row; `false` if there is none.
    fn link_next(&self) -> bool {
        let _turn = self.linker.lock();
        let (unit, node, graph) = {
            let mut state = self.state.write();
            let slot = state.tried;
            // Numbers of nodes end below the mark for a dead one; a rebuild starts over.
            let next = u32::try_from(state.slot_of_node.len())
                .ok()
                .filter(|&node| node < DEAD);
            let (true, Some(node)) = (slot < state.rows.len(), next) else {
                return false;
            };
            state.linking = Some(slot);
            (
                state.rows.vector(slot).to_vec(),
                node,
                Arc::clone(&state.graph),
            )
        };
        graph.insert(&unit, node);
        let found = is_found(&graph.search(&unit, self.config.ef_search), node);
        self.state.write().finish_linking(node, found);
        true
    }

    /// Looks every linked row up by its own vector; those not found are scanned from now on.
    /// Linking them again could cut off others, and so on for ever; the next rebuild tries anew.
    fn audit(&self, wanted: &dyn Fn() -> bool) {
        let mut slot = {
            let mut state = self.state.write();
            state.unaudited = 0;
            state.linked
        };
        // From the end, so that the row that fills a gap has been looked at already.
        while slot > 0 && wanted() {
            slot -= 1;
            let _turn = self.linker.lock();
            let (unit, node, graph) = {
                let state = self.state.read();
                let Some(&node) = state.node_of_slot.get(slot) else {
                    continue;
                };
                (
                    state.rows.vector(slot).to_vec(),
                    node,
                    Arc::clone(&state.graph),
                )
            };
            if !is_found(&graph.search(&unit, self.config.ef_search), node) {
                let mut state = self.state.write();
                if state.node_of_slot.get(slot) == Some(&node) {
                    state.cut_link(slot);
                }
            }
        }
    }

    /// Builds a graph of the linked rows aside and puts it in place of the one with dead nodes.
    fn rebuild(&self, wanted: &dyn Fn() -> bool) {
        let _turn = self.linker.lock();
        let (rows, old_nodes) = {
            let state = self.state.read();
            if !state.rebuild_is_due(&self.config) {
                return;
            }
            (state.rows.copy(), state.node_of_slot.clone())
        };
        let graph = Graph::new(&self.config, old_nodes.len());
        for (node, slot) in (0..).zip(0..old_nodes.len()) {
            if !wanted() {
                return;
            }
            graph.insert(rows.vector(slot), node);
        }
        drop(rows);
        let old = self.state.write().replace_graph(graph, &old_nodes);
        drop(old);
    }
}

impl State {
    fn work_is_due(&self, config: &HnswConfig) -> bool {
        self.tried < self.rows.len() || self.rebuild_is_due(config) || self.audit_is_due()
    }

    fn rebuild_is_due(&self, config: &HnswConfig) -> bool {
        let nodes = self.slot_of_node.len();
        // Each row tried has one node, in use or not; a rebuild would only repeat those.
        let gone = nodes - self.tried;
        nodes >= REBUILT_FROM && gone as f32 > config.dead_share * nodes as f32
    }

    fn audit_is_due(&self) -> bool {
        self.unaudited > 0 && self.unaudited * 2 >= self.linked
    }

    /// Exchanges two rows within one part.
    fn swap(&mut self, a: usize, b: usize) {
        self.rows.swap(a, b);
        self.linking = match self.linking {
            Some(slot) if slot == a => Some(b),
            Some(slot) if slot == b => Some(a),
            other => other,
        };
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
        if self.linking == Some(last) {
            self.linking = None;
        }
        self.rows.swap_remove(last);
        give_back(&mut self.node_of_slot);
    }

    /// Books the node of the row that was being linked. The row may have gone meanwhile.
    fn finish_linking(&mut self, node: u32, found: bool) {
        debug_assert_eq!(self.slot_of_node.len(), node as usize);
        self.slot_of_node.push(DEAD);
        let Some(slot) = self.linking.take() else {
            return;
        };
        self.swap(slot, self.tried);
        if found {
            self.swap(self.tried, self.linked);
            self.node_of_slot.push(node);
            self.slot_of_node[node as usize] = number(self.linked);
            self.linked += 1;
            self.unaudited += 1;
        }
        self.tried += 1;
    }

    /// Takes a graph whose node `n` is the row that had node `old_nodes[n]`. Rows it does not know,
    /// and those tried in vain before, wait to be linked.
    fn replace_graph(&mut self, graph: Graph, old_nodes: &[u32]) -> Arc<Graph> {
        let slots = old_nodes
            .iter()
            .map(|&old| self.slot_of_node[old as usize])
            .collect();
        self.slot_of_node = slots;
        let mut nodes = vec![DEAD; self.linked];
        for (node, &slot) in (0..).zip(&self.slot_of_node) {
            if slot != DEAD {
                nodes[slot as usize] = node;
            }
        }
        for slot in (0..self.linked)
            .rev()
            .filter(|&slot| nodes[slot] == DEAD)
            .collect::<Vec<_>>()
        {
            let last = self.linked - 1;
            self.swap(slot, last);
            nodes.swap_remove(slot);
            if let Some(&moved) = nodes.get(slot) {
                self.slot_of_node[moved as usize] = number(slot);
            }
            self.linked = last;
        }
        self.node_of_slot = nodes;
        self.tried = self.linked;
        self.unaudited = self.linked;
        replace(&mut self.graph, Arc::new(graph))
    }

    fn search(&self, query: &Query<'_>, unit: &[f32], ef_search: usize, out: &mut Vec<Neighbor>) {
        let rows = self.rows.len();
        let mut top = TopK::new(out, query.k, rows);
        // The graph cannot leave rows out; a filter gets more of them to choose from.
        let wanted = match query.filter {
            Some(_) => query.k.saturating_mul(FILTERED),
            None => query.k,
        };
        let candidates = if query.exact {
            None
        } else {
            self.candidates(unit, wanted, ef_search)
        };
        match candidates {
            Some(slots) => {
                self.rows.scan(query, unit, self.linked..rows, &mut top);
                for slot in slots {
                    self.rows.scan(query, unit, slot..slot + 1, &mut top);
                }
            }
            None => self.rows.scan(query, unit, 0..rows, &mut top),
        }
        top.finish();
    }

    /// The slots of enough linked rows near the vector, or `None` if a scan of all is due.
    fn candidates(&self, unit: &[f32], k: usize, ef_search: usize) -> Option<Vec<usize>> {
        // To list a good part of the rows a scan is both faster and exact.
        if k.saturating_mul(4) >= self.linked {
            return None;
        }
        let rescored = 2 * k + RESCORED;
        let mut ef = ef_search.max(rescored);
        loop {
            let found = self.graph.search(unit, ef);
            let slots: Vec<usize> = found
                .iter()
                .filter_map(|found| self.slot_of_node.get(found.node as usize))
                .filter(|&&slot| slot != DEAD)
                .take(rescored)
                .map(|&slot| slot as usize)
                .collect();
            if slots.len() >= k {
                return Some(slots);
            }
            // Removed rows crowd the way, or parts of the graph are cut off.
            if ef >= self.slot_of_node.len() || found.len() < ef {
                return None;
            }
            ef *= 4;
        }
    }

    fn bytes(&self, config: &HnswConfig) -> usize {
        let tables = self.node_of_slot.capacity() + self.slot_of_node.capacity();
        let graph = Graph::bytes(self.slot_of_node.len(), self.rows.dimension(), config.links);
        self.rows.bytes() + tables * size_of::<u32>() + graph
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
fn give_back(table: &mut Vec<u32>) {
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
            self.stage(id, unit, expires)
        })?;
        self.see_to_work(true);
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
            self.see_to_work(false);
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
            self.see_to_work(false);
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
            waiting: state.rows.len() - state.tried,
            dead: state.slot_of_node.len() - state.linked,
        }
    }

    fn settle(&self) {
        self.inner.tend();
    }

    fn snapshot(&self, out: &mut dyn Write) -> Result<(), IndexError> {
        // Copied first, so that a slow writer holds up no one.
        snapshot::write(Engine::Hnsw, &self.copy_rows(), out)
    }

    fn for_each(&self, f: &mut dyn FnMut(Row<'_>)) {
        self.inner.state.read().rows.iter().for_each(f);
    }
}
