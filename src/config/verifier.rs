//! Who is asked again about candidates that the policy nearly served: settings.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::CrossEncoderConfig;
use crate::error::{Error, ErrorKind, Result};

/// Who is asked again about candidates that the policy nearly served, when, and how often.
///
/// A verifier is outside of what a policy file promises: how often it is wrong, and so `serve_at`, is for whoever
/// configures it to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VerifierConfig {
    /// Who is asked.
    pub model: VerifierModelConfig,
    /// The verifier's probability from which a candidate is served, above 0 and up to 1. It has no default.
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = 1)))]
    pub serve_at: f64,
    /// The policy's probability from which a candidate is worth the question, 0 to 1. Default: 0.5.
    #[serde(default = "half")]
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = 1)))]
    pub low: f64,
    /// Candidates of a lookup that are asked about, the most probable first, 1 to 16. Default: 3.
    #[serde(default = "three")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 16)))]
    pub candidates: usize,
    /// How long a lookup waits for it, 1ms to 60s, half of that for its turn; past it the lookup is a miss.
    /// Default: `500ms`.
    #[serde(default = "half_a_second", with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::Time"))]
    pub deadline: Duration,
    /// Lookups that ask at the same time, 1 to 256. Default: 4.
    #[serde(default = "four")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 256)))]
    pub concurrency: usize,
    /// Lookups that ask in a minute at most, in each process. Default: 60; 0: none.
    #[serde(default = "sixty")]
    pub per_minute: u32,
}

/// A kind of verifier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum VerifierModelConfig {
    /// A model in an ONNX file that reads two texts at once. Needs the feature `onnx`.
    CrossEncoder(CrossEncoderConfig),
    /// A language model: in the server that of `judge`; in an application what it gives to the builder. It is
    /// shown the question, the stored question and the stored answer.
    LanguageModel,
}

const fn half() -> f64 {
    0.5
}

const fn three() -> usize {
    3
}

const fn four() -> usize {
    4
}

const fn sixty() -> u32 {
    60
}

const fn half_a_second() -> Duration {
    Duration::from_millis(500)
}

impl VerifierConfig {
    /// This verifier, asked from `serve_at` on as is usual.
    #[must_use]
    pub const fn new(model: VerifierModelConfig, serve_at: f64) -> Self {
        Self {
            model,
            serve_at,
            low: half(),
            candidates: three(),
            deadline: half_a_second(),
            concurrency: four(),
            per_minute: sixty(),
        }
    }

    /// Checks every field; `path` is where the section stands in the file.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the field and what is allowed.
    pub(super) fn validate(&self, path: &str) -> Result<()> {
        let check = |good: bool, field: &str, value: String, allowed: &'static str| {
            if good {
                return Ok(());
            }
            Err(Error::new(ErrorKind::Config, "a setting is out of range")
                .with("field", format!("{path}.{field}"))
                .with("value", value)
                .with("allowed", allowed))
        };
        let served = self.serve_at > 0.0 && self.serve_at <= 1.0;
        check(
            served,
            "serve_at",
            self.serve_at.to_string(),
            "above 0, up to 1",
        )?;
        let low = (0.0..=1.0).contains(&self.low);
        check(low, "low", self.low.to_string(), "0 to 1")?;
        let candidates = (1..=16).contains(&self.candidates);
        check(
            candidates,
            "candidates",
            self.candidates.to_string(),
            "1 to 16",
        )?;
        let concurrency = (1..=256).contains(&self.concurrency);
        check(
            concurrency,
            "concurrency",
            self.concurrency.to_string(),
            "1 to 256",
        )?;
        let deadline = self.deadline.as_millis() > 0 && self.deadline <= Duration::from_secs(60);
        check(
            deadline,
            "deadline",
            format!("{:?}", self.deadline),
            "1ms to 60s",
        )?;
        match &self.model {
            VerifierModelConfig::CrossEncoder(model) => model.validate(&format!("{path}.model")),
            VerifierModelConfig::LanguageModel => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(more: &str) -> serde_json::Result<VerifierConfig> {
        serde_json::from_str(&format!(
            r#"{{"model": {{"type": "language_model"}}{more}}}"#
        ))
    }

    #[test]
    fn the_threshold_is_stated_and_the_rest_has_defaults() {
        assert!(read("").unwrap_err().to_string().contains("serve_at"));
        let config = read(r#", "serve_at": 0.9"#).unwrap();
        assert_eq!(
            config,
            VerifierConfig::new(VerifierModelConfig::LanguageModel, 0.9)
        );
        config.validate("v").unwrap();
        let again = serde_json::to_string(&config).unwrap();
        assert_eq!(
            serde_json::from_str::<VerifierConfig>(&again).unwrap(),
            config
        );
        assert!(read(r#", "serve_at": 0.9, "per_hour": 1"#).is_err());
    }

    #[test]
    fn what_is_out_of_range_is_refused_by_name() {
        for (more, field) in [
            (r#""serve_at": 0"#, "v.serve_at"),
            (r#""serve_at": 1.1"#, "v.serve_at"),
            (r#""serve_at": 0.9, "low": -0.1"#, "v.low"),
            (r#""serve_at": 0.9, "candidates": 17"#, "v.candidates"),
            (r#""serve_at": 0.9, "concurrency": 0"#, "v.concurrency"),
            (r#""serve_at": 0.9, "deadline": "0s""#, "v.deadline"),
            (r#""serve_at": 0.9, "deadline": "61s""#, "v.deadline"),
        ] {
            let error = read(&format!(", {more}"))
                .unwrap()
                .validate("v")
                .unwrap_err();
            assert!(
                error.to_string().contains(&format!("field: {field}")),
                "{error}"
            );
        }
    }
}
