//! What became of a request in the cache, told in response headers: `Cache-Status` (RFC 9211), `Age`
//! and `X-Askonce-*`.
//!
//! | `Cache-Status: askonce; ...` | when |
//! |---|---|
//! | `hit; ttl=..; detail=exact\|semantic` | answered from the cache |
//! | `fwd=miss; stored; detail=<reason>` | nothing to serve; the answer is kept now |
//! | `fwd=request; ...` | the caller asked for a fresher answer than there is |
//! | `fwd=bypass; detail=<why>` | the cache took no part |
//!
//! `collapsed` says that another caller's upstream call gave the answer.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::cache::{Hit, HitKind, Miss, MissReason, StoreOutcome};
use crate::entry::EntryId;
use crate::request::hex;
use crate::stampede::Flight;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const ENTRY: HeaderName = HeaderName::from_static("x-askonce-entry");
const SIMILARITY: HeaderName = HeaderName::from_static("x-askonce-similarity");
const PROBABILITY: HeaderName = HeaderName::from_static("x-askonce-probability");
const VERIFIED: HeaderName = HeaderName::from_static("x-askonce-verified");
const SAVED_USD: HeaderName = HeaderName::from_static("x-askonce-saved-usd");
const REASON: HeaderName = HeaderName::from_static("x-askonce-reason");
const NOT_STORED: HeaderName = HeaderName::from_static("x-askonce-not-stored");

/// Tells of a hit.
pub fn hit(headers: &mut HeaderMap, hit: &Hit) {
    // Put together without the machinery of formatting: this is said of every hit.
    let mut status = String::with_capacity(64);
    status.push_str("askonce; hit");
    if let Some(ttl) = hit.ttl {
        status.push_str("; ttl=");
        status.push_str(itoa::Buffer::new().format(ttl.as_secs()));
    }
    status.push_str("; detail=");
    status.push_str(hit.kind.as_str());
    put(headers, CACHE_STATUS, status);
    headers.insert(header::AGE, HeaderValue::from(hit.age.as_secs()));
    entry(headers, hit.entry);
    if let HitKind::Semantic {
        similarity,
        probability,
        verified,
    } = hit.kind
    {
        likeness(headers, similarity, probability);
        if let Some(verified) = verified {
            put(headers, VERIFIED, format!("{verified:.4}"));
        }
    }
    if let Some(usd) = hit.saved.usd {
        put(headers, SAVED_USD, usd.to_decimal());
    }
}

/// Tells of a miss that went upstream. `declined` is why the answer was not to be kept.
pub fn forwarded(
    headers: &mut HeaderMap,
    miss: &Miss,
    flight: Flight,
    stored: Option<&StoreOutcome>,
    declined: Option<&'static str>,
) {
    let reason = miss.reason();
    let why = match reason {
        MissReason::Bypassed | MissReason::TooOld => "request",
        _ => "miss",
    };
    let mut status = format!("askonce; fwd={why}");
    match stored {
        Some(StoreOutcome::Stored { entry: id, .. }) => {
            status.push_str("; stored");
            entry(headers, *id);
        }
        Some(StoreOutcome::NotStored { reason }) => {
            put(
                headers,
                NOT_STORED,
                declined.unwrap_or(reason.as_str()).to_owned(),
            );
        }
        None => {}
    }
    if flight == Flight::Followed {
        status.push_str("; collapsed");
    }
    status.push_str("; detail=");
    status.push_str(reason.as_str());
    put(headers, CACHE_STATUS, status);
    missed(headers, miss);
}

/// Tells of a miss that did not go upstream, because the caller asked for that.
pub fn not_forwarded(headers: &mut HeaderMap, miss: &Miss) {
    put(
        headers,
        CACHE_STATUS,
        format!("askonce; detail={}", miss.reason()),
    );
    missed(headers, miss);
}

/// Tells that the cache took no part.
pub fn bypassed(headers: &mut HeaderMap, detail: &'static str) {
    put(
        headers,
        CACHE_STATUS,
        format!("askonce; fwd=bypass; detail={detail}"),
    );
    headers.insert(REASON, HeaderValue::from_static(detail));
}

fn missed(headers: &mut HeaderMap, miss: &Miss) {
    headers.insert(REASON, HeaderValue::from_static(miss.reason().as_str()));
    if let Some(nearest) = miss.nearest {
        likeness(headers, nearest.similarity, nearest.probability);
    }
}

fn entry(headers: &mut HeaderMap, id: EntryId) {
    put(headers, ENTRY, hex(&id.get().to_be_bytes()));
}

fn likeness(headers: &mut HeaderMap, similarity: f32, probability: Option<f64>) {
    put(headers, SIMILARITY, format!("{similarity:.4}"));
    if let Some(probability) = probability {
        put(headers, PROBABILITY, format!("{probability:.4}"));
    }
}

/// Adds a header. An upstream's own `Cache-Status` stays in front of ours, as RFC 9211 has it.
fn put(headers: &mut HeaderMap, name: HeaderName, value: String) {
    let Ok(value) = HeaderValue::try_from(value) else {
        return;
    };
    if name == CACHE_STATUS {
        headers.append(name, value);
    } else {
        headers.insert(name, value);
    }
}
