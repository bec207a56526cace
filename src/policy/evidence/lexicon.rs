//! Words with a meaning that some guard or feature knows.
//!
//! One look-up per word: all lists are merged into one table when the first text is read.

use std::collections::HashMap;
use std::sync::OnceLock;

/// What a word does to a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Role {
    /// It holds the sentence together, and says nothing of the subject.
    Function = 1,
    /// It turns the sentence round.
    Negation = 2,
    /// It gives the words beside it different roles.
    Relation = 4,
    /// It joins words of equal role.
    Conjunction = 8,
    /// The name of a language that is an ordinary word too.
    Ambiguous = 16,
}

/// What is known of one word.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meaning {
    roles: u8,
    /// Place in [`CALENDAR`], from 1.
    pub(super) calendar: u8,
    /// Which number it names, plus 1: so "zero" is 1.
    pub(super) cardinal: u8,
    /// Which rank it names.
    pub(super) ordinal: u8,
    /// What it asks for.
    pub(super) asks: Option<Ask>,
    /// Bit in [`FORMATS`], from 1.
    pub(super) format: u8,
    /// Bit in [`LANGUAGES`], from 1.
    pub(super) language: u8,
    pub(super) pronoun: Option<Pronoun>,
    /// Sides of [`ANTONYMS`]: 2 times the place of the pair, plus 1 for the first and 2 for the second
    /// word; zeros at the end.
    pub(super) antonyms: [u16; MOST_ANTONYMS],
}

/// Most opposites that a word has in the list.
const MOST_ANTONYMS: usize = 4;

/// What a question asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Ask {
    Who,
    When,
    Where,
    Why,
    How,
    What,
}

impl Ask {
    /// Whether it cannot be exchanged for another. "What" and "how" can: "what is the way to" and "how
    /// do I" ask the same.
    pub(super) fn is_strict(self) -> bool {
        !matches!(self, Self::How | Self::What)
    }
}

/// Whom or what a pronoun stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Pronoun {
    He,
    She,
    It,
    They,
}

impl Meaning {
    pub(super) fn is(&self, role: Role) -> bool {
        self.roles & role as u8 != 0
    }
}

/// What is known of a word in lower case.
pub(super) fn meaning(word: &str) -> Meaning {
    static TABLE: OnceLock<HashMap<&'static str, Meaning>> = OnceLock::new();
    let table = TABLE.get_or_init(table);
    let mut found = table.get(word).copied().unwrap_or_default();
    if word.ends_with("n't") {
        found.roles |= Role::Negation as u8;
    }
    found
}

fn table() -> HashMap<&'static str, Meaning> {
    let mut table = HashMap::<&'static str, Meaning>::new();
    for (role, words) in [
        (Role::Function, FUNCTION_WORDS),
        (Role::Negation, NEGATIONS),
        (Role::Relation, RELATIONS),
        (Role::Conjunction, CONJUNCTIONS),
        (Role::Ambiguous, AMBIGUOUS_LANGUAGES),
    ] {
        for word in words {
            table.entry(word).or_default().roles |= role as u8;
        }
    }
    for (number, words) in (1..).zip(CALENDAR) {
        for word in *words {
            table.entry(word).or_default().calendar = number;
        }
    }
    for (number, word) in (1..).zip(NUMBER_WORDS) {
        table.entry(word).or_default().cardinal = number;
    }
    for (number, word) in (1..).zip(ORDINAL_WORDS) {
        table.entry(word).or_default().ordinal = number;
    }
    for (ask, words) in ASKS {
        for word in *words {
            table.entry(word).or_default().asks = Some(*ask);
        }
    }
    for (bit, words) in (1..).zip(FORMATS) {
        for word in *words {
            table.entry(word).or_default().format = bit;
        }
    }
    for (bit, words) in (1..).zip(LANGUAGES) {
        for word in *words {
            table.entry(word).or_default().language = bit;
        }
    }
    for (pronoun, words) in PRONOUNS {
        for word in *words {
            table.entry(word).or_default().pronoun = Some(*pronoun);
        }
    }
    for (number, (first, second)) in (0u16..).zip(ANTONYMS) {
        for (side, word) in [(1, first), (2, second)] {
            let places = &mut table.entry(word).or_default().antonyms;
            if let Some(free) = places.iter_mut().find(|place| **place == 0) {
                *free = 2 * number + side;
            }
        }
    }
    table
}

/// Cuts a plural ending, and brings the forms of a pronoun and of a few names together: enough to match "phone" with
/// "phones", never to merge two words whose stems differ.
pub(super) fn stem(word: &str) -> &str {
    match word {
        "him" | "his" | "himself" => return "he",
        "her" | "hers" | "herself" => return "she",
        "them" | "their" | "theirs" => return "they",
        "js" => return "javascript",
        "ts" => return "typescript",
        "k8s" => return "kubernetes",
        "postgres" => return "postgresql",
        _ => {}
    }
    match word.strip_suffix("'s").or_else(|| word.strip_suffix('s')) {
        Some(stem) if stem.len() > 2 && !stem.ends_with('s') => stem,
        _ => word,
    }
}

/// Whether a word may be the participle of a passive.
pub(super) fn is_participle(word: &str) -> bool {
    (word.len() > 4 && (word.ends_with("ed") || word.ends_with("en")))
        || PARTICIPLES.contains(&word)
}

/// Participles that no ending gives away.
const PARTICIPLES: &[&str] = &[
    "bought", "brought", "built", "caught", "cut", "done", "drawn", "felt", "fought", "fed",
    "found", "grown", "heard", "held", "hit", "hurt", "kept", "known", "led", "left", "lost",
    "made", "met", "paid", "put", "read", "run", "said", "seen", "sent", "set", "shot", "shown",
    "shut", "sold", "spent", "sung", "taught", "told", "thought", "thrown", "torn", "used", "won",
    "worn",
];

/// Month of a place in [`CALENDAR`], from 1.
pub(super) fn month(calendar: u8) -> Option<u8> {
    (FIRST_MONTH..FIRST_MONTH + 12)
        .contains(&calendar)
        .then(|| calendar - FIRST_MONTH + 1)
}

/// Whether a place in [`CALENDAR`] is a month whose name is a word of another meaning.
pub(super) fn is_ambiguous_month(calendar: u8) -> bool {
    matches!(month(calendar), Some(3 | 5))
}

/// Place of January in [`CALENDAR`], from 1.
const FIRST_MONTH: u8 = 8;

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
    "a",
    "an",
    "the",
    "is",
    "are",
    "was",
    "were",
    "be",
    "do",
    "does",
    "did",
    "i",
    "you",
    "we",
    "my",
    "your",
    "me",
    "can",
    "could",
    "would",
    "should",
    "will",
    "please",
    "what",
    "which",
    "who",
    "how",
    "why",
    "when",
    "where",
    "there",
    "it",
    "its",
    "it's",
    "what's",
    "of",
    "to",
    "in",
    "on",
    "at",
    "for",
    "and",
    "or",
    "that",
    "this",
    "so",
    "than",
    "from",
    "by",
    "with",
    "into",
    "have",
    "has",
    "get",
    "some",
    "any",
    "really",
    "actually",
    "just",
    "way",
    "s",
    "am",
    "if",
    "as",
    "one",
    "currently",
    "truly",
    "honestly",
    "basically",
    "literally",
    "simply",
    "definitely",
    "certainly",
    "obviously",
    "exactly",
];

const NUMBER_WORDS: &[&str] = &[
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve",
];

const ORDINAL_WORDS: &[&str] = &[
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth",
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
    &["march"],
    &["april", "apr"],
    &["may"],
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

/// Words that join others without giving them different roles.
const CONJUNCTIONS: &[&str] = &["and", "or", "vs", "versus", "plus", "nor"];

const ASKS: &[(Ask, &[&str])] = &[
    (Ask::Who, &["who", "whom", "whose"]),
    (Ask::When, &["when"]),
    (Ask::Where, &["where"]),
    (Ask::Why, &["why"]),
    (Ask::How, &["how"]),
    (Ask::What, &["what", "which", "what's", "whats"]),
];

const PRONOUNS: &[(Pronoun, &[&str])] = &[
    (Pronoun::He, &["he", "him", "his", "himself"]),
    (Pronoun::She, &["she", "her", "hers", "herself"]),
    (Pronoun::It, &["it", "its"]),
    (Pronoun::They, &["they", "them", "their", "theirs"]),
];

/// Forms of an answer, the words of one form together.
const FORMATS: &[&[&str]] = &[
    &["json"],
    &["yaml", "yml"],
    &["xml"],
    &["csv"],
    &["tsv"],
    &["toml"],
    &["html"],
    &["latex", "tex"],
    &["markdown"],
    &["table"],
    &["list", "bullet", "bullets", "bulleted"],
    &["essay"],
    &["poem", "verse"],
    &["haiku"],
    &["limerick"],
    &["sentence", "sentences"],
    &["paragraph", "paragraphs"],
    &["timeline"],
    &["email", "e-mail"],
    &["tweet"],
    &["letter"],
    &["diagram", "flowchart"],
    &["ascii"],
    &["mermaid"],
    &["fraction"],
    &["decimal"],
    &["uppercase", "capitals"],
    &["lowercase"],
    &["short", "brief", "briefly", "concise", "shortly"],
    &["detailed", "detail", "thorough", "thoroughly"],
    &["script"],
    &["hcl", "terraform"],
    &["regex"],
    &["graph", "chart"],
    &["song", "lyrics"],
    &["story"],
    &["joke"],
];

/// Languages to write or program in, the names of one together. C++ and its like are read from whole
/// tokens, see [`language_of_token`].
const LANGUAGES: &[&[&str]] = &[
    &["english"],
    &["french"],
    &["german"],
    &["spanish"],
    &["italian"],
    &["portuguese"],
    &["dutch"],
    &["swedish"],
    &["danish"],
    &["norwegian"],
    &["finnish"],
    &["polish"],
    &["czech"],
    &["slovak"],
    &["hungarian"],
    &["romanian"],
    &["bulgarian"],
    &["greek"],
    &["turkish"],
    &["russian"],
    &["ukrainian"],
    &["serbian"],
    &["croatian"],
    &["arabic"],
    &["hebrew"],
    &["persian", "farsi"],
    &["hindi"],
    &["urdu"],
    &["bengali", "bangla"],
    &["punjabi"],
    &["tamil"],
    &["telugu"],
    &["marathi"],
    &["gujarati"],
    &["chinese", "mandarin"],
    &["cantonese"],
    &["japanese"],
    &["korean"],
    &["vietnamese"],
    &["thai"],
    &["indonesian"],
    &["malay"],
    &["tagalog", "filipino"],
    &["swahili"],
    &["latin"],
    &["esperanto"],
    &["welsh"],
    &["irish", "gaelic"],
    &["catalan"],
    &["icelandic"],
    &["python", "py"],
    &["java"],
    &["javascript", "js"],
    &["typescript", "ts"],
    &["rust"],
    &["go", "golang"],
    &["c"],
    &["r"],
    &["ruby"],
    &["php"],
    &["perl"],
    &["kotlin"],
    &["swift"],
    &["scala"],
    &["haskell"],
    &["lua"],
    &["julia"],
    &["matlab"],
    &["fortran"],
    &["cobol"],
    &["elixir"],
    &["erlang"],
    &["clojure"],
    &["ocaml"],
    &["dart"],
    &["scheme"],
    &["lisp"],
    &["bash"],
    &["powershell"],
    &["sql"],
    &["solidity"],
    &["zig"],
    &["assembly"],
    &["vba"],
];

/// Languages that are written with signs.
const SIGNED_LANGUAGES: &[&str] = &["c++", "c#", "f#", "objective-c", "vb.net"];

/// Bit of a language that a whole token in lower case names, from 1.
pub(super) fn language_of_token(token: &str) -> Option<u8> {
    (LANGUAGES.len() as u8 + 1..)
        .zip(SIGNED_LANGUAGES)
        .find(|(_, name)| token.eq_ignore_ascii_case(name))
        .map(|(bit, _)| bit)
}

/// Names of languages that are ordinary words too: they count after "in", "into" and the like.
const AMBIGUOUS_LANGUAGES: &[&str] = &[
    "go", "c", "r", "swift", "dart", "scheme", "julia", "polish", "ruby", "rust", "assembly", "py",
    "ts", "js", "zig", "latin", "bash",
];
