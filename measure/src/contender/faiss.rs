//! FAISS by itself, without the rules that our engine puts around it: a scan, a graph, and cells of
//! k-means, all of `f32` rows by inner product, each call on one thread.
//!
//! - *Graph*: `HNSW32,Flat` with `efConstruction` = 200. Each call that adds prepares a lock for every
//!   row there is, so rows come in bulk.
//! - *Cells*: `IVF<cells>,Flat`. It is trained on all rows before the first is inserted, which no cache
//!   could do, and the time of it is not counted.
//! - *Room*: when the last row is in, the index is replaced by a copy of itself, which has no spare
//!   room.
//! - *Deletion* is not measured. A graph has none, and a scan and cells pass over all rows for it.
//!
//! It is compiled for the instructions that `CXXFLAGS` names, AVX2 unless told otherwise, and without
//! optimization where this crate is.

use std::ffi::c_int;
use std::ops::Range;
use std::sync::{PoisonError, RwLock};

use faiss::index::autotune::ParameterSpace;
use faiss::index::{IndexImpl, TryClone};
use faiss::{Index, MetricType, index_factory};

use super::{
    Contender, EF, Entry, FAISS_FLAT, FAISS_HNSW, FAISS_IVF, Found, Setting, failed, numbered,
};
use crate::dataset::Dataset;
use crate::error::{MeasureError, Result};

const LINKS: usize = 32;
const EF_CONSTRUCTION: usize = 200;

/// Rows for each cell below which FAISS calls its k-means poorly trained.
const ROWS_PER_CELL: usize = 39;

/// Cells looked at.
const PROBES: [usize; 20] = [
    1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024,
];

/// Most rows of a scan, and of a graph, where patience is short.
const SCANNED: usize = 20_000;
const LINKED: usize = 100_000;

// libgomp, which faiss-sys links. The call takes a plain number.
unsafe extern "C" {
    safe fn omp_set_num_threads(threads: c_int);
}

pub(super) fn entries(patient: bool) -> Vec<Entry> {
    let every = |most: usize| if patient { usize::MAX } else { most };
    vec![
        entry(FAISS_HNSW, every(LINKED), Structure::Graph),
        entry(FAISS_IVF, usize::MAX, Structure::Cells),
        entry(FAISS_FLAT, every(SCANNED), Structure::Scan),
    ]
}

fn entry(name: &'static str, most_rows: usize, structure: Structure) -> Entry {
    Entry {
        name,
        most_rows,
        make: Box::new(move |set| Ok(Box::new(Faiss::new(name, structure, set)?))),
    }
}

/// How the rows to be compared with a query are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Structure {
    Scan,
    Graph,
    Cells,
}

/// A power of two, near what FAISS advises: four times the root of the rows, as far as they suffice to
/// be trained on.
fn cells(rows: usize) -> usize {
    let most = (rows / ROWS_PER_CELL).min(4 * rows.isqrt()).max(1);
    1 << most.ilog2()
}

struct Faiss {
    name: &'static str,
    structure: Structure,
    dimension: usize,
    /// In the notation of FAISS.
    factory: String,
    index: RwLock<IndexImpl>,
    /// Values of the knob, if there is one.
    knob: Vec<usize>,
}

impl Faiss {
    fn new(name: &'static str, structure: Structure, set: &Dataset) -> Result<Self> {
        omp_set_num_threads(1);
        let cells = cells(set.len());
        let (factory, knob) = match structure {
            Structure::Scan => ("Flat".to_owned(), Vec::new()),
            Structure::Graph => (format!("HNSW{LINKS},Flat"), EF.to_vec()),
            Structure::Cells => {
                let probes = PROBES.into_iter().filter(|&probes| probes <= cells);
                (format!("IVF{cells},Flat"), probes.collect())
            }
        };
        let dimension = u32::try_from(set.dimension).map_err(failed(name))?;
        let mut index =
            index_factory(dimension, &factory, MetricType::InnerProduct).map_err(failed(name))?;
        match structure {
            Structure::Scan => {}
            Structure::Graph => {
                change(&index, "efConstruction", EF_CONSTRUCTION).map_err(failed(name))?;
            }
            Structure::Cells => index.train(&set.rows).map_err(failed(name))?,
        }
        Ok(Self {
            name,
            structure,
            dimension: set.dimension,
            factory,
            index: RwLock::new(index),
            knob,
        })
    }

    fn fault(&self, reason: &str) -> MeasureError {
        MeasureError::Peer {
            contender: self.name,
            reason: reason.to_owned(),
        }
    }

    /// Adds rows that follow those it has.
    fn add(&self, first: usize, rows: &[f32]) -> Result<()> {
        omp_set_num_threads(1);
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        // Rows have no other name than the order in which they came.
        if index.ntotal() != first as u64 {
            return Err(self.fault("rows came out of order"));
        }
        index.add(rows).map_err(failed(self.name))
    }

    /// Gives spare room back.
    fn shrink(&self) -> Result<()> {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        *index = index.try_clone().map_err(failed(self.name))?;
        Ok(())
    }
}

/// Changes a setting of an index that no other thread uses.
fn change(
    index: &IndexImpl,
    name: &str,
    value: usize,
) -> std::result::Result<(), faiss::error::Error> {
    ParameterSpace::new()?.set_index_parameter(index, name, value as f64)
}

impl Contender for Faiss {
    fn settings(&self) -> Vec<Setting> {
        match self.structure {
            Structure::Scan => vec![Setting {
                label: "exact".to_owned(),
                default: true,
            }],
            Structure::Graph => numbered("ef", &self.knob),
            Structure::Cells => numbered("probes", &self.knob),
        }
    }

    fn built(&self) -> Option<String> {
        Some(match self.structure {
            Structure::Scan => self.factory.clone(),
            Structure::Graph => format!(
                "{}, efConstruction {EF_CONSTRUCTION}, rows added in bulk",
                self.factory
            ),
            Structure::Cells => format!("{}, trained on all rows for nothing", self.factory),
        })
    }

    fn turn(&mut self, setting: usize, _: &Dataset) -> Result<()> {
        let name = match self.structure {
            Structure::Scan => return Ok(()),
            Structure::Graph => "efSearch",
            Structure::Cells => "nprobe",
        };
        let index = self.index.get_mut().unwrap_or_else(PoisonError::into_inner);
        change(index, name, self.knob[setting]).map_err(failed(self.name))
    }

    fn insert(&self, row: u64, vector: &[f32]) -> Result<()> {
        if vector.len() != self.dimension {
            return Err(self.fault("the vector has another dimension"));
        }
        self.add(row as usize, vector)
    }

    fn insert_range(&self, rows: Range<usize>, set: &Dataset) -> Result<()> {
        let end = rows.end;
        if self.structure == Structure::Graph {
            self.add(
                rows.start,
                &set.rows[rows.start * set.dimension..rows.end * set.dimension],
            )?;
        } else {
            for row in rows {
                self.insert(row as u64, set.row(row))?;
            }
        }
        if end == set.len() {
            self.shrink()
        } else {
            Ok(())
        }
    }

    fn inserts_singly(&self) -> bool {
        self.structure != Structure::Graph
    }

    fn lookup(&self, query: &[f32], k: usize, _: Option<f32>, out: &mut Vec<Found>) -> Result<()> {
        if query.len() != self.dimension {
            return Err(self.fault("the vector has another dimension"));
        }
        let (mut labels, mut scores) = ([-1i64; 16], [0.0f32; 16]);
        let k = k.min(labels.len());
        omp_set_num_threads(1);
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the index is alive, and the lock keeps it from being changed. The call takes it as
        // const, reads one query of `dimension` components, which are there, and writes `k` scores and
        // labels, for which there is room. FAISS allows such calls from several threads. Exceptions
        // become codes.
        let code = unsafe {
            faiss_sys::faiss_Index_search(
                index.inner_ptr(),
                1,
                query.as_ptr(),
                k as i64,
                scores.as_mut_ptr(),
                labels.as_mut_ptr(),
            )
        };
        if code != 0 {
            return Err(self.fault("a search failed"));
        }
        // What is missing is filled with -1.
        let found = labels.iter().zip(scores).take(k);
        out.extend(found.map_while(|(&row, score)| {
            Some(Found {
                row: u64::try_from(row).ok()?,
                score,
            })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_cells_as_the_rows_can_train() {
        assert_eq!(
            [1, 40, 2_000, 10_000, 100_000].map(cells),
            [1, 1, 32, 256, 1024]
        );
    }
}
