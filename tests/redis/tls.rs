//! Encrypted connections: whom they believe, what they show, and that they never go on without.
//!
//! Every server here has certificates of its own making, signed by an authority that no system knows. It
//! listens without TLS as well, for the tests to look behind the backend.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use askonce::backend::{RedisBackend, RedisConfig, Write};
use askonce::{Error, ErrorKind};
use bytes::Bytes;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};

use super::backend;
use super::support::server::{RedisServer, cluster_port, free_port};

const V: Bytes = Bytes::from_static(b"v");

/// What the servers here are reached by.
const HERE: [&str; 2] = ["127.0.0.1", "localhost"];

/// Signs certificates, and keeps them in a folder of its own until it is dropped.
struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as files.
struct Pair {
    certificate: PathBuf,
    key: PathBuf,
}

impl Authority {
    fn new() -> Self {
        static FOLDERS: AtomicUsize = AtomicUsize::new(0);
        let number = FOLDERS.fetch_add(1, Ordering::SeqCst);
        let name = format!("tls-{}-{number}", std::process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let mut about = CertificateParams::default();
        let name = format!("authority {number}");
        about.distinguished_name.push(DnType::CommonName, name);
        about.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        about.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let certificate = about.self_signed(&key).unwrap();
        std::fs::write(folder.join("ca.pem"), certificate.pem()).unwrap();
        let issuer = Issuer::new(about, key);
        Self { folder, issuer }
    }

    fn file(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// A certificate for what is reached by these names and addresses.
    fn sign(&self, owner: &str, names: &[&str]) -> Pair {
        let mut about = CertificateParams::default();
        about.distinguished_name.push(DnType::CommonName, owner);
        about.subject_alt_names = names
            .iter()
            .map(|name| match name.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName((*name).try_into().unwrap()),
            })
            .collect();
        let key = KeyPair::generate().unwrap();
        let certificate = about.signed_by(&key, &self.issuer).unwrap();
        let pair = Pair {
            certificate: self.folder.join(format!("{owner}.crt")),
            key: self.folder.join(format!("{owner}.key")),
        };
        std::fs::write(&pair.certificate, certificate.pem()).unwrap();
        std::fs::write(&pair.key, key.serialize_pem()).unwrap();
        pair
    }

    /// Lines of configuration for a server with a certificate for `names`.
    fn lines(&self, port: u16, names: &[&str], asks_clients: bool) -> String {
        let server = self.sign(&format!("server{port}"), names);
        format!(
            "save ''\nappendonly no\ntls-port {port}\ntls-cert-file {}\ntls-key-file {}\n\
             tls-ca-cert-file {}\ntls-auth-clients {}",
            server.certificate.display(),
            server.key.display(),
            self.file().display(),
            if asks_clients { "yes" } else { "no" },
        )
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        // Leftovers are in the build folder.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A server, and the port where it speaks TLS.
struct Encrypted {
    server: RedisServer,
    port: u16,
}

impl Encrypted {
    /// `None`, and a line that says so, where there is no server that can.
    fn start(authority: &Authority, names: &[&str], asks_clients: bool) -> Option<Self> {
        is_able().then(|| {
            Self::start_with(free_port, "", |port| {
                authority.lines(port, names, asks_clients)
            })
        })
    }

    fn start_with(ports: fn() -> u16, argument: &str, lines: impl Fn(u16) -> String) -> Self {
        let started = (0..5).find_map(|_| {
            let port = ports();
            let server = RedisServer::start_with(free_port(), &lines(port), argument)?;
            Some(Self { server, port })
        });
        started.expect("redis-server starts on two of ten free ports")
    }

    /// Settings for the port with TLS, and an authority.
    fn config(&self, authority: &Authority) -> RedisConfig {
        RedisConfig {
            redis_url: format!("rediss://127.0.0.1:{}", self.port),
            redis_ca_file: Some(authority.file()),
            ..self.server.config()
        }
    }
}

/// Whether a server is installed that was built with TLS.
fn is_able() -> bool {
    // It stops at the first setting it does not know, and says which.
    let asked = Command::new("redis-server")
        .args(["--tls-port", "0", "--no-such-setting", "0"])
        .output();
    let answer = match asked {
        Ok(answer) => answer,
        Err(error) => {
            println!("SKIPPED: redis-server is not installed ({error})");
            return false;
        }
    };
    let said = [answer.stdout, answer.stderr].concat();
    let able = !String::from_utf8_lossy(&said).contains("'tls-port");
    if !able {
        println!("SKIPPED: redis-server was built without TLS");
    }
    able
}

/// What a first operation fails with, long before the timeout of a test's server.
async fn refused(config: RedisConfig) -> Error {
    let started = Instant::now();
    let patience = config.timeout;
    let error = backend(config).get(b"k").await.unwrap_err();
    assert!(started.elapsed() < patience, "it hung: {error}");
    error
}

fn assert_not_trusted(error: &Error, why: &str) {
    assert_eq!(error.kind(), ErrorKind::BackendUnavailable, "{error}");
    assert!(!error.is_retryable(), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("the certificate of Redis is not trusted"),
        "{text}"
    );
    assert!(text.contains(why), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_carries_values_and_the_feed_to_a_server_of_our_own_authority() {
    let authority = Authority::new();
    let Some(redis) = Encrypted::start(&authority, &HERE, false) else {
        return;
    };
    let config = redis.config(&authority);
    let one = backend(config.clone());
    one.set(b"k", V, None).await.unwrap();
    // By name, and by the parts of an address.
    let two = backend(RedisConfig {
        redis_url: String::new(),
        redis_host: "localhost".to_owned(),
        redis_port: redis.port,
        redis_ssl: true,
        ..config.clone()
    });
    assert_eq!(two.get(b"k").await.unwrap().unwrap().bytes, V);
    let wire = format!("{}::k", config.key_prefix);
    let there: bool = redis::cmd("EXISTS")
        .arg(wire)
        .query(&mut redis.server.raw())
        .unwrap();
    assert!(there, "another server answered");

    let (writer, reader) = (one.feed().unwrap(), two.feed().unwrap());
    let tail = reader.tail().await.unwrap();
    let waits = tokio::spawn(async move { reader.read(tail, Duration::from_secs(20)).await });
    writer.append(V).await.unwrap();
    let batch = waits.await.unwrap().unwrap();
    assert_eq!((batch.messages, batch.gap), (vec![V], false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_to_a_server_of_an_unknown_authority_is_a_named_refusal_and_no_hang() {
    let (authority, other) = (Authority::new(), Authority::new());
    let Some(redis) = Encrypted::start(&authority, &HERE, false) else {
        return;
    };
    let config = redis.config(&other);
    assert_not_trusted(&refused(config.clone()).await, "invalid peer certificate");
    // Its certificate is none of those that the system trusts.
    let by_the_system = RedisConfig {
        redis_ca_file: None,
        ..config.clone()
    };
    assert_not_trusted(&refused(by_the_system).await, "invalid peer certificate");
    let feed = backend(config).feed().unwrap();
    let error = feed.append(V).await.unwrap_err();
    assert_not_trusted(&error, "invalid peer certificate");
    let nobody: u64 = redis::cmd("DBSIZE").query(&mut redis.server.raw()).unwrap();
    assert_eq!(nobody, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_to_a_server_with_the_certificate_of_another_host_is_refused() {
    let authority = Authority::new();
    let Some(redis) = Encrypted::start(&authority, &["cache.example", "localhost"], false) else {
        return;
    };
    let config = redis.config(&authority);
    assert_not_trusted(&refused(config.clone()).await, "not valid for name");
    // The same server by a name that the certificate holds.
    let named = RedisConfig {
        redis_url: format!("rediss://localhost:{}", redis.port),
        ..config
    };
    backend(named).set(b"k", V, None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_shows_a_client_certificate_to_a_server_that_asks_for_one() {
    let (authority, other) = (Authority::new(), Authority::new());
    let Some(redis) = Encrypted::start(&authority, &HERE, true) else {
        return;
    };
    let without = redis.config(&authority);
    let with = |pair: Pair| RedisConfig {
        redis_client_cert_file: Some(pair.certificate),
        redis_client_key_file: Some(pair.key),
        ..without.clone()
    };
    let mutual = backend(with(authority.sign("client", &[])));
    mutual.set(b"k", V, None).await.unwrap();
    assert_eq!(mutual.get(b"k").await.unwrap().unwrap().bytes, V);
    mutual.feed().unwrap().append(V).await.unwrap();

    for unwelcome in [without.clone(), with(other.sign("client", &[]))] {
        // The server says why and hangs up at once, which may come first.
        super::eventually("a refusal that says why", async || {
            let error = refused(unwelcome.clone()).await;
            assert_eq!(error.kind(), ErrorKind::BackendUnavailable, "{error}");
            let why = "Redis refuses the client's certificate";
            let named = error.to_string().contains(why);
            assert_eq!(error.is_retryable(), !named, "{error}");
            named
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_text_to_a_port_with_tls_is_an_error_and_no_hang() {
    let authority = Authority::new();
    let Some(redis) = Encrypted::start(&authority, &HERE, false) else {
        return;
    };
    let error = refused(RedisConfig {
        redis_url: format!("redis://127.0.0.1:{}", redis.port),
        redis_ca_file: None,
        ..redis.config(&authority)
    })
    .await;
    assert_eq!(error.kind(), ErrorKind::BackendUnavailable, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_reaches_the_master_that_an_encrypted_sentinel_names() {
    let authority = Authority::new();
    let Some(master) = Encrypted::start(&authority, &HERE, true) else {
        return;
    };
    let client = authority.sign("client", &[]);
    let sentinel = Encrypted::start_with(free_port, "--sentinel", |port| {
        let lines = authority.lines(port, &HERE, true);
        // A Sentinel stores nothing, and has no settings for that.
        let lines = lines.replace("save ''\nappendonly no\n", "");
        let master = master.port;
        format!("{lines}\ntls-replication yes\nsentinel monitor main 127.0.0.1 {master} 1")
    });
    let config = RedisConfig {
        redis_url: String::new(),
        redis_ssl: true,
        sentinels: vec![format!("127.0.0.1:{}", sentinel.port)],
        sentinel_master: "main".to_owned(),
        redis_client_cert_file: Some(client.certificate),
        redis_client_key_file: Some(client.key),
        ..master.config(&authority)
    };
    let backend = backend(config.clone());
    backend.set(b"k", V, None).await.unwrap();
    backend.feed().unwrap().append(V).await.unwrap();
    let wire = format!("{}::k", config.key_prefix);
    let there: bool = redis::cmd("EXISTS")
        .arg(wire)
        .query(&mut master.server.raw())
        .unwrap();
    assert!(there, "it is not the master that answered");

    let other = Authority::new();
    let distrustful = RedisConfig {
        redis_ca_file: Some(other.file()),
        ..config
    };
    let error = refused(distrustful).await;
    assert_not_trusted(&error, "invalid peer certificate");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_reaches_the_nodes_that_an_encrypted_cluster_names() {
    if !is_able() {
        return;
    }
    let authority = Authority::new();
    let client = authority.sign("client", &[]);
    let nodes = [(1, ["0", "8191"]), (2, ["8192", "16383"])].map(|(epoch, slots)| {
        let node = Encrypted::start_with(cluster_port, "", |port| {
            let lines = authority.lines(port, &HERE, true);
            format!("{lines}\ncluster-enabled yes\ntls-cluster yes")
        });
        let mut raw = node.server.raw();
        let mut tell = redis::cmd("CLUSTER");
        tell.arg("SET-CONFIG-EPOCH").arg(epoch);
        tell.exec(&mut raw).unwrap();
        let mut tell = redis::cmd("CLUSTER");
        tell.arg("ADDSLOTSRANGE").arg(&slots);
        tell.exec(&mut raw).unwrap();
        node
    });
    let mut raw = nodes[0].server.raw();
    let mut tell = redis::cmd("CLUSTER");
    tell.arg("MEET").arg("127.0.0.1").arg(nodes[1].port);
    tell.exec(&mut raw).unwrap();
    let config = RedisConfig {
        redis_url: String::new(),
        redis_ssl: true,
        cluster_nodes: vec![format!("127.0.0.1:{}", nodes[0].port)],
        redis_client_cert_file: Some(client.certificate),
        redis_client_key_file: Some(client.key),
        ..nodes[0].config(&authority)
    };
    super::eventually("nodes that know each other", async || {
        nodes.iter().all(|node| {
            let mut ask = redis::cmd("CLUSTER");
            let told = ask.arg("INFO").query::<String>(&mut node.server.raw());
            let told = told.unwrap();
            told.contains("cluster_state:ok") && told.contains("cluster_known_nodes:2")
        })
    })
    .await;
    let other = Authority::new();
    let distrustful = RedisConfig {
        redis_ca_file: Some(other.file()),
        ..config.clone()
    };
    let error = refused(distrustful).await;
    assert_eq!(error.kind(), ErrorKind::BackendUnavailable, "{error}");
    // The client tells of it in words alone.
    let text = error.to_string();
    assert!(text.contains("invalid peer certificate"), "{text}");
    let backend = backend(config);
    let writes: Vec<Write> = (0..40)
        .map(|number| Write {
            key: Bytes::from(format!("k{number}")),
            value: V,
            expires: None,
        })
        .collect();
    for stored in backend.set_many(&writes).await {
        stored.unwrap();
    }
    for write in &writes {
        assert_eq!(backend.get(&write.key).await.unwrap().unwrap().bytes, V);
    }
    for node in &nodes {
        let held: u64 = redis::cmd("DBSIZE").query(&mut node.server.raw()).unwrap();
        assert!(held > 0, "one node has all the keys");
    }
    // Its connection is made apart from the cluster's.
    let feed = backend.feed().unwrap();
    let tail = feed.tail().await.unwrap();
    feed.append(V).await.unwrap();
    let batch = feed.read(tail, Duration::from_secs(20)).await.unwrap();
    assert_eq!(batch.messages, [V]);
}

#[test]
fn a_file_for_tls_that_cannot_be_used_is_refused_by_field_and_name() {
    let authority = Authority::new();
    let (client, another) = (
        authority.sign("client", &[]),
        authority.sign("another", &[]),
    );
    let write = |name: &str, text: &str| {
        let file = authority.folder.join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let absent = authority.folder.join("absent.pem");
    let empty = write("empty.pem", "");
    let no_pem = write("no.pem", "hunter2 is no certificate\n");
    let torn = write(
        "torn.pem",
        "-----BEGIN CERTIFICATE-----\nhunter2!\n-----END CERTIFICATE-----\n",
    );
    let headless = write("headless.pem", "-----BEGIN hunter2\n");
    let not_one = write(
        "other.pem",
        "-----BEGIN CERTIFICATE-----\naHVudGVyMg==\n-----END CERTIFICATE-----\n",
    );
    let locked = write(
        "locked.pem",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\naHVudGVyMg==\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let build = |ca: &Path, certificate: &Path, key: &Path| {
        let config = RedisConfig {
            redis_ssl: true,
            redis_ca_file: Some(ca.to_owned()),
            redis_client_cert_file: Some(certificate.to_owned()),
            redis_client_key_file: Some(key.to_owned()),
            ..RedisConfig::default()
        };
        RedisBackend::builder(config).build().map(drop)
    };
    let ca = authority.file();
    let refused = |built: Result<(), Error>, field: &str, file: &Path| {
        let error = built.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let text = error.to_string();
        assert!(text.contains(&format!(".{field}, value: ")), "{text}");
        assert!(text.contains(&file.display().to_string()), "{text}");
        let mut all = format!("{error} {error:?}");
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            all += &format!(" {inner} {inner:?}");
            cause = inner.source();
        }
        for content in ["hunter2", "aHVudGVyMg"] {
            assert!(!all.contains(content), "{all}");
        }
    };
    for wrong in [&absent, &empty, &no_pem, &torn, &headless, &not_one] {
        let built = build(wrong, &client.certificate, &client.key);
        refused(built, "redis_ca_file", wrong);
        let built = build(&ca, wrong, &client.key);
        refused(built, "redis_client_cert_file", wrong);
    }
    for wrong in [&absent, &empty, &no_pem, &locked, &ca, &another.key] {
        let built = build(&ca, &client.certificate, wrong);
        refused(built, "redis_client_key_file", wrong);
    }
    build(&ca, &client.certificate, &client.key).unwrap();
}
