//! Vectors of the built-in transformer, made once for all recordings of a run.
//!
//! A bench plays the same texts in several orders into new caches, and the transformer takes a
//! millisecond a text. A row does not depend on what stands beside its text, so what is remembered is
//! what would be computed. Runs that measure time do without.

use std::collections::HashMap;
use std::sync::Arc;

use askonce::config::{EmbedderConfig, RefinerConfig};
use askonce_models::EmbedderHandle;

/// Vectors by text; clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Vectors {
    rows: Arc<parking_lot::Mutex<HashMap<String, Box<[f32]>>>>,
}

impl Vectors {
    /// The second embedder of `config`, before which these vectors stand; `None` where it has none or is
    /// not the transformer in this binary.
    pub(crate) fn before(&self, config: &EmbedderConfig) -> Option<EmbedderHandle> {
        match config {
            EmbedderConfig::Cascade {
                refiner:
                    RefinerConfig::Minilm {
                        path: None,
                        adapter: None,
                    },
                ..
            } => self.before_builtin(),
            _ => None,
        }
    }

    #[cfg(not(feature = "minilm"))]
    fn before_builtin(&self) -> Option<EmbedderHandle> {
        None
    }

    #[cfg(feature = "minilm")]
    fn before_builtin(&self) -> Option<EmbedderHandle> {
        use std::thread::available_parallelism;

        let model = Arc::new(askonce_models::MiniLm::builtin());
        let at_once = available_parallelism().map_or(1, usize::from);
        Some(Arc::new(built_in::Remembering {
            model: askonce::embed::OffThread::new(model, at_once),
            vectors: self.clone(),
        }))
    }
}

#[cfg(feature = "minilm")]
mod built_in {
    use askonce::embed::OffThread;
    use askonce_models::{Embedder, ModelError, ModelId};

    use super::Vectors;

    /// Asks the model for what is not remembered.
    #[derive(Debug)]
    pub(super) struct Remembering {
        pub(super) model: OffThread,
        pub(super) vectors: Vectors,
    }

    impl Embedder for Remembering {
        fn id(&self) -> &ModelId {
            self.model.id()
        }

        fn dimension(&self) -> usize {
            self.model.dimension()
        }

        async fn embed(&self, texts: &[&str]) -> Result<Vec<f32>, ModelError> {
            let known: Option<Vec<f32>> = {
                let rows = self.vectors.rows.lock();
                let rows: Option<Vec<_>> = texts.iter().map(|text| rows.get(*text)).collect();
                rows.map(|rows| rows.into_iter().flatten().copied().collect())
            };
            if let Some(known) = known {
                return Ok(known);
            }
            let made = self.model.embed(texts).await?;
            let mut rows = self.vectors.rows.lock();
            for (text, row) in texts.iter().zip(made.chunks_exact(self.dimension())) {
                rows.insert((*text).to_owned(), row.into());
            }
            Ok(made)
        }
    }

    #[cfg(test)]
    mod tests {
        use askonce::config::EmbedderConfig;
        use askonce_models::{Embedder as _, MiniLm};

        use super::*;

        #[tokio::test]
        async fn what_is_remembered_is_what_the_model_says() {
            let vectors = Vectors::default();
            let embedder = vectors
                .before(&EmbedderConfig::default())
                .expect("the default is the cascade");
            let texts = ["How do I reset my password?", "what is a monad"];
            let model = MiniLm::builtin();
            for _ in 0..2 {
                assert_eq!(
                    embedder.embed(&texts).await.unwrap(),
                    model.embed_sync(&texts).unwrap()
                );
            }
            assert_eq!(vectors.rows.lock().len(), 2);
            assert_eq!(embedder.id(), model.id());
        }
    }
}
