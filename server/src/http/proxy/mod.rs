//! The proxy in front of providers' APIs.
//!
//! A call in a protocol that the cache reads goes through the cache, whole or as a stream: chat completions,
//! responses, completions, messages, and embeddings input by input. The upstream call runs as a task of its
//! own, once for all callers of the same request: it outlives a caller that hangs up, and its failure reaches
//! every caller as the upstream's own status and body. Everything else is passed through byte for byte, and
//! marked `bypass` where a caller might have hoped for the cache.
//!
//! A request that the cache does not understand is the upstream's to judge: it is passed through too.
//!
//! `reading.rs` keeps what was read of calls that come again, `route.rs` tells where a request goes, `call.rs` makes the call, `give.rs` words what the caller gets,
//! `embeddings.rs` is the one protocol whose answers are put together from several entries.

mod call;
mod embeddings;
mod give;
mod reading;
mod route;

use std::net::SocketAddr;
use std::sync::Arc;

use askonce::replay::{Document, Wanted};
use askonce::{Outcome, Protocol, Served, Source, Streamed};
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use http_body::Body as _;
use serde_json::Value;
use tracing::Instrument as _;

use super::auth::Caller;
use super::control::Wishes;
use super::error::{Problem, provider_error};
use super::{App, body, status};
use crate::traces;
use crate::upstream::{Outgoing, Upstream};
use call::Call;
use give::{Asked, call_failed, told};
use reading::{Called, Reading};
use route::Route;

pub(super) use reading::Readings;

/// Headers that choose what answers, beside the body: part of a request's identity.
const IDENTITY_HEADERS: [&str; 5] = [
    "openai-organization",
    "openai-project",
    "openai-beta",
    "anthropic-version",
    "anthropic-beta",
];

/// Any path of the providers' APIs.
pub(crate) async fn handle(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let parts = Arc::new(parts);
    let protocol = match parts.method {
        Method::POST => Protocol::of_path(parts.uri.path()),
        _ => None,
    };
    let answered = match protocol {
        Some(protocol) => answer(&app, peer, &parts, protocol, body).await,
        None => Box::pin(pass_through(&app, peer, &parts, body)).await,
    };
    answered.unwrap_or_else(|problem| problem.into_provider_response(protocol))
}

/// A path that the cache has nothing to do with.
async fn pass_through(
    app: &Arc<App>,
    peer: SocketAddr,
    parts: &Arc<Parts>,
    body: Body,
) -> Result<Response, Problem> {
    app.auth.identify(&parts.headers, peer)?;
    let route = Route::find(app, parts, None, None)?;
    let upstream = route.primary();
    let url = route.url(upstream)?;
    let body = if body.is_end_stream() {
        Outgoing::Nothing
    } else {
        Outgoing::Stream(body)
    };
    let headers = upstream.headers(&parts.headers, false);
    let method = parts.method.clone();
    Ok(relay(upstream, method, url, headers, body, "passthrough").await)
}

/// A body that is passed through as it came, to be marked with why.
struct Unread<'a> {
    route: &'a Route,
    headers: &'a HeaderMap,
    body: Bytes,
}

impl Unread<'_> {
    async fn relay(self, detail: &'static str) -> Result<Response, Problem> {
        let upstream = self.route.primary();
        let headers = call::sized(upstream.headers(self.headers, false));
        let (url, body) = (self.route.url(upstream)?, upstream.renamed(self.body));
        let body = Outgoing::Whole(body);
        Ok(relay(upstream, Method::POST, url, headers, body, detail).await)
    }
}

async fn relay(
    upstream: &Upstream,
    method: Method,
    url: reqwest::Url,
    mut headers: HeaderMap,
    body: Outgoing,
    detail: &'static str,
) -> Response {
    let span = traces::relay(&method);
    let relayed = async {
        traces::hand_on(&mut headers);
        let relayed = upstream.relay(method, url, headers, body).await;
        traces::replied(upstream, relayed.as_ref().map(Response::status));
        relayed
    };
    let mut response = match relayed.instrument(span).await {
        Ok(response) => response,
        Err(error) => told(upstream.name(), &error, None),
    };
    status::bypassed(response.headers_mut(), detail);
    response
}

/// A call in a protocol that the cache reads.
async fn answer(
    app: &Arc<App>,
    peer: SocketAddr,
    parts: &Arc<Parts>,
    protocol: Protocol,
    body: Body,
) -> Result<Response, Problem> {
    let caller = app.auth.identify(&parts.headers, peer)?;
    let body = body::read(body, app.config.max_body_bytes.as_u64()).await?;
    let called = Called {
        caller: &caller,
        parts,
        body: &body,
    };
    let reading = match app.readings.get(&called) {
        Some(known) => known,
        // What is seldom needed stands apart, so that a hit does not carry the room that it takes.
        None => match Box::pin(read(app, &caller, parts, protocol, &body)).await? {
            Read::Call(reading) => app.readings.keep(&called, reading),
            Read::Answered(response) => return Ok(*response),
        },
    };
    let Reading { request, asked, .. } = &*reading;
    if reading.wishes.control.only_if_cached {
        return Ok(Box::pin(only_if_cached(app, request, asked)).await);
    }
    let call = Call::new(app, parts, &reading, body);
    Ok(match asked.stream {
        true => streamed(app, request, call).await,
        false => whole(app, request, call).await,
    })
}

/// What came of reading a call.
enum Read {
    /// One that goes through the cache.
    Call(Reading),
    /// One that does not, or not as one request: its response.
    Answered(Box<Response>),
}

impl From<Response> for Read {
    fn from(response: Response) -> Self {
        Self::Answered(Box::new(response))
    }
}

/// Reads a call, and answers those that are not for the cache.
async fn read(
    app: &Arc<App>,
    caller: &Caller,
    parts: &Arc<Parts>,
    protocol: Protocol,
    body: &Bytes,
) -> Result<Read, Problem> {
    let value = serde_json::from_slice::<Value>(body).ok();
    let named = value
        .as_ref()
        .and_then(|value| value.get("model")?.as_str());
    let model = named
        .or_else(|| route::deployment(parts.uri.path()))
        .map(str::to_owned);
    let route = Route::find(app, parts, Some(protocol), model.as_deref())?;
    let headers = &parts.headers;
    let unread = |body: &Bytes| Unread {
        route: &route,
        headers,
        body: body.clone(),
    };
    let Some(mut value) = value else {
        return Ok(unread(body).relay("unparsed").await?.into());
    };
    // Where the path names the deployment, the body need not name a model.
    if let (Some(fields), Some(model)) = (value.as_object_mut(), model) {
        fields.entry("model").or_insert_with(|| model.into());
    }
    let stripped = without_cache_field(body, &value);
    let body = stripped.as_ref().unwrap_or(body);
    let mut wishes = Wishes::read(headers)?;
    let context = Context {
        app,
        caller,
        parts,
        route: &route,
    };
    if protocol == Protocol::OpenAiEmbeddings {
        let requests = match askonce::Request::from_openai_embeddings(&value, caller.scope.clone())
        {
            Ok(requests) => requests,
            Err(error) if is_about_cache(&error) => return Err(error.into()),
            Err(_) => return Ok(unread(body).relay("unparsed").await?.into()),
        };
        let answered = embeddings::answer(&context, requests, wishes, body.clone()).await;
        return Ok(answered.into());
    }
    let request = match askonce::Request::read(protocol, &value, caller.scope.clone()) {
        Ok(request) => request,
        // What is said to the cache is not the upstream's to judge.
        Err(error) if is_about_cache(&error) => return Err(error.into()),
        Err(_) => return Ok(unread(body).relay("unparsed").await?.into()),
    };
    if let Some(reason) = request.bypass() {
        return Ok(unread(body).relay(reason.as_str()).await?.into());
    }
    let request = wishes.join(request);
    if !wishes.may_serve() && !wishes.may_store() {
        return Ok(unread(body).relay("opted_out").await?.into());
    }
    let asked = Asked {
        protocol,
        stream: request.wants_stream(),
        wanted: Wanted {
            usage: value.pointer("/stream_options/include_usage") == Some(&Value::Bool(true)),
        },
    };
    Ok(Read::Call(Reading {
        request: context.identify(request, &wishes),
        asked,
        wishes,
        primary: Arc::clone(route.primary()),
        stripped,
    }))
}

/// What a request is read with.
struct Context<'a> {
    app: &'a Arc<App>,
    caller: &'a Caller,
    parts: &'a Arc<Parts>,
    route: &'a Route,
}

impl Context<'_> {
    /// The request with all that tells it apart from others beside its body.
    fn identify(&self, request: askonce::Request, wishes: &Wishes) -> askonce::Request {
        debug_assert_eq!(*request.scope_ref(), self.caller.scope);
        let upstream = self.route.primary();
        let mut request = match &wishes.namespace {
            Some(namespace) => request.namespace(namespace.as_str()),
            None => request,
        };
        request = self.caller.sign(request.route(upstream.name()));
        if !self.app.upstreams.is_default(upstream) {
            request = request.param("askonce.upstream", upstream.name());
        }
        if let Some(query) = self.parts.uri.query() {
            request = request.param("askonce.query", query);
        }
        for name in IDENTITY_HEADERS {
            if let Some(value) = self.parts.headers.get(name) {
                let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                request = request.param(format!("askonce.header.{name}"), value);
            }
        }
        request
    }
}

/// Answers from the cache, or from upstream and into the cache.
async fn whole(app: &App, request: &askonce::Request, call: Call) -> Response {
    let (asked, notes) = (call.asked, call.notes());
    let served = app.cache.get_or_call(request, move || call.whole()).await;
    match served {
        Ok(served) => asked.served(&app.cache, request, &served, &notes),
        Err(error) => call_failed(&error, asked.protocol),
    }
}

/// The same as a stream, as far as it is under way while it comes.
async fn streamed(app: &App, request: &askonce::Request, call: Call) -> Response {
    let (asked, notes) = (call.asked, call.notes());
    let pace = app.config.stream_pace;
    let streamed = app
        .cache
        .get_or_stream(request, move |sink| call.streamed(sink))
        .await;
    let mut live = match streamed {
        Streamed::Hit(hit) => return asked.hit(&app.cache, request, &hit, pace),
        Streamed::Live(live) => live,
    };
    // The head of the response tells what is known by then, so it waits for the first frame.
    if live.ready().await {
        return asked.live(live, &notes);
    }
    match live.result() {
        Some(Ok(Served {
            source: Source::Cache(hit),
            ..
        })) => asked.hit(&app.cache, request, &hit, pace),
        Some(Ok(served)) => asked.served(&app.cache, request, &served, &notes),
        Some(Err(error)) => call_failed(&error, asked.protocol),
        None => {
            let problem = "the upstream call ended without a result";
            provider_error(
                StatusCode::BAD_GATEWAY,
                "upstream_failed",
                problem,
                None,
                Some(asked.protocol),
            )
        }
    }
}

async fn only_if_cached(app: &App, request: &askonce::Request, asked: &Asked) -> Response {
    match app.cache.lookup(request).await {
        Outcome::Hit(hit) => asked.hit(&app.cache, request, &hit, app.config.stream_pace),
        Outcome::Miss(miss) => {
            let message = format!("there is no answer in the cache: {}", miss.reason());
            let status = StatusCode::GATEWAY_TIMEOUT;
            let mut response = provider_error(
                status,
                "only_if_cached",
                &message,
                None,
                Some(asked.protocol),
            );
            status::not_forwarded(response.headers_mut(), &miss);
            response
        }
    }
}

/// The body without the field that speaks to the cache; `None` where there is none.
fn without_cache_field(body: &[u8], value: &Value) -> Option<Bytes> {
    value.get("cache")?;
    let mut document = Document::read(body)?;
    document.remove("cache");
    Some(document.to_text().into())
}

fn is_about_cache(error: &askonce::Error) -> bool {
    let mut fields = error.context().iter().filter(|(name, _)| *name == "field");
    fields.any(|(_, field)| field == "cache" || field.starts_with("cache."))
}

/// Whether a response is a stream of events.
fn is_event_stream(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.trim_start().starts_with("text/event-stream"))
}
