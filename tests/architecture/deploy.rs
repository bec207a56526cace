//! What `deploy/` ships can be read by what it is for, as far as that can be told without it, and names metrics and
//! commands that there are.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::repository::{read, root, rust_files};

/// Every metric that the code names: `askonce_` and more, in quotes.
fn metrics() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for folder in ["src", "server/src"] {
        for file in rust_files(&root().join(folder)) {
            let text = read(&file);
            names.extend(
                text.split('"')
                    .filter(|word| word.starts_with("askonce_"))
                    .filter(|word| {
                        word.bytes()
                            .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
                    })
                    .map(str::to_owned),
            );
        }
    }
    assert!(names.contains("askonce_lookups_total"));
    names
}

/// The metrics that an expression names.
fn named(expression: &str) -> Vec<String> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let ours = words.filter(|word| word.starts_with("askonce_"));
    ours.map(str::to_owned).collect()
}

fn is_known(name: &str, metrics: &BTreeSet<String>) -> bool {
    let of_histogram = ["_bucket", "_sum", "_count"]
        .iter()
        .find_map(|ending| name.strip_suffix(ending));
    metrics.contains(name) || of_histogram.is_some_and(|name| metrics.contains(name))
}

/// Whether brackets match, outside of quotes.
fn is_balanced(expression: &str) -> bool {
    let mut open = Vec::new();
    for (i, part) in expression.split('"').enumerate() {
        if i % 2 == 1 {
            continue;
        }
        for c in part.chars() {
            match c {
                '(' | '[' | '{' => open.push(c),
                ')' | ']' | '}' => {
                    let opened = open.pop();
                    if !matches!(
                        (opened, c),
                        (Some('('), ')') | (Some('['), ']') | (Some('{'), '}')
                    ) {
                        return false;
                    }
                }
                _ => {}
            }
        }
    }
    open.is_empty() && expression.matches('"').count() % 2 == 0
}

#[test]
fn the_dashboard_shows_metrics_that_there_are() {
    let metrics = metrics();
    let text = read(&root().join("deploy/grafana/askonce.json"));
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    assert!(panels.len() >= 12);
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().expect("a title");
        assert!(ids.insert(panel["id"].as_u64()), "{title}: its id is taken");
        let place = &panel["gridPos"];
        assert!(
            taken.insert((place["x"].as_u64(), place["y"].as_u64())),
            "{title}: its place is taken"
        );
        let targets = panel["targets"].as_array().expect("targets");
        assert!(!targets.is_empty(), "{title}");
        for target in targets {
            let expression = target["expr"].as_str().expect("an expression");
            assert!(is_balanced(expression), "{title}: {expression}");
            let names = named(expression);
            assert!(!names.is_empty(), "{title}: {expression}");
            for name in names {
                assert!(is_known(&name, &metrics), "{title}: there is no {name}");
            }
        }
    }
    let variables = dashboard["templating"]["list"]
        .as_array()
        .expect("variables");
    for variable in ["datasource", "instance"] {
        assert!(variables.iter().any(|known| known["name"] == variable));
    }
    for used in text
        .split("${")
        .skip(1)
        .filter_map(|rest| rest.split('}').next())
    {
        assert!(
            variables.iter().any(|known| known["name"] == used),
            "${{{used}}}"
        );
    }
}

#[cfg(feature = "config-file")]
#[test]
fn alerts_are_about_metrics_that_there_are_and_say_what_to_do() {
    let metrics = metrics();
    let text = read(&root().join("deploy/prometheus/alerts.yaml"));
    let file = config::File::from_str(&text, config::FileFormat::Yaml);
    let read = config::Config::builder()
        .add_source(file)
        .build()
        .expect("YAML");
    let rules: Value = read.try_deserialize().expect("a document");
    let guide = fs::read_to_string(root().join("docs/operations.md")).expect("the guide");
    let mut names = BTreeSet::new();
    for group in rules["groups"].as_array().expect("groups") {
        for rule in group["rules"].as_array().expect("rules") {
            let name = rule["alert"].as_str().expect("a name");
            assert!(names.insert(name.to_owned()), "{name} is there twice");
            let expression = rule["expr"].as_str().expect("an expression");
            assert!(is_balanced(expression), "{name}: {expression}");
            for metric in named(expression) {
                assert!(is_known(&metric, &metrics), "{name}: there is no {metric}");
            }
            let severity = rule["labels"]["severity"].as_str().expect("a severity");
            assert!(
                ["critical", "warning", "info"].contains(&severity),
                "{name}"
            );
            for told in ["summary", "description"] {
                assert!(
                    rule["annotations"][told].is_string(),
                    "{name} has no {told}"
                );
            }
            assert!(
                guide.contains(name),
                "docs/operations.md does not tell of {name}"
            );
        }
    }
    assert!(names.len() >= 8);
}

/// The instructions of a container file, continued lines joined.
fn instructions(text: &str) -> Vec<(String, String)> {
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    let joined = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    let lines = joined
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty());
    lines
        .map(|line| {
            line.split_once(' ')
                .expect("an instruction and what it is about")
        })
        .map(|(name, rest)| (name.to_owned(), rest.trim().to_owned()))
        .collect()
}

#[test]
fn the_container_runs_as_nobody_in_particular_and_can_be_asked_how_it_is() {
    let text = read(&root().join("deploy/Containerfile"));
    let all = instructions(&text);
    let known = [
        "FROM",
        "RUN",
        "WORKDIR",
        "COPY",
        "ENV",
        "VOLUME",
        "EXPOSE",
        "USER",
        "STOPSIGNAL",
        "HEALTHCHECK",
        "ENTRYPOINT",
        "CMD",
    ];
    for (name, _) in &all {
        assert!(known.contains(&name.as_str()), "{name}");
    }
    let stages: Vec<_> = all
        .iter()
        .enumerate()
        .filter(|(_, (name, _))| name == "FROM")
        .collect();
    assert_eq!(stages.len(), 2, "one that builds, one that runs");
    assert!(stages[0].1.1.ends_with(" AS build"));
    let runs = &all[stages[1].0..];
    let last = |wanted: &str| {
        let found = runs.iter().rev().find(|(name, _)| name == wanted);
        found.map(|(_, rest)| rest.as_str()).unwrap_or_default()
    };
    let user = last("USER")
        .split(':')
        .next()
        .and_then(|user| user.parse::<u32>().ok());
    assert!(user.is_some_and(|user| user > 0), "not root, by number");
    assert!(
        runs.iter()
            .any(|(name, rest)| name == "COPY" && rest.starts_with("--from=build"))
    );
    let check = last("HEALTHCHECK").split_once("CMD ").expect("a command").1;
    for (command, first) in [
        (check, "askonce"),
        (last("ENTRYPOINT"), "askonce"),
        (last("CMD"), "serve"),
    ] {
        let words: Vec<String> = serde_json::from_str(command).expect("a list of words, no shell");
        assert_eq!(words[0], first, "{command}");
    }
}

#[test]
fn the_unit_is_hardened_and_starts_what_there_is() {
    let text = read(&root().join("deploy/askonce.service"));
    let mut section = String::new();
    let mut settings = BTreeSet::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
        } else if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            name.clone_into(&mut section);
        } else {
            let (name, value) = line.split_once('=').expect("a setting");
            settings.insert(format!("{section}.{name}={value}"));
        }
    }
    for needed in [
        "Unit.After=network-online.target",
        "Service.DynamicUser=yes",
        "Service.NoNewPrivileges=yes",
        "Service.CapabilityBoundingSet=",
        "Service.ProtectSystem=strict",
        "Service.ProtectHome=yes",
        "Service.PrivateTmp=yes",
        "Service.MemoryDenyWriteExecute=yes",
        "Service.SystemCallFilter=@system-service",
        "Service.StateDirectory=askonce",
        "Service.Restart=on-failure",
        "Install.WantedBy=multi-user.target",
    ] {
        assert!(settings.contains(needed), "{needed}");
    }
    let commands = settings
        .iter()
        .filter_map(|setting| setting.strip_prefix("Service.Exec"));
    let known = ["config check --config ", "serve --config "];
    for command in commands {
        let arguments = command
            .split_once("/usr/local/bin/askonce ")
            .expect("our binary")
            .1;
        assert!(
            known.iter().any(|known| arguments.starts_with(known)),
            "{arguments}"
        );
    }
}
