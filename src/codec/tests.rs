//! Envelopes as this build writes them, and what others may put in their place.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::*;
use crate::clock::Timestamp;
use crate::error::ErrorKind;

const KEY: [u8; 32] = [7; 32];

fn header() -> Header {
    Header {
        created: Timestamp::from_millis(1_000),
        expires: Some(Timestamp::from_millis(9_000)),
        stale_until: Some(Timestamp::from_millis(12_000)),
        generation: 3,
        load_time: Duration::from_millis(250),
        lease: Some(0),
        marks: vec![
            Mark {
                id: [1; 16],
                generation: 5,
            },
            Mark {
                id: [2; 16],
                generation: u64::MAX,
            },
        ],
    }
}

fn sealed(value: &str) -> Bytes {
    Codec::default().seal(&KEY, &header(), &value).unwrap()
}

#[test]
fn what_is_sealed_is_read_back() {
    let envelope = Codec::default().open(&KEY, &sealed("answer")).unwrap();
    assert_eq!(envelope.header, header());
    assert!(!envelope.is_empty());
    assert_eq!(envelope.read::<String>().unwrap(), "answer");
    assert_eq!(envelope.read::<Vec<u64>>(), Err(EnvelopeError::Payload));
}

#[test]
fn a_value_that_never_expires_says_so() {
    let codec = Codec::default();
    let bytes = codec.seal(&KEY, &Header::default(), &1_u8).unwrap();
    assert_eq!(codec.open(&KEY, &bytes).unwrap().header, Header::default());
}

#[test]
fn the_last_moment_of_all_is_not_never() {
    let codec = Codec::default();
    let last = Some(Timestamp::from_millis(u64::MAX));
    let header = Header {
        expires: last,
        stale_until: last,
        ..Header::default()
    };
    let bytes = codec.seal(&KEY, &header, &1_u8).unwrap();
    assert_eq!(codec.open(&KEY, &bytes).unwrap().header, header);
}

#[test]
fn a_value_may_be_dropped_when_it_is_neither_fresh_nor_stale() {
    let at = |expires: Option<u64>, stale_until: Option<u64>| {
        let header = Header {
            expires: expires.map(Timestamp::from_millis),
            stale_until: stale_until.map(Timestamp::from_millis),
            ..Header::default()
        };
        header.physical_expiry().map(Timestamp::as_millis)
    };
    assert_eq!(at(None, None), None);
    assert_eq!(at(None, Some(5)), None);
    assert_eq!(at(Some(5), None), Some(5));
    assert_eq!(at(Some(5), Some(9)), Some(9));
    assert_eq!(at(Some(5), Some(3)), Some(5));
}

#[test]
fn a_stub_has_a_header_and_no_value() {
    let codec = Codec::default();
    let bytes = codec.seal_empty(&KEY, &header()).unwrap();
    let envelope = codec.open(&KEY, &bytes).unwrap();
    assert_eq!(envelope.header, header());
    assert!(envelope.is_empty());
    assert_eq!(envelope.read::<()>(), Err(EnvelopeError::Empty));
    let again = codec.reseal(&KEY, &Header::default(), &envelope).unwrap();
    assert!(codec.open(&KEY, &again).unwrap().is_empty());
}

#[test]
fn a_resealed_value_is_the_same_under_another_header() {
    let codec = Codec::default();
    let envelope = codec.open(&KEY, &sealed("answer")).unwrap();
    let later = Header {
        lease: Some(77),
        marks: Vec::new(),
        ..header()
    };
    let bytes = codec.reseal(&KEY, &later, &envelope).unwrap();
    let again = codec.open(&KEY, &bytes).unwrap();
    assert_eq!(again.header, later);
    assert_eq!(again.read::<String>().unwrap(), "answer");
}

#[test]
fn a_value_of_another_key_is_refused() {
    assert_eq!(
        Codec::default().open(&[8; 32], &sealed("x")),
        Err(EnvelopeError::WrongKey)
    );
}

#[test]
fn a_newer_version_is_named() {
    let mut bytes = sealed("x").to_vec();
    bytes[4] = 3;
    assert_eq!(
        Codec::default().open(&KEY, &bytes.into()),
        Err(EnvelopeError::UnknownVersion { version: 3 })
    );
}

#[test]
fn more_marks_than_fit_are_refused() {
    let mark = Mark {
        id: [0; 16],
        generation: 0,
    };
    let header = Header {
        marks: vec![mark; 65_536],
        ..Header::default()
    };
    assert_eq!(
        Codec::default().seal(&KEY, &header, &1_u8),
        Err(EnvelopeError::TooManyMarks { marks: 65_536 })
    );
}

#[test]
fn debug_never_shows_a_value() {
    let envelope = Codec::default().open(&KEY, &sealed("hunter2")).unwrap();
    assert!(!format!("{envelope:?}").contains("hunter2"));
    assert!(!format!("{envelope:?}").contains("104, 117"));
}

const SECRETS: [&str; 2] = [
    "d31b8c025fe7946a10be772dc841f936830ea55cd0691fb248ed97247bca003f",
    "5c0f93e1a7284bd6f0319e7c52ab68d41de5f78a03b9c6420fd87e15b3624ca9",
];

/// A key whose secret is one of [`SECRETS`].
fn signing(id: u32, secret: usize) -> KeyConfig {
    KeyConfig {
        id,
        secret: Some(Secret::new(SECRETS[secret])),
        ..KeyConfig::default()
    }
}

fn protected(kind: ProtectionKind, active_key: u32, keys: Vec<KeyConfig>) -> CodecConfig {
    CodecConfig {
        protection: ProtectionConfig {
            kind,
            active_key: Some(active_key),
            keys,
            accept_unprotected: false,
        },
        ..CodecConfig::default()
    }
}

/// A codec with one key.
fn with_key(kind: ProtectionKind, id: u32, secret: usize) -> Codec {
    Codec::new(&protected(kind, id, vec![signing(id, secret)])).unwrap()
}

/// The kinds of protection that this build has, but for none.
fn kinds() -> Vec<ProtectionKind> {
    let mut kinds = vec![ProtectionKind::Mac];
    if cfg!(feature = "encryption") {
        kinds.push(ProtectionKind::AesGcm);
        kinds.push(ProtectionKind::ChaCha20Poly1305);
    }
    kinds
}

/// An unprotected envelope for [`KEY`] that its writer vouches for, whatever is in it.
fn forged(serializer: u8, compression: u8, raw_len: u64, payload: &[u8]) -> Bytes {
    let form = wire::Form {
        serializer,
        compression,
        protection: 0,
        key_id: 0,
        raw_len,
    };
    let mut out = BytesMut::new();
    wire::start(&mut out, &KEY, &header(), form).unwrap();
    let at = out.len();
    out.put_slice(payload);
    wire::complete(&mut out, at, form);
    let checksum = xxh3_64(&out);
    out.put_u64_le(checksum);
    out.freeze()
}

fn field(error: &crate::Error) -> String {
    error.to_string()
}

#[test]
fn what_a_build_does_not_know_is_refused_by_name() {
    let unknown = |feature, value| Err(EnvelopeError::UnknownFeature { feature, value });
    let open = |bytes: Bytes| Codec::default().open(&KEY, &bytes);
    assert_eq!(open(forged(9, 0, 1, b"x")), unknown("serializer", 9));
    assert_eq!(open(forged(1, 9, 1, b"x")), unknown("compression", 9));
    let patched = |at: usize, byte| {
        let mut bytes = forged(1, 0, 1, b"\x07").to_vec();
        bytes.truncate(bytes.len() - 8);
        bytes[at] = byte;
        bytes.extend(xxh3_64(&bytes).to_le_bytes());
        Bytes::from(bytes)
    };
    assert!(open(patched(8, 1)).is_ok());
    assert_eq!(open(patched(8, 0x81)), unknown("flag", 0x81));
    assert_eq!(open(patched(9, 1)), unknown("flag", 1));
    assert_eq!(open(patched(7, 9)), unknown("protection", 9));
}

#[cfg(not(feature = "compression"))]
#[test]
fn a_build_without_compression_says_what_is_missing() {
    let mut config = CodecConfig::default();
    config.compression.algorithm = Compression::Zstd;
    let error = Codec::new(&config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(field(&error).contains("feature compression"), "{error}");
    assert_eq!(
        Codec::default().open(&KEY, &forged(1, 1, 1, b"x")),
        Err(EnvelopeError::UnknownFeature {
            feature: "compression",
            value: 1
        })
    );
}

#[cfg(not(feature = "encryption"))]
#[test]
fn w_62_a_build_without_encryption_never_writes_in_the_open_instead() {
    for kind in [ProtectionKind::AesGcm, ProtectionKind::ChaCha20Poly1305] {
        let error = Codec::new(&protected(kind, 1, vec![signing(1, 0)])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(field(&error).contains("feature encryption"), "{error}");
    }
}

#[cfg(feature = "compression")]
mod compressed {
    use super::*;

    fn codec(algorithm: Compression) -> Codec {
        let mut config = CodecConfig::default();
        config.compression.algorithm = algorithm;
        Codec::new(&config).unwrap()
    }

    const BOTH: [Compression; 2] = [Compression::Zstd, Compression::Lz4];

    #[test]
    fn w_57_a_value_is_compressed_when_it_is_large_and_becomes_smaller() {
        let large = "all work and no play ".repeat(1_000);
        let mut noise = 7_u64;
        let mut random = || {
            noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (noise >> 56) as u8
        };
        let random: Bytes = (0..20_000).map(|_| random()).collect();
        for algorithm in BOTH {
            let codec = codec(algorithm);
            let stored = codec.seal(&KEY, &header(), &large).unwrap();
            assert!(stored.len() < large.len() / 10, "{algorithm:?}");
            let envelope = codec.open(&KEY, &stored).unwrap();
            assert_eq!(envelope.read::<String>().unwrap(), large);
            // Whoever reads needs no setting for it.
            let envelope = Codec::default().open(&KEY, &stored).unwrap();
            assert_eq!(envelope.read::<String>().unwrap(), large);

            let stored = codec.seal(&KEY, &header(), &random).unwrap();
            let plain = Codec::default().seal(&KEY, &header(), &random).unwrap();
            assert_eq!(stored, plain, "what does not shrink is stored as it is");
            assert!(stored.len() < random.len() + 256);
            let small = "a".repeat(1_000);
            let stored = codec.seal(&KEY, &header(), &small).unwrap();
            assert_eq!(stored[6], 0, "below the threshold nothing is compressed");
        }
    }

    #[test]
    fn w_57_a_bomb_is_refused_before_memory_is_taken() {
        let raw = vec![0_u8; 8 << 20];
        let config = CodecConfig {
            max_raw_bytes: bytesize::ByteSize::mib(1),
            ..CodecConfig::default()
        };
        let careful = Codec::new(&config).unwrap();
        for algorithm in BOTH {
            let bomb = algorithm.compress(3, &raw).unwrap();
            assert!(bomb.len() < 64 << 10);
            let code = algorithm.code();
            // It says how large it becomes.
            assert_eq!(
                careful.open(&KEY, &forged(1, code, 8 << 20, &bomb)),
                Err(EnvelopeError::TooLarge {
                    bytes: 8 << 20,
                    limit: 1 << 20
                })
            );
            // It lies about it.
            for lie in [0, 1, 1 << 20] {
                let envelope = careful.open(&KEY, &forged(1, code, lie, &bomb)).unwrap();
                assert_eq!(
                    envelope.read::<Bytes>(),
                    Err(EnvelopeError::Compression),
                    "{algorithm:?} {lie}"
                );
            }
            // A few bytes that claim to be many.
            let envelope = Codec::default()
                .open(&KEY, &forged(1, code, 64 << 20, &[0; 16]))
                .unwrap();
            assert_eq!(envelope.read::<Bytes>(), Err(EnvelopeError::Compression));
        }
    }

    #[test]
    fn a_resealed_value_stays_compressed() {
        let large = "all work and no play ".repeat(1_000);
        for algorithm in BOTH {
            let stored = codec(algorithm).seal(&KEY, &header(), &large).unwrap();
            let envelope = Codec::default().open(&KEY, &stored).unwrap();
            let again = Codec::default().reseal(&KEY, &header(), &envelope).unwrap();
            assert_eq!(again, stored);
        }
    }

    proptest! {
        #[test]
        fn garbage_in_place_of_a_compressed_payload_is_an_error_not_a_panic(
            code in 1_u8..=2,
            raw_len in 0_u64..5_000,
            payload in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let envelope = Codec::default()
                .open(&KEY, &forged(1, code, raw_len, &payload))
                .unwrap();
            // That it is a list of texts by accident is beyond belief; that it decompresses is not.
            prop_assert!(envelope.read::<Vec<String>>().is_err());
        }
    }
}

#[test]
fn a_value_above_the_limit_is_neither_stored_nor_read() {
    let config = CodecConfig {
        max_raw_bytes: bytesize::ByteSize::kib(1),
        ..CodecConfig::default()
    };
    let codec = Codec::new(&config).unwrap();
    let large = "x".repeat(2_000);
    let refused = EnvelopeError::TooLarge {
        bytes: 2_003,
        limit: 1_024,
    };
    assert_eq!(codec.seal(&KEY, &header(), &large), Err(refused.clone()));
    assert_eq!(codec.open(&KEY, &sealed(&large)), Err(refused));
}

#[test]
fn protected_values_come_back_and_any_flipped_bit_and_any_cut_is_found() {
    for kind in kinds() {
        let codec = with_key(kind, 1, 0);
        let stored = codec.seal(&KEY, &header(), &"answer").unwrap();
        let envelope = codec.open(&KEY, &stored).unwrap();
        assert_eq!(envelope.header, header());
        assert_eq!(envelope.read::<String>().unwrap(), "answer");
        for bit in 0..stored.len() * 8 {
            let mut bytes = stored.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(codec.open(&KEY, &bytes.into()).is_err(), "{kind:?} {bit}");
        }
        for keep in 0..stored.len() {
            let cut = stored.slice(..keep);
            assert!(codec.open(&KEY, &cut).is_err(), "{kind:?} {keep}");
        }
    }
}

#[test]
fn a_protected_value_cannot_be_moved_to_another_key() {
    for kind in kinds() {
        let codec = with_key(kind, 1, 0);
        let stored = codec.seal(&KEY, &header(), &"mine").unwrap();
        let other = [8; 32];
        assert_eq!(codec.open(&other, &stored), Err(EnvelopeError::WrongKey));
        let mut moved = stored.to_vec();
        moved[80..112].copy_from_slice(&other);
        let moved = codec.open(&other, &moved.into());
        assert_eq!(moved, Err(EnvelopeError::Unauthentic), "{kind:?}");
    }
}

#[test]
fn an_unprotected_value_is_refused_where_protection_is_required() {
    let old = version_1();
    for kind in kinds() {
        let mut config = protected(kind, 1, vec![signing(1, 0)]);
        let strict = Codec::new(&config).unwrap();
        config.protection.accept_unprotected = true;
        let lenient = Codec::new(&config).unwrap();
        for bytes in [sealed("x"), old.clone()] {
            assert_eq!(strict.open(&KEY, &bytes), Err(EnvelopeError::Unprotected));
            assert!(lenient.open(&KEY, &bytes).is_ok());
        }
        // Taking off the protection does not help a forger.
        let mut stripped = strict.seal(&KEY, &header(), &"x").unwrap().to_vec();
        stripped[7] = 0;
        assert!(strict.open(&KEY, &stripped.into()).is_err());
    }
}

/// A whole envelope of version 1 for [`KEY`].
fn version_1() -> Bytes {
    use xxhash_rust::xxh3::Xxh3Default;

    let mut bytes = b"AKO1\x01\x01\0\0".to_vec();
    bytes.extend([0; 24]);
    bytes.extend(KEY);
    bytes.extend(1_u64.to_le_bytes());
    let mut checksum = Xxh3Default::new();
    checksum.update(&bytes);
    checksum.update(&[7]);
    bytes.extend(checksum.digest().to_le_bytes());
    bytes.push(7);
    bytes.into()
}

#[test]
fn keys_are_rotated_without_losing_a_value() {
    for kind in kinds() {
        let old = with_key(kind, 1, 0);
        let stored = old.seal(&KEY, &header(), &"answer").unwrap();
        let both = vec![signing(1, 0), signing(2, 1)];
        let rotated = Codec::new(&protected(kind, 2, both)).unwrap();
        let envelope = rotated.open(&KEY, &stored).unwrap();
        assert_eq!(envelope.read::<String>().unwrap(), "answer");
        // What is written now no longer needs the old key.
        let new = with_key(kind, 2, 1);
        let fresh = rotated.seal(&KEY, &header(), &"answer").unwrap();
        assert!(new.open(&KEY, &fresh).is_ok());
        let moved = rotated.reseal(&KEY, &header(), &envelope).unwrap();
        assert!(new.open(&KEY, &moved).is_ok());
        assert_eq!(
            new.open(&KEY, &stored),
            Err(EnvelopeError::UnknownKey { id: 1 })
        );
    }
}

#[test]
fn the_kind_of_protection_can_change_over_stored_values() {
    for from in kinds() {
        let stored = with_key(from, 1, 0).seal(&KEY, &header(), &1_u8).unwrap();
        for to in kinds() {
            assert!(with_key(to, 1, 0).open(&KEY, &stored).is_ok());
        }
        let mut off = protected(ProtectionKind::None, 1, vec![signing(1, 0)]);
        assert!(Codec::new(&off).unwrap().open(&KEY, &stored).is_ok());
        off.protection = ProtectionConfig::default();
        assert_eq!(
            Codec::new(&off).unwrap().open(&KEY, &stored),
            Err(EnvelopeError::UnknownKey { id: 1 })
        );
    }
}

#[test]
fn w_62_a_wrong_secret_gives_neither_the_value_nor_its_cipher() {
    for kind in kinds() {
        let stored = with_key(kind, 1, 0)
            .seal(&KEY, &header(), &"hunter2")
            .unwrap();
        let refused = with_key(kind, 1, 1).open(&KEY, &stored);
        assert_eq!(refused, Err(EnvelopeError::Unauthentic), "{kind:?}");
    }
}

#[cfg(feature = "encryption")]
#[test]
fn an_encrypted_value_does_not_show_and_never_looks_the_same_twice() {
    for kind in [ProtectionKind::AesGcm, ProtectionKind::ChaCha20Poly1305] {
        let codec = with_key(kind, 1, 0);
        let one = codec.seal(&KEY, &header(), &"hunter2 hunter2").unwrap();
        let two = codec.seal(&KEY, &header(), &"hunter2 hunter2").unwrap();
        assert!(!one.windows(7).any(|window| window == b"hunter2"));
        let tail = |bytes: &Bytes| bytes.slice(HEADER_BYTES + 2 * 24..);
        assert_eq!(one[..HEADER_BYTES], two[..HEADER_BYTES]);
        assert_ne!(tail(&one), tail(&two));
    }
}

#[test]
fn secrets_show_neither_in_debug_nor_in_a_serialized_configuration() {
    let config = protected(ProtectionKind::Mac, 1, vec![signing(1, 0)]);
    let codec = Codec::new(&config).unwrap();
    let shown = format!(
        "{config:?} {codec:?} {}",
        serde_json::to_string(&config).unwrap()
    );
    assert!(!shown.contains(&SECRETS[0][..8]), "{shown}");
    assert!(shown.contains("***"));
}

#[test]
fn a_secret_may_stand_in_a_file_or_a_variable() {
    let path = std::env::temp_dir().join(format!("askonce-secret-{}", std::process::id()));
    std::fs::write(&path, format!("{}\n", SECRETS[0])).unwrap();
    let from_file = KeyConfig {
        id: 1,
        secret_file: Some(path.clone()),
        ..KeyConfig::default()
    };
    let codec = Codec::new(&protected(ProtectionKind::Mac, 1, vec![from_file.clone()]));
    std::fs::remove_file(&path).unwrap();
    let stored = codec.unwrap().seal(&KEY, &header(), &1_u8).unwrap();
    let same = with_key(ProtectionKind::Mac, 1, 0);
    assert!(same.open(&KEY, &stored).is_ok());

    let refused = |key| {
        let error = Codec::new(&protected(ProtectionKind::Mac, 1, vec![key])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        field(&error)
    };
    assert!(refused(from_file).contains("codec.protection.keys[0].secret_file"));
    let from_variable = |name: &str| KeyConfig {
        id: 1,
        secret_env: Some(name.to_owned()),
        ..KeyConfig::default()
    };
    // A variable that is there is read, and judged by what it holds.
    let directory = env!("CARGO_MANIFEST_DIR");
    let weak = refused(from_variable("CARGO_MANIFEST_DIR"));
    assert!(weak.contains("too weak") && weak.contains("openssl rand -hex 32"));
    assert!(!weak.contains(directory));
    assert!(refused(from_variable("ASKONCE_NO_SUCH_SECRET")).contains("not set"));
}

#[test]
fn a_configuration_is_refused_by_the_name_of_its_field() {
    type Change = fn(&mut CodecConfig);
    let cases: [(&str, Change); 11] = [
        ("codec.max_raw_bytes", |c| {
            c.max_raw_bytes = bytesize::ByteSize(1);
        }),
        ("codec.max_raw_bytes", |c| {
            c.max_raw_bytes = bytesize::ByteSize::gib(2);
        }),
        ("codec.compression.level", |c| c.compression.level = Some(3)),
        ("codec.protection.keys", |c| {
            c.protection.kind = ProtectionKind::Mac;
        }),
        ("codec.protection.active_key", |c| {
            c.protection.active_key = Some(7);
        }),
        ("codec.protection.active_key", |c| {
            c.protection.kind = ProtectionKind::Mac;
            c.protection.keys = vec![signing(1, 0), signing(2, 1)];
        }),
        ("codec.protection.keys[1].id", |c| {
            c.protection.keys = vec![signing(1, 0), signing(1, 1)];
            c.protection.active_key = Some(1);
        }),
        ("codec.protection.keys[0].id", |c| {
            c.protection.keys = vec![signing(0, 0)];
        }),
        ("codec.protection.keys[0]", |c| {
            c.protection.keys = vec![KeyConfig {
                id: 1,
                ..KeyConfig::default()
            }];
        }),
        ("codec.protection.keys[0]", |c| {
            let mut key = signing(1, 0);
            key.secret_env = Some("PATH".to_owned());
            c.protection.keys = vec![key];
        }),
        ("codec.protection.keys[0].secret", |c| {
            let mut key = signing(1, 0);
            key.secret = Some(Secret::new("correct horse battery staple"));
            c.protection.keys = vec![key];
        }),
    ];
    for (name, change) in cases {
        let mut config = CodecConfig::default();
        change(&mut config);
        let error = Codec::new(&config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(field(&error).contains(name), "{name}: {error}");
        assert!(!field(&error).contains("horse"));
    }
    // One key needs no mention of which is active.
    let mut config = protected(ProtectionKind::Mac, 1, vec![signing(1, 0)]);
    config.protection.active_key = None;
    assert!(Codec::new(&config).is_ok());
}

#[test]
fn w_63_what_is_stored_never_chooses_what_it_becomes() {
    // What a Python pickle that runs a command looks like.
    let pickle = b"cposix\nsystem\n(S'true'\ntR.";
    for code in 1..=3 {
        let bytes = forged(code, 0, pickle.len() as u64, pickle);
        let envelope = Codec::default().open(&KEY, &bytes).unwrap();
        let read = envelope.read::<std::collections::BTreeMap<String, u64>>();
        assert_eq!(read, Err(EnvelopeError::Payload));
    }
    // A map that names a type stays a map.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Named {
        __type__: String,
        __value__: u8,
    }
    let map = Named {
        __type__: "os.system".to_owned(),
        __value__: 1,
    };
    let bytes = Codec::default().seal(&KEY, &header(), &map).unwrap();
    let envelope = Codec::default().open(&KEY, &bytes).unwrap();
    assert_eq!(envelope.read::<Named>().unwrap(), map);
    assert_eq!(envelope.read::<u8>(), Err(EnvelopeError::Payload));
}

#[test]
fn a_longer_value_is_not_read_as_a_shorter_one() {
    for serializer in [Serializer::MsgPack, Serializer::Json, Serializer::Postcard] {
        let config = CodecConfig {
            serializer,
            ..CodecConfig::default()
        };
        let codec = Codec::new(&config).unwrap();
        let bytes = codec.seal(&KEY, &header(), &(1_u8, 2_u8)).unwrap();
        let envelope = codec.open(&KEY, &bytes).unwrap();
        assert_eq!(envelope.serializer(), Some(serializer));
        assert_eq!(envelope.read::<(u8, u8)>().unwrap(), (1, 2));
        assert_eq!(envelope.read::<(u8,)>(), Err(EnvelopeError::Payload));
        assert_eq!(envelope.read::<u8>(), Err(EnvelopeError::Payload));
    }
}

proptest! {
    #[test]
    fn any_flipped_bit_is_found(at in 0_usize..220, bit in 0_u8..8) {
        let mut bytes = sealed("an answer that is long enough to be flipped").to_vec();
        prop_assume!(at < bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(Codec::default().open(&KEY, &bytes.into()).is_err());
    }

    #[test]
    fn any_cut_is_found(keep in 0_usize..220) {
        let bytes = sealed("an answer that is long enough to be cut");
        prop_assume!(keep < bytes.len());
        prop_assert!(Codec::default().open(&KEY, &bytes.slice(..keep)).is_err());
    }

    #[test]
    fn foreign_bytes_are_an_error_not_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Codec::default().open(&KEY, &bytes.into()).is_err());
    }

    #[test]
    fn anything_after_the_magic_is_an_error_not_a_panic(
        version in 1_u8..=2,
        rest in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let bytes = [b"AKO1".as_slice(), &[version], &rest].concat();
        prop_assert!(Codec::default().open(&KEY, &bytes.into()).is_err());
    }
}
