//! Properties of the keys over generated chat bodies.

use askonce::{Request, Scope, Section};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::bodies::{at, change, chat_body, is_last_user_text, leaves, rewritten, wild_json};

fn read(body: &Value) -> Request {
    Request::from_openai_chat(body, Scope::tenant("acme")).expect("the body is a chat body")
}

/// The body with the text of its last user turn changed by `f`.
fn with_last_user_text(body: &Value, f: impl Fn(&str) -> String) -> Option<Value> {
    let path = leaves(body)
        .into_iter()
        .find(|path| is_last_user_text(body, path))?;
    let mut changed = body.clone();
    let text = at(&mut changed, &path);
    *text = json!(f(text.as_str()?));
    Some(changed)
}

/// A message with its content as a list of parts, which is the same message.
fn in_parts(message: &Value) -> Value {
    let mut message = message.clone();
    if let Some(text) = message["content"].as_str() {
        message["content"] = json!([{ "type": "text", "text": text }]);
    }
    message
}

proptest! {
    #[test]
    fn the_order_of_keys_and_the_spelling_of_numbers_never_count(
        body in chat_body(), seed in any::<u64>(),
    ) {
        let again: Value = serde_json::from_str(&rewritten(&body, seed)).expect("valid JSON");
        prop_assert_eq!(read(&body).digests(), read(&again).digests());
    }

    #[test]
    fn delivery_and_filing_fields_never_count(
        body in chat_body(),
        stream in any::<bool>(),
        field in prop::sample::select(vec![
            "metadata", "prompt_cache_key", "prompt_cache_retention", "request_id",
            "safety_identifier", "store", "stream_options", "user",
        ]),
        value in wild_json(),
    ) {
        let mut noisy = body.clone();
        noisy["stream"] = json!(stream);
        noisy["cache"] = json!({ "no-store": stream, "ttl": 60 });
        noisy[field] = value;
        let request = read(&noisy);
        prop_assert_eq!(read(&body).digests(), request.digests());
        prop_assert_eq!(request.wants_stream(), stream);
        prop_assert_eq!(request.control().no_store, stream);
    }

    #[test]
    fn a_top_level_null_counts_as_absent(body in chat_body(), name in "[a-z]{3,9}") {
        prop_assume!(body.get(&name).is_none());
        let mut with_null = body.clone();
        with_null[&name] = Value::Null;
        prop_assert_eq!(read(&body).digests(), read(&with_null).digests());
    }

    #[test]
    fn changing_any_leaf_changes_the_exact_key(body in chat_body(), pick in any::<prop::sample::Index>()) {
        let paths = leaves(&body);
        let path = pick.get(&paths);
        let mut changed = body.clone();
        change(at(&mut changed, path));
        // A refused body has no key: an assistant's null content under another role, say.
        let Ok(after) = Request::from_openai_chat(&changed, Scope::tenant("acme")) else {
            return Ok(());
        };
        let before = read(&body);
        prop_assert_ne!(before.exact_key(), after.exact_key());
        let only_the_last_user_text = is_last_user_text(&body, path);
        prop_assert_eq!(before.partition() == after.partition(), only_the_last_user_text);
        let differences: Vec<_> = before.digests().differences(&after.digests()).collect();
        prop_assert_eq!(differences == [Section::Prompt], only_the_last_user_text);
        prop_assert!(!differences.is_empty());
    }

    #[test]
    fn an_unknown_field_in_any_object_changes_both_keys(
        body in chat_body(), pick in any::<prop::sample::Index>(),
    ) {
        let mut objects: Vec<Vec<_>> = leaves(&body)
            .into_iter()
            .flat_map(|path| (0..path.len()).map(move |len| path[..len].to_vec()))
            .collect();
        objects.retain(|path| at(&mut body.clone(), path).is_object());
        let mut changed = body.clone();
        at(&mut changed, pick.get::<Vec<_>>(&objects))["zz_unknown"] = json!(false);
        prop_assert_ne!(read(&body).exact_key(), read(&changed).exact_key());
        prop_assert_ne!(read(&body).partition(), read(&changed).partition());
    }

    #[test]
    fn removing_swapping_or_repeating_a_message_changes_both_keys(
        body in chat_body(), pick in any::<prop::sample::Index>(), how in 0..3,
    ) {
        let mut changed = body.clone();
        let messages = changed["messages"].as_array_mut().expect("messages");
        let i = pick.index(messages.len());
        match how {
            0 if messages.len() > 1 => { messages.remove(i); }
            1 if i > 0 && in_parts(&messages[i]) != in_parts(&messages[i - 1]) => messages.swap(i, i - 1),
            _ => messages.insert(i, messages[i].clone()),
        }
        let (before, after) = (read(&body), read(&changed));
        prop_assert_ne!(before.exact_key(), after.exact_key());
        // Two user turns in a row that trade texts differ in the earlier one's.
        prop_assert_ne!(before.partition(), after.partition());
    }

    #[test]
    fn the_last_user_text_alone_leaves_the_partition(body in chat_body(), text in r"\PC{0,20}") {
        if let Some(changed) = with_last_user_text(&body, |_| text.clone()) {
            let (before, after) = (read(&body), read(&changed));
            prop_assert_eq!(before.partition(), after.partition());
            prop_assert_eq!(body == changed, before.exact_key() == after.exact_key());
        }
    }

    #[test]
    fn scope_namespace_and_model_are_in_both_keys(
        body in chat_body(), a in "[a-z]{1,3}", b in "[a-z]{1,3}",
    ) {
        let request = read(&body);
        let others = [
            request.clone().scope(Scope::tenant(a.as_str())),
            request.clone().scope(Scope::shared(a.as_str())),
            request.clone().scope(Scope::api_key(&a)),
            request.clone().scope(Scope::local()),
            request.clone().namespace(a.as_str()),
            request.clone().namespace(""),
            request.clone().model(format!("{a}-other")),
            request.clone().system(a.as_str()),
            request.clone().param(a.as_str(), b.as_str()),
            request,
        ];
        for (i, one) in others.iter().enumerate() {
            for other in &others[i + 1..] {
                prop_assert_ne!(one.exact_key(), other.exact_key());
                prop_assert_ne!(one.partition(), other.partition());
            }
        }
    }

    #[test]
    fn text_that_moves_to_a_neighbour_changes_the_key(
        // Bytes that an encoding may use as a mark, so that a text could imitate a boundary.
        text in "[a\u{0}\u{6}\u{8}\u{9}]{1,6}", i in 0_usize..6, j in 0_usize..6,
    ) {
        let (i, j) = (i.min(text.len()), j.min(text.len()));
        prop_assume!(i != j);
        type Build = fn(&str, &str) -> Request;
        let builds: [Build; 7] = [
            |a, b| Request::prompt(b).system(a),
            |a, b| Request::prompt("q").param(a, b),
            |a, b| Request::prompt("q").param("stop", vec![a, b]),
            |a, b| Request::prompt("q").scope(Scope::tenant(a)).namespace(b),
            |a, b| read(&json!({ "model": "m", "messages": [{ "role": "user", "content": [
                { "type": "text", "text": a }, { "type": "text", "text": b },
            ] }] })),
            |a, b| read(&json!({ "model": "m", "messages": [
                { "role": "assistant", "content": a }, { "role": "user", "content": b },
            ] })),
            |a, b| read(&json!({ "model": "m", "messages": [
                { "role": "tool", "content": a, "name": b }, { "role": "user", "content": "q" },
            ] })),
        ];
        for build in builds {
            let split = |at: usize| build(&text[..at], &text[at..]).exact_key();
            prop_assert_ne!(split(i), split(j));
        }
    }

    #[test]
    fn any_json_is_read_or_refused_without_a_panic(body in wild_json(), pick in 0..3) {
        let body = match pick {
            0 => body,
            1 => json!({ "model": "m", "messages": body }),
            _ => json!({ "model": "m", "cache": body.get("cache"), "messages": [
                { "role": "user", "content": "hi" }, body,
            ] }),
        };
        match Request::from_openai_chat(&body, Scope::local()) {
            Ok(request) => {
                let _ = (request.digests(), request.fuzzy_text(), request.volatility());
                prop_assert_eq!(request.eligibility().is_eligible(), request.fuzzy_text().is_some());
                prop_assert!(request.message_texts().all(|text| text.len() < 10_000));
                let shown = format!("{request:?}");
                prop_assert!(shown.len() < 1_000);
            }
            Err(error) => prop_assert_eq!(error.kind(), askonce::ErrorKind::InvalidRequest),
        }
    }
}
