//! The books on disk: a JSON document, written whole or not at all.

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

use super::{Ledger, LedgerState};
use crate::files::{beside, write_whole};
use crate::{Error, ErrorKind, Result};

impl Ledger {
    /// Adds what the file at `path` holds; there need not be one. A file that cannot be read is told in a
    /// warning and put aside as `.damaged`, as it is about money; the books begin empty then.
    pub fn restore(&self, path: &Path) {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "the books cannot be read: they begin empty");
                return;
            }
        };
        let state = serde_json::from_slice::<LedgerState>(&bytes).map_err(|error| {
            Error::new(ErrorKind::Corrupt, "the books are no ledger")
                .with("line", error.line())
                .with("column", error.column())
        });
        if let Err(error) = state.and_then(|state| self.import(&state)) {
            let aside = beside(path, ".damaged");
            let moved = fs::rename(path, &aside).is_ok();
            tracing::warn!(%error, path = %path.display(), moved, "the books cannot be read: they begin empty");
        }
        self.changed.store(false, Ordering::Relaxed);
    }

    /// Writes the books to `path`, if anything was recorded since they were last written. Blocks.
    ///
    /// # Errors
    /// [`ErrorKind::BackendUnavailable`] when the file cannot be written; the next call tries again.
    pub fn save(&self, path: &Path) -> Result<()> {
        if !self.changed.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let written = serde_json::to_vec(&self.export())
            .map_err(std::io::Error::from)
            .and_then(|bytes| write_whole(path, &bytes));
        written.map_err(|error| {
            self.changed.store(true, Ordering::Relaxed);
            Error::new(ErrorKind::BackendUnavailable, "the books were not written")
                .with("path", path.display())
                .caused_by(error)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{CostKind, HitKindLabel, Saved, Usage, Usd};
    use super::*;
    use crate::clock::{ManualClock, Timestamp};

    const NOON: Timestamp = Timestamp::from_millis(1_754_481_600_000);

    fn ledger() -> Ledger {
        Ledger::new(ManualClock::starting_at(NOON))
    }

    #[test]
    fn the_books_outlive_their_process_to_the_last_figure() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/books.savings");
        let first = ledger();
        first.restore(&path);
        first.save(&path).unwrap();
        assert!(!path.exists(), "nothing was recorded");
        let saved = Saved {
            usage: Usage::new(7, 3),
            usd: Some(Usd::from_picos(1_234_567_890_123)),
            duration: Duration::from_millis(321),
        };
        first.record_hit(("acme", "gpt-4o", "eu"), HitKindLabel::Semantic, &saved);
        first.record_cost(CostKind::Judge, Usd::from_picos(1));
        first.save(&path).unwrap();
        let second = ledger();
        second.restore(&path);
        assert_eq!(second.export(), first.export());
        second.record_wrong_hit(("acme", "gpt-4o", "eu"), &saved);
        second.save(&path).unwrap();
        let third = ledger();
        third.restore(&path);
        assert_eq!(third.totals().0.net_usd(), Usd::ZERO);
        assert_eq!(third.totals().0.hits(), 1);
    }

    #[test]
    fn books_that_cannot_be_read_are_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("books");
        for damaged in ["", "{", r#"{"version":99,"lines":[],"costs":[]}"#] {
            fs::write(&path, damaged).unwrap();
            let books = ledger();
            books.restore(&path);
            assert_eq!(books.export(), ledger().export());
            assert_eq!(
                fs::read_to_string(beside(&path, ".damaged")).unwrap(),
                damaged
            );
            assert!(!path.exists());
        }
    }

    #[test]
    fn books_of_before_there_were_routes_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("books");
        let before = r#"{"version":1,"lines":[{"tenant":"acme","model":"m","day":"2025-08-06","hits_exact":3}],
            "costs":[{"day":null,"embedding":"0.5"}]}"#;
        fs::write(&path, before).unwrap();
        let books = ledger();
        books.restore(&path);
        let (line, costs) = books.totals();
        assert_eq!(
            (line.hits(), costs.embedding),
            (3, Usd::from_micros(500_000))
        );
    }
}
