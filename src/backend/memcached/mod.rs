//! The memcached backend: a shared tier in one or several memcached servers, 1.6 or newer.
//!
//! # Where a key lives
//! Each key has one server, chosen by rendezvous hashing with XXH3 of address and key: neither the
//! order of the list nor the compiler's release matters, and a server more or less moves only its own
//! share. A server that is down is not replaced by another: its keys are errors until it is back,
//! because a stand-in would leave old values behind on both. On the wire a key is
//! spelled as in every shared store, `prefix::key` or `prefix::%` and its bytes in hex, or `prefix::%h`
//! and their BLAKE3 hash where that is longer than memcached takes.
//!
//! # What a value carries
//! Sixteen bytes stand before each value: the generation it was written in and its absolute expiry in
//! milliseconds. memcached counts whole seconds, so its own expiry is set late enough never to be
//! first, only to give memory back; the header is checked on every read, against our clock.
//!
//! # Clearing
//! memcached can neither list keys nor delete by prefix, and its `flush_all` takes the data of everyone
//! else with it. So each server holds a random generation per prefix, and a value counts only when its
//! header names that generation. `clear` replaces it. Every read asks for generation and value in one
//! round trip and every write asks for the generation first, so no process ever acts on a remembered
//! one: when `clear` has returned, no process finds an older value. A missing generation (evicted, or
//! the server restarted) makes every value of the prefix on that server dead, and the next write makes
//! a new random one: the failure loses values, it revives none. `clear` replaces the generations of all
//! servers at once but not atomically, and fails when any server could not be reached: its old values
//! are still there when it comes back, and the caller must clear again.
//!
//! # Conditional writes
//! Whatever depends on what a key holds reads it with its version (memcached's CAS unique) and changes
//! exactly that version, or adds where there is nothing; when another came between, it looks again. Expiry
//! and generation are judged by the reader, so a value that is dead to `get` is absent to a condition. A
//! server that was started with `-C` has no versions, and says so. Versions begin anew with a restarted
//! server: one that restarts within a single operation and is written to just as often may be mistaken
//! for what it was.
//!
//! # Many keys at once
//! The keys of each server travel in batches, the servers work at once. No batch is larger than what the
//! buffers between hold, as a server stops reading while nobody reads its answers.
//!
//! Every operation, and every batch, has one deadline, connecting included. Nothing connects before the first operation.

mod config;
#[cfg(feature = "memcached")]
mod record;
#[cfg(feature = "memcached")]
mod server;
#[cfg(feature = "memcached")]
mod store;

pub use config::MemcachedConfig;
#[cfg(feature = "memcached")]
pub use store::{MemcachedBackend, MemcachedBackendBuilder};
