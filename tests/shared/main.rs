//! Several processes, each with a semantic cache of its own, over one store that they share.
//!
//! What one of them invalidates no other serves: not exactly, not by similarity, not if the first never
//! saw the entry, not if the answer was being made meanwhile. While news between them is lost that holds
//! after a stated bound; while the store is away there are misses and young copies, never an error.
//!
//! The store of most tests is memory behind a face of a server, so that it can be cut off and deafened.
//! `redis.rs` tells the same of a real one.

mod calls;
mod invalidations;
mod outages;
mod principals;
mod process;
#[cfg(feature = "redis")]
mod redis;
#[path = "../support/mod.rs"]
mod support;
