//! What the near tier holds for a key: the value, and what its own shorter life would hide.
//!
//! ```text
//! flags (1) | the value's own expiry in ms, all ones for never (8) | value
//! ```

use bytes::Bytes;

use crate::backend::StoredValue;
use crate::clock::Timestamp;

const HEADER: usize = 9;
const ONLY_HERE: u8 = 1;
const NEVER: u64 = u64::MAX;

/// A value in the near tier.
#[derive(PartialEq, Eq)]
pub(super) struct NearCopy {
    pub(super) value: Bytes,
    /// When the value itself dies; the copy may be gone long before.
    pub(super) expires: Option<Timestamp>,
    /// The far tier does not hold it: it was too large, or did not answer.
    pub(super) only_here: bool,
}

impl NearCopy {
    pub(super) fn seal(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(HEADER + self.value.len());
        bytes.push(if self.only_here { ONLY_HERE } else { 0 });
        let expires = self.expires.map_or(NEVER, Timestamp::as_millis);
        bytes.extend(expires.to_le_bytes());
        bytes.extend_from_slice(&self.value);
        bytes.into()
    }

    /// `None` for bytes that no stack has written.
    pub(super) fn open(sealed: &Bytes) -> Option<Self> {
        let (&flags, rest) = sealed.split_first()?;
        if flags & !ONLY_HERE != 0 {
            return None;
        }
        let expires = u64::from_le_bytes(*rest.first_chunk()?);
        Some(Self {
            value: sealed.slice(HEADER..),
            expires: (expires != NEVER).then(|| Timestamp::from_millis(expires)),
            only_here: flags == ONLY_HERE,
        })
    }

    pub(super) fn into_stored(self) -> StoredValue {
        StoredValue::new(self.value, self.expires)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_keeps_value_expiry_and_whether_it_is_the_only_one() {
        for only_here in [false, true] {
            for expires in [None, Some(Timestamp::from_millis(1_790_000_000_000))] {
                for value in ["", "value"] {
                    let value = Bytes::from(value);
                    let copy = NearCopy {
                        value,
                        expires,
                        only_here,
                    };
                    assert!(NearCopy::open(&copy.seal()) == Some(copy));
                }
            }
        }
    }

    #[test]
    fn foreign_bytes_are_no_copy() {
        for bytes in ["", "\u{1}", "\u{0}1234567", "\u{2}12345678value"] {
            assert!(NearCopy::open(&Bytes::from(bytes)).is_none());
        }
    }
}
