//! From settings to a running cache.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use askonce_models::{EmbedderHandle, StaticEmbedder};
use parking_lot::Mutex;

use super::epoch::InvalidationLog;
use super::invalidate::WrongHits;
use super::stats::{Counters, Probes, RunningMean};
use super::{Inner, Probe, Semantic, SemanticCache};
use crate::assembly::Stores;
use crate::backend::{BackendContext, BackendHandle, BackendRegistry, CacheBackend};
use crate::clock::{ClockHandle, SystemClock, Timestamp};
use crate::codec::Codec;
use crate::config::{BackendConfig, BackendSection, Config, EmbedderConfig};
use crate::embed::EmbedStage;
use crate::entry::catalog::{Catalog, ROW_BYTES};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Events, RemovalCause};
use crate::layer::{LayerConfig, Layered};
use crate::policy::PolicyHandle;
use crate::request::ExactKey;
use crate::savings::{Ledger, PriceTable, TokenCounter};
use crate::search::{Restored, SearchStage};
use crate::stampede::SingleFlight;
use crate::tier::{TierConfig, TierStack};

/// How often a cache looks after itself when a runtime is there.
const TEND_INTERVAL: Duration = Duration::from_secs(10);

/// Batches of dead entries that one look takes out at most: many die at once where many were stored at once.
const TEND_ROUNDS: usize = 1024;

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
    registry: BackendRegistry,
    events: Events,
    tiers: Vec<Tier>,
}

/// A tier that was not configured but given.
enum Tier {
    Bare(BackendHandle),
    Layered(Arc<Layered>),
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

    /// Knows these types of backends beside the built-in ones. Default: none.
    #[must_use]
    pub fn registry(mut self, registry: BackendRegistry) -> Self {
        self.registry = registry;
        self
    }

    /// Tells this stream what happens in the tiers. Default: a stream of the cache's own, see
    /// [`SemanticCache::subscribe`].
    #[must_use]
    pub fn events(mut self, events: Events) -> Self {
        self.events = events;
        self
    }

    /// Adds an exact tier behind those added before; the first call replaces the configured ones. It is
    /// put into layers with default settings; [`layered`](Self::layered) takes one that has its own.
    #[must_use]
    pub fn backend(mut self, backend: BackendHandle) -> Self {
        self.tiers.push(Tier::Bare(backend));
        self
    }

    /// As [`backend`](Self::backend), for one that is in its layers already. It tells its own events.
    #[must_use]
    pub fn layered(mut self, backend: Arc<Layered>) -> Self {
        self.tiers.push(Tier::Layered(backend));
        self
    }

    /// The cache.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the field, its value and what is allowed; what the embedder says
    /// when it cannot be reached to learn its dimension.
    pub async fn build(mut self) -> Result<SemanticCache> {
        self.config.validate_with(&self.registry)?;
        if self.config.enabled && self.config.semantic.enabled && self.embedder.is_none() {
            self.embedder = remote_embedder(&self.config.semantic.embedder).await?;
        }
        let registry = self.registry.clone();
        let parts = Parts::new(self)?;
        let (mut tiers, mut together) = (parts.given()?, parts.config.tiers.clone());
        if tiers.is_empty() {
            let stores = Stores::build(&parts.config, &registry, &parts.context).await?;
            (tiers, together) = parts.configured(&stores)?;
        }
        parts.assemble(tiers, &together)
    }

    /// The cache, of parts that need no network to start.
    pub(super) fn build_local(self) -> Result<SemanticCache> {
        self.config.validate()?;
        let parts = Parts::new(self)?;
        let (mut tiers, mut together) = (parts.given()?, parts.config.tiers.clone());
        if tiers.is_empty() {
            let stores = Stores::build_local(&parts.config, &parts.context)?;
            (tiers, together) = parts.configured(&stores)?;
        }
        parts.assemble(tiers, &together)
    }
}

/// A tier, and what is known of its health.
type Probed = (Arc<Layered>, Probe);

/// What a cache is made of, but for its tiers.
struct Parts {
    config: Config,
    semantic: Option<Semantic>,
    restored: Vec<Restored>,
    context: BackendContext,
    dropped: Arc<Mutex<Vec<(ExactKey, RemovalCause)>>>,
    given: Vec<Tier>,
    codec: Codec,
}

impl Parts {
    fn new(builder: CacheBuilder) -> Result<Self> {
        let config = builder.config;
        let codec = match builder.codec {
            Some(codec) => codec,
            None => Codec::new(&config.codec_config())?,
        };
        let clock = builder.clock.unwrap_or_else(|| Arc::new(SystemClock));
        let semantic = (config.enabled && config.semantic.enabled)
            .then(|| semantic(&config, builder.embedder, builder.policy, clock.now()));
        let (semantic, restored) = semantic.transpose()?.unzip();
        // Beside its bytes a searchable entry costs a vector, its id, and a catalogue row.
        let vector = semantic
            .as_ref()
            .map_or(0, |semantic| semantic.embed.dimension() * 4 + 160);
        let dropped: Arc<Mutex<Vec<(ExactKey, RemovalCause)>>> = Arc::default();
        let told = Arc::clone(&dropped);
        let context = BackendContext::new(clock, builder.events)
            .with_extra_bytes_per_value(vector + ROW_BYTES)
            .with_on_removal(move |key, cause| {
                if let Ok(key) = <[u8; 32]>::try_from(key) {
                    told.lock().push((ExactKey::from_bytes(key), cause));
                }
            });
        Ok(Self {
            config,
            semantic,
            restored: restored.unwrap_or_default(),
            context,
            dropped,
            given: builder.tiers,
            codec,
        })
    }

    /// The configured tiers, nearest first: those in this process, then the others as listed. And how they
    /// go together.
    fn configured(&self, stores: &Stores<'_>) -> Result<(Vec<Probed>, TierConfig)> {
        let here = |(tier, _): &Probed| CacheBackend::capability(&**tier).in_process;
        let probed = |section: &BackendSection| {
            let probe = Probe::new(section.health_check_interval);
            Ok::<Probed, Error>((stores.layered(section)?, probe))
        };
        let sections: Vec<_> = self.config.sections().collect();
        // One stack of memory over a server is taken apart, so that hits, health and statistics name the
        // tiers that it is made of; it is put together again as it was.
        if let [section] = sections[..]
            && let BackendConfig::Tiered(stack) = &section.backend
            && let (Some(near), Some(far)) = (
                self.config.section(&stack.near),
                self.config.section(&stack.far),
            )
        {
            let (near, far) = (probed(near)?, probed(far)?);
            if here(&near) && !here(&far) {
                return Ok((vec![near, far], stack.tiers.clone()));
            }
        }
        let tiers = sections.into_iter().map(probed);
        let mut tiers: Vec<_> = tiers.collect::<Result<_>>()?;
        tiers.sort_by_key(|tier| !here(tier));
        Ok((tiers, self.config.tiers.clone()))
    }

    /// The tiers that were given in place of the configured ones, nearest first.
    fn given(&self) -> Result<Vec<Probed>> {
        let layered = self.given.iter().map(|tier| {
            let layered = match tier {
                Tier::Layered(tier) => Arc::clone(tier),
                Tier::Bare(tier) => self.layered(Arc::clone(tier), LayerConfig::default())?,
            };
            Ok((layered, Probe::new(Duration::ZERO)))
        });
        layered.collect()
    }

    fn layered(&self, backend: BackendHandle, config: LayerConfig) -> Result<Arc<Layered>> {
        let layered = Layered::builder(backend)
            .config(config)
            .clock(self.context.clock())
            .events(self.context.events().clone())
            .build()?;
        Ok(Arc::new(layered))
    }

    fn assemble(self, layers: Vec<Probed>, together: &TierConfig) -> Result<SemanticCache> {
        let Self {
            config,
            semantic,
            restored,
            context,
            dropped,
            codec,
            ..
        } = self;
        let default_ttl = config.ttl_of(config.default_section()?);
        if config.debug {
            context.events().log();
        }
        let clock = context.clock();
        let (layers, health): (Vec<_>, Vec<_>) = layers.into_iter().unzip();
        let handles = layers.iter().map(|tier| Arc::clone(tier) as BackendHandle);
        let shared = Arc::clone(&clock);
        let tiers = TierStack::shared(handles.collect(), codec, together, shared)?;
        let inner = Arc::new(Inner {
            tier_names: tiers.names().map(Arc::from).collect(),
            tiers,
            probes: Probes::new(layers.len()),
            layers: layers.into(),
            health: health.into(),
            checks: config.service.enable_health_checks,
            events: context.events().clone(),
            context,
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
            default_ttl,
            enabled: config.enabled,
            protection: config.service.enable_protection,
            volatile: config.semantic.volatile,
            started: clock.now(),
            clock,
        });
        inner.list_again(restored);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let weak = Arc::downgrade(&inner);
            runtime.spawn(async move {
                let mut ticks = tokio::time::interval(TEND_INTERVAL);
                loop {
                    ticks.tick().await;
                    let Some(inner) = weak.upgrade() else { return };
                    for _ in 0..TEND_ROUNDS {
                        inner.tend().await;
                        if inner.catalog.expired(inner.clock.now(), 1).is_empty() {
                            break;
                        }
                    }
                    inner.tend_shared().await;
                    Inner::tend_index(inner.clone()).await;
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
    now: Timestamp,
) -> Result<(Semantic, Vec<Restored>)> {
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
        (Some(embedder), EmbedderConfig::Static { .. }) => {
            EmbedStage::new(embedder, 0, Duration::from_secs(2))
        }
        (None, EmbedderConfig::Static { path }) => EmbedStage::new(
            Arc::new(static_embedder(path.as_deref())?),
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
    let (search, restored) =
        SearchStage::restored(embed.dimension(), &settings.index, embed.fingerprint(), now)?;
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
    let semantic = Semantic {
        embed,
        search,
        policy,
        settings,
    };
    Ok((semantic, restored))
}

/// The table in a file, or the built-in one.
fn static_embedder(path: Option<&Path>) -> Result<StaticEmbedder> {
    match path {
        None => Ok(StaticEmbedder::builtin()),
        Some(path) => StaticEmbedder::open(path).map_err(|error| {
            Error::new(ErrorKind::Config, "the embedding table cannot be used")
                .with("field", "semantic.embedder.path")
                .with(
                    "remedy",
                    "name a file that `askonce train` wrote, or leave `path` out",
                )
                .caused_by(error)
        }),
    }
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
