//! Contents: a string, or a list of typed parts of which some are text.

use std::fmt;

use serde_json::{Map, Value};

use super::super::canonical::{Encoder, sorted};
use super::{Turn, unexpected};
use crate::Result;

/// How a protocol writes the parts of a content.
pub(super) struct PartForm {
    /// The type of a text part.
    pub(super) text: &'static str,
    /// A field of a part, and of the parts inside it, that cannot change the answer.
    pub(super) mark: Option<&'static str>,
}

impl PartForm {
    /// The text of a text part.
    pub(super) fn text_of<'a>(&self, part: &'a Value) -> Option<&'a str> {
        if part.get("type")? == self.text {
            part.get("text")?.as_str()
        } else {
            None
        }
    }

    /// The texts of a content, in order.
    pub(super) fn texts<'a>(&self, content: Option<&'a Value>) -> Vec<&'a str> {
        match content {
            Some(Value::String(text)) => vec![text],
            Some(Value::Array(parts)) => parts.iter().filter_map(|p| self.text_of(p)).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether a content holds nothing but text.
    pub(super) fn is_only_text(&self, content: Option<&Value>) -> bool {
        match content {
            Some(Value::Array(parts)) => parts.iter().all(|part| self.text_of(part).is_some()),
            _ => true,
        }
    }

    /// Checks a content: a string, or a list of parts that each have a type, and a text where the type
    /// says so.
    pub(super) fn check(&self, field: impl fmt::Display, content: Option<&Value>) -> Result<()> {
        match content {
            Some(Value::String(_)) => Ok(()),
            Some(Value::Array(parts)) => parts
                .iter()
                .enumerate()
                .try_for_each(|(i, part)| self.check_part(format_args!("{field}[{i}]"), part)),
            other => Err(unexpected(field, "a string or a list of parts", other)),
        }
    }

    fn check_part(&self, place: fmt::Arguments<'_>, part: &Value) -> Result<()> {
        if !part.is_object() {
            return Err(unexpected(place, "an object", Some(part)));
        }
        match part.get("type") {
            Some(Value::String(kind)) if kind == self.text => match part.get("text") {
                Some(Value::String(_)) => Ok(()),
                other => Err(unexpected(format_args!("{place}.text"), "a string", other)),
            },
            Some(Value::String(_)) => Ok(()),
            other => Err(unexpected(format_args!("{place}.type"), "a string", other)),
        }
    }

    /// Writes a content; the texts of the last user turn are blanks.
    pub(super) fn encode(&self, content: &Value, turn: Turn, encoder: &mut Encoder) {
        match content {
            Value::String(text) => turn.write(text, encoder),
            Value::Array(parts) => match self.bare_text(parts) {
                Some(text) => turn.write(text, encoder),
                None => self.encode_parts(parts, turn, encoder),
            },
            other => encoder.value(other),
        }
    }

    /// The text of a content that is one text part with nothing else in it.
    fn bare_text<'a>(&self, parts: &'a [Value]) -> Option<&'a str> {
        let [part] = parts else { return None };
        let text = self.text_of(part)?;
        (self.counted(part.as_object()?).len() == 2).then_some(text)
    }

    fn encode_parts(&self, parts: &[Value], turn: Turn, encoder: &mut Encoder) {
        encoder.list(parts.len());
        for part in parts {
            self.encode_part(part, turn, encoder);
        }
    }

    pub(super) fn encode_part(&self, part: &Value, turn: Turn, encoder: &mut Encoder) {
        let Value::Object(fields) = part else {
            return encoder.value(part);
        };
        let is_text = self.text_of(part).is_some();
        let fields = self.counted(fields);
        encoder.map(fields.len());
        for (name, value) in fields {
            encoder.text(name);
            match (name, value) {
                ("text", Value::String(text)) if is_text => turn.write(text, encoder),
                // What a tool result or a document holds is parts again, with marks of their own.
                ("content", Value::Array(parts)) => self.encode_parts(parts, Turn::Other, encoder),
                ("source", Value::Object(_)) => self.encode_part(value, Turn::Other, encoder),
                _ => encoder.value(value),
            }
        }
    }

    /// The fields that count, in byte order of their names.
    pub(super) fn counted<'a>(&self, fields: &'a Map<String, Value>) -> Vec<(&'a str, &'a Value)> {
        let mut fields = sorted(fields);
        fields.retain(|(name, _)| Some(*name) != self.mark);
        fields
    }
}
