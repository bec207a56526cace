//! Answers as they go over the wire: recorded once, given whole or as a stream to whoever asks for which.
//!
//! A provider gives an answer as one JSON document or as a stream of events. What came is kept as it came: a
//! document with its bytes, a stream as a [`Recording`] of its events. A caller who asks for the other form
//! gets it made from that: [`Recording::document`] adds events up, [`Recording::of_document`] takes a document
//! apart. Both lose nothing that a protocol has: text, tool calls, parallel choices, reasoning, refusals, log
//! probabilities, citations, usage, and fields that are not known here.
//!
//! What always holds:
//! - a recording that is stored and read gives the same events, byte for byte;
//! - a stream counts as whole once its protocol's last event came, and only then has a recording: what was cut
//!   off, or ended in an error, has none;
//! - a document that is taken apart adds up to itself.
//!
//! A replayed answer has an id and a time of its own ([`Stamp`]), with two exceptions that callers rely on. Ids
//! of tool calls stay: they come back in the next turn of the conversation, whose key would be another one each
//! time. And the id of a response that the provider keeps (`store` of the responses API) stays, as
//! `previous_response_id` leads to it.

mod anthropic_messages;
mod document;
mod openai_chat;
mod openai_completions;
mod openai_responses;
mod recorder;
mod recording;
mod render;
mod sse;
mod template;

use std::fmt;

use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};
use crate::request::Protocol;

pub use document::{Document, asking_for_usage};
pub use recorder::{Recorder, Unfinished};
pub use recording::Recording;
pub use render::{Source, Stamp, Wanted, is_usage_only, stream, whole};
pub use sse::{Event, Frame, NotText, SseReader};
pub(crate) use template::Template;

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With all that the answer holds.
    Complete,
    /// With an error, or cut short.
    Failed,
}

/// Events that do not add up to an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Damaged;

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the events do not add up to an answer")
    }
}

/// How a stream in `protocol` ends with `event`; `None` while it goes on.
#[must_use]
pub fn ending(protocol: Protocol, event: &Event) -> Option<Ending> {
    match protocol {
        Protocol::AnthropicMessages => anthropic_messages::ending(event),
        Protocol::OpenAiResponses => openai_responses::ending(event),
        _ => openai_chat::ending(event),
    }
}

impl Recording {
    /// The document that the events add up to.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] when they are no whole answer in this protocol.
    pub fn document(&self) -> Result<Value> {
        let document = match self.protocol() {
            Protocol::AnthropicMessages => anthropic_messages::aggregate(self.events()),
            Protocol::OpenAiResponses => openai_responses::aggregate(self.events()),
            Protocol::OpenAiCompletions => openai_completions::aggregate(self.events()),
            _ => openai_chat::aggregate(self.events()),
        };
        document.map_err(|damaged| {
            Error::new(ErrorKind::InvalidRequest, "a stream cannot be read")
                .with("problem", damaged)
                .with("protocol", self.protocol())
        })
    }

    /// The stream by which a provider would have sent `document`: texts come a word or so at a time.
    #[must_use]
    pub fn of_document(protocol: Protocol, document: &Value) -> Self {
        let events = match protocol {
            Protocol::AnthropicMessages => anthropic_messages::split(document),
            Protocol::OpenAiResponses => openai_responses::split(document),
            Protocol::OpenAiCompletions => openai_completions::split(document),
            _ => openai_chat::split(document),
        };
        Self::new(protocol, events)
    }
}

/// The words of an answer in whatever protocol it is, for comparing what answers say; `None` when the document is
/// of none that is known.
#[must_use]
pub(crate) fn words(document: &Value) -> Option<String> {
    let texts = |list: Option<&Value>, pointer: &str| -> Option<String> {
        let texts: Vec<_> = list?
            .as_array()?
            .iter()
            .filter_map(|item| item.pointer(pointer)?.as_str())
            .collect();
        (!texts.is_empty()).then(|| texts.join("\n"))
    };
    if let Some(first) = document.pointer("/choices/0") {
        let text = first
            .pointer("/message/content")
            .or_else(|| first.get("text"));
        return text.and_then(Value::as_str).map(str::to_owned);
    }
    if let Some(output) = document.get("output").and_then(Value::as_array) {
        let said = output
            .iter()
            .filter_map(|item| texts(item.get("content"), "/text"));
        let said: Vec<_> = said.collect();
        return (!said.is_empty()).then(|| said.join("\n"));
    }
    texts(document.get("content"), "/text")
}

/// What an answer says, tool calls included and ids and times not, for telling the same answer from two calls;
/// `None` when the document is of no protocol that is known.
#[must_use]
pub(crate) fn said(document: &Value) -> Option<String> {
    if let Some(choices) = document.get("choices").and_then(Value::as_array) {
        let said = |choice: &'_ Value| {
            choice
                .get("message")
                .or_else(|| choice.get("text"))
                .cloned()
        };
        let said: Option<Vec<Value>> = choices.iter().map(said).collect();
        return serde_json::to_string(&said?).ok();
    }
    if let Some(items) = document.get("output").and_then(Value::as_array) {
        let mut items = items.clone();
        for item in items.iter_mut().filter_map(Value::as_object_mut) {
            item.remove("id");
        }
        return serde_json::to_string(&items).ok();
    }
    document
        .get("content")
        .filter(|content| content.is_array())
        .map(Value::to_string)
}

/// Most events that one text is cut into.
const MOST_PIECES: usize = 1_000;

/// Cuts a text before its white space, so that each piece is a word or a few; none of an empty text.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let least = text.len().div_ceil(MOST_PIECES).max(2);
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut white = true;
        let cut = rest.char_indices().find_map(|(at, c)| {
            let begins_white = c.is_whitespace() && !white;
            white = c.is_whitespace();
            (begins_white && at >= least).then_some(at)
        });
        let (piece, after) = rest.split_at(cut.unwrap_or(rest.len()));
        rest = after;
        Some(piece)
    })
}

#[cfg(test)]
mod tests;
