//! Settings from files, the environment and flags, into any type that serde can read.
//!
//! Later layers win: defaults given by the program, `askonce.yaml` (or `.yml`, `.toml`, `.json`),
//! the profile's `askonce.{profile}.yaml`, variables `ASKONCE__SECTION__FIELD` (list items by number:
//! `ASKONCE__BACKENDS__0__TYPE`), then overrides such as `semantic.policy.type=threshold`. Maps merge,
//! lists from files are replaced whole.
//!
//! An error names the field by its full path, its value, what is expected, and the layer that set it.
//! A section `cache:` and variables `LEX_CACHE__SECTION__FIELD`, as the reference system writes them, are
//! read as if they stood at the top ([`super::reference`]). Text in files may name variables, `${NAME}`
//! or `${NAME:default}`; `$${` is a plain `${`.
//!
//! Two things stand in the way of that, and are undone here:
//! - serde reads a tagged section (`type: ...`) in two steps and forgets the path on the way: the field
//!   at fault is found by leaving out one at a time ([`blame`]);
//! - a variable is text, whatever the field's type: a scalar that does not fit is read a second way
//!   ([`second_reading`]) before it counts as wrong. It helps files too: `"0.9"`, `1_000_000`.
//!
//! Values of fields whose names speak of keys, passwords, secrets or tokens are never shown.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use ::config::builder::DefaultState;
use ::config::{ConfigBuilder, ConfigError, File, Map, Source, Value as Raw, ValueKind};
use serde::de::DeserializeOwned;
use serde_json::{Number, Value};

use super::{Config, reference};
use crate::backend::BackendRegistry;
use crate::error::{Error, ErrorKind, Result};

/// The endings of files looked for, in this order.
const ENDINGS: [&str; 4] = ["yaml", "yml", "toml", "json"];

/// The longest list that single items can be set in.
const LONGEST_LIST: usize = 1_024;

/// Most characters of a value that an error repeats.
const VALUE_SHOWN: usize = 64;

/// Where settings come from.
///
/// ```
/// use askonce::config::{Config, Sources};
///
/// let sources = Sources::named("askonce")
///     .variables([("ASKONCE__SEMANTIC__CANDIDATES", "16")])
///     .set("semantic.policy.type=threshold")?;
/// let loaded = sources.load::<Config>()?;
/// assert_eq!(loaded.settings.semantic.candidates, 16);
/// assert_eq!(loaded.origin("semantic.candidates"), Some("ASKONCE__SEMANTIC__CANDIDATES"));
/// # Ok::<(), askonce::Error>(())
/// ```
#[derive(Clone)]
pub struct Sources {
    name: String,
    directory: Option<PathBuf>,
    file: Option<PathBuf>,
    profile: Option<String>,
    defaults: Vec<Assignment>,
    variables: Vec<Assignment>,
    overrides: Vec<Assignment>,
    /// What text in files may name.
    environment: BTreeMap<String, String>,
}

/// Settings that were read, and from where.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Loaded<T> {
    /// The settings.
    pub settings: T,
    /// The files that were read, in order.
    pub files: Vec<PathBuf>,
    origins: BTreeMap<String, String>,
}

impl<T> Loaded<T> {
    /// The file, variable or flag that set `field`; `None` when it has its default.
    #[must_use]
    pub fn origin(&self, field: &str) -> Option<&str> {
        self.origins.get(field).map(String::as_str)
    }

    /// `error` with the file, variable or flag that set the field it names.
    #[must_use]
    pub fn located(&self, error: Error) -> Error {
        let mut context = error.context().iter();
        let field = context.find(|(name, _)| *name == "field");
        let origin = field.and_then(|(_, field)| self.origin(field));
        match origin.map(str::to_owned) {
            Some(origin) => error.with("set in", origin),
            None => error,
        }
    }
}

impl Config {
    /// Reads and checks the settings of caches. The environment is that of the sources, unless a field
    /// says otherwise.
    ///
    /// ```
    /// use askonce::Config;
    /// use askonce::config::Sources;
    ///
    /// let variables = [("LEX_CACHE__BACKENDS__0__TYPE", "memory"), ("LEX_ENV", "test")];
    /// let loaded = Config::load(Sources::named("askonce").variables(variables))?;
    /// assert_eq!(loaded.settings.environment, "test");
    /// # Ok::<(), askonce::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Sources::load`] and of [`Config::validate`], with the layer that set the field.
    pub fn load(sources: Sources) -> Result<Loaded<Self>> {
        Self::load_with(sources, &BackendRegistry::default())
    }

    /// As [`load`](Self::load), with the types of backends that `registry` knows.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_with(sources: Sources, registry: &BackendRegistry) -> Result<Loaded<Self>> {
        let sources = match sources.environment_name() {
            Some(name) => {
                let environment = format!("environment={name}");
                sources.default(&environment)?
            }
            None => sources,
        };
        let loaded = sources.load::<Self>()?;
        let checked = loaded.settings.validate_with(registry);
        checked.map_err(|error| loaded.located(error))?;
        Ok(loaded)
    }
}

/// One value for one field, as text.
#[derive(Clone)]
struct Assignment {
    path: Vec<Step>,
    value: String,
    origin: String,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Field(String),
    Item(usize),
}

impl fmt::Debug for Sources {
    /// Shows where values come from, never the values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origins = |assignments: &[Assignment]| -> Vec<String> {
            assignments
                .iter()
                .map(|assignment| assignment.origin.clone())
                .collect()
        };
        f.debug_struct("Sources")
            .field("name", &self.name)
            .field("file", &self.file)
            .field("profile", &self.profile)
            .field("variables", &origins(&self.variables))
            .field("overrides", &origins(&self.overrides))
            .finish_non_exhaustive()
    }
}

impl Sources {
    /// Nothing but defaults; `name` is the stem of files to look for, and of variables to read.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            directory: None,
            file: None,
            profile: None,
            defaults: Vec::new(),
            variables: Vec::new(),
            overrides: Vec::new(),
            environment: BTreeMap::new(),
        }
    }

    /// Looks in `directory` for a file `{name}.yaml`, `.yml`, `.toml` or `.json`. There need not be one.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Reads this file, which must exist, instead of looking for one.
    #[must_use]
    pub fn file(mut self, file: impl Into<PathBuf>) -> Self {
        self.file = Some(file.into());
        self
    }

    /// Reads a second file over the first, if it is there: `askonce.staging.yaml` beside
    /// `askonce.yaml`.
    #[must_use]
    pub fn profile(mut self, profile: impl Into<String>) -> Self {
        self.profile = Some(profile.into());
        self
    }

    /// Takes the variables of this process: `{NAME}__...`, the reference system's `LEX_CACHE__...`, and
    /// the profile from `{NAME}_ENV`, `LEX_PROFILE` or `LEX_ENV`, the first that is set.
    #[must_use]
    pub fn process(self) -> Self {
        // A variable that is not Unicode cannot be meant for us.
        let ours = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        self.variables(ours)
    }

    /// Takes those of `variables` that are meant for us, as [`process`](Self::process) does.
    #[must_use]
    pub fn variables<K, V>(mut self, variables: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: Into<String>,
        V: Into<String>,
    {
        let name = self.name.to_ascii_uppercase();
        let prefixes = [format!("{name}__"), reference::VARIABLES.to_owned()];
        let profiles = [&*format!("{name}_ENV"), "LEX_PROFILE", "LEX_ENV"];
        let mut profile = None;
        for (name, value) in variables {
            let (name, value) = (name.into(), value.into());
            let rank = profiles.iter().position(|known| *known == name);
            if let Some(rank) = rank.filter(|_| !value.is_empty()) {
                if profile.as_ref().is_none_or(|(best, _)| rank < *best) {
                    profile = Some((rank, value.clone()));
                }
            } else if let Some(path) = prefixes.iter().find_map(|p| name.strip_prefix(p)) {
                let steps = path.split("__").map(|step| match step.parse() {
                    Ok(index) => Step::Item(index),
                    Err(_) => Step::Field(step.to_ascii_lowercase()),
                });
                self.variables.push(Assignment {
                    path: steps.collect(),
                    value: value.clone(),
                    origin: name.clone(),
                });
            }
            self.environment.insert(name, value);
        }
        if let Some((_, name)) = profile {
            self.profile = Some(name);
        }
        // What a process is started with has no order; what is set must not depend on one. Our own
        // variables win over the reference system's.
        self.variables.sort_by_cached_key(|assignment| {
            let foreign = assignment.origin.starts_with(reference::VARIABLES);
            (!foreign, assignment.origin.clone())
        });
        self
    }

    /// The profile, if one is set.
    #[must_use]
    pub fn profile_name(&self) -> Option<&str> {
        self.profile.as_deref()
    }

    /// The name of the environment, if one is set: the first of `{NAME}_ENV` and `LEX_ENV`, or else the
    /// profile.
    #[must_use]
    pub fn environment_name(&self) -> Option<&str> {
        let ours = format!("{}_ENV", self.name.to_ascii_uppercase());
        let set = [&*ours, "LEX_ENV"].into_iter().filter_map(|name| {
            let value = self.environment.get(name)?;
            (!value.is_empty()).then_some(value.as_str())
        });
        set.chain(self.profile_name()).next()
    }

    /// Sets a field that no other layer sets.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn default(mut self, assignment: &str) -> Result<Self> {
        self.defaults.push(Assignment::parse(assignment)?);
        Ok(self)
    }

    /// Sets a field over all other layers: `listen=0.0.0.0:80`, `backends[0].name=near`,
    /// `prices.models."gpt-4.1".input=2`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when it is not `field=value`.
    pub fn set(mut self, assignment: &str) -> Result<Self> {
        self.overrides.push(Assignment::parse(assignment)?);
        Ok(self)
    }

    /// The settings.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when a file cannot be read, or a field is unknown, missing or of the
    /// wrong form. Whether values are in range is for the settings' own `validate`.
    pub fn load<T: DeserializeOwned>(&self) -> Result<Loaded<T>> {
        let (tree, files) = self.merge()?;
        let mut origins = BTreeMap::new();
        let mut tree = to_json(tree, &mut Vec::new(), &mut origins);
        reference::translate(&mut tree, &mut origins)?;
        let settings = read(tree, &origins)?;
        Ok(Loaded {
            settings,
            files,
            origins,
        })
    }

    /// All layers over each other.
    fn merge(&self) -> Result<(Raw, Vec<PathBuf>)> {
        let mut files = Vec::new();
        if let Some(file) = self.first_file()? {
            let second = self
                .profile
                .as_deref()
                .map(|profile| beside(&file, profile))
                .transpose()?;
            files.push(file);
            files.extend(second.filter(|file| file.exists()));
        }
        let mut builder =
            ConfigBuilder::<DefaultState>::default().add_source(Assignments(self.defaults.clone()));
        for file in &files {
            fs::read_to_string(file).map_err(|error| unreadable(file, error))?;
            let read = File::from(file.as_path()).collect();
            let mut fields = read.map_err(|error| malformed(&error))?;
            for value in fields.values_mut() {
                self.interpolate(value)?;
            }
            // The reference system's section is that of the same names at the top.
            builder = builder.add_source(Layer(reference::hoist(fields)?));
        }
        let built = builder
            .add_source(Assignments(self.variables.clone()))
            .add_source(Assignments(self.overrides.clone()))
            .build();
        let tree = built.map_err(|error| malformed(&error))?.cache;
        Ok((tree, files))
    }

    /// Puts the values of variables into text that names them.
    fn interpolate(&self, value: &mut Raw) -> Result<()> {
        match &mut value.kind {
            ValueKind::Table(fields) => fields
                .values_mut()
                .try_for_each(|value| self.interpolate(value)),
            ValueKind::Array(items) => items
                .iter_mut()
                .try_for_each(|value| self.interpolate(value)),
            ValueKind::String(text) if text.contains("${") => {
                *text = self.filled_in(text)?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn filled_in(&self, text: &str) -> Result<String> {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (before, named) = rest.split_at(at);
            let named = &named[2..];
            if let Some(before) = before.strip_suffix('$') {
                filled.push_str(before);
                filled.push_str("${");
                rest = named;
                continue;
            }
            filled.push_str(before);
            let Some((name, after)) = named.split_once('}') else {
                return Err(Error::new(ErrorKind::Config, "a `${` has no `}`")
                    .with("remedy", "close it, or write `$${` for a plain `${`"));
            };
            let (name, default) = match name.split_once(':') {
                Some((name, default)) => (name, Some(default)),
                None => (name, None),
            };
            let value = self.environment.get(name).map(String::as_str).or(default);
            filled.push_str(value.ok_or_else(|| {
                Error::new(
                    ErrorKind::Config,
                    "the file names a variable that is not set",
                )
                .with("variable", shown(name))
                .with(
                    "remedy",
                    format!("set it, or write `${{{}:default}}`", shown(name)),
                )
            })?);
            rest = after;
        }
        filled.push_str(rest);
        Ok(filled)
    }

    fn first_file(&self) -> Result<Option<PathBuf>> {
        if let Some(file) = &self.file {
            let known = file.extension().and_then(|ending| ending.to_str());
            if !known.is_some_and(|ending| ENDINGS.contains(&ending)) {
                return Err(Error::new(
                    ErrorKind::Config,
                    "the file's ending says no known format",
                )
                .with("file", file.display())
                .with("allowed", ENDINGS.join(", ")));
            }
            return Ok(Some(file.clone()));
        }
        let Some(directory) = &self.directory else {
            return Ok(None);
        };
        let found = ENDINGS.map(|ending| directory.join(format!("{}.{ending}", self.name)));
        let mut found = found.into_iter().filter(|file| file.exists());
        let first = found.next();
        match (&first, found.next()) {
            (Some(one), Some(other)) => Err(Error::new(
                ErrorKind::Config,
                "there are two configuration files",
            )
            .with("file", one.display())
            .with("other", other.display())
            .with("remedy", "remove one, or name the one that counts")),
            _ => Ok(first),
        }
    }
}

/// The profile's file beside `file`.
fn beside(file: &Path, profile: &str) -> Result<PathBuf> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if profile.is_empty() || !profile.chars().all(plain) {
        return Err(Error::new(
            ErrorKind::Config,
            "a profile's name has letters, digits, - and _",
        )
        .with("value", shown(profile)));
    }
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let ending = file.extension().unwrap_or_default().to_string_lossy();
    Ok(file.with_file_name(format!("{stem}.{profile}.{ending}")))
}

fn unreadable(file: &Path, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Config, "the configuration file cannot be read")
        .with("file", file.display())
        .with("problem", &error)
        .caused_by(error)
}

fn malformed(error: &ConfigError) -> Error {
    let (file, problem) = match error {
        ConfigError::FileParse { uri, cause } => (uri.clone(), cause.to_string()),
        other => (None, other.to_string()),
    };
    // A parser may quote the line at fault, which may hold a secret: keep what it says about it.
    let lines = problem
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.contains('|'));
    let error = Error::new(ErrorKind::Config, "the configuration file is malformed");
    let error = match file {
        Some(file) => error.with("file", file),
        None => error,
    };
    error.with("problem", lines.collect::<Vec<_>>().join(": "))
}

impl Assignment {
    fn parse(text: &str) -> Result<Self> {
        let malformed = || {
            Error::new(ErrorKind::Config, "a setting is given as field=value").with(
                "value",
                shown(text.split_once('=').map_or(text, |(field, _)| field)),
            )
        };
        let (field, value) = text.split_once('=').ok_or_else(malformed)?;
        let path = parse_path(field.trim()).ok_or_else(malformed)?;
        Ok(Self {
            path,
            value: value.to_owned(),
            origin: format!("--set {}", field.trim()),
        })
    }
}

/// Reads `a.b[0].c`, `a.b.0.c` and `a."b.c"`.
fn parse_path(text: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (name, after) = quoted.split_once('"')?;
            steps.push(Step::Field(name.to_owned()));
            rest = after;
        } else if let Some(bracketed) = rest.strip_prefix('[') {
            let (index, after) = bracketed.split_once(']')?;
            steps.push(Step::Item(index.parse().ok()?));
            rest = after;
        } else {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            let (name, after) = rest.split_at(end);
            steps.push(match name.parse() {
                Ok(index) => Step::Item(index),
                Err(_) if name.is_empty() => return None,
                Err(_) => Step::Field(name.to_owned()),
            });
            rest = after;
        }
        if let Some(after) = rest.strip_prefix('.') {
            if after.is_empty() {
                return None;
            }
            rest = after;
        }
    }
    (!steps.is_empty()).then_some(steps)
}

/// A layer that was read already.
#[derive(Clone)]
struct Layer(Map<String, Raw>);

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Layer({})", self.0.len())
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Raw>, ConfigError> {
        Ok(self.0.clone())
    }
}

/// A layer of single values.
#[derive(Clone)]
struct Assignments(Vec<Assignment>);

impl fmt::Debug for Assignments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Assignments({})", self.0.len())
    }
}

impl Source for Assignments {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Raw>, ConfigError> {
        let mut root = Raw::new(None, ValueKind::Table(Map::new()));
        self.collect_to(&mut root)?;
        root.into_table()
    }

    fn collect_to(&self, root: &mut Raw) -> Result<(), ConfigError> {
        for Assignment {
            path,
            value,
            origin,
        } in &self.0
        {
            let mut slot = &mut *root;
            for step in path {
                slot = step.down(slot).ok_or_else(|| {
                    ConfigError::Message(format!(
                        "{origin}: a list has at most {LONGEST_LIST} items"
                    ))
                })?;
            }
            *slot = Raw::new(Some(origin), ValueKind::String(value.clone()));
        }
        Ok(())
    }
}

impl Step {
    /// The value one step down, made if it is not there.
    fn down<'a>(&self, value: &'a mut Raw) -> Option<&'a mut Raw> {
        let name = match self {
            Self::Item(index) if !matches!(value.kind, ValueKind::Table(_)) => {
                if *index >= LONGEST_LIST {
                    return None;
                }
                if !matches!(value.kind, ValueKind::Array(_)) {
                    *value = Raw::new(None, ValueKind::Array(Vec::new()));
                }
                let ValueKind::Array(items) = &mut value.kind else {
                    return None;
                };
                while items.len() <= *index {
                    items.push(Raw::new(None, ValueKind::Nil));
                }
                return items.get_mut(*index);
            }
            Self::Item(index) => index.to_string(),
            Self::Field(name) => name.clone(),
        };
        if !matches!(value.kind, ValueKind::Table(_)) {
            *value = Raw::new(None, ValueKind::Table(Map::new()));
        }
        let ValueKind::Table(fields) = &mut value.kind else {
            return None;
        };
        Some(
            fields
                .entry(name)
                .or_insert_with(|| Raw::new(None, ValueKind::Nil)),
        )
    }
}

/// The merged tree as JSON, and the layer of each scalar by its path.
fn to_json(raw: Raw, path: &mut Vec<Step>, origins: &mut BTreeMap<String, String>) -> Value {
    if let Some(origin) = raw.origin() {
        origins.insert(spell(path), origin.to_owned());
    }
    let whole = |text: String| text.parse().map_or(Value::String(text), Value::Number);
    match raw.kind {
        ValueKind::Nil => Value::Null,
        ValueKind::Boolean(value) => Value::Bool(value),
        ValueKind::I64(value) => Value::from(value),
        ValueKind::U64(value) => Value::from(value),
        ValueKind::I128(value) => whole(value.to_string()),
        ValueKind::U128(value) => whole(value.to_string()),
        ValueKind::Float(value) => {
            Number::from_f64(value).map_or_else(|| Value::String(value.to_string()), Value::Number)
        }
        ValueKind::String(text) => Value::String(text),
        ValueKind::Table(fields) => {
            let mut children = serde_json::Map::new();
            for (name, child) in fields {
                path.push(Step::Field(name.clone()));
                children.insert(name, to_json(child, path, origins));
                path.pop();
            }
            Value::Object(children)
        }
        ValueKind::Array(items) => {
            let mut children = Vec::with_capacity(items.len());
            for (index, item) in items.into_iter().enumerate() {
                path.push(Step::Item(index));
                children.push(to_json(item, path, origins));
                path.pop();
            }
            Value::Array(children)
        }
    }
}

/// A path as errors spell it.
fn spell(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Item(index) => text.push_str(&format!("[{index}]")),
            Step::Field(name) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(name);
            }
        }
    }
    text
}

/// What serde said, and of which field.
#[derive(Clone, PartialEq, Eq)]
struct Refusal {
    path: Vec<Step>,
    message: String,
}

fn attempt<T: DeserializeOwned>(tree: &Value) -> Result<T, Refusal> {
    serde_path_to_error::deserialize(tree.clone()).map_err(|error| {
        use serde_path_to_error::Segment;
        let path = error.path().iter().filter_map(|segment| match segment {
            Segment::Seq { index } => Some(Step::Item(*index)),
            Segment::Map { key } => Some(Step::Field(key.clone())),
            Segment::Enum { .. } | Segment::Unknown => None,
        });
        Refusal {
            path: path.collect(),
            message: error.inner().to_string(),
        }
    })
}

fn read<T: DeserializeOwned>(mut tree: Value, origins: &BTreeMap<String, String>) -> Result<T> {
    let mut first: BTreeMap<Vec<Step>, (Refusal, Value)> = BTreeMap::new();
    loop {
        let refusal = match attempt::<T>(&tree) {
            Ok(settings) => return Ok(settings),
            Err(refusal) => blame::<T>(&tree, refusal),
        };
        if let Some((earlier, value)) = first.remove(&refusal.path) {
            // Both readings are refused. If the second got further, what it met says more.
            let same = refusal.message.starts_with("invalid type");
            return Err(explain(
                if same { &earlier } else { &refusal },
                Some(&value),
                origins,
            ));
        }
        let value = get_mut(&mut tree, &refusal.path);
        let Some((slot, other)) =
            value.and_then(|slot| second_reading(slot).map(|other| (slot, other)))
        else {
            let value = get_mut(&mut tree, &refusal.path);
            return Err(explain(&refusal, value.as_deref(), origins));
        };
        let value = std::mem::replace(slot, other);
        first.insert(refusal.path.clone(), (refusal, value));
    }
}

/// Follows a refusal down to the field at fault: the one without which serde says something else.
fn blame<T: DeserializeOwned>(tree: &Value, refusal: Refusal) -> Refusal {
    let mut refusal = refusal;
    for wording in ["unknown field `", "missing field `"] {
        if let Some(name) = quoted_after(&refusal.message, wording) {
            let step = Step::Field(name.to_owned());
            if refusal.path.last() != Some(&step) {
                refusal.path.push(step);
            }
            return refusal;
        }
    }
    let mut trial = tree.clone();
    let steps: Vec<Step> = match get_mut(&mut trial, &refusal.path) {
        Some(Value::Object(fields)) => fields.keys().cloned().map(Step::Field).collect(),
        Some(Value::Array(items)) => (0..items.len()).map(Step::Item).collect(),
        _ => return refusal,
    };
    for step in steps {
        let mut trial = tree.clone();
        match (get_mut(&mut trial, &refusal.path), &step) {
            (Some(Value::Object(fields)), Step::Field(name)) => drop(fields.remove(name)),
            (Some(Value::Array(items)), Step::Item(index)) => drop(items.remove(*index)),
            _ => continue,
        }
        let changed = match attempt::<T>(&trial) {
            Ok(_) => true,
            Err(other) => {
                // Without its tag a section is refused for that, whatever else is wrong with it.
                let tag = step == Step::Field("type".to_owned())
                    && other.message.starts_with("missing field `type`");
                other != refusal && (!tag || refusal.message.starts_with("unknown variant"))
            }
        };
        if changed {
            refusal.path.push(step);
            return blame::<T>(tree, refusal);
        }
    }
    refusal
}

fn get_mut<'a>(tree: &'a mut Value, path: &[Step]) -> Option<&'a mut Value> {
    path.iter().try_fold(tree, |at, step| match step {
        Step::Field(name) => at.get_mut(name),
        Step::Item(index) => at.get_mut(index),
    })
}

/// The other way to read a scalar: text as what it spells, a number or truth value as its text.
fn second_reading(value: &Value) -> Option<Value> {
    match value {
        Value::String(text) => match text.trim() {
            "true" => Some(Value::Bool(true)),
            "false" => Some(Value::Bool(false)),
            "null" | "" => Some(Value::Null),
            number => {
                let number = number.replace('_', "");
                let whole = number.parse::<i64>().map(Value::from);
                let whole = whole
                    .or_else(|_| number.parse::<u64>().map(Value::from))
                    .ok();
                whole.or_else(|| {
                    number
                        .parse()
                        .ok()
                        .and_then(Number::from_f64)
                        .map(Value::Number)
                })
            }
        },
        Value::Bool(_) | Value::Number(_) => Some(Value::String(value.to_string())),
        _ => None,
    }
}

/// The error for people.
fn explain(refusal: &Refusal, value: Option<&Value>, origins: &BTreeMap<String, String>) -> Error {
    let Refusal { path, message } = refusal;
    let field = spell(path);
    let error = |what| Error::new(ErrorKind::Config, what).with("field", &field);
    let error = if let Some(name) = quoted_after(message, "unknown field `") {
        let known = known_names(message);
        let error = error("there is no such setting");
        match nearest(name, &known) {
            Some(near) => error.with("did you mean", near),
            None if known.is_empty() => error,
            None => error.with("allowed", known.join(", ")),
        }
    } else if message.starts_with("missing field `") {
        error("a setting is missing")
    } else if let Some(name) = quoted_after(message, "unknown variant `") {
        let known = known_names(message);
        let error = error("a setting has an unknown value").with("value", shown(name));
        let error = match nearest(name, &known) {
            Some(near) => error.with("did you mean", near),
            None => error,
        };
        error.with("allowed", known.join(", "))
    } else {
        let error = error("a setting cannot be read");
        let error = match value.filter(|value| !value.is_object() && !value.is_array()) {
            Some(_) if is_secret(path) => error.with("value", "(hidden)"),
            Some(Value::String(text)) => error.with("value", shown(text)),
            Some(value) => error.with("value", value),
            None => error,
        };
        match message.rsplit_once(", expected ") {
            Some((_, expected)) if message.starts_with("invalid ") => {
                error.with("expected", plain_type(expected))
            }
            _ if is_secret(path) => error,
            _ => error.with("problem", message),
        }
    };
    let origin = (0..=path.len())
        .rev()
        .find_map(|end| origins.get(&spell(&path[..end])));
    match origin {
        Some(origin) => error.with("set in", origin),
        None => error,
    }
}

/// The names that serde lists after "expected".
fn known_names(message: &str) -> Vec<&str> {
    let (_, listed) = message.split_once(", expected ").unwrap_or_default();
    listed.split('`').skip(1).step_by(2).collect()
}

fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let distance = |other: &&str| strsim::damerau_levenshtein(name, other);
    let near = known.iter().copied().min_by_key(distance)?;
    (distance(&near) <= (near.len() / 3).max(2)).then_some(near)
}

fn quoted_after<'a>(message: &'a str, wording: &str) -> Option<&'a str> {
    message.strip_prefix(wording)?.split('`').next()
}

/// What serde calls a type, in words.
fn plain_type(expected: &str) -> &str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, zero or more",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a string" => "text",
        "a sequence" => "a list",
        "parsable string" | "integer overflow" | "an integer or string" => {
            "a number of bytes, such as 512MiB"
        }
        "a duration" => "a duration, such as 30s or 24h",
        struct_name if struct_name.contains("struct ") => "a section",
        other => other,
    }
}

fn is_secret(path: &[Step]) -> bool {
    let named = |word: &str| {
        path.iter()
            .any(|step| matches!(step, Step::Field(name) if name.contains(word)))
    };
    ["password", "secret", "token"].into_iter().any(named)
        || matches!(path.last(), Some(Step::Field(name)) if name.contains("key"))
}

/// The beginning of a value, on one line.
fn shown(text: &str) -> String {
    let mut short: String = text
        .chars()
        .take(VALUE_SHOWN)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(VALUE_SHOWN).is_some() {
        short.push_str("...");
    }
    short
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Settings {
        listen: String,
        workers: u16,
        verbose: bool,
        ratio: f64,
        api_key: Option<u64>,
        tags: Vec<String>,
        stores: Vec<Store>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
    enum Store {
        Memory {
            #[serde(default)]
            bytes: u64,
            #[serde(default)]
            name: String,
        },
        Remote {
            url: String,
            #[serde(default)]
            tls: bool,
        },
    }

    fn sources() -> Sources {
        Sources::named("askonce")
    }

    fn set(assignments: &[&str]) -> Result<Settings> {
        let sources = assignments
            .iter()
            .try_fold(sources(), |sources, text| sources.set(text))?;
        sources.load().map(|loaded| loaded.settings)
    }

    fn context<'a>(error: &'a Error, key: &str) -> Option<&'a str> {
        error
            .context()
            .iter()
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value.as_str())
    }

    fn directory(files: &[(&str, &str)]) -> PathBuf {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!(
            "askonce-load-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        for (name, text) in files {
            fs::write(directory.join(name), text).unwrap();
        }
        directory
    }

    #[test]
    fn later_layers_win_and_each_value_knows_its_layer() {
        let directory = directory(&[
            (
                "askonce.yaml",
                "listen: file\nworkers: 1\nratio: 0.5\ntags: [a, b]\n",
            ),
            ("askonce.staging.yaml", "workers: 2\n"),
        ]);
        let loaded = sources()
            .default("listen=default")
            .and_then(|sources| sources.default("verbose=true"))
            .unwrap()
            .directory(&directory)
            .variables([
                ("ASKONCE_ENV", "staging"),
                ("ASKONCE__RATIO", "0.75"),
                ("ASKONCE__TAGS__1", "c"),
                ("OTHER__WORKERS", "9"),
            ])
            .set("ratio=0.9")
            .unwrap()
            .load::<Settings>()
            .unwrap();
        assert_eq!(
            loaded.settings,
            Settings {
                listen: "file".into(),
                workers: 2,
                verbose: true,
                ratio: 0.9,
                tags: vec!["a".into(), "c".into()],
                ..Settings::default()
            }
        );
        assert_eq!(loaded.files.len(), 2);
        assert!(
            loaded
                .origin("workers")
                .unwrap()
                .ends_with("askonce.staging.yaml")
        );
        assert_eq!(loaded.origin("tags[1]"), Some("ASKONCE__TAGS__1"));
        assert_eq!(loaded.origin("ratio"), Some("--set ratio"));
        assert_eq!(loaded.origin("api_key"), None);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn text_is_read_as_what_its_field_needs_also_inside_tagged_sections() {
        let settings = set(&[
            "listen=8080",
            "workers=4",
            "verbose=true",
            "stores[0].type=memory",
            "stores[0].bytes=1_000",
            "stores[0].name=7",
            "stores[1].type=remote",
            "stores[1].url=x",
            "stores[1].tls=true",
            "api_key=",
        ])
        .unwrap();
        assert_eq!(settings.listen, "8080");
        assert_eq!(
            (settings.workers, settings.verbose, settings.api_key),
            (4, true, None)
        );
        assert_eq!(
            settings.stores[0],
            Store::Memory {
                bytes: 1_000,
                name: "7".into()
            }
        );
        assert_eq!(
            settings.stores[1],
            Store::Remote {
                url: "x".into(),
                tls: true
            }
        );
    }

    #[test]
    fn errors_name_the_field_its_value_what_is_expected_and_where_it_was_set() {
        let error = set(&["workers=many"]).unwrap_err();
        assert_eq!(context(&error, "field"), Some("workers"));
        assert_eq!(context(&error, "value"), Some("many"));
        assert_eq!(
            context(&error, "expected"),
            Some("a whole number, zero or more")
        );
        assert_eq!(context(&error, "set in"), Some("--set workers"));

        let error = set(&["stores[0].type=memory", "stores[0].bytes=lots"]).unwrap_err();
        assert_eq!(context(&error, "field"), Some("stores[0].bytes"));
        let error = set(&[
            "stores[0].type=remote",
            "stores[0].url=x",
            "stores[0].tls=maybe",
        ])
        .unwrap_err();
        assert_eq!(context(&error, "field"), Some("stores[0].tls"));
        assert_eq!(context(&error, "expected"), Some("true or false"));
        let error = set(&["stores[0].type=remote"]).unwrap_err();
        assert_eq!(context(&error, "field"), Some("stores[0].url"));
        assert_eq!(error.message(), "a setting is missing");
        let error = set(&["workers=70000"]).unwrap_err();
        assert_eq!(context(&error, "field"), Some("workers"));
        assert_eq!(context(&error, "value"), Some("70000"));
    }

    #[test]
    fn unknown_names_come_with_the_nearest_known_one() {
        let error = set(&["wokers=4"]).unwrap_err();
        assert_eq!(context(&error, "field"), Some("wokers"));
        assert_eq!(context(&error, "did you mean"), Some("workers"));
        let error = set(&["stores[0].type=memroy"]).unwrap_err();
        assert_eq!(context(&error, "field"), Some("stores[0].type"));
        assert_eq!(context(&error, "did you mean"), Some("memory"));
        assert_eq!(context(&error, "allowed"), Some("memory, remote"));
        let error = set(&["stores[0].type=memory", "stores[0].byte=1"]).unwrap_err();
        assert_eq!(context(&error, "field"), Some("stores[0].byte"));
        assert_eq!(context(&error, "did you mean"), Some("bytes"));
        let error = set(&["zzzzzzzz=1"]).unwrap_err();
        assert_eq!(context(&error, "did you mean"), None);
        assert!(context(&error, "allowed").unwrap().contains("workers"));
    }

    #[test]
    fn the_value_of_a_secret_is_not_repeated() {
        let sources = sources()
            .variables([("ASKONCE__API_KEY", "sk-hush")])
            .set("tags.token=sk-hush");
        let error = sources.as_ref().unwrap().load::<Settings>().unwrap_err();
        let shown = format!("{error} {error:?} {sources:?}");
        assert!(!shown.contains("hush"), "{shown}");
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        let directory = directory(&[
            ("torn.yaml", "listen: [unclosed\n"),
            ("torn.toml", "api_key = = \"hush\"\n"),
            ("list.yaml", "- a\n- b\n"),
            ("empty.yaml", ""),
            ("note.txt", ""),
        ]);
        fs::write(directory.join("bytes.yaml"), b"listen: \xff\xfe").unwrap();
        fs::create_dir(directory.join("folder.yaml")).unwrap();
        let load = |name: &str| sources().file(directory.join(name)).load::<Settings>();
        for name in [
            "missing.yaml",
            "torn.yaml",
            "torn.toml",
            "bytes.yaml",
            "folder.yaml",
            "note.txt",
        ] {
            let error = load(name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(context(&error, "file").unwrap().contains(name), "{error}");
            assert!(!error.to_string().contains("hush"), "{error}");
        }
        assert!(load("list.yaml").is_err());
        assert_eq!(load("empty.yaml").unwrap().settings, Settings::default());
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn two_files_of_one_name_are_refused() {
        let directory = directory(&[("askonce.yaml", ""), ("askonce.toml", "")]);
        let error = sources()
            .directory(&directory)
            .load::<Settings>()
            .unwrap_err();
        assert!(context(&error, "other").unwrap().ends_with("askonce.toml"));
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn the_reference_systems_section_and_variables_are_read_as_ours() {
        let files = [("askonce.yaml", "cache:\n  listen: a\n  workers: 3\n")];
        let sources = sources().directory(directory(&files)).variables([
            ("LEX_CACHE__STORES__0__TYPE", "memory"),
            ("LEX_CACHE__WORKERS", "5"),
            ("LEX_CACHE__VERBOSE", "true"),
            ("ASKONCE__WORKERS", "7"),
        ]);
        let loaded = sources.load::<Settings>().unwrap();
        let settings = &loaded.settings;
        assert_eq!((&*settings.listen, settings.workers), ("a", 7));
        assert!(settings.verbose && settings.stores.len() == 1);
        assert_eq!(loaded.origin("workers"), Some("ASKONCE__WORKERS"));
        assert_eq!(loaded.origin("verbose"), Some("LEX_CACHE__VERBOSE"));

        let twice = [("askonce.yaml", "listen: b\ncache: { listen: a }\n")];
        let error = super::Sources::named("askonce")
            .directory(directory(&twice))
            .load::<Settings>()
            .unwrap_err();
        assert_eq!(context(&error, "field"), Some("cache.listen"));
    }

    #[test]
    fn w_64_an_unknown_setting_of_the_reference_is_an_error_and_not_an_empty_result() {
        for yaml in ["cache: { listne: a }", "cache: 7"] {
            let files = [("askonce.yaml", yaml)];
            let loaded = sources().directory(directory(&files)).load::<Settings>();
            loaded.unwrap_err();
        }
    }

    #[test]
    fn the_first_of_the_profile_variables_counts() {
        for (variables, profile) in [
            (&["LEX_ENV=test"][..], "test"),
            (&["LEX_ENV=test", "LEX_PROFILE=blue"], "blue"),
            (&["ASKONCE_ENV=live", "LEX_PROFILE=blue"], "live"),
            (&["ASKONCE_ENV=", "LEX_ENV=test"], "test"),
        ] {
            let pairs = variables.iter().filter_map(|pair| pair.split_once('='));
            assert_eq!(sources().variables(pairs).profile_name(), Some(profile));
        }
    }

    #[test]
    fn text_in_files_may_name_variables() {
        let yaml = "listen: \"${HOST:localhost}:${PORT}\"\ntags: [\"$${x}\", \"${EMPTY:}\"]\n";
        let files = [("askonce.yaml", yaml)];
        let sources = sources().directory(directory(&files));
        let settings = sources.clone().variables([("PORT", "80")]);
        let settings = settings.load::<Settings>().unwrap().settings;
        assert_eq!(settings.listen, "localhost:80");
        assert_eq!(settings.tags, ["${x}", ""]);
        let error = sources.load::<Settings>().unwrap_err();
        assert_eq!(context(&error, "variable"), Some("PORT"));
        // What a variable holds is taken as it is.
        let loaded = sources.variables([("PORT", "1"), ("ASKONCE__LISTEN", "${NO}")]);
        assert_eq!(loaded.load::<Settings>().unwrap().settings.listen, "${NO}");
    }

    #[test]
    fn a_profile_is_a_name_and_not_a_path() {
        let directory = directory(&[("askonce.yaml", "")]);
        let load = |profile: &str| {
            sources()
                .directory(&directory)
                .profile(profile)
                .load::<Settings>()
        };
        assert!(load("../etc").is_err());
        assert!(load("prod").is_ok(), "a profile need not have a file");
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn paths_are_read_in_every_spelling() {
        for (text, spelt) in [
            ("a.b.c", "a.b.c"),
            ("a[0].b", "a[0].b"),
            ("a.0.b", "a[0].b"),
            ("models.\"gpt-4.1\".input", "models.gpt-4.1.input"),
        ] {
            assert_eq!(
                parse_path(text).map(|path| spell(&path)).as_deref(),
                Some(spelt)
            );
        }
        for text in ["", ".", "a.", "a..b", "a[x]", "a[0", "\"a"] {
            assert!(parse_path(text).is_none(), "{text}");
        }
        assert!(set(&["tags[4096]=x"]).is_err());
    }

    #[test]
    fn the_settings_of_a_cache_load_from_every_format() {
        let yaml = "backends:\n  - { type: memory, max_bytes: 64MiB }\ndefault_ttl: null\n\
            semantic:\n  policy: { type: threshold, threshold: 0.9 }\n\
            prices:\n  models:\n    gpt-X: { input: 1, output: 2.5 }\n";
        let toml = "default_ttl = \"1h\"\n[semantic.policy]\ntype = \"exact_only\"\n";
        let directory = directory(&[("a.yaml", yaml), ("a.toml", toml)]);
        let load = |name: &str| {
            sources()
                .file(directory.join(name))
                .load::<Config>()
                .map(|l| l.settings)
        };
        let config = load("a.yaml").unwrap();
        config.validate().unwrap();
        assert_eq!(config.default_ttl, None);
        let crate::config::BackendConfig::Memory(memory) = &config.backends[0].backend else {
            panic!("{config:?}");
        };
        assert_eq!(memory.max_bytes.as_u64(), 64 << 20);
        assert!(
            config.prices.models.contains_key("gpt-X"),
            "names keep their case"
        );
        assert_eq!(
            load("a.toml").unwrap().default_ttl.unwrap().as_secs(),
            3_600
        );

        let error = sources()
            .set("semantic.policy.type=cost_aware")
            .unwrap()
            .set("semantic.policy.floor=high")
            .unwrap()
            .load::<Config>()
            .unwrap_err();
        assert_eq!(context(&error, "field"), Some("semantic.policy.floor"));
        let error = sources()
            .set("backends[0].type=memory")
            .unwrap()
            .set("backends[0].max_bytes=plenty")
            .unwrap()
            .load::<Config>()
            .unwrap_err();
        assert_eq!(context(&error, "field"), Some("backends[0].max_bytes"));
        assert_eq!(
            context(&error, "expected"),
            Some("a number of bytes, such as 512MiB")
        );
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_password_given_by_a_variable_is_read_and_never_repeated() {
        let load = |timeout| {
            Sources::named("askonce")
                .variables([
                    ("ASKONCE__BACKENDS__0__TYPE", "redis"),
                    ("ASKONCE__BACKENDS__0__REDIS_URL", "redis://:hunter2@host/1"),
                    ("ASKONCE__BACKENDS__0__TIMEOUT", timeout),
                ])
                .load::<crate::Config>()
        };
        let config = load("1s").unwrap().settings;
        let crate::config::BackendConfig::Redis(redis) = &config.backends[0].backend else {
            panic!("{config:?}");
        };
        assert_eq!(redis.redis_url, "redis://:hunter2@host/1");
        assert_eq!(redis.timeout.as_secs(), 1);
        let error = load("soon").unwrap_err();
        assert!(error.to_string().contains("backends[0].timeout"), "{error}");
        assert!(!format!("{config:?} {error:?}").contains("hunter2"));
    }
}
