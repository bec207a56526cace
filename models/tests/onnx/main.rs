//! Models that a user brings, on tiny ones: `make_models.py` wrote them and says what they compute.

mod runtime;

use std::path::PathBuf;

use askonce_models::onnx::{Activation, CrossEncoderConfig, OnnxConfig, OnnxModel, Pooling};
use askonce_models::{CrossEncoder, ModelError, OnnxEmbedder};

fn file(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "onnx", name]
        .iter()
        .collect()
}

/// A model of these tests; `None` where there is nothing to run it.
fn model(name: &str) -> Option<OnnxModel> {
    let mut model = OnnxModel::new(file(name), file("tokenizer.json"));
    model.library = Some(runtime::library()?);
    model.max_tokens = 24;
    Some(model)
}

fn sentence(change: impl FnOnce(&mut OnnxConfig)) -> Option<Result<OnnxEmbedder, ModelError>> {
    let mut config = OnnxConfig::new(model("sentence.onnx")?);
    change(&mut config);
    Some(OnnxEmbedder::open(&config))
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn texts_of_one_topic_are_near_and_rows_have_unit_length() {
    let Some(embedder) = sentence(|_| {}) else {
        return;
    };
    let embedder = embedder.unwrap();
    assert_eq!(embedder.dimension(), 4);
    let texts = [
        "how do i reset my password",
        "forgot my login",
        "is the weather sunny today",
    ];
    let rows = embedder.embed_sync(&texts).unwrap();
    let rows: Vec<_> = rows.chunks_exact(4).collect();
    assert_eq!(rows.len(), 3);
    for row in &rows {
        assert!((cosine(row, row) - 1.0).abs() < 1e-6);
    }
    assert!(cosine(rows[0], rows[1]) > 0.9);
    assert!(cosine(rows[0], rows[2]) < 0.6);
    // The text before changes nothing.
    assert_eq!(embedder.embed_sync(&texts[2..]).unwrap(), rows[2]);
}

#[test]
fn the_mean_of_the_tokens_is_what_the_model_says_itself_and_the_first_token_is_not() {
    let text = ["reset the password"];
    let pooled = |pooling| {
        let embedder = sentence(|config| config.pooling = pooling)?.unwrap();
        Some((embedder.embed_sync(&text).unwrap(), embedder.id().clone()))
    };
    let Some((mean, mean_id)) = pooled(Pooling::Mean) else {
        return;
    };
    let (own, own_id) = pooled(Pooling::Model).unwrap();
    let (first, first_id) = pooled(Pooling::Cls).unwrap();
    assert!((cosine(&mean, &own) - 1.0).abs() < 1e-6);
    // Every text begins with the same token, of this direction.
    assert_eq!(first, [0.0, 0.0, 0.0, 1.0]);
    // Vectors of different pooling are never compared.
    assert_ne!(mean_id.fingerprint(), own_id.fingerprint());
    assert_ne!(mean_id.fingerprint(), first_id.fingerprint());
    assert_eq!(mean_id.revision(), own_id.revision());
}

/// The tokenizer's file says to pad to 16 tokens and to cut at 4.
#[test]
fn nothing_is_padded_nothing_is_cut_and_what_is_too_long_is_refused() {
    let Some(embedder) = sentence(|_| {}) else {
        return;
    };
    let embedder = embedder.unwrap();
    let embed = |text: &str| embedder.embed_sync(&[text]);
    let (near, far) = (
        embed("reset my password today").unwrap(),
        embed("reset my password today today today weather weather weather").unwrap(),
    );
    assert!(cosine(&near, &far) < 0.9, "{}", cosine(&near, &far));
    // [CLS] and [SEP] take two of 24.
    assert!(embed(&"rain ".repeat(22)).is_ok());
    let error = embed(&"rain ".repeat(23)).unwrap_err();
    let ModelError::InputTooLong { limit, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(limit, 24);
}

#[test]
fn a_text_of_unknown_words_has_no_vector() {
    let Some(embedder) = sentence(|config| config.prefix = "query: ".to_owned()) else {
        return;
    };
    let embedder = embedder.unwrap();
    for text in ["", "  ", "qwertz", "qwertz uiop"] {
        let error = embedder.embed_sync(&["rain", text]).unwrap_err();
        assert!(
            matches!(error, ModelError::NoTokens { position: 1, .. }),
            "{error}"
        );
    }
    embedder.embed_sync(&["qwertz rain"]).unwrap();
}

#[test]
fn a_prefix_is_put_before_each_text_and_is_part_of_the_id() {
    let Some(plain) = sentence(|_| {}) else {
        return;
    };
    let plain = plain.unwrap();
    let prefixed = sentence(|config| config.prefix = "query: ".to_owned());
    let prefixed = prefixed.unwrap().unwrap();
    assert_eq!(
        prefixed.embed_sync(&["rain"]).unwrap(),
        plain.embed_sync(&["query: rain"]).unwrap()
    );
    assert_ne!(prefixed.id().fingerprint(), plain.id().fingerprint());
}

#[test]
fn settings_that_do_not_fit_are_refused_by_name() {
    let Some(refused) = sentence(|config| config.model.max_tokens = 25) else {
        return;
    };
    // The table of positions ends at 24.
    let of = |result: Option<Result<OnnxEmbedder, ModelError>>| match result.unwrap() {
        Err(ModelError::Config { field, reason }) => (field, reason),
        other => panic!("{other:?}"),
    };
    let (field, reason) = of(Some(refused));
    assert_eq!(field, "max_tokens");
    assert!(reason.contains("does not read 25 tokens"), "{reason}");
    let (field, reason) = of(sentence(|config| config.output = Some("pooled".to_owned())));
    assert_eq!(field, "output");
    assert!(
        reason.contains("`last_hidden_state`, `sentence_embedding`"),
        "{reason}"
    );
    let wrong = |config: &mut OnnxConfig| config.output = Some("sentence_embedding".to_owned());
    let (field, reason) = of(sentence(wrong));
    assert_eq!(field, "pooling");
    assert!(reason.contains("model takes the vector"), "{reason}");
    for (field, zero) in [
        (
            "max_tokens",
            (|model| model.max_tokens = 0) as fn(&mut OnnxModel),
        ),
        ("threads", |model| model.threads = 0),
        ("sessions", |model| model.sessions = 0),
    ] {
        assert_eq!(of(sentence(|config| zero(&mut config.model))).0, field);
    }
    let (field, reason) = of(sentence(|config| {
        config.model.library = Some("no/such.so".into());
    }));
    assert_eq!(field, "library");
    assert!(reason.contains("no/such.so"), "{reason}");
    // Not a library at all. Whether one is loaded before depends on the order of the tests.
    let text = file("tokenizer.json");
    let (field, reason) = of(sentence(|config| config.model.library = Some(text)));
    assert_eq!(field, "library");
    assert!(
        reason.contains("cannot be loaded") || reason.contains("is loaded already"),
        "{reason}"
    );
}

#[test]
fn files_that_cannot_be_used_are_refused_by_name() {
    let Some(model) = model("fixed.onnx") else {
        return;
    };
    let refused = |path: PathBuf, tokenizer: PathBuf| {
        let mut model = model.clone();
        (model.path, model.tokenizer) = (path, tokenizer);
        OnnxEmbedder::open(&OnnxConfig::new(model)).unwrap_err()
    };
    let own = || file("tokenizer.json");
    for (name, says) in [
        (
            "fixed.onnx",
            "has a fixed length of 16: export the model with dynamic axes",
        ),
        ("image.onnx", "an input `pixel_values`"),
        ("tokenizer.json", "tokenizer.json"),
    ] {
        let error = refused(file(name), own());
        assert!(matches!(error, ModelError::BadWeights { .. }), "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
    let error = refused(file("half.onnx"), own());
    assert!(
        matches!(
            error,
            ModelError::Config {
                field: "output",
                ..
            }
        ),
        "{error}"
    );
    assert!(
        error.to_string().contains("no output of 32-bit floats"),
        "{error}"
    );
    for (path, tokenizer) in [
        ("none.onnx", "tokenizer.json"),
        ("sentence.onnx", "none.json"),
    ] {
        let error = refused(file(path), file(tokenizer));
        assert!(
            matches!(error, ModelError::UnreadableWeights { .. }),
            "{error}"
        );
        assert!(error.to_string().contains("none."), "{error}");
    }
    let error = refused(file("sentence.onnx"), file("sentence.onnx"));
    assert!(matches!(error, ModelError::BadWeights { .. }), "{error}");
}

#[test]
fn many_threads_share_the_sessions_and_get_the_same_rows() {
    let Some(embedder) = sentence(|config| config.model.sessions = 2) else {
        return;
    };
    let embedder = embedder.unwrap();
    assert_eq!(embedder.sessions(), 2);
    let expected = embedder.embed_sync(&["reset my password"]).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let row = embedder.embed_sync(&["reset my password"]).unwrap();
                    assert_eq!(row, expected);
                }
            });
        }
    });
}

fn pair(
    name: &str,
    change: impl FnOnce(&mut CrossEncoderConfig),
) -> Option<Result<CrossEncoder, ModelError>> {
    let mut config = CrossEncoderConfig::new(model(name)?);
    change(&mut config);
    Some(CrossEncoder::open(&config))
}

#[test]
fn a_cross_encoder_reads_two_texts_in_their_order() {
    let Some(one) = pair("pair.onnx", |_| {}) else {
        return;
    };
    let one = one.unwrap();
    let same = one
        .score("reset my password", "forgot the password")
        .unwrap();
    let other = one.score("reset my password", "sunny weather").unwrap();
    assert!(same > 0.7 && other < 0.3, "{same} {other}");
    assert_ne!(
        one.score("query rain", "weather").unwrap(),
        one.score("weather query", "how do i do").unwrap()
    );
    let too_long = one
        .score(&"rain ".repeat(11), &"rain ".repeat(11))
        .unwrap_err();
    assert!(
        matches!(too_long, ModelError::InputTooLong { .. }),
        "{too_long}"
    );
    let unknown = one.score("rain", "qwertz").unwrap_err();
    assert!(
        matches!(unknown, ModelError::NoTokens { position: 1, .. }),
        "{unknown}"
    );
}

#[test]
fn of_several_labels_the_one_that_means_yes_must_be_named() {
    let Some(unnamed) = pair("pair_of_three.onnx", |_| {}) else {
        return;
    };
    let field = |result: Result<CrossEncoder, ModelError>| match result.unwrap_err() {
        ModelError::Config { field, .. } => field,
        other => panic!("{other}"),
    };
    assert_eq!(field(unnamed), "label");
    let label = |label| pair("pair_of_three.onnx", |c| c.label = Some(label)).unwrap();
    assert_eq!(field(label(3)), "label");
    let texts = ("reset my password", "forgot the password");
    let shares: Vec<f64> = (0..3)
        .map(|i| label(i).unwrap().score(texts.0, texts.1).unwrap())
        .collect();
    assert!(
        (shares.iter().sum::<f64>() - 1.0).abs() < 1e-6,
        "{shares:?}"
    );
    assert!(shares[2] > shares[1] && shares[1] > shares[0], "{shares:?}");
    // The sigmoid of the same number is that of the model with one label.
    let alone = pair("pair.onnx", |_| {}).unwrap().unwrap();
    let sigmoid = pair("pair_of_three.onnx", |config| {
        (config.label, config.activation) = (Some(2), Some(Activation::Sigmoid));
    });
    let sigmoid = sigmoid.unwrap().unwrap();
    let difference =
        alone.score(texts.0, texts.1).unwrap() - sigmoid.score(texts.0, texts.1).unwrap();
    assert!(difference.abs() < 1e-9);
    assert_ne!(alone.id().fingerprint(), sigmoid.id().fingerprint());
    let pointless = pair("pair.onnx", |config| {
        config.activation = Some(Activation::Softmax);
    });
    assert_eq!(field(pointless.unwrap()), "activation");
    // A model of tokens is no model of pairs.
    let tokens = pair("sentence.onnx", |c| {
        c.output = Some("last_hidden_state".to_owned());
    });
    assert_eq!(field(tokens.unwrap()), "output");
}
