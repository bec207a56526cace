//! Keys of fixed requests, so that the encoding cannot change unseen. They were computed twice, the
//! second time by a program in another language written from the documented rules.
//!
//! A failure here means that every stored answer would be lost by an upgrade. If that is meant,
//! raise `ENCODING_VERSION`, put the keys that the failure prints into `golden.json`, and say so in
//! the change log.

use askonce::request::ENCODING_VERSION;
use askonce::{Protocol, Request, Scope};
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Golden {
    encoding_version: u8,
    cases: Vec<Case>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    scope: Scope,
    chat: Option<Value>,
    /// Of any protocol, with its `body`.
    protocol: Option<Protocol>,
    body: Option<Value>,
    prompt: Option<Prompt>,
    exact: String,
    partition: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Prompt {
    text: String,
    namespace: Option<String>,
    model: Option<String>,
    system: Option<String>,
    #[serde(default)]
    params: serde_json::Map<String, Value>,
}

fn request(case: &Case) -> Request {
    if let Some(body) = &case.chat {
        return Request::from_openai_chat(body, case.scope.clone()).unwrap();
    }
    if let (Some(protocol), Some(body)) = (case.protocol, &case.body) {
        return Request::read(protocol, body, case.scope.clone()).unwrap();
    }
    let prompt = case.prompt.as_ref().expect("a chat, a body or a prompt");
    let mut request = Request::prompt(prompt.text.as_str()).scope(case.scope.clone());
    if let Some(namespace) = &prompt.namespace {
        request = request.namespace(namespace.as_str());
    }
    if let Some(model) = &prompt.model {
        request = request.model(model.as_str());
    }
    if let Some(system) = &prompt.system {
        request = request.system(system.as_str());
    }
    for (name, value) in &prompt.params {
        request = request.param(name.as_str(), value.clone());
    }
    request
}

#[test]
fn the_keys_of_fixed_requests_never_change_within_a_version() {
    let golden: Golden = serde_json::from_str(include_str!("golden.json")).unwrap();
    assert_eq!(golden.encoding_version, ENCODING_VERSION);
    assert!(golden.cases.len() >= 12);
    let mut report = String::new();
    for case in &golden.cases {
        let request = request(case);
        let (exact, partition) = (
            request.exact_key().to_string(),
            request.partition().to_string(),
        );
        if (&exact, &partition) != (&case.exact, &case.partition) {
            report += &format!(
                "{}\n  exact: {exact}\n  partition: {partition}\n",
                case.name
            );
        }
    }
    assert!(report.is_empty(), "keys changed:\n{report}");
}
