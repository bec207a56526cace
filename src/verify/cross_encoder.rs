//! A cross-encoder in an ONNX file, as a verifier.

use std::sync::Arc;

use askonce_models::onnx::{self, OnnxModel};
use askonce_models::{CrossEncoder, ModelError};
use tokio::sync::Semaphore;

use super::{Verification, Verifier, VerifierQuestion};
use crate::backend::BoxFuture;
use crate::config::{Activation, CrossEncoderConfig, Direction, ReadWith, tokenizer_beside};
use crate::error::{Error, ErrorKind, Result};

/// A model that reads the query together with each candidate, on the runtime's threads for blocking work.
#[derive(Debug)]
pub struct CrossEncoderVerifier {
    model: CrossEncoder,
    name: String,
    with: ReadWith,
    direction: Direction,
    turns: Arc<Semaphore>,
}

impl CrossEncoderVerifier {
    /// Opens the model; `path` is where its settings stand.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the field and what is wrong with it.
    pub fn open(config: &CrossEncoderConfig, path: &str) -> Result<Self> {
        let tokenizer = tokenizer_beside(config.tokenizer.as_deref(), &config.path);
        let mut files = OnnxModel::new(&config.path, tokenizer);
        files.max_tokens = config.max_tokens;
        files.threads = config.threads;
        files.sessions = config.sessions;
        files.library.clone_from(&config.library);
        let mut settings = onnx::CrossEncoderConfig::new(files);
        settings.output.clone_from(&config.output);
        settings.label = config.label;
        settings.activation = config.activation.map(|activation| match activation {
            Activation::Sigmoid => onnx::Activation::Sigmoid,
            Activation::Softmax => onnx::Activation::Softmax,
        });
        let model = CrossEncoder::open(&settings).map_err(|error| unusable(error, path))?;
        Ok(Self {
            name: model.id().to_string(),
            turns: Arc::new(Semaphore::new(model.sessions())),
            model,
            with: config.with,
            direction: config.direction,
        })
    }

    async fn ask(&self, question: &VerifierQuestion) -> Result<Verification> {
        let failed = |message| Error::new(ErrorKind::Embedding, message);
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = turn.map_err(|error| failed("the verifier has ended").caused_by(error))?;
        let model = self.model.clone();
        let both = self.direction == Direction::Both;
        let query = question.query.clone();
        let candidates = question.candidates.iter().map(|candidate| match self.with {
            ReadWith::Question => candidate.query.clone(),
            ReadWith::Answer => candidate.answer.clone(),
        });
        let candidates: Vec<String> = candidates.collect();
        // It keeps its turn though its caller may go away, so the bound holds for the processors.
        let work = move || {
            let _turn = turn;
            let score = |candidate: &String| {
                let forward = model.score(&query, candidate)?;
                let backward = if both {
                    model.score(candidate, &query)?
                } else {
                    1.0
                };
                Ok(forward.min(backward))
            };
            candidates
                .iter()
                .map(score)
                .map(word)
                .collect::<Result<_, _>>()
        };
        let scores = tokio::task::spawn_blocking(work).await;
        let scores = scores.map_err(|error| failed("the verifier broke off").caused_by(error))?;
        let probabilities =
            scores.map_err(|error| failed("the verifier failed").caused_by(error))?;
        Ok(Verification {
            probabilities,
            usd: 0.0,
        })
    }
}

impl Verifier for CrossEncoderVerifier {
    fn name(&self) -> &str {
        &self.name
    }

    fn verify<'a>(&'a self, question: &'a VerifierQuestion) -> BoxFuture<'a, Result<Verification>> {
        Box::pin(self.ask(question))
    }
}

/// Of texts that the model cannot read it says nothing.
fn word(score: Result<f64, ModelError>) -> Result<Option<f64>, ModelError> {
    match score {
        Ok(score) => Ok(Some(score)),
        Err(ModelError::NoTokens { .. } | ModelError::InputTooLong { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn unusable(error: ModelError, path: &str) -> Error {
    let field = match &error {
        ModelError::Config { field, .. } => (*field).to_owned(),
        _ => "path".to_owned(),
    };
    Error::new(ErrorKind::Config, "the cross-encoder cannot be used")
        .with("field", format!("{path}.{field}"))
        .caused_by(error)
}
