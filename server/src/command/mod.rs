//! The command line: one module per command.
//!
//! People read plain text on standard output; `--json` makes every report one JSON document. Errors and
//! logs go to standard error, and a failed command exits with 1.

mod ask;
mod bench;
mod breaker;
mod cache;
mod calibrate;
mod client;
mod config;
mod direct;
mod doctor;
mod health;
mod keys;
pub(crate) mod replay;
mod serve;
mod train;
mod warm;

use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use serde_json::Value;
use tracing::Subscriber;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::config::ConfigSources;
use crate::traces::Exporter;

/// A semantic cache for LLM answers.
#[derive(Debug, Parser)]
#[command(name = "askonce", version)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, ClapArgs)]
pub(crate) struct Global {
    /// The configuration file; without it, askonce.yaml, .yml, .toml or .json in this directory, if any.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one field over file and environment: `--set semantic.policy.type=threshold`.
    #[arg(long = "set", global = true, value_name = "FIELD=VALUE")]
    overrides: Vec<String>,
    /// Print JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What to log: a level, or `target=level` pairs. Default: `info` for the server, `error` for
    /// other commands.
    #[arg(long, global = true, env = "ASKONCE_LOG", value_name = "FILTER")]
    log: Option<String>,
    /// How to log.
    #[arg(
        long,
        global = true,
        env = "ASKONCE_LOG_FORMAT",
        default_value = "text",
        value_name = "FORMAT"
    )]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Global {
    /// Where settings come from.
    pub(crate) fn sources(&self) -> ConfigSources {
        ConfigSources {
            file: self.config.clone(),
            overrides: self.overrides.clone(),
        }
    }

    /// Logs from here on, and hands spans to what takes them, if something does.
    fn start_logging(&self, default: &str, traces: Option<&Exporter>) -> anyhow::Result<()> {
        let filter = self.log_filter(default)?;
        let started = match traces {
            None => Registry::default()
                .with(filter)
                .with(self.log_layer())
                .try_init(),
            Some(traces) => Registry::default()
                .with(self.log_layer().with_filter(filter))
                .with(traces.layer())
                .try_init(),
        };
        started.map_err(|error| anyhow::anyhow!("logging cannot be set up: {error}"))
    }

    /// What logs before it is known whether there are traces.
    fn early_log(&self, default: &str) -> anyhow::Result<impl Subscriber + Send + Sync + use<>> {
        Ok(Registry::default()
            .with(self.log_filter(default)?)
            .with(self.log_layer()))
    }

    fn log_filter(&self, default: &str) -> anyhow::Result<EnvFilter> {
        EnvFilter::try_new(self.log.as_deref().unwrap_or(default))
            .map_err(|error| anyhow::anyhow!("--log or ASKONCE_LOG cannot be read: {error}"))
    }

    fn log_layer<S>(&self) -> Box<dyn Layer<S> + Send + Sync>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        match self.log_format {
            LogFormat::Text => {
                use std::io::IsTerminal as _;
                layer.with_ansi(std::io::stderr().is_terminal()).boxed()
            }
            LogFormat::Json => layer.json().boxed(),
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server: the cache's API, and a caching proxy in front of LLM APIs.
    Serve(serve::Args),
    /// Ask a model one prompt, through the cache.
    Ask(ask::Args),
    /// Look a prompt up in a running server's cache.
    Lookup(cache::LookupArgs),
    /// Store an answer in a running server's cache.
    Store(cache::StoreArgs),
    /// Store the answers of a file in a running server's cache.
    Warm(warm::Args),
    /// Tell how a lookup of a prompt goes: every stage, every candidate, and what stopped each.
    Explain(cache::ExplainArgs),
    /// Tell what a running server's cache has done and what it holds.
    Stats(cache::StatsArgs),
    /// Tell what a running server's cache has saved.
    Savings(cache::SavingsArgs),
    /// List keys: what is stored under each, without prompts and answers.
    Keys(keys::KeysArgs),
    /// Tell what is stored under one key.
    Get(keys::GetArgs),
    /// Remove entries and other values: by key, pattern, tag, model, tenant or age.
    Invalidate(cache::InvalidateArgs),
    /// Remove everything from a backend, or from all.
    Clear(keys::ClearArgs),
    /// Let a running server serve by similarity again after too many hits were wrong.
    ResetBreaker(breaker::Args),
    /// Check or show the settings.
    Config(config::Args),
    /// Tell whether a running server takes requests; fails when it does not.
    Health(health::Args),
    /// Check that everything the server needs is there.
    Doctor(doctor::Args),
    /// Measure hits, wrong hits, latency and memory on labelled prompts.
    Bench(bench::Args),
    /// Fit a policy to labelled data or a log, and certify what it promises.
    Calibrate(calibrate::Args),
    /// Decide again what a log of decisions holds, under other settings.
    Replay(replay::Args),
    /// Adapt the embedding table to labelled pairs.
    Train(train::Args),
}

impl Cli {
    /// Runs the command.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let Self { global, command } = self;
        if !matches!(command, Command::Serve(_)) {
            global.start_logging("error", None)?;
        }
        match command {
            Command::Serve(args) => serve::run(args, &global).await,
            Command::Ask(args) => ask::run(args, &global).await,
            Command::Lookup(args) => cache::lookup(args, &global).await,
            Command::Store(args) => cache::store(args, &global).await,
            Command::Explain(args) => cache::explain(args, &global).await,
            Command::Stats(args) => cache::stats(args, &global).await,
            Command::Health(args) => health::run(args, &global).await,
            Command::Warm(args) => warm::run(args, &global).await,
            Command::Savings(args) => cache::savings(args, &global).await,
            Command::Keys(args) => keys::keys(args, &global).await,
            Command::Get(args) => keys::get(args, &global).await,
            Command::Invalidate(args) => cache::invalidate(args, &global).await,
            Command::Clear(args) => keys::clear(args, &global).await,
            Command::ResetBreaker(args) => breaker::reset(args, &global).await,
            Command::Config(args) => config::run(&args, &global),
            Command::Doctor(args) => doctor::run(args, &global).await,
            Command::Calibrate(args) => calibrate::run(args, &global).await,
            Command::Bench(args) => bench::run(args).await,
            Command::Replay(args) => replay::run(&args, &global),
            Command::Train(args) => train::run(args, &global).await,
        }
    }
}

/// Prints a report: as JSON if that is asked for, else in words.
fn print(
    global: &Global,
    report: &Value,
    words: impl FnOnce(&Value) -> String,
) -> anyhow::Result<()> {
    let text = if global.json {
        format!("{report:#}")
    } else {
        words(report)
    };
    match writeln!(std::io::stdout().lock(), "{text}") {
        // The reader, such as `head`, has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}
