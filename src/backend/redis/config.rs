//! Settings of the Redis backend. Known to every build, so that a build without the backend can say
//! what is missing.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize, Serializer};

use crate::error::{Error, ErrorKind, Result};

/// Settings of the Redis backend. Needs the feature `redis`. Valkey speaks the same protocol.
///
/// The server is named by [`redis_url`](Self::redis_url) or, where that is empty, by the parts
/// `redis_host` to `redis_ssl`, which need no escaping. With [`sentinels`](Self::sentinels) the server
/// is whichever they call the master; with [`cluster`](Self::cluster) or
/// [`cluster_nodes`](Self::cluster_nodes) it is a Redis Cluster. User, password and TLS are those of the
/// address or the parts in every case.
///
/// `Debug` and `Serialize` leave users and passwords out, so serializing a configuration shows it and
/// does not copy it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct RedisConfig {
    /// Name in metrics, reports and `Cache-Status`. Default: `redis`.
    pub name: String,
    /// Where the server is: `redis://user:password@host:6379/0`, `rediss://` for TLS, `unix:///path`
    /// for a socket. Default: empty, which means the parts below.
    #[serde(serialize_with = "without_secrets")]
    pub redis_url: String,
    /// Host name or address of the server. Default: `127.0.0.1`.
    pub redis_host: String,
    /// Port of the server. Default: 6379.
    pub redis_port: u16,
    /// Number of the database; a cluster has 0 alone. Default: 0.
    pub redis_db: u32,
    /// User of the access control list. Default: none, the server's default user.
    #[serde(serialize_with = "hidden")]
    pub redis_username: Option<String>,
    /// Password, as it is. Default: none.
    #[serde(serialize_with = "hidden")]
    pub redis_password: Option<String>,
    /// Whether to speak TLS. Default: `false`.
    pub redis_ssl: bool,
    /// File of the authorities that sign the servers' certificates, in PEM; no other is then believed.
    /// Needs TLS. Default: none, the authorities that the system trusts. Set it where the servers'
    /// certificates are signed by an authority of your own. A certificate must hold the name or address
    /// by which its server is reached; in a cluster and behind Sentinels that is what the servers call
    /// each other. Read when the backend is built.
    pub redis_ca_file: Option<PathBuf>,
    /// File of the certificate that is shown to the servers, in PEM, then those that lead to its
    /// authority. Needs TLS and [`redis_client_key_file`](Self::redis_client_key_file). Default: none.
    /// Set it where servers ask for one (`tls-auth-clients`). Read when the backend is built.
    pub redis_client_cert_file: Option<PathBuf>,
    /// File of that certificate's private key, in PEM and not encrypted. Default: none. Read when the
    /// backend is built.
    pub redis_client_key_file: Option<PathBuf>,
    /// Connections to each server, 1 to 64, used in turn. One carries any number of operations at the
    /// same time; more help only where one core cannot keep up with one connection. Default: 1.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 64)))]
    pub redis_pool_size: usize,
    /// Addresses of the Sentinels, `host:port` each. Default: none.
    #[serde(serialize_with = "plain_nodes")]
    pub sentinels: Vec<String>,
    /// What the Sentinels call the master. Default: `mymaster`.
    pub sentinel_master: String,
    /// User of the Sentinels themselves. Default: none.
    #[serde(serialize_with = "hidden")]
    pub sentinel_username: Option<String>,
    /// Password of the Sentinels themselves. Default: none.
    #[serde(serialize_with = "hidden")]
    pub sentinel_password: Option<String>,
    /// Whether the server is a node of a Redis Cluster, which is then asked for the others.
    /// Default: `false`.
    pub cluster: bool,
    /// Nodes of a Redis Cluster to ask for the others, `host:port` each, in place of the one address;
    /// name several, for the time when one is down. Default: none.
    #[serde(serialize_with = "plain_nodes")]
    pub cluster_nodes: Vec<String>,
    /// What every key starts with, followed by two colons. Caches that share a server share answers
    /// when their prefixes are the same, and nothing when they are not. Default: `askonce`.
    pub key_prefix: String,
    /// How long one operation may take, connecting included, 1ms to 30s. Default: `500ms`.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::Time"))]
    pub timeout: Duration,
    /// Largest value stored, 1KiB to 256MiB. Default: 16 MiB.
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::Bytes"))]
    pub max_value_bytes: ByteSize,
    /// Whether the network to the servers is private, and encrypted by other means than theirs, such as a
    /// VPN or a service mesh. Production then takes plain text to other machines; it asks for a password
    /// all the same. Default: `false`.
    pub trusted_network: bool,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            name: "redis".to_owned(),
            redis_url: String::new(),
            redis_host: "127.0.0.1".to_owned(),
            redis_port: 6379,
            redis_db: 0,
            redis_username: None,
            redis_password: None,
            redis_ssl: false,
            redis_ca_file: None,
            redis_client_cert_file: None,
            redis_client_key_file: None,
            redis_pool_size: 1,
            sentinels: Vec::new(),
            sentinel_master: "mymaster".to_owned(),
            sentinel_username: None,
            sentinel_password: None,
            cluster: false,
            cluster_nodes: Vec::new(),
            key_prefix: "askonce".to_owned(),
            timeout: Duration::from_millis(500),
            max_value_bytes: ByteSize::mib(16),
            trusted_network: false,
        }
    }
}

impl RedisConfig {
    /// Checks every field; `path` is where this section stands in the file. Certificates and keys are
    /// read when the backend is built.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the field, its value and what is allowed; in a build without the
    /// backend, how to get one that has it.
    pub fn validate(&self, path: &str) -> Result<()> {
        #[cfg(feature = "redis")]
        return self.check(path);
        #[cfg(not(feature = "redis"))]
        Err(
            Error::new(ErrorKind::Config, "this build has no Redis backend")
                .with("field", format!("{path}.type"))
                .with("remedy", "build with the feature redis, or use type memory"),
        )
    }

    /// The address that is used: the one that was given, or one made of the parts. Holds the password.
    #[cfg(feature = "redis")]
    pub(super) fn url(&self) -> String {
        if !self.redis_url.is_empty() {
            return self.redis_url.clone();
        }
        let scheme = if self.redis_ssl { "rediss" } else { "redis" };
        let escaped = |text: &Option<String>| text.as_deref().map(escape).unwrap_or_default();
        let secrets = match (&self.redis_username, &self.redis_password) {
            (None, None) => String::new(),
            (user, password) => format!("{}:{}@", escaped(user), escaped(password)),
        };
        // An address of version 6 has colons of its own.
        let host = match self.redis_host.contains(':') && !self.redis_host.starts_with('[') {
            true => format!("[{}]", self.redis_host),
            false => self.redis_host.clone(),
        };
        let (port, database) = (self.redis_port, self.redis_db);
        format!("{scheme}://{secrets}{host}:{port}/{database}")
    }

    /// Whether the server is a cluster.
    #[cfg(feature = "redis")]
    pub(super) fn is_cluster(&self) -> bool {
        self.cluster || !self.cluster_nodes.is_empty()
    }

    /// What production looks at; `None` when the address cannot be read.
    #[cfg(feature = "redis")]
    pub(crate) fn exposure(&self) -> Option<Exposure> {
        use redis::{ConnectionAddr, IntoConnectionInfo};

        let info = self.url().into_connection_info().ok()?;
        let (host, encrypted) = match info.addr() {
            ConnectionAddr::Tcp(host, _) => (host.clone(), false),
            ConnectionAddr::TcpTls { host, insecure, .. } => (host.clone(), !insecure),
            ConnectionAddr::Unix(path) => (path.display().to_string(), false),
            _ => (String::new(), false),
        };
        let listed = [
            ("sentinels", &self.sentinels),
            ("cluster_nodes", &self.cluster_nodes),
        ];
        let mut hosts: Vec<(&'static str, String)> = Vec::new();
        for (field, nodes) in listed {
            let read = nodes.iter().filter_map(|node| host_and_port(node));
            hosts.extend(read.map(|(host, _)| (field, host)));
        }
        let given_whole = !self.redis_url.is_empty();
        if hosts.is_empty() {
            hosts.push((
                if given_whole {
                    "redis_url"
                } else {
                    "redis_host"
                },
                host,
            ));
        }
        let password = info.redis_settings().password().unwrap_or_default();
        let mut passwords = vec![(
            if given_whole {
                "redis_url"
            } else {
                "redis_password"
            },
            password.to_owned(),
        )];
        if !self.sentinels.is_empty() {
            let password = self.sentinel_password.clone().unwrap_or_default();
            passwords.push(("sentinel_password", password));
        }
        Some(Exposure {
            hosts,
            passwords,
            encrypted,
        })
    }

    /// Where the server is, without user, password and parameters.
    #[must_use]
    pub fn shown_url(&self) -> String {
        if self.redis_url.is_empty() {
            let scheme = if self.redis_ssl { "rediss" } else { "redis" };
            let secret = self.redis_username.is_some() || self.redis_password.is_some();
            let secrets = if secret { "***@" } else { "" };
            let (host, port, database) = (&self.redis_host, self.redis_port, self.redis_db);
            return format!("{scheme}://{secrets}{host}:{port}/{database}");
        }
        shown(&self.redis_url)
    }
}

/// Where servers are and how they are reached, each with the field that says so.
#[cfg(feature = "redis")]
pub(crate) struct Exposure {
    /// Hosts, or the path of a socket.
    pub(crate) hosts: Vec<(&'static str, String)>,
    /// Passwords, empty where there is none.
    pub(crate) passwords: Vec<(&'static str, String)>,
    /// Whether by TLS that checks with whom it speaks.
    pub(crate) encrypted: bool,
}

#[cfg(feature = "redis")]
impl RedisConfig {
    const LONGEST_PREFIX: usize = 64;
    const LONGEST_TIMEOUT: Duration = Duration::from_secs(30);
    const VALUE_BYTES: std::ops::RangeInclusive<ByteSize> = ByteSize::kib(1)..=ByteSize::mib(256);
    const POOL_SIZE: std::ops::RangeInclusive<usize> = 1..=64;

    fn check(&self, path: &str) -> Result<()> {
        let refuse = |field: &str, what: &'static str| {
            Error::new(ErrorKind::Config, what).with("field", format!("{path}.{field}"))
        };
        if self.name.is_empty() {
            return Err(refuse("name", "a backend needs a name"));
        }
        self.check_servers(path)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
        if self.key_prefix.len() > Self::LONGEST_PREFIX
            || !self.key_prefix.chars().all(plain)
            || !crate::backend::keyspace::Keyspace::takes_prefix(&self.key_prefix)
        {
            return Err(refuse("key_prefix", "the prefix of keys cannot be used")
                .with("value", self.key_prefix.escape_debug())
                .with(
                    "allowed",
                    "1 to 64 letters, digits, - _ . :, no two colons in a row, none at the end",
                ));
        }
        if self.timeout.as_millis() == 0 || self.timeout > Self::LONGEST_TIMEOUT {
            return Err(refuse("timeout", "a setting is out of range")
                .with("value", format!("{:?}", self.timeout))
                .with("allowed", "1ms to 30s"));
        }
        if !Self::VALUE_BYTES.contains(&self.max_value_bytes) {
            return Err(refuse("max_value_bytes", "a setting is out of range")
                .with("value", self.max_value_bytes)
                .with("allowed", "1KiB to 256MiB"));
        }
        if !Self::POOL_SIZE.contains(&self.redis_pool_size) {
            return Err(refuse("redis_pool_size", "a setting is out of range")
                .with("value", self.redis_pool_size)
                .with("allowed", "1 to 64"));
        }
        Ok(())
    }

    fn check_servers(&self, path: &str) -> Result<()> {
        use redis::{ConnectionAddr, IntoConnectionInfo};

        let refuse = |field: &str, what: &'static str| {
            Error::new(ErrorKind::Config, what).with("field", format!("{path}.{field}"))
        };
        // What the parser says is left out: it may quote the address.
        let info = self.url().into_connection_info().map_err(|_| {
            let field = match self.redis_url.is_empty() {
                true => "redis_host",
                false => "redis_url",
            };
            refuse(field, "the address of Redis cannot be used")
                .with("value", self.shown_url())
                .with(
                    "allowed",
                    "redis://[user:password@]host[:port][/database], rediss:// for TLS, or unix:///path",
                )
        })?;
        self.check_tls(
            matches!(info.addr(), ConnectionAddr::TcpTls { .. }),
            &refuse,
        )?;
        let several = !self.sentinels.is_empty() || self.is_cluster();
        if several && matches!(info.addr(), ConnectionAddr::Unix(_)) {
            let what = "Sentinels and clusters are not reached through a socket";
            return Err(refuse("redis_url", what).with("value", self.shown_url()));
        }
        if !self.sentinels.is_empty() && self.is_cluster() {
            let what = "a server is either watched by Sentinels or a node of a cluster";
            return Err(refuse("sentinels", what).with(
                "remedy",
                "leave out sentinels, or cluster and cluster_nodes",
            ));
        }
        if !self.sentinels.is_empty() && self.sentinel_master.is_empty() {
            return Err(refuse("sentinel_master", "the master needs a name"));
        }
        if self.is_cluster() && info.redis_settings().db() != 0 {
            return Err(refuse("redis_db", "a cluster has no databases")
                .with("value", info.redis_settings().db())
                .with("allowed", "0"));
        }
        let lists = [
            ("sentinels", &self.sentinels),
            ("cluster_nodes", &self.cluster_nodes),
        ];
        for (field, nodes) in lists {
            for (at, node) in nodes.iter().enumerate() {
                if host_and_port(node).is_none() {
                    // Not quoted: it may be an address with a password.
                    let what = "the address of a server cannot be used";
                    return Err(refuse(&format!("{field}[{at}]"), what)
                        .with("allowed", "host:port, without user and password"));
                }
            }
        }
        Ok(())
    }

    /// Whether the files for TLS go together, and are of use.
    fn check_tls(&self, tls: bool, refuse: &impl Fn(&str, &'static str) -> Error) -> Result<()> {
        let files = [
            ("redis_ca_file", &self.redis_ca_file),
            ("redis_client_cert_file", &self.redis_client_cert_file),
            ("redis_client_key_file", &self.redis_client_key_file),
        ];
        if !tls && let Some((field, _)) = files.iter().find(|(_, file)| file.is_some()) {
            let what = "a file for TLS is named, and the connection is not encrypted";
            return Err(refuse(field, what).with(
                "remedy",
                "use rediss:// in redis_url, or redis_ssl: true without redis_url",
            ));
        }
        let missing = match (&self.redis_client_cert_file, &self.redis_client_key_file) {
            (Some(_), None) => "redis_client_key_file",
            (None, Some(_)) => "redis_client_cert_file",
            _ => return Ok(()),
        };
        let what = "a client's certificate and its key go together";
        Err(refuse(missing, what).with("remedy", "set both files, or neither"))
    }
}

/// The two parts of `host:port`; a host of version 6 stands in brackets, which are taken off.
pub(super) fn host_and_port(node: &str) -> Option<(String, u16)> {
    let (host, port) = node.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let colons_allowed = bare.is_some();
    let host = bare.unwrap_or(host);
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | '@' | '[' | ']' | '?' | '#');
    (!host.is_empty() && host.chars().all(plain) && (colons_allowed || !host.contains(':')))
        .then(|| (host.to_owned(), port))
}

/// `text` as it stands in an address, where some characters mean something else.
#[cfg(feature = "redis")]
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// An address without user, password and parameters.
fn shown(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        // No address at all: it may be a password that was put into the wrong field.
        return "(hidden)".to_owned();
    };
    // A socket's password is a parameter; a password may itself hold an @ that was not escaped.
    let (place, secrets) = match rest.rsplit_once('@') {
        Some((_, place)) => (place, "***@"),
        None => (rest, ""),
    };
    let place = place.split('?').next().unwrap_or_default();
    format!("{scheme}://{secrets}{place}")
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("name", &self.name)
            .field("redis_url", &self.shown_url())
            .field("redis_ca_file", &self.redis_ca_file)
            .field("redis_client_cert_file", &self.redis_client_cert_file)
            .field("redis_client_key_file", &self.redis_client_key_file)
            .field("redis_pool_size", &self.redis_pool_size)
            .field("sentinels", &self.sentinels.len())
            .field("sentinel_master", &self.sentinel_master)
            .field("cluster", &self.cluster)
            .field("cluster_nodes", &self.cluster_nodes.len())
            .field("key_prefix", &self.key_prefix)
            .field("timeout", &self.timeout)
            .field("max_value_bytes", &self.max_value_bytes)
            .field("trusted_network", &self.trusted_network)
            .finish()
    }
}

fn without_secrets<S: Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    if url.is_empty() {
        return serializer.serialize_str(url);
    }
    serializer.serialize_str(&shown(url))
}

fn plain_nodes<S: Serializer>(nodes: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(nodes.iter().map(|node| match host_and_port(node) {
        Some(_) => node.as_str(),
        // It may be an address with a password.
        None => "(hidden)",
    }))
}

#[expect(clippy::ref_option, reason = "serde calls it with the field")]
fn hidden<S: Serializer>(secret: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(|_| "***").serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(url: &str) -> RedisConfig {
        RedisConfig {
            redis_url: url.to_owned(),
            ..RedisConfig::default()
        }
    }

    #[test]
    fn the_password_is_never_shown() {
        for (url, shown) in [
            ("redis://host:1", "redis://host:1"),
            ("redis://:hunter2@host/3", "redis://***@host/3"),
            ("rediss://me:hunter2@host:1", "rediss://***@host:1"),
            ("redis://me:p@hunter2/@host:1", "redis://***@host:1"),
            ("unix:///run/r.sock?pass=hunter2", "unix:///run/r.sock"),
            ("redis://me:hunter2@[", "redis://***@["),
            ("hunter2", "(hidden)"),
        ] {
            let config = at(url);
            assert_eq!(config.shown_url(), shown);
            let error = config.validate("backends[1]").err();
            let error = error.map(|error| format!("{error} {error:?}"));
            let json = serde_json::to_string(&config).unwrap();
            let all = format!("{config:?} {json} {error:?}");
            assert!(!all.contains("hunter2"), "{all}");
        }
    }

    #[cfg(feature = "redis")]
    #[test]
    fn a_setting_out_of_range_is_refused_by_name() {
        let refused = |change: fn(&mut RedisConfig)| {
            let mut config = RedisConfig::default();
            change(&mut config);
            let error = config.validate("backends[1]").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            error.to_string()
        };
        let error = refused(|config| config.key_prefix = "a*".to_owned());
        assert!(
            error.contains("backends[1].key_prefix, value: a*, allowed"),
            "{error}"
        );
        for prefix in ["", "a::b", "a:", "a b", "{a}"] {
            let error = RedisConfig {
                key_prefix: prefix.to_owned(),
                ..RedisConfig::default()
            };
            let error = error.validate("backends[1]").unwrap_err().to_string();
            assert!(error.contains("key_prefix"), "{error}");
        }
        let error = refused(|config| config.timeout = Duration::ZERO);
        assert!(
            error.contains("timeout, value: 0ns, allowed: 1ms to 30s"),
            "{error}"
        );
        let error = refused(|config| config.max_value_bytes = ByteSize::gib(1));
        assert!(error.contains("max_value_bytes, value: 1.0 GiB"), "{error}");
        let error = refused(|config| config.redis_url = "http://me:pw@host".to_owned());
        assert!(
            error.contains("redis_url, value: http://***@host"),
            "{error}"
        );
        let error = refused(|config| config.name.clear());
        assert!(error.contains("backends[1].name"), "{error}");
        for size in [0, 65] {
            let error = RedisConfig {
                redis_pool_size: size,
                ..RedisConfig::default()
            };
            let error = error.validate("b").unwrap_err().to_string();
            assert!(error.contains("b.redis_pool_size"), "{error}");
        }
        RedisConfig::default().validate("backends[1]").unwrap();
    }

    #[cfg(feature = "redis")]
    #[test]
    fn servers_that_do_not_go_together_are_refused_by_name() {
        let node = || vec!["host:7000".to_owned()];
        let refused = |field: &str, change: &dyn Fn(&mut RedisConfig)| {
            let mut config = RedisConfig::default();
            change(&mut config);
            let error = config.validate("b").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(&format!("b.{field}")), "{error}");
            assert!(!format!("{error} {config:?}").contains("hunter2"));
            assert!(!serde_json::to_string(&config).unwrap().contains("hunter2"));
        };
        refused("sentinels", &|config| {
            (config.sentinels, config.cluster) = (node(), true);
        });
        refused("sentinel_master", &|config| {
            config.sentinels = node();
            config.sentinel_master.clear();
        });
        refused("redis_db", &|config| {
            (config.cluster_nodes, config.redis_db) = (node(), 1);
        });
        refused("redis_url", &|config| {
            config.cluster = true;
            config.redis_url = "unix:///run/redis.sock".to_owned();
        });
        refused("redis_host", &|config| config.redis_host.clear());
        for wrong in [
            "host",
            "host:0",
            "redis://me:hunter2@host:1",
            "::1:1",
            ":1",
            "h:x",
        ] {
            refused("sentinels[1]", &|config| {
                config.sentinels = vec!["h:1".to_owned(), wrong.to_owned()];
            });
            refused("cluster_nodes[0]", &|config| {
                config.cluster_nodes = vec![wrong.to_owned()];
            });
        }
        assert_eq!(host_and_port("[::1]:7000"), Some(("::1".to_owned(), 7000)));
    }

    #[cfg(feature = "redis")]
    #[test]
    fn files_for_tls_that_would_not_be_used_are_refused_by_name() {
        let file = || Some(PathBuf::from("/etc/redis.pem"));
        let field = |config: &RedisConfig| {
            let refused = config.validate("b").err()?;
            assert_eq!(refused.kind(), ErrorKind::Config);
            let text = refused.to_string();
            let (_, after) = text.split_once("field: b.").unwrap();
            after.split([',', ')']).next().map(str::to_owned)
        };
        for tls in [true, false] {
            let base = RedisConfig {
                redis_ssl: tls,
                ..RedisConfig::default()
            };
            let cases = [
                (
                    "redis_ca_file",
                    RedisConfig {
                        redis_ca_file: file(),
                        ..base.clone()
                    },
                    None,
                ),
                (
                    "redis_client_cert_file",
                    RedisConfig {
                        redis_client_cert_file: file(),
                        redis_client_key_file: file(),
                        ..base.clone()
                    },
                    None,
                ),
                (
                    "redis_client_cert_file",
                    RedisConfig {
                        redis_client_cert_file: file(),
                        ..base.clone()
                    },
                    Some("redis_client_key_file"),
                ),
                (
                    "redis_client_key_file",
                    RedisConfig {
                        redis_client_key_file: file(),
                        ..base.clone()
                    },
                    Some("redis_client_cert_file"),
                ),
            ];
            for (without_tls, config, with_tls) in cases {
                let expected = if tls { with_tls } else { Some(without_tls) };
                assert_eq!(field(&config).as_deref(), expected, "{config:?}");
            }
        }
        // A whole address wins over the parts, here too.
        let plain = RedisConfig {
            redis_ssl: true,
            redis_ca_file: file(),
            ..at("redis://host")
        };
        assert_eq!(field(&plain).as_deref(), Some("redis_ca_file"));
        let encrypted = RedisConfig {
            redis_ca_file: file(),
            ..at("rediss://host")
        };
        assert_eq!(field(&encrypted), None);
    }

    #[cfg(feature = "redis")]
    #[test]
    fn w_61_an_address_made_of_parts_is_read_back_as_they_are() {
        use redis::{ConnectionAddr, IntoConnectionInfo};

        let config = RedisConfig {
            redis_host: "::1".to_owned(),
            redis_port: 6380,
            redis_db: 3,
            redis_username: Some("me@home".to_owned()),
            redis_password: Some("p@ss/w#rd?:%41[ ü".to_owned()),
            ..RedisConfig::default()
        };
        let info = config.url().into_connection_info().unwrap();
        assert_eq!(
            info.redis_settings().username(),
            config.redis_username.as_deref()
        );
        assert_eq!(
            info.redis_settings().password(),
            config.redis_password.as_deref()
        );
        assert_eq!(info.redis_settings().db(), 3);
        let ConnectionAddr::Tcp(host, 6380) = info.addr() else {
            panic!("another port");
        };
        assert_eq!(host, "::1");
        assert_eq!(config.shown_url(), "redis://***@::1:6380/3");
        let tls = RedisConfig {
            redis_ssl: true,
            ..RedisConfig::default()
        };
        assert_eq!(tls.url(), "rediss://127.0.0.1:6379/0");
        let whole = at("redis://elsewhere");
        assert_eq!(
            whole.url(),
            "redis://elsewhere",
            "a whole address wins over parts"
        );
    }

    #[cfg(not(feature = "redis"))]
    #[test]
    fn a_build_without_the_backend_names_the_feature() {
        let error = RedisConfig::default().validate("backends[1]").unwrap_err();
        assert!(error.to_string().contains("backends[1].type"), "{error}");
        assert!(error.to_string().contains("feature redis"), "{error}");
    }
}
