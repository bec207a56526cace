//! Where and when a report was made. Everything is best effort: what cannot be found is left out.

use std::fs;
use std::thread;

use askonce::clock::{Clock as _, SystemClock};
use askonce::savings::Day;
use askonce_measure::{commit, cpu};
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
