//! The `askonce` binary: a server in front of LLM APIs, and the tools to look into a cache.
#![forbid(unsafe_code)]

mod command;
mod config;
mod http;
mod judge;
mod quality;
mod traces;
mod typed_tag;
mod upstream;

use std::process::ExitCode;

use clap::Parser as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    match command::Cli::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The whole chain on one line: "what: why: why that".
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
