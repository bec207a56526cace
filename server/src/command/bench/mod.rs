//! `askonce bench`: hits, wrong hits, latency and memory on labelled prompts.
//!
//! A benchmark of a semantic cache that gives a speed and no wrong-hit rate says nothing, and so does
//! a hit rate without the share of hits that were wrong. This command gives all of them for one build,
//! on data that says which prompts may share an answer, through the same [`SemanticCache`] that a
//! server uses.
//!
//! | file | does |
//! |---|---|
//! | `questions.rs` | pairs to answers; who is stored, who is asked |
//! | `pairs.rs` | pairs: retrieval from a filled cache, and each pair alone |
//! | `clusters.rs` | clusters: a stream through a cache that fills |
//! | `sweep.rs` | recorded decisions under every policy |
//! | `fit.rs` | the curve from similarity to probability |
//! | `report/` | the result as data, as text and as JSON |
//! | `quality.rs` | `askonce bench quality`: hits at a bound on wrong ones, by policy |
//! | `index.rs` | `askonce bench index`: the vector indexes by themselves |
//!
//! What it shares with the other tools that read labelled data, the data itself and the cache under test,
//! is in [`crate::quality`].
//!
//! The default policy and its curve are what this build ships. Data that the embedding model or the
//! curve was trained on flatters both; the command cannot know, so whoever publishes figures says so.
//!
//! [`SemanticCache`]: askonce::SemanticCache

mod clusters;
mod fit;
mod index;
mod pairs;
mod quality;
mod questions;
mod report;
mod sweep;

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use askonce::Config;
use askonce::config::IndexType;
use askonce::policy::PolicyConfig;
use clap::{Args as ClapArgs, Subcommand, ValueEnum};

use crate::quality::lab::{Lab, Progress, ServeAll};
use crate::quality::{data, lab, machine, seed, stats};
use report::{Report, SCHEMA, SettingsReport};

/// Requests of one stream when no limit is given: each policy streams for itself.
const STREAM_LIMIT: usize = 20_000;

/// Settings of a benchmark run.
#[derive(Debug, ClapArgs)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Without --pairs and --clusters, the project's own golden prompts are used.\n\
    A pairs row is {\"a\": text, \"b\": text, \"label\": 1 or 0}, a clusters row is {\"text\": text, \"cluster\": name}."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    part: Option<Part>,

    /// Labelled pairs: JSON lines, plain or gzip. May be given several times.
    #[arg(long, value_name = "FILE")]
    pairs: Vec<PathBuf>,

    /// Texts with the name of their cluster: JSON lines, plain or gzip. May be given several times.
    #[arg(long, value_name = "FILE")]
    clusters: Vec<PathBuf>,

    /// Most lookups per file and policy, sampled. Default: all of a pairs file, 20000 of a clusters
    /// file.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,

    /// Recorded lookups to ask again for real, per policy; also the number of timed lookups.
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..))]
    verify: u64,

    /// The structure of the vector index. Flat is exact; auto is flat too, up to a limit past which it
    /// becomes an approximate one while it is measured.
    #[arg(long, value_name = "TYPE", value_enum, default_value_t = Index::Flat)]
    index: Index,

    /// Seed of every random choice.
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,

    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,

    /// Write the JSON report here, beside what is printed.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Write the wrong hits of the pairs files here, as pairs rows, to be judged again. Holds prompts.
    #[arg(long, value_name = "FILE")]
    wrong_hits: Option<PathBuf>,
}

/// What can be measured by itself.
#[derive(Debug, Subcommand)]
enum Part {
    /// Measure the vector indexes: lookups at equal recall, inserts, memory, a load of writes, growth.
    Index(index::Args),
    /// Measure hit quality: hits at a bound on wrong ones, per set, embedding and policy, with intervals.
    Quality(Box<quality::Args>),
}

/// The structure of the vector index, as on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Index {
    Auto,
    Flat,
    Binary,
    #[value(name = "hnsw_rs", alias = "hnsw")]
    HnswRs,
}

impl From<Index> for IndexType {
    fn from(index: Index) -> Self {
        match index {
            Index::Auto => Self::Auto,
            Index::Flat => Self::Flat,
            Index::Binary => Self::Binary,
            Index::HnswRs => Self::HnswRs,
        }
    }
}

/// Runs the benchmark.
///
/// # Errors
/// A file cannot be read or written; the cache cannot be built; what the cache serves is not what the
/// record of its decisions says.
pub(crate) async fn run(args: Args) -> Result<()> {
    match args.part {
        Some(Part::Index(args)) => return index::run(args).await,
        Some(Part::Quality(args)) => return quality::run(*args).await,
        None => {}
    }
    let start = Instant::now();
    let progress = Progress::new(args.json);
    let golden = args.pairs.is_empty() && args.clusters.is_empty();
    // Every file is read before anything long begins: the last one may have a bad row.
    let mut pairs: Vec<_> = args
        .pairs
        .iter()
        .map(|path| data::pairs(path))
        .collect::<Result<_>>()?;
    let mut clusters: Vec<_> = args
        .clusters
        .iter()
        .map(|path| data::clusters(path))
        .collect::<Result<_>>()?;
    if golden {
        pairs.push(data::golden_pairs()?);
        clusters.push(data::golden_clusters()?);
    }
    let at_most = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let limit = args.limit.map(at_most);
    let settings = pairs::Settings {
        seed: args.seed,
        index: args.index.into(),
        limit,
        verify: at_most(args.verify),
        progress,
    };

    let mut report = Report {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION"),
        machine: machine::Machine::here(),
        settings: settings_report(settings).await?,
        pairs: Vec::new(),
        clusters: Vec::new(),
        seconds: 0.0,
    };
    let mut wrong_hits = Vec::new();
    for data in pairs {
        let name = data.source.name.clone();
        let done = pairs::run(data, settings).await;
        let (done, wrong) = done.with_context(|| format!("failed to run the pairs of {name}"))?;
        report.pairs.push(done);
        wrong_hits.extend(wrong);
    }
    for data in clusters {
        let name = data.source.name.clone();
        let limit = limit.unwrap_or(STREAM_LIMIT);
        let done = clusters::run(data, settings, limit).await;
        report
            .clusters
            .push(done.with_context(|| format!("failed to run the clusters of {name}"))?);
    }
    report.seconds = start.elapsed().as_secs_f64();

    let json = || -> Result<String> {
        Ok(serde_json::to_string_pretty(&report).context("the report has no JSON form")? + "\n")
    };
    if let Some(path) = &args.output {
        write(path, &json()?)?;
    }
    if let Some(path) = &args.wrong_hits {
        let row = |hit| serde_json::to_string(hit).map(|row| row + "\n");
        write(
            path,
            &wrong_hits.iter().map(row).collect::<Result<String, _>>()?,
        )?;
    }
    let text = if args.json {
        json()?
    } else {
        report::render(&report)
    };
    io::stdout()
        .write_all(text.as_bytes())
        .context("failed to print the report")
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))
}

async fn settings_report(settings: pairs::Settings) -> Result<SettingsReport> {
    let defaults = Config::default().semantic;
    let lab = Lab::new(settings.index, Arc::new(ServeAll)).await?;
    Ok(SettingsReport {
        seed: settings.seed,
        limit: settings.limit,
        embedder: lab.cache.fingerprint().map(str::to_owned),
        index: settings.index,
        candidates: defaults.candidates,
        volatile: "ignore",
        default_policy: PolicyConfig::default(),
    })
}
