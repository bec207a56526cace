//! A small gateway: a reverse proxy in front of a provider, with the cache as a layer over it.
//!
//! ```sh
//! cargo run --example gateway --features http-layer                                    # a demonstration
//! cargo run --example gateway --features http-layer -- https://api.openai.com/v1 8080  # the real thing
//! ```
//!
//! Point any client's base URL at it. Who sends another key has a cache of their own.

mod fake;

use std::io::Write;

use askonce::SemanticCache;
use askonce::gateway::Gateway;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let Some(upstream) = arguments.next() else {
        return demonstrate(&mut std::io::stdout()).await;
    };
    let port = arguments.next().map_or(Ok(8080), |port| port.parse())?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    axum::serve(listener, gateway(upstream)?).await?;
    Ok(())
}

/// The cache in front of a reverse proxy to the API at `base`, whose calls it reads.
fn gateway(base: String) -> Result<Router> {
    let proxy = Proxy {
        base,
        client: reqwest::Client::new(),
    };
    let cache = Gateway::new(SemanticCache::in_memory()?);
    Ok(Router::new()
        .fallback(forward)
        .layer(cache)
        .with_state(proxy))
}

#[derive(Clone)]
struct Proxy {
    base: String,
    client: reqwest::Client,
}

async fn forward(State(proxy): State<Proxy>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
    let url = format!("{}{}", proxy.base, path.trim_start_matches("/v1"));
    let mut headers = parts.headers;
    headers.remove(header::HOST);
    let call = proxy
        .client
        .request(parts.method, url)
        .headers(headers)
        .body(reqwest::Body::wrap_stream(body.into_data_stream()));
    match call.send().await {
        Ok(response) => axum::http::Response::from(response).map(Body::new),
        Err(_) => (StatusCode::BAD_GATEWAY, "the provider cannot be reached").into_response(),
    }
}

/// The gateway in front of a stand-in for a provider, and what a client sees of it.
pub(crate) async fn demonstrate(out: &mut impl Write) -> Result<()> {
    let provider = fake::Fake::start().await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/v1/chat/completions", listener.local_addr()?);
    let router = gateway(provider.base_url())?;
    tokio::spawn(async move { axum::serve(listener, router).await });

    let client = reqwest::Client::new();
    for (question, stream) in [
        ("How do I reset my password?", false),
        ("How do I reset my password?", false),
        ("how can I reset my password", false),
        ("How do I reset my password?", true),
        ("What is the capital of France?", true),
        ("What is the capital of France?", false),
    ] {
        let body = json!({ "model": "gpt-4o", "stream": stream, "messages": [
            { "role": "user", "content": question },
        ] });
        let response = client
            .post(&url)
            .bearer_auth("sk-demo")
            .json(&body)
            .send()
            .await?;
        let status = response.headers()["cache-status"].to_str()?.to_owned();
        let said = said(&response.text().await?, stream);
        let how = if stream { "streamed" } else { "whole" };
        writeln!(out, "{question} ({how})\n  {status}\n  {said}")?;
    }
    writeln!(out, "6 answers, {} calls of the provider", provider.calls())?;
    Ok(())
}

/// The text of an answer.
fn said(body: &str, stream: bool) -> String {
    let text = |value: &Value, place: &str| {
        value["choices"][0][place]["content"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let parsed = |json: &str| serde_json::from_str::<Value>(json).ok();
    if !stream {
        return parsed(body)
            .map(|body| text(&body, "message"))
            .unwrap_or_default();
    }
    let events = body
        .lines()
        .filter_map(|line| parsed(line.strip_prefix("data: ")?));
    events.map(|event| text(&event, "delta")).collect()
}
