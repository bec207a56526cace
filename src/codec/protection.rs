//! What stands after the payload and proves the envelope whole.
//!
//! A checksum finds accidents, not attackers. A signature (keyed BLAKE3) or an encryption covers all of
//! the envelope, the digest of the key included, so that no value can be changed, or served for another
//! key, by whoever can write to the store. Each way has a key of its own, derived from the secret: what
//! one of them gives away is of no use against another.
//!
//! Always true: a codec that protects values refuses unprotected ones unless told otherwise, and a
//! failed check gives an error, never the bytes that were found.

use std::fmt;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use xxhash_rust::xxh3::xxh3_64;
use zeroize::Zeroizing;

use super::wire::Parts;
use super::{EnvelopeError, ProtectionConfig, ProtectionKind};
use crate::error::Result as EngineResult;

const CHECKSUM_BYTES: usize = 8;
const MAC_BYTES: usize = 32;
#[cfg(feature = "encryption")]
const SEAL_BYTES: usize = cipher::NONCE_BYTES + cipher::TAG_BYTES;

impl ProtectionKind {
    /// The byte in the header.
    const fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Mac => 1,
            Self::AesGcm => 2,
            Self::ChaCha20Poly1305 => 3,
        }
    }

    /// The kind of a byte in the header, if this build has it.
    const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::None),
            1 => Some(Self::Mac),
            #[cfg(feature = "encryption")]
            2 => Some(Self::AesGcm),
            #[cfg(feature = "encryption")]
            3 => Some(Self::ChaCha20Poly1305),
            _ => None,
        }
    }
}

/// Bytes after the payload for each kind of protection, if the kind is known.
pub(super) const fn trailer_bytes(protection: u8) -> Option<usize> {
    match ProtectionKind::from_code(protection) {
        Some(ProtectionKind::None) => Some(CHECKSUM_BYTES),
        Some(ProtectionKind::Mac) => Some(MAC_BYTES),
        #[cfg(feature = "encryption")]
        Some(ProtectionKind::AesGcm | ProtectionKind::ChaCha20Poly1305) => Some(SEAL_BYTES),
        _ => None,
    }
}

/// One way to protect, and the keys that stored values may be protected with.
#[derive(Clone, Default)]
pub(super) struct Protection {
    kind: ProtectionKind,
    /// Where among the keys the active one is.
    active: usize,
    keys: Arc<[Key]>,
    accept_unprotected: bool,
}

struct Key {
    id: u32,
    mac: Zeroizing<[u8; 32]>,
    #[cfg(feature = "encryption")]
    aes_gcm: aes_gcm::Aes256Gcm,
    #[cfg(feature = "encryption")]
    chacha20_poly1305: chacha20poly1305::ChaCha20Poly1305,
}

impl Protection {
    /// Reads the secrets of a valid configuration.
    pub(super) fn new(config: &ProtectionConfig, path: &str) -> EngineResult<Self> {
        let mut keys = Vec::with_capacity(config.keys.len());
        for (i, key) in config.keys.iter().enumerate() {
            let secret = key.secret_bytes(&format!("{path}.keys[{i}]"))?;
            keys.push(Key::new(key.id, &secret));
        }
        let active = config.active();
        Ok(Self {
            kind: config.kind,
            active: keys
                .iter()
                .position(|key| Some(key.id) == active)
                .unwrap_or_default(),
            keys: keys.into(),
            accept_unprotected: config.accept_unprotected,
        })
    }

    /// The byte in the header, and the id of the key.
    pub(super) fn code(&self) -> (u8, u32) {
        let id = match self.kind {
            ProtectionKind::None => 0,
            _ => self.keys.get(self.active).map_or(0, |key| key.id),
        };
        (self.kind.code(), id)
    }

    /// Whether payloads are encrypted.
    pub(super) fn encrypts(&self) -> bool {
        matches!(
            self.kind,
            ProtectionKind::AesGcm | ProtectionKind::ChaCha20Poly1305
        )
    }

    /// Whether unprotected envelopes are read.
    pub(super) fn takes_unprotected(&self) -> bool {
        self.kind == ProtectionKind::None || self.accept_unprotected
    }

    /// Closes an envelope whose payload begins at `at`.
    pub(super) fn close(&self, out: &mut BytesMut, at: usize) -> Result<(), EnvelopeError> {
        let key = || {
            let key = self.keys.get(self.active);
            key.ok_or(EnvelopeError::UnknownKey { id: 0 })
        };
        match self.kind {
            ProtectionKind::None => {
                let checksum = xxh3_64(out);
                out.put_u64_le(checksum);
            }
            ProtectionKind::Mac => {
                let mac = blake3::keyed_hash(&key()?.mac, out);
                out.put_slice(mac.as_bytes());
            }
            #[cfg(feature = "encryption")]
            ProtectionKind::AesGcm => cipher::close(&key()?.aes_gcm, out, at)?,
            #[cfg(feature = "encryption")]
            ProtectionKind::ChaCha20Poly1305 => cipher::close(&key()?.chacha20_poly1305, out, at)?,
            #[cfg(not(feature = "encryption"))]
            kind => {
                return Err(EnvelopeError::UnknownFeature {
                    feature: "protection",
                    value: kind.code(),
                });
            }
        }
        #[cfg(not(feature = "encryption"))]
        let _ = at;
        Ok(())
    }

    /// Proves an envelope whole, and gives its payload.
    pub(super) fn open(&self, parts: &Parts<'_>) -> Result<Bytes, EnvelopeError> {
        let id = parts.form.key_id;
        let key = || {
            let key = self.keys.iter().find(|key| key.id == id);
            key.ok_or(EnvelopeError::UnknownKey { id })
        };
        match ProtectionKind::from_code(parts.form.protection) {
            Some(ProtectionKind::None) if !self.takes_unprotected() => {
                Err(EnvelopeError::Unprotected)
            }
            Some(ProtectionKind::None) => {
                if parts.trailer() != xxh3_64(parts.body()).to_le_bytes() {
                    return Err(EnvelopeError::Checksum);
                }
                Ok(parts.payload())
            }
            Some(ProtectionKind::Mac) => {
                // Compared in constant time.
                if blake3::keyed_hash(&key()?.mac, parts.body()) != *parts.trailer() {
                    return Err(EnvelopeError::Unauthentic);
                }
                Ok(parts.payload())
            }
            #[cfg(feature = "encryption")]
            Some(ProtectionKind::AesGcm) => cipher::open(&key()?.aes_gcm, parts),
            #[cfg(feature = "encryption")]
            Some(ProtectionKind::ChaCha20Poly1305) => {
                cipher::open(&key()?.chacha20_poly1305, parts)
            }
            _ => Err(EnvelopeError::UnknownFeature {
                feature: "protection",
                value: parts.form.protection,
            }),
        }
    }
}

impl fmt::Debug for Protection {
    /// Shows the ids of the keys, never a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = |keys: &[Key]| keys.iter().map(|key| key.id).collect::<Vec<_>>();
        f.debug_struct("Protection")
            .field("kind", &self.kind)
            .field("active_key", &self.code().1)
            .field("keys", &ids(&self.keys))
            .field("accept_unprotected", &self.accept_unprotected)
            .finish()
    }
}

impl Key {
    fn new(id: u32, secret: &[u8]) -> Self {
        let derived = |context| Zeroizing::new(blake3::derive_key(context, secret));
        #[cfg(feature = "encryption")]
        let aes = derived("askonce envelope 2 AES-256-GCM");
        #[cfg(feature = "encryption")]
        let chacha = derived("askonce envelope 2 ChaCha20-Poly1305");
        Self {
            id,
            mac: derived("askonce envelope 2 BLAKE3 signature"),
            #[cfg(feature = "encryption")]
            aes_gcm: aes_gcm::KeyInit::new((&*aes).into()),
            #[cfg(feature = "encryption")]
            chacha20_poly1305: chacha20poly1305::KeyInit::new((&*chacha).into()),
        }
    }
}

/// Encryption of the payload; what stands before it is authenticated with it.
#[cfg(feature = "encryption")]
mod cipher {
    use aes_gcm::aead::{AeadInOut, Nonce, Tag};
    use bytes::{BufMut, Bytes, BytesMut};
    use rand::TryRng;
    use rand::rngs::SysRng;

    use super::{EnvelopeError, Parts};

    pub(super) const NONCE_BYTES: usize = 12;
    pub(super) const TAG_BYTES: usize = 16;

    /// Encrypts the payload, all from `at` on, and appends nonce and tag.
    pub(super) fn close<C: AeadInOut>(
        cipher: &C,
        out: &mut BytesMut,
        at: usize,
    ) -> Result<(), EnvelopeError> {
        // From the operating system, as a generator of our own would repeat itself after a fork.
        let mut nonce = Nonce::<C>::default();
        SysRng
            .try_fill_bytes(&mut nonce)
            .map_err(|_| EnvelopeError::Randomness)?;
        let (head, payload) = out.split_at_mut(at);
        let bytes = payload.len() as u64;
        let tag = cipher
            .encrypt_inout_detached(&nonce, head, payload.into())
            .map_err(|_| EnvelopeError::TooLarge {
                bytes,
                limit: MOST_BYTES,
            })?;
        out.put_slice(&nonce);
        out.put_slice(&tag);
        Ok(())
    }

    /// What either cipher encrypts under one nonce, rounded down.
    const MOST_BYTES: u64 = 1 << 35;

    /// The decrypted payload.
    pub(super) fn open<C: AeadInOut>(
        cipher: &C,
        parts: &Parts<'_>,
    ) -> Result<Bytes, EnvelopeError> {
        let (nonce, tag) = parts.trailer().split_at(NONCE_BYTES);
        let unauthentic = |_| EnvelopeError::Unauthentic;
        let nonce = Nonce::<C>::try_from(nonce).map_err(unauthentic)?;
        let tag = Tag::<C>::try_from(tag).map_err(unauthentic)?;
        let mut payload = BytesMut::from(parts.payload());
        cipher
            .decrypt_inout_detached(&nonce, parts.head(), payload.as_mut().into(), &tag)
            .map_err(|_| EnvelopeError::Unauthentic)?;
        Ok(payload.freeze())
    }
}
