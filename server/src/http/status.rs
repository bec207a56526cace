//! What became of a request in the cache, told in response headers.

pub(crate) use askonce::gateway::status::{bypassed, forwarded, hit, not_forwarded};
use axum::http::HeaderValue;

/// What the cache did for an answer, by its own member of `Cache-Status`: `exact`, `semantic`, `miss`,
/// `bypass`, or `none` where it was not asked.
pub(crate) fn part_of(status: Option<&HeaderValue>) -> &'static str {
    let status = status
        .and_then(|status| status.to_str().ok())
        .and_then(|status| status.strip_prefix("askonce;"));
    match status {
        None => "none",
        Some(status) if status.starts_with(" hit") => match status.ends_with("detail=semantic") {
            true => "semantic",
            false => "exact",
        },
        Some(status) if status.contains("fwd=bypass") => "bypass",
        Some(_) => "miss",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_of_the_cache_is_read_back_from_its_report() {
        for (status, part) in [
            (Some("askonce; hit; ttl=5; detail=semantic"), "semantic"),
            (Some("askonce; hit; detail=exact"), "exact"),
            (Some("askonce; fwd=miss; stored; detail=not_found"), "miss"),
            (Some("askonce; detail=not_found"), "miss"),
            (Some("askonce; fwd=bypass; detail=stream"), "bypass"),
            (Some("upstream; hit; detail=semantic"), "none"),
            (None, "none"),
        ] {
            let status = status.map(HeaderValue::from_static);
            assert_eq!(part_of(status.as_ref()), part, "{status:?}");
        }
    }
}
