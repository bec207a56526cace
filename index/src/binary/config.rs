//! Settings of the binary index.

use crate::IndexError;
use crate::config::check;

/// How fine the rows of a [`crate::BinaryIndex`] are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 8 bits a component: scores are within 0.01 of the cosine, usually within 0.001. The
    /// default.
    #[default]
    Int8,
    /// 16 bits a component, in two planes of 8: scores are within 0.0001. The second plane is read
    /// only for rows that the first puts near the bar.
    Int16,
}

impl Precision {
    /// Bits of a component.
    pub(super) fn bits(self) -> u8 {
        match self {
            Self::Int8 => 8,
            Self::Int16 => 16,
        }
    }

    pub(super) fn of_bits(bits: u8) -> Option<Self> {
        [Self::Int8, Self::Int16]
            .into_iter()
            .find(|precision| precision.bits() == bits)
    }
}

/// When [`crate::BinaryIndex::open_with`] reads the file to compare it with its checksums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Verify {
    /// All of it, before the index is there. The default.
    #[default]
    AtOpen,
    /// The header and the directory; the rows when [`crate::BinaryIndex::verify`] is called. For
    /// files that are larger than what may be read before the first search.
    Later,
}

/// Settings of a [`crate::BinaryIndex`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BinaryConfig {
    /// How fine rows are kept. Default: [`Precision::Int8`].
    pub precision: Precision,
    /// Cells that a search looks at; `1..`. Default: `None`, as many as the audits of this index
    /// found are needed for [`Self::recall`].
    pub probes: Option<usize>,
    /// Standard deviations by which a code may be farther from the query than a neighbour at the
    /// threshold is expected to be; above 0 and up to 20. Default: `None`, as many as the audits
    /// found are needed for [`Self::recall`].
    pub spread: Option<f32>,
    /// Share of true neighbours that searches are tuned to find; 0.5 and more, below 1. Default:
    /// 0.995.
    pub recall: f32,
    /// Rows at which a cell is split in two, at least; `16..`. Large indexes have larger cells.
    /// Default: `None`, as many as have 8 KiB of codes, from 128 to 512: then looking into a cell
    /// takes about as long as getting there.
    pub cell_rows: Option<usize>,
}

impl Default for BinaryConfig {
    fn default() -> Self {
        Self {
            precision: Precision::Int8,
            probes: None,
            spread: None,
            recall: 0.995,
            cell_rows: None,
        }
    }
}

impl BinaryConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`IndexError::InvalidConfig`] that names the first field out of range.
    pub fn validate(&self) -> Result<(), IndexError> {
        if let Some(probes) = self.probes {
            check("binary.probes", &probes, "1 or more", probes >= 1)?;
        }
        if let Some(spread) = self.spread {
            let allowed = spread > 0.0 && spread <= 20.0;
            check("binary.spread", &spread, "above 0 and up to 20", allowed)?;
        }
        let recall = (0.5..1.0).contains(&self.recall);
        check(
            "binary.recall",
            &self.recall,
            "0.5 and more, below 1",
            recall,
        )?;
        if let Some(rows) = self.cell_rows {
            check("binary.cell_rows", &rows, "16 or more", rows >= 16)?;
        }
        Ok(())
    }
}
