//! Talking to stacks of tiers through their feed, for those who change or check a shared store without
//! being such a stack.

use std::time::Duration;

use bytes::Bytes;

use super::message::{News, encode};
use crate::backend::{FeedHandle, Glob};
use crate::error::{Error, ErrorKind, Result};

/// Keys of one message, so that it is not larger than stores take.
const KEYS_AT_ONCE: usize = 1_000;

/// Tells all stacks over the store of `feed` that `keys` were removed from it, so that they drop their near
/// copies.
///
/// # Errors
/// What the feed reports. Copies then live on for their near life.
pub async fn tell_removed(feed: &FeedHandle, keys: &[Bytes]) -> Result<()> {
    let origin = rand::random();
    for (number, keys) in (1..).zip(keys.chunks(KEYS_AT_ONCE)) {
        let news = News::Keys(keys.to_vec());
        feed.append(encode(origin, number, &news)).await?;
    }
    Ok(())
}

/// Tells all stacks over the store of `feed` that the keys that match `pattern` were changed.
///
/// # Errors
/// What the feed reports. Copies then live on for their near life.
pub async fn tell_matching(feed: &FeedHandle, pattern: &Glob) -> Result<()> {
    let news = News::Matching(pattern.clone());
    feed.append(encode(rand::random(), 1, &news)).await
}

/// Tells all stacks over the store of `feed` that everything was removed from it.
///
/// # Errors
/// What the feed reports. Copies then live on for their near life.
pub async fn tell_cleared(feed: &FeedHandle) -> Result<()> {
    feed.append(encode(rand::random(), 1, &News::Everything))
        .await
}

/// Whether what is added to `feed` can be read from it, tried with a message that means nothing to anybody.
///
/// # Errors
/// What the feed reports; [`ErrorKind::Timeout`] when the message has not come back after `within`.
pub async fn probe_feed(feed: &FeedHandle, within: Duration) -> Result<()> {
    let round_trip = async {
        let mut position = feed.tail().await?;
        let message = encode(rand::random(), 1, &News::Marker);
        feed.append(message.clone()).await?;
        loop {
            let batch = feed.read(position, within).await?;
            if batch.messages.contains(&message) {
                return Ok(());
            }
            position = batch.next;
        }
    };
    tokio::time::timeout(within, round_trip)
        .await
        .unwrap_or_else(|_| {
            let message = "a message was added to the feed and did not come back";
            Err(Error::new(ErrorKind::Timeout, message))
        })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::backend::{CacheBackend, MemoryBackend, MemoryConfig};
    use crate::tier::TieredBackend;

    fn memory() -> Arc<MemoryBackend> {
        let built = MemoryBackend::builder(MemoryConfig::default()).build();
        Arc::new(built.unwrap())
    }

    #[tokio::test]
    async fn a_stack_drops_its_copy_of_what_an_outsider_removed() {
        let far = memory();
        let stack = TieredBackend::builder(memory(), far.clone())
            .build()
            .unwrap();
        stack.set(b"key", "value".into(), None).await.unwrap();
        assert!(stack.get(b"key").await.unwrap().is_some());
        let feed = CacheBackend::feed(&*far).unwrap();
        probe_feed(&feed, Duration::from_secs(20)).await.unwrap();
        far.delete(b"key").await.unwrap();
        tell_removed(&feed, &[Bytes::from_static(b"key")])
            .await
            .unwrap();
        for _ in 0..2_000 {
            if stack.get(b"key").await.unwrap().is_none() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the copy stayed");
    }
}
