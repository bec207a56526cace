//! Looking for secrets and personal data.
//!
//! All patterns are one automaton, so a text without any of them is read once. Where one matches, a check
//! looks closer: at check digits, at whether a password is a placeholder. Neither backtracks, so the time is
//! linear in the text whoever wrote it.

use std::borrow::Cow;
use std::ops::Range;

use regex::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};

use super::config::{Detector, PatternConfig, PatternKind};
use super::{Refused, personal, secrets};
use crate::error::{Error, ErrorKind, Result};

/// Bytes that one compiled pattern may take.
const PATTERN_BYTES: usize = 1 << 20;

/// Bytes that all of them together may take.
const SET_BYTES: usize = 32 << 20;

/// Whether what a pattern found in a text is what it is looking for.
pub(super) type Check = fn(&str, Range<usize>) -> bool;

/// A built-in pattern.
pub(super) type BuiltIn = (Detector, &'static str, Check);

/// Something that was found, without the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding<'a> {
    /// [`Refused::Secret`] or [`Refused::PersonalData`].
    pub reason: Refused,
    /// The name of the detector: of a [`Detector`], or of a pattern in the settings.
    pub detector: &'a str,
}

/// What looks for it.
pub(super) struct Detectors {
    set: RegexSet,
    rules: Vec<Rule>,
}

struct Rule {
    name: Cow<'static, str>,
    reason: Refused,
    /// The pattern by itself and its check, where finding it is not enough.
    closer: Option<(Regex, Check)>,
}

impl Detectors {
    pub(super) fn new(
        path: &str,
        detectors: &[Detector],
        patterns: &[PatternConfig],
    ) -> Result<Self> {
        let wanted = |detector: Detector| {
            detectors.contains(&detector)
                || (detectors.contains(&Detector::Secrets) && Detector::SECRETS.contains(&detector))
        };
        let mut rules = Vec::new();
        let mut texts: Vec<&str> = Vec::new();
        for (reason, table) in [
            (Refused::Secret, secrets::PATTERNS),
            (Refused::PersonalData, personal::PATTERNS),
        ] {
            for (detector, text, check) in table {
                if wanted(*detector) {
                    let compiled = compile(text).map_err(|error| bad(path, "detectors", &error))?;
                    texts.push(text);
                    rules.push(Rule {
                        name: Cow::Borrowed(detector.as_str()),
                        reason,
                        closer: Some((compiled, *check)),
                    });
                }
            }
        }
        for (i, pattern) in patterns.iter().enumerate() {
            let field = |name: &str| format!("patterns[{i}].{name}");
            check_name(path, &field("name"), &pattern.name)?;
            let others = &patterns[..i];
            if others.iter().any(|other| other.name == pattern.name) {
                return Err(bad(
                    path,
                    &field("name"),
                    &"two patterns have the same name",
                ));
            }
            let compiled =
                compile(&pattern.regex).map_err(|error| bad(path, &field("regex"), &error))?;
            if compiled.is_match("") {
                let problem = "it matches an empty text, so nothing would be stored";
                return Err(bad(path, &field("regex"), &problem));
            }
            texts.push(&pattern.regex);
            rules.push(Rule {
                name: Cow::Owned(pattern.name.clone()),
                reason: match pattern.kind {
                    PatternKind::Secret => Refused::Secret,
                    PatternKind::PersonalData => Refused::PersonalData,
                },
                closer: None,
            });
        }
        let set = RegexSetBuilder::new(texts).size_limit(SET_BYTES).build();
        let set = set.map_err(|error| bad(path, "patterns", &told(&error)))?;
        Ok(Self { set, rules })
    }

    /// How many patterns there are.
    pub(super) fn len(&self) -> usize {
        self.rules.len()
    }

    /// The first rule that finds something in `text`.
    pub(super) fn find(&self, text: &str) -> Option<Finding<'_>> {
        let rules = self.set.matches(text).into_iter();
        let mut rules = rules.filter_map(|i| self.rules.get(i));
        let rule = rules.find(|rule| rule.finds(text))?;
        Some(Finding {
            reason: rule.reason,
            detector: &rule.name,
        })
    }
}

impl Rule {
    /// Whether one of the matches stands up to a closer look. The next is looked for from just behind where
    /// the last began, as a wrong one may reach into a right one.
    fn finds(&self, text: &str) -> bool {
        let Some((pattern, check)) = &self.closer else {
            return true;
        };
        let mut from = 0;
        while let Some(found) = pattern.find_at(text, from) {
            if check(text, found.range()) {
                return true;
            }
            let step = text[found.start()..]
                .chars()
                .next()
                .map_or(1, char::len_utf8);
            from = found.start() + step;
            if from > text.len() {
                break;
            }
        }
        false
    }
}

fn compile(text: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(text).size_limit(PATTERN_BYTES).build();
    built.map_err(|error| told(&error))
}

/// What is wrong with a pattern, in one line: the error of a syntax error is a drawing of several.
fn told(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => "it is too large when compiled".to_owned(),
        error => {
            let text = error.to_string();
            let line = text.lines().last().unwrap_or_default().trim();
            line.strip_prefix("error: ").unwrap_or(line).to_owned()
        }
    }
}

fn bad(path: &str, field: &str, problem: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::Config, "a pattern cannot be used")
        .with("field", format_args!("{path}.{field}"))
        .with("problem", problem)
}

fn check_name(path: &str, field: &str, name: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if (1..=32).contains(&name.len()) && name.bytes().all(plain) {
        return Ok(());
    }
    let error = bad(path, field, &"the name cannot be a metric label");
    Err(error.with("value", name).with(
        "allowed",
        "1 to 32 lower-case letters, digits and underscores",
    ))
}

/// How many different bytes there are in `text`.
pub(super) fn distinct(text: &str) -> usize {
    let mut seen = [false; 256];
    text.bytes()
        .filter(|byte| !std::mem::replace(&mut seen[usize::from(*byte)], true))
        .count()
}

/// How many digits there are in `text`.
pub(super) fn digits(text: &str) -> usize {
    text.bytes().filter(u8::is_ascii_digit).count()
}
