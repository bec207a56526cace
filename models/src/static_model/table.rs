//! The file of a table. `training/table_file.py` writes it.
//!
//! Little-endian, no padding but what is named:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `askemb\r\n` |
//! | 8 | 4 | format version: 1 |
//! | 12 | 4 | header length: 128 |
//! | 16 | 4 | tokens |
//! | 20 | 4 | dimension |
//! | 24 | 4 | scale, f32: what 1 stands for |
//! | 28 | 4 | flags: bit 0, text is lower-cased and stripped of accents; the others are 0 |
//! | 32 | 12 | ids of the unknown, start and end tokens |
//! | 44 | 8 | first hashed row, number of hashed rows |
//! | 52 | 4 | cosine that the self-test's texts should have, f32; 0 where it is not stated |
//! | 56 | 8 | zero |
//! | 64 | 32 | name, ASCII, filled up with zeros |
//! | 96 | 32 | SHA-256 of the weights it was distilled from |
//! | 128 | tokens * dimension | rows, signed bytes |
//! | | | per token in id order: a length byte and its text |
//! | end - 32 | 32 | BLAKE3 of everything before |

use std::ops::Range;
use std::sync::OnceLock;

use crate::ModelId;
use crate::blob::Blob;
use crate::wordpiece::WordPiece;

use super::REVISION_BYTES;

const MAGIC: &[u8; 8] = b"askemb\r\n";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 128;
const CHECKSUM_BYTES: usize = 32;
const LOWERCASE: u32 = 1;

/// Where the cosine of the self-test's texts is.
const EXPECTED: Range<usize> = 52..56;

/// Where the name is.
const NAME: Range<usize> = 64..96;

/// Far above any table that fits the format's purpose, and far below what could overflow.
const MAX_DIMENSION: usize = 4096;

#[derive(Debug)]
pub(super) struct Table {
    pub(super) id: ModelId,
    /// The cosine of the self-test's texts, where the file states it.
    pub(super) expected: Option<f32>,
    pub(super) dimension: usize,
    pub(super) wordpiece: WordPiece,
    #[cfg(feature = "train")]
    pub(super) scale: f32,
    /// All of it.
    #[cfg(feature = "train")]
    file: Blob,
    rows: Blob,
    hashed: HashedRows,
    /// One over the length of each row, 0 for a row of zeros; worked out when first asked for.
    inverse_lengths: OnceLock<Vec<f32>>,
}

/// The rows that unknown words share out by hash.
#[derive(Debug)]
struct HashedRows {
    first: u32,
    count: u64,
}

impl Table {
    pub(super) fn parse(file: &Blob) -> Result<Self, String> {
        if file.get(..MAGIC.len()) != Some(MAGIC.as_slice()) {
            return Err("it does not begin like a table".to_owned());
        }
        let version = u32_at(file, 8)?;
        if version != VERSION {
            return Err(format!(
                "it has format version {version}, this build reads {VERSION}"
            ));
        }
        let body_end = file.len().saturating_sub(CHECKSUM_BYTES);
        let (body, checksum) = file.split_at(body_end);
        let found = blake3::hash(body);
        if found.as_bytes() != checksum {
            return Err("the checksum does not match: it is damaged or cut short".to_owned());
        }

        if size_at(body, 12)? != HEADER_BYTES {
            return Err("it has another header length".to_owned());
        }
        let tokens = size_at(body, 16)?;
        let dimension = size_at(body, 20)?;
        if !(1..=MAX_DIMENSION).contains(&dimension) {
            return Err(format!(
                "dimension {dimension} is not in 1 to {MAX_DIMENSION}"
            ));
        }
        let scale = f32::from_bits(u32_at(body, 24)?);
        if !(scale.is_finite() && scale > 0.0) {
            return Err(format!("scale {scale} is not positive"));
        }
        if u32_at(body, 28)? != LOWERCASE {
            return Err("it wants a text treatment that this build does not know".to_owned());
        }
        let unknown = u32_at(body, 32)?;
        let hashed = HashedRows {
            first: u32_at(body, 44)?,
            count: u32_at(body, 48)?.into(),
        };
        let hashed_end = u64::from(hashed.first) + hashed.count;
        if hashed.count == 0 || hashed_end > tokens as u64 {
            return Err(format!(
                "hashed rows up to {hashed_end} do not lie in {tokens} rows"
            ));
        }
        let name = body.get(NAME).ok_or_else(ends_early)?;
        let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
        let name = std::str::from_utf8(name).map_err(|_| "its name is not text".to_owned())?;

        let rows_end = tokens
            .checked_mul(dimension)
            .and_then(|bytes| bytes.checked_add(HEADER_BYTES))
            .filter(|&end| end <= body_end)
            .ok_or_else(ends_early)?;
        let vocabulary = file.slice(rows_end..body_end);
        let revision = &found.to_hex()[..2 * REVISION_BYTES];
        Ok(Self {
            id: ModelId::new(name, revision, "sum"),
            expected: Some(f32::from_bits(u32_at(body, EXPECTED.start)?))
                .filter(|expected| *expected != 0.0),
            dimension,
            #[cfg(feature = "train")]
            scale,
            #[cfg(feature = "train")]
            file: file.clone(),
            wordpiece: WordPiece::from_blob(vocabulary, tokens, unknown)?,
            rows: file.slice(HEADER_BYTES..rows_end),
            hashed,
            inverse_lengths: OnceLock::new(),
        })
    }

    /// The row of a token, as two's complement bytes.
    #[inline]
    pub(super) fn row(&self, id: u32) -> &[u8] {
        let start = id as usize * self.dimension;
        &self.rows[start..start + self.dimension]
    }

    /// The row of a token, or nothing.
    pub(super) fn row_if_any(&self, id: u32) -> &[u8] {
        let start = (id as usize).saturating_mul(self.dimension);
        let end = start.saturating_add(self.dimension);
        self.rows.get(start..end).unwrap_or_default()
    }

    /// The row that a word outside the vocabulary takes.
    pub(super) fn hashed_id(&self, hash: u64) -> u32 {
        self.hashed.first + (hash % self.hashed.count) as u32
    }

    pub(super) fn cosine(&self, a: u32, b: u32) -> f32 {
        let inverse = self.inverse_lengths.get_or_init(|| {
            self.rows
                .chunks_exact(self.dimension)
                .map(|row| match dot(row, row) {
                    0 => 0.0,
                    square => 1.0 / (square as f32).sqrt(),
                })
                .collect()
        });
        let (Some(&x), Some(&y)) = (inverse.get(a as usize), inverse.get(b as usize)) else {
            return 0.0;
        };
        if a == b {
            return f32::from(x > 0.0);
        }
        dot(self.row(a), self.row(b)) as f32 * x * y
    }
}

#[cfg(feature = "train")]
impl Table {
    pub(super) fn row_count(&self) -> usize {
        self.rows.len() / self.dimension
    }

    /// The file of a table that differs from this one in its name, its rows and what the self-test should
    /// find. A name that does not fit is cut.
    pub(super) fn with_rows(&self, name: &str, rows: &[i8], expected: f32) -> Vec<u8> {
        let mut file = self.file[..self.file.len() - CHECKSUM_BYTES].to_vec();
        file[EXPECTED].copy_from_slice(&expected.to_le_bytes());
        let field = &mut file[NAME];
        field.fill(0);
        for (byte, letter) in field.iter_mut().zip(name.bytes()) {
            *byte = letter;
        }
        let of_rows = &mut file[HEADER_BYTES..HEADER_BYTES + self.rows.len()];
        for (byte, value) in of_rows.iter_mut().zip(rows) {
            *byte = value.cast_unsigned();
        }
        let checksum = blake3::hash(&file);
        file.extend_from_slice(checksum.as_bytes());
        file
    }
}

/// Exact: at most 4096 * 128 * 128, so it cannot overflow.
fn dot(a: &[u8], b: &[u8]) -> i32 {
    a.iter()
        .zip(b)
        .map(|(&x, &y)| i32::from(x.cast_signed()) * i32::from(y.cast_signed()))
        .sum()
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, String> {
    let field = bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk::<4>())
        .ok_or_else(ends_early)?;
    Ok(u32::from_le_bytes(*field))
}

fn size_at(bytes: &[u8], at: usize) -> Result<usize, String> {
    usize::try_from(u32_at(bytes, at)?).map_err(|_| "it is too large for this machine".to_owned())
}

fn ends_early() -> String {
    "it ends early".to_owned()
}
