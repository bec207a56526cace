//! The shared backend: Redis or Valkey, seen by any number of processes.
//!
//! What this module promises beyond the trait's contract, and how:
//!
//! - **Servers** are one, or whichever the Sentinels call the master, or the nodes of a cluster. A
//!   failover costs errors while it lasts, all of them retryable, and nothing has to be built anew.
//! - **Keys** are `{prefix}::{key}`, put together in one place (`Keyspace`), so that the keys of `a` are
//!   never taken for those of `a:b`: clearing one prefix leaves every other alone.
//! - **Expiry** is decided by our clock. A value starts with eight bytes, its expiry in milliseconds
//!   since the epoch, big-endian, all ones when it has none; reads check them and cut them off.
//!   Redis is told the life that is left (`PX`, which the clock of the server cannot shorten or
//!   prolong as it could an absolute `PXAT`) plus a minute, and only so that the memory comes back.
//! - **Conditional writes** and counters are scripts of one key each, so they are atomic and work on a
//!   cluster. A user of the access control list needs `EVAL` and `EVALSHA`, and the keys of the prefix.
//! - **Batches** are pipelines; on a cluster one for each slot, all at once.
//! - **Time** is bounded. Every round trip ends within the configured timeout, connecting included. A
//!   server that is down refuses at once; one that hangs costs the timeout.
//! - **Connections** are made by the first operation, not at start-up, and again after every loss. One
//!   connection carries all operations at the same time; readers of the feed have their own.
//! - **TLS** always checks the server's certificate, by the system's authorities or those of a file, and
//!   may show one in return. A certificate that either side refuses is an error of its own, not retryable;
//!   of a whole cluster's it is the `problem` of an error that is.
//! - **The feed** is a stream, which is carrier and wake-up in one. Publish and subscribe is not used:
//!   it loses messages exactly when servers fail over, and a reader of a stream waits no longer.
//!
//! Another process finds what this one stored by its exact key only: indexes for similarity are local
//! to a process and are not yet told of entries stored elsewhere.

mod config;
#[cfg(feature = "redis")]
mod feed;
#[cfg(feature = "redis")]
mod link;
#[cfg(feature = "redis")]
mod scan;
#[cfg(feature = "redis")]
mod script;
#[cfg(feature = "redis")]
mod store;
#[cfg(feature = "redis")]
mod tls;

pub use config::RedisConfig;
#[cfg(feature = "redis")]
pub use store::{RedisBackend, RedisBackendBuilder};
