//! Prompts that must or must not share an answer.
//!
//! A cache that mistakes "how do I enable it" for "how do I disable it" is worse than none, and one
//! that knows only identical texts saves nothing. The files beside this one hold both kinds of pair,
//! one phenomenon a file, written for this project and labelled beyond dispute. Every policy and
//! embedder is measured on them; what is tested here is that the data can be trusted.

mod alarms;
mod data;
#[cfg(feature = "minilm-weights")]
mod newcomer;
mod policies;

use std::collections::{BTreeMap, BTreeSet};

use data::{Label, clusters, pairs};

#[test]
fn no_pair_occurs_twice_and_no_pair_compares_a_text_with_itself() {
    let mut seen = BTreeMap::new();
    for pair in pairs() {
        assert_ne!(
            pair.a.trim(),
            pair.b.trim(),
            "{}: a text paired with itself",
            pair.file
        );
        let (first, second) = (pair.a.clone().min(pair.b.clone()), pair.a.max(pair.b));
        if let Some(before) = seen.insert((first, second.clone()), pair.file.clone()) {
            panic!("{second:?} is in {before} and again in {}", pair.file);
        }
    }
}

#[test]
fn the_labels_of_all_files_together_do_not_contradict_each_other() {
    // What is linked by `same` must not be told apart by a pair labelled `different`.
    let pairs = pairs();
    let mut group: BTreeMap<&str, usize> = BTreeMap::new();
    for pair in &pairs {
        for text in [pair.a.as_str(), pair.b.as_str()] {
            let next = group.len();
            group.entry(text).or_insert(next);
        }
    }
    for pair in pairs.iter().filter(|pair| pair.label == Label::Same) {
        let (keep, merge) = (group[pair.a.as_str()], group[pair.b.as_str()]);
        for id in group.values_mut().filter(|id| **id == merge) {
            *id = keep;
        }
    }
    for pair in pairs.iter().filter(|pair| pair.label == Label::Different) {
        let (a, b) = (pair.a.as_str(), pair.b.as_str());
        assert_ne!(
            group[a], group[b],
            "{}: {a:?} and {b:?} are the same elsewhere",
            pair.file
        );
    }
}

#[test]
fn there_are_enough_pairs_of_either_label_to_measure_a_policy() {
    let pairs = pairs();
    let same = pairs
        .iter()
        .filter(|pair| pair.label == Label::Same)
        .count();
    let files: BTreeSet<&str> = pairs.iter().map(|pair| pair.file.as_str()).collect();
    assert!(same >= 150, "{same} pairs must hit");
    assert!(
        pairs.len() - same >= 200,
        "{} pairs must not hit",
        pairs.len() - same
    );
    assert!(files.len() >= 15, "{} phenomena", files.len());
}

#[test]
fn every_text_of_the_clusters_stands_in_one_place_only() {
    let clusters = clusters();
    let mut ids = BTreeSet::new();
    let mut texts = BTreeSet::new();
    for cluster in &clusters.cluster {
        assert!(
            ids.insert(&cluster.id),
            "two clusters are called {}",
            cluster.id
        );
        assert!(
            cluster.texts.len() >= 4,
            "{} has too few wordings",
            cluster.id
        );
        for text in &cluster.texts {
            assert!(texts.insert(text), "{text:?} occurs twice");
        }
    }
    for text in &clusters.distractors {
        assert!(texts.insert(text), "{text:?} occurs twice");
    }
    assert!(
        ids.len() >= 60 && clusters.distractors.len() >= 80,
        "too little traffic to replay"
    );
}
