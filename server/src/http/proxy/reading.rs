//! What was read of a call, kept for those that come again.
//!
//! The repeated call is what a cache is for: its body was parsed, its identity worked out and its headers
//! understood before. All of it depends on the caller's scope, the path, the body, and headers that are named
//! in [`is_read`]; where those are the same bytes, so is what was read. That is a matter of time alone: whether
//! there is an answer, and whether it may be given, is asked anew each time.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use askonce::Scope;
use axum::http::request::Parts;
use axum::http::{HeaderName, header};
use bytes::Bytes;
use quick_cache::sync::Cache;
use quick_cache::{Equivalent, Weighter};

use super::IDENTITY_HEADERS;
use super::give::Asked;
use crate::http::auth::Caller;
use crate::http::control::{Wishes, is_ours};
use crate::upstream::Upstream;

/// Bytes of the largest body whose reading is kept.
const LARGEST: usize = 256 << 10;
/// Bytes of a reading beside the texts, which are there up to twice: as sent, and normalized.
const OVERHEAD: usize = 2 << 10;
/// Bytes for each of which one entry is expected. The cache falls into parts for 32 of them or more, and keeps
/// nothing that is larger than a part.
const FOR_ONE: usize = 32 << 10;

/// What was read of a call that goes through the cache.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) request: askonce::Request,
    pub(super) asked: Asked,
    pub(super) wishes: Wishes,
    /// The upstream that is asked first.
    pub(super) primary: Arc<Upstream>,
    /// The body without what it says to the cache, if it says something.
    pub(super) stripped: Option<Bytes>,
}

/// All that a reading depends on, of a call that is here.
#[derive(Clone, Copy)]
pub(super) struct Called<'a> {
    pub(super) caller: &'a Caller,
    pub(super) parts: &'a Parts,
    pub(super) body: &'a [u8],
}

impl Called<'_> {
    /// The path, the query, the body, and each header that is read by its name and value.
    fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let uri = &self.parts.uri;
        let query = uri.query().unwrap_or_default();
        let headers = self.parts.headers.iter().filter(|(name, _)| is_read(name));
        [uri.path().as_bytes(), query.as_bytes(), self.body]
            .into_iter()
            .chain(headers.flat_map(|(name, value)| [name.as_str().as_bytes(), value.as_bytes()]))
    }

    fn to_key(self) -> ReadingKey {
        ReadingKey {
            scope: self.caller.scope.clone(),
            principal: self.caller.principal.clone(),
            pieces: self.pieces().map(Box::from).collect(),
        }
    }
}

impl Hash for Called<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash(self.pieces(), state);
    }
}

impl Equivalent<ReadingKey> for Called<'_> {
    fn equivalent(&self, key: &ReadingKey) -> bool {
        self.caller.scope == key.scope
            && self.caller.principal == key.principal
            && self.pieces().eq(key.pieces())
    }
}

/// The same of a call that came before. It is compared byte for byte, so the hash need not be a strong one.
#[derive(Debug, PartialEq, Eq)]
struct ReadingKey {
    scope: Scope,
    principal: Option<Arc<str>>,
    pieces: Box<[Box<[u8]>]>,
}

impl ReadingKey {
    fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().map(|piece| &**piece)
    }
}

impl Hash for ReadingKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash(self.pieces(), state);
    }
}

/// Each piece with its length, so that no two lists are the same bytes.
fn hash<'a, H: Hasher>(pieces: impl Iterator<Item = &'a [u8]>, state: &mut H) {
    for piece in pieces {
        piece.hash(state);
    }
}

/// Whether a header has a say in what is read. Keys have theirs by the scope.
fn is_read(name: &HeaderName) -> bool {
    *name == header::CACHE_CONTROL || is_ours(name) || IDENTITY_HEADERS.contains(&name.as_str())
}

/// The readings of calls that came of late.
pub(crate) struct Readings(Cache<ReadingKey, Arc<Reading>, Weigh>);

#[derive(Clone)]
struct Weigh;

impl Weighter<ReadingKey, Arc<Reading>> for Weigh {
    fn weight(&self, key: &ReadingKey, reading: &Arc<Reading>) -> u64 {
        let sent: usize = key.pieces().map(<[u8]>::len).sum();
        let text: usize = reading.request.message_texts().map(str::len).sum();
        (sent + text + OVERHEAD) as u64
    }
}

impl Readings {
    /// Room for so many bytes.
    pub(crate) fn new(most_bytes: u64) -> Self {
        let items = usize::try_from(most_bytes).unwrap_or(usize::MAX) / FOR_ONE;
        Self(Cache::with_weighter(items, most_bytes, Weigh))
    }

    pub(super) fn get(&self, called: &Called<'_>) -> Option<Arc<Reading>> {
        self.0.get(called)
    }

    /// Keeps the reading of a call, if there is room for it.
    pub(super) fn keep(&self, called: &Called<'_>, reading: Reading) -> Arc<Reading> {
        let reading = Arc::new(reading);
        if called.body.len() <= LARGEST {
            self.0.insert(called.to_key(), Arc::clone(&reading));
        }
        reading
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn key(
        scope: &str,
        principal: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> ReadingKey {
        let caller = Caller {
            scope: Scope::tenant(scope),
            principal: Some(principal.into()),
            admin: false,
        };
        let request = Request::post(path);
        let request = headers.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let called = Called {
            caller: &caller,
            parts: &parts,
            body: body.as_bytes(),
        };
        let key = called.to_key();
        assert!(called.equivalent(&key) && hashed(&called) == hashed(&key));
        key
    }

    fn hashed(what: &impl Hash) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        what.hash(&mut hasher);
        hasher.finish()
    }

    #[test]
    fn whatever_is_read_tells_calls_apart_and_nothing_else() {
        let plain = key("a", "p", "/v1/x", &[], "{}");
        for other in [
            key("b", "p", "/v1/x", &[], "{}"),
            key("a", "q", "/v1/x", &[], "{}"),
            key("a", "p", "/v1/y", &[], "{}"),
            key("a", "p", "/v1/x?q=1", &[], "{}"),
            key("a", "p", "/v1/x", &[], "{} "),
            key("a", "p", "/v1/x", &[("cache-control", "no-store")], "{}"),
            key("a", "p", "/v1/x", &[("x-askonce-namespace", "n")], "{}"),
            key("a", "p", "/v1/x", &[("openai-project", "n")], "{}"),
            key("a", "p", "/v1/x", &[("anthropic-version", "n")], "{}"),
        ] {
            assert_ne!(plain, other);
        }
        let other = key(
            "a",
            "p",
            "/v1/x",
            &[("x-request-id", "7"), ("authorization", "k")],
            "{}",
        );
        assert_eq!(plain, other);
        let moved = key(
            "a",
            "p",
            "/v1/x",
            &[("x-askonce-tags", "ab"), ("x-askonce-ttl", "c")],
            "{}",
        );
        let apart = key(
            "a",
            "p",
            "/v1/x",
            &[("x-askonce-tags", "a"), ("x-askonce-ttl", "bc")],
            "{}",
        );
        assert_ne!(moved, apart);
    }
}
