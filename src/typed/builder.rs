//! Settings of a typed cache.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::key::{KeyPart, KeyWriter};
use super::{Cache, Inner};
use crate::backend::BackendHandle;
use crate::clock::{ClockHandle, SystemClock};
use crate::codec::Codec;
use crate::entry::zero_life;
use crate::error::Result;

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
    namespace: KeyWriter,
    default_ttl: Option<Duration>,
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
            namespace: KeyWriter::default(),
            default_ttl: None,
        }
    }

    /// Keeps the keys apart from those of other caches over the same backend. Default: none. Called
    /// again, it makes a namespace within the namespace.
    #[must_use]
    pub fn namespace(mut self, name: impl KeyPart) -> Self {
        name.write(&mut self.namespace);
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

    /// The cache.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`](crate::ErrorKind::InvalidRequest) when the default life is zero.
    pub fn build(self) -> Result<Cache> {
        if self.default_ttl == Some(Duration::ZERO) {
            return Err(zero_life());
        }
        Ok(self.finish())
    }

    pub(super) fn finish(self) -> Cache {
        let inner = Inner {
            backend: self.backend,
            clock: self.clock,
            codec: self.codec,
            default_ttl: self.default_ttl,
            gates: Default::default(),
            loads: Default::default(),
        };
        Cache {
            inner: Arc::new(inner),
            namespace: self.namespace,
        }
    }
}
