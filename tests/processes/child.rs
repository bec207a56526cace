//! A process of its own: this test binary again, told by an environment variable to serve one stack of
//! tiers over its input and output.
//!
//! A command is a line, its answer a line that begins with [`ANSWER`]; what the test harness prints around
//! them is skipped.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use askonce::Result;
use askonce::backend::{
    BackendUsage, BoxFuture, CacheBackend, Capability, Feed, FeedBatch, FeedHandle, FeedPosition,
    MemoryBackend, MemoryConfig, RedisBackend, RedisConfig, StoredValue,
};
use askonce::clock::Timestamp;
use askonce::tier::{Coherence, TierConfig, TieredBackend};
use bytes::Bytes;

const SETTINGS: &str = "ASKONCE_TEST_PROCESS";
const ANSWER: &str = "> ";

/// Another process that shares a Redis. Dropping it ends it.
pub(crate) struct Process {
    child: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Process {
    /// A process whose near copies live for `bound` at most, as soon as it trusts them.
    pub(crate) fn start(redis: &RedisConfig, bound: Duration) -> Self {
        let settings = format!(
            "{} {} {}",
            redis.redis_url,
            redis.key_prefix,
            bound.as_millis()
        );
        let mut child = Command::new(std::env::current_exe().expect("a test binary"))
            .args(["--exact", "child::serves", "--ignored", "--nocapture"])
            .env(SETTINGS, settings)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the test binary runs");
        let commands = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut process = Self {
            child,
            commands,
            answers,
        };
        process.becomes_trusted();
        process
    }

    /// The answer to one command.
    pub(crate) fn ask(&mut self, command: &str) -> String {
        let commands = self.commands.as_mut().expect("open until it is dropped");
        writeln!(commands, "{command}").expect("the process reads");
        loop {
            let mut line = String::new();
            let read = self
                .answers
                .read_line(&mut line)
                .expect("the process writes");
            assert!(read > 0, "the process ended at: {command}");
            // The harness ends its own line late: the first answer may follow on one.
            if let Some((_, answer)) = line.split_once(ANSWER) {
                return answer.trim_end().to_owned();
            }
        }
    }

    pub(crate) fn set(&mut self, key: &str, value: &str) {
        assert_eq!(self.ask(&format!("set {key} {value}")), "ok");
    }

    /// The value of `key`, `none`, or `error`.
    pub(crate) fn get(&mut self, key: &str) -> String {
        self.ask(&format!("get {key}"))
    }

    /// Asks until the value of `key` is `expected`. The bound is for a machine that hangs.
    pub(crate) fn awaits(&mut self, key: &str, expected: &str) {
        assert_eq!(self.ask(&format!("await {key} {expected}")), "ok");
    }

    pub(crate) fn becomes_trusted(&mut self) {
        assert_eq!(self.ask("trusted"), "ok");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The end of its input is its end.
        drop(self.commands.take());
        let _ = self.child.wait();
    }
}

/// What runs in the other process.
#[tokio::test]
#[ignore = "the other tests run it in a process of its own"]
async fn serves() {
    let Ok(settings) = std::env::var(SETTINGS) else {
        println!("SKIPPED: only the other tests say where the Redis is");
        return;
    };
    let settings: Vec<&str> = settings.split(' ').collect();
    let redis = RedisConfig {
        redis_url: settings[0].to_owned(),
        key_prefix: settings[1].to_owned(),
        timeout: Duration::from_secs(2),
        ..RedisConfig::default()
    };
    let far = Arc::new(Far {
        redis: RedisBackend::builder(redis).build().unwrap(),
        deaf: Arc::default(),
    });
    let tiers = TieredBackend::builder(
        Arc::new(
            MemoryBackend::builder(MemoryConfig::default())
                .build()
                .unwrap(),
        ),
        Arc::clone(&far) as _,
    );
    let tiers = tiers.config(TierConfig {
        near_ttl: Duration::from_millis(settings[2].parse().unwrap()),
        near_ttl_jitter: 0.0,
        recovery_interval: Duration::from_millis(50),
        feed_lag: Duration::from_secs(3600),
        ..TierConfig::default()
    });
    let tiers = tiers.build().unwrap();
    // Lines come from a thread, so that the background tasks go on meanwhile.
    let (lines, mut commands) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    while let Some(command) = commands.recv().await {
        let words: Vec<&str> = command.split(' ').collect();
        println!("{ANSWER}{}", act(&tiers, &far, &words).await);
    }
}

async fn act(tiers: &TieredBackend, far: &Far, command: &[&str]) -> String {
    let get = async |key: &str| match tiers.get(key.as_bytes()).await {
        Ok(Some(held)) => String::from_utf8(held.bytes.to_vec()).unwrap(),
        Ok(None) => "none".to_owned(),
        Err(_) => "error".to_owned(),
    };
    let patiently = async |so: &mut dyn FnMut(String) -> bool, key: &str| {
        for _ in 0..120_000 {
            if so(get(key).await) {
                return "ok".to_owned();
            }
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        "waited in vain".to_owned()
    };
    match *command {
        ["set", key, value] => {
            let value = Bytes::copy_from_slice(value.as_bytes());
            match tiers.set(key.as_bytes(), value, None).await {
                Ok(()) => "ok".to_owned(),
                Err(_) => "error".to_owned(),
            }
        }
        ["get", key] => get(key).await,
        // How far away the value was.
        ["depth", key] => match tiers.get(key.as_bytes()).await {
            Ok(Some(held)) => held.depth.to_string(),
            _ => "none".to_owned(),
        },
        ["await", key, expected] => patiently(&mut |value| value == expected, key).await,
        ["delete", key] => match tiers.delete(key.as_bytes()).await {
            Ok(held) => held.to_string(),
            Err(_) => "error".to_owned(),
        },
        ["owed"] => tiers.owed().to_string(),
        ["deaf"] => {
            far.deaf.store(true, Ordering::SeqCst);
            "ok".to_owned()
        }
        ["trusted"] => {
            let mut trusted = |_| tiers.coherence() == Coherence::Trusted;
            patiently(&mut trusted, "no such key").await
        }
        ["suspect"] => {
            let mut suspect = |_| tiers.coherence() != Coherence::Trusted;
            patiently(&mut suspect, "no such key").await
        }
        _ => "what?".to_owned(),
    }
}

/// The shared Redis, as a process sees it that may lose the news.
#[derive(Debug)]
struct Far {
    redis: RedisBackend,
    deaf: Arc<AtomicBool>,
}

impl CacheBackend for Far {
    fn name(&self) -> &str {
        "redis"
    }
    fn capability(&self) -> Capability {
        CacheBackend::capability(&self.redis)
    }
    async fn get(&self, key: &[u8]) -> Result<Option<StoredValue>> {
        CacheBackend::get(&self.redis, key).await
    }
    async fn set(&self, key: &[u8], value: Bytes, expires: Option<Timestamp>) -> Result<()> {
        CacheBackend::set(&self.redis, key, value, expires).await
    }
    async fn delete(&self, key: &[u8]) -> Result<bool> {
        CacheBackend::delete(&self.redis, key).await
    }
    async fn clear(&self) -> Result<()> {
        CacheBackend::clear(&self.redis).await
    }
    async fn usage(&self) -> Result<BackendUsage> {
        CacheBackend::usage(&self.redis).await
    }
    async fn ping(&self) -> Result<()> {
        CacheBackend::ping(&self.redis).await
    }
    fn feed(&self) -> Option<FeedHandle> {
        Some(Arc::new(LossyFeed {
            feed: CacheBackend::feed(&self.redis)?,
            deaf: Arc::clone(&self.deaf),
        }))
    }
}

#[derive(Debug)]
struct LossyFeed {
    feed: FeedHandle,
    deaf: Arc<AtomicBool>,
}

impl Feed for LossyFeed {
    fn append(&self, message: Bytes) -> BoxFuture<'_, Result<()>> {
        self.feed.append(message)
    }
    fn tail(&self) -> BoxFuture<'_, Result<FeedPosition>> {
        self.feed.tail()
    }
    fn read(&self, after: FeedPosition, wait: Duration) -> BoxFuture<'_, Result<FeedBatch>> {
        Box::pin(async move {
            let mut batch = self.feed.read(after, wait).await?;
            if self.deaf.load(Ordering::SeqCst) {
                batch.messages.clear();
            }
            Ok(batch)
        })
    }
}
