//! Settings of a backend that is made of two others. What it does is [`crate::tier`]'s, which stands over
//! the backends; its settings stand here, among those of all types.

use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, Result};

/// A backend that is made of two others of the same configuration: the type `tiered`.
///
/// Its tiers belong to it: they are no caches of their own any more.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(inline))]
pub struct TieredConfig {
    /// Name in metrics, reports and `Cache-Status`. Default: `tiered`.
    #[cfg_attr(feature = "schema", schemars(default))]
    pub name: String,
    /// Name of the backend that holds copies, most often of type `memory`.
    pub near: String,
    /// Name of the backend that is right. It may be a stack itself.
    pub far: String,
    /// How they work together. In a file these fields stand beside the others.
    #[serde(flatten)]
    pub tiers: TierConfig,
}

impl TieredConfig {
    /// A stack of two named backends with default settings.
    #[must_use]
    pub fn new(near: impl Into<String>, far: impl Into<String>) -> Self {
        Self {
            name: Self::NAME.to_owned(),
            near: near.into(),
            far: far.into(),
            tiers: TierConfig::default(),
        }
    }

    const NAME: &'static str = "tiered";

    /// Checks every field; `path` is where this section stands in the file. Whether the two others are
    /// there is for the whole configuration to say.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the field, its value and what is allowed.
    pub fn validate(&self, path: &str) -> Result<()> {
        let fields = [
            ("name", &self.name),
            ("near", &self.near),
            ("far", &self.far),
        ];
        for (field, value) in fields {
            if value.is_empty() {
                return Err(
                    Error::new(ErrorKind::Config, "a stack and its tiers need names")
                        .with("field", format!("{path}.{field}")),
                );
            }
        }
        self.tiers.validate(path)
    }
}

/// The fields that are not those of [`TierConfig`], to tell the two apart without losing sight of
/// unknown ones.
#[derive(Deserialize)]
struct Names {
    name: Option<String>,
    near: String,
    far: String,
}

impl<'de> Deserialize<'de> for TieredConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut others = Map::deserialize(deserializer)?;
        let mut named = Map::new();
        for field in ["name", "near", "far"] {
            if let Some(value) = others.remove(field) {
                named.insert(field.to_owned(), value);
            }
        }
        let named = serde_json::from_value(Value::Object(named));
        let Names { name, near, far } = named.map_err(D::Error::custom)?;
        Ok(Self {
            name: name.unwrap_or_else(|| Self::NAME.to_owned()),
            near,
            far,
            tiers: serde_json::from_value(Value::Object(others)).map_err(D::Error::custom)?,
        })
    }
}

/// Settings of a [`TieredBackend`](crate::tier::TieredBackend).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct TierConfig {
    /// Longest life of a copy in the near tier, 1ms to 24h: the bound on how old a value can be that
    /// another process has replaced or deleted, if all news of that were lost. Stacks upon stacks add
    /// theirs up. Default: `60s`.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::Time"))]
    pub near_ttl: Duration,
    /// Share of `near_ttl` by which the life of each copy is shortened at random, 0 to 0.9, so that copies
    /// made together do not all die together. Default: `0.1`.
    #[cfg_attr(feature = "schema", schemars(range(min = 0.0, max = 0.9)))]
    pub near_ttl_jitter: f64,
    /// Keys whose changes the far tier missed that are remembered until it is back, 1 to 10 million. One
    /// more, and the far tier is cleared when it is back. Default: `65536`.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 10_000_000)))]
    pub recovery_queue: usize,
    /// How long to wait between attempts to tell the far tier what it missed, and to read the feed again
    /// after a failure; 1ms to 1h. Default: `1s`.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::Time"))]
    pub recovery_interval: Duration,
    /// How long one read of the far tier's feed waits for news, 1ms to 1h. Default: `1s`.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::Time"))]
    pub feed_wait: Duration,
    /// How much longer than `feed_wait` a read of the feed may take before the feed counts as lost, 1ms to
    /// 1h. Default: `2s`.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::Time"))]
    pub feed_timeout: Duration,
    /// How long ago the feed may have been read last for the near tier to be trusted; more than
    /// `feed_wait`, 24h at most. It counts after the process was suspended, or too busy. Default: `10s`.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::Time"))]
    pub feed_lag: Duration,
}

impl Default for TierConfig {
    fn default() -> Self {
        Self {
            near_ttl: Duration::from_secs(60),
            near_ttl_jitter: 0.1,
            recovery_queue: 65_536,
            recovery_interval: Duration::from_secs(1),
            feed_wait: Duration::from_secs(1),
            feed_timeout: Duration::from_secs(2),
            feed_lag: Duration::from_secs(10),
        }
    }
}

impl TierConfig {
    const LEAST: Duration = Duration::from_millis(1);
    const HOUR: Duration = Duration::from_secs(60 * 60);
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    const JITTER: std::ops::RangeInclusive<f64> = 0.0..=0.9;
    const QUEUE: std::ops::RangeInclusive<usize> = 1..=10_000_000;

    /// Checks every field; `path` is where this section stands in the file.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the field, its value and what is allowed.
    pub fn validate(&self, path: &str) -> Result<()> {
        let refuse = |field: &str, value: String, allowed: &'static str| {
            Err(Error::new(ErrorKind::Config, "a setting is out of range")
                .with("field", format!("{path}.{field}"))
                .with("value", value)
                .with("allowed", allowed))
        };
        let short = [
            ("recovery_interval", self.recovery_interval),
            ("feed_wait", self.feed_wait),
            ("feed_timeout", self.feed_timeout),
        ];
        for (field, value) in short {
            if !(Self::LEAST..=Self::HOUR).contains(&value) {
                return refuse(field, format!("{value:?}"), "1ms to 1h");
            }
        }
        if !(Self::LEAST..=Self::DAY).contains(&self.near_ttl) {
            return refuse("near_ttl", format!("{:?}", self.near_ttl), "1ms to 24h");
        }
        if !Self::JITTER.contains(&self.near_ttl_jitter) {
            return refuse(
                "near_ttl_jitter",
                self.near_ttl_jitter.to_string(),
                "0 to 0.9",
            );
        }
        if !Self::QUEUE.contains(&self.recovery_queue) {
            return refuse(
                "recovery_queue",
                self.recovery_queue.to_string(),
                "1 to 10000000",
            );
        }
        if self.feed_lag <= self.feed_wait || self.feed_lag > Self::DAY {
            let allowed = "more than feed_wait, 24h at most";
            return refuse("feed_lag", format!("{:?}", self.feed_lag), allowed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_checked_and_the_error_names_it() {
        let zero = Duration::ZERO;
        let good = TierConfig::default;
        let bad = [
            (
                "near_ttl",
                TierConfig {
                    near_ttl: zero,
                    ..good()
                },
            ),
            (
                "near_ttl_jitter",
                TierConfig {
                    near_ttl_jitter: f64::NAN,
                    ..good()
                },
            ),
            (
                "recovery_queue",
                TierConfig {
                    recovery_queue: 0,
                    ..good()
                },
            ),
            (
                "recovery_interval",
                TierConfig {
                    recovery_interval: zero,
                    ..good()
                },
            ),
            (
                "feed_wait",
                TierConfig {
                    feed_wait: zero,
                    ..good()
                },
            ),
            (
                "feed_timeout",
                TierConfig {
                    feed_timeout: zero,
                    ..good()
                },
            ),
            (
                "feed_lag",
                TierConfig {
                    feed_lag: good().feed_wait,
                    ..good()
                },
            ),
        ];
        good().validate("tiers").unwrap();
        for (field, config) in bad {
            let error = config.validate("tiers").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(
                error.to_string().contains(&format!("tiers.{field},")),
                "{error}"
            );
        }
    }
}
