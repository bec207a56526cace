//! An index over FAISS, with what FAISS leaves out: removal, update, reads during writes, and a
//! promise that stored rows are found.
//!
//! The rows are kept here, as the flat index keeps them; FAISS only names candidates, which are
//! then checked and scored by the rows. The slots of the rows fall into three parts:
//!
//! ```text
//! 0 ......... sealed ......... tried ......... len
//!   in FAISS    |  in FAISS, and  |  waiting
//!               |  not found      |
//! ```
//!
//! A search asks FAISS for the first part and scans the other two. A write only appends or removes
//! a row. FAISS cannot be changed while it is searched, and one row at a time costs it dear, so it
//! gets rows in bulk: when enough wait ([`FaissConfig::seal_rows`]) a copy of its index is made aside
//! that has them too, and takes the place of the old one. Until FAISS has enough rows to be trained
//! on, all of them wait.
//!
//! - *Remove* forgets the row; FAISS still names it and it is not listed. When the share of such
//!   rows passes [`FaissConfig::dead_share`], FAISS is given the live ones anew.
//! - *Update* is remove and append, but for an update that brings the same vector.
//! - *Training* is repeated when there are four times as many rows as it was done on.
//! - *Reach*: each row that FAISS got is looked up before the copy is used, in a graph those it had
//!   before too whenever half as many were added; in a scan its code is compared with it. One that
//!   is not found by its own vector belongs to the scanned part until FAISS is given all rows anew.
//! - *Filters and thresholds* are applied to what FAISS names. If too few rows pass, it is asked for
//!   more, and when a good part of the rows would have to be named, all are scanned.
//! - *Failure*: if FAISS cannot build, the rows wait and are scanned, and it is not asked again
//!   before there are twice as many; if it cannot search, the rows are scanned.
//!
//! Always true: a number of FAISS is listed only while `slot_of_node` names its slot and
//! `node_of_slot` names it back; no id is in two slots; searches take one read lock, which nothing
//! holds for writing longer than a pass over a table of numbers takes and the moves of the rows that
//! change their part.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock, RwLockWriteGuard};

use self::config::Plan;
use self::factory::{Codes, Structure};
use self::native::{Failed, Listed, Native};
use crate::config::BuildThread;
use crate::neighbor::TopK;
use crate::rows::Rows;
use crate::snapshot::{self, Engine};
use crate::vector::{check_dimension, with_unit};
use crate::{
    Backlog, Capability, Expiry, IndexError, Neighbor, Query, Row, RowId, VectorIndex, background,
};

pub use self::config::FaissConfig;

mod config;
mod factory;
#[expect(unsafe_code, reason = "calls a C library")]
mod native;

/// Marks a number of FAISS without a row, and a row without one.
const DEAD: u32 = u32::MAX;

/// Candidates beyond twice the `k` asked for. Codes put the best row among the first few; the rest
/// is margin for rows that differ by less than the codes resolve.
const RESCORED: usize = 14;

/// Rows in FAISS below which it is not built anew for those that are gone.
const REBUILT_FROM: usize = 32;

/// Waiting rows that FAISS is given are at least this part of those it has: each time, all that it
/// has is copied.
const LEAST_GROWTH: usize = 16;

/// Times as many rows as FAISS was trained on, from which on it is trained again.
const OUTGROWN: usize = 4;

/// An index that lets FAISS find candidates; see the [crate documentation](crate#engines) for when
/// to use it.
///
/// Rows are kept here as well and FAISS names candidates among them, so scores are exact and memory is
/// that of a [`crate::FlatIndex`] and of what FAISS builds. It gets rows in bulk: until then, and for
/// what it would not find, rows are scanned. While it is given rows there are two or three copies of
/// what it holds, and a writer that is faster is not slowed, its rows wait.
///
/// ```
/// use askonce_index::{FaissConfig, FaissIndex, RowId, VectorIndex};
///
/// let config = FaissConfig {
///     factory: "IVF64,SQ8".to_owned(),
///     ..FaissConfig::default()
/// };
/// let index = FaissIndex::new(2, &config)?;
/// index.upsert(RowId(1), &[3.0, 4.0])?;
/// let mut found = Vec::new();
/// index.search(&[0.6, 0.8], 1, &mut found)?;
/// assert_eq!((found[0].id, found[0].score), (RowId(1), 1.0));
/// # Ok::<(), askonce_index::IndexError>(())
/// ```
///
/// # Building
/// Needs a C++17 compiler with OpenMP, CMake 3.24 or newer, and a BLAS with LAPACK: on Debian and
/// Ubuntu the packages `g++`, `cmake` and `libopenblas-dev`. FAISS itself comes with the crate
/// `faiss-sys` and is linked statically, always optimized; it takes some minutes to compile, once.
/// The program then needs the shared libraries libstdc++, libgomp, libblas and liblapack (`libstdc++6`,
/// `libgomp1` and `libopenblas0`).
///
/// Left to itself FAISS is compiled for the first x86-64 processors, and is then up to 14 times
/// slower. The workspace of this crate asks for `x86-64-v3` (AVX2: processors since 2013 to 2015) in
/// `.cargo/config.toml`. A program that depends on this crate has to do the same in its own, as cargo
/// reads no one else's:
///
/// ```toml
/// [env]
/// CXXFLAGS_x86_64_unknown_linux_gnu = "-march=x86-64-v3"
/// ```
///
/// A variable of that name in the environment goes before the file; `-march=native` makes a program
/// for this machine only. The build script warns of a build without AVX2, and [`FaissIndex::new`]
/// refuses a CPU that lacks what the build uses. Cargo does not notice that FAISS has to be compiled
/// again when the flags change: `cargo clean -p faiss-sys` tells it.
#[derive(Debug)]
pub struct FaissIndex {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dimension: usize,
    plan: Plan,
    state: RwLock<State>,
    /// Held by whoever builds.
    builder: Mutex<()>,
    /// Whether the shared thread has been asked to tend this index.
    tending: AtomicBool,
}

#[derive(Debug)]
struct State {
    rows: Rows,
    sealed: usize,
    tried: usize,
    /// The number in FAISS of each sealed slot.
    node_of_slot: Vec<u32>,
    /// The slot of each number of FAISS, or [`DEAD`].
    slot_of_node: Vec<u32>,
    /// While rows are being given to FAISS: which of them each slot holds, wherever writes have
    /// moved it, or [`DEAD`].
    given: Option<Vec<u32>>,
    /// How many rows there were when FAISS failed, or 0.
    failed_at: usize,
    native: Option<Arc<Native>>,
}

/// What is to be done with FAISS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// Give it all rows.
    Build,
    /// Give it those that wait.
    Extend,
    /// Do without it.
    Drop,
}

/// What came of giving rows to FAISS.
struct Built {
    native: Native,
    /// Whether it has no other rows.
    anew: bool,
    /// For each row given, whether it is found by its own vector.
    found: Vec<bool>,
    /// Numbers that it had before and that are found no more.
    lost: Vec<u32>,
}

impl FaissIndex {
    /// An empty index for vectors of `dimension` components.
    ///
    /// # Errors
    /// [`IndexError::UnsupportedDimension`] outside `1..=`[`crate::MAX_DIMENSION`],
    /// [`IndexError::InvalidConfig`] for a setting out of range, [`IndexError::UnsupportedCpu`] if
    /// FAISS was compiled for another CPU, [`IndexError::EngineFailed`] if it refuses for a reason of
    /// its own.
    pub fn new(dimension: usize, config: &FaissConfig) -> Result<Self, IndexError> {
        check_dimension(dimension)?;
        Self::from_rows(Rows::new(dimension), config)
    }

    /// An index with the rows of a snapshot, which may be of any engine. It answers at once, by a
    /// scan of the rows that wait to be given to FAISS.
    ///
    /// # Errors
    /// Those of [`FaissIndex::new`]; [`IndexError::Snapshot`] if the bytes are not a whole, unchanged
    /// snapshot, [`IndexError::Io`] if the reader fails.
    pub fn restore(reader: &mut dyn Read, config: &FaissConfig) -> Result<Self, IndexError> {
        let (_, rows) = snapshot::read(reader)?;
        Self::from_rows(rows, config)
    }

    /// An index with these rows, all of which wait.
    pub(crate) fn from_rows(rows: Rows, config: &FaissConfig) -> Result<Self, IndexError> {
        let plan = config.plan()?;
        if let Some(missing) = native::missing_instructions() {
            return Err(IndexError::UnsupportedCpu {
                engine: "faiss",
                missing,
            });
        }
        let dimension = rows.dimension();
        Native::check(&plan, dimension)
            .map_err(|Failed| IndexError::EngineFailed { engine: "faiss" })?;
        let state = State {
            rows,
            sealed: 0,
            tried: 0,
            node_of_slot: Vec::new(),
            slot_of_node: Vec::new(),
            given: None,
            failed_at: 0,
            native: None,
        };
        let inner = Inner {
            dimension,
            plan,
            state: RwLock::new(state),
            builder: Mutex::new(()),
            tending: AtomicBool::new(false),
        };
        let index = Self {
            inner: Arc::new(inner),
        };
        index.see_to_work();
        Ok(index)
    }

    /// Has the due work done: at once, or soon by the shared thread.
    fn see_to_work(&self) {
        let inner = &self.inner;
        if inner.state.read().due(&inner.plan).is_none() {
            return;
        }
        match inner.plan.build {
            BuildThread::Caller => inner.tend_while(&|| true),
            BuildThread::Shared => {
                if !inner.tending.swap(true, Ordering::AcqRel) {
                    let shared = Arc::clone(inner);
                    if !background::run(move || shared.tend_in_background()) {
                        // No thread to be had: the rows stay in the scanned part.
                        inner.tending.store(false, Ordering::Release);
                    }
                }
            }
        }
    }
}

impl Inner {
    fn tend_in_background(self: Arc<Self>) {
        loop {
            let wanted = || Arc::strong_count(&self) > 1;
            self.tend_while(&wanted);
            self.tending.store(false, Ordering::Release);
            // Work that came up before the flag was cleared found it set, and asked no one.
            let due = self.state.read().due(&self.plan).is_some();
            if !due || !wanted() || self.tending.swap(true, Ordering::AcqRel) {
                break;
            }
        }
    }

    /// Does all work that is due, as long as `wanted`.
    fn tend_while(&self, wanted: &dyn Fn() -> bool) {
        while wanted() && self.work(wanted, State::due) {}
    }

    /// Does the work that `choose` names; `false` if it names none, or could not be done.
    fn work(
        &self,
        wanted: &dyn Fn() -> bool,
        choose: impl Fn(&State, &Plan) -> Option<Work>,
    ) -> bool {
        let _turn = self.builder.lock();
        let mut state = self.state.write();
        let anew = match choose(&state, &self.plan) {
            None => return false,
            Some(Work::Drop) => {
                let old = state.drop_native();
                drop(state);
                drop(old);
                return true;
            }
            Some(Work::Build) => true,
            Some(Work::Extend) => false,
        };
        let first = if anew { 0 } else { state.tried };
        state.give(first);
        // No write comes between the marks and the copy, and searches go on.
        let state = RwLockWriteGuard::downgrade(state);
        let rows = state.rows.vectors(first..state.rows.len()).to_vec();
        let old = state.native.clone().filter(|_| !anew);
        let nodes = state.slot_of_node.len();
        drop(state);

        let built = self.build(old.as_deref(), &rows, nodes, wanted);
        drop(rows);
        let mut state = self.state.write();
        let old = match built {
            Ok(Some(built)) => state.publish(built),
            Ok(None) => {
                state.given = None;
                return false;
            }
            Err(Failed) => {
                state.given = None;
                state.failed_at = state.rows.len();
                return false;
            }
        };
        drop(state);
        // Freeing a large index takes a while.
        drop(old);
        true
    }

    fn build(
        &self,
        old: Option<&Native>,
        rows: &[f32],
        nodes: usize,
        wanted: &dyn Fn() -> bool,
    ) -> Result<Option<Built>, Failed> {
        let native = match old {
            Some(old) => old.extended(rows, wanted)?,
            None => Native::build(&self.plan, self.dimension, rows, wanted)?,
        };
        let Some(native) = native else {
            return Ok(None);
        };
        let first = if old.is_some() { nodes } else { 0 };
        let (factory, mut listed, mut kept) = (self.plan.factory, Listed::default(), Vec::new());
        let mut is_found = |unit: &[f32], node: usize| -> Result<bool, Failed> {
            if factory.is_complete() {
                // A search goes on until what it has scores better than whatever comes next may,
                // so a row is found unless its own score is off by more than it allows for.
                let score = native.own_score(node, unit, &mut kept)?;
                return Ok(score >= 1.0 - factory.score_error());
            }
            native.search(unit, 2 + RESCORED, &mut listed)?;
            Ok(names(&listed, node, factory.codes))
        };
        let mut found = Vec::with_capacity(rows.len() / self.dimension);
        for (node, unit) in (first..).zip(rows.chunks_exact(self.dimension)) {
            if !wanted() {
                return Ok(None);
            }
            found.push(is_found(unit, node)?);
        }
        // In cells a row stays where it is; in a graph new links push out old ones, at every growth.
        let graph = matches!(factory.structure, Structure::Graph { .. });
        let mut lost = Vec::new();
        for node in (0..first).filter(|_| graph) {
            if !wanted() {
                return Ok(None);
            }
            let unit = {
                let state = self.state.read();
                let slot = state.slot_of_node[node];
                if slot == DEAD {
                    continue;
                }
                state.rows.vector(slot as usize).to_vec()
            };
            if !is_found(&unit, node)? {
                lost.push(number(node));
            }
        }
        Ok(Some(Built {
            native,
            anew: old.is_none(),
            found,
            lost,
        }))
    }
}

/// Whether a search by a row's own vector names it, or ends among so many equals that it need not.
/// Codes of a byte tell no equals: rows that differ may share one.
fn names(listed: &Listed, node: usize, codes: Codes) -> bool {
    const EQUAL: f32 = 1e-6;
    let named = listed.rows().any(|(named, _)| named == node);
    if named || codes != Codes::Flat {
        return named;
    }
    let (mut rows, mut best, mut worst) = (0, f32::MIN, f32::MAX);
    for (_, score) in listed.rows() {
        rows += 1;
        best = best.max(score);
        worst = worst.min(score);
    }
    rows == 2 + RESCORED && best - worst <= EQUAL
}

impl State {
    /// The work that is due.
    fn due(&self, plan: &Plan) -> Option<Work> {
        if self.rows.len() < 2 * self.failed_at {
            return None;
        }
        self.work_for(plan, plan.seal_rows.max(self.sealed / LEAST_GROWTH))
    }

    /// The work that is due if everything is to be in its place.
    fn left(&self, plan: &Plan) -> Option<Work> {
        self.work_for(plan, 1)
    }

    /// The work to be done once `enough` rows wait.
    fn work_for(&self, plan: &Plan, enough: usize) -> Option<Work> {
        let rows = self.rows.len();
        let Some(native) = &self.native else {
            return (rows >= plan.least_rows()).then_some(Work::Build);
        };
        let nodes = self.slot_of_node.len();
        let crowded = nodes >= REBUILT_FROM && self.gone() as f32 > plan.dead_share * nodes as f32;
        if crowded && rows < plan.least_rows() {
            return Some(Work::Drop);
        }
        let outgrown = plan.factory.is_trained() && rows >= OUTGROWN * native.trained_on;
        if crowded || outgrown {
            return Some(Work::Build);
        }
        // Numbers end below the mark for a dead one; building anew starts over.
        let room = DEAD as usize - nodes;
        let waiting = rows - self.tried;
        (waiting >= enough && waiting <= room).then_some(Work::Extend)
    }

    /// Rows in FAISS that were removed or replaced. Each row tried has one number, in use or not.
    fn gone(&self) -> usize {
        self.slot_of_node.len() - self.tried
    }

    /// Marks the rows from this slot on as given to FAISS, numbered from 0.
    fn give(&mut self, first: usize) {
        let rows = self.rows.len();
        let mut given = vec![DEAD; first];
        given.extend((0..rows - first).map(number));
        self.given = Some(given);
    }

    /// Exchanges two rows within one part.
    fn swap(&mut self, a: usize, b: usize) {
        self.rows.swap(a, b);
        if let Some(given) = &mut self.given {
            given.swap(a, b);
        }
    }

    /// Appends a row whose id is not held.
    fn push(&mut self, id: RowId, unit: &[f32], expires: Expiry) -> Result<(), IndexError> {
        self.rows.push(id, unit, expires)?;
        if let Some(given) = &mut self.given {
            given.push(DEAD);
        }
        Ok(())
    }

    /// Moves a sealed row to the second part and returns its slot there.
    fn unseal(&mut self, slot: usize) -> usize {
        let last = self.sealed - 1;
        self.swap(slot, last);
        let node = self.node_of_slot.swap_remove(slot);
        self.slot_of_node[node as usize] = DEAD;
        if let Some(&moved) = self.node_of_slot.get(slot) {
            self.slot_of_node[moved as usize] = number(slot);
        }
        self.sealed = last;
        last
    }

    /// Removes the row in this slot.
    fn take_out(&mut self, mut slot: usize) {
        if slot < self.sealed {
            slot = self.unseal(slot);
        }
        if slot < self.tried {
            self.tried -= 1;
            self.swap(slot, self.tried);
            slot = self.tried;
        }
        let last = self.rows.len() - 1;
        self.swap(slot, last);
        self.rows.swap_remove(last);
        if let Some(given) = &mut self.given {
            given.pop();
        }
        give_back(&mut self.node_of_slot);
    }

    /// Puts an index in the place of the one that was searched. Rows that were given and are still
    /// here belong to it, each to the part where it is found.
    fn publish(&mut self, built: Built) -> Option<Arc<Native>> {
        let given = self.given.take().unwrap_or_default();
        if built.anew {
            (self.sealed, self.tried) = (0, 0);
            self.node_of_slot = Vec::new();
            self.slot_of_node = Vec::new();
        }
        let first = self.slot_of_node.len();
        self.slot_of_node.resize(first + built.found.len(), DEAD);
        self.node_of_slot.reserve_exact(built.found.len());
        for node in built.lost {
            match self.slot_of_node[node as usize] {
                DEAD => {}
                slot => drop(self.unseal(slot as usize)),
            }
        }
        // A row that is moved out of the way was looked at already, or waits and has no number.
        for (slot, &number_given) in given.iter().enumerate().skip(self.tried) {
            let Some(&found) = built.found.get(number_given as usize) else {
                continue;
            };
            self.swap(slot, self.tried);
            if found {
                let node = first + number_given as usize;
                self.swap(self.tried, self.sealed);
                self.node_of_slot.push(number(node));
                self.slot_of_node[node] = number(self.sealed);
                self.sealed += 1;
            }
            self.tried += 1;
        }
        self.failed_at = 0;
        self.native.replace(Arc::new(built.native))
    }

    /// Goes back to a scan of all rows.
    fn drop_native(&mut self) -> Option<Arc<Native>> {
        (self.sealed, self.tried) = (0, 0);
        self.node_of_slot = Vec::new();
        self.slot_of_node = Vec::new();
        self.native.take()
    }

    fn search(&self, plan: &Plan, query: &Query<'_>, unit: &[f32], out: &mut Vec<Neighbor>) {
        let rows = self.rows.len();
        let mut top = TopK::new(out, query.k, rows);
        match self.candidates(plan, query, unit) {
            Some(candidates) => {
                for candidate in candidates {
                    top.offer(candidate.id, candidate.score);
                }
                self.rows.scan(query, unit, self.sealed..rows, &mut top);
            }
            None => self.rows.scan(query, unit, 0..rows, &mut top),
        }
        top.finish();
    }

    /// Enough sealed rows that may answer, or `None` if a scan of all is due.
    fn candidates(&self, plan: &Plan, query: &Query<'_>, unit: &[f32]) -> Option<Vec<Neighbor>> {
        let native = self.native.as_ref().filter(|_| !query.exact)?;
        let error = plan.factory.score_error();
        let complete = plan.factory.is_complete();
        let mut listed = Listed::default();
        let mut candidates = Vec::new();
        let mut wanted = query.k.saturating_mul(2).saturating_add(RESCORED);
        loop {
            // To list a good part of the rows a scan is both faster and exact.
            if wanted.saturating_mul(4) >= self.sealed {
                return None;
            }
            native.search(unit, wanted, &mut listed).ok()?;
            candidates.clear();
            let mut top = TopK::new(&mut candidates, wanted, wanted);
            let (mut named, mut worst) = (0, f32::INFINITY);
            for (node, score) in listed.rows() {
                named += 1;
                worst = worst.min(score);
                if let Some(&slot) = self.slot_of_node.get(node)
                    && slot != DEAD
                {
                    let slot = slot as usize;
                    self.rows.scan(query, unit, slot..slot + 1, &mut top);
                }
            }
            top.finish();
            // What FAISS did not name scores no more than the worst that it named.
            let beyond = worst + error;
            if beyond < query.min_score {
                return Some(candidates);
            }
            if query.k.checked_sub(1).is_none_or(|last| {
                candidates
                    .get(last)
                    .is_some_and(|last| !complete || last.score > beyond)
            }) {
                return Some(candidates);
            }
            if named < wanted {
                // A scan has named every row there is. Of a graph or cells the rest is out of reach.
                return complete.then_some(candidates);
            }
            wanted = wanted.saturating_mul(4);
        }
    }

    fn bytes(&self, plan: &Plan) -> usize {
        let tables = self.node_of_slot.capacity()
            + self.slot_of_node.capacity()
            + self.given.as_ref().map_or(0, Vec::capacity);
        let native = self.native.as_ref().map_or(0, |_| {
            let dimension = self.rows.dimension();
            plan.factory.bytes(self.slot_of_node.len(), dimension)
        });
        self.rows.bytes() + tables * size_of::<u32>() + native
    }
}

/// A slot or a number of FAISS as it is kept. Lossless, as [`Rows`] takes no more rows than u32 can
/// number, and FAISS is not given more.
fn number(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(DEAD)
}

/// Returns memory once three quarters of it are idle.
fn give_back(table: &mut Vec<u32>) {
    if table.len() < table.capacity() / 4 {
        table.shrink_to(table.len() * 2);
    }
}

impl VectorIndex for FaissIndex {
    fn dimension(&self) -> usize {
        self.inner.dimension
    }

    /// Exact if [`FaissConfig::factory`] is `Flat`.
    fn capability(&self) -> Capability {
        Capability {
            engine: "faiss",
            exact: self.inner.plan.factory.is_exact(),
            filters_inside: false,
            removes_in_place: false,
            ..crate::flat::CAPABILITY
        }
    }

    fn upsert_until(&self, id: RowId, vector: &[f32], expires: Expiry) -> Result<(), IndexError> {
        with_unit(self.inner.dimension, vector, |unit| {
            let mut state = self.inner.state.write();
            match state.rows.slot(id) {
                Some(slot) if state.rows.vector(slot) == unit => {
                    // What FAISS knows of the row still holds.
                    state.rows.upsert(id, unit, expires).map(drop)
                }
                Some(slot) => {
                    state.take_out(slot);
                    state.push(id, unit, expires)
                }
                None => state.push(id, unit, expires),
            }
        })?;
        self.see_to_work();
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
            self.see_to_work();
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
            self.see_to_work();
        }
        Ok(removed)
    }

    fn contains(&self, id: RowId) -> bool {
        self.inner.state.read().rows.slot(id).is_some()
    }

    fn query(&self, query: &Query<'_>, out: &mut Vec<Neighbor>) -> Result<(), IndexError> {
        with_unit(self.inner.dimension, query.vector, |unit| {
            let state = self.inner.state.read();
            state.search(&self.inner.plan, query, unit, out);
            Ok(())
        })
    }

    fn len(&self) -> usize {
        self.inner.state.read().rows.len()
    }

    /// The share of FAISS is an estimate: it does not tell what it holds.
    fn bytes(&self) -> usize {
        // The counts beside a shared value are two words.
        let own = size_of::<Inner>() + 2 * size_of::<usize>();
        own + self.inner.state.read().bytes(&self.inner.plan)
    }

    /// Rows too few to be given to FAISS do not count as waiting.
    fn backlog(&self) -> Backlog {
        let state = self.inner.state.read();
        let in_use = state.native.is_some() || state.rows.len() >= self.inner.plan.least_rows();
        Backlog {
            waiting: if in_use {
                state.rows.len() - state.tried
            } else {
                0
            },
            dead: state.gone(),
        }
    }

    /// Gives FAISS the rows that wait, however few, once there are enough for it to be used.
    fn settle(&self) {
        self.inner.work(&|| true, State::left);
    }

    fn snapshot(&self, out: &mut dyn Write) -> Result<(), IndexError> {
        // Copied first, so that a slow writer holds up no one.
        let rows = self.inner.state.read().rows.copy();
        snapshot::write(Engine::Faiss, &rows, out)
    }

    fn for_each(&self, f: &mut dyn FnMut(Row<'_>)) {
        self.inner.state.read().rows.iter().for_each(f);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const DIMENSION: usize = 16;

    const FACTORIES: [&str; 7] = [
        "Flat",
        "SQ8",
        "HNSW16,Flat",
        "HNSW16,SQ8",
        "IVF16,Flat",
        "IVF16,SQ8",
        "IVF16_HNSW8,SQ8",
    ];

    /// Unit vectors around a centre for each 20 of them.
    fn vector(number: u64) -> Vec<f32> {
        // SplitMix64, folded to 24 bits: nearly uniform.
        let noise = |seed: u64| {
            let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        let row: Vec<f32> = (0..DIMENSION as u64)
            .map(|at| {
                noise((number / 20) << 20 | at) + 0.3 * noise((number << 20 | at) ^ (1 << 60))
            })
            .collect();
        with_unit(DIMENSION, &row, |unit| Ok(unit.to_vec())).unwrap()
    }

    fn config(factory: &str) -> FaissConfig {
        FaissConfig {
            factory: factory.to_owned(),
            ef_construction: 80,
            probes: 4,
            seal_rows: 100,
            build: BuildThread::Caller,
            ..FaissConfig::default()
        }
    }

    /// An index with this many rows, none of which FAISS has.
    fn waiting(factory: &str, rows: u64) -> FaissIndex {
        let index = FaissIndex::new(DIMENSION, &config(factory)).unwrap();
        {
            let mut state = index.inner.state.write();
            for id in 0..rows {
                state.push(RowId(id), &vector(id), Expiry::NEVER).unwrap();
            }
        }
        index
    }

    fn filled(factory: &str, rows: u64) -> FaissIndex {
        let index = waiting(factory, rows);
        index.settle();
        index
    }

    fn search(index: &FaissIndex, query: &Query<'_>) -> Vec<Neighbor> {
        let mut found = Vec::new();
        index.query(query, &mut found).unwrap();
        found
    }

    /// Whether FAISS names the candidates for this query.
    fn uses_faiss(index: &FaissIndex, query: &Query<'_>) -> bool {
        let state = index.inner.state.read();
        let unit = query.vector();
        state.candidates(&index.inner.plan, query, unit).is_some()
    }

    /// Each number of FAISS and each slot name each other, or no one.
    fn check_tables(index: &FaissIndex) {
        let state = index.inner.state.read();
        assert!(state.sealed <= state.tried && state.tried <= state.rows.len());
        assert_eq!(state.node_of_slot.len(), state.sealed);
        for (slot, &node) in (0..).zip(&state.node_of_slot) {
            assert_eq!(state.slot_of_node[node as usize], slot);
        }
        let used = state.slot_of_node.iter().filter(|&&slot| slot != DEAD);
        assert_eq!(used.count(), state.sealed);
        assert!(state.given.is_none());
    }

    #[test]
    fn every_structure_takes_the_rows_and_finds_them_by_itself() {
        for factory in FACTORIES {
            let index = filled(factory, 1500);
            check_tables(&index);
            assert_eq!(index.backlog(), Backlog::default(), "{factory}");
            let sealed = index.inner.state.read().sealed;
            assert!(sealed >= 1450, "{factory}: {sealed} of 1500");
            for id in 0..1500 {
                let query = vector(id);
                let query = Query::new(&query, 1);
                assert!(uses_faiss(&index, &query), "{factory}");
                assert_eq!(search(&index, &query)[0].id, RowId(id), "{factory}");
            }
        }
    }

    #[test]
    fn every_structure_finds_nearly_all_true_neighbours() {
        for factory in FACTORIES {
            let index = filled(factory, 1500);
            let vectors: Vec<Vec<f32>> = (0..100).map(|id| vector((1 << 30) + 7 * id)).collect();
            let mut queries: Vec<Query<'_>> = vectors.iter().map(|v| Query::new(v, 10)).collect();
            let audit = index.audit(&queries).unwrap();
            assert!(audit.recall() >= 0.8, "{factory}: {audit:?}");
            let near: Vec<Vec<f32>> = (0..75).map(|id| vector(20 * id)).collect();
            queries = near.iter().map(|v| Query::new(v, 10).above(0.85)).collect();
            let audit = index.audit(&queries).unwrap();
            assert!(audit.neighbors > 300, "{audit:?}");
            assert!(audit.recall() >= 0.98, "{factory}: {audit:?}");
            if index.capability().exact {
                assert_eq!(audit.neighbors_found, audit.neighbors);
            }
        }
    }

    #[test]
    fn a_scan_by_faiss_is_exact_under_filters_thresholds_and_ties() {
        let index = filled("Flat", 1500);
        // Copies of one row, far more than a search asks for at first.
        for id in 5000..5100 {
            index.upsert(RowId(id), &vector(7)).unwrap();
        }
        index.settle();
        for id in [3, 7, 400] {
            let vector = vector(id);
            let far = |id: RowId| id.0 > 900 && id.0.is_multiple_of(3);
            for k in [1, 3, 20] {
                for query in [
                    Query::new(&vector, k),
                    Query::new(&vector, k).above(0.9),
                    Query::new(&vector, k).only(&far),
                    Query::new(&vector, k).only(&far).above(0.2),
                ] {
                    let found = search(&index, &query);
                    let truth = search(&index, &query.exact());
                    assert_eq!(
                        found.iter().map(|n| n.id).collect::<Vec<_>>(),
                        truth.iter().map(|n| n.id).collect::<Vec<_>>(),
                        "{query:?}"
                    );
                }
            }
        }
        let seven = vector(7);
        assert!(uses_faiss(&index, &Query::new(&seven, 20)));
    }

    #[test]
    fn a_filter_that_admits_only_far_rows_still_gets_its_rows() {
        for factory in FACTORIES {
            let index = filled(factory, 1500);
            let query = vector(100);
            let far = |id: RowId| id.0 >= 1400;
            let query = Query::new(&query, 8).only(&far);
            let found = search(&index, &query);
            assert_eq!(found.len(), 8, "{factory}");
            assert!(found.iter().all(|n| n.id.0 >= 1400));
        }
    }

    #[test]
    fn writes_made_while_faiss_is_given_rows_are_kept_apart_from_them() {
        for factory in FACTORIES {
            for already in [false, true] {
                let index = waiting(factory, 1500);
                if already {
                    index.settle();
                    let mut state = index.inner.state.write();
                    for id in 1500..2500 {
                        state.push(RowId(id), &vector(id), Expiry::NEVER).unwrap();
                    }
                }
                let rows = index.len() as u64;
                let written = Cell::new(false);
                let write = || {
                    if !written.replace(true) {
                        let mut state = index.inner.state.write();
                        assert!(state.given.is_some());
                        for id in (0..rows).step_by(3) {
                            let slot = state.rows.slot(RowId(id)).unwrap();
                            state.take_out(slot);
                            if id % 2 == 0 {
                                let new = vector(id + 10_000);
                                state.push(RowId(id), &new, Expiry::NEVER).unwrap();
                            }
                        }
                        state
                            .push(RowId(rows), &vector(rows), Expiry::NEVER)
                            .unwrap();
                    }
                    true
                };
                assert!(index.inner.work(&write, State::left), "{factory}");
                check_tables(&index);
                for id in 0..=rows {
                    let now = match (id < rows && id % 3 == 0, id % 2 == 0) {
                        (true, false) => None,
                        (true, true) => Some(vector(id + 10_000)),
                        (false, _) => Some(vector(id)),
                    };
                    let old = vector(id);
                    let found = search(&index, &Query::new(&old, 1))[0];
                    match now {
                        Some(now) => {
                            let found = search(&index, &Query::new(&now, 1))[0];
                            assert_eq!(found.id, RowId(id), "{factory}");
                            assert!(found.score > 0.9999);
                        }
                        None => assert_ne!(found.id, RowId(id), "{factory}"),
                    }
                }
            }
        }
    }

    #[test]
    fn removed_rows_make_room_once_they_are_many() {
        for factory in FACTORIES {
            let index = filled(factory, 1500);
            let full = index.bytes();
            for id in 0..400 {
                index.remove(RowId(id)).unwrap();
            }
            assert_eq!(index.backlog().dead, 400, "{factory}");
            for id in 400..800 {
                index.remove(RowId(id)).unwrap();
            }
            // Built anew when the share passed the limit.
            assert!(index.backlog().dead < 400, "{factory}");
            assert!(index.bytes() < full, "{factory}");
            check_tables(&index);
            for id in 800..1490 {
                index.remove(RowId(id)).unwrap();
            }
            assert!(index.inner.state.read().native.is_none(), "{factory}");
            assert_eq!(index.backlog(), Backlog::default());
            let last = vector(1495);
            assert_eq!(search(&index, &Query::new(&last, 1))[0].id, RowId(1495));
        }
    }

    #[test]
    fn an_update_that_brings_the_same_vector_leaves_faiss_alone() {
        let index = filled("HNSW16,SQ8", 300);
        for id in 0..300 {
            let expires = Expiry::at_seconds(50 + id);
            index.upsert_until(RowId(id), &vector(id), expires).unwrap();
        }
        assert_eq!(index.backlog(), Backlog::default());
        assert_eq!(index.remove_expired(Expiry::at_seconds(149)).unwrap(), 100);
        assert_eq!(index.len(), 200);
    }

    #[test]
    fn training_is_repeated_when_the_rows_have_outgrown_it() {
        for (factory, trained_on) in [("IVF2,SQ8", 800), ("HNSW8,SQ8", 800), ("HNSW8,Flat", 200)] {
            let index = filled(factory, 200);
            let before = index.inner.state.read().native.clone().unwrap();
            assert_eq!(before.trained_on, 200);
            for id in 200..1000 {
                index.upsert(RowId(id), &vector(id)).unwrap();
            }
            let native = index.inner.state.read().native.clone().unwrap();
            assert_eq!(native.trained_on, trained_on, "{factory}");
        }
    }

    #[test]
    fn work_that_is_given_up_leaves_the_index_as_it_was() {
        let index = waiting("HNSW16,SQ8", 600);
        let calls = Cell::new(0);
        let some_time = || {
            calls.set(calls.get() + 1);
            calls.get() < 50
        };
        assert!(!index.inner.work(&some_time, State::left));
        check_tables(&index);
        assert!(index.inner.state.read().native.is_none());
        let query = vector(5);
        assert_eq!(search(&index, &Query::new(&query, 1))[0].id, RowId(5));
        index.settle();
        assert_eq!(index.backlog(), Backlog::default());
    }

    #[test]
    fn a_failure_of_faiss_is_not_repeated_at_every_write_and_costs_no_row() {
        let index = waiting("IVF100,Flat", 90);
        // More cells than rows: FAISS refuses.
        let build = |_: &State, _: &Plan| Some(Work::Build);
        assert!(!index.inner.work(&|| true, build));
        check_tables(&index);
        assert_eq!(index.inner.state.read().failed_at, 90);
        let plan = index.inner.plan;
        let state = |rows: u64| {
            let mut state = index.inner.state.write();
            for id in state.rows.len() as u64..rows {
                state.push(RowId(id), &vector(id), Expiry::NEVER).unwrap();
            }
            (state.due(&plan), state.left(&plan))
        };
        assert_eq!(state(3900), (Some(Work::Build), Some(Work::Build)));
        index.inner.state.write().failed_at = 2000;
        assert_eq!(state(3900), (None, Some(Work::Build)));
        assert_eq!(state(4000), (Some(Work::Build), Some(Work::Build)));
        let query = vector(42);
        assert_eq!(search(&index, &Query::new(&query, 1))[0].id, RowId(42));
    }

    #[test]
    fn rows_out_of_reach_of_a_graph_are_scanned() {
        // A poor graph of many equal rows and few links.
        let mut config = config("HNSW4,Flat");
        (config.ef_construction, config.ef_search) = (8, 1);
        let index = FaissIndex::new(DIMENSION, &config).unwrap();
        {
            let mut state = index.inner.state.write();
            for id in 0..3000 {
                state.push(RowId(id), &vector(id), Expiry::NEVER).unwrap();
            }
        }
        index.settle();
        check_tables(&index);
        let (sealed, tried) = {
            let state = index.inner.state.read();
            (state.sealed, state.tried)
        };
        assert!(sealed > 0 && sealed < tried, "{sealed} of {tried} in reach");
        for id in 0..3000 {
            let query = vector(id);
            assert_eq!(search(&index, &Query::new(&query, 1))[0].id, RowId(id));
        }
    }

    #[test]
    fn the_estimate_of_what_faiss_holds_is_near_what_its_parts_take() {
        let index = filled("HNSW16,Flat", 1000);
        let state = index.inner.state.read();
        let own = index.inner.plan.factory.bytes(1000, DIMENSION);
        drop(state);
        // A row, 32 links below and a few above, and a little to find them.
        let row = 4 * DIMENSION + 4 * 32;
        assert!((1000 * row..1000 * (row + 40)).contains(&own), "{own}");
        assert!(index.bytes() > own + 1000 * (4 * DIMENSION + 12));
    }
}
