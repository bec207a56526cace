//! Messages: blocks that begin, grow and end, between the head of a message and its end.

use serde_json::{Map, Value, json};

use super::sse::Event;
use super::{Damaged, Ending, pieces};

/// How a stream ends with `event`, if it does.
pub(super) fn ending(event: &Event) -> Option<Ending> {
    match kind_of(event)? {
        Kind::Stop => Some(Ending::Complete),
        Kind::Error => Some(Ending::Failed),
        Kind::Other => None,
    }
}

enum Kind {
    Stop,
    Error,
    Other,
}

fn kind_of(event: &Event) -> Option<Kind> {
    let named = |name: &str| match name {
        "message_stop" => Kind::Stop,
        "error" => Kind::Error,
        _ => Kind::Other,
    };
    if let Some(name) = event.name() {
        return Some(named(name));
    }
    let data: Value = serde_json::from_str(event.data()).ok()?;
    Some(named(data.get("type")?.as_str()?))
}

/// The message that events add up to.
pub(super) fn aggregate(events: &[Event]) -> Result<Value, Damaged> {
    let mut message: Option<Map<String, Value>> = None;
    let mut blocks: Vec<(u64, Block)> = Vec::new();
    for event in events {
        let Ok(Value::Object(mut data)) = serde_json::from_str(event.data()) else {
            return Err(Damaged);
        };
        let index = data.get("index").and_then(Value::as_u64);
        let block = |blocks: &mut Vec<(u64, Block)>| {
            let index = index.ok_or(Damaged)?;
            blocks
                .iter()
                .position(|(known, _)| *known == index)
                .ok_or(Damaged)
        };
        match data.get("type").and_then(Value::as_str) {
            Some("message_start") => match data.remove("message") {
                Some(Value::Object(head)) => message = Some(head),
                _ => return Err(Damaged),
            },
            Some("content_block_start") => {
                let value = data.remove("content_block").ok_or(Damaged)?;
                blocks.push((index.ok_or(Damaged)?, Block::new(value)));
            }
            Some("content_block_delta") => {
                let at = block(&mut blocks)?;
                let delta = data
                    .get("delta")
                    .and_then(Value::as_object)
                    .ok_or(Damaged)?;
                blocks[at].1.add(delta)?;
            }
            Some("content_block_stop") => {
                let at = block(&mut blocks)?;
                blocks[at].1.stop()?;
            }
            Some("message_delta") => {
                let message = message.as_mut().ok_or(Damaged)?;
                for (name, value) in data {
                    match (name.as_str(), value) {
                        ("type", _) => {}
                        ("delta", Value::Object(delta)) => message.extend(delta),
                        ("usage", Value::Object(usage)) => match message.get_mut("usage") {
                            Some(Value::Object(known)) => known.extend(usage),
                            _ => {
                                message.insert(name, Value::Object(usage));
                            }
                        },
                        (_, value) => {
                            message.insert(name, value);
                        }
                    }
                }
            }
            // `ping`, `message_stop`, and what is not known yet.
            _ => {}
        }
    }
    let mut message = message.ok_or(Damaged)?;
    blocks.sort_by_key(|(index, _)| *index);
    let content = blocks.into_iter().map(|(_, block)| block.value);
    message.insert("content".to_owned(), content.collect());
    Ok(Value::Object(message))
}

/// A block under way.
struct Block {
    value: Value,
    /// The JSON of its input, as far as it came.
    input: String,
}

impl Block {
    fn new(value: Value) -> Self {
        Self {
            value,
            input: String::new(),
        }
    }

    fn add(&mut self, delta: &Map<String, Value>) -> Result<(), Damaged> {
        let block = self.value.as_object_mut().ok_or(Damaged)?;
        let (mut kind, mut rest) = ("", delta.iter().filter(|(name, _)| *name != "type"));
        if let Some(Value::String(name)) = delta.get("type") {
            kind = name;
        }
        match kind {
            "input_json_delta" => {
                let part = delta.get("partial_json").and_then(Value::as_str);
                self.input.push_str(part.ok_or(Damaged)?);
            }
            "citations_delta" => {
                let citation = delta.get("citation").ok_or(Damaged)?;
                match block.get_mut("citations") {
                    Some(Value::Array(citations)) => citations.push(citation.clone()),
                    _ => {
                        block.insert("citations".to_owned(), json!([citation]));
                    }
                }
            }
            // `text_delta`, `thinking_delta`, `signature_delta` and their like: texts that are joined.
            _ => rest.try_for_each(|(name, more)| {
                match (block.get_mut(name), more) {
                    (Some(Value::String(text)), Value::String(more)) => text.push_str(more),
                    (None | Some(Value::Null), more) => {
                        block.insert(name.clone(), more.clone());
                    }
                    _ => return Err(Damaged),
                }
                Ok(())
            })?,
        }
        Ok(())
    }

    fn stop(&mut self) -> Result<(), Damaged> {
        if !self.input.is_empty() {
            let input = serde_json::from_str(&self.input).map_err(|_| Damaged)?;
            self.value["input"] = input;
        }
        Ok(())
    }
}

/// The events of a message.
pub(super) fn split(message: &Value) -> Vec<Event> {
    let mut events = Vec::new();
    let mut push = |data: Value| {
        let name = data["type"].as_str().unwrap_or_default().to_owned();
        events.push(Event::named(name, data.to_string()));
    };
    let mut head = message.clone();
    head["content"] = json!([]);
    let mut end = json!({ "stop_reason": null, "stop_sequence": null });
    for name in ["stop_reason", "stop_sequence"] {
        if let Some(value) = head.get_mut(name) {
            end[name] = value.take();
        }
    }
    let mut usage = json!({});
    if let Some(told) = head
        .get_mut("usage")
        .and_then(|usage| usage.get_mut("output_tokens"))
    {
        usage["output_tokens"] = std::mem::replace(told, 1.into());
    }
    push(json!({ "type": "message_start", "message": head }));
    for (index, block) in message["content"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        let (start, deltas) = take_apart(block);
        push(json!({ "type": "content_block_start", "index": index, "content_block": start }));
        for delta in deltas {
            push(json!({ "type": "content_block_delta", "index": index, "delta": delta }));
        }
        push(json!({ "type": "content_block_stop", "index": index }));
    }
    push(json!({ "type": "message_delta", "delta": end, "usage": usage }));
    push(json!({ "type": "message_stop" }));
    events
}

/// A block as it begins, and what is added to it.
fn take_apart(block: &Value) -> (Value, Vec<Value>) {
    let (mut start, mut deltas) = (block.clone(), Vec::new());
    let mut text = |start: &mut Value, name: &str, kind: &str| {
        if let Some(Value::String(text)) = start.get_mut(name) {
            let text = std::mem::take(text);
            let pieces: Vec<&str> = match kind {
                // A signature is one thing.
                "signature_delta" => vec![text.as_str()],
                _ => pieces(&text).collect(),
            };
            let pieces = pieces.into_iter().filter(|piece| !piece.is_empty());
            deltas.extend(pieces.map(|piece| json!({ "type": kind, name: piece })));
        }
    };
    match block.get("type").and_then(Value::as_str) {
        Some("text") => {
            text(&mut start, "text", "text_delta");
            if let Some(Value::Array(citations)) = start.get_mut("citations") {
                let citations = std::mem::take(citations).into_iter();
                deltas.extend(
                    citations.map(|one| json!({ "type": "citations_delta", "citation": one })),
                );
            }
        }
        Some("thinking") => {
            text(&mut start, "thinking", "thinking_delta");
            text(&mut start, "signature", "signature_delta");
        }
        _ if block.get("input").is_some_and(Value::is_object) => {
            let input = start["input"].take().to_string();
            start["input"] = json!({});
            deltas.extend(
                pieces(&input)
                    .map(|piece| json!({ "type": "input_json_delta", "partial_json": piece })),
            );
        }
        _ => {}
    }
    (start, deltas)
}
