//! The entries that this process knows, as a list for people: newest first, by tag, model or words.
//!
//! The catalogue leads to them and the tiers hold them, so what is listed is alive. Entries that only another
//! process has stored are not listed; [`SemanticCache::keys`] walks the tiers and finds those, too.

use std::fmt;

use futures_util::future::join_all;
use serde::Serialize;

use super::SemanticCache;
use crate::entry::EntryId;
use crate::entry::catalog::Selector;
use crate::request::{ExactKey, Scope};

/// Entries that a search for words reads at most.
const MOST_READ: usize = 2_000;

/// Entries that are read at the same time.
const AT_ONCE: usize = 64;

/// Characters of a text that a list shows.
const EXCERPT: usize = 160;

/// Which entries are meant.
#[derive(Clone, Default)]
pub struct EntryQuery {
    /// Only those of this scope. Default: all.
    pub scope: Option<Scope>,
    /// Only those with this tag. Default: all.
    pub tag: Option<String>,
    /// Only those that this model answered. Default: all.
    pub model: Option<String>,
    /// Only those whose text holds each of these words, in any case. Default: all.
    pub words: Option<String>,
}

impl fmt::Debug for EntryQuery {
    /// Does not show the words: they are part of a prompt.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntryQuery")
            .field("scope", &self.scope)
            .field("tag", &self.tag)
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

/// An entry in a list.
#[derive(Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ListedEntry {
    /// Its id.
    pub entry: EntryId,
    /// The key that it is stored under.
    pub key: ExactKey,
    /// Whom it belongs to, by the [label](Scope::label) of the scope.
    pub scope: String,
    /// The model that answered.
    pub model: String,
    /// Labels to invalidate by.
    pub tags: Vec<String>,
    /// The beginning of the text that others are compared with; `None` for what matches exactly only.
    pub excerpt: Option<String>,
    /// Seconds since it was stored.
    pub age_seconds: u64,
    /// Seconds until it is dead; `None`: it does not expire.
    pub ttl_seconds: Option<u64>,
}

impl fmt::Debug for ListedEntry {
    /// Does not show the text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListedEntry")
            .field("entry", &self.entry)
            .finish_non_exhaustive()
    }
}

/// The entries that were found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct EntryList {
    /// The entries, the newest first.
    pub entries: Vec<ListedEntry>,
    /// There may be more: the limit was reached, or there were too many to search for words.
    pub truncated: bool,
}

impl SemanticCache {
    /// Up to `limit` of the entries that `query` means, the newest first.
    pub async fn entries(&self, query: &EntryQuery, limit: usize) -> EntryList {
        let inner = &self.inner;
        let now = inner.clock.now();
        let selector = match (&query.tag, &query.model) {
            (Some(tag), _) => Selector::tag(tag),
            (None, Some(model)) => Selector::model(model),
            (None, None) => Selector::All,
        };
        let selector = match &query.scope {
            Some(scope) => selector.within(scope.clone()),
            None => selector,
        };
        let words = query.words.as_deref().unwrap_or_default().to_lowercase();
        let words: Vec<&str> = words.split_whitespace().collect();
        // One more than is read tells that there are more; some may turn out to be dead.
        let most = if words.is_empty() {
            limit.saturating_add(AT_ONCE)
        } else {
            MOST_READ
        };
        let model = query.model.as_deref();
        let rows = inner.catalog.newest(&selector, model, now, most + 1);
        let mut list = EntryList {
            truncated: rows.len() > most,
            ..EntryList::default()
        };
        for rows in rows[..rows.len().min(most)].chunks(AT_ONCE) {
            let read = join_all(rows.iter().map(|(id, _)| inner.entry(*id))).await;
            for ((id, row), entry) in rows.iter().zip(read) {
                let Some(entry) = entry else { continue };
                let holds = |text: &str| {
                    let text = text.to_lowercase();
                    words.iter().all(|word| text.contains(word))
                };
                if !words.is_empty() && !entry.text.as_deref().is_some_and(holds) {
                    continue;
                }
                if list.entries.len() >= limit {
                    list.truncated = true;
                    return list;
                }
                list.entries.push(ListedEntry {
                    entry: *id,
                    key: row.exact,
                    scope: row.scope.label().into_owned(),
                    model: row.model.to_string(),
                    tags: row.tags.to_vec(),
                    excerpt: entry.text.as_deref().map(excerpt),
                    age_seconds: now.since(row.created).as_secs(),
                    ttl_seconds: row.expires.map(|expires| expires.since(now).as_secs()),
                });
            }
        }
        list
    }
}

fn excerpt(text: &str) -> String {
    match text.char_indices().nth(EXCERPT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::StoreOptions;
    use crate::entry::Answer;
    use crate::request::Request;

    async fn filled() -> SemanticCache {
        let cache = SemanticCache::in_memory().unwrap();
        for (text, tenant, tag) in [
            ("How do I reset my Password?", "acme", "account"),
            ("How do I cook rice?", "acme", "food"),
            ("How do I reset the router?", "globex", "account"),
        ] {
            let scope = Scope::tenant(tenant.to_owned());
            let request = Request::prompt(text).model("gpt-4o").scope(scope);
            let options = StoreOptions {
                tags: vec![tag.to_owned()],
                ..StoreOptions::default()
            };
            let _ = cache.store(&request, Answer::text("..."), options).await;
        }
        cache
    }

    fn texts(list: &EntryList) -> Vec<&str> {
        let entries = list.entries.iter();
        let mut texts: Vec<_> = entries
            .filter_map(|entry| entry.excerpt.as_deref())
            .collect();
        texts.sort_unstable();
        texts
    }

    #[tokio::test]
    async fn entries_are_found_by_words_tag_model_and_scope() {
        let cache = filled().await;
        let all = cache.entries(&EntryQuery::default(), 10).await;
        assert_eq!((all.entries.len(), all.truncated), (3, false));
        let words = EntryQuery {
            words: Some("RESET password".into()),
            ..EntryQuery::default()
        };
        let found = cache.entries(&words, 10).await;
        assert_eq!(texts(&found), ["How do I reset my Password?"]);
        let own = EntryQuery {
            tag: Some("account".into()),
            scope: Some(Scope::tenant("globex")),
            ..EntryQuery::default()
        };
        let found = cache.entries(&own, 10).await;
        assert_eq!(texts(&found), ["How do I reset the router?"]);
        assert_eq!(found.entries[0].scope, "globex");
        let other = EntryQuery {
            tag: Some("account".into()),
            model: Some("gpt-3".into()),
            ..EntryQuery::default()
        };
        assert!(cache.entries(&other, 10).await.entries.is_empty());
        let some = cache.entries(&EntryQuery::default(), 2).await;
        assert_eq!((some.entries.len(), some.truncated), (2, true));
        assert!(
            !format!("{words:?} {all:?}")
                .to_lowercase()
                .contains("reset")
        );
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(excerpt("kurz"), "kurz");
        let cut = excerpt(&"ü".repeat(200));
        assert_eq!(cut.chars().count(), EXCERPT + 1);
    }
}
