//! Two processes against one map: whatever they do by turns, they agree with it.

use std::collections::HashMap;

use askonce::typed::{Lookup, Remaining, SetOptions, Ttl};
use proptest::prelude::*;

use super::*;

const TAGS: [&str; 2] = ["a", "b"];

#[derive(Clone, Debug)]
enum Op {
    Set(u8, i64, Option<u64>, u8),
    SetMany(Vec<(u8, i64)>, Option<u64>),
    Add(u8, i64, u64),
    Swap(u8, i64),
    Load(u8, i64, u64, u8),
    Increment(u8, i64, Option<u64>),
    Touch(u8, Option<u64>),
    Take(u8),
    Delete(u8),
    Invalidate(u8),
    Clear,
    Pattern(u8),
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let key = || 0_u8..4;
    let life = || prop::option::of(1_u64..500);
    let value = || -1_000_i64..1_000;
    prop_oneof![
        4 => (key(), value(), life(), 0_u8..4).prop_map(|(k, v, l, t)| Op::Set(k, v, l, t)),
        1 => (prop::collection::vec((key(), value()), 0..6), life())
            .prop_map(|(all, l)| Op::SetMany(all, l)),
        2 => (key(), value(), 1_u64..500).prop_map(|(k, v, l)| Op::Add(k, v, l)),
        1 => (key(), value()).prop_map(|(k, v)| Op::Swap(k, v)),
        3 => (key(), value(), 1_u64..500, 0_u8..4).prop_map(|(k, v, l, t)| Op::Load(k, v, l, t)),
        2 => (key(), value(), life()).prop_map(|(k, v, l)| Op::Increment(k, v, l)),
        1 => (key(), life()).prop_map(|(k, l)| Op::Touch(k, l)),
        1 => key().prop_map(Op::Take),
        1 => key().prop_map(Op::Delete),
        1 => (0_u8..2).prop_map(Op::Invalidate),
        1 => Just(Op::Clear),
        1 => key().prop_map(Op::Pattern),
        3 => (1_u64..300).prop_map(Op::Wait),
    ]
}

/// What the map knows of a key: its value, when it dies, and its tags as bits.
type Known = (i64, Option<u64>, u8);

fn life(millis: Option<u64>) -> Ttl {
    Ttl::from(millis.map(Duration::from_millis))
}

fn tags(bits: u8) -> impl Iterator<Item = &'static str> {
    let tags = TAGS.iter().enumerate();
    tags.filter_map(move |(at, tag)| (bits & 1 << at != 0).then_some(*tag))
}

async fn run(ops: Vec<(bool, Op)>) -> Result<(), TestCaseError> {
    let clock = support::clock();
    let memory = MemoryBackend::builder(MemoryConfig::default()).clock(Arc::clone(&clock) as _);
    let backend: BackendHandle = Arc::new(memory.build().unwrap());
    let process = || {
        let builder = Cache::builder(Arc::clone(&backend)).clock(Arc::clone(&clock) as _);
        builder.namespace("app").build().unwrap()
    };
    let processes = [process(), process()];
    let mut map: HashMap<u8, Known> = HashMap::new();
    let mut now = 0_u64;
    for (second, op) in ops {
        let cache = &processes[usize::from(second)];
        let dies = |life: Option<u64>| life.map(|life| now + life);
        match op {
            Op::Set(key, value, lives, bits) => {
                let options = SetOptions::new(life(lives)).tags(tags(bits));
                cache.set(&Key::new(key), &value, options).await.unwrap();
                map.insert(key, (value, dies(lives), bits));
            }
            Op::SetMany(all, lives) => {
                let values: Vec<_> = all.iter().map(|(k, v)| (Key::new(*k), *v)).collect();
                let stored = cache.set_many(&values, life(lives)).await;
                prop_assert!(stored.iter().all(Result::is_ok) && stored.len() == all.len());
                map.extend(all.into_iter().map(|(k, v)| (k, (v, dies(lives), 0))));
            }
            Op::Add(key, value, lives) => {
                let added = cache.add(&Key::new(key), &value, life(Some(lives))).await;
                prop_assert_eq!(added.unwrap(), !map.contains_key(&key));
                map.entry(key).or_insert((value, dies(Some(lives)), 0));
            }
            Op::Swap(key, value) => {
                let (_, version) = cache.get_versioned::<i64>(&Key::new(key)).await.unwrap();
                let name = Key::new(key);
                let swap = cache.compare_and_set(&name, &version, &value, None);
                prop_assert!(swap.await.unwrap());
                map.insert(key, (value, None, 0));
            }
            Op::Load(key, value, lives, bits) => {
                let name = Key::new(key);
                let load = cache.load(&name).ttl(life(Some(lives))).tags(tags(bits));
                let loaded = load.run(|| async { value }).await;
                let known = (value, dies(Some(lives)), bits);
                prop_assert_eq!(loaded, map.entry(key).or_insert(known).0);
            }
            Op::Increment(key, by, lives) => {
                let count = cache.increment(&Key::new(key), by, life(lives)).await;
                let known = map.entry(key).or_insert((0, dies(lives), 0));
                known.0 += by;
                prop_assert_eq!(count.unwrap(), known.0);
            }
            Op::Touch(key, lives) => {
                let touched = cache.touch(&Key::new(key), life(lives)).await.unwrap();
                prop_assert_eq!(touched, map.contains_key(&key));
                map.entry(key).and_modify(|known| known.1 = dies(lives));
            }
            Op::Take(key) => {
                let taken = cache.take::<i64>(&Key::new(key)).await.unwrap().hit();
                prop_assert_eq!(taken, map.remove(&key).map(|known| known.0));
            }
            Op::Delete(key) => {
                // What is dead may still be there to be deleted.
                let deleted = cache.delete(&Key::new(key)).await.unwrap();
                prop_assert!(deleted || !map.contains_key(&key));
                map.remove(&key);
            }
            Op::Invalidate(tag) => {
                cache.invalidate_tag(TAGS[usize::from(tag)]).await.unwrap();
                map.retain(|_, known| known.2 & 1 << tag == 0);
            }
            Op::Clear => {
                cache.clear().await.unwrap();
                map.clear();
            }
            Op::Pattern(key) => {
                cache.delete_pattern(&format!("[{key}]")).await.unwrap();
                map.remove(&key);
            }
            Op::Wait(millis) => {
                clock.advance(Duration::from_millis(millis));
                now += millis;
            }
        }
        map.retain(|_, known| known.1.is_none_or(|dies| now < dies));
        let keys: Vec<_> = (0..4_u8).map(Key::new).collect();
        for cache in &processes {
            let all = cache.get_many::<i64>(&keys).await;
            for ((key, name), found) in (0..4_u8).zip(&keys).zip(all) {
                let known = map.get(&key);
                let expected = known.map_or(Lookup::Miss, |known| Lookup::Hit(known.0));
                prop_assert_eq!(found.unwrap(), expected);
                let left = known.map(|known| match known.1 {
                    None => Remaining::Forever,
                    Some(dies) => Remaining::For(Duration::from_millis(dies - now)),
                });
                prop_assert_eq!(cache.ttl(name).await.unwrap(), left);
                prop_assert_eq!(cache.exists(name).await.unwrap(), known.is_some());
            }
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn two_processes_are_one_map_with_lives_and_tags(
        ops in prop::collection::vec((any::<bool>(), op()), 1..50),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run(ops))?;
    }
}
