//! Patterns over keys.

use std::fmt;

/// A shell-style pattern over the bytes of keys, as Redis understands it.
///
/// | part | matches |
/// |---|---|
/// | `*` | any bytes, none included |
/// | `?` | any one byte |
/// | `[abc]`, `[a-c]`, `[^a]` | one byte of the set, or not of it |
/// | `\x` | `x` itself |
///
/// ```
/// use askonce::backend::Glob;
///
/// let users = Glob::new("users:*");
/// assert!(users.matches(b"users:7") && !users.matches(b"user:7"));
/// assert!(!Glob::literal("users:*").matches(b"users:7"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Glob {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Byte(u8),
    Any,
    Run,
    Set {
        ranges: Vec<(u8, u8)>,
        negated: bool,
    },
}

impl Part {
    /// Whether one byte fits; a run is not asked.
    fn takes(&self, byte: u8) -> bool {
        match self {
            Self::Byte(own) => *own == byte,
            Self::Any | Self::Run => true,
            Self::Set { ranges, negated } => {
                ranges
                    .iter()
                    .any(|(low, high)| (*low..=*high).contains(&byte))
                    != *negated
            }
        }
    }
}

impl Glob {
    /// The pattern that `text` spells. Every text is a pattern: an unclosed set runs to the end, and a
    /// backslash at the end stands for itself.
    #[must_use]
    pub fn new(text: impl AsRef<[u8]>) -> Self {
        let mut parts = Vec::new();
        let mut text = text.as_ref().iter().copied();
        while let Some(byte) = text.next() {
            parts.push(match byte {
                b'*' if parts.last() == Some(&Part::Run) => continue,
                b'*' => Part::Run,
                b'?' => Part::Any,
                b'[' => set(&mut text),
                b'\\' => Part::Byte(text.next().unwrap_or(b'\\')),
                byte => Part::Byte(byte),
            });
        }
        Self { parts }
    }

    /// The pattern that matches `text` alone.
    #[must_use]
    pub fn literal(text: impl AsRef<[u8]>) -> Self {
        let parts = text.as_ref().iter().copied().map(Part::Byte);
        Self {
            parts: parts.collect(),
        }
    }

    /// The pattern that matches everything.
    #[must_use]
    pub fn everything() -> Self {
        Self {
            parts: vec![Part::Run],
        }
    }

    /// The pattern that matches `start` and whatever this one matches after it.
    #[must_use]
    pub fn after(&self, start: impl AsRef<[u8]>) -> Self {
        let mut whole = Self::literal(start);
        whole.parts.extend(self.parts.iter().cloned());
        whole
    }

    /// Whether `key` fits, from its beginning to its end.
    #[must_use]
    pub fn matches(&self, key: &[u8]) -> bool {
        let (mut part, mut at) = (0, 0);
        // Where to go back to when what follows the last run does not fit: the run then takes one byte
        // more. Going back to the last run alone is enough, so time is at most pattern times key.
        let mut run = None;
        while at < key.len() {
            match self.parts.get(part) {
                Some(Part::Run) => {
                    run = Some((part, at));
                    part += 1;
                }
                Some(one) if one.takes(key[at]) => {
                    part += 1;
                    at += 1;
                }
                _ => match &mut run {
                    Some((of, taken)) => {
                        *taken += 1;
                        part = *of + 1;
                        at = *taken;
                    }
                    None => return false,
                },
            }
        }
        self.parts[part..].iter().all(|part| *part == Part::Run)
    }

    /// The text that [`new`](Self::new) reads as this pattern.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(self.parts.len());
        let escaped = |text: &mut Vec<u8>, byte: u8| {
            if matches!(byte, b'*' | b'?' | b'[' | b']' | b'^' | b'-' | b'\\') {
                text.push(b'\\');
            }
            text.push(byte);
        };
        for part in &self.parts {
            match part {
                Part::Byte(byte) => escaped(&mut text, *byte),
                Part::Any => text.push(b'?'),
                Part::Run => text.push(b'*'),
                Part::Set { ranges, negated } => {
                    text.push(b'[');
                    if *negated {
                        text.push(b'^');
                    }
                    for (low, high) in ranges {
                        escaped(&mut text, *low);
                        if low != high {
                            text.push(b'-');
                            escaped(&mut text, *high);
                        }
                    }
                    text.push(b']');
                }
            }
        }
        text
    }
}

/// A set, after its opening bracket.
fn set(text: &mut impl Iterator<Item = u8>) -> Part {
    let mut ranges: Vec<(u8, u8)> = Vec::new();
    let mut negated = false;
    let mut first = true;
    // The low end of a range whose high end comes next.
    let mut open = None;
    while let Some(byte) = text.next() {
        let plain = match byte {
            b']' => break,
            b'^' if first => {
                negated = true;
                first = false;
                continue;
            }
            b'-' if open.is_none() && !ranges.is_empty() => {
                open = ranges.pop().map(|(low, _)| low);
                continue;
            }
            b'\\' => text.next().unwrap_or(b'\\'),
            byte => byte,
        };
        first = false;
        ranges.push(match open.take() {
            Some(low) => (low.min(plain), low.max(plain)),
            None => (plain, plain),
        });
    }
    if let Some(low) = open {
        ranges.extend([(low, low), (b'-', b'-')]);
    }
    Part::Set { ranges, negated }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Glob({})", self.to_bytes().escape_ascii())
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to_bytes().escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_in_redis() {
        for (pattern, fits, does_not) in [
            ("*", &["", "a", "a:b"][..], &[][..]),
            ("", &[""], &["a"]),
            ("a*c", &["ac", "abc", "abcc"], &["ab", "cab"]),
            ("a?c", &["abc"], &["ac", "abbc"]),
            ("*:7:*", &["u:7:x", ":7:", "a:7:7:"], &["u:77:x"]),
            ("[a-c]x", &["ax", "cx"], &["dx", "x", "-x"]),
            ("[^a]x", &["bx"], &["ax"]),
            ("[c-a]", &["b"], &["d"]),
            ("[]x]", &["x]"], &[]),
            (r"\*", &["*"], &["a"]),
            (r"[\]]", &["]"], &["a"]),
            ("a[", &[], &["a", "ab"]),
            ("[a-", &["a", "-"], &["b"]),
        ] {
            let glob = Glob::new(pattern);
            for key in fits {
                // An empty set fits nothing, so `[]x]` cannot fit either.
                if pattern != "[]x]" {
                    assert!(glob.matches(key.as_bytes()), "{pattern} and {key:?}");
                }
            }
            for key in does_not {
                assert!(!glob.matches(key.as_bytes()), "{pattern} and {key:?}");
            }
        }
    }

    #[test]
    fn many_runs_take_no_exponential_time() {
        let glob = Glob::new("a*".repeat(40) + "b");
        assert!(!glob.matches(&b"a".repeat(2_000)));
    }

    proptest! {
        #[test]
        fn a_literal_matches_itself_alone(text: Vec<u8>, other: Vec<u8>) {
            let glob = Glob::literal(&text);
            prop_assert!(glob.matches(&text));
            prop_assert_eq!(glob.matches(&other), text == other);
        }

        #[test]
        fn the_text_of_a_pattern_reads_as_that_pattern(text in "[ab*?\\[\\]^\\\\-]{0,12}") {
            let glob = Glob::new(&text);
            let again = Glob::new(glob.to_bytes());
            for key in ["", "a", "b", "ab", "ba", "-", "^", "[", "a]", "aab", "*"] {
                prop_assert_eq!(glob.matches(key.as_bytes()), again.matches(key.as_bytes()));
            }
        }
    }
}
