//! The keys of the tiers, for operators: what is there, what its envelope says, and out with it.
//!
//! A caller sees the entries of its own scope; an admin those of all, and what is no entry. Prompts and
//! answers are shown when asked for, and not before.

use std::sync::Arc;

use askonce::cache::{KeyQuery, Swept};
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::HeaderMap;
use axum::response::IntoResponse as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::App;
use super::auth::Caller;
use super::error::Problem;
use super::health::tier_problem;
use super::native::{Answered, Peer, read_fields};

/// Keys that are listed when the caller does not say, and at most.
const LISTED: usize = 100;
const MOST_LISTED: usize = 10_000;

/// What `GET /cache/v1/keys` and `GET /cache/v1/keys/{key}` take.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Asked {
    pattern: Option<String>,
    tag: Option<String>,
    backend: Option<String>,
    limit: Option<usize>,
    value: bool,
}

/// What a caller may see.
pub(crate) fn query(
    caller: &Caller,
    pattern: Option<&str>,
    tag: Option<String>,
    backend: Option<String>,
) -> KeyQuery {
    let mut query = KeyQuery::matching(pattern.unwrap_or("*"));
    query.tag = tag;
    query.tier = backend;
    query.scope = (!caller.admin).then(|| caller.scope.clone());
    query
}

/// `GET /cache/v1/keys?pattern=&tag=&backend=&limit=`
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): Peer,
    headers: HeaderMap,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Answered {
    let caller = app.auth.identify(&headers, peer)?;
    let Query(asked) = asked.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    if asked.value {
        let detail = "values are shown for one key at a time: GET /cache/v1/keys/{key}?value=true";
        return Err(Problem::bad_request(detail).field("value"));
    }
    let limit = asked.limit.unwrap_or(LISTED);
    if !(1..=MOST_LISTED).contains(&limit) {
        let detail = format!("a limit is a number from 1 to {MOST_LISTED}");
        return Err(Problem::bad_request(detail).field("limit"));
    }
    let query = query(&caller, asked.pattern.as_deref(), asked.tag, asked.backend);
    let report = app.cache.keys(&query, limit).await;
    let report = report.map_err(|error| tier_problem(&error))?;
    Ok(Json(report).into_response())
}

/// `GET /cache/v1/keys/{key}?value=&backend=`
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): Peer,
    headers: HeaderMap,
    Path(name): Path<String>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Answered {
    let caller = app.auth.identify(&headers, peer)?;
    let Query(asked) = asked.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let query = query(&caller, None, None, asked.backend);
    let found = app.cache.key(&name, &query, asked.value).await;
    let found = found.map_err(|error| tier_problem(&error))?;
    let found = found.ok_or_else(|| Problem::not_found("there is no such key, or it is gone"))?;
    Ok(Json(found).into_response())
}

/// `POST /cache/v1/clear`
pub(crate) async fn clear(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): Peer,
    headers: HeaderMap,
    body: Body,
) -> Answered {
    #[derive(Deserialize)]
    struct Options {
        backend: Option<String>,
    }
    let caller = app.auth.identify(&headers, peer)?;
    caller.require_admin("clear a backend")?;
    let options: Options = read_fields(&app, body, &["backend"]).await?.only()?;
    let cleared = app.cache.clear(options.backend.as_deref()).await;
    let troubles = cleared.map_err(|error| tier_problem(&error))?;
    let told = json!({ "cleared": troubles.is_empty(), "troubles": troubles });
    Ok(Json(told).into_response())
}

/// What an invalidation by pattern or key came to, in the words of the other invalidations.
pub(crate) fn swept(by: &str, dry_run: bool, swept: &Swept) -> Value {
    let counted = if dry_run { "would_remove" } else { "removed" };
    json!({ "by": by, "dry_run": dry_run, counted: swept.keys, "troubles": swept.troubles })
}
