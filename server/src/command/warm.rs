//! `askonce warm`: fills a running server's cache from a file, one answer a line.
//!
//! A line is what `POST /cache/v1/store` takes: a `prompt` with its `model`, or the `body` of a call in a `protocol`, and the
//! `answer`. What is wrong with a line is told by its number, without its text, and the others go on.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use axum::http::StatusCode;
use clap::Args as ClapArgs;
use futures_util::StreamExt as _;
use serde_json::{Map, Value, json};

use super::client::{Client, ServerArgs};
use super::{Global, print};
use crate::quality::lab::Progress;

/// Settings of `warm`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// The file, one JSON object a line; `-` reads standard input.
    file: PathBuf,
    /// Answer for what the file holds, as an admin: it serves all of its scope at once, whatever
    /// admission.min_principals says, and counts against no quota.
    #[arg(long)]
    approve: bool,
    /// How long to keep what does not say: seconds, a duration such as 90m, or `forever`.
    #[arg(long)]
    ttl: Option<String>,
    /// One more label to invalidate by; may be given more than once.
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Answers that are stored at the same time.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    #[command(flatten)]
    server: ServerArgs,
}

/// What became of a line.
enum Told {
    Stored,
    NotStored(String),
    Failed(String),
}

/// Stores what the file holds.
pub(crate) async fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    let lines = read_lines(&args.file)?;
    if lines.is_empty() {
        bail!("{} holds no line", args.file.display());
    }
    let client = args.server.client()?;
    let bar = Progress::new(global.json).bar("storing", lines.len());
    let (client, settings) = (&client, &args);
    let stores = futures_util::stream::iter(lines)
        .map(|(number, line)| async move { (number, store(client, settings, &line).await) });
    let mut stores = stores.buffer_unordered(usize::from(args.concurrency));
    let mut stored = 0_u64;
    let mut not_stored = BTreeMap::<String, u64>::new();
    let mut failed = BTreeMap::<u64, String>::new();
    while let Some((number, told)) = stores.next().await {
        match told? {
            Told::Stored => stored += 1,
            Told::NotStored(reason) => *not_stored.entry(reason).or_default() += 1,
            Told::Failed(why) => {
                failed.insert(number, why);
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let failures: Vec<_> = failed
        .iter()
        .map(|(line, why)| json!({ "line": line, "problem": why }))
        .collect();
    let told = json!({
        "stored": stored,
        "approved": args.approve,
        "not_stored": not_stored,
        "failed": failures,
    });
    print(global, &told, |_| {
        let mut lines = vec![format!("stored     {stored}")];
        lines.extend(
            not_stored
                .iter()
                .map(|(reason, count)| format!("not stored {count} ({reason})")),
        );
        lines.extend(
            failed
                .iter()
                .map(|(line, why)| format!("line {line}: {why}")),
        );
        lines.join("\n")
    })?;
    if !failed.is_empty() {
        bail!("{} lines were not stored, as told above", failed.len());
    }
    Ok(())
}

/// The lines that are not blank, by number.
fn read_lines(file: &PathBuf) -> anyhow::Result<Vec<(u64, String)>> {
    let source: Box<dyn Read> = if file.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        let opened = std::fs::File::open(file);
        Box::new(opened.with_context(|| format!("{} cannot be read", file.display()))?)
    };
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(BufReader::new(source).lines()) {
        let line = line.with_context(|| format!("{} cannot be read", file.display()))?;
        if !line.trim().is_empty() {
            lines.push((number, line));
        }
    }
    Ok(lines)
}

/// The body of a store, from a line.
fn body(args: &Args, line: &str) -> Result<Value, String> {
    let mut fields: Map<String, Value> = serde_json::from_str(line)
        .map_err(|error| format!("no JSON object, at column {}", error.column()))?;
    // Whoever runs the command approves, not the file.
    fields.remove("approved");
    if args.approve {
        fields.insert("approved".to_owned(), json!(true));
    }
    if let Some(ttl) = &args.ttl {
        fields.entry("ttl").or_insert_with(|| json!(ttl));
    }
    if !args.tags.is_empty() {
        let tags = fields.entry("tags").or_insert_with(|| json!([]));
        let tags = tags.as_array_mut().ok_or("its tags are no list")?;
        tags.extend(args.tags.iter().map(|tag| json!(tag)));
    }
    Ok(Value::Object(fields))
}

/// Stores one line. An error is one that all lines would meet.
async fn store(client: &Client, args: &Args, line: &str) -> anyhow::Result<Told> {
    let body = match body(args, line) {
        Ok(body) => body,
        Err(why) => return Ok(Told::Failed(why)),
    };
    let response = client.send("/cache/v1/store", &body).await?;
    let status = response.status();
    let told: Value = response.json().await.unwrap_or_default();
    let word = |name: &str| told[name].as_str().unwrap_or_default().to_owned();
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        bail!("the server refused: {}", word("detail"));
    }
    Ok(if !status.is_success() {
        let field = word("field");
        let field = if field.is_empty() {
            field
        } else {
            format!(" ({field})")
        };
        Told::Failed(format!("{}{field}", word("detail")))
    } else if told["outcome"] == "stored" {
        Told::Stored
    } else {
        Told::NotStored(word("reason"))
    })
}
