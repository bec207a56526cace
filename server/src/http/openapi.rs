//! The description of the API below `/cache/v1`, for programs: OpenAPI 3.1, kept by hand.
//!
//! A test holds its paths and methods to the router, and `tests/openapi` asks a running server all that it
//! describes and compares the answers with it.

use axum::http::header;
use axum::response::{IntoResponse as _, Response};

/// The document.
const DOCUMENT: &str = include_str!("../../openapi/openapi.json");

/// `GET /openapi.json`
pub(crate) async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    /// What `http::router` routes, from its source: paths with their methods.
    fn routed() -> BTreeSet<String> {
        let source = include_str!("mod.rs");
        let (_, source) = source.split_once("pub(crate) fn router(").unwrap();
        let (source, _) = source.split_once("\n}\n").unwrap();
        let (native, rest) = source.split_once("Router::new()\n        .nest(").unwrap();
        let mut routed = BTreeSet::new();
        for (prefix, source) in [("/cache/v1", native), ("", rest)] {
            for route in source.split(".route(").skip(1) {
                let mut quoted = route.split('"');
                let path = quoted.nth(1).unwrap();
                let handler = quoted.next().unwrap().trim_start_matches([',', ' ', '\n']);
                let method = handler.split('(').next().unwrap();
                // As OpenAPI has it, a parameter is one part of a path or all that is left.
                let path = path.replace("{*", "{");
                routed.insert(format!("{method} {prefix}{path}"));
            }
        }
        routed
    }

    #[test]
    fn the_bodies_of_every_protocol_are_described() {
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        let known = crate::http::native::PROTOCOLS.map(askonce::Protocol::as_str);
        for path in ["lookup", "store", "explain"] {
            let operation = &document["paths"][format!("/cache/v1/{path}")]["post"];
            let schema = operation
                .pointer("/requestBody/content/application~1json/schema/oneOf")
                .unwrap();
            let forms = schema.as_array().unwrap();
            let protocol = |form: &Value| {
                // That of a chat may be left out, or be null.
                let protocol = form.pointer("/properties/protocol")?;
                let named = protocol
                    .get("const")
                    .or_else(|| protocol.get("enum")?.get(0))?;
                named.as_str().map(str::to_owned)
            };
            let named: BTreeSet<_> = forms.iter().filter_map(protocol).collect();
            assert_eq!(named, known.map(str::to_owned).into(), "{path}");
            let refers = forms
                .iter()
                .filter_map(|form| form.pointer("/properties/body/$ref")?.as_str());
            for schema in refers {
                let found = document.pointer(schema.trim_start_matches('#'));
                assert!(found.is_some(), "{schema}");
            }
        }
    }

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        let mut described = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                if method == "parameters" {
                    continue;
                }
                described.insert(format!("{method} {path}"));
                let is_text = |name: &str| {
                    operation[name]
                        .as_str()
                        .is_some_and(|text| !text.is_empty())
                };
                assert!(
                    is_text("summary") && is_text("operationId"),
                    "{method} {path}"
                );
            }
        }
        // The proxy's paths are the providers' to describe, the page's files nobody's.
        let is_native = |route: &String| {
            !route.contains(" /v1/") && !route.contains(" /openai/") && !route.contains("/admin")
        };
        let routed: BTreeSet<_> = routed().into_iter().filter(is_native).collect();
        assert!(routed.contains("get /cache/v1/entries/{id}"), "{routed:?}");
        assert_eq!(described, routed);
    }
}
