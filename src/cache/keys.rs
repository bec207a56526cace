//! The keys of the tiers as an operator sees them: listed, looked at, removed by pattern.
//!
//! A key that can be read stands for itself; the key of an entry is 64 hexadecimal digits, as everywhere in
//! the API; any other is `%` and its bytes in hexadecimal ([`key_name`]). Patterns are matched with these
//! names. What caches keep for themselves begins with `!` (generations, leases) and is only meant by a
//! pattern that begins so, too: with one generation, a whole namespace would go.
//!
//! Tiers are walked key by key, so none of this belongs on the path of a request.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use super::SemanticCache;
use crate::backend::{CacheBackend, Cursor, Glob, StoredValue};
use crate::codec::{Envelope, EnvelopeError, Serializer};
use crate::entry::catalog::Selector;
use crate::entry::{Entry, EntryId};
use crate::error::{Error, ErrorKind, Result};
use crate::layer::Layered;
use crate::request::{ExactKey, Request, Scope, Section, hex};
use crate::tier::{tell_cleared, tell_removed};

/// Keys asked for, looked at and removed per step.
const PAGE: usize = 500;

/// The name of a key: itself, or a form of its bytes. Different keys have different names.
#[must_use]
pub fn key_name(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if is_plain(text) => text.to_owned(),
        _ if key.len() == 32 => hex(key),
        _ => format!("%{}", hex(key)),
    }
}

/// The key of this name.
#[must_use]
pub fn read_key_name(name: &str) -> Bytes {
    if let Ok(key) = name.parse::<ExactKey>() {
        return Bytes::copy_from_slice(key.as_bytes());
    }
    match name.strip_prefix('%').and_then(unhex) {
        Some(key) => key.into(),
        None => Bytes::copy_from_slice(name.as_bytes()),
    }
}

/// Whether a key can be shown as it is, and is then taken for nothing else.
fn is_plain(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('%')
        && text.bytes().all(|byte| byte.is_ascii_graphic())
        && text.parse::<ExactKey>().is_err()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|c| u8::try_from(c.to_digit(16)?).ok())
        .collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    let bytes = digits.chunks_exact(2);
    Some(bytes.map(|pair| (pair[0] << 4) | pair[1]).collect())
}

/// Which keys are meant.
#[derive(Clone, Debug)]
pub struct KeyQuery {
    /// What their names match. Default: everything.
    pub pattern: Glob,
    /// The name of the only tier to look in. Default: all.
    pub tier: Option<String>,
    /// Only entries of this scope. Default: all, and what is no entry.
    pub scope: Option<Scope>,
    /// Only entries with this tag. Default: all, and what is no entry.
    pub tag: Option<String>,
}

impl Default for KeyQuery {
    fn default() -> Self {
        Self {
            pattern: Glob::everything(),
            tier: None,
            scope: None,
            tag: None,
        }
    }
}

impl KeyQuery {
    /// The keys whose names match `pattern`.
    pub fn matching(pattern: impl AsRef<[u8]>) -> Self {
        Self {
            pattern: Glob::new(pattern),
            ..Self::default()
        }
    }

    fn names(&self, key: &[u8]) -> bool {
        // The pattern's own text tells: one that begins with a wildcard does not ask for these.
        if key.starts_with(b"!") && !self.pattern.to_bytes().starts_with(b"!") {
            return false;
        }
        self.pattern.matches(key_name(key).as_bytes())
    }

    /// Whether values must be read to know what is meant.
    fn reads_entries(&self) -> bool {
        self.scope.is_some() || self.tag.is_some()
    }

    fn means(&self, entry: Option<&Entry>) -> bool {
        if !self.reads_entries() {
            return true;
        }
        let Some(entry) = entry else { return false };
        let tagged = |tag| entry.tags.contains(tag);
        self.scope
            .as_ref()
            .is_none_or(|scope| belongs(entry, scope))
            && self.tag.as_ref().is_none_or(tagged)
    }

    /// What fills that are under way must not be of, as narrow as it can be said.
    fn selector(&self) -> Selector {
        let all = match &self.tag {
            Some(tag) => Selector::tag(tag),
            None => Selector::All,
        };
        match &self.scope {
            Some(scope) => all.within(scope.clone()),
            None => all,
        }
    }
}

/// Whether an entry was made for a request of this scope.
fn belongs(entry: &Entry, scope: &Scope) -> bool {
    let other = Request::prompt("").scope(scope.clone()).digests();
    let mut differences = entry.digests.differences(&other);
    entry.digests.version() == other.version() && differences.all(|part| part != Section::Scope)
}

/// What lies under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StoredKind {
    /// An answer.
    Entry,
    /// A value of a typed cache.
    Value,
    /// Something else: a counter, a lock, a generation, or another program's.
    Other,
    /// An envelope that this cache cannot read.
    Unreadable,
}

/// A key, and what its envelope says. Neither prompt nor answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FoundKey {
    /// Its [name](key_name).
    pub key: String,
    /// The nearest tier that has it.
    pub tier: String,
    /// What lies under it.
    pub kind: StoredKind,
    /// Length of what is stored.
    pub bytes: usize,
    /// Seconds since it was stored, if that is known.
    pub age_seconds: Option<u64>,
    /// Seconds until it is dead; `None`: it does not expire.
    pub ttl_seconds: Option<u64>,
    /// The entry's id.
    pub entry: Option<EntryId>,
    /// The model that answered, if that is known.
    pub model: Option<String>,
    /// Whom the entry belongs to, where this process knows.
    pub scope: Option<String>,
    /// Labels of the entry.
    pub tags: Vec<String>,
    /// How the value is serialized.
    pub serializer: Option<&'static str>,
    /// Why it cannot be read.
    pub problem: Option<String>,
}

/// A key and the value under it.
#[derive(Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct KeyValue {
    /// What the envelope says.
    #[serde(flatten)]
    pub found: FoundKey,
    /// The entry's prompt in the form that is compared.
    pub text: Option<String>,
    /// The answer, or a typed cache's value with its type; `None` when it cannot be shown.
    pub value: Option<Value>,
}

impl fmt::Debug for KeyValue {
    /// Shows neither prompt nor value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyValue")
            .field("found", &self.found)
            .finish_non_exhaustive()
    }
}

/// A tier that could not do its part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TierTrouble {
    /// Which.
    pub tier: String,
    /// What kind of failure.
    pub kind: &'static str,
    /// What it means.
    pub problem: String,
    /// What to do.
    pub remedy: &'static str,
}

impl TierTrouble {
    fn new(tier: &str, error: &Error) -> Self {
        let (problem, remedy) = match error.kind() {
            ErrorKind::Unsupported => (
                "this kind of backend cannot list its keys",
                "name the key, invalidate by the tag of a typed cache, or clear the backend",
            ),
            _ => (
                error.message(),
                "see `askonce doctor`, and try again when the backend answers",
            ),
        };
        Self {
            tier: tier.to_owned(),
            kind: error.kind().as_str(),
            problem: problem.to_owned(),
            remedy,
        }
    }
}

/// The keys that were found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct KeyReport {
    /// Each key once, in no order.
    pub keys: Vec<FoundKey>,
    /// There are more.
    pub truncated: bool,
    /// Tiers whose keys are not among these.
    pub troubles: Vec<TierTrouble>,
}

/// What a removal came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Swept {
    /// Keys that were removed, or would be.
    pub keys: u64,
    /// Tiers that may still hold some.
    pub troubles: Vec<TierTrouble>,
}

/// Keys that have been seen, by digests of theirs: there may be many.
#[derive(Default)]
struct Seen(HashSet<[u8; 16]>);

impl Seen {
    fn is_new(&mut self, key: &[u8]) -> bool {
        let hash = blake3::hash(key);
        let mut digest = [0; 16];
        digest.copy_from_slice(&hash.as_bytes()[..16]);
        self.0.insert(digest)
    }
}

impl SemanticCache {
    /// The tiers, nearest first, in their layers.
    #[must_use]
    pub fn tiers(&self) -> &[Arc<Layered>] {
        &self.inner.layers
    }

    /// The tiers that `name` means: that one, or all.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] when there is none of this name.
    fn named(&self, name: Option<&str>) -> Result<Vec<Arc<Layered>>> {
        let own =
            |tier: &&Arc<Layered>| name.is_none_or(|name| CacheBackend::name(&***tier) == name);
        let tiers: Vec<_> = self.tiers().iter().filter(own).cloned().collect();
        if tiers.is_empty() {
            let names = self.inner.tiers.names().collect::<Vec<_>>().join(", ");
            return Err(
                Error::new(ErrorKind::InvalidRequest, "there is no such backend")
                    .with("field", "backend")
                    .with("allowed", names),
            );
        }
        Ok(tiers)
    }

    /// Up to `limit` of the keys that `query` means.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] when there is no such tier.
    pub async fn keys(&self, query: &KeyQuery, limit: usize) -> Result<KeyReport> {
        let mut report = KeyReport::default();
        let mut seen = Seen::default();
        'tiers: for tier in self.named(query.tier.as_deref())? {
            let mut cursor = Some(Cursor::default());
            while let Some(from) = cursor.take() {
                let page = match tier.scan(&Glob::everything(), from, PAGE).await {
                    Ok(page) => page,
                    Err(error) => {
                        let trouble = TierTrouble::new(CacheBackend::name(&*tier), &error);
                        add(&mut report.troubles, trouble);
                        break;
                    }
                };
                cursor = page.next;
                let keys = page.keys.into_iter().filter(|key| query.names(key));
                let keys: Vec<Bytes> = keys.filter(|key| seen.is_new(key)).collect();
                for keys in keys.chunks(PAGE) {
                    let values = tier.get_many(keys).await;
                    for (key, value) in keys.iter().zip(values) {
                        let value = match value {
                            Ok(Some(value)) => value,
                            Ok(None) => continue,
                            Err(error) => {
                                let name = CacheBackend::name(&*tier);
                                add(&mut report.troubles, TierTrouble::new(name, &error));
                                continue;
                            }
                        };
                        let (found, entry, _) = self.describe(&tier, key, &value);
                        if !query.means(entry.as_ref()) {
                            continue;
                        }
                        if report.keys.len() >= limit {
                            report.truncated = true;
                            break 'tiers;
                        }
                        report.keys.push(found);
                    }
                }
            }
        }
        Ok(report)
    }

    /// What lies under the key of this [name](key_name), in the nearest tier that has it; `None` when no tier
    /// has it, or `query` does not mean it. The value itself only when `with_value` asks for it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] when there is no such tier; what a tier reports when none has it.
    pub async fn key(
        &self,
        name: &str,
        query: &KeyQuery,
        with_value: bool,
    ) -> Result<Option<KeyValue>> {
        let key = read_key_name(name);
        let mut failed = None;
        for tier in self.named(query.tier.as_deref())? {
            match tier.get(&key).await {
                Ok(None) => {}
                Ok(Some(value)) => {
                    let (found, entry, envelope) = self.describe(&tier, &key, &value);
                    if !query.means(entry.as_ref()) {
                        return Ok(None);
                    }
                    let mut shown = KeyValue {
                        found,
                        text: None,
                        value: None,
                    };
                    if with_value {
                        shown.value = match (&entry, envelope) {
                            (Some(entry), _) => Some(entry.answer.to_value()),
                            (None, Some(envelope)) => typed_value(&envelope),
                            (None, None) => Some(key_name(&value.bytes).into()),
                        };
                        shown.text = entry.and_then(|entry| entry.text);
                    }
                    return Ok(Some(shown));
                }
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(None), Err)
    }

    /// Removes the keys that `query` means from every tier, and entries from catalogue and index; with
    /// `dry_run`, counts them. A tier in `query` says where to look: what is found there is removed
    /// everywhere, as it would come back from another tier. An answer that is being computed meanwhile is
    /// not stored if it could be meant.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] when there is no such tier.
    pub async fn invalidate_keys(&self, query: &KeyQuery, dry_run: bool) -> Result<Swept> {
        let inner = &self.inner;
        let tiers = self.named(query.tier.as_deref())?;
        let (mut swept, mut seen) = (Swept::default(), Seen::default());
        if !dry_run {
            // First the log, then the search for entries: see the module `epoch`.
            inner.epochs.record(query.selector());
            if query.tier.is_none() && query.pattern == Glob::everything() {
                // The same for the fills of other processes; with a pattern it would mean too much.
                inner.renew(&query.selector()).await;
            }
        }
        if query.tier.is_none() {
            let ids = inner.catalog.select(&query.selector(), inner.clock.now());
            let keys = ids.into_iter().filter_map(|id| inner.catalog.locate(id));
            let keys = keys.map(|(key, _)| Bytes::copy_from_slice(key.as_bytes()));
            let keys: Vec<Bytes> = keys
                .filter(|key| query.names(key) && seen.is_new(key))
                .collect();
            swept.keys += keys.len() as u64;
            if !dry_run {
                for keys in keys.chunks(PAGE) {
                    self.take_out(keys, &mut swept.troubles).await;
                }
            }
        }
        for tier in tiers {
            let mut cursor = Some(Cursor::default());
            while let Some(from) = cursor.take() {
                let page = match tier.scan(&Glob::everything(), from, PAGE).await {
                    Ok(page) => page,
                    Err(error) => {
                        let trouble = TierTrouble::new(CacheBackend::name(&*tier), &error);
                        add(&mut swept.troubles, trouble);
                        break;
                    }
                };
                cursor = page.next;
                let keys = page.keys.into_iter();
                let mut keys: Vec<Bytes> = keys
                    .filter(|key| query.names(key) && seen.is_new(key))
                    .collect();
                if query.reads_entries() {
                    let mut values = tier.get_many(&keys).await.into_iter();
                    keys.retain(|key| match values.next() {
                        Some(Ok(Some(value))) => {
                            query.means(self.describe(&tier, key, &value).1.as_ref())
                        }
                        Some(Err(error)) => {
                            let trouble = TierTrouble::new(CacheBackend::name(&*tier), &error);
                            add(&mut swept.troubles, trouble);
                            false
                        }
                        Some(Ok(None)) | None => false,
                    });
                }
                swept.keys += keys.len() as u64;
                if !dry_run {
                    for keys in keys.chunks(PAGE) {
                        self.take_out(keys, &mut swept.troubles).await;
                    }
                }
            }
        }
        tracing::info!(keys = swept.keys, dry_run, "keys invalidated");
        Ok(swept)
    }

    /// Removes the key of this [name](key_name) from every tier, whatever lies there; with `dry_run`, looks
    /// whether it is there.
    pub async fn invalidate_key(&self, name: &str, dry_run: bool) -> Swept {
        let inner = &self.inner;
        let key = read_key_name(name);
        let mut swept = Swept::default();
        for tier in self.tiers() {
            match tier.get(&key).await {
                Ok(None) => {}
                Ok(Some(_)) => swept.keys = 1,
                Err(error) => {
                    let trouble = TierTrouble::new(CacheBackend::name(&**tier), &error);
                    add(&mut swept.troubles, trouble);
                }
            }
        }
        if !dry_run {
            if let Some(key) = exact(&key) {
                inner.epochs.record(Selector::Key(key));
            }
            self.take_out(&[key], &mut swept.troubles).await;
        }
        swept
    }

    /// Removes everything from a tier, or from all, whoever stored it there. No answer that is being
    /// computed meanwhile is stored.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] when there is no such tier.
    pub async fn clear(&self, tier: Option<&str>) -> Result<Vec<TierTrouble>> {
        let inner = &self.inner;
        let tiers = self.named(tier)?;
        inner.epochs.record(Selector::All);
        let mut troubles = Vec::new();
        for backend in tiers {
            let cleared = CacheBackend::clear(&*backend).await;
            let told = match CacheBackend::feed(&*backend) {
                Some(feed) => tell_cleared(&feed).await,
                None => Ok(()),
            };
            if let Err(error) = cleared.and(told) {
                add(
                    &mut troubles,
                    TierTrouble::new(CacheBackend::name(&*backend), &error),
                );
            }
        }
        for id in inner.catalog.select(&Selector::All, inner.clock.now()) {
            if let Some((key, _)) = inner.catalog.locate(id)
                && (tier.is_none() || !inner.tiers.contains(&key).await)
            {
                inner.forget(id, "invalidated");
            }
        }
        tracing::info!(tier, "cleared");
        Ok(troubles)
    }

    /// Takes keys out of every tier, and of catalogue and index.
    async fn take_out(&self, keys: &[Bytes], troubles: &mut Vec<TierTrouble>) {
        let inner = &self.inner;
        for tier in self.tiers() {
            let deleted = CacheBackend::delete_many(&**tier, keys).await;
            let mut failed = deleted.into_iter().find_map(Result::err);
            if failed.is_none()
                && let Some(feed) = CacheBackend::feed(&**tier)
            {
                failed = tell_removed(&feed, keys).await.err();
            }
            if let Some(error) = failed {
                add(
                    troubles,
                    TierTrouble::new(CacheBackend::name(&**tier), &error),
                );
            }
        }
        for key in keys.iter().filter_map(|key| exact(key)) {
            if let Some(id) = inner.catalog.id_of(&key) {
                inner.forget(id, "invalidated");
            }
        }
    }

    /// What the envelope of a value says; the entry or the envelope in it.
    fn describe(
        &self,
        tier: &Layered,
        key: &Bytes,
        held: &StoredValue,
    ) -> (FoundKey, Option<Entry>, Option<Envelope>) {
        let inner = &self.inner;
        let now = inner.clock.now();
        let plain = inner.tiers.plain(CacheBackend::name(tier), held.clone());
        let value = plain.as_ref().unwrap_or(held);
        let mut found = FoundKey {
            key: key_name(key),
            tier: CacheBackend::name(tier).to_owned(),
            kind: StoredKind::Other,
            bytes: value.bytes.len(),
            age_seconds: None,
            ttl_seconds: value.expires.map(|expires| expires.since(now).as_secs()),
            entry: None,
            model: None,
            scope: None,
            tags: Vec::new(),
            serializer: None,
            problem: None,
        };
        let codec = inner.tiers.codec();
        let exact = exact(key).filter(|_| !is_plain(&String::from_utf8_lossy(key)));
        let opened = match exact {
            Some(key) => codec.open(key.as_bytes(), &value.bytes),
            None => codec.inspect(&value.bytes),
        };
        let envelope = match opened {
            Ok(envelope) => envelope,
            // Counters, locks and generations have none.
            Err(EnvelopeError::Foreign | EnvelopeError::Truncated { .. }) if exact.is_none() => {
                return (found, None, None);
            }
            Err(error) => {
                found.kind = StoredKind::Unreadable;
                found.problem = Some(error.to_string());
                return (found, None, None);
            }
        };
        found.kind = StoredKind::Value;
        found.age_seconds = Some(now.since(envelope.header.created).as_secs());
        found.serializer = envelope.serializer().map(Serializer::as_str);
        let Some(exact) = exact else {
            return (found, None, Some(envelope));
        };
        let entry = match envelope.read::<Entry>() {
            Ok(entry) if entry.digests.exact() == exact => entry,
            Ok(_) => {
                found.kind = StoredKind::Unreadable;
                found.problem = Some("it is the entry of another key".to_owned());
                return (found, None, None);
            }
            Err(error) => {
                found.kind = StoredKind::Unreadable;
                found.problem = Some(error.to_string());
                return (found, None, None);
            }
        };
        found.kind = StoredKind::Entry;
        found.entry = Some(entry.id);
        found.tags.clone_from(&entry.tags);
        let row = inner.catalog.get(entry.id);
        found.scope = row.as_ref().map(|row| row.scope.label().into_owned());
        // What the provider calls the model that answered, where this process did not store the entry.
        let told = || {
            entry
                .answer
                .to_value()
                .get("model")?
                .as_str()
                .map(str::to_owned)
        };
        let row = row.map(|row| row.model.to_string());
        found.model = row.filter(|model| !model.is_empty()).or_else(told);
        (found, Some(entry), None)
    }
}

fn exact(key: &[u8]) -> Option<ExactKey> {
    <[u8; 32]>::try_from(key).ok().map(ExactKey::from_bytes)
}

fn add(troubles: &mut Vec<TierTrouble>, trouble: TierTrouble) {
    if !troubles.contains(&trouble) {
        troubles.push(trouble);
    }
}

/// A value of a typed cache with the name of its type; `None` where its format does not describe itself.
fn typed_value(envelope: &Envelope) -> Option<Value> {
    if !envelope.serializer()?.is_self_describing() {
        return None;
    }
    envelope.read().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, StoreOptions};

    #[test]
    fn every_key_has_a_name_of_its_own_that_leads_back_to_it() {
        let digits = "ab".repeat(32);
        let keys: [&[u8]; 9] = [
            b"users/name:7",
            b"",
            b"%00",
            b"a b",
            b"\x00\xff",
            &[0; 32],
            digits.as_bytes(),
            b"0123456789abcdef0123456789abcdef",
            "\u{e4}".as_bytes(),
        ];
        let mut names = HashSet::new();
        for key in keys {
            let name = key_name(key);
            assert_eq!(read_key_name(&name), key, "{name}");
            assert!(names.insert(name));
        }
        assert_eq!(key_name(b"users/name:7"), "users/name:7");
        assert_eq!(key_name(&[0; 32]), "0".repeat(64));
    }

    fn asked(tenant: &str, text: &str) -> Request {
        let request = Request::prompt(text).scope(Scope::tenant(tenant.to_owned()));
        request.model("gpt-4o")
    }

    async fn filled() -> SemanticCache {
        let cache = SemanticCache::in_memory().unwrap();
        for (tenant, text, tag) in [
            ("acme", "How do I reset my password?", "doc:1"),
            ("acme", "Where is my invoice?", "doc:2"),
            ("globex", "Who pays for shipping?", "doc:1"),
        ] {
            let options = StoreOptions::default().tag(tag);
            let request = asked(tenant, text);
            let stored = cache.store(&request, Answer::text("..."), options).await;
            assert!(stored.entry().is_some());
        }
        let tier = Arc::clone(&cache.tiers()[0]);
        tier.set(b"users/name:7", "x".into(), None).await.unwrap();
        tier.set(b"!mark:00", "12345678".into(), None)
            .await
            .unwrap();
        cache
    }

    #[tokio::test]
    async fn a_dry_run_counts_and_changes_nothing_and_the_real_one_removes_as_many() {
        let cache = filled().await;
        let by = |pattern: &str| KeyQuery::matching(pattern);
        let key = asked("acme", "Where is my invoice?")
            .exact_key()
            .to_string();
        let half = format!("{}*", &key[..16]);
        for (query, keys) in [
            (by("*"), 4),
            (by("users/*"), 1),
            (by("nothing*"), 0),
            (by(&half), 1),
            (by("!mark:*"), 1),
            (
                KeyQuery {
                    tag: Some("doc:1".into()),
                    ..by("*")
                },
                2,
            ),
            (
                KeyQuery {
                    scope: Some(Scope::tenant("acme")),
                    ..by("*")
                },
                2,
            ),
            (
                KeyQuery {
                    scope: Some(Scope::tenant("acme")),
                    tag: Some("doc:1".into()),
                    ..by("*")
                },
                1,
            ),
            (
                KeyQuery {
                    tier: Some("memory".into()),
                    ..by("*")
                },
                4,
            ),
        ] {
            let before = cache.stats().await;
            let counted = cache.invalidate_keys(&query, true).await.unwrap();
            assert_eq!(counted.keys, keys, "{query:?}");
            let after = cache.stats().await;
            assert_eq!(
                (before.entries, &before.tiers[0].entries),
                (after.entries, &after.tiers[0].entries)
            );
            let fresh = filled().await;
            let removed = fresh.invalidate_keys(&query, false).await.unwrap();
            assert_eq!(removed, counted, "{query:?}");
            assert_eq!(
                fresh.invalidate_keys(&query, true).await.unwrap().keys,
                0,
                "{query:?}"
            );
        }
    }

    #[tokio::test]
    async fn what_a_pattern_removed_is_a_miss_also_by_another_wording() {
        let cache = filled().await;
        let request = asked("acme", "How do I reset my password?");
        let name = request.exact_key().to_string();
        cache
            .invalidate_keys(&KeyQuery::matching(&name), false)
            .await
            .unwrap();
        assert!(!cache.lookup(&request).await.is_hit());
        assert!(
            !cache
                .lookup(&asked("acme", "how can I reset my password"))
                .await
                .is_hit()
        );
        assert!(
            cache
                .lookup(&asked("acme", "Where is my invoice?"))
                .await
                .is_hit()
        );
        let stats = cache.stats().await;
        assert_eq!((stats.entries, stats.searchable), (2, 2));
        assert_eq!(stats.removals.get("invalidated"), Some(&1));
    }

    #[tokio::test]
    async fn an_answer_that_was_being_made_while_its_key_was_invalidated_is_not_stored() {
        let cache = filled().await;
        let request = asked("acme", "Why is the sky blue?");
        let inside = cache.clone();
        let filled = cache.get_or_call(&request, move || async move {
            let all = KeyQuery::default();
            inside.invalidate_keys(&all, false).await?;
            Ok::<_, Error>(crate::Fill::keep(
                Answer::text("It scatters."),
                StoreOptions::default(),
            ))
        });
        assert!(filled.await.is_ok());
        assert!(!cache.lookup(&request).await.is_hit());
    }

    #[tokio::test]
    async fn keys_tell_what_their_envelopes_say_and_values_only_when_asked() {
        let cache = filled().await;
        let request = asked("acme", "How do I reset my password?");
        let name = request.exact_key().to_string();
        let report = cache.keys(&KeyQuery::default(), 100).await.unwrap();
        assert_eq!((report.keys.len(), report.truncated), (4, false));
        let found = report.keys.iter().find(|found| found.key == name).unwrap();
        assert_eq!(found.kind, StoredKind::Entry);
        assert_eq!(found.model.as_deref(), Some("gpt-4o"));
        assert_eq!(found.scope.as_deref(), Some("acme"));
        assert_eq!(found.tags, ["doc:1"]);
        let shown = serde_json::to_string(&report).unwrap();
        assert!(!shown.contains("password"), "{shown}");
        let some = cache.keys(&KeyQuery::default(), 2).await.unwrap();
        assert_eq!((some.keys.len(), some.truncated), (2, true));

        let own = |tenant: &str| KeyQuery {
            scope: Some(Scope::tenant(tenant.to_owned())),
            ..KeyQuery::default()
        };
        let look = async |query: KeyQuery, value| cache.key(&name, &query, value).await.unwrap();
        assert!(look(own("globex"), true).await.is_none());
        let shown = look(own("acme"), false).await.unwrap();
        assert_eq!((shown.text, shown.value), (None, None));
        let shown = look(own("acme"), true).await.unwrap();
        assert_eq!(shown.value, Some("...".into()));
        assert!(!format!("{shown:?}").contains("password"));
        let nowhere = KeyQuery {
            tier: Some("redis".into()),
            ..KeyQuery::default()
        };
        assert!(cache.keys(&nowhere, 1).await.is_err());
    }

    #[tokio::test]
    async fn after_a_clear_nothing_is_left() {
        let cache = filled().await;
        assert!(cache.clear(None).await.unwrap().is_empty());
        let stats = cache.stats().await;
        assert_eq!(
            (stats.entries, stats.searchable, stats.tiers[0].entries),
            (0, 0, 0)
        );
    }
}
