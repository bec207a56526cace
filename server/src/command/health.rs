//! `askonce health`: whether a running server takes requests, for the probes of containers and scripts.

use anyhow::bail;
use clap::Args as ClapArgs;

use super::client::ServerArgs;
use super::{Global, print};

/// Settings of `health`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(flatten)]
    server: ServerArgs,
}

/// Asks; the exit status is 0 for a server that is ready, with or without all of its tiers.
pub(crate) async fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    let told = args.server.client()?.get("/health/ready", &[]).await?;
    let Some(status) = told["status"].as_str() else {
        bail!("the answer tells no status: is this an askonce server?");
    };
    let status = status.to_owned();
    print(global, &told, |_| status)
}
