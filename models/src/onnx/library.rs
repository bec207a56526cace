//! The library of ONNX Runtime, loaded once for the process.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::ModelError;

/// Where it is unless the settings say.
const VARIABLE: &str = "ORT_DYLIB_PATH";

/// What the system looks for unless the variable says.
const FILE_NAME: &str = if cfg!(windows) {
    "onnxruntime.dll"
} else if cfg!(target_vendor = "apple") {
    "libonnxruntime.dylib"
} else {
    "libonnxruntime.so"
};

/// The library that was loaded.
static LOADED: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Loads the library, unless that was done before.
///
/// # Errors
/// [`ModelError::Config`] naming `library` when it cannot be loaded, or when another one was.
pub(super) fn load(wanted: Option<&Path>) -> Result<(), ModelError> {
    let path = match wanted {
        Some(path) => Some(path.to_owned()),
        None => env::var_os(VARIABLE)
            .filter(|path| !path.is_empty())
            .map(PathBuf::from),
    };
    let unusable = |reason| ModelError::Config {
        field: "library",
        reason,
    };
    if let Some(path) = path.as_deref().filter(|path| !path.is_file()) {
        return Err(unusable(format!("there is no file {}", path.display())));
    }
    let path = path.unwrap_or_else(|| FILE_NAME.into());
    // A relative path means the working directory, as everywhere.
    let path = if path.is_file() {
        std::path::absolute(&path).unwrap_or(path)
    } else {
        path
    };
    let mut loaded = LOADED
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    match &*loaded {
        Some(before) if *before == path || wanted.is_none() => return Ok(()),
        Some(before) => {
            return Err(unusable(format!(
                "{} is loaded already, and a process has one: name the same library for all models",
                before.display()
            )));
        }
        None => {}
    }
    let environment = ort::init_from(&path).map_err(|error| {
        unusable(format!(
            "ONNX Runtime cannot be loaded: {error}; name the file of a library of 1.{} or newer here or in \
             {VARIABLE} (the Python package onnxruntime has one in its folder capi)",
            ort::MINOR_VERSION
        ))
    })?;
    // False where the application has set up an environment of its own: then that one is used.
    environment.with_name("askonce").commit();
    *loaded = Some(path);
    Ok(())
}
