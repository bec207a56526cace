//! The server under load beside a bare axum handler that gives the same bytes, in one run:
//! `cargo bench -p askonce-server --bench gateway`.
//!
//! `wrk` makes the load (`apt-get install wrk`), round by round in turn, so that both see the same machine. What
//! is printed of each: requests a second and latency, the median of the rounds, and the ratio to the bare
//! handler. Every answer of a first request is checked; wrk counts responses that are not 200.
#![allow(missing_docs, reason = "a benchmark")]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::header;
use axum::routing::post;
use serde_json::{Value, json};
use tokio::net::TcpListener;

const QUESTION: &str = "How do I reset my password?";
const REWORDED: &str = "how can I reset my password";
const ROUNDS: usize = 5;
const SECONDS: u64 = 4;
/// Connections that ask at the same time.
const CONNECTIONS: usize = 32;

fn body(text: &str, stream: bool) -> Value {
    json!({ "model": "gpt-4o-mini", "stream": stream, "messages": [
        { "role": "system", "content": "You are a support agent." },
        { "role": "user", "content": text },
    ] })
}

fn completion() -> Value {
    let words =
        "Open the settings, choose your account, and follow the link that says Reset. ".repeat(8);
    json!({ "id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": "gpt-4o-mini",
        "choices": [{ "index": 0, "logprobs": null, "finish_reason": "stop",
            "message": { "role": "assistant", "content": words, "refusal": null } }],
        "usage": { "prompt_tokens": 30, "completion_tokens": 150, "total_tokens": 180 } })
}

async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(upstream: &str, folder: &std::path::Path) -> (Server, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_askonce"))
        .args(["serve", "--listen", "127.0.0.1:0", "--json", "--upstream"])
        .arg(format!("{upstream}/v1"))
        .current_dir(folder)
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the server starts");
    let mut line = String::new();
    let out = child.stdout.take().expect("its output");
    BufReader::new(out).read_line(&mut line).expect("a line");
    let ready: Value = serde_json::from_str(&line).expect("it tells where it listens");
    let url = ready["listening"].as_str().expect("an address").to_owned();
    (Server(child), url)
}

/// What one round of wrk found.
#[derive(Clone, Copy)]
struct Round {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
}

fn wrk(url: &str, script: &std::path::Path) -> Round {
    let out = Command::new("wrk")
        .args([
            "-t",
            "1",
            "-c",
            &CONNECTIONS.to_string(),
            "-d",
            &format!("{SECONDS}s"),
            "--latency",
            "-s",
        ])
        .arg(script)
        .arg(url)
        .output()
        .unwrap_or_else(|error| panic!("wrk cannot be run ({error}): apt-get install wrk"));
    let out = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(!out.contains("Non-2xx"), "{out}");
    let field = |name: &str| {
        let line = out.lines().find(|line| line.trim_start().starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1))
            .unwrap_or_else(|| panic!("no {name} in {out}"))
            .to_owned()
    };
    let time = |text: String| {
        let digits = text.trim_end_matches(|c: char| c.is_alphabetic());
        let scale = match &text[digits.len()..] {
            "us" => 1.0,
            "ms" => 1e3,
            _ => 1e6,
        };
        digits.parse::<f64>().expect("a time") * scale
    };
    Round {
        per_second: field("Requests/sec:").parse().expect("a rate"),
        p50_us: time(field("50%")),
        p99_us: time(field("99%")),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    // `cargo test --benches` runs it too; it has nothing to test.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(run());
}

async fn run() {
    let folder = tempfile::tempdir().expect("a folder");
    let upstream = Router::new().fallback(|| async {
        (
            [(header::CONTENT_TYPE, "application/json")],
            completion().to_string(),
        )
    });
    let upstream = serve(upstream).await;
    let (_server, url) = start(&upstream, folder.path());
    let path = format!("{url}/v1/chat/completions");
    let client = reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("a client");
    let ask = async |body: &Value| {
        client
            .post(&path)
            .json(body)
            .send()
            .await
            .expect("an answer")
    };
    ask(&body(QUESTION, false))
        .await
        .bytes()
        .await
        .expect("an answer");
    let kind = async |body: &Value, kind: &str| {
        let hit = ask(body).await;
        let status = hit.headers()["cache-status"]
            .to_str()
            .expect("text")
            .to_owned();
        assert!(status.ends_with(kind), "{status}");
        hit.bytes().await.expect("an answer")
    };
    let exact = kind(&body(QUESTION, false), "detail=exact").await;
    kind(&body(REWORDED, false), "detail=semantic").await;
    let streamed = kind(&body(QUESTION, true), "detail=exact").await;
    let bare = {
        let (whole, events) = (exact.clone(), streamed.clone());
        let json =
            move |_: Bytes| async move { ([(header::CONTENT_TYPE, "application/json")], whole) };
        let sse =
            move |_: Bytes| async move { ([(header::CONTENT_TYPE, "text/event-stream")], events) };
        serve(
            Router::new()
                .route("/json", post(json))
                .route("/sse", post(sse)),
        )
        .await
    };
    let cases = [
        (
            "bare handler",
            format!("{bare}/json"),
            body(QUESTION, false),
            0,
        ),
        ("exact hit", path.clone(), body(QUESTION, false), 0),
        ("semantic hit", path.clone(), body(REWORDED, false), 0),
        (
            "bare handler, stream",
            format!("{bare}/sse"),
            body(QUESTION, true),
            3,
        ),
        ("exact hit, stream", path.clone(), body(QUESTION, true), 3),
    ];
    let scripts: Vec<_> = cases
        .iter()
        .enumerate()
        .map(|(i, (_, _, body, _))| {
            let script = folder.path().join(format!("{i}.lua"));
            let body = body.to_string().replace('\\', "\\\\").replace('\'', "\\'");
            let lua = format!(
                "wrk.method = 'POST'\nwrk.headers['content-type'] = 'application/json'\nwrk.body = '{body}'\n"
            );
            std::fs::write(&script, lua).expect("a file");
            script
        })
        .collect();
    let mut rounds: Vec<Vec<Round>> = vec![Vec::new(); cases.len()];
    for _ in 0..ROUNDS {
        for (i, (_, url, ..)) in cases.iter().enumerate() {
            let (url, script) = (url.clone(), scripts[i].clone());
            let round = tokio::task::spawn_blocking(move || wrk(&url, &script))
                .await
                .expect("a round");
            rounds[i].push(round);
        }
    }
    println!(
        "{CONNECTIONS} connections, {ROUNDS} rounds of {SECONDS} s each in turn; answers of {} and {} bytes",
        exact.len(),
        streamed.len()
    );
    println!(
        "{:<22} {:>10} {:>9} {:>9} {:>7}",
        "", "requests/s", "p50 us", "p99 us", "ratio"
    );
    for (i, (name, _, _, beside)) in cases.iter().enumerate() {
        let of = |pick: fn(&Round) -> f64| median(rounds[i].iter().map(pick).collect());
        let ratios = rounds[i].iter().zip(&rounds[*beside]);
        let ratio = median(
            ratios
                .map(|(own, bare)| own.per_second / bare.per_second)
                .collect(),
        );
        println!(
            "{name:<22} {:>10.0} {:>9.0} {:>9.0} {ratio:>7.3}",
            of(|r| r.per_second),
            of(|r| r.p50_us),
            of(|r| r.p99_us),
        );
    }
    // One at a time: when the first byte of a stream arrives.
    let mut firsts = [Vec::new(), Vec::new()];
    for _ in 0..500 {
        for (i, url) in [&format!("{bare}/sse"), &path].into_iter().enumerate() {
            let began = Instant::now();
            let mut stream = client
                .post(url)
                .json(&body(QUESTION, true))
                .send()
                .await
                .expect("a stream");
            stream.chunk().await.expect("a chunk");
            firsts[i].push(began.elapsed());
            while stream.chunk().await.expect("a chunk").is_some() {}
        }
    }
    for (name, mut times) in ["bare handler", "exact hit"].into_iter().zip(firsts) {
        times.sort_unstable();
        let us = |at: usize| times[at].as_secs_f64() * 1e6;
        println!(
            "first byte of a stream, {name}: p50 {:.0} us, p99 {:.0} us",
            us(times.len() / 2),
            us(times.len() * 99 / 100)
        );
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
}
