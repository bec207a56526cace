//! `askonce doctor`: whether everything that the server needs is there, and what to do if not.
//!
//! Each check passes, warns or fails; one that fails makes the command fail. Nothing passes that was not
//! looked at: every configured backend is written to, read, compared, seen to let a value die and to
//! remove one, under a key of its own that is gone afterwards. Upstreams are only connected to: a `HEAD` of
//! their base URL without a key, whatever its status.

mod backend;
mod weights;

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use askonce::config::{BackendConfig, VerifierModelConfig};
use askonce::savings::{PriceSource, PriceTable};
use askonce::{Answer, Request, SemanticCache, StoreOptions};
use clap::Args as ClapArgs;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::client::Client;
use super::{Global, print};
use crate::config::{ServerConfig, UpstreamConfig};

/// Settings of `doctor`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {}

/// How long an upstream may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Two wordings of one question: the weights' own self-test asks them too.
const ASKED: (&str, &str) = ("How do I reset my password?", "how can I reset my password");

/// Audited recall of a server's index that is worth a word.
const LEAST_RECALL: f64 = 0.98;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Finding {
    Pass,
    Warn,
    Fail,
}

/// One check and what it found.
#[derive(Debug, Serialize)]
struct Check {
    check: String,
    finding: Finding,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'static str>,
}

#[derive(Debug, Default)]
struct Report(Vec<Check>);

impl Report {
    fn add(&mut self, check: impl Display, finding: Finding, detail: impl Display) -> &mut Check {
        let (check, detail) = (check.to_string(), detail.to_string());
        self.0.push(Check {
            check,
            finding,
            detail,
            remedy: None,
        });
        let last = self.0.len() - 1;
        &mut self.0[last]
    }
}

/// Checks everything.
pub(crate) async fn run(Args {}: Args, global: &Global) -> anyhow::Result<()> {
    let mut report = Report::default();
    match ServerConfig::load(&global.sources()) {
        Ok(loaded) => {
            let detail = match &*loaded.files {
                [] => "defaults, environment and flags; no file".to_owned(),
                files => {
                    let files: Vec<_> = files
                        .iter()
                        .map(|file| file.display().to_string())
                        .collect();
                    files.join(", ")
                }
            };
            report.add("config", Finding::Pass, detail);
            let config = loaded.settings;
            check_keys(&config, &mut report);
            let engine = config.engine();
            for section in engine.backends.iter().filter(|section| section.enabled) {
                // A stack is made of others of the list, and is tried by the round trip.
                if !matches!(section.backend, BackendConfig::Tiered(_)) {
                    backend::check(&engine.backend_of(section), &mut report).await;
                }
            }
            check_cache(&config, &mut report).await;
            check_listen(&config, &mut report).await;
            for upstream in &config.upstreams {
                check_upstream(upstream, &mut report).await;
            }
            check_prices(&config, &mut report);
        }
        Err(error) => {
            report.add("config", Finding::Fail, error).remedy =
                Some("correct the setting; nothing else was checked");
        }
    }
    let failed = report
        .0
        .iter()
        .filter(|check| check.finding == Finding::Fail)
        .count();
    print(
        global,
        &json!({ "ok": failed == 0, "checks": report.0 }),
        |_| lines(&report),
    )?;
    if failed > 0 {
        bail!("{failed} of {} checks failed", report.0.len());
    }
    Ok(())
}

fn lines(report: &Report) -> String {
    let mut lines = Vec::new();
    for Check {
        check,
        finding,
        detail,
        remedy,
    } in &report.0
    {
        let mark = match finding {
            Finding::Pass => "pass",
            Finding::Warn => "WARN",
            Finding::Fail => "FAIL",
        };
        lines.push(format!("{mark}  {check:<20}  {detail}"));
        lines.extend(remedy.map(|remedy| format!("{:28}remedy: {remedy}", "")));
    }
    lines.join("\n")
}

/// Whether the variables that should hold keys do.
fn check_keys(config: &ServerConfig, report: &mut Report) {
    let upstreams = config
        .upstreams
        .iter()
        .filter_map(|upstream| upstream.api_key_env.as_ref());
    let callers = config
        .auth
        .keys
        .iter()
        .filter_map(|key| key.key_env.as_ref());
    for variable in upstreams.chain(callers) {
        match std::env::var(variable) {
            Ok(value) if !value.trim().is_empty() => {
                report.add(format_args!("key {variable}"), Finding::Pass, "is set");
            }
            _ => {
                report
                    .add(format_args!("key {variable}"), Finding::Fail, "is not set")
                    .remedy = Some("set the variable in the environment of the server");
            }
        }
    }
}

/// The embedder, and a round trip through the whole cache.
async fn check_cache(config: &ServerConfig, report: &mut Report) {
    let mut engine = config.engine();
    // A running server has the folder in use, and what doctor stores does not belong there.
    let folder = engine.semantic.index.path.take();
    // A language model is the server's to ask; the files of a cross-encoder are looked at.
    engine
        .semantic
        .verifier
        .take_if(|verifier| matches!(verifier.model, VerifierModelConfig::LanguageModel));
    let cache = match SemanticCache::builder().config(&engine).build().await {
        Ok(cache) => cache,
        Err(error) => {
            // The causes tell what the embedding server said.
            report.add("cache", Finding::Fail, format_args!("{error:?}"));
            return;
        }
    };
    // In a place of its own: a shared backend may hold live entries.
    let ask = |text| {
        Request::prompt(text)
            .namespace("askonce doctor")
            .model("askonce-doctor")
    };
    let (stored, asked) = ASKED;
    let options = StoreOptions::default().ttl(Duration::from_secs(60));
    let kept = cache
        .store(&ask(stored), Answer::text("doctor"), options)
        .await;
    let found = cache.lookup(&ask(stored)).await.is_hit();
    let Some(entry) = kept.entry().filter(|_| found) else {
        report.add(
            "round trip",
            Finding::Fail,
            "a stored answer was not found again",
        );
        return;
    };
    report.add(
        "round trip",
        Finding::Pass,
        "a stored answer is found again",
    );
    let explanation = cache.explain(&ask(asked)).await;
    let likeness = explanation
        .candidates
        .first()
        .map(|candidate| candidate.similarity);
    match (likeness, explanation.embedder) {
        (_, None) => {
            report
                .add("embedder", Finding::Warn, "similarity is off")
                .remedy = Some("set semantic.enabled to true to match requests worded differently");
        }
        (None, Some(embedder)) => {
            report
                .add(
                    "embedder",
                    Finding::Fail,
                    format_args!("{embedder} gave no vector"),
                )
                .remedy = Some("check semantic.embedder");
        }
        (Some(likeness), Some(embedder)) => {
            let detail = format_args!("{embedder}, similarity of the self-test {likeness:.4}");
            report.add("embedder", Finding::Pass, detail);
        }
    }
    weights::check(&engine.semantic.embedder, &cache, report);
    check_index(&cache, folder.as_deref(), report).await;
    let _ = cache.invalidate(askonce::Selector::Entry(entry)).await;
}

/// The index that the stored answer is in, and the folder that it would be read from.
async fn check_index(cache: &SemanticCache, folder: Option<&Path>, report: &mut Report) {
    let stats = cache.stats().await;
    let (Some(index), Some(embedder)) = (&stats.index, cache.fingerprint()) else {
        return;
    };
    let detail = format!(
        "type {}, {} searchable, {} bytes",
        index.r#type, stats.searchable, stats.index_bytes
    );
    if stats.searchable > 0 {
        report.add("index", Finding::Pass, detail);
    } else {
        report.add("index", Finding::Fail, detail).remedy =
            Some("the stored answer is not searchable: see the log for why");
    }
    let Some(folder) = folder else { return };
    let shown = folder.display();
    if !folder.exists() {
        let detail = format_args!("{shown} is not there yet: it is made at the first start");
        report.add("index folder", Finding::Pass, detail);
        return;
    }
    match askonce::search::inspect(folder, embedder) {
        Ok(found) if found.faults.is_empty() => {
            let detail = format!(
                "{shown}: {} entries in {} partitions, {} changes since",
                found.entries, found.partitions, found.changes
            );
            report.add("index folder", Finding::Pass, detail);
        }
        Ok(found) => {
            let detail = format!("{shown}: {}", found.faults.join("; "));
            report.add("index folder", Finding::Warn, detail).remedy =
                Some("a start leaves out what cannot be used; requests are stored anew");
        }
        Err(error) => {
            report
                .add("index folder", Finding::Fail, format_args!("{error:?}"))
                .remedy =
                Some("make semantic.index.path a folder that the server may read and write");
        }
    }
}

async fn check_listen(config: &ServerConfig, report: &mut Report) {
    match TcpListener::bind(&config.listen).await {
        Ok(_) => {
            report.add(
                "listen",
                Finding::Pass,
                format_args!("{} is free", config.listen),
            );
        }
        Err(error) => match running(config).await {
            Some(health) => check_running(config, &health, report),
            None => {
                report
                    .add(
                        "listen",
                        Finding::Warn,
                        format_args!("{}: {error}", config.listen),
                    )
                    .remedy = Some("another program holds the port: choose another with --listen");
            }
        },
    }
}

/// What the askonce server that holds the port says of itself, if it is one.
async fn running(config: &ServerConfig) -> Option<Value> {
    let (host, port) = config.listen.rsplit_once(':')?;
    let host = match host {
        "0.0.0.0" | "" => "127.0.0.1",
        "[::]" => "[::1]",
        host => host,
    };
    let client = Client::new(&format!("http://{host}:{port}"), None).ok()?;
    let asked = client.get("/health/ready", &[]);
    let told = tokio::time::timeout(CONNECT_TIMEOUT, asked)
        .await
        .ok()?
        .ok()?;
    told["tiers"].is_array().then_some(told)
}

/// What a running server says of its tiers and their breakers.
fn check_running(config: &ServerConfig, health: &Value, report: &mut Report) {
    let detail = format_args!("an askonce server answers at {}", config.listen);
    report.add("listen", Finding::Pass, detail);
    if let Some(recall) = health["index"]["recall"].as_f64() {
        let audited = health["index"]["audited"].as_u64().unwrap_or_default();
        let detail = format!("finds {recall:.4} of true neighbours, of {audited} lookups audited");
        if recall >= LEAST_RECALL {
            report.add("server index", Finding::Pass, detail);
        } else {
            report.add("server index", Finding::Warn, detail).remedy =
                Some("raise semantic.index.recall, or use type flat");
        }
    }
    for tier in health["tiers"].as_array().into_iter().flatten() {
        let text = |value: &Value| value.as_str().unwrap_or("unknown").to_owned();
        let breakers = &tier["breakers"];
        let breakers = match breakers.is_object() {
            true => format!(
                "breakers: read {}, write {}",
                text(&breakers["read"]),
                text(&breakers["write"])
            ),
            false => "no breakers".to_owned(),
        };
        let check = format!("server {}", text(&tier["name"]));
        if tier["status"] == "healthy" {
            report.add(check, Finding::Pass, format_args!("healthy, {breakers}"));
        } else {
            let reason = text(&tier["reason"]);
            report
                .add(check, Finding::Warn, format_args!("{reason}, {breakers}"))
                .remedy =
                Some("the server goes on without this tier and looks at it again by itself");
        }
    }
}

async fn check_upstream(upstream: &UpstreamConfig, report: &mut Report) {
    let check = format!("upstream {}", upstream.name);
    let client = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(CONNECT_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .build();
    let sent = match client {
        Ok(client) => client.head(&upstream.base_url).send().await,
        Err(error) => Err(error),
    };
    match sent {
        Ok(_) => {
            report.add(
                check,
                Finding::Pass,
                format_args!("{} answers", upstream.base_url),
            );
        }
        Err(error) => {
            let error = error.without_url();
            let mut cause: &dyn std::error::Error = &error;
            while let Some(inner) = cause.source() {
                cause = inner;
            }
            report
                .add(
                    check,
                    Finding::Fail,
                    format_args!("{}: {cause}", upstream.base_url),
                )
                .remedy = Some("check base_url, name resolution, proxies and certificates");
        }
    }
}

fn check_prices(config: &ServerConfig, report: &mut Report) {
    match PriceTable::new(&config.prices) {
        Ok(table) if config.prices.source == PriceSource::None => {
            let detail = format!("{} of your own", table.rows().count());
            report.add("prices", Finding::Pass, detail);
        }
        Ok(table) => {
            let as_of = table.as_of().unwrap_or("an unknown date");
            let models = table.rows().count();
            let detail = format!(
                "{models} models, list prices of {as_of}; set prices.models where yours differ"
            );
            report.add("prices", Finding::Pass, detail);
        }
        Err(error) => {
            report.add("prices", Finding::Fail, error);
        }
    }
}
