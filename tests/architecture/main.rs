//! The shape of the repository, checked: who may import whom, and that what the documents say exists.
//!
//! Layering erodes one convenient `use` at a time, and nobody sees the last one. So the order of the
//! modules is written down once, in [`table::ROWS`], and every `use` in `src/` is compared with it:
//! a new edge is a deliberate edit of one row. The same goes for paths in the documents, lints and
//! the ban on `unsafe`, which all look right until the day something moved.
//!
//! These tests read source text, not the compiler's view: [`source`] says what they cannot see.

mod deploy;
mod documents;
mod parity;
mod repository;
mod source;
mod table;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use repository::{members, read, root, rust_files, tracked_files};
use source::{Edge, code_only, edges, module_of, reexports, without_tests};

/// Fails with all the complaints at once, one a line.
fn expect_none(complaints: &[String], remedy: &str) {
    assert!(
        complaints.is_empty(),
        "\n{}\n{remedy}\n",
        complaints.join("\n")
    );
}

#[test]
fn every_import_in_the_engine_has_its_place_in_the_table() {
    let src = root().join("src");
    let exported = reexports(&read(&src.join("lib.rs")));
    let mut complaints = Vec::new();
    for file in rust_files(&src) {
        let inside = file.strip_prefix(&src).expect("listed below src");
        let Some(path) = module_of(inside) else {
            continue;
        };
        let shown = Path::new("src").join(inside);
        let shown = shown.display();
        let module = path[0].as_str();
        let Some(allowed) = table::row(module) else {
            complaints.push(format!("{shown}: module `{module}` has no row"));
            continue;
        };
        for Edge { line, target, sure } in edges(&read(&file), path.len()) {
            let to = exported.get(&target).unwrap_or(&target).as_str();
            if to == module || to == "error" || allowed.contains(&to) {
                continue;
            }
            if table::is_known(to) {
                let row = allowed.join(", ");
                complaints.push(format!(
                    "{shown}:{line}: `{module}` must not import `{to}`; its row allows: error, {row}"
                ));
            } else if sure {
                complaints.push(format!(
                    "{shown}:{line}: `crate::{target}` is neither a module with a row nor re-exported"
                ));
            }
        }
    }
    expect_none(
        &complaints,
        "The rows are in tests/architecture/table.rs: change the code, or one row deliberately.",
    );
}

#[test]
fn the_import_table_has_no_cycle() {
    // Kahn: take away whatever imports nothing that is left; a cycle is what remains.
    let mut left: BTreeMap<&str, Vec<&str>> = table::ROWS
        .iter()
        .map(|(module, _)| (*module, table::row(module).unwrap()))
        .collect();
    loop {
        let free: Vec<&str> = left
            .iter()
            .filter(|(_, imports)| !imports.iter().any(|to| left.contains_key(to)))
            .map(|(module, _)| *module)
            .collect();
        if free.is_empty() {
            break;
        }
        left.retain(|module, _| !free.contains(module));
    }
    assert!(
        left.is_empty(),
        "these rows import each other in a circle: {left:?}"
    );
}

#[test]
fn every_name_in_a_row_is_itself_a_row_or_a_member_crate() {
    let mut complaints = Vec::new();
    for (module, imports) in table::ROWS {
        for to in imports
            .iter()
            .filter(|to| **to != table::EVERYTHING && !table::is_known(to))
        {
            complaints.push(format!(
                "row `{module}` allows `{to}`, which nothing is called"
            ));
        }
    }
    expect_none(
        &complaints,
        "Correct the name in tests/architecture/table.rs.",
    );
}

#[test]
fn the_scanner_sees_the_edges_that_count_and_no_others() {
    let text = r##"
//! Mentions crate::docs only.
use crate::one::Thing;
use crate::{two::{A, B}, three, self};
/* crate::commented */ pub(crate) struct S<'a>(&'a str);
fn f() -> crate::four::T { g("crate::quoted", r#"crate::raw"#, '"', 'x') }
use super::super::five;
use super::sibling;
use askonce_index::Neighbor;
fn m() { crate::a_macro!(); }
#[cfg(test)]
mod tests { use crate::only_in_tests; fn x() { if true {} } }
use crate::six;
"##;
    let found: Vec<(usize, String, bool)> = edges(text, 2)
        .into_iter()
        .map(|e| (e.line, e.target, e.sure))
        .collect();
    let expected = [
        (3, "one", true),
        (4, "two", true),
        (4, "three", true),
        (6, "four", true),
        (7, "five", false),
        (9, "index", true),
        (13, "six", true),
    ];
    assert_eq!(
        found,
        expected.map(|(line, name, sure)| (line, name.to_owned(), sure))
    );

    let exported = reexports("pub use error::{Error, Result as R};\npub use crate::cache::Cache;");
    assert_eq!(exported.get("Error").map(String::as_str), Some("error"));
    assert_eq!(exported.get("R").map(String::as_str), Some("error"));
    assert_eq!(exported.get("Cache").map(String::as_str), Some("cache"));
}

#[test]
fn every_path_named_in_the_front_documents_exists() {
    let mut complaints = Vec::new();
    let front = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"];
    for name in front {
        let file = root().join(name);
        if !file.exists() {
            println!("SKIPPED: {name} does not exist yet, so its paths are not checked");
            continue;
        }
        for (line, path) in documents::paths(&read(&file)) {
            let reported = front.contains(&path.as_str());
            if !reported && !root().join(&path).exists() {
                complaints.push(format!("{name}:{line}: `{path}` does not exist"));
            }
        }
    }
    expect_none(&complaints, "Say where it is now, or take the mention out.");
}

#[test]
fn paths_are_recognised_in_prose_and_links_but_not_in_routes_or_fences() {
    let text = "See `src/cache/lookup.rs:12` and [the data](tests/golden/number.toml#top).\n\
                `GET /v1/messages`, `application/json` and `askonce.yaml` are no paths here.\n\
                ```\n`src/in/a/fence.rs`\n```\n\
                `tests/golden/*.toml`, `src/{tier,embed}/mod.rs`, [out](https://example.com/src/a).\n\
                `CHANGELOG.md` and `index/`";
    let found = documents::paths(text);
    let expected = [
        (1, "src/cache/lookup.rs"),
        (1, "tests/golden/number.toml"),
        (6, "tests/golden/"),
        (6, "src/"),
        (7, "CHANGELOG.md"),
        (7, "index/"),
    ];
    assert_eq!(found, expected.map(|(line, path)| (line, path.to_owned())));
}

#[test]
fn no_tracked_file_names_a_path_of_one_machine() {
    let Some(files) = tracked_files() else {
        println!("SKIPPED: this is no git checkout, so there is no list of tracked files");
        return;
    };
    // Folders that exist on somebody's machine and mean nothing on another.
    let private = ["home", "Users", "root", "work", "mnt"].map(|name| format!("/{name}/"));
    let mut complaints = Vec::new();
    for file in files {
        // Binary files have no lines to complain about.
        let Ok(text) = fs::read_to_string(root().join(&file)) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            for path in &private {
                let starts_a_path = line.match_indices(path.as_str()).any(|(at, _)| {
                    !line[..at].ends_with(|c: char| c.is_alphanumeric() || "_-.}>*/:~".contains(c))
                });
                if starts_a_path {
                    complaints.push(format!("{}:{}: contains `{path}`", file, number + 1));
                }
            }
        }
    }
    expect_none(
        &complaints,
        "Use a path relative to the repository or to a temporary folder.",
    );
}

#[test]
fn no_rust_file_carries_a_note_to_finish_it_later() {
    let Some(files) = tracked_files() else {
        println!("SKIPPED: this is no git checkout, so there is no list of tracked files");
        return;
    };
    let markers = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
    ];
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| file.ends_with(".rs")) {
        let Ok(text) = fs::read_to_string(root().join(file)) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            let words = || line.split(|c: char| !c.is_alphanumeric() && c != '_');
            for marker in markers
                .iter()
                .filter(|marker| words().any(|word| word == **marker))
            {
                complaints.push(format!("{file}:{}: {marker}", number + 1));
            }
        }
    }
    expect_none(
        &complaints,
        "Do it now, or open an issue and describe what holds today.",
    );
}

#[test]
fn every_crate_without_vector_instructions_or_foreign_calls_forbids_unsafe_code() {
    let mut complaints = Vec::new();
    let free = |member: &String| !["index", "measure", "models"].contains(&member.as_str());
    for member in members().into_iter().filter(free) {
        let folder = root().join(&member).join("src");
        let roots = ["lib.rs", "main.rs"].map(|name| folder.join(name));
        let roots: Vec<_> = roots.iter().filter(|file| file.exists()).collect();
        if roots.is_empty() {
            complaints.push(format!("{member}: neither src/lib.rs nor src/main.rs"));
        }
        for file in roots {
            if !code_only(&read(file)).contains("#![forbid(unsafe_code)]") {
                let shown = file.strip_prefix(root()).unwrap_or(file).display();
                complaints.push(format!("{shown}: lacks #![forbid(unsafe_code)]"));
            }
        }
    }
    expect_none(
        &complaints,
        "Unsafe code belongs to the kernels of `index` and of the transformer, and nowhere else.",
    );
}

#[test]
fn the_models_are_unsafe_only_in_the_kernels_of_the_transformer() {
    let folder = root().join("models/src");
    let mut complaints = Vec::new();
    for file in rust_files(&folder) {
        let shown = file.strip_prefix(&folder).unwrap_or(&file);
        let code = code_only(&read(&file));
        let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
        if words.any(|word| word == "unsafe") && !shown.starts_with("minilm/kernel") {
            complaints.push(format!("models/src/{}: is unsafe", shown.display()));
        }
    }
    let denies = code_only(&read(&folder.join("lib.rs"))).contains("#![deny(unsafe_code)]");
    assert!(denies, "models/src/lib.rs: lacks #![deny(unsafe_code)]");
    expect_none(&complaints, "Vector instructions have one room.");
}

#[test]
fn the_measurement_is_unsafe_only_where_it_asks_the_machine_or_calls_into_cpp() {
    // The calls of peers in C++, and those that read the allocator and the memory.
    let rooms = [
        "src/contender/faiss.rs",
        "src/contender/hnswlib.rs",
        "src/native.rs",
    ];
    let folder = root().join("measure");
    let mut complaints = Vec::new();
    let mut unsafe_files = 0;
    for file in rust_files(&folder.join("src")) {
        let shown = file.strip_prefix(&folder).unwrap_or(&file);
        let code = code_only(&read(&file));
        let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
        if words.any(|word| word == "unsafe") {
            unsafe_files += 1;
            if !rooms.iter().any(|room| shown == std::path::Path::new(room)) {
                complaints.push(format!("measure/{}: is unsafe", shown.display()));
            }
        }
    }
    assert_eq!(
        unsafe_files,
        rooms.len(),
        "a room that needs no unsafe code is named"
    );
    expect_none(
        &complaints,
        "Unsafe code of the measurement has three rooms.",
    );
}

#[test]
fn every_workspace_member_inherits_the_lints() {
    let mut complaints = Vec::new();
    for member in members() {
        let manifest: toml::Table = read(&root().join(&member).join("Cargo.toml"))
            .parse()
            .expect("a manifest is TOML");
        let inherits = manifest
            .get("lints")
            .and_then(|lints| lints.get("workspace"))
            .and_then(toml::Value::as_bool);
        if inherits != Some(true) {
            complaints.push(format!("{member}: no `[lints] workspace = true`"));
        }
    }
    expect_none(&complaints, "Lints are set once, in the root manifest.");
}

#[test]
fn the_changelog_has_a_place_for_the_next_release() {
    let changelog = read(&root().join("CHANGELOG.md"));
    assert!(
        changelog.lines().any(|line| line == "## [Unreleased]"),
        "no [Unreleased] heading"
    );
}

#[test]
fn test_modules_are_left_out_to_their_last_brace() {
    let text = "#[cfg(test)]\nmod tests {\n    const S: &str = \"}\";\n}\nfn after() {}\n";
    let kept = without_tests(&code_only(text));
    assert!(
        kept.contains("fn after()") && !kept.contains("const S"),
        "{kept}"
    );
    assert_eq!(
        kept.lines().count(),
        text.lines().count(),
        "line numbers must not move"
    );
}
