//! What a request's headers ask of the cache: standard `Cache-Control` and the `X-Askonce-*` headers.
//!
//! Headers for the cache stay with it: [`is_ours`] tells which are not passed on.

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderMap, HeaderName, header};

use crate::error::{Error, ErrorKind, Result};
use crate::request::{CacheControl, Request};

/// Most tags of one entry, and most characters of one.
const MOST_TAGS: usize = 32;
/// Most bytes of one tag or of a namespace.
const LONGEST_NAME: usize = 256;

/// The beginning of the names of our own headers.
const PREFIX: &str = "x-askonce-";

/// What a caller asks of the cache.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// Freshness, and whether to use the cache at all.
    pub control: CacheControl,
    /// A part of the scope to keep to.
    pub namespace: Option<String>,
    /// Labels to invalidate by.
    pub tags: Vec<String>,
    /// Tools whose calls may be answered from the cache.
    pub safe_tools: Vec<String>,
}

impl Wishes {
    /// Reads `Cache-Control` and `X-Askonce-Namespace`, `-Tags`, `-Ttl`, `-Policy` and `-Safe-Tools`.
    ///
    /// # Errors
    /// `InvalidRequest` naming the header that cannot be read.
    pub fn read(headers: &HeaderMap) -> Result<Self> {
        let directives: Vec<_> = headers
            .get_all(header::CACHE_CONTROL)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        let mut control = CacheControl::from_header(&directives.join(","));
        if let Some(text) = text(headers, "x-askonce-ttl")? {
            control.ttl =
                Some(read_span(text).map_err(|error| error.with("field", "x-askonce-ttl"))?);
        }
        control.exact_only = match text(headers, "x-askonce-policy")?.map(str::trim) {
            None | Some("default") => false,
            Some("exact_only") => true,
            Some(_) => {
                let expected = "expected exact_only, or default for the policy that is configured";
                return Err(bad_request(expected).with("field", "x-askonce-policy"));
            }
        };
        let namespace = text(headers, "x-askonce-namespace")?.map(str::to_owned);
        if let Some(namespace) = &namespace {
            check_name("a namespace", namespace)
                .map_err(|error| error.with("field", "x-askonce-namespace"))?;
        }
        let tags = listed(headers, "x-askonce-tags")?;
        check_tags(&tags).map_err(|error| error.with("field", "x-askonce-tags"))?;
        let safe_tools = listed(headers, "x-askonce-safe-tools")?;
        check_tools(&safe_tools).map_err(|error| error.with("field", "x-askonce-safe-tools"))?;
        Ok(Self {
            control,
            namespace,
            tags,
            safe_tools,
        })
    }

    /// Joins in what the request's body asks of the cache; gives the request both wishes.
    pub fn join(&mut self, request: Request) -> Request {
        self.control = std::mem::take(&mut self.control).and(request.control());
        let tools = self.safe_tools.iter().map(String::as_str);
        tools.fold(
            request.cache_control(self.control.clone()),
            Request::safe_tool,
        )
    }

    /// Whether an answer from the cache is welcome.
    #[must_use]
    pub fn may_serve(&self) -> bool {
        !self.control.no_cache && self.control.use_cache != Some(false)
    }

    /// Whether the answer may be kept.
    #[must_use]
    pub fn may_store(&self) -> bool {
        !self.control.no_store && self.control.use_cache != Some(false)
    }
}

/// Whether a header speaks to this cache alone.
#[must_use]
pub fn is_ours(name: &HeaderName) -> bool {
    name.as_str().starts_with(PREFIX)
}

/// Reads seconds or a duration such as `90m`.
///
/// # Errors
/// `InvalidRequest` when the text is neither.
pub fn read_span(text: &str) -> Result<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    humantime::parse_duration(text)
        .map_err(|_| bad_request("expected seconds, or a duration such as 90m or 24h"))
}

/// Refuses too many tags, and tags that are empty or too long.
///
/// # Errors
/// `InvalidRequest` that tells the limit.
pub fn check_tags(tags: &[String]) -> Result<()> {
    if tags.len() > MOST_TAGS {
        return Err(bad_request(format!(
            "an entry has at most {MOST_TAGS} tags"
        )));
    }
    tags.iter().try_for_each(|tag| check_name("a tag", tag))
}

/// Refuses too many tools, and names that are too long.
fn check_tools(tools: &[String]) -> Result<()> {
    if tools.len() > MOST_TAGS {
        return Err(bad_request(format!(
            "a request marks at most {MOST_TAGS} tools safe"
        )));
    }
    tools.iter().try_for_each(|tool| check_name("a tool", tool))
}

/// Refuses a name that is empty or too long.
///
/// # Errors
/// `InvalidRequest` that tells the limit.
pub fn check_name(what: &str, name: &str) -> Result<()> {
    if name.is_empty() || name.chars().count() > LONGEST_NAME {
        return Err(bad_request(format!(
            "{what} has 1 to {LONGEST_NAME} characters"
        )));
    }
    Ok(())
}

/// The items of a header whose value is a list.
fn listed(headers: &HeaderMap, name: &'static str) -> Result<Vec<String>> {
    let items = text(headers, name)?.unwrap_or_default();
    let items = items.split(',').map(str::trim);
    Ok(items
        .filter(|item| !item.is_empty())
        .map(str::to_owned)
        .collect())
}

fn text<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>> {
    let value = headers.get(name).map(|value| value.to_str()).transpose();
    value.map_err(|_| bad_request("a header holds characters other than ASCII").with("field", name))
}

fn bad_request(what: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidRequest, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &'static str, value: &'static str) -> Result<Wishes> {
        Wishes::read(&HeaderMap::from_iter([(
            HeaderName::from_static(name),
            http::HeaderValue::from_static(value),
        )]))
    }

    #[test]
    fn a_policy_can_only_be_stricter_than_the_configured_one() {
        let asked = read("x-askonce-policy", " exact_only ").unwrap();
        assert!(asked.control.exact_only);
        let asked = read("x-askonce-policy", "default").unwrap();
        assert!(!asked.control.exact_only);
        for wider in ["threshold:0.5", "calibrated", "", "EXACT"] {
            let error = read("x-askonce-policy", wider).unwrap_err();
            let field = ("field", "x-askonce-policy".to_owned());
            assert!(error.context().contains(&field), "{wider}");
        }
    }

    #[test]
    fn a_wish_for_the_same_request_only_outlasts_what_the_body_says() {
        let mut wishes = read("x-askonce-policy", "exact_only").unwrap();
        let body = serde_json::json!({
            "model": "m",
            "messages": [{ "role": "user", "content": "Why?" }], "cache": { "ttl": 60 },
        });
        let request = Request::from_openai_chat(&body, crate::Scope::local()).unwrap();
        let request = wishes.join(request);
        assert!(request.control().exact_only);
        assert_eq!(request.control().ttl, Some(Duration::from_secs(60)));
        assert!(crate::LookupOptions::of(&request).exact_only);
    }
}
