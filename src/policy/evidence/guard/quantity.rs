//! Quantities: a number with its magnitude and its unit, comparable however it is written.

use super::super::lexicon::Meaning;

/// A number with its magnitude applied and its unit, if one follows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Quantity {
    /// As written: 1.5 in "1.5 hours", 25,000 in "25k".
    value: f64,
    unit: Option<&'static Unit>,
}

/// A quantity as it is kept: compared for equality only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Amount {
    /// Bits of the value as written.
    written: u32,
    /// Bits of the value in the dimension's first unit.
    amount: u32,
    /// Place in [`DIMENSIONS`] from 1; 0 without a unit.
    dimension: u8,
}

impl Amount {
    /// A place in a row: first, second.
    pub(super) fn rank(rank: u8) -> Self {
        Self::new(rank.into(), rank.into(), u8::MAX)
    }

    /// A plain number.
    pub(super) fn plain(value: f64) -> Self {
        Self::new(value, value, 0)
    }

    fn new(written: f64, amount: f64, dimension: u8) -> Self {
        // Single precision forgives what conversion rounds.
        Self {
            written: (written as f32).to_bits(),
            amount: (amount as f32).to_bits(),
            dimension,
        }
    }

    /// Whether both say the same: `1 GiB` and `1024 MiB`, and `5 dollars` and `5`.
    pub(super) fn matches(self, other: Self) -> bool {
        if self.dimension == 0 || other.dimension == 0 {
            return self.written == other.written;
        }
        self.dimension == other.dimension && self.amount == other.amount
    }
}

impl Quantity {
    /// Reads `token`, whose word means `meaning`, and the unit or magnitude in the tokens after it.
    pub(super) fn parse(token: &str, meaning: Meaning, next: [&str; 2]) -> Option<Self> {
        let starts = token.starts_with(|c: char| c.is_ascii_digit() || "$€£₹#.".contains(c));
        if !starts && meaning.cardinal == 0 {
            return None;
        }
        let mut unit = SIGNS
            .iter()
            .find(|(sign, _)| token.starts_with(*sign))
            .and_then(|(_, name)| unit_of(name));
        let lower = token
            .trim_start_matches(['$', '€', '£', '₹', '#'])
            .to_lowercase();
        let digits = lower.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ','));
        let (number, suffix) = lower.split_at(digits.unwrap_or(lower.len()));
        let (mut value, suffix) = match meaning.cardinal {
            // "one" is mostly a pronoun: "which one".
            0 | 2 => (number.replace(',', "").parse::<f64>().ok()?, suffix),
            cardinal => (f64::from(cardinal - 1), ""),
        };
        let next = if matches!(next[0], "degree" | "degrees") {
            next[1]
        } else {
            next[0]
        };
        for (word, is_suffix) in [(suffix, true), (next, false)] {
            let word = word.to_lowercase();
            if let Some(&(_, factor)) = MAGNITUDES.iter().find(|(name, _)| *name == word) {
                value *= factor;
            } else if let Some(found) = unit_of(&word) {
                unit = unit.or(Some(found));
            } else if is_suffix && !word.is_empty() {
                // "2x", "mp3": a name with digits in it, not a quantity with a unit.
                return None;
            }
        }
        Some(Self { value, unit })
    }

    pub(super) fn amount(self) -> Amount {
        match self.unit {
            None => Amount::plain(self.value),
            Some(unit) => Amount::new(
                self.value,
                self.value * unit.factor + unit.offset,
                unit.dimension,
            ),
        }
    }

    /// The value, if it is a plain whole number.
    pub(super) fn whole(self) -> Option<u16> {
        let is_whole = self.unit.is_none() && self.value.fract() == 0.0;
        (is_whole && (0.0..=9999.0).contains(&self.value)).then_some(self.value as u16)
    }
}

/// The rank that a token such as "3rd" writes.
pub(super) fn ordinal(token: &str) -> Option<u8> {
    let end = token.find(|c: char| !c.is_ascii_digit())?;
    let (number, suffix) = token.split_at(end);
    let is_ordinal = ORDINALS
        .iter()
        .any(|name| suffix.eq_ignore_ascii_case(name));
    number.parse().ok().filter(|_| is_ordinal)
}

#[derive(Debug, PartialEq)]
struct Unit {
    dimension: u8,
    factor: f64,
    offset: f64,
    names: &'static [&'static str],
}

fn unit_of(word: &str) -> Option<&'static Unit> {
    UNITS.iter().find(|unit| unit.names.contains(&word))
}

const fn unit(dimension: u8, factor: f64, names: &'static [&'static str]) -> Unit {
    Unit {
        dimension,
        factor,
        offset: 0.0,
        names,
    }
}

const SIGNS: &[(char, &str)] = &[('$', "usd"), ('€', "eur"), ('£', "gbp"), ('₹', "inr")];

const ORDINALS: &[&str] = &["st", "nd", "rd", "th"];

const MAGNITUDES: &[(&str, f64)] = &[
    ("k", 1e3),
    ("thousand", 1e3),
    ("lakh", 1e5),
    ("lakhs", 1e5),
    ("mn", 1e6),
    ("million", 1e6),
    ("crore", 1e7),
    ("crores", 1e7),
    ("bn", 1e9),
    ("billion", 1e9),
    ("trillion", 1e12),
];

/// Units with their dimension and what one of them is in the dimension's first.
static UNITS: &[Unit] = &[
    // Time, in seconds; months are no fixed time.
    unit(1, 1.0, &["s", "sec", "secs", "second", "seconds"]),
    unit(1, 1e-3, &["ms", "millisecond", "milliseconds"]),
    unit(1, 60.0, &["min", "mins", "minute", "minutes"]),
    unit(1, 3600.0, &["h", "hr", "hrs", "hour", "hours"]),
    unit(1, 86_400.0, &["day", "days"]),
    unit(1, 604_800.0, &["week", "weeks"]),
    unit(2, 1.0, &["month", "months"]),
    unit(2, 12.0, &["year", "years", "yr", "yrs"]),
    // Lengths, in metres.
    unit(3, 1.0, &["m", "meter", "meters", "metre", "metres"]),
    unit(
        3,
        1e-3,
        &[
            "mm",
            "millimeter",
            "millimeters",
            "millimetre",
            "millimetres",
        ],
    ),
    unit(
        3,
        1e-2,
        &[
            "cm",
            "centimeter",
            "centimeters",
            "centimetre",
            "centimetres",
        ],
    ),
    unit(
        3,
        1e3,
        &[
            "km",
            "kms",
            "kilometer",
            "kilometers",
            "kilometre",
            "kilometres",
        ],
    ),
    unit(3, 0.0254, &["inch", "inches"]),
    unit(3, 0.3048, &["ft", "foot", "feet"]),
    unit(3, 0.9144, &["yd", "yard", "yards"]),
    unit(3, 1609.344, &["mile", "miles", "mi"]),
    // Masses, in grams.
    unit(4, 1.0, &["g", "gram", "grams"]),
    unit(4, 1e-3, &["mg", "milligram", "milligrams"]),
    unit(
        4,
        1e3,
        &["kg", "kgs", "kilo", "kilos", "kilogram", "kilograms"],
    ),
    unit(4, 453.592_37, &["lb", "lbs", "pound", "pounds"]),
    unit(4, 28.349_523, &["oz", "ounce", "ounces"]),
    // Volumes, in litres.
    unit(5, 1.0, &["l", "liter", "liters", "litre", "litres"]),
    unit(
        5,
        1e-3,
        &[
            "ml",
            "milliliter",
            "milliliters",
            "millilitre",
            "millilitres",
        ],
    ),
    unit(6, 1.0, &["cup", "cups"]),
    unit(7, 1.0, &["tablespoon", "tablespoons", "tbsp"]),
    unit(8, 1.0, &["teaspoon", "teaspoons", "tsp"]),
    // Data, in bytes, and its rates, in bits per second.
    unit(9, 1.0, &["byte", "bytes"]),
    unit(9, 1e3, &["kb", "kilobyte", "kilobytes"]),
    unit(9, 1e6, &["mb", "megabyte", "megabytes", "meg"]),
    unit(9, 1e9, &["gb", "gigabyte", "gigabytes", "gig", "gigs"]),
    unit(9, 1e12, &["tb", "terabyte", "terabytes"]),
    unit(9, 1024.0, &["kib", "kibibytes"]),
    unit(9, 1_048_576.0, &["mib", "mebibytes"]),
    unit(9, 1_073_741_824.0, &["gib", "gibibytes"]),
    unit(9, 1_099_511_627_776.0, &["tib", "tebibytes"]),
    unit(10, 1e3, &["kbps", "kbit/s"]),
    unit(10, 1e6, &["mbps", "mbit/s"]),
    unit(10, 1e9, &["gbps", "gbit/s"]),
    // Money: no rate is fixed.
    unit(11, 1.0, &["usd", "dollar", "dollars", "bucks"]),
    unit(11, 0.01, &["cent", "cents"]),
    unit(12, 1.0, &["eur", "euro", "euros"]),
    unit(13, 1.0, &["inr", "rupee", "rupees", "rs"]),
    unit(14, 1.0, &["gbp", "quid"]),
    unit(15, 1.0, &["jpy", "yen"]),
    unit(16, 1.0, &["cny", "yuan", "rmb"]),
    unit(17, 1.0, &["percent", "%", "percentage"]),
    // Temperatures, in degrees Celsius.
    unit(18, 1.0, &["c", "celsius", "°c", "centigrade"]),
    Unit {
        dimension: 18,
        factor: 5.0 / 9.0,
        offset: -160.0 / 9.0,
        names: &["f", "fahrenheit", "°f"],
    },
    // Speeds, in metres per second.
    unit(19, 1609.344 / 3600.0, &["mph"]),
    unit(19, 1.0 / 3.6, &["kmh", "km/h", "kph"]),
    // Frequencies and power.
    unit(20, 1.0, &["hz", "hertz"]),
    unit(20, 1e6, &["mhz"]),
    unit(20, 1e9, &["ghz"]),
    unit(21, 1.0, &["w", "watt", "watts"]),
    unit(21, 1e3, &["kw", "kilowatt", "kilowatts"]),
    unit(22, 1.0, &["v", "volt", "volts"]),
];
