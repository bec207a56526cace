//! What stands after the payload and proves the envelope whole.

use bytes::{BufMut, Bytes, BytesMut};
use xxhash_rust::xxh3::xxh3_64;

use super::EnvelopeError;
use super::wire::Parts;

/// The checksum of an unprotected envelope. It finds accidents, not attackers.
pub(super) const CHECKSUM: u8 = 0;

const CHECKSUM_BYTES: usize = 8;

/// Bytes after the payload for each kind of protection, if the kind is known.
pub(super) const fn trailer_bytes(protection: u8) -> Option<usize> {
    match protection {
        CHECKSUM => Some(CHECKSUM_BYTES),
        _ => None,
    }
}

/// Closes an envelope.
pub(super) fn close(out: &mut BytesMut) {
    let checksum = xxh3_64(out);
    out.put_u64_le(checksum);
}

/// Proves an envelope whole, and gives its payload.
pub(super) fn open(parts: &Parts<'_>) -> Result<Bytes, EnvelopeError> {
    if parts.trailer() != xxh3_64(parts.body()).to_le_bytes() {
        return Err(EnvelopeError::Checksum);
    }
    Ok(parts.payload())
}
