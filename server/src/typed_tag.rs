//! Invalidating a tag of a typed cache that other programs keep in a backend they share with this server.

use std::sync::Arc;

use askonce::backend::{BackendHandle, CacheBackend, Glob};
use askonce::tier::tell_matching;
use askonce::{Cache, Error, ErrorKind, Result, SemanticCache};

/// Makes every value with `tag` in a namespace a miss for all processes, in the backends that processes share
/// or in the one that is named; with `dry_run`, does nothing. Returns the names of those backends.
///
/// `namespace` is written as keys show it: `users`, or `tenants/7` for one within another, a number of
/// digits alone being a number, and a text that looks like one standing after `'`.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`] when there is no such backend, or none that is shared; what the first
/// backend reports that fails.
pub(crate) async fn invalidate(
    cache: &SemanticCache,
    namespace: &str,
    tag: &str,
    backend: Option<&str>,
    dry_run: bool,
) -> Result<Vec<String>> {
    let meant = cache.tiers().iter().filter(|tier| match backend {
        Some(name) => CacheBackend::name(&***tier) == name,
        None => !CacheBackend::capability(&***tier).in_process,
    });
    let mut done = Vec::new();
    for tier in meant {
        if !dry_run {
            let mut cache = Cache::new(Arc::clone(tier) as BackendHandle);
            for part in namespace.split('/').filter(|part| !part.is_empty()) {
                cache = match (part.parse::<u64>(), part.strip_prefix('\'')) {
                    (Ok(number), _) => cache.namespace(number),
                    (_, Some(text)) => cache.namespace(text),
                    _ => cache.namespace(part),
                };
            }
            cache.invalidate_tag(tag).await?;
            if let Some(feed) = CacheBackend::feed(&**tier) {
                // Stacks of tiers in other processes may have near copies of the generations.
                tell_matching(&feed, &Glob::new("!mark:*")).await?;
            }
        }
        done.push(CacheBackend::name(&**tier).to_owned());
    }
    if done.is_empty() {
        let message = "there is no such backend, or none that is shared with other programs";
        return Err(Error::new(ErrorKind::InvalidRequest, message)
            .with("field", "backend")
            .with(
                "remedy",
                "name a backend, or configure one that processes share",
            ));
    }
    Ok(done)
}
