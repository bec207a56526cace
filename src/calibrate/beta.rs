//! The beta distribution, as far as exact binomial bounds need it.
//!
//! The incomplete beta function is evaluated by its continued fraction with the modified Lentz method
//! (Press et al., *Numerical Recipes*, 3rd ed., 6.4), the logarithm of the gamma function by the
//! Lanczos approximation (g = 7, nine terms; relative error below 1e-13). The inverse is a bisection:
//! it cannot run away, and a bound is worked out a few hundred times per calibration.

/// Natural logarithm of the gamma function, for `x > 0`.
fn ln_gamma(x: f64) -> f64 {
    const G: f64 = 7.0;
    const TERMS: [f64; 9] = [
        0.999_999_999_999_809_9,
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    let x = x - 1.0;
    let sum: f64 = TERMS[1..]
        .iter()
        .zip(1_u8..)
        .map(|(term, i)| term / (x + f64::from(i)))
        .sum::<f64>()
        + TERMS[0];
    let t = x + G + 0.5;
    0.5 * std::f64::consts::TAU.ln() + (x + 0.5) * t.ln() - t + sum.ln()
}

/// Regularised incomplete beta function `I_x(a, b)`: the probability that a beta variable with
/// parameters `a` and `b`, both above 0, is at most `x`.
#[must_use]
pub fn regularised_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    let front = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (-x).ln_1p()).exp();
    // The fraction converges fast below the mean; above it, the symmetric form does.
    if x < (a + 1.0) / (a + b + 2.0) {
        front * continued_fraction(a, b, x) / a
    } else {
        1.0 - front * continued_fraction(b, a, 1.0 - x) / b
    }
}

fn continued_fraction(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away_from_zero = |v: f64| if v.abs() < TINY { TINY } else { v };
    let mut c = 1.0;
    let mut d = 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0));
    let mut value = d;
    for i in 1_u16..=2_000 {
        let m = f64::from(i);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / away_from_zero(1.0 + even * d);
        c = away_from_zero(1.0 + even / c);
        value *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / away_from_zero(1.0 + odd * d);
        c = away_from_zero(1.0 + odd / c);
        value *= d * c;
        if (d * c - 1.0).abs() < 1e-15 {
            break;
        }
    }
    value
}

/// The `x` with `I_x(a, b) = p`.
#[must_use]
pub fn inverse_regularised_beta(a: f64, b: f64, p: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    // Each step gives one bit: after 60, what is left is below the rounding of the function itself.
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if regularised_beta(a, b, middle) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// Upper Clopper-Pearson bound: with probability `confidence` or more, the rate behind `events` in
/// `trials` is not above it. 1 without trials. The numbers may be fractions, as effective sample sizes
/// are.
#[must_use]
pub fn upper_bound(events: f64, trials: f64, confidence: f64) -> f64 {
    // Written so that a count that is no number bounds nothing.
    if !(trials > 0.0 && events < trials) {
        return 1.0;
    }
    inverse_regularised_beta(events.max(0.0) + 1.0, trials - events.max(0.0), confidence)
}

/// Lower Clopper-Pearson bound: with probability `confidence` or more, the rate behind `events` in
/// `trials` is not below it.
#[must_use]
pub fn lower_bound(events: f64, trials: f64, confidence: f64) -> f64 {
    1.0 - upper_bound(trials - events, trials, confidence)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_beta_function_agrees_with_closed_forms() {
        for x in [0.01, 0.2, 0.5, 0.9, 0.999] {
            assert!((regularised_beta(1.0, 1.0, x) - x).abs() < 1e-12);
            assert!((regularised_beta(3.0, 1.0, x) - x.powi(3)).abs() < 1e-12);
            assert!((regularised_beta(1.0, 500.0, x) - (1.0 - (1.0 - x).powi(500))).abs() < 1e-12);
        }
        // The arcsine law.
        let x: f64 = 0.3;
        let arcsine = 2.0 / std::f64::consts::PI * x.sqrt().asin();
        assert!((regularised_beta(0.5, 0.5, x) - arcsine).abs() < 1e-10);
    }

    #[test]
    fn the_hits_needed_are_those_of_the_published_table() {
        // At 95 % confidence: wrong hits, hits needed for a rate of 1 %, and one hit fewer does not do.
        for (wrong, needed) in [(0.0, 299.0), (1.0, 473.0), (3.0, 773.0), (10.0, 1693.0)] {
            assert!(upper_bound(wrong, needed, 0.95) <= 0.01, "{wrong}");
            assert!(upper_bound(wrong, needed - 1.0, 0.95) > 0.01, "{wrong}");
        }
    }

    #[test]
    fn without_trials_nothing_is_bounded() {
        assert_eq!(upper_bound(0.0, 0.0, 0.95), 1.0);
        assert_eq!(lower_bound(0.0, 0.0, 0.95), 0.0);
        assert_eq!(upper_bound(3.0, 3.0, 0.95), 1.0);
        assert_eq!(upper_bound(f64::NAN, 10.0, 0.95), 1.0);
    }

    proptest! {
        #[test]
        fn the_inverse_undoes_the_function(a in 0.5_f64..400.0, b in 0.5_f64..4000.0, p in 0.001_f64..0.999) {
            let x = inverse_regularised_beta(a, b, p);
            prop_assert!((regularised_beta(a, b, x) - p).abs() < 1e-8);
        }

        #[test]
        fn the_two_bounds_enclose_the_rate(events in 0_u32..200, more in 0_u32..2000) {
            let (k, n) = (f64::from(events), f64::from(events + more));
            prop_assume!(n > 0.0);
            prop_assert!(lower_bound(k, n, 0.95) <= k / n + 1e-12);
            prop_assert!(upper_bound(k, n, 0.95) >= k / n - 1e-12);
        }
    }
}
