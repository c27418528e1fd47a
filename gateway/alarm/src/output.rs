//! What the rules made of it.
//!
//! Owns the closed list of what an engine asks of the gateway: journal an alarm's transition, take a picture, delete pictures, warn. It
//! never acts itself.

use gengfu_contract::event::{AlarmData, ClockQuality, EventType};
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
    /// The pictures taken so far for an alarm that will not be raised: delete them.
    DiscardStills(DiscardStills),
    /// A vehicle stands longer than the zone's warning time and not yet as long as its limit. Not an alarm: for a loudspeaker on
    /// site, and for the record.
    Warning(Warning),
}

/// Pictures that are nobody's evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscardStills {
    /// The camera that took them.
    pub camera: Slug,
    /// The id they were taken under ([`NeedStill::alarm_id`]); no alarm has it, and none will.
    pub alarm_id: String,
}

/// A vehicle was warned by the clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Which camera sees it.
    pub camera: Slug,
    /// In which zone it stands.
    pub zone: Slug,
    /// Which track it is.
    pub track: u64,
    /// How long it has stood.
    pub standing_ms: i64,
    /// When the picture was taken that showed it.
    pub sensed_at: Timestamp,
    /// Whether that time can be trusted.
    pub clock: ClockQuality,
}

/// What a picture is to show. The word is the `reason` of the camera worker's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StillRole {
    /// The thing at its place, soon after it came: a candidate, deleted when no alarm follows.
    Arrival,
    /// The thing at its place, past the limit.
    PastLimit,
    /// The whole scene, nothing marked.
    Overview,
    /// The place after the thing is gone.
    Cleared,
}

impl StillRole {
    /// The word for a camera worker.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            StillRole::Arrival => "arrival",
            StillRole::PastLimit => "past_limit",
            StillRole::Overview => "overview",
            StillRole::Cleared => "cleared",
        }
    }

    /// Number of the picture within its alarm. After-pictures follow each other from here on.
    #[must_use]
    pub fn n(self) -> u32 {
        match self {
            StillRole::Arrival => 1,
            StillRole::PastLimit => 2,
            StillRole::Overview => 3,
            StillRole::Cleared => 4,
        }
    }

    /// What it shows, for people.
    #[must_use]
    pub fn caption(self) -> &'static str {
        match self {
            StillRole::Arrival => "到达 arrival",
            StillRole::PastLimit => "超过限时 past the limit",
            StillRole::Overview => "全景 overview",
            StillRole::Cleared => "清除后 after clearing",
        }
    }
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

/// A picture of something that is, or may become, an alarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeedStill {
    /// The alarm that carries it, or will.
    pub alarm_id: String,
    /// Number of the picture within the alarm, from 1; unique, with gaps where a picture failed.
    pub n: u32,
    /// What it is to show.
    pub role: StillRole,
    /// Which camera.
    pub camera: Slug,
    /// Which track to mark; 0, which no track has: none.
    pub track: u64,
    /// What it shows, for people.
    pub caption: String,
    /// After this nobody waits for it: the alarm goes without it, and takes it in should it come later.
    pub deadline: Timestamp,
}
