//! A policy that was fitted anew, on disk: what a later start decides by.
//!
//! The file is a policy file like any other, written as a whole or not at all, with the one before beside it
//! (`.1`). Its card names the policy whose models it has; when another one is configured, it is out of date and
//! not used, nor is it when it does not certify what the settings promise, or is of another embedding.

use std::fs;
use std::path::Path;

use super::recalibrate::RecalibrationReport;
use crate::error::{Error, ErrorKind, Result};
use crate::files::{beside, write_whole};
use crate::policy::{Calibrated, CalibratedSettings, HitPolicy as _, PolicyFile};

/// Writes a policy, and keeps the one before.
///
/// # Errors
/// [`ErrorKind::BackendUnavailable`] when a file cannot be written.
pub(super) fn keep(path: &Path, policy: &PolicyFile) -> Result<()> {
    let unwritten = |error: std::io::Error| {
        Error::new(
            ErrorKind::BackendUnavailable,
            "the policy that was fitted anew was not written",
        )
        .with("field", "semantic.learning.recalibrated_path")
        .with("path", path.display())
        .caused_by(error)
    };
    let bytes = policy.to_json()?;
    match fs::read(path) {
        Ok(before) if before == bytes => return Ok(()),
        Ok(before) => write_whole(&beside(path, ".1"), &before).map_err(unwritten)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(unwritten(error)),
    }
    write_whole(path, &bytes).map_err(unwritten)
}

/// Writes what came of an attempt.
///
/// # Errors
/// [`ErrorKind::BackendUnavailable`] when the file cannot be written.
pub(super) fn report(path: &Path, report: &RecalibrationReport) -> Result<()> {
    let unwritten = || {
        Error::new(
            ErrorKind::BackendUnavailable,
            "the report of fitting a policy anew was not written",
        )
        .with("path", beside(path, ".report.json").display())
    };
    let bytes = serde_json::to_vec_pretty(report).map_err(|error| unwritten().caused_by(error))?;
    write_whole(&beside(path, ".report.json"), &bytes).map_err(|error| unwritten().caused_by(error))
}

/// What came of the last attempt, as far as it can be read.
pub(crate) fn last_report(path: &Path) -> Option<RecalibrationReport> {
    let bytes = fs::read(beside(path, ".report.json")).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// The policy at `path`, if it may stand for the configured one, `base`, with embeddings of these fingerprints.
/// Says in a warning why it may not.
pub(crate) fn picked_up(
    path: &Path,
    base: &Calibrated,
    settings: &CalibratedSettings,
    spaces: [Option<&str>; 2],
) -> Option<Calibrated> {
    if !path.exists() {
        return None;
    }
    let found = PolicyFile::read(path).and_then(|file| {
        let refuse = |message| Err(Error::new(ErrorKind::Config, message));
        if file.card.made_from.as_deref() != Some(&base.file().digest) {
            return refuse("it was made from another policy than the configured one");
        }
        let mut pairs = file.spaces.iter().zip(spaces);
        if pairs.any(|(made_for, space)| space.is_some_and(|space| space != made_for)) {
            return refuse("it was made for another embedding");
        }
        Calibrated::new(file, settings)
    });
    match found {
        Ok(policy) => {
            tracing::info!(path = %path.display(), policy = policy.name(), created = policy.file().created,
                "the policy that was fitted anew decides");
            Some(policy)
        }
        Err(error) => {
            tracing::warn!(%error, path = %path.display(),
                "the policy that was fitted anew is not used: the configured one decides");
            None
        }
    }
}

/// The path with something added to its name.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::learning::Recalibration;

    fn settings() -> CalibratedSettings {
        CalibratedSettings::default()
    }

    fn base() -> Calibrated {
        Calibrated::from_settings(&settings()).unwrap()
    }

    /// The built-in policy as if it had been made from `from`.
    fn made_from(from: &str, created: &str) -> PolicyFile {
        let mut file = PolicyFile::builtin().unwrap();
        file.card.made_from = Some(from.to_owned());
        created.clone_into(&mut file.created);
        file
    }

    #[test]
    fn a_policy_is_picked_up_again_and_the_one_before_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/policy.json");
        let base = base();
        let digest = base.file().digest.clone();
        let found = |spaces| picked_up(&path, &base, &settings(), spaces);
        assert!(found([None, None]).is_none());
        keep(&path, &made_from(&digest, "first")).unwrap();
        keep(&path, &made_from(&digest, "second")).unwrap();
        keep(&path, &made_from(&digest, "second")).unwrap();
        let spaces = [Some(base.file().spaces[0].as_str()), None];
        assert_eq!(found(spaces).unwrap().file().created, "second");
        let before = PolicyFile::read(&beside(&path, ".1")).unwrap();
        assert_eq!(before.created, "first");
        assert!(found([Some("another space"), None]).is_none());
    }

    #[test]
    fn what_does_not_certify_is_of_another_base_or_damaged_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.json");
        let base = base();
        keep(&path, &made_from("another", "now")).unwrap();
        assert!(picked_up(&path, &base, &settings(), [None, None]).is_none());

        let mut file = made_from(&base.file().digest, "now");
        keep(&path, &file).unwrap();
        assert!(picked_up(&path, &base, &settings(), [None, None]).is_some());
        file.cutoffs.cascade.clear();
        file.cutoffs.fast.clear();
        keep(&path, &file).unwrap();
        assert!(picked_up(&path, &base, &settings(), [None, None]).is_none());

        fs::write(&path, b"{").unwrap();
        assert!(picked_up(&path, &base, &settings(), [None, None]).is_none());
    }

    #[test]
    fn a_report_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.json");
        assert_eq!(last_report(&path), None);
        let told = RecalibrationReport {
            at: 7,
            outcome: Recalibration::Refused {
                decisions: 12,
                reason: "too few".to_owned(),
            },
            digest: None,
        };
        report(&path, &told).unwrap();
        assert_eq!(last_report(&path), Some(told));
    }
}
