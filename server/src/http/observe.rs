//! What is counted, timed and logged of every request.

use std::any::Any;
use std::collections::HashMap;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use metrics::{Counter, Histogram, Unit};
use parking_lot::RwLock;
use tower::{Layer, Service};
use tracing::Instrument as _;

use super::error::Problem;
use super::status;
use crate::traces;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const REQUESTS: &str = "askonce_http_requests_total";
pub(super) const REQUEST_SECONDS: &str = "askonce_http_request_duration_seconds";

/// Tells the recorder what the metrics mean.
pub(super) fn describe() {
    metrics::describe_counter!(REQUESTS, "HTTP requests, by route and status");
    metrics::describe_histogram!(
        REQUEST_SECONDS,
        Unit::Seconds,
        "Time to the head of the response, by route and what the cache did"
    );
}

/// Observes the service that it is put around, and answers for it where it panics.
#[derive(Clone, Copy, Debug)]
pub(super) struct ObserveLayer;

impl<S> Layer<S> for ObserveLayer {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed(inner)
    }
}

/// A service that is observed.
#[derive(Clone, Debug)]
pub(super) struct Observed<S>(S);

impl<S> Service<Request> for Observed<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let started = Instant::now();
        let route = request.extensions().get::<MatchedPath>().cloned();
        let method = request.method().clone();
        let span = traces::request(&method, name_of(route.as_ref()), request.headers());
        // A handler that panicked takes down its own request and no more.
        let answer = AssertUnwindSafe(self.0.call(request)).catch_unwind();
        Box::pin(async move {
            let response = match answer.instrument(span.clone()).await {
                Ok(Ok(response)) => response,
                Err(panic) => panicked(&*panic),
            };
            let route = name_of(route.as_ref());
            let part = status::part_of(last_status(&response));
            record(route, response.status(), part, started.elapsed());
            traces::answered(&span, response.status(), part);
            tracing::debug!(
                %method,
                route,
                status = response.status().as_u16(),
                took_us = started.elapsed().as_micros() as u64,
                cache = last_status(&response).and_then(|value| value.to_str().ok()),
                "answered"
            );
            Ok(response)
        })
    }
}

fn name_of(route: Option<&MatchedPath>) -> &str {
    route.map_or("none", MatchedPath::as_str)
}

fn last_status(response: &Response) -> Option<&axum::http::HeaderValue> {
    let headers = response.headers();
    headers.get_all(CACHE_STATUS).iter().next_back()
}

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// By status and what the cache did, and then by route.
type Kept = Map<(u16, &'static str), Map<Arc<str>, Meters>>;
/// What a request moves: its counter, and its histogram.
type Meters = (Counter, Histogram);

/// Counts and times a request. The route is a pattern from the router, so labels are bounded.
fn record(route: &str, status: StatusCode, part: &'static str, took: Duration) {
    /// By route, status and what the cache did, for the recorder takes long to find what labels name.
    static KEPT: LazyLock<RwLock<Kept>> = LazyLock::new(RwLock::default);
    let status = status.as_u16();
    let key = (status, part);
    let move_them = |(requests, seconds): &Meters| {
        requests.increment(1);
        seconds.record(took.as_secs_f64());
    };
    if let Some(meters) = KEPT.read().get(&key).and_then(|routes| routes.get(route)) {
        return move_them(meters);
    }
    let name: Arc<str> = route.into();
    let meters = (
        metrics::counter!(REQUESTS, "route" => Arc::clone(&name), "status" => status.to_string()),
        metrics::histogram!(REQUEST_SECONDS, "route" => Arc::clone(&name), "cache" => key.1),
    );
    move_them(&meters);
    KEPT.write().entry(key).or_default().insert(name, meters);
}

/// The message stays in the log of the panic hook; it may quote the request.
fn panicked(_: &(dyn Any + Send)) -> Response {
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    Problem::new(
        status,
        "internal",
        "The server failed",
        "a handler panicked",
    )
    .into_response()
}
