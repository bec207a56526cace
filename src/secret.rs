//! Values that must not be kept.
//!
//! A [`Secret`] can be used and passed on, and nothing else: it has no stored form, so it is no
//! [`CacheValue`](crate::typed::CacheValue) and a type that holds one cannot derive it; it is no
//! [`KeyPart`](crate::typed::KeyPart), so it never names a value; its `Debug` form tells nothing. What
//! is wrong with a program that caches one is said by the compiler.

use std::fmt;

use serde::{Deserialize, Deserializer};

/// A value that is never stored, never part of a key, and never shown.
///
/// ```
/// use askonce::Secret;
///
/// let token = Secret::new("hunter2".to_owned());
/// assert_eq!(format!("{token:?}"), "Secret(..)");
/// assert_eq!(token.expose(), "hunter2");
/// ```
///
/// It cannot be stored:
///
/// ```compile_fail
/// # use askonce::{Cache, Secret, Ttl, typed::Key};
/// # async fn example(cache: Cache) -> askonce::Result<()> {
/// let token = Secret::new("hunter2".to_owned());
/// cache.set(&Key::new("token"), &token, Ttl::Forever).await
/// # }
/// ```
///
/// nor tell two values apart:
///
/// ```compile_fail
/// # use askonce::{Secret, typed::Key};
/// let key = Key::new("user").part(Secret::new("hunter2".to_owned()));
/// ```
///
/// A key that must depend on a secret is given the digest of one.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Marks `value` as a secret.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value, for whoever needs it now.
    pub const fn expose(&self) -> &T {
        &self.0
    }

    /// The value, no longer marked.
    pub fn into_exposed(self) -> T {
        self.0
    }
}

impl<T> From<T> for Secret<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Secrets are read from settings. They are written nowhere.
impl<'de, T: Deserialize<'de>> Deserialize<'de> for Secret<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_and_never_shown() {
        #[derive(Debug, Deserialize)]
        struct Login {
            user: String,
            password: Secret<String>,
        }
        let login: Login = serde_json::from_str(r#"{"user":"ada","password":"hunter2"}"#).unwrap();
        assert_eq!(login.password.expose(), "hunter2");
        let shown = format!("{login:?} {:?}", Some(&login.password));
        assert!(
            shown.contains(&login.user) && !shown.contains("hunter2"),
            "{shown}"
        );
        assert_eq!(login.password.into_exposed(), "hunter2");
    }
}
