//! How values become bytes: a versioned envelope, proven whole, around a serialized payload.
//!
//! A [`Codec`] seals a value with a [`Header`] for one key, and opens what it finds stored under that
//! key. Nothing is trusted on the way back: an envelope of an unknown version, for another key, or with
//! a flipped bit is a named [`EnvelopeError`], which the engine records as a miss.
//!
//! Always true: nothing is deserialized before the envelope is proven whole; what is read is what was
//! stored, or an error; no value and no secret shows in an error or in `Debug`.
//!
//! ```
//! use askonce::clock::Timestamp;
//! use askonce::codec::{Codec, Header};
//!
//! # fn main() -> Result<(), askonce::codec::EnvelopeError> {
//! let (codec, key) = (Codec::default(), [7; 32]);
//! let header = Header { created: Timestamp::from_millis(1_000), ..Header::default() };
//! let stored = codec.seal(&key, &header, &"answer")?;
//!
//! let envelope = codec.open(&key, &stored)?;
//! assert_eq!(envelope.header, header);
//! assert_eq!(envelope.read::<String>()?, "answer");
//! # Ok(())
//! # }
//! ```

mod compression;
mod config;
mod envelope;
mod error;
mod faithful;
mod header;
mod protection;
mod seal;
mod secret;
mod serializer;
mod wire;

pub use compression::Compression;
pub use config::{CodecConfig, CompressionConfig, KeyConfig, ProtectionConfig, ProtectionKind};
pub use envelope::Envelope;
pub use error::EnvelopeError;
pub use header::{Header, Mark};
pub use seal::Codec;
pub use secret::Secret;
pub use serializer::Serializer;
pub use wire::{FORMAT_VERSION, HEADER_BYTES};

#[cfg(test)]
mod tests;
