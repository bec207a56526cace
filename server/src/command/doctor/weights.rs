//! Whether the weights of local embeddings, those that `askonce train` wrote among them, do on this machine
//! what they did where they were made.
//!
//! A damaged file does not open. Arithmetic that differs shows in the self-test: a cosine of two known texts,
//! which the built-in weights and trained files state.

use std::path::Path;

use askonce::SemanticCache;
use askonce::config::{EmbedderConfig, RefinerConfig};
use askonce_models::{ModelError, ModelId, SelfTest, StaticEmbedder};

use super::{Finding, Report};

/// Checks the weights that the settings name. The cache of these settings is there already, so the files open.
pub(super) fn check(config: &EmbedderConfig, cache: &SemanticCache, report: &mut Report) {
    match config {
        EmbedderConfig::Static { path } => table(path.as_deref(), report),
        EmbedderConfig::Minilm { path, adapter } => {
            transformer([path.as_deref(), adapter.as_deref()], report);
        }
        EmbedderConfig::Cascade {
            table: path,
            refiner,
            ..
        } => {
            table(path.as_deref(), report);
            if let RefinerConfig::Minilm { path, adapter } = refiner {
                let files = [path.as_deref(), adapter.as_deref()];
                transformer(files, report);
                let own = files.iter().any(Option::is_some);
                if own && cache.refiner_fingerprint().is_none() {
                    let detail = "the policy was not calibrated for it, so it is not asked";
                    report.add("second embedding", Finding::Warn, detail).remedy =
                        Some("make a policy for it: askonce calibrate with these settings");
                }
            }
        }
        _ => {}
    }
}

fn table(path: Option<&Path>, report: &mut Report) {
    let found = match path {
        Some(path) => StaticEmbedder::open(path),
        None => Ok(StaticEmbedder::builtin()),
    };
    let tested = found.and_then(|table| Ok((table.id().clone(), table.self_test()?)));
    tell("weights of the table", tested, report);
}

#[cfg(feature = "minilm")]
fn transformer([weights, adapter]: [Option<&Path>; 2], report: &mut Report) {
    use askonce_models::MiniLm;

    let found = match weights {
        Some(path) => MiniLm::open(path),
        None => Ok(MiniLm::builtin()),
    };
    let found = match adapter {
        Some(path) => found.and_then(|model| model.with_adapter(path)),
        None => found,
    };
    let tested = found.and_then(|model| Ok((model.id().clone(), model.self_test()?)));
    tell("weights of the transformer", tested, report);
}

/// No cache of such settings was built.
#[cfg(not(feature = "minilm"))]
fn transformer(_: [Option<&Path>; 2], _: &mut Report) {}

fn tell(check: &str, tested: Result<(ModelId, SelfTest), ModelError>, report: &mut Report) {
    let (id, test) = match tested {
        Ok(tested) => tested,
        Err(error) => {
            report.add(check, Finding::Fail, error).remedy =
                Some("name a file that is whole, or leave the field out for the built-in weights");
            return;
        }
    };
    let SelfTest { expected, found } = test;
    match expected {
        Some(expected) if test.passes() => {
            let detail = format_args!("{id}, self-test {found:.4} as stated: {expected:.4}");
            report.add(check, Finding::Pass, detail);
        }
        Some(expected) => {
            let detail = format_args!("{id}, self-test {found:.4}, stated is {expected:.4}");
            report.add(check, Finding::Fail, detail).remedy = Some(
                "this machine computes other vectors than the one that made the weights: report it, and \
                 use no similarity until then",
            );
        }
        None => {
            let detail = format_args!(
                "{id}, self-test {found:.4}; the file does not state what it should be"
            );
            report.add(check, Finding::Warn, detail).remedy =
                Some("train it again with this version, which writes it into the file");
        }
    }
}
