//! Where and when a report was made. Everything is best effort: what cannot be found is left out.

use std::fs;
use std::process::Command;
use std::thread;

use askonce::clock::{Clock as _, SystemClock};
use askonce::savings::Day;
use serde::Serialize;

/// The circumstances of a run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    /// The processor's own name.
    pub(crate) cpu: Option<String>,
    /// Cores that this process may use.
    pub(crate) cores: usize,
    pub(crate) os: &'static str,
    pub(crate) architecture: &'static str,
    /// Commit of the source tree, with `+` when it has changes; `None` outside one.
    pub(crate) commit: Option<String>,
    /// Whether the binary was built with optimisation.
    pub(crate) optimised: bool,
    /// The day of the run, UTC.
    pub(crate) date: String,
}

impl Machine {
    pub(crate) fn here() -> Self {
        Self {
            cpu: cpu(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            os: std::env::consts::OS,
            architecture: std::env::consts::ARCH,
            commit: commit(),
            optimised: !cfg!(debug_assertions),
            date: Day::of(SystemClock.now()).to_string(),
        }
    }
}

fn cpu() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn commit() -> Option<String> {
    let git = |args: &[&str]| {
        let output = Command::new("git")
            .arg("-C")
            .arg(env!("CARGO_MANIFEST_DIR"))
            .args(args)
            .output();
        let output = output.ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() {
        commit
    } else {
        commit + "+"
    })
}

/// Memory of this process that is in RAM; `None` where the system does not say.
pub(crate) fn resident_bytes() -> Option<usize> {
    // `status` counts in kilobytes, `statm` in pages, whose size is not the same everywhere.
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_described_without_fail() {
        let machine = Machine::here();
        assert!(machine.cores > 0);
        assert_eq!(machine.date.len(), 10);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn resident_memory_is_known_on_linux() {
        assert!(resident_bytes().unwrap() > 1 << 20);
    }
}
