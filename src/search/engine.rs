//! From settings to the index of a partition: the one place that knows the engines.

use std::io::Read;

use askonce_index::{AutoConfig, AutoIndex, FlatIndex, IndexError, IndexKind, VectorIndex};

use super::config::{IndexConfig, IndexType};
use crate::error::{Error, ErrorKind, Result};

/// Opens the indexes of one stage: all of one dimension and with the same settings.
#[derive(Clone, Debug)]
pub(super) struct Engine {
    dimension: usize,
    kind: IndexType,
    auto: AutoConfig,
}

impl Engine {
    /// An engine with these settings.
    pub(super) fn new(dimension: usize, config: &IndexConfig) -> Result<Self> {
        let mut auto = AutoConfig::default();
        if let Some(limit) = config.flat_limit {
            auto.flat_limit = limit;
            auto.shard_limit = auto.shard_limit.max(limit);
        }
        if let Some(ef_search) = config.ef_search {
            auto.hnsw.ef_search = ef_search;
        }
        if config.kind == IndexType::HnswRs {
            auto.kind = IndexKind::Hnsw;
        }
        if let IndexType::Binary | IndexType::Faiss = config.kind {
            return Err(
                Error::new(ErrorKind::Config, "this build has no such index")
                    .with("type", config.kind.as_str()),
            );
        }
        Ok(Self {
            dimension,
            kind: config.kind,
            auto,
        })
    }

    /// Length of every vector.
    pub(super) fn dimension(&self) -> usize {
        self.dimension
    }

    /// An empty index.
    pub(super) fn open(&self) -> Result<Box<dyn VectorIndex>, IndexError> {
        Ok(match self.kind {
            IndexType::Flat => Box::new(FlatIndex::new(self.dimension)?),
            _ => Box::new(AutoIndex::new(self.dimension, self.auto)?),
        })
    }

    /// An index with the rows of a snapshot, whatever engine wrote it.
    pub(super) fn restore(
        &self,
        reader: &mut dyn Read,
    ) -> Result<Box<dyn VectorIndex>, IndexError> {
        let index: Box<dyn VectorIndex> = match self.kind {
            IndexType::Flat => Box::new(FlatIndex::restore(reader)?),
            _ => Box::new(AutoIndex::restore(reader, self.auto)?),
        };
        if index.dimension() != self.dimension {
            return Err(IndexError::WrongDimension {
                expected: self.dimension,
                actual: index.dimension(),
            });
        }
        Ok(index)
    }
}
