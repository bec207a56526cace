//! The upstream call of a miss: its answer whole or as a stream, and whether to keep it.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::{Either, select};
use http::{HeaderMap, HeaderName, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use serde_json::Value;

use super::BoxError;
use crate::cache::{Fill, Sink, StoreOptions};
use crate::entry::Answer;
use crate::error::Error;
use crate::replay::{NotText, Recorder, Unfinished};
use crate::request::Protocol;
use crate::savings::Usage;

/// Headers of one connection, and of one body on it, which do not travel (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::PROXY_AUTHENTICATE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// A whole response.
#[derive(Clone)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reply({}, {} bytes)", self.status, self.body.len())
    }
}

/// Why a call gave no answer to keep or to share.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// Its response is everybody's, as it is.
    #[error("the upstream gave no answer, but status {}", .0.status)]
    Refused(Reply),
    #[error("the upstream call failed")]
    Failed(#[source] BoxError),
    #[error("the upstream's response broke off")]
    Broken(#[source] BoxError),
    #[error("the upstream's answer is larger than {0} bytes")]
    TooLarge(u64),
    #[error("the upstream's stream has no answer")]
    Unfinished(#[source] Unfinished),
    #[error("the upstream's events do not fit together")]
    Unfit(#[source] Error),
    #[error("nobody waits for the answer any more")]
    Deserted,
}

impl CallError {
    /// The call error behind an error of the engine.
    pub(super) fn behind(error: &Error) -> Option<&Self> {
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            if let Some(call) = error.downcast_ref() {
                return Some(call);
            }
            cause = error.source();
        }
        None
    }
}

/// What a call tells the caller that made it, beside the answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes {
    /// The head of the upstream's response.
    pub(super) headers: Option<HeaderMap>,
    /// Why the answer is not to be kept, where that is known before it is judged.
    pub(super) declined: Option<&'static str>,
}

/// A call that is to be made.
pub(super) struct Fetch {
    pub(super) protocol: Protocol,
    pub(super) keep: bool,
    pub(super) tags: Vec<String>,
    pub(super) most_bytes: u64,
    pub(super) patience: Duration,
    pub(super) notes: Arc<Mutex<Notes>>,
}

impl Fetch {
    /// The answer as one document.
    pub(super) async fn whole<O, F, B>(self, open: O) -> Result<Fill, CallError>
    where
        O: FnOnce() -> F + Send,
        F: Future<Output = Result<Response<B>, BoxError>> + Send,
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let response = open().await.map_err(CallError::Failed)?;
        self.fill(response).await
    }

    /// The answer as it comes, frame by frame.
    pub(super) async fn stream<O, F, B>(self, open: O, sink: Sink) -> Result<Fill, CallError>
    where
        O: FnOnce() -> F + Send,
        F: Future<Output = Result<Response<B>, BoxError>> + Send,
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let response = open().await.map_err(CallError::Failed)?;
        if response.status() != StatusCode::OK || !is_event_stream(response.headers()) {
            return self.fill(response).await;
        }
        let (head, body) = response.into_parts();
        let headers = end_to_end(head.headers);
        self.notes.lock().headers = Some(headers.clone());
        let mut body = Box::pin(body);
        let mut recorder = Recorder::new(self.protocol);
        let not_text = |NotText| CallError::Unfinished(Unfinished::NotText);
        while recorder.ending().is_none() {
            let next = {
                let deserted = pin!(sink.deserted(self.patience));
                match select(body.frame(), deserted).await {
                    Either::Left((next, _)) => next,
                    Either::Right(_) => return Err(CallError::Deserted),
                }
            };
            let Some(frame) = next else { break };
            let frame = frame.map_err(|error| CallError::Broken(error.into()))?;
            let Ok(bytes) = frame.into_data() else {
                continue;
            };
            for frame in recorder.feed(&bytes).map_err(not_text)? {
                sink.send(frame);
            }
            if recorder.bytes() as u64 > self.most_bytes {
                return Err(CallError::TooLarge(self.most_bytes));
            }
        }
        if let Some(frame) = recorder.end().map_err(not_text)? {
            sink.send(frame);
        }
        let recording = recorder.finish().map_err(CallError::Unfinished)?;
        let document = recording.document().map_err(CallError::Unfit)?;
        Ok(self.kept(&headers, Answer::stream(&recording), &document))
    }

    /// What to do with a response that is no stream.
    async fn fill<B>(&self, response: Response<B>) -> Result<Fill, CallError>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let reply = whole(response, self.most_bytes).await?;
        let value = match reply.status {
            StatusCode::OK => serde_json::from_slice::<Value>(&reply.body).ok(),
            _ => None,
        };
        let (Some(value), Ok(answer)) = (value, Answer::json(reply.body.clone())) else {
            return Err(CallError::Refused(reply));
        };
        self.notes.lock().headers = Some(reply.headers.clone());
        Ok(self.kept(&reply.headers, answer, &value))
    }

    /// Whether the answer is kept, as far as headers tell, and what is known of it. The engine judges what it
    /// says when it is stored.
    fn kept(&self, headers: &HeaderMap, answer: Answer, document: &Value) -> Fill {
        let declined = declined(self.keep, headers);
        self.notes.lock().declined = declined;
        let fill = match declined {
            Some(_) => Fill::pass_on(answer),
            None => Fill::keep(
                answer,
                StoreOptions {
                    tags: self.tags.clone(),
                    ..StoreOptions::default()
                },
            ),
        };
        let usage = document.get("usage").and_then(|usage| match self.protocol {
            Protocol::AnthropicMessages => Usage::from_anthropic(usage),
            _ => Usage::from_openai(usage),
        });
        usage.into_iter().fold(fill, Fill::usage)
    }
}

/// A response to its end.
pub(super) async fn whole<B>(response: Response<B>, most_bytes: u64) -> Result<Reply, CallError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let (head, body) = response.into_parts();
    let mut body = pin!(body);
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| CallError::Broken(error.into()))?;
        if let Ok(bytes) = frame.into_data() {
            whole.extend_from_slice(&bytes);
        }
        if whole.len() as u64 > most_bytes {
            return Err(CallError::TooLarge(most_bytes));
        }
    }
    Ok(Reply {
        status: head.status,
        headers: end_to_end(head.headers),
        body: whole.freeze(),
    })
}

/// Why an answer is not kept, as far as its caller and its headers tell.
pub(super) fn declined(keep: bool, headers: &HeaderMap) -> Option<&'static str> {
    (!keep || forbids_storing(headers)).then_some("no_store")
}

/// The headers that travel.
pub(super) fn end_to_end(mut headers: HeaderMap) -> HeaderMap {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    headers
}

fn forbids_storing(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|name| name.trim().eq_ignore_ascii_case("no-store"))
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.trim_start().starts_with("text/event-stream"))
}
