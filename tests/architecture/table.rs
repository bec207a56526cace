//! Who may import whom in `src/`.

/// In place of a list: every other module.
pub(crate) const EVERYTHING: &str = "*";

/// A module of `src/` and what it may import, in the order of a request's path. All may import
/// `error`. `index` and `models` stand for the member crates `askonce_index` and `askonce_models`.
pub(crate) const ROWS: &[(&str, &[&str])] = &[
    // Leaves.
    ("error", &[]),
    ("clock", &[]),
    ("event", &[]),
    ("files", &[]),
    ("observe", &[]),
    ("schema", &[]),
    // From a prompt to a stored answer.
    ("request", &[]),
    ("replay", &["request"]),
    ("savings", &["clock", "files", "request"]),
    ("entry", &["clock", "replay", "request", "savings"]),
    ("codec", &["clock", "entry", "request"]),
    ("admit", &["clock", "entry", "request"]),
    ("backend", &["clock", "codec", "event"]),
    ("layer", &["backend", "clock", "event", "observe"]),
    ("generation", &["backend", "clock", "codec", "observe"]),
    // The stages of a lookup.
    (
        "tier",
        &[
            "backend",
            "clock",
            "codec",
            "entry",
            "generation",
            "observe",
            "request",
        ],
    ),
    ("embed", &["models", "observe", "request"]),
    ("search", &["clock", "entry", "index", "observe", "request"]),
    ("policy", &["entry", "models", "request", "savings"]),
    ("decision", &["entry", "policy"]),
    ("calibrate", &["decision", "entry", "models", "policy"]),
    ("stampede", &["backend", "clock", "observe"]),
    // One holder at a time, among processes.
    ("lock", &["backend", "clock", "observe"]),
    // The same tools for the results of any function.
    (
        "typed",
        &[
            "backend",
            "clock",
            "codec",
            "entry",
            "generation",
            "observe",
            "stampede",
        ],
    ),
    // A backend for tests.
    ("fault", &["backend", "clock"]),
    // Patterns over the typed cache.
    ("secret", &[]),
    ("scoped", &["stampede", "typed"]),
    ("strategy", &["entry", "observe", "typed"]),
    ("repository", &["entry", "strategy", "typed"]),
    // The settings of all stages, and what callers hold.
    (
        "config",
        &[
            "admit", "backend", "codec", "embed", "index", "layer", "lock", "models", "policy",
            "request", "savings", "schema", "search", "stampede", "tier",
        ],
    ),
    (
        "verify",
        &["backend", "clock", "config", "models", "observe"],
    ),
    (
        "learning",
        &[
            "backend",
            "calibrate",
            "clock",
            "config",
            "decision",
            "entry",
            "files",
            "models",
            "observe",
            "policy",
            "savings",
        ],
    ),
    ("assembly", &["backend", "config", "layer", "tier"]),
    (
        "cache",
        &[
            "admit",
            "assembly",
            "backend",
            "clock",
            "codec",
            "config",
            "decision",
            "embed",
            "entry",
            "event",
            "generation",
            "layer",
            "learning",
            "models",
            "observe",
            "policy",
            "replay",
            "request",
            "savings",
            "search",
            "stampede",
            "tier",
            "typed",
            "verify",
        ],
    ),
    (
        "gateway",
        &["cache", "entry", "replay", "request", "savings", "stampede"],
    ),
    (
        "caches",
        &[
            "assembly", "backend", "cache", "clock", "codec", "config", "event", "layer", "lock",
            "typed",
        ],
    ),
];

/// The member crates that the engine stands on.
const MEMBERS: [&str; 2] = ["index", "models"];

/// Whether `name` is a module with a row, or a member crate.
pub(crate) fn is_known(name: &str) -> bool {
    MEMBERS.contains(&name) || ROWS.iter().any(|(module, _)| *module == name)
}

/// What `module` may import, written out.
pub(crate) fn row(module: &str) -> Option<Vec<&'static str>> {
    let (_, imports) = ROWS.iter().find(|(name, _)| *name == module)?;
    if imports.contains(&EVERYTHING) {
        let others = ROWS
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| *name != module);
        Some(others.chain(MEMBERS).collect())
    } else {
        Some(imports.to_vec())
    }
}
