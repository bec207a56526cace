//! Named typed caches from one configuration.
//!
//! Each backend that is listed and enabled is one [`Cache`], by the backend's name; a backend of type
//! `tiered` is made of two others, which are then part of it. [`Caches`] builds them, hands them out, says
//! how they are, and closes them.
//!
//! Always true: a cache that was asked for by name keeps its values in the backend of that name and
//! nowhere else; an unknown name is an error that lists the known ones; building connects to nothing, so
//! a server that is down at start keeps no program from starting.
//!
//! ```
//! use askonce::config::BackendConfig;
//! use askonce::backend::MemoryConfig;
//! use askonce::typed::{Key, Lookup, Ttl};
//! use askonce::{Caches, Config};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> askonce::Result<()> {
//! let named = |name: &str| {
//!     let memory = MemoryConfig { name: name.to_owned(), ..MemoryConfig::default() };
//!     BackendConfig::Memory(memory).into()
//! };
//! let config = Config { backends: vec![named("users"), named("pages")], ..Config::default() };
//! let caches = Caches::from_config(&config).await?;
//!
//! let key = Key::new("name").part(7);
//! caches.cache("users")?.set(&key, &"Ada".to_owned(), Ttl::Default).await?;
//! assert_eq!(caches.cache("pages")?.get::<String>(&key).await?, Lookup::Miss);
//! assert!(caches.cache("user").is_err());
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::sync::Arc;

use futures_util::future::join_all;

use crate::assembly::Stores;
use crate::backend::{BackendConfig, BackendContext, BackendHandle, BackendRegistry, CacheBackend};
use crate::cache::{Health, Probe};
use crate::clock::{ClockHandle, SystemClock};
use crate::codec::Codec;
use crate::config::{BackendSection, Config};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Events, Subscription};
use crate::layer::Layered;
use crate::lock::{LockConfig, Locks};
use crate::typed::{Cache, LeaseOptions};

/// Builds [`Caches`].
///
/// What is not set comes from [`Config::default`].
#[derive(Default)]
pub struct CachesBuilder {
    config: Config,
    clock: Option<ClockHandle>,
    codec: Option<Codec>,
    registry: BackendRegistry,
    events: Events,
}

impl fmt::Debug for CachesBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachesBuilder")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl CachesBuilder {
    /// Uses these settings.
    #[must_use]
    pub fn config(mut self, config: &Config) -> Self {
        self.config = config.clone();
        self
    }

    /// Reads the time from `clock`. Default: the system clock.
    #[must_use]
    pub fn clock(mut self, clock: ClockHandle) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Writes and reads values by `codec` instead of the configured one.
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

    /// Tells this stream what happens in the backends. Default: a stream of the caches' own, see
    /// [`Caches::subscribe`].
    #[must_use]
    pub fn events(mut self, events: Events) -> Self {
        self.events = events;
        self
    }

    /// The caches. Connects to nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the field, its value and what is allowed.
    pub async fn build(self) -> Result<Caches> {
        self.config.validate_with(&self.registry)?;
        let context = self.context();
        let stores = Stores::build(&self.config, &self.registry, &context).await?;
        self.assemble(&stores, &context)
    }

    /// The caches, of built-in types alone.
    fn build_local(self) -> Result<Caches> {
        self.config.validate()?;
        let context = self.context();
        let stores = Stores::build_local(&self.config, &context)?;
        self.assemble(&stores, &context)
    }

    fn context(&self) -> BackendContext {
        let clock = self.clock.clone().unwrap_or_else(|| Arc::new(SystemClock));
        BackendContext::new(clock, self.events.clone())
    }

    fn assemble(&self, stores: &Stores<'_>, context: &BackendContext) -> Result<Caches> {
        let config = &self.config;
        let codec = match &self.codec {
            Some(codec) => codec.clone(),
            None => Codec::new(&config.codec_config())?,
        };
        let clock = context.clock();
        let mut caches = Vec::new();
        for section in config.sections() {
            let backend = stores.layered(section)?;
            let cache = cache_of(config, section, &backend, &codec, &clock)?;
            caches.push(Named {
                cache,
                probe: Probe::new(section.health_check_interval),
                backend,
            });
        }
        let default = config.default_section()?.backend.name();
        let default = caches.iter().position(|named| named.name() == default);
        if config.debug {
            context.events().log();
        }
        Ok(Caches {
            inner: Arc::new(Inner {
                default: default.unwrap_or_default(),
                caches,
                checks: config.service.enable_health_checks,
                locks: config.locks.clone(),
                clock,
                events: context.events().clone(),
            }),
        })
    }
}

/// One cache as its section and the service settings say.
fn cache_of(
    config: &Config,
    section: &BackendSection,
    backend: &Arc<Layered>,
    codec: &Codec,
    clock: &ClockHandle,
) -> Result<Cache> {
    let service = &config.service;
    let shared = !CacheBackend::capability(&**backend).in_process;
    let lease = (service.enable_protection && shared).then(|| {
        LeaseOptions::new()
            .ttl(service.protection_lock_ttl)
            .wait(service.protection_max_wait)
            .poll(service.protection_retry_interval)
    });
    let mut builder = Cache::builder(Arc::clone(backend) as BackendHandle)
        .clock(Arc::clone(clock))
        .codec(codec.clone())
        .default_ttl(config.ttl_of(section))
        .single_flight(service.enable_protection)
        .lease(lease);
    match &section.backend {
        BackendConfig::Memory(memory) if !memory.key_prefix.is_empty() => {
            builder = builder.namespace(memory.key_prefix.as_str());
        }
        // What it does about prefixes is its own.
        BackendConfig::Custom(_) => {
            if let Some(space) = config.key_space() {
                builder = builder.namespace(space);
            }
        }
        _ => {}
    }
    builder.build()
}

/// Named typed caches; see the [module](self).
///
/// Cheap to clone; clones are the same caches.
#[derive(Clone)]
pub struct Caches {
    inner: Arc<Inner>,
}

struct Inner {
    /// As listed in the configuration.
    caches: Vec<Named>,
    /// Which of them is meant where none is named.
    default: usize,
    /// Whether health is asked for, or told from what was seen.
    checks: bool,
    locks: LockConfig,
    clock: ClockHandle,
    events: Events,
}

struct Named {
    cache: Cache,
    backend: Arc<Layered>,
    probe: Probe,
}

impl Named {
    fn name(&self) -> &str {
        CacheBackend::name(&*self.backend)
    }
}

impl fmt::Debug for Caches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caches")
            .field("names", &self.names())
            .finish_non_exhaustive()
    }
}

impl Caches {
    /// A builder with default settings.
    #[must_use]
    pub fn builder() -> CachesBuilder {
        CachesBuilder::default()
    }

    /// The caches of a configuration.
    ///
    /// # Errors
    /// The builder's.
    pub async fn from_config(config: &Config) -> Result<Self> {
        Self::builder().config(config).build().await
    }

    /// One cache in memory, named `memory`, with default settings.
    ///
    /// # Errors
    /// None in practice; the builder's.
    pub fn in_memory() -> Result<Self> {
        Self::builder().build_local()
    }

    /// The cache of this name.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when there is none, with the names that there are.
    pub fn cache(&self, name: &str) -> Result<Cache> {
        Ok(self.named(name)?.cache.clone())
    }

    /// The cache that is meant where none is named: that of `service.default_backend`, else of the backend
    /// marked `default`, else of the first that is enabled.
    #[must_use]
    pub fn default_cache(&self) -> Cache {
        self.inner.caches[self.inner.default].cache.clone()
    }

    /// The names of the caches, as listed in the configuration.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.inner.caches.iter().map(Named::name).collect()
    }

    /// The backend of the cache of this name, in its layers: what it has done, and its keys as they are.
    ///
    /// # Errors
    /// As [`cache`](Self::cache).
    pub fn backend(&self, name: &str) -> Result<Arc<Layered>> {
        Ok(Arc::clone(&self.named(name)?.backend))
    }

    /// Locks in the backend of this name, with the configured settings.
    ///
    /// # Errors
    /// As [`cache`](Self::cache).
    pub fn locks(&self, name: &str) -> Result<Locks> {
        let backend = Arc::clone(&self.named(name)?.backend);
        Locks::with_config(backend, Arc::clone(&self.inner.clock), &self.inner.locks)
    }

    fn named(&self, name: &str) -> Result<&Named> {
        let mut caches = self.inner.caches.iter();
        caches.find(|named| named.name() == name).ok_or_else(|| {
            Error::new(ErrorKind::Config, "there is no cache of this name")
                .with("value", name.escape_debug())
                .with("allowed", self.names().join(", "))
        })
    }

    /// How the backends are. Takes a second at most, whatever hangs. Each backend is asked by one caller at a
    /// time, all at the same time. One that was well and has not failed since is not asked again within its
    /// `health_check_interval`; none is asked where `service.enable_health_checks` is off.
    pub async fn health(&self) -> Health {
        let inner = &*self.inner;
        let probes = inner
            .caches
            .iter()
            .map(|named| named.probe.ask(&named.backend, &inner.clock, inner.checks));
        Health::of(join_all(probes).await)
    }

    /// What happens in the backends from now on. A subscriber that is too slow loses events and holds nobody
    /// up.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        self.inner.events.subscribe()
    }

    /// Closes the backends: connections are given back, background work ends. The caches are not to be
    /// used after that; what is asked of them may fail.
    pub async fn close(&self) {
        let backends = self.inner.caches.iter().map(|named| &*named.backend);
        join_all(backends.map(CacheBackend::close)).await;
    }
}
