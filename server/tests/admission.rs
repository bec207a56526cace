//! What may be kept and how far it is shared, through the server: reasons, metrics, keys of one tenant, files
//! that an admin approves; and what it tells of savings.

mod support;

use std::process::Output;

use axum::http::StatusCode;
use serde_json::{Value, json};
use support::{Server, Setup, run, stderr, stdout};

const ASKED: &str = "How do I reset my password?";
const SIMILAR: &str = "how can I reset my password";

/// Four keys of one tenant; the first is an admin's.
const KEYS: &str = "
auth:
  keys:
    - { name: admin, tenant: acme, key_env: TEST_KEY_ADMIN, admin: true }
    - { name: mallory, tenant: acme, key_env: TEST_KEY_MALLORY }
    - { name: alice, tenant: acme, key_env: TEST_KEY_ALICE }
    - { name: bob, tenant: acme, key_env: TEST_KEY_BOB }
";

fn with_keys(settings: &str) -> Server {
    let setup = Setup::default().config(&format!("{KEYS}{settings}"));
    let names = ["admin", "mallory", "alice", "bob"];
    let named = names.iter().fold(setup, |setup, name| {
        let variable = format!("TEST_KEY_{}", name.to_uppercase());
        setup.env(&variable, &format!("key-of-{name}"))
    });
    named.start()
}

async fn store(server: &Server, who: Option<&str>, fields: Value) -> (StatusCode, Value) {
    let key = who.map(|who| format!("key-of-{who}"));
    server
        .post_as(key.as_deref(), "/cache/v1/store", fields)
        .await
}

async fn lookup(server: &Server, who: &str, prompt: &str) -> Value {
    let key = format!("key-of-{who}");
    let body = json!({ "prompt": prompt });
    server.post_as(Some(&key), "/cache/v1/lookup", body).await.1
}

async fn metrics(server: &Server) -> String {
    let response = server
        .client
        .get(server.url("/metrics"))
        .send()
        .await
        .unwrap();
    response.text().await.unwrap()
}

fn command(server: &Server, key: Option<&str>, args: &[&str]) -> Output {
    let mut command = support::askonce(server.directory.path());
    if let Some(key) = key {
        command.env("ASKONCE_API_KEY", key);
    }
    let url = server.url("");
    command
        .args(args)
        .args(["--server", &url])
        .output()
        .unwrap()
}

#[tokio::test]
async fn an_answer_with_a_secret_is_not_kept_and_nobody_is_told_the_secret() {
    let mut server = Setup::default().start();
    let token = format!("ghp_{}", "a1B2c3D4e5F6".repeat(3));
    let (status, told) = store(
        &server,
        None,
        json!({ "prompt": "What is my token?", "answer": format!("It is {token}.") }),
    )
    .await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(told, json!({ "outcome": "not_stored", "reason": "secret" }));
    let shown = metrics(&server).await;
    for line in [
        "askonce_stores_total{outcome=\"secret\"} 1",
        "askonce_admission_findings_total{detector=\"github_token\"} 1",
    ] {
        assert!(shown.contains(line), "{line}");
    }
    server.terminate();
    let (_, log) = server.wait();
    assert!(!shown.contains(&token) && !log.contains(&token));
}

#[tokio::test]
async fn a_document_is_judged_in_the_native_api_too() {
    let server = Setup::default()
        .config("admission: { safe_tools: ['search_*'] }")
        .start();
    let answer = |finish: &str, message: Value| {
        let chat = json!({ "model": "m", "messages": [{ "role": "user", "content": "Hello?" }] });
        let choices = json!([{ "index": 0, "finish_reason": finish, "message": message }]);
        json!({ "openai_chat": chat, "answer": { "choices": choices } })
    };
    let call = |tool: &str| {
        let calls =
            json!([{ "type": "function", "function": { "name": tool, "arguments": "{}" } }]);
        answer(
            "tool_calls",
            json!({ "content": null, "tool_calls": calls }),
        )
    };
    let cut = answer("length", json!({ "content": "Hel" }));
    assert_eq!(store(&server, None, cut).await.1["reason"], "length");
    assert_eq!(
        store(&server, None, call("send_mail")).await.1["reason"],
        "tool_calls"
    );
    let kept = store(&server, None, call("search_docs")).await;
    assert_eq!(kept.0, StatusCode::CREATED);
    let marked = |tools: &'static str| {
        let request = server.client.post(server.url("/cache/v1/store"));
        let request = request.header("x-askonce-safe-tools", tools);
        request.json(&call("send_mail")).send()
    };
    let kept = marked("lookup, send_mail").await.unwrap();
    assert_eq!(kept.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn one_keys_answer_serves_no_other_by_similarity_until_a_second_asked_the_same() {
    let server = with_keys("admission: { min_principals: 2 }");
    let planted = json!({ "prompt": ASKED, "answer": "Send it to mallory." });
    assert_eq!(
        store(&server, Some("mallory"), planted).await.0,
        StatusCode::CREATED
    );
    let asked = lookup(&server, "bob", SIMILAR).await;
    assert_eq!(
        (&asked["outcome"], &asked["reason"]),
        (&json!("miss"), &json!("too_few_principals"))
    );
    assert_eq!(
        lookup(&server, "mallory", SIMILAR).await["kind"],
        "semantic"
    );
    assert_eq!(lookup(&server, "alice", ASKED).await["kind"], "exact");
    assert_eq!(lookup(&server, "bob", SIMILAR).await["kind"], "semantic");
}

#[tokio::test]
async fn an_admin_approves_a_file_and_nobody_else_does() {
    let server = with_keys("admission: { min_principals: 3, quota: { stores_per_hour: 1 } }");
    let approved = json!({ "prompt": ASKED, "answer": "Open Settings.", "approved": true });
    let (status, told) = store(&server, Some("mallory"), approved).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{told}");

    let file = server.directory.path().join("warm.jsonl");
    let lines = [
        json!({ "prompt": ASKED, "answer": "Open Settings." }),
        json!({ "prompt": "Where is my invoice?", "answer": "In the mail.", "approved": false }),
        json!({ "prompt": "What is my key?", "answer": format!("ghp_{}", "a1B2c3D4e5F6".repeat(3)) }),
        json!({ "answer": "To what?" }),
    ];
    let text: String = lines.iter().map(|line| format!("{line}\n\n")).collect();
    std::fs::write(&file, format!("{text}[1\n")).unwrap();
    let file = file.to_str().unwrap();
    let refused = command(&server, Some("key-of-bob"), &["warm", file, "--approve"]);
    assert!(!refused.status.success());
    assert!(
        stderr(&refused).contains("only an admin may approve"),
        "{}",
        stderr(&refused)
    );
    assert_eq!(lookup(&server, "bob", ASKED).await["outcome"], "miss");

    let args = ["warm", file, "--approve", "--tag", "faq", "--json"];
    let warmed = command(&server, Some("key-of-admin"), &args);
    assert!(!warmed.status.success(), "two lines cannot be stored");
    let told: Value = serde_json::from_str(&stdout(&warmed)).unwrap();
    assert_eq!(told["stored"], 2);
    assert_eq!(told["not_stored"], json!({ "secret": 1 }));
    let failed = told["failed"].as_array().unwrap();
    let lines: Vec<_> = failed.iter().map(|failed| &failed["line"]).collect();
    assert_eq!(lines, [7, 9]);
    assert_eq!(lookup(&server, "bob", SIMILAR).await["kind"], "semantic");

    // Without approval each counts against the quota, and serves nobody else.
    let (status, _) = store(
        &server,
        Some("alice"),
        json!({ "prompt": "Where is the shop?", "answer": "In Oslo." }),
    )
    .await;
    assert_eq!(status, StatusCode::CREATED);
    let (_, told) = store(
        &server,
        Some("alice"),
        json!({ "prompt": "When does it open?", "answer": "At nine." }),
    )
    .await;
    assert_eq!(told["reason"], "quota");
}

#[test]
fn a_pattern_that_is_none_is_found_by_the_check_of_the_settings() {
    let folder = tempfile::tempdir().unwrap();
    let settings = "admission: { patterns: [{ name: badge, regex: 'E-(\\d+' }] }";
    std::fs::write(folder.path().join("askonce.yaml"), settings).unwrap();
    let checked = run(folder.path(), &["config", "check"]);
    assert!(!checked.status.success());
    let told = stderr(&checked);
    for words in ["admission.patterns[0].regex", "unclosed group"] {
        assert!(told.contains(words), "{told}");
    }
}

#[tokio::test]
async fn savings_are_told_by_what_is_asked_for_and_survive_a_restart() {
    let books = tempfile::tempdir().unwrap();
    let path = books.path().join("books.json");
    let setting = format!("ledger.path={}", path.display());
    let setup = || Setup::default().set(&setting);
    let usage = json!({ "prompt_tokens": 1_000, "completion_tokens": 500 });
    let before = {
        let mut server = setup().start();
        let fields =
            json!({ "prompt": ASKED, "model": "gpt-4o", "answer": "Yes.", "usage": usage });
        assert_eq!(store(&server, None, fields).await.0, StatusCode::CREATED);
        let asked = json!({ "prompt": ASKED, "model": "gpt-4o" });
        assert_eq!(
            server.post("/cache/v1/lookup", asked).await.1["outcome"],
            "hit"
        );
        let before = server.get("/cache/v1/savings").await.1;
        server.terminate();
        assert!(server.wait().0.success());
        before
    };
    assert_eq!(before["totals"]["hits_exact"], 1);
    assert_ne!(before["net_usd"], "0");
    let server = setup().start();
    let told = server.get("/cache/v1/savings").await.1;
    for part in ["net_usd", "totals", "by_model", "by_day", "prices"] {
        assert_eq!(told[part], before[part], "{part}");
    }
    let as_of = told["prices"]["builtin"].as_str().unwrap();
    assert_eq!(as_of.len(), "2026-11-20".len());
    let day = told["by_day"][0]["day"].as_str().unwrap().to_owned();
    let by = server
        .get(&format!("/cache/v1/savings?by=day&since={day}"))
        .await
        .1;
    assert_eq!(by["by_day"], told["by_day"]);
    assert_eq!(by["by_model"], json!([]));
    let none = server.get("/cache/v1/savings?since=9999-01-01").await.1;
    assert_eq!(none["totals"]["hits_exact"], 0);
    for wrong in ["by=week", "since=yesterday", "sinse=2026-01-01"] {
        let (status, _) = server.get(&format!("/cache/v1/savings?{wrong}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{wrong}");
    }
    let shown = command(
        &server,
        None,
        &["savings", "--by", "model", "--since", &day],
    );
    let shown = stdout(&shown);
    assert!(
        shown.contains("gpt-4o") && shown.contains("prices     list of "),
        "{shown}"
    );
    assert!(!shown.contains("\nday"), "{shown}");
    let told = command(&server, None, &["savings", "--json", "--by", "tenant"]);
    let told: Value = serde_json::from_str(&stdout(&told)).unwrap();
    assert_eq!(told["by_tenant"][0]["name"], "local");
    assert!(
        !command(&server, None, &["savings", "--by", "week"])
            .status
            .success()
    );
    let health = command(&server, None, &["health"]);
    assert!(health.status.success());
    assert_eq!(stdout(&health), "ready\n");
}

#[test]
fn a_server_that_is_not_there_is_not_healthy() {
    let folder = tempfile::tempdir().unwrap();
    let health = run(folder.path(), &["health", "--server", "http://127.0.0.1:9"]);
    assert!(!health.status.success());
    assert!(stderr(&health).contains("no askonce server answers"));
}
