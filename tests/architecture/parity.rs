//! The table of parity with the reference system, compared with the tests that it names.
//!
//! A table that says "proven by" is worth as much as the proof: so every capability and every fault of
//! the reference has a row, each path in it exists, each row of a fault names a test, and each test
//! named exists.

use std::collections::{BTreeMap, BTreeSet};

use crate::repository::{read, root, rust_files};

/// Where the table stands.
const DOCUMENT: &str = "docs/reference-parity.md";

/// The numbers of the reference's capabilities and faults, as ranges.
const CAPABILITIES: [(u32, u32); 7] = [
    (1, 12),
    (20, 32),
    (40, 48),
    (50, 60),
    (70, 75),
    (80, 94),
    (100, 116),
];
const FAULTS: [(u32, u32); 3] = [(1, 28), (30, 41), (45, 73)];

/// The cells of each row of a table, by what stands in the first.
fn rows(markdown: &str) -> BTreeMap<String, Vec<String>> {
    markdown
        .lines()
        .filter_map(|line| line.trim().strip_prefix('|')?.strip_suffix('|'))
        .map(|line| line.split('|').map(|cell| cell.trim().to_owned()))
        .filter_map(|mut cells| Some((cells.next()?, cells.collect())))
        .collect()
}

fn numbers(ranges: &[(u32, u32)], letter: char) -> BTreeSet<String> {
    let all = ranges.iter().flat_map(|(first, last)| *first..=*last);
    all.map(|number| format!("{letter}-{number:02}")).collect()
}

/// Words in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Names of test functions anywhere in the repository.
fn test_names() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let folders = ["src", "tests", "index", "models", "macros", "server"];
    for file in folders
        .iter()
        .flat_map(|folder| rust_files(&root().join(folder)))
    {
        // Whether the next function is one.
        let mut is_test = false;
        for line in read(&file).lines() {
            let line = line.trim_start();
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            let line = line.strip_prefix("async ").unwrap_or(line);
            let Some(rest) = line.strip_prefix("fn ") else {
                // The contract's checks are listed by name alone.
                let word = line.trim_end_matches(',');
                if word.contains('_') && word.chars().all(is_name) {
                    names.insert(word.to_owned());
                }
                continue;
            };
            if std::mem::take(&mut is_test) {
                let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
                names.insert(rest[..end].to_owned());
            }
        }
    }
    names
}

fn is_name(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'
}

#[test]
fn the_parity_table_is_complete_and_every_test_it_names_exists() {
    let table = rows(&read(&root().join(DOCUMENT)));
    let known = test_names();
    let mut complaints = Vec::new();
    for row in numbers(&CAPABILITIES, 'C') {
        match table.get(&row) {
            Some(cells) if cells.iter().all(|cell| !cell.is_empty()) => {
                let place = cells.last().map(String::as_str).unwrap_or_default();
                // A path has a slash in it; one that begins with it is a route.
                let paths = quoted(place).filter(|path| path.find('/').is_some_and(|at| at > 0));
                for path in paths.filter(|path| !root().join(path).exists()) {
                    complaints.push(format!("{row}: there is no `{path}`"));
                }
            }
            Some(_) => complaints.push(format!("{row}: an empty cell")),
            None => complaints.push(format!("{row}: no row")),
        }
    }
    for row in numbers(&FAULTS, 'W') {
        let Some(cells) = table.get(&row) else {
            complaints.push(format!("{row}: no row"));
            continue;
        };
        let proof = cells.last().map(String::as_str).unwrap_or_default();
        let tests: Vec<&str> = quoted(proof)
            .filter(|name| name.chars().all(is_name))
            .collect();
        if tests.is_empty() {
            complaints.push(format!("{row}: names no test"));
        }
        for test in tests {
            if !known.contains(test) {
                complaints.push(format!("{row}: there is no test `{test}`"));
            }
        }
    }
    assert!(
        complaints.is_empty(),
        "\n{}\n{DOCUMENT} must have a row for each, and name tests that exist\n",
        complaints.join("\n")
    );
}
