//! Whether the server lives, whether it is ready, and its metrics.
//!
//! Live means the process answers: a failing tier is no reason to restart it. Ready means that requests
//! should be sent here, and a cache never takes its callers down: with every tier failing, requests go
//! upstream and are answered. So only a server that was told to stop is not ready; one whose tiers fail
//! is `degraded`, and says which and why.
//!
//! Each tier is asked once, all at the same time, for a second at most. What they said is good for
//! [`GOOD_FOR`], and whoever asks meanwhile waits for the same answer: no number of probes loads a tier.

use std::sync::Arc;
use std::time::{Duration, Instant};

use askonce::cache::Health;
use axum::Json;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::App;
use super::error::Problem;
use super::native::{Answered, Peer};

/// How long an answer of the tiers is good for.
const GOOD_FOR: Duration = Duration::from_secs(1);

/// What the tiers said last, and when. Held while they are asked, on purpose: one asks for all.
#[derive(Default)]
pub(crate) struct Checked(Mutex<Option<(Instant, Arc<Health>)>>);

impl Checked {
    async fn health(&self, app: &App) -> Arc<Health> {
        let mut last = self.0.lock().await;
        if let Some((at, health)) = &*last
            && at.elapsed() < GOOD_FOR
        {
            return Arc::clone(health);
        }
        let health = Arc::new(app.cache.health().await);
        *last = Some((Instant::now(), Arc::clone(&health)));
        health
    }
}

/// `GET /health/live`
pub(crate) async fn live() -> Response {
    Json(json!({ "status": "live" })).into_response()
}

/// `GET /health/ready`
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Response {
    let (code, told) = readiness(&app).await;
    (code, Json(told)).into_response()
}

/// `GET /cache/v1/health`: as `/health/ready`, for callers who have a key, with 200 in every case.
pub(crate) async fn health(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): Peer,
    headers: HeaderMap,
) -> Answered {
    app.auth.identify(&headers, peer)?;
    let (_, mut told) = readiness(&app).await;
    told["uptime_seconds"] = json!(app.cache.uptime().as_secs());
    told["version"] = json!(env!("CARGO_PKG_VERSION"));
    Ok(Json(told).into_response())
}

async fn readiness(app: &App) -> (StatusCode, Value) {
    let health = app.health.health(app).await;
    let degraded = health.status != askonce::cache::HealthStatus::Healthy;
    let (code, status) = match (app.is_stopping(), degraded) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        (false, true) => (StatusCode::OK, "degraded"),
        (false, false) => (StatusCode::OK, "ready"),
    };
    let mut told = json!({ "status": status, "cache": health.status, "tiers": health.tiers });
    if let Some(index) = app.cache.index_stats() {
        told["index"] = json!({ "audited": index.audited, "recall": index.recall });
    }
    (code, told)
}

/// `GET /metrics`
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    // Gauges of what is held are brought up to date by looking.
    let _ = app.cache.stats().await;
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        app.metrics.render(),
    )
        .into_response()
}

impl std::fmt::Debug for Checked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checked").finish_non_exhaustive()
    }
}

/// The problem of an engine's error that an operator should read: which tier, and what of it.
pub(crate) fn tier_problem(error: &askonce::Error) -> Problem {
    let status = match error.kind() {
        askonce::ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
        askonce::ErrorKind::InvalidRequest => return Problem::from(error.clone()),
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    Problem::new(
        status,
        error.kind().as_str(),
        "A backend could not do that",
        error.to_string(),
    )
}
