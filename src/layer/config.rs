//! Settings of the layers around a backend.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// Settings of the layers around one backend that is not in this process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct LayerConfig {
    /// How long one operation may take in all, attempts and the waits between them together, 1ms to 10m.
    /// Default: `null`, which is twice the backend's own timeout, or 2 seconds where it has none.
    /// Operations that go through all keys (clear, usage, listing, deleting by pattern) have no deadline
    /// as a whole; each of their round trips has the backend's own.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::schema::Time>"))]
    pub deadline: Option<Duration>,
    /// Attempts after the first, 0 to 10. Default: 1. Only failures that a second attempt may not meet
    /// are tried again, never a timeout, and only operations that may happen twice: not counters, takes
    /// and conditional writes.
    #[cfg_attr(feature = "schema", schemars(range(max = 10)))]
    pub retries: usize,
    /// The wait before the second attempt, 1ms to 10s; twice as long before each further one, plus as much
    /// again at random. Default: `10ms`.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::Time"))]
    pub retry_base: Duration,
    /// When to leave the backend alone for a while.
    pub breaker: BreakerConfig,
}

impl Default for LayerConfig {
    fn default() -> Self {
        Self {
            deadline: None,
            retries: 1,
            retry_base: Duration::from_millis(10),
            breaker: BreakerConfig::default(),
        }
    }
}

/// Settings of a circuit breaker.
///
/// With the defaults, a backend that hangs costs about five callers its timeout, then one caller every
/// five seconds until it is back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct BreakerConfig {
    /// Whether there is one. Default: true.
    pub enabled: bool,
    /// How many of the last calls are looked at, 1 to 1 000. Default: 10.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 1000)))]
    pub window: usize,
    /// Calls before it may open, 1 to `window`. Default: 5.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 1000)))]
    pub min_calls: usize,
    /// The share of calls that failed from which on it opens, above 0 and up to 1. Default: 0.5.
    #[cfg_attr(feature = "schema", schemars(range(min = 0.0, max = 1.0)))]
    pub error_rate: f64,
    /// A call that takes this long is slow, 1ms to 10m. Default: `1s`; `null`: no call is.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::schema::Time>"))]
    pub slow_call: Option<Duration>,
    /// The share of slow calls from which on it opens, above 0 and up to 1. Default: 0.9.
    #[cfg_attr(feature = "schema", schemars(range(min = 0.0, max = 1.0)))]
    pub slow_rate: f64,
    /// How long it stays open before it lets calls through to see how they fare, 1ms to 1h. Default:
    /// `5s`.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::Time"))]
    pub open_for: Duration,
    /// By what share of itself `open_for` is prolonged at most, at random each time, 0 to 1, so that
    /// processes do not all come back at once. Default: 0.2.
    #[cfg_attr(feature = "schema", schemars(range(min = 0.0, max = 1.0)))]
    pub open_jitter: f64,
    /// Calls that must succeed before it closes again, and the most it lets through until then, 1 to
    /// 100. Default: 2.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 100)))]
    pub half_open_probes: usize,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            window: 10,
            min_calls: 5,
            error_rate: 0.5,
            slow_call: Some(Duration::from_secs(1)),
            slow_rate: 0.9,
            open_for: Duration::from_secs(5),
            open_jitter: 0.2,
            half_open_probes: 2,
        }
    }
}

impl LayerConfig {
    /// The deadline of operations on backends without a timeout of their own.
    const PLAIN_DEADLINE: Duration = Duration::from_secs(2);

    /// Checks every field; `path` is where this section stands in the file.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the field, its value and what is allowed.
    pub fn validate(&self, path: &str) -> Result<()> {
        if let Some(deadline) = self.deadline {
            let field = format!("{path}.deadline");
            within(field, deadline, Duration::from_secs(600), "1ms to 10m")?;
        }
        if self.retries > 10 {
            return Err(refused(format!("{path}.retries"), self.retries, "0 to 10"));
        }
        within(
            format!("{path}.retry_base"),
            self.retry_base,
            Duration::from_secs(10),
            "1ms to 10s",
        )?;
        self.breaker.validate(&format!("{path}.breaker"))
    }

    /// These settings with the deadline written out, for a backend whose operations take no longer than
    /// `timeout`.
    #[must_use]
    pub fn for_timeout(&self, timeout: Option<Duration>) -> Self {
        let plain = timeout.map_or(Self::PLAIN_DEADLINE, |timeout| timeout.saturating_mul(2));
        Self {
            deadline: Some(self.deadline.unwrap_or(plain)),
            ..self.clone()
        }
    }
}

impl BreakerConfig {
    fn validate(&self, path: &str) -> Result<()> {
        let field = |name: &str| format!("{path}.{name}");
        if !(1..=1_000).contains(&self.window) {
            return Err(refused(field("window"), self.window, "1 to 1000"));
        }
        if !(1..=self.window).contains(&self.min_calls) {
            let allowed = format!("1 to the window, {}", self.window);
            return Err(refused(field("min_calls"), self.min_calls, allowed));
        }
        for (name, rate) in [
            ("error_rate", self.error_rate),
            ("slow_rate", self.slow_rate),
        ] {
            if !(rate > 0.0 && rate <= 1.0) {
                return Err(refused(field(name), rate, "above 0, up to 1"));
            }
        }
        if let Some(slow) = self.slow_call {
            let most = Duration::from_secs(600);
            within(field("slow_call"), slow, most, "1ms to 10m, or null")?;
        }
        let most = Duration::from_secs(3_600);
        within(field("open_for"), self.open_for, most, "1ms to 1h")?;
        if !(0.0..=1.0).contains(&self.open_jitter) {
            return Err(refused(field("open_jitter"), self.open_jitter, "0 to 1"));
        }
        if !(1..=100).contains(&self.half_open_probes) {
            let probes = self.half_open_probes;
            return Err(refused(field("half_open_probes"), probes, "1 to 100"));
        }
        Ok(())
    }
}

fn within(field: String, value: Duration, most: Duration, allowed: &'static str) -> Result<()> {
    if value.as_millis() == 0 || value > most {
        return Err(refused(field, format!("{value:?}"), allowed));
    }
    Ok(())
}

fn refused(field: String, value: impl fmt::Display, allowed: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Config, "a setting is out of range")
        .with("field", field)
        .with("value", value)
        .with("allowed", allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_refused_by_name_with_its_value_and_what_is_allowed() {
        LayerConfig::default().validate("layers").unwrap();
        let with = |change: fn(&mut LayerConfig)| {
            let mut config = LayerConfig::default();
            change(&mut config);
            config.validate("layers").unwrap_err().to_string()
        };
        for (error, expected) in [
            (
                with(|c| c.deadline = Some(Duration::ZERO)),
                "layers.deadline, value: 0ns, allowed: 1ms to 10m",
            ),
            (
                with(|c| c.retries = 11),
                "layers.retries, value: 11, allowed: 0 to 10",
            ),
            (
                with(|c| c.retry_base = Duration::from_secs(11)),
                "layers.retry_base, value: 11s",
            ),
            (with(|c| c.breaker.window = 0), "breaker.window, value: 0"),
            (
                with(|c| c.breaker.min_calls = 11),
                "layers.breaker.min_calls, value: 11, allowed: 1 to the window, 10",
            ),
            (
                with(|c| c.breaker.error_rate = 0.0),
                "breaker.error_rate, value: 0, allowed: above 0, up to 1",
            ),
            (
                with(|c| c.breaker.slow_rate = f64::NAN),
                "breaker.slow_rate, value: NaN",
            ),
            (
                with(|c| c.breaker.slow_call = Some(Duration::ZERO)),
                "breaker.slow_call, value: 0ns",
            ),
            (
                with(|c| c.breaker.open_for = Duration::ZERO),
                "breaker.open_for, value: 0ns, allowed: 1ms to 1h",
            ),
            (
                with(|c| c.breaker.open_jitter = -0.1),
                "breaker.open_jitter, value: -0.1, allowed: 0 to 1",
            ),
            (
                with(|c| c.breaker.half_open_probes = 0),
                "breaker.half_open_probes, value: 0, allowed: 1 to 100",
            ),
        ] {
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_deadline_that_is_not_set_follows_the_timeout_of_the_backend() {
        let deadline = |config: &LayerConfig, timeout| config.for_timeout(timeout).deadline;
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let config = LayerConfig::default();
        assert_eq!(deadline(&config, seconds(3)), seconds(6));
        assert_eq!(deadline(&config, None), seconds(2));
        let config = LayerConfig {
            deadline: seconds(1),
            ..config
        };
        assert_eq!(deadline(&config, seconds(3)), seconds(1));
    }
}
