//! What became of a request in the cache, told in response headers.

pub(crate) use askonce::gateway::status::{bypassed, forwarded, hit, not_forwarded};
