//! Hits as responses: what is kept ready must never outlive or replace what is stored.

use askonce::replay::Wanted;
use askonce::{Form, Hit, Protocol, Request, Scope, Selector, SemanticCache, StoreOptions};
use serde_json::{Value, json};

use crate::support::put_with;

const ASKED: &str = "How do I reset my password?";
const REWORDED: &str = "how can I reset my password";

fn chat(text: &str) -> Request {
    let body = json!({ "model": "gpt-4o", "messages": [{ "role": "user", "content": text }] });
    Request::read(Protocol::OpenAiChat, &body, Scope::local()).unwrap()
}

async fn hit(cache: &SemanticCache, request: &Request) -> Hit {
    cache.lookup(request).await.hit().unwrap()
}

fn given(cache: &SemanticCache, request: &Request, hit: &Hit) -> Value {
    let given = cache.replay(request, hit, Form::Whole).unwrap();
    serde_json::from_slice(&given).unwrap()
}

fn said(response: &Value) -> &str {
    response["choices"][0]["message"]["content"]
        .as_str()
        .unwrap()
}

#[tokio::test]
async fn each_hit_is_a_response_of_its_own_that_tells_how_it_was_found() {
    let cache = SemanticCache::in_memory().unwrap();
    let options = StoreOptions::default();
    let entry = put_with(&cache, &chat(ASKED), "Open Settings.", options).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        for (text, kind) in [(ASKED, "exact"), (REWORDED, "semantic")] {
            let (request, found) = (chat(text), hit(&cache, &chat(text)).await);
            let response = given(&cache, &request, &found);
            assert_eq!(said(&response), "Open Settings.");
            assert_eq!(response["usage"]["askonce"]["kind"], kind);
            assert_eq!(
                response["usage"]["askonce"]["entry"],
                json!(entry.to_string())
            );
            ids.push(response["id"].to_string());
            let stream = Form::Stream(Wanted { usage: true });
            let stream = cache.replay(&request, &found, stream).unwrap();
            let stream = String::from_utf8(stream).unwrap();
            assert!(stream.ends_with("data: [DONE]\n\n") && stream.contains(kind));
            let events = cache
                .replay_events(&request, &found, Wanted { usage: true })
                .unwrap();
            assert_eq!(events.len(), stream.matches("data: ").count());
        }
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 6, "an id was given twice");
}

#[tokio::test]
async fn what_is_replaced_or_invalidated_is_given_no_more() {
    let cache = SemanticCache::in_memory().unwrap();
    let request = chat(ASKED);
    for answer in ["First.", "Second."] {
        put_with(&cache, &request, answer, StoreOptions::default()).await;
        for _ in 0..2 {
            let found = hit(&cache, &request).await;
            assert_eq!(said(&given(&cache, &request, &found)), answer);
        }
    }
    let found = hit(&cache, &request).await;
    cache.invalidate(Selector::Entry(found.entry)).await;
    assert!(!cache.lookup(&request).await.is_hit());
    put_with(&cache, &request, "Third.", StoreOptions::default()).await;
    let found = hit(&cache, &request).await;
    assert_eq!(said(&given(&cache, &request, &found)), "Third.");
}
