//! Embeddings: each input is an entry of its own, so a call asks upstream for those inputs only that are new.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use askonce::replay::{Document, Wanted};
use askonce::savings::Usage;
use askonce::{Answer, Hit, Miss, Outcome, Protocol, StoreOptions, StoreOutcome};
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use futures_util::future;
use serde_json::{Value, json};

use super::Context;
use super::call::Call;
use super::give::{Asked, json_response, told};
use super::reading::Reading;
use crate::http::control::Wishes;
use crate::http::error::{Problem, provider_error};
use crate::http::status;
use crate::upstream::CallError;
use askonce::stampede::Flight;

/// One input: what it asks, and what became of it.
struct Input {
    request: askonce::Request,
    found: Outcome,
}

/// Answers a call for the embeddings of some inputs.
pub(super) async fn answer(
    context: &Context<'_>,
    requests: Vec<askonce::Request>,
    body: &Value,
    mut wishes: Wishes,
    bytes: Bytes,
) -> Result<Response, Problem> {
    let asked = Asked {
        protocol: Protocol::OpenAiEmbeddings,
        stream: false,
        wanted: Wanted::default(),
    };
    let joined: Vec<_> = requests
        .into_iter()
        .map(|request| {
            let request = wishes.join(request);
            context.identify(request, &wishes)
        })
        .collect();
    let cache = &context.app.cache;
    // Inputs that stand twice in a body are one.
    let mut first: BTreeMap<[u8; 32], usize> = BTreeMap::new();
    let mut inputs: Vec<askonce::Request> = Vec::new();
    let places: Vec<usize> = joined
        .into_iter()
        .map(|request| {
            *first
                .entry(*request.exact_key().as_bytes())
                .or_insert_with(|| {
                    inputs.push(request);
                    inputs.len() - 1
                })
        })
        .collect();
    let looked = inputs.into_iter().map(|request| async move {
        let found = cache.lookup(&request).await;
        Input { request, found }
    });
    let inputs: Vec<Input> = future::join_all(looked).await;
    let missing: Vec<usize> = (0..inputs.len())
        .filter(|i| !inputs[*i].found.is_hit())
        .collect();
    let mut fresh: BTreeMap<usize, Fresh> = BTreeMap::new();
    let mut upstream_head = None;
    let mut declined = None;
    if !missing.is_empty() {
        if wishes.control.only_if_cached {
            return Ok(not_cached(&inputs, &missing));
        }
        // Where all are missing and none is twice, the body goes as it came.
        let bytes = if missing.len() == places.len() {
            bytes
        } else {
            only(&bytes, body, &places, &missing)
        };
        let first = &inputs[missing[0]].request;
        let reading = Reading {
            request: first.clone(),
            asked,
            wishes: wishes.clone(),
            primary: Arc::clone(context.route.primary()),
            stripped: None,
        };
        let call = Call::new(context.app, context.parts, &Arc::new(reading), bytes);
        let began = Instant::now();
        let reply = match call.reply().await {
            Ok(reply) if reply.status == StatusCode::OK => reply,
            Ok(reply) => {
                return Ok(told(
                    "",
                    &CallError::Refused(Box::new(reply)),
                    Some(asked.protocol),
                ));
            }
            Err(error) => {
                let upstream = error.upstream().unwrap_or_default().to_owned();
                return Ok(told(&upstream, &error, Some(asked.protocol)));
            }
        };
        let took = began.elapsed();
        let Some(given) = vectors(&reply.body, missing.len()) else {
            // Not what was asked for: the caller may know better.
            let error = CallError::Refused(Box::new(reply));
            return Ok(told("", &error, Some(asked.protocol)));
        };
        declined = call.declined(&reply.headers, &given.document);
        let share = |total: u64| total / missing.len() as u64;
        let usage = given
            .usage
            .map(|usage| Usage::new(share(usage.input_tokens), 0));
        for (at, embedding) in missing.iter().zip(given.embeddings) {
            let stored = match declined {
                Some(_) => None,
                None => {
                    let kept = json!({ "model": given.model, "embedding": embedding });
                    let mut options = StoreOptions::default().latency(took);
                    options.tags.clone_from(&wishes.tags);
                    options.usage = usage;
                    Some(
                        cache
                            .store(&inputs[*at].request, Answer::from(kept), options)
                            .await,
                    )
                }
            };
            fresh.insert(*at, Fresh { embedding, stored });
        }
        upstream_head = Some((reply.headers, given.usage.unwrap_or_default(), given.model));
    }
    Ok(put_together(
        &places,
        &inputs,
        fresh,
        upstream_head,
        declined,
    ))
}

/// An embedding that came from upstream.
struct Fresh {
    embedding: Value,
    stored: Option<StoreOutcome>,
}

/// What a provider gave.
struct Given {
    document: Value,
    /// In the order of the inputs.
    embeddings: Vec<Value>,
    model: Value,
    usage: Option<Usage>,
}

/// The embeddings of a response, if it has as many as were asked for.
fn vectors(body: &[u8], count: usize) -> Option<Given> {
    let document: Value = serde_json::from_slice(body).ok()?;
    let data = document.get("data")?.as_array()?;
    let mut embeddings = vec![Value::Null; count];
    for (i, item) in data.iter().enumerate() {
        let at = item.get("index").and_then(Value::as_u64);
        let at = at.map_or(Some(i), |at| usize::try_from(at).ok())?;
        *embeddings.get_mut(at)? = item.get("embedding")?.clone();
    }
    let model = document.get("model").cloned().unwrap_or_default();
    let usage = document.get("usage").and_then(Usage::from_openai);
    (data.len() == count && embeddings.iter().all(|one| !one.is_null())).then_some(Given {
        document,
        embeddings,
        model,
        usage,
    })
}

/// The body with the missing inputs only.
fn only(bytes: &Bytes, body: &Value, places: &[usize], missing: &[usize]) -> Bytes {
    let all: Vec<Value> = match body.get("input") {
        // A list of tokens is one input.
        Some(Value::Array(items)) if !items.first().is_some_and(Value::is_number) => items.clone(),
        Some(one) => vec![one.clone()],
        None => Vec::new(),
    };
    let wanted = missing.iter().filter_map(|input| {
        let place = places.iter().position(|place| place == input)?;
        all.get(place).cloned()
    });
    let wanted: Vec<Value> = wanted.collect();
    let Some(mut document) = Document::read(bytes) else {
        return bytes.clone();
    };
    document.set("input", &Value::from(wanted));
    document.to_text().into()
}

fn not_cached(inputs: &[Input], missing: &[usize]) -> Response {
    let message = format!("{} of the inputs are not in the cache", missing.len());
    let protocol = Some(Protocol::OpenAiEmbeddings);
    let status = StatusCode::GATEWAY_TIMEOUT;
    let mut response = provider_error(status, "only_if_cached", &message, None, protocol);
    if let Some(miss) = missing.iter().find_map(|at| miss_of(&inputs[*at])) {
        status::not_forwarded(response.headers_mut(), miss);
    }
    response
}

fn miss_of(input: &Input) -> Option<&Miss> {
    match &input.found {
        Outcome::Hit(_) => None,
        Outcome::Miss(miss) => Some(miss),
    }
}

fn hit_of(input: &Input) -> Option<&Hit> {
    match &input.found {
        Outcome::Hit(hit) => Some(hit),
        Outcome::Miss(_) => None,
    }
}

/// One response from all that was found and made. Its usage is that of the call that was made; what the cache
/// gave used none, and is told beside it.
fn put_together(
    places: &[usize],
    inputs: &[Input],
    mut fresh: BTreeMap<usize, Fresh>,
    upstream: Option<(axum::http::HeaderMap, Usage, Value)>,
    declined: Option<&'static str>,
) -> Response {
    let mut model = upstream.as_ref().map(|(_, _, model)| model.clone());
    let mut embeddings: Vec<Value> = Vec::with_capacity(inputs.len());
    for (at, input) in inputs.iter().enumerate() {
        embeddings.push(match hit_of(input) {
            Some(hit) => {
                let mut kept = hit.answer.to_value();
                model.get_or_insert_with(|| kept["model"].clone());
                kept["embedding"].take()
            }
            None => fresh
                .get_mut(&at)
                .map(|fresh| std::mem::take(&mut fresh.embedding))
                .unwrap_or_default(),
        });
    }
    let data: Vec<Value> = places
        .iter()
        .enumerate()
        .map(|(index, place)| json!({ "object": "embedding", "index": index, "embedding": embeddings[*place] }))
        .collect();
    let hits = inputs.iter().filter(|input| input.found.is_hit()).count();
    let tokens = upstream
        .as_ref()
        .map_or(0, |(_, usage, _)| usage.input_tokens);
    let document = json!({
        "object": "list",
        "data": data,
        "model": model.unwrap_or_default(),
        "usage": {
            "prompt_tokens": tokens, "total_tokens": tokens,
            "askonce": { "cached": hits, "inputs": inputs.len() },
        },
    });
    let mut response = json_response(document.to_string().into());
    match upstream {
        Some((mut headers, _, _)) => {
            headers.remove(axum::http::header::CONTENT_TYPE);
            response.headers_mut().extend(headers);
            let miss = inputs.iter().find_map(miss_of);
            let stored = fresh.values().find_map(|fresh| fresh.stored);
            if let Some(miss) = miss {
                status::forwarded(
                    response.headers_mut(),
                    miss,
                    Flight::Led,
                    stored.as_ref(),
                    declined,
                );
            }
        }
        None => {
            if let Some(hit) = inputs.iter().find_map(hit_of) {
                status::hit(response.headers_mut(), hit);
            }
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_used_if_it_has_what_was_asked_for() {
        let body = |data: Value| {
            json!({ "model": "m", "data": data })
                .to_string()
                .into_bytes()
        };
        let two = json!([{ "index": 1, "embedding": [2.0] }, { "index": 0, "embedding": "AAAA" }]);
        let given = vectors(&body(two.clone()), 2).unwrap();
        assert_eq!(given.embeddings, [json!("AAAA"), json!([2.0])]);
        assert!(vectors(&body(two.clone()), 1).is_none());
        assert!(vectors(&body(two), 3).is_none());
        let twice = json!([{ "index": 0, "embedding": [2.0] }, { "index": 0, "embedding": [1.0] }]);
        assert!(vectors(&body(twice), 2).is_none());
    }

    #[test]
    fn only_what_is_missing_is_asked_for() {
        let body = json!({ "model": "m", "input": ["a", "b", "a", "c"] });
        let bytes = Bytes::from(body.to_string());
        let left = only(&bytes, &body, &[0, 1, 0, 2], &[0, 2]);
        let left: Value = serde_json::from_slice(&left).unwrap();
        assert_eq!(left, json!({ "model": "m", "input": ["a", "c"] }));
        let tokens = json!({ "input": [1, 2] });
        let left = only(&Bytes::from(tokens.to_string()), &tokens, &[0], &[0]);
        assert_eq!(
            serde_json::from_slice::<Value>(&left).unwrap(),
            json!({ "input": [[1, 2]] })
        );
    }
}
