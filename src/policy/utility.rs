//! What serving an answer is expected to gain.
//!
//! With p the probability that the stored answer is right, S what a right hit saves and L what a wrong
//! one costs, the gain is `p * S - (1 - p) * L`. S is the price of the upstream call plus the value of
//! the time it takes; L is dollars, or a multiple of the *typical* saving of a hit in this cache. When
//! S or the typical saving is unknown, S is taken as typical.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Evidence, out_of_range};
use crate::error::{Error, ErrorKind, Result};

/// What it costs to serve a wrong answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WrongAnswerCost {
    /// So many times the typical saving of a hit: written `20x`.
    TimesSaving(f64),
    /// Dollars: written `$0.05`.
    Usd(f64),
}

impl Default for WrongAnswerCost {
    fn default() -> Self {
        Self::TimesSaving(20.0)
    }
}

impl FromStr for WrongAnswerCost {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = || {
            Error::new(
                ErrorKind::Config,
                "the cost of a wrong answer cannot be read",
            )
            .with("value", text)
            .with(
                "allowed",
                "a multiple such as 20x, or dollars such as $0.05; not negative",
            )
        };
        let number = |text: &str| {
            text.trim()
                .parse::<f64>()
                .ok()
                .filter(|x| x.is_finite() && *x >= 0.0)
                .ok_or_else(refuse)
        };
        let text = text.trim();
        match (text.strip_suffix('x'), text.strip_prefix('$')) {
            (Some(times), _) => number(times).map(Self::TimesSaving),
            (None, Some(usd)) => number(usd).map(Self::Usd),
            (None, None) => Err(refuse()),
        }
    }
}

impl fmt::Display for WrongAnswerCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimesSaving(times) => write!(f, "{times}x"),
            Self::Usd(usd) => write!(f, "${usd}"),
        }
    }
}

impl Serialize for WrongAnswerCost {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WrongAnswerCost {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

/// Gains and losses of serving. See the module documentation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Utility {
    cost: WrongAnswerCost,
    usd_per_second: f64,
}

impl Utility {
    /// Time is worth nothing.
    pub(super) fn new(cost: WrongAnswerCost) -> Self {
        Self {
            cost,
            usd_per_second: 0.0,
        }
    }

    /// What a second of waiting is worth, in dollars.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the value is negative or not finite.
    pub(super) fn usd_per_second(mut self, usd: f64) -> Result<Self> {
        if !(usd >= 0.0 && usd.is_finite()) {
            return Err(out_of_range(usd, "0 or more"));
        }
        self.usd_per_second = usd;
        Ok(self)
    }

    /// The probability from which on serving an answer of a typical saving gains something; none where the cost is in
    /// dollars, and so depends on the prices.
    pub(super) fn least_probability(&self) -> Option<f64> {
        match self.cost {
            WrongAnswerCost::TimesSaving(times) => Some(times / (1.0 + times)),
            WrongAnswerCost::Usd(_) => None,
        }
    }

    /// Expected gain of serving at probability `p`, in dollars or, when nothing is priced, in units of
    /// a typical saving.
    pub(super) fn gain(&self, p: f64, evidence: &Evidence) -> f64 {
        let time = self.usd_per_second * evidence.latency.as_secs_f64();
        let typical = evidence
            .typical_saving_usd
            .filter(|usd| *usd > 0.0)
            .map(|usd| usd + time);
        let saving = evidence
            .saving_usd
            .map(|usd| usd + time)
            .filter(|usd| *usd > 0.0);
        let (saving, loss) = match (self.cost, typical) {
            (WrongAnswerCost::TimesSaving(times), Some(typical)) => {
                (saving.unwrap_or(typical), times * typical)
            }
            (WrongAnswerCost::TimesSaving(times), None) => (1.0, times),
            (WrongAnswerCost::Usd(loss), typical) => (saving.or(typical).unwrap_or(0.0), loss),
        };
        p * saving - (1.0 - p) * loss
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_read_as_written() {
        for (text, cost) in [
            ("20x", WrongAnswerCost::TimesSaving(20.0)),
            ("$0.05", WrongAnswerCost::Usd(0.05)),
        ] {
            assert_eq!(text.parse::<WrongAnswerCost>().unwrap(), cost);
            assert_eq!(cost.to_string(), text);
        }
        for text in ["20", "-1x", "$", "infx", "€5"] {
            assert!(text.parse::<WrongAnswerCost>().is_err(), "{text}");
        }
    }

    #[test]
    fn serving_gains_from_the_least_probability_on() {
        let utility = Utility::new(WrongAnswerCost::TimesSaving(4.0));
        let least = utility.least_probability().unwrap();
        let evidence = Evidence::similarity(0.9);
        assert!(utility.gain(least + 1e-6, &evidence) > 0.0);
        assert!(utility.gain(least - 1e-6, &evidence) < 0.0);
        let dollars = Utility::new(WrongAnswerCost::Usd(0.05));
        assert_eq!(dollars.least_probability(), None);
    }
}
