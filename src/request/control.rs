//! What a caller asks of the cache for one request.
//!
//! Two spellings are read: the `Cache-Control` request header (RFC 9111, section 5.2.1) and the
//! `cache` object that LiteLLM clients put into the body. Either can only make the cache do less,
//! or keep an answer for another time: no control widens who may share an answer, and none is
//! part of a key.

use std::time::Duration;

use serde_json::Value;

use super::read::unexpected;
use crate::Result;

/// The caller's wishes. The default asks for nothing.
///
/// ```
/// use std::time::Duration;
/// use askonce::CacheControl;
///
/// let control = CacheControl::from_header("no-store, max-age=60");
/// assert!(control.no_store && !control.no_cache);
/// assert_eq!(control.max_age, Some(Duration::from_secs(60)));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheControl {
    /// Do not answer from the cache; the fresh answer takes the stored one's place.
    pub no_cache: bool,
    /// Do not store the answer.
    pub no_store: bool,
    /// Answer from the cache or not at all.
    pub only_if_cached: bool,
    /// The greatest age of a stored answer that is still welcome.
    pub max_age: Option<Duration>,
    /// How long a stored answer must stay fresh from now on.
    pub min_fresh: Option<Duration>,
    /// By how much a stored answer may have outlived its freshness; [`Duration::MAX`] if the
    /// caller does not mind.
    pub max_stale: Option<Duration>,
    /// How long to keep the answer if it is stored.
    pub ttl: Option<Duration>,
    /// Whether the caller opted in or out of a cache that is otherwise off by default.
    pub use_cache: Option<bool>,
    /// Answer from the cache with the same request's answer only, with no similar one's.
    pub exact_only: bool,
}

impl CacheControl {
    /// Reads a `Cache-Control` request header. Join several headers with commas.
    ///
    /// Unknown directives are skipped. A time that cannot be read counts as zero seconds (for
    /// `min-fresh`, as forever): a garbled wish for freshness must not be dropped.
    #[must_use]
    pub fn from_header(header: &str) -> Self {
        let mut control = Self::default();
        for directive in split_directives(header) {
            let (name, value) = match directive.split_once('=') {
                Some((name, value)) => (name.trim(), Some(value.trim().trim_matches('"'))),
                None => (directive.trim(), None),
            };
            let control = &mut control;
            match name.to_ascii_lowercase().as_str() {
                "no-cache" => control.no_cache = true,
                "no-store" => control.no_store = true,
                "only-if-cached" => control.only_if_cached = true,
                "max-age" => least(&mut control.max_age, seconds(value, Duration::ZERO)),
                "min-fresh" => most(&mut control.min_fresh, seconds(value, Duration::MAX)),
                "max-stale" if value.is_none() => least(&mut control.max_stale, Duration::MAX),
                "max-stale" => least(&mut control.max_stale, seconds(value, Duration::ZERO)),
                _ => {}
            }
        }
        control
    }

    /// Both wishes at once, as if one caller had made them: where both name a bound, the stricter
    /// one counts.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.no_cache |= other.no_cache;
        self.no_store |= other.no_store;
        self.only_if_cached |= other.only_if_cached;
        self.exact_only |= other.exact_only;
        if let Some(age) = other.max_age {
            least(&mut self.max_age, age);
        }
        if let Some(fresh) = other.min_fresh {
            most(&mut self.min_fresh, fresh);
        }
        if let Some(stale) = other.max_stale {
            least(&mut self.max_stale, stale);
        }
        if let Some(ttl) = other.ttl {
            least(&mut self.ttl, ttl);
        }
        if let Some(wanted) = other.use_cache {
            self.use_cache = Some(wanted && self.use_cache.unwrap_or(true));
        }
        self
    }

    /// Whether a stored answer may be served, as far as the caller is concerned: `age` is the time
    /// since it was made, `lifetime` how long it counts as fresh.
    #[must_use]
    pub fn accepts(&self, age: Duration, lifetime: Duration) -> bool {
        if self.no_cache {
            return false;
        }
        let lifetime = lifetime.min(self.max_age.unwrap_or(Duration::MAX));
        let stale = age.saturating_sub(lifetime);
        let fresh_for = lifetime.saturating_sub(age);
        stale <= self.max_stale.unwrap_or_default()
            && fresh_for >= self.min_fresh.unwrap_or_default()
    }
}

/// Splits at commas outside of quotes.
fn split_directives(header: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    header.split(move |c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    })
}

fn seconds(value: Option<&str>, unreadable: Duration) -> Duration {
    let Some(digits) = value.filter(|v| !v.is_empty() && v.bytes().all(|b| b.is_ascii_digit()))
    else {
        return unreadable;
    };
    // Only overflow is left to fail.
    digits.parse().map_or(Duration::MAX, Duration::from_secs)
}

fn least(slot: &mut Option<Duration>, value: Duration) {
    *slot = Some(slot.map_or(value, |old| old.min(value)));
}

fn most(slot: &mut Option<Duration>, value: Duration) {
    *slot = Some(slot.map_or(value, |old| old.max(value)));
}

/// Reads the body's `cache` object: the controls and the namespace. Unknown fields are skipped.
pub(super) fn read_body_object(object: &Value) -> Result<(CacheControl, Option<String>)> {
    let Value::Object(fields) = object else {
        return Err(unexpected("cache", "an object", Some(object)));
    };
    let mut control = CacheControl::default();
    let mut namespace = None;
    for (name, value) in fields {
        match name.as_str() {
            _ if value.is_null() => {}
            "no-cache" => control.no_cache = flag("cache.no-cache", value)?,
            "no-store" => control.no_store = flag("cache.no-store", value)?,
            "use-cache" => control.use_cache = Some(flag("cache.use-cache", value)?),
            "ttl" => control.ttl = Some(time("cache.ttl", value)?),
            "s-maxage" => least(&mut control.max_age, time("cache.s-maxage", value)?),
            "s-max-age" => least(&mut control.max_age, time("cache.s-max-age", value)?),
            "namespace" => match value {
                Value::String(name) => namespace = Some(name.clone()),
                other => return Err(unexpected("cache.namespace", "a string", Some(other))),
            },
            _ => {}
        }
    }
    Ok((control, namespace))
}

fn flag(field: &'static str, value: &Value) -> Result<bool> {
    value
        .as_bool()
        .ok_or_else(|| unexpected(field, "true or false", Some(value)))
}

fn time(field: &'static str, value: &Value) -> Result<Duration> {
    value
        .as_f64()
        .filter(|seconds| *seconds >= 0.0)
        .map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
        .ok_or_else(|| unexpected(field, "seconds, zero or more", Some(value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn headers_are_read_in_any_case_and_order() {
        let control = CacheControl::from_header(
            r#" Max-Age="30" ,only-if-cached, x="a,no-store", MAX-STALE, min-fresh=5,,"#,
        );
        assert_eq!(control.max_age, Some(secs(30)));
        assert_eq!(control.max_stale, Some(Duration::MAX));
        assert_eq!(control.min_fresh, Some(secs(5)));
        assert!(control.only_if_cached);
        assert!(
            !control.no_store,
            "a quoted comma does not start a directive"
        );
    }

    #[test]
    fn a_garbled_time_is_the_strictest_one() {
        for header in ["max-age", "max-age=", "max-age=-1", "max-age=1h"] {
            assert_eq!(
                CacheControl::from_header(header).max_age,
                Some(Duration::ZERO),
                "{header}"
            );
        }
        let huge = CacheControl::from_header("max-age=99999999999999999999999");
        assert_eq!(huge.max_age, Some(Duration::MAX));
        assert_eq!(
            CacheControl::from_header("max-age=9, max-age=3").max_age,
            Some(secs(3))
        );
    }

    #[test]
    fn ages_and_lifetimes_are_weighed_as_rfc_9111_says() {
        let accepts = |header: &str, age, lifetime| {
            CacheControl::from_header(header).accepts(secs(age), secs(lifetime))
        };
        assert!(accepts("", 10, 10));
        assert!(!accepts("", 11, 10));
        assert!(!accepts("no-cache", 0, 10));
        assert!(accepts("max-age=5", 5, 10));
        assert!(!accepts("max-age=5", 6, 10));
        assert!(accepts("max-age=5, max-stale=2", 7, 10));
        assert!(accepts("max-stale", 1_000, 10));
        assert!(accepts("min-fresh=4", 6, 10));
        assert!(!accepts("min-fresh=4", 7, 10));
    }

    #[test]
    fn the_body_object_is_read_and_checked() {
        let object = json!({
            "ttl": 600, "s-maxage": 60, "s-max-age": 30.5, "no-store": true, "no-cache": null,
            "use-cache": true, "namespace": "faq", "later": {},
        });
        let (control, namespace) = read_body_object(&object).unwrap();
        assert_eq!(control.ttl, Some(secs(600)));
        assert_eq!(control.max_age, Some(Duration::from_millis(30_500)));
        assert!(control.no_store && !control.no_cache);
        assert_eq!(control.use_cache, Some(true));
        assert_eq!(namespace.as_deref(), Some("faq"));

        for (object, field) in [
            (json!(true), "cache"),
            (json!({ "ttl": "600" }), "cache.ttl"),
            (json!({ "ttl": -1 }), "cache.ttl"),
            (json!({ "no-store": 1 }), "cache.no-store"),
            (json!({ "namespace": 7 }), "cache.namespace"),
        ] {
            let error = read_body_object(&object).unwrap_err();
            assert_eq!(error.context()[0], ("field", field.to_owned()));
        }
        let (control, _) = read_body_object(&json!({ "ttl": 1e300 })).unwrap();
        assert_eq!(control.ttl, Some(Duration::MAX));
    }

    proptest! {
        #[test]
        fn combining_controls_never_accepts_more_than_either(
            a in "(no-cache|max-age=[0-9]|min-fresh=[0-9]|x)(,max-age=[0-9])?",
            b in "(no-cache|max-age=[0-9]|min-fresh=[0-9]|x)(,max-age=[0-9])?",
            age in 0_u64..20,
            lifetime in 0_u64..20,
        ) {
            let (a, b) = (CacheControl::from_header(&a), CacheControl::from_header(&b));
            let (age, lifetime) = (secs(age), secs(lifetime));
            if a.clone().and(&b).accepts(age, lifetime) {
                prop_assert!(a.accepts(age, lifetime) && b.accepts(age, lifetime));
            }
        }

        #[test]
        fn any_header_can_be_read(header in r"\PC*") {
            let _ = CacheControl::from_header(&header);
        }
    }
}
