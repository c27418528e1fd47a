//! Every single tampering of every kind is found, and its place is named. Method: make a journal of random length and content, tamper once
//! with it in a random place, and ask whether the named line is the one.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::event::{Event, EventType};
use crate::words::Lane;

/// An export of `count` events from sequence `first`, as lines.
fn export(first: u64, count: u64) -> Vec<Vec<u8>> {
    let source = "/gengfu/spring-street/gw-01";
    let anchor = chain::hash(&first.to_be_bytes());
    let header =
        Header { gengfu_export: 1, source: source.into(), contract: "1.0".into(), first, anchor: hex::encode(anchor) };
    let mut lines = vec![serde_json::to_vec(&header).unwrap()];
    let mut prev = anchor;
    for sequence in first..first + count {
        let event = Event {
            specversion: "1.0".into(),
            id: format!("E{sequence}"),
            source: source.into(),
            event_type: EventType::DeviceObserved,
            subject: "door-1".into(),
            time: Timestamp::UNIX_EPOCH,
            datacontenttype: "application/json".into(),
            sequence,
            recordedtime: Timestamp::UNIX_EPOCH,
            prevhash: hex::encode(prev),
            lane: Lane::Telemetry,
            senttime: None,
            historical: None,
            attempt: None,
            data: json!({ "device": "door-1", "what": "door.opened", "clock": "synced", "x": 1.5e-7, "门": sequence }),
            extra: BTreeMap::new(),
        };
        let bytes = chain::canonical(&event).unwrap();
        prev = chain::hash(&bytes);
        lines.push(bytes);
    }
    let (sequence, head) = (first + count - 1, hex::encode(prev));
    let statement = ClosingStatement { header, sequence, head, at: Timestamp::UNIX_EPOCH };
    lines.push(serde_json::to_vec(&Closing::new(statement, None)).unwrap());
    lines
}

fn judge(lines: &[Vec<u8>]) -> Vec<Fault> {
    let mut file = lines.join(&b'\n');
    file.push(b'\n');
    verify(&file).faults
}

/// Sequence of the event in a line counted from 1; the header is line 1.
fn sequence(first: u64, line: usize) -> u64 {
    first + line as u64 - 2
}

#[test]
fn an_untouched_export_has_no_fault() {
    for (first, count) in [(1, 1), (1, 2), (7, 30)] {
        let mut file = export(first, count).join(&b'\n');
        let verdict = verify(&file);
        assert_eq!(
            (verdict.faults.as_slice(), verdict.events, verdict.last),
            (&[][..], count, Some(first + count - 1))
        );
        file.push(b'\n');
        assert_eq!(verify(&file).faults, []);
    }
}

#[test]
fn a_time_spelled_in_another_way_is_a_changed_closing_line() {
    let mut lines = export(3, 2);
    let last = lines.len() - 1;
    let place = lines[last].windows(5).position(|bytes| bytes == b"\"at\":").unwrap() + "\"at\":\"2026-01-01".len();
    assert_eq!(lines[last][place], b'T');
    lines[last][place] = b't';
    assert!(matches!(judge(&lines)[..], [Fault::Frame { line: 4, .. }]), "{:?}", judge(&lines));
}

#[test]
fn an_export_of_an_empty_journal_is_whole() {
    let lines = export(1, 0);
    assert_eq!(judge(&lines), []);
    assert!(matches!(verify(b"").faults[..], [Fault::Frame { line: 1, .. }, Fault::CutOff { .. }]));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn removed_events_are_named(first in 1..50u64, count in 1..40usize, at in any::<prop::sample::Index>(), many in 1..5usize) {
        let mut lines = export(first, count as u64);
        let from = at.index(count) + 1;
        let to = (from + many).min(count + 1);
        lines.drain(from..to);
        let told = Fault::Removed { from: sequence(first, from + 1), to: sequence(first, to), before_line: from as u64 + 1 };
        prop_assert_eq!(judge(&lines), [told]);
    }

    #[test]
    fn a_changed_event_is_named(
        first in 1..50u64, count in 1..40usize, at in any::<prop::sample::Index>(), byte in any::<prop::sample::Index>(), new in any::<u8>()
    ) {
        let mut lines = export(first, count as u64);
        let index = at.index(count) + 1;
        let place = byte.index(lines[index].len());
        prop_assume!(lines[index][place] != new && new != b'\n');
        lines[index][place] = new;
        let faults = judge(&lines);
        let (line, must) = (index as u64 + 1, sequence(first, index + 1));
        let named = |fault: &Fault| matches!(fault, Fault::Changed { line: l, sequence: Some(s), .. } if *l == line && *s == must);
        prop_assert!(!faults.is_empty() && faults.iter().all(named), "line {}: {:?}", line, faults);
    }

    #[test]
    fn a_changed_number_or_link_is_named(first in 1..50u64, count in 2..40usize, at in any::<prop::sample::Index>(),
                                         other in any::<prop::sample::Index>(), link in any::<bool>()) {
        let mut lines = export(first, count as u64);
        let (index, other) = (at.index(count) + 1, other.index(count) + 1);
        prop_assume!(index != other);
        let theirs: serde_json::Value = serde_json::from_slice(&lines[other]).unwrap();
        let mut own: serde_json::Value = serde_json::from_slice(&lines[index]).unwrap();
        let attribute = if link { "prevhash" } else { "sequence" };
        own[attribute] = theirs[attribute].clone();
        lines[index] = serde_json::to_vec(&own).unwrap();
        let faults = judge(&lines);
        let (line, must) = (index as u64 + 1, sequence(first, index + 1));
        let named = |fault: &Fault| matches!(fault, Fault::Changed { line: l, sequence: Some(s), .. } if *l == line && *s == must);
        prop_assert!(!faults.is_empty() && faults.iter().all(named), "line {}: {:?}", line, faults);
    }

    #[test]
    fn reordered_events_are_named(first in 1..50u64, count in 2..40usize, a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()) {
        let mut lines = export(first, count as u64);
        let (a, b) = (a.index(count) + 1, b.index(count) + 1);
        prop_assume!(a < b);
        lines.swap(a, b);
        let swapped = |line: usize, held: usize| Fault::Reordered {
            line: line as u64 + 1, sequence: sequence(first, held + 1), expected: sequence(first, line + 1),
        };
        prop_assert_eq!(judge(&lines), [swapped(a, b), swapped(b, a)]);
    }

    #[test]
    fn a_repeated_event_is_named(first in 1..50u64, count in 1..40usize, at in any::<prop::sample::Index>(), to in any::<prop::sample::Index>()) {
        let mut lines = export(first, count as u64);
        let index = at.index(count) + 1;
        let place = index + 1 + to.index(count + 1 - index);
        lines.insert(place, lines[index].clone());
        let told = Fault::Repeated { line: place as u64 + 1, sequence: sequence(first, index + 1), first_line: index as u64 + 1 };
        prop_assert_eq!(judge(&lines), [told]);
    }

    #[test]
    fn a_cut_off_end_is_told(first in 1..50u64, count in 1..40usize, cut in any::<prop::sample::Index>()) {
        let file = export(first, count as u64).join(&b'\n');
        let faults = verify(&file[..cut.index(file.len())]).faults;
        prop_assert!(faults.iter().any(|fault| matches!(fault, Fault::CutOff { .. })), "{:?}", faults);
    }

    #[test]
    fn a_changed_header_or_closing_line_is_told_and_no_event_is_blamed(
        first in 1..50u64, count in 1..40usize, closing in any::<bool>(), byte in any::<prop::sample::Index>(), new in any::<u8>()
    ) {
        let mut lines = export(first, count as u64);
        let index = if closing { count + 1 } else { 0 };
        let place = byte.index(lines[index].len());
        prop_assume!(lines[index][place] != new && new != b'\n');
        let before: Option<serde_json::Value> = serde_json::from_slice(&lines[index]).ok();
        lines[index][place] = new;
        // Another spelling of the same JSON says nothing else.
        let after: Option<serde_json::Value> = serde_json::from_slice(&lines[index]).ok();
        prop_assume!(before != after);
        let faults = judge(&lines);
        let line = index as u64 + 1;
        prop_assert!(!faults.is_empty() && faults.iter().all(|fault| line_of(fault) == line), "line {}: {:?}", line, faults);
    }
}
