//! Legacy completions: chunks and whole have the same fields, and `text` is joined.

use serde_json::{Value, json};

use super::openai_chat::{Chunks, add_up, append, replace};
use super::sse::Event;
use super::{Damaged, pieces};

const OBJECT: &str = "text_completion";

/// The completion that chunks add up to.
pub(super) fn aggregate(events: &[Event]) -> Result<Value, Damaged> {
    add_up(events, OBJECT, |choice, chunk| {
        for (name, value) in chunk {
            match (name.as_str(), choice.get_mut(name), value) {
                ("text", Some(Value::String(text)), Value::String(more)) => text.push_str(more),
                ("logprobs", Some(Value::Object(sum)), Value::Object(more)) => append(sum, more),
                ("logprobs", Some(Value::Object(_)), _) => {}
                _ => replace(choice, name, value),
            }
        }
    })
}

/// The chunks of a completion.
pub(super) fn split(completion: &Value) -> Vec<Event> {
    let mut stream = Chunks::new(completion, OBJECT);
    for choice in completion["choices"].as_array().into_iter().flatten() {
        let text = choice
            .get("text")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let mut rest = choice.clone();
        rest["text"] = "".into();
        let mut logprobs = rest.get_mut("logprobs").map(Value::take);
        let index = choice.get("index").cloned().unwrap_or_else(|| 0.into());
        for piece in pieces(text) {
            let mut chunk = json!({ "index": index, "text": piece, "finish_reason": null });
            if let Some(logprobs) = &mut logprobs {
                // The lists of tokens and of their probabilities belong together.
                chunk["logprobs"] = logprobs.take();
            }
            stream.choice(&chunk);
        }
        if let Some(logprobs) = logprobs {
            rest["logprobs"] = logprobs;
        }
        stream.choice(&rest);
    }
    stream.finish(completion.get("usage"))
}
