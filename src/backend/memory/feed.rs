//! A feed within one process: what several stacks of tiers over one memory backend share.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::super::{BoxFuture, Feed, FeedBatch, FeedPosition};
use crate::error::Result;

/// Messages that are kept.
const KEPT: usize = 10_000;

/// Most messages given at once.
const BATCH: usize = 1_000;

/// A bounded log of messages in memory.
pub(super) struct MemoryFeed {
    /// Tells positions of this feed from those of another.
    id: u64,
    log: Mutex<Log>,
    appended: Notify,
}

#[derive(Default)]
struct Log {
    messages: VecDeque<Bytes>,
    /// How many were trimmed: the place of the oldest that is kept.
    trimmed: u64,
}

impl MemoryFeed {
    pub(super) fn new() -> Self {
        Self {
            id: rand::random(),
            log: Mutex::default(),
            appended: Notify::new(),
        }
    }

    fn position(&self, place: u64) -> FeedPosition {
        let mut bytes = self.id.to_le_bytes().to_vec();
        bytes.extend(place.to_le_bytes());
        FeedPosition::new(bytes)
    }

    /// The place that a position stands for; `None` when it is not one of this feed.
    fn place(&self, position: &FeedPosition) -> Option<u64> {
        let (id, place) = position.as_bytes().split_first_chunk::<8>()?;
        let place = u64::from_le_bytes(place.try_into().ok()?);
        (u64::from_le_bytes(*id) == self.id).then_some(place)
    }

    /// What there is after a position.
    fn after(&self, position: &FeedPosition) -> FeedBatch {
        let asked = self.place(position);
        let log = self.log.lock();
        let end = log.trimmed + log.messages.len() as u64;
        let known = asked.filter(|place| (log.trimmed..=end).contains(place));
        let start = known.unwrap_or(log.trimmed);
        let skipped = usize::try_from(start - log.trimmed).unwrap_or(usize::MAX);
        let messages: Vec<_> = log
            .messages
            .iter()
            .skip(skipped)
            .take(BATCH)
            .cloned()
            .collect();
        let next = self.position(start + messages.len() as u64);
        FeedBatch {
            messages,
            next,
            gap: known.is_none(),
        }
    }
}

impl fmt::Debug for MemoryFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryFeed")
            .field("messages", &self.log.lock().messages.len())
            .finish_non_exhaustive()
    }
}

impl Feed for MemoryFeed {
    fn append(&self, message: Bytes) -> BoxFuture<'_, Result<()>> {
        let mut log = self.log.lock();
        log.messages.push_back(message);
        if log.messages.len() > KEPT {
            log.messages.pop_front();
            log.trimmed += 1;
        }
        drop(log);
        self.appended.notify_waiters();
        Box::pin(async { Ok(()) })
    }

    fn tail(&self) -> BoxFuture<'_, Result<FeedPosition>> {
        Box::pin(async {
            let log = self.log.lock();
            Ok(self.position(log.trimmed + log.messages.len() as u64))
        })
    }

    fn read(&self, after: FeedPosition, wait: Duration) -> BoxFuture<'_, Result<FeedBatch>> {
        Box::pin(async move {
            // Before the look, so that a message that comes in between is not slept through.
            let appended = self.appended.notified();
            let batch = self.after(&after);
            if !batch.messages.is_empty() || batch.gap || wait.is_zero() {
                return Ok(batch);
            }
            let _ = tokio::time::timeout(wait, appended).await;
            Ok(self.after(&after))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(i: usize) -> Bytes {
        Bytes::from(i.to_string())
    }

    #[tokio::test]
    async fn a_feed_gives_each_message_once_and_in_order() {
        let feed = MemoryFeed::new();
        let mut at = feed.tail().await.unwrap();
        for i in 0..BATCH + 5 {
            feed.append(numbered(i)).await.unwrap();
        }
        let mut seen = Vec::new();
        loop {
            let batch = feed.read(at, Duration::ZERO).await.unwrap();
            assert!(!batch.gap);
            at = batch.next;
            if batch.messages.is_empty() {
                break;
            }
            seen.extend(batch.messages);
        }
        assert_eq!(seen, (0..BATCH + 5).map(numbered).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_reader_that_waits_is_woken_by_the_next_message() {
        let feed = MemoryFeed::new();
        let at = feed.tail().await.unwrap();
        let (batch, appended) = tokio::join!(feed.read(at, Duration::from_secs(600)), async {
            feed.append(numbered(1)).await
        });
        appended.unwrap();
        assert_eq!(batch.unwrap().messages, [numbered(1)]);
    }

    #[tokio::test]
    async fn a_reader_that_was_away_too_long_or_comes_from_another_feed_is_told_of_a_gap() {
        let feed = MemoryFeed::new();
        let start = feed.tail().await.unwrap();
        for i in 0..KEPT {
            feed.append(numbered(i)).await.unwrap();
        }
        let all = feed.read(start.clone(), Duration::ZERO).await.unwrap();
        assert!(!all.gap, "nothing was trimmed yet");
        feed.append(numbered(KEPT)).await.unwrap();
        let late = feed.read(start, Duration::ZERO).await.unwrap();
        assert!(late.gap);
        assert_eq!(late.messages[0], numbered(1));

        let other = MemoryFeed::new().tail().await.unwrap();
        for position in [other, FeedPosition::new("?")] {
            assert!(feed.read(position, Duration::ZERO).await.unwrap().gap);
        }
    }
}
