//! What a reader said of pairs of texts, where the labels of a set are in doubt.
//!
//! A file of verdicts names each pair by a digest of its two texts and holds no text, so it can be kept where
//! the texts must not be. A verdict overrules the label: `same` makes a candidate right, `different` and `unsure`
//! do not, and where only labels count a pair of which the reader is unsure does not count. Labels still make
//! components, parts and answers.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::{Result, bail};
use askonce::calibrate::{lower_bound, upper_bound};
use askonce::decision::DecisionRecord;
use askonce::policy::HitPolicy;
use serde::{Deserialize, Serialize};

use super::corpus::{Set, TextId, Truth};
use super::data;
use super::record::Recorded;
use super::replay::replay;
use super::seed::Rng;
use super::stats::Interval;

/// What a reader said of one pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// One answer does for both.
    Same,
    /// It does not.
    Different,
    /// It depends on what was meant.
    Unsure,
}

/// Verdicts by pair.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdicts(HashMap<String, Verdict>);

#[derive(Deserialize)]
struct VerdictRow {
    pair: String,
    verdict: Verdict,
}

/// The name of a pair, whichever text comes first: BLAKE3 of the digests of both, the smaller first, in
/// hexadecimal.
pub(crate) fn name_of(a: &str, b: &str) -> String {
    let mut digests = [a, b].map(|text| *blake3::hash(text.as_bytes()).as_bytes());
    digests.sort_unstable();
    blake3::hash(digests.as_flattened()).to_hex().to_string()
}

impl Verdicts {
    /// Reads files of lines `{"pair": name, "verdict": "same", "different" or "unsure"}`.
    ///
    /// # Errors
    /// A file cannot be read, a row is not as described, or two rows say different things of one pair.
    pub(crate) fn read<P: AsRef<Path>>(files: &[P]) -> Result<Self> {
        let mut verdicts = HashMap::new();
        for path in files {
            let rows = data::verdicts(path.as_ref(), |VerdictRow { pair, verdict }| {
                if pair.len() != 64 || !pair.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    bail!("`pair` is no digest of 64 hexadecimal digits");
                }
                Ok((pair.to_ascii_lowercase(), verdict))
            })?;
            for (pair, verdict) in rows {
                let before = verdicts.insert(pair.clone(), verdict);
                if before.is_some_and(|before| before != verdict) {
                    bail!("{}: two verdicts on {pair}", path.as_ref().display());
                }
            }
        }
        Ok(Self(verdicts))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was said of these two texts.
    pub(crate) fn of(&self, a: &str, b: &str) -> Option<Verdict> {
        if self.is_empty() {
            return None;
        }
        self.0.get(&name_of(a, b)).copied()
    }
}

/// What a reader made of the hits of a policy.
///
/// Hits that the labels call right and others are read in different shares, so each stratum stands for all
/// of its hits. Reads are taken as drawn by lot from their stratum.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Judged {
    /// Hits by what the labels say.
    pub(crate) strata: BTreeMap<&'static str, Stratum>,
    /// Hits that are of different questions, per hit; `None` where a stratum was not read.
    pub(crate) wrong_per_hit: Option<f64>,
    /// The same with what the reader was unsure of as wrong.
    pub(crate) wrong_or_unsure_per_hit: Option<f64>,
    /// Where the first lies with 95 %: the bounds of all strata together (Clopper-Pearson with the error
    /// divided among them).
    pub(crate) interval: Option<Interval>,
}

/// Hits with one kind of label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Stratum {
    pub(crate) hits: usize,
    /// Of them, those with a verdict.
    pub(crate) read: usize,
    /// Of those.
    pub(crate) different: usize,
    /// Of those.
    pub(crate) unsure: usize,
}

impl Judged {
    /// What `verdicts` say of what `policy` serves.
    pub(crate) fn of(
        policy: &dyn HitPolicy,
        recorded: &Recorded,
        set: &Set,
        verdicts: &Verdicts,
    ) -> Self {
        let mut strata: BTreeMap<&'static str, Stratum> = BTreeMap::new();
        for hit in hits(policy, recorded) {
            let stratum = strata.entry(label(set, hit)).or_default();
            stratum.hits += 1;
            let Some(verdict) = verdicts.of(set.texts.text(hit.0), set.texts.text(hit.1)) else {
                continue;
            };
            stratum.read += 1;
            stratum.different += usize::from(verdict == Verdict::Different);
            stratum.unsure += usize::from(verdict == Verdict::Unsure);
        }
        Self::over(strata)
    }

    fn over(strata: BTreeMap<&'static str, Stratum>) -> Self {
        let all: usize = strata.values().map(|stratum| stratum.hits).sum();
        let read = all > 0 && strata.values().all(|stratum| stratum.read > 0);
        let sum = |of: &dyn Fn(&Stratum) -> f64| {
            let weighed = strata
                .values()
                .map(|stratum| of(stratum) * stratum.hits as f64);
            read.then(|| weighed.sum::<f64>() / all as f64)
        };
        let counts = |stratum: &Stratum| (stratum.different as f64, stratum.read as f64);
        // What is read whole has no uncertainty of sampling.
        let within = |stratum: &Stratum, bound: fn(f64, f64, f64) -> f64| {
            let (wrong, of) = counts(stratum);
            if stratum.read == stratum.hits {
                return wrong / of;
            }
            bound(wrong, of, 1.0 - 0.025 / strata.len() as f64)
        };
        Self {
            wrong_per_hit: sum(&|stratum| stratum.different as f64 / stratum.read as f64),
            wrong_or_unsure_per_hit: sum(&|stratum| {
                (stratum.different + stratum.unsure) as f64 / stratum.read as f64
            }),
            interval: sum(&|stratum| within(stratum, lower_bound))
                .zip(sum(&|stratum| within(stratum, upper_bound)))
                .map(|(low, high)| Interval { low, high }),
            strata,
        }
    }
}

/// Asked and stored text of each hit.
fn hits(policy: &dyn HitPolicy, recorded: &Recorded) -> Vec<(TextId, TextId)> {
    let served = |record: &DecisionRecord| {
        let place = replay(policy, &record.candidates).served?;
        recorded.texts_of(record, place)
    };
    recorded.records.iter().filter_map(served).collect()
}

/// What the labels say, as a stratum.
fn label(set: &Set, (asked, stored): (TextId, TextId)) -> &'static str {
    match set.texts.label(asked, stored) {
        Truth::Right => "labelled the same",
        Truth::Wrong => "labelled different",
        Truth::Unknown => "not labelled",
    }
}

/// A pair for a reader, with its texts and without its label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ToJudge<'a> {
    pair: String,
    a: &'a str,
    b: &'a str,
}

/// About `size` pairs to read, in random order: of what `policy` serves as many as are not labelled the same,
/// up to a third, and others; a fifth are pairs that it came nearest to serving.
pub(crate) fn to_judge<'a>(
    policy: &dyn HitPolicy,
    recorded: &Recorded,
    set: &'a Set,
    size: usize,
    seed: u64,
) -> Vec<ToJudge<'a>> {
    let mut rng = Rng::new(seed);
    let (same, doubtful): (Vec<_>, Vec<_>) = hits(policy, recorded)
        .into_iter()
        .partition(|hit| label(set, *hit) == "labelled the same");
    let mut nearly: Vec<(f64, (TextId, TextId))> = Vec::new();
    for record in &recorded.records {
        let replayed = replay(policy, &record.candidates);
        let surest = replayed.surest().filter(|_| replayed.served.is_none());
        if let Some((place, score)) = surest
            && let Some(texts) = recorded.texts_of(record, place)
        {
            nearly.push((score, texts));
        }
    }
    nearly.sort_by(|a, b| b.0.total_cmp(&a.0));
    let misses = size / 5;
    let doubtful = rng.sample(doubtful, Some(size / 3));
    let same = rng.sample(same, Some((size - misses).saturating_sub(doubtful.len())));
    let mut chosen = [doubtful, same].concat();
    chosen.extend(nearly.into_iter().take(misses).map(|(_, texts)| texts));
    rng.shuffle(&mut chosen);
    let pair = |(a, b): (TextId, TextId)| {
        let (a, b) = (set.texts.text(a), set.texts.text(b));
        ToJudge {
            pair: name_of(a, b),
            a,
            b,
        }
    };
    chosen.into_iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn written(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn a_pair_has_one_name_in_either_order() {
        assert_eq!(name_of("a", "b"), name_of("b", "a"));
        assert_ne!(name_of("a", "b"), name_of("a", "B"));
        // Not the same text cut in two places.
        assert_ne!(name_of("ab", "c"), name_of("a", "bc"));
    }

    #[test]
    fn verdicts_are_read_and_found_in_either_order() {
        let row = |a, b, verdict| {
            let pair = name_of(a, b);
            format!("{{\"pair\": \"{pair}\", \"verdict\": \"{verdict}\"}}\n")
        };
        let file = written(&(row("a", "b", "same") + &row("c", "d", "unsure")));
        let verdicts = Verdicts::read(&[file.path()]).unwrap();
        assert_eq!(verdicts.of("b", "a"), Some(Verdict::Same));
        assert_eq!(verdicts.of("c", "d"), Some(Verdict::Unsure));
        assert_eq!(verdicts.of("a", "d"), None);
        let twice = written(&(row("a", "b", "same") + &row("b", "a", "different")));
        let refusal = format!("{:#}", Verdicts::read(&[twice.path()]).unwrap_err());
        assert!(refusal.contains("two verdicts"), "{refusal}");
        let short = written("{\"pair\": \"abc\", \"verdict\": \"same\"}\n");
        let refusal = format!("{:#}", Verdicts::read(&[short.path()]).unwrap_err());
        assert!(
            refusal.contains(":1") && refusal.contains("64"),
            "{refusal}"
        );
    }

    #[test]
    fn each_stratum_stands_for_all_of_its_hits() {
        let stratum = |hits, read, different, unsure| Stratum {
            hits,
            read,
            different,
            unsure,
        };
        let judged = Judged::over(BTreeMap::from([
            ("labelled the same", stratum(900, 100, 0, 10)),
            ("labelled different", stratum(100, 100, 20, 0)),
        ]));
        assert!((judged.wrong_per_hit.unwrap() - 0.02).abs() < 1e-12);
        assert!((judged.wrong_or_unsure_per_hit.unwrap() - 0.11).abs() < 1e-12);
        let interval = judged.interval.unwrap();
        // 0 of 100 says at most 4.3 %, of nine tenths of the hits; the others were all read.
        assert!((interval.low - 0.02).abs() < 1e-12);
        assert!((0.05..0.07).contains(&interval.high), "{interval:?}");
        let unread = BTreeMap::from([("labelled the same", stratum(9, 0, 0, 0))]);
        assert_eq!(Judged::over(unread).wrong_per_hit, None);
    }
}
