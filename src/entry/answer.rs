//! What is given back to the caller.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};
use crate::replay::{self, Recording, Source};

/// How the bytes of an answer are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Media {
    /// Plain UTF-8 text.
    Text,
    /// One JSON document: for a protocol request, the provider's response body as it came.
    Json,
    /// A provider's stream, as its events came: the stored form of a [`Recording`].
    Stream,
}

/// An answer: bytes that are always valid in their [`Media`]. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    media: Media,
    #[serde(with = "body")]
    body: Bytes,
}

impl Answer {
    /// A plain text answer.
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            media: Media::Text,
            body: Bytes::from(text.into()),
        }
    }

    /// A JSON answer from its bytes, kept as they are.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] when the bytes are not one JSON document.
    pub fn json(body: impl Into<Bytes>) -> Result<Self> {
        let body = body.into();
        serde_json::from_slice::<serde::de::IgnoredAny>(&body).map_err(|error| {
            Error::new(
                ErrorKind::InvalidRequest,
                "the answer is not a JSON document",
            )
            .with("line", error.line())
            .with("column", error.column())
        })?;
        Ok(Self {
            media: Media::Json,
            body,
        })
    }

    /// The answer that a stream gave.
    #[must_use]
    pub fn stream(recording: &Recording) -> Self {
        Self {
            media: Media::Stream,
            body: Bytes::from(recording.to_text()),
        }
    }

    /// How the bytes are to be read.
    #[must_use]
    pub fn media(&self) -> Media {
        self.media
    }

    /// The bytes.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The bytes as text: the answer itself, its JSON document, or the stored form of a stream.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or_default()
    }

    /// The answer as a JSON value: the document, what a stream adds up to, or the text as a JSON string.
    #[must_use]
    pub fn to_value(&self) -> Value {
        match self.media {
            Media::Text => Value::String(self.as_str().to_owned()),
            Media::Json => serde_json::from_slice(&self.body).unwrap_or(Value::Null),
            Media::Stream => Recording::from_text(self.as_str())
                .and_then(|recording| recording.document())
                .unwrap_or(Value::Null),
        }
    }

    /// The answer, to be [given](crate::replay) in a provider's protocol.
    #[must_use]
    pub fn source(&self) -> Source<'_> {
        match self.media {
            Media::Text => Source::Text(self.as_str()),
            Media::Json => Source::Document(&self.body),
            Media::Stream => Source::Recording(self.as_str()),
        }
    }

    /// What the answer says, without the protocol around it: for counting and comparing.
    #[must_use]
    pub(crate) fn words(&self) -> Cow<'_, str> {
        match self.media {
            Media::Text => Cow::Borrowed(self.as_str()),
            Media::Json | Media::Stream => replay::words(&self.to_value())
                .map_or_else(|| Cow::Borrowed(self.as_str()), Cow::Owned),
        }
    }
}

impl From<Value> for Answer {
    /// A JSON string becomes a text answer, anything else a JSON answer.
    fn from(value: Value) -> Self {
        match value {
            Value::String(text) => Self::text(text),
            other => Self {
                media: Media::Json,
                body: Bytes::from(other.to_string()),
            },
        }
    }
}

impl fmt::Debug for Answer {
    /// Shows the kind and the size, never the content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer({:?}, {} bytes)", self.media, self.body.len())
    }
}

/// Bytes as text, which is what they are: binary formats store them in one run, without a copy more
/// than needed, and bytes that are not UTF-8 never come back from a store.
mod body {
    use bytes::Bytes;
    use serde::de::Error as _;
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(body: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(std::str::from_utf8(body).map_err(S::Error::custom)?)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(d).map_err(D::Error::custom)?;
        Ok(Bytes::from(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_answers_keep_their_bytes() {
        let answer = Answer::json(&b"{ \"b\": 1,  \"a\": 2 }"[..]).unwrap();
        assert_eq!(answer.as_str(), "{ \"b\": 1,  \"a\": 2 }");
        assert!(Answer::json(&b"{\"a\":"[..]).is_err());
        assert!(Answer::json(&b"\xff\xfe"[..]).is_err());
    }

    #[test]
    fn a_json_string_is_a_text_answer() {
        assert_eq!(
            Answer::from(Value::String("yes".into())),
            Answer::text("yes")
        );
        assert_eq!(Answer::text("yes").to_value(), Value::String("yes".into()));
    }

    #[test]
    fn debug_never_shows_the_answer() {
        assert_eq!(
            format!("{:?}", Answer::text("secret")),
            "Answer(Text, 6 bytes)"
        );
    }
}
