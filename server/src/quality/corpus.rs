//! What labels say of any two texts.
//!
//! "May share an answer" is taken as transitive: texts linked by positive pairs, or of one cluster, have
//! one answer. A negative pair sets two answers apart. Two answers that no label compares are unknown, and
//! each protocol says what it makes of them.
//!
//! Files that were split together are linked together: all files that the shipped models were trained on
//! are one graph, because leaving one out can cut a component in two and move texts between parts. Every
//! other file is a graph of its own.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;

use super::components::DisjointSets;
use super::data::{self, Rows, Source};
use super::seed::Rng;
use super::split::{Part, Rule, digest, normalise, parts_of_kinds};
use super::verdicts::{Verdict, Verdicts};

/// A text, by its place in [`Texts`].
pub(crate) type TextId = u32;
/// An answer, by its number.
pub(crate) type AnswerId = u32;

/// Whether the answer stored for one text is right for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Truth {
    /// Labels link the two.
    Right,
    /// A negative pair sets the two answers apart.
    Wrong,
    /// No label compares them.
    Unknown,
}

/// The distinct texts of a graph.
#[derive(Clone, Debug)]
pub(crate) struct Texts {
    texts: Vec<String>,
    answers: Vec<AnswerId>,
    groups: Vec<u64>,
    /// `None` for a text without letters and digits, which is in no part.
    parts: Vec<Option<Part>>,
    apart: HashSet<(AnswerId, AnswerId)>,
    /// What a reader said, over the labels.
    verdicts: Arc<Verdicts>,
}

impl Texts {
    /// The text itself.
    pub(crate) fn text(&self, text: TextId) -> &str {
        &self.texts[text as usize]
    }

    /// Its answer.
    pub(crate) fn answer(&self, text: TextId) -> AnswerId {
        self.answers[text as usize]
    }

    /// A digest of its component, which all labels make, whatever they say.
    pub(crate) fn group(&self, text: TextId) -> u64 {
        self.groups[text as usize]
    }

    /// Its part; `None` for a text without letters and digits.
    pub(crate) fn part(&self, text: TextId) -> Option<Part> {
        self.parts[text as usize]
    }

    /// What a reader says of two texts, or else the labels.
    pub(crate) fn truth(&self, asked: TextId, stored: TextId) -> Truth {
        match self.verdicts.of(self.text(asked), self.text(stored)) {
            Some(Verdict::Same) => Truth::Right,
            Some(Verdict::Different) => Truth::Wrong,
            Some(Verdict::Unsure) => Truth::Unknown,
            None => self.label(asked, stored),
        }
    }

    /// What the labels say of two texts.
    pub(crate) fn label(&self, asked: TextId, stored: TextId) -> Truth {
        let (a, b) = (self.answer(asked), self.answer(stored));
        if a == b {
            Truth::Right
        } else if self.apart.contains(&ordered(a, b)) {
            Truth::Wrong
        } else {
            Truth::Unknown
        }
    }
}

fn ordered(a: AnswerId, b: AnswerId) -> (AnswerId, AnswerId) {
    (a.min(b), a.max(b))
}

/// A labelled pair of a [`Set`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LabelledPair {
    pub(crate) a: TextId,
    pub(crate) b: TextId,
    pub(crate) same: bool,
}

/// One file.
#[derive(Clone, Debug)]
pub(crate) struct Set {
    /// Name of the set: that of the file without its endings.
    pub(crate) name: String,
    pub(crate) source: Source,
    pub(crate) rule: Rule,
    /// The graph that the file is part of.
    pub(crate) texts: Arc<Texts>,
    /// Its texts, each once, in the order of the file.
    pub(crate) members: Vec<TextId>,
    /// Its pairs; none in a file of clusters.
    pub(crate) pairs: Vec<LabelledPair>,
}

impl Set {
    /// Whether every text stands alone: prompts that fill a cache, of which nothing else is known.
    pub(crate) fn is_background(&self) -> bool {
        let answers: HashSet<AnswerId> = self
            .members
            .iter()
            .map(|&text| self.texts.answer(text))
            .collect();
        self.pairs.is_empty() && answers.len() == self.members.len()
    }

    /// This set among prompts that stand alone, in random places but for the order of its own texts:
    /// distractors, which have no right answer in the cache and are none for others.
    pub(crate) fn among(&self, background: &[Set], seed: u64) -> Self {
        if background.is_empty() {
            return self.clone();
        }
        let mut texts = Texts::clone(&self.texts);
        let known: HashSet<String> = texts.texts.iter().map(|text| normalise(text)).collect();
        let mut answer = texts.answers.iter().max().map_or(0, |last| last + 1);
        let mut rng = Rng::new(seed);
        let mut placed: Vec<(u64, TextId)> = Vec::new();
        for set in background {
            for &member in &set.members {
                if known.contains(&normalise(set.texts.text(member))) {
                    continue;
                }
                placed.push((rng.next(), texts.texts.len() as TextId));
                texts.texts.push(set.texts.text(member).to_owned());
                texts.answers.push(answer);
                texts.groups.push(set.texts.group(member));
                texts.parts.push(set.texts.part(member));
                answer += 1;
            }
        }
        let total = self.members.len().max(1) as u64;
        let own = self.members.iter().zip(1..);
        // Each of its own texts at its share of the way, each other one anywhere.
        placed.extend(own.map(|(&text, place)| (u64::MAX / total * place, text)));
        placed.sort_by_key(|(place, _)| *place);
        Self {
            texts: Arc::new(texts),
            members: placed.into_iter().map(|(_, text)| text).collect(),
            ..self.clone()
        }
    }

    /// The same set with what a reader said, over its labels.
    pub(crate) fn judged(self, verdicts: &Arc<Verdicts>) -> Self {
        let texts = Texts {
            verdicts: Arc::clone(verdicts),
            ..(*self.texts).clone()
        };
        Self {
            texts: Arc::new(texts),
            ..self
        }
    }

    /// The texts of these parts, in the order of the file.
    pub(crate) fn members_of(&self, parts: &[Part]) -> Vec<TextId> {
        let of = |text: &TextId| {
            self.texts
                .part(*text)
                .is_some_and(|part| parts.contains(&part))
        };
        self.members.iter().copied().filter(of).collect()
    }

    /// The pairs whose texts are both of these parts.
    pub(crate) fn pairs_of(&self, parts: &[Part]) -> Vec<LabelledPair> {
        let of = |text: TextId| self.texts.part(text).filter(|part| parts.contains(part));
        self.pairs
            .iter()
            .copied()
            .filter(|pair| of(pair.a).is_some() && of(pair.a) == of(pair.b))
            .collect()
    }
}

/// Reads files and links them. The sets are in the order of the files.
///
/// # Errors
/// A file cannot be read, or a row is not as described; with file and line.
pub(crate) fn read(files: &[PathBuf]) -> Result<Vec<Set>> {
    let mut loaded = Vec::with_capacity(files.len());
    for path in files {
        let (source, rows) = data::labelled(path)?;
        let name = source.name.split('.').next().unwrap_or_default().to_owned();
        let rule = Rule::of(&name);
        loaded.push(File {
            name,
            source,
            rows,
            rule,
        });
    }
    Ok(link(loaded))
}

/// As [`read`], with further files that tell only which texts belong together: they give no sets.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_linked(files: &[PathBuf], links: &[PathBuf]) -> Result<Vec<Set>> {
    let mut sets = read(&[files, links].concat())?;
    sets.truncate(files.len());
    Ok(sets)
}

/// The project's own prompts, all of them to be reported on: pairs, then clusters.
///
/// # Errors
/// A file in the source tree is not as described.
pub(crate) fn golden() -> Result<Vec<Set>> {
    let (pairs, clusters) = (data::golden_pairs()?, data::golden_clusters()?);
    let file = |name: &str, source, rows| File {
        name: name.to_owned(),
        source,
        rows,
        rule: Rule::TestOnly,
    };
    Ok(link(vec![
        file("golden_pairs", pairs.source, Rows::Pairs(pairs.rows)),
        file(
            "golden_clusters",
            clusters.source,
            Rows::Clusters(clusters.rows),
        ),
    ]))
}

struct File {
    name: String,
    source: Source,
    rows: Rows,
    rule: Rule,
}

fn link(files: Vec<File>) -> Vec<Set> {
    let (together, alone): (Vec<_>, Vec<_>) = files
        .into_iter()
        .enumerate()
        .partition(|(_, file)| file.rule == Rule::Trained);
    let mut sets: Vec<(usize, Set)> = Vec::new();
    sets.extend(graph(together));
    for file in alone {
        sets.extend(graph(vec![file]));
    }
    sets.sort_by_key(|(place, _)| *place);
    sets.into_iter().map(|(_, set)| set).collect()
}

/// Links the files of one graph.
fn graph(files: Vec<(usize, File)>) -> Vec<(usize, Set)> {
    let mut names = Names::default();
    let (mut same, mut different) = (Vec::new(), Vec::new());
    let mut kinds: HashMap<TextId, Part> = HashMap::new();
    let mut unlinked = Vec::with_capacity(files.len());
    for (place, file) in files {
        let mut members = Vec::new();
        let mut pairs = Vec::new();
        match file.rows {
            Rows::Pairs(rows) => {
                let parts = (file.rule == Rule::ByKind).then(|| parts_of_kinds(&rows));
                for row in rows {
                    let part = parts
                        .as_ref()
                        .and_then(|parts| parts.get(row.kind.as_deref().unwrap_or_default()))
                        .copied();
                    let [a, b] = [row.a, row.b].map(|text| names.id(text));
                    for text in [a, b] {
                        members.push(text);
                        if let Some(part) = part {
                            kinds.entry(text).or_insert(part);
                        }
                    }
                    let edges = if row.same { &mut same } else { &mut different };
                    edges.push((a, b));
                    let same = row.same;
                    pairs.push(LabelledPair { a, b, same });
                }
            }
            Rows::Clusters(rows) => {
                let mut first: HashMap<String, TextId> = HashMap::new();
                for row in rows {
                    let text = names.id(row.text);
                    members.push(text);
                    let first = *first.entry(row.cluster).or_insert(text);
                    same.push((first, text));
                }
            }
        }
        let mut seen = HashSet::new();
        members.retain(|text| seen.insert(*text));
        unlinked.push((place, file.name, file.source, file.rule, members, pairs));
    }

    let mut answers = DisjointSets::new(names.texts.len());
    for &(a, b) in &same {
        answers.join(a, b);
    }
    let (answers, _) = answers.components();
    let answer = |text: TextId| answers[text as usize];
    let apart = different
        .iter()
        .map(|&(a, b)| ordered(answer(a), answer(b)))
        .filter(|(a, b)| a != b)
        .collect();
    let digests = components(&names.texts, same.iter().chain(&different));
    let rule = unlinked.first().map_or(Rule::Unseen, |first| first.3);
    let parts = digests.iter().enumerate().map(|(text, digest)| {
        let digest = digest.as_ref()?;
        Some(match kinds.get(&(text as TextId)) {
            Some(part) => *part,
            None => rule.part(digest),
        })
    });
    let texts = Arc::new(Texts {
        parts: parts.collect(),
        groups: digests
            .iter()
            .map(|digest| digest.map_or(0, |digest| group(&digest)))
            .collect(),
        texts: names.texts,
        answers,
        apart,
        verdicts: Arc::default(),
    });
    unlinked
        .into_iter()
        .map(|(place, name, source, rule, members, pairs)| {
            let texts = Arc::clone(&texts);
            let set = Set {
                name,
                source,
                rule,
                texts,
                members,
                pairs,
            };
            (place, set)
        })
        .collect()
}

/// The first eight bytes of a digest.
fn group(digest: &[u8; 32]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *digest;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// Numbers distinct texts in the order of their coming.
#[derive(Default)]
struct Names {
    texts: Vec<String>,
    ids: HashMap<String, TextId>,
}

impl Names {
    fn id(&mut self, text: String) -> TextId {
        if let Some(id) = self.ids.get(&text) {
            return *id;
        }
        let id = self.texts.len() as TextId;
        self.texts.push(text.clone());
        self.ids.insert(text, id);
        id
    }
}

/// The digest of each text's component; `None` for a text that normalises to nothing.
fn components<'a>(
    texts: &[String],
    edges: impl Iterator<Item = &'a (TextId, TextId)>,
) -> Vec<Option<[u8; 32]>> {
    let mut names = Names::default();
    let nodes: Vec<Option<TextId>> = texts
        .iter()
        .map(|text| {
            let normalised = normalise(text);
            (!normalised.is_empty()).then(|| names.id(normalised))
        })
        .collect();
    let mut sets = DisjointSets::new(names.texts.len());
    for &(a, b) in edges {
        if let (Some(a), Some(b)) = (nodes[a as usize], nodes[b as usize]) {
            sets.join(a, b);
        }
    }
    let (components, count) = sets.components();
    let mut smallest: Vec<Option<&str>> = vec![None; count];
    for (component, text) in components.iter().zip(&names.texts) {
        let least = &mut smallest[*component as usize];
        *least = Some(least.map_or(text.as_str(), |least| least.min(text)));
    }
    let digests: Vec<Option<[u8; 32]>> = smallest.iter().map(|text| text.map(digest)).collect();
    nodes
        .iter()
        .map(|node| digests[components[(*node)? as usize] as usize])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::data::{Labelled, Pair};
    use super::*;

    fn source(name: &str) -> Source {
        Source {
            name: name.to_owned(),
            sha256: None,
            rows: 0,
        }
    }

    fn pairs(name: &str, rows: &[(&str, &str, bool)]) -> File {
        let row = |&(a, b, same): &(&str, &str, bool)| Pair {
            a: a.to_owned(),
            b: b.to_owned(),
            same,
            kind: None,
        };
        File {
            name: name.to_owned(),
            source: source(name),
            rows: Rows::Pairs(rows.iter().map(row).collect()),
            rule: Rule::of(name),
        }
    }

    fn id(set: &Set, text: &str) -> TextId {
        let found = set.members.iter().find(|id| set.texts.text(**id) == text);
        *found.expect("a text of the set")
    }

    #[test]
    fn positive_pairs_chain_and_negative_pairs_set_answers_apart() {
        let rows = [
            ("a", "b", true),
            ("b", "c", true),
            ("c", "d", false),
            ("e", "f", true),
        ];
        let sets = link(vec![pairs("mine", &rows)]);
        let truth = |a, b| sets[0].texts.truth(id(&sets[0], a), id(&sets[0], b));
        assert_eq!(truth("a", "c"), Truth::Right);
        assert_eq!(truth("a", "d"), Truth::Wrong);
        assert_eq!(truth("a", "e"), Truth::Unknown);
        let group = |text| sets[0].texts.group(id(&sets[0], text));
        assert_eq!(group("a"), group("d"));
        assert_ne!(group("a"), group("e"));
    }

    #[test]
    fn files_that_models_were_trained_on_are_one_graph_and_others_are_not() {
        let rows = [("x", "y", true)];
        let more = [("y", "z", true)];
        let sets = link(vec![
            pairs("qqp_a", &rows),
            pairs("mine", &rows),
            pairs("qqp_b", &more),
        ]);
        assert_eq!(
            sets.iter().map(|set| set.name.as_str()).collect::<Vec<_>>(),
            ["qqp_a", "mine", "qqp_b"]
        );
        let (x, z) = (id(&sets[0], "x"), id(&sets[2], "z"));
        assert_eq!(sets[0].texts.truth(x, z), Truth::Right);
        assert!(!Arc::ptr_eq(&sets[0].texts, &sets[1].texts));
    }

    #[test]
    fn a_component_lies_in_one_part_and_spelling_does_not_cut_it() {
        let rows = [
            ("How are you?", "who", false),
            ("how are  you", "why", true),
        ];
        let sets = link(vec![pairs("mine", &rows)]);
        let parts: HashSet<_> = sets[0]
            .members
            .iter()
            .map(|text| sets[0].texts.part(*text))
            .collect();
        assert_eq!(parts.len(), 1);
    }

    #[test]
    fn texts_that_stand_alone_are_background() {
        let row = |text: &str, cluster: &str| Labelled {
            text: text.to_owned(),
            cluster: cluster.to_owned(),
        };
        let set = |rows| {
            let file = File {
                name: "f".to_owned(),
                source: source("f"),
                rows: Rows::Clusters(rows),
                rule: Rule::Unseen,
            };
            link(vec![file]).remove(0)
        };
        assert!(set(vec![row("a", "1"), row("b", "2")]).is_background());
        assert!(!set(vec![row("a", "1"), row("b", "1")]).is_background());
    }

    #[test]
    fn distractors_stand_between_the_texts_of_a_set_and_are_right_for_none() {
        let set = golden().unwrap().remove(1);
        let row = |i: usize| Labelled {
            text: format!("something else {i}"),
            cluster: i.to_string(),
        };
        let file = File {
            name: "others".to_owned(),
            source: source("others"),
            rows: Rows::Clusters((0..100).map(row).collect()),
            rule: Rule::TestOnly,
        };
        let mixed = set.among(&link(vec![file]), 1);
        assert_eq!(mixed.members.len(), set.members.len() + 100);
        let own = |text: &&TextId| (**text as usize) < set.texts.texts.len();
        assert!(mixed.members.iter().filter(own).eq(&set.members));
        let half = &mixed.members[..mixed.members.len() / 2];
        let others = half.iter().filter(|text| !own(text)).count();
        assert!((20..80).contains(&others), "{others}");
        let other = mixed.members.iter().find(|text| !own(text)).unwrap();
        for text in &mixed.members {
            let truth = mixed.texts.truth(*other, *text);
            assert_eq!(truth == Truth::Right, text == other);
        }
    }

    /// Runs where the labelled data is: in `ASKONCE_DATA`, or beside the repository.
    #[test]
    fn the_split_of_the_training_data_is_that_of_the_training() {
        let folder = std::env::var_os("ASKONCE_DATA").map_or_else(
            || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data")),
            PathBuf::from,
        );
        let files = ["natural", "balanced_extra"].map(|name| format!("qqp_pairs_{name}.jsonl.gz"));
        let files = files
            .into_iter()
            .chain(["qqp_positives_extra.jsonl.gz".to_owned()]);
        let files: Vec<PathBuf> = files.map(|name| folder.join(name)).collect();
        if files.iter().any(|file| !file.exists()) {
            eprintln!("SKIPPED: no labelled data in {}", folder.display());
            return;
        }
        let sets = read(&files).unwrap();
        // Pairs of each file by part, as models/training/split.py prints them.
        for (set, expected) in sets.iter().zip([
            [52_972, 7_251, 7_279, 7_593],
            [9_249, 1_289, 1_308, 1_338],
            [34_056, 4_653, 4_337, 5_026],
        ]) {
            let parts = [Part::Train, Part::Dev, Part::Calibration, Part::Test];
            let found = parts.map(|part| set.pairs_of(&[part]).len());
            assert_eq!(found, expected, "{}", set.name);
        }
    }

    #[test]
    fn the_golden_prompts_are_all_to_be_reported_on() {
        for set in golden().unwrap() {
            assert_eq!(set.members_of(&[Part::Test]).len(), set.members.len());
        }
    }
}
