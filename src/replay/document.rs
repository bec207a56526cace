//! JSON objects whose fields keep their order and their bytes.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::request::Protocol;

/// A JSON object that is taken apart at its top level only: what is inside keeps the bytes that its writer
/// chose, number spellings and field order included.
pub struct Document(Vec<(String, Box<RawValue>)>);

impl Document {
    /// Reads an object; `None` when the bytes are anything else.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// The bytes of a field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.get())
    }

    /// Sets a field, in its place if it is there and at the end if not.
    pub fn set(&mut self, name: &str, value: &Value) {
        self.set_raw(name, value.to_string());
    }

    fn set_raw(&mut self, name: &str, value: String) {
        let Ok(value) = RawValue::from_string(value) else {
            return;
        };
        match self.0.iter_mut().find(|(field, _)| field == name) {
            Some((_, slot)) => *slot = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// Takes a field out; whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|(field, _)| field != name);
        self.0.len() < before
    }

    /// Changes the object that the fields of `path` lead to, if they lead to one; an empty path is this one.
    pub fn edit(&mut self, path: &[&str], change: impl FnOnce(&mut Self)) {
        let Some((name, rest)) = path.split_first() else {
            return change(self);
        };
        let Some(mut inner) = self
            .get(name)
            .and_then(|value| Self::read(value.as_bytes()))
        else {
            return;
        };
        inner.edit(rest, change);
        self.set_raw(name, inner.to_text());
    }

    /// The object as JSON without white space of its own.
    #[must_use]
    pub fn to_text(&self) -> String {
        let bytes = self
            .0
            .iter()
            .map(|(n, value)| n.len() + value.get().len() + 8);
        let mut text = String::with_capacity(bytes.sum());
        text.push('{');
        for (i, (name, value)) in self.0.iter().enumerate() {
            if i > 0 {
                text.push(',');
            }
            text.push_str(&Value::from(name.as_str()).to_string());
            text.push(':');
            text.push_str(value.get());
        }
        text.push('}');
        text
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Document({} fields)", self.0.len())
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Document;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Document(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// The body of a request for a stream with the wish to be told the usage at its end
/// (`stream_options.include_usage`), all else as it was. `None` in protocols that always tell it, and where the body
/// is no JSON object.
///
/// A caller that did not ask must not get the event that tells it: [`is_usage_only`](super::is_usage_only).
#[must_use]
pub fn asking_for_usage(protocol: Protocol, body: &[u8]) -> Option<Vec<u8>> {
    if !matches!(protocol, Protocol::OpenAiChat | Protocol::OpenAiCompletions) {
        return None;
    }
    let mut document = Document::read(body)?;
    if document
        .get("stream_options")
        .is_none_or(|options| options == "null")
    {
        document.set("stream_options", &json!({ "include_usage": true }));
    } else {
        document.edit(&["stream_options"], |options| {
            options.set("include_usage", &json!(true));
        });
    }
    Some(document.to_text().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_leaves_all_other_bytes() {
        let body =
            br#"{"model": "m", "cache":{"ttl":5}, "temperature":1.00, "a":{"b":{"c": 1e0,"d":2}}}"#;
        let mut document = Document::read(body).unwrap();
        assert!(document.remove("cache") && !document.remove("cache"));
        document.edit(&["a", "b"], |b| b.set("d", &json!("two")));
        document.edit(&["a", "nothing", "there"], |_| panic!("it is not there"));
        document.edit(&["model", "x"], |_| panic!("it is no object"));
        assert_eq!(
            document.to_text(),
            r#"{"model":"m","temperature":1.00,"a":{"b":{"c":1e0,"d":"two"}}}"#
        );
        assert!(Document::read(b"[1]").is_none());
    }

    #[test]
    fn the_wish_for_usage_joins_the_callers_own() {
        let asking = |body: &str| {
            let body = asking_for_usage(Protocol::OpenAiChat, body.as_bytes()).unwrap();
            String::from_utf8(body).unwrap()
        };
        assert_eq!(
            asking(r#"{"a": 1.0,"stream":true}"#),
            r#"{"a":1.0,"stream":true,"stream_options":{"include_usage":true}}"#
        );
        assert_eq!(
            asking(r#"{"stream_options":{"include_obfuscation":false,"include_usage":false}}"#),
            r#"{"stream_options":{"include_obfuscation":false,"include_usage":true}}"#
        );
        assert!(asking_for_usage(Protocol::AnthropicMessages, b"{}").is_none());
    }
}
