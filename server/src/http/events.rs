//! What happens in the tiers, as server-sent events, for admins.
//!
//! Each event is named by what happened and carries JSON; keys are digests, values and prompts are never
//! part of it. A reader that is too slow holds nobody up: it gets a `lost` event that says how many it
//! missed. The stream ends when the server is told to stop.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use askonce::event::{Event, Received, Subscription};
use axum::extract::{ConnectInfo, Query, State};
use axum::http::HeaderMap;
use axum::response::IntoResponse as _;
use axum::response::sse::{self, Sse};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};

use super::App;
use super::error::Problem;
use super::native::{Answered, Peer};

/// How often a comment is sent when nothing happens, so that proxies do not close the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Which events are wanted.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    /// Of this tier alone.
    backend: Option<String>,
    /// Of these names, separated by commas.
    only: Option<String>,
}

impl Wanted {
    fn wants(&self, name: &str, event: &Event) -> bool {
        let tier = self.backend.as_deref();
        let names = self.only.as_deref();
        tier.is_none_or(|tier| tier == event.tier())
            && names.is_none_or(|names| names.split(',').any(|own| own.trim() == name))
    }
}

/// `GET /cache/v1/events?backend=&only=`
pub(crate) async fn events(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): Peer,
    headers: HeaderMap,
    wanted: Result<Query<Wanted>, axum::extract::rejection::QueryRejection>,
) -> Answered {
    let caller = app.auth.identify(&headers, peer)?;
    caller.require_admin("follow events")?;
    let Query(wanted) = wanted.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let stopped = Box::pin(app.stopped());
    let state = (app.cache.subscribe(), wanted, stopped);
    let events = stream::unfold(
        state,
        |(mut subscription, wanted, mut stopped)| async move {
            let event = tokio::select! {
                () = &mut stopped => return None,
                event = next(&mut subscription, &wanted) => event?,
            };
            Some((Ok::<_, Infallible>(event), (subscription, wanted, stopped)))
        },
    );
    // The first bytes at once, so that a reader knows that it hears from now on.
    let greeting = stream::once(async { Ok(sse::Event::default().comment("listening")) });
    let events = futures_util::StreamExt::chain(greeting, events);
    let keep_alive = sse::KeepAlive::new().interval(KEEP_ALIVE);
    Ok(Sse::new(events).keep_alive(keep_alive).into_response())
}

/// The next event that is wanted; `None` once there will be no more.
async fn next(subscription: &mut Subscription, wanted: &Wanted) -> Option<sse::Event> {
    loop {
        let (name, data) = match subscription.next().await? {
            Received::Lost(events) => ("lost", json!({ "events": events })),
            Received::Event(event) => {
                let (name, data) = told(&event);
                if !wanted.wants(name, &event) {
                    continue;
                }
                (name, data)
            }
        };
        return Some(sse::Event::default().event(name).data(data.to_string()));
    }
}

/// The name of an event and what is told of it.
fn told(event: &Event) -> (&'static str, Value) {
    let tier = event.tier();
    match event {
        Event::Hit { key, .. } => ("hit", json!({ "tier": tier, "key": key.to_string() })),
        Event::Miss { key, .. } => ("miss", json!({ "tier": tier, "key": key.to_string() })),
        Event::Set { key, bytes, .. } => (
            "set",
            json!({ "tier": tier, "key": key.to_string(), "bytes": bytes }),
        ),
        Event::Deleted { key, .. } => ("deleted", json!({ "tier": tier, "key": key.to_string() })),
        Event::Cleared { .. } => ("cleared", json!({ "tier": tier })),
        Event::Removed { key, cause, .. } => (
            cause.as_str(),
            json!({ "tier": tier, "key": key.to_string() }),
        ),
        Event::Failed {
            operation, kind, ..
        } => (
            "failed",
            json!({ "tier": tier, "operation": operation, "kind": kind.as_str() }),
        ),
        Event::Reconnected { .. } => ("reconnected", json!({ "tier": tier })),
        Event::BreakerChanged { path, state, .. } => (
            "breaker",
            json!({ "tier": tier, "path": path, "state": state.as_str() }),
        ),
        // The engine may learn to tell more than this server knows.
        _ => ("other", json!({ "tier": tier })),
    }
}

#[cfg(test)]
mod tests {
    use askonce::event::Events;

    use super::*;

    fn cleared(tier: &str) -> Event {
        Event::Cleared { tier: tier.into() }
    }

    /// The event as it goes over the wire.
    async fn wire(event: sse::Event) -> String {
        let body = Sse::new(stream::iter([Ok::<_, Infallible>(event)])).into_response();
        let bytes = axum::body::to_bytes(body.into_body(), 1 << 16).await;
        String::from_utf8(bytes.unwrap().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn w_70_a_slow_reader_is_told_how_many_events_it_lost() {
        let events = Events::with_capacity(4);
        let mut subscription = events.subscribe();
        for i in 0..10 {
            events.emit(|_| cleared(&i.to_string()));
        }
        drop(events);
        let mut told = String::new();
        while let Some(event) = next(&mut subscription, &Wanted::default()).await {
            told.push_str(&wire(event).await);
        }
        assert!(
            told.starts_with("event: lost\ndata: {\"events\":6}"),
            "{told}"
        );
        assert_eq!(told.matches("event: cleared").count(), 4, "{told}");
    }

    #[tokio::test]
    async fn only_what_is_wanted_is_told_and_losses_always() {
        let events = Events::with_capacity(16);
        let mut subscription = events.subscribe();
        let wanted = Wanted {
            backend: Some("near".to_owned()),
            only: Some("hit, cleared".to_owned()),
        };
        events.emit(|_| cleared("far"));
        events.emit(|_| Event::Reconnected {
            tier: "near".into(),
        });
        events.emit(|_| cleared("near"));
        drop(events);
        let event = next(&mut subscription, &wanted).await.unwrap();
        let told = wire(event).await;
        assert!(told.contains("cleared") && told.contains("near"), "{told}");
        assert!(next(&mut subscription, &wanted).await.is_none());
    }
}
