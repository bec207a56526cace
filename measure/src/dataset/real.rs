//! Prompts through the built-in embedding model.
//!
//! With a folder of labelled clusters (`*_clusters.jsonl`, plain or gzip, rows of
//! `{"text": …, "cluster": …}`) the prompts are real: half of the queries are held-out members of a
//! stored cluster, half come from clusters of which nothing is stored. Without one, prompts are made
//! from templates. They are easier to search, so a report names the origin.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use askonce_models::StaticEmbedder;
use flate2::read::MultiGzDecoder;
use serde::Deserialize;

use super::Origin;
use crate::error::{MeasureError, Result};
use crate::random::Random;

/// The file that is read first: as many clusters as there are questions in a cache.
const PREFERRED: &str = "qqp_clusters.jsonl";

#[derive(Deserialize)]
struct Labelled {
    text: String,
    cluster: serde_json::Value,
}

/// Origin, components, rows and queries. Fewer rows than wanted if there are no more prompts.
pub(super) fn vectors(
    folder: Option<&Path>,
    rows: usize,
    queries: usize,
    seed: u64,
) -> Result<(Origin, usize, Vec<f32>, Vec<f32>)> {
    let mut random = Random::new(seed);
    let (origin, stored, asked) = match folder {
        Some(folder) => {
            let clusters = read(folder)?;
            let (stored, asked) = split(clusters, rows, queries, &mut random);
            (Origin::Real, stored, asked)
        }
        None => {
            let (stored, asked) = templates(rows, queries, &mut random);
            (Origin::Templates, stored, asked)
        }
    };
    let model = StaticEmbedder::builtin();
    let embed = |texts: &[String]| -> Result<Vec<f32>> {
        let mut out = Vec::with_capacity(texts.len() * model.dimension());
        for text in texts {
            // A text without a word has no vector, and would not be cached either.
            match model.embed_one(text, &mut out) {
                Ok(()) | Err(askonce_models::ModelError::NoTokens { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(out)
    };
    Ok((origin, model.dimension(), embed(&stored)?, embed(&asked)?))
}

/// Texts by cluster, without repeats.
fn read(folder: &Path) -> Result<Vec<Vec<String>>> {
    let fault = |path: &Path, reason: String| MeasureError::Data {
        path: path.to_owned(),
        reason,
    };
    let listed = fs::read_dir(folder).map_err(|error| fault(folder, error.to_string()))?;
    let mut files: Vec<PathBuf> = listed
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| name(path).contains("_clusters.jsonl"))
        .collect();
    files.sort_by_key(|path| (!name(path).starts_with(PREFERRED), path.clone()));
    if files.is_empty() {
        return Err(fault(folder, "there is no *_clusters.jsonl".to_owned()));
    }
    let mut seen = HashSet::new();
    let mut clusters = Vec::new();
    for path in &files {
        let opened = File::open(path).map_err(|error| fault(path, error.to_string()))?;
        let reader: Box<dyn Read> = if path.extension().is_some_and(|end| end == "gz") {
            Box::new(MultiGzDecoder::new(opened))
        } else {
            Box::new(opened)
        };
        let mut of_file: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (number, line) in BufReader::new(reader).lines().enumerate() {
            let at = |error: &dyn std::fmt::Display| {
                fault(path, format!("line {}: {error}", number + 1))
            };
            let line = line.map_err(|error| at(&error))?;
            if line.trim().is_empty() {
                continue;
            }
            // What serde says may quote the line, which is data.
            let row: Labelled = serde_json::from_str(&line)
                .map_err(|error| at(&format!("unreadable at column {}", error.column())))?;
            if seen.insert(row.text.clone()) {
                let cluster = row.cluster.to_string();
                of_file.entry(cluster).or_default().push(row.text);
            }
        }
        clusters.extend(of_file.into_values());
    }
    Ok(clusters)
}

fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Who is stored, who is asked.
fn split(
    mut clusters: Vec<Vec<String>>,
    rows: usize,
    queries: usize,
    random: &mut Random,
) -> (Vec<String>, Vec<String>) {
    random.shuffle(&mut clusters);
    let mut stored = Vec::with_capacity(rows);
    let (mut held_out, mut strangers) = (Vec::new(), Vec::new());
    for mut cluster in clusters {
        if strangers.len() < queries / 2 {
            strangers.extend(cluster.pop());
            continue;
        }
        if stored.len() >= rows {
            break;
        }
        if held_out.len() < queries.div_ceil(2) && cluster.len() > 1 {
            held_out.extend(cluster.pop());
        }
        let room = rows - stored.len();
        stored.extend(cluster.into_iter().take(room));
    }
    random.shuffle(&mut stored);
    let mut asked = held_out;
    asked.append(&mut strangers);
    random.shuffle(&mut asked);
    (stored, asked)
}

const ASKS: [&str; 12] = [
    "How do I {} a {} {}?",
    "What is the best way to {} a {} {}?",
    "Can you tell me how to {} a {} {}?",
    "Is it safe to {} a {} {} at home?",
    "Where can I {} my {} {}?",
    "How much does it cost to {} a {} {}?",
    "Why would anyone {} a {} {}?",
    "Who can {} a {} {} for me?",
    "What do I need to {} a {} {}?",
    "How long does it take to {} a {} {}?",
    "Should I {} the {} {} myself?",
    "When is it time to {} a {} {}?",
];
const VERBS: [&str; 20] = [
    "clean",
    "repair",
    "replace",
    "install",
    "sell",
    "store",
    "paint",
    "measure",
    "ship",
    "rent",
    "insure",
    "test",
    "recycle",
    "assemble",
    "label",
    "photograph",
    "buy",
    "return",
    "polish",
    "borrow",
];
const KINDS: [&str; 20] = [
    "old",
    "wooden",
    "electric",
    "broken",
    "small",
    "cheap",
    "heavy",
    "antique",
    "folding",
    "red",
    "portable",
    "rusty",
    "leather",
    "glass",
    "used",
    "hydraulic",
    "plastic",
    "modern",
    "noisy",
    "imported",
];
const THINGS: [&str; 32] = [
    "bicycle",
    "piano",
    "window",
    "engine",
    "camera",
    "sofa",
    "laptop",
    "printer",
    "guitar",
    "boiler",
    "tent",
    "carpet",
    "clock",
    "ladder",
    "mirror",
    "fridge",
    "kayak",
    "chimney",
    "fence",
    "telescope",
    "scooter",
    "wardrobe",
    "drill",
    "violin",
    "heater",
    "door",
    "lamp",
    "pump",
    "mattress",
    "oven",
    "radio",
    "suitcase",
];

/// Prompts made from templates: stored ones, and others that ask the same or something else.
fn templates(rows: usize, queries: usize, random: &mut Random) -> (Vec<String>, Vec<String>) {
    let matters = VERBS.len() * KINDS.len() * THINGS.len();
    let text = |number: usize| {
        let (ask, matter) = (number / matters, number % matters);
        let verb = VERBS[matter % VERBS.len()];
        let kind = KINDS[matter / VERBS.len() % KINDS.len()];
        let thing = THINGS[matter / (VERBS.len() * KINDS.len())];
        [verb, kind, thing]
            .iter()
            .fold(ASKS[ask].to_owned(), |text, word| {
                text.replacen("{}", word, 1)
            })
    };
    let mut numbers: Vec<usize> = (0..matters * ASKS.len()).collect();
    random.shuffle(&mut numbers);
    let mut numbers = numbers.into_iter().map(text);
    let stored = numbers.by_ref().take(rows).collect();
    (stored, numbers.take(queries).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn held_out_members_are_asked_and_never_stored() {
        let clusters = (0..1000)
            .map(|cluster| (0..4).map(|member| format!("{cluster} {member}")).collect())
            .collect();
        let (stored, asked) = split(clusters, 500, 100, &mut Random::new(1));
        assert_eq!((stored.len(), asked.len()), (500, 100));
        let kept: HashSet<&String> = stored.iter().collect();
        assert!(asked.iter().all(|text| !kept.contains(text)));
        let clusters: HashSet<&str> = stored.iter().filter_map(|t| t.split(' ').next()).collect();
        let known = asked
            .iter()
            .filter(|text| text.split(' ').next().is_some_and(|c| clusters.contains(c)))
            .count();
        assert_eq!(known, 50);
    }

    #[test]
    fn templates_repeat_no_prompt() {
        let (stored, asked) = templates(20_000, 2_000, &mut Random::new(1));
        assert_eq!((stored.len(), asked.len()), (20_000, 2_000));
        let all: HashSet<&String> = stored.iter().chain(&asked).collect();
        assert_eq!(all.len(), 22_000);
    }

    #[test]
    fn a_bad_row_is_named_by_file_and_line_and_not_quoted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some_clusters.jsonl");
        let mut file = File::create(&path).unwrap();
        writeln!(file, r#"{{"text": "a", "cluster": 1}}"#).unwrap();
        writeln!(file, "secret words").unwrap();
        let error = vectors(Some(folder.path()), 10, 2, 1)
            .unwrap_err()
            .to_string();
        assert!(error.contains("some_clusters.jsonl: line 2"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn a_folder_without_prompts_is_an_error_and_not_other_data() {
        let folder = tempfile::tempdir().unwrap();
        assert!(vectors(Some(folder.path()), 10, 2, 1).is_err());
    }
}
