//! From settings to a running cache.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use askonce_models::{EmbedderHandle, StaticEmbedder};
use parking_lot::Mutex;

use super::epoch::InvalidationLog;
use super::invalidate::WrongHits;
use super::stats::{Counters, RunningMean};
use super::{Inner, Semantic, SemanticCache};
#[cfg(feature = "redis")]
use crate::backend::RedisBackend;
use crate::backend::{BackendHandle, MemoryBackend, RedisConfig};
use crate::clock::{ClockHandle, SystemClock};
use crate::codec::Codec;
use crate::config::{BackendConfig, Config, EmbedderConfig};
use crate::embed::EmbedStage;
use crate::entry::catalog::{Catalog, ROW_BYTES};
use crate::error::{Error, ErrorKind, Result};
use crate::policy::PolicyHandle;
use crate::request::ExactKey;
use crate::savings::{Ledger, PriceTable, TokenCounter};
use crate::search::SearchStage;
use crate::stampede::SingleFlight;
use crate::tier::TierStack;

/// How often a cache looks after itself when a runtime is there.
const TEND_INTERVAL: Duration = Duration::from_secs(10);

/// Builds a [`SemanticCache`].
///
/// What is not set comes from [`Config::default`].
#[derive(Default)]
pub struct CacheBuilder {
    config: Config,
    clock: Option<ClockHandle>,
    embedder: Option<EmbedderHandle>,
    policy: Option<PolicyHandle>,
    codec: Option<Codec>,
    backends: Vec<BackendHandle>,
}

impl fmt::Debug for CacheBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheBuilder")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl CacheBuilder {
    /// Uses these settings.
    #[must_use]
    pub fn config(mut self, config: &Config) -> Self {
        self.config = config.clone();
        self
    }

    /// Reads the time from `clock`.
    #[must_use]
    pub fn clock(mut self, clock: ClockHandle) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Embeds with `embedder` instead of the configured one.
    #[must_use]
    pub fn embedder(mut self, embedder: EmbedderHandle) -> Self {
        self.embedder = Some(embedder);
        self
    }

    /// Decides with `policy` instead of the configured one.
    #[must_use]
    pub fn policy(mut self, policy: PolicyHandle) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Writes and reads stored entries by `codec` instead of the configured one.
    #[must_use]
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = Some(codec);
        self
    }

    /// Adds an exact tier behind those added before; the first call replaces the configured ones.
    #[must_use]
    pub fn backend(mut self, backend: BackendHandle) -> Self {
        self.backends.push(backend);
        self
    }

    /// The cache.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the field, its value and what is allowed; what the embedder says
    /// when it cannot be reached to learn its dimension.
    pub async fn build(mut self) -> Result<SemanticCache> {
        self.config.validate()?;
        if self.config.semantic.enabled && self.embedder.is_none() {
            self.embedder = remote_embedder(&self.config.semantic.embedder).await?;
        }
        self.build_local()
    }

    /// The cache, of parts that need no network to start.
    pub(super) fn build_local(self) -> Result<SemanticCache> {
        self.config.validate()?;
        let Self {
            config,
            clock,
            embedder,
            policy,
            codec,
            backends,
        } = self;
        let clock = clock.unwrap_or_else(|| Arc::new(SystemClock));
        let semantic = config
            .semantic
            .enabled
            .then(|| semantic(&config, embedder, policy));
        let semantic = semantic.transpose()?;
        let dropped: Arc<Mutex<Vec<ExactKey>>> = Arc::default();
        let tiers = if backends.is_empty() {
            // Beside its bytes a searchable entry costs a vector, its id, and a catalogue row.
            let vector = semantic
                .as_ref()
                .map_or(0, |semantic| semantic.embed.dimension() * 4 + 160);
            configured(&config.backends, &clock, vector + ROW_BYTES, &dropped)?
        } else {
            backends
        };
        let codec = match codec {
            Some(codec) => codec,
            None => Codec::new(&config.codec)?,
        };
        let tiers = TierStack::new(tiers, codec)?;
        let inner = Arc::new(Inner {
            tier_names: tiers.names().map(Arc::from).collect(),
            tiers,
            catalog: Catalog::default(),
            semantic,
            flights: SingleFlight::default(),
            epochs: InvalidationLog::default(),
            wrong_hits: WrongHits::default(),
            prices: PriceTable::new(&config.prices)?,
            tokens: TokenCounter::new(),
            ledger: Ledger::new(Arc::clone(&clock)),
            typical_cost: RunningMean::default(),
            counters: Counters::default(),
            dropped,
            default_ttl: config.default_ttl,
            volatile: config.semantic.volatile.clone(),
            started: clock.now(),
            clock,
        });
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let weak = Arc::downgrade(&inner);
            runtime.spawn(async move {
                let mut ticks = tokio::time::interval(TEND_INTERVAL);
                loop {
                    ticks.tick().await;
                    let Some(inner) = weak.upgrade() else { return };
                    inner.tend().await;
                    inner.show_holdings().await;
                }
            });
        }
        Ok(SemanticCache { inner })
    }
}

fn semantic(
    config: &Config,
    embedder: Option<EmbedderHandle>,
    policy: Option<PolicyHandle>,
) -> Result<Semantic> {
    let settings = config.semantic.clone();
    let embed = match (embedder, &settings.embedder) {
        (
            Some(embedder),
            EmbedderConfig::Http {
                memo_entries,
                timeout,
                ..
            },
        ) => EmbedStage::new(embedder, *memo_entries, *timeout),
        (Some(embedder), EmbedderConfig::Static) => {
            EmbedStage::new(embedder, 0, Duration::from_secs(2))
        }
        (None, EmbedderConfig::Static) => EmbedStage::new(
            Arc::new(StaticEmbedder::builtin()),
            0,
            Duration::from_secs(2),
        ),
        (None, EmbedderConfig::Http { .. }) => {
            return Err(
                Error::new(ErrorKind::Config, "a remote embedder needs an async start")
                    .with("field", "semantic.embedder.type")
                    .with("remedy", "use SemanticCache::builder().build().await"),
            );
        }
    };
    let search = SearchStage::new(embed.dimension(), settings.index.to_auto("semantic.index")?)?;
    let policy = match policy {
        Some(policy) => policy,
        None => settings.policy.build()?,
    };
    match policy.calibrated_for() {
        Some(fingerprint) if fingerprint == embed.fingerprint() => {}
        Some(fingerprint) => tracing::warn!(
            policy = policy.name(),
            calibrated_for = fingerprint,
            embedder = embed.fingerprint(),
            "the policy's numbers were fitted on another embedding: its probabilities mean nothing here"
        ),
        None => tracing::warn!(
            policy = policy.name(),
            embedder = embed.fingerprint(),
            "the policy was not calibrated for this embedding: wrong hits are not bounded"
        ),
    }
    Ok(Semantic {
        embed,
        search,
        policy,
        settings,
    })
}

fn configured(
    backends: &[BackendConfig],
    clock: &ClockHandle,
    extra_bytes: usize,
    dropped: &Arc<Mutex<Vec<ExactKey>>>,
) -> Result<Vec<BackendHandle>> {
    let mut tiers: Vec<BackendHandle> = Vec::with_capacity(backends.len());
    for backend in backends {
        match backend {
            BackendConfig::Memory(memory) => {
                let dropped = Arc::clone(dropped);
                let built = MemoryBackend::builder(memory.clone())
                    .clock(Arc::clone(clock))
                    .extra_bytes_per_value(extra_bytes)
                    .on_removal(move |key, _| {
                        if let Ok(key) = <[u8; 32]>::try_from(key) {
                            dropped.lock().push(ExactKey::from_bytes(key));
                        }
                    })
                    .build()?;
                tiers.push(Arc::new(built));
            }
            #[cfg(feature = "memcached")]
            BackendConfig::Memcached(memcached) => {
                let built = crate::backend::MemcachedBackend::builder(memcached.clone())
                    .clock(Arc::clone(clock))
                    .build()?;
                tiers.push(Arc::new(built));
            }
            #[cfg(not(feature = "memcached"))]
            BackendConfig::Memcached(memcached) => return Err(memcached.not_built("backends")),
            BackendConfig::Redis(redis) => tiers.push(shared(redis, clock)?),
        }
    }
    Ok(tiers)
}

#[cfg(feature = "redis")]
fn shared(config: &RedisConfig, clock: &ClockHandle) -> Result<BackendHandle> {
    let built = RedisBackend::builder(config.clone())
        .clock(Arc::clone(clock))
        .build()?;
    Ok(Arc::new(built))
}

#[cfg(not(feature = "redis"))]
fn shared(config: &RedisConfig, _: &ClockHandle) -> Result<BackendHandle> {
    // Refuses, since this build has no such backend.
    config.validate("backends")?;
    Err(Error::new(
        ErrorKind::Config,
        "this build has no Redis backend",
    ))
}

#[cfg(feature = "http-embedder")]
async fn remote_embedder(config: &EmbedderConfig) -> Result<Option<EmbedderHandle>> {
    use askonce_models::{HttpConfig, HttpEmbedder};

    let EmbedderConfig::Http {
        base_url,
        model,
        api_key_env,
        dimension,
        timeout,
        retries,
        ..
    } = config
    else {
        return Ok(None);
    };
    let mut http = HttpConfig::new(base_url, model);
    http.api_key_env.clone_from(api_key_env);
    http.dimension = *dimension;
    http.timeout = *timeout;
    http.retries = *retries;
    let unusable = |error| {
        Error::new(ErrorKind::Config, "the embedding server cannot be used")
            .with("field", "semantic.embedder")
            .caused_by(error)
    };
    let embedder = HttpEmbedder::new(http).map_err(unusable)?;
    // Asks once, so that the dimension is known and a wrong address shows now.
    embedder.probe().await.map_err(unusable)?;
    Ok(Some(Arc::new(embedder)))
}

#[cfg(not(feature = "http-embedder"))]
async fn remote_embedder(_: &EmbedderConfig) -> Result<Option<EmbedderHandle>> {
    Ok(None)
}
