//! Why a value cannot be sealed, or stored bytes cannot be opened.

use super::FORMAT_VERSION;

/// Why a value has no envelope, or an envelope cannot be read back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// Shorter than a header, or not as long as the header says.
    #[error("the envelope is cut short at {bytes} bytes")]
    Truncated {
        /// Bytes present.
        bytes: usize,
    },
    /// The first bytes are not an envelope's: another program wrote under this key.
    #[error("the bytes are not an envelope")]
    Foreign,
    /// Written by another version of this library.
    #[error("envelope version {version} is unknown, this build reads 1 to {FORMAT_VERSION}")]
    UnknownVersion {
        /// The version found.
        version: u8,
    },
    /// Uses a serializer, compression, protection or flag that this build does not have.
    #[error("the envelope uses an unknown {feature} ({value})")]
    UnknownFeature {
        /// Which header field.
        feature: &'static str,
        /// Its value.
        value: u8,
    },
    /// A bit changed since the value was written.
    #[error("the checksum does not match")]
    Checksum,
    /// The value was stored under another key.
    #[error("the envelope belongs to another key")]
    WrongKey,
    /// The envelope carries no signature where one is required.
    #[error("the envelope is not protected, as this cache requires")]
    Unprotected,
    /// Protected with a key that this codec was not given.
    #[error("the envelope was protected with key {id}, which is not known here")]
    UnknownKey {
        /// The id of the key.
        id: u32,
    },
    /// Changed since it was written, or protected with another secret under the same key id.
    #[error("the envelope is not authentic")]
    Unauthentic,
    /// Larger than a codec takes.
    #[error("the value has {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// Length of the serialized value.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The payload cannot be decompressed to what the header says.
    #[error("the payload cannot be decompressed")]
    Compression,
    /// There is a header and no value.
    #[error("the envelope holds no value")]
    Empty,
    /// The payload is not what the reader asked for.
    #[error("the payload cannot be deserialized")]
    Payload,
    /// The value would not be read back as it is.
    #[error("the value has no faithful form in {serializer}")]
    Unfaithful {
        /// The serializer.
        serializer: &'static str,
    },
    /// More marks than an envelope holds.
    #[error("the value depends on {marks} marks, an envelope holds 65535")]
    TooManyMarks {
        /// How many were given.
        marks: usize,
    },
    /// The operating system gave no random numbers.
    #[error("no random numbers to encrypt with")]
    Randomness,
}

impl EnvelopeError {
    /// The stable name used in metrics.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Truncated { .. } => "truncated",
            Self::Foreign => "foreign",
            Self::UnknownVersion { .. } => "unknown_version",
            Self::UnknownFeature { .. } => "unknown_feature",
            Self::Checksum => "checksum",
            Self::WrongKey => "wrong_key",
            Self::Unprotected => "unprotected",
            Self::UnknownKey { .. } => "unknown_key",
            Self::Unauthentic => "unauthentic",
            Self::TooLarge { .. } => "too_large",
            Self::Compression => "compression",
            Self::Empty => "empty",
            Self::Payload => "payload",
            Self::Unfaithful { .. } => "unfaithful",
            Self::TooManyMarks { .. } => "too_many_marks",
            Self::Randomness => "randomness",
        }
    }
}
