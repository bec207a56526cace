//! What a list or a query was asked with.

use std::collections::BTreeMap;
use std::fmt;

use crate::typed::{KeyPart, KeyWriter};

/// Named parameters, in the order of their names however they were given.
///
/// ```
/// use askonce::repository::{Param, Params};
///
/// let params = Params::new().with("page", 2).with("status", "open");
/// assert_eq!(params, Params::new().with("status", "open").with("page", 2));
/// assert_eq!(params.get("page"), Some(&Param::Integer(2)));
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Params(BTreeMap<String, Param>);

/// The value of a parameter.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Param {
    /// A text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// Yes or no.
    Flag(bool),
    /// Several, in this order.
    List(Vec<Param>),
}

impl Params {
    /// No parameters.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// These parameters and one more; it takes the place of one of the same name.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Param>) -> Self {
        self.0.insert(name.into(), value.into());
        self
    }

    /// The value of a parameter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Param> {
        self.0.get(name)
    }

    /// Every parameter, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Param)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }
}

/// Shows the names and no value: what is asked for may be nobody's business.
impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Params").field(&self.0.keys()).finish()
    }
}

impl fmt::Debug for Param {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text(_) => "Text(..)",
            Self::Integer(_) => "Integer(..)",
            Self::Flag(_) => "Flag(..)",
            Self::List(_) => "List(..)",
        })
    }
}

impl KeyPart for Params {
    fn write(&self, key: &mut KeyWriter) {
        self.0.write(key);
    }
}

impl KeyPart for Param {
    fn write(&self, key: &mut KeyWriter) {
        match self {
            Self::Text(text) => text.write(key),
            Self::Integer(number) => number.write(key),
            Self::Flag(flag) => flag.write(key),
            Self::List(params) => params.write(key),
        }
    }
}

impl From<&str> for Param {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Param {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Param {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<i32> for Param {
    fn from(number: i32) -> Self {
        Self::Integer(number.into())
    }
}

impl From<u32> for Param {
    fn from(number: u32) -> Self {
        Self::Integer(number.into())
    }
}

impl From<bool> for Param {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl<T: Into<Self>> From<Vec<T>> for Param {
    fn from(params: Vec<T>) -> Self {
        Self::List(params.into_iter().map(Into::into).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::typed::Key;

    #[test]
    fn w_23_parameters_count_by_name_kind_and_value_and_not_by_order() {
        let key = |params: &Params| Key::new(params);
        let (a, b) = (Params::new().with("a", 1), Params::new().with("b", 1));
        assert_ne!(key(&a), key(&b));
        assert_ne!(key(&a), key(&Params::new().with("a", "1")));
        assert_ne!(key(&a), key(&Params::new().with("a", vec![1])));
        assert_ne!(key(&a), key(&Params::new().with("a", true)));
        assert_eq!(
            key(&a.clone().with("b", 2)),
            key(&Params::new().with("b", 2).with("a", 1))
        );
        assert_ne!(
            key(&Params::new().with("a", vec!["x", "y"])),
            key(&Params::new().with("a", vec!["xy"])),
        );
    }

    #[test]
    fn values_are_not_shown() {
        let params = Params::new().with("email", "ada@example.com");
        let shown = format!("{params:?} {:?}", params.get("email"));
        assert!(shown.contains("email") && !shown.contains("ada"), "{shown}");
    }
}
