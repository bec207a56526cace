//! Settings of what is learnt from decisions: see [`crate::learning`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// What is learnt from decisions, and what that may cost.
///
/// Labels from misses cost no upstream call and are on by default. Audits and the judge make calls, so
/// both are off until they have a budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct LearningConfig {
    /// Whether anything is learnt. Default: true. Reports by callers are heeded in any case.
    pub enabled: bool,
    /// A miss is labelled when the best candidate's probability of being right was at least this, 0 to 1.
    /// Default: 0.2. Where the policy has no probabilities, the best candidate that was looked at is.
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = 1)))]
    pub least_probability: f64,
    /// Comparisons that may wait, 1 to 65536. Default: 256. Those that find no room are dropped and counted;
    /// no caller waits for one.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 65_536)))]
    pub queue: usize,
    /// Variance of an entry's shift of the log-odds before any label, above 0 and up to 25. Default: 1.
    /// What the labels of a category show of it takes its place by and by.
    pub prior_variance: f64,
    /// Share of what was learnt of an entry that is left after a day, above 0 and up to 1. Default: 0.98.
    pub retention_per_day: f64,
    /// The file that what was learnt is kept in. Default: `null`, which means beside the folder of the index
    /// (`semantic.index.path` with `.learning` added), and nowhere where that is not set either.
    pub path: Option<PathBuf>,
    /// Labels from audited hits.
    pub audit: AuditConfig,
    /// A language model that compares two answers where cheaper means are not sure.
    pub judge: JudgeConfig,
    /// What callers report.
    pub feedback: FeedbackConfig,
    /// What stops similarity hits when too many were wrong.
    pub breaker: HitBreakerConfig,
    /// The decision log. Default: `null`, none is written.
    pub log: Option<DecisionLogConfig>,
    /// How often the policy is fitted anew on the labels of the log, at least 1m, the first time at the start:
    /// it takes the place of the one before if it keeps the same promises on them. Needs `log` and a policy of
    /// type `calibrated`. Default: `null`, never.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::schema::Time>"))]
    pub recalibrate_every: Option<Duration>,
    /// The file that a policy fitted anew is written to, as a whole or not at all; the one before stands beside it
    /// with `.1` added, and what came of the last attempt with `.report.json`. A later start decides by it, if it
    /// was made from the configured policy and certifies its promises. Default: `null`, what was fitted is gone
    /// with the process.
    pub recalibrated_path: Option<PathBuf>,
    /// How fast right answers go wrong with age.
    pub freshness: FreshnessConfig,
}

impl Default for LearningConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            least_probability: 0.2,
            queue: 256,
            prior_variance: 1.0,
            retention_per_day: 0.98,
            path: None,
            audit: AuditConfig::default(),
            judge: JudgeConfig::default(),
            feedback: FeedbackConfig::default(),
            breaker: HitBreakerConfig::default(),
            log: None,
            recalibrate_every: None,
            recalibrated_path: None,
            freshness: FreshnessConfig::default(),
        }
    }
}

/// Hits whose upstream call is made all the same, in the background, to see whether they were right.
///
/// Only [`get_or_call`](crate::SemanticCache::get_or_call) can be audited, which has the call. It is made
/// with whatever credentials the caller gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct AuditConfig {
    /// Whether hits are audited. Default: false.
    pub enabled: bool,
    /// Share of all hits by similarity that is audited whatever their probability, 0 to 1. Default: 0.01.
    /// These alone move the breaker.
    pub uniform_rate: f64,
    /// Further audits, where they teach most: a hit of probability p is audited with probability
    /// `rate * sqrt(p (1 - p))`, at least 0.002 and at most 0.2. 0 to 1. Default: 0.05. 0: none.
    pub rate: f64,
    /// Calls a day at most. Default: 200.
    pub calls_per_day: u64,
    /// Dollars a day at most, by the price table. Default: 1.
    pub usd_per_day: f64,
    /// How good the labels of audits are, by a sample that people checked. Default: `null`, they are taken as
    /// right. With it `false_hits_corrected` in `stats` and the metric tell the share of wrong hits less what
    /// the labels get wrong, and the interval is as much wider as the sample is small. Have people check
    /// labels of the same judge.
    pub checked: Option<CheckedLabels>,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            uniform_rate: 0.01,
            rate: 0.05,
            calls_per_day: 200,
            usd_per_day: 1.0,
            checked: None,
        }
    }
}

/// A sample of audited hits that people looked at as well as the comparison and the judge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CheckedLabels {
    /// Hits of the sample that are wrong, as people say; at least 1.
    pub wrong: u64,
    /// How many of those were labelled wrong; over `wrong` it is the sensitivity.
    pub called_wrong: u64,
    /// Hits of the sample that are right, as people say; at least 1.
    pub right: u64,
    /// How many of those were labelled right; over `right` it is the specificity.
    pub called_right: u64,
}

/// How fast right answers of a category go wrong with age: a probability p at the start is
/// `p * exp(-hazard * days)` later, in decisions and in `explain`. Policies without probabilities
/// (`threshold`) do not heed it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct FreshnessConfig {
    /// The hazard a day by category, 0 to 100; the default category has an empty name. Default: none, age does
    /// not matter.
    pub hazard_per_day: BTreeMap<String, f64>,
    /// Whether the hazard of other categories is estimated from audits by the age of the answer. Default:
    /// false. Before 30 audits it is 0.
    pub estimate: bool,
}

/// What a judge may cost. There is one only where the application gives it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct JudgeConfig {
    /// Calls a day at most. Default: 0, the judge is off.
    pub calls_per_day: u64,
    /// Dollars a day at most, as the judge tells them. Default: 1.
    pub usd_per_day: f64,
    /// How long one answer is waited for. Default: `30s`.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::Time"))]
    pub timeout: Duration,
}

impl Default for JudgeConfig {
    fn default() -> Self {
        Self {
            calls_per_day: 0,
            usd_per_day: 1.0,
            timeout: Duration::from_secs(30),
        }
    }
}

/// How far reports by callers are believed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct FeedbackConfig {
    /// What a report counts beside a comparison of two answers, 0 to 1. Default: 0.5.
    pub weight: f64,
    /// Reports of one principal that are taken within `window`; more are refused. At least 1. Default: 60.
    pub per_principal: u32,
    /// Default: `1h`.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::Time"))]
    pub window: Duration,
}

impl Default for FeedbackConfig {
    fn default() -> Self {
        Self {
            weight: 0.5,
            per_principal: 60,
            window: Duration::from_secs(3600),
        }
    }
}

/// When a category serves no more by similarity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct HitBreakerConfig {
    /// Whether hits are stopped at all. Default: true. Without audits there is nothing that could.
    pub enabled: bool,
    /// Share of hits by similarity that may be wrong, above 0 and below 1. Default: 0.05.
    pub bound: f64,
    /// Probability, over all time, of stopping a category that keeps the bound; above 0 and below 1.
    /// Default: 0.05.
    pub false_alarm: f64,
}

impl Default for HitBreakerConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            bound: 0.05,
            false_alarm: 0.05,
        }
    }
}

/// Where decisions are written, one JSON document a line, and how much of them is kept. They hold no text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DecisionLogConfig {
    /// The file. Older ones stand beside it, with `.1`, `.2` and so on added.
    pub path: PathBuf,
    /// Size at which a new file is begun, at least 4 KiB. Default: `64MiB`.
    #[serde(default = "sixty_four_mib")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::Bytes"))]
    pub max_bytes: ByteSize,
    /// Older files that are kept, up to 1000. Default: 4.
    #[serde(default = "four")]
    pub keep: usize,
}

const fn sixty_four_mib() -> ByteSize {
    ByteSize::mib(64)
}

const fn four() -> usize {
    4
}

impl LearningConfig {
    /// # Errors
    /// [`ErrorKind::Config`] naming the field, its value and what is allowed.
    pub(super) fn validate(&self, path: &str) -> Result<()> {
        let check = |good: bool, field: &str, value: String, allowed: &str| {
            if good {
                return Ok(());
            }
            Err(Error::new(ErrorKind::Config, "a setting is out of range")
                .with("field", format!("{path}.{field}"))
                .with("value", value)
                .with("allowed", allowed))
        };
        let share = |value: f64, field: &str| {
            let good = (0.0..=1.0).contains(&value);
            check(good, field, value.to_string(), "0 to 1")
        };
        let inside = |value: f64, field: &str| {
            let good = value > 0.0 && value < 1.0;
            check(good, field, value.to_string(), "above 0 and below 1")
        };
        let dollars = |value: f64, field: &str| {
            let good = value.is_finite() && value >= 0.0;
            check(good, field, value.to_string(), "0 or more")
        };
        let lasting = |value: Duration, field: &str| {
            let good = value.as_millis() > 0;
            check(good, field, format!("{value:?}"), "at least 1ms")
        };
        share(self.least_probability, "least_probability")?;
        check(
            (1..=65_536).contains(&self.queue),
            "queue",
            self.queue.to_string(),
            "1 to 65536",
        )?;
        check(
            self.prior_variance > 0.0 && self.prior_variance <= 25.0,
            "prior_variance",
            self.prior_variance.to_string(),
            "above 0, up to 25",
        )?;
        check(
            self.retention_per_day > 0.0 && self.retention_per_day <= 1.0,
            "retention_per_day",
            self.retention_per_day.to_string(),
            "above 0, up to 1",
        )?;
        share(self.audit.uniform_rate, "audit.uniform_rate")?;
        share(self.audit.rate, "audit.rate")?;
        dollars(self.audit.usd_per_day, "audit.usd_per_day")?;
        if let Some(checked) = &self.audit.checked {
            let part = |part: u64, whole: u64, field: &str, allowed: &str| {
                let good = whole > 0 && part <= whole;
                check(good, field, format!("{part} of {whole}"), allowed)
            };
            part(
                checked.called_wrong,
                checked.wrong,
                "audit.checked.called_wrong",
                "up to wrong, which is at least 1",
            )?;
            part(
                checked.called_right,
                checked.right,
                "audit.checked.called_right",
                "up to right, which is at least 1",
            )?;
        }
        for (category, hazard) in &self.freshness.hazard_per_day {
            check(
                (0.0..=100.0).contains(hazard),
                &format!("freshness.hazard_per_day.{category}"),
                hazard.to_string(),
                "0 to 100",
            )?;
        }
        dollars(self.judge.usd_per_day, "judge.usd_per_day")?;
        lasting(self.judge.timeout, "judge.timeout")?;
        share(self.feedback.weight, "feedback.weight")?;
        check(
            self.feedback.per_principal > 0,
            "feedback.per_principal",
            self.feedback.per_principal.to_string(),
            "at least 1",
        )?;
        lasting(self.feedback.window, "feedback.window")?;
        inside(self.breaker.bound, "breaker.bound")?;
        inside(self.breaker.false_alarm, "breaker.false_alarm")?;
        if let Some(every) = self.recalibrate_every {
            check(
                every >= Duration::from_secs(60),
                "recalibrate_every",
                format!("{every:?}"),
                "at least 1m, or null",
            )?;
            check(
                self.log.is_some(),
                "log",
                "null".to_owned(),
                "a log, where recalibrate_every is set",
            )?;
        }
        check(
            self.recalibrated_path.is_none() || self.log.is_some(),
            "log",
            "null".to_owned(),
            "a log, where recalibrated_path is set",
        )?;
        if let Some(log) = &self.log {
            check(
                log.max_bytes >= ByteSize::kib(4),
                "log.max_bytes",
                log.max_bytes.to_string(),
                "at least 4KiB",
            )?;
            check(
                log.keep <= 1000,
                "log.keep",
                log.keep.to_string(),
                "up to 1000",
            )?;
        }
        Ok(())
    }

    /// The file that what was learnt is kept in, beside an index in the folder `index`.
    pub(crate) fn file(&self, index: Option<&std::path::Path>) -> Option<PathBuf> {
        self.path.clone().or_else(|| {
            let mut beside = index?.as_os_str().to_owned();
            beside.push(".learning");
            Some(beside.into())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_out_of_range_is_named_with_what_is_allowed() {
        for (text, field) in [
            (r#"{"least_probability": 1.5}"#, "least_probability"),
            (r#"{"queue": 0}"#, "queue"),
            (r#"{"prior_variance": 0}"#, "prior_variance"),
            (r#"{"retention_per_day": 0}"#, "retention_per_day"),
            (r#"{"audit": {"uniform_rate": -1}}"#, "audit.uniform_rate"),
            (
                r#"{"audit": {"checked": {"wrong": 1, "called_wrong": 2, "right": 1, "called_right": 1}}}"#,
                "audit.checked.called_wrong",
            ),
            (
                r#"{"audit": {"checked": {"wrong": 1, "called_wrong": 1, "right": 0, "called_right": 0}}}"#,
                "audit.checked.called_right",
            ),
            (
                r#"{"freshness": {"hazard_per_day": {"prices": -1}}}"#,
                "freshness.hazard_per_day.prices",
            ),
            (r#"{"recalibrated_path": "x"}"#, "log"),
            (r#"{"judge": {"usd_per_day": -1}}"#, "judge.usd_per_day"),
            (
                r#"{"feedback": {"per_principal": 0}}"#,
                "feedback.per_principal",
            ),
            (r#"{"breaker": {"bound": 1}}"#, "breaker.bound"),
            (r#"{"recalibrate_every": "1s"}"#, "recalibrate_every"),
            (r#"{"recalibrate_every": "1h"}"#, "log"),
            (r#"{"log": {"path": "x", "max_bytes": 1}}"#, "log.max_bytes"),
        ] {
            let config: LearningConfig = serde_json::from_str(text).unwrap();
            let error = config.validate("semantic.learning").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            let named = format!("field: semantic.learning.{field}");
            assert!(error.to_string().contains(&named), "{error}");
        }
        LearningConfig::default()
            .validate("semantic.learning")
            .unwrap();
    }

    #[test]
    fn the_file_stands_beside_the_index_unless_it_is_named() {
        let mut config = LearningConfig::default();
        assert_eq!(config.file(None), None);
        let index = std::path::Path::new("/var/lib/askonce/index");
        let beside = PathBuf::from("/var/lib/askonce/index.learning");
        assert_eq!(config.file(Some(index)), Some(beside));
        config.path = Some("x".into());
        assert_eq!(config.file(Some(index)), Some("x".into()));
    }
}
