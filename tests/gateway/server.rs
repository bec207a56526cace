//! In front of handlers.

use std::time::Duration;

use askonce::gateway::Gateway;
use askonce::replay::SseReader;
use askonce::{Protocol, Scope, SemanticCache};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::Response;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::upstream::Upstream;

const CHAT: &str = "/v1/chat/completions";
const PATHS: [&str; 4] = [CHAT, "/v1/responses", "/v1/completions", "/v1/messages"];

fn front() -> (Router, Upstream) {
    let upstream = Upstream::default();
    let gateway = Gateway::new(SemanticCache::in_memory().unwrap());
    (upstream.router().layer(gateway), upstream)
}

fn asking(path: &str, question: &str, stream: bool) -> Value {
    let mut body = match path.rsplit('/').next() {
        Some("responses") => json!({ "model": "m", "input": question, "store": false }),
        Some("completions") if path != CHAT => json!({ "model": "m", "prompt": question }),
        _ => {
            json!({ "model": "m", "max_tokens": 9, "messages": [{ "role": "user", "content": question }] })
        }
    };
    if stream {
        body["stream"] = json!(true);
    }
    body
}

async fn post(front: &Router, path: &str, headers: &[(&str, &str)], body: &Value) -> Response {
    let mut request = Request::post(path).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::from(body.to_string())).unwrap();
    front.clone().oneshot(request).await.unwrap()
}

async fn ask(front: &Router, path: &str, question: &str, stream: bool) -> Answer {
    read(post(front, path, &[], &asking(path, question, stream)).await).await
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn cache_status(&self) -> &str {
        self.headers["cache-status"].to_str().unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The document that the answer is or adds up to, without what is its own.
    fn document(&self, path: &str, stream: bool) -> Value {
        let mut document = match stream {
            false => self.json(),
            true => {
                let frames = SseReader::default().feed(self.body.as_bytes()).unwrap();
                let events = frames.iter().filter_map(|frame| frame.event().cloned());
                let protocol = Protocol::of_path(path).unwrap();
                let recording = askonce::replay::Recording::new(protocol, events.collect());
                recording.document().unwrap()
            }
        };
        let fields = document.as_object_mut().unwrap();
        for own in ["id", "created", "created_at", "usage"] {
            fields.remove(own);
        }
        document
    }
}

async fn read(response: Response) -> Answer {
    let (head, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    Answer {
        status: head.status,
        headers: head.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

#[tokio::test]
async fn an_answer_is_called_for_once_and_given_in_either_form() {
    for path in PATHS {
        for first_streams in [false, true] {
            let (front, upstream) = front();
            let question = "What is the capital of France?";
            let fresh = ask(&front, path, question, first_streams).await;
            assert_eq!(fresh.status, StatusCode::OK);
            assert!(fresh.cache_status().contains("fwd=miss"), "{path}");
            assert!(!fresh.headers.contains_key("age"));
            if !first_streams {
                assert_eq!(fresh.headers["x-request-id"], "req-1");
                assert_eq!(fresh.json(), crate::upstream::document(path, 1));
            }
            for stream in [false, true] {
                let hit = ask(&front, path, question, stream).await;
                let status = hit.cache_status();
                assert!(
                    status.contains("; hit; ") && status.contains("exact"),
                    "{path}: {status}"
                );
                assert_eq!(hit.headers["age"], "0");
                let kind = hit.headers["content-type"].to_str().unwrap();
                assert_eq!(kind.starts_with("text/event-stream"), stream, "{path}");
                assert_eq!(
                    hit.document(path, stream),
                    fresh.document(path, first_streams),
                    "{path}, first streamed: {first_streams}, then streamed: {stream}"
                );
            }
            let similar = ask(&front, path, "what's the capital of France", false).await;
            assert!(similar.cache_status().contains("semantic"), "{path}");
            assert_eq!(upstream.calls(), 1, "{path}");
        }
    }
}

#[tokio::test]
async fn a_stream_is_passed_on_while_it_comes_and_kept_when_its_caller_goes_away() {
    let (front, upstream) = front();
    let gate = upstream.close();
    let body = asking(CHAT, "What is the capital of France?", true);
    let mut first = post(&front, CHAT, &[], &body)
        .await
        .into_body()
        .into_data_stream();
    let begun = first.next().await.unwrap().unwrap();
    assert!(begun.starts_with(b"data: {"));
    // One more reads what is under way, one goes away.
    let second = post(&front, CHAT, &[], &body).await;
    assert!(
        second.headers()["cache-status"]
            .to_str()
            .unwrap()
            .contains("collapsed")
    );
    drop(first);
    gate.notify_one();
    let second = read(second).await;
    assert!(second.body.ends_with("data: [DONE]\n\n"), "{}", second.body);
    drop(second);
    let hit = wait_for_hit(&front).await;
    assert_eq!(
        hit.json()["choices"][0]["message"]["content"],
        "It is Paris."
    );
    assert_eq!(upstream.calls(), 1);
}

async fn wait_for_hit(front: &Router) -> Answer {
    for _ in 0..200 {
        let body = asking(CHAT, "What is the capital of France?", false);
        let headers = [("cache-control", "only-if-cached")];
        let answer = read(post(front, CHAT, &headers, &body).await).await;
        if answer.status == StatusCode::OK {
            return answer;
        }
        assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the answer was not kept");
}

#[tokio::test]
async fn many_who_ask_at_once_are_answered_by_one_call() {
    let (front, upstream) = front();
    let gate = upstream.close();
    let asking = (0..50).map(|i| {
        let front = front.clone();
        tokio::spawn(async move { ask(&front, CHAT, "one for all?", i % 2 == 0).await })
    });
    let asking: Vec<_> = asking.collect();
    while upstream.calls() == 0 {
        tokio::task::yield_now().await;
    }
    gate.notify_one();
    for asked in asking {
        let answer = asked.await.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.body.contains("Paris"));
    }
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn what_is_no_call_passes_untouched_and_what_is_not_for_the_cache_says_why() {
    let (front, upstream) = front();
    for path in ["/v1/models", "/v1/messages/count_tokens"] {
        let answer = read(post(&front, path, &[], &json!({ "input": "x" })).await).await;
        assert!(!answer.headers.contains_key("cache-status"), "{path}");
    }
    let get = Request::get(CHAT).body(Body::empty()).unwrap();
    let got = front.clone().oneshot(get).await.unwrap();
    assert!(!got.headers().contains_key("cache-status"));
    for (path, body, why) in [
        (CHAT, json!({ "model": "m" }), "unparsed"),
        (CHAT, json!([1]), "unparsed"),
        (
            "/v1/responses",
            json!({ "model": "m", "input": "x", "background": true }),
            "background",
        ),
        (
            "/v1/responses",
            json!({ "model": "m", "input": "x", "conversation": "conv_1" }),
            "provider_state",
        ),
        (
            CHAT,
            json!({ "model": "m", "cache": { "use-cache": false },
                "messages": [{ "role": "user", "content": "x" }] }),
            "opted_out",
        ),
    ] {
        for _ in 0..2 {
            let before = upstream.calls();
            let answer = read(post(&front, path, &[], &body).await).await;
            assert_eq!(
                answer.cache_status(),
                format!("askonce; fwd=bypass; detail={why}")
            );
            assert_eq!(upstream.calls(), before + 1);
        }
        let (_, seen) = upstream.seen();
        assert!(seen.get("cache").is_none());
    }
}

#[tokio::test]
async fn callers_share_nothing_unless_their_scope_says_so() {
    let (front, upstream) = front();
    let body = asking(CHAT, "mine?", false);
    let who = |key| [("authorization", key)];
    for (key, status, calls) in [
        ("Bearer a", "fwd=miss", 1),
        ("Bearer a", "exact", 1),
        ("Bearer b", "fwd=miss", 2),
    ] {
        let answer = read(post(&front, CHAT, &who(key), &body).await).await;
        assert!(answer.cache_status().contains(status), "{key}");
        assert_eq!(upstream.calls(), calls);
    }
    let upstream = Upstream::default();
    let shared = Gateway::new(SemanticCache::in_memory().unwrap())
        .scope(|_| Scope::shared("all"))
        .identify(|head, request| match head.headers.get("x-edition") {
            Some(edition) => request.param("edition", String::from_utf8_lossy(edition.as_bytes())),
            None => request,
        });
    let shared = upstream.router().layer(shared);
    for (key, edition, calls) in [("a", "1", 1), ("b", "1", 1), ("b", "2", 2)] {
        let headers = [("authorization", key), ("x-edition", edition)];
        post(&shared, CHAT, &headers, &body).await;
        assert_eq!(upstream.calls(), calls);
    }
    // Another place is another provider, perhaps.
    post(
        &shared,
        "/other/v1/chat/completions",
        &[("x-edition", "1")],
        &body,
    )
    .await;
    assert_eq!(upstream.calls(), 3);
}

#[tokio::test]
async fn headers_for_the_cache_do_what_they_say_and_stay_with_it() {
    let (front, upstream) = front();
    let body = asking(CHAT, "again?", false);
    let headers = [
        ("x-askonce-ttl", "1h"),
        ("x-askonce-tags", "doc:1"),
        ("accept-encoding", "br"),
        ("if-none-match", "x"),
        ("x-own", "yes"),
    ];
    let fresh = read(post(&front, CHAT, &headers, &body).await).await;
    assert!(fresh.cache_status().contains("stored"));
    let (seen, _) = upstream.seen();
    for name in [
        "x-askonce-ttl",
        "x-askonce-tags",
        "accept-encoding",
        "if-none-match",
    ] {
        assert!(!seen.contains_key(name), "{name}");
    }
    assert_eq!(seen["x-own"], "yes");
    let hit = ask(&front, CHAT, "again?", false).await;
    assert!(
        hit.cache_status().contains("ttl=3"),
        "{}",
        hit.cache_status()
    );
    for (name, value, says) in [
        ("cache-control", "no-cache", "fwd=request; stored"),
        ("cache-control", "max-age=100", "hit"),
        ("x-askonce-namespace", "other", "fwd=miss"),
    ] {
        let answer = read(post(&front, CHAT, &[(name, value)], &body).await).await;
        assert!(
            answer.cache_status().contains(says),
            "{name}: {}",
            answer.cache_status()
        );
    }
    let wrong = read(post(&front, CHAT, &[("x-askonce-ttl", "soon")], &body).await).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    assert_eq!(wrong.json()["error"]["param"], "x-askonce-ttl");
    let wrong = json!({ "model": "m", "max_tokens": 1, "cache": { "ttl": "x" },
        "messages": [{ "role": "user", "content": "x" }] });
    let wrong = read(post(&front, "/v1/messages", &[], &wrong).await).await;
    assert_eq!(wrong.json()["type"], "error");
}

#[tokio::test]
async fn a_refusal_of_the_provider_is_passed_on_and_not_kept() {
    let (front, upstream) = front();
    for calls in 1..3 {
        let answer = ask(&front, CHAT, "please fail", false).await;
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(answer.headers["retry-after"], "7");
        assert_eq!(answer.json()["error"]["message"], "too many");
        assert_eq!(upstream.calls(), calls);
    }
}

#[tokio::test]
async fn a_body_or_an_answer_that_is_too_large_is_refused() {
    let upstream = Upstream::default();
    let gateway = || Gateway::new(SemanticCache::in_memory().unwrap());
    let narrow = upstream.router().layer(gateway().max_body_bytes(100));
    let answer = ask(&narrow, CHAT, &"long ".repeat(50), false).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(upstream.calls(), 0);
    let narrow = upstream.router().layer(gateway().max_answer_bytes(10));
    let answer = ask(&narrow, CHAT, "short", false).await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert_eq!(answer.json()["error"]["code"], "upstream_failed");
}

#[tokio::test]
async fn a_deployment_in_the_path_names_the_model() {
    let (front, upstream) = front();
    let path = "/openai/deployments/gpt-4o/chat/completions";
    let body = json!({ "messages": [{ "role": "user", "content": "Hello there, who are you?" }] });
    for status in ["fwd=miss; stored", "exact"] {
        let answer = read(post(&front, path, &[], &body).await).await;
        assert!(answer.cache_status().contains(status));
    }
    assert_eq!(upstream.seen().1, body);
}

#[tokio::test]
async fn embeddings_are_kept_input_by_input() {
    const PATH: &str = "/v1/embeddings";
    let (front, upstream) = front();
    let asked = async |inputs: Value, headers: &[(&str, &str)]| {
        let body = json!({ "model": "m", "input": inputs });
        read(post(&front, PATH, headers, &body).await).await
    };
    let vectors = |answer: &Answer| {
        let data = answer.json()["data"].as_array().unwrap().clone();
        data.iter()
            .map(|item| item["embedding"][0].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    let first = asked(json!(["a", "bb"]), &[]).await;
    assert_eq!(vectors(&first), [1, 2]);
    assert!(
        first.cache_status().contains("fwd=miss; stored"),
        "{}",
        first.cache_status()
    );
    let second = asked(json!(["bb", "ccc", "a", "ccc"]), &[]).await;
    assert_eq!(vectors(&second), [2, 3, 1, 3]);
    assert_eq!(upstream.seen().1["input"], json!(["ccc"]));
    assert_eq!(second.json()["usage"]["prompt_tokens"], 1);
    assert_eq!(
        second.json()["usage"]["askonce"],
        json!({ "cached": 2, "inputs": 4 })
    );
    let kept = asked(json!(["ccc", "a"]), &[("cache-control", "only-if-cached")]).await;
    assert_eq!(vectors(&kept), [3, 1]);
    assert!(
        kept.cache_status().contains("hit"),
        "{}",
        kept.cache_status()
    );
    let none = asked(json!(["new", "a"]), &[("cache-control", "only-if-cached")]).await;
    assert_eq!(none.status, StatusCode::GATEWAY_TIMEOUT);
    assert!(none.body.contains("1 of the inputs"), "{}", none.body);
    assert_eq!(upstream.calls(), 2);
    let failed = asked(json!(["please fail", "a"]), &[]).await;
    assert_eq!(failed.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(failed.headers["retry-after"], "7");
    let fresh = asked(json!(["a"]), &[("cache-control", "no-cache, no-store")]).await;
    assert!(
        fresh.cache_status().contains("bypass"),
        "{}",
        fresh.cache_status()
    );
    assert_eq!(upstream.calls(), 4);
}

#[tokio::test]
async fn the_usage_of_a_stream_is_asked_for_and_given_to_those_who_ask() {
    for path in [CHAT, "/v1/completions"] {
        let (front, upstream) = front();
        let mut body = asking(path, "What is the capital of France?", true);
        let fresh = read(post(&front, path, &[], &body).await).await;
        assert_eq!(
            upstream.seen().1["stream_options"],
            json!({ "include_usage": true })
        );
        let told = |answer: &Answer| answer.body.contains("prompt_tokens");
        assert!(!told(&fresh), "{path}: {}", fresh.body);
        let hit = read(post(&front, path, &[], &body).await).await;
        assert!(
            hit.cache_status().contains("exact") && !told(&hit),
            "{path}: {}",
            hit.body
        );
        body["stream_options"] = json!({ "include_usage": true });
        let hit = read(post(&front, path, &[], &body).await).await;
        assert!(
            hit.cache_status().contains("exact") && told(&hit),
            "{path}: {}",
            hit.body
        );
        assert!(
            hit.body.contains("\"prompt_tokens\":5"),
            "the provider's: {}",
            hit.body
        );
        assert_eq!(upstream.calls(), 1);
    }
    let upstream = Upstream::default();
    let gateway = Gateway::new(SemanticCache::in_memory().unwrap()).stream_usage(false);
    let front = upstream.router().layer(gateway);
    ask(&front, CHAT, "What is the capital of France?", true).await;
    assert!(upstream.seen().1.get("stream_options").is_none());
}
