//! Rows to store, queries to ask, and the true answers.

pub(crate) mod real;
pub(crate) mod synthetic;

use std::path::Path;
use std::thread;

use serde::Serialize;

use crate::error::Result;

/// True neighbours kept for each query.
pub(crate) const TRUTH: usize = 10;

/// Queries that are not measured.
const PRACTICE: usize = 1_000;

/// Where the vectors of a set come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Drawn from a mixture of Gaussians.
    Synthetic,
    /// Questions that people asked, by the built-in embedding model.
    Real,
    /// Questions made from templates, by the built-in embedding model: there is no labelled data.
    Templates,
}

/// Which set to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetPlan {
    /// Rows stored.
    pub rows: usize,
    /// Components; what the model gives for a set of real prompts.
    pub dimension: usize,
    /// Queries asked.
    pub queries: usize,
    /// Embed prompts, labelled ones if there are any, and do not draw.
    pub prompts: bool,
}

/// A row and its cosine to a query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Near {
    pub(crate) row: u32,
    pub(crate) cosine: f32,
}

/// Rows, queries, and what is nearest to each query.
#[derive(Debug)]
pub(crate) struct Dataset {
    pub(crate) origin: Origin,
    pub(crate) dimension: usize,
    /// Row after row.
    pub(crate) rows: Vec<f32>,
    queries: Vec<f32>,
    /// Queries of the same kind that are not measured, for engines that learn from some.
    practice: Vec<f32>,
    /// For each query the best rows, best first.
    pub(crate) truth: Vec<Vec<Near>>,
}

impl Dataset {
    /// Makes a set, and looks the truth up. `prompts` is the folder of labelled prompts.
    pub(crate) fn make(plan: &SetPlan, prompts: Option<&Path>, seed: u64) -> Result<Self> {
        let (origin, dimension, rows, mut queries) = if plan.prompts {
            real::vectors(prompts, plan.rows, plan.queries + PRACTICE, seed)?
        } else {
            let (rows, queries) = synthetic::vectors(plan, plan.queries + PRACTICE, seed)?;
            (Origin::Synthetic, plan.dimension, rows, queries)
        };
        // Queries of all kinds come in random or in alternating order.
        let asked = plan.queries.min(queries.len() / dimension) * dimension;
        let practice = queries.split_off(asked);
        let mut set = Self {
            origin,
            dimension,
            rows,
            queries,
            practice,
            truth: Vec::new(),
        };
        set.truth = set.truth_among(&|_| true);
        Ok(set)
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len() / self.dimension
    }

    pub(crate) fn asked(&self) -> usize {
        self.queries.len() / self.dimension
    }

    pub(crate) fn row(&self, row: usize) -> &[f32] {
        &self.rows[row * self.dimension..][..self.dimension]
    }

    pub(crate) fn query(&self, query: usize) -> &[f32] {
        &self.queries[query * self.dimension..][..self.dimension]
    }

    /// Queries that are not measured.
    pub(crate) fn practice(&self) -> impl Iterator<Item = &[f32]> {
        self.practice.chunks(self.dimension)
    }

    /// Such as `synthetic 10k x 256`.
    pub(crate) fn name(&self) -> String {
        let origin = match self.origin {
            Origin::Synthetic => "synthetic",
            Origin::Real => "real",
            Origin::Templates => "templates",
        };
        format!("{origin} {} x {}", count(self.len()), self.dimension)
    }

    /// The best of the rows that are `live`, for each query.
    pub(crate) fn truth_among(&self, live: &(dyn Fn(usize) -> bool + Sync)) -> Vec<Vec<Near>> {
        nearest(self.dimension, &self.rows, &self.queries, live)
    }
}

/// `1000` as `1k`, `1000000` as `1M`.
pub(crate) fn count(n: usize) -> String {
    match n {
        n if n >= 1_000_000 && n.is_multiple_of(100_000) => format!("{}M", n as f64 / 1e6),
        n if n >= 1_000 && n.is_multiple_of(100) => format!("{}k", n as f64 / 1e3),
        n => n.to_string(),
    }
}

/// The best [`TRUTH`] of the live rows for each query, by reading all rows, on two threads.
pub(crate) fn nearest(
    dimension: usize,
    rows: &[f32],
    queries: &[f32],
    live: &(dyn Fn(usize) -> bool + Sync),
) -> Vec<Vec<Near>> {
    /// Rows that stay in the nearest cache while all queries are compared with them.
    const BLOCK: usize = 32;
    let asked = queries.len() / dimension;
    let half = asked.div_ceil(2).max(1) * dimension;
    let search = |queries: &[f32]| {
        let mut tops: Vec<Vec<Near>> = queries.chunks(dimension).map(|_| Vec::new()).collect();
        for (block, rows) in rows.chunks(BLOCK * dimension).enumerate() {
            for (query, top) in queries.chunks(dimension).zip(&mut tops) {
                for (at, row) in rows.chunks(dimension).enumerate() {
                    let number = block * BLOCK + at;
                    let cosine = dot(query, row);
                    let wanted = top.len() < TRUTH || top.last().is_some_and(|n| cosine > n.cosine);
                    if wanted && live(number) {
                        let place = top.partition_point(|n| n.cosine >= cosine);
                        top.truncate(TRUTH - 1);
                        let row = u32::try_from(number).unwrap_or(u32::MAX);
                        top.insert(place, Near { row, cosine });
                    }
                }
            }
        }
        tops
    };
    thread::scope(|scope| {
        let parts: Vec<_> = queries
            .chunks(half)
            .map(|part| scope.spawn(move || search(part)))
            .collect();
        parts
            .into_iter()
            // A panic of the search is one of this call.
            .flat_map(|part| {
                part.join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    })
}

/// The inner product, in sixteen sums so that the compiler can use vector instructions.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 16];
    let (a_parts, a_rest) = a.as_chunks::<16>();
    let (b_parts, b_rest) = b.as_chunks::<16>();
    for (a, b) in a_parts.iter().zip(b_parts) {
        for ((sum, x), y) in sums.iter_mut().zip(a).zip(b) {
            *sum += x * y;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum();
    sums.iter().sum::<f32>() + rest
}

/// Scales a vector to length 1.
pub(crate) fn normalize(vector: &mut [f32]) {
    let length = dot(vector, vector).sqrt();
    if length > 0.0 {
        for x in vector {
            *x /= length;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: SetPlan = SetPlan {
        rows: 2_000,
        dimension: 64,
        queries: 100,
        prompts: false,
    };

    #[test]
    fn the_truth_is_what_a_plain_search_finds() {
        let set = Dataset::make(&PLAN, None, 1).unwrap();
        let live = |row: usize| row.is_multiple_of(3);
        let truth = set.truth_among(&live);
        assert_eq!(truth.len(), 100);
        for (query, truth) in truth.iter().enumerate() {
            let mut all: Vec<(usize, f32)> = (0..set.len())
                .filter(|&row| live(row))
                .map(|row| (row, dot(set.query(query), set.row(row))))
                .collect();
            all.sort_by(|a, b| b.1.total_cmp(&a.1));
            let expected: Vec<f32> = all.iter().take(TRUTH).map(|n| n.1).collect();
            let found: Vec<f32> = truth.iter().map(|n| n.cosine).collect();
            assert_eq!(found, expected);
            assert!(truth.iter().all(|n| live(n.row as usize)));
        }
    }

    #[test]
    fn counts_are_short_where_they_are_round() {
        let shown = [1_000, 10_000, 89_566, 100_000, 1_000_000, 7].map(count);
        assert_eq!(shown, ["1k", "10k", "89566", "100k", "1M", "7"]);
    }
}
