//! A serializer in front of another one that refuses what would not be read back as it was.
//!
//! Formats differ in what they can tell apart. JSON and MessagePack write `Some(None)` and `Some(())`
//! as they write `None`; JSON writes a number that is none as `null`; postcard cannot tell that a
//! field was left out. Each of these is an error here, before anything is stored.

use std::fmt::Display;

use serde::ser::{
    Error, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

/// What a format cannot tell apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// `Some` of a `None` or a unit, from a `None`.
    pub(super) nested_null: bool,
    /// `Some` of a unit struct, from a `None`.
    pub(super) unit_struct_is_null: bool,
    /// Infinities and numbers that are none, from a `None`.
    pub(super) not_finite: bool,
    /// A struct without one of its fields, from another struct.
    pub(super) skipped_field: bool,
}

/// A value that is serialized faithfully or not at all.
pub(super) struct Faithful<'a, T: ?Sized> {
    value: &'a T,
    limits: Limits,
    /// Whether this is what a `Some` holds.
    in_some: bool,
}

impl<'a, T: ?Sized> Faithful<'a, T> {
    pub(super) fn new(value: &'a T, limits: Limits) -> Self {
        Self {
            value,
            limits,
            in_some: false,
        }
    }
}

impl<T: Serialize + ?Sized> Serialize for Faithful<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(Checked {
            inner: serializer,
            limits: self.limits,
            in_some: self.in_some,
        })
    }
}

struct Checked<S> {
    inner: S,
    limits: Limits,
    in_some: bool,
}

impl<S: Serializer> Checked<S> {
    fn null(&self, is_null: bool) -> Result<(), S::Error> {
        if self.in_some && is_null {
            return Err(S::Error::custom("an empty value inside an option"));
        }
        Ok(())
    }

    fn finite(&self, is_finite: bool) -> Result<(), S::Error> {
        if self.limits.not_finite && !is_finite {
            return Err(S::Error::custom("a number that is not finite"));
        }
        Ok(())
    }
}

macro_rules! forward {
    ($($method:ident: $t:ty;)*) => {$(
        fn $method(self, value: $t) -> Result<S::Ok, S::Error> {
            self.inner.$method(value)
        }
    )*};
}

impl<S: Serializer> Serializer for Checked<S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Parts<S::SerializeSeq>;
    type SerializeTuple = Parts<S::SerializeTuple>;
    type SerializeTupleStruct = Parts<S::SerializeTupleStruct>;
    type SerializeTupleVariant = Parts<S::SerializeTupleVariant>;
    type SerializeMap = Parts<S::SerializeMap>;
    type SerializeStruct = Parts<S::SerializeStruct>;
    type SerializeStructVariant = Parts<S::SerializeStructVariant>;

    forward! {
        serialize_bool: bool; serialize_char: char; serialize_str: &str; serialize_bytes: &[u8];
        serialize_i8: i8; serialize_i16: i16; serialize_i32: i32; serialize_i64: i64;
        serialize_i128: i128; serialize_u8: u8; serialize_u16: u16; serialize_u32: u32;
        serialize_u64: u64; serialize_u128: u128;
    }

    fn serialize_f32(self, value: f32) -> Result<S::Ok, S::Error> {
        self.finite(value.is_finite())?;
        self.inner.serialize_f32(value)
    }

    fn serialize_f64(self, value: f64) -> Result<S::Ok, S::Error> {
        self.finite(value.is_finite())?;
        self.inner.serialize_f64(value)
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.null(self.limits.nested_null)?;
        self.inner.serialize_none()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.serialize_some(&Faithful {
            value,
            limits: self.limits,
            in_some: true,
        })
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.null(self.limits.nested_null)?;
        self.inner.serialize_unit()
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<S::Ok, S::Error> {
        self.null(self.limits.unit_struct_is_null)?;
        self.inner.serialize_unit_struct(name)
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit_variant(name, index, variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        // A newtype is written as what it holds.
        let value = &Faithful {
            value,
            limits: self.limits,
            in_some: self.in_some,
        };
        self.inner.serialize_newtype_struct(name, value)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let value = &Faithful::new(value, self.limits);
        self.inner
            .serialize_newtype_variant(name, index, variant, value)
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        let limits = self.limits;
        let inner = self.inner.serialize_seq(len)?;
        Ok(Parts { inner, limits })
    }

    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, S::Error> {
        let limits = self.limits;
        let inner = self.inner.serialize_tuple(len)?;
        Ok(Parts { inner, limits })
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleStruct, S::Error> {
        let limits = self.limits;
        let inner = self.inner.serialize_tuple_struct(name, len)?;
        Ok(Parts { inner, limits })
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        let limits = self.limits;
        let inner = self
            .inner
            .serialize_tuple_variant(name, index, variant, len)?;
        Ok(Parts { inner, limits })
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        let limits = self.limits;
        let inner = self.inner.serialize_map(len)?;
        Ok(Parts { inner, limits })
    }

    fn serialize_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStruct, S::Error> {
        let limits = self.limits;
        let inner = self.inner.serialize_struct(name, len)?;
        Ok(Parts { inner, limits })
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        let limits = self.limits;
        let inner = self
            .inner
            .serialize_struct_variant(name, index, variant, len)?;
        Ok(Parts { inner, limits })
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.collect_str(value)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// The parts of a compound value.
struct Parts<C> {
    inner: C,
    limits: Limits,
}

impl<C> Parts<C> {
    fn part<'a, T: ?Sized>(&self, value: &'a T) -> Faithful<'a, T> {
        Faithful::new(value, self.limits)
    }

    fn skipped<E: Error>(&self) -> Result<(), E> {
        if self.limits.skipped_field {
            return Err(E::custom("a field that is left out"));
        }
        Ok(())
    }
}

macro_rules! listed {
    ($($compound:ident: $method:ident;)*) => {$(
        impl<C: $compound> $compound for Parts<C> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
                let part = self.part(value);
                self.inner.$method(&part)
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                self.inner.end()
            }
        }
    )*};
}
listed! {
    SerializeSeq: serialize_element;
    SerializeTuple: serialize_element;
    SerializeTupleStruct: serialize_field;
    SerializeTupleVariant: serialize_field;
}

macro_rules! named {
    ($($compound:ident;)*) => {$(
        impl<C: $compound> $compound for Parts<C> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), C::Error> {
                let part = self.part(value);
                self.inner.serialize_field(name, &part)
            }

            fn skip_field(&mut self, name: &'static str) -> Result<(), C::Error> {
                self.skipped()?;
                self.inner.skip_field(name)
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                self.inner.end()
            }
        }
    )*};
}
named! {
    SerializeStruct;
    SerializeStructVariant;
}

impl<C: SerializeMap> SerializeMap for Parts<C> {
    type Ok = C::Ok;
    type Error = C::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), C::Error> {
        let part = self.part(key);
        self.inner.serialize_key(&part)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        let part = self.part(value);
        self.inner.serialize_value(&part)
    }

    fn end(self) -> Result<C::Ok, C::Error> {
        self.inner.end()
    }
}
