//! What production refuses: backends that anybody could read or write.
//!
//! The rules hold in an environment whose name means production, in any spelling, and there they stop
//! the start with a remedy. Elsewhere the same findings can be shown as advice. A server on this machine
//! is reached over loopback: it needs no encryption, but it still needs a password, as others have
//! accounts on the machine too.
//!
//! How easy a password is to guess is estimated by zxcvbn, which knows common passwords, words, names,
//! dates, keyboard walks and their usual disguises, and by its length.

use std::net::IpAddr;

use zxcvbn::{Score, zxcvbn};

use super::Config;
use crate::error::{Error, ErrorKind, Result};

/// Fewest characters of a password for a machine.
const SHORTEST_PASSWORD: usize = 12;

/// Whether an environment's name means production: `prod`, `production`, `live` or `prd`, alone or as a
/// word in a longer name such as `prod-eu`, in any case.
#[must_use]
pub fn is_production(environment: &str) -> bool {
    environment
        .split(|c: char| !c.is_ascii_alphabetic())
        .any(|word| {
            ["prod", "production", "live", "prd"]
                .iter()
                .any(|name| word.eq_ignore_ascii_case(name))
        })
}

/// Whether a host name or address means this machine. A path is a socket on it.
#[must_use]
pub fn is_local(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.starts_with('/')
        || bare.eq_ignore_ascii_case("localhost")
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Why a password is no protection; `None` when it is one.
pub(crate) fn weakness(password: &str) -> Option<&'static str> {
    if password.is_empty() {
        return Some("there is none");
    }
    if password.chars().count() < SHORTEST_PASSWORD {
        return Some("it is shorter than 12 characters");
    }
    // A long text of one character is as easy to guess as a short one; both are zxcvbn's to see.
    (zxcvbn(password, &[]).score() < Score::Four).then_some("it is easy to guess")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w_60_every_spelling_of_production_is_production() {
        for name in [
            "prod",
            "PROD",
            "Production",
            "live ",
            "prd",
            "prod-eu",
            "eu_live",
        ] {
            assert!(is_production(name), "{name}");
        }
        for name in [
            "",
            "development",
            "test",
            "staging",
            "reproduction",
            "alive",
            "product",
        ] {
            assert!(!is_production(name), "{name}");
        }
    }

    #[test]
    fn w_60_passwords_are_judged_by_how_hard_they_are_to_guess() {
        let weak = [
            "",
            "password1",
            "password123!",
            "change-me-please",
            "P@ssw0rdP@ssw0rd",
            "qwertyuiop1234",
            "aaaaaaaaaaaaaaaaaaaaaaaa",
            "123456789012345",
            "adminadminadmin",
            "Summer2026!!",
        ];
        for password in weak {
            assert!(weakness(password).is_some(), "{password}");
        }
        for password in [
            "kV9#tL2m-Qx7wRzB",
            "7f3a9c51e0b84d26a1f7",
            "correct horse battery staple",
        ] {
            assert_eq!(weakness(password), None, "{password}");
        }
    }

    #[test]
    fn loopback_is_this_machine_in_every_spelling() {
        for host in [
            "localhost",
            "127.0.0.1",
            "127.9.9.9",
            "[::1]",
            "::1",
            "/run/redis.sock",
        ] {
            assert!(is_local(host), "{host}");
        }
        for host in ["10.0.0.1", "localhost.example", "0.0.0.0", ""] {
            assert!(!is_local(host), "{host}");
        }
    }
}
