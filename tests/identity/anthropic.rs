//! Messages bodies one by one: what is equal, what is eligible, what passes by, what is refused.

use askonce::{BypassReason, IneligibleReason, Request, Scope};
use serde_json::{Value, json};

fn read(body: &Value) -> Request {
    Request::from_anthropic_messages(body, Scope::tenant("acme")).expect("a messages body")
}

fn chat(messages: &Value) -> Request {
    read(&json!({ "model": "claude", "max_tokens": 9, "messages": messages }))
}

#[test]
fn one_bare_text_block_equals_a_plain_string() {
    let with = |system: Value, content: Value| {
        read(&json!({ "model": "m", "system": system, "messages": [
            { "role": "user", "content": content },
        ] }))
    };
    let marked = |text: &str| json!([{ "type": "text", "text": text, "cache_control": { "type": "ephemeral" } }]);
    let plain = with(json!("be brief"), json!("hi"));
    assert_eq!(
        plain.digests(),
        with(marked("be brief"), marked("hi")).digests()
    );
    assert_eq!(plain.fuzzy_text(), Some("hi"));
    let cited = json!([{ "type": "text", "text": "hi", "citations": [] }]);
    assert_ne!(
        plain.partition(),
        with(json!("be brief"), cited).partition()
    );
    assert_ne!(
        plain.partition(),
        with(json!("be bold"), json!("hi")).partition()
    );
    assert_ne!(
        plain.partition(),
        with(json!(null), json!("hi")).partition()
    );
}

#[test]
fn a_mark_is_left_out_where_it_is_one() {
    let with = |schema: Value, input: Value| {
        read(&json!({
            "model": "m",
            "tools": [{ "name": "f", "input_schema": schema, "cache_control": { "type": "ephemeral" } }],
            "messages": [
                { "role": "user", "content": "q" },
                { "role": "assistant", "content": [
                    { "type": "tool_use", "id": "1", "name": "f", "input": input },
                ] },
                { "role": "user", "content": "q" },
            ],
        }))
    };
    let field = json!({ "properties": { "cache_control": { "type": "string" } } });
    let plain = with(json!({ "properties": {} }), json!({}));
    // The caller's own data may be called so too.
    assert_ne!(plain.partition(), with(field, json!({})).partition());
    let called = with(
        json!({ "properties": {} }),
        json!({ "cache_control": "no-store" }),
    );
    assert_ne!(plain.partition(), called.partition());
}

#[test]
fn only_a_plain_last_user_message_is_eligible() {
    use IneligibleReason::{
        AssistantPrefill, EmptyUserText, NoUserTurn, NonTextPart, ToolResultTurn, UnknownRoleTurn,
    };
    let user = json!({ "role": "user", "content": "hi" });
    let call = json!({ "role": "assistant", "content": [
        { "type": "tool_use", "id": "1", "name": "f", "input": {} },
    ] });
    let result = json!({ "type": "tool_result", "tool_use_id": "1", "content": "42" });
    let text = json!({ "type": "text", "text": "hi" });
    let image = json!({ "type": "image", "source": { "type": "url", "url": "https://x" } });
    let document = json!({ "type": "document", "source": { "type": "text", "data": "x" } });
    let said = |content: Value| json!([user, call, { "role": "user", "content": content }]);
    for (messages, reason) in [
        (json!([user]), None),
        (json!([user, call, user]), None),
        (said(json!([text, text])), None),
        (
            json!([user, { "role": "system", "content": "be brief" }]),
            None,
        ),
        (json!([call]), Some(NoUserTurn)),
        (said(json!([])), Some(EmptyUserText)),
        (said(json!(" ")), Some(EmptyUserText)),
        (said(json!([result])), Some(ToolResultTurn)),
        (said(json!([result, text])), Some(ToolResultTurn)),
        (said(json!([image, result])), Some(ToolResultTurn)),
        (
            said(json!([{ "type": "web_search_tool_result", "content": [] }])),
            Some(ToolResultTurn),
        ),
        (said(json!([image, text])), Some(NonTextPart)),
        (said(json!([document, text])), Some(NonTextPart)),
        (
            json!([user, { "role": "assistant", "content": "Sure, " }]),
            Some(AssistantPrefill),
        ),
        (
            json!([user, { "role": "critic", "content": "?" }]),
            Some(UnknownRoleTurn),
        ),
    ] {
        assert_eq!(chat(&messages).eligibility().reason(), reason, "{messages}");
    }
}

#[test]
fn a_container_of_the_providers_passes_by() {
    for (container, reason) in [
        (json!("container_1"), Some(BypassReason::ProviderState)),
        (
            json!({ "id": "container_1" }),
            Some(BypassReason::ProviderState),
        ),
        (json!({ "id": null, "skills": [] }), None),
        (json!(null), None),
    ] {
        let request = read(&json!({ "model": "m", "container": container, "messages": [
            { "role": "user", "content": "hi" },
        ] }));
        assert_eq!(request.bypass(), reason, "{container}");
    }
}

#[test]
fn all_input_texts_are_listed() {
    let request = read(
        &json!({ "model": "m", "system": [{ "type": "text", "text": "be brief" }],
        "messages": [
            { "role": "user", "content": [
                { "type": "document", "title": "T", "source": { "type": "text", "data": "D" } },
                { "type": "text", "text": "run it" },
            ] },
            { "role": "assistant", "content": [
                { "type": "thinking", "thinking": "hm", "signature": "s" },
                { "type": "tool_use", "id": "1", "name": "f", "input": { "a": 1 } },
            ] },
            { "role": "user", "content": [
                { "type": "tool_result", "tool_use_id": "1", "content": [
                    { "type": "text", "text": "42" },
                ] },
                { "type": "text", "text": "so?" },
            ] },
        ] }),
    );
    let mut texts: Vec<_> = request.message_texts().collect();
    assert_eq!(request.last_user_text(), "so?");
    texts.sort_unstable();
    let mut expected = [
        "be brief",
        "T",
        "D",
        "run it",
        "hm",
        "f",
        r#"{"a":1}"#,
        "so?",
        "42",
    ];
    expected.sort_unstable();
    assert_eq!(texts, expected);
}

#[test]
fn a_refusal_names_the_field_and_never_shows_its_value() {
    let secret = "SECRET";
    let user = json!({ "role": "user", "content": secret });
    for (body, field, found) in [
        (json!([secret]), "body", "a list"),
        (json!({ "messages": [user] }), "model", "nothing"),
        (json!({ "model": "m" }), "messages", "nothing"),
        (
            json!({ "model": "m", "messages": [secret] }),
            "messages[0]",
            "a string",
        ),
        (
            json!({ "model": "m", "messages": [user, { "content": secret }] }),
            "messages[1].role",
            "nothing",
        ),
        (
            json!({ "model": "m", "messages": [{ "role": "assistant" }] }),
            "messages[0].content",
            "nothing",
        ),
        (
            json!({ "model": "m", "messages": [{ "role": "user", "content": [{ "type": "text" }] }] }),
            "messages[0].content[0].text",
            "nothing",
        ),
        (
            json!({ "model": "m", "system": 7, "messages": [user] }),
            "system",
            "a number",
        ),
        (
            json!({ "model": "m", "system": [secret], "messages": [user] }),
            "system[0]",
            "a string",
        ),
    ] {
        let error = Request::from_anthropic_messages(&body, Scope::local()).unwrap_err();
        let context = error.context();
        assert!(context.contains(&("field", field.to_owned())), "{error}");
        assert!(context.contains(&("found", found.to_owned())), "{error}");
        assert!(!format!("{error:?}").contains(secret), "{error:?}");
    }
}
