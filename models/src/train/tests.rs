use std::collections::BTreeSet;

use super::*;

/// Two wordings of each question, among them words that mean nothing to the built-in table.
const QUESTIONS: [[&str; 2]; 12] = [
    [
        "reset the frobnicator",
        "bring the frobnicator back to factory state",
    ],
    ["where is my parcel", "track a delivery"],
    ["cancel my plan", "stop the subscription"],
    ["change the card on file", "update how I pay"],
    ["the app will not open", "it crashes when I start it"],
    ["add a colleague", "invite someone to the workspace"],
    ["export all rows", "download everything as a sheet"],
    ["turn off the mails", "unsubscribe from notifications"],
    [
        "which plan is the cheapest",
        "what does the smallest tier cost",
    ],
    ["delete my account", "erase my data for good"],
    ["raise the quota", "I need more space"],
    ["open a ticket", "talk to a person"],
];

/// Frames around each question, which say nothing.
const FRAMES: [&str; 8] = [
    "{}",
    "please {}",
    "hello, {}",
    "{} today",
    "how can I {}",
    "I want this: {}",
    "{}, if possible",
    "quick one: {}",
];

/// Every question against its other wording, and against the next question, in some of the frames. A group
/// per frame.
fn pairs(frames: std::ops::Range<usize>) -> Vec<(String, String, bool, u64)> {
    let mut pairs = Vec::new();
    for frame in frames {
        let framed = |text: &str| FRAMES[frame].replace("{}", text);
        for (at, [one, other]) in QUESTIONS.iter().enumerate() {
            let next = QUESTIONS[(at + 1) % QUESTIONS.len()][frame % 2];
            pairs.push((framed(one), framed(other), true, frame as u64));
            pairs.push((framed(one), framed(next), false, frame as u64));
        }
    }
    pairs
}

fn borrowed(pairs: &[(String, String, bool, u64)]) -> Vec<Pair<'_>> {
    pairs
        .iter()
        .map(|(a, b, same, group)| Pair {
            a,
            b,
            same: *same,
            group: *group,
        })
        .collect()
}

fn settings() -> TrainSettings {
    TrainSettings {
        epochs: 6,
        batch: 32,
        ..TrainSettings::default()
    }
}

fn trained(settings: &TrainSettings) -> Trained {
    let (train, held_out) = (pairs(0..5), pairs(5..8));
    let base = StaticEmbedder::builtin();
    let silent = |_| ();
    fine_tune(
        &base,
        &borrowed(&train),
        &borrowed(&held_out),
        settings,
        silent,
    )
    .unwrap()
}

#[test]
fn training_raises_the_area_on_pairs_it_did_not_see() {
    let found = trained(&settings());
    let report = &found.report;
    assert!(report.holds());
    assert!(report.gain.low > 0.0, "{report:?}");
    assert!(report.after.auc > report.before.auc + 0.02, "{report:?}");
    assert_eq!(
        (report.pairs, report.held_out, report.unusable),
        (120, 72, 0)
    );
}

#[test]
fn a_trained_table_has_a_fingerprint_of_its_own_and_survives_its_file() {
    let found = trained(&settings());
    let base = StaticEmbedder::builtin();
    assert_ne!(found.report.to, found.report.from);
    assert_eq!(found.report.from, base.id().fingerprint());
    assert_eq!(found.embedder.id().name(), "static-128-tuned");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table.bin");
    std::fs::write(&path, &found.file).unwrap();
    let read = StaticEmbedder::open(&path).unwrap();
    assert_eq!(read.id(), found.embedder.id());
    let text = ["where is the frobnicator"];
    assert_eq!(
        read.embed_sync(&text).unwrap(),
        found.embedder.embed_sync(&text).unwrap()
    );
    // What the self-test should find is in the file.
    let tested = read.self_test().unwrap();
    assert!(tested.passes(), "{tested:?}");
    assert_ne!(tested.found, base.self_test().unwrap().found);
    // Trained again, it keeps one suffix.
    let rows: Vec<i8> = (0..read.rows() as u32)
        .flat_map(|row| read.row(row))
        .collect();
    let again = StaticEmbedder::from_bytes(read.with_rows(&rows).unwrap(), "again").unwrap();
    assert_eq!(again.id(), read.id());
}

#[test]
fn words_that_no_pair_has_stay_as_they_were() {
    let found = trained(&settings());
    let base = StaticEmbedder::builtin();
    let train = pairs(0..5);
    let seen: BTreeSet<u32> = Examples::new(&base, &borrowed(&train))
        .rows
        .into_iter()
        .collect();
    for row in 0..base.rows() as u32 {
        if !seen.contains(&row) {
            assert!(base.row(row).eq(found.embedder.row(row)), "row {row}");
        }
    }
    let changed = found.report.rows_changed.unwrap();
    assert!(changed <= seen.len());
    assert!(changed > seen.len() / 2);
}

#[test]
fn the_same_seed_gives_the_same_table_and_another_seed_another() {
    let with = |seed| {
        trained(&TrainSettings {
            seed,
            epochs: 1,
            ..settings()
        })
        .file
    };
    assert_eq!(with(1), with(1));
    assert_ne!(with(1), with(2));
}

#[test]
fn progress_counts_every_step_and_losses_fall() {
    let (train, held_out) = (pairs(0..5), pairs(5..8));
    let mut seen = Vec::new();
    let each = |progress: Progress| seen.push(progress);
    let base = StaticEmbedder::builtin();
    fine_tune(
        &base,
        &borrowed(&train),
        &borrowed(&held_out),
        &settings(),
        each,
    )
    .unwrap();
    assert_eq!(seen.len(), 6 * 4);
    assert!(
        seen.iter()
            .enumerate()
            .all(|(at, p)| p.step == at + 1 && p.steps == 24)
    );
    let sum = |part: &[Progress]| {
        part.iter()
            .map(|p| p.pair_loss + p.softmax_loss)
            .sum::<f32>()
    };
    assert!(sum(&seen[20..]) < 0.8 * sum(&seen[..4]));
}

#[test]
fn labels_turned_around_do_not_hold() {
    let mut train = pairs(0..5);
    for pair in &mut train {
        pair.2 = !pair.2;
    }
    let held_out = pairs(5..8);
    let base = StaticEmbedder::builtin();
    let found = fine_tune(
        &base,
        &borrowed(&train),
        &borrowed(&held_out),
        &settings(),
        |_| (),
    )
    .unwrap();
    assert!(!found.report.holds());
    assert!(found.report.gain.high < 0.0, "{:?}", found.report);
}

#[test]
fn what_cannot_be_trained_on_is_refused() {
    let base = StaticEmbedder::builtin();
    let (train, held_out) = (pairs(0..5), pairs(5..8));
    let fit = |train: &[Pair<'_>], held_out: &[Pair<'_>], settings: &TrainSettings| {
        fine_tune(&base, train, held_out, settings, |_| ()).unwrap_err()
    };
    let (train, held_out) = (borrowed(&train), borrowed(&held_out));
    assert!(matches!(
        fit(&train, &train, &settings()),
        TrainError::SharedTexts { texts: 120 }
    ));
    let few = fit(&train, &held_out[..30], &settings());
    assert_eq!(
        few.to_string(),
        "15 held-out pairs are labelled true, at least 20 are needed: add 5"
    );
    let negatives: Vec<_> = train.iter().copied().filter(|pair| !pair.same).collect();
    assert!(matches!(
        fit(&negatives, &held_out, &settings()),
        TrainError::OneLabel {
            part: "training",
            label: false,
            pairs: 60
        }
    ));
    for (field, wrong) in [
        (
            "epochs",
            TrainSettings {
                epochs: 0,
                ..settings()
            },
        ),
        (
            "batch",
            TrainSettings {
                batch: 1,
                ..settings()
            },
        ),
        (
            "rate",
            TrainSettings {
                rate: 0.0,
                ..settings()
            },
        ),
        (
            "anchor",
            TrainSettings {
                anchor: f32::NAN,
                ..settings()
            },
        ),
        (
            "dropout",
            TrainSettings {
                dropout: 0.6,
                ..settings()
            },
        ),
        (
            "softmax_weight",
            TrainSettings {
                softmax_weight: -1.0,
                ..settings()
            },
        ),
    ] {
        let error = fit(&train, &held_out, &wrong);
        assert!(error.to_string().contains(field), "{error}");
    }
}

#[test]
fn texts_without_words_are_counted_and_left_out() {
    let base = StaticEmbedder::builtin();
    let mut train = pairs(0..5);
    train.push(("  ".to_owned(), "hello".to_owned(), false, 9));
    let held_out = pairs(5..8);
    let settings = TrainSettings {
        epochs: 1,
        ..settings()
    };
    let found = fine_tune(
        &base,
        &borrowed(&train),
        &borrowed(&held_out),
        &settings,
        |_| (),
    )
    .unwrap();
    assert_eq!((found.report.pairs, found.report.unusable), (120, 1));
}
