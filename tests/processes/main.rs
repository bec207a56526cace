//! Two operating-system processes, each with a memory tier of its own, over one Redis.
//!
//! What one of them has replaced or deleted the other must not serve past the bound: when news arrives,
//! when all news is lost, and when the Redis is killed, hangs, and comes back in between. How long news
//! takes is printed, not asserted.
#![cfg(feature = "redis")]

mod child;
#[path = "../support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use child::Process;
use support::server::RedisServer;

/// A bound that no test lives to see: what goes, goes for another reason.
const HOUR: Duration = Duration::from_secs(3600);

fn two(server: &RedisServer, bound: Duration) -> [Process; 2] {
    let config = server.config();
    [
        Process::start(&config, bound),
        Process::start(&config, bound),
    ]
}

/// Puts a value where both have it near.
fn both_have(one: &mut Process, other: &mut Process, key: &str, value: &str) {
    one.set(key, value);
    other.awaits(key, value);
    // The news of the value itself may still come, and drop the first copy.
    let started = Instant::now();
    while other.ask(&format!("depth {key}")) != "0" {
        assert!(started.elapsed() < Duration::from_secs(60), "never near");
    }
}

#[test]
fn what_one_process_changes_the_other_hears_of() {
    let Some(server) = RedisServer::start() else {
        return;
    };
    let [mut one, mut other] = two(&server, HOUR);
    let mut took = Vec::new();
    let mut measured = |other: &mut Process, expected: &str| {
        let acknowledged = Instant::now();
        other.awaits("k", expected);
        took.push(acknowledged.elapsed());
    };
    for round in 0..50 {
        both_have(&mut one, &mut other, "k", &format!("{round}-old"));
        let new = format!("{round}-new");
        one.set("k", &new);
        measured(&mut other, &new);
        both_have(&mut one, &mut other, "k", &new);
        assert_eq!(one.ask("delete k"), "true");
        measured(&mut other, "none");
    }
    took.sort();
    println!(
        "from the acknowledgement in one process to the change in the other: median {:?}, longest {:?} of {}",
        took[took.len() / 2],
        took[took.len() - 1],
        took.len()
    );
}

#[test]
fn with_all_news_lost_nothing_is_served_past_the_bound() {
    let Some(server) = RedisServer::start() else {
        return;
    };
    let bound = Duration::from_secs(4);
    let [mut one, mut other] = two(&server, bound);
    for (key, command, after) in [
        ("replaced", "set replaced new", "new"),
        ("deleted", "delete deleted", "none"),
    ] {
        both_have(&mut one, &mut other, key, "old");
        other.ask("deaf");
        assert_ne!(one.ask(command), "error");
        let acknowledged = Instant::now();
        let mut served_old = 0;
        loop {
            let asked = acknowledged.elapsed();
            let value = other.get(key);
            if asked >= bound {
                assert_eq!(value, after, "{key}: {asked:?} after the change");
                break;
            }
            assert!(value == "old" || value == after, "{key}: {value}");
            served_old += usize::from(value == "old");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(served_old > 0, "no news was lost, so nothing is shown");
        println!("{key}: the old value was served {served_old} times within {bound:?}");
    }
}

#[test]
fn a_redis_that_is_killed_and_comes_back_empty_leaves_no_old_copies() {
    let Some(server) = RedisServer::start() else {
        return;
    };
    let (port, [mut one, mut other]) = (server.port, two(&server, HOUR));
    both_have(&mut one, &mut other, "deleted", "old");
    both_have(&mut one, &mut other, "untouched", "old");
    drop(server);
    assert_eq!(other.ask("suspect"), "ok");
    assert_eq!(other.get("untouched"), "old", "what is near is served");
    assert_eq!(one.ask("delete deleted"), "error", "the caller is told");
    assert_eq!(one.get("deleted"), "none", "and it holds there");
    one.set("set", "new");
    assert_eq!(one.get("set"), "new");

    let server = RedisServer::start_at(port).expect("the port is free again");
    for process in [&mut one, &mut other] {
        process.becomes_trusted();
        for key in ["deleted", "untouched"] {
            process.awaits(key, "none");
        }
    }
    assert_eq!(other.get("set"), "none", "it was never shared");
    both_have(&mut one, &mut other, "set", "newer");
    assert_eq!(one.ask("delete set"), "true");
    other.awaits("set", "none");
    assert_eq!(one.ask("owed"), "0");
    drop(server);
}

#[test]
fn a_delete_while_redis_hangs_is_repeated_when_it_goes_on() {
    let Some(mut server) = RedisServer::start() else {
        return;
    };
    let [mut one, mut other] = two(&server, HOUR);
    both_have(&mut one, &mut other, "k", "old");
    server.hang();
    assert_eq!(one.ask("delete k"), "error");
    assert_eq!(one.get("k"), "none");
    server.wake();
    other.awaits("k", "none");
    assert_eq!(one.get("k"), "none");
    let started = Instant::now();
    while one.ask("owed") != "0" {
        assert!(started.elapsed() < Duration::from_secs(60), "still owed");
        std::thread::sleep(Duration::from_millis(20));
    }
    one.becomes_trusted();
    other.becomes_trusted();
    both_have(&mut other, &mut one, "k", "new");
}
