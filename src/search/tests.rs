//! The stage: partitions that come and go, thresholds, expiry, audits, the folder.

use std::fs;
use std::sync::Arc;

use askonce_index::{FlatIndex, IndexError, Row as IndexRow};

use super::*;
use crate::request::{Request, Scope};

const START: u64 = 1_790_000_000_000;

fn now() -> Timestamp {
    Timestamp::from_millis(START)
}

fn later(seconds: u64) -> Timestamp {
    now().after(Duration::from_secs(seconds))
}

fn stage() -> SearchStage {
    SearchStage::new(2, &IndexConfig::default()).unwrap()
}

/// A row of the tenant with this number, who has a partition.
fn row(tenant: u64, text: u64, expires: Option<Timestamp>) -> Row {
    let request = Request::prompt(format!("{text}")).scope(Scope::tenant(format!("t{tenant}")));
    Row {
        exact: request.exact_key(),
        partition: request.partition(),
        scope: request.scope_ref().clone(),
        model: "gpt-4o".into(),
        tags: ["doc:1".to_owned()].into(),
        created: now(),
        expires,
    }
}

fn at(degrees: f32) -> [f32; 2] {
    let (sin, cos) = degrees.to_radians().sin_cos();
    [cos, sin]
}

fn ids(found: &Found) -> Vec<u64> {
    found
        .candidates
        .iter()
        .map(|found| found.id.get())
        .collect()
}

fn all(stage: &SearchStage, tenant: u64, now: Timestamp) -> Vec<u64> {
    let partition = row(tenant, 0, None).partition;
    ids(&stage.nearest(&partition, &at(0.0), 100, now).unwrap())
}

#[test]
fn a_partition_is_closed_with_its_last_row_and_counts_follow() {
    let stage = stage();
    let empty = stage.bytes();
    for id in 0..300 {
        stage
            .upsert(EntryId::new(id), &row(id / 3, id, None), &at(id as f32))
            .unwrap();
    }
    assert_eq!((stage.len(), stage.partitions()), (300, 100));
    assert!(stage.bytes() > empty);
    // The same entry again is no other row.
    stage
        .upsert(EntryId::new(0), &row(0, 0, None), &at(9.0))
        .unwrap();
    assert_eq!((stage.len(), stage.partitions()), (300, 100));
    for id in 0..300 {
        assert!(stage.remove(&row(id / 3, id, None).partition, EntryId::new(id)));
        assert!(!stage.remove(&row(id / 3, id, None).partition, EntryId::new(id)));
    }
    assert_eq!((stage.len(), stage.partitions()), (0, 0));
    // What is left is room in the map.
    let slots = stage.bytes() - empty;
    assert!(slots < 64 * 8 * 64, "{slots}");
}

#[test]
fn a_refused_vector_leaves_no_partition_behind() {
    let stage = stage();
    let error = stage
        .upsert(EntryId::new(1), &row(1, 1, None), &[1.0])
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Index);
    assert!(
        stage
            .upsert(EntryId::new(1), &row(1, 1, None), &[0.0, 0.0])
            .is_err()
    );
    assert_eq!((stage.len(), stage.partitions()), (0, 0));
}

#[test]
fn entries_that_are_all_of_a_partition_go_with_it_and_others_one_by_one() {
    let stage = stage();
    for id in 0..40 {
        stage
            .upsert(EntryId::new(id), &row(id % 2, id, None), &at(id as f32))
            .unwrap();
    }
    let partition = |tenant| row(tenant, 0, None).partition;
    let even: Vec<_> = (0..20).map(|id| EntryId::new(2 * id)).collect();
    // Some that are not there are no hindrance.
    let more: Vec<_> = even.iter().copied().chain([EntryId::new(99)]).collect();
    assert_eq!(stage.remove_all(&partition(0), &more), 20);
    assert_eq!((stage.len(), stage.partitions()), (20, 1));
    assert_eq!(stage.remove_all(&partition(0), &even), 0);
    let odd: Vec<_> = (0..10).map(|id| EntryId::new(2 * id + 1)).collect();
    assert_eq!(stage.remove_all(&partition(1), &odd), 10);
    assert_eq!(all(&stage, 1, now()).len(), 10);
    assert_eq!(stage.drop_partition(&partition(1)), 10);
    assert_eq!(stage.drop_partition(&partition(1)), 0);
    assert_eq!((stage.len(), stage.partitions()), (0, 0));
}

#[test]
fn large_partitions_are_counted_where_they_stand_and_return_when_they_shrink() {
    let stage = stage();
    let large = partitions::LARGE_ROWS as u64 + 10;
    for id in 0..large {
        stage
            .upsert(EntryId::new(id), &row(1, id, None), &at(id as f32))
            .unwrap();
    }
    stage
        .upsert(EntryId::new(large), &row(2, 0, None), &at(1.0))
        .unwrap();
    let stats = stage.stats(now());
    assert_eq!(stats.small.rows, 1);
    assert_eq!(stats.small.partitions, 1);
    let rows: usize = stats.large.values().map(|engine| engine.rows).sum();
    assert_eq!(rows as u64, large);
    let bytes: usize = stats.large.values().map(|engine| engine.bytes).sum();
    assert_eq!(stage.bytes(), bytes + stats.small.bytes);
    assert!(bytes as u64 >= large * 8);
    for id in 0..20 {
        stage.remove(&row(1, id, None).partition, EntryId::new(id));
    }
    let stats = stage.stats(now());
    assert!(stats.large.is_empty(), "{stats:?}");
    assert_eq!(stats.small.rows as u64, large + 1 - 20);
    stage.drop_partition(&row(1, 0, None).partition);
    stage.drop_partition(&row(2, 0, None).partition);
    assert_eq!((stage.len(), stage.partitions()), (0, 0));
}

#[test]
fn writers_of_one_partition_that_opens_and_closes_lose_no_row_and_no_count() {
    let stage = Arc::new(stage());
    let partition = row(1, 0, None).partition;
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let stage = Arc::clone(&stage);
            scope.spawn(move || {
                for round in 0..400 {
                    let id = EntryId::new(thread * 1000 + round);
                    stage
                        .upsert(id, &row(1, 0, None), &at(thread as f32))
                        .unwrap();
                    assert!(all(&stage, 1, now()).contains(&id.get()));
                    if round % 2 == 0 {
                        assert!(stage.remove(&partition, id));
                    } else {
                        assert_eq!(stage.remove_all(&partition, &[id]), 1);
                    }
                }
                stage
                    .upsert(EntryId::new(thread), &row(1, 0, None), &at(1.0))
                    .unwrap();
            });
        }
    });
    assert_eq!((stage.len(), stage.partitions()), (4, 1));
    let mut left = all(&stage, 1, now());
    left.sort_unstable();
    assert_eq!(left, [0, 1, 2, 3]);
}

#[test]
fn a_search_above_a_similarity_sees_what_rounding_put_below_it_and_nothing_farther() {
    let stage = stage();
    for (id, degrees) in [(1, 0.0), (2, 25.0), (3, 60.0)] {
        stage
            .upsert(EntryId::new(id), &row(1, id, None), &at(degrees))
            .unwrap();
    }
    let partition = row(1, 0, None).partition;
    let above = |least| {
        let found = stage
            .nearest_above(&partition, &at(0.0), 8, now(), least)
            .unwrap();
        assert!(found.has_rows);
        ids(&found)
    };
    assert_eq!(above(25f32.to_radians().cos()), [1, 2]);
    assert_eq!(above(0.95), [1]);
    assert_eq!(above(-1.0), [1, 2, 3]);
    assert!(above(f32::INFINITY).is_empty());
    assert_eq!(all(&stage, 1, now()), [1, 2, 3]);
    let elsewhere = row(2, 0, None).partition;
    assert_eq!(
        stage.nearest(&elsewhere, &at(0.0), 8, now()).unwrap(),
        Found::default()
    );
}

#[test]
fn a_dead_entry_is_not_found_and_its_row_is_removed() {
    let stage = stage();
    stage
        .upsert(EntryId::new(1), &row(1, 1, Some(later(100))), &at(0.0))
        .unwrap();
    stage
        .upsert(EntryId::new(2), &row(1, 2, None), &at(1.0))
        .unwrap();
    stage
        .upsert(EntryId::new(3), &row(2, 3, Some(later(100))), &at(0.0))
        .unwrap();
    // The index counts in seconds and hides nothing before its time.
    let almost = Timestamp::from_millis(START + 99_999);
    assert_eq!(all(&stage, 1, almost), [1, 2]);
    assert_eq!(stage.remove_expired(almost), 0);
    assert_eq!(all(&stage, 1, later(100)), [2]);
    assert_eq!(stage.len(), 3);
    assert_eq!(stage.remove_expired(later(100)), 2);
    assert_eq!((stage.len(), stage.partitions()), (1, 1));
    assert_eq!(stage.remove_expired(later(1000)), 0);
    // Rows that come to a partition that was looked at are found dead as well.
    stage
        .upsert(EntryId::new(4), &row(1, 4, Some(later(1010))), &at(0.0))
        .unwrap();
    assert_eq!(stage.remove_expired(later(1010)), 1);
}

/// Finds nothing but by exact search.
#[derive(Debug)]
struct Blind(FlatIndex);

impl VectorIndex for Blind {
    fn dimension(&self) -> usize {
        self.0.dimension()
    }
    fn capability(&self) -> askonce_index::Capability {
        let mut capability = self.0.capability();
        capability.exact = false;
        capability
    }
    fn upsert_until(&self, id: RowId, vector: &[f32], expires: Expiry) -> Result<(), IndexError> {
        self.0.upsert_until(id, vector, expires)
    }
    fn remove(&self, id: RowId) -> Result<bool, IndexError> {
        self.0.remove(id)
    }
    fn remove_expired(&self, now: Expiry) -> Result<usize, IndexError> {
        self.0.remove_expired(now)
    }
    fn contains(&self, id: RowId) -> bool {
        self.0.contains(id)
    }
    fn query(&self, query: &Query<'_>, out: &mut Vec<Neighbor>) -> Result<(), IndexError> {
        if format!("{query:?}").contains("exact: true") {
            self.0.query(query, out)?;
        }
        Ok(())
    }
    fn len(&self) -> usize {
        self.0.len()
    }
    fn bytes(&self) -> usize {
        self.0.bytes()
    }
    fn snapshot(&self, out: &mut dyn std::io::Write) -> Result<(), IndexError> {
        self.0.snapshot(out)
    }
    fn for_each(&self, f: &mut dyn FnMut(IndexRow<'_>)) {
        self.0.for_each(f);
    }
}

#[test]
fn an_audit_tells_of_an_index_that_misses_and_exact_ones_are_left_alone() {
    let config = IndexConfig {
        audit_every: 1,
        ..IndexConfig::default()
    };
    let stage = SearchStage::new(2, &config).unwrap();
    stage
        .upsert(EntryId::new(1), &row(1, 1, None), &at(0.0))
        .unwrap();
    let exact = row(1, 0, None).partition;
    let blind = row(2, 0, None).partition;
    let index = FlatIndex::new(2).unwrap();
    index.upsert(RowId(7), &at(0.0)).unwrap();
    stage
        .partitions
        .adopt(blind, Box::new(Blind(index)), Expiry::NEVER);
    for _ in 0..10 {
        stage
            .nearest_above(&exact, &at(0.0), 1, now(), 0.9)
            .unwrap();
    }
    assert_eq!(stage.audit(now()).queries, 0);
    for least in [0.9, 0.9, 0.9] {
        let found = stage
            .nearest_above(&blind, &at(1.0), 1, now(), least)
            .unwrap();
        assert!(found.candidates.is_empty());
    }
    // One without a neighbour says nothing.
    stage
        .nearest_above(&blind, &at(90.0), 1, now(), 0.9)
        .unwrap();
    let audit = stage.audit(now());
    assert_eq!(
        (audit.queries, audit.with_neighbor, audit.best_found),
        (4, 3, 0)
    );
    let stats = stage.stats(now());
    assert_eq!((stats.audited, stats.recall), (4, Some(0.0)));
    // Each lookup is audited once.
    assert_eq!(stage.audit(now()).queries, 0);
}

/// A folder that goes away with the test.
fn folder() -> (tempfile::TempDir, IndexConfig) {
    let folder = tempfile::tempdir().unwrap();
    let config = IndexConfig {
        path: Some(folder.path().join("index")),
        ..IndexConfig::default()
    };
    (folder, config)
}

fn restore(config: &IndexConfig, fingerprint: &str) -> (SearchStage, Vec<(u64, usize)>) {
    let (stage, restored) = SearchStage::restored(2, config, fingerprint, now()).unwrap();
    let entries = restored
        .iter()
        .map(|entry| (entry.id.get(), entry.wrong.len()));
    let mut entries: Vec<_> = entries.collect();
    entries.sort_unstable();
    (stage, entries)
}

/// Partitions of one row each, one of three, and a large one, by a journal alone or by a snapshot.
fn fill(stage: &SearchStage) {
    let large = partitions::LARGE_ROWS as u64;
    for id in 0..large + 20 {
        let tenant = if id < large { 1000 } else { id };
        let row = row(tenant, id, None);
        stage
            .upsert(EntryId::new(id), &row, &at(id as f32 / 10.0))
            .unwrap();
    }
}

fn known(tenant_of: impl Fn(u64) -> u64) -> impl Fn(EntryId) -> Option<Known> {
    move |id| Some((row(tenant_of(id.get()), id.get(), None), Vec::new()))
}

#[test]
fn a_restart_finds_the_rows_of_the_snapshot_and_of_the_journal_since() {
    let (_guard, config) = folder();
    let large = partitions::LARGE_ROWS as u64;
    let tenant_of = move |id| if id < large { 1000 } else { id };
    {
        let (stage, entries) = restore(&config, "a");
        assert!(entries.is_empty());
        fill(&stage);
        assert!(stage.save(now(), &known(tenant_of)).unwrap());
        // After the snapshot: a new row, one that goes, a partition that goes, one that is dead at once.
        stage
            .upsert(EntryId::new(9000), &row(7, 1, None), &at(5.0))
            .unwrap();
        stage.remove(&row(1000, 0, None).partition, EntryId::new(3));
        stage.drop_partition(&row(large + 1, 0, None).partition);
        stage.note_wrong(&row(7, 1, None).partition, EntryId::new(9000), [3; 32]);
        stage
            .upsert(EntryId::new(9001), &row(7, 2, Some(now())), &at(5.0))
            .unwrap();
    }
    let (stage, entries) = restore(&config, "a");
    let count = large + 20 - 2 + 1;
    assert_eq!((entries.len() as u64, stage.len() as u64), (count, count));
    assert!(entries.contains(&(9000, 1)));
    assert_eq!(stage.partitions(), 1 + 19 + 1);
    assert_eq!(all(&stage, 7, now()), [9000]);
    assert!(
        !entries
            .iter()
            .any(|(id, _)| [3, large + 1, 9001].contains(id))
    );
    // A large partition keeps rows less finely, and a restart knows what it kept.
    let partition = row(1000, 0, None).partition;
    for id in (0..large).filter(|id| *id != 3) {
        let found = stage
            .nearest(&partition, &at(id as f32 / 10.0), 1, now())
            .unwrap();
        assert!(found.candidates[0].similarity > 0.995, "{id}: {found:?}");
    }
    // A journal alone does as well, and so do two in a row.
    drop(stage);
    let (stage, again) = restore(&config, "a");
    assert_eq!(again, entries);
    assert!(stage.save(now(), &known(tenant_of)).unwrap());
    let files = fs::read_dir(config.path.as_ref().unwrap()).unwrap();
    let mut names: Vec<_> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names.len(), 3, "{names:?}");
    let path = config.path.clone().unwrap();
    let report = inspect(&path, "a").unwrap();
    assert!(report.faults.is_empty(), "{report:?}");
    assert_eq!(report.entries, stage.len());
}

#[test]
fn a_journal_that_was_cut_anywhere_gives_what_came_before() {
    let (_guard, config) = folder();
    {
        let (stage, _) = restore(&config, "a");
        for id in 0..20 {
            stage
                .upsert(EntryId::new(id), &row(id, id, None), &at(id as f32))
                .unwrap();
        }
    }
    let journal = config.path.as_ref().unwrap().join("journal-1");
    let bytes = fs::read(&journal).unwrap();
    let mut most = 0;
    for end in (0..=bytes.len()).rev().step_by(97) {
        let (_guard, config) = folder();
        fs::create_dir_all(config.path.as_ref().unwrap()).unwrap();
        fs::write(
            config.path.as_ref().unwrap().join("journal-1"),
            &bytes[..end],
        )
        .unwrap();
        let (stage, entries) = restore(&config, "a");
        assert_eq!(stage.len(), entries.len());
        let expected: Vec<_> = (0..entries.len() as u64).map(|id| (id, 0)).collect();
        assert_eq!(entries, expected);
        most = most.max(entries.len());
    }
    assert_eq!(most, 20);
}

#[test]
fn what_is_damaged_is_refused_and_the_rest_is_kept() {
    let (_guard, config) = folder();
    let path = config.path.clone().unwrap();
    {
        let (stage, _) = restore(&config, "a");
        fill(&stage);
        let large = partitions::LARGE_ROWS as u64;
        stage
            .save(now(), &known(move |id| if id < large { 1000 } else { id }))
            .unwrap();
        stage
            .upsert(EntryId::new(9000), &row(7, 1, None), &at(5.0))
            .unwrap();
    }
    // The index of the large partition.
    let part = path.join("snapshot-2-1");
    let mut bytes = fs::read(&part).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&part, bytes).unwrap();
    let (stage, entries) = restore(&config, "a");
    assert_eq!((entries.len(), stage.len()), (21, 21));
    drop(stage);
    // The snapshot itself, near its beginning: what the journal has is there.
    let snapshot = path.join("snapshot-2");
    let mut bytes = fs::read(&snapshot).unwrap();
    bytes[60] ^= 1;
    fs::write(&snapshot, bytes).unwrap();
    let (stage, entries) = restore(&config, "a");
    assert_eq!(entries, [(9000, 0)]);
    assert_eq!(stage.len(), 1);
    let report = inspect(&path, "a").unwrap();
    assert_eq!(report.faults.len(), 1, "{report:?}");
    assert!(report.faults[0].contains("checksum"), "{report:?}");
}

#[test]
fn another_embedding_gets_no_vectors_and_a_folder_has_one_user() {
    let (_guard, config) = folder();
    let (stage, _) = restore(&config, "a");
    stage
        .upsert(EntryId::new(1), &row(1, 1, None), &at(5.0))
        .unwrap();
    let error = SearchStage::restored(2, &config, "a", now()).unwrap_err();
    assert!(error.to_string().contains("another process"), "{error}");
    drop(stage);
    let (stage, entries) = restore(&config, "b");
    assert!(
        stage.is_empty(),
        "vectors of another space are never compared"
    );
    assert_eq!(entries, [(1, 0)], "and what they belong to is not lost");
    drop(stage);
    let report = inspect(config.path.as_ref().unwrap(), "b").unwrap();
    assert!(report.faults[0].contains("embedding a"), "{report:?}");
    // The other way round still finds it: nothing was written over.
    let (stage, entries) = restore(&config, "a");
    assert_eq!((entries, stage.len()), (vec![(1, 0)], 1));
}

#[test]
fn entries_of_another_embedding_stay_on_disk_until_all_are_embedded_anew() {
    let (_guard, config) = folder();
    {
        let (stage, _) = restore(&config, "a");
        for id in 0..6 {
            stage
                .upsert(EntryId::new(id), &row(id, id, None), &at(5.0))
                .unwrap();
        }
        assert!(stage.save(now(), &known(|id| id)).unwrap());
        // After the snapshot, in the journal: one more, one less, one that was wrong.
        stage
            .upsert(EntryId::new(6), &row(6, 6, None), &at(5.0))
            .unwrap();
        stage.remove(&row(0, 0, None).partition, EntryId::new(0));
        stage.note_wrong(&row(1, 1, None).partition, EntryId::new(1), [3; 32]);
    }
    let waiting = |stage: &[Restored]| -> Vec<u64> {
        let waiting = stage.iter().filter(|restored| !restored.embedded);
        let mut ids: Vec<u64> = waiting.map(|restored| restored.id.get()).collect();
        ids.sort_unstable();
        ids
    };
    let open = || SearchStage::restored(3, &config, "b", now()).unwrap();
    {
        let (stage, restored) = open();
        assert_eq!(waiting(&restored), [1, 2, 3, 4, 5, 6]);
        for id in [1, 2] {
            let row = row(id, id, None);
            stage
                .upsert(EntryId::new(id), &row, &[1.0, 0.0, 0.0])
                .unwrap();
        }
        stage.remove(&row(2, 2, None).partition, EntryId::new(2));
        // A process that ends in the middle asks for a snapshot, and loses nothing.
        assert!(stage.save(now(), &known(|id| id)).unwrap());
    }
    {
        let (stage, restored) = open();
        assert_eq!(stage.len(), 1);
        assert_eq!(waiting(&restored), [3, 4, 5, 6]);
        let first = restored.iter().find(|restored| restored.id.get() == 1);
        assert_eq!(first.unwrap().wrong.len(), 1, "what was wrong stays wrong");
        stage.migrated();
        assert!(stage.save(now(), &known(|id| id)).unwrap());
    }
    let (stage, restored) = open();
    assert_eq!((stage.len(), waiting(&restored)), (1, Vec::new()));
    assert_eq!(restored.len(), 1);
}

#[test]
fn writes_during_a_snapshot_are_in_it_or_in_the_journal() {
    let (_guard, config) = folder();
    {
        let (stage, _) = restore(&config, "a");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for id in 0..3000 {
                    let row = row(id % 50, id, None);
                    stage
                        .upsert(EntryId::new(id), &row, &at(id as f32))
                        .unwrap();
                    if id % 3 == 0 {
                        stage.remove(&row.partition, EntryId::new(id));
                    }
                }
            });
            for _ in 0..5 {
                stage.save(now(), &known(|id| id % 50)).unwrap();
            }
        });
    }
    let (stage, entries) = restore(&config, "a");
    let expected: Vec<_> = (0..3000)
        .filter(|id| id % 3 != 0)
        .map(|id| (id, 0))
        .collect();
    assert_eq!(entries, expected);
    assert_eq!(stage.len(), 2000);
}
