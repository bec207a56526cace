//! Ways to put a cache beside a source of truth.
//!
//! | strategy | here |
//! |---|---|
//! | cache-aside: ask the cache, else the source, and keep what it gave | [`Cache::get_or_set`] and its kin; [`cached`] around a function |
//! | write-through: write the source, then the cache | [`write_through`], [`delete_through`] |
//! | warming: load before anybody asks | [`Warmer`] |
//! | write-behind: write the cache now and the source later | not offered |
//!
//! Write-behind is left out on purpose. A value that only the cache has is lost when the cache evicts it,
//! loses its connection or ends, and until then every other reader of the source is told the old one: the
//! cache would be the source of truth without the means to be one. A queue with a log of its own, in front
//! of the source, does this right, and needs nothing from a cache.
//!
//! Always true: the source comes first, and the cache is never ahead of it; what is kept is what the
//! source returned; a failure of the cache never reaches the caller of a strategy.

mod cached;
mod outdated;
mod warm;
mod write;

pub use cached::{Cached, cached};
pub use warm::{Failed, Failure, Progress, Schedule, Warmed, Warmer};
pub use write::{delete_through, write_through};

pub(crate) use outdated::Outdated;

#[cfg(doc)]
use crate::Cache;
use crate::error::Error;
use crate::observe;

/// Notes a failure that must not reach the caller.
pub(crate) fn passed_over(operation: &'static str, error: &Error) {
    let tier = error.context().iter().find(|(name, _)| *name == "tier");
    let tier = tier.map_or("cache", |(_, tier)| tier);
    observe::backend_error(tier, operation);
    tracing::warn!(tier, operation, kind = %error.kind(), %error, "the cache was passed over");
}
