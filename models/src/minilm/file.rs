//! The file of a transformer. `training/minilm_file.py` writes it.
//!
//! Little-endian. Arrays begin at multiples of 64 bytes, with zeros between them.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `askxfm\r\n` |
//! | 8 | 4 | format version: 1 |
//! | 12 | 4 | header length: 128 |
//! | 16 | 4 | tokens in the vocabulary |
//! | 20 | 4 | width: floats per token and per row |
//! | 24 | 4 | layers |
//! | 28 | 4 | attention heads, 32 floats each |
//! | 32 | 4 | width of the feed-forward part |
//! | 36 | 4 | positions: most tokens, the start and the end token included |
//! | 40 | 4 | flags: bit 0, text is lower-cased and stripped of accents; the others are 0 |
//! | 44 | 12 | ids of the unknown, start and end tokens |
//! | 56 | 8 | first hashed row, number of hashed rows |
//! | 64 | 32 | name, ASCII, filled up with zeros |
//! | 96 | 32 | SHA-256 of the weights it was made from |
//! | 128 | | arrays, in the order of [`Weights`] |
//! | | | per token in id order: a length byte and its text |
//! | end - 32 | 32 | BLAKE3 of everything before |
//!
//! A linear map is four arrays: f32 scale per output, i32 sum of the codes of each output, f32
//! bias, and the codes, signed bytes from -127 to 127. The codes lie in panels of 16 outputs; a
//! panel holds, for every four inputs, the four codes of each of its outputs.

use std::sync::Arc;

use super::adapter::Adapter;
use crate::ModelId;
use crate::blob::Blob;
use crate::wordpiece::WordPiece;

const MAGIC: &[u8; 8] = b"askxfm\r\n";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 128;
const CHECKSUM_BYTES: usize = 32;
const LOWERCASE: u32 = 1;
const ALIGNMENT: usize = 64;

/// Length of the checksum's beginning that stands for the weights in a [`ModelId`].
pub(super) const REVISION_BYTES: usize = 6;

/// Outputs of a panel.
pub(super) const PANEL: usize = 16;
/// Outputs that are computed together: a linear map has a multiple of them.
pub(super) const PANELS: usize = 2;
/// Floats per attention head.
pub(super) const HEAD: usize = 32;

/// Bounds that keep every product of sizes far from overflow, and 8-bit dot products within i32.
const MOST_WIDTH: usize = 4096;
const MOST_INNER: usize = 16384;
const MOST_LAYERS: usize = 64;
const MOST_POSITIONS: usize = 8192;
const MOST_TOKENS: usize = 1 << 24;

/// A model in memory. The 8-bit codes stay where the file put them.
#[derive(Debug)]
pub(super) struct Weights {
    /// BLAKE3 of the file, as stored at its end.
    pub(super) checksum: [u8; CHECKSUM_BYTES],
    pub(super) wordpiece: WordPiece,
    pub(super) width: usize,
    pub(super) inner: usize,
    pub(super) positions: usize,
    /// Ids of the start and the end token.
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) hashed: HashedRows,
    /// Token embeddings: what 1 stands for in a row, and the rows.
    pub(super) word_scales: Vec<f32>,
    pub(super) words: Blob,
    /// Position embeddings with the one token type's added.
    pub(super) places: Vec<f32>,
    pub(super) norm: Norm,
    pub(super) layers: Vec<Layer>,
    /// The last map, where no other takes its place.
    pub(super) adapter: Arc<Adapter>,
}

/// The rows that words outside the vocabulary share out by hash.
#[derive(Clone, Copy, Debug)]
pub(super) struct HashedRows {
    first: u32,
    count: u64,
}

impl HashedRows {
    pub(super) fn row(self, hash: u64) -> u32 {
        // The remainder is below a u32's count, and the file's check keeps the sum in the table.
        self.first + (hash % self.count) as u32
    }
}

/// One layer: attention, then the feed-forward part, each with what follows it.
#[derive(Debug)]
pub(super) struct Layer {
    /// Queries, keys and values side by side: three times the width.
    pub(super) qkv: Linear,
    pub(super) mix: Linear,
    pub(super) mix_norm: Norm,
    pub(super) up: Linear,
    pub(super) down: Linear,
    pub(super) down_norm: Norm,
}

/// An affine map with 8-bit weights.
#[derive(Debug)]
pub(super) struct Linear {
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) scales: Vec<f32>,
    pub(super) sums: Vec<i32>,
    pub(super) bias: Vec<f32>,
    /// Two's complement bytes, in panels.
    pub(super) codes: Blob,
}

/// Gain and bias of a layer normalisation.
#[derive(Debug)]
pub(super) struct Norm {
    pub(super) gain: Vec<f32>,
    pub(super) bias: Vec<f32>,
}

impl Weights {
    pub(super) fn parse(file: &Blob) -> Result<Self, String> {
        if file.get(..MAGIC.len()) != Some(MAGIC.as_slice()) {
            return Err("it does not begin like a transformer".to_owned());
        }
        let version = u32_at(file, 8)?;
        if version != VERSION {
            return Err(format!(
                "it has version {version} of the format, and this build reads {VERSION}"
            ));
        }
        let body_end = file.len().saturating_sub(CHECKSUM_BYTES);
        let (body, checksum) = file.split_at(body_end);
        let found = blake3::hash(body);
        if found.as_bytes() != checksum {
            return Err("the checksum does not match: it is damaged or cut short".to_owned());
        }
        size_at(body, 12, "header length", HEADER_BYTES..=HEADER_BYTES)?;
        let tokens = size_at(body, 16, "number of tokens", 1..=MOST_TOKENS)?;
        let width = size_at(body, 20, "width", HEAD..=MOST_WIDTH)?;
        let layers = size_at(body, 24, "number of layers", 1..=MOST_LAYERS)?;
        let inner = size_at(body, 32, "inner width", HEAD..=MOST_INNER)?;
        if width % HEAD != 0 || inner % HEAD != 0 {
            return Err(format!(
                "widths {width} and {inner} are not multiples of {HEAD}"
            ));
        }
        size_at(body, 28, "number of heads", width / HEAD..=width / HEAD)?;
        let positions = size_at(body, 36, "number of positions", 3..=MOST_POSITIONS)?;
        if u32_at(body, 40)? != LOWERCASE {
            return Err("it wants a text treatment that this build does not know".to_owned());
        }
        let ids = [u32_at(body, 44)?, u32_at(body, 48)?, u32_at(body, 52)?];
        if ids.iter().any(|&id| id as usize >= tokens) {
            return Err(format!("a control token is outside its {tokens} tokens"));
        }
        let [unknown, start, end] = ids;
        let hashed = HashedRows {
            first: u32_at(body, 56)?,
            count: u32_at(body, 60)?.into(),
        };
        let hashed_end = u64::from(hashed.first) + hashed.count;
        if hashed.count == 0 || hashed_end > tokens as u64 {
            return Err(format!(
                "hashed rows up to {hashed_end} do not lie in {tokens} rows"
            ));
        }
        let name = body.get(64..96).ok_or_else(ends_early)?;
        let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
        let name = std::str::from_utf8(name).map_err(|_| "its name is not text".to_owned())?;

        let mut arrays = Arrays {
            file,
            at: HEADER_BYTES,
            end: body_end,
        };
        let word_scales = arrays.floats(tokens)?;
        let words = arrays.codes(tokens * width)?;
        let places = arrays.floats(positions * width)?;
        let norm = arrays.norm(width)?;
        let layers = (0..layers)
            .map(|_| {
                Ok(Layer {
                    qkv: arrays.linear(width, 3 * width)?,
                    mix: arrays.linear(width, width)?,
                    mix_norm: arrays.norm(width)?,
                    up: arrays.linear(width, inner)?,
                    down: arrays.linear(inner, width)?,
                    down_norm: arrays.norm(width)?,
                })
            })
            .collect::<Result<_, String>>()?;
        let map = arrays.floats(width * width)?;
        let vocabulary = file.slice(arrays.at..body_end);
        let revision = &found.to_hex()[..2 * REVISION_BYTES];
        let adapter = Arc::new(Adapter {
            id: ModelId::new(name, revision, "mean"),
            map,
            expected: None,
        });
        Ok(Self {
            checksum: *found.as_bytes(),
            wordpiece: WordPiece::from_blob(vocabulary, tokens, unknown)?,
            width,
            inner,
            positions,
            start,
            end,
            hashed,
            word_scales,
            words,
            places,
            norm,
            layers,
            adapter,
        })
    }
}

/// Reads one array after the other.
struct Arrays<'a> {
    file: &'a Blob,
    at: usize,
    end: usize,
}

impl Arrays<'_> {
    /// The next `length` bytes that begin at a multiple of [`ALIGNMENT`].
    fn next(&mut self, length: usize) -> Result<Blob, String> {
        let start = self.at.next_multiple_of(ALIGNMENT);
        let end = start
            .checked_add(length)
            .filter(|&end| end <= self.end)
            .ok_or_else(ends_early)?;
        self.at = end;
        Ok(self.file.slice(start..end))
    }

    fn floats(&mut self, count: usize) -> Result<Vec<f32>, String> {
        let bytes = self.next(4 * count)?;
        let (words, _) = bytes.as_chunks::<4>();
        let floats: Vec<f32> = words.iter().map(|&word| f32::from_le_bytes(word)).collect();
        // A sum is finite only if all are, short of an overflow that no weight comes near.
        let finite = floats.iter().all(|float| float.is_finite());
        finite
            .then_some(floats)
            .ok_or_else(|| "a weight is not finite".to_owned())
    }

    fn codes(&mut self, count: usize) -> Result<Blob, String> {
        self.next(count)
    }

    fn norm(&mut self, width: usize) -> Result<Norm, String> {
        Ok(Norm {
            gain: self.floats(width)?,
            bias: self.floats(width)?,
        })
    }

    fn linear(&mut self, inputs: usize, outputs: usize) -> Result<Linear, String> {
        let scales = self.floats(outputs)?;
        let sums = self.next(4 * outputs)?;
        let (sums, _) = sums.as_chunks::<4>();
        let sums: Vec<i32> = sums.iter().map(|&word| i32::from_le_bytes(word)).collect();
        let bias = self.floats(outputs)?;
        let codes = self.codes(inputs * outputs)?;
        // Kernels count on it: -128 has no positive twin, and sums past this could overflow.
        let most = 127 * inputs as i32;
        if codes.contains(&0x80) || sums.iter().any(|sum| !(-most..=most).contains(sum)) {
            return Err("a weight is out of range".to_owned());
        }
        Ok(Linear {
            inputs,
            outputs,
            scales,
            sums,
            bias,
            codes,
        })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, String> {
    let field = bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk::<4>())
        .ok_or_else(ends_early)?;
    Ok(u32::from_le_bytes(*field))
}

fn size_at(
    bytes: &[u8],
    at: usize,
    what: &str,
    allowed: std::ops::RangeInclusive<usize>,
) -> Result<usize, String> {
    let found = usize::try_from(u32_at(bytes, at)?).unwrap_or(usize::MAX);
    if allowed.contains(&found) {
        return Ok(found);
    }
    let (least, most) = allowed.into_inner();
    Err(format!("its {what}, {found}, is not in {least} to {most}"))
}

fn ends_early() -> String {
    "it ends early".to_owned()
}
