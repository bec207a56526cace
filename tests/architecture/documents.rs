//! Paths of this repository that a Markdown text names.

/// What the first part of a path must be for the text to mean a file of this repository.
const TOP: [&str; 14] = [
    ".ci", ".github", "benches", "deploy", "docs", "examples", "fuzz", "index", "macros", "models",
    "scripts", "server", "src", "tests",
];

/// Each path in backticks or in a link, with its line. Code fences are left out, so are routes, types
/// and addresses. From a wildcard on, only the folder before it is meant.
pub(crate) fn paths(markdown: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (number, line) in markdown.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        if fenced {
            continue;
        }
        let quoted = line.split('`').skip(1).step_by(2);
        let linked = line
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        for candidate in quoted.chain(linked) {
            if let Some(path) = repository_path(candidate) {
                found.push((number + 1, path));
            }
        }
    }
    found
}

fn repository_path(candidate: &str) -> Option<String> {
    let path = candidate.strip_prefix("./").unwrap_or(candidate);
    let path = &path[..path.find([':', '#', '?']).unwrap_or(path.len())];
    if path.contains(char::is_whitespace) {
        return None;
    }
    if !path.contains('/') {
        // A document at the root; any other bare name may be a file of the user's.
        let name = path.strip_suffix(".md")?;
        let shouted = !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        return shouted.then(|| path.to_owned());
    }
    let top = path.split('/').next()?;
    if !TOP.contains(&top) {
        return None;
    }
    match path.find(['*', '{', '<']) {
        Some(wild) => path[..wild]
            .rfind('/')
            .map(|slash| path[..=slash].to_owned()),
        None => Some(path.to_owned()),
    }
}
