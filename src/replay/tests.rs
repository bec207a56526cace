use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;

const PROTOCOLS: [Protocol; 4] = [
    Protocol::OpenAiChat,
    Protocol::OpenAiCompletions,
    Protocol::OpenAiResponses,
    Protocol::AnthropicMessages,
];

fn object(fields: Vec<(&str, Option<Value>)>) -> Value {
    let fields = fields
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(fields.collect())
}

fn text() -> impl Strategy<Value = String> {
    "[a-zé \n\"\\\\{}]{0,40}"
}

fn maybe(value: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Option<Value>> {
    prop::option::of(value).boxed()
}

/// A tool's input: an object.
fn input() -> impl Strategy<Value = Value> {
    prop::collection::btree_map(
        "[a-z]{1,4}",
        prop_oneof![
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            text().prop_map(Value::from),
            Just(json!([null, true, { "deep": [] }])),
        ],
        0..3,
    )
    .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>()))
}

fn usage(names: [&'static str; 2]) -> impl Strategy<Value = Value> {
    (0_u64..10_000, 0_u64..10_000).prop_map(move |(input, output)| {
        json!({ names[0]: input, names[1]: output, "details": { "cached_tokens": input / 2 } })
    })
}

fn logprobs(content: &str) -> Value {
    let tokens: Vec<_> = content
        .chars()
        .map(|c| json!({ "token": c.to_string(), "logprob": -0.5, "bytes": null, "top_logprobs": [] }))
        .collect();
    json!({ "content": tokens, "refusal": null })
}

fn chat() -> impl Strategy<Value = Value> {
    let call = (0_u32..99, input()).prop_map(|(id, input)| {
        json!({ "id": format!("call_{id}"), "type": "function",
            "function": { "name": "look_up", "arguments": input.to_string() } })
    });
    let message = (
        prop_oneof![Just(Value::Null), text().prop_map(Value::from)],
        maybe(prop_oneof![Just(Value::Null), text().prop_map(Value::from)]),
        maybe(text().prop_map(Value::from)),
        maybe(prop::collection::vec(call, 0..3).prop_map(Value::from)),
        maybe(Just(
            json!([{ "type": "url_citation", "url_citation": { "url": "https://example.org" } }]),
        )),
        maybe(Just(
            json!({ "id": "audio_1", "data": "AAAA", "transcript": "hi", "expires_at": 5 }),
        )),
        maybe(Just(
            json!([{ "index": 0, "type": "reasoning.text", "text": "so" }]),
        )),
    )
        .prop_map(
            |(content, refusal, reasoning, calls, annotations, audio, details)| {
                object(vec![
                    ("role", Some("assistant".into())),
                    ("content", Some(content)),
                    ("refusal", refusal),
                    ("reasoning_content", reasoning),
                    ("tool_calls", calls),
                    ("annotations", annotations),
                    ("audio", audio),
                    ("reasoning_details", details),
                ])
            },
        );
    let choice = (
        message,
        0_u8..4,
        prop_oneof![Just("stop"), Just("tool_calls")],
        any::<bool>(),
    );
    (
        prop::collection::vec(choice, 1..4),
        maybe(usage(["prompt_tokens", "completion_tokens"])),
        maybe(Just(json!("fp_1"))),
        maybe(Just(json!(["https://example.org/a"]))),
    )
        .prop_map(|(choices, usage, fingerprint, citations)| {
            let choices: Vec<_> = choices
                .into_iter()
                .enumerate()
                .map(|(index, (message, logs, finish, extra))| {
                    let content = message["content"].as_str().unwrap_or_default();
                    let logprobs = match logs {
                        0 => None,
                        1 => Some(Value::Null),
                        2 => Some(logprobs(content)),
                        _ => Some(logprobs("other")),
                    };
                    object(vec![
                        ("index", Some(index.into())),
                        ("message", Some(message)),
                        ("logprobs", logprobs),
                        ("finish_reason", Some(finish.into())),
                        (
                            "content_filter_results",
                            extra.then(|| json!({ "hate": { "filtered": false } })),
                        ),
                    ])
                })
                .collect();
            object(vec![
                ("id", Some("chatcmpl-1".into())),
                ("object", Some("chat.completion".into())),
                ("created", Some(1_790_000_000.into())),
                ("model", Some("gpt-4o".into())),
                ("choices", Some(choices.into())),
                ("usage", usage),
                ("system_fingerprint", fingerprint),
                ("citations", citations),
            ])
        })
}

fn completion() -> impl Strategy<Value = Value> {
    let choice = (text(), any::<bool>());
    (prop::collection::vec(choice, 1..3), maybe(usage(["prompt_tokens", "completion_tokens"]))).prop_map(
        |(choices, usage)| {
            let choices: Vec<_> = choices
                .into_iter()
                .enumerate()
                .map(|(index, (text, logs))| {
                    let logprobs = logs.then(|| json!({ "tokens": ["a", "b"], "token_logprobs": [-1.0, null] }));
                    json!({ "index": index, "text": text, "logprobs": logprobs, "finish_reason": "stop" })
                })
                .collect();
            object(vec![
                ("id", Some("cmpl-1".into())),
                ("object", Some("text_completion".into())),
                ("created", Some(1_790_000_000.into())),
                ("model", Some("gpt-3.5-turbo-instruct".into())),
                ("choices", Some(choices.into())),
                ("usage", usage),
            ])
        },
    )
}

fn message() -> impl Strategy<Value = Value> {
    let block = prop_oneof![
        (text(), any::<bool>()).prop_map(|(text, cites)| object(vec![
            ("type", Some("text".into())),
            ("text", Some(text.into())),
            ("citations", cites.then(|| json!([{ "type": "char_location", "cited_text": "x" }]))),
        ])),
        text().prop_map(|text| json!({ "type": "thinking", "thinking": text, "signature": "EqQB+/=" })),
        Just(json!({ "type": "redacted_thinking", "data": "AAAA" })),
        input().prop_map(|input| json!({ "type": "tool_use", "id": "toolu_1", "name": "look_up", "input": input })),
        input().prop_map(|input| json!({ "type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": input })),
        Just(json!({ "type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [{ "url": "https://example.org" }] })),
    ];
    (
        prop::collection::vec(block, 0..4),
        usage(["input_tokens", "output_tokens"]),
        prop_oneof![Just("end_turn"), Just("tool_use"), Just("stop_sequence")],
    )
        .prop_map(|(content, usage, stop)| {
            json!({
                "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5",
                "content": content, "stop_reason": stop,
                "stop_sequence": (stop == "stop_sequence").then_some("END"), "usage": usage,
            })
        })
}

fn response() -> impl Strategy<Value = Value> {
    let item = prop_oneof![
        (text(), any::<bool>()).prop_map(|(text, cites)| {
            let annotations = if cites { json!([{ "type": "url_citation" }]) } else { json!([]) };
            json!({ "id": "msg_1", "type": "message", "status": "completed", "role": "assistant",
                "content": [{ "type": "output_text", "text": text, "annotations": annotations, "logprobs": [] }] })
        }),
        text().prop_map(|text| json!({ "id": "rs_1", "type": "reasoning", "encrypted_content": null,
            "summary": [{ "type": "summary_text", "text": text }] })),
        input().prop_map(|input| json!({ "id": "fc_1", "type": "function_call", "status": "completed",
            "call_id": "call_1", "name": "look_up", "arguments": input.to_string() })),
        Just(json!({ "id": "ws_1", "type": "web_search_call", "status": "completed" })),
        text().prop_map(|text| json!({ "id": "msg_2", "type": "message", "status": "completed",
            "role": "assistant", "content": [{ "type": "refusal", "refusal": text }] })),
    ];
    (prop::collection::vec(item, 0..4), usage(["input_tokens", "output_tokens"]), any::<bool>()).prop_map(
        |(output, usage, store)| {
            json!({
                "id": "resp_1", "object": "response", "created_at": 1_790_000_000, "status": "completed",
                "model": "gpt-4o", "output": output, "usage": usage, "store": store,
            })
        },
    )
}

fn answer() -> impl Strategy<Value = (Protocol, Value)> {
    prop_oneof![
        chat().prop_map(|document| (Protocol::OpenAiChat, document)),
        completion().prop_map(|document| (Protocol::OpenAiCompletions, document)),
        response().prop_map(|document| (Protocol::OpenAiResponses, document)),
        message().prop_map(|document| (Protocol::AnthropicMessages, document)),
    ]
}

/// The wire of a stream, recorded in chunks of any size.
fn recorded(protocol: Protocol, events: &[Event], step: usize) -> Result<Recording, Unfinished> {
    let wire: Vec<u8> = events.iter().flat_map(Event::to_bytes).collect();
    let mut recorder = Recorder::new(protocol);
    for chunk in wire.chunks(step) {
        recorder.feed(chunk).unwrap();
    }
    recorder.finish()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_024))]

    #[test]
    fn a_document_taken_apart_adds_up_to_itself((protocol, document) in answer()) {
        let stream = Recording::of_document(protocol, &document);
        prop_assert_eq!(stream.document().unwrap(), document);
    }

    #[test]
    fn a_recorded_stream_is_replayed_event_for_event((protocol, document) in answer(), step in 1_usize..90) {
        let events = Recording::of_document(protocol, &document).events().to_vec();
        let recording = recorded(protocol, &events, step).unwrap();
        let stored = recording.to_text();
        let source = Source::Recording(&stored);
        let wanted = Wanted { usage: true };
        // The original, event for event.
        let mut original = stream(source, protocol, &Stamp::original(), wanted).unwrap();
        if document.get("usage").is_none() {
            // A caller that wants to be told gets a chunk more.
            original.retain(|event| !is_usage_only(event));
        }
        prop_assert_eq!(&original, &events);
        // A replay: the same but for ids and times.
        let mut replayed = stream(source, protocol, &Stamp::fresh(), wanted).unwrap();
        if document.get("usage").is_none() {
            replayed.retain(|event| !is_usage_only(event));
        }
        prop_assert_eq!(replayed.len(), events.len());
        for (replayed, event) in replayed.iter().zip(&events) {
            prop_assert_eq!(replayed.name(), event.name());
            prop_assert_eq!(without_ids(replayed.data()), without_ids(event.data()));
        }
    }

    #[test]
    fn stream_to_document_to_stream_says_the_same((protocol, document) in answer()) {
        // A stream is stored; a caller gets it whole; what that caller has is stored by another cache, which
        // streams it again.
        let stored = Recording::of_document(protocol, &document).to_text();
        let given = whole(Source::Recording(&stored), protocol, &Stamp::original()).unwrap();
        let again = stream(Source::Document(given.as_bytes()), protocol, &Stamp::original(), Wanted { usage: document.get("usage").is_some() }).unwrap();
        let document_again = Recording::new(protocol, again).document().unwrap();
        prop_assert_eq!(document_again, document);
    }

    #[test]
    fn a_stream_that_is_cut_off_has_no_recording(
        (protocol, document) in answer(), keep in 0.0_f64..1.0,
    ) {
        let events = Recording::of_document(protocol, &document).events().to_vec();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let keep = ((events.len() - 1) as f64 * keep) as usize;
        let cut = recorded(protocol, &events[..keep], 50);
        // A chat whose choices have all ended is whole without its last line.
        let choices = document["choices"].as_array().map_or(0, Vec::len);
        let ended = events[..keep].iter().filter(|event| event.data().contains("\"finish_reason\":\"")).count();
        if choices > 0 && ended == choices {
            prop_assert!(cut.is_ok());
        } else if choices > 0 {
            // The choices that never began are not missed by who cannot know of them.
            let began: std::collections::HashSet<_> = events[..keep]
                .iter()
                .filter_map(|event| serde_json::from_str::<Value>(event.data()).ok()?.pointer("/choices/0/index")?.as_u64())
                .collect();
            prop_assert_eq!(cut.is_ok(), !began.is_empty() && began.len() == ended);
        } else {
            prop_assert_eq!(cut, Err(Unfinished::CutOff));
        }
    }
}

fn without_ids(data: &str) -> Value {
    let mut data: Value = serde_json::from_str(data).unwrap_or_default();
    for pointer in [
        "/id",
        "/created",
        "/message/id",
        "/response/id",
        "/response/created_at",
    ] {
        if let Some(slot) = data.pointer_mut(pointer) {
            *slot = Value::Null;
        }
    }
    data
}

#[test]
fn an_error_in_a_stream_leaves_no_recording() {
    let failures = [
        (
            Protocol::OpenAiChat,
            Event::new(r#"{"error":{"message":"overloaded"}}"#),
        ),
        (Protocol::OpenAiCompletions, Event::named("error", "{}")),
        (
            Protocol::AnthropicMessages,
            Event::named(
                "error",
                r#"{"type":"error","error":{"type":"overloaded_error"}}"#,
            ),
        ),
        (
            Protocol::OpenAiResponses,
            Event::named(
                "response.incomplete",
                r#"{"type":"response.incomplete","response":{}}"#,
            ),
        ),
    ];
    for (protocol, event) in failures {
        assert_eq!(
            recorded(protocol, &[event], 7),
            Err(Unfinished::Failed),
            "{protocol}"
        );
    }
    // The word alone is no error.
    let word =
        Event::new(r#"{"choices":[{"index":0,"delta":{"content":"\"error\""}}],"error":null}"#);
    assert_eq!(ending(Protocol::OpenAiChat, &word), None);
}

#[test]
fn chunks_as_providers_send_them_add_up() {
    let chunk = |choice: Value| {
        Event::new(
            json!({ "id": "chatcmpl-9", "object": "chat.completion.chunk", "created": 7, "model": "m",
                "system_fingerprint": null, "obfuscation": "x7", "choices": [choice], "usage": null })
            .to_string(),
        )
    };
    let delta = |index: u8, delta: Value| {
        chunk(json!({ "index": index, "delta": delta, "finish_reason": null }))
    };
    let events = [
        delta(
            0,
            json!({ "role": "assistant", "content": null, "tool_calls": [
            { "index": 0, "id": "call_a", "type": "function", "function": { "name": "weather", "arguments": "" } }] }),
        ),
        delta(1, json!({ "role": "assistant", "content": "" })),
        delta(
            0,
            json!({ "tool_calls": [{ "index": 0, "function": { "arguments": "{\"city\":" } }] }),
        ),
        delta(1, json!({ "reasoning_content": "They ask " })),
        delta(
            0,
            json!({ "tool_calls": [
            { "index": 1, "id": "call_b", "type": "function", "function": { "name": "time", "arguments": "{}" } }] }),
        ),
        delta(
            0,
            json!({ "tool_calls": [{ "index": 0, "id": "call_a", "function": { "arguments": "\"Oslo\"}" } }] }),
        ),
        delta(1, json!({ "reasoning_content": "for it." })),
        delta(1, json!({ "role": "assistant", "content": "It is cold." })),
        chunk(json!({ "index": 0, "delta": {}, "finish_reason": "tool_calls" })),
        chunk(json!({ "index": 1, "delta": {}, "finish_reason": "stop" })),
        Event::new(
            json!({ "id": "chatcmpl-9", "choices": [], "usage": { "total_tokens": 9 } })
                .to_string(),
        ),
        Event::new("[DONE]"),
    ];
    let document = Recording::new(Protocol::OpenAiChat, events.to_vec())
        .document()
        .unwrap();
    let expected = json!({
        "id": "chatcmpl-9", "object": "chat.completion", "created": 7, "model": "m", "system_fingerprint": null,
        "usage": { "total_tokens": 9 },
        "choices": [
            { "index": 0, "finish_reason": "tool_calls", "message": { "role": "assistant", "content": null, "tool_calls": [
                { "id": "call_a", "type": "function", "function": { "name": "weather", "arguments": "{\"city\":\"Oslo\"}" } },
                { "id": "call_b", "type": "function", "function": { "name": "time", "arguments": "{}" } },
            ] } },
            { "index": 1, "finish_reason": "stop", "message": {
                "role": "assistant", "content": "It is cold.", "reasoning_content": "They ask for it." } },
        ],
    });
    assert_eq!(document, expected);
    assert_eq!(words(&document), None);
    assert!(said(&document).unwrap().contains("Oslo"));
}

#[test]
fn events_as_anthropic_sends_them_add_up() {
    let event = |data: Value| Event::named(data["type"].as_str().unwrap(), data.to_string());
    let delta = |index: u8, delta: Value| {
        event(json!({ "type": "content_block_delta", "index": index, "delta": delta }))
    };
    let events = [
        event(
            json!({ "type": "message_start", "message": { "id": "msg_9", "type": "message", "role": "assistant",
            "content": [], "model": "m", "stop_reason": null, "stop_sequence": null,
            "usage": { "input_tokens": 25, "cache_read_input_tokens": 3, "output_tokens": 1 } } }),
        ),
        event(
            json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "thinking", "thinking": "", "signature": "" } }),
        ),
        event(json!({ "type": "ping" })),
        delta(0, json!({ "type": "thinking_delta", "thinking": "Cold" })),
        delta(
            0,
            json!({ "type": "thinking_delta", "thinking": " there." }),
        ),
        delta(0, json!({ "type": "signature_delta", "signature": "sig" })),
        event(json!({ "type": "content_block_stop", "index": 0 })),
        event(
            json!({ "type": "content_block_start", "index": 1, "content_block": { "type": "tool_use", "id": "toolu_1", "name": "weather", "input": {} } }),
        ),
        delta(1, json!({ "type": "input_json_delta", "partial_json": "" })),
        delta(
            1,
            json!({ "type": "input_json_delta", "partial_json": "{\"city\": \"Os" }),
        ),
        delta(
            1,
            json!({ "type": "input_json_delta", "partial_json": "lo\"}" }),
        ),
        event(json!({ "type": "content_block_stop", "index": 1 })),
        event(
            json!({ "type": "message_delta", "delta": { "stop_reason": "tool_use", "stop_sequence": null }, "usage": { "output_tokens": 89 } }),
        ),
        event(json!({ "type": "message_stop" })),
    ];
    let document = recorded(Protocol::AnthropicMessages, &events, 11)
        .unwrap()
        .document()
        .unwrap();
    let expected = json!({
        "id": "msg_9", "type": "message", "role": "assistant", "model": "m",
        "stop_reason": "tool_use", "stop_sequence": null,
        "usage": { "input_tokens": 25, "cache_read_input_tokens": 3, "output_tokens": 89 },
        "content": [
            { "type": "thinking", "thinking": "Cold there.", "signature": "sig" },
            { "type": "tool_use", "id": "toolu_1", "name": "weather", "input": { "city": "Oslo" } },
        ],
    });
    assert_eq!(document, expected);
    // Events that do not fit together are an error, never half an answer.
    for cut in 1..events.len() - 1 {
        let mut broken = events.to_vec();
        broken.remove(0);
        broken.truncate(cut);
        assert!(
            Recording::new(Protocol::AnthropicMessages, broken)
                .document()
                .is_err()
        );
    }
}

#[test]
fn a_caller_that_asked_is_told_the_usage_and_others_are_not() {
    let chunk = json!({ "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{ "index": 0, "delta": { "content": "Hi" }, "finish_reason": "stop" }] });
    let told = json!({ "id": "c", "choices": [], "usage": { "prompt_tokens": 3, "completion_tokens": 1 } });
    let protocol = Protocol::OpenAiChat;
    for has in [true, false] {
        let mut events = vec![Event::new(chunk.to_string())];
        events.extend(has.then(|| Event::new(told.to_string())));
        events.push(Event::new("[DONE]"));
        let text = Recording::new(protocol, events).to_text();
        let stamp = Stamp::fresh()
            .about("m", 3, 1)
            .note(json!({ "cached": true }));
        for wants in [true, false] {
            let events = stream(
                Source::Recording(&text),
                protocol,
                &stamp,
                Wanted { usage: wants },
            )
            .unwrap();
            let told: Vec<_> = events.iter().filter(|event| is_usage_only(event)).collect();
            assert_eq!(told.len(), usize::from(wants), "{has} {wants}");
            for event in told {
                let data: Value = serde_json::from_str(event.data()).unwrap();
                assert_eq!(data["usage"]["prompt_tokens"], 3);
                assert_eq!(data["usage"]["askonce"]["cached"], true);
                assert!(data["id"].as_str().unwrap().len() == 32);
            }
            assert_eq!(events.last().unwrap().data(), "[DONE]");
        }
    }
}

#[test]
fn plain_text_is_given_in_every_protocol_and_adds_up_to_itself() {
    for protocol in PROTOCOLS {
        let stamp = Stamp::fresh()
            .about("m", 3, 2)
            .note(json!({ "cached": true }));
        let given = whole(Source::Text("Paris, of course."), protocol, &stamp).unwrap();
        let document: Value = serde_json::from_str(&given).unwrap();
        assert_eq!(
            words(&document).as_deref(),
            Some("Paris, of course."),
            "{protocol}"
        );
        assert_eq!(document["usage"]["askonce"]["cached"], true);
        let events = stream(
            Source::Text("Paris, of course."),
            protocol,
            &stamp,
            Wanted::default(),
        )
        .unwrap();
        assert!(events.len() > 4, "{protocol}");
        let mut streamed = Recording::new(protocol, events).document().unwrap();
        assert_eq!(words(&streamed), words(&document));
        if let Some(streamed) = streamed.as_object_mut() {
            assert_eq!(
                streamed.contains_key("usage"),
                protocol != Protocol::OpenAiChat && protocol != Protocol::OpenAiCompletions
            );
        }
    }
}

#[test]
fn a_response_that_the_provider_keeps_is_replayed_under_its_id() {
    let protocol = Protocol::OpenAiResponses;
    let document = |store: bool| {
        json!({ "id": "resp_1", "object": "response", "created_at": 5, "status": "completed", "store": store,
            "output": [], "usage": { "input_tokens": 1 } })
    };
    for store in [true, false] {
        let stored = Recording::of_document(protocol, &document(store)).to_text();
        for source in [
            Source::Recording(&stored),
            Source::Document(document(store).to_string().as_bytes()),
        ] {
            let given: Value =
                serde_json::from_str(&whole(source, protocol, &Stamp::fresh()).unwrap()).unwrap();
            assert_eq!(given["id"] == "resp_1", store);
            assert!(given["id"].as_str().unwrap().starts_with("resp_"));
            let events = stream(source, protocol, &Stamp::fresh(), Wanted::default()).unwrap();
            let ids: Vec<Value> = events
                .iter()
                .map(|event| {
                    serde_json::from_str::<Value>(event.data()).unwrap()["response"]["id"].clone()
                })
                .collect();
            assert_eq!(ids[0] == "resp_1", store);
            assert!(ids.iter().all(|id| *id == ids[0]), "one id in one stream");
        }
    }
}
