//! A real memcached that a test binary starts for itself.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use askonce::backend::MemcachedConfig;

/// A private memcached on a loopback port. It ends with this value, and with the test process however
/// that ends: the shell that watches over it waits for the other end of its input to close.
#[derive(Debug)]
pub(crate) struct Server {
    port: u16,
    option: &'static str,
    shell: Option<Child>,
}

const WATCH: &str = r#"memcached -l 127.0.0.1 -p "$0" -U 0 -u root -m 64 -t 2 $1 &
read -r _; kill -9 $!; wait"#;

impl Server {
    /// A new server, or `None`, said aloud, where memcached is not installed.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with("")
    }

    /// As [`start`](Self::start), with one more option of memcached's.
    pub(crate) fn start_with(option: &'static str) -> Option<Self> {
        if Command::new("memcached").arg("-V").output().is_err() {
            println!("SKIPPED: memcached is not installed");
            return None;
        }
        for _ in 0..20 {
            let mut server = Self {
                port: free_port(),
                option,
                shell: None,
            };
            if server.try_resume() {
                return Some(server);
            }
        }
        panic!("memcached does not start");
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut shell) = self.shell.take() {
            drop(shell.stdin.take());
            shell.wait().expect("the shell ends");
        }
    }

    /// Starts it anew, empty, on the same port.
    pub(crate) fn resume(&mut self) {
        assert!(self.try_resume(), "memcached does not start again");
    }

    fn try_resume(&mut self) -> bool {
        let shell = Command::new("sh")
            .args(["-c", WATCH, &self.port.to_string(), self.option])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("there is a shell");
        self.shell = Some(shell);
        let patience = Instant::now() + Duration::from_secs(10);
        while Instant::now() < patience {
            if self.answers() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill();
        false
    }

    fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(self.address()) else {
            return false;
        };
        let mut answer = [0; 7];
        stream
            .set_read_timeout(Some(Duration::from_secs(2)))
            .and_then(|()| stream.write_all(b"version\r\n"))
            .and_then(|()| stream.read_exact(&mut answer))
            .is_ok()
            && answer == *b"VERSION"
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
    listener.local_addr().expect("it is bound").port()
}

/// Settings for the one server of this test binary, with a key prefix that nothing else uses; `None`,
/// said aloud, where memcached is not installed.
pub(crate) fn shared() -> Option<MemcachedConfig> {
    static SERVER: LazyLock<Option<Server>> = LazyLock::new(Server::start);
    let Some(server) = &*SERVER else {
        println!("SKIPPED: memcached is not installed");
        return None;
    };
    Some(settings(&[server]))
}

/// Settings for `servers`, with a key prefix that nothing else uses. The timeout is long enough for a
/// busy machine.
pub(crate) fn settings(servers: &[&Server]) -> MemcachedConfig {
    static PREFIXES: AtomicUsize = AtomicUsize::new(0);
    MemcachedConfig {
        servers: servers.iter().map(|server| server.address()).collect(),
        key_prefix: format!("test-{}", PREFIXES.fetch_add(1, Ordering::Relaxed)),
        timeout: Duration::from_secs(5),
        ..MemcachedConfig::default()
    }
}
