//! Settings of a codec.

use std::path::PathBuf;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Compression, Secret, Serializer};
use crate::error::{Error, ErrorKind, Result};

/// How to make a secret.
const MAKE_A_SECRET: &str = "openssl rand -hex 32";

/// How values are stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct CodecConfig {
    /// The format of values: `msgpack` (default), `json` or `postcard`. Stored values of another
    /// format are still read.
    pub serializer: Serializer,
    /// How large values are made smaller. Stored values of another compression are still read.
    pub compression: CompressionConfig,
    /// Largest value in its serialized form before compression, 1KiB to 1GiB. Default: 64 MiB. A
    /// larger one is neither stored nor read, so that a small stored value cannot fill the memory.
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::Bytes"))]
    pub max_raw_bytes: ByteSize,
    /// Whether stored values are signed or encrypted.
    pub protection: ProtectionConfig,
}

impl Default for CodecConfig {
    fn default() -> Self {
        Self {
            serializer: Serializer::default(),
            compression: CompressionConfig::default(),
            max_raw_bytes: ByteSize::mib(64),
            protection: ProtectionConfig::default(),
        }
    }
}

/// How large values are made smaller.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct CompressionConfig {
    /// `none` (default), `zstd` or `lz4`. The latter two need the feature `compression`.
    pub algorithm: Compression,
    /// Least length of a value that is compressed. Default: 1 KiB. One that would not become smaller
    /// is stored as it is.
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::Bytes"))]
    pub min_bytes: ByteSize,
    /// How hard `zstd` tries, 1 to 19. Default: 3. A higher level takes longer and makes little
    /// difference for values of a few kilobytes.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 19)))]
    pub level: Option<i32>,
}

impl Default for CompressionConfig {
    fn default() -> Self {
        Self {
            algorithm: Compression::None,
            min_bytes: ByteSize::kib(1),
            level: None,
        }
    }
}

/// Whether stored values are signed or encrypted.
///
/// A key is replaced in three steps: list the new one everywhere, make it the active one, and take the
/// old one out when all that it protects has expired.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ProtectionConfig {
    /// `none` (default), `mac`, `aes_gcm` or `chacha20_poly1305`. The latter two encrypt, and need the
    /// feature `encryption`.
    pub kind: ProtectionKind,
    /// Id of the key that new values are protected with. Needed when several are listed.
    pub active_key: Option<u32>,
    /// The keys that stored values may be protected with.
    pub keys: Vec<KeyConfig>,
    /// Whether values without protection are read too. Default: false. Only for the time in which a
    /// cache goes over from no protection: whoever can write to the store can then forge values.
    pub accept_unprotected: bool,
}

/// What protects a stored value from whoever can reach the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ProtectionKind {
    /// Nothing: a checksum finds accidents, not attackers. The default.
    #[default]
    None,
    /// A signature by keyed BLAKE3: values can be read by others, and neither be changed nor moved to
    /// another key.
    Mac,
    /// Encryption by AES-256-GCM, with the same assurance. Fastest where the processor has AES.
    ///
    /// Its nonces are 96 random bits. Replace a key before it has protected 2^32 values, after which
    /// the chance that two of them have the same nonce is one in 2^33.
    AesGcm,
    /// Encryption by ChaCha20-Poly1305, with the same assurance and the same limit as
    /// [`AesGcm`](Self::AesGcm). Fastest elsewhere.
    #[serde(rename = "chacha20_poly1305")]
    ChaCha20Poly1305,
}

/// One key. Its secret is given in one of three ways.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct KeyConfig {
    /// What stored values call it, from 1 on. An id is never used again for another secret.
    pub id: u32,
    /// The secret: at least 32 random bytes in hexadecimal or base64, as `openssl rand -hex 32` makes
    /// them. Never shown.
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub secret: Option<Secret>,
    /// The environment variable that holds the secret.
    pub secret_env: Option<String>,
    /// The file that holds the secret.
    pub secret_file: Option<PathBuf>,
}

impl CodecConfig {
    const RAW_BYTES: std::ops::RangeInclusive<ByteSize> = ByteSize::kib(1)..=ByteSize::gib(1);

    /// Checks every field; `path` is where this section stands in the file. Secrets in variables and
    /// files are read when the codec is built.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the field and what is allowed; in a build without what is asked
    /// for, how to get one that has it.
    pub fn validate(&self, path: &str) -> Result<()> {
        self.compression.validate(&format!("{path}.compression"))?;
        if !Self::RAW_BYTES.contains(&self.max_raw_bytes) {
            return Err(Error::new(ErrorKind::Config, "a setting is out of range")
                .with("field", format!("{path}.max_raw_bytes"))
                .with("value", self.max_raw_bytes)
                .with("allowed", "1KiB to 1GiB"));
        }
        self.protection.validate(&format!("{path}.protection"))
    }
}

impl CompressionConfig {
    /// The level of zstd when none is given.
    const LEVEL: i32 = 3;

    pub(super) fn level(&self) -> i32 {
        self.level.unwrap_or(Self::LEVEL)
    }

    fn validate(&self, path: &str) -> Result<()> {
        if !self.algorithm.is_built() {
            return Err(Error::new(ErrorKind::Config, "this build cannot compress")
                .with("field", format!("{path}.algorithm"))
                .with(
                    "remedy",
                    "build with the feature compression, or use algorithm none",
                ));
        }
        let Some(level) = self.level else {
            return Ok(());
        };
        let refuse = |what: &'static str| {
            Error::new(ErrorKind::Config, what)
                .with("field", format!("{path}.level"))
                .with("value", level)
        };
        if self.algorithm != Compression::Zstd {
            return Err(refuse("only zstd has levels").with("remedy", "leave the level out"));
        }
        if !(1..=19).contains(&level) {
            return Err(refuse("a setting is out of range").with("allowed", "1 to 19"));
        }
        Ok(())
    }
}

impl ProtectionConfig {
    /// The key that new values are protected with.
    pub(super) fn active(&self) -> Option<u32> {
        match (self.active_key, self.keys.as_slice()) {
            (None, [only]) => Some(only.id),
            (active, _) => active,
        }
    }

    fn validate(&self, path: &str) -> Result<()> {
        let encrypts = matches!(
            self.kind,
            ProtectionKind::AesGcm | ProtectionKind::ChaCha20Poly1305
        );
        if encrypts && !cfg!(feature = "encryption") {
            return Err(Error::new(ErrorKind::Config, "this build cannot encrypt")
                .with("field", format!("{path}.kind"))
                .with(
                    "remedy",
                    "build with the feature encryption, or use kind mac",
                ));
        }
        for (i, key) in self.keys.iter().enumerate() {
            let path = format!("{path}.keys[{i}]");
            key.validate(&path)?;
            if self.keys[..i].iter().any(|other| other.id == key.id) {
                return Err(Error::new(ErrorKind::Config, "two keys have the same id")
                    .with("field", format!("{path}.id"))
                    .with("value", key.id));
            }
        }
        let active = self.active();
        let listed = |id| self.keys.iter().any(|key| key.id == id);
        let refuse = |field: &str, what: &'static str| {
            Error::new(ErrorKind::Config, what).with("field", format!("{path}.{field}"))
        };
        match active {
            Some(id) if !listed(id) => {
                Err(refuse("active_key", "the active key is not listed").with("value", id))
            }
            None if self.kind != ProtectionKind::None && self.keys.is_empty() => {
                Err(refuse("keys", "protection needs a key").with("remedy", MAKE_A_SECRET))
            }
            None if self.kind != ProtectionKind::None => Err(refuse(
                "active_key",
                "of several keys, one must be the active one",
            )),
            _ => Ok(()),
        }
    }
}

impl KeyConfig {
    fn validate(&self, path: &str) -> Result<()> {
        let refuse = |field: &str, what: &'static str| {
            Error::new(ErrorKind::Config, what).with("field", format!("{path}{field}"))
        };
        if self.id == 0 {
            return Err(refuse(".id", "a key needs an id").with("allowed", "1 or more"));
        }
        let ways = [
            self.secret.is_some(),
            self.secret_env.is_some(),
            self.secret_file.is_some(),
        ];
        if ways.into_iter().filter(|way| *way).count() != 1 {
            return Err(refuse("", "a key needs one secret, given in one way")
                .with("allowed", "one of secret, secret_env, secret_file"));
        }
        match &self.secret {
            Some(secret) => strong(secret, &format!("{path}.secret")).map(drop),
            None => Ok(()),
        }
    }

    /// The bytes of the secret, wherever it is.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when it is not there, or too weak.
    pub(super) fn secret_bytes(&self, path: &str) -> Result<Zeroizing<Vec<u8>>> {
        let missing = |field: &str, what: &'static str| {
            Error::new(ErrorKind::Config, what).with("field", format!("{path}.{field}"))
        };
        if let Some(secret) = &self.secret {
            return strong(secret, &format!("{path}.secret"));
        }
        if let Some(name) = &self.secret_env {
            let text = std::env::var(name).map_err(|_| {
                missing("secret_env", "the variable of a secret is not set").with("value", name)
            })?;
            return strong(&Secret::new(text), &format!("{path}.secret_env"));
        }
        let Some(file) = &self.secret_file else {
            return Err(missing(
                "secret",
                "a key needs one secret, given in one way",
            ));
        };
        let text = std::fs::read_to_string(file).map_err(|error| {
            missing("secret_file", "the file of a secret cannot be read")
                .with("value", file.display())
                .caused_by(error)
        })?;
        strong(&Secret::new(text), &format!("{path}.secret_file"))
    }
}

fn strong(secret: &Secret, field: &str) -> Result<Zeroizing<Vec<u8>>> {
    secret.bytes().ok_or_else(|| {
        Error::new(ErrorKind::Config, "a secret is too weak")
            .with("field", field)
            .with(
                "allowed",
                "32 random bytes or more, in hexadecimal or base64",
            )
            .with("remedy", MAKE_A_SECRET)
    })
}
