//! The formats of a payload.

use bytes::{BufMut, BytesMut};
use postcard::ser_flavors::Flavor;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use super::EnvelopeError;
use super::faithful::{Faithful, Limits};

/// A format of values.
///
/// What one of them cannot tell apart, such as `Some(None)` from `None` in JSON and MessagePack, is an
/// error when it is stored, never another value when it is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Serializer {
    /// MessagePack, with maps by field name: compact, and fields can be added later. The default.
    #[default]
    MsgPack,
    /// JSON: readable by people and other programs. Numbers must be finite; keys of maps are texts,
    /// numbers or `bool`s.
    Json,
    /// postcard: the smallest and fastest. It is not self-describing: any change of a type needs a new
    /// version of its schema, and types whose form depends on what they read (untagged, internally
    /// tagged and flattened ones, `serde_json::Value`) cannot be read back.
    Postcard,
}

impl Serializer {
    /// The stable, lower-case name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MsgPack => "msgpack",
            Self::Json => "json",
            Self::Postcard => "postcard",
        }
    }

    /// Whether what is written says of itself what it is. If not, some types can be written and not
    /// read: those that ask what comes next.
    #[must_use]
    pub const fn is_self_describing(self) -> bool {
        !matches!(self, Self::Postcard)
    }

    /// The byte in the header. Zero says that there is no payload.
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::MsgPack => 1,
            Self::Json => 2,
            Self::Postcard => 3,
        }
    }

    pub(super) const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::MsgPack),
            2 => Some(Self::Json),
            3 => Some(Self::Postcard),
            _ => None,
        }
    }

    const fn limits(self) -> Limits {
        Limits {
            nested_null: matches!(self, Self::MsgPack | Self::Json),
            unit_struct_is_null: matches!(self, Self::Json),
            not_finite: matches!(self, Self::Json),
            skipped_field: matches!(self, Self::Postcard),
        }
    }

    /// Appends the form of `value` to `out`.
    pub(super) fn write<T: Serialize + ?Sized>(
        self,
        value: &T,
        out: &mut BytesMut,
    ) -> Result<(), EnvelopeError> {
        let value = Faithful::new(value, self.limits());
        let written = match self {
            Self::MsgPack => {
                let mut serializer = rmp_serde::Serializer::new(out.writer()).with_struct_map();
                value.serialize(&mut serializer).is_ok()
            }
            Self::Json => serde_json::to_writer(out.writer(), &value).is_ok(),
            Self::Postcard => postcard::serialize_with_flavor(&value, Appended(out)).is_ok(),
        };
        // What the format says is left out: it may quote the value.
        written.then_some(()).ok_or(EnvelopeError::Unfaithful {
            serializer: self.as_str(),
        })
    }

    /// The value at the beginning of `bytes`, and whether nothing comes after it.
    pub(super) fn read<T: DeserializeOwned>(
        self,
        bytes: &[u8],
    ) -> Result<(T, bool), EnvelopeError> {
        match self {
            Self::MsgPack => {
                let mut from = rmp_serde::Deserializer::from_read_ref(bytes);
                let value = T::deserialize(&mut from).map_err(|_| EnvelopeError::Payload)?;
                let ended = matches!(
                    IgnoredAny::deserialize(&mut from),
                    Err(rmp_serde::decode::Error::InvalidMarkerRead(error))
                        if error.kind() == std::io::ErrorKind::UnexpectedEof
                );
                Ok((value, ended))
            }
            Self::Json => {
                let mut from = serde_json::Deserializer::from_slice(bytes);
                let value = T::deserialize(&mut from).map_err(|_| EnvelopeError::Payload)?;
                Ok((value, from.end().is_ok()))
            }
            Self::Postcard => {
                let (value, rest) =
                    postcard::take_from_bytes(bytes).map_err(|_| EnvelopeError::Payload)?;
                Ok((value, rest.is_empty()))
            }
        }
    }
}

/// Where postcard writes to.
struct Appended<'a>(&'a mut BytesMut);

impl Flavor for Appended<'_> {
    type Output = ();

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }

    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.0.put_u8(data);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}
