//! From values to envelopes and back.

use bytes::{Bytes, BytesMut};
use serde::Serialize;

use super::protection::{Protection, trailer_bytes};
use super::wire::{Form, Parts};
use super::{
    CodecConfig, Compression, Envelope, EnvelopeError, HEADER_BYTES, Header, Serializer, wire,
};
use crate::error::Result as EngineResult;

/// Room for a payload and what follows it, before any is known of it.
const ROOM: usize = 512;

/// Turns values into envelopes and back, in one configured way. Cheap to clone.
///
/// The default writes MessagePack, uncompressed and unprotected. Whatever it writes, a codec reads all
/// serializers and compressions of its build, so the configuration can change over stored values.
#[derive(Clone, Debug)]
pub struct Codec {
    serializer: Serializer,
    compression: Compression,
    level: i32,
    /// Least length that is compressed.
    min_bytes: u64,
    /// Greatest length before compression.
    max_raw_bytes: u64,
    protection: Protection,
}

impl Default for Codec {
    fn default() -> Self {
        Self::with(&CodecConfig::default(), Protection::default())
    }
}

impl Codec {
    /// A codec with these settings.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) naming the field, as it stands under `codec`,
    /// and what is allowed; also when a secret cannot be read, or is too weak.
    pub fn new(config: &CodecConfig) -> EngineResult<Self> {
        config.validate("codec")?;
        let protection = Protection::new(&config.protection, "codec.protection")?;
        Ok(Self::with(config, protection))
    }

    fn with(config: &CodecConfig, protection: Protection) -> Self {
        Self {
            serializer: config.serializer,
            compression: config.compression.algorithm,
            level: config.compression.level(),
            min_bytes: config.compression.min_bytes.as_u64(),
            max_raw_bytes: config.max_raw_bytes.as_u64(),
            protection,
        }
    }

    /// The format that this codec writes.
    #[must_use]
    pub fn serializer(&self) -> Serializer {
        self.serializer
    }

    /// Whether what this codec writes cannot be read without a key.
    pub(crate) fn encrypts(&self) -> bool {
        self.protection.encrypts()
    }

    /// An envelope of `value` for `key`.
    ///
    /// # Errors
    /// - [`EnvelopeError::Unfaithful`] when `value` would not be read back as it is.
    /// - [`EnvelopeError::TooLarge`], [`EnvelopeError::TooManyMarks`].
    /// - [`EnvelopeError::Randomness`] when there is none to encrypt with.
    pub fn seal<T: Serialize>(
        &self,
        key: &[u8; 32],
        header: &Header,
        value: &T,
    ) -> Result<Bytes, EnvelopeError> {
        let mut form = self.form(self.serializer.code());
        let (mut out, at) = self.start(key, header, form)?;
        self.serializer.write(value, &mut out)?;
        form.raw_len = (out.len() - at) as u64;
        self.check_length(form.raw_len)?;
        if form.raw_len >= self.min_bytes
            && let Some(smaller) = self.compression.compress(self.level, &out[at..])
        {
            out.truncate(at);
            out.extend_from_slice(&smaller);
            form.compression = self.compression.code();
        }
        self.finish(out, at, form)
    }

    /// An envelope for `key` that has a header and no value.
    ///
    /// # Errors
    /// [`EnvelopeError::TooManyMarks`], [`EnvelopeError::Randomness`].
    pub fn seal_empty(&self, key: &[u8; 32], header: &Header) -> Result<Bytes, EnvelopeError> {
        let form = self.form(0);
        let (out, at) = self.start(key, header, form)?;
        self.finish(out, at, form)
    }

    /// An envelope for `key` of what `envelope` holds, under another header. The value is neither
    /// decompressed nor deserialized; it is protected as this codec does it, with the active key.
    ///
    /// # Errors
    /// [`EnvelopeError::TooManyMarks`], [`EnvelopeError::Randomness`].
    pub fn reseal(
        &self,
        key: &[u8; 32],
        header: &Header,
        envelope: &Envelope,
    ) -> Result<Bytes, EnvelopeError> {
        let mut form = self.form(envelope.serializer.map_or(0, Serializer::code));
        form.compression = envelope.compression.code();
        form.raw_len = envelope.raw_len as u64;
        let (mut out, at) = self.start(key, header, form)?;
        out.extend_from_slice(&envelope.payload);
        self.finish(out, at, form)
    }

    /// Reads and checks the envelope stored under `key`. The payload shares `bytes`' memory, unless
    /// it was encrypted.
    ///
    /// # Errors
    /// The first check that fails: magic, version, lengths, protection, features, key, length of the
    /// value.
    pub fn open(&self, key: &[u8; 32], bytes: &Bytes) -> Result<Envelope, EnvelopeError> {
        match wire::version(bytes)? {
            1 if !self.protection.takes_unprotected() => Err(EnvelopeError::Unprotected),
            1 => {
                let (header, payload) = wire::open_version_1(key, bytes)?;
                self.check_length(payload.len() as u64)?;
                Ok(Envelope {
                    header,
                    serializer: Some(Serializer::MsgPack),
                    compression: Compression::None,
                    raw_len: payload.len(),
                    payload,
                })
            }
            2 => self.open_version_2(key, bytes),
            version => Err(EnvelopeError::UnknownVersion { version }),
        }
    }

    /// As [`open`](Self::open), for whatever key the envelope says it was stored under: to look at a
    /// value whose key is known by another name. Never a proof that the value belongs where it lies.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn inspect(&self, bytes: &Bytes) -> Result<Envelope, EnvelopeError> {
        let key = wire::key_of(bytes)?;
        self.open(&key, bytes)
    }

    fn open_version_2(&self, key: &[u8; 32], bytes: &Bytes) -> Result<Envelope, EnvelopeError> {
        let parts = Parts::find(bytes, trailer_bytes)?;
        let payload = self.protection.open(&parts)?;
        let header = parts.header(key)?;
        let unknown = |feature, value| EnvelopeError::UnknownFeature { feature, value };
        let form = parts.form;
        let compression = Compression::from_code(form.compression)
            .ok_or_else(|| unknown("compression", form.compression))?;
        let serializer = match form.serializer {
            0 => None,
            code => Some(Serializer::from_code(code).ok_or_else(|| unknown("serializer", code))?),
        };
        self.check_length(form.raw_len)?;
        let raw_len = usize::try_from(form.raw_len).map_err(|_| EnvelopeError::Compression)?;
        if compression == Compression::None && raw_len != payload.len() {
            return Err(EnvelopeError::Compression);
        }
        Ok(Envelope {
            header,
            serializer,
            compression,
            payload,
            raw_len,
        })
    }

    fn check_length(&self, bytes: u64) -> Result<(), EnvelopeError> {
        let limit = self.max_raw_bytes;
        if bytes > limit {
            return Err(EnvelopeError::TooLarge { bytes, limit });
        }
        Ok(())
    }

    fn form(&self, serializer: u8) -> Form {
        let (protection, key_id) = self.protection.code();
        Form {
            serializer,
            compression: Compression::None.code(),
            protection,
            key_id,
            raw_len: 0,
        }
    }

    /// A started envelope, and where its payload begins.
    fn start(
        &self,
        key: &[u8; 32],
        header: &Header,
        form: Form,
    ) -> Result<(BytesMut, usize), EnvelopeError> {
        let mut out = BytesMut::with_capacity(HEADER_BYTES + ROOM);
        wire::start(&mut out, key, header, form)?;
        let at = out.len();
        Ok((out, at))
    }

    fn finish(&self, mut out: BytesMut, at: usize, form: Form) -> Result<Bytes, EnvelopeError> {
        wire::complete(&mut out, at, form);
        self.protection.close(&mut out, at)?;
        Ok(out.freeze())
    }
}
