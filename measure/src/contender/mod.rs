//! The indexes under test, behind one face.

#[cfg(feature = "faiss")]
#[expect(unsafe_code, reason = "calls a C library")]
mod faiss;
#[cfg(feature = "peers")]
mod hnsw_rs;
#[cfg(hnswlib)]
#[expect(unsafe_code, reason = "calls into C++")]
mod hnswlib;
mod ours;
#[cfg(feature = "usearch")]
mod usearch;

pub(crate) use ours::{Made, binary};

use crate::dataset::Dataset;
use crate::error::Result;

/// A row that a contender found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Found {
    pub(crate) row: u64,
    pub(crate) score: f32,
}

/// One position of the knob that trades time for recall.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Such as `ef 64`.
    pub(crate) label: String,
    /// What the contender does unless told otherwise.
    pub(crate) default: bool,
}

/// An index that is filled, asked, and thinned out.
pub(crate) trait Contender: Send + Sync {
    /// Positions of its knob. A default comes first; the rest are in the order of growing cost.
    fn settings(&self) -> Vec<Setting>;

    /// How it was built, where that is not a matter of course.
    fn built(&self) -> Option<String> {
        None
    }

    /// Turns the knob. May build a copy of the index over the rows of the set, if the knob is one of
    /// building.
    fn turn(&mut self, setting: usize, set: &Dataset) -> Result<()>;

    /// Stores one row.
    fn insert(&self, row: u64, vector: &[f32]) -> Result<()>;

    /// Stores rows of the set; one by one unless the contender is known to need more than one thread.
    fn insert_range(&self, rows: std::ops::Range<usize>, set: &Dataset) -> Result<()> {
        for row in rows {
            self.insert(row as u64, set.row(row))?;
        }
        Ok(())
    }

    /// Whether [`insert_range`](Self::insert_range) inserts one by one on one thread.
    fn inserts_singly(&self) -> bool {
        true
    }

    /// Does all work that is put off.
    fn settle(&self) {}

    /// Learns from queries that are not measured, if the contender does such a thing.
    fn practice(&self, _: &Dataset) -> Result<()> {
        Ok(())
    }

    /// The best `k` rows, best first, of those at `min_score` or more if the contender can leave the
    /// others out by itself.
    fn lookup(
        &self,
        query: &[f32],
        k: usize,
        min_score: Option<f32>,
        out: &mut Vec<Found>,
    ) -> Result<()>;

    /// Takes a row out, or returns `false` if the contender cannot.
    fn delete(&self, row: u64) -> Result<bool>;

    /// Bytes that the contender says it holds.
    fn bytes(&self) -> Option<usize>;

    /// Bytes in use that it gets from the system by itself, so that the allocator does not count them.
    fn mapped_bytes(&self) -> usize {
        0
    }

    /// Bytes that it takes once, however many rows there are: not counted, as they would make small
    /// sets look dear.
    fn fixed_bytes(&self) -> usize {
        0
    }
}

/// Who is measured, and how one is made for a set.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    /// Most rows that it is given, where more would take too long.
    pub(crate) most_rows: usize,
    #[expect(clippy::type_complexity, reason = "a constructor")]
    pub(crate) make: Box<dyn Fn(&Dataset) -> Result<Box<dyn Contender>>>,
}

/// Name of our engine in every table.
pub(crate) const OURS: &str = "ours";
/// Our engine after its own audit of a thousand queries, none of which is measured.
pub(crate) const OURS_AUDITED: &str = "ours audited";
/// Name of hnswlib.
pub(crate) const HNSWLIB: &str = "hnswlib";
/// Name of the crate `hnsw_rs` by itself.
pub(crate) const HNSW_RS: &str = "hnsw_rs";
/// Name of the engine of ours that is built on `hnsw_rs`.
pub(crate) const HNSW_RS_INT8: &str = "hnsw_rs int8";
/// Name of the graph of FAISS by itself.
#[cfg(feature = "faiss")]
const FAISS_HNSW: &str = "faiss hnsw";
/// Name of the cells of FAISS by itself.
#[cfg(feature = "faiss")]
const FAISS_IVF: &str = "faiss ivf";
/// Name of the scan of FAISS by itself.
#[cfg(feature = "faiss")]
const FAISS_FLAT: &str = "faiss flat";
/// Name of the engine of ours that is built on FAISS.
#[cfg(feature = "faiss")]
const FAISS_INT8: &str = "faiss int8";
/// Name of usearch.
#[cfg(feature = "usearch")]
const USEARCH: &str = "usearch";
/// Name of usearch with rows of a byte for each component.
#[cfg(feature = "usearch")]
const USEARCH_I8: &str = "usearch i8";

/// All contenders of this build. `patient` admits those that take minutes.
pub(crate) fn all(patient: bool) -> Vec<Entry> {
    // Each feature adds its own.
    [
        ours::entries(patient),
        #[cfg(feature = "peers")]
        vec![hnsw_rs::entry(patient)],
        #[cfg(hnswlib)]
        vec![hnswlib::entry()],
        #[cfg(feature = "faiss")]
        faiss::entries(patient),
        #[cfg(feature = "usearch")]
        usearch::entries(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What is not in this build though it could be, and how to get it.
pub(crate) fn missing() -> Vec<String> {
    let mut missing = Vec::new();
    if cfg!(all(feature = "peers", not(hnswlib))) {
        missing.push(
            "hnswlib IS NOT MEASURED: its headers were not found when this was built. Install them \
             (`apt-get install libhnswlib-dev`) or set HNSWLIB_INCLUDE to the folder that holds \
             hnswlib/hnswlib.h, and run again."
                .to_owned(),
        );
    }
    if cfg!(not(feature = "peers")) {
        missing.push(
            "hnswlib and the crate hnsw_rs are not in this build: `cargo bench --bench index` has \
             them."
                .to_owned(),
        );
    }
    if cfg!(not(feature = "faiss")) {
        missing.push(
            "FAISS IS NOT IN THIS BUILD: `cargo bench --bench index --features faiss` has it. It is \
             compiled from source by a C++ compiler, CMake and a BLAS (`apt-get install g++ cmake \
             libopenblas-dev`), which takes some minutes, once."
                .to_owned(),
        );
    }
    if cfg!(not(feature = "usearch")) {
        missing.push(
            "usearch IS NOT IN THIS BUILD: `cargo bench --bench index --features \
             askonce-measure/usearch` has it. It is compiled from source by a C++17 compiler, which \
             takes some minutes, once."
                .to_owned(),
        );
    }
    missing
}

/// The failure of an index of others, in its words.
#[cfg(any(feature = "faiss", feature = "usearch"))]
fn failed<E: std::fmt::Display>(
    contender: &'static str,
) -> impl FnOnce(E) -> crate::error::MeasureError {
    move |error| crate::error::MeasureError::Peer {
        contender,
        reason: error.to_string(),
    }
}

/// Settings with these numbers, such as `ef 64`.
#[cfg(any(feature = "peers", feature = "faiss", feature = "usearch"))]
fn numbered(knob: &str, numbers: &[usize]) -> Vec<Setting> {
    let setting = |number| Setting {
        label: format!("{knob} {number}"),
        default: false,
    };
    numbers.iter().map(setting).collect()
}

/// Candidates that a graph search keeps, close enough together that no graph pays for much more than
/// it needs.
#[cfg(any(feature = "peers", feature = "faiss", feature = "usearch"))]
const EF: [usize; 38] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 22, 24, 26, 28, 32, 36,
    40, 48, 56, 64, 80, 96, 128, 160, 192, 256, 384, 768,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Goal;
    use crate::dataset::{SetPlan, dot};

    /// Share of the queries with a neighbour for which a row about as near as the best one is found.
    fn found(contender: &dyn Contender, set: &Dataset) -> f64 {
        let goal = Goal::Above08;
        let (mut counted, mut found) = (0, 0);
        for (query, truth) in set.truth.iter().enumerate().filter(|(_, t)| goal.counts(t)) {
            let mut out = Vec::new();
            let query = set.query(query);
            contender
                .lookup(query, 1, goal.min_score(), &mut out)
                .unwrap();
            counted += 1;
            found += usize::from(out.first().is_some_and(|near| {
                let cosine = dot(query, set.row(near.row as usize));
                // What a contender says of its own row is about right, whatever its codes.
                assert!((near.score - cosine).abs() < 0.03, "{near:?}, not {cosine}");
                cosine >= truth[0].cosine - 0.01
            }));
        }
        assert!(counted >= 50, "{counted} queries have a neighbour");
        found as f64 / counted as f64
    }

    #[test]
    fn every_contender_finds_what_it_was_given_and_no_more_what_was_deleted() {
        let plan = SetPlan {
            rows: 2_000,
            dimension: 64,
            queries: 200,
            prompts: false,
        };
        let set = Dataset::make(&plan, None, 7).unwrap();
        for entry in all(false) {
            let name = entry.name;
            let mut contender = (entry.make)(&set).unwrap();
            for start in (0..set.len()).step_by(500) {
                contender.insert_range(start..start + 500, &set).unwrap();
                contender.settle();
            }
            let settings = contender.settings();
            let knob = settings.iter().filter(|setting| !setting.default).count();
            let recall = if knob == 0 {
                vec![found(&*contender, &set)]
            } else {
                let ends = [settings.len() - knob, settings.len() - 1];
                ends.map(|setting| {
                    contender.turn(setting, &set).unwrap();
                    found(&*contender, &set)
                })
                .to_vec()
            };
            println!(
                "{name}: recall {recall:?}, built with {:?}",
                contender.built()
            );
            let (cheapest, costliest) = (recall[0], recall[recall.len() - 1]);
            assert!(costliest >= 0.98, "{name}: {costliest}");
            assert!(cheapest <= costliest, "{name}: {cheapest}, {costliest}");
            assert!(
                contender.bytes().is_none_or(|bytes| bytes > set.len() * 64),
                "{name}"
            );

            let best = set
                .truth
                .iter()
                .position(|truth| Goal::Above08.counts(truth))
                .unwrap();
            let row = u64::from(set.truth[best][0].row);
            if contender.delete(row).unwrap() {
                contender.settle();
                let mut out = Vec::new();
                contender
                    .lookup(set.query(best), 10, None, &mut out)
                    .unwrap();
                assert!(out.iter().all(|near| near.row != row), "{name}");
            }
        }
    }
}
