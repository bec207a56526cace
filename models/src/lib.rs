//! Embedding models: text in, unit vectors out.
//!
//! Everything here is an [`Embedder`]. Four come with the crate:
//!
//! - [`StaticEmbedder`]: a table of 30,522 word pieces by 128 dimensions, embedded in the binary
//!   (4 MB). Microseconds per text, no files, no network. The default.
//! - `MiniLm` (feature `minilm`): a transformer of six layers in 8 bits, 384 dimensions. A
//!   millisecond or two for a short text; its weights are a file of 24 MB, or in the binary (feature
//!   `minilm-weights`).
//! - `HttpEmbedder` (feature `http`): any server that speaks the embeddings API of OpenAI, of
//!   text-embeddings-inference or of Ollama.
//! - `OnnxEmbedder` (feature `onnx`): any sentence model in an ONNX file that the user brings, with the
//!   library that runs it. Beside it is `CrossEncoder`, which reads two texts at once.
//!
//! ```
//! use askonce_models::StaticEmbedder;
//!
//! let embedder = StaticEmbedder::builtin();
//! let rows = embedder.embed_sync(&["How do I reset my password?", "I forgot my password"])?;
//! let (first, second) = rows.split_at(128);
//! let cosine: f32 = first.iter().zip(second).map(|(a, b)| a * b).sum();
//! assert!(cosine > 0.5);
//! # Ok::<(), askonce_models::ModelError>(())
//! ```
//!
//! Beside them stand two models that learn a yes or no from rows of numbers, and know neither texts nor
//! vectors: [`trees`] and [`additive`].
//!
//! # What always holds
//! - Rows have unit length and are finite, so that a dot product is a cosine.
//! - A text is embedded whole or not at all: nothing is cut in silence, because two texts that
//!   differ only after the cut would then share an answer.
//! - Vectors carry a [`ModelId`]; vectors of different ids are never compared.
//! - Errors and `Debug` output hold no text and no key.
//!
//! The crate knows text and vectors, and nothing of caching or of indexes. A further local model
//! would be a module beside [`static_model`]: it shares [`wordpiece`] and implements the same trait.

#![deny(unsafe_code)] // vector instructions, in one module, are the exception

mod blob;
mod embedder;
mod error;
mod fit;
mod idf;
mod model_id;
mod self_test;
#[cfg(any(feature = "minilm", feature = "onnx"))]
mod unit;

pub mod wordpiece;

#[cfg(feature = "minilm")]
pub mod minilm;
pub mod static_model;

#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "onnx")]
pub mod onnx;

pub mod additive;
#[cfg(feature = "train")]
pub mod train;
pub mod trees;

pub use embedder::{BoxFuture, DynEmbedder, Embedder, EmbedderHandle};
pub use error::ModelError;
pub use fit::FitError;
#[cfg(feature = "http")]
pub use http::{HttpConfig, HttpEmbedder};
pub use idf::inverse_document_frequency;
#[cfg(feature = "minilm")]
pub use minilm::MiniLm;
pub use model_id::ModelId;
#[cfg(feature = "onnx")]
pub use onnx::{CrossEncoder, OnnxEmbedder};
pub use self_test::SelfTest;
pub use static_model::StaticEmbedder;
