//! One example of each body, made of the types themselves: an example that does not fit the contract does not compile.
//!
//! Owns nothing else. They are told in the reference and in the AsyncAPI document, and the tests judge them by the schemas.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::Body;
use crate::case::{CaseStage, RejectReason};
use crate::chain::GENESIS;
use crate::command::{
    AlarmCommand, CaseCommand, ConfigCommand, Outcome, Receipt, Reply, ShelveCommand, SnapshotCommand, SnapshotData,
    SounderCommand, TestCommand, UnshelveCommand, VERBS, VisitCommand, Whereabouts,
};
use crate::event::{
    AlarmData, ClockQuality, Code, CommandData, Event, EventType, Explanation, GatewayData, Location, ObservedData,
    Origin,
};
use crate::query::{HomeActivity, QueryCommand, QueryWhat, replies};
use crate::slug::Slug;
use crate::state::{AlarmSnapshot, DeviceState, DispatchStatus, GatewayStatus, Presence, Statement};
use crate::words::{AlarmKind, Condition, Lane, Text};

/// An example.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// Of which body.
    pub body: Body,
    /// What it shows.
    pub name: &'static str,
    /// The JSON.
    pub value: Value,
}

const ALARM: &str = "01KAMH6Q5Z8D3V2W9X7YB4TSGN";

fn at(second: i64) -> Timestamp {
    // 2026-11-22T08:00:00Z and so many seconds.
    Timestamp::from_second(1_795_334_400 + second).unwrap_or_default()
}

fn slug(name: &str) -> Slug {
    Slug::new(name).expect("the names of the examples are names")
}

fn text(zh: &str, en: &str) -> Text {
    Text { zh: zh.into(), en: en.into() }
}

fn json_of(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("the contract's types have text keys only, so they have a JSON form")
}

/// Every example, in the order of the documents.
#[must_use]
pub fn examples() -> Vec<Example> {
    let mut all: Vec<Example> = from_gateway();
    all.extend(commands());
    let dispatch = json_of(&DispatchStatus { state: Presence::Online, at: at(0) });
    all.push(Example { body: Body::DispatchStatus, name: "the centre is there", value: dispatch });
    all
}

fn from_gateway() -> Vec<Example> {
    let example = |body, name, value| Example { body, name, value };
    let lanes = |of: &[(Lane, u64)]| {
        Lane::ALL.iter().map(|lane| (*lane, of.iter().find(|(l, _)| l == lane).map_or(0, |(_, n)| *n))).collect()
    };
    let status = GatewayStatus {
        state: Presence::Online,
        boot: 12,
        version: "0.1.0".into(),
        contract: crate::CONTRACT_VERSION.into(),
        clock: ClockQuality::Synced,
        at: at(0),
        problems: Vec::new(),
    };
    let device = DeviceState {
        device: slug("smoke-301"),
        class: "smoke".into(),
        state: "alarm".into(),
        last_heard_at: Some(at(2)),
        battery_mv: Some(2980),
        troubles: Vec::new(),
        supervision: Some("S1".into()),
        coverage_percent: None,
        side: None,
    };
    let statement = Statement {
        sequence: 1042,
        head: "9c56cc51b374c3ba189210d5b6d4bf57790d351c96c47c02190ecf1e430635ab".into(),
        pending: lanes(&[(Lane::Evidence, 1)]),
        oldest_pending_at: Some(at(1)),
        dropped: lanes(&[]),
        abandoned: lanes(&[]),
        at: at(60),
        boot: Some(7),
        number: Some(3),
    };
    vec![
        example(Body::Status, "online", json_of(&status)),
        example(
            Body::Event,
            "smoke in flat 301",
            json_of(&event(1042, EventType::AlarmRaised, Lane::Fire, ALARM, json_of(&alarm()))),
        ),
        example(
            Body::Event,
            "a door was opened",
            json_of(&event(1043, EventType::DeviceObserved, Lane::Telemetry, "door-302", json_of(&opened()))),
        ),
        example(
            Body::Event,
            "the gateway came up",
            json_of(&event(
                1044,
                EventType::GatewayStarted,
                Lane::Telemetry,
                "/gengfu/spring-street/gw-01",
                json_of(&started()),
            )),
        ),
        example(
            Body::Event,
            "an acknowledgement was answered",
            json_of(&event(1045, EventType::CommandAnswered, Lane::Telemetry, "c-20261122-0002", json_of(&answered()))),
        ),
        example(Body::Alarm, "smoke in flat 301", json_of(&AlarmSnapshot { sequence: 1042, alarm: alarm() })),
        example(Body::Device, "a smoke alarm", json_of(&device)),
        example(Body::Statement, "one picture is on its way", json_of(&statement)),
        example(Body::Reply, "done", json_of(&Reply::new("c-20261122-0002", Outcome::Done, None, at(20)))),
        example(Body::Reply, "the case cannot be closed", json_of(&conflict())),
        example(Body::Reply, "which picture to expect", json_of(&snapshot())),
        example(Body::Reply, "homes", homes()),
    ]
}

fn event(sequence: u64, event_type: EventType, lane: Lane, subject: &str, data: Value) -> Event {
    Event {
        specversion: "1.0".into(),
        id: format!("01KAMH6Q61{sequence:016}"),
        source: "/gengfu/spring-street/gw-01".into(),
        event_type,
        subject: subject.into(),
        time: at(0),
        datacontenttype: "application/json".into(),
        sequence,
        recordedtime: at(1),
        prevhash: hex::encode(GENESIS),
        lane,
        senttime: Some(at(1)),
        historical: None,
        attempt: Some(1),
        data,
        extra: BTreeMap::new(),
    }
}

fn origin() -> Option<Origin> {
    Some(Origin { node: "00124b0018e2a7f1".into(), boot: 3, sequence: 77 })
}

fn alarm() -> AlarmData {
    let kind = AlarmKind::Smoke;
    AlarmData {
        alarm_id: ALARM.into(),
        rev: 1,
        kind,
        condition: Condition::ActiveUnack,
        title: kind.title(),
        code: Some(Code { scheme: "gengfu".into(), version: "1".into(), code: "fire.smoke".into() }),
        cap: kind.cap(),
        device: slug("smoke-301"),
        zone: None,
        location: Some(Location {
            division: Some("440402".into()),
            text: Some("春天街 7 号 301 / 7 Spring Street, 301".into()),
            lon: Some(113.562_5),
            lat: Some(22.256_25),
            ..Location::default()
        }),
        subject_ref: Some("person-00301".into()),
        confidence: None,
        explanation: Explanation {
            rule: "smoke.alarm".into(),
            text: text("烟雾探测器报警", "the smoke head reports smoke"),
            inputs: [("heads".to_owned(), json!(1))].into(),
        },
        since: at(0),
        decided_at: at(1),
        clock: ClockQuality::Synced,
        escalation: 0,
        evidence: Vec::new(),
        origin: origin(),
        operator: None,
        side: None,
        case: None,
    }
}

fn opened() -> ObservedData {
    ObservedData {
        device: slug("door-302"),
        what: "door.opened".into(),
        value: None,
        repaired: false,
        clock: ClockQuality::Synced,
        origin: origin(),
    }
}

fn started() -> GatewayData {
    GatewayData {
        version: "0.1.0".into(),
        contract: crate::CONTRACT_VERSION.into(),
        boot: 12,
        clock: ClockQuality::Unsynced,
    }
}

fn answered() -> CommandData {
    CommandData {
        cmd_id: "c-20261122-0002".into(),
        verb: "ack".into(),
        operator: Some("op-17".into()),
        outcome: Outcome::Done,
        reason: None,
        issued_at: Some(at(19)),
        evidence: Vec::new(),
    }
}

fn conflict() -> Reply {
    let reason = text("报警仍在持续，案件不能结案", "the alarm is still active: the case cannot be closed");
    Reply::new("c-20261122-0003", Outcome::Conflict, Some(reason), at(30))
}

fn snapshot() -> Reply {
    let data = SnapshotData {
        sha256: "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae".into(),
        bytes: 48_213,
        media_type: "image/jpeg".into(),
        taken_at: at(40),
    };
    Reply { data: Some(json_of(&data)), ..Reply::new("c-20261122-0004", Outcome::Done, None, at(41)) }
}

fn homes() -> Value {
    let home = HomeActivity {
        door: slug("door-302"),
        subject_ref: Some("person-00302".into()),
        state: "closed".into(),
        last_opened_at: Some(at(-7200)),
        last_heard_at: Some(at(-60)),
        coverage_percent: Some(99),
        level: None,
        pause: None,
        troubles: Vec::new(),
    };
    let answer = replies("c-20261122-0005", at(50), QueryWhat::Homes, vec![json_of(&home)], usize::MAX);
    answer.first().map(json_of).unwrap_or_default()
}

fn commands() -> Vec<Example> {
    let (operator, issued_at, expires_at) = ("op-17".to_owned(), at(19), Some(at(79)));
    let on_alarm = || AlarmCommand { alarm_id: ALARM.into(), operator: operator.clone(), issued_at, expires_at };
    let value = |verb: &str| -> (&'static str, Value) {
        let operator = operator.clone();
        match verb {
            "receipt" => (
                "an event and a picture",
                json_of(&Receipt {
                    ids: vec!["01KAMH6Q610000000000001042".into(), format!("{ALARM}/1")],
                    received_at: at(2),
                }),
            ),
            "case" => (
                "nothing but steam",
                json_of(&CaseCommand {
                    alarm_id: ALARM.into(),
                    case_id: "case-2026-118".into(),
                    stage: CaseStage::Rejected,
                    reason: Some(RejectReason::Steam),
                    note: None,
                    due_at: None,
                    operator,
                    issued_at,
                    expires_at,
                }),
            ),
            "shelve" => (
                "a street market",
                json_of(&ShelveCommand {
                    device: slug("camera-1"),
                    kind: AlarmKind::IllegalParking,
                    zone: Some(slug("kerb")),
                    until: at(7200),
                    reason: "street market until ten".into(),
                    operator,
                    issued_at,
                    expires_at,
                }),
            ),
            "unshelve" => (
                "the market is over",
                json_of(&UnshelveCommand {
                    device: slug("camera-1"),
                    kind: AlarmKind::IllegalParking,
                    zone: Some(slug("kerb")),
                    operator,
                    issued_at,
                    expires_at,
                }),
            ),
            "snapshot" => (
                "a look at the kerb",
                json_of(&SnapshotCommand { camera: slug("camera-1"), operator, issued_at, expires_at }),
            ),
            "query" => (
                "all homes",
                json_of(&QueryCommand {
                    what: QueryWhat::Homes,
                    devices: Vec::new(),
                    from_sequence: None,
                    to_sequence: None,
                    operator,
                    issued_at,
                    expires_at,
                }),
            ),
            "visit" => (
                "in hospital for ten days",
                json_of(&VisitCommand {
                    door: slug("door-302"),
                    what: Whereabouts::Away,
                    until: Some(at(864_000)),
                    operator,
                    issued_at,
                    expires_at,
                }),
            ),
            "sounder" => (
                "sound for half a minute",
                json_of(&SounderCommand { device: slug("node-3"), for_s: 30, operator, issued_at, expires_at }),
            ),
            "test" => (
                "test a smoke head",
                json_of(&TestCommand { device: slug("smoke-301"), operator, issued_at, expires_at }),
            ),
            "config" => (
                "a signed bundle",
                json_of(&ConfigCommand {
                    bundle: ConfigCommand::encode_bundle(b"the bytes of a signed bundle"),
                    operator,
                    issued_at,
                    expires_at,
                }),
            ),
            "reset" => ("the smoke is gone", json_of(&on_alarm())),
            _ => ("seen", json_of(&on_alarm())),
        }
    };
    let numbered = VERBS.iter().enumerate();
    numbered
        .map(|(n, verb)| {
            let (name, value) = value(verb);
            Example { body: Body::Command(n), name, value }
        })
        .collect()
}
