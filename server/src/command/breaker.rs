//! `askonce reset-breaker`: lets a running server serve by similarity again.

use clap::Args as ClapArgs;
use serde_json::{Value, json};

use super::client::ServerArgs;
use super::{Global, print};

/// Settings of `reset-breaker`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Only this category; an empty name is the default one. Otherwise all.
    #[arg(long)]
    category: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

/// `askonce reset-breaker`
pub(crate) async fn reset(args: Args, global: &Global) -> anyhow::Result<()> {
    let mut body = json!({});
    if let Some(category) = args.category {
        body["category"] = Value::from(category);
    }
    let told = args
        .server
        .client()?
        .post("/cache/v1/breaker/reset", &body)
        .await?;
    print(global, &told, |_| "The breaker is reset.".to_owned())
}
