//! The index on disk, so that a new process finds what the one before it made searchable.
//!
//! A folder holds a snapshot of all partitions and a journal of the changes since:
//!
//! | file | content |
//! |---|---|
//! | `lock` | held by the process that uses the folder |
//! | `snapshot-N` | all partitions: the entries of each, and the index of those that are not large |
//! | `snapshot-N-I` | the index of one large partition |
//! | `journal-M` | changes, in order; those from N on are made after snapshot N |
//!
//! A snapshot is written while writes go on. The journal goes over to a new file first, so what the snapshot
//! misses is in there, and what both have comes to the same when it is made again. Files are written under
//! another name, synced and renamed; the rename of `snapshot-N` is what counts, and only after it older files
//! go. What a crash of the process leaves is a journal that ends early: all but its end is used. At most
//! what was changed since the last look after the house, some seconds, is not in the journal yet. A change
//! that is lost costs a hit and nothing else: an index row is a lead, whose entry is fetched and checked.
//!
//! Files of another embedding are read too, but for their vectors, which mean nothing here: their entries are
//! [`Restored`] to be embedded anew. Until that is done no snapshot is written, so that the old files stay
//! and a process that starts in between goes on.
//!
//! No prompt and no answer is written; vectors, keys, scopes, models and tags are.

mod record;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use askonce_index::{Expiry, FlatIndex, VectorIndex};
use parking_lot::Mutex;

use self::record::{Change, Fault, Head, IndexBytes, Kind, Listed, Part};
use super::engine::Engine;
use super::partitions::{LARGE_ROWS, Partition, Partitions};
use super::{expiry, second};
use crate::clock::Timestamp;
use crate::entry::EntryId;
use crate::entry::catalog::Row;
use crate::error::{Error, ErrorKind, Result};
use crate::request::PartitionKey;

/// Bytes of changes that are collected before they are written.
const BUFFER: usize = 64 * 1024;

const SNAPSHOT: &str = "snapshot-";
const JOURNAL: &str = "journal-";
/// The file whose lock says that the folder is in use.
const LOCK: &str = "lock";
/// Ends the name of a file that is being written.
const UNDER_WAY: &str = ".tmp";

/// An entry that was found on disk.
#[derive(Clone, Debug)]
pub struct Restored {
    /// Its id.
    pub id: EntryId,
    /// Its row in the catalogue.
    pub row: Row,
    /// Fingerprints of the queries that it must not answer.
    pub wrong: Vec<[u8; 32]>,
    /// Whether its vector is there. If not it was of another embedding, and is to be made anew.
    pub embedded: bool,
}

/// What is known of an entry beside its vector, for a snapshot.
pub type Known = (Row, Vec<[u8; 32]>);

/// A folder in use.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Closing it gives the folder free.
    _lock: File,
    dimension: u32,
    fingerprint: String,
    journal: Mutex<Journal>,
    /// Whether entries of another embedding wait to be embedded anew.
    migrating: AtomicBool,
    /// Held while a snapshot is written; the time of the last one.
    saved: Mutex<Timestamp>,
}

/// The file that changes are written to.
#[derive(Debug)]
struct Journal {
    number: u64,
    file: File,
    buffer: Vec<u8>,
    bytes: u64,
    /// What could not be written; nothing more is, until a snapshot begins a new file.
    fault: Option<String>,
}

impl Journal {
    fn write(&mut self) {
        if self.fault.is_some() || self.buffer.is_empty() {
            self.buffer.clear();
            return;
        }
        match self.file.write_all(&self.buffer) {
            Ok(()) => self.bytes += self.buffer.len() as u64,
            Err(error) => {
                tracing::warn!(%error, "the journal of the index cannot be written: a restart will know the last snapshot only");
                self.fault = Some(error.to_string());
            }
        }
        self.buffer.clear();
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.write();
    }
}

/// The state of a folder in use.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FolderStats {
    /// Seconds since the index was last written as a whole, or since start if it was not yet.
    pub snapshot_age_seconds: u64,
    /// Bytes of changes written since.
    pub journal_bytes: u64,
    /// What could not be written; `None` while all is well.
    pub fault: Option<String>,
}

/// What is on disk, by partition and entry.
type Listing = HashMap<PartitionKey, HashMap<EntryId, (Listed, Vec<[u8; 32]>)>>;

impl Folder {
    /// Takes a folder into use, made if need be, and fills `partitions` with what it holds. What cannot be
    /// used is told as a warning and left out.
    pub(super) fn open(
        path: &Path,
        fingerprint: &str,
        engine: &Engine,
        partitions: &Partitions,
        now: Timestamp,
    ) -> Result<(Self, Vec<Restored>)> {
        let lock = lock(path)?;
        let dimension = u32::try_from(engine.dimension()).unwrap_or(u32::MAX);
        let mut reading = Reading {
            path,
            head: Head {
                kind: Kind::Snapshot,
                dimension,
                fingerprint: fingerprint.to_owned(),
            },
            engine,
            partitions,
            now,
            listing: Listing::default(),
            foreign: Listing::default(),
        };
        let numbers = numbers(path).map_err(|error| failed("read", path, error))?;
        reading.all(&numbers);
        let restored = reading.finish();
        let number = numbers.last() + 1;
        let journal = begin_journal(path, number, dimension, fingerprint)?;
        let folder = Self {
            path: path.to_owned(),
            _lock: lock,
            dimension,
            fingerprint: fingerprint.to_owned(),
            journal: Mutex::new(journal),
            migrating: AtomicBool::new(restored.iter().any(|restored| !restored.embedded)),
            saved: Mutex::new(now),
        };
        Ok((folder, restored))
    }

    pub(super) fn upserted(&self, id: EntryId, row: &Row, vector: &[f32]) {
        self.append(&Change::Upsert {
            entry: Listed::of(id, row),
            vector: Cow::Borrowed(vector),
        });
    }

    pub(super) fn removed(&self, partition: PartitionKey, id: EntryId) {
        self.append(&Change::Remove { partition, id });
    }

    pub(super) fn dropped(&self, partition: PartitionKey) {
        self.append(&Change::Drop { partition });
    }

    pub(super) fn wrong(&self, partition: PartitionKey, id: EntryId, query: [u8; 32]) {
        self.append(&Change::Wrong {
            partition,
            id,
            query,
        });
    }

    fn append(&self, change: &Change<'_>) {
        let mut journal = self.journal.lock();
        if journal.fault.is_some() {
            return;
        }
        if let Err(error) = record::put(change, &mut journal.buffer) {
            tracing::warn!(%error, "a change of the index was not noted");
        }
        if journal.buffer.len() >= BUFFER {
            journal.write();
        }
    }

    /// Hands all changes over to the disk.
    pub(super) fn sync(&self) {
        let file = {
            let mut journal = self.journal.lock();
            journal.write();
            journal.file.try_clone()
        };
        // Not under the lock, as writes wait for it.
        if let Err(error) = file.and_then(|file| file.sync_data()) {
            tracing::warn!(%error, "the journal of the index was not synced");
        }
    }

    /// Whether a snapshot is due that is written every `every`.
    pub(super) fn is_due(&self, now: Timestamp, every: std::time::Duration) -> bool {
        // One that is being written is not due.
        !self.migrating.load(Ordering::Relaxed)
            && self
                .saved
                .try_lock()
                .is_some_and(|saved| now.since(*saved) >= every)
    }

    pub(super) fn stats(&self, now: Timestamp) -> FolderStats {
        let saved = self.saved.try_lock().map_or(now, |saved| *saved);
        let journal = self.journal.lock();
        FolderStats {
            snapshot_age_seconds: now.since(saved).as_secs(),
            journal_bytes: journal.bytes + journal.buffer.len() as u64,
            fault: journal.fault.clone(),
        }
    }

    /// Notes that all entries of another embedding have been seen to: their files are not needed any more.
    pub(super) fn migrated(&self) {
        self.migrating.store(false, Ordering::Relaxed);
    }

    /// Writes everything anew, and begins a new journal. Entries that `known` does not know are left out.
    /// While entries of another embedding wait, what changed goes to the journal instead.
    pub(super) fn save(
        &self,
        partitions: &Partitions,
        known: &dyn Fn(EntryId) -> Option<Known>,
        now: Timestamp,
    ) -> Result<()> {
        if self.migrating.load(Ordering::Relaxed) {
            self.sync();
            return Ok(());
        }
        let mut saved = self.saved.lock();
        let number = self.rotate()?;
        self.write_snapshot(number, partitions, known)
            .map_err(|error| failed("write", &self.path, error))?;
        *saved = now;
        // Left-overs are harmless: what is older than the snapshot is not read.
        if let Err(error) = self.remove_older(number) {
            tracing::warn!(%error, "older files of the index were not removed");
        }
        Ok(())
    }

    /// Goes over to a new journal and returns its number.
    fn rotate(&self) -> Result<u64> {
        let number = self.journal.lock().number + 1;
        let next = begin_journal(&self.path, number, self.dimension, &self.fingerprint)?;
        let last = {
            let mut journal = self.journal.lock();
            journal.write();
            std::mem::replace(&mut *journal, next)
        };
        // If no snapshot comes of it, the old journal is still what counts.
        if let Err(error) = last.file.sync_data() {
            tracing::warn!(%error, "the journal of the index was not synced");
        }
        Ok(number)
    }

    fn write_snapshot(
        &self,
        number: u64,
        partitions: &Partitions,
        known: &dyn Fn(EntryId) -> Option<Known>,
    ) -> io::Result<()> {
        let name = format!("{SNAPSHOT}{number}");
        let mut frame = Vec::new();
        let head = Head {
            kind: Kind::Snapshot,
            dimension: self.dimension,
            fingerprint: self.fingerprint.clone(),
        };
        record::put_head(&head, &mut frame).map_err(io::Error::other)?;
        let mut count = 0u64;
        write_whole(&self.path, &name, |out| {
            out.write_all(&frame)?;
            let mut large = 0;
            partitions.for_each(|key, partition| {
                let (entries, wrong) = entries_of(partition, known);
                if entries.is_empty() {
                    return Ok(());
                }
                let index = if partition.index().len() >= LARGE_ROWS {
                    large += 1;
                    let name = format!("{name}-{large}");
                    write_whole(&self.path, &name, |out| write_index(partition.index(), out))?;
                    IndexBytes::File(name)
                } else {
                    let mut bytes = Vec::new();
                    write_index(partition.index(), &mut bytes)?;
                    IndexBytes::Here(bytes)
                };
                count += 1;
                frame.clear();
                let part = Part::Partition {
                    partition: key,
                    entries,
                    wrong,
                    index,
                };
                record::put(&part, &mut frame).map_err(io::Error::other)?;
                out.write_all(&frame)
            })?;
            frame.clear();
            record::put(&Part::End { partitions: count }, &mut frame).map_err(io::Error::other)?;
            out.write_all(&frame)
        })
    }

    fn remove_older(&self, number: u64) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let is_left_over = name.ends_with(UNDER_WAY);
            if is_left_over || number_of(&name).is_some_and(|found| found < number) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }
}

/// The index of one partition, in the format of the index crate: the two places that know it.
fn write_index(index: &dyn VectorIndex, out: &mut dyn Write) -> io::Result<()> {
    index.snapshot(out).map_err(io::Error::other)
}

fn read_index(
    engine: &Engine,
    bytes: &IndexBytes,
    folder: &Path,
) -> io::Result<Box<dyn VectorIndex>> {
    match bytes {
        IndexBytes::Here(bytes) => engine.restore(&mut bytes.as_slice()),
        IndexBytes::File(name) => {
            // A name that leads elsewhere is none of ours.
            if number_of(name).is_none() {
                return Err(io::Error::from(io::ErrorKind::InvalidData));
            }
            // Files are written once and only ever removed, so they may be searched in place.
            engine.open_file(&folder.join(name))
        }
    }
    .map_err(io::Error::other)
}

/// The entries of a partition that are known, and the queries that they must not answer.
#[expect(clippy::type_complexity, reason = "two fields of a record")]
fn entries_of(
    partition: &Partition,
    known: &dyn Fn(EntryId) -> Option<Known>,
) -> (Vec<Listed>, Vec<(EntryId, Vec<[u8; 32]>)>) {
    let mut ids = Vec::with_capacity(partition.index().len());
    partition
        .index()
        .for_each(&mut |row| ids.push(EntryId::new(row.id.0)));
    let mut entries = Vec::with_capacity(ids.len());
    let mut refused = Vec::new();
    for id in ids {
        if let Some((row, wrong)) = known(id) {
            entries.push(Listed::of(id, &row));
            if !wrong.is_empty() {
                refused.push((id, wrong));
            }
        }
    }
    (entries, refused)
}

/// Reads what a folder holds.
struct Reading<'a> {
    path: &'a Path,
    head: Head,
    engine: &'a Engine,
    partitions: &'a Partitions,
    now: Timestamp,
    listing: Listing,
    /// Entries whose vectors are of another embedding.
    foreign: Listing,
}

impl Reading<'_> {
    fn all(&mut self, numbers: &Numbers) {
        let mut from = 0;
        for &number in numbers.snapshots.iter().rev() {
            let name = format!("{SNAPSHOT}{number}");
            match self.snapshot(&name) {
                Ok(()) => {
                    from = number;
                    break;
                }
                Err(fault) => {
                    warn(&name, &fault);
                    // What was read of it is good; it counts unless it was nothing.
                    if !self.listing.is_empty() || !self.foreign.is_empty() {
                        from = number;
                        break;
                    }
                }
            }
        }
        for &number in numbers.journals.iter().filter(|number| **number >= from) {
            let name = format!("{JOURNAL}{number}");
            match self.journal(&name) {
                Ok(()) => {}
                Err(Fault::Torn) => tracing::info!(
                    file = name,
                    "the journal of the index ends early, as after a crash: all but its end is used"
                ),
                Err(fault) => warn(&name, &fault),
            }
        }
    }

    /// A file, and whether its vectors are of the embedding in use.
    fn open(&self, name: &str, kind: Kind) -> Result<(BufReader<File>, bool), Fault> {
        let mut reader = BufReader::with_capacity(BUFFER, File::open(self.path.join(name))?);
        let head = Head {
            kind,
            ..self.head.clone()
        };
        match record::read_head(&mut reader, &head) {
            Ok(()) => Ok((reader, true)),
            Err(Fault::Fingerprint { found, .. }) => {
                tracing::info!(
                    file = name,
                    embedder = found,
                    "a file of the index is of another embedding: its entries are embedded anew"
                );
                Ok((reader, false))
            }
            Err(fault) => Err(fault),
        }
    }

    fn snapshot(&mut self, name: &str) -> Result<(), Fault> {
        let (mut reader, ours) = self.open(name, Kind::Snapshot)?;
        while let Some(part) = record::read(&mut reader)? {
            match part {
                Part::End { .. } => return Ok(()),
                Part::Partition {
                    partition,
                    entries,
                    wrong,
                    ..
                } if !ours => {
                    self.foreign.insert(partition, listed(entries, wrong));
                }
                Part::Partition {
                    partition,
                    entries,
                    wrong,
                    index,
                } => match read_index(self.engine, &index, self.path) {
                    Ok(index) => self.adopt(partition, entries, wrong, index),
                    Err(error) => {
                        tracing::warn!(%partition, %error, "the index of a partition cannot be restored: its entries match exactly only");
                    }
                },
            }
        }
        Err(Fault::Torn)
    }

    fn adopt(
        &mut self,
        partition: PartitionKey,
        entries: Vec<Listed>,
        wrong: Vec<(EntryId, Vec<[u8; 32]>)>,
        index: Box<dyn VectorIndex>,
    ) {
        let listed = listed(entries, wrong);
        // A row whose entry is not listed leads nowhere.
        let mut strange = Vec::new();
        index.for_each(&mut |row| {
            if !listed.contains_key(&EntryId::new(row.id.0)) {
                strange.push(row.id);
            }
        });
        for id in strange {
            let _ = index.remove(id);
        }
        let ends = listed.values().filter_map(|(entry, _)| entry.expires).min();
        self.partitions
            .adopt(partition, index, ends.map_or(Expiry::NEVER, second));
        self.listing.insert(partition, listed);
    }

    fn journal(&mut self, name: &str) -> Result<(), Fault> {
        let (mut reader, ours) = self.open(name, Kind::Journal)?;
        while let Some(change) = record::read(&mut reader)? {
            self.make(change, ours);
        }
        Ok(())
    }

    /// Makes a change again; `ours`: its vectors are of the embedding in use.
    fn make(&mut self, change: Change<'static>, ours: bool) {
        match change {
            Change::Upsert { entry, .. } if !ours => {
                let known = self.listing.get(&entry.partition);
                if known.is_none_or(|listed| !listed.contains_key(&entry.id)) {
                    let foreign = self.foreign.entry(entry.partition).or_default();
                    foreign.insert(entry.id, (entry, Vec::new()));
                }
            }
            Change::Upsert { entry, vector } => {
                let row = super::row_id(entry.id);
                let expires = expiry(entry.expires);
                let written = self.partitions.upsert(
                    entry.partition,
                    || self.engine.open(),
                    expires,
                    |index| index.upsert_until(row, &vector, expires),
                );
                if let Err(error) = written {
                    tracing::warn!(%error, "a row of the journal was refused");
                    return;
                }
                // One that was embedded anew is still wrong for what it was wrong for.
                let foreign = self.foreign.get_mut(&entry.partition);
                let wrong = foreign.and_then(|foreign| foreign.remove(&entry.id));
                let wrong = wrong.map(|(_, wrong)| wrong).unwrap_or_default();
                let listed = self.listing.entry(entry.partition).or_default();
                listed.insert(entry.id, (entry, wrong));
            }
            Change::Remove { partition, id } => {
                self.remove(partition, id);
            }
            Change::Drop { partition } => {
                self.foreign.remove(&partition);
                self.listing.remove(&partition);
                self.partitions.drop_partition(&partition, || ());
            }
            Change::Wrong {
                partition,
                id,
                query,
            } => {
                for listing in [&mut self.listing, &mut self.foreign] {
                    let listed = listing.get_mut(&partition);
                    if let Some((_, wrong)) = listed.and_then(|listed| listed.get_mut(&id))
                        && !wrong.contains(&query)
                    {
                        wrong.push(query);
                    }
                }
            }
        }
    }

    fn remove(&mut self, partition: PartitionKey, id: EntryId) {
        for listing in [&mut self.listing, &mut self.foreign] {
            if let Some(listed) = listing.get_mut(&partition) {
                listed.remove(&id);
            }
        }
        self.partitions.remove(&partition, |index| {
            usize::from(index.remove(super::row_id(id)).unwrap_or(false))
        });
    }

    /// What was found and is not dead yet, the oldest first.
    fn finish(mut self) -> Vec<Restored> {
        let mut restored = Vec::new();
        let mut dead = Vec::new();
        for (listing, embedded) in [(&self.listing, true), (&self.foreign, false)] {
            for (entry, wrong) in listing.values().flat_map(HashMap::values) {
                if entry.expires.is_some_and(|end| end <= self.now) {
                    dead.push((entry.partition, entry.id));
                } else {
                    restored.push(Restored {
                        id: entry.id,
                        row: entry.clone().into_row(),
                        wrong: wrong.clone(),
                        embedded,
                    });
                }
            }
        }
        for (partition, id) in dead {
            self.remove(partition, id);
        }
        restored.sort_by_key(|restored| (restored.row.created, restored.id));
        restored
    }
}

/// The entries of a partition, by their ids.
fn listed(
    entries: Vec<Listed>,
    wrong: Vec<(EntryId, Vec<[u8; 32]>)>,
) -> HashMap<EntryId, (Listed, Vec<[u8; 32]>)> {
    let mut wrong: HashMap<_, _> = wrong.into_iter().collect();
    let entries = entries.into_iter().map(|entry| {
        let wrong = wrong.remove(&entry.id).unwrap_or_default();
        (entry.id, (entry, wrong))
    });
    entries.collect()
}

fn warn(file: &str, fault: &Fault) {
    tracing::warn!(file, %fault, "a file of the index is not used, or not to its end: what it would have given is made anew");
}

/// The numbers of the files in a folder, ascending.
#[derive(Debug, Default)]
struct Numbers {
    snapshots: Vec<u64>,
    journals: Vec<u64>,
}

impl Numbers {
    fn last(&self) -> u64 {
        let last = |numbers: &[u64]| numbers.last().copied().unwrap_or(0);
        last(&self.snapshots).max(last(&self.journals))
    }
}

fn numbers(path: &Path) -> io::Result<Numbers> {
    let mut numbers = Numbers::default();
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        let number = |prefix| name.strip_prefix(prefix)?.parse().ok();
        numbers.snapshots.extend::<Option<u64>>(number(SNAPSHOT));
        numbers.journals.extend::<Option<u64>>(number(JOURNAL));
    }
    numbers.snapshots.sort_unstable();
    numbers.journals.sort_unstable();
    Ok(numbers)
}

/// The number in a file's name: 7 in `journal-7` and in `snapshot-7-1`. `None` where it is none of ours.
fn number_of(name: &str) -> Option<u64> {
    let of_snapshot = |rest: &str| {
        let (number, part) = rest.split_once('-').unwrap_or((rest, "0"));
        part.parse::<u64>().ok()?;
        number.parse().ok()
    };
    match name.strip_prefix(SNAPSHOT) {
        Some(rest) => of_snapshot(rest),
        None => name.strip_prefix(JOURNAL)?.parse().ok(),
    }
}

fn begin_journal(path: &Path, number: u64, dimension: u32, fingerprint: &str) -> Result<Journal> {
    let head = Head {
        kind: Kind::Journal,
        dimension,
        fingerprint: fingerprint.to_owned(),
    };
    let begin = || {
        let mut start = Vec::new();
        record::put_head(&head, &mut start).map_err(io::Error::other)?;
        let mut file = File::create_new(path.join(format!("{JOURNAL}{number}")))?;
        file.write_all(&start)?;
        sync_folder(path)?;
        Ok(Journal {
            number,
            file,
            buffer: Vec::new(),
            bytes: start.len() as u64,
            fault: None,
        })
    };
    begin().map_err(|error| failed("write", path, error))
}

/// Writes a file under another name, syncs and renames it: it is there as a whole or not at all.
fn write_whole(
    folder: &Path,
    name: &str,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let under_way = folder.join(format!("{name}{UNDER_WAY}"));
    let mut out = BufWriter::with_capacity(BUFFER, File::create(&under_way)?);
    write(&mut out)?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    fs::rename(&under_way, folder.join(name))?;
    sync_folder(folder)
}

/// Makes names in a folder lasting.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Whether a process, this one included, uses the folder. A folder that cannot be looked at is not in use:
/// opening it will say what is wrong.
pub(super) fn is_in_use(path: &Path) -> bool {
    File::open(path.join(LOCK))
        .is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

/// Makes the folder and takes its lock.
fn lock(path: &Path) -> Result<File> {
    let take = || {
        let mut folder = fs::DirBuilder::new();
        folder.recursive(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::DirBuilderExt as _;
            // Vectors say much of their texts.
            folder.mode(0o700);
        }
        folder.create(path)?;
        let mut open = OpenOptions::new();
        open.create(true)
            .truncate(false)
            .write(true)
            .open(path.join(LOCK))
    };
    let file = take().map_err(|error| failed("open", path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::new(
            ErrorKind::Config,
            "another process uses this folder for its index",
        )
        .with("field", "semantic.index.path")
        .with("value", path.display())
        .with("remedy", "give each process a folder of its own")),
        Err(TryLockError::Error(error)) => Err(failed("lock", path, error)),
    }
}

fn failed(operation: &'static str, path: &Path, error: io::Error) -> Error {
    Error::new(ErrorKind::Index, "the folder of the index cannot be used")
        .with("operation", operation)
        .with("field", "semantic.index.path")
        .with("value", path.display())
        .caused_by(error)
}

/// What a folder holds, without taking it into use.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct FolderReport {
    /// Partitions in the newest snapshot.
    pub partitions: usize,
    /// Entries in the newest snapshot.
    pub entries: usize,
    /// Changes in the journals since.
    pub changes: usize,
    /// Files that cannot be used, or not to their end, and why.
    pub faults: Vec<String>,
}

/// Reads every file that a start would read, and checks it. A journal that ends early is as it should be
/// while a process writes it.
///
/// # Errors
/// [`ErrorKind::Index`] when the folder cannot be read.
pub fn inspect(path: &Path, fingerprint: &str) -> Result<FolderReport> {
    let numbers = numbers(path).map_err(|error| failed("read", path, error))?;
    let open = |name: &str, kind| {
        let mut reader = BufReader::with_capacity(BUFFER, File::open(path.join(name))?);
        let found = record::any_head(&mut reader)?;
        let head = Head {
            kind,
            // Vectors of one embedding have one length.
            dimension: found.dimension,
            fingerprint: fingerprint.to_owned(),
        };
        found.check(&head)?;
        Ok::<_, Fault>(reader)
    };
    let mut report = FolderReport::default();
    let from = numbers.snapshots.last().copied().unwrap_or(0);
    if from > 0 {
        let name = format!("{SNAPSHOT}{from}");
        let mut count = || {
            let mut reader = open(&name, Kind::Snapshot)?;
            while let Some(part) = record::read(&mut reader)? {
                match part {
                    Part::End { .. } => return Ok(()),
                    Part::Partition { entries, index, .. } => {
                        report.partitions += 1;
                        report.entries += entries.len();
                        if let IndexBytes::File(name) = index {
                            let mut reader = BufReader::new(File::open(path.join(name))?);
                            FlatIndex::restore(&mut reader).map_err(|_| Fault::Damaged)?;
                        }
                    }
                }
            }
            Err(Fault::Torn)
        };
        if let Err(fault) = count() {
            report.faults.push(format!("{name}: {fault}"));
        }
    }
    for number in numbers.journals.iter().filter(|number| **number >= from) {
        let name = format!("{JOURNAL}{number}");
        let mut count = || {
            let mut reader = open(&name, Kind::Journal)?;
            while record::read::<Change<'static>>(&mut reader)?.is_some() {
                report.changes += 1;
            }
            Ok::<_, Fault>(())
        };
        match count() {
            Ok(()) | Err(Fault::Torn) => {}
            Err(fault) => report.faults.push(format!("{name}: {fault}")),
        }
    }
    Ok(report)
}
