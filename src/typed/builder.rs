//! Settings of a typed cache.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::key::KeyPart;
use super::lease::LeaseOptions;
use super::{Cache, Inner, Space};
use crate::backend::BackendHandle;
use crate::clock::{ClockHandle, SystemClock};
use crate::codec::Codec;
use crate::entry::zero_life;
use crate::error::{Error, ErrorKind, Result};

/// Builds a [`Cache`].
///
/// ```
/// # use std::sync::Arc;
/// # use std::time::Duration;
/// # use askonce::backend::{MemoryBackend, MemoryConfig};
/// # use askonce::typed::Cache;
/// # fn main() -> askonce::Result<()> {
/// # let backend = Arc::new(MemoryBackend::builder(MemoryConfig::default()).build()?);
/// let cache = Cache::builder(backend)
///     .namespace("users")
///     .default_ttl(Duration::from_secs(300))
///     .build()?;
/// # Ok(())
/// # }
/// ```
pub struct CacheBuilder {
    backend: BackendHandle,
    clock: ClockHandle,
    codec: Codec,
    namespace: Space,
    default_ttl: Option<Duration>,
    jitter: f64,
    hashed_keys: bool,
    generations: bool,
    single_flight: bool,
    lease: Option<LeaseOptions>,
    seed: Option<u64>,
}

impl fmt::Debug for CacheBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheBuilder")
            .field("backend", &self.backend.name())
            .field("default_ttl", &self.default_ttl)
            .finish_non_exhaustive()
    }
}

impl CacheBuilder {
    pub(super) fn new(backend: BackendHandle) -> Self {
        Self {
            backend,
            clock: Arc::new(SystemClock),
            codec: Codec::default(),
            namespace: Space::default(),
            default_ttl: None,
            jitter: 0.0,
            hashed_keys: false,
            generations: true,
            single_flight: true,
            lease: None,
            seed: None,
        }
    }

    /// Keeps the keys apart from those of other caches over the same backend. Default: none. Called
    /// again, it makes a namespace within the namespace.
    #[must_use]
    pub fn namespace(mut self, name: impl KeyPart) -> Self {
        self.namespace = self.namespace.within(&name);
        self
    }

    /// How long values live that are stored with [`Ttl::Default`](super::Ttl::Default). Default:
    /// forever, which `None` means here too.
    #[must_use]
    pub fn default_ttl(mut self, life: impl Into<Option<Duration>>) -> Self {
        self.default_ttl = life.into();
        self
    }

    /// The clock that decides what has expired. Default: the system clock.
    #[must_use]
    pub fn clock(mut self, clock: ClockHandle) -> Self {
        self.clock = clock;
        self
    }

    /// How values are written. Default: MessagePack, uncompressed and unprotected. Values that other
    /// codecs wrote are read if they can be; whether a codec that protects values takes unprotected
    /// ones is a setting of it.
    #[must_use]
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// The share of its life, from 0 to 1, that is taken off a value at random, so that values stored
    /// together do not die together: a value lives for `life * (1 - share * u)`, `u` uniform from 0 to
    /// 1. Never longer than asked, and never at all where there is no life to take from. Default: 0.
    #[must_use]
    pub fn jitter(mut self, share: f64) -> Self {
        self.jitter = share;
        self
    }

    /// Keeps keys unreadable in the store: a value lies under its namespace and a digest. For keys made
    /// of what must not be seen there. Patterns then match nothing but all. Caches with and without it
    /// do not see each other's values. Default: off.
    #[must_use]
    pub fn hashed_keys(mut self, hashed: bool) -> Self {
        self.hashed_keys = hashed;
        self
    }

    /// Whether a value carries the generation of its namespace, which makes [`Cache::clear`] one write
    /// however much there is to clear, and stops loads in other processes. It costs one small value more
    /// per read, in the same request, and one request more per write. A cache without a namespace has no
    /// generation. All caches in a namespace must agree. Default: on.
    #[must_use]
    pub fn generations(mut self, on: bool) -> Self {
        self.generations = on;
        self
    }

    /// Whether callers in this process who ask for the same key at the same time share one load. Default:
    /// on. Without, each runs its own.
    #[must_use]
    pub fn single_flight(mut self, on: bool) -> Self {
        self.single_flight = on;
        self
    }

    /// How loads in several processes become one, where a load does not
    /// [say](super::Load::lease). Default: `None`, each process loads for itself.
    #[must_use]
    pub fn lease(mut self, options: impl Into<Option<LeaseOptions>>) -> Self {
        self.lease = options.into();
        self
    }

    /// Makes jitter and early refreshes the same in every run. For tests and simulations; default: not.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// The cache.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`](crate::ErrorKind::InvalidRequest) when the default life is zero, or
    /// jitter is not from 0 to 1.
    pub fn build(self) -> Result<Cache> {
        if self.default_ttl == Some(Duration::ZERO) {
            return Err(zero_life());
        }
        if !(0.0..=1.0).contains(&self.jitter) {
            return Err(
                Error::new(ErrorKind::InvalidRequest, "jitter is a share of a life")
                    .with("field", "jitter")
                    .with("value", self.jitter)
                    .with("allowed", "0 to 1"),
            );
        }
        Ok(self.finish())
    }

    pub(super) fn finish(self) -> Cache {
        let inner = Inner {
            backend: self.backend,
            clock: self.clock,
            codec: self.codec,
            default_ttl: self.default_ttl,
            jitter: self.jitter,
            hashed_keys: self.hashed_keys,
            generations: self.generations,
            single_flight: self.single_flight,
            lease: self.lease,
            chance: Mutex::new(match self.seed {
                Some(seed) => StdRng::seed_from_u64(seed),
                None => rand::make_rng(),
            }),
            gates: Default::default(),
            loads: Default::default(),
            refreshing: Default::default(),
            backoff: Default::default(),
        };
        Cache {
            inner: Arc::new(inner),
            namespace: Arc::new(self.namespace),
        }
    }
}
