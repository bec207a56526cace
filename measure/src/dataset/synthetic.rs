//! Clustered vectors, harder to search than the embeddings of real text.
//!
//! A mixture of one Gaussian for each hundred rows, in clusters of uneven size, with a spectrum that
//! decays and that no axis shows, at unit length. Half of the queries are a stored vector turned to a
//! cosine of 0.80 to 0.98, as a paraphrase is; half are fresh draws, most of them misses.

use std::thread;

use super::{SetPlan, dot, normalize};
use crate::error::{MeasureError, Result};
use crate::random::Random;

/// Rows for each Gaussian.
const CLUSTER: usize = 100;

/// Spread of a cluster against that of the centres. Chosen so that 54 to 61 % of the queries have a
/// neighbour at 0.8, as real questions had.
const SPREAD: f32 = 0.64;

/// The standard deviation along axis `j` is `(j + 1)` to the power of minus this.
const DECAY: f32 = 0.25;

/// Rows drawn by one generator, so that the number of threads changes nothing.
const BATCH: usize = 4096;

/// Draws rows and queries.
pub(crate) fn vectors(plan: &SetPlan, asked: usize, seed: u64) -> Result<(Vec<f32>, Vec<f32>)> {
    let mixture = Mixture::new(plan.dimension, plan.rows.div_ceil(CLUSTER), seed)?;
    let rows = mixture.rows(plan.rows, seed);
    let mut random = Random::new(seed ^ 0x5155_4552);
    let mut queries = Vec::with_capacity(asked * plan.dimension);
    for query in 0..asked {
        if query % 2 == 0 {
            let row = &rows[random.below(plan.rows) * plan.dimension..][..plan.dimension];
            let cosine = 0.80 + 0.18 * random.unit();
            turned(row, cosine, &mut random, &mut queries);
        } else {
            mixture.draw(&mut random, &mut queries);
        }
    }
    Ok((rows, queries))
}

/// Appends a unit vector at this cosine to `row`, in a random direction.
pub(crate) fn turned(row: &[f32], cosine: f32, random: &mut Random, out: &mut Vec<f32>) {
    let mut away: Vec<f32> = row.iter().map(|_| random.normal()).collect();
    let along = dot(&away, row);
    for (x, y) in away.iter_mut().zip(row) {
        *x -= along * y;
    }
    normalize(&mut away);
    let sine = (1.0 - cosine * cosine).sqrt();
    let start = out.len();
    out.extend(row.iter().zip(&away).map(|(x, y)| cosine * x + sine * y));
    normalize(&mut out[start..]);
}

/// Where rows are drawn from.
#[derive(Debug)]
pub(crate) struct Mixture {
    dimension: usize,
    scales: Vec<f32>,
    centres: Vec<f32>,
    rotation: Rotation,
}

impl Mixture {
    pub(crate) fn new(dimension: usize, clusters: usize, seed: u64) -> Result<Self> {
        if !dimension.is_multiple_of(8) || !(8..=8192).contains(&dimension) {
            return Err(MeasureError::Setting {
                field: "dimension",
                value: dimension.to_string(),
                allowed: "a multiple of 8 from 8 to 8192",
            });
        }
        let mut random = Random::new(seed);
        let scales: Vec<f32> = (1..=dimension).map(|j| (j as f32).powf(-DECAY)).collect();
        let centres = (0..clusters.max(1))
            .flat_map(|_| &scales)
            .map(|scale| scale * random.normal())
            .collect();
        let rotation = Rotation::new(dimension, &mut random);
        Ok(Self {
            dimension,
            scales,
            centres,
            rotation,
        })
    }

    /// Appends one unit vector.
    pub(crate) fn draw(&self, random: &mut Random, out: &mut Vec<f32>) {
        let clusters = self.centres.len() / self.dimension;
        // Squared, so that the first clusters are the largest.
        let skewed = random.unit().powi(2);
        let cluster = ((skewed * clusters as f32) as usize).min(clusters - 1);
        let centre = &self.centres[cluster * self.dimension..][..self.dimension];
        let start = out.len();
        let drawn = centre.iter().zip(&self.scales);
        out.extend(drawn.map(|(x, scale)| x + SPREAD * scale * random.normal()));
        self.rotation.apply(&mut out[start..]);
        normalize(&mut out[start..]);
    }

    /// Draws many rows, on two threads.
    pub(crate) fn rows(&self, rows: usize, seed: u64) -> Vec<f32> {
        let mut out = vec![0.0; rows * self.dimension];
        let mut batches: Vec<(usize, &mut [f32])> =
            out.chunks_mut(BATCH * self.dimension).enumerate().collect();
        let second = batches.split_off(batches.len() / 2);
        let fill = |batches: Vec<(usize, &mut [f32])>| {
            for (number, batch) in batches {
                let mut random = Random::new(seed.wrapping_add(1 + number as u64) << 20);
                let mut drawn = Vec::with_capacity(batch.len());
                while drawn.len() < batch.len() {
                    self.draw(&mut random, &mut drawn);
                }
                batch.copy_from_slice(&drawn);
            }
        };
        thread::scope(|scope| {
            scope.spawn(|| fill(batches));
            fill(second);
        });
        out
    }
}

/// An orthogonal map that mixes all axes: three rounds of random signs, a Hadamard transform over
/// blocks of a power of two, and a random order of the components.
#[derive(Debug)]
struct Rotation {
    block: usize,
    rounds: Vec<(Vec<f32>, Vec<usize>)>,
}

impl Rotation {
    fn new(dimension: usize, random: &mut Random) -> Self {
        let block = 1 << dimension.trailing_zeros();
        // Blocks as small as 8 need more rounds until each component has met every other.
        let rounds = if block < 64 { 6 } else { 3 };
        let rounds = (0..rounds).map(|_| {
            let sign = |bit: u64| if bit == 0 { 1.0 } else { -1.0 };
            let signs = (0..dimension).map(|_| sign(random.next() & 1)).collect();
            let mut order: Vec<usize> = (0..dimension).collect();
            random.shuffle(&mut order);
            (signs, order)
        });
        Self {
            block,
            rounds: rounds.collect(),
        }
    }

    fn apply(&self, vector: &mut [f32]) {
        let scale = 1.0 / (self.block as f32).sqrt();
        let mut mixed = vec![0.0; vector.len()];
        for (signs, order) in &self.rounds {
            for (x, sign) in vector.iter_mut().zip(signs) {
                *x *= sign * scale;
            }
            vector.chunks_mut(self.block).for_each(hadamard);
            for (to, &from) in mixed.iter_mut().zip(order) {
                *to = vector[from];
            }
            vector.copy_from_slice(&mixed);
        }
    }
}

/// The fast Walsh-Hadamard transform of a power of two of components, not scaled.
fn hadamard(values: &mut [f32]) {
    let mut half = 1;
    while half < values.len() {
        for pair in values.chunks_mut(2 * half) {
            let (low, high) = pair.split_at_mut(half);
            for (x, y) in low.iter_mut().zip(high) {
                (*x, *y) = (*x + *y, *x - *y);
            }
        }
        half *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_keeps_lengths_and_angles_and_hides_the_axes() {
        for dimension in [8, 24, 128, 384] {
            let mut random = Random::new(3);
            let rotation = Rotation::new(dimension, &mut random);
            let (mut a, mut b): (Vec<f32>, Vec<f32>) = (0..dimension)
                .map(|_| (random.normal(), random.normal()))
                .unzip();
            let before = (dot(&a, &a), dot(&a, &b));
            rotation.apply(&mut a);
            rotation.apply(&mut b);
            let scale = before.0;
            assert!((dot(&a, &a) - before.0).abs() < 1e-4 * scale);
            assert!((dot(&a, &b) - before.1).abs() < 1e-4 * scale);

            let mut axis = vec![0.0; dimension];
            axis[0] = 1.0;
            rotation.apply(&mut axis);
            let touched = axis.iter().filter(|x| x.abs() > 1e-6).count();
            assert!(touched * 4 >= dimension, "{touched} of {dimension}");
        }
    }

    #[test]
    fn a_turned_vector_has_the_cosine_asked_for() {
        let mut random = Random::new(4);
        let mut row: Vec<f32> = (0..64).map(|_| random.normal()).collect();
        normalize(&mut row);
        for cosine in [0.8, 0.9, 0.98] {
            let mut out = Vec::new();
            turned(&row, cosine, &mut random, &mut out);
            assert!((dot(&row, &out) - cosine).abs() < 1e-5);
        }
    }

    #[test]
    fn a_seed_gives_the_same_rows_again() {
        let plan = SetPlan {
            rows: 10_000,
            dimension: 16,
            queries: 10,
            prompts: false,
        };
        let drawn = |seed| vectors(&plan, plan.queries, seed).unwrap();
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
    }

    #[test]
    fn about_half_of_the_queries_have_a_neighbor() {
        let plan = SetPlan {
            rows: 10_000,
            dimension: 256,
            queries: 400,
            prompts: false,
        };
        let (rows, queries) = vectors(&plan, plan.queries, 1).unwrap();
        let truth = super::super::nearest(256, &rows, &queries, &|_| true);
        let near = truth.iter().filter(|best| best[0].cosine >= 0.8).count();
        assert!((200..=280).contains(&near), "{near} of 400");
    }

    #[test]
    fn a_dimension_that_cannot_be_rotated_is_refused() {
        assert!(Mixture::new(100, 1, 1).is_err());
    }
}
