//! What is stored under a key: a value with the name of its type, or the knowledge that there is none.
//!
//! The payload of the envelope is a tuple in whatever format the codec writes: `[1, schema, value]`, or
//! `[0]` for a null. The schema is a name that the type gives itself, not what the compiler calls it,
//! so it survives renames and rebuilds. A reader that asks for another type is told so; nothing is ever
//! guessed from the shape of a value, and no map of the caller's can be mistaken for bookkeeping of the
//! cache.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::de::{DeserializeOwned, Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A type whose values can be cached.
///
/// Implemented for numbers, strings, lists, sets, maps and tuples of such; derive it for your own
/// types:
///
/// ```
/// # #[cfg(feature = "macros")] {
/// use askonce::typed::CacheValue;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, CacheValue)]
/// #[cache_value(name = "user", version = 2)]
/// struct User {
///     id: u64,
///     name: Option<String>,
/// }
///
/// assert_eq!(User::schema(), "user@2");
/// assert_eq!(Vec::<User>::schema(), "[user@2]");
/// # }
/// ```
///
/// Not implemented for `Option` and `Result`: whether there is a value, and whether it could be had,
/// are things that the cache itself keeps apart (see [`Lookup`] and [`Loaded`](super::Loaded)).
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no name to be cached under",
    label = "not a `CacheValue`",
    note = "give your own type one: `#[derive(Serialize, Deserialize, CacheValue)] #[cache_value(name = \"...\")]`"
)]
pub trait CacheValue: Serialize + DeserializeOwned {
    /// The name and version of the stored form. Change it when values of the old form must not be
    /// read as values of the new one.
    fn schema() -> Cow<'static, str>;
}

macro_rules! named {
    ($($t:ty: $name:literal;)*) => {$(
        impl CacheValue for $t {
            fn schema() -> Cow<'static, str> {
                Cow::Borrowed($name)
            }
        }
    )*};
}
named! {
    bool: "bool"; char: "char"; String: "string"; Duration: "duration";
    u8: "u8"; u16: "u16"; u32: "u32"; u64: "u64"; u128: "u128"; usize: "usize";
    i8: "i8"; i16: "i16"; i32: "i32"; i64: "i64"; i128: "i128"; isize: "isize";
    f32: "f32"; f64: "f64"; serde_json::Value: "json"; bytes::Bytes: "bytes";
    Box<str>: "string"; Arc<str>: "string";
}

macro_rules! composed {
    ($([$($generics:tt)*] $t:ty: $form:literal, $($part:ident)+;)*) => {$(
        impl<$($generics)*> CacheValue for $t {
            fn schema() -> Cow<'static, str> {
                Cow::Owned(format!($form, $($part::schema()),+))
            }
        }
    )*};
}
composed! {
    [T: CacheValue] Vec<T>: "[{}]", T;
    [T: CacheValue] Box<T>: "{}", T;
    [T: CacheValue] Arc<T>: "{}", T;
    [T: CacheValue + Ord] BTreeSet<T>: "set<{}>", T;
    [T: CacheValue + Eq + Hash, S: BuildHasher + Default] HashSet<T, S>: "set<{}>", T;
    [K: CacheValue + Ord, V: CacheValue] BTreeMap<K, V>: "map<{},{}>", K V;
    [K: CacheValue + Eq + Hash, V: CacheValue, S: BuildHasher + Default] HashMap<K, V, S>: "map<{},{}>", K V;
    [A: CacheValue] (A,): "({},)", A;
    [A: CacheValue, B: CacheValue] (A, B): "({},{})", A B;
    [A: CacheValue, B: CacheValue, C: CacheValue] (A, B, C): "({},{},{})", A B C;
    [A: CacheValue, B: CacheValue, C: CacheValue, D: CacheValue] (A, B, C, D): "({},{},{},{})", A B C D;
}

/// What a cache knows about a key. That it could not find out is an error, a thing of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Lookup<T> {
    /// This value is stored.
    Hit(T),
    /// This value is stored, but its life is over: it is kept for those who would rather have an old
    /// value than none.
    Stale(T),
    /// It is stored that there is no value: asking the source again would be in vain.
    Null,
    /// Nothing is stored.
    Miss,
}

impl<T> Lookup<T> {
    /// The value, if a fresh one is stored.
    #[must_use]
    pub fn hit(self) -> Option<T> {
        match self {
            Self::Hit(value) => Some(value),
            Self::Stale(_) | Self::Null | Self::Miss => None,
        }
    }

    /// The value, if one is stored, fresh or not.
    #[must_use]
    pub fn hit_or_stale(self) -> Option<T> {
        match self {
            Self::Hit(value) | Self::Stale(value) => Some(value),
            Self::Null | Self::Miss => None,
        }
    }

    /// What is known for certain, `Some(None)` being a null; `None` when nothing is, or what is stored
    /// is stale.
    #[must_use]
    pub fn known(self) -> Option<Option<T>> {
        match self {
            Self::Hit(value) => Some(Some(value)),
            Self::Null => Some(None),
            Self::Stale(_) | Self::Miss => None,
        }
    }
}

/// A payload to be written: a value, or a null.
pub(super) struct Payload<'a, T>(pub(super) Option<&'a T>);

const NULL: u8 = 0;
const VALUE: u8 = 1;

impl<T: CacheValue> Serialize for Payload<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            None => (NULL,).serialize(serializer),
            Some(value) => {
                let mut parts = serializer.serialize_tuple(3)?;
                parts.serialize_element(&VALUE)?;
                parts.serialize_element(&*T::schema())?;
                parts.serialize_element(value)?;
                parts.end()
            }
        }
    }
}

/// A payload as it was found. Of another type's value nothing is read where the format does not say
/// how long it is.
pub(super) enum Found<T> {
    Value(T),
    Null,
    /// A value of a type of this name.
    Other(String),
}

impl<'de, T: CacheValue> Deserialize<'de> for Found<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts<T>(PhantomData<T>);

        impl<'de, T: CacheValue> Visitor<'de> for Parts<T> {
            type Value = Found<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a null, or a named value")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Found<T>, A::Error> {
                let short = || A::Error::custom("the payload is short");
                match parts.next_element::<u8>()?.ok_or_else(short)? {
                    NULL => Ok(Found::Null),
                    VALUE => {
                        let schema: String = parts.next_element()?.ok_or_else(short)?;
                        if schema == T::schema() {
                            parts.next_element()?.ok_or_else(short).map(Found::Value)
                        } else {
                            // Formats that describe themselves want their lists read to the end; the
                            // others cannot skip a value. Neither matters: the value is not used.
                            let _ = parts.next_element::<IgnoredAny>();
                            Ok(Found::Other(schema))
                        }
                    }
                    _ => Err(A::Error::custom("the payload is of an unknown kind")),
                }
            }
        }

        deserializer.deserialize_tuple(3, Parts(PhantomData))
    }
}
