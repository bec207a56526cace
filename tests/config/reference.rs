//! Settings that were written for the reference system.

use std::path::Path;
use std::time::Duration;

use askonce::codec::Serializer;
use askonce::config::{BackendConfig, Sources};
use askonce::{Config, Result};

fn from_file() -> Config {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/reference.yaml");
    Config::load(Sources::named("askonce").file(file))
        .unwrap()
        .settings
}

/// The same as the file, one variable a field.
const VARIABLES: &[(&str, &str)] = &[
    ("NAME", "shop"),
    ("VERSION", "2.1.0"),
    ("ENABLED", "true"),
    ("ENVIRONMENT", "staging"),
    ("DEBUG", "true"),
    ("BACKENDS__0__NAME", "near"),
    ("BACKENDS__0__TYPE", "memory"),
    ("BACKENDS__0__DEFAULT", "false"),
    ("BACKENDS__0__ENABLED", "true"),
    ("BACKENDS__0__DEFAULT_TTL", "300"),
    ("BACKENDS__0__KEY_PREFIX", "app"),
    ("BACKENDS__0__ENABLE_METRICS", "false"),
    ("BACKENDS__0__HEALTH_CHECK_INTERVAL", "15"),
    ("BACKENDS__0__MAX_SIZE", "1000"),
    ("BACKENDS__0__CLEANUP_INTERVAL", "45"),
    ("BACKENDS__1__NAME", "sessions"),
    ("BACKENDS__1__TYPE", "redis"),
    ("BACKENDS__1__DEFAULT", "true"),
    ("BACKENDS__1__DEFAULT_TTL", "1.5"),
    ("BACKENDS__1__KEY_PREFIX", "app"),
    ("BACKENDS__1__ENABLE_METRICS", "true"),
    ("BACKENDS__1__HEALTH_CHECK_INTERVAL", "20"),
    ("BACKENDS__1__REDIS_HOST", "localhost"),
    ("BACKENDS__1__REDIS_PORT", "6380"),
    ("BACKENDS__1__REDIS_DB", "2"),
    ("BACKENDS__1__REDIS_PASSWORD", "p@ss/w#rd"),
    ("BACKENDS__1__REDIS_SSL", "true"),
    ("BACKENDS__1__REDIS_POOL_SIZE", "10"),
    ("BACKENDS__2__NAME", "elsewhere"),
    ("BACKENDS__2__TYPE", "redis"),
    (
        "BACKENDS__2__REDIS_URL",
        "rediss://:secret@cache.example:6380/1",
    ),
    ("BACKENDS__3__NAME", "old"),
    ("BACKENDS__3__TYPE", "memcached"),
    ("BACKENDS__3__ENABLED", "false"),
    ("BACKENDS__3__KEY_PREFIX", ""),
    ("BACKENDS__3__MEMCACHED_HOST", "a"),
    ("BACKENDS__3__MEMCACHED_PORT", "11212"),
    ("BACKENDS__4__NAME", "ring"),
    ("BACKENDS__4__TYPE", "memcached"),
    (
        "BACKENDS__4__MEMCACHED_SERVERS",
        r#"["a:11211", "b:11212"]"#,
    ),
    ("SERVICE__ENABLE_PROTECTION", "false"),
    ("SERVICE__ENABLE_METRICS", "false"),
    ("SERVICE__ENABLE_HEALTH_CHECKS", "false"),
    ("SERVICE__PROTECTION_LOCK_TTL", "40"),
    ("SERVICE__PROTECTION_MAX_WAIT", "2.5"),
    ("SERVICE__PROTECTION_RETRY_INTERVAL", "0.2"),
    ("SERVICE__DEFAULT_BACKEND", "near"),
    ("SERVICE__CIRCUIT_BREAKER_ENABLED", "true"),
    ("SERVICE__CIRCUIT_BREAKER_THRESHOLD", "7"),
    ("SERVICE__DEFAULT_SERIALIZER", "json"),
];

fn load(variables: &[(&str, &str)]) -> Result<Config> {
    let named = variables
        .iter()
        .map(|(name, value)| (format!("LEX_CACHE__{name}"), *value));
    let loaded = Config::load(Sources::named("askonce").variables(named));
    loaded.map(|loaded| loaded.settings)
}

#[test]
fn w_64_the_documented_variables_say_the_same_as_the_file() {
    assert_eq!(load(VARIABLES).unwrap(), from_file());
    let commas = [
        ("BACKENDS__0__TYPE", "memcached"),
        ("BACKENDS__0__MEMCACHED_SERVERS", "a:1, b:2"),
    ];
    let BackendConfig::Memcached(memcached) = &load(&commas).unwrap().backends[0].backend else {
        panic!("not memcached");
    };
    assert_eq!(memcached.servers, ["a:1", "b:2"]);
}

#[test]
fn every_field_of_the_reference_section_arrives() {
    let config = from_file();
    assert_eq!(config.name.as_deref(), Some("shop"));
    assert_eq!(config.version.as_deref(), Some("2.1.0"));
    assert_eq!((config.enabled, config.debug), (true, true));
    assert_eq!(config.environment, "staging");

    let near = &config.backends[0];
    assert_eq!(near.default_ttl, Some(Duration::from_secs(300)));
    assert!(!near.default && near.enabled && !near.enable_metrics);
    assert_eq!(near.health_check_interval, Duration::from_secs(15));
    let BackendConfig::Memory(memory) = &near.backend else {
        panic!("{near:?}");
    };
    assert_eq!((&*memory.name, &*memory.key_prefix), ("near", "app"));
    assert_eq!(memory.max_size, Some(1_000));
    assert_eq!(memory.cleanup_interval, Duration::from_secs(45));

    let sessions = &config.backends[1];
    assert!(sessions.default);
    assert_eq!(sessions.default_ttl, Some(Duration::from_millis(1_500)));
    let BackendConfig::Redis(redis) = &sessions.backend else {
        panic!("{sessions:?}");
    };
    assert_eq!(
        (&*redis.redis_host, redis.redis_port, redis.redis_db),
        ("localhost", 6_380, 2)
    );
    assert_eq!(redis.redis_password.as_deref(), Some("p@ss/w#rd"));
    assert_eq!((redis.redis_ssl, redis.redis_pool_size), (true, 10));
    let BackendConfig::Redis(redis) = &config.backends[2].backend else {
        panic!("not redis");
    };
    assert_eq!(redis.redis_url, "rediss://:secret@cache.example:6380/1");

    let [old, ring] = [3, 4].map(|i| match &config.backends[i].backend {
        BackendConfig::Memcached(memcached) => memcached,
        other => panic!("{other:?}"),
    });
    assert!(!config.backends[3].enabled);
    assert_eq!(
        (&old.servers[..], &*old.key_prefix),
        (&["a:11212".to_owned()][..], "askonce")
    );
    assert_eq!(ring.servers, ["a:11211", "b:11212"]);

    let service = &config.service;
    assert!(!service.enable_protection && !service.enable_metrics);
    assert!(!service.enable_health_checks);
    assert_eq!(service.protection_lock_ttl, Duration::from_secs(40));
    assert_eq!(
        service.protection_max_wait,
        Some(Duration::from_millis(2_500))
    );
    assert_eq!(
        service.protection_retry_interval,
        Duration::from_millis(200)
    );
    assert_eq!(service.default_backend.as_deref(), Some("near"));
    assert_eq!(service.circuit_breaker_enabled, Some(true));
    assert_eq!(service.circuit_breaker_threshold, Some(7));
    assert_eq!(service.default_serializer, Some(Serializer::Json));
}

#[test]
fn w_65_what_is_out_of_range_is_refused_by_field_value_and_place() {
    let memory = |field: &'static str, value: &'static str| {
        let fields = [("BACKENDS__0__TYPE", "memory"), (field, value)];
        load(&fields).unwrap_err().to_string()
    };
    let redis = |field: &'static str, value: &'static str| {
        let fields = [("BACKENDS__0__TYPE", "redis"), (field, value)];
        load(&fields).unwrap_err().to_string()
    };
    for (error, field, value) in [
        (
            memory("BACKENDS__0__MAX_SIZE", "-1"),
            "backends[0].max_size",
            "-1",
        ),
        (
            memory("BACKENDS__0__MAX_SIZE", "0"),
            "backends[0].max_size",
            "0",
        ),
        (
            memory("BACKENDS__0__DEFAULT_TTL", "-5"),
            "backends[0].default_ttl",
            "-5",
        ),
        (
            memory("BACKENDS__0__DEFAULT_TTL", "0"),
            "backends[0].default_ttl",
            "0s",
        ),
        (
            memory("BACKENDS__0__CLEANUP_INTERVAL", "0"),
            "backends[0].cleanup_interval",
            "0ns",
        ),
        (
            memory("BACKENDS__0__HEALTH_CHECK_INTERVAL", "nan"),
            "backends[0].health_check_interval",
            "NaN",
        ),
        (
            memory("SERVICE__PROTECTION_LOCK_TTL", "-1"),
            "service.protection_lock_ttl",
            "-1",
        ),
        (
            memory("SERVICE__PROTECTION_LOCK_TTL", "0"),
            "service.protection_lock_ttl",
            "0ns",
        ),
        (
            memory("SERVICE__PROTECTION_RETRY_INTERVAL", "0"),
            "service.protection_retry_interval",
            "0ns",
        ),
        (
            memory("SERVICE__PROTECTION_MAX_WAIT", "99999"),
            "service.protection_max_wait",
            "99999s",
        ),
        (
            memory("SERVICE__CIRCUIT_BREAKER_THRESHOLD", "0"),
            "service.circuit_breaker_threshold",
            "0",
        ),
        (
            memory("SERVICE__CIRCUIT_BREAKER_THRESHOLD", "-1"),
            "service.circuit_breaker_threshold",
            "-1",
        ),
        (memory("NAME", "a b"), "name", "a b"),
        (memory("VERSION", "1:2"), "version", "1:2"),
        (
            redis("BACKENDS__0__REDIS_PORT", "70000"),
            "backends[0].redis_port",
            "70000",
        ),
        (
            redis("BACKENDS__0__REDIS_POOL_SIZE", "0"),
            "backends[0].redis_pool_size",
            "0",
        ),
    ] {
        assert!(error.contains(&format!("field: {field}")), "{error}");
        assert!(error.contains(&format!("value: {value}")), "{error}");
        assert!(error.contains("set in: LEX_CACHE__"), "{error}");
    }
}

#[test]
fn w_65_what_belongs_nowhere_is_refused_and_says_where_it_was_set() {
    for (type_name, field) in [
        ("memory", "REDIS_HOST"),
        ("redis", "MAX_SIZE"),
        ("redis", "MEMCACHED_PORT"),
        ("memcached", "CLEANUP_INTERVAL"),
    ] {
        let field = format!("BACKENDS__0__{field}");
        let error = load(&[("BACKENDS__0__TYPE", type_name), (&field, "1")]).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("another type"), "{error}");
        assert!(
            error.contains(&format!("set in: LEX_CACHE__{field}")),
            "{error}"
        );
    }
    let error = load(&[("BACKENDS__0__TYPE", "memroy")])
        .unwrap_err()
        .to_string();
    assert!(error.contains("did you mean: memory"), "{error}");
    let error = load(&[("SERVICE__DEFAULT_SERIALIZER", "pickle")])
        .unwrap_err()
        .to_string();
    assert!(error.contains("msgpack"), "{error}");
    let both = [("ENV", "test"), ("ENVIRONMENT", "production")];
    let error = load(&both).unwrap_err().to_string();
    assert!(error.contains("given twice"), "{error}");
}

#[test]
fn what_is_translated_keeps_its_origin() {
    let variables = [
        ("LEX_CACHE__BACKENDS__0__TYPE", "memcached"),
        ("LEX_CACHE__BACKENDS__0__MEMCACHED_HOST", "not a host"),
        ("LEX_CACHE__ENV", "test"),
    ];
    let sources = Sources::named("askonce").variables(variables);
    let loaded = sources.load::<Config>().unwrap();
    assert_eq!(loaded.origin("environment"), Some("LEX_CACHE__ENV"));
    let origin = loaded.origin("backends[0].servers");
    assert_eq!(origin, Some("LEX_CACHE__BACKENDS__0__MEMCACHED_HOST"));
    assert!(
        Config::load(sources)
            .unwrap_err()
            .to_string()
            .contains("not a host")
    );
}

#[test]
fn w_60_the_environment_is_that_of_the_process_unless_a_field_says_otherwise() {
    for (variables, environment) in [
        (&[("LEX_ENV", "test")][..], "test"),
        (&[("LEX_ENV", "live"), ("LEX_PROFILE", "blue")], "live"),
        (&[("ASKONCE_ENV", "qa"), ("LEX_ENV", "live")], "qa"),
        (&[("LEX_PROFILE", "blue")], "blue"),
        (
            &[("LEX_ENV", "live"), ("LEX_CACHE__ENVIRONMENT", "test")],
            "test",
        ),
        (&[], "development"),
    ] {
        let sources = Sources::named("askonce").variables(variables.iter().copied());
        let loaded = Config::load(sources).unwrap();
        assert_eq!(loaded.settings.environment, environment);
    }
}
