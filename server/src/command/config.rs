//! `askonce config`: whether the settings are right, what they are, and what there is to set.

use std::fmt::Write as _;

use clap::{Args as ClapArgs, Subcommand};
use serde_json::{Value, json};

use super::{Global, print};
use crate::config::ServerConfig;

/// Settings of `config`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Check file, environment and flags, and say what is wrong.
    Check,
    /// Print the settings in force as YAML, secrets left out.
    Show,
    /// Print a JSON Schema of all settings, for editors and checks.
    Schema,
}

/// Checks, shows or describes.
pub(crate) fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    match args.action {
        Action::Check => check(global),
        Action::Show => show(global),
        // What could be set does not depend on what is.
        Action::Schema => print(global, &ServerConfig::schema(), |schema| {
            format!("{schema:#}")
        }),
    }
}

fn check(global: &Global) -> anyhow::Result<()> {
    let loaded = ServerConfig::load(&global.sources())?;
    let files = loaded.files.iter().map(|file| file.display().to_string());
    let files: Vec<String> = files.collect();
    let told = json!({ "ok": true, "files": files });
    print(global, &told, |_| match &*files {
        [] => "the settings are right (no file: defaults, environment and flags)".to_owned(),
        files => format!("the settings are right (from {})", files.join(", ")),
    })
}

fn show(global: &Global) -> anyhow::Result<()> {
    let loaded = ServerConfig::load(&global.sources())?;
    print(global, &loaded.settings.shown(), |settings| {
        let mut text = String::new();
        yaml(settings, 0, &mut text);
        text.trim_end().to_owned()
    })
}

/// Writes a JSON value as block-style YAML. Text is quoted as in JSON, which YAML reads too, unless it is
/// plainly a word.
fn yaml(value: &Value, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                let _ = write!(out, "{indent}{}:", scalar(&Value::from(name.as_str())));
                nested(value, depth + 1, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let mut block = String::new();
                nested(item, depth + 1, &mut block);
                // The first line of a block moves up behind its dash.
                let block = block.trim_start_matches(['\n', ' ']);
                let _ = write!(out, "{indent}- {block}");
            }
        }
        scalar_value => {
            let _ = writeln!(out, "{indent}{}", scalar(scalar_value));
        }
    }
}

/// Writes a value after `name:` or `-`: on the same line, or as a block below.
fn nested(value: &Value, depth: usize, out: &mut String) {
    let is_block = match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if is_block {
        out.push('\n');
        yaml(value, depth, out);
    } else {
        let _ = writeln!(out, " {}", scalar(value));
    }
}

fn scalar(value: &Value) -> String {
    let Value::String(text) = value else {
        return value.to_string();
    };
    let word = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
            .contains(&text.to_ascii_lowercase().as_str());
    if word {
        text.clone()
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_written_as_yaml() {
        let value = json!({
            "a": { "b": [], "c": {}, "d": null },
            "list": [{ "name": "x", "deep": { "k": 1 } }, "two words", [1, 2]],
            "t": "24h", "u": "no", "v": "plain",
        });
        let mut text = String::new();
        yaml(&value, 0, &mut text);
        assert_eq!(
            text,
            "a:\n  b: []\n  c: {}\n  d: null\nlist:\n  - deep:\n      k: 1\n    name: x\n  \
             - \"two words\"\n  - - 1\n    - 2\nt: \"24h\"\nu: \"no\"\nv: plain\n"
        );
    }
}
