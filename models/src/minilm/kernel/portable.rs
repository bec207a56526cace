//! Products of 8-bit codes in portable code.

use super::{Multiply, ROWS, Sums, check, check_outer};
use crate::minilm::file::{PANEL, PANELS};
use crate::minilm::math::LANES;

/// Needs nothing of the CPU.
#[derive(Clone, Copy, Debug)]
pub(in crate::minilm) struct Portable;

impl Multiply for Portable {
    const TOKENS: usize = 4;
    const FLIP: u8 = 0;

    #[inline(always)]
    fn tile(
        self,
        panels: [&[u8]; PANELS],
        _offsets: &[i32; PANEL * PANELS],
        codes: &[&[u8]],
        sums: &mut Sums,
    ) {
        check(panels, codes, Self::TOKENS);
        for (codes, sums) in codes.iter().zip(sums) {
            for (panel, sums) in panels.iter().zip(sums) {
                *sums = product(panel, codes);
            }
        }
    }

    #[inline(always)]
    fn outer(
        self,
        a: &[f32],
        a_row: usize,
        b: &[f32],
        b_row: usize,
        steps: usize,
    ) -> [[f32; LANES]; ROWS] {
        check_outer(a, a_row, b, b_row, steps);
        let mut sums = [[0.0; LANES]; ROWS];
        for step in 0..steps {
            for (row, sums) in sums.iter_mut().enumerate() {
                let a = a[row * a_row + step];
                for (sum, b) in sums.iter_mut().zip(&b[step * b_row..][..LANES]) {
                    *sum += a * b;
                }
            }
        }
        sums
    }
}

fn product(panel: &[u8], codes: &[u8]) -> [i32; PANEL] {
    let mut sums = [0; PANEL];
    let (fours, _) = codes.as_chunks::<4>();
    let (groups, _) = panel.as_chunks::<{ 4 * PANEL }>();
    for (group, four) in groups.iter().zip(fours) {
        let four = four.map(|code| i32::from(code.cast_signed()));
        for (sum, weights) in sums.iter_mut().zip(group.as_chunks::<4>().0) {
            for (weight, code) in weights.iter().zip(four) {
                *sum += i32::from(weight.cast_signed()) * code;
            }
        }
    }
    sums
}
