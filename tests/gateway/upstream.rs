//! A provider to stand behind a layer: it counts its calls, and can be told to wait, to fail or to stream.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;

#[derive(Clone, Default)]
pub(crate) struct Upstream(Arc<Inner>);

#[derive(Default)]
struct Inner {
    calls: AtomicUsize,
    seen: Mutex<Option<(HeaderMap, Bytes)>>,
    /// Streams wait for it after their first event, and whole answers before they begin.
    gate: Mutex<Option<Arc<Notify>>>,
}

impl Upstream {
    pub(crate) fn calls(&self) -> usize {
        self.0.calls.load(Ordering::SeqCst)
    }

    /// The last call's headers and body.
    pub(crate) fn seen(&self) -> (HeaderMap, Value) {
        let (headers, body) = self.0.seen.lock().clone().expect("a call");
        (headers, serde_json::from_slice(&body).unwrap_or_default())
    }

    /// From now on calls wait until what is given back is notified.
    pub(crate) fn close(&self) -> Arc<Notify> {
        let gate = Arc::new(Notify::new());
        *self.0.gate.lock() = Some(Arc::clone(&gate));
        gate
    }

    pub(crate) fn router(&self) -> Router {
        Router::new().fallback(answer).with_state(self.clone())
    }
}

async fn answer(State(upstream): State<Upstream>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let call = upstream.0.calls.fetch_add(1, Ordering::SeqCst) + 1;
    *upstream.0.seen.lock() = Some((parts.headers.clone(), body.clone()));
    let gate = upstream.0.gate.lock().clone();
    let wanted: Value = serde_json::from_slice(&body).unwrap_or_default();
    let path = parts.uri.path();
    if wanted["stream"] == true {
        let told = path.ends_with("/messages") || path.ends_with("/responses");
        let told = told || wanted.pointer("/stream_options/include_usage") == Some(&true.into());
        return stream_of(path, call, gate, told);
    }
    if let Some(gate) = gate {
        gate.notified().await;
    }
    let failing = wanted.to_string().contains("please fail");
    if failing {
        let body = json!({ "error": { "message": "too many", "type": "rate_limit_error" } });
        return (
            StatusCode::TOO_MANY_REQUESTS,
            [("retry-after", "7")],
            axum::Json(body),
        )
            .into_response();
    }
    if let (true, Some(inputs)) = (path.ends_with("/embeddings"), wanted["input"].as_array()) {
        let length = |(index, input): (usize, &Value)| {
            let length = input.as_str().map_or(0, str::len);
            json!({ "object": "embedding", "index": index, "embedding": [length] })
        };
        let data: Vec<_> = inputs.iter().enumerate().map(length).collect();
        let usage = json!({ "prompt_tokens": data.len(), "total_tokens": data.len() });
        return axum::Json(json!({ "object": "list", "data": data, "model": "m", "usage": usage }))
            .into_response();
    }
    (
        [("x-request-id", format!("req-{call}"))],
        axum::Json(document(path, call)),
    )
        .into_response()
}

/// The answer in the protocol of a path.
pub(crate) fn document(path: &str, call: usize) -> Value {
    let id = format!("answer-{call}");
    match path.rsplit('/').next() {
        Some("messages") => json!({ "id": id, "type": "message", "role": "assistant", "model": "m",
            "content": [{ "type": "text", "text": "It is Paris." }], "stop_reason": "end_turn",
            "stop_sequence": null, "usage": { "input_tokens": 5, "output_tokens": 4 } }),
        Some("responses") => {
            json!({ "id": id, "object": "response", "created_at": 1, "status": "completed",
            "model": "m", "store": false, "output": [{ "type": "message", "id": "msg_1", "status": "completed",
                "role": "assistant", "content": [
                    { "type": "output_text", "text": "It is Paris.", "annotations": [] },
                ] }],
            "usage": { "input_tokens": 5, "output_tokens": 4, "total_tokens": 9 } })
        }
        Some("completions") if !path.contains("/chat/") => {
            json!({ "id": id, "object": "text_completion",
            "created": 1, "model": "m", "choices": [
                { "index": 0, "text": "It is Paris.", "logprobs": null, "finish_reason": "stop" },
            ], "usage": { "prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9 } })
        }
        _ => {
            json!({ "id": id, "object": "chat.completion", "created": 1, "model": "m", "choices": [
                { "index": 0, "message": { "role": "assistant", "content": "It is Paris." },
                    "logprobs": null, "finish_reason": "stop" },
            ], "usage": { "prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9 } })
        }
    }
}

/// The same as a stream.
fn stream_of(path: &str, call: usize, gate: Option<Arc<Notify>>, told: bool) -> Response {
    let protocol = askonce::Protocol::of_path(path).expect("a protocol");
    let recording = askonce::replay::Recording::of_document(protocol, &document(path, call));
    let events: Vec<_> = recording
        .events()
        .iter()
        .filter(|event| told || !askonce::replay::is_usage_only(event))
        .map(askonce::replay::Event::to_bytes)
        .collect();
    let events = stream::unfold(
        (events.into_iter(), gate, 0),
        |(mut events, gate, sent)| async move {
            let bytes = events.next()?;
            if let (Some(gate), 1) = (&gate, sent) {
                gate.notified().await;
            }
            Some((Ok::<_, Infallible>(bytes), (events, gate, sent + 1)))
        },
    );
    (
        [(header::CONTENT_TYPE, "text/event-stream")],
        Body::from_stream(events),
    )
        .into_response()
}
