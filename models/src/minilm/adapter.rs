//! The last map of the transformer, and the file of one that `askonce train` has made.
//!
//! A file's map takes the place of the one that came with the weights. It belongs to these weights and to
//! no others, which it names by their checksum.
//!
//! Little-endian:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `askadp\r\n` |
//! | 8 | 4 | format version: 1 |
//! | 12 | 4 | width: floats per row |
//! | 16 | 4 | cosine that the self-test's texts should have, f32 |
//! | 20 | 12 | zero |
//! | 32 | 32 | BLAKE3 of the transformer, as stored at the end of its file |
//! | 64 | 4 * width * width | f32 weights: the outputs of the first input, of the second, and so on |
//! | end - 32 | 32 | BLAKE3 of everything before |

use super::file::{REVISION_BYTES, Weights};
use crate::ModelId;

const MAGIC: &[u8; 8] = b"askadp\r\n";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 64;
const CHECKSUM_BYTES: usize = 32;

/// What the name of a model ends with whose adapter was trained further.
const TUNED: &str = "-tuned";

/// A linear map without a bias, and the model that it makes of the layers before it.
#[derive(Debug)]
pub(super) struct Adapter {
    pub(super) id: ModelId,
    /// `width` outputs of each input.
    pub(super) map: Vec<f32>,
    /// The cosine of the self-test's texts, where a file states it.
    pub(super) expected: Option<f32>,
}

impl Adapter {
    /// Reads the file of an adapter of these weights.
    pub(super) fn parse(file: &[u8], weights: &Weights) -> Result<Self, String> {
        if !file.starts_with(MAGIC) {
            return Err("it does not begin like an adapter".to_owned());
        }
        let word = |at: usize| file.get(at..).and_then(|rest| rest.first_chunk::<4>());
        let field = |at| word(at).copied().ok_or("it ends early");
        let version = u32::from_le_bytes(field(8)?);
        if version != VERSION {
            return Err(format!(
                "it has version {version} of the format, and this build reads {VERSION}"
            ));
        }
        let (body, checksum) = file.split_at(file.len().saturating_sub(CHECKSUM_BYTES));
        let found = blake3::hash(body);
        if found.as_bytes() != checksum {
            return Err("the checksum does not match: it is damaged or cut short".to_owned());
        }
        let base = body.get(32..HEADER_BYTES).ok_or("it ends early")?;
        if base != weights.checksum {
            return Err(format!(
                "it was trained for a transformer of checksum {}, and this one's is {}: train it again",
                hex(base),
                hex(&weights.checksum)
            ));
        }
        let width = u32::from_le_bytes(field(12)?);
        if width as usize != weights.width {
            return Err(format!(
                "its width is {width}, and the transformer's {}",
                weights.width
            ));
        }
        let (words, rest) = body[HEADER_BYTES..].as_chunks::<4>();
        if words.len() != weights.width * weights.width || !rest.is_empty() {
            return Err("it is not as long as its width says".to_owned());
        }
        let map: Vec<f32> = words.iter().map(|&word| f32::from_le_bytes(word)).collect();
        let expected = f32::from_le_bytes(field(16)?);
        if !(expected.is_finite() && map.iter().all(|weight| weight.is_finite())) {
            return Err("a weight is not finite".to_owned());
        }
        let revision = &found.to_hex()[..2 * REVISION_BYTES];
        Ok(Self {
            id: tuned(weights, revision),
            map,
            expected: Some(expected),
        })
    }
}

/// The beginning of a checksum, as ids show it.
fn hex(checksum: &[u8]) -> String {
    let bytes = &checksum[..REVISION_BYTES];
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn tuned(weights: &Weights, revision: &str) -> ModelId {
    let name = weights.adapter.id.name();
    let name = name.strip_suffix(TUNED).unwrap_or(name);
    let pooling = weights.adapter.id.pooling();
    ModelId::new(&format!("{name}{TUNED}"), revision, pooling)
}

#[cfg(feature = "train")]
impl Adapter {
    /// The map that changes nothing: the model's rows are then the bare means of the tokens.
    pub(super) fn identity(weights: &Weights) -> Self {
        Self::new(weights, identity(weights.width))
    }

    /// A map that stands in no file.
    pub(super) fn new(weights: &Weights, map: Vec<f32>) -> Self {
        Self {
            id: tuned(weights, "unsaved"),
            map,
            expected: None,
        }
    }

    /// The file of a map, given the cosine of the self-test's texts.
    pub(super) fn file(&self, weights: &Weights, expected: f32) -> Vec<u8> {
        let mut file = MAGIC.to_vec();
        file.extend(VERSION.to_le_bytes());
        // A width is at most 4,096.
        file.extend((weights.width as u32).to_le_bytes());
        file.extend(expected.to_le_bytes());
        file.extend([0; 12]);
        file.extend(weights.checksum);
        file.extend(self.map.iter().flat_map(|weight| weight.to_le_bytes()));
        let checksum = blake3::hash(&file);
        file.extend_from_slice(checksum.as_bytes());
        file
    }
}

#[cfg(feature = "train")]
fn identity(width: usize) -> Vec<f32> {
    let mut map = vec![0.0; width * width];
    for at in 0..width {
        map[at * width + at] = 1.0;
    }
    map
}
