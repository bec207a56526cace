//! usearch (C++), by inner product of `f32` rows and by cosine of `i8` rows that it makes of them, 16
//! links and an expansion of 128 when a row is added, with room for exactly the rows of the set.
//!
//! The expansion of a search is not for one query but for all. Deletion marks a row, and a row that is
//! added takes its place. Its kernels are chosen when it runs. The scores of `i8` rows are taken as they
//! are.

use usearch::ffi::{IndexOptions, MetricKind, ScalarKind};
use usearch::{Index, new_index};

use super::{Contender, EF, Entry, Found, Setting, USEARCH, USEARCH_I8, failed, numbered};
use crate::dataset::Dataset;
use crate::error::Result;

const LINKS: usize = 16;
const EXPANSION_ADD: usize = 128;

pub(super) fn entries() -> Vec<Entry> {
    vec![
        entry(USEARCH, MetricKind::IP, ScalarKind::F32),
        entry(USEARCH_I8, MetricKind::Cos, ScalarKind::I8),
    ]
}

fn entry(name: &'static str, metric: MetricKind, quantization: ScalarKind) -> Entry {
    Entry {
        name,
        most_rows: usize::MAX,
        make: Box::new(move |set| {
            let options = IndexOptions {
                dimensions: set.dimension,
                metric,
                quantization,
                connectivity: LINKS,
                expansion_add: EXPANSION_ADD,
                expansion_search: EF[0],
                multi: false,
            };
            let index = new_index(&options).map_err(failed(name))?;
            // Without room an addition fails, and room is not made while rows are added.
            index.reserve(set.len()).map_err(failed(name))?;
            Ok(Box::new(Usearch { name, index }))
        }),
    }
}

struct Usearch {
    name: &'static str,
    index: Index,
}

impl Contender for Usearch {
    fn settings(&self) -> Vec<Setting> {
        numbered("ef", &EF)
    }

    fn built(&self) -> Option<String> {
        Some(format!(
            "M {LINKS}, expansion_add {EXPANSION_ADD}, kernels: {}",
            self.index.hardware_acceleration()
        ))
    }

    fn turn(&mut self, setting: usize, _: &Dataset) -> Result<()> {
        self.index.change_expansion_search(EF[setting]);
        Ok(())
    }

    fn insert(&self, row: u64, vector: &[f32]) -> Result<()> {
        self.index.add(row, vector).map_err(failed(self.name))
    }

    fn lookup(&self, query: &[f32], k: usize, _: Option<f32>, out: &mut Vec<Found>) -> Result<()> {
        let found = self.index.search(query, k).map_err(failed(self.name))?;
        let found = found.keys.iter().zip(&found.distances);
        out.extend(found.map(|(&row, distance)| Found {
            row,
            score: 1.0 - distance,
        }));
        Ok(())
    }

    fn delete(&self, row: u64) -> Result<bool> {
        let removed = self.index.remove(row).map_err(failed(self.name))?;
        if removed == 1 {
            Ok(true)
        } else {
            Err(failed(self.name)("it deleted nothing"))
        }
    }

    fn bytes(&self) -> Option<usize> {
        // Its own figure counts what it reserved and never touched: megabytes.
        None
    }

    fn mapped_bytes(&self) -> usize {
        let stats = self.index.memory_stats();
        let allocated = stats.graph_allocated + stats.vectors_allocated;
        allocated.saturating_sub(stats.graph_reserved + stats.vectors_reserved)
    }
}
