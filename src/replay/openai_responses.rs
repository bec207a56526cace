//! Responses: a stream tells how the items of its output grow, and ends with the whole response.

use serde_json::{Value, json};

use super::sse::Event;
use super::{Damaged, Ending, pieces};

/// How a stream ends with `event`, if it does.
pub(super) fn ending(event: &Event) -> Option<Ending> {
    let ends = |kind: &str| match kind {
        "response.completed" => Some(Ending::Complete),
        "response.failed" | "response.incomplete" | "response.cancelled" | "error" => {
            Some(Ending::Failed)
        }
        _ => None,
    };
    if let Some(name) = event.name() {
        return ends(name);
    }
    let data: Value = serde_json::from_str(event.data()).ok()?;
    ends(data.get("type")?.as_str()?)
}

/// The response that the last event holds.
pub(super) fn aggregate(events: &[Event]) -> Result<Value, Damaged> {
    let last = events
        .iter()
        .rev()
        .find(|event| ending(event).is_some())
        .ok_or(Damaged)?;
    let mut data: Value = serde_json::from_str(last.data()).map_err(|_| Damaged)?;
    match data.get_mut("response").map(Value::take) {
        Some(response) if response.is_object() => Ok(response),
        _ => Err(Damaged),
    }
}

/// The events of a response.
pub(super) fn split(response: &Value) -> Vec<Event> {
    let mut stream = Stream::default();
    let mut begun = response.clone();
    begun["status"] = "in_progress".into();
    begun["output"] = json!([]);
    for name in ["usage", "completed_at"] {
        if let Some(slot) = begun.get_mut(name) {
            *slot = Value::Null;
        }
    }
    for name in ["response.created", "response.in_progress"] {
        stream.push(json!({ "type": name, "response": begun }));
    }
    for (at, item) in response["output"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        stream.item(at, item);
    }
    stream.push(json!({ "type": "response.completed", "response": response }));
    stream.events
}

#[derive(Default)]
struct Stream {
    events: Vec<Event>,
}

impl Stream {
    fn push(&mut self, mut data: Value) {
        data["sequence_number"] = self.events.len().into();
        let name = data["type"].as_str().unwrap_or_default().to_owned();
        self.events.push(Event::named(name, data.to_string()));
    }

    /// An item: as it begins, as it grows, and whole.
    fn item(&mut self, at: usize, item: &Value) {
        let mut begun = item.clone();
        if begun.get("status").is_some() {
            begun["status"] = "in_progress".into();
        }
        for list in ["content", "summary"] {
            if begun.get(list).is_some_and(Value::is_array) {
                begun[list] = json!([]);
            }
        }
        for text in ["arguments", "input"] {
            if begun.get(text).is_some_and(Value::is_string) {
                begun[text] = "".into();
            }
        }
        self.push(
            json!({ "type": "response.output_item.added", "output_index": at, "item": begun }),
        );
        let id = item.get("id").cloned().unwrap_or_default();
        let about = |kind: String| json!({ "type": kind, "item_id": id, "output_index": at });
        match item.get("type").and_then(Value::as_str) {
            Some("message") => self.parts(
                item,
                "content",
                "content_index",
                "response.content_part",
                &about,
            ),
            Some("reasoning") => {
                self.parts(
                    item,
                    "summary",
                    "summary_index",
                    "response.reasoning_summary_part",
                    &about,
                );
                self.parts(
                    item,
                    "content",
                    "content_index",
                    "response.content_part",
                    &about,
                );
            }
            Some("function_call") => {
                self.text(
                    item.get("arguments"),
                    "arguments",
                    "response.function_call_arguments",
                    &about,
                );
            }
            Some("custom_tool_call") => {
                self.text(
                    item.get("input"),
                    "input",
                    "response.custom_tool_call_input",
                    &about,
                );
            }
            Some("mcp_call") => {
                self.text(
                    item.get("arguments"),
                    "arguments",
                    "response.mcp_call_arguments",
                    &about,
                );
            }
            _ => {}
        }
        self.push(json!({ "type": "response.output_item.done", "output_index": at, "item": item }));
    }

    fn parts(
        &mut self,
        item: &Value,
        list: &str,
        index_name: &str,
        kind: &str,
        about: &dyn Fn(String) -> Value,
    ) {
        for (index, part) in item[list].as_array().into_iter().flatten().enumerate() {
            let about = |kind: String| {
                let mut data = about(kind);
                data[index_name] = index.into();
                data
            };
            let (field, event) = match part.get("type").and_then(Value::as_str) {
                Some("output_text") => ("text", "response.output_text"),
                Some("refusal") => ("refusal", "response.refusal"),
                Some("summary_text") => ("text", "response.reasoning_summary_text"),
                Some("reasoning_text") => ("text", "response.reasoning_text"),
                _ => ("", ""),
            };
            let mut begun = part.clone();
            if begun.get(field).is_some() {
                begun[field] = "".into();
            }
            for list in ["annotations", "logprobs"] {
                if begun.get(list).is_some() {
                    begun[list] = json!([]);
                }
            }
            let mut added = about(format!("{kind}.added"));
            added["part"] = begun;
            self.push(added);
            if !field.is_empty() {
                self.text(part.get(field), field, event, &about);
            }
            let annotations = part.get("annotations").and_then(Value::as_array);
            for (i, annotation) in annotations.into_iter().flatten().enumerate() {
                let mut data = about("response.output_text.annotation.added".to_owned());
                data["annotation_index"] = i.into();
                data["annotation"] = annotation.clone();
                self.push(data);
            }
            let mut done = about(format!("{kind}.done"));
            done["part"] = part.clone();
            self.push(done);
        }
    }

    fn text(
        &mut self,
        text: Option<&Value>,
        field: &str,
        event: &str,
        about: &dyn Fn(String) -> Value,
    ) {
        let text = text.and_then(Value::as_str).unwrap_or_default();
        // Clients read the log probabilities of a text's events as a list.
        let is_said = event == "response.output_text";
        for piece in pieces(text) {
            let mut data = about(format!("{event}.delta"));
            data["delta"] = piece.into();
            if is_said {
                data["logprobs"] = json!([]);
            }
            self.push(data);
        }
        let mut done = about(format!("{event}.done"));
        done[field] = text.into();
        if is_said {
            done["logprobs"] = json!([]);
        }
        self.push(done);
    }
}
