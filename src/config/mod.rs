//! The settings of a cache, gathered from the stages that own them.
//!
//! [`Config`] is what [`SemanticCache::builder`](crate::SemanticCache::builder) takes. It can be made
//! in code, or read from files, the environment and flags by `Sources`. Every cross-field check
//! happens in [`Config::validate`], once; an error names the field, the value and what is allowed.

#[cfg(feature = "config-file")]
mod load;
#[cfg(feature = "config-file")]
mod production;
#[cfg(feature = "config-file")]
mod reference;

use std::time::Duration;

use askonce_index::{AutoConfig, IndexKind};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::backend::{BackendRegistry, MemoryConfig};
use crate::codec::CodecConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::layer::LayerConfig;
use crate::policy::PolicyConfig;
use crate::savings::PricesConfig;
use crate::tier::TierConfig;

pub use crate::backend::BackendConfig;
#[cfg(feature = "config-file")]
pub use load::{Loaded, Sources};

/// Settings of a [`SemanticCache`](crate::SemanticCache).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The exact tiers, nearest first. Default: one memory tier of 512 MiB.
    pub backends: Vec<BackendSection>,
    /// How a memory tier goes together with a shared one behind it.
    pub tiers: TierConfig,
    /// How long an answer is kept when its store does not say. Default: `24h`. `null`: until it is
    /// evicted.
    #[serde(with = "humantime_serde")]
    pub default_ttl: Option<Duration>,
    /// How stored entries are written.
    pub codec: CodecConfig,
    /// Matching by similarity.
    pub semantic: SemanticConfig,
    /// What models charge.
    pub prices: PricesConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            backends: vec![BackendConfig::Memory(MemoryConfig::default()).into()],
            tiers: TierConfig::default(),
            default_ttl: Some(Duration::from_secs(24 * 60 * 60)),
            codec: CodecConfig::default(),
            semantic: SemanticConfig::default(),
            prices: PricesConfig::default(),
        }
    }
}

impl Config {
    /// Checks every field and what fields say together. Types of backends are the built-in ones;
    /// [`validate_with`](Self::validate_with) knows more.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the field, its value and what is allowed.
    pub fn validate(&self) -> Result<()> {
        self.validate_with(&BackendRegistry::default())
    }

    /// As [`validate`](Self::validate), with the types of backends that `registry` knows.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the field, its value and what is allowed.
    pub fn validate_with(&self, registry: &BackendRegistry) -> Result<()> {
        let mut names = Vec::new();
        let mut default = None;
        for (i, section) in self.backends.iter().enumerate() {
            let path = format!("backends[{i}]");
            section.validate(registry, &path)?;
            if section.default
                && let Some(earlier) = default.replace(i)
            {
                return Err(
                    Error::new(ErrorKind::Config, "two backends are the default")
                        .with("field", format!("{path}.default"))
                        .with("other", format!("backends[{earlier}].default")),
                );
            }
            let name = section.backend.name();
            if names.contains(&name) {
                return Err(
                    Error::new(ErrorKind::Config, "two backends have the same name")
                        .with("field", format!("{path}.name"))
                        .with("value", name),
                );
            }
            names.push(name);
        }
        if !self.backends.iter().any(|section| section.enabled) {
            return Err(
                Error::new(ErrorKind::Config, "a cache needs at least one backend")
                    .with("field", "backends")
                    .with("allowed", "one or more that are enabled"),
            );
        }
        if self.default_ttl.is_some_and(|ttl| ttl.as_millis() == 0) {
            return Err(
                Error::new(ErrorKind::Config, "a time to live cannot be zero")
                    .with("field", "default_ttl")
                    .with("allowed", "at least 1ms, or null for no expiry"),
            );
        }
        self.tiers.validate("tiers")?;
        self.codec.validate("codec")?;
        self.semantic.validate("semantic")?;
        self.prices.validate("prices")
    }
}

/// One exact tier: a store, and what stands around it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BackendSection {
    /// Whether it is used. Default: true. A section that is not is checked all the same.
    pub enabled: bool,
    /// Makes this the nearest tier, whatever its place in the list. Default: false, and the first of the
    /// list is.
    pub default: bool,
    /// Deadline, retries and circuit breaker. Default: those of [`LayerConfig`]. Refused for the type
    /// `memory`, which needs none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<LayerConfig>,
    /// The store.
    #[serde(flatten)]
    pub backend: BackendConfig,
}

impl From<BackendConfig> for BackendSection {
    /// A section that is enabled, with default layers.
    fn from(backend: BackendConfig) -> Self {
        Self {
            enabled: true,
            default: false,
            layers: None,
            backend,
        }
    }
}

impl<'de> Deserialize<'de> for BackendSection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// The fields that every section has; which others there are depends on the type.
        #[derive(Deserialize)]
        struct Fields {
            #[serde(default = "yes")]
            enabled: bool,
            #[serde(default)]
            default: bool,
            #[serde(default)]
            layers: Option<LayerConfig>,
            #[serde(flatten)]
            others: serde_json::Map<String, serde_json::Value>,
        }
        let Fields {
            enabled,
            default,
            layers,
            others,
        } = Fields::deserialize(deserializer)?;
        Ok(Self {
            enabled,
            default,
            layers,
            backend: BackendConfig::from_fields(others).map_err(D::Error::custom)?,
        })
    }
}

const fn yes() -> bool {
    true
}

impl BackendSection {
    fn validate(&self, registry: &BackendRegistry, path: &str) -> Result<()> {
        registry.validate(&self.backend, path)?;
        if self.default && !self.enabled {
            return Err(
                Error::new(ErrorKind::Config, "the default backend is not enabled")
                    .with("field", format!("{path}.enabled"))
                    .with("value", false)
                    .with("remedy", "enable it, or make another the default"),
            );
        }
        let Some(layers) = &self.layers else {
            return Ok(());
        };
        if matches!(self.backend, BackendConfig::Memory(_)) {
            return Err(Error::new(
                ErrorKind::Config,
                "a backend in this process has no deadline, retries or breaker",
            )
            .with("field", format!("{path}.layers"))
            .with("remedy", "leave it out"));
        }
        layers.validate(&format!("{path}.layers"))
    }

    /// The settings of the layers, with the deadline written out.
    pub(crate) fn layers(&self) -> LayerConfig {
        let layers = self.layers.clone().unwrap_or_default();
        layers.for_timeout(self.backend.timeout())
    }
}

/// Settings of matching by similarity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SemanticConfig {
    /// Whether similar requests match at all. Default: true.
    pub enabled: bool,
    /// What turns text into vectors.
    pub embedder: EmbedderConfig,
    /// What finds near vectors.
    pub index: IndexConfig,
    /// What decides whether a near entry is served.
    pub policy: PolicyConfig,
    /// Entries looked at per lookup before it is a miss, 1 to 64. Default: 8. More helps only where
    /// many near entries are refused or dead.
    pub candidates: usize,
    /// What to do with prompts whose right answer changes with time.
    pub volatile: VolatileConfig,
}

impl Default for SemanticConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            embedder: EmbedderConfig::default(),
            index: IndexConfig::default(),
            policy: PolicyConfig::default(),
            candidates: 8,
            volatile: VolatileConfig::default(),
        }
    }
}

impl SemanticConfig {
    fn validate(&self, path: &str) -> Result<()> {
        if !(1..=64).contains(&self.candidates) {
            return Err(Error::new(ErrorKind::Config, "a setting is out of range")
                .with("field", format!("{path}.candidates"))
                .with("value", self.candidates)
                .with("allowed", "1 to 64"));
        }
        self.embedder.validate(&format!("{path}.embedder"))?;
        self.index.to_auto(&format!("{path}.index"))?;
        self.policy.validate(&format!("{path}.policy"))?;
        self.volatile.validate(&format!("{path}.volatile"))
    }
}

/// What turns text into vectors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum EmbedderConfig {
    /// The built-in table: microseconds, no network, English. The default.
    #[default]
    Static,
    /// A server with an OpenAI-compatible `/v1/embeddings`. Needs the feature `http-embedder`.
    Http {
        /// Where the API lives, up to and without `/embeddings`: `https://api.openai.com/v1`.
        base_url: String,
        /// The model to ask for.
        model: String,
        /// The environment variable that holds the key. Default: none is sent.
        #[serde(default)]
        api_key_env: Option<String>,
        /// Length of the vectors; asked of the server at start-up when not given.
        #[serde(default)]
        dimension: Option<usize>,
        /// How long one lookup waits for a vector before it is a miss. Default: `2s`.
        #[serde(default = "two_seconds", with = "humantime_serde")]
        timeout: Duration,
        /// Attempts after the first, within the timeout. Default: 2.
        #[serde(default = "two")]
        retries: usize,
        /// Recent texts whose vectors are remembered. Default: 10 000.
        #[serde(default = "ten_thousand")]
        memo_entries: u64,
    },
}

const fn two_seconds() -> Duration {
    Duration::from_secs(2)
}

const fn two() -> usize {
    2
}

const fn ten_thousand() -> u64 {
    10_000
}

impl EmbedderConfig {
    fn validate(&self, path: &str) -> Result<()> {
        let Self::Http { timeout, .. } = self else {
            return Ok(());
        };
        if !cfg!(feature = "http-embedder") {
            return Err(
                Error::new(ErrorKind::Config, "this build has no HTTP embedder")
                    .with("field", format!("{path}.type"))
                    .with(
                        "remedy",
                        "build with the feature http-embedder, or use type static",
                    ),
            );
        }
        if timeout.is_zero() {
            return Err(Error::new(ErrorKind::Config, "a timeout cannot be zero")
                .with("field", format!("{path}.timeout")));
        }
        Ok(())
    }
}

/// What finds near vectors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IndexConfig {
    /// `auto` (default), `flat` (always exact) or `hnsw` (a graph from the first row on).
    #[serde(rename = "type")]
    pub kind: IndexType,
    /// Rows of one partition up to which `auto` stays flat. Default: what the index crate measured.
    pub flat_limit: Option<usize>,
    /// Candidates that a graph search keeps: more finds more and takes longer. Default: 64.
    pub ef_search: Option<usize>,
}

impl Default for IndexConfig {
    fn default() -> Self {
        Self {
            kind: IndexType::Auto,
            flat_limit: None,
            ef_search: None,
        }
    }
}

/// The structure of an index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IndexType {
    /// Flat while small, a graph when large.
    #[default]
    Auto,
    /// Always an exact scan.
    Flat,
    /// Always a graph.
    Hnsw,
}

impl IndexConfig {
    /// These settings as the index crate takes them; `path` is where the section stands in the file.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the field, its value and what is allowed.
    pub fn to_auto(&self, path: &str) -> Result<AutoConfig> {
        let kind = match self.kind {
            IndexType::Auto => IndexKind::Auto,
            IndexType::Flat => IndexKind::Flat,
            IndexType::Hnsw => IndexKind::Hnsw,
        };
        let mut auto = AutoConfig {
            kind,
            ..AutoConfig::default()
        };
        if let Some(limit) = self.flat_limit {
            auto.flat_limit = limit;
            auto.shard_limit = auto.shard_limit.max(limit);
        }
        if let Some(ef_search) = self.ef_search {
            auto.hnsw.ef_search = ef_search;
        }
        auto.validate().map_err(|error| {
            Error::new(ErrorKind::Config, error.to_string()).with("field", path)
        })?;
        Ok(auto)
    }
}

/// What to do with prompts whose right answer changes with time: "today", "the latest", prices,
/// weather. Such prompts never match by similarity unless the action is `ignore`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VolatileConfig {
    /// `short_ttl` (default), `no_store`, or `ignore` to treat them as any other.
    pub action: VolatileAction,
    /// Longest life under `short_ttl`. Default: `5m`.
    #[serde(with = "humantime_serde")]
    pub ttl: Duration,
}

impl Default for VolatileConfig {
    fn default() -> Self {
        Self {
            action: VolatileAction::ShortTtl,
            ttl: Duration::from_secs(300),
        }
    }
}

impl VolatileConfig {
    fn validate(&self, path: &str) -> Result<()> {
        if self.ttl.as_millis() == 0 {
            return Err(
                Error::new(ErrorKind::Config, "a time to live cannot be zero")
                    .with("field", format!("{path}.ttl"))
                    .with(
                        "allowed",
                        "at least 1ms; use action: no_store to keep nothing",
                    ),
            );
        }
        Ok(())
    }
}

/// What to do with volatile prompts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolatileAction {
    /// Keep their answers for a short time, for exact matches.
    #[default]
    ShortTtl,
    /// Keep no answers for them.
    NoStore,
    /// Treat them as any other prompt.
    Ignore,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(backends: &str) -> Config {
        serde_json::from_str(&format!(r#"{{"backends": {backends}}}"#)).unwrap()
    }

    fn refused(backends: &str) -> String {
        let error = config(backends).validate().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        error.to_string()
    }

    #[test]
    fn w_66_a_disabled_default_and_a_cache_without_backends_are_refused_at_start() {
        let error = refused(
            r#"[{"type": "memory"}, {"type": "memory", "name": "b", "enabled": false, "default": true}]"#,
        );
        assert!(error.contains("field: backends[1].enabled"), "{error}");
        let error = refused(r#"[{"type": "memory", "enabled": false}]"#);
        assert!(error.contains("field: backends"), "{error}");
        assert!(error.contains("enabled"), "{error}");
        let error = refused(
            r#"[{"type": "memory", "default": true}, {"type": "memory", "name": "b", "default": true}]"#,
        );
        assert!(error.contains("field: backends[1].default"), "{error}");
        let mixed = r#"[{"type": "memory", "enabled": false}, {"type": "memory", "name": "b"}]"#;
        config(mixed).validate().unwrap();
    }

    #[test]
    fn layers_belong_to_backends_outside_this_process_and_are_checked_by_name() {
        let error = refused(r#"[{"type": "memory", "layers": {}}]"#);
        assert!(error.contains("field: backends[0].layers"), "{error}");
        #[cfg(feature = "redis")]
        {
            let error = refused(r#"[{"type": "redis", "layers": {"retries": 99}}]"#);
            assert!(
                error.contains("backends[0].layers.retries, value: 99"),
                "{error}"
            );
            let redis = config(
                r#"[{"type": "redis", "timeout": "3s", "layers": {"breaker": {"min_calls": 3}}}]"#,
            );
            redis.validate().unwrap();
            let layers = redis.backends[0].layers();
            assert_eq!(layers.breaker.min_calls, 3);
            assert_eq!(layers.deadline, Some(Duration::from_secs(6)));
        }
    }

    #[test]
    fn an_unknown_type_is_refused_with_what_is_known() {
        let error = refused(r#"[{"type": "memory"}, {"type": "rediss"}]"#);
        assert!(
            error.contains("field: backends[1].type, value: rediss"),
            "{error}"
        );
        assert!(
            error.contains("allowed: memcached, memory, redis"),
            "{error}"
        );
    }

    #[test]
    fn a_section_that_is_written_out_reads_back() {
        let config = config(
            r#"[{"type": "memory", "default": true},
                {"type": "memcached", "enabled": false, "layers": {"deadline": "50ms"}},
                {"type": "disk", "path": "x"}]"#,
        );
        let again: Config = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
        assert_eq!(again, config);
    }

    #[cfg(feature = "config-file")]
    #[test]
    fn errors_in_layers_name_the_whole_path_also_when_they_come_from_a_variable() {
        let load = |field: &str, value: &str| {
            Sources::named("askonce")
                .variables([
                    ("ASKONCE__BACKENDS__0__TYPE", "redis"),
                    ("ASKONCE__BACKENDS__0__ENABLED", "false"),
                    (field, value),
                ])
                .load::<Config>()
                .map(|loaded| loaded.settings)
        };
        let config = load("ASKONCE__BACKENDS__0__LAYERS__RETRIES", "3").unwrap();
        assert!(!config.backends[0].enabled);
        assert_eq!(config.backends[0].layers().retries, 3);
        for (variable, value, field) in [
            (
                "ASKONCE__BACKENDS__0__LAYERS__RETRIES",
                "many",
                "backends[0].layers.retries",
            ),
            (
                "ASKONCE__BACKENDS__0__LAYERS__RETRY",
                "1",
                "backends[0].layers.retry",
            ),
            (
                "ASKONCE__BACKENDS__0__LAYERS__BREAKER__WINDOW",
                "wide",
                "backends[0].layers.breaker.window",
            ),
            (
                "ASKONCE__BACKENDS__0__ENABLED",
                "perhaps",
                "backends[0].enabled",
            ),
            ("ASKONCE__BACKENDS__0__REDIS", "x", "backends[0].redis"),
            (
                "ASKONCE__BACKENDS__0__TIMEOUT",
                "soon",
                "backends[0].timeout",
            ),
        ] {
            let error = load(variable, value).unwrap_err().to_string();
            assert!(error.contains(&format!("field: {field}")), "{error}");
        }
    }
}
