//! Reading an OpenAI chat-completions body, from OpenAI or from any server that speaks it.
//!
//! `system` and `developer` stay different roles. `store` is left out of the keys: what it files is
//! read back by nobody who got the answer from a cache.

use serde_json::{Map, Value};

use super::super::canonical::{Encoder, sorted};
use super::super::{IneligibleReason, Protocol, Request, Scope};
use super::parts::PartForm;
use super::{Form, Transcript, Turn, Turns, read_list, read_model, unexpected};
use crate::Result;

const FORM: Form = Form {
    protocol: Protocol::OpenAiChat,
    excluded: &["store"],
    tools: &[
        "function_call",
        "functions",
        "parallel_tool_calls",
        "tool_choice",
        "tools",
    ],
    turns: &["messages"],
};

const PARTS: PartForm = PartForm {
    text: "text",
    mark: None,
};

impl Request {
    /// Reads a chat-completions body. `scope` comes from the caller's authentication.
    ///
    /// The body's `cache` object (`ttl`, `s-maxage`, `no-cache`, `no-store`, `namespace`,
    /// `use-cache`) becomes the request's [`control`](Request::control) and namespace.
    ///
    /// ```
    /// use askonce::{IneligibleReason, Request, Scope};
    /// use serde_json::json;
    ///
    /// let body = json!({
    ///     "model": "gpt-4o",
    ///     "stream": true,
    ///     "messages": [
    ///         { "role": "user", "content": "What is the weather in Oslo?" },
    ///         { "role": "assistant", "tool_calls": [{ "id": "call_1", "type": "function",
    ///             "function": { "name": "weather", "arguments": "{\"city\":\"Oslo\"}" } }] },
    ///         { "role": "tool", "tool_call_id": "call_1", "content": "-3 degrees, snow" },
    ///     ],
    /// });
    /// let request = Request::from_openai_chat(&body, Scope::tenant("acme"))?;
    /// assert!(request.wants_stream());
    /// assert_eq!(request.eligibility().reason(), Some(IneligibleReason::ToolResultTurn));
    /// # Ok::<(), askonce::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidRequest`, naming the field, what was expected and what type was found, when the
    /// body is not an object, `model` is not a string, `messages` is not a list of messages each
    /// with a role and a content fit for it, `cache` is malformed, or something nests deeper than
    /// [`MAX_DEPTH`](crate::request::MAX_DEPTH).
    pub fn from_openai_chat(body: &Value, scope: Scope) -> Result<Self> {
        let body = FORM.open(body)?;
        let model = read_model(body)?;
        FORM.request(body, Some(model), read_turns(body)?, scope)
    }
}

fn read_turns(body: &Map<String, Value>) -> Result<Turns> {
    let messages: Vec<_> = read_list("messages", "at least one message", body.get("messages"))?
        .iter()
        .enumerate()
        .map(|(i, message)| Message::read(i, message))
        .collect::<Result<_>>()?;
    let last_user = messages.iter().rposition(|message| message.role == "user");

    let mut transcript = Transcript::new();
    transcript.conversation.list(messages.len());
    for (i, message) in messages.iter().enumerate() {
        if Some(i) == last_user {
            message.encode(Turn::LastUser, &mut transcript.conversation);
            transcript.last_user(PARTS.texts(message.content));
        } else {
            message.encode(Turn::Other, &mut transcript.conversation);
            message.each_text(|text| transcript.texts.push(text));
        }
    }
    Ok(transcript.finish(bar(&messages, last_user)))
}

/// Why the order of turns or the parts of the last user turn rule out similarity, if they do.
/// Instructions may follow the user turn: they stay in the partition.
fn bar(messages: &[Message<'_>], last_user: Option<usize>) -> Option<IneligibleReason> {
    let Some(index) = last_user else {
        return Some(IneligibleReason::NoUserTurn);
    };
    let (before, after) = messages.split_at(index + 1);
    let answered = after.iter().rev().find_map(|message| match message.role {
        "system" | "developer" => None,
        "tool" | "function" => Some(IneligibleReason::ToolResultTurn),
        "assistant" => Some(IneligibleReason::AssistantPrefill),
        _ => Some(IneligibleReason::UnknownRoleTurn),
    });
    let only_text = before
        .last()
        .is_some_and(|message| PARTS.is_only_text(message.content));
    answered.or((!only_text).then_some(IneligibleReason::NonTextPart))
}

/// A message whose role and content have been checked.
struct Message<'a> {
    role: &'a str,
    content: Option<&'a Value>,
    fields: &'a Map<String, Value>,
}

impl<'a> Message<'a> {
    fn read(index: usize, message: &'a Value) -> Result<Self> {
        let Value::Object(fields) = message else {
            return Err(unexpected(
                format_args!("messages[{index}]"),
                "an object",
                Some(message),
            ));
        };
        let role = match fields.get("role") {
            Some(Value::String(role)) => role.as_str(),
            other => {
                let field = format_args!("messages[{index}].role");
                return Err(unexpected(field, "a string", other));
            }
        };
        let content = fields.get("content");
        // What a model said may be only tool calls, a refusal or audio.
        let may_be_without = matches!(role, "assistant" | "function");
        if !(may_be_without && content.is_none_or(Value::is_null)) {
            PARTS.check(format_args!("messages[{index}].content"), content)?;
        }
        Ok(Self {
            role,
            content,
            fields,
        })
    }

    /// Writes all fields of the message, but for the texts of the last user turn.
    fn encode(&self, turn: Turn, encoder: &mut Encoder) {
        encoder.map(self.fields.len());
        for (name, value) in sorted(self.fields) {
            encoder.text(name);
            if name == "content" {
                PARTS.encode(value, turn, encoder);
            } else {
                encoder.value(value);
            }
        }
    }

    /// Hands out every text that the model reads: the content, refusals, and for an assistant the
    /// calls it made.
    fn each_text(&self, mut push: impl FnMut(&'a str)) {
        PARTS.texts(self.content).into_iter().for_each(&mut push);
        if self.role != "assistant" {
            return;
        }
        let calls = self.fields.get("tool_calls").and_then(Value::as_array);
        let functions = calls
            .into_iter()
            .flatten()
            .filter_map(|call| call.get("function").or_else(|| call.get("custom")))
            .chain(self.fields.get("function_call"));
        for function in functions {
            for name in ["name", "arguments", "input"] {
                if let Some(Value::String(text)) = function.get(name) {
                    push(text);
                }
            }
        }
        if let Some(Value::String(text)) = self.fields.get("refusal") {
            push(text);
        }
    }
}
