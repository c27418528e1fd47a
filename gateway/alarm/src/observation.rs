//! What was seen: the only thing that rules judge.
//!
//! Owns the closed list of observations from nodes, buses and cameras, already in the gateway's time and names. Refuses raw
//! frames, bytes and pictures: the link and the cameras turn those into observations.

use gengfu_contract::event::{ClockQuality, EvidenceRef, Origin};
use gengfu_contract::slug::Slug;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One thing seen by one device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// The device, as configured: a node's channel, a node, or a camera.
    pub device: Slug,
    /// When it happened, in the gateway's time.
    pub sensed_at: Timestamp,
    /// Whether that time can be trusted.
    pub clock: ClockQuality,
    /// The node's event behind it; `None` for cameras and for what the gateway itself saw.
    pub origin: Option<Origin>,
    /// What was seen.
    pub what: What,
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A door contact. `repaired`: read from a heartbeat's level because the edge was lost.
    Door {
        /// True when the door is open.
        open: bool,
        /// True when the edge was lost and the level told it.
        repaired: bool,
    },
    /// A smoke alarm's head.
    Smoke(Smoke),
    /// The emergency button.
    SosPressed,
    /// The case: true when opened.
    Tamper(bool),
    /// Battery measured under load.
    Battery {
        /// Millivolts.
        millivolts: u32,
        /// The node's own judgement against its datasheet limit.
        low: bool,
    },
    /// A node says it is alive and reports its levels.
    Heartbeat,
    /// A node says it lost events that it had accepted.
    EventsLost {
        /// First number lost.
        first: u32,
        /// How many.
        count: u32,
    },
    /// A node's own fault, by its channel.
    DeviceFault(bool),
    /// A smoke head says that its chamber is dirty, or was cleaned.
    Contaminated(bool),
    /// A device says that its service life is over, or was replaced.
    EndOfLife(bool),
    /// The gateway's view of the way to the device (serial port, bus).
    Link(Link),
    /// One analysed picture of a camera.
    Scene(Scene),
    /// State of a camera's stream.
    Camera(Camera),
    /// A picture that a rule asked for ([`crate::output::NeedStill`]) is on disk.
    Still {
        /// The alarm it was asked for.
        alarm_id: String,
        /// The picture, or why there is none.
        result: Result<EvidenceRef, String>,
    },
}

/// A smoke alarm's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Smoke {
    /// Smoke.
    Alarm,
    /// No smoke any more.
    Clear,
    /// Its test button.
    Test,
    /// Silenced by hand; still an alarm.
    Hushed,
}

/// The way to a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    /// Frames arrive.
    Up,
    /// It cannot be reached; the text says what was tried and what to do.
    Down(String),
}

/// State of a camera's stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Camera {
    /// Pictures arrive and show something.
    Streaming,
    /// No usable picture; the text says why and what to do.
    Fault {
        /// As in "no_frames", "frozen", "dark", "unreadable", "worker".
        reason: String,
        /// For people.
        detail: String,
    },
}

/// One analysed picture. Sent for every one of them, also when nothing is tracked: absence is judged on pictures
/// only. All times of
/// a scene, and the observation's `sensed_at` (when the picture was taken), are of one clock.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Scene {
    /// Everything tracked now, standing or moving, also what is hidden for a moment.
    pub tracks: Vec<Track>,
    /// The view is disturbed for a moment (headlights, a shaken camera, a downpour): what the picture shows is there, but what
    /// it does not show may be there as well, so it proves no absence.
    #[serde(default)]
    pub is_unclear: bool,
}

/// One thing followed over time by a camera.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Track {
    /// Unique within the camera's worker run; a standing thing keeps it through occlusion.
    pub id: u64,
    /// What it is.
    pub kind: TrackKind,
    /// 0 to 1.
    pub score: f32,
    /// x, y of the top left corner, width, height; all 0 to 1 of the picture.
    pub bbox: [f32; 4],
    /// Zones that contain the middle of its lower edge.
    pub zones: Vec<Slug>,
    /// First seen.
    pub first_seen_at: Timestamp,
    /// Standing still since; `None` while it moves.
    pub stationary_since: Option<Timestamp>,
    /// Last truly detected: exactly the observation's `sensed_at` in a picture that shows it, earlier while it is hidden.
    pub last_seen_at: Timestamp,
}

/// What a track is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrackKind {
    /// Car.
    Car,
    /// Truck.
    Truck,
    /// Bus.
    Bus,
    /// Motorcycle.
    Motorcycle,
    /// Bicycle.
    Bicycle,
    /// Person.
    Person,
    /// Litter on the ground: bags, piles.
    Garbage,
    /// A bin that is as it should be.
    GarbageBin,
    /// A bin that overflows.
    Overflow,
}

impl TrackKind {
    /// Motor vehicles in the sense of 机动车乱停放.
    #[must_use]
    pub fn is_motor_vehicle(self) -> bool {
        matches!(self, TrackKind::Car | TrackKind::Truck | TrackKind::Bus | TrackKind::Motorcycle)
    }

    /// What 非机动车乱停放 is about. A detector cannot tell an e-bike, which is a non-motor vehicle in China, from a motorcycle.
    #[must_use]
    pub fn is_cycle(self) -> bool {
        matches!(self, TrackKind::Bicycle | TrackKind::Motorcycle)
    }

    /// True when a detector may take one for the other: a van for a car, an e-bike for a bicycle, never a bicycle for a car.
    #[must_use]
    pub fn may_be(self, other: TrackKind) -> bool {
        self == other
            || (self.is_motor_vehicle() && other.is_motor_vehicle())
            || (self.is_cycle() && other.is_cycle())
            || (self.is_waste() && other.is_waste())
    }

    /// Litter, or a bin that overflows.
    #[must_use]
    pub fn is_waste(self) -> bool {
        matches!(self, TrackKind::Garbage | TrackKind::Overflow)
    }
}
