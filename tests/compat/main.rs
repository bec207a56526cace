//! Bytes written by older versions stay readable, or are refused by name.
//!
//! `bytes/` holds what each format version wrote, as hexadecimal text. A format change adds a file and
//! keeps the old ones.

use std::time::Duration;

use askonce::clock::Timestamp;
use askonce::codec::{
    Codec, CodecConfig, Compression, CompressionConfig, EnvelopeError, Header, KeyConfig, Mark,
    ProtectionConfig, ProtectionKind, Secret, Serializer,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

const KEY: [u8; 32] = [0xa5; 32];

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Payload {
    text: String,
    numbers: Vec<u32>,
}

fn payload() -> Payload {
    Payload {
        text: "naïve café".to_owned(),
        numbers: vec![1, 2, 70_000],
    }
}

fn from_hex(text: &str) -> Bytes {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    let line = |line: &[u8]| {
        line.iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    bytes.chunks(32).map(line).collect::<Vec<_>>().join("\n")
}

fn header() -> Header {
    Header {
        created: Timestamp::from_millis(1_790_000_000_000),
        expires: Some(Timestamp::from_millis(1_790_000_060_000)),
        stale_until: Some(Timestamp::from_millis(1_790_000_120_000)),
        generation: 7,
        load_time: Duration::from_millis(250),
        lease: Some(11),
        marks: vec![Mark {
            id: [0x5a; 16],
            generation: 13,
        }],
    }
}

#[test]
fn version_1_of_the_envelope_is_read_as_ever() {
    let stored = from_hex(include_str!("bytes/envelope-1.hex"));
    let read = Codec::default().open(&KEY, &stored).unwrap();
    let header = Header {
        created: Timestamp::from_millis(1_790_000_000_000),
        expires: Some(Timestamp::from_millis(1_790_000_060_000)),
        generation: 7,
        ..Header::default()
    };
    assert_eq!(read.header, header);
    assert_eq!(read.read::<Payload>().unwrap(), payload());
}

#[test]
fn any_flipped_bit_in_version_1_is_found() {
    let stored = from_hex(include_str!("bytes/envelope-1.hex"));
    for bit in 0..stored.len() * 8 {
        let mut flipped = stored.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(
            Codec::default().open(&KEY, &flipped.into()).is_err(),
            "bit {bit}"
        );
    }
}

/// A form of version 2, and what it wrote.
struct Form {
    name: &'static str,
    stored: &'static str,
    serializer: Serializer,
    compression: Compression,
    protection: ProtectionKind,
}

macro_rules! form {
    ($name:literal, $serializer:ident, $compression:ident, $protection:ident) => {
        Form {
            name: $name,
            stored: include_str!(concat!("bytes/envelope-2-", $name, ".hex")),
            serializer: Serializer::$serializer,
            compression: Compression::$compression,
            protection: ProtectionKind::$protection,
        }
    };
}

const FORMS: [Form; 8] = [
    form!("msgpack", MsgPack, None, None),
    form!("json", Json, None, None),
    form!("postcard", Postcard, None, None),
    form!("zstd", MsgPack, Zstd, None),
    form!("lz4", MsgPack, Lz4, None),
    form!("mac", MsgPack, None, Mac),
    form!("aes-gcm", MsgPack, None, AesGcm),
    form!("chacha20-poly1305", MsgPack, None, ChaCha20Poly1305),
];

impl Form {
    fn stored(&self) -> Bytes {
        from_hex(self.stored)
    }

    /// Whether the same value gives the same bytes in every release: not after compression, whose
    /// authors may find a better way, nor with random numbers in it.
    fn is_fixed(&self) -> bool {
        self.compression == Compression::None
            && matches!(self.protection, ProtectionKind::None | ProtectionKind::Mac)
    }

    fn encrypts(&self) -> bool {
        !matches!(self.protection, ProtectionKind::None | ProtectionKind::Mac)
    }

    fn is_built(&self) -> bool {
        (self.compression == Compression::None || cfg!(feature = "compression"))
            && (!self.encrypts() || cfg!(feature = "encryption"))
    }

    fn config(&self) -> CodecConfig {
        let secret = "d31b8c025fe7946a10be772dc841f936830ea55cd0691fb248ed97247bca003f";
        CodecConfig {
            serializer: self.serializer,
            compression: CompressionConfig {
                algorithm: self.compression,
                ..CompressionConfig::default()
            },
            protection: ProtectionConfig {
                kind: self.protection,
                keys: vec![KeyConfig {
                    id: 3,
                    secret: Some(Secret::new(secret)),
                    ..KeyConfig::default()
                }],
                ..ProtectionConfig::default()
            },
            ..CodecConfig::default()
        }
    }

    fn payload(&self) -> Payload {
        let Payload { text, numbers } = payload();
        let times = match self.compression {
            Compression::None => 1,
            _ => 200,
        };
        Payload {
            text: text.repeat(times),
            numbers,
        }
    }
}

#[test]
fn version_2_of_the_envelope_is_written_and_read_as_ever() {
    for form in FORMS.iter().filter(|form| form.is_built()) {
        let name = form.name;
        let codec = Codec::new(&form.config()).unwrap();
        let written = codec.seal(&KEY, &header(), &form.payload()).unwrap();
        let stored = form.stored();
        if form.is_fixed() {
            assert_eq!(to_hex(&written), to_hex(&stored), "{name}");
        }
        for bytes in [written, stored] {
            let read = codec.open(&KEY, &bytes).unwrap();
            assert_eq!(read.header, header(), "{name}");
            assert_eq!(read.serializer(), Some(form.serializer), "{name}");
            assert_eq!(read.read::<Payload>().unwrap(), form.payload(), "{name}");
        }
    }
}

#[test]
fn what_this_build_cannot_read_is_refused_by_name() {
    for form in FORMS.iter().filter(|form| !form.is_built()) {
        let feature = if form.encrypts() {
            "protection"
        } else {
            "compression"
        };
        let value = form.stored()[if form.encrypts() { 7 } else { 6 }];
        assert_eq!(
            Codec::default().open(&KEY, &form.stored()),
            Err(EnvelopeError::UnknownFeature { feature, value })
        );
        assert!(Codec::new(&form.config()).is_err());
    }
}

#[test]
fn an_envelope_without_a_value_is_written_and_read_as_ever() {
    let stored = from_hex(include_str!("bytes/envelope-2-empty.hex"));
    let codec = Codec::default();
    let written = codec.seal_empty(&KEY, &header()).unwrap();
    assert_eq!(to_hex(&written), to_hex(&stored));
    let read = codec.open(&KEY, &stored).unwrap();
    assert!(read.is_empty());
    assert_eq!(read.header, header());
}

#[test]
fn a_version_of_the_future_is_refused_by_name() {
    let mut stored = from_hex(include_str!("bytes/envelope-2-msgpack.hex")).to_vec();
    stored[4] = 99;
    assert_eq!(
        Codec::default().open(&KEY, &stored.into()),
        Err(EnvelopeError::UnknownVersion { version: 99 })
    );
}

/// An entry as it was written before it remembered who had asked.
#[derive(Serialize)]
struct EntryOfBefore {
    id: askonce::EntryId,
    digests: askonce::request::Digests,
    text: Option<String>,
    answer: askonce::Answer,
    usage: askonce::savings::Usage,
    cost: Option<askonce::savings::Usd>,
    latency: Duration,
    tags: Vec<String>,
}

#[test]
fn entries_of_before_there_was_trust_are_read_and_trusted_by_nobody() {
    let request = askonce::Request::prompt("How do I reset my password?");
    let key = request.exact_key();
    for serializer in [Serializer::MsgPack, Serializer::Json, Serializer::Postcard] {
        let config = CodecConfig {
            serializer,
            ..CodecConfig::default()
        };
        let codec = Codec::new(&config).unwrap();
        let written = EntryOfBefore {
            id: askonce::EntryId::new(7),
            digests: request.digests(),
            text: request.fuzzy_text().map(str::to_owned),
            answer: askonce::Answer::text("Open Settings."),
            usage: askonce::savings::Usage::new(8, 3),
            cost: None,
            latency: Duration::from_millis(250),
            tags: vec!["doc:1".to_owned()],
        };
        let bytes = codec.seal(key.as_bytes(), &header(), &written).unwrap();
        let envelope = codec.open(key.as_bytes(), &bytes).unwrap();
        let entry: askonce::Entry = envelope.read().unwrap();
        assert_eq!(entry.id, written.id);
        assert_eq!(entry.tags, written.tags);
        assert_eq!(
            (entry.trust.principals(), entry.trust.is_approved()),
            (0, false)
        );
        assert!(
            !entry
                .trust
                .serves(&key, &request.clone().principal("bob"), 2)
        );
        // And what is written now comes back whole.
        let bytes = codec.seal(key.as_bytes(), &header(), &entry).unwrap();
        let envelope = codec.open(key.as_bytes(), &bytes).unwrap();
        assert_eq!(envelope.read::<askonce::Entry>().unwrap(), entry);
    }
}
