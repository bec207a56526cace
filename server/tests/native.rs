//! The cache's own API, asked as `curl -d` asks it: what is found, what is not and why, whom an entry
//! belongs to, and what happens to requests that make no sense.

mod support;

use axum::http::StatusCode;
use serde_json::{Value, json};
use support::{Server, Setup, Upstream};

const RESET: &str = "How do I reset my password?";

async fn store(server: &Server, key: Option<&str>, fields: Value) -> String {
    let (status, told) = server.post_as(key, "/cache/v1/store", fields).await;
    assert_eq!(status, StatusCode::CREATED, "{told}");
    told["entry"].as_str().unwrap().to_owned()
}

async fn lookup(server: &Server, key: Option<&str>, prompt: &str) -> Value {
    let (status, told) = server
        .post_as(key, "/cache/v1/lookup", json!({ "prompt": prompt }))
        .await;
    assert_eq!(status, StatusCode::OK, "{told}");
    told
}

#[tokio::test]
async fn a_stored_answer_is_found_by_another_wording_and_not_by_another_question() {
    let server = Setup::default().start();
    let entry = store(
        &server,
        None,
        json!({ "prompt": RESET, "answer": "Open Settings ..." }),
    )
    .await;

    let hit = lookup(&server, None, "how can I reset my password").await;
    assert_eq!(hit["outcome"], "hit");
    assert_eq!(hit["kind"], "semantic");
    assert_eq!(hit["answer"], "Open Settings ...");
    assert_eq!(hit["entry"], entry.as_str());
    assert!(hit["similarity"].as_f64().unwrap() > 0.9);
    assert!(hit["age_seconds"].as_u64().unwrap() < 30);

    let exact = lookup(&server, None, RESET).await;
    assert_eq!(
        (&exact["outcome"], &exact["kind"]),
        (&json!("hit"), &json!("exact"))
    );

    let miss = lookup(&server, None, "How do I reset my phone?").await;
    assert_eq!(miss["outcome"], "miss");
    assert_eq!(miss["reasons"][0], miss["reason"]);
    assert_eq!(miss["nearest"]["entry"], entry.as_str());
    assert_eq!(miss["nearest"]["stopped_by"], miss["reason"]);
}

#[tokio::test]
async fn the_content_type_of_curl_is_no_obstacle() {
    let server = Setup::default().start();
    let response = server
        .client
        .post(server.url("/cache/v1/store"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(r#"{"prompt":"a question","answer":{"any":["json"]}}"#)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(
        lookup(&server, None, "a question").await["answer"],
        json!({ "any": ["json"] })
    );
}

#[tokio::test]
async fn two_api_keys_never_share_and_cannot_touch_each_others_entries() {
    let server = Setup::default().start();
    let (a, b) = (Some("sk-a"), Some("sk-b"));
    let entry = store(
        &server,
        a,
        json!({ "prompt": RESET, "answer": "A's", "tags": ["t"] }),
    )
    .await;
    for key in [b, None] {
        for prompt in [RESET, "how can I reset my password"] {
            let miss = lookup(&server, key, prompt).await;
            assert_eq!(miss["outcome"], "miss");
            assert_eq!(miss["nearest"], Value::Null, "not even a hint of it");
        }
    }
    let wrong = json!({ "entry": entry, "verdict": "wrong", "prompt": RESET });
    assert_eq!(
        server.post_as(b, "/cache/v1/feedback", wrong).await.0,
        StatusCode::NOT_FOUND
    );
    let response = server
        .client
        .get(server.url(&format!("/cache/v1/entries/{entry}")));
    assert_eq!(
        response.bearer_auth("sk-b").send().await.unwrap().status(),
        StatusCode::NOT_FOUND
    );
    for selector in [
        json!({ "entry": entry }),
        json!({ "tag": "t" }),
        json!({ "all": true }),
    ] {
        let (_, told) = server.post_as(b, "/cache/v1/invalidate", selector).await;
        assert_eq!(told["removed"], 0, "{told}");
    }
    let others = json!({ "scope": { "tenant": "acme" } });
    assert_eq!(
        server.post_as(b, "/cache/v1/invalidate", others).await.0,
        StatusCode::FORBIDDEN
    );
    assert_eq!(lookup(&server, a, RESET).await["outcome"], "hit");
    let (_, told) = server
        .post_as(a, "/cache/v1/invalidate", json!({ "tag": "t" }))
        .await;
    assert_eq!(told["removed"], 1);
}

#[tokio::test]
async fn a_caller_without_a_key_on_this_machine_looks_after_all_entries() {
    let server = Setup::default().start();
    let entry = store(
        &server,
        Some("sk-a"),
        json!({ "prompt": RESET, "answer": "A's" }),
    )
    .await;
    assert_eq!(
        server.get(&format!("/cache/v1/entries/{entry}")).await.1["answer"],
        "A's"
    );
    let dry = json!({ "all": true, "dry_run": true });
    assert_eq!(
        server.post("/cache/v1/invalidate", dry).await.1["would_remove"],
        1
    );
    assert_eq!(
        server
            .post("/cache/v1/invalidate", json!({ "entry": entry }))
            .await
            .1["removed"],
        1
    );
    assert_eq!(
        server.get(&format!("/cache/v1/entries/{entry}")).await.0,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn listed_keys_share_by_tenant_and_others_are_turned_away() {
    let server = Setup::default()
        .config(
            "auth:\n  keys:\n    - { name: a1, tenant: acme, key_env: KEY_A1 }\n    \
             - { name: a2, tenant: acme, key_env: KEY_A2 }\n    - { name: globex, key_env: KEY_B }\n    \
             - { name: root, tenant: ops, key_env: KEY_ROOT, admin: true }\n",
        )
        .env("KEY_A1", "one")
        .env("KEY_A2", "two")
        .env("KEY_B", "three")
        .env("KEY_ROOT", "four")
        .start();
    store(
        &server,
        Some("one"),
        json!({ "prompt": RESET, "answer": "acme's" }),
    )
    .await;
    assert_eq!(lookup(&server, Some("two"), RESET).await["outcome"], "hit");
    assert_eq!(
        lookup(&server, Some("three"), RESET).await["outcome"],
        "miss"
    );
    for key in [None, Some("five")] {
        let (status, told) = server
            .post_as(key, "/cache/v1/lookup", json!({ "prompt": "x" }))
            .await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert!(!told.to_string().contains("five"));
    }
    let scope = json!({ "scope": { "tenant": "acme" } });
    assert_eq!(
        server
            .post_as(Some("four"), "/cache/v1/invalidate", scope)
            .await
            .1["removed"],
        1
    );
    let savings = |key: &'static str, tenant: &'static str| {
        let url = server.url(&format!("/cache/v1/savings?tenant={tenant}"));
        server.client.get(url).bearer_auth(key).send()
    };
    assert_eq!(
        savings("three", "acme").await.unwrap().status(),
        StatusCode::FORBIDDEN
    );
    assert_eq!(
        savings("three", "globex").await.unwrap().status(),
        StatusCode::OK
    );
    assert_eq!(
        savings("four", "acme").await.unwrap().status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn an_answer_reported_wrong_is_not_given_for_that_wording_again() {
    let server = Setup::default().start();
    let entry = store(
        &server,
        None,
        json!({ "prompt": RESET, "answer": "Open Settings" }),
    )
    .await;
    let asked = "how can I reset my password";
    let wrong = json!({ "entry": entry, "verdict": "wrong", "prompt": asked });
    assert_eq!(
        server.post("/cache/v1/feedback", wrong).await.0,
        StatusCode::OK
    );
    assert_eq!(
        lookup(&server, None, asked).await["reason"],
        "reported_wrong"
    );
    assert_eq!(lookup(&server, None, RESET).await["outcome"], "hit");
    let no_query = json!({ "entry": entry, "verdict": "wrong" });
    assert_eq!(
        server.post("/cache/v1/feedback", no_query).await.0,
        StatusCode::BAD_REQUEST
    );
    let other = json!({ "entry": entry, "verdict": "wrong", "prompt": asked, "model": "other" });
    assert_eq!(
        server.post("/cache/v1/feedback", other).await.0,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn model_system_parameters_and_namespace_keep_answers_apart() {
    let server = Setup::default().start();
    let asked = json!({ "prompt": RESET, "model": "m", "system": "s", "params": { "temperature": 1 },
        "namespace": "n" });
    let mut stored = asked.clone();
    stored["answer"] = json!("kept");
    store(&server, None, stored).await;
    assert_eq!(
        server.post("/cache/v1/lookup", asked.clone()).await.1["outcome"],
        "hit"
    );
    for (name, value) in [
        ("model", json!("other")),
        ("system", json!("other")),
        ("params", json!({ "temperature": 0 })),
        ("namespace", json!("other")),
    ] {
        let mut other = asked.clone();
        other[name] = value;
        assert_eq!(
            server.post("/cache/v1/lookup", other).await.1["outcome"],
            "miss",
            "{name}"
        );
    }
}

#[tokio::test]
async fn explain_stats_and_savings_tell_of_what_happened() {
    let server = Setup::default().start();
    let stored = json!({ "prompt": RESET, "answer": "x", "model": "gpt-4o",
        "usage": { "input_tokens": 1_000_000, "output_tokens": 0 }, "latency": "2s" });
    let entry = store(&server, None, stored).await;
    let asked = json!({ "prompt": "how can I reset my password", "model": "gpt-4o" });
    let explained = server.post("/cache/v1/explain", asked.clone()).await.1;
    assert_eq!(explained["hit"]["entry"], entry.as_str());
    assert_eq!(explained["candidates"][0]["serve"], true);
    let hit = server.post("/cache/v1/lookup", asked).await.1;
    assert_eq!(hit["saved"]["seconds"], 2.0);
    let stats = server.get("/cache/v1/stats").await.1;
    assert_eq!(
        (&stats["hits_semantic"], &stats["entries"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(stats["hit_rate"], 1.0, "explaining is no lookup");
    let savings = server.get("/cache/v1/savings?model=gpt-4o&days=1").await.1;
    assert_eq!(savings["net_usd"], hit["saved"]["usd"]);
    assert_ne!(savings["net_usd"], "0");
    assert_eq!(
        server.get("/cache/v1/savings?days=soon").await.0,
        StatusCode::BAD_REQUEST
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
    for name in [
        "askonce_lookups_total{",
        "askonce_entries 1",
        "askonce_http_requests_total{",
    ] {
        assert!(metrics.contains(name), "{name}");
    }
}

#[tokio::test]
async fn health_tells_alive_and_ready() {
    let server = Setup::default().start();
    assert_eq!(server.get("/health/live").await.0, StatusCode::OK);
    let (status, told) = server.get("/health/ready").await;
    assert_eq!((status, &told["status"]), (StatusCode::OK, &json!("ready")));
}

#[tokio::test]
async fn requests_that_make_no_sense_name_the_field_and_store_nothing() {
    let server = Setup::default().start();
    for (path, body, field) in [
        ("store", json!({ "prompt": "", "answer": "x" }), "prompt"),
        ("store", json!({ "prompt": " \n", "answer": "x" }), "prompt"),
        ("store", json!({ "prompt": "p" }), "answer"),
        ("store", json!({ "prompt": "p", "answer": null }), "answer"),
        ("store", json!({ "prompt": 7, "answer": "x" }), "prompt"),
        (
            "store",
            json!({ "prompt": "p", "answer": "x", "ttl": "soon" }),
            "ttl",
        ),
        (
            "store",
            json!({ "prompt": "p", "answer": "x", "tags": "t" }),
            "tags",
        ),
        (
            "store",
            json!({ "prompt": "p", "answer": "x", "tags": [""] }),
            "tags",
        ),
        (
            "store",
            json!({ "prompt": "p", "answer": "x", "usage": { "tokens": 1 } }),
            "usage",
        ),
        (
            "store",
            json!({ "openai_chat": { "model": "m", "messages": [] }, "answer": "x" }),
            "openai_chat.messages",
        ),
        (
            "store",
            json!({ "openai_chat": support::prompt("p"), "answer": { "no": "choices" } }),
            "answer",
        ),
        (
            "store",
            json!({ "protocol": "anthropic_messages", "body": { "model": "m", "messages": 7 }, "answer": "x" }),
            "body.messages",
        ),
        (
            "store",
            json!({ "protocol": "openai_responses", "body": { "model": "m", "input": "p" }, "answer": { "choices": [] } }),
            "answer",
        ),
        (
            "store",
            json!({ "protocol": "openai_embeddings", "body": { "model": "m", "input": "p" }, "answer": "text" }),
            "answer",
        ),
        (
            "store",
            json!({ "protocol": "openai_embeddings", "body": { "model": "m", "input": "p" }, "answer": { "embedding": [] } }),
            "answer",
        ),
        (
            "lookup",
            json!({ "protocol": "openai_embeddings", "body": { "model": "m", "input": ["p", "q"] } }),
            "body.input",
        ),
        (
            "lookup",
            json!({ "protocol": "prompt", "body": {} }),
            "protocol",
        ),
        (
            "lookup",
            json!({ "protocol": "openai_chat", "prompt": "p" }),
            "protocol",
        ),
        ("lookup", json!({ "prompt": "p", "body": {} }), "body"),
        ("lookup", json!({}), "prompt"),
        (
            "lookup",
            json!({ "prompt": "p", "openai_chat": {} }),
            "openai_chat",
        ),
        ("lookup", json!({ "prompt": "p", "params": [] }), "params"),
        ("lookup", json!({ "promt": "p" }), "promt"),
        (
            "feedback",
            json!({ "entry": "xyz", "verdict": "right" }),
            "entry",
        ),
        (
            "feedback",
            json!({ "entry": "00000000000000ff", "verdict": "meh" }),
            "verdict",
        ),
        ("invalidate", json!({ "older_than": -1 }), "older_than"),
        (
            "invalidate",
            json!({ "prompt": "p", "all": true }),
            "prompt",
        ),
    ] {
        let (status, told) = server
            .post(&format!("/cache/v1/{path}"), body.clone())
            .await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body} {told}");
        assert_eq!(told["field"], field, "{body} {told}");
    }
    for selectors in [
        json!({}),
        json!({ "tag": "a", "model": "b" }),
        json!({ "all": false }),
    ] {
        let (status, _) = server.post("/cache/v1/invalidate", selectors).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
    }
    assert_eq!(server.get("/cache/v1/stats").await.1["entries"], 0);
}

#[tokio::test]
async fn bytes_that_are_not_json_are_refused_with_their_place() {
    let server = Setup::default().start();
    for (body, detail) in [
        (&b"{\"prompt\":\"\xff\"}"[..], "byte 11"),
        (b"{\"prompt\":", "line 1"),
        (b"", "line 1"),
        (b"[1]", "expected a map"),
        (b"\"my secret prompt\"", "expected a map"),
        (br#"{"prompt":"\ud800"}"#, "line 1"),
    ] {
        let request = server
            .client
            .post(server.url("/cache/v1/lookup"))
            .body(body.to_vec());
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
        let told = response.text().await.unwrap();
        assert!(
            told.contains(detail) && !told.contains("my secret"),
            "{told}"
        );
    }
}

#[tokio::test]
async fn an_empty_prompt_is_a_recorded_miss() {
    let server = Setup::default().start();
    assert_eq!(lookup(&server, None, "").await["reason"], "empty_user_text");
    assert_eq!(
        server.get("/cache/v1/stats").await.1["miss_reasons"]["empty_user_text"],
        1
    );
}

#[tokio::test]
async fn a_prompt_of_ten_megabytes_matches_exactly_only() {
    let server = Setup::default().start();
    let long = "word ".repeat(2 << 20);
    let told = server
        .post("/cache/v1/store", json!({ "prompt": long, "answer": "x" }))
        .await
        .1;
    assert_eq!(
        (&told["outcome"], &told["searchable"]),
        (&json!("stored"), &json!(false))
    );
    assert_eq!(lookup(&server, None, &long).await["kind"], "exact");
    assert_eq!(
        lookup(&server, None, &format!("{long}!")).await["reason"],
        "text_too_long"
    );
}

#[tokio::test]
async fn a_body_over_the_bound_is_refused_and_the_client_hears_why() {
    let server = Setup::default().set("max_body_bytes=64KiB").start();
    let body = json!({ "prompt": "x".repeat(4 << 20), "answer": "x" });
    let (status, told) = server.post("/cache/v1/store", body).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(told["detail"].as_str().unwrap().contains("max_body_bytes"));
    assert_eq!(server.get("/cache/v1/stats").await.1["entries"], 0);
}

#[tokio::test]
async fn a_page_of_another_site_cannot_empty_the_cache() {
    let server = Setup::default().start();
    store(&server, None, json!({ "prompt": RESET, "answer": "x" })).await;
    let request = server
        .client
        .post(server.url("/cache/v1/invalidate"))
        .body(r#"{"all":true}"#);
    let response = request
        .header("sec-fetch-site", "cross-site")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(lookup(&server, None, RESET).await["outcome"], "hit");
}

#[tokio::test]
async fn a_call_of_every_protocol_can_be_stored_found_and_explained() {
    let upstream = Upstream::start().await;
    let server = Setup::upstream(&upstream.url).start();
    let message = json!({ "id": "msg_1", "type": "message", "role": "assistant", "model": "m",
        "content": [{ "type": "text", "text": "Paris." }], "stop_reason": "end_turn", "stop_sequence": null,
        "usage": { "input_tokens": 11, "output_tokens": 3 } });
    let asked = json!([{ "role": "user", "content": "What is the capital of France?" }]);
    let calls = [
        (
            "/v1/chat/completions",
            None,
            json!({ "model": "m", "messages": asked }),
            json!("Paris."),
        ),
        (
            "/v1/responses",
            Some("openai_responses"),
            json!({ "model": "m", "input": "What is the capital of France?", "store": false }),
            json!("Paris."),
        ),
        (
            "/v1/completions",
            Some("openai_completions"),
            json!({ "model": "m", "prompt": "The capital of France is" }),
            json!("Paris."),
        ),
        (
            "/v1/embeddings",
            Some("openai_embeddings"),
            json!({ "model": "m", "input": [7, 8, 9] }),
            json!({ "model": "m", "embedding": [0.5, 0.25] }),
        ),
        (
            "/v1/messages",
            Some("anthropic_messages"),
            json!({ "model": "m", "max_tokens": 9, "messages": asked }),
            message.clone(),
        ),
        // Whatever the provider takes is a request like others.
        (
            "/v1/messages",
            Some("anthropic_messages"),
            json!({ "model": "m", "messages": [{ "role": "user", "content": " " }] }),
            message,
        ),
    ];
    for (path, protocol, body, answer) in calls {
        let mut call = json!({ "body": body });
        if let Some(protocol) = protocol {
            call["protocol"] = json!(protocol);
        }
        let mut kept = call.clone();
        kept["answer"] = answer.clone();
        let (status, stored) = server.post("/cache/v1/store", kept).await;
        assert_eq!(
            (status, &stored["outcome"]),
            (StatusCode::CREATED, &json!("stored")),
            "{path}: {stored}"
        );
        let (_, found) = server.post("/cache/v1/lookup", call.clone()).await;
        assert_eq!(
            (&found["kind"], &found["answer"]),
            (&json!("exact"), &answer),
            "{path}"
        );
        let (status, explained) = server.post("/cache/v1/explain", call).await;
        assert_eq!(status, StatusCode::OK, "{path}: {explained}");
        if path == "/v1/messages" {
            assert_eq!(found["saved"]["input_tokens"], 11);
        }
    }
    assert_eq!(upstream.calls(), 0);
}
