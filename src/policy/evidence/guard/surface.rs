//! What a text means to the letter: identifiers, operators and quotations.

use super::super::reading::digest;
use super::quantity::Quantity;
use crate::policy::evidence::lexicon::Meaning;

/// A token that code would mean literally.
pub(super) fn is_identifier(token: &str) -> bool {
    let has = |f: fn(char) -> bool| token.chars().any(f);
    let flag = token.strip_prefix('-').is_some_and(|rest| {
        rest.trim_start_matches('-')
            .starts_with(|c: char| c.is_ascii_alphanumeric())
    });
    let letters_and_digits = has(char::is_alphabetic)
        && has(|c| c.is_ascii_digit())
        && Quantity::parse(token, Meaning::default(), ["", ""]).is_none()
        && super::quantity::ordinal(token).is_none();
    let camel = token
        .chars()
        .zip(token.chars().skip(1))
        .any(|(x, y)| x.is_lowercase() && y.is_uppercase());
    let dotted = token.contains('.')
        && token.split('.').filter(|part| !part.is_empty()).count() > 1
        && !token.ends_with('.')
        && (has(char::is_alphabetic) || token.matches('.').count() > 1)
        && !ABBREVIATIONS.contains(&token.to_lowercase().as_str());
    let path = token.len() > 1
        && (token.starts_with('/')
            || token.starts_with("./")
            || token.starts_with('~')
            || token.contains('\\'));
    flag || letters_and_digits
        || camel
        || dotted
        || path
        || token.contains('_')
        || token.contains("::")
}

/// A token that is nothing but an operator: `==`, `//`, `&&`.
pub(super) fn is_operator(token: &str) -> bool {
    !token.is_empty() && token.chars().all(|c| "/*%^=<>!|+~&".contains(c)) && token != "&"
}

/// Flags and escapes keep their case (`-r` is not `-R`, `\d` is not `\D`); names are compared without
/// it (`useEffect`, `useeffect`).
pub(super) fn identifier_digest(token: &str) -> u32 {
    if token.starts_with('-') || token.contains('\\') {
        digest(token)
    } else {
        digest(&token.to_lowercase())
    }
}

/// Digests of what stands in quotation marks or back-ticks, letter case kept.
pub(super) fn quotes(text: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for (open, close) in [
        ('"', '"'),
        ('`', '`'),
        ('\u{201c}', '\u{201d}'),
        ('\u{ab}', '\u{bb}'),
    ] {
        let mut rest = text;
        while let Some((_, after)) = rest.split_once(open) {
            let Some((inside, after)) = after.split_once(close) else {
                break;
            };
            let inside = inside.trim();
            if !inside.is_empty() {
                found.push(digest(inside));
            }
            rest = after;
        }
    }
    found
}

const ABBREVIATIONS: &[&str] = &[
    "e.g", "i.e", "u.s", "u.s.a", "u.k", "a.m", "p.m", "etc", "ph.d",
];
