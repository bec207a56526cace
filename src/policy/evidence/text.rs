//! What the words of two texts show.
//!
//! Words weigh by their inverse document frequency, so that what is rare and stands in one text only
//! speaks loudest against a match. A word that the other text lacks may have a near one there: how near
//! is read off the built-in embedding table, whatever embedder the cache uses.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use askonce_models::StaticEmbedder;

use super::guard::{self, GuardReport};
use super::lexicon::Ask;
use super::reading::{Reading, digest};
use super::wording::Wording;

/// Most words of a text that are compared one by one; the others count as one more word.
const MOST_WORDS: usize = 256;

/// Most words whose order is compared.
const MOST_ORDERED: usize = 64;

/// Most character trigrams that are kept.
const MOST_TRIGRAMS: usize = 256;

/// Most words that are looked for in the other text by their vectors, and most pieces there that they
/// are compared with: what is unlike in a hundred words needs no vector to be seen.
const MOST_ALIGNED: usize = 24;

/// What one text shows, worked out once: at insert for an entry, once per lookup for a query.
#[derive(Clone, Debug)]
pub struct TextTraits {
    guards: guard::Traits,
    wording: Option<Wording>,
    /// Stems of all words in order.
    stems: Box<[u32]>,
    /// Distinct content words by their stems.
    content: Box<[ContentWord]>,
    /// Rows of the content words in the built-in table.
    rows: Box<[u32]>,
    /// Digests of two neighbouring words, sorted.
    bigrams: Box<[u32]>,
    /// Digests of three neighbouring characters of the words, sorted.
    trigrams: Box<[u16]>,
    /// First and last content word.
    ends: Option<(u32, u32)>,
    asks: Option<Ask>,
    /// How many words, with those that are not compared.
    words: u32,
}

#[derive(Clone, Copy, Debug)]
struct ContentWord {
    stem: u32,
    weight: f32,
    first_row: u16,
    rows: u8,
    /// Where it stands among the words.
    place: u16,
}

impl TextTraits {
    /// The traits of `text`. Linear in its length.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let reading = Reading::of(text);
        let mut rows = Vec::new();
        let mut content = Vec::new();
        let mut stems = Vec::with_capacity(reading.words.len().min(MOST_WORDS));
        let mut ends = None;
        for (word, place) in reading.words.iter().zip(0u16..).take(MOST_WORDS) {
            stems.push(word.stem);
            if !word.is_content() {
                continue;
            }
            ends = Some((ends.map_or(word.stem, |(first, _)| first), word.stem));
            let own = &reading.rows[word.rows.clone()];
            content.push(ContentWord {
                stem: word.stem,
                weight: word.weight,
                first_row: u16::try_from(rows.len()).unwrap_or(u16::MAX),
                rows: u8::try_from(own.len()).unwrap_or(u8::MAX),
                place,
            });
            rows.extend_from_slice(own);
        }
        if let Some(rest) = reading
            .words
            .get(MOST_WORDS..)
            .filter(|rest| !rest.is_empty())
        {
            let spellings: String = rest.iter().map(|word| reading.spelling(word)).collect();
            let stem = digest(&spellings);
            stems.push(stem);
            content.push(ContentWord {
                stem,
                weight: super::reading::MOST_WEIGHT,
                first_row: 0,
                rows: 0,
                place: u16::MAX,
            });
        }
        // The first of equal words stays.
        content.sort_by_key(|word| (word.stem, word.place));
        content.dedup_by_key(|word| word.stem);
        Self {
            guards: guard::Traits::of(&reading),
            wording: Wording::of(&reading),
            bigrams: bigrams(&stems),
            trigrams: trigrams(&reading),
            stems: stems.into(),
            content: content.into(),
            rows: rows.into(),
            ends,
            asks: reading.words.iter().find_map(|word| word.meaning.asks),
            words: u32::try_from(reading.words.len()).unwrap_or(u32::MAX),
        }
    }

    /// Compares a query with an entry's text.
    #[must_use]
    pub fn compare(&self, entry: &Self) -> TextComparison {
        TextComparison {
            features: self.features(entry),
            guards: self.guards.compare(&entry.guards),
            same_wording: self.wording.is_some() && self.wording == entry.wording,
        }
    }

    /// Bytes on the heap, beside those of the value itself.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        4 * (self.stems.len() + self.rows.len() + self.bigrams.len())
            + 2 * self.trigrams.len()
            + size_of_val(&*self.content)
            + self.guards.heap_bytes()
    }

    fn features(&self, entry: &Self) -> TextFeatures {
        if self.words == 0 || entry.words == 0 {
            return TextFeatures::default();
        }
        let shared = Shared::of(&self.content, &entry.content);
        let mut cosines = Cosines::between(self, entry);
        let query = Side::of(self, &shared.of_query, |place, row| {
            cosines.nearest_of_entry(place, row)
        });
        let other = Side::of(entry, &shared.of_entry, |place, row| {
            cosines.nearest_of_query(place, row)
        });
        let union = shared.count + query.unmatched + other.unmatched;
        let (shorter, longer) = (
            self.words.min(entry.words) as f32,
            self.words.max(entry.words) as f32,
        );
        TextFeatures([
            query.residual(),
            other.residual(),
            query.rarest,
            other.rarest,
            query.misaligned(),
            other.misaligned(),
            query.worst,
            other.worst,
            query.unmatched as f32,
            other.unmatched as f32,
            residual_cosine(self, entry, &shared),
            ratio(shared.count as f32, union as f32),
            ratio(
                shared.weight,
                shared.weight + query.unmatched_weight + other.unmatched_weight,
            ),
            jaccard(&self.bigrams, &entry.bigrams),
            jaccard(&self.trigrams, &entry.trigrams),
            common_subsequence(&self.stems, &entry.stems),
            shared.inversions(),
            shorter / longer,
            shorter.ln(),
            match (self.asks, entry.asks) {
                (a, b) if a == b => 0.0,
                (Some(_), Some(_)) => 2.0,
                _ => 1.0,
            },
            self.ends_agree(entry, |(first, _)| first),
            self.ends_agree(entry, |(_, last)| last),
            self.guards.different_numbers(&entry.guards) as f32,
        ])
    }

    fn ends_agree(&self, entry: &Self, end: fn((u32, u32)) -> u32) -> f32 {
        match (self.ends, entry.ends) {
            (Some(a), Some(b)) => f32::from(end(a) == end(b)),
            _ => f32::NAN,
        }
    }

    fn rows_of(&self, word: &ContentWord) -> &[u32] {
        let first = usize::from(word.first_row);
        self.rows
            .get(first..first + usize::from(word.rows))
            .unwrap_or_default()
    }
}

/// A bit per content word.
type Bits = [u64; MOST_WORDS / 64 + 1];

fn has(bits: &Bits, place: usize) -> bool {
    bits.get(place / 64)
        .is_some_and(|word| word >> (place % 64) & 1 == 1)
}

fn set(bits: &mut Bits, place: usize) {
    if let Some(word) = bits.get_mut(place / 64) {
        *word |= 1 << (place % 64);
    }
}

/// Which content words two texts share.
struct Shared {
    of_query: Bits,
    of_entry: Bits,
    count: usize,
    weight: f32,
    /// Where the first of them stand in the query and in the entry.
    places: [(u16, u16); 32],
}

impl Shared {
    fn of(query: &[ContentWord], entry: &[ContentWord]) -> Self {
        let mut shared = Self {
            of_query: Bits::default(),
            of_entry: Bits::default(),
            count: 0,
            weight: 0.0,
            places: [(0, 0); 32],
        };
        let (mut i, mut j) = (0, 0);
        while let (Some(a), Some(b)) = (query.get(i), entry.get(j)) {
            if a.stem == b.stem {
                set(&mut shared.of_query, i);
                set(&mut shared.of_entry, j);
                if let Some(place) = shared.places.get_mut(shared.count) {
                    *place = (a.place, b.place);
                }
                shared.count += 1;
                // Forms of one stem may weigh differently.
                shared.weight += a.weight.min(b.weight);
            }
            i += usize::from(a.stem <= b.stem);
            j += usize::from(a.stem >= b.stem);
        }
        shared
    }

    /// Share of the pairs of shared words that stand the other way round; not-a-number below two.
    fn inversions(&self) -> f32 {
        let places = &self.places[..self.count.min(self.places.len())];
        let mut turned = 0;
        for (i, a) in places.iter().enumerate() {
            turned += places[..i]
                .iter()
                .filter(|b| (a.0 < b.0) != (a.1 < b.1))
                .count();
        }
        let pairs = places.len() * places.len().saturating_sub(1) / 2;
        if pairs == 0 {
            f32::NAN
        } else {
            turned as f32 / pairs as f32
        }
    }
}

/// What one text has that the other has not.
#[derive(Default)]
struct Side {
    weight: f32,
    unmatched_weight: f32,
    unmatched: usize,
    /// Weight of the heaviest unmatched word.
    rarest: f32,
    /// Weights of the unmatched words times their distance from the nearest of the other text.
    misaligned_weight: f32,
    /// The largest of them.
    worst: f32,
}

impl Side {
    /// `nearest` is the greatest cosine of the row at this place of the text with one of the other text.
    fn of(text: &TextTraits, shared: &Bits, mut nearest: impl FnMut(usize, u32) -> f32) -> Self {
        let mut side = Self::default();
        for (i, word) in text.content.iter().enumerate() {
            side.weight += word.weight;
            if has(shared, i) {
                continue;
            }
            side.unmatched += 1;
            side.unmatched_weight += word.weight;
            side.rarest = side.rarest.max(word.weight);
            let rows = text.rows_of(word);
            // Mean over the word's pieces.
            let nearness = if side.unmatched <= MOST_ALIGNED && !rows.is_empty() {
                let places = usize::from(word.first_row)..;
                let each = places.zip(rows).map(|(place, &row)| nearest(place, row));
                each.sum::<f32>() / rows.len() as f32
            } else {
                0.0
            };
            let distance = word.weight * (1.0 - nearness);
            side.misaligned_weight += distance;
            side.worst = side.worst.max(distance);
        }
        side
    }

    /// Share of the text's weight that the other text does not hold.
    fn residual(&self) -> f32 {
        ratio(self.unmatched_weight, self.weight)
    }

    /// The same, less what has a near word there.
    fn misaligned(&self) -> f32 {
        ratio(self.misaligned_weight, self.weight)
    }
}

/// Cosines of the first rows of a query with those of an entry. Both sides ask for them, so each is kept.
struct Cosines<'t> {
    embedder: StaticEmbedder,
    of_query: &'t [u32],
    of_entry: &'t [u32],
    /// Row by row of the query; not-a-number where none was asked for yet.
    known: Vec<f32>,
}

impl<'t> Cosines<'t> {
    fn between(query: &'t TextTraits, entry: &'t TextTraits) -> Self {
        let first = |text: &'t TextTraits| &text.rows[..text.rows.len().min(2 * MOST_ALIGNED)];
        let (of_query, of_entry) = (first(query), first(entry));
        Self {
            embedder: StaticEmbedder::builtin(),
            known: vec![f32::NAN; of_query.len() * of_entry.len()],
            of_query,
            of_entry,
        }
    }

    /// The greatest cosine of a row of the query, at this place of its rows, with one of the entry; 0 at least.
    fn nearest_of_entry(&mut self, place: usize, row: u32) -> f32 {
        let width = self.of_entry.len();
        let mut known = self.known.chunks_exact_mut(width.max(1)).nth(place);
        let mut nearest = 0.0;
        for (at, &other) in self.of_entry.iter().enumerate() {
            let kept = known.as_mut().and_then(|known| known.get_mut(at));
            nearest = f32::max(nearest, cosine(&self.embedder, row, other, kept));
        }
        nearest
    }

    /// The same of a row of the entry with those of the query.
    fn nearest_of_query(&mut self, place: usize, row: u32) -> f32 {
        let width = self.of_entry.len();
        let mut nearest = 0.0;
        for (at, &other) in self.of_query.iter().enumerate() {
            let kept = (place < width).then(|| self.known.get_mut(at * width + place));
            nearest = f32::max(nearest, cosine(&self.embedder, other, row, kept.flatten()));
        }
        nearest
    }
}

/// A cosine, from where it is kept if it is.
fn cosine(embedder: &StaticEmbedder, a: u32, b: u32, kept: Option<&mut f32>) -> f32 {
    match kept {
        Some(kept) if !kept.is_nan() => *kept,
        Some(kept) => {
            *kept = embedder.row_cosine(a, b);
            *kept
        }
        None => embedder.row_cosine(a, b),
    }
}

/// Cosine of what each text has alone; not-a-number where one has nothing.
fn residual_cosine(query: &TextTraits, entry: &TextTraits, shared: &Shared) -> f32 {
    let embedder = StaticEmbedder::builtin();
    let sum = |text: &TextTraits, shared: &Bits| {
        let mut sums = vec![0; embedder.dimension()];
        let words = text.content.iter().enumerate();
        for (_, word) in words.filter(|(i, _)| !has(shared, *i)) {
            for &row in text.rows_of(word) {
                embedder.add_row(row, &mut sums);
            }
        }
        sums
    };
    let (a, b) = (sum(query, &shared.of_query), sum(entry, &shared.of_entry));
    let dot =
        |x: &[i32], y: &[i32]| -> f32 { x.iter().zip(y).map(|(&x, &y)| x as f32 * y as f32).sum() };
    let lengths = (dot(&a, &a) * dot(&b, &b)).sqrt();
    if lengths > 0.0 {
        dot(&a, &b) / lengths
    } else {
        f32::NAN
    }
}

/// Length of the longest common subsequence by the longer text, 0 to 1; bit-parallel after Hyyrö,
/// "Bit-Parallel LCS-length Computation Revisited", 2004.
fn common_subsequence(a: &[u32], b: &[u32]) -> f32 {
    let (a, b) = (
        &a[..a.len().min(MOST_ORDERED)],
        &b[..b.len().min(MOST_ORDERED)],
    );
    let mut open = u64::MAX;
    for word in b {
        let matches = (a.iter().enumerate())
            .map(|(i, other)| u64::from(word == other) << i)
            .fold(0, |all, bit| all | bit);
        let used = open & matches;
        open = open.wrapping_add(used) | (open - used);
    }
    let within = u64::MAX >> (64 - a.len().clamp(1, 64));
    ratio(
        (!open & within).count_ones() as f32,
        a.len().max(b.len()) as f32,
    )
}

fn bigrams(stems: &[u32]) -> Box<[u32]> {
    let mut found: Vec<u32> = stems
        .windows(2)
        .map(|pair| pair[0].rotate_left(15).wrapping_mul(0x9E37_79B1) ^ pair[1])
        .collect();
    found.sort_unstable();
    found.dedup();
    found.into()
}

fn trigrams(reading: &Reading<'_>) -> Box<[u16]> {
    let mut found = Vec::with_capacity(64);
    // A space before and after each word.
    let mut window = [' '; 3];
    'words: for word in &reading.words {
        for letter in reading.spelling(word).chars().chain([' ']) {
            window = [window[1], window[2], letter];
            let mixed = window.iter().fold(0u32, |mixed, &letter| {
                (mixed.rotate_left(7) ^ letter as u32).wrapping_mul(0x9E37_79B1)
            });
            found.push((mixed >> 16) as u16);
            if found.len() == MOST_TRIGRAMS {
                break 'words;
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    found.into()
}

/// Share of the union of two sorted lists that is in both; not-a-number when both are empty.
fn jaccard<T: Ord>(a: &[T], b: &[T]) -> f32 {
    let (mut i, mut j, mut shared) = (0, 0, 0);
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        shared += usize::from(x == y);
        let (step_a, step_b) = (usize::from(x <= y), usize::from(x >= y));
        i += step_a;
        j += step_b;
    }
    ratio(shared as f32, (a.len() + b.len() - shared) as f32)
}

fn ratio(part: f32, whole: f32) -> f32 {
    if whole > 0.0 { part / whole } else { f32::NAN }
}

/// What two texts show beside each other.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TextComparison {
    /// How far their words agree.
    pub features: TextFeatures,
    /// What speaks against a match.
    pub guards: GuardReport,
    /// Whether they are the same but for case, punctuation, contractions, spelling and courtesy.
    pub same_wording: bool,
}

/// Number of text features.
const COUNT: usize = 23;

/// How far the words of two texts agree, as numbers for a fitted model; not-a-number where a text has
/// nothing to compare.
///
/// Content words are all but function words and negations. Weights are inverse document frequencies.
///
/// | name | value |
/// |---|---|
/// | `residual_query`, `residual_entry` | share of the weight of the one text's content words that the other lacks |
/// | `rarest_query`, `rarest_entry` | weight of its heaviest word that the other lacks |
/// | `misaligned_query`, `misaligned_entry` | as the residuals, each word times its distance from the nearest word of the other text |
/// | `worst_query`, `worst_entry` | largest of those weighted distances |
/// | `unmatched_query`, `unmatched_entry` | how many content words the other lacks |
/// | `residual_cosine` | cosine of the sums of what each text has alone |
/// | `content_jaccard`, `idf_jaccard` | shared content words by all, plain and by weight |
/// | `bigram_jaccard` | the same for two words in a row, function words among them |
/// | `trigram_jaccard` | the same for three characters in a row |
/// | `common_subsequence` | longest common subsequence of words by the length of the longer text |
/// | `inversions` | share of the pairs of shared words whose order is turned round |
/// | `length_ratio` | words of the shorter text by those of the longer |
/// | `log_length` | natural logarithm of the words of the shorter text |
/// | `question_word` | 0 the same, 1 on one side, 2 another |
/// | `same_first`, `same_last` | 1 when the first or last content word is the same |
/// | `number_differences` | quantities in one text only |
#[derive(Clone, Copy, Debug)]
pub struct TextFeatures([f32; COUNT]);

impl TextFeatures {
    /// Names of the values, in their order.
    pub const NAMES: [&'static str; COUNT] = [
        "residual_query",
        "residual_entry",
        "rarest_query",
        "rarest_entry",
        "misaligned_query",
        "misaligned_entry",
        "worst_query",
        "worst_entry",
        "unmatched_query",
        "unmatched_entry",
        "residual_cosine",
        "content_jaccard",
        "idf_jaccard",
        "bigram_jaccard",
        "trigram_jaccard",
        "common_subsequence",
        "inversions",
        "length_ratio",
        "log_length",
        "question_word",
        "same_first",
        "same_last",
        "number_differences",
    ];

    /// The values, in the order of [`NAMES`](Self::NAMES).
    #[must_use]
    pub fn values(&self) -> [f32; COUNT] {
        self.0
    }
}

impl Default for TextFeatures {
    /// Nothing is known: every value is not-a-number.
    fn default() -> Self {
        Self([f32::NAN; COUNT])
    }
}

impl PartialEq for TextFeatures {
    /// Not-a-number equals itself here: both are unknown.
    fn eq(&self, other: &Self) -> bool {
        self.0
            .iter()
            .zip(other.0)
            .all(|(&a, b)| a == b || (a.is_nan() && b.is_nan()))
    }
}

impl Serialize for TextFeatures {
    /// A list; nothing stands for not-a-number, which JSON cannot write.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(
            self.0
                .iter()
                .map(|value| Some(*value).filter(|v| !v.is_nan())),
        )
    }
}

impl<'de> Deserialize<'de> for TextFeatures {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let values = Vec::<Option<f32>>::deserialize(deserializer)?;
        let values: Vec<f32> = values
            .into_iter()
            .map(|value| value.unwrap_or(f32::NAN))
            .collect();
        let found = values.len();
        values
            .try_into()
            .map(Self)
            .map_err(|_| D::Error::custom(format!("{found} text features, {COUNT} are known")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(a: &str, b: &str, name: &str) -> f32 {
        let features = TextTraits::of(a).compare(&TextTraits::of(b)).features;
        let place = TextFeatures::NAMES
            .iter()
            .position(|known| *known == name)
            .unwrap();
        features.values()[place]
    }

    #[test]
    fn equal_texts_have_no_residual_and_full_overlap() {
        let text = "how do I reset the password of my account";
        for (name, expected) in [
            ("residual_query", 0.0),
            ("rarest_entry", 0.0),
            ("misaligned_query", 0.0),
            ("content_jaccard", 1.0),
            ("idf_jaccard", 1.0),
            ("bigram_jaccard", 1.0),
            ("trigram_jaccard", 1.0),
            ("common_subsequence", 1.0),
            ("inversions", 0.0),
            ("length_ratio", 1.0),
            ("number_differences", 0.0),
        ] {
            assert_eq!(value(text, text, name), expected, "{name}");
        }
        assert!(value(text, text, "residual_cosine").is_nan());
    }

    #[test]
    fn a_rare_word_on_one_side_weighs_more_than_a_common_one() {
        let base = "play some music";
        let common = value("play some good music", base, "rarest_query");
        let rare = value("play some baroque music", base, "rarest_query");
        assert!(common > 0.0 && rare > common, "{common} {rare}");
        assert_eq!(value(base, "play some baroque music", "rarest_query"), 0.0);
        assert_eq!(value(base, "play some baroque music", "rarest_entry"), rare);
    }

    #[test]
    fn a_word_with_a_near_one_in_the_other_text_is_less_misaligned() {
        let near = value("buy a cheap car", "buy a cheap automobile", "worst_query");
        let far = value("buy a cheap car", "buy a cheap banana", "worst_query");
        assert!(near < far, "{near} {far}");
    }

    #[test]
    fn turned_round_words_keep_their_bag_and_lose_their_order() {
        let (a, b) = ("is java faster than python", "is python faster than java");
        assert_eq!(value(a, b, "content_jaccard"), 1.0);
        assert!(value(a, b, "bigram_jaccard") < 0.7);
        assert!(value(a, b, "common_subsequence") < 1.0);
        assert_eq!(value(a, b, "inversions"), 1.0);
    }

    #[test]
    fn texts_without_words_show_nothing() {
        assert!(value("?!", "hello", "idf_jaccard").is_nan());
        assert!(TextTraits::of("?!").heap_bytes() < 64);
    }

    #[test]
    fn the_end_of_a_very_long_text_still_counts() {
        let text = |end: &str| format!("{} {end}", "some words of a long text ".repeat(200));
        let (a, b) = (text("kept"), text("dropped"));
        assert!(value(&a, &b, "rarest_query") > 0.0);
        assert_eq!(value(&a, &a, "rarest_query"), 0.0);
        assert!(TextTraits::of(&a).heap_bytes() < 64 * 1024);
    }

    #[test]
    fn features_survive_json_with_what_is_unknown() {
        let known = TextTraits::of("a red car")
            .compare(&TextTraits::of("a blue car"))
            .features;
        for features in [known, TextFeatures::default()] {
            let json = serde_json::to_string(&features).unwrap();
            let back: TextFeatures = serde_json::from_str(&json).unwrap();
            assert_eq!(back, features);
        }
        let short = serde_json::from_str::<TextFeatures>("[1.0]").unwrap_err();
        assert!(short.to_string().contains("1 text features"), "{short}");
    }

    proptest! {
        #[test]
        fn swapping_the_texts_swaps_the_sides_and_nothing_else(a in ".{0,60}", b in ".{0,60}") {
            let (x, y) = (TextTraits::of(&a), TextTraits::of(&b));
            let (forth, back) = (x.compare(&y), y.compare(&x));
            prop_assert_eq!(forth.guards, back.guards);
            let (forth, back) = (forth.features.values(), back.features.values());
            for (i, name) in TextFeatures::NAMES.iter().enumerate() {
                let other = match name.strip_suffix("_query") {
                    Some(stem) => format!("{stem}_entry"),
                    None => match name.strip_suffix("_entry") {
                        Some(stem) => format!("{stem}_query"),
                        None => (*name).to_owned(),
                    },
                };
                let j = TextFeatures::NAMES.iter().position(|known| *known == other).unwrap();
                let (p, q) = (forth[i], back[j]);
                prop_assert!(
                    (p.is_nan() && q.is_nan()) || (p - q).abs() < 1e-4,
                    "{}: {} {}", name, p, q
                );
                prop_assert!(p.is_nan() || p.is_finite());
            }
        }
    }
}
