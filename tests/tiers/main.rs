//! Two tiers as one backend: what is copied, who is believed, and what happens without the far tier.
//!
//! Several pretended processes share one store. Each has its own near tier and its own way to the store,
//! which can be cut off, paused between what a read found and its answer, or lose the news. The promise
//! throughout: no process serves a value longer than the bound after another one has replaced it, and one
//! that has itself deleted a value never serves it again.

mod coherence;
mod copies;
mod model;
mod outage;
mod support;
