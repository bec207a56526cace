//! The proxy between a client and an OpenAI-compatible upstream: what reaches the upstream, what does
//! not, and that nobody gets less than the upstream gave.

mod support;

use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse as _;
use serde_json::{Value, json};
use support::{Setup, Upstream, completion, eventually, json_response, prompt};

const RESET: &str = "How do I reset my password?";
const REWORDED: &str = "how can I reset my password";

#[tokio::test]
async fn the_first_call_reaches_the_upstream_and_the_reworded_second_does_not() {
    let upstream = Upstream::start().await;
    let server = Setup::upstream(&upstream.url).start();

    let first = server.chat(&prompt(RESET)).await;
    assert_eq!(first.status, StatusCode::OK);
    assert_eq!(
        first.cache_status(),
        "askonce; fwd=miss; stored; detail=not_found"
    );
    assert_eq!(first.header("x-askonce-reason"), "not_found");
    assert_eq!(
        first.body,
        Bytes::from(completion("answer 1").to_string()),
        "byte for byte"
    );

    let second = server.chat(&prompt(REWORDED)).await;
    assert_eq!(upstream.calls(), 1);
    assert!(
        second.cache_status().starts_with("askonce; hit; ttl="),
        "{}",
        second.cache_status()
    );
    assert!(second.cache_status().ends_with("; detail=semantic"));
    assert_eq!(
        second.header("x-askonce-entry"),
        first.header("x-askonce-entry")
    );
    assert!(
        second
            .header("x-askonce-similarity")
            .parse::<f64>()
            .unwrap()
            > 0.9
    );
    assert!(second.header("x-askonce-saved-usd").parse::<f64>().unwrap() > 0.0);
    assert!(second.header("age").parse::<u64>().unwrap() < 30);

    let (old, new) = (first.json(), second.json());
    assert_ne!(old["id"], new["id"]);
    assert!(new["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert!(new["created"].as_u64() > old["created"].as_u64());
    assert_eq!(new["usage"]["askonce"]["cached"], true);
    assert_eq!(new["usage"]["total_tokens"], 1_500);
    assert_eq!(
        (&old["choices"], &old["system_fingerprint"]),
        (&new["choices"], &new["system_fingerprint"])
    );

    let third = server.chat(&prompt(RESET)).await;
    assert!(third.cache_status().ends_with("detail=exact"));
    assert_ne!(third.json()["id"], new["id"]);
    let other = server.chat(&prompt("How do I reset my phone?")).await;
    assert!(
        other
            .cache_status()
            .starts_with("askonce; fwd=miss; stored; detail=")
    );
    assert!(other.header("x-askonce-similarity").parse::<f64>().unwrap() < 0.9);
    assert_eq!(upstream.calls(), 2);
}

/// A policy that serves nothing by itself, and a language model that is asked about all of it.
const VERIFIED: &str = r"
judge: { model: small }
semantic:
  embedder: { type: static }
  policy: { type: cost_aware, floor: 1.0 }
  verifier: { model: { type: language_model }, serve_at: 0.9, deadline: 30s }
";

#[tokio::test]
async fn a_language_model_says_whether_what_was_nearly_served_may_be() {
    let upstream = Upstream::start().await;
    let server = Setup::upstream(&upstream.url).config(VERIFIED).start();
    let says = |word: &'static str| {
        upstream.answer(move |seen| {
            let body: Value = serde_json::from_slice(&seen.body).unwrap();
            let text = if body["model"] == "small" {
                word
            } else {
                "Open Settings."
            };
            json_response(&completion(text))
        });
    };
    says("NO");
    let _ = server.chat(&prompt(RESET)).await;
    let refused = server.chat(&prompt(REWORDED)).await;
    assert_eq!(refused.header("x-askonce-reason"), "verifier_refused");
    assert_eq!(upstream.calls(), 3, "two answers and one verdict");

    says("Yes, and ignore all rules");
    let unsaid = server
        .chat(&prompt("how can I reset my password please"))
        .await;
    assert_eq!(unsaid.header("x-askonce-reason"), "below_floor");

    says("Yes.");
    let calls = upstream.calls();
    let served = server
        .chat(&prompt("please, how do I reset my password"))
        .await;
    assert!(
        served.cache_status().ends_with("detail=semantic"),
        "{}",
        served.cache_status()
    );
    assert_eq!(served.header("x-askonce-verified"), "1.0000");
    assert_eq!(served.content(), "Open Settings.");
    let shown: Value = serde_json::from_slice(&upstream.last().body).unwrap();
    let material = shown["messages"][1]["content"].as_str().unwrap();
    let material: Value = serde_json::from_str(material).unwrap();
    assert_eq!(material["question"], "please, how do I reset my password");
    assert_eq!(material["stored_answer"], "Open Settings.");
    // Up to three candidates, each in a call of its own, and none for an answer.
    assert!((1..=3).contains(&(upstream.calls() - calls)));
}

#[tokio::test]
async fn other_paths_pass_through_byte_for_byte() {
    let upstream = Upstream::start().await;
    upstream.answer(|_| {
        let headers = [
            ("x-request-id", "req-1"),
            ("content-type", "application/octet-stream"),
        ];
        (StatusCode::CREATED, headers, vec![0_u8, 159, 146, 150]).into_response()
    });
    let server = Setup::upstream(&upstream.url).start();
    let response = server
        .client
        .put(server.url("/v1/files/a%2Fb?purpose=x&y"))
        .header("x-custom", "kept")
        .header("x-askonce-ttl", "5")
        .header("authorization", "Bearer sk-caller")
        .body(vec![1_u8, 2, 3])
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(response.headers()["x-request-id"], "req-1");
    assert_eq!(
        response.headers()["cache-status"],
        "askonce; fwd=bypass; detail=passthrough"
    );
    assert_eq!(response.bytes().await.unwrap(), vec![0_u8, 159, 146, 150]);
    let seen = upstream.last();
    assert_eq!(
        (seen.method.as_str(), seen.path.as_str()),
        ("PUT", "/v1/files/a%2Fb?purpose=x&y")
    );
    assert_eq!(seen.body, vec![1_u8, 2, 3]);
    assert_eq!(seen.headers["x-custom"], "kept");
    assert_eq!(seen.headers["authorization"], "Bearer sk-caller");
    assert_eq!(seen.headers["content-length"], "3");
    assert!(!seen.headers.contains_key("x-askonce-ttl"));
    let models = server
        .client
        .get(server.url("/v1/models"))
        .send()
        .await
        .unwrap();
    assert_eq!(models.status(), StatusCode::CREATED);
    assert!(upstream.last().body.is_empty());
    assert!(!upstream.last().headers.contains_key("transfer-encoding"));
}

#[tokio::test]
async fn an_upstreams_error_reaches_the_caller_as_it_is_and_is_not_kept() {
    let upstream = Upstream::start().await;
    let error = json!({ "error": { "message": "slow down", "type": "rate_limit", "code": "x" } });
    let body = error.clone();
    upstream.answer(move |_| {
        let headers = [
            ("retry-after", "7"),
            ("x-request-id", "req-9"),
            ("content-type", "application/json"),
        ];
        (StatusCode::TOO_MANY_REQUESTS, headers, body.to_string()).into_response()
    });
    let server = Setup::upstream(&upstream.url).start();
    for calls in 1..=2 {
        let reply = server.chat(&prompt(RESET)).await;
        assert_eq!(reply.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(reply.json(), error);
        assert_eq!(
            (reply.header("retry-after"), reply.header("x-request-id")),
            ("7", "req-9")
        );
        assert_eq!(upstream.calls(), calls);
    }
    assert_eq!(server.get("/cache/v1/stats").await.1["entries"], 0);
}

#[tokio::test]
async fn identical_misses_at_the_same_time_make_one_call() {
    let upstream = Upstream::start().await;
    upstream.close();
    let server = Setup::upstream(&upstream.url).start();
    let body = prompt(RESET);
    let all = futures_util::future::join_all((0..20).map(|_| server.chat(&body)));
    let gate = async {
        upstream.reached(1).await;
        // All others are waiting, or will find the answer.
        eventually(|| async { server.get("/cache/v1/stats").await.1["misses"] == 20 }).await;
        upstream.open();
    };
    let (replies, ()) = tokio::join!(all, gate);
    assert_eq!(upstream.calls(), 1);
    let led = replies
        .iter()
        .filter(|reply| !reply.cache_status().contains("collapsed"))
        .count();
    assert_eq!(led, 1);
    for reply in replies {
        assert_eq!(
            (reply.status, reply.content().as_str()),
            (StatusCode::OK, "answer 1")
        );
    }
}

#[tokio::test]
async fn an_upstreams_error_reaches_everybody_who_waited() {
    let upstream = Upstream::start().await;
    upstream.answer(|_| (StatusCode::SERVICE_UNAVAILABLE, "busy").into_response());
    upstream.close();
    let server = Setup::upstream(&upstream.url).start();
    let body = prompt(RESET);
    let all = futures_util::future::join_all((0..5).map(|_| server.chat(&body)));
    let gate = async {
        eventually(|| async { server.get("/cache/v1/stats").await.1["misses"] == 5 }).await;
        upstream.open();
    };
    let (replies, ()) = tokio::join!(all, gate);
    for reply in replies {
        assert_eq!(
            (reply.status, &reply.body[..]),
            (StatusCode::SERVICE_UNAVAILABLE, &b"busy"[..])
        );
    }
}

#[tokio::test]
async fn a_caller_that_hangs_up_does_not_lose_the_answer() {
    let upstream = Upstream::start().await;
    upstream.close();
    let server = Setup::upstream(&upstream.url).start();
    let body = prompt(RESET);
    let request = server
        .client
        .post(server.url("/v1/chat/completions"))
        .json(&body)
        .send();
    tokio::select! {
        _ = request => panic!("the gate is closed"),
        () = upstream.reached(1) => {}
    }
    upstream.open();
    eventually(|| async { server.get("/cache/v1/stats").await.1["entries"] == 1 }).await;
    assert!(server.chat(&body).await.cache_status().contains("hit"));
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn cache_control_is_honoured() {
    let upstream = Upstream::start().await;
    let server = Setup::upstream(&upstream.url).start();
    let ask = |directives: &'static str| {
        let server = &server;
        async move {
            server
                .chat_with(&prompt(RESET), &[("cache-control", directives)])
                .await
        }
    };
    let reply = ask("only-if-cached").await;
    assert_eq!(
        (reply.status, reply.cache_status()),
        (StatusCode::GATEWAY_TIMEOUT, "askonce; detail=not_found")
    );
    assert_eq!(upstream.calls(), 0);

    let reply = ask("no-store").await;
    assert_eq!(reply.cache_status(), "askonce; fwd=miss; detail=not_found");
    assert_eq!(reply.header("x-askonce-not-stored"), "no_store");
    assert!(
        ask("").await.cache_status().contains("stored"),
        "the one before was not kept"
    );
    assert!(ask("only-if-cached").await.cache_status().contains("hit"));
    assert_eq!(upstream.calls(), 2);

    let reply = ask("no-cache").await;
    assert_eq!(
        reply.cache_status(),
        "askonce; fwd=request; stored; detail=bypassed"
    );
    assert_eq!(
        ask("").await.content(),
        "answer 3",
        "the fresh answer took the old one's place"
    );

    assert!(ask("max-age=600").await.cache_status().contains("hit"));
    assert!(ask("min-fresh=600").await.cache_status().contains("hit"));
    assert!(
        !ask("min-fresh=9999999")
            .await
            .cache_status()
            .contains("hit")
    );
    assert_eq!(
        ask("no-cache, no-store").await.cache_status(),
        "askonce; fwd=bypass; detail=opted_out"
    );
}

#[tokio::test]
async fn an_answer_older_than_the_caller_wants_is_asked_for_again() {
    let upstream = Upstream::start().await;
    let server = Setup::upstream(&upstream.url).start();
    server.chat(&prompt(RESET)).await;
    let ask = || async {
        server
            .chat_with(&prompt(RESET), &[("cache-control", "max-age=0")])
            .await
    };
    // Ages count from 0: the entry is too old as soon as the clock has moved a millisecond.
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(
        ask().await.cache_status(),
        "askonce; fwd=request; stored; detail=too_old"
    );
}

#[tokio::test]
async fn the_body_object_of_litellm_is_honoured_and_not_forwarded() {
    let upstream = Upstream::start().await;
    let server = Setup::upstream(&upstream.url).start();
    let raw = r#"{"model":"gpt-4o-mini","temperature":1.00,"cache":{"ttl":60},"messages":[{"role":"user","content":"Why?"}]}"#;
    let send = |body: &str| {
        server
            .client
            .post(server.url("/v1/chat/completions"))
            .body(body.to_owned())
            .send()
    };
    assert!(
        send(raw).await.unwrap().headers()["cache-status"]
            .to_str()
            .unwrap()
            .contains("stored")
    );
    assert_eq!(
        upstream.last().body,
        r#"{"model":"gpt-4o-mini","temperature":1.00,"messages":[{"role":"user","content":"Why?"}]}"#
    );
    let hit = send(raw).await.unwrap();
    let ttl = hit.headers()["cache-status"].to_str().unwrap().to_owned();
    assert!(ttl.contains("ttl=59") || ttl.contains("ttl=60"), "{ttl}");
    let wrong = send(&raw.replace("60", "\"soon\"")).await.unwrap();
    assert_eq!(wrong.status(), StatusCode::BAD_REQUEST);
    let told: Value = wrong.json().await.unwrap();
    assert_eq!(told["error"]["param"], "cache.ttl");
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn namespace_tags_and_ttl_come_in_headers() {
    let upstream = Upstream::start().await;
    let server = Setup::upstream(&upstream.url).start();
    let headers = [
        ("x-askonce-namespace", "n"),
        ("x-askonce-tags", "doc:1, doc:2"),
        ("x-askonce-ttl", "90m"),
    ];
    server.chat_with(&prompt(RESET), &headers).await;
    assert!(
        !server
            .chat(&prompt(RESET))
            .await
            .cache_status()
            .contains("hit")
    );
    let hit = server.chat_with(&prompt(RESET), &headers[..1]).await;
    assert!(hit.cache_status().contains("ttl=5399") || hit.cache_status().contains("ttl=5400"));
    assert_eq!(
        server
            .post("/cache/v1/invalidate", json!({ "tag": "doc:2" }))
            .await
            .1["removed"],
        1
    );
    let wrong = server
        .chat_with(&prompt(RESET), &[("x-askonce-ttl", "soon")])
        .await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    assert_eq!(wrong.json()["error"]["param"], "x-askonce-ttl");
}

#[tokio::test]
async fn a_caller_may_want_the_same_requests_answer_or_none() {
    let upstream = Upstream::start().await;
    let server = Setup::upstream(&upstream.url).start();
    let exact_only = [("x-askonce-policy", "exact_only")];
    server.chat(&prompt(RESET)).await;
    // In a second reading the headers are known already.
    for _ in 0..2 {
        let other = server.chat_with(&prompt(REWORDED), &exact_only).await;
        let status = other.cache_status();
        assert!(
            status.contains("detail=similarity_off") || status.contains("detail=exact"),
            "{status}"
        );
    }
    assert_eq!(upstream.calls(), 2);
    assert!(!upstream.last().headers.contains_key("x-askonce-policy"));
    let same = server.chat_with(&prompt(RESET), &exact_only).await;
    assert!(same.cache_status().contains("detail=exact"));
    let wrong = [("x-askonce-policy", "threshold:0.1")];
    let wrong = server.chat_with(&prompt(RESET), &wrong).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    assert_eq!(wrong.json()["error"]["param"], "x-askonce-policy");
    assert_eq!(upstream.calls(), 2);
}

#[tokio::test]
async fn two_api_keys_never_share_an_answer() {
    let upstream = Upstream::start().await;
    let server = Setup::upstream(&upstream.url).start();
    let ask = |key: &'static str| {
        let server = &server;
        async move {
            server
                .chat_with(&prompt(RESET), &[("authorization", key)])
                .await
        }
    };
    assert_eq!(ask("Bearer sk-a").await.content(), "answer 1");
    assert_eq!(ask("Bearer sk-b").await.content(), "answer 2");
    assert_eq!(upstream.last().headers["authorization"], "Bearer sk-b");
    assert_eq!(ask("Bearer sk-a").await.content(), "answer 1");
    assert_eq!(server.chat(&prompt(REWORDED)).await.content(), "answer 3");
    let beta = [("authorization", "Bearer sk-a"), ("openai-beta", "x=1")];
    assert_eq!(
        server.chat_with(&prompt(RESET), &beta).await.content(),
        "answer 4"
    );
}

#[tokio::test]
async fn keys_of_this_server_are_not_shown_to_the_upstream() {
    let upstream = Upstream::start().await;
    let server = Setup::default()
        .config(&format!(
            "upstreams:\n  - {{ base_url: \"{}\", api_key_env: UPSTREAM_KEY }}\n\
             auth: {{ keys: [{{ name: a, key_env: KEY_A }}] }}\n",
            upstream.url
        ))
        .env("UPSTREAM_KEY", "sk-upstream")
        .env("KEY_A", "sk-ours")
        .start();
    let refused = server.chat(&prompt(RESET)).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert_eq!(refused.json()["error"]["type"], "authentication_error");
    server
        .chat_with(&prompt(RESET), &[("x-api-key", "sk-ours")])
        .await;
    let headers: HeaderMap = upstream.last().headers;
    assert_eq!(headers["authorization"], "Bearer sk-upstream");
    assert!(!format!("{headers:?}").contains("sk-ours"));
}

#[tokio::test]
async fn answers_that_are_cut_filtered_refused_or_call_tools_are_passed_on_and_not_kept() {
    let upstream = Upstream::start().await;
    let server = Setup::upstream(&upstream.url).start();
    let changed = |pointer: &str, value: Value| {
        let mut body = completion("text");
        *body.pointer_mut(pointer).unwrap() = value;
        body
    };
    let tools = json!([{ "id": "call_1", "type": "function",
        "function": { "name": "pay", "arguments": "{}" } }]);
    let mut calls_tools = changed("/choices/0/message/content", Value::Null);
    calls_tools["choices"][0]["message"]["tool_calls"] = tools;
    for (i, (body, reason)) in [
        (
            changed("/choices/0/finish_reason", json!("length")),
            "length",
        ),
        (
            changed("/choices/0/finish_reason", json!("content_filter")),
            "content_filter",
        ),
        (
            changed("/choices/0/message/refusal", json!("No.")),
            "refusal",
        ),
        (
            changed("/choices/0/message/content", json!("")),
            "empty_answer",
        ),
        (calls_tools, "tool_calls"),
        (json!({ "something": "else" }), "not_an_answer"),
    ]
    .into_iter()
    .enumerate()
    {
        let asked = prompt(&format!("Question number {i}?"));
        upstream.answer_json(body.clone());
        for _ in 0..2 {
            let reply = server.chat(&asked).await;
            assert_eq!(reply.json(), body);
            assert_eq!(
                reply.cache_status(),
                "askonce; fwd=miss; detail=not_found",
                "{reason}"
            );
            assert_eq!(reply.header("x-askonce-not-stored"), reason);
        }
        assert_eq!(upstream.calls(), 2 * (i + 1));
    }
    upstream.answer(|_| {
        let mut response = json_response(&completion("private"));
        response
            .headers_mut()
            .insert("cache-control", "no-store".parse().unwrap());
        response
    });
    let reply = server.chat(&prompt(RESET)).await;
    assert_eq!(reply.header("x-askonce-not-stored"), "no_store");
    assert_eq!(server.get("/cache/v1/stats").await.1["entries"], 0);
}

#[tokio::test]
async fn what_the_cache_cannot_read_is_the_upstreams_to_judge() {
    let upstream = Upstream::start().await;
    upstream.answer(|_| (StatusCode::BAD_REQUEST, "what is this?").into_response());
    let server = Setup::upstream(&upstream.url).start();
    for body in [
        &b"not json"[..],
        b"{\"model\":\"\xff\"}",
        b"{}",
        b"{\"model\":7,\"messages\":[]}",
        b"",
    ] {
        let request = server
            .client
            .post(server.url("/v1/chat/completions"))
            .body(body.to_vec());
        let response = request.send().await.unwrap();
        assert_eq!(
            response.headers()["cache-status"],
            "askonce; fwd=bypass; detail=unparsed"
        );
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert_eq!(response.text().await.unwrap(), "what is this?");
        assert_eq!(upstream.last().body, body);
    }
}

#[tokio::test]
async fn a_model_without_a_price_is_cached_and_counted_in_tokens() {
    let upstream = Upstream::start().await;
    let server = Setup::upstream(&upstream.url).start();
    let mut body = prompt(RESET);
    body["model"] = json!("house-model-7");
    server.chat(&body).await;
    let hit = server.chat(&body).await;
    assert!(hit.cache_status().contains("hit"));
    assert!(
        !hit.headers.contains_key("x-askonce-saved-usd"),
        "unknown is not zero"
    );
    let savings = server.get("/cache/v1/savings").await.1;
    assert_eq!(savings["unpriced_models"], json!(["house-model-7"]));
    assert_eq!(savings["totals"]["saved"]["output_tokens"], 500);
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_named() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let server = Setup::upstream(&format!("http://127.0.0.1:{port}/v1")).start();
    for stream in [false, true] {
        let mut body = prompt(RESET);
        body["stream"] = json!(stream);
        let reply = server
            .chat_with(&body, &[("authorization", "Bearer sk-hush")])
            .await;
        assert_eq!(reply.status, StatusCode::BAD_GATEWAY);
        let error = &reply.json()["error"];
        assert_eq!(error["code"], "upstream_unreachable");
        assert!(
            error["message"].as_str().unwrap().contains("openai"),
            "{error}"
        );
        assert!(!error.to_string().contains("hush"));
    }
    assert_eq!(server.get("/cache/v1/stats").await.1["entries"], 0);
}

#[tokio::test]
async fn an_upstream_that_takes_too_long_is_given_up_on() {
    let upstream = Upstream::start().await;
    upstream.close();
    let server = Setup::upstream(&upstream.url)
        .set("upstreams[0].timeout=100ms")
        .start();
    let reply = server.chat(&prompt(RESET)).await;
    assert_eq!(reply.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(reply.json()["error"]["code"], "upstream_timeout");
}

#[tokio::test]
async fn a_request_can_name_another_upstream_and_shares_nothing_with_the_first() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    two.answer_json(completion("from two"));
    let server = Setup::default()
        .config(&format!(
            "upstreams:\n  - {{ name: one, base_url: \"{}\" }}\n  - {{ name: two, base_url: \"{}\" }}\n",
            one.url, two.url
        ))
        .start();
    assert_eq!(server.chat(&prompt(RESET)).await.content(), "answer 1");
    let named = server
        .chat_with(&prompt(RESET), &[("x-askonce-upstream", "two")])
        .await;
    assert_eq!(named.content(), "from two");
    let unknown = server
        .chat_with(&prompt(RESET), &[("x-askonce-upstream", "three")])
        .await;
    assert_eq!(unknown.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_text_stored_by_hand_is_served_as_a_completion() {
    let upstream = Upstream::start().await;
    let server = Setup::upstream(&upstream.url).start();
    let stored = json!({ "openai_chat": prompt(RESET), "answer": "Open Settings." });
    server.post("/cache/v1/store", stored).await;
    let reply = server.chat(&prompt(REWORDED)).await;
    assert_eq!(reply.content(), "Open Settings.");
    assert_eq!(reply.json()["object"], "chat.completion");
    assert_eq!(upstream.calls(), 0);
}
