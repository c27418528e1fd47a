//! Goal: the weekly test goes the whole way, its latency is kept, and a failure is a trouble; it wakes nobody. Method: a real outbox, receipts as the
//! uplink stores them, a simulated calendar.

use gengfu_alarm::{LocalOutput, OutputKind};
use gengfu_contract::words::CapStatus;
use jiff::civil::{Weekday, time};

use super::*;

const SYNCED: ClockQuality = ClockQuality::Synced;
const DAY: i64 = 86_400;

/// at(0) is Friday 2027-01-15 08:00 UTC; drills are on Saturdays at 08:00.
fn start(folder: &Path, seconds: i64) -> (Decider, Outbox) {
    let outbox = Outbox::open(Options::new(folder.join("outbox"))).unwrap();
    let identity = Identity { site: slug("site"), gateway: slug("gw-1"), evidence_dir: folder.to_owned() };
    let drill = DrillPlan {
        weekly: Some((Weekday::Saturday, time(8, 0, 0, 0))),
        devices: vec![slug("smoke-1")],
        ..DrillPlan::default()
    };
    let lamp = LocalOutput { name: slug("lamp"), kind: OutputKind::Lamp, node: None, dwelling: None };
    let channels = [(slug("smoke-1"), (slug("node-1"), 2))].into();
    let wiring = Wiring { drill, channels, outputs: vec![lamp], ..Wiring::default() };
    let decider = Decider::start(identity, rules(), wiring, outbox.clone(), Board::new(), at(seconds), SYNCED).unwrap();
    (decider, outbox)
}

fn run(decider: &mut Decider, seconds: i64) -> Effects {
    decider.process(at(seconds), SYNCED, Vec::new())
}

fn receipt(outbox: &Outbox, seconds: i64) {
    let ids: Vec<String> = events(outbox).into_iter().map(|event| event.id).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    outbox.received(&ids, at(seconds).as_millisecond()).unwrap();
}

fn history(decider: &Decider) -> Vec<(DrillResult, Option<i64>)> {
    let status = decider.standing(at(0)).drills;
    status.history.iter().map(|record| (record.result, record.latency_ms)).collect()
}

fn failed(decider: &Decider) -> bool {
    let alarms = decider.open_alarms();
    let mut active = alarms.iter().filter(|alarm| alarm.condition == Condition::ActiveUnack);
    active.any(|alarm| alarm.kind == AlarmKind::DrillFailed)
}

#[test]
fn the_weekly_test_goes_the_whole_way_and_wakes_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (mut decider, outbox) = start(folder.path(), 0);
    run(&mut decider, 70);
    run(&mut decider, DAY - 1);
    assert_eq!(history(&decider), [], "not before its time");
    let effects = run(&mut decider, DAY);
    assert_eq!(effects.orders[0].0, "drill:smoke-1");
    let raised: Vec<_> = events(&outbox).into_iter().filter(|event| event.lane == Lane::Fire).collect();
    let of = raised[0].alarm().unwrap().unwrap();
    assert_eq!((raised.len(), raised[0].event_type, of.cap.status), (1, EventType::AlarmRaised, CapStatus::Test));
    let pressed = Reply::new("drill:smoke-1", Outcome::Done, None, at(DAY));
    let effects = decider.process(at(DAY), SYNCED, vec![Input::Answered(pressed)]);
    assert_eq!(effects.replies, [], "the centre did not ask for it");
    receipt(&outbox, DAY + 2);
    let effects = run(&mut decider, DAY + 3);
    assert_eq!(effects.wanted, []);
    assert_eq!(history(&decider), [(DrillResult::Received, Some(2_000))]);
    assert_eq!(decider.standing(at(0)).drills.history[0].pressed, [(slug("smoke-1"), true)]);
    for seconds in [DAY + 20, DAY + 90, 3 * DAY] {
        assert_eq!(run(&mut decider, seconds).wanted, [], "nothing sounds");
    }
    assert!(!decider.open_alarms().iter().any(|alarm| alarm.kind == AlarmKind::Smoke) && !failed(&decider));
    assert!(!events(&outbox).iter().any(|event| event.event_type == EventType::AlarmEscalated));
    run(&mut decider, 8 * DAY);
    assert_eq!(history(&decider).len(), 2, "every week");
}

#[test]
fn a_drill_without_a_receipt_is_a_trouble_until_a_good_one() {
    let folder = tempfile::tempdir().unwrap();
    let (mut decider, mut outbox) = start(folder.path(), 0);
    run(&mut decider, 70);
    run(&mut decider, DAY);
    run(&mut decider, DAY + 10);
    assert!(!failed(&decider));
    drop((decider, outbox));
    (decider, outbox) = start(folder.path(), DAY + 11);
    let effects = run(&mut decider, DAY + 12);
    assert!(failed(&decider) && effects.wanted.is_empty());
    assert_eq!(history(&decider), [(DrillResult::NotReceived, None)]);
    // No further test while the path is away.
    run(&mut decider, 5 * DAY);
    assert_eq!(history(&decider).len(), 1);
    receipt(&outbox, 5 * DAY + 1);
    run(&mut decider, 5 * DAY + 2);
    assert_eq!(history(&decider)[0], (DrillResult::Late, Some((4 * DAY + 1) * 1_000)));
    run(&mut decider, 5 * DAY + 3);
    receipt(&outbox, 5 * DAY + 4);
    run(&mut decider, 5 * DAY + 5);
    assert_eq!(history(&decider).len(), 2);
    assert_eq!(history(&decider)[1].0, DrillResult::Received);
    assert!(!failed(&decider));
}

#[test]
fn a_drill_that_was_missed_is_held_at_the_next_chance_and_one_not_held_for_long_is_a_trouble() {
    let folder = tempfile::tempdir().unwrap();
    let (mut decider, outbox) = start(folder.path(), 0);
    run(&mut decider, 70);
    drop((decider, outbox));
    let (mut decider, outbox) = start(folder.path(), 2 * DAY);
    run(&mut decider, 2 * DAY + 59);
    assert_eq!(history(&decider), [], "the uplink is given a moment");
    run(&mut decider, 2 * DAY + 60);
    receipt(&outbox, 2 * DAY + 61);
    run(&mut decider, 2 * DAY + 62);
    assert_eq!(history(&decider), [(DrillResult::Received, Some(1_000))]);
    run(&mut decider, 3 * DAY);
    assert_eq!(history(&decider).len(), 1, "once");
    // A clock that is not set knows no calendar.
    decider.process(at(11 * DAY), ClockQuality::Unsynced, Vec::new());
    assert_eq!(history(&decider).len(), 1);
    run(&mut decider, 11 * DAY);
    assert!(failed(&decider), "nine days without a good one");
}

#[test]
fn one_by_hand_is_held_at_once_and_one_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let (mut decider, outbox) = start(folder.path(), 0);
    let order = |decider: &mut Decider, seconds: i64| {
        let (answer, answered) = oneshot::channel();
        decider.process(at(seconds), SYNCED, vec![Input::Local(LocalRequest { order: LocalOrder::Drill, answer })]);
        answered.blocking_recv().unwrap()
    };
    order(&mut decider, 1).unwrap();
    assert!(order(&mut decider, 2).unwrap_err().en.contains("under way"));
    receipt(&outbox, 3);
    run(&mut decider, 4);
    assert_eq!(history(&decider), [(DrillResult::Received, Some(2_000))]);
    order(&mut decider, 5).unwrap();
}
