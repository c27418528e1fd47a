//! The desk's knowledge, by messages as they arrive.

use gengfu_contract::state::{Presence, Statement};
use gengfu_contract::words::Lane;

use super::super::testing::{alarm, at, chain_of};
use super::*;

const EVENT: &str = "gengfu/v1/s/g/event";

fn model() -> DeskModel {
    DeskModel::new(Slug::new("s").unwrap())
}

fn feed(model: &mut DeskModel, topic: &str, body: &impl Serialize, second: i64) -> Taken {
    model.take(topic, &serde_json::to_vec(body).unwrap(), at(second))
}

fn view(model: &DeskModel) -> &AlarmView {
    &model.gateways()[&Slug::new("g").unwrap()].alarms["01ALARM"]
}

#[test]
fn a_smoke_alarm_is_received_at_once_with_its_latency_and_stays_until_it_is_over() {
    let mut model = model();
    let taken = feed(&mut model, EVENT, &alarm(1, 1, AlarmKind::Smoke, Condition::ActiveUnack, None), 1);
    let due = taken.receipt.unwrap();
    assert_eq!((due.id.as_str(), due.at_once), ("a1", true));
    assert!(taken.journal.is_some());
    assert_eq!(view(&model).latency_ms, Some(1000));
    assert_eq!(model.open_alarms().len(), 1);
    feed(&mut model, EVENT, &alarm(2, 2, AlarmKind::Smoke, Condition::Normal, None), 60);
    assert_eq!((model.open_alarms().len(), view(&model).over_at), (0, Some(at(60))));
    assert_eq!(view(&model).latency_ms, Some(1000), "the latency is that of the raise");
}

#[test]
fn an_older_revision_that_arrives_late_changes_nothing_but_is_received() {
    let mut model = model();
    feed(&mut model, EVENT, &alarm(2, 2, AlarmKind::IllegalParking, Condition::ActiveAck, None), 5);
    let taken = feed(&mut model, EVENT, &alarm(1, 1, AlarmKind::IllegalParking, Condition::ActiveUnack, None), 6);
    assert!(taken.receipt.is_some_and(|due| !due.at_once));
    assert_eq!(view(&model).alarm.condition, Condition::ActiveAck);
}

#[test]
fn a_duplicate_is_received_again_but_not_journaled_again_and_a_conflict_is_not_received() {
    let mut model = model();
    let event = alarm(1, 1, AlarmKind::Smoke, Condition::ActiveUnack, None);
    feed(&mut model, EVENT, &event, 1);
    let again = feed(&mut model, EVENT, &event, 2);
    assert!(again.receipt.is_some() && again.journal.is_none());
    let mut forged = event;
    forged.id = "other".into();
    let conflict = feed(&mut model, EVENT, &forged, 3);
    assert!(conflict.receipt.is_none() && conflict.journal.is_none());
    assert_eq!(model.proof(&Slug::new("g").unwrap()).unwrap().conflicts, 1);
}

#[test]
fn a_picture_is_checked_against_its_event_whichever_comes_first() {
    let raised = alarm(1, 1, AlarmKind::IllegalParking, Condition::ActiveUnack, Some(b"picture"));
    let topic = "gengfu/v1/s/g/evidence/01ALARM/1";
    for picture_first in [false, true] {
        let mut model = model();
        if !picture_first {
            feed(&mut model, EVENT, &raised, 1);
        }
        let taken = model.take(topic, b"picture", at(2));
        assert_eq!(taken.receipt.unwrap().id, "01ALARM/1");
        let picture = taken.picture.unwrap();
        assert_eq!(picture.file_name(), "g-01ALARM-1.jpg");
        model.picture_written(picture, "p.jpg".into());
        if picture_first {
            feed(&mut model, EVENT, &raised, 3);
        }
        let seen = &view(&model).pictures[&1];
        assert_eq!((seen.path.as_deref(), seen.genuine), (Some("p.jpg"), Some(true)), "picture first: {picture_first}");
    }
}

#[test]
fn a_picture_with_another_hash_is_not_received() {
    let mut model = model();
    feed(&mut model, EVENT, &alarm(1, 1, AlarmKind::IllegalParking, Condition::ActiveUnack, Some(b"picture")), 1);
    let taken = model.take("gengfu/v1/s/g/evidence/01ALARM/1", b"forged", at(2));
    assert!(taken.receipt.is_none() && taken.picture.is_none());
    assert_eq!(model.malformed().0, 1);
}

#[test]
fn a_desk_that_starts_late_sees_what_is_open_from_the_retained_snapshots() {
    let mut model = model();
    let data = alarm(7, 3, AlarmKind::Smoke, Condition::ActiveUnack, None).alarm().unwrap().unwrap();
    let topic = "gengfu/v1/s/g/alarm/01ALARM";
    feed(&mut model, topic, &AlarmSnapshot { sequence: 7, alarm: data }, 1);
    assert_eq!((model.open_alarms().len(), view(&model).latency_ms), (1, None));
    model.take(topic, b"", at(2));
    assert_eq!(model.open_alarms().len(), 0);
}

#[test]
fn the_statement_shows_what_has_not_come_yet() {
    let mut model = model();
    for event in &chain_of(3) {
        feed(&mut model, EVENT, event, 1);
    }
    let statement = Statement {
        sequence: 5,
        head: String::new(),
        pending: [(Lane::City, 2)].into(),
        oldest_pending_at: None,
        dropped: BTreeMap::new(),
        at: at(2),
    };
    feed(&mut model, "gengfu/v1/s/g/statement", &statement, 2);
    assert_eq!(model.proof(&Slug::new("g").unwrap()).unwrap().missing, [(4, 5)]);
}

#[test]
fn what_is_not_of_the_contract_is_counted_and_shown_and_never_a_panic() {
    let mut model = model();
    let kinds = ["event", "status", "statement", "alarm/a", "device/d", "reply/c"];
    let bodies: [&[u8]; 6] = [b"\xff\xfe", b"[]", b"{}", b"null", b"{\"specversion\":\"2\"}", br#"{"state":7}"#];
    for kind in kinds {
        for body in bodies {
            let taken = model.take(&format!("gengfu/v1/s/g/{kind}"), body, at(0));
            assert!(taken.receipt.is_none(), "{kind} {body:?}");
        }
    }
    assert_eq!(model.malformed().0, 36);
    assert!(model.malformed().1.unwrap().contains("reply/c"));
    for topic in ["", "gengfu/v1/s/dispatch/status", "gengfu/v1/s/g/cmd/ack/1", "gengfu/v1/other/g/event", "x/y"] {
        assert!(model.take(topic, b"\xff", at(0)).events.is_empty(), "{topic}");
    }
    let taken = model.take("gengfu/v1/s/g/evidence/../1", b"x", at(0));
    assert!(taken.picture.is_none(), "an alarm id that would leave the folder");
}

#[test]
fn alarms_that_are_over_are_kept_up_to_a_bound() {
    let mut model = model();
    for n in 0..OVER_KEPT + 5 {
        let mut event = alarm(n as u64 + 1, 1, AlarmKind::DoorLeftOpen, Condition::Normal, None);
        event.data["alarm_id"] = format!("A{n:04}").into();
        feed(&mut model, EVENT, &event, i64::try_from(n).unwrap());
    }
    assert_eq!(model.alarms_of(AlarmKind::DoorLeftOpen).len(), OVER_KEPT);
}

#[test]
fn a_gateways_presence_is_the_last_it_said() {
    let mut model = model();
    let status = |state| serde_json::json!({"state": state, "boot": 1, "version": "0", "contract": "1.0", "clock": "synced", "at": at(0)});
    feed(&mut model, "gengfu/v1/s/g/status", &status("online"), 1);
    feed(&mut model, "gengfu/v1/s/g/status", &status("offline"), 2);
    let view = &model.gateways()[&Slug::new("g").unwrap()];
    assert_eq!(view.status.as_ref().unwrap().state, Presence::Offline);
}
