use askonce::{Cache, cacheable};

/// Its text form is an address, or hides what matters.
#[derive(Debug, Clone)]
struct Connection(std::sync::Arc<String>);

#[cacheable(cache = cache, key(connection))]
async fn rows(cache: &Cache, connection: Connection) -> u64 {
    connection.0.len() as u64
}

#[cacheable(cache = cache, key(price))]
async fn tax(cache: &Cache, price: f64) -> u64 {
    price as u64
}

fn main() {}
