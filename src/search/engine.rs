//! From settings to the index of a partition: the one place that knows the engines.

use std::io::Read;
use std::path::Path;

use askonce_index::{IndexConfig as Settings, IndexError, IndexKind, VectorIndex};

use super::config::{IndexConfig, IndexType, Precision};

/// Opens the indexes of one stage: all of one dimension and with the same settings.
#[derive(Clone, Debug)]
pub(super) struct Engine {
    dimension: usize,
    settings: Settings,
}

impl Engine {
    /// An engine with these settings, which opening an index checks.
    pub(super) fn new(dimension: usize, config: &IndexConfig) -> Self {
        Self {
            dimension,
            settings: settings(config),
        }
    }

    /// Length of every vector.
    pub(super) fn dimension(&self) -> usize {
        self.dimension
    }

    /// An empty index.
    ///
    /// # Errors
    /// [`IndexError::InvalidConfig`] for a setting out of range, [`IndexError::EngineNotBuilt`] for an engine
    /// that is not in this build.
    pub(super) fn open(&self) -> Result<Box<dyn VectorIndex>, IndexError> {
        self.settings.open(self.dimension)
    }

    /// An index with the rows of a snapshot, whatever engine wrote it.
    ///
    /// # Errors
    /// Those of [`open`](Self::open); [`IndexError::Snapshot`] for bytes that are not a whole, unchanged
    /// snapshot, [`IndexError::WrongDimension`] for one of other vectors.
    pub(super) fn restore(
        &self,
        reader: &mut dyn Read,
    ) -> Result<Box<dyn VectorIndex>, IndexError> {
        self.checked(self.settings.restore(reader)?)
    }

    /// An index with the rows of a file, searched in place where the engine can. Nobody may write into the
    /// file while the index lives; to remove it is safe.
    ///
    /// # Errors
    /// Those of [`restore`](Self::restore).
    pub(super) fn open_file(&self, path: &Path) -> Result<Box<dyn VectorIndex>, IndexError> {
        self.checked(self.settings.open_file(path)?)
    }

    fn checked(&self, index: Box<dyn VectorIndex>) -> Result<Box<dyn VectorIndex>, IndexError> {
        if index.dimension() != self.dimension {
            return Err(IndexError::WrongDimension {
                expected: self.dimension,
                actual: index.dimension(),
            });
        }
        Ok(index)
    }
}

fn settings(config: &IndexConfig) -> Settings {
    let mut settings = Settings {
        kind: match config.kind {
            IndexType::Auto => IndexKind::Auto,
            IndexType::Flat => IndexKind::Flat,
            IndexType::Binary => IndexKind::Binary,
            IndexType::HnswRs => IndexKind::HnswRs,
            IndexType::Faiss => IndexKind::Faiss,
        },
        ..Settings::default()
    };
    if let Some(limit) = config.flat_limit {
        settings.flat_limit = limit;
    }
    if let Some(ef_search) = config.ef_search {
        settings.hnsw.ef_search = ef_search;
    }
    settings.binary.probes = config.probes;
    if let Some(precision) = config.precision {
        settings.binary.precision = match precision {
            Precision::Int8 => askonce_index::Precision::Int8,
            Precision::Int16 => askonce_index::Precision::Int16,
        };
    }
    if let Some(recall) = config.recall {
        settings.binary.recall = recall;
    }
    #[cfg(feature = "faiss")]
    {
        if let Some(factory) = &config.factory {
            settings.faiss.factory.clone_from(factory);
        }
        if let Some(probes) = config.probes {
            settings.faiss.probes = probes;
        }
        if let Some(ef_search) = config.ef_search {
            settings.faiss.ef_search = ef_search;
        }
    }
    settings
}
