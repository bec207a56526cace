//! The transformer through its public API: near the reference's answers, and what always holds.
//!
//! The weights are in the repository and not in the published archive: without them the tests say
//! that they skip, except that a checkout of the repository must have them.

use std::path::{Path, PathBuf};

use askonce_models::{Embedder, EmbedderHandle, MiniLm, ModelError};
use proptest::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    text: String,
    row: Vec<f32>,
}

/// Rows of the f32 model with the same adapter.
fn golden() -> Vec<Golden> {
    let lines = include_str!("golden/minilm_l6.jsonl").lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/minilm-l6-int8.bin")
}

/// The model, once for all tests. None in the published archive.
fn model() -> Option<&'static MiniLm> {
    static MODEL: std::sync::OnceLock<Option<MiniLm>> = std::sync::OnceLock::new();
    let model = MODEL.get_or_init(|| {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("training");
        (file().exists() || repository.exists()).then(|| MiniLm::open(file()).unwrap())
    });
    if model.is_none() {
        eprintln!("skipped: {} is not here", file().display());
    }
    model.as_ref()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(&a, &b)| f64::from(a) * f64::from(b))
            .sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn similarity(model: &MiniLm, a: &str, b: &str) -> f64 {
    let rows = model.embed_sync(&[a, b]).unwrap();
    let (a, b) = rows.split_at(model.dimension());
    cosine(a, b)
}

#[test]
fn rows_are_near_those_of_the_model_in_f32() {
    let Some(model) = model() else { return };
    let golden = golden();
    assert!(golden.len() > 30);
    let mut cosines: Vec<(f64, String)> = golden
        .into_iter()
        .map(|Golden { text, row }| {
            let found = model.embed_sync(&[&text]).unwrap();
            (cosine(&found, &row), text)
        })
        .collect();
    cosines.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mean = cosines.iter().map(|(cosine, _)| cosine).sum::<f64>() / cosines.len() as f64;
    println!("mean {mean:.5}, least {:?}", &cosines[..5]);
    // Rounding activations costs most where the text is one token.
    assert!(cosines[0].0 >= 0.97, "{:?}", &cosines[..3]);
    let near = cosines.iter().filter(|(cosine, _)| *cosine >= 0.99).count();
    assert!(10 * near >= 9 * cosines.len(), "{:?}", &cosines[..5]);
    assert!(mean >= 0.995, "{mean}");
}

#[test]
fn a_text_without_words_is_an_error_that_says_which() {
    let Some(model) = model() else { return };
    for blank in ["", " \t\n", "\u{200b}\u{ad}\u{301}", "\0\u{7}"] {
        match model.embed_sync(&["fine", blank]) {
            Err(ModelError::NoTokens {
                position: 1,
                model: name,
            }) => assert_eq!(name, model.id().to_string()),
            other => panic!("{blank:?}: {other:?}"),
        }
    }
    let mut out = vec![1.0];
    assert!(model.embed_one("", &mut out).is_err());
    assert_eq!(out, [1.0]);
}

#[test]
fn a_text_is_read_whole_or_refused() {
    let Some(model) = model() else { return };
    assert_eq!(model.max_tokens(), 256);
    let most = "word ".repeat(256);
    assert_eq!(model.embed_sync(&[&most]).unwrap().len(), 384);
    match model.embed_sync(&["fine", "fine", &format!("{most}more")]) {
        Err(ModelError::InputTooLong {
            position: 2, limit, ..
        }) => assert_eq!(limit, 256),
        other => panic!("{other:?}"),
    }
    // Reading stops at the limit.
    let start = std::time::Instant::now();
    assert!(model.embed_sync(&[&"word ".repeat(4 << 20)]).is_err());
    assert!(start.elapsed().as_secs() < 5);
}

#[test]
fn word_order_and_unknown_words_show() {
    let Some(model) = model() else { return };
    assert!(similarity(model, "dog bites man", "man bites dog") < 0.999);
    let near = similarity(
        model,
        "How do I reset my password?",
        "how can i change my password",
    );
    let far = similarity(
        model,
        "How do I reset my password?",
        "What is the capital of France?",
    );
    assert!(near > 0.8 && far < 0.4, "{near} {far}");
    for (a, b) in [
        ("what does \u{13000} mean", "what does \u{13001} mean"),
        (&*"x".repeat(150), &*"y".repeat(150)),
    ] {
        let found = similarity(model, a, b);
        assert!(found < 0.98, "{a:?} {b:?}: {found}");
    }
    assert!(similarity(model, "WHAT is it", "what is it") > 0.999_999);
}

#[tokio::test]
async fn every_way_to_ask_gives_the_same_bits() {
    let Some(model) = model() else { return };
    let texts = ["How do I reset my password?", "如何重置我的密码？"];
    let rows = model.embed_sync(&texts).unwrap();
    assert_eq!(model.embed(&texts).await.unwrap(), rows);

    let handle: EmbedderHandle = std::sync::Arc::new(model.clone());
    assert_eq!(handle.embed(&texts).await.unwrap(), rows);
    assert_eq!(handle.id(), model.id());
    assert_eq!(handle.dimension(), 384);
    assert!(model.embed_sync(&[]).unwrap().is_empty());

    let mut one = Vec::new();
    for text in texts {
        model.embed_one(text, &mut one).unwrap();
    }
    assert_eq!(one, rows);

    #[cfg(feature = "minilm-weights")]
    {
        let builtin = MiniLm::builtin();
        assert_eq!(builtin.id(), model.id());
        assert_eq!(builtin.embed_sync(&texts).unwrap(), rows);
    }
}

#[test]
fn rows_do_not_depend_on_their_company() {
    let Some(model) = model() else { return };
    let texts: Vec<String> = golden().into_iter().map(|golden| golden.text).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let together = model.embed_sync(&texts).unwrap();
    let backwards: Vec<&str> = texts.iter().rev().copied().collect();
    let backwards = model.embed_sync(&backwards).unwrap();
    let rows = together.chunks(384).zip(backwards.chunks(384).rev());
    for ((together, backwards), text) in rows.zip(&texts) {
        let alone = model.embed_sync(&[text]).unwrap();
        assert_eq!(together, alone, "{text:?}");
        assert_eq!(backwards, alone, "{text:?}");
    }
}

#[test]
fn the_id_names_the_weights_and_the_card_describes_them() {
    let Some(model) = model() else { return };
    let id = model.id().to_string();
    let (name, revision) = id.split_once('@').unwrap();
    assert_eq!(name, "minilm-l6");
    assert_eq!(revision.len(), 12);
    assert_eq!(model.id().pooling(), "mean");
    let card = include_str!("../assets/minilm-l6-int8.md");
    assert!(
        card.contains(&format!("`{id}`")),
        "the card describes another model than {id}"
    );
}

#[test]
fn the_weights_pass_their_self_test() {
    let Some(model) = model() else { return };
    let tested = model.self_test().unwrap();
    assert!(tested.passes(), "{tested:?}");
}

#[test]
fn a_damaged_file_is_refused_wherever_the_damage_is() {
    if model().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.bin");
    let good = std::fs::read(file()).unwrap();
    let refused = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        match MiniLm::open(&path) {
            Err(ModelError::BadWeights { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    };
    for at in [0, 20, 130, good.len() / 2, good.len() - 40, good.len() - 1] {
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
    let absent = MiniLm::open(folder.path().join("absent.bin"));
    assert!(matches!(absent, Err(ModelError::UnreadableWeights { .. })));
}

/// Headers and weights that lie, under a checksum that holds.
#[test]
fn a_consistent_checksum_does_not_excuse_an_inconsistent_file() {
    if model().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.bin");
    let good = std::fs::read(file()).unwrap();
    for (name, at, value) in [
        ("header length", 12, 64),
        ("tokens, too many", 16, u32::MAX),
        ("tokens, too few", 16, 30_521),
        ("width 0", 20, 0),
        ("width, too large", 20, u32::MAX),
        ("width, odd", 20, 383),
        ("layers, too many", 24, 7),
        ("layers, none", 24, 0),
        ("heads", 28, 6),
        ("inner width, other", 32, 1504),
        ("inner width, too large", 32, u32::MAX),
        ("positions, too many", 36, 8000),
        ("positions, none", 36, 2),
        ("flags", 40, 3),
        ("unknown token", 44, 30_522),
        ("start token", 48, 30_522),
        ("end token", 52, u32::MAX),
        ("first hashed row", 56, u32::MAX),
        ("no hashed rows", 60, 0),
        ("hashed rows past the end", 60, 30_522),
        ("scale of the first word", 128, f32::NAN.to_bits()),
        ("scale of the second word", 132, f32::INFINITY.to_bits()),
    ] {
        let mut bytes = good.clone();
        bytes[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
        let end = bytes.len() - 32;
        let checksum = blake3::hash(&bytes[..end]);
        bytes[end..].copy_from_slice(checksum.as_bytes());
        std::fs::write(&path, bytes).unwrap();
        let opened = MiniLm::open(&path);
        assert!(
            matches!(opened, Err(ModelError::BadWeights { .. })),
            "{name}: {opened:?}"
        );
    }
}

/// Any string, and strings that are hard: marks, controls, scripts, long words.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        ("[a-z ]{1,40}").prop_map(String::from),
        ("[a-zé中 ]{1,3}", 30usize..150).prop_map(|(unit, times)| unit.repeat(times)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn rows_are_finite_and_of_unit_length_or_the_text_is_refused(text in text()) {
        let Some(model) = model() else { return Ok(()) };
        match model.embed_sync(&[&text]) {
            Ok(row) => {
                prop_assert_eq!(row.len(), 384);
                prop_assert!(row.iter().all(|value| value.is_finite()));
                let square: f64 = row.iter().map(|&value| f64::from(value).powi(2)).sum();
                prop_assert!((square.sqrt() - 1.0).abs() < 1e-6);
            }
            Err(ModelError::NoTokens { position: 0, .. }) => {}
            Err(ModelError::InputTooLong { position: 0, limit: 256, .. }) => {}
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        }
    }
}
