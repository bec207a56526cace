//! One set, all contenders: filled in turn, then asked in turn, each at the cheapest setting that finds
//! enough.
//!
//! - *Inserts* go in parts of a twentieth of the rows, contender after contender, so that whatever else
//!   the machine does disturbs all alike. Counted is the processor time of the whole process, work in
//!   the background and [`settle`](crate::contender::Contender::settle) included, and what the
//!   allocator gave out meanwhile.
//! - *A setting* is good enough for a goal if the best row is found for 99 of 100 queries that the goal
//!   counts. Found is a row with the cosine of the best one within a rounding of `f32`, so scores that
//!   are off by more than their differences are misses. An engine with a default must do with it; the
//!   others are set to find as much as the first one does by its default, where that is more.
//! - *Lookups* are timed in 31 rounds of 200 queries, contender after contender; the figure is the median
//!   of the rounds, in processor time of the thread. Contenders evict each other's cache lines between
//!   rounds, as the rest of a program would. Rounds are not shorter, or most of each would be spent on
//!   fetching an index back; and not fewer, so that other work on a shared machine has to last for
//!   sixteen of them to move the median.

use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::clock::{Latency, median, process_cpu, thread_cpu};
use crate::contender::{self, Contender, Entry, Found};
use crate::dataset::{Dataset, Near, dot};
use crate::error::Result;
use crate::native::{allocated, read_bandwidth};
use crate::random::Random;
use crate::{Goal, Progress};

/// Queries asked at one go.
const ROUND: usize = 200;
/// Rounds of each contender.
const ROUNDS: usize = 31;
/// Cosines that differ by no more are equal: roundings of `f32` sums.
const ROUNDING: f32 = 2e-6;
/// The looser meaning of "found" that is shown beside.
const NEAR_TIE: f32 = 0.002;
/// Stored rows that are looked up by themselves.
const SELF_LOOKUPS: usize = 1_000;
/// Up to this size a lookup is compared with what reading its bytes takes.
const LIMITED: usize = 10_000;

/// What was measured on one set.
#[derive(Debug, Serialize)]
pub struct SetReport {
    /// Origin, rows and components.
    pub name: String,
    /// Rows stored.
    pub rows: usize,
    /// Components.
    pub dimension: usize,
    /// Queries asked.
    pub queries: usize,
    /// Share of the queries whose best row has a cosine of 0.8 or more.
    pub with_neighbor: f64,
    /// Those that took part.
    pub contenders: Vec<ContenderReport>,
    /// Those that did not, and why.
    pub not_run: Vec<(String, String)>,
    /// What reading takes, for small sets.
    pub limit: Option<Limit>,
}

/// The time of a lookup of ours against that of reading what it has to read.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Limit {
    /// Bytes: the code of every row once, and one row of int8.
    pub bytes: usize,
    /// Bytes in a second that one thread reads from a working set of this size, here and now.
    pub bandwidth: f64,
    /// Microseconds that reading takes.
    pub limit_us: f64,
    /// Microseconds that a lookup takes.
    pub lookup_us: f64,
}

/// What was measured of one contender.
#[derive(Debug, Serialize)]
pub struct ContenderReport {
    /// Its name.
    pub name: String,
    /// Microseconds of processor time to insert a row, work put off included.
    pub insert_us: f64,
    /// How it was built, where that is not a matter of course.
    pub built: Option<String>,
    /// Seconds on the wall to insert all.
    pub build_seconds: f64,
    /// Whether rows were inserted one by one on one thread.
    pub inserted_singly: bool,
    /// Bytes for each row: the larger of what the allocator gave out and what the contender says.
    pub bytes: Option<f64>,
    /// Stored rows not found by their own vector, of a thousand or all.
    pub lost: Option<usize>,
    /// Each setting that was tried.
    pub sweep: Vec<Point>,
    /// For each goal, what it takes to reach it.
    pub goals: Vec<GoalReport>,
    /// After half of the rows were deleted.
    pub half_deleted: Option<HalfDeleted>,
}

/// Recall and cost of one setting.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// Which.
    pub setting: String,
    /// The goal it was tried for.
    pub goal: Goal,
    /// Share of the queries of the goal whose best row was found.
    pub recall: f64,
    /// Microseconds of processor time of a lookup, from one pass.
    pub cpu_us: f64,
}

/// What it takes a contender to reach a goal.
#[derive(Clone, Debug, Serialize)]
pub struct GoalReport {
    /// Which.
    pub goal: Goal,
    /// The setting that was timed; `None` if no setting reaches the goal.
    pub setting: Option<String>,
    /// Share of the queries of the goal whose best row was found; the best of all settings if none
    /// reaches the goal.
    pub recall: f64,
    /// The same, a row within 0.002 of the best one counted as found.
    pub recall_near_ties: f64,
    /// Timings; `None` if no setting reaches the goal.
    pub speed: Option<Speed>,
}

/// Timings of lookups.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Speed {
    /// Microseconds of processor time, median of the rounds.
    pub cpu_us: f64,
    /// Microseconds on the wall, one thread.
    pub wall: Latency,
    /// Lookups in a second on the wall, one thread.
    pub per_second: f64,
    /// Lookups in a second on the wall, two threads.
    pub per_second_two: f64,
    /// Microseconds on the wall, two threads.
    pub wall_two: Latency,
}

/// What deleting half of the rows costs and changes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct HalfDeleted {
    /// Microseconds of processor time to delete a row.
    pub delete_us: f64,
    /// Microseconds of a lookup before.
    pub before_us: f64,
    /// Microseconds of a lookup after.
    pub after_us: f64,
    /// Recall of neighbours at 0.8 after.
    pub recall: f64,
}

/// What to measure on a set.
#[derive(Clone, Debug)]
pub(crate) struct Task<'a> {
    pub(crate) goals: &'a [Goal],
    pub(crate) target: f64,
    /// Longest that the settings of one contender are tried for one goal.
    pub(crate) sweep: Duration,
    pub(crate) delete: bool,
}

struct Running {
    name: &'static str,
    contender: Box<dyn Contender>,
    insert: Duration,
    build: Duration,
    /// What the allocator gave out, less what it got back.
    bytes: Option<i64>,
    report: ContenderReport,
}

/// Measures all contenders on one set.
pub(crate) fn run(
    task: &Task<'_>,
    set: &Dataset,
    entries: &[Entry],
    progress: Progress<'_>,
) -> Result<SetReport> {
    let name = set.name();
    let (entered, left_out): (Vec<&Entry>, Vec<&Entry>) = entries
        .iter()
        .partition(|entry| set.len() <= entry.most_rows);
    let not_run = left_out
        .iter()
        .map(|entry| {
            let most = crate::dataset::count(entry.most_rows);
            (
                entry.name.to_owned(),
                format!("not run above {most} rows: it takes too long"),
            )
        })
        .collect();
    progress(&format!("{name}: filling {} indexes", entered.len()));
    let mut running = fill(&entered, set)?;
    for one in &mut running {
        progress(&format!(
            "{name}: {} filled in {:.1} s",
            one.name, one.report.build_seconds
        ));
    }
    for one in &running {
        one.contender.practice(set)?;
    }
    for &goal in task.goals {
        reach(goal, task, set, &mut running, progress)?;
    }
    for one in &mut running {
        one.report.lost = Some(lost(&*one.contender, set)?);
    }
    let limit = limit(set, &running);
    if task.delete {
        progress(&format!("{name}: deleting half"));
        delete_half(set, &mut running)?;
    }
    let near = set.truth.iter().filter(|truth| Goal::Above08.counts(truth));
    Ok(SetReport {
        rows: set.len(),
        dimension: set.dimension,
        queries: set.asked(),
        with_neighbor: near.count() as f64 / set.asked().max(1) as f64,
        contenders: running.into_iter().map(|one| one.report).collect(),
        not_run,
        limit,
        name,
    })
}

fn fill(entered: &[&Entry], set: &Dataset) -> Result<Vec<Running>> {
    let mut running = Vec::with_capacity(entered.len());
    for entry in entered {
        let before = allocated();
        let contender = (entry.make)(set)?;
        let grown = grown(before);
        running.push(Running {
            name: entry.name,
            contender,
            insert: Duration::ZERO,
            build: Duration::ZERO,
            bytes: grown,
            report: ContenderReport {
                name: entry.name.to_owned(),
                built: None,
                insert_us: 0.0,
                build_seconds: 0.0,
                inserted_singly: true,
                bytes: None,
                lost: None,
                sweep: Vec::new(),
                goals: Vec::new(),
                half_deleted: None,
            },
        });
    }
    let part = (set.len() / 20).max(500);
    for start in (0..set.len()).step_by(part) {
        let end = (start + part).min(set.len());
        for one in &mut running {
            let before = allocated();
            let (done, cpu, wall): (Result<()>, _, _) = process_cpu(|| {
                one.contender.insert_range(start..end, set)?;
                one.contender.settle();
                Ok(())
            });
            done?;
            one.insert += cpu;
            one.build += wall;
            one.bytes = one.bytes.zip(grown(before)).map(|(a, b)| a + b);
        }
    }
    for one in &mut running {
        let rows = set.len() as f64;
        let told = one.contender.bytes();
        let given = one
            .bytes
            .and_then(|bytes| usize::try_from(bytes).ok())
            .map(|bytes| bytes + one.contender.mapped_bytes())
            .map(|bytes| bytes.saturating_sub(one.contender.fixed_bytes()));
        let report = &mut one.report;
        report.built = one.contender.built();
        report.insert_us = one.insert.as_secs_f64() * 1e6 / rows;
        report.build_seconds = one.build.as_secs_f64();
        report.inserted_singly = one.contender.inserts_singly();
        report.bytes = given.max(told).map(|bytes| bytes as f64 / rows);
    }
    Ok(running)
}

fn grown(before: Option<usize>) -> Option<i64> {
    Some(allocated()? as i64 - before? as i64)
}

/// Finds for each contender the setting that reaches the goal, then times them in turn.
fn reach(
    goal: Goal,
    task: &Task<'_>,
    set: &Dataset,
    running: &mut [Running],
    progress: Progress<'_>,
) -> Result<()> {
    let mut picked = Vec::with_capacity(running.len());
    let mut tuned = None;
    for one in running.iter_mut() {
        let by_default = one.contender.settings().iter().any(|one| one.default);
        let target = match tuned {
            Some(found) if !by_default => f64::max(found, task.target),
            _ => task.target,
        };
        let pick = pick(goal, target, task.sweep, set, one)?;
        if by_default && tuned.is_none() {
            tuned = pick.map(|pick| pick.found);
        }
        let shown = pick.map_or("no setting".to_owned(), |pick| {
            format!(
                "{}, recall {:.4}",
                one.contender.settings()[pick.setting].label,
                pick.found
            )
        });
        progress(&format!("{}: {goal}: {}: {shown}", set.name(), one.name));
        picked.push(pick);
    }
    for (one, pick) in running.iter_mut().zip(&picked) {
        if let Some(pick) = pick {
            one.contender.turn(pick.setting, set)?;
        }
    }
    let takes_part = |at: usize| picked[at].is_some();
    let rounds = rounds(goal, set, running, &takes_part)?;
    for (at, one) in running.iter_mut().enumerate() {
        let best =
            |of: fn(&Tried) -> f64, tried: &[Tried]| tried.iter().map(of).fold(0.0, f64::max);
        let report = match picked[at] {
            Some(pick) => GoalReport {
                goal,
                setting: Some(one.contender.settings()[pick.setting].label.clone()),
                recall: pick.found,
                recall_near_ties: pick.found_near,
                speed: Some(speed(goal, set, &*one.contender, rounds[at])?),
            },
            None => {
                let tried: Vec<Tried> = one
                    .report
                    .sweep
                    .iter()
                    .filter(|point| point.goal == goal)
                    .map(|point| Tried {
                        setting: 0,
                        found: point.recall,
                        found_near: point.recall,
                    })
                    .collect();
                GoalReport {
                    goal,
                    setting: None,
                    recall: best(|tried| tried.found, &tried),
                    recall_near_ties: best(|tried| tried.found_near, &tried),
                    speed: None,
                }
            }
        };
        one.report.goals.push(report);
    }
    Ok(())
}

#[derive(Clone, Copy, Debug)]
struct Tried {
    setting: usize,
    found: f64,
    found_near: f64,
}

/// The first setting that reaches the goal. The settings after it are tried too, for the curve, as
/// long as time allows and there is recall to be gained.
fn pick(
    goal: Goal,
    target: f64,
    sweep: Duration,
    set: &Dataset,
    one: &mut Running,
) -> Result<Option<Tried>> {
    let start = Instant::now();
    let mut pick = None;
    for (number, setting) in one.contender.settings().into_iter().enumerate() {
        one.contender.turn(number, set)?;
        let pass = pass(goal, set, &*one.contender)?;
        one.report.sweep.push(Point {
            setting: setting.label,
            goal,
            recall: pass.found,
            cpu_us: pass.cpu_us,
        });
        if pick.is_none() && pass.found >= target {
            pick = Some(Tried {
                setting: number,
                found: pass.found,
                found_near: pass.found_near,
            });
        }
        let late = start.elapsed() >= sweep;
        // A default says nothing about the settings that follow.
        let whole = pass.found >= 0.9995 && !setting.default;
        // The search for a setting that is good enough gets ten times the time.
        let hopeless = start.elapsed() >= sweep * 10;
        if (pick.is_some() && (late || whole)) || hopeless {
            break;
        }
    }
    Ok(pick)
}

struct Pass {
    found: f64,
    found_near: f64,
    cpu_us: f64,
}

/// Asks every query once.
fn pass(goal: Goal, set: &Dataset, contender: &dyn Contender) -> Result<Pass> {
    let mut out = Vec::new();
    let mut answers: Vec<Option<Found>> = Vec::with_capacity(set.asked());
    let (done, cpu): (Result<()>, _) = thread_cpu(|| {
        for query in 0..set.asked() {
            out.clear();
            contender.lookup(set.query(query), 1, goal.min_score(), &mut out)?;
            answers.push(out.first().copied());
        }
        Ok(())
    });
    done?;
    let (found, found_near) = recall(goal, set, &set.truth, &answers);
    Ok(Pass {
        found,
        found_near,
        cpu_us: cpu.as_secs_f64() * 1e6 / set.asked().max(1) as f64,
    })
}

/// Shares of the counted queries whose best row was found: strictly, and with near ties.
fn recall(goal: Goal, set: &Dataset, truth: &[Vec<Near>], answers: &[Option<Found>]) -> (f64, f64) {
    let (mut counted, mut found, mut found_near) = (0usize, 0usize, 0usize);
    for (query, (truth, answer)) in truth.iter().zip(answers).enumerate() {
        let Some(best) = truth.first().filter(|_| goal.counts(truth)) else {
            continue;
        };
        counted += 1;
        // What the contender says of the score is not believed.
        let cosine = answer.map(|answer| dot(set.query(query), set.row(answer.row as usize)));
        let within = |allowed: f32| cosine.is_some_and(|cosine| cosine >= best.cosine - allowed);
        found += usize::from(within(ROUNDING));
        found_near += usize::from(within(NEAR_TIE));
    }
    let share = |part: usize| {
        if counted == 0 {
            1.0
        } else {
            part as f64 / counted as f64
        }
    };
    (share(found), share(found_near))
}

/// Median processor time of a lookup of each contender that takes part, in microseconds.
fn rounds(
    goal: Goal,
    set: &Dataset,
    running: &[Running],
    takes_part: &dyn Fn(usize) -> bool,
) -> Result<Vec<f64>> {
    let mut times = vec![Vec::new(); running.len()];
    let mut out = Vec::new();
    for round in 0..ROUNDS {
        for (at, one) in running.iter().enumerate() {
            if !takes_part(at) {
                continue;
            }
            // A contender that takes milliseconds is asked less: its rounds are long anyway.
            let slow = times[at].first().is_some_and(|&us: &f64| us > 1_000.0);
            let queries = if slow { ROUND / 10 } else { ROUND }.min(set.asked());
            let first = round * queries;
            let (done, cpu): (Result<()>, _) = thread_cpu(|| {
                for query in first..first + queries {
                    out.clear();
                    let query = set.query(query % set.asked());
                    one.contender.lookup(query, 1, goal.min_score(), &mut out)?;
                    std::hint::black_box(&out);
                }
                Ok(())
            });
            done?;
            times[at].push(cpu.as_secs_f64() * 1e6 / queries as f64);
        }
    }
    Ok(times
        .into_iter()
        .map(|times| median(times).unwrap_or_default())
        .collect())
}

fn speed(goal: Goal, set: &Dataset, contender: &dyn Contender, cpu_us: f64) -> Result<Speed> {
    // About a third of a second for each.
    let lookups = ((300_000.0 / cpu_us.max(0.1)) as usize).clamp(100, 20_000);
    let (per_second, wall) = on_threads(1, lookups, goal, set, contender)?;
    let (per_second_two, wall_two) = on_threads(2, lookups, goal, set, contender)?;
    Ok(Speed {
        cpu_us,
        wall,
        per_second,
        per_second_two,
        wall_two,
    })
}

fn on_threads(
    threads: usize,
    lookups: usize,
    goal: Goal,
    set: &Dataset,
    contender: &dyn Contender,
) -> Result<(f64, Latency)> {
    let ask = |thread: usize| -> Result<Vec<Duration>> {
        let mut out = Vec::new();
        let mut taken = Vec::with_capacity(lookups);
        for lookup in 0..lookups {
            out.clear();
            let query = set.query((lookup * threads + thread) % set.asked());
            let start = Instant::now();
            contender.lookup(query, 1, goal.min_score(), &mut out)?;
            taken.push(start.elapsed());
        }
        Ok(taken)
    };
    let start = Instant::now();
    let taken: Result<Vec<Vec<Duration>>> = thread::scope(|scope| {
        let ask = &ask;
        let threads: Vec<_> = (0..threads)
            .map(|at| scope.spawn(move || ask(at)))
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    });
    let taken: Vec<Duration> = taken?.into_iter().flatten().collect();
    let per_second = taken.len() as f64 / start.elapsed().as_secs_f64();
    Ok((per_second, Latency::of(taken)))
}

/// Stored rows that are not found by their own vector.
fn lost(contender: &dyn Contender, set: &Dataset) -> Result<usize> {
    let step = (set.len() / SELF_LOOKUPS).max(1);
    let mut out = Vec::new();
    let mut lost = 0;
    for row in (0..set.len()).step_by(step).take(SELF_LOOKUPS) {
        out.clear();
        let vector = set.row(row);
        contender.lookup(vector, 1, Goal::Above08.min_score(), &mut out)?;
        let itself = out.first().is_some_and(|found| {
            found.row == row as u64 || dot(vector, set.row(found.row as usize)) >= 1.0 - ROUNDING
        });
        lost += usize::from(!itself);
    }
    Ok(lost)
}

fn limit(set: &Dataset, running: &[Running]) -> Option<Limit> {
    if set.len() > LIMITED {
        return None;
    }
    let ours = running.iter().find(|one| one.name == contender::OURS)?;
    let lookup_us = ours.report.goals.first()?.speed?.cpu_us;
    let bytes = set.len() * set.dimension.div_ceil(8) + set.dimension;
    let bandwidth = read_bandwidth(bytes);
    Some(Limit {
        bytes,
        bandwidth,
        limit_us: bytes as f64 / bandwidth * 1e6,
        lookup_us,
    })
}

/// Deletes every second row, in random order, and asks again.
fn delete_half(set: &Dataset, running: &mut [Running]) -> Result<()> {
    let goal = Goal::Above08;
    let can = running
        .iter()
        .map(|one| {
            one.report
                .goals
                .first()
                .is_some_and(|goal| goal.speed.is_some())
        })
        .collect::<Vec<_>>();
    let before = rounds(goal, set, running, &|at| can[at])?;
    let mut doomed: Vec<u64> = (1..set.len() as u64).step_by(2).collect();
    Random::new(9).shuffle(&mut doomed);
    let mut deleted = vec![None; running.len()];
    for (at, one) in running.iter().enumerate().filter(|(at, _)| can[*at]) {
        let (done, cpu, _): (Result<bool>, _, _) = process_cpu(|| {
            for &row in &doomed {
                if !one.contender.delete(row)? {
                    return Ok(false);
                }
            }
            one.contender.settle();
            Ok(true)
        });
        if done? {
            deleted[at] = Some(cpu.as_secs_f64() * 1e6 / doomed.len().max(1) as f64);
        }
    }
    let truth = set.truth_among(&|row| row.is_multiple_of(2));
    let after = rounds(goal, set, running, &|at| deleted[at].is_some())?;
    for (at, one) in running.iter_mut().enumerate() {
        let Some(delete_us) = deleted[at] else {
            continue;
        };
        let mut out = Vec::new();
        let mut answers = Vec::with_capacity(set.asked());
        for query in 0..set.asked() {
            out.clear();
            one.contender
                .lookup(set.query(query), 1, goal.min_score(), &mut out)?;
            // A deleted row is no answer.
            answers.push(
                out.first()
                    .copied()
                    .filter(|found| found.row.is_multiple_of(2)),
            );
        }
        one.report.half_deleted = Some(HalfDeleted {
            delete_us,
            before_us: before[at],
            after_us: after[at],
            recall: recall(goal, set, &truth, &answers).0,
        });
    }
    Ok(())
}
