//! The bytes of an envelope, as they are written today and as they were before.
//!
//! Version 2:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `AKO1` |
//! | 4 | 1 | format version |
//! | 5 | 1 | serializer of the payload (0: there is no value) |
//! | 6 | 1 | compression of the payload (0: none) |
//! | 7 | 1 | protection (0: a checksum) |
//! | 8 | 1 | flags: 1 expires, 2 may be served stale, 4 leased; another is an unknown feature |
//! | 9 | 1 | zero |
//! | 10 | 2 | number of marks |
//! | 12 | 4 | id of the key that protects it (0: none) |
//! | 16 | 8 | created, milliseconds since the Unix epoch |
//! | 24 | 8 | fresh until, the same |
//! | 32 | 8 | stale until, the same |
//! | 40 | 8 | generation |
//! | 48 | 8 | lease token |
//! | 56 | 8 | load time in milliseconds |
//! | 64 | 8 | payload length before compression |
//! | 72 | 8 | payload length as stored |
//! | 80 | 32 | digest of the key that the value was stored under |
//! | 112 | 24 each | marks: id (16), generation (8) |
//! | | | payload |
//! | | 8, 32 or 28 | XXH3-64 or BLAKE3 of all before; or nonce (12) and tag (16) |
//!
//! Version 1 had no protection, compression, marks, staleness, lease and load time; its checksum stood
//! in its header of 80 bytes. It is read, not written.
//!
//! Integers are little-endian. Every reader refuses what it does not know by name.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use xxhash_rust::xxh3::Xxh3Default;

use super::{EnvelopeError, Header, Mark};
use crate::clock::Timestamp;

/// The version that this build writes; it reads older ones too.
pub const FORMAT_VERSION: u8 = 2;
/// Bytes before marks and payload.
pub const HEADER_BYTES: usize = 112;

const MAGIC: [u8; 4] = *b"AKO1";
const MARK_BYTES: usize = 24;

const EXPIRES: u8 = 1;
const STALE: u8 = 2;
const LEASED: u8 = 4;

/// The fields of an envelope that say how to read the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) serializer: u8,
    pub(super) compression: u8,
    pub(super) protection: u8,
    pub(super) key_id: u32,
    /// Payload length before compression.
    pub(super) raw_len: u64,
}

/// Starts an envelope: all that stands before the payload.
pub(super) fn start(
    out: &mut BytesMut,
    key: &[u8; 32],
    header: &Header,
    form: Form,
) -> Result<(), EnvelopeError> {
    let marks = u16::try_from(header.marks.len()).map_err(|_| EnvelopeError::TooManyMarks {
        marks: header.marks.len(),
    })?;
    let mut flags = 0;
    for (flag, set) in [
        (EXPIRES, header.expires.is_some()),
        (STALE, header.stale_until.is_some()),
        (LEASED, header.lease.is_some()),
    ] {
        if set {
            flags |= flag;
        }
    }
    out.put_slice(&MAGIC);
    out.put_slice(&[
        FORMAT_VERSION,
        form.serializer,
        form.compression,
        form.protection,
        flags,
        0,
    ]);
    out.put_u16_le(marks);
    out.put_u32_le(form.key_id);
    let millis = |time: Option<Timestamp>| time.map_or(0, Timestamp::as_millis);
    out.put_u64_le(header.created.as_millis());
    out.put_u64_le(millis(header.expires));
    out.put_u64_le(millis(header.stale_until));
    out.put_u64_le(header.generation);
    out.put_u64_le(header.lease.unwrap_or_default());
    out.put_u64_le(u64::try_from(header.load_time.as_millis()).unwrap_or(u64::MAX));
    out.put_u64_le(form.raw_len);
    out.put_u64_le(0);
    out.put_slice(key);
    for mark in &header.marks {
        out.put_slice(&mark.id);
        out.put_u64_le(mark.generation);
    }
    Ok(())
}

/// Writes into a started envelope what became known of its payload: all that follows `at`.
pub(super) fn complete(out: &mut BytesMut, at: usize, form: Form) {
    let stored_len = (out.len() - at) as u64;
    out[6] = form.compression;
    out[64..72].copy_from_slice(&form.raw_len.to_le_bytes());
    out[72..80].copy_from_slice(&stored_len.to_le_bytes());
}

/// The version of an envelope.
pub(super) fn version(bytes: &[u8]) -> Result<u8, EnvelopeError> {
    let (magic, rest) = bytes.split_at(bytes.len().min(MAGIC.len()));
    match rest.first() {
        _ if !MAGIC.starts_with(magic) => Err(EnvelopeError::Foreign),
        Some(&version) => Ok(version),
        None => Err(EnvelopeError::Truncated { bytes: bytes.len() }),
    }
}

/// The digest of the key that an envelope says it was stored under.
pub(super) fn key_of(bytes: &[u8]) -> Result<[u8; 32], EnvelopeError> {
    let at = match version(bytes)? {
        1 => 32,
        _ => 80,
    };
    let rest = bytes.get(at..).and_then(|rest| rest.first_chunk());
    rest.copied()
        .ok_or(EnvelopeError::Truncated { bytes: bytes.len() })
}

/// An envelope of version 2 whose lengths are right, and of which nothing else is known yet.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    bytes: &'a Bytes,
    fixed: &'a [u8; HEADER_BYTES],
    pub(super) form: Form,
    payload_at: usize,
    payload_end: usize,
}

impl<'a> Parts<'a> {
    /// Finds the parts; `trailer` tells the bytes after the payload by the kind of protection, if that
    /// is known.
    pub(super) fn find(
        bytes: &'a Bytes,
        trailer: impl FnOnce(u8) -> Option<usize>,
    ) -> Result<Self, EnvelopeError> {
        let truncated = || EnvelopeError::Truncated { bytes: bytes.len() };
        let fixed: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or_else(truncated)?;
        let form = Form {
            serializer: fixed[5],
            compression: fixed[6],
            protection: fixed[7],
            key_id: u32::from_le_bytes(array(fixed, 12)),
            raw_len: u64_at(fixed, 64),
        };
        let trailer = trailer(form.protection).ok_or(EnvelopeError::UnknownFeature {
            feature: "protection",
            value: form.protection,
        })?;
        let marks = usize::from(u16::from_le_bytes(array(fixed, 10)));
        let payload_at = HEADER_BYTES + marks * MARK_BYTES;
        let payload_end = usize::try_from(u64_at(fixed, 72))
            .ok()
            .and_then(|len| payload_at.checked_add(len))
            .ok_or_else(truncated)?;
        if payload_end.checked_add(trailer) != Some(bytes.len()) {
            return Err(truncated());
        }
        Ok(Self {
            bytes,
            fixed,
            form,
            payload_at,
            payload_end,
        })
    }

    /// All before the payload.
    #[cfg(feature = "encryption")]
    pub(super) fn head(&self) -> &'a [u8] {
        &self.bytes[..self.payload_at]
    }

    /// All before the trailer.
    pub(super) fn body(&self) -> &'a [u8] {
        &self.bytes[..self.payload_end]
    }

    /// All after the payload.
    pub(super) fn trailer(&self) -> &'a [u8] {
        &self.bytes[self.payload_end..]
    }

    /// The payload as stored. It shares the envelope's memory.
    pub(super) fn payload(&self) -> Bytes {
        self.bytes.slice(self.payload_at..self.payload_end)
    }

    /// The header, once the envelope is known to be intact.
    pub(super) fn header(&self, key: &[u8; 32]) -> Result<Header, EnvelopeError> {
        let flags = self.fixed[8];
        if flags & !(EXPIRES | STALE | LEASED) != 0 || self.fixed[9] != 0 {
            return Err(EnvelopeError::UnknownFeature {
                feature: "flag",
                value: if self.fixed[9] == 0 {
                    flags
                } else {
                    self.fixed[9]
                },
            });
        }
        if self.fixed[80..HEADER_BYTES] != *key {
            return Err(EnvelopeError::WrongKey);
        }
        let word = |at| u64_at(self.fixed, at);
        let given = |flag, at| (flags & flag != 0).then(|| word(at));
        let marks = self.bytes[HEADER_BYTES..self.payload_at].chunks_exact(MARK_BYTES);
        let mark = |mark: &[u8]| Mark {
            id: array(mark, 0),
            generation: u64_at(mark, 16),
        };
        Ok(Header {
            created: Timestamp::from_millis(word(16)),
            expires: given(EXPIRES, 24).map(Timestamp::from_millis),
            stale_until: given(STALE, 32).map(Timestamp::from_millis),
            generation: word(40),
            load_time: Duration::from_millis(word(56)),
            lease: given(LEASED, 48),
            marks: marks.map(mark).collect(),
        })
    }
}

/// An envelope of version 1, checked: its header and its payload, which is uncompressed MessagePack.
pub(super) fn open_version_1(
    key: &[u8; 32],
    bytes: &Bytes,
) -> Result<(Header, Bytes), EnvelopeError> {
    const FIXED: usize = 80;
    const CHECKSUM_AT: usize = 72;
    const NEVER: u64 = u64::MAX;

    let truncated = || EnvelopeError::Truncated { bytes: bytes.len() };
    let fixed: &[u8; FIXED] = bytes.first_chunk().ok_or_else(truncated)?;
    if u64_at(fixed, 64) != (bytes.len() - FIXED) as u64 {
        return Err(truncated());
    }
    let mut checksum = Xxh3Default::new();
    checksum.update(&fixed[..CHECKSUM_AT]);
    checksum.update(&bytes[FIXED..]);
    if u64_at(fixed, CHECKSUM_AT) != checksum.digest() {
        return Err(EnvelopeError::Checksum);
    }
    for (feature, at, known) in [("serializer", 5, 1), ("compression", 6, 0), ("flag", 7, 0)] {
        if fixed[at] != known {
            return Err(EnvelopeError::UnknownFeature {
                feature,
                value: fixed[at],
            });
        }
    }
    if fixed[32..64] != *key {
        return Err(EnvelopeError::WrongKey);
    }
    let expires = u64_at(fixed, 16);
    let header = Header {
        created: Timestamp::from_millis(u64_at(fixed, 8)),
        expires: (expires != NEVER).then(|| Timestamp::from_millis(expires)),
        generation: u64_at(fixed, 24),
        ..Header::default()
    };
    Ok((header, bytes.slice(FIXED..)))
}

/// The bytes from `at` on. The caller knows that they are there.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}
