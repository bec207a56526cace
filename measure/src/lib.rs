//! Measures vector indexes on the workload of a cache, against each other and against the machine.
//!
//! `cargo bench --bench index` and `askonce bench index` run this crate. What is measured, and how:
//!
//! | module | measures |
//! |---|---|
//! | `equal_recall` | lookups, inserts, deletes and memory of all contenders, at equal recall |
//! | `mixed` | lookups beside writes, over millions of operations |
//! | `growth` | what a lookup costs as rows grow; how long a snapshot and a restore take |
//! | `native` | how fast this machine reads, and what is allocated |
//!
//! `dataset` makes rows, queries and the truth; `contender` has the indexes; `report` and `plot` show
//! the result. Where a choice could flatter our engines, the other one is made, and the place says so.

mod clock;
mod contender;
mod dataset;
mod equal_recall;
mod error;
mod growth;
mod mixed;
#[expect(
    unsafe_code,
    reason = "asks the allocator, and reads by vector instructions"
)]
mod native;
mod plan;
mod plot;
mod random;
mod report;

use std::fmt;
use std::time::Instant;

use serde::Serialize;

pub use clock::Latency;
pub use dataset::{Origin, SetPlan};
pub use equal_recall::{ContenderReport, GoalReport, HalfDeleted, Limit, Point, SetReport, Speed};
pub use error::MeasureError;
pub use growth::{GrowthReport, RestoreReport, Step};
pub use mixed::{MixedPlan, MixedReport};
pub use plan::Plan;
pub use plot::draw;
pub use report::{Check, Machine, Report, commit, cpu};

use dataset::{Dataset, Near};
use error::Result;

/// Told what is being done.
pub type Progress<'a> = &'a dyn Fn(&str);

/// What a lookup has to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// The best row, where its cosine is 0.8 or more.
    Above08,
    /// The best row, where its cosine is 0.9 or more.
    Above09,
    /// The best row, however far it is.
    Best,
}

impl Goal {
    /// The threshold that a lookup may know.
    pub(crate) fn min_score(self) -> Option<f32> {
        match self {
            Self::Above08 => Some(0.8),
            Self::Above09 => Some(0.9),
            Self::Best => None,
        }
    }

    /// Whether a query with these true neighbours counts.
    pub(crate) fn counts(self, truth: &[Near]) -> bool {
        let least = self.min_score().unwrap_or(-1.0);
        truth.first().is_some_and(|best| best.cosine >= least)
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Above08 => "neighbours >= 0.8",
            Self::Above09 => "neighbours >= 0.9",
            Self::Best => "recall@1",
        })
    }
}

/// Runs a plan.
///
/// # Errors
/// A setting is out of range, the labelled prompts cannot be used, or a contender fails.
pub fn run(plan: &Plan, progress: Progress<'_>) -> std::result::Result<Report, MeasureError> {
    let start = Instant::now();
    let entries = contender::all(plan.patient);
    let missing = contender::missing();
    for line in &missing {
        progress(line);
    }
    let mut sets = Vec::new();
    for set_plan in &plan.sets {
        let set = made(set_plan, plan, progress)?;
        let task = equal_recall::Task {
            goals: &plan.goals,
            target: plan.target,
            sweep: plan.sweep,
            delete: plan.delete,
        };
        sets.push(equal_recall::run(&task, &set, &entries, progress)?);
    }
    let ours = |dimension| contender::binary(dimension, 0);
    let mixed = plan
        .mixed
        .as_ref()
        .map(|plan| mixed::run(plan, &ours, progress));
    let growth = (!plan.growth.is_empty()).then(|| growth::run(plan, &ours, progress));
    Ok(Report::new(
        plan,
        missing,
        sets,
        mixed.transpose()?,
        growth.transpose()?,
        start.elapsed().as_secs_f64(),
    ))
}

fn made(set: &SetPlan, plan: &Plan, progress: Progress<'_>) -> Result<Dataset> {
    progress(&format!(
        "making a set of {} rows and looking the truth up",
        set.rows
    ));
    Dataset::make(set, plan.prompts.as_deref(), plan.seed)
}
