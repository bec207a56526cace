//! What a request's headers ask of the cache: standard `Cache-Control` and the `X-Askonce-*` headers.
//!
//! Headers for the cache stay with it: [`is_ours`] tells which are not passed on.

use std::time::Duration;

use askonce::{CacheControl, Request};
use axum::http::{HeaderMap, HeaderName, header};

use super::error::Problem;

/// Most tags of one entry, and most characters of one.
const MOST_TAGS: usize = 32;
/// Most characters of one tag or of a namespace.
const LONGEST_NAME: usize = 256;

/// The beginning of the names of our own headers.
const PREFIX: &str = "x-askonce-";

/// What a caller asks of the cache.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wishes {
    /// Freshness, and whether to use the cache at all.
    pub(crate) control: CacheControl,
    /// A part of the scope to keep to.
    pub(crate) namespace: Option<String>,
    /// Labels to invalidate by.
    pub(crate) tags: Vec<String>,
}

impl Wishes {
    /// Reads `Cache-Control` and `X-Askonce-Namespace`, `-Tags` and `-Ttl`.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        let directives: Vec<_> = headers
            .get_all(header::CACHE_CONTROL)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        let mut control = CacheControl::from_header(&directives.join(","));
        if let Some(text) = text(headers, "x-askonce-ttl")? {
            control.ttl = Some(read_span(text).map_err(|problem| problem.field("x-askonce-ttl"))?);
        }
        let namespace = text(headers, "x-askonce-namespace")?.map(str::to_owned);
        if let Some(namespace) = &namespace {
            check_name("a namespace", namespace)
                .map_err(|problem| problem.field("x-askonce-namespace"))?;
        }
        let tags = text(headers, "x-askonce-tags")?.unwrap_or_default();
        let tags = tags
            .split(',')
            .map(str::trim)
            .filter(|tag| !tag.is_empty())
            .map(str::to_owned);
        let tags: Vec<String> = tags.collect();
        check_tags(&tags).map_err(|problem| problem.field("x-askonce-tags"))?;
        Ok(Self {
            control,
            namespace,
            tags,
        })
    }

    /// Joins in what the request's body asks of the cache; gives the request both wishes.
    pub(crate) fn join(&mut self, request: Request) -> Request {
        self.control = std::mem::take(&mut self.control).and(request.control());
        request.cache_control(self.control.clone())
    }

    /// Whether an answer from the cache is welcome.
    pub(crate) fn may_serve(&self) -> bool {
        !self.control.no_cache && self.control.use_cache != Some(false)
    }

    /// Whether the answer may be kept.
    pub(crate) fn may_store(&self) -> bool {
        !self.control.no_store && self.control.use_cache != Some(false)
    }
}

/// Whether a header speaks to this cache alone.
pub(crate) fn is_ours(name: &HeaderName) -> bool {
    name.as_str().starts_with(PREFIX)
}

/// Reads seconds or a duration such as `90m`.
pub(crate) fn read_span(text: &str) -> Result<Duration, Problem> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    humantime::parse_duration(text)
        .map_err(|_| Problem::bad_request("expected seconds, or a duration such as 90m or 24h"))
}

/// Refuses too many tags, and tags that are empty or too long.
pub(crate) fn check_tags(tags: &[String]) -> Result<(), Problem> {
    if tags.len() > MOST_TAGS {
        return Err(Problem::bad_request(format!(
            "an entry has at most {MOST_TAGS} tags"
        )));
    }
    tags.iter().try_for_each(|tag| check_name("a tag", tag))
}

/// Refuses a name that is empty or too long.
pub(crate) fn check_name(what: &str, name: &str) -> Result<(), Problem> {
    if name.is_empty() || name.chars().count() > LONGEST_NAME {
        return Err(Problem::bad_request(format!(
            "{what} has 1 to {LONGEST_NAME} characters"
        )));
    }
    Ok(())
}

fn text<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, Problem> {
    let value = headers.get(name).map(|value| value.to_str()).transpose();
    value
        .map_err(|_| Problem::bad_request("a header holds characters other than ASCII").field(name))
}
