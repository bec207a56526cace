//! Settings of the memcached backend. Compiled without the feature too, so that a configuration that
//! asks for memcached is told what is missing.

use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// Settings of the memcached backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct MemcachedConfig {
    /// Name in metrics, reports and `Cache-Status`. Default: `memcached`.
    pub name: String,
    /// The servers, each as `host:port`. Processes that share a cache must write them alike; their
    /// order does not matter. Default: `127.0.0.1:11211`.
    pub servers: Vec<String>,
    /// What the keys of this cache begin with, 1 to 100 visible ASCII characters, without `::` and not
    /// ending in `:`. Caches with different prefixes do not see each other. Default: `askonce`.
    pub key_prefix: String,
    /// How long one operation may take, connecting included. Default: `500ms`.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::Time"))]
    pub timeout: Duration,
    /// Largest value taken, 1 KiB to 512 MiB. Above 1 MiB less 1 KiB, the servers must be started with
    /// a larger item size (`-I`). Default: 1 MiB less 1 KiB.
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::Bytes"))]
    pub max_value_bytes: ByteSize,
    /// Whether the network to the servers is private, and encrypted by other means, such as a VPN or a
    /// service mesh. memcached knows neither passwords nor encryption: production takes servers on other
    /// machines only with this. Default: `false`.
    pub trusted_network: bool,
}

impl Default for MemcachedConfig {
    fn default() -> Self {
        Self {
            name: "memcached".to_owned(),
            servers: vec!["127.0.0.1:11211".to_owned()],
            key_prefix: "askonce".to_owned(),
            timeout: Duration::from_millis(500),
            // The server's limit covers its own header, our header and the key.
            max_value_bytes: ByteSize(ByteSize::mib(1).as_u64() - ByteSize::kib(1).as_u64()),
            trusted_network: false,
        }
    }
}

impl MemcachedConfig {
    const VALUE_BYTES: (ByteSize, ByteSize) = (ByteSize::kib(1), ByteSize::mib(512));
    const LONGEST_PREFIX: usize = 100;

    /// Checks every field; `path` is where this section stands in the file.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the field, its value and what is allowed.
    pub fn validate(&self, path: &str) -> Result<()> {
        if !cfg!(feature = "memcached") {
            return Err(self.not_built(path));
        }
        if self.name.is_empty() {
            return Err(Error::new(ErrorKind::Config, "a backend needs a name")
                .with("field", format!("{path}.name")));
        }
        if self.servers.is_empty() {
            return Err(refused(
                "memcached needs at least one server",
                format!("{path}.servers"),
                "[]",
                "a list of host:port",
            ));
        }
        for (i, server) in self.servers.iter().enumerate() {
            let field = format!("{path}.servers[{i}]");
            if !is_address(server) {
                let allowed = "host:port with a port from 1 to 65535, such as 127.0.0.1:11211";
                return Err(refused(
                    "this is not the address of a server",
                    field,
                    server,
                    allowed,
                ));
            }
            if self.servers[..i].contains(server) {
                let allowed = "each server once";
                return Err(refused("a server is listed twice", field, server, allowed));
            }
        }
        let prefix = &self.key_prefix;
        if prefix.len() > Self::LONGEST_PREFIX || !takes_prefix(prefix) {
            return Err(refused(
                "memcached cannot take keys with this prefix",
                format!("{path}.key_prefix"),
                format!("{prefix:?}"),
                "1 to 100 visible ASCII characters, no spaces, no ::, no : at the end",
            ));
        }
        if self.timeout.is_zero() {
            return Err(refused(
                "a timeout cannot be zero",
                format!("{path}.timeout"),
                "0s",
                "more than 0, such as 500ms",
            ));
        }
        let (least, most) = Self::VALUE_BYTES;
        if !(least..=most).contains(&self.max_value_bytes) {
            return Err(refused(
                "a setting is out of range",
                format!("{path}.max_value_bytes"),
                self.max_value_bytes,
                format!("{least} to {most}"),
            ));
        }
        Ok(())
    }

    /// What to say where this backend was not compiled in; `path` is where this section stands.
    pub(crate) fn not_built(&self, path: &str) -> Error {
        Error::new(ErrorKind::Config, "this build has no memcached backend")
            .with("field", format!("{path}.type"))
            .with("value", "memcached")
            .with(
                "remedy",
                "build with the feature memcached, or use type memory",
            )
    }
}

fn refused(
    message: &'static str,
    field: String,
    value: impl fmt::Display,
    allowed: impl fmt::Display,
) -> Error {
    Error::new(ErrorKind::Config, message)
        .with("field", field)
        .with("value", value)
        .with("allowed", allowed)
}

#[cfg(feature = "memcached")]
fn takes_prefix(prefix: &str) -> bool {
    crate::backend::keyspace::Keyspace::takes_prefix(prefix)
}

/// Not asked: without the feature no prefix will do.
#[cfg(not(feature = "memcached"))]
fn takes_prefix(_: &str) -> bool {
    false
}

fn is_address(server: &str) -> bool {
    server.rsplit_once(':').is_some_and(|(host, port)| {
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        !host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_graphic())
            // An address of IPv6 stands in brackets; what is left must not look like a scheme.
            && (bare.is_some() || !host.contains([':', '/']))
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(not(feature = "memcached"))]
    #[test]
    fn without_the_feature_the_remedy_is_named() {
        let error = MemcachedConfig::default()
            .validate("backends[1]")
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let shown = error.to_string();
        assert!(shown.contains("backends[1].type"), "{shown}");
        assert!(shown.contains("feature memcached"), "{shown}");
    }

    #[cfg(feature = "memcached")]
    #[test]
    fn every_field_is_refused_by_name_with_its_value_and_what_is_allowed() {
        fn with(change: impl FnOnce(&mut MemcachedConfig)) -> MemcachedConfig {
            let mut config = MemcachedConfig::default();
            change(&mut config);
            config
        }
        let servers = |servers: &[&str]| {
            with(|config| config.servers = servers.iter().map(ToString::to_string).collect())
        };
        let prefix = |prefix: &str| with(|config| config.key_prefix = prefix.to_owned());
        MemcachedConfig::default().validate("b").unwrap();
        servers(&["[::1]:11211", "cache-1.local:1"])
            .validate("b")
            .unwrap();
        for (config, field, value) in [
            (with(|config| config.name.clear()), "b.name", ""),
            (servers(&[]), "b.servers", "[]"),
            (servers(&["localhost"]), "b.servers[0]", "localhost"),
            (servers(&["h:1", "h:0"]), "b.servers[1]", "h:0"),
            (
                servers(&["memcache://h:1"]),
                "b.servers[0]",
                "memcache://h:1",
            ),
            (servers(&["::1:11211"]), "b.servers[0]", "::1:11211"),
            (servers(&["h:1", "h:1"]), "b.servers[1]", "h:1"),
            (prefix(""), "b.key_prefix", "\"\""),
            (prefix("a b"), "b.key_prefix", "\"a b\""),
            (prefix("a::b"), "b.key_prefix", "\"a::b\""),
            (prefix("a:"), "b.key_prefix", "\"a:\""),
            (prefix("a\r\nflush_all"), "b.key_prefix", "flush_all"),
            (prefix(&"x".repeat(101)), "b.key_prefix", "xxx"),
            (
                with(|config| config.timeout = Duration::ZERO),
                "b.timeout",
                "0s",
            ),
            (
                with(|config| config.max_value_bytes = ByteSize(10)),
                "b.max_value_bytes",
                "10 B",
            ),
            (
                with(|config| config.max_value_bytes = ByteSize::gib(2)),
                "b.max_value_bytes",
                "2.0 GiB",
            ),
        ] {
            let error = config.validate("b").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert_eq!(error.context()[0], ("field", field.to_owned()));
            let shown = error.to_string();
            assert!(shown.contains(value), "{shown}");
            assert!(field == "b.name" || shown.contains("allowed"), "{shown}");
        }
    }
}
