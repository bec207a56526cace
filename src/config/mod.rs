//! The settings of a cache, gathered from the stages that own them.
//!
//! [`Config`] is what [`SemanticCache::builder`](crate::SemanticCache::builder) and
//! [`Caches`](crate::Caches) take. It can be made in code, or read from files, the environment and flags
//! by `Sources`. Every cross-field check happens in [`Config::validate`], once; an error names the field,
//! the value and what is allowed.
//!
//! Always true: no field is read and then ignored. What a build, a type or an environment cannot act on
//! is refused, with the remedy.

mod category;
mod embedder;
mod learning;
#[cfg(feature = "config-file")]
mod load;
mod onnx;
mod production;
#[cfg(feature = "config-file")]
mod reference;
mod section;
mod service;
mod verifier;

use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::admit::AdmissionConfig;
use crate::backend::{BackendRegistry, MemoryConfig};
use crate::codec::CodecConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::layer::LayerConfig;
use crate::lock::LockConfig;
use crate::policy::PolicyConfig;
use crate::savings::{LedgerConfig, PricesConfig};
use crate::tier::TierConfig;

pub use crate::backend::BackendConfig;
pub use crate::search::{IndexConfig, IndexType, Precision};
pub use category::CategoryRule;
pub use embedder::{EmbedderConfig, EmbeddingApi, HttpEmbedderConfig, RefinerConfig};
pub use learning::{
    AuditConfig, CheckedLabels, DecisionLogConfig, FeedbackConfig, FreshnessConfig,
    HitBreakerConfig, JudgeConfig, LearningConfig,
};
#[cfg(feature = "config-file")]
pub use load::{Loaded, Sources};
#[cfg(feature = "onnx")]
pub(crate) use onnx::tokenizer_beside;
pub use onnx::{
    Activation, CrossEncoderConfig, Direction, OnnxEmbedderConfig, OnnxPooling, ReadWith,
};
pub use production::{is_local, is_production};
pub use section::BackendSection;
pub use service::ServiceConfig;
pub use verifier::{VerifierConfig, VerifierModelConfig};

/// Settings of a [`SemanticCache`](crate::SemanticCache) and of named typed [`Caches`](crate::Caches).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The name of the application, 1 to 24 letters, digits, - _ and dots. Default: `null`. With it, keys in
    /// backends that processes share begin with the backend's prefix and this, so that applications do not
    /// see each other's values.
    pub name: Option<String>,
    /// The version of what is stored, formed as `name`. Default: `null`. It follows the name in keys (`cache`
    /// where there is none), so a new version does not read what an old one stored; the old values die by
    /// their time to live.
    pub version: Option<String>,
    /// Whether anything is cached. Default: true. Otherwise every lookup is a miss, nothing is stored, and
    /// no backend is connected to; settings are checked all the same.
    pub enabled: bool,
    /// What the deployment is for. Default: `development`. `production`, in
    /// [any spelling](is_production), refuses unsafe settings.
    pub environment: String,
    /// Whether everything that happens in the tiers is logged, at level `debug`, keys as digests. Default:
    /// false.
    pub debug: bool,
    /// The stores. Default: one in memory of 512 MiB. Typed caches have one each, by its name. A semantic
    /// cache has all of them as tiers: those in this process first, then as listed.
    pub backends: Vec<BackendSection>,
    /// How a semantic cache puts the tiers in this process in front of a shared one, where no stack of type
    /// `tiered` says so.
    pub tiers: TierConfig,
    /// How long a value is kept when neither its store nor its backend says. Default: `24h`. `null`: until
    /// it is evicted. A semantic cache, which keeps an answer in all backends, goes by that of the default
    /// one.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::schema::Time>"))]
    pub default_ttl: Option<Duration>,
    /// What a semantic cache keeps ready for requests that come again, beside what the backends hold: a number
    /// of bytes, or `48MiB`. Default: `48MiB`. A third each for requests as they were read (by the server),
    /// entries as they were decoded (none that are encrypted) and responses as they were rendered. 0: nothing is
    /// kept, and a repeated request costs what the first did.
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::Bytes"))]
    pub ready_bytes: ByteSize,
    /// What holds for all caches together.
    pub service: ServiceConfig,
    /// Locks that processes share.
    pub locks: LockConfig,
    /// How stored entries are written.
    pub codec: CodecConfig,
    /// Matching by similarity.
    pub semantic: SemanticConfig,
    /// What may be kept, and how far it is shared.
    pub admission: AdmissionConfig,
    /// What models charge.
    pub prices: PricesConfig,
    /// The books of what was saved.
    pub ledger: LedgerConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: None,
            version: None,
            enabled: true,
            environment: "development".to_owned(),
            debug: false,
            backends: vec![BackendConfig::Memory(MemoryConfig::default()).into()],
            tiers: TierConfig::default(),
            default_ttl: Some(Duration::from_secs(24 * 60 * 60)),
            ready_bytes: ByteSize::mib(48),
            service: ServiceConfig::default(),
            locks: LockConfig::default(),
            codec: CodecConfig::default(),
            semantic: SemanticConfig::default(),
            admission: AdmissionConfig::default(),
            prices: PricesConfig::default(),
            ledger: LedgerConfig::default(),
        }
    }
}

impl Config {
    /// The bytes of each of the three parts of [`ready_bytes`](Self::ready_bytes).
    #[must_use]
    pub fn ready_part(&self) -> u64 {
        self.ready_bytes.as_u64() / 3
    }

    /// A JSON Schema of these settings, with what each field means.
    #[cfg(feature = "schema")]
    #[must_use]
    pub fn schema() -> serde_json::Value {
        crate::schema::of::<Self>()
    }

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
        check_word(self.name.as_deref(), "name")?;
        check_word(self.version.as_deref(), "version")?;
        let mut names = Vec::new();
        let mut default = None;
        for (i, section) in self.backends.iter().enumerate() {
            let path = format!("backends[{i}]");
            section.validate(registry, &path)?;
            // Its prefix has more to it than the section says.
            registry.validate(&self.backend_of(section), &path)?;
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
        self.check_stacks()?;
        self.service.validate("service")?;
        self.default_section()?;
        check_ttl(self.default_ttl, "default_ttl")?;
        self.tiers.validate("tiers")?;
        self.locks.validate("locks")?;
        self.codec.validate("codec")?;
        self.semantic.validate("semantic")?;
        self.admission.validate("admission")?;
        self.prices.validate("prices")?;
        self.ledger.validate("ledger")?;
        production::guard(self)
    }

    /// The enabled backends that stacks are made of find each other.
    fn check_stacks(&self) -> Result<()> {
        let mut taken: Vec<(&str, String)> = Vec::new();
        for (i, section) in self.backends.iter().enumerate() {
            let BackendConfig::Tiered(tiered) = &section.backend else {
                continue;
            };
            if !section.enabled {
                continue;
            }
            for (field, name) in [("near", &tiered.near), ("far", &tiered.far)] {
                let field = format!("backends[{i}].{field}");
                let refuse = |what: &'static str| {
                    Error::new(ErrorKind::Config, what)
                        .with("field", &field)
                        .with("value", name)
                };
                if let Some(tier) = self.section(name) {
                    self.check_tier(tier, name)?;
                } else {
                    let others = self.backends.iter().filter(|other| other.enabled);
                    let names: Vec<_> = others.map(|other| other.backend.name()).collect();
                    let what = "a stack is made of backends that are listed and enabled";
                    return Err(refuse(what).with("allowed", names.join(", ")));
                }
                if let Some((_, other)) = taken.iter().find(|(other, _)| other == name) {
                    let what = "a backend is a tier of one stack only";
                    return Err(refuse(what).with("other", other));
                }
                taken.push((name, field.clone()));
                if self.reaches(name, &tiered.name, self.backends.len()) {
                    return Err(refuse("a stack is made of itself"));
                }
            }
        }
        Ok(())
    }

    /// A tier of a stack has no settings of a cache of its own: they would do nothing.
    fn check_tier(&self, tier: &BackendSection, name: &str) -> Result<()> {
        let plain = BackendSection::from(tier.backend.clone());
        let prefixed = matches!(&tier.backend,
            BackendConfig::Memory(memory) if !memory.key_prefix.is_empty());
        let idle = if tier.default_ttl.is_some() {
            "default_ttl"
        } else if tier.health_check_interval != plain.health_check_interval {
            "health_check_interval"
        } else if prefixed {
            "key_prefix"
        } else {
            return Ok(());
        };
        let mut names = self.backends.iter().map(|section| section.backend.name());
        let i = names.position(|other| other == name).unwrap_or_default();
        Err(Error::new(
            ErrorKind::Config,
            "the tier of a stack is no cache of its own",
        )
        .with("field", format!("backends[{i}].{idle}"))
        .with("remedy", "set it where the stack is, or leave it out"))
    }

    /// Whether `name` is the backend `target`, or is made of it.
    fn reaches(&self, name: &str, target: &str, depth: usize) -> bool {
        if name == target || depth == 0 {
            return true;
        }
        match self.section(name).map(|section| &section.backend) {
            Some(BackendConfig::Tiered(tiered)) => [&tiered.near, &tiered.far]
                .into_iter()
                .any(|tier| self.reaches(tier, target, depth - 1)),
            _ => false,
        }
    }

    /// The enabled backend of this name.
    pub(crate) fn section(&self, name: &str) -> Option<&BackendSection> {
        let mut enabled = self.backends.iter().filter(|section| section.enabled);
        enabled.find(|section| section.backend.name() == name)
    }

    /// The name of the stack that the backend `name` is a tier of.
    pub(crate) fn stack_of(&self, name: &str) -> Option<&str> {
        let enabled = self.backends.iter().filter(|section| section.enabled);
        let mut stacks = enabled.filter_map(|section| match &section.backend {
            BackendConfig::Tiered(tiered) => Some(tiered),
            _ => None,
        });
        let stack = stacks.find(|stack| stack.near == name || stack.far == name)?;
        Some(&stack.name)
    }

    /// The enabled backends that no stack is made of, as listed.
    pub(crate) fn sections(&self) -> impl Iterator<Item = &BackendSection> {
        let enabled = self.backends.iter().filter(|section| section.enabled);
        enabled.filter(|section| self.stack_of(section.backend.name()).is_none())
    }

    /// The backend that is meant where none is named.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the configured one is not there, not enabled, or a tier of a stack.
    pub(crate) fn default_section(&self) -> Result<&BackendSection> {
        let named = self.service.default_backend.as_deref();
        let marked = self.backends.iter().position(|section| section.default);
        let (field, name) = match (named, marked) {
            (Some(name), _) => ("service.default_backend".to_owned(), name),
            (None, Some(i)) => (
                format!("backends[{i}].default"),
                self.backends[i].backend.name(),
            ),
            (None, None) => {
                return self.sections().next().ok_or_else(|| {
                    Error::new(ErrorKind::Config, "a cache needs at least one backend")
                        .with("field", "backends")
                });
            }
        };
        let mut sections = self.sections();
        sections
            .find(|section| section.backend.name() == name)
            .ok_or_else(|| {
                let error = Error::new(
                    ErrorKind::Config,
                    "there is no such cache to be the default",
                )
                .with("field", field)
                .with("value", name);
                let error = match self.stack_of(name) {
                    Some(stack) => error.with("tier of", stack),
                    None => error,
                };
                let names: Vec<_> = self
                    .sections()
                    .map(|section| section.backend.name())
                    .collect();
                error.with("allowed", names.join(", "))
            })
    }

    /// The life of values in `section` whose store does not say.
    pub(crate) fn ttl_of(&self, section: &BackendSection) -> Option<Duration> {
        section.default_ttl.or(self.default_ttl)
    }

    /// The store of `section`, for the keys of this application and version.
    #[must_use]
    pub fn backend_of(&self, section: &BackendSection) -> BackendConfig {
        match self.key_space() {
            Some(space) => section.backend.within(&space),
            None => section.backend.clone(),
        }
    }

    /// What tells the keys of this application and version from those of others.
    pub(crate) fn key_space(&self) -> Option<String> {
        match (self.name.as_deref(), self.version.as_deref()) {
            (None, None) => None,
            (Some(name), None) => Some(name.to_owned()),
            (name, Some(version)) => Some(format!("{}:{version}", name.unwrap_or("cache"))),
        }
    }

    /// The layers around the store of `section`, with the deadline written out.
    pub(crate) fn layers_of(&self, section: &BackendSection) -> LayerConfig {
        let own = section.layers.clone();
        let layers = own.unwrap_or_else(|| self.service.layers());
        layers.for_timeout(section.backend.timeout())
    }

    /// How values are written.
    pub(crate) fn codec_config(&self) -> CodecConfig {
        let mut codec = self.codec.clone();
        if let Some(serializer) = self.service.default_serializer {
            codec.serializer = serializer;
        }
        codec
    }
}

/// A name that keys are made of.
fn check_word(word: Option<&str>, field: &'static str) -> Result<()> {
    const LONGEST: usize = 24;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match word {
        Some(word) if word.is_empty() || word.len() > LONGEST || !word.chars().all(plain) => {
            Err(Error::new(ErrorKind::Config, "a setting is out of range")
                .with("field", field)
                .with("value", word.escape_debug())
                .with("allowed", "1 to 24 letters, digits, - _ and dots, or null"))
        }
        _ => Ok(()),
    }
}

/// A life that can be had.
fn check_ttl(ttl: Option<Duration>, field: &str) -> Result<()> {
    if ttl.is_some_and(|ttl| ttl.as_millis() == 0) {
        return Err(
            Error::new(ErrorKind::Config, "a time to live cannot be zero")
                .with("field", field)
                .with("value", "0s")
                .with("allowed", "at least 1ms, or null"),
        );
    }
    Ok(())
}

/// Settings of matching by similarity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
    /// Who is asked again about candidates that the policy nearly served. Default: `null`, nobody.
    pub verifier: Option<VerifierConfig>,
    /// Entries looked at per lookup before it is a miss, 1 to 64. Default: 8. More helps only where
    /// many near entries are refused or dead.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 64)))]
    pub candidates: usize,
    /// Kinds of traffic, told apart by the first rule that a request meets. Default: none, all is one kind.
    /// Probabilities, budgets and estimates of wrong hits are kept for each kind.
    pub categories: Vec<CategoryRule>,
    /// What to do with prompts whose right answer changes with time.
    pub volatile: VolatileConfig,
    /// What is learnt from decisions.
    pub learning: LearningConfig,
}

impl Default for SemanticConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            embedder: EmbedderConfig::default(),
            index: IndexConfig::default(),
            policy: PolicyConfig::default(),
            verifier: None,
            candidates: 8,
            categories: Vec::new(),
            volatile: VolatileConfig::default(),
            learning: LearningConfig::default(),
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
        self.index.validate(&format!("{path}.index"))?;
        self.policy.validate(&format!("{path}.policy"))?;
        if let Some(verifier) = &self.verifier {
            verifier.validate(&format!("{path}.verifier"))?;
        }
        category::validate(&self.categories, &format!("{path}.categories"))?;
        self.volatile.validate(&format!("{path}.volatile"))?;
        self.learning.validate(&format!("{path}.learning"))?;
        let calibrated = matches!(self.policy, PolicyConfig::Calibrated(_));
        if self.learning.recalibrate_every.is_some() && !calibrated {
            let message = "only a calibrated policy can be fitted anew";
            return Err(Error::new(ErrorKind::Config, message)
                .with("field", format!("{path}.learning.recalibrate_every"))
                .with("remedy", "use a policy of type calibrated, or leave it out"));
        }
        Ok(())
    }
}

/// What to do with prompts whose right answer changes with time: "today", "the latest", prices,
/// weather. Such prompts never match by similarity unless the action is `ignore`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct VolatileConfig {
    /// `short_ttl` (default), `no_store`, or `ignore` to treat them as any other.
    pub action: VolatileAction,
    /// Longest life under `short_ttl`. Default: `5m`.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::Time"))]
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
            let layers = redis.layers_of(&redis.backends[0]);
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
            error.contains("allowed: memcached, memory, redis, tiered"),
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
        assert_eq!(config.layers_of(&config.backends[0]).retries, 3);
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
