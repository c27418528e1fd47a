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
use crate::hours::Hours;
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

/// One zone of a camera's picture: what must not be there, for how long, and when.
#[derive(Debug, Clone, PartialEq)]
pub struct ZoneRule {
    /// What it forbids.
    pub kind: ZoneKind,
    /// How long a vehicle may stand, or litter lie. Litter counts only time in which it could be seen and nobody was near.
    pub limit: Duration,
    /// How long a bin may overflow, in zones that watch both ([`ZoneKind::Waste`]). Default 10 min.
    pub overflow_limit: Duration,
    /// A vehicle that stands this long is warned of ([`crate::output::Warning`]); `None`: no warning.
    pub warn_after: Option<Duration>,
    /// When it holds. Default: always.
    pub hours: Hours,
    /// What it is about; what [`ZoneKind::admits`] not is ignored, even when listed.
    pub classes: Vec<TrackKind>,
    /// Where it is, when that is not where the camera is.
    pub location: Option<Location>,
    /// What people call it, as in "east gate"; the zone's name when absent.
    pub text: Option<String>,
    /// What is not seen at its place for this long, in pictures that would have shown it, is gone.
    pub clear_after: Duration,
}

impl ZoneRule {
    /// A rule for everything the kind admits, always, with the defaults: a vehicle has left after 15 s (10 s of occlusion with a
    /// margin for the key-frame interval), litter is gone after 2 min.
    #[must_use]
    pub fn new(kind: ZoneKind, limit: Duration) -> Self {
        use TrackKind::{Bicycle, Bus, Car, Garbage, Motorcycle, Overflow, Truck};
        let classes = match kind {
            ZoneKind::IllegalParking | ZoneKind::FireLaneBlocked => vec![Car, Truck, Bus, Motorcycle],
            ZoneKind::CycleParking => vec![Bicycle, Motorcycle],
            ZoneKind::Litter | ZoneKind::AccumulatedWaste => vec![Garbage],
            ZoneKind::BinOverflow => vec![Overflow],
            ZoneKind::Waste => vec![Garbage, Overflow],
        };
        Self {
            kind,
            limit,
            overflow_limit: Duration::from_secs(600),
            warn_after: None,
            hours: Hours::always(),
            classes,
            location: None,
            text: None,
            clear_after: Duration::from_secs(if kind.is_waste() { 120 } else { 15 }),
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
    /// 非机动车乱停放.
    CycleParking,
    /// 暴露垃圾.
    Litter,
    /// 积存垃圾渣土: what was left for hours.
    AccumulatedWaste,
    /// 垃圾站（箱）满溢.
    BinOverflow,
    /// 暴露垃圾 and 垃圾站（箱）满溢 at one place: bags beside an overflowing bin are one case, and it is the bin's.
    Waste,
}

impl ZoneKind {
    /// The alarm it makes; of [`ZoneKind::Waste`] the one for litter.
    #[must_use]
    pub fn alarm(self) -> AlarmKind {
        match self {
            ZoneKind::IllegalParking => AlarmKind::IllegalParking,
            ZoneKind::FireLaneBlocked => AlarmKind::FireLaneBlocked,
            ZoneKind::CycleParking => AlarmKind::CycleParking,
            ZoneKind::Litter | ZoneKind::Waste => AlarmKind::Litter,
            ZoneKind::AccumulatedWaste => AlarmKind::AccumulatedWaste,
            ZoneKind::BinOverflow => AlarmKind::BinOverflow,
        }
    }

    /// True when it can make this alarm.
    #[must_use]
    pub fn makes(self, alarm: AlarmKind) -> bool {
        self.alarm() == alarm || (self == ZoneKind::Waste && alarm == AlarmKind::BinOverflow)
    }

    /// True when it is about litter and bins, not about vehicles.
    #[must_use]
    pub fn is_waste(self) -> bool {
        use ZoneKind::{AccumulatedWaste, BinOverflow, Litter, Waste};
        matches!(self, Litter | AccumulatedWaste | BinOverflow | Waste)
    }

    /// True when a thing of this kind can be what it forbids. A bicycle can block a fire lane; it cannot park like a car.
    #[must_use]
    pub fn admits(self, thing: TrackKind) -> bool {
        match self {
            ZoneKind::IllegalParking => thing.is_motor_vehicle(),
            ZoneKind::FireLaneBlocked => thing.is_motor_vehicle() || thing.is_cycle(),
            ZoneKind::CycleParking => thing.is_cycle(),
            ZoneKind::Litter | ZoneKind::AccumulatedWaste => thing == TrackKind::Garbage,
            ZoneKind::BinOverflow => thing == TrackKind::Overflow,
            ZoneKind::Waste => thing.is_waste(),
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
    /// What stands or lies this long (or for half its limit, when that is sooner) is worth its first picture. Default 10 s: a stop
    /// at a light is not.
    pub arrival_after: Duration,
    /// A battery's trouble clears only this far above the lowest voltage seen while low, in millivolts. Default 100: a
    /// resting cell recovers by itself, a new one is well above.
    pub battery_recovery_mv: u32,
    /// When a door's opening is told late and its limit has passed already, wait this long for the closing that may
    /// follow in the same backlog. Default 3 s.
    pub backlog_settle: Duration,
    /// Of the time between two pictures, at most this much counts as watched. Default 4 s.
    pub picture_gap_max: Duration,
    /// A vehicle that is seen to have driven out of the zone has left after this. Default 1.5 s, against swapped tracks.
    pub left_after: Duration,
    /// A vehicle of a cleared alarm that stands at its place again within this is the same case. Default 30 s.
    pub return_window: Duration,
    /// A vehicle not yet over its limit is still the same one when its camera was blind at most this long. Default 60 s.
    pub continue_window: Duration,
    /// Of the time between two pictures, at most this much counts as watched for litter, which moves no faster than people
    /// carry it. Default 15 s.
    pub waste_gap_max: Duration,
    /// Litter of a cleared alarm that lies at its place again within this is the same case. Default 10 min.
    pub waste_return_window: Duration,
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
            arrival_after: Duration::from_secs(10),
            battery_recovery_mv: 100,
            backlog_settle: Duration::from_secs(3),
            picture_gap_max: Duration::from_secs(4),
            left_after: Duration::from_millis(1500),
            return_window: Duration::from_secs(30),
            continue_window: Duration::from_secs(60),
            waste_gap_max: Duration::from_secs(15),
            waste_return_window: Duration::from_secs(600),
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
