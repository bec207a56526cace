//! The HTTP side: routes, what all of them share, and what is measured about them.
//!
//! `native.rs` is the cache's own API, with `keys.rs`, `events.rs`, `look.rs` and `replay.rs` for operators,
//! whose page `admin.rs` serves; `openapi.rs` describes it; `proxy.rs` stands in
//! front of the providers' APIs. All learn
//! from `auth.rs` who is calling and from `control.rs` what the caller asks of the cache; `status.rs` and
//! `error.rs` word what they answer.

mod admin;
mod auth;
mod body;
mod control;
mod error;
mod events;
mod health;
mod keys;
mod look;
mod native;
mod observe;
mod openapi;
mod proxy;
mod replay;
mod series;
mod status;

use std::fmt;
use std::sync::Arc;

use askonce::{Error, ErrorKind, Result, SemanticCache};
use axum::Router;
use axum::http::StatusCode;
use axum::routing::{any, get, post};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use tokio::sync::{Semaphore, watch};

use crate::config::ServerConfig;
use crate::judge::ModelJudge;
use crate::upstream::Upstreams;
use auth::Auth;
use error::Problem;
use health::Checked;
use observe::ObserveLayer;
use proxy::Readings;
use series::Series;

pub(crate) use auth::{KEY_HEADERS, secret};
pub(crate) use control::is_ours;
pub(crate) use keys::swept;
pub(crate) use native::PROTOCOLS;

/// Upper bounds of histogram buckets, in seconds: an exact hit takes microseconds, a call seconds.
const BUCKETS: [f64; 23] = [
    1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2,
    5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// Lookups, and decisions, that are kept for the admin page: 4 MB at most.
const KEPT_LOOKUPS: usize = 2_000;

/// What every handler can reach.
pub(crate) struct App {
    pub(crate) cache: SemanticCache,
    pub(crate) config: ServerConfig,
    pub(crate) upstreams: Upstreams,
    pub(crate) auth: Auth,
    pub(crate) metrics: PrometheusHandle,
    pub(crate) series: Series,
    readings: Readings,
    health: Checked,
    /// One replay at a time: it keeps a processor busy.
    replays: Semaphore,
    stopping: watch::Sender<bool>,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

impl App {
    /// # Errors
    /// What stops the start: a key that is not there, a backend or embedder that cannot be used.
    pub(crate) async fn new(config: ServerConfig) -> Result<Self> {
        let auth = Auth::new(&config.auth)?;
        let upstreams = Upstreams::new(&config, auth.owns_keys())?;
        // Before the cache: metrics recorded without a recorder are lost.
        let metrics = install_metrics()?;
        let mut builder = SemanticCache::builder().config(&config.engine());
        if let Some(judge) = ModelJudge::new(&config, &upstreams)? {
            if judge.verifies() {
                builder = builder.verifier(Arc::clone(&judge) as _);
            }
            builder = builder.judge(judge);
        }
        if config.admin.enabled {
            builder = builder.keep_recent(KEPT_LOOKUPS);
        }
        let cache = builder.build().await?;
        let readings = Readings::new(config.engine().ready_part());
        Ok(Self {
            cache,
            config,
            upstreams,
            auth,
            metrics,
            series: Series::default(),
            readings,
            health: Checked::default(),
            replays: Semaphore::new(1),
            stopping: watch::Sender::new(false),
        })
    }

    /// Tells load balancers to send no more requests here, and ends streams of events.
    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Ends when the server has been told to stop.
    fn stopped(&self) -> impl Future<Output = ()> + use<> {
        let mut stopping = self.stopping.subscribe();
        async move {
            // An error says that the server is gone.
            let _ = stopping.wait_for(|stopping| *stopping).await;
        }
    }
}

fn install_metrics() -> Result<PrometheusHandle> {
    let refused = |error: &dyn fmt::Display| {
        Error::new(ErrorKind::Config, "metrics cannot be recorded").with("problem", error)
    };
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)
        .map_err(|error| refused(&error))?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|error| refused(&error))?;
    askonce::observe::describe();
    askonce::tier::metrics::describe();
    metrics::describe_counter!(
        crate::upstream::FAILOVERS,
        "Upstreams that could not answer, so that the next was asked"
    );
    observe::describe();
    Ok(handle)
}

/// All routes.
pub(crate) fn router(app: Arc<App>) -> Router {
    let native = Router::new()
        .route("/lookup", post(native::lookup))
        .route("/store", post(native::store))
        .route("/feedback", post(native::feedback))
        .route("/breaker/reset", post(native::reset_breaker))
        .route("/invalidate", post(native::invalidate))
        .route("/explain", post(native::explain))
        .route("/entries/search", post(look::entries))
        .route("/entries/{id}", get(native::entry))
        .route("/keys", get(keys::list))
        .route("/keys/{*key}", get(keys::show))
        .route("/clear", post(keys::clear))
        .route("/health", get(health::health))
        .route("/events", get(events::events))
        .route("/recent", get(look::recent))
        .route("/series", get(look::series))
        .route("/policy", get(replay::policy))
        .route("/replay", post(replay::replay))
        .route("/stats", get(native::stats))
        .route("/savings", get(native::savings))
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method);
    Router::new()
        .nest("/cache/v1", native)
        // By name where calls are many: there is nothing to take out of the path.
        .route("/v1/chat/completions", any(proxy::handle))
        .route("/v1/completions", any(proxy::handle))
        .route("/v1/embeddings", any(proxy::handle))
        .route("/v1/messages", any(proxy::handle))
        .route("/v1/responses", any(proxy::handle))
        .route("/v1/{*path}", any(proxy::handle))
        .route("/openai/{*path}", any(proxy::handle))
        .route("/admin", get(admin::page))
        .route("/admin/{file}", get(admin::file))
        .route("/openapi.json", get(openapi::document))
        .route("/metrics", get(health::metrics))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(ObserveLayer)
        .with_state(app)
}

async fn no_such_path() -> Problem {
    Problem::not_found(
        "there is no such path; the proxy answers below /v1 and /openai, the cache below /cache/v1",
    )
}

async fn wrong_method() -> Problem {
    let status = StatusCode::METHOD_NOT_ALLOWED;
    Problem::new(
        status,
        "method_not_allowed",
        "Wrong method",
        "this path does not answer this method",
    )
}
