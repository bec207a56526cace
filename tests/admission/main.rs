//! What may be kept, and how far it is shared: through the engine's public API, whatever way an answer
//! comes in.

mod detectors;
mod principals;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use askonce::admit::{AdmissionConfig, QuotaConfig, Refused};
use askonce::backend::ByteSize;
use askonce::cache::NotStored;
use askonce::savings::Usage;
use askonce::{
    Answer, Config, Fill, Request, Scope, SemanticCache, Source, StoreOptions, StoreOutcome,
};
use serde_json::{Value, json};
use support::{answer_to, ask, builder, clock};

/// A cache with these rules, and its clock.
async fn cache_with(
    admission: AdmissionConfig,
) -> (std::sync::Arc<askonce::clock::ManualClock>, SemanticCache) {
    let clock = clock();
    let config = Config {
        admission,
        ..Config::default()
    };
    let cache = builder(&clock).config(&config).build().await.unwrap();
    (clock, cache)
}

/// Why an answer to `request` is not stored.
async fn refused(cache: &SemanticCache, request: &Request, answer: Answer) -> Option<NotStored> {
    match cache.store(request, answer, StoreOptions::default()).await {
        StoreOutcome::Stored { .. } => None,
        StoreOutcome::NotStored { reason } => Some(reason),
    }
}

fn chat(content: &str) -> Request {
    let body = json!({ "model": "gpt-4o", "messages": [{ "role": "user", "content": content }] });
    Request::from_openai_chat(&body, Scope::tenant("acme")).unwrap()
}

fn completion(finish: &str, message: &Value) -> Answer {
    Answer::from(
        json!({ "choices": [{ "index": 0, "finish_reason": finish, "message": message }] }),
    )
}

#[tokio::test]
async fn an_answer_that_is_not_whole_is_given_and_not_kept() {
    let (_, cache) = cache_with(AdmissionConfig::default()).await;
    let request = chat("Tell me a story.");
    let cut = completion(
        "length",
        &json!({ "role": "assistant", "content": "Once upon" }),
    );
    let told = cut.clone();
    let call = move || async move { Ok::<_, std::io::Error>(Fill::from(told)) };
    let served = cache.get_or_call(&request, call).await.unwrap();
    assert_eq!(served.answer, cut);
    let Source::Upstream { stored, .. } = served.source else {
        panic!("nothing was stored before");
    };
    let reason = NotStored::Refused(Refused::Length);
    assert_eq!(stored, StoreOutcome::NotStored { reason });
    assert!(!cache.lookup(&request).await.is_hit());
    assert_eq!(cache.stats().await.stores.get("length"), Some(&1));
}

#[tokio::test]
async fn tools_are_safe_by_setting_or_by_request() {
    let admission = AdmissionConfig {
        safe_tools: vec!["search_*".to_owned()],
        ..AdmissionConfig::default()
    };
    let (_, cache) = cache_with(admission).await;
    let call = |tool: &str| {
        let calls = json!([{ "id": "c", "type": "function",
            "function": { "name": tool, "arguments": "{}" } }]);
        completion(
            "tool_calls",
            &json!({ "content": null, "tool_calls": calls }),
        )
    };
    let why = Some(NotStored::Refused(Refused::ToolCalls));
    let request = chat("What is new?");
    assert_eq!(refused(&cache, &request, call("search_news")).await, None);
    assert_eq!(refused(&cache, &request, call("send_mail")).await, why);
    let marked = request.clone().safe_tool("send_mail");
    assert_eq!(marked.exact_key(), request.exact_key());
    assert_eq!(refused(&cache, &marked, call("send_mail")).await, None);
}

#[tokio::test]
async fn who_stores_too_much_stores_no_more_for_a_while() {
    let admission = AdmissionConfig {
        quota: QuotaConfig {
            stores_per_hour: Some(2),
            bytes: Some(ByteSize::kib(1)),
        },
        ..AdmissionConfig::default()
    };
    let (clock, cache) = cache_with(admission).await;
    let store = async |who: &str, text: &str, answer: String| {
        refused(&cache, &ask(text).principal(who), Answer::text(answer)).await
    };
    let why = Some(NotStored::Refused(Refused::Quota));
    assert_eq!(store("mallory", "one", "1".into()).await, None);
    assert_eq!(store("mallory", "two", "2".into()).await, None);
    assert_eq!(store("mallory", "three", "3".into()).await, why);
    assert_eq!(store("alice", "three", "3".into()).await, None);
    assert_eq!(answer_to(&cache, &ask("three")).await.as_deref(), Ok("3"));
    clock.advance(Duration::from_secs(60 * 60));
    assert_eq!(store("mallory", "four", "4".repeat(2_000)).await, why);
    assert_eq!(store("mallory", "four", "4".repeat(900)).await, None);
    assert_eq!(store("mallory", "five", "5".repeat(900)).await, why);
    // What is gone takes no room.
    cache.invalidate(askonce::Selector::All).await;
    assert_eq!(store("mallory", "five", "5".repeat(900)).await, None);
}

#[tokio::test]
async fn sizes_are_bounded() {
    let admission = AdmissionConfig {
        max_prompt_bytes: ByteSize::b(100),
        max_answer_bytes: ByteSize::b(100),
        ..AdmissionConfig::default()
    };
    let (_, cache) = cache_with(admission).await;
    let long = "words ".repeat(20);
    let why = Some(NotStored::Refused(Refused::PromptTooLarge));
    assert_eq!(refused(&cache, &ask(&long), Answer::text("yes")).await, why);
    let why = Some(NotStored::Refused(Refused::AnswerTooLarge));
    assert_eq!(refused(&cache, &ask("q"), Answer::text(long)).await, why);
    assert_eq!(refused(&cache, &ask("q"), Answer::text("yes")).await, None);
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_named() {
    for (yaml, words) in [
        (
            json!({ "min_principals": 0 }),
            "field: admission.min_principals",
        ),
        (json!({ "min_principals": 9 }), "allowed: 1 to 8"),
        (
            json!({ "max_answer_bytes": "0B" }),
            "field: admission.max_answer_bytes",
        ),
        (
            json!({ "safe_tools": [" "] }),
            "field: admission.safe_tools[0]",
        ),
        (
            json!({ "quota": { "stores_per_hour": 0 } }),
            "field: admission.quota.stores_per_hour",
        ),
        (
            json!({ "patterns": [{ "name": "Bad Name", "regex": "a" }] }),
            "field: admission.patterns[0].name",
        ),
        (
            json!({ "patterns": [{ "name": "open", "regex": "(a" }] }),
            "problem: unclosed group",
        ),
        (
            json!({ "patterns": [{ "name": "all", "regex": "a*" }] }),
            "matches an empty text",
        ),
        (
            json!({ "patterns": [{ "name": "huge", "regex": "\\w{500}{500}" }] }),
            "too large when compiled",
        ),
        (
            json!({ "patterns": [{ "name": "a", "regex": "a" }, { "name": "a", "regex": "b" }] }),
            "two patterns have the same name",
        ),
    ] {
        let admission: AdmissionConfig = serde_json::from_value(yaml).unwrap();
        let config = Config {
            admission,
            ..Config::default()
        };
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[tokio::test]
async fn an_approved_answer_counts_against_no_quota() {
    let admission = AdmissionConfig {
        quota: QuotaConfig {
            stores_per_hour: Some(1),
            bytes: None,
        },
        ..AdmissionConfig::default()
    };
    let (_, cache) = cache_with(admission).await;
    for text in ["one", "two", "three"] {
        let options = StoreOptions::default().usage(Usage::new(1, 1)).approved();
        let stored = cache.store(&ask(text), Answer::text("yes"), options).await;
        assert!(stored.entry().is_some(), "{text}: {stored:?}");
    }
}
