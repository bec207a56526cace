use std::path::PathBuf;

use super::*;

/// Twenty questions in two wordings, of which the second is jargon that no model can know.
const QUESTIONS: [[&str; 2]; 20] = [
    ["reset the modem", "zorp the fluxbox"],
    ["track a parcel", "quib the brown one"],
    ["cancel my plan", "snip the ribbon"],
    ["change the card on file", "swap the gold leaf"],
    ["the app will not open", "the door is frozen"],
    ["add a colleague", "seat a new knight"],
    ["export all rows", "pour out the bucket"],
    ["turn off the mails", "hush the pigeons"],
    ["which plan is the cheapest", "smallest ribbon of all"],
    ["delete my account", "burn the castle"],
    ["raise the quota", "a wider moat please"],
    ["open a ticket", "ring the long bell"],
    ["pay the invoice", "feed the dragon"],
    ["see the last login", "who crossed the bridge"],
    ["print the report", "ink the scroll"],
    ["share a folder", "lend the chest"],
    ["restore a backup", "wake the old king"],
    ["rename the project", "paint the shield anew"],
    ["mute the chat", "quiet in the hall"],
    ["connect a printer", "chain the scribe"],
];

const FRAMES: [&str; 6] = [
    "{}",
    "please {}",
    "hello, {}",
    "{} today",
    "I want this: {}",
    "quick one: {}",
];

type Owned = (String, String, bool, u64);

/// Every question with its other wording, and with the other wording of another question.
fn pairs(frames: std::ops::Range<usize>) -> Vec<Owned> {
    let mut pairs = Vec::new();
    for frame in frames {
        let framed = |text: &str| FRAMES[frame].replace("{}", text);
        for (at, [one, other]) in QUESTIONS.iter().enumerate() {
            let away = QUESTIONS[(at + 1 + frame) % QUESTIONS.len()][1];
            pairs.push((framed(one), framed(other), true, frame as u64));
            pairs.push((framed(one), framed(away), false, frame as u64));
        }
    }
    pairs
}

fn borrowed(pairs: &[Owned]) -> Vec<Pair<'_>> {
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

fn weights() -> PathBuf {
    PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/assets/minilm-l6-int8.bin"
    ))
}

/// None in the published archive.
fn model() -> Option<MiniLm> {
    if !weights().exists() {
        eprintln!("SKIPPED: {} is not here", weights().display());
        return None;
    }
    Some(MiniLm::open(weights()).unwrap())
}

fn settings() -> AdapterSettings {
    AdapterSettings::default()
}

fn trained(base: &MiniLm, settings: &AdapterSettings) -> TrainedAdapter {
    let (train, held_out) = (pairs(0..4), pairs(4..6));
    let (train, held_out) = (borrowed(&train), borrowed(&held_out));
    fit_adapter(base, &train, &held_out, settings, |_| ()).unwrap()
}

#[test]
fn training_raises_the_area_on_pairs_it_did_not_see_from_either_start() {
    let Some(base) = model() else { return };
    for start in [Start::Own, Start::Identity] {
        let found = trained(
            &base,
            &AdapterSettings {
                start,
                ..settings()
            },
        );
        let report = &found.report;
        assert!(report.holds());
        assert!(report.gain.low > 0.0, "{report:?}");
        assert!(report.after.auc > report.before.auc + 0.05, "{report:?}");
        assert_eq!((report.pairs, report.held_out), (160, 80));
        assert_eq!(report.rows_changed, None);
    }
}

#[test]
fn an_adapter_survives_its_file_and_is_a_model_of_its_own() {
    let Some(base) = model() else { return };
    let found = trained(&base, &settings());
    assert_eq!(found.report.from, base.id().fingerprint());
    assert_ne!(found.report.to, found.report.from);
    assert_eq!(found.embedder.id().name(), "minilm-l6-tuned");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("adapter.bin");
    std::fs::write(&path, &found.file).unwrap();
    let read = base.with_adapter(&path).unwrap();
    assert_eq!(read.id(), found.embedder.id());
    let text = ["please zorp the fluxbox"];
    let rows = read.embed_sync(&text).unwrap();
    assert_eq!(rows, found.embedder.embed_sync(&text).unwrap());
    assert_ne!(rows, base.embed_sync(&text).unwrap());
    let tested = read.self_test().unwrap();
    assert!(tested.passes(), "{tested:?}");
    assert_ne!(tested.found, base.self_test().unwrap().found);

    // What was reported is what the model does.
    let held_out = pairs(4..6);
    let cosines: Vec<f32> = held_out
        .iter()
        .map(|(a, b, ..)| {
            let rows = read.embed_sync(&[a, b]).unwrap();
            let (a, b) = rows.split_at(384);
            a.iter().zip(b).map(|(a, b)| a * b).sum()
        })
        .collect();
    let labels: Vec<bool> = held_out.iter().map(|pair| pair.2).collect();
    let auc = Quality::of(&cosines, &labels).auc;
    assert!((auc - found.report.after.auc).abs() < 1e-3, "{auc}");

    // Trained once more from there, it starts from there.
    let once_more = AdapterSettings {
        epochs: 1,
        ..settings()
    };
    let again = trained(&read, &once_more);
    assert_eq!(again.report.from, found.report.to);
    assert_eq!(again.report.before.auc, found.report.after.auc);
    assert_eq!(again.embedder.id().name(), "minilm-l6-tuned");
}

#[test]
fn a_damaged_or_foreign_adapter_is_refused() {
    let Some(base) = model() else { return };
    let identity = base.bare().adapter().to_vec();
    let good = base.adapter_file(identity).unwrap();
    assert!(base.with_trained(&good).is_ok());
    let refused = |file: &[u8]| base.with_trained(file).unwrap_err().to_string();
    for at in [9, 13, 17, 25, 40, 70, good.len() / 2, good.len() - 1] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        refused(&bytes);
    }
    for length in [0, 7, 8, 12, 31, 63, 64, 96, good.len() - 1] {
        refused(&good[..length]);
    }
    assert!(refused(b"askemb\r\n").contains("does not begin like an adapter"));

    // Under a checksum that holds.
    let changed = |at: usize, bytes: &[u8]| {
        let mut file = good[..good.len() - 32].to_vec();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        let checksum = blake3::hash(&file);
        file.extend_from_slice(checksum.as_bytes());
        refused(&file)
    };
    let newer = changed(8, &2_u32.to_le_bytes());
    assert!(newer.contains("version 2"), "{newer}");
    let foreign = changed(32, &[7; 32]);
    assert!(
        foreign.contains("checksum 070707070707, and this one's is 990ba2f6369c"),
        "{foreign}"
    );
    assert!(changed(12, &128_u32.to_le_bytes()).contains("width"));
    assert!(changed(64, &f32::NAN.to_le_bytes()).contains("not finite"));
    assert!(changed(16, &f32::INFINITY.to_le_bytes()).contains("not finite"));
    let absent = base.with_adapter("absent.bin").unwrap_err();
    assert!(matches!(
        absent,
        crate::ModelError::UnreadableWeights { .. }
    ));
}

#[test]
fn the_same_seed_gives_the_same_adapter_and_another_seed_another() {
    let Some(base) = model() else { return };
    let with = |seed| {
        let settings = AdapterSettings {
            seed,
            epochs: 1,
            ..settings()
        };
        trained(&base, &settings).file
    };
    assert_eq!(with(1), with(1));
    assert_ne!(with(1), with(2));
}

#[test]
fn progress_counts_texts_then_steps_and_losses_fall() {
    let Some(base) = model() else { return };
    let (train, held_out) = (pairs(0..4), pairs(4..6));
    let (mut texts, mut losses) = (Vec::new(), Vec::new());
    let (train, held_out) = (borrowed(&train), borrowed(&held_out));
    fit_adapter(&base, &train, &held_out, &settings(), |at| match at {
        AdapterProgress::Embedding { texts: done, of } => texts.push((done, of)),
        AdapterProgress::Training { step, steps, loss } => {
            assert_eq!((step, steps), (losses.len() + 1, 8 * 5));
            losses.push(loss);
        }
    })
    .unwrap();
    assert!(texts.is_sorted());
    // Each text once, in however many pairs it is.
    assert_eq!(texts.last(), Some(&(6 * 40, 6 * 40)));
    let sum = |part: &[f32]| part.iter().sum::<f32>();
    assert!(sum(&losses[35..]) < 0.8 * sum(&losses[..5]), "{losses:?}");
}

#[test]
fn few_pairs_take_smaller_batches() {
    let batches = [40, 2_000, 16_384, 70_000].map(|pairs| settings().batch_of(pairs));
    assert_eq!(batches, [32, 62, 512, 512]);
    let small = AdapterSettings {
        batch: 8,
        ..settings()
    };
    assert_eq!(small.batch_of(2_000), 8);
}

#[test]
fn labels_turned_around_do_not_hold() {
    let Some(base) = model() else { return };
    let mut train = pairs(0..4);
    for pair in &mut train {
        pair.2 = !pair.2;
    }
    let held_out = pairs(4..6);
    let (train, held_out) = (borrowed(&train), borrowed(&held_out));
    let found = fit_adapter(&base, &train, &held_out, &settings(), |_| ()).unwrap();
    assert!(!found.report.holds(), "{:?}", found.report);
}

#[test]
fn what_cannot_be_trained_on_is_refused_before_anything_is_embedded() {
    let Some(base) = model() else { return };
    let (train, held_out) = (pairs(0..4), pairs(4..6));
    let (train, held_out) = (borrowed(&train), borrowed(&held_out));
    let fit = |train: &[Pair<'_>], held_out: &[Pair<'_>], settings: &AdapterSettings| {
        let embedded = |at| panic!("{at:?}");
        fit_adapter(&base, train, held_out, settings, embedded)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        fit(&train[..30], &held_out, &settings()),
        "15 training pairs are labelled true, at least 20 are needed: add 5"
    );
    let few = fit(&train, &held_out[..30], &settings());
    assert!(few.contains("15 held-out pairs"), "{few}");
    let positives: Vec<_> = train.iter().copied().filter(|pair| pair.same).collect();
    let one = fit(&positives, &held_out, &settings());
    assert!(
        one.starts_with(
            "all 80 training pairs are labelled true: add pairs that are labelled false"
        ),
        "{one}"
    );
    let shared = fit(&train, &train, &settings());
    assert!(shared.starts_with("160 texts are in training"), "{shared}");
    let wrong = |change: fn(&mut AdapterSettings)| {
        let mut settings = settings();
        change(&mut settings);
        fit(&train, &held_out, &settings)
    };
    assert!(wrong(|settings| settings.epochs = 0).contains("epochs"));
    assert!(wrong(|settings| settings.batch = 1).contains("batch"));
    assert!(wrong(|settings| settings.rate = f32::NAN).contains("rate"));
    assert!(wrong(|settings| settings.decay = -1.0).contains("decay"));
    assert!(wrong(|settings| settings.noise = 2.0).contains("noise"));
}

#[test]
fn texts_that_cannot_be_embedded_are_counted_and_left_out() {
    let Some(base) = model() else { return };
    let mut train = pairs(0..4);
    train.push(("  ".to_owned(), "hello".to_owned(), false, 9));
    train.push(("word ".repeat(300), "hello".to_owned(), true, 9));
    let held_out = pairs(4..6);
    let settings = AdapterSettings {
        epochs: 1,
        ..settings()
    };
    let (train, held_out) = (borrowed(&train), borrowed(&held_out));
    let found = fit_adapter(&base, &train, &held_out, &settings, |_| ()).unwrap();
    assert_eq!((found.report.pairs, found.report.unusable), (160, 2));
}
