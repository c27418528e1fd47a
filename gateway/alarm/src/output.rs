//! What the rules made of it.
//!
//! Owns the closed list of what an engine asks of the gateway: journal an alarm's transition, take a picture. It
//! never acts itself.

use gengfu_contract::event::{AlarmData, EventType};
use gengfu_contract::slug::Slug;
use gengfu_contract::words::Lane;
use jiff::Timestamp;

/// What the engine asks for.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly every output is an alarm, and outputs are few")]
pub enum Output {
    /// Journal and forward this transition of an alarm.
    Alarm(Transition),
    /// Take a picture; answer with [`crate::observation::What::Still`] before the deadline, or the alarm goes without it.
    NeedStill(NeedStill),
}

/// A transition of one alarm.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    /// One of the `gengfu.alarm.*` types.
    pub event_type: EventType,
    /// Road it travels.
    pub lane: Lane,
    /// When what led to it was sensed: the CloudEvents `time`.
    pub sensed_at: Timestamp,
    /// The whole alarm after it.
    pub alarm: AlarmData,
}

/// A picture an alarm wants before it is raised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeedStill {
    /// The alarm that will carry it.
    pub alarm_id: String,
    /// Number of the picture within the alarm, from 1.
    pub n: u32,
    /// Which camera.
    pub camera: Slug,
    /// Which track to mark.
    pub track: u64,
    /// What it shows, for people.
    pub caption: String,
    /// After this the alarm is raised without it.
    pub deadline: Timestamp,
}
