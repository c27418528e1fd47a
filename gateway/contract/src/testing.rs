//! Events for tests of who reads events, here and in other crates (feature `testing`). Owns nothing of the product.
#![allow(clippy::unwrap_used)]

use crate::chain;
use crate::command::Outcome;
use crate::event::{AlarmData, ClockQuality, CommandData, Event, EventType, EvidenceRef, Explanation};
use crate::slug::Slug;
use crate::words::{AlarmKind, Condition, Lane};
use jiff::Timestamp;

/// A second of simulated time.
pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).unwrap()
}

/// Events 1 to `count`, chained.
pub fn chain_of(count: u64) -> Vec<Event> {
    chain_after(0, chain::GENESIS, count, "e")
}

/// `count` events after number `after` whose hash is `prev`; their ids begin with `name`. Each is journaled a second after the one
/// before, those of another name than "e" a day later.
pub fn chain_after(after: u64, mut prev: [u8; 32], count: u64, name: &str) -> Vec<Event> {
    let day = if name == "e" { 0 } else { 86_400 };
    (after + 1..=after + count)
        .map(|sequence| {
            let mut event = observed(sequence);
            event.id = format!("{name}{sequence}");
            event.recordedtime = at(day + i64::try_from(sequence).unwrap());
            event.prevhash = hex::encode(prev);
            prev = chain::hash(&chain::canonical(&event).unwrap());
            event
        })
        .collect()
}

/// Hash of the last of these, as a statement says it.
pub fn head_of(events: &[Event]) -> String {
    hex::encode(chain::hash(&chain::canonical(events.last().unwrap()).unwrap()))
}

/// A door that opened.
pub fn observed(sequence: u64) -> Event {
    Event {
        specversion: "1.0".into(),
        id: format!("e{sequence}"),
        source: "/gengfu/s/g".into(),
        event_type: EventType::DeviceObserved,
        subject: "door-1".into(),
        time: at(0),
        datacontenttype: "application/json".into(),
        sequence,
        recordedtime: at(0),
        prevhash: hex::encode(chain::GENESIS),
        lane: Lane::Telemetry,
        senttime: None,
        historical: None,
        attempt: None,
        data: serde_json::json!({"device": "door-1", "what": "door.opened", "clock": "synced"}),
        extra: std::collections::BTreeMap::new(),
    }
}

/// A transition of an alarm.
pub fn alarm(sequence: u64, rev: u32, kind: AlarmKind, condition: Condition, picture: Option<&[u8]>) -> Event {
    let evidence = picture.map(|bytes| EvidenceRef {
        n: 1,
        sha256: hex::encode(chain::hash(bytes)),
        bytes: bytes.len() as u64,
        media_type: "image/jpeg".into(),
        taken_at: at(0),
        caption: "past the limit".into(),
    });
    let data = AlarmData {
        alarm_id: "01ALARM".into(),
        rev,
        kind,
        condition,
        title: kind.title(),
        code: None,
        cap: kind.cap(),
        device: Slug::new("device-1").unwrap(),
        zone: None,
        location: None,
        subject_ref: None,
        confidence: None,
        explanation: Explanation { rule: "test".into(), text: kind.title(), inputs: std::collections::BTreeMap::new() },
        since: at(0),
        decided_at: at(0),
        clock: ClockQuality::Synced,
        escalation: 0,
        evidence: evidence.into_iter().collect(),
        origin: None,
        operator: None,
        side: None,
        case: None,
    };
    let event_type = match condition {
        Condition::ActiveUnack => EventType::AlarmRaised,
        Condition::ActiveAck => EventType::AlarmAcknowledged,
        Condition::Normal => EventType::AlarmOver,
        Condition::ClearedUnack | Condition::ClearedLatched => EventType::AlarmCleared,
        Condition::Unknown => EventType::AlarmUpdated,
    };
    Event {
        event_type,
        id: format!("a{sequence}"),
        subject: "01ALARM".into(),
        lane: kind.lane(),
        data: serde_json::to_value(data).unwrap(),
        ..observed(sequence)
    }
}

/// The last word on a `snapshot` command that took this picture.
pub fn snapshot(sequence: u64, cmd_id: &str, picture: &[u8]) -> Event {
    let evidence = EvidenceRef {
        n: 1,
        sha256: hex::encode(chain::hash(picture)),
        bytes: picture.len() as u64,
        media_type: "image/jpeg".into(),
        taken_at: at(0),
        caption: "snapshot".into(),
    };
    let data = CommandData {
        cmd_id: cmd_id.into(),
        verb: "snapshot".into(),
        operator: Some("op-1".into()),
        outcome: Outcome::Done,
        reason: None,
        issued_at: Some(at(0)),
        evidence: vec![evidence],
    };
    Event {
        event_type: EventType::CommandAnswered,
        id: format!("c{sequence}"),
        subject: cmd_id.into(),
        data: serde_json::to_value(data).unwrap(),
        ..observed(sequence)
    }
}

/// A statement of `sequence` events of which `pending` of the city lane wait, a head that is checked nowhere.
pub fn statement(sequence: u64, pending: u64) -> crate::state::Statement {
    crate::state::Statement {
        sequence,
        head: String::new(),
        pending: [(Lane::City, pending)].into(),
        oldest_pending_at: None,
        dropped: std::collections::BTreeMap::new(),
        abandoned: std::collections::BTreeMap::new(),
        at: at(i64::try_from(sequence).unwrap()),
        boot: None,
        number: None,
    }
}
