//! From settings to the index of a partition: the one place that knows the engines.

use std::io::Read;

use askonce_index::{
    AutoConfig, AutoIndex, BinaryConfig, BinaryIndex, FlatIndex, IndexError, IndexKind, VectorIndex,
};

use super::config::{IndexConfig, IndexType, Precision};

/// Opens the indexes of one stage: all of one dimension and with the same settings.
#[derive(Clone, Debug)]
pub(super) struct Engine {
    dimension: usize,
    settings: Settings,
}

#[derive(Clone, Debug)]
enum Settings {
    Auto(AutoConfig),
    Flat,
    Binary(BinaryConfig),
    /// Not in this build, or not known to it.
    Missing {
        engine: &'static str,
        feature: &'static str,
    },
}

impl Engine {
    /// An engine with these settings, which opening an index checks.
    pub(super) fn new(dimension: usize, config: &IndexConfig) -> Self {
        let settings = match config.kind {
            IndexType::Auto => Settings::Auto(auto(config)),
            IndexType::Flat => Settings::Flat,
            IndexType::Binary => Settings::Binary(binary(config)),
            IndexType::HnswRs => Settings::Auto(AutoConfig {
                kind: IndexKind::Hnsw,
                ..auto(config)
            }),
            IndexType::Faiss => Settings::Missing {
                engine: "faiss",
                feature: "faiss",
            },
        };
        Self {
            dimension,
            settings,
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
        Ok(match &self.settings {
            Settings::Auto(config) => Box::new(AutoIndex::new(self.dimension, *config)?),
            Settings::Flat => Box::new(FlatIndex::new(self.dimension)?),
            Settings::Binary(config) => Box::new(BinaryIndex::new(self.dimension, *config)?),
            Settings::Missing { engine, feature } => {
                return Err(IndexError::EngineNotBuilt { engine, feature });
            }
        })
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
        let index: Box<dyn VectorIndex> = match &self.settings {
            Settings::Auto(config) => Box::new(AutoIndex::restore(reader, *config)?),
            _ => Box::new(FlatIndex::restore(reader)?),
        };
        if index.dimension() != self.dimension {
            return Err(IndexError::WrongDimension {
                expected: self.dimension,
                actual: index.dimension(),
            });
        }
        if let Settings::Auto(_) | Settings::Flat = self.settings {
            return Ok(index);
        }
        let restored = self.open()?;
        let mut written = Ok(());
        index.for_each(&mut |row| {
            if written.is_ok() {
                written = restored.upsert_until(row.id, row.vector, row.expires);
            }
        });
        written.map(|()| restored)
    }
}

fn auto(config: &IndexConfig) -> AutoConfig {
    let mut auto = AutoConfig::default();
    if let Some(limit) = config.flat_limit {
        auto.flat_limit = limit;
        auto.shard_limit = auto.shard_limit.max(limit);
    }
    if let Some(ef_search) = config.ef_search {
        auto.hnsw.ef_search = ef_search;
    }
    auto
}

fn binary(config: &IndexConfig) -> BinaryConfig {
    let mut binary = BinaryConfig {
        probes: config.probes,
        ..BinaryConfig::default()
    };
    if let Some(precision) = config.precision {
        binary.precision = match precision {
            Precision::Int8 => askonce_index::Precision::Int8,
            Precision::Int16 => askonce_index::Precision::Int16,
        };
    }
    if let Some(recall) = config.recall {
        binary.recall = recall;
    }
    binary
}
