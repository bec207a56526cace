//! What the caller gets: a hit as a new response, an answer under way frame by frame, an error as the provider
//! would word it.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use askonce::replay::{self, Event, Stamp, Wanted, is_usage_only};
use askonce::stampede::Flight;
use askonce::{Form, Hit, Live, Media, Protocol, SemanticCache, Served, Source};
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use parking_lot::Mutex;

use super::call::Notes;
use crate::http::error::provider_error;
use crate::http::status;
use crate::upstream::{CallError, Reply};

const STAND_IN: HeaderName = HeaderName::from_static("x-askonce-upstream");

/// In what form a caller wants the answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) protocol: Protocol,
    pub(super) stream: bool,
    pub(super) wanted: Wanted,
}

impl Asked {
    /// A stored answer, under an id of its own.
    pub(super) fn hit(
        &self,
        cache: &SemanticCache,
        request: &askonce::Request,
        hit: &Hit,
        pace: Duration,
    ) -> Response {
        let given = match (self.stream, pace.is_zero()) {
            (false, _) => cache
                .replay(request, hit, Form::Whole)
                .map(|document| json_response(document.into())),
            (true, true) => cache
                .replay(request, hit, Form::Stream(self.wanted))
                .map(|events| event_response(Body::from(events))),
            (true, false) => cache
                .replay_events(request, hit, self.wanted)
                .map(|events| event_response(paced(events, pace))),
        };
        let mut response = self.or_internal(given);
        status::hit(response.headers_mut(), hit);
        response
    }

    /// An answer that came as a whole, or whose stream is over.
    pub(super) fn served(
        &self,
        cache: &SemanticCache,
        request: &askonce::Request,
        served: &Served,
        notes: &Mutex<Notes>,
    ) -> Response {
        let (miss, flight, stored) = match &served.source {
            Source::Cache(hit) => return self.hit(cache, request, hit, Duration::ZERO),
            Source::Upstream {
                miss,
                flight,
                stored,
            } => (miss, *flight, stored),
        };
        let notes = std::mem::take(&mut *notes.lock());
        let as_it_came = served.answer.media() == Media::Json && !self.stream;
        let mut response = if as_it_came {
            json_response(served.answer.body().clone())
        } else {
            self.original(served.answer.source())
        };
        if let (Some(headers), Flight::Led) = (notes.headers, flight) {
            let kind = response.headers_mut().remove(header::CONTENT_TYPE);
            *response.headers_mut() = headers;
            if let (Some(kind), false) = (kind, as_it_came) {
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
            }
        }
        stand_in(&mut response, notes.stand_in.as_deref());
        let headers = response.headers_mut();
        status::forwarded(headers, miss, flight, Some(stored), notes.declined);
        response
    }

    /// An answer that is under way.
    pub(super) fn live(&self, live: Box<Live>, notes: &Mutex<Notes>) -> Response {
        let notes = notes.lock().clone();
        let (miss, flight) = (live.miss().clone(), live.flight());
        let mut response = Response::new(Body::from_stream(frames(live, self.wanted)));
        if let (Some(headers), Flight::Led) = (notes.headers, flight) {
            *response.headers_mut() = headers;
        }
        streams(&mut response);
        stand_in(&mut response, notes.stand_in.as_deref());
        status::forwarded(response.headers_mut(), &miss, flight, None, None);
        response
    }

    /// An answer under the id that its provider gave it.
    fn original(&self, source: replay::Source<'_>) -> Response {
        let (protocol, stamp) = (self.protocol, Stamp::original());
        let given = match self.stream {
            false => replay::whole(source, protocol, &stamp)
                .map(|document| json_response(document.into())),
            true => replay::stream(source, protocol, &stamp, self.wanted).map(|events| {
                let mut bytes = Vec::new();
                for event in &events {
                    event.write(&mut bytes);
                }
                event_response(Body::from(bytes))
            }),
        };
        self.or_internal(given)
    }

    fn or_internal(&self, given: askonce::Result<Response>) -> Response {
        given.unwrap_or_else(|error| {
            tracing::error!(%error, "a stored answer cannot be given");
            let problem = "a stored answer cannot be given";
            provider_error(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                problem,
                None,
                Some(self.protocol),
            )
        })
    }
}

/// The frames of an answer under way. One that ends badly breaks the connection, as it would have without a
/// cache; one that ends with an error event has said so itself.
fn frames(
    live: Box<Live>,
    wanted: Wanted,
) -> impl futures_util::Stream<Item = Result<Bytes, io::Error>> {
    stream::unfold(Some(live), move |live| async move {
        let mut live = live?;
        loop {
            let Some(frame) = live.next().await else {
                let failed = live.result().and_then(Result::err);
                let failed = failed.filter(|error| {
                    !matches!(
                        CallError::behind(error),
                        Some(CallError::FailedInStream { .. })
                    )
                });
                return failed.map(|error| {
                    tracing::warn!(%error, "a stream broke off");
                    (
                        Err(io::Error::other("the upstream's stream broke off")),
                        None,
                    )
                });
            };
            if !wanted.usage && frame.event().is_some_and(is_usage_only) {
                continue;
            }
            let mut bytes = Vec::new();
            frame.write(&mut bytes);
            return Some((Ok(bytes.into()), Some(live)));
        }
    })
}

/// Events one after the other at a pace.
fn paced(events: Vec<Event>, pace: Duration) -> Body {
    Body::from_stream(stream::unfold(
        (events.into_iter(), true),
        move |(mut events, first)| async move {
            let event = events.next()?;
            if !first {
                tokio::time::sleep(pace).await;
            }
            let bytes = Bytes::from(event.to_bytes());
            Some((Ok::<_, Infallible>(bytes), (events, false)))
        },
    ))
}

fn event_response(events: Body) -> Response {
    let mut response = Response::new(events);
    streams(&mut response);
    response
}

fn streams(response: &mut Response) {
    let headers = response.headers_mut();
    headers
        .entry(header::CONTENT_TYPE)
        .or_insert(HeaderValue::from_static("text/event-stream; charset=utf-8"));
    // Whatever stands in front must not hold events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
}

fn stand_in(response: &mut Response, name: Option<&str>) {
    if let Some(name) = name.and_then(|name| HeaderValue::from_str(name).ok()) {
        response.headers_mut().insert(STAND_IN, name);
    }
}

pub(super) fn json_response(body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    let json = HeaderValue::from_static("application/json");
    // With room for what is told of a hit.
    let mut headers = HeaderMap::with_capacity(12);
    headers.insert(header::CONTENT_TYPE, json);
    *response.headers_mut() = headers;
    response
}

/// A call that gave no answer.
pub(super) fn call_failed(error: &askonce::Error, protocol: Protocol) -> Response {
    let mut response = match CallError::behind(error) {
        Some(failed) => told(
            failed.upstream().unwrap_or_default(),
            failed,
            Some(protocol),
        ),
        None => {
            tracing::error!(%error, "an upstream call ended without a result");
            let status = StatusCode::BAD_GATEWAY;
            provider_error(
                status,
                "upstream_failed",
                &error.to_string(),
                None,
                Some(protocol),
            )
        }
    };
    let miss = HeaderValue::from_static("askonce; fwd=miss");
    response.headers_mut().append("cache-status", miss);
    response
}

/// What a caller is told of a failed call: the upstream's own words, if there were any.
pub(super) fn told(upstream: &str, error: &CallError, protocol: Option<Protocol>) -> Response {
    let (status, code) = match error {
        CallError::Refused(reply) => return Reply::clone(reply).into_response(),
        CallError::Unreachable { .. } => (StatusCode::BAD_GATEWAY, "upstream_unreachable"),
        CallError::TimedOut { .. } => (StatusCode::GATEWAY_TIMEOUT, "upstream_timeout"),
        CallError::TooLarge { .. } => (StatusCode::BAD_GATEWAY, "upstream_answer_too_large"),
        CallError::CutOff { .. } | CallError::FailedInStream { .. } | CallError::Nowhere => {
            (StatusCode::BAD_GATEWAY, "upstream_failed")
        }
    };
    tracing::warn!(upstream, %error, "an upstream call failed");
    provider_error(status, code, &error.to_string(), None, protocol)
}
