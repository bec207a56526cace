//! The schema tells of every field, and every field has a reader.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use askonce::Config;
use serde_json::Value;

/// The names of all fields below a schema, references followed.
fn fields(schema: &Value, root: &Value, seen: &mut BTreeSet<String>, names: &mut BTreeSet<String>) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::String(reference)) = object.get("$ref")
                && seen.insert(reference.clone())
            {
                let pointer = reference.trim_start_matches('#');
                fields(root.pointer(pointer).unwrap(), root, seen, names);
            }
            if let Some(Value::Object(properties)) = object.get("properties") {
                names.extend(properties.keys().cloned());
            }
            for (name, inner) in object {
                // Defaults are values, not schemas.
                if name != "default" && name != "$defs" {
                    fields(inner, root, seen, names);
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                fields(item, root, seen, names);
            }
        }
        _ => {}
    }
}

fn names(schema: &Value) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    fields(schema, schema, &mut BTreeSet::new(), &mut names);
    names
}

/// Every field in `value` that `schema` does not tell of, by its path.
fn untold(value: &Value, schema: &Value, root: &Value, path: &str, missing: &mut Vec<String>) {
    let schemas = alternatives(schema, root);
    match value {
        Value::Object(object) => {
            for (name, inner) in object {
                let path = format!("{path}.{name}");
                let told: Vec<&Value> = schemas
                    .iter()
                    .filter_map(|schema| schema["properties"].get(name))
                    .collect();
                let extra = schemas
                    .iter()
                    .any(|schema| schema["additionalProperties"].is_object());
                if told.is_empty() && !extra {
                    missing.push(path);
                    continue;
                }
                let mut least: Option<Vec<String>> = None;
                for schema in told {
                    let mut below = Vec::new();
                    untold(inner, schema, root, &path, &mut below);
                    if least.as_ref().is_none_or(|least| below.len() < least.len()) {
                        least = Some(below);
                    }
                }
                missing.extend(least.unwrap_or_default());
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                for schema in &schemas {
                    if let Some(of_item) = schema.get("items") {
                        untold(item, of_item, root, &format!("{path}[{i}]"), missing);
                    }
                }
            }
        }
        _ => {}
    }
}

/// A schema, and those that it says may stand for it.
fn alternatives<'a>(schema: &'a Value, root: &'a Value) -> Vec<&'a Value> {
    let mut all = vec![schema];
    if let Some(Value::String(reference)) = schema.get("$ref") {
        let pointer = reference.trim_start_matches('#');
        all.extend(alternatives(root.pointer(pointer).unwrap(), root));
    }
    for list in ["oneOf", "anyOf", "allOf"] {
        for inner in schema
            .get(list)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            all.extend(alternatives(inner, root));
        }
    }
    all
}

#[test]
fn every_field_of_the_settings_is_in_their_schema() {
    let schema = Config::schema();
    let config = Config {
        backends: serde_json::from_str(
            r#"[{"type": "memory"}, {"type": "redis"}, {"type": "memcached", "layers": {}},
                {"type": "tiered", "near": "a", "far": "b"}]"#,
        )
        .unwrap(),
        ..Config::default()
    };
    for config in [Config::default(), config] {
        let value = serde_json::to_value(&config).unwrap();
        let mut missing = Vec::new();
        untold(&value, &schema, &schema, "", &mut missing);
        assert!(missing.is_empty(), "{missing:?}");
    }
}

#[test]
fn fields_are_described_and_bounded_and_those_of_backends_stand_together() {
    let schema = Config::schema();
    for (name, field) in schema["properties"].as_object().unwrap() {
        let reference = field["$ref"]
            .as_str()
            .map(|path| path.trim_start_matches('#'));
        let below = reference.and_then(|pointer| schema.pointer(pointer));
        let told = field
            .get("description")
            .or_else(|| below?.get("description"));
        let told = told.unwrap_or_else(|| panic!("{name}: {field}"));
        assert!(!told.as_str().unwrap().contains("]("), "{told}");
    }
    let section = &schema["$defs"]["BackendSection"];
    let types = alternatives(section, &schema);
    for name in ["memory", "redis", "memcached", "tiered"] {
        let of_type = types
            .iter()
            .find(|schema| schema["properties"]["type"]["const"] == *name)
            .unwrap_or_else(|| panic!("no {name} in {section:#}"));
        for common in ["enabled", "default_ttl", "health_check_interval", "name"] {
            assert!(
                of_type["properties"].get(common).is_some(),
                "{name}.{common}"
            );
        }
        let required: Vec<_> = of_type["required"].as_array().unwrap().iter().collect();
        assert!(required.contains(&&Value::from("type")), "{required:?}");
        assert!(!required.contains(&&Value::from("enabled")), "{required:?}");
    }
    let pool = types
        .iter()
        .find_map(|schema| schema["properties"].get("redis_pool_size"));
    let pool = pool.unwrap();
    assert_eq!(
        (&pool["minimum"], &pool["maximum"]),
        (&Value::from(1), &Value::from(64))
    );
}

/// The text of every file of the engine that may act on settings: not those that hold, read or check them.
fn readers() -> String {
    let mut text = String::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                text.push_str(&acting(&fs::read_to_string(path).unwrap()));
            }
        }
    }
    text
}

/// A file without its tests, its `validate` functions, and the definitions and defaults of its structs.
fn acting(text: &str) -> String {
    let code = text
        .split("#[cfg(test)]\nmod tests")
        .next()
        .unwrap_or_default();
    let mut kept = String::new();
    let mut dropped_to: Option<String> = None;
    for line in code.lines() {
        let trimmed = line.trim_start();
        let indent = &line[..line.len() - trimmed.len()];
        if let Some(end) = &dropped_to {
            if line == end {
                dropped_to = None;
            }
            continue;
        }
        let bare = trimmed
            .trim_start_matches("pub ")
            .trim_start_matches("pub(crate) ");
        let bare = bare.trim_start_matches("pub(super) ");
        let checks = ["fn validate", "fn check", "fn default()", "fn fmt("];
        let holds = bare.starts_with("struct ") || bare.starts_with("enum ");
        if (holds && line.ends_with('{')) || checks.iter().any(|start| bare.starts_with(start)) {
            if !(line.ends_with('}') || line.ends_with(';')) {
                dropped_to = Some(format!("{indent}}}"));
            }
            continue;
        }
        if !trimmed.starts_with("//") && !trimmed.starts_with("#[") {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// Whether code reads a field of this name, or takes a struct apart by it.
fn is_read(field: &str, code: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    let by_dot = format!(".{field}");
    let dotted = code.match_indices(&by_dot).any(|(at, found)| {
        let rest = &code[at + found.len()..];
        // A method of that name, or a field that is set, is not a field that is read.
        ends(rest) && !rest.starts_with('(') && !rest.trim_start().starts_with("= ")
    });
    // `Struct { field, .. }` on a line of its own or within one.
    let taken_apart = code.lines().any(|line| {
        let is_pattern = line.trim() == format!("{field},")
            || (line.contains('{') && line.contains(&format!(" {field},")))
            || (line.contains('{') && line.contains(&format!(" {field} }}")))
            || line.contains(&format!("{{ {field}, "));
        is_pattern && !line.contains("fn ")
    });
    dotted || taken_apart
}

#[test]
fn every_field_has_a_reader() {
    /// What the types of enums and backends are read by: serde.
    const TAGS: [&str; 1] = ["type"];
    let code = readers();
    assert!(is_read("max_bytes", &code) && !is_read("no_such_field_of_ours", &code));
    let names = names(&Config::schema());
    assert!(names.len() > 90, "{}", names.len());
    let unread: Vec<_> = names
        .iter()
        .filter(|name| !TAGS.contains(&name.as_str()) && !is_read(name, &code))
        .collect();
    assert!(unread.is_empty(), "nothing acts on these: {unread:?}");
}

#[test]
fn a_field_that_is_only_defined_defaulted_and_checked_has_no_reader() {
    let text = "pub struct Idle {\n    pub idle: bool,\n}\nimpl Default for Idle {\n    fn default() -> Self {\n        \
        Self { idle: true }\n    }\n}\nimpl Idle {\n    pub fn validate(&self) -> bool {\n        self.idle\n    }\n}\n";
    assert!(!is_read("idle", &acting(text)));
    let used = format!("{text}fn act(idle: &Idle) {{\n    if idle.idle {{}}\n}}\n");
    assert!(is_read("idle", &acting(&used)));
}
