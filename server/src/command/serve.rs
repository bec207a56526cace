//! `askonce serve`: the server, from its settings to its last running request.
//!
//! On SIGTERM or SIGINT it stops accepting, tells load balancers that it is not ready, lets requests and
//! upstream calls that run come to their end within `shutdown_grace`, writes the index to its folder if it
//! has one, and exits. A second signal ends it at once.

use std::io::{ErrorKind as IoKind, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args as ClapArgs;
use serde_json::json;
use tokio::net::TcpListener;

use super::Global;
use crate::config::ServerConfig;
use crate::http::{self, App};
use crate::traces::Exporter;

/// How often metrics are folded up, so that histograms nobody scrapes do not grow.
const UPKEEP: Duration = Duration::from_secs(5);

/// How often to look whether upstream calls have ended.
const DRAIN_POLL: Duration = Duration::from_millis(20);

/// What is logged unless told otherwise.
const LOG: &str = "info";

/// Settings of `serve`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Address and port to listen on; port 0 takes any free one.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Base URL of the first upstream, version included.
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
}

/// Serves until told to stop.
pub(crate) async fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut sources = global.sources();
    sources
        .overrides
        .extend(args.listen.map(|listen| format!("listen={listen}")));
    sources.overrides.extend(
        args.upstream
            .map(|url| format!("upstreams[0].base_url={url}")),
    );
    let loaded =
        tracing::subscriber::with_default(global.early_log(LOG)?, || ServerConfig::load(&sources))?;
    let traces = loaded.settings.traces.as_ref();
    let traces = traces.map(Exporter::start).transpose()?;
    global.start_logging(LOG, traces.as_ref())?;
    for file in &loaded.files {
        tracing::info!(file = %file.display(), "settings read");
    }
    let served = serve(loaded.settings, started, global.json).await;
    if let Some(traces) = traces {
        traces.close().await;
    }
    served
}

async fn serve(config: ServerConfig, started: Instant, json: bool) -> anyhow::Result<()> {
    let listener = bind(&config.listen).await?;
    let address = listener
        .local_addr()
        .context("the listening address is not known")?;
    let grace = config.shutdown_grace;
    let app = Arc::new(App::new(config).await?);
    let upkeep = Arc::clone(&app);
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(UPKEEP);
        loop {
            ticks.tick().await;
            upkeep.metrics.run_upkeep();
            upkeep.close_minute();
        }
    });
    announce(address, started.elapsed(), json);

    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let service = http::router(Arc::clone(&app));
    let service = service.into_make_service_with_connect_info::<SocketAddr>();
    let server = axum::serve(listener, service).with_graceful_shutdown(async {
        let _ = stopped.await;
    });
    let mut server = tokio::spawn(server.into_future());
    tokio::select! {
        ended = &mut server => return ended?.context("the server ended"),
        () = signal() => {}
    }
    tracing::info!(grace = %humantime::format_duration(grace), "stopping: running requests may finish");
    app.stop();
    let _ = stop.send(());
    let finish = async {
        let _ = (&mut server).await;
        // A call goes on without its caller, so that its answer is kept.
        while app.cache.stats().await.in_flight > 0 {
            tokio::time::sleep(DRAIN_POLL).await;
        }
    };
    tokio::select! {
        () = finish => tracing::info!("stopped"),
        () = tokio::time::sleep(grace) => tracing::warn!("stopped with requests still running"),
        () = signal() => {
            tracing::warn!("stopped at once");
            return Ok(());
        }
    }
    if let Err(error) = app.cache.save_learning().await {
        tracing::warn!(%error, "what was learnt was not written");
    }
    if let Err(error) = app.cache.save_savings().await {
        tracing::warn!(%error, "the books were not written");
    }
    tokio::select! {
        saved = app.cache.save_index() => match saved {
            Ok(true) => tracing::info!("the index is written"),
            Ok(false) => {}
            // The journal has what the snapshot lacks.
            Err(error) => tracing::warn!(%error, "the index was not written as a whole"),
        },
        () = signal() => tracing::warn!("stopped at once"),
    }
    Ok(())
}

/// # Errors
/// Says what to do when the port is taken or not allowed.
async fn bind(listen: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(listen).await.map_err(|error| {
        let remedy = match error.kind() {
            IoKind::AddrInUse => "another process listens there: stop it, or choose another port with --listen or the setting `listen`",
            IoKind::PermissionDenied => "ports below 1024 need special rights: choose another with --listen",
            IoKind::AddrNotAvailable => "this machine has no such address: use 127.0.0.1, or 0.0.0.0 for all",
            _ => "check --listen or the setting `listen`",
        };
        anyhow::Error::new(error).context(format!("cannot listen on {listen}; {remedy}"))
    })
}

/// One line that says where, for people and for scripts that wait for it.
fn announce(address: SocketAddr, took: Duration, json: bool) {
    let mut out = std::io::stdout().lock();
    let milliseconds = took.as_millis();
    let _ = if json {
        let line =
            json!({ "listening": format!("http://{address}"), "ready_ms": milliseconds as u64 });
        writeln!(out, "{line}")
    } else {
        writeln!(
            out,
            "askonce is ready on http://{address} (after {milliseconds} ms)"
        )
    };
    // Whoever started the server may have closed the pipe; the server goes on.
    let _ = out.flush();
}

/// Waits for the signal to stop.
async fn signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}
