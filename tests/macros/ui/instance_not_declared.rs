use askonce::{Cache, cacheable};

struct Users {
    cache: Cache,
    tenant: u64,
}

impl Users {
    #[cacheable(cache = self.cache, namespace = "users", key(id))]
    async fn find(&self, id: u64) -> u64 {
        self.tenant + id
    }

    #[cacheable(cache = self.cache, namespace = "users", instance = tenant, key(id))]
    async fn load(&self, id: u64) -> u64 {
        self.tenant + id
    }
}

fn main() {}
