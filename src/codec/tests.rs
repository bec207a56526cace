use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::clock::Timestamp;

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
