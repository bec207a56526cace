//! The promises of [`CacheBackend`], run over every backend.
//!
//! A new backend adds one constructor below and inherits every check of [`checks`], where each is one
//! bullet of the trait's contract. What only some backends can do is checked where they say that they can;
//! the others must refuse it by name.

#[macro_use]
mod checks;
#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "memcached")]
#[path = "../support/memcached.rs"]
mod memcached_server;

use std::sync::Arc;

use askonce::backend::{BackendHandle, ByteSize, MemoryBackend, MemoryConfig};
use askonce::clock::ManualClock;
use askonce::tier::TieredBackend;

fn memory(clock: &Arc<ManualClock>) -> Option<BackendHandle> {
    let config = MemoryConfig {
        max_bytes: ByteSize::mib(8),
        ..MemoryConfig::default()
    };
    let built = MemoryBackend::builder(config).clock(Arc::clone(clock) as _);
    Some(Arc::new(built.build().unwrap()))
}

#[cfg(feature = "memcached")]
fn memcached(clock: &Arc<ManualClock>) -> Option<BackendHandle> {
    let builder = askonce::backend::MemcachedBackend::builder(memcached_server::shared()?);
    Some(Arc::new(
        builder.clock(Arc::clone(clock) as _).build().unwrap(),
    ))
}

#[cfg(feature = "redis")]
fn redis(clock: &Arc<ManualClock>) -> Option<BackendHandle> {
    let config = support::server::RedisServer::shared()?.config();
    let built = askonce::backend::RedisBackend::builder(config).clock(Arc::clone(clock) as _);
    Some(Arc::new(built.build().unwrap()))
}

/// A memory tier over `far`.
fn tiers(clock: &Arc<ManualClock>, far: BackendHandle) -> Option<BackendHandle> {
    let built = TieredBackend::builder(memory(clock)?, far).clock(Arc::clone(clock) as _);
    Some(Arc::new(built.build().unwrap()))
}

fn two_tiers(clock: &Arc<ManualClock>) -> Option<BackendHandle> {
    tiers(clock, memory(clock)?)
}

fn three_tiers(clock: &Arc<ManualClock>) -> Option<BackendHandle> {
    tiers(clock, two_tiers(clock)?)
}

#[cfg(feature = "memcached")]
fn memory_over_memcached(clock: &Arc<ManualClock>) -> Option<BackendHandle> {
    tiers(clock, memcached(clock)?)
}

#[cfg(feature = "redis")]
fn memory_over_redis(clock: &Arc<ManualClock>) -> Option<BackendHandle> {
    tiers(clock, redis(clock)?)
}

contract! {
    memory_backend: memory;
    two_memory_tiers: two_tiers;
    three_memory_tiers: three_tiers;
}

#[cfg(feature = "memcached")]
contract! {
    memcached_backend: memcached;
    memory_tier_over_memcached: memory_over_memcached;
}

#[cfg(feature = "redis")]
contract! {
    redis_backend: redis;
    memory_tier_over_redis: memory_over_redis;
}
