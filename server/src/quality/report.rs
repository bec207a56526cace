//! The result of `askonce bench quality`: as data, and as text.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use serde::Serialize;

use super::live::Window;
use super::machine::Machine;
use super::promise::Promise;
use super::record::{Skipped, Wording};
use super::score::{Bin, Curve, Figure, Operating, PER_HIT, PER_REQUEST, PROVEN, Proven};
use super::split::Part;
use super::stats::Timing;
use super::stream::Order;
use super::table::{Table, interval, percent};
use super::verdicts::Judged;

/// The form of the JSON report. A field may be added; anything else makes a new form.
pub(crate) const SCHEMA: &str = "askonce.quality/1";

/// Everything that was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) schema: &'static str,
    pub(crate) version: &'static str,
    pub(crate) machine: Machine,
    pub(crate) settings: Settings,
    pub(crate) sets: Vec<SetReport>,
    pub(crate) rows: Vec<Row>,
    pub(crate) promises: Vec<PromiseRow>,
    pub(crate) streams: Vec<StreamRow>,
    pub(crate) seconds: f64,
}

/// What was asked for.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Settings {
    pub(crate) seed: u64,
    pub(crate) limit: Option<usize>,
    pub(crate) parts: Vec<Part>,
    /// How answers were worded.
    pub(crate) answers: Wording,
}

/// A set, and what of it was played.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SetReport {
    pub(crate) set: String,
    pub(crate) sha256: Option<String>,
    pub(crate) rows: usize,
    pub(crate) order: Order,
    pub(crate) embedder: String,
    /// Embedding spaces, by their fingerprints.
    pub(crate) spaces: Vec<String>,
    /// Decisions judged, and decisions that cut-offs were chosen on.
    pub(crate) decisions: usize,
    pub(crate) calibration: usize,
    /// Policies that were fitted on another embedding, and were not run.
    pub(crate) not_run: Vec<String>,
    /// Requests and pairs that could not be asked.
    pub(crate) skipped: Skipped,
}

/// A policy on the recorded decisions of a set.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) set: String,
    pub(crate) order: Order,
    pub(crate) embedder: String,
    pub(crate) policy: String,
    /// Wrong answers per request that the policy promises.
    pub(crate) promised: Option<f64>,
    pub(crate) operating: Operating,
    /// `None` for one threshold of many with the same score.
    pub(crate) curve: Option<Curve>,
    /// Empty where the score is no probability.
    pub(crate) reliability: Vec<Bin>,
    /// What a reader made of the hits; `None` without verdicts.
    pub(crate) judged: Option<Judged>,
    /// Mean time of the policy on one request, all its candidates together, in microseconds; without
    /// embedding, search and evidence.
    pub(crate) decide_us: f64,
}

/// What became of a policy's promises.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PromiseRow {
    pub(crate) set: String,
    pub(crate) order: Order,
    pub(crate) embedder: String,
    pub(crate) policy: String,
    pub(crate) promises: Vec<Promise>,
}

/// A policy over a stream, for real.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StreamRow {
    pub(crate) set: String,
    pub(crate) order: Order,
    pub(crate) embedder: String,
    pub(crate) policy: String,
    /// Wrong answers per request that the policy promises.
    pub(crate) promised: Option<f64>,
    pub(crate) operating: Operating,
    pub(crate) windows: Vec<Window>,
    /// Time of a lookup, exact hits among them.
    pub(crate) lookup: Option<Timing>,
    /// Time of each stage, on a sample.
    pub(crate) stages: BTreeMap<&'static str, Timing>,
    /// Share of the sample that reached the second embedding.
    pub(crate) reached_second: Option<f64>,
}

/// The report as text.
pub(crate) fn render(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_report(&mut out, report);
    out
}

fn write_report(out: &mut String, report: &Report) -> fmt::Result {
    let machine = &report.machine;
    writeln!(
        out,
        "askonce bench quality {}, commit {}, {}, {}, seed {}",
        report.version,
        machine.commit.as_deref().unwrap_or("unknown"),
        machine.date,
        if machine.optimised {
            "optimised build"
        } else {
            "DEBUG BUILD: times mean nothing"
        },
        report.settings.seed,
    )?;
    for set in &report.sets {
        write_set(out, report, set)?;
    }
    writeln!(out, "\nDone in {:.1} s.", report.seconds)
}

fn write_set(out: &mut String, report: &Report, set: &SetReport) -> fmt::Result {
    let title = format!(
        "{}, {} order, embedding {}",
        set.set,
        set.order.as_str(),
        set.embedder
    );
    writeln!(out, "\n{title}\n{}", "=".repeat(title.chars().count()))?;
    writeln!(
        out,
        "{} decisions judged, {} to choose cut-offs on; left out: {} exact matches, {} pairs.",
        set.decisions, set.calibration, set.skipped.exact, set.skipped.pairs,
    )?;
    if !set.not_run.is_empty() {
        let names = set.not_run.join(", ");
        writeln!(out, "Fitted on another embedding, and not run: {names}.")?;
    }
    let of = |name: &str, order: Order, embedder: &str| {
        name == set.set && order == set.order && embedder == set.embedder
    };
    let rows = || {
        let rows = report.rows.iter();
        rows.filter(|row| of(&row.set, row.order, &row.embedder))
    };
    write_operating(out, rows())?;
    write_judged(out, rows())?;
    write_curves(out, rows())?;
    write_proven(out, rows())?;
    let promises = report.promises.iter();
    write_promises(
        out,
        promises.filter(|row| of(&row.set, row.order, &row.embedder)),
    )?;
    let streams = report.streams.iter();
    write_streams(
        out,
        streams.filter(|row| of(&row.set, row.order, &row.embedder)),
    )
}

fn write_operating<'a>(out: &mut String, rows: impl Iterator<Item = &'a Row>) -> fmt::Result {
    let mut table = Table::new([
        "policy",
        "hits",
        "found",
        "wrong/hit",
        "95 %",
        "at most",
        "wrong/req",
        "95 %",
        "promised",
        "U 5",
        "U 20",
        "U 100",
        "2nd",
        "us",
    ]);
    for row in rows {
        let at = &row.operating;
        table.row([
            row.policy.clone(),
            percent(at.hit_rate.value),
            percent(at.true_hit_rate.value),
            percent(at.wrong_per_hit.value),
            interval(at.wrong_per_hit.interval),
            percent(at.wrong_per_hit_upper),
            percent(at.wrong_per_request.value),
            interval(at.wrong_per_request.interval),
            percent(row.promised),
            plain(at.utility[0].value),
            plain(at.utility[1].value),
            plain(at.utility[2].value),
            percent(at.refined),
            format!("{:.1}", row.decide_us),
        ]);
    }
    writeln!(out, "\nWhat each policy serves")?;
    table.write(out)?;
    writeln!(
        out,
        "  found: right hits, of the requests with a right answer stored. at most: wrong/hit, upper bound at \
         95 %.\n  U: savings of right hits less wrong ones at so many savings each, per request. 2nd: requests \
         for which the\n  second cosine was asked. us: microseconds of the policy alone."
    )
}

fn write_judged<'a>(out: &mut String, rows: impl Iterator<Item = &'a Row>) -> fmt::Result {
    let mut table = Table::new([
        "policy",
        "hits",
        "labels",
        "read",
        "different",
        "unsure",
        "wrong/hit",
        "95 %",
        "or unsure",
    ]);
    let mut any = false;
    for row in rows {
        let Some(judged) = &row.judged else { continue };
        for (labels, stratum) in &judged.strata {
            any = true;
            table.row([
                row.policy.clone(),
                stratum.hits.to_string(),
                (*labels).to_owned(),
                stratum.read.to_string(),
                stratum.different.to_string(),
                stratum.unsure.to_string(),
                percent(judged.wrong_per_hit),
                interval(judged.interval),
                percent(judged.wrong_or_unsure_per_hit),
            ]);
        }
    }
    if !any {
        return Ok(());
    }
    writeln!(
        out,
        "\nHits as a reader judged them, each kind of label standing for all of its hits"
    )?;
    table.write(out)
}

fn write_curves<'a>(out: &mut String, rows: impl Iterator<Item = &'a Row>) -> fmt::Result {
    let header = |share: f64, of: &str| format!("@{}%{of}", share * 100.0);
    let [a, b, c] = PER_REQUEST.map(|share| header(share, "/req"));
    let (d, e) = (header(PER_HIT, "/hit"), "proven".to_owned());
    let mut table = Table::new([
        "score of", "area", "95 %", &a, "95 %", &b, "95 %", &c, "95 %", &d, &e,
    ]);
    let (mut any, mut cells) = (false, Vec::new());
    for row in rows {
        let Some(curve) = &row.curve else { continue };
        any = true;
        cells.push(row.policy.as_str());
        let [x, y, z] = curve.hits_at_wrong_per_request;
        let pair = |figure: Figure| (percent(figure.value), interval(figure.interval));
        let ((x, x95), (y, y95), (z, z95)) = (pair(x), pair(y), pair(z));
        table.row([
            row.policy.clone(),
            plain(curve.area.value),
            interval(curve.area.interval),
            x,
            x95,
            y,
            y95,
            z,
            z95,
            percent(curve.hits_at_wrong_per_hit.value),
            percent(Some(curve.hits_at_proven_wrong_per_hit)),
        ]);
    }
    if !any {
        return Ok(());
    }
    writeln!(
        out,
        "\nHits (right ones, of the requests with a right answer stored) at a bound on wrong ones"
    )?;
    table.write(out)?;
    writeln!(
        out,
        "  The cut-off is the loosest that the judged decisions allow: this compares scores, it promises \
         nothing.\n  area: under precision against hit rate. proven: while the upper bound at 95 % on wrong/hit \
         is within 1 %."
    )
}

fn write_proven<'a>(out: &mut String, rows: impl Iterator<Item = &'a Row>) -> fmt::Result {
    let [a, b, c, d] = PROVEN.map(|bound| format!("@{}%/hit", bound * 100.0));
    let mut table = Table::new([
        "score of", &a, "times", &b, "times", &c, "times", &d, "times",
    ]);
    let mut any = false;
    for row in rows {
        let Some(curve) = &row.curve else { continue };
        any |= curve.proven.iter().any(|proven| proven.found > 0.0);
        let times = |proven: &Proven| {
            let times = proven.against_static;
            times.map_or("-".to_owned(), |times| format!("{times:.2}"))
        };
        let [a, b, c, d] = &curve.proven;
        let found = |proven: &Proven| percent(Some(proven.found));
        let cells = [a, b, c, d].map(|proven| [found(proven), times(proven)]);
        let [[a, at], [b, bt], [c, ct], [d, dt]] = cells;
        table.row([row.policy.clone(), a, at, b, bt, c, ct, d, dt]);
    }
    if !any {
        return writeln!(
            out,
            "\nNo score has enough right hits for a proof of {} % wrong per hit or less.",
            PROVEN[PROVEN.len() - 1] * 100.0
        );
    }
    writeln!(
        out,
        "\nHits (right ones, of the requests with a right answer stored) while the upper bound at 95 % on wrong/hit \
         is within a bound"
    )?;
    table.write(out)?;
    writeln!(
        out,
        "  times: those of the best threshold on a cosine of the same embedding; - where no threshold has any."
    )
}

fn write_promises<'a>(out: &mut String, rows: impl Iterator<Item = &'a PromiseRow>) -> fmt::Result {
    let mut table = Table::new([
        "score of", "promised", "sure", "cut-off", "realised", "95 %", "kept", "hits", "found",
        "95 %",
    ]);
    let mut any = false;
    for row in rows {
        for promise in &row.promises {
            any = true;
            table.row([
                row.policy.clone(),
                percent(Some(promise.promised)),
                if promise.confidence > 0.0 {
                    percent(Some(promise.confidence))
                } else {
                    "on average".to_owned()
                },
                plain(promise.cutoff),
                percent(promise.realised.value),
                interval(promise.realised.interval),
                if promise.broken { "NO" } else { "yes" }.to_owned(),
                percent(promise.hit_rate.value),
                percent(promise.true_hit_rate.value),
                interval(promise.true_hit_rate.interval),
            ]);
        }
    }
    if !any {
        return Ok(());
    }
    writeln!(
        out,
        "\nPromised wrong answers per request (cut-off chosen on the calibration part) and realised ones"
    )?;
    table.write(out)
}

fn write_streams<'a>(out: &mut String, rows: impl Iterator<Item = &'a StreamRow>) -> fmt::Result {
    let mut table = Table::new([
        "policy",
        "requests",
        "hits",
        "95 %",
        "wrong/hit",
        "wrong/req",
        "95 %",
        "first half",
        "second half",
        "p50 us",
        "p99 us",
        "2nd",
    ]);
    let mut any = false;
    for row in rows {
        any = true;
        let half = row.windows.len() / 2;
        let hits = |windows: &[Window]| {
            let (hits, requests) = windows.iter().fold((0, 0), |(hits, requests), window| {
                (
                    hits + window.right + window.wrong,
                    requests + window.requests,
                )
            });
            percent((requests > 0).then(|| hits as f64 / requests as f64))
        };
        let us = |of: fn(&Timing) -> f64| {
            row.lookup
                .as_ref()
                .map_or("-".to_owned(), |timing| format!("{:.0}", of(timing)))
        };
        table.row([
            row.policy.clone(),
            row.operating.counts.requests.to_string(),
            percent(row.operating.hit_rate.value),
            interval(row.operating.hit_rate.interval),
            percent(row.operating.wrong_per_hit.value),
            percent(row.operating.wrong_per_request.value),
            interval(row.operating.wrong_per_request.interval),
            hits(&row.windows[..half]),
            hits(&row.windows[half..]),
            us(|timing| timing.p50_us),
            us(|timing| timing.p99_us),
            percent(row.reached_second),
        ]);
    }
    if !any {
        return Ok(());
    }
    writeln!(
        out,
        "\nEach policy over the stream for real, its cache filling with what it missed"
    )?;
    table.write(out)
}

fn plain(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.3}"))
}
