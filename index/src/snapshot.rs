//! The bytes of an index at rest.
//!
//! A snapshot holds rows and not a structure, so every engine restores from the snapshot of every
//! other, and a change of the graph code cannot make old files unreadable. All numbers are
//! little-endian:
//!
//! | bytes | content |
//! |---|---|
//! | 8 | magic, `ASKINDEX` |
//! | 2 | format version, now 2 |
//! | 1 | engine that wrote it: 1 flat, 2 hnsw_rs, 3 auto, 4 binary, 5 faiss |
//! | 1 | zero |
//! | 4 | dimension |
//! | 8 | rows |
//! | 4 | CRC-32 of the 24 bytes above |
//! | rows × (12 + 4 × dimension) | id, expiry and components of each row, at unit length |
//! | 4 | CRC-32 of everything above |
//!
//! The expiry is in seconds since the UNIX epoch, 0 for none. Rows of version 1 have none; such
//! files are still read.
//!
//! Reading trusts nothing: buffers grow with the bytes that arrive and not with what the header
//! announces, and each row is checked as an insert would be. Bytes after the last checksum are left
//! to the caller. Checksums find damage, not forgery.

use std::io::{self, ErrorKind, Read, Write};

use crc32fast::Hasher;

use crate::error::SnapshotFault;
use crate::rows::{MAX_ROWS, Rows};
use crate::vector::{MAX_DIMENSION, is_unit_row};
use crate::{Expiry, IndexError, IndexKind, RowId};

const MAGIC: [u8; 8] = *b"ASKINDEX";
const VERSION: u16 = 2;
/// The format whose rows have no expiry.
const WITHOUT_EXPIRY: u16 = 1;
const HEADER: usize = 24;

/// The engine that wrote a snapshot, and the one that [`crate::restore`] makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Flat = 1,
    Hnsw = 2,
    Auto = 3,
    Binary = 4,
    Faiss = 5,
}

impl Engine {
    fn from_tag(tag: u8) -> Option<Self> {
        [
            Self::Flat,
            Self::Hnsw,
            Self::Auto,
            Self::Binary,
            Self::Faiss,
        ]
        .into_iter()
        .find(|&engine| engine as u8 == tag)
    }

    pub(crate) fn kind(self) -> IndexKind {
        match self {
            Self::Flat => IndexKind::Flat,
            Self::Hnsw => IndexKind::HnswRs,
            Self::Auto => IndexKind::Auto,
            Self::Binary => IndexKind::Binary,
            Self::Faiss => IndexKind::Faiss,
        }
    }
}

/// Writes a snapshot of the rows, then flushes `out`.
pub(crate) fn write(engine: Engine, rows: &Rows, out: &mut dyn Write) -> Result<(), IndexError> {
    let dimension = u32::try_from(rows.dimension())
        .map_err(|_| inconsistent("the dimension is one that an index can have"))?;
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&MAGIC);
    header[8..10].copy_from_slice(&VERSION.to_le_bytes());
    header[10] = engine as u8;
    header[12..16].copy_from_slice(&dimension.to_le_bytes());
    header[16..].copy_from_slice(&(rows.len() as u64).to_le_bytes());

    let mut out = Checked::new(out);
    out.put(&header)?;
    out.put_checksum()?;
    let mut bytes = Vec::with_capacity(12 + 4 * rows.dimension());
    for row in rows.iter() {
        bytes.clear();
        bytes.extend_from_slice(&row.id.0.to_le_bytes());
        bytes.extend_from_slice(&row.expires.0.to_le_bytes());
        for component in row.vector {
            bytes.extend_from_slice(&component.to_le_bytes());
        }
        out.put(&bytes)?;
    }
    out.put_checksum()?;
    out.inner.flush()?;
    Ok(())
}

/// Reads what [`write`] wrote, and not a byte more.
pub(crate) fn read(reader: &mut dyn Read) -> Result<(Engine, Rows), IndexError> {
    let mut reader = Checked::new(reader);
    let mut header = [0; HEADER];
    reader.get(&mut header)?;
    let [
        m0,
        m1,
        m2,
        m3,
        m4,
        m5,
        m6,
        m7,
        v0,
        v1,
        tag,
        zero,
        d0,
        d1,
        d2,
        d3,
        count @ ..,
    ] = header;
    if [m0, m1, m2, m3, m4, m5, m6, m7] != MAGIC {
        return Err(SnapshotFault::BadMagic.into());
    }
    let version = u16::from_le_bytes([v0, v1]);
    if !(WITHOUT_EXPIRY..=VERSION).contains(&version) {
        let fault = SnapshotFault::UnknownVersion {
            found: version,
            newest: VERSION,
        };
        return Err(fault.into());
    }
    reader.check_checksum()?;
    let engine = Engine::from_tag(tag).ok_or(SnapshotFault::UnknownEngine { found: tag })?;
    if zero != 0 {
        return Err(inconsistent("the reserved byte is zero"));
    }
    let dimension = usize::try_from(u32::from_le_bytes([d0, d1, d2, d3])).unwrap_or(usize::MAX);
    if !(1..=MAX_DIMENSION).contains(&dimension) {
        return Err(inconsistent("the dimension is one that an index can have"));
    }
    let count = usize::try_from(u64::from_le_bytes(count)).unwrap_or(usize::MAX);
    if count > MAX_ROWS {
        return Err(inconsistent(
            "there are no more rows than an index can hold",
        ));
    }

    let mut rows = Rows::new(dimension);
    let mut bytes = vec![0; 4 * dimension];
    let mut vector = vec![0.0f32; dimension];
    for _ in 0..count {
        let (mut id, mut expiry) = ([0; 8], [0; 4]);
        reader.get(&mut id)?;
        if version > WITHOUT_EXPIRY {
            reader.get(&mut expiry)?;
        }
        reader.get(&mut bytes)?;
        for (component, bytes) in vector.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *component = f32::from_le_bytes(*bytes);
        }
        let expires = Expiry(u32::from_le_bytes(expiry));
        rows.push(RowId(u64::from_le_bytes(id)), &vector, expires)?;
    }
    // Damage is told as damage, so the rules of the content are looked at last.
    reader.check_checksum()?;
    for slot in 0..rows.len() {
        // A row with a NaN or an infinity is not of unit length either.
        if !is_unit_row(rows.vector(slot)) {
            return Err(inconsistent("each row has unit length"));
        }
        if rows.slot(rows.id(slot)) != Some(slot) {
            return Err(inconsistent("each id occurs once"));
        }
    }
    Ok((engine, rows))
}

fn inconsistent(rule: &'static str) -> IndexError {
    SnapshotFault::Inconsistent { rule }.into()
}

/// A reader or writer that keeps the checksum of all that went through.
struct Checked<T> {
    inner: T,
    sum: Hasher,
}

impl<T> Checked<T> {
    fn new(inner: T) -> Self {
        Self {
            inner,
            sum: Hasher::new(),
        }
    }

    fn checksum(&self) -> u32 {
        self.sum.clone().finalize()
    }
}

impl Checked<&mut dyn Write> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.update(bytes);
        self.inner.write_all(bytes)
    }

    fn put_checksum(&mut self) -> io::Result<()> {
        let sum = self.checksum();
        self.put(&sum.to_le_bytes())
    }
}

impl Checked<&mut dyn Read> {
    fn get(&mut self, bytes: &mut [u8]) -> Result<(), IndexError> {
        self.inner
            .read_exact(bytes)
            .map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => SnapshotFault::Truncated.into(),
                _ => IndexError::from(error),
            })?;
        self.sum.update(bytes);
        Ok(())
    }

    fn check_checksum(&mut self) -> Result<(), IndexError> {
        let expected = self.checksum();
        let mut found = [0; 4];
        self.get(&mut found)?;
        if u32::from_le_bytes(found) == expected {
            Ok(())
        } else {
            Err(SnapshotFault::ChecksumMismatch.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A flat index of the row 7, (0.6, 0.8), as version 1 wrote it.
    const FIRST_VERSION: [u8; 48] = [
        0x41, 0x53, 0x4b, 0x49, 0x4e, 0x44, 0x45, 0x58, 0x01, 0x00, 0x01, 0x00, 0x02, 0x00, 0x00,
        0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xa0, 0xda, 0x3f, 0x1b, 0x07, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x9a, 0x99, 0x19, 0x3f, 0xcd, 0xcc, 0x4c, 0x3f, 0xe1,
        0xf0, 0xac, 0xc7,
    ];

    #[test]
    fn a_snapshot_of_the_first_version_is_read_and_its_rows_never_expire() {
        let (engine, rows) = read(&mut FIRST_VERSION.as_slice()).unwrap();
        assert_eq!(engine, Engine::Flat);
        let rows: Vec<_> = rows
            .iter()
            .map(|row| (row.id, row.vector.to_vec(), row.expires))
            .collect();
        assert_eq!(rows, [(RowId(7), vec![0.6, 0.8], Expiry::NEVER)]);
    }
}
