//! The engine: observations, commands and `now` in; transitions and wishes for pictures out.
//!
//! Owns the whole state of the rules and the one way in. Everything that any later output depends on is in the changes of
//! [`Engine::take_changes`]: write them in the same atomic batch as the outputs, and [`Engine::restore`] goes on as if nothing
//! had happened. Refuses disk, network, clock, pictures and tasks.

use std::collections::BTreeMap;

use gengfu_contract::command::{AlarmCommand, Outcome};
use gengfu_contract::event::{AlarmData, Origin};
use gengfu_contract::slug::Slug;
use gengfu_contract::state::DeviceState;
use gengfu_contract::words::{AlarmKind, Text};
use jiff::{SignedDuration, Timestamp};

use crate::book::{Book, News, Subject};
use crate::condition::{Machine, Wish};
use crate::device::{Device, Service};
use crate::escalate;
use crate::explain::Why;
use crate::heap::Heaps;
use crate::home::Homes;
use crate::observation::{Camera, Link, Observation, Smoke, What};
use crate::output::{DiscardStills, Output};
use crate::pauses::Trouble;
use crate::persist::Unwritten;
use crate::rule::{Decision, camera, door, equipment, lost, scene, smoke, sos, supervision};
use crate::rules::{DeviceClass, Rules};
use crate::spot::{Spots, View};
use crate::supervise::Watch;
use crate::time::after;
use crate::watching;

/// The rules at work. See the module's head.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(crate) rules: Rules,
    pub(crate) book: Book,
    pub(crate) devices: BTreeMap<Slug, Device>,
    pub(crate) spots: Spots,
    pub(crate) heaps: Heaps,
    pub(crate) views: BTreeMap<Slug, View>,
    pub(crate) watch: Watch,
    pub(crate) homes: Homes,
    pub(crate) unwritten: Unwritten,
    /// Open alarms about what is no longer configured; the next tick ends them.
    pub(crate) orphans: Vec<String>,
    /// Pictures of what is no longer configured; the next tick lets go of them.
    pub(crate) orphan_stills: Vec<DiscardStills>,
    last_now: Option<Timestamp>,
}

/// What became of a command of the centre.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// For the reply.
    pub outcome: Outcome,
    /// Why, for `refused` and `conflict`.
    pub reason: Option<Text>,
    /// What came of it: journal these like those of [`Engine::observe`].
    pub outputs: Vec<Output>,
}

impl Engine {
    /// An engine that has seen nothing yet.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            watch: Watch::new(&rules),
            homes: Homes::default(),
            rules,
            book: Book::default(),
            devices: BTreeMap::new(),
            spots: Spots::default(),
            heaps: Heaps::default(),
            views: BTreeMap::new(),
            unwritten: Unwritten::default(),
            orphans: Vec::new(),
            orphan_stills: Vec::new(),
            last_now: None,
        }
    }

    /// The rules it was given.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Judges one observation. Timers of its device that are due by `now` are run too.
    pub fn observe(&mut self, now: Timestamp, seen: &Observation) -> Vec<Output> {
        self.take_time(now);
        let mut out = Vec::new();
        let mut device = self.devices.remove(&seen.device).unwrap_or_default();
        let before = device.clone();
        let heard = is_sign_of_life(seen).then(|| self.hear(now, &mut device, seen)).flatten();
        if !is_straggler(&mut device, seen) {
            self.judge(now, &mut out, &mut device, seen);
            self.run_timers(now, &mut out, &mut device, &seen.device);
        }
        if !device.is_as(&before) {
            self.unwritten.device(&seen.device);
        }
        self.devices.insert(seen.device.clone(), device);
        if let Some((unit, was_lost)) = heard {
            self.after_sign_of_life(now, &mut out, &unit, was_lost, seen);
        }
        out
    }

    /// Runs every timer that is due. Call it at [`Engine::next_due`], or more often.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Output> {
        self.take_time(now);
        let mut out = Vec::new();
        out.extend(std::mem::take(&mut self.orphan_stills).into_iter().map(Output::DiscardStills));
        self.end_orphans(now, &mut out);
        self.end_sides(now, &mut out);
        let (_, mut decision) = decide(&self.rules, &mut self.book, now, &mut out);
        scene::tick(&mut decision, &mut self.spots, &mut self.heaps);
        supervision::tick(&mut decision, &mut self.watch);
        let due = |device: &Device| device.next_due().is_some_and(|at| at <= now);
        let names: Vec<Slug> = self.devices.iter().filter(|(_, d)| due(d)).map(|(name, _)| name.clone()).collect();
        for name in names {
            if let Some(mut device) = self.devices.remove(&name) {
                self.run_timers(now, &mut out, &mut device, &name);
                self.unwritten.device(&name);
                self.devices.insert(name, device);
            }
        }
        escalate::tick(&self.rules, &mut self.book, now, &mut out);
        out
    }

    /// When [`Engine::tick`] is wanted next; a time that has passed means at once.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        let orphans = self.orphans.iter().filter_map(|id| self.book.get(id)).map(|alarm| alarm.data.decided_at);
        let devices = self.devices.values().filter_map(Device::next_due);
        let people = self.book.next_due().into_iter().chain(self.book.sides().next_due());
        let pictures = self.spots.next_due().into_iter().chain(self.heaps.next_due());
        orphans.chain(devices).chain(people).chain(pictures).chain(self.watch.next_due()).min()
    }

    /// The gateway's clock was set by `by` (forward is positive): running timers move with it, so that none fires early or late.
    /// Call it before the first observation or tick in the new time. A clock set back without this call delays a timer by at
    /// most its length; one set forward fires it early.
    pub fn clock_stepped(&mut self, by: SignedDuration) {
        for (name, device) in &mut self.devices {
            if device.shift_timers(by) {
                self.unwritten.device(name);
            }
        }
        self.spots.shift_deadlines(by);
        self.heaps.shift_deadlines(by);
        self.watch.shift(by);
        self.homes.shift(by);
        self.book.shift(by);
        self.last_now = self.last_now.map(|last| crate::time::shifted(last, by));
    }

    /// A human at the centre has seen an alarm.
    pub fn acknowledge(&mut self, now: Timestamp, command: &AlarmCommand) -> Answer {
        self.wish(now, command, Machine::acknowledge)
    }

    /// A human at the centre ends a latched alarm whose cause is gone.
    pub fn reset(&mut self, now: Timestamp, command: &AlarmCommand) -> Answer {
        self.wish(now, command, Machine::reset)
    }

    /// Every open alarm as it stands, by id.
    pub fn open_alarms(&self) -> impl Iterator<Item = &AlarmData> {
        self.book.iter().map(|alarm| &alarm.data)
    }

    /// The last known state of every configured device, and of any other that was heard.
    #[must_use]
    pub fn devices(&self) -> Vec<DeviceState> {
        let heard = self.devices.keys().filter(|name| !self.rules.devices.contains_key(*name));
        self.rules.devices.keys().chain(heard).map(|name| self.device_state(name)).collect()
    }

    /// The last known state of one device. One that is carried by a node was heard when its node was, and is out of reach when
    /// its node is.
    #[must_use]
    pub fn device_state(&self, name: &Slug) -> DeviceState {
        let unheard = Device::default();
        let device = self.devices.get(name).unwrap_or(&unheard);
        let rule = self.rules.device(name);
        let parent = rule.parent.as_ref();
        let mut troubles: Vec<AlarmKind> = self
            .book
            .iter()
            .filter(|alarm| alarm.subject.device == *name && alarm.subject.kind.is_trouble())
            .map(|alarm| alarm.subject.kind)
            .collect();
        if supervision::is_carrier_lost(&self.rules, &self.book, name) {
            troubles.push(AlarmKind::SensorLost);
        }
        troubles.sort_unstable();
        troubles.dedup();
        let pressed = rule.class == DeviceClass::Sos && self.book.is_active(&Subject::of(name, AlarmKind::Sos));
        let home = self.homes.homes.get(name);
        let heard_at = self.watch.heard_at(name);
        let coverage = home.and_then(|home| home.coverage.percent(self.last_now.max(heard_at)?, heard_at?));
        let supervision = &self.rules.timing.supervision;
        let class = supervision.class_of(name, rule).filter(|_| supervision.enabled);
        let parent_heard = parent.and_then(|parent| self.devices.get(parent)).and_then(|parent| parent.last_heard_at);
        DeviceState {
            device: name.clone(),
            class: rule.class.as_str().to_owned(),
            state: if pressed { "pressed".to_owned() } else { device.state(rule.class) },
            last_heard_at: device.last_heard_at.max(parent_heard),
            battery_mv: device.battery_mv,
            troubles,
            supervision: class.map(|class| class.as_str().to_owned()),
            coverage_percent: coverage,
            side: self.book.sides().of_device(name),
        }
    }

    /// What a restart does to everything that is not written down.
    #[cfg(test)]
    pub(crate) fn forget_unwritten(&mut self) {
        self.views.clear();
        self.spots.forget_unwritten();
        self.heaps.forget_unwritten();
        self.watch.forget_unwritten();
        self.last_now = None;
    }

    /// Notes the time; when it ran backwards, or for the first time after a restart, brings in timers left too far ahead.
    pub(crate) fn take_time(&mut self, now: Timestamp) {
        if self.last_now.is_none_or(|last| now < last) {
            for (name, device) in &mut self.devices {
                if device.rein_timers(now) {
                    self.unwritten.device(name);
                }
            }
            let latest = after(now, self.rules.timing.still_wait);
            self.spots.rein_deadlines(latest);
            self.heaps.rein_deadlines(latest);
            self.watch.rein(now);
            self.homes.rein(now);
            self.book.rein(now);
        }
        self.watch.is_alive(now);
        self.last_now = Some(now);
    }

    fn judge(&mut self, now: Timestamp, out: &mut Vec<Output>, device: &mut Device, seen: &Observation) {
        let (rules, mut decision) = decide(&self.rules, &mut self.book, now, out);
        let decision = &mut decision;
        match &seen.what {
            What::Door { open, repaired } => {
                let moved = device.door.as_ref().is_none_or(|door| door.open != *open);
                door::observe(decision, &mut device.door, seen, *open, *repaired);
                if moved {
                    watching::moved(decision, &mut self.homes, &self.watch, seen, *open);
                }
            }
            What::Smoke(reading) => smoke::observe(decision, &mut device.smoke, seen, *reading),
            What::SosPressed => sos::observe(decision, seen),
            What::Tamper(open) => equipment::tamper(decision, seen, *open),
            What::Battery { millivolts, low } => equipment::battery(decision, device, seen, *millivolts, *low),
            What::Heartbeat => {}
            What::EventsLost { first, count } => {
                equipment::events_lost(decision, seen, *first, *count);
                watching::distrust(decision, &mut self.homes, &self.watch, &seen.device);
            }
            What::DeviceFault(faulty) => equipment::fault(decision, seen, *faulty),
            What::Contaminated(is_so) => equipment::upkeep(decision, seen, Trouble::Contaminated, *is_so),
            What::EndOfLife(is_so) => equipment::upkeep(decision, seen, Trouble::EndOfLife, *is_so),
            What::Link(link) => {
                if matches!((link, &device.link), (Link::Up, Some(Service::Out(_)))) {
                    self.watch.excuse_carried_by(&seen.device, now);
                }
                lost::observe(decision, &mut device.link, seen, link);
            }
            What::Camera(state) => {
                if !matches!((state, &device.camera), (Camera::Streaming, Some(Service::Good))) {
                    self.views.entry(seen.device.clone()).or_default().interrupt();
                }
                camera::observe(decision, &mut device.camera, seen, state);
            }
            // A camera that says its pictures are not usable is taken at its word, also when some arrive.
            What::Scene(_) if matches!(device.camera, Some(Service::Out(_))) => {}
            What::Scene(picture) => {
                if rules.zones.keys().any(|(camera, _)| *camera == seen.device) {
                    let view = self.views.entry(seen.device.clone()).or_default();
                    scene::observe(decision, view, &mut self.spots, &mut self.heaps, seen, picture);
                }
            }
            What::Still { alarm_id, result } => {
                scene::still(decision, &mut self.spots, &mut self.heaps, seen, alarm_id, result);
            }
        }
    }

    fn run_timers(&mut self, now: Timestamp, out: &mut Vec<Output>, device: &mut Device, name: &Slug) {
        let (_, mut decision) = decide(&self.rules, &mut self.book, now, out);
        smoke::tick(&mut decision, &mut device.smoke, name);
        lost::tick(&mut decision, &mut device.link, name);
        camera::tick(&mut decision, &mut device.camera, name);
        if let Some(door) = &mut device.door {
            door::tick(&mut decision, door, name);
        }
    }

    fn end_orphans(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        for id in std::mem::take(&mut self.orphans) {
            let Some(alarm) = self.book.get(&id) else { continue };
            let (zh, en) =
                ("该设备或区域已不在配置中，报警结束", "The device or zone is no longer configured: the alarm ends");
            let news =
                News::at(now, alarm.data.clock, alarm.data.origin.as_ref(), Why::new("configuration.removed", zh, en));
            out.extend(self.book.end(now, &id, news).map(Output::Alarm));
        }
    }

    fn wish(&mut self, now: Timestamp, command: &AlarmCommand, wish: impl FnOnce(&mut Machine) -> Wish) -> Answer {
        self.take_time(now);
        let id = &command.alarm_id;
        match self.book.wish(now, id, &command.operator, wish) {
            Some((Wish::Changed(_), transition)) => done(transition.map(Output::Alarm).into_iter().collect()),
            Some((Wish::Already, _)) => done(Vec::new()),
            Some((Wish::StillActive, _)) => refused(
                Outcome::Conflict,
                "起因仍然存在或无法判断，消除后才能复位",
                "the cause is still there or cannot be told: reset it after it has cleared",
            ),
            Some((Wish::NotLatched, _)) => refused(
                Outcome::Refused,
                "该类报警无须复位，确认后自行结束",
                "this kind needs no reset: it ends once it has cleared and is acknowledged",
            ),
            None if self.book.is_over(id) => done(Vec::new()),
            None => refused(
                Outcome::Refused,
                format!("本网关没有未结束的报警 {id}"),
                format!("alarm {id} is not open here: it is over, or another gateway's"),
            ),
        }
    }
}

/// The parts of one decision, borrowed apart from the memories that the rules change.
fn decide<'a>(
    rules: &'a Rules,
    book: &'a mut Book,
    now: Timestamp,
    out: &'a mut Vec<Output>,
) -> (&'a Rules, Decision<'a>) {
    (rules, Decision { rules, book, now, out })
}

pub(crate) fn done(outputs: Vec<Output>) -> Answer {
    Answer { outcome: Outcome::Done, reason: None, outputs }
}

pub(crate) fn refused(outcome: Outcome, zh: impl Into<String>, en: impl Into<String>) -> Answer {
    Answer { outcome, reason: Some(Text { zh: zh.into(), en: en.into() }), outputs: Vec::new() }
}

/// A device that says anything is heard; what the gateway says of it is not.
fn is_sign_of_life(seen: &Observation) -> bool {
    !matches!(seen.what, What::Link(Link::Down(_)) | What::Camera(Camera::Fault { .. }) | What::Still { .. })
}

/// True for a copy of what was judged before, or for what is older than it, by the node's own numbers: times cannot tell, a
/// clock may be set. Smoke and an SOS are never turned away for being old: an alarm too many beats one that is lost.
fn is_straggler(device: &mut Device, seen: &Observation) -> bool {
    let Some(origin) = &seen.origin else { return false };
    let word = match &seen.what {
        What::Door { .. } => "door",
        What::Smoke(_) => "smoke",
        What::SosPressed => "sos",
        What::Tamper(_) => "tamper",
        What::Battery { .. } => "battery",
        What::EventsLost { .. } => "loss",
        What::DeviceFault(_) => "fault",
        What::Contaminated(_) => "contaminated",
        What::EndOfLife(_) => "end_of_life",
        What::Heartbeat | What::Link(_) | What::Scene(_) | What::Camera(_) | What::Still { .. } => return false,
    };
    let newest = device.newest.get(word);
    let comparable = |newest: &&Origin| newest.node == origin.node && newest.boot == origin.boot;
    let behind = newest.filter(comparable).is_some_and(|newest| origin.sequence <= newest.sequence);
    let straggler = match &seen.what {
        What::Smoke(Smoke::Alarm | Smoke::Hushed) => false,
        What::SosPressed => newest == Some(origin),
        _ => behind,
    };
    if !behind {
        device.newest.insert(word.to_owned(), origin.clone());
    }
    straggler
}
