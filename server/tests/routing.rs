//! Which upstream a request goes to, by what name and with what key; who stands in when it fails; and embeddings,
//! which are put together from several entries.

mod support;

use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use serde_json::{Value, json};
use support::{Reply, Server, Setup, Upstream, completion, eventually, json_response, prompt};

const QUESTION: &str = "How do I reset my password?";

async fn post(server: &Server, path: &str, body: &Value, headers: &[(&str, &str)]) -> Reply {
    let mut request = server.client.post(server.url(path)).json(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut response = request.send().await.unwrap();
    let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
    Reply {
        status,
        headers,
        body: response.bytes().await.unwrap(),
    }
}

fn message(text: &str) -> Value {
    json!({ "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5",
        "content": [{ "type": "text", "text": text }], "stop_reason": "end_turn", "stop_sequence": null,
        "usage": { "input_tokens": 5, "output_tokens": 2 } })
}

fn asks(model: &str) -> Value {
    json!({ "model": model, "messages": [{ "role": "user", "content": QUESTION }], "max_tokens": 99 })
}

#[tokio::test]
async fn a_request_goes_to_the_upstream_that_has_its_model_or_speaks_its_protocol() {
    let (first, second, third) = (
        Upstream::start().await,
        Upstream::start().await,
        Upstream::start().await,
    );
    third.answer_json(message("from the third"));
    let config = format!(
        r#"
upstreams:
  - {{ name: one, base_url: "{}" }}
  - {{ name: two, base_url: "{}", models: ["llama-*", "mistral-*-latest"], api_key_env: TWO_KEY, key_header: api-key, rename: {{ llama-3: deployed }} }}
  - {{ name: three, base_url: "{}", protocol: anthropic, api_key_env: THREE_KEY }}
"#,
        first.url, second.url, third.url
    );
    let server = Setup::default()
        .config(&config)
        .env("TWO_KEY", "sk-two")
        .env("THREE_KEY", "sk-three")
        .start();
    let path = "/v1/chat/completions";
    post(&server, path, &asks("gpt-4o"), &[]).await;
    assert_eq!((first.calls(), second.calls(), third.calls()), (1, 0, 0));
    let renamed = post(&server, path, &asks("llama-3"), &[]).await;
    assert_eq!((first.calls(), second.calls(), third.calls()), (1, 1, 0));
    let seen = second.last();
    assert_eq!(seen.headers["api-key"], "sk-two");
    assert!(!seen.headers.contains_key("authorization"));
    let body: Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!(body["model"], "deployed");
    post(&server, path, &asks("mistral-large-latest"), &[]).await;
    assert_eq!(second.calls(), 2);
    let spoken = post(
        &server,
        "/v1/messages",
        &asks("claude-sonnet-4-5"),
        &[("anthropic-version", "2023-06-01")],
    )
    .await;
    assert_eq!(spoken.json()["content"][0]["text"], "from the third");
    assert_eq!(third.last().headers["x-api-key"], "sk-three");
    assert_eq!(third.last().path, "/v1/messages");
    // What is not cached goes where its protocol is spoken.
    let counted = post(
        &server,
        "/v1/messages/count_tokens",
        &asks("claude-sonnet-4-5"),
        &[("anthropic-version", "2023-06-01")],
    )
    .await;
    assert_eq!(
        counted.cache_status(),
        "askonce; fwd=bypass; detail=passthrough"
    );
    assert_eq!(third.calls(), 2);
    // The same words to another upstream are another question; the same model by the same name is not.
    assert!(
        post(&server, path, &asks("llama-3"), &[])
            .await
            .cache_status()
            .contains("hit")
    );
    assert!(renamed.cache_status().contains("stored"));
    // Errors are worded as the protocol has them.
    let refused = post(
        &server,
        "/v1/messages",
        &asks("claude-sonnet-4-5"),
        &[("x-askonce-upstream", "nobody")],
    )
    .await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        (&refused.json()["type"], &refused.json()["error"]["type"]),
        (&json!("error"), &json!("invalid_request_error"))
    );
}

#[tokio::test]
async fn paths_in_the_style_of_azure_name_the_model() {
    let upstream = Upstream::start().await;
    let config = format!(
        "upstreams: [{{ base_url: \"{}/openai\" }}]",
        upstream.url.trim_end_matches("/v1")
    );
    let server = Setup::default().config(&config).start();
    let path = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21";
    let mut body = prompt(QUESTION);
    body.as_object_mut().unwrap().remove("model");
    let first = post(&server, path, &body, &[("api-key", "sk-azure")]).await;
    assert!(
        first.cache_status().contains("stored"),
        "{}",
        first.cache_status()
    );
    assert_eq!(upstream.last().path, path);
    assert_eq!(upstream.last().body, body.to_string().as_bytes());
    assert!(
        post(&server, path, &body, &[("api-key", "sk-azure")])
            .await
            .cache_status()
            .contains("hit")
    );
    let other = path.replace("gpt-4o", "gpt-4o-mini");
    assert!(
        post(&server, &other, &body, &[("api-key", "sk-azure")])
            .await
            .cache_status()
            .contains("miss")
    );
    assert!(
        post(&server, path, &body, &[("api-key", "sk-other")])
            .await
            .cache_status()
            .contains("miss")
    );
}

#[tokio::test]
async fn another_upstream_stands_in_for_one_that_cannot_answer() {
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    second.answer_json(completion("from the second"));
    let config = |base: &str| {
        format!(
            "upstreams: [{{ name: one, base_url: \"{base}\", failover: [two] }}, {{ name: two, base_url: \"{}\", rename: {{ gpt-4o-mini: standby }} }}]",
            second.url
        )
    };
    let server = Setup::default().config(&config(&first.url)).start();
    first.answer(|_| (StatusCode::SERVICE_UNAVAILABLE, "busy").into_response());
    let answered = server.chat(&prompt(QUESTION)).await;
    assert_eq!(answered.content(), "from the second");
    assert_eq!(answered.header("x-askonce-upstream"), "two");
    let body: Value = serde_json::from_slice(&second.last().body).unwrap();
    assert_eq!(body["model"], "standby");
    assert!(
        server
            .chat(&prompt(QUESTION))
            .await
            .cache_status()
            .contains("hit")
    );
    // A stream too, before its first byte.
    let mut streamed = prompt("What is the capital of France?");
    streamed["stream"] = json!(true);
    assert_eq!(
        server.chat(&streamed).await.header("x-askonce-upstream"),
        "two"
    );
    // A request that is wrong is wrong everywhere.
    first.answer(|_| (StatusCode::BAD_REQUEST, "{}").into_response());
    let calls = second.calls();
    assert_eq!(
        server.chat(&prompt("Who wrote Hamlet?")).await.status,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(second.calls(), calls);
    // When all fail, the last word is the last one's.
    first.answer(|_| StatusCode::BAD_GATEWAY.into_response());
    second.answer(|_| (StatusCode::TOO_MANY_REQUESTS, "slow down").into_response());
    let failed = server.chat(&prompt("Who wrote Hamlet?")).await;
    assert_eq!(
        (failed.status, &failed.body[..]),
        (StatusCode::TOO_MANY_REQUESTS, &b"slow down"[..])
    );
    let metrics = server
        .client
        .get(server.url("/metrics"))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(
        metrics.contains("askonce_upstream_failovers_total{upstream=\"one\"} 3"),
        "{metrics}"
    );
    // Also where nothing listens.
    let server = Setup::default()
        .config(&config("http://127.0.0.1:9/v1"))
        .start();
    second.answer_json(completion("from the second"));
    assert_eq!(
        server.chat(&prompt(QUESTION)).await.content(),
        "from the second"
    );
}

/// Gives each input the vector of its length, in base 64 or numbers as the test needs not know.
fn embeds(upstream: &Upstream) {
    upstream.answer(|seen| {
        let body: Value = serde_json::from_slice(&seen.body).unwrap();
        let inputs = match &body["input"] {
            Value::Array(inputs) if !inputs[0].is_number() => inputs.clone(),
            one => vec![one.clone()],
        };
        let length = |input: &Value| input.as_str().map_or_else(|| input.as_array().unwrap().len(), str::len);
        let data: Vec<_> = inputs
            .iter()
            .enumerate()
            .map(|(index, input)| json!({ "object": "embedding", "index": index, "embedding": [length(input), 0.125] }))
            .collect();
        json_response(&json!({ "object": "list", "data": data, "model": "text-embedding-3-small",
            "usage": { "prompt_tokens": inputs.len() * 10, "total_tokens": inputs.len() * 10 } }))
    });
}

fn input(input: &Value) -> Value {
    json!({ "model": "text-embedding-3-small", "input": input })
}

fn lengths(reply: &Reply) -> Vec<u64> {
    let document = reply.json();
    let data = document["data"].as_array().unwrap();
    for (index, item) in data.iter().enumerate() {
        assert_eq!(item["index"], index);
    }
    data.iter()
        .map(|item| item["embedding"][0].as_u64().unwrap())
        .collect()
}

#[tokio::test]
async fn only_inputs_that_are_new_are_embedded() {
    let upstream = Upstream::start().await;
    embeds(&upstream);
    let server = Setup::upstream(&upstream.url).start();
    let path = "/v1/embeddings";
    let asked = async |list: Value| post(&server, path, &input(&list), &[]).await;
    let sent = || serde_json::from_slice::<Value>(&upstream.last().body).unwrap()["input"].clone();

    let first = asked(json!(["a", "bb", "a"])).await;
    assert_eq!(lengths(&first), [1, 2, 1]);
    assert_eq!(sent(), json!(["a", "bb"]), "each once");
    assert!(first.cache_status().contains("stored"));
    let second = asked(json!(["bb", "dddd", "a"])).await;
    assert_eq!(lengths(&second), [2, 4, 1]);
    assert_eq!(sent(), json!(["dddd"]));
    assert_eq!(
        second.json()["usage"]["prompt_tokens"],
        10,
        "what this call used"
    );
    assert_eq!(
        second.json()["usage"]["askonce"],
        json!({ "cached": 2, "inputs": 3 })
    );
    let calls = upstream.calls();
    let all = asked(json!(["dddd", "bb"])).await;
    assert_eq!(lengths(&all), [4, 2]);
    assert!(all.cache_status().contains("hit"), "{}", all.cache_status());
    assert_eq!(all.json()["model"], "text-embedding-3-small");
    assert_eq!(
        lengths(&asked(json!("bb")).await),
        [2],
        "alone or in a list, it is the same input"
    );
    assert_eq!(upstream.calls(), calls);
    // Never by similarity, and not across settings.
    assert_eq!(lengths(&asked(json!("BB ")).await), [3]);
    let mut short = input(&json!("bb"));
    short["dimensions"] = json!(2);
    post(&server, path, &short, &[]).await;
    assert_eq!(upstream.calls(), calls + 2);
    // Tokens are an input like any other.
    assert_eq!(lengths(&asked(json!([7, 8, 9])).await), [3]);
    assert_eq!(lengths(&asked(json!([[7, 8, 9], [1]])).await), [3, 1]);
    assert_eq!(sent(), json!([[1]]));
    let none = post(
        &server,
        path,
        &input(&json!(["new"])),
        &[("cache-control", "only-if-cached")],
    )
    .await;
    assert_eq!(none.status, StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test]
async fn a_failed_embedding_call_is_heard_as_it_is() {
    let upstream = Upstream::start().await;
    let server = Setup::upstream(&upstream.url).start();
    upstream.answer(|_| (StatusCode::BAD_REQUEST, "{\"error\":{}}").into_response());
    let refused = post(&server, "/v1/embeddings", &input(&json!("a")), &[]).await;
    assert_eq!(
        (refused.status, &refused.body[..]),
        (StatusCode::BAD_REQUEST, &b"{\"error\":{}}"[..])
    );
    // An answer with fewer vectors than inputs is passed on, and nothing is kept of it.
    upstream.answer_json(json!({ "data": [{ "index": 0, "embedding": [1] }] }));
    let short = post(&server, "/v1/embeddings", &input(&json!(["a", "b"])), &[]).await;
    assert_eq!(short.json()["data"].as_array().unwrap().len(), 1);
    embeds(&upstream);
    assert_eq!(
        lengths(&post(&server, "/v1/embeddings", &input(&json!(["a", "b"])), &[]).await),
        [1, 1]
    );
}

#[tokio::test]
async fn callers_who_embed_the_same_at_the_same_time_share_the_call_for_it() {
    let upstream = Upstream::start().await;
    embeds(&upstream);
    upstream.close();
    let server = Setup::upstream(&upstream.url).start();
    let asked = |list: Value| {
        let server = &server;
        async move { post(server, "/v1/embeddings", &input(&list), &[]).await }
    };
    let same = futures_util::future::join_all((0..20).map(|_| asked(json!(["a", "bb", "a"]))));
    let release = async {
        eventually(|| async { upstream.calls() >= 1 }).await;
        // All have come by then, or find what is stored: either way nobody else calls.
        upstream.open();
    };
    let (same, ()) = futures_util::future::join(same, release).await;
    for reply in &same {
        assert_eq!(lengths(reply), [1, 2, 1]);
    }
    assert_eq!(upstream.calls(), 1);
    let led = same
        .iter()
        .filter(|reply| reply.json()["usage"]["prompt_tokens"] == 20);
    assert_eq!(led.count(), 1, "one call, so one caller whose call it was");

    // Lists that overlap: each input is asked for once.
    upstream.close();
    let one = asked(json!(["ccc", "dddd"]));
    let other = async {
        eventually(|| async { upstream.calls() == 2 }).await;
        asked(json!(["dddd", "eeeee"])).await
    };
    let release = async {
        eventually(|| async { upstream.calls() == 3 }).await;
        upstream.open();
    };
    let (one, other, ()) = futures_util::future::join3(one, other, release).await;
    assert_eq!((lengths(&one), lengths(&other)), (vec![3, 4], vec![4, 5]));
    let sent: Value = serde_json::from_slice(&upstream.last().body).unwrap();
    assert_eq!(sent["input"], json!(["eeeee"]));
    assert_eq!(upstream.calls(), 3);
}
