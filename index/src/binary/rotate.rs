//! One fixed random rotation of all vectors.
//!
//! The sign of a component is a good bit of a code only if components are alike: none much larger
//! than the others, none always of one sign. Embeddings are not so; a random rotation makes them
//! so, and keeps every angle. It is made of sign flips and Hadamard transforms, which take
//! `d log d` additions and no memory (Ailon and Chazelle, "The fast Johnson-Lindenstrauss
//! transform", 2009). Where the length is no power of two, the transforms take turns over the first
//! and the last power of two that fit in.

use super::LANE;
use crate::kernel::Kernel;

/// The rotation of vectors of one dimension. The same in every process and version: snapshots
/// hold rotated rows.
#[derive(Debug)]
pub(super) struct Rotation {
    dimension: usize,
    padded: usize,
    kernel: Kernel,
    /// One round after the other: a sign for each component.
    signs: Vec<f32>,
}

/// Names the rotation: another one has another seed.
pub(super) const SEED: u64 = 0x61_736b_6f6e_6365;

impl Rotation {
    pub(super) fn new(dimension: usize) -> Self {
        let padded = dimension.next_multiple_of(LANE);
        // Two rounds mix all components with all others; halves that only overlap need four.
        let rounds = if padded.is_power_of_two() { 2 } else { 4 };
        let mut state = SEED;
        let signs = (0..rounds * padded)
            .map(|_| {
                if split_mix(&mut state) >> 63 == 0 {
                    1.0
                } else {
                    -1.0
                }
            })
            .collect();
        Self {
            dimension,
            padded,
            kernel: Kernel::detect(),
            signs,
        }
    }

    /// Components of a rotated vector: the dimension, rounded up to whole words of a code.
    pub(super) fn padded(&self) -> usize {
        self.padded
    }

    /// Puts the rotated vector in place of what `out` held.
    pub(super) fn apply(&self, vector: &[f32], out: &mut Vec<f32>) {
        out.clear();
        out.extend_from_slice(vector);
        out.resize(self.padded, 0.0);
        let block = self.block();
        // Keeps lengths, and makes the transform its own inverse.
        let scale = 1.0 / (block as f32).sqrt();
        for (round, signs) in self.signs.chunks_exact(self.padded).enumerate() {
            for (x, sign) in out.iter_mut().zip(signs) {
                *x *= sign;
            }
            self.kernel.hadamard(self.part(round, block, out), scale);
        }
    }

    /// Undoes [`Self::apply`]; leaves the components of the dimension.
    pub(super) fn undo(&self, vector: &mut Vec<f32>) {
        let block = self.block();
        // Keeps lengths, and makes the transform its own inverse.
        let scale = 1.0 / (block as f32).sqrt();
        for (round, signs) in self.signs.chunks_exact(self.padded).enumerate().rev() {
            self.kernel.hadamard(self.part(round, block, vector), scale);
            for (x, sign) in vector.iter_mut().zip(signs) {
                *x *= sign;
            }
        }
        vector.truncate(self.dimension);
    }

    /// The largest power of two that fits in.
    fn block(&self) -> usize {
        1 << self.padded.ilog2()
    }

    fn part<'v>(&self, round: usize, block: usize, vector: &'v mut [f32]) -> &'v mut [f32] {
        let start = if round % 2 == 0 {
            0
        } else {
            self.padded - block
        };
        &mut vector[start..start + block]
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
pub(super) fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_rotation_keeps_products_and_can_be_undone(
            dimension in prop::sample::select(vec![1usize, 2, 24, 64, 100, 128, 200, 384, 1536]),
            seed in any::<u64>(),
        ) {
            let mut state = seed;
            let mut random = || (split_mix(&mut state) >> 40) as f32 / (1 << 24) as f32 - 0.5;
            let a: Vec<f32> = (0..dimension).map(|_| random()).collect();
            let b: Vec<f32> = (0..dimension).map(|_| random()).collect();
            let rotation = Rotation::new(dimension);
            let (mut ra, mut rb) = (Vec::new(), Vec::new());
            rotation.apply(&a, &mut ra);
            rotation.apply(&b, &mut rb);
            let dot = |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(x, y)| x * y).sum() };
            prop_assert!((dot(&a, &b) - dot(&ra, &rb)).abs() < 1e-4 * dimension as f32);
            rotation.undo(&mut ra);
            for (x, y) in a.iter().zip(&ra) {
                prop_assert!((x - y).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn a_single_component_is_spread_over_all() {
        for dimension in [64, 128, 384, 1536] {
            for at in [0, dimension / 2, dimension - 1] {
                let mut vector = vec![0.0; dimension];
                vector[at] = 1.0;
                let mut rotated = Vec::new();
                Rotation::new(dimension).apply(&vector, &mut rotated);
                let largest = rotated.iter().fold(0.0f32, |m, x| m.max(x.abs()));
                assert!(
                    largest < 6.0 / (dimension as f32).sqrt(),
                    "{dimension}: {largest}"
                );
            }
        }
    }
}
