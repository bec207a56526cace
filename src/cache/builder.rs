//! From settings to a running cache.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use askonce_models::{EmbedderHandle, StaticEmbedder};
use parking_lot::Mutex;

use super::backlog::Backlog;
use super::epoch::InvalidationLog;
use super::invalidate::WrongHits;
use super::many::Batches;
use super::metered::{Spent, metered};
use super::migrate::Migration;
use super::pending::Pending;
use super::profile::{self, Profiles};
use super::recent::Ring;
use super::replay::Ready;
use super::stats::{Counters, Probes, RunningMean};
use super::stream::Lives;
use super::{Inner, Probe, Semantic, SemanticCache, learn};
use crate::admit::{Admission, Quotas};
use crate::assembly::Stores;
use crate::backend::{BackendContext, BackendHandle, BackendRegistry, CacheBackend};
use crate::clock::{ClockHandle, SystemClock, Timestamp};
use crate::codec::Codec;
use crate::config::{
    BackendConfig, BackendSection, Config, CrossEncoderConfig, EmbedderConfig, HttpEmbedderConfig,
    OnnxEmbedderConfig, RefinerConfig, SemanticConfig, VerifierConfig, VerifierModelConfig,
};
#[cfg(any(feature = "minilm", feature = "onnx"))]
use crate::embed::OffThread;
use crate::embed::{EmbedStage, Refiner};
use crate::entry::catalog::{Catalog, ROW_BYTES};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Events, RemovalCause};
use crate::layer::{LayerConfig, Layered};
use crate::learning::{JudgeHandle, Learning, PolicyOrigin, PolicyStatus, last_report, picked_up};
use crate::observe::{self, Meters};
use crate::policy::{
    Calibrated, ExactOnly, OtherEmbedding, PolicyConfig, PolicyHandle, PolicySlot,
};
use crate::request::ExactKey;
use crate::savings::{Ledger, PriceTable, TokenCounter};
use crate::search::{Restored, SearchStage};
use crate::stampede::SingleFlight;
use crate::tier::{TierConfig, TierStack};
use crate::verify::{VerifierHandle, VerifyStage};

/// How often a cache looks after itself when a runtime is there.
const TEND_INTERVAL: Duration = Duration::from_secs(10);

/// How long a lookup waits for a second embedding that was given and not configured.
const REFINE_DEADLINE: Duration = Duration::from_millis(50);

/// Recent texts whose vectors by a model in this process are remembered: 1.5 KB each by the built-in one.
const MODEL_MEMO: u64 = 1_000;

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
    refiner: Option<EmbedderHandle>,
    policy: Option<PolicyHandle>,
    judge: Option<JudgeHandle>,
    verifier: Option<VerifierHandle>,
    codec: Option<Codec>,
    registry: BackendRegistry,
    events: Events,
    keep_recent: usize,
    tiers: Vec<Tier>,
    embedding_spent: Arc<Spent>,
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

    /// Asks `refiner` for a second, slower embedding where the policy is in doubt, instead of the configured
    /// one. A model that computes in this process belongs into [`OffThread`](crate::embed::OffThread).
    #[must_use]
    pub fn refiner(mut self, refiner: EmbedderHandle) -> Self {
        self.refiner = Some(refiner);
        self
    }

    /// Decides with `policy` instead of the configured one.
    #[must_use]
    pub fn policy(mut self, policy: PolicyHandle) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Keeps the last `lookups` lookups, and as many decisions, in memory for
    /// [`recent_lookups`](SemanticCache::recent_lookups) and
    /// [`recent_decisions`](SemanticCache::recent_decisions): some 2 KB each, without text. Default: 0, none.
    #[must_use]
    pub fn keep_recent(mut self, lookups: usize) -> Self {
        self.keep_recent = lookups;
        self
    }

    /// Asks `judge` about answers that cheaper means cannot compare, within the budget of
    /// [`JudgeConfig`](crate::config::JudgeConfig). Default: none.
    #[must_use]
    pub fn judge(mut self, judge: JudgeHandle) -> Self {
        self.judge = Some(judge);
        self
    }

    /// Asks `verifier` about candidates that the policy nearly served, as
    /// [`VerifierConfig`](crate::config::VerifierConfig) says, instead of the model that is configured there.
    #[must_use]
    pub fn verifier(mut self, verifier: VerifierHandle) -> Self {
        self.verifier = Some(verifier);
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
        if self.config.enabled && self.config.semantic.enabled {
            let embedder = &self.config.semantic.embedder;
            if let (None, EmbedderConfig::Http(http)) = (&self.embedder, embedder) {
                let model = remote_embedder(http, "semantic.embedder").await?;
                let prices = PriceTable::new(&self.config.prices)?;
                let spent = &self.embedding_spent;
                self.embedder = model.map(|model| metered(model, &http.model, &prices, spent));
            }
            if tokio::runtime::Handle::try_current().is_ok() {
                SearchStage::handed_over(&self.config.semantic.index).await;
            }
            if let (None, EmbedderConfig::Cascade { refiner, .. }) = (&self.refiner, embedder)
                && let RefinerConfig::Http(http) = refiner
            {
                let model = remote_embedder(http, "semantic.embedder.refiner").await?;
                let prices = PriceTable::new(&self.config.prices)?;
                let spent = &self.embedding_spent;
                self.refiner = model.map(|model| metered(model, &http.model, &prices, spent));
            }
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
    judge: Option<JudgeHandle>,
    codec: Codec,
    keep_recent: usize,
}

impl Parts {
    fn new(builder: CacheBuilder) -> Result<Self> {
        let config = builder.config;
        let codec = match builder.codec {
            Some(codec) => codec,
            None => Codec::new(&config.codec_config())?,
        };
        let clock = builder.clock.unwrap_or_else(|| Arc::new(SystemClock));
        let semantic = (config.enabled && config.semantic.enabled).then(|| {
            let given = Given {
                embedder: builder.embedder,
                refiner: builder.refiner,
                policy: builder.policy,
                verifier: builder.verifier,
                spent: builder.embedding_spent,
            };
            semantic(&config, given, clock.now())
        });
        let (semantic, restored) = semantic.transpose()?.unzip();
        // Beside its bytes a searchable entry costs a vector, its id, a profile, and a catalogue row.
        let vector = semantic.as_ref().map_or(0, |semantic| {
            let second = semantic.refiner.as_ref().map_or(0, |r| r.dimension());
            semantic.embed.dimension() * 4 + 160 + profile::share(second)
        });
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
            judge: builder.judge,
            codec,
            keep_recent: builder.keep_recent,
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
            judge,
            codec,
            keep_recent,
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
        let tiers = TierStack::shared(handles.collect(), codec, together, shared)?
            .keep_decoded(config.ready_part());
        let settings = &config.semantic.learning;
        let file = settings.file(config.semantic.index.path.as_deref());
        let file = file.filter(|_| semantic.is_some());
        let shares = learn::shared_tier(&layers).is_some();
        let mut learning = Learning::new(settings, file, judge, shares)?;
        learning.keep_recent(keep_recent);
        let ledger = Ledger::with_limits(Arc::clone(&clock), config.ledger.clone());
        let ledger_path = config.ledger.file(config.semantic.index.path.as_deref());
        if let Some(path) = &ledger_path {
            ledger.restore(path);
        }
        let inner = Arc::new(Inner {
            meters: Arc::new(Meters::new(tiers.names().count())),
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
            batches: Batches::default(),
            lives: Lives::default(),
            epochs: InvalidationLog::default(),
            wrong_hits: WrongHits::default(),
            ready: Ready::new(config.ready_part()),
            learning,
            pending: Pending::default(),
            migration: Migration::default(),
            prices: PriceTable::new(&config.prices)?,
            tokens: TokenCounter::new(),
            ledger,
            ledger_path,
            typical_cost: RunningMean::default(),
            counters: Counters::default(),
            recent: Ring::new(keep_recent),
            dropped,
            default_ttl,
            enabled: config.enabled,
            protection: config.service.enable_protection,
            volatile: config.semantic.volatile,
            admission: Arc::new(Admission::new(&config.admission)?),
            quotas: Quotas::new(config.admission.quota),
            started: clock.now(),
            clock,
        });
        inner.list_again(restored);
        inner.remember_wrong_hits();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            if let Some(queue) = inner.learning.take_queue() {
                runtime.spawn(Inner::learn(Arc::downgrade(&inner), queue));
            }
            if !inner.migration.is_empty() {
                runtime.spawn(Inner::migrate(Arc::downgrade(&inner)));
            }
            let weak = Arc::downgrade(&inner);
            runtime.spawn(async move {
                let mut ticks = tokio::time::interval(TEND_INTERVAL);
                for turn in 0_u64.. {
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
                    Inner::tend_learning(&inner, turn).await;
                    inner.show_holdings().await;
                }
            });
        }
        Ok(SemanticCache { inner })
    }
}

/// What was not configured but given.
struct Given {
    embedder: Option<EmbedderHandle>,
    refiner: Option<EmbedderHandle>,
    policy: Option<PolicyHandle>,
    verifier: Option<VerifierHandle>,
    spent: Arc<Spent>,
}

fn semantic(config: &Config, given: Given, now: Timestamp) -> Result<(Semantic, Vec<Restored>)> {
    let Given {
        embedder,
        refiner,
        policy,
        verifier,
        spent,
    } = given;
    let settings = config.semantic.clone();
    let patience = Duration::from_secs(2);
    let embed = match (embedder, &settings.embedder) {
        (Some(embedder), EmbedderConfig::Http(http)) => {
            EmbedStage::new(embedder, http.memo_entries, http.timeout)
        }
        (Some(embedder), _) => EmbedStage::new(embedder, 0, patience),
        (None, EmbedderConfig::Http(_)) => return Err(needs_async("semantic.embedder.type")),
        (None, EmbedderConfig::Minilm { path, adapter }) => {
            let files = [path.as_deref(), adapter.as_deref()];
            let model = minilm(files, processors(), "semantic.embedder")?;
            EmbedStage::new(model, MODEL_MEMO, patience)
        }
        (None, EmbedderConfig::Onnx(onnx)) => {
            let model = onnx_embedder(onnx, "semantic.embedder")?;
            EmbedStage::new(model, MODEL_MEMO, patience)
        }
        (None, EmbedderConfig::Static { path }) => {
            let table = static_embedder(path.as_deref(), "semantic.embedder.path")?;
            EmbedStage::new(Arc::new(table), 0, patience)
        }
        (None, EmbedderConfig::Cascade { table, .. }) => {
            let table = static_embedder(table.as_deref(), "semantic.embedder.table")?;
            EmbedStage::new(Arc::new(table), 0, patience)
        }
    };
    let refiner = second(&settings.embedder, refiner)?;
    let (search, restored) =
        SearchStage::restored(embed.dimension(), &settings.index, embed.fingerprint(), now)?;
    let spaces = [
        Some(embed.fingerprint()),
        refiner.as_ref().map(|refiner| refiner.fingerprint()),
    ];
    let (policy, mut status) = first_policy(&settings, policy, spaces, now)?;
    let (policy, refiner) = match_spaces(policy, &embed, refiner)?;
    status.name = policy.name();
    let since = now.as_millis() as f64 / 1e3;
    observe::policy_since(status.name, status.origin.as_str(), since);
    let second = refiner.as_ref().map_or(0, |refiner| refiner.dimension());
    let verifier = verify_stage(settings.verifier.as_ref(), verifier)?;
    let semantic = Semantic {
        embedding_spent: spent,
        verifier,
        embed,
        search,
        policy: PolicySlot::new(policy),
        status: Mutex::new(status),
        backlog: refiner.clone().map(Backlog::new),
        refiner,
        profiles: Profiles::new(second),
        settings,
    };
    Ok((semantic, restored))
}

/// The policy that decides at the start: the one that was given, one that an earlier process fitted anew, or the
/// configured one.
fn first_policy(
    settings: &SemanticConfig,
    given: Option<PolicyHandle>,
    spaces: [Option<&str>; 2],
    now: Timestamp,
) -> Result<(PolicyHandle, PolicyStatus)> {
    let mut status = PolicyStatus {
        name: "",
        origin: PolicyOrigin::Configured,
        since: now.as_millis(),
        created: None,
        digest: None,
        last: None,
    };
    if let Some(policy) = given {
        status.origin = PolicyOrigin::Given;
        return Ok((policy, status));
    }
    let PolicyConfig::Calibrated(calibrated) = &settings.policy else {
        return Ok((settings.policy.build()?, status));
    };
    let Some(path) = &settings.learning.recalibrated_path else {
        return Ok((settings.policy.build()?, status));
    };
    status.last = last_report(path);
    let base = Calibrated::from_settings(calibrated)?;
    let policy = match picked_up(path, &base, calibrated, spaces) {
        Some(policy) => {
            status.origin = PolicyOrigin::Recalibrated;
            policy
        }
        None => base,
    };
    status.created = Some(policy.file().created.clone());
    status.digest = Some(policy.file().digest.clone());
    Ok((Arc::new(policy), status))
}

/// The second embedding, as the settings say or as it was given.
fn second(config: &EmbedderConfig, given: Option<EmbedderHandle>) -> Result<Option<Arc<Refiner>>> {
    let EmbedderConfig::Cascade {
        refiner,
        deadline,
        concurrency,
        ..
    } = config
    else {
        return Ok(given.map(|given| Refiner::new(given, REFINE_DEADLINE, processors(), 0)));
    };
    let concurrency = concurrency.unwrap_or_else(|| match refiner {
        RefinerConfig::Onnx(onnx) => onnx.sessions,
        _ => processors(),
    });
    let (model, memo) = match (given, refiner) {
        (Some(given), RefinerConfig::Http(http)) => (given, http.memo_entries),
        (Some(given), RefinerConfig::Minilm { .. } | RefinerConfig::Onnx(_)) => (given, 0),
        (None, RefinerConfig::Minilm { path, adapter }) => {
            let field = "semantic.embedder.refiner";
            let files = [path.as_deref(), adapter.as_deref()];
            let model = minilm(files, concurrency, field)?;
            (model, MODEL_MEMO)
        }
        (None, RefinerConfig::Onnx(onnx)) => {
            let model = onnx_embedder(onnx, "semantic.embedder.refiner")?;
            (model, MODEL_MEMO)
        }
        (None, RefinerConfig::Http(_)) => {
            return Err(needs_async("semantic.embedder.refiner.type"));
        }
    };
    Ok(Some(Refiner::new(model, *deadline, concurrency, memo)))
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The transformer of these weights with this adapter, off the threads that serve.
#[cfg(feature = "minilm")]
fn minilm(
    [weights, adapter]: [Option<&Path>; 2],
    concurrency: usize,
    field: &'static str,
) -> Result<EmbedderHandle> {
    use askonce_models::MiniLm;

    let unusable = |what: &'static str, setting: &str, path: &Path, error| {
        Error::new(ErrorKind::Config, what)
            .with("field", format!("{field}.{setting}"))
            .with("value", path.display())
            .caused_by(error)
    };
    let mut model = match weights {
        Some(path) => MiniLm::open(path)
            .map_err(|error| unusable("the transformer cannot be used", "path", path, error))?,
        #[cfg(feature = "minilm-weights")]
        None => MiniLm::builtin(),
        #[cfg(not(feature = "minilm-weights"))]
        None => return Err(no_weights(field)),
    };
    if let Some(path) = adapter {
        model = model.with_adapter(path).map_err(|error| {
            unusable("the adapter cannot be used", "adapter", path, error).with(
                "remedy",
                "name a file that `askonce train` wrote for these weights, or leave the field out",
            )
        })?;
    }
    Ok(Arc::new(OffThread::new(Arc::new(model), concurrency)))
}

#[cfg(not(feature = "minilm"))]
fn minilm(_: [Option<&Path>; 2], _: usize, field: &'static str) -> Result<EmbedderHandle> {
    Err(no_weights(field))
}

/// Checked with the other settings, so nobody gets so far.
#[cfg(not(feature = "minilm-weights"))]
fn no_weights(field: &'static str) -> Error {
    Error::new(ErrorKind::Config, "this build has no such transformer").with("field", field)
}

/// A model of the user's own, off the threads that serve.
#[cfg(feature = "onnx")]
fn onnx_embedder(config: &OnnxEmbedderConfig, field: &'static str) -> Result<EmbedderHandle> {
    use crate::config::{OnnxPooling, tokenizer_beside};
    use askonce_models::onnx::{OnnxConfig, OnnxModel, Pooling};
    use askonce_models::{ModelError, OnnxEmbedder};

    let tokenizer = tokenizer_beside(config.tokenizer.as_deref(), &config.path);
    let mut model = OnnxModel::new(&config.path, tokenizer);
    model.max_tokens = config.max_tokens;
    model.threads = config.threads;
    model.sessions = config.sessions;
    model.library.clone_from(&config.library);
    let mut settings = OnnxConfig::new(model);
    settings.pooling = match config.pooling {
        OnnxPooling::Mean => Pooling::Mean,
        OnnxPooling::Cls => Pooling::Cls,
        OnnxPooling::Model => Pooling::Model,
    };
    settings.prefix.clone_from(&config.prefix);
    settings.output.clone_from(&config.output);
    let model = OnnxEmbedder::open(&settings).map_err(|error| {
        let at = match &error {
            ModelError::Config { field, .. } => field,
            _ => "path",
        };
        Error::new(ErrorKind::Config, "the ONNX model cannot be used")
            .with("field", format!("{field}.{at}"))
            .caused_by(error)
    })?;
    let sessions = model.sessions();
    Ok(Arc::new(OffThread::new(Arc::new(model), sessions)))
}

/// Checked with the other settings, so nobody gets so far.
#[cfg(not(feature = "onnx"))]
fn onnx_embedder(_: &OnnxEmbedderConfig, field: &'static str) -> Result<EmbedderHandle> {
    Err(no_onnx(field))
}

#[cfg(not(feature = "onnx"))]
fn no_onnx(field: &'static str) -> Error {
    Error::new(ErrorKind::Config, "this build runs no ONNX models").with("field", field)
}

/// Who verifies, as the settings say or as it was given.
fn verify_stage(
    config: Option<&VerifierConfig>,
    given: Option<VerifierHandle>,
) -> Result<Option<VerifyStage>> {
    let Some(config) = config else {
        return match given {
            None => Ok(None),
            Some(_) => Err(Error::new(
                ErrorKind::Config,
                "a verifier was given, and nothing says from which probability it serves",
            )
            .with("field", "semantic.verifier")
            .with("remedy", "set serve_at there")),
        };
    };
    let verifier = match (given, &config.model) {
        (Some(given), _) => given,
        (None, VerifierModelConfig::CrossEncoder(model)) => {
            cross_encoder(model, "semantic.verifier.model")?
        }
        (None, VerifierModelConfig::LanguageModel) => {
            return Err(Error::new(
                ErrorKind::Config,
                "there is no language model that verifies",
            )
            .with("field", "semantic.verifier.model.type")
            .with(
                "remedy",
                "in the server set judge, in an application give one to CacheBuilder::verifier",
            ));
        }
    };
    Ok(Some(VerifyStage::new(verifier, config.clone())))
}

#[cfg(feature = "onnx")]
fn cross_encoder(config: &CrossEncoderConfig, field: &'static str) -> Result<VerifierHandle> {
    let model = crate::verify::CrossEncoderVerifier::open(config, field)?;
    Ok(Arc::new(model))
}

#[cfg(not(feature = "onnx"))]
fn cross_encoder(_: &CrossEncoderConfig, field: &'static str) -> Result<VerifierHandle> {
    Err(no_onnx(field))
}

fn needs_async(field: &str) -> Error {
    Error::new(ErrorKind::Config, "a remote embedder needs an async start")
        .with("field", field)
        .with("remedy", "use SemanticCache::builder().build().await")
}

/// Sees to it that no policy decides on cosines of another embedding than its numbers were fitted on, unless
/// it says that it may. A second embedding that they do not belong to is not asked.
fn match_spaces(
    policy: PolicyHandle,
    embed: &EmbedStage,
    refiner: Option<Arc<Refiner>>,
) -> Result<(PolicyHandle, Option<Arc<Refiner>>)> {
    let mut calibrated = policy.calibrated_for().iter();
    match calibrated.next() {
        Some(fingerprint) if fingerprint == embed.fingerprint() => {}
        Some(fingerprint) => match policy.on_other_embedding() {
            OtherEmbedding::Refuse => {
                return Err(Error::new(
                    ErrorKind::Config,
                    "the policy was calibrated for another embedding",
                )
                .with("field", "semantic.policy")
                .with("calibrated_for", fingerprint)
                .with("embedder", embed.fingerprint())
                .with(
                    "remedy",
                    "calibrate it for this embedder with askonce calibrate, or use the embedder it was made for",
                ));
            }
            OtherEmbedding::ServeNothing => {
                tracing::warn!(
                    policy = policy.name(),
                    calibrated_for = fingerprint,
                    embedder = embed.fingerprint(),
                    "the built-in policy was calibrated for another embedding: nothing is served by similarity; \
                     calibrate a policy for this one with askonce calibrate"
                );
                return Ok((Arc::new(ExactOnly), None));
            }
            OtherEmbedding::Warn => tracing::warn!(
                policy = policy.name(),
                calibrated_for = fingerprint,
                embedder = embed.fingerprint(),
                "the policy's numbers were fitted on another embedding: its probabilities mean nothing here"
            ),
        },
        None => tracing::warn!(
            policy = policy.name(),
            embedder = embed.fingerprint(),
            "the policy was not calibrated for this embedding: wrong hits are not bounded"
        ),
    }
    let second = calibrated.next().cloned();
    let refiner = refiner.filter(|refiner| match &second {
        Some(fingerprint) if fingerprint != refiner.fingerprint() => {
            tracing::warn!(
                policy = policy.name(),
                calibrated_for = fingerprint,
                refiner = refiner.fingerprint(),
                "the policy's numbers were fitted on another second embedding: it is not asked"
            );
            false
        }
        _ => policy.may_refine(),
    });
    Ok((policy, refiner))
}

/// The table in a file, or the built-in one.
fn static_embedder(path: Option<&Path>, field: &'static str) -> Result<StaticEmbedder> {
    match path {
        None => Ok(StaticEmbedder::builtin()),
        Some(path) => StaticEmbedder::open(path).map_err(|error| {
            Error::new(ErrorKind::Config, "the embedding table cannot be used")
                .with("field", field)
                .with(
                    "remedy",
                    "name a file that `askonce train` wrote, or leave the field out",
                )
                .caused_by(error)
        }),
    }
}

#[cfg(feature = "http-embedder")]
async fn remote_embedder(
    config: &HttpEmbedderConfig,
    field: &'static str,
) -> Result<Option<EmbedderHandle>> {
    use askonce_models::{HttpConfig, HttpEmbedder, http};

    use crate::config::EmbeddingApi;

    let api = match config.api {
        EmbeddingApi::OpenAi => http::Api::OpenAi,
        EmbeddingApi::Tei => http::Api::Tei,
        EmbeddingApi::Ollama => http::Api::Ollama,
    };
    let mut http = HttpConfig::new(&config.base_url, &config.model);
    http.api = api;
    http.api_key_env.clone_from(&config.api_key_env);
    http.dimension = config.dimension;
    http.timeout = config.timeout;
    http.retries = config.retries;
    let unusable = |error| {
        Error::new(ErrorKind::Config, "the embedding server cannot be used")
            .with("field", field)
            .caused_by(error)
    };
    let embedder = HttpEmbedder::new(http).map_err(unusable)?;
    // Asks once, so that the dimension is known and a wrong address shows now.
    embedder.probe().await.map_err(unusable)?;
    Ok(Some(Arc::new(embedder)))
}

#[cfg(not(feature = "http-embedder"))]
async fn remote_embedder(
    _: &HttpEmbedderConfig,
    _: &'static str,
) -> Result<Option<EmbedderHandle>> {
    Ok(None)
}
