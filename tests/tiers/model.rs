//! Two processes over one store, compared with a map.

use std::collections::HashMap;

use askonce::backend::{CacheBackend, Condition, Glob};
use bytes::Bytes;
use proptest::prelude::*;

use crate::support::{Fault, Process, clock, heard, memory};

#[derive(Clone, Debug)]
enum Step {
    Get(u8),
    GetAll,
    Set(u8, u8),
    SetAbsent(u8, u8),
    Delete(u8),
    DeleteIf(u8, u8),
    Take(u8),
    DeleteMatching(u8),
    Clear,
}

const KEYS: u8 = 4;

fn step() -> impl Strategy<Value = Step> {
    let key = 0..KEYS;
    let value = 0..3_u8;
    prop_oneof![
        4 => key.clone().prop_map(Step::Get),
        1 => Just(Step::GetAll),
        4 => (key.clone(), value.clone()).prop_map(|(key, value)| Step::Set(key, value)),
        2 => (key.clone(), value.clone()).prop_map(|(key, value)| Step::SetAbsent(key, value)),
        2 => key.clone().prop_map(Step::Delete),
        2 => (key.clone(), value).prop_map(|(key, value)| Step::DeleteIf(key, value)),
        1 => key.clone().prop_map(Step::Take),
        1 => key.prop_map(Step::DeleteMatching),
        1 => Just(Step::Clear),
    ]
}

/// Everything a process says about a step that the far tier decides must be what the map says; what it
/// says about a read must be so when it has heard all the news.
async fn run(steps: Vec<(bool, bool, Step)>) {
    let clock = clock();
    let store = memory(&clock);
    let processes = [
        Process::of(&store, &clock).await,
        Process::of(&store, &clock).await,
    ];
    let mut model: HashMap<u8, Bytes> = HashMap::new();
    let value = |value: u8| Bytes::from(vec![value]);
    for (second, quiet, step) in steps {
        let process = &processes[usize::from(second)];
        let tiers = &process.tiers;
        if quiet {
            heard(&processes[0], &processes[1]).await;
            heard(&processes[1], &processes[0]).await;
        }
        match step {
            Step::Get(key) => {
                let held = tiers.get(&[key]).await.unwrap();
                if quiet {
                    assert_eq!(held.map(|held| held.bytes), model.get(&key).cloned());
                }
            }
            Step::GetAll => {
                let keys: Vec<_> = (0..KEYS).map(value).collect();
                for (key, held) in (0..KEYS).zip(tiers.get_many(&keys).await) {
                    if quiet {
                        let held = held.unwrap().map(|held| held.bytes);
                        assert_eq!(held, model.get(&key).cloned());
                    }
                }
            }
            Step::Set(key, new) => {
                tiers.set(&[key], value(new), None).await.unwrap();
                model.insert(key, value(new));
            }
            Step::SetAbsent(key, new) => {
                let name = [key];
                let done = tiers.set_if(&name, value(new), None, Condition::Absent);
                assert_eq!(done.await.unwrap(), !model.contains_key(&key));
                model.entry(key).or_insert(value(new));
            }
            Step::Delete(key) => {
                let deleted = tiers.delete(&[key]).await.unwrap();
                assert_eq!(deleted, model.remove(&key).is_some());
            }
            Step::DeleteIf(key, expected) => {
                let matches = model.get(&key) == Some(&value(expected));
                let done = tiers.delete_if(&[key], &[expected]).await.unwrap();
                assert_eq!(done, matches);
                if matches {
                    model.remove(&key);
                }
            }
            Step::Take(key) => {
                let taken = tiers.take(&[key]).await.unwrap();
                assert_eq!(taken.map(|held| held.bytes), model.remove(&key));
            }
            Step::DeleteMatching(key) => {
                let pattern = Glob::literal([key]);
                let removed = tiers.delete_matching(&pattern).await.unwrap();
                assert_eq!(removed, u64::from(model.remove(&key).is_some()));
            }
            Step::Clear => {
                tiers.clear().await.unwrap();
                model.clear();
            }
        }
    }
    heard(&processes[0], &processes[1]).await;
    heard(&processes[1], &processes[0]).await;
    for process in &processes {
        for key in 0..KEYS {
            let held = process.tiers.get(&[key]).await.unwrap();
            assert_eq!(held.map(|held| held.bytes), model.get(&key).cloned());
        }
        assert_eq!(process.tiers.owed(), 0);
    }
}

/// One process is cut off now and then. Whatever it says meanwhile: when it is back and has repeated what
/// was missed, both agree with the store, but for values that one of them holds alone, and what was
/// deleted last stays deleted.
async fn run_with_outages(steps: Vec<(bool, Option<bool>, Step)>) {
    let clock = clock();
    let store = memory(&clock);
    let processes = [
        Process::of(&store, &clock).await,
        Process::of(&store, &clock).await,
    ];
    // What each process was told last about a key: `None` is that it deleted it.
    let mut said: HashMap<(bool, u8), Option<Bytes>> = HashMap::new();
    for (second, cut_off, step) in steps {
        let process = &processes[usize::from(second)];
        if let Some(cut_off) = cut_off {
            process
                .far
                .set_fault(if cut_off { Fault::Down } else { Fault::None });
        }
        match step {
            Step::Set(key, new) | Step::SetAbsent(key, new) => {
                let new = Bytes::from(vec![new]);
                process.tiers.set(&[key], new.clone(), None).await.unwrap();
                said.remove(&(!second, key));
                said.insert((second, key), Some(new));
            }
            Step::Delete(key) | Step::DeleteIf(key, _) | Step::Take(key) => {
                // An error tells that the other process may not know yet; here it is gone.
                let _ = process.tiers.delete(&[key]).await;
                said.remove(&(!second, key));
                said.insert((second, key), None);
            }
            Step::Get(key) | Step::DeleteMatching(key) => {
                let held = process.tiers.get(&[key]).await;
                if let (Ok(held), Some(said)) = (held, said.get(&(second, key))) {
                    let held = held.map(|held| held.bytes);
                    // Nobody else has changed it: it is what was said, or lost.
                    assert!(held.is_none() || held == *said, "{held:?} {said:?}");
                }
            }
            Step::GetAll | Step::Clear => {}
        }
    }
    for process in &processes {
        process.far.set_fault(Fault::None);
    }
    for process in &processes {
        process.nothing_owed().await;
        process.is_trusted().await;
    }
    heard(&processes[0], &processes[1]).await;
    heard(&processes[1], &processes[0]).await;
    clock.advance(std::time::Duration::from_secs(60));
    for key in 0..KEYS {
        let truth = CacheBackend::get(&*store, &[key]).await.unwrap();
        for (second, process) in [false, true].into_iter().zip(&processes) {
            let held = process.tiers.get(&[key]).await.unwrap();
            assert_eq!(
                held.as_ref().map(|held| &held.bytes),
                truth.as_ref().map(|held| &held.bytes)
            );
            if let Some(said) = said.get(&(second, key)) {
                let held = held.map(|held| held.bytes);
                assert!(held.is_none() || held == *said, "{held:?} {said:?}");
            }
        }
    }
}

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn two_processes_over_one_store_agree_with_a_map(
        steps in prop::collection::vec((any::<bool>(), prop::bool::weighted(0.3), step()), 1..40),
    ) {
        block_on(run(steps));
    }

    #[test]
    fn after_outages_both_agree_and_nothing_deleted_comes_back(
        steps in prop::collection::vec(
            (any::<bool>(), prop::option::weighted(0.2, any::<bool>()), step()),
            1..40,
        ),
    ) {
        block_on(run_with_outages(steps));
    }
}
