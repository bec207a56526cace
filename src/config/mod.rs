//! The settings of a cache, gathered from the stages that own them.
//!
//! [`Config`] is what [`SemanticCache::builder`](crate::SemanticCache::builder) takes. It can be made
//! in code, or read from files, the environment and flags by `Sources`. Every cross-field check
//! happens in [`Config::validate`], once; an error names the field, the value and what is allowed.

#[cfg(feature = "config-file")]
mod load;

use std::time::Duration;

use askonce_index::{AutoConfig, IndexKind};
use serde::{Deserialize, Serialize};

use crate::backend::{MemcachedConfig, MemoryConfig, RedisConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::policy::PolicyConfig;
use crate::savings::PricesConfig;

#[cfg(feature = "config-file")]
pub use load::{Loaded, Sources};

/// Settings of a [`SemanticCache`](crate::SemanticCache).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The exact tiers, nearest first. Default: one memory tier of 512 MiB.
    pub backends: Vec<BackendConfig>,
    /// How long an answer is kept when its store does not say. Default: `24h`. `null`: until it is
    /// evicted.
    #[serde(with = "humantime_serde")]
    pub default_ttl: Option<Duration>,
    /// Matching by similarity.
    pub semantic: SemanticConfig,
    /// What models charge.
    pub prices: PricesConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            backends: vec![BackendConfig::Memory(MemoryConfig::default())],
            default_ttl: Some(Duration::from_secs(24 * 60 * 60)),
            semantic: SemanticConfig::default(),
            prices: PricesConfig::default(),
        }
    }
}

impl Config {
    /// Checks every field and what fields say together.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the field, its value and what is allowed.
    pub fn validate(&self) -> Result<()> {
        if self.backends.is_empty() {
            return Err(
                Error::new(ErrorKind::Config, "a cache needs at least one backend")
                    .with("field", "backends"),
            );
        }
        let mut names = Vec::new();
        for (i, backend) in self.backends.iter().enumerate() {
            backend.validate(&format!("backends[{i}]"))?;
            if names.contains(&backend.name()) {
                return Err(
                    Error::new(ErrorKind::Config, "two backends have the same name")
                        .with("field", format!("backends[{i}].name"))
                        .with("value", backend.name()),
                );
            }
            names.push(backend.name());
        }
        if self.default_ttl.is_some_and(|ttl| ttl.as_millis() == 0) {
            return Err(
                Error::new(ErrorKind::Config, "a time to live cannot be zero")
                    .with("field", "default_ttl")
                    .with("allowed", "at least 1ms, or null for no expiry"),
            );
        }
        self.semantic.validate("semantic")?;
        self.prices.validate("prices")
    }
}

/// One exact tier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum BackendConfig {
    /// In this process.
    Memory(MemoryConfig),
    /// In memcached. Needs the feature `memcached`.
    Memcached(MemcachedConfig),
    /// In a Redis or Valkey server that processes share. Needs the feature `redis`.
    Redis(RedisConfig),
}

impl BackendConfig {
    /// The name of the tier.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Memory(memory) => &memory.name,
            Self::Memcached(memcached) => &memcached.name,
            Self::Redis(redis) => &redis.name,
        }
    }

    fn validate(&self, path: &str) -> Result<()> {
        match self {
            Self::Memory(memory) => memory.validate(path),
            Self::Memcached(memcached) => memcached.validate(path),
            Self::Redis(redis) => redis.validate(path),
        }
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
