//! What operators look at: the admin page and the API that it asks. Who sees what, and that nobody else does.

mod support;

use std::process::Stdio;

use axum::http::StatusCode;
use serde_json::{Value, json};
use support::{Server, Setup, askonce, completion, prompt};

/// A server with two tenants and an admin, whose upstream answers everything.
async fn shared() -> (Server, support::Upstream) {
    let upstream = support::Upstream::start().await;
    upstream.answer_json(completion("Open Settings, then Security."));
    let server = Setup::upstream(&upstream.url)
        .config(
            "auth:\n  keys:\n    - { name: acme, key_env: KEY_A }\n    - { name: globex, key_env: KEY_G }\n    \
             - { name: ops, key_env: KEY_O, admin: true }\n",
        )
        .env("KEY_A", "sk-a")
        .env("KEY_G", "sk-g")
        .env("KEY_O", "sk-o")
        .start();
    (server, upstream)
}

async fn ask(server: &Server, key: &str, text: &str) {
    let bearer = format!("Bearer {key}");
    let reply = server
        .chat_with(&prompt(text), &[("authorization", &bearer)])
        .await;
    assert_eq!(reply.status, StatusCode::OK);
}

async fn get_as(server: &Server, key: &str, path: &str) -> (StatusCode, Value) {
    let request = server.client.get(server.url(path)).bearer_auth(key);
    let response = request.send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

#[tokio::test]
async fn lookups_and_entries_are_seen_by_their_own_tenant_and_by_admins() {
    let (server, _upstream) = shared().await;
    ask(&server, "sk-a", "How do I reset my password?").await;
    ask(&server, "sk-a", "How do I reset my password?").await;
    ask(&server, "sk-g", "How do I cook rice?").await;

    let seen = async |key: &str| {
        let (status, told) = get_as(&server, key, "/cache/v1/recent").await;
        assert_eq!(status, StatusCode::OK, "{told}");
        let text = told.to_string();
        assert!(
            !text.contains("password") && !text.contains("rice"),
            "{told}"
        );
        told["lookups"].as_array().unwrap().len()
    };
    assert_eq!((seen("sk-a").await, seen("sk-g").await), (2, 1));
    assert_eq!(seen("sk-o").await, 3);
    let (_, hits) = get_as(&server, "sk-o", "/cache/v1/recent?outcome=hit").await;
    assert_eq!(hits["lookups"].as_array().unwrap().len(), 1);
    assert_eq!(hits["lookups"][0]["kind"], "exact");
    assert_eq!(hits["lookups"][0]["scope"], "acme");

    let found = async |key: &str, words: &str| {
        let fields = json!({ "words": words });
        let path = "/cache/v1/entries/search";
        let (status, told) = server.post_as(Some(key), path, fields).await;
        assert_eq!(status, StatusCode::OK, "{told}");
        told["entries"].as_array().unwrap().len()
    };
    assert_eq!(found("sk-a", "Password reset").await, 1);
    assert_eq!(found("sk-g", "password").await, 0);
    assert_eq!(found("sk-o", "").await, 2);
}

#[tokio::test]
async fn what_shows_more_than_counts_is_for_admins() {
    let (server, _upstream) = shared().await;
    let (status, _) = get_as(&server, "sk-a", "/cache/v1/policy").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let replay = "/cache/v1/replay";
    let (status, _) = server.post_as(Some("sk-a"), replay, json!({})).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let (status, told) = get_as(&server, "sk-o", "/cache/v1/policy").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(told["settings"]["wrong_per_request"], 0.01, "{told}");
}

#[tokio::test]
async fn other_policies_are_tried_on_the_decisions_of_late() {
    let (server, _upstream) = shared().await;
    ask(&server, "sk-a", "How do I reset my password?").await;
    ask(&server, "sk-a", "how can I reset my password").await;
    ask(&server, "sk-a", "How do I reset my router?").await;
    let policies = json!({ "policies": [
        { "type": "threshold", "threshold": 0.5, "guards": false },
        { "type": "exact_only" },
        { "type": "calibrated", "wrong_per_request": 1e-9 },
    ] });
    let path = "/cache/v1/replay";
    let (status, told) = server.post_as(Some("sk-o"), path, policies).await;
    assert_eq!(status, StatusCode::OK, "{told}");
    assert_eq!(told["decisions"], 2, "{told}");
    let hits: Vec<_> = told["replays"].as_array().unwrap().iter().collect();
    assert_eq!(
        (&hits[0]["policy"], &hits[0]["hits"]),
        (&json!("as logged"), &json!(1))
    );
    assert_eq!(
        (&hits[1]["policy"], &hits[1]["hits"]),
        (&json!("in force"), &json!(1))
    );
    assert_eq!(hits[2]["hits"], 2, "a low threshold serves both");
    assert_eq!(hits[2]["expected_wrong"], Value::Null);
    assert_eq!(hits[3]["hits"], 0);
    assert!(
        hits[4]["problem"].as_str().unwrap().contains("certify"),
        "{told}"
    );

    for (wrong, field) in [
        (
            json!({ "policies": [{ "type": "calibrated", "path": "/etc/passwd" }] }),
            "policies[0].path",
        ),
        (
            json!({ "policies": vec![json!({ "type": "exact_only" }); 25] }),
            "policies",
        ),
        (
            json!({ "policies": [{ "type": "exact_only", "floor": 1 }] }),
            "policies[0]",
        ),
    ] {
        let (status, told) = server.post_as(Some("sk-o"), path, wrong).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{told}");
        assert_eq!(told["field"], field, "{told}");
    }
}

#[tokio::test]
async fn counts_by_the_minute_tell_tiers_reasons_and_times() {
    let (server, _upstream) = shared().await;
    for _ in 0..3 {
        ask(&server, "sk-a", "How do I reset my password?").await;
    }
    let (status, told) = get_as(&server, "sk-a", "/cache/v1/series?minutes=5&step=9").await;
    assert_eq!(status, StatusCode::OK, "{told}");
    assert_eq!(
        told["step_seconds"], 300,
        "a step is no longer than what is asked for"
    );
    let total = &told["total"];
    assert_eq!(total["hits"]["memory"], 2, "{told}");
    assert_eq!(total["misses"]["not_found"], 1, "{told}");
    assert_eq!(total["upstream"]["ok"], 1);
    assert_eq!(total["answers"]["exact"]["count"], 2, "{told}");
    let miss = &total["answers"]["miss"];
    assert!(miss["p99"].as_f64() >= miss["p50"].as_f64(), "{told}");
    let (status, told) = get_as(&server, "sk-a", "/cache/v1/series?minutes=0").await;
    assert_eq!(
        (status, &told["field"]),
        (StatusCode::BAD_REQUEST, &json!("minutes"))
    );
}

#[tokio::test]
async fn the_page_may_not_be_framed_and_can_be_switched_off() {
    let server = Setup::default().start();
    let get = async |path: &str| server.client.get(server.url(path)).send().await.unwrap();
    let page = get("/admin").await;
    assert_eq!(page.status(), StatusCode::OK);
    let header = |name: &str| page.headers()[name].to_str().unwrap().to_owned();
    assert!(header("content-security-policy").contains("frame-ancestors 'none'"));
    assert_eq!(header("x-content-type-options"), "nosniff");
    let etag = header("etag");
    let again = server.client.get(server.url("/admin"));
    let again = again.header("if-none-match", &etag).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    for (path, media) in [("app.js", "text/javascript"), ("style.css", "text/css")] {
        let file = get(&format!("/admin/{path}")).await;
        assert!(
            file.headers()["content-type"]
                .to_str()
                .unwrap()
                .starts_with(media)
        );
    }
    assert_eq!(get("/admin/secrets").await.status(), StatusCode::NOT_FOUND);
    let relayed = server.client.get(server.url("/admin"));
    let relayed = relayed.header("x-forwarded-for", "192.0.2.7").send().await;
    assert_eq!(relayed.unwrap().status(), StatusCode::UNAUTHORIZED);

    let off = Setup::default().set("admin.enabled=false").start();
    let (status, _) = off.get("/admin").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (_, told) = off.get("/cache/v1/recent").await;
    assert_eq!(told, json!({ "kept": false, "lookups": [] }));
}

#[test]
fn production_does_not_start_with_a_page_that_asks_for_no_key() {
    let folder = tempfile::tempdir().unwrap();
    let output = askonce(folder.path())
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--set",
            "environment=production",
        ])
        .stdout(Stdio::null())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let complaint = support::stderr(&output);
    assert!(
        complaint.contains("admin.enabled") && complaint.contains("remedy"),
        "{complaint}"
    );
}
