//! Snapshots and files of the binary index: what is read is what was written, or nothing.
//!
//! A cache that starts again wants its index at once and as it was. So the cells are written as they
//! are and a file of them is searched in place. What can go wrong with files is tried here: damage,
//! cuts, other versions and settings, writes beside a save, a save over the file in use.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use askonce_index::{
    AutoConfig, AutoIndex, BinaryConfig, BinaryIndex, Expiry, FlatIndex, IndexConfig, IndexError,
    IndexKind, Neighbor, Precision, Query, RowId, SnapshotFault, VectorIndex, Verify, restore,
    save,
};

mod support;
use support::{Random, Twin, clustered, near, search};

const SMALL_CELLS: BinaryConfig = BinaryConfig {
    precision: Precision::Int8,
    probes: None,
    spread: None,
    recall: 0.995,
    cell_rows: Some(16),
};

const SMALL_CELLS_OF_16_BITS: BinaryConfig = BinaryConfig {
    precision: Precision::Int16,
    ..SMALL_CELLS
};

/// An index with a life behind it: rows that were replaced, removed and taught, and that expire.
fn used(rows: &[Vec<f32>], config: BinaryConfig) -> (BinaryIndex, Twin) {
    let index = BinaryIndex::new(rows[0].len(), config).unwrap();
    let mut twin = Twin::default();
    for (id, row) in (0..).zip(rows) {
        let first = &rows[(id as usize + 1) % rows.len()];
        index.upsert(RowId(id), first).unwrap();
        let expires = Expiry::at_seconds(id % 3 * 50);
        index.upsert_until(RowId(id), row, expires).unwrap();
        twin.upsert(id, row, expires);
        if id % 7 == 3 {
            index.remove(RowId(id - 1)).unwrap();
            twin.remove(id - 1);
        }
    }
    let queries: Vec<Query<'_>> = rows.iter().map(|row| Query::new(row, 3)).collect();
    index.audit(&queries).unwrap();
    (index, twin)
}

fn snapshot(index: &dyn VectorIndex) -> Vec<u8> {
    let mut bytes = Vec::new();
    index.snapshot(&mut bytes).unwrap();
    bytes
}

fn fault<T>(result: Result<T, IndexError>) -> SnapshotFault {
    match result.map(drop) {
        Err(IndexError::Snapshot { fault }) => fault,
        Err(other) => panic!("{other}"),
        Ok(()) => panic!("it was read"),
    }
}

/// A folder that is deleted, and a path in it.
fn place() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scope.index");
    (folder, path)
}

/// Answers of all kinds, with every bit of the scores.
fn answers(index: &dyn VectorIndex, rows: &[Vec<f32>]) -> Vec<Vec<(u64, u32)>> {
    let mut random = Random::new(77);
    let mut all = Vec::new();
    for row in rows {
        let query = near(&mut random, row, 0.4);
        for query in [
            Query::new(&query, 5),
            Query::new(&query, 5).above(0.7),
            Query::new(&query, 3).at(Expiry::at_seconds(50)).above(0.5),
            Query::new(&query, 5).exact(),
        ] {
            let mut found = Vec::new();
            index.query(&query, &mut found).unwrap();
            let bits = |n: &Neighbor| (n.id.0, n.score.to_bits());
            all.push(found.iter().map(bits).collect());
        }
    }
    all
}

#[test]
fn a_restored_and_an_opened_index_answer_bit_for_bit_as_the_one_that_was_written() {
    for (dimension, config) in [
        (24, SMALL_CELLS),
        (128, SMALL_CELLS_OF_16_BITS),
        (200, SMALL_CELLS),
        (64, BinaryConfig::default()),
    ] {
        let rows = clustered(&mut Random::new(1), 700, dimension);
        let (index, twin) = used(&rows, config);
        let expected = answers(&index, &rows);
        let (_folder, path) = place();
        index.save(&path).unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes, snapshot(&index));
        let opened = BinaryIndex::open(&path, config).unwrap();
        assert!(opened.mapped_bytes() > 0);
        assert_eq!(opened.mapped_bytes() % dimension.div_ceil(64), 0);
        let restored = BinaryIndex::restore(&mut bytes.as_slice(), config).unwrap();
        assert_eq!(restored.mapped_bytes(), 0);
        for again in [&opened, &restored] {
            assert_eq!(again.len(), index.len());
            assert_eq!(again.cells(), index.cells());
            assert_eq!(again.backlog().dead, 0);
            assert!(expected == answers(again, &rows), "{dimension} {config:?}");
            twin.check_content(again);
            again.verify().unwrap();
            // And again, from the file to a file.
            assert_eq!(snapshot(again), bytes);
        }
    }
}

#[test]
fn an_index_without_rows_is_saved_and_opened() {
    let (_folder, path) = place();
    let index = BinaryIndex::new(100, BinaryConfig::default()).unwrap();
    index.save(&path).unwrap();
    let opened = BinaryIndex::open(&path, BinaryConfig::default()).unwrap();
    assert!(opened.is_empty());
    assert!(search(&opened, &[1.0; 100], 3).is_empty());
    opened.upsert(RowId(1), &[1.0; 100]).unwrap();
    assert_eq!(search(&opened, &[1.0; 100], 3).len(), 1);
}

#[test]
fn every_engine_restores_from_cells() {
    let rows = clustered(&mut Random::new(2), 300, 40);
    let (index, twin) = used(&rows, SMALL_CELLS_OF_16_BITS);
    let bytes = snapshot(&index);
    let flat = FlatIndex::restore(&mut bytes.as_slice()).unwrap();
    let config = AutoConfig {
        binary: SMALL_CELLS_OF_16_BITS,
        ..AutoConfig::default()
    };
    let auto = AutoIndex::restore(&mut bytes.as_slice(), config).unwrap();
    let same = restore(&mut bytes.as_slice()).unwrap();
    let others: [&dyn VectorIndex; 3] = [&flat, &auto, &*same];
    let given = twin.check_content(&index);
    for other in others {
        assert_eq!(other.len(), index.len());
        let mut rows = 0;
        other.for_each(&mut |row| {
            let (vector, expires) = &given.rows[&row.id.0];
            assert_eq!(row.expires, *expires);
            let cosine = support::cosine(row.vector, vector);
            assert!(cosine > 0.999_999, "{cosine}");
            rows += 1;
        });
        assert_eq!(rows, index.len());
    }
    // The precision is that of the snapshot, not the default.
    assert_eq!(
        same.capability().score_error,
        index.capability().score_error
    );
}

#[test]
fn files_of_every_engine_are_opened_by_every_engine() {
    let rows = clustered(&mut Random::new(11), 300, 40);
    let twin = Twin::of(&rows);
    for writer in [IndexKind::Auto, IndexKind::Flat, IndexKind::Binary] {
        let config = |kind| IndexConfig {
            kind,
            binary: SMALL_CELLS_OF_16_BITS,
            ..IndexConfig::default()
        };
        let index = config(writer).open(40).unwrap();
        for (id, row) in (0..).zip(&rows) {
            index.upsert(RowId(id), row).unwrap();
        }
        let (_folder, path) = place();
        save(&*index, &path).unwrap();
        let has_cells = fs::read(&path).unwrap()[8] == 3;
        assert_eq!(has_cells, writer != IndexKind::Flat);
        for reader in [IndexKind::Auto, IndexKind::Flat, IndexKind::Binary] {
            let opened = config(reader).open_file(&path).unwrap();
            twin.check_content(&*opened);
            assert_eq!(opened.capability().engine, reader.name());
            if has_cells && reader != IndexKind::Flat {
                assert!(opened.bytes() < index.bytes() / 2, "rows are on the heap");
                assert!(answers(&*opened, &rows) == answers(&*index, &rows));
            }
        }
        // Rows of another precision are made anew.
        let opened = IndexConfig::default().open_file(&path).unwrap();
        twin.check_content(&*opened);
        let mut bytes = fs::read(&path).unwrap();
        bytes.push(0);
        fs::remove_file(&path).unwrap();
        fs::write(&path, &bytes).unwrap();
        let found = fault(config(writer).open_file(&path));
        assert!(
            matches!(found, SnapshotFault::Inconsistent { .. }),
            "{found}"
        );
    }
}

#[test]
fn an_automatic_index_of_few_rows_is_saved_and_opened_as_rows() {
    let rows = clustered(&mut Random::new(12), 9, 40);
    let config = IndexConfig::default();
    let index = config.open(40).unwrap();
    for (id, row) in (0..).zip(&rows) {
        index.upsert(RowId(id), row).unwrap();
    }
    let (_folder, path) = place();
    save(&*index, &path).unwrap();
    let opened = config.open_file(&path).unwrap();
    assert!(opened.capability().exact);
    assert!(answers(&*opened, &rows) == answers(&*index, &rows));
    // One that has grown keeps its cells, however few rows are left.
    let many = clustered(&mut Random::new(13), 90, 40);
    for (id, row) in (0..).zip(&many) {
        opened.upsert(RowId(id), row).unwrap();
    }
    for id in 9..90 {
        opened.remove(RowId(id)).unwrap();
    }
    save(&*opened, &path).unwrap();
    let again = config.open_file(&path).unwrap();
    assert!(!again.capability().exact);
    assert!(answers(&*again, &many[..9]) == answers(&*opened, &many[..9]));
    Twin::of(&many[..9]).check_content(&*again);
}

#[test]
fn every_flipped_bit_and_every_cut_is_refused_for_what_it_is() {
    let rows = clustered(&mut Random::new(3), 40, 20);
    let (index, _) = used(&rows, SMALL_CELLS);
    assert!(index.cells() > 1);
    let mut bytes = snapshot(&index);
    let (_folder, path) = place();
    let open = |bytes: &[u8]| {
        // A file that was mapped is not written into.
        let _ = fs::remove_file(&path);
        fs::write(&path, bytes).unwrap();
        BinaryIndex::open(&path, SMALL_CELLS)
    };
    open(&bytes).unwrap();
    for cut in 0..bytes.len() {
        let mut reader = &bytes[..cut];
        let found = fault(BinaryIndex::restore(&mut reader, SMALL_CELLS));
        assert_eq!(found, SnapshotFault::Truncated, "restored, cut at {cut}");
        let found = fault(open(&bytes[..cut]));
        assert_eq!(found, SnapshotFault::Truncated, "opened, cut at {cut}");
    }
    for at in 0..bytes.len() {
        let fits = |fault: SnapshotFault| match at {
            0..8 => fault == SnapshotFault::BadMagic,
            8..10 => matches!(
                fault,
                SnapshotFault::UnknownVersion { .. } | SnapshotFault::ChecksumMismatch
            ),
            _ => fault == SnapshotFault::ChecksumMismatch,
        };
        for bit in 0..8 {
            bytes[at] ^= 1 << bit;
            let found = fault(BinaryIndex::restore(&mut bytes.as_slice(), SMALL_CELLS));
            assert!(fits(found), "restored, bit {bit} of byte {at}: {found}");
            if bit == at % 8 {
                let found = fault(open(&bytes));
                assert!(fits(found), "opened, bit {bit} of byte {at}: {found}");
            }
            bytes[at] ^= 1 << bit;
        }
    }
    bytes.push(0);
    let rule = "nothing follows the last cell";
    assert_eq!(fault(open(&bytes)), SnapshotFault::Inconsistent { rule });
}

#[test]
fn an_older_format_is_read_and_a_newer_one_is_refused_by_its_number() {
    let rows = clustered(&mut Random::new(4), 100, 30);
    let flat = FlatIndex::new(30).unwrap();
    for (id, row) in (0..).zip(&rows) {
        flat.upsert(RowId(id), row).unwrap();
    }
    let mut bytes = snapshot(&flat);
    assert_eq!(bytes[8..10], [2, 0], "rows are of the older format");
    let config = BinaryConfig::default();
    let restored = BinaryIndex::restore(&mut bytes.as_slice(), config).unwrap();
    Twin::of(&rows).check_content(&restored);

    let (_folder, path) = place();
    fs::write(&path, &bytes).unwrap();
    let error = BinaryIndex::open(&path, config).unwrap_err();
    assert_eq!(
        error.to_string(),
        "snapshot cannot be restored: it holds rows and no cells, so it cannot be opened in place; \
         restore it, which builds the cells, and save that"
    );

    bytes[8] = 4;
    fs::write(&path, &bytes).unwrap();
    let newer = SnapshotFault::UnknownVersion {
        found: 4,
        newest: 3,
    };
    assert_eq!(fault(BinaryIndex::open(&path, config)), newer);
    let error = BinaryIndex::restore(&mut bytes.as_slice(), config).unwrap_err();
    assert_eq!(
        error.to_string(),
        "snapshot cannot be restored: its format is version 4, this build reads up to 3"
    );
}

#[test]
fn rows_of_another_precision_are_not_opened_and_restored_anew() {
    let rows = clustered(&mut Random::new(5), 200, 48);
    let (index, twin) = used(&rows, SMALL_CELLS_OF_16_BITS);
    let (_folder, path) = place();
    index.save(&path).unwrap();
    let error = BinaryIndex::open(&path, SMALL_CELLS).unwrap_err();
    assert_eq!(
        error.to_string(),
        "snapshot cannot be restored: its rows have 16 bits a component and the settings ask for 8; \
         change the settings, or restore it, which writes the rows anew"
    );
    let mut file = fs::File::open(&path).unwrap();
    let coarse = BinaryIndex::restore(&mut file, SMALL_CELLS).unwrap();
    twin.check_content(&coarse);
    assert!(coarse.bytes() < index.bytes());
}

#[test]
fn settings_out_of_range_are_refused_before_the_file_is_looked_at() {
    let config = BinaryConfig {
        recall: 1.0,
        ..BinaryConfig::default()
    };
    let error = BinaryIndex::open("/there/is/none", config).unwrap_err();
    assert!(matches!(error, IndexError::InvalidConfig { .. }), "{error}");
    let error = BinaryIndex::open("/there/is/none", BinaryConfig::default()).unwrap_err();
    let IndexError::Io { source } = error else {
        panic!("{error}");
    };
    assert_eq!(source.kind(), io::ErrorKind::NotFound);
}

#[test]
fn an_opened_index_takes_every_kind_of_write_and_its_file_stays_as_it_was() {
    for config in [SMALL_CELLS, SMALL_CELLS_OF_16_BITS] {
        let mut random = Random::new(6);
        let rows = clustered(&mut random, 600, 72);
        let (index, mut twin) = used(&rows, config);
        let (_folder, path) = place();
        index.save(&path).unwrap();
        let before = fs::read(&path).unwrap();
        let opened = BinaryIndex::open(&path, config).unwrap();
        let (cells, mapped, heap) = (opened.cells(), opened.mapped_bytes(), opened.bytes());

        // A removal of one row leaves the map in use; its place on the heap is a bit.
        let id = *twin.rows.keys().next().unwrap();
        opened.remove(RowId(id)).unwrap();
        twin.remove(id);
        twin.check_content(&opened);
        // Other rows, in and between the cells there are, and replaced and removed ones.
        let more = clustered(&mut random, 600, 72);
        for (id, row) in (1000..).zip(&more) {
            opened.upsert(RowId(id), row).unwrap();
            twin.upsert(id, row, Expiry::NEVER);
            if id % 2 == 0 {
                let old = id - 1000;
                let moved = near(&mut random, &rows[old as usize], 0.2);
                opened.upsert(RowId(old), &moved).unwrap();
                twin.upsert(old, &moved, Expiry::NEVER);
            }
            if id % 5 == 0 {
                assert_eq!(
                    opened.remove(RowId(id - 999)).unwrap(),
                    twin.remove(id - 999)
                );
            }
        }
        let now = Expiry::at_seconds(60);
        let expired = opened.remove_expired(now).unwrap();
        assert_eq!(expired, twin.remove_expired(now));
        assert!(expired > 0);
        twin.check_content(&opened);
        twin.check_reach(&opened);
        assert!(opened.cells() > cells, "no cell was split");
        assert!(opened.mapped_bytes() < mapped / 2);
        assert!(opened.bytes() > heap);
        opened.verify().unwrap();
        assert!(
            fs::read(&path).unwrap() == before,
            "the file was written into"
        );

        // What it became is saved over the file that it is of.
        opened.save(&path).unwrap();
        assert!(fs::read(&path).unwrap() != before);
        twin.check_reach(&opened);
        let again = BinaryIndex::open(&path, config).unwrap();
        twin.check_content(&again);
        twin.check_reach(&again);
        for id in twin.rows.keys() {
            assert!(again.remove(RowId(*id)).unwrap());
        }
        assert!(again.is_empty());
        assert_eq!(again.mapped_bytes(), 0);
    }
}

#[cfg(unix)]
#[test]
fn an_opened_index_outlives_the_name_of_its_file() {
    let rows = clustered(&mut Random::new(7), 300, 32);
    let (index, twin) = used(&rows, SMALL_CELLS);
    let (_folder, path) = place();
    index.save(&path).unwrap();
    let opened = BinaryIndex::open(&path, SMALL_CELLS).unwrap();
    fs::remove_file(&path).unwrap();
    twin.check_content(&opened);
    twin.check_reach(&opened);
    opened.verify().unwrap();
    assert!(opened.mapped_bytes() > 0);
}

#[test]
fn damage_to_rows_is_found_later_if_that_is_asked_for() {
    let rows = clustered(&mut Random::new(8), 300, 32);
    let (index, _) = used(&rows, SMALL_CELLS);
    let (_folder, path) = place();
    let mut bytes = snapshot(&index);
    // In the rows of the last cell, before its ids.
    let at = bytes.len() - 1024;
    bytes[at] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let at_open = BinaryIndex::open(&path, SMALL_CELLS);
    assert_eq!(fault(at_open), SnapshotFault::ChecksumMismatch);
    let opened = BinaryIndex::open_with(&path, SMALL_CELLS, Verify::Later).unwrap();
    assert_eq!(opened.len(), index.len());
    assert_eq!(fault(opened.verify()), SnapshotFault::ChecksumMismatch);
    // The directory is not left for later.
    bytes[70] ^= 1;
    fs::remove_file(&path).unwrap();
    fs::write(&path, &bytes).unwrap();
    let opened = BinaryIndex::open_with(&path, SMALL_CELLS, Verify::Later);
    assert_eq!(fault(opened), SnapshotFault::ChecksumMismatch);
}

/// Uses the index that is being written to it.
struct Meddler<'i> {
    index: &'i BinaryIndex,
    rows: &'i [Vec<f32>],
    next: usize,
    bytes: Vec<u8>,
}

impl Write for Meddler<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for _ in 0..20 {
            let row = &self.rows[self.next % self.rows.len()];
            let id = RowId(self.next as u64 + 5000);
            self.index.upsert(id, row).unwrap();
            let removed = self.next as u64 * 3 % 700;
            self.index.remove(RowId(removed)).unwrap();
            assert!(!search(self.index, row, 1).is_empty());
            self.next += 1;
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_snapshot_holds_up_no_write_and_is_of_one_moment() {
    let rows = clustered(&mut Random::new(9), 700, 32);
    let (index, twin) = used(&rows, SMALL_CELLS);
    let (before, cells) = (snapshot(&index), index.cells());
    let mut meddler = Meddler {
        index: &index,
        rows: &rows,
        next: 0,
        bytes: Vec::new(),
    };
    index.snapshot(&mut meddler).unwrap();
    assert!(meddler.next > 20 * cells, "it is written cell by cell");
    assert!(meddler.bytes == before, "what was written meanwhile shows");
    let restored = BinaryIndex::restore(&mut meddler.bytes.as_slice(), SMALL_CELLS).unwrap();
    twin.check_content(&restored);
}

#[test]
fn files_saved_while_rows_are_written_hold_what_was_written_before_and_open() {
    let rows = clustered(&mut Random::new(10), 6000, 24);
    let index = BinaryIndex::new(24, SMALL_CELLS).unwrap();
    let (_folder, path) = place();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (id, row) in (0..).zip(&rows) {
                index.upsert(RowId(id), row).unwrap();
            }
            is_done.store(true, Ordering::Release);
        });
        let mut saves = 0;
        let mut last = false;
        while !last {
            last = is_done.load(Ordering::Acquire);
            let before = index.len();
            index.save(&path).unwrap();
            let after = index.len();
            let opened = BinaryIndex::open(&path, SMALL_CELLS).unwrap();
            let len = opened.len();
            assert!(
                (before..=after).contains(&len),
                "{len} of {before} to {after}"
            );
            // Rows are written in order, so the rows of one moment are the first ones.
            let mut ids = Vec::new();
            opened.for_each(&mut |row| ids.push(row.id.0));
            ids.sort_unstable();
            assert!(ids.iter().copied().eq(0..len as u64));
            saves += 1;
        }
        assert!(saves > 0);
    });
    let opened = BinaryIndex::open(&path, SMALL_CELLS).unwrap();
    Twin::of(&rows).check_content(&opened);
    assert_eq!(files_in(path.parent().unwrap()), 1);
}

fn files_in(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}
