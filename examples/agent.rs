//! An agent with a tool, whose client caches its calls.
//!
//! ```sh
//! cargo run --example agent --features reqwest-middleware                               # a demonstration
//! OPENAI_API_KEY=... cargo run --example agent --features reqwest-middleware -- https://api.openai.com/v1
//! ```
//!
//! An agent that is run again goes the same way again, as far as its tools give the same: every turn is found,
//! by the whole conversation so far. A model's wish to call a tool is kept only where the tool is marked as safe
//! to be called again.

mod fake;

use std::io::Write;

use askonce::SemanticCache;
use askonce::gateway::Gateway;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use serde_json::{Value, json};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

#[tokio::main]
async fn main() -> Result<()> {
    match std::env::args().nth(1) {
        Some(base) => {
            let key = std::env::var("OPENAI_API_KEY")?;
            let agent = Agent::new(&base, key)?;
            agent
                .run("What does the Oslo station report?", &mut std::io::stdout())
                .await
        }
        None => demonstrate(&mut std::io::stdout()).await,
    }
}

struct Agent {
    client: ClientWithMiddleware,
    url: String,
    key: String,
}

impl Agent {
    fn new(base: &str, key: String) -> Result<Self> {
        let cache = Gateway::new(SemanticCache::in_memory()?);
        Ok(Self {
            client: ClientBuilder::new(reqwest::Client::new())
                .with(cache)
                .build(),
            url: format!("{base}/chat/completions"),
            key,
        })
    }

    /// Asks, calls the tools that the model wants, and asks again, until there is an answer.
    async fn run(&self, task: &str, out: &mut impl Write) -> Result<()> {
        let mut messages = vec![json!({ "role": "user", "content": task })];
        loop {
            let (message, status) = self.turn(&messages).await?;
            writeln!(out, "  {status}")?;
            messages.push(message.clone());
            let calls = message["tool_calls"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            if calls.is_empty() {
                writeln!(out, "  {}", message["content"].as_str().unwrap_or_default())?;
                return Ok(());
            }
            for call in calls {
                let result = read_station(&call["function"]["arguments"]);
                messages
                    .push(json!({ "role": "tool", "tool_call_id": call["id"], "content": result }));
            }
        }
    }

    /// One turn of the model, and what the cache says of it.
    async fn turn(&self, messages: &[Value]) -> Result<(Value, String)> {
        let body = json!({
            "model": "gpt-4o",
            "messages": messages,
            "tools": [{ "type": "function", "function": {
                "name": "read_station",
                "description": "What a weather station reports",
                "parameters": { "type": "object", "properties": { "station": { "type": "string" } } },
            } }],
        });
        let call = self
            .client
            .post(&self.url)
            .bearer_auth(&self.key)
            .header("content-type", "application/json")
            .header("x-askonce-safe-tools", "read_station")
            .body(body.to_string());
        let response = call.send().await?.error_for_status()?;
        let status = response.headers()["cache-status"].to_str()?.to_owned();
        let answer: Value = response.json().await?;
        Ok((answer["choices"][0]["message"].clone(), status))
    }
}

/// The tool.
fn read_station(arguments: &Value) -> &'static str {
    match arguments.as_str() {
        Some(arguments) if arguments.contains("Oslo") => "-3 degrees and snow",
        _ => "nothing",
    }
}

/// The same task twice, with a stand-in for a provider.
pub(crate) async fn demonstrate(out: &mut impl Write) -> Result<()> {
    let provider = fake::Fake::start().await?;
    let agent = Agent::new(&provider.base_url(), "sk-demo".to_owned())?;
    for run in ["first", "second"] {
        writeln!(out, "{run} run")?;
        agent.run("What does the Oslo station report?", out).await?;
        writeln!(out, "  {} calls of the provider so far", provider.calls())?;
    }
    Ok(())
}
