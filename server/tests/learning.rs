//! What a server learns from its own decisions: a judge and audits that go through an upstream, and what
//! callers and operators may say. Whatever an upstream does to them, no caller notices.

mod support;

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use serde_json::{Value, json};
use support::{Server, Setup, Upstream, completion, eventually, prompt, run, stderr, stdout};

const RESET: &str = "How do I reset my password?";
const REWORDED: &str = "how can I reset my password";

/// Two answers that cheap means cannot compare.
const LEAVES: &str = "Plants make sugar from light in their leaves.";
const BY_CHEMISTRY: &str = "By photosynthesis, using carbon dioxide and water.";

/// Settings under which everything from this similarity on is a hit.
fn settings(threshold: f64, learning: &str) -> String {
    format!(
        "semantic:\n  embedder: {{ type: static }}\n  policy: {{ type: threshold, threshold: {threshold} }}\n  \
         learning: {learning}\n"
    )
}

/// The same with a judge behind an upstream of its own, which holds its own key.
fn judged(callers: &Upstream, judge: &Upstream, learning: &str) -> Setup {
    let upstreams = format!(
        "upstreams:\n  - {{ name: main, base_url: \"{}\" }}\n  - {{ name: judges, base_url: \"{}\", \
         api_key_env: JUDGES_KEY }}\njudge: {{ upstream: judges, model: wise }}\n",
        callers.url, judge.url
    );
    let all_miss = settings(0.999, learning);
    Setup::default()
        .config(&(upstreams + &all_miss))
        .env("JUDGES_KEY", "sk-judge")
}

async fn learnt(server: &Server) -> Value {
    server.get("/cache/v1/stats").await.1["learning"].clone()
}

fn labels(learnt: &Value, source: &str) -> Value {
    learnt["categories"][""]["labels"][source].clone()
}

async fn until_learnt(server: &Server, done: impl Fn(&Value) -> bool) -> Value {
    eventually(|| async { done(&learnt(server).await) }).await;
    learnt(server).await
}

/// Two misses, the second of which cheap means cannot label.
async fn two_misses(server: &Server, upstream: &Upstream, key: &str) {
    let key = format!("Bearer {key}");
    let headers = [("authorization", key.as_str())];
    for (question, answer) in [(RESET, LEAVES), (REWORDED, BY_CHEMISTRY)] {
        upstream.answer_json(completion(answer));
        let reply = server.chat_with(&prompt(question), &headers).await;
        assert_eq!(reply.status, StatusCode::OK);
        assert_eq!(reply.content(), answer);
    }
}

#[tokio::test]
async fn the_judge_is_asked_through_its_upstream_and_its_word_is_a_label() {
    let (upstream, judge) = (Upstream::start().await, Upstream::start().await);
    judge.answer_json(completion("SAME"));
    let server = judged(&upstream, &judge, "{ judge: { calls_per_day: 1 } }").start();
    two_misses(&server, &upstream, "sk-a").await;
    let told = until_learnt(&server, |told| labels(told, "judge") == json!([1, 0])).await;
    assert_eq!(told["unsure"], 0);

    let asked = judge.last();
    assert_eq!(asked.path, "/v1/chat/completions");
    assert_eq!(
        asked.headers["authorization"], "Bearer sk-judge",
        "no caller's key goes to a judge"
    );
    let body: Value = serde_json::from_slice(&asked.body).unwrap();
    assert_eq!(
        (&body["model"], &body["temperature"]),
        (&json!("wise"), &json!(0))
    );
    let material = body["messages"][1]["content"].as_str().unwrap();
    let material: Value = serde_json::from_str(material).unwrap();
    assert_eq!(
        material,
        json!({ "question": REWORDED, "answer": BY_CHEMISTRY, "other_answer": LEAVES })
    );

    // The day's budget is spent: what cheap means cannot tell stays without a label.
    two_misses(&server, &upstream, "sk-b").await;
    until_learnt(&server, |told| told["unsure"] == 1).await;
    assert_eq!(judge.calls(), 1);
}

#[tokio::test]
async fn a_judge_that_refuses_or_babbles_makes_no_label_and_costs_its_call() {
    for status in [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::INTERNAL_SERVER_ERROR,
        StatusCode::OK,
    ] {
        let (upstream, judge) = (Upstream::start().await, Upstream::start().await);
        judge.answer(move |_| (status, "{\"choices\": 7}").into_response());
        let server = judged(&upstream, &judge, "{ judge: { calls_per_day: 1 } }").start();
        two_misses(&server, &upstream, "sk-a").await;
        let told = until_learnt(&server, |told| told["unsure"] == 1).await;
        assert_eq!(labels(&told, "judge"), Value::Null, "{status}");
        two_misses(&server, &upstream, "sk-b").await;
        until_learnt(&server, |told| told["unsure"] == 2).await;
        assert_eq!(judge.calls(), 1, "{status}");
    }
}

#[tokio::test]
async fn nobody_waits_for_a_judge_that_hangs_and_its_time_is_limited() {
    let (upstream, judge) = (Upstream::start().await, Upstream::start().await);
    judge.close();
    let learning = "{ queue: 1, judge: { calls_per_day: 100, timeout: 400ms } }";
    let server = judged(&upstream, &judge, learning).start();
    two_misses(&server, &upstream, "sk-a").await;
    judge.reached(1).await;
    let began = Instant::now();
    for caller in ["sk-b", "sk-c", "sk-d", "sk-e"] {
        two_misses(&server, &upstream, caller).await;
    }
    // Eight calls, while one question takes 400 ms: what finds no room is dropped.
    let count = |told: &Value, name: &str| told[name].as_u64().unwrap();
    let all = |told: &Value| count(told, "unsure") + count(told, "dropped") == 5;
    let told = until_learnt(&server, all).await;
    assert!(count(&told, "unsure") >= 1);
    assert_eq!(labels(&told, "judge"), Value::Null);
    assert!(began.elapsed() < Duration::from_secs(20));
    judge.open();
}

/// All hits are audited, uniformly drawn.
const AUDITED: &str = "{ audit: { enabled: true, uniform_rate: 1.0, calls_per_day: 1000 } }";

#[tokio::test]
async fn an_audit_asks_the_upstream_as_the_caller_would_and_a_wrong_hit_is_not_served_again() {
    let upstream = Upstream::start().await;
    let server = Setup::upstream(&upstream.url)
        .config(&settings(0.85, AUDITED))
        .start();
    let headers = [("authorization", "Bearer sk-a")];
    upstream.answer_json(completion("It takes 3 days."));
    let _ = server.chat_with(&prompt(RESET), &headers).await;

    upstream.answer_json(completion("It takes 5 days."));
    upstream.close();
    let hit = server.chat_with(&prompt(REWORDED), &headers).await;
    assert_eq!(
        hit.content(),
        "It takes 3 days.",
        "a caller waits for no audit"
    );
    upstream.open();
    let told = until_learnt(&server, |told| labels(told, "audit") == json!([0, 1])).await;
    let asked = upstream.last();
    assert_eq!(asked.headers["authorization"], "Bearer sk-a");
    let body: Value = serde_json::from_slice(&asked.body).unwrap();
    assert_eq!(body["messages"][0]["content"], REWORDED);
    let rate = &told["categories"][""]["false_hits"];
    assert_eq!(rate["rate"], 1.0);
    assert!(rate["lower"].as_f64() < Some(1.0), "{rate}");
    let metrics = server.client.get(server.url("/metrics")).send().await;
    let metrics = metrics.unwrap().text().await.unwrap();
    assert!(metrics.contains("askonce_false_hit_rate{"), "{metrics}");

    let again = server.chat_with(&prompt(REWORDED), &headers).await;
    assert_eq!(again.content(), "It takes 5 days.");
    assert_eq!(again.header("x-askonce-reason"), "reported_wrong");
}

#[tokio::test]
async fn an_upstream_that_fails_an_audit_leaves_the_hit_without_a_label() {
    let upstream = Upstream::start().await;
    let server = Setup::upstream(&upstream.url)
        .config(&settings(0.85, AUDITED))
        .start();
    upstream.answer_json(completion("It takes 3 days."));
    let _ = server.chat(&prompt(RESET)).await;
    for (n, status) in [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::INTERNAL_SERVER_ERROR,
    ]
    .into_iter()
    .enumerate()
    {
        upstream.answer(move |_| (status, "{\"error\": {}}").into_response());
        let hit = server.chat(&prompt(REWORDED)).await;
        assert_eq!(hit.status, StatusCode::OK);
        assert_eq!(hit.content(), "It takes 3 days.");
        until_learnt(&server, |told| told["unsure"] == json!(n + 1)).await;
    }
    let told = learnt(&server).await;
    assert_eq!(told["categories"], json!({}), "{told}");
}

/// Wrong hits by callers that share nothing, until nothing is served by similarity.
async fn trip(server: &Server, upstream: &Upstream, callers: &str) {
    for n in 0..30_u64 {
        let key = format!("Bearer {callers}-{n}");
        let headers = [("authorization", key.as_str())];
        upstream.answer_json(completion("It takes 3 days."));
        let _ = server.chat_with(&prompt(RESET), &headers).await;
        upstream.answer_json(completion("It takes 5 days."));
        let reply = server.chat_with(&prompt(REWORDED), &headers).await;
        if reply.header("x-askonce-reason") == "breaker_open" {
            assert_eq!(
                reply.content(),
                "It takes 5 days.",
                "the upstream is asked instead"
            );
            assert!(n > 1, "one wrong hit is not too many");
            return;
        }
        let audits = |told: &Value| told["categories"][""]["uniform_audits"] == json!(n + 1);
        until_learnt(server, audits).await;
    }
    panic!("thirty wrong hits in a row did not trip the breaker");
}

#[tokio::test]
async fn the_breaker_is_reset_by_the_endpoint_and_by_the_command_line_and_by_nobody_else() {
    let upstream = Upstream::start().await;
    let server = Setup::upstream(&upstream.url)
        .config(&settings(0.85, AUDITED))
        .start();
    let tripped = async || {
        let path = "/cache/v1/stats";
        server.get(path).await.1["learning"]["categories"][""]["tripped"] == true
    };
    trip(&server, &upstream, "sk-one").await;
    let reset = "/cache/v1/breaker/reset";
    let (status, told) = server.post_as(Some("sk-1"), reset, json!({})).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{told}");
    let (status, _) = server.post(reset, json!({ "kategorie": "x" })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, told) = server.post(reset, json!({ "category": "another" })).await;
    assert_eq!(
        (status, &told["outcome"]),
        (StatusCode::OK, &json!("reset"))
    );
    assert!(tripped().await);
    let (status, _) = server.post(reset, json!({ "category": "" })).await;
    assert_eq!(status, StatusCode::OK);
    assert!(!tripped().await);

    trip(&server, &upstream, "sk-other").await;
    let folder = tempfile::tempdir().unwrap();
    let command = |args: &[&str]| {
        let mut all = vec!["reset-breaker", "--server", &server.url];
        all.extend(args);
        run(folder.path(), &all)
    };
    let done = command(&[]);
    assert!(done.status.success(), "{}", stderr(&done));
    assert!(
        stdout(&done).contains("The breaker is reset."),
        "{}",
        stdout(&done)
    );
    assert!(!tripped().await);
    let json = command(&["--json", "--category", "x"]);
    let told: Value = serde_json::from_str(&stdout(&json)).unwrap();
    assert_eq!(told, json!({ "outcome": "reset", "category": "x" }));

    upstream.answer_json(completion("It takes 3 days."));
    let fresh = [("authorization", "Bearer sk-fresh")];
    let _ = server.chat_with(&prompt(RESET), &fresh).await;
    let hit = server.chat_with(&prompt(REWORDED), &fresh).await;
    assert!(hit.cache_status().contains("hit"), "it serves again");
}

#[tokio::test]
async fn a_principal_that_reports_too_much_is_told_so_and_no_other_is_held_up() {
    let learning = "{ feedback: { per_principal: 2 } }";
    let server = Setup::default().config(&settings(0.85, learning)).start();
    let (a, b) = (Some("sk-a"), Some("sk-b"));
    let mut entries = Vec::new();
    for key in [a, b] {
        let fields = json!({ "prompt": RESET, "answer": "Open Settings ..." });
        let (_, told) = server.post_as(key, "/cache/v1/store", fields).await;
        entries.push(told["entry"].as_str().unwrap().to_owned());
    }
    let report =
        |entry: &str, user: &str| json!({ "entry": entry, "verdict": "right", "user": user });
    let feedback = "/cache/v1/feedback";
    for _ in 0..2 {
        let (status, told) = server
            .post_as(a, feedback, report(&entries[0], "ann"))
            .await;
        assert_eq!(status, StatusCode::OK, "{told}");
    }
    let (status, told) = server
        .post_as(a, feedback, report(&entries[0], "ann"))
        .await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(told["type"], "urn:askonce:problem:too_many_reports");
    for (key, entry, user) in [
        (a, &entries[0], "bob"),
        (b, &entries[1], "ann"),
        (b, &entries[1], "eve"),
    ] {
        let (status, told) = server.post_as(key, feedback, report(entry, user)).await;
        assert_eq!(status, StatusCode::OK, "{told}");
    }
    let told = learnt(&server).await;
    assert_eq!(told["refused"], 1);
    // One voice each in an entry.
    assert_eq!(labels(&told, "feedback"), json!([4, 0]));
}

#[tokio::test]
async fn two_users_quarantine_an_entry_and_one_of_them_does_not() {
    let server = Setup::default().config(&settings(0.85, "{}")).start();
    let fields = json!({ "prompt": RESET, "answer": "Open Settings ..." });
    let (_, told) = server.post("/cache/v1/store", fields).await;
    let entry = told["entry"].as_str().unwrap().to_owned();
    let wrong = async |query: &str, user: &str| {
        let body = json!({ "entry": entry, "verdict": "wrong", "prompt": query, "user": user });
        let (status, told) = server.post("/cache/v1/feedback", body).await;
        assert_eq!(status, StatusCode::OK, "{told}");
    };
    let reason = async |query: &str| {
        let (_, told) = server
            .post("/cache/v1/lookup", json!({ "prompt": query }))
            .await;
        told["reason"].as_str().map(str::to_owned)
    };
    let another = "how can I reset my password?";
    wrong(REWORDED, "ann").await;
    wrong("how do I reset the password", "ann").await;
    assert_eq!(reason(REWORDED).await.as_deref(), Some("reported_wrong"));
    assert_eq!(reason(another).await, None, "it is a hit");
    wrong(REWORDED, "bob").await;
    assert!(reason(another).await.is_some());
    assert_eq!(reason(RESET).await, None, "exactly it still matches");
    assert_eq!(learnt(&server).await["quarantined"], 1);
}
