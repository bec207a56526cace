//! Within a `reqwest` client.

use std::sync::Arc;
use std::time::Duration;

use askonce::SemanticCache;
use askonce::gateway::Gateway;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use serde_json::{Value, json};

use crate::upstream::Upstream;

async fn client() -> (ClientWithMiddleware, String, Upstream) {
    let upstream = Upstream::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "http://{}/v1/chat/completions",
        listener.local_addr().unwrap()
    );
    let router = upstream.router();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (caching(), url, upstream)
}

fn caching() -> ClientWithMiddleware {
    let gateway = Gateway::new(SemanticCache::in_memory().unwrap());
    ClientBuilder::new(reqwest::Client::new())
        .with(gateway)
        .build()
}

fn body(question: &str, stream: bool) -> String {
    json!({ "model": "m", "stream": stream, "messages": [{ "role": "user", "content": question }] })
        .to_string()
}

async fn ask(
    client: &ClientWithMiddleware,
    url: &str,
    question: &str,
    stream: bool,
) -> (String, String) {
    let call = client.post(url).body(body(question, stream));
    let response = call.send().await.unwrap();
    assert_eq!(response.url().as_str(), url);
    let status = response.headers()["cache-status"]
        .to_str()
        .unwrap()
        .to_owned();
    (status, response.text().await.unwrap())
}

#[tokio::test]
async fn a_client_asks_once() {
    let (client, url, upstream) = client().await;
    for (question, stream, says) in [
        ("What is the capital of France?", false, "fwd=miss; stored"),
        ("What is the capital of France?", false, "exact"),
        ("what's the capital of France", true, "semantic"),
        ("Who painted the Mona Lisa?", true, "fwd=miss"),
        ("Who painted the Mona Lisa?", true, "exact"),
        ("Who painted the Mona Lisa?", false, "exact"),
    ] {
        let (status, answer) = ask(&client, &url, question, stream).await;
        assert!(status.contains(says), "{question}: {status}");
        assert!(answer.contains("Paris"), "{answer}");
        assert_eq!(answer.ends_with("data: [DONE]\n\n"), stream);
    }
    assert_eq!(upstream.calls(), 2);
    let other = client
        .get(url.replace("chat/completions", "models"))
        .send()
        .await
        .unwrap();
    assert!(!other.headers().contains_key("cache-status"));
}

#[tokio::test]
async fn a_provider_that_cannot_be_reached_is_the_callers_to_know() {
    let nowhere = "http://127.0.0.1:9/v1/chat/completions";
    let error = caching()
        .post(nowhere)
        .body(body("x", false))
        .send()
        .await
        .unwrap_err();
    assert!(error.is_connect(), "{error:?}");
}

#[tokio::test]
async fn a_refusal_keeps_its_status() {
    let (client, url, upstream) = client().await;
    for calls in 1..3 {
        let response = client
            .post(&url)
            .body(body("please fail", false))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 429);
        let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        assert_eq!(body["error"]["message"], "too many");
        assert_eq!(upstream.calls(), calls);
    }
}

#[tokio::test]
async fn a_call_whose_caller_goes_away_is_made_by_the_next() {
    let (client, url, upstream) = client().await;
    let gate = upstream.close();
    let (client, url) = (Arc::new(client), Arc::new(url));
    let spawn = || {
        let (client, url) = (Arc::clone(&client), Arc::clone(&url));
        tokio::spawn(async move { ask(&client, &url, "still there?", false).await })
    };
    let first = spawn();
    while upstream.calls() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let second = spawn();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(upstream.calls(), 1, "the second waits for the first");
    first.abort();
    while upstream.calls() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    gate.notify_waiters();
    gate.notify_one();
    let (_, answer) = second.await.unwrap();
    assert!(answer.contains("Paris"));
}

#[tokio::test]
async fn a_client_embeds_each_input_once_and_sends_on_nothing_that_is_said_to_the_cache() {
    let (client, url, upstream) = client().await;
    let url = url.replace("chat/completions", "embeddings");
    let ask = async |inputs: Value| -> Value {
        let body = json!({ "model": "m", "input": inputs, "cache": { "ttl": 60 } });
        let response = client
            .post(&url)
            .body(body.to_string())
            .send()
            .await
            .unwrap();
        serde_json::from_str(&response.text().await.unwrap()).unwrap()
    };
    ask(json!(["a", "bb"])).await;
    assert!(upstream.seen().1.get("cache").is_none());
    let both = ask(json!(["ccc", "bb"])).await;
    assert_eq!(both["data"][0]["embedding"], json!([3]));
    assert_eq!(both["data"][1]["embedding"], json!([2]));
    assert_eq!(upstream.seen().1["input"], json!(["ccc"]));
    ask(json!(["a", "bb", "ccc"])).await;
    assert_eq!(upstream.calls(), 2);
}
