//! What can stop a measurement.

use std::io;
use std::path::PathBuf;

use askonce_index::IndexError;
use askonce_models::ModelError;
use thiserror::Error;

/// Why a measurement could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// An index of ours refused what it was given.
    #[error("{contender} failed")]
    Index {
        /// Which one.
        contender: String,
        /// What it said.
        source: IndexError,
    },
    /// Another index refused what it was given.
    #[error("{contender} failed: {reason}")]
    Peer {
        /// Which one.
        contender: &'static str,
        /// What it said, or what is known.
        reason: String,
    },
    /// A prompt could not be embedded.
    #[error("a prompt could not be embedded")]
    Embed {
        /// What the model said.
        #[from]
        source: ModelError,
    },
    /// The folder of labelled prompts cannot be used.
    #[error("{path}: {reason}")]
    Data {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A setting is outside its range.
    #[error("{field} is {value}, allowed is {allowed}")]
    Setting {
        /// The setting at fault.
        field: &'static str,
        /// The value it had.
        value: String,
        /// The values it may have.
        allowed: &'static str,
    },
    /// A result could not be written.
    #[error("{path} could not be written")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A plot could not be drawn.
    #[error("{path} could not be drawn: {reason}")]
    Plot {
        /// The file.
        path: PathBuf,
        /// What the drawing library said.
        reason: String,
    },
}

pub(crate) type Result<T> = std::result::Result<T, MeasureError>;

/// The failure of an index of ours.
pub(crate) fn of(contender: &str) -> impl FnOnce(IndexError) -> MeasureError {
    move |source| MeasureError::Index {
        contender: contender.to_owned(),
        source,
    }
}
