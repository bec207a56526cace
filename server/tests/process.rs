//! The process around the API: how it starts, what it says when it cannot, how it stops, and that it
//! never lets a secret or a prompt slip.

mod support;

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use serde_json::{Value, json};
use support::{Setup, Upstream, askonce, eventually, prompt, run, stderr, stdout};

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn write(directory: &Path, name: &str, text: impl AsRef<[u8]>) {
    std::fs::write(directory.join(name), text).unwrap();
}

/// What a failed command says.
fn complaint(directory: &Path, args: &[&str]) -> String {
    let output = run(directory, args);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.lines().any(|line| line.starts_with("error: ")),
        "{said}"
    );
    assert!(!said.contains("panicked"), "{said}");
    said
}

#[test]
fn a_server_is_ready_within_two_seconds() {
    let started = Instant::now();
    let _server = Setup::default().start();
    // Debug builds on a shared machine get some slack.
    let bound = if cfg!(debug_assertions) { 10 } else { 2 };
    assert!(
        started.elapsed() < Duration::from_secs(bound),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn a_port_in_use_is_said_with_the_way_out() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = complaint(directory().path(), &["serve", "--listen", &address]);
    assert!(
        said.contains(&address) && said.contains("--listen"),
        "{said}"
    );
}

#[test]
fn a_configuration_that_cannot_be_read_is_named() {
    let directory = directory();
    write(directory.path(), "torn.yaml", "listen: [unclosed\n");
    write(directory.path(), "bytes.yaml", b"listen: \xff\xfe\n");
    std::fs::create_dir(directory.path().join("folder.yaml")).unwrap();
    for name in ["torn.yaml", "bytes.yaml", "folder.yaml", "missing.yaml"] {
        for command in [&["serve"][..], &["config", "check"]] {
            let args = [command, &["--config", name]].concat();
            let said = complaint(directory.path(), &args);
            assert!(said.contains(name), "{said}");
        }
    }
}

#[test]
fn wrong_settings_are_named_with_value_and_range() {
    for (yaml, said) in [
        (
            "lisen: x\n",
            &["field: lisen", "did you mean: listen", "askonce.yaml"][..],
        ),
        (
            "semantic:\n  polcy: {}\n",
            &["field: semantic.polcy", "did you mean: policy"],
        ),
        (
            "semantic:\n  candidates: 99\n",
            &["field: semantic.candidates", "value: 99", "1 to 64"],
        ),
        (
            "semantic:\n  policy: { type: threshold, threshold: 1.5 }\n",
            &["semantic.policy.threshold", "1.5"],
        ),
        (
            "semantic:\n  policy: { type: treshold }\n",
            &["did you mean: threshold"],
        ),
        (
            "max_body_bytes: lots\n",
            &["field: max_body_bytes", "value: lots", "512MiB"],
        ),
        (
            "backends:\n  - { type: memory, max_bytes: 1KiB }\n",
            &["backends[0].max_bytes", "at least"],
        ),
        (
            "upstreams:\n  - { timeout: soon }\n",
            &["field: upstreams[0].timeout", "value: soon"],
        ),
        (
            "upstreams:\n  - { api_key_env: NOT_SET }\n",
            &["NOT_SET", "upstreams[0].api_key_env"],
        ),
        (
            "prices:\n  models: { m: { input: -1, output: 1 } }\n",
            &["prices.models.m.input", "-1"],
        ),
    ] {
        let directory = directory();
        write(directory.path(), "askonce.yaml", yaml);
        let complaint = complaint(directory.path(), &["serve", "--listen", "127.0.0.1:0"]);
        for part in said {
            assert!(complaint.contains(part), "{part} is not in: {complaint}");
        }
    }
}

#[test]
fn environment_and_flags_win_over_the_file() {
    let directory = directory();
    write(
        directory.path(),
        "askonce.yaml",
        "listen: 127.0.0.1:1\nsemantic: { candidates: 3 }\n",
    );
    write(
        directory.path(),
        "askonce.staging.yaml",
        "default_ttl: 7m\n",
    );
    let output = askonce(directory.path())
        .args(["config", "show", "--json", "--set", "listen=127.0.0.1:3"])
        .envs([
            ("ASKONCE_ENV", "staging"),
            ("ASKONCE__LISTEN", "127.0.0.1:2"),
            ("ASKONCE__SEMANTIC__CANDIDATES", "5"),
            ("ASKONCE__BACKENDS__0__TYPE", "memory"),
            ("ASKONCE__BACKENDS__0__MAX_BYTES", "64MiB"),
        ])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(shown["listen"], "127.0.0.1:3");
    assert_eq!(shown["semantic"]["candidates"], 5);
    assert_eq!(shown["default_ttl"], "7m");
    assert_eq!(shown["environment"], "staging");
    let wrong = askonce(directory.path())
        .args(["config", "check"])
        .env("ASKONCE__SEMANTIC__CANDIDATES", "500")
        .output()
        .unwrap();
    assert!(
        stderr(&wrong).contains("ASKONCE__SEMANTIC__CANDIDATES"),
        "{}",
        stderr(&wrong)
    );
}

#[test]
fn the_settings_that_are_shown_can_be_read_again() {
    let directory = directory();
    let set = [
        "--set",
        "semantic.policy.type=threshold",
        "--set",
        "default_ttl=null",
    ];
    let shown = run(directory.path(), &[&["config", "show"][..], &set].concat());
    write(directory.path(), "askonce.yaml", &shown.stdout);
    let again = run(directory.path(), &["config", "show"]);
    assert_eq!(stdout(&shown), stdout(&again), "{}", stderr(&again));
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_and_prompts_are_in_no_log_and_in_no_report() {
    let upstream = Upstream::start().await;
    let config = format!(
        "upstreams: [{{ base_url: \"{}\", api_key_env: UPSTREAM_KEY }}]\n\
         auth: {{ keys: [{{ name: a, key_env: KEY_A }}, {{ name: b, key_sha256: \"{}\" }}] }}\n",
        upstream.url,
        "5e".repeat(32)
    );
    let mut server = Setup::default()
        .config(&config)
        .env("UPSTREAM_KEY", "sk-hush-upstream")
        .env("KEY_A", "sk-hush-a")
        .env("ASKONCE_LOG", "trace")
        .start();
    let key = [("authorization", "Bearer sk-hush-a")];
    upstream.answer_json(support::completion("the secret answer"));
    for text in [
        "Where is the treasure buried?",
        "where is the treasure buried",
    ] {
        server.chat_with(&prompt(text), &key).await;
    }
    server
        .chat_with(
            &prompt("treasure?"),
            &[("authorization", "Bearer sk-hush-unknown")],
        )
        .await;
    let body = json!({ "prompt": { "treasure": 1 } });
    server
        .post_as(Some("sk-hush-a"), "/cache/v1/store", body)
        .await;
    let shown = askonce(server.directory.path())
        .args(["config", "show"])
        .output()
        .unwrap();
    let shown = format!("{}{}", stdout(&shown), stderr(&shown));
    assert!(
        shown.contains("(hidden)") && !shown.contains("5e5e5e"),
        "{shown}"
    );
    server.terminate();
    let (_, log) = server.wait();
    assert!(log.contains("answered"), "there is a log");
    for secret in ["hush", "treasure", "secret answer", "5e5e5e"] {
        let line = log.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{secret} in the log: {line:?}");
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_server_told_to_stop_finishes_what_runs_and_takes_no_more() {
    let upstream = Upstream::start().await;
    upstream.close();
    let mut server = Setup::upstream(&upstream.url).start();
    let body = prompt("How do I reset my password?");
    let running = async { server.chat(&body).await };
    let stopping = async {
        upstream.reached(1).await;
        server.terminate();
        let address = server.url.trim_start_matches("http://").to_owned();
        eventually(|| async { tokio::net::TcpStream::connect(&address).await.is_err() }).await;
        upstream.open();
    };
    let (reply, ()) = tokio::join!(running, stopping);
    assert_eq!(
        (reply.status, reply.content().as_str()),
        (StatusCode::OK, "answer 1")
    );
    let (status, log) = server.wait();
    assert!(status.success(), "{log}");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_server_does_not_wait_longer_than_its_grace() {
    let upstream = Upstream::start().await;
    upstream.close();
    let mut server = Setup::upstream(&upstream.url)
        .set("shutdown_grace=50ms")
        .start();
    let request = server
        .client
        .post(server.url("/v1/chat/completions"))
        .json(&prompt("Why?"))
        .send();
    tokio::select! {
        _ = request => panic!("the gate is closed"),
        () = upstream.reached(1) => server.terminate(),
    }
    let (status, log) = server.wait();
    assert!(status.success() && log.contains("still running"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_talk_to_a_running_server() {
    let upstream = Upstream::start().await;
    let server = Setup::upstream(&upstream.url).start();
    let directory = directory();
    let command = |args: &[&str]| {
        let output = askonce(directory.path())
            .args(args)
            .env("ASKONCE_SERVER", &server.url)
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        stdout(&output)
    };
    let stored = command(&[
        "store",
        "How do I reset my password?",
        "--answer",
        "Open Settings",
        "--tag",
        "t",
    ]);
    assert!(stored.starts_with("stored as "), "{stored}");
    let hit = command(&["lookup", "how can I reset my password"]);
    assert!(
        hit.starts_with("hit (semantic), similarity 0.9") && hit.contains("Open Settings"),
        "{hit}"
    );
    let miss = command(&["lookup", "How do I reset my phone?"]);
    assert!(
        miss.starts_with("miss: ") && miss.contains("nearest"),
        "{miss}"
    );
    let hit: Value = serde_json::from_str(&command(&[
        "lookup",
        "--json",
        "how can I reset my password",
    ]))
    .unwrap();
    assert_eq!(hit["kind"], "semantic");
    let explained = command(&["explain", "how can I reset my password"]);
    assert!(explained.contains("served"), "{explained}");
    assert!(command(&["stats"]).contains("hits_semantic"));
    assert!(command(&["savings"]).starts_with("hits "));
    let dry = command(&["invalidate", "--tag", "t", "--dry-run"]);
    assert_eq!(dry, "would remove 1 entries\n");
    assert_eq!(command(&["invalidate", "--all"]), "removed 1 entries\n");
    assert_eq!(
        command(&["ask", "Why?", "--server", &server.url]),
        "answer 1\n"
    );
    let answer: Value = serde_json::from_str(&command(&[
        "ask",
        "Why?",
        "--server",
        &server.url,
        "--json",
    ]))
    .unwrap();
    assert!(
        answer["cache_status"].as_str().unwrap().contains("hit"),
        "{answer}"
    );
    let here = run(
        directory.path(),
        &[
            "ask",
            "Why?",
            "--set",
            &format!("upstreams[0].base_url={}", upstream.url),
        ],
    );
    assert_eq!(stdout(&here), "answer 2\n", "{}", stderr(&here));
}

/// The body of a call, from a file or from standard input, in place of a prompt.
#[test]
fn the_body_of_a_call_is_stored_and_found_by_the_commands() {
    let server = Setup::default().start();
    let directory = directory();
    let call = json!({
        "model": "claude-sonnet-4-5",
        "max_tokens": 64,
        "messages": [{ "role": "user", "content": "How do I reset my password?" }],
    });
    write(directory.path(), "call.json", call.to_string());
    let command = |args: &[&str]| {
        let mut command = askonce(directory.path());
        command.args(args).env("ASKONCE_SERVER", &server.url);
        command
    };
    let named = ["--body", "call.json", "--protocol", "anthropic_messages"];
    let mut store = command(&[&["store", "--answer", "Open Settings"], &named[..]].concat());
    let stored = store.output().unwrap();
    assert!(stored.status.success(), "{}", stderr(&stored));

    for (text, expected) in [
        (call.to_string(), "hit (exact)"),
        (call.to_string().replace("64", "65"), "miss: "),
    ] {
        let mut lookup = command(&["lookup", "--body", "-", "--protocol", "anthropic_messages"]);
        let piped = lookup.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut asked = piped.spawn().unwrap();
        asked
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        let found = asked.wait_with_output().unwrap();
        assert!(stdout(&found).starts_with(expected), "{}", stdout(&found));
    }

    let said = complaint(directory.path(), &["lookup", "--body", "none.json"]);
    assert!(said.contains("none.json"), "{said}");
    write(directory.path(), "broken.json", "{");
    let said = complaint(directory.path(), &["lookup", "--body", "broken.json"]);
    assert!(said.contains("broken.json"), "{said}");
}

#[test]
fn commands_without_a_server_say_how_to_get_one() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let server = format!("http://127.0.0.1:{port}");
    let said = complaint(directory().path(), &["lookup", "x", "--server", &server]);
    assert!(
        said.contains(&server) && said.contains("askonce serve"),
        "{said}"
    );
    let said = complaint(directory().path(), &["stats", "--server", "nonsense"]);
    assert!(said.contains("--server"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_what_is_there_and_what_is_not() {
    let upstream = Upstream::start().await;
    let directory = directory();
    let base = format!("upstreams[0].base_url={}", upstream.url);
    let args = [
        "doctor",
        "--json",
        "--set",
        "listen=127.0.0.1:0",
        "--set",
        &base,
    ];
    let output = run(directory.path(), &args);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success(), "{report:#}");
    let checks = report["checks"].as_array().unwrap();
    for check in [
        "config",
        "backend memory",
        "round trip",
        "embedder",
        "listen",
        "upstream openai",
        "prices",
    ] {
        let found = checks.iter().find(|found| found["check"] == check);
        assert_eq!(
            found.unwrap_or_else(|| panic!("{check}"))["finding"],
            "pass",
            "{report:#}"
        );
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let gone = format!("upstreams[0].base_url=http://127.0.0.1:{port}/v1");
    let output = run(
        directory.path(),
        &["doctor", "--set", "listen=127.0.0.1:0", "--set", &gone],
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stdout(&output).contains("FAIL  upstream openai"),
        "{}",
        stdout(&output)
    );
    assert!(stdout(&output).contains("remedy: "));
    write(directory.path(), "askonce.yaml", "nonsense: 1\n");
    assert!(stdout(&run(directory.path(), &["doctor"])).contains("FAIL  config"));
}
