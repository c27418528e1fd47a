//! Goal: a batch whose commit failed may be on the disk after all; then it counts once, and everybody learns of it. Method: a simulated disk whose sync fails keeps
//! as much of the batch as each seed decides.

use gengfu_alarm::{LocalOutput, OutputKind};
use gengfu_outbox::SimDisk;
use gengfu_outbox::sim::Fault;
use gengfu_wire::Uid;

use super::*;
use crate::link::cursor::Cursor;

const NODE: Uid = Uid([7; 8]);

/// Boot 1 of the node, taken this far.
fn cursor(through: u32) -> Cursor {
    let mut cursor = Cursor::default();
    cursor.uid = Some(NODE);
    cursor.set(1, through);
    cursor
}

/// A head sees smoke, as event `sequence` of its node.
fn smoke(decider: &mut Decider, seconds: i64, sequence: u32) -> Result<(), String> {
    let origin = Some(Origin { node: NODE.to_string(), boot: 1, sequence });
    let (device, what) = (slug("smoke-1"), What::Smoke(Smoke::Alarm));
    let seen = Observation { device, sensed_at: at(1), clock: ClockQuality::Synced, origin, what };
    let (done, answer) = oneshot::channel();
    let cursor = (b"link/node-1".to_vec(), cursor(sequence).to_bytes());
    let batch = LinkBatch { observations: vec![seen], cursor, done };
    decider.process(at(seconds), ClockQuality::Synced, vec![Input::Link(batch)]);
    answer.blocking_recv().unwrap()
}

/// True when the disk had kept the batch that failed, as after a failed sync it may; `None` when the fault came too late for it. `gathered` keys are stored
/// before, so that the batch is followed by a checkpoint when they are very many: a fault in there does not fail the batch.
fn fails_and_recovers(seed: u64, gathered: u32, operations: u64, fault: Fault) -> Option<bool> {
    let disk = SimDisk::new(seed);
    let outbox = Outbox::open(Options::simulated(&disk)).unwrap();
    let identity = Identity { site: slug("site"), gateway: slug("gw-1"), evidence_dir: "pictures".into() };
    let lamp = LocalOutput { name: slug("lamp"), kind: OutputKind::Lamp, node: None, dwelling: None };
    let wiring = Wiring { outputs: vec![lamp], ..Wiring::default() };
    let board = Board::new();
    let (rules, now) = (rules(), at(0));
    let mut decider =
        Decider::start(identity, rules, wiring, outbox.clone(), board.clone(), now, ClockQuality::Synced).unwrap();
    let mut before = outbox.batch();
    (0..gathered).for_each(|n| before.put(format!("before/{n}").as_bytes(), b"?"));
    before.commit_at_once().unwrap();
    disk.set_fault_in(operations, fault);
    if smoke(&mut decider, 1, 7).is_ok() {
        return None;
    }
    disk.set_fault(None);
    decider.process(at(3), ClockQuality::Synced, Vec::new());
    let is_kept = outbox.head().sequence > 1;
    let open = decider.open_alarms();
    assert_eq!(open.len(), usize::from(is_kept));
    // The board shows it before anything else happens to it.
    let topics = Topics::new(&slug("site"), &slug("gw-1"));
    assert!(open.iter().all(|alarm| board.get(&topics.alarm(&alarm.alarm_id)).is_some()));
    smoke(&mut decider, 4, 7).unwrap();
    let count = |wanted: EventType| events(&outbox).iter().filter(|event| event.event_type == wanted).count();
    assert_eq!((count(EventType::DeviceObserved), count(EventType::AlarmRaised)), (1, 1), "seed {seed}");
    assert_eq!(decider.open_alarms().len(), 1);
    // Nobody received it: the site is told in time.
    assert!(decider.process(at(9), ClockQuality::Synced, Vec::new()).wanted.is_empty());
    assert_eq!(decider.process(at(15), ClockQuality::Synced, Vec::new()).wanted.len(), 1, "seed {seed}");
    Some(is_kept)
}

#[test]
fn a_failed_batch_that_is_on_the_disk_after_all_counts_once_and_is_told_on_site_and_on_the_board() {
    let mut kept = Vec::new();
    for fault in [Fault::Full, Fault::ReadOnly, Fault::WriteError, Fault::SyncError] {
        for operations in 1..12 {
            let each = [0, 78, 88].into_iter().flat_map(|gathered| (0..4).map(move |seed| (seed, gathered)));
            kept.extend(each.filter_map(|(seed, gathered)| fails_and_recovers(seed, gathered, operations, fault)));
        }
    }
    assert!(kept.contains(&true) && kept.contains(&false), "{kept:?}");
}

#[test]
fn a_cursor_that_goes_back_after_a_failed_batch_does_not_make_later_events_new_again() {
    let stored = cursor(15);
    assert_eq!(Cursor::from_bytes(&stored.advanced_to(cursor(13).to_bytes())).unwrap(), stored);
    assert_eq!(Cursor::from_bytes(&stored.advanced_to(cursor(16).to_bytes())).unwrap(), cursor(16));
    let mut rebooted = cursor(15);
    rebooted.set(2, 1);
    assert_eq!(Cursor::from_bytes(&stored.advanced_to(rebooted.to_bytes())).unwrap(), rebooted);
    assert_eq!(stored.advanced_to(b"?".to_vec()), b"?");
}

#[test]
fn of_a_loss_that_has_grown_since_a_failed_batch_the_rest_is_told() {
    let stored = cursor(15);
    let lost = |first, count| {
        let origin = Some(Origin { node: NODE.to_string(), boot: 1, sequence: first });
        let what = What::EventsLost { first, count };
        Observation { device: slug("node-1"), sensed_at: at(1), clock: ClockQuality::Synced, origin, what }
    };
    for (told, rest) in [((12, 4), None), ((12, 5), Some((16, 1))), ((15, 8), Some((16, 7))), ((16, 2), Some((16, 2)))]
    {
        let rest = rest.map(|(first, count)| lost(first, count));
        assert_eq!(stored.rest_of(&lost(told.0, told.1)).map(std::borrow::Cow::into_owned), rest, "{told:?}");
    }
}
