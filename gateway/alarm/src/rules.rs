//! What is configured: devices, zones, limits.
//!
//! Owns the rules' parameters and their defaults. Refuses files and key paths: the gateway's configuration parses,
//! checks and hands these over.

use std::collections::BTreeMap;
use std::time::Duration;

use gengfu_contract::event::Location;
use gengfu_contract::slug::Slug;
use gengfu_contract::words::AlarmKind;
use serde::{Deserialize, Serialize};

use crate::codes::CodeTable;
use crate::escalate::Escalation;
use crate::observation::TrackKind;
use crate::policy::{Care, Supervision, SupervisionClass};

/// Everything the engine is told at its start.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// This gateway; goes into alarm ids.
    pub gateway: Slug,
    /// Every node, channel and camera.
    pub devices: BTreeMap<Slug, DeviceRule>,
    /// Zones by (camera, zone).
    pub zones: BTreeMap<(Slug, Slug), ZoneRule>,
    /// Event codes.
    pub codes: CodeTable,
    /// Timers that are the same for all devices, and how long a silence may last.
    pub timing: Timing,
}

/// One device.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DeviceRule {
    /// What it is.
    pub class: DeviceClass,
    /// What carries it: a node, or a bus (a line, a broker). When that is lost, this device is explained by its one
    /// trouble. What is wired to a node is heard when the node is; what hangs on a bus must be heard itself.
    pub parent: Option<Slug>,
    /// How long it may be silent, when that is not what its class says: as its profile names it. On a bus: how long all
    /// that hangs on it may be silent together; `None`: the bus is out only when its adapter says so.
    pub supervision: Option<SupervisionClass>,
    /// Where it is.
    pub location: Option<Location>,
    /// Opaque reference to a person or home on the centre's register.
    pub subject_ref: Option<String>,
    /// Smoke heads with the same dwelling confirm each other.
    pub dwelling: Option<String>,
    /// A door that stands open this long is an alarm; `None`: it may stand open.
    pub left_open_after: Option<Duration>,
}

/// What a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceClass {
    /// Carries channels, has a battery and a case of its own.
    #[default]
    Node,
    /// Door magnet.
    Door,
    /// Smoke alarm's head.
    Smoke,
    /// Emergency button.
    Sos,
    /// Camera.
    Camera,
    /// A line or a broker that carries devices which speak for themselves: an RS-485 line, a Zigbee or LoRaWAN broker. It is
    /// heard when any of them is.
    Bus,
}

impl DeviceClass {
    /// The word on the wire (`DeviceState::class`).
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            DeviceClass::Node => "node",
            DeviceClass::Door => "door",
            DeviceClass::Smoke => "smoke",
            DeviceClass::Sos => "sos",
            DeviceClass::Camera => "camera",
            DeviceClass::Bus => "bus",
        }
    }
}

/// One zone of a camera's picture in which vehicles must not stand.
#[derive(Debug, Clone, PartialEq)]
pub struct ZoneRule {
    /// Which alarm it makes.
    pub kind: ZoneKind,
    /// How long a vehicle may stand.
    pub limit: Duration,
    /// Which vehicles it is about. People and bicycles never make this alarm, even when listed.
    pub classes: Vec<TrackKind>,
    /// Where it is, when that is not where the camera is.
    pub location: Option<Location>,
    /// What people call it, as in "east gate"; the zone's name when absent.
    pub text: Option<String>,
    /// A vehicle not seen at its place for this long, in pictures that would have shown it, has left.
    pub clear_after: Duration,
}

impl ZoneRule {
    /// A rule for all motor vehicles with the defaults: clear after 15 s (10 s of occlusion with a margin for the
    /// key-frame interval).
    #[must_use]
    pub fn new(kind: ZoneKind, limit: Duration) -> Self {
        use TrackKind::{Bus, Car, Motorcycle, Truck};
        Self {
            kind,
            limit,
            classes: vec![Car, Truck, Bus, Motorcycle],
            location: None,
            text: None,
            clear_after: Duration::from_secs(15),
        }
    }
}

/// What a zone forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ZoneKind {
    /// 机动车乱停放.
    IllegalParking,
    /// 占用消防通道.
    FireLaneBlocked,
}

impl ZoneKind {
    /// The alarm it makes.
    #[must_use]
    pub fn alarm(self) -> AlarmKind {
        match self {
            ZoneKind::IllegalParking => AlarmKind::IllegalParking,
            ZoneKind::FireLaneBlocked => AlarmKind::FireLaneBlocked,
        }
    }
}

/// Timers that are the same for all devices, and the policies for silence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// A camera without usable pictures this long is a trouble. Default 10 s: a worker's restart is not worth a visit.
    pub camera_fault_hold: Duration,
    /// A link down this long is a trouble. Default 0: the link's own time-outs have waited already.
    pub link_down_hold: Duration,
    /// A device on a bus that cannot be reached waits this long before it is told: perhaps it is the bus that is out, and
    /// then that is the one trouble. Default 10 s.
    pub bus_settle: Duration,
    /// A smoke head's test ends at the latest after this. Default 30 min, and never more.
    pub smoke_test_max: Duration,
    /// How long a scene alarm waits for its picture. Default 2 s.
    pub still_wait: Duration,
    /// A battery's trouble clears only this far above the lowest voltage seen while low, in millivolts. Default 100: a
    /// resting cell recovers by itself, a new one is well above.
    pub battery_recovery_mv: u32,
    /// When a door's opening is told late and its limit has passed already, wait this long for the closing that may
    /// follow in the same backlog. Default 3 s.
    pub backlog_settle: Duration,
    /// Of the time between two pictures, at most this much counts as watched. Default 4 s.
    pub picture_gap_max: Duration,
    /// A vehicle that is seen to have driven out of the zone has left after this. Default 2 s, against swapped tracks.
    pub left_after: Duration,
    /// A vehicle of a cleared alarm that stands at its place again within this is the same case. Default 30 s.
    pub return_window: Duration,
    /// A vehicle not yet over its limit is still the same one when its camera was blind at most this long. Default 60 s.
    pub continue_window: Duration,
    /// How long a sensor may be silent. On by default.
    pub supervision: Supervision,
    /// The homes with care rules, and the local time they live by. Default: none.
    pub care: Care,
    /// How long a human may take to acknowledge before the same alarm is sent again.
    pub escalation: Escalation,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            camera_fault_hold: Duration::from_secs(10),
            link_down_hold: Duration::ZERO,
            bus_settle: Duration::from_secs(10),
            smoke_test_max: Duration::from_secs(30 * 60),
            still_wait: Duration::from_secs(2),
            battery_recovery_mv: 100,
            backlog_settle: Duration::from_secs(3),
            picture_gap_max: Duration::from_secs(4),
            left_after: Duration::from_secs(2),
            return_window: Duration::from_secs(30),
            continue_window: Duration::from_secs(60),
            supervision: Supervision::default(),
            care: Care::default(),
            escalation: Escalation::default(),
        }
    }
}

impl Rules {
    /// The rule of a device. One that is not configured is judged all the same, without a place: an alarm too many
    /// beats one that is lost.
    #[must_use]
    pub fn device(&self, device: &Slug) -> &DeviceRule {
        static UNKNOWN: DeviceRule = DeviceRule {
            class: DeviceClass::Node,
            parent: None,
            supervision: None,
            location: None,
            subject_ref: None,
            dwelling: None,
            left_open_after: None,
        };
        self.devices.get(device).unwrap_or(&UNKNOWN)
    }

    /// Everything that carries `device`, the nearest first.
    pub fn carriers_of<'a>(&'a self, device: &'a Slug) -> impl Iterator<Item = &'a Slug> {
        // At most as many steps as devices: a ring in the configuration ends the walk, it does not hang it.
        let parent = |at: &&'a Slug| self.device(at).parent.as_ref();
        std::iter::successors(Some(device), parent).skip(1).take(self.devices.len())
    }

    /// The rule of a zone.
    #[must_use]
    pub fn zone(&self, camera: &Slug, zone: &Slug) -> Option<&ZoneRule> {
        self.zones.get(&(camera.clone(), zone.clone()))
    }

    /// Every device carried by `node`, directly or through another.
    #[must_use]
    pub fn carried_by(&self, node: &Slug) -> Vec<&Slug> {
        let carried = |device: &Slug| self.carriers_of(device).any(|carrier| carrier == node);
        self.devices.keys().filter(|device| *device != node && carried(device)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_carries_its_channels_and_a_ring_of_parents_ends() {
        let slug = |name: &str| Slug::new(name).unwrap();
        let child = |parent: &str| DeviceRule { parent: Some(slug(parent)), ..DeviceRule::default() };
        let rules = Rules {
            gateway: slug("gw"),
            devices: [
                (slug("node"), DeviceRule::default()),
                (slug("hub"), child("node")),
                (slug("door"), child("hub")),
                (slug("a"), child("b")),
                (slug("b"), child("a")),
            ]
            .into(),
            zones: BTreeMap::new(),
            codes: CodeTable::default(),
            timing: Timing::default(),
        };
        assert_eq!(rules.carried_by(&slug("node")), [&slug("door"), &slug("hub")]);
        assert_eq!(rules.carried_by(&slug("door")), Vec::<&Slug>::new());
    }
}
