//! The steps, and the map that says what each must answer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use askonce::ErrorKind;
use askonce::backend::Cursor;
use askonce::clock::{Clock, ManualClock, Timestamp};
use askonce::typed::{Cache, Key, Lookup, Remaining, SetOptions, Ttl};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

/// Keys that hold values, and keys that are counted under.
const VALUES: u8 = 5;
const COUNTS: u8 = 2;

/// What is stored: a number of its own, so that no two values look alike, and a text that may be worth
/// compressing.
type Value = (u64, String);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    life: Option<u16>,
    tag: Option<u8>,
    long: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Get(u8),
    GetMany(Vec<u8>),
    Set(u8, Options),
    SetNull(u8, Options),
    SetMany(Vec<u8>, Options),
    Delete(u8),
    DeleteMany(Vec<u8>),
    Add(u8, Options),
    /// With or without another write between reading and writing.
    CompareAndSet(u8, Option<u8>, Options),
    Touch(u8, Option<u16>),
    Ttl(u8),
    Take(u8),
    Increment(u8, i8, Options),
    IncrementValue(u8),
    Scan,
    DeletePattern(bool),
    Clear,
    InvalidateTag(u8),
    Advance(u16),
}

/// Whether the caches have generations, and what each of two caches does.
pub(crate) fn steps(lists_keys: bool) -> impl Strategy<Value = (bool, Vec<(bool, Step)>)> {
    let generations = if lists_keys {
        any::<bool>().boxed()
    } else {
        // Without them a clear goes through the keys.
        Just(true).boxed()
    };
    let steps = prop::collection::vec((any::<bool>(), step()), 1..60);
    (generations, steps)
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..VALUES;
    let keys = prop::collection::vec(0..VALUES, 0..6);
    // Some lives are shorter than a step of the clock, most are longer than several.
    let life = || prop::option::weighted(0.7, 1..5_000_u16);
    let options = || {
        (life(), prop::option::weighted(0.4, 0..2_u8), any::<bool>())
            .prop_map(|(life, tag, long)| Options { life, tag, long })
    };
    prop_oneof![
        6 => key.clone().prop_map(Step::Get),
        2 => keys.clone().prop_map(Step::GetMany),
        6 => (key.clone(), options()).prop_map(|(key, options)| Step::Set(key, options)),
        1 => (key.clone(), options()).prop_map(|(key, options)| Step::SetNull(key, options)),
        2 => (keys.clone(), options()).prop_map(|(keys, options)| Step::SetMany(keys, options)),
        2 => key.clone().prop_map(Step::Delete),
        1 => keys.prop_map(Step::DeleteMany),
        2 => (key.clone(), options()).prop_map(|(key, options)| Step::Add(key, options)),
        2 => (key.clone(), prop::option::of(0..2_u8), options())
            .prop_map(|(key, between, options)| Step::CompareAndSet(key, between, options)),
        2 => (key.clone(), life()).prop_map(|(key, life)| Step::Touch(key, life)),
        2 => key.clone().prop_map(Step::Ttl),
        2 => key.clone().prop_map(Step::Take),
        2 => (0..COUNTS, any::<i8>(), options())
            .prop_map(|(key, by, options)| Step::Increment(key, by, options)),
        1 => key.prop_map(Step::IncrementValue),
        1 => Just(Step::Scan),
        1 => any::<bool>().prop_map(Step::DeletePattern),
        1 => Just(Step::Clear),
        2 => (0..2_u8).prop_map(Step::InvalidateTag),
        3 => (0..3_000_u16).prop_map(Step::Advance),
    ]
}

#[derive(Clone, Debug, PartialEq)]
enum Content {
    Value(Value),
    Null,
    Count(i64),
}

#[derive(Clone, Debug)]
struct Entry {
    content: Content,
    expires: Option<Timestamp>,
    tag: Option<u8>,
    /// Cleared or invalidated: it is a miss, and its bytes may still be there.
    void: bool,
}

/// What the caches hold, by the readable form of the key.
struct Model<'a> {
    entries: BTreeMap<String, Entry>,
    clock: &'a ManualClock,
    numbers: u64,
}

fn value_key(key: u8) -> Key {
    Key::new("value").part(key)
}

fn value_name(key: u8) -> String {
    format!("value:{key}")
}

fn count_key(key: u8) -> Key {
    Key::new("count").part(key)
}

fn count_name(key: u8) -> String {
    format!("count:{key}")
}

fn life(life: Option<u16>) -> Option<Duration> {
    life.map(u64::from).map(Duration::from_millis)
}

impl Options {
    fn set(self) -> SetOptions {
        let options = SetOptions::new(life(self.life));
        options.tags(self.tag.map(|tag| format!("tag-{tag}")))
    }
}

impl Model<'_> {
    /// A value that was never there before.
    fn value(&mut self, options: Options) -> Value {
        self.numbers += 1;
        let text = if options.long {
            "a text that can be made smaller; ".repeat(40)
        } else {
            String::new()
        };
        (self.numbers, text)
    }

    fn put(&mut self, name: String, content: Content, options: Options) {
        let expires = life(options.life).map(|life| self.clock.now().after(life));
        let entry = Entry {
            content,
            expires,
            tag: options.tag,
            void: false,
        };
        self.entries.insert(name, entry);
    }

    /// What is stored under a key and alive.
    fn live(&self, name: &str) -> Option<&Entry> {
        let entry = self.entries.get(name)?;
        (!entry.void
            && entry
                .expires
                .is_none_or(|expires| self.clock.now() < expires))
        .then_some(entry)
    }

    fn lookup(&self, name: &str) -> Lookup<Value> {
        match self.live(name).map(|entry| &entry.content) {
            Some(Content::Value(value)) => Lookup::Hit(value.clone()),
            Some(Content::Null) => Lookup::Null,
            _ => Lookup::Miss,
        }
    }

    /// Whether a backend may say that something was there: it must for what is alive, it may for what
    /// was made a miss without being touched, it must not for the rest.
    fn was_there(&self, name: &str) -> (bool, bool) {
        let there = |entry: &Entry| {
            entry
                .expires
                .is_none_or(|expires| self.clock.now() < expires)
        };
        let least = self.live(name).is_some();
        (least, self.entries.get(name).is_some_and(there))
    }

    fn removed(&mut self, name: &str, said: bool) -> TestCaseResult {
        let (least, most) = self.was_there(name);
        prop_assert!(least <= said && said <= most, "deleting {name} said {said}");
        self.entries.remove(name);
        Ok(())
    }
}

fn failed(error: impl std::fmt::Display) -> TestCaseError {
    TestCaseError::fail(error.to_string())
}

/// Every key that a scan shows.
async fn scan(cache: &Cache, pattern: &str) -> Result<BTreeSet<String>, TestCaseError> {
    let (mut seen, mut cursor) = (BTreeSet::new(), Cursor::default());
    loop {
        let page = cache.scan(pattern, cursor, 3).await.map_err(failed)?;
        seen.extend(page.keys);
        match page.next {
            Some(next) => cursor = next,
            None => return Ok(seen),
        }
    }
}

/// Runs the steps, each by one of two caches, and compares every answer with the map.
pub(crate) async fn run(
    caches: &[Cache; 2],
    clock: &ManualClock,
    lists_keys: bool,
    steps: &[(bool, Step)],
) -> TestCaseResult {
    let mut model = Model {
        entries: BTreeMap::new(),
        clock,
        numbers: 0,
    };
    for (second, step) in steps {
        let cache = &caches[usize::from(*second)];
        take_step(cache, &mut model, lists_keys, step).await?;
    }
    for cache in caches {
        agrees(cache, &model, lists_keys).await?;
    }
    // What is left dies when its time comes, and not before.
    while let Some(next) = (model.entries.keys())
        .filter_map(|name| model.live(name)?.expires)
        .min()
    {
        clock.advance(
            next.since(clock.now())
                .saturating_sub(Duration::from_millis(1)),
        );
        agrees(&caches[0], &model, lists_keys).await?;
        clock.advance(Duration::from_millis(1));
        agrees(&caches[1], &model, lists_keys).await?;
    }
    caches[0].clear().await.map_err(failed)?;
    for entry in model.entries.values_mut() {
        entry.void = true;
    }
    agrees(&caches[1], &model, lists_keys).await
}

/// Every key reads as the map says, and the listing holds what is alive and nothing that never was.
async fn agrees(cache: &Cache, model: &Model<'_>, lists_keys: bool) -> TestCaseResult {
    let keys: Vec<_> = (0..VALUES).map(value_key).collect();
    let found = cache.get_many::<Value>(&keys).await;
    for (key, found) in (0..VALUES).zip(found) {
        prop_assert_eq!(found.map_err(failed)?, model.lookup(&value_name(key)));
    }
    for key in 0..COUNTS {
        let found = cache.get::<i64>(&count_key(key)).await.map_err(failed)?;
        let known = match model.live(&count_name(key)).map(|entry| &entry.content) {
            Some(Content::Count(count)) => Lookup::Hit(*count),
            _ => Lookup::Miss,
        };
        prop_assert_eq!(found, known);
    }
    if lists_keys {
        let names = model.entries.keys();
        let least: BTreeSet<_> = names
            .clone()
            .filter(|name| model.was_there(name).0)
            .collect();
        let most: BTreeSet<_> = names.filter(|name| model.was_there(name).1).collect();
        let seen = scan(cache, "*").await?;
        let seen: BTreeSet<_> = seen.iter().collect();
        prop_assert!(least.is_subset(&seen), "{seen:?} lacks some of {least:?}");
        prop_assert!(seen.is_subset(&most), "{seen:?} has more than {most:?}");
        prop_assert_eq!(cache.len().await.map_err(failed)?, seen.len() as u64);
    }
    Ok(())
}

async fn take_step(
    cache: &Cache,
    model: &mut Model<'_>,
    lists_keys: bool,
    step: &Step,
) -> TestCaseResult {
    match step.clone() {
        Step::Get(key) => {
            let found = cache.get(&value_key(key)).await.map_err(failed)?;
            prop_assert_eq!(found, model.lookup(&value_name(key)));
            let exists = cache.exists(&value_key(key)).await.map_err(failed)?;
            prop_assert_eq!(exists, model.live(&value_name(key)).is_some());
        }
        Step::GetMany(keys) => {
            let asked: Vec<_> = keys.iter().copied().map(value_key).collect();
            let found = cache.get_many(&asked).await;
            prop_assert_eq!(found.len(), keys.len());
            for (key, found) in keys.into_iter().zip(found) {
                prop_assert_eq!(found.map_err(failed)?, model.lookup(&value_name(key)));
            }
        }
        Step::Set(key, options) => {
            let value = model.value(options);
            let (name, key) = (value_name(key), value_key(key));
            let set = cache.set(&key, &value, options.set());
            set.await.map_err(failed)?;
            model.put(name, Content::Value(value), options);
        }
        Step::SetNull(key, options) => {
            let (name, key) = (value_name(key), value_key(key));
            let set = cache.set_null(&key, options.set());
            set.await.map_err(failed)?;
            model.put(name, Content::Null, options);
        }
        Step::SetMany(keys, options) => {
            let values: Vec<_> = keys
                .into_iter()
                .map(|key| (key, model.value(options)))
                .collect();
            let named: Vec<_> = values
                .iter()
                .map(|(key, value)| (value_key(*key), value.clone()))
                .collect();
            for set in cache.set_many(&named, options.set()).await {
                set.map_err(failed)?;
            }
            for (key, value) in values {
                model.put(value_name(key), Content::Value(value), options);
            }
        }
        Step::Delete(key) => {
            let said = cache.delete(&value_key(key)).await.map_err(failed)?;
            model.removed(&value_name(key), said)?;
        }
        Step::DeleteMany(keys) => {
            let named: Vec<_> = keys.iter().copied().map(value_key).collect();
            let said = cache.delete_many(&named).await;
            prop_assert_eq!(said.len(), keys.len());
            for (key, said) in keys.into_iter().zip(said) {
                model.removed(&value_name(key), said.map_err(failed)?)?;
            }
        }
        Step::Add(key, options) => {
            let value = model.value(options);
            let (name, key) = (value_name(key), value_key(key));
            let add = cache.add(&key, &value, options.set());
            let added = add.await.map_err(failed)?;
            prop_assert_eq!(added, model.live(&name).is_none());
            if added {
                model.put(name, Content::Value(value), options);
            }
        }
        Step::CompareAndSet(key, between, options) => {
            let (name, key) = (value_name(key), value_key(key));
            let (found, version) = cache.get_versioned::<Value>(&key).await.map_err(failed)?;
            prop_assert_eq!(found, model.lookup(&name));
            let (live, there) = model.was_there(&name);
            // Whether it still holds what it held. Of what is served no more but may lie there, nobody
            // can tell.
            let expected = match between {
                None => Some(true),
                Some(0) => {
                    let other = model.value(options);
                    let set = cache.set(&key, &other, options.set());
                    set.await.map_err(failed)?;
                    model.put(name.clone(), Content::Value(other), options);
                    Some(false)
                }
                Some(_) => {
                    let said = cache.delete(&key).await.map_err(failed)?;
                    model.removed(&name, said)?;
                    (live == there).then_some(!there)
                }
            };
            let value = model.value(options);
            let set = cache.compare_and_set(&key, &version, &value, options.set());
            let set = set.await.map_err(failed)?;
            if let Some(expected) = expected {
                prop_assert_eq!(set, expected);
            }
            if set {
                model.put(name, Content::Value(value), options);
            }
        }
        Step::Touch(key, another) => {
            let (name, key) = (value_name(key), value_key(key));
            let touch = cache.touch(&key, Ttl::from(life(another)));
            let touched = touch.await.map_err(failed)?;
            prop_assert_eq!(touched, model.live(&name).is_some());
            let expires = life(another).map(|life| model.clock.now().after(life));
            if let Some(entry) = model.entries.get_mut(&name).filter(|_| touched) {
                entry.expires = expires;
            }
        }
        Step::Ttl(key) => {
            let left = cache.ttl(&value_key(key)).await.map_err(failed)?;
            let now = model.clock.now();
            let known = model
                .live(&value_name(key))
                .map(|entry| match entry.expires {
                    None => Remaining::Forever,
                    Some(expires) => Remaining::For(expires.since(now)),
                });
            prop_assert_eq!(left, known);
        }
        Step::Take(key) => {
            let name = value_name(key);
            let taken = cache.take(&value_key(key)).await.map_err(failed)?;
            prop_assert_eq!(taken, model.lookup(&name));
            if model.live(&name).is_some() {
                model.entries.remove(&name);
            }
        }
        Step::Increment(key, by, options) => {
            let (name, key) = (count_name(key), count_key(key));
            let by = i64::from(by);
            let increment = cache.increment(&key, by, options.set());
            let count = increment.await.map_err(failed)?;
            let held = match model.live(&name).map(|entry| &entry.content) {
                Some(Content::Count(held)) => Some(*held),
                _ => None,
            };
            prop_assert_eq!(count, held.unwrap_or(0) + by);
            match (held, model.entries.get_mut(&name)) {
                (Some(_), Some(entry)) => entry.content = Content::Count(count),
                _ => model.put(name, Content::Count(count), options),
            }
        }
        Step::IncrementValue(key) => {
            let name = value_name(key);
            if model.live(&name).is_some() {
                let refused = cache.increment(&value_key(key), 1, Ttl::Forever).await;
                let kind = refused.map_err(|error| error.kind());
                prop_assert_eq!(kind, Err(ErrorKind::InvalidRequest));
            }
        }
        Step::Scan => agrees(cache, model, lists_keys).await?,
        Step::DeletePattern(values) => {
            let kind = if values { "value:" } else { "count:" };
            let removed = cache.delete_pattern(&format!("{kind}*")).await;
            if lists_keys {
                let names: Vec<_> = model.entries.keys().cloned().collect();
                let names: Vec<_> = names
                    .into_iter()
                    .filter(|name| name.starts_with(kind))
                    .collect();
                let least = names.iter().filter(|name| model.was_there(name).0).count();
                let most = names.iter().filter(|name| model.was_there(name).1).count();
                let removed = removed.map_err(failed)? as usize;
                prop_assert!(least <= removed && removed <= most, "{removed} removed");
                model.entries.retain(|name, _| !name.starts_with(kind));
            } else {
                let kind = removed.map_err(|error| error.kind());
                prop_assert_eq!(kind, Err(ErrorKind::Unsupported));
            }
        }
        Step::Clear => {
            cache.clear().await.map_err(failed)?;
            for entry in model.entries.values_mut() {
                entry.void = true;
            }
        }
        Step::InvalidateTag(tag) => {
            let name = format!("tag-{tag}");
            cache.invalidate_tag(&name).await.map_err(failed)?;
            for entry in model.entries.values_mut() {
                entry.void |= entry.tag == Some(tag);
            }
        }
        Step::Advance(by) => model.clock.advance(Duration::from_millis(by.into())),
    }
    Ok(())
}
