//! Putting a file in the place of another, whole or not at all.
//!
//! The new file is written beside the old one, brought to the disk, and renamed to its name, which
//! is then brought to the disk too. So there is the old file or the new one under the name, at any
//! time and after any crash; and who has mapped the old one keeps it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::IndexError;

/// How old a file is that a crash left: no save takes that long.
const LEFT_BEHIND: Duration = Duration::from_secs(24 * 60 * 60);

/// Puts a file of what `write` writes in the place of this one.
pub(crate) fn replace(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<(), IndexError>,
) -> Result<(), IndexError> {
    let mut beside = Beside::new(path)?;
    {
        let mut out = BufWriter::new(&mut beside.file);
        write(&mut out)?;
        out.flush()?;
    }
    beside.put_in_place()?;
    Ok(())
}

/// A file under a name of its own, which is deleted unless it is put in place.
struct Beside {
    file: File,
    path: PathBuf,
    target: PathBuf,
    is_in_place: bool,
}

impl Beside {
    fn new(target: &Path) -> io::Result<Self> {
        static SAVES: AtomicU64 = AtomicU64::new(0);
        let (folder, prefix) = beside(target)?;
        loop {
            let mut name = prefix.clone();
            let save = SAVES.fetch_add(1, Ordering::Relaxed);
            name.push(format!("{}-{save}", std::process::id()));
            let path = folder.join(name);
            let file = OpenOptions::new().write(true).create_new(true).open(&path);
            match file {
                // Of an earlier process with this number, or one on another host.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                file => {
                    return Ok(Self {
                        file: file?,
                        path,
                        target: target.to_owned(),
                        is_in_place: false,
                    });
                }
            }
        }
    }

    fn put_in_place(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, &self.target)?;
        self.is_in_place = true;
        let (folder, prefix) = beside(&self.target)?;
        // Elsewhere a folder cannot be opened, and a rename is on the disk when it returns.
        #[cfg(unix)]
        File::open(&folder)?.sync_all()?;
        clean(&folder, &prefix);
        Ok(())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if !self.is_in_place {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The folder of a file, and what the names of those beside it begin with.
fn beside(target: &Path) -> io::Result<(PathBuf, OsString)> {
    let name = target
        .file_name()
        .ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "the path does not name a file"))?;
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(".new-");
    let folder = match target.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    Ok((folder.to_owned(), prefix))
}

/// Deletes what earlier processes did not finish. If it cannot, the next save may.
fn clean(folder: &Path, prefix: &OsStr) {
    let Ok(files) = fs::read_dir(folder) else {
        return;
    };
    for file in files.flatten() {
        let name = file.file_name();
        let is_beside = name
            .as_encoded_bytes()
            .starts_with(prefix.as_encoded_bytes());
        let age = || file.metadata().ok()?.modified().ok()?.elapsed().ok();
        if is_beside && age().is_some_and(|age| age > LEFT_BEHIND) {
            let _ = fs::remove_file(file.path());
        }
    }
}
