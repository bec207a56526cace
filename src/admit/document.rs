//! What a whole response document says of itself, by protocol.
//!
//! Providers add finish reasons and kinds of items. A reason to stop that is not known here is no good
//! reason; an item that is not known is left alone, unless it is a call.

use serde_json::Value;

use super::{Refused, matches, refusal};
use crate::request::Protocol;

/// What is judged by.
pub(super) struct Rules {
    safe_tools: Vec<String>,
    refusal_texts: bool,
}

impl Rules {
    pub(super) fn new(safe_tools: &[String], refusal_texts: bool) -> Self {
        Self {
            safe_tools: safe_tools.to_vec(),
            refusal_texts,
        }
    }

    /// Whether a text by itself is an answer.
    pub(super) fn text(&self, text: &str) -> Result<(), Refused> {
        if self.refusal_texts && refusal::is_refusal(text) {
            Err(Refused::Refusal)
        } else {
            Ok(())
        }
    }
}

/// Whether a document of `protocol` may be kept; `named` are tools that are safe for this request.
pub(super) fn judge(
    rules: &Rules,
    protocol: Protocol,
    document: &Value,
    named: &dyn Fn(&str) -> bool,
) -> Result<(), Refused> {
    if is_there(document.get("error"))
        || document.get("type").and_then(Value::as_str) == Some("error")
    {
        return Err(Refused::Error);
    }
    let judge = Judge { rules, named };
    match protocol {
        Protocol::Prompt => judge.prompt(document),
        Protocol::OpenAiChat => judge.choices(document, Judge::chat_choice),
        Protocol::OpenAiCompletions => judge.choices(document, Judge::completion_choice),
        Protocol::OpenAiResponses => judge.response(document),
        Protocol::AnthropicMessages => judge.message(document),
        Protocol::OpenAiEmbeddings => Judge::embeddings(document),
    }
}

struct Judge<'a> {
    rules: &'a Rules,
    named: &'a dyn Fn(&str) -> bool,
}

/// What was found in one answer.
#[derive(Default)]
struct Found {
    text: String,
    /// Something else than text: a call, audio, an image.
    other: bool,
}

impl Judge<'_> {
    fn prompt(&self, document: &Value) -> Result<(), Refused> {
        match document {
            Value::Null => Err(Refused::EmptyAnswer),
            Value::String(text) if text.trim().is_empty() => Err(Refused::EmptyAnswer),
            Value::String(text) => self.rules.text(text),
            _ => Ok(()),
        }
    }

    fn choices(
        &self,
        document: &Value,
        judge: fn(&Self, &Value) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        let choices = document.get("choices").and_then(Value::as_array);
        match choices {
            Some(choices) if !choices.is_empty() => {
                choices.iter().try_for_each(|choice| judge(self, choice))
            }
            _ => Err(Refused::NotAnAnswer),
        }
    }

    fn chat_choice(&self, choice: &Value) -> Result<(), Refused> {
        let message = choice.get("message").ok_or(Refused::NotAnAnswer)?;
        if is_there(choice.get("error")) {
            return Err(Refused::Error);
        }
        finish(choice.get("finish_reason"))?;
        let mut found = Found::default();
        for call in list(message, "tool_calls") {
            let called = call.get("function").or_else(|| call.get("custom"));
            self.call(called.and_then(|called| called.get("name")))?;
            found.other = true;
        }
        if let Some(call) = message.get("function_call").filter(|call| !call.is_null()) {
            self.call(call.get("name"))?;
            found.other = true;
        }
        if is_there(message.get("refusal")) {
            return Err(Refused::Refusal);
        }
        match message.get("content") {
            Some(Value::String(text)) => found.text.push_str(text),
            Some(Value::Array(parts)) => parts.iter().try_for_each(|part| found.part(part))?,
            _ => {}
        }
        found.other |= is_there(message.get("audio")) || is_there(message.get("images"));
        self.whole(&found)
    }

    fn completion_choice(&self, choice: &Value) -> Result<(), Refused> {
        let text = choice.get("text").and_then(Value::as_str);
        let text = text.ok_or(Refused::NotAnAnswer)?;
        finish(choice.get("finish_reason"))?;
        self.whole(&Found {
            text: text.to_owned(),
            other: false,
        })
    }

    fn response(&self, document: &Value) -> Result<(), Refused> {
        let items = document.get("output").and_then(Value::as_array);
        let items = items.ok_or(Refused::NotAnAnswer)?;
        match document.get("status").and_then(Value::as_str) {
            None | Some("completed") => {}
            Some("incomplete") => {
                let details = document.get("incomplete_details");
                finish(details.and_then(|details| details.get("reason")))?;
                return Err(Refused::Unfinished);
            }
            Some("failed" | "cancelled") => return Err(Refused::Failed),
            Some(_) => return Err(Refused::Unfinished),
        }
        let mut found = Found::default();
        for item in items {
            let kind = item.get("type").and_then(Value::as_str);
            if item.get("status").and_then(Value::as_str) == Some("incomplete") {
                return Err(Refused::Unfinished);
            }
            match kind.unwrap_or_default() {
                "message" => list(item, "content").try_for_each(|part| found.part(part))?,
                // What the provider runs by itself is part of the answer.
                "web_search_call" | "file_search_call" | "code_interpreter_call" => {}
                "image_generation_call" => found.other = true,
                "function_call" | "custom_tool_call" | "mcp_call" | "mcp_approval_request" => {
                    self.call(item.get("name"))?;
                    found.other = true;
                }
                call if call.ends_with("_call") => {
                    self.call(item.get("type"))?;
                    found.other = true;
                }
                _ => {}
            }
        }
        self.whole(&found)
    }

    fn message(&self, document: &Value) -> Result<(), Refused> {
        let blocks = document.get("content").and_then(Value::as_array);
        let blocks = blocks.ok_or(Refused::NotAnAnswer)?;
        finish(document.get("stop_reason"))?;
        let mut found = Found::default();
        for block in blocks {
            match block
                .get("type")
                .and_then(Value::as_str)
                .unwrap_or_default()
            {
                "tool_use" | "mcp_tool_use" => {
                    self.call(block.get("name"))?;
                    found.other = true;
                }
                "text" => found.part(block)?,
                _ => {}
            }
        }
        self.whole(&found)
    }

    fn embeddings(document: &Value) -> Result<(), Refused> {
        let rows = document.get("data").and_then(Value::as_array);
        let rows = rows.ok_or(Refused::NotAnAnswer)?;
        let whole = |row: &Value| is_there(row.get("embedding"));
        if !rows.is_empty() && rows.iter().all(whole) {
            Ok(())
        } else {
            Err(Refused::EmptyAnswer)
        }
    }

    /// A call is kept where calling the tool again is as good as calling it once.
    fn call(&self, name: Option<&Value>) -> Result<(), Refused> {
        let name = name.and_then(Value::as_str).ok_or(Refused::ToolCalls)?;
        let mut safe = self.rules.safe_tools.iter();
        if safe.any(|safe| matches(safe, name)) || (self.named)(name) {
            Ok(())
        } else {
            Err(Refused::ToolCalls)
        }
    }

    fn whole(&self, found: &Found) -> Result<(), Refused> {
        match (found.text.trim().is_empty(), found.other) {
            (true, false) => Err(Refused::EmptyAnswer),
            (false, false) => self.rules.text(&found.text),
            (_, true) => Ok(()),
        }
    }
}

impl Found {
    /// Takes in a part of a message.
    fn part(&mut self, part: &Value) -> Result<(), Refused> {
        match part.get("type").and_then(Value::as_str) {
            Some("refusal") => Err(Refused::Refusal),
            Some("text" | "output_text") | None => {
                let text = part.get("text").and_then(Value::as_str);
                self.text.push_str(text.unwrap_or_default());
                Ok(())
            }
            // A model's thoughts are no answer.
            Some("reasoning" | "thinking" | "redacted_thinking") => Ok(()),
            Some(_) => {
                self.other = true;
                Ok(())
            }
        }
    }
}

/// Why a model stopped. Where nothing is said, it is believed to have ended; `null` is what is said of an
/// answer that goes on.
fn finish(reason: Option<&Value>) -> Result<(), Refused> {
    let reason = match reason {
        None => return Ok(()),
        Some(reason) => reason.as_str().ok_or(Refused::Unfinished)?,
    };
    match reason.to_ascii_lowercase().as_str() {
        "stop" | "eos" | "eos_token" | "end_turn" | "stop_sequence" | "tool_calls" | "tool_use"
        | "function_call" | "complete" | "completed" => Ok(()),
        "length"
        | "max_tokens"
        | "max_output_tokens"
        | "model_length"
        | "model_context_window_exceeded" => Err(Refused::Length),
        "content_filter" | "safety" | "recitation" | "blocklist" | "prohibited_content" => {
            Err(Refused::ContentFilter)
        }
        "refusal" => Err(Refused::Refusal),
        "pause_turn" => Err(Refused::Paused),
        "error" | "failed" | "cancelled" | "abort" | "aborted" => Err(Refused::Failed),
        _ => Err(Refused::Unfinished),
    }
}

fn list<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value
        .get(name)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// Whether there is something: no `null`, no empty text, list or object.
fn is_there(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(fields)) => !fields.is_empty(),
        Some(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ask(protocol: Protocol, document: &Value) -> Result<(), Refused> {
        let rules = Rules::new(&["get_weather".to_owned(), "search_*".to_owned()], true);
        judge(&rules, protocol, document, &|tool| tool == "lookup")
    }

    fn chat(finish: &str, message: &Value) -> Result<(), Refused> {
        let body = json!({ "choices": [{ "finish_reason": finish, "message": message }] });
        ask(Protocol::OpenAiChat, &body)
    }

    #[test]
    fn a_chat_completion_is_kept_when_it_is_whole() {
        let text = json!({ "role": "assistant", "content": "Yes.", "refusal": null });
        assert_eq!(chat("stop", &text), Ok(()));
        assert_eq!(chat("length", &text), Err(Refused::Length));
        assert_eq!(chat("content_filter", &text), Err(Refused::ContentFilter));
        assert_eq!(chat("error", &text), Err(Refused::Failed));
        assert_eq!(chat("something_new", &text), Err(Refused::Unfinished));
        let refused = json!({ "content": null, "refusal": "No." });
        assert_eq!(chat("stop", &refused), Err(Refused::Refusal));
        for empty in [
            json!({ "content": "  " }),
            json!({ "content": null }),
            json!({ "content": [] }),
            json!({ "content": null, "tool_calls": [] }),
            json!({ "content": "", "reasoning_content": "hmm" }),
        ] {
            assert_eq!(chat("stop", &empty), Err(Refused::EmptyAnswer), "{empty}");
        }
        let spoken = json!({ "content": null, "audio": { "id": "a", "data": "AAAA" } });
        assert_eq!(chat("stop", &spoken), Ok(()));
        for (body, reason) in [
            (json!({ "choices": [] }), Refused::NotAnAnswer),
            (json!([]), Refused::NotAnAnswer),
            (
                json!({ "choices": [{ "finish_reason": "stop" }] }),
                Refused::NotAnAnswer,
            ),
            (json!({ "error": { "message": "quota" } }), Refused::Error),
            (
                json!({ "choices": [{ "finish_reason": null, "message": text }] }),
                Refused::Unfinished,
            ),
            (
                json!({ "choices": [
                    { "finish_reason": "stop", "message": text },
                    { "finish_reason": "length", "message": text },
                ] }),
                Refused::Length,
            ),
        ] {
            assert_eq!(ask(Protocol::OpenAiChat, &body), Err(reason), "{body}");
        }
        let unsaid = json!({ "choices": [{ "message": text }] });
        assert_eq!(ask(Protocol::OpenAiChat, &unsaid), Ok(()));
    }

    #[test]
    fn calls_are_kept_when_every_tool_is_safe() {
        let calls = |names: &[&str]| {
            let calls: Vec<_> = names
                .iter()
                .map(|name| json!({ "type": "function", "function": { "name": name } }))
                .collect();
            chat(
                "tool_calls",
                &json!({ "content": null, "tool_calls": calls }),
            )
        };
        assert_eq!(calls(&["get_weather"]), Ok(()));
        assert_eq!(calls(&["search_docs", "lookup"]), Ok(()));
        assert_eq!(
            calls(&["get_weather", "send_mail"]),
            Err(Refused::ToolCalls)
        );
        let unnamed = json!({ "tool_calls": [{}] });
        assert_eq!(chat("tool_calls", &unnamed), Err(Refused::ToolCalls));
        let custom =
            json!({ "tool_calls": [{ "type": "custom", "custom": { "name": "search_sql" } }] });
        assert_eq!(chat("tool_calls", &custom), Ok(()));
        let old = json!({ "content": null, "function_call": { "name": "send_mail" } });
        assert_eq!(chat("function_call", &old), Err(Refused::ToolCalls));
    }

    #[test]
    fn a_completion_of_the_older_protocol_is_judged_alike() {
        let ask = |finish: Value, text: &str| {
            let body = json!({ "choices": [{ "finish_reason": finish, "text": text }] });
            ask(Protocol::OpenAiCompletions, &body)
        };
        assert_eq!(ask(json!("stop"), "Yes."), Ok(()));
        assert_eq!(ask(json!("length"), "Yes."), Err(Refused::Length));
        assert_eq!(ask(json!(null), "Yes."), Err(Refused::Unfinished));
        assert_eq!(ask(json!("stop"), "\n"), Err(Refused::EmptyAnswer));
    }

    #[test]
    fn a_response_is_judged_by_its_status_and_its_items() {
        let said = json!({ "type": "message", "status": "completed",
            "content": [{ "type": "output_text", "text": "Yes.", "annotations": [] }] });
        let response = |status: &str, output: Value| json!({ "object": "response", "status": status, "error": null, "output": output });
        let ask = |body: &Value| ask(Protocol::OpenAiResponses, body);
        assert_eq!(ask(&response("completed", json!([said]))), Ok(()));
        let thought = json!({ "type": "reasoning", "summary": [] });
        assert_eq!(ask(&response("completed", json!([thought, said]))), Ok(()));
        assert_eq!(
            ask(&response("completed", json!([thought]))),
            Err(Refused::EmptyAnswer)
        );
        for (status, reason) in [
            ("failed", Refused::Failed),
            ("cancelled", Refused::Failed),
            ("in_progress", Refused::Unfinished),
            ("incomplete", Refused::Unfinished),
        ] {
            assert_eq!(
                ask(&response(status, json!([said]))),
                Err(reason),
                "{status}"
            );
        }
        let mut cut = response("incomplete", json!([said]));
        cut["incomplete_details"] = json!({ "reason": "max_output_tokens" });
        assert_eq!(ask(&cut), Err(Refused::Length));
        cut["incomplete_details"] = json!({ "reason": "content_filter" });
        assert_eq!(ask(&cut), Err(Refused::ContentFilter));
        let refused =
            json!({ "type": "message", "content": [{ "type": "refusal", "refusal": "No." }] });
        assert_eq!(
            ask(&response("completed", json!([refused]))),
            Err(Refused::Refusal)
        );
        for (item, expected) in [
            (
                json!({ "type": "function_call", "name": "get_weather" }),
                Ok(()),
            ),
            (
                json!({ "type": "function_call", "name": "send_mail" }),
                Err(Refused::ToolCalls),
            ),
            (
                json!({ "type": "mcp_call", "name": "create_ticket" }),
                Err(Refused::ToolCalls),
            ),
            (json!({ "type": "computer_call" }), Err(Refused::ToolCalls)),
            (json!({ "type": "some_new_call" }), Err(Refused::ToolCalls)),
            (json!({ "type": "web_search_call" }), Ok(())),
        ] {
            let body = response("completed", json!([item, said]));
            assert_eq!(ask(&body), expected, "{item}");
        }
        let failed =
            json!({ "status": "failed", "error": { "code": "server_error" }, "output": [] });
        assert_eq!(ask(&failed), Err(Refused::Error));
        assert_eq!(ask(&json!({ "choices": [] })), Err(Refused::NotAnAnswer));
    }

    #[test]
    fn a_message_is_judged_by_its_stop_reason_and_its_blocks() {
        let message = |stop: Value, content: Value| {
            let body = json!({ "type": "message", "stop_reason": stop, "content": content });
            ask(Protocol::AnthropicMessages, &body)
        };
        let said = json!([{ "type": "text", "text": "Yes." }]);
        assert_eq!(message(json!("end_turn"), said.clone()), Ok(()));
        assert_eq!(message(json!("stop_sequence"), said.clone()), Ok(()));
        for (stop, reason) in [
            (json!("max_tokens"), Refused::Length),
            (json!("model_context_window_exceeded"), Refused::Length),
            (json!("refusal"), Refused::Refusal),
            (json!("pause_turn"), Refused::Paused),
            (json!(null), Refused::Unfinished),
        ] {
            assert_eq!(message(stop, said.clone()), Err(reason));
        }
        let thought = json!([{ "type": "thinking", "thinking": "hmm", "signature": "s" }]);
        assert_eq!(
            message(json!("end_turn"), thought),
            Err(Refused::EmptyAnswer)
        );
        let searched = json!([
            { "type": "server_tool_use", "name": "web_search", "input": {} },
            { "type": "web_search_tool_result", "content": [] },
            { "type": "text", "text": "Found it.", "citations": [] },
        ]);
        assert_eq!(message(json!("end_turn"), searched), Ok(()));
        let call = |name: &str| json!([{ "type": "tool_use", "name": name, "input": {} }]);
        assert_eq!(message(json!("tool_use"), call("get_weather")), Ok(()));
        assert_eq!(
            message(json!("tool_use"), call("send_mail")),
            Err(Refused::ToolCalls)
        );
        let error = json!({ "type": "error", "error": { "type": "overloaded_error" } });
        assert_eq!(
            ask(Protocol::AnthropicMessages, &error),
            Err(Refused::Error)
        );
    }

    #[test]
    fn embeddings_are_kept_when_each_input_has_one() {
        let ask = |data: Value| ask(Protocol::OpenAiEmbeddings, &json!({ "data": data }));
        assert_eq!(ask(json!([{ "embedding": [0.1, 0.2] }])), Ok(()));
        assert_eq!(ask(json!([{ "embedding": "AAAA" }])), Ok(()));
        assert_eq!(ask(json!([])), Err(Refused::EmptyAnswer));
        assert_eq!(ask(json!([{ "embedding": [] }])), Err(Refused::EmptyAnswer));
    }
}
