//! What the outbox promises, one promise per test, on a real directory.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{fs, path::Path};

use gengfu_outbox::{Bounds, Health, Lane, MAX_VALUE_BYTES, Options, Outbox, OutboxError, Outcome, Receipt, Stage};
use tempfile::TempDir;

fn open(dir: &TempDir) -> Outbox {
    Outbox::open(Options::new(dir.path())).unwrap()
}

fn with_bound(dir: &TempDir, lane: Lane, items_max: u64) -> Outbox {
    let bounds = Bounds::default().with(lane, items_max);
    Outbox::open(Options { bounds, ..Options::new(dir.path()) }).unwrap()
}

fn store(outbox: &Outbox, lane: Lane, id: &str) {
    let mut batch = outbox.batch();
    batch.append(lane, id, 1_000, |_| id.as_bytes().to_vec()).unwrap();
    batch.commit().unwrap();
}

fn taken(outbox: &Outbox, limit: usize) -> Vec<String> {
    outbox.take(limit).unwrap().into_iter().map(|item| item.id).collect()
}

fn blobs(path: &Path) -> usize {
    fs::read_dir(path.join("blobs")).unwrap().count()
}

#[test]
fn a_batch_dropped_without_commit_leaves_no_trace() {
    let dir = TempDir::new().unwrap();
    let outbox = open(&dir);
    store(&outbox, Lane::Fire, "kept");
    let mut batch = outbox.batch();
    batch.append(Lane::Fire, "abandoned", 0, |_| vec![1]).unwrap();
    batch.attach(Lane::Evidence, "picture", 0, b"x").unwrap();
    batch.put(b"state", b"1");
    drop(batch);
    let mut batch = outbox.batch();
    let next = batch.append(Lane::Fire, "abandoned", 0, |position| position.sequence.to_be_bytes().to_vec()).unwrap();
    assert_eq!(next.sequence, 2, "the sequence was not used up");
    batch.commit().unwrap();
    assert_eq!(outbox.get(b"state").unwrap(), None);
    assert_eq!(outbox.lookup("picture").unwrap(), None);
    assert_eq!(taken(&outbox, 9), ["kept", "abandoned"]);
}

#[test]
fn nothing_is_handed_out_before_its_batch_is_committed() {
    let dir = TempDir::new().unwrap();
    let outbox = open(&dir);
    let mut batch = outbox.batch();
    batch.append(Lane::Fire, "a", 0, |_| vec![1]).unwrap();
    assert!(outbox.take(9).unwrap().is_empty());
    batch.commit().unwrap();
    assert_eq!(taken(&outbox, 9), ["a"]);
}

#[test]
fn events_of_one_batch_chain_on_each_other_and_on_the_last_batch() {
    let dir = TempDir::new().unwrap();
    let outbox = open(&dir);
    let mut last = [0; 32];
    for round in 0..3 {
        let mut batch = outbox.batch();
        for event in 0..3 {
            let appended = batch
                .append(Lane::Care, &format!("{round}.{event}"), 0, |position| {
                    assert_eq!(position.prev_hash, last);
                    assert_eq!(position.sequence, round * 3 + event + 1);
                    position.prev_hash.to_vec()
                })
                .unwrap();
            last = appended.hash;
        }
        assert_eq!(batch.commit().unwrap().head.hash, last);
    }
    let report = outbox.verify().unwrap();
    assert_eq!((report.records, report.faults), (9, vec![]));
    let records = outbox.journal(4, 2).unwrap();
    assert_eq!(records.iter().map(|record| record.sequence).collect::<Vec<_>>(), [4, 5]);
    assert_eq!(records[1].prev_hash, records[0].hash);
}

#[test]
fn higher_lanes_go_first_and_order_holds_within_a_lane() {
    let dir = TempDir::new().unwrap();
    let outbox = open(&dir);
    for (lane, id) in
        [(Lane::City, "c1"), (Lane::Fire, "f1"), (Lane::City, "c2"), (Lane::Trouble, "t1"), (Lane::Fire, "f2")]
    {
        store(&outbox, lane, id);
    }
    assert_eq!(taken(&outbox, 3), ["f1", "f2", "t1"]);
    store(&outbox, Lane::Fire, "f3");
    assert_eq!(taken(&outbox, 9), ["f3", "c1", "c2"]);
    assert!(taken(&outbox, 9).is_empty());
}

#[test]
fn released_items_come_again_at_their_old_place() {
    let dir = TempDir::new().unwrap();
    let outbox = open(&dir);
    for id in ["a", "b", "c", "d"] {
        store(&outbox, Lane::Care, id);
    }
    let items = outbox.take(3).unwrap();
    outbox.release(items[1].key);
    assert_eq!(taken(&outbox, 1), ["b"]);
    outbox.release_all();
    let again = outbox.take(9).unwrap();
    assert_eq!(again.iter().map(|item| item.id.as_str()).collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    assert_eq!(again.iter().map(|item| item.attempts).collect::<Vec<_>>(), [2, 3, 2, 1]);
}

#[test]
fn everything_not_received_is_pending_again_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let outbox = open(&dir);
    for id in ["a", "b", "c"] {
        store(&outbox, Lane::Care, id);
    }
    assert_eq!(taken(&outbox, 3).len(), 3);
    outbox.received(&["b"], 5).unwrap();
    drop(outbox);
    let outbox = open(&dir);
    assert_eq!(outbox.head().sequence, 3);
    assert_eq!(taken(&outbox, 9), ["a", "c"]);
}

#[test]
fn a_full_lane_drops_its_oldest_free_item_counts_it_and_keeps_the_chain() {
    let dir = TempDir::new().unwrap();
    let outbox = with_bound(&dir, Lane::Telemetry, 3);
    for id in ["a", "b", "c"] {
        store(&outbox, Lane::Telemetry, id);
    }
    assert_eq!(taken(&outbox, 1), ["a"]);
    let mut batch = outbox.batch();
    batch.append(Lane::Telemetry, "d", 0, |_| b"d".to_vec()).unwrap();
    assert!(outbox.take(9).unwrap().iter().all(|item| item.id != "b"), "b is about to be dropped");
    let committed = batch.commit().unwrap();
    assert_eq!(committed.dropped.iter().map(|item| item.id.as_str()).collect::<Vec<_>>(), ["b"]);
    assert_eq!(outbox.lookup("b").unwrap().unwrap().outcome, Outcome::Dropped);
    assert!(matches!(outbox.received(&["b"], 1).unwrap()[0].receipt, Receipt::AfterDrop(_)));
    assert!(outbox.verify().unwrap().faults.is_empty());
    drop(outbox);
    let outbox = with_bound(&dir, Lane::Telemetry, 3);
    let lane = outbox.stats().lanes[Lane::Telemetry.index()];
    assert_eq!((lane.pending, lane.dropped, lane.oldest_appended_at_ms), (3, 1, Some(1_000)));
    assert_eq!(taken(&outbox, 9), ["a", "c", "d"]);
}

#[test]
fn an_abandoned_batch_spares_what_it_would_have_dropped() {
    let dir = TempDir::new().unwrap();
    let outbox = with_bound(&dir, Lane::City, 1);
    store(&outbox, Lane::City, "a");
    let mut batch = outbox.batch();
    batch.append(Lane::City, "b", 0, |_| vec![]).unwrap();
    assert!(outbox.take(9).unwrap().is_empty());
    drop(batch);
    assert_eq!(taken(&outbox, 9), ["a"]);
}

#[test]
fn one_batch_larger_than_a_bound_keeps_its_newest() {
    let dir = TempDir::new().unwrap();
    let outbox = with_bound(&dir, Lane::Evidence, 2);
    let mut batch = outbox.batch();
    for number in 0..5 {
        batch.attach(Lane::Evidence, &format!("p{number}"), 0, &vec![7; 9_000]).unwrap();
    }
    assert_eq!(batch.commit().unwrap().dropped.len(), 3);
    let items = outbox.take(9).unwrap();
    assert_eq!(items.iter().map(|item| item.id.as_str()).collect::<Vec<_>>(), ["p3", "p4"]);
    assert!(items.iter().all(|item| item.bytes.len() == 9_000 && item.sequence.is_none()));
}

#[test]
fn life_safety_has_no_bound() {
    let dir = TempDir::new().unwrap();
    let bounds = Bounds::default().with(Lane::Fire, 1).with(Lane::Emergency, 1);
    let outbox = Outbox::open(Options { bounds, ..Options::new(dir.path()) }).unwrap();
    let mut batch = outbox.batch();
    for number in 0..50 {
        batch.append(Lane::Fire, &format!("f{number}"), 0, |_| vec![]).unwrap();
        batch.append(Lane::Emergency, &format!("e{number}"), 0, |_| vec![]).unwrap();
    }
    assert!(batch.commit().unwrap().dropped.is_empty());
    assert_eq!(taken(&outbox, 1_000).len(), 100);
}

#[test]
fn receipts_are_idempotent_and_unknown_ids_are_reported() {
    let dir = TempDir::new().unwrap();
    let outbox = open(&dir);
    store(&outbox, Lane::Fire, "a");
    let answers = outbox.received(&["a", "a", "never"], 7).unwrap();
    assert!(matches!(answers[0].receipt, Receipt::First(_)));
    assert!(matches!(answers[1].receipt, Receipt::Repeated(_)));
    assert_eq!(answers[2].receipt, Receipt::Unknown);
    assert!(matches!(outbox.received(&["a"], 8).unwrap()[0].receipt, Receipt::Repeated(_)));
    assert_eq!(outbox.stats().lanes[0].pending, 0);
    assert_eq!(outbox.trace("a").unwrap().unwrap().received_at_ms, Some(7));
    assert_eq!(outbox.journal(1, 9).unwrap().len(), 1, "the journal keeps it");
}

#[test]
fn trace_shows_every_stage_and_survives_a_restart() {
    let dir = TempDir::new().unwrap();
    let outbox = open(&dir);
    store(&outbox, Lane::Fire, "a");
    let key = outbox.take(1).unwrap()[0].key;
    outbox.mark(key, Stage::Sent, 1_010);
    outbox.mark(key, Stage::BrokerAcked, 1_020);
    assert_eq!(outbox.trace("a").unwrap().unwrap().broker_acked_at_ms, Some(1_020));
    outbox.received(&["a"], 1_030).unwrap();
    outbox.mark(key, Stage::BrokerAcked, 9_999);
    drop(outbox);
    let trace = open(&dir).trace("a").unwrap().unwrap();
    assert_eq!((trace.appended_at_ms, trace.sent_at_ms), (1_000, Some(1_010)));
    assert_eq!((trace.broker_acked_at_ms, trace.received_at_ms), (Some(1_020), Some(1_030)));
    assert_eq!((trace.attempts, trace.outcome, trace.bytes), (1, Outcome::Received, b"a".to_vec()));
}

#[test]
fn values_up_to_the_limit_are_whole_and_never_make_a_blob_file() {
    let dir = TempDir::new().unwrap();
    let outbox = open(&dir);
    let long: Vec<u8> = (0..MAX_VALUE_BYTES).map(|i| (i % 251) as u8).collect();
    for round in 0..40 {
        let mut batch = outbox.batch();
        batch.append(Lane::Fire, &format!("e{round}"), 0, |_| long.clone()).unwrap();
        batch.attach(Lane::Evidence, &format!("a{round}"), 0, &long).unwrap();
        batch.put(format!("state/{round}").as_bytes(), &long);
        batch.put(b"again", &long[..round * 800]);
        batch.commit().unwrap();
        assert_eq!(blobs(dir.path()), 0, "round {round}");
    }
    drop(outbox);
    let outbox = open(&dir);
    assert!(outbox.take(100).unwrap().iter().all(|item| item.bytes == long));
    assert_eq!(outbox.scan(b"state/").unwrap().len(), 40);
    assert!(outbox.scan(b"state/").unwrap().iter().all(|(_, value)| *value == long));
    assert_eq!(outbox.get(b"again").unwrap().unwrap(), long[..39 * 800]);
    let mut batch = outbox.batch();
    batch.put(b"again", b"short");
    batch.delete(b"state/3");
    batch.commit().unwrap();
    assert_eq!(outbox.get(b"again").unwrap().unwrap(), b"short");
    assert_eq!(outbox.get(b"state/3").unwrap(), None);
}

#[test]
fn bad_input_is_refused_with_its_name_and_stores_nothing() {
    let dir = TempDir::new().unwrap();
    let outbox = open(&dir);
    store(&outbox, Lane::Fire, "a");
    let mut batch = outbox.batch();
    assert!(matches!(batch.append(Lane::Fire, "", 0, |_| vec![]), Err(OutboxError::EmptyId)));
    assert!(matches!(batch.append(Lane::Fire, "a", 0, |_| vec![]), Err(OutboxError::DuplicateId { .. })));
    let long = vec![0; MAX_VALUE_BYTES + 1];
    assert!(matches!(batch.append(Lane::Fire, "b", 0, |_| long.clone()), Err(OutboxError::TooLarge { .. })));
    assert!(matches!(batch.attach(Lane::Fire, &"i".repeat(129), 0, b""), Err(OutboxError::TooLarge { .. })));
    batch.put(b"good", b"1");
    batch.put(b"bad", &long);
    assert!(matches!(batch.commit(), Err(OutboxError::TooLarge { what: "a state value", .. })));
    assert_eq!(outbox.get(b"good").unwrap(), None);
    assert_eq!((outbox.head().sequence, outbox.health()), (1, Health::Ok));
}

#[test]
fn a_second_batch_of_one_thread_is_an_error_not_a_deadlock() {
    let dir = TempDir::new().unwrap();
    let outbox = open(&dir);
    let held = outbox.batch();
    let mut second = outbox.batch();
    assert!(matches!(second.append(Lane::Fire, "a", 0, |_| vec![]), Err(OutboxError::BatchHeld)));
    assert!(matches!(second.commit(), Err(OutboxError::BatchHeld)));
    assert!(matches!(outbox.received(&["a"], 0), Err(OutboxError::BatchHeld)));
    assert!(matches!(outbox.recover(), Err(OutboxError::BatchHeld)));
    drop(held);
    store(&outbox, Lane::Fire, "a");
}

#[test]
fn two_outboxes_cannot_open_one_directory() {
    let dir = TempDir::new().unwrap();
    let _first = open(&dir);
    assert!(matches!(Outbox::open(Options::new(dir.path())), Err(OutboxError::InUse { .. })));
}

#[test]
fn recover_on_a_healthy_outbox_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let outbox = open(&dir);
    store(&outbox, Lane::Fire, "a");
    store(&outbox, Lane::Fire, "b");
    assert_eq!(taken(&outbox, 1), ["a"]);
    outbox.recover().unwrap();
    assert_eq!(taken(&outbox, 9), ["b"], "a is still in flight");
    outbox.received(&["a"], 3).unwrap();
    store(&outbox, Lane::Fire, "c");
    assert_eq!(outbox.head().sequence, 3);
    assert!(outbox.verify().unwrap().faults.is_empty());
}

#[test]
fn settled_events_above_the_keep_are_pruned_oldest_first_and_never_a_pending_one() {
    let dir = TempDir::new().unwrap();
    let outbox = Outbox::open(Options { journal_keep: 10, ..Options::new(dir.path()) }).unwrap();
    store(&outbox, Lane::City, "stuck");
    for number in 2..=60 {
        let id = format!("e{number}");
        let mut batch = outbox.batch();
        batch.append(Lane::Fire, &id, 0, |_| vec![0; 5_000]).unwrap();
        batch.attach(Lane::Evidence, &format!("{id}/picture"), 0, &[1; 5_000]).unwrap();
        batch.commit().unwrap();
        outbox.received(&[&id, &format!("{id}/picture")], 1).unwrap();
    }
    outbox.batch().commit().unwrap();
    assert_eq!(outbox.stats().oldest_kept_sequence, 51);
    assert_eq!(outbox.verify().unwrap().records, 10);
    assert_eq!(outbox.lookup("e50").unwrap(), None);
    assert_eq!(outbox.lookup("e50/picture").unwrap(), None);
    assert!(outbox.trace("e51/picture").unwrap().unwrap().bytes.is_empty());
    assert_eq!(taken(&outbox, 9), ["stuck"], "passed over, still there");
    outbox.received(&["stuck"], 1).unwrap();
    assert_eq!(outbox.lookup("stuck").unwrap(), None, "it was below the kept journal");
}

fn store_grouped(outbox: &Outbox, lane: Lane, group: u64, id: &str) {
    let mut batch = outbox.batch();
    batch.append_grouped(lane, group, id, 1_000, |_| id.as_bytes().to_vec()).unwrap();
    batch.commit().unwrap();
}

#[test]
fn after_an_outage_what_happens_now_goes_before_what_gathered() {
    let dir = TempDir::new().unwrap();
    let outbox = open(&dir);
    (0..50).for_each(|number| store(&outbox, Lane::Care, &format!("old{number}")));
    outbox.mark_backlog();
    store(&outbox, Lane::Care, "live");
    store(&outbox, Lane::Fire, "smoke");
    assert_eq!(taken(&outbox, 4), ["smoke", "live", "old0", "old1"]);
    assert!(taken(&outbox, 0).is_empty());
    assert!(outbox.take_live(9).unwrap().is_empty(), "only the backlog is left");
    store(&outbox, Lane::Care, "live2");
    assert_eq!(taken(&outbox, 2), ["live2", "old2"]);
    drop(outbox);
    let outbox = open(&dir);
    store(&outbox, Lane::Care, "after the restart");
    assert_eq!(taken(&outbox, 3), ["smoke", "after the restart", "old0"]);
}

#[test]
fn the_transitions_of_one_alarm_never_overtake_each_other() {
    let dir = TempDir::new().unwrap();
    let outbox = open(&dir);
    for number in 0..5 {
        store_grouped(&outbox, Lane::Care, 7, &format!("a{number}"));
        store_grouped(&outbox, Lane::Care, 8, &format!("b{number}"));
    }
    outbox.mark_backlog();
    store_grouped(&outbox, Lane::Care, 7, "a5");
    store(&outbox, Lane::Care, "other");
    // The live one brings the story it continues, the rest of the backlog waits.
    assert_eq!(taken(&outbox, 3), ["a0", "a1", "a2"]);
    outbox.release_all();
    assert_eq!(taken(&outbox, 8), ["a0", "a1", "a2", "a3", "a4", "a5", "other", "b0"]);
    // One of them comes back: what follows it waits for it, what is in flight does not come again.
    let key = outbox.lookup("a3").unwrap().unwrap().key;
    outbox.release(key);
    store_grouped(&outbox, Lane::Care, 7, "a6");
    assert_eq!(taken(&outbox, 3), ["a3", "a6", "b1"]);
}

#[test]
fn a_story_longer_than_one_take_does_not_hold_up_other_live_items() {
    let dir = TempDir::new().unwrap();
    let outbox = open(&dir);
    (0..40).for_each(|number| store_grouped(&outbox, Lane::Care, 7, &format!("a{number}")));
    outbox.mark_backlog();
    store_grouped(&outbox, Lane::Care, 7, "a40");
    store_grouped(&outbox, Lane::Care, 8, "b");
    let first = taken(&outbox, 20);
    assert_eq!(first[..16], (0..16).map(|number| format!("a{number}")).collect::<Vec<_>>());
    assert_eq!(first[16], "b");
    let mut all = first;
    while all.len() < 42 {
        all.extend(taken(&outbox, 5));
    }
    let story: Vec<_> = all.iter().filter(|id| id.starts_with('a')).cloned().collect();
    assert_eq!(story, (0..=40).map(|number| format!("a{number}")).collect::<Vec<_>>());
}

#[test]
fn what_can_never_be_sent_is_abandoned_counted_and_told_with_its_reason() {
    let dir = TempDir::new().unwrap();
    let outbox = open(&dir);
    store(&outbox, Lane::Care, "sent");
    let mut batch = outbox.batch();
    let key = batch.attach(Lane::Evidence, "picture", 0, b"path").unwrap();
    batch.commit().unwrap();
    outbox.take(9).unwrap();
    assert!(outbox.abandon(key, &"火".repeat(100), 5).unwrap());
    assert!(!outbox.abandon(key, "again", 6).unwrap());
    assert_eq!(outbox.received(&["picture"], 7).unwrap()[0].receipt, Receipt::AfterDrop(key));
    drop(outbox);
    let outbox = open(&dir);
    let trace = outbox.trace("picture").unwrap().unwrap();
    assert_eq!((trace.outcome, trace.received_at_ms), (Outcome::Abandoned, Some(5)));
    assert_eq!(trace.abandoned_because, Some("火".repeat(66)));
    let evidence = outbox.stats().lanes[Lane::Evidence.index()];
    assert_eq!((evidence.abandoned, evidence.dropped, evidence.pending), (1, 0, 0));
    assert_eq!(taken(&outbox, 9), ["sent"]);
}
