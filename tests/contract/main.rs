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

contract! {
    memory_backend: memory;
}

#[cfg(feature = "memcached")]
contract! {
    memcached_backend: memcached;
}

#[cfg(feature = "redis")]
contract! {
    redis_backend: redis;
}
