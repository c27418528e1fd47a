//! Retained state: what a centre that starts late sees at once.
//!
//! Owns the bodies on `status`, `alarm/<id>`, `device/<id>`, `statement` and `dispatch/status`. These describe the present and are not
//! journaled; the journal is on `event`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{AlarmData, ClockQuality, Side};
use crate::slug::Slug;
use crate::words::{AlarmKind, Lane, Text};

/// Body of `status`; with `offline` also the gateway's will.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GatewayStatus {
    /// Is it there.
    pub state: Presence,
    /// Number of the gateway's start.
    pub boot: u64,
    /// Software version.
    pub version: String,
    /// Contract version.
    pub contract: String,
    /// Whether its times can be trusted.
    pub clock: ClockQuality,
    /// When this was said.
    pub at: Timestamp,
    /// What is wrong with the gateway itself and its way to the centre, with what to do; empty when nothing is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

/// Something that is wrong, with what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// A stable name for programs, as in "broker_refuses" or "disk_full".
    pub code: String,
    /// What is wrong, for people.
    pub text: Text,
    /// What to do, for people.
    pub remedy: Text,
    /// Since when.
    pub since: Timestamp,
}

/// Is somebody there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// Yes.
    Online,
    /// No.
    Offline,
    /// Back soon.
    Updating,
}

/// Body of `alarm/<alarm_id>`: the alarm as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AlarmSnapshot {
    /// Sequence of the last event of this alarm.
    pub sequence: u64,
    /// The alarm.
    pub alarm: AlarmData,
}

/// Body of `device/<device_id>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceState {
    /// The device.
    pub device: Slug,
    /// "node", "door", "smoke", "camera" and the like.
    pub class: String,
    /// Last known state, as in "open", "closed", "alarm", "streaming".
    pub state: String,
    /// When it was last heard; absent when never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_heard_at: Option<Timestamp>,
    /// Battery, millivolts, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub battery_mv: Option<u32>,
    /// Open troubles of this device.
    #[serde(default)]
    pub troubles: Vec<AlarmKind>,
    /// How long it may be silent before it is lost: "S1" 300 s, "S2" 2 h, "S3" 25 h; absent when its silence is not watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supervision: Option<String>,
    /// For a door with a care rule: the share of the last week in which an opening would have been noticed, 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coverage_percent: Option<u8>,
    /// Set while a technician has taken it out of service, or tests it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub side: Option<Side>,
}

/// Body of `statement`: what a centre needs to prove that it has everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Statement {
    /// Events 1 to this number exist.
    pub sequence: u64,
    /// Hash of that event, hex.
    pub head: String,
    /// Items not yet received by the centre, per lane.
    pub pending: BTreeMap<Lane, u64>,
    /// When the oldest of them was journaled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_pending_at: Option<Timestamp>,
    /// Items dropped for want of room since the beginning, per lane.
    pub dropped: BTreeMap<Lane, u64>,
    /// Items that could never be sent (a picture whose file is gone) and were given up since the beginning, per lane.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub abandoned: BTreeMap<Lane, u64>,
    /// When this was said.
    pub at: Timestamp,
    /// Which run of the gateway said it: its boot counter. Together with `number` this orders statements however the clock is set; a broker may hold back an old one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<u64>,
    /// Its number among the statements of that run, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
}

/// Body of `dispatch/status`: the centre's presence, and its will.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DispatchStatus {
    /// Is the centre there.
    pub state: Presence,
    /// When this was said.
    pub at: Timestamp,
}
