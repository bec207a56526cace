//! Money as an integer, so that a million small amounts add up to the right sum.
//!
//! One unit is a pico-dollar (10⁻¹² US dollar). That is not an arbitrary choice: a list price in
//! whole micro-dollars per million tokens is the same number of pico-dollars per token, so the cost
//! of a call is one multiplication without rounding (see [`super::Price`]). 128 bits hold
//! 10²⁶ dollars; sums saturate there rather than wrap.
//!
//! Always true: addition is exact, associative and commutative, so a total does not depend on the
//! order or the thread in which its parts were recorded.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{Error, ErrorKind, Result};

const PICOS_PER_DOLLAR: i128 = 1_000_000_000_000;
/// The same where no sign is needed.
const UNIT: u64 = PICOS_PER_DOLLAR as u64;
/// Digits after the point that a pico-dollar needs.
const DECIMALS: u32 = 12;

/// An exact amount of US dollars, positive or negative.
///
/// `{}` rounds for people, `{:#}` shows every digit. In JSON it is a string holding the exact
/// decimal number (`"0.002134"`), because a JSON number is read back as a binary fraction by most
/// readers.
///
/// ```
/// use askonce::savings::Usd;
///
/// let per_hit: Usd = "0.002134".parse()?;
/// let day: Usd = std::iter::repeat_n(per_hit, 1_000_000).sum();
/// assert_eq!(per_hit.to_string(), "$0.0021");
/// assert_eq!(format!("{per_hit:#}"), "$0.002134");
/// assert_eq!(day.to_string(), "$2,134.00");
/// # Ok::<(), askonce::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Usd(i128);

impl Usd {
    /// No money.
    pub const ZERO: Self = Self(0);

    /// An amount in dollars, rounded to a pico-dollar; what is no number is none.
    #[must_use]
    pub fn from_dollars(dollars: f64) -> Self {
        // Saturates, and makes zero of NaN.
        Self((dollars * 1e12).round() as i128)
    }

    /// An amount in pico-dollars (10⁻¹² dollar).
    #[must_use]
    pub const fn from_picos(picos: i128) -> Self {
        Self(picos)
    }

    /// The amount in pico-dollars (10⁻¹² dollar).
    #[must_use]
    pub const fn as_picos(self) -> i128 {
        self.0
    }

    /// An amount in micro-dollars (10⁻⁶ dollar).
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros as i128 * 1_000_000)
    }

    /// The amount in dollars, rounded to the nearest binary fraction: for gauges and plots, not
    /// for sums.
    #[must_use]
    pub fn as_dollars(self) -> f64 {
        // Whole dollars and the rest are converted apart: each is then exact for real amounts.
        (self.0 / PICOS_PER_DOLLAR) as f64
            + (self.0 % PICOS_PER_DOLLAR) as f64 / PICOS_PER_DOLLAR as f64
    }

    /// Whether this is no money at all.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The exact decimal number of dollars without a currency sign, such as `-0.002134`.
    #[must_use]
    pub fn to_decimal(self) -> String {
        let magnitude = self.0.unsigned_abs();
        let mut text = String::with_capacity(32);
        if self.0 < 0 {
            text.push('-');
        }
        let mut buffer = itoa::Buffer::new();
        // Amounts are small as a rule, and 128 bits are divided slowly.
        let rest = match u64::try_from(magnitude) {
            Ok(magnitude) => {
                text.push_str(buffer.format(magnitude / UNIT));
                magnitude % UNIT
            }
            Err(_) => {
                text.push_str(buffer.format(magnitude / u128::from(UNIT)));
                (magnitude % u128::from(UNIT)) as u64
            }
        };
        if rest > 0 {
            // A unit more, whose leading one stands where the point is to be.
            let point = text.len();
            text.push_str(buffer.format(UNIT + rest));
            text.replace_range(point..=point, ".");
            text.truncate(text.trim_end_matches('0').len());
        }
        text
    }
}

impl Add for Usd {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Usd {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Usd {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl SubAssign for Usd {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Neg for Usd {
    type Output = Self;
    fn neg(self) -> Self {
        Self(self.0.saturating_neg())
    }
}

impl Sum for Usd {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

/// At least cents, and for less than a dollar at least two significant digits: `$1,204.50`,
/// `$0.21`, `$0.0021`, `-$0.000035`. Halves round away from zero.
impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        if f.alternate() {
            let exact = self.to_decimal();
            return f.pad(&format!("{sign}${}", exact.trim_start_matches('-')));
        }
        let magnitude = self.0.unsigned_abs();
        let unit = PICOS_PER_DOLLAR.unsigned_abs();
        // Digits to keep after the point.
        let shown = if magnitude == 0 || magnitude >= unit {
            2
        } else {
            (DECIMALS + 1 - magnitude.ilog10()).clamp(2, DECIMALS)
        };
        let grain = 10u128.pow(DECIMALS - shown);
        let rounded = magnitude.saturating_add(grain / 2) / grain;
        let per_dollar = 10u128.pow(shown);
        let (whole, rest) = (rounded / per_dollar, rounded % per_dollar);
        // What rounds to nothing has no sign.
        let sign = if rounded == 0 { "" } else { sign };
        let width = shown as usize;
        f.pad(&format!("{sign}${}.{rest:0width$}", grouped(whole)))
    }
}

/// A number with a comma between each three digits.
pub(super) fn grouped(number: u128) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

impl FromStr for Usd {
    type Err = Error;

    /// Reads a decimal number of dollars with at most twelve digits after the point.
    fn from_str(text: &str) -> Result<Self> {
        parse(text).map(Self).ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidRequest,
                "not a decimal number of dollars with at most 12 digits after the point",
            )
        })
    }
}

fn parse(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) || fraction.len() > DECIMALS as usize {
        return None;
    }
    let scale = 10i128.pow(DECIMALS - u32::try_from(fraction.len()).ok()?);
    let fraction = fraction.parse::<i128>().ok()?.checked_mul(scale)?;
    // The sign goes in before the sum, so that the most negative amount reads back too.
    let sign = if negative { -1 } else { 1 };
    (sign * whole.parse::<i128>().ok()?)
        .checked_mul(PICOS_PER_DOLLAR)?
        .checked_add(sign * fraction)
}

impl Serialize for Usd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_decimal())
    }
}

impl<'de> Deserialize<'de> for Usd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn people_see_cents_or_two_significant_digits() {
        let cases = [
            ("0", "$0.00"),
            ("0.0021", "$0.0021"),
            ("0.002134", "$0.0021"),
            ("0.00999", "$0.0100"),
            ("0.000035", "$0.000035"),
            ("0.000000000001", "$0.000000000001"),
            ("0.2136", "$0.21"),
            ("0.996", "$1.00"),
            ("0.995", "$1.00"),
            ("1.005", "$1.01"),
            ("12.3", "$12.30"),
            ("1234567.891", "$1,234,567.89"),
            ("-0.05", "-$0.050"),
            ("-1204.5", "-$1,204.50"),
        ];
        for (amount, shown) in cases {
            let amount: Usd = amount.parse().unwrap();
            assert_eq!(amount.to_string(), shown);
        }
    }

    #[test]
    fn width_and_alignment_apply_to_the_whole_amount() {
        assert_eq!(format!("{:>8}", Usd::from_micros(2_100)), " $0.0021");
        assert_eq!(format!("{:>#12}", Usd::from_micros(-2_134)), "  -$0.002134");
    }

    #[test]
    fn text_that_is_not_an_exact_amount_is_refused() {
        for text in [
            "",
            "-",
            ".",
            "1.",
            ".5",
            "+1",
            "1e3",
            "$1",
            "1,0",
            "0.0000000000001",
            "١",
            "99999999999999999999999999999999999999999",
        ] {
            assert!(text.parse::<Usd>().is_err(), "{text}");
        }
    }

    #[test]
    fn sums_saturate_at_both_ends() {
        let (least, most) = (Usd::from_picos(i128::MIN), Usd::from_picos(i128::MAX));
        assert_eq!(most + most, most);
        assert_eq!(least - most, least);
        assert_eq!(-least, most);
        assert_eq!(least.to_decimal().parse::<Usd>().unwrap(), least);
        assert!(
            most.to_string()
                .starts_with("$170,141,183,460,469,231,731,687,303.7")
        );
    }

    proptest! {
        #[test]
        fn every_amount_survives_json(picos: i128) {
            let amount = Usd::from_picos(picos);
            let json = serde_json::to_string(&amount).unwrap();
            prop_assert_eq!(serde_json::from_str::<Usd>(&json).unwrap(), amount);
        }

        #[test]
        fn the_shown_amount_is_within_half_of_its_last_digit(picos in -5_000_000_000_000i128..5_000_000_000_000) {
            let shown = Usd::from_picos(picos).to_string().replace(['$', ','], "");
            let decimals = u32::try_from(shown.len() - shown.find('.').unwrap() - 1).unwrap();
            let shown: Usd = shown.parse().unwrap();
            let half = 10i128.pow(DECIMALS - decimals).div_euclid(2).max(1);
            prop_assert!((shown.as_picos() - picos).abs() <= half);
        }
    }
}
