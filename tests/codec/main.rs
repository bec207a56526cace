//! Values in every form that they can be stored in.
//!
//! Each value goes through each serializer, compression and protection of this build. It comes back as
//! it was, or it is refused when it is stored: never another value. Where the caches sit above, what is
//! configured is what lies in the store.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use askonce::backend::{BackendHandle, ByteSize, Cursor, Glob, MemoryBackend, MemoryConfig};
use askonce::clock::Timestamp;
use askonce::codec::{
    Codec, CodecConfig, Compression, CompressionConfig, EnvelopeError, Header, KeyConfig,
    ProtectionConfig, ProtectionKind, Secret, Serializer,
};
use askonce::typed::{Cache, CacheValue, Key, Lookup, Ttl};
use askonce::{
    Answer, Config, ErrorKind, Outcome, Request, SemanticCache, StoreOptions, StoreOutcome,
};
use bytes::Bytes;
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

const KEY: [u8; 32] = [7; 32];
const SERIALIZERS: [Serializer; 3] = [Serializer::MsgPack, Serializer::Json, Serializer::Postcard];

/// Every combination that this build has.
fn configurations() -> Vec<CodecConfig> {
    let mut compressions = vec![Compression::None];
    if cfg!(feature = "compression") {
        compressions.extend([Compression::Zstd, Compression::Lz4]);
    }
    let mut protections = vec![ProtectionKind::None, ProtectionKind::Mac];
    if cfg!(feature = "encryption") {
        protections.extend([ProtectionKind::AesGcm, ProtectionKind::ChaCha20Poly1305]);
    }
    let secret = "d31b8c025fe7946a10be772dc841f936830ea55cd0691fb248ed97247bca003f";
    let mut all = Vec::new();
    for serializer in SERIALIZERS {
        for &algorithm in &compressions {
            for &kind in &protections {
                all.push(CodecConfig {
                    serializer,
                    compression: CompressionConfig {
                        algorithm,
                        min_bytes: ByteSize(0),
                        level: None,
                    },
                    protection: ProtectionConfig {
                        kind,
                        keys: vec![KeyConfig {
                            id: 1,
                            secret: Some(Secret::new(secret)),
                            ..KeyConfig::default()
                        }],
                        ..ProtectionConfig::default()
                    },
                    ..CodecConfig::default()
                });
            }
        }
    }
    all
}

fn plain(serializer: Serializer) -> Codec {
    let config = CodecConfig {
        serializer,
        ..CodecConfig::default()
    };
    Codec::new(&config).unwrap()
}

/// Writes and reads `value` in every way, but for the serializers in `refusing`, which must refuse to
/// write it.
fn same<T>(value: &T, refusing: &[Serializer])
where
    T: Serialize + DeserializeOwned + PartialEq + fmt::Debug,
{
    for config in configurations() {
        let codec = Codec::new(&config).unwrap();
        let sealed = codec.seal(&KEY, &Header::default(), value);
        let serializer = config.serializer;
        if refusing.contains(&serializer) {
            let refused = EnvelopeError::Unfaithful {
                serializer: serializer.as_str(),
            };
            assert_eq!(sealed, Err(refused), "{value:?}");
            continue;
        }
        let envelope = codec.open(&KEY, &sealed.unwrap()).unwrap();
        let read = envelope.read::<T>();
        assert_eq!(read.as_ref(), Ok(value), "{serializer:?}");
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Nothing,
    Point(f64, f64),
    Round { radius: Option<f32> },
    Named(String),
    Maybe(Option<u8>),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Unit;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Wrapped(Option<u8>);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Sparse {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first: Option<u8>,
    second: Option<u8>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Flat {
    id: u8,
    #[serde(flatten)]
    rest: BTreeMap<String, u8>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    One { id: u8 },
}

#[test]
fn w_20_values_come_back_as_they_were_in_every_form() {
    use Serializer::{Json, MsgPack, Postcard};

    same(&(1_u8, "two".to_owned(), true), &[]);
    same(&BTreeSet::from([3_i64, -1, 2]), &[]);
    same(&HashSet::from(["a".to_owned(), "b".to_owned()]), &[]);
    same(&Bytes::from_static(b"\x00\xff\x80text"), &[]);
    same(&vec![0_u8, 255, 128], &[]);
    same(&Duration::new(u64::MAX, 999_999_999), &[]);
    same(
        &BTreeMap::from([(-3_i64, "a".to_owned()), (7, String::new())]),
        &[],
    );
    same(&HashMap::from([(u128::MAX, 1_u8)]), &[]);
    same(&BTreeMap::from([('x', true)]), &[]);
    same(&BTreeMap::from([(true, 1_u8), (false, 2)]), &[]);
    same(&(u64::MAX, i64::MIN, u128::MAX, i128::MIN), &[]);
    same(&(f64::MIN_POSITIVE, f64::MAX, 0.1 + 0.2, f32::EPSILON), &[]);
    same(&'\u{10ffff}', &[]);
    same(&"naïve \u{0} \" \\ text".to_owned(), &[]);
    same(&(), &[]);
    same(&Unit, &[]);
    same(&(None::<u8>, Some(0_u8), Some(String::new())), &[]);
    same(&Wrapped(None), &[]);
    same(&vec![(), ()], &[]);
    same(
        &vec![
            Shape::Nothing,
            Shape::Point(-0.5, 1e300),
            Shape::Round { radius: None },
            Shape::Named("n".to_owned()),
            Shape::Maybe(None),
            Shape::Maybe(Some(1)),
        ],
        &[],
    );
    same(&vec!["all work and no play".to_owned(); 500], &[]);

    // What a format cannot tell apart is refused when it is stored.
    same(&None::<Option<u8>>, &[]);
    same(&Some(Some(1_u8)), &[]);
    same(&Some(None::<u8>), &[MsgPack, Json]);
    same(&vec![Some(Wrapped(None))], &[MsgPack, Json]);
    same(&(Some(()), 1_u8), &[MsgPack, Json]);
    same(&Some(Unit), &[Json]);
    same(&Some(serde_json::Value::Null).is_some(), &[]);
    same(&(f64::INFINITY, 1_u8), &[Json]);
    same(&vec![Some(f32::NEG_INFINITY)], &[Json]);
    same(&BTreeMap::from([((1_u8, 2_u8), 3_u8)]), &[Json]);
    same(&BTreeMap::from([(vec![1_u8], 3_u8)]), &[Json]);
    let sparse = |first| Sparse {
        first,
        second: Some(2),
    };
    same(&sparse(Some(1)), &[]);
    same(&sparse(None), &[Postcard]);
    let rest = BTreeMap::from([("b".to_owned(), 2)]);
    same(&Flat { id: 1, rest }, &[Postcard]);
}

#[test]
fn w_20_a_number_that_is_none_stays_one_or_is_refused() {
    for config in configurations() {
        let codec = Codec::new(&config).unwrap();
        let sealed = codec.seal(&KEY, &Header::default(), &(f64::NAN, Some(f32::NAN)));
        if config.serializer == Serializer::Json {
            assert_eq!(
                sealed,
                Err(EnvelopeError::Unfaithful { serializer: "json" })
            );
            continue;
        }
        let envelope = codec.open(&KEY, &sealed.unwrap()).unwrap();
        let (double, single) = envelope.read::<(f64, Option<f32>)>().unwrap();
        assert!(double.is_nan() && single.unwrap().is_nan());
    }
}

#[test]
fn what_postcard_writes_and_cannot_read_is_an_error() {
    let codec = plain(Serializer::Postcard);
    let sealed = codec.seal(&KEY, &Header::default(), &Tagged::One { id: 1 });
    let envelope = codec.open(&KEY, &sealed.unwrap()).unwrap();
    assert_eq!(envelope.read::<Tagged>(), Err(EnvelopeError::Payload));
    same_but_for_postcard(&Tagged::One { id: 1 });
    same_but_for_postcard(&serde_json::json!({"a": [1, null, "x", 1.5]}));
}

fn same_but_for_postcard<T>(value: &T)
where
    T: Serialize + DeserializeOwned + PartialEq + fmt::Debug,
{
    for serializer in [Serializer::MsgPack, Serializer::Json] {
        let codec = plain(serializer);
        let sealed = codec.seal(&KEY, &Header::default(), value).unwrap();
        let read = codec.open(&KEY, &sealed).unwrap().read::<T>();
        assert_eq!(read.as_ref(), Ok(value), "{serializer:?}");
    }
}

proptest! {
    #[test]
    fn every_finite_number_is_read_back_to_the_last_bit(bits: u64, single: u32) {
        let (double, single) = (f64::from_bits(bits), f32::from_bits(single));
        prop_assume!(double.is_finite() && single.is_finite());
        for serializer in SERIALIZERS {
            let codec = plain(serializer);
            let sealed = codec.seal(&KEY, &Header::default(), &(double, single)).unwrap();
            let (a, b) = codec.open(&KEY, &sealed).unwrap().read::<(f64, f32)>().unwrap();
            prop_assert_eq!((a.to_bits(), b.to_bits()), (double.to_bits(), single.to_bits()));
        }
    }

    #[test]
    fn every_text_and_nesting_is_read_back(
        value in prop::collection::vec(
            (any::<String>(), prop::option::of(prop::collection::vec(any::<i64>(), 0..4))),
            0..8,
        ),
    ) {
        for config in configurations() {
            let codec = Codec::new(&config).unwrap();
            let sealed = codec.seal(&KEY, &Header::default(), &value).unwrap();
            let envelope = codec.open(&KEY, &sealed).unwrap();
            prop_assert_eq!(envelope.read::<Vec<(String, Option<Vec<i64>>)>>().unwrap(), value.clone());
        }
    }
}

fn memory() -> Arc<MemoryBackend> {
    let built = MemoryBackend::builder(MemoryConfig::default()).build();
    Arc::new(built.unwrap())
}

fn typed(backend: &Arc<MemoryBackend>, codec: Codec) -> Cache {
    let backend = Arc::clone(backend) as BackendHandle;
    Cache::builder(backend).codec(codec).build().unwrap()
}

/// All that lies in the store.
async fn stored(backend: &Arc<MemoryBackend>) -> Vec<Bytes> {
    let backend = Arc::clone(backend) as BackendHandle;
    let mut found = Vec::new();
    let mut cursor = Cursor::default();
    loop {
        let page = backend.scan(&Glob::new("*"), cursor, 100).await.unwrap();
        for key in page.keys {
            found.push(backend.get(&key).await.unwrap().unwrap().bytes);
        }
        match page.next {
            Some(next) => cursor = next,
            None => return found,
        }
    }
}

#[tokio::test]
async fn w_21_a_stored_null_is_kept_apart_from_a_miss_in_every_form() {
    for config in configurations() {
        let cache = typed(&memory(), Codec::new(&config).unwrap());
        let key = Key::new("k");
        assert_eq!(cache.get::<String>(&key).await.unwrap(), Lookup::Miss);
        cache.set_null(&key, Ttl::Forever).await.unwrap();
        assert_eq!(cache.get::<String>(&key).await.unwrap(), Lookup::Null);
        let again = cache.load(&key).negative_ttl(Ttl::Forever);
        let again = again.run(|| async { Some("loaded in vain".to_owned()) });
        let again = again.await;
        assert_eq!(again, None);
    }
}

#[tokio::test]
async fn w_22_no_value_is_taken_for_bookkeeping_in_any_form() {
    async fn kept<T: CacheValue + PartialEq + fmt::Debug>(cache: &Cache, value: T) {
        let key = Key::new("k");
        cache.set(&key, &value, Ttl::Forever).await.unwrap();
        assert_eq!(cache.get::<T>(&key).await.unwrap(), Lookup::Hit(value));
    }
    for config in configurations() {
        let cache = typed(&memory(), Codec::new(&config).unwrap());
        let reserved = ["__type__", "__value__", "type", "value", "schema", "data"];
        let map = reserved.map(|name| (name.to_owned(), "string".to_owned()));
        kept(&cache, BTreeMap::from(map)).await;
        kept(&cache, (1_u8, "string".to_owned(), "x".to_owned())).await;
        kept(&cache, vec![0_u8]).await;
        kept(&cache, "[1,\"string\",\"x\"]".to_owned()).await;
    }
}

#[tokio::test]
async fn a_value_of_another_type_is_named_in_every_form() {
    for config in configurations() {
        let cache = typed(&memory(), Codec::new(&config).unwrap());
        let key = Key::new("k");
        let value = vec![(1_u64, "one".to_owned())];
        cache.set(&key, &value, Ttl::Forever).await.unwrap();
        let error = cache.get::<u64>(&key).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("[(u64,string)]"), "{error}");
    }
}

#[tokio::test]
async fn a_value_that_could_not_be_read_back_is_refused_by_the_typed_cache() {
    let cache = typed(&memory(), plain(Serializer::Postcard));
    let key = Key::new("k");
    let value = serde_json::json!({"a": 1});
    let error = cache.set(&key, &value, Ttl::Forever).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(!cache.exists(&key).await.unwrap());
    let given = cache.get_or_set(&key, Ttl::Forever, || async { value.clone() });
    assert_eq!(given.await, value, "the caller has it all the same");
}

#[tokio::test]
async fn a_value_above_the_limit_is_refused_as_too_large() {
    let config = CodecConfig {
        max_raw_bytes: ByteSize::kib(1),
        ..CodecConfig::default()
    };
    let cache = typed(&memory(), Codec::new(&config).unwrap());
    let large = "x".repeat(4_096);
    let refused = cache.set(&Key::new("k"), &large, Ttl::Forever).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::TooLarge);
}

#[tokio::test]
async fn w_58_the_configured_serializer_is_the_one_in_the_store() {
    for (serializer, form) in [
        (
            Serializer::MsgPack,
            b"\x93\x01\xa6string\xa5hello".as_slice(),
        ),
        (Serializer::Json, b"[1,\"string\",\"hello\"]"),
        (Serializer::Postcard, b"\x01\x06string\x05hello"),
    ] {
        let backend = memory();
        let cache = typed(&backend, plain(serializer));
        let hello = "hello".to_owned();
        cache
            .set(&Key::new("k"), &hello, Ttl::Forever)
            .await
            .unwrap();
        let bytes = stored(&backend).await.remove(0);
        assert!(
            bytes.windows(form.len()).any(|window| window == form),
            "{serializer:?}"
        );
        // A cache that writes another form reads this one.
        let other = typed(&backend, Codec::default());
        assert_eq!(other.get(&Key::new("k")).await.unwrap(), Lookup::Hit(hello));
    }
}

#[tokio::test]
async fn w_58_the_semantic_cache_stores_entries_in_every_configured_form() {
    for codec in configurations() {
        let backend = memory();
        let config = Config {
            codec: codec.clone(),
            ..Config::default()
        };
        let cache = SemanticCache::builder()
            .config(&config)
            .backend(Arc::clone(&backend) as BackendHandle)
            .build()
            .await
            .unwrap();
        let request = Request::prompt("What is the capital of France?").model("gpt-4o");
        let answer = Answer::text("Paris, la ville lumière");
        let options = StoreOptions::default();
        let stored_now = cache.store(&request, answer.clone(), options).await;
        assert!(
            matches!(stored_now, StoreOutcome::Stored { .. }),
            "{stored_now:?}"
        );
        match cache.lookup(&request).await {
            Outcome::Hit(hit) => assert_eq!(hit.answer, answer),
            miss => panic!("{codec:?}: {miss:?}"),
        }
        let bytes = stored(&backend).await.remove(0);
        let code = 1 + SERIALIZERS
            .iter()
            .position(|s| *s == codec.serializer)
            .unwrap();
        assert_eq!(usize::from(bytes[5]), code);
        let hidden = !matches!(
            codec.protection.kind,
            ProtectionKind::None | ProtectionKind::Mac
        );
        if hidden {
            assert!(!bytes.windows(5).any(|window| window == b"Paris"));
        }
    }
}

#[tokio::test]
async fn what_another_wrote_without_the_key_is_a_miss_and_not_an_answer() {
    let protected = configurations()
        .into_iter()
        .find(|config| config.protection.kind == ProtectionKind::Mac)
        .unwrap();
    let backend = memory();
    let open = typed(&backend, Codec::default());
    let strict = typed(&backend, Codec::new(&protected).unwrap());
    let key = Key::new("k");
    open.set(&key, &"forged".to_owned(), Ttl::Forever)
        .await
        .unwrap();
    assert_eq!(
        strict.get::<String>(&key).await.unwrap_err().kind(),
        ErrorKind::Corrupt
    );
    let loaded = strict
        .get_or_set(&key, Ttl::Forever, || async { "true".to_owned() })
        .await;
    assert_eq!(loaded, "true");
    assert_eq!(strict.get(&key).await.unwrap(), Lookup::Hit(loaded));
}

#[test]
fn a_codec_is_configured_by_the_names_in_the_documentation() {
    let text = r#"
        serializer = "json"
        max_raw_bytes = "8MiB"
        [compression]
        algorithm = "zstd"
        min_bytes = "4KiB"
        level = 9
        [protection]
        kind = "chacha20_poly1305"
        active_key = 2
        accept_unprotected = true
        [[protection.keys]]
        id = 2
        secret_env = "CACHE_KEY"
    "#;
    let config: CodecConfig = toml::from_str(text).unwrap();
    assert_eq!(config.serializer, Serializer::Json);
    assert_eq!(config.max_raw_bytes, ByteSize::mib(8));
    assert_eq!(config.compression.algorithm, Compression::Zstd);
    assert_eq!(config.compression.min_bytes, ByteSize::kib(4));
    assert_eq!(config.compression.level, Some(9));
    assert_eq!(config.protection.kind, ProtectionKind::ChaCha20Poly1305);
    assert_eq!(config.protection.active_key, Some(2));
    assert!(config.protection.accept_unprotected);
    assert_eq!(
        config.protection.keys[0].secret_env.as_deref(),
        Some("CACHE_KEY")
    );
    assert!(toml::from_str::<CodecConfig>("serialiser = \"json\"").is_err());
}

#[cfg(feature = "config-file")]
#[test]
fn a_weak_secret_from_the_environment_is_refused_and_never_repeated() {
    use askonce::config::Sources;

    let loaded = |secret| {
        let sources = Sources::named("askonce").variables([
            ("ASKONCE__CODEC__SERIALIZER", "json"),
            ("ASKONCE__CODEC__PROTECTION__KIND", "mac"),
            ("ASKONCE__CODEC__PROTECTION__KEYS__0__ID", "1"),
            ("ASKONCE__CODEC__PROTECTION__KEYS__0__SECRET", secret),
        ]);
        sources.load::<Config>().unwrap().settings
    };
    let secret = "d31b8c025fe7946a10be772dc841f936830ea55cd0691fb248ed97247bca003f";
    let config = loaded(secret);
    config.validate().unwrap();
    assert_eq!(config.codec.serializer, Serializer::Json);
    let shown = format!("{config:?} {}", serde_json::to_string(&config).unwrap());
    assert!(!shown.contains("d31b8c02"), "{shown}");

    let error = loaded("correct-horse-battery").validate().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let error = error.to_string();
    assert!(error.contains("codec.protection.keys[0].secret"), "{error}");
    assert!(error.contains("openssl rand -hex 32"), "{error}");
    assert!(!error.contains("horse"), "{error}");
}

#[test]
fn a_header_says_all_without_reading_the_value() {
    let header = Header {
        created: Timestamp::from_millis(1),
        lease: Some(9),
        ..Header::default()
    };
    for config in configurations() {
        let codec = Codec::new(&config).unwrap();
        let stub = codec.seal_empty(&KEY, &header).unwrap();
        let envelope = codec.open(&KEY, &stub).unwrap();
        assert!(envelope.is_empty());
        assert_eq!(envelope.header, header);
    }
}
