//! What turns text into vectors: settings.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::OnnxEmbedderConfig;
use crate::error::{Error, ErrorKind, Result};

/// What turns text into vectors.
///
/// Default: `cascade` with the built-in transformer where a build has its weights, `static` where not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum EmbedderConfig {
    /// A table: microseconds, no network; the built-in one is English.
    Static {
        /// The file of a table, such as `askonce train` writes. Default: `null`, the built-in one.
        #[serde(default)]
        path: Option<PathBuf>,
    },
    /// The transformer alone: a millisecond or two for each request that has no exact match. Needs the
    /// feature `minilm`.
    Minilm {
        /// The file with the weights. Default: those in the binary, with the feature `minilm-weights`.
        #[serde(default)]
        path: Option<PathBuf>,
        /// The file of an adapter of these weights, such as `askonce train` writes. Default: `null`, their own.
        #[serde(default)]
        adapter: Option<PathBuf>,
    },
    /// A server that embeds. Needs the feature `http-embedder`.
    Http(HttpEmbedderConfig),
    /// A model in an ONNX file of your own. Needs the feature `onnx`.
    Onnx(OnnxEmbedderConfig),
    /// A table for all requests, and a second, slower embedding for those that the policy is in
    /// doubt about.
    Cascade {
        /// The file of the table, such as `askonce train` writes. Default: `null`, the built-in one.
        #[serde(default)]
        table: Option<PathBuf>,
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
    /// The transformer. Needs the feature `minilm`.
    Minilm {
        /// The file with the weights. Default: those in the binary, with the feature `minilm-weights`.
        #[serde(default)]
        path: Option<PathBuf>,
        /// The file of an adapter of these weights, such as `askonce train` writes. Default: `null`, their own.
        #[serde(default)]
        adapter: Option<PathBuf>,
    },
    /// A server that embeds. Needs the feature `http-embedder`. Its own
    /// `timeout` holds for vectors that are made in the background.
    Http(HttpEmbedderConfig),
    /// A model in an ONNX file of your own. Needs the feature `onnx`.
    Onnx(OnnxEmbedderConfig),
}

/// A server that embeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HttpEmbedderConfig {
    /// Where the API lives, up to and without `/embeddings`: `https://api.openai.com/v1`. Of the other
    /// protocols the server's root: `http://127.0.0.1:11434`.
    pub base_url: String,
    /// The protocol: `openai` (default, which most servers speak), `tei` (text-embeddings-inference) or
    /// `ollama`.
    #[serde(default)]
    pub api: EmbeddingApi,
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

/// A protocol of an embedding server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum EmbeddingApi {
    /// `/embeddings` of OpenAI.
    #[default]
    OpenAi,
    /// `/embed` of text-embeddings-inference.
    Tei,
    /// `/api/embed` of Ollama.
    Ollama,
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

impl Default for EmbedderConfig {
    fn default() -> Self {
        if cfg!(feature = "minilm-weights") {
            Self::Cascade {
                table: None,
                refiner: RefinerConfig::Minilm {
                    path: None,
                    adapter: None,
                },
                deadline: fifty_milliseconds(),
                concurrency: None,
            }
        } else {
            Self::Static { path: None }
        }
    }
}

impl EmbedderConfig {
    /// Checks every field; `path` is where the section stands in the file.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the field and what is allowed.
    pub(super) fn validate(&self, path: &str) -> Result<()> {
        match self {
            Self::Static { .. } => Ok(()),
            Self::Minilm { path: file, .. } => has_weights(file.is_some(), path),
            Self::Http(http) => http.validate(path),
            Self::Onnx(onnx) => onnx.validate(path),
            Self::Cascade {
                refiner,
                deadline,
                concurrency,
                ..
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
            Self::Minilm { path: file, .. } => has_weights(file.is_some(), path),
            Self::Http(http) => http.validate(path),
            Self::Onnx(onnx) => onnx.validate(path),
        }
    }
}

/// Whether this build has the transformer, and its weights if no file is named.
fn has_weights(file: bool, path: &str) -> Result<()> {
    let (what, field, remedy) = if !cfg!(feature = "minilm") {
        (
            "this build has no transformer",
            "type",
            "build with the feature minilm, or use type static",
        )
    } else if !file && !cfg!(feature = "minilm-weights") {
        (
            "this build has no weights of the transformer",
            "path",
            "name their file, or build with the feature minilm-weights",
        )
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Config, what)
        .with("field", format!("{path}.{field}"))
        .with("remedy", remedy))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> EmbedderConfig {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_table_is_the_built_in_one_unless_a_file_is_named() {
        let path = |path| EmbedderConfig::Static { path };
        assert_eq!(read(r#"{"type": "static"}"#), path(None));
        let own = read(r#"{"type": "static", "path": "own.bin"}"#);
        assert_eq!(own, path(Some("own.bin".into())));
        let json = r#"{"type": "cascade", "table": "own.bin", "refiner": {"type": "minilm", "path": "m"}}"#;
        let EmbedderConfig::Cascade { table, .. } = read(json) else {
            panic!("no cascade");
        };
        assert_eq!(table, Some("own.bin".into()));
    }

    #[test]
    fn an_adapter_is_the_weights_own_unless_a_file_is_named() {
        let adapter = |json| match read(json) {
            EmbedderConfig::Minilm { adapter, .. }
            | EmbedderConfig::Cascade {
                refiner: RefinerConfig::Minilm { adapter, .. },
                ..
            } => adapter,
            other => panic!("{other:?}"),
        };
        assert_eq!(adapter(r#"{"type": "minilm"}"#), None);
        let named = Some(PathBuf::from("a.bin"));
        assert_eq!(adapter(r#"{"type": "minilm", "adapter": "a.bin"}"#), named);
        let cascade = r#"{"type": "cascade", "refiner": {"type": "minilm", "adapter": "a.bin"}}"#;
        assert_eq!(adapter(cascade), named);
    }

    #[test]
    fn a_cascade_is_read_and_what_is_out_of_range_is_refused_by_name() {
        let cascade = |more: &str| {
            let http = r#"{"type": "http", "base_url": "http://localhost/v1", "model": "m"}"#;
            read(&format!(
                r#"{{"type": "cascade", "refiner": {http}{more}}}"#
            ))
        };
        let EmbedderConfig::Cascade { deadline, .. } = cascade("") else {
            panic!("no cascade");
        };
        assert_eq!(deadline, Duration::from_millis(50));
        let again = serde_json::to_string(&cascade(r#", "concurrency": 3"#)).unwrap();
        assert_eq!(read(&again), cascade(r#", "concurrency": 3"#));
        for (more, field) in [
            (r#", "deadline": "0s""#, "e.deadline"),
            (r#", "deadline": "11s""#, "e.deadline"),
            (r#", "concurrency": 0"#, "e.concurrency"),
        ] {
            let error = cascade(more).validate("e").unwrap_err().to_string();
            assert!(error.contains(&format!("field: {field}")), "{error}");
        }
        let unknown = r#"{"type": "cascade", "refiner": {"type": "minilm", "pth": "x"}}"#;
        assert!(serde_json::from_str::<EmbedderConfig>(unknown).is_err());
    }

    #[test]
    fn a_transformer_that_is_not_in_the_build_is_refused_with_the_remedy() {
        let named = read(r#"{"type": "minilm", "path": "weights.bin"}"#);
        let built_in = read(r#"{"type": "cascade", "refiner": {"type": "minilm"}}"#);
        assert_eq!(named.validate("e").is_ok(), cfg!(feature = "minilm"));
        assert_eq!(
            built_in.validate("e").is_ok(),
            cfg!(feature = "minilm-weights")
        );
        if let Err(error) = built_in.validate("e") {
            assert!(error.to_string().contains("remedy: "), "{error}");
        }
        EmbedderConfig::default().validate("e").unwrap();
    }
}
