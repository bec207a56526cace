//! The cache in front of calls to models, as a layer of what a program is built from.
//!
//! | where the calls are | what to put in front | feature |
//! |---|---|---|
//! | a `tower` service over types of the program's own | [`CacheLayer`], for types that are a [`Call`] | `tower` |
//! | handlers or a reverse proxy over HTTP (axum, hyper, tonic) | [`Gateway`] as a layer | `http-layer` |
//! | a `reqwest` client | [`Gateway`] as a middleware | `reqwest-middleware` |
//!
//! All of them go by [`SemanticCache::get_or_call`](crate::SemanticCache::get_or_call): one call upstream for
//! all who ask for the same, detached from its caller, its answer stored when it is whole. Over HTTP, answers are
//! also streamed to all while they come, and replayed whole or as a stream ([`replay`](crate::replay)).

mod call;
#[cfg(feature = "reqwest-middleware")]
mod client;
#[cfg(feature = "http-layer")]
pub mod control;
#[cfg(feature = "http-layer")]
pub mod embeddings;
#[cfg(feature = "http-layer")]
mod exchange;
#[cfg(feature = "http-layer")]
mod fetch;
#[cfg(feature = "http-layer")]
mod give;
#[cfg(feature = "http-layer")]
mod service;
#[cfg(feature = "http-layer")]
pub mod status;

pub use call::{CacheLayer, CacheService, Call};
#[cfg(feature = "http-layer")]
pub use exchange::{Gateway, Head};
#[cfg(feature = "http-layer")]
pub use give::ResponseBody;
#[cfg(feature = "http-layer")]
pub use service::GatewayService;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
