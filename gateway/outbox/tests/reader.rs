//! The journal read without opening the outbox: stopped, copied, running, torn and damaged; and nothing is changed by it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{collections::BTreeMap, fs, path::Path};

use gengfu_outbox::{JournalReader, JournalRecord, Lane, Options, Outbox, OutboxError};
use tempfile::TempDir;

fn open(path: &Path) -> Outbox {
    Outbox::open(Options { journal_keep: 100, ..Options::new(path) }).unwrap()
}

fn store(outbox: &Outbox, numbers: std::ops::RangeInclusive<u64>, length: usize) {
    for number in numbers {
        let mut batch = outbox.batch();
        batch
            .append(Lane::Care, &format!("e{number}"), number as i64, |position| {
                [&position.prev_hash[..], &vec![number as u8; length]].concat()
            })
            .unwrap();
        batch.put(b"state", &number.to_be_bytes());
        batch.commit().unwrap();
    }
}

fn read(path: &Path) -> Vec<JournalRecord> {
    JournalReader::open(path).unwrap().records().collect::<Result<_, _>>().unwrap()
}

fn files(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let plain = fs::read_dir(path).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file());
    plain.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

#[test]
fn a_stopped_copied_or_running_outbox_shows_the_same_journal_and_is_not_touched() {
    let dir = TempDir::new().unwrap();
    let outbox = open(dir.path());
    store(&outbox, 1..=50, 300);
    let journal = outbox.journal(1, usize::MAX).unwrap();
    assert_eq!(read(dir.path()), journal, "while it runs");
    outbox.recover().unwrap();
    assert_eq!(read(dir.path()), journal, "after a checkpoint");
    let head = outbox.head();
    drop(outbox);
    let before = files(dir.path());
    assert_eq!(read(dir.path()), journal, "stopped");
    assert_eq!(JournalReader::open(dir.path()).unwrap().head(), head);
    assert_eq!(files(dir.path()), before, "nothing was written");
    let copy = TempDir::new().unwrap();
    for (name, bytes) in before.into_iter().filter(|(name, _)| name.starts_with("log.")) {
        fs::write(copy.path().join(name), bytes).unwrap();
    }
    assert_eq!(read(copy.path()), journal, "of a copy the log alone is enough");
}

#[test]
fn what_is_pruned_is_not_shown_though_a_copy_of_it_still_waits() {
    let dir = TempDir::new().unwrap();
    let outbox = open(dir.path());
    // Enough to fill segments, have them cleaned, and what still waits in them copied.
    store(&outbox, 1..=1_400, 16_000);
    for number in (1..=1_400).filter(|number| number % 100 != 0) {
        outbox.received(&[&format!("e{number}")], 1).unwrap();
    }
    store(&outbox, 1_401..=2_200, 16_000);
    let files = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let first = files.filter(|name| name.starts_with("log.")).min().unwrap();
    assert!(first.as_str() > "log.00000001", "segments were removed, the first is {first}");
    let journal = outbox.journal(1, usize::MAX).unwrap();
    assert!(outbox.stats().oldest_kept_sequence > 1_000);
    assert_eq!(read(dir.path()), journal);
    assert_eq!(outbox.verify().unwrap().faults, []);
    drop(outbox);
    let outbox = open(dir.path());
    let waiting: Vec<String> = outbox.take(14).unwrap().into_iter().map(|item| item.id).collect();
    assert_eq!(waiting, (1..=14).map(|number| format!("e{}", number * 100)).collect::<Vec<_>>());
}

#[test]
fn a_commit_under_way_is_not_shown_and_damage_is_named() {
    let dir = TempDir::new().unwrap();
    store(&open(dir.path()), 1..=400, 16_000);
    let log = |number: u32| dir.path().join(format!("log.{number:08}"));
    let mut torn = fs::read(log(2)).unwrap();
    torn.truncate(torn.len() - 100);
    fs::write(log(2), &torn).unwrap();
    let records = read(dir.path());
    assert_eq!(records.last().unwrap().sequence, 399);
    let mut damaged = fs::read(log(1)).unwrap();
    damaged[2 << 20] ^= 1;
    fs::write(log(1), &damaged).unwrap();
    let found: Vec<_> = JournalReader::open(dir.path()).unwrap().records().collect();
    let faults: Vec<_> = found.iter().filter_map(|record| record.as_ref().err()).collect();
    assert!(matches!(faults[..], [OutboxError::Damaged { place, .. }] if place.contains("log.00000001")), "{faults:?}");
    assert_eq!(found.last().unwrap().as_ref().unwrap().sequence, 399);
}

#[test]
fn where_there_is_no_outbox_the_error_says_so() {
    let dir = TempDir::new().unwrap();
    let fault = JournalReader::open(dir.path()).err().unwrap().to_string();
    assert!(fault.contains(dir.path().to_str().unwrap()), "{fault}");
    assert!(JournalReader::open(dir.path().join("missing")).is_err());
}
