//! Lookups beside writes: the life of a cache in fast motion.
//!
//! One thread looks up, another writes; neither gets ahead of the other. Half of the operations are
//! lookups, a quarter are inserts, and for each insert a row leaves: every second one expires, the
//! others are evicted at random. So the number of rows stays, and after some hundred thousand
//! operations none of the first rows is left. Half of the new rows come from topics that the index has
//! never seen.
//!
//! The index is audited as a cache audits it: a thousand queries before the start, a few every ten
//! seconds of its time, none of which is measured.
//!
//! Compared are lookups beside writes with lookups in quiet just before, on the same rows; memory at
//! the end, before anything is settled, with memory at the start; and the answers at the end with a
//! brute-force search over the rows that must be there.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use askonce_index::{Expiry, Query, RowId, VectorIndex};
use cpu_time::ThreadTime;
use serde::Serialize;

use crate::Progress;
use crate::clock::Latency;
use crate::contender::{Made, OURS};
use crate::dataset::synthetic::{Mixture, turned};
use crate::dataset::{dot, nearest};
use crate::error::{MeasureError, Result, of};
use crate::native::allocated;
use crate::random::Random;

/// Inserts in one second of the index's time.
const PER_SECOND: usize = 1_000;
/// Lookups in quiet.
const QUIET: usize = 50_000;
/// Different queries.
const QUERIES: usize = 2_000;
/// Queries that are audited and not measured.
const PRACTICE: usize = 1_000;
/// Seconds of the index's time between two audits, and queries of one.
const AUDITED_EVERY: u64 = 10;
const AUDITED: usize = 16;
/// The threshold of every lookup.
const THRESHOLD: f32 = 0.8;
/// Operations by which one thread may be ahead of the other.
const LEASH: usize = 64;

/// How long, and over how many rows.
#[derive(Clone, Copy, Debug)]
pub struct MixedPlan {
    /// Rows that are held all the time. Default: 100,000.
    pub live: usize,
    /// Lookups, inserts, evictions and expiries, together. Default: 2,000,000.
    pub operations: usize,
    /// Components. Default: 256.
    pub dimension: usize,
    /// Seed of rows, queries and evictions.
    pub seed: u64,
}

impl Default for MixedPlan {
    fn default() -> Self {
        Self {
            live: 100_000,
            operations: 2_000_000,
            dimension: 256,
            seed: 42,
        }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MixedReport {
    /// Rows held.
    pub live: usize,
    /// Components.
    pub dimension: usize,
    /// Lookups beside writes.
    pub lookups: usize,
    /// Rows written.
    pub inserts: usize,
    /// Rows removed one by one.
    pub evictions: usize,
    /// Rows removed because their time was over.
    pub expiries: usize,
    /// Seconds on the wall.
    pub seconds: f64,
    /// Microseconds on the wall of a lookup in quiet.
    pub quiet: Latency,
    /// Microseconds on the wall of a lookup beside writes.
    pub mixed: Latency,
    /// Microseconds of processor time of a lookup in quiet.
    pub quiet_cpu: Latency,
    /// Microseconds of processor time of a lookup beside writes.
    pub mixed_cpu: Latency,
    /// Microseconds on the wall of an insert.
    pub insert: Latency,
    /// Bytes at the start.
    pub bytes_start: usize,
    /// Bytes at the end, before anything is settled.
    pub bytes_end: usize,
    /// Most bytes that the index said it held.
    pub bytes_peak: usize,
    /// Queries with a neighbour at the end.
    pub with_neighbor: usize,
    /// Share of them whose best row was found.
    pub recall: f64,
    /// Rows that the index holds at the end and must not, or the other way round.
    pub wrong_rows: usize,
}

/// Runs the load over the engine that `make` makes for a number of components.
pub(crate) fn run(
    plan: &MixedPlan,
    make: &dyn Fn(usize) -> Made,
    progress: Progress<'_>,
) -> Result<MixedReport> {
    let inserts = plan.operations / 4;
    if plan.live < 100 || inserts < PER_SECOND {
        return Err(MeasureError::Setting {
            field: "operations",
            value: plan.operations.to_string(),
            allowed: "4000 or more, over 100 or more rows",
        });
    }
    progress(&format!(
        "mixed load: {} operations over {} rows of {} components",
        plan.operations, plan.live, plan.dimension
    ));
    let scene = Scene::new(plan)?;
    // Everything that this file needs is allocated before memory is looked at.
    let mut writer = Writer::new(plan, &scene);
    let (mut quiet, mut beside) = (Samples::new(QUIET), Samples::new(plan.operations / 2));
    let base = allocated();
    let index = make(plan.dimension).map_err(of(OURS))?;
    writer.fill(&*index)?;
    index.settle();
    index
        .audit(&scene.practice(0, PRACTICE))
        .map_err(of(OURS))?;
    let bytes_start = bytes(&*index, base);

    for lookup in 0..QUIET / 10 {
        // The first ones warm the caches.
        Samples::new(0).lookup(&*index, &scene, lookup)?;
    }
    for lookup in 0..QUIET {
        quiet.lookup(&*index, &scene, lookup)?;
    }
    let start = Instant::now();
    let lookups = plan.operations / 2;
    let (looked, written) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let stopped = AtomicBool::new(false);
    let result: Result<()> = thread::scope(|scope| {
        let handle = scope.spawn(|| {
            let done = (0..inserts).try_for_each(|insert| {
                // Two lookups for each insert.
                wait(&stopped, || {
                    2 * insert <= looked.load(Ordering::Acquire) + LEASH
                });
                writer.step(&*index)?;
                written.store(insert + 1, Ordering::Release);
                Ok(())
            });
            stopped.store(true, Ordering::Release);
            done
        });
        let read = (0..lookups).try_for_each(|lookup| {
            wait(&stopped, || {
                lookup <= 2 * written.load(Ordering::Acquire) + LEASH
            });
            beside.lookup(&*index, &scene, lookup)?;
            looked.store(lookup + 1, Ordering::Release);
            Ok(())
        });
        if read.is_err() {
            stopped.store(true, Ordering::Release);
        }
        let wrote = handle
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        read.and(wrote)
    });
    result?;
    let seconds = start.elapsed().as_secs_f64();
    let bytes_end = bytes(&*index, base);
    let (with_neighbor, recall) = writer.audit(&*index, &scene)?;
    Ok(MixedReport {
        live: plan.live,
        dimension: plan.dimension,
        lookups,
        inserts,
        evictions: writer.evictions,
        expiries: writer.expiries,
        seconds,
        quiet: Latency::of(quiet.wall),
        mixed: Latency::of(beside.wall),
        quiet_cpu: Latency::of(quiet.cpu),
        mixed_cpu: Latency::of(beside.cpu),
        insert: Latency::of(std::mem::take(&mut writer.taken)),
        bytes_start,
        bytes_end,
        bytes_peak: writer.peak,
        with_neighbor,
        recall,
        wrong_rows: writer.wrong_rows(&*index),
    })
}

/// Bytes given out since `base`, or what the index says if that is more.
fn bytes(index: &dyn VectorIndex, base: Option<usize>) -> usize {
    let given = allocated()
        .zip(base)
        .map(|(now, base)| now.saturating_sub(base));
    given.unwrap_or(0).max(index.bytes())
}

/// Waits for the other thread, unless it has ended.
fn wait(stopped: &AtomicBool, ready: impl Fn() -> bool) {
    let mut spins = 0u32;
    while !ready() && !stopped.load(Ordering::Acquire) {
        spins += 1;
        // Where threads share a core, the other one must get its turn.
        if spins > 200 {
            thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }
}

/// Vectors that rows and queries are taken from.
struct Scene {
    dimension: usize,
    /// Those of the first rows, then as many of later rows.
    rows: Vec<f32>,
    queries: Vec<f32>,
    practice: Vec<f32>,
}

impl Scene {
    fn new(plan: &MixedPlan) -> Result<Self> {
        let clusters = plan.live.div_ceil(100);
        let known = Mixture::new(plan.dimension, clusters, plan.seed)?;
        let unknown = Mixture::new(plan.dimension, clusters, plan.seed ^ 0xd21f7)?;
        let mut rows = known.rows(plan.live, plan.seed);
        rows.extend(known.rows(plan.live - plan.live / 2, plan.seed + 1));
        rows.extend(unknown.rows(plan.live / 2, plan.seed + 2));
        let mut random = Random::new(plan.seed + 3);
        let mut queries = Vec::with_capacity((QUERIES + PRACTICE) * plan.dimension);
        for query in 0..QUERIES + PRACTICE {
            match query % 4 {
                0 | 1 => {
                    let row = random.below(2 * plan.live) * plan.dimension;
                    let cosine = 0.80 + 0.18 * random.unit();
                    let row = rows[row..][..plan.dimension].to_vec();
                    turned(&row, cosine, &mut random, &mut queries);
                }
                2 => known.draw(&mut random, &mut queries),
                _ => unknown.draw(&mut random, &mut queries),
            }
        }
        let practice = queries.split_off(QUERIES * plan.dimension);
        Ok(Self {
            dimension: plan.dimension,
            rows,
            queries,
            practice,
        })
    }

    /// Some of the queries that are not measured, beginning anywhere.
    fn practice(&self, first: usize, queries: usize) -> Vec<Query<'_>> {
        (first..first + queries)
            .map(|query| {
                let start = query % PRACTICE * self.dimension;
                Query::new(&self.practice[start..][..self.dimension], 1).above(THRESHOLD)
            })
            .collect()
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.rows[row * self.dimension..][..self.dimension]
    }

    fn query(&self, query: usize) -> &[f32] {
        &self.queries[query % QUERIES * self.dimension..][..self.dimension]
    }
}

/// How long lookups took.
struct Samples {
    wall: Vec<Duration>,
    cpu: Vec<Duration>,
    found: Vec<askonce_index::Neighbor>,
}

impl Samples {
    fn new(lookups: usize) -> Self {
        Self {
            wall: Vec::with_capacity(lookups),
            cpu: Vec::with_capacity(lookups),
            found: Vec::with_capacity(16),
        }
    }

    fn lookup(&mut self, index: &dyn VectorIndex, scene: &Scene, lookup: usize) -> Result<()> {
        self.found.clear();
        let query = Query::new(scene.query(lookup), 1).above(THRESHOLD);
        let (cpu, wall) = (ThreadTime::now(), Instant::now());
        index.query(&query, &mut self.found).map_err(of(OURS))?;
        self.wall.push(wall.elapsed());
        self.cpu.push(cpu.elapsed());
        Ok(())
    }
}

/// Who writes, and knows what must be there.
struct Writer<'a> {
    scene: &'a Scene,
    live: usize,
    random: Random,
    next: u64,
    /// The vector of each live row.
    vectors: HashMap<u64, usize>,
    /// Live rows that do not expire, in no order.
    staying: Vec<u64>,
    /// Rows by the second in which they expire.
    leaving: VecDeque<Vec<u64>>,
    second: u64,
    lifetime: usize,
    taken: Vec<Duration>,
    evictions: usize,
    expiries: usize,
    peak: usize,
}

impl<'a> Writer<'a> {
    fn new(plan: &MixedPlan, scene: &'a Scene) -> Self {
        let inserts = plan.operations / 4;
        // Half of the rows expire, and half of the inserts replace them.
        let lifetime = (plan.live / PER_SECOND).max(1);
        let mut leaving = VecDeque::with_capacity(lifetime + 2);
        leaving.resize_with(lifetime + 2, || Vec::with_capacity(PER_SECOND));
        Self {
            scene,
            live: plan.live,
            random: Random::new(plan.seed + 4),
            next: 0,
            vectors: HashMap::with_capacity(2 * plan.live),
            staying: Vec::with_capacity(2 * plan.live),
            leaving,
            second: 1,
            lifetime,
            taken: Vec::with_capacity(inserts),
            evictions: 0,
            expiries: 0,
            peak: 0,
        }
    }

    /// The first rows. Those that expire do so one after the other.
    fn fill(&mut self, index: &dyn VectorIndex) -> Result<()> {
        for row in 0..self.live {
            let after = 1 + row * self.lifetime / self.live;
            self.insert(index, row, after)?;
        }
        self.taken.clear();
        Ok(())
    }

    fn insert(&mut self, index: &dyn VectorIndex, vector: usize, after: usize) -> Result<()> {
        let id = self.next;
        self.next += 1;
        let expires = if id.is_multiple_of(2) {
            self.leaving[after].push(id);
            Expiry::at_seconds(self.second + after as u64)
        } else {
            self.staying.push(id);
            Expiry::NEVER
        };
        self.vectors.insert(id, vector);
        let start = Instant::now();
        let row = self.scene.row(vector);
        index
            .upsert_until(key(id), row, expires)
            .map_err(of(OURS))?;
        self.taken.push(start.elapsed());
        Ok(())
    }

    /// One insert, and what leaves for it.
    fn step(&mut self, index: &dyn VectorIndex) -> Result<()> {
        let later = self.next as usize % self.live;
        self.insert(index, self.live + later, self.lifetime)?;
        // The row just inserted stays: one of those that were there before it goes.
        if !self.next.is_multiple_of(2) {
            // Its number was even, so it expires, and its predecessor will.
        } else if self.staying.len() > self.live / 2 {
            let gone = self
                .staying
                .swap_remove(self.random.below(self.staying.len()));
            index.remove(key(gone)).map_err(of(OURS))?;
            self.vectors.remove(&gone);
            self.evictions += 1;
        }
        if self.next.is_multiple_of(PER_SECOND as u64) {
            self.second += 1;
            let now = Expiry::at_seconds(self.second);
            index.remove_expired(now).map_err(of(OURS))?;
            // The seconds are counted from now: the first is over.
            for gone in self.leaving[1].drain(..) {
                self.vectors.remove(&gone);
                self.expiries += 1;
            }
            self.leaving.rotate_left(1);
            self.peak = self.peak.max(index.bytes());
            if self.second.is_multiple_of(AUDITED_EVERY) {
                let queries = self.scene.practice(self.random.below(PRACTICE), AUDITED);
                index.audit(&queries).map_err(of(OURS))?;
            }
        }
        Ok(())
    }

    /// Queries with a true neighbour, and the share of those whose best row is found.
    fn audit(&self, index: &dyn VectorIndex, scene: &Scene) -> Result<(usize, f64)> {
        let mut rows = Vec::with_capacity(self.vectors.len() * scene.dimension);
        for &vector in self.vectors.values() {
            rows.extend_from_slice(scene.row(vector));
        }
        let truth = nearest(scene.dimension, &rows, &scene.queries, &|_| true);
        let (mut counted, mut hit) = (0usize, 0usize);
        let mut found = Vec::new();
        for (query, truth) in truth.iter().enumerate() {
            let Some(best) = truth.first().filter(|best| best.cosine >= THRESHOLD) else {
                continue;
            };
            counted += 1;
            found.clear();
            let asked = Query::new(scene.query(query), 1).above(THRESHOLD);
            index.query(&asked, &mut found).map_err(of(OURS))?;
            // A row that is not live is no answer.
            let vector = found
                .first()
                .and_then(|near| self.vectors.get(&number(near.id)));
            let cosine = vector.map(|&vector| dot(scene.query(query), scene.row(vector)));
            hit += usize::from(cosine.is_some_and(|cosine| cosine >= best.cosine - 2e-6));
        }
        Ok((
            counted,
            if counted == 0 {
                1.0
            } else {
                hit as f64 / counted as f64
            },
        ))
    }

    fn wrong_rows(&self, index: &dyn VectorIndex) -> usize {
        let (mut held, mut wrong) = (0usize, 0usize);
        index.for_each(&mut |row| {
            held += 1;
            wrong += usize::from(!self.vectors.contains_key(&number(row.id)));
        });
        wrong + self.vectors.len().saturating_sub(held - wrong)
    }
}

/// Ids are spread over the 64 bits, as an index may expect: by an odd factor, which can be undone.
fn key(number: u64) -> RowId {
    RowId(number.wrapping_mul(SPREAD))
}

fn number(id: RowId) -> u64 {
    id.0.wrapping_mul(UNSPREAD)
}

const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
const UNSPREAD: u64 = inverse(SPREAD);

/// The number that undoes a multiplication by an odd one (Newton's iteration doubles the right bits).
const fn inverse(odd: u64) -> u64 {
    let mut inverse = odd;
    let mut round = 0;
    while round < 6 {
        inverse = inverse.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(inverse)));
        round += 1;
    }
    inverse
}

#[cfg(test)]
mod tests {
    use askonce_index::FlatIndex;

    use super::*;

    #[test]
    fn ids_are_spread_and_found_again() {
        for n in [0, 1, 2, 12_345, u64::MAX] {
            assert_eq!(number(key(n)), n);
        }
    }

    #[test]
    fn the_number_of_rows_stays_and_no_wrong_row_is_held() {
        let plan = MixedPlan {
            live: 3_000,
            operations: 40_000,
            dimension: 32,
            seed: 1,
        };
        // An exact engine, so that a miss would be one of this file.
        let flat = |dimension| Ok(Box::new(FlatIndex::new(dimension)?) as Box<dyn VectorIndex>);
        let report = run(&plan, &flat, &|_| {}).unwrap();
        assert_eq!(report.wrong_rows, 0);
        assert_eq!(report.lookups, 20_000);
        assert_eq!(report.inserts, 10_000);
        let left = report.evictions + report.expiries;
        assert!(left.abs_diff(10_000) <= PER_SECOND, "{left} rows left");
        assert!(report.with_neighbor > 100);
        assert!(
            (report.recall - 1.0).abs() < f64::EPSILON,
            "{}",
            report.recall
        );
    }
}
