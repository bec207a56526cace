//! Settings of the vector index.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use askonce_index::IndexError;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// What finds near vectors.
///
/// A setting of an engine that `type` does not use is refused: it would do nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct IndexConfig {
    /// `auto` (default), `flat`, `binary`, `hnsw_rs` (needs the feature `hnsw`; the name `hnsw` is
    /// read too) or `faiss` (needs the feature `faiss`).
    #[serde(rename = "type")]
    pub kind: IndexType,
    /// Rows of one partition up to which `auto` stays flat, 1 or more. Default: what the index crate
    /// measured.
    pub flat_limit: Option<usize>,
    /// How fine `auto` and `binary` keep the rows of a large partition: `int8` (default) or `int16`, with
    /// twice the bytes and a tenth of the error in similarities.
    pub precision: Option<Precision>,
    /// Cells of a large partition that a search of `auto`, `binary` and `faiss` looks at, 1 or more. Default:
    /// tuned by the index itself, 16 for `faiss`.
    pub probes: Option<usize>,
    /// Share of true neighbours that `auto` and `binary` tune themselves to find, 0.5 and more, below 1.
    /// Default: 0.995. More is slower.
    pub recall: Option<f32>,
    /// Candidates that a graph search of `hnsw_rs` and `faiss` keeps, 1 to 10 000: more finds more and takes
    /// longer. Default: 64.
    pub ef_search: Option<usize>,
    /// The structure that `faiss` builds, as FAISS writes it: `Flat`, `IVF256,Flat`. Default: `HNSW32,SQ8`.
    pub factory: Option<String>,
    /// One of this many lookups in an approximate index is kept for a while, to be compared with an exact
    /// search in the background. Default: 256. 0: none. What is kept is a vector, in memory only.
    pub audit_every: u32,
    /// A folder of this process alone where the index outlives it: vectors, keys, scopes, models and tags,
    /// neither prompts nor answers. Default: `null`, in memory only. Of use where a backend outlives the
    /// process too.
    pub path: Option<PathBuf>,
    /// How often the index is written to `path` as a whole; what changes in between is in a journal there.
    /// Default: `10m`; at least `10s`.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::Time"))]
    pub snapshot_every: Duration,
}

impl Default for IndexConfig {
    fn default() -> Self {
        Self {
            kind: IndexType::Auto,
            flat_limit: None,
            precision: None,
            probes: None,
            recall: None,
            ef_search: None,
            factory: None,
            audit_every: 256,
            path: None,
            snapshot_every: Duration::from_secs(600),
        }
    }
}

/// The structure of an index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum IndexType {
    /// Flat while small, binary when large.
    #[default]
    Auto,
    /// Always an exact scan.
    Flat,
    /// Codes of one bit a component in cells, and rows to score the best of them.
    Binary,
    /// A graph of the crate `hnsw_rs`.
    #[serde(alias = "hnsw")]
    HnswRs,
    /// A structure of the library FAISS.
    Faiss,
}

impl IndexType {
    /// The name in a configuration file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Flat => "flat",
            Self::Binary => "binary",
            Self::HnswRs => "hnsw_rs",
            Self::Faiss => "faiss",
        }
    }
}

/// How fine the rows of a binary index are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// One byte a component.
    #[default]
    Int8,
    /// Two bytes a component.
    Int16,
}

impl IndexConfig {
    /// Checks every field; `path` is where the section stands in the file.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the field, its value and what is allowed.
    pub(crate) fn validate(&self, path: &str) -> Result<()> {
        use IndexType::{Auto, Binary, Faiss, HnswRs};
        let at = |field: &str| format!("{path}.{field}");
        let range =
            |field: &str, value: Option<&dyn Display>, allowed: &str, holds: bool| match value {
                Some(value) if !holds => {
                    Err(Error::new(ErrorKind::Config, "a setting is out of range")
                        .with("field", at(field))
                        .with("value", value)
                        .with("allowed", allowed))
                }
                _ => Ok(()),
            };
        fn shown<T: Display>(value: &Option<T>) -> Option<&dyn Display> {
            value.as_ref().map(|value| value as &dyn Display)
        }
        let within = |value: Option<usize>, most: usize| {
            value.is_none_or(|value| (1..=most).contains(&value))
        };
        range(
            "flat_limit",
            shown(&self.flat_limit),
            "1 or more",
            within(self.flat_limit, usize::MAX),
        )?;
        range(
            "probes",
            shown(&self.probes),
            "1 or more",
            within(self.probes, usize::MAX),
        )?;
        let recall = self
            .recall
            .is_none_or(|recall| (0.5..1.0).contains(&recall));
        range(
            "recall",
            shown(&self.recall),
            "0.5 and more, below 1",
            recall,
        )?;
        range(
            "ef_search",
            shown(&self.ef_search),
            "1 to 10000",
            within(self.ef_search, 10_000),
        )?;
        if self.snapshot_every < Self::LEAST_INTERVAL {
            let value = format!("{:?}", self.snapshot_every);
            range("snapshot_every", Some(&value), "10s or more", false)?;
        }
        let idle = |field: &str, is_set: bool, users: &[IndexType]| {
            if !is_set || users.contains(&self.kind) {
                return Ok(());
            }
            let names: Vec<_> = users.iter().map(|user| user.as_str()).collect();
            Err(
                Error::new(ErrorKind::Config, "this type of index has no such setting")
                    .with("field", at(field))
                    .with("type", self.kind.as_str())
                    .with(
                        "remedy",
                        format!("leave it out, or use type {}", names.join(" or ")),
                    ),
            )
        };
        idle("flat_limit", self.flat_limit.is_some(), &[Auto])?;
        idle("precision", self.precision.is_some(), &[Auto, Binary])?;
        idle("probes", self.probes.is_some(), &[Auto, Binary, Faiss])?;
        idle("recall", self.recall.is_some(), &[Auto, Binary])?;
        idle("ef_search", self.ef_search.is_some(), &[HnswRs, Faiss])?;
        idle("factory", self.factory.is_some(), &[Faiss])?;
        // What is left is whether the engine takes them: the notation of FAISS is its own.
        super::engine::Engine::new(Self::ANY_DIMENSION, self)
            .open()
            .map(drop)
            .map_err(|error| match error {
                IndexError::InvalidConfig {
                    field,
                    value,
                    allowed,
                } => {
                    let own = field.rsplit('.').next().unwrap_or(field);
                    Error::new(ErrorKind::Config, "a setting is out of range")
                        .with("field", at(own))
                        .with("value", value)
                        .with("allowed", allowed)
                }
                error => Error::new(ErrorKind::Config, error.to_string())
                    .with("field", at("type"))
                    .with("value", self.kind.as_str()),
            })
    }

    /// Settings are checked by opening an index, whose dimension does not matter.
    const ANY_DIMENSION: usize = 64;

    /// Least time between two snapshots.
    const LEAST_INTERVAL: Duration = Duration::from_secs(10);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(fields: &str) -> Result<(), String> {
        let config: IndexConfig = serde_json::from_str(fields).unwrap();
        config.validate("semantic.index").map_err(|error| {
            assert_eq!(error.kind(), ErrorKind::Config);
            error.to_string()
        })
    }

    #[test]
    fn every_type_that_is_in_the_build_opens_and_others_name_their_feature() {
        for kind in ["auto", "flat", "binary"] {
            checked(&format!(r#"{{"type": "{kind}"}}"#)).unwrap();
        }
        for (kind, is_built) in [
            ("hnsw_rs", cfg!(feature = "hnsw")),
            ("faiss", cfg!(feature = "faiss")),
        ] {
            let opened = checked(&format!(r#"{{"type": "{kind}"}}"#));
            assert_eq!(opened.is_ok(), is_built, "{opened:?}");
            let error = opened
                .err()
                .unwrap_or_else(|| "semantic.index.type feature".to_owned());
            assert!(error.contains("semantic.index.type"), "{error}");
        }
        let old: IndexConfig = serde_json::from_str(r#"{"type": "hnsw"}"#).unwrap();
        assert_eq!(old.kind, IndexType::HnswRs);
        assert_eq!(serde_json::to_value(&old).unwrap()["type"], "hnsw_rs");
    }

    #[cfg(feature = "faiss")]
    #[test]
    fn a_factory_that_faiss_would_refuse_is_refused_at_once() {
        let of = |factory: &str| format!(r#"{{"type": "faiss", "factory": "{factory}"}}"#);
        checked(&of("HNSW32,Flat")).unwrap();
        let error = checked(&of("Nonsense7")).unwrap_err();
        assert!(error.contains("field: semantic.index.factory"), "{error}");
        assert!(error.contains("value: Nonsense7"), "{error}");
    }

    #[test]
    fn a_field_out_of_range_or_of_another_type_is_named_with_its_value() {
        for (fields, field, value) in [
            (r#"{"flat_limit": 0}"#, "flat_limit", "value: 0"),
            (r#"{"type": "binary", "probes": 0}"#, "probes", "value: 0"),
            (r#"{"recall": 1.0}"#, "recall", "value: 1"),
            (
                r#"{"type": "hnsw_rs", "ef_search": 10001}"#,
                "ef_search",
                "value: 10001",
            ),
            (r#"{"snapshot_every": "1s"}"#, "snapshot_every", "value: 1s"),
            (r#"{"ef_search": 64}"#, "ef_search", "type: auto"),
            (
                r#"{"type": "flat", "flat_limit": 9}"#,
                "flat_limit",
                "type: flat",
            ),
            (
                r#"{"type": "hnsw_rs", "precision": "int16"}"#,
                "precision",
                "type: hnsw_rs",
            ),
            (
                r#"{"type": "binary", "factory": "Flat"}"#,
                "factory",
                "type: binary",
            ),
        ] {
            let error = checked(fields).unwrap_err();
            let named = error.contains(&format!("field: semantic.index.{field}"));
            assert!(named && error.contains(value), "{fields}: {error}");
        }
    }
}
