//! One backend, tried out: what it does with a value, what its servers say of themselves, its feed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use askonce::backend::{
    BackendConfig, BackendContext, BackendHandle, BackendRegistry, Condition, ServerFacts,
};
use askonce::clock::{Clock as _, SystemClock};
use askonce::event::Events;
use askonce::tier::probe_feed;
use askonce::{Error, ErrorKind};
use bytes::Bytes;
use bytesize::ByteSize;

use super::{Finding, Report};
use askonce::config::is_local;

/// How long the value lives that is left behind should the doctor be killed.
const LIFE: Duration = Duration::from_secs(60);

/// How long the value lives that is seen to die.
const SHORT_LIFE: Duration = Duration::from_millis(150);

/// How long a message may take through a feed.
const FEED_WITHIN: Duration = Duration::from_secs(5);

/// Clocks further apart than this make values live noticeably longer or shorter.
const CLOCKS_APART: i64 = 2_000;

/// Tries a backend out.
pub(super) async fn check(config: &BackendConfig, report: &mut Report) {
    let check = format!("backend {}", config.name());
    let context = BackendContext::new(Arc::new(SystemClock), Events::default());
    let backend = match BackendRegistry::default().build(config, &context).await {
        Ok(backend) => backend,
        Err(error) => {
            report.add(check, Finding::Fail, error);
            return;
        }
    };
    // Begins like what caches keep for themselves: no listing shows it, no pattern removes it.
    let key = format!("!doctor:{:032x}", rand::random::<u128>());
    let tried = try_out(&backend, key.as_bytes()).await;
    // Also after a step in between has failed.
    let _ = backend.delete(key.as_bytes()).await;
    match tried {
        Ok(took) => {
            let (write, read) = (milliseconds(took.write), milliseconds(took.read));
            let atomic = match backend.capability().conditional_writes {
                true => "refuses a second claim, ",
                false => "",
            };
            let detail = format!(
                "writes ({write}), reads back ({read}), {atomic}lets values die, removes them"
            );
            report.add(&check, Finding::Pass, detail);
        }
        Err(Fault { step, error }) => {
            let detail = format!("{step}: {error}");
            report.add(&check, Finding::Fail, detail).remedy = Some(match error.kind() {
                ErrorKind::BackendUnavailable | ErrorKind::Timeout => {
                    "check that it runs and that its address and password are right"
                }
                _ => {
                    "check that its settings fit the server, and that no other program writes its keys"
                }
            });
            if matches!(
                error.kind(),
                ErrorKind::BackendUnavailable | ErrorKind::Timeout
            ) {
                // The rest would fail the same way.
                return;
            }
        }
    }
    check_servers(&check, &backend, report).await;
    if let Some(feed) = backend.feed()
        && !backend.capability().in_process
    {
        let check = format!("{check} feed");
        match probe_feed(&feed, FEED_WITHIN).await {
            Ok(()) => {
                report.add(check, Finding::Pass, "a message comes back");
            }
            Err(error) => {
                report.add(check, Finding::Fail, error).remedy = Some(
                    "near copies in other processes stay until they expire: allow streams to the user",
                );
            }
        }
    }
    backend.close().await;
}

/// How long two of the steps took.
struct Took {
    write: Duration,
    read: Duration,
}

/// What went wrong, and where.
struct Fault {
    step: &'static str,
    error: Error,
}

async fn try_out(backend: &BackendHandle, key: &[u8]) -> Result<Took, Fault> {
    let at = |step| move |error| Fault { step, error };
    let wrong = |step, message| Fault {
        step,
        error: Error::new(ErrorKind::Corrupt, message),
    };
    let clock = SystemClock;
    let value = Bytes::from(format!("{:032x}", rand::random::<u128>()));
    let expires = Some(clock.now().after(LIFE));

    let started = Instant::now();
    let written = backend.set(key, value.clone(), expires).await;
    written.map_err(at("writing"))?;
    let write = started.elapsed();

    let started = Instant::now();
    let held = backend.get(key).await.map_err(at("reading"))?;
    let read = started.elapsed();
    if held.is_none_or(|held| held.bytes != value) {
        return Err(wrong("reading", "what was written is not what is read"));
    }

    if backend.capability().conditional_writes {
        let claimed = backend.set_if(key, Bytes::new(), expires, Condition::Absent);
        if claimed.await.map_err(at("writing on condition"))? {
            let message = "a value was replaced that was only to be written where there is none";
            return Err(wrong("writing on condition", message));
        }
    }

    if !backend.delete(key).await.map_err(at("removing"))? {
        return Err(wrong("removing", "the value was not there any more"));
    }
    if backend.get(key).await.map_err(at("removing"))?.is_some() {
        return Err(wrong("removing", "a removed value is still there"));
    }

    let dies = clock.now().after(SHORT_LIFE);
    let written = backend.set(key, value, Some(dies)).await;
    written.map_err(at("expiring"))?;
    while clock.now() < dies {
        tokio::time::sleep(dies.since(clock.now())).await;
    }
    if backend.get(key).await.map_err(at("expiring"))?.is_some() {
        return Err(wrong("expiring", "a value outlived its time"));
    }
    Ok(Took { write, read })
}

fn milliseconds(took: Duration) -> String {
    format!("{:.2} ms", took.as_secs_f64() * 1e3)
}

async fn check_servers(check: &str, backend: &BackendHandle, report: &mut Report) {
    let servers = match backend.servers().await {
        Ok(servers) => servers,
        Err(error) => {
            let check = format!("{check} server");
            report.add(check, Finding::Warn, error).remedy = Some(
                "memory, eviction and clock were not looked at: allow INFO and TIME to the user",
            );
            return;
        }
    };
    for server in servers {
        let check = format!("{check} server");
        report.add(&check, Finding::Pass, facts(&server));
        for (detail, remedy) in concerns(&server) {
            report.add(&check, Finding::Warn, detail).remedy = Some(remedy);
        }
    }
}

/// What a server says of itself, in one line.
fn facts(server: &ServerFacts) -> String {
    let version = server.version.as_deref().unwrap_or("of an unknown version");
    let mut line = format!("{} {version} at {}", server.software, server.address);
    let size = |bytes| ByteSize(bytes).display().iec().to_string();
    if let Some(used) = server.used_bytes {
        line.push_str(&format!(", {} used", size(used)));
    }
    if let Some(most) = server.max_bytes {
        line.push_str(&format!(" of {}", size(most)));
    }
    if let Some(policy) = &server.eviction_policy {
        line.push_str(&format!(", eviction {policy}"));
    }
    if let Some(evicted) = server.evicted {
        line.push_str(&format!(", {evicted} evicted"));
    }
    if let Some(ahead) = server.clock_ahead_ms {
        line.push_str(&format!(", clock {ahead:+} ms"));
    }
    line.push_str(if server.encrypted {
        ", TLS"
    } else {
        ", no TLS"
    });
    line
}

/// What may go wrong with a server later, and what to do about it.
fn concerns(server: &ServerFacts) -> Vec<(String, &'static str)> {
    let mut concerns = Vec::new();
    if server.max_bytes.is_none() {
        concerns.push((
            "no bound on its memory: it grows until the machine has no more".to_owned(),
            "set maxmemory, and maxmemory-policy to allkeys-lru or allkeys-lfu",
        ));
    }
    match server.eviction_policy.as_deref() {
        Some("noeviction") => concerns.push((
            "when its memory is full it refuses writes".to_owned(),
            "set maxmemory-policy to allkeys-lru or allkeys-lfu",
        )),
        Some(policy) if policy.starts_with("volatile") => concerns.push((
            format!("{policy}: values that do not expire are never evicted"),
            "set maxmemory-policy to allkeys-lru or allkeys-lfu",
        )),
        _ => {}
    }
    if let Some(ahead) = server.clock_ahead_ms
        && ahead.abs() > CLOCKS_APART
    {
        concerns.push((
            format!("its clock is {ahead} ms ahead of this machine's"),
            "synchronize the clocks: expiry is judged by those of the caches",
        ));
    }
    if !server.encrypted && is_remote(&server.address) {
        concerns.push((
            "prompts and answers cross the network unencrypted".to_owned(),
            "use rediss:// or redis_ssl, or keep the server on this machine or a private network",
        ));
    }
    concerns
}

/// Whether an address is another machine's, as far as it says.
fn is_remote(address: &str) -> bool {
    let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
    let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
    let place = place.split('/').next().unwrap_or_default();
    let host = place.rsplit_once(':').map_or(place, |(host, _)| host);
    // Nodes of clusters and masters are named, not addressed.
    !scheme.ends_with("unix") && !host.is_empty() && !host.contains(' ') && !is_local(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_go_wrong_is_told_with_what_to_do() {
        let mut server = ServerFacts::default();
        server.address = "redis://***@cache.example:6379/0".to_owned();
        server.eviction_policy = Some("noeviction".to_owned());
        server.clock_ahead_ms = Some(-9_000);
        let told: Vec<_> = concerns(&server)
            .into_iter()
            .map(|(told, _)| told)
            .collect();
        for part in ["no bound", "refuses writes", "-9000 ms", "unencrypted"] {
            assert!(
                told.iter().any(|told| told.contains(part)),
                "{part}: {told:?}"
            );
        }
        server.address = "127.0.0.1:11211".to_owned();
        server.eviction_policy = Some("volatile-lru".to_owned());
        server.max_bytes = Some(1 << 20);
        server.clock_ahead_ms = Some(3);
        let told = concerns(&server);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].0.starts_with("volatile-lru"));
        server.eviction_policy = Some("allkeys-lru".to_owned());
        assert!(concerns(&server).is_empty());
    }

    #[test]
    fn an_address_is_remote_unless_it_is_of_this_machine() {
        for here in [
            "redis://127.0.0.1:6379/0",
            "redis://***@localhost:6379/0",
            "redis://[::1]:6379/0",
            "unix:///run/redis.sock",
            "127.0.0.1:11211",
            "master mymaster",
        ] {
            assert!(!is_remote(here), "{here}");
        }
        for away in [
            "redis://10.0.0.7:6379/0",
            "cache.example:11211",
            "redis://***@cache:1/0",
        ] {
            assert!(is_remote(away), "{away}");
        }
    }
}
