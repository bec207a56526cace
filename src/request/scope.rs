//! Who may share an answer.
//!
//! A [`Scope`] is part of every key, so no answer crosses from one scope into another. It is made
//! by the side that authenticated the caller, never from a field of the request: a caller who
//! could choose a scope could read another's answers.
//!
//! The four kinds never meet: a tenant, a shared scope and an API key of the same name are three
//! scopes. An API key is digested at once and the secret is not kept.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::canonical::{Digest, Encoder, Sink};
use super::key::{deserialize_digest, hex, serialize_digest};

const API_KEY_DOMAIN: &str = "askonce api key scope v1";
const LABEL_DOMAIN: &str = "askonce scope label v1";
const DIGEST_DOMAIN: &str = "askonce scope digest v1";

/// The most characters of a name that a label repeats.
const LABEL_CHARS: usize = 64;

/// The principal whose requests may share answers with each other.
///
/// ```
/// use askonce::{Request, Scope};
///
/// let acme = Request::prompt("What is our refund policy?").scope(Scope::tenant("acme"));
/// let other = Request::prompt("What is our refund policy?").scope(Scope::tenant("globex"));
/// assert_ne!(acme.exact_key(), other.exact_key());
/// assert_ne!(acme.partition(), other.partition());
///
/// let key = Scope::api_key("sk-secret");
/// assert!(!format!("{key:?} {}", key.label()).contains("secret"));
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(Kind);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    Local,
    Tenant(Arc<str>),
    ApiKey(Digest),
    Shared(Arc<str>),
}

impl Scope {
    /// The single principal of an embedded cache: everything that process stores is its own.
    ///
    /// It is the default of [`Request::prompt`](super::Request::prompt). A server that answers
    /// several callers must not use it for them.
    #[must_use]
    pub const fn local() -> Self {
        Self(Kind::Local)
    }

    /// All authenticated callers of one tenant.
    #[must_use]
    pub fn tenant(name: impl Into<Arc<str>>) -> Self {
        Self(Kind::Tenant(name.into()))
    }

    /// The holder of one API key: the default of a server that knows no tenants.
    ///
    /// Keeps a domain-separated digest of the key and drops the key itself.
    #[must_use]
    pub fn api_key(secret: impl AsRef<[u8]>) -> Self {
        let digest = blake3::derive_key(API_KEY_DOMAIN, secret.as_ref());
        Self(Kind::ApiKey(digest))
    }

    /// Every caller that is given this name, whoever they are: sharing across principals, which
    /// only a deployment's configuration should ask for.
    #[must_use]
    pub fn shared(name: impl Into<Arc<str>>) -> Self {
        Self(Kind::Shared(name.into()))
    }

    /// Whether different principals share answers in this scope.
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        matches!(self.0, Kind::Shared(_))
    }

    /// A name for metrics, logs and the savings ledger: bounded, printable, free of secrets.
    ///
    /// A tenant is shown by its name, an API key as `key:` and eight hex digits, a shared scope as
    /// `shared:` and its name. A name that is long, empty, or holds other characters than
    /// letters, digits and `-_.@/+` is cut and cleaned, and gets a `#` and eight hex digits, so
    /// that labels of different scopes stay apart.
    ///
    /// ```
    /// use askonce::Scope;
    ///
    /// assert_eq!(Scope::local().label(), "local");
    /// assert_eq!(Scope::tenant("acme").label(), "acme");
    /// assert_eq!(Scope::shared("faq").label(), "shared:faq");
    /// assert!(Scope::tenant("local").label().starts_with("local#"));
    /// ```
    #[must_use]
    pub fn label(&self) -> Cow<'_, str> {
        match &self.0 {
            Kind::Local => Cow::Borrowed("local"),
            Kind::Tenant(name) if &**name == "local" => Cow::Owned(self.marked_label(name)),
            Kind::Tenant(name) if is_plain(name) => Cow::Borrowed(name),
            Kind::Tenant(name) => Cow::Owned(self.marked_label(name)),
            Kind::ApiKey(digest) => Cow::Owned(format!("key:{}", hex(&digest[..4]))),
            Kind::Shared(name) if is_plain(name) => Cow::Owned(format!("shared:{name}")),
            Kind::Shared(name) => Cow::Owned(format!("shared:{}", self.marked_label(name))),
        }
    }

    /// A digest of the scope, for names that must differ as scopes do.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let mut encoder = Encoder::hashing(DIGEST_DOMAIN);
        self.encode(&mut encoder);
        encoder.finish()
    }

    fn marked_label(&self, name: &str) -> String {
        let mut label: String = name
            .chars()
            .take(LABEL_CHARS)
            .map(|c| if is_plain_char(c) { c } else { '_' })
            .collect();
        let mut encoder = Encoder::hashing(LABEL_DOMAIN);
        self.encode(&mut encoder);
        label.push('#');
        label.push_str(&hex(&encoder.finish()[..4]));
        label
    }

    pub(super) fn encode<S: Sink>(&self, encoder: &mut Encoder<S>) {
        encoder.list(2);
        match &self.0 {
            Kind::Local => {
                encoder.text("local");
                encoder.null();
            }
            Kind::Tenant(name) => {
                encoder.text("tenant");
                encoder.text(name);
            }
            Kind::ApiKey(digest) => {
                encoder.text("api_key");
                encoder.bytes(digest);
            }
            Kind::Shared(name) => {
                encoder.text("shared");
                encoder.text(name);
            }
        }
    }
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().count() <= LABEL_CHARS && name.chars().all(is_plain_char)
}

fn is_plain_char(c: char) -> bool {
    c.is_alphanumeric() || "-_.@/+".contains(c)
}

impl Default for Scope {
    fn default() -> Self {
        Self::local()
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scope({})", self.label())
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label())
    }
}

/// The stored form. An API key is stored as its digest.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stored<'a> {
    Local,
    Tenant(Cow<'a, str>),
    ApiKey(
        #[serde(
            serialize_with = "serialize_digest",
            deserialize_with = "deserialize_digest"
        )]
        Digest,
    ),
    Shared(Cow<'a, str>),
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Kind::Local => Stored::Local,
            Kind::Tenant(name) => Stored::Tenant(Cow::Borrowed(name)),
            Kind::ApiKey(digest) => Stored::ApiKey(*digest),
            Kind::Shared(name) => Stored::Shared(Cow::Borrowed(name)),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match Stored::deserialize(deserializer)? {
            Stored::Local => Kind::Local,
            Stored::Tenant(name) => Kind::Tenant(name.into()),
            Stored::ApiKey(digest) => Kind::ApiKey(digest),
            Stored::Shared(name) => Kind::Shared(name.into()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_bounded_printable_and_distinct() {
        let long = "x".repeat(5_000);
        let names = [
            "local",
            "",
            "a b",
            "a\nb",
            "key:00000000",
            "shared:faq",
            &long,
        ];
        let mut labels: Vec<String> = names
            .iter()
            .flat_map(|name| {
                [
                    Scope::tenant(*name),
                    Scope::shared(*name),
                    Scope::api_key(name),
                ]
            })
            .chain([Scope::local(), Scope::shared("faq")])
            .map(|scope| scope.label().into_owned())
            .collect();
        for label in &labels {
            assert!(label.len() < 100, "{label}");
            assert!(!label.contains(|c: char| c.is_control() || c.is_whitespace()));
        }
        let count = labels.len();
        labels.sort();
        labels.dedup();
        assert_eq!(labels.len(), count);
    }

    #[test]
    fn an_api_key_leaves_no_trace_of_the_secret() {
        let scope = Scope::api_key("sk-very-secret");
        let json = serde_json::to_string(&scope).unwrap();
        for shown in [format!("{scope:?}"), scope.to_string(), json] {
            assert!(!shown.contains("secret"), "{shown}");
        }
        assert_eq!(scope, Scope::api_key(b"sk-very-secret"));
        assert_ne!(scope, Scope::api_key("sk-very-Secret"));
    }

    #[test]
    fn a_scope_survives_text_and_binary_formats() {
        for scope in [
            Scope::local(),
            Scope::tenant("acme"),
            Scope::shared("acme"),
            Scope::api_key("sk-1"),
        ] {
            let json = serde_json::to_string(&scope).unwrap();
            assert_eq!(serde_json::from_str::<Scope>(&json).unwrap(), scope);
            let bytes = rmp_serde::to_vec(&scope).unwrap();
            assert_eq!(rmp_serde::from_slice::<Scope>(&bytes).unwrap(), scope);
        }
        assert_eq!(
            serde_json::to_string(&Scope::tenant("acme")).unwrap(),
            r#"{"tenant":"acme"}"#
        );
    }
}
