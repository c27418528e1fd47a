//! Goal: without the centre's receipt people on site are told in time, and only then. Method: a real outbox, receipts as the uplink stores them.

use gengfu_alarm::{LocalOutput, OutputKind, Pattern};

use super::*;

fn outputs() -> Wiring {
    let lamp = LocalOutput { name: slug("lamp"), kind: OutputKind::Lamp, node: None, dwelling: None };
    let node = Some(slug("node-1"));
    let sounder = LocalOutput { name: slug("node-1"), kind: OutputKind::Sounder, node, dwelling: None };
    Wiring { outputs: vec![lamp, sounder], ..Wiring::default() }
}

fn start(folder: &Path, seconds: i64) -> (Decider, Outbox) {
    let outbox = Outbox::open(Options::new(folder.join("outbox"))).unwrap();
    let identity = Identity { site: slug("site"), gateway: slug("gw-1"), evidence_dir: folder.to_owned() };
    let mut rules = rules();
    for device in ["smoke-1", "door-1"] {
        rules.devices.get_mut(&slug(device)).unwrap().parent = Some(slug("node-1"));
    }
    let (board, clock) = (Board::new(), ClockQuality::Synced);
    (Decider::start(identity, rules, outputs(), outbox.clone(), board, at(seconds), clock).unwrap(), outbox)
}

fn wanted(decider: &mut Decider, seconds: i64) -> Vec<(String, Pattern)> {
    let effects = decider.process(at(seconds), ClockQuality::Synced, Vec::new());
    effects.wanted.iter().map(|want| (want.output.to_string(), want.pattern)).collect()
}

fn told() -> Vec<(String, Pattern)> {
    vec![("lamp".to_owned(), Pattern::TransmissionFailed), ("node-1".to_owned(), Pattern::TransmissionFailed)]
}

/// The centre has everything now.
fn receipt(outbox: &Outbox, seconds: i64) {
    let ids: Vec<String> = events(outbox).into_iter().map(|event| event.id).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    outbox.received(&ids, at(seconds).as_millisecond()).unwrap();
}

fn overdue(decider: &Decider) -> Vec<Condition> {
    let alarms = decider.open_alarms();
    alarms.iter().filter(|alarm| alarm.kind == AlarmKind::TxOverdue).map(|alarm| alarm.condition).collect()
}

#[test]
fn smoke_without_a_receipt_is_told_on_site_after_ten_seconds_and_until_the_receipt() {
    let folder = tempfile::tempdir().unwrap();
    let (mut decider, outbox) = start(folder.path(), 0);
    link(&mut decider, 1, vec![seen("smoke-1", 1, 1, What::Smoke(Smoke::Alarm))]).unwrap();
    assert!(decider.next_due().unwrap() <= at(2), "receipts are looked for");
    assert_eq!(wanted(&mut decider, 10), []);
    assert_eq!(wanted(&mut decider, 11), told());
    assert_eq!(overdue(&decider), [Condition::ActiveUnack], "the centre will learn that the site was told");
    let alarm = decider.open_alarms().into_iter().find(|alarm| alarm.kind == AlarmKind::TxOverdue).unwrap();
    assert!(alarm.explanation.text.en.contains("had no receipt"), "{:?}", alarm.explanation);
    receipt(&outbox, 12);
    assert_eq!(wanted(&mut decider, 13), []);
    assert_ne!(overdue(&decider), [Condition::ActiveUnack]);
}

#[test]
fn a_receipt_in_time_leaves_the_site_quiet() {
    let folder = tempfile::tempdir().unwrap();
    let (mut decider, outbox) = start(folder.path(), 0);
    link(&mut decider, 1, vec![seen("smoke-1", 1, 1, What::Smoke(Smoke::Alarm))]).unwrap();
    receipt(&outbox, 2);
    for seconds in 3..60 {
        assert_eq!(wanted(&mut decider, seconds), [], "{seconds} s");
    }
    assert_eq!(overdue(&decider), []);
}

#[test]
fn what_is_no_life_safety_is_never_told_on_site() {
    let folder = tempfile::tempdir().unwrap();
    let (mut decider, _) = start(folder.path(), 0);
    link(&mut decider, 1, vec![seen("door-1", 1, 1, What::Door { open: true, repaired: false })]).unwrap();
    link(&mut decider, 2, vec![seen("smoke-1", 2, 2, What::Smoke(Smoke::Test))]).unwrap();
    assert_eq!(wanted(&mut decider, 600), []);
    assert!(decider.open_alarms().iter().any(|alarm| alarm.kind == AlarmKind::DoorLeftOpen));
}

#[test]
fn a_restart_forgets_neither_the_alarm_nor_since_when_it_waits() {
    let folder = tempfile::tempdir().unwrap();
    let (mut decider, outbox) = start(folder.path(), 0);
    link(&mut decider, 1, vec![seen("smoke-1", 1, 1, What::Smoke(Smoke::Alarm))]).unwrap();
    drop((decider, outbox));
    let (mut decider, outbox) = start(folder.path(), 11);
    assert_eq!(wanted(&mut decider, 11), told(), "counted from the alarm, not from the start");
    drop((decider, outbox));
    let (mut decider, outbox) = start(folder.path(), 20);
    assert_eq!(wanted(&mut decider, 21), told());
    receipt(&outbox, 22);
    assert_eq!(wanted(&mut decider, 22), []);
}

#[test]
fn silence_holds_until_something_new_burns() {
    let folder = tempfile::tempdir().unwrap();
    let (mut decider, _) = start(folder.path(), 0);
    link(&mut decider, 1, vec![seen("smoke-1", 1, 1, What::Smoke(Smoke::Alarm))]).unwrap();
    assert_eq!(wanted(&mut decider, 12), told());
    decider.silence(at(13), None, Duration::from_secs(300));
    assert_eq!(wanted(&mut decider, 14), told()[..1], "the lamp stays");
    assert_eq!(wanted(&mut decider, 320), told(), "and it sounds again");
}

#[test]
fn a_disk_that_refuses_does_not_silence_what_sounds() {
    let folder = tempfile::tempdir().unwrap();
    let (mut decider, _) = start(folder.path(), 0);
    link(&mut decider, 1, vec![seen("smoke-1", 1, 1, What::Smoke(Smoke::Alarm))]).unwrap();
    assert_eq!(wanted(&mut decider, 12), told());
    // A state value above the outbox's bound makes the commit fail as a whole.
    let (done, answer) = oneshot::channel();
    let cursor = (b"link/node-1".to_vec(), vec![0; 1 << 20]);
    let batch = Input::Link(LinkBatch { observations: Vec::new(), cursor, done });
    let effects = decider.process(at(13), ClockQuality::Synced, vec![batch]);
    assert!(answer.blocking_recv().unwrap().is_err());
    assert_eq!(effects.wanted.len(), 2);
    assert_eq!(wanted(&mut decider, 14), told());
}

#[test]
fn while_the_centre_is_seen_to_be_away_the_site_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (mut decider, outbox) = start(folder.path(), 0);
    decider.centre_is_away(true);
    link(&mut decider, 1, vec![seen("smoke-1", 1, 1, What::Smoke(Smoke::Alarm))]).unwrap();
    assert_eq!(wanted(&mut decider, 1), told(), "nobody waits ten seconds for a receipt that cannot come");
    assert_eq!(overdue(&decider), [Condition::ActiveUnack]);
    decider.centre_is_away(false);
    assert_eq!(wanted(&mut decider, 2), told(), "only the receipt ends it");
    receipt(&outbox, 3);
    assert_eq!(wanted(&mut decider, 4), []);
}

#[test]
fn a_centre_that_goes_away_while_an_alarm_waits_ends_the_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let (mut decider, _) = start(folder.path(), 0);
    link(&mut decider, 1, vec![seen("smoke-1", 1, 1, What::Smoke(Smoke::Alarm))]).unwrap();
    assert_eq!(wanted(&mut decider, 4), []);
    decider.centre_is_away(true);
    assert!(decider.next_due().unwrap() <= at(4), "it is due now");
    assert_eq!(wanted(&mut decider, 4), told());
}
