//! `askonce bench index`: the vector indexes of this build against each other and the machine.
//!
//! The measurement is `askonce-measure`, which `cargo bench --bench index` runs too, there with the
//! indexes of others beside ours. This file has the command line.

use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use askonce_measure::{Plan, Report, draw};
use clap::Args as ClapArgs;

/// Settings of a run.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Without --quick, --size and --dimension this takes hours. The indexes of other projects take \
    part in `cargo bench --bench index`, in the source tree."
)]
pub(super) struct Args {
    /// 10,000 and 100,000 synthetic rows and 20,000 prompts, a load of writes, growth to a million:
    /// some minutes.
    #[arg(long)]
    quick: bool,

    /// Only a synthetic set of this many rows.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    size: Option<u32>,

    /// Only synthetic sets of this many components, a multiple of 8.
    #[arg(long, value_name = "D", value_parser = clap::value_parser!(u16).range(8..=8192))]
    dimension: Option<u16>,

    /// Folder of labelled prompts, `*_clusters.jsonl`. Without it, prompts are made from templates.
    #[arg(long, value_name = "DIR", env = "ASKONCE_BENCH_DATA")]
    data: Option<PathBuf>,

    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,

    /// Write the JSON report here, beside what is printed.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Draw plots, as SVG, into this folder.
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
}

impl Args {
    fn plan(&self) -> Plan {
        let plan = if self.quick {
            Plan::quick()
        } else {
            Plan::full()
        };
        let number = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        let mut plan = plan.only(self.size.map(number), self.dimension.map(usize::from));
        plan.prompts.clone_from(&self.data);
        plan
    }
}

/// Runs the measurement.
///
/// # Errors
/// A setting cannot be used, a file cannot be read or written, or an index fails.
pub(super) async fn run(args: Args) -> Result<()> {
    let plan = args.plan();
    let measured = tokio::task::spawn_blocking(move || {
        askonce_measure::run(&plan, &|line| {
            // Whoever closed the screen still gets the report.
            writeln!(io::stderr(), "{line}").ok();
        })
    });
    let report: Report = measured
        .await
        .context("the measurement panicked")?
        .context("failed to measure")?;
    if let Some(folder) = &args.plots {
        draw(&report, folder).context("failed to draw")?;
    }
    let json = || -> Result<String> {
        Ok(serde_json::to_string_pretty(&report).context("the report has no JSON form")? + "\n")
    };
    if let Some(path) = &args.output {
        super::write(path, &json()?)?;
    }
    let text = if args.json { json()? } else { report.text() };
    io::stdout()
        .write_all(text.as_bytes())
        .context("failed to print the report")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn a_size_and_a_dimension_make_one_set() {
        let line = ["bench", "--quick", "--size", "5000", "--dimension", "64"];
        let plan = Line::parse_from(line).args.plan();
        assert_eq!(plan.sets.len(), 1);
        assert_eq!((plan.sets[0].rows, plan.sets[0].dimension), (5_000, 64));
    }

    #[tokio::test]
    async fn a_small_run_writes_its_report_and_its_plots() {
        let folder = tempfile::tempdir().unwrap();
        let (output, plots) = (
            folder.path().join("report.json"),
            folder.path().join("plots"),
        );
        let mut args =
            Line::parse_from(["bench", "--quick", "--size", "500", "--dimension", "16"]).args;
        args.output = Some(output.clone());
        args.plots = Some(plots.clone());
        run(args).await.unwrap();
        let text = std::fs::read_to_string(output).unwrap();
        let report: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(report["sets"][0]["rows"], 500);
        let names: Vec<&str> = report["sets"][0]["contenders"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|one| one["name"].as_str())
            .collect();
        assert!(
            names.contains(&"ours") && names.contains(&"flat"),
            "{names:?}"
        );
        let plot = std::fs::read_to_string(plots.join("synthetic-500-x-16.svg")).unwrap();
        assert!(plot.contains("lookups a second") && plot.contains("ours"));
    }
}
