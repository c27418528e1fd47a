//! Bodies on `event`: CloudEvents 1.0 in structured JSON mode.
//!
//! Owns the envelope and the three kinds of data in it. Unknown attributes and unknown members of `data` are kept,
//! so that an older centre passes on what a newer gateway said. Refuses other majors (see [`Event::parse`]).
//!
//! Source: CloudEvents 1.0.2; its `sequence` extension for the gapless number.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::slug::Slug;
use crate::words::{AlarmKind, Cap, Condition, Lane, Text};

/// One event of a gateway's journal.
///
/// The attributes `senttime`, `historical` and `attempt` describe the sending and may differ between two copies of one event; all
/// others are journaled, hashed ([`crate::chain`]) and the same in every copy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// CloudEvents version: "1.0".
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
    #[schemars(with = "String")]
    pub sequence: u64,
    /// When the gateway journaled it.
    pub recordedtime: Timestamp,
    /// SHA-256 of the event before it, in hex; 64 zeros before the first.
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
    /// [`AlarmData`], [`ObservedData`] or [`GatewayData`], as the type says.
    pub data: Value,
    /// Attributes this version does not know, kept.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// The type of an event; the `v1` is the contract's major.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum EventType {
    /// An alarm or trouble began.
    #[serde(rename = "gengfu.alarm.raised.v1")]
    AlarmRaised,
    /// Its data changed: certainty, evidence, condition unknown or known again.
    #[serde(rename = "gengfu.alarm.updated.v1")]
    AlarmUpdated,
    /// A human at the centre acknowledged it.
    #[serde(rename = "gengfu.alarm.acknowledged.v1")]
    AlarmAcknowledged,
    /// What it was about is no longer so.
    #[serde(rename = "gengfu.alarm.cleared.v1")]
    AlarmCleared,
    /// It is over: condition NORMAL, the retained snapshot is emptied.
    #[serde(rename = "gengfu.alarm.over.v1")]
    AlarmOver,
    /// A device said something; no judgement.
    #[serde(rename = "gengfu.device.observed.v1")]
    DeviceObserved,
    /// The gateway came up.
    #[serde(rename = "gengfu.gateway.started.v1")]
    GatewayStarted,
}

impl EventType {
    /// True for the five `gengfu.alarm.*` types.
    #[must_use]
    pub fn is_alarm(self) -> bool {
        !matches!(self, EventType::DeviceObserved | EventType::GatewayStarted)
    }
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
#[serde(default, deny_unknown_fields)]
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
}

impl Event {
    /// Reads an event as it arrived on `event`.
    ///
    /// # Errors
    /// [`EventError`] for anything that is not CloudEvents 1.0 with this contract's attributes and a known type.
    pub fn parse(body: &[u8]) -> Result<Self, EventError> {
        let event: Event = serde_json::from_slice(body)?;
        if event.specversion != "1.0" {
            return Err(EventError::SpecVersion(event.specversion));
        }
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

    fn typed<T: serde::de::DeserializeOwned>(&self, is_it: bool) -> Result<Option<T>, EventError> {
        if is_it { Ok(Some(T::deserialize(&self.data)?)) } else { Ok(None) }
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
