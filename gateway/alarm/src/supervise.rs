//! Who was heard when.
//!
//! Owns the supervised units (a node with everything wired to it, or a device that must be heard itself), when each was heard, and
//! when its silence becomes a loss. Refuses to raise: `rule::supervision` does. Silence counts only while the
//! gateway runs: its own restart or outage never makes a sensor lost, and never gives a lost one more than the time
//! since the last note of [`Watch::is_alive`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gengfu_contract::slug::Slug;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::policy::SupervisionClass;
use crate::rules::{DeviceClass, Rules};
use crate::time::{after, has_lasted, ms, ms_between, shifted};

/// The gateway's own life is noted this often, so that a restart knows how long it was away.
const ALIVE_EVERY: Duration = Duration::from_secs(60);

/// All units of a gateway.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watch {
    units: BTreeMap<Slug, Unit>,
    unit_of: BTreeMap<Slug, Slug>,
    enabled: bool,
    alive_at: Option<Timestamp>,
    alive_kept_at: Option<Timestamp>,
    begun: bool,
    dirty: BTreeSet<Slug>,
    alive_dirty: bool,
}

/// What is heard as one.
#[derive(Debug, Clone)]
pub(crate) struct Unit {
    /// The shortest interval of everything in it, with the word of its class.
    pub limit: Option<(SupervisionClass, Duration)>,
    /// The unit that carries it; when that one is lost, this one is explained.
    pub carrier: Option<Slug>,
    /// Everything in it.
    pub members: Vec<Slug>,
    pub heard: Option<Heard>,
    /// As it was last written down.
    kept: Option<Heard>,
}

/// When a unit was heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Heard {
    /// Last time, or when watching began.
    pub at: Timestamp,
    /// False while it has never been heard.
    pub ever: bool,
    /// Silence that does not count, ms: the gateway was away, or the carrier explained it.
    #[serde(default)]
    pub grace_ms: u64,
    /// Its loss was told.
    #[serde(default)]
    pub lost: bool,
    /// Members that have never triggered since.
    #[serde(default)]
    pub quiet: BTreeMap<Slug, Timestamp>,
}

impl Watch {
    pub fn new(rules: &Rules) -> Self {
        let mut watch = Watch { enabled: rules.timing.supervision.enabled, ..Watch::default() };
        if !watch.enabled && rules.timing.care.homes.is_empty() {
            return watch;
        }
        for (name, device) in rules.devices.iter().filter(|(_, device)| device.class != DeviceClass::Camera) {
            let unit = unit_of(rules, name);
            let class = rules.timing.supervision.class_of(name, device);
            let limit = class.map(|class| (class, class.interval()));
            let entry = watch.units.entry(unit.clone()).or_insert_with(|| Unit {
                limit: None,
                carrier: rules.device(&unit).parent.as_ref().map(|parent| unit_of(rules, parent)),
                members: Vec::new(),
                heard: None,
                kept: None,
            });
            entry.limit = [entry.limit, limit].into_iter().flatten().min_by_key(|(_, interval)| *interval);
            entry.members.push(name.clone());
            watch.unit_of.insert(name.clone(), unit);
        }
        watch
    }

    /// The unit a device belongs to.
    pub fn unit(&self, device: &Slug) -> Option<(&Slug, &Unit)> {
        self.units.get_key_value(self.unit_of.get(device)?)
    }

    /// When a device, or what it is wired to, was last truly heard.
    pub fn heard_at(&self, device: &Slug) -> Option<Timestamp> {
        self.unit(device)?.1.heard.as_ref().filter(|heard| heard.ever).map(|heard| heard.at)
    }

    /// The gateway runs at `now`. The first time after a start, what was never heard begins to be watched, and the time
    /// the gateway was away is forgiven.
    pub fn is_alive(&mut self, now: Timestamp) {
        if self.units.is_empty() {
            return;
        }
        if !std::mem::replace(&mut self.begun, true) {
            let known = self.units.values().filter_map(|unit| unit.heard.as_ref()).map(|heard| heard.at).max();
            let away = self.alive_at.max(known).map_or(0, |alive_at| ms_between(alive_at, now));
            let away_ms = u64::try_from(away).unwrap_or(0);
            for (name, unit) in &mut self.units {
                match &mut unit.heard {
                    None => {
                        let quiet = BTreeMap::new();
                        unit.heard = Some(Heard { at: now, ever: false, grace_ms: 0, lost: false, quiet });
                    }
                    Some(heard) if !heard.lost && away_ms > 0 => {
                        heard.grace_ms = heard.grace_ms.saturating_add(away_ms);
                    }
                    Some(_) => continue,
                }
                self.dirty.insert(name.clone());
            }
        }
        self.alive_at = Some(now);
        if self.alive_kept_at.is_none_or(|kept_at| has_lasted(kept_at, now, ALIVE_EVERY)) {
            self.alive_dirty = true;
        }
    }

    /// `device` was heard at `now`. Returns when its unit was heard before, and whether its loss had been told.
    pub fn hear(&mut self, now: Timestamp, device: &Slug) -> Option<(Slug, Timestamp, bool)> {
        let name = self.unit_of.get(device)?.clone();
        let unit = self.units.get_mut(&name)?;
        let heard = unit.heard.as_mut()?;
        let (before, was_lost) = (heard.at, heard.lost);
        let changed = !heard.ever || heard.grace_ms > 0 || heard.lost;
        (heard.at, heard.ever, heard.grace_ms, heard.lost) = (before.max(now), true, 0, false);
        // A restart may find a time as old as this: a quarter of the limit, and at most 10 min.
        let keep_every = unit.limit.map_or(Duration::MAX, |(_, limit)| limit / 4).min(Duration::from_secs(600));
        let stale = unit.kept.as_ref().is_none_or(|kept| has_lasted(kept.at, heard.at, keep_every));
        if changed || stale {
            self.dirty.insert(name.clone());
        }
        Some((name, before, was_lost))
    }

    /// Notes that a member triggered, or never has since `quiet_since`.
    pub fn quiet_since(&mut self, member: &Slug, quiet_since: Option<Timestamp>) {
        let Some(name) = self.unit_of.get(member) else { return };
        let Some(heard) = self.units.get_mut(name).and_then(|unit| unit.heard.as_mut()) else { return };
        let before = match quiet_since {
            Some(at) => heard.quiet.insert(member.clone(), at),
            None => heard.quiet.remove(member),
        };
        if before != quiet_since {
            self.dirty.insert(name.clone());
        }
    }

    /// Units whose silence has become a loss by `now` and is not told yet.
    pub fn due(&self, now: Timestamp) -> Vec<Slug> {
        self.deadlines().filter(|(_, at)| *at <= now).map(|(name, _)| name.clone()).collect()
    }

    /// The next deadline, or the next note of the gateway's own life: a silent site must be noted too.
    pub fn next_due(&self) -> Option<Timestamp> {
        let note = self.alive_kept_at.filter(|_| self.enabled).map(|kept_at| after(kept_at, ALIVE_EVERY));
        self.deadlines().map(|(_, at)| at).chain(note).min()
    }

    fn deadlines(&self) -> impl Iterator<Item = (&Slug, Timestamp)> {
        self.units.iter().filter_map(|(name, unit)| Some((name, self.deadline(unit)?)))
    }

    fn deadline(&self, unit: &Unit) -> Option<Timestamp> {
        let heard = unit.heard.as_ref().filter(|heard| self.enabled && !heard.lost)?;
        Some(after(after(heard.at, unit.limit?.1), Duration::from_millis(heard.grace_ms)))
    }

    pub fn get(&self, name: &Slug) -> Option<&Unit> {
        self.units.get(name)
    }

    /// True when the unit's own silence has gone beyond its limit.
    pub fn is_silent(&self, name: &Slug, now: Timestamp) -> bool {
        let Some(unit) = self.units.get(name) else { return false };
        unit.heard.as_ref().is_some_and(|heard| heard.lost) || self.deadline(unit).is_some_and(|at| at <= now)
    }

    /// Its loss is told now.
    pub fn is_lost(&mut self, name: &Slug) {
        self.change(name, |heard| heard.lost = true);
    }

    /// Its silence is explained by its carrier's: it gets a whole interval from now.
    pub fn excuse(&mut self, name: &Slug, now: Timestamp) {
        self.change(name, |heard| heard.grace_ms = u64::try_from(ms_between(heard.at, now)).unwrap_or(0).max(1));
    }

    /// A carrier is there again: what it carries, directly or through another, has a whole interval to be heard too.
    pub fn excuse_carried_by(&mut self, carrier: &Slug, now: Timestamp) {
        let carried = |name: &Slug, unit: &Unit| {
            self.carriers(name).any(|above| above == carrier) && unit.heard.as_ref().is_some_and(|heard| !heard.lost)
        };
        let names: Vec<Slug> =
            self.units.iter().filter(|(name, unit)| carried(name, unit)).map(|(name, _)| name.clone()).collect();
        for name in names {
            self.excuse(&name, now);
        }
    }

    /// The units that carry a unit, the nearest first.
    pub fn carriers<'a>(&'a self, name: &'a Slug) -> impl Iterator<Item = &'a Slug> {
        let carrier = |at: &&'a Slug| self.units.get(*at)?.carrier.as_ref();
        // A ring in the configuration ends the walk, it does not hang it.
        std::iter::successors(Some(name), carrier).skip(1).take(self.units.len())
    }

    fn change(&mut self, name: &Slug, change: impl FnOnce(&mut Heard)) {
        if let Some(unit) = self.units.get_mut(name)
            && let Some(heard) = &mut unit.heard
        {
            change(heard);
            self.dirty.insert(name.clone());
        }
    }

    /// After a clock that was set back: nothing was heard in the future.
    pub fn rein(&mut self, now: Timestamp) {
        for (name, unit) in &mut self.units {
            if let Some(heard) = unit.heard.as_mut().filter(|heard| heard.at > now) {
                heard.at = now;
                heard.quiet.values_mut().for_each(|at| *at = (*at).min(now));
                self.dirty.insert(name.clone());
            }
        }
        self.alive_dirty |= self.alive_at.is_some_and(|at| at > now) || self.alive_kept_at.is_some_and(|at| at > now);
        self.alive_at = self.alive_at.map(|at| at.min(now));
        self.alive_kept_at = self.alive_kept_at.map(|at| at.min(now));
    }

    pub fn shift(&mut self, by: SignedDuration) {
        for (name, unit) in &mut self.units {
            let Some(heard) = &mut unit.heard else { continue };
            heard.at = shifted(heard.at, by);
            heard.quiet.values_mut().for_each(|at| *at = shifted(*at, by));
            self.dirty.insert(name.clone());
        }
        self.alive_at = self.alive_at.map(|at| shifted(at, by));
        self.alive_dirty |= self.alive_at.is_some();
    }

    pub fn take_back(&mut self, name: &Slug, heard: Heard) -> bool {
        let Some(unit) = self.units.get_mut(name) else { return false };
        (unit.heard, unit.kept) = (Some(heard.clone()), Some(heard));
        true
    }

    pub fn take_back_alive(&mut self, at: Timestamp) {
        (self.alive_at, self.alive_kept_at) = (Some(at), Some(at));
    }

    /// What must be written down since the last call.
    pub fn take_dirty(&mut self) -> Vec<(Slug, Heard)> {
        let mut taken = Vec::new();
        for name in std::mem::take(&mut self.dirty) {
            let Some(unit) = self.units.get_mut(&name) else { continue };
            unit.kept.clone_from(&unit.heard);
            taken.extend(unit.heard.clone().map(|heard| (name, heard)));
        }
        taken
    }

    /// The note of the gateway's own life, when it is due.
    pub fn take_dirty_alive(&mut self) -> Option<Timestamp> {
        if std::mem::take(&mut self.alive_dirty) {
            self.alive_kept_at = self.alive_at;
            return self.alive_at;
        }
        None
    }

    #[cfg(test)]
    pub fn forget_unwritten(&mut self) {
        for unit in self.units.values_mut() {
            unit.heard.clone_from(&unit.kept);
        }
        self.alive_at = self.alive_kept_at;
        self.begun = false;
    }
}

pub(crate) fn is_bus(rules: &Rules, device: &Slug) -> bool {
    rules.device(device).class == DeviceClass::Bus
}

/// The device that is heard for this one: the first on the way up that must be heard itself, or the top.
fn unit_of(rules: &Rules, device: &Slug) -> Slug {
    let mut at = device;
    // At most as many steps as devices: a ring in the configuration ends the walk, it does not hang it.
    for _ in 0..rules.devices.len() {
        let by_itself = rules.timing.supervision.devices.get(at).is_some_and(|special| special.by_itself);
        if by_itself || is_bus(rules, at) {
            break;
        }
        match rules.device(at).parent.as_ref().filter(|parent| rules.devices.contains_key(*parent)) {
            Some(parent) if !is_bus(rules, parent) => at = parent,
            _ => break,
        }
    }
    at.clone()
}

/// The limit of a unit, ms, as an input of an explanation.
pub(crate) fn limit_ms(unit: &Unit) -> u64 {
    unit.limit.map_or(0, |(_, limit)| ms(limit))
}
