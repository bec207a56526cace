//! The keys: 256-bit digests that name a request and the set of requests it may be compared with.
//!
//! [`ExactKey`] and [`PartitionKey`] are separate types so that one can never be passed for the
//! other. Both are written as 64 lower-case hex digits in text formats and as 32 bytes in binary
//! ones, and both print only their first eight digits with `Debug`.
//!
//! [`Digests`] is what a stored entry keeps of the request it answers: the two keys, which decide,
//! and one short mark per [`Section`], which only explains what differs.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::canonical::Digest;
use crate::{Error, ErrorKind};

macro_rules! key_type {
    ($(#[$docs:meta])* $name:ident) => {
        $(#[$docs])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Digest);

        impl $name {
            /// A key from bytes that came from [`as_bytes`](Self::as_bytes).
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes of the key.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({}..)"), hex(&self.0[..4]))
            }
        }

        impl FromStr for $name {
            type Err = Error;

            /// Reads 64 lower-case hex digits; no other spelling is a key.
            fn from_str(text: &str) -> Result<Self, Error> {
                from_hex(text).map(Self).ok_or_else(|| {
                    Error::new(ErrorKind::InvalidRequest, "not a key")
                        .with("expected", "64 lower-case hex digits")
                        .with("bytes", text.len())
                })
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serialize_digest(&self.0, serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserialize_digest(deserializer).map(Self)
            }
        }
    };
}

key_type! {
    /// Names one request: equal keys mean requests that must have the same answer.
    ///
    /// ```
    /// use askonce::{ExactKey, Request};
    ///
    /// let key = Request::prompt("How do I reset my password?").exact_key();
    /// let text = key.to_string();
    /// assert_eq!(text.len(), 64);
    /// assert_eq!(text.parse::<ExactKey>()?, key);
    /// # Ok::<(), askonce::Error>(())
    /// ```
    ExactKey
}

key_type! {
    /// Names the set of requests that differ at most in the text of their last user turn.
    /// Similarity is compared inside one partition and nowhere else.
    ///
    /// ```
    /// use askonce::Request;
    ///
    /// let one = Request::prompt("How do I reset my password?").model("gpt-4o");
    /// let two = Request::prompt("I forgot my password").model("gpt-4o");
    /// assert_eq!(one.partition(), two.partition());
    /// assert_ne!(one.partition(), two.model("gpt-4o-mini").partition());
    /// ```
    PartitionKey
}

/// Two digits, in small letters, for each byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = vec![0; 2 * bytes.len()];
    let (pairs, _) = text.as_chunks_mut::<2>();
    for (pair, byte) in pairs.iter_mut().zip(bytes) {
        *pair = [byte >> 4, byte & 15].map(|digit| DIGITS[usize::from(digit)]);
    }
    String::from_utf8(text).unwrap_or_default()
}

fn from_hex(text: &str) -> Option<Digest> {
    fn digit(byte: u8) -> Option<u8> {
        match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        }
    }
    let pairs: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(pairs.chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4) | digit(pair[1])?;
    }
    Some(bytes)
}

pub(super) fn serialize_digest<S: Serializer>(
    digest: &Digest,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        serializer.serialize_str(&hex(digest))
    } else {
        serializer.serialize_bytes(digest)
    }
}

pub(super) fn deserialize_digest<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Digest, D::Error> {
    struct DigestVisitor;

    impl<'de> Visitor<'de> for DigestVisitor {
        type Value = Digest;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("64 lower-case hex digits or 32 bytes")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Digest, E> {
            from_hex(text).ok_or_else(|| E::invalid_length(text.len(), &self))
        }

        fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Digest, E> {
            Digest::try_from(bytes).map_err(|_| E::invalid_length(bytes.len(), &self))
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Digest, A::Error> {
            let mut digest = [0; 32];
            for (i, byte) in digest.iter_mut().enumerate() {
                *byte = seq
                    .next_element()?
                    .ok_or_else(|| de::Error::invalid_length(i, &"32 bytes"))?;
            }
            match seq.next_element::<u8>()? {
                None => Ok(digest),
                Some(_) => Err(de::Error::invalid_length(33, &"32 bytes")),
            }
        }
    }

    if deserializer.is_human_readable() {
        deserializer.deserialize_str(DigestVisitor)
    } else {
        deserializer.deserialize_bytes(DigestVisitor)
    }
}

/// One part of a request's identity, in the order in which keys are built from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Section {
    /// Who may share the answer: [`Scope`](super::Scope).
    Scope,
    /// The namespace inside the scope.
    Namespace,
    /// The protocol family: [`Protocol`](super::Protocol).
    Protocol,
    /// The model's name.
    Model,
    /// Instructions given beside the messages.
    System,
    /// Every message, with the text of the last user turn left out.
    Conversation,
    /// Tools and how they may be called.
    Tools,
    /// Sampling, format, reasoning and every other field.
    Parameters,
    /// The text of the last user turn. The only section outside the partition.
    Prompt,
}

impl Section {
    /// Every section, in order.
    pub const ALL: [Self; 9] = [
        Self::Scope,
        Self::Namespace,
        Self::Protocol,
        Self::Model,
        Self::System,
        Self::Conversation,
        Self::Tools,
        Self::Parameters,
        Self::Prompt,
    ];

    /// The stable, lower-case name used in explanations and hashed with the section.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scope => "scope",
            Self::Namespace => "namespace",
            Self::Protocol => "protocol",
            Self::Model => "model",
            Self::System => "system",
            Self::Conversation => "conversation",
            Self::Tools => "tools",
            Self::Parameters => "parameters",
            Self::Prompt => "prompt",
        }
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The identity of a request as a stored entry keeps it: about 140 bytes, no text.
///
/// The keys decide whether an entry may answer a request. The marks are eight bytes per
/// [`Section`]: enough to say which sections differ, too short to prove that two are equal.
///
/// ```
/// use askonce::{Request, Section};
///
/// let stored = Request::prompt("What is a monad?").model("gpt-4o").digests();
/// let asked = Request::prompt("What is a monad?").model("gpt-4o-mini").digests();
/// assert!(!asked.same_partition(&stored));
/// assert_eq!(asked.differences(&stored).collect::<Vec<_>>(), [Section::Model]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digests {
    version: u8,
    exact: ExactKey,
    partition: PartitionKey,
    marks: [u64; Section::ALL.len()],
}

impl Digests {
    pub(super) fn new(version: u8, sections: &[Digest; Section::ALL.len()]) -> Self {
        let (partition, exact) = super::identity::keys(sections);
        let mark = |digest: &Digest| {
            let [a, b, c, d, e, f, g, h, ..] = *digest;
            u64::from_le_bytes([a, b, c, d, e, f, g, h])
        };
        Self {
            version,
            exact,
            partition,
            marks: sections.each_ref().map(mark),
        }
    }

    /// The encoding these digests were computed with. Digests of different versions never match.
    #[must_use]
    pub fn version(&self) -> u8 {
        self.version
    }

    /// The exact key.
    #[must_use]
    pub fn exact(&self) -> ExactKey {
        self.exact
    }

    /// The partition.
    #[must_use]
    pub fn partition(&self) -> PartitionKey {
        self.partition
    }

    /// Whether both are the identity of the same request.
    #[must_use]
    pub fn same_request(&self, other: &Self) -> bool {
        self.version == other.version && self.exact == other.exact && self.same_partition(other)
    }

    /// Whether both requests differ at most in the text of their last user turn.
    #[must_use]
    pub fn same_partition(&self, other: &Self) -> bool {
        self.version == other.version && self.partition == other.partition
    }

    /// The sections in which the two differ, in order. For explanations only.
    pub fn differences(&self, other: &Self) -> impl Iterator<Item = Section> {
        let differ: [bool; Section::ALL.len()] =
            std::array::from_fn(|i| self.marks[i] != other.marks[i]);
        Section::ALL
            .into_iter()
            .zip(differ)
            .filter_map(|(section, differs)| differs.then_some(section))
    }
}
