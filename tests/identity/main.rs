//! What may share an answer, through the public API.
//!
//! The failures these tests stand for: an answer served to another tenant, model or conversation
//! because a field was left out of the key; a cache that never hits because the order of JSON keys
//! or a stream flag was in it; an agent that got one answer for every turn because its last user
//! text was empty.
//!
//! serde_json keeps objects sorted unless some crate in a build asks for another order, so run
//! these also with `--features serde_json/preserve_order` and `serde_json/arbitrary_precision`.

mod anthropic;
mod bodies;
mod chat;
mod completions;
mod embeddings;
mod golden;
mod keys;
mod prompt;
mod protocols;
mod responses;
