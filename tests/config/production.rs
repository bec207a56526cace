//! What production refuses.

use askonce::config::{BackendConfig, Sources};
use askonce::{Caches, Config};

const STRONG: &str = "kV9#tL2m-Qx7wRzB";

fn config(environment: &str, backend: &str) -> Config {
    let json = format!(r#"{{"environment": "{environment}", "backends": [{backend}]}}"#);
    serde_json::from_str(&json).unwrap()
}

fn refused(backend: &str) -> String {
    let elsewhere = config("staging", backend).validate();
    assert!(elsewhere.is_ok(), "only production minds: {elsewhere:?}");
    let off = backend.replacen('{', r#"{"enabled": false, "#, 1);
    let off = format!(r#"{off}, {{"type": "memory"}}"#);
    config("production", &off).validate().unwrap();
    let error = config("production", backend).validate().unwrap_err();
    let shown = format!("{error} {error:?}");
    assert!(shown.contains("remedy"), "{shown}");
    for secret in ["password1", "p%61ssword1", "hunter", STRONG] {
        assert!(!shown.contains(secret), "{shown}");
    }
    shown
}

#[test]
fn w_60_missing_weak_and_encoded_passwords_stop_production_wherever_they_stand() {
    let strong = format!("\"redis_password\": \"{STRONG}\"");
    for (backend, field) in [
        (r#"{"type": "redis"}"#.to_owned(), "redis_password"),
        (r#"{"type": "redis", "redis_password": "password1"}"#.to_owned(), "redis_password"),
        (r#"{"type": "redis", "redis_url": "rediss://cache.example"}"#.to_owned(), "redis_url"),
        (
            r#"{"type": "redis", "redis_url": "rediss://:p%61ssword1234@cache.example"}"#.to_owned(),
            "redis_url",
        ),
        (
            format!(r#"{{"type": "redis", "sentinels": ["localhost:26379"], {strong}}}"#),
            "sentinel_password",
        ),
        (
            r#"{"type": "redis", "cluster_nodes": ["localhost:7000"], "redis_password": "hunter2"}"#.to_owned(),
            "redis_password",
        ),
        // What is private is not what is secret.
        (r#"{"type": "redis", "redis_host": "cache", "trusted_network": true}"#.to_owned(), "redis_password"),
    ] {
        let error = refused(&backend);
        assert!(error.contains(&format!("field: backends[0].{field},")), "{error}");
        assert!(error.contains("strong password"), "{error}");
    }
}

#[test]
fn w_60_plain_text_to_other_machines_stops_production_unless_the_network_is_trusted() {
    let redis = |more: &str| {
        format!(
            r#"{{"type": "redis", "redis_password": "{STRONG}", "sentinel_password": "{STRONG}"{more}}}"#
        )
    };
    for (more, field) in [
        (r#", "redis_host": "10.0.0.7""#, "redis_host"),
        (
            r#", "sentinels": ["localhost:26379", "s2.example:26379"]"#,
            "sentinels",
        ),
        (r#", "cluster_nodes": ["c1.example:7000"]"#, "cluster_nodes"),
    ] {
        let error = refused(&redis(more));
        assert!(
            error.contains(&format!("field: backends[0].{field},")),
            "{error}"
        );
        assert!(error.contains("unencrypted"), "{error}");
        for lifted in [r#", "trusted_network": true"#, r#", "redis_ssl": true"#] {
            let backend = redis(&format!("{more}{lifted}"));
            config("production", &backend).validate().unwrap();
        }
    }
    // A certificate that nobody looks at proves nothing.
    let url = format!(
        r#"{{"type": "redis", "redis_url": "rediss://:{STRONG}@cache.example/#insecure"}}"#
    );
    assert!(refused(&url.replace("V9#t", "V9%23t")).contains("unencrypted"));
    config("production", &redis("")).validate().unwrap();
}

#[test]
fn w_60_memcached_on_other_machines_stops_production_unless_the_network_is_trusted() {
    let servers = r#"{"type": "memcached", "servers": ["[::1]:11211", "cache.example:11211"]}"#;
    let error = refused(servers);
    assert!(error.contains("field: backends[0].servers[1],"), "{error}");
    let trusted = servers.replacen('{', r#"{"trusted_network": true, "#, 1);
    config("production", &trusted).validate().unwrap();
    let local = servers.replace("cache.example", "127.0.0.1");
    config("production", &local).validate().unwrap();
}

#[test]
fn w_60_production_is_production_in_every_spelling_also_from_the_environment_of_the_process() {
    for name in ["prod", "PRODUCTION", "live", "prod-eu", " prd "] {
        config(name, r#"{"type": "redis"}"#).validate().unwrap_err();
        let sources = Sources::named("askonce").variables([
            ("LEX_ENV", name),
            ("LEX_CACHE__BACKENDS__0__TYPE", "redis"),
            ("LEX_CACHE__BACKENDS__0__REDIS_PASSWORD", "hunter2hunter2"),
        ]);
        let error = Config::load(sources).unwrap_err().to_string();
        assert!(
            error.contains("set in: LEX_CACHE__BACKENDS__0__REDIS_PASSWORD"),
            "{error}"
        );
        assert!(!error.contains("hunter"), "{error}");
    }
}

#[tokio::test]
async fn w_60_weak_secrets_of_codecs_are_refused_everywhere() {
    for secret in [
        "",
        "change-me",
        "0000000000000000000000000000000000000000000000000000000000000000",
    ] {
        let json = format!(
            r#"{{"codec": {{"protection": {{"kind": "mac", "keys": [{{"id": 1, "secret": "{secret}"}}]}}}}}}"#
        );
        let config: Config = serde_json::from_str(&json).unwrap();
        let error = Caches::from_config(&config).await.unwrap_err().to_string();
        assert!(error.contains("codec.protection.keys[0].secret"), "{error}");
        assert!(secret.is_empty() || !error.contains(secret), "{error}");
    }
}

#[test]
fn w_61_passwords_need_no_escaping_in_their_own_field_and_reach_the_server_as_they_are() {
    // As strong as it looks only if it is read whole: cut at the first `/` or `#` it would be short.
    let odd = r#"{"type": "redis", "redis_password": "p@ss/w#rd:%?Qx7&=+ü"}"#;
    config("production", odd).validate().unwrap();
}

#[test]
fn w_61_secrets_are_in_no_debug_form_no_serialized_form_and_no_error() {
    let canary = |i: usize| format!("canary{i}");
    let hex = "d31b8c025fe7946a10be772dc841f936830ea55cd0691fb248ed97247bca003f";
    let json = format!(
        r#"{{
            "backends": [
                {{"type": "redis", "name": "a", "redis_url": "redis://canary0:canary1@host"}},
                {{"type": "redis", "name": "b", "redis_username": "canary2", "redis_password": "canary3",
                  "sentinel_username": "canary4", "sentinel_password": "canary5", "sentinels": ["s:1"]}},
                {{"type": "disk", "name": "c", "api_key": "canary6", "url": "x://me:canary7@host",
                  "auth": {{"token": "canary8"}}}}
            ],
            "codec": {{"protection": {{"kind": "mac", "keys": [{{"id": 1, "secret": "{hex}"}}]}}}}
        }}"#
    );
    let config: Config = serde_json::from_str(&json).unwrap();
    let mut shown = format!("{config:?} {config:#?}");
    shown.push_str(&serde_json::to_string(&config).unwrap());
    shown.push_str(&format!("{:?}", Caches::builder().config(&config)));
    // Each way to be wrong says something: an unknown type, production, and one more bad field each.
    let mut broken = vec![config.clone()];
    let mut live = config.clone();
    live.environment = "live".to_owned();
    live.backends.truncate(2);
    broken.push(live);
    for i in 0..2 {
        let mut config = config.clone();
        config.backends.truncate(2);
        let BackendConfig::Redis(redis) = &mut config.backends[i].backend else {
            panic!("not redis");
        };
        redis.redis_url.push_str("/not a database");
        broken.push(config);
    }
    for config in broken {
        let error = config.validate().unwrap_err();
        shown.push_str(&format!("{error} {error:?}"));
    }
    for i in 0..9 {
        assert!(!shown.contains(&canary(i)), "{} in {shown}", canary(i));
    }
    assert!(!shown.contains(hex), "{shown}");
}
