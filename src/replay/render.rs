//! A stored answer as a new response, whole or as a stream.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::document::Document;
use super::openai_chat::DONE;
use super::recording::{Make, Player, Recording, Renewal};
use super::sse::Event;
use crate::error::{Error, ErrorKind, Result};
use crate::request::{Protocol, hex};

/// An answer as it is stored.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// Plain text that no provider's protocol was put around.
    Text(&'a str),
    /// A provider's document.
    Document(&'a [u8]),
    /// The stored form of a [`Recording`].
    Recording(&'a str),
}

impl std::fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (kind, bytes) = match self {
            Self::Text(text) => ("Text", text.len()),
            Self::Document(bytes) => ("Document", bytes.len()),
            Self::Recording(text) => ("Recording", text.len()),
        };
        write!(f, "{kind}({bytes} bytes)")
    }
}

/// What tells one response from another that says the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Stamp {
    /// What a new id is made of; `None` keeps ids and times: the answer is the original.
    salt: Option<u128>,
    /// Seconds since 1970.
    created: u64,
    model: String,
    input_tokens: u64,
    output_tokens: u64,
    note: Option<Value>,
}

impl Stamp {
    /// The provider's own id and time.
    #[must_use]
    pub fn original() -> Self {
        Self {
            salt: None,
            ..Self::fresh()
        }
    }

    /// A new id, and the time of now.
    #[must_use]
    pub fn fresh() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            salt: Some(rand::random()),
            created: now.unwrap_or_default().as_secs(),
            model: String::new(),
            input_tokens: 0,
            output_tokens: 0,
            note: None,
        }
    }

    /// Under this id and at this time.
    pub(super) fn with(mut self, id: u128, created: u64) -> Self {
        self.salt = Some(id);
        self.created = created;
        self
    }

    /// An id as it stands in a response, behind the prefix of its kind.
    pub(super) fn id(salt: u128) -> String {
        hex(&salt.to_be_bytes())
    }

    /// The id and the time as they stand in a response.
    pub(super) fn texts(&self) -> (String, String) {
        (
            Self::id(self.salt.unwrap_or_default()),
            self.created.to_string(),
        )
    }

    /// With the model and the tokens to name where the answer itself does not.
    #[must_use]
    pub fn about(mut self, model: &str, input_tokens: u64, output_tokens: u64) -> Self {
        model.clone_into(&mut self.model);
        (self.input_tokens, self.output_tokens) = (input_tokens, output_tokens);
        self
    }

    /// With a note under `askonce` in the response's `usage`: that it was cached, and how it was found.
    #[must_use]
    pub fn note(mut self, note: Value) -> Self {
        self.note = Some(note);
        self
    }
}

/// What a caller wants of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// Whether chat completions and completions end with a chunk that tells the usage
    /// (`stream_options.include_usage`). The other protocols always tell it.
    pub usage: bool,
}

/// The answer as one document.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`] when what is stored is not what `source` says.
pub fn whole(source: Source<'_>, protocol: Protocol, stamp: &Stamp) -> Result<String> {
    Ok(document(source, protocol, stamp)?.to_text())
}

/// The answer as a stream.
///
/// # Errors
/// As [`whole`].
pub fn stream(
    source: Source<'_>,
    protocol: Protocol,
    stamp: &Stamp,
    wanted: Wanted,
) -> Result<Vec<Event>> {
    let has_usage_chunk = matches!(protocol, Protocol::OpenAiChat | Protocol::OpenAiCompletions);
    if let Source::Recording(text) = source {
        let player = Player::read(text)?;
        if player.protocol == protocol {
            let keeps = protocol == Protocol::OpenAiResponses && is_kept_recording(text);
            let mut events = player.play(&renewals(protocol, stamp, keeps))?;
            annotate(protocol, &mut events, stamp);
            if has_usage_chunk {
                choose_usage(&mut events, stamp, wanted);
            }
            return Ok(events);
        }
    }
    let mut document = document(source, protocol, stamp)?;
    if has_usage_chunk {
        match (wanted.usage, document.get("usage")) {
            (false, _) => {
                document.remove("usage");
            }
            (true, None) => document.set("usage", &usage(protocol, stamp)),
            (true, Some(_)) => {}
        }
    }
    let document: Value = serde_json::from_str(&document.to_text()).unwrap_or_default();
    Ok(Recording::of_document(protocol, &document)
        .events()
        .to_vec())
}

/// Whether an event only tells the usage of a chat completion or a completion.
#[must_use]
pub fn is_usage_only(event: &Event) -> bool {
    event.data().contains("\"usage\"")
        && serde_json::from_str::<Value>(event.data()).is_ok_and(|data| {
            data.get("usage").is_some_and(Value::is_object)
                && data
                    .get("choices")
                    .and_then(Value::as_array)
                    .is_some_and(Vec::is_empty)
        })
}

fn document(source: Source<'_>, protocol: Protocol, stamp: &Stamp) -> Result<Document> {
    let wrong = || {
        Error::new(ErrorKind::InvalidRequest, "a stored answer cannot be given")
            .with("problem", "it is no object")
    };
    let mut document = match source {
        Source::Text(text) => {
            let document = around(protocol, text, stamp).to_string();
            Document::read(document.as_bytes()).ok_or_else(wrong)?
        }
        Source::Document(bytes) => Document::read(bytes).ok_or_else(wrong)?,
        Source::Recording(text) => {
            let document = Recording::from_text(text)?.document()?.to_string();
            Document::read(document.as_bytes()).ok_or_else(wrong)?
        }
    };
    let keeps = protocol == Protocol::OpenAiResponses && document.get("store") != Some("false");
    for renewal in renewals(protocol, stamp, keeps) {
        renew(&mut document, &renewal);
    }
    if let Some(note) = &stamp.note {
        document.edit(&["usage"], |usage| usage.set("askonce", note));
    }
    Ok(document)
}

/// Where ids and times of a response are: in its document and in the events of its stream.
fn renewals(protocol: Protocol, stamp: &Stamp, keeps: bool) -> Vec<Renewal> {
    let Some(salt) = stamp.salt.filter(|_| !keeps) else {
        return Vec::new();
    };
    let (ids, times): (&[&'static str], &[&'static str]) = match protocol {
        Protocol::AnthropicMessages => (&["/id", "/message/id"], &[]),
        Protocol::OpenAiResponses => (
            &["/id", "/response/id"],
            &["/created_at", "/response/created_at"],
        ),
        _ => (&["/id"], &["/created"]),
    };
    let ids = ids.iter().map(|pointer| Renewal {
        pointer,
        make: Make::Id(salt),
    });
    let times = times.iter().map(|pointer| Renewal {
        pointer,
        make: Make::Number(stamp.created),
    });
    ids.chain(times).collect()
}

fn renew(document: &mut Document, renewal: &Renewal) {
    let Some(name) = renewal
        .pointer
        .strip_prefix('/')
        .filter(|name| !name.contains('/'))
    else {
        return;
    };
    let new = document.get(name).and_then(|old| renewal.make.apply(old));
    if let Some(new) = new.and_then(|new| serde_json::from_str(&new).ok()) {
        document.set(name, &new);
    }
}

/// Whether the provider keeps the response that a recording ends with.
fn is_kept_recording(text: &str) -> bool {
    let document = Recording::from_text(text).and_then(|recording| recording.document());
    document.is_ok_and(|document| document.get("store") != Some(&Value::Bool(false)))
}

/// Puts the note where a stream tells the usage.
fn annotate(protocol: Protocol, events: &mut [Event], stamp: &Stamp) {
    let Some(note) = &stamp.note else { return };
    let path: &[&str] = match protocol {
        Protocol::OpenAiResponses => &["response", "usage"],
        _ => &["usage"],
    };
    // The usage is told at the end.
    for event in events.iter_mut().rev() {
        if !event.data().contains("\"usage\"") {
            continue;
        }
        let Some(mut document) = Document::read(event.data().as_bytes()) else {
            continue;
        };
        let mut told = false;
        document.edit(path, |usage| {
            usage.set("askonce", note);
            told = true;
        });
        if told {
            *event = event.with_data(document.to_text());
            return;
        }
    }
}

/// Leaves out the chunk that tells the usage, or adds one that the recording lacks.
fn choose_usage(events: &mut Vec<Event>, stamp: &Stamp, wanted: Wanted) {
    let told = events.iter().rposition(is_usage_only);
    match (wanted.usage, told) {
        (false, Some(at)) => {
            events.remove(at);
        }
        (true, None) => {
            let in_a_chunk = events
                .iter()
                .any(|event| event.data().contains("\"usage\":{"));
            let first = events
                .first()
                .and_then(|event| Document::read(event.data().as_bytes()));
            if let (false, Some(mut chunk)) = (in_a_chunk, first) {
                chunk.set("choices", &json!([]));
                chunk.set("usage", &usage(Protocol::OpenAiChat, stamp));
                let end = events.iter().rposition(|event| event.data() == DONE);
                events.insert(end.unwrap_or(events.len()), Event::new(chunk.to_text()));
            }
        }
        _ => {}
    }
}

/// The usage as a protocol words it.
fn usage(protocol: Protocol, stamp: &Stamp) -> Value {
    let (input, output) = (stamp.input_tokens, stamp.output_tokens);
    let mut usage = match protocol {
        Protocol::AnthropicMessages => json!({ "input_tokens": input, "output_tokens": output }),
        Protocol::OpenAiResponses => {
            json!({ "input_tokens": input, "output_tokens": output, "total_tokens": input + output })
        }
        _ => json!({
            "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output,
        }),
    };
    if let Some(note) = &stamp.note {
        usage["askonce"] = note.clone();
    }
    usage
}

/// A document of `protocol` that says `text`.
fn around(protocol: Protocol, text: &str, stamp: &Stamp) -> Value {
    let Stamp { created, model, .. } = stamp;
    let salt = stamp.salt.unwrap_or_else(rand::random);
    let usage = usage(protocol, stamp);
    match protocol {
        Protocol::AnthropicMessages => json!({
            "id": format!("msg_{salt:032x}"), "type": "message", "role": "assistant", "model": model,
            "content": [{ "type": "text", "text": text }],
            "stop_reason": "end_turn", "stop_sequence": null, "usage": usage,
        }),
        Protocol::OpenAiResponses => json!({
            "id": format!("resp_{salt:032x}"), "object": "response", "created_at": created,
            "status": "completed", "model": model, "store": false, "error": null,
            "incomplete_details": null, "parallel_tool_calls": true, "tool_choice": "auto", "tools": [],
            "output": [{
                "id": format!("msg_{salt:032x}"), "type": "message", "status": "completed", "role": "assistant",
                "content": [{ "type": "output_text", "text": text, "annotations": [], "logprobs": [] }],
            }],
            "usage": usage,
        }),
        Protocol::OpenAiCompletions => json!({
            "id": format!("cmpl-{salt:032x}"), "object": "text_completion", "created": created, "model": model,
            "choices": [{ "index": 0, "text": text, "logprobs": null, "finish_reason": "stop" }],
            "usage": usage,
        }),
        _ => json!({
            "id": format!("chatcmpl-{salt:032x}"), "object": "chat.completion", "created": created, "model": model,
            "choices": [{
                "index": 0, "message": { "role": "assistant", "content": text, "refusal": null },
                "logprobs": null, "finish_reason": "stop",
            }],
            "usage": usage,
        }),
    }
}
