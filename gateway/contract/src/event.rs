//! Bodies on `event`: CloudEvents 1.0 in structured JSON mode.
//!
//! Owns the envelope and the kinds of data in it. Unknown attributes, unknown types of this major and unknown members of `data` are kept,
//! so that an older centre passes on what a newer gateway said. Refuses other majors (see [`Event::parse`]).
//!
//! Source: CloudEvents 1.0.2; its `sequence` extension for the gapless number.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::CONTRACT_MAJOR;
use crate::case::CaseRef;
use crate::command::Outcome;
use crate::slug::Slug;
use crate::words::{AlarmKind, Cap, Condition, Lane, Text, Unknown, open_words, words};

/// One event of a gateway's journal.
///
/// The attributes `senttime`, `historical` and `attempt` describe the sending and may differ between two copies of one event; all
/// others are journaled, hashed ([`crate::chain`]) and the same in every copy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// CloudEvents version: "1.0".
    #[schemars(extend("const" = "1.0"))]
    pub specversion: String,
    /// Unique per source; duplicates of one event carry the same id.
    pub id: String,
    /// `/gengfu/<site>/<gateway>`.
    pub source: String,
    /// What happened.
    #[serde(rename = "type")]
    pub event_type: EventType,
    /// Alarm id or device id.
    pub subject: String,
    /// When it was sensed.
    pub time: Timestamp,
    /// "application/json".
    pub datacontenttype: String,
    /// Gapless number of the event in its gateway's journal, from 1; 20 digits, so that text order is number order.
    #[serde(with = "sequence_text")]
    #[schemars(with = "String", regex(pattern = "^[0-9]{20}$"))]
    pub sequence: u64,
    /// When the gateway journaled it.
    pub recordedtime: Timestamp,
    /// SHA-256 of the event before it, in hex; 64 zeros before the first.
    #[schemars(regex(pattern = "^[0-9a-f]{64}$"))]
    pub prevhash: String,
    /// The road it travels.
    pub lane: Lane,
    /// When this copy was handed to the broker's connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub senttime: Option<Timestamp>,
    /// True when this copy was sent late, from the store, and no longer describes the present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub historical: Option<bool>,
    /// How many times the gateway has sent it since its start, this copy included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// [`AlarmData`], [`ObservedData`], [`GatewayData`] or [`CommandData`], as the type says.
    pub data: Value,
    /// Attributes this version does not know, kept.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

open_words! {
    /// The type of an event; the `v1` is the contract's major. Open: a later version may add types of the same major.
    EventType {
        /// An alarm or trouble began.
        AlarmRaised = "gengfu.alarm.raised.v1",
        /// Its data changed: certainty, evidence, case, condition unknown or known again.
        AlarmUpdated = "gengfu.alarm.updated.v1",
        /// A human at the centre acknowledged it.
        AlarmAcknowledged = "gengfu.alarm.acknowledged.v1",
        /// No human acknowledged it in time: the same alarm again, `escalation` is one higher.
        AlarmEscalated = "gengfu.alarm.escalated.v1",
        /// The centre put it aside for a while; its `side` says until when and why.
        AlarmShelved = "gengfu.alarm.shelved.v1",
        /// It counts again: the time is over, or the centre said so.
        AlarmUnshelved = "gengfu.alarm.unshelved.v1",
        /// What it was about is no longer so.
        AlarmCleared = "gengfu.alarm.cleared.v1",
        /// It is over: condition NORMAL, the retained snapshot is emptied.
        AlarmOver = "gengfu.alarm.over.v1",
        /// A device said something; no judgement.
        DeviceObserved = "gengfu.device.observed.v1",
        /// The gateway came up.
        GatewayStarted = "gengfu.gateway.started.v1",
        /// A command of the centre was answered.
        CommandAnswered = "gengfu.command.answered.v1",
    }
}

impl EventType {
    /// True for the `gengfu.alarm.*` types, also for those of a later version: their data is an [`AlarmData`].
    #[must_use]
    pub fn is_alarm(self) -> bool {
        self.as_str().starts_with("gengfu.alarm.")
    }

    /// The contract's major the type names; `None` when it is no type of this contract.
    #[must_use]
    pub fn major(self) -> Option<u32> {
        major_of(self.as_str())
    }
}

fn major_of(event_type: &str) -> Option<u32> {
    event_type.strip_prefix("gengfu.")?.rsplit_once(".v")?.1.parse().ok()
}

/// Data of the `gengfu.alarm.*` types: the whole alarm as it stands after this event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AlarmData {
    /// ULID, the same from raise to over.
    pub alarm_id: String,
    /// Counts the events of this alarm, from 1.
    pub rev: u32,
    /// What it is about.
    pub kind: AlarmKind,
    /// State of the condition after this event.
    pub condition: Condition,
    /// What people read.
    pub title: Text,
    /// National event code, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// CAP 1.2 words.
    pub cap: Cap,
    /// The device that saw it.
    pub device: Slug,
    /// The zone of a camera's picture it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Slug>,
    /// Where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    /// Opaque reference to a person or home on the centre's register; never a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_ref: Option<String>,
    /// 0 to 1, from the sensor or model; absent where the sensor gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f32>,
    /// Why this is an alarm.
    pub explanation: Explanation,
    /// When the alarm began (the true time, also when it was decided later).
    pub since: Timestamp,
    /// When the rule decided.
    pub decided_at: Timestamp,
    /// Whether these times can be trusted.
    pub clock: ClockQuality,
    /// 0 at first; +1 each time no human answered in time.
    pub escalation: u32,
    /// Pictures, by hash; the bytes travel on `evidence/<alarm_id>/<n>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<EvidenceRef>,
    /// The sensor event that led to this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Who acknowledged or reset, as the centre's command said; opaque.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// Set while it does not count as usual; the condition goes on beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub side: Option<Side>,
    /// The centre's case about it, as the centre last told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub case: Option<CaseRef>,
}

words! {
    /// A state beside the condition (after ISA-18.2): somebody decided that the alarm does not count for a while.
    SideState: "SCREAMING_SNAKE_CASE" {
        /// The centre put it aside: at most 8 h, never smoke or SOS.
        Shelved = "SHELVED",
        /// A technician took the device out of service: at most 4 h.
        OutOfService = "OUT_OF_SERVICE",
        /// The device is being tested: at most 30 min.
        Test = "TEST",
    }
}

/// Why an alarm does not count as usual, until when, and who said so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Side {
    /// Which.
    pub state: SideState,
    /// It ends by itself then.
    pub until: Timestamp,
    /// Why, in the words of who did it.
    pub reason: String,
    /// Who, as the centre or the site names its people; opaque.
    pub who: String,
}

/// Data of `gengfu.device.observed.v1`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ObservedData {
    /// The device.
    pub device: Slug,
    /// What it said, as in "door.opened", "smoke.alarm", "battery".
    pub what: String,
    /// A value that belongs to it (millivolts, counts), where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<i64>,
    /// True when the change was read from a heartbeat because its edge was lost.
    #[serde(default)]
    pub repaired: bool,
    /// Whether the times can be trusted.
    pub clock: ClockQuality,
    /// The sensor event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// Data of `gengfu.gateway.started.v1`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GatewayData {
    /// Software version.
    pub version: String,
    /// Contract version.
    pub contract: String,
    /// Number of this start, from 1.
    pub boot: u64,
    /// Whether the times can be trusted.
    pub clock: ClockQuality,
}

/// Data of `gengfu.command.answered.v1`: the log of what the centre asked for and got. Receipts are not logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CommandData {
    /// The command's id, as in its topic.
    pub cmd_id: String,
    /// The verb, as in its topic.
    pub verb: String,
    /// Who gave it, as the centre names its people; absent when the body could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// What became of it.
    pub outcome: Outcome,
    /// Why, for `refused` and `conflict`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Text>,
    /// When it was given, as it says; absent when the body could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<Timestamp>,
    /// Pictures that were taken for it (`snapshot`), by hash; the bytes travel on `evidence/<cmd_id>/<n>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<EvidenceRef>,
}

/// A code of a national or local event scheme. Schemes are data (`config/codes/`), never code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Code {
    /// As in "GB/T 47678.5".
    pub scheme: String,
    /// As in "2026".
    pub version: String,
    /// The code itself, with the division's digits where the scheme wants them.
    pub code: String,
}

/// Where something is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Location {
    /// Administrative division, 6 digits (GB/T 2260).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub division: Option<String>,
    /// Management grid, 15 digits (GB/T 30428.1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grid: Option<String>,
    /// For people: building, floor, corner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Longitude, degrees, CGCS2000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lon: Option<f64>,
    /// Latitude, degrees, CGCS2000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lat: Option<f64>,
}

/// Why a rule decided as it did: what `gengfu why` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    /// Name of the rule, as in "parking.dwell".
    pub rule: String,
    /// One sentence for people.
    pub text: Text,
    /// What went in: limits, measured values, timers; names end in their unit.
    pub inputs: BTreeMap<String, Value>,
}

/// Whether a gateway's times can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClockQuality {
    /// The operating system's clock is synchronised.
    Synced,
    /// It is not; alarms go out all the same.
    Unsynced,
}

/// One picture of an alarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EvidenceRef {
    /// Number within the alarm, from 1.
    pub n: u32,
    /// SHA-256 of the bytes, hex.
    pub sha256: String,
    /// Size.
    pub bytes: u64,
    /// As in "image/jpeg".
    pub media_type: String,
    /// When the picture was taken.
    pub taken_at: Timestamp,
    /// What it shows, as in "past the limit".
    pub caption: String,
}

/// The sensor event behind an event: unique for ever within a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Origin {
    /// Unique id of the sensor node, hex.
    pub node: String,
    /// The node's boot id.
    pub boot: u32,
    /// The node's number of the event within that boot.
    pub sequence: u32,
}

/// Why a body is not an event of this contract.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// Not JSON, or a required attribute is missing or of the wrong type.
    #[error("not an event of contract v1: {0}")]
    Malformed(#[from] serde_json::Error),
    /// CloudEvents of another version.
    #[error("specversion \"{0}\" where \"1.0\" was expected")]
    SpecVersion(String),
    /// An event of another major of this contract.
    #[error(
        "type \"{event_type}\" is of contract major {major}, and this reader knows major {CONTRACT_MAJOR} only: update the reader, or \
         let the gateway speak v{CONTRACT_MAJOR}"
    )]
    Major {
        /// The type as it stands in the event.
        event_type: String,
        /// The major in it.
        major: u32,
    },
    /// A CloudEvent that is not of this contract at all.
    #[error("type \"{0}\" is none of this contract: expected \"gengfu.<what>.<happened>.v{CONTRACT_MAJOR}\"")]
    Foreign(String),
}

impl Event {
    /// Reads an event as it arrived on `event`. Types, kinds and attributes that a later version added within this major are kept.
    ///
    /// # Errors
    /// [`EventError`] for anything that is not CloudEvents 1.0 with this contract's attributes, and for another major.
    pub fn parse(body: &[u8]) -> Result<Self, EventError> {
        let event: Event = serde_json::from_slice(body).map_err(|error| another_major(body).unwrap_or(error.into()))?;
        if event.specversion != "1.0" {
            return Err(EventError::SpecVersion(event.specversion));
        }
        check_major(event.event_type.as_str())?;
        Ok(event)
    }

    /// The alarm in `data`, for the `gengfu.alarm.*` types.
    ///
    /// # Errors
    /// When `data` lacks what the type promises.
    pub fn alarm(&self) -> Result<Option<AlarmData>, EventError> {
        self.typed(self.event_type.is_alarm())
    }

    /// The observation in `data`, for `gengfu.device.observed.v1`.
    ///
    /// # Errors
    /// When `data` lacks what the type promises.
    pub fn observed(&self) -> Result<Option<ObservedData>, EventError> {
        self.typed(self.event_type == EventType::DeviceObserved)
    }

    /// The answered command in `data`, for `gengfu.command.answered.v1`.
    ///
    /// # Errors
    /// When `data` lacks what the type promises.
    pub fn command(&self) -> Result<Option<CommandData>, EventError> {
        self.typed(self.event_type == EventType::CommandAnswered)
    }

    fn typed<T: serde::de::DeserializeOwned>(&self, is_it: bool) -> Result<Option<T>, EventError> {
        if is_it { Ok(Some(T::deserialize(&self.data)?)) } else { Ok(None) }
    }
}

/// An event of another major may lack what this one needs: then its major is what to tell, not the missing attribute.
fn another_major(body: &[u8]) -> Option<EventError> {
    let value: Value = serde_json::from_slice(body).ok()?;
    check_major(value.get("type")?.as_str()?).err()
}

fn check_major(event_type: &str) -> Result<(), EventError> {
    match major_of(event_type) {
        Some(CONTRACT_MAJOR) => Ok(()),
        Some(major) => Err(EventError::Major { event_type: event_type.to_owned(), major }),
        None => Err(EventError::Foreign(event_type.chars().take(Unknown::MAX_BYTES).collect())),
    }
}

mod sequence_text {
    use serde::{Deserialize, Deserializer, Serializer, de};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub fn serialize<S: Serializer>(sequence: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{sequence:020}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| de::Error::custom(format_args!("sequence {text:?} is not a number")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain;

    /// What a gateway of a later version might send: a type, a kind, attributes and members that v1.0 does not know.
    const LATER: &str = r#"{"specversion":"1.0","id":"01KATER","source":"/gengfu/jinding/gw-1","type":"gengfu.alarm.merged.v1",
        "subject":"01ARZ","time":"2026-11-22T08:00:00.25Z","datacontenttype":"application/json","sequence":"00000000000000000042",
        "recordedtime":"2026-11-22T08:00:00.3Z","prevhash":"0000000000000000000000000000000000000000000000000000000000000000",
        "lane":"fire","partition":7,"newobject":{"z":1e-7,"a":[1.0,-0.0,1e21]},
        "data":{"alarm_id":"01ARZ","rev":3,"kind":"gas_leak","condition":"ACTIVE_UNACK","title":{"zh":"燃气","en":"Gas","mn":"?"},
        "cap":{"status":"Actual","urgency":"Immediate","severity":"Extreme","certainty":"Observed","category":"Fire","scope":"Public"},
        "device":"gas-1","location":{"division":"310112","storey":3},"explanation":{"rule":"gas","text":{"zh":"","en":""},"inputs":{}},
        "since":"2026-11-22T08:00:00Z","decided_at":"2026-11-22T08:00:00Z","clock":"synced","escalation":0,"merged_into":"01BRZ"}}"#;

    #[test]
    fn a_later_version_of_this_major_is_kept_whole_and_hashes_the_same() {
        let event = Event::parse(LATER.as_bytes()).unwrap();
        assert!(!event.event_type.is_known() && event.event_type.is_alarm());
        let alarm = event.alarm().unwrap().unwrap();
        assert_eq!((alarm.kind.as_str(), alarm.kind.is_known()), ("gas_leak", false));
        let again = Event::parse(&serde_json::to_vec(&event).unwrap()).unwrap();
        assert_eq!(again, event);
        let hash = chain::hash(&chain::canonical(&event).unwrap());
        assert_eq!(
            chain::hash_of_body(LATER.as_bytes()).unwrap(),
            hash,
            "nothing was lost on the way through the types"
        );
        assert_eq!(again.data["merged_into"], "01BRZ");
        assert_eq!(again.extra["partition"], 7);
    }

    #[test]
    fn another_major_and_foreign_types_are_refused_with_the_reason() {
        let two = LATER.replace("gengfu.alarm.merged.v1", "gengfu.alarm.raised.v2");
        let bare = br#"{"type":"gengfu.alarm.raised.v12"}"#;
        for (body, major) in [(two.as_bytes(), 2), (&bare[..], 12)] {
            let error = Event::parse(body).unwrap_err();
            assert!(matches!(error, EventError::Major { major: told, .. } if told == major), "{error}");
            assert!(error.to_string().contains("update"), "{error}");
        }
        let foreign = LATER.replace("gengfu.alarm.merged.v1", "com.example.thing");
        assert!(matches!(Event::parse(foreign.as_bytes()), Err(EventError::Foreign(_))));
        assert!(matches!(Event::parse(b"{\"type\":\"gengfu.alarm.raised.v1\"}"), Err(EventError::Malformed(_))));
    }
}
