//! Strands: the same result in any order of arrival, with bounded memory.

use super::*;
use crate::testing::{at, chain_of, statement};

fn ledger(events: &[&Event]) -> SequenceLedger {
    let mut ledger = SequenceLedger::default();
    for event in events {
        ledger.take(event, at(1));
    }
    ledger
}

#[test]
fn in_any_order_of_arrival_the_proof_is_the_same() {
    let events = chain_of(6);
    let mut ledger = SequenceLedger::default();
    for index in [4, 0, 5, 2, 1, 3] {
        assert_eq!(ledger.take(&events[index], at(1)), Arrival::New);
    }
    let proof = ledger.proof();
    assert!(proof.holds());
    assert_eq!((proof.first, proof.last, proof.received, proof.chain_links), (Some(1), Some(6), 6, 6));
    assert_eq!(proof.to_string(), "received 1…6, nothing missing, chain ok, 0 duplicates");
    assert_eq!(ledger.strands().len(), 1);
}

#[test]
fn a_gap_is_named_and_the_statement_shows_what_is_missing_at_the_end() {
    let events = chain_of(6);
    let mut ledger = ledger(&[&events[0], &events[1], &events[4]]);
    assert_eq!(ledger.proof().missing, [(3, 4)]);
    ledger.state(&statement(6, 0), at(2));
    assert_eq!(ledger.proof().missing, [(3, 4), (6, 6)]);
    assert_eq!(ledger.proof().to_string(), "received 1…5, missing 3…4 6, chain ok, 0 duplicates");
}

#[test]
fn copies_are_counted_and_a_copy_that_differs_is_a_conflict() {
    let events = chain_of(2);
    let mut ledger = ledger(&[&events[0]]);
    let mut copy = events[0].clone();
    copy.attempt = Some(2);
    assert_eq!(ledger.take(&copy, at(1)), Arrival::Duplicate);
    copy.data["what"] = "door.closed".into();
    assert_eq!(ledger.take(&copy, at(1)), Arrival::Conflict);
    let proof = ledger.proof();
    assert_eq!((proof.received, proof.duplicates, proof.conflicts), (1, 1, 1));
    assert!(!proof.holds());
    assert_eq!(ledger.altered()[0].id, "e1");
}

#[test]
fn a_changed_event_breaks_the_chain_and_is_named_whichever_side_arrives_first() {
    for order in [[0, 1, 2], [2, 1, 0]] {
        let mut events = chain_of(3);
        events[1].data["what"] = "door.closed".into();
        let proof = ledger(&order.map(|at| &events[at])).proof();
        assert_eq!(proof.chain_breaks, [3]);
    }
    let mut events = chain_of(5);
    events[2].data["what"] = "door.closed".into();
    assert_eq!(ledger(&events.iter().collect::<Vec<_>>()).proof().changed(), (vec![3], vec![]));
    // With its own link too.
    events[2].prevhash = "ab".repeat(32);
    assert_eq!(ledger(&events.iter().collect::<Vec<_>>()).proof().changed(), (vec![3], vec![]));
}

#[test]
fn the_genuine_copy_takes_the_place_of_an_altered_one_once_the_chain_shows_which_it_is() {
    let events = chain_of(4);
    let mut altered = events[1].clone();
    altered.data["what"] = "door.closed".into();
    let mut ledger = ledger(&[&events[0], &altered]);
    assert_eq!(ledger.take(&events[1], at(2)), Arrival::Conflict, "nobody knows yet which is genuine");
    ledger.take(&events[2], at(3));
    assert_eq!(ledger.take(&events[1], at(4)), Arrival::New);
    ledger.take(&events[3], at(5));
    let proof = ledger.proof();
    assert_eq!((proof.missing.len(), proof.chain_breaks.len(), proof.journals.len()), (0, 0, 1), "{proof:?}");
    assert!(proof.conflicts > 0, "that somebody altered a copy stays told");
}

#[test]
fn a_desk_that_starts_late_begins_where_it_began() {
    let events = chain_of(5);
    let proof = ledger(&[&events[3], &events[4]]).proof();
    assert!(proof.holds());
    assert_eq!((proof.first, proof.chain_links), (Some(4), 1));
}

#[test]
fn extreme_sequences_do_not_overflow() {
    let mut ledger = SequenceLedger::default();
    for sequence in [u64::MAX, 0, u64::MAX - 1] {
        let mut event = chain_of(1).remove(0);
        event.sequence = sequence;
        assert_eq!(ledger.take(&event, at(1)), Arrival::New);
    }
    assert_eq!(ledger.proof().missing, [(1, u64::MAX - 2)]);
}

#[test]
fn memory_is_bounded_for_any_input_and_what_is_too_old_to_compare_is_kept_once_more() {
    let events = chain_of(6000);
    let mut ledger = SequenceLedger::remembering(64);
    // Every second event is lost for good: the worst for strands.
    for event in events.iter().step_by(2) {
        ledger.take(event, at(1));
        assert!(ledger.strands().len() <= STRANDS_MAX && ledger.recent.len() <= 64);
    }
    assert_eq!(ledger.proof().missing_events, 2999);
    assert_eq!(ledger.take(&events[0], at(2)), Arrival::Duplicate, "the first one is known for ever");
    assert_eq!(ledger.take(&events[2], at(2)), Arrival::Again);
    // One of the old gaps: it cannot be told from a copy, so it is kept too.
    assert_eq!(ledger.take(&events[3], at(2)), Arrival::Again);
}

#[test]
fn a_statement_is_compared_with_its_event_whichever_comes_first() {
    let events = chain_of(3);
    let head = |n: usize| hex::encode(chain::hash(&chain::canonical(&events[n - 1]).unwrap()));
    let said = |n: u64, head: String| Statement { head, ..statement(n, 0) };
    for event_first in [true, false] {
        for (stated, wrong) in [(head(2), vec![]), (head(1), vec![2])] {
            let mut ledger = ledger(&[&events[0]]);
            if event_first {
                ledger.take(&events[1], at(1));
            }
            ledger.state(&said(2, stated), at(2));
            if !event_first {
                ledger.take(&events[1], at(3));
            }
            assert_eq!(ledger.proof().wrong_heads, wrong, "event first: {event_first}");
        }
    }
}

#[test]
fn a_checkpoint_knows_all_but_the_memory_for_copies() {
    let events = chain_of(9);
    let mut ledger = ledger(&[&events[0], &events[1], &events[5], &events[5]]);
    ledger.state(&statement(9, 1), at(4));
    let text = serde_json::to_string(&ledger).unwrap();
    let mut again: SequenceLedger = serde_json::from_str(&text).unwrap();
    assert_eq!(again.proof(), ledger.proof());
    for index in [2, 3, 4, 6, 7, 8] {
        assert_eq!(again.take(&events[index], at(5)), Arrival::New);
    }
    assert_eq!(again.proof().to_string(), "received 1…9, nothing missing, chain ok, 1 duplicates");
}

#[test]
fn a_statement_counts_also_after_the_gateways_clock_was_set_back_and_an_old_one_of_another_broker_does_not() {
    let mut ledger = ledger(&[]);
    ledger.state(&Statement { at: at(3_600), ..statement(5, 0) }, at(0));
    ledger.state(&Statement { at: at(10), ..statement(6, 0) }, at(10));
    assert_eq!(ledger.stated().0, 6, "an hour of deafness would hide what is missing at the end");
    ledger.state(&Statement { at: at(1_800), ..statement(3, 0) }, at(11));
    assert_eq!((ledger.stated().0, ledger.went_back()), (6, &[][..]));
}

#[test]
fn of_statements_that_say_which_they_are_an_old_one_never_counts_and_a_new_one_of_fewer_events_always() {
    let said = |boot, number, second, sequence| Statement {
        at: at(second),
        boot: Some(boot),
        number: Some(number),
        ..statement(sequence, 0)
    };
    let mut ledger = ledger(&[]);
    // The clock was an hour ahead when the first was said, and the broker brings it again after the second.
    ledger.state(&said(3, 1, 3_600, 33), at(0));
    ledger.state(&said(3, 2, 60, 34), at(60));
    ledger.state(&said(3, 1, 3_600, 33), at(61));
    assert_eq!((ledger.stated().0, ledger.went_back()), (34, &[][..]));
    // A disk that lost its last event: the next run says so, and its clock is behind.
    ledger.state(&said(4, 1, 30, 33), at(90));
    assert_eq!(ledger.went_back().iter().map(|back| (back.from, back.to)).collect::<Vec<_>>(), [(34, 33)]);
}
