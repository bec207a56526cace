//! What can go wrong with an index, and what the caller can do about it.

use std::io;

use thiserror::Error;

/// An operation an index refused or could not finish.
///
/// A refused vector leaves the index as it was. Messages name positions and sizes, never the
/// vector's content.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IndexError {
    /// The vector has another dimension than the index.
    #[error(
        "vector has {actual} components, this index holds {expected}; \
         embed it with the model the index was made for"
    )]
    WrongDimension {
        /// Components that every vector of the index has.
        expected: usize,
        /// Components of the vector given.
        actual: usize,
    },
    /// A component is NaN or infinite.
    #[error("component {position} of the vector is not finite; the embedding is unusable")]
    NotFinite {
        /// Position of the first such component, from 0.
        position: usize,
    },
    /// Every component is zero, so the vector has no direction and no cosine.
    #[error("every component of the vector is zero; the text has no embedding to compare")]
    ZeroVector,
    /// The components of a view lie apart in memory, as those of a transposed matrix do.
    #[error(
        "the view of row {row} is not contiguous in memory; \
         copy it first, with `as_standard_layout()`"
    )]
    NotContiguous {
        /// The first such row, from 0; 0 for a single vector.
        row: usize,
    },
    /// There are not as many ids as rows.
    #[error("there are {ids} ids for {rows} rows; give one id for each row")]
    RowCount {
        /// Ids given.
        ids: usize,
        /// Rows of the matrix.
        rows: usize,
    },
    /// One row of a matrix cannot be used; no row of it was.
    #[error("row {row} of the matrix was refused")]
    BadRow {
        /// The first such row, from 0.
        row: usize,
        /// What is wrong with it.
        source: Box<IndexError>,
    },
    /// An index of this dimension cannot be made.
    #[error("dimension {dimension} is outside 1..={maximum}")]
    UnsupportedDimension {
        /// The dimension asked for.
        dimension: usize,
        /// The largest dimension that is supported.
        maximum: usize,
    },
    /// A setting of an index is outside its range.
    #[error("{field} is {value}, allowed is {allowed}")]
    InvalidConfig {
        /// The field at fault.
        field: &'static str,
        /// The value it had.
        value: String,
        /// The values it may have.
        allowed: &'static str,
    },
    /// The index holds as many rows as it can number.
    #[error("the index is full at {limit} rows; remove rows or split the partition")]
    Full {
        /// Rows the index can hold.
        limit: usize,
    },
    /// The engine asked for was left out of this build.
    #[error("the {engine} engine is not in this build; enable cargo feature `{feature}`")]
    EngineNotBuilt {
        /// Name of the engine.
        engine: &'static str,
        /// Cargo feature of `askonce-index` that brings it.
        feature: &'static str,
    },
    /// The engine was compiled for a processor with instructions that this one lacks.
    #[error(
        "the {engine} engine of this build needs a CPU with {missing}; \
         build it with C++ flags for this CPU, or use another engine"
    )]
    UnsupportedCpu {
        /// Name of the engine.
        engine: &'static str,
        /// The CPU features that are missing, separated by commas.
        missing: String,
    },
    /// The library behind an engine refused settings that are in range, or is out of memory.
    #[error(
        "the {engine} engine could not make an index; check its settings, or use another engine"
    )]
    EngineFailed {
        /// Name of the engine.
        engine: &'static str,
    },
    /// The bytes given to a restore are not a snapshot that can be used.
    #[error("snapshot cannot be restored: {fault}")]
    Snapshot {
        /// What is wrong with the bytes.
        fault: SnapshotFault,
    },
    /// Reading or writing a snapshot failed below this crate.
    #[error("snapshot could not be read or written")]
    Io {
        /// The failure that the reader or writer gave.
        #[from]
        source: io::Error,
    },
}

/// Why bytes are refused as a snapshot. An index is rebuilt from its entries in each case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SnapshotFault {
    /// The bytes do not begin as a snapshot does.
    #[error("it does not begin with the mark of an index snapshot")]
    BadMagic,
    /// The format is of a version this build does not know.
    #[error("its format is version {found}, this build reads up to {newest}")]
    UnknownVersion {
        /// Version in the header.
        found: u16,
        /// Newest version this build reads.
        newest: u16,
    },
    /// The engine tag is one this build does not know.
    #[error("its engine tag {found} is unknown to this build")]
    UnknownEngine {
        /// Tag in the header.
        found: u8,
    },
    /// The bytes changed since they were written.
    #[error("its checksum does not match, so its bytes were changed")]
    ChecksumMismatch,
    /// The bytes end before the rows that the header announces.
    #[error("it ends early")]
    Truncated,
    /// An index that is to be opened in place is not one: the file has rows, and no cells.
    #[error(
        "it holds rows and no cells, so it cannot be opened in place; \
         restore it, which builds the cells, and save that"
    )]
    NoCells,
    /// An index that is to be opened in place has other rows than the settings ask for.
    #[error(
        "its rows have {found} bits a component and the settings ask for {expected}; \
         change the settings, or restore it, which writes the rows anew"
    )]
    OtherPrecision {
        /// Bits of a component in the file.
        found: u8,
        /// Bits of a component by the settings.
        expected: u8,
    },
    /// The checksums hold, and still the content breaks a rule of the format.
    #[error("its content is inconsistent: {rule}")]
    Inconsistent {
        /// The rule that is broken.
        rule: &'static str,
    },
}

impl From<SnapshotFault> for IndexError {
    fn from(fault: SnapshotFault) -> Self {
        Self::Snapshot { fault }
    }
}
