//! The indexes under test, behind one face.

#[cfg(feature = "peers")]
mod hnsw_rs;
#[cfg(hnswlib)]
#[expect(unsafe_code, reason = "calls into C++")]
mod hnswlib;
mod ours;

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

/// All contenders of this build. `patient` admits those that take minutes.
pub(crate) fn all(patient: bool) -> Vec<Entry> {
    let mut entries = ours::entries(patient);
    #[cfg(feature = "peers")]
    entries.push(hnsw_rs::entry(patient));
    #[cfg(hnswlib)]
    entries.push(hnswlib::entry());
    entries
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
    missing
}

/// Settings with these numbers, such as `ef 64`.
#[cfg(feature = "peers")]
fn numbered(knob: &str, numbers: &[usize]) -> Vec<Setting> {
    let setting = |number| Setting {
        label: format!("{knob} {number}"),
        default: false,
    };
    numbers.iter().map(setting).collect()
}

/// Candidates that a graph search keeps, close enough together that no graph pays for much more than
/// it needs.
#[cfg(feature = "peers")]
const EF: [usize; 26] = [
    1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 128, 160, 192, 256,
    384, 768,
];
