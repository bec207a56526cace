//! The real binary on a free port, and a fake upstream for it to call.
//!
//! Nothing here waits for time to pass: a server is ready when it says so on its standard output, and a
//! test that needs a call to be under way holds it at a gate.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "each test binary uses a part"
)]

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A command line of the binary, in an empty environment and directory.
pub fn askonce(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_askonce"));
    command
        .current_dir(directory)
        .env_clear()
        .env("RUST_BACKTRACE", "0");
    command
}

/// Runs a command line to its end.
pub fn run(directory: &Path, args: &[&str]) -> Output {
    askonce(directory)
        .args(args)
        .output()
        .expect("the binary runs")
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A running server.
pub struct Server {
    pub url: String,
    pub directory: tempfile::TempDir,
    pub client: reqwest::Client,
    child: Child,
    log: Option<std::thread::JoinHandle<String>>,
}

#[derive(Default)]
pub struct Setup {
    pub config: String,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
}

impl Setup {
    pub fn upstream(url: &str) -> Self {
        Self::default().arg("--upstream").arg(url)
    }

    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    pub fn set(self, assignment: &str) -> Self {
        self.arg("--set").arg(assignment)
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn config(mut self, yaml: &str) -> Self {
        yaml.clone_into(&mut self.config);
        self
    }

    /// Starts the server and waits until it says that it is ready.
    pub fn start(self) -> Server {
        let directory = tempfile::tempdir().unwrap();
        if !self.config.is_empty() {
            std::fs::write(directory.path().join("askonce.yaml"), &self.config).unwrap();
        }
        let mut child = askonce(directory.path())
            .args(["serve", "--listen", "127.0.0.1:0", "--json"])
            .args(&self.args)
            .envs(self.env)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut stderr = child.stderr.take().unwrap();
        let log = std::thread::spawn(move || {
            let mut log = String::new();
            let _ = stderr.read_to_string(&mut log);
            log
        });
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let Ok(ready) = serde_json::from_str::<Value>(&line) else {
            let _ = child.kill();
            panic!("the server did not start: {}", log.join().unwrap());
        };
        let url = ready["listening"].as_str().unwrap().to_owned();
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(PATIENCE)
            .build()
            .unwrap();
        Server {
            url,
            directory,
            client,
            child,
            log: Some(log),
        }
    }
}

impl Server {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Posts to the native API.
    pub async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.post_as(None, path, body).await
    }

    pub async fn post_as(&self, key: Option<&str>, path: &str, body: Value) -> (StatusCode, Value) {
        let mut request = self.client.post(self.url(path)).body(body.to_string());
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        told(request.send().await.unwrap()).await
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        told(self.client.get(self.url(path)).send().await.unwrap()).await
    }

    /// Posts a chat completion.
    pub async fn chat(&self, body: &Value) -> Reply {
        self.chat_with(body, &[]).await
    }

    pub async fn chat_with(&self, body: &Value, headers: &[(&str, &str)]) -> Reply {
        let mut request = self
            .client
            .post(self.url("/v1/chat/completions"))
            .json(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = request.send().await.unwrap();
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        Reply {
            status,
            headers,
            body: response.bytes().await.unwrap(),
        }
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        let sent = Command::new("kill")
            .args(["-TERM", &self.pid().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Waits for the end; gives the exit status and everything that was logged.
    pub fn wait(&mut self) -> (ExitStatus, String) {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status, self.log.take().unwrap().join().unwrap());
            }
            assert!(Instant::now() < until, "the server did not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn told(response: reqwest::Response) -> (StatusCode, Value) {
    let status = response.status();
    let body = response.bytes().await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// A chat completion's response.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    pub fn cache_status(&self) -> &str {
        self.header("cache-status")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn content(&self) -> String {
        self.json()["choices"][0]["message"]["content"]
            .as_str()
            .unwrap()
            .to_owned()
    }
}

/// A chat request of one user turn.
pub fn prompt(text: &str) -> Value {
    json!({ "model": "gpt-4o-mini", "messages": [{ "role": "user", "content": text }] })
}

/// A chat completion as a provider gives it.
pub fn completion(content: &str) -> Value {
    json!({
        "id": "chatcmpl-upstream", "object": "chat.completion", "created": 1_700_000_000,
        "model": "gpt-4o-mini-2024-07-18", "system_fingerprint": "fp_1",
        "choices": [{ "index": 0, "logprobs": null, "finish_reason": "stop",
            "message": { "role": "assistant", "content": content, "refusal": null } }],
        "usage": { "prompt_tokens": 1_000, "completion_tokens": 500, "total_tokens": 1_500 },
    })
}

type Answer = Box<dyn Fn(&Seen) -> Response + Send + Sync>;

/// A request as the upstream saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// An upstream that answers as a test tells it to, and remembers what it was asked.
#[derive(Clone)]
pub struct Upstream {
    pub url: String,
    shared: Arc<Shared>,
}

struct Shared {
    seen: Mutex<Vec<Seen>>,
    answer: Mutex<Answer>,
    gate: Semaphore,
}

impl Upstream {
    /// Answers each call with its number.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let count = std::sync::atomic::AtomicUsize::new(1);
        let numbered = move |_: &Seen| {
            let number = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            json_response(&completion(&format!("answer {number}")))
        };
        let shared = Arc::new(Shared {
            seen: Mutex::default(),
            answer: Mutex::new(Box::new(numbered)),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
        });
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, shared }
    }

    pub fn answer(&self, answer: impl Fn(&Seen) -> Response + Send + Sync + 'static) {
        *self.shared.answer.lock().unwrap() = Box::new(answer);
    }

    pub fn answer_json(&self, body: Value) {
        self.answer(move |_| json_response(&body));
    }

    /// Holds all calls until [`open`](Self::open).
    pub fn close(&self) {
        self.shared.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub fn open(&self) {
        self.shared.gate.add_permits(1_000);
    }

    pub fn calls(&self) -> usize {
        self.shared.seen.lock().unwrap().len()
    }

    pub fn last(&self) -> Seen {
        self.shared
            .seen
            .lock()
            .unwrap()
            .last()
            .cloned()
            .expect("a call")
    }

    /// All calls, in the order of their arrival.
    pub fn all(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Waits until this many calls have arrived.
    pub async fn reached(&self, calls: usize) {
        eventually(|| async { self.calls() >= calls }).await;
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let seen = Seen {
        method: parts.method.to_string(),
        path: parts
            .uri
            .path_and_query()
            .map(ToString::to_string)
            .unwrap_or_default(),
        headers: parts.headers,
        body,
    };
    shared.seen.lock().unwrap().push(seen.clone());
    let _pass = shared.gate.acquire().await.unwrap();
    let answer = shared.answer.lock().unwrap();
    answer(&seen)
}

pub fn json_response(body: &Value) -> Response {
    (
        [("content-type", "application/json")],
        Body::from(body.to_string()),
    )
        .into_response()
}

/// Waits until something is so.
pub async fn eventually<F: Future<Output = bool>>(check: impl Fn() -> F) {
    let until = Instant::now() + PATIENCE;
    while !check().await {
        assert!(Instant::now() < until, "it did not come about");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
