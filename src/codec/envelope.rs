//! An opened envelope.

use std::fmt;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::{Compression, EnvelopeError, Header, Serializer};

/// A header and the payload that belongs to it, both proven whole. Cheap to clone.
///
/// The payload is decompressed and deserialized by [`read`](Self::read) and not before.
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope {
    /// What is known of the value without reading it.
    pub header: Header,
    /// How the value was serialized; `None`: there is no value.
    pub(super) serializer: Option<Serializer>,
    pub(super) compression: Compression,
    /// The payload as it is compressed, decrypted already.
    pub(super) payload: Bytes,
    /// Its length before compression. It was held against the codec's limit.
    pub(super) raw_len: usize,
}

impl Envelope {
    /// Whether there is a header and no value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.serializer.is_none()
    }

    /// How the value was serialized; `None`: there is no value.
    #[must_use]
    pub fn serializer(&self) -> Option<Serializer> {
        self.serializer
    }

    /// The value.
    ///
    /// # Errors
    /// - [`EnvelopeError::Empty`] when there is none.
    /// - [`EnvelopeError::Compression`] when it cannot be decompressed to the length it had.
    /// - [`EnvelopeError::Payload`] when it is not a `T`.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, EnvelopeError> {
        match self.read_front()? {
            (value, true) => Ok(value),
            (_, false) => Err(EnvelopeError::Payload),
        }
    }

    /// The value, and whether nothing of the payload is left over. Who stops early, for instance
    /// because what comes next is of an unknown type, leaves something over.
    pub(crate) fn read_front<T: DeserializeOwned>(&self) -> Result<(T, bool), EnvelopeError> {
        let serializer = self.serializer.ok_or(EnvelopeError::Empty)?;
        match self.compression {
            Compression::None => serializer.read(&self.payload),
            compression => serializer.read(&compression.decompress(&self.payload, self.raw_len)?),
        }
    }
}

impl fmt::Debug for Envelope {
    /// Shows the header and sizes, never the value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("header", &self.header)
            .field("serializer", &self.serializer)
            .field("compression", &self.compression)
            .field("payload_bytes", &self.payload.len())
            .field("raw_bytes", &self.raw_len)
            .finish()
    }
}
