//! The binary `askonce train`, from the outside: what it writes, and when it writes nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use askonce_models::StaticEmbedder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

fn train(pairs: &Path, output: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_askonce"))
        .arg("train")
        .arg("--pairs")
        .arg(pairs)
        .arg("--output")
        .arg(output)
        .args(more)
        .output()
        .unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A file of pairs about so many things, each by itself: `ask` and its other wording `same`, and a `near`
/// miss. Labels are turned around where `turned` says so of the near miss.
fn pairs(
    folder: &TempDir,
    things: usize,
    [ask, same, near]: [&str; 3],
    turned: impl Fn(&str) -> bool,
) -> PathBuf {
    let nouns = ["invoice", "parcel", "router", "garden", "passport"];
    let mut text = String::new();
    for thing in 0..things {
        let about = |frame: &str| format!("{frame} {} {thing}", nouns[thing % nouns.len()]);
        let turned = turned(&about(near));
        for (other, label) in [(same, !turned), (near, turned)] {
            let label = u8::from(label);
            text += &format!(
                "{}\n",
                json!({ "a": about(ask), "b": about(other), "label": label })
            );
        }
    }
    let path = folder.path().join("own.jsonl");
    fs::write(&path, text).unwrap();
    path
}

/// Words of a trade that the built-in table cannot know: it takes both for equally near. The
/// near miss is the smallest text of its component.
const JARGON: [&str; 3] = ["zorp my", "flimble a", "blentify a"];

#[test]
fn a_table_learns_the_jargon_of_a_trade() {
    let folder = tempfile::tempdir().unwrap();
    let pairs = pairs(&folder, 400, JARGON, |_| false);
    let output = folder.path().join("trained");
    let ran = train(
        &pairs,
        &output,
        &["--json", "--epochs", "20", "--batch", "64"],
    );
    assert!(ran.status.success(), "{}", errors(&ran));
    assert_eq!(errors(&ran), "", "nothing is drawn beside the JSON");

    let report: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(report["schema"], "askonce.train/1");
    assert_eq!(report["sources"][0]["name"], "own.jsonl");
    let result = &report["result"];
    assert!(result["gain"]["low"].as_f64().unwrap() > 0.0, "{result:#}");
    assert!(result["after"]["auc"].as_f64().unwrap() > 0.9, "{result:#}");
    // Half of the pairs are for calibration and tests, and not touched.
    let used = result["pairs"].as_u64().unwrap() + result["held_out"].as_u64().unwrap();
    assert!((300..500).contains(&used), "{used} of 800 pairs");

    let table = StaticEmbedder::open(output.join("static-tuned.bin")).unwrap();
    assert_eq!(result["to"], table.id().fingerprint());
    let kept: Value =
        serde_json::from_slice(&fs::read(output.join("static-tuned.json")).unwrap()).unwrap();
    assert_eq!(kept, report);
}

#[test]
fn a_table_that_ranks_worse_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    // What is judged by contradicts what is trained on: one component in five, by its digest.
    let judged = |smallest: &str| {
        let digest = Sha256::digest(smallest);
        u64::from_be_bytes(*digest.first_chunk().unwrap()).is_multiple_of(5)
    };
    let pairs = pairs(&folder, 400, JARGON, judged);
    let output = folder.path().join("trained");
    let ran = train(&pairs, &output, &["--epochs", "20", "--batch", "64"]);
    assert!(!ran.status.success());
    assert!(
        errors(&ran).contains("nothing is written"),
        "{}",
        errors(&ran)
    );
    assert!(!output.exists());
}

#[test]
fn too_few_pairs_are_refused_with_how_many_are_missing() {
    let folder = tempfile::tempdir().unwrap();
    let pairs = pairs(&folder, 60, JARGON, |_| false);
    let ran = train(&pairs, &folder.path().join("trained"), &[]);
    assert!(!ran.status.success());
    let errors = errors(&ran);
    assert!(
        errors.contains("held-out pairs are labelled true, at least 20"),
        "{errors}"
    );
}

#[test]
fn clusters_are_no_pairs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clusters.jsonl");
    fs::write(
        &path,
        "{\"text\": \"a\", \"cluster\": 1}\n{\"text\": \"b\", \"cluster\": 1}\n",
    )
    .unwrap();
    let ran = train(&path, &folder.path().join("trained"), &[]);
    assert!(errors(&ran).contains("holds clusters"), "{}", errors(&ran));
}
