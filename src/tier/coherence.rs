//! Whether the near tier may be believed, and the task that keeps it so.
//!
//! The task reads the far tier's feed and drops the near copies of what others changed. The near tier is
//! trusted only while that works: from the moment when a message of our own has come back, so that
//! everything before it has been read, until a read fails, is overdue, or finds that messages were lost.
//! In between every near value is checked against the far tier. No clocks of two machines are compared.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::message::News;
use super::metrics;
use super::shared::Shared;
use crate::backend::{BoxFuture, Feed, FeedBatch, FeedHandle, FeedPosition};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};

/// What a near copy is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coherence {
    /// News of other processes' changes arrives: near copies are served as they are.
    Trusted,
    /// News may have been missed: each near copy is checked against the far tier, and served unchecked
    /// only while that does not answer.
    Suspect {
        /// Since when.
        since: Timestamp,
        /// Why.
        reason: SuspectReason,
    },
    /// The far tier has no feed: near copies are served as they are, and live for
    /// [`near_ttl`](super::TierConfig::near_ttl) at most.
    NoFeed,
}

/// Why a near tier is not trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SuspectReason {
    /// The feed has not been read yet.
    Starting,
    /// Reading it failed.
    FeedUnavailable,
    /// Messages were lost before they were read.
    Gap,
    /// It was read last longer ago than [`feed_lag`](super::TierConfig::feed_lag).
    Lagging,
    /// The near tier did not drop a copy that it had to.
    NearUnavailable,
    /// The task that reads it has ended, with its runtime or by [`close`](crate::backend::CacheBackend::close).
    Stopped,
}

impl SuspectReason {
    /// The stable, lower-case name used in metrics and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::FeedUnavailable => "feed_unavailable",
            Self::Gap => "gap",
            Self::Lagging => "lagging",
            Self::NearUnavailable => "near_unavailable",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for SuspectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a stack stands with its feed.
pub(super) struct Trust {
    state: Mutex<Coherence>,
    /// Whether the state is anything but suspect; beside the lock, since every near hit asks.
    holds: AtomicBool,
    /// When the last read of the feed that succeeded was begun.
    heard: AtomicU64,
    lag: Duration,
}

impl Trust {
    pub(super) fn new(has_feed: bool, now: Timestamp, lag: Duration) -> Self {
        let state = if has_feed {
            Coherence::Suspect {
                since: now,
                reason: SuspectReason::Starting,
            }
        } else {
            Coherence::NoFeed
        };
        Self {
            state: Mutex::new(state),
            holds: AtomicBool::new(!has_feed),
            heard: AtomicU64::new(u64::MAX),
            lag,
        }
    }

    /// Whether near copies may be served unchecked.
    pub(super) fn holds(&self, now: Timestamp) -> bool {
        self.holds.load(Ordering::Acquire) && self.overdue(now).is_none()
    }

    /// Since when the next read has been overdue.
    fn overdue(&self, now: Timestamp) -> Option<Timestamp> {
        let heard = Timestamp::from_millis(self.heard.load(Ordering::Acquire));
        let due = heard.after(self.lag);
        (now > due).then_some(due)
    }

    pub(super) fn state(&self, now: Timestamp) -> Coherence {
        let state = *self.state.lock();
        match self.overdue(now) {
            Some(since) if state == Coherence::Trusted => Coherence::Suspect {
                since,
                reason: SuspectReason::Lagging,
            },
            _ => state,
        }
    }

    /// A read that began at `asked` has succeeded.
    fn heard(&self, asked: Timestamp) {
        self.heard.store(asked.as_millis(), Ordering::Release);
    }

    fn trust(&self) -> bool {
        let mut state = self.state.lock();
        let changed = *state != Coherence::Trusted;
        *state = Coherence::Trusted;
        self.holds.store(true, Ordering::Release);
        changed
    }

    /// `true` when it was trusted until now.
    fn doubt(&self, now: Timestamp, reason: SuspectReason) -> bool {
        let mut state = self.state.lock();
        self.holds.store(false, Ordering::Release);
        match &mut *state {
            Coherence::Suspect { reason: own, .. } => {
                *own = reason;
                false
            }
            _ => {
                *state = Coherence::Suspect { since: now, reason };
                true
            }
        }
    }
}

/// Why the feed is no longer followed.
struct Lost {
    reason: SuspectReason,
    error: Error,
}

impl Lost {
    fn feed(error: Error) -> Self {
        Self {
            reason: SuspectReason::FeedUnavailable,
            error,
        }
    }

    fn near(error: Error) -> Self {
        Self {
            reason: SuspectReason::NearUnavailable,
            error,
        }
    }
}

impl Shared {
    /// Notes that near copies must be checked from now on.
    pub(super) fn doubt(&self, reason: SuspectReason) {
        if self.feed.is_some() && self.trust.doubt(self.clock.now(), reason) {
            metrics::trusted(&self.name, false);
            tracing::warn!(tiers = %self.name, %reason, "near copies are checked one by one");
        }
    }

    /// Reads the feed for as long as the task lives.
    pub(super) async fn follow_forever(&self, feed: &FeedHandle) {
        loop {
            let Err(Lost { reason, error }) = self.follow(feed).await;
            self.doubt(reason);
            tracing::debug!(tiers = %self.name, %reason, %error, "the feed is not followed");
            tokio::time::sleep(self.config.recovery_interval).await;
        }
    }

    async fn follow(&self, feed: &FeedHandle) -> Result<Infallible, Lost> {
        let known = self.position.lock().clone();
        let mut position = match known {
            Some(position) => position,
            None => {
                let tail = self.in_time(Duration::ZERO, feed.tail()).await;
                let tail = tail.map_err(Lost::feed)?;
                // Copies made of what was read before the tail was noted may be old already.
                self.clear_copies().await.map_err(Lost::near)?;
                tail
            }
        };
        let mut marker = Some(self.mark().await.map_err(Lost::feed)?);
        loop {
            let asked = self.clock.now();
            let wait = self.config.feed_wait;
            let read = self.in_time(wait, feed.read(position, wait)).await;
            let batch = read.map_err(Lost::feed)?;
            let mut seen = Vec::new();
            let lost = self.take_in(&batch, &mut seen).await.map_err(Lost::near)?;
            let is_empty = batch.messages.is_empty();
            position = batch.next;
            *self.position.lock() = Some(position.clone());
            self.trust.heard(asked);
            if lost {
                self.doubt(SuspectReason::Gap);
            }
            if marker.is_some_and(|marker| seen.contains(&marker)) {
                marker = None;
                if self.trust.trust() {
                    metrics::trusted(&self.name, true);
                    tracing::info!(tiers = %self.name, "near copies are trusted");
                    self.far_is_back();
                }
            } else if lost || (marker.is_some() && is_empty) {
                marker = Some(self.mark().await.map_err(Lost::feed)?);
            }
        }
    }

    /// Asks for a sign that everything up to now has been read.
    async fn mark(&self) -> Result<u64> {
        self.in_time(Duration::ZERO, self.say(&News::Marker)).await
    }

    async fn in_time<T>(
        &self,
        extra: Duration,
        operation: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let within = self.config.feed_timeout + extra;
        tokio::time::timeout(within, operation)
            .await
            .unwrap_or_else(|_| {
                Err(Error::new(ErrorKind::Timeout, "the feed did not answer")
                    .with("tier", self.far.name())
                    .retryable())
            })
    }

    /// Acts on a batch; `true` when messages before it were lost. `seen` receives our own markers.
    async fn take_in(&self, batch: &FeedBatch, seen: &mut Vec<u64>) -> Result<bool> {
        if batch.gap {
            metrics::gap(&self.name);
            self.doubt(SuspectReason::Gap);
            self.clear_copies().await?;
        }
        for message in &batch.messages {
            seen.extend(self.hear(message).await?);
        }
        Ok(batch.gap)
    }
}

/// The far tier's feed, for a stack upon this one: a message is passed on when this stack has acted on
/// it, so that the one above does not copy what this one is about to drop.
pub(super) struct Relay {
    pub(super) shared: Arc<Shared>,
    pub(super) feed: FeedHandle,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Relay").field(&self.feed).finish()
    }
}

impl Feed for Relay {
    fn append(&self, message: Bytes) -> BoxFuture<'_, Result<()>> {
        self.feed.append(message)
    }

    fn tail(&self) -> BoxFuture<'_, Result<FeedPosition>> {
        self.feed.tail()
    }

    fn read(&self, after: FeedPosition, wait: Duration) -> BoxFuture<'_, Result<FeedBatch>> {
        Box::pin(async move {
            let batch = self.feed.read(after, wait).await?;
            self.shared.take_in(&batch, &mut Vec::new()).await?;
            Ok(batch)
        })
    }
}
