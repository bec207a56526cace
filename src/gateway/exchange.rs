//! What a call over HTTP asks for, and how it is answered, whichever side of the wire this is on.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Extensions, HeaderMap, Method, Response, StatusCode, header};
use parking_lot::Mutex;
use serde_json::Value;

use super::BoxError;
use super::control::Wishes;
use super::embeddings::{self, Vectors};
use super::fetch::{CallError, Fetch, declined, whole};
use super::give::{Asked, ResponseBody, json_response, refused};
use super::status;
use crate::cache::{Outcome, SemanticCache, Served, Source, StoreOptions, Streamed};
use crate::error::{Error, ErrorKind, Result};
use crate::replay::{Document, Wanted, asking_for_usage};
use crate::request::{Protocol, Request, Scope};
use crate::savings::Usage;

/// Headers in which providers are sent keys.
const KEY_HEADERS: [header::HeaderName; 3] = [
    header::AUTHORIZATION,
    header::HeaderName::from_static("x-api-key"),
    header::HeaderName::from_static("api-key"),
];

/// Headers that choose what answers, beside the body: part of a request's identity.
const IDENTITY_HEADERS: [&str; 5] = [
    "openai-organization",
    "openai-project",
    "openai-beta",
    "anthropic-version",
    "anthropic-beta",
];

type ScopeOf = dyn Fn(&Head<'_>) -> Scope + Send + Sync;
type Identify = dyn Fn(&Head<'_>, Request) -> Request + Send + Sync;

/// A cache in front of calls to models over HTTP: a `tower` layer of servers, and a middleware of `reqwest`
/// clients.
///
/// Chat completions, responses, completions and messages go through the cache, whole and as streams, and embeddings
/// input by input; all else passes it by untouched. Calls are told from others by method and path ([`Protocol::of_path`]). What callers
/// ask of the cache ([`control`](super::control)) and are told by it ([`status`](super::status)) is as with the
/// server `askonce`.
///
/// ```
/// use askonce::gateway::Gateway;
/// use askonce::{Scope, SemanticCache};
/// use axum::Router;
/// use axum::routing::post;
///
/// # fn router() -> askonce::Result<Router> {
/// // Stands for a handler that calls a model, or a reverse proxy.
/// let answer = || async { r#"{"choices":[{"finish_reason":"stop","message":{"content":"Hi."}}]}"# };
/// let gateway = Gateway::new(SemanticCache::in_memory()?)
///     .scope(|head| match head.headers.get("x-tenant") {
///         Some(tenant) => Scope::tenant(String::from_utf8_lossy(tenant.as_bytes())),
///         None => Scope::local(),
///     });
/// Ok(Router::new().route("/v1/chat/completions", post(answer)).layer(gateway))
/// # }
/// # router().unwrap();
/// ```
#[derive(Clone)]
pub struct Gateway {
    pub(super) cache: SemanticCache,
    scope: Arc<ScopeOf>,
    identify: Arc<Identify>,
    pub(super) max_body_bytes: u64,
    max_answer_bytes: u64,
    finish_abandoned: Duration,
    pace: Duration,
    stream_usage: bool,
}

/// The head of a call.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Head<'a> {
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Where a client sends it: scheme, host and port. `None` on a server.
    pub origin: Option<&'a str>,
    /// Its path.
    pub path: &'a str,
    /// What follows the path.
    pub query: Option<&'a str>,
    /// What other layers left with it.
    pub extensions: &'a Extensions,
}

impl Gateway {
    /// A gateway over `cache`, in which each API key has a scope of its own.
    #[must_use]
    pub fn new(cache: SemanticCache) -> Self {
        Self {
            cache,
            scope: Arc::new(|head| scope_of_key(head.headers)),
            identify: Arc::new(|_, request| request),
            max_body_bytes: 32 << 20,
            max_answer_bytes: 32 << 20,
            finish_abandoned: Duration::from_secs(120),
            pace: Duration::ZERO,
            stream_usage: true,
        }
    }

    /// Who may share answers, going by what has authenticated the caller. Default: the holder of the key in
    /// `Authorization`, `X-Api-Key` or `Api-Key`, and all callers without one together.
    #[must_use]
    pub fn scope(mut self, scope: impl Fn(&Head<'_>) -> Scope + Send + Sync + 'static) -> Self {
        self.scope = Arc::new(scope);
        self
    }

    /// Adds to what is known of a request: a [parameter](Request::param) for whatever else chooses the answer,
    /// a route, tags, and where several principals share a scope, [who asks](Request::principal). Path, query, the origin of a client's call and the headers by which providers tell
    /// organisations and versions apart are part of it in any case.
    #[must_use]
    pub fn identify(
        mut self,
        identify: impl Fn(&Head<'_>, Request) -> Request + Send + Sync + 'static,
    ) -> Self {
        self.identify = Arc::new(identify);
        self
    }

    /// Most bytes of a request's body; a larger one is refused with 413. Default: 32 MiB.
    #[must_use]
    pub fn max_body_bytes(mut self, bytes: u64) -> Self {
        self.max_body_bytes = bytes;
        self
    }

    /// Most bytes of an answer; the call fails at a larger one. Default: 32 MiB.
    #[must_use]
    pub fn max_answer_bytes(mut self, bytes: u64) -> Self {
        self.max_answer_bytes = bytes;
        self
    }

    /// How long a stream is read on when nobody waits for it any more. Default: two minutes.
    #[must_use]
    pub fn finish_abandoned(mut self, patience: Duration) -> Self {
        self.finish_abandoned = patience;
        self
    }

    /// Time between the events of a replayed stream. Default: none.
    #[must_use]
    pub fn pace(mut self, pace: Duration) -> Self {
        self.pace = pace;
        self
    }

    /// Whether streams of chat completions and completions are asked for with the usage at their end
    /// (`stream_options.include_usage`) also for callers who did not ask; those do not get it. Turn it off in front of
    /// a provider that refuses the field: the tokens are then counted here. Default: on.
    #[must_use]
    pub fn stream_usage(mut self, on: bool) -> Self {
        self.stream_usage = on;
        self
    }

    /// What to do with a call in `protocol`.
    pub(super) fn plan(&self, protocol: Protocol, head: &Head<'_>, body: Bytes) -> Plan {
        let Ok(mut value) = serde_json::from_slice::<Value>(&body) else {
            return Plan::Pass(body, "unparsed");
        };
        // Where the path names the deployment, the body need not name a model.
        if let (Some(fields), Some(model)) = (value.as_object_mut(), deployment(head.path)) {
            fields.entry("model").or_insert_with(|| model.into());
        }
        let body = without_cache_field(body, &value);
        let scope = (self.scope)(head);
        let requests = match protocol {
            Protocol::OpenAiEmbeddings => Request::from_openai_embeddings(&value, scope),
            _ => Request::read(protocol, &value, scope).map(|request| vec![request]),
        };
        let requests = match requests {
            Ok(requests) => requests,
            // What is said to the cache is not the upstream's to judge.
            Err(error) if is_about_cache(&error) => return Plan::refuse(&error, protocol),
            Err(_) => return Plan::Pass(body, "unparsed"),
        };
        if let Some(reason) = requests.iter().find_map(Request::bypass) {
            return Plan::Pass(body, reason.as_str());
        }
        let mut wishes = match Wishes::read(head.headers) {
            Ok(wishes) => wishes,
            Err(error) => return Plan::refuse(&error, protocol),
        };
        let requests: Vec<Request> = requests
            .into_iter()
            .map(|request| wishes.join(request))
            .collect();
        if !wishes.may_serve() && !wishes.may_store() {
            return Plan::Pass(body, "opted_out");
        }
        let asked = Asked {
            protocol,
            stream: requests.iter().any(Request::wants_stream),
            wanted: Wanted {
                usage: value.pointer("/stream_options/include_usage") == Some(&Value::Bool(true)),
            },
            pace: self.pace,
        };
        let with_usage = (self.stream_usage && asked.stream && !asked.wanted.usage)
            .then(|| asking_for_usage(protocol, &body))
            .flatten();
        let requests = requests
            .into_iter()
            .map(|request| self.identified(head, request, &wishes));
        Plan::Ask(Box::new(Ask {
            requests: requests.collect(),
            asked,
            wishes,
            body: with_usage.map_or(body, Bytes::from),
        }))
    }

    fn identified(&self, head: &Head<'_>, request: Request, wishes: &Wishes) -> Request {
        let mut request = match &wishes.namespace {
            Some(namespace) => request.namespace(namespace.as_str()),
            None => request,
        };
        let places = [
            ("askonce.origin", head.origin),
            ("askonce.path", Some(head.path)),
            ("askonce.query", head.query),
        ];
        for (name, place) in places {
            if let Some(place) = place {
                request = request.param(name, place);
            }
        }
        for name in IDENTITY_HEADERS {
            if let Some(value) = head.headers.get(name) {
                let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                request = request.param(format!("askonce.header.{name}"), value);
            }
        }
        (self.identify)(head, request)
    }

    /// The answer to a call: from the cache, or by `open`, which makes a call with a body.
    ///
    /// # Errors
    /// What went wrong upstream, where there is no response to tell it.
    pub(super) async fn answer<O, F, B>(&self, ask: Ask, open: O) -> Result<Response<ResponseBody>>
    where
        O: Fn(Bytes) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Response<B>, BoxError>> + Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        if ask.asked.protocol == Protocol::OpenAiEmbeddings {
            return self.vectors(ask, open).await;
        }
        let Ask {
            requests,
            asked,
            wishes,
            body,
        } = ask;
        let Some(request) = requests.into_iter().next() else {
            return Err(Error::new(ErrorKind::InvalidRequest, "nothing is asked"));
        };
        let open = move || open(body);
        if wishes.control.only_if_cached {
            return Ok(self.only_if_cached(&request, &asked).await);
        }
        let notes = Arc::new(Mutex::default());
        let fetch = Fetch {
            protocol: asked.protocol,
            keep: wishes.may_store(),
            tags: wishes.tags,
            most_bytes: self.max_answer_bytes,
            patience: self.finish_abandoned,
            notes: Arc::clone(&notes),
        };
        if !asked.stream {
            let served = self.cache.get_or_call(&request, || fetch.whole(open)).await;
            return match served {
                Ok(served) => Ok(asked.served(&self.cache, &request, &served, &notes)),
                Err(error) => refused(error),
            };
        }
        let call = |sink| fetch.stream(open, sink);
        let mut live = match self.cache.get_or_stream(&request, call).await {
            Streamed::Hit(hit) => return Ok(asked.hit(&self.cache, &request, &hit)),
            Streamed::Live(live) => live,
        };
        // The head of the response tells what is known by then, so it waits for the first frame.
        if live.ready().await {
            return Ok(asked.live(live, &notes));
        }
        match live.result() {
            Some(Ok(served)) => Ok(match &served.source {
                Source::Cache(hit) => asked.hit(&self.cache, &request, hit),
                Source::Upstream { .. } => asked.served(&self.cache, &request, &served, &notes),
            }),
            Some(Err(error)) => refused(error),
            None => Err(Error::new(
                ErrorKind::Upstream,
                "the upstream call ended without a result",
            )),
        }
    }

    /// The answer to a call for embeddings: those that are new come by `open`, all in one call.
    async fn vectors<O, F, B>(&self, ask: Ask, open: O) -> Result<Response<ResponseBody>>
    where
        O: Fn(Bytes) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Response<B>, BoxError>> + Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let Ask {
            requests,
            asked,
            wishes,
            body,
        } = ask;
        if wishes.control.only_if_cached {
            return Ok(match embeddings::kept(&self.cache, &requests).await {
                Ok(served) => put_together(&served, Made::default()),
                Err((miss, missing)) => {
                    let message = format!("{missing} of the inputs are not in the cache");
                    let (status, code) = (StatusCode::GATEWAY_TIMEOUT, "only_if_cached");
                    let mut response =
                        super::give::error(status, code, &message, None, asked.protocol);
                    status::not_forwarded(response.headers_mut(), &miss);
                    response
                }
            });
        }
        let made = Arc::new(Mutex::new(Made::default()));
        let call = {
            let (made, most_bytes) = (Arc::clone(&made), self.max_answer_bytes);
            let (keep, count) = (wishes.may_store(), requests.len());
            let (cache, first) = (self.cache.clone(), requests.first().cloned());
            let options = StoreOptions {
                tags: wishes.tags,
                ..StoreOptions::default()
            };
            move |places: Vec<usize>| {
                let only = (places.len() < count)
                    .then(|| embeddings::only(&body, &places))
                    .flatten();
                let response = open(only.map_or_else(|| body.clone(), Bytes::from));
                let (made, options) = (Arc::clone(&made), options.clone());
                let (cache, first) = (cache.clone(), first.clone());
                async move {
                    let response = response.await.map_err(CallError::Failed)?;
                    let reply = whole(response, most_bytes).await?;
                    let vectors = match reply.status {
                        StatusCode::OK => Vectors::read(&reply.body, places.len()),
                        _ => None,
                    };
                    // Not what was asked for: the caller may know better.
                    let Some(vectors) = vectors else {
                        return Err(CallError::Refused(reply));
                    };
                    let declined = declined(keep, &reply.headers).or_else(|| {
                        let judged = cache
                            .admission()
                            .document_for(first.as_ref()?, vectors.document());
                        let refused = judged.err()?;
                        Some(refused.as_str())
                    });
                    let mut made = made.lock();
                    made.usage.input_tokens += vectors.usage().unwrap_or_default().input_tokens;
                    made.headers = reply.headers;
                    made.declined = declined;
                    Ok(vectors.fills(declined.is_none().then_some(&options)))
                }
            }
        };
        let served = self.cache.get_or_call_many(&requests, call).await;
        match served.into_iter().collect::<Result<Vec<_>>>() {
            Ok(served) => Ok(put_together(&served, std::mem::take(&mut *made.lock()))),
            Err(error) => refused(error),
        }
    }

    async fn only_if_cached(&self, request: &Request, asked: &Asked) -> Response<ResponseBody> {
        match self.cache.lookup(request).await {
            Outcome::Hit(hit) => asked.hit(&self.cache, request, &hit),
            Outcome::Miss(miss) => {
                let message = format!("there is no answer in the cache: {}", miss.reason());
                let status = StatusCode::GATEWAY_TIMEOUT;
                let mut response =
                    super::give::error(status, "only_if_cached", &message, None, asked.protocol);
                status::not_forwarded(response.headers_mut(), &miss);
                response
            }
        }
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway")
            .field("max_body_bytes", &self.max_body_bytes)
            .field("max_answer_bytes", &self.max_answer_bytes)
            .field("finish_abandoned", &self.finish_abandoned)
            .field("pace", &self.pace)
            .field("stream_usage", &self.stream_usage)
            .finish_non_exhaustive()
    }
}

/// The protocol of a call that the cache may answer.
pub(super) fn protocol_of(method: &Method, path: &str) -> Option<Protocol> {
    match *method {
        Method::POST => Protocol::of_path(path),
        _ => None,
    }
}

/// What the calls for vectors that were made for a caller came to, beside the vectors.
#[derive(Default)]
struct Made {
    headers: HeaderMap,
    usage: Usage,
    /// Why nothing of it is kept.
    declined: Option<&'static str>,
}

fn put_together(served: &[Served], made: Made) -> Response<ResponseBody> {
    let document = embeddings::document(served, made.usage);
    let mut response = json_response(document.to_string().into());
    let mut headers = made.headers;
    headers.remove(header::CONTENT_TYPE);
    response.headers_mut().extend(headers);
    embeddings::report(response.headers_mut(), served, made.declined);
    response
}

/// What to do with a call.
pub(super) enum Plan {
    /// Pass its body on without the cache, for a reason that has a name.
    Pass(Bytes, &'static str),
    /// Refuse it.
    Refuse(Box<Response<ResponseBody>>),
    /// Answer it.
    Ask(Box<Ask>),
}

impl Plan {
    fn refuse(error: &Error, protocol: Protocol) -> Self {
        let field = error.context().iter().find(|(name, _)| *name == "field");
        let field = field.map(|(_, field)| field.as_str());
        let message = error.to_string();
        Self::Refuse(Box::new(super::give::error(
            StatusCode::BAD_REQUEST,
            "invalid_request",
            &message,
            field,
            protocol,
        )))
    }
}

/// A call that the cache may answer.
#[derive(Clone)]
pub(super) struct Ask {
    /// What is asked: one request, or one for each input whose embedding is wanted.
    pub(super) requests: Vec<Request>,
    pub(super) asked: Asked,
    pub(super) wishes: Wishes,
    /// The body to send upstream.
    pub(super) body: Bytes,
}

/// The request headers of a call whose answer may be given to others: without those for this cache, and
/// without what would make the answer fit its first caller only.
pub(super) fn upstream_headers(headers: &mut HeaderMap) {
    let dropped: Vec<_> = headers
        .keys()
        .filter(|name| super::control::is_ours(name) || CALLERS_OWN.contains(name))
        .cloned()
        .collect();
    for name in dropped {
        headers.remove(name);
    }
}

const CALLERS_OWN: [header::HeaderName; 8] = [
    header::ACCEPT_ENCODING,
    // The body may have changed.
    header::CONTENT_LENGTH,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::RANGE,
];

fn scope_of_key(headers: &HeaderMap) -> Scope {
    let key = KEY_HEADERS.iter().find_map(|name| headers.get(name));
    key.map_or_else(Scope::local, Scope::api_key)
}

/// The deployment that a path in the style of Azure names.
fn deployment(path: &str) -> Option<&str> {
    let (_, rest) = path.split_once("/deployments/")?;
    rest.split('/').next().filter(|name| !name.is_empty())
}

/// The body without the field that speaks to the cache.
fn without_cache_field(body: Bytes, value: &Value) -> Bytes {
    if value.get("cache").is_none() {
        return body;
    }
    match Document::read(&body) {
        Some(mut document) => {
            document.remove("cache");
            document.to_text().into()
        }
        None => body,
    }
}

fn is_about_cache(error: &Error) -> bool {
    let mut fields = error.context().iter().filter(|(name, _)| *name == "field");
    fields.any(|(_, field)| field == "cache" || field.starts_with("cache."))
}
