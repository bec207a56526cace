//! Derivatives of the loss by a curve's rises, and the step that they call for.

use super::Place;

/// Sums up derivatives by row into derivatives by weight. A row beyond a rise has the whole of it, a row on
/// it a part, a row before it none: so sums per interval suffice, and sums of those from the end.
pub(super) struct Slopes {
    /// Number of rises.
    rises: usize,
    /// Per interval: slope; slope by part; curvature; by part; by squared part.
    intervals: Vec<[f64; 5]>,
    unknown: [f64; 2],
}

impl Slopes {
    /// For a curve of `weights` weights: its rises, and the unknown.
    pub(super) fn new(weights: usize) -> Self {
        Self {
            rises: weights - 1,
            intervals: vec![[0.0; 5]; weights],
            unknown: [0.0; 2],
        }
    }

    /// Counts a row with the first and second derivative of its loss by its margin.
    pub(super) fn add(&mut self, place: Place, first: f64, second: f64) {
        match place {
            Place::Unknown => {
                self.unknown[0] += first;
                self.unknown[1] += second;
            }
            Place::Between { knot, part } => {
                let part = f64::from(part);
                let sums = &mut self.intervals[knot];
                let row = [
                    first,
                    first * part,
                    second,
                    second * part,
                    second * part * part,
                ];
                for (sum, value) in sums.iter_mut().zip(row) {
                    *sum += value;
                }
            }
        }
    }

    pub(super) fn finish(self) -> Derivatives {
        let count = self.rises + 1;
        let mut slope = vec![0.0; count];
        let mut curvature = vec![0.0; count * count];
        let mut with_base = vec![0.0; count];
        // Rows beyond the rise at hand.
        let (mut first, mut second) = (0.0, 0.0);
        if let Some(last) = self.intervals.get(self.rises) {
            first += last[0];
            second += last[2];
        }
        for b in (0..self.rises).rev() {
            let [slopes, by_part, curvatures, curvature_by_part, by_square] = self.intervals[b];
            slope[b] = first + by_part;
            curvature[b * count + b] = second + by_square;
            with_base[b] = second + curvature_by_part;
            for a in 0..b {
                // Whoever has a part of this rise has the whole of those before.
                curvature[a * count + b] = with_base[b];
                curvature[b * count + a] = with_base[b];
            }
            first += slopes;
            second += curvatures;
        }
        slope[self.rises] = self.unknown[0];
        curvature[count * count - 1] = self.unknown[1];
        with_base[self.rises] = self.unknown[1];
        Derivatives {
            slope,
            curvature,
            with_base,
            base: [first + self.unknown[0], second + self.unknown[1]],
        }
    }
}

/// First and second derivatives of the loss by the weights of a curve and the base.
pub(super) struct Derivatives {
    pub(super) slope: Vec<f64>,
    /// By two weights, row by row.
    pub(super) curvature: Vec<f64>,
    /// By a weight and the base.
    pub(super) with_base: Vec<f64>,
    /// First and second by the base.
    pub(super) base: [f64; 2],
}

impl Derivatives {
    /// Turns them into the derivatives with the base always following to where it is best. Without this the
    /// base and the first rise, which nearly all rows have, take turns for ever.
    pub(super) fn follow_base(&mut self) {
        let [first, second] = self.base;
        if second <= 0.0 {
            return;
        }
        let count = self.slope.len();
        for a in 0..count {
            let share = self.with_base[a] / second;
            self.slope[a] -= share * first;
            for b in 0..count {
                self.curvature[a * count + b] -= share * self.with_base[b];
            }
        }
    }

    /// How far the base goes when the weights go this far.
    pub(super) fn base_step(&self, step: &[f64]) -> f64 {
        let [first, second] = self.base;
        if second <= 0.0 {
            return 0.0;
        }
        let pulled: f64 = self.with_base.iter().zip(step).map(|(c, s)| c * s).sum();
        -(first + pulled) / second
    }
}

/// The weights that make the second-order expansion around `now` least, where all but the last must have
/// this sign; 0 leaves them free. Coordinate descent, which a matrix of this size ends soon.
pub(super) fn least_square(now: &[f64], slope: &[f64], curvature: &[f64], sign: i8) -> Vec<f64> {
    let count = now.len();
    let mut found = now.to_vec();
    let mut slope = slope.to_vec();
    for _ in 0..SWEEPS {
        let mut largest = 0.0f64;
        for a in 0..count {
            let own = curvature[a * count + a];
            // What differs from 0 by rounding only has no direction.
            if own <= 1e-12 {
                continue;
            }
            let mut wanted = found[a] - slope[a] / own;
            if a + 1 < count {
                wanted = match sign {
                    1 => wanted.max(0.0),
                    -1 => wanted.min(0.0),
                    _ => wanted,
                };
            }
            let step = wanted - found[a];
            if step != 0.0 {
                found[a] = wanted;
                for (b, slope) in slope.iter_mut().enumerate() {
                    *slope += curvature[a * count + b] * step;
                }
                largest = largest.max(step.abs());
            }
        }
        if largest < 1e-9 {
            break;
        }
    }
    found
}

const SWEEPS: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivatives_are_those_of_the_sum_over_rows() {
        let between = |knot, part| Place::Between { knot, part };
        let rows = [
            (between(0, 0.0), 1.0, 0.5),
            (between(0, 0.25), -2.0, 1.0),
            (between(1, 0.5), 3.0, 2.0),
            (between(2, 0.0), 0.5, 0.25),
            (Place::Unknown, 4.0, 3.0),
        ];
        let mut slopes = Slopes::new(3);
        for (place, first, second) in rows {
            slopes.add(place, first, second);
        }
        let found = slopes.finish();

        // How much of each weight a row has.
        let parts = |place| match place {
            Place::Unknown => [0.0, 0.0, 1.0],
            Place::Between { knot: 0, part } => [f64::from(part), 0.0, 0.0],
            Place::Between { knot: 1, part } => [1.0, f64::from(part), 0.0],
            Place::Between { .. } => [1.0, 1.0, 0.0],
        };
        for a in 0..3 {
            let expected: f64 = rows.iter().map(|&(p, first, _)| first * parts(p)[a]).sum();
            assert!((found.slope[a] - expected).abs() < 1e-12);
            let expected: f64 = rows
                .iter()
                .map(|&(p, _, second)| second * parts(p)[a])
                .sum();
            assert!((found.with_base[a] - expected).abs() < 1e-12);
            for b in 0..3 {
                let expected: f64 = rows
                    .iter()
                    .map(|&(p, _, second)| second * parts(p)[a] * parts(p)[b])
                    .sum();
                assert!(
                    (found.curvature[a * 3 + b] - expected).abs() < 1e-12,
                    "{a} {b}"
                );
            }
        }
    }

    #[test]
    fn a_step_that_the_base_follows_is_the_step_of_both() {
        let mut slopes = Slopes::new(2);
        slopes.add(Place::Between { knot: 0, part: 0.5 }, 1.0, 0.5);
        slopes.add(Place::Between { knot: 1, part: 0.0 }, -3.0, 1.0);
        slopes.add(Place::Unknown, 2.0, 0.25);
        let mut derivatives = slopes.finish();
        assert_eq!(derivatives.base, [0.0, 1.75]);
        derivatives.follow_base();
        let step = least_square(&[0.0; 2], &derivatives.slope, &derivatives.curvature, 0);
        let base = derivatives.base_step(&step);
        // Three rows, three weights: each row's own best margin is reached.
        assert!((base + 0.5 * step[0] + 2.0).abs() < 1e-6);
        assert!((base + step[0] - 3.0).abs() < 1e-6);
        assert!((base + step[1] + 8.0).abs() < 1e-6);
    }

    #[test]
    fn the_solution_keeps_the_sign_but_for_the_unknown() {
        // Free minimum: (2, -1, -3).
        let curvature = [2.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 4.0];
        let slope = [-4.0, 1.0, 12.0];
        let free = least_square(&[0.0; 3], &slope, &curvature, 0);
        assert_eq!(free, [2.0, -1.0, -3.0]);
        assert_eq!(
            least_square(&[0.0; 3], &slope, &curvature, 1),
            [2.0, 0.0, -3.0]
        );
        assert_eq!(
            least_square(&[0.0; 3], &slope, &curvature, -1),
            [0.0, -1.0, -3.0]
        );
    }
}
