use askonce::{Cache, cache_invalidate, cacheable};

#[cacheable(cache = cache, key(id), backend = "redis")]
async fn by_name(cache: &Cache, id: u64) -> u64 {
    id
}

#[cacheable(cache = cache, key(id), sync = false)]
async fn alone(cache: &Cache, id: u64) -> u64 {
    id
}

#[cacheable(cache = cache, key(id), tags = ["user:{name}"])]
async fn tagged(cache: &Cache, id: u64) -> u64 {
    id
}

#[cacheable(cache = cache, key(id), tags = [id])]
async fn tagged_by_a_number(cache: &Cache, id: u64) -> u64 {
    id
}

#[cacheable(cache = cache, key(id), cache_err = "1m")]
async fn never_fails(cache: &Cache, id: u64) -> u64 {
    id
}

#[cache_invalidate(cache = cache, tags = ["users"], all)]
async fn two_targets(cache: &Cache) {}

#[cache_invalidate(cache = cache, all, before, only_if_ok = false)]
async fn two_moments(cache: &Cache) {}

fn main() {}
