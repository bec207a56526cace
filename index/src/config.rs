//! Settings of the engines.

use std::fmt::Display;

use crate::IndexError;

/// Which structure an [`crate::AutoIndex`] may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum IndexKind {
    /// Flat up to [`AutoConfig::flat_limit`] rows, a graph above it if the build has one. The
    /// default.
    #[default]
    Auto,
    /// Always flat: exact, with a search time that grows with the rows.
    Flat,
    /// A graph from the first row on. For tests and comparisons; a partition of a few rows pays
    /// some tens of kilobytes for nothing.
    Hnsw,
}

/// Which thread does the work on a graph: linking rows, building anew, auditing.
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

/// Settings of an [`crate::AutoIndex`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AutoConfig {
    /// Which structures may be used. Default: [`IndexKind::Auto`].
    pub kind: IndexKind,
    /// Rows up to which the index stays flat; `1..`. Default: 65 536, for the measurements at
    /// [`crate::AutoIndex`] with 128 components; a scan takes time in proportion to the
    /// components, so halve it for each doubling of them if lookup time is what counts. An index
    /// that shrank returns to flat at a quarter of it.
    pub flat_limit: usize,
    /// Rows that one graph may hold before another is begun; from `flat_limit` on. Bounds what a
    /// rebuild takes in time and memory. Default: 262 144.
    pub shard_limit: usize,
    /// Settings of the graphs, and of the thread that builds them.
    pub hnsw: HnswConfig,
}

impl Default for AutoConfig {
    fn default() -> Self {
        Self {
            kind: IndexKind::Auto,
            flat_limit: 65_536,
            shard_limit: 262_144,
            hnsw: HnswConfig::default(),
        }
    }
}

impl AutoConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`IndexError::InvalidConfig`] that names the first field out of range.
    pub fn validate(&self) -> Result<(), IndexError> {
        check(
            "flat_limit",
            &self.flat_limit,
            "1 or more",
            self.flat_limit >= 1,
        )?;
        let enough = self.shard_limit >= self.flat_limit;
        check(
            "shard_limit",
            &self.shard_limit,
            "flat_limit or more",
            enough,
        )?;
        self.hnsw.validate()
    }
}

/// Settings of a graph index.
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
    /// Share of nodes whose row is gone from which on the graph is built anew; above 0 and below
    /// 1. Default: 0.3. Less keeps searches lean and builds more often.
    pub dead_share: f32,
    /// Which thread links rows and builds graphs. Default: [`BuildThread::Shared`].
    pub build: BuildThread,
}

impl Default for HnswConfig {
    fn default() -> Self {
        Self {
            links: 32,
            ef_construction: 200,
            ef_search: 64,
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
        AutoConfig::default().validate().unwrap();
    }

    #[test]
    fn a_field_out_of_range_is_named_with_its_value_and_the_range() {
        let hnsw = HnswConfig {
            dead_share: 1.5,
            ..HnswConfig::default()
        };
        let error = AutoConfig {
            hnsw,
            ..AutoConfig::default()
        }
        .validate()
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "hnsw.dead_share is 1.5, allowed is above 0 and below 1"
        );
    }
}
