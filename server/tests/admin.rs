//! What operators see and do: keys, invalidation, health, statistics, events and the doctor, over memory, a
//! private Redis and a private memcached, through the API and the command line.

#[path = "../../tests/support/memcached.rs"]
mod memcached;
#[allow(dead_code, reason = "each test binary uses its own part")]
#[path = "../../tests/support/server.rs"]
mod redis_server;
mod support;

use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::time::{Duration, Instant};

use askonce::backend::{BackendHandle, CacheBackend, MemcachedBackend, RedisBackend};
use askonce::typed::{Cache, Key, Lookup, SetOptions};
use axum::http::StatusCode;
use redis_server::RedisServer;
use serde_json::{Value, json};
use support::{PATIENCE, Server, Setup, askonce, eventually, stderr, stdout};

const RESET: &str = "How do I reset my password?";
const INVOICE: &str = "Where is my invoice?";

async fn store(server: &Server, key: Option<&str>, prompt: &str, tag: &str) -> String {
    let fields = json!({ "prompt": prompt, "answer": "The secret answer", "tags": [tag], "model": "gpt-4o" });
    let (status, told) = server.post_as(key, "/cache/v1/store", fields).await;
    assert_eq!(status, StatusCode::CREATED, "{told}");
    told["key"].as_str().unwrap().to_owned()
}

async fn outcome(server: &Server, key: Option<&str>, prompt: &str) -> String {
    let fields = json!({ "prompt": prompt, "model": "gpt-4o" });
    let (_, told) = server.post_as(key, "/cache/v1/lookup", fields).await;
    told["outcome"].as_str().unwrap().to_owned()
}

async fn get_as(server: &Server, key: Option<&str>, path: &str) -> (StatusCode, Value) {
    let mut request = server.client.get(server.url(path));
    if let Some(key) = key {
        request = request.bearer_auth(key);
    }
    let response = request.send().await.unwrap();
    let status = response.status();
    (status, response.json().await.unwrap_or(Value::Null))
}

/// Runs a command against a server.
fn command(server: &Server, args: &[&str]) -> Output {
    let mut command = askonce(server.directory.path());
    command.args(args).env("ASKONCE_SERVER", &server.url);
    command.output().unwrap()
}

/// What a command that succeeds prints.
fn said(server: &Server, args: &[&str]) -> String {
    let output = command(server, args);
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    stdout(&output)
}

/// Runs a command in a directory without a server; its JSON, its complaints, its exit code.
fn alone(directory: &Path, args: &[&str]) -> (Value, String, i32) {
    let output = askonce(directory)
        .args(args)
        .arg("--json")
        // Nobody listens there.
        .env("ASKONCE_SERVER", "http://127.0.0.1:1")
        .output()
        .unwrap();
    let told = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (told, stderr(&output), output.status.code().unwrap())
}

/// Memory over a Redis.
fn over_redis(redis: &RedisServer, prefix: &str) -> String {
    format!(
        "backends:\n  - {{ type: memory }}\n  - {{ type: redis, redis_url: \"redis://127.0.0.1:{}\", \
         key_prefix: {prefix}, timeout: 5s }}\n",
        redis.port
    )
}

fn typed(backend: impl CacheBackend) -> Cache {
    let backend: BackendHandle = Arc::new(backend);
    Cache::builder(backend).namespace("users").build().unwrap()
}

fn over(redis: &RedisServer, prefix: &str) -> RedisBackend {
    let mut config = redis.config();
    config.key_prefix = prefix.to_owned();
    RedisBackend::builder(config).build().unwrap()
}

fn names(report: &Value) -> Vec<String> {
    let keys = report["keys"]
        .as_array()
        .unwrap_or_else(|| panic!("{report}"));
    let names = keys
        .iter()
        .map(|key| key["key"].as_str().unwrap().to_owned());
    names.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_listed_shown_and_removed_by_pattern_from_the_command_line() {
    let server = Setup::default().start();
    let reset = store(&server, None, RESET, "doc:1").await;
    let invoice = store(&server, None, INVOICE, "doc:2").await;

    let listed = said(&server, &["keys"]);
    assert!(
        listed.contains(&reset) && listed.contains(&invoice),
        "{listed}"
    );
    assert!(
        listed.contains("model gpt-4o  tags doc:1") && listed.contains("2 keys"),
        "{listed}"
    );
    let listed: Value =
        serde_json::from_str(&said(&server, &["keys", "--json", "--tag", "doc:2"])).unwrap();
    assert_eq!(names(&listed), [invoice.as_str()]);
    assert_eq!(listed["keys"][0]["kind"], "entry");
    assert!(listed["keys"][0]["ttl_seconds"].as_u64().unwrap() > 80_000);
    let some = said(&server, &["keys", "--limit", "1"]);
    assert!(some.contains("1 keys and more"), "{some}");

    let shown = said(&server, &["get", &reset]);
    assert!(
        shown.contains("gpt-4o") && !shown.contains("secret") && !shown.contains("password"),
        "{shown}"
    );
    let shown = said(&server, &["get", &reset, "--value"]);
    assert!(
        shown.contains("The secret answer") && shown.contains("password"),
        "{shown}"
    );
    let gone = command(&server, &["get", &"0".repeat(64)]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(stderr(&gone).contains("no such key"), "{}", stderr(&gone));

    let pattern = format!("{}*", &reset[..20]);
    let dry = said(&server, &["invalidate", "--pattern", &pattern, "--dry-run"]);
    assert_eq!(dry, "would remove 1 entries\n");
    assert_eq!(
        outcome(&server, None, RESET).await,
        "hit",
        "a dry run changes nothing"
    );
    let dry = said(&server, &["invalidate", "--key", &reset, "--dry-run"]);
    assert_eq!(dry, "would remove 1 entries\n");
    assert_eq!(
        said(&server, &["invalidate", "--pattern", &pattern]),
        "removed 1 entries\n"
    );
    assert_eq!(outcome(&server, None, RESET).await, "miss");
    assert_eq!(
        outcome(&server, None, "how can I reset my password").await,
        "miss"
    );
    assert_eq!(outcome(&server, None, INVOICE).await, "hit");

    let refused = command(&server, &["clear"]);
    assert!(stderr(&refused).contains("--yes"), "{}", stderr(&refused));
    assert_eq!(outcome(&server, None, INVOICE).await, "hit");
    assert_eq!(said(&server, &["clear", "--yes"]), "cleared\n");
    assert_eq!(outcome(&server, None, INVOICE).await, "miss");
    let nowhere = command(&server, &["keys", "--backend", "nowhere"]);
    assert!(
        stderr(&nowhere).contains("no such backend"),
        "{}",
        stderr(&nowhere)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_sees_and_removes_its_own_keys_and_an_admin_those_of_all() {
    let server = Setup::default()
        .config(
            "auth:\n  keys:\n    - { name: acme, key_env: KEY_A }\n    - { name: globex, key_env: KEY_G }\n    \
             - { name: ops, key_env: KEY_O, admin: true }\n",
        )
        .env("KEY_A", "sk-acme")
        .env("KEY_G", "sk-globex")
        .env("KEY_O", "sk-ops")
        .start();
    let (acme, globex, ops) = (Some("sk-acme"), Some("sk-globex"), Some("sk-ops"));
    let own = store(&server, acme, RESET, "t").await;
    let others = store(&server, globex, RESET, "t").await;

    let (_, listed) = get_as(&server, acme, "/cache/v1/keys").await;
    assert_eq!(names(&listed), [own.as_str()]);
    let (_, listed) = get_as(&server, ops, "/cache/v1/keys").await;
    assert_eq!(listed["keys"].as_array().unwrap().len(), 2);
    let (status, _) = get_as(&server, None, "/cache/v1/keys").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let path = format!("/cache/v1/keys/{others}?value=true");
    assert_eq!(get_as(&server, acme, &path).await.0, StatusCode::NOT_FOUND);
    let (status, shown) = get_as(&server, ops, &path).await;
    assert_eq!(
        (status, &shown["scope"]),
        (StatusCode::OK, &json!("globex"))
    );
    assert_eq!(shown["value"], "The secret answer");

    for (path, what) in [
        ("clear", json!({})),
        ("invalidate", json!({ "namespace": "n", "tag": "t" })),
    ] {
        let (status, told) = server
            .post_as(acme, &format!("/cache/v1/{path}"), what)
            .await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{told}");
    }
    assert_eq!(
        get_as(&server, acme, "/cache/v1/events").await.0,
        StatusCode::FORBIDDEN
    );

    let everything = json!({ "pattern": "*" });
    let (_, told) = server
        .post_as(acme, "/cache/v1/invalidate", everything)
        .await;
    assert_eq!(told["removed"], 1, "{told}");
    assert_eq!(outcome(&server, acme, RESET).await, "miss");
    assert_eq!(outcome(&server, globex, RESET).await, "hit");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_redis_is_looked_at_and_cleaned_up_with_and_without_a_server() {
    let Some(redis) = RedisServer::shared() else {
        return;
    };
    let config = over_redis(redis, "admin-shared");
    let first = Setup::default().config(&config).start();
    let second = Setup::default().config(&config).start();
    let reset = store(&first, None, RESET, "doc:1").await;
    let invoice = store(&first, None, INVOICE, "doc:2").await;
    let users = typed(over(redis, "admin-shared"));
    let name = Key::new("name").part(7);
    users
        .set(
            &name,
            &"Ada".to_owned(),
            SetOptions::default().tags(["people"]),
        )
        .await
        .unwrap();

    // The second server did not store any of it.
    let listed: Value =
        serde_json::from_str(&said(&second, &["keys", "--json", "--backend", "redis"])).unwrap();
    let mut found = names(&listed);
    found.sort();
    let mut expected = vec![reset.clone(), invoice.clone(), "users/name:7".to_owned()];
    expected.sort();
    assert_eq!(found, expected);
    let shown = said(&second, &["get", "users/name:7", "--value"]);
    assert!(shown.contains("Ada") && shown.contains("value"), "{shown}");
    let shown = said(&second, &["get", "users/name:7"]);
    assert!(!shown.contains("Ada"), "{shown}");

    let dry = said(
        &second,
        &[
            "invalidate",
            "--namespace",
            "users",
            "--tag",
            "people",
            "--dry-run",
        ],
    );
    assert!(
        dry.starts_with("would invalidate the tag in 1 backends: redis"),
        "{dry}"
    );
    assert_eq!(
        users.get::<String>(&name).await.unwrap(),
        Lookup::Hit("Ada".to_owned())
    );
    said(
        &second,
        &["invalidate", "--namespace", "users", "--tag", "people"],
    );
    assert_eq!(users.get::<String>(&name).await.unwrap(), Lookup::Miss);

    assert_eq!(
        said(&second, &["invalidate", "--pattern", &reset]),
        "removed 1 entries\n"
    );
    assert_eq!(outcome(&second, None, RESET).await, "miss");

    let directory = second.directory.path();
    let (told, _, code) = alone(directory, &["keys", "--direct", "--pattern", &invoice]);
    assert_eq!((names(&told), code), (vec![invoice.clone()], 0));
    // No server answers, but the backend is named and shared.
    let (told, complaint, code) =
        alone(directory, &["keys", "--backend", "redis", "--tag", "doc:2"]);
    assert_eq!(
        (names(&told), code),
        (vec![invoice.clone()], 0),
        "{complaint}"
    );
    assert!(complaint.contains("directly"), "{complaint}");
    let (_, complaint, code) = alone(directory, &["keys", "--backend", "memory"]);
    assert!(
        code == 1 && complaint.contains("askonce serve"),
        "{complaint}"
    );
    let (told, _, _) = alone(directory, &["get", &invoice, "--direct", "--value"]);
    assert_eq!(told["value"], "The secret answer");
    let (told, _, _) = alone(directory, &["stats", "--direct"]);
    assert_eq!(told["servers"][0]["software"], "redis", "{told}");

    let by_tag = ["invalidate", "--direct", "--tag", "doc:2"];
    let (told, _, _) = alone(directory, &[&by_tag[..], &["--dry-run"]].concat());
    assert_eq!(told["would_remove"], 1, "{told}");
    assert_eq!(
        outcome(&second, None, INVOICE).await,
        "hit",
        "a dry run changes nothing"
    );
    let (told, _, _) = alone(directory, &by_tag);
    assert_eq!(told["removed"], 1, "{told}");
    let (told, _, _) = alone(directory, &["keys", "--direct", "--pattern", &invoice]);
    assert!(names(&told).is_empty(), "{told}");
    let (told, _, code) = alone(directory, &["clear", "--direct", "--yes"]);
    assert_eq!((&told["cleared"], code), (&json!(true), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn memcached_cannot_list_its_keys_and_the_command_says_what_can_be_done() {
    let Some(settings) = memcached::shared() else {
        return;
    };
    let config = format!(
        "backends:\n  - {{ type: memcached, servers: [\"{}\"], key_prefix: {}, timeout: 5s }}\n",
        settings.servers[0], settings.key_prefix
    );
    let server = Setup::default().config(&config).start();
    let reset = store(&server, None, RESET, "t").await;
    let users = typed(MemcachedBackend::builder(settings).build().unwrap());
    let name = Key::new("name").part(7);
    users
        .set(
            &name,
            &"Ada".to_owned(),
            SetOptions::default().tags(["people"]),
        )
        .await
        .unwrap();

    let listed = command(&server, &["keys"]);
    assert_eq!(listed.status.code(), Some(1));
    let complaint = stderr(&listed);
    assert!(
        complaint.contains("memcached: this kind of backend cannot list"),
        "{complaint}"
    );
    assert!(complaint.contains("name the key"), "{complaint}");

    assert!(said(&server, &["get", &reset]).contains("entry"));
    // What this server stored itself, it knows; what others stored, it cannot.
    let removed = command(
        &server,
        &["invalidate", "--pattern", &format!("{}*", &reset[..16])],
    );
    assert_eq!(removed.status.code(), Some(1));
    assert_eq!(stdout(&removed), "removed 1 entries\n");
    assert_eq!(outcome(&server, None, RESET).await, "miss");

    said(&server, &["invalidate", "--key", "users/name:7"]);
    assert_eq!(users.get::<String>(&name).await.unwrap(), Lookup::Miss);
    users
        .set(
            &name,
            &"Ada".to_owned(),
            SetOptions::default().tags(["people"]),
        )
        .await
        .unwrap();
    let (told, complaint, code) = alone(
        server.directory.path(),
        &[
            "invalidate",
            "--direct",
            "--namespace",
            "users",
            "--tag",
            "people",
        ],
    );
    assert_eq!(
        (&told["tiers"], code),
        (&json!(["memcached"]), 0),
        "{complaint}"
    );
    assert_eq!(users.get::<String>(&name).await.unwrap(), Lookup::Miss);
}

fn doctor(directory: &Path) -> (Value, i32) {
    let output = askonce(directory)
        .args(["doctor", "--json", "--set", "listen=127.0.0.1:0"])
        .output()
        .unwrap();
    let report = serde_json::from_slice(&output.stdout);
    (
        report.unwrap_or_else(|_| panic!("{}", stderr(&output))),
        output.status.code().unwrap(),
    )
}

fn finding<'a>(report: &'a Value, check: &str) -> &'a Value {
    let checks = report["checks"].as_array().unwrap();
    let found = checks.iter().find(|found| found["check"] == check);
    found.unwrap_or_else(|| panic!("{check} in {report:#}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn w_68_the_doctor_tries_every_backend_out_and_leaves_nothing_behind() {
    let (Some(redis), Some(memcached)) = (RedisServer::shared(), memcached::shared()) else {
        return;
    };
    let upstream = support::Upstream::start().await;
    let directory = tempfile::tempdir().unwrap();
    let config = format!(
        "{}  - {{ type: memcached, servers: [\"{}\"], key_prefix: doctor, timeout: 5s }}\n\
         upstreams: [{{ base_url: \"{}\" }}]\n",
        over_redis(redis, "doctor"),
        memcached.servers[0],
        upstream.url
    );
    std::fs::write(directory.path().join("askonce.yaml"), config).unwrap();
    let (report, code) = doctor(directory.path());
    assert_eq!(code, 0, "{report:#}");
    for backend in ["memory", "redis", "memcached"] {
        let tried = finding(&report, &format!("backend {backend}"));
        assert_eq!(tried["finding"], "pass", "{report:#}");
        assert!(
            tried["detail"]
                .as_str()
                .unwrap()
                .contains("lets values die"),
            "{tried}"
        );
    }
    let server = finding(&report, "backend redis server")["detail"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        server.contains("redis ") || server.contains("valkey "),
        "{server}"
    );
    assert!(
        server.contains("clock ") && server.contains("no TLS"),
        "{server}"
    );
    assert_eq!(finding(&report, "backend redis feed")["finding"], "pass");
    let server = finding(&report, "backend memcached server")["detail"]
        .as_str()
        .unwrap();
    assert!(
        server.contains("memcached ") && server.contains(" used of "),
        "{server}"
    );
    // A fresh Redis has no bound and evicts nothing.
    let warnings = report["checks"].as_array().unwrap().iter();
    let warned: Vec<_> = warnings
        .filter(|check| check["finding"] == "warn")
        .collect();
    assert!(
        warned
            .iter()
            .any(|check| check["detail"].as_str().unwrap().contains("refuses writes")),
        "{report:#}"
    );

    let left: Vec<String> = redis::cmd("KEYS")
        .arg("doctor::*")
        .query(&mut redis.raw())
        .unwrap();
    // The feed is the backend's own; it stays.
    let left: Vec<_> = left.iter().filter(|key| !key.ends_with("%~feed")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_asks_a_server_that_holds_the_port_how_it_is() {
    let upstream = support::Upstream::start().await;
    let server = Setup::default().start();
    let listen = server.url.trim_start_matches("http://");
    let output = askonce(server.directory.path())
        .args(["doctor", "--json", "--set", &format!("listen={listen}")])
        .args(["--set", &format!("upstreams[0].base_url={}", upstream.url)])
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success(), "{report:#}");
    let listens = finding(&report, "listen");
    assert!(
        listens["detail"]
            .as_str()
            .unwrap()
            .contains("an askonce server answers"),
        "{listens}"
    );
    assert_eq!(finding(&report, "server memory")["finding"], "pass");
}

#[test]
fn w_68_the_doctor_reports_a_redis_that_is_down_and_fails() {
    let directory = tempfile::tempdir().unwrap();
    let config = format!(
        "backends:\n  - {{ type: memory }}\n  - {{ type: redis, redis_url: \"redis://127.0.0.1:{}\" }}\n",
        redis_server::free_port()
    );
    std::fs::write(directory.path().join("askonce.yaml"), config).unwrap();
    let (report, code) = doctor(directory.path());
    assert_eq!((code, &report["ok"]), (1, &json!(false)));
    let redis = finding(&report, "backend redis");
    assert_eq!(redis["finding"], "fail");
    assert!(
        redis["remedy"]
            .as_str()
            .unwrap()
            .contains("check that it runs"),
        "{redis}"
    );
    assert_eq!(finding(&report, "backend memory")["finding"], "pass");
    // The cache itself goes on without it.
    assert_eq!(finding(&report, "round trip")["finding"], "pass");
}

#[tokio::test(flavor = "multi_thread")]
async fn w_11_health_of_two_backends_is_told_in_bounded_time_and_degraded_is_still_ready() {
    if RedisServer::shared().is_none() {
        return;
    }
    let mut redis = RedisServer::start().unwrap();
    let config = over_redis(&redis, "health").replace("timeout: 5s", "timeout: 200ms");
    let server = Setup::default().config(&config).start();
    let (status, told) = server.get("/health/ready").await;
    assert_eq!(
        (status, &told["status"]),
        (StatusCode::OK, &json!("ready")),
        "{told}"
    );
    assert_eq!(told["tiers"].as_array().unwrap().len(), 2);

    redis.hang();
    let started = Instant::now();
    eventually(|| async { server.get("/health/ready").await.1["status"] == "degraded" }).await;
    let probes = (0..50).map(|_| server.get("/health/ready"));
    let answers = futures_util::future::join_all(probes).await;
    assert!(started.elapsed() < PATIENCE);
    for (status, told) in answers {
        assert_eq!(
            (status, &told["status"]),
            (StatusCode::OK, &json!("degraded")),
            "{told}"
        );
    }
    let (status, told) = server.get("/cache/v1/health").await;
    assert_eq!(status, StatusCode::OK);
    let tier = &told["tiers"][1];
    assert_eq!(
        (&tier["name"], &tier["up"]),
        (&json!("redis"), &json!(false)),
        "{told}"
    );
    assert_eq!(tier["status"], "unhealthy");
    assert!(
        tier["reason"].is_string() && tier["breakers"]["read"].is_string(),
        "{tier}"
    );
    assert_eq!(told["tiers"][0]["status"], "healthy");
    assert_eq!(server.get("/health/live").await.0, StatusCode::OK);
    // The cache goes on.
    store(&server, None, RESET, "t").await;
    assert_eq!(outcome(&server, None, RESET).await, "hit");

    redis.wake();
    eventually(|| async { server.get("/health/ready").await.1["status"] == "ready" }).await;
}

#[tokio::test]
async fn w_67_without_traffic_there_is_no_hit_rate_and_w_69_with_it_sets_do_not_count() {
    let server = Setup::default().start();
    let (_, stats) = server.get("/cache/v1/stats").await;
    assert_eq!(stats["hit_rate"], Value::Null, "{stats}");
    assert_eq!(stats["tiers"][0]["hit_rate"], Value::Null, "{stats}");
    assert_eq!(
        stats["tiers"][0]["latency"]["p99_seconds"]
            .as_f64()
            .is_some(),
        stats["tiers"][0]["latency"].is_object()
    );

    store(&server, None, RESET, "t").await;
    assert_eq!(outcome(&server, None, RESET).await, "hit");
    let (_, stats) = server.get("/cache/v1/stats").await;
    assert_eq!(stats["hit_rate"], 1.0, "{stats}");
    let tier = &stats["tiers"][0];
    assert_eq!(
        (&tier["counts"]["hits"], &tier["hit_rate"]),
        (&json!(1), &json!(1.0)),
        "{tier}"
    );
    assert!(
        tier["latency"]["operations"].as_u64().unwrap() >= 2,
        "{tier}"
    );
    assert!(
        tier["latency"]["p50_seconds"].as_f64().unwrap() > 0.0,
        "{tier}"
    );
    assert_eq!(
        tier["removals"],
        json!({ "expired": 0, "evicted": 0 }),
        "an invalidation is no eviction"
    );
    outcome(&server, None, "Is it raining in Lisbon?").await;
    let (_, stats) = server.get("/cache/v1/stats").await;
    assert_eq!(stats["hit_rate"], 0.5, "{stats}");
    server
        .post("/cache/v1/invalidate", json!({ "all": true }))
        .await;
    let (_, stats) = server.get("/cache/v1/stats").await;
    assert_eq!(stats["removals"], json!({ "invalidated": 1 }));
    assert_eq!(stats["tiers"][0]["removals"]["evicted"], 0);
    let words = said(&server, &["stats"]);
    assert!(words.contains("tiers.memory.counts.hits"), "{words}");
    let (_, fresh) = Setup::default().start().get("/cache/v1/stats").await;
    assert_eq!(fresh["hit_rate"], Value::Null);
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn events_are_streamed_without_keys_and_the_stream_ends_with_the_server() {
    let mut server = Setup::default().start();
    let mut stream = server
        .client
        .get(server.url("/cache/v1/events"))
        .send()
        .await
        .unwrap();
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let first = stream.chunk().await.unwrap().unwrap();
    assert_eq!(&first[..], b": listening\n\n");
    let key = store(&server, None, RESET, "t").await;
    outcome(&server, None, RESET).await;
    let mut told = String::new();
    while !told.contains("event: hit") {
        let chunk = tokio::time::timeout(PATIENCE, stream.chunk()).await;
        told.push_str(&String::from_utf8_lossy(&chunk.unwrap().unwrap().unwrap()));
    }
    assert!(
        told.contains("event: set") && told.contains("\"tier\":\"memory\""),
        "{told}"
    );
    assert!(!told.contains(&key) && !told.contains("password"), "{told}");
    server.terminate();
    let ended = tokio::time::timeout(PATIENCE, async {
        while let Ok(Some(_)) = stream.chunk().await {}
    });
    assert!(ended.await.is_ok());
    let asked = Instant::now();
    let (status, log) = server.wait();
    assert!(
        status.success() && asked.elapsed() < Duration::from_secs(25),
        "{log}"
    );
}

#[test]
fn a_redis_that_is_down_is_named_and_the_command_fails() {
    let directory = tempfile::tempdir().unwrap();
    let config = format!(
        "backends:\n  - {{ type: redis, redis_url: \"redis://127.0.0.1:{}\" }}\n",
        redis_server::free_port()
    );
    std::fs::write(directory.path().join("askonce.yaml"), config).unwrap();
    for args in [
        &["keys", "--direct"][..],
        &["invalidate", "--direct", "--pattern", "*"],
        &["invalidate", "--direct", "--key", "users/name:7"],
        &["clear", "--direct", "--yes"],
    ] {
        let (_, complaint, code) = alone(directory.path(), args);
        assert_eq!(code, 1, "{args:?}");
        assert!(
            complaint.contains("backend redis: "),
            "{args:?}: {complaint}"
        );
        assert!(
            complaint.contains("askonce doctor"),
            "{args:?}: {complaint}"
        );
    }
    let (_, complaint, code) = alone(directory.path(), &["get", "users/name:7", "--direct"]);
    assert!(
        code == 1 && !complaint.contains("no such key"),
        "{complaint}"
    );
    let by_age = ["invalidate", "--direct", "--older-than", "1h"];
    let (_, complaint, code) = alone(directory.path(), &by_age);
    assert!(
        code == 1 && complaint.contains("only a running server"),
        "{complaint}"
    );
}

#[tokio::test]
async fn w_67_what_had_to_make_room_is_counted_as_evicted_and_what_was_removed_is_not() {
    let server = Setup::default()
        .config("backends: [{ type: memory, max_bytes: 1MiB }]\n")
        .start();
    for i in 0..8 {
        let fields = json!({ "prompt": format!("question {i}"), "answer": "x".repeat(300_000) });
        let (status, told) = server.post("/cache/v1/store", fields).await;
        assert_eq!(status, StatusCode::CREATED, "{told}");
    }
    let evicted = async || {
        let (_, stats) = server.get("/cache/v1/stats").await;
        let tier = &stats["tiers"][0];
        assert_eq!(tier["removals"]["expired"], 0, "{tier}");
        (
            tier["removals"]["evicted"].as_u64().unwrap(),
            stats["removals"]["evicted"].as_u64().unwrap_or_default(),
            stats["entries"].as_u64().unwrap(),
        )
    };
    eventually(|| async { evicted().await.0 >= 5 }).await;
    eventually(|| async {
        let (values, entries, left) = evicted().await;
        values == entries && values + left == 8
    })
    .await;
    let before = evicted().await.0;
    let everything = json!({ "pattern": "*" });
    server.post("/cache/v1/invalidate", everything).await;
    assert_eq!(evicted().await.0, before, "an invalidation is no eviction");
}
