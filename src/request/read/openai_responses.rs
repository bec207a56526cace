//! Reading an OpenAI responses body.
//!
//! `input` is a string, which equals one user message, or a list of items: messages, calls of tools,
//! what they gave, reasoning. `instructions` stand before them. `previous_response_id` counts: it names
//! the conversation that the provider keeps, and that one never changes. So does `store`: what is
//! stored can be asked for by its id later.
//!
//! Two kinds of request change more than they answer, and pass by the cache: those that append to a
//! `conversation` or work in a container of the provider's, and those that run in the `background`.

use serde_json::{Map, Value};

use super::super::canonical::{Encoder, sorted};
use super::super::{BypassReason, IneligibleReason, Protocol, Request, Scope};
use super::parts::PartForm;
use super::{Form, Transcript, Turn, Turns, read_model, unexpected};
use crate::Result;

const FORM: Form = Form {
    protocol: Protocol::OpenAiResponses,
    // A request with `background: true` is never cached; `false` is the default.
    excluded: &["background"],
    tools: &[
        "max_tool_calls",
        "parallel_tool_calls",
        "tool_choice",
        "tools",
    ],
    turns: &["input", "instructions"],
};

const INPUT: PartForm = PartForm {
    text: "input_text",
    mark: None,
};

/// What the model said, given back to it.
const OUTPUT: PartForm = PartForm {
    text: "output_text",
    mark: None,
};

impl Request {
    /// Reads a responses body. `scope` comes from the caller's authentication.
    ///
    /// The body's `cache` object is read as it is for [chat](Self::from_openai_chat).
    ///
    /// ```
    /// use askonce::{Request, Scope};
    /// use serde_json::json;
    ///
    /// let text = json!({ "model": "gpt-4o", "input": "What is a monad?" });
    /// let items = json!({ "model": "gpt-4o", "input": [{ "role": "user", "content": [
    ///     { "type": "input_text", "text": "What is a monad?" },
    /// ] }] });
    /// let [text, items] = [text, items].map(|body| {
    ///     Request::from_openai_responses(&body, Scope::tenant("acme"))
    /// });
    /// assert_eq!(text?.exact_key(), items?.exact_key());
    /// # Ok::<(), askonce::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidRequest`, naming the field, what was expected and what type was found, when the
    /// body is not an object, `model` is not a string (a body that names a stored `prompt` may leave it
    /// out), `input` is neither a string nor a list of items, an item is no object with a type,
    /// a message has no role or no content, `cache` is malformed, or something nests deeper than
    /// [`MAX_DEPTH`](crate::request::MAX_DEPTH).
    pub fn from_openai_responses(body: &Value, scope: Scope) -> Result<Self> {
        let body = FORM.open(body)?;
        let model = match body.get("model") {
            None | Some(Value::Null) if body.get("prompt").is_some_and(Value::is_object) => None,
            _ => Some(read_model(body)?),
        };
        let mut turns = read_turns(body)?;
        turns.bypass = bypass(body);
        FORM.request(body, model, turns, scope)
    }
}

fn read_turns(body: &Map<String, Value>) -> Result<Turns> {
    let mut transcript = Transcript::new();
    match body.get("instructions") {
        None | Some(Value::Null) => transcript.conversation.null(),
        Some(Value::String(text)) => {
            transcript.conversation.text(text);
            transcript.texts.push(text);
        }
        other => return Err(unexpected("instructions", "a string", other)),
    }
    match body.get("input") {
        // A stored prompt or a stored response may be all there is to answer.
        None | Some(Value::Null) => {
            transcript.conversation.list(0);
            Ok(transcript.finish(Some(IneligibleReason::NoUserTurn)))
        }
        Some(Value::String(text)) => {
            transcript.conversation.list(1);
            encode_plain_user_message(&mut transcript.conversation);
            transcript.last_user(vec![text]);
            Ok(transcript.finish(None))
        }
        Some(Value::Array(items)) => {
            let items: Vec<_> = items
                .iter()
                .enumerate()
                .map(|(i, item)| Item::read(i, item))
                .collect::<Result<_>>()?;
            Ok(read_items(transcript, &items))
        }
        other => Err(unexpected("input", "a string or a list of items", other)),
    }
}

fn read_items<'a>(mut transcript: Transcript<'a>, items: &[Item<'a>]) -> Turns {
    let last_user = items.iter().rposition(|item| item.role == Some("user"));
    transcript.conversation.list(items.len());
    for (i, item) in items.iter().enumerate() {
        if Some(i) == last_user {
            item.encode(Turn::LastUser, &mut transcript.conversation);
            transcript.last_user(INPUT.texts(item.fields.get("content")));
        } else {
            item.encode(Turn::Other, &mut transcript.conversation);
            item.each_text(|text| transcript.texts.push(text));
        }
    }
    transcript.finish(bar(items, last_user))
}

/// The same bytes as for an item `{"role": "user", "content": TEXT}` whose text is left out.
fn encode_plain_user_message(encoder: &mut Encoder) {
    encoder.map(2);
    encoder.text("content");
    encoder.blank();
    encoder.text("role");
    encoder.text("user");
}

/// Why the order of items or the parts of the last user message rule out similarity, if they do.
/// Instructions may follow the user message: they stay in the partition.
fn bar(items: &[Item<'_>], last_user: Option<usize>) -> Option<IneligibleReason> {
    let Some(index) = last_user else {
        return Some(IneligibleReason::NoUserTurn);
    };
    let (before, after) = items.split_at(index + 1);
    let answered = after.iter().rev().find_map(|item| match item.role {
        Some("system" | "developer") => None,
        Some("assistant") => Some(IneligibleReason::AssistantPrefill),
        None if item.kind.ends_with("_output") => Some(IneligibleReason::ToolResultTurn),
        _ => Some(IneligibleReason::UnknownRoleTurn),
    });
    let only_text = before
        .last()
        .is_some_and(|item| INPUT.is_only_text(item.fields.get("content")));
    answered.or((!only_text).then_some(IneligibleReason::NonTextPart))
}

fn bypass(body: &Map<String, Value>) -> Option<BypassReason> {
    let names_container = |tool: &Value| tool.get("container").is_some_and(Value::is_string);
    let tools = body.get("tools").and_then(Value::as_array);
    if body.get("background") == Some(&Value::Bool(true)) {
        Some(BypassReason::Background)
    } else if body.get("conversation").is_some_and(|c| !c.is_null())
        || tools.is_some_and(|tools| tools.iter().any(names_container))
    {
        Some(BypassReason::ProviderState)
    } else {
        None
    }
}

/// An item whose type, or role and content, have been checked.
struct Item<'a> {
    kind: &'a str,
    /// Of a message.
    role: Option<&'a str>,
    fields: &'a Map<String, Value>,
}

impl<'a> Item<'a> {
    fn read(index: usize, item: &'a Value) -> Result<Self> {
        let place = format_args!("input[{index}]");
        let Value::Object(fields) = item else {
            return Err(unexpected(place, "an object", Some(item)));
        };
        let kind = match fields.get("type") {
            Some(Value::String(kind)) => kind.as_str(),
            // The type of these two may be left out.
            None | Some(Value::Null) if fields.contains_key("role") => "message",
            None | Some(Value::Null) if fields.contains_key("id") => "item_reference",
            other => return Err(unexpected(format_args!("{place}.type"), "a string", other)),
        };
        if kind != "message" {
            return Ok(Self {
                kind,
                role: None,
                fields,
            });
        }
        let role = match fields.get("role") {
            Some(Value::String(role)) => role.as_str(),
            other => return Err(unexpected(format_args!("{place}.role"), "a string", other)),
        };
        parts_of(role).check(format_args!("{place}.content"), fields.get("content"))?;
        Ok(Self {
            kind,
            role: Some(role),
            fields,
        })
    }

    /// Writes all fields of the item, but for the type of a message, which may be left out, and the
    /// texts of the last user message.
    fn encode(&self, turn: Turn, encoder: &mut Encoder) {
        let mut fields = sorted(self.fields);
        if self.role.is_some() {
            fields.retain(|(name, _)| *name != "type");
        }
        encoder.map(fields.len());
        for (name, value) in fields {
            encoder.text(name);
            match self.role {
                Some(role) if name == "content" => parts_of(role).encode(value, turn, encoder),
                _ => encoder.value(value),
            }
        }
    }

    /// Hands out every text that the model reads: what messages say, what calls are made of and what
    /// they gave, reasoning as far as it is plain.
    fn each_text(&self, mut push: impl FnMut(&'a str)) {
        for name in ["name", "arguments", "input", "content", "summary", "output"] {
            match self.fields.get(name) {
                Some(Value::String(text)) => push(text),
                Some(Value::Array(parts)) => {
                    for part in parts {
                        for name in ["text", "refusal", "stdout", "stderr"] {
                            if let Some(Value::String(text)) = part.get(name) {
                                push(text);
                            }
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

fn parts_of(role: &str) -> PartForm {
    if role == "assistant" { OUTPUT } else { INPUT }
}
