//! Embeddings: each input is an entry of its own, so a call asks upstream for those inputs only that are new, and
//! that nobody else is asking for.

use std::sync::Arc;

use askonce::gateway::embeddings::{self, Vectors};
use askonce::replay::Wanted;
use askonce::savings::Usage;
use askonce::{Miss, Protocol, Served, StoreOptions};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use parking_lot::Mutex;

use super::Context;
use super::call::Call;
use super::give::{Asked, call_failed, json_response};
use super::reading::Reading;
use crate::http::control::Wishes;
use crate::http::error::provider_error;
use crate::http::status;
use crate::upstream::CallError;

/// What the calls that were made for a caller came to, beside the vectors.
#[derive(Default)]
struct Made {
    headers: HeaderMap,
    usage: Usage,
    /// Why nothing of it is kept.
    declined: Option<&'static str>,
}

/// Answers a call for the embeddings of some inputs.
pub(super) async fn answer(
    context: &Context<'_>,
    requests: Vec<askonce::Request>,
    mut wishes: Wishes,
    bytes: Bytes,
) -> Response {
    let asked = Asked {
        protocol: Protocol::OpenAiEmbeddings,
        stream: false,
        wanted: Wanted::default(),
    };
    let inputs: Vec<askonce::Request> = requests
        .into_iter()
        .map(|request| {
            let request = wishes.join(request);
            context.identify(request, &wishes)
        })
        .collect();
    let cache = &context.app.cache;
    if wishes.control.only_if_cached {
        return match embeddings::kept(cache, &inputs).await {
            Ok(served) => put_together(&served, Made::default()),
            Err((miss, missing)) => not_cached(&miss, missing),
        };
    }
    let Some(first) = inputs.first() else {
        return put_together(&[], Made::default());
    };
    let reading = Arc::new(Reading {
        request: first.clone(),
        asked,
        wishes,
        primary: Arc::clone(context.route.primary()),
        stripped: None,
    });
    let made = Arc::new(Mutex::new(Made::default()));
    let call = {
        let (app, parts) = (Arc::clone(context.app), Arc::clone(context.parts));
        let (made, count) = (Arc::clone(&made), inputs.len());
        move |places: Vec<usize>| {
            let body = match places.len() == count {
                true => None,
                false => embeddings::only(&bytes, &places),
            };
            let body = body.map_or_else(|| bytes.clone(), Bytes::from);
            let call = Call::new(&app, &parts, &reading, body);
            let (reading, made) = (Arc::clone(&reading), Arc::clone(&made));
            async move {
                let reply = call.reply().await?;
                let vectors = match reply.status {
                    StatusCode::OK => Vectors::read(&reply.body, places.len()),
                    _ => None,
                };
                // Not what was asked for: the caller may know better.
                let Some(vectors) = vectors else {
                    return Err(CallError::Refused(Box::new(reply)));
                };
                let declined = call.declined(&reply.headers, vectors.document());
                let options = StoreOptions {
                    tags: reading.wishes.tags.clone(),
                    ..StoreOptions::default()
                };
                let mut made = made.lock();
                made.usage.input_tokens += vectors.usage().unwrap_or_default().input_tokens;
                made.headers = reply.headers;
                made.declined = declined;
                Ok(vectors.fills(declined.is_none().then_some(&options)))
            }
        }
    };
    let served = cache.get_or_call_many(&inputs, call).await;
    match served.into_iter().collect::<askonce::Result<Vec<_>>>() {
        Ok(served) => put_together(&served, std::mem::take(&mut *made.lock())),
        Err(error) => call_failed(&error, asked.protocol),
    }
}

fn put_together(served: &[Served], made: Made) -> Response {
    let document = embeddings::document(served, made.usage);
    let mut response = json_response(document.to_string().into());
    let mut headers = made.headers;
    headers.remove(header::CONTENT_TYPE);
    response.headers_mut().extend(headers);
    embeddings::report(response.headers_mut(), served, made.declined);
    response
}

fn not_cached(miss: &Miss, missing: usize) -> Response {
    let message = format!("{missing} of the inputs are not in the cache");
    let protocol = Some(Protocol::OpenAiEmbeddings);
    let status = StatusCode::GATEWAY_TIMEOUT;
    let mut response = provider_error(status, "only_if_cached", &message, None, protocol);
    status::not_forwarded(response.headers_mut(), miss);
    response
}
