use serde::{Deserialize, Serialize};

use super::scan::MOST_FEATURES;
use crate::FitError;
use crate::fit::check_monotone;

/// How a [`Forest`](super::Forest) is fitted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ForestSettings {
    /// Most trees, 1 to 10,000. Default: 200.
    pub trees: u32,
    /// Most leaves of a tree, 2 to 1,024. Default: 15.
    pub leaves: u16,
    /// What each tree's word is multiplied with, above 0 and at most 1: with a smaller rate more trees
    /// are needed and the result is smoother. Default: 0.05.
    pub rate: f64,
    /// Least weight of the rows in a leaf; a row of weight 1 counts as one. Default: 40.
    pub least_rows: f64,
    /// Penalty on the square of a leaf's value: draws the words of small leaves to 0. Default: 5.
    pub l2: f64,
    /// Share of the rows that a tree sees, drawn anew for each, above 0 and at most 1. Default: 0.8.
    pub row_share: f64,
    /// Share of the features that a tree may cut by, drawn anew for each, above 0 and at most 1.
    /// Default: 0.6.
    pub column_share: f64,
    /// Most bins of a feature, 2 to 255: cuts lie between bins only. Default: 64.
    pub bins: u8,
    /// Per feature 1 when a greater value must never lower the margin, -1 when it must never raise it,
    /// 0 when it may do either; empty for 0 throughout. Default: empty.
    pub monotone: Vec<i8>,
    /// Whether and when to stop before all trees are grown. Default: never.
    pub early_stop: Option<EarlyStop>,
    /// What row and feature sampling start from: the same seed and rows give the same forest. Default: 0.
    pub seed: u64,
}

impl Default for ForestSettings {
    fn default() -> Self {
        Self {
            trees: 200,
            leaves: 15,
            rate: 0.05,
            least_rows: 40.0,
            l2: 5.0,
            row_share: 0.8,
            column_share: 0.6,
            bins: 64,
            monotone: Vec::new(),
            early_stop: None,
            seed: 0,
        }
    }
}

/// Ends growth when rows that no tree has seen are no longer predicted better.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyStop {
    /// Share of the rows that is held out, above 0 and at most 0.5. The *last* rows are, so that a
    /// caller keeps rows of one group together by ordering them.
    pub share: f64,
    /// Trees without a gain after which growth ends; the trees behind the best are dropped. At least 1.
    pub patience: u32,
}

impl ForestSettings {
    pub(super) fn check(&self, features: usize) -> Result<(), FitError> {
        let require = |good: bool, field, found: &dyn ToString, remedy| match good {
            true => Ok(()),
            false => Err(FitError::Setting {
                field,
                found: found.to_string(),
                remedy,
            }),
        };
        let share = |share: f64| share > 0.0 && share <= 1.0;
        require(
            (1..=10_000).contains(&self.trees),
            "trees",
            &self.trees,
            "give 1 to 10,000",
        )?;
        require(
            (2..=1_024).contains(&self.leaves),
            "leaves",
            &self.leaves,
            "give 2 to 1,024",
        )?;
        require(
            share(self.rate),
            "rate",
            &self.rate,
            "give a number above 0 and up to 1",
        )?;
        require(
            self.least_rows.is_finite() && self.least_rows > 0.0,
            "least_rows",
            &self.least_rows,
            "give a number above 0",
        )?;
        require(
            self.l2.is_finite() && self.l2 >= 0.0,
            "l2",
            &self.l2,
            "give a number of 0 or more",
        )?;
        require(
            share(self.row_share),
            "row_share",
            &self.row_share,
            "give a share above 0 and up to 1",
        )?;
        require(
            share(self.column_share),
            "column_share",
            &self.column_share,
            "give a share above 0 and up to 1",
        )?;
        require(self.bins >= 2, "bins", &self.bins, "give 2 to 255")?;
        require(
            features <= MOST_FEATURES,
            "features",
            &features,
            "a forest reads at most 32,768",
        )?;
        if let Some(stop) = self.early_stop {
            require(
                stop.share > 0.0 && stop.share <= 0.5,
                "early_stop.share",
                &stop.share,
                "give a share above 0 and up to 0.5",
            )?;
            require(
                stop.patience > 0,
                "early_stop.patience",
                &stop.patience,
                "give 1 or more",
            )?;
        }
        check_monotone(&self.monotone, features)
    }
}
