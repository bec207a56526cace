//! Reading an Anthropic messages body.
//!
//! `system` stands before the messages, as a string or as blocks. The marks `cache_control`, at the top
//! and on blocks, system blocks and tools, tell the provider's own prompt cache what to keep: they move
//! from turn to turn, change no answer, and are left out of the keys.

use serde_json::{Map, Value};

use super::super::canonical::{Digest, Encoder, sorted};
use super::super::{
    BypassReason, IneligibleReason, Protocol, Request, Scope, Section, Texts, identity,
};
use super::parts::PartForm;
use super::{Form, Transcript, Turn, Turns, read_list, read_model, unexpected};
use crate::Result;

const MARK: &str = "cache_control";

const FORM: Form = Form {
    protocol: Protocol::AnthropicMessages,
    excluded: &[MARK],
    tools: &["tool_choice", "tools"],
    turns: &["messages", "system"],
};

const BLOCKS: PartForm = PartForm {
    text: "text",
    mark: Some(MARK),
};

impl Request {
    /// Reads a messages body. `scope` comes from the caller's authentication.
    ///
    /// The body's `cache` object is read as it is for [chat](Self::from_openai_chat). A request that
    /// works in a `container` of the provider's [passes by](Self::bypass) the cache.
    ///
    /// ```
    /// use askonce::{IneligibleReason, Request, Scope};
    /// use serde_json::json;
    ///
    /// let body = json!({
    ///     "model": "claude-sonnet-4-5",
    ///     "max_tokens": 1024,
    ///     "system": [{ "type": "text", "text": "Be brief.", "cache_control": { "type": "ephemeral" } }],
    ///     "messages": [
    ///         { "role": "user", "content": "What is the weather in Oslo?" },
    ///         { "role": "assistant", "content": [{ "type": "tool_use", "id": "toolu_1",
    ///             "name": "weather", "input": { "city": "Oslo" } }] },
    ///         { "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "toolu_1",
    ///             "content": "-3 degrees, snow" }] },
    ///     ],
    /// });
    /// let request = Request::from_anthropic_messages(&body, Scope::tenant("acme"))?;
    /// assert_eq!(request.eligibility().reason(), Some(IneligibleReason::ToolResultTurn));
    /// # Ok::<(), askonce::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidRequest`, naming the field, what was expected and what type was found, when the
    /// body is not an object, `model` is not a string, `system` is neither a string nor blocks,
    /// `messages` is not a list of messages each with a role and a content, `cache` is malformed, or
    /// something nests deeper than [`MAX_DEPTH`](crate::request::MAX_DEPTH).
    pub fn from_anthropic_messages(body: &Value, scope: Scope) -> Result<Self> {
        let body = FORM.open(body)?;
        let model = read_model(body)?;
        let mut turns = read_turns(body)?;
        turns.bypass = names_container(body).then_some(BypassReason::ProviderState);
        FORM.request_with_tools(body, Some(model), turns, tools(body), scope)
    }
}

fn read_turns(body: &Map<String, Value>) -> Result<Turns> {
    let mut transcript = Transcript::new();
    match body.get("system") {
        None | Some(Value::Null) => transcript.conversation.null(),
        Some(system) => {
            BLOCKS.check("system", Some(system))?;
            BLOCKS.encode(system, Turn::Other, &mut transcript.conversation);
            push_texts(system, &mut transcript.texts);
        }
    }
    let messages: Vec<_> = read_list("messages", "at least one message", body.get("messages"))?
        .iter()
        .enumerate()
        .map(|(i, message)| Message::read(i, message))
        .collect::<Result<_>>()?;
    let last_user = messages.iter().rposition(|message| message.role == "user");

    transcript.conversation.list(messages.len());
    for (i, message) in messages.iter().enumerate() {
        if Some(i) == last_user {
            message.encode(Turn::LastUser, &mut transcript.conversation);
            transcript.last_user(BLOCKS.texts(Some(message.content)));
            push_other_texts(message.content, &mut transcript.texts);
        } else {
            message.encode(Turn::Other, &mut transcript.conversation);
            push_texts(message.content, &mut transcript.texts);
        }
    }
    Ok(transcript.finish(bar(&messages, last_user)))
}

/// Why the order of turns or the blocks of the last user message rule out similarity, if they do.
fn bar(messages: &[Message<'_>], last_user: Option<usize>) -> Option<IneligibleReason> {
    let Some(index) = last_user else {
        return Some(IneligibleReason::NoUserTurn);
    };
    let (before, after) = messages.split_at(index + 1);
    let answered = after.iter().rev().find_map(|message| match message.role {
        "system" => None,
        "assistant" => Some(IneligibleReason::AssistantPrefill),
        _ => Some(IneligibleReason::UnknownRoleTurn),
    });
    answered.or_else(|| {
        let content = before.last().map(|message| message.content);
        if BLOCKS.is_only_text(content) {
            None
        } else if content.and_then(Value::as_array)?.iter().any(is_result) {
            Some(IneligibleReason::ToolResultTurn)
        } else {
            Some(IneligibleReason::NonTextPart)
        }
    })
}

/// Whether a block is what a tool gave, run by the caller or by the provider.
fn is_result(block: &Value) -> bool {
    let kind = block.get("type").and_then(Value::as_str);
    kind.is_some_and(|kind| kind.ends_with("tool_result"))
}

/// Whether the request names a container of the provider's, whose files it may change.
fn names_container(body: &Map<String, Value>) -> bool {
    match body.get("container") {
        Some(Value::Object(container)) => container.get("id").is_some_and(|id| !id.is_null()),
        Some(Value::String(_)) => true,
        _ => false,
    }
}

/// The tools without the marks on them.
fn tools(body: &Map<String, Value>) -> Digest {
    let mut fields = sorted(body);
    fields.retain(|(name, value)| FORM.tools.contains(name) && !value.is_null());
    let mut encoder = identity::section(Section::Tools);
    encoder.map(fields.len());
    for (name, value) in fields {
        encoder.text(name);
        match value {
            Value::Array(tools) => {
                encoder.list(tools.len());
                for tool in tools {
                    encode_tool(tool, &mut encoder);
                }
            }
            other => encoder.value(other),
        }
    }
    encoder.finish()
}

/// Only the tool itself has a mark: a field of that name in its schema is the schema's.
fn encode_tool(tool: &Value, encoder: &mut Encoder) {
    let Value::Object(fields) = tool else {
        return encoder.value(tool);
    };
    let fields = BLOCKS.counted(fields);
    encoder.map(fields.len());
    for (name, value) in fields {
        encoder.text(name);
        encoder.value(value);
    }
}

/// Hands over every text that the model reads: of text, reasoning, calls and what they gave, documents.
fn push_texts(content: &Value, texts: &mut Texts) {
    match content {
        Value::String(text) => texts.push(text),
        Value::Array(blocks) => blocks.iter().for_each(|block| push_block(block, texts)),
        _ => {}
    }
}

/// The same without the content's own text blocks: results and documents beside them.
fn push_other_texts(content: &Value, texts: &mut Texts) {
    let blocks = content.as_array().into_iter().flatten();
    blocks
        .filter(|block| BLOCKS.text_of(block).is_none())
        .for_each(|block| push_block(block, texts));
}

fn push_block(block: &Value, texts: &mut Texts) {
    for name in ["title", "context", "name", "text", "thinking"] {
        if let Some(Value::String(text)) = block.get(name) {
            texts.push(text);
        }
    }
    if let Some(input) = block.get("input") {
        texts.push(&input.to_string());
    }
    if let Some(content) = block.get("content") {
        push_texts(content, texts);
    }
    match block.get("source") {
        Some(source) if source.get("type").is_some_and(|kind| kind == "text") => {
            if let Some(Value::String(text)) = source.get("data") {
                texts.push(text);
            }
        }
        Some(source) => {
            if let Some(content) = source.get("content") {
                push_texts(content, texts);
            }
        }
        None => {}
    }
}

/// A message whose role and content have been checked.
struct Message<'a> {
    role: &'a str,
    content: &'a Value,
    fields: &'a Map<String, Value>,
}

impl<'a> Message<'a> {
    fn read(index: usize, message: &'a Value) -> Result<Self> {
        let place = format_args!("messages[{index}]");
        let Value::Object(fields) = message else {
            return Err(unexpected(place, "an object", Some(message)));
        };
        let role = match fields.get("role") {
            Some(Value::String(role)) => role.as_str(),
            other => return Err(unexpected(format_args!("{place}.role"), "a string", other)),
        };
        let content = fields.get("content");
        BLOCKS.check(format_args!("{place}.content"), content)?;
        Ok(Self {
            role,
            content: content.unwrap_or(&Value::Null),
            fields,
        })
    }

    /// Writes all fields of the message, but for the texts of the last user turn.
    fn encode(&self, turn: Turn, encoder: &mut Encoder) {
        encoder.map(self.fields.len());
        for (name, value) in sorted(self.fields) {
            encoder.text(name);
            if name == "content" {
                BLOCKS.encode(value, turn, encoder);
            } else {
                encoder.value(value);
            }
        }
    }
}
