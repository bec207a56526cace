//! From values to envelopes and back.

use bytes::{Bytes, BytesMut};
use serde::Serialize;

use super::wire::{Form, Parts};
use super::{
    CodecConfig, Envelope, EnvelopeError, HEADER_BYTES, Header, Serializer, protection, wire,
};
use crate::error::Result as EngineResult;

/// Room for a payload and what follows it, before any is known of it.
const ROOM: usize = 512;

/// Turns values into envelopes and back, in one configured way. Cheap to clone.
///
/// The default writes MessagePack, uncompressed and unprotected. Whatever it writes, a codec reads all
/// serializers and compressions of its build, so the configuration can change over stored values.
#[derive(Clone, Debug, Default)]
pub struct Codec {
    serializer: Serializer,
}

impl Codec {
    /// A codec with these settings.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) naming the field and what is allowed.
    pub fn new(config: &CodecConfig) -> EngineResult<Self> {
        config.validate("codec")?;
        Ok(Self {
            serializer: config.serializer,
        })
    }

    /// An envelope of `value` for `key`.
    ///
    /// # Errors
    /// - [`EnvelopeError::Unfaithful`] when `value` would not be read back as it is.
    /// - [`EnvelopeError::TooManyMarks`].
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
        self.finish(out, at, form)
    }

    /// An envelope for `key` that has a header and no value.
    ///
    /// # Errors
    /// [`EnvelopeError::TooManyMarks`].
    pub fn seal_empty(&self, key: &[u8; 32], header: &Header) -> Result<Bytes, EnvelopeError> {
        let form = self.form(0);
        let (out, at) = self.start(key, header, form)?;
        self.finish(out, at, form)
    }

    /// An envelope for `key` of what `envelope` holds, under another header. The value is not
    /// deserialized.
    ///
    /// # Errors
    /// [`EnvelopeError::TooManyMarks`].
    pub fn reseal(
        &self,
        key: &[u8; 32],
        header: &Header,
        envelope: &Envelope,
    ) -> Result<Bytes, EnvelopeError> {
        let mut form = self.form(envelope.serializer.map_or(0, Serializer::code));
        form.raw_len = envelope.payload.len() as u64;
        let (mut out, at) = self.start(key, header, form)?;
        out.extend_from_slice(&envelope.payload);
        self.finish(out, at, form)
    }

    /// Reads and checks the envelope stored under `key`. The payload shares `bytes`' memory.
    ///
    /// # Errors
    /// The first check that fails: magic, version, lengths, integrity, features, key.
    pub fn open(&self, key: &[u8; 32], bytes: &Bytes) -> Result<Envelope, EnvelopeError> {
        match wire::version(bytes)? {
            1 => {
                let (header, payload) = wire::open_version_1(key, bytes)?;
                Ok(Envelope {
                    header,
                    serializer: Some(Serializer::MsgPack),
                    payload,
                })
            }
            2 => self.open_version_2(key, bytes),
            version => Err(EnvelopeError::UnknownVersion { version }),
        }
    }

    fn open_version_2(&self, key: &[u8; 32], bytes: &Bytes) -> Result<Envelope, EnvelopeError> {
        let parts = Parts::find(bytes, protection::trailer_bytes)?;
        let payload = protection::open(&parts)?;
        let header = parts.header(key)?;
        let unknown = |feature, value| EnvelopeError::UnknownFeature { feature, value };
        let Form {
            serializer,
            compression,
            ..
        } = parts.form;
        if compression != 0 {
            return Err(unknown("compression", compression));
        }
        let serializer = match serializer {
            0 if payload.is_empty() => None,
            code => {
                Some(Serializer::from_code(code).ok_or_else(|| unknown("serializer", serializer))?)
            }
        };
        Ok(Envelope {
            header,
            serializer,
            payload,
        })
    }

    fn form(&self, serializer: u8) -> Form {
        Form {
            serializer,
            compression: 0,
            protection: protection::CHECKSUM,
            key_id: 0,
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
        protection::close(&mut out);
        Ok(out.freeze())
    }
}
