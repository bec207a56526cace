//! The shapes of secrets.
//!
//! A shape alone is not enough: documentation and questions are full of `sk-your-key-here` and
//! `user:password@host`. So each match is looked at for what a placeholder does not have: many different
//! characters, digits, a password that is no example.

use std::ops::Range;

use super::config::Detector;
use super::detect::{BuiltIn, digits, distinct};

/// What is looked for, and how closely.
pub(super) const PATTERNS: &[BuiltIn] = &[
    (
        Detector::ApiKey,
        r"(?-u:\b)sk-[A-Za-z0-9_-]{20,}",
        |text, at| {
            let key = &text[at];
            // Words joined by hyphens are names of packages and classes.
            let longest = key.split(['-', '_']).map(str::len).max();
            longest.is_some_and(|length| length >= 16) && digits(key) > 0 && distinct(key) >= 10
        },
    ),
    (
        Detector::ApiKey,
        concat!(
            r"(?-u:\b)(?:gsk_[A-Za-z0-9]{40}|xai-[A-Za-z0-9]{40}|hf_[A-Za-z0-9]{30}|r8_[A-Za-z0-9]{30}",
            r"|pplx-[A-Za-z0-9]{40}|nvapi-[A-Za-z0-9_-]{40}|npm_[A-Za-z0-9]{36}|glpat-[A-Za-z0-9_-]{20}",
            r"|pypi-[A-Za-z0-9_-]{50}|dop_v1_[a-f0-9]{64}|shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}",
            r"|SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{32})"
        ),
        is_varied,
    ),
    (
        Detector::PrivateKey,
        r"-----BEGIN (?:[A-Z0-9]{1,10} ){0,3}PRIVATE KEY(?: BLOCK)?-----|PuTTY-User-Key-File-[23]: ",
        |text, at| {
            // The armour alone is what people ask about; a key has its body behind it.
            let body = &text.as_bytes()[at.end..text.len().min(at.end + ARMOUR_BYTES)];
            let mut runs =
                body.split(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')));
            runs.any(|run| {
                run.len() >= 32 && std::str::from_utf8(run).is_ok_and(|run| distinct(run) >= 10)
            })
        },
    ),
    (
        Detector::Jwt,
        r"(?-u:\b)eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{10,}",
        is_varied,
    ),
    (
        Detector::AwsKey,
        r"(?-u:\b)(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?-u:\b)",
        |text, at| !text[at.clone()].ends_with("EXAMPLE") && distinct(&text[at]) >= 8,
    ),
    (
        Detector::AwsKey,
        r#"(?i-u:aws_?secret_?(?:access_?)?key["']?\s{0,3}[:=]\s{0,3}["']?)[A-Za-z0-9/+]{40}"#,
        |text, at| !text[at.clone()].contains("EXAMPLE") && is_varied(text, at),
    ),
    (
        Detector::GcpKey,
        r"(?-u:\b)(?:AIza[0-9A-Za-z_-]{35}|ya29\.[0-9A-Za-z_-]{20,}|GOCSPX-[0-9A-Za-z_-]{24,})",
        is_varied,
    ),
    (
        Detector::GcpKey,
        r#""private_key_id"\s{0,3}:\s{0,3}"[0-9a-f]{40}""#,
        |text, at| distinct(&text[at.end - 41..at.end]) >= 8,
    ),
    (
        Detector::GithubToken,
        r"(?-u:\b)(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{40})",
        is_varied,
    ),
    (
        Detector::SlackToken,
        r"(?-u:\b)(?:xox[abeoprs]-[A-Za-z0-9-]{10,}|xapp-[0-9]-[A-Za-z0-9-]{20,})",
        |text, at| digits(&text[at.clone()]) >= 6 && distinct(&text[at]) >= 8,
    ),
    (
        Detector::SlackToken,
        r"hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9/]{30,}",
        |text, at| digits(&text[at.clone()]) >= 4 && is_varied(text, at),
    ),
    (
        Detector::StripeKey,
        r"(?-u:\b)(?:(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9+/]{24,})",
        |text, at| digits(&text[at.clone()]) > 0 && is_varied(text, at),
    ),
    (
        Detector::UrlPassword,
        r#"(?-u:\b)[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s/:@"'`<>]{0,100}:[^\s/@"'`<>]{1,100}@[A-Za-z0-9.\[-]"#,
        |text, at| {
            let rest = text[at].split_once("://").map(|(_, rest)| rest);
            let pair = rest.and_then(|rest| rest.rsplit_once('@')?.0.split_once(':'));
            pair.is_some_and(|(user, password)| !is_example(user, password))
        },
    ),
    (
        Detector::BearerToken,
        r"(?i-u:\bbearer)[ :]{1,3}[A-Za-z0-9._~+/-]{20,}",
        |text, at| {
            let token = text[at].rsplit([' ', ':']).next();
            token.is_some_and(|token| digits(token) >= 2 && distinct(token) >= 10)
        },
    ),
    (
        Detector::BearerToken,
        r#"(?i-u:\bauthorization["']?\s{0,2}[:=]\s{0,2}["']?basic )[A-Za-z0-9+/]{12,}"#,
        |text, at| {
            let token = text[at].rsplit(' ').next();
            token.is_some_and(|token| distinct(token) >= 8)
        },
    ),
    // Last: what has a shape of its own is named by it.
    (
        Detector::ApiKey,
        concat!(
            r#"(?i-u:(?:api|access|auth|secret|client|private)[_-]?(?:key|token|secret)["']?\s{0,3}"#,
            r#"(?:[:=]|:=|=>)\s{0,3}["']?)[A-Za-z0-9_+/-]{20,}"#
        ),
        |text, at| {
            let value = text[at]
                .rsplit([' ', '\t', '\n', '"', '\'', ':', '=', '>'])
                .next();
            value.is_some_and(|value| {
                let shouted = !value.bytes().any(|byte| byte.is_ascii_lowercase());
                !(shouted && value.contains('_')) && digits(value) >= 3 && distinct(value) >= 12
            })
        },
    ),
];

/// How far behind its first line the body of a private key begins at the latest.
const ARMOUR_BYTES: usize = 600;

/// What a row of the same character, or of a few, is not.
fn is_varied(text: &str, at: Range<usize>) -> bool {
    distinct(&text[at]) >= 10
}

/// Passwords that stand for one.
const EXAMPLES: [&str; 16] = [
    "changeme",
    "example",
    "guest",
    "mypassword",
    "pass",
    "passwd",
    "password",
    "passwort",
    "pw",
    "pwd",
    "root",
    "secret",
    "test",
    "token",
    "postgres",
    "mysecretpassword",
];

fn is_example(user: &str, password: &str) -> bool {
    let lower = password.to_ascii_lowercase();
    EXAMPLES.contains(&lower.as_str())
        || lower == user.to_ascii_lowercase()
        || lower.contains("your")
        || lower.contains("password")
        || password.contains(['<', '>', '{', '}', '$', '*', '[', ']', '%', '…'])
        || distinct(password) < 3
        // A port, as in `host:8080@`, which some tools write.
        || (password.len() <= 5 && digits(password) == password.len())
}
