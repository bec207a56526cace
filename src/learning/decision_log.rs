//! Decisions on disk, a JSON document a line, and the labels that came later.
//!
//! | line | what it is |
//! |---|---|
//! | `{"id": "...", "decision": {...}}` | a [`DecisionRecord`] without labels |
//! | `{"id": "...", "label": {...}}` | a label of one of its candidates |
//!
//! Lines are written by a thread of their own, from a bounded queue: when it is full, lines are dropped
//! and counted. A file that has grown to its size is renamed to `.1`, that to `.2`, and so on. [`read`] joins
//! labels to their decisions, across files.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};

use super::LabelSource;
use crate::config::DecisionLogConfig;
use crate::decision::DecisionRecord;
use crate::entry::EntryId;
use crate::error::{Error, ErrorKind, Result};

/// Lines that may wait to be written.
const QUEUE: usize = 1_024;

/// A label of a logged decision.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoggedLabel {
    /// The candidate's entry.
    pub entry: EntryId,
    /// Whether its answer was right for the query.
    pub right: bool,
    /// Where the label comes from.
    pub source: LabelSource,
    /// How many decisions this one stands for: one over the probability with which it was audited; 1 for
    /// what is labelled whenever it happens.
    pub weight: f64,
    /// When, in milliseconds since 1970.
    pub at: u64,
}

/// The name of a logged decision, 64 random bits.
pub(crate) type DecisionId = u64;

#[derive(Serialize, Deserialize)]
struct Line<D> {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none", default = "none")]
    decision: Option<D>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    label: Option<LoggedLabel>,
}

fn none<D>() -> Option<D> {
    None
}

/// What the writing thread is told.
enum Told {
    Line(Vec<u8>),
    /// Everything before is to be on its way to disk; then say so.
    Flush(SyncSender<io::Result<()>>),
}

/// The end of a log that lines are put in.
#[derive(Debug)]
pub(crate) struct DecisionLog {
    sender: Option<SyncSender<Told>>,
    writer: Option<JoinHandle<()>>,
    dropped: AtomicU64,
}

impl DecisionLog {
    /// # Errors
    /// [`ErrorKind::Config`] when the file cannot be written.
    pub(crate) fn open(config: &DecisionLogConfig) -> Result<Self> {
        let unusable = |error: io::Error| {
            Error::new(ErrorKind::Config, "the decision log cannot be written")
                .with("field", "semantic.learning.log.path")
                .with("value", config.path.display())
                .caused_by(error)
        };
        let mut file = Rotating::open(config).map_err(unusable)?;
        let (sender, lines) = sync_channel(QUEUE);
        let writer = std::thread::Builder::new()
            .name("askonce-decisions".to_owned())
            .spawn(move || file.run(&lines))
            .map_err(unusable)?;
        Ok(Self {
            sender: Some(sender),
            writer: Some(writer),
            dropped: AtomicU64::new(0),
        })
    }

    /// Appends a decision.
    pub(crate) fn decision(&self, id: DecisionId, decision: &DecisionRecord) {
        self.line(&Line {
            id: format!("{id:016x}"),
            decision: Some(decision),
            label: None,
        });
    }

    /// Appends a label of a decision.
    pub(crate) fn label(&self, id: DecisionId, label: LoggedLabel) {
        self.line(&Line::<&DecisionRecord> {
            id: format!("{id:016x}"),
            decision: None,
            label: Some(label),
        });
    }

    fn line<D: Serialize>(&self, line: &Line<D>) {
        let sent = match (&self.sender, serde_json::to_vec(line)) {
            (Some(sender), Ok(mut bytes)) => {
                bytes.push(b'\n');
                sender.try_send(Told::Line(bytes)).is_ok()
            }
            _ => false,
        };
        if !sent {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lines that found no room in the queue.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Writes what waits. Blocks.
    ///
    /// # Errors
    /// [`ErrorKind::BackendUnavailable`] when the file cannot be written.
    pub(crate) fn flush(&self) -> Result<()> {
        let failed = || {
            Error::new(
                ErrorKind::BackendUnavailable,
                "the decision log was not written",
            )
        };
        let (done, said) = sync_channel(1);
        let sender = self.sender.as_ref().ok_or_else(failed)?;
        sender.send(Told::Flush(done)).map_err(|_| failed())?;
        let written = said.recv().map_err(|_| failed())?;
        written.map_err(|error| failed().caused_by(error))
    }
}

impl Drop for DecisionLog {
    fn drop(&mut self) {
        // The thread ends when nothing more can come.
        self.sender = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

/// A file that is begun anew when it has grown to its size.
struct Rotating {
    config: DecisionLogConfig,
    file: BufWriter<File>,
    bytes: u64,
}

impl Rotating {
    fn open(config: &DecisionLogConfig) -> io::Result<Self> {
        let folder = config
            .path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder {
            fs::create_dir_all(folder)?;
        }
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .open(&config.path)?;
        let mut bytes = file.metadata()?.len();
        if bytes > 0 && !ends_with_a_line(&config.path, bytes)? {
            // A process died within a line: what comes next is a line of its own.
            file.write_all(b"\n")?;
            bytes += 1;
        }
        Ok(Self {
            config: config.clone(),
            file: BufWriter::new(file),
            bytes,
        })
    }

    fn run(&mut self, lines: &Receiver<Told>) {
        let mut failing = false;
        let mut next = lines.recv().ok();
        while let Some(told) = next {
            let written = match told {
                Told::Line(line) => self.write(&line),
                Told::Flush(done) => {
                    let _ = done.send(self.file.flush());
                    Ok(())
                }
            };
            next = match lines.try_recv() {
                Ok(told) => Some(told),
                Err(TryRecvError::Empty) => {
                    let flushed = self.file.flush();
                    tell(written.and(flushed), &mut failing);
                    lines.recv().ok()
                }
                Err(TryRecvError::Disconnected) => None,
            };
        }
        tell(self.file.flush(), &mut failing);
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let size = line.len() as u64;
        if self.bytes > 0 && self.bytes + size > self.config.max_bytes.as_u64() {
            self.rotate()?;
        }
        self.bytes += size;
        self.file.write_all(line)
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file.flush()?;
        let path = &self.config.path;
        let keep = self.config.keep;
        match keep {
            0 => fs::remove_file(path)?,
            _ => {
                for n in (1..keep).rev() {
                    let older = numbered(path, n);
                    if older.exists() {
                        fs::rename(older, numbered(path, n + 1))?;
                    }
                }
                fs::rename(path, numbered(path, 1))?;
            }
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        (self.file, self.bytes) = (BufWriter::new(file), 0);
        Ok(())
    }
}

/// Warns when writing begins to fail.
fn tell(written: io::Result<()>, failing: &mut bool) {
    match written {
        Ok(()) => *failing = false,
        Err(error) => {
            if !std::mem::replace(failing, true) {
                tracing::warn!(%error, "decisions are not logged");
            }
        }
    }
}

fn ends_with_a_line(path: &Path, bytes: u64) -> io::Result<bool> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(bytes - 1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// The name of the `n`th older file.
fn numbered(path: &Path, n: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

/// What a line holds: the name of a decision, and the decision or a label of it.
pub(super) fn parse(
    line: &[u8],
) -> Option<(DecisionId, Option<DecisionRecord>, Option<LoggedLabel>)> {
    let line: Line<DecisionRecord> = serde_json::from_slice(line).ok()?;
    let id = DecisionId::from_str_radix(&line.id, 16).ok()?;
    Some((id, line.decision, line.label))
}

/// What a log held.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoggedDecisions {
    /// The decisions, oldest first, with the labels that came later.
    pub decisions: Vec<DecisionRecord>,
    /// Labels that were joined.
    pub labels: usize,
    /// Labels whose decision is not in the log (any more).
    pub orphans: usize,
    /// Lines that could not be read: damaged, or written by another version.
    pub unreadable: usize,
}

/// Reads a log: the file of this path and the older ones beside it. A later label of the same candidate
/// takes the place of an earlier one, unless that came from an audit.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`] when there is no such file, or it cannot be read.
pub fn read(path: &Path) -> Result<LoggedDecisions> {
    let failed = |error: io::Error| {
        Error::new(ErrorKind::InvalidRequest, "the decision log cannot be read")
            .with("path", path.display())
            .caused_by(error)
    };
    let older = (1..)
        .map(|n| numbered(path, n))
        .take_while(|path| path.exists());
    let mut files: Vec<_> = older.collect();
    files.reverse();
    if path.exists() || files.is_empty() {
        files.push(path.to_owned());
    }
    let mut logged = LoggedDecisions::default();
    let mut places = HashMap::<String, usize>::new();
    let mut audited = HashMap::<(usize, EntryId), bool>::new();
    for file in files {
        for line in BufReader::new(File::open(file).map_err(failed)?).split(b'\n') {
            let line = line.map_err(failed)?;
            if line.is_empty() {
                continue;
            }
            let Ok(line) = serde_json::from_slice::<Line<DecisionRecord>>(&line) else {
                logged.unreadable += 1;
                continue;
            };
            if let Some(decision) = line.decision {
                places.insert(line.id.clone(), logged.decisions.len());
                logged.decisions.push(decision);
            }
            let Some(label) = line.label else { continue };
            let candidate = places.get(&line.id).and_then(|place| {
                let mut candidates = logged.decisions[*place].candidates.iter_mut();
                let found = candidates.find(|candidate| candidate.entry == label.entry);
                Some((*place, found?))
            });
            let Some((place, candidate)) = candidate else {
                logged.orphans += 1;
                continue;
            };
            let is_audit = label.source == LabelSource::Audit;
            let before = audited.entry((place, label.entry)).or_insert(is_audit);
            if *before && !is_audit {
                continue;
            }
            *before = is_audit;
            candidate.right = Some(label.right);
            if label.right {
                logged.decisions[place].answerable = Some(true);
            }
            logged.decisions[place].weight = label.weight;
            logged.labels += 1;
        }
    }
    Ok(logged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::CandidateRecord;
    use crate::policy::Evidence;
    use bytesize::ByteSize;

    fn config(folder: &Path, max_bytes: ByteSize, keep: usize) -> DecisionLogConfig {
        DecisionLogConfig {
            path: folder.join("decisions.jsonl"),
            max_bytes,
            keep,
        }
    }

    fn decision(at: u64) -> DecisionRecord {
        let candidate = |entry| CandidateRecord {
            entry: EntryId::new(entry),
            evidence: Evidence::similarity(0.9),
            right: None,
        };
        DecisionRecord {
            at,
            candidates: vec![candidate(at), candidate(at + 1_000_000)],
            ..DecisionRecord::default()
        }
    }

    fn label(entry: u64, right: bool, source: LabelSource, weight: f64) -> LoggedLabel {
        LoggedLabel {
            entry: EntryId::new(entry),
            right,
            source,
            weight,
            at: 0,
        }
    }

    #[test]
    fn labels_are_joined_to_their_decisions_when_a_log_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), ByteSize::mib(1), 2);
        let log = DecisionLog::open(&config).unwrap();
        log.decision(1, &decision(1));
        log.decision(2, &decision(2));
        log.label(1, label(1, false, LabelSource::Audit, 50.0));
        log.label(1, label(1, true, LabelSource::Feedback, 1.0));
        log.label(2, label(1_000_002, true, LabelSource::Miss, 1.0));
        log.label(9, label(9, true, LabelSource::Miss, 1.0));
        log.flush().unwrap();
        let logged = read(&config.path).unwrap();
        assert_eq!(logged.decisions.len(), 2);
        assert_eq!(
            (logged.labels, logged.orphans, logged.unreadable),
            (2, 1, 0)
        );
        let first = &logged.decisions[0];
        assert_eq!(
            (first.candidates[0].right, first.weight),
            (Some(false), 50.0)
        );
        assert_eq!(logged.decisions[1].candidates[1].right, Some(true));
        assert_eq!(logged.decisions[1].answerable, Some(true));
    }

    #[test]
    fn a_full_file_is_put_aside_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), ByteSize::kib(8), 2);
        let log = DecisionLog::open(&config).unwrap();
        for at in 0..200 {
            log.decision(at, &decision(at));
            if at % 50 == 0 {
                log.flush().unwrap();
            }
        }
        drop(log);
        let mut names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(
            names,
            ["decisions.jsonl", "decisions.jsonl.1", "decisions.jsonl.2"]
        );
        for name in names {
            let size = fs::metadata(folder.path().join(name)).unwrap().len();
            assert!(size <= 8 * 1024, "{size}");
        }
        let logged = read(&config.path).unwrap();
        let times: Vec<_> = logged
            .decisions
            .iter()
            .map(|decision| decision.at)
            .collect();
        assert!(times.is_sorted() && times.last() == Some(&199), "{times:?}");
    }

    #[test]
    fn a_torn_line_costs_itself_alone() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), ByteSize::mib(1), 2);
        let log = DecisionLog::open(&config).unwrap();
        log.decision(1, &decision(1));
        drop(log);
        let mut file = OpenOptions::new().append(true).open(&config.path).unwrap();
        file.write_all(b"{\"id\": \"00").unwrap();
        let log = DecisionLog::open(&config).unwrap();
        log.decision(2, &decision(2));
        drop(log);
        let logged = read(&config.path).unwrap();
        assert_eq!((logged.decisions.len(), logged.unreadable), (2, 1));
    }

    #[test]
    fn a_log_that_is_not_there_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(&folder.path().join("none")).is_err());
    }
}
