//! What stacks of tiers tell each other through a feed: which keys changed, never to what.
//!
//! ```text
//! version (1) | kind (1) | origin (8) | number (8) | kind's own bytes
//! ```
//!
//! Numbers are little-endian. The origin is a random number per stack, by which a stack knows its own
//! messages; the number counts what an origin has said. A message that cannot be read, of another version
//! or not, is taken for the widest one: everything may have changed.

use bytes::Bytes;

use crate::backend::Glob;

const VERSION: u8 = 1;
const HEADER: usize = 18;

const KEYS: u8 = 1;
const MATCHING: u8 = 2;
const EVERYTHING: u8 = 3;
const MARKER: u8 = 4;

/// One message.
pub(super) struct Message {
    /// Who says it; `None` when that could not be read.
    pub(super) origin: Option<u64>,
    /// The how-manieth message of its origin.
    pub(super) number: u64,
    pub(super) news: News,
}

/// What a message says.
pub(super) enum News {
    /// These keys changed.
    Keys(Vec<Bytes>),
    /// The keys that match were removed.
    Matching(Glob),
    /// All keys were removed.
    Everything,
    /// Nothing: the sender wants to see its own message come back.
    Marker,
}

impl News {
    /// The label in metrics.
    pub(super) const fn as_str(&self) -> &'static str {
        match self {
            Self::Keys(_) => "keys",
            Self::Matching(_) => "matching",
            Self::Everything => "everything",
            Self::Marker => "marker",
        }
    }
}

/// The bytes of a message.
pub(super) fn encode(origin: u64, number: u64, news: &News) -> Bytes {
    let kind = match news {
        News::Keys(_) => KEYS,
        News::Matching(_) => MATCHING,
        News::Everything => EVERYTHING,
        News::Marker => MARKER,
    };
    let mut bytes = vec![VERSION, kind];
    bytes.extend(origin.to_le_bytes());
    bytes.extend(number.to_le_bytes());
    match news {
        News::Keys(keys) => {
            for key in keys {
                let length = u32::try_from(key.len()).unwrap_or(u32::MAX);
                bytes.extend(length.to_le_bytes());
                bytes.extend_from_slice(key);
            }
        }
        News::Matching(pattern) => bytes.extend(pattern.to_bytes()),
        News::Everything | News::Marker => {}
    }
    bytes.into()
}

/// The message that these bytes are.
pub(super) fn decode(bytes: &Bytes) -> Message {
    parse(bytes).unwrap_or(Message {
        origin: None,
        number: 0,
        news: News::Everything,
    })
}

fn parse(bytes: &Bytes) -> Option<Message> {
    if bytes.len() < HEADER || bytes[0] != VERSION {
        return None;
    }
    let number = |at: usize| bytes[at..].first_chunk().copied().map(u64::from_le_bytes);
    let mut rest = bytes.slice(HEADER..);
    let news = match bytes[1] {
        KEYS => {
            let mut keys = Vec::new();
            while !rest.is_empty() {
                let length = u32::from_le_bytes(*rest.first_chunk()?);
                let end = 4_usize.checked_add(usize::try_from(length).ok()?)?;
                if rest.len() < end {
                    return None;
                }
                let key = rest.split_to(end).slice(4..);
                keys.push(key);
            }
            News::Keys(keys)
        }
        MATCHING => News::Matching(Glob::new(rest)),
        EVERYTHING if rest.is_empty() => News::Everything,
        MARKER if rest.is_empty() => News::Marker,
        _ => return None,
    };
    Some(Message {
        origin: Some(number(2)?),
        number: number(10)?,
        news,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Stacks of two versions run side by side while a deployment goes on.
    #[test]
    fn the_bytes_of_version_one_stay_as_they_are() {
        let keys = News::Keys(vec![Bytes::from_static(b"ab"), Bytes::new()]);
        let golden = [
            (
                &keys,
                "01010807060504030201070000000000000002000000616200000000",
            ),
            (
                &News::Matching(Glob::new("a*")),
                "010208070605040302010700000000000000612a",
            ),
            (&News::Everything, "010308070605040302010700000000000000"),
            (&News::Marker, "010408070605040302010700000000000000"),
        ];
        for (news, bytes) in golden {
            assert_eq!(hex(&encode(0x0102_0304_0506_0708, 7, news)), bytes);
        }
    }

    #[test]
    fn an_unknown_version_kind_or_ending_is_taken_for_the_widest_message() {
        let whole = encode(1, 2, &News::Keys(vec![Bytes::from_static(b"key")]));
        let mut newer = whole.to_vec();
        newer[0] = 2;
        let mut unknown = whole.to_vec();
        unknown[1] = 99;
        let torn = whole.slice(..whole.len() - 1);
        for bytes in [newer.into(), unknown.into(), torn, Bytes::new()] {
            let message = decode(&bytes);
            assert!(matches!(message.news, News::Everything));
            assert_eq!(message.origin, None, "nobody's own");
        }
    }

    proptest! {
        #[test]
        fn keys_come_back_as_they_went(
            keys in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..5),
            origin: u64,
            number: u64,
        ) {
            let keys: Vec<Bytes> = keys.into_iter().map(Bytes::from).collect();
            let message = decode(&encode(origin, number, &News::Keys(keys.clone())));
            prop_assert_eq!((message.origin, message.number), (Some(origin), number));
            let News::Keys(back) = message.news else {
                return Err(TestCaseError::fail("another kind"));
            };
            prop_assert_eq!(back, keys);
        }

        #[test]
        fn no_bytes_are_too_strange_to_read(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = decode(&Bytes::from(bytes));
        }
    }
}
