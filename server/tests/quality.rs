//! The binary `askonce bench quality` and `askonce replay`, from the outside.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::NamedTempFile;

fn askonce(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_askonce"))
        .args(args)
        .output()
        .unwrap()
}

fn told(args: &[&str]) -> Value {
    let output = askonce(args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert_eq!(errors, "", "nothing is drawn beside the JSON");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn refusal(args: &[&str]) -> String {
    let output = askonce(args);
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn rows<'a>(report: &'a Value, name: &str) -> &'a [Value] {
    report[name].as_array().unwrap()
}

#[test]
fn without_data_the_golden_prompts_are_judged_under_every_baseline() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("report.html");
    let report = told(&[
        "bench",
        "quality",
        "--json",
        "--order",
        "pairs,retrieval,random",
        "--ablate",
        "guards",
        "--html",
        page.to_str().unwrap(),
    ]);
    assert_eq!(report["schema"], "askonce.quality/1");
    let sets: Vec<_> = rows(&report, "sets")
        .iter()
        .map(|set| (set["set"].as_str().unwrap(), set["order"].as_str().unwrap()))
        .collect();
    assert!(sets.contains(&("golden_pairs", "pairs")));
    assert!(sets.contains(&("golden_clusters", "random")));
    let of = |policy: &str, order: &str| {
        rows(&report, "rows")
            .iter()
            .find(|row| row["policy"] == policy && row["order"] == order)
            .unwrap_or_else(|| panic!("{policy} in {order}"))
    };
    for policy in [
        "default",
        "default without guards",
        "threshold 0.80",
        "cosine",
    ] {
        let row = of(policy, "pairs");
        let at = &row["operating"];
        let counts = &at["counts"];
        let hits = counts["right"].as_f64().unwrap() + counts["wrong"].as_f64().unwrap();
        let rate = at["hit_rate"]["value"].as_f64().unwrap();
        assert!((rate - hits / counts["requests"].as_f64().unwrap()).abs() < 1e-9);
        let interval = &at["hit_rate"]["interval"];
        assert!(interval["low"].as_f64().unwrap() <= rate);
        assert!(interval["high"].as_f64().unwrap() >= rate);
    }
    // A lower threshold serves more of both.
    let served = |policy| of(policy, "pairs")["operating"]["hit_rate"]["value"].as_f64();
    assert!(served("threshold 0.80") > served("threshold 0.95"));
    let area = of("cosine", "retrieval")["curve"]["area"]["value"].as_f64();
    assert!(area > Some(0.2), "{area:?}");
    let streams = rows(&report, "streams");
    assert!(streams.iter().any(|row| row["policy"] == "vCache rule 1%"));
    let default = streams
        .iter()
        .find(|row| row["policy"] == "default")
        .unwrap();
    assert_eq!(default["windows"].as_array().unwrap().len(), 20);
    assert!(default["lookup"]["p99_us"].as_f64() > Some(0.0));
    assert!(default["stages"]["search"]["p50_us"].as_f64() > Some(0.0));
    let page = fs::read_to_string(page).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.matches("<svg").count() >= 4);
    assert!(!page.contains("http://") || page.contains("http://www.w3.org"));
}

/// Pairs of many subjects: two wordings of one question, and another question about the same.
fn some_pairs() -> String {
    let mut text = String::new();
    for i in 0..400 {
        let a = format!("how do I change my plan number {i}");
        let b = format!("how can I change my plan number {i}");
        let c = format!("why was the plan lost before day {i}");
        for (other, label) in [(&b, 1), (&c, 0)] {
            text += &format!("{}\n", json!({ "a": a, "b": other, "label": label }));
        }
    }
    text
}

#[test]
fn cut_offs_are_chosen_on_one_part_and_judged_on_another() {
    let data = file(&some_pairs());
    let report = told(&[
        "bench",
        "quality",
        "--json",
        "--no-streams",
        "--data",
        data.path().to_str().unwrap(),
    ]);
    let set = &rows(&report, "sets")[0];
    assert_eq!(set["order"], "pairs");
    let (judged, chosen) = (set["decisions"].as_u64(), set["calibration"].as_u64());
    assert!(judged > Some(50) && chosen > Some(50), "{set}");
    let policies: Vec<_> = rows(&report, "rows")
        .iter()
        .filter_map(|row| row["policy"].as_str())
        .collect();
    assert!(
        policies
            .iter()
            .any(|policy| policy.starts_with("best static"))
    );
    let promises = &rows(&report, "promises")[0]["promises"];
    let promised: Vec<_> = promises
        .as_array()
        .unwrap()
        .iter()
        .map(|promise| {
            let number = |field: &str| promise[field].as_f64().unwrap();
            (number("promised"), number("confidence"))
        })
        .collect();
    let rates = [0.005, 0.01, 0.02, 0.05];
    let expected: Vec<_> = [0.0, 0.95]
        .into_iter()
        .flat_map(|confidence| rates.map(|rate| (rate, confidence)))
        .collect();
    assert_eq!(promised, expected);
}

#[test]
fn what_cannot_be_run_is_refused_before_anything_long_begins() {
    assert!(refusal(&["bench", "quality", "--policy", "nothing.json"]).contains("nothing.json"));
    assert!(refusal(&["bench", "quality", "--embedder", "magic"]).contains("magic"));
    let bad = file("{\"a\": \"x\"}\n");
    let path = bad.path().to_str().unwrap();
    assert!(refusal(&["bench", "quality", "--data", path]).contains(":1: missing field"));
}

#[test]
fn a_log_is_replayed_under_other_settings() {
    let candidate = |similarity: f64, right: bool| {
        json!({
            "entry": "0000000000000007",
            "evidence": { "similarity": similarity },
            "right": right,
        })
    };
    let row = |similarity, right, served: Option<&str>| json!({ "candidates": [candidate(similarity, right)], "served": served });
    let log = [
        row(0.99, true, Some("0000000000000007")),
        row(0.93, false, None),
        row(0.20, false, None),
    ];
    let log: String = log.iter().map(|row| format!("{row}\n")).collect();
    let log = file(&log);
    let path = log.path().to_str().unwrap();
    let replays = told(&[
        "replay",
        path,
        "--json",
        "--policy",
        "threshold:0.9",
        "--policy",
        "exact_only",
    ]);
    let hits = |i: usize| {
        let replay = &replays[i];
        (replay["hits"].clone(), replay["known_wrong"].clone())
    };
    assert_eq!(hits(0), (json!(1), json!(0)));
    assert_eq!(hits(1), (json!(2), json!(1)));
    assert_eq!(hits(2), (json!(0), json!(0)));
    assert_eq!(replays[2]["lost_hits"], 1);
    let words = askonce(&["replay", path]);
    assert!(String::from_utf8_lossy(&words.stdout).contains("as logged"));
    assert!(refusal(&["replay", "nowhere.jsonl"]).contains("nowhere.jsonl"));
}
