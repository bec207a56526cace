//! What keys look like on the wire of a shared store: the one place that knows.
//!
//! A key is `{prefix}::{key}`. Keys of visible ASCII stand as they are, so that they can be read and
//! matched with any tool. All others, and those that could be mistaken for something else (empty, with
//! a `%` first, a colon first or two in a row, braces that a cluster would hash by), are written as `%`
//! and their bytes in hex. A prefix has no two colons in a row and none at its end, so the keys of `a`
//! are never taken for those of `a:b`: clearing one prefix leaves every other alone.

use super::Glob;

/// Between prefix and key.
const SEPARATOR: &str = "::";

/// The first byte of a key that is written in hex.
const HEX: u8 = b'%';

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// The keys of one prefix.
#[derive(Clone, Debug)]
pub(super) struct Keyspace {
    start: String,
}

impl Keyspace {
    /// Whether keys of different prefixes of this kind are always different.
    pub(super) fn takes_prefix(prefix: &str) -> bool {
        !prefix.is_empty()
            && prefix.bytes().all(|byte| byte.is_ascii_graphic())
            && !prefix.contains(SEPARATOR)
            && !prefix.ends_with(':')
    }

    pub(super) fn new(prefix: &str) -> Self {
        debug_assert!(Self::takes_prefix(prefix), "the settings were checked");
        Self {
            start: format!("{prefix}{SEPARATOR}"),
        }
    }

    /// `key` as the store sees it.
    pub(super) fn encode(&self, key: &[u8]) -> Vec<u8> {
        if is_plain(key) {
            return [self.start.as_bytes(), key].concat();
        }
        let mut wire = Vec::with_capacity(self.start.len() + 1 + key.len() * 2);
        wire.extend_from_slice(self.start.as_bytes());
        wire.push(HEX);
        for byte in key {
            wire.push(DIGITS[usize::from(byte >> 4)]);
            wire.push(DIGITS[usize::from(byte & 15)]);
        }
        wire
    }

    /// A key of the prefix that stands for no key of a caller: what follows the `%` is not hex.
    #[cfg(feature = "redis")]
    pub(super) fn reserved(&self, name: &str) -> Vec<u8> {
        format!("{}%~{name}", self.start).into_bytes()
    }

    /// The key that is stored as `wire`; `None` when it is not of this prefix, or not one of ours.
    pub(super) fn decode(&self, wire: &[u8]) -> Option<Vec<u8>> {
        let key = wire.strip_prefix(self.start.as_bytes())?;
        let Some(hex) = key.strip_prefix(&[HEX]) else {
            return is_plain(key).then(|| key.to_vec());
        };
        let digit = |byte: &u8| (0_u8..16).find(|at| DIGITS[usize::from(*at)] == *byte);
        let mut bytes = Vec::with_capacity(hex.len() / 2);
        for pair in hex.chunks(2) {
            let [high, low] = pair else { return None };
            bytes.push((digit(high)? << 4) | digit(low)?);
        }
        (!is_plain(&bytes)).then_some(bytes)
    }

    /// The pattern that a store is asked for: every key of the prefix. What a caller's own pattern
    /// matches is for the caller to see, as keys in hex do not look like what they are.
    pub(super) fn pattern(&self) -> Vec<u8> {
        Glob::everything().after(&self.start).to_bytes()
    }
}

/// Whether a key can stand on the wire as it is.
fn is_plain(key: &[u8]) -> bool {
    key.first()
        .is_some_and(|first| !matches!(*first, HEX | b':'))
        && key
            .iter()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}'))
        && !key.windows(2).any(|pair| pair == b"::")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_readable_key_has_its_prefix_once_and_stands_as_it_is() {
        let keys = Keyspace::new("app");
        assert_eq!(keys.encode(b"users:7"), b"app::users:7");
        assert_eq!(keys.encode(&[0xde, 0x01]), b"app::%de01");
        assert_eq!(keys.encode(b""), b"app::%");
        assert_eq!(keys.encode(b"a b"), b"app::%612062");
        assert_eq!(keys.encode(b"{a}"), b"app::%7b617d");
    }

    #[test]
    fn the_keys_of_a_prefix_are_not_those_of_a_longer_one() {
        let (short, long) = (Keyspace::new("a"), Keyspace::new("a:b"));
        assert_eq!(short.decode(&long.encode(b"k")), None);
        assert_eq!(long.decode(&short.encode(b"b:k")), None);
        assert!(!Keyspace::takes_prefix("a::b") && !Keyspace::takes_prefix("a:"));
        assert!(!Keyspace::takes_prefix("") && !Keyspace::takes_prefix("a b"));
    }

    #[cfg(feature = "redis")]
    #[test]
    fn a_reserved_key_is_nobodys() {
        let keys = Keyspace::new("app");
        assert_eq!(keys.reserved("feed"), b"app::%~feed");
        assert_eq!(keys.decode(&keys.reserved("feed")), None);
        // `feed` alone would be: all of its letters are digits of hex.
        assert_eq!(keys.decode(b"app::%feed"), Some(vec![0xfe, 0xed]));
    }

    proptest! {
        #[test]
        fn every_key_is_read_back_and_no_two_look_alike(
            a in prop::collection::vec(prop::sample::select(b"a:%{} \n\xff0".to_vec()), 0..6),
            b in prop::collection::vec(prop::sample::select(b"a:%{} \n\xff0".to_vec()), 0..6),
        ) {
            let keys = Keyspace::new("p");
            prop_assert_eq!(keys.decode(&keys.encode(&a)), Some(a.clone()));
            prop_assert_eq!(a == b, keys.encode(&a) == keys.encode(&b));
        }
    }
}
