//! Where the library of ONNX Runtime is, for tests.

use std::path::PathBuf;
use std::process::Command;

/// What a Python that has the package says of its library.
const ASK: &str = "import importlib.util, os
spec = importlib.util.find_spec('onnxruntime')
folder = os.path.join(os.path.dirname(spec.origin), 'capi') if spec else '.'
names = [name for name in os.listdir(folder) if name.startswith(('libonnxruntime.', 'onnxruntime.dll'))]
print(os.path.join(folder, names[0]) if spec and names else '')";

/// The library that `ORT_DYLIB_PATH` names, or the one of an installed Python package. Without one the test is
/// skipped, which is said loudly.
pub(crate) fn library() -> Option<PathBuf> {
    let named = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty());
    if let Some(path) = named {
        return Some(path.into());
    }
    let said = Command::new("python3").args(["-c", ASK]).output().ok();
    let path = said.and_then(|said| String::from_utf8(said.stdout).ok());
    let path = path.map(|path| PathBuf::from(path.trim()));
    let path = path.filter(|path| path.is_file());
    if path.is_none() {
        println!(
            "SKIPPED: no library of ONNX Runtime; pip install onnxruntime, or set ORT_DYLIB_PATH"
        );
    }
    path
}
