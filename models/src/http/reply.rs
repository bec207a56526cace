//! What a provider answers, and whether it is the answer to what was asked.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::Api;
use crate::ModelError;

/// Longest error code that is passed on.
const MAX_CODE_BYTES: usize = 64;

#[derive(Deserialize)]
struct Reply {
    data: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    index: usize,
    embedding: Embedding,
}

/// Ollama's answer. Rows are in the order of the texts.
#[derive(Deserialize)]
struct OllamaReply {
    embeddings: Vec<Vec<f32>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Embedding {
    Numbers(Vec<f32>),
    Base64(String),
}

/// One row per text, in the order of the texts.
pub(super) struct Rows(Vec<Vec<f32>>);

impl Rows {
    pub(super) fn parse(api: Api, body: &[u8], texts: usize) -> Result<Self, ModelError> {
        // The parser's own message could quote the body.
        let garbled = |error: serde_json::Error| {
            let (line, column) = (error.line(), error.column());
            bad(format!(
                "it is not a list of embeddings (line {line}, column {column})"
            ))
        };
        let rows = match api {
            Api::OpenAi => {
                let reply: Reply = serde_json::from_slice(body).map_err(garbled)?;
                return Self::from_items(reply.data, texts);
            }
            Api::Tei => serde_json::from_slice(body).map_err(garbled)?,
            Api::Ollama => {
                let reply: OllamaReply = serde_json::from_slice(body).map_err(garbled)?;
                reply.embeddings
            }
        };
        check_count(rows.len(), texts)?;
        Ok(Self(rows))
    }

    fn from_items(items: Vec<Item>, texts: usize) -> Result<Self, ModelError> {
        check_count(items.len(), texts)?;
        let mut rows = vec![None; texts];
        for Item { index, embedding } in items {
            let row = embedding
                .into_row()
                .ok_or_else(|| bad(format!("row {index} is not base64 of little-endian f32")))?;
            match rows.get_mut(index) {
                None => return Err(bad(format!("it has row {index} for {texts} texts"))),
                Some(Some(_)) => return Err(bad(format!("it has row {index} twice"))),
                Some(free) => *free = Some(row),
            }
        }
        // As many rows as texts and none twice, so none is missing.
        Ok(Self(rows.into_iter().flatten().collect()))
    }

    /// Length of the first row.
    pub(super) fn dimension(&self) -> usize {
        self.0.first().map_or(0, Vec::len)
    }

    /// All rows have the expected length, or if none is expected yet, that of the first.
    pub(super) fn check_dimension(
        &self,
        expected: Option<usize>,
        model: &str,
    ) -> Result<(), ModelError> {
        let expected = expected.unwrap_or_else(|| self.dimension());
        match self.0.iter().map(Vec::len).find(|&found| found != expected) {
            None => Ok(()),
            Some(found) => Err(ModelError::WrongDimension {
                expected,
                found,
                model: model.to_owned(),
            }),
        }
    }

    /// Appends the rows, brought to unit length; the first belongs to text `first` of the call.
    pub(super) fn append_units(
        &self,
        first: usize,
        model: &str,
        out: &mut Vec<f32>,
    ) -> Result<(), ModelError> {
        for (position, row) in (first..).zip(&self.0) {
            let model = || model.to_owned();
            if row.iter().any(|value| !value.is_finite()) {
                return Err(ModelError::NotFinite {
                    position,
                    model: model(),
                });
            }
            // In f64 the square of any f32 but 0 is neither infinite nor 0.
            let square: f64 = row
                .iter()
                .map(|&value| f64::from(value) * f64::from(value))
                .sum();
            if square == 0.0 {
                return Err(ModelError::ZeroVector {
                    position,
                    model: model(),
                });
            }
            let length = square.sqrt();
            out.extend(row.iter().map(|&value| (f64::from(value) / length) as f32));
        }
        Ok(())
    }
}

impl Embedding {
    fn into_row(self) -> Option<Vec<f32>> {
        match self {
            Self::Numbers(row) => Some(row),
            Self::Base64(text) => {
                let bytes = BASE64_STANDARD.decode(text).ok()?;
                let (values, rest) = bytes.as_chunks::<4>();
                rest.is_empty()
                    .then(|| values.iter().map(|v| f32::from_le_bytes(*v)).collect())
            }
        }
    }
}

fn bad(reason: String) -> ModelError {
    ModelError::BadReply { reason }
}

fn check_count(found: usize, texts: usize) -> Result<(), ModelError> {
    if found == texts {
        return Ok(());
    }
    Err(bad(format!("it has {found} rows for {texts} texts")))
}

/// The `code` or `type` of an OpenAI-shaped error or the `error_type` of text-embeddings-inference,
/// if it is a short identifier: a message could quote the text or the key.
pub(super) fn error_code(body: &[u8]) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    let error = body.get("error")?;
    let code = error.get("code").and_then(|code| code.as_str());
    let code = code.or_else(|| error.get("type")?.as_str());
    let code = match code {
        Some(code) => code.to_owned(),
        None => body.get("error_type")?.as_str()?.to_ascii_lowercase(),
    };
    let harmless = code.len() <= MAX_CODE_BYTES
        && code
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || b"_-.".contains(&byte));
    (harmless && !code.is_empty()).then_some(code)
}
