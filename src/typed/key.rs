//! Names of values: declared parts, encoded so that no two lists of parts look alike.
//!
//! A [`Key`] says what a value depends on, part by part. Each part is written with its kind and its
//! length, so `("ab", "c")` and `("a", "bc")` are different keys, and so are `1` and `"1"`. Numbers
//! count by value, not by width: a `u32` and a `u64` of the same value name the same thing.
//!
//! What a key is made of is chosen, never found: there is no part made from a `Debug` form or an
//! address, and none for floating-point numbers, whose `NaN` and `-0.0` are no names.
//!
//! A key under its namespace is known by two names. The **digest**, 32 bytes of BLAKE3 over the encoded
//! parts, proves identity: a stored value is bound to it. The **text** is what backends see, so that a
//! person can read it and patterns can be matched:
//!
//! | part | text |
//! |---|---|
//! | a text | itself; what is not a letter, a digit or harmless is percent-escaped |
//! | a text that is empty or looks like a number | the same after `'` |
//! | a number | its digits |
//! | a list, a tuple | `!l(a,b)`, `(a,b)` |
//! | an option | `!none`, `!some(a)` |
//! | a `bool`, a `char`, a [`Duration`] | `!true`, `!c(x)`, `!d(nanoseconds)` |
//!
//! Parts are joined with `:`, and each namespace ends with `/`: `users/name:7`. Different keys have
//! different texts. One of more than 200 bytes is cut, and ends with `~` and its digest in hex.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

/// Separates these digests from every other use of BLAKE3; a change of the encoding changes it.
const DOMAIN: &str = "askonce 2026 typed cache key v1";

/// The name of a value within a cache.
///
/// ```
/// use askonce::typed::Key;
///
/// let key = Key::new("user").part(7).part("eu");
/// assert_eq!(key, Key::new("user").part(7_u64).part(String::from("eu")));
/// assert_ne!(key, Key::new("user").part("7").part("eu"));
/// assert_ne!(Key::new("ab").part("c"), Key::new("a").part("bc"));
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key {
    parts: KeyWriter,
}

impl Key {
    /// A key that begins with `name`, usually the kind of thing that is cached.
    #[must_use]
    pub fn new(name: impl KeyPart) -> Self {
        Self {
            parts: KeyWriter::default(),
        }
        .part(name)
    }

    /// This key with one more part.
    #[must_use]
    pub fn part(mut self, part: impl KeyPart) -> Self {
        part.write(&mut self.parts);
        self
    }

    /// How this key reads, without its namespace. Nothing in it means something in a pattern.
    pub(super) fn text(&self) -> &str {
        &self.parts.text
    }

    /// Proves which key, under which namespace.
    fn digest(&self, namespace: &KeyWriter) -> Digest {
        let mut hasher = blake3::Hasher::new_derive_key(DOMAIN);
        hasher.update(&(namespace.bytes.len() as u64).to_le_bytes());
        hasher.update(&namespace.bytes);
        hasher.update(&self.parts.bytes);
        Digest(*hasher.finalize().as_bytes())
    }
}

/// Shows no part: keys may be made of what must not reach a log.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("bytes", &self.parts.bytes.len())
            .finish_non_exhaustive()
    }
}

/// A key under its namespace, as envelopes, gates and flights know it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Digest([u8; 32]);

impl Digest {
    pub(super) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn to_hex(self) -> impl fmt::Display {
        blake3::Hash::from_bytes(self.0).to_hex()
    }
}

/// Where a value lies: what proves its key, and what backends call it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) digest: Digest,
    pub(super) name: Bytes,
}

/// Shows no part of the key.
impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").finish_non_exhaustive()
    }
}

/// Longest name that a backend sees in full, in bytes.
const MAX_NAME: usize = 200;
/// What is kept of a longer one. With the mark and the digest, every backend takes it.
const CUT_NAME: usize = 120;
/// Between a cut name and its digest. Nothing else writes it.
const CUT: char = '~';
/// After each namespace. Nothing else writes it.
const WITHIN: char = '/';

/// A namespace, perhaps within others.
#[derive(Clone, Debug, Default)]
pub(super) struct Namespace {
    parts: KeyWriter,
    /// The names, each with the mark of its end.
    text: String,
}

impl Namespace {
    /// The namespace of this name within this one.
    pub(super) fn within(&self, name: &impl KeyPart) -> Self {
        let mut own = KeyWriter::default();
        name.write(&mut own);
        let mut inner = self.clone();
        inner.parts.bytes.extend_from_slice(&own.bytes);
        inner.text.push_str(&own.text);
        inner.text.push(WITHIN);
        inner
    }

    /// Whether this is the whole backend.
    pub(super) fn is_root(&self) -> bool {
        self.text.is_empty()
    }

    /// What identifies this namespace.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.parts.bytes
    }

    /// Where `key` lies. Where keys must not be readable, only the namespace is.
    pub(super) fn place(&self, key: &Key, hashed: bool) -> Place {
        let digest = key.digest(&self.parts);
        let mut name = self.start();
        if !hashed {
            name.push_str(&key.parts.text);
        }
        if hashed || name.len() > MAX_NAME {
            name.truncate(CUT_NAME);
            name.push(CUT);
            name.push_str(&digest.to_hex().to_string());
        }
        Place {
            digest,
            name: name.into(),
        }
    }

    /// What all names in this namespace start with. A namespace that is too long to be read in full is
    /// not read by anybody: its names would then not start alike.
    pub(super) fn start(&self) -> String {
        if self.text.len() <= CUT_NAME {
            return self.text.clone();
        }
        let digest = blake3::hash(&self.parts.bytes).to_hex();
        let readable = &self.text[..CUT_NAME / 3];
        format!("{readable}{CUT}{}{WITHIN}", &digest[..32])
    }
}

/// Where a [`KeyPart`] writes itself.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct KeyWriter {
    bytes: Vec<u8>,
    /// The readable form. No longer written once it is too long to be used in full.
    text: String,
    /// How many lists and the like are open.
    depth: u32,
}

impl KeyWriter {
    /// One part of a kind. The length makes the whole readable from the left in one way only.
    fn put(&mut self, kind: u8, bytes: &[u8]) {
        self.head(kind, bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    /// The head of a list of `count` parts, or of a part of `count` bytes.
    fn head(&mut self, kind: u8, count: usize) {
        self.bytes.push(kind);
        self.bytes.extend_from_slice(&(count as u64).to_le_bytes());
    }

    /// A part that holds others: its head, and the parts that `write` writes.
    fn group(&mut self, kind: u8, count: usize, text: &str, write: impl FnOnce(&mut Self)) {
        self.head(kind, count);
        self.say(format_args!("{text}("));
        self.depth += 1;
        write(self);
        self.depth -= 1;
        self.text.push(')');
    }

    /// Begins the text of a part.
    fn say(&mut self, text: impl fmt::Display) {
        if self.text.len() > MAX_NAME {
            return;
        }
        if !self.text.is_empty() && !self.text.ends_with('(') {
            self.text.push(if self.depth > 0 { ',' } else { ':' });
        }
        // Writing to a string does not fail.
        let _ = write!(self.text, "{text}");
    }
}

/// Writes a text so that it holds nothing that means something in a name, in a pattern or on a wire.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0;
        let digits = text.strip_prefix('-').unwrap_or(text);
        if digits.bytes().all(|byte| byte.is_ascii_digit()) {
            f.write_str("'")?;
        }
        for &byte in text.as_bytes().iter().take(MAX_NAME + 1) {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => f.write_char(char::from(byte))?,
                b'-' | b'_' | b'.' | b'@' | b'+' | b'=' | b'$' | b'#' | b'&' | b';' | b'|' => {
                    f.write_char(char::from(byte))?;
                }
                _ => write!(f, "%{byte:02X}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for KeyWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyWriter")
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

/// What may stand in a [`Key`].
///
/// # Contract
/// - Equal values write the same bytes, in every process and every version of the program.
/// - Different values write different bytes; neither writes a prefix of the other.
///
/// Both hold by themselves for a type that writes what it is made of through the parts below: a tuple
/// for several fields, and a name first for the variants of an enum.
///
/// ```
/// use askonce::typed::{Key, KeyPart, KeyWriter};
///
/// struct UserId(u64);
///
/// impl KeyPart for UserId {
///     fn write(&self, key: &mut KeyWriter) {
///         self.0.write(key);
///     }
/// }
///
/// enum Owner {
///     User(UserId),
///     Team { name: String, region: String },
/// }
///
/// impl KeyPart for Owner {
///     fn write(&self, key: &mut KeyWriter) {
///         match self {
///             Self::User(id) => ("user", id).write(key),
///             Self::Team { name, region } => ("team", name, region).write(key),
///         }
///     }
/// }
///
/// assert_eq!(Key::new(Owner::User(UserId(7))), Key::new(("user", 7)));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be part of a cache key",
    label = "not a `KeyPart`",
    note = "implement `askonce::typed::KeyPart` by writing the fields that identify the value",
    note = "for a type of another crate whose `Display` form identifies it, use `askonce::typed::Text(&value)`"
)]
pub trait KeyPart {
    /// Writes what identifies this value.
    fn write(&self, key: &mut KeyWriter);
}

/// A [`KeyPart`] made of the `Display` form of a value, for types of other crates, such as UUIDs.
///
/// Only for types whose `Display` form differs whenever they differ; many shorten or hide.
///
/// ```
/// use askonce::typed::{Key, Text};
///
/// let address = std::net::Ipv4Addr::LOCALHOST;
/// assert_eq!(Key::new(Text(address)), Key::new("127.0.0.1"));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Text<T>(pub T);

impl<T: fmt::Display> KeyPart for Text<T> {
    fn write(&self, key: &mut KeyWriter) {
        self.0.to_string().write(key);
    }
}

macro_rules! number {
    ($($t:ty)*) => {$(
        impl KeyPart for $t {
            fn write(&self, key: &mut KeyWriter) {
                // Sign and magnitude, so that equal numbers of all widths are one part.
                #[allow(unused_comparisons, clippy::cast_lossless)]
                let negative = *self < 0;
                let magnitude = (*self as i128 as u128, *self as u128);
                let magnitude = if negative { magnitude.0.wrapping_neg() } else { magnitude.1 };
                key.put(if negative { b'-' } else { b'+' }, &magnitude.to_le_bytes());
                key.say(self);
            }
        }
    )*};
}
number!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize);

impl KeyPart for str {
    fn write(&self, key: &mut KeyWriter) {
        key.put(b's', self.as_bytes());
        key.say(Escaped(self));
    }
}

impl KeyPart for String {
    fn write(&self, key: &mut KeyWriter) {
        self.as_str().write(key);
    }
}

impl KeyPart for char {
    fn write(&self, key: &mut KeyWriter) {
        key.put(b'c', &u32::from(*self).to_le_bytes());
        key.say(format_args!(
            "!c({})",
            Escaped(self.encode_utf8(&mut [0; 4]))
        ));
    }
}

impl KeyPart for bool {
    fn write(&self, key: &mut KeyWriter) {
        key.put(b'b', &[u8::from(*self)]);
        key.say(format_args!("!{self}"));
    }
}

impl KeyPart for Duration {
    fn write(&self, key: &mut KeyWriter) {
        key.put(b'd', &self.as_nanos().to_le_bytes());
        key.say(format_args!("!d({})", self.as_nanos()));
    }
}

/// Absent, or one part.
impl<T: KeyPart> KeyPart for Option<T> {
    fn write(&self, key: &mut KeyWriter) {
        match self {
            None => {
                key.head(b'o', 0);
                key.say("!none");
            }
            Some(part) => key.group(b'o', 1, "!some", |key| part.write(key)),
        }
    }
}

fn list<T: KeyPart>(key: &mut KeyWriter, parts: impl ExactSizeIterator<Item = T>) {
    key.group(b'l', parts.len(), "!l", |key| {
        parts.for_each(|part| part.write(key));
    });
}

impl<T: KeyPart> KeyPart for [T] {
    fn write(&self, key: &mut KeyWriter) {
        list(key, self.iter());
    }
}

impl<T: KeyPart, const N: usize> KeyPart for [T; N] {
    fn write(&self, key: &mut KeyWriter) {
        list(key, self.iter());
    }
}

impl<T: KeyPart> KeyPart for Vec<T> {
    fn write(&self, key: &mut KeyWriter) {
        list(key, self.iter());
    }
}

impl<T: KeyPart> KeyPart for BTreeSet<T> {
    fn write(&self, key: &mut KeyWriter) {
        list(key, self.iter());
    }
}

impl<K: KeyPart, V: KeyPart> KeyPart for BTreeMap<K, V> {
    fn write(&self, key: &mut KeyWriter) {
        list(key, self.iter());
    }
}

macro_rules! same_as_target {
    ($([$($generics:tt)*] $t:ty;)*) => {$(
        impl<$($generics)*> KeyPart for $t {
            fn write(&self, key: &mut KeyWriter) {
                (**self).write(key);
            }
        }
    )*};
}
same_as_target! {
    [T: KeyPart + ?Sized] &T;
    [T: KeyPart + ?Sized] &mut T;
    [T: KeyPart + ?Sized] Box<T>;
    [T: KeyPart + ?Sized] Rc<T>;
    [T: KeyPart + ?Sized] Arc<T>;
    [T: KeyPart + ToOwned + ?Sized] Cow<'_, T>;
}

macro_rules! tuple {
    ($count:literal: $($name:ident)+) => {
        impl<$($name: KeyPart),+> KeyPart for ($($name,)+) {
            fn write(&self, key: &mut KeyWriter) {
                #[allow(non_snake_case)]
                let ($($name,)+) = self;
                key.group(b't', $count, "", |key| { $($name.write(key);)+ });
            }
        }
    };
}
tuple!(1: A);
tuple!(2: A B);
tuple!(3: A B C);
tuple!(4: A B C D);
tuple!(5: A B C D E);
tuple!(6: A B C D E F);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(key: &Key) -> Digest {
        key.digest(&KeyWriter::default())
    }

    #[test]
    fn numbers_count_by_value_and_not_by_width_or_text() {
        assert_eq!(Key::new(5_u8), Key::new(5_i128));
        assert_eq!(Key::new(-5_i8), Key::new(-5_i64));
        assert_ne!(Key::new(5), Key::new(-5));
        assert_ne!(Key::new(5), Key::new("5"));
        assert_ne!(Key::new(i128::MIN), Key::new(i128::MIN as u128));
        assert_ne!(Key::new(-1), Key::new(u128::MAX));
    }

    #[test]
    fn absence_and_emptiness_are_parts_of_their_own() {
        let keys = [
            Key::new("k"),
            Key::new("k").part(""),
            Key::new("k").part(None::<&str>),
            Key::new("k").part(Some("")),
            Key::new("k").part(Vec::<String>::new()),
            Key::new("k").part([""]),
            Key::new("k").part(false),
            Key::new("k").part(0),
            Key::new("k").part('\0'),
        ];
        for (at, key) in keys.iter().enumerate() {
            assert!(
                !keys[..at].contains(key),
                "key {at} is not the first of its kind"
            );
        }
    }

    #[test]
    fn a_namespace_and_a_part_do_not_run_into_each_other() {
        let mut namespace = KeyWriter::default();
        "users".write(&mut namespace);
        let inside = Key::new("7").digest(&namespace);
        assert!(inside != digest(&Key::new("users").part("7")));
        assert!(inside != digest(&Key::new("7")));
    }

    #[test]
    fn digests_stay_what_they_were() {
        // Bytes in stores outlive the program: a new encoding needs a new domain.
        let hex = blake3::Hash::from_bytes(*digest(&Key::new("user").part(7)).as_bytes()).to_hex();
        assert_eq!(
            hex.as_str(),
            "1ec2d3e8f532cbc1c8dad4df13c48a6ccbb1b4edbaebed7a2caeea816d6d48cf"
        );
    }

    #[test]
    fn the_debug_form_of_a_key_shows_no_part() {
        let shown = format!("{:?}", Key::new("secret-token"));
        assert!(!shown.contains("secret"), "{shown}");
    }

    fn name(key: &Key) -> String {
        let name = Namespace::default().within(&"users").place(key, false).name;
        String::from_utf8(name.to_vec()).unwrap()
    }

    #[test]
    fn backends_see_names_that_can_be_read() {
        assert_eq!(name(&Key::new("name").part(7)), "users/name:7");
        assert_eq!(name(&Key::new("name").part("7")), "users/name:'7");
        assert_eq!(name(&Key::new("a:b").part("*")), "users/a%3Ab:%2A");
        assert_eq!(name(&Key::new("").part(-1)), "users/':-1");
        let nested = Key::new(("tenant", 1)).part([Some(true), None]).part('x');
        assert_eq!(
            name(&nested),
            "users/(tenant,1):!l(!some(!true),!none):!c(x)"
        );
        assert_eq!(name(&Key::new(Duration::from_nanos(5))), "users/!d(5)");
        assert_eq!(name(&Key::new("\u{e9} ")), "users/%C3%A9%20");
    }

    #[test]
    fn a_long_name_is_cut_and_told_apart_by_its_digest() {
        let long = |last: &str| name(&Key::new("page").part("x".repeat(10_000) + last));
        let (one, two) = (long("1"), long("2"));
        assert_eq!(one.len(), CUT_NAME + 1 + 64);
        assert!(one.starts_with("users/page:xxx") && one != two);
        assert_eq!(one[..=CUT_NAME], two[..=CUT_NAME]);
    }

    #[test]
    fn a_hashed_name_shows_its_namespace_alone() {
        let space = Namespace::default().within(&"users");
        let place = space.place(&Key::new("secret"), true);
        assert!(place.name.starts_with(b"users/~"), "{:?}", place.name);
        assert_eq!(place.name.len(), "users/~".len() + 64);
    }

    #[test]
    fn all_names_of_a_namespace_start_alike_and_no_others_do() {
        let spaces = [
            Namespace::default().within(&"a"),
            Namespace::default().within(&"a").within(&"b"),
            Namespace::default().within(&("a", "b")),
            Namespace::default().within(&"x".repeat(500)),
            Namespace::default().within(&("x".repeat(500) + "y")),
        ];
        let keys = [Key::new("k"), Key::new("k".repeat(500))];
        for (at, space) in spaces.iter().enumerate() {
            for (of, other) in spaces.iter().enumerate() {
                for key in &keys {
                    let starts = other
                        .place(key, false)
                        .name
                        .starts_with(space.start().as_bytes());
                    assert_eq!(starts, at == of || (at, of) == (0, 1), "{at} {of}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn different_keys_have_different_names(
            a in prop::collection::vec("[ab:/'~!(),%0-9\u{e9}*-]{0,4}", 1..4),
            b in prop::collection::vec("[ab:/'~!(),%0-9\u{e9}*-]{0,4}", 1..4),
            split in any::<(bool, bool)>(),
        ) {
            let key = |parts: &[String], split: bool| {
                let first = if split { Key::new((&parts[0], 1)) } else { Key::new(&parts[0]) };
                parts[1..].iter().fold(first, Key::part)
            };
            let (a, b) = (key(&a, split.0), key(&b, split.1));
            prop_assert_eq!(a == b, name(&a) == name(&b));
        }

        #[test]
        fn different_lists_of_parts_are_different_keys(
            a in prop::collection::vec("[ab:]{0,3}", 1..4),
            b in prop::collection::vec("[ab:]{0,3}", 1..4),
        ) {
            let key = |parts: &[String]| {
                parts[1..].iter().fold(Key::new(&parts[0]), Key::part)
            };
            prop_assert_eq!(a == b, digest(&key(&a)) == digest(&key(&b)));
        }
    }
}
