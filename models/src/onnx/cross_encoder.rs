//! A model that reads two texts at once and says how well they go together.

use std::sync::Arc;

use super::OnnxModel;
use super::graph::{Graph, Rows};
use crate::{ModelError, ModelId};

/// How the numbers of a model become a probability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Of one number by itself: `1 / (1 + exp(-x))`.
    Sigmoid,
    /// Of one number beside the others: its share of the sum of all `exp(x)`.
    Softmax,
}

/// Settings of a [`CrossEncoder`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CrossEncoderConfig {
    /// The files, and how they are run.
    pub model: OnnxModel,
    /// The output to read. Default: `None`, `logits`, or the only one that fits.
    pub output: Option<String>,
    /// Which of a model's labels means yes, from 0: `duplicate`, or `entailment`, as the `id2label` of its
    /// `config.json` says. Must be set where there is more than one. Default: `None`.
    pub label: Option<usize>,
    /// How numbers become a probability. Default: `None`, sigmoid where there is one number and softmax where
    /// there are more.
    pub activation: Option<Activation>,
}

impl CrossEncoderConfig {
    /// A model, with the usual settings.
    #[must_use]
    pub fn new(model: OnnxModel) -> Self {
        Self {
            model,
            output: None,
            label: None,
            activation: None,
        }
    }
}

/// A cross-encoder in an ONNX file. Clones share it.
#[derive(Clone, Debug)]
pub struct CrossEncoder {
    graph: Arc<Graph>,
    id: ModelId,
    output: String,
    labels: usize,
    label: usize,
    activation: Activation,
}

impl CrossEncoder {
    /// Opens the files and runs the model on a probe.
    ///
    /// # Errors
    /// [`ModelError::Config`] naming the setting that does not fit, [`ModelError::UnreadableWeights`] and
    /// [`ModelError::BadWeights`] naming the file.
    pub fn open(config: &CrossEncoderConfig) -> Result<Self, ModelError> {
        let graph = Graph::open(&config.model)?;
        let output = graph.output(config.output.as_deref(), &["logits"], 2)?;
        let (_, rows) = graph.probe(&output)?;
        let labels = labels(&rows.shape).ok_or_else(|| ModelError::Config {
            field: "output",
            reason: format!(
                "`{output}` has the shape {:?} for one pair: a number or a row of labels is needed",
                rows.shape
            ),
        })?;
        let wrong = |reason| ModelError::Config {
            field: "label",
            reason,
        };
        let label = match config.label {
            Some(label) if label < labels => label,
            Some(label) => {
                return Err(wrong(format!(
                    "it is {label}, and the model has labels 0 to {}",
                    labels - 1
                )));
            }
            None if labels == 1 => 0,
            None => {
                return Err(wrong(format!(
                    "the model has {labels} labels: set the number of the one that means yes"
                )));
            }
        };
        let activation = config.activation.unwrap_or(match labels {
            1 => Activation::Sigmoid,
            _ => Activation::Softmax,
        });
        if labels == 1 && activation == Activation::Softmax {
            return Err(ModelError::Config {
                field: "activation",
                reason: "the softmax of one number is always 1: use sigmoid".to_owned(),
            });
        }
        let how = format!("{output}:{label}:{activation:?}");
        Ok(Self {
            id: ModelId::new(&graph.name, &graph.revision, &how),
            graph: Arc::new(graph),
            output,
            labels,
            label,
            activation,
        })
    }

    /// Which model this is.
    #[must_use]
    pub fn id(&self) -> &ModelId {
        &self.id
    }

    /// How many pairs it works on at the same time.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.graph.sessions()
    }

    /// The probability that the model gives to a pair, in this order. Keeps the calling thread busy.
    ///
    /// # Errors
    /// [`ModelError::NoTokens`] when one of the texts has no word that the model knows,
    /// [`ModelError::InputTooLong`] of the two together, [`ModelError::Failed`] and [`ModelError::NotFinite`] when
    /// the graph does not give a number.
    pub fn score(&self, first: &str, second: &str) -> Result<f64, ModelError> {
        for (position, text) in [first, second].into_iter().enumerate() {
            if !self.graph.knows(text)? {
                return Err(ModelError::NoTokens {
                    position,
                    model: self.id.to_string(),
                });
            }
        }
        let encoding = self.graph.encode((first, second), 0)?;
        let rows = self.graph.run(&encoding, &self.output)?;
        if labels(&rows.shape) != Some(self.labels) {
            let reason = format!("it returned the shape {:?} for a pair", rows.shape);
            return Err(self.graph.failed(&reason));
        }
        let probability = probability(&rows, self.label, self.activation);
        if probability.is_finite() {
            Ok(probability)
        } else {
            Err(ModelError::NotFinite {
                position: 0,
                model: self.id.to_string(),
            })
        }
    }
}

/// Numbers for one pair in an output of that shape, if the shape is right.
fn labels(shape: &[usize]) -> Option<usize> {
    match *shape {
        [1] => Some(1),
        [1, labels @ (1..)] => Some(labels),
        _ => None,
    }
}

fn probability(rows: &Rows, label: usize, activation: Activation) -> f64 {
    let logits: Vec<f64> = rows.data.iter().map(|&x| f64::from(x)).collect();
    let chosen = logits[label];
    match activation {
        Activation::Sigmoid => 1.0 / (1.0 + (-chosen).exp()),
        Activation::Softmax => 1.0 / logits.iter().map(|x| (x - chosen).exp()).sum::<f64>(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(data: &[f32]) -> Rows {
        Rows {
            shape: vec![1, data.len()],
            data: data.to_vec(),
        }
    }

    #[test]
    fn numbers_become_probabilities_and_large_ones_do_not_overflow() {
        let sigmoid = |x| probability(&rows(&[x]), 0, Activation::Sigmoid);
        assert_eq!(sigmoid(0.0), 0.5);
        assert!((sigmoid(2.0) - 0.880_797).abs() < 1e-6);
        assert_eq!(sigmoid(-1e9), 0.0);
        let of = |label| probability(&rows(&[1.0, 2.0, 3.0]), label, Activation::Softmax);
        assert!((of(0) - 0.090_031).abs() < 1e-6);
        assert!((of(0) + of(1) + of(2) - 1.0).abs() < 1e-12);
        let large = probability(&rows(&[0.0, 3e38]), 1, Activation::Softmax);
        assert_eq!(large, 1.0);
        assert!(probability(&rows(&[f32::NAN, 0.0]), 1, Activation::Softmax).is_nan());
    }

    #[test]
    fn one_number_or_one_row_is_a_shape_that_can_be_read() {
        assert_eq!(labels(&[1]), Some(1));
        assert_eq!(labels(&[1, 3]), Some(3));
        for shape in [&[2, 3][..], &[1, 7, 3], &[], &[1, 0]] {
            assert_eq!(labels(shape), None, "{shape:?}");
        }
    }
}
