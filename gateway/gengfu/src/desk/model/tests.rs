//! The desk's knowledge, by messages as they arrive.

use gengfu_contract::command::Outcome;
use gengfu_contract::evidence::split;
use gengfu_contract::query::{PART_MAX_BYTES, replies};
use gengfu_contract::state::{Presence, Statement};
use gengfu_contract::words::{Condition, Lane};
use serde::Serialize;

use super::super::findings::Fate;
use super::super::gateway::OVER_KEPT;
use super::*;
use gengfu_contract::testing::{alarm, at, chain_of, snapshot, statement};

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
    let due = taken.receipts[0].clone();
    assert_eq!((due.id.as_str(), due.at_once), ("a1", true));
    assert!(matches!(taken.journal[0].what, What::Event(_)));
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
    assert!(taken.receipts.iter().any(|due| !due.at_once));
    assert_eq!(view(&model).alarm.condition, Condition::ActiveAck);
}

#[test]
fn a_duplicate_is_received_again_but_not_journaled_again_and_a_conflict_is_not_received() {
    let mut model = model();
    let event = alarm(1, 1, AlarmKind::Smoke, Condition::ActiveUnack, None);
    feed(&mut model, EVENT, &event, 1);
    let again = feed(&mut model, EVENT, &event, 2);
    assert!(!again.receipts.is_empty() && matches!(again.journal[0].what, What::Duplicate { .. }));
    let mut forged = event;
    forged.data["escalation"] = 7.into();
    let conflict = feed(&mut model, EVENT, &forged, 3);
    assert!(conflict.receipts.is_empty() && matches!(conflict.journal[0].what, What::Altered(_)));
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
        assert_eq!(taken.receipts[0].clone().id, "01ALARM/1");
        let picture = taken.picture.unwrap();
        assert_eq!(picture.file_name(), "g-01ALARM-1.jpg");
        model.picture_written(&picture, "p.jpg".into());
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
    assert!(taken.receipts.is_empty() && taken.picture.is_none());
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
        abandoned: BTreeMap::new(),
        at: at(2),
        boot: None,
        number: None,
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
            assert!(taken.receipts.is_empty(), "{kind} {body:?}");
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

fn gateway() -> Slug {
    Slug::new("g").unwrap()
}

#[test]
fn a_gateway_that_falls_silent_is_told_once_within_90_seconds_and_so_is_its_return() {
    let mut model = model();
    model.connection(Some(at(0)));
    let status = serde_json::json!({"state": "online", "boot": 1, "version": "0", "contract": "1.0", "clock": "synced", "at": at(0)});
    feed(&mut model, "gengfu/v1/s/g/status", &status, 0);
    let mut told: Vec<(i64, There)> = Vec::new();
    for second in 0..300 {
        if second == 250 {
            feed(&mut model, "gengfu/v1/s/g/statement", &statement(0, 0), second);
        }
        told.extend(model.tick(at(second)).into_iter().filter_map(|event| match event {
            DeskEvent::Presence { there, .. } => Some((second, there)),
            _ => None,
        }));
    }
    assert_eq!(told, [(0, There::Online), (90, There::Silent), (250, There::Online)]);
    model.connection(None);
    assert!(matches!(model.tick(at(300))[0], DeskEvent::Presence { there: There::Unknown, .. }), "the desk is deaf");
}

#[test]
fn a_gateway_that_is_heard_and_states_nothing_is_told() {
    let mut model = model();
    model.connection(Some(at(0)));
    let status = serde_json::json!({"state": "online", "boot": 1, "version": "0", "contract": "1.0", "clock": "synced", "at": at(0)});
    feed(&mut model, "gengfu/v1/s/g/status", &status, 0);
    let mut findings = Vec::new();
    for (second, event) in (0..).zip(&chain_of(200)) {
        feed(&mut model, EVENT, event, second);
        findings.extend(model.tick(at(second)).into_iter().filter_map(|event| match event {
            DeskEvent::Proof { findings, .. } => Some((second, findings)),
            _ => None,
        }));
    }
    assert_eq!(findings, [(150, vec![Finding::NoStatement { since: at(0) }])]);
}

#[test]
fn a_gap_is_told_when_it_is_noticed_judged_by_the_next_statement_and_healed_from_the_journal() {
    let mut model = model();
    model.connection(Some(at(0)));
    let events = chain_of(5);
    for index in [0, 1, 4] {
        feed(&mut model, EVENT, &events[index], 1);
    }
    let missing = |fate| vec![Finding::Missing { first: 3, last: 4, since: at(1), fate }];
    assert_eq!(model.findings(&gateway(), at(2)), missing(Fate::Unknown));
    feed(&mut model, "gengfu/v1/s/g/statement", &statement(5, 2), 3);
    assert_eq!(model.findings(&gateway(), at(4)), missing(Fate::Pending));
    feed(&mut model, "gengfu/v1/s/g/statement", &Statement { at: at(70), ..statement(5, 0) }, 70);
    assert_eq!(model.findings(&gateway(), at(71)), missing(Fate::Lost));
    assert!(matches!(&model.tick(at(71))[..], [.., DeskEvent::Proof { is_whole: false, .. }]));
    let items = events[2..4].iter().map(|event| serde_json::to_value(event).unwrap()).collect();
    let answer = replies("c1", at(72), QueryWhat::Journal, items, PART_MAX_BYTES);
    let taken = feed(&mut model, "gengfu/v1/s/g/reply/c1", &answer[0], 72);
    assert_eq!(
        (taken.journal.len(), taken.receipts.len()),
        (2, 2),
        "what was fetched is kept like what came by itself"
    );
    assert_eq!(model.findings(&gateway(), at(73)), []);
    assert!(matches!(&model.tick(at(73))[..], [DeskEvent::Proof { is_whole: true, .. }]));
}

#[test]
fn desks_that_share_the_load_call_nothing_lost() {
    let mut model = model();
    model.share();
    model.connection(Some(at(0)));
    let events = chain_of(3);
    feed(&mut model, EVENT, &events[0], 1);
    feed(&mut model, EVENT, &events[2], 1);
    feed(&mut model, "gengfu/v1/s/g/statement", &statement(3, 0), 2);
    let findings = model.findings(&gateway(), at(3));
    assert_eq!(findings, [Finding::Missing { first: 2, last: 2, since: at(1), fate: Fate::Elsewhere }]);
    assert!(!findings[0].is_fault());
}

#[test]
fn a_picture_in_parts_is_received_once_whole() {
    let mut model = model();
    let picture: Vec<u8> = (0..=255).cycle().take(1000).collect();
    feed(&mut model, EVENT, &alarm(1, 1, AlarmKind::IllegalParking, Condition::ActiveUnack, Some(&picture)), 1);
    let parts = split(&picture, 300).unwrap();
    let last = parts.len() - 1;
    for (index, (part, parts, bytes)) in parts.into_iter().enumerate() {
        let taken = model.take(&format!("gengfu/v1/s/g/evidence/01ALARM/1/{part}/{parts}"), bytes, at(2));
        assert_eq!((taken.receipts.len(), taken.picture.is_some()), if index == last { (1, true) } else { (0, false) });
    }
}

#[test]
fn a_snapshot_in_parts_is_joined_and_received_only_when_its_bytes_are_what_the_journal_names() {
    let mut model = model();
    let picture: Vec<u8> = (0..=255).cycle().take(1000).collect();
    feed(&mut model, EVENT, &snapshot(1, "act-1", &picture), 1);
    let mut forged = picture.clone();
    forged[700] ^= 1;
    let mut send = |bytes: &[u8]| {
        let mut taken = Vec::new();
        // In any order, and one of them twice.
        let mut parts = split(bytes, 300).unwrap();
        parts.reverse();
        parts.insert(1, parts[0]);
        for (part, parts, bytes) in parts {
            taken.push(model.take(&format!("gengfu/v1/s/g/evidence/act-1/1/{part}/{parts}"), bytes, at(2)));
        }
        taken.pop().unwrap()
    };
    let refused = send(&forged);
    assert!(refused.receipts.is_empty() && refused.picture.is_none(), "the gateway keeps it and sends it again");
    assert!(matches!(&refused.events[..], [DeskEvent::Fault { reason, .. }] if reason.contains("hash")));
    let taken = send(&picture);
    assert_eq!(taken.receipts.iter().map(|due| due.id.as_str()).collect::<Vec<_>>(), ["act-1/1"]);
    let written = taken.picture.unwrap();
    assert_eq!(written.bytes, picture);
    model.picture_written(&written, "p.jpg".into());
    let seen = &model.gateways()[&gateway()].snapshots["act-1"];
    assert_eq!((seen.path.as_deref(), seen.genuine), (Some("p.jpg"), Some(true)));
}

#[test]
fn an_answer_is_told_with_what_it_answers_and_kept_with_its_alarm() {
    let mut model = model();
    feed(&mut model, EVENT, &alarm(1, 1, AlarmKind::Smoke, Condition::ActiveUnack, None), 1);
    let ordered = Ordered {
        cmd_id: "c1".into(),
        gateway: gateway(),
        verb: "ack".into(),
        about: "01ALARM".into(),
        alarm_id: Some("01ALARM".into()),
        operator: "op-1".into(),
    };
    model.ordered(ordered, at(2));
    // Another gateway's answer to our command is nobody's.
    feed(&mut model, "gengfu/v1/s/other/reply/c1", &Reply::new("c1", Outcome::Refused, None, at(3)), 3);
    assert_eq!(view(&model).orders[0].answer, None);
    let told = feed(&mut model, "gengfu/v1/s/g/reply/c1", &Reply::new("c1", Outcome::Done, None, at(3)), 3).events;
    assert!(matches!(&told[0], DeskEvent::Reply { verb: Some(verb), .. } if verb == "ack"));
    assert_eq!(view(&model).orders[0].answer, Some((Outcome::Done, None)));
}

#[test]
fn the_way_of_an_alarm_is_timed_stage_by_stage() {
    let mut model = model();
    let mut event = alarm(1, 1, AlarmKind::Smoke, Condition::ActiveUnack, None);
    event.senttime = Some(at(1));
    feed(&mut model, EVENT, &event, 2);
    model.receipted(&gateway(), &["a1".to_owned()], at(3));
    let mut acknowledged = alarm(2, 2, AlarmKind::Smoke, Condition::ActiveAck, None);
    acknowledged.recordedtime = at(9);
    feed(&mut model, EVENT, &acknowledged, 10);
    let times = view(&model).stages.list().map(|(_, _, at)| at);
    assert_eq!(times, [Some(at(0)), Some(at(0)), Some(at(0)), Some(at(1)), Some(at(2)), Some(at(3)), Some(at(9))]);
}

#[test]
fn an_event_under_another_gateways_name_is_not_taken() {
    let mut model = model();
    let taken = feed(&mut model, "gengfu/v1/s/g2/event", &chain_of(1)[0], 1);
    assert!(taken.receipts.is_empty() && taken.journal.is_empty());
    assert!(model.malformed().1.unwrap().contains("another gateway"));
}
