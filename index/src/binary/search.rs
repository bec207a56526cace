//! How a query is answered.
//!
//! 1. The cells that hold a row like the query, bit for bit; then those with similar centers, most
//!    similar first, until the next is too dissimilar for what is looked for.
//! 2. In each, the rows whose codes are within a radius. The radius follows the bar: the threshold
//!    asked for, or the score of the `k`-th best so far if that is higher. See [`super::tuning`].
//! 3. Of these, the score by the first plane and the first 8 bits of the query; and for those at the
//!    bar or near it, by all bits there are. That is done after the codes of the next cell were looked
//!    through, for it takes that long until the rows are there; and of many, the nearest is scored first,
//!    which mostly rules out the others.
//!
//! What is listed is always scored by all bits and was live when it was looked at. A search takes
//! no lock, unless rows were moved under it several times in a row.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::sync::Arc;

use super::cell::Cell;
use super::config::Precision;
use super::directory::{Directory, most_similar};
use super::encode::{Encoded, Encoder};
use super::sync::Guard;
use super::tuning::{Table, Tuning, from_center, gap};
use crate::Query;
use crate::kernel::{CodeLine, Near, prefetch, prefetch_value};
use crate::neighbor::TopK;

/// Farthest that a score by the first 8 bits of row and query is from the one by all bits: over six
/// standard deviations.
const COARSE: f32 = 0.008;

/// Score from which on a row is the query's own vector, or as good as that.
const SAME: f32 = 0.999_9;

/// Distance from a center below which all directions are alike.
const AT_CENTER: f32 = 1e-3;

/// Lines of codes that are brought near before a cell is scanned; the CPU follows the others by itself.
const CODE_LINES: usize = 8;

/// Near codes of one cell from which on the nearest is tried first.
const MANY: usize = 16;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Room for one search at a time on this thread, so that a lookup does not allocate.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) query: Encoded,
    pub(super) similarities: Vec<f32>,
    /// Cells that hold a row of the query's hash.
    pub(super) twins: Vec<u32>,
    certain: Vec<Candidate>,
    order: Vec<Candidate>,
    room: Room,
}

/// What is made anew for each cell.
#[derive(Default)]
struct Room {
    products: Vec<i32>,
    code: Vec<u64>,
    near: Vec<Near>,
    /// What was near in the cell before.
    last: Vec<Near>,
    tail: Vec<CodeLine>,
    at: Vec<u32>,
}

/// A cell to look into.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    /// Of its center to the query.
    similarity: f32,
    cell: u32,
}

impl Candidate {
    /// Most similar first.
    fn rank(&self, other: &Self) -> Ordering {
        let by_similarity = other.similarity.total_cmp(&self.similarity);
        by_similarity.then(self.cell.cmp(&other.cell))
    }
}

/// One of several searches that are made together.
pub(super) struct Member<'m, 'out> {
    pub(super) query: &'m Query<'m>,
    pub(super) encoded: &'m Encoded,
    /// Cells that hold a row of the query's hash.
    pub(super) twins: &'m [u32],
    pub(super) top: TopK<'out>,
}

/// Runs `body` with the scratch room of this thread, or with a fresh one inside another search.
pub(super) fn with_scratch<T>(body: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
        Ok(mut scratch) => body(&mut scratch),
        // A filter that searches another index.
        Err(_) => body(&mut Scratch::default()),
    })
}

/// What a search needs beside the query.
pub(super) struct Searcher<'s> {
    pub(super) encoder: &'s Encoder,
    pub(super) directory: &'s Directory,
    pub(super) tuning: &'s Tuning,
    pub(super) probes: Option<usize>,
}

impl Searcher<'_> {
    /// Offers `top` the rows near the query, which is encoded in the scratch room; tells whether
    /// it came across a dead row that would have been listed.
    pub(super) fn run(&self, query: &Query<'_>, scratch: &mut Scratch, top: &mut TopK<'_>) -> bool {
        let Scratch {
            query: encoded,
            similarities,
            twins,
            certain,
            order,
            room,
        } = scratch;
        self.similarities(encoded, room, similarities);
        let table = self.tuning.table();
        let mut probe = Probe::new(self, query, encoded, &table);
        let home = most_similar(similarities);
        let best = similarities[home];
        self.bring(home as u32);
        self.certain(home, twins, similarities, certain);
        for candidate in &*certain {
            probe.cell(*candidate, room, top);
        }
        let reach = self.reach();
        let least = self.least(best, reach, probe.bar);
        self.choose(least, similarities, certain, order);
        // What is to be read is asked for one cell ahead: it takes that long to come.
        let mut next = order.first().map(|first| self.bring(first.cell));
        let mut last = None;
        for (at, candidate) in order.iter().enumerate() {
            // The bar may have risen since the cells were chosen.
            let Some(cell) =
                next.take_if(|_| candidate.similarity >= self.least(best, reach, probe.bar))
            else {
                break;
            };
            next = order.get(at + 1).map(|next| self.bring(next.cell));
            let scanned = probe.scan(*candidate, cell, room);
            if let Some(next) = &next {
                prefetch(next.rows().blocks(), CODE_LINES, 0);
            }
            let Some(scanned) = scanned else {
                continue;
            };
            probe.fetch(&scanned, room);
            let last = last.replace(scanned);
            std::mem::swap(&mut room.near, &mut room.last);
            if let Some(last) = last {
                probe.look(&last, room, top);
            }
        }
        if let Some(last) = last {
            std::mem::swap(&mut room.near, &mut room.last);
            probe.look(&last, room, top);
        }
        if !twins.is_empty() && probe.best < SAME {
            self.look_for_own(&mut probe, certain, room, top);
        }
        probe.met_dead
    }

    /// Scores every row of the cells that hold a row with the query's hash. Codes and coarse scores say
    /// little of vectors with a few large components after the rotation; hardly any has those, but
    /// a stored one must be found by itself all the same.
    fn look_for_own(
        &self,
        probe: &mut Probe<'_>,
        cells: &[Candidate],
        room: &mut Room,
        top: &mut TopK<'_>,
    ) {
        probe.again = true;
        for candidate in cells {
            let cell = self.directory.cells[candidate.cell as usize].load();
            room.at.clear();
            room.at.extend(0..cell.rows().len() as u32);
            probe.score(&cell, room, top);
        }
    }

    /// Answers several queries that have a threshold, cell by cell, so that what is read of a cell is
    /// read for all that look into it.
    pub(super) fn run_many(&self, members: &mut [Member<'_, '_>], scratch: &mut Scratch) {
        let table = self.tuning.table();
        let reach = self.reach();
        let mut visits: Vec<(u32, u32, f32)> = Vec::new();
        for (at, member) in (0..).zip(&*members) {
            let Scratch {
                similarities,
                certain,
                order,
                room,
                ..
            } = scratch;
            self.similarities(member.encoded, room, similarities);
            let home = most_similar(similarities);
            self.certain(home, member.twins, similarities, certain);
            let least = self.least(similarities[home], reach, member.query.min_score);
            self.choose(least, similarities, certain, order);
            let chosen = certain.iter().chain(&*order);
            visits.extend(chosen.map(|candidate| (candidate.cell, at, candidate.similarity)));
        }
        visits.sort_unstable_by_key(|&(cell, at, _)| (cell, at));
        let mut bars: Vec<f32> = members
            .iter()
            .map(|member| member.query.min_score)
            .collect();
        for (cell, at, similarity) in visits {
            let member = &mut members[at as usize];
            let mut probe = Probe::new(self, member.query, member.encoded, &table);
            probe.bar = bars[at as usize];
            let candidate = Candidate { similarity, cell };
            probe.cell(candidate, &mut scratch.room, &mut member.top);
            bars[at as usize] = probe.bar;
        }
    }

    /// Offers `top` every row; tells whether it came across a dead row that would have been listed.
    pub(super) fn run_exact(
        &self,
        query: &Query<'_>,
        scratch: &mut Scratch,
        top: &mut TopK<'_>,
    ) -> bool {
        let table = self.tuning.table();
        let mut probe = Probe::new(self, query, &scratch.query, &table);
        for cell in &self.directory.cells {
            let cell = cell.load();
            let count = cell.rows().len() as u32;
            scratch.room.at.clear();
            scratch.room.at.extend(0..count);
            probe.score(&cell, &mut scratch.room, top);
        }
        probe.met_dead
    }

    /// Loads a cell, and has it brought near.
    fn bring(&self, cell: u32) -> Guard<Arc<Cell>> {
        let cell = self.directory.cells[cell as usize].load();
        prefetch_value::<Cell>(&cell);
        cell
    }

    fn similarities(&self, encoded: &Encoded, room: &mut Room, out: &mut Vec<f32>) {
        let step = 256.0 * encoded.step as f32;
        self.directory
            .similarities(self.encoder, &encoded.high, step, &mut room.products, out);
    }

    /// Lists the cells that are looked into in any case.
    fn certain(
        &self,
        home: usize,
        twins: &[u32],
        similarities: &[f32],
        order: &mut Vec<Candidate>,
    ) {
        order.clear();
        let twins = twins.iter().map(|&cell| cell as usize);
        // A number may be of another directory than this one; then the search is repeated.
        let others = twins.filter(|&cell| cell < similarities.len() && cell != home);
        order.extend(others.chain([home]).map(|cell| Candidate {
            similarity: similarities[cell],
            cell: cell as u32,
        }));
    }

    /// Lists the other cells to look into, of those that are similar enough; most similar first.
    fn choose(
        &self,
        least: f32,
        similarities: &[f32],
        seen: &[Candidate],
        order: &mut Vec<Candidate>,
    ) {
        const TOGETHER: usize = 16;
        order.clear();
        for (first, together) in (0..).step_by(TOGETHER).zip(similarities.chunks(TOGETHER)) {
            // Mostly none, which one question tells.
            if !together.iter().fold(false, |any, &s| any | (s >= least)) {
                continue;
            }
            let candidates = (first..)
                .zip(together)
                .map(|(cell, &similarity)| Candidate { similarity, cell });
            order.extend(candidates.filter(|candidate| {
                candidate.similarity >= least
                    && !seen.iter().any(|seen| seen.cell == candidate.cell)
            }));
        }
        let most = match self.probes {
            Some(probes) => probes.saturating_sub(1),
            None => self.tuning.most(similarities.len()),
        };
        if order.len() > most {
            order.select_nth_unstable_by(most, Candidate::rank);
            order.truncate(most);
        }
        order.sort_unstable_by(Candidate::rank);
    }

    /// See [`Tuning::reach`]; `None` if the number of cells is fixed.
    fn reach(&self) -> Option<f32> {
        let learned = self.probes.is_none();
        learned.then(|| self.tuning.reach(self.directory.cells.len()))
    }

    /// The similarity below which no row at the bar is to be expected in a cell, with that of the best cell.
    fn least(&self, best: f32, reach: Option<f32>, bar: f32) -> f32 {
        reach.map_or(f32::NEG_INFINITY, |reach| best - gap(reach, bar))
    }
}

/// A cell whose near codes were found, and that holds some.
struct Scanned {
    cell: Guard<Arc<Cell>>,
    /// From the center to the query.
    distance: f32,
    /// Square of it.
    squared: f32,
}

/// A search under way.
struct Probe<'p> {
    searcher: &'p Searcher<'p>,
    query: &'p Query<'p>,
    encoded: &'p Encoded,
    table: &'p Table,
    /// A row below it need not be looked at.
    bar: f32,
    /// Whether rows are scored that may have been offered before, whatever their coarse scores.
    again: bool,
    /// Score of the best row offered.
    best: f32,
    /// Whether a row that would have been listed was dead.
    met_dead: bool,
}

impl<'p> Probe<'p> {
    fn new(
        searcher: &'p Searcher<'p>,
        query: &'p Query<'p>,
        encoded: &'p Encoded,
        table: &'p Table,
    ) -> Self {
        Self {
            searcher,
            query,
            encoded,
            table,
            bar: query.min_score,
            again: false,
            best: f32::MIN,
            met_dead: false,
        }
    }

    fn cell(&mut self, candidate: Candidate, room: &mut Room, top: &mut TopK<'_>) {
        let cell = self.searcher.directory.cells[candidate.cell as usize].load();
        if let Some(scanned) = self.scan(candidate, cell, room) {
            self.look(&scanned, room, top);
        }
    }

    /// Lists the codes of a cell that are near, if any.
    fn scan(
        &self,
        candidate: Candidate,
        cell: Guard<Arc<Cell>>,
        room: &mut Room,
    ) -> Option<Scanned> {
        let (number, similarity) = (candidate.cell as usize, candidate.similarity);
        let Searcher {
            encoder, directory, ..
        } = self.searcher;
        let rows = cell.rows();
        if rows.len() == 0 {
            return None;
        }
        let about = directory.about[number];
        let squared = about.squared_distance(similarity);
        let distance = squared.sqrt();
        let beyond = self.beyond(squared);
        let radius = if distance < AT_CENTER {
            encoder.bits() as u32
        } else {
            let cosine = from_center(distance, beyond, rows.spreads());
            self.table.radius(cosine)
        };

        room.code.clear();
        room.code.resize(encoder.lines(), 0);
        encoder.kernel.residual_code(
            &self.encoded.rotated,
            directory.center(number),
            about.scale,
            &mut room.code,
        );
        room.near.clear();
        let (code, near) = (&room.code, &mut room.near);
        encoder
            .kernel
            .near_codes(code, rows.blocks(), radius, 0, near);
        let lanes = rows.tail(&mut room.tail);
        if lanes > 0 {
            let len = rows.len() as u32;
            let start = len - lanes as u32;
            encoder
                .kernel
                .near_codes(code, &room.tail, radius, start, near);
            // The last block has lanes without a row.
            while near.last().is_some_and(|near| near.position >= len) {
                near.pop();
            }
        }

        (!room.near.is_empty()).then_some(Scanned {
            cell,
            distance,
            squared,
        })
    }

    /// Squared distance of the center from the query, less that of a row at the bar; with room for what
    /// rounding does to scores.
    fn beyond(&self, squared: f32) -> f32 {
        squared - (2.0 - 2.0 * (self.bar - COARSE))
    }

    /// Scores the row with the nearest of many codes: if that raises the bar, most of the others need
    /// not be looked at.
    fn try_nearest(&mut self, scanned: &Scanned, room: &mut Room, top: &mut TopK<'_>) {
        let Some(nearest) = room.near.iter().min_by_key(|near| near.distance) else {
            return;
        };
        let (position, bar) = (nearest.position, self.bar);
        room.at.clear();
        room.at.push(position);
        self.score(&scanned.cell, room, top);
        let mut radius = u32::MAX;
        if self.bar > bar && scanned.distance >= AT_CENTER {
            let beyond = self.beyond(scanned.squared);
            let spreads = scanned.cell.rows().spreads();
            radius = self
                .table
                .radius(from_center(scanned.distance, beyond, spreads));
        }
        room.near
            .retain(|near| near.distance <= radius && near.position != position);
    }

    /// Has what is near brought nearer.
    fn fetch(&self, scanned: &Scanned, room: &Room) {
        let rows = scanned.cell.rows();
        let metas = rows.metas();
        for near in &room.near {
            prefetch(metas, 1, near.position);
            prefetch(rows.high(), self.searcher.encoder.lines(), near.position);
        }
    }

    /// Scores what is near.
    fn look(&mut self, scanned: &Scanned, room: &mut Room, top: &mut TopK<'_>) {
        let &Scanned {
            ref cell,
            distance,
            squared,
        } = scanned;
        let rows = cell.rows();
        let metas = rows.metas();
        if room.near.len() >= MANY {
            self.try_nearest(scanned, room, top);
        }
        let beyond = self.beyond(squared);
        // Without a branch, as none could be foretold, and so that the rows are fetched side by side.
        let mut kept = 0;
        room.at.resize(room.near.len(), 0);
        for near in &room.near {
            let spread = metas[near.position as usize].spread;
            let cosine = beyond + spread * spread;
            room.at[kept] = near.position;
            kept += usize::from(
                self.table
                    .keeps(near.distance, cosine, 2.0 * distance * spread),
            );
        }
        room.at.truncate(kept);
        if !room.at.is_empty() {
            self.score(cell, room, top);
        }
    }

    /// Scores the rows at the places in `room.at`.
    fn score(&mut self, cell: &super::cell::Cell, room: &mut Room, top: &mut TopK<'_>) {
        let encoder = self.searcher.encoder;
        let rows = cell.rows();
        let metas = rows.metas();
        room.products.clear();
        room.products.resize(room.at.len(), 0);
        encoder.kernel.dot_lines_at(
            &self.encoded.high,
            rows.high(),
            &room.at,
            &mut room.products,
        );
        // The second plane of the rows scales their products by 256.
        let step = match encoder.precision() {
            Precision::Int8 => 256.0,
            Precision::Int16 => 65_536.0,
        } * self.encoded.step as f32;
        // Where the rows have a second plane too, both sides leave one out; of a query that lies along
        // the row they leave out the same.
        let coarse = match encoder.precision() {
            Precision::Int8 => COARSE,
            Precision::Int16 => 2.0 * COARSE,
        };
        for (&position, &product) in room.at.iter().zip(&room.products) {
            let position = position as usize;
            let meta = &metas[position];
            if !self.again && product as f32 * step * meta.factor + coarse < self.bar {
                continue;
            }
            let product =
                encoder.product(self.encoded, rows.high_of(position), rows.low_of(position));
            let score = encoder.score(self.encoded, product, meta.factor);
            let id = meta.id();
            if !top.wants(id, score) || !self.query.admits(id, score, meta.expires) {
                continue;
            }
            if !rows.is_live(position) {
                self.met_dead = true;
            } else if !self.again || !top.contains(id) {
                top.offer(id, score);
                self.best = self.best.max(score);
                if let Some(bar) = top.bar() {
                    self.bar = self.bar.max(bar);
                }
            }
        }
    }
}
