//! A semantic cache for LLM answers: the same request is answered from memory, a reworded one by vector
//! search, and what happens in between is a decision with a reason.
//!
//! Start with [`SemanticCache`]: [`get_or_call`](SemanticCache::get_or_call) in front of a call to a
//! model, or [`lookup`](SemanticCache::lookup) and [`store`](SemanticCache::store) by hand. A
//! [`Request`] holds everything that can change an answer and the [`Scope`] that may share it. [`Cache`]
//! is the same machinery for values of any type.
//!
//! The modules below stand in the order in which a request passes them.
//!
//! | feature | brings | default |
//! |---|---|---|
//! | `config-file` | settings from files and the environment | yes |
//! | `hnsw` | graph search for large partitions | yes |
//! | `macros` | `#[cacheable]` and its companions | yes |
//! | `faiss` | indexes of the library FAISS, compiled from source | |
//! | `http-embedder` | embedding by a server with an OpenAI-compatible API | |
//! | `onnx` | embedders and cross-encoders in ONNX files of your own | |
//! | `http-layer` | the cache as a `tower` layer over HTTP handlers, and what its headers say | |
//! | `redis`, `memcached` | tiers that processes share | |
//! | `reqwest-middleware` | the cache within `reqwest` clients | |
//! | `schema` | a JSON Schema of the settings | |
//! | `test-support` | a backend that fails on purpose, for tests of what uses one | |
//! | `tower` | the cache as a `tower` layer over calls of your own types; a request scope for each request | |
#![forbid(unsafe_code)]

// Leaves: what every stage may use.
pub mod clock;
mod error;
pub mod event;
mod files;
pub mod observe;

// The request becomes keys, a partition, and a text to compare.
pub mod request;
// An answer as it goes over the wire, whole or as a stream.
pub mod replay;
// The exact tiers, nearest first, over backends that hold envelopes of entries.
pub mod backend;
pub mod codec;
pub mod entry;
// Invalidation in constant time, for all who store envelopes.
mod generation;
pub mod layer;
pub mod tier;
// Nothing exact: the text becomes a vector ...
pub mod embed;
// ... whose neighbours are looked up in the same partition ...
pub mod search;
// ... and served or passed.
pub mod policy;
// Asked again about what was nearly served, where that is configured.
pub mod verify;
// What was decided, for those who label, replay and calibrate.
pub mod decision;
// From labelled decisions to a policy that keeps a promise.
pub mod calibrate;
// What became of it, learnt from: labels, audits, the share of wrong hits.
pub mod learning;
// A miss: one upstream call, whatever the number of callers.
pub mod stampede;
// Whether its answer may be kept.
pub mod admit;
// What it cost, and what the hits saved.
pub mod savings;

// One holder at a time, among processes: locks in any backend with conditional writes.
pub mod lock;

// The same tools for the results of any function: a typed cache.
pub mod typed;
// Patterns over it: around functions, beside a source of truth, within one request.
pub mod repository;
pub mod scoped;
mod secret;
pub mod strategy;

// A backend that fails on purpose, for tests.
#[cfg(feature = "test-support")]
pub mod fault;

#[cfg(feature = "schema")]
pub mod schema;

// What ties the path together.
mod assembly;
pub mod cache;
pub mod caches;
pub mod config;

// In front of calls to models: layers of services and of clients.
#[cfg(feature = "tower")]
pub mod gateway;

#[cfg(feature = "macros")]
pub use askonce_macros::{cache_invalidate, cache_put, cacheable};
pub use cache::{
    CacheBuilder, Fill, Form, Hit, HitKind, Live, LookupOptions, Miss, MissReason, Outcome,
    SemanticCache, Served, Sink, Source, StoreOptions, StoreOutcome, Streamed, Verdict,
};
pub use caches::{Caches, CachesBuilder};
pub use config::Config;
pub use entry::catalog::Selector;
pub use entry::{Answer, Entry, EntryId, Media, Ttl};
pub use error::{Error, ErrorKind, Result};
pub use request::{
    BypassReason, CacheControl, Digests, Eligibility, ExactKey, IneligibleReason, PartitionKey,
    Protocol, Request, Scope, Section, VolatileReason,
};
pub use secret::Secret;
pub use typed::Cache;

/// The examples of the README compile and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
