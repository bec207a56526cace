//! Bodies to test with: a generator for each protocol, and ways to walk, change and write them.

use askonce::Protocol;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Fields that must be in no key.
pub(crate) const EXCLUDED: [&str; 10] = [
    "cache",
    "metadata",
    "prompt_cache_key",
    "prompt_cache_retention",
    "request_id",
    "safety_identifier",
    "store",
    "stream",
    "stream_options",
    "user",
];

/// One step from a value to a value inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

pub(crate) type Path = Vec<Step>;

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-zA-Z ]{0,8}", r"\PC{0,6}"]
}

fn content() -> impl Strategy<Value = Value> {
    let part = prop_oneof![
        3 => text().prop_map(|text| json!({ "type": "text", "text": text })),
        1 => text().prop_map(|text| json!({ "type": "text", "text": text, "cache_control": {} })),
        1 => "[a-z]{1,4}".prop_map(|id| json!({ "type": "image_url", "image_url": { "url": id } })),
    ];
    prop_oneof![
        text().prop_map(Value::from),
        prop::collection::vec(part, 1..3).prop_map(Value::from),
    ]
}

fn message(role: &'static str) -> impl Strategy<Value = Value> {
    (content(), prop::option::of("[a-z]{1,3}")).prop_map(move |(content, name)| {
        let mut message = json!({ "role": role, "content": content });
        if let Some(name) = name {
            message["name"] = json!(name);
        }
        message
    })
}

fn tool_round() -> impl Strategy<Value = Vec<Value>> {
    ("[a-z]{1,4}", text()).prop_map(|(id, result)| {
        vec![
            json!({ "role": "assistant", "content": null, "tool_calls": [
                { "id": id, "type": "function", "function": { "name": "f", "arguments": "{}" } },
            ] }),
            json!({ "role": "tool", "tool_call_id": id, "content": result }),
        ]
    })
}

fn history() -> impl Strategy<Value = Vec<Value>> {
    let turn = prop_oneof![
        message("system").prop_map(|m| vec![m]),
        message("developer").prop_map(|m| vec![m]),
        message("user").prop_map(|m| vec![m]),
        message("assistant").prop_map(|m| vec![m]),
        tool_round(),
    ];
    prop::collection::vec(turn, 0..4).prop_map(|turns| turns.concat())
}

fn parameters() -> impl Strategy<Value = Map<String, Value>> {
    let value = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        (-5_i64..5).prop_map(Value::from),
        // Eighths: serde_json's parser may be off by one bit for longer fractions.
        (-16_i8..16).prop_map(|eighths| json!(f64::from(eighths) / 8.0)),
        text().prop_map(Value::from),
        prop::collection::vec(text(), 0..3).prop_map(Value::from),
        Just(json!([{ "type": "function", "function": { "name": "f", "parameters": {} } }])),
        Just(json!({ "type": "json_schema", "json_schema": { "strict": true, "schema": {} } })),
    ];
    let name = prop::sample::select(vec![
        "temperature",
        "top_p",
        "n",
        "stop",
        "max_tokens",
        "seed",
        "tools",
        "tool_choice",
        "response_format",
        "reasoning_effort",
        "logit_bias",
        "functions",
        "service_tier",
        "unheard_of",
    ]);
    prop::collection::btree_map(name.prop_map(String::from), value, 0..5)
        .prop_map(|fields| fields.into_iter().collect())
}

/// A responses body, with a user message last.
pub(crate) fn responses_body() -> impl Strategy<Value = Value> {
    fn message(role: &'static str) -> impl Strategy<Value = Value> {
        let text_type = if role == "assistant" {
            "output_text"
        } else {
            "input_text"
        };
        let part = prop_oneof![
            3 => text().prop_map(move |text| json!({ "type": text_type, "text": text })),
            1 => "[a-z]{1,4}".prop_map(|id| json!({ "type": "input_image", "image_url": id })),
        ];
        let content = prop_oneof![
            text().prop_map(Value::from),
            prop::collection::vec(part, 1..3).prop_map(Value::from),
        ];
        (content, any::<bool>()).prop_map(move |(content, typed)| {
            let mut item = json!({ "role": role, "content": content });
            if typed {
                item["type"] = json!("message");
            }
            item
        })
    }
    let tool_round = ("[a-z]{1,4}", text()).prop_map(|(id, result)| {
        vec![
            json!({ "type": "reasoning", "id": id, "summary": [{ "type": "summary_text", "text": result }] }),
            json!({ "type": "function_call", "call_id": id, "name": "f", "arguments": "{}" }),
            json!({ "type": "function_call_output", "call_id": id, "output": result }),
        ]
    });
    let turn = prop_oneof![
        message("developer").prop_map(|item| vec![item]),
        message("user").prop_map(|item| vec![item]),
        message("assistant").prop_map(|item| vec![item]),
        tool_round,
    ];
    let history = prop::collection::vec(turn, 0..4).prop_map(|turns| turns.concat());
    let input = prop_oneof![
        1 => text().prop_map(Value::from),
        3 => (history, message("user")).prop_map(|(mut items, last)| {
            items.push(last);
            Value::from(items)
        }),
    ];
    let instructions = prop::option::of(text());
    (input, instructions, parameters(), "[a-z]{1,4}").prop_map(
        |(input, instructions, mut body, model)| {
            body.insert("model".to_owned(), json!(model));
            body.insert("input".to_owned(), input);
            if let Some(instructions) = instructions {
                body.insert("instructions".to_owned(), json!(instructions));
            }
            Value::Object(body)
        },
    )
}

/// An Anthropic messages body, with a user message last.
pub(crate) fn anthropic_body() -> impl Strategy<Value = Value> {
    fn content() -> impl Strategy<Value = Value> {
        let block = prop_oneof![
            4 => text().prop_map(|text| json!({ "type": "text", "text": text })),
            1 => "[a-z]{1,4}".prop_map(|data| json!({ "type": "image",
                "source": { "type": "base64", "media_type": "image/png", "data": data } })),
            1 => (text(), text()).prop_map(|(id, result)| json!({ "type": "tool_result",
                "tool_use_id": id, "content": [{ "type": "text", "text": result }] })),
        ];
        prop_oneof![
            text().prop_map(Value::from),
            prop::collection::vec(block, 1..3).prop_map(Value::from),
        ]
    }
    fn message(role: &'static str) -> impl Strategy<Value = Value> {
        content().prop_map(move |content| json!({ "role": role, "content": content }))
    }
    let call = "[a-z]{1,4}".prop_map(|id| {
        json!({ "role": "assistant", "content": [
            { "type": "tool_use", "id": id, "name": "f", "input": { "cache_control": id } },
        ] })
    });
    let turn = prop_oneof![message("user"), message("assistant"), call];
    let system = prop_oneof![
        text().prop_map(Value::from),
        prop::collection::vec(text(), 1..3).prop_map(|texts| texts
            .into_iter()
            .map(|text| json!({ "type": "text", "text": text }))
            .collect()),
    ];
    (
        prop::option::of(system),
        prop::collection::vec(turn, 0..4),
        message("user"),
        parameters(),
        "[a-z]{1,4}",
    )
        .prop_map(|(system, mut messages, last, mut body, model)| {
            messages.push(last);
            body.insert("model".to_owned(), json!(model));
            body.insert("messages".to_owned(), Value::from(messages));
            if let Some(system) = system {
                body.insert("system".to_owned(), system);
            }
            Value::Object(body)
        })
}

/// A completions body.
pub(crate) fn completions_body() -> impl Strategy<Value = Value> {
    let prompt = prop_oneof![
        3 => text().prop_map(Value::from),
        1 => prop::collection::vec(text(), 1..4).prop_map(Value::from),
        1 => prop::collection::vec(0_u32..9, 1..4).prop_map(Value::from),
    ];
    (prompt, parameters(), "[a-z]{1,4}").prop_map(|(prompt, mut body, model)| {
        body.insert("model".to_owned(), json!(model));
        body.insert("prompt".to_owned(), prompt);
        Value::Object(body)
    })
}

/// A body that the reader accepts, with a user turn last.
pub(crate) fn chat_body() -> impl Strategy<Value = Value> {
    (history(), message("user"), parameters(), "[a-z]{1,4}").prop_map(
        |(mut messages, last, mut body, model)| {
            messages.push(last);
            body.insert("model".to_owned(), json!(model));
            body.insert("messages".to_owned(), Value::from(messages));
            Value::Object(body)
        },
    )
}

/// Any JSON, with the words of the protocol in it more often than chance would have.
pub(crate) fn wild_json() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        prop::sample::select(vec![
            "messages",
            "role",
            "content",
            "type",
            "text",
            "model",
            "user",
            "tool",
            "assistant",
            "cache",
            "ttl",
            "namespace",
            "tool_calls",
            "function",
            "function_call_output",
            "input_text",
            "tool_result",
            "cache_control",
            "source",
            "arguments",
            "stream",
        ])
        .prop_map(String::from),
        text(),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(word.clone(), inner, 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// The paths to all scalars and empty containers that are part of the identity.
pub(crate) fn leaves(body: &Value) -> Vec<Path> {
    fn walk(value: &Value, path: &mut Path, out: &mut Vec<Path>) {
        match value {
            Value::Array(items) if !items.is_empty() => {
                for (i, item) in items.iter().enumerate() {
                    path.push(Step::Index(i));
                    walk(item, path, out);
                    path.pop();
                }
            }
            Value::Object(fields) if !fields.is_empty() => {
                for (key, value) in fields {
                    if path.is_empty() && EXCLUDED.contains(&key.as_str()) {
                        continue;
                    }
                    path.push(Step::Key(key.clone()));
                    walk(value, path, out);
                    path.pop();
                }
            }
            _ => out.push(path.clone()),
        }
    }
    let mut out = Vec::new();
    walk(body, &mut Vec::new(), &mut out);
    out
}

pub(crate) fn at<'a>(body: &'a mut Value, path: &[Step]) -> &'a mut Value {
    path.iter().fold(body, |value, step| match step {
        Step::Key(key) => &mut value[key.as_str()],
        Step::Index(i) => &mut value[*i],
    })
}

/// Another value in place of a leaf, of a type that the reader accepts there.
pub(crate) fn change(leaf: &mut Value) {
    *leaf = match leaf {
        Value::Bool(value) => json!(!*value),
        Value::Number(number) => json!(number.as_f64().unwrap_or(0.0) + 1.0),
        Value::String(text) => json!(format!("{text}x")),
        _ => json!("x"),
    };
}

/// Whether a path leads to a text of the last user turn, in any protocol.
pub(crate) fn is_of_last_user(protocol: Protocol, body: &Value, path: &[Step]) -> bool {
    let (field, text_type) = match protocol {
        Protocol::OpenAiResponses => ("input", "input_text"),
        Protocol::OpenAiCompletions => ("prompt", ""),
        _ => ("messages", "text"),
    };
    let [Step::Key(top), rest @ ..] = path else {
        return false;
    };
    if top != field {
        return false;
    }
    let turns = match &body[field] {
        Value::String(_) => return true,
        turns if protocol == Protocol::OpenAiCompletions => return turns[0].is_string(),
        turns => turns.as_array().expect("turns"),
    };
    let last = turns.iter().rposition(|turn| turn["role"] == "user");
    let [Step::Index(i), Step::Key(field), rest @ ..] = rest else {
        return false;
    };
    if Some(*i) != last || field != "content" {
        return false;
    }
    match rest {
        [] => true,
        [Step::Index(part), Step::Key(field)] => {
            field == "text" && turns[*i]["content"][*part]["type"] == text_type
        }
        _ => false,
    }
}

/// The index of the last user message, and whether a path leads to a text of it.
pub(crate) fn is_last_user_text(body: &Value, path: &[Step]) -> bool {
    let messages = body["messages"].as_array().expect("messages");
    let last = messages
        .iter()
        .rposition(|m| m["role"] == "user")
        .expect("a user turn");
    let [Step::Key(top), Step::Index(i), rest @ ..] = path else {
        return false;
    };
    let Some(Step::Key(field)) = rest.first() else {
        return false;
    };
    if top != "messages" || *i != last || field != "content" {
        return false;
    }
    match &rest[1..] {
        [] => true,
        [Step::Index(part), Step::Key(field)] => {
            field == "text" && messages[last]["content"][*part]["type"] == "text"
        }
        _ => false,
    }
}

/// JSON text of the same value with the keys of every object in another order, and `1` sometimes
/// written as `1.0`.
pub(crate) fn rewritten(value: &Value, seed: u64) -> String {
    fn next(state: &mut u64) -> u64 {
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        *state >> 33
    }
    fn write(value: &Value, state: &mut u64, out: &mut String) {
        match value {
            Value::Object(fields) => {
                let mut fields: Vec<_> = fields.iter().collect();
                fields.sort_by_cached_key(|_| next(state));
                out.push('{');
                for (i, (key, value)) in fields.into_iter().enumerate() {
                    if i > 0 {
                        out.push_str(" , ");
                    }
                    out.push_str(&json!(key).to_string());
                    out.push_str(":\n");
                    write(value, state, out);
                }
                out.push('}');
            }
            Value::Array(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    write(item, state, out);
                }
                out.push(']');
            }
            Value::Number(number) if number.is_i64() && next(state).is_multiple_of(2) => {
                out.push_str(&format!("{number}.0"));
            }
            other => out.push_str(&other.to_string()),
        }
    }
    let mut out = String::new();
    write(value, &mut seed.wrapping_add(1), &mut out);
    out
}
