//! Where to cut a cell in two.
//!
//! Two-means on the rows of the cell (Lloyd 1957), begun with two rows far apart, and cut by the
//! plane halfway between the means. A cut that would leave too few rows on one side goes through
//! the median instead, so a split always makes progress. Only rows that are all alike cannot be
//! cut; their cell stays whole.

use super::directory::Center;
use super::encode::Encoder;
use crate::kernel::RowLine;

/// Rounds of two-means. More change little: a cell is small and will be cut again.
const ROUNDS: usize = 5;
/// Least share of the rows on a side.
const LEAST_SHARE: usize = 6;

/// A plane, and on which side of it the rows are.
#[derive(Debug)]
pub(super) struct Cut {
    pub(super) plane: Vec<RowLine>,
    pub(super) bias: i32,
    pub(super) goes_left: Vec<bool>,
}

/// Cuts rows in two. `units` are the rows as unit vectors, side by side; `high` gives their first
/// planes, by which they are told apart for good. `None` if they are all alike.
pub(super) fn cut<'r>(
    encoder: &Encoder,
    units: &[f32],
    high: impl Fn(usize) -> &'r [RowLine],
) -> Option<Cut> {
    let width = encoder.bits();
    let count = units.len() / width;
    let row = |at: usize| &units[at * width..][..width];
    let mut scores = vec![0.0f32; count];

    // Two rows far apart: the farthest from the mean, and the farthest from that one.
    let mean = mean_of(units, width, |_| true);
    let farthest_from = |from: &[f32], scores: &mut [f32]| {
        encoder.kernel.dot_rows(from, units, scores);
        let order = scores.iter().enumerate();
        order.min_by(|a, b| a.1.total_cmp(b.1)).map(|(at, _)| at)
    };
    let first = farthest_from(&mean, &mut scores)?;
    let second = farthest_from(row(first), &mut scores)?;
    let (mut left, mut right) = (row(first).to_vec(), row(second).to_vec());
    let mut across = vec![0.0f32; width];
    for round in 0..=ROUNDS {
        for ((across, left), right) in across.iter_mut().zip(&left).zip(&right) {
            *across = left - right;
        }
        if round == ROUNDS {
            break;
        }
        encoder.kernel.dot_rows(&across, units, &mut scores);
        let middle = (dot(&left, &left) - dot(&right, &right)) / 2.0;
        left = mean_of(units, width, |at| scores[at] > middle);
        right = mean_of(units, width, |at| scores[at] <= middle);
    }

    // From here on in integers, so that a row is sent the same way ever after.
    let plane = quantize(&across).0;
    let mut products = vec![0i32; count];
    for (at, product) in products.iter_mut().enumerate() {
        encoder
            .kernel
            .dot_lines(high(at), &plane, std::slice::from_mut(product));
    }
    let mut sorted = products.clone();
    sorted.sort_unstable();
    // How many rows the plane halfway between the means sends left.
    encoder.kernel.dot_rows(&across, units, &mut scores);
    let middle = (dot(&left, &left) - dot(&right, &right)) / 2.0;
    let halfway = scores.iter().filter(|&&score| score > middle).count();
    let least = (count / LEAST_SHARE).max(1);
    let wanted = if (least..=count - least).contains(&halfway) {
        count - halfway
    } else {
        count / 2
    };
    let bias = bias_near(&sorted, wanted)?;
    let goes_left = products.iter().map(|&product| product > bias).collect();
    Some(Cut {
        plane,
        bias,
        goes_left,
    })
}

/// A bias that sends about `wanted` of the products right, and some each way. `None` if all
/// products are equal.
fn bias_near(sorted: &[i32], wanted: usize) -> Option<i32> {
    let (&least, &most) = (sorted.first()?, sorted.last()?);
    if least == most {
        return None;
    }
    let bias = sorted[wanted.saturating_sub(1).min(sorted.len() - 1)];
    // All that equal the largest go right with it, so it cannot be the bias.
    if bias < most {
        return Some(bias);
    }
    let below = sorted.partition_point(|&product| product < most);
    sorted.get(below.checked_sub(1)?).copied()
}

/// Mean of the chosen rows; zero if there are none.
pub(super) fn mean_of(units: &[f32], width: usize, chosen: impl Fn(usize) -> bool) -> Vec<f32> {
    let mut mean = vec![0.0f32; width];
    let mut count = 0u32;
    for (at, row) in units.chunks_exact(width).enumerate() {
        if chosen(at) {
            count += 1;
            for (sum, x) in mean.iter_mut().zip(row) {
                *sum += x;
            }
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
    (lines, Center { scale, norm })
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

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binary::config::Precision;
    use crate::binary::encode::Encoded;
    use crate::binary::rotate::split_mix;
    use crate::vector::with_unit;

    fn rows(encoder: &Encoder, vectors: &[Vec<f32>]) -> (Vec<f32>, Vec<Vec<RowLine>>) {
        let (mut units, mut high) = (Vec::new(), Vec::new());
        for vector in vectors {
            let mut encoded = Encoded::default();
            let unit = with_unit(vector.len(), vector, |unit| Ok(unit.to_vec())).unwrap();
            encoder.encode(&unit, &mut encoded);
            units.extend_from_slice(&encoded.rotated);
            high.push(encoded.high);
        }
        (units, high)
    }

    #[test]
    fn two_groups_are_told_apart() {
        let encoder = Encoder::new(64, Precision::Int8);
        let mut state = 5;
        let vectors: Vec<Vec<f32>> = (0..100)
            .map(|at| {
                let mut vector: Vec<f32> = (0..64)
                    .map(|_| (split_mix(&mut state) >> 40) as f32 / (1 << 24) as f32 - 0.5)
                    .collect();
                vector[0] += if at % 3 == 0 { 6.0 } else { -6.0 };
                vector
            })
            .collect();
        let (units, high) = rows(&encoder, &vectors);
        let cut = cut(&encoder, &units, |at| &high[at]).unwrap();
        for at in 0..100 {
            assert_eq!(cut.goes_left[at], cut.goes_left[at % 3], "row {at}");
        }
        assert_ne!(cut.goes_left[0], cut.goes_left[1]);
    }

    #[test]
    fn an_outlier_does_not_get_a_cell_of_its_own_and_equal_rows_are_not_cut() {
        let encoder = Encoder::new(64, Precision::Int8);
        let mut state = 6;
        let mut vectors: Vec<Vec<f32>> = (0..60)
            .map(|_| {
                let mut vector: Vec<f32> = (0..64)
                    .map(|_| (split_mix(&mut state) >> 40) as f32 / (1 << 24) as f32 - 0.5)
                    .collect();
                vector[1] += 9.0;
                vector
            })
            .collect();
        vectors[7] = vectors[7].iter().map(|x| -x).collect();
        let (units, high) = rows(&encoder, &vectors);
        let halves = cut(&encoder, &units, |at| &high[at]).unwrap().goes_left;
        let left = halves.iter().filter(|&&left| left).count();
        assert!((10..=50).contains(&left), "{left} of 60 on one side");

        let equal = vec![vectors[0].clone(); 30];
        let (units, high) = rows(&encoder, &equal);
        assert!(cut(&encoder, &units, |at| &high[at]).is_none());
    }
}
