//! Settings of a codec.

use serde::{Deserialize, Serialize};

use super::Serializer;
use crate::error::Result;

/// How values are stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CodecConfig {
    /// The format of values: `msgpack` (default), `json` or `postcard`. Stored values of another
    /// format are still read.
    pub serializer: Serializer,
}

impl CodecConfig {
    /// Checks every field; `path` is where this section stands in the file.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) naming the field and what is allowed.
    pub fn validate(&self, _path: &str) -> Result<()> {
        Ok(())
    }
}
