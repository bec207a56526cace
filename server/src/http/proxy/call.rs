//! The upstream call of a miss: whole or as a stream, at the first upstream that can.

use std::sync::Arc;
use std::time::Duration;

use askonce::replay::{Ending, NotText, Recorder, asking_for_usage};
use askonce::savings::Usage;
use askonce::{Answer, Fill, Protocol, Sink, StoreOptions};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use parking_lot::Mutex;
use reqwest::Url;
use serde_json::Value;
use tracing::{Instrument as _, Span};

use super::give::Asked;
use super::is_event_stream;
use super::reading::Reading;
use super::route::Route;
use crate::http::App;
use crate::traces;
use crate::upstream::{CallError, Reply, Upstream};

/// How long an upstream may take to close a stream that has ended: an open one cannot be used again.
const CLOSING: Duration = Duration::from_secs(1);

/// One upstream, and what to send there.
struct Attempt {
    upstream: Arc<Upstream>,
    url: Url,
    headers: HeaderMap,
    body: Bytes,
}

/// What a call tells the caller that made it, beside the answer.
#[derive(Clone, Default)]
pub(super) struct Notes {
    /// The head of the upstream's response.
    pub(super) headers: Option<HeaderMap>,
    /// Why the answer is not to be kept.
    pub(super) declined: Option<&'static str>,
    /// The upstream that answered, where it is not the one that is asked first.
    pub(super) stand_in: Option<String>,
}

/// A call that is to be made on a miss.
pub(super) struct Call {
    pub(super) asked: Asked,
    reading: Arc<Reading>,
    route: Route,
    body: Bytes,
    notes: Arc<Mutex<Notes>>,
}

impl Call {
    /// The call of a request with this head and body.
    pub(super) fn new(
        app: &Arc<App>,
        parts: &Arc<Parts>,
        reading: &Arc<Reading>,
        body: Bytes,
    ) -> Self {
        Self {
            route: Route::to(app, parts, &reading.primary),
            body: reading.stripped.clone().unwrap_or(body),
            asked: reading.asked,
            reading: Arc::clone(reading),
            notes: Arc::default(),
        }
    }

    /// What to send where, in the order in which upstreams are tried.
    fn attempts(&self) -> Vec<Attempt> {
        let upstreams = self.route.upstreams();
        let attempt = |upstream: &Arc<Upstream>| {
            let mut headers = sized(upstream.headers(&self.route.parts().headers, true));
            traces::hand_on(&mut headers);
            Some(Attempt {
                // A path that leads out of an upstream's API is not for that upstream.
                url: self.route.url(upstream).ok()?,
                headers,
                body: upstream.renamed(self.body.clone()),
                upstream: Arc::clone(upstream),
            })
        };
        upstreams.filter_map(attempt).collect()
    }

    /// Where the call leaves its notes.
    pub(super) fn notes(&self) -> Arc<Mutex<Notes>> {
        Arc::clone(&self.notes)
    }

    /// The span of the call.
    fn span(&self) -> Span {
        let model = self.reading.request.model_name();
        traces::model_call(self.route.primary(), self.asked.protocol, model)
    }

    /// The answer as one document.
    pub(super) async fn whole(self) -> Result<Fill, CallError> {
        let span = self.span();
        let call = async {
            let reply = self.first_reply().await?;
            self.fill(reply)
        };
        call.instrument(span).await
    }

    /// The first reply that is not a failure of its upstream, or the last.
    pub(super) async fn reply(&self) -> Result<Reply, CallError> {
        self.first_reply().instrument(self.span()).await
    }

    async fn first_reply(&self) -> Result<Reply, CallError> {
        let (mut rest, mut stands_in) = (self.attempts().into_iter(), false);
        loop {
            let Some(attempt) = rest.next() else {
                return Err(CallError::Nowhere);
            };
            let Attempt {
                upstream,
                url,
                headers,
                body,
            } = attempt;
            let reply = upstream.call(url, headers, body).await;
            let failed = match &reply {
                Ok(reply) => is_failure(reply.status),
                Err(error) => error.is_upstreams(),
            };
            if failed && rest.len() > 0 {
                gave_up_on(&upstream);
                stands_in = true;
                continue;
            }
            if stands_in {
                self.notes.lock().stand_in = Some(upstream.name().to_owned());
            }
            traces::replied(&upstream, reply.as_ref().map(|reply| reply.status));
            return reply;
        }
    }

    /// What to do with a reply that came whole.
    fn fill(&self, reply: Reply) -> Result<Fill, CallError> {
        let value = match reply.status {
            StatusCode::OK => serde_json::from_slice::<Value>(&reply.body).ok(),
            _ => None,
        };
        let (Some(value), Ok(answer)) = (value, Answer::json(reply.body.clone())) else {
            return Err(CallError::Refused(Box::new(reply)));
        };
        self.notes.lock().headers = Some(reply.headers.clone());
        Ok(self.kept(&reply.headers, answer, &value))
    }

    /// Why an answer is given to those who wait for it and not kept, if it is not.
    pub(super) fn declined(&self, headers: &HeaderMap, document: &Value) -> Option<&'static str> {
        if !self.reading.wishes.may_store() || says_no_store(headers) {
            return Some("no_store");
        }
        let admission = self.route.app().cache.admission();
        let refused = admission
            .document_for(&self.reading.request, document)
            .err()?;
        Some(refused.as_str())
    }

    /// Whether the answer is kept, and what is known of it.
    fn kept(&self, headers: &HeaderMap, answer: Answer, document: &Value) -> Fill {
        let declined = self.declined(headers, document);
        self.notes.lock().declined = declined;
        let fill = match declined {
            Some(_) => Fill::pass_on(answer),
            None => Fill::keep(
                answer,
                StoreOptions {
                    tags: self.reading.wishes.tags.clone(),
                    ..StoreOptions::default()
                },
            ),
        };
        let usage = document
            .get("usage")
            .and_then(|usage| match self.asked.protocol {
                Protocol::AnthropicMessages => Usage::from_anthropic(usage),
                _ => Usage::from_openai(usage),
            });
        if let Some(usage) = &usage {
            traces::used(usage);
        }
        usage.into_iter().fold(fill, Fill::usage)
    }

    /// The answer as it comes, frame by frame.
    pub(super) async fn streamed(self, sink: Sink) -> Result<Fill, CallError> {
        let span = self.span();
        self.stream(sink).instrument(span).await
    }

    async fn stream(self, sink: Sink) -> Result<Fill, CallError> {
        let (upstream, mut response) = self.open().await?;
        let status = response.status();
        if status != StatusCode::OK || !is_event_stream(response.headers()) {
            return self.fill(upstream.whole(response).await?);
        }
        let headers = upstream.head(&mut response);
        self.notes.lock().headers = Some(headers.clone());
        let mut recorder = Recorder::new(self.asked.protocol);
        let patience = self.route.app().config.finish_abandoned;
        let unreadable = |NotText| upstream.cut("the stream is not text");
        while recorder.ending().is_none() {
            let chunk = tokio::select! {
                chunk = upstream.chunk(&mut response) => chunk?,
                () = sink.deserted(patience) => return Err(upstream.cut("nobody waits for it any more")),
            };
            let Some(chunk) = chunk else { break };
            for frame in recorder.feed(&chunk).map_err(unreadable)? {
                sink.send(frame);
            }
            if recorder.bytes() as u64 > upstream.most_bytes() {
                return Err(upstream.too_large());
            }
        }
        if let Some(frame) = recorder.end().map_err(unreadable)? {
            sink.send(frame);
        }
        if recorder.ending().is_some() {
            let rest = async { while let Ok(Some(_)) = upstream.chunk(&mut response).await {} };
            let _ = tokio::time::timeout(CLOSING, rest).await;
        }
        let ended = recorder.ending();
        let recording = recorder.finish().map_err(|_| match ended {
            Some(Ending::Failed) => upstream.failed_in_stream(),
            _ => upstream.cut("it stopped before its end"),
        })?;
        let answer = Answer::stream(&recording);
        let document = recording
            .document()
            .map_err(|_| upstream.cut("its events do not fit together"))?;
        Ok(self.kept(&headers, answer, &document))
    }

    /// The first response that is not a failure of its upstream, or the last.
    async fn open(&self) -> Result<(Arc<Upstream>, reqwest::Response), CallError> {
        let (mut rest, mut stands_in) = (self.attempts().into_iter(), false);
        loop {
            let Some(attempt) = rest.next() else {
                return Err(CallError::Nowhere);
            };
            let Attempt {
                upstream,
                url,
                headers,
                body,
            } = attempt;
            let with_usage = (upstream.tells_usage() && !self.asked.wanted.usage)
                .then(|| asking_for_usage(self.asked.protocol, &body))
                .flatten();
            let body = with_usage.map_or(body, Bytes::from);
            let response = upstream.open(url, headers, body).await;
            let failed = match &response {
                Ok(response) => is_failure(response.status()),
                Err(error) => error.is_upstreams(),
            };
            if failed && rest.len() > 0 {
                gave_up_on(&upstream);
                stands_in = true;
                continue;
            }
            if stands_in {
                self.notes.lock().stand_in = Some(upstream.name().to_owned());
            }
            traces::replied(&upstream, response.as_ref().map(reqwest::Response::status));
            return response.map(|response| (upstream, response));
        }
    }
}

/// Whether the upstream forbids to keep the answer.
fn says_no_store(headers: &HeaderMap) -> bool {
    let directives = headers
        .get_all(header::CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok());
    directives
        .flat_map(|value| value.split(','))
        .any(|name| name.trim().eq_ignore_ascii_case("no-store"))
}

fn gave_up_on(upstream: &Upstream) {
    metrics::counter!(crate::upstream::FAILOVERS, "upstream" => upstream.name().to_owned())
        .increment(1);
    tracing::warn!(
        upstream = upstream.name(),
        "an upstream cannot answer: the next is asked"
    );
}

/// Whether another upstream may do better.
fn is_failure(status: StatusCode) -> bool {
    // 529: Anthropic's "overloaded".
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504 | 529)
}

/// Headers of a request whose body is sent whole: the client works out its length.
pub(super) fn sized(mut headers: HeaderMap) -> HeaderMap {
    headers.remove(header::CONTENT_LENGTH);
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_may_forbid_to_keep_its_answer() {
        let says = |value: &str| {
            says_no_store(&HeaderMap::from_iter([(
                header::CACHE_CONTROL,
                value.parse().unwrap(),
            )]))
        };
        assert!(says("private, No-Store"));
        assert!(!says("max-age=5, no-cache"));
    }
}
