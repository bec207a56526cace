//! The cache's own API below `/cache/v1`: JSON in, JSON or a problem document out.
//!
//! Bodies are read as JSON whatever their content type says, so that `curl -d` works. A request is
//! either a `prompt` with its `model`, `system`, `params` and `namespace`, or the whole `body` of a call in the
//! `protocol` that is named ([`PROTOCOLS`]; a chat completion's where none is). `openai_chat` is such a body, too.
//!
//! A caller reads, judges and invalidates entries of its own scope alone; an admin those of every scope.
//! An entry of another scope is answered as one that does not exist.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use askonce::savings::{SavingsFilter, Usage};
use askonce::{
    Answer, EntryId, ExactKey, Hit, HitKind, LookupOptions, Miss, Outcome, Protocol, Scope,
    Selector, StoreOptions, StoreOutcome, Ttl, Verdict,
};
use axum::Json;
use axum::body::Body;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use super::auth::Caller;
use super::control::{Wishes, check_name, check_tags, read_span};
use super::error::{Problem, without_value};
use super::health::tier_problem;
use super::{App, body, keys};
use crate::typed_tag;

pub(crate) type Peer = ConnectInfo<SocketAddr>;
pub(crate) type Answered = Result<Response, Problem>;

/// `POST /cache/v1/lookup`
pub(crate) async fn lookup(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): Peer,
    headers: HeaderMap,
    body: Body,
) -> Answered {
    #[derive(Deserialize)]
    struct Options {
        exact_only: Option<bool>,
    }
    let caller = app.auth.identify(&headers, peer)?;
    let mut fields = read_fields(&app, body, &["exact_only"]).await?;
    let (request, _) = fields.request(&caller, &headers)?;
    let options: Options = fields.rest()?;
    let mut accepted = LookupOptions::of(&request);
    accepted.exact_only |= options.exact_only.unwrap_or(false);
    let outcome = app.cache.lookup_with(&request, &accepted).await;
    let mut response = Json(match &outcome {
        Outcome::Hit(hit) => hit_json(hit),
        Outcome::Miss(miss) => miss_json(miss),
    })
    .into_response();
    match &outcome {
        Outcome::Hit(hit) => super::status::hit(response.headers_mut(), hit),
        Outcome::Miss(miss) => super::status::not_forwarded(response.headers_mut(), miss),
    }
    Ok(response)
}

/// `POST /cache/v1/store`
pub(crate) async fn store(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): Peer,
    headers: HeaderMap,
    body: Body,
) -> Answered {
    #[derive(Deserialize)]
    struct Options {
        answer: Value,
        #[serde(default)]
        ttl: Life,
        #[serde(default)]
        tags: Vec<String>,
        usage: Option<UsageBody>,
        latency: Option<Span>,
        /// Whether an admin answers for it.
        #[serde(default)]
        approved: bool,
    }
    let caller = app.auth.identify(&headers, peer)?;
    let known = ["answer", "ttl", "tags", "usage", "latency", "approved"];
    let mut fields = read_fields(&app, body, &known).await?;
    let prompt = fields.0.get("prompt").and_then(Value::as_str);
    // A body may be whatever its provider takes.
    if prompt.is_some_and(|prompt| prompt.trim().is_empty()) {
        return Err(Problem::bad_request("the prompt is empty").field("prompt"));
    }
    let (request, wishes) = fields.request(&caller, &headers)?;
    let options: Options = fields.rest()?;
    if options.approved {
        caller.require_admin("approve an answer")?;
    }
    check_tags(&options.tags).map_err(|problem| problem.field("tags"))?;
    if options.answer.is_null() {
        return Err(Problem::bad_request("an answer is text or JSON, not null").field("answer"));
    }
    if let Some(detail) = misfit(request.protocol(), &options.answer) {
        return Err(Problem::bad_request(detail).field("answer"));
    }
    let mut kept = StoreOptions {
        tags: wishes.tags,
        approved: options.approved,
        ..StoreOptions::default()
    };
    kept.tags.extend(options.tags);
    match options.ttl {
        Life::Default => {}
        Life::Forever => kept.ttl = Ttl::Forever,
        Life::For(Span(life)) => kept.ttl = Ttl::For(life),
    }
    let reported = options.answer.get("usage");
    let reported = reported.and_then(|usage| match request.protocol() {
        Protocol::Prompt => None,
        Protocol::AnthropicMessages => Usage::from_anthropic(usage),
        _ => Usage::from_openai(usage),
    });
    kept.usage = options.usage.map(|usage| usage.0).or(reported);
    kept.latency = options.latency.map(|span| span.0);
    let outcome = app
        .cache
        .store(&request, Answer::from(options.answer), kept)
        .await;
    let (status, told) = match outcome {
        StoreOutcome::Stored { entry, expires } => {
            let ttl = expires.map(|expires| {
                expires.since(askonce::clock::Clock::now(&askonce::clock::SystemClock))
            });
            let told = json!({
                "outcome": "stored",
                "entry": entry,
                "key": request.exact_key(),
                "ttl_seconds": ttl.map(whole_seconds),
                "searchable": request.eligibility().is_eligible(),
            });
            (StatusCode::CREATED, told)
        }
        StoreOutcome::NotStored { reason } => (
            StatusCode::OK,
            json!({ "outcome": "not_stored", "reason": reason }),
        ),
    };
    Ok((status, Json(told)).into_response())
}

/// `POST /cache/v1/explain`
pub(crate) async fn explain(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): Peer,
    headers: HeaderMap,
    body: Body,
) -> Answered {
    #[derive(Deserialize)]
    struct Options {}
    let caller = app.auth.identify(&headers, peer)?;
    let mut fields = read_fields(&app, body, &[]).await?;
    let (request, _) = fields.request(&caller, &headers)?;
    let Options {} = fields.rest()?;
    Ok(Json(app.cache.explain(&request).await).into_response())
}

/// `POST /cache/v1/feedback`
pub(crate) async fn feedback(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): Peer,
    headers: HeaderMap,
    body: Body,
) -> Answered {
    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Judgement {
        Right,
        Wrong,
    }
    #[derive(Deserialize)]
    struct Options {
        entry: EntryId,
        verdict: Judgement,
        /// Who says so, among those that the caller speaks for.
        user: Option<String>,
    }
    let caller = app.auth.identify(&headers, peer)?;
    let mut fields = read_fields(&app, body, &["entry", "verdict", "user"]).await?;
    let asked = ["prompt", "body", "openai_chat"];
    let asked = asked.iter().any(|name| fields.0.contains_key(*name));
    let query = if asked {
        Some(fields.request(&caller, &headers)?.0)
    } else {
        None
    };
    let Options {
        entry,
        verdict,
        user,
    } = fields.rest()?;
    if let Some(user) = &user {
        check_name("a user", user)?;
    }
    find(&app, &caller, entry)?;
    let verdict = match (verdict, query) {
        (Judgement::Right, _) => Verdict::Right,
        (Judgement::Wrong, Some(query)) => Verdict::Wrong { query },
        (Judgement::Wrong, None) => {
            let detail = "a wrong hit needs the prompt or the body that was answered with it";
            return Err(Problem::bad_request(detail).field("prompt"));
        }
    };
    let principal = format!("{} {}", caller.scope.label(), user.unwrap_or_default());
    let heard = app.cache.feedback_from(entry, verdict, &principal).await?;
    if !heard {
        let detail = "there were too many reports of late: this one is not noted";
        return Err(Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_reports",
            "There were too many reports",
            detail,
        ));
    }
    Ok(Json(json!({ "outcome": "noted", "entry": entry })).into_response())
}

/// `POST /cache/v1/breaker/reset`
pub(crate) async fn reset_breaker(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): Peer,
    headers: HeaderMap,
    body: Body,
) -> Answered {
    #[derive(Deserialize)]
    struct Options {
        category: Option<String>,
    }
    let caller = app.auth.identify(&headers, peer)?;
    caller.require_admin("reset the breaker")?;
    let fields = read_fields(&app, body, &["category"]).await?;
    let Options { category } = fields.only()?;
    app.cache.reset_breaker(category.as_deref());
    Ok(Json(json!({ "outcome": "reset", "category": category })).into_response())
}

/// `POST /cache/v1/invalidate`
pub(crate) async fn invalidate(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): Peer,
    headers: HeaderMap,
    body: Body,
) -> Answered {
    #[derive(Deserialize)]
    struct Options {
        entry: Option<EntryId>,
        key: Option<String>,
        pattern: Option<String>,
        namespace: Option<String>,
        backend: Option<String>,
        tag: Option<String>,
        model: Option<String>,
        scope: Option<Scope>,
        older_than: Option<Span>,
        all: Option<bool>,
        #[serde(default)]
        dry_run: bool,
    }
    let caller = app.auth.identify(&headers, peer)?;
    let known = [
        "entry",
        "key",
        "pattern",
        "backend",
        "tag",
        "model",
        "scope",
        "older_than",
        "all",
        "dry_run",
    ];
    let mut fields = read_fields(&app, body, &known).await?;
    // A field of requests, too, but here it is a typed cache's.
    let namespace = fields.0.remove("namespace");
    let mut options: Options = fields.only()?;
    options.namespace = match namespace {
        None => None,
        Some(Value::String(namespace)) => Some(namespace),
        Some(_) => {
            return Err(Problem::bad_request("a namespace is text").field("namespace"));
        }
    };
    for (what, name) in [("a tag", &options.tag), ("a model", &options.model)] {
        if let Some(name) = name {
            check_name(what, name)?;
        }
    }
    let alone = [
        options.entry.is_some(),
        options.key.is_some(),
        options.pattern.is_some(),
        options.tag.is_some(),
        options.model.is_some(),
        options.older_than.is_some(),
        options.all == Some(true),
    ];
    let alone = alone.into_iter().filter(|given| *given).count() == 1 && options.scope.is_none();
    if options.pattern.is_some() || options.namespace.is_some() || options.backend.is_some() {
        if !alone {
            let detail =
                "a pattern, a namespace or a backend goes with neither scope nor another selector";
            return Err(Problem::bad_request(detail));
        }
        let (backend, dry_run) = (options.backend, options.dry_run);
        return match (options.pattern, options.namespace, options.tag) {
            (Some(pattern), None, _) => {
                let query = keys::query(&caller, Some(&pattern), None, backend);
                let swept = app.cache.invalidate_keys(&query, dry_run).await;
                let swept = swept.map_err(|error| tier_problem(&error))?;
                Ok(Json(keys::swept("pattern", dry_run, &swept)).into_response())
            }
            (None, Some(namespace), Some(tag)) => {
                caller.require_admin("invalidate a tag of typed caches")?;
                let backend = backend.as_deref();
                let done =
                    typed_tag::invalidate(&app.cache, &namespace, &tag, backend, dry_run).await;
                let done = done.map_err(|error| tier_problem(&error))?;
                let told = json!({ "by": "typed_tag", "dry_run": dry_run, "tiers": done });
                Ok(Json(told).into_response())
            }
            (None, None, Some(tag)) => {
                let query = keys::query(&caller, None, Some(tag), backend);
                let swept = app.cache.invalidate_keys(&query, dry_run).await;
                let swept = swept.map_err(|error| tier_problem(&error))?;
                Ok(Json(keys::swept("tag", dry_run, &swept)).into_response())
            }
            (None, None, None) if options.all == Some(true) => {
                let query = keys::query(&caller, None, None, backend);
                let swept = app.cache.invalidate_keys(&query, dry_run).await;
                let swept = swept.map_err(|error| tier_problem(&error))?;
                Ok(Json(keys::swept("all", dry_run, &swept)).into_response())
            }
            _ => {
                let detail = "a namespace goes with a tag, a backend with a pattern, a tag or all";
                Err(Problem::bad_request(detail))
            }
        };
    }
    let key = match options.key.as_deref().map(str::parse::<ExactKey>) {
        None => None,
        Some(Ok(key)) => Some(key),
        // A key of a typed cache, by name.
        Some(Err(_)) if alone && caller.admin => {
            let name = options.key.as_deref().unwrap_or_default();
            let swept = app.cache.invalidate_key(name, options.dry_run).await;
            return Ok(Json(keys::swept("key", options.dry_run, &swept)).into_response());
        }
        Some(Err(error)) => return Err(Problem::from(error).field("key")),
    };
    if let (Some(name), true, true) = (&options.key, alone, options.dry_run) {
        // Another process may have stored it: the catalogue does not tell.
        let held = app.cache.invalidate_key(name, true).await;
        return Ok(Json(keys::swept("key", true, &held)).into_response());
    }
    let all = options.all.unwrap_or(false).then_some(Selector::All);
    let selectors = [
        options.entry.map(Selector::Entry),
        key.map(Selector::Key),
        options.tag.map(Selector::Tag),
        options.model.map(Selector::Model),
        options.older_than.map(|age| Selector::OlderThan(age.0)),
        all,
    ];
    let mut selectors = selectors.into_iter().flatten();
    let selector = match (selectors.next(), selectors.next(), options.scope) {
        (Some(selector), None, None) if caller.admin => selector,
        // A key holds its scope: nobody else can name it.
        (Some(selector @ Selector::Key(_)), None, None) => selector,
        (Some(selector), None, None) => selector.within(caller.scope),
        (selector, None, Some(scope)) => {
            if scope != caller.scope {
                caller.require_admin("invalidate entries of another scope")?;
            }
            selector.unwrap_or(Selector::All).within(scope)
        }
        _ => {
            let detail = "name one of entry, key, pattern, tag, model, older_than or all: true";
            return Err(Problem::bad_request(detail));
        }
    };
    let by = selector.as_str();
    let count = match options.dry_run {
        true => app.cache.count(&selector),
        false => app.cache.invalidate(selector).await,
    };
    let counted = if options.dry_run {
        "would_remove"
    } else {
        "removed"
    };
    Ok(Json(json!({ "by": by, "dry_run": options.dry_run, counted: count })).into_response())
}

/// `GET /cache/v1/entries/{id}`
pub(crate) async fn entry(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): Peer,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Answered {
    let caller = app.auth.identify(&headers, peer)?;
    let id: EntryId = id
        .parse()
        .map_err(|error| Problem::from(error).field("id"))?;
    find(&app, &caller, id)?;
    let entry = app.cache.entry(id).await.ok_or_else(no_entry)?;
    let now = askonce::clock::Clock::now(&askonce::clock::SystemClock);
    let told = json!({
        "entry": entry.id,
        "key": entry.digests.exact(),
        "partition": entry.digests.partition(),
        "text": entry.text,
        "answer": entry.answer.to_value(),
        "usage": entry.usage,
        "cost_usd": entry.cost,
        "latency_seconds": entry.latency.as_secs_f64(),
        "tags": entry.tags,
        "age_seconds": whole_seconds(now.since(entry.created)),
        "ttl_seconds": entry.expires.map(|expires| whole_seconds(expires.since(now))),
    });
    Ok(Json(told).into_response())
}

/// `GET /cache/v1/stats`
pub(crate) async fn stats(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): Peer,
    headers: HeaderMap,
) -> Answered {
    app.auth.identify(&headers, peer)?;
    let stats = app.cache.stats().await;
    let hit_rate = stats.hit_rate();
    let mut told = serde_json::to_value(stats).unwrap_or_default();
    if let Some(told) = told.as_object_mut() {
        told.insert("hit_rate".to_owned(), json!(hit_rate));
    }
    Ok(Json(told).into_response())
}

/// `GET /cache/v1/savings?tenant=&model=&route=&days=&since=&by=`
pub(crate) async fn savings(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): Peer,
    headers: HeaderMap,
    filter: Result<Query<SavingsFilter>, axum::extract::rejection::QueryRejection>,
) -> Answered {
    let caller = app.auth.identify(&headers, peer)?;
    let Query(mut filter) =
        filter.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    if !caller.admin {
        let own = caller.scope.label().into_owned();
        if filter.tenant.as_ref().is_some_and(|tenant| *tenant != own) {
            caller.require_admin("see what another tenant saved")?;
        }
        filter.tenant = Some(own);
    }
    let report = app.cache.savings_for(&filter);
    let as_text = headers
        .get("accept")
        .is_some_and(|accept| accept.as_bytes().starts_with(b"text/plain"));
    Ok(if as_text {
        report.to_string().into_response()
    } else {
        Json(report).into_response()
    })
}

fn hit_json(hit: &Hit) -> Value {
    let mut told = json!({
        "outcome": "hit",
        "kind": hit.kind.as_str(),
        "answer": hit.answer.to_value(),
        "entry": hit.entry,
        "age_seconds": whole_seconds(hit.age),
        "ttl_seconds": hit.ttl.map(whole_seconds),
        "saved": {
            "usd": hit.saved.usd,
            "input_tokens": hit.saved.usage.input_tokens,
            "output_tokens": hit.saved.usage.output_tokens,
            "seconds": hit.saved.duration.as_secs_f64(),
        },
    });
    match &hit.kind {
        HitKind::Exact { tier } => told["tier"] = json!(tier),
        HitKind::Semantic {
            similarity,
            probability,
            verified,
        } => {
            told["similarity"] = json!(similarity);
            told["probability"] = json!(probability);
            if let Some(verified) = verified {
                told["verified"] = json!(verified);
            }
        }
    }
    told
}

fn miss_json(miss: &Miss) -> Value {
    json!({
        "outcome": "miss",
        "reason": miss.reason(),
        "reasons": miss.reasons,
        "nearest": miss.nearest,
    })
}

fn whole_seconds(span: Duration) -> u64 {
    span.as_secs()
}

/// Checks that there is such an entry for this caller.
fn find(app: &App, caller: &Caller, id: EntryId) -> Result<(), Problem> {
    let selector = Selector::Entry(id);
    let selector = if caller.admin {
        selector
    } else {
        selector.within(caller.scope.clone())
    };
    if app.cache.count(&selector) == 0 {
        Err(no_entry())
    } else {
        Ok(())
    }
}

fn no_entry() -> Problem {
    Problem::not_found("there is no such entry, or it is gone")
}

/// The fields that say what is asked.
const REQUEST_FIELDS: [&str; 8] = [
    "prompt",
    "protocol",
    "body",
    "model",
    "system",
    "params",
    "namespace",
    "openai_chat",
];

/// The protocols of calls whose bodies are read; the first where none is named.
pub(crate) const PROTOCOLS: [Protocol; 5] = [
    Protocol::OpenAiChat,
    Protocol::OpenAiResponses,
    Protocol::OpenAiCompletions,
    Protocol::OpenAiEmbeddings,
    Protocol::AnthropicMessages,
];

/// Why an answer is none to a call in `protocol`, if so.
fn misfit(protocol: Protocol, answer: &Value) -> Option<&'static str> {
    let whole = |list: &str| answer.is_string() || answer.get(list).is_some_and(Value::is_array);
    let (fits, expected) = match protocol {
        Protocol::OpenAiChat => (
            whole("choices"),
            "the answer to a chat is text or a chat completion",
        ),
        Protocol::OpenAiCompletions => (
            whole("choices"),
            "the answer to a prompt is text or a completion",
        ),
        Protocol::OpenAiResponses => (
            whole("output"),
            "the answer to a call of the responses API is text or a response",
        ),
        Protocol::AnthropicMessages => (
            whole("content"),
            "the answer to messages is text or a message",
        ),
        Protocol::OpenAiEmbeddings => (
            answer.get("embedding").is_some_and(is_embedding),
            "the answer to an input is an object with its embedding: numbers, or Base64",
        ),
        _ => return None,
    };
    (!fits).then_some(expected)
}

/// Whether this may be an embedding, in numbers or in Base64.
fn is_embedding(value: &Value) -> bool {
    match value {
        Value::Array(numbers) => !numbers.is_empty() && numbers.iter().all(Value::is_number),
        Value::String(base64) => !base64.is_empty(),
        _ => false,
    }
}

/// The fields of a body, all of them known.
pub(crate) struct Fields(Map<String, Value>);

/// Reads a body that may hold the fields of a request and those of `known`.
pub(crate) async fn read_fields(app: &App, body: Body, known: &[&str]) -> Result<Fields, Problem> {
    let bytes = body::read(body, app.config.max_body_bytes.as_u64()).await?;
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        Problem::bad_request(format!(
            "the body is not UTF-8 from byte {} on",
            error.valid_up_to()
        ))
    })?;
    let fields: Map<String, Value> = serde_json::from_str(text).map_err(|error| {
        Problem::bad_request(format!(
            "the body is not a JSON object: {}",
            without_value(&error.to_string())
        ))
    })?;
    let is_known = |name: &str| REQUEST_FIELDS.contains(&name) || known.contains(&name);
    if let Some(unknown) = fields.keys().find(|name| !is_known(name)) {
        let near = known
            .iter()
            .chain(&REQUEST_FIELDS)
            .min_by_key(|name| strsim::damerau_levenshtein(name, unknown))
            .filter(|name| strsim::damerau_levenshtein(name, unknown) <= 3);
        let unknown: String = unknown.chars().take(64).collect();
        let detail = match near {
            Some(near) => format!("there is no such field; did you mean `{near}`?"),
            None => "there is no such field".to_owned(),
        };
        return Err(Problem::bad_request(detail).field(unknown));
    }
    Ok(Fields(fields))
}

impl Fields {
    /// Takes out what is asked.
    fn request(
        &mut self,
        caller: &Caller,
        headers: &HeaderMap,
    ) -> Result<(askonce::Request, Wishes), Problem> {
        #[derive(Deserialize)]
        struct Asked {
            prompt: Option<String>,
            protocol: Option<String>,
            body: Option<Value>,
            model: Option<String>,
            system: Option<String>,
            params: Option<Map<String, Value>>,
            namespace: Option<String>,
            openai_chat: Option<Value>,
        }
        let taken = REQUEST_FIELDS
            .iter()
            .filter_map(|name| self.0.remove_entry(*name));
        let asked: Asked = from_fields(taken.collect())?;
        let mut wishes = Wishes::read(headers)?;
        let scope = caller.scope.clone();
        let request = match (asked.prompt, asked.body, asked.openai_chat) {
            (Some(_), None, None) if asked.protocol.is_some() => {
                let detail = "a protocol goes with a body, a prompt is of none";
                return Err(Problem::bad_request(detail).field("protocol"));
            }
            (Some(prompt), None, None) => askonce::Request::prompt(prompt).scope(scope),
            (None, Some(body), None) => {
                let protocol = protocol_named(asked.protocol.as_deref())?;
                read_call(protocol, &body, scope, "body.")?
            }
            (None, None, Some(_)) if asked.protocol.is_some() => {
                let detail = "a protocol goes with a body, openai_chat is of its own";
                return Err(Problem::bad_request(detail).field("protocol"));
            }
            (None, None, Some(chat)) => {
                read_call(Protocol::OpenAiChat, &chat, scope, "openai_chat.")?
            }
            (None, None, None) => {
                return Err(
                    Problem::bad_request("there is neither prompt nor body").field("prompt")
                );
            }
            (_, body, _) => {
                let detail = "give one of prompt, body and openai_chat";
                let field = if body.is_some() {
                    "body"
                } else {
                    "openai_chat"
                };
                return Err(Problem::bad_request(detail).field(field));
            }
        };
        let request = caller.sign(wishes.join(request));
        let request = asked
            .model
            .into_iter()
            .fold(request, askonce::Request::model);
        let request = asked
            .system
            .into_iter()
            .fold(request, askonce::Request::system);
        let namespace = asked.namespace.or_else(|| wishes.namespace.take());
        if let Some(namespace) = &namespace {
            check_name("a namespace", namespace).map_err(|problem| problem.field("namespace"))?;
        }
        let request = namespace
            .into_iter()
            .fold(request, askonce::Request::namespace);
        let params = asked.params.unwrap_or_default();
        let request = params
            .into_iter()
            .fold(request, |request, (name, value)| request.param(name, value));
        Ok((request, wishes))
    }

    /// Reads what is left after the request was taken out.
    fn rest<T: DeserializeOwned>(self) -> Result<T, Problem> {
        from_fields(self.0)
    }

    /// Reads fields of which none says what is asked, but for `model`.
    pub(crate) fn only<T: DeserializeOwned>(self) -> Result<T, Problem> {
        let stray = REQUEST_FIELDS
            .iter()
            .find(|name| **name != "model" && self.0.contains_key(**name));
        match stray {
            Some(name) => Err(Problem::bad_request("there is no such field here").field(*name)),
            None => self.rest(),
        }
    }
}

/// The protocol of a name, one of [`PROTOCOLS`].
fn protocol_named(name: Option<&str>) -> Result<Protocol, Problem> {
    let Some(name) = name else {
        return Ok(PROTOCOLS[0]);
    };
    let mut known = PROTOCOLS.iter();
    known
        .find(|protocol| protocol.as_str() == name)
        .copied()
        .ok_or_else(|| {
            let known = PROTOCOLS.map(Protocol::as_str).join(", ");
            Problem::bad_request(format!("expected one of {known}")).field("protocol")
        })
}

/// Reads the body of a call, which stands below `place`.
fn read_call(
    protocol: Protocol,
    body: &Value,
    scope: Scope,
    place: &str,
) -> Result<askonce::Request, Problem> {
    askonce::Request::read(protocol, body, scope).map_err(|error| {
        let mut problem = Problem::from(error);
        problem.prefix_field(place);
        problem
    })
}

fn from_fields<T: DeserializeOwned>(fields: Map<String, Value>) -> Result<T, Problem> {
    serde_path_to_error::deserialize(Value::Object(fields)).map_err(|error| {
        let message = error.inner().to_string();
        let missing = message
            .strip_prefix("missing field `")
            .and_then(|rest| rest.split('`').next());
        let path = match (error.path().to_string(), missing) {
            (path, None) => path,
            (path, Some(name)) if path == "." => name.to_owned(),
            (path, Some(name)) => format!("{path}.{name}"),
        };
        Problem::bad_request(without_value(&message).into_owned()).field(path)
    })
}

/// Most seconds of a [`Span`]: 31 years.
const MOST_SECONDS: f64 = 1e9;

/// A whole number, also one that is written with a point.
pub(crate) struct Whole(pub(crate) usize);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let value = Value::deserialize(deserializer)?;
        let whole = value.as_u64().or_else(|| {
            let whole = value.as_f64()?;
            (whole.fract() == 0.0 && (0.0..9e15).contains(&whole)).then_some(whole as u64)
        });
        whole
            .and_then(|whole| usize::try_from(whole).ok())
            .map(Self)
            .ok_or_else(|| D::Error::custom("expected a whole number, zero or more"))
    }
}

/// Seconds, or a duration such as `90m`.
struct Span(Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let expected = "expected seconds, from 0 to 1000000000, or a duration such as 90m or 24h";
        match Value::deserialize(deserializer)? {
            Value::String(text) => read_span(&text)
                .map(Self)
                .map_err(|_| D::Error::custom(expected)),
            Value::Number(seconds) => seconds
                .as_f64()
                .filter(|seconds| *seconds <= MOST_SECONDS)
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                .map(Self)
                .ok_or_else(|| D::Error::custom(expected)),
            _ => Err(D::Error::custom(expected)),
        }
    }
}

/// How long an entry is to live: a [`Span`], or `"forever"`.
#[derive(Default)]
enum Life {
    #[default]
    Default,
    Forever,
    For(Span),
}

impl<'de> Deserialize<'de> for Life {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        match Value::deserialize(deserializer)? {
            Value::Null => Ok(Self::Default),
            Value::String(text) if text == "forever" => Ok(Self::Forever),
            other => Span::deserialize(other)
                .map(Self::For)
                .map_err(D::Error::custom),
        }
    }
}

/// The fields of [`UsageBody`].
const TOKENS: [&str; 4] = [
    "input_tokens",
    "output_tokens",
    "prompt_tokens",
    "completion_tokens",
];

/// Most tokens of one call.
const MOST_TOKENS: usize = 1_000_000_000;

/// Token counts, in the words of any provider or in ours.
struct UsageBody(Usage);

impl<'de> Deserialize<'de> for UsageBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let mut value = Value::deserialize(deserializer)?;
        for name in TOKENS {
            let Some(tokens) = value.get_mut(name).filter(|tokens| !tokens.is_null()) else {
                continue;
            };
            // A count that cannot be read would be taken for none.
            let whole = Whole::deserialize(&*tokens).ok();
            let whole = whole
                .filter(|whole| whole.0 <= MOST_TOKENS)
                .ok_or_else(|| {
                    D::Error::custom(format!("{name} is a whole number from 0 to {MOST_TOKENS}"))
                })?;
            *tokens = json!(whole.0);
        }
        Usage::from_openai(&value).map(Self).ok_or_else(|| {
            D::Error::custom(
                "expected input_tokens and output_tokens, or prompt_tokens and completion_tokens",
            )
        })
    }
}
