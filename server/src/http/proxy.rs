//! The proxy in front of OpenAI-compatible APIs.
//!
//! A chat completion that is not a stream goes through the cache. The upstream call runs as a task of
//! its own, once for all callers of the same request: it outlives a caller that hangs up, and its
//! failure reaches every caller as the upstream's own status and body. Everything else is passed through
//! byte for byte, and marked `bypass` where a caller might have hoped for the cache.
//!
//! A request that the cache does not understand is the upstream's to judge: it is passed through too.

use std::net::SocketAddr;
use std::sync::Arc;

use askonce::savings::Usage;
use askonce::stampede::Flight;
use askonce::{Answer, Fill, Outcome, Served, Source, StoreOptions};
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use http_body::Body as _;
use parking_lot::Mutex;
use reqwest::Url;
use serde_json::Value;

use super::auth::Caller;
use super::control::Wishes;
use super::error::{Problem, provider_error};
use super::{App, body, completion, status};
use crate::upstream::{CallError, Outgoing, Reply, Upstream};

/// Headers that choose what answers, beside the body: part of a request's identity.
const IDENTITY_HEADERS: [&str; 3] = ["openai-organization", "openai-project", "openai-beta"];

/// The header that names an upstream other than the first.
const UPSTREAM: &str = "x-askonce-upstream";

/// `POST /v1/chat/completions`
pub(crate) async fn chat(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    match chat_completion(&app, peer, &parts, body).await {
        Ok(response) => response,
        Err(problem) => problem.into_provider_response(),
    }
}

/// Any other path of the API.
pub(crate) async fn pass_through(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let relayed = async {
        app.auth.identify(&parts.headers, peer)?;
        let (upstream, url) = route(&app, &parts)?;
        let body = if body.is_end_stream() {
            Outgoing::Nothing
        } else {
            Outgoing::Stream(body)
        };
        let headers = upstream.headers(&parts.headers, false);
        Ok(relay(
            upstream,
            parts.method.clone(),
            url,
            headers,
            body,
            "passthrough",
        )
        .await)
    };
    relayed
        .await
        .unwrap_or_else(Problem::into_provider_response)
}

async fn chat_completion(
    app: &App,
    peer: SocketAddr,
    parts: &Parts,
    body: Body,
) -> Result<Response, Problem> {
    let caller = app.auth.identify(&parts.headers, peer)?;
    let (upstream, url) = route(app, parts)?;
    let body = body::read(body, app.config.max_body_bytes.as_u64()).await?;
    let call = Call {
        upstream,
        url,
        headers: &parts.headers,
        body,
    };
    let Ok(value) = serde_json::from_slice::<Value>(&call.body) else {
        return Ok(call.relay("unparsed").await);
    };
    let request = match askonce::Request::from_openai_chat(&value, caller.scope.clone()) {
        Ok(request) => request,
        // What is said to the cache is not the upstream's to judge.
        Err(error) if is_about_cache(&error) => return Err(error.into()),
        Err(_) => return Ok(call.without_cache_field(&value).relay("unparsed").await),
    };
    let call = call.without_cache_field(&value);
    if request.wants_stream() {
        return Ok(call.relay("stream").await);
    }
    let mut wishes = Wishes::read(&parts.headers)?;
    let request = wishes.join(request);
    if !wishes.may_serve() && !wishes.may_store() {
        return Ok(call.relay("opted_out").await);
    }
    let request = identify(request, app, &caller, &call, &wishes, parts);
    if wishes.control.only_if_cached {
        return Ok(only_if_cached(app, &request).await);
    }
    Ok(cached(app, &request, &wishes, call).await)
}

/// The request with all that tells it apart from others beside its body.
fn identify(
    request: askonce::Request,
    app: &App,
    caller: &Caller,
    call: &Call<'_>,
    wishes: &Wishes,
    parts: &Parts,
) -> askonce::Request {
    debug_assert_eq!(*request.scope_ref(), caller.scope);
    let mut request = match &wishes.namespace {
        Some(namespace) => request.namespace(namespace.as_str()),
        None => request,
    };
    request = request.route(call.upstream.name());
    if !app.upstreams.is_default(call.upstream) {
        request = request.param("askonce.upstream", call.upstream.name());
    }
    if let Some(query) = parts.uri.query() {
        request = request.param("askonce.query", query);
    }
    for name in IDENTITY_HEADERS {
        if let Some(value) = parts.headers.get(name) {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            request = request.param(format!("askonce.header.{name}"), value);
        }
    }
    request
}

/// Answers from the cache, or from upstream and into the cache.
async fn cached(
    app: &App,
    request: &askonce::Request,
    wishes: &Wishes,
    call: Call<'_>,
) -> Response {
    let notes = Arc::new(Mutex::new(Notes::default()));
    let model = request.model_name().unwrap_or_default().to_owned();
    let fill = {
        let upstream = call.upstream.clone();
        let headers = upstream.headers(call.headers, true);
        let (url, body) = (call.url, call.body);
        let (notes, keep, tags) = (Arc::clone(&notes), wishes.may_store(), wishes.tags.clone());
        move || async move {
            let reply = upstream.call(url, sized(headers), body).await?;
            let value = match reply.status {
                StatusCode::OK => serde_json::from_slice::<Value>(&reply.body).ok(),
                _ => None,
            };
            let (Some(value), Ok(answer)) = (value, Answer::json(reply.body.clone())) else {
                return Err(CallError::Refused(Box::new(reply)));
            };
            let usage = value.get("usage").and_then(Usage::from_openai);
            let admitted = completion::admit(&reply.headers, &value);
            let declined = admitted.err().or((!keep).then_some("no_store"));
            *notes.lock() = Notes {
                headers: Some(reply.headers),
                declined,
            };
            let fill = match declined {
                Some(_) => Fill::pass_on(answer),
                None => Fill::keep(
                    answer,
                    StoreOptions {
                        tags,
                        ..StoreOptions::default()
                    },
                ),
            };
            Ok(usage.into_iter().fold(fill, Fill::usage))
        }
    };
    let upstream = call.upstream;
    let served = app.cache.get_or_call(request, fill).await;
    let Served { answer, source } = match served {
        Ok(served) => served,
        Err(error) => return call_failed(upstream, &error),
    };
    match source {
        Source::Cache(hit) => {
            let mut response = json_response(completion::replay(&hit, &model).into());
            status::hit(response.headers_mut(), &hit);
            response
        }
        Source::Upstream {
            miss,
            flight,
            stored,
        } => {
            let Notes { headers, declined } = std::mem::take(&mut *notes.lock());
            let mut response = json_response(answer.body().clone());
            if let (Some(headers), Flight::Led) = (headers, flight) {
                *response.headers_mut() = headers;
            }
            status::forwarded(
                response.headers_mut(),
                &miss,
                flight,
                Some(&stored),
                declined,
            );
            response
        }
    }
}

/// What a call tells the caller that made it, beside the answer.
#[derive(Default)]
struct Notes {
    headers: Option<HeaderMap>,
    declined: Option<&'static str>,
}

async fn only_if_cached(app: &App, request: &askonce::Request) -> Response {
    match app.cache.lookup(request).await {
        Outcome::Hit(hit) => {
            let model = request.model_name().unwrap_or_default();
            let mut response = json_response(completion::replay(&hit, model).into());
            status::hit(response.headers_mut(), &hit);
            response
        }
        Outcome::Miss(miss) => {
            let message = format!("there is no answer in the cache: {}", miss.reason());
            let mut response = provider_error(
                StatusCode::GATEWAY_TIMEOUT,
                "only_if_cached",
                &message,
                None,
            );
            status::not_forwarded(response.headers_mut(), &miss);
            response
        }
    }
}

/// A chat completion on its way.
struct Call<'a> {
    upstream: &'a Upstream,
    url: Url,
    headers: &'a HeaderMap,
    body: Bytes,
}

impl Call<'_> {
    /// Takes the field that speaks to the cache out of the body.
    fn without_cache_field(mut self, value: &Value) -> Self {
        if value.get("cache").is_some()
            && let Some(body) = completion::without_field(&self.body, "cache")
        {
            self.body = body.into();
        }
        self
    }

    async fn relay(self, detail: &'static str) -> Response {
        let headers = sized(self.upstream.headers(self.headers, false));
        relay(
            self.upstream,
            Method::POST,
            self.url,
            headers,
            Outgoing::Whole(self.body),
            detail,
        )
        .await
    }
}

/// Headers of a request whose body is sent whole: the client works out its length.
fn sized(mut headers: HeaderMap) -> HeaderMap {
    headers.remove(header::CONTENT_LENGTH);
    headers
}

async fn relay(
    upstream: &Upstream,
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Outgoing,
    detail: &'static str,
) -> Response {
    let mut response = match upstream.relay(method, url, headers, body).await {
        Ok(response) => response,
        Err(error) => told(upstream, &error),
    };
    status::bypassed(response.headers_mut(), detail);
    response
}

/// The upstream that a request is for, and where there.
fn route<'a>(app: &'a App, parts: &Parts) -> Result<(&'a Upstream, Url), Problem> {
    let name = parts
        .headers
        .get(UPSTREAM)
        .map(|name| name.to_str().unwrap_or_default());
    let upstream = app
        .upstreams
        .find(name)
        .ok_or_else(|| Problem::bad_request("there is no upstream of that name").field(UPSTREAM))?;
    let url = upstream.target(parts.uri.path(), parts.uri.query());
    let url = url.ok_or_else(|| Problem::bad_request("the path cannot be passed on"))?;
    Ok((upstream, url))
}

fn is_about_cache(error: &askonce::Error) -> bool {
    let mut fields = error.context().iter().filter(|(name, _)| *name == "field");
    fields.any(|(_, field)| field == "cache" || field.starts_with("cache."))
}

fn call_failed(upstream: &Upstream, error: &askonce::Error) -> Response {
    let mut response = match CallError::behind(error) {
        Some(failed) => told(upstream, failed),
        None => {
            tracing::error!(%error, upstream = upstream.name(), "an upstream call ended without a result");
            provider_error(
                StatusCode::BAD_GATEWAY,
                "upstream_failed",
                &error.to_string(),
                None,
            )
        }
    };
    let miss = HeaderValue::from_static("askonce; fwd=miss");
    response.headers_mut().append("cache-status", miss);
    response
}

fn told(upstream: &Upstream, error: &CallError) -> Response {
    let (status, code) = match error {
        CallError::Refused(reply) => return Reply::clone(reply).into_response(),
        CallError::Unreachable { .. } => (StatusCode::BAD_GATEWAY, "upstream_unreachable"),
        CallError::TimedOut { .. } => (StatusCode::GATEWAY_TIMEOUT, "upstream_timeout"),
        CallError::TooLarge { .. } => (StatusCode::BAD_GATEWAY, "upstream_answer_too_large"),
    };
    tracing::warn!(upstream = upstream.name(), %error, "an upstream call failed");
    provider_error(status, code, &error.to_string(), None)
}

fn json_response(body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
