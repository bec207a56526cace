//! The built-in transformer: all-MiniLM-L6-v2 in 8 bits, with an adapter for questions.
//!
//! A text goes through six layers of attention, and the mean of its tokens through a linear map
//! that was trained on labelled pairs of questions. That takes about a millisecond for a short
//! question, where the [static table](crate::static_model) takes a microsecond; it sees word order
//! and context, which the table does not. How much better it tells duplicates is in the model card
//! beside the weights, `assets/minilm-l6-int8.md`.
//!
//! The weights are a file of 24 MB. [`MiniLm::open`] reads one; with the feature `minilm-weights`
//! they are in the binary, for [`MiniLm::builtin`]. The archive of the published crate does not
//! hold them, so that feature needs the repository.
//!
//! Integer sums are exact and floats are combined in one order, so a text gives the same bits on
//! every machine, whichever of the kernels (AVX-512 VNNI, AVX2, NEON, portable) its CPU runs. A word
//! that the vocabulary cannot spell takes one of the vocabulary's unused rows by its hash, so that
//! texts which differ in an unknown word differ.
//!
//! Always true: no I/O after loading, no lock, no thread, no copy of the weights per handle, and the
//! row of a text does not depend on the texts beside it.

mod adapter;
mod file;
mod forward;
#[expect(unsafe_code, reason = "vector instructions")]
mod kernel;
mod math;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use crate::blob::Blob;
use crate::self_test;
use crate::unit::to_unit;
use crate::wordpiece::{Piece, WordPiece};
use crate::{Embedder, ModelError, ModelId, SelfTest};
use adapter::Adapter;
use file::Weights;
use forward::Batch;
use kernel::Kernel;

/// Tokens of a batch that go through the layers together: enough to read the weights once for many
/// short texts, and few enough for the caches.
const BATCH_TOKENS: usize = 256;

/// The fingerprint of the weights that the project ships, and the cosine of the self-test's texts.
const SHIPPED: &str = "minilm-l6@990ba2f6369c+mean";
const SHIPPED_COSINE: f32 = 0.984_485_45;

/// Tokens that the model puts around a text.
const CONTROLS: usize = 2;

/// A transformer with its tokenizer. Clones share it.
///
/// ```no_run
/// use askonce_models::MiniLm;
///
/// let model = MiniLm::open("minilm-l6-int8.bin")?;
/// let rows = model.embed_sync(&["How do I reset my password?", "I forgot my password"])?;
/// assert_eq!(rows.len(), 2 * 384);
/// # Ok::<(), askonce_models::ModelError>(())
/// ```
#[derive(Clone, Debug)]
pub struct MiniLm {
    weights: Arc<Weights>,
    /// The last map: the one that came with the weights, or another.
    adapter: Arc<Adapter>,
    kernel: Kernel,
}

impl MiniLm {
    /// The weights in the binary. The first call takes some milliseconds to check and index them;
    /// later calls clone a handle.
    ///
    /// # Panics
    /// If the weights in the binary do not parse, which the crate's tests rule out.
    #[cfg(feature = "minilm-weights")]
    #[must_use]
    pub fn builtin() -> Self {
        use std::sync::OnceLock;

        /// Aligned, so that no load of the weights crosses a cache line.
        #[repr(C, align(64))]
        struct Aligned<T: ?Sized>(T);
        static FILE: &Aligned<[u8]> = &Aligned(*include_bytes!("../../assets/minilm-l6-int8.bin"));
        static LOADED: OnceLock<MiniLm> = OnceLock::new();
        LOADED
            .get_or_init(|| {
                match Self::parse(&Blob::Embedded(&FILE.0), "the built-in transformer") {
                    Ok(model) => model,
                    Err(error) => unreachable!("the tests load it: {error}"),
                }
            })
            .clone()
    }

    /// Reads a model of the same format from a file, once for all handles.
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
        let weights = Weights::parse(file).map_err(|reason| ModelError::BadWeights {
            origin: origin.to_owned(),
            reason,
        })?;
        Ok(Self {
            adapter: Arc::clone(&weights.adapter),
            weights: Arc::new(weights),
            kernel: Kernel::detect(),
        })
    }

    /// This transformer with the adapter in a file, such as `askonce train` writes, in place of its own.
    /// The layers are shared with `self`.
    ///
    /// # Errors
    /// As [`open`](Self::open); and [`ModelError::BadWeights`] when the adapter was trained for other
    /// weights.
    pub fn with_adapter(&self, path: impl AsRef<Path>) -> Result<Self, ModelError> {
        let path = path.as_ref();
        let file = std::fs::read(path).map_err(|source| ModelError::UnreadableWeights {
            path: path.to_owned(),
            source,
        })?;
        self.with_adapter_bytes(&file, &path.display().to_string())
    }

    fn with_adapter_bytes(&self, file: &[u8], origin: &str) -> Result<Self, ModelError> {
        let adapter =
            Adapter::parse(file, &self.weights).map_err(|reason| ModelError::BadWeights {
                origin: origin.to_owned(),
                reason,
            })?;
        Ok(Self {
            adapter: Arc::new(adapter),
            ..self.clone()
        })
    }

    /// Which model this is. The revision is the beginning of the file's checksum, or of the adapter's where
    /// one was given: so another adapter is another model.
    #[must_use]
    pub fn id(&self) -> &ModelId {
        &self.adapter.id
    }

    /// Compares what this machine makes of two known texts with what the weights should make of them.
    ///
    /// # Errors
    /// As [`embed_sync`](Self::embed_sync): the texts have words that every vocabulary can spell.
    pub fn self_test(&self) -> Result<SelfTest, ModelError> {
        let known = (self.adapter.id.fingerprint() == SHIPPED).then_some(SHIPPED_COSINE);
        let rows = self.embed_sync(&self_test::TEXTS)?;
        Ok(SelfTest::of(self.adapter.expected.or(known), &rows))
    }

    /// Floats per row: 384 for the model that the project ships.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.weights.width
    }

    /// Most tokens of a text, 256 for the model that the project ships. A longer text is refused,
    /// not cut.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        self.weights.positions - CONTROLS
    }

    /// The tokenizer.
    #[must_use]
    pub fn wordpiece(&self) -> &WordPiece {
        &self.weights.wordpiece
    }

    /// The instructions that this CPU runs it with: `avx512-vnni`, `avx2`, `neon` or `portable`.
    #[must_use]
    pub fn instructions(&self) -> &'static str {
        self.kernel.name()
    }

    /// Appends the unit vector of `text` to `out`. On error `out` is as it was.
    ///
    /// # Errors
    /// As [`embed_sync`](Self::embed_sync), with position 0.
    pub fn embed_one(&self, text: &str, out: &mut Vec<f32>) -> Result<(), ModelError> {
        out.extend_from_slice(&self.embed_sync(&[text])?);
        Ok(())
    }

    /// One unit vector per text, in order, rows concatenated. It keeps the calling thread busy: one
    /// to three milliseconds for a short question, some thirty for 256 tokens. Short texts are
    /// cheaper together than alone, and give the same rows.
    ///
    /// # Errors
    /// [`ModelError::NoTokens`] for a text without any word, and [`ModelError::InputTooLong`] for
    /// one of more than [`max_tokens`](Self::max_tokens), before anything is computed;
    /// [`ModelError::NotFinite`] and [`ModelError::ZeroVector`] should weights be such that a row
    /// has no direction.
    pub fn embed_sync(&self, texts: &[&str]) -> Result<Vec<f32>, ModelError> {
        let mut batches = Vec::new();
        let mut batch = Batch::default();
        for (position, text) in texts.iter().enumerate() {
            let start = batch.ids.len();
            self.tokenize(position, text, &mut batch.ids)?;
            if start > 0 && batch.ids.len() > BATCH_TOKENS {
                let ids = batch.ids.split_off(start);
                let ends = vec![ids.len()];
                batches.push(std::mem::replace(&mut batch, Batch { ids, ends }));
            } else {
                batch.ends.push(batch.ids.len());
            }
        }
        batches.push(batch);

        let mut out = vec![0.0; texts.len() * self.dimension()];
        let mut rest = &mut out[..];
        for batch in &batches {
            let rows;
            (rows, rest) = rest.split_at_mut(batch.ends.len() * self.dimension());
            self.kernel
                .run(&self.weights, &self.adapter.map, batch, rows);
        }
        for (position, row) in out.chunks_exact_mut(self.dimension()).enumerate() {
            to_unit(row, position, self.id())?;
        }
        Ok(out)
    }

    /// Appends the ids of a text, between the start and the end token.
    fn tokenize(&self, position: usize, text: &str, ids: &mut Vec<u32>) -> Result<(), ModelError> {
        let weights = &*self.weights;
        ids.push(weights.start);
        let mut tokens = 0;
        let flow = weights.wordpiece.pieces(text, |piece| {
            tokens += 1;
            if tokens > self.max_tokens() {
                return ControlFlow::Break(());
            }
            ids.push(match piece {
                Piece::Known(id) => id,
                Piece::Unknown { hash } => weights.hashed.row(hash),
            });
            ControlFlow::Continue(())
        });
        ids.push(weights.end);
        let model = || self.id().to_string();
        if flow.is_break() {
            return Err(ModelError::InputTooLong {
                position,
                limit: self.max_tokens(),
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
impl MiniLm {
    /// The same layers with an adapter that changes nothing.
    pub(crate) fn bare(&self) -> Self {
        self.with(Adapter::identity(&self.weights))
    }

    /// The adapter: the outputs of the first input, of the second, and so on.
    pub(crate) fn adapter(&self) -> &[f32] {
        &self.adapter.map
    }

    /// The file of another adapter of these weights.
    pub(crate) fn adapter_file(&self, map: Vec<f32>) -> Result<Vec<u8>, ModelError> {
        let model = self.with(Adapter::new(&self.weights, map));
        let found = model.self_test()?.found;
        Ok(model.adapter.file(&self.weights, found))
    }

    /// As [`with_adapter`](Self::with_adapter), from memory.
    pub(crate) fn with_trained(&self, file: &[u8]) -> Result<Self, ModelError> {
        self.with_adapter_bytes(file, "the trained adapter")
    }

    fn with(&self, adapter: Adapter) -> Self {
        Self {
            adapter: Arc::new(adapter),
            ..self.clone()
        }
    }
}

/// The work is done when the future is first polled, on the thread that polls it: whoever must not
/// be kept from other tasks for some milliseconds calls [`MiniLm::embed_sync`] on a thread for
/// blocking work.
impl Embedder for MiniLm {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Row lengths that fill tiles, and blocks of attention, in all ways.
    #[test]
    fn every_kernel_gives_the_same_bits() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/minilm-l6-int8.bin");
        if !Path::new(file).exists() {
            eprintln!("skipped: {file} is not here");
            return;
        }
        let model = MiniLm::open(file).unwrap();
        let words = "how do i reset the password of my account when the old phone is gone";
        let texts: Vec<String> = [1, 2, 3, 5, 6, 7, 8, 13, 14, 30, 63, 90]
            .map(|tokens| {
                let words: Vec<_> = words.split(' ').cycle().take(tokens).collect();
                words.join(" ")
            })
            .into();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let bits = |kernel| {
            let weights = Arc::clone(&model.weights);
            let adapter = Arc::clone(&model.adapter);
            let model = MiniLm {
                weights,
                adapter,
                kernel,
            };
            let rows = model.embed_sync(&texts).unwrap();
            rows.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
        };
        let kernels = Kernel::all();
        let reference = bits(kernels[0]);
        for &kernel in &kernels[1..] {
            assert_eq!(bits(kernel), reference, "{kernel:?}");
        }
    }
}
