//! The crate `hnsw_rs` by itself: `f32` rows, its own inner product by AVX2, 32 links (with 16 it
//! loses rows of clustered data), `ef_construction` = 200, or 100 for so many rows that linking them
//! takes minutes. It has no deletion.

use std::ops::Range;

use hnsw_rs::prelude::{DistDot, Distance, Hnsw};

use super::{Contender, EF, Entry, Found, HNSW_RS, Setting, numbered};
use crate::dataset::Dataset;
use crate::error::Result;

const LINKS: usize = 32;
const EF_CONSTRUCTION: usize = 200;
/// Of a set that is not linked one by one, unless there is patience. It halves the time of linking and
/// makes searches no slower: at equal recall a lookup among 31,000 rows of 256 components took 259 us
/// against 315, as nodes have fewer links. Of 1,000 rows 5 were lost by it.
const EF_CONSTRUCTION_BULK: usize = 100;
const LAYERS: usize = 16;

/// Rows that are linked one by one; more are linked by all threads of the machine.
const SINGLY: usize = 30_000;

pub(super) fn entry(patient: bool) -> Entry {
    Entry {
        name: HNSW_RS,
        // Components count as much as rows.
        most_rows: if patient { 200_000 } else { 100_000 },
        make: Box::new(move |set| {
            let singly = set.len() <= SINGLY;
            let ef_construction = if singly || patient {
                EF_CONSTRUCTION
            } else {
                EF_CONSTRUCTION_BULK
            };
            Ok(Box::new(Raw {
                graph: Hnsw::new(LINKS, set.len(), LAYERS, ef_construction, Clamped),
                ef: EF[0],
                ef_construction,
                singly,
            }))
        }),
    }
}

/// The crate's own distance, never negative: that would be a panic.
#[derive(Clone, Copy, Debug)]
struct Clamped;

impl Distance<f32> for Clamped {
    fn eval(&self, a: &[f32], b: &[f32]) -> f32 {
        DistDot.eval(a, b).max(0.0)
    }
}

struct Raw {
    graph: Hnsw<'static, f32, Clamped>,
    ef: usize,
    ef_construction: usize,
    singly: bool,
}

impl Contender for Raw {
    fn settings(&self) -> Vec<Setting> {
        numbered("ef", &EF)
    }

    fn built(&self) -> Option<String> {
        let ef_construction = self.ef_construction;
        Some(format!("M {LINKS}, ef_construction {ef_construction}"))
    }

    fn turn(&mut self, setting: usize, _: &Dataset) -> Result<()> {
        self.ef = EF[setting];
        Ok(())
    }

    fn insert(&self, row: u64, vector: &[f32]) -> Result<()> {
        self.graph.insert_slice((vector, row as usize));
        Ok(())
    }

    fn insert_range(&self, rows: Range<usize>, set: &Dataset) -> Result<()> {
        if self.singly {
            for row in rows {
                self.insert(row as u64, set.row(row))?;
            }
        } else {
            let rows: Vec<(&[f32], usize)> = rows.map(|row| (set.row(row), row)).collect();
            self.graph.parallel_insert_slice(&rows);
        }
        Ok(())
    }

    fn inserts_singly(&self) -> bool {
        self.singly
    }

    fn lookup(&self, query: &[f32], k: usize, _: Option<f32>, out: &mut Vec<Found>) -> Result<()> {
        let found = self.graph.search(query, k, self.ef.max(k));
        out.extend(found.into_iter().map(|near| Found {
            row: near.d_id as u64,
            score: 1.0 - near.distance,
        }));
        Ok(())
    }

    fn delete(&self, _: u64) -> Result<bool> {
        Ok(false)
    }

    fn bytes(&self) -> Option<usize> {
        None
    }
}
