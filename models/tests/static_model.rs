//! The built-in table through its public API: the reference's answers, and what always holds.

use std::collections::HashMap;
use std::path::Path;

use askonce_models::static_model::MAX_TOKENS;
use askonce_models::{Embedder, EmbedderHandle, ModelError, StaticEmbedder};
use proptest::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    text: String,
    ids: Vec<u32>,
    sums: Option<Vec<i32>>,
}

/// Ids from the reference tokenizer and sums from the training side, for texts of many scripts.
fn golden() -> Vec<Golden> {
    let lines = include_str!("golden/static_128.jsonl").lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn table() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/static-128.bin")
}

fn cosine(a: &str, b: &str) -> f32 {
    let rows = StaticEmbedder::builtin().embed_sync(&[a, b]).unwrap();
    let (a, b) = rows.split_at(rows.len() / 2);
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn ids_and_sums_are_the_references() {
    let embedder = StaticEmbedder::builtin();
    let golden = golden();
    assert!(golden.len() > 60);
    for Golden { text, ids, sums } in golden {
        let mut found = Vec::new();
        embedder.wordpiece().tokenize(&text, &mut found);
        assert_eq!(found, ids, "{text:?}");
        assert_eq!(embedder.row_sums(&text).ok(), sums, "{text:?}");
    }
}

#[test]
fn a_text_without_words_is_an_error_that_says_which() {
    let embedder = StaticEmbedder::builtin();
    for blank in ["", " \t\n", "\u{200b}\u{ad}\u{301}", "\0\u{7}"] {
        match embedder.embed_sync(&["fine", blank]) {
            Err(ModelError::NoTokens { position: 1, model }) => {
                assert_eq!(model, embedder.id().to_string());
            }
            other => panic!("{blank:?}: {other:?}"),
        }
    }
}

#[test]
fn a_failed_call_leaves_the_output_as_it_was() {
    let mut out = vec![1.0];
    assert!(StaticEmbedder::builtin().embed_one("", &mut out).is_err());
    assert_eq!(out, [1.0]);
}

#[test]
fn a_text_is_read_whole_or_refused() {
    let embedder = StaticEmbedder::builtin();
    let most = "word ".repeat(MAX_TOKENS);
    assert_eq!(embedder.embed_sync(&[&most]).unwrap().len(), 128);
    match embedder.embed_sync(&["fine", "fine", &format!("{most}more")]) {
        Err(ModelError::InputTooLong {
            position: 2, limit, ..
        }) => assert_eq!(limit, MAX_TOKENS),
        other => panic!("{other:?}"),
    }
}

#[test]
fn texts_of_many_megabytes_neither_panic_nor_take_long() {
    let embedder = StaticEmbedder::builtin();
    let megabytes = 10 << 20;
    for (unit, embeds) in [
        ("word ", false),
        ("!", false),
        ("a", true),        // one word, too long to be spelled
        ("\u{301}", false), // marks only: nothing is left
        (" ", false),
        ("\u{4e2d}", false),
    ] {
        let text = unit.repeat(megabytes / unit.len());
        let start = std::time::Instant::now();
        assert_eq!(embedder.embed_sync(&[&text]).is_ok(), embeds, "{unit:?}");
        // Generous, for slow machines and unoptimised dependencies: quadratic time would be hours.
        assert!(start.elapsed().as_secs() < 20, "{unit:?}");
    }
}

#[test]
fn texts_that_differ_in_an_unknown_word_differ() {
    for (a, b) in [
        ("what does \u{13000} mean", "what does \u{13001} mean"),
        ("如何重置密码", "如何修改密码"),
        (&*"x".repeat(150), &*"y".repeat(150)),
    ] {
        assert!(cosine(a, b) < 0.95, "{a:?} {b:?}: {}", cosine(a, b));
    }
    assert!(cosine("what does \u{13000} mean", "What does \u{13000} mean") > 0.999_999);
}

#[test]
fn paraphrases_are_nearer_than_other_questions() {
    let near = cosine("How do I reset my password?", "how can i reset my password");
    let far = cosine(
        "How do I reset my password?",
        "What is the capital of France?",
    );
    assert!(near > 0.8 && far < 0.4, "{near} {far}");
}

#[tokio::test]
async fn every_way_to_ask_gives_the_same_bits() {
    let embedder = StaticEmbedder::builtin();
    let texts = ["How do I reset my password?", "如何重置我的密码？"];
    let rows = embedder.embed_sync(&texts).unwrap();
    assert_eq!(embedder.embed(&texts).await.unwrap(), rows);

    let handle: EmbedderHandle = std::sync::Arc::new(embedder.clone());
    assert_eq!(handle.embed(&texts).await.unwrap(), rows);
    assert_eq!(handle.id(), embedder.id());
    assert_eq!(handle.dimension(), 128);

    let opened = StaticEmbedder::open(table()).unwrap();
    assert_eq!(opened.embed_sync(&texts).unwrap(), rows);
    assert_eq!(opened.id(), embedder.id());
    assert!(embedder.embed_sync(&[]).unwrap().is_empty());
}

#[test]
fn the_id_names_the_weights() {
    let id = StaticEmbedder::builtin().id().to_string();
    let (name, revision) = id.split_once('@').unwrap();
    assert_eq!(name, "static-128");
    assert_eq!(revision.len(), 12);
    let card = include_str!("../assets/static-128.md");
    assert!(
        card.contains(&format!("`{id}`")),
        "the card describes another table than {id}"
    );
}

#[test]
fn a_damaged_file_is_refused_wherever_the_damage_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table.bin");
    let good = std::fs::read(table()).unwrap();
    let refused = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        match StaticEmbedder::open(&path) {
            Err(ModelError::BadWeights { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    };
    for at in [
        0,
        9,
        20,
        50,
        130,
        good.len() / 2,
        good.len() - 40,
        good.len() - 1,
    ] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        refused(&bytes);
    }
    for length in [0, 7, 8, 12, 31, 127, 128, 4096, good.len() - 1] {
        refused(&good[..length]);
    }
    let mut newer = good.clone();
    newer[8] = 2;
    assert!(refused(&newer).contains("version 2"));
    let absent = StaticEmbedder::open(folder.path().join("absent.bin"));
    assert!(matches!(absent, Err(ModelError::UnreadableWeights { .. })));
}

/// Headers that lie, under a checksum that holds.
#[test]
fn a_consistent_checksum_does_not_excuse_an_inconsistent_header() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table.bin");
    let good = std::fs::read(table()).unwrap();
    let fields = HashMap::from([
        ("header length", (12, 64)),
        ("tokens, too many", (16, u32::MAX)),
        ("tokens, too few", (16, 30_521)),
        ("dimension 0", (20, 0)),
        ("dimension, too large", (20, u32::MAX)),
        ("dimension, other", (20, 127)),
        ("scale", (24, f32::NAN.to_bits())),
        ("flags", (28, 3)),
        ("unknown token", (32, 30_522)),
        ("first hashed row", (44, u32::MAX)),
        ("no hashed rows", (48, 0)),
        ("hashed rows past the end", (48, 30_522)),
    ]);
    for (name, (at, value)) in fields {
        let mut bytes = good.clone();
        bytes[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
        let end = bytes.len() - 32;
        let checksum = blake3::hash(&bytes[..end]);
        bytes[end..].copy_from_slice(checksum.as_bytes());
        std::fs::write(&path, bytes).unwrap();
        let opened = StaticEmbedder::open(&path);
        assert!(
            matches!(opened, Err(ModelError::BadWeights { .. })),
            "{name}: {opened:?}"
        );
    }
}

/// Any string, and strings that are hard: marks, controls, scripts, very long words.
fn text() -> impl Strategy<Value = String> {
    let hard = prop::sample::select(vec![
        "a",
        "Z",
        "é",
        "e\u{301}",
        "\u{301}",
        "\0",
        "\u{85}",
        "\u{200d}",
        "\u{fffd}",
        "中",
        "한",
        "ß",
        "İ",
        "Σ",
        " ",
        "\u{3000}",
        "-",
        "_",
        "##",
        "[SEP]",
        "🙂",
        "\u{1d15e}",
        "\u{10ffff}",
        "antidisestablishmentarianism",
        "ﷺ",
        "\u{37e}",
        "ཱི",
    ]);
    prop_oneof![
        any::<String>(),
        prop::collection::vec(hard, 0..60).prop_map(|parts| parts.concat()),
        ("[a-zé]{1,3}", 30usize..150).prop_map(|(unit, times)| unit.repeat(times)),
    ]
}

proptest! {
    #[test]
    fn no_text_makes_it_panic_and_ids_are_in_range(text in text()) {
        let embedder = StaticEmbedder::builtin();
        let mut ids = Vec::new();
        embedder.wordpiece().tokenize(&text, &mut ids);
        for id in ids {
            prop_assert!((id as usize) < embedder.wordpiece().vocabulary_len());
            prop_assert!(embedder.wordpiece().token(id).is_some());
        }
    }

    #[test]
    fn rows_have_unit_length_and_do_not_depend_on_their_company(
        texts in prop::collection::vec(text(), 1..8)
    ) {
        let embedder = StaticEmbedder::builtin();
        let mut singles = Vec::new();
        let mut kept = Vec::new();
        for text in &texts {
            match embedder.embed_one(text, &mut singles) {
                Ok(()) => kept.push(&**text),
                Err(ModelError::NoTokens { .. }) => {}
                Err(error) => return Err(TestCaseError::fail(error.to_string())),
            }
        }
        let batch = embedder.embed_sync(&kept).unwrap();
        prop_assert_eq!(batch.len(), kept.len() * embedder.dimension());
        let bits = |rows: &[f32]| rows.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&batch), bits(&singles));
        for row in batch.chunks(embedder.dimension()) {
            let square: f64 = row.iter().map(|&value| f64::from(value).powi(2)).sum();
            prop_assert!((square.sqrt() - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn words_between_spaces_are_tokenized_alike_alone_and_together(
        parts in prop::collection::vec(text(), 1..5)
    ) {
        let wordpiece = StaticEmbedder::builtin().wordpiece().clone();
        let (mut together, mut apart) = (Vec::new(), Vec::new());
        wordpiece.tokenize(&parts.join(" "), &mut together);
        for part in &parts {
            wordpiece.tokenize(part, &mut apart);
        }
        prop_assert_eq!(together, apart);
    }
}

#[test]
fn rows_of_near_words_are_nearer_than_those_of_far_ones() {
    let embedder = StaticEmbedder::builtin();
    let row = |word: &str| {
        let mut ids = Vec::new();
        embedder.wordpiece().tokenize(word, &mut ids);
        ids[0]
    };
    let (car, automobile, banana) = (row("car"), row("automobile"), row("banana"));
    assert_eq!(embedder.row_cosine(car, car), 1.0);
    assert!(embedder.row_cosine(car, automobile) > embedder.row_cosine(car, banana));
    assert_eq!(
        embedder.row_cosine(car, banana),
        embedder.row_cosine(banana, car)
    );
    // Outside the table nothing is near, and nothing is added.
    assert_eq!(embedder.row_cosine(car, u32::MAX), 0.0);
    let mut sums = vec![0; embedder.dimension()];
    embedder.add_row(u32::MAX, &mut sums);
    assert!(sums.iter().all(|&sum| sum == 0));
    embedder.add_row(car, &mut sums);
    assert_eq!(sums, embedder.row_sums("car").unwrap());
}

#[test]
fn the_built_in_table_passes_its_self_test() {
    let tested = StaticEmbedder::builtin().self_test().unwrap();
    assert!(tested.passes(), "{tested:?}");
}
