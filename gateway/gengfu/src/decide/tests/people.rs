//! Goal: a human's time runs from the centre's receipt, and neither a restart nor an outage loses or shortens it. Method: a real outbox, receipts as
//! the uplink stores them.

use super::*;

const SYNCED: ClockQuality = ClockQuality::Synced;

fn receipt(outbox: &Outbox, seconds: i64) {
    let ids: Vec<String> = events(outbox).into_iter().map(|event| event.id).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    outbox.received(&ids, at(seconds).as_millisecond()).unwrap();
}

fn escalation(decider: &Decider) -> u32 {
    decider.open_alarms().iter().find(|alarm| alarm.kind == AlarmKind::Smoke).unwrap().escalation
}

#[test]
fn a_fire_is_escalated_sixty_seconds_after_the_receipt_and_not_before_over_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let (mut decider, _, mut outbox) = start(folder.path(), 0);
    link(&mut decider, 1, vec![seen("smoke-1", 1, 1, What::Smoke(Smoke::Alarm))]).unwrap();
    // The centre is away for an hour: nobody could answer.
    for seconds in [10, 300, 3_600] {
        drop((decider, outbox));
        (decider, _, outbox) = start(folder.path(), seconds);
        decider.process(at(seconds), SYNCED, Vec::new());
        assert_eq!(escalation(&decider), 0, "{seconds} s");
    }
    receipt(&outbox, 3_605);
    assert!(decider.next_due().unwrap() <= at(3_606), "receipts are looked for");
    decider.process(at(3_610), SYNCED, Vec::new());
    drop((decider, outbox));
    (decider, _, outbox) = start(folder.path(), 3_620);
    decider.process(at(3_664), SYNCED, Vec::new());
    assert_eq!(escalation(&decider), 0);
    decider.process(at(3_665), SYNCED, Vec::new());
    assert_eq!(escalation(&decider), 1);
    // The escalation itself must be received before the next.
    decider.process(at(9_000), SYNCED, Vec::new());
    assert_eq!(escalation(&decider), 1);
    receipt(&outbox, 9_001);
    drop((decider, outbox));
    (decider, _, outbox) = start(folder.path(), 9_002);
    decider.process(at(9_003), SYNCED, Vec::new());
    decider.process(at(9_121), SYNCED, Vec::new());
    assert_eq!(escalation(&decider), 2, "the pause has doubled");
    let types = |wanted: EventType| events(&outbox).iter().filter(|event| event.event_type == wanted).count();
    assert_eq!(types(EventType::AlarmEscalated), 2);
    let ids: std::collections::BTreeSet<String> =
        events(&outbox).iter().filter(|event| event.lane == Lane::Fire).map(|event| event.subject.clone()).collect();
    assert_eq!(ids.len(), 1, "always the same alarm");
    assert_eq!(outbox.scan(b"call/").unwrap().len(), 1);
}

#[test]
fn an_acknowledgement_ends_the_asking_and_its_traces() {
    let folder = tempfile::tempdir().unwrap();
    let (mut decider, _, outbox) = start(folder.path(), 0);
    link(&mut decider, 1, vec![seen("smoke-1", 1, 1, What::Smoke(Smoke::Alarm))]).unwrap();
    let alarm_id = decider.open_alarms()[0].alarm_id.clone();
    let order = AlarmCommand { alarm_id, operator: "op".into(), issued_at: at(2), expires_at: None };
    let order = commands::request("c1", Command::Ack(order), 2);
    decider.process(at(2), SYNCED, vec![Input::Command(order)]);
    receipt(&outbox, 3);
    for seconds in [4, 70, 4_000] {
        decider.process(at(seconds), SYNCED, Vec::new());
    }
    assert_eq!(escalation(&decider), 0);
    assert_eq!(outbox.scan(b"call/").unwrap(), []);
}
