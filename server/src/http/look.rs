//! What an operator looks at: entries by words, lookups of late, counts by the minute.
//!
//! A caller sees entries and lookups of its own scope, an admin those of all; counts are of the whole server,
//! as in `stats`.

use std::sync::Arc;

use askonce::cache::{EntryQuery, RecentFilter};
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::HeaderMap;
use axum::response::IntoResponse as _;
use serde::Deserialize;
use serde_json::json;

use super::App;
use super::control::check_name;
use super::error::Problem;
use super::native::{Answered, Peer, Whole, read_fields};
use super::series::{MINUTES, Window};

/// Entries and lookups that are listed when the caller does not say, and at most.
const LISTED: usize = 50;
const MOST_LISTED: usize = 500;

/// Most characters of the words that are searched for.
const LONGEST_WORDS: usize = 1_000;

fn check_limit(limit: Option<usize>) -> Result<usize, Problem> {
    let limit = limit.unwrap_or(LISTED);
    if (1..=MOST_LISTED).contains(&limit) {
        return Ok(limit);
    }
    let detail = format!("a limit is a number from 1 to {MOST_LISTED}");
    Err(Problem::bad_request(detail).field("limit"))
}

/// `POST /cache/v1/entries/search`
pub(crate) async fn entries(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): Peer,
    headers: HeaderMap,
    body: Body,
) -> Answered {
    #[derive(Deserialize)]
    struct Options {
        words: Option<String>,
        tag: Option<String>,
        model: Option<String>,
        limit: Option<Whole>,
    }
    let caller = app.auth.identify(&headers, peer)?;
    let fields = read_fields(&app, body, &["words", "tag", "model", "limit"]).await?;
    let options: Options = fields.only()?;
    let limit = check_limit(options.limit.map(|limit| limit.0))?;
    for (field, what, name) in [
        ("tag", "a tag", &options.tag),
        ("model", "a model", &options.model),
    ] {
        if let Some(name) = name {
            check_name(what, name).map_err(|problem| problem.field(field))?;
        }
    }
    if options
        .words
        .as_ref()
        .is_some_and(|words| words.chars().count() > LONGEST_WORDS)
    {
        let detail = format!("words have at most {LONGEST_WORDS} characters");
        return Err(Problem::bad_request(detail).field("words"));
    }
    let query = EntryQuery {
        scope: (!caller.admin).then_some(caller.scope),
        tag: options.tag,
        model: options.model,
        words: options.words,
    };
    Ok(Json(app.cache.entries(&query, limit).await).into_response())
}

/// What `GET /cache/v1/recent` takes.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Asked {
    outcome: Option<Kind>,
    limit: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Hit,
    Miss,
}

/// `GET /cache/v1/recent?outcome=&limit=`
pub(crate) async fn recent(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): Peer,
    headers: HeaderMap,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Answered {
    let caller = app.auth.identify(&headers, peer)?;
    let Query(asked) = asked.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let limit = check_limit(asked.limit)?;
    let filter = RecentFilter {
        scope: (!caller.admin).then_some(caller.scope),
        hits: asked.outcome.map(|kind| kind == Kind::Hit),
    };
    let lookups = app.cache.recent_lookups(&filter, limit);
    let told = json!({ "kept": app.config.admin.enabled, "lookups": lookups });
    Ok(Json(told).into_response())
}

/// What `GET /cache/v1/series` takes.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Span {
    minutes: Option<u32>,
    step: Option<u32>,
}

/// `GET /cache/v1/series?minutes=&step=`
pub(crate) async fn series(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): Peer,
    headers: HeaderMap,
    span: Result<Query<Span>, QueryRejection>,
) -> Answered {
    app.auth.identify(&headers, peer)?;
    let Query(span) = span.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let minutes = span.minutes.unwrap_or(60);
    if !(1..=MINUTES).contains(&minutes) {
        let detail = format!("there are 1 to {MINUTES} minutes to ask for");
        return Err(Problem::bad_request(detail).field("minutes"));
    }
    let step = span.step.unwrap_or(1);
    if !(1..=MINUTES).contains(&step) {
        let detail = format!("a step has 1 to {MINUTES} minutes");
        return Err(Problem::bad_request(detail).field("step"));
    }
    let step = step.min(minutes);
    let window = Window { minutes, step };
    Ok(Json(app.series.told(&app.metrics.render(), window)).into_response())
}
