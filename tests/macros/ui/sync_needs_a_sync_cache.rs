use askonce::{Cache, cacheable};

#[cacheable(cache = cache, key(id))]
fn find(cache: &Cache, id: u64) -> u64 {
    let _ = cache;
    id
}

fn main() {}
