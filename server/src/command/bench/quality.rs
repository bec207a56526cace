//! `askonce bench quality`: hits at a bound on wrong ones, by set, embedding and policy.
//!
//! Decisions are recorded once for each set and embedding, and every policy is judged on the record
//! ([`crate::quality`] says how). Cut-offs are chosen on one part of the data and judged on another. Then
//! some policies run over the stream for real.
//!
//! The shipped models have seen a part of Quora's question pairs; the split leaves it out. Of any other
//! data the command cannot know what a model has seen, so whoever publishes figures says so.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use askonce::Config;
use askonce::config::EmbedderConfig;
use askonce::decision::DecisionRecord;
use askonce::policy::VcacheRule;
use clap::Args as ClapArgs;
use serde::Serialize;
use serde_json::json;

use crate::quality::corpus::{self, Set};
use crate::quality::lab::{Progress, spread};
use crate::quality::live::{Live, play, play_vcache};
use crate::quality::machine::Machine;
use crate::quality::policies::{Blinded, Contender, Cosine, Hidden};
use crate::quality::promise::promises;
use crate::quality::record::record_set;
use crate::quality::remember::Vectors;
use crate::quality::replay::{Call, calls};
use crate::quality::report::{
    PromiseRow, Report, Row, SCHEMA, SetReport, Settings, StreamRow, render,
};
use crate::quality::score::{Counts, Curve, Operating, compare_proven, reliability};
use crate::quality::split::Rule;
use crate::quality::verdicts::{Judged, Verdicts, to_judge};
use crate::quality::{Order, Part, RecordSettings, Wording, html};

/// Requests of a stream that policies run over for real, when no limit is given.
const STREAM_LIMIT: usize = 5_000;

/// Thresholds of the static grid, in hundredths.
const GRID: std::ops::RangeInclusive<u8> = 80..=99;

/// Bounds on wrong answers per request that the rule of vCache runs with.
const DELTAS: [f64; 4] = [0.01, 0.02, 0.05, 0.07];

/// The cost of a wrong answer, in savings of a right one, for which the best static threshold is chosen.
const BEST_AT: f64 = 20.0;

/// Settings of `bench quality`.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Without --data the project's own golden prompts are used, all of them to be judged.\n\
    A file holds pairs, {\"a\": text, \"b\": text, \"label\": 1 or 0, \"kind\"?: text}, or clusters, \
    {\"text\": text, \"cluster\": name}; in a file of clusters in which each text stands alone they are \
    distractors for the others."
)]
pub(crate) struct Args {
    /// Labelled pairs and clusters: JSON lines, plain or gzip.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    data: Vec<PathBuf>,

    /// Files of the same form that tell only which texts belong together, so that parts are those of training.
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "data")]
    link: Vec<PathBuf>,

    /// A policy beside the baselines: default, calibrated, exact_only, threshold:NUMBER, or a policy file;
    /// with @RATE a calibrated one runs under that promise of wrong answers per request. May be given
    /// several times. Default: default, and beside it the built-in policy under the promises of 0.005, 0.02 and 0.05.
    #[arg(long = "policy", value_name = "POLICY")]
    policies: Vec<String>,

    /// Also run each policy that was given, or the default, with this evidence hidden from it.
    #[arg(long, value_name = "EVIDENCE", value_enum, value_delimiter = ',', num_args = 0.., default_missing_value = "margin,density,guards,text,refined")]
    ablate: Vec<Hidden>,

    /// An embedder: static, minilm or cascade (with :FILE its weights), or settings in JSON, as under
    /// `semantic.embedder`. May be given several times. Default: that of the default settings.
    #[arg(long = "embedder", value_name = "EMBEDDER")]
    embedders: Vec<String>,

    /// What a reader said of pairs whose labels are in doubt: JSON lines, {"pair": digest, "verdict": "same",
    /// "different" or "unsure"}. It overrules the labels. May be given several times.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    verdicts: Vec<PathBuf>,

    /// Write pairs for a reader here, with their digests and texts: hits of the first policy and pairs that it came
    /// nearest to serving, drawn by lot, of each set.
    #[arg(long, value_name = "FILE")]
    to_judge: Option<PathBuf>,

    /// How many pairs of each set and order are written for a reader.
    #[arg(long, value_name = "N", default_value_t = 250, requires = "to_judge")]
    judge: usize,

    /// The orders of requests to play. Default: for questions and clusters retrieval, random, bursty and
    /// time; for other pairs pairs.
    #[arg(
        long = "order",
        value_name = "ORDER",
        value_enum,
        value_delimiter = ','
    )]
    orders: Vec<Order>,

    /// The parts of the data to judge.
    #[arg(long, value_name = "PART", value_enum, value_delimiter = ',', default_values_t = [Part::Test])]
    parts: Vec<Part>,

    /// The parts of the data to choose cut-offs on.
    #[arg(long, value_name = "PART", value_enum, value_delimiter = ',', default_values_t = [Part::Calibration])]
    calibrate_on: Vec<Part>,

    /// Most requests per set, order and part, sampled. Default: all that are recorded, and 5000 of a
    /// stream that policies run over for real.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,

    /// How answers to texts that ask for the same are worded in the cache: all the same, or each anew, as a model
    /// does.
    #[arg(long, value_name = "WORDING", value_enum, default_value_t)]
    answers: Wording,

    /// Seed of every random choice.
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,

    /// Do not run policies over streams for real.
    #[arg(long)]
    no_streams: bool,

    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,

    /// Write the recorded decisions here, as lines of a log of decisions, which `calibrate` and `replay` take.
    #[arg(long, value_name = "FILE")]
    records: Option<PathBuf>,

    /// Write the JSON report here, beside what is printed.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Write the report here as a page with plots.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Runs the benchmark.
///
/// # Errors
/// A file cannot be read or written, a policy is none, the cache cannot be built.
pub(crate) async fn run(args: Args) -> Result<()> {
    let start = Instant::now();
    let mut bench = Bench::new(&args)?;
    let sets = if args.data.is_empty() {
        corpus::golden()?
    } else {
        corpus::read_linked(&args.data, &args.link)?
    };
    let sets = sets.into_iter().map(|set| set.judged(&bench.verdicts));
    let (background, sets): (Vec<Set>, Vec<Set>) = sets.partition(Set::is_background);
    for embedder in &bench.embedders.clone() {
        for set in &sets {
            for order in bench.orders_of(set) {
                let mixed = if order.fills() {
                    set.among(&background, args.seed)
                } else {
                    set.clone()
                };
                let done = bench.set(&mixed, order, embedder).await;
                done.with_context(|| format!("failed to measure {}", set.name))?;
            }
        }
    }
    for file in bench.log.into_iter().chain(bench.to_judge) {
        file.finish()?;
    }
    let mut report = bench.report;
    report.seconds = start.elapsed().as_secs_f64();
    let json = || -> Result<String> {
        Ok(serde_json::to_string_pretty(&report).context("the report has no JSON form")? + "\n")
    };
    if let Some(path) = &args.output {
        super::write(path, &json()?)?;
    }
    if let Some(path) = &args.html {
        super::write(path, &html::page(&report)?)?;
    }
    let text = if args.json { json()? } else { render(&report) };
    io::stdout()
        .write_all(text.as_bytes())
        .context("failed to print the report")
}

/// What the built-in policy is judged under, beside its default promise of 1 % wrong answers per request.
const OTHER_PROMISES: [f64; 3] = [0.005, 0.02, 0.05];

/// An embedder under the name it was given.
#[derive(Clone, Debug)]
struct Embedder {
    name: String,
    config: EmbedderConfig,
}

impl Embedder {
    /// An embedder as it is given on a command line: `static`, `minilm`, `cascade`, the latter two with a
    /// file of weights after a colon, or settings in JSON, as under `semantic.embedder`.
    fn named(text: &str) -> Result<Self> {
        let (name, path) = match text.split_once(':') {
            Some((name, path)) if !text.starts_with('{') => (name, Some(path)),
            _ => (text, None),
        };
        let minilm = json!({ "type": "minilm", "path": path });
        let settings = match name {
            "cascade" => json!({ "type": "cascade", "refiner": minilm }),
            "minilm" => minilm,
            "static" => json!({ "type": "static" }),
            other => serde_json::from_str(other)
                .with_context(|| format!("{other} is no embedder, nor its settings in JSON"))?,
        };
        let config = serde_json::from_value(settings)
            .with_context(|| format!("{text} is no embedder of this build"))?;
        Self::of(config)
    }

    fn of(config: EmbedderConfig) -> Result<Self> {
        let value = serde_json::to_value(&config).context("the embedder has no JSON form")?;
        let name = value.get("type").and_then(|name| name.as_str());
        Ok(Self {
            name: name.unwrap_or("default").to_owned(),
            config,
        })
    }

    fn by_default() -> Result<Self> {
        Self::of(Config::default().semantic.embedder)
    }
}

/// A file of values in JSON, one on a line.
struct Lines {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Lines {
    fn create(path: &Path) -> Result<Self> {
        let file = File::create(path);
        let file = file.with_context(|| format!("failed to create {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            file: BufWriter::new(file),
        })
    }

    fn write<T: Serialize>(&mut self, values: &[T]) -> Result<()> {
        for value in values {
            let line = serde_json::to_vec(value).context("a row has no JSON form")?;
            let written = self.file.write_all(&line);
            written
                .and_then(|()| self.file.write_all(b"\n"))
                .with_context(|| format!("failed to write {}", self.path.display()))?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        let flushed = self.file.flush();
        flushed.with_context(|| format!("failed to write {}", self.path.display()))
    }
}

/// A running benchmark.
struct Bench<'a> {
    args: &'a Args,
    embedders: Vec<Embedder>,
    /// The policies that were asked for, each followed by itself with evidence hidden.
    contenders: Vec<Contender>,
    /// Names of the policies that run over streams for real.
    alive: BTreeSet<String>,
    limit: Option<usize>,
    progress: Progress,
    vectors: Vectors,
    /// Where the recorded decisions go.
    log: Option<Lines>,
    /// Where pairs for a reader go.
    to_judge: Option<Lines>,
    verdicts: Arc<Verdicts>,
    report: Report,
}

impl<'a> Bench<'a> {
    fn new(args: &'a Args) -> Result<Self> {
        let mut given: Vec<Contender> = args
            .policies
            .iter()
            .map(|policy| Contender::named(policy))
            .collect::<Result<_>>()?;
        let mut alive: BTreeSet<String> = given.iter().map(|given| given.name.clone()).collect();
        let mut others = Vec::new();
        if given.is_empty() {
            let default = Contender::by_default()?;
            alive.insert(default.name.clone());
            given.push(default);
            // A policy does not ask for what its promise has no use for, so each bound is judged by its own, as far
            // as the built-in file certifies it.
            let names = OTHER_PROMISES.map(|promise| format!("calibrated@{promise}"));
            others.extend(names.iter().filter_map(|name| Contender::named(name).ok()));
        }
        let hidden: BTreeSet<Hidden> = args.ablate.iter().copied().collect();
        let contenders = given.into_iter().flat_map(|given| {
            let blinded = hidden
                .iter()
                .map(|hidden| Blinded::contender(&given, *hidden));
            let blinded: Vec<Contender> = blinded.collect();
            std::iter::once(given).chain(blinded)
        });
        let mut embedders: Vec<Embedder> = args
            .embedders
            .iter()
            .map(|name| Embedder::named(name))
            .collect::<Result<_>>()?;
        if embedders.is_empty() {
            embedders.push(Embedder::by_default()?);
        }
        let limit = args
            .limit
            .map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(Self {
            embedders,
            contenders: contenders.chain(others).collect(),
            alive,
            limit,
            progress: Progress::new(args.json),
            vectors: Vectors::default(),
            log: args.records.as_deref().map(Lines::create).transpose()?,
            to_judge: args.to_judge.as_deref().map(Lines::create).transpose()?,
            verdicts: Arc::new(Verdicts::read(&args.verdicts)?),
            report: Report {
                schema: SCHEMA,
                version: env!("CARGO_PKG_VERSION"),
                machine: Machine::here(),
                settings: Settings {
                    seed: args.seed,
                    limit,
                    parts: args.parts.clone(),
                    answers: args.answers,
                },
                sets: Vec::new(),
                rows: Vec::new(),
                promises: Vec::new(),
                streams: Vec::new(),
                seconds: 0.0,
            },
            args,
        })
    }

    fn orders_of(&self, set: &Set) -> Vec<Order> {
        if !self.args.orders.is_empty() {
            let orders = self.args.orders.iter().copied();
            return orders
                .filter(|order| *order != Order::Pairs || !set.pairs.is_empty())
                .collect();
        }
        if set.pairs.is_empty() || set.rule == Rule::Trained {
            vec![Order::Retrieval, Order::Random, Order::Bursty, Order::Time]
        } else {
            vec![Order::Pairs]
        }
    }

    fn settings(&self, parts: &[Part], embedder: &Embedder) -> RecordSettings {
        RecordSettings {
            parts: parts.to_vec(),
            seed: self.args.seed,
            limit: self.limit,
            wording: self.args.answers,
            embedder: embedder.config.clone(),
            vectors: self.vectors.clone(),
            progress: self.progress,
            ..RecordSettings::default()
        }
    }

    /// One set in one order with one embedding.
    async fn set(&mut self, set: &Set, order: Order, embedder: &Embedder) -> Result<()> {
        let parts = &self.args.parts;
        if set.members_of(parts).is_empty() {
            return Ok(());
        }
        let judged = self.settings(parts, embedder);
        let recorded = record_set(set, order, &judged).await?;
        if let Some(log) = &mut self.log {
            log.write(&recorded.records)?;
        }
        let calibration = self.calibration(set, order, embedder).await?;
        let records = &recorded.records[..];
        let spaces = records
            .first()
            .map_or(Vec::new(), |record| record.spaces.clone());
        let (fitting, others): (Vec<Contender>, Vec<Contender>) = self
            .contenders
            .iter()
            .cloned()
            .partition(|contender| contender.fits(&spaces));
        self.report.sets.push(SetReport {
            set: set.name.clone(),
            sha256: set.source.sha256.clone(),
            rows: set.source.rows,
            order,
            embedder: embedder.name.clone(),
            spaces,
            not_run: others.into_iter().map(|other| other.name).collect(),
            decisions: records.len(),
            calibration: calibration.len(),
            skipped: recorded.skipped,
        });
        let place = Place {
            set,
            order,
            embedder,
            seed: self.args.seed,
        };
        let best = best_static(&calibration, order);
        self.baselines(place, records, &calibration, best.as_ref());
        if let (Some(file), Some(first)) = (&mut self.to_judge, fitting.first()) {
            let chosen = to_judge(
                &*first.policy,
                &recorded,
                set,
                self.args.judge,
                self.args.seed,
            );
            file.write(&chosen)?;
        }
        let statics = self.curves_of_thresholds(place);
        for contender in &fitting {
            let (judged, decide_us) = timed_calls(contender, records, order);
            let mut row = place.row(contender, &judged, decide_us, true);
            if let Some(curve) = &mut row.curve {
                compare_proven(&statics, curve);
            }
            row.reliability = reliability(&judged);
            if !self.verdicts.is_empty() {
                let judged = Judged::of(&*contender.policy, &recorded, set, &self.verdicts);
                row.judged = Some(judged);
            }
            self.report.rows.push(row);
            if !calibration.is_empty() {
                let chosen_on = calls(&*contender.policy, &calibration, order);
                self.promise(place, &contender.name, &chosen_on, &judged);
            }
        }
        if order.fills() && !self.args.no_streams {
            self.streams(place, &judged, &fitting, best.as_ref())
                .await?;
        }
        Ok(())
    }

    /// What cut-offs are chosen on; nothing when it is judged itself.
    async fn calibration(
        &self,
        set: &Set,
        order: Order,
        embedder: &Embedder,
    ) -> Result<Vec<DecisionRecord>> {
        let parts = &self.args.calibrate_on;
        let judged = parts.iter().any(|part| self.args.parts.contains(part));
        if judged || set.members_of(parts).is_empty() {
            return Ok(Vec::new());
        }
        let settings = self.settings(parts, embedder);
        Ok(record_set(set, order, &settings).await?.records)
    }

    /// The static grid, its best threshold, and the curves of the bare cosines.
    fn baselines(
        &mut self,
        place: Place<'_>,
        records: &[DecisionRecord],
        calibration: &[DecisionRecord],
        best: Option<&Contender>,
    ) {
        for contender in grid() {
            let (judged, decide_us) = timed_calls(&contender, records, place.order);
            let row = place.row(&contender, &judged, decide_us, false);
            self.report.rows.push(row);
        }
        let refined = records
            .iter()
            .flat_map(|record| &record.candidates)
            .any(|candidate| candidate.evidence.refined.is_some());
        let mut cosines = vec![cosine("cosine", false)];
        if refined {
            cosines.push(cosine("second cosine", true));
        }
        for contender in best.into_iter().chain(&cosines) {
            let (judged, decide_us) = timed_calls(contender, records, place.order);
            let is_curve = best.is_none_or(|best| best.name != contender.name);
            let row = place.row(contender, &judged, decide_us, is_curve);
            self.report.rows.push(row);
            if is_curve && !calibration.is_empty() {
                let chosen_on = calls(&*contender.policy, calibration, place.order);
                self.promise(place, &contender.name, &chosen_on, &judged);
            }
        }
    }

    /// What thresholds on the cosines find, so far as they were measured at this place.
    fn curves_of_thresholds(&self, place: Place<'_>) -> Vec<Curve> {
        let rows = self.report.rows.iter().filter(|row| {
            let at = (&row.set, row.order, &row.embedder);
            at == (&place.set.name, place.order, &place.embedder.name)
        });
        rows.filter_map(|row| row.curve.clone()).collect()
    }

    fn promise(&mut self, place: Place<'_>, policy: &str, chosen_on: &[Call], judged: &[Call]) {
        self.report.promises.push(PromiseRow {
            set: place.set.name.clone(),
            order: place.order,
            embedder: place.embedder.name.clone(),
            policy: policy.to_owned(),
            promises: promises(chosen_on, judged, place.seed),
        });
    }

    /// Policies, and the rule of vCache, over the stream for real.
    async fn streams(
        &mut self,
        place: Place<'_>,
        settings: &RecordSettings,
        fitting: &[Contender],
        best: Option<&Contender>,
    ) -> Result<()> {
        let settings = RecordSettings {
            limit: Some(self.limit.unwrap_or(STREAM_LIMIT)),
            ..settings.clone()
        };
        let alive = |contender: &&Contender| self.alive.contains(&contender.name);
        let mut runners: Vec<Runner> = fitting
            .iter()
            .filter(alive)
            .chain(best)
            .cloned()
            .map(Runner::Policy)
            .collect();
        for delta in DELTAS {
            runners.push(Runner::Vcache(delta, VcacheRule::new(delta)?));
        }
        let bar = self.progress.bar("running streams", runners.len());
        let shared = Arc::new((place.set.clone(), settings));
        let (order, seen) = (place.order, bar.clone());
        let work = move |runner: Runner| {
            let (shared, seen) = (Arc::clone(&shared), seen.clone());
            async move {
                let (set, settings) = &*shared;
                let done = runner.run(set, order, settings).await?;
                seen.inc(1);
                Ok((runner.name(), runner.promised(), done))
            }
        };
        let done = spread(runners, work).await?;
        bar.finish_and_clear();
        for (policy, promised, live) in done {
            self.report.streams.push(StreamRow {
                set: place.set.name.clone(),
                order,
                embedder: place.embedder.name.clone(),
                policy,
                promised,
                operating: Operating::of(&live.calls, place.seed),
                windows: live.windows,
                lookup: live.lookup,
                stages: live.stages,
                reached_second: live.refined,
            });
        }
        Ok(())
    }
}

/// What runs over a stream.
#[derive(Clone, Debug)]
enum Runner {
    Policy(Contender),
    Vcache(f64, VcacheRule),
}

impl Runner {
    fn name(&self) -> String {
        match self {
            Self::Policy(contender) => contender.name.clone(),
            Self::Vcache(delta, _) => format!("vCache rule {:.0}%", delta * 100.0),
        }
    }

    /// Wrong answers per request that it promises.
    fn promised(&self) -> Option<f64> {
        match self {
            Self::Policy(contender) => contender.promised,
            Self::Vcache(delta, _) => Some(*delta),
        }
    }

    async fn run(&self, set: &Set, order: Order, settings: &RecordSettings) -> Result<Live> {
        match self {
            Self::Policy(contender) => play(set, order, contender, settings).await,
            Self::Vcache(_, rule) => play_vcache(set, order, *rule, settings).await,
        }
    }
}

/// What a row is about.
#[derive(Clone, Copy)]
struct Place<'a> {
    set: &'a Set,
    order: Order,
    embedder: &'a Embedder,
    seed: u64,
}

impl Place<'_> {
    fn row(&self, contender: &Contender, calls: &[Call], decide_us: f64, curve: bool) -> Row {
        Row {
            set: self.set.name.clone(),
            order: self.order,
            embedder: self.embedder.name.clone(),
            policy: contender.name.clone(),
            promised: contender.promised,
            operating: Operating::of(calls, self.seed),
            curve: curve.then(|| Curve::of(calls, self.seed)).flatten(),
            reliability: Vec::new(),
            judged: None,
            decide_us,
        }
    }
}

/// What a policy does with the records, and how long it takes per record.
fn timed_calls(
    contender: &Contender,
    records: &[DecisionRecord],
    order: Order,
) -> (Vec<Call>, f64) {
    let start = Instant::now();
    let calls = calls(&*contender.policy, records, order);
    let took = start.elapsed().as_secs_f64() * 1e6;
    (calls, took / records.len().max(1) as f64)
}

fn grid() -> impl Iterator<Item = Contender> {
    GRID.map(|hundredths| {
        let threshold = f32::from(hundredths) / 100.0;
        let policy = Cosine {
            threshold,
            second: false,
        };
        Contender::new(format!("threshold {threshold:.2}"), Arc::new(policy))
    })
}

/// A bare cosine: its operating point serves only what is the same, its curve is that of all thresholds.
fn cosine(name: &str, second: bool) -> Contender {
    let policy = Cosine {
        threshold: 1.0,
        second,
    };
    Contender::new(name, Arc::new(policy))
}

/// The threshold of the grid with the greatest utility on the calibration part; `None` without one.
fn best_static(calibration: &[DecisionRecord], order: Order) -> Option<Contender> {
    let utility = |contender: Contender| {
        let counts = Counts::of(&calls(&*contender.policy, calibration, order));
        Some((counts.utility(BEST_AT)?, contender))
    };
    let best = grid()
        .filter_map(utility)
        .reduce(|best, next| if next.0 > best.0 { next } else { best });
    best.map(|(_, best)| Contender::new(format!("best static ({})", best.name), best.policy))
}
