//! What one device has said, and what of it the decider was told.
//!
//! Owns the levels of a device, put together from all values that speak of them, and the difference to what was told. Refuses edges: a level
//! that was told is not told again, so copies, repeated polls and retained messages are harmless.

use std::collections::{BTreeMap, BTreeSet};

use gengfu_alarm::observation::{Link, Smoke, What};
use serde::{Deserialize, Serialize};

use super::words::{Facet, Fact, Reading};
use crate::config::DeviceClass;

/// A battery's voltage is told again when it differs by this much, millivolts.
const BATTERY_STEP_MV: u32 = 50;

/// What the decider was told of a device; survives restarts in the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Told {
    /// True: open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub door: Option<bool>,
    /// The head's state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smoke: Option<Smoke>,
    /// True: held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sos: Option<bool>,
    /// True: open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tamper: Option<bool>,
    /// True: faulty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<bool>,
    /// True: the chamber is dirty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contaminated: Option<bool>,
    /// True: the service life is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_of_life: Option<bool>,
    /// Millivolts, and whether it is low.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub battery: Option<(u32, bool)>,
    /// False: a last will or a bridge says that the device is away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub online: Option<bool>,
    /// Fingerprint of the retained press that was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub press: Option<String>,
}

/// How readings came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct How<'a> {
    /// The first since a start or a connect, or retained: the edge itself was not seen.
    pub repaired: bool,
    /// Retained, and older than what is known: only what says "fire" or "help" still counts.
    pub old: bool,
    /// Fingerprint of a retained message; a press in it counts once.
    pub retained: Option<&'a str>,
}

/// Live, in order, the edge itself.
pub const LIVE: How<'static> = How { repaired: false, old: false, retained: None };

/// The levels of one device.
#[derive(Debug, Clone)]
pub struct Levels {
    class: Option<DeviceClass>,
    battery_mv_at: Option<[u32; 2]>,
    levels: BTreeMap<(Facet, u16), bool>,
    /// Values that must all have spoken before "no smoke" is believed.
    smoke_sources: BTreeSet<u16>,
    unknown: BTreeMap<u16, String>,
    millivolts: Option<u32>,
    percent: Option<u8>,
    told: Told,
}

impl Levels {
    /// A device of which `told` was told before this start. `class` is `None` for a unit itself.
    #[must_use]
    pub fn new(class: Option<DeviceClass>, battery_mv_at: Option<[u32; 2]>, told: Told) -> Self {
        Self {
            class,
            battery_mv_at,
            levels: BTreeMap::new(),
            smoke_sources: BTreeSet::new(),
            unknown: BTreeMap::new(),
            millivolts: None,
            percent: None,
            told,
        }
    }

    /// Where several values speak of smoke and all are read in turn: after a start the first one that is clear says nothing yet.
    pub fn wait_for_smoke(&mut self, sources: BTreeSet<u16>) {
        self.smoke_sources = sources;
    }

    /// What was told.
    #[must_use]
    pub fn told(&self) -> &Told {
        &self.told
    }

    /// What could not be understood, with its place.
    #[must_use]
    pub fn unknown(&self) -> Option<&str> {
        self.unknown.values().next().map(String::as_str)
    }

    /// Door and head are told again at the next reading: after a reconnect nobody knows what happened meanwhile.
    pub fn forget_told_levels(&mut self) {
        (self.told.door, self.told.smoke) = (None, None);
    }

    /// Takes readings, and returns what the decider has not been told yet.
    pub fn apply(&mut self, readings: &[Reading], how: How) -> Vec<What> {
        let mut pressed = false;
        let mut spoken = BTreeSet::new();
        for Reading { source, fact } in readings {
            let grave = matches!(fact, Fact::Level(Facet::Smoke | Facet::Sos, true) | Fact::Press);
            if how.old && !grave {
                continue;
            }
            if !matches!(fact, Fact::Unknown { .. }) && spoken.insert(*source) {
                self.unknown.remove(source);
            }
            match fact {
                Fact::Level(facet, on) => {
                    // Of a door, and of being here, the last word counts; of all else, the gravest.
                    if matches!(facet, Facet::Door | Facet::Online) {
                        self.levels.retain(|(other, _), _| other != facet);
                    }
                    self.levels.insert((*facet, *source), *on);
                }
                Fact::Press => pressed = true,
                Fact::BatteryMv(millivolts) => self.millivolts = Some(*millivolts),
                Fact::BatteryPercent(percent) => self.percent = Some(*percent),
                Fact::Unknown { place, value } => drop(self.unknown.insert(*source, format!("{place}: {value}"))),
                // The poller has turned contacts into levels by now; one that is left has no class to mean anything for.
                Fact::Contact(_) | Fact::Known => {}
            }
        }
        self.difference(pressed, how)
    }

    /// The device is away, or here again, by what stands between us.
    pub fn set_online(&mut self, online: bool) -> bool {
        self.levels.iter_mut().filter(|((facet, _), _)| *facet == Facet::Online).for_each(|(_, on)| *on = online);
        self.told.online.replace(online) != Some(online)
    }

    fn any(&self, facet: Facet) -> Option<bool> {
        self.levels.range((facet, 0)..=(facet, u16::MAX)).map(|(_, on)| *on).reduce(|a, b| a || b)
    }

    fn difference(&mut self, pressed: bool, how: How) -> Vec<What> {
        let mut news = Vec::new();
        // First whether it is there at all: what follows is told of a device that is.
        if let Some(online) = self.any(Facet::Online).filter(|on| self.told.online != Some(*on)) {
            let was_away = self.told.online.replace(online) == Some(false);
            let away = "设备离线（遗嘱或网桥报告）；检查设备的供电和无线信号 / the device is offline by its last will or its \
                        bridge; check its power and its radio";
            // The first "online" is no news, and no sign of life: a bridge says it of sensors that died weeks ago.
            match online {
                true => news.extend(was_away.then_some(What::Link(Link::Up))),
                false => news.push(What::Link(Link::Down(away.into()))),
            }
        }
        if let Some(open) = self.any(Facet::Door).filter(|open| self.told.door != Some(*open)) {
            let repaired = how.repaired || self.told.door.is_none();
            self.told.door = Some(open);
            news.push(What::Door { open, repaired });
        }
        if let Some(smoke) = self.smoke().filter(|smoke| self.told.smoke != Some(*smoke)) {
            self.told.smoke = Some(smoke);
            news.push(What::Smoke(smoke));
        }
        if let Some(held) = self.any(Facet::Sos) {
            let is_new = self.told.sos.replace(held) != Some(true);
            news.extend((held && is_new).then_some(What::SosPressed));
        }
        if pressed {
            let is_new = how.retained.is_none_or(|print| self.told.press.as_deref() != Some(print));
            self.told.press = how.retained.map(str::to_owned).or(self.told.press.take());
            news.extend(is_new.then_some(What::SosPressed));
        }
        if let Some(open) = self.any(Facet::Tamper).filter(|open| self.told.tamper != Some(*open)) {
            self.told.tamper = Some(open);
            news.push(What::Tamper(open));
        }
        let faulty = match (self.any(Facet::Fault), self.unknown.is_empty()) {
            (_, false) => Some(true),
            (None, true) => self.told.fault.map(|_| false),
            (level, true) => level,
        };
        if let Some(faulty) = faulty.filter(|faulty| self.told.fault != Some(*faulty)) {
            self.told.fault = Some(faulty);
            news.push(What::DeviceFault(faulty));
        }
        if let Some(dirty) = self.any(Facet::Contaminated).filter(|dirty| self.told.contaminated != Some(*dirty)) {
            let is_news = dirty || self.told.contaminated.is_some();
            self.told.contaminated = Some(dirty);
            news.extend(is_news.then_some(What::Contaminated(dirty)));
        }
        if let Some(over) = self.any(Facet::EndOfLife).filter(|over| self.told.end_of_life != Some(*over)) {
            let is_news = over || self.told.end_of_life.is_some();
            self.told.end_of_life = Some(over);
            news.extend(is_news.then_some(What::EndOfLife(over)));
        }
        news.extend(self.battery());
        news
    }

    /// Smoke goes before a test, and a hush needs smoke: a head that is silenced and senses smoke is in alarm (GB 20517).
    fn smoke(&self) -> Option<Smoke> {
        let (smoke, test) = (self.any(Facet::Smoke), self.any(Facet::Test));
        match (smoke, test) {
            (Some(true), _) if self.any(Facet::Hush) == Some(true) => Some(Smoke::Hushed),
            (Some(true), _) => Some(Smoke::Alarm),
            (_, Some(true)) => Some(Smoke::Test),
            (None, None) => None,
            // A test button alone does not know whether there is smoke, but that the test is over.
            (Some(false), _) | (None, Some(false)) => {
                let spoke = |source: &u16| self.levels.contains_key(&(Facet::Smoke, *source));
                self.smoke_sources.iter().all(spoke).then_some(Smoke::Clear)
            }
        }
        .filter(|_| self.class == Some(DeviceClass::Smoke))
    }

    fn battery(&mut self) -> Option<What> {
        let low = self.any(Facet::BatteryLow);
        let millivolts = match (self.millivolts, self.percent, low, self.battery_mv_at) {
            (Some(millivolts), ..) => millivolts,
            (None, Some(percent), _, Some([empty, full])) => empty + (full - empty) * u32::from(percent) / 100,
            (None, None, Some(low), Some([empty, full])) => {
                if low {
                    empty
                } else {
                    full
                }
            }
            _ => return None,
        };
        let low = low.unwrap_or(false);
        let is_news = self
            .told
            .battery
            .is_none_or(|(told, told_low)| told_low != low || told.abs_diff(millivolts) >= BATTERY_STEP_MV);
        if is_news {
            self.told.battery = Some((millivolts, low));
        }
        is_news.then_some(What::Battery { millivolts, low })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(class: DeviceClass) -> Levels {
        Levels::new(Some(class), Some([2700, 3000]), Told::default())
    }

    fn level(source: u16, facet: Facet, on: bool) -> Reading {
        Reading { source, fact: Fact::Level(facet, on) }
    }

    #[test]
    fn a_level_is_told_once_and_the_first_one_is_marked_as_repaired() {
        let mut door = levels(DeviceClass::Door);
        let open = [level(0, Facet::Door, true)];
        assert_eq!(door.apply(&open, LIVE), [What::Door { open: true, repaired: true }]);
        assert_eq!(door.apply(&open, LIVE), []);
        assert_eq!(door.apply(&[level(0, Facet::Door, false)], LIVE), [What::Door { open: false, repaired: false }]);
        door.forget_told_levels();
        assert_eq!(door.apply(&open, LIVE), [What::Door { open: true, repaired: true }]);
        let other = [level(1, Facet::Door, false)];
        assert_eq!(door.apply(&other, LIVE), [What::Door { open: false, repaired: false }], "the last word counts");
    }

    #[test]
    fn a_silenced_head_that_senses_smoke_is_hushed_and_never_clear() {
        let mut head = levels(DeviceClass::Smoke);
        let (smoke, test, hush) = (Facet::Smoke, Facet::Test, Facet::Hush);
        assert_eq!(head.apply(&[level(1, test, true)], LIVE), [What::Smoke(Smoke::Test)]);
        assert_eq!(head.apply(&[level(0, smoke, true)], LIVE), [What::Smoke(Smoke::Alarm)]);
        assert_eq!(head.apply(&[level(2, hush, true)], LIVE), [What::Smoke(Smoke::Hushed)]);
        assert_eq!(head.apply(&[level(3, smoke, false)], LIVE), [], "another value still senses smoke");
        assert_eq!(head.apply(&[level(0, smoke, false), level(1, test, false)], LIVE), [What::Smoke(Smoke::Clear)]);
    }

    #[test]
    fn a_value_nobody_knows_is_a_fault_until_it_is_known_again() {
        let mut door = levels(DeviceClass::Door);
        let unknown = Reading { source: 0, fact: Fact::Unknown { place: "/c".into(), value: "ajar".into() } };
        assert_eq!(door.apply(&[unknown], LIVE), [What::DeviceFault(true)]);
        assert_eq!(door.unknown(), Some("/c: ajar"));
        let open = [level(0, Facet::Door, true)];
        assert_eq!(door.apply(&open, LIVE), [What::Door { open: true, repaired: true }, What::DeviceFault(false)]);
    }

    #[test]
    fn what_is_old_moves_no_door_but_a_fire_in_it_counts() {
        let old = How { old: true, ..LIVE };
        assert_eq!(levels(DeviceClass::Door).apply(&[level(0, Facet::Door, true)], old), []);
        let mut head = levels(DeviceClass::Smoke);
        assert_eq!(head.apply(&[level(0, Facet::Smoke, true)], old), [What::Smoke(Smoke::Alarm)]);
        assert_eq!(head.apply(&[level(0, Facet::Smoke, false)], old), []);
    }

    #[test]
    fn a_button_that_is_held_is_pressed_once_and_a_retained_press_counts_once() {
        let mut button = levels(DeviceClass::Sos);
        let held = [level(0, Facet::Sos, true)];
        assert_eq!(button.apply(&held, LIVE), [What::SosPressed]);
        assert_eq!(button.apply(&held, LIVE), []);
        button.apply(&[level(0, Facet::Sos, false)], LIVE);
        assert_eq!(button.apply(&held, LIVE), [What::SosPressed]);

        let press = [Reading { source: 0, fact: Fact::Press }];
        let retained = How { retained: Some("f00d"), ..LIVE };
        let mut button = levels(DeviceClass::Sos);
        assert_eq!(button.apply(&press, retained), [What::SosPressed]);
        assert_eq!(button.apply(&press, retained), []);
        assert_eq!(button.apply(&press, LIVE), [What::SosPressed]);
        assert_eq!(button.apply(&press, LIVE), [What::SosPressed], "each live message is a press");
        assert_eq!(button.apply(&press, retained), []);
    }

    #[test]
    fn no_smoke_is_believed_when_every_value_that_could_tell_it_has_spoken() {
        let mut head = levels(DeviceClass::Smoke);
        head.wait_for_smoke([0, 1].into());
        assert_eq!(head.apply(&[level(0, Facet::Smoke, false)], LIVE), []);
        assert_eq!(head.apply(&[level(1, Facet::Smoke, true)], LIVE), [What::Smoke(Smoke::Alarm)]);
        assert_eq!(head.apply(&[level(1, Facet::Smoke, false)], LIVE), [What::Smoke(Smoke::Clear)]);
    }

    #[test]
    fn the_first_online_is_no_news() {
        let mut door = levels(DeviceClass::Door);
        assert_eq!(door.apply(&[level(0, Facet::Online, true)], LIVE), []);
        assert!(matches!(door.apply(&[level(0, Facet::Online, false)], LIVE)[..], [What::Link(Link::Down(_))]));
        assert_eq!(door.apply(&[level(0, Facet::Online, true)], LIVE), [What::Link(Link::Up)]);
    }

    #[test]
    fn a_battery_is_told_when_it_moves_and_its_voltage_is_estimated_from_the_percentage() {
        let mut door = levels(DeviceClass::Door);
        let percent = |n| [Reading { source: 0, fact: Fact::BatteryPercent(n) }];
        assert_eq!(door.apply(&percent(100), LIVE), [What::Battery { millivolts: 3000, low: false }]);
        assert_eq!(door.apply(&percent(90), LIVE), []);
        assert_eq!(door.apply(&percent(50), LIVE), [What::Battery { millivolts: 2850, low: false }]);
        let low = [level(1, Facet::BatteryLow, true)];
        assert_eq!(door.apply(&low, LIVE), [What::Battery { millivolts: 2850, low: true }]);
    }
}
