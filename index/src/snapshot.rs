//! The bytes of an index at rest.
//!
//! A snapshot begins with a header. All numbers are little-endian:
//!
//! | bytes | content |
//! |---|---|
//! | 8 | magic, `ASKINDEX` |
//! | 2 | format version: 1 and 2 of rows, 3 of cells |
//! | 1 | engine that wrote it: 1 flat, 2 hnsw_rs, 3 auto, 4 binary, 5 faiss |
//! | 1 | bits of a component in cells; zero for rows |
//! | 4 | dimension |
//! | 8 | rows |
//! | 4 | CRC-32 of the 24 bytes above |
//!
//! Most engines write rows and not their structure, so a change of the graph code cannot make old
//! files unreadable:
//!
//! | bytes | content |
//! |---|---|
//! | rows × (12 + 4 × dimension) | id, expiry and components of each row, at unit length |
//! | 4 | CRC-32 of everything above, header included |
//!
//! The expiry is in seconds since the UNIX epoch, 0 for none. Rows of version 1 have none; such
//! files are still read. The binary index writes its cells, which [`crate::binary::file`] tells
//! of. Every engine restores from both: rows are read out of cells.
//!
//! Reading trusts nothing: buffers grow with the bytes that arrive and not with what the header
//! announces, and each row is checked as an insert would be. Bytes after the last checksum are left
//! to the caller. Checksums find damage, not forgery.

use std::io::{self, ErrorKind, Read, Write};

use crc32fast::Hasher;

use crate::binary::file::Image;
use crate::error::SnapshotFault;
use crate::rows::{MAX_ROWS, Rows};
use crate::vector::{MAX_DIMENSION, is_unit_row};
use crate::{Expiry, IndexError, IndexKind, RowId};

const MAGIC: [u8; 8] = *b"ASKINDEX";
/// The format of rows.
const ROWS: u16 = 2;
/// The format whose rows have no expiry.
const WITHOUT_EXPIRY: u16 = 1;
/// The format of cells, and the newest.
pub(crate) const CELLS: u16 = 3;
/// Bytes of a header without its checksum.
const SUMMED: usize = 24;
/// Bytes of a header.
pub(crate) const HEADER: usize = SUMMED + 4;

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

/// What a snapshot begins with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) version: u16,
    pub(crate) engine: Engine,
    /// Bits of a component in cells.
    pub(crate) bits: u8,
    pub(crate) dimension: usize,
    pub(crate) rows: usize,
}

impl Header {
    pub(crate) fn to_bytes(self) -> Result<[u8; HEADER], IndexError> {
        let dimension = u32::try_from(self.dimension)
            .map_err(|_| inconsistent("the dimension is one that an index can have"))?;
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&self.version.to_le_bytes());
        bytes[10] = self.engine as u8;
        bytes[11] = self.bits;
        bytes[12..16].copy_from_slice(&dimension.to_le_bytes());
        bytes[16..SUMMED].copy_from_slice(&(self.rows as u64).to_le_bytes());
        let sum = crc32fast::hash(&bytes[..SUMMED]);
        bytes[SUMMED..].copy_from_slice(&sum.to_le_bytes());
        Ok(bytes)
    }

    pub(crate) fn of_bytes(bytes: &[u8; HEADER]) -> Result<Self, IndexError> {
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
            bits,
            d0,
            d1,
            d2,
            d3,
            r0,
            r1,
            r2,
            r3,
            r4,
            r5,
            r6,
            r7,
            sum @ ..,
        ] = *bytes;
        if [m0, m1, m2, m3, m4, m5, m6, m7] != MAGIC {
            return Err(SnapshotFault::BadMagic.into());
        }
        let version = u16::from_le_bytes([v0, v1]);
        if !(WITHOUT_EXPIRY..=CELLS).contains(&version) {
            let fault = SnapshotFault::UnknownVersion {
                found: version,
                newest: CELLS,
            };
            return Err(fault.into());
        }
        if u32::from_le_bytes(sum) != crc32fast::hash(&bytes[..SUMMED]) {
            return Err(SnapshotFault::ChecksumMismatch.into());
        }
        let engine = Engine::from_tag(tag).ok_or(SnapshotFault::UnknownEngine { found: tag })?;
        if version != CELLS && bits != 0 {
            return Err(inconsistent("the reserved byte is zero"));
        }
        let dimension = usize::try_from(u32::from_le_bytes([d0, d1, d2, d3]));
        let dimension = dimension.unwrap_or(usize::MAX);
        if !(1..=MAX_DIMENSION).contains(&dimension) {
            return Err(inconsistent("the dimension is one that an index can have"));
        }
        let rows = u64::from_le_bytes([r0, r1, r2, r3, r4, r5, r6, r7]);
        let rows = usize::try_from(rows).unwrap_or(usize::MAX);
        if rows > MAX_ROWS {
            return Err(inconsistent(
                "there are no more rows than an index can hold",
            ));
        }
        Ok(Self {
            version,
            engine,
            bits,
            dimension,
            rows,
        })
    }
}

/// What a snapshot holds.
#[derive(Debug)]
pub(crate) enum Content {
    Rows(Rows),
    /// The cells of a binary index.
    Cells(Image),
}

/// Writes a snapshot of the rows, then flushes `out`.
pub(crate) fn write(engine: Engine, rows: &Rows, out: &mut dyn Write) -> Result<(), IndexError> {
    let header = Header {
        version: ROWS,
        engine,
        bits: 0,
        dimension: rows.dimension(),
        rows: rows.len(),
    };
    let mut out = Checked::new(out);
    out.put(&header.to_bytes()?)?;
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

/// Reads a snapshot as rows, whatever it holds, and not a byte more.
pub(crate) fn read(reader: &mut dyn Read) -> Result<(Engine, Rows), IndexError> {
    let (engine, content) = open(reader)?;
    let rows = match content {
        Content::Rows(rows) => rows,
        Content::Cells(image) => image.into_rows()?,
    };
    Ok((engine, rows))
}

/// Reads a snapshot as it was written, and not a byte more.
pub(crate) fn open(reader: &mut dyn Read) -> Result<(Engine, Content), IndexError> {
    let mut checked = Checked::new(reader);
    let mut bytes = [0; HEADER];
    checked.get(&mut bytes)?;
    let header = Header::of_bytes(&bytes)?;
    let content = if header.version == CELLS {
        Content::Cells(Image::read(header, checked.inner)?)
    } else {
        Content::Rows(read_rows(header, checked)?)
    };
    Ok((header.engine, content))
}

fn read_rows(
    header: Header,
    mut reader: Checked<&mut (dyn Read + '_)>,
) -> Result<Rows, IndexError> {
    let mut rows = Rows::new(header.dimension);
    let mut bytes = vec![0; 4 * header.dimension];
    let mut vector = vec![0.0f32; header.dimension];
    for _ in 0..header.rows {
        let (mut id, mut expiry) = ([0; 8], [0; 4]);
        reader.get(&mut id)?;
        if header.version > WITHOUT_EXPIRY {
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
    Ok(rows)
}

pub(crate) fn inconsistent(rule: &'static str) -> IndexError {
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

impl Checked<&mut (dyn Write + '_)> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.update(bytes);
        self.inner.write_all(bytes)
    }

    fn put_checksum(&mut self) -> io::Result<()> {
        let sum = self.checksum();
        self.put(&sum.to_le_bytes())
    }
}

impl Checked<&mut (dyn Read + '_)> {
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
