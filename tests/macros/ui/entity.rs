use askonce::repository::CacheEntity;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, CacheEntity)]
struct Unnamed {
    id: u64,
}

#[derive(Serialize, Deserialize, CacheEntity)]
#[cache_entity(name = "user", key = "number")]
struct WithoutId {
    id: u64,
}

#[derive(Serialize, Deserialize, CacheEntity)]
#[cache_entity(name = "user")]
enum Choice {
    One,
}

#[derive(Serialize, Deserialize, CacheEntity)]
#[cache_entity(name = "user", ttl = 5)]
struct NoUnit {
    id: u64,
}

fn main() {}
