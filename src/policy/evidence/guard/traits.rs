//! The traits of one text, as digests: worked out once, compared with many.

use super::super::lexicon::{self, Pronoun, Role};
use super::super::reading::{Reading, digest};
use super::order::{self, Passive, Sequence};
use super::quantity::{Amount, Quantity, ordinal};
use super::surface::{identifier_digest, is_identifier, is_operator, quotes};
use super::{GuardReport, GuardState};

/// A word as rare as this is taken for a name: one in 8,000 questions.
const RARE: f32 = 9.0;

/// The traits of one text. Lists are sorted and without repetition unless said otherwise.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Traits {
    /// Stems in order, without numbers, negations and function words.
    pub(in super::super) content: Sequence,
    /// Digests of all stems.
    stems: Box<[u32]>,
    numbers: Box<[Amount]>,
    identifiers: Box<[u32]>,
    /// Places in the calendar's list, and days of a year as 100 times the month plus the day.
    calendar: Box<[u32]>,
    quotes: Box<[u32]>,
    /// Names and rare words.
    entities: Box<[u32]>,
    antonyms: Box<[u16]>,
    /// A bit per kind.
    questions: u64,
    formats: u64,
    languages: u128,
    pronouns: u64,
    connectives: u64,
    negated: bool,
}

impl Traits {
    pub(in super::super) fn of(reading: &Reading<'_>) -> Self {
        let mut draft = Draft::default();
        draft.read_tokens(reading);
        draft.read_words(reading);
        draft.finish(reading)
    }

    /// What the guards say of two texts.
    pub(in super::super) fn compare(&self, other: &Self) -> GuardReport {
        let (a, b) = (self, other);
        GuardReport {
            number: compare_numbers(&a.numbers, &b.numbers),
            negation: match (a.negated, b.negated) {
                (false, false) => GuardState::Absent,
                (true, true) => GuardState::Agree,
                _ => GuardState::Conflict,
            },
            antonym: compare_antonyms(&a.antonyms, &b.antonyms),
            identifier: compare_sets(&a.identifiers, &b.identifiers),
            calendar: compare_sets(&a.calendar, &b.calendar),
            quote: compare_sets(&a.quotes, &b.quotes),
            order: order::compare_order(&a.content, &b.content),
            substitution: order::compare_substitution(&a.content, &b.content),
            question: compare_bits(a.questions.into(), b.questions.into()),
            format: compare_bits(a.formats.into(), b.formats.into()),
            language: compare_bits(a.languages, b.languages),
            entity: compare_entities(a, b),
            pronoun: compare_bits(a.pronouns.into(), b.pronouns.into()),
            connective: compare_bits(a.connectives.into(), b.connectives.into()),
        }
    }

    /// How many numbers stand in one text only, both ways together.
    pub(in super::super) fn different_numbers(&self, other: &Self) -> usize {
        unmatched(&self.numbers, &other.numbers) + unmatched(&other.numbers, &self.numbers)
    }

    /// Bytes on the heap.
    pub(in super::super) fn heap_bytes(&self) -> usize {
        let words = self.stems.len()
            + self.identifiers.len()
            + self.calendar.len()
            + self.quotes.len()
            + self.entities.len();
        self.content.heap_bytes()
            + 4 * words
            + 2 * self.antonyms.len()
            + size_of_val(&*self.numbers)
    }
}

/// Traits while a text is read.
#[derive(Default)]
struct Draft {
    content: order::Builder,
    stems: Vec<u32>,
    numbers: Vec<Amount>,
    identifiers: Vec<u32>,
    calendar: Vec<u32>,
    entities: Vec<u32>,
    antonyms: Vec<u16>,
    questions: u64,
    formats: u64,
    languages: u128,
    pronouns: u64,
    connectives: u64,
    negations: usize,
    /// Tokens that are numbers or part of a date.
    spoken_for: Vec<bool>,
}

impl Draft {
    fn read_tokens(&mut self, reading: &Reading<'_>) {
        let count = reading.token_count();
        self.spoken_for = vec![false; count];
        let mut words = reading.words.iter().peekable();
        for i in 0..count {
            let token = reading.token(i);
            let mut meaning = lexicon::Meaning::default();
            let mut words_here = 0;
            while let Some(word) = words.next_if(|word| word.token <= i) {
                meaning = word.meaning;
                words_here += 1;
            }
            if words_here > 1 {
                meaning = lexicon::Meaning::default();
            }
            if is_operator(reading.raw_token(i)) {
                self.identifiers.push(digest(reading.raw_token(i)));
            }
            if token.is_empty() {
                continue;
            }
            if let Some(bit) = lexicon::language_of_token(token) {
                self.languages |= 1 << bit;
            }
            if self.spoken_for[i] {
                continue;
            }
            if self.read_date(reading, i, meaning) {
                continue;
            }
            if let Some(rank) = ordinal(token) {
                self.numbers.push(Amount::rank(rank));
                self.spoken_for[i] = true;
                continue;
            }
            if is_identifier(token) {
                self.identifiers.push(identifier_digest(token));
            }
            let next = [reading.token(i + 1), reading.token(i + 2)];
            if let Some(quantity) = Quantity::parse(token, meaning, next) {
                self.numbers.push(quantity.amount());
                self.spoken_for[i] = true;
            }
        }
    }

    /// Reads a day of a year that begins at token `i`: "2020-02-29", "5 March", "March 5th".
    fn read_date(&mut self, reading: &Reading<'_>, i: usize, meaning: lexicon::Meaning) -> bool {
        let token = reading.token(i);
        if let Some((year, month, day)) = iso_date(token) {
            self.push_day(month, day);
            self.numbers.push(Amount::plain(year.into()));
            self.spoken_for[i] = true;
            return true;
        }
        let day_of = |token: &str| {
            let plain = || {
                Quantity::parse(token, lexicon::Meaning::default(), ["", ""])
                    .and_then(Quantity::whole)
                    .and_then(|day| u8::try_from(day).ok())
            };
            ordinal(token)
                .or_else(plain)
                .filter(|day| (1..=31).contains(day))
        };
        let month_of = |place: usize| {
            let token = reading.token(place);
            let is_word = token.len() >= 3 && token.bytes().all(|byte| byte.is_ascii_alphabetic());
            is_word
                .then(|| lexicon::meaning(&token.to_ascii_lowercase()).calendar)
                .and_then(lexicon::month)
        };
        let starts_with_digit = token.starts_with(|c: char| c.is_ascii_digit());
        if starts_with_digit && let Some(day) = day_of(token) {
            let of = usize::from(reading.token(i + 1) == "of");
            if let Some(month) = month_of(i + 1 + of) {
                self.push_day(month, day);
                self.speak_for(i..i + 2 + of);
                return true;
            }
        }
        let next = reading.token(i + 1);
        if lexicon::month(meaning.calendar).is_some()
            && next.starts_with(|c: char| c.is_ascii_digit())
            && let (Some(month), Some(day)) = (month_of(i), day_of(next))
        {
            self.push_day(month, day);
            self.speak_for(i..i + 2);
            return true;
        }
        false
    }

    fn push_day(&mut self, month: u8, day: u8) {
        self.calendar.push(100 * u32::from(month) + u32::from(day));
    }

    fn speak_for(&mut self, tokens: std::ops::Range<usize>) {
        let end = tokens.end.min(self.spoken_for.len());
        self.spoken_for[tokens.start..end].fill(true);
    }

    fn read_words(&mut self, reading: &Reading<'_>) {
        let words = &reading.words;
        let translates = words
            .iter()
            .any(|word| matches!(reading.spelling(word), "translate" | "translation" | "say"));
        let mut is_joined = false;
        let mut passive = PassiveReader::default();
        for (i, word) in words.iter().enumerate() {
            let meaning = &word.meaning;
            let before = i.checked_sub(1).and_then(|i| words.get(i));
            let spelling = reading.spelling(word);
            let spoken_for = self.spoken_for[word.token];
            self.negations += usize::from(meaning.is(Role::Negation));
            match spelling {
                "and" => self.connectives |= 1,
                "or" => self.connectives |= 2,
                "use" | "used" if speaks_of_the_past(reading, i) => self.negations += 1,
                _ => {}
            }
            self.content.is_relational |= meaning.is(Role::Relation);
            self.stems.push(word.stem);
            if meaning.calendar > 0 && !spoken_for {
                let is_written_as_name =
                    i > 0 && matches!(reading.token(word.token), "May" | "March");
                if !lexicon::is_ambiguous_month(meaning.calendar) || is_written_as_name {
                    self.calendar.push(meaning.calendar.into());
                }
            }
            if meaning.ordinal > 0 {
                self.numbers.push(Amount::rank(meaning.ordinal));
            }
            if let Some(ask) = meaning.asks.filter(|ask| ask.is_strict()) {
                self.questions |= 1 << ask as u8;
            }
            if meaning.format > 0 {
                self.formats |= 1 << meaning.format;
            }
            if meaning.language > 0 && self.names_language(reading, i, translates) {
                self.languages |= 1 << meaning.language;
            }
            if let Some(pronoun) = meaning.pronoun
                && self.leans_on_context(reading, i, pronoun)
            {
                self.pronouns |= 1 << pronoun as u8;
            }
            let used = meaning.antonyms.iter().take_while(|&&side| side > 0);
            self.antonyms.extend(used);
            // Numbers and negations have guards of their own.
            if !spoken_for && word.is_content() {
                if word.is_name || word.weight >= RARE {
                    self.entities.push(word.stem);
                }
                self.content.passive = self.content.passive.or(passive.agent(word.stem));
                let same_clause = before.is_some_and(|before| !before.ends_clause);
                self.content
                    .push(word.stem, lexicon::stem(spelling), is_joined && same_clause);
                is_joined = false;
            }
            passive.read(spelling, self.content.before_last(), word.ends_clause);
            if meaning.is(Role::Conjunction) && !self.content.is_empty() {
                is_joined = true;
            } else if meaning.is(Role::Function) && meaning.is(Role::Relation) {
                is_joined = false;
            }
        }
    }

    /// Whether the word at `i` names a language, and is not the verb in "how do I go".
    fn names_language(&self, reading: &Reading<'_>, i: usize, translates: bool) -> bool {
        let Some(word) = reading.words.get(i) else {
            return false;
        };
        // "C++" is read as a whole.
        if lexicon::language_of_token(reading.token(word.token)).is_some() {
            return false;
        }
        if !word.meaning.is(Role::Ambiguous) {
            return true;
        }
        let before = i.checked_sub(1).and_then(|i| reading.words.get(i));
        match before.map_or("", |word| reading.spelling(word)) {
            "in" | "into" | "using" | "from" | "with" => true,
            "to" => translates,
            _ => false,
        }
    }

    /// Whether the pronoun at `i` stands for something that the text did not name before. What is he
    /// or she matters even where it did.
    fn leans_on_context(&self, reading: &Reading<'_>, i: usize, pronoun: Pronoun) -> bool {
        match pronoun {
            Pronoun::He | Pronoun::She => true,
            Pronoun::They => self.content.len() < 2,
            Pronoun::It => {
                let after = reading.words[i + 1..].iter();
                let next = reading.words.get(i + 1).map(|word| reading.spelling(word));
                // "How long does it take", "is it safe to eat": nothing is meant.
                let is_empty = matches!(next, Some("take" | "takes" | "to" | "that" | "like"))
                    || after.filter(|word| word.is_content()).count() > 2;
                self.content.len() < 2 && !is_empty
            }
        }
    }

    fn finish(self, reading: &Reading<'_>) -> Traits {
        Traits {
            content: self.content.build(),
            stems: sorted(self.stems),
            numbers: sorted(self.numbers),
            identifiers: sorted(self.identifiers),
            calendar: sorted(self.calendar),
            quotes: sorted(quotes(reading.text())),
            entities: sorted(self.entities),
            antonyms: sorted(self.antonyms),
            questions: self.questions,
            formats: self.formats,
            languages: self.languages,
            pronouns: self.pronouns,
            connectives: self.connectives,
            negated: self.negations % 2 == 1,
        }
    }
}

/// Whether "used" at `i` begins "used to be": what was, and is no longer.
fn speaks_of_the_past(reading: &Reading<'_>, i: usize) -> bool {
    let word = |i: usize| reading.words.get(i).map(|word| reading.spelling(word));
    word(i + 1) == Some("to") && word(i + 2) == Some("be")
}

/// Finds "was PATIENT done by AGENT" and "PATIENT was done by AGENT".
#[derive(Default)]
enum PassiveReader {
    #[default]
    Nothing,
    /// A form of "to be" was read.
    Being,
    /// The participle was the last word.
    Participle { patient: u32 },
    /// "By" was the last word.
    By { patient: u32 },
}

impl PassiveReader {
    /// After the content word that follows: whole, if it is the agent.
    fn agent(&self, stem: u32) -> Option<Passive> {
        match *self {
            Self::By { patient } => Some(Passive {
                patient,
                agent: stem,
            }),
            _ => None,
        }
    }

    /// Takes the next word; `patient` is the content word before it.
    fn read(&mut self, word: &str, patient: Option<u32>, ends_clause: bool) {
        *self = match (&*self, word) {
            (_, "is" | "are" | "was" | "were" | "be" | "been" | "being") => Self::Being,
            (Self::Participle { patient }, "by") => Self::By { patient: *patient },
            (Self::By { patient }, "the" | "a" | "an" | "my" | "his" | "her" | "their") => {
                Self::By { patient: *patient }
            }
            (Self::Being, _) if lexicon::is_participle(word) => {
                patient.map_or(Self::Nothing, |patient| Self::Participle { patient })
            }
            (Self::Being, _) => Self::Being,
            _ => Self::Nothing,
        };
        if ends_clause {
            *self = Self::Nothing;
        }
    }
}

/// Year, month and day of a token such as "2020-02-29".
fn iso_date(token: &str) -> Option<(u16, u8, u8)> {
    let mut parts = token.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || (year.len(), month.len(), day.len()) != (4, 2, 2) {
        return None;
    }
    let (year, month, day): (u16, u8, u8) =
        (year.parse().ok()?, month.parse().ok()?, day.parse().ok()?);
    ((1..=12).contains(&month) && (1..=31).contains(&day)).then_some((year, month, day))
}

fn sorted<T: Ord>(mut values: Vec<T>) -> Box<[T]> {
    values.sort_unstable();
    values.dedup();
    values.into()
}

fn compare_sets<T: Ord>(a: &[T], b: &[T]) -> GuardState {
    match (a.is_empty(), b.is_empty()) {
        (true, true) => GuardState::Absent,
        (true, false) | (false, true) => GuardState::OneSided,
        (false, false) if a == b => GuardState::Agree,
        // One side says more, in nothing do they differ: "python 3" and "python 3 on debian 12".
        (false, false) if is_subset(a, b) || is_subset(b, a) => GuardState::OneSided,
        (false, false) => GuardState::Conflict,
    }
}

fn is_subset<T: Ord>(a: &[T], b: &[T]) -> bool {
    a.iter().all(|value| b.binary_search(value).is_ok())
}

fn compare_bits(a: u128, b: u128) -> GuardState {
    match (a, b) {
        (0, 0) => GuardState::Absent,
        (0, _) | (_, 0) => GuardState::OneSided,
        _ if a == b => GuardState::Agree,
        _ if a & b == a || a & b == b => GuardState::OneSided,
        _ => GuardState::Conflict,
    }
}

fn unmatched(a: &[Amount], b: &[Amount]) -> usize {
    a.iter()
        .filter(|x| !b.iter().any(|y| x.matches(*y)))
        .count()
}

fn compare_numbers(a: &[Amount], b: &[Amount]) -> GuardState {
    match (a.is_empty(), b.is_empty()) {
        (true, true) => GuardState::Absent,
        (true, false) | (false, true) => GuardState::OneSided,
        (false, false) => match (unmatched(a, b), unmatched(b, a)) {
            (0, 0) => GuardState::Agree,
            (0, _) | (_, 0) => GuardState::OneSided,
            _ => GuardState::Conflict,
        },
    }
}

/// `a` and `b` are sides of pairs: see [`lexicon::Meaning::antonyms`].
fn compare_antonyms(a: &[u16], b: &[u16]) -> GuardState {
    let has = |sides: &[u16], side: u16| sides.binary_search(&side).is_ok();
    let mut state = GuardState::Absent;
    for &side in a {
        let opposite = ((side - 1) ^ 1) + 1;
        if has(b, opposite) && !has(b, side) && !has(a, opposite) {
            return GuardState::Conflict;
        }
        if has(b, side) {
            state = GuardState::Agree;
        }
    }
    state
}

/// Names and rare words of each text, beside all words of the other: capitals may be missing there.
fn compare_entities(a: &Traits, b: &Traits) -> GuardState {
    if a.entities.is_empty() && b.entities.is_empty() {
        return GuardState::Absent;
    }
    match (
        is_subset(&a.entities, &b.stems),
        is_subset(&b.entities, &a.stems),
    ) {
        (true, true) => GuardState::Agree,
        (false, false) => GuardState::Conflict,
        _ => GuardState::OneSided,
    }
}
