//! A model that computes in this process, kept off the threads that serve.

use askonce_models::{Embedder, EmbedderHandle, ModelError, ModelId};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Runs another embedder on the runtime's threads for blocking work, at most so many calls at the same time.
/// A call whose caller went away runs to its end and keeps its turn so long, so the bound holds for the
/// processors.
#[derive(Debug)]
pub struct OffThread {
    model: EmbedderHandle,
    turns: Arc<Semaphore>,
}

impl OffThread {
    /// Runs `model` that way.
    #[must_use]
    pub fn new(model: EmbedderHandle, concurrency: usize) -> Self {
        Self {
            model,
            turns: Arc::new(Semaphore::new(concurrency.max(1))),
        }
    }
}

impl Embedder for OffThread {
    fn id(&self) -> &ModelId {
        self.model.id()
    }

    fn dimension(&self) -> usize {
        self.model.dimension()
    }

    async fn embed(&self, texts: &[&str]) -> Result<Vec<f32>, ModelError> {
        let (Ok(runtime), Ok(turn)) = (
            tokio::runtime::Handle::try_current(),
            Arc::clone(&self.turns).acquire_owned().await,
        ) else {
            return self.model.embed(texts).await;
        };
        let model = Arc::clone(&self.model);
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        let work = move || {
            let _turn = turn;
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            runtime.block_on(model.embed(&texts))
        };
        tokio::task::spawn_blocking(work)
            .await
            .unwrap_or_else(|error| {
                Err(ModelError::Unreachable {
                    source: Box::new(error),
                })
            })
    }
}
