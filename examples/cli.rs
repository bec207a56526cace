//! A command line that asks a model, and asks it once.
//!
//! ```sh
//! cargo run --example cli                                             # a demonstration
//! OPENAI_API_KEY=... cargo run --example cli -- https://api.openai.com/v1 "What is a monad?" "what's a monad"
//! ```
//!
//! It calls the model itself and hands the call to the cache: nothing of HTTP is in between.

mod fake;

use std::io::Write;

use askonce::savings::Usage;
use askonce::{Answer, Fill, HitKind, Request, SemanticCache, Source};
use serde_json::{Value, json};

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

const MODEL: &str = "gpt-4o";

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let Some(base) = arguments.next() else {
        return demonstrate(&mut std::io::stdout()).await;
    };
    let key = std::env::var("OPENAI_API_KEY")?;
    let questions: Vec<_> = arguments.collect();
    ask_all(&base, &key, &questions, &mut std::io::stdout()).await
}

async fn ask_all(
    base: &str,
    key: &str,
    questions: &[impl AsRef<str>],
    out: &mut impl Write,
) -> Result<()> {
    let cache = SemanticCache::in_memory()?;
    for question in questions {
        let question = question.as_ref();
        let request = Request::prompt(question).model(MODEL);
        let call = {
            let (base, key, question) = (base.to_owned(), key.to_owned(), question.to_owned());
            move || async move { call(&base, &key, &question).await }
        };
        let served = cache.get_or_call(&request, call).await?;
        let from = match &served.source {
            Source::Upstream { miss, .. } => format!("the model ({})", miss.reason()),
            Source::Cache(hit) => match hit.kind {
                HitKind::Semantic { similarity, .. } => format!("a question {similarity:.2} alike"),
                _ => "the same question".to_owned(),
            },
        };
        writeln!(
            out,
            "{question}\n  {}\n  from {from}",
            served.answer.as_str()
        )?;
    }
    writeln!(out, "saved: ${}", cache.savings().net_usd.to_decimal())?;
    Ok(())
}

/// The call that the cache makes at most once.
async fn call(base: &str, key: &str, question: &str) -> Result<Fill> {
    let body = json!({ "model": MODEL, "messages": [{ "role": "user", "content": question }] });
    let url = format!("{base}/chat/completions");
    let call = reqwest::Client::new()
        .post(url)
        .bearer_auth(key)
        .json(&body);
    let answer: Value = call.send().await?.error_for_status()?.json().await?;
    let text = answer["choices"][0]["message"]["content"]
        .as_str()
        .unwrap_or_default();
    let fill = Fill::from(Answer::text(text));
    Ok(match answer.get("usage").and_then(Usage::from_openai) {
        Some(usage) => fill.usage(usage),
        None => fill,
    })
}

/// Four questions to a stand-in for a provider.
pub(crate) async fn demonstrate(out: &mut impl Write) -> Result<()> {
    let provider = fake::Fake::start().await?;
    let questions = [
        "How do I reset my password?",
        "how can I reset my password",
        "What is the capital of France?",
        "What is the capital of France?",
    ];
    ask_all(&provider.base_url(), "sk-demo", &questions, out).await?;
    writeln!(out, "4 answers, {} calls of the provider", provider.calls())?;
    Ok(())
}
