//! Damage done to the store behind the outbox's back: verification names it, and opening repairs what a power cut or
//! an old sled may leave.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use gengfu_outbox::{ChainFault, Lane, Options, Outbox, OutboxError};
use tempfile::TempDir;

fn filled(dir: &TempDir, events: u64) {
    let outbox = Outbox::open(Options::new(dir.path())).unwrap();
    for number in 1..=events {
        let mut batch = outbox.batch();
        batch
            .append(Lane::Care, &format!("e{number}"), 0, |position| {
                [b"event ".as_slice(), &position.prev_hash, &number.to_be_bytes()].concat()
            })
            .unwrap();
        batch.commit().unwrap();
    }
    // Makes a checkpoint: from here on the index is believed, and the log only for the records.
    outbox.recover().unwrap();
}

/// Changes the raw index while the outbox is closed. Keys are those of the layout at the top of the crate.
fn tamper(dir: &TempDir, change: impl FnOnce(&sled::Db)) {
    let db = sled::Config::new().path(dir.path()).flush_every_ms(None).open().unwrap();
    change(&db);
    db.flush().unwrap();
}

/// Changes where the index says the first records are: 22 bytes for each, in one value.
fn tamper_with_places(dir: &TempDir, change: impl FnOnce(&mut Vec<u8>)) {
    let key = [&[0x04], &0_u64.to_be_bytes()[..], &[0]].concat();
    tamper(dir, |db| {
        let mut raw = db.get(&key).unwrap().unwrap().to_vec();
        change(&mut raw);
        db.insert(key, raw).unwrap();
    });
}

/// Changes the log while the outbox is closed.
fn tamper_with_log(dir: &TempDir, change: impl FnOnce(&mut Vec<u8>)) {
    let path = dir.path().join("log.00000001");
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(&path, bytes).unwrap();
}

/// Where the bytes of the event with this sequence begin.
fn find_event(log: &[u8], sequence: u64) -> usize {
    let is_it = |at: &usize| log[*at..].starts_with(b"event ") && log[at + 38..at + 46] == sequence.to_be_bytes();
    (0..log.len() - 45).find(is_it).unwrap()
}

fn faults(dir: &TempDir) -> Vec<ChainFault> {
    Outbox::open(Options::new(dir.path())).unwrap().verify().unwrap().faults
}

fn snapshots(path: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("snap.")).collect()
}

#[test]
fn verification_names_a_changed_record() {
    for changed in [1, 4, 9] {
        let dir = TempDir::new().unwrap();
        filled(&dir, 9);
        tamper_with_log(&dir, |log| {
            let at = find_event(log, changed);
            log[at + 20] ^= 1;
        });
        assert_eq!(faults(&dir), [ChainFault::Changed { sequence: changed }]);
    }
}

#[test]
fn verification_names_a_removed_record() {
    for removed in [1, 5, 9] {
        let dir = TempDir::new().unwrap();
        filled(&dir, 9);
        tamper_with_places(&dir, |places| drop(places.drain((removed - 1) * 22..removed * 22)));
        assert_eq!(faults(&dir), [ChainFault::Missing { sequence: removed as u64 }]);
    }
}

#[test]
fn an_item_that_cannot_be_read_is_counted_and_does_not_stand_in_the_way() {
    let dir = TempDir::new().unwrap();
    filled(&dir, 3);
    // The last byte of the first place: the checksum of the record.
    tamper_with_places(&dir, |places| places[21] ^= 1);
    let outbox = Outbox::open(Options::new(dir.path())).unwrap();
    let ids: Vec<String> = outbox.take(9).unwrap().into_iter().map(|item| item.id).collect();
    assert_eq!(ids, ["e2", "e3"]);
    assert_eq!(outbox.stats().damaged, 1);
}

#[test]
fn a_half_written_snapshot_does_not_keep_it_from_opening() {
    let dir = TempDir::new().unwrap();
    filled(&dir, 3);
    fs::write(dir.path().join("snap.7FFFFFFFFFFFFFFF.generating"), b"half").unwrap();
    let outbox = Outbox::open(Options::new(dir.path())).unwrap();
    assert_eq!(outbox.take(9).unwrap().len(), 3);
}

#[test]
fn without_a_readable_snapshot_the_whole_log_is_read_and_nothing_is_missing() {
    let dir = TempDir::new().unwrap();
    filled(&dir, 30);
    // Opened once more, so that there is a snapshot and log after it.
    filled_more(&dir, 31..=60);
    for snapshot in snapshots(dir.path()) {
        fs::write(snapshot, b"not a snapshot at all").unwrap();
    }
    let outbox = Outbox::open(Options::new(dir.path())).unwrap();
    assert_eq!(outbox.take(100).unwrap().len(), 60);
    let report = outbox.verify().unwrap();
    assert_eq!((report.records, report.faults), (60, vec![]));
}

fn filled_more(dir: &TempDir, numbers: std::ops::RangeInclusive<u64>) {
    let outbox = Outbox::open(Options::new(dir.path())).unwrap();
    for number in numbers {
        let mut batch = outbox.batch();
        batch.append(Lane::Care, &format!("e{number}"), 0, |_| vec![0; 3_000]).unwrap();
        batch.commit().unwrap();
    }
}

#[test]
fn a_creation_that_never_finished_is_begun_anew() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("blobs")).unwrap();
    fs::write(dir.path().join("conf"), [0; 40]).unwrap();
    fs::write(dir.path().join("db"), b"").unwrap();
    fs::write(dir.path().join("snap.0000000000000010"), b"").unwrap();
    filled(&dir, 2);
    assert_eq!(Outbox::open(Options::new(dir.path())).unwrap().head().sequence, 2);
}

#[test]
fn a_store_of_another_format_is_refused_untouched() {
    let dir = TempDir::new().unwrap();
    filled(&dir, 1);
    tamper(&dir, |db| drop(db.insert([0x01], b"\x09later").unwrap()));
    let refused = Outbox::open(Options::new(dir.path()));
    assert!(matches!(refused, Err(OutboxError::UnknownFormat { found: 9, .. })));
}

#[test]
fn a_torn_end_of_the_log_is_cut_and_what_was_committed_before_is_there() {
    for torn in [1, 7, 8, 9, 60] {
        let dir = TempDir::new().unwrap();
        filled(&dir, 5);
        filled_more(&dir, 6..=8);
        tamper_with_log(&dir, |log| log.truncate(log.len() - torn));
        let outbox = Outbox::open(Options::new(dir.path())).unwrap();
        assert_eq!(outbox.head().sequence, 7, "torn by {torn}");
        drop(outbox);
        filled_more(&dir, 8..=9);
        let outbox = Outbox::open(Options::new(dir.path())).unwrap();
        assert_eq!((outbox.take(99).unwrap().len(), outbox.verify().unwrap().faults), (9, vec![]));
        assert_eq!(outbox.stats().damaged, 0);
    }
}

#[test]
fn a_log_that_lost_what_was_synced_is_told_and_the_rest_goes_on() {
    let dir = TempDir::new().unwrap();
    filled(&dir, 5);
    tamper_with_log(&dir, |log| log.truncate(log.len() / 2));
    let outbox = Outbox::open(Options::new(dir.path())).unwrap();
    assert!(outbox.stats().damaged > 0);
    assert!(!outbox.verify().unwrap().faults.is_empty());
    let before = outbox.take(99).unwrap().len();
    assert!((1..5).contains(&before), "{before} of 5 can be read");
    drop(outbox);
    filled_more(&dir, 6..=7);
    let outbox = Outbox::open(Options::new(dir.path())).unwrap();
    assert_eq!(outbox.take(99).unwrap().len(), before + 2);
}
