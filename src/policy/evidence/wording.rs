//! Whether two texts are the same but for dress: case, punctuation, contractions, spelling, courtesy.
//!
//! [`Wording`] is a digest of a text's normal form. Nothing that may change what is asked is made equal:
//! words keep their order, and negations, plurals, inflections and the indefinite article stay. Tokens that are not plain
//! words (flags, numbers with signs, code) stay to the letter, and so does what stands in quotation marks.

use std::borrow::Cow;

use super::lexicon::{self, Role};
use super::reading::Reading;

/// Stands where a sentence ends before the text does.
const STOP: &str = ".";

/// Stands for a colon or a semicolon.
const COLON: &str = ":";

/// Stands for a comma while courtesy is looked for.
const COMMA: &str = ",";

/// Digest of the normal form of a text. Cryptographic, so that nobody can make two texts meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wording([u8; 16]);

impl Wording {
    /// The wording of a text; `None` when nothing is left of it.
    pub(super) fn of(reading: &Reading<'_>) -> Option<Self> {
        let words = normal_form(reading);
        if words.is_empty() {
            return None;
        }
        let mut hasher = blake3::Hasher::new();
        for word in &words {
            hasher.update(word.as_bytes());
            // Stands in no word.
            hasher.update(b" ");
        }
        let mut digest = [0; 16];
        hasher.finalize_xof().fill(&mut digest);
        Some(Self(digest))
    }
}

type Words<'t> = Vec<Cow<'t, str>>;

fn normal_form<'t>(reading: &'t Reading<'_>) -> Words<'t> {
    let mut words = Words::with_capacity(reading.token_count() + 4);
    let is_shouted = is_shouted(reading.text());
    let mut quotation = Quotation::default();
    let count = reading.token_count();
    for i in 0..count {
        let raw = reading.raw_token(i);
        if quotation.holds(raw) {
            words.push(raw.into());
            continue;
        }
        // Of what is no word, "5!" and "nil?" are more than a mark at the end of a sentence.
        let bare = raw.trim_end_matches(['.', ',', ';', ':', '?', '!', '\u{2026}']);
        let word = bare.trim_start_matches([',', ';', ':', '?', '!']);
        if is_plain(word) {
            for part in word.split('-') {
                push_word(&mut words, part, is_shouted);
            }
        } else if !word.is_empty() {
            words.push(raw.trim_end_matches(['.', ',', ';', ':', '?']).into());
        }
        let mark = mark(&raw[bare.len()..]).filter(|_| i + 1 < count);
        words.extend(mark.map(Cow::Borrowed));
    }
    let courtesy = Courtesy::of(&words);
    let rest = courtesy.before..words.len() - courtesy.after;
    let mut words: Words<'t> = words.drain(rest).collect();
    words.retain(|word| word != COMMA);
    drop_articles(&mut words);
    words.dedup_by(|word, before| is_mark(word) && *word == *before);
    // "How do I", "how can I" and "how to" ask for the same.
    if let [how, verb, asker, _, ..] = &words[..]
        && how == "how"
        && matches!(&**verb, "do" | "can")
        && asker == "i"
    {
        words.splice(1..3, [Cow::Borrowed("to")]);
    }
    words
}

/// Drops "the", but not where it may be all that tells a name or a certain thing from its kind: "what is the
/// matrix" does not ask what a matrix is.
fn drop_articles(words: &mut Words<'_>) {
    let mut may_drop = false;
    words.retain(|word| {
        let dropped = may_drop && word == "the";
        may_drop = !matches!(&**word, "is" | "are" | "was" | "were" | "the") && !is_mark(word);
        !dropped
    });
}

/// What the punctuation behind a word stands for.
fn mark(punctuation: &str) -> Option<&'static str> {
    match punctuation {
        "" => None,
        ends if ends.contains(['.', '?', '!', '\u{2026}']) => Some(STOP),
        joins if joins.contains([':', ';']) => Some(COLON),
        _ => Some(COMMA),
    }
}

fn is_mark(word: &str) -> bool {
    matches!(word, STOP | COLON | COMMA)
}

/// Letters, with apostrophes and hyphens between them or an apostrophe behind.
fn is_plain(word: &str) -> bool {
    let word = word.strip_suffix('\'').unwrap_or(word);
    !word.is_empty()
        && word
            .split(['\'', '-'])
            .all(|part| !part.is_empty() && part.chars().all(char::is_alphabetic))
}

fn push_word<'t>(words: &mut Words<'t>, word: &'t str, is_shouted: bool) {
    let lower: Cow<'t, str> = if word.bytes().all(|byte| byte.is_ascii_lowercase()) {
        word.into()
    } else {
        word.to_lowercase().into()
    };
    if !is_shouted && keeps_case(word, &lower) {
        words.push(word.into());
        return;
    }
    if let Some((_, long)) = SPELT_OUT.iter().find(|(short, _)| *short == lower) {
        words.extend(long.split(' ').map(Cow::Borrowed));
        return;
    }
    for (ending, second) in CONTRACTIONS {
        if let Some(first) = lower.strip_suffix(ending).filter(|first| !first.is_empty()) {
            words.push(first.to_owned().into());
            words.push((*second).into());
            return;
        }
    }
    let cardinal = lexicon::meaning(&lower).cardinal;
    words.push(match cardinal {
        // "One" is a pronoun as often as a number, and "zero" a noun.
        3.. => (cardinal - 1).to_string().into(),
        _ => american(lower),
    });
}

/// Words that another case makes another word: US and us, IT and it; MB and Mb, mW and MW.
fn keeps_case(word: &str, lower: &str) -> bool {
    let is_capitals = word.len() > 1 && word.chars().all(char::is_uppercase);
    let is_unit = (2..=3).contains(&word.len())
        && !word.contains('\'')
        && word != lower
        && !lower.contains(['a', 'e', 'i', 'o', 'u', 'y']);
    is_unit || is_capitals && lexicon::meaning(lower).is(Role::Function)
        // Not among the words that hold a sentence together, and words none the less.
        || is_capitals && matches!(lower, "us" | "he" | "no" | "or" | "oh")
}

/// Whether most letters are capitals.
fn is_shouted(text: &str) -> bool {
    let (mut letters, mut capitals) = (0_usize, 0_usize);
    for letter in text.chars().filter(|letter| letter.is_alphabetic()) {
        letters += 1;
        capitals += usize::from(letter.is_uppercase());
    }
    2 * capitals > letters
}

/// Whether the tokens so far have opened a quotation that is not closed.
#[derive(Default)]
struct Quotation {
    closes_with: Option<char>,
}

impl Quotation {
    /// Takes the next token: whether it belongs to a quotation. One that is never closed goes to the end.
    fn holds(&mut self, token: &str) -> bool {
        let mut belongs = self.closes_with.is_some();
        for (at, letter) in token.char_indices() {
            match self.closes_with {
                Some('\'') if letter == '\'' => {
                    // An apostrophe within a word closes nothing.
                    let rest = &token[at + 1..];
                    if !rest.starts_with(char::is_alphabetic) {
                        self.closes_with = None;
                    }
                }
                Some(close) if letter == close => self.closes_with = None,
                Some(_) => {}
                None => {
                    self.closes_with = match letter {
                        '"' | '`' => Some(letter),
                        '\u{201c}' => Some('\u{201d}'),
                        // Its partner was made an apostrophe.
                        '\u{2018}' => Some('\''),
                        '\u{ab}' => Some('\u{bb}'),
                        '\'' if at == 0 => Some('\''),
                        _ => None,
                    };
                    belongs |= self.closes_with.is_some();
                }
            }
        }
        belongs
    }
}

/// How many words at either end are mere courtesy.
#[derive(Default)]
struct Courtesy {
    before: usize,
    after: usize,
}

impl Courtesy {
    fn of(words: &[Cow<'_, str>]) -> Self {
        let mut found = Self::default();
        loop {
            let rest = &words[found.before..words.len() - found.after];
            let before = before(rest);
            let after = after(&rest[before..]);
            if before + after == 0 {
                return found;
            }
            found.before += before;
            found.after += after;
        }
    }
}

/// Words of one lead-in; 0 where there is none, or it would leave less than two words.
fn before(words: &[Cow<'_, str>]) -> usize {
    let starts = |phrase: &str| {
        let length = phrase.split(' ').count();
        let fits = words.len() > length && phrase.split(' ').zip(words).all(|(x, y)| x == y);
        (fits && leaves_enough(&words[length..])).then_some(length)
    };
    let asks = |length: usize| {
        let next = words[length..].iter().find(|word| !is_mark(word));
        next.is_some_and(|word| lexicon::meaning(word).asks.is_some())
    };
    // "Hello, how": but "hello world" is another matter.
    let greets = |length: usize| matches!(&*words[length], STOP | COMMA) || asks(length);
    if words.first().is_some_and(|word| is_mark(word)) {
        return 1;
    }
    let longest = |phrases: &[&str]| phrases.iter().filter_map(|phrase| starts(phrase)).max();
    longest(REQUESTS)
        .or_else(|| longest(GREETINGS).filter(|&length| greets(length)))
        .or_else(|| longest(LEAD_INS).filter(|&length| asks(length)))
        .unwrap_or(0)
}

/// Words of one closing phrase. It is set off: who asks how to say "thank you" asks something.
fn after(words: &[Cow<'_, str>]) -> usize {
    if words.last().is_some_and(|word| is_mark(word)) {
        return 1;
    }
    let ends = |phrase: &&&str| {
        let length = phrase.split(' ').count();
        let Some(at) = words.len().checked_sub(length) else {
            return false;
        };
        let is_set_off = match at.checked_sub(1).map(|at| &*words[at]) {
            Some(STOP) => true,
            Some(COMMA) => **phrase == "please",
            _ => false,
        };
        is_set_off
            && phrase.split(' ').zip(&words[at..]).all(|(x, y)| x == y)
            && leaves_enough(&words[..at])
    };
    let phrase = CLOSINGS.iter().find(ends);
    phrase.map_or(0, |phrase| phrase.split(' ').count())
}

fn leaves_enough(words: &[Cow<'_, str>]) -> bool {
    words.iter().filter(|word| !is_mark(word)).nth(1).is_some()
}

/// What says nothing before a request.
const REQUESTS: &[&str] = &["please", "kindly"];

/// What says nothing where it is set off, or before a question.
const GREETINGS: &[&str] = &[
    "hi there",
    "hello there",
    "hey there",
    "hi",
    "hello",
    "hey",
    "excuse me",
];

/// What says nothing before a question.
const LEAD_INS: &[&str] = &[
    "tell me",
    "can you tell me",
    "could you tell me",
    "can you please tell me",
    "could you please tell me",
    "would you tell me",
    "can someone tell me",
    "can anyone tell me",
    "i want to know",
    "i would like to know",
    "i need to know",
    "i was wondering",
];

/// What says nothing at the end.
const CLOSINGS: &[&str] = &[
    "please",
    "thanks",
    "thank you",
    "thanks in advance",
    "thank you in advance",
    "thank you very much",
];

/// Endings that are a word of their own. "'d" is not: it is "had" or "would".
const CONTRACTIONS: &[(&str, &str)] = &[
    ("n't", "not"),
    ("'re", "are"),
    ("'ve", "have"),
    ("'ll", "will"),
];

/// Contractions whose parts no ending gives away, and those that are commonly written without apostrophe and
/// are no other word so.
const SPELT_OUT: &[(&str, &str)] = &[
    ("can't", "can not"),
    ("won't", "will not"),
    ("shan't", "shall not"),
    ("cannot", "can not"),
    ("dont", "do not"),
    ("doesnt", "does not"),
    ("didnt", "did not"),
    ("isnt", "is not"),
    ("arent", "are not"),
    ("wasnt", "was not"),
    ("couldnt", "could not"),
    ("wouldnt", "would not"),
    ("shouldnt", "should not"),
    ("i'm", "i am"),
    ("im", "i am"),
    ("let's", "let us"),
    ("what's", "what is"),
    ("whats", "what is"),
    ("who's", "who is"),
    ("where's", "where is"),
    ("when's", "when is"),
    ("how's", "how is"),
    ("why's", "why is"),
    ("that's", "that is"),
    ("there's", "there is"),
    ("here's", "here is"),
    ("it's", "it is"),
    ("he's", "he is"),
    ("she's", "she is"),
];

/// The American spelling of a word. An ending may be changed of words that no spelling differs in, as long as
/// no two words of different meaning meet.
fn american(mut word: Cow<'_, str>) -> Cow<'_, str> {
    if let Some((_, american)) = SPELLINGS.iter().find(|(british, _)| *british == word) {
        return (*american).into();
    }
    if let Some(stem) = OUR.iter().find(|stem| word.contains(**stem)) {
        let short = format!("{}r", &stem[..stem.len() - 2]);
        word = word.replace(stem, &short).into();
    }
    // "Prise" and "size" are shorter.
    if word.len() >= 7 {
        for (british, american) in ENDINGS {
            if let Some(stem) = word.strip_suffix(british) {
                return format!("{stem}{american}").into();
            }
        }
    }
    word
}

/// Words in which "our" is "or" in America, and what is made of them.
const OUR: &[&str] = &[
    "colour",
    "favour",
    "behaviour",
    "neighbour",
    "honour",
    "labour",
    "humour",
    "flavour",
    "harbour",
    "rumour",
    "armour",
    "odour",
    "vapour",
    "endeavour",
    "tumour",
];

const ENDINGS: &[(&str, &str)] = &[
    ("ise", "ize"),
    ("ised", "ized"),
    ("ises", "izes"),
    ("ising", "izing"),
    ("isation", "ization"),
    ("isations", "izations"),
    ("yse", "yze"),
    ("ysed", "yzed"),
    ("ysing", "yzing"),
];

const SPELLINGS: &[(&str, &str)] = &[
    ("centre", "center"),
    ("centres", "centers"),
    ("theatre", "theater"),
    ("metre", "meter"),
    ("metres", "meters"),
    ("kilometre", "kilometer"),
    ("kilometres", "kilometers"),
    ("centimetre", "centimeter"),
    ("centimetres", "centimeters"),
    ("litre", "liter"),
    ("litres", "liters"),
    ("fibre", "fiber"),
    ("grey", "gray"),
    ("programme", "program"),
    ("programmes", "programs"),
    ("defence", "defense"),
    ("offence", "offense"),
    ("licence", "license"),
    ("catalogue", "catalog"),
    ("aluminium", "aluminum"),
    ("maths", "math"),
    ("jewellery", "jewelry"),
    ("travelling", "traveling"),
    ("travelled", "traveled"),
    ("cancelled", "canceled"),
    ("cancelling", "canceling"),
    ("modelling", "modeling"),
    ("labelled", "labeled"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn form(text: &str) -> String {
        let reading = Reading::of(text);
        normal_form(&reading).join(" ")
    }

    #[track_caller]
    fn same(a: &str, b: &str) {
        assert_eq!(form(a), form(b), "{a} / {b}");
    }

    #[track_caller]
    fn different(a: &str, b: &str) {
        assert_ne!(form(a), form(b), "{a} / {b}");
    }

    #[test]
    fn case_punctuation_and_spaces_are_dress() {
        same(
            "What is the capital of France?",
            "what is  the capital of france",
        );
        same("How do I cancel a ticket?", "HOW DO I CANCEL A TICKET ???");
        same(
            "Explain recursion, with an example.",
            "explain recursion with an example",
        );
        same(
            "What is a mind-blowing fact?",
            "What is a mind blowing fact",
        );
    }

    #[test]
    fn contractions_are_what_they_stand_for() {
        same(
            "What's the capital of France?",
            "what is the capital of France",
        );
        same("Why don't cats swim?", "Why do not cats swim?");
        same("Why can\u{2019}t I log in?", "why cannot I log in");
        same("I'm lost, what now?", "I am lost, what now?");
        different("What'd he say?", "What had he say?");
    }

    #[test]
    fn spellings_and_small_numbers_are_dress() {
        same(
            "What colours do neighbours organise?",
            "what colors do neighbors organize",
        );
        same(
            "How far is a kilometre in travelling?",
            "How far is a kilometer in traveling",
        );
        same("Name three rivers", "name 3 rivers");
        different("Which one is best?", "Which 1 is best?");
        different("forth of July", "fourth of July");
    }

    #[test]
    fn courtesy_is_dress_where_it_is_set_off() {
        same(
            "Hi! Could you please tell me how to freeze basil? Thanks!",
            "how to freeze basil",
        );
        same("Please explain recursion", "explain recursion, please");
        same("Hey, what's a monad?", "what is a monad?");
        same(
            "How can I reset my password?",
            "How do I reset my password?",
        );
        different("How do I say thank you?", "How do I say please?");
        different(
            "Translate to Spanish: thank you",
            "Translate to Spanish: thanks",
        );
        different("Translate to Spanish: thank you", "Translate to Spanish");
        different("hello world in C", "world in C");
        different("Can you help me?", "help me");
        different("How can you help?", "How can I help?");
    }

    #[test]
    fn the_definite_article_goes_where_it_tells_nothing() {
        same(
            "What happened after the Kurukshetra war?",
            "What happened after Kurukshetra war?",
        );
        different("What is the matrix?", "What is matrix?");
        different("What is a matrix?", "What is matrix?");
        different("Who are the Doors?", "Who are Doors?");
    }

    #[test]
    fn what_may_change_the_question_stays() {
        for (a, b) in [
            ("What does rm -r do?", "What does rm -R do?"),
            ("Is it safe?", "Is it not safe?"),
            ("Is Python faster than Java?", "Is Java faster than Python?"),
            ("Is it == or = here", "Is it = or == here"),
            ("What is 5!?", "What is 5?"),
            ("What is C++?", "What is C?"),
            ("What is 3.5 plus 1?", "What is 35 plus 1?"),
            (
                "Translate \"good morning\" now",
                "Translate good morning now",
            ),
            ("Translate \"Polish\" now", "Translate \"polish\" now"),
            ("Translate 'let IT go' now", "Translate 'let it go' now"),
            ("Translate \u{2018}IT now", "Translate \u{2018}it now"),
            (
                "How does it affect US trade?",
                "How does it affect us trade?",
            ),
            ("How do I get IT support?", "How do I get it support?"),
            ("How many MB are in a Gb?", "How many Mb are in a Gb?"),
            ("How many mW are it", "How many MW are it"),
            ("Compute 2 * (3 + 4)", "Compute (2 * 3) + 4"),
            ("both a and (b or c)", "(both a and b) or c"),
            ("No. Stop it", "No stop it"),
            ("Is a cat big?", "Is cats big?"),
            ("What do few people know?", "What do a few people know?"),
            ("What is his name?", "What is her name?"),
            ("resume a job", "r\u{e9}sum\u{e9} a job"),
        ] {
            different(a, b);
        }
    }

    #[test]
    fn courtesy_alone_is_left_as_it_is() {
        for text in ["please", "hello, thanks", "thanks!", "Hi. Thank you."] {
            assert!(!form(text).is_empty(), "{text}");
        }
        assert_eq!(Wording::of(&Reading::of(" ?! ")), None);
        assert_eq!(Wording::of(&Reading::of("")), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_has_a_form_and_adding_a_mark_at_the_end_keeps_that_of_words(
            text in ".{0,80}", words in "[a-z]{1,9}( [a-z]{1,9}){1,6}"
        ) {
            let _ = form(&text);
            proptest::prop_assert_eq!(form(&words), form(&format!("{words}?")));
        }
    }
}
