//! Embeddings bodies: one request for each input, each by its exact key only.

use askonce::{IneligibleReason, Protocol, Request, Scope};
use serde_json::{Value, json};

fn read(body: &Value) -> Vec<Request> {
    Request::from_openai_embeddings(body, Scope::tenant("acme")).expect("an embeddings body")
}

#[test]
fn an_input_has_one_key_wherever_it_stands() {
    let many = read(&json!({ "model": "m", "input": ["a", "b", "a"] }));
    let one = read(&json!({ "model": "m", "input": "b" }));
    assert_eq!(many.len(), 3);
    assert_eq!(many[0].exact_key(), many[2].exact_key());
    assert_eq!(many[1].exact_key(), one[0].exact_key());
    assert_ne!(many[0].exact_key(), many[1].exact_key());
    let body = json!({ "model": "m", "input": "ignored" });
    let single = Request::from_openai_embedding_input(&body, &json!("b"), Scope::tenant("acme"));
    assert_eq!(single.unwrap().exact_key(), one[0].exact_key());
}

#[test]
fn tokens_are_one_input_or_several() {
    let flat = read(&json!({ "model": "m", "input": [1, 2] }));
    let nested = read(&json!({ "model": "m", "input": [[1, 2], [3]] }));
    assert_eq!((flat.len(), nested.len()), (1, 2));
    assert_eq!(flat[0].exact_key(), nested[0].exact_key());
    assert_ne!(nested[0].exact_key(), nested[1].exact_key());
}

#[test]
fn similarity_never_applies_and_no_wording_is_volatile() {
    for request in read(&json!({ "model": "m", "input": ["What's the weather today?", [7]] })) {
        let reason = request.eligibility().reason();
        assert_eq!(reason, Some(IneligibleReason::Embedding));
        assert_eq!(request.fuzzy_text(), None);
        assert_eq!(request.volatility(), None);
    }
}

#[test]
fn fields_that_change_the_vector_or_its_form_count() {
    let plain = read(&json!({ "model": "m", "input": "a" }));
    for (field, value, counts) in [
        ("encoding_format", json!("base64"), true),
        ("dimensions", json!(64), true),
        ("input_type", json!("query"), true),
        ("user", json!("u"), false),
        ("metadata", json!({ "a": "b" }), false),
    ] {
        let mut body = json!({ "model": "m", "input": "a" });
        body[field] = value;
        let same = read(&body)[0].exact_key() == plain[0].exact_key();
        assert_eq!(!same, counts, "{field}");
    }
}

#[test]
fn a_body_of_several_inputs_is_no_one_request() {
    let read = |input: Value| {
        let body = json!({ "model": "m", "input": input });
        Request::read(Protocol::OpenAiEmbeddings, &body, Scope::local())
    };
    assert!(read(json!("a")).is_ok() && read(json!(["a"])).is_ok());
    for input in [
        json!(["a", "b"]),
        json!([]),
        json!(null),
        json!({ "text": "a" }),
        json!([{ "image": "a" }]),
        json!([[]]),
        json!([1, "a"]),
    ] {
        let error = read(input.clone()).unwrap_err();
        assert_eq!(error.context()[0].0, "field", "{input}");
    }
    let error = Request::from_openai_embeddings(&json!({ "model": "m" }), Scope::local());
    assert!(error.unwrap_err().to_string().contains("found: nothing"));
}
