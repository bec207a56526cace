//! Settings of the engines.

use std::fmt::Display;
use std::io::Read;
use std::path::Path;

use crate::binary::file;
use crate::rows::Rows;
use crate::snapshot::{self, Content};
use crate::vector::check_dimension;
use crate::{AutoIndex, BinaryConfig, BinaryIndex, FlatIndex, IndexError, VectorIndex};

/// The engines, by the names they have in a configuration file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IndexKind {
    /// [`AutoIndex`]: flat while small, then binary. The default.
    #[default]
    Auto,
    /// [`FlatIndex`]: exact, with a search time that grows with the rows.
    Flat,
    /// [`BinaryIndex`], from the first row on. One of a few rows pays some kilobytes for nothing.
    Binary,
    /// `HnswRsIndex`, of feature `hnsw`. For comparisons.
    HnswRs,
    /// FAISS, of feature `faiss`.
    Faiss,
}

impl IndexKind {
    /// All of them, in the build or not.
    pub const ALL: [Self; 5] = [
        Self::Auto,
        Self::Flat,
        Self::Binary,
        Self::HnswRs,
        Self::Faiss,
    ];

    /// `auto`, `flat`, `binary`, `hnsw_rs` or `faiss`; what [`crate::Capability::engine`] says.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Flat => "flat",
            Self::Binary => "binary",
            Self::HnswRs => "hnsw_rs",
            Self::Faiss => "faiss",
        }
    }
}

/// Settings of an index of any engine. Those of engines that [`Self::kind`] does not name are checked
/// and not used.
///
/// ```
/// use askonce_index::{IndexConfig, IndexKind, RowId, VectorIndex};
///
/// let config = IndexConfig {
///     kind: IndexKind::Flat,
///     ..IndexConfig::default()
/// };
/// let index = config.open(2)?;
/// index.upsert(RowId(1), &[3.0, 4.0])?;
/// assert_eq!(index.capability().engine, "flat");
/// # Ok::<(), askonce_index::IndexError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct IndexConfig {
    /// Which engine. Default: [`IndexKind::Auto`].
    pub kind: IndexKind,
    /// As [`AutoConfig::flat_limit`].
    pub flat_limit: usize,
    /// Settings of [`BinaryIndex`], also as the one that an [`AutoIndex`] goes on as.
    pub binary: BinaryConfig,
    /// Settings of `HnswRsIndex`.
    pub hnsw: HnswConfig,
    /// Settings of `FaissIndex`.
    #[cfg(feature = "faiss")]
    pub faiss: crate::FaissConfig,
}

impl Default for IndexConfig {
    fn default() -> Self {
        let AutoConfig { flat_limit, binary } = AutoConfig::default();
        Self {
            kind: IndexKind::Auto,
            flat_limit,
            binary,
            hnsw: HnswConfig::default(),
            #[cfg(feature = "faiss")]
            faiss: crate::FaissConfig::default(),
        }
    }
}

impl IndexConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`IndexError::InvalidConfig`] that names the first field out of range.
    pub fn validate(&self) -> Result<(), IndexError> {
        self.binary.validate()?;
        self.hnsw.validate()?;
        #[cfg(feature = "faiss")]
        self.faiss.validate()?;
        Ok(())
    }

    /// An empty index for vectors of `dimension` components.
    ///
    /// # Errors
    /// [`IndexError::UnsupportedDimension`] outside `1..=`[`crate::MAX_DIMENSION`],
    /// [`IndexError::InvalidConfig`] for a setting out of range, [`IndexError::EngineNotBuilt`] if
    /// the engine is not in this build, [`IndexError::UnsupportedCpu`] if it cannot run here.
    pub fn open(&self, dimension: usize) -> Result<Box<dyn VectorIndex>, IndexError> {
        check_dimension(dimension)?;
        self.of_rows(Rows::new(dimension))
    }

    /// An index with the rows of a snapshot, which may be of any engine.
    ///
    /// # Errors
    /// Those of [`Self::open`]; [`IndexError::Snapshot`] if the bytes are not a whole, unchanged
    /// snapshot, [`IndexError::Io`] if the reader fails.
    pub fn restore(&self, reader: &mut dyn Read) -> Result<Box<dyn VectorIndex>, IndexError> {
        let (_, content) = snapshot::open(reader)?;
        self.of_content(content)
    }

    /// An index with the rows of a file that [`save`](crate::save) wrote, of any engine. Cells of the
    /// precision that is asked for are searched in place if the engine is [`IndexKind::Binary`] or
    /// [`IndexKind::Auto`], as [`BinaryIndex::open`] says, which also says what is asked of the
    /// file; from other files rows are read and inserted.
    ///
    /// # Errors
    /// Those of [`Self::restore`], and [`IndexError::Io`] if the file cannot be opened or mapped.
    pub fn open_file(&self, path: impl AsRef<Path>) -> Result<Box<dyn VectorIndex>, IndexError> {
        self.validate()?;
        self.of_content(file::open(path.as_ref())?)
    }

    /// An index with what a snapshot holds: cells as they are where the engine has such.
    pub(crate) fn of_content(&self, content: Content) -> Result<Box<dyn VectorIndex>, IndexError> {
        let image = match content {
            Content::Rows(rows) => return self.of_rows(rows),
            Content::Cells(image) => image,
        };
        self.validate()?;
        Ok(match self.kind {
            IndexKind::Auto => Box::new(AutoIndex::from_image(image, self.auto())?),
            IndexKind::Binary => Box::new(BinaryIndex::from_image(image, self.binary)?),
            _ => return self.of_rows(image.into_rows()?),
        })
    }

    fn auto(&self) -> AutoConfig {
        AutoConfig {
            flat_limit: self.flat_limit,
            binary: self.binary,
        }
    }

    pub(crate) fn of_rows(&self, rows: Rows) -> Result<Box<dyn VectorIndex>, IndexError> {
        self.validate()?;
        Ok(match self.kind {
            IndexKind::Auto => Box::new(AutoIndex::from_rows(rows, self.auto())?),
            IndexKind::Flat => Box::new(FlatIndex::from_rows(rows)),
            IndexKind::Binary => Box::new(BinaryIndex::from_rows(&rows, self.binary)?),
            #[cfg(feature = "hnsw")]
            IndexKind::HnswRs => Box::new(crate::HnswRsIndex::from_rows(rows, self.hnsw)?),
            #[cfg(not(feature = "hnsw"))]
            IndexKind::HnswRs => return Err(not_built(self.kind, "hnsw")),
            #[cfg(feature = "faiss")]
            IndexKind::Faiss => Box::new(crate::FaissIndex::from_rows(rows, &self.faiss)?),
            #[cfg(not(feature = "faiss"))]
            IndexKind::Faiss => return Err(not_built(self.kind, "faiss")),
        })
    }
}

#[cfg(not(all(feature = "hnsw", feature = "faiss")))]
fn not_built(kind: IndexKind, feature: &'static str) -> IndexError {
    IndexError::EngineNotBuilt {
        engine: kind.name(),
        feature,
    }
}

/// Which thread builds graphs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BuildThread {
    /// One thread that all indexes of the process share, started when first needed. Lookups and
    /// writes go on meanwhile. The default.
    #[default]
    Shared,
    /// The thread whose write made the work due. Lookups go on, that write takes as long as the
    /// work. For tests, and for programs that must not start a thread.
    Caller,
}

/// Settings of an [`AutoIndex`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AutoConfig {
    /// Rows up to which the index stays flat. Default: 64, for the measurements at [`AutoIndex`].
    /// More keeps answers exact for longer and makes them slower.
    pub flat_limit: usize,
    /// Settings of the index that it goes on as.
    pub binary: BinaryConfig,
}

impl Default for AutoConfig {
    fn default() -> Self {
        Self {
            flat_limit: 64,
            binary: BinaryConfig::default(),
        }
    }
}

impl AutoConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`IndexError::InvalidConfig`] that names the first field out of range.
    pub fn validate(&self) -> Result<(), IndexError> {
        self.binary.validate()
    }
}

/// Settings of an `HnswRsIndex`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HnswConfig {
    /// Links of a node in each upper layer, and half of those in the lowest; `4..=128`. Default:
    /// 32. With 16, some rows of clustered data are out of reach of every search.
    pub links: usize,
    /// Candidates weighed when a node is linked; `8..=2000`, and above `links`. Default: 200.
    /// More makes better graphs and slower inserts.
    pub ef_construction: usize,
    /// Candidates a search keeps at least; `1..=10_000`. Default: 64. More finds more and takes
    /// longer, nearly in proportion.
    pub ef_search: usize,
    /// Rows outside the graph from which on another is built; `1..`. They are scanned until then,
    /// and a quarter of the rows in the graph may be outside of it anyway. Default: 4096, whose
    /// scan takes less than a walk.
    pub seal_rows: usize,
    /// Share of nodes whose row is gone from which on the graph is built anew; above 0 and below
    /// 1. Default: 0.3. Less keeps searches lean and builds more often.
    pub dead_share: f32,
    /// Which thread builds graphs. Default: [`BuildThread::Shared`].
    pub build: BuildThread,
}

impl Default for HnswConfig {
    fn default() -> Self {
        Self {
            links: 32,
            ef_construction: 200,
            ef_search: 64,
            seal_rows: 4096,
            dead_share: 0.3,
            build: BuildThread::Shared,
        }
    }
}

impl HnswConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`IndexError::InvalidConfig`] that names the first field out of range.
    pub fn validate(&self) -> Result<(), IndexError> {
        check(
            "hnsw.links",
            &self.links,
            "4..=128",
            (4..=128).contains(&self.links),
        )?;
        let weighed =
            (8..=2000).contains(&self.ef_construction) && self.ef_construction > self.links;
        check(
            "hnsw.ef_construction",
            &self.ef_construction,
            "8..=2000, and above hnsw.links",
            weighed,
        )?;
        let kept = (1..=10_000).contains(&self.ef_search);
        check("hnsw.ef_search", &self.ef_search, "1..=10_000", kept)?;
        check(
            "hnsw.seal_rows",
            &self.seal_rows,
            "1 or more",
            self.seal_rows >= 1,
        )?;
        let share = self.dead_share > 0.0 && self.dead_share < 1.0;
        check(
            "hnsw.dead_share",
            &self.dead_share,
            "above 0 and below 1",
            share,
        )
    }
}

pub(crate) fn check(
    field: &'static str,
    value: &dyn Display,
    allowed: &'static str,
    holds: bool,
) -> Result<(), IndexError> {
    if holds {
        Ok(())
    } else {
        Err(IndexError::InvalidConfig {
            field,
            value: value.to_string(),
            allowed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_in_range() {
        IndexConfig::default().validate().unwrap();
    }

    #[test]
    fn a_field_out_of_range_is_named_with_its_value_and_the_range() {
        let mut config = IndexConfig::default();
        config.hnsw.dead_share = 1.5;
        let error = config.open(4).unwrap_err();
        assert_eq!(
            error.to_string(),
            "hnsw.dead_share is 1.5, allowed is above 0 and below 1"
        );
    }

    #[test]
    fn each_kind_opens_the_engine_of_its_name_or_tells_the_feature_that_is_missing() {
        for kind in IndexKind::ALL {
            let config = IndexConfig {
                kind,
                ..IndexConfig::default()
            };
            match config.open(4) {
                Ok(index) => assert_eq!(index.capability().engine, kind.name()),
                Err(IndexError::EngineNotBuilt { engine, .. }) => assert_eq!(engine, kind.name()),
                Err(error) => panic!("{kind:?}: {error}"),
            }
        }
        let auto = IndexConfig::default().open(0);
        assert!(matches!(auto, Err(IndexError::UnsupportedDimension { .. })));
    }
}
