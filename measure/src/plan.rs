//! What to measure.

use std::path::PathBuf;
use std::time::Duration;

use crate::Goal;
use crate::dataset::SetPlan;
use crate::mixed::MixedPlan;

/// A list of measurements.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Such as `quick`, for the report.
    pub name: &'static str,
    /// Sets on which all contenders are compared.
    pub sets: Vec<SetPlan>,
    /// What lookups have to find.
    pub goals: Vec<Goal>,
    /// Share of it that is enough.
    pub target: f64,
    /// Longest that the settings of one contender are tried for one goal, once one is good enough.
    pub sweep: Duration,
    /// Whether half of the rows are deleted at the end of each set.
    pub delete: bool,
    /// Lookups beside writes.
    pub mixed: Option<MixedPlan>,
    /// Sizes at which the cost of a lookup is taken, in growing order.
    pub growth: Vec<usize>,
    /// Components of the rows that grow.
    pub growth_dimension: usize,
    /// Admits contenders that take many minutes.
    pub patient: bool,
    /// Folder of labelled prompts.
    pub prompts: Option<PathBuf>,
    /// Seed of every random choice.
    pub seed: u64,
}

/// Components of the synthetic sets of a quick run.
const QUICK_DIMENSION: usize = 256;

impl Plan {
    /// 10k, 20k real and 100k, and everything that has a target: some minutes.
    #[must_use]
    pub fn quick() -> Self {
        Self {
            name: "quick",
            sets: vec![
                synthetic(10_000, QUICK_DIMENSION, 2_000),
                real(20_000, 2_000),
                synthetic(100_000, QUICK_DIMENSION, 1_000),
            ],
            goals: vec![Goal::Above08],
            target: 0.99,
            sweep: Duration::from_secs(2),
            delete: true,
            mixed: Some(MixedPlan::default()),
            growth: vec![10_000, 30_000, 100_000, 300_000, 1_000_000],
            growth_dimension: QUICK_DIMENSION,
            patient: false,
            prompts: None,
            seed: 42,
        }
    }

    /// Every size and dimension: hours, and 12 GB of memory.
    #[must_use]
    pub fn full() -> Self {
        let mut sets = Vec::new();
        for dimension in [128, 256, 384, 1536] {
            for rows in [1_000, 10_000, 100_000] {
                sets.push(synthetic(rows, dimension, 1_000));
            }
        }
        sets.push(synthetic(1_000_000, 128, 500));
        sets.push(synthetic(1_000_000, QUICK_DIMENSION, 500));
        sets.push(real(1_000, 1_000));
        sets.push(real(20_000, 2_000));
        sets.push(real(90_000, 2_000));
        Self {
            name: "full",
            sets,
            goals: vec![Goal::Above08, Goal::Above09, Goal::Best],
            sweep: Duration::from_secs(20),
            patient: true,
            ..Self::quick()
        }
    }

    /// Only the synthetic sets of this many rows or this many components, of those that a quick run
    /// has and of those made to measure.
    #[must_use]
    pub fn only(mut self, rows: Option<usize>, dimension: Option<usize>) -> Self {
        if rows.is_none() && dimension.is_none() {
            return self;
        }
        let rows = rows.map_or_else(|| vec![10_000, 100_000], |rows| vec![rows]);
        let dimension = dimension.unwrap_or(QUICK_DIMENSION);
        self.sets = rows
            .into_iter()
            .map(|rows| synthetic(rows, dimension, 1_000))
            .collect();
        self.mixed = None;
        self.growth = Vec::new();
        self
    }
}

fn synthetic(rows: usize, dimension: usize, queries: usize) -> SetPlan {
    SetPlan {
        rows,
        dimension,
        queries,
        prompts: false,
    }
}

fn real(rows: usize, queries: usize) -> SetPlan {
    SetPlan {
        rows,
        dimension: 128,
        queries,
        prompts: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_or_a_dimension_narrows_the_run_to_it() {
        let plan = Plan::quick().only(Some(5_000), Some(64));
        assert_eq!(plan.sets.len(), 1);
        assert_eq!((plan.sets[0].rows, plan.sets[0].dimension), (5_000, 64));
        assert!(plan.mixed.is_none() && plan.growth.is_empty());
        assert_eq!(Plan::quick().only(None, None).sets, Plan::quick().sets);
    }
}
