//! What happens in the tiers, as a stream for whoever wants to know.
//!
//! A subscriber reads at its own pace from a bounded ring. Nothing here ever waits for one, and no code of
//! a subscriber runs inside a cache operation: one that is too slow loses the oldest events and is told
//! how many. While nobody listens, an event costs the look at a counter and is not even made.
//!
//! Keys and values are never part of an event. A key is a [`KeyDigest`]: equal keys have equal digests
//! within one [`Events`], and nobody can tell from a digest what the key was.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use crate::error::ErrorKind;

/// Events that a subscriber may lag behind, by default.
const CAPACITY: usize = 1_024;

/// What happened in a tier.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A live value was found.
    Hit {
        /// The tier's name.
        tier: Arc<str>,
        /// Whose value.
        key: KeyDigest,
    },
    /// No live value was found.
    Miss {
        /// The tier's name.
        tier: Arc<str>,
        /// Which key was asked for.
        key: KeyDigest,
    },
    /// A value was stored.
    Set {
        /// The tier's name.
        tier: Arc<str>,
        /// Under which key.
        key: KeyDigest,
        /// Length of the value.
        bytes: usize,
    },
    /// A value was removed because somebody asked for it.
    Deleted {
        /// The tier's name.
        tier: Arc<str>,
        /// Whose value.
        key: KeyDigest,
    },
    /// Every value was removed because somebody asked for it.
    Cleared {
        /// The tier's name.
        tier: Arc<str>,
    },
    /// The tier dropped a value that nobody asked it to drop.
    Removed {
        /// The tier's name.
        tier: Arc<str>,
        /// Whose value.
        key: KeyDigest,
        /// Why.
        cause: RemovalCause,
    },
    /// An operation failed, after all its attempts.
    Failed {
        /// The tier's name.
        tier: Arc<str>,
        /// The operation, as metrics name it.
        operation: &'static str,
        /// How it failed.
        kind: ErrorKind,
    },
    /// A tier that had failed has answered again.
    Reconnected {
        /// The tier's name.
        tier: Arc<str>,
    },
    /// A circuit breaker changed its state.
    BreakerChanged {
        /// The tier's name.
        tier: Arc<str>,
        /// Which of the tier's breakers: `read` or `write`.
        path: &'static str,
        /// What it is now.
        state: BreakerState,
    },
}

impl Event {
    /// The tier that it happened in.
    #[must_use]
    pub fn tier(&self) -> &str {
        match self {
            Self::Hit { tier, .. }
            | Self::Miss { tier, .. }
            | Self::Set { tier, .. }
            | Self::Deleted { tier, .. }
            | Self::Cleared { tier }
            | Self::Removed { tier, .. }
            | Self::Failed { tier, .. }
            | Self::Reconnected { tier }
            | Self::BreakerChanged { tier, .. } => tier,
        }
    }
}

/// Why a backend dropped a value that nobody asked it to drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RemovalCause {
    /// Its time to live ran out.
    Expired,
    /// The backend was full.
    Evicted,
}

impl RemovalCause {
    /// The stable name used in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Evicted => "evicted",
        }
    }
}

/// What a circuit breaker does with calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Lets all through.
    Closed,
    /// Lets a few through, to see how they fare.
    HalfOpen,
    /// Refuses all, at once.
    Open,
}

impl BreakerState {
    /// The stable name used in logs and reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

/// Stands for a key in events.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyDigest {
    digest: [u8; 8],
    len: usize,
}

impl KeyDigest {
    /// Length of the key in bytes.
    #[must_use]
    pub const fn key_len(&self) -> usize {
        self.len
    }
}

impl fmt::Display for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = u64::from_be_bytes(self.digest);
        write!(f, "{digest:016x}")
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyDigest({self})")
    }
}

/// Where events go in, and where subscriptions come from. Clones are the same stream.
///
/// ```
/// # async fn listen() {
/// use askonce::event::{Events, Received};
///
/// let events = Events::default();
/// let mut subscription = events.subscribe();
/// // ... `SemanticCache::builder().events(events)` ...
/// while let Some(received) = subscription.next().await {
///     match received {
///         Received::Event(event) => println!("{event:?}"),
///         Received::Lost(events) => println!("{events} events came too fast"),
///     }
/// }
/// # }
/// ```
#[derive(Clone)]
pub struct Events(Arc<Stream>);

struct Stream {
    ring: broadcast::Sender<Event>,
    /// Kept beside the ring, whose own count is behind a lock.
    subscribers: Arc<AtomicUsize>,
    /// Makes digests of this stream mean nothing elsewhere.
    salt: [u8; 32],
}

impl Default for Events {
    fn default() -> Self {
        Self::with_capacity(CAPACITY)
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("subscribers", &self.0.subscribers.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

impl Events {
    /// A stream whose subscribers may lag behind by `events`, rounded up to a power of two. Default:
    /// 1 024.
    #[must_use]
    pub fn with_capacity(events: usize) -> Self {
        let (ring, _) = broadcast::channel(events.clamp(1, 1 << 20));
        Self(Arc::new(Stream {
            ring,
            subscribers: Arc::default(),
            salt: rand::random(),
        }))
    }

    /// All events from now on.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        let ring = self.0.ring.subscribe();
        self.0.subscribers.fetch_add(1, Ordering::Relaxed);
        Subscription {
            ring,
            subscribers: Arc::clone(&self.0.subscribers),
        }
    }

    /// Writes all events from now on to the log, at level `debug`, in a task that ends with the stream.
    /// Without a tokio runtime nothing happens.
    pub(crate) fn log(&self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let mut subscription = self.subscribe();
        runtime.spawn(async move {
            while let Some(received) = subscription.next().await {
                match received {
                    Received::Event(event) => tracing::debug!(?event, "a tier did something"),
                    Received::Lost(events) => tracing::debug!(events, "events were lost"),
                }
            }
        });
    }

    /// Whether anybody listens.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.0.subscribers.load(Ordering::Relaxed) > 0
    }

    /// Tells the subscribers; `event` is only made when there are some. Never waits.
    pub fn emit(&self, event: impl FnOnce(&Self) -> Event) {
        if self.is_heard() {
            // An error says that the last one has just left.
            let _ = self.0.ring.send(event(self));
        }
    }

    /// What stands for `key` in the events of this stream.
    #[must_use]
    pub fn digest(&self, key: &[u8]) -> KeyDigest {
        let hash = blake3::keyed_hash(&self.0.salt, key);
        let mut digest = [0; 8];
        digest.copy_from_slice(&hash.as_bytes()[..8]);
        KeyDigest {
            digest,
            len: key.len(),
        }
    }
}

/// What a subscriber is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// The next event.
    Event(Event),
    /// This many events were lost before the next one, because the subscriber was too slow.
    Lost(u64),
}

/// One reader of a stream of events.
pub struct Subscription {
    ring: broadcast::Receiver<Event>,
    subscribers: Arc<AtomicUsize>,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}

impl Subscription {
    /// The next event, waiting for it; `None` once the stream is gone. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Received> {
        match self.ring.recv().await {
            Ok(event) => Some(Received::Event(event)),
            Err(RecvError::Lagged(events)) => Some(Received::Lost(events)),
            Err(RecvError::Closed) => None,
        }
    }

    /// The next event if it is there already.
    pub fn try_next(&mut self) -> Option<Received> {
        match self.ring.try_recv() {
            Ok(event) => Some(Received::Event(event)),
            Err(TryRecvError::Lagged(events)) => Some(Received::Lost(events)),
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        }
    }

    /// The next event, waiting for it no longer than `wait`.
    pub async fn next_within(&mut self, wait: Duration) -> Option<Received> {
        tokio::time::timeout(wait, self.next()).await.ok().flatten()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.subscribers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleared(tier: &str) -> Event {
        Event::Cleared { tier: tier.into() }
    }

    #[test]
    fn without_subscribers_an_event_is_not_even_made() {
        let events = Events::default();
        events.emit(|_| panic!("nobody listens"));
        drop(events.subscribe());
        events.emit(|_| panic!("nobody listens any more"));
    }

    #[test]
    fn w_70_a_slow_subscriber_loses_events_is_told_how_many_and_holds_nobody_up() {
        let events = Events::with_capacity(4);
        let mut slow = events.subscribe();
        let mut quick = events.subscribe();
        for i in 0..10 {
            events.emit(|_| cleared(&i.to_string()));
            assert_eq!(
                quick.try_next(),
                Some(Received::Event(cleared(&i.to_string())))
            );
        }
        assert_eq!(slow.try_next(), Some(Received::Lost(6)));
        for i in 6..10 {
            assert_eq!(
                slow.try_next(),
                Some(Received::Event(cleared(&i.to_string())))
            );
        }
        assert_eq!(slow.try_next(), None);
    }

    #[test]
    fn a_digest_tells_keys_apart_and_shows_neither_key_nor_the_same_in_another_stream() {
        let (here, there) = (Events::default(), Events::default());
        let digest = here.digest(b"user:42");
        assert_eq!(digest, here.digest(b"user:42"));
        assert_ne!(digest, here.digest(b"user:43"));
        assert_ne!(digest, there.digest(b"user:42"));
        assert_eq!(digest.key_len(), 7);
        assert!(!format!("{digest:?}").contains("user"));
    }

    #[tokio::test]
    async fn a_subscription_ends_with_its_stream() {
        let events = Events::default();
        let mut subscription = events.subscribe();
        events.emit(|_| cleared("memory"));
        drop(events);
        assert_eq!(
            subscription.next().await,
            Some(Received::Event(cleared("memory")))
        );
        assert_eq!(subscription.next().await, None);
    }
}
