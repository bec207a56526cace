//! What a stack is made of, and which stacks are tried.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use askonce::backend::{BackendHandle, ByteSize, MemoryBackend, MemoryConfig};
use askonce::clock::ManualClock;
use askonce::codec::{
    CodecConfig, Compression, CompressionConfig, KeyConfig, ProtectionConfig, ProtectionKind,
    Secret, Serializer,
};
use askonce::layer::{BreakerConfig, LayerConfig, Layered};
use askonce::tier::{TierConfig, TieredBackend};

/// Where values lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    Memory,
    MemoryOverMemory,
    #[cfg(feature = "redis")]
    Redis,
    #[cfg(feature = "redis")]
    MemoryOverRedis,
    #[cfg(feature = "memcached")]
    Memcached,
}

const STORES: &[Store] = &[
    Store::Memory,
    Store::MemoryOverMemory,
    #[cfg(feature = "redis")]
    Store::Redis,
    #[cfg(feature = "redis")]
    Store::MemoryOverRedis,
    #[cfg(feature = "memcached")]
    Store::Memcached,
];

const SERIALIZERS: &[Serializer] = &[Serializer::MsgPack, Serializer::Json, Serializer::Postcard];

const COMPRESSIONS: &[Compression] = &[
    Compression::None,
    #[cfg(feature = "compression")]
    Compression::Zstd,
    #[cfg(feature = "compression")]
    Compression::Lz4,
];

const PROTECTIONS: &[ProtectionKind] = &[
    ProtectionKind::None,
    ProtectionKind::Mac,
    #[cfg(feature = "encryption")]
    ProtectionKind::AesGcm,
    #[cfg(feature = "encryption")]
    ProtectionKind::ChaCha20Poly1305,
];

/// Any that is not refused as too easy.
const SECRET: &str = "5caaaa7c29ad735bc50a397fe252f63dbfd3bdfca857191cc789c501e33c6f6e";

/// One combination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stack {
    pub(crate) store: Store,
    serializer: Serializer,
    compression: Compression,
    protection: ProtectionKind,
}

/// All combinations.
pub(crate) fn product() -> Vec<Stack> {
    let mut all = Vec::new();
    for &store in STORES {
        for &serializer in SERIALIZERS {
            for &compression in COMPRESSIONS {
                for &protection in PROTECTIONS {
                    all.push(Stack {
                        store,
                        serializer,
                        compression,
                        protection,
                    });
                }
            }
        }
    }
    all
}

/// The pairs of values of two axes that meet in some of these stacks.
pub(crate) fn pairs_of(stacks: &[Stack]) -> BTreeSet<(String, String)> {
    let pairs = stacks.iter().flat_map(|stack| {
        let values = [
            format!("{:?}", stack.store),
            format!("{:?}", stack.serializer),
            // Two axes have a `None`.
            format!("compression {:?}", stack.compression),
            format!("protection {:?}", stack.protection),
        ];
        let first = values.clone().into_iter().enumerate();
        first.flat_map(move |(at, first)| {
            let second = values.clone().into_iter().skip(at + 1);
            second.map(move |second| (first.clone(), second))
        })
    });
    pairs.collect()
}

/// Some of the product in which every pair meets: again and again the stack that adds most pairs.
pub(crate) fn sample() -> Vec<Stack> {
    let product = product();
    let mut missing = pairs_of(&product);
    let mut sample = Vec::new();
    while !missing.is_empty() {
        let adds = |stack: &&Stack| pairs_of(&[**stack]).intersection(&missing).count();
        let Some(best) = product.iter().max_by_key(adds).copied() else {
            break;
        };
        for pair in pairs_of(&[best]) {
            missing.remove(&pair);
        }
        sample.push(best);
    }
    sample
}

impl Stack {
    pub(crate) fn codec(self) -> CodecConfig {
        let key = KeyConfig {
            id: 1,
            secret: Some(Secret::new(SECRET)),
            ..KeyConfig::default()
        };
        let protected = self.protection != ProtectionKind::None;
        CodecConfig {
            serializer: self.serializer,
            compression: CompressionConfig {
                algorithm: self.compression,
                min_bytes: ByteSize::b(64),
                ..CompressionConfig::default()
            },
            protection: ProtectionConfig {
                kind: self.protection,
                keys: protected.then_some(key).into_iter().collect(),
                ..ProtectionConfig::default()
            },
            ..CodecConfig::default()
        }
    }

    /// The store in its layers; `None` when it needs a server that is not installed.
    pub(crate) fn layered(self, clock: &Arc<ManualClock>) -> Option<Arc<Layered>> {
        let backend: BackendHandle = match self.store {
            Store::Memory => memory(clock),
            Store::MemoryOverMemory => tiers(clock, in_layers(clock, memory(clock)) as _),
            #[cfg(feature = "redis")]
            Store::Redis => redis(clock)?,
            #[cfg(feature = "redis")]
            Store::MemoryOverRedis => tiers(clock, in_layers(clock, redis(clock)?) as _),
            #[cfg(feature = "memcached")]
            Store::Memcached => memcached(clock)?,
        };
        Some(in_layers(clock, backend))
    }
}

/// Patience with a busy machine.
fn in_layers(clock: &Arc<ManualClock>, backend: BackendHandle) -> Arc<Layered> {
    let config = LayerConfig {
        deadline: Some(Duration::from_secs(60)),
        breaker: BreakerConfig {
            slow_call: None,
            ..BreakerConfig::default()
        },
        ..LayerConfig::default()
    };
    let builder = Layered::builder(backend).clock(Arc::clone(clock) as _);
    Arc::new(
        builder
            .config(config)
            .build()
            .expect("the settings are valid"),
    )
}

fn memory(clock: &Arc<ManualClock>) -> BackendHandle {
    let config = MemoryConfig {
        max_bytes: ByteSize::mib(64),
        ..MemoryConfig::default()
    };
    let builder = MemoryBackend::builder(config).clock(Arc::clone(clock) as _);
    Arc::new(builder.build().expect("the settings are valid"))
}

/// A memory tier over `far`, kept coherent by the far tier's feed.
fn tiers(clock: &Arc<ManualClock>, far: BackendHandle) -> BackendHandle {
    let config = TierConfig {
        near_ttl: Duration::from_secs(60),
        feed_wait: Duration::from_millis(20),
        // The clock leaps.
        feed_lag: Duration::from_secs(24 * 60 * 60),
        ..TierConfig::default()
    };
    let builder = TieredBackend::builder(memory(clock), far).clock(Arc::clone(clock) as _);
    Arc::new(
        builder
            .config(config)
            .build()
            .expect("the settings are valid"),
    )
}

#[cfg(feature = "redis")]
fn redis(clock: &Arc<ManualClock>) -> Option<BackendHandle> {
    let config = crate::support::server::RedisServer::shared()?.config();
    let builder = askonce::backend::RedisBackend::builder(config).clock(Arc::clone(clock) as _);
    Some(Arc::new(builder.build().expect("the settings are valid")))
}

#[cfg(feature = "memcached")]
fn memcached(clock: &Arc<ManualClock>) -> Option<BackendHandle> {
    let config = crate::memcached::shared()?;
    let builder = askonce::backend::MemcachedBackend::builder(config).clock(Arc::clone(clock) as _);
    Some(Arc::new(builder.build().expect("the settings are valid")))
}
