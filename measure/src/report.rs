//! The result: as data, as tables, and as lines that say what was asked for and what came out.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::thread;

use serde::Serialize;

use crate::Goal;
use crate::contender::{HNSW_RS, HNSW_RS_INT8, HNSWLIB, OURS, OURS_AUDITED};
use crate::dataset::count;
use crate::equal_recall::{ContenderReport, SetReport};
use crate::growth::GrowthReport;
use crate::mixed::MixedReport;
use crate::plan::Plan;

/// Everything that a run found out.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Version of this format.
    pub schema: u32,
    /// Which plan was run.
    pub plan: &'static str,
    /// Where it ran.
    pub machine: Machine,
    /// Share of what a goal counts that had to be found.
    pub target: f64,
    /// What is not in this build.
    pub missing: Vec<String>,
    /// Comparisons.
    pub sets: Vec<SetReport>,
    /// Lookups beside writes.
    pub mixed: Option<MixedReport>,
    /// Cost by size.
    pub growth: Option<GrowthReport>,
    /// What was to be shown, and whether it was.
    pub checks: Vec<Check>,
    /// Seconds on the wall that the run took.
    pub seconds: f64,
}

/// The circumstances of a run. What cannot be found is left out.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// The processor's own name.
    pub cpu: Option<String>,
    /// Cores that this process may use.
    pub cores: usize,
    /// Runnable threads of all processes in the last minute, at the end of the run.
    pub load: Option<f64>,
    /// Commit of the source tree, with `+` when it has changes; `None` outside one.
    pub commit: Option<String>,
    /// Whether the build is optimised.
    pub optimised: bool,
    /// Where the headers of hnswlib came from, if it is in this build.
    pub hnswlib: Option<&'static str>,
}

impl Machine {
    fn here() -> Self {
        Self {
            cpu: cpu(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            load: fs::read_to_string("/proc/loadavg")
                .ok()
                .and_then(|text| text.split(' ').next()?.parse().ok()),
            commit: commit(),
            optimised: !cfg!(debug_assertions),
            hnswlib: option_env!("HNSWLIB_FOLDER"),
        }
    }
}

/// The processor's own name; `None` where the system does not say.
#[must_use]
pub fn cpu() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Commit of the source tree that this was built in, with `+` when it has changes; `None` outside one.
#[must_use]
pub fn commit() -> Option<String> {
    let git = |args: &[&str]| {
        let output = Command::new("git")
            .arg("-C")
            .arg(env!("CARGO_MANIFEST_DIR"))
            .args(args)
            .output();
        let output = output.ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() {
        commit
    } else {
        commit + "+"
    })
}

/// One thing that was to be shown.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What, such as `ratio ours/hnswlib lookups`.
    pub name: String,
    /// On what.
    pub of: String,
    /// The figure; `None` if there is none, and `note` says why.
    pub value: Option<f64>,
    /// The figure asked for, such as `>= 4`.
    pub target: Option<String>,
    /// Whether the figure is as asked for.
    pub met: Option<bool>,
    /// What the figure is made of.
    pub note: String,
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }

    fn shown(self) -> String {
        match self {
            Self::AtLeast(bound) => format!(">= {bound}"),
            Self::AtMost(bound) => format!("<= {bound}"),
        }
    }
}

fn check(name: &str, of: &str, value: Option<f64>, bound: Option<Bound>, note: String) -> Check {
    Check {
        name: name.to_owned(),
        of: of.to_owned(),
        value,
        target: bound.map(Bound::shown),
        met: value.zip(bound).map(|(value, bound)| bound.holds(value)),
        note,
    }
}

impl Report {
    pub(crate) fn new(
        plan: &Plan,
        missing: Vec<String>,
        sets: Vec<SetReport>,
        mixed: Option<MixedReport>,
        growth: Option<GrowthReport>,
        seconds: f64,
    ) -> Self {
        let mut checks: Vec<Check> = sets.iter().flat_map(of_set).collect();
        checks.extend(mixed.iter().flat_map(of_mixed));
        checks.extend(growth.iter().flat_map(of_growth));
        Self {
            schema: 1,
            plan: plan.name,
            machine: Machine::here(),
            target: plan.target,
            missing,
            sets,
            mixed,
            growth,
            checks,
            seconds,
        }
    }

    /// The report for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing into a string does not fail.
        self.write(&mut out).ok();
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let machine = &self.machine;
        writeln!(
            out,
            "vector indexes, {} run: {}, {} cores, load {}, commit {}{}, {:.0} s",
            self.plan,
            machine.cpu.as_deref().unwrap_or("unknown processor"),
            machine.cores,
            machine
                .load
                .map_or("unknown".to_owned(), |load| format!("{load:.1}")),
            machine.commit.as_deref().unwrap_or("unknown"),
            if machine.optimised {
                ""
            } else {
                ", NOT OPTIMISED"
            },
            self.seconds,
        )?;
        if let Some(folder) = machine.hnswlib {
            writeln!(out, "hnswlib from {folder}, built -O3 -march=native")?;
        }
        for line in &self.missing {
            writeln!(out, "! {line}")?;
        }
        for set in &self.sets {
            write_set(out, set)?;
        }
        if let Some(mixed) = &self.mixed {
            write_mixed(out, mixed)?;
        }
        if let Some(growth) = &self.growth {
            write_growth(out, growth)?;
        }
        writeln!(out)?;
        for check in &self.checks {
            writeln!(out, "{}", line(check))?;
        }
        Ok(())
    }
}

/// Such as `ratio ours/hnswlib lookups [synthetic 10k x 256]: 9.8 (target >= 4, met) 5.1 us against 50 us`.
fn line(check: &Check) -> String {
    let value = check.value.map_or("none".to_owned(), number);
    let target = match (&check.target, check.met) {
        (Some(target), Some(true)) => format!(" (target {target}, met)"),
        (Some(target), Some(false)) => format!(" (target {target}, MISSED)"),
        (Some(target), None) => format!(" (target {target}, not shown)"),
        (None, _) => String::new(),
    };
    format!(
        "{} [{}]: {value}{target}  {}",
        check.name, check.of, check.note
    )
}

/// With as many digits as a measurement deserves.
fn number(value: f64) -> String {
    match value.abs() {
        x if x >= 100.0 => format!("{value:.0}"),
        x if x >= 10.0 => format!("{value:.1}"),
        x if x >= 1.0 => format!("{value:.2}"),
        x if x >= 0.001 || x == 0.0 => format!("{value:.3}"),
        _ => format!("{value:.2e}"),
    }
}

fn of_set(set: &SetReport) -> Vec<Check> {
    let find = |name: &str| set.contenders.iter().find(|one| one.name == name);
    let of = set.name.as_str();
    let mut checks = Vec::new();
    let Some(plain) = find(OURS) else {
        return checks;
    };
    let audited = find(OURS_AUDITED);
    // What a cache has without doing anything, if that is good enough.
    let enough = |one: &ContenderReport| one.setting(Goal::Above08) == "default";
    let ours = match audited {
        Some(audited) if !enough(plain) && enough(audited) => audited,
        _ => plain,
    };
    let absent = |name: &str| {
        let reason = set.not_run.iter().find(|(other, _)| other == name);
        reason.map_or_else(
            || format!("{name} is not in this build"),
            |(_, reason)| format!("{name} {reason}"),
        )
    };
    let lookups = |name: &str, peers: &[&ContenderReport], missing: &str, bound: f64| {
        let name = format!("ratio ours/{name} lookups");
        let bound = Some(Bound::AtLeast(bound));
        let mine = ours.cpu_us(Goal::Above08);
        // The fastest of the peers is the one to beat.
        let best = peers
            .iter()
            .filter_map(|peer| Some((peer, peer.cpu_us(Goal::Above08)?)))
            .min_by(|a, b| a.1.total_cmp(&b.1));
        match (mine, best) {
            (Some(mine), Some((peer, theirs))) => {
                let note = format!(
                    "{} us ({} {}) against {} us ({} {})",
                    number(mine),
                    ours.name,
                    ours.setting(Goal::Above08),
                    number(theirs),
                    peer.name,
                    peer.setting(Goal::Above08),
                );
                check(&name, of, Some(theirs / mine), bound, note)
            }
            (None, _) => {
                let note = format!("ours reaches {:.4} at most", ours.recall(Goal::Above08));
                check(&name, of, None, bound, note)
            }
            (_, None) if peers.is_empty() => check(&name, of, None, bound, absent(missing)),
            (_, None) => {
                let reached = peers.iter().map(|peer| peer.recall(Goal::Above08));
                let note = format!(
                    "{missing} reaches {:.4} at most, at any setting tried",
                    reached.fold(0.0, f64::max)
                );
                check(&name, of, None, bound, note)
            }
        }
    };
    let hnswlib: Vec<&ContenderReport> = find(HNSWLIB).into_iter().collect();
    let hnsw_rs: Vec<&ContenderReport> = [HNSW_RS, HNSW_RS_INT8]
        .into_iter()
        .filter_map(find)
        .collect();
    checks.push(lookups(HNSWLIB, &hnswlib, HNSWLIB, 4.0));
    checks.push(lookups(HNSW_RS, &hnsw_rs, HNSW_RS, 10.0));
    checks.push(match find(HNSWLIB) {
        Some(peer) => check(
            "ratio ours/hnswlib insert",
            of,
            Some(peer.insert_us / ours.insert_us),
            Some(Bound::AtLeast(50.0)),
            format!(
                "{} us against {} us a row, all work included",
                number(ours.insert_us),
                number(peer.insert_us)
            ),
        ),
        None => check(
            "ratio ours/hnswlib insert",
            of,
            None,
            Some(Bound::AtLeast(50.0)),
            absent(HNSWLIB),
        ),
    });
    let bytes = find(HNSWLIB).and_then(|peer| peer.bytes).zip(ours.bytes);
    checks.push(check(
        "ratio bytes",
        of,
        bytes.map(|(theirs, mine)| mine / theirs),
        Some(Bound::AtMost(0.3)),
        bytes.map_or_else(
            || absent(HNSWLIB),
            |(theirs, mine)| {
                format!("{mine:.0} against {theirs:.0} bytes a row of hnswlib, by the allocator")
            },
        ),
    ));
    for one in [Some(plain), audited].into_iter().flatten() {
        let default = one.sweep.iter().find(|point| point.goal == Goal::Above08);
        checks.push(check(
            &format!(
                "recall of neighbours >= 0.8, {} at default settings",
                one.name
            ),
            of,
            default.map(|point| point.recall),
            Some(Bound::AtLeast(0.99)),
            default.map_or(String::new(), |point| {
                format!("{} us", number(point.cpu_us))
            }),
        ));
    }
    if let Some(lost) = ours.lost {
        checks.push(check(
            "stored rows not found by themselves",
            of,
            Some(lost as f64),
            Some(Bound::AtMost(0.0)),
            String::new(),
        ));
    }
    if let Some(limit) = &set.limit {
        checks.push(check(
            "lookup against the limit of memory traffic",
            of,
            Some(limit.lookup_us / limit.limit_us),
            None,
            format!(
                "{} us, {} us to read {} kB (every code once, one row of int8) at {:.1} GB/s \
                 measured",
                number(limit.lookup_us),
                number(limit.limit_us),
                limit.bytes / 1000,
                limit.bandwidth / 1e9
            ),
        ));
    }
    if let Some(half) = &ours.half_deleted {
        checks.push(check(
            "half deleted: lookup after / before",
            of,
            Some(half.after_us / half.before_us),
            Some(Bound::AtMost(1.0)),
            format!(
                "{} us, {} us before; recall {:.4}; {} us a delete",
                number(half.after_us),
                number(half.before_us),
                half.recall,
                number(half.delete_us)
            ),
        ));
    }
    checks
}

fn of_mixed(mixed: &MixedReport) -> Vec<Check> {
    let of = format!("{} live x {}", count(mixed.live), mixed.dimension);
    let ratio = |after: f64, before: f64| Some(after / before).filter(|ratio| ratio.is_finite());
    vec![
        check(
            "mixed load: p99 / quiet p99, on the wall",
            &of,
            ratio(mixed.mixed.p99, mixed.quiet.p99),
            Some(Bound::AtMost(3.0)),
            format!(
                "{} us, quiet {} us",
                number(mixed.mixed.p99),
                number(mixed.quiet.p99)
            ),
        ),
        check(
            "mixed load: p99 / quiet p99, processor time",
            &of,
            ratio(mixed.mixed_cpu.p99, mixed.quiet_cpu.p99),
            Some(Bound::AtMost(3.0)),
            format!(
                "{} us, quiet {} us",
                number(mixed.mixed_cpu.p99),
                number(mixed.quiet_cpu.p99)
            ),
        ),
        check(
            "mixed load: bytes at the end / start",
            &of,
            ratio(mixed.bytes_end as f64, mixed.bytes_start as f64),
            Some(Bound::AtMost(1.1)),
            format!(
                "{} bytes a row, {} at the start, peak {}",
                mixed.bytes_end / mixed.live.max(1),
                mixed.bytes_start / mixed.live.max(1),
                mixed.bytes_peak / mixed.live.max(1)
            ),
        ),
        check(
            "mixed load: audited recall at the end",
            &of,
            Some(mixed.recall),
            Some(Bound::AtLeast(0.99)),
            format!("of {} queries with a neighbour", mixed.with_neighbor),
        ),
        check(
            "mixed load: rows that must not be there, or are missing",
            &of,
            Some(mixed.wrong_rows as f64),
            Some(Bound::AtMost(0.0)),
            String::new(),
        ),
    ]
}

fn of_growth(growth: &GrowthReport) -> Vec<Check> {
    let mut checks = Vec::new();
    if let (Some(first), Some(last)) = (growth.steps.first(), growth.steps.last()) {
        checks.push(check(
            &format!(
                "growth: lookup at {} / at {}",
                count(last.rows),
                count(first.rows)
            ),
            &format!("synthetic x {}", growth.dimension),
            Some(last.cpu_us / first.cpu_us),
            None,
            format!("{} us, {} us", number(last.cpu_us), number(first.cpu_us)),
        ));
    }
    if let Some(restore) = &growth.restore {
        checks.push(check(
            "restore time, ms",
            &format!("{} x {}", count(restore.rows), growth.dimension),
            Some(restore.file_ms),
            Some(Bound::AtMost(50.0)),
            format!(
                "from a file of {} MB until the first lookup is answered; from memory {} ms; \
                 written in {} ms; {:.1} % of the answers are the same",
                restore.bytes / 1_000_000,
                number(restore.memory_ms),
                number(restore.write_ms),
                100.0 * restore.same_answers
            ),
        ));
    }
    checks
}

fn write_set(out: &mut String, set: &SetReport) -> std::fmt::Result {
    writeln!(
        out,
        "\n{}: {} queries, {:.1} % with a neighbour at 0.8",
        set.name,
        set.queries,
        100.0 * set.with_neighbor
    )?;
    writeln!(
        out,
        "  {:<14} {:<18} {:<10} {:>7} {:>7} {:>9} {:>8} {:>8} {:>9} {:>9} {:>8} {:>8} {:>5} {:>7} {:>8}",
        "contender",
        "goal",
        "setting",
        "recall",
        "+-.002",
        "cpu us",
        "p50 us",
        "p99 us",
        "1 thr/s",
        "2 thr/s",
        "ins us",
        "bytes",
        "lost",
        "del us",
        "half us"
    )?;
    for one in &set.contenders {
        for (at, goal) in one.goals.iter().enumerate() {
            let speed = |value: Option<f64>| value.map_or("-".to_owned(), number);
            let once =
                |value: Option<String>| value.filter(|_| at == 0).unwrap_or_else(|| "-".to_owned());
            let timed = goal.speed;
            let half = one.half_deleted;
            let mark = if one.inserted_singly { "" } else { "*" };
            writeln!(
                out,
                "  {:<14} {:<18} {:<10} {:>7.4} {:>7.4} {:>9} {:>8} {:>8} {:>9} {:>9} {:>8} {:>8} {:>5} {:>7} {:>8}",
                one.name,
                goal.goal.to_string(),
                goal.setting.as_deref().unwrap_or("none"),
                goal.recall,
                goal.recall_near_ties,
                speed(timed.map(|speed| speed.cpu_us)),
                speed(timed.map(|speed| speed.wall.p50)),
                speed(timed.map(|speed| speed.wall.p99)),
                speed(timed.map(|speed| speed.per_second)),
                speed(timed.map(|speed| speed.per_second_two)),
                once(Some(number(one.insert_us) + mark)),
                once(one.bytes.map(|bytes| format!("{bytes:.0}"))),
                once(one.lost.map(|lost| lost.to_string())),
                once(half.map(|half| number(half.delete_us))),
                once(half.map(|half| number(half.after_us))),
            )?;
        }
    }
    if set.contenders.iter().any(|one| !one.inserted_singly) {
        writeln!(
            out,
            "  * not one by one: in bulk, or by all threads at once; processor time of all"
        )?;
    }
    for one in &set.contenders {
        if let Some(built) = &one.built {
            writeln!(out, "  {} is built with {built}", one.name)?;
        }
    }
    for one in &set.contenders {
        let shown: Vec<String> = one
            .sweep
            .iter()
            .filter(|point| point.goal == Goal::Above08)
            .map(|point| {
                format!(
                    "{} {:.4} {}",
                    point.setting,
                    point.recall,
                    number(point.cpu_us)
                )
            })
            .collect();
        if shown.len() > 1 {
            writeln!(out, "  {}, recall and us: {}", one.name, shown.join("; "))?;
        }
    }
    for (name, reason) in &set.not_run {
        writeln!(out, "  {name:<14} {reason}")?;
    }
    Ok(())
}

fn write_mixed(out: &mut String, mixed: &MixedReport) -> std::fmt::Result {
    writeln!(
        out,
        "\nmixed load, {} rows x {}: {} lookups, {} inserts, {} evicted, {} expired in {:.0} s",
        mixed.live,
        mixed.dimension,
        mixed.lookups,
        mixed.inserts,
        mixed.evictions,
        mixed.expiries,
        mixed.seconds
    )?;
    let mut row = |name: &str, latency: crate::Latency| {
        writeln!(
            out,
            "  {name:<30} p50 {:>8} us, p99 {:>8} us",
            number(latency.p50),
            number(latency.p99)
        )
    };
    row("lookup in quiet, wall", mixed.quiet)?;
    row("lookup beside writes, wall", mixed.mixed)?;
    row("lookup in quiet, cpu", mixed.quiet_cpu)?;
    row("lookup beside writes, cpu", mixed.mixed_cpu)?;
    row("insert, wall", mixed.insert)
}

fn write_growth(out: &mut String, growth: &GrowthReport) -> std::fmt::Result {
    writeln!(out, "\ngrowth, synthetic x {}", growth.dimension)?;
    writeln!(
        out,
        "  {:>8} {:>9} {:>9} {:>9} {:>8} {:>10} {:>9}",
        "rows", "cpu us", "p50 us", "p99 us", "recall", "insert us", "bytes/row"
    )?;
    for step in &growth.steps {
        writeln!(
            out,
            "  {:>8} {:>9} {:>9} {:>9} {:>8.4} {:>10} {:>9.0}",
            count(step.rows),
            number(step.cpu_us),
            number(step.wall.p50),
            number(step.wall.p99),
            step.recall,
            number(step.insert_us),
            step.bytes
        )?;
    }
    Ok(())
}

impl ContenderReport {
    fn goal(&self, goal: Goal) -> Option<&crate::GoalReport> {
        self.goals.iter().find(|report| report.goal == goal)
    }

    fn cpu_us(&self, goal: Goal) -> Option<f64> {
        Some(self.goal(goal)?.speed?.cpu_us)
    }

    fn setting(&self, goal: Goal) -> &str {
        let setting = self.goal(goal).and_then(|report| report.setting.as_deref());
        setting.unwrap_or("no setting")
    }

    fn recall(&self, goal: Goal) -> f64 {
        self.goal(goal).map_or(0.0, |report| report.recall)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gives_the_figure_the_target_and_the_verdict() {
        let shown = |value, bound| {
            line(&check(
                "ratio bytes",
                "a set",
                value,
                bound,
                "why".to_owned(),
            ))
        };
        assert_eq!(
            shown(Some(0.27), Some(Bound::AtMost(0.3))),
            "ratio bytes [a set]: 0.270 (target <= 0.3, met)  why"
        );
        assert_eq!(
            shown(Some(3.5), Some(Bound::AtLeast(4.0))),
            "ratio bytes [a set]: 3.50 (target >= 4, MISSED)  why"
        );
        assert_eq!(
            shown(None, Some(Bound::AtLeast(4.0))),
            "ratio bytes [a set]: none (target >= 4, not shown)  why"
        );
    }
}
