//! What turns text into vectors: settings.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// What turns text into vectors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum EmbedderConfig {
    /// The built-in table: microseconds, no network, English. The default.
    #[default]
    Static,
    /// A server with an OpenAI-compatible `/v1/embeddings`. Needs the feature `http-embedder`.
    Http(HttpEmbedderConfig),
    /// The built-in table for all requests, and a second, slower embedding for those that the policy is in
    /// doubt about.
    Cascade {
        /// The second embedding.
        refiner: RefinerConfig,
        /// How long a lookup in doubt waits for the second embedding, 1ms to 10s; past it the first decides
        /// alone. Default: `50ms`.
        #[serde(default = "fifty_milliseconds", with = "humantime_serde")]
        #[cfg_attr(feature = "schema", schemars(with = "crate::schema::Time"))]
        deadline: Duration,
        /// Calls of the second embedding that run at the same time, 1 to 256. Default: `null`, as many as
        /// there are processors.
        #[serde(default)]
        #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 256)))]
        concurrency: Option<usize>,
    },
}

/// The second embedding of a cascade.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum RefinerConfig {
    /// A server with an OpenAI-compatible `/v1/embeddings`. Needs the feature `http-embedder`. Its own
    /// `timeout` holds for vectors that are made in the background.
    Http(HttpEmbedderConfig),
}

/// A server that embeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HttpEmbedderConfig {
    /// Where the API lives, up to and without `/embeddings`: `https://api.openai.com/v1`.
    pub base_url: String,
    /// The model to ask for.
    pub model: String,
    /// The environment variable that holds the key. Default: none is sent.
    #[serde(default)]
    pub api_key_env: Option<String>,
    /// Length of the vectors; asked of the server at start-up when not given.
    #[serde(default)]
    pub dimension: Option<usize>,
    /// How long one lookup waits for a vector before it is a miss. Default: `2s`.
    #[serde(default = "two_seconds", with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::Time"))]
    pub timeout: Duration,
    /// Attempts after the first, within the timeout. Default: 2.
    #[serde(default = "two")]
    pub retries: usize,
    /// Recent texts whose vectors are remembered. Default: 10 000.
    #[serde(default = "ten_thousand")]
    pub memo_entries: u64,
}

const fn fifty_milliseconds() -> Duration {
    Duration::from_millis(50)
}

const fn two_seconds() -> Duration {
    Duration::from_secs(2)
}

const fn two() -> usize {
    2
}

const fn ten_thousand() -> u64 {
    10_000
}

impl EmbedderConfig {
    /// Checks every field; `path` is where the section stands in the file.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the field and what is allowed.
    pub(super) fn validate(&self, path: &str) -> Result<()> {
        match self {
            Self::Static => Ok(()),
            Self::Http(http) => http.validate(path),
            Self::Cascade {
                refiner,
                deadline,
                concurrency,
            } => {
                let refuse = |field: &str, value: String, allowed: &'static str| {
                    Err(Error::new(ErrorKind::Config, "a setting is out of range")
                        .with("field", format!("{path}.{field}"))
                        .with("value", value)
                        .with("allowed", allowed))
                };
                if deadline.as_millis() == 0 || *deadline > Duration::from_secs(10) {
                    return refuse("deadline", format!("{deadline:?}"), "1ms to 10s");
                }
                if let Some(calls) = concurrency.filter(|calls| !(1..=256).contains(calls)) {
                    return refuse("concurrency", calls.to_string(), "1 to 256");
                }
                refiner.validate(&format!("{path}.refiner"))
            }
        }
    }
}

impl RefinerConfig {
    fn validate(&self, path: &str) -> Result<()> {
        match self {
            Self::Http(http) => http.validate(path),
        }
    }
}

impl HttpEmbedderConfig {
    fn validate(&self, path: &str) -> Result<()> {
        if !cfg!(feature = "http-embedder") {
            return Err(
                Error::new(ErrorKind::Config, "this build has no HTTP embedder")
                    .with("field", format!("{path}.type"))
                    .with(
                        "remedy",
                        "build with the feature http-embedder, or use type static",
                    ),
            );
        }
        if self.timeout.is_zero() {
            return Err(Error::new(ErrorKind::Config, "a timeout cannot be zero")
                .with("field", format!("{path}.timeout")));
        }
        Ok(())
    }
}
