//! Which protocol a path speaks.

use askonce::Protocol;

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
