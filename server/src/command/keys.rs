//! `askonce keys`, `get` and `clear`: what lies in the backends, key by key.

use anyhow::{Context as _, bail};
use askonce::cache::KeyQuery;
use clap::Args as ClapArgs;
use serde_json::{Value, json};

use super::client::path_part;
use super::direct::{Way, WayArgs, check_complete};
use super::{Global, print};

/// Settings of `keys`.
#[derive(Debug, ClapArgs)]
pub(crate) struct KeysArgs {
    /// Only keys whose names match: `*` any text, `?` one byte, `[ab]` one of a set, `\x` x itself.
    #[arg(long, default_value = "*", value_name = "GLOB")]
    pattern: String,
    /// Only entries with this tag.
    #[arg(long)]
    tag: Option<String>,
    /// How many at most.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    limit: u64,
    #[command(flatten)]
    way: WayArgs,
}

/// Settings of `get`.
#[derive(Debug, ClapArgs)]
pub(crate) struct GetArgs {
    /// The key, as `keys` shows it.
    key: String,
    /// Show the value, too: an answer with its prompt, or a typed cache's value.
    #[arg(long)]
    value: bool,
    #[command(flatten)]
    way: WayArgs,
}

/// Settings of `clear`.
#[derive(Debug, ClapArgs)]
pub(crate) struct ClearArgs {
    /// Really do it: everything goes, whoever stored it.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    way: WayArgs,
}

/// `askonce keys`
pub(crate) async fn keys(args: KeysArgs, global: &Global) -> anyhow::Result<()> {
    let report = match args.way.choose(global).await? {
        Way::Server(client) => {
            let query = [
                ("pattern", Some(args.pattern)),
                ("tag", args.tag),
                ("limit", Some(args.limit.to_string())),
                ("backend", args.way.backend),
            ];
            let query: Vec<_> = query
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect();
            client.get("/cache/v1/keys", &query).await?
        }
        Way::Direct(cache) => {
            let mut query = KeyQuery::matching(&args.pattern);
            query.tag = args.tag;
            let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
            serde_json::to_value(cache.keys(&query, limit).await?)?
        }
    };
    print(global, &report, table)?;
    check_complete(&report)
}

fn table(report: &Value) -> String {
    let keys = report["keys"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let mut lines = Vec::with_capacity(keys.len() + 1);
    for key in keys {
        let text = |name: &str| key[name].as_str().unwrap_or("-").to_owned();
        let seconds = |name: &str| {
            key[name]
                .as_u64()
                .map_or_else(|| "-".to_owned(), |seconds| format!("{seconds}s"))
        };
        let tags = key["tags"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let tags: Vec<&str> = tags.iter().filter_map(Value::as_str).collect();
        lines.push(format!(
            "{}  {}  {}  {} bytes  age {}  ttl {}  model {}  tags {}",
            text("key"),
            text("kind"),
            text("tier"),
            key["bytes"],
            seconds("age_seconds"),
            seconds("ttl_seconds"),
            text("model"),
            if tags.is_empty() {
                "-".to_owned()
            } else {
                tags.join(",")
            },
        ));
    }
    let more = if report["truncated"] == true {
        " and more (--limit)"
    } else {
        ""
    };
    lines.push(format!("{} keys{more}", keys.len()));
    lines.join("\n")
}

/// `askonce get`
pub(crate) async fn get(args: GetArgs, global: &Global) -> anyhow::Result<()> {
    let found = match args.way.choose(global).await? {
        Way::Server(client) => {
            let mut query = vec![("value", args.value.to_string())];
            query.extend(args.way.backend.map(|backend| ("backend", backend)));
            let path = format!("/cache/v1/keys/{}", path_part(&args.key));
            client.get(&path, &query).await?
        }
        Way::Direct(cache) => {
            let found = cache
                .key(&args.key, &KeyQuery::default(), args.value)
                .await?;
            let found = found.context("there is no such key, or it is gone")?;
            serde_json::to_value(found)?
        }
    };
    print(global, &found, |found| {
        let fields = found.as_object().into_iter().flatten();
        let told = fields.filter(|(_, value)| !value.is_null());
        let lines = told.map(|(name, value)| {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            format!("{name:<12} {value}")
        });
        lines.collect::<Vec<_>>().join("\n")
    })
}

/// `askonce clear`
pub(crate) async fn clear(args: ClearArgs, global: &Global) -> anyhow::Result<()> {
    if !args.yes {
        bail!(
            "everything would go, whoever stored it: add --yes, or see `askonce invalidate --dry-run`"
        );
    }
    let report = match args.way.choose(global).await? {
        Way::Server(client) => {
            let body = json!({ "backend": args.way.backend });
            client.post("/cache/v1/clear", &body).await?
        }
        Way::Direct(cache) => {
            let troubles = cache.clear(None).await?;
            json!({ "cleared": troubles.is_empty(), "troubles": troubles })
        }
    };
    check_complete(&report)?;
    print(global, &report, |_| "cleared".to_owned())
}
