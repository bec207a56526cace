//! A report as text for a terminal: aligned tables, each with what its columns mean.

use std::fmt::{self, Write};

use super::super::sweep::Unlabelled;
use super::{
    ClustersReport, CurveReport, DirectReport, GuardsReport, LatencyReport, MemoryReport,
    PairsReport, PolicyRates, Report,
};
use crate::quality::table::{Table, interval, percent};

/// Thresholds of the sweep that the tables show; `--json` has all of them.
const SHOWN: [&str; 8] = [
    "0.70", "0.75", "0.80", "0.85", "0.90", "0.95", "0.97", "0.99",
];

/// The report as text.
pub(in super::super) fn render(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_report(&mut out, report);
    out
}

fn write_report(out: &mut String, report: &Report) -> fmt::Result {
    let machine = &report.machine;
    let settings = &report.settings;
    writeln!(
        out,
        "askonce bench {}, commit {}, {}, {}",
        report.version,
        machine.commit.as_deref().unwrap_or("unknown"),
        machine.date,
        if machine.optimised {
            "optimised build"
        } else {
            "DEBUG BUILD: times mean nothing"
        },
    )?;
    writeln!(
        out,
        "on {}, {} cores, {} {}",
        machine.cpu.as_deref().unwrap_or("an unknown processor"),
        machine.cores,
        machine.os,
        machine.architecture,
    )?;
    writeln!(
        out,
        "embedder {}, index {:?}, {} candidates, seed {}, volatile prompts: {}",
        settings.embedder.as_deref().unwrap_or("none"),
        settings.index,
        settings.candidates,
        settings.seed,
        settings.volatile,
    )?;
    for pairs in &report.pairs {
        write_pairs(out, pairs)?;
    }
    for clusters in &report.clusters {
        write_clusters(out, clusters)?;
    }
    writeln!(out, "\nDone in {:.1} s.", report.seconds)
}

fn write_pairs(out: &mut String, pairs: &PairsReport) -> fmt::Result {
    heading(out, &format!("Pairs: {}", pairs.source.name))?;
    if let Some(sha256) = &pairs.source.sha256 {
        writeln!(out, "SHA-256 {sha256}")?;
    }
    writeln!(
        out,
        "{} pairs ({} same, {} different, {} of them against the others' verdict), {} texts, {} answers.",
        pairs.source.rows,
        pairs.positive_pairs,
        pairs.negative_pairs,
        pairs.contradictions,
        pairs.texts,
        pairs.answers,
    )?;
    writeln!(
        out,
        "{} texts stored, {} others asked, {} of these ({}) have their right answer in the cache.",
        pairs.stored,
        pairs.asked,
        pairs.answerable,
        percent(Some(pairs.answerable as f64 / pairs.asked.max(1) as f64)),
    )?;
    let volatile: usize = pairs.volatile.values().sum();
    writeln!(
        out,
        "Asked and exact-only: {}. No candidate: {}. Volatile, treated as any other: {volatile}{}.",
        pairs.exact_only.values().sum::<usize>(),
        pairs.no_candidate,
        named(&pairs.volatile),
    )?;

    writeln!(out, "\nRetrieval: what a filled cache serves")?;
    let shown = |rates: &&PolicyRates| match rates.policy.strip_prefix("threshold ") {
        Some(rest) => SHOWN.iter().any(|shown| rest.starts_with(shown)),
        None => true,
    };
    rates_table(pairs.retrieval.iter().filter(shown)).write(out)?;
    writeln!(
        out,
        "  hits: of all requests. found: right hits, of the requests whose right answer is stored. \
         wrong/hit: hits\n  not known to be right, with 95 % interval; labelled: only those that a \
         label says are wrong. wrong/req: of\n  all requests.",
    )?;

    writeln!(
        out,
        "\nBest threshold for a budget of wrong hits (chosen on half of the answers, judged on the rest)"
    )?;
    let mut table = Table::new([
        "budget",
        "guards",
        "threshold",
        "hits",
        "found",
        "wrong/hit",
        "95 %",
        "wrong/req",
    ]);
    for budget in &pairs.budgets {
        let judged = budget.judged.as_ref();
        table.row([
            format!("{:.0} %", budget.wrong_per_request * 100.0),
            yes_no(budget.guards),
            budget
                .threshold
                .map_or("none".to_owned(), |threshold| format!("{threshold:.4}")),
            percent(judged.and_then(|rates| rates.hit_rate)),
            percent(judged.and_then(|rates| rates.true_hit_rate)),
            percent(judged.and_then(|rates| rates.wrong_per_hit)),
            interval(judged.and_then(|rates| rates.wrong_per_hit_95)),
            percent(judged.and_then(|rates| rates.wrong_per_request)),
        ]);
    }
    table.write(out)?;

    for curve in &pairs.curves {
        write_curve(out, curve)?;
    }
    if pairs.curves.is_empty() {
        writeln!(
            out,
            "\nNo curve: it takes right and wrong candidates, the right ones nearer."
        )?;
    }
    write_guards(out, &pairs.guards)?;
    write_direct(out, &pairs.direct)?;

    let agreed: Vec<String> = pairs
        .verification
        .iter()
        .map(|check| {
            format!(
                "{}: {} of {} ({} served)",
                check.policy, check.agreed, check.lookups, check.served
            )
        })
        .collect();
    writeln!(
        out,
        "\nReal lookups that served what the record says: {}.",
        agreed.join("; ")
    )?;
    write_latency(out, &pairs.latency)?;
    write_memory(out, &pairs.memory)
}

fn rates_table<'a>(rates: impl Iterator<Item = &'a PolicyRates>) -> Table<9> {
    let mut table = Table::new([
        "policy",
        "hits",
        "found",
        "wrong/hit",
        "95 %",
        "labelled",
        "wrong/req",
        "right",
        "wrong",
    ]);
    for PolicyRates { policy, rates, .. } in rates {
        table.row([
            policy.clone(),
            percent(rates.hit_rate),
            percent(rates.true_hit_rate),
            percent(rates.wrong_per_hit),
            interval(rates.wrong_per_hit_95),
            percent(rates.labelled_wrong_per_hit),
            percent(rates.wrong_per_request),
            rates.tally.right.to_string(),
            rates.tally.wrong().to_string(),
        ]);
    }
    table
}

fn write_curve(out: &mut String, report: &CurveReport) -> fmt::Result {
    let unlabelled = match report.unlabelled {
        Unlabelled::Wrong => "texts that no label links count as wrong",
        Unlabelled::LeftOut => "only where a label links the texts",
    };
    writeln!(
        out,
        "\nProbability of being right, by similarity of the nearest text that no guard objects to;\n\
         {unlabelled} (fitted on {} decisions):",
        report.fitted_on,
    )?;
    let curve = &report.curve;
    writeln!(out, "\n  semantic:\n    policy:\n      type: cost_aware")?;
    write!(
        out,
        "      curve: {{ intercept: {}, slope: {}",
        curve.intercept, curve.slope
    )?;
    if let Some(fingerprint) = &curve.fingerprint {
        write!(out, ", fingerprint: \"{fingerprint}\"")?;
    }
    writeln!(out, " }}\n")?;
    if report.similarity_at_95 <= 1.0 {
        writeln!(
            out,
            "It says 95 % from similarity {:.4} on.",
            report.similarity_at_95
        )?;
    } else {
        writeln!(
            out,
            "It says 95 % at no similarity: this data shows no such certainty."
        )?;
    }
    for (name, reliability) in [
        ("it", &report.reliability),
        ("the built-in curve", &report.built_in_reliability),
    ] {
        let Some(reliability) = reliability else {
            continue;
        };
        writeln!(
            out,
            "On {} other decisions {name} has Brier score {:.4} (base rate alone {:.4}), expected \
             calibration error {:.4}.",
            reliability.decisions,
            reliability.brier,
            reliability.brier_of_base_rate,
            reliability.expected_calibration_error,
        )?;
    }
    if let Some(reliability) = &report.reliability {
        let mut table = Table::new(["says", "mean", "is", "95 %", "decisions"]);
        for bin in &reliability.bins {
            table.row([
                format!("{:.1} to {:.1}", bin.from, bin.to),
                percent(Some(bin.stated)),
                percent(Some(bin.actual)),
                interval(bin.actual_95),
                bin.decisions.to_string(),
            ]);
        }
        table.write(out)?;
    }
    rates_table(report.policies.iter()).write(out)
}

fn write_guards(out: &mut String, report: &GuardsReport) -> fmt::Result {
    writeln!(
        out,
        "\nWhat each guard stops of the hits at threshold {:.4} without guards",
        report.threshold
    )?;
    let mut table = Table::new([
        "guard",
        "right",
        "of right",
        "wrong",
        "of wrong",
        "right if fires",
        "95 %",
    ]);
    for value in &report.values {
        table.row([
            value.guard.as_str().to_owned(),
            value.right_stopped.to_string(),
            percent(value.right_share),
            value.wrong_stopped.to_string(),
            percent(value.wrong_share),
            percent(value.right_when_it_fires),
            interval(value.right_when_it_fires_95),
        ]);
    }
    table.write(out)
}

fn write_direct(out: &mut String, report: &DirectReport) -> fmt::Result {
    writeln!(
        out,
        "\nDirect: each pair alone ({} same, {} different, {} not comparable)",
        report.positives, report.negatives, report.not_comparable,
    )?;
    if let Some(ranking) = report.ranking {
        writeln!(
            out,
            "Similarity alone: ROC-AUC {:.4}, average precision {:.4}.",
            ranking.auc, ranking.average_precision,
        )?;
    }
    let mut table = Table::new(["policy", "same served", "different served"]);
    for point in &report.points {
        let shown = point
            .policy
            .strip_prefix("threshold ")
            .is_none_or(|rest| SHOWN.iter().any(|shown| rest.starts_with(shown)));
        if shown {
            table.row([
                point.policy.clone(),
                percent(point.positives_served),
                percent(point.negatives_served),
            ]);
        }
    }
    table.write(out)?;
    let mut table = Table::new(["guard fires on", "same", "different"]);
    for fires in &report.guard_fires {
        table.row([
            fires.guard.to_owned(),
            percent(fires.on_positives),
            percent(fires.on_negatives),
        ]);
    }
    table.write(out)?;
    if report.kinds.is_empty() {
        return Ok(());
    }
    let mut table = Table::new([
        "kind",
        "same",
        "served",
        "at 0.90",
        "different",
        "served",
        "at 0.90",
    ]);
    for kind in &report.kinds {
        table.row([
            kind.kind.clone(),
            kind.positives.to_string(),
            kind.positives_served.to_string(),
            kind.positives_served_at_90.to_string(),
            kind.negatives.to_string(),
            kind.negatives_served.to_string(),
            kind.negatives_served_at_90.to_string(),
        ]);
    }
    table.write(out)?;
    writeln!(
        out,
        "  served: by the default policy. at 0.90: by threshold 0.90 with guards."
    )
}

fn write_latency(out: &mut String, report: &LatencyReport) -> fmt::Result {
    writeln!(
        out,
        "\nLatency with {} entries, one at a time, default policy",
        report.entries
    )?;
    let mut table = Table::new(["stage", "p50 us", "p99 us", "samples"]);
    for stage in &report.stages {
        table.row([
            stage.stage.to_owned(),
            format!("{:.1}", stage.timing.p50_us),
            format!("{:.1}", stage.timing.p99_us),
            stage.timing.samples.to_string(),
        ]);
    }
    table.write(out)?;
    writeln!(
        out,
        "  exact_hit: a whole lookup of the very same text. exact, embed, search, decide: the stages of \
         a lookup of\n  another text; decide judges all candidates, a lookup stops at the first it \
         serves. store: from empty to full.",
    )
}

fn write_memory(out: &mut String, memory: &MemoryReport) -> fmt::Result {
    let bytes = |bytes: Option<f64>| bytes.map_or("-".to_owned(), |bytes| format!("{bytes:.0}"));
    writeln!(
        out,
        "\nBytes per entry: {} counted against the bound (index {}), {} resident; prompts of {} and \
         answers of {} bytes included.",
        bytes(memory.counted_bytes_per_entry),
        bytes(memory.index_bytes_per_entry),
        bytes(memory.resident_bytes_per_entry),
        bytes(memory.prompt_bytes),
        bytes(memory.answer_bytes),
    )
}

fn write_clusters(out: &mut String, report: &ClustersReport) -> fmt::Result {
    heading(out, &format!("Clusters: {}", report.source.name))?;
    if let Some(sha256) = &report.source.sha256 {
        writeln!(out, "SHA-256 {sha256}")?;
    }
    writeln!(
        out,
        "{} of {} texts in random order, each asked and on a miss stored. {} clusters; {} of the \
         requests repeat one.",
        report.requests,
        report.source.rows,
        report.clusters,
        percent(report.repeats),
    )?;
    writeln!(out)?;
    let mut table = Table::new([
        "policy",
        "hits",
        "exact",
        "wrong/hit",
        "95 %",
        "wrong/req",
        "entries",
        "hits by quarter",
        "wrong/req by quarter",
    ]);
    for stream in &report.streams {
        let quarters = |part: fn(&super::Quarter) -> usize| {
            let shares = stream.quarters.iter().map(|quarter| {
                format!(
                    "{:.1}",
                    100.0 * part(quarter) as f64 / quarter.requests.max(1) as f64
                )
            });
            shares.collect::<Vec<_>>().join(" ")
        };
        table.row([
            stream.policy.clone(),
            percent(stream.hit_rate),
            stream.total.exact.to_string(),
            percent(stream.wrong_per_hit),
            interval(stream.wrong_per_hit_95),
            percent(stream.wrong_per_request),
            stream.total.entries.to_string(),
            quarters(super::Quarter::hits),
            quarters(|quarter| quarter.wrong),
        ]);
    }
    table.write(out)?;
    writeln!(
        out,
        "  A hit is wrong when its entry is of another cluster. In data of intents one cluster holds \
         texts with\n  different names, dates and amounts: there the wrong hits are too few and the \
         possible hits too many.",
    )
}

fn heading(out: &mut String, title: &str) -> fmt::Result {
    writeln!(out, "\n{title}\n{}", "=".repeat(title.chars().count()))
}

fn yes_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

/// ` (reason 3, other 1)`, or nothing.
fn named(counts: &std::collections::BTreeMap<&'static str, usize>) -> String {
    if counts.is_empty() {
        return String::new();
    }
    let counts: Vec<String> = counts
        .iter()
        .map(|(name, n)| format!("{name} {n}"))
        .collect();
    format!(" ({})", counts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quality::stats::Interval;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(["policy", "hits"]);
        table.row(["a long name".to_owned(), "1.00 %".to_owned()]);
        let mut out = String::new();
        table.write(&mut out).unwrap();
        assert_eq!(out, "  policy         hits\n  a long name  1.00 %\n");
    }

    #[test]
    fn what_cannot_be_divided_is_a_dash() {
        assert_eq!(percent(None), "-");
        assert_eq!(percent(Some(0.123_45)), "12.35 %");
        assert_eq!(
            interval(Some(Interval {
                low: 0.0,
                high: 0.5
            })),
            "0.00-50.00"
        );
    }
}
