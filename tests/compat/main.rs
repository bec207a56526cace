//! Bytes written by older versions stay readable, or are refused by name.
//!
//! `bytes/` holds what each format version wrote, as hexadecimal text. A format change adds a file and
//! keeps the old ones.

use std::time::Duration;

use askonce::clock::Timestamp;
use askonce::codec::{Codec, EnvelopeError, Header, Mark};
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

#[test]
fn version_2_of_the_envelope_is_written_and_read_as_ever() {
    let stored = from_hex(include_str!("bytes/envelope-2.hex"));
    let codec = Codec::default();
    let written = codec.seal(&KEY, &header(), &payload()).unwrap();
    assert_eq!(to_hex(&written), to_hex(&stored));
    let read = codec.open(&KEY, &stored).unwrap();
    assert_eq!(read.header, header());
    assert_eq!(read.read::<Payload>().unwrap(), payload());
}

#[test]
fn a_version_of_the_future_is_refused_by_name() {
    let mut stored = from_hex(include_str!("bytes/envelope-2.hex")).to_vec();
    stored[4] = 99;
    assert_eq!(
        Codec::default().open(&KEY, &stored.into()),
        Err(EnvelopeError::UnknownVersion { version: 99 })
    );
}
