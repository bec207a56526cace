//! How long a value lives.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};

/// How long a value lives.
///
/// A [`Duration`] is one, and so is an `Option<Duration>`, where `None` means forever. Zero is refused
/// rather than taken for "forever" or "the default"; below a millisecond, a life is rounded up to one.
///
/// ```
/// use std::time::Duration;
/// use askonce::Ttl;
///
/// assert_eq!(Ttl::from(Duration::from_secs(5)), Ttl::For(Duration::from_secs(5)));
/// assert_eq!(Ttl::from(None), Ttl::Forever);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ttl {
    /// As long as the request asks, or else as the cache is set to.
    #[default]
    Default,
    /// Until it is evicted, deleted or invalidated.
    Forever,
    /// For this long.
    For(Duration),
}

impl From<Duration> for Ttl {
    fn from(life: Duration) -> Self {
        Self::For(life)
    }
}

impl From<Option<Duration>> for Ttl {
    fn from(life: Option<Duration>) -> Self {
        life.map_or(Self::Forever, Self::For)
    }
}

impl Ttl {
    /// The moment at which a value stored `now` dies.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] when it would live for no time.
    pub(crate) fn expires(
        self,
        now: Timestamp,
        default: Option<Duration>,
    ) -> Result<Option<Timestamp>> {
        match self.life(default) {
            Some(Duration::ZERO) => Err(zero_life()),
            Some(life) => Ok(Some(now.after(life.max(Duration::from_millis(1))))),
            None => Ok(None),
        }
    }

    /// How long a value lives where `default` is the default; `None`: forever.
    pub(crate) fn life(self, default: Option<Duration>) -> Option<Duration> {
        match self {
            Self::Default => default,
            Self::Forever => None,
            Self::For(life) => Some(life),
        }
    }
}

/// `life` less a share of it: `jitter`, from 0 to 1, times `draw`, from 0 to 1 as well.
pub(crate) fn jittered(life: Duration, jitter: f64, draw: f64) -> Duration {
    let lost = jitter.clamp(0.0, 1.0) * draw.clamp(0.0, 1.0);
    let lost = Duration::try_from_secs_f64(life.as_secs_f64() * lost);
    // Not a number, or more than there is.
    life.saturating_sub(lost.unwrap_or_default())
}

pub(crate) fn zero_life() -> Error {
    Error::new(
        ErrorKind::InvalidRequest,
        "a value that lives for no time cannot be stored",
    )
    .with("field", "ttl")
    .with("allowed", "more than zero, or none for no expiry")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_only_ever_shortens_and_by_no_more_than_its_share() {
        let life = Duration::from_secs(100);
        assert_eq!(jittered(life, 0.0, 0.7), life);
        assert_eq!(jittered(life, 0.2, 0.0), life);
        assert_eq!(jittered(life, 0.2, 0.5), Duration::from_secs(90));
        assert_eq!(jittered(life, 0.2, 1.0), Duration::from_secs(80));
        assert!(jittered(Duration::MAX, 0.1, 0.5) < Duration::MAX);
        assert_eq!(jittered(Duration::MAX, 0.0, 0.5), Duration::MAX);
    }
}
