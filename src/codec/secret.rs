//! Secrets of a configuration: strong, never shown, and wiped from memory when dropped.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// Least bytes of a secret.
const LEAST_BYTES: usize = 32;
/// Least different values among its bytes. Of 32 random ones, about 30 differ.
const LEAST_DIFFERENT: usize = 16;

/// A secret as it is written in a configuration: at least 32 random bytes in hexadecimal or base64.
///
/// Neither `Debug` nor `Serialize` shows it, and its memory is wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// A secret from its text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// Its bytes, if they are as many and as random as a key must be. Words are not.
    pub(super) fn bytes(&self) -> Option<Zeroizing<Vec<u8>>> {
        let text = self.0.trim();
        let bytes = from_hex(text).or_else(|| from_base64(text))?;
        let mut seen = [false; 256];
        for &byte in bytes.iter() {
            seen[usize::from(byte)] = true;
        }
        let different = seen.iter().filter(|seen| **seen).count();
        (bytes.len() >= LEAST_BYTES && different >= LEAST_DIFFERENT).then_some(bytes)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

fn from_hex(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let byte = |&[high, low]: &[u8; 2]| u8::try_from(digit(high)? << 4 | digit(low)?).ok();
    let mut bytes = Zeroizing::new(Vec::with_capacity(pairs.len()));
    for pair in pairs {
        bytes.push(byte(pair)?);
    }
    rest.is_empty().then_some(bytes)
}

/// Base64 in either alphabet, with or without padding.
///
/// Long words are base64 as well. What 32 random bytes give has capitals and small letters in it, but
/// for one time in a thousand million.
fn from_base64(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let text = text.trim_end_matches('=');
    let has = |kind: fn(&char) -> bool| text.chars().any(|c| kind(&c));
    if !has(char::is_ascii_uppercase) || !has(char::is_ascii_lowercase) {
        return None;
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let (mut word, mut bits) = (0_u32, 0);
    for letter in text.bytes() {
        let six = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        word = (word << 6) | u32::from(six);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((word >> bits) as u8);
            word &= (1 << bits) - 1;
        }
    }
    // What is left over are fewer bits than a letter has, and they are zero.
    (bits < 6 && word == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: [u8; 32] = [
        0xd3, 0x1b, 0x8c, 0x02, 0x5f, 0xe7, 0x94, 0x6a, 0x10, 0xbe, 0x77, 0x2d, 0xc8, 0x41, 0xf9,
        0x36, 0x83, 0x0e, 0xa5, 0x5c, 0xd0, 0x69, 0x1f, 0xb2, 0x48, 0xed, 0x97, 0x24, 0x7b, 0xca,
        0x00, 0x3f,
    ];

    fn read(text: &str) -> Option<Vec<u8>> {
        Secret::new(text).bytes().map(|bytes| bytes.to_vec())
    }

    #[test]
    fn a_secret_is_read_from_hexadecimal_and_from_base64() {
        let hex = "d31b8c025fe7946a10be772dc841f936830ea55cd0691fb248ed97247bca003f";
        let base64 = "0xuMAl/nlGoQvnctyEH5NoMOpVzQaR+ySO2XJHvKAD8=";
        assert_eq!(read(hex).unwrap(), BYTES);
        assert_eq!(read(&hex.to_uppercase()).unwrap(), BYTES);
        assert_eq!(read(&format!("{hex}\n")).unwrap(), BYTES);
        assert_eq!(read(base64).unwrap(), BYTES);
        assert_eq!(read(base64.trim_end_matches('=')).unwrap(), BYTES);
        let url_safe = base64.replace('/', "_").replace('+', "-");
        assert_eq!(read(&url_safe).unwrap(), BYTES);
    }

    #[test]
    fn short_repeated_and_spoken_secrets_are_refused() {
        for weak in [
            "",
            "***",
            "hunter2",
            "correct horse battery staple and then some more words",
            "correcthorsebatterystapleandthensomemorewordsx",
            "d31b8c025fe7946a10be772dc841f936830ea55cd0691fb248ed97247bca00",
            "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "0000000000000000000000000000000000000000000000000000000000000000",
        ] {
            assert_eq!(read(weak), None, "{weak:?}");
        }
    }

    #[test]
    fn a_secret_is_never_shown() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"***\"");
    }
}
