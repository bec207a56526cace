//! Arithmetic in f32 that has the same bits on every machine.
//!
//! Each value comes from correctly rounded single operations in an order that is written down:
//! no fused multiply-add, no library function, and sums go through [`LANES`] partial sums that are
//! folded by halves. So the compiler may use vectors of any width, and the result does not depend
//! on them.

/// Partial sums of a sum.
pub(super) const LANES: usize = 16;

/// 1.5 * 2^23: adding it to a small float leaves the nearest integer in the low bits.
const ROUNDER: f32 = 12_582_912.0;

/// The sum of partial sums.
#[inline(always)]
pub(super) fn folded(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

#[inline(always)]
pub(super) fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The nearest integer, as the low byte of its two's complement; within -127 to 127.
#[inline(always)]
pub(super) fn rounded(x: f32) -> u8 {
    (x + ROUNDER).to_bits() as u8
}

/// e to the power of `x`, to about 3e-7 of itself; for `x` from -87 to 87, and as for the nearer end
/// beyond.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    let x = if x > -87.0 { x } else { -87.0 };
    let x = if x < 87.0 { x } else { 87.0 };
    let shifted = x * std::f32::consts::LOG2_E + ROUNDER;
    let whole = shifted - ROUNDER;
    // ln 2 in two parts, so that the remainder is exact enough.
    let rest = x - whole * 0.693_359_4 - whole * -2.121_944_4e-4;
    let series = 1.0
        + rest
            * (1.0
                + rest
                    * (0.5
                        + rest
                            * (1.0 / 6.0
                                + rest
                                    * (1.0 / 24.0 + rest * (1.0 / 120.0 + rest * (1.0 / 720.0))))));
    let exponent = shifted
        .to_bits()
        .wrapping_sub(ROUNDER.to_bits())
        .wrapping_add(127)
        << 23;
    series * f32::from_bits(exponent)
}

/// The Gaussian error linear unit, `x * Phi(x)`, with the error function of Abramowitz and Stegun
/// 7.1.26: within 1.5e-7 of it.
#[inline(always)]
pub(super) fn gelu(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let series = t
        * (0.254_829_6
            + t * (-0.284_496_72 + t * (1.421_413_8 + t * (-1.453_152_1 + t * 1.061_405_4))));
    let erf = 1.0 - series * exp(-z * z);
    0.5 * x * (1.0 + erf.copysign(x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_near_the_library_function() {
        for i in -8700..=8700 {
            let x = i as f32 / 100.0;
            let relative = (f64::from(exp(x)) / f64::from(x).exp() - 1.0).abs();
            assert!(relative < 4e-7, "{x}: {relative}");
        }
        assert_eq!(exp(-1e30), exp(-87.0));
    }

    #[test]
    fn gelu_is_near_its_definition() {
        // Phi by the trapezoid rule over the density, fine enough to be exact here.
        let mut phi = 0.5_f64;
        let density = |x: f64| (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let step = 1e-3;
        for i in 0..6000_i32 {
            let x = f64::from(i) * step;
            for (x, phi) in [(x, phi), (-x, 1.0 - phi)] {
                let found = f64::from(gelu(x as f32));
                assert!((found - x * phi).abs() < 2e-6, "{x}: {found} {}", x * phi);
            }
            phi += (density(x) + density(x + step)) / 2.0 * step;
        }
    }

    #[test]
    fn rounding_is_to_the_nearest_even_integer() {
        for i in -1270..=1270 {
            let x = i as f32 / 10.0;
            let found = f32::from(rounded(x).cast_signed());
            assert_eq!(found, x.round_ties_even(), "{x}");
        }
    }

    #[test]
    fn folding_adds_all_lanes() {
        assert_eq!(folded(std::array::from_fn(|i| i as f32)), 120.0);
    }
}
