//! What the caller gets: a hit as a new response, an answer under way frame by frame, an error as the provider
//! would word it.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use parking_lot::Mutex;
use serde_json::json;

use super::fetch::{CallError, Notes};
use super::{BoxError, status};
use crate::cache::{Form, Hit, Live, SemanticCache, Served, Source};
use crate::entry::Media;
use crate::error::{Error, Result};
use crate::replay::{self, Event, Stamp, Wanted, is_usage_only};
use crate::request::{Protocol, Request};
use crate::stampede::Flight;

/// The body of a response that came through the cache or past it.
pub struct ResponseBody(Kind);

enum Kind {
    Whole(Full<Bytes>),
    Stream(UnsyncBoxBody<Bytes, BoxError>),
}

impl ResponseBody {
    pub(super) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self(Kind::Whole(Full::new(bytes.into())))
    }

    /// Another body as it is.
    pub(super) fn passed<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self(Kind::Stream(body.map_err(Into::into).boxed_unsync()))
    }

    fn stream(chunks: impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static) -> Self {
        use futures_util::TryStreamExt as _;
        let body = StreamBody::new(chunks.map_ok(Frame::data));
        Self(Kind::Stream(body.boxed_unsync()))
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Whole(_) => "ResponseBody(whole)",
            Kind::Stream(_) => "ResponseBody(stream)",
        })
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Kind::Whole(body) => Pin::new(body)
                .poll_frame(context)
                .map_err(|never| match never {}),
            Kind::Stream(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(body) => body.is_end_stream(),
            Kind::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(body) => body.size_hint(),
            Kind::Stream(body) => body.size_hint(),
        }
    }
}

/// In what form a caller wants the answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) protocol: Protocol,
    pub(super) stream: bool,
    pub(super) wanted: Wanted,
    /// Time between the events of a replayed stream.
    pub(super) pace: Duration,
}

impl Asked {
    /// A stored answer, under an id of its own.
    pub(super) fn hit(
        &self,
        cache: &SemanticCache,
        request: &Request,
        hit: &Hit,
    ) -> Response<ResponseBody> {
        let given = match (self.stream, self.pace.is_zero()) {
            (false, _) => cache
                .replay(request, hit, Form::Whole)
                .map(|document| json_response(document.into())),
            (true, true) => cache
                .replay(request, hit, Form::Stream(self.wanted))
                .map(|events| event_response(ResponseBody::whole(events))),
            (true, false) => cache
                .replay_events(request, hit, self.wanted)
                .map(|events| event_response(paced(events, self.pace))),
        };
        let mut response = self.or_internal(given);
        status::hit(response.headers_mut(), hit);
        response
    }

    /// An answer that came as a whole, or whose stream is over.
    pub(super) fn served(
        &self,
        cache: &SemanticCache,
        request: &Request,
        served: &Served,
        notes: &Mutex<Notes>,
    ) -> Response<ResponseBody> {
        let (miss, flight, stored) = match &served.source {
            Source::Cache(hit) => return self.hit(cache, request, hit),
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
        let headers = response.headers_mut();
        status::forwarded(headers, miss, flight, Some(stored), notes.declined);
        response
    }

    /// An answer that is under way.
    pub(super) fn live(&self, live: Box<Live>, notes: &Mutex<Notes>) -> Response<ResponseBody> {
        let headers = notes.lock().headers.clone();
        let (miss, flight) = (live.miss().clone(), live.flight());
        let mut response = Response::new(ResponseBody::stream(frames(live, self.wanted)));
        if let (Some(headers), Flight::Led) = (headers, flight) {
            *response.headers_mut() = headers;
        }
        streams(&mut response);
        status::forwarded(response.headers_mut(), &miss, flight, None, None);
        response
    }

    /// An answer under the id that its provider gave it.
    fn original(&self, source: replay::Source<'_>) -> Response<ResponseBody> {
        let (protocol, stamp) = (self.protocol, Stamp::original());
        let given = match self.stream {
            false => replay::whole(source, protocol, &stamp)
                .map(|document| json_response(document.into())),
            true => replay::stream(source, protocol, &stamp, self.wanted).map(|events| {
                let mut bytes = Vec::new();
                for event in &events {
                    event.write(&mut bytes);
                }
                event_response(ResponseBody::whole(bytes))
            }),
        };
        self.or_internal(given)
    }

    fn or_internal(&self, given: Result<Response<ResponseBody>>) -> Response<ResponseBody> {
        given.unwrap_or_else(|error| {
            tracing::error!(%error, "a stored answer cannot be given");
            self::error(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "a stored answer cannot be given",
                None,
                self.protocol,
            )
        })
    }
}

/// The frames of an answer under way. One that ends badly breaks the connection, as it would have without a
/// cache; one that ends with an error event has said so itself.
fn frames(live: Box<Live>, wanted: Wanted) -> impl Stream<Item = Result<Bytes, BoxError>> {
    stream::unfold(Some(live), move |live| async move {
        let mut live = live?;
        loop {
            let Some(frame) = live.next().await else {
                let failed = live.result().and_then(Result::err);
                let told = |error: &Error| {
                    use crate::replay::Unfinished::Failed;
                    matches!(
                        CallError::behind(error),
                        Some(CallError::Unfinished(Failed))
                    )
                };
                return failed.filter(|error| !told(error)).map(|error| {
                    tracing::warn!(%error, "a stream broke off");
                    (Err("the upstream's stream broke off".into()), None)
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
fn paced(events: Vec<Event>, pace: Duration) -> ResponseBody {
    ResponseBody::stream(stream::unfold(
        (events.into_iter(), true),
        move |(mut events, first)| async move {
            let event = events.next()?;
            if !first {
                tokio::time::sleep(pace).await;
            }
            Some((Ok(Bytes::from(event.to_bytes())), (events, false)))
        },
    ))
}

fn event_response(events: ResponseBody) -> Response<ResponseBody> {
    let mut response = Response::new(events);
    streams(&mut response);
    response
}

fn streams(response: &mut Response<ResponseBody>) {
    let headers = response.headers_mut();
    headers
        .entry(header::CONTENT_TYPE)
        .or_insert(HeaderValue::from_static("text/event-stream; charset=utf-8"));
    // Whatever stands in front must not hold events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
}

pub(super) fn json_response(body: Bytes) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::whole(body));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// The upstream's own response, where the failure of a call is one.
///
/// # Errors
/// The error, where there is none.
pub(super) fn refused(error: Error) -> Result<Response<ResponseBody>> {
    let Some(CallError::Refused(reply)) = CallError::behind(&error) else {
        return Err(error);
    };
    let mut response = Response::new(ResponseBody::whole(reply.body.clone()));
    *response.status_mut() = reply.status;
    response.headers_mut().clone_from(&reply.headers);
    let miss = HeaderValue::from_static("askonce; fwd=miss");
    response.headers_mut().append("cache-status", miss);
    Ok(response)
}

/// An error as a provider words it: Anthropic for its messages, OpenAI for all else.
pub(super) fn error(
    status: StatusCode,
    code: &str,
    message: &str,
    param: Option<&str>,
    protocol: Protocol,
) -> Response<ResponseBody> {
    let kind = if status.is_client_error() {
        "invalid_request_error"
    } else {
        "api_error"
    };
    let body = match protocol {
        Protocol::AnthropicMessages => json!({
            "type": "error",
            "error": { "type": kind, "message": message, "code": code },
        }),
        _ => json!({
            "error": { "message": message, "type": kind, "param": param, "code": code },
        }),
    };
    let mut response = json_response(body.to_string().into());
    *response.status_mut() = status;
    response
}
