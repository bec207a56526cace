//! Responses bodies one by one: what is equal, what is eligible, what passes by, what is refused.

use askonce::{BypassReason, IneligibleReason, Request, Scope};
use serde_json::{Value, json};

fn read(body: &Value) -> Request {
    Request::from_openai_responses(body, Scope::tenant("acme")).expect("a responses body")
}

fn asked(input: &Value) -> Request {
    read(&json!({ "model": "gpt-4o", "input": input }))
}

#[test]
fn the_ways_to_write_one_user_message_are_equal() {
    let plain = asked(&json!("hi"));
    for input in [
        json!([{ "role": "user", "content": "hi" }]),
        json!([{ "type": "message", "role": "user", "content": "hi" }]),
        json!([{ "type": null, "role": "user", "content": "hi" }]),
        json!([{ "role": "user", "content": [{ "type": "input_text", "text": "hi" }] }]),
    ] {
        let request = asked(&input);
        assert_eq!(plain.digests(), request.digests(), "{input}");
        assert_eq!(request.last_user_text(), "hi");
    }
    for input in [
        json!([{ "role": "user", "content": "hi", "id": "msg_1" }]),
        json!([{ "role": "user", "content": [{ "type": "output_text", "text": "hi" }] }]),
        json!([{ "role": "developer", "content": "be brief" }, { "role": "user", "content": "hi" }]),
    ] {
        assert_ne!(plain.partition(), asked(&input).partition(), "{input}");
    }
}

#[test]
fn what_the_provider_keeps_is_part_of_the_identity() {
    let plain = read(&json!({ "model": "m", "input": "hi" }));
    for (field, value) in [
        ("instructions", json!("be brief")),
        ("previous_response_id", json!("resp_1")),
        ("store", json!(false)),
        ("prompt", json!({ "id": "pmpt_1" })),
        ("text", json!({ "format": { "type": "json_object" } })),
        ("include", json!(["reasoning.encrypted_content"])),
        ("tools", json!([{ "type": "web_search" }])),
    ] {
        let mut body = json!({ "model": "m", "input": "hi" });
        body[field] = value;
        assert_ne!(plain.partition(), read(&body).partition(), "{field}");
    }
    for (field, value) in [
        ("background", json!(false)),
        ("metadata", json!({ "a": "b" })),
        ("prompt_cache_key", json!("k")),
        ("safety_identifier", json!("u")),
        ("stream_options", json!({ "include_obfuscation": false })),
        ("user", json!("u")),
    ] {
        let mut body = json!({ "model": "m", "input": "hi" });
        body[field] = value;
        assert_eq!(plain.digests(), read(&body).digests(), "{field}");
    }
}

#[test]
fn only_a_plain_last_user_message_is_eligible() {
    use IneligibleReason::{
        AssistantPrefill, EmptyUserText, NoUserTurn, NonTextPart, ToolResultTurn, UnknownRoleTurn,
    };
    let user = json!({ "role": "user", "content": "hi" });
    let said = json!({ "type": "message", "role": "assistant", "content": [
        { "type": "output_text", "text": "Sure, ", "annotations": [] },
    ] });
    let call = json!({ "type": "function_call", "call_id": "1", "name": "f", "arguments": "{}" });
    let result = json!({ "type": "function_call_output", "call_id": "1", "output": "42" });
    let shell = json!({ "type": "shell_call_output", "call_id": "1", "output": [] });
    let thought = json!({ "type": "reasoning", "id": "rs_1", "summary": [] });
    let image = json!({ "type": "input_image", "image_url": "data:," });
    let rule = json!({ "role": "developer", "content": "be brief" });
    for (input, reason) in [
        (json!("hi"), None),
        (json!([user]), None),
        (json!([user, said, user]), None),
        (json!([user, call, result, user]), None),
        (json!([user, rule]), None),
        (json!(""), Some(EmptyUserText)),
        (json!([]), Some(NoUserTurn)),
        (json!(null), Some(NoUserTurn)),
        (json!([rule]), Some(NoUserTurn)),
        (json!([result]), Some(NoUserTurn)),
        (json!([user, thought, call, result]), Some(ToolResultTurn)),
        (json!([user, call, result, rule]), Some(ToolResultTurn)),
        (json!([user, shell]), Some(ToolResultTurn)),
        (json!([user, said]), Some(AssistantPrefill)),
        (json!([user, thought]), Some(UnknownRoleTurn)),
        (json!([user, call]), Some(UnknownRoleTurn)),
        (json!([user, { "id": "msg_1" }]), Some(UnknownRoleTurn)),
        (
            json!([{ "role": "user", "content": [{ "type": "input_text", "text": "hi" }, image] }]),
            Some(NonTextPart),
        ),
    ] {
        let request = asked(&input);
        assert_eq!(request.eligibility().reason(), reason, "{input}");
    }
}

#[test]
fn a_call_that_does_more_than_answer_passes_by() {
    use BypassReason::{Background, ProviderState};
    for (field, value, reason) in [
        ("background", json!(true), Some(Background)),
        ("background", json!(false), None),
        ("conversation", json!("conv_1"), Some(ProviderState)),
        (
            "conversation",
            json!({ "id": "conv_1" }),
            Some(ProviderState),
        ),
        ("conversation", json!(null), None),
        (
            "tools",
            json!([{ "type": "code_interpreter", "container": "cntr_1" }]),
            Some(ProviderState),
        ),
        (
            "tools",
            json!([{ "type": "code_interpreter", "container": { "type": "auto" } }]),
            None,
        ),
        ("previous_response_id", json!("resp_1"), None),
    ] {
        let mut body = json!({ "model": "m", "input": "hi" });
        body[field] = value.clone();
        assert_eq!(read(&body).bypass(), reason, "{field}: {value}");
    }
}

#[test]
fn all_input_texts_are_listed_in_order() {
    let request = read(
        &json!({ "model": "m", "instructions": "be brief", "input": [
        { "role": "user", "content": "run it" },
        { "type": "reasoning", "id": "1", "summary": [{ "type": "summary_text", "text": "hm" }] },
        { "type": "function_call", "call_id": "1", "name": "f", "arguments": "{}" },
        { "type": "function_call_output", "call_id": "1", "output": [
            { "type": "input_text", "text": "42" },
        ] },
        { "type": "message", "role": "assistant", "content": [
            { "type": "output_text", "text": "It is 42." }, { "type": "refusal", "refusal": "No." },
        ] },
        { "role": "user", "content": "so?" },
    ] }),
    );
    let texts: Vec<_> = request.message_texts().collect();
    assert_eq!(
        texts,
        [
            "be brief",
            "run it",
            "hm",
            "f",
            "{}",
            "42",
            "It is 42.",
            "No.",
            "so?"
        ]
    );
    assert_eq!(request.last_user_text(), "so?");
}

#[test]
fn a_refusal_names_the_field_and_never_shows_its_value() {
    let secret = "SECRET";
    for (body, field, found) in [
        (json!(secret), "body", "a string"),
        (json!({ "input": secret }), "model", "nothing"),
        (
            json!({ "model": 1, "prompt": {}, "input": secret }),
            "model",
            "a number",
        ),
        (json!({ "model": "m", "input": 7 }), "input", "a number"),
        (
            json!({ "model": "m", "input": { "a": secret } }),
            "input",
            "an object",
        ),
        (
            json!({ "model": "m", "input": [secret] }),
            "input[0]",
            "a string",
        ),
        (
            json!({ "model": "m", "input": [{ "content": secret }] }),
            "input[0].type",
            "nothing",
        ),
        (
            json!({ "model": "m", "input": [{ "type": [secret] }] }),
            "input[0].type",
            "a list",
        ),
        (
            json!({ "model": "m", "input": [{ "type": "message", "content": secret }] }),
            "input[0].role",
            "nothing",
        ),
        (
            json!({ "model": "m", "input": [{ "role": "user" }] }),
            "input[0].content",
            "nothing",
        ),
        (
            json!({ "model": "m", "input": [{ "role": "user", "content": [{ "type": "input_text" }] }] }),
            "input[0].content[0].text",
            "nothing",
        ),
        (
            json!({ "model": "m", "input": secret, "instructions": [secret] }),
            "instructions",
            "a list",
        ),
        (
            json!({ "model": "m", "input": secret, "cache": secret }),
            "cache",
            "a string",
        ),
    ] {
        let error = Request::from_openai_responses(&body, Scope::local()).unwrap_err();
        let context = error.context();
        assert!(context.contains(&("field", field.to_owned())), "{error}");
        assert!(context.contains(&("found", found.to_owned())), "{error}");
        assert!(!format!("{error:?}").contains(secret), "{error:?}");
    }
    let stored = json!({ "prompt": { "id": "pmpt_1" } });
    assert_eq!(read(&stored).model_name(), None);
}
