//! A log that processes share: what was changed, in order, for those who keep copies.
//!
//! A feed is read from a position, so a reader that was away catches up, and knows when it cannot
//! because what it missed has been trimmed ([`FeedBatch::gap`]). That sets it apart from publish and
//! subscribe, which loses what is sent while nobody listens.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::BoxFuture;
use crate::error::Result;

/// A place in a feed. Opaque: only the feed that made it can read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedPosition(Bytes);

impl FeedPosition {
    /// A position in a feed's own terms.
    #[must_use]
    pub fn new(position: impl Into<Bytes>) -> Self {
        Self(position.into())
    }

    /// What [`new`](Self::new) was given.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What a reader of a feed is given.
#[derive(Clone, Debug)]
pub struct FeedBatch {
    /// The messages, oldest first.
    pub messages: Vec<Bytes>,
    /// Where to go on.
    pub next: FeedPosition,
    /// Messages between the position asked for and the first of these are lost: the reader must drop
    /// every copy it has.
    pub gap: bool,
}

/// A bounded log of messages, shared by all who use one backend under one prefix.
///
/// # Contract
/// - A message whose `append` was acknowledged is in every later `read` from a position before it, once
///   and in the order of the acknowledgements, until it is trimmed.
/// - A `read` from a position before the oldest message that is kept says so by `gap`; so does one from
///   a position that the feed does not know, as after the loss of the server's memory.
/// - A feed keeps at least the last 1 000 messages.
pub trait Feed: fmt::Debug + Send + Sync + 'static {
    /// Adds a message.
    fn append(&self, message: Bytes) -> BoxFuture<'_, Result<()>>;

    /// The position after the last message.
    fn tail(&self) -> BoxFuture<'_, Result<FeedPosition>>;

    /// The messages after a position. Waits up to `wait` for one when there is none; an empty batch is
    /// no error.
    fn read(&self, after: FeedPosition, wait: Duration) -> BoxFuture<'_, Result<FeedBatch>>;
}

/// A shared feed of any kind.
pub type FeedHandle = Arc<dyn Feed>;
