//! Models in ONNX files of the user's own: settings.

#[cfg(feature = "onnx")]
use std::path::Path;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// A sentence model in an ONNX file. Needs the feature `onnx`, and a library of ONNX Runtime 1.17 or newer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OnnxEmbedderConfig {
    /// The graph, an `.onnx` file. Weights in files beside it are found.
    pub path: PathBuf,
    /// Its tokenizer. Default: `null`, the `tokenizer.json` beside the graph. What it says of padding and
    /// truncation has no effect.
    #[serde(default)]
    pub tokenizer: Option<PathBuf>,
    /// How the tokens' vectors become the text's, as the model's card says. Default: `mean`.
    #[serde(default)]
    pub pooling: OnnxPooling,
    /// Most tokens that the model reads, 4 to 65536. A longer text matches exactly only. Default: 256.
    #[serde(default = "two_hundred_fifty_six")]
    #[cfg_attr(feature = "schema", schemars(range(min = 4, max = 65536)))]
    pub max_tokens: usize,
    /// Put before each text, for models that were trained with such a word: `"query: "`. Default: nothing.
    #[serde(default)]
    pub prefix: String,
    /// The output of the graph to read. Default: `null`, the usual one, or the only one that fits the pooling.
    #[serde(default)]
    pub output: Option<String>,
    /// The library of ONNX Runtime; all models of a process share one. Default: `null`, that of the environment
    /// variable `ORT_DYLIB_PATH`, or the one that the system finds.
    #[serde(default)]
    pub library: Option<PathBuf>,
    /// Threads that work on one text, 1 to 64. Default: 1; more seldom help with short texts.
    #[serde(default = "one")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 64)))]
    pub threads: usize,
    /// Copies of the model in memory, 1 to 64: so many texts are worked on at the same time. Default: 1.
    #[serde(default = "one")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 64)))]
    pub sessions: usize,
}

/// How the vectors of tokens become that of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum OnnxPooling {
    /// Their mean, as sentence-transformers, e5 and gte do.
    #[default]
    Mean,
    /// The first token's, as bge and arctic do.
    Cls,
    /// The graph does it: its output is the vector of the text.
    Model,
}

/// A model in an ONNX file that reads two texts at once. Needs the feature `onnx`, and a library of ONNX Runtime
/// 1.17 or newer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CrossEncoderConfig {
    /// The graph, an `.onnx` file.
    pub path: PathBuf,
    /// Its tokenizer. Default: `null`, the `tokenizer.json` beside the graph.
    #[serde(default)]
    pub tokenizer: Option<PathBuf>,
    /// What the query is read with. Default: `question`.
    #[serde(default)]
    pub with: ReadWith,
    /// Default: `forward`.
    #[serde(default)]
    pub direction: Direction,
    /// Which of the model's labels means yes, from 0: `duplicate`, or `entailment`, as the `id2label` of its
    /// `config.json` says. Must be set where there are several. Default: `null`.
    #[serde(default)]
    pub label: Option<usize>,
    /// How the model's numbers become a probability. Default: `null`, `sigmoid` of one and `softmax` of several.
    #[serde(default)]
    pub activation: Option<Activation>,
    /// The output of the graph to read. Default: `null`, `logits`, or the only one that fits.
    #[serde(default)]
    pub output: Option<String>,
    /// Most tokens of the two texts together, 4 to 65536. Of longer pairs nothing is said. Default: 256.
    #[serde(default = "two_hundred_fifty_six")]
    #[cfg_attr(feature = "schema", schemars(range(min = 4, max = 65536)))]
    pub max_tokens: usize,
    /// As for an embedder in an ONNX file. Default: `null`.
    #[serde(default)]
    pub library: Option<PathBuf>,
    /// Threads that work on one pair, 1 to 64. Default: 1.
    #[serde(default = "one")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 64)))]
    pub threads: usize,
    /// Copies of the model in memory, 1 to 64: so many pairs are worked on at the same time. Default: 1.
    #[serde(default = "one")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 64)))]
    pub sessions: usize,
}

/// What a cross-encoder reads a query with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ReadWith {
    /// The question that the answer was given to: models of duplicate questions, of paraphrases, of entailment.
    #[default]
    Question,
    /// The answer: models that rank passages for a query.
    Answer,
}

/// In which order a cross-encoder reads two texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The query first.
    #[default]
    Forward,
    /// Both, and the lower number counts: two questions are the same where each entails the other.
    Both,
}

/// How the numbers of a cross-encoder become a probability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// Of one number by itself.
    Sigmoid,
    /// Of one number beside the others.
    Softmax,
}

const fn two_hundred_fifty_six() -> usize {
    256
}

const fn one() -> usize {
    1
}

impl OnnxEmbedderConfig {
    /// # Errors
    /// [`ErrorKind::Config`] naming the field and what is allowed.
    pub(super) fn validate(&self, path: &str) -> Result<()> {
        in_this_build(path)?;
        sizes(self.max_tokens, self.threads, self.sessions, path)
    }
}

impl CrossEncoderConfig {
    /// # Errors
    /// [`ErrorKind::Config`] naming the field and what is allowed.
    pub(super) fn validate(&self, path: &str) -> Result<()> {
        in_this_build(path)?;
        if self.with == ReadWith::Answer && self.direction == Direction::Both {
            let message = "a model that reads query and answer has one direction";
            return Err(Error::new(ErrorKind::Config, message)
                .with("field", format!("{path}.direction"))
                .with("remedy", "leave it out, or set with to question"));
        }
        sizes(self.max_tokens, self.threads, self.sessions, path)
    }
}

/// The tokenizer that is named, or the one beside the graph.
#[cfg(feature = "onnx")]
pub(crate) fn tokenizer_beside(named: Option<&Path>, graph: &Path) -> PathBuf {
    named.map_or_else(|| graph.with_file_name("tokenizer.json"), Path::to_owned)
}

fn in_this_build(path: &str) -> Result<()> {
    if cfg!(feature = "onnx") {
        return Ok(());
    }
    Err(
        Error::new(ErrorKind::Config, "this build runs no ONNX models")
            .with("field", format!("{path}.type"))
            .with("remedy", "build with the feature onnx, or use another type"),
    )
}

fn sizes(max_tokens: usize, threads: usize, sessions: usize, path: &str) -> Result<()> {
    for (field, value, allowed, text) in [
        ("max_tokens", max_tokens, 4..=65_536, "4 to 65536"),
        ("threads", threads, 1..=64, "1 to 64"),
        ("sessions", sessions, 1..=64, "1 to 64"),
    ] {
        if !allowed.contains(&value) {
            return Err(Error::new(ErrorKind::Config, "a setting is out of range")
                .with("field", format!("{path}.{field}"))
                .with("value", value)
                .with("allowed", text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_needs_its_file_alone_and_unknown_fields_are_refused() {
        let read = serde_json::from_str::<OnnxEmbedderConfig>;
        let config = read(r#"{"path": "bge/model.onnx"}"#).unwrap();
        assert_eq!(
            (config.max_tokens, config.threads, config.sessions),
            (256, 1, 1)
        );
        assert_eq!(config.pooling, OnnxPooling::Mean);
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(read(&text).unwrap(), config);
        assert!(read("{}").is_err());
        assert!(read(r#"{"path": "m", "pool": "cls"}"#).is_err());
        assert!(read(r#"{"path": "m", "pooling": "max"}"#).is_err());
    }

    #[test]
    fn what_is_out_of_range_or_not_in_the_build_is_refused_by_name() {
        let embedder = |more: &str| -> OnnxEmbedderConfig {
            serde_json::from_str(&format!(r#"{{"path": "m"{more}}}"#)).unwrap()
        };
        if !cfg!(feature = "onnx") {
            let error = embedder("").validate("e").unwrap_err().to_string();
            assert!(
                error.contains("e.type") && error.contains("feature onnx"),
                "{error}"
            );
            return;
        }
        embedder("").validate("e").unwrap();
        for (more, field) in [
            (r#", "max_tokens": 3"#, "e.max_tokens"),
            (r#", "threads": 0"#, "e.threads"),
            (r#", "sessions": 65"#, "e.sessions"),
        ] {
            let error = embedder(more).validate("e").unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
        let pair = r#"{"path": "m", "with": "answer", "direction": "both"}"#;
        let pair: CrossEncoderConfig = serde_json::from_str(pair).unwrap();
        let error = pair.validate("v").unwrap_err().to_string();
        assert!(error.contains("v.direction"), "{error}");
    }
}
