//! Readers: one file for each protocol, from a body to a [`Request`].
//!
//! A reader checks what identity rests on (the model, the turns, their roles and contents) and leaves
//! the rest to the provider: a field it does not know is not an error, it is part of the identity. In
//! the keys, for every protocol:
//! - top-level fields that cannot change the answer are left out, and a top-level `null` counts as
//!   absent, as it does for the provider;
//! - tools and how they may be called, and all other parameters, are two sections of their own;
//! - a content of one bare text part equals that text as a plain string;
//! - turns keep their order and all their fields: names, tool calls, ids, unknown ones. Images and
//!   other parts are hashed with them, so a conversation about another image is another one.
//!
//! The last user turn is the last of the role `user`, alone: user turns before it belong to the
//! conversation. In the partition its texts are blanks, the number of its parts is kept.
//!
//! A body is walked once and not copied, but for its texts.

mod anthropic_messages;
mod openai_chat;
mod openai_completions;
mod openai_embeddings;
mod openai_responses;
mod parts;
mod prompt;

use std::fmt;
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value};

use super::canonical::{Digest, Encoder, deeper_than, sorted};
use super::{
    BypassReason, CacheControl, Content, IneligibleReason, Protocol, Request, Scope, Section, Texts,
};
use super::{control, identity};
use crate::{Error, ErrorKind, Result};

/// How deep a body may nest, itself included; the same as serde_json's own limit for parsing.
pub const MAX_DEPTH: usize = 128;

/// Top-level fields that cannot change the answer in any protocol: how it is delivered, filed or
/// billed, who is said to ask, and the cache's own controls.
const EXCLUDED: [&str; 9] = [
    "cache",
    "metadata",
    "prompt_cache_key",
    "prompt_cache_retention",
    "request_id",
    "safety_identifier",
    "stream",
    "stream_options",
    "user",
];

impl Request {
    /// Reads the body of a call in `protocol`. `scope` comes from the caller's authentication.
    ///
    /// ```
    /// use askonce::{Protocol, Request, Scope};
    /// use serde_json::json;
    ///
    /// let body = json!({ "model": "m", "max_tokens": 64, "messages": [{ "role": "user", "content": "Hi" }] });
    /// let protocol = Protocol::of_path("/v1/messages").expect("a path of a protocol");
    /// let request = Request::read(protocol, &body, Scope::tenant("acme"))?;
    /// assert_eq!(request.last_user_text(), "Hi");
    /// # Ok::<(), askonce::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidRequest` when the body is not one of the protocol: see the reader of each. An embeddings
    /// body with several inputs is several requests ([`from_openai_embeddings`](Self::from_openai_embeddings))
    /// and no one request. `Unsupported` for [`Protocol::Prompt`], which has no body.
    pub fn read(protocol: Protocol, body: &Value, scope: Scope) -> Result<Self> {
        match protocol {
            Protocol::Prompt => Err(Error::new(
                ErrorKind::Unsupported,
                "a plain prompt has no body to read",
            )
            .with("protocol", protocol)),
            Protocol::OpenAiChat => Self::from_openai_chat(body, scope),
            Protocol::OpenAiResponses => Self::from_openai_responses(body, scope),
            Protocol::OpenAiCompletions => Self::from_openai_completions(body, scope),
            Protocol::OpenAiEmbeddings => {
                let mut requests = Self::from_openai_embeddings(body, scope)?;
                match (requests.pop(), requests.len()) {
                    (Some(request), 0) => Ok(request),
                    (_, rest) => Err(Error::new(
                        ErrorKind::InvalidRequest,
                        "an embeddings body holds a request for each input",
                    )
                    .with("field", "input")
                    .with("expected", "one input")
                    .with("found", rest + 1)),
                }
            }
            Protocol::AnthropicMessages => Self::from_anthropic_messages(body, scope),
        }
    }
}

/// What tells one protocol's bodies from another's, as far as all readers need it.
struct Form {
    protocol: Protocol,
    /// Fields that cannot change the answer, beside [`EXCLUDED`].
    excluded: &'static [&'static str],
    /// Fields that belong to the tools' section.
    tools: &'static [&'static str],
    /// Fields that are read as turns.
    turns: &'static [&'static str],
}

impl Form {
    fn excludes(&self, name: &str) -> bool {
        EXCLUDED.contains(&name) || self.excluded.contains(&name)
    }

    fn is_parameter(&self, name: &str) -> bool {
        !(name == "model"
            || self.excludes(name)
            || self.tools.contains(&name)
            || self.turns.contains(&name))
    }

    /// Checks what is common to all bodies: an object, and not too deep.
    fn open<'a>(&self, body: &'a Value) -> Result<&'a Map<String, Value>> {
        let Value::Object(fields) = body else {
            return Err(unexpected("body", "an object", Some(body)));
        };
        check_depth(fields.iter().filter(|(name, _)| !self.excludes(name)))?;
        Ok(fields)
    }

    /// The request of a body whose turns have been read.
    fn request(
        &self,
        body: &Map<String, Value>,
        model: Option<Arc<str>>,
        turns: Turns,
        scope: Scope,
    ) -> Result<Request> {
        let tools = fields_section(Section::Tools, body, |name| self.tools.contains(&name));
        self.request_with_tools(body, model, turns, tools, scope)
    }

    /// As [`request`](Self::request), with the digest of the tools.
    fn request_with_tools(
        &self,
        body: &Map<String, Value>,
        model: Option<Arc<str>>,
        turns: Turns,
        tools: Digest,
        scope: Scope,
    ) -> Result<Request> {
        let (control, namespace) = match body.get("cache") {
            None | Some(Value::Null) => (CacheControl::default(), None),
            Some(object) => control::read_body_object(object)?,
        };
        let content = Content {
            protocol: self.protocol,
            conversation: turns.conversation,
            tools,
            parameters: fields_section(Section::Parameters, body, |name| self.is_parameter(name)),
            prompt: turns.prompt,
            texts: turns.texts,
            bar: turns.bar,
            bypass: turns.bypass,
            stream: body.get("stream") == Some(&Value::Bool(true)),
            reading: OnceLock::new(),
        };
        Ok(Request::new(content, scope).edit(|parts| {
            parts.model = model;
            parts.control = control;
            parts.namespace = namespace.map(Arc::from);
        }))
    }
}

/// What a reader makes of the turns of a body.
struct Turns {
    conversation: Digest,
    prompt: Digest,
    texts: Texts,
    bar: Option<IneligibleReason>,
    bypass: Option<BypassReason>,
}

/// Takes turns one by one, in order, and sets the last user turn's texts apart.
struct Transcript<'a> {
    conversation: Encoder,
    texts: Texts,
    prompt: Vec<&'a str>,
}

impl<'a> Transcript<'a> {
    fn new() -> Self {
        Self {
            conversation: identity::section(Section::Conversation),
            texts: Texts::default(),
            prompt: Vec::new(),
        }
    }

    /// The texts of the last user turn, in order.
    fn last_user(&mut self, texts: Vec<&'a str>) {
        let start = self.texts.ranges.len();
        for text in &texts {
            self.texts.push(text);
        }
        let ranges = self.texts.ranges.get(start..).unwrap_or_default();
        if let (Some(first), Some(last)) = (ranges.first(), ranges.last()) {
            self.texts.last_user = first.start..last.end;
        }
        self.prompt = texts;
    }

    fn finish(self, bar: Option<IneligibleReason>) -> Turns {
        let mut prompt = identity::section(Section::Prompt);
        prompt.list(self.prompt.len());
        for text in &self.prompt {
            prompt.text(text);
        }
        Turns {
            conversation: self.conversation.finish(),
            prompt: prompt.finish(),
            texts: self.texts,
            bar,
            bypass: None,
        }
    }
}

/// Whether a turn is the last of the user, whose texts are left out of the partition.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    LastUser,
    Other,
}

impl Turn {
    fn write(self, text: &str, encoder: &mut Encoder) {
        match self {
            Self::LastUser => encoder.blank(),
            Self::Other => encoder.text(text),
        }
    }
}

fn read_model(body: &Map<String, Value>) -> Result<Arc<str>> {
    match body.get("model") {
        Some(Value::String(model)) => Ok(model.as_str().into()),
        other => Err(unexpected("model", "a string", other)),
    }
}

/// A field that is a list of at least one turn.
fn read_list<'a>(
    field: &'static str,
    expected: &'static str,
    list: Option<&'a Value>,
) -> Result<&'a [Value]> {
    match list {
        Some(Value::Array(items)) if !items.is_empty() => Ok(items),
        Some(Value::Array(_)) => Err(empty_list(field, expected)),
        other => Err(unexpected(field, expected, other)),
    }
}

/// The digest of the top-level fields that `belongs` picks; `null` counts as absent.
fn fields_section(
    section: Section,
    body: &Map<String, Value>,
    belongs: impl Fn(&str) -> bool,
) -> Digest {
    let mut fields = sorted(body);
    fields.retain(|(name, value)| belongs(name) && !value.is_null());
    let mut encoder = identity::section(section);
    encoder.map(fields.len());
    for (name, value) in fields {
        encoder.text(name);
        encoder.value(value);
    }
    encoder.finish()
}

fn check_depth<'a>(mut fields: impl Iterator<Item = (&'a String, &'a Value)>) -> Result<()> {
    match fields.find(|(_, value)| deeper_than(value, MAX_DEPTH - 1)) {
        None => Ok(()),
        Some((name, _)) => Err(
            Error::new(ErrorKind::InvalidRequest, "a field nests too deep")
                .with(
                    "field",
                    name.chars()
                        .take(64)
                        .flat_map(char::escape_default)
                        .collect::<String>(),
                )
                .with("limit", MAX_DEPTH),
        ),
    }
}

/// The error for a list without the item that it must have.
fn empty_list(field: impl fmt::Display, expected: &'static str) -> Error {
    Error::new(ErrorKind::InvalidRequest, "a list is empty")
        .with("field", field)
        .with("expected", expected)
}

/// The error for a field that is missing or of the wrong type. It never shows the value.
pub(super) fn unexpected(
    field: impl fmt::Display,
    expected: &'static str,
    found: Option<&Value>,
) -> Error {
    let found = match found {
        None => "nothing",
        Some(Value::Null) => "null",
        Some(Value::Bool(_)) => "a boolean",
        Some(Value::Number(_)) => "a number",
        Some(Value::String(_)) => "a string",
        Some(Value::Array(_)) => "a list",
        Some(Value::Object(_)) => "an object",
    };
    Error::new(
        ErrorKind::InvalidRequest,
        "a field is missing or of the wrong type",
    )
    .with("field", field)
    .with("expected", expected)
    .with("found", found)
}
