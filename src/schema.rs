//! Settings as a JSON Schema.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

/// The schema of a type's settings, with what each field means in plain words.
#[must_use]
pub fn of<T: JsonSchema>() -> Value {
    let mut schema = schemars::schema_for!(T).to_value();
    plain(&mut schema);
    schema
}

/// Takes the marks of documentation out of descriptions: links show their text, lines are joined.
fn plain(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == "description" => *text = plain_text(text),
                    inner => plain(inner),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(plain),
        _ => {}
    }
}

fn plain_text(text: &str) -> String {
    let joined: Vec<String> = text
        .split("\n\n")
        .map(|paragraph| paragraph.replace('\n', " "))
        .collect();
    let mut rest = joined.join("\n\n");
    let mut plain = String::with_capacity(rest.len());
    while let Some((before, after)) = rest.split_once('[') {
        plain.push_str(before);
        let Some((shown, beyond)) = after.split_once(']') else {
            plain.push('[');
            rest = after.to_owned();
            continue;
        };
        plain.push_str(shown);
        let target = beyond
            .strip_prefix('(')
            .and_then(|link| link.split_once(')'));
        rest = target.map_or(beyond, |(_, beyond)| beyond).to_owned();
    }
    plain + &rest
}

/// A length of time, such as `500ms` or `24h`.
#[derive(Debug)]
pub struct Time;

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // Plain numbers are read where the reference system has them, and are seconds.
        json_schema!({
            "type": ["string", "number"],
            "examples": ["500ms", "1m 30s", "24h"],
            "pattern": "^[0-9]",
            "minimum": 0,
        })
    }
}

/// A number of bytes, such as `512MiB`.
#[derive(Debug)]
pub struct Bytes;

impl JsonSchema for Bytes {
    fn schema_name() -> Cow<'static, str> {
        "Bytes".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "examples": ["512MiB", 1048576],
            "pattern": "^[0-9]",
            "minimum": 0,
        })
    }
}

/// Puts the fields that every backend has beside those of each type, where a reader and a validator look for
/// them: the sections of all types are objects without other fields.
pub(crate) fn beside_each_type(schema: &mut Schema) {
    let (Some(common), required) = (schema.remove("properties"), schema.remove("required")) else {
        return;
    };
    schema.remove("unevaluatedProperties");
    schema.remove("additionalProperties");
    for list in ["oneOf", "anyOf"] {
        let Some(types) = schema.get_mut(list).and_then(Value::as_array_mut) else {
            continue;
        };
        for of_type in types {
            let Some(of_type) = of_type.as_object_mut() else {
                continue;
            };
            let own = of_type
                .entry("properties")
                .or_insert_with(|| serde_json::json!({}));
            if let (Some(own), Some(common)) = (own.as_object_mut(), common.as_object()) {
                for (name, field) in common {
                    own.entry(name).or_insert_with(|| field.clone());
                }
            }
            if let Some(Value::Array(all)) = &required {
                let own = of_type
                    .entry("required")
                    .or_insert_with(|| serde_json::json!([]));
                if let Some(own) = own.as_array_mut() {
                    own.extend(all.iter().cloned());
                }
            }
        }
    }
}
