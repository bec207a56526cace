//! What holds for all caches of a configuration together.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::codec::Serializer;
use crate::error::{Error, ErrorKind, Result};
use crate::layer::{BreakerConfig, LayerConfig};

/// What holds for all caches of a configuration together, unless a section says otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ServiceConfig {
    /// Whether there is one load per key, however many callers ask at once: in this process, and, of typed
    /// caches, by leases among the processes that share a backend. Default: true.
    pub enable_protection: bool,
    /// How long the lease of a process that died keeps the others waiting, 100ms to 1h; it is renewed while
    /// its load runs, so it need not cover that. Default: `30s`.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::Time"))]
    pub protection_lock_ttl: Duration,
    /// How long a caller waits for another process's load before it loads as well, without storing what
    /// it gets; up to 1h. Default: `10s`. `null`: as long as that load runs.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::schema::Time>"))]
    pub protection_max_wait: Option<Duration>,
    /// The first pause between two looks for what another process loads, 1ms to 10s; later ones are longer.
    /// Default: `100ms`.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::Time"))]
    pub protection_retry_interval: Duration,
    /// Whether operations are counted and timed in metrics. Default: true. `false` counts for every
    /// backend, whatever its own section says.
    pub enable_metrics: bool,
    /// Whether asking for health asks the backends. Default: true. Without, it is told from what their
    /// breakers saw last.
    pub enable_health_checks: bool,
    /// Name of the backend that [`Caches::default_cache`](crate::Caches::default_cache) keeps its values
    /// in. Default: `null`, the one that is marked `default`, or else the first that is enabled.
    pub default_backend: Option<String>,
    /// Whether backends outside this process are left alone for a while when they fail. Default: `null`, as
    /// their `layers` say, which is yes. A section's own `layers` win.
    pub circuit_breaker_enabled: Option<bool>,
    /// Failures in a row after which a breaker opens at the latest, 1 to 500; it looks at twice as many
    /// calls, and opens when half of them failed. Default: `null`, 5. A section's own `layers` win.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 500)))]
    pub circuit_breaker_threshold: Option<usize>,
    /// The format of stored values: `msgpack`, `json` or `postcard`. Default: `null`, that of `codec`.
    pub default_serializer: Option<Serializer>,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self {
            enable_protection: true,
            protection_lock_ttl: Duration::from_secs(30),
            protection_max_wait: Some(Duration::from_secs(10)),
            protection_retry_interval: Duration::from_millis(100),
            enable_metrics: true,
            enable_health_checks: true,
            default_backend: None,
            circuit_breaker_enabled: None,
            circuit_breaker_threshold: None,
            default_serializer: None,
        }
    }
}

impl ServiceConfig {
    pub(super) fn validate(&self, path: &str) -> Result<()> {
        let within =
            |field: &str, value: Duration, least: u64, most: u64, allowed: &'static str| {
                let range = Duration::from_millis(least)..=Duration::from_secs(most);
                if range.contains(&value) {
                    return Ok(());
                }
                Err(Error::new(ErrorKind::Config, "a setting is out of range")
                    .with("field", format!("{path}.{field}"))
                    .with("value", format!("{value:?}"))
                    .with("allowed", allowed))
            };
        let lock_ttl = self.protection_lock_ttl;
        within("protection_lock_ttl", lock_ttl, 100, 3_600, "100ms to 1h")?;
        if let Some(wait) = self.protection_max_wait {
            within("protection_max_wait", wait, 0, 3_600, "0s to 1h, or null")?;
        }
        let retry = self.protection_retry_interval;
        within("protection_retry_interval", retry, 1, 10, "1ms to 10s")?;
        match self.circuit_breaker_threshold {
            Some(threshold) if !(1..=500).contains(&threshold) => {
                Err(Error::new(ErrorKind::Config, "a setting is out of range")
                    .with("field", format!("{path}.circuit_breaker_threshold"))
                    .with("value", threshold)
                    .with("allowed", "1 to 500, or null"))
            }
            _ => Ok(()),
        }
    }

    /// The layers of a backend whose section does not have its own.
    pub(super) fn layers(&self) -> LayerConfig {
        let mut breaker = BreakerConfig::default();
        if let Some(enabled) = self.circuit_breaker_enabled {
            breaker.enabled = enabled;
        }
        if let Some(threshold) = self.circuit_breaker_threshold {
            breaker.min_calls = threshold;
            breaker.window = 2 * threshold;
            breaker.error_rate = 0.5;
        }
        LayerConfig {
            breaker,
            ..LayerConfig::default()
        }
    }
}
