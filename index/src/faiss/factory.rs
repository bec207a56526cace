//! Which of FAISS's index descriptions are taken, and what each means.
//!
//! FAISS reads a description by regular expressions and tells what is wrong with one in text that
//! names its source files. Here a description is read first, so that it is refused with the list of
//! what may be written; what goes to FAISS is made anew from the parts.

use std::fmt;

use crate::IndexError;

/// Rows for each cell below which FAISS calls its k-means poorly trained.
const ROWS_PER_CELL: usize = 39;

/// Most cells of an inverted file; FAISS is used with a million at most.
const MAX_CELLS: usize = 1 << 20;

/// Fewest and most links of a node, as for [`crate::HnswConfig::links`].
const LINKS: std::ops::RangeInclusive<usize> = 4..=128;

const ALLOWED: &str = "`Flat` or `SQ8`, alone or after `HNSW<links>,` or `IVF<cells>,` or \
    `IVF<cells>_HNSW<links>,`, with 4..=128 links and 1..=1048576 cells; ids need no `IDMap`";

/// A description that FAISS is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Factory {
    pub(super) structure: Structure,
    pub(super) codes: Codes,
}

/// How the rows to be compared with a query are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Structure {
    /// All of them are.
    Scan,
    /// By links from row to row.
    Graph { links: usize },
    /// By the nearest of the cells that k-means made; these by a graph if it has `links`.
    Cells { cells: usize, links: Option<usize> },
}

/// What FAISS keeps of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codes {
    /// The row.
    Flat,
    /// One byte for each component.
    Sq8,
}

impl Factory {
    /// Reads a description.
    pub(super) fn parse(description: &str) -> Result<Self, IndexError> {
        Self::read(description).ok_or_else(|| IndexError::InvalidConfig {
            field: "faiss.factory",
            value: format!("`{description}`"),
            allowed: ALLOWED,
        })
    }

    fn read(description: &str) -> Option<Self> {
        let (structure, codes) = match description.split_once(',') {
            Some((structure, codes)) => (Structure::read(structure)?, codes),
            None => (Structure::Scan, description),
        };
        let codes = match codes {
            "Flat" => Codes::Flat,
            "SQ8" => Codes::Sq8,
            _ => return None,
        };
        Some(Self { structure, codes })
    }

    /// Rows without which it cannot be trained well.
    pub(super) fn least_rows(&self) -> usize {
        match self.structure {
            Structure::Cells { cells, .. } => cells * ROWS_PER_CELL,
            Structure::Scan | Structure::Graph { .. } => 1,
        }
    }

    /// Whether it learns something of the rows before it takes them.
    pub(super) fn is_trained(&self) -> bool {
        self.codes == Codes::Sq8 || matches!(self.structure, Structure::Cells { .. })
    }

    /// Whether FAISS compares a query with every row, bit for bit.
    pub(super) fn is_exact(&self) -> bool {
        self.structure == Structure::Scan && self.codes == Codes::Flat
    }

    /// Whether FAISS names rows in the order of its scores with none left out.
    pub(super) fn is_complete(&self) -> bool {
        self.structure == Structure::Scan
    }

    /// Farthest that a score of FAISS is taken to be from the cosine.
    pub(super) fn score_error(&self) -> f32 {
        match self.codes {
            // What different orders of summation come to.
            Codes::Flat => 1e-5,
            // A step is a 255th of the range of a component: over a hundred components their
            // errors come to a thousandth.
            Codes::Sq8 => 0.01,
        }
    }

    /// Estimated bytes that FAISS holds for `rows` rows.
    pub(super) fn bytes(&self, rows: usize, dimension: usize) -> usize {
        // In the lowest layer a node has room for twice its links, and a share of the nodes has
        // room for as many again above; 12 bytes tell its layers and where its links begin.
        let graph = |nodes: usize, links: usize| {
            nodes * (2 * links * size_of::<i32>() + links * size_of::<i32>() / (links - 1) + 12)
        };
        let codes = rows
            * match self.codes {
                Codes::Flat => dimension * size_of::<f32>(),
                Codes::Sq8 => dimension,
            };
        let structure = match self.structure {
            Structure::Scan => 0,
            Structure::Graph { links } => graph(rows, links),
            Structure::Cells { cells, links } => {
                let centres = cells * dimension * size_of::<f32>();
                // An id for each row, and two lists for each cell.
                let lists = rows * size_of::<i64>() + cells * 2 * 24;
                centres + lists + links.map_or(0, |links| graph(cells, links))
            }
        };
        codes + structure
    }
}

impl Structure {
    fn read(text: &str) -> Option<Self> {
        if let Some(links) = text.strip_prefix("HNSW") {
            return Some(Self::Graph {
                links: read_links(links)?,
            });
        }
        let (cells, links) = match text.strip_prefix("IVF")?.split_once("_HNSW") {
            Some((cells, links)) => (cells, Some(read_links(links)?)),
            None => (text.strip_prefix("IVF")?, None),
        };
        let cells = number(cells).filter(|cells| (1..=MAX_CELLS).contains(cells))?;
        Some(Self::Cells { cells, links })
    }
}

fn read_links(text: &str) -> Option<usize> {
    number(text).filter(|links| LINKS.contains(links))
}

/// A number of digits only: `parse` alone takes a sign as well.
fn number(text: &str) -> Option<usize> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// As FAISS reads it.
impl fmt::Display for Factory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.structure {
            Structure::Scan => {}
            Structure::Graph { links } => write!(f, "HNSW{links},")?,
            Structure::Cells { cells, links: None } => write!(f, "IVF{cells},")?,
            Structure::Cells {
                cells,
                links: Some(links),
            } => write!(f, "IVF{cells}_HNSW{links},")?,
        }
        f.write_str(match self.codes {
            Codes::Flat => "Flat",
            Codes::Sq8 => "SQ8",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read_and_written_as_it_was() {
        for text in [
            "Flat",
            "SQ8",
            "HNSW32,Flat",
            "HNSW16,SQ8",
            "IVF64,Flat",
            "IVF256,SQ8",
            "IVF4096_HNSW32,SQ8",
        ] {
            assert_eq!(Factory::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_the_list_of_what_can() {
        for text in [
            "",
            "flat",
            "Flat,Flat",
            "IDMap2,Flat",
            "HNSW,Flat",
            "HNSW32",
            "HNSW3,Flat",
            "HNSW129,Flat",
            "HNSW+32,Flat",
            "HNSW32,SQ4",
            "IVF,Flat",
            "IVF0,Flat",
            "IVF1048577,Flat",
            "IVF64,PQ32x4fs,RFlat",
            "IVF99999999999999999999,Flat",
            "IVF64_HNSW,SQ8",
            "PCA64,Flat",
            "Flat\0",
        ] {
            let error = Factory::parse(text).unwrap_err();
            let IndexError::InvalidConfig { field, value, .. } = &error else {
                panic!("{error}");
            };
            assert_eq!(*field, "faiss.factory");
            assert_eq!(*value, format!("`{text}`"));
            assert!(error.to_string().contains("`IVF<cells>,`"), "{error}");
        }
    }

    #[test]
    fn only_a_scan_of_whole_rows_is_exact_and_only_it_and_the_graph_of_them_learn_nothing() {
        let kind = |text| Factory::parse(text).unwrap();
        assert!(kind("Flat").is_exact() && !kind("Flat").is_trained());
        assert!(!kind("SQ8").is_exact() && kind("SQ8").is_trained());
        assert!(!kind("HNSW32,Flat").is_exact() && !kind("HNSW32,Flat").is_trained());
        assert!(!kind("IVF8,Flat").is_exact() && kind("IVF8,Flat").is_trained());
        assert_eq!(kind("IVF8,Flat").least_rows(), 312);
    }
}
