//! Step 2: the exact tiers, nearest first.
//!
//! A [`TieredBackend`] makes one backend of two: a near one, which holds copies, and a far one, which is
//! right. It is kept coherent with the other processes that share the far tier by that tier's feed, and
//! repeats what the far tier missed while it was away. [`TierStack`] is what a semantic cache keeps its
//! entries in: it knows envelopes, and which tier had the answer.

mod coherence;
mod decoded;
mod in_flight;
mod message;
pub mod metrics;
mod near;
mod outsider;
mod recovery;
mod shared;
mod stack;
mod tiered;

pub use crate::backend::TierConfig;
pub use coherence::{Coherence, SuspectReason};
pub use outsider::{probe_feed, tell_cleared, tell_matching, tell_removed};
pub(crate) use stack::Check;
pub use stack::{TierAnswer, TierFault, TierStack};
pub use tiered::{TieredBackend, TieredBackendBuilder};
