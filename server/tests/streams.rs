//! Streams through the proxy: passed on while they come, stored once they are whole, and given again to whoever
//! asks, as a stream or not, in every protocol.

mod support;

use std::sync::Mutex;
use std::time::Duration;

use askonce::Protocol;
use askonce::replay::{Event, Frame, Recorder, Recording, SseReader};
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use support::{
    PATIENCE, Reply, Server, Setup, Upstream, completion, eventually, json_response, prompt,
};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

const QUESTION: &str = "How do I reset my password?";
const REWORDED: &str = "how can I reset my password";

/// A protocol, its path, a request for an answer to `text`, and an answer with more than text in it.
struct Case {
    protocol: Protocol,
    path: &'static str,
    ask: fn(&str) -> Value,
    answer: Value,
}

fn cases() -> [Case; 4] {
    let chat = json!({
        "id": "chatcmpl-upstream", "object": "chat.completion", "created": 1_700_000_000, "model": "gpt-4o-mini",
        "choices": [
            { "index": 0, "finish_reason": "stop", "message": {
                "role": "assistant", "content": "Open the settings, then choose \"Reset\".", "refusal": null,
                "reasoning_content": "They ask for steps." } },
            { "index": 1, "finish_reason": "stop", "message": {
                "role": "assistant", "content": "Ask your admin.", "refusal": null } },
        ],
        "usage": { "prompt_tokens": 12, "completion_tokens": 34, "total_tokens": 46 },
    });
    let completion = json!({
        "id": "cmpl-upstream", "object": "text_completion", "created": 1_700_000_000, "model": "gpt-3.5-turbo-instruct",
        "choices": [{ "index": 0, "text": "Open the settings.", "logprobs": null, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 12, "completion_tokens": 34, "total_tokens": 46 },
    });
    let response = json!({
        "id": "resp_upstream", "object": "response", "created_at": 1_700_000_000, "status": "completed",
        "model": "gpt-4o-mini", "store": false,
        "output": [
            { "id": "rs_1", "type": "reasoning", "summary": [{ "type": "summary_text", "text": "They ask." }] },
            { "id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [
                { "type": "output_text", "text": "Open the settings.", "annotations": [], "logprobs": [] }] },
        ],
        "usage": { "input_tokens": 12, "output_tokens": 34, "total_tokens": 46 },
    });
    let message = json!({
        "id": "msg_upstream", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5",
        "content": [
            { "type": "thinking", "thinking": "They ask for steps.", "signature": "c2ln" },
            { "type": "text", "text": "Open the settings, then choose \"Reset\"." },
        ],
        "stop_reason": "end_turn", "stop_sequence": null, "usage": { "input_tokens": 12, "output_tokens": 34 },
    });
    [
        Case {
            protocol: Protocol::OpenAiChat,
            path: "/v1/chat/completions",
            ask: |text| json!({ "model": "gpt-4o-mini", "messages": [{ "role": "user", "content": text }], "n": 2 }),
            answer: chat,
        },
        Case {
            protocol: Protocol::OpenAiCompletions,
            path: "/v1/completions",
            ask: |text| json!({ "model": "gpt-3.5-turbo-instruct", "prompt": text }),
            answer: completion,
        },
        Case {
            protocol: Protocol::OpenAiResponses,
            path: "/v1/responses",
            ask: |text| json!({ "model": "gpt-4o-mini", "input": text, "store": false }),
            answer: response,
        },
        Case {
            protocol: Protocol::AnthropicMessages,
            path: "/v1/messages",
            ask: |text| {
                json!({ "model": "claude-sonnet-4-5", "max_tokens": 500,
                "messages": [{ "role": "user", "content": text }] })
            },
            answer: message,
        },
    ]
}

/// An upstream that answers in the form that is asked for.
fn answers(upstream: &Upstream, protocol: Protocol, answer: &Value) {
    let whole = answer.clone();
    let events = Recording::of_document(protocol, answer).events().to_vec();
    upstream.answer(move |seen| {
        let asked: Value = serde_json::from_slice(&seen.body).unwrap();
        match asked["stream"] == true {
            true => sse(&events),
            false => json_response(&whole),
        }
    });
}

fn wire(events: &[Event]) -> Vec<u8> {
    events.iter().flat_map(Event::to_bytes).collect()
}

fn sse(events: &[Event]) -> Response {
    (
        [
            ("content-type", "text/event-stream"),
            ("x-request-id", "req-1"),
        ],
        wire(events),
    )
        .into_response()
}

fn events(body: &[u8]) -> Vec<Event> {
    let mut reader = SseReader::default();
    let frames = reader.feed(body).unwrap();
    frames.iter().filter_map(Frame::event).cloned().collect()
}

fn streamed(mut body: Value, stream: bool) -> Value {
    body["stream"] = stream.into();
    body
}

async fn post(server: &Server, path: &str, body: &Value) -> Reply {
    post_with(server, path, body, &[]).await
}

async fn post_with(server: &Server, path: &str, body: &Value, headers: &[(&str, &str)]) -> Reply {
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

/// A document without what every response has of its own.
fn essence(mut document: Value) -> Value {
    for name in ["id", "created", "created_at"] {
        if let Some(slot) = document.get_mut(name) {
            *slot = Value::Null;
        }
    }
    if let Some(usage) = document.get_mut("usage").and_then(Value::as_object_mut) {
        usage.remove("askonce");
    }
    document
}

fn added_up(protocol: Protocol, body: &[u8]) -> Value {
    let mut recorder = Recorder::new(protocol);
    recorder.feed(body).unwrap();
    recorder.finish().unwrap().document().unwrap()
}

fn without_usage(mut document: Value) -> Value {
    document.as_object_mut().unwrap().remove("usage");
    document
}

#[tokio::test]
async fn a_streamed_answer_is_given_to_those_who_want_it_streamed_and_to_those_who_want_it_whole() {
    for case in cases() {
        let (protocol, path) = (case.protocol, case.path);
        let upstream = Upstream::start().await;
        answers(&upstream, protocol, &case.answer);
        let server = Setup::upstream(&upstream.url).start();
        let ask = |text, stream| streamed((case.ask)(text), stream);

        let first = post(&server, path, &ask(QUESTION, true)).await;
        assert_eq!(first.status, StatusCode::OK, "{protocol}: {:?}", first.body);
        assert_eq!(
            first.cache_status(),
            "askonce; fwd=miss; detail=not_found",
            "{protocol}"
        );
        assert_eq!(first.header("content-type"), "text/event-stream");
        assert_eq!(first.header("x-request-id"), "req-1");
        let original: Vec<Event> = Recording::of_document(protocol, &case.answer)
            .events()
            .to_vec();
        let chat = matches!(protocol, Protocol::OpenAiChat | Protocol::OpenAiCompletions);
        let shown: Vec<Event> = original
            .iter()
            .filter(|event| !(chat && askonce::replay::is_usage_only(event)))
            .cloned()
            .collect();
        assert_eq!(
            events(&first.body),
            shown,
            "{protocol}: the live stream, event for event"
        );

        // The same again: the same events under another id.
        eventually(|| async {
            post(&server, path, &ask(QUESTION, true))
                .await
                .cache_status()
                .contains("hit")
        })
        .await;
        let calls = upstream.calls();
        let again = post(&server, path, &ask(QUESTION, true)).await;
        assert!(again.cache_status().ends_with("detail=exact"), "{protocol}");
        assert!(
            again
                .header("content-type")
                .starts_with("text/event-stream")
        );
        let (replayed, old) = (events(&again.body), events(&first.body));
        assert_eq!(replayed.len(), old.len(), "{protocol}");
        assert_eq!(
            replayed.iter().map(Event::name).collect::<Vec<_>>(),
            old.iter().map(Event::name).collect::<Vec<_>>()
        );
        let (new, old) = (
            added_up(protocol, &again.body),
            added_up(protocol, &first.body),
        );
        assert_ne!(new["id"], old["id"], "{protocol}");
        assert_eq!(essence(new), essence(old), "{protocol}");

        // Worded differently, and whole.
        let whole = post(&server, path, &ask(REWORDED, false)).await;
        assert!(
            whole.cache_status().ends_with("detail=semantic"),
            "{protocol}: {}",
            whole.cache_status()
        );
        assert_eq!(
            essence(whole.json()),
            essence(case.answer.clone()),
            "{protocol}"
        );
        assert_eq!(
            whole.json()["usage"]["askonce"]["cached"],
            true,
            "{protocol}"
        );
        assert_eq!(upstream.calls(), calls);
    }
}

#[tokio::test]
async fn an_answer_that_came_whole_is_streamed_to_those_who_want_that() {
    for case in cases() {
        let (protocol, path) = (case.protocol, case.path);
        let upstream = Upstream::start().await;
        answers(&upstream, protocol, &case.answer);
        let server = Setup::upstream(&upstream.url).start();
        let first = post(&server, path, &(case.ask)(QUESTION)).await;
        assert_eq!(
            first.body,
            Bytes::from(case.answer.to_string()),
            "{protocol}: byte for byte"
        );
        let hit = post(&server, path, &streamed((case.ask)(REWORDED), true)).await;
        assert!(
            hit.cache_status().contains("hit"),
            "{protocol}: {}",
            hit.cache_status()
        );
        assert!(
            events(&hit.body).len() > 3,
            "{protocol}: a stream, not one lump"
        );
        let (got, wanted) = (
            essence(added_up(protocol, &hit.body)),
            essence(case.answer.clone()),
        );
        match protocol {
            Protocol::OpenAiChat | Protocol::OpenAiCompletions => {
                assert_eq!(
                    got,
                    without_usage(wanted),
                    "{protocol}: the usage was not asked for"
                );
                let mut body = streamed((case.ask)(REWORDED), true);
                body["stream_options"] = json!({ "include_usage": true });
                let told = post(&server, path, &body).await;
                assert_eq!(
                    essence(added_up(protocol, &told.body)),
                    essence(case.answer.clone())
                );
            }
            _ => assert_eq!(got, wanted, "{protocol}"),
        }
        assert_eq!(upstream.calls(), 1);
    }
}

#[tokio::test]
async fn the_usage_is_asked_for_to_be_kept_and_shown_to_those_who_asked() {
    let upstream = Upstream::start().await;
    answers(
        &upstream,
        Protocol::OpenAiChat,
        &completion("Open the settings."),
    );
    let server = Setup::upstream(&upstream.url).start();
    let path = "/v1/chat/completions";
    let first = post(&server, path, &streamed(prompt(QUESTION), true)).await;
    let sent: Value = serde_json::from_slice(&upstream.last().body).unwrap();
    assert_eq!(sent["stream_options"], json!({ "include_usage": true }));
    assert!(!String::from_utf8_lossy(&first.body).contains("prompt_tokens"));
    let mut body = streamed(prompt(QUESTION), true);
    body["stream_options"] = json!({ "include_usage": true });
    let second = post(&server, path, &body).await;
    let usage = &added_up(Protocol::OpenAiChat, &second.body)["usage"];
    assert_eq!(
        (&usage["prompt_tokens"], &usage["askonce"]["cached"]),
        (&json!(1_000), &json!(true))
    );
    // Those who know that their server refuses the field say so.
    let upstream = Upstream::start().await;
    answers(
        &upstream,
        Protocol::OpenAiChat,
        &without_usage(completion("Open the settings.")),
    );
    let config = format!(
        "upstreams: [{{ base_url: \"{}\", stream_usage: false }}]",
        upstream.url
    );
    let server = Setup::default().config(&config).start();
    post(&server, path, &streamed(prompt(QUESTION), true)).await;
    let sent: Value = serde_json::from_slice(&upstream.last().body).unwrap();
    assert_eq!(sent.get("stream_options"), None);
    let whole = post(&server, path, &prompt(QUESTION)).await;
    assert!(
        whole.cache_status().contains("hit"),
        "{}",
        whole.cache_status()
    );
    let told = post(&server, path, &body).await;
    let usage = &added_up(Protocol::OpenAiChat, &told.body)["usage"];
    assert!(
        usage["prompt_tokens"].as_u64().unwrap() > 3,
        "counted here: {usage}"
    );
}

/// An upstream whose stream a test sends part by part.
fn by_hand(upstream: &Upstream) -> UnboundedSender<Result<Bytes, std::io::Error>> {
    let (sender, receiver) = unbounded_channel();
    let receiver = Mutex::new(Some(receiver));
    upstream.answer(move |_| {
        let receiver = receiver.lock().unwrap().take().expect("one call");
        let parts = futures_util::stream::unfold(receiver, async |mut receiver| {
            let part = receiver.recv().await?;
            Some((part, receiver))
        });
        (
            [("content-type", "text/event-stream")],
            Body::from_stream(parts),
        )
            .into_response()
    });
    sender
}

fn chunk(word: &str, finish: Option<&str>) -> Bytes {
    let chunk = json!({ "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{ "index": 0, "delta": { "content": word }, "finish_reason": finish }] });
    Bytes::from(Event::new(chunk.to_string()).to_bytes())
}

fn done() -> Bytes {
    Bytes::from_static(b"data: [DONE]\n\n")
}

fn stream_request(server: &Server) -> reqwest::RequestBuilder {
    server
        .client
        .post(server.url("/v1/chat/completions"))
        .json(&streamed(prompt(QUESTION), true))
}

#[tokio::test]
async fn parts_arrive_before_the_end_also_for_those_who_join_later_or_want_it_whole() {
    let upstream = Upstream::start().await;
    let sender = by_hand(&upstream);
    let server = Setup::upstream(&upstream.url).start();
    sender.send(Ok(chunk("Open", None))).unwrap();
    sender
        .send(Ok(Bytes::from_static(b": keep-alive\n\n")))
        .unwrap();
    let mut first = stream_request(&server).send().await.unwrap();
    assert_eq!(
        first.headers()["cache-status"],
        "askonce; fwd=miss; detail=not_found"
    );
    assert_eq!(first.chunk().await.unwrap().unwrap(), chunk("Open", None));
    assert_eq!(first.chunk().await.unwrap().unwrap(), ": keep-alive\n\n");
    // Another joins in the middle and sees all of it.
    let mut second = stream_request(&server).send().await.unwrap();
    assert_eq!(
        second.headers()["cache-status"],
        "askonce; fwd=miss; collapsed; detail=not_found"
    );
    assert_eq!(second.chunk().await.unwrap().unwrap(), chunk("Open", None));
    // And one wants it whole.
    let whole = tokio::spawn(
        server
            .client
            .post(server.url("/v1/chat/completions"))
            .json(&prompt(QUESTION))
            .send(),
    );
    // The first has seen enough.
    drop(first);
    sender.send(Ok(chunk(" it.", Some("stop")))).unwrap();
    sender.send(Ok(done())).unwrap();
    drop(sender);
    let mut rest = Vec::new();
    while let Some(part) = second.chunk().await.unwrap() {
        rest.extend_from_slice(&part);
    }
    assert!(
        rest.ends_with(&done()),
        "{}",
        String::from_utf8_lossy(&rest)
    );
    let whole: Value =
        serde_json::from_slice(&whole.await.unwrap().unwrap().bytes().await.unwrap()).unwrap();
    assert_eq!(whole["choices"][0]["message"]["content"], "Open it.");
    assert_eq!(whole["object"], "chat.completion");
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn a_client_that_goes_away_does_not_lose_the_answer() {
    let upstream = Upstream::start().await;
    let sender = by_hand(&upstream);
    let server = Setup::upstream(&upstream.url).start();
    sender.send(Ok(chunk("Open", None))).unwrap();
    let mut first = stream_request(&server).send().await.unwrap();
    first.chunk().await.unwrap().unwrap();
    drop(first);
    tokio::time::sleep(Duration::from_millis(50)).await;
    sender.send(Ok(chunk(" it.", Some("stop")))).unwrap();
    sender.send(Ok(done())).unwrap();
    drop(sender);
    eventually(|| async {
        let reply = server
            .chat_with(&prompt(QUESTION), &[("cache-control", "only-if-cached")])
            .await;
        reply.status == StatusCode::OK && reply.content() == "Open it."
    })
    .await;
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn a_stream_that_nobody_waits_for_is_given_up_in_time() {
    let upstream = Upstream::start().await;
    let sender = by_hand(&upstream);
    let server = Setup::upstream(&upstream.url)
        .set("finish_abandoned=50ms")
        .start();
    sender.send(Ok(chunk("Open", None))).unwrap();
    let mut first = stream_request(&server).send().await.unwrap();
    first.chunk().await.unwrap().unwrap();
    drop(first);
    // The connection to the upstream is closed, which its side sees when it sends on.
    tokio::time::timeout(PATIENCE, sender.closed())
        .await
        .expect("it is given up");
    upstream.answer_json(completion("fresh"));
    assert_eq!(server.chat(&prompt(QUESTION)).await.content(), "fresh");
}

#[tokio::test]
async fn what_breaks_off_breaks_off_for_the_caller_and_is_not_kept() {
    let upstream = Upstream::start().await;
    let server = Setup::upstream(&upstream.url).start();
    let sender = by_hand(&upstream);
    sender.send(Ok(chunk("Open", None))).unwrap();
    let mut response = stream_request(&server).send().await.unwrap();
    assert_eq!(
        response.chunk().await.unwrap().unwrap(),
        chunk("Open", None)
    );
    sender.send(Err(std::io::Error::other("gone"))).unwrap();
    assert!(response.chunk().await.is_err(), "not taken for an end");
    // An error in the stream is the provider's word: it arrives, the stream ends, and nothing is kept.
    let sender = by_hand(&upstream);
    let error = Bytes::from_static(b"data: {\"error\":{\"message\":\"overloaded\"}}\n\n");
    sender.send(Ok(chunk("Open", None))).unwrap();
    sender.send(Ok(error.clone())).unwrap();
    drop(sender);
    let body = stream_request(&server)
        .send()
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    assert!(body.ends_with(&error));
    // One that is cut by its length is passed on, and not kept either.
    let sender = by_hand(&upstream);
    sender.send(Ok(chunk("Open", Some("length")))).unwrap();
    sender.send(Ok(done())).unwrap();
    drop(sender);
    stream_request(&server)
        .send()
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    upstream.answer_json(completion("fresh"));
    assert_eq!(server.chat(&prompt(QUESTION)).await.content(), "fresh");
    assert_eq!(upstream.calls(), 4);
}

#[tokio::test]
async fn many_who_ask_the_same_at_once_make_one_call_also_when_the_first_hangs_up() {
    let upstream = Upstream::start().await;
    answers(
        &upstream,
        Protocol::OpenAiChat,
        &completion("Open the settings."),
    );
    let server = Setup::upstream(&upstream.url).start();
    upstream.close();
    let first = tokio::spawn(stream_request(&server).send());
    upstream.reached(1).await;
    first.abort();
    let others: Vec<_> = (0..1_000)
        .map(|i| {
            let body = streamed(prompt(QUESTION), i % 2 == 0);
            let request = server
                .client
                .post(server.url("/v1/chat/completions"))
                .json(&body);
            tokio::spawn(async move {
                let body = request.send().await.unwrap().bytes().await.unwrap();
                match i % 2 {
                    0 => added_up(Protocol::OpenAiChat, &body),
                    _ => serde_json::from_slice(&body).unwrap(),
                }
            })
        })
        .collect();
    eventually(|| async {
        let (_, stats) = server.get("/cache/v1/stats").await;
        stats["misses"].as_u64().unwrap() > 1_000
    })
    .await;
    upstream.open();
    for other in others {
        let document: Value = other.await.unwrap();
        assert_eq!(
            document["choices"][0]["message"]["content"],
            "Open the settings."
        );
    }
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn a_hit_can_be_given_at_a_pace() {
    let upstream = Upstream::start().await;
    answers(
        &upstream,
        Protocol::OpenAiChat,
        &completion("Open the settings."),
    );
    let server = Setup::upstream(&upstream.url)
        .set("stream_pace=20ms")
        .start();
    server.chat(&prompt(QUESTION)).await;
    let began = std::time::Instant::now();
    let mut hit = stream_request(&server).send().await.unwrap();
    let mut parts = 0;
    while hit.chunk().await.unwrap().is_some() {
        parts += 1;
    }
    assert!(parts > 3, "{parts}");
    assert!(began.elapsed() >= Duration::from_millis(20 * (parts - 1)));
}

#[tokio::test]
async fn an_upstream_that_refuses_a_stream_or_ignores_the_wish_is_heard() {
    let upstream = Upstream::start().await;
    let server = Setup::upstream(&upstream.url).start();
    let path = "/v1/chat/completions";
    upstream
        .answer(|_| (StatusCode::BAD_REQUEST, "{\"error\":{\"message\":\"no\"}}").into_response());
    let refused = post(&server, path, &streamed(prompt(QUESTION), true)).await;
    assert_eq!(
        (refused.status, &refused.body[..]),
        (
            StatusCode::BAD_REQUEST,
            &b"{\"error\":{\"message\":\"no\"}}"[..]
        )
    );
    upstream.answer_json(completion("Open the settings."));
    let whole = post(&server, path, &streamed(prompt(QUESTION), true)).await;
    assert_eq!(
        added_up(Protocol::OpenAiChat, &whole.body)["choices"][0]["message"]["content"],
        "Open the settings."
    );
    assert!(
        whole.cache_status().contains("stored"),
        "{}",
        whole.cache_status()
    );
}
