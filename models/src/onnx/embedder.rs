//! A sentence model: text in, unit vector out.

use std::sync::Arc;

use super::OnnxModel;
use super::graph::{Graph, Rows};
use crate::unit::to_unit;
use crate::{Embedder, ModelError, ModelId};

/// How the tokens' vectors become the text's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean, as sentence-transformers, e5 and gte do.
    #[default]
    Mean,
    /// The first token's, as bge and arctic do.
    Cls,
    /// The graph does it: its output is the text's vector.
    Model,
}

impl Pooling {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Cls => "cls",
            Self::Model => "model",
        }
    }

    /// Axes of the output: text and component, or text, token and component.
    const fn axes(self) -> usize {
        match self {
            Self::Mean | Self::Cls => 3,
            Self::Model => 2,
        }
    }

    const fn usual_outputs(self) -> &'static [&'static str] {
        match self {
            Self::Mean | Self::Cls => &["last_hidden_state", "token_embeddings"],
            Self::Model => &["sentence_embedding"],
        }
    }
}

/// Settings of an [`OnnxEmbedder`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OnnxConfig {
    /// The files, and how they are run.
    pub model: OnnxModel,
    /// How the tokens' vectors become the text's. Default: their mean.
    pub pooling: Pooling,
    /// Put before each text, for models that were trained with such a word: `query: `. Default: nothing.
    pub prefix: String,
    /// The output to read. Default: `None`, the usual one, or the only one that fits the pooling.
    pub output: Option<String>,
}

impl OnnxConfig {
    /// A model, with the usual settings.
    #[must_use]
    pub fn new(model: OnnxModel) -> Self {
        Self {
            model,
            pooling: Pooling::default(),
            prefix: String::new(),
            output: None,
        }
    }
}

/// An embedder of a model in an ONNX file. Clones share it.
///
/// ```no_run
/// use askonce_models::OnnxEmbedder;
/// use askonce_models::onnx::{OnnxConfig, OnnxModel};
///
/// let model = OnnxModel::new("model.onnx", "tokenizer.json");
/// let embedder = OnnxEmbedder::open(&OnnxConfig::new(model))?;
/// let row = embedder.embed_sync(&["How do I reset my password?"])?;
/// assert_eq!(row.len(), embedder.dimension());
/// # Ok::<(), askonce_models::ModelError>(())
/// ```
#[derive(Clone, Debug)]
pub struct OnnxEmbedder {
    graph: Arc<Graph>,
    id: ModelId,
    pooling: Pooling,
    prefix: String,
    output: String,
    dimension: usize,
}

impl OnnxEmbedder {
    /// Opens the files and runs the model on a probe.
    ///
    /// # Errors
    /// [`ModelError::Config`] naming the setting that does not fit, [`ModelError::UnreadableWeights`] and
    /// [`ModelError::BadWeights`] naming the file.
    pub fn open(config: &OnnxConfig) -> Result<Self, ModelError> {
        let graph = Graph::open(&config.model)?;
        let pooling = config.pooling;
        let output = graph.output(
            config.output.as_deref(),
            pooling.usual_outputs(),
            pooling.axes(),
        )?;
        let (tokens, rows) = graph.probe(&output)?;
        let dimension = width(&rows.shape, pooling, tokens).ok_or_else(|| ModelError::Config {
            field: "pooling",
            reason: format!(
                "output `{output}` has the shape {:?} for a text of {tokens} tokens: pooling `{}` needs {}",
                rows.shape,
                pooling.as_str(),
                match pooling {
                    Pooling::Model => "1 by its dimension; mean and cls pool vectors of tokens",
                    _ => "1 by tokens by its dimension; model takes the vector of a text as it is",
                }
            ),
        })?;
        let how = format!("{}:{output}:{}", pooling.as_str(), config.prefix);
        Ok(Self {
            id: ModelId::new(&graph.name, &graph.revision, &how),
            graph: Arc::new(graph),
            pooling,
            prefix: config.prefix.clone(),
            output,
            dimension,
        })
    }

    /// Which model this is. The revision is the beginning of the digest of graph, weights and tokenizer; pooling,
    /// output and prefix are part of the id.
    #[must_use]
    pub fn id(&self) -> &ModelId {
        &self.id
    }

    /// Floats per row, as the probe showed.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Most tokens of a text, those that frame it and the prefix included.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        self.graph.max_tokens()
    }

    /// How many texts it works on at the same time.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.graph.sessions()
    }

    /// One unit vector per text, in order, rows concatenated. Keeps the calling thread busy.
    ///
    /// # Errors
    /// [`ModelError::NoTokens`] for a text without any word that the model knows, [`ModelError::InputTooLong`];
    /// [`ModelError::Failed`] when the graph does.
    pub fn embed_sync(&self, texts: &[&str]) -> Result<Vec<f32>, ModelError> {
        let mut out = Vec::with_capacity(texts.len() * self.dimension);
        for (position, text) in texts.iter().enumerate() {
            let mut row = self.row(position, text)?;
            to_unit(&mut row, position, &self.id)?;
            out.extend_from_slice(&row);
        }
        Ok(out)
    }

    fn row(&self, position: usize, text: &str) -> Result<Vec<f32>, ModelError> {
        if !self.graph.knows(text)? {
            return Err(ModelError::NoTokens {
                position,
                model: self.id.to_string(),
            });
        }
        let encoding = if self.prefix.is_empty() {
            self.graph.encode(text, position)?
        } else {
            self.graph
                .encode(format!("{}{text}", self.prefix), position)?
        };
        let rows = self.graph.run(&encoding, &self.output)?;
        match width(&rows.shape, self.pooling, encoding.len()) {
            Some(width) if width == self.dimension => Ok(pool(&rows, self.pooling, width)),
            found => Err(ModelError::WrongDimension {
                expected: self.dimension,
                found: found.unwrap_or(0),
                model: self.id.to_string(),
            }),
        }
    }
}

/// Length of a vector in an output of that shape, if the shape is right.
fn width(shape: &[usize], pooling: Pooling, tokens: usize) -> Option<usize> {
    let width = match (pooling, shape) {
        (Pooling::Mean | Pooling::Cls, &[1, rows, width]) if rows == tokens => width,
        (Pooling::Model, &[1, width]) => width,
        _ => return None,
    };
    (width > 0).then_some(width)
}

fn pool(rows: &Rows, pooling: Pooling, width: usize) -> Vec<f32> {
    match pooling {
        Pooling::Cls | Pooling::Model => rows.data[..width].to_vec(),
        Pooling::Mean => {
            // The length does not matter: the row is brought to unit length.
            let mut sum = vec![0.0_f64; width];
            for row in rows.data.chunks_exact(width) {
                for (sum, &x) in sum.iter_mut().zip(row) {
                    *sum += f64::from(x);
                }
            }
            sum.into_iter().map(|x| x as f32).collect()
        }
    }
}

/// The work is done when the future is first polled, on the thread that polls it: whoever must not be kept
/// from other tasks for some milliseconds calls [`OnnxEmbedder::embed_sync`] on a thread for blocking work.
impl Embedder for OnnxEmbedder {
    fn id(&self) -> &ModelId {
        self.id()
    }

    fn dimension(&self) -> usize {
        self.dimension()
    }

    async fn embed(&self, texts: &[&str]) -> Result<Vec<f32>, ModelError> {
        self.embed_sync(texts)
    }
}
