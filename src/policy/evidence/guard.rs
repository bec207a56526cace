//! Guards: evidence *against* a match that an embedding cannot see.
//!
//! A sum of word vectors gives "is A better than B" and "is B better than A" the same point, and an
//! uncased vocabulary does the same with `rm -r` and `rm -R`. A guard compares one such trait of the
//! two texts and reports one of four [`GuardState`]s. It decides nothing: policies weigh the report.
//!
//! The traits and their firing rates on labelled pairs come from the project's study of near misses
//! (numbers conflict on 1.3 % of duplicates and 3.6 % of others in Quora Question Pairs, and so on):
//! evidence, no proof, and worth different amounts in different traffic.
//!
//! Word lists are English. A text in another language yields fewer firings, never more.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

/// How two texts compare in one trait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuardState {
    /// Neither text has the trait.
    #[default]
    Absent,
    /// Both have it, and it is the same.
    Agree,
    /// Only one has it.
    OneSided,
    /// Both have it, and it differs; or its presence alone turns the meaning round.
    Conflict,
}

/// Which trait a guard compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GuardKind {
    /// Quantities, with magnitudes and units made comparable: `25k` is `25,000`, `1 GB` is not `2 GB`.
    Number,
    /// Whether the text negates.
    Negation,
    /// Opposite words in the same place: enable and disable.
    Antonym,
    /// Flags, paths, versions, code names; flags by letter case.
    Identifier,
    /// Weekdays, months, relative days.
    Calendar,
    /// Text in quotation marks or back-ticks.
    Quote,
    /// The same words in another order: roles swapped.
    Order,
    /// One word stands where the other text has another, and all else is the same: a slot with
    /// another value, as in the capital of France and of Spain. Synonyms fire it too.
    Substitution,
    /// Who, when, where and why ask for different things about the same.
    Question,
}

impl GuardKind {
    /// All guards, in the order in which they are reported.
    pub const ALL: [Self; 9] = [
        Self::Number,
        Self::Negation,
        Self::Antonym,
        Self::Identifier,
        Self::Calendar,
        Self::Quote,
        Self::Question,
        Self::Order,
        Self::Substitution,
    ];

    /// The stable name used in metrics and reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Negation => "negation",
            Self::Antonym => "antonym",
            Self::Identifier => "identifier",
            Self::Calendar => "calendar",
            Self::Quote => "quote",
            Self::Order => "order",
            Self::Substitution => "substitution",
            Self::Question => "question",
        }
    }
}

/// What every guard says of one pair of texts. Symmetric: swapping the texts changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuardReport {
    /// State of [`GuardKind::Number`].
    pub number: GuardState,
    /// State of [`GuardKind::Negation`].
    pub negation: GuardState,
    /// State of [`GuardKind::Antonym`].
    pub antonym: GuardState,
    /// State of [`GuardKind::Identifier`].
    pub identifier: GuardState,
    /// State of [`GuardKind::Calendar`].
    pub calendar: GuardState,
    /// State of [`GuardKind::Quote`].
    pub quote: GuardState,
    /// State of [`GuardKind::Order`].
    pub order: GuardState,
    /// State of [`GuardKind::Substitution`].
    pub substitution: GuardState,
    /// State of [`GuardKind::Question`].
    pub question: GuardState,
}

impl GuardReport {
    /// Compares two texts. Linear in their lengths, apart from sorting their words.
    #[must_use]
    pub fn compare(a: &str, b: &str) -> Self {
        Traits::of(a).compare(&Traits::of(b))
    }

    /// The state of one guard.
    #[must_use]
    pub const fn state(&self, kind: GuardKind) -> GuardState {
        match kind {
            GuardKind::Number => self.number,
            GuardKind::Negation => self.negation,
            GuardKind::Antonym => self.antonym,
            GuardKind::Identifier => self.identifier,
            GuardKind::Calendar => self.calendar,
            GuardKind::Quote => self.quote,
            GuardKind::Order => self.order,
            GuardKind::Substitution => self.substitution,
            GuardKind::Question => self.question,
        }
    }

    /// The first guard that reports a conflict.
    #[must_use]
    pub fn conflict(&self) -> Option<GuardKind> {
        GuardKind::ALL
            .into_iter()
            .find(|&kind| self.state(kind) == GuardState::Conflict)
    }
}

/// The traits of one text.
#[derive(Clone, Debug, Default)]
pub(super) struct Traits {
    /// Lower-case words in order, without numbers, negations and the function words of questions.
    content: Vec<String>,
    /// Every lower-case word.
    words: BTreeSet<String>,
    numbers: BTreeSet<String>,
    identifiers: BTreeSet<String>,
    calendar: BTreeSet<String>,
    quotes: BTreeSet<String>,
    questions: BTreeSet<String>,
    negated: bool,
}

impl Traits {
    /// What the guards say of two texts.
    pub(super) fn compare(&self, other: &Self) -> GuardReport {
        let (a, b) = (self, other);
        GuardReport {
            number: compare_sets(&a.numbers, &b.numbers),
            negation: match (a.negated, b.negated) {
                (false, false) => GuardState::Absent,
                (true, true) => GuardState::Agree,
                _ => GuardState::Conflict,
            },
            antonym: compare_antonyms(a, b),
            identifier: compare_sets(&a.identifiers, &b.identifiers),
            calendar: compare_sets(&a.calendar, &b.calendar),
            quote: compare_sets(&a.quotes, &b.quotes),
            order: compare_order(a, b),
            substitution: compare_substitution(a, b),
            question: compare_sets(&a.questions, &b.questions),
        }
    }

    pub(super) fn of(text: &str) -> Self {
        let text: String = text.nfkc().collect::<String>().replace('\u{2019}', "'");
        let mut traits = Self {
            quotes: quotes(&text),
            ..Self::default()
        };
        let mut negations = 0;
        let raw: Vec<&str> = text.split_whitespace().collect();
        let tokens: Vec<&str> = raw.iter().copied().map(trim_punctuation).collect();
        for (i, &token) in tokens.iter().enumerate() {
            if is_operator(raw[i]) {
                traits.identifiers.insert(raw[i].to_owned());
            }
            if token.is_empty() {
                continue;
            }
            if is_identifier(token) {
                traits.identifiers.insert(fold_identifier(token));
            }
            let quantity = Quantity::parse(token, tokens.get(i + 1).copied());
            let is_quantity = quantity.is_some();
            traits
                .numbers
                .extend(quantity.map(|quantity| quantity.canonical()));
            for word in token.split(|c: char| !c.is_alphanumeric() && c != '\'') {
                let word = word.trim_matches('\'').to_lowercase();
                if word.is_empty() {
                    continue;
                }
                let negates = NEGATIONS.contains(&word.as_str()) || word.ends_with("n't");
                negations += usize::from(negates);
                if let Some(day) = calendar_word(&word) {
                    traits.calendar.insert(day.to_owned());
                }
                // Two months are words of other meanings unless written as names.
                if i > 0 && matches!(token, "May" | "March") {
                    traits.calendar.insert(word.clone());
                }
                if let Some(rank) = ORDINAL_WORDS.iter().position(|&ordinal| ordinal == word) {
                    traits.numbers.insert(format!("rank {}", rank + 1));
                }
                if QUESTIONS.contains(&word.as_str()) {
                    traits.questions.insert(word.clone());
                }
                // Numbers and negations have guards of their own.
                if !is_quantity && !negates && !FUNCTION_WORDS.contains(&word.as_str()) {
                    traits.content.push(stem(&word).to_owned());
                }
                traits.words.insert(word);
            }
        }
        traits.negated = negations % 2 == 1;
        traits
    }
}

fn compare_sets(a: &BTreeSet<String>, b: &BTreeSet<String>) -> GuardState {
    match (a.is_empty(), b.is_empty()) {
        (true, true) => GuardState::Absent,
        (true, false) | (false, true) => GuardState::OneSided,
        (false, false) if a == b => GuardState::Agree,
        // One side says more, in nothing do they differ: "python 3" and "python 3 on debian 12".
        (false, false) if a.is_subset(b) || b.is_subset(a) => GuardState::OneSided,
        (false, false) => GuardState::Conflict,
    }
}

fn compare_antonyms(a: &Traits, b: &Traits) -> GuardState {
    let has = |traits: &Traits, word: &str| traits.words.contains(word);
    let mut state = GuardState::Absent;
    for &(x, y) in ANTONYMS {
        let (ax, ay, bx, by) = (has(a, x), has(a, y), has(b, x), has(b, y));
        if (ax && by && !ay && !bx) || (ay && bx && !ax && !by) {
            return GuardState::Conflict;
        }
        if (ax && bx) || (ay && by) {
            state = GuardState::Agree;
        }
    }
    state
}

/// The same content words in another order. Only texts that name at least two things can swap them.
fn compare_order(a: &Traits, b: &Traits) -> GuardState {
    if a.content.len() < 2 || a.content.len() != b.content.len() {
        return GuardState::Absent;
    }
    if a.content == b.content {
        return GuardState::Agree;
    }
    let sorted = |traits: &Traits| {
        let mut words = traits.content.clone();
        words.sort_unstable();
        words
    };
    if sorted(a) != sorted(b) {
        return GuardState::Absent;
    }
    let moved = a
        .content
        .iter()
        .zip(&b.content)
        .filter(|(x, y)| x != y)
        .count();
    let relational = |traits: &Traits| RELATIONS.iter().any(|&word| traits.words.contains(word));
    // Two words that changed places are two roles; a clause moved as a whole is mere wording.
    if moved == 2 || relational(a) || relational(b) {
        GuardState::Conflict
    } else {
        GuardState::OneSided
    }
}

/// All content words the same but one on each side.
fn compare_substitution(a: &Traits, b: &Traits) -> GuardState {
    let only = |x: &Traits, y: &Traits| -> Vec<String> {
        let there: BTreeSet<&String> = y.content.iter().collect();
        let here: BTreeSet<&String> = x.content.iter().collect();
        here.difference(&there)
            .map(|word| (*word).clone())
            .collect()
    };
    let (in_a, in_b) = (only(a, b), only(b, a));
    match (in_a.as_slice(), in_b.as_slice()) {
        ([], []) => GuardState::Absent,
        ([x], [y]) if a.content.len() > 1 || b.content.len() > 1 => {
            if related(x, y) {
                GuardState::Agree
            } else {
                GuardState::Conflict
            }
        }
        ([], _) | (_, []) => GuardState::OneSided,
        _ => GuardState::Absent,
    }
}

/// Two forms of one word: they share all but a short ending.
fn related(x: &str, y: &str) -> bool {
    let common = x.chars().zip(y.chars()).take_while(|(p, q)| p == q).count();
    let longest = x.chars().count().max(y.chars().count());
    common >= 4 && longest - common <= 3 && !(x.starts_with(y) && y.len() <= 4)
}

/// A number with its magnitude applied and its unit, if one follows.
struct Quantity {
    value: f64,
    unit: Option<&'static str>,
}

impl Quantity {
    fn parse(token: &str, next: Option<&str>) -> Option<Self> {
        let lower = token
            .trim_start_matches(['$', '€', '£', '#'])
            .to_lowercase();
        let word_value = NUMBER_WORDS.iter().position(|&word| word == lower);
        let digits = lower.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ','));
        let (number, suffix) = lower.split_at(digits.unwrap_or(lower.len()));
        let mut value = match word_value {
            // "one" is mostly a pronoun: "which one".
            Some(1) | None => number.replace(',', "").parse::<f64>().ok()?,
            Some(value) => value as f64,
        };
        let mut unit = None;
        let suffix = if word_value.is_some() { "" } else { suffix };
        for word in [suffix, next.unwrap_or("")] {
            let word = word.to_lowercase();
            if let Some(&(_, factor)) = MAGNITUDES.iter().find(|(name, _)| *name == word) {
                value *= factor;
            } else if let Some(name) = unit_name(&word) {
                unit = unit.or(Some(name));
            } else if word == suffix && !word.is_empty() {
                // "3rd", "2x", "mp3": a name with digits in it, not a quantity with a unit.
                return ORDINALS
                    .contains(&word.as_str())
                    .then_some(Self { value, unit: None });
            }
        }
        Some(Self { value, unit })
    }

    fn canonical(&self) -> String {
        match self.unit {
            Some(unit) => format!("{} {unit}", self.value),
            None => self.value.to_string(),
        }
    }
}

fn unit_name(word: &str) -> Option<&'static str> {
    UNITS
        .iter()
        .find(|names| names.contains(&word))
        .map(|names| names[0])
}

fn calendar_word(word: &str) -> Option<&'static str> {
    CALENDAR
        .iter()
        .find(|names| names.contains(&word))
        .map(|names| names[0])
}

/// Cuts a plural or verb ending: enough to match "phone" with "phones", never to merge two words
/// whose stems differ.
fn stem(word: &str) -> &str {
    match word.strip_suffix("'s").or_else(|| word.strip_suffix('s')) {
        Some(stem) if stem.len() > 2 && !stem.ends_with('s') => stem,
        _ => word,
    }
}

/// Strips what a sentence puts round a token, and keeps what belongs to it: the dash of a flag, the
/// dot of `.env`, the slash of a path, the sigil of a shell variable.
fn trim_punctuation(token: &str) -> &str {
    token
        .trim_start_matches(['(', '[', '{', '"', '\'', '`', ',', ';', ':', '?', '!', '<'])
        .trim_end_matches([
            ')', ']', '}', '"', '\'', '`', ',', ';', ':', '?', '!', '.', '>', '\u{2026}',
        ])
}

/// A token that code would mean literally.
fn is_identifier(token: &str) -> bool {
    let has = |f: fn(char) -> bool| token.chars().any(f);
    let flag = token.strip_prefix('-').is_some_and(|rest| {
        rest.trim_start_matches('-')
            .starts_with(|c: char| c.is_ascii_alphanumeric())
    });
    let letters_and_digits = has(char::is_alphabetic)
        && has(|c| c.is_ascii_digit())
        && Quantity::parse(token, None).is_none();
    let camel = token
        .chars()
        .zip(token.chars().skip(1))
        .any(|(x, y)| x.is_lowercase() && y.is_uppercase());
    let dotted = token.split('.').filter(|part| !part.is_empty()).count() > 1
        && !token.ends_with('.')
        && (has(char::is_alphabetic) || token.matches('.').count() > 1)
        && !ABBREVIATIONS.contains(&token.to_lowercase().as_str());
    let path = token.len() > 1
        && (token.starts_with('/')
            || token.starts_with("./")
            || token.starts_with('~')
            || token.contains('\\'));
    flag || letters_and_digits
        || camel
        || dotted
        || path
        || token.contains('_')
        || token.contains("::")
}

/// A token that is nothing but an operator: `==`, `//`, `&&`.
fn is_operator(token: &str) -> bool {
    !token.is_empty() && token.chars().all(|c| "/*%^=<>!|+~&".contains(c)) && token != "&"
}

/// Flags and escapes keep their case (`-r` is not `-R`, `\d` is not `\D`); names are compared without
/// it (`useEffect`, `useeffect`).
fn fold_identifier(token: &str) -> String {
    if token.starts_with('-') || token.contains('\\') {
        token.to_owned()
    } else {
        token.to_lowercase()
    }
}

fn quotes(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (open, close) in [
        ('"', '"'),
        ('`', '`'),
        ('\u{201c}', '\u{201d}'),
        ('\u{ab}', '\u{bb}'),
    ] {
        let mut rest = text;
        while let Some((_, after)) = rest.split_once(open) {
            let Some((inside, after)) = after.split_once(close) else {
                break;
            };
            let inside = inside.trim();
            if !inside.is_empty() {
                found.insert(inside.to_owned());
            }
            rest = after;
        }
    }
    found
}

const NEGATIONS: &[&str] = &[
    "not",
    "no",
    "never",
    "cannot",
    "without",
    "neither",
    "nor",
    "nobody",
    "nothing",
    "none",
    "cant",
    "dont",
    "doesnt",
    "didnt",
    "isnt",
    "wasnt",
    "wont",
    "shouldnt",
    "wouldnt",
    "couldnt",
    "arent",
    "except",
    "excluding",
];

/// Pairs of which one word turns the other's meaning round. Inflected forms are listed, not derived.
const ANTONYMS: &[(&str, &str)] = &[
    ("enable", "disable"),
    ("enabling", "disabling"),
    ("enabled", "disabled"),
    ("increase", "decrease"),
    ("increase", "reduce"),
    ("increasing", "decreasing"),
    ("raise", "lower"),
    ("buy", "sell"),
    ("buying", "selling"),
    ("open", "close"),
    ("opening", "closing"),
    ("add", "remove"),
    ("add", "delete"),
    ("adding", "removing"),
    ("create", "delete"),
    ("creating", "deleting"),
    ("start", "stop"),
    ("starting", "stopping"),
    ("before", "after"),
    ("allow", "block"),
    ("allow", "deny"),
    ("block", "unblock"),
    ("blocking", "unblocking"),
    ("upgrade", "downgrade"),
    ("upgrading", "downgrading"),
    ("install", "uninstall"),
    ("installing", "uninstalling"),
    ("import", "export"),
    ("importing", "exporting"),
    ("encrypt", "decrypt"),
    ("encode", "decode"),
    ("compress", "decompress"),
    ("compress", "extract"),
    ("login", "logout"),
    ("deposit", "withdraw"),
    ("lock", "unlock"),
    ("subscribe", "unsubscribe"),
    ("mute", "unmute"),
    ("follow", "unfollow"),
    ("activate", "deactivate"),
    ("activate", "cancel"),
    ("connect", "disconnect"),
    ("upload", "download"),
    ("uploading", "downloading"),
    ("send", "receive"),
    ("lend", "borrow"),
    ("push", "pull"),
    ("push", "pop"),
    ("first", "last"),
    ("minimum", "maximum"),
    ("min", "max"),
    ("ascending", "descending"),
    ("advantages", "disadvantages"),
    ("advantage", "disadvantage"),
    ("pros", "cons"),
    ("benefits", "risks"),
    ("benefits", "drawbacks"),
    ("best", "worst"),
    ("better", "worse"),
    ("good", "bad"),
    ("safe", "dangerous"),
    ("safe", "unsafe"),
    ("legal", "illegal"),
    ("possible", "impossible"),
    ("more", "less"),
    ("most", "least"),
    ("longest", "shortest"),
    ("largest", "smallest"),
    ("biggest", "smallest"),
    ("highest", "lowest"),
    ("fastest", "slowest"),
    ("hot", "cold"),
    ("gain", "lose"),
    ("male", "female"),
    ("men", "women"),
    ("boys", "girls"),
    ("husband", "wife"),
    ("mother", "father"),
    ("mom", "dad"),
    ("brother", "sister"),
    ("son", "daughter"),
    ("left", "right"),
    ("horizontal", "vertical"),
    ("rows", "columns"),
    ("row", "column"),
    ("north", "south"),
    ("east", "west"),
    ("public", "private"),
    ("sync", "async"),
    ("synchronous", "asynchronous"),
    ("client", "server"),
    ("indoor", "outdoor"),
    ("arrive", "depart"),
    ("arrival", "departure"),
    ("win", "lose"),
    ("pass", "fail"),
    ("accept", "reject"),
    ("show", "hide"),
    ("merge", "split"),
    ("freeze", "thaw"),
    ("inhale", "exhale"),
    ("rising", "falling"),
    ("rise", "fall"),
    ("old", "new"),
    ("oldest", "newest"),
    ("easy", "hard"),
    ("strong", "weak"),
    ("rich", "poor"),
    ("true", "false"),
    ("positive", "negative"),
    ("including", "excluding"),
    ("up", "down"),
    ("high", "low"),
    ("higher", "lower"),
    ("small", "large"),
    ("small", "big"),
    ("short", "long"),
    ("early", "late"),
    ("earliest", "latest"),
    ("oldest", "youngest"),
    ("add", "drop"),
    ("create", "drop"),
    ("overactive", "underactive"),
    ("transfer", "receive"),
    ("causes", "prevents"),
    ("credit", "debit"),
];

/// Words that give the words round them different roles.
const RELATIONS: &[&str] = &[
    "than", "to", "from", "into", "vs", "versus", "before", "after", "beat", "beats", "defeat",
    "over", "under", "against", "cause", "causes", "by", "with", "for", "of", "instead", "onto",
];

const FUNCTION_WORDS: &[&str] = &[
    "a", "an", "the", "is", "are", "was", "were", "be", "do", "does", "did", "i", "you", "we",
    "my", "your", "me", "can", "could", "would", "should", "will", "please", "what", "which",
    "who", "how", "why", "when", "where", "there", "it", "its", "it's", "what's", "of", "to", "in",
    "on", "at", "for", "and", "or", "that", "this", "so", "than", "from", "by", "with", "into",
    "have", "has", "get", "some", "any", "really", "actually", "just", "way", "s", "am", "if",
    "as", "one",
];

const NUMBER_WORDS: &[&str] = &[
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve",
];

const ORDINAL_WORDS: &[&str] = &[
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth",
];

/// Question words that are not exchangeable. "What" and "how" are left out: "what is the way to" and
/// "how do I" ask the same.
const QUESTIONS: &[&str] = &["who", "when", "where", "why"];

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

/// Names of one unit, the canonical one first.
const UNITS: &[&[&str]] = &[
    &["s", "sec", "secs", "second", "seconds"],
    &["min", "mins", "minute", "minutes"],
    &["h", "hr", "hrs", "hour", "hours"],
    &["day", "days"],
    &["week", "weeks"],
    &["month", "months"],
    &["year", "years", "yr", "yrs"],
    &["ms", "millisecond", "milliseconds"],
    &[
        "mm",
        "millimeter",
        "millimeters",
        "millimetre",
        "millimetres",
    ],
    &[
        "cm",
        "centimeter",
        "centimeters",
        "centimetre",
        "centimetres",
    ],
    &["m", "meter", "meters", "metre", "metres"],
    &[
        "km",
        "kilometer",
        "kilometers",
        "kilometre",
        "kilometres",
        "kms",
    ],
    &["inch", "inches"],
    &["ft", "foot", "feet"],
    &["mile", "miles", "mi"],
    &["g", "gram", "grams"],
    &["kg", "kilo", "kilos", "kilogram", "kilograms", "kgs"],
    &["lb", "lbs", "pound", "pounds"],
    &["oz", "ounce", "ounces"],
    &[
        "ml",
        "milliliter",
        "milliliters",
        "millilitre",
        "millilitres",
    ],
    &["l", "liter", "liters", "litre", "litres"],
    &["cup", "cups"],
    &["kb", "kilobyte", "kilobytes"],
    &["mb", "megabyte", "megabytes"],
    &["gb", "gigabyte", "gigabytes", "gig", "gigs"],
    &["tb", "terabyte", "terabytes"],
    &["usd", "dollar", "dollars"],
    &["eur", "euro", "euros"],
    &["inr", "rupee", "rupees", "rs"],
    &["percent", "%", "percentage"],
    &["c", "celsius", "°c"],
    &["f", "fahrenheit", "°f"],
    &["mph"],
    &["kmh", "km/h", "kph"],
];

/// Names of one date word, the canonical one first.
const CALENDAR: &[&[&str]] = &[
    &["monday", "mon"],
    &["tuesday", "tue", "tues"],
    &["wednesday", "wed"],
    &["thursday", "thu", "thurs"],
    &["friday", "fri"],
    &["saturday"],
    &["sunday"],
    &["january", "jan"],
    &["february", "feb"],
    &["april", "apr"],
    &["june", "jun"],
    &["july", "jul"],
    &["august", "aug"],
    &["september", "sept", "sep"],
    &["october", "oct"],
    &["november", "nov"],
    &["december", "dec"],
    &["today"],
    &["tomorrow"],
    &["yesterday"],
    &["morning"],
    &["evening"],
    &["winter"],
    &["summer"],
    &["spring"],
    &["autumn"],
    &["christmas"],
    &["easter"],
];

const ABBREVIATIONS: &[&str] = &[
    "e.g", "i.e", "u.s", "u.s.a", "u.k", "a.m", "p.m", "etc", "ph.d",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn conflict(a: &str, b: &str) -> Option<GuardKind> {
        GuardReport::compare(a, b).conflict()
    }

    #[test]
    fn quantities_are_compared_after_magnitude_and_unit() {
        let kind = Some(GuardKind::Number);
        assert_eq!(
            conflict("convert 25000 INR to USD", "convert 25k INR to USD"),
            None
        );
        assert_eq!(
            conflict(
                "a laptop with 1 GB of memory",
                "a laptop with 2 GB of memory"
            ),
            kind
        );
        assert_eq!(conflict("how long is 5 km", "how long is 5 miles"), kind);
        assert_eq!(conflict("plan two meals", "plan 2 meals"), None);
        assert_eq!(
            conflict("a 3 day trip to Rome", "a three day trip to Rome"),
            None
        );
    }

    #[test]
    fn a_negation_on_one_side_is_a_conflict_and_two_cancel() {
        assert_eq!(
            conflict("foods to eat", "foods not to eat"),
            Some(GuardKind::Negation)
        );
        assert_eq!(conflict("why can't I log in", "why cannot I log in"), None);
        assert_eq!(
            conflict("is it ok", "is it not unusual that it is not ok"),
            None
        );
    }

    #[test]
    fn opposites_conflict_unless_both_sides_name_both() {
        let kind = Some(GuardKind::Antonym);
        assert_eq!(
            conflict("enable two factor login", "disable two factor login"),
            kind
        );
        assert_eq!(
            conflict(
                "pros and cons of remote work",
                "the pros and the cons of remote work"
            ),
            None
        );
    }

    #[test]
    fn flags_are_compared_by_case_and_names_without() {
        let kind = Some(GuardKind::Identifier);
        assert_eq!(conflict("what does rm -R do", "what does rm -r do"), kind);
        assert_eq!(
            conflict("explain useEffect in react", "explain useeffect in react"),
            None
        );
        assert_eq!(conflict("upgrade to v2.1", "upgrade to v2.2"), kind);
        assert_eq!(conflict("open /etc/hosts", "open /etc/passwd"), kind);
    }

    #[test]
    fn swapped_roles_conflict_and_reordered_wording_does_not() {
        let kind = Some(GuardKind::Order);
        assert_eq!(
            conflict(
                "is Messi better than Ronaldo",
                "is Ronaldo better than Messi"
            ),
            kind
        );
        assert_eq!(
            conflict("fly from Rome to Paris", "fly from Paris to Rome"),
            kind
        );
        let report = GuardReport::compare("learn java, best way", "best way: learn java");
        assert_ne!(report.order, GuardState::Conflict);
        assert_eq!(
            conflict("can a landlord sue a tenant", "can a tenant sue a landlord"),
            kind
        );
    }

    #[test]
    fn one_word_in_anothers_place_is_another_slot() {
        let kind = Some(GuardKind::Substitution);
        assert_eq!(
            conflict("the capital of France", "the capital of Spain"),
            kind
        );
        assert_eq!(
            conflict("how to cancel a booking", "how to cancel bookings"),
            None
        );
        assert_eq!(
            conflict(
                "a formal letter of complaint",
                "a funny letter of complaint"
            ),
            kind
        );
    }

    #[test]
    fn who_when_where_and_why_are_not_exchangeable() {
        let kind = Some(GuardKind::Question);
        assert_eq!(
            conflict(
                "who invented the telephone",
                "when was the telephone invented"
            ),
            kind
        );
        assert_eq!(
            conflict("what is the way to cook rice", "how do I cook rice"),
            None
        );
    }

    #[test]
    fn days_and_quotes_must_be_the_same() {
        assert_eq!(
            conflict("open on Monday", "open on Tuesday"),
            Some(GuardKind::Calendar)
        );
        assert_eq!(
            conflict("translate \"good night\"", "translate \"good morning\""),
            Some(GuardKind::Quote)
        );
    }

    proptest! {
        #[test]
        fn any_two_texts_are_compared_symmetrically(a in ".{0,80}", b in ".{0,80}") {
            prop_assert_eq!(GuardReport::compare(&a, &b), GuardReport::compare(&b, &a));
        }

        #[test]
        fn a_text_never_conflicts_with_itself(a in ".{0,120}") {
            let spaced = format!("{a} ");
            prop_assert_eq!(GuardReport::compare(&a, &spaced).conflict(), None);
        }
    }
}
