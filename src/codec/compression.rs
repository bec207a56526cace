//! Payloads made smaller.
//!
//! The length before compression stands in the header. It is held against the codec's limit, and
//! against what the payload could at most become, before any memory is taken for it.

use serde::{Deserialize, Serialize};

use super::EnvelopeError;

/// How payloads are made smaller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Compression {
    /// Not at all. The default.
    #[default]
    None,
    /// zstd: small. Needs the feature `compression`.
    Zstd,
    /// LZ4: fast. Needs the feature `compression`.
    Lz4,
}

impl Compression {
    /// Whether this build has it.
    pub(super) const fn is_built(self) -> bool {
        matches!(self, Self::None) || cfg!(feature = "compression")
    }

    /// The byte in the header.
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Zstd => 1,
            Self::Lz4 => 2,
        }
    }

    /// The compression of a byte in the header, if this build has it.
    pub(super) fn from_code(code: u8) -> Option<Self> {
        [Self::None, Self::Zstd, Self::Lz4]
            .into_iter()
            .find(|known| known.code() == code && known.is_built())
    }

    /// `payload` made smaller, if that makes it smaller.
    #[cfg(feature = "compression")]
    pub(super) fn compress(self, level: i32, payload: &[u8]) -> Option<Vec<u8>> {
        let compressed = match self {
            Self::None => return None,
            // Out of memory, at worst: the payload is then stored as it is.
            Self::Zstd => zstd::bulk::compress(payload, level).ok()?,
            Self::Lz4 => lz4_flex::block::compress(payload),
        };
        (compressed.len() < payload.len()).then_some(compressed)
    }

    #[cfg(not(feature = "compression"))]
    pub(super) fn compress(self, _: i32, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    /// `payload` as it was before, all `raw_len` bytes of it.
    #[cfg(feature = "compression")]
    pub(super) fn decompress(
        self,
        payload: &[u8],
        raw_len: usize,
    ) -> Result<Vec<u8>, EnvelopeError> {
        /// A byte of LZ4 stands for 255 at most.
        const LZ4_RATIO: usize = 255;

        let raw = match self {
            Self::None => None,
            Self::Zstd => zstd::bulk::decompress(payload, raw_len).ok(),
            Self::Lz4 if raw_len > payload.len().saturating_mul(LZ4_RATIO) => None,
            Self::Lz4 => lz4_flex::block::decompress(payload, raw_len).ok(),
        };
        raw.filter(|raw| raw.len() == raw_len)
            .ok_or(EnvelopeError::Compression)
    }

    #[cfg(not(feature = "compression"))]
    pub(super) fn decompress(self, _: &[u8], _: usize) -> Result<Vec<u8>, EnvelopeError> {
        Err(EnvelopeError::Compression)
    }
}
