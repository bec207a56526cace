//! What production refuses: backends that anybody could read or write.
//!
//! The rules hold in an environment whose name means production, in any spelling, and there they stop
//! the start with a remedy. Elsewhere the same findings can be shown as advice. A server on this machine
//! is reached over loopback: it needs no encryption, but Redis still needs a password, as others have
//! accounts on the machine too.
//!
//! How easy a password is to guess is estimated by zxcvbn, which knows common passwords, words, names,
//! dates, keyboard walks and their usual disguises, and by its length. zxcvbn comes with the feature
//! `config-file`; without it, the estimate is a rough one.
//!
//! What protects stored values is as strong in every environment: a codec takes no weak secret. A backend
//! of a registered type is for its factory to judge.

use std::net::IpAddr;

use super::Config;
use crate::backend::BackendConfig;
use crate::error::{Error, ErrorKind, Result};

/// Fewest characters of a password for a machine.
const SHORTEST_PASSWORD: usize = 12;

/// Names of environments that are not production, as the words in them.
const HARMLESS: [&str; 13] = [
    "ci",
    "demo",
    "dev",
    "development",
    "integration",
    "local",
    "qa",
    "sandbox",
    "stage",
    "staging",
    "test",
    "testing",
    "uat",
];

/// Refuses what production must not have. Elsewhere nothing is refused; a name that is known neither as
/// production nor as anything else is told of, since nobody can say what was meant.
pub(super) fn guard(config: &Config) -> Result<()> {
    let environment = config.environment.trim();
    if !is_production(environment) {
        let known = words(environment).any(|word| {
            let is = |name: &&str| word.eq_ignore_ascii_case(name);
            HARMLESS.iter().any(is)
        });
        if !known {
            tracing::warn!(
                environment,
                "this name of an environment is not known: the checks for production are off"
            );
        }
        return Ok(());
    }
    for (i, section) in config.backends.iter().enumerate() {
        if !section.enabled || !config.enabled {
            continue;
        }
        let path = format!("backends[{i}]");
        match &section.backend {
            BackendConfig::Redis(redis) => guard_redis(redis, &path)?,
            BackendConfig::Memcached(memcached) if !memcached.trusted_network => {
                for (at, server) in memcached.servers.iter().enumerate() {
                    let host = server.rsplit_once(':').map_or(&**server, |(host, _)| host);
                    if !is_local(host) {
                        return Err(Error::new(
                            ErrorKind::Config,
                            "values would cross the network unencrypted, and whoever reaches memcached could change them",
                        )
                        .with("field", format!("{path}.servers[{at}]"))
                        .with("environment", environment)
                        .with(
                            "remedy",
                            "use Redis with TLS and a password, or set trusted_network if the network is private and encrypted by other means",
                        ));
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(feature = "redis")]
fn guard_redis(redis: &crate::backend::RedisConfig, path: &str) -> Result<()> {
    let Some(exposure) = redis.exposure() else {
        return Ok(());
    };
    for (field, password) in &exposure.passwords {
        if let Some(weakness) = weakness(password) {
            return Err(
                Error::new(ErrorKind::Config, "production needs a strong password here")
                    .with("field", format!("{path}.{field}"))
                    .with("problem", weakness)
                    .with(
                        "remedy",
                        "set one made by `openssl rand -hex 32`, in the server too",
                    ),
            );
        }
    }
    if exposure.encrypted || redis.trusted_network {
        return Ok(());
    }
    match exposure.hosts.iter().find(|(_, host)| !is_local(host)) {
        None => Ok(()),
        Some((field, host)) => Err(Error::new(
            ErrorKind::Config,
            "values and the password would cross the network unencrypted",
        )
        .with("field", format!("{path}.{field}"))
        .with("host", host)
        .with(
            "remedy",
            "use rediss:// or redis_ssl: true, or set trusted_network if the network is private and encrypted by other means",
        )),
    }
}

/// Such a backend is refused as such.
#[cfg(not(feature = "redis"))]
fn guard_redis(_: &crate::backend::RedisConfig, _: &str) -> Result<()> {
    Ok(())
}

fn words(environment: &str) -> impl Iterator<Item = &str> {
    environment.split(|c: char| !c.is_ascii_alphabetic())
}

/// Whether an environment's name means production: `prod`, `production`, `live` or `prd`, alone or as a
/// word in a longer name such as `prod-eu`, in any case.
#[must_use]
pub fn is_production(environment: &str) -> bool {
    words(environment).any(|word| {
        let names = ["prod", "production", "live", "prd"];
        names.iter().any(|name| word.eq_ignore_ascii_case(name))
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
#[cfg_attr(not(feature = "redis"), allow(dead_code))]
fn weakness(password: &str) -> Option<&'static str> {
    if password.is_empty() {
        return Some("there is none");
    }
    if password.chars().count() < SHORTEST_PASSWORD {
        return Some("it is shorter than 12 characters");
    }
    is_guessable(password).then_some("it is easy to guess")
}

/// A long text of one character is as easy to guess as a short one; both are zxcvbn's to see.
#[cfg(feature = "config-file")]
fn is_guessable(password: &str) -> bool {
    zxcvbn::zxcvbn(password, &[]).score() < zxcvbn::Score::Four
}

/// Without zxcvbn, what has few different characters, or letters alone.
#[cfg(not(feature = "config-file"))]
#[cfg_attr(not(feature = "redis"), allow(dead_code))]
fn is_guessable(password: &str) -> bool {
    let mut seen: Vec<char> = password.chars().collect();
    seen.sort_unstable();
    seen.dedup();
    seen.len() < 8 || password.chars().all(char::is_alphabetic)
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

    #[cfg(feature = "config-file")]
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
