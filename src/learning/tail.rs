//! The decisions of late in memory, with their labels, so that they can be replayed without a file.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use parking_lot::Mutex;

use super::LabelSource;
use super::decision_log::{DecisionId, LoggedLabel, parse};
use crate::decision::DecisionRecord;
use crate::entry::EntryId;

/// Bytes at the end of a decision log that are read at start.
const READ: u64 = 4 << 20;

/// The last decisions. With room for none, nothing is kept and nothing is locked.
#[derive(Debug, Default)]
pub(super) struct Tail {
    room: usize,
    kept: Mutex<VecDeque<Kept>>,
}

#[derive(Debug)]
struct Kept {
    id: DecisionId,
    decision: DecisionRecord,
    /// Candidates whose label an audit gave: no other takes its place.
    audited: Vec<EntryId>,
}

impl Tail {
    pub(super) fn new(room: usize) -> Self {
        Self {
            room,
            kept: Mutex::default(),
        }
    }

    pub(super) fn listens(&self) -> bool {
        self.room > 0
    }

    /// Keeps a decision.
    pub(super) fn decision(&self, id: DecisionId, decision: &DecisionRecord) {
        if self.room == 0 {
            return;
        }
        let kept = Kept {
            id,
            decision: decision.clone(),
            audited: Vec::new(),
        };
        let mut tail = self.kept.lock();
        let oldest = if tail.len() >= self.room {
            tail.pop_front()
        } else {
            None
        };
        tail.push_back(kept);
        drop(tail);
        // Freed outside the lock.
        drop(oldest);
    }

    /// Joins a label to its decision, by the rules of [`read`](super::decision_log::read).
    pub(super) fn label(&self, id: DecisionId, label: &LoggedLabel) {
        let mut tail = self.kept.lock();
        let Some(kept) = tail.iter_mut().rev().find(|kept| kept.id == id) else {
            return;
        };
        let mut candidates = kept.decision.candidates.iter_mut();
        let Some(candidate) = candidates.find(|candidate| candidate.entry == label.entry) else {
            return;
        };
        if label.source == LabelSource::Audit {
            kept.audited.push(label.entry);
        } else if kept.audited.contains(&label.entry) {
            return;
        }
        candidate.right = Some(label.right);
        if label.right {
            kept.decision.answerable = Some(true);
        }
        kept.decision.weight = label.weight;
    }

    /// Begins with the end of a log. Lines that cannot be read are left out.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn fill(&self, log: &Path) -> io::Result<()> {
        if self.room == 0 || !log.exists() {
            return Ok(());
        }
        let mut file = File::open(log)?;
        let from = file.metadata()?.len().saturating_sub(READ);
        file.seek(SeekFrom::Start(from))?;
        let mut lines = BufReader::new(file.take(READ)).split(b'\n');
        if from > 0 {
            // Begins within a line.
            lines.next().transpose()?;
        }
        for line in lines {
            let Some((id, decision, label)) = parse(&line?) else {
                continue;
            };
            if let Some(decision) = decision {
                self.decision(id, &decision);
            }
            if let Some(label) = label {
                self.label(id, &label);
            }
        }
        Ok(())
    }

    /// The decisions, oldest first.
    pub(super) fn decisions(&self) -> Vec<DecisionRecord> {
        let tail = self.kept.lock();
        tail.iter().map(|kept| kept.decision.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DecisionLogConfig;
    use crate::decision::CandidateRecord;
    use crate::learning::decision_log::DecisionLog;
    use crate::policy::Evidence;

    fn decision(at: u64) -> DecisionRecord {
        DecisionRecord {
            at,
            candidates: vec![CandidateRecord {
                entry: EntryId::new(at),
                evidence: Evidence::similarity(0.9),
                right: None,
            }],
            ..DecisionRecord::default()
        }
    }

    fn label(entry: u64, right: bool, source: LabelSource) -> LoggedLabel {
        LoggedLabel {
            entry: EntryId::new(entry),
            right,
            source,
            weight: 3.0,
            at: 0,
        }
    }

    #[test]
    fn the_last_decisions_are_kept_with_labels_that_an_audit_has_the_last_word_on() {
        let tail = Tail::new(2);
        for at in 1..=3 {
            tail.decision(at, &decision(at));
        }
        tail.label(1, &label(1, true, LabelSource::Miss));
        tail.label(3, &label(3, false, LabelSource::Audit));
        tail.label(3, &label(3, true, LabelSource::Feedback));
        let kept = tail.decisions();
        let times: Vec<_> = kept.iter().map(|decision| decision.at).collect();
        assert_eq!(times, [2, 3]);
        assert_eq!(kept[0].candidates[0].right, None);
        assert_eq!(kept[1].candidates[0].right, Some(false));
        assert_eq!(kept[1].weight, 3.0);
    }

    #[test]
    fn what_an_earlier_process_logged_is_there_at_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("decisions.jsonl");
        let config = serde_json::json!({ "path": path });
        let config: DecisionLogConfig = serde_json::from_value(config).unwrap();
        let log = DecisionLog::open(&config).unwrap();
        log.decision(7, &decision(7));
        log.label(7, label(7, true, LabelSource::Miss));
        drop(log);
        let tail = Tail::new(10);
        tail.fill(&path).unwrap();
        tail.fill(&folder.path().join("none")).unwrap();
        let kept = tail.decisions();
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].candidates[0].right, Some(true));
    }
}
