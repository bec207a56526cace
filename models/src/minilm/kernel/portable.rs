//! Products of 8-bit codes in portable code.

use super::{Multiply, ROWS, Sums, check, check_outer};
use crate::minilm::file::{PANEL, PANELS};
use crate::minilm::math::LANES;

/// Needs nothing of the CPU.
#[derive(Clone, Copy, Debug)]
pub(in crate::minilm) struct Portable;

impl Multiply for Portable {
    const TOKENS: usize = 8;
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
        for (at, panel) in panels.iter().enumerate() {
            product(panel, at, codes, sums);
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

/// Sets the sums of one panel. Each group of weights is taken apart once for all tokens, so that the
/// inner loop runs over neighbours.
fn product(panel: &[u8], at: usize, codes: &[&[u8]], sums: &mut Sums) {
    let mut found = [[0_i32; PANEL]; Portable::TOKENS];
    let (groups, _) = panel.as_chunks::<{ 4 * PANEL }>();
    for (step, group) in groups.iter().enumerate() {
        let mut planes = [[0_i16; PANEL]; 4];
        for (output, weights) in group.as_chunks::<4>().0.iter().enumerate() {
            for (plane, weight) in planes.iter_mut().zip(weights) {
                plane[output] = i16::from(weight.cast_signed());
            }
        }
        for (found, codes) in found.iter_mut().zip(codes) {
            for (plane, code) in planes.iter().zip(&codes[step * 4..][..4]) {
                let code = i16::from(code.cast_signed());
                for (found, weight) in found.iter_mut().zip(plane) {
                    // A product of two codes fits 16 bits.
                    *found += i32::from(weight * code);
                }
            }
        }
    }
    for (sums, found) in sums.iter_mut().zip(&found[..codes.len()]) {
        sums[at] = *found;
    }
}
