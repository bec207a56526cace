//! Embeddings: each input is an entry of its own, so a call asks upstream for those inputs only that are new
//! ([`SemanticCache::get_or_call_many`]), and its response is put together from what was kept and what came.

use futures_util::future::join_all;
use http::HeaderMap;
use serde_json::{Value, json};

use super::status;
use crate::cache::{Fill, Miss, Outcome, SemanticCache, Served, Source, StoreOptions};
use crate::entry::Answer;
use crate::replay::Document;
use crate::request::Request;
use crate::savings::Usage;
use crate::stampede::Flight;

/// The body of a call for some inputs of `body`, by their places; `None` when it is no call for embeddings.
///
/// A call for all of them is better sent as it came.
#[must_use]
pub fn only(body: &[u8], places: &[usize]) -> Option<Vec<u8>> {
    let mut document = Document::read(body)?;
    let input: Value = serde_json::from_str(document.get("input")?).ok()?;
    let all = match input {
        // A list of tokens is one input.
        Value::Array(items) if !items.first().is_some_and(Value::is_number) => items,
        one => vec![one],
    };
    let wanted: Option<Vec<Value>> = places
        .iter()
        .map(|place| all.get(*place).cloned())
        .collect();
    document.set("input", &Value::from(wanted?));
    Some(document.to_text().into_bytes())
}

/// The vectors that a provider gave.
#[derive(Debug)]
pub struct Vectors {
    document: Value,
    /// In the order of the inputs.
    embeddings: Vec<Value>,
}

impl Vectors {
    /// The vectors of a response, if it has as many as were asked for.
    #[must_use]
    pub fn read(body: &[u8], count: usize) -> Option<Self> {
        let mut document: Value = serde_json::from_slice(body).ok()?;
        let data = document.get_mut("data")?.as_array_mut()?;
        let mut embeddings = vec![Value::Null; count];
        for (i, item) in data.iter().enumerate() {
            let at = item.get("index").and_then(Value::as_u64);
            let at = at.map_or(Some(i), |at| usize::try_from(at).ok())?;
            *embeddings.get_mut(at)? = item.get("embedding")?.clone();
        }
        let all = data.len() == count && embeddings.iter().all(|one| !one.is_null());
        all.then_some(Self {
            document,
            embeddings,
        })
    }

    /// The whole response.
    #[must_use]
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// The tokens that the call took, if the provider told them.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        self.document.get("usage").and_then(Usage::from_openai)
    }

    /// What to give for each input: to be kept as `options` say, or passed on where there are none. The tokens are
    /// divided among the inputs.
    #[must_use]
    pub fn fills(self, options: Option<&StoreOptions>) -> Vec<Fill> {
        let count = self.embeddings.len() as u64;
        let usage = self.usage();
        let usage = usage.map(|usage| Usage::new(usage.input_tokens / count.max(1), 0));
        let model = self.document.get("model").cloned().unwrap_or_default();
        let fill = |embedding| {
            let answer = Answer::from(json!({ "model": model, "embedding": embedding }));
            let fill = match options {
                Some(options) => Fill::keep(answer, options.clone()),
                None => Fill::pass_on(answer),
            };
            usage.into_iter().fold(fill, Fill::usage)
        };
        self.embeddings.into_iter().map(fill).collect()
    }
}

/// The answers that are kept, or how many are not, with the first of those misses.
///
/// # Errors
/// The miss, where anything is missing.
pub async fn kept(
    cache: &SemanticCache,
    requests: &[Request],
) -> Result<Vec<Served>, (Miss, usize)> {
    let found = join_all(requests.iter().map(|request| cache.lookup(request))).await;
    let missing = found.iter().filter(|found| !found.is_hit()).count();
    let served = found.into_iter().map(|found| match found {
        Outcome::Hit(hit) => Ok(Served {
            answer: hit.answer.clone(),
            source: Source::Cache(hit),
        }),
        Outcome::Miss(miss) => Err((miss, missing)),
    });
    served.collect()
}

/// One response from all that was kept and came, in the order of the inputs. `usage` is that of the call that was
/// made for it, if one was: what the cache gave used nothing, and is told beside it.
#[must_use]
pub fn document(served: &[Served], usage: Usage) -> Value {
    let mut model = None;
    let data: Vec<Value> = served
        .iter()
        .enumerate()
        .map(|(index, served)| {
            let mut kept = served.answer.to_value();
            if served.source.hit().is_none() || model.is_none() {
                model = Some(kept["model"].take());
            }
            json!({ "object": "embedding", "index": index, "embedding": kept["embedding"].take() })
        })
        .collect();
    let hits = served.iter().filter(|served| served.source.hit().is_some());
    let tokens = usage.input_tokens;
    json!({
        "object": "list",
        "data": data,
        "model": model.unwrap_or_default(),
        "usage": {
            "prompt_tokens": tokens, "total_tokens": tokens,
            "askonce": { "cached": hits.count(), "inputs": served.len() },
        },
    })
}

/// Tells in a response's headers what became of the inputs: the first that was asked for upstream, or the first.
pub fn report(headers: &mut HeaderMap, served: &[Served], declined: Option<&'static str>) {
    let led = |served: &&Served| {
        let flight = Flight::Led;
        matches!(&served.source, Source::Upstream { flight: role, .. } if *role == flight)
    };
    let missed = |served: &&Served| served.source.hit().is_none();
    let telling = served.iter().find(led).or(served.iter().find(missed));
    match telling.or(served.first()).map(|served| &served.source) {
        Some(Source::Cache(hit)) => status::hit(headers, hit),
        Some(Source::Upstream {
            miss,
            flight,
            stored,
        }) => status::forwarded(headers, miss, *flight, Some(stored), declined),
        None => {}
    }
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
        let given = Vectors::read(&body(two.clone()), 2).unwrap();
        assert_eq!(given.embeddings, [json!("AAAA"), json!([2.0])]);
        assert!(Vectors::read(&body(two.clone()), 1).is_none());
        assert!(Vectors::read(&body(two), 3).is_none());
        let twice = json!([{ "index": 0, "embedding": [2.0] }, { "index": 0, "embedding": [1.0] }]);
        assert!(Vectors::read(&body(twice), 2).is_none());
    }

    #[test]
    fn only_what_is_missing_is_asked_for() {
        let body = r#"{"model":"m","input":["a","b","a","c"],"dimensions":2.0}"#;
        let left = only(body.as_bytes(), &[0, 3]).unwrap();
        assert_eq!(left, br#"{"model":"m","input":["a","c"],"dimensions":2.0}"#);
        let tokens = only(br#"{"input":[1,2]}"#, &[0]).unwrap();
        assert_eq!(tokens, br#"{"input":[[1,2]]}"#);
        assert!(only(br#"{"input":["a"]}"#, &[1]).is_none());
        assert!(only(b"[]", &[0]).is_none());
    }
}
