//! From a configured `type` to a running backend.
//!
//! [`BackendConfig`] is one store as configuration names it: a built-in type with its typed settings, or a
//! [`CustomConfig`], a type that the program brings along. A [`BackendRegistry`] knows the factories of
//! the latter, checks settings, and builds. Configuration can therefore name any type that is registered
//! when the cache is built, and an error about an unknown one lists what is known.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::de::{DeserializeOwned, Error as _};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::{
    BackendHandle, BoxFuture, MemcachedConfig, MemoryBackend, MemoryConfig, RedisConfig,
    RemovalCause, TieredConfig,
};
use crate::clock::ClockHandle;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Events};

/// The types that every registry knows.
const BUILT_IN: [&str; 4] = ["memcached", "memory", "redis", "tiered"];

/// One store, by its type.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
#[expect(
    clippy::large_enum_variant,
    reason = "a program has a few of them, and a box would show in its code"
)]
pub enum BackendConfig {
    /// In this process.
    Memory(MemoryConfig),
    /// In memcached. Needs the feature `memcached`.
    Memcached(MemcachedConfig),
    /// In a Redis or Valkey server that processes share. Needs the feature `redis`.
    Redis(RedisConfig),
    /// Made of two others of the same configuration.
    Tiered(TieredConfig),
    /// Of a type that the program has [registered](BackendRegistry::register).
    #[serde(untagged)]
    Custom(CustomConfig),
}

impl BackendConfig {
    /// The name of the tier.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Memory(memory) => &memory.name,
            Self::Memcached(memcached) => &memcached.name,
            Self::Redis(redis) => &redis.name,
            Self::Tiered(tiered) => &tiered.name,
            Self::Custom(custom) => &custom.name,
        }
    }

    /// The name of the type.
    #[must_use]
    pub fn type_name(&self) -> &str {
        match self {
            Self::Memory(_) => "memory",
            Self::Memcached(_) => "memcached",
            Self::Redis(_) => "redis",
            Self::Tiered(_) => "tiered",
            Self::Custom(custom) => &custom.type_name,
        }
    }

    /// How long one round trip may take, where the settings say.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        match self {
            Self::Memcached(memcached) => Some(memcached.timeout),
            Self::Redis(redis) => Some(redis.timeout),
            Self::Memory(_) | Self::Tiered(_) | Self::Custom(_) => None,
        }
    }

    /// These settings for the keys of `space` alone, where processes share the store: its prefix goes on
    /// with it. What lies in this process is not shared, and a registered type has a prefix of its own kind.
    pub(crate) fn within(&self, space: &str) -> Self {
        let mut config = self.clone();
        match &mut config {
            Self::Memcached(MemcachedConfig { key_prefix, .. })
            | Self::Redis(RedisConfig { key_prefix, .. }) => {
                key_prefix.push(':');
                key_prefix.push_str(space);
            }
            Self::Memory(_) | Self::Tiered(_) | Self::Custom(_) => {}
        }
        config
    }

    /// Reads the fields of a section, `type` among them.
    ///
    /// # Errors
    /// What serde says of a field that is missing, unknown or of the wrong form.
    pub fn from_fields(mut fields: Map<String, Value>) -> Result<Self, serde_json::Error> {
        let type_name = match fields.remove("type") {
            None => return Err(serde_json::Error::missing_field("type")),
            Some(Value::String(name)) => name,
            Some(other) => {
                let message = format!("invalid type: {}, expected a string", kind_of(&other));
                return Err(serde_json::Error::custom(message));
            }
        };
        Ok(match type_name.as_str() {
            "memory" => Self::Memory(typed(fields)?),
            "memcached" => Self::Memcached(typed(fields)?),
            "redis" => Self::Redis(typed(fields)?),
            "tiered" => Self::Tiered(typed(fields)?),
            _ => {
                let name = match fields.remove("name") {
                    None => type_name.clone(),
                    Some(Value::String(name)) => name,
                    Some(other) => {
                        let kind = kind_of(&other);
                        let message = format!("invalid type: {kind}, expected a string");
                        return Err(serde_json::Error::custom(message));
                    }
                };
                Self::Custom(CustomConfig {
                    type_name,
                    name,
                    fields,
                })
            }
        })
    }
}

impl<'de> Deserialize<'de> for BackendConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_fields(Map::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

fn typed<T: DeserializeOwned>(fields: Map<String, Value>) -> Result<T, serde_json::Error> {
    serde_json::from_value(Value::Object(fields))
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "sequence",
        Value::Object(_) => "map",
    }
}

/// Settings of a backend that the program brings along, as they were written.
///
/// `Debug` shows the names of the fields only, and `Serialize` hides the values of those that may hold a
/// secret, addresses with a password among them.
#[derive(Clone, PartialEq)]
pub struct CustomConfig {
    type_name: String,
    name: String,
    fields: Map<String, Value>,
}

impl CustomConfig {
    /// Settings of a backend of type `type_name`. Its name is that of the type until another is
    /// [given](Self::named).
    #[must_use]
    pub fn new(type_name: impl Into<String>) -> Self {
        let type_name = type_name.into();
        Self {
            name: type_name.clone(),
            type_name,
            fields: Map::new(),
        }
    }

    /// Names the tier, for metrics and reports.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets a field.
    #[must_use]
    pub fn with(mut self, field: impl Into<String>, value: impl Into<Value>) -> Self {
        self.fields.insert(field.into(), value.into());
        self
    }

    /// The name of the type.
    #[must_use]
    pub fn type_name(&self) -> &str {
        &self.type_name
    }

    /// The name of the tier.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The fields of the section, without `type`, `name` and those that every backend has.
    #[must_use]
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// The fields as a type of the factory's own. Numbers and truth values that came from the
    /// environment are text.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming `path`, where the section stands in the file, and what is wrong with
    /// it.
    pub fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        typed(self.fields.clone()).map_err(|error| {
            // Serde may quote a value; what it quotes could be a password.
            let problem = error.to_string();
            let named = ["unknown field", "missing field"];
            let told = named.iter().any(|start| problem.starts_with(start));
            let error = Error::new(ErrorKind::Config, "a backend's settings cannot be read")
                .with("field", path)
                .with("type", &self.type_name);
            if told {
                error.with("problem", problem)
            } else {
                error
            }
        })
    }
}

impl fmt::Debug for CustomConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CustomConfig")
            .field("type", &self.type_name)
            .field("name", &self.name)
            .field("fields", &self.fields.keys().collect::<Vec<_>>())
            .finish()
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for CustomConfig {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "CustomConfig".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "object",
            "properties": {
                "type": {
                    "description": "A type that the program has registered.",
                    "type": "string",
                    "not": { "enum": BUILT_IN },
                },
                "name": {
                    "description": "Name in metrics, reports and `Cache-Status`. Default: that of the type.",
                    "type": "string",
                },
            },
            "required": ["type"],
            "additionalProperties": true,
        })
    }
}

impl Serialize for CustomConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.fields.len() + 2))?;
        map.serialize_entry("type", &self.type_name)?;
        map.serialize_entry("name", &self.name)?;
        for (field, value) in &self.fields {
            map.serialize_entry(field, &shown(field, value))?;
        }
        map.end()
    }
}

/// `value` without what may be a secret.
fn shown(field: &str, value: &Value) -> Value {
    let field = field.to_ascii_lowercase();
    let words = ["password", "secret", "token", "credential", "key"];
    let is_prefix = field == "key_prefix";
    if !is_prefix && words.iter().any(|word| field.contains(word)) {
        return Value::from("***");
    }
    match value {
        Value::String(text) if text.contains("://") && text.contains(['@', '?']) => {
            Value::from("***")
        }
        Value::Object(fields) => {
            let inner = fields
                .iter()
                .map(|(name, value)| (name.clone(), shown(name, value)));
            Value::Object(inner.collect())
        }
        Value::Array(items) => items.iter().map(|item| shown(&field, item)).collect(),
        other => other.clone(),
    }
}

type OnRemoval = Arc<dyn Fn(&[u8], RemovalCause) + Send + Sync>;

/// What a factory builds with.
#[derive(Clone)]
pub struct BackendContext {
    clock: ClockHandle,
    events: Events,
    extra_bytes_per_value: usize,
    removals: Arc<Mutex<BTreeMap<Arc<str>, RemovalCounts>>>,
    on_removal: Option<OnRemoval>,
}

impl fmt::Debug for BackendContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendContext")
            .field("clock", &self.clock)
            .field("events", &self.events)
            .field("extra_bytes_per_value", &self.extra_bytes_per_value)
            .finish_non_exhaustive()
    }
}

impl BackendContext {
    /// A context whose backends read the time from `clock` and tell `events` what happens.
    #[must_use]
    pub fn new(clock: ClockHandle, events: Events) -> Self {
        Self {
            clock,
            events,
            extra_bytes_per_value: 0,
            removals: Arc::default(),
            on_removal: None,
        }
    }

    /// Bytes that the owner keeps per value beside it, for backends that are bounded in bytes.
    #[must_use]
    pub fn with_extra_bytes_per_value(mut self, bytes: usize) -> Self {
        self.extra_bytes_per_value = bytes;
        self
    }

    /// Whom to tell of each value that a backend dropped on its own. It must not write to the backend.
    #[must_use]
    pub fn with_on_removal(
        mut self,
        f: impl Fn(&[u8], RemovalCause) + Send + Sync + 'static,
    ) -> Self {
        self.on_removal = Some(Arc::new(f));
        self
    }

    /// The clock that decides what has expired.
    #[must_use]
    pub fn clock(&self) -> ClockHandle {
        Arc::clone(&self.clock)
    }

    /// Where to tell what happens.
    #[must_use]
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Bytes to count per value on top of its own.
    #[must_use]
    pub fn extra_bytes_per_value(&self) -> usize {
        self.extra_bytes_per_value
    }

    /// How many values the tier of this name has dropped on its own, since the context was made; `None`
    /// for a tier that does not tell.
    #[must_use]
    pub fn removal_counts(&self, tier: &str) -> Option<RemovalCounts> {
        self.removals.lock().get(tier).copied()
    }

    /// For a backend in this process to call with each value that it dropped on its own.
    pub fn removed(&self, tier: &Arc<str>, key: &[u8], cause: RemovalCause) {
        if let Some(on_removal) = &self.on_removal {
            on_removal(key, cause);
        }
        {
            let mut removals = self.removals.lock();
            let counts = match removals.get_mut(tier) {
                Some(counts) => counts,
                None => removals.entry(Arc::clone(tier)).or_default(),
            };
            match cause {
                RemovalCause::Expired => counts.expired += 1,
                RemovalCause::Evicted => counts.evicted += 1,
            }
        }
        self.events.emit(|events| Event::Removed {
            tier: Arc::clone(tier),
            key: events.digest(key),
            cause,
        });
    }
}

/// How many values a backend in this process has dropped on its own, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RemovalCounts {
    /// Those whose time to live ran out.
    pub expired: u64,
    /// Those that had to make room.
    pub evicted: u64,
}

/// Builds backends of one type.
///
/// ```
/// use std::sync::Arc;
/// use askonce::backend::{
///     BackendContext, BackendFactory, BackendHandle, BoxFuture, CustomConfig, MemoryBackend, MemoryConfig,
/// };
/// use askonce::Result;
///
/// #[derive(Debug)]
/// struct Small;
///
/// impl BackendFactory for Small {
///     fn build<'a>(
///         &'a self,
///         config: &'a CustomConfig,
///         context: &'a BackendContext,
///     ) -> BoxFuture<'a, Result<BackendHandle>> {
///         Box::pin(async move {
///             let memory = MemoryConfig { name: config.name().to_owned(), ..MemoryConfig::default() };
///             let built = MemoryBackend::builder(memory).clock(context.clock()).build()?;
///             Ok(Arc::new(built) as BackendHandle)
///         })
///     }
/// }
/// ```
pub trait BackendFactory: fmt::Debug + Send + Sync + 'static {
    /// Checks settings without building; `path` is where the section stands in the file. Default: all are
    /// good.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the field, its value and what is allowed.
    fn validate(&self, config: &CustomConfig, path: &str) -> Result<()> {
        let _ = (config, path);
        Ok(())
    }

    /// The backend. Should not need its server: one that is down at start must not keep a cache from
    /// starting. Its [name](super::CacheBackend::name) must be the configured one.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the settings cannot be used.
    fn build<'a>(
        &'a self,
        config: &'a CustomConfig,
        context: &'a BackendContext,
    ) -> BoxFuture<'a, Result<BackendHandle>>;
}

/// The types of backends that configuration can name: `memory`, `memcached`, `redis`, and those that were
/// registered.
#[derive(Clone, Debug, Default)]
pub struct BackendRegistry {
    factories: BTreeMap<String, Arc<dyn BackendFactory>>,
}

impl BackendRegistry {
    /// Adds a type. Its sections have the fields that every backend has (`type`, `name`, `enabled`,
    /// `default`, `layers`, `default_ttl`, `enable_metrics`, `health_check_interval`) and those that
    /// `factory` reads.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the name is empty, or taken already, also by a built-in type.
    pub fn register(
        mut self,
        type_name: impl Into<String>,
        factory: impl BackendFactory,
    ) -> Result<Self> {
        let type_name = type_name.into();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if type_name.is_empty() || !type_name.chars().all(plain) {
            return Err(
                Error::new(ErrorKind::Config, "a type of backend cannot have this name")
                    .with("value", type_name.escape_debug())
                    .with("allowed", "letters, digits, - and _"),
            );
        }
        if self.knows(&type_name) {
            return Err(Error::new(
                ErrorKind::Config,
                "there is a type of backend with this name already",
            )
            .with("value", type_name));
        }
        self.factories.insert(type_name, Arc::new(factory));
        Ok(self)
    }

    /// Whether configuration can name this type.
    #[must_use]
    pub fn knows(&self, type_name: &str) -> bool {
        BUILT_IN.contains(&type_name) || self.factories.contains_key(type_name)
    }

    /// The types that configuration can name, in alphabetical order.
    #[must_use]
    pub fn types(&self) -> Vec<&str> {
        let registered = self.factories.keys().map(String::as_str);
        let mut types: Vec<&str> = BUILT_IN.into_iter().chain(registered).collect();
        types.sort_unstable();
        types
    }

    /// Checks the settings of a backend; `path` is where its section stands in the file.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the field, its value and what is allowed.
    pub fn validate(&self, config: &BackendConfig, path: &str) -> Result<()> {
        match config {
            BackendConfig::Memory(memory) => memory.validate(path),
            BackendConfig::Memcached(memcached) => memcached.validate(path),
            BackendConfig::Redis(redis) => redis.validate(path),
            BackendConfig::Tiered(tiered) => tiered.validate(path),
            BackendConfig::Custom(custom) => {
                let factory = self.factory(custom, path)?;
                if custom.name.is_empty() {
                    return Err(Error::new(ErrorKind::Config, "a backend needs a name")
                        .with("field", format!("{path}.name")));
                }
                factory.validate(custom, path)
            }
        }
    }

    fn factory(&self, custom: &CustomConfig, path: &str) -> Result<&Arc<dyn BackendFactory>> {
        self.factories.get(&custom.type_name).ok_or_else(|| {
            let error = Error::new(ErrorKind::Config, "a setting has an unknown value")
                .with("field", format!("{path}.type"))
                .with("value", custom.type_name.escape_debug());
            let error = match nearest(&custom.type_name, &self.types()) {
                Some(near) => error.with("did you mean", near),
                None => error,
            };
            error.with("allowed", self.types().join(", "))
        })
    }

    /// Builds a backend. Does not connect.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the type is unknown or a setting cannot be used.
    pub async fn build(
        &self,
        config: &BackendConfig,
        context: &BackendContext,
    ) -> Result<BackendHandle> {
        match config {
            BackendConfig::Custom(custom) => {
                let factory = self.factory(custom, "backends")?;
                let built = factory.build(custom, context).await?;
                if built.name() == custom.name {
                    return Ok(built);
                }
                Err(Error::new(
                    ErrorKind::Config,
                    "the factory gave the backend another name than the configured one",
                )
                .with("type", &custom.type_name)
                .with("value", built.name())
                .with("allowed", &custom.name))
            }
            built_in => build_built_in(built_in, context),
        }
    }
}

/// What type the name may have been meant for.
#[cfg(feature = "config-file")]
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let distance = |other: &&str| strsim::damerau_levenshtein(name, other);
    let near = known.iter().copied().min_by_key(distance)?;
    (distance(&near) <= 2).then_some(near)
}

#[cfg(not(feature = "config-file"))]
fn nearest<'a>(_: &str, _: &[&'a str]) -> Option<&'a str> {
    None
}

/// Builds a backend of a type that needs no registry.
pub(crate) fn build_built_in(
    config: &BackendConfig,
    context: &BackendContext,
) -> Result<BackendHandle> {
    match config {
        BackendConfig::Memory(memory) => {
            let (told, tier) = (context.clone(), Arc::<str>::from(memory.name.as_str()));
            // It tells from now on, also when there has been nothing to tell.
            let removals = &context.removals;
            removals.lock().entry(Arc::clone(&tier)).or_default();
            let built = MemoryBackend::builder(memory.clone())
                .clock(context.clock())
                .extra_bytes_per_value(context.extra_bytes_per_value)
                .on_removal(move |key, cause| told.removed(&tier, key, cause))
                .build()?;
            let built = Arc::new(built);
            built.keep_settled(memory.cleanup_interval);
            Ok(built)
        }
        #[cfg(feature = "memcached")]
        BackendConfig::Memcached(memcached) => {
            let built = super::MemcachedBackend::builder(memcached.clone())
                .clock(context.clock())
                .build()?;
            Ok(Arc::new(built))
        }
        #[cfg(not(feature = "memcached"))]
        BackendConfig::Memcached(memcached) => Err(memcached.not_built("backends")),
        #[cfg(feature = "redis")]
        BackendConfig::Redis(redis) => {
            let built = super::RedisBackend::builder(redis.clone())
                .clock(context.clock())
                .build()?;
            Ok(Arc::new(built))
        }
        #[cfg(not(feature = "redis"))]
        BackendConfig::Redis(redis) => {
            // Refuses, since this build has no such backend.
            redis.validate("backends")?;
            let message = "this build has no Redis backend";
            Err(Error::new(ErrorKind::Config, message))
        }
        BackendConfig::Tiered(tiered) => Err(Error::new(
            ErrorKind::Config,
            "a stack is built of the other backends of its configuration",
        )
        .with("value", &tiered.name)
        .with(
            "remedy",
            "build the whole configuration, by Caches or SemanticCache",
        )),
        BackendConfig::Custom(custom) => Err(Error::new(
            ErrorKind::Config,
            "a backend of a registered type needs an async start",
        )
        .with("type", &custom.type_name)
        .with("remedy", "use SemanticCache::builder().build().await")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    #[derive(Debug)]
    struct Small;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct SmallSettings {
        kib: u64,
    }

    impl BackendFactory for Small {
        fn validate(&self, config: &CustomConfig, path: &str) -> Result<()> {
            config.read::<SmallSettings>(path).map(drop)
        }

        fn build<'a>(
            &'a self,
            config: &'a CustomConfig,
            context: &'a BackendContext,
        ) -> BoxFuture<'a, Result<BackendHandle>> {
            Box::pin(async move {
                let settings: SmallSettings = config.read("backends")?;
                let memory = MemoryConfig {
                    name: config.name().to_owned(),
                    max_bytes: super::super::ByteSize::kib(settings.kib),
                    ..MemoryConfig::default()
                };
                let built = MemoryBackend::builder(memory).clock(context.clock());
                Ok(Arc::new(built.build()?) as BackendHandle)
            })
        }
    }

    fn read(json: &str) -> BackendConfig {
        serde_json::from_str(json).unwrap()
    }

    fn registry() -> BackendRegistry {
        BackendRegistry::default().register("small", Small).unwrap()
    }

    fn context() -> BackendContext {
        BackendContext::new(Arc::new(SystemClock), Events::default())
    }

    #[tokio::test]
    async fn w_71_a_type_of_a_third_party_is_chosen_in_configuration() {
        let config = read(r#"{"type": "small", "name": "near", "kib": 2048}"#);
        let registry = registry();
        registry.validate(&config, "backends[0]").unwrap();
        let built = registry.build(&config, &context()).await.unwrap();
        assert_eq!(built.name(), "near");
        assert!(built.capability().in_process);
        assert_eq!(built.capability().max_value_bytes, Some(2 << 20));
    }

    #[test]
    fn an_unknown_type_is_refused_with_what_is_known() {
        let config = read(r#"{"type": "smal", "kib": 1}"#);
        let error = registry().validate(&config, "backends[3]").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let shown = error.to_string();
        assert!(
            shown.contains("field: backends[3].type, value: smal"),
            "{shown}"
        );
        assert!(
            shown.contains("allowed: memcached, memory, redis, small, tiered"),
            "{shown}"
        );
        #[cfg(feature = "config-file")]
        assert!(shown.contains("did you mean: small"), "{shown}");
    }

    #[test]
    fn a_factory_refuses_fields_by_name() {
        let config = read(r#"{"type": "small", "kb": 1}"#);
        let error = registry().validate(&config, "backends[0]").unwrap_err();
        assert!(error.to_string().contains("unknown field `kb`"), "{error}");
    }

    #[test]
    fn a_name_is_registered_once_and_built_in_types_stay_what_they_are() {
        for name in ["small", "redis", "", "a b"] {
            let error = registry().register(name, Small).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{name}");
        }
        assert_eq!(
            registry().types(),
            ["memcached", "memory", "redis", "small", "tiered"]
        );
    }

    #[test]
    fn secrets_of_a_custom_section_are_not_shown() {
        let config = read(
            r#"{"type": "small", "api_key": "hush", "url": "x://me:hush@host", "kib": 7,
                "auth": {"Password": "hush", "user": "me"}, "nodes": ["x://a", "x://:hush@b"]}"#,
        );
        let json = serde_json::to_string(&config).unwrap();
        let error = registry().validate(&config, "backends[0]").unwrap_err();
        let all = format!("{config:?} {json} {error} {error:?}");
        assert!(!all.contains("hush"), "{all}");
        for kept in [
            "\"kib\":7",
            "\"user\":\"me\"",
            "x://a",
            "\"type\":\"small\"",
        ] {
            assert!(json.contains(kept), "{json}");
        }
    }

    #[test]
    fn what_is_written_out_reads_back() {
        for json in [
            r#"{"type": "small", "name": "near", "kib": 2048}"#,
            r#"{"type": "memory", "max_bytes": "3 MiB"}"#,
        ] {
            let config = read(json);
            let again = serde_json::to_string(&config).unwrap();
            assert_eq!(read(&again), config, "{again}");
        }
    }
}
