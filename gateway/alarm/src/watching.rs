//! What a sign of life sets going: supervision, and the clocks of the homes that the sensor watches.
//!
//! Owns the order: first the clock is advanced by what the sign proves, then the observation is judged, then the homes are. Refuses
//! decisions: they are the rules'.

use std::collections::BTreeMap;
use std::time::Duration;

use gengfu_contract::event::ClockQuality;
use gengfu_contract::slug::Slug;
use jiff::Timestamp;

use crate::book::Book;
use crate::device::{Device, Service};
use crate::engine::Engine;
use crate::home::{Home, Homes};
use crate::observation::{Observation, Smoke, What};
use crate::output::Output;
use crate::policy::SupervisionClass;
use crate::rule::care::{self, Case};
use crate::rule::{Decision, supervision};
use crate::rules::Rules;
use crate::supervise::{Watch, is_bus};

impl Engine {
    /// Takes in a sign of life of the device at hand. Returns its unit, and whether that one had been lost.
    pub(crate) fn hear(&mut self, now: Timestamp, device: &mut Device, seen: &Observation) -> Option<(Slug, bool)> {
        device.last_heard_at = device.last_heard_at.max(Some(now));
        let (unit, before, was_lost) = self.watch.hear(now, &seen.device)?;
        for door in homes_of(&self.rules, &self.watch, &unit) {
            if !self.homes.homes.contains_key(&door) {
                self.homes.homes.insert(door.clone(), Home::new(now));
                self.homes.changed(&door);
            }
            let limit = coverage_limit(&self.rules, &door);
            let Some(home) = self.homes.homes.get_mut(&door) else { continue };
            let faulty = is_faulty(&self.book, &door) || is_faulty(&self.book, &unit);
            if home.heard(now, before, limit, faulty) {
                self.homes.changed(&door);
            }
        }
        Some((unit, was_lost))
    }

    /// Judges everything that a sign of life of `unit` concerns, after the observation itself.
    pub(crate) fn after_sign_of_life(
        &mut self,
        now: Timestamp,
        out: &mut Vec<Output>,
        unit: &Slug,
        was_lost: bool,
        seen: &Observation,
    ) {
        let mut decision = Decision { rules: &self.rules, book: &mut self.book, now, out };
        if was_lost {
            // A link that is down by the gateway's own knowledge clears when it is up, not by a stray word.
            if !is_down(&self.devices, unit) {
                supervision::heard(&mut decision, unit, seen);
            }
            self.watch.excuse_carried_by(unit, now);
        }
        // A bus is heard when anything on it is.
        let buses: Vec<Slug> = self.watch.carriers(unit).filter(|name| is_bus(&self.rules, name)).cloned().collect();
        for bus in buses {
            let heard = self.watch.hear(now, &bus);
            if heard.is_some_and(|(.., was_lost)| was_lost) && !is_down(&self.devices, &bus) {
                supervision::heard(&mut decision, &bus, seen);
                self.watch.excuse_carried_by(&bus, now);
            }
        }
        if is_trigger(&seen.what) {
            supervision::triggered(&mut decision, &mut self.watch, seen);
        }
        supervision::look_for_quiet(&mut decision, &mut self.watch, unit);
        for door in homes_of(&self.rules, &self.watch, unit) {
            judge(&mut decision, &mut self.homes, &self.watch, &door, seen.clock);
        }
    }
}

/// True when the gateway knows by itself that the way to the device is down.
fn is_down(devices: &BTreeMap<Slug, Device>, name: &Slug) -> bool {
    devices.get(name).is_some_and(|device| matches!(device.link, Some(Service::Out(_))))
}

fn is_trigger(what: &What) -> bool {
    match what {
        What::Door { .. } | What::SosPressed => true,
        What::Smoke(reading) => *reading != Smoke::Clear,
        _ => false,
    }
}

fn judge(decision: &mut Decision, homes: &mut Homes, watch: &Watch, door: &Slug, clock: ClockQuality) {
    let Some(before) = homes.homes.get(door).cloned() else { return };
    let learned = case(decision.rules, homes, watch, door, decision.now, clock)
        .is_some_and(|mut case| care::judge(decision, &mut case));
    if learned {
        homes.learned(door);
    }
    if homes.homes.get(door) != Some(&before) {
        homes.changed(door);
    }
}

/// The door of a home moved.
pub(crate) fn moved(decision: &mut Decision, homes: &mut Homes, watch: &Watch, seen: &Observation, open: bool) {
    let Some(mut case) = case(decision.rules, homes, watch, &seen.device, decision.now, seen.clock) else { return };
    let learned = care::moved(decision, &mut case, seen, open);
    homes.changed(&seen.device);
    if learned {
        homes.learned(&seen.device);
    }
}

/// A node lost events: an opening may be among them.
pub(crate) fn distrust(decision: &Decision, homes: &mut Homes, watch: &Watch, device: &Slug) {
    let Some((unit, _)) = watch.unit(device) else { return };
    for door in homes_of(decision.rules, watch, unit) {
        if let Some(home) = homes.homes.get_mut(&door) {
            home.distrust(decision.now);
            homes.changed(&door);
        }
    }
}

/// A home with everything that is needed to judge it; `None` for a door without a care rule.
pub(crate) fn case<'a>(
    rules: &'a Rules,
    homes: &'a mut Homes,
    watch: &Watch,
    door: &'a Slug,
    now: Timestamp,
    clock: ClockQuality,
) -> Option<Case<'a>> {
    let rule = rules.timing.care.homes.get(door)?;
    let home = homes.homes.get_mut(door)?;
    let rhythm = homes.rhythms.entry(door.clone()).or_default();
    Some(Case { door, rule, home, rhythm, heard_at: watch.heard_at(door).unwrap_or(now), clock })
}

/// Doors with a care rule in a unit.
pub(crate) fn homes_of(rules: &Rules, watch: &Watch, unit: &Slug) -> Vec<Slug> {
    let members = watch.get(unit).map_or(&[][..], |unit| unit.members.as_slice());
    members.iter().filter(|member| rules.timing.care.homes.contains_key(*member)).cloned().collect()
}

/// Two signs of life no further apart than this cover the time between them: the interval of the door's own class.
fn coverage_limit(rules: &Rules, door: &Slug) -> Duration {
    let class = rules.timing.supervision.class_of(door, rules.device(door));
    class.unwrap_or(SupervisionClass::S2).interval()
}

/// True when the door or its node is faulty or torn off.
pub(crate) fn is_faulty(book: &Book, device: &Slug) -> bool {
    use gengfu_contract::words::AlarmKind::{DeviceFault, Tamper};
    [DeviceFault, Tamper].iter().any(|kind| book.is_active(&crate::book::Subject::of(device, *kind)))
}
