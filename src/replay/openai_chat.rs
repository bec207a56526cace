//! Chat completions: chunks of `delta`s, and the completion that they add up to.
//!
//! Whoever adds up needs no list of fields, as the protocol has one rule: what a delta holds is appended to
//! what came before. Texts are joined, lists too unless their items are numbered, objects field by field.
//! Names, roles, types and ids are whole from the start. So `reasoning_content`, `reasoning_details`, `audio`,
//! `annotations` and what else providers invent are kept as well.

use serde_json::{Map, Value, json};

use super::sse::Event;
use super::{Damaged, Ending, pieces};

/// The data that ends a stream.
pub(super) const DONE: &str = "[DONE]";

/// Fields of a message or of a tool call that come whole and may be sent again.
const WHOLE: [&str; 4] = ["id", "name", "role", "type"];

/// Fields of a chunk that do not stand for themselves in the completion.
const PADDING: &str = "obfuscation";

/// How a stream ends with `event`, if it does.
pub(super) fn ending(event: &Event) -> Option<Ending> {
    if event.data().trim() == DONE {
        return Some(Ending::Complete);
    }
    // An error in the middle of a stream comes as an object of that name.
    let data = event.data();
    let failed = event.name() == Some("error")
        || data.contains("\"error\"")
            && serde_json::from_str::<Value>(data)
                .is_ok_and(|data| data.get("error").is_some_and(|error| !error.is_null()));
    failed.then_some(Ending::Failed)
}

/// Whether every choice that began has come to its end, for servers that send nothing after that.
pub(super) fn is_whole(events: &[Event]) -> bool {
    let choices = aggregate(events).ok();
    let choices = choices.as_ref().and_then(|whole| whole.get("choices"));
    choices.and_then(Value::as_array).is_some_and(|choices| {
        !choices.is_empty()
            && choices
                .iter()
                .all(|choice| choice["finish_reason"].is_string())
    })
}

/// The completion that chunks add up to.
pub(super) fn aggregate(events: &[Event]) -> Result<Value, Damaged> {
    add_up(events, "chat.completion", |choice, chunk| {
        for (name, value) in chunk {
            match name.as_str() {
                "delta" | "message" => {
                    let message = choice.entry("message").or_insert_with(|| json!({}));
                    if let (Some(message), Some(delta)) =
                        (message.as_object_mut(), value.as_object())
                    {
                        append(message, delta);
                    }
                }
                "logprobs" => match (choice.get_mut("logprobs"), value) {
                    (Some(Value::Object(sum)), Value::Object(more)) => append(sum, more),
                    (Some(Value::Object(_)), _) => {}
                    _ => {
                        choice.insert(name.clone(), value.clone());
                    }
                },
                _ => replace(choice, name, value),
            }
        }
    })
    .map(|mut completion| {
        for choice in completion["choices"].as_array_mut().into_iter().flatten() {
            finish(choice);
        }
        completion
    })
}

/// Adds chunks up, choice by choice.
pub(super) fn add_up(
    events: &[Event],
    object: &str,
    mut add: impl FnMut(&mut Map<String, Value>, &Map<String, Value>),
) -> Result<Value, Damaged> {
    let mut whole = Map::new();
    let mut choices: Vec<(u64, Map<String, Value>)> = Vec::new();
    for event in events {
        if event.data().trim() == DONE {
            continue;
        }
        let Ok(Value::Object(chunk)) = serde_json::from_str(event.data()) else {
            return Err(Damaged);
        };
        for (name, value) in &chunk {
            match name.as_str() {
                "choices" => {
                    for chunk in value.as_array().into_iter().flatten() {
                        let chunk = chunk.as_object().ok_or(Damaged)?;
                        let index = chunk.get("index").and_then(Value::as_u64).unwrap_or(0);
                        let at = choices.iter().position(|(known, _)| *known == index);
                        let at = at.unwrap_or_else(|| {
                            choices.push((index, Map::new()));
                            choices.len() - 1
                        });
                        add(&mut choices[at].1, chunk);
                    }
                }
                "object" => {
                    whole.insert(name.clone(), object.into());
                }
                PADDING => {}
                _ => replace(&mut whole, name, value),
            }
        }
    }
    choices.sort_by_key(|(index, _)| *index);
    let choices = choices.into_iter().map(|(index, mut choice)| {
        choice.insert("index".to_owned(), index.into());
        choice.entry("finish_reason").or_insert(Value::Null);
        Value::Object(choice)
    });
    whole.insert("choices".to_owned(), choices.collect());
    Ok(Value::Object(whole))
}

/// A field of which each chunk tells the state: the last that is not `null` counts.
pub(super) fn replace(whole: &mut Map<String, Value>, name: &str, value: &Value) {
    if !value.is_null() || !whole.contains_key(name) {
        whole.insert(name.to_owned(), value.clone());
    }
}

/// Appends a delta.
pub(super) fn append(sum: &mut Map<String, Value>, delta: &Map<String, Value>) {
    for (name, more) in delta {
        match (sum.get_mut(name), more) {
            (None | Some(Value::Null), more) => {
                sum.insert(
                    name.clone(),
                    match more {
                        Value::Array(items) => {
                            let mut list = Vec::new();
                            append_items(&mut list, items);
                            Value::Array(list)
                        }
                        more => more.clone(),
                    },
                );
            }
            (Some(_), Value::Null) => {}
            (Some(Value::String(text)), Value::String(more)) => {
                if !WHOLE.contains(&name.as_str()) || text.is_empty() {
                    text.push_str(more);
                }
            }
            (Some(Value::Array(list)), Value::Array(items)) => append_items(list, items),
            (Some(Value::Object(inner)), Value::Object(more)) => append(inner, more),
            (Some(slot), more) => *slot = more.clone(),
        }
    }
}

/// Appends items; one with the `index` of one that is there continues that.
fn append_items(list: &mut Vec<Value>, items: &[Value]) {
    for item in items {
        let index = item.get("index").and_then(Value::as_u64);
        let same = |known: &&mut Value| {
            index.is_some() && known.get("index").and_then(Value::as_u64) == index
        };
        match (list.iter_mut().find(same), item) {
            (Some(Value::Object(known)), Value::Object(item)) => append(known, item),
            _ => list.push(item.clone()),
        }
    }
}

/// Puts a choice into the form that it has in a completion.
fn finish(choice: &mut Value) {
    let Some(message) = choice.get_mut("message").and_then(Value::as_object_mut) else {
        choice["message"] = json!({ "role": "assistant", "content": null });
        return;
    };
    message.entry("role").or_insert_with(|| "assistant".into());
    message.entry("content").or_insert(Value::Null);
    if let Some(Value::Array(calls)) = message.get_mut("tool_calls") {
        calls.sort_by_key(|call| call.get("index").and_then(Value::as_u64));
        for call in calls {
            if let Some(call) = call.as_object_mut() {
                call.remove("index");
            }
        }
    }
}

/// The chunks of a completion: a word or so in each, as a model would send them.
pub(super) fn split(completion: &Value) -> Vec<Event> {
    let mut stream = Chunks::new(completion, "chat.completion.chunk");
    for choice in completion["choices"].as_array().into_iter().flatten() {
        let index = choice.get("index").cloned().unwrap_or_else(|| 0.into());
        let logprobs = choice.get("logprobs");
        let mut deltas = choice
            .get("message")
            .and_then(Value::as_object)
            .map(deltas)
            .unwrap_or_default();
        for (i, shared) in share_logprobs(logprobs, &mut deltas)
            .into_iter()
            .enumerate()
        {
            let mut chunk = json!({ "index": index, "delta": deltas[i], "finish_reason": null });
            if let Some(shared) = shared {
                chunk["logprobs"] = shared;
            }
            stream.choice(&chunk);
        }
        let mut last =
            json!({ "index": index, "delta": {}, "finish_reason": choice["finish_reason"] });
        for (name, value) in choice.as_object().into_iter().flatten() {
            if !matches!(
                name.as_str(),
                "index" | "message" | "logprobs" | "finish_reason"
            ) {
                last[name] = value.clone();
            }
        }
        if logprobs.is_some() {
            last["logprobs"] = Value::Null;
        }
        stream.choice(&last);
    }
    stream.finish(completion.get("usage"))
}

/// The deltas of a message, in the order in which models think and speak.
fn deltas(message: &Map<String, Value>) -> Vec<Value> {
    let is_text = |name: &str, value: &Value| value.is_string() && !WHOLE.contains(&name);
    let mut first = Map::new();
    for (name, value) in message {
        if WHOLE.contains(&name.as_str()) || value.is_null() {
            first.insert(name.clone(), value.clone());
        } else if is_text(name, value) {
            first.insert(name.clone(), "".into());
        }
    }
    let mut deltas = vec![Value::Object(first)];
    let texts = message.iter().filter(|(name, value)| is_text(name, value));
    let (said, thought): (Vec<_>, Vec<_>) =
        texts.partition(|(name, _)| matches!(name.as_str(), "content" | "refusal"));
    for (name, text) in thought.into_iter().chain(said) {
        for piece in pieces(text.as_str().unwrap_or_default()) {
            deltas.push(json!({ name: piece }));
        }
    }
    for (name, value) in message {
        match value {
            Value::Array(calls) if name == "tool_calls" && !calls.is_empty() => {
                for (index, call) in calls.iter().enumerate() {
                    deltas.extend(call_deltas(index, call).map(|call| json!({ name: [call] })));
                }
            }
            Value::Object(call) if name == "function_call" => {
                let call = Value::Object(call.clone());
                deltas.extend(argument_deltas(&call).map(|call| json!({ name: call })));
            }
            _ if is_text(name, value) || value.is_null() || WHOLE.contains(&name.as_str()) => {}
            _ => deltas.push(json!({ name: value })),
        }
    }
    deltas
}

/// A tool call: itself without arguments, then these by and by.
fn call_deltas(index: usize, call: &Value) -> impl Iterator<Item = Value> {
    let mut whole = call.clone();
    let function = whole.get_mut("function").map(Value::take);
    let mut functions: Vec<_> = function.iter().flat_map(argument_deltas).collect();
    let mut deltas = Vec::new();
    if !whole.is_object() {
        return vec![call.clone()].into_iter();
    }
    whole["index"] = index.into();
    match (function.is_some(), functions.is_empty()) {
        (true, false) => whole["function"] = functions.remove(0),
        _ => {
            if let Some(whole) = whole.as_object_mut() {
                whole.remove("function");
            }
        }
    }
    deltas.push(whole);
    deltas.extend(
        functions
            .into_iter()
            .map(|function| json!({ "index": index, "function": function })),
    );
    deltas.into_iter()
}

fn argument_deltas(function: &Value) -> impl Iterator<Item = Value> + use<> {
    let mut first = function.clone();
    let mut deltas = Vec::new();
    if let Some(Value::String(arguments)) = first.get_mut("arguments") {
        let arguments = std::mem::take(arguments);
        deltas.push(first);
        deltas.extend(pieces(&arguments).map(|piece| json!({ "arguments": piece })));
    } else {
        deltas.push(first);
    }
    deltas.into_iter()
}

/// What each delta has of the log probabilities: each token with its own text where texts and tokens agree.
fn share_logprobs(logprobs: Option<&Value>, deltas: &mut Vec<Value>) -> Vec<Option<Value>> {
    let Some(logprobs) = logprobs else {
        return vec![None; deltas.len()];
    };
    let tokens = logprobs.get("content").and_then(Value::as_array);
    let text = |token: &Value| {
        token
            .get("token")
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let texts: Option<Vec<String>> = tokens.and_then(|tokens| tokens.iter().map(text).collect());
    let said = |delta: &Value| {
        delta
            .get("content")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let content: String = deltas.iter().map(said).collect();
    if let (Some(tokens), Some(texts)) = (tokens, texts)
        && !texts.is_empty()
        && texts.concat() == content
        && logprobs.as_object().is_some_and(|all| {
            all.iter()
                .all(|(name, value)| name == "content" || value.is_null())
        })
    {
        let first = deltas
            .iter()
            .skip(1)
            .position(|delta| delta.get("content").is_some());
        let first = first.map_or(1, |at| at + 1);
        let mut at = 0;
        deltas.retain(|delta| {
            at += 1;
            at == 1 || delta.get("content").is_none()
        });
        let pieces = texts.iter().map(|text| json!({ "content": text }));
        deltas.splice(first..first, pieces);
        return (0..deltas.len())
            .map(|i| {
                let token = i.checked_sub(first).and_then(|i| tokens.get(i));
                Some(token.map_or(Value::Null, |token| {
                    let mut own = logprobs.clone();
                    own["content"] = json!([token]);
                    own
                }))
            })
            .collect();
    }
    let mut shares = vec![Some(Value::Null); deltas.len()];
    if let Some(first) = shares.first_mut() {
        *first = Some(logprobs.clone());
    }
    shares
}

/// Chunks under way.
pub(super) struct Chunks {
    /// What every chunk begins with: its JSON without the closing brace.
    head: String,
    /// What only the first one tells.
    once: Map<String, Value>,
    events: Vec<Event>,
}

impl Chunks {
    pub(super) fn new(completion: &Value, object: &str) -> Self {
        let (mut head, mut once) = (Map::new(), Map::new());
        for (name, value) in completion.as_object().into_iter().flatten() {
            match name.as_str() {
                "choices" | "usage" => {}
                "object" => {
                    head.insert(name.clone(), object.into());
                }
                _ if value.is_array() || value.is_object() => {
                    once.insert(name.clone(), value.clone());
                }
                _ => {
                    head.insert(name.clone(), value.clone());
                }
            }
        }
        let mut head = Value::Object(head).to_string();
        head.pop();
        if head.len() > 1 {
            head.push(',');
        }
        Self {
            head,
            once,
            events: Vec::new(),
        }
    }

    pub(super) fn choice(&mut self, choice: &Value) {
        self.push(Some(choice), None);
    }

    fn push(&mut self, choice: Option<&Value>, usage: Option<&Value>) {
        use std::fmt::Write as _;
        let mut chunk = String::with_capacity(self.head.len() + 160);
        chunk.push_str(&self.head);
        // Writing to a string cannot fail.
        for (name, value) in std::mem::take(&mut self.once) {
            let _ = write!(chunk, "{}:{value},", Value::from(name));
        }
        let _ = match choice {
            Some(choice) => write!(chunk, "\"choices\":[{choice}]"),
            None => write!(chunk, "\"choices\":[]"),
        };
        if let Some(usage) = usage {
            let _ = write!(chunk, ",\"usage\":{usage}");
        }
        chunk.push('}');
        self.events.push(Event::new(chunk));
    }

    pub(super) fn finish(mut self, usage: Option<&Value>) -> Vec<Event> {
        if let Some(usage) = usage {
            self.push(None, Some(usage));
        }
        self.events.push(Event::new(DONE));
        self.events
    }
}
