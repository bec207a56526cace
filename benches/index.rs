//! Vector indexes at equal recall: ours, the crate hnsw_rs, hnswlib, and those that features add.
//!
//! Measured, in one process and with all contenders taking turns: lookups of the best row at a cosine of
//! 0.8 or more, each contender at the cheapest setting that finds 99 of 100 (ours at its defaults);
//! inserts one by one; deletes; bytes a row; lookups with half of the rows deleted; lookups beside
//! writes over two million operations; the cost of a lookup from 10 thousand to a million rows; a
//! restore; and at 10 thousand rows what memory traffic alone would take. `measure/src` says how, file
//! by file.
//!
//! Left out: filters, and anything over a network. Processor time is counted, as machines are shared;
//! percentiles are of the wall and show what else runs.
//!
//! `cargo bench --bench index -- --quick` takes some minutes, without `--quick` hours; `--size N` and
//! `--dimension D` narrow it to one synthetic set. Tables go to the screen, and with plots and JSON into
//! `target/bench-index`. hnswlib takes part if its headers are installed (`libhnswlib-dev`) or
//! `HNSWLIB_INCLUDE` names the folder that holds them; FAISS and usearch are compiled in by
//! `--features faiss,askonce-measure/usearch`. Prompts are real if `ASKONCE_BENCH_DATA` names a folder of
//! labelled clusters, or `../shared/data` beside this checkout is one.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use askonce_measure::{Plan, draw, run};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    // `cargo bench` says `--bench`; a list or a test run has nothing to wait for.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let given = |name: &str| arguments.iter().any(|argument| argument == name);
    let number = |name: &str| -> Result<Option<usize>, Box<dyn Error>> {
        let Some(at) = arguments.iter().position(|argument| argument == name) else {
            return Ok(None);
        };
        let value = arguments
            .get(at + 1)
            .ok_or(format!("{name} takes a number"))?;
        let value = value
            .parse()
            .map_err(|_| format!("{name} takes a number, not {value}"))?;
        Ok(Some(value))
    };
    let plan = if given("--quick") {
        Plan::quick()
    } else {
        Plan::full()
    };
    let mut plan = plan.only(number("--size")?, number("--dimension")?);
    plan.prompts = prompts();
    if plan.prompts.is_none() {
        eprintln!(
            "NO LABELLED PROMPTS: the set of real text is made from templates. Set ASKONCE_BENCH_DATA."
        );
    }
    let report = run(&plan, &|line| eprintln!("# {line}"))?;
    println!("{}", report.text());

    let folder = output();
    fs::create_dir_all(&folder)?;
    let json = folder.join("report.json");
    fs::write(&json, serde_json::to_string_pretty(&report)? + "\n")?;
    for file in draw(&report, &folder)?.iter().chain([&json]) {
        println!("written: {}", file.display());
    }
    Ok(())
}

/// The folder of labelled prompts, if there is one.
fn prompts() -> Option<PathBuf> {
    let named = env::var_os("ASKONCE_BENCH_DATA").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    named.or_else(|| beside.is_dir().then_some(beside))
}

fn output() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let usual = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    target.unwrap_or_else(usual).join("bench-index")
}
