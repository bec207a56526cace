//! `askonce lookup`, `store`, `explain`, `stats`, `savings` and `invalidate`: the native API of a running
//! server from the command line.

use anyhow::bail;
use askonce::backend::CacheBackend;
use askonce::cache::KeyQuery;
use askonce::policy::TextFeatures;
use askonce::{Scope, SemanticCache};
use clap::Args as ClapArgs;
use serde_json::{Map, Value, json};

use super::client::{PromptArgs, ServerArgs};
use super::direct::{Way, WayArgs, check_complete};
use super::{Global, print};
use crate::{http, typed_tag};

/// Settings of `lookup`.
#[derive(Debug, ClapArgs)]
pub(crate) struct LookupArgs {
    #[command(flatten)]
    prompt: PromptArgs,
    /// Match the same request only, nothing similar.
    #[arg(long)]
    exact_only: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Settings of `store`.
#[derive(Debug, ClapArgs)]
pub(crate) struct StoreArgs {
    #[command(flatten)]
    prompt: PromptArgs,
    /// The answer to keep.
    #[arg(long)]
    answer: String,
    /// How long to keep it: seconds, a duration such as 90m, or `forever`.
    #[arg(long)]
    ttl: Option<String>,
    /// A label to invalidate by; may be given more than once.
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    #[command(flatten)]
    server: ServerArgs,
}

/// Settings of `explain`.
#[derive(Debug, ClapArgs)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    prompt: PromptArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// Settings of `stats`.
#[derive(Debug, ClapArgs)]
pub(crate) struct StatsArgs {
    #[command(flatten)]
    way: WayArgs,
}

/// Settings of `savings`.
#[derive(Debug, ClapArgs)]
pub(crate) struct SavingsArgs {
    /// Only this tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// Only this model.
    #[arg(long)]
    model: Option<String>,
    /// Only this route: an upstream's name.
    #[arg(long)]
    route: Option<String>,
    /// Only the last days, today included.
    #[arg(long)]
    days: Option<u32>,
    /// Only this day (YYYY-MM-DD, in UTC) and later ones.
    #[arg(long, value_name = "DAY")]
    since: Option<String>,
    /// Only the list by tenant, model, route or day; all of them otherwise.
    #[arg(long, value_name = "WHAT", value_parser = ["tenant", "model", "route", "day"])]
    by: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

/// Settings of `invalidate`.
#[derive(Debug, ClapArgs)]
pub(crate) struct InvalidateArgs {
    #[command(flatten)]
    selector: Selector,
    /// With --tag: the tag of typed caches in this namespace, written as keys show it (`users`,
    /// `tenants/7`), in place of the entries' tag.
    #[arg(long, value_name = "NAME", requires = "tag")]
    namespace: Option<String>,
    /// Count what would be removed, and remove nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    way: WayArgs,
}

/// What to remove.
#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = false)]
struct Selector {
    /// One entry.
    #[arg(long, value_name = "ID")]
    entry: Option<String>,
    /// What is stored under one key, as `keys` shows it.
    #[arg(long)]
    key: Option<String>,
    /// Everything whose key's name matches: `*` any text, `?` one byte, `[ab]` one of a set.
    #[arg(long, value_name = "GLOB")]
    pattern: Option<String>,
    /// Everything with this tag.
    #[arg(long)]
    tag: Option<String>,
    /// Everything that this model answered.
    #[arg(long)]
    model: Option<String>,
    /// Everything of this tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// Everything at least this old.
    #[arg(long, value_name = "AGE")]
    older_than: Option<String>,
    /// Everything.
    #[arg(long)]
    all: bool,
}

/// `askonce lookup`
pub(crate) async fn lookup(args: LookupArgs, global: &Global) -> anyhow::Result<()> {
    let mut fields = args.prompt.fields()?;
    if args.exact_only {
        fields.insert("exact_only".to_owned(), json!(true));
    }
    let told = args
        .server
        .client()?
        .post("/cache/v1/lookup", &Value::Object(fields))
        .await?;
    print(global, &told, |told| match told["outcome"].as_str() {
        Some("hit") => {
            let answer = &told["answer"];
            let answer = answer
                .as_str()
                .map_or_else(|| answer.to_string(), str::to_owned);
            format!("hit ({}){}\n\n{answer}", text(&told["kind"]), details(told))
        }
        _ => format!(
            "miss: {}{}",
            text(&told["reason"]),
            nearest(&told["nearest"])
        ),
    })
}

/// `askonce store`
pub(crate) async fn store(args: StoreArgs, global: &Global) -> anyhow::Result<()> {
    let mut fields = args.prompt.fields()?;
    fields.insert("answer".to_owned(), json!(args.answer));
    fields.insert("tags".to_owned(), json!(args.tags));
    if let Some(ttl) = args.ttl {
        fields.insert("ttl".to_owned(), json!(ttl));
    }
    let told = args
        .server
        .client()?
        .post("/cache/v1/store", &Value::Object(fields))
        .await?;
    print(global, &told, |told| match told["outcome"].as_str() {
        Some("stored") => {
            let similar = match told["searchable"].as_bool() {
                Some(true) => "similar requests may match it",
                _ => "only the same request matches it",
            };
            let life = told["ttl_seconds"].as_u64();
            let life =
                life.map_or_else(|| "without end".to_owned(), |life| format!("for {life} s"));
            format!("stored as {} {life}; {similar}", text(&told["entry"]))
        }
        _ => format!("not stored: {}", text(&told["reason"])),
    })
}

/// `askonce explain`
pub(crate) async fn explain(args: ExplainArgs, global: &Global) -> anyhow::Result<()> {
    let fields = Value::Object(args.prompt.fields()?);
    let told = args
        .server
        .client()?
        .post("/cache/v1/explain", &fields)
        .await?;
    print(global, &told, explanation)
}

/// What the policy was told of a candidate: every number, under its name. What is unknown is left out.
fn evidence(told: &Value) -> Vec<String> {
    let Some(fields) = told.as_object() else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    for (name, value) in fields {
        match value {
            Value::Null => {}
            Value::Object(parts) => {
                let known = parts.iter().filter(|(_, value)| !value.is_null());
                let parts: Vec<String> = known
                    .map(|(part, value)| format!("{part} {}", text(value)))
                    .collect();
                lines.push(format!("    {name:<20} {}", parts.join(", ")));
            }
            Value::Array(values) if name == "text" => {
                let named = TextFeatures::NAMES.iter().zip(values);
                lines.extend(
                    named
                        .filter(|(_, value)| !value.is_null())
                        .map(|(feature, value)| format!("    {feature:<20} {}", text(value))),
                );
            }
            value => lines.push(format!("    {name:<20} {}", text(value))),
        }
    }
    lines
}

fn explanation(told: &Value) -> String {
    let mut lines = Vec::new();
    lines.push(match (&told["hit"], &told["miss"]) {
        (Value::Object(hit), _) => {
            let entry = hit.get("entry").map(text).unwrap_or_default();
            format!(
                "hit        {} on entry {entry}",
                hit.get("kind").map(text).unwrap_or_default()
            )
        }
        (_, miss) => format!("miss       {}", joined(&miss["reasons"])),
    });
    for (label, name) in [
        ("key", "key"),
        ("partition", "partition"),
        ("exact only", "ineligible"),
        ("volatile", "volatile"),
        ("embedder", "embedder"),
        ("policy", "policy"),
        ("verifier", "verifier"),
        ("at least", "least_similarity"),
    ] {
        if !told[name].is_null() {
            lines.push(format!("{label:<10} {}", text(&told[name])));
        }
    }
    lines.push(format!("{:<10} {}", "tiers", joined(&told["tiers"])));
    let candidates = told["candidates"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    if !candidates.is_empty() {
        lines.push(String::new());
        lines.push("candidate         similarity  probability  outcome".to_owned());
    }
    for candidate in candidates {
        let outcome = match candidate["serve"].as_bool() {
            Some(true) => "served".to_owned(),
            _ => text(&candidate["stopped_by"]),
        };
        let number = |name: &str| {
            candidate[name]
                .as_f64()
                .map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"))
        };
        let (similarity, probability) = (number("similarity"), number("probability"));
        let entry = text(&candidate["entry"]);
        lines.push(format!(
            "{entry:<16}  {similarity:>10}  {probability:>11}  {outcome}"
        ));
        lines.extend(evidence(&json!({
            "first_decision": candidate["before"],
            "decision": candidate["decision"],
            "verified": candidate["verified"],
        })));
        lines.extend(evidence(&candidate["evidence"]));
    }
    let stages = told["stage_micros"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let stages = stages.iter().map(|stage| {
        format!(
            "{} {:.1} us",
            text(&stage[0]),
            stage[1].as_f64().unwrap_or_default()
        )
    });
    lines.push(String::new());
    lines.push(format!(
        "{:<10} {}",
        "time",
        stages.collect::<Vec<_>>().join(", ")
    ));
    lines.join("\n")
}

/// `askonce stats`
pub(crate) async fn stats(args: StatsArgs, global: &Global) -> anyhow::Result<()> {
    let mut told = match args.way.choose(global).await? {
        Way::Server(client) => client.get("/cache/v1/stats", &[]).await?,
        Way::Direct(cache) => {
            let mut servers = Vec::new();
            for tier in cache.tiers() {
                servers.extend(CacheBackend::servers(&**tier).await.unwrap_or_default());
            }
            json!({ "tiers": cache.stats().await.tiers, "servers": servers })
        }
    };
    if let (Some(name), Some(tiers)) = (&args.way.backend, told["tiers"].as_array_mut()) {
        tiers.retain(|tier| tier["name"] == **name);
        if tiers.is_empty() {
            bail!("there is no backend {name}");
        }
    }
    print(global, &told, |told| {
        let mut lines = Vec::new();
        told_by_name("", told, &mut lines);
        let width = lines.iter().map(|(name, _)| name.len()).max();
        let width = width.unwrap_or_default();
        let lines = lines
            .iter()
            .map(|(name, value)| format!("{name:<width$}  {value}"));
        lines.collect::<Vec<_>>().join("\n")
    })
}

/// Each value of a report under its whole name: `tiers.memory.counts.hits`. What is not known is `-`.
fn told_by_name(within: &str, value: &Value, lines: &mut Vec<(String, String)>) {
    let name = |own: &str| match within {
        "" => own.to_owned(),
        within => format!("{within}.{own}"),
    };
    match value {
        Value::Object(fields) => {
            for (own, value) in fields {
                told_by_name(&name(own), value, lines);
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                let own = item["name"].as_str().or(item["address"].as_str());
                told_by_name(&name(own.unwrap_or(&at.to_string())), item, lines);
            }
        }
        Value::Null => lines.push((within.to_owned(), "-".to_owned())),
        value => lines.push((within.to_owned(), text(value))),
    }
}

/// `askonce savings`
pub(crate) async fn savings(args: SavingsArgs, global: &Global) -> anyhow::Result<()> {
    let days = args.days.map(|days| days.to_string());
    let query = [
        ("tenant", args.tenant),
        ("model", args.model),
        ("route", args.route),
        ("days", days),
        ("since", args.since),
        ("by", args.by),
    ];
    let query: Vec<_> = query
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect();
    let client = args.server.client()?;
    if global.json {
        let told = client.get("/cache/v1/savings", &query).await?;
        return print(global, &told, Value::to_string);
    }
    print!("{}", client.get_text("/cache/v1/savings", &query).await?);
    Ok(())
}

/// `askonce invalidate`
pub(crate) async fn invalidate(args: InvalidateArgs, global: &Global) -> anyhow::Result<()> {
    let told = match args.way.choose(global).await? {
        Way::Server(client) => {
            let fields = Value::Object(args.fields());
            client.post("/cache/v1/invalidate", &fields).await?
        }
        Way::Direct(cache) => args.directly(&cache).await?,
    };
    print(global, &told, |told| {
        if let Some(tiers) = told["tiers"].as_array() {
            let verb = if args.dry_run {
                "would invalidate"
            } else {
                "invalidated"
            };
            return format!(
                "{verb} the tag in {} backends: {}",
                tiers.len(),
                joined(&told["tiers"])
            );
        }
        let counted = if args.dry_run {
            "would_remove"
        } else {
            "removed"
        };
        let verb = counted.replace('_', " ");
        format!("{verb} {} entries", text(&told[counted]))
    })?;
    check_complete(&told)
}

impl InvalidateArgs {
    /// What a server is asked.
    fn fields(&self) -> Map<String, Value> {
        let selector = &self.selector;
        let named = [
            ("entry", &selector.entry),
            ("key", &selector.key),
            ("pattern", &selector.pattern),
            ("tag", &selector.tag),
            ("namespace", &self.namespace),
            ("backend", &self.way.backend),
            ("model", &selector.model),
            ("older_than", &selector.older_than),
        ];
        let mut fields: Map<String, Value> = named
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), json!(value.as_ref()?))))
            .collect();
        if let Some(tenant) = &selector.tenant {
            fields.insert("scope".to_owned(), json!({ "tenant": tenant }));
        }
        if selector.all {
            fields.insert("all".to_owned(), json!(true));
        }
        fields.insert("dry_run".to_owned(), json!(self.dry_run));
        fields
    }

    /// The same without a server.
    async fn directly(&self, cache: &SemanticCache) -> anyhow::Result<Value> {
        let selector = &self.selector;
        if let (Some(namespace), Some(tag)) = (&self.namespace, &selector.tag) {
            let done = typed_tag::invalidate(cache, namespace, tag, None, self.dry_run);
            return Ok(json!({ "by": "typed_tag", "dry_run": self.dry_run, "tiers": done.await? }));
        }
        if let Some(key) = &selector.key {
            let swept = cache.invalidate_key(key, self.dry_run).await;
            return Ok(http::swept("key", self.dry_run, &swept));
        }
        let mut query = KeyQuery::default();
        let by = match (&selector.pattern, &selector.tag, &selector.tenant) {
            (Some(pattern), None, None) => {
                query = KeyQuery::matching(pattern);
                "pattern"
            }
            (None, Some(tag), None) => {
                query.tag = Some(tag.clone());
                "tag"
            }
            (None, None, Some(tenant)) => {
                query.scope = Some(Scope::tenant(tenant.as_str()));
                "scope"
            }
            _ if selector.all => "all",
            _ => bail!(
                "only a running server knows entries by id, model and age: leave out --direct and --backend"
            ),
        };
        let swept = cache.invalidate_keys(&query, self.dry_run).await?;
        Ok(http::swept(by, self.dry_run, &swept))
    }
}

/// Age, life and likeness of a hit.
fn details(hit: &Value) -> String {
    let mut parts = String::new();
    for (name, label) in [("similarity", "similarity"), ("probability", "probability")] {
        if let Some(value) = hit[name].as_f64() {
            parts.push_str(&format!(", {label} {value:.4}"));
        }
    }
    parts.push_str(&format!(", entry {}", text(&hit["entry"])));
    parts.push_str(&format!(", {} s old", text(&hit["age_seconds"])));
    parts
}

fn nearest(nearest: &Value) -> String {
    match nearest["similarity"].as_f64() {
        Some(similarity) => {
            format!(
                " (nearest: entry {}, similarity {similarity:.4})",
                text(&nearest["entry"])
            )
        }
        None => String::new(),
    }
}

fn joined(list: &Value) -> String {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().map(text).collect::<Vec<_>>().join(", ")
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_shows_every_number_that_is_known() {
        let told = json!({
            "miss": { "reasons": ["below_cutoff"] },
            "tiers": ["memory"],
            "candidates": [{
                "entry": "07", "similarity": 0.91, "probability": 0.4, "serve": false,
                "stopped_by": "below_cutoff",
                "before": { "verdict": "refine", "probability": 0.5 },
                "decision": { "verdict": "pass", "probability": 0.4, "reason": "below_cutoff" },
                "verified": 0.375,
                "evidence": {
                    "similarity": 0.91, "refined": 0.62, "margin": null,
                    "record": { "shift": 0.25, "precision": 2.0 },
                },
            }],
            "stage_micros": [],
        });
        let shown = explanation(&told);
        for part in [
            "refined",
            "0.62",
            "shift 0.25",
            "verified             0.375",
            "verdict refine",
            "reason below_cutoff",
        ] {
            assert!(shown.contains(part), "{part} is not in\n{shown}");
        }
        assert!(!shown.contains("margin"));
    }
}
