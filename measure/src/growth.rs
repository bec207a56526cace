//! What a lookup of our default engine costs as its rows grow, and how long it takes to be back after
//! a restart. At each size the index is audited first, as a cache audits it, with queries that are not
//! measured.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read};
use std::path::Path;
use std::time::Instant;

use askonce_index::{Query, VectorIndex, restore};
use serde::Serialize;

use crate::Progress;
use crate::clock::{Latency, median, thread_cpu};
use crate::contender::{Made, OURS};
use crate::dataset::synthetic::{Mixture, turned};
use crate::dataset::{Near, TRUTH, dot, nearest};
use crate::error::{MeasureError, Result, of};
use crate::plan::Plan;
use crate::random::Random;

/// Queries at each size.
const QUERIES: usize = 400;
/// Queries that are audited at each size.
const PRACTICE: usize = 200;
/// Times that all queries are asked.
const ROUNDS: usize = 5;
/// Rows at which the index is written and read back.
const RESTORED: usize = 100_000;
/// Times that it is read back.
const RESTORES: usize = 3;

/// Cost by size.
#[derive(Debug, Serialize)]
pub struct GrowthReport {
    /// Components.
    pub dimension: usize,
    /// One for each size.
    pub steps: Vec<Step>,
    /// Written and read back, if the index passed that size.
    pub restore: Option<RestoreReport>,
}

/// One size.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Step {
    /// Rows.
    pub rows: usize,
    /// Microseconds of processor time of a lookup, threshold 0.8.
    pub cpu_us: f64,
    /// Microseconds on the wall.
    pub wall: Latency,
    /// Share of the queries with a neighbour at 0.8 whose best row was found.
    pub recall: f64,
    /// Queries with such a neighbour.
    pub with_neighbor: usize,
    /// Microseconds on the wall to insert a row, since the size before.
    pub insert_us: f64,
    /// Bytes for each row, by the index's own account.
    pub bytes: f64,
}

/// What it takes to be back.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct RestoreReport {
    /// Rows.
    pub rows: usize,
    /// Bytes of the snapshot.
    pub bytes: usize,
    /// Milliseconds to write it to a file.
    pub write_ms: f64,
    /// Milliseconds until an index read from that file answers its first lookup, the best of three.
    pub file_ms: f64,
    /// The same from memory.
    pub memory_ms: f64,
    /// Share of the answers that are the same as before.
    pub same_answers: f64,
}

/// Grows the engine that `make` makes for a number of components through the sizes of the plan.
pub(crate) fn run(
    plan: &Plan,
    make: &dyn Fn(usize) -> Made,
    progress: Progress<'_>,
) -> Result<GrowthReport> {
    let sizes = plan.growth.as_slice();
    let dimension = plan.growth_dimension;
    let most = sizes.iter().copied().max().unwrap_or(0);
    progress(&format!("growth: drawing {most} rows"));
    let mixture = Mixture::new(dimension, most.div_ceil(100), plan.seed)?;
    let rows = mixture.rows(most, plan.seed);
    let mut queries = queries(&mixture, &rows, sizes, plan);
    let practice = queries.split_off(QUERIES * dimension);
    let index = make(dimension).map_err(of(OURS))?;
    let mut truth: Vec<Vec<Near>> = vec![Vec::new(); QUERIES];
    let mut report = GrowthReport {
        dimension,
        steps: Vec::new(),
        restore: None,
    };
    let mut filled = 0;
    for &size in sizes {
        progress(&format!("growth: {size} rows"));
        let added = size.saturating_sub(filled);
        let start = Instant::now();
        for row in filled..size {
            let vector = &rows[row * dimension..][..dimension];
            index
                .upsert(askonce_index::RowId(row as u64), vector)
                .map_err(of(OURS))?;
        }
        index.settle();
        let insert_us = start.elapsed().as_secs_f64() * 1e6 / added.max(1) as f64;
        let audited: Vec<Query<'_>> = practice
            .chunks(dimension)
            .map(|query| Query::new(query, 1).above(0.8))
            .collect();
        index.audit(&audited).map_err(of(OURS))?;
        let new = &rows[filled * dimension..size.max(filled) * dimension];
        merge(
            &mut truth,
            nearest(dimension, new, &queries, &|_| true),
            filled,
        );
        filled = filled.max(size);
        report
            .steps
            .push(step(&*index, &rows, &queries, &truth, insert_us)?);
        if size == RESTORED {
            progress("growth: snapshot and restore");
            report.restore = Some(restored(&*index, &queries)?);
        }
    }
    Ok(report)
}

/// Half are near a row of the smallest size, so that they have a neighbour at every size.
fn queries(mixture: &Mixture, rows: &[f32], sizes: &[usize], plan: &Plan) -> Vec<f32> {
    let dimension = plan.growth_dimension;
    let least = sizes.iter().copied().min().unwrap_or(1).max(1);
    let mut random = Random::new(plan.seed + 7);
    let mut queries = Vec::with_capacity(QUERIES * dimension);
    for query in 0..QUERIES + PRACTICE {
        if query % 2 == 0 {
            let row = &rows[random.below(least) * dimension..][..dimension];
            let cosine = 0.80 + 0.18 * random.unit();
            turned(row, cosine, &mut random, &mut queries);
        } else {
            mixture.draw(&mut random, &mut queries);
        }
    }
    queries
}

/// Adds the best of further rows, whose numbers begin at `first`.
fn merge(truth: &mut [Vec<Near>], more: Vec<Vec<Near>>, first: usize) {
    let first = u32::try_from(first).unwrap_or(u32::MAX);
    for (truth, more) in truth.iter_mut().zip(more) {
        truth.extend(more.into_iter().map(|near| Near {
            row: near.row + first,
            ..near
        }));
        truth.sort_by(|a, b| b.cosine.total_cmp(&a.cosine));
        truth.truncate(TRUTH);
    }
}

fn step(
    index: &dyn VectorIndex,
    rows: &[f32],
    queries: &[f32],
    truth: &[Vec<Near>],
    insert_us: f64,
) -> Result<Step> {
    let dimension = index.dimension();
    let (mut counted, mut hit) = (0usize, 0usize);
    for (query, truth) in queries.chunks(dimension).zip(truth) {
        let best = truth.first().filter(|best| best.cosine >= 0.8);
        let answer = ask(index, query)?;
        let Some(best) = best else {
            continue;
        };
        counted += 1;
        let cosine = answer.map(|row| dot(query, &rows[row as usize * dimension..][..dimension]));
        hit += usize::from(cosine.is_some_and(|cosine| cosine >= best.cosine - 2e-6));
    }
    let mut times = Vec::with_capacity(ROUNDS);
    let mut taken = Vec::with_capacity(ROUNDS * QUERIES);
    for _ in 0..ROUNDS {
        let (done, cpu): (Result<()>, _) = thread_cpu(|| {
            queries.chunks(dimension).try_for_each(|query| {
                let start = Instant::now();
                ask(index, query)?;
                taken.push(start.elapsed());
                Ok(())
            })
        });
        done?;
        times.push(cpu.as_secs_f64() * 1e6 / QUERIES as f64);
    }
    Ok(Step {
        rows: index.len(),
        cpu_us: median(times).unwrap_or_default(),
        wall: Latency::of(taken),
        recall: if counted == 0 {
            1.0
        } else {
            hit as f64 / counted as f64
        },
        with_neighbor: counted,
        insert_us,
        bytes: index.bytes() as f64 / index.len().max(1) as f64,
    })
}

fn ask(index: &dyn VectorIndex, query: &[f32]) -> Result<Option<u64>> {
    let mut found = Vec::with_capacity(1);
    let query = Query::new(query, 1).above(0.8);
    index.query(&query, &mut found).map_err(of(OURS))?;
    Ok(found.first().map(|near| near.id.0))
}

fn restored(index: &dyn VectorIndex, queries: &[f32]) -> Result<RestoreReport> {
    let path = std::env::temp_dir().join(format!("askonce-measure-{}.index", std::process::id()));
    let report = restored_from(index, queries, &path);
    // Nothing more can be done about a file that cannot be removed.
    std::fs::remove_file(&path).ok();
    report
}

fn restored_from(index: &dyn VectorIndex, queries: &[f32], path: &Path) -> Result<RestoreReport> {
    let fault = |source| MeasureError::Write {
        path: path.to_owned(),
        source,
    };
    let start = Instant::now();
    let mut out = BufWriter::new(File::create(path).map_err(fault)?);
    index.snapshot(&mut out).map_err(of(OURS))?;
    out.into_inner()
        .map_err(|error| fault(error.into_error()))?
        .sync_all()
        .map_err(fault)?;
    let write_ms = start.elapsed().as_secs_f64() * 1e3;

    let query = &queries[..index.dimension()];
    let best_of = |open: &dyn Fn() -> Result<Box<dyn VectorIndex>>| -> Result<f64> {
        let mut best = f64::INFINITY;
        for _ in 0..RESTORES {
            let start = Instant::now();
            let back = open()?;
            ask(&*back, query)?;
            best = best.min(start.elapsed().as_secs_f64() * 1e3);
        }
        Ok(best)
    };
    let open = || -> Result<Box<dyn VectorIndex>> {
        let file = File::open(path).map_err(fault)?;
        restore(&mut BufReader::with_capacity(1 << 20, file)).map_err(of(OURS))
    };
    let file_ms = best_of(&open)?;
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .map_err(fault)?;
    let memory_ms = best_of(&|| restore(&mut bytes.as_slice()).map_err(of(OURS)))?;

    let back = open()?;
    let mut same = 0usize;
    for query in queries.chunks(index.dimension()) {
        same += usize::from(ask(&*back, query)? == ask(index, query)?);
    }
    Ok(RestoreReport {
        rows: index.len(),
        bytes: bytes.len(),
        write_ms,
        file_ms,
        memory_ms,
        same_answers: same as f64 / (queries.len() / index.dimension()) as f64,
    })
}

#[cfg(test)]
mod tests {
    use askonce_index::FlatIndex;

    use super::*;

    /// An exact engine, so that a miss would be one of this file.
    fn flat(dimension: usize) -> Made {
        Ok(Box::new(FlatIndex::new(dimension)?))
    }

    #[test]
    fn an_index_is_measured_at_each_size_and_finds_what_is_there() {
        let plan = Plan {
            growth: vec![500, 3_000],
            growth_dimension: 32,
            ..Plan::quick()
        };
        let report = run(&plan, &flat, &|_| {}).unwrap();
        assert_eq!(report.steps.len(), 2);
        assert_eq!([report.steps[0].rows, report.steps[1].rows], [500, 3_000]);
        for step in &report.steps {
            assert!(step.with_neighbor >= QUERIES / 3);
            assert!((step.recall - 1.0).abs() < f64::EPSILON, "{}", step.recall);
        }
    }

    #[test]
    fn a_restored_index_gives_the_same_answers() {
        let mixture = Mixture::new(32, 10, 1).unwrap();
        let rows = mixture.rows(1_000, 1);
        let index = flat(32).unwrap();
        for (id, row) in (0..).zip(rows.chunks(32)) {
            index.upsert(askonce_index::RowId(id), row).unwrap();
        }
        let queries = queries(
            &mixture,
            &rows,
            &[1_000],
            &Plan {
                growth_dimension: 32,
                ..Plan::quick()
            },
        );
        let report = restored(&*index, &queries).unwrap();
        assert_eq!(report.rows, 1_000);
        assert!((report.same_answers - 1.0).abs() < f64::EPSILON);
    }
}
