//! The cells of an index at rest: the third format of [`crate::snapshot`].
//!
//! What is read is what was written: the same cells, codes and rows, so the same answers, bit for
//! bit. Nothing is encoded or trained anew. The file is a row of sections, each a multiple of 64
//! bytes long, whose columns lie as they do in memory; so a file that is mapped is searched in
//! place (see [`disk`] for how files are put in place). All numbers are little-endian:
//!
//! | bytes | content |
//! |---|---|
//! | 28 | the header of every snapshot |
//! | 4 | cells |
//! | 8 | seed that names the rotation of the vectors |
//! | 4 + 4 | spread and reach that audits taught, `f32` |
//! | 4 | cells to look into at most, as audits taught; 0 if they did not |
//! | 8 | zero |
//! | 4 | CRC-32 of the 32 bytes above |
//!
//! the directory, of all cells:
//!
//! | bytes | content |
//! |---|---|
//! | cells × 12 | rows of the cell; what a component of its center is worth and the center's length, `f32` |
//! | 0 to 63 | zero, up to a multiple of 64 |
//! | cells × width | components of each center, one byte each |
//! | 60 + 4 | zero; CRC-32 of the directory |
//!
//! and each cell, with its live rows:
//!
//! | bytes | content |
//! |---|---|
//! | ⌈rows / 8⌉ × width | codes in blocks of eight rows: the first 64 bits of each, the next 64 bits of each, and so on |
//! | rows × width | the high 8 bits of each component |
//! | rows × width | the low 8 bits, if there are 16 |
//! | rows × 20 | id (8), factor, spread (`f32`), expiry (seconds since the UNIX epoch, 0 for none) |
//! | 0 to 63, and 4 | zero; CRC-32 of the cell |
//!
//! The width is the dimension, rounded up to a multiple of 64. A checksum includes the zeros before
//! it, so every byte of a file counts. The id map and the table of twins are made anew, as their
//! hashes are of one process.
//!
//! Reading trusts nothing: buffers grow with the bytes that arrive, and no value of any field leads
//! a search outside its memory.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use super::cell::{Appender, BLOCK, Columns, META_BYTES, Meta, StillCell};
use super::config::{Precision, Verify};
use super::directory::{Center, Directory};
use super::encode::Encoder;
use super::room::{Map, Plain, Room};
use super::rotate::SEED;
use super::tuning::Learned;
use crate::IndexError;
use crate::error::SnapshotFault;
use crate::kernel::{CodeLine, LANES, RowLine};
use crate::rows::Rows;
use crate::snapshot::{self, CELLS, Content, Engine, HEADER, Header, inconsistent};
use crate::vector::with_unit;

mod disk;

pub(crate) use disk::replace;

/// Sections and columns begin at multiples of it.
const ALIGNED: usize = 64;
const CHECKSUM: usize = 4;
/// Bytes between the header of a snapshot and the directory.
const PREFACE: usize = ALIGNED - HEADER;
/// Bytes of a cell in the directory, without its center.
const ENTRY: usize = 12;

/// What the columns of a cell look like.
#[derive(Clone, Copy, Debug)]
struct Shape {
    lines: usize,
    two_planes: bool,
}

impl Shape {
    /// Bytes of the columns of so many rows: codes, one plane, what is kept beside them.
    fn columns(self, rows: usize) -> Option<(usize, usize, usize)> {
        let width = self.lines.checked_mul(ALIGNED)?;
        Some((
            rows.div_ceil(BLOCK).checked_mul(width)?,
            rows.checked_mul(width)?,
            rows.checked_mul(META_BYTES)?,
        ))
    }

    /// Bytes of the section of a cell.
    fn cell(self, rows: usize) -> Option<usize> {
        let (codes, plane, metas) = self.columns(rows)?;
        let planes = plane.checked_mul(if self.two_planes { 2 } else { 1 })?;
        let content = codes.checked_add(planes)?.checked_add(metas)?;
        content
            .checked_add(CHECKSUM)?
            .checked_next_multiple_of(ALIGNED)
    }

    /// Bytes of the section of the directory.
    fn directory(self, cells: usize) -> Option<usize> {
        let entries = cells
            .checked_mul(ENTRY)?
            .checked_next_multiple_of(ALIGNED)?;
        let centers = cells.checked_mul(self.lines)?.checked_mul(ALIGNED)?;
        entries.checked_add(centers)?.checked_add(ALIGNED)
    }
}

/// An index at one moment. It holds on to the cells of then and to no lock.
pub(super) struct Still {
    pub(super) dimension: usize,
    pub(crate) precision: Precision,
    pub(super) learned: Learned,
    pub(super) directory: Arc<Directory>,
    /// Of each cell of the directory.
    pub(super) cells: Vec<StillCell>,
}

impl Still {
    /// Writes the snapshot cell by cell, then flushes `out`.
    pub(super) fn write(&self, engine: Engine, out: &mut dyn Write) -> Result<(), IndexError> {
        let header = Header {
            version: CELLS,
            engine,
            bits: self.precision.bits(),
            dimension: self.dimension,
            rows: self.cells.iter().map(StillCell::len).sum(),
        };
        let mut bytes = header.to_bytes()?.to_vec();
        bytes.extend_from_slice(&number(self.cells.len())?.to_le_bytes());
        bytes.extend_from_slice(&SEED.to_le_bytes());
        bytes.extend_from_slice(&self.learned.spread.to_le_bytes());
        bytes.extend_from_slice(&self.learned.reach.to_le_bytes());
        bytes.extend_from_slice(&self.learned.most.to_le_bytes());
        seal(&mut bytes, HEADER);
        out.write_all(&bytes)?;

        bytes.clear();
        for (cell, about) in self.cells.iter().zip(&self.directory.about) {
            bytes.extend_from_slice(&number(cell.len())?.to_le_bytes());
            bytes.extend_from_slice(&about.scale.to_le_bytes());
            bytes.extend_from_slice(&about.norm.to_le_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(ALIGNED), 0);
        put_lines(&mut bytes, &self.directory.centers);
        seal(&mut bytes, 0);
        out.write_all(&bytes)?;

        let mut tail = Vec::new();
        for cell in &self.cells {
            bytes.clear();
            cell.with_rows(|rows| {
                rows.tail(&mut tail);
                for line in rows.blocks().iter().chain(&tail) {
                    for word in line.0 {
                        bytes.extend_from_slice(&word.to_le_bytes());
                    }
                }
                put_lines(&mut bytes, rows.high());
                put_lines(&mut bytes, rows.low().unwrap_or_default());
                for meta in rows.metas() {
                    bytes.extend_from_slice(&meta.to_bytes());
                }
            });
            seal(&mut bytes, 0);
            out.write_all(&bytes)?;
        }
        out.flush()?;
        Ok(())
    }
}

fn put_lines(bytes: &mut Vec<u8>, lines: &[RowLine]) {
    bytes.reserve(lines.len() * ALIGNED);
    for line in lines {
        bytes.extend_from_slice(&line.0.map(i8::cast_unsigned));
    }
}

/// Ends a section that began at `start`.
fn seal(bytes: &mut Vec<u8>, start: usize) {
    let end = (bytes.len() + CHECKSUM).next_multiple_of(ALIGNED) - CHECKSUM;
    bytes.resize(end, 0);
    let sum = crc32fast::hash(&bytes[start..]);
    bytes.extend_from_slice(&sum.to_le_bytes());
}

/// A number of rows or cells as it is written.
fn number(count: usize) -> Result<u32, IndexError> {
    u32::try_from(count).map_err(|_| inconsistent("there are no more rows than an index can hold"))
}

/// The cells of a snapshot, in memory of their own or in a map.
#[derive(Debug)]
pub(crate) struct Image {
    pub(super) dimension: usize,
    pub(crate) precision: Precision,
    pub(super) learned: Learned,
    pub(super) about: Vec<Center>,
    pub(super) centers: Vec<RowLine>,
    pub(super) cells: Vec<Appender>,
}

impl Image {
    /// Reads what follows the header, and not a byte more.
    pub(crate) fn read(header: Header, reader: &mut dyn Read) -> Result<Self, IndexError> {
        let buffer = Vec::new();
        Self::from(header, &mut Source::Stream { reader, buffer }, true)
    }

    /// Maps a file, whose rows must be of this precision.
    pub(super) fn open(
        path: &Path,
        precision: Precision,
        verify: Verify,
    ) -> Result<Self, IndexError> {
        let (header, map) = mapped(path, verify)?;
        if header.version != CELLS {
            return Err(SnapshotFault::NoCells.into());
        }
        if header.bits != precision.bits() && Precision::of_bits(header.bits).is_some() {
            let fault = SnapshotFault::OtherPrecision {
                found: header.bits,
                expected: precision.bits(),
            };
            return Err(fault.into());
        }
        Self::in_map(header, map, verify == Verify::AtOpen)
    }

    fn in_map(header: Header, map: Arc<Map>, check: bool) -> Result<Self, IndexError> {
        let len = map.bytes().len();
        let mut source = Source::Map { map, at: HEADER };
        let image = Self::from(header, &mut source, check)?;
        match source {
            Source::Map { at, .. } if at != len => {
                Err(inconsistent("nothing follows the last cell"))
            }
            _ => Ok(image),
        }
    }

    /// `check` compares cells with their checksums; the rest always is.
    fn from(header: Header, source: &mut Source<'_>, check: bool) -> Result<Self, IndexError> {
        let mut preface = source.next(Some(PREFACE))?.unsealed(true)?;
        let cells = u32::from_le_bytes(preface.array()?) as usize;
        let seed = u64::from_le_bytes(preface.array()?);
        let spread = f32::from_le_bytes(preface.array()?);
        let reach = f32::from_le_bytes(preface.array()?);
        let most = u32::from_le_bytes(preface.array()?);
        let precision = Precision::of_bits(header.bits)
            .ok_or_else(|| inconsistent("a component has 8 or 16 bits"))?;
        if seed != SEED {
            return Err(inconsistent("vectors are rotated as this build does"));
        }
        let learned = 0.0..=20.0;
        if !learned.contains(&spread) || !learned.contains(&reach) {
            return Err(inconsistent("the spread and the reach are within 0 and 20"));
        }
        if cells == 0 {
            return Err(inconsistent("there is a cell"));
        }

        let shape = Shape {
            lines: header.dimension.div_ceil(ALIGNED),
            two_planes: precision == Precision::Int16,
        };
        let mut directory = source.next(shape.directory(cells))?.unsealed(true)?;
        let mut entries = directory.split((cells * ENTRY).next_multiple_of(ALIGNED))?;
        let mut counts = Vec::with_capacity(cells);
        let mut about = Vec::with_capacity(cells + 1);
        for _ in 0..cells {
            counts.push(u32::from_le_bytes(entries.array()?) as usize);
            let scale = f32::from_le_bytes(entries.array()?);
            let norm = f32::from_le_bytes(entries.array()?);
            about.push(Center::new(scale, norm));
        }
        if !about
            .iter()
            .all(|c| is_finite(c.scale) && is_finite(c.norm))
        {
            return Err(inconsistent("each center has a length"));
        }
        if counts.iter().sum::<usize>() != header.rows {
            return Err(inconsistent("the cells hold the rows that are announced"));
        }
        let mut centers = Vec::with_capacity((cells + 1) * shape.lines);
        let lines = directory.split(cells * shape.lines * ALIGNED)?.bytes;
        centers.extend(lines.as_chunks().0.iter().map(row_line));

        let mut appenders = Vec::with_capacity(cells);
        for rows in counts {
            let section = source.next(shape.cell(rows))?.unsealed(check)?;
            appenders.push(cell_of(section, shape, rows)?);
        }
        Ok(Self {
            dimension: header.dimension,
            precision,
            learned: Learned {
                spread,
                reach,
                most,
            },
            about,
            centers,
            cells: appenders,
        })
    }

    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    /// The rows, in the caller's components.
    pub(crate) fn into_rows(self) -> Result<Rows, IndexError> {
        let encoder = Encoder::new(self.dimension, self.precision);
        let mut rows = Rows::new(self.dimension);
        let mut vector = Vec::new();
        for cell in &self.cells {
            let cell = cell.cell().rows();
            rows.reserve(cell.len());
            for (position, meta) in cell.metas().iter().enumerate() {
                let (high, low) = (cell.high_of(position), cell.low_of(position));
                encoder.decode(high, low, &mut vector);
                encoder.unrotate(&mut vector);
                let push = |unit: &[f32]| rows.push(meta.id(), unit, meta.expires);
                with_unit(self.dimension, &vector, push).map_err(|error| match error {
                    full @ IndexError::Full { .. } => full,
                    _ => inconsistent("each row has a direction"),
                })?;
            }
        }
        for slot in 0..rows.len() {
            if rows.slot(rows.id(slot)) != Some(slot) {
                return Err(inconsistent("each id occurs once"));
            }
        }
        Ok(rows)
    }
}

/// What a file of any format holds: its cells in place, or its rows.
pub(crate) fn open(path: &Path) -> Result<Content, IndexError> {
    let (header, map) = mapped(path, Verify::AtOpen)?;
    if header.version == CELLS {
        return Image::in_map(header, map, true).map(Content::Cells);
    }
    let mut rest = map.bytes();
    let (_, content) = snapshot::open(&mut rest)?;
    if rest.is_empty() {
        Ok(content)
    } else {
        Err(inconsistent("nothing follows the last row"))
    }
}

fn mapped(path: &Path, verify: Verify) -> Result<(Header, Arc<Map>), IndexError> {
    let map = Map::of(&File::open(path)?, verify == Verify::AtOpen)?;
    Ok((header_of(map.bytes())?, Arc::new(map)))
}

/// Compares the bytes of a mapped file with their checksums, and its content with the rules.
pub(super) fn verify(map: &Arc<Map>) -> Result<(), IndexError> {
    let header = header_of(map.bytes())?;
    Image::in_map(header, Arc::clone(map), true).map(drop)
}

fn header_of(bytes: &[u8]) -> Result<Header, IndexError> {
    let header = bytes.first_chunk().ok_or(SnapshotFault::Truncated)?;
    Header::of_bytes(header)
}

fn is_finite(x: f32) -> bool {
    x >= 0.0 && x.is_finite()
}

fn row_line(bytes: &[u8; 64]) -> RowLine {
    RowLine(bytes.map(u8::cast_signed))
}

fn code_line(bytes: &[u8; 64]) -> CodeLine {
    let mut words = [0; LANES];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    CodeLine(words)
}

fn cell_of(mut section: Section<'_>, shape: Shape, rows: usize) -> Result<Appender, IndexError> {
    let short = || inconsistent("a cell is as long as its rows");
    let (codes, plane, metas) = shape.columns(rows).ok_or_else(short)?;
    let columns = Columns {
        codes: section.split(codes)?.column(code_line).ok_or_else(short)?,
        high: section.split(plane)?.column(row_line).ok_or_else(short)?,
        low: match shape.two_planes {
            true => Some(section.split(plane)?.column(row_line).ok_or_else(short)?),
            false => None,
        },
        metas: section
            .split(metas)?
            .column(Meta::of_bytes)
            .ok_or_else(short)?,
    };
    let cell = Appender::full(shape.lines, rows, columns).ok_or_else(short)?;
    let metas = cell.cell().rows().metas();
    if !metas
        .iter()
        .all(|m| is_finite(m.factor) && is_finite(m.spread))
    {
        return Err(inconsistent("each row has a factor and a spread"));
    }
    Ok(cell)
}

/// Where sections come from.
enum Source<'s> {
    Stream {
        reader: &'s mut dyn Read,
        buffer: Vec<u8>,
    },
    Map {
        map: Arc<Map>,
        at: usize,
    },
}

impl Source<'_> {
    /// The next bytes; `None` is a length beyond all that can be held.
    fn next(&mut self, len: Option<usize>) -> Result<Section<'_>, IndexError> {
        let len = len.ok_or(SnapshotFault::Truncated)?;
        match self {
            Self::Stream { reader, buffer } => {
                buffer.clear();
                // Reads as much as there is, into room that grows with it.
                let read = reader.take(len as u64).read_to_end(buffer)?;
                if read < len {
                    return Err(SnapshotFault::Truncated.into());
                }
                Ok(Section {
                    bytes: buffer,
                    place: None,
                })
            }
            Self::Map { map, at } => {
                let start = *at;
                let end = start.checked_add(len).ok_or(SnapshotFault::Truncated)?;
                let bytes = map
                    .bytes()
                    .get(start..end)
                    .ok_or(SnapshotFault::Truncated)?;
                *at = end;
                // Elsewhere the bytes of a word have another order in memory.
                let in_place = cfg!(target_endian = "little");
                Ok(Section {
                    bytes,
                    place: in_place.then_some((&*map, start)),
                })
            }
        }
    }
}

/// A part of a file.
struct Section<'b> {
    bytes: &'b [u8],
    /// The map that the bytes are in, and where.
    place: Option<(&'b Arc<Map>, usize)>,
}

impl<'b> Section<'b> {
    /// The section without its checksum, which is compared if `check` says so.
    fn unsealed(mut self, check: bool) -> Result<Self, IndexError> {
        let content = self.bytes.len().saturating_sub(CHECKSUM);
        let content = self.split(content)?;
        let sum = u32::from_le_bytes(self.array()?);
        if check && crc32fast::hash(content.bytes) != sum {
            return Err(SnapshotFault::ChecksumMismatch.into());
        }
        Ok(content)
    }

    /// Takes the first bytes off.
    fn split(&mut self, len: usize) -> Result<Self, IndexError> {
        let halves = self.bytes.split_at_checked(len);
        let (bytes, rest) = halves.ok_or(SnapshotFault::Truncated)?;
        let part = Self {
            bytes,
            place: self.place,
        };
        self.bytes = rest;
        self.place = self.place.map(|(map, at)| (map, at + len));
        Ok(part)
    }

    /// Takes the bytes of a number off.
    fn array<const N: usize>(&mut self) -> Result<[u8; N], IndexError> {
        let part = self.split(N)?;
        let array = part.bytes.try_into();
        array.map_err(|_| SnapshotFault::Truncated.into())
    }

    /// The section as one column: in place if it is in a map.
    fn column<T: Plain, const N: usize>(&self, item: impl Fn(&[u8; N]) -> T) -> Option<Room<T>> {
        let items = self.bytes.as_chunks().0;
        match self.place {
            Some((map, at)) => Room::mapped(map, at, items.len()),
            None => Some(Room::filled(items.iter().map(item))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::binary::rotate::split_mix;
    use crate::{BinaryConfig, BinaryIndex, Expiry, Query, RowId, VectorIndex, restore};

    const DIMENSION: usize = 70;

    fn vector(state: &mut u64) -> Vec<f32> {
        let mut random = || (split_mix(state) >> 40) as f32 / (1 << 24) as f32 - 0.5;
        (0..DIMENSION).map(|_| random()).collect()
    }

    /// Several cells of 16-bit rows.
    fn written() -> Vec<u8> {
        let config = BinaryConfig {
            precision: Precision::Int16,
            cell_rows: Some(16),
            ..BinaryConfig::default()
        };
        let index = BinaryIndex::new(DIMENSION, config).unwrap();
        let mut state = 3;
        for id in 0..90 {
            index.upsert(RowId(id), &vector(&mut state)).unwrap();
        }
        assert!(index.cells() > 2);
        let mut bytes = Vec::new();
        index.snapshot(&mut bytes).unwrap();
        bytes
    }

    /// Where the sections begin, and the end.
    fn sections(bytes: &[u8]) -> Vec<usize> {
        let header = header_of(bytes).unwrap();
        let shape = Shape {
            lines: header.dimension.div_ceil(ALIGNED),
            two_planes: header.bits == 16,
        };
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let cells = word(HEADER);
        let mut starts = vec![0, HEADER, ALIGNED];
        starts.push(ALIGNED + shape.directory(cells).unwrap());
        for cell in 0..cells {
            let rows = word(ALIGNED + cell * ENTRY);
            starts.push(starts.last().unwrap() + shape.cell(rows).unwrap());
        }
        starts
    }

    /// Makes the checksums fit, as one who forges a file would.
    fn seal_again(bytes: &mut [u8], starts: &[usize]) {
        for section in starts.windows(2) {
            let end = section[1] - CHECKSUM;
            let sum = crc32fast::hash(&bytes[section[0]..end]);
            bytes[end..section[1]].copy_from_slice(&sum.to_le_bytes());
        }
    }

    fn fault(bytes: &[u8]) -> SnapshotFault {
        let mut reader = bytes;
        match restore(&mut reader).map(drop).unwrap_err() {
            IndexError::Snapshot { fault } => fault,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_row_lies_in_a_file_where_the_table_says() {
        let index = BinaryIndex::new(2, BinaryConfig::default()).unwrap();
        let expires = Expiry::at_seconds(9);
        let id = RowId(0x0102_0304_0506_0708);
        index.upsert_until(id, &[0.6, 0.8], expires).unwrap();
        let mut bytes = Vec::new();
        index.snapshot(&mut bytes).unwrap();
        assert_eq!(bytes.len(), 64 + (64 + 64 + 64) + (64 + 64 + 64));
        assert_eq!(&bytes[..12], b"ASKINDEX\x03\x00\x04\x08");
        assert_eq!(&bytes[12..24], [2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&bytes[28..32], 1u32.to_le_bytes());
        assert_eq!(&bytes[64..68], 1u32.to_le_bytes());
        let cell = &bytes[256..];
        assert_eq!(&cell[128..136], id.0.to_le_bytes());
        assert_eq!(&cell[144..148], 9u32.to_le_bytes());
        let largest = cell[64..128]
            .iter()
            .map(|&x| x.cast_signed().unsigned_abs());
        assert_eq!(largest.max(), Some(127));
        // There is no center, so the code of the row is the signs of it.
        let code = u64::from_le_bytes(cell[..8].try_into().unwrap());
        for (bit, &x) in cell[64..128].iter().enumerate() {
            let is_negative = code >> bit & 1 == 1;
            let x = x.cast_signed();
            assert!(x == 0 || is_negative == (x < 0), "{x}");
        }
        let ends = [(28, 60), (64, 252), (256, 444)];
        for (start, end) in ends {
            let sum = crc32fast::hash(&bytes[start..end]);
            assert_eq!(bytes[end..end + 4], sum.to_le_bytes());
        }
        // A change of the rotation, of the rounding or of the layout needs another version.
        assert_eq!(
            crc32fast::hash(&bytes[64..]),
            0x40cd_20bc,
            "other bytes than version 3 has"
        );
    }

    #[test]
    fn what_the_checksums_let_pass_is_held_against_the_rules() {
        let bytes = written();
        let starts = sections(&bytes);
        assert_eq!(*starts.last().unwrap(), bytes.len());
        let first = starts[3];
        let rows = u32::from_le_bytes(bytes[64..68].try_into().unwrap()) as usize;
        let metas = first + (rows.div_ceil(8) + 2 * rows) * 128;
        let inf = f32::INFINITY.to_le_bytes();
        let negative = (-1f32).to_le_bytes();
        let cases: [(usize, &[u8], &str); 11] = [
            (11, &[7], "a component has 8 or 16 bits"),
            (16, &[89], "the cells hold the rows that are announced"),
            (28, &[0; 4], "there is a cell"),
            (32, &[1], "vectors are rotated as this build does"),
            (40, &inf, "the spread and the reach are within 0 and 20"),
            (
                44,
                &negative,
                "the spread and the reach are within 0 and 20",
            ),
            (
                64,
                &[1, 0, 0, 0],
                "the cells hold the rows that are announced",
            ),
            (68, &inf, "each center has a length"),
            (metas + 8, &inf, "each row has a factor and a spread"),
            (metas + 12, &negative, "each row has a factor and a spread"),
            (metas + 20, &bytes[metas..metas + 8], "each id occurs once"),
        ];
        for (at, with, rule) in cases {
            let mut forged = bytes.clone();
            forged[at..at + with.len()].copy_from_slice(with);
            seal_again(&mut forged, &starts);
            assert_eq!(fault(&forged), SnapshotFault::Inconsistent { rule }, "{at}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn a_forged_file_is_refused_or_searched_without_a_panic(
            at in any::<prop::sample::Index>(),
            part in 0usize..6,
            with in any::<[u8; 4]>(),
        ) {
            let mut bytes = written();
            let starts = sections(&bytes);
            let (start, end) = (starts[part], starts[part + 1] - CHECKSUM);
            let at = start + at.index(end - start);
            let until = end.min(at + 4);
            bytes[at..until].copy_from_slice(&with[..until - at]);
            seal_again(&mut bytes, &starts);
            let config = BinaryConfig {
                precision: Precision::Int16,
                cell_rows: Some(16),
                ..BinaryConfig::default()
            };
            let mut reader = bytes.as_slice();
            let Ok(index) = BinaryIndex::restore(&mut reader, config) else {
                return Ok(());
            };
            let mut state = 5;
            for id in 80..140 {
                let vector = vec![(id as f32).cos(); index.dimension()];
                let mut found = Vec::new();
                index.query(&Query::new(&vector, 3).above(0.1), &mut found).unwrap();
                index.query(&Query::new(&vector, 3).exact(), &mut found).unwrap();
                if index.dimension() == DIMENSION {
                    index.upsert(RowId(id), &super::tests::vector(&mut state)).unwrap();
                }
            }
            for id in 0..140 {
                index.remove(RowId(id)).unwrap();
            }
        }
    }
}
