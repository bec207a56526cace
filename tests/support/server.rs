//! Private `redis-server`s, alone, watched by a Sentinel or as a cluster: ports of their own, empty
//! folders, gone when their owner is.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use askonce::backend::RedisConfig;

/// Runs the server and passes signals on. At the end of its input, which is also the end of the test
/// process however that came about, it kills the server and clears up.
const KEEPER: &str = r#"
dir=$(mktemp -d) && cd "$dir" || exit 1
printf '%s\n' "$1" >conf
redis-server conf $2 >log 2>&1 </dev/null &
server=$!
while read -r signal; do kill -s "$signal" "$server"; done
kill -s KILL "$server"
wait "$server"
cd / && rm -rf "$dir"
"#;

/// A running server; dropping it is `kill -9`.
#[derive(Debug)]
pub(crate) struct RedisServer {
    pub(crate) port: u16,
    keeper: Child,
    signals: Option<ChildStdin>,
}

impl RedisServer {
    /// A fresh server; `None`, and a line that says so, where none is installed.
    pub(crate) fn start() -> Option<Self> {
        let version = Command::new("redis-server").arg("--version").output();
        if let Err(error) = version {
            println!("SKIPPED: redis-server is not installed ({error})");
            return None;
        }
        let server = (0..5).find_map(|_| Self::start_at(free_port()));
        Some(server.expect("redis-server starts on one of five free ports"))
    }

    /// A fresh server at a known port; `None` when it does not come up.
    pub(crate) fn start_at(port: u16) -> Option<Self> {
        Self::start_with(port, "save ''\nappendonly no", "")
    }

    /// A fresh server with further lines of configuration and a further argument.
    pub(crate) fn start_with(port: u16, lines: &str, argument: &str) -> Option<Self> {
        let conf = format!("port {port}\nbind 127.0.0.1\n{lines}");
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper", &conf, argument])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let signals = keeper.stdin.take();
        let server = Self {
            port,
            keeper,
            signals,
        };
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(20) {
            if answers(port) {
                return Some(server);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    /// The server of this test binary, for tests that keep to a prefix of their own.
    pub(crate) fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<RedisServer>> = OnceLock::new();
        let server = SHARED.get_or_init(Self::start).as_ref();
        if server.is_none() {
            println!("SKIPPED: redis-server is not installed");
        }
        server
    }

    /// Settings for this server: a prefix of its own, and patience with a busy machine.
    pub(crate) fn config(&self) -> RedisConfig {
        static PREFIXES: AtomicUsize = AtomicUsize::new(0);
        RedisConfig {
            redis_url: format!("redis://127.0.0.1:{}", self.port),
            key_prefix: format!("test{}", PREFIXES.fetch_add(1, Ordering::SeqCst)),
            timeout: Duration::from_secs(20),
            ..RedisConfig::default()
        }
    }

    /// A connection that goes round the backend, made anew each time.
    pub(crate) fn raw(&self) -> redis::Connection {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port));
        let connection = client.and_then(|client| client.get_connection());
        connection.expect("the server answers")
    }

    /// Stops the server without ending it: it takes connections and answers nothing.
    pub(crate) fn hang(&mut self) {
        self.signal("STOP");
    }

    /// Lets it go on.
    pub(crate) fn wake(&mut self) {
        self.signal("CONT");
    }

    fn signal(&mut self, name: &str) {
        let signals = self.signals.as_mut().expect("open until it is dropped");
        writeln!(signals, "{name}").expect("the keeper reads");
        // The keeper acts on it in its own time.
        std::thread::sleep(Duration::from_millis(200));
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        drop(self.signals.take());
        self.keeper.wait().expect("the keeper ends");
    }
}

/// A port that nothing listens on.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
        return false;
    };
    let mut reply = [0; 5];
    stream
        .set_read_timeout(Some(Duration::from_secs(2)))
        .is_ok()
        && stream.write_all(b"PING\r\n").is_ok()
        && stream.read_exact(&mut reply).is_ok()
        // A server with a password answers, too.
        && (&reply == b"+PONG" || &reply == b"-NOAU")
}

/// Waits until `done` says yes, for at most a minute.
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What one server says of replication after `field:`.
fn replication(raw: &mut redis::Connection, field: &str) -> Option<String> {
    let about = redis::cmd("INFO").arg("replication").query::<String>(raw);
    let about = about.expect("a server");
    let line = about.lines().find(|line| line.starts_with(field))?;
    line.split_once(':').map(|(_, value)| value.to_owned())
}

/// Waits until a replica has all that its master has now: writes do not wait for that.
fn wait_in_step(master: &mut redis::Connection, replica: &mut redis::Connection) {
    let offset = |raw: &mut redis::Connection, field| -> Option<u64> {
        replication(raw, field)?.parse().ok()
    };
    let goal = offset(master, "master_repl_offset");
    wait_until("a replica in step", || {
        offset(replica, "slave_repl_offset") >= goal
    });
}

/// A master, a replica and the Sentinel that watches them. All have the same password.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) master: Option<RedisServer>,
    pub(crate) replica: RedisServer,
    sentinel: RedisServer,
}

impl Watched {
    /// Has all characters that mean something in an address.
    pub(crate) const PASSWORD: &str = "p@ss/w#rd:%?";

    /// `None`, and a line that says so, where Redis is not installed.
    pub(crate) fn start() -> Option<Self> {
        RedisServer::shared()?;
        let password = Self::PASSWORD;
        let lines = format!(
            "save ''\nappendonly no\nrequirepass {password}\nmasterauth {password}\n\
             repl-diskless-sync-delay 0"
        );
        let fresh = |lines: &str, argument: &str| {
            let server = (0..5).find_map(|_| RedisServer::start_with(free_port(), lines, argument));
            server.expect("redis-server starts on one of five free ports")
        };
        let master = fresh(&lines, "");
        let replica = fresh(&format!("{lines}\nreplicaof 127.0.0.1 {}", master.port), "");
        wait_until("a replica that is listened to", || {
            let replica = replication(&mut login(&master), "slave0");
            replica.is_some_and(|replica| replica.contains("state=online"))
        });
        let sentinel = fresh(
            &format!(
                "requirepass {password}\n\
                 sentinel monitor main 127.0.0.1 {} 1\n\
                 sentinel auth-pass main {password}\n\
                 sentinel down-after-milliseconds main 500\n\
                 sentinel failover-timeout main 3000",
                master.port
            ),
            "--sentinel",
        );
        wait_until("a Sentinel that knows the replica", || {
            let mut raw = login(&sentinel);
            let known: Vec<redis::Value> = redis::cmd("SENTINEL")
                .arg(&["REPLICAS", "main"])
                .query(&mut raw)
                .unwrap();
            !known.is_empty()
        });
        Some(Self {
            master: Some(master),
            replica,
            sentinel,
        })
    }

    /// Waits until the replica has all that the master has now.
    pub(crate) fn wait_in_step(&self) {
        if let Some(master) = &self.master {
            wait_in_step(&mut login(master), &mut login(&self.replica));
        }
    }

    /// Settings that name the Sentinel alone, and one that is not there.
    pub(crate) fn config(&self) -> RedisConfig {
        let absent = format!("127.0.0.1:{}", free_port());
        RedisConfig {
            redis_url: String::new(),
            redis_password: Some(Self::PASSWORD.to_owned()),
            sentinels: vec![absent, format!("127.0.0.1:{}", self.sentinel.port)],
            sentinel_master: "main".to_owned(),
            sentinel_password: Some(Self::PASSWORD.to_owned()),
            timeout: Duration::from_secs(2),
            ..self.replica.config()
        }
    }
}

fn login(server: &RedisServer) -> redis::Connection {
    let mut raw = server.raw();
    redis::cmd("AUTH")
        .arg(Watched::PASSWORD)
        .exec(&mut raw)
        .expect("the password is right");
    raw
}

/// Three masters, each with a replica.
#[derive(Debug)]
pub(crate) struct RedisCluster {
    /// The masters at the start, then their replicas in the same order.
    pub(crate) nodes: Vec<RedisServer>,
}

impl RedisCluster {
    const MASTERS: usize = 3;

    /// `None`, and a line that says so, where Redis is not installed.
    pub(crate) fn start() -> Option<Self> {
        RedisServer::shared()?;
        let lines = "save ''\nappendonly no\ncluster-enabled yes\ncluster-node-timeout 2000\n\
                     cluster-require-full-coverage no\nrepl-diskless-sync-delay 0";
        let node = |_| {
            let node = (0..5).find_map(|_| RedisServer::start_with(cluster_port(), lines, ""));
            node.expect("redis-server starts on one of five free ports")
        };
        let nodes: Vec<_> = (0..2 * Self::MASTERS).map(node).collect();
        let ask = |node: &RedisServer, words: &[&str]| {
            let asked = redis::cmd("CLUSTER").arg(words).query(&mut node.raw());
            let answer: String = asked.expect("a node of a cluster");
            answer
        };
        let share = 16_384 / Self::MASTERS;
        for (at, node) in nodes.iter().enumerate() {
            ask(node, &["SET-CONFIG-EPOCH", &(at + 1).to_string()]);
            if at < Self::MASTERS {
                let last = if at + 1 == Self::MASTERS {
                    16_383
                } else {
                    (at + 1) * share - 1
                };
                let (first, last) = ((at * share).to_string(), last.to_string());
                ask(node, &["ADDSLOTSRANGE", &first, &last]);
            }
            ask(node, &["MEET", "127.0.0.1", &nodes[0].port.to_string()]);
        }
        wait_until("nodes that know each other", || {
            nodes.iter().all(|node| {
                let info = ask(node, &["INFO"]);
                info.contains("cluster_known_nodes:6") && info.contains("cluster_state:ok")
            })
        });
        for at in 0..Self::MASTERS {
            let master = ask(&nodes[at], &["MYID"]);
            ask(&nodes[Self::MASTERS + at], &["REPLICATE", &master]);
        }
        wait_until("replicas that are listened to", || {
            nodes[..Self::MASTERS].iter().all(|node| {
                let replica = replication(&mut node.raw(), "slave0");
                replica.is_some_and(|replica| replica.contains("state=online"))
            }) && nodes.iter().all(|node| {
                let replicas = ask(node, &["NODES"]);
                replicas.matches("slave").count() == Self::MASTERS
            })
        });
        Some(Self { nodes })
    }

    /// Waits until the replicas have all that their masters have now.
    pub(crate) fn wait_in_step(&self) {
        let (masters, replicas) = self.nodes.split_at(Self::MASTERS);
        for (master, replica) in masters.iter().zip(replicas) {
            wait_in_step(&mut master.raw(), &mut replica.raw());
        }
    }

    /// Settings that name two of the nodes.
    pub(crate) fn config(&self) -> RedisConfig {
        let address = |node: &RedisServer| format!("127.0.0.1:{}", node.port);
        RedisConfig {
            redis_url: String::new(),
            cluster_nodes: self.nodes[1..3].iter().map(address).collect(),
            timeout: Duration::from_secs(2),
            ..self.nodes[0].config()
        }
    }
}

/// A free port whose twin for the nodes' own talk is free as well.
pub(crate) fn cluster_port() -> u16 {
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let port = (0..1_000)
        .map(|_| free_port())
        .find(|port| *port < 55_536 && free(port + 10_000));
    port.expect("two free ports, ten thousand apart")
}
