//! Models in ONNX files that the user brings: sentence embedders and cross-encoders.
//!
//! Three files make one: the graph, a `tokenizer.json`, and a library of ONNX Runtime 1.17 or newer, which is
//! found when it runs: nothing of it is in this crate, and nothing is downloaded. The library is that of
//! [`OnnxModel::library`], else of the environment variable `ORT_DYLIB_PATH`, else the one that the system
//! finds. A process loads one.
//!
//! Each text goes through the graph alone, without padding, so its row does not depend on the texts beside
//! it. Padding and truncation of the `tokenizer.json` are taken out: the former costs the time of the longest
//! text, the latter cuts in silence. What is wrong with files or settings shows when a model is opened, which
//! runs it twice, the second time with as many tokens as it may get.
//!
//! Unlike the built-in models, a model from elsewhere has one token for all words that it does not know: two
//! texts that differ in such a word alone have the same vector. Texts of nothing else are refused.

mod cross_encoder;
mod embedder;
mod graph;
mod library;

use std::path::PathBuf;

pub use cross_encoder::{Activation, CrossEncoder, CrossEncoderConfig};
pub use embedder::{OnnxConfig, OnnxEmbedder, Pooling};

/// The files of a model, and how it is run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OnnxModel {
    /// The graph, an `.onnx` file. Weights in files beside it are found by the runtime.
    pub path: PathBuf,
    /// Its `tokenizer.json`.
    pub tokenizer: PathBuf,
    /// Most tokens that it reads, those that frame a text included. What is longer is refused, not cut.
    /// Default: 256.
    pub max_tokens: usize,
    /// Threads that work on one text. More than one seldom helps with short texts. Default: 1.
    pub threads: usize,
    /// Copies of the model in memory: so many texts are worked on at the same time. Default: 1.
    pub sessions: usize,
    /// The library of ONNX Runtime. Default: `None`, that of `ORT_DYLIB_PATH`, or what the system finds.
    pub library: Option<PathBuf>,
}

impl OnnxModel {
    /// A model with its tokenizer, run as is usual.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, tokenizer: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            tokenizer: tokenizer.into(),
            max_tokens: 256,
            threads: 1,
            sessions: 1,
            library: None,
        }
    }
}
