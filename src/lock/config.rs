//! Settings of locks.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::LockOptions;
use crate::error::{Error, ErrorKind, Result};

/// The shortest life of a lock: renewals must fit in several times.
const SHORTEST_TTL: Duration = Duration::from_millis(100);
/// The longest: what a holder that died blocks everyone else for.
const LONGEST_TTL: Duration = Duration::from_secs(24 * 60 * 60);
const SHORTEST_RETRY: Duration = Duration::from_millis(1);
const LONGEST_PREFIX: usize = 100;

/// Settings of locks that processes share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct LockConfig {
    /// How long a lock outlives a holder that died or was cut off, 100 ms to 24 h. Default: `30s`. Renewed
    /// every third of it, so it need not cover the work.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::Time"))]
    pub ttl: Duration,
    /// How long to wait for a lock that another holds. Default: none, do not wait.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::schema::Time>"))]
    pub wait: Option<Duration>,
    /// The first pause between two attempts while waiting, at least 1 ms and no longer than `ttl`; it
    /// doubles up to a second, and half of it is left to chance. Default: `20ms`.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::Time"))]
    pub retry: Duration,
    /// What the keys of locks begin with, 1 to 100 bytes, under the prefix of the backend. Processes that
    /// share locks must write it alike. Default: `lock`.
    pub prefix: String,
}

impl Default for LockConfig {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(30),
            wait: None,
            retry: Duration::from_millis(20),
            prefix: "lock".to_owned(),
        }
    }
}

impl LockConfig {
    /// Checks every field; `path` is where this section stands in the file.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the field, its value and what is allowed.
    pub fn validate(&self, path: &str) -> Result<()> {
        if self.prefix.is_empty() || self.prefix.len() > LONGEST_PREFIX {
            return Err(
                Error::new(ErrorKind::Config, "locks cannot have this prefix")
                    .with("field", format!("{path}.prefix"))
                    .with("value", format!("{:?}", self.prefix))
                    .with("allowed", format!("1 to {LONGEST_PREFIX} bytes")),
            );
        }
        self.options().validate(path)
    }

    /// What these settings say about acquiring one lock.
    #[must_use]
    pub fn options(&self) -> LockOptions {
        LockOptions {
            ttl: self.ttl,
            wait: self.wait,
            renew: true,
            retry: self.retry,
        }
    }
}

impl LockOptions {
    /// Checks every field; `path` is what they are fields of.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the field, its value and the allowed range.
    pub fn validate(&self, path: &str) -> Result<()> {
        let within = |field: &str, value: Duration, least: Duration, most: Duration| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            Err(Error::new(ErrorKind::Config, "a setting is out of range")
                .with("field", format!("{path}.{field}"))
                .with("value", format!("{value:?}"))
                .with("allowed", format!("{least:?} to {most:?}")))
        };
        within("ttl", self.ttl, SHORTEST_TTL, LONGEST_TTL)?;
        within("retry", self.retry, SHORTEST_RETRY, self.ttl)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_refused_by_name_with_its_value_and_what_is_allowed() {
        fn with(change: impl FnOnce(&mut LockConfig)) -> LockConfig {
            let mut config = LockConfig::default();
            change(&mut config);
            config
        }
        LockConfig::default().validate("lock").unwrap();
        with(|config| config.ttl = SHORTEST_TTL)
            .validate("lock")
            .unwrap();
        for (config, field, value) in [
            (with(|config| config.prefix.clear()), "lock.prefix", "\"\""),
            (
                with(|config| config.prefix = "x".repeat(101)),
                "lock.prefix",
                "xxx",
            ),
            (
                with(|config| config.ttl = Duration::from_millis(99)),
                "lock.ttl",
                "99ms",
            ),
            (with(|config| config.ttl = Duration::MAX), "lock.ttl", "s"),
            (
                with(|config| config.retry = Duration::ZERO),
                "lock.retry",
                "0ns",
            ),
            (
                with(|config| config.retry = Duration::from_secs(31)),
                "lock.retry",
                "31s",
            ),
        ] {
            let error = config.validate("lock").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert_eq!(error.context()[0], ("field", field.to_owned()));
            let shown = error.to_string();
            assert!(
                shown.contains(value) && shown.contains("allowed"),
                "{shown}"
            );
        }
    }

    #[test]
    fn settings_are_read_as_documented() {
        let read = serde_json::from_str::<LockConfig>;
        let config = read(r#"{"ttl": "10s", "wait": "250ms", "prefix": "jobs"}"#).unwrap();
        assert_eq!(config.ttl, Duration::from_secs(10));
        assert_eq!(config.wait, Some(Duration::from_millis(250)));
        assert_eq!(config.retry, LockConfig::default().retry);
        assert_eq!(read("{}").unwrap(), LockConfig::default());
        assert!(read(r#"{"timeout": "1s"}"#).is_err());
    }
}
