//! Agents: turns without words of the user, in every protocol, and follow-ups that lean on what was
//! said before. One answer must never stand for the next turn.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use askonce::cache::NotStored;
use askonce::{
    Answer, BypassReason, Fill, HitKind, MissReason, Protocol, Request, Scope, SemanticCache,
    Source, StoreOptions, StoreOutcome,
};
use serde_json::{Value, json};

use crate::support::put_with;

const PROTOCOLS: [Protocol; 4] = [
    Protocol::OpenAiChat,
    Protocol::OpenAiResponses,
    Protocol::OpenAiCompletions,
    Protocol::AnthropicMessages,
];

fn read(protocol: Protocol, body: &Value) -> Request {
    Request::read(protocol, body, Scope::tenant("acme")).unwrap()
}

/// Turn `i` of an agent: nothing from the user, or what a tool gave, after a history of its own.
fn turn(protocol: Protocol, i: usize) -> Request {
    let task = format!("Work through ticket {} of the queue", i / 3);
    let result = format!("row {i}: done");
    let blank = ["", " ", "\n"][i % 3];
    let gave_result = i.is_multiple_of(2);
    let body = match protocol {
        Protocol::OpenAiChat => {
            let mut messages = vec![
                json!({ "role": "user", "content": task }),
                json!({ "role": "assistant", "content": null, "tool_calls": [{ "id": format!("c{i}"),
                    "type": "function", "function": { "name": "next", "arguments": "{}" } }] }),
                json!({ "role": "tool", "tool_call_id": format!("c{i}"), "content": result }),
            ];
            if !gave_result {
                messages.push(json!({ "role": "user", "content": blank }));
            }
            json!({ "model": "m", "messages": messages })
        }
        Protocol::OpenAiResponses => {
            let mut input = vec![
                json!({ "role": "user", "content": task }),
                json!({ "type": "function_call", "call_id": format!("c{i}"), "name": "next",
                    "arguments": "{}" }),
                json!({ "type": "function_call_output", "call_id": format!("c{i}"), "output": result }),
            ];
            if !gave_result {
                input.push(json!({ "role": "user", "content": [
                    { "type": "input_text", "text": blank },
                ] }));
            }
            json!({ "model": "m", "input": input })
        }
        Protocol::AnthropicMessages => {
            let last = match gave_result {
                true => json!([{ "type": "tool_result", "tool_use_id": format!("c{i}"),
                    "content": result }]),
                false => json!([{ "type": "text", "text": blank }]),
            };
            json!({ "model": "m", "max_tokens": 64, "messages": [
                { "role": "user", "content": task },
                { "role": "assistant", "content": [
                    { "type": "tool_use", "id": format!("c{i}"), "name": "next", "input": {} },
                ] },
                { "role": "user", "content": last },
            ] })
        }
        // What went before has no place of its own here.
        _ => match gave_result {
            true => json!({ "model": "m", "prompt": [task, result], "seed": i }),
            false => json!({ "model": "m", "prompt": blank, "seed": i }),
        },
    };
    read(protocol, &body)
}

#[tokio::test]
async fn no_turn_of_28_000_may_match_by_similarity() {
    let mut keys = HashSet::new();
    for protocol in PROTOCOLS {
        for i in 0..7_000 {
            let request = turn(protocol, i);
            let reason = request.eligibility().reason();
            assert!(reason.is_some(), "{protocol} {i}");
            assert_eq!(request.fuzzy_text(), None);
            keys.insert(request.exact_key());
        }
    }
    assert_eq!(keys.len(), 28_000);
}

#[tokio::test]
async fn a_turn_of_an_agent_is_answered_by_itself_alone() {
    let cache = SemanticCache::in_memory().unwrap();
    for protocol in PROTOCOLS {
        for i in 0..100 {
            let stored = turn(protocol, i);
            put_with(
                &cache,
                &stored,
                &format!("{protocol} {i}"),
                StoreOptions::default(),
            )
            .await;
        }
    }
    for protocol in PROTOCOLS {
        for i in 0..400 {
            let outcome = cache.lookup(&turn(protocol, i)).await;
            match outcome.hit() {
                Some(hit) => {
                    assert!(matches!(hit.kind, HitKind::Exact { .. }), "{:?}", hit.kind);
                    assert!(i < 100);
                    assert_eq!(hit.answer, Answer::text(format!("{protocol} {i}")));
                }
                None => assert!(i >= 100, "{protocol} {i} is stored"),
            }
        }
    }
}

#[tokio::test]
async fn a_follow_up_is_answered_within_its_own_history_only() {
    let follow_up = |protocol, person: &str, last: &str| {
        let said = format!("Who is {person}?");
        let body = match protocol {
            Protocol::OpenAiResponses => json!({ "model": "m", "input": [
                { "role": "user", "content": said },
                { "role": "assistant", "content": "A mathematician." },
                { "role": "user", "content": last },
            ] }),
            _ => json!({ "model": "m", "max_tokens": 9, "messages": [
                { "role": "user", "content": said },
                { "role": "assistant", "content": "A mathematician." },
                { "role": "user", "content": last },
            ] }),
        };
        read(protocol, &body)
    };
    let cache = SemanticCache::in_memory().unwrap();
    for protocol in [
        Protocol::OpenAiChat,
        Protocol::OpenAiResponses,
        Protocol::AnthropicMessages,
    ] {
        let stored = follow_up(protocol, "Ada", "How do I find her first book?");
        put_with(&cache, &stored, "Ada's", StoreOptions::default()).await;
        for last in [
            "How do I find her first book?",
            "how can I find her first book",
        ] {
            let own = cache.lookup(&follow_up(protocol, "Ada", last)).await;
            assert!(own.is_hit(), "{protocol}: {last}");
            let other = cache.lookup(&follow_up(protocol, "Emmy", last)).await;
            assert!(!other.is_hit(), "{protocol}: {last}");
        }
    }
}

#[tokio::test]
async fn a_question_about_an_image_is_answered_for_the_same_image_only() {
    let about = |protocol, image: &str, text: &str| {
        let body = match protocol {
            Protocol::OpenAiChat => {
                json!({ "model": "m", "messages": [{ "role": "user", "content": [
                { "type": "text", "text": text },
                { "type": "image_url", "image_url": { "url": image } },
            ] }] })
            }
            Protocol::OpenAiResponses => {
                json!({ "model": "m", "input": [{ "role": "user", "content": [
                { "type": "input_text", "text": text },
                { "type": "input_image", "image_url": image },
            ] }] })
            }
            _ => json!({ "model": "m", "max_tokens": 9, "messages": [{ "role": "user", "content": [
                { "type": "text", "text": text },
                { "type": "image", "source": { "type": "base64", "media_type": "image/png",
                    "data": image } },
            ] }] }),
        };
        read(protocol, &body)
    };
    let cache = SemanticCache::in_memory().unwrap();
    for protocol in [
        Protocol::OpenAiChat,
        Protocol::OpenAiResponses,
        Protocol::AnthropicMessages,
    ] {
        let text = "What is in this picture?";
        let stored = about(protocol, "data:1", text);
        put_with(&cache, &stored, "a cat", StoreOptions::default()).await;
        assert!(
            cache
                .lookup(&about(protocol, "data:1", text))
                .await
                .is_hit()
        );
        for (image, text) in [
            ("data:2", text),
            ("data:1", "what is in this picture"),
            ("data:2", "what is in this picture"),
        ] {
            let miss = cache.lookup(&about(protocol, image, text)).await.miss();
            assert_eq!(
                miss.unwrap().reason().as_str(),
                "non_text_part",
                "{protocol}"
            );
        }
    }
}

#[tokio::test]
async fn a_call_that_changes_what_the_provider_keeps_runs_each_time() {
    let cache = SemanticCache::in_memory().unwrap();
    let body = json!({ "model": "m", "input": "next", "conversation": "conv_1" });
    let request = read(Protocol::OpenAiResponses, &body);
    let stored = cache
        .store(&request, Answer::text("x"), StoreOptions::default())
        .await;
    let not_stored = StoreOutcome::NotStored {
        reason: NotStored::NotCacheable,
    };
    assert_eq!(stored, not_stored);
    let miss = cache.lookup(&request).await.miss().unwrap();
    let reason = MissReason::NotCacheable(BypassReason::ProviderState);
    assert_eq!(miss.reason(), reason);

    let calls = Arc::new(AtomicUsize::new(0));
    let call = || {
        let calls = Arc::clone(&calls);
        move || async move {
            tokio::task::yield_now().await;
            let turn = calls.fetch_add(1, Ordering::SeqCst);
            Ok::<_, std::io::Error>(Fill::from(Answer::text(format!("turn {turn}"))))
        }
    };
    // Nor do two at a time share a call.
    let (one, two) = tokio::join!(
        cache.get_or_call(&request, call()),
        cache.get_or_call(&request, call()),
    );
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_ne!(one.answer, two.answer);
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    assert!(matches!(one.source, Source::Upstream { .. }));
}
