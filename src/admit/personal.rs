//! The shapes of personal data. Wherever there are check digits, they must be right.

use std::net::IpAddr;
use std::ops::Range;

use super::config::Detector;
use super::detect::{BuiltIn, distinct};

/// What is looked for, and how closely.
pub(super) const PATTERNS: &[BuiltIn] = &[
    (
        Detector::Email,
        r"(?-u:\b)[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?-u:\b)",
        |text, at| {
            let domain = text[at].rsplit('@').next().unwrap_or_default();
            !is_reserved(&domain.to_ascii_lowercase())
        },
    ),
    (
        Detector::Phone,
        r"\+[1-9][0-9 ().\-]{6,22}[0-9]",
        |text, at| {
            // Behind a letter, a digit or a bracket it is a sum.
            let before = text[..at.start].chars().next_back();
            let is_sum =
                before.is_some_and(|c| c.is_alphanumeric() || matches!(c, ')' | ']' | '+'));
            let digits = super::detect::digits(&text[at.clone()]);
            !is_sum && (8..=15).contains(&digits) && ends_there(text, at.end)
        },
    ),
    (
        Detector::Phone,
        r"(?:\([0-9]{3}\) ?|(?-u:\b)[0-9]{3}[ .\-])[0-9]{3}[ .\-][0-9]{4}(?-u:\b)",
        |text, at| {
            let before = text[..at.start].chars().next_back();
            !before.is_some_and(|c| matches!(c, '-' | '.' | '/')) && ends_there(text, at.end)
        },
    ),
    (
        Detector::Iban,
        r"(?-u:\b)[A-Z]{2}[0-9]{2} ?[A-Z0-9]{4}",
        |text, at| is_iban(&text[at.start..]),
    ),
    (
        Detector::CreditCard,
        concat!(
            r"(?-u:\b)(?:[0-9]{4}[ \-][0-9]{4}[ \-][0-9]{4}[ \-][0-9]{4}(?:[ \-][0-9]{3})?",
            r"|[0-9]{4}[ \-][0-9]{6}[ \-][0-9]{4,5}|[0-9]{13,19})(?-u:\b)"
        ),
        is_card,
    ),
    (
        Detector::Ssn,
        r"(?-u:\b)[0-9]{3}-[0-9]{2}-[0-9]{4}(?-u:\b)",
        |text, at| {
            let number = &text[at.clone()];
            let area = &number[..3];
            let given = area != "000" && area != "666" && !area.starts_with('9');
            let part_of_more = text[..at.start].ends_with('-') || text[at.end..].starts_with('-');
            given && &number[4..6] != "00" && &number[7..] != "0000" && !part_of_more
        },
    ),
    (
        Detector::Ip,
        r"(?-u:\b)(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?-u:\b)",
        |text, at| {
            let more = text[..at.start].ends_with('.')
                || text[at.end..]
                    .strip_prefix('.')
                    .is_some_and(starts_with_digit);
            !more && is_public(&text[at])
        },
    ),
    (
        Detector::Ip,
        r"(?-u:\b)(?:[0-9A-Fa-f]{1,4}:){2,7}(?::?[0-9A-Fa-f]{1,4}){1,7}(?-u:\b)",
        |text, at| is_public(&text[at]),
    ),
];

fn starts_with_digit(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
}

/// Whether no digit comes right after.
fn ends_there(text: &str, end: usize) -> bool {
    !starts_with_digit(&text[end..])
}

/// Domains that belong to nobody: RFC 2606 and RFC 6761.
fn is_reserved(domain: &str) -> bool {
    let top = domain.rsplit('.').next().unwrap_or_default();
    let name = domain.rsplit('.').nth(1).unwrap_or_default();
    matches!(top, "example" | "invalid" | "localhost" | "test")
        || (name == "example" && matches!(top, "com" | "net" | "org"))
}

fn is_card(text: &str, at: Range<usize>) -> bool {
    let digits: Vec<u32> = text[at].chars().filter_map(|c| c.to_digit(10)).collect();
    // Those that are issued begin with 2 to 6.
    let issued = matches!(digits.first(), Some(2..=6));
    let shown: String = digits
        .iter()
        .filter_map(|digit| char::from_digit(*digit, 10))
        .collect();
    issued && (13..=19).contains(&digits.len()) && distinct(&shown) > 1 && luhn(&digits)
}

/// The check digit of ISO/IEC 7812.
fn luhn(digits: &[u32]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(i, digit)| match (i % 2, digit * 2) {
            (0, _) => *digit,
            (_, double) if double > 9 => double - 9,
            (_, double) => double,
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Lengths of account numbers by country, as registered under ISO 13616.
const IBANS: &[(usize, &str)] = &[
    (15, "NO"),
    (16, "BE"),
    (18, "DK FI FK FO GL NL SD"),
    (19, "MK SI"),
    (20, "AT BA EE KZ LT LU MN XK"),
    (21, "CH HR LI LV"),
    (22, "BG BH CR DE GB GE IE ME RS VA"),
    (23, "AE GI IL IQ OM SO TL"),
    (24, "AD CZ ES MD PK RO SA SE SK TN VG"),
    (25, "LY PT ST"),
    (26, "IS TR"),
    (27, "BI DJ FR GR IT MC MR SM"),
    (28, "AL AZ BY CY DO GT HN HU LB NI PL SV"),
    (29, "BR EG PS QA UA"),
    (30, "JO KW MU YE"),
    (31, "MT SC"),
    (32, "LC"),
    (33, "RU"),
];

/// Whether `text` begins with an account number: as long as its country's are, and 1 modulo 97.
fn is_iban(text: &str) -> bool {
    let country = &text[..2];
    let length = IBANS
        .iter()
        .find(|(_, countries)| countries.split(' ').any(|known| known == country));
    let Some(&(length, _)) = length else {
        return false;
    };
    let mut number = Vec::with_capacity(length);
    let mut rest = text.bytes();
    while number.len() < length {
        match rest.next() {
            Some(byte) if byte.is_ascii_digit() || byte.is_ascii_uppercase() => number.push(byte),
            Some(b' ') => {}
            _ => return false,
        }
    }
    let goes_on = rest.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    number.rotate_left(4);
    let remainder = number.iter().fold(0_u32, |sum, byte| match byte {
        b'0'..=b'9' => (sum * 10 + u32::from(byte - b'0')) % 97,
        letter => (sum * 100 + u32::from(letter - b'A') + 10) % 97,
    });
    !goes_on && remainder == 1
}

/// Whether it is an address that somebody may have on the internet.
fn is_public(text: &str) -> bool {
    match text.parse() {
        Ok(IpAddr::V4(ip)) => {
            !(ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_documentation()
                || ip.is_multicast()
                || ip.is_broadcast()
                // Versions of programs, mostly.
                || ip.octets()[0] < 4
                || ip.octets()[0] >= 240)
        }
        // 2000::/3 is what is given out; 2001:db8::/32 is for examples.
        Ok(IpAddr::V6(ip)) => {
            let [first, second, ..] = ip.segments();
            first & 0xe000 == 0x2000 && !(first == 0x2001 && second == 0xdb8)
        }
        Err(_) => false,
    }
}
