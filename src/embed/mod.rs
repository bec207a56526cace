//! Step 3: text to vector, through a memo of recent texts and under a deadline.
//!
//! A miss is usually followed by a store of the same text, and popular texts come again: the memo
//! spares the second call of a remote model. The built-in static model is faster than the memo, so
//! its default size is zero there.
//!
//! Where there is a second, slower embedding, [`Refiner`] asks it.

mod off_thread;
mod refine;

use std::sync::Arc;
use std::time::Duration;

use askonce_models::{Embedder as _, EmbedderHandle, ModelError};
use moka::sync::Cache;

use crate::error::{Error, ErrorKind, Result};

pub use off_thread::OffThread;
pub use refine::{Refiner, Unrefined};

/// A shared unit vector.
pub type Vector = Arc<[f32]>;

/// Embeds single texts for the engine.
#[derive(Debug)]
pub struct EmbedStage {
    embedder: EmbedderHandle,
    memo: Option<Cache<[u8; 32], Vector>>,
    deadline: Duration,
}

impl EmbedStage {
    /// A stage that calls `embedder`, remembers `memo_entries` vectors, and gives up after `deadline`.
    #[must_use]
    pub fn new(embedder: EmbedderHandle, memo_entries: u64, deadline: Duration) -> Self {
        let memo = (memo_entries > 0).then(|| Cache::new(memo_entries));
        Self {
            embedder,
            memo,
            deadline,
        }
    }

    /// The name of the vector space: vectors of different fingerprints are never compared.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        self.embedder.id().fingerprint()
    }

    /// Length of every vector.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.embedder.dimension()
    }

    /// The unit vector of `text`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] when the text has no vector (no known token, too long),
    /// [`ErrorKind::Timeout`] past the deadline, [`ErrorKind::Embedding`] when the model fails or
    /// returns a vector of another length.
    pub async fn embed(&self, text: &str) -> Result<Vector> {
        let Some(memo) = &self.memo else {
            return self.call(text).await;
        };
        let key = *blake3::hash(text.as_bytes()).as_bytes();
        if let Some(vector) = memo.get(&key) {
            return Ok(vector);
        }
        let vector = self.call(text).await?;
        memo.insert(key, Arc::clone(&vector));
        Ok(vector)
    }

    async fn call(&self, text: &str) -> Result<Vector> {
        let texts = [text];
        let vector = tokio::time::timeout(self.deadline, self.embedder.embed(&texts))
            .await
            .map_err(|_| {
                Error::new(
                    ErrorKind::Timeout,
                    "the embedding model did not answer in time",
                )
                .with("deadline_ms", self.deadline.as_millis())
                .retryable()
            })?
            .map_err(Self::failed)?;
        if vector.len() != self.dimension() {
            return Err(Error::new(
                ErrorKind::Embedding,
                "the model returned a vector of another length",
            )
            .with("expected", self.dimension())
            .with("actual", vector.len()));
        }
        Ok(vector.into())
    }

    fn failed(error: ModelError) -> Error {
        let kind = match &error {
            ModelError::NoTokens { .. } | ModelError::InputTooLong { .. } => {
                ErrorKind::InvalidRequest
            }
            _ => ErrorKind::Embedding,
        };
        Error::new(kind, "the text could not be embedded").caused_by(error)
    }
}
