//! Step 1: from a prompt to the keys that say what may share an answer.
//!
//! A [`Request`] is read once, from a plain prompt or from a provider's JSON, into three things:
//! - the **exact key** ([`ExactKey`]): everything that can change the answer, text as it was sent;
//! - the **partition** ([`PartitionKey`]): the same without the text of the last user turn;
//! - the **fuzzy text**: the text of the last user turn in the form that is embedded.
//!
//! What always holds:
//! - requests with equal exact keys ask for the same answer; requests of different scope,
//!   namespace, protocol or model never share a key of either kind;
//! - the partition does not depend on the last user text, and does depend on all else that the
//!   exact key depends on;
//! - an unknown field counts: what we do not understand may change the answer;
//! - `Debug` and errors show sizes, names and key prefixes, never a prompt.
//!
//! Which request may be stored or served, and for how long, is for the stages that follow. This
//! one only tells what they need: [`Request::eligibility`], [`Request::bypass`],
//! [`Request::volatility`] and [`Request::control`].

mod canonical;
mod control;
mod eligibility;
mod identity;
mod key;
mod normalize;
mod read;
mod scope;
mod volatile;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use control::CacheControl;
pub use eligibility::{BypassReason, Eligibility, IneligibleReason};
pub(crate) use key::hex;
pub use key::{Digests, ExactKey, PartitionKey, Section};
pub use normalize::FUZZY_TEXT_LIMIT;
pub use read::MAX_DEPTH;
pub use scope::Scope;
pub use volatile::VolatileReason;

use canonical::{Digest, Encoder};
use normalize::Normalized;

/// The version of the encoding behind every key. Keys of different versions never match, so a
/// change here empties every cache: it is raised only when keys would be wrong otherwise, and the
/// hash domains in `identity.rs` with it.
pub const ENCODING_VERSION: u8 = 1;

/// The protocol family a request was written in. Answers are not shared between families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Protocol {
    /// A plain prompt.
    Prompt,
    /// OpenAI chat completions, and every server that speaks them.
    #[serde(rename = "openai_chat")]
    OpenAiChat,
    /// OpenAI responses.
    #[serde(rename = "openai_responses")]
    OpenAiResponses,
    /// OpenAI completions, the form without messages.
    #[serde(rename = "openai_completions")]
    OpenAiCompletions,
    /// OpenAI embeddings: one request for each input.
    #[serde(rename = "openai_embeddings")]
    OpenAiEmbeddings,
    /// Anthropic messages.
    AnthropicMessages,
}

impl Protocol {
    /// The stable, snake-case name used in metrics and JSON, and hashed into every key.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::OpenAiChat => "openai_chat",
            Self::OpenAiResponses => "openai_responses",
            Self::OpenAiCompletions => "openai_completions",
            Self::OpenAiEmbeddings => "openai_embeddings",
            Self::AnthropicMessages => "anthropic_messages",
        }
    }

    /// The protocol of a body posted to `path`, told from how the path ends. Whatever comes before is
    /// the provider's: `/v1`, `/openai/deployments/NAME`, nothing.
    ///
    /// Paths below these ends (a stored response, a batch, a token count) speak something else, and so
    /// do the messages of a thread.
    ///
    /// ```
    /// use askonce::Protocol;
    ///
    /// let azure = "/openai/deployments/gpt-4o/chat/completions";
    /// assert_eq!(Protocol::of_path(azure), Some(Protocol::OpenAiChat));
    /// assert_eq!(Protocol::of_path("/v1/messages"), Some(Protocol::AnthropicMessages));
    /// assert_eq!(Protocol::of_path("/v1/messages/count_tokens"), None);
    /// ```
    #[must_use]
    pub fn of_path(path: &str) -> Option<Self> {
        let mut segments = path.rsplit('/');
        match segments.next()? {
            "completions" if segments.next() == Some("chat") => Some(Self::OpenAiChat),
            "completions" => Some(Self::OpenAiCompletions),
            "responses" => Some(Self::OpenAiResponses),
            "embeddings" => Some(Self::OpenAiEmbeddings),
            "messages" => segments
                .all(|segment| !matches!(segment, "threads" | "completions"))
                .then_some(Self::AnthropicMessages),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One question to a model, with everything that may change its answer.
///
/// Cloning is cheap. The methods that take `self` set; everything else reads. Keys are computed at
/// first use and kept.
///
/// ```
/// use askonce::{Request, Scope};
/// use serde_json::json;
///
/// let request = Request::prompt("How do I reset my password?")
///     .model("gpt-4o")
///     .system("You are a support agent.")
///     .param("temperature", 0.2)
///     .scope(Scope::tenant("acme"));
///
/// let body = json!({
///     "model": "gpt-4o",
///     "messages": [{ "role": "user", "content": "How do I  reset\nmy password?" }],
/// });
/// let chat = Request::from_openai_chat(&body, Scope::tenant("acme"))?;
/// assert_eq!(chat.fuzzy_text(), request.fuzzy_text());
/// assert_ne!(chat.partition(), request.partition());
/// # Ok::<(), askonce::Error>(())
/// ```
#[derive(Clone)]
pub struct Request(Arc<Inner>);

struct Inner {
    parts: Parts,
    digests: OnceLock<Digests>,
}

/// What the setters change. The content is shared between all clones and never changes.
#[derive(Clone)]
struct Parts {
    scope: Scope,
    namespace: Option<Arc<str>>,
    model: Option<Arc<str>>,
    system: Option<Arc<str>>,
    /// Parameters given beside the content, by name; values are only ever compared.
    params: BTreeMap<Arc<str>, Digest>,
    control: CacheControl,
    labels: Labels,
    content: Arc<Content>,
}

/// What tells the kind of a request. None of it is in a key.
#[derive(Clone, Default)]
struct Labels {
    route: Option<Arc<str>>,
    tags: Vec<Arc<str>>,
    category: Option<Arc<str>>,
    principal: Option<Arc<str>>,
    safe_tools: Vec<Arc<str>>,
}

/// What a protocol's reader finds in a request: section digests, texts, and the last turn.
struct Content {
    protocol: Protocol,
    conversation: Digest,
    tools: Digest,
    parameters: Digest,
    prompt: Digest,
    texts: Texts,
    /// Why the shape of the request rules out similarity, if it does.
    bar: Option<IneligibleReason>,
    /// Why no stored answer can stand for the call, if so.
    bypass: Option<BypassReason>,
    stream: bool,
    reading: OnceLock<Reading>,
}

/// What is read from the last user text when somebody first asks.
struct Reading {
    fuzzy: Option<Box<str>>,
    eligibility: Eligibility,
    volatility: Option<VolatileReason>,
}

/// Texts in order, in one buffer, each set off by a line feed.
#[derive(Default)]
struct Texts {
    buffer: String,
    ranges: Vec<Range<usize>>,
    last_user: Range<usize>,
}

impl Texts {
    fn push(&mut self, text: &str) {
        if !self.ranges.is_empty() {
            self.buffer.push('\n');
        }
        let start = self.buffer.len();
        self.buffer.push_str(text);
        self.ranges.push(start..self.buffer.len());
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        self.ranges.iter().map(|range| self.slice(range))
    }

    fn last_user(&self) -> &str {
        self.slice(&self.last_user)
    }

    fn slice(&self, range: &Range<usize>) -> &str {
        self.buffer.get(range.clone()).unwrap_or_default()
    }
}

impl Content {
    fn reading(&self) -> &Reading {
        self.reading.get_or_init(|| {
            let text = self.texts.last_user();
            let normalized = normalize::normalize(text, FUZZY_TEXT_LIMIT);
            let volatility = match &normalized {
                // What a text is about may change; its vector does not.
                _ if self.bar == Some(IneligibleReason::Embedding) => None,
                Normalized::Text(text) => volatile::classify(text),
                Normalized::Blank => None,
                Normalized::TooLong => volatile::classify_ends(text),
            };
            let (fuzzy, reason) = match (self.bar, normalized) {
                (Some(reason), _) => (None, Some(reason)),
                (None, Normalized::Text(text)) => (Some(text.into()), None),
                (None, Normalized::Blank) => (None, Some(IneligibleReason::EmptyUserText)),
                (None, Normalized::TooLong) => (None, Some(IneligibleReason::TextTooLong)),
            };
            Reading {
                fuzzy,
                eligibility: reason.map_or(Eligibility::Eligible, Eligibility::ExactOnly),
                volatility,
            }
        })
    }
}

/// Setters.
impl Request {
    fn new(content: Content, scope: Scope) -> Self {
        Self::from_parts(Parts {
            scope,
            namespace: None,
            model: None,
            system: None,
            params: BTreeMap::new(),
            control: CacheControl::default(),
            labels: Labels::default(),
            content: Arc::new(content),
        })
    }

    fn from_parts(parts: Parts) -> Self {
        Self(Arc::new(Inner {
            parts,
            digests: OnceLock::new(),
        }))
    }

    fn edit(self, change: impl FnOnce(&mut Parts)) -> Self {
        let mut parts = match Arc::try_unwrap(self.0) {
            Ok(inner) => inner.parts,
            Err(shared) => shared.parts.clone(),
        };
        change(&mut parts);
        Self::from_parts(parts)
    }

    /// Who may share the answer. Default: [`Scope::local`] for a prompt.
    #[must_use]
    pub fn scope(self, scope: Scope) -> Self {
        self.edit(|parts| parts.scope = scope)
    }

    /// Sets requests apart inside their scope. It can only narrow what is shared, so a client may
    /// choose it. Default: none.
    #[must_use]
    pub fn namespace(self, namespace: impl Into<Arc<str>>) -> Self {
        let namespace = namespace.into();
        self.edit(|parts| parts.namespace = Some(namespace))
    }

    /// The model that is to answer; takes the place of the one named in a chat body.
    #[must_use]
    pub fn model(self, model: impl Into<Arc<str>>) -> Self {
        let model = model.into();
        self.edit(|parts| parts.model = Some(model))
    }

    /// Instructions beside the prompt or the messages.
    ///
    /// A chat body's own system messages are part of its conversation; a gateway that adds
    /// instructions of its own names them here.
    #[must_use]
    pub fn system(self, text: impl Into<Arc<str>>) -> Self {
        let text = text.into();
        self.edit(|parts| parts.system = Some(text))
    }

    /// A parameter that may change the answer: sampling settings, a document's version, a route.
    ///
    /// Every name counts here, also those that are left out of a chat body. `null` unsets it.
    ///
    /// ```
    /// use askonce::Request;
    ///
    /// let request = Request::prompt("Tell me a joke");
    /// let hot = request.clone().param("temperature", 1.0);
    /// assert_ne!(request.partition(), hot.partition());
    /// assert_eq!(hot.exact_key(), request.param("temperature", 1).exact_key());
    /// ```
    #[must_use]
    pub fn param(self, name: impl Into<Arc<str>>, value: impl Into<Value>) -> Self {
        let (name, value) = (name.into(), value.into());
        self.edit(|parts| {
            if value.is_null() {
                parts.params.remove(&name);
            } else {
                let mut encoder = identity::parameter();
                encoder.value(&value);
                parts.params.insert(name, encoder.finish());
            }
        })
    }

    /// What the caller asks of the cache for this one request. It is in no key.
    #[must_use]
    pub fn cache_control(self, control: CacheControl) -> Self {
        self.edit(|parts| parts.control = control)
    }

    /// Where the request came in, for rules that tell kinds of traffic apart. It is in no key.
    #[must_use]
    pub fn route(self, route: impl Into<Arc<str>>) -> Self {
        let route = route.into();
        self.edit(|parts| parts.labels.route = Some(route))
    }

    /// One more label, for rules that tell kinds of traffic apart. It is in no key; labels to invalidate by
    /// are given with the answer.
    #[must_use]
    pub fn tag(self, tag: impl Into<Arc<str>>) -> Self {
        let tag = tag.into();
        self.edit(|parts| parts.labels.tags.push(tag))
    }

    /// The kind of traffic, whatever the rules say. It is in no key.
    #[must_use]
    pub fn category(self, name: impl Into<Arc<str>>) -> Self {
        let name = name.into();
        self.edit(|parts| parts.labels.category = Some(name))
    }

    /// Who asks, among those who share the scope: a user or a key, by a name that tells it from others and
    /// comes from the caller's authentication. It is in no key; what is stored keeps a digest of it.
    #[must_use]
    pub fn principal(self, name: impl Into<Arc<str>>) -> Self {
        let name = name.into();
        self.edit(|parts| parts.labels.principal = Some(name))
    }

    /// One more tool whose calls may be answered from the cache, beside those that the settings name; `*`
    /// stands for any text. It is in no key.
    #[must_use]
    pub fn safe_tool(self, name: impl Into<Arc<str>>) -> Self {
        let name = name.into();
        self.edit(|parts| parts.labels.safe_tools.push(name))
    }
}

/// Getters.
impl Request {
    /// Who may share the answer.
    #[must_use]
    pub fn scope_ref(&self) -> &Scope {
        &self.0.parts.scope
    }

    /// The namespace inside the scope.
    #[must_use]
    pub fn namespace_name(&self) -> Option<&str> {
        self.0.parts.namespace.as_deref()
    }

    /// The protocol family the request was written in.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.0.parts.content.protocol
    }

    /// The model that is to answer, as the caller named it.
    #[must_use]
    pub fn model_name(&self) -> Option<&str> {
        self.0.parts.model.as_deref()
    }

    /// What the caller asks of the cache.
    #[must_use]
    pub fn control(&self) -> &CacheControl {
        &self.0.parts.control
    }

    /// Where the request came in, if that was said.
    #[must_use]
    pub fn route_name(&self) -> Option<&str> {
        self.0.parts.labels.route.as_deref()
    }

    /// The labels that tell kinds of traffic apart.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.0.parts.labels.tags.iter().map(|tag| &**tag)
    }

    /// The kind of traffic, where the caller has said it.
    #[must_use]
    pub fn category_name(&self) -> Option<&str> {
        self.0.parts.labels.category.as_deref()
    }

    /// Who asks, among those who share the scope, where the caller has said it.
    #[must_use]
    pub fn principal_name(&self) -> Option<&str> {
        self.0.parts.labels.principal.as_deref()
    }

    /// The tools that this request marks safe.
    pub fn safe_tools(&self) -> impl Iterator<Item = &str> {
        self.0.parts.labels.safe_tools.iter().map(|tool| &**tool)
    }

    /// Whether the caller wants the answer as a stream. It is in no key: one stored answer serves
    /// both ways.
    #[must_use]
    pub fn wants_stream(&self) -> bool {
        self.0.parts.content.stream
    }

    /// The key under which exactly this request is stored.
    #[must_use]
    pub fn exact_key(&self) -> ExactKey {
        self.identity().exact()
    }

    /// The set of requests that this one may be compared with.
    #[must_use]
    pub fn partition(&self) -> PartitionKey {
        self.identity().partition()
    }

    /// The identity that a stored entry keeps, for comparison with later requests.
    #[must_use]
    pub fn digests(&self) -> Digests {
        self.identity().clone()
    }

    /// The last user text as it is embedded: Unicode NFC, white space folded, ends trimmed.
    /// `None` unless the request is [eligible](Self::eligibility) for similarity.
    #[must_use]
    pub fn fuzzy_text(&self) -> Option<&str> {
        self.0.parts.content.reading().fuzzy.as_deref()
    }

    /// The last user text as it was sent; its parts are joined by line feeds. Empty if there is
    /// no user turn.
    #[must_use]
    pub fn last_user_text(&self) -> &str {
        self.0.parts.content.texts.last_user()
    }

    /// Whether a similar request may answer this one, and if not, why.
    #[must_use]
    pub fn eligibility(&self) -> Eligibility {
        self.0.parts.content.reading().eligibility
    }

    /// Why the cache must be passed by, if so: the call does more than answer. Such a request is neither
    /// served from the cache nor stored, nor does it share a call with another.
    #[must_use]
    pub fn bypass(&self) -> Option<BypassReason> {
        self.0.parts.content.bypass
    }

    /// Why the answer may soon be out of date, if the wording of the last user text says so.
    /// It is told for requests that are not eligible for similarity too.
    #[must_use]
    pub fn volatility(&self) -> Option<VolatileReason> {
        self.0.parts.content.reading().volatility
    }

    /// Every text that the model reads as input, in order: instructions, messages, tool calls and
    /// their results. Tool definitions are not among them.
    pub fn message_texts(&self) -> impl Iterator<Item = &str> {
        let parts = &self.0.parts;
        parts
            .system
            .as_deref()
            .into_iter()
            .chain(parts.content.texts.iter())
    }

    fn identity(&self) -> &Digests {
        self.0.digests.get_or_init(|| self.0.parts.digests())
    }
}

impl Parts {
    fn digests(&self) -> Digests {
        let content = &self.content;
        let sections = Section::ALL.map(|section| match section {
            Section::Scope => {
                let mut encoder = identity::section(section);
                self.scope.encode(&mut encoder);
                encoder.finish()
            }
            Section::Namespace => identity::text_section(section, self.namespace.as_deref()),
            Section::Protocol => identity::text_section(section, Some(content.protocol.as_str())),
            Section::Model => identity::text_section(section, self.model.as_deref()),
            Section::System => identity::text_section(section, self.system.as_deref()),
            Section::Conversation => content.conversation,
            Section::Tools => content.tools,
            Section::Parameters => self.parameters(),
            Section::Prompt => content.prompt,
        });
        Digests::new(ENCODING_VERSION, &sections)
    }

    /// The content's own parameters and those given beside it.
    fn parameters(&self) -> Digest {
        let mut encoder: Encoder = identity::section(Section::Parameters);
        encoder.bytes(&self.content.parameters);
        encoder.map(self.params.len());
        for (name, digest) in &self.params {
            encoder.text(name);
            encoder.bytes(digest);
        }
        encoder.finish()
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("protocol", &self.protocol())
            .field("scope", self.scope_ref())
            .field("model", &self.model_name())
            .field("exact_key", &self.exact_key())
            .field("partition", &self.partition())
            .field("texts", &self.message_texts().count())
            .field("last_user_bytes", &self.last_user_text().len())
            .finish_non_exhaustive()
    }
}
