//! The built-in model: a text is the sum of its tokens' rows in a table.
//!
//! The table holds 8-bit integers under one scale, so a sum is exact whatever the order and the
//! instruction set: the same text gives the same bits on every machine. Only then is the sum
//! divided by its length, with one correctly rounded operation per step. A word that WordPiece
//! cannot spell takes a row by its hash, so that texts which differ in an unknown word differ.
//!
//! What it cannot see: word order ("dog bites man" and "man bites dog" are one vector), and it
//! learnt from English. Whoever serves answers by similarity needs a check of the texts on top.
//!
//! Always true: no I/O after loading, no lock, no copy of the table per handle, and the row of a
//! text does not depend on the texts beside it.

mod table;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::blob::Blob;
use crate::self_test;
use crate::wordpiece::{Piece, WordPiece};
use crate::{Embedder, ModelError, ModelId, SelfTest};
use table::Table;

/// Most tokens of a text. A longer text is refused, not cut; reading stops here, so that a text of
/// many megabytes costs no more than its beginning.
pub const MAX_TOKENS: usize = 2048;

/// Length of the checksum's beginning that stands for the weights in a [`ModelId`].
const REVISION_BYTES: usize = 6;

/// The fingerprint of the built-in table, and the cosine of the self-test's texts.
const SHIPPED: &str = "static-128@f1e65ca9ca25+sum";
const SHIPPED_COSINE: f32 = 0.979_210_4;

static BUILTIN: &[u8] = include_bytes!("../../assets/static-128.bin");

/// An embedding table with its tokenizer. Clones share it.
///
/// ```
/// use askonce_models::{ModelError, StaticEmbedder};
///
/// let embedder = StaticEmbedder::builtin();
/// let mut row = Vec::new();
/// embedder.embed_one("How do I reset my password?", &mut row)?;
/// assert_eq!(row.len(), 128);
///
/// let blank = embedder.embed_one(" \n", &mut row);
/// assert!(matches!(blank, Err(ModelError::NoTokens { position: 0, .. })));
/// # Ok::<(), ModelError>(())
/// ```
#[derive(Clone, Debug)]
pub struct StaticEmbedder {
    table: Arc<Table>,
}

impl StaticEmbedder {
    /// The table embedded in the binary. The first call takes a few milliseconds to check and
    /// index it; later calls clone a handle.
    ///
    /// # Panics
    /// If the embedded table does not parse, which the crate's tests rule out.
    #[must_use]
    pub fn builtin() -> Self {
        static LOADED: OnceLock<StaticEmbedder> = OnceLock::new();
        LOADED
            .get_or_init(
                || match Self::parse(&Blob::Embedded(BUILTIN), "the built-in table") {
                    Ok(embedder) => embedder,
                    Err(error) => unreachable!("the tests load it: {error}"),
                },
            )
            .clone()
    }

    /// Reads a table of the same format from a file, once for all handles.
    ///
    /// # Errors
    /// [`ModelError::UnreadableWeights`] when the file cannot be read, and
    /// [`ModelError::BadWeights`] when it is of another version, damaged, or inconsistent.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|source| ModelError::UnreadableWeights {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&Blob::from(bytes), &path.display().to_string())
    }

    fn parse(file: &Blob, origin: &str) -> Result<Self, ModelError> {
        let table = Table::parse(file).map_err(|reason| ModelError::BadWeights {
            origin: origin.to_owned(),
            reason,
        })?;
        Ok(Self {
            table: Arc::new(table),
        })
    }

    /// Which table this is. The revision is the beginning of the file's checksum.
    #[must_use]
    pub fn id(&self) -> &ModelId {
        &self.table.id
    }

    /// Compares what this machine makes of two known texts with what the table should make of them.
    ///
    /// # Errors
    /// As [`embed_sync`](Self::embed_sync): the texts have words that every vocabulary can spell.
    pub fn self_test(&self) -> Result<SelfTest, ModelError> {
        let known = (self.id().fingerprint() == SHIPPED).then_some(SHIPPED_COSINE);
        let rows = self.embed_sync(&self_test::TEXTS)?;
        Ok(SelfTest::of(self.table.expected.or(known), &rows))
    }

    /// Floats per row.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.table.dimension
    }

    /// The tokenizer, which other models with the same vocabulary may use too.
    #[must_use]
    pub fn wordpiece(&self) -> &WordPiece {
        &self.table.wordpiece
    }

    /// Appends the unit vector of `text` to `out`. On error `out` is as it was.
    ///
    /// Costs one small allocation besides what `out` needs to grow.
    ///
    /// # Errors
    /// As [`embed_sync`](Self::embed_sync), with position 0.
    pub fn embed_one(&self, text: &str, out: &mut Vec<f32>) -> Result<(), ModelError> {
        let mut sums = vec![0; self.dimension()];
        self.append(0, text, &mut sums, out)
    }

    /// One unit vector per text, in order, rows concatenated. What [`Embedder::embed`] returns,
    /// without a future: the work is a few microseconds per text.
    ///
    /// # Errors
    /// [`ModelError::NoTokens`] for a text without any word, [`ModelError::InputTooLong`] for one
    /// of more than [`MAX_TOKENS`], and [`ModelError::ZeroVector`] should rows cancel exactly.
    pub fn embed_sync(&self, texts: &[&str]) -> Result<Vec<f32>, ModelError> {
        let mut sums = vec![0; self.dimension()];
        let mut out = Vec::with_capacity(texts.len() * self.dimension());
        for (position, text) in texts.iter().enumerate() {
            self.append(position, text, &mut sums, &mut out)?;
        }
        Ok(out)
    }

    /// The row that a token of [`wordpiece`](Self::wordpiece) takes. Tokens of one row cannot be told
    /// apart by the table.
    #[must_use]
    pub fn row_of(&self, piece: Piece) -> u32 {
        match piece {
            Piece::Known(id) => id,
            Piece::Unknown { hash } => self.table.hashed_id(hash),
        }
    }

    /// Cosine of two rows, -1 to 1; 0 where one of them is zero or outside the table. 1 for a row with
    /// itself.
    #[must_use]
    pub fn row_cosine(&self, a: u32, b: u32) -> f32 {
        self.table.cosine(a, b)
    }

    /// Adds a row to `sums`, which has a place per dimension; a row outside the table adds nothing.
    pub fn add_row(&self, row: u32, sums: &mut [i32]) {
        for (sum, &value) in sums.iter_mut().zip(self.table.row_if_any(row)) {
            *sum += i32::from(value.cast_signed());
        }
    }

    /// The exact sum of the rows of `text`, before it is brought to unit length. What the training
    /// side computes too, so that both can be compared to the last bit.
    ///
    /// # Errors
    /// As [`embed_one`](Self::embed_one), but sums of zero are returned.
    pub fn row_sums(&self, text: &str) -> Result<Vec<i32>, ModelError> {
        let mut sums = vec![0; self.dimension()];
        self.sum(0, text, &mut sums)?;
        Ok(sums)
    }

    fn append(
        &self,
        position: usize,
        text: &str,
        sums: &mut [i32],
        out: &mut Vec<f32>,
    ) -> Result<(), ModelError> {
        self.sum(position, text, sums)?;
        // At most 2048 * 128 each, so neither the squares nor their sum can overflow.
        let square: i64 = sums
            .iter()
            .map(|&sum| i64::from(sum) * i64::from(sum))
            .sum();
        if square == 0 {
            return Err(ModelError::ZeroVector {
                position,
                model: self.id().to_string(),
            });
        }
        let length = (square as f64).sqrt();
        out.extend(sums.iter().map(|&sum| (f64::from(sum) / length) as f32));
        Ok(())
    }

    fn sum(&self, position: usize, text: &str, sums: &mut [i32]) -> Result<(), ModelError> {
        sums.fill(0);
        let mut tokens = 0;
        let flow = self.table.wordpiece.pieces(text, |piece| {
            tokens += 1;
            if tokens > MAX_TOKENS {
                return ControlFlow::Break(());
            }
            let row = self.table.row(self.row_of(piece));
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += i32::from(value.cast_signed());
            }
            ControlFlow::Continue(())
        });
        self.check_tokens(position, tokens, flow.is_break())
    }

    fn check_tokens(&self, position: usize, tokens: usize, more: bool) -> Result<(), ModelError> {
        let model = || self.id().to_string();
        if more {
            return Err(ModelError::InputTooLong {
                position,
                limit: MAX_TOKENS,
                model: model(),
            });
        }
        if tokens == 0 {
            return Err(ModelError::NoTokens {
                position,
                model: model(),
            });
        }
        Ok(())
    }
}

#[cfg(feature = "train")]
impl StaticEmbedder {
    pub(crate) fn from_bytes(file: Vec<u8>, origin: &str) -> Result<Self, ModelError> {
        Self::parse(&Blob::from(file), origin)
    }

    /// What 1 stands for in a row.
    pub(crate) fn scale(&self) -> f32 {
        self.table.scale
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.table.row_count()
    }

    /// The values of a row.
    pub(crate) fn row(&self, number: u32) -> impl Iterator<Item = i8> {
        let row = self.table.row(number);
        row.iter().map(|value| value.cast_signed())
    }

    /// Appends the numbers of the rows of `text` to `out`; the same rows that are summed up for its vector.
    pub(crate) fn row_numbers(&self, text: &str, out: &mut Vec<u32>) -> Result<(), ModelError> {
        let start = out.len();
        let flow = self.table.wordpiece.pieces(text, |piece| {
            if out.len() - start == MAX_TOKENS {
                return ControlFlow::Break(());
            }
            out.push(match piece {
                Piece::Known(id) => id,
                Piece::Unknown { hash } => self.table.hashed_id(hash),
            });
            ControlFlow::Continue(())
        });
        self.check_tokens(0, out.len() - start, flow.is_break())
    }

    /// The file of a table with other rows, and a name that tells so.
    pub(crate) fn with_rows(&self, rows: &[i8]) -> Result<Vec<u8>, ModelError> {
        let name = self.id().name();
        let tuned = name.strip_suffix(TUNED).unwrap_or(name);
        let name = format!("{tuned}{TUNED}");
        // The cosine is a field of the file that it belongs to, so the table is made to be asked first.
        let unstated = self.table.with_rows(&name, rows, 0.0);
        let found = Self::from_bytes(unstated, "the trained table")?.self_test()?;
        Ok(self.table.with_rows(&name, rows, found.found))
    }
}

/// What the name of a table ends with that was trained further.
#[cfg(feature = "train")]
const TUNED: &str = "-tuned";

impl Embedder for StaticEmbedder {
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
