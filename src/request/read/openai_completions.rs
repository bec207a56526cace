//! Reading an OpenAI completions body: the form without messages.
//!
//! `prompt` is one text, which a list of that one text equals. Several prompts in one body get several
//! answers in one, and a prompt of tokens has no text to compare: both match exactly only.

use serde_json::{Map, Value};

use super::super::{IneligibleReason, Protocol, Request, Scope};
use super::{Form, Transcript, Turn, Turns, empty_list, read_model, unexpected};
use crate::Result;

const FORM: Form = Form {
    protocol: Protocol::OpenAiCompletions,
    excluded: &[],
    tools: &[],
    turns: &["prompt"],
};

impl Request {
    /// Reads a completions body. `scope` comes from the caller's authentication.
    ///
    /// The body's `cache` object is read as it is for [chat](Self::from_openai_chat).
    ///
    /// ```
    /// use askonce::{Request, Scope};
    /// use serde_json::json;
    ///
    /// let body = json!({ "model": "gpt-3.5-turbo-instruct", "prompt": "Once upon a time" });
    /// let request = Request::from_openai_completions(&body, Scope::tenant("acme"))?;
    /// assert_eq!(request.fuzzy_text(), Some("Once upon a time"));
    /// # Ok::<(), askonce::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidRequest`, naming the field, what was expected and what type was found, when the
    /// body is not an object, `model` is not a string, `prompt` is neither a text nor tokens nor a list
    /// of either, `cache` is malformed, or something nests deeper than
    /// [`MAX_DEPTH`](crate::request::MAX_DEPTH).
    pub fn from_openai_completions(body: &Value, scope: Scope) -> Result<Self> {
        let body = FORM.open(body)?;
        let model = read_model(body)?;
        FORM.request(body, Some(model), read_turns(body)?, scope)
    }
}

fn read_turns(body: &Map<String, Value>) -> Result<Turns> {
    let mut transcript = Transcript::new();
    let prompt = body.get("prompt");
    let items = match prompt {
        Some(Value::String(text)) => {
            Turn::LastUser.write(text, &mut transcript.conversation);
            transcript.last_user(vec![text]);
            return Ok(transcript.finish(None));
        }
        Some(Value::Array(items)) if items.is_empty() => {
            return Err(empty_list("prompt", "at least one prompt"));
        }
        Some(Value::Array(items)) => items,
        other => return Err(unexpected("prompt", "a text or a list", other)),
    };
    if let Some(texts) = items.iter().map(Value::as_str).collect::<Option<Vec<_>>>() {
        let alone = texts.len() == 1;
        if !alone {
            transcript.conversation.list(texts.len());
        }
        for text in &texts {
            Turn::LastUser.write(text, &mut transcript.conversation);
        }
        transcript.last_user(texts);
        let bar = (!alone).then_some(IneligibleReason::PromptList);
        return Ok(transcript.finish(bar));
    }
    for (i, item) in items.iter().enumerate() {
        if !(item.is_number() || is_tokens(item)) {
            let field = format_args!("prompt[{i}]");
            return Err(unexpected(field, "all texts or all tokens", Some(item)));
        }
    }
    prompt
        .into_iter()
        .for_each(|prompt| transcript.conversation.value(prompt));
    Ok(transcript.finish(Some(IneligibleReason::TokenPrompt)))
}

/// Whether a value is a list of at least one token.
pub(super) fn is_tokens(value: &Value) -> bool {
    value
        .as_array()
        .is_some_and(|tokens| !tokens.is_empty() && tokens.iter().all(Value::is_number))
}
