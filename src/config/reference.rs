//! Settings that were written for the reference system, lexigram-cache.
//!
//! Its files have one section, `cache:`, and its variables begin with `LEX_CACHE__`. Both are read as if
//! their fields stood at the top of our own settings, where most have the same names and meanings. The
//! few that differ are put into our words by [`translate`], before anything else looks at them, so an
//! error in one is reported like any other. `cache:` and fields of the same name beside it are refused:
//! nobody should have to know which of the two counts.

use std::collections::BTreeMap;
use std::time::Duration;

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

/// Fields of its flat form of a backend, and the type that they belong to.
const OF_ONE_TYPE: [(&str, &str); 4] = [
    ("max_size", "memory"),
    ("cleanup_interval", "memory"),
    ("redis_", "redis"),
    ("memcached_", "memcached"),
];

/// Times that it writes as numbers of seconds.
const SECONDS_OF_BACKEND: [&str; 3] = ["default_ttl", "health_check_interval", "cleanup_interval"];
const SECONDS_OF_SERVICE: [&str; 3] = [
    "protection_lock_ttl",
    "protection_max_wait",
    "protection_retry_interval",
];

/// Port of memcached where only a host is named.
const MEMCACHED_PORT: &str = "11211";

/// Puts fields of the reference system into our words:
/// - `env` is `environment`;
/// - numbers are seconds, where it says so: `default_ttl: 300`;
/// - `memcached_servers`, or else `memcached_host` and `memcached_port`, are `servers`;
/// - an empty `key_prefix` of a store that others share is our default: keys without one could not be told
///   from those of others when a cache is cleared;
/// - a field of a backend that is `null` is one that nobody set: its one class of backends has the fields of
///   all types. One of another type with a value is refused.
pub(super) fn translate(tree: &mut Value, origins: &mut BTreeMap<String, String>) -> Result<()> {
    let Value::Object(fields) = tree else {
        return Ok(());
    };
    let mut at = Section {
        fields,
        path: String::new(),
        origins,
    };
    at.rename("env", "environment")?;
    at.seconds(&["default_ttl"])?;
    if let Some(Value::Object(fields)) = at.fields.get_mut("service") {
        let mut service = Section {
            fields,
            path: "service.".to_owned(),
            origins: at.origins,
        };
        service.seconds(&SECONDS_OF_SERVICE)?;
    }
    let Some(Value::Array(backends)) = at.fields.get_mut("backends") else {
        return Ok(());
    };
    for (i, backend) in backends.iter_mut().enumerate() {
        let Value::Object(fields) = backend else {
            continue;
        };
        let mut section = Section {
            fields,
            path: format!("backends[{i}]."),
            origins: at.origins,
        };
        section.backend()?;
    }
    Ok(())
}

/// A section that is being put into our words.
struct Section<'a> {
    fields: &'a mut serde_json::Map<String, Value>,
    /// What its fields are fields of, with the dot.
    path: String,
    origins: &'a mut BTreeMap<String, String>,
}

impl Section<'_> {
    fn refused(&self, field: &str, message: &'static str) -> Error {
        let path = format!("{}{field}", self.path);
        let error = Error::new(ErrorKind::Config, message).with("field", &path);
        match self.origins.get(&path) {
            Some(origin) => error.with("set in", origin),
            None => error,
        }
    }

    fn rename(&mut self, theirs: &str, ours: &'static str) -> Result<()> {
        let Some(value) = self.fields.remove(theirs).filter(|value| !value.is_null()) else {
            return Ok(());
        };
        if self.fields.get(ours).is_some_and(|other| *other != value) {
            let error = self.refused(theirs, "a setting is given twice");
            return Err(error.with("other", format!("{}{ours}", self.path)));
        }
        self.inherit(theirs, ours);
        self.fields.insert(ours.to_owned(), value);
        Ok(())
    }

    /// What was set as `theirs` is now `ours`, and came from the same place.
    fn inherit(&mut self, theirs: &str, ours: &str) {
        if let Some(origin) = self.origins.get(&format!("{}{theirs}", self.path)) {
            let origin = origin.clone();
            self.origins.insert(format!("{}{ours}", self.path), origin);
        }
    }

    /// Numbers, also in text, become times as we write them.
    fn seconds(&mut self, names: &[&str]) -> Result<()> {
        for name in names {
            let number = match self.fields.get(*name) {
                Some(Value::Number(number)) => number.as_f64(),
                Some(Value::String(text)) => text.trim().replace('_', "").parse().ok(),
                _ => None,
            };
            let Some(number) = number else { continue };
            let Ok(time) = Duration::try_from_secs_f64(number) else {
                let error = self.refused(name, "a setting is out of range");
                return Err(error
                    .with("value", number)
                    .with("allowed", "seconds, or a time such as 5m; null for none"));
            };
            let text = match time.subsec_nanos() {
                0 => format!("{}s", time.as_secs()),
                _ => format!("{}us", time.as_micros()),
            };
            self.fields.insert((*name).to_owned(), Value::from(text));
        }
        Ok(())
    }

    fn backend(&mut self) -> Result<()> {
        self.seconds(&SECONDS_OF_BACKEND)?;
        let Some(Value::String(type_name)) = self.fields.get("type") else {
            return Ok(());
        };
        let type_name = type_name.clone();
        if !["memory", "redis", "memcached"].contains(&&*type_name) {
            return Ok(());
        }
        // There `null` is what a field has that nobody set.
        self.fields.retain(|_, value| !value.is_null());
        let foreign = |field: &str| {
            let mut known = OF_ONE_TYPE.iter();
            known.any(|(start, of)| {
                let its = field == *start || (start.ends_with('_') && field.starts_with(start));
                its && *of != type_name
            })
        };
        let foreign = self.fields.keys().find(|name| foreign(name)).cloned();
        if let Some(name) = foreign {
            let message = "a setting belongs to another type of backend";
            return Err(self
                .refused(&name, message)
                .with("type", type_name)
                .with("remedy", "leave it out"));
        }
        let shared = type_name != "memory";
        if shared
            && self
                .fields
                .get("key_prefix")
                .is_some_and(|prefix| prefix == "")
        {
            self.fields.remove("key_prefix");
        }
        if type_name == "memcached" {
            self.memcached()?;
        }
        Ok(())
    }

    fn memcached(&mut self) -> Result<()> {
        let servers = self.fields.remove("memcached_servers");
        let host = self.fields.remove("memcached_host");
        let port = self.fields.remove("memcached_port");
        let (theirs, servers) = match (servers, host, port) {
            (None, None, None) => return Ok(()),
            // The list wins over the parts, as there.
            (Some(Value::String(text)), _, _) => {
                let list = serde_json::from_str(&text).unwrap_or_else(|_| {
                    let items = text.split(',').map(str::trim);
                    items
                        .filter(|item| !item.is_empty())
                        .map(Value::from)
                        .collect()
                });
                ("memcached_servers", list)
            }
            (Some(list), _, _) => ("memcached_servers", list),
            (None, host, port) => {
                let theirs = match host {
                    Some(_) => "memcached_host",
                    None => "memcached_port",
                };
                let text = |value: Option<Value>, default: &str| match value {
                    Some(Value::String(text)) => text,
                    Some(other) => other.to_string(),
                    None => default.to_owned(),
                };
                let (host, port) = (text(host, "127.0.0.1"), text(port, MEMCACHED_PORT));
                let host = match host.contains(':') && !host.starts_with('[') {
                    true => format!("[{host}]"),
                    false => host,
                };
                (theirs, Value::from(vec![format!("{host}:{port}")]))
            }
        };
        if self.fields.contains_key("servers") {
            let error = self.refused(theirs, "a setting is given twice");
            return Err(error.with("other", format!("{}servers", self.path)));
        }
        self.inherit(theirs, "servers");
        self.fields.insert("servers".to_owned(), servers);
        Ok(())
    }
}
