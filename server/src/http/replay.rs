//! The policy, and what others would have done with the decisions of late.
//!
//! `askonce replay` for a running server: the same functions over the decisions that are kept in memory. It is
//! bounded by their number, by the number of policies, and by time; one runs at a time, on a thread of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use askonce::decision::DecisionRecord;
use askonce::policy::{CalibratedSettings, PolicyConfig};
use axum::Json;
use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use super::App;
use super::error::Problem;
use super::native::{Answered, Peer, read_fields};
use crate::command::replay::{Replay, as_logged, under};
use crate::quality::policies::Contender;

/// Most policies of one request.
const MOST_POLICIES: usize = 24;

/// How long the policies of one request may take; those that are left then are told as such.
const TIME: Duration = Duration::from_secs(10);

/// `GET /cache/v1/policy`
pub(crate) async fn policy(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): Peer,
    headers: HeaderMap,
) -> Answered {
    let caller = app.auth.identify(&headers, peer)?;
    caller.require_admin("see the settings of the policy")?;
    let stats = app.cache.stats().await;
    let told = json!({
        "policy": stats.policy,
        "status": stats.policy_status,
        "settings": app.config.semantic.policy,
        "audit": app.config.semantic.learning.audit,
    });
    Ok(Json(told).into_response())
}

/// What became of the decisions under one policy.
#[derive(Debug, Serialize)]
struct Told {
    /// Its settings as they were asked for; `None` for the log itself and the policy that decides now.
    #[serde(skip_serializing_if = "Option::is_none")]
    settings: Option<Value>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    replay: Option<Replay>,
    /// Why there is no result.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// A policy's settings. Those of a policy without any are checked here: serde lets fields of a variant without
/// fields pass.
struct Asked(PolicyConfig);

impl<'de> Deserialize<'de> for Asked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let value = Value::deserialize(deserializer)?;
        let fields = value.as_object().map_or(0, serde_json::Map::len);
        let config: PolicyConfig = serde_json::from_value(value).map_err(D::Error::custom)?;
        if matches!(config, PolicyConfig::ExactOnly) && fields > 1 {
            return Err(D::Error::custom("exact_only has no settings"));
        }
        Ok(Self(config))
    }
}

/// `POST /cache/v1/replay`
pub(crate) async fn replay(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): Peer,
    headers: HeaderMap,
    body: Body,
) -> Answered {
    #[derive(Deserialize)]
    struct Options {
        #[serde(default)]
        policies: Vec<Asked>,
    }
    let caller = app.auth.identify(&headers, peer)?;
    caller.require_admin("replay decisions")?;
    let fields = read_fields(&app, body, &["policies"]).await?;
    let Options { policies } = fields.only()?;
    if policies.len() > MOST_POLICIES {
        let detail = format!("at most {MOST_POLICIES} policies are replayed at a time");
        return Err(Problem::bad_request(detail).field("policies"));
    }
    let policies: Vec<PolicyConfig> = policies.into_iter().map(|policy| policy.0).collect();
    for (i, policy) in policies.iter().enumerate() {
        if let PolicyConfig::Calibrated(settings) = policy
            && settings.path.is_some()
        {
            let detail = "a file is read for the configured policy alone: leave the path out";
            return Err(Problem::bad_request(detail).field(format!("policies[{i}].path")));
        }
    }
    let busy = |_| {
        let detail = "the server is about to stop";
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "stopping",
            "No replay now",
            detail,
        )
    };
    let _turn = app.replays.acquire().await.map_err(busy)?;
    let records = app.cache.recent_decisions();
    let current = app
        .cache
        .policy()
        .map(|policy| Contender::new("in force", policy));
    let configured = match &app.config.semantic.policy {
        PolicyConfig::Calibrated(settings) => settings.path.clone(),
        _ => None,
    };
    let work = move || {
        let logged = as_logged(&records);
        let mut told = vec![Told {
            settings: None,
            replay: Some(logged.clone()),
            problem: None,
        }];
        told.extend(current.map(|current| Told {
            settings: None,
            replay: Some(under(&current, &records, &logged)),
            problem: None,
        }));
        let until = Instant::now() + TIME;
        for policy in policies {
            told.push(try_policy(
                policy,
                configured.as_ref(),
                &records,
                &logged,
                until,
            ));
        }
        let labelled = |record: &&DecisionRecord| {
            let mut candidates = record.candidates.iter();
            candidates.any(|candidate| candidate.right.is_some())
        };
        json!({
            "decisions": records.len(),
            "labelled": records.iter().filter(labelled).count(),
            "from": records.first().map(|record| record.at),
            "to": records.last().map(|record| record.at),
            "replays": told,
        })
    };
    let told = tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "a replay did not end");
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Problem::new(status, "internal", "The server failed", "a replay failed")
    })?;
    Ok(Json(told).into_response())
}

fn try_policy(
    mut config: PolicyConfig,
    path: Option<&std::path::PathBuf>,
    records: &[DecisionRecord],
    logged: &Replay,
    until: Instant,
) -> Told {
    let settings = serde_json::to_value(&config).ok();
    if let PolicyConfig::Calibrated(CalibratedSettings { path: own, .. }) = &mut config {
        *own = path.cloned();
    }
    let name = name_of(&config);
    let replayed = if Instant::now() > until {
        Err("the time for one request was over".to_owned())
    } else {
        Contender::of(name, &config)
            .map(|contender| under(&contender, records, logged))
            .map_err(|error| format!("{error:#}"))
    };
    let (replay, problem) = match replayed {
        Ok(replay) => (Some(replay), None),
        Err(problem) => (None, Some(problem)),
    };
    Told {
        settings,
        replay,
        problem,
    }
}

/// As `askonce replay` names it.
fn name_of(config: &PolicyConfig) -> String {
    match config {
        PolicyConfig::Threshold { threshold, .. } => format!("threshold:{threshold}"),
        PolicyConfig::CostAware { .. } => "cost_aware".to_owned(),
        PolicyConfig::Calibrated(settings) => match settings.wrong_per_request {
            Some(rate) => format!("calibrated@{rate}"),
            None => "calibrated".to_owned(),
        },
        PolicyConfig::ExactOnly => "exact_only".to_owned(),
    }
}
