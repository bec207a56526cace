//! Which answers may be kept.

use askonce::Protocol;
use axum::http::{HeaderMap, header};
use serde_json::Value;

/// Why an answer is given to those who wait for it and not kept, if it is not.
pub(crate) fn admit(
    protocol: Protocol,
    headers: &HeaderMap,
    body: &Value,
) -> Result<(), &'static str> {
    let directives = headers
        .get_all(header::CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok());
    if directives
        .flat_map(|value| value.split(','))
        .any(|name| name.trim().eq_ignore_ascii_case("no-store"))
    {
        return Err("no_store");
    }
    if protocol != Protocol::OpenAiChat {
        return Ok(());
    }
    let choices = body
        .get("choices")
        .and_then(Value::as_array)
        .filter(|choices| !choices.is_empty());
    let choices = choices.ok_or("not_a_completion")?;
    choices.iter().try_for_each(admit_choice)
}

fn admit_choice(choice: &Value) -> Result<(), &'static str> {
    let message = choice.get("message").ok_or("not_a_completion")?;
    let holds = |name: &str| match message.get(name) {
        None | Some(Value::Null) => false,
        Some(Value::Array(items)) => !items.is_empty(),
        Some(_) => true,
    };
    match choice.get("finish_reason").and_then(Value::as_str) {
        Some("length") => return Err("length"),
        Some("content_filter") => return Err("content_filter"),
        _ => {}
    }
    if holds("tool_calls") || holds("function_call") {
        return Err("tool_calls");
    }
    if holds("refusal") {
        return Err("refusal");
    }
    let empty = match message.get("content") {
        Some(Value::String(text)) => text.trim().is_empty(),
        Some(Value::Array(parts)) => parts.is_empty(),
        _ => true,
    };
    if empty { Err("empty_answer") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn choice(finish: &str, message: &Value) -> Value {
        json!({ "choices": [{ "finish_reason": finish, "message": message }] })
    }

    #[test]
    fn whole_plain_answers_are_kept_and_others_say_why_not() {
        let headers = HeaderMap::new();
        let text = json!({ "role": "assistant", "content": "Yes." });
        let whole = choice("stop", &text);
        assert_eq!(admit(Protocol::OpenAiChat, &headers, &whole), Ok(()));
        for (body, reason) in [
            (choice("length", &text), "length"),
            (choice("content_filter", &text), "content_filter"),
            (
                choice(
                    "tool_calls",
                    &json!({ "content": null, "tool_calls": [{}] }),
                ),
                "tool_calls",
            ),
            (
                choice("stop", &json!({ "content": null, "refusal": "No." })),
                "refusal",
            ),
            (choice("stop", &json!({ "content": "  " })), "empty_answer"),
            (choice("stop", &json!({ "content": null })), "empty_answer"),
            (json!({ "choices": [] }), "not_a_completion"),
            (json!([]), "not_a_completion"),
        ] {
            assert_eq!(admit(Protocol::OpenAiChat, &headers, &body), Err(reason));
        }
        let mut second_is_cut = whole.clone();
        second_is_cut["choices"]
            .as_array_mut()
            .unwrap()
            .push(choice("length", &text)["choices"][0].clone());
        assert_eq!(
            admit(Protocol::OpenAiChat, &headers, &second_is_cut),
            Err("length")
        );
        let headers =
            HeaderMap::from_iter([(header::CACHE_CONTROL, "private, No-Store".parse().unwrap())]);
        assert_eq!(
            admit(Protocol::OpenAiChat, &headers, &whole),
            Err("no_store")
        );
    }
}
