use askonce::typed::{CacheValue, Key, Ttl};
use askonce::{Cache, Secret, cacheable};
use serde::{Deserialize, Serialize};

#[cacheable(cache = cache, key(id))]
async fn token(cache: &Cache, id: u64) -> Secret<String> {
    Secret::new(id.to_string())
}

#[cacheable(cache = cache, key(token))]
async fn user(cache: &Cache, token: Secret<String>) -> u64 {
    token.expose().len() as u64
}

#[derive(Serialize, Deserialize, CacheValue)]
#[cache_value(name = "login")]
struct Login {
    password: Secret<String>,
}

async fn set(cache: &Cache, token: Secret<String>) {
    let _ = cache.set(&Key::new("token"), &token, Ttl::Forever).await;
}

fn main() {}
