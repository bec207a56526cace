//! Traces: the spans of a request, its parent, and what an upstream is told of them.
//!
//! All spans are at level `debug` with the target [`SPANS`]. Without the setting `traces` nobody wants them, and
//! each costs a comparison; with it `export.rs` sends them to a collector. Names of attributes are those of the
//! semantic conventions of OpenTelemetry where they have one, `askonce.*` otherwise. Nothing that a caller wrote
//! is in them but the name of a model.

mod config;
#[cfg(feature = "otlp")]
mod export;
#[cfg(not(feature = "otlp"))]
#[path = "absent.rs"]
mod export;

use askonce::Protocol;
use askonce::observe::SPANS;
use askonce::savings::Usage;
use axum::http::{HeaderMap, Method, StatusCode};
use tracing::Span;
use tracing::field::Empty;

use crate::config::Protocol as Speaks;
use crate::upstream::{CallError, Upstream};

pub(crate) use config::TracesConfig;
pub(crate) use export::Exporter;

/// Characters of a model's name that are told.
const MODEL: usize = 128;

/// The span of a request to this server, below that of its caller, if the caller sent one. Probes and scrapes
/// have none.
pub(crate) fn request(method: &Method, route: &str, headers: &HeaderMap) -> Span {
    if route == "/metrics" || route.starts_with("/health") {
        return Span::none();
    }
    let method = known(method);
    let span = tracing::debug_span!(
        target: SPANS,
        "request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
        askonce.cache = Empty,
    );
    if !span.is_disabled() {
        export::adopt(&span, headers);
    }
    span
}

/// What came of a request.
pub(crate) fn answered(span: &Span, status: StatusCode, cache: &str) {
    if span.is_disabled() {
        return;
    }
    span.record("http.response.status_code", status.as_u16());
    span.record("askonce.cache", cache);
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
}

/// The span of a model's answer from upstream, the upstreams that stand in included.
pub(crate) fn model_call(upstream: &Upstream, protocol: Protocol, model: Option<&str>) -> Span {
    let operation = match protocol {
        Protocol::OpenAiCompletions => "text_completion",
        Protocol::OpenAiEmbeddings => "embeddings",
        _ => "chat",
    };
    let provider = match upstream.speaks() {
        Speaks::Openai => "openai",
        Speaks::Anthropic => "anthropic",
    };
    let model = clipped(model.unwrap_or_default());
    tracing::debug_span!(
        target: SPANS,
        "upstream",
        otel.name = format!("{operation} {model}").trim_end(),
        otel.kind = "client",
        otel.status_code = Empty,
        gen_ai.operation.name = operation,
        gen_ai.provider.name = provider,
        gen_ai.request.model = model,
        gen_ai.usage.input_tokens = Empty,
        gen_ai.usage.output_tokens = Empty,
        http.response.status_code = Empty,
        server.address = Empty,
        askonce.upstream = Empty,
        "error.type" = Empty,
    )
}

/// The span of a request that is passed through.
pub(crate) fn relay(method: &Method) -> Span {
    let method = known(method);
    tracing::debug_span!(
        target: SPANS,
        "upstream",
        otel.name = method,
        otel.kind = "client",
        otel.status_code = Empty,
        http.request.method = method,
        http.response.status_code = Empty,
        server.address = Empty,
        askonce.upstream = Empty,
        "error.type" = Empty,
    )
}

/// Makes the span that runs the parent of what the upstream does.
pub(crate) fn hand_on(headers: &mut HeaderMap) {
    let span = Span::current();
    if !span.is_disabled() {
        export::hand_on(&span, headers);
    }
}

/// What an upstream answered to the call whose span runs.
pub(crate) fn replied(upstream: &Upstream, reply: Result<StatusCode, &CallError>) {
    let span = Span::current();
    if span.is_disabled() {
        return;
    }
    span.record("askonce.upstream", upstream.name());
    span.record("server.address", upstream.host());
    let failed = match reply {
        Ok(status) => {
            span.record("http.response.status_code", status.as_u16());
            !status.is_success()
        }
        Err(error) => {
            span.record("error.type", error.as_str());
            true
        }
    };
    if failed {
        span.record("otel.status_code", "ERROR");
    }
}

/// The tokens that the call used whose span runs.
pub(crate) fn used(usage: &Usage) {
    let span = Span::current();
    if span.is_disabled() {
        return;
    }
    span.record("gen_ai.usage.input_tokens", usage.input_tokens);
    span.record("gen_ai.usage.output_tokens", usage.output_tokens);
}

/// The method, if it is one that HTTP knows: others are whatever a caller wrote.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "_OTHER",
    }
}

fn clipped(model: &str) -> &str {
    let end = model.char_indices().nth(MODEL);
    end.map_or(model, |(at, _)| &model[..at])
}
