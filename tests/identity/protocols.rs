//! What holds for every protocol: the path that tells it, and the properties of its keys.

use askonce::{Protocol, Request, Scope};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::bodies::{
    anthropic_body, at, change, chat_body, completions_body, is_of_last_user, leaves,
    responses_body, rewritten, wild_json,
};

#[test]
fn the_end_of_a_path_tells_its_protocol() {
    use Protocol::{
        AnthropicMessages, OpenAiChat, OpenAiCompletions, OpenAiEmbeddings, OpenAiResponses,
    };
    for (path, protocol) in [
        ("/v1/chat/completions", Some(OpenAiChat)),
        ("/chat/completions", Some(OpenAiChat)),
        ("/v1beta/openai/chat/completions", Some(OpenAiChat)),
        (
            "/openai/deployments/gpt-4o/chat/completions",
            Some(OpenAiChat),
        ),
        ("/v1/completions", Some(OpenAiCompletions)),
        ("/completions", Some(OpenAiCompletions)),
        ("/v1/responses", Some(OpenAiResponses)),
        ("/v1/embeddings", Some(OpenAiEmbeddings)),
        ("/openai/deployments/ada/embeddings", Some(OpenAiEmbeddings)),
        ("/v1/messages", Some(AnthropicMessages)),
        ("/anthropic/v1/messages", Some(AnthropicMessages)),
        ("", None),
        ("/", None),
        ("/v1/models", None),
        ("/v1/messages/", None),
        ("/v1/messages/count_tokens", None),
        ("/v1/messages/batches", None),
        ("/v1/responses/resp_1", None),
        ("/v1/responses/resp_1/input_items", None),
        ("/v1/chat/completions/chatcmpl-1", None),
        ("/v1/chat/completions/chatcmpl-1/messages", None),
        ("/v1/threads/thread_1/messages", None),
        ("/v1/mychat/embeddings_of", None),
        ("/v1/notcompletions", None),
    ] {
        assert_eq!(Protocol::of_path(path), protocol, "{path}");
    }
}

#[test]
fn a_protocol_is_written_as_it_is_named() {
    for protocol in [
        Protocol::Prompt,
        Protocol::OpenAiChat,
        Protocol::OpenAiResponses,
        Protocol::OpenAiCompletions,
        Protocol::OpenAiEmbeddings,
        Protocol::AnthropicMessages,
    ] {
        let written = serde_json::to_value(protocol).unwrap();
        assert_eq!(written, protocol.as_str());
        assert_eq!(
            serde_json::from_value::<Protocol>(written).unwrap(),
            protocol
        );
    }
}

fn body() -> impl Strategy<Value = (Protocol, Value)> {
    prop_oneof![
        chat_body().prop_map(|body| (Protocol::OpenAiChat, body)),
        responses_body().prop_map(|body| (Protocol::OpenAiResponses, body)),
        completions_body().prop_map(|body| (Protocol::OpenAiCompletions, body)),
        anthropic_body().prop_map(|body| (Protocol::AnthropicMessages, body)),
    ]
}

fn read(protocol: Protocol, body: &Value) -> Request {
    Request::read(protocol, body, Scope::tenant("acme")).expect("the body is one of the protocol")
}

/// Marks on a random choice of the blocks and tools that may have one.
fn mark(body: &mut Value, picks: &[bool]) {
    let mut picks = picks.iter().cycle();
    let mut mark = |block: &mut Value| {
        if block.is_object() && *picks.next().expect("some picks") {
            block["cache_control"] = json!({ "type": "ephemeral" });
        }
    };
    fn each(list: &mut Value, f: &mut impl FnMut(&mut Value)) {
        list.as_array_mut().into_iter().flatten().for_each(f);
    }
    each(&mut body["system"], &mut mark);
    each(&mut body["tools"], &mut mark);
    each(&mut body["messages"], &mut |message| {
        each(&mut message["content"], &mut |block| {
            if block["type"] == "tool_result" {
                each(&mut block["content"], &mut mark);
            }
            mark(block);
        });
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_partition_depends_on_everything_but_the_last_user_text(
        (protocol, body) in body(), pick in any::<prop::sample::Index>(),
    ) {
        let paths = leaves(&body);
        let path = pick.get(&paths);
        let mut changed = body.clone();
        change(at(&mut changed, path));
        let Ok(after) = Request::read(protocol, &changed, Scope::tenant("acme")) else {
            return Ok(());
        };
        let before = read(protocol, &body);
        let last_user = is_of_last_user(protocol, &body, path);
        prop_assert_ne!(before.exact_key(), after.exact_key());
        prop_assert_eq!(before.partition() == after.partition(), last_user);
    }

    #[test]
    fn the_last_user_text_is_in_the_exact_key_alone(
        (protocol, body) in body(), text in r"\PC{0,20}",
    ) {
        let mut changed = body.clone();
        for path in leaves(&body) {
            if is_of_last_user(protocol, &body, &path) {
                *at(&mut changed, &path) = json!(text);
            }
        }
        let (before, after) = (read(protocol, &body), read(protocol, &changed));
        prop_assert_eq!(before.partition(), after.partition());
        prop_assert_eq!(body == changed, before.exact_key() == after.exact_key());
        prop_assert_eq!(before.protocol(), protocol);
        prop_assert!(after.last_user_text().is_empty() || after.last_user_text().contains(&text));
    }

    #[test]
    fn the_spelling_of_a_body_never_counts((protocol, body) in body(), seed in any::<u64>()) {
        let again: Value = serde_json::from_str(&rewritten(&body, seed)).expect("valid JSON");
        prop_assert_eq!(read(protocol, &body).digests(), read(protocol, &again).digests());
    }

    #[test]
    fn two_protocols_never_share_a_key(body in chat_body()) {
        let others = [Protocol::OpenAiChat, Protocol::AnthropicMessages]
            .map(|protocol| Request::read(protocol, &body, Scope::local()));
        if let [Ok(chat), Ok(messages)] = others {
            prop_assert_ne!(chat.exact_key(), messages.exact_key());
            prop_assert_ne!(chat.partition(), messages.partition());
        }
    }

    #[test]
    fn the_marks_of_the_providers_cache_never_count(
        body in anthropic_body(), picks in prop::collection::vec(any::<bool>(), 1..8),
    ) {
        let mut marked = body.clone();
        mark(&mut marked, &picks);
        marked["cache_control"] = json!({ "type": "ephemeral" });
        let (plain, marked) = (
            read(Protocol::AnthropicMessages, &body),
            read(Protocol::AnthropicMessages, &marked),
        );
        prop_assert_eq!(plain.digests(), marked.digests());
        prop_assert_eq!(plain.eligibility(), marked.eligibility());
    }

    #[test]
    fn any_json_is_read_or_refused_without_a_panic(body in wild_json(), whole in any::<bool>()) {
        for protocol in [
            Protocol::OpenAiChat,
            Protocol::OpenAiResponses,
            Protocol::OpenAiCompletions,
            Protocol::OpenAiEmbeddings,
            Protocol::AnthropicMessages,
        ] {
            let body = match whole {
                true => body.clone(),
                false => json!({
                    "model": "m", "input": body, "prompt": body, "system": body.get("content"),
                    "messages": [{ "role": "user", "content": "hi" }, body],
                }),
            };
            match Request::read(protocol, &body, Scope::local()) {
                Ok(request) => {
                    let _ = (request.digests(), request.volatility(), request.bypass());
                    let eligible = request.eligibility().is_eligible();
                    prop_assert_eq!(eligible, request.fuzzy_text().is_some());
                    let shown = format!("{request:?}");
                    prop_assert!(shown.len() < 1_000);
                }
                Err(error) => prop_assert_eq!(error.kind(), askonce::ErrorKind::InvalidRequest),
            }
        }
    }
}
