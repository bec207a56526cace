//! One backend of a configuration: a store, and what stands around it.

use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::backend::{BackendConfig, BackendRegistry};
use crate::error::{Error, ErrorKind, Result};
use crate::layer::LayerConfig;

/// One backend: a store, and what stands around it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(transform = crate::schema::beside_each_type))]
pub struct BackendSection {
    /// Whether it is used. Default: true. A section that is not is checked all the same.
    #[cfg_attr(feature = "schema", schemars(default = "yes"))]
    pub enabled: bool,
    /// Makes this the backend of [`Caches::default_cache`](crate::Caches::default_cache). Default: false,
    /// and the first of the list that is enabled is. It says nothing about the order of tiers.
    #[cfg_attr(feature = "schema", schemars(default))]
    pub default: bool,
    /// How long a value lives whose store does not say. Default: `null`, that of the whole configuration.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(
        feature = "schema",
        schemars(default, with = "Option<crate::schema::Time>")
    )]
    pub default_ttl: Option<Duration>,
    /// Whether its operations are counted and timed in metrics. Default: true.
    #[cfg_attr(feature = "schema", schemars(default = "yes"))]
    pub enable_metrics: bool,
    /// How long a backend that said that it is well, and has not failed since, is not asked again, up to
    /// 24h. Default: `30s`. `0s`: it is asked each time.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(
        feature = "schema",
        schemars(default = "thirty_seconds", with = "crate::schema::Time")
    )]
    pub health_check_interval: Duration,
    /// Deadline, retries and circuit breaker. Default: those of [`LayerConfig`], with the breaker as
    /// `service` says. Refused for the types `memory` and `tiered`, which have none of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(default))]
    pub layers: Option<LayerConfig>,
    /// The store. In a file its fields stand beside the others.
    #[serde(flatten)]
    pub backend: BackendConfig,
}

impl From<BackendConfig> for BackendSection {
    /// A section that is enabled, with default layers.
    fn from(backend: BackendConfig) -> Self {
        Self {
            enabled: true,
            default: false,
            default_ttl: None,
            enable_metrics: true,
            health_check_interval: thirty_seconds(),
            layers: None,
            backend,
        }
    }
}

impl<'de> Deserialize<'de> for BackendSection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// The fields that every section has; which others there are depends on the type.
        #[derive(Deserialize)]
        struct Fields {
            #[serde(default = "yes")]
            enabled: bool,
            #[serde(default)]
            default: bool,
            #[serde(default, with = "humantime_serde")]
            default_ttl: Option<Duration>,
            #[serde(default = "yes")]
            enable_metrics: bool,
            #[serde(default = "thirty_seconds", with = "humantime_serde")]
            health_check_interval: Duration,
            #[serde(default)]
            layers: Option<LayerConfig>,
            #[serde(flatten)]
            others: serde_json::Map<String, serde_json::Value>,
        }
        let Fields {
            enabled,
            default,
            default_ttl,
            enable_metrics,
            health_check_interval,
            layers,
            others,
        } = Fields::deserialize(deserializer)?;
        Ok(Self {
            enabled,
            default,
            default_ttl,
            enable_metrics,
            health_check_interval,
            layers,
            backend: BackendConfig::from_fields(others).map_err(D::Error::custom)?,
        })
    }
}

const fn yes() -> bool {
    true
}

const fn thirty_seconds() -> Duration {
    Duration::from_secs(30)
}

impl BackendSection {
    const LONGEST_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

    pub(super) fn validate(&self, registry: &BackendRegistry, path: &str) -> Result<()> {
        registry.validate(&self.backend, path)?;
        if self.default && !self.enabled {
            return Err(
                Error::new(ErrorKind::Config, "the default backend is not enabled")
                    .with("field", format!("{path}.enabled"))
                    .with("value", false)
                    .with("remedy", "enable it, or make another the default"),
            );
        }
        super::check_ttl(self.default_ttl, &format!("{path}.default_ttl"))?;
        if self.health_check_interval > Self::LONGEST_INTERVAL {
            return Err(Error::new(ErrorKind::Config, "a setting is out of range")
                .with("field", format!("{path}.health_check_interval"))
                .with("value", format!("{:?}", self.health_check_interval))
                .with("allowed", "0s to 24h"));
        }
        let Some(layers) = &self.layers else {
            return Ok(());
        };
        let message = match self.backend {
            BackendConfig::Memory(_) => {
                "a backend in this process has no deadline, retries or breaker"
            }
            BackendConfig::Tiered(_) => "the tiers of a stack have layers, the stack has none",
            _ => return layers.validate(&format!("{path}.layers")),
        };
        Err(Error::new(ErrorKind::Config, message)
            .with("field", format!("{path}.layers"))
            .with("remedy", "leave it out"))
    }
}
