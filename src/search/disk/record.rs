//! What is written to disk, and how it is told from damage.
//!
//! Every file begins with a magic, the format's version and a frame with a [`Head`]; frames with a
//! [`Change`] or a [`Part`] follow. All numbers around the frames are little-endian:
//!
//! | bytes | content |
//! |---|---|
//! | 8 | magic, `ASKSTAGE` |
//! | 2 | format version, now 1 |
//! | 4 + 4 + n | a frame: length n of its content, CRC-32 of its content, content |
//!
//! The content is postcard, in which the order of fields and variants is the format: new ones go to the end.
//! Buffers grow with the bytes that arrive, not with what a length announces. Checksums find damage, not
//! forgery.

use std::borrow::Cow;
use std::io::{self, Read};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::entry::EntryId;
use crate::entry::catalog::Row;
use crate::request::{ExactKey, PartitionKey, Scope};

const MAGIC: [u8; 8] = *b"ASKSTAGE";
const VERSION: u16 = 1;

/// Content of a frame that is longer is damage.
const LONGEST: u32 = 1 << 30;

/// What a file is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) kind: Kind,
    /// Length of the vectors.
    pub(super) dimension: u32,
    /// The embedding space of the vectors.
    pub(super) fingerprint: String,
}

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    /// [`Part`]s.
    Snapshot,
    /// [`Change`]s.
    Journal,
}

/// An entry of the catalogue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Listed {
    pub(super) id: EntryId,
    exact: ExactKey,
    pub(super) partition: PartitionKey,
    scope: Scope,
    model: Arc<str>,
    tags: Arc<[String]>,
    created: Timestamp,
    pub(super) expires: Option<Timestamp>,
}

impl Listed {
    pub(super) fn of(id: EntryId, row: &Row) -> Self {
        Self {
            id,
            exact: row.exact,
            partition: row.partition,
            scope: row.scope.clone(),
            model: Arc::clone(&row.model),
            tags: Arc::clone(&row.tags),
            created: row.created,
            expires: row.expires,
        }
    }

    pub(super) fn into_row(self) -> Row {
        Row {
            exact: self.exact,
            partition: self.partition,
            scope: self.scope,
            model: self.model,
            tags: self.tags,
            created: self.created,
            expires: self.expires,
        }
    }
}

/// One change of the index.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Change<'a> {
    /// An entry became searchable.
    Upsert {
        entry: Listed,
        vector: Cow<'a, [f32]>,
    },
    /// An entry is not searchable any more.
    Remove {
        partition: PartitionKey,
        id: EntryId,
    },
    /// A whole partition is not.
    Drop { partition: PartitionKey },
    /// An entry was reported as wrong for the query of this fingerprint.
    Wrong {
        partition: PartitionKey,
        id: EntryId,
        query: [u8; 32],
    },
}

/// A part of a snapshot.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Part {
    /// One partition.
    Partition {
        partition: PartitionKey,
        entries: Vec<Listed>,
        /// Queries that an entry must not answer.
        wrong: Vec<(EntryId, Vec<[u8; 32]>)>,
        index: IndexBytes,
    },
    /// The last part: how many partitions there were.
    End { partitions: u64 },
}

/// Where the index of a partition is.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum IndexBytes {
    /// Here, as many small ones share a file.
    Here(Vec<u8>),
    /// In a file of this name beside the snapshot.
    File(String),
}

/// Appends the beginning of a file.
pub(super) fn put_head(head: &Head, out: &mut Vec<u8>) -> Result<(), postcard::Error> {
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    put(head, out)
}

/// Appends a frame.
pub(super) fn put(content: &impl Serialize, out: &mut Vec<u8>) -> Result<(), postcard::Error> {
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    let written = postcard::to_io(content, &mut *out).map(drop);
    let length = u32::try_from(out.len() - start - 8);
    match (written, length) {
        (Ok(_), Ok(length)) if length <= LONGEST => {
            let sum = crc32fast::hash(&out[start + 8..]);
            out[start..start + 4].copy_from_slice(&length.to_le_bytes());
            out[start + 4..start + 8].copy_from_slice(&sum.to_le_bytes());
            Ok(())
        }
        (written, _) => {
            out.truncate(start);
            written.and(Err(postcard::Error::SerializeBufferFull))
        }
    }
}

/// Why a file, or the rest of it, is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("it does not begin as such a file does")]
    NotOurs,
    #[error("its format is version {found}, this build reads version {VERSION}")]
    Version { found: u16 },
    #[error("it is of the embedding {found}, and the one in use is {expected}")]
    Fingerprint { found: String, expected: String },
    #[error("its vectors have {found} components, those in use {expected}")]
    Dimension { found: u32, expected: u32 },
    #[error("its bytes were changed: a checksum does not match")]
    Damaged,
    #[error("it ends early")]
    Torn,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads the beginning of a file, which must be `expected`.
pub(super) fn read_head(reader: &mut impl Read, expected: &Head) -> Result<(), Fault> {
    any_head(reader)?.check(expected)
}

impl Head {
    /// Whether this is what was expected.
    pub(super) fn check(self, expected: &Self) -> Result<(), Fault> {
        if self.kind != expected.kind {
            return Err(Fault::NotOurs);
        }
        if self.fingerprint != expected.fingerprint {
            return Err(Fault::Fingerprint {
                found: self.fingerprint,
                expected: expected.fingerprint.clone(),
            });
        }
        if self.dimension != expected.dimension {
            return Err(Fault::Dimension {
                found: self.dimension,
                expected: expected.dimension,
            });
        }
        Ok(())
    }
}

/// Reads the beginning of any of our files.
pub(super) fn any_head(reader: &mut impl Read) -> Result<Head, Fault> {
    let mut start = [0; 10];
    reader.read_exact(&mut start).map_err(|_| Fault::NotOurs)?;
    let [magic @ .., v0, v1] = start;
    if magic != MAGIC {
        return Err(Fault::NotOurs);
    }
    let version = u16::from_le_bytes([v0, v1]);
    if version != VERSION {
        return Err(Fault::Version { found: version });
    }
    read(reader)?.ok_or(Fault::Torn)
}

/// Reads a frame; `None` where the file ends.
pub(super) fn read<T: DeserializeOwned>(reader: &mut impl Read) -> Result<Option<T>, Fault> {
    let mut start = Vec::with_capacity(8);
    reader.by_ref().take(8).read_to_end(&mut start)?;
    let [l0, l1, l2, l3, sum @ ..] = match <[u8; 8]>::try_from(&*start) {
        Ok(start) => start,
        Err(_) if start.is_empty() => return Ok(None),
        Err(_) => return Err(Fault::Torn),
    };
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    if length > LONGEST {
        return Err(Fault::Damaged);
    }
    let mut content = Vec::new();
    reader
        .by_ref()
        .take(u64::from(length))
        .read_to_end(&mut content)?;
    if content.len() < length as usize {
        return Err(Fault::Torn);
    }
    if crc32fast::hash(&content) != u32::from_le_bytes(sum) {
        return Err(Fault::Damaged);
    }
    postcard::from_bytes(&content)
        .map(Some)
        .map_err(|_| Fault::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change() -> Change<'static> {
        Change::Remove {
            partition: PartitionKey::from_bytes([7; 32]),
            id: EntryId::new(u64::MAX),
        }
    }

    #[test]
    fn a_frame_reads_back_and_every_changed_or_missing_byte_is_noticed() {
        let mut bytes = Vec::new();
        put(&change(), &mut bytes).unwrap();
        let read_back = |mut bytes: &[u8]| read::<Change<'static>>(&mut bytes);
        assert_eq!(read_back(&bytes).unwrap(), Some(change()));
        assert_eq!(read_back(&[]).unwrap(), None);
        for at in 0..bytes.len() {
            assert!(matches!(read_back(&bytes[..at.max(1)]), Err(Fault::Torn)));
            let mut changed = bytes.clone();
            changed[at] ^= 0x40;
            assert!(read_back(&changed).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_file_of_another_embedding_or_version_is_refused_by_name() {
        let head = |fingerprint: &str| Head {
            kind: Kind::Journal,
            dimension: 2,
            fingerprint: fingerprint.to_owned(),
        };
        let mut bytes = Vec::new();
        put_head(&head("old"), &mut bytes).unwrap();
        let read_as = |bytes: &[u8], head: &Head| read_head(&mut &*bytes, head);
        read_as(&bytes, &head("old")).unwrap();
        let error = read_as(&bytes, &head("new")).unwrap_err().to_string();
        assert!(error.contains("old") && error.contains("new"), "{error}");
        let wider = Head {
            dimension: 3,
            ..head("old")
        };
        assert!(matches!(
            read_as(&bytes, &wider),
            Err(Fault::Dimension { .. })
        ));
        bytes[8] = 9;
        let error = read_as(&bytes, &head("old")).unwrap_err().to_string();
        assert!(error.contains("version 9"), "{error}");
        bytes[0] = 0;
        assert!(matches!(read_as(&bytes, &head("old")), Err(Fault::NotOurs)));
    }
}
