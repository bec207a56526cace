//! Who is calling: from an API key, or the lack of one, to a scope.
//!
//! | `auth.keys` | the caller | gets |
//! |---|---|---|
//! | listed | sends one of them | its tenant's scope |
//! | listed | sends another or none | 401 |
//! | empty | sends any key | a scope of that key alone |
//! | empty | this machine, no key | the local scope, and may look after all entries |
//! | empty | another machine, no key | 401, unless `auth.allow_anonymous` |
//!
//! A scope never comes from a field of the request. A browser on this machine can be made to call
//! `localhost` by any page it shows, so a caller without a key is not trusted when the request names
//! another host or comes from a page of another site.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use askonce::{Error, ErrorKind, Scope};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use sha2::{Digest, Sha256};

use super::error::Problem;
use crate::config::{AuthConfig, decode_sha256};

/// The headers that carry a caller's key, in the order they are looked at.
pub(crate) const KEY_HEADERS: [HeaderName; 3] = [
    header::AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
];

/// Somebody who may call.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// Whose answers this caller shares.
    pub(crate) scope: Scope,
    /// The name of the caller's key, among those that share the scope; `None` where keys are not listed, as
    /// each has a scope of its own then.
    pub(crate) principal: Option<Arc<str>>,
    /// Whether the caller may look after entries of every scope.
    pub(crate) admin: bool,
}

impl Caller {
    /// The request as one of this caller's, who shares its scope with others.
    pub(crate) fn sign(&self, request: askonce::Request) -> askonce::Request {
        match &self.principal {
            Some(name) => request.principal(Arc::clone(name)),
            None => request,
        }
    }

    /// The caller, unless it is about to reach for what belongs to others.
    pub(crate) fn require_admin(&self, what: &'static str) -> Result<(), Problem> {
        if self.admin {
            Ok(())
        } else {
            Err(Problem::forbidden(format!("only an admin may {what}")))
        }
    }
}

/// Tells callers by their keys. Holds digests, never keys.
pub(crate) struct Auth {
    keys: HashMap<[u8; 32], Caller>,
    allow_anonymous: bool,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth")
            .field("keys", &self.keys.len())
            .finish_non_exhaustive()
    }
}

impl Auth {
    /// # Errors
    /// Names the variable that is not set, or the two keys that are the same.
    pub(crate) fn new(config: &AuthConfig) -> Result<Self, Error> {
        let mut keys = HashMap::new();
        for (i, key) in config.keys.iter().enumerate() {
            let digest = match (&key.key_env, &key.key_sha256) {
                (Some(variable), _) => {
                    sha256(secret(variable, &format!("auth.keys[{i}].key_env"))?.trim())
                }
                (_, Some(digest)) => decode_sha256(digest).unwrap_or_default(),
                _ => continue,
            };
            let tenant = key.tenant.as_ref().unwrap_or(&key.name).as_str();
            let caller = Caller {
                scope: Scope::tenant(tenant),
                principal: Some(key.name.as_str().into()),
                admin: key.admin,
            };
            if keys.insert(digest, caller).is_some() {
                return Err(
                    Error::new(ErrorKind::Config, "the same key is listed twice")
                        .with("field", format!("auth.keys[{i}]"))
                        .with("name", &key.name),
                );
            }
        }
        Ok(Self {
            keys,
            allow_anonymous: config.allow_anonymous,
        })
    }

    /// Whether the keys that callers send are meant for this server, and so are not to be passed on.
    pub(crate) fn owns_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    /// The caller.
    ///
    /// # Errors
    /// 401 when the key is unknown or missing, 403 when a page of another site seems to call.
    pub(crate) fn identify(
        &self,
        headers: &HeaderMap,
        peer: SocketAddr,
    ) -> Result<Caller, Problem> {
        let marks = Marks::of(headers);
        let key = marks.key();
        if self.owns_keys() {
            let caller = key.and_then(|key| self.keys.get(&sha256(key)));
            return caller.cloned().ok_or_else(|| {
                unauthorized(if key.is_some() {
                    "the API key is not known"
                } else {
                    "an API key is needed"
                })
            });
        }
        if let Some(key) = key {
            return Ok(Caller {
                scope: Scope::api_key(key),
                principal: None,
                admin: false,
            });
        }
        let local = peer.ip().to_canonical().is_loopback() && !marks.relayed;
        if local {
            marks.refuse_other_sites()?;
        } else if !self.allow_anonymous {
            return Err(unauthorized("an API key is needed from other machines"));
        }
        Ok(Caller {
            scope: Scope::local(),
            principal: None,
            admin: local,
        })
    }
}

/// The value of a variable that holds a key.
pub(crate) fn secret(variable: &str, field: &str) -> Result<String, Error> {
    std::env::var(variable)
        .ok()
        .filter(|value| !value.trim().is_empty())
        .ok_or_else(|| {
            Error::new(
                ErrorKind::Config,
                "the variable that should hold a key is not set",
            )
            .with("field", field)
            .with("variable", variable)
        })
}

fn sha256(key: impl AsRef<[u8]>) -> [u8; 32] {
    Sha256::digest(key).into()
}

/// What the headers say of who is calling. All of it is found in one pass, for most of it is not there.
#[derive(Default)]
struct Marks<'a> {
    /// As in [`KEY_HEADERS`], in that order.
    keys: [Option<&'a HeaderValue>; 3],
    /// Whether another proxy passed the request on: its peer address says nothing of the caller then.
    relayed: bool,
    site: Option<&'a HeaderValue>,
    host: Option<&'a HeaderValue>,
}

impl<'a> Marks<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let mut marks = Self::default();
        let [authorization, others @ ..] = &mut marks.keys;
        let [x_api_key, api_key] = others;
        for (name, value) in headers {
            // The first of a name counts.
            let place = match name.as_str() {
                "authorization" => &mut *authorization,
                "x-api-key" => &mut *x_api_key,
                "api-key" => &mut *api_key,
                "sec-fetch-site" => &mut marks.site,
                "host" => &mut marks.host,
                "forwarded" | "x-forwarded-for" | "x-real-ip" => {
                    marks.relayed = true;
                    continue;
                }
                _ => continue,
            };
            place.get_or_insert(value);
        }
        marks
    }

    /// The key that was sent.
    fn key(&self) -> Option<&'a [u8]> {
        let value = self.keys.iter().find_map(|key| *key)?.as_bytes();
        let key = match value.split_first_chunk::<7>() {
            Some((scheme, key)) if scheme.eq_ignore_ascii_case(b"bearer ") => key,
            _ => value,
        };
        Some(key.trim_ascii()).filter(|key| !key.is_empty())
    }

    fn refuse_other_sites(&self) -> Result<(), Problem> {
        let site = self.site.map(HeaderValue::as_bytes);
        let other_site = site.is_some_and(|site| site != b"same-origin" && site != b"none");
        let host = self
            .host
            .and_then(|host| host.to_str().ok())
            .unwrap_or("localhost");
        let name = host.rsplit_once(':').map_or(host, |(name, port)| {
            if port.bytes().all(|byte| byte.is_ascii_digit()) {
                name
            } else {
                host
            }
        });
        let name = name.trim_start_matches('[').trim_end_matches(']');
        // A name that another site has pointed at this machine.
        let other_name = !name.eq_ignore_ascii_case("localhost") && name.parse::<IpAddr>().is_err();
        if other_site || other_name {
            return Err(Problem::forbidden(
                "a page of another site may not call without an API key",
            ));
        }
        Ok(())
    }
}

fn unauthorized(detail: &'static str) -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        "Who is calling is not known",
        detail,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KeyConfig;

    const HERE: &str = "127.0.0.1:9";
    const AWAY: &str = "192.0.2.7:9";

    fn ask(auth: &Auth, peer: &str, headers: &[(&str, &str)]) -> Result<Caller, StatusCode> {
        let headers = headers.iter().map(|(name, value)| {
            (
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            )
        });
        auth.identify(&headers.collect(), peer.parse().unwrap())
            .map_err(|problem| problem.status())
    }

    fn open() -> Auth {
        Auth::new(&AuthConfig::default()).unwrap()
    }

    fn locked() -> Auth {
        let digest = sha256("sk-acme")
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let key = KeyConfig {
            name: "one".into(),
            tenant: Some("acme".into()),
            key_sha256: Some(digest),
            ..KeyConfig::default()
        };
        Auth::new(&AuthConfig {
            keys: vec![key],
            allow_anonymous: true,
        })
        .unwrap()
    }

    #[test]
    fn without_listed_keys_each_key_is_a_scope_of_its_own_and_no_admin() {
        let a = ask(&open(), HERE, &[("authorization", "Bearer a")]).unwrap();
        let b = ask(&open(), HERE, &[("x-api-key", "b")]).unwrap();
        assert_ne!(a.scope, b.scope);
        assert_eq!(
            a.scope,
            ask(&open(), AWAY, &[("authorization", "bearer  a ")])
                .unwrap()
                .scope
        );
        assert!(!a.admin && !b.admin);
    }

    #[test]
    fn only_this_machine_may_leave_out_the_key() {
        assert!(ask(&open(), HERE, &[]).unwrap().admin);
        assert!(ask(&open(), "[::ffff:127.0.0.1]:9", &[]).unwrap().admin);
        assert_eq!(
            ask(&open(), AWAY, &[]).unwrap_err(),
            StatusCode::UNAUTHORIZED
        );
        let relayed = ask(&open(), HERE, &[("x-forwarded-for", "192.0.2.7")]);
        assert_eq!(relayed.unwrap_err(), StatusCode::UNAUTHORIZED);
    }

    #[test]
    fn listed_keys_are_the_only_ones() {
        let caller = ask(&locked(), AWAY, &[("authorization", "Bearer sk-acme")]).unwrap();
        assert_eq!(caller.scope, Scope::tenant("acme"));
        let signed = caller.sign(askonce::Request::prompt("hello"));
        assert_eq!(signed.principal_name(), Some("one"));
        for headers in [&[][..], &[("authorization", "Bearer sk-other")]] {
            assert_eq!(
                ask(&locked(), HERE, headers).unwrap_err(),
                StatusCode::UNAUTHORIZED
            );
        }
    }

    #[test]
    fn pages_of_other_sites_are_turned_away() {
        for headers in [
            [("sec-fetch-site", "cross-site")],
            [("sec-fetch-site", "same-site")],
            [("host", "rebound.example:8080")],
        ] {
            assert_eq!(
                ask(&open(), HERE, &headers).unwrap_err(),
                StatusCode::FORBIDDEN
            );
        }
        for host in [
            "localhost:8080",
            "127.0.0.1:8080",
            "[::1]:8080",
            "[::1]",
            "LOCALHOST",
        ] {
            assert!(ask(&open(), HERE, &[("host", host)]).is_ok(), "{host}");
        }
    }
}
