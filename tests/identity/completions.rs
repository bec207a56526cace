//! Completions bodies one by one.

use askonce::{IneligibleReason, Request, Scope};
use serde_json::{Value, json};

fn read(prompt: &Value) -> askonce::Result<Request> {
    let body = json!({ "model": "m", "prompt": prompt, "max_tokens": 9 });
    Request::from_openai_completions(&body, Scope::tenant("acme"))
}

#[test]
fn a_list_of_one_text_equals_the_text() {
    let plain = read(&json!("Once upon")).unwrap();
    let listed = read(&json!(["Once upon"])).unwrap();
    assert_eq!(plain.digests(), listed.digests());
    assert_eq!(listed.fuzzy_text(), Some("Once upon"));
    let other = read(&json!("In a galaxy")).unwrap();
    assert_eq!(plain.partition(), other.partition());
}

#[test]
fn several_prompts_and_tokens_match_exactly_only() {
    for (prompt, reason) in [
        (json!(["a", "b"]), IneligibleReason::PromptList),
        (json!([1, 2]), IneligibleReason::TokenPrompt),
        (json!([[1, 2]]), IneligibleReason::TokenPrompt),
        (json!([[1, 2], [3]]), IneligibleReason::TokenPrompt),
        (json!(""), IneligibleReason::EmptyUserText),
    ] {
        let request = read(&prompt).unwrap();
        assert_eq!(request.eligibility().reason(), Some(reason), "{prompt}");
    }
    let keys: std::collections::HashSet<_> = [
        json!("ab"),
        json!(["a", "b"]),
        json!(["b", "a"]),
        json!([1, 2]),
        json!([[1, 2]]),
        json!([[1], [2]]),
        json!([12]),
    ]
    .map(|prompt| read(&prompt).unwrap().exact_key())
    .into();
    assert_eq!(keys.len(), 7);
    let texts = read(&json!(["a", "b"])).unwrap();
    assert_eq!(texts.message_texts().collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn a_prompt_that_is_neither_is_refused() {
    for (prompt, field) in [
        (json!(null), "prompt"),
        (json!({}), "prompt"),
        (json!([]), "prompt"),
        (json!(["a", 1]), "prompt[0]"),
        (json!([1, "a"]), "prompt[1]"),
        (json!([[]]), "prompt[0]"),
    ] {
        let error = read(&prompt).unwrap_err();
        let field = ("field", field.to_owned());
        assert!(error.context().contains(&field), "{prompt}: {error}");
    }
}
