//! How a query is answered.
//!
//! 1. The cells that hold a row like the query, bit for bit; then those with similar centers, most
//!    similar first, until the next is too dissimilar for what is looked for.
//! 2. In each, the rows whose codes are within a radius. The radius follows the bar: the threshold
//!    asked for, or the score of the `k`-th best so far if that is higher. See [`super::tuning`].
//! 3. Of these, the score by the first plane and the first 8 bits of the query; and for those at the
//!    bar or near it, by all bits there are.
//!
//! What is listed is always scored by all bits and was live when it was looked at. A search takes
//! no lock, unless rows were moved under it several times in a row.

use std::cell::RefCell;

use super::config::Precision;
use super::directory::{Directory, most_similar};
use super::encode::{Encoded, Encoder};
use super::tuning::{Table, Tuning};
use crate::Query;
use crate::kernel::{CodeLine, Near};
use crate::neighbor::TopK;

/// Farthest that a score by the first 8 bits of row and query is from the one by all bits: over six
/// standard deviations.
const COARSE: f32 = 0.008;

/// Most cells that a search looks at by itself, as a share of all and as a number. Above it the
/// centers tell nothing, and an exact scan would be the better choice.
const MOST_PROBES: usize = 4;
const FEW_CELLS: usize = 64;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Room for one search at a time on this thread, so that a lookup does not allocate.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) query: Encoded,
    products: Vec<i32>,
    pub(super) similarities: Vec<f32>,
    /// Cells that hold a row of the query's hash.
    pub(super) twins: Vec<u32>,
    order: Vec<(f32, u32)>,
    pub(super) code: Vec<u64>,
    near: Vec<Near>,
    tail: Vec<CodeLine>,
    at: Vec<u32>,
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
        let directory = self.directory;
        let table = self.tuning.table();
        let mut similarities = std::mem::take(&mut scratch.similarities);
        let mut order = std::mem::take(&mut scratch.order);
        let twins = std::mem::take(&mut scratch.twins);
        directory.similarities(
            self.encoder,
            &scratch.query.high,
            256.0 * scratch.query.step as f32,
            &mut scratch.products,
            &mut similarities,
        );
        let home = most_similar(&similarities);
        let best = similarities[home];
        let mut probe = Probe::new(self, query, &table);
        let seen = |cell: usize| cell == home || twins.contains(&(cell as u32));
        // A number may be of another directory than this one; then the search is repeated.
        let twin_cells = twins.iter().map(|&cell| cell as usize);
        for cell in twin_cells.filter(|&cell| cell < similarities.len() && cell != home) {
            probe.cell(cell, similarities[cell], scratch, top);
        }
        probe.cell(home, best, scratch, top);

        order.clear();
        let least = match self.probes {
            Some(_) => f32::MIN,
            None => best - self.tuning.gap(probe.bar),
        };
        let cells = similarities.iter().enumerate();
        order.extend(
            cells
                .filter(|&(cell, &similarity)| similarity >= least && !seen(cell))
                .map(|(cell, &similarity)| (similarity, cell as u32)),
        );
        let most = match self.probes {
            Some(probes) => probes.saturating_sub(1),
            None => (directory.cells.len() / MOST_PROBES).max(FEW_CELLS),
        };
        let descending = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        if order.len() > most {
            order.select_nth_unstable_by(most, descending);
            order.truncate(most);
        }
        order.sort_unstable_by(descending);
        for &(similarity, cell) in &order {
            // The bar may have risen since the cells were chosen.
            if self.probes.is_none() && similarity < best - self.tuning.gap(probe.bar) {
                break;
            }
            probe.cell(cell as usize, similarity, scratch, top);
        }
        scratch.similarities = similarities;
        scratch.order = order;
        scratch.twins = twins;
        probe.met_dead
    }

    /// Offers `top` every row; tells whether it came across a dead row that would have been listed.
    pub(super) fn run_exact(
        &self,
        query: &Query<'_>,
        scratch: &mut Scratch,
        top: &mut TopK<'_>,
    ) -> bool {
        let table = self.tuning.table();
        let mut probe = Probe::new(self, query, &table);
        for cell in &self.directory.cells {
            let cell = cell.load();
            let count = cell.rows().len() as u32;
            scratch.at.clear();
            scratch.at.extend(0..count);
            probe.score(&cell, scratch, top);
        }
        probe.met_dead
    }
}

/// A search under way.
struct Probe<'p> {
    searcher: &'p Searcher<'p>,
    query: &'p Query<'p>,
    table: &'p Table,
    /// A row below it need not be looked at.
    bar: f32,
    /// Whether a row that would have been listed was dead.
    met_dead: bool,
}

impl<'p> Probe<'p> {
    fn new(searcher: &'p Searcher<'p>, query: &'p Query<'p>, table: &'p Table) -> Self {
        Self {
            searcher,
            query,
            table,
            bar: query.min_score,
            met_dead: false,
        }
    }

    fn cell(&mut self, number: usize, similarity: f32, scratch: &mut Scratch, top: &mut TopK<'_>) {
        let Searcher {
            encoder, directory, ..
        } = self.searcher;
        let cell = directory.cells[number].load();
        let rows = cell.rows();
        if rows.len() == 0 {
            return;
        }
        let about = directory.about[number];
        let squared = about.squared_distance(similarity);
        let distance = squared.sqrt();
        // Of a row at the bar, with room for what rounding does to scores.
        let beyond = squared - (2.0 - 2.0 * (self.bar - COARSE));
        let (least, largest) = rows.spreads();
        let radius = if distance < 1e-3 {
            encoder.bits() as u32
        } else {
            let spread = beyond.max(0.0).sqrt().clamp(least, largest).max(1e-6);
            let cosine = (beyond + spread * spread) / (2.0 * distance * spread);
            self.table.radius(cosine.clamp(-1.0, 1.0))
        };

        scratch.code.clear();
        scratch.code.resize(encoder.lines(), 0);
        encoder.kernel.residual_code(
            &scratch.query.rotated,
            directory.center(number),
            about.scale,
            &mut scratch.code,
        );
        scratch.near.clear();
        let blocks = rows.blocks();
        encoder
            .kernel
            .near_codes(&scratch.code, blocks, radius, &mut scratch.near);
        let whole = scratch.near.len();
        let lanes = rows.tail(&mut scratch.tail) as u32;
        if lanes > 0 {
            encoder
                .kernel
                .near_codes(&scratch.code, &scratch.tail, radius, &mut scratch.near);
            let first = rows.len() as u32 - lanes;
            let mut kept = whole;
            for at in whole..scratch.near.len() {
                let near = scratch.near[at];
                if near.position < lanes {
                    scratch.near[kept] = Near {
                        position: first + near.position,
                        ..near
                    };
                    kept += 1;
                }
            }
            scratch.near.truncate(kept);
        }

        let metas = rows.metas();
        scratch.at.clear();
        for near in &scratch.near {
            let spread = metas[near.position as usize].spread;
            let cosine = beyond + spread * spread;
            if self
                .table
                .keeps(near.distance, cosine, 2.0 * distance * spread)
            {
                scratch.at.push(near.position);
            }
        }
        if !scratch.at.is_empty() {
            self.score(&cell, scratch, top);
        }
    }

    /// Scores the rows at the places in `scratch.at`.
    fn score(&mut self, cell: &super::cell::Cell, scratch: &mut Scratch, top: &mut TopK<'_>) {
        let encoder = self.searcher.encoder;
        let rows = cell.rows();
        let metas = rows.metas();
        scratch.products.clear();
        scratch.products.resize(scratch.at.len(), 0);
        encoder.kernel.dot_lines_at(
            &scratch.query.high,
            rows.high(),
            &scratch.at,
            &mut scratch.products,
        );
        // The second plane of the rows scales their products by 256.
        let step = match encoder.precision() {
            Precision::Int8 => 256.0,
            Precision::Int16 => 65_536.0,
        } * scratch.query.step as f32;
        for (&position, &product) in scratch.at.iter().zip(&scratch.products) {
            let position = position as usize;
            let meta = &metas[position];
            if product as f32 * step * meta.factor + COARSE < self.bar {
                continue;
            }
            let product = encoder.product(
                &scratch.query,
                rows.high_of(position),
                rows.low_of(position),
            );
            let score = encoder.score(&scratch.query, product, meta.factor);
            let id = meta.id();
            if !top.wants(id, score) || !self.query.admits(id, score, meta.expires) {
                continue;
            }
            if !rows.is_live(position) {
                self.met_dead = true;
            } else {
                top.offer(id, score);
                if let Some(bar) = top.bar() {
                    self.bar = self.bar.max(bar);
                }
            }
        }
    }
}
