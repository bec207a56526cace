//! The APIs behind the proxy: where a request goes, which headers travel, and how a call can fail.
//!
//! Three ways to call. [`Upstream::call`] reads the whole response and [`Upstream::open`] leaves it to be read
//! chunk by chunk, for answers that may be cached; their failures can be shared between all callers that waited.
//! [`Upstream::relay`] passes bytes through both ways as they come.
//!
//! Always true: a path stays below the upstream's base URL; hop-by-hop headers and headers for the cache
//! do not travel; keys that callers send to this server are not shown to an upstream, and no key is in
//! an error or a log.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use askonce::replay::Document;
use askonce::{Error, ErrorKind, Result};
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use reqwest::{Client, Url};
use tower_http::timeout::TimeoutBody;

use crate::config::{Protocol, ServerConfig, UpstreamConfig};
use crate::http::{KEY_HEADERS, is_ours, secret};

/// The first segments of paths that are passed on, which the base URL brings itself: that of most APIs, and that
/// of Azure's, whose base URLs end in it.
const PREFIXES: [&str; 2] = ["/v1", "/openai"];

/// Counts upstreams that were passed over for the next one.
pub(crate) const FAILOVERS: &str = "askonce_upstream_failovers_total";

/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Headers of one connection, which do not travel (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Request headers that would make a response unfit to be given to others.
const CONDITIONAL: [&str; 7] = [
    "accept-encoding",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "range",
];

/// All upstreams, the default one first.
#[derive(Debug)]
pub(crate) struct Upstreams(Vec<Arc<Upstream>>);

/// One API.
#[derive(Clone)]
pub(crate) struct Upstream {
    name: String,
    base: Url,
    speaks: Protocol,
    timeout: Duration,
    /// The header that carries the key to send in place of the caller's, and its value.
    key: Option<(HeaderName, HeaderValue)>,
    drop_caller_keys: bool,
    models: Vec<String>,
    rename: BTreeMap<String, String>,
    failover: Vec<String>,
    tells_usage: bool,
    most_bytes: u64,
    client: Client,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A whole response.
#[derive(Clone)]
pub(crate) struct Reply {
    /// Its status.
    pub(crate) status: StatusCode,
    /// Its end-to-end headers.
    pub(crate) headers: HeaderMap,
    /// Its body.
    pub(crate) body: Bytes,
}

impl Reply {
    /// The response for a caller.
    pub(crate) fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply({}, {} bytes)", self.status, self.body.len())
    }
}

/// Why a call gave no answer to keep or to share.
#[derive(Clone, Debug)]
pub(crate) enum CallError {
    /// The upstream answered with something else, which its callers are to see as it is.
    Refused(Box<Reply>),
    /// No connection, or it broke.
    Unreachable {
        /// The upstream's name.
        upstream: String,
        /// What happened.
        problem: String,
    },
    /// No whole answer in time.
    TimedOut {
        /// The upstream's name.
        upstream: String,
        /// The time it had.
        after: Duration,
    },
    /// The answer is larger than what is read whole.
    TooLarge {
        /// The upstream's name.
        upstream: String,
        /// The bound.
        limit: u64,
    },
    /// A stream broke off.
    CutOff {
        /// The upstream's name.
        upstream: String,
        /// How.
        problem: &'static str,
    },
    /// A stream ended with an error, which those who read it have seen.
    FailedInStream {
        /// The upstream's name.
        upstream: String,
    },
    /// There is no upstream to ask.
    Nowhere,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(reply) => write!(f, "the upstream answered with status {}", reply.status),
            Self::Unreachable { upstream, problem } => {
                write!(f, "the upstream {upstream} cannot be reached: {problem}")
            }
            Self::TimedOut { upstream, after } => {
                let after = humantime::format_duration(*after);
                write!(f, "the upstream {upstream} did not answer within {after}")
            }
            Self::TooLarge { upstream, limit } => {
                write!(
                    f,
                    "the upstream {upstream} answered with more than {limit} bytes"
                )
            }
            Self::CutOff { upstream, problem } => {
                write!(
                    f,
                    "the stream of the upstream {upstream} broke off: {problem}"
                )
            }
            Self::FailedInStream { upstream } => {
                write!(
                    f,
                    "the stream of the upstream {upstream} ended with an error"
                )
            }
            Self::Nowhere => f.write_str("there is no upstream to ask"),
        }
    }
}

impl StdError for CallError {}

impl CallError {
    /// The upstream at fault, where it is one that did not answer.
    pub(crate) fn upstream(&self) -> Option<&str> {
        match self {
            Self::Refused(_) | Self::Nowhere => None,
            Self::Unreachable { upstream, .. }
            | Self::TimedOut { upstream, .. }
            | Self::TooLarge { upstream, .. }
            | Self::CutOff { upstream, .. }
            | Self::FailedInStream { upstream } => Some(upstream),
        }
    }

    /// The stable name of the kind of failure.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Unreachable { .. } => "unreachable",
            Self::TimedOut { .. } => "timeout",
            Self::TooLarge { .. } => "too_large",
            Self::CutOff { .. } => "cut_off",
            Self::FailedInStream { .. } => "failed_in_stream",
            Self::Nowhere => "nowhere",
        }
    }

    /// Whether another upstream may do better.
    pub(crate) fn is_upstreams(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::TimedOut { .. })
    }

    /// The call error behind an error of the engine.
    pub(crate) fn behind(error: &Error) -> Option<&Self> {
        let mut cause = StdError::source(error);
        while let Some(error) = cause {
            if let Some(call) = error.downcast_ref() {
                return Some(call);
            }
            cause = error.source();
        }
        None
    }
}

impl Upstreams {
    /// # Errors
    /// Names the variable of a key that is not set, or what is wrong with an address.
    pub(crate) fn new(config: &ServerConfig, drop_caller_keys: bool) -> Result<Self> {
        // The caller decides about redirects and encodings: nothing is followed or decoded here.
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .build()
            .map_err(|error| {
                Error::new(ErrorKind::Config, "no HTTP client can be made").caused_by(error)
            })?;
        let upstreams = config.upstreams.iter().enumerate().map(|(i, upstream)| {
            let path = format!("upstreams[{i}]");
            let key = upstream.api_key_env.as_ref();
            let key = key
                .map(|variable| {
                    let field = format!("{path}.api_key_env");
                    key_header(upstream, variable, &field)
                })
                .transpose()?;
            Ok(Arc::new(Upstream {
                name: upstream.name.clone(),
                base: upstream.url(&path)?,
                speaks: upstream.protocol,
                timeout: upstream.timeout,
                key,
                drop_caller_keys,
                models: upstream.models.clone(),
                rename: upstream.rename.clone(),
                failover: upstream.failover.clone(),
                tells_usage: upstream.stream_usage,
                most_bytes: config.max_body_bytes.as_u64(),
                client: client.clone(),
            }))
        });
        Ok(Self(upstreams.collect::<Result<_>>()?))
    }

    /// The upstream with this name.
    pub(crate) fn find(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.0.iter().find(|upstream| upstream.name == name)
    }

    /// The default one.
    pub(crate) fn first(&self) -> Option<&Arc<Upstream>> {
        self.0.first()
    }

    /// The first that speaks the protocol and lists the model; else the first that speaks it and lists none;
    /// else the default one.
    pub(crate) fn choose(&self, speaks: Protocol, model: Option<&str>) -> Option<&Arc<Upstream>> {
        let all = || self.0.iter().filter(|upstream| upstream.speaks == speaks);
        let lists = |upstream: &&Arc<Upstream>| {
            model.is_some_and(|model| upstream.models.iter().any(|name| matches(name, model)))
        };
        all()
            .find(lists)
            .or_else(|| all().find(|upstream| upstream.models.is_empty()))
            .or_else(|| all().next())
            .or_else(|| self.first())
    }

    /// Those that stand in for `upstream`, in order.
    pub(crate) fn failover(&self, upstream: &Upstream) -> impl Iterator<Item = &Arc<Upstream>> {
        let named = self.0.iter().find(|known| known.name == upstream.name);
        let names = named
            .map(|known| known.failover.as_slice())
            .unwrap_or_default();
        names.iter().filter_map(|name| self.find(name))
    }

    /// Whether `upstream` is the default one.
    pub(crate) fn is_default(&self, upstream: &Upstream) -> bool {
        self.0
            .first()
            .is_some_and(|first| first.name == upstream.name)
    }
}

/// The header that carries a key, as the upstream's protocol has it, and its value.
fn key_header(
    upstream: &UpstreamConfig,
    variable: &str,
    field: &str,
) -> Result<(HeaderName, HeaderValue)> {
    let key = secret(variable, field)?;
    let name = upstream.key_header_name();
    let value = match name {
        header::AUTHORIZATION => HeaderValue::try_from(format!("Bearer {}", key.trim())),
        _ => HeaderValue::try_from(key.trim()),
    };
    let mut value = value.map_err(|_| {
        Error::new(
            ErrorKind::Config,
            "a key holds characters that no header can carry",
        )
        .with("field", field)
        .with("variable", variable)
    })?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// What stands behind the first segment of a path that can be passed on; `None` of one that cannot.
pub(crate) fn below_api(path: &str) -> Option<&str> {
    let rest = PREFIXES
        .iter()
        .filter_map(|prefix| path.strip_prefix(prefix))
        .find(|rest| rest.starts_with('/'))?;
    let leaves = |segment: &str| {
        let plain = segment.to_ascii_lowercase().replace("%2e", ".");
        plain == "." || plain == ".."
    };
    // A URL parser reads a backslash as a slash.
    let stays = !rest.contains('\\') && !rest.split('/').any(leaves);
    stays.then_some(rest)
}

/// Whether `pattern`, in which `*` stands for any text, names `model`.
fn matches(pattern: &str, model: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == model;
    };
    let Some(model) = model.strip_prefix(head) else {
        return false;
    };
    if !rest.contains('*') {
        return model.ends_with(rest);
    }
    let mut starts = model.char_indices().map(|(at, _)| at).chain([model.len()]);
    starts.any(|at| matches(rest, &model[at..]))
}

impl Upstream {
    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What it speaks.
    pub(crate) fn speaks(&self) -> Protocol {
        self.speaks
    }

    /// The host of its API.
    pub(crate) fn host(&self) -> &str {
        self.base.host_str().unwrap_or_default()
    }

    /// The most bytes of an answer that are read.
    pub(crate) fn most_bytes(&self) -> u64 {
        self.most_bytes
    }

    /// Whether it can be asked to tell the usage at the end of a stream.
    pub(crate) fn tells_usage(&self) -> bool {
        self.tells_usage
    }

    /// The body with the model under the name that it has here.
    pub(crate) fn renamed(&self, body: Bytes) -> Bytes {
        if self.rename.is_empty() {
            return body;
        }
        let Some(mut document) = Document::read(&body) else {
            return body;
        };
        let model = document.get("model");
        let model = model.and_then(|model| serde_json::from_str::<String>(model).ok());
        match model.and_then(|model| self.rename.get(&model)) {
            Some(name) => {
                document.set("model", &name.as_str().into());
                document.to_text().into()
            }
            None => body,
        }
    }

    /// Posts `body` and reads the whole response.
    ///
    /// # Errors
    /// When there is none. A response of any status is not an error here.
    pub(crate) async fn call(
        &self,
        url: Url,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Reply, CallError> {
        let call = async {
            let request = self.client.post(url).headers(headers).body(body);
            let response = request.send().await.map_err(|error| self.failed(error))?;
            self.read(response).await
        };
        self.in_time(call).await
    }

    /// Posts `body` and waits for the head of the response.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) async fn open(
        &self,
        url: Url,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<reqwest::Response, CallError> {
        let request = self.client.post(url).headers(headers).body(body);
        let sent = async { request.send().await.map_err(|error| self.failed(error)) };
        self.in_time(sent).await
    }

    /// Takes the end-to-end headers of a response.
    pub(crate) fn head(&self, response: &mut reqwest::Response) -> HeaderMap {
        let mut headers = std::mem::take(response.headers_mut());
        strip_hop_by_hop(&mut headers);
        headers.remove(header::CONTENT_LENGTH);
        headers
    }

    /// The next bytes of a response; `None` at its end.
    ///
    /// # Errors
    /// When the connection breaks, or nothing comes in time.
    pub(crate) async fn chunk(
        &self,
        response: &mut reqwest::Response,
    ) -> Result<Option<Bytes>, CallError> {
        let next = async { response.chunk().await.map_err(|error| self.failed(error)) };
        self.in_time(next).await
    }

    /// Reads the whole response.
    ///
    /// # Errors
    /// When it is too large, breaks off, or does not come in time.
    pub(crate) async fn whole(&self, response: reqwest::Response) -> Result<Reply, CallError> {
        self.in_time(self.read(response)).await
    }

    async fn read(&self, mut response: reqwest::Response) -> Result<Reply, CallError> {
        let mut whole = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.failed(error))? {
            if whole.len() as u64 + chunk.len() as u64 > self.most_bytes {
                return Err(self.too_large());
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(Reply {
            status: response.status(),
            headers: self.head(&mut response),
            body: whole.freeze(),
        })
    }

    /// The answer is larger than what is read.
    pub(crate) fn too_large(&self) -> CallError {
        CallError::TooLarge {
            upstream: self.name.clone(),
            limit: self.most_bytes,
        }
    }

    /// A stream broke off.
    pub(crate) fn cut(&self, problem: &'static str) -> CallError {
        CallError::CutOff {
            upstream: self.name.clone(),
            problem,
        }
    }

    /// A stream ended with an error.
    pub(crate) fn failed_in_stream(&self) -> CallError {
        CallError::FailedInStream {
            upstream: self.name.clone(),
        }
    }

    /// Passes a request and its response through as they are.
    ///
    /// # Errors
    /// When the upstream sends no head of a response.
    pub(crate) async fn relay(
        &self,
        method: Method,
        url: Url,
        headers: HeaderMap,
        body: Outgoing,
    ) -> Result<Response, CallError> {
        let request = self.client.request(method, url).headers(headers);
        let sent = |request: reqwest::RequestBuilder| async {
            request.send().await.map_err(|error| self.failed(error))
        };
        let response = match body {
            Outgoing::Nothing => self.in_time(sent(request)).await?,
            Outgoing::Whole(bytes) => self.in_time(sent(request.body(bytes))).await?,
            // An upload takes the time it takes.
            Outgoing::Stream(body) => {
                sent(request.body(reqwest::Body::wrap_stream(body.into_data_stream()))).await?
            }
        };
        let (mut parts, body) = axum::http::Response::<reqwest::Body>::from(response).into_parts();
        strip_hop_by_hop(&mut parts.headers);
        parts.version = axum::http::Version::default();
        parts.extensions.clear();
        Ok(Response::from_parts(
            parts,
            Body::new(TimeoutBody::new(self.timeout, body)),
        ))
    }

    /// Where `path`, as the caller wrote it, lives at this upstream; `None` when it is not below one of
    /// [`PREFIXES`] or would leave the base URL.
    pub(crate) fn target(&self, path: &str, query: Option<&str>) -> Option<Url> {
        let rest = below_api(path)?;
        let base = self.base.as_str().trim_end_matches('/');
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        let url = Url::parse(&format!("{base}{rest}{query}")).ok()?;
        (url.host_str() == self.base.host_str() && url.path().starts_with(self.base.path()))
            .then_some(url)
    }

    /// The caller's headers as they travel. `shared` when the answer may be given to other callers.
    pub(crate) fn headers(&self, from: &HeaderMap, shared: bool) -> HeaderMap {
        let mut headers = from.clone();
        strip_hop_by_hop(&mut headers);
        headers.remove(header::HOST);
        headers.remove(header::EXPECT);
        let ours: Vec<HeaderName> = headers
            .keys()
            .filter(|name| is_ours(name))
            .cloned()
            .collect();
        for name in &ours {
            headers.remove(name);
        }
        if shared {
            for name in CONDITIONAL {
                headers.remove(name);
            }
        }
        if self.drop_caller_keys || self.key.is_some() {
            for name in KEY_HEADERS {
                headers.remove(name);
            }
        }
        if let Some((name, key)) = &self.key {
            headers.insert(name, key.clone());
        }
        for name in KEY_HEADERS {
            if let Some(value) = headers.get_mut(name) {
                value.set_sensitive(true);
            }
        }
        headers
    }

    async fn in_time<T>(
        &self,
        call: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        tokio::time::timeout(self.timeout, call)
            .await
            .unwrap_or_else(|_| {
                Err(CallError::TimedOut {
                    upstream: self.name.clone(),
                    after: self.timeout,
                })
            })
    }

    fn failed(&self, error: reqwest::Error) -> CallError {
        let upstream = self.name.clone();
        let error = error.without_url();
        // The innermost cause says it best: "connection refused", not "error sending request".
        let mut cause: &dyn StdError = &error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        CallError::Unreachable {
            upstream,
            problem: cause.to_string(),
        }
    }
}

/// The body of a request that is passed through.
pub(crate) enum Outgoing {
    /// There is none.
    Nothing,
    /// It was read already.
    Whole(Bytes),
    /// It comes as it comes.
    Stream(Body),
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::UpstreamConfig;

    fn upstreams(base_url: &str, drop_caller_keys: bool) -> Upstreams {
        let upstream = UpstreamConfig {
            base_url: base_url.to_owned(),
            ..UpstreamConfig::default()
        };
        let config = ServerConfig {
            upstreams: vec![upstream],
            ..ServerConfig::default()
        };
        Upstreams::new(&config, drop_caller_keys).unwrap()
    }

    #[test]
    fn a_path_is_put_behind_the_base_and_never_leaves_it() {
        for base in ["http://host/api/v1", "http://host/api/v1/"] {
            let upstreams = upstreams(base, false);
            let target = |path: &str, query: Option<&str>| {
                upstreams
                    .first()
                    .unwrap()
                    .target(path, query)
                    .map(String::from)
            };
            let models = target("/v1/models/a%2Fb", Some("x=1&y"));
            assert_eq!(
                models.as_deref(),
                Some("http://host/api/v1/models/a%2Fb?x=1&y")
            );
            for path in [
                "/v1",
                "/v2/models",
                "/v1/../../admin",
                "/v1/%2E%2e/x",
                "/v1/a\\..\\b",
                "/v1/./x",
            ] {
                assert_eq!(target(path, None), None, "{path}");
            }
        }
    }

    #[test]
    fn only_end_to_end_headers_travel_and_keys_for_us_stay_here() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer sk-caller"),
            ("x-api-key", "sk-caller"),
            ("connection", "x-hop, keep-alive"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("host", "askonce"),
            ("x-askonce-ttl", "5"),
            ("openai-organization", "org"),
            ("accept-encoding", "gzip"),
        ] {
            headers.insert(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        let passing = upstreams("http://host/v1", false);
        let sent = passing.first().unwrap().headers(&headers, false);
        let mut names: Vec<_> = sent.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "accept-encoding",
                "authorization",
                "openai-organization",
                "x-api-key"
            ]
        );
        assert!(!format!("{sent:?}").contains("sk-caller"));
        let owning = upstreams("http://host/v1", true);
        let sent = owning.first().unwrap().headers(&headers, true);
        assert_eq!(
            sent.keys().map(HeaderName::as_str).collect::<Vec<_>>(),
            ["openai-organization"]
        );
    }
}
