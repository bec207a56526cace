//! What a configuration says is what happens: files, variables, named caches, production.

#[path = "../support/mod.rs"]
mod support;

mod caches;
#[cfg(all(feature = "redis", feature = "memcached"))]
mod production;
#[cfg(all(feature = "redis", feature = "memcached"))]
mod reference;
#[cfg(feature = "schema")]
mod schema;
