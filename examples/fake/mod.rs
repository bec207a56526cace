//! Stands for a provider, so that the examples run without a key: it speaks chat completions, whole and as
//! streams, and counts how often it is called.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

/// A provider on a port of its own, for as long as the process runs.
pub(crate) struct Fake {
    /// Where it is.
    pub(crate) address: SocketAddr,
    calls: Arc<AtomicUsize>,
}

impl Fake {
    /// Starts it.
    pub(crate) async fn start() -> std::io::Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let calls = Arc::new(AtomicUsize::new(0));
        let router = Router::new()
            .route("/v1/chat/completions", post(complete))
            .with_state(Arc::clone(&calls));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { address, calls })
    }

    /// How often it was called.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// The base URL of its API.
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }
}

async fn complete(State(calls): State<Arc<AtomicUsize>>, Json(body): Json<Value>) -> Response {
    let call = calls.fetch_add(1, Ordering::SeqCst) + 1;
    let head = json!({ "id": format!("chatcmpl-{call}"), "created": 1_700_000_000, "model": body["model"] });
    let message = reply(&body);
    let finish = match message.get("tool_calls") {
        Some(_) => "tool_calls",
        None => "stop",
    };
    if body["stream"] == true {
        let words = message["content"].as_str().unwrap_or_default();
        let mut events = String::new();
        let mut send = |delta: Value, finish: Value| {
            let mut chunk = head.clone();
            chunk["object"] = json!("chat.completion.chunk");
            chunk["choices"] = json!([{ "index": 0, "delta": delta, "finish_reason": finish }]);
            events += &format!("data: {chunk}\n\n");
        };
        for word in words.split_inclusive(' ') {
            send(json!({ "content": word }), Value::Null);
        }
        send(json!({}), json!("stop"));
        events += "data: [DONE]\n\n";
        return ([(header::CONTENT_TYPE, "text/event-stream")], events).into_response();
    }
    let mut completion = head;
    completion["object"] = json!("chat.completion");
    completion["choices"] = json!([{ "index": 0, "message": message, "finish_reason": finish }]);
    completion["usage"] =
        json!({ "prompt_tokens": 20, "completion_tokens": 9, "total_tokens": 29 });
    Json(completion).into_response()
}

/// What this model knows.
fn reply(body: &Value) -> Value {
    let messages = body["messages"].as_array().cloned().unwrap_or_default();
    let last = messages.last().cloned().unwrap_or_default();
    let said = |text: String| json!({ "role": "assistant", "content": text });
    if last["role"] == "tool" {
        let result = last["content"].as_str().unwrap_or_default();
        return said(format!("The station reports {result}."));
    }
    if body.get("tools").is_some() {
        return json!({ "role": "assistant", "content": null, "tool_calls": [{
            "id": "call_1", "type": "function",
            "function": { "name": "read_station", "arguments": "{\"station\":\"Oslo\"}" },
        }] });
    }
    let question = last["content"].as_str().unwrap_or_default().to_lowercase();
    said(match () {
        () if question.contains("password") => {
            "Open Settings, then Security, then Reset.".to_owned()
        }
        () if question.contains("france") => "The capital of France is Paris.".to_owned(),
        () => "I know about passwords and France only.".to_owned(),
    })
}
