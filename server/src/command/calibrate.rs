//! `askonce calibrate`: from labelled data or a log of decisions to a policy that keeps a promise.
//!
//! Data is played through a real cache and every decision recorded, as `bench quality` does; a log holds
//! such records already. What then happens is [`askonce::calibrate`]'s: this command reads, writes, and
//! says what came out.
//!
//! Parts of the data (see `quality/split.rs`): with `--fit-trees` the models are fitted on the part `dev`.
//! Maps and certificates come from the part `calibration`, half of its groups each. The part `test` is
//! left for `bench quality`, and the part `train` was seen by the embedding models.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail};
use askonce::calibrate::{
    AdditiveSettings, FitReport, FitSettings, ForestSettings, Models, Parts, PromiseReport, fit,
};
use askonce::decision::DecisionRecord;
use askonce::policy::{Bound, Card, DataSet, PolicyFile};
use clap::{Args as ClapArgs, ValueEnum};
use serde::Serialize;
use serde_json::Value;

use super::{Global, print};
use crate::config::ServerConfig;
use crate::quality::lab::Progress;
use crate::quality::plot::{Line, Picture, draw};
use crate::quality::table::{Table, percent};
use crate::quality::{Part, RecordSettings, Wording, corpus, data, record};

/// Settings of `calibrate`.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "A promise that the data cannot support is refused, and nothing is written: the message says how\n\
    many labelled decisions are missing. Use the result with\n\
    --set semantic.policy.type=calibrated --set semantic.policy.path=policy.json"
)]
pub(crate) struct Args {
    /// Labelled pairs or clusters: JSON lines, plain or gzip. May be given several times.
    #[arg(long, value_name = "FILE", num_args = 1.., required_unless_present = "log")]
    data: Vec<PathBuf>,

    /// Files of the same form that tell only which texts belong together: none of what they connect is both
    /// fitted on and certified on. Parts of the built-in models' own data are told apart by all three files of it.
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "data")]
    link: Vec<PathBuf>,

    /// Logs of decisions with labels: JSON lines, plain or gzip. May be given several times.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    log: Vec<PathBuf>,

    /// The policy whose models are kept. Default: the built-in one.
    #[arg(long, value_name = "FILE", conflicts_with = "fit_trees")]
    models: Option<PathBuf>,

    /// Fit the models too, not only their calibration.
    #[arg(long)]
    fit_trees: bool,

    /// What is fitted with --fit-trees.
    #[arg(long, value_name = "KIND", value_enum, default_value_t = Kind::Trees)]
    kind: Kind,

    /// Most trees of each model.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    trees: u32,

    /// A rate of wrong answers per request that the policy must keep. May be given several times.
    #[arg(long, value_name = "RATE", value_parser = rate)]
    wrong_per_request: Vec<f64>,

    /// A rate of wrong answers per hit that the policy must keep. May be given several times.
    #[arg(long, value_name = "RATE", value_parser = rate)]
    wrong_per_hit: Vec<f64>,

    /// How sure the promises must be.
    #[arg(long, value_name = "SHARE", default_value_t = 0.95, value_parser = rate)]
    confidence: f64,

    /// How much a decision of a set counts in fitting: `NAME=WEIGHT`, where NAME begins the set's name. May
    /// be given several times. Default: 1.
    #[arg(long, value_name = "NAME=WEIGHT", value_parser = set_weight)]
    set_weight: Vec<(String, f64)>,

    /// Most requests played of each set and part. Default: all.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,

    /// How answers to texts that ask for the same are worded in the cache that `--data` is played through: all the same,
    /// or each anew, as a model does.
    #[arg(long, value_name = "WORDING", value_enum, default_value_t)]
    answers: Wording,

    /// Seed of every random choice.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// What the policy does not promise, for its card.
    #[arg(long, value_name = "TEXT", default_value = "")]
    limits: String,

    /// Where the policy is written.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,

    /// Write a report with plots here.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Models that can be fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Gradient boosted trees over all evidence.
    Trees,
    /// One monotone curve per feature.
    Additive,
    /// A logistic curve over the similarity alone.
    Curve,
}

fn rate(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|rate| *rate > 0.0 && *rate < 1.0)
        .ok_or_else(|| "give a number above 0 and below 1".to_owned())
}

fn set_weight(text: &str) -> Result<(String, f64), String> {
    text.split_once('=')
        .and_then(|(name, weight)| Some((name.to_owned(), weight.parse::<f64>().ok()?)))
        .filter(|(_, weight)| *weight > 0.0 && weight.is_finite())
        .ok_or_else(|| "give a name, =, and a number above 0".to_owned())
}

/// What the command prints as JSON.
#[derive(Serialize)]
struct Summary<'a> {
    output: String,
    models: &'static str,
    vetoes: &'a [String],
    least_similarity: f32,
    prior_variance: f64,
    #[serde(flatten)]
    report: &'a FitReport,
}

/// Calibrates.
///
/// # Errors
/// A file cannot be read or written; the data does not do for a fit; a promise that was asked for cannot be
/// certified.
pub(crate) async fn run(args: Args, global: &Global) -> Result<()> {
    let records = Records::read(&args, global).await?;
    let parts = records.parts(&args);
    let settings = settings(&args, &records)?;
    let (file, report) = fit(&parts, &settings)?;
    refuse_the_unsupported(&args, &report)?;
    let json = file.to_json()?;
    std::fs::write(&args.output, json)
        .with_context(|| format!("failed to write {}", args.output.display()))?;
    let words = words(&file, &report)?;
    if let Some(path) = &args.html {
        std::fs::write(path, page(&words, &report)?)
            .with_context(|| format!("failed to write {}", path.display()))?;
    }
    let summary = Summary {
        output: args.output.display().to_string(),
        models: file.stages.fast.model.as_str(),
        vetoes: &file.vetoes,
        least_similarity: file.least_similarity,
        prior_variance: file.prior_variance,
        report: &report,
    };
    print(global, &serde_json::to_value(summary)?, |_: &Value| words)
}

/// Decisions by what they may be used for.
#[derive(Default)]
struct Records {
    /// Of the part for models, of data.
    dev: Vec<DecisionRecord>,
    /// Of the part for calibration, of data.
    calibration: Vec<DecisionRecord>,
    /// Of logs.
    logged: Vec<DecisionRecord>,
    sources: Vec<DataSet>,
}

impl Records {
    async fn read(args: &Args, global: &Global) -> Result<Self> {
        let mut records = Self::default();
        if !args.data.is_empty() {
            let config = ServerConfig::load(&global.sources())?.settings.engine();
            let play = |part| RecordSettings {
                parts: vec![part],
                links: args.link.clone(),
                seed: args.seed,
                limit: args.limit.and_then(|limit| usize::try_from(limit).ok()),
                wording: args.answers,
                embedder: config.semantic.embedder.clone(),
                progress: Progress::new(global.json),
                ..RecordSettings::default()
            };
            records.calibration = record(&args.data, &play(Part::Calibration)).await?;
            if args.fit_trees {
                records.dev = record(&args.data, &play(Part::Dev)).await?;
            }
            for set in corpus::read(&args.data)? {
                let of_set = |records: &[DecisionRecord]| {
                    let name = Some(set.name.as_str());
                    records.iter().filter(|r| r.set.as_deref() == name).count() as u64
                };
                records.sources.push(DataSet {
                    name: set.name.clone(),
                    sha256: set.source.sha256.clone().unwrap_or_default(),
                    decisions: of_set(&records.calibration) + of_set(&records.dev),
                });
            }
        }
        for path in &args.log {
            let log = data::decisions(path)?;
            records.sources.push(DataSet {
                name: log.source.name,
                sha256: log.source.sha256.unwrap_or_default(),
                decisions: log.rows.len() as u64,
            });
            records.logged.extend(log.rows);
        }
        Ok(records)
    }

    fn parts(&self, args: &Args) -> Parts<'_> {
        let (fit, calibration) = if args.fit_trees {
            (0.5, 0.25)
        } else {
            (0.0, 0.5)
        };
        let mut parts = Parts::split(&self.logged, fit, calibration, args.seed);
        let of_data = Parts::split(&self.calibration, 0.0, 0.5, args.seed);
        parts.fit.extend(&self.dev);
        parts.calibration.extend(of_data.calibration);
        parts.certification.extend(of_data.certification);
        parts
    }
}

fn settings(args: &Args, records: &Records) -> Result<FitSettings> {
    let usual = FitSettings::default();
    let with = |usual: &[f64], asked: &[f64]| {
        let mut rates = [usual, asked].concat();
        rates.sort_by(f64::total_cmp);
        rates.dedup();
        rates
    };
    let models = match (args.fit_trees, args.kind) {
        (true, Kind::Trees) => Models::Forest(ForestSettings {
            trees: args.trees,
            seed: args.seed,
            ..ForestSettings::default()
        }),
        (true, Kind::Additive) => Models::Additive(AdditiveSettings::default()),
        (true, Kind::Curve) => Models::Curve,
        (false, _) => Models::Keep(Box::new(match &args.models {
            Some(path) => PolicyFile::read(path)?,
            None => PolicyFile::builtin()?,
        })),
    };
    // The names of the sets in full, for the beginnings that were given.
    let mut set_weights = BTreeMap::new();
    for (start, weight) in &args.set_weight {
        let named = || {
            records
                .sources
                .iter()
                .filter(|set| set.name.starts_with(start))
        };
        if named().next().is_none() {
            bail!("--set-weight: no set's name begins with {start}");
        }
        set_weights.extend(named().map(|set| (set.name.clone(), *weight)));
    }
    Ok(FitSettings {
        models,
        per_request: with(&usual.per_request, &args.wrong_per_request),
        per_hit: with(&usual.per_hit, &args.wrong_per_hit),
        confidence: args.confidence,
        set_weights,
        created: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        card: Card {
            made_by: made_by(args),
            data: records.sources.clone(),
            limits: args.limits.clone(),
            ..Card::default()
        },
        seed: args.seed,
        ..usual
    })
}

/// The command, with the names of files and without their folders.
fn made_by(args: &Args) -> String {
    let mut text = "askonce calibrate".to_owned();
    let models: Vec<_> = args.models.iter().cloned().collect();
    for (flag, paths) in [
        ("--data", &args.data),
        ("--link", &args.link),
        ("--log", &args.log),
        ("--models", &models),
    ] {
        for path in paths {
            let name = path.file_name().unwrap_or(path.as_os_str());
            let _ = write!(text, " {flag} {}", name.to_string_lossy());
        }
    }
    if args.fit_trees {
        let kind = args.kind.to_possible_value();
        let kind = kind.as_ref().map_or("trees", |kind| kind.get_name());
        let _ = write!(text, " --fit-trees --kind {kind} --trees {}", args.trees);
    }
    for (name, weight) in &args.set_weight {
        let _ = write!(text, " --set-weight {name}={weight}");
    }
    for rate in &args.wrong_per_request {
        let _ = write!(text, " --wrong-per-request {rate}");
    }
    for rate in &args.wrong_per_hit {
        let _ = write!(text, " --wrong-per-hit {rate}");
    }
    if let Some(limit) = args.limit {
        let _ = write!(text, " --limit {limit}");
    }
    let _ = write!(
        text,
        " --confidence {} --seed {}",
        args.confidence, args.seed
    );
    if args.answers == Wording::Anew {
        text.push_str(" --answers anew");
    }
    text
}

/// Fails when a promise that was asked for was not certified.
fn refuse_the_unsupported(args: &Args, report: &FitReport) -> Result<()> {
    // What the command promises is what the widest use of the policy keeps.
    let stages = report.promises.first().map(|promise| promise.stages);
    let asked = |promise: &&PromiseReport| {
        let rates = match promise.bound {
            Bound::PerRequest => &args.wrong_per_request,
            Bound::PerHit => &args.wrong_per_hit,
        };
        promise.category.is_none()
            && Some(promise.stages) == stages
            && promise.confidence == args.confidence
            && rates.contains(&promise.rate)
    };
    let mut missing = String::new();
    for promise in report.promises.iter().filter(asked) {
        if let Some(shortage) = &promise.shortage {
            let _ = write!(
                missing,
                "\n  {} {}: at best {} of {} served were wrong, of {} labelled decisions; {}",
                promise.bound.as_str(),
                promise.rate,
                shortage.wrong,
                shortage.served,
                shortage.requests,
                match shortage.missing {
                    Some(labels) => format!("{labels} more labelled decisions like these would do"),
                    None =>
                        "more labels like these would not do: even the surest answers are wrong \
                             too often"
                            .to_owned(),
                }
            );
        }
    }
    if !missing.is_empty() {
        bail!("the data does not support what was to be promised; no policy was written{missing}");
    }
    Ok(())
}

/// The report for people.
fn words(file: &PolicyFile, report: &FitReport) -> Result<String> {
    let mut out = format!(
        "{} decisions for models, {} for calibration, {} for certificates; {} without labels left out\n\
         models: {}; embeddings: {}\n\n",
        report.fitted,
        report.calibrated,
        report.certified,
        report.unlabelled,
        file.stages.fast.model.as_str(),
        file.spaces.join(", "),
    );
    out.push_str("promises\n");
    let mut table = Table::new([
        "promise",
        "rate",
        "confidence",
        "stages",
        "category",
        "cut-off",
        "hit rate",
        "wrong",
        "of hits",
        "missing labels",
    ]);
    for promise in &report.promises {
        let share = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
        let found = promise.cutoff;
        table.row([
            promise.bound.as_str().to_owned(),
            promise.rate.to_string(),
            promise.confidence.to_string(),
            promise.stages.to_owned(),
            promise.category.clone().unwrap_or_else(|| "all".to_owned()),
            found.map_or("-".to_owned(), |cutoff| {
                format!("{:.4}", cutoff.probability)
            }),
            percent(found.and_then(|cutoff| share(cutoff.served, cutoff.requests))),
            percent(found.and_then(|cutoff| share(cutoff.wrong, cutoff.requests))),
            percent(found.and_then(|cutoff| share(cutoff.wrong, cutoff.served))),
            match promise.shortage {
                None => String::new(),
                Some(shortage) => shortage
                    .missing
                    .map_or("no number would do".to_owned(), |labels| labels.to_string()),
            },
        ]);
    }
    table.write(&mut out)?;

    let _ = write!(
        out,
        "\nreliability of the best candidates (Brier {:.4}; area of precision over hit rate {:.4})\n",
        report.brier, report.area
    );
    let mut table = Table::new(["said", "right", "from", "to", "decisions"]);
    for bin in &report.reliability {
        table.row([
            percent(Some(bin.said)),
            percent(Some(bin.right)),
            percent(Some(bin.low)),
            percent(Some(bin.high)),
            bin.count.to_string(),
        ]);
    }
    table.write(&mut out)?;

    out.push_str("\ncategories, at the first certified promise\n");
    let mut table = Table::new([
        "category",
        "requests",
        "offset",
        "own cut-offs",
        "hit rate",
        "wrong",
    ]);
    for category in &report.categories {
        table.row([
            if category.name.is_empty() {
                "(default)".to_owned()
            } else {
                category.name.clone()
            },
            category.requests.to_string(),
            format!("{:+.3}", category.offset),
            category.own_cutoffs.to_string(),
            percent(Some(category.hit_rate)),
            percent(Some(category.wrong_per_request)),
        ]);
    }
    table.write(&mut out)?;

    out.push_str("\nguards, as vetoes on what is served at the loosest promise\n");
    let mut table = Table::new([
        "guard",
        "fires",
        "right",
        "right at most",
        "wrong hits stopped",
        "right hits lost",
        "veto",
        "leaves at most",
        "shown by",
    ]);
    for guard in &report.guards {
        table.row([
            guard.guard.to_owned(),
            guard.fires.to_string(),
            guard.right.to_string(),
            percent(Some(guard.right_at_most)),
            percent(Some(guard.wrong_stopped)),
            percent(Some(guard.right_lost)),
            guard.veto.to_string(),
            percent(guard.most.map(|fit| fit.most)),
            guard
                .most
                .map_or("-".to_owned(), |fit| format!("{} of {}", fit.right, fit.of)),
        ]);
    }
    table.write(&mut out)?;
    if let Some(band) = file.band {
        let _ = writeln!(
            out,
            "\ngrey band {:.4} to {:.4}: {} of the candidates are asked for their second cosine",
            band.low,
            band.high,
            percent(Some(report.refined)),
        );
    }
    Ok(out)
}

/// The report as one page, which needs nothing else.
fn page(words: &str, report: &FitReport) -> Result<String> {
    let line = |name: &str, points: Vec<(f64, f64)>| Line {
        name: name.to_owned(),
        points,
    };
    let bins = |of: fn(&askonce::calibrate::ReliabilityBin) -> f64| {
        report
            .reliability
            .iter()
            .map(|bin| (bin.said, of(bin)))
            .collect()
    };
    let curve = |of: fn(&askonce::calibrate::CurvePoint) -> f64| {
        report
            .curve
            .iter()
            .map(|point| (point.hit_rate, of(point)))
            .collect()
    };
    let pictures = [
        Picture {
            title: "Reliability: what was said, and what was right".to_owned(),
            x: "probability said",
            y: "share right",
            lines: vec![
                line("right", bins(|bin| bin.right)),
                line("from (95 %)", bins(|bin| bin.low)),
                line("to (95 %)", bins(|bin| bin.high)),
            ],
            diagonal: true,
        },
        Picture {
            title: "Precision against hit rate".to_owned(),
            x: "hit rate",
            y: "precision",
            lines: vec![line("certification", curve(|point| point.precision))],
            diagonal: false,
        },
        Picture {
            title: "Wrong answers per request against hit rate".to_owned(),
            x: "hit rate",
            y: "wrong per request",
            lines: vec![line(
                "certification",
                curve(|point| point.wrong_per_request),
            )],
            diagonal: false,
        },
    ];
    let mut body = String::new();
    for picture in &pictures {
        if let Some(svg) = draw(picture)? {
            let _ = writeln!(body, "<figure>{svg}</figure>");
        }
    }
    let words = words
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>askonce \
         calibrate</title>\n<style>\nbody {{ font-family: sans-serif; margin: 2em; }}\npre {{ overflow-x: \
         auto; background: #f6f6f6; padding: 1em; }}\nfigure {{ display: inline-block; margin: 0.5em; \
         }}\n</style>\n</head>\n<body>\n<h1>Calibration</h1>\n{body}<pre>{words}</pre>\n</body>\n</html>\n"
    ))
}
