//! Where to cut a cell in two.
//!
//! Two-means on the rows of the cell (Lloyd 1957), begun with two rows far apart, and cut by the
//! plane halfway between the means. A cut that would leave too few rows on one side goes through
//! the median instead, so a split always makes progress. Only rows that are all alike cannot be
//! cut; their cell stays whole.
//!
//! A split changes who belongs where: rows around it may be nearer to one of the new centers than to
//! their own, and rows of the cell nearer to a center around it. The writer looks at the cells
//! around and moves such rows (compare Xu et al., "SPFresh", SOSP 2023), so that cells stay what
//! k-means would make of them, without ever training on the whole.

use super::directory::Center;
use crate::kernel::{Kernel, RowLine};

/// Rounds of two-means. More change little: a cell is small and will be cut again.
const ROUNDS: usize = 5;
/// Least share of the rows on a side.
const LEAST_SHARE: usize = 4;
/// Rows that differ by less along the cut are alike.
const ALIKE: f32 = 1e-5;

/// Cuts rows in two: tells which of them go to the first half. `units` are the rows as unit vectors
/// of `width` components, side by side. `None` if they are all alike.
pub(super) fn cut(kernel: Kernel, units: &[f32], width: usize) -> Option<Vec<bool>> {
    let count = units.len() / width;
    let row = |at: usize| &units[at * width..][..width];
    let mut scores = vec![0.0f32; count];

    // Two rows far apart: the farthest from the mean, and the farthest from that one.
    let mean = mean_of(kernel, units, width, |_| true);
    let farthest_from = |from: &[f32], scores: &mut [f32]| {
        kernel.dot_rows(from, units, scores);
        let order = scores.iter().enumerate();
        order.min_by(|a, b| a.1.total_cmp(b.1)).map(|(at, _)| at)
    };
    let first = farthest_from(&mean, &mut scores)?;
    let second = farthest_from(row(first), &mut scores)?;
    let (mut left, mut right) = (row(first).to_vec(), row(second).to_vec());
    let mut across = vec![0.0f32; width];
    let mut middle = 0.0;
    for round in 0..=ROUNDS {
        for ((across, left), right) in across.iter_mut().zip(&left).zip(&right) {
            *across = left - right;
        }
        kernel.dot_rows(&across, units, &mut scores);
        middle =
            (kernel.sum_of_products(&left, &left) - kernel.sum_of_products(&right, &right)) / 2.0;
        if round < ROUNDS {
            left = mean_of(kernel, units, width, |at| scores[at] > middle);
            right = mean_of(kernel, units, width, |at| scores[at] <= middle);
        }
    }

    let mut sorted = scores.clone();
    sorted.sort_unstable_by(f32::total_cmp);
    let (&lowest, &highest) = (sorted.first()?, sorted.last()?);
    if highest - lowest < ALIKE {
        return None;
    }
    let least = (count / LEAST_SHARE).max(1);
    let halfway = scores.iter().filter(|&&score| score > middle).count();
    if !(least..=count - least).contains(&halfway) {
        middle = sorted[(count - 1) / 2];
        if middle == highest {
            // More than half are the largest: they go by themselves.
            middle = sorted[sorted.partition_point(|&score| score < highest) - 1];
        }
    }
    Some(scores.iter().map(|&score| score > middle).collect())
}

/// Mean of the chosen rows; zero if there are none.
pub(super) fn mean_of(
    kernel: Kernel,
    units: &[f32],
    width: usize,
    chosen: impl Fn(usize) -> bool,
) -> Vec<f32> {
    let mut mean = vec![0.0f32; width];
    let mut count = 0u32;
    for (at, row) in units.chunks_exact(width).enumerate() {
        if chosen(at) {
            count += 1;
            kernel.add(row, &mut mean);
        }
    }
    let scale = 1.0 / count.max(1) as f32;
    for x in &mut mean {
        *x *= scale;
    }
    mean
}

/// Rounds a mean to 8 bits a component.
pub(super) fn center_of(mean: &[f32]) -> (Vec<RowLine>, Center) {
    let (lines, scale) = quantize(mean);
    let squared: f32 = lines
        .iter()
        .flat_map(|line| line.0)
        .map(|x| f32::from(x) * f32::from(x))
        .sum();
    let norm = scale * squared.sqrt();
    if norm < 1e-6 {
        return (lines, Center::NONE);
    }
    (lines, Center::new(scale, norm))
}

/// Rounds to 8 bits a component; and what a component is worth.
fn quantize(vector: &[f32]) -> (Vec<RowLine>, f32) {
    let largest = vector.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let scale = largest / 127.0;
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    let lines = vector.as_chunks::<64>().0.iter();
    let lines = lines.map(|part| RowLine(part.map(|x| (x * inverse).round() as i8)));
    (lines.collect(), scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binary::rotate::split_mix;
    use crate::vector::with_unit;

    fn units(vectors: &[Vec<f32>]) -> Vec<f32> {
        let unit = |vector: &Vec<f32>| with_unit(vector.len(), vector, |unit| Ok(unit.to_vec()));
        vectors.iter().flat_map(|v| unit(v).unwrap()).collect()
    }

    fn noise(state: &mut u64) -> Vec<f32> {
        let mut random = || (split_mix(state) >> 40) as f32 / (1 << 24) as f32 - 0.5;
        (0..64).map(|_| random()).collect()
    }

    #[test]
    fn two_groups_are_told_apart() {
        let mut state = 5;
        let vectors: Vec<Vec<f32>> = (0..100)
            .map(|at| {
                let mut vector = noise(&mut state);
                vector[0] += if at % 3 == 0 { 6.0 } else { -6.0 };
                vector
            })
            .collect();
        let sides = cut(Kernel::detect(), &units(&vectors), 64).unwrap();
        for at in 0..100 {
            assert_eq!(sides[at], sides[at % 3], "row {at}");
        }
        assert_ne!(sides[0], sides[1]);
    }

    #[test]
    fn an_outlier_does_not_get_a_cell_of_its_own_and_equal_rows_are_not_cut() {
        let mut state = 6;
        let mut vectors: Vec<Vec<f32>> = (0..60)
            .map(|_| {
                let mut vector = noise(&mut state);
                vector[1] += 9.0;
                vector
            })
            .collect();
        vectors[7] = vectors[7].iter().map(|x| -x).collect();
        let sides = cut(Kernel::detect(), &units(&vectors), 64).unwrap();
        let left = sides.iter().filter(|&&left| left).count();
        assert!((10..=50).contains(&left), "{left} of 60 on one side");

        let mut alike = vec![vectors[0].clone(); 30];
        assert_eq!(cut(Kernel::detect(), &units(&alike), 64), None);
        alike[3] = vectors[1].clone();
        let sides = cut(Kernel::detect(), &units(&alike), 64).unwrap();
        assert!(
            sides
                .iter()
                .enumerate()
                .all(|(at, &side)| (side == sides[3]) == (at == 3))
        );
    }
}
