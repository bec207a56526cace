//! Settings of the engine, and when its work is due.

use super::factory::Factory;
use crate::IndexError;
use crate::config::{BuildThread, check};

/// Settings of a [`crate::FaissIndex`].
#[derive(Clone, Debug, PartialEq)]
pub struct FaissConfig {
    /// What FAISS builds, in its own notation: `Flat` or `SQ8` (a byte for each component), alone
    /// for a scan, or after `HNSW<links>,` for a graph, `IVF<cells>,` for cells of k-means, or
    /// `IVF<cells>_HNSW<links>,` for cells that are found by a graph. Default: `HNSW32,SQ8`, which
    /// finds nearly everything and takes a quarter of the room of `HNSW32,Flat`. Cells cost less to
    /// fill and more to search, and need 39 rows each before they can be made.
    pub factory: String,
    /// Candidates weighed when a node of a graph is linked; `8..=2000`. Default: 200.
    pub ef_construction: usize,
    /// Candidates that a search of a graph keeps at least; `1..=10_000`. Default: 64. More finds
    /// more and takes longer, nearly in proportion.
    pub ef_search: usize,
    /// Cells that a search looks into; `1..=65_536`. Default: 16. More finds more and takes longer,
    /// in proportion.
    pub probes: usize,
    /// Rows from which on FAISS is used, and rows that wait until it takes them; `1..`. Default:
    /// 4096. Waiting rows are scanned. Once there are 16 times as many, a sixteenth of all waits, so
    /// that the copies made stay cheap beside the work on the rows.
    pub seal_rows: usize,
    /// Share of rows in FAISS that were removed or replaced, from which on it is built anew; above 0
    /// and below 1. Default: 0.3.
    pub dead_share: f32,
    /// Which thread builds. Default: [`BuildThread::Shared`].
    pub build: BuildThread,
}

impl Default for FaissConfig {
    fn default() -> Self {
        Self {
            factory: "HNSW32,SQ8".to_owned(),
            ef_construction: 200,
            ef_search: 64,
            probes: 16,
            seal_rows: 4096,
            dead_share: 0.3,
            build: BuildThread::Shared,
        }
    }
}

impl FaissConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`IndexError::InvalidConfig`] that names the first field out of range.
    pub fn validate(&self) -> Result<(), IndexError> {
        self.plan().map(drop)
    }

    /// The settings, checked and read.
    pub(super) fn plan(&self) -> Result<Plan, IndexError> {
        let factory = Factory::parse(&self.factory)?;
        let weighed = (8..=2000).contains(&self.ef_construction);
        check(
            "faiss.ef_construction",
            &self.ef_construction,
            "8..=2000",
            weighed,
        )?;
        let kept = (1..=10_000).contains(&self.ef_search);
        check("faiss.ef_search", &self.ef_search, "1..=10_000", kept)?;
        let probed = (1..=65_536).contains(&self.probes);
        check("faiss.probes", &self.probes, "1..=65_536", probed)?;
        let sealed = self.seal_rows >= 1;
        check("faiss.seal_rows", &self.seal_rows, "1 or more", sealed)?;
        let share = self.dead_share > 0.0 && self.dead_share < 1.0;
        check(
            "faiss.dead_share",
            &self.dead_share,
            "above 0 and below 1",
            share,
        )?;
        Ok(Plan {
            factory,
            ef_construction: self.ef_construction,
            ef_search: self.ef_search,
            probes: self.probes,
            seal_rows: self.seal_rows,
            dead_share: self.dead_share,
            build: self.build,
        })
    }
}

/// Settings that are in range.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) factory: Factory,
    pub(super) ef_construction: usize,
    pub(super) ef_search: usize,
    pub(super) probes: usize,
    pub(super) seal_rows: usize,
    pub(super) dead_share: f32,
    pub(super) build: BuildThread,
}

impl Plan {
    /// Rows below which FAISS is not used.
    pub(super) fn least_rows(&self) -> usize {
        self.seal_rows.max(self.factory.least_rows())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_in_range() {
        FaissConfig::default().validate().unwrap();
    }

    #[test]
    fn a_field_out_of_range_is_named_with_its_value_and_the_range() {
        let with = |change: fn(&mut FaissConfig)| {
            let mut config = FaissConfig::default();
            change(&mut config);
            config.validate().unwrap_err().to_string()
        };
        let cases = [
            (
                with(|config| config.ef_construction = 7),
                "faiss.ef_construction is 7, allowed is 8",
            ),
            (
                with(|config| config.ef_search = 0),
                "faiss.ef_search is 0, allowed is 1",
            ),
            (
                with(|config| config.probes = 0),
                "faiss.probes is 0, allowed is 1",
            ),
            (
                with(|config| config.seal_rows = 0),
                "faiss.seal_rows is 0, allowed is 1",
            ),
            (
                with(|config| config.dead_share = f32::NAN),
                "faiss.dead_share is NaN, allowed is above",
            ),
            (
                with(|config| config.factory.clear()),
                "faiss.factory is ``, allowed is `Flat`",
            ),
        ];
        for (message, start) in cases {
            assert!(message.starts_with(start), "{message}");
        }
    }
}
