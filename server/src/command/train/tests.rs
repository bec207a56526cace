use std::path::PathBuf;
use std::time::Instant;

use askonce_models::MiniLm;
use askonce_models::train::{AdapterSettings, Pair, Quality, Start, TrainedAdapter, fit_adapter};

use super::parts::Parts;
use crate::quality::corpus::{self, Set};
use crate::quality::split::Part;

/// The pairs of a set that are to be reported on.
fn of_test(set: &Set) -> Vec<Pair<'_>> {
    let pairs = set.pairs_of(&[Part::Test]);
    let pair = |pair: &corpus::LabelledPair| Pair {
        a: set.texts.text(pair.a),
        b: set.texts.text(pair.b),
        same: pair.same,
        group: set.texts.group(pair.a),
    };
    pairs.iter().map(pair).collect()
}

/// What the table of `models/training/README.md` says of the adapter: trained from scratch on questions
/// as the shipped one was, and trained on a set of another kind, on pairs of both sets that nothing was fitted
/// on. Runs where the labelled data is: in `ASKONCE_DATA`, or beside the repository.
#[test]
#[ignore = "takes half an hour, and needs the labelled data"]
fn an_adapter_learns_questions_and_another_set_and_what_either_costs_the_other() {
    let folder = std::env::var_os("ASKONCE_DATA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data")),
        PathBuf::from,
    );
    let file = |name: &str| folder.join(format!("{name}.jsonl.gz"));
    let questions = ["qqp_pairs_natural", "qqp_pairs_balanced_extra"].map(file);
    let links = [file("qqp_positives_extra")];
    let others = [file("snips_slot_pairs_derived")];
    if questions
        .iter()
        .chain(&links)
        .chain(&others)
        .any(|file| !file.exists())
    {
        eprintln!("SKIPPED: no labelled data in {}", folder.display());
        return;
    }
    let questions = corpus::read_linked(&questions, &links).unwrap();
    let others = corpus::read(&others).unwrap();
    let question_pairs = Parts::of(&questions).pairs;
    let other_pairs = Parts::of(&others).pairs;
    let (question_test, other_test) = (of_test(&questions[0]), of_test(&others[0]));

    let shipped = MiniLm::builtin();
    let fit = |base: &MiniLm, pairs: &[Pair<'_>], test: &[Pair<'_>], start, rate| {
        let settings = AdapterSettings {
            start,
            rate,
            ..AdapterSettings::default()
        };
        let found = fit_adapter(base, pairs, test, &settings, |_| ()).unwrap();
        println!("{:?}: {:?}", settings, found.report);
        found
    };
    let show = |what: &str, [questions, others]: [Quality; 2]| {
        println!(
            "| {what} | {:.4} / {:.4} | {:.4} / {:.4} |",
            questions.auc, questions.average_precision, others.auc, others.average_precision
        );
    };
    let rate = AdapterSettings::default().rate;
    let on_both = |base: &MiniLm, pairs: &[Pair<'_>], start| -> [TrainedAdapter; 2] {
        [&question_test, &other_test].map(|test| fit(base, pairs, test, start, rate))
    };
    // A rate that moves nothing leaves the transformer without an adapter.
    let bare = fit(&shipped, &other_pairs, &other_test, Start::Identity, 1e-12).embedder;

    let before = Instant::now();
    let scratch = fit(&bare, &question_pairs, &question_test, Start::Own, rate);
    println!("{} pairs in {:?}", question_pairs.len(), before.elapsed());
    let from_bare = on_both(&bare, &other_pairs, Start::Own);
    let from_shipped = on_both(&shipped, &other_pairs, Start::Own);
    let from_scratch = fit(
        &scratch.embedder,
        &other_pairs,
        &other_test,
        Start::Own,
        rate,
    );

    println!("| adapter | questions | other |");
    show(
        "none",
        from_bare.each_ref().map(|found| found.report.before),
    );
    show(
        "shipped",
        from_shipped.each_ref().map(|found| found.report.before),
    );
    let scratch_on_both = [scratch.report.after, from_scratch.report.before];
    show("questions from scratch", scratch_on_both);
    show(
        "other from scratch",
        from_bare.each_ref().map(|found| found.report.after),
    );
    show(
        "shipped, then other",
        from_shipped.each_ref().map(|found| found.report.after),
    );

    assert!(scratch.report.gain.low > 0.0);
    assert!(scratch.report.after.auc > 0.89, "{:?}", scratch.report);
    assert!(from_shipped[1].report.gain.low > 0.0);
}
