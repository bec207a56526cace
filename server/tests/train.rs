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

/// What can be trained in this build.
const MODELS: &[&str] = if cfg!(feature = "minilm") {
    &["static", "adapter"]
} else {
    &["static"]
};

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
        &[
            "--json", "--model", "static", "--epochs", "20", "--batch", "64",
        ],
    );
    assert!(ran.status.success(), "{}", errors(&ran));
    assert_eq!(errors(&ran), "", "nothing is drawn beside the JSON");

    let report: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(report["schema"], "askonce.train/2");
    assert_eq!(report["sources"][0]["name"], "own.jsonl");
    assert_eq!(report["models"][0]["model"], "table");
    let result = &report["models"][0]["result"];
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
    let settings = ["--model", "static", "--epochs", "20", "--batch", "64"];
    let ran = train(&pairs, &output, &settings);
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
    for model in MODELS {
        let ran = train(&pairs, &folder.path().join("trained"), &["--model", model]);
        assert!(!ran.status.success());
        let errors = errors(&ran);
        assert!(
            errors.contains("held-out pairs are labelled true, at least 20"),
            "{errors}"
        );
        assert!(errors.contains("of the 120 pairs given"), "{errors}");
    }
}

#[test]
fn pairs_of_one_label_and_rows_that_are_none_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.jsonl");
    let row = |i: usize| format!("{{\"a\": \"one {i}\", \"b\": \"two {i}\", \"label\": 1}}\n");
    let mut rows: String = (0..400).map(row).collect();
    fs::write(&path, &rows).unwrap();
    for model in MODELS {
        let ran = train(&path, &folder.path().join("trained"), &["--model", model]);
        let errors = errors(&ran);
        assert!(
            errors.contains("pairs are labelled true: add pairs that are labelled false"),
            "{errors}"
        );
    }
    rows += "{\"a\": \"one\"}\n";
    fs::write(&path, &rows).unwrap();
    let ran = train(&path, &folder.path().join("trained"), &[]);
    assert!(!ran.status.success());
    assert!(errors(&ran).contains("own.jsonl:401"), "{}", errors(&ran));
}

/// From pairs to a server's settings: the file is used, checked, and refused when it is damaged.
#[cfg(feature = "minilm")]
#[test]
fn an_adapter_learns_the_jargon_and_the_doctor_knows_it() {
    let folder = tempfile::tempdir().unwrap();
    let pairs = pairs(&folder, 300, JARGON, |_| false);
    let output = folder.path().join("trained");
    let ran = train(&pairs, &output, &["--json", "--model", "adapter"]);
    assert!(ran.status.success(), "{}", errors(&ran));
    assert_eq!(errors(&ran), "", "nothing is drawn beside the JSON");
    let report: Value = serde_json::from_slice(&ran.stdout).unwrap();
    let model = &report["models"][0];
    assert_eq!(model["model"], "adapter");
    let result = &model["result"];
    assert!(result["gain"]["low"].as_f64().unwrap() > 0.0, "{result:#}");
    let kept = fs::read(output.join("minilm-adapter.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&kept).unwrap(), report);
    assert!(!output.join("static-tuned.bin").exists());

    let file = output.join("minilm-adapter.bin");
    let doctor = || {
        let adapter = format!("semantic.embedder.adapter={}", file.display());
        let more = [
            "semantic.embedder.type=minilm",
            &adapter,
            "listen=127.0.0.1:0",
        ];
        let ran = Command::new(env!("CARGO_BIN_EXE_askonce"))
            .args(["doctor", "--json"])
            .args(more.iter().flat_map(|set| ["--set", set]))
            .current_dir(folder.path())
            .output()
            .unwrap();
        serde_json::from_slice::<Value>(&ran.stdout).unwrap()
    };
    let check = |report: &Value, name: &str| {
        let checks = report["checks"].as_array().unwrap();
        let found = checks.iter().find(|check| check["check"] == name);
        found.unwrap_or_else(|| panic!("{report:#}")).clone()
    };
    let told = doctor();
    let weights = check(&told, "weights of the transformer");
    assert_eq!(weights["finding"], "pass", "{told:#}");
    let detail = weights["detail"].as_str().unwrap();
    assert!(detail.starts_with("minilm-l6-tuned@"), "{detail}");
    let embedder = check(&told, "embedder");
    let fingerprint = result["to"].as_str().unwrap();
    assert!(
        embedder["detail"]
            .as_str()
            .unwrap()
            .starts_with(fingerprint),
        "{told:#}"
    );

    let mut bytes = fs::read(&file).unwrap();
    bytes[1_000] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let cache = check(&doctor(), "cache");
    assert_eq!(cache["finding"], "fail");
    let detail = cache["detail"].as_str().unwrap();
    assert!(
        detail.contains("semantic.embedder.adapter") && detail.contains("checksum"),
        "{detail}"
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
