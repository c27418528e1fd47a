//! What a line reads next, and what its answers mean. Sans-I/O.
//!
//! Owns the schedule, the state of each unit, and what is told of them. Refuses to let a unit that is gone slow the others: it is asked rarely,
//! and never twice in a row while another one is due. Levels, not edges: a poll sees what is, so a pulse shorter than `every` may be missed.

use std::collections::{BTreeMap, BTreeSet};

use gengfu_alarm::observation::{Link, Observation, What};
use gengfu_contract::slug::Slug;
use jiff::SignedDuration;

use super::decode::{Data, decode};
use crate::config::DeviceClass;
use crate::sensors::handover::Source;
use crate::sensors::levels::{How, LIVE, Levels};
use crate::sensors::outgoing::Outgoing;
use crate::sensors::plan::{LinePlan, UnitPlan};
use crate::sensors::profile::{Function, Map, ModbusMap};
use crate::sensors::stats::{Problem, SensorStats};
use crate::sensors::words::{Facet, Fact, Reading, contact, fits};
use crate::sensors::{HEARTBEAT_EVERY, Moment, config::Way, signed, told_before, told_bytes};

/// One request on the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Position of the unit.
    pub unit: usize,
    /// Position of the read in its profile.
    pub read: usize,
    /// The unit's address.
    pub address: u8,
    /// Which table.
    pub function: Function,
    /// First value.
    pub first: u16,
    /// How many.
    pub count: u16,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Values.
    Data(Data),
    /// A Modbus exception.
    Exception(u8),
    /// Nothing in time.
    Silent,
    /// Something that is no answer.
    Garbled(String),
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Ask this.
    Read(Request),
    /// Nothing before this, in uptime.
    Wait(SignedDuration),
}

/// A line's schedule and memory.
#[derive(Debug)]
pub struct Poller {
    plan: LinePlan,
    units: Vec<Unit>,
    out: Outgoing,
    stats: SensorStats,
    /// Told of the line itself.
    line_up: Option<bool>,
    not_before: SignedDuration,
    cursor: Vec<u8>,
}

#[derive(Debug)]
struct Unit {
    /// By read: when it is due.
    due_at: Vec<SignedDuration>,
    failures: u32,
    /// Told of the unit.
    up: Option<bool>,
    problem: Option<Problem>,
    heartbeat_at: Option<SignedDuration>,
    /// Its own levels (channel 0) and its devices'.
    levels: BTreeMap<u8, Levels>,
    /// The first answer since a start or a reconnect: by read.
    fresh: Vec<bool>,
}

impl Poller {
    /// A line that has read nothing yet. `saved` is what [`Self::take_batch`] last made durable.
    #[must_use]
    pub fn new(plan: LinePlan, saved: Option<&[u8]>, at: Moment) -> Self {
        let place = match &plan.way {
            Way::Serial { port, baud, .. } => format!("{} ({baud} baud)", port.display()),
            Way::Tcp { host, port } => format!("{host}:{port}"),
        };
        let mut told = told_before(saved);
        let units = plan.units.iter().map(|unit| Unit::new(unit, &mut told, at)).collect();
        let names = plan.units.iter().map(|unit| unit.name.clone());
        Self {
            stats: SensorStats::starting(plan.name.clone(), place, names, at.now),
            units,
            out: Outgoing::default(),
            line_up: None,
            not_before: at.uptime,
            cursor: saved.map_or_else(|| b"{}".to_vec(), <[u8]>::to_vec),
            plan,
        }
    }

    /// What to do at `at`, with the line open.
    #[must_use]
    pub fn next(&self, at: Moment) -> Next {
        if at.uptime < self.not_before {
            return Next::Wait(self.not_before);
        }
        // Of what is due, a unit that answers goes before one that does not, then what waits longest.
        let all = self.units.iter().enumerate().flat_map(|(unit, state)| {
            state.due_at.iter().enumerate().map(move |(read, due)| (state.failures > 0, *due, unit, read))
        });
        let due = all.clone().filter(|(_, due, ..)| *due <= at.uptime).min();
        match due {
            Some((_, _, unit, read)) => {
                self.request(unit, read).map_or(Next::Wait(at.uptime + HEARTBEAT_EVERY), Next::Read)
            }
            None => Next::Wait(all.map(|(_, due, ..)| due).min().unwrap_or(at.uptime + HEARTBEAT_EVERY)),
        }
    }

    fn request(&self, unit: usize, read: usize) -> Option<Request> {
        let asked = map(&self.plan.units[unit])?.reads.get(read)?;
        let (function, first, count) = (asked.function, asked.address, asked.count);
        Some(Request { unit, read, address: self.plan.units[unit].address, function, first, count })
    }

    /// The line is open, or connected.
    pub fn line_opened(&mut self, at: Moment) {
        self.stats.opened += 1;
        for unit in &mut self.units {
            unit.begin_anew(at);
        }
        // Up only when a unit answers: an adapter without a bus behind it opens too.
    }

    /// The line cannot be opened, or hung up.
    pub fn line_lost(&mut self, at: Moment, problem: &Problem) {
        self.stats.show(at.now, Some(problem));
        if self.line_up != Some(false) {
            self.line_up = Some(false);
            let text = problem.told(&self.stats.place);
            tracing::warn!(line = %self.plan.name, "line down: {text}");
            self.out.push(at.seen(&self.plan.name, at.now, What::Link(Link::Down(text))));
        }
    }

    /// Takes the answer to `request`.
    pub fn on_answer(&mut self, at: Moment, request: &Request, answer: Answer) {
        self.not_before = at.uptime + signed(self.plan.gap);
        let problem = match answer {
            Answer::Data(data) => match self.understand(at, request, &data) {
                Ok(()) => return,
                Err(problem) => problem,
            },
            Answer::Exception(code) => Problem::Exception(code),
            Answer::Silent => {
                // A late answer must not be taken for the next one's: RTU has no request numbers.
                self.not_before = at.uptime + signed(self.plan.timeout);
                Problem::Silent
            }
            Answer::Garbled(why) => Problem::Garbled(why),
        };
        self.fail(at, request, problem);
    }

    fn understand(&mut self, at: Moment, request: &Request, data: &Data) -> Result<(), Problem> {
        let plan = &self.plan.units[request.unit];
        let map = map(plan).ok_or(Problem::Garbled("no Modbus profile".into()))?;
        let readings = decode(map, request.read, data).map_err(|short| Problem::Garbled(short.to_string()))?;
        let every = signed(map.reads[request.read].every);
        self.stats.understood += 1;
        self.reached(at, request.unit);
        let plan = &self.plan.units[request.unit];
        let unit = &mut self.units[request.unit];
        unit.failures = 0;
        unit.due_at[request.read] = next_due(unit.due_at[request.read], every, at.uptime);
        let how = How { repaired: std::mem::replace(&mut unit.fresh[request.read], false), ..LIVE };
        let mut news: Vec<Observation> = Vec::new();
        for (channel, levels) in &mut unit.levels {
            let device = plan.devices.get(channel);
            let own: Vec<Reading> =
                readings.iter().filter(|(of, _)| of == channel).filter_map(|(_, r)| meant(r, device)).collect();
            let name = device.map_or(&plan.name, |(device, _)| &device.name);
            let before = levels.unknown().map(str::to_owned);
            news.extend(levels.apply(&own, how).into_iter().map(|what| at.seen(name, at.now, what)));
            if let Some(unknown) = levels.unknown().filter(|unknown| before.as_deref() != Some(*unknown)) {
                self.stats.warn_unknown(name, &plan.profile.name, unknown);
            }
        }
        let is_beat_due = unit.heartbeat_at.is_none_or(|last| at.uptime - last >= HEARTBEAT_EVERY);
        if is_beat_due {
            unit.heartbeat_at = Some(at.uptime);
            news.push(at.seen(&plan.name, at.now, What::Heartbeat));
        }
        news.into_iter().for_each(|seen| self.out.push(seen));
        Ok(())
    }

    /// The line carries an answer of this unit, so both are there.
    fn reached(&mut self, at: Moment, unit: usize) {
        if self.line_up != Some(true) {
            self.line_up = Some(true);
            self.out.push(at.seen(&self.plan.name, at.now, What::Link(Link::Up)));
        }
        self.stats.show(at.now, None);
        let (plan, state) = (&self.plan.units[unit], &mut self.units[unit]);
        self.stats.devices[unit].last_heard_at = Some(at.now);
        if state.up != Some(true) {
            state.up = Some(true);
            state.problem = None;
            self.stats.devices[unit].show(None);
            state.begin_anew(at);
            tracing::info!(line = %self.plan.name, unit = %plan.name, "unit up");
            self.out.push(at.seen(&plan.name, at.now, What::Link(Link::Up)));
        }
    }

    fn fail(&mut self, at: Moment, request: &Request, problem: Problem) {
        let reason = match &problem {
            Problem::Silent => "silent".to_owned(),
            Problem::Exception(code) => format!("exception {code}"),
            _ => "garbled".to_owned(),
        };
        let (plan, unit) = (&self.plan.units[request.unit], &mut self.units[request.unit]);
        if self.stats.discard(&plan.name, &reason) {
            tracing::info!(line = %self.plan.name, unit = %plan.name, ?problem, "no usable answer");
        }
        unit.failures = unit.failures.saturating_add(1);
        let is_lost = unit.failures >= self.plan.failures_max;
        let again = if is_lost { signed(self.plan.retry_every) } else { signed(self.plan.timeout) };
        for due in &mut unit.due_at {
            // A unit that is silent is silent for all its reads: one of them asks for it.
            *due = (*due).max(at.uptime + if is_lost { again } else { SignedDuration::ZERO });
        }
        unit.due_at[request.read] = at.uptime + again;
        if is_lost {
            self.stats.devices[request.unit].show(Some(&problem));
            unit.problem = Some(problem);
            self.tell_losses(at);
        }
    }

    /// One silent unit is its own trouble; when none of several answers it is the line's, told once. So a loss is told when another unit
    /// answers, or when all are lost.
    fn tell_losses(&mut self, at: Moment) {
        let most = self.plan.failures_max;
        let all_lost = self.units.iter().all(|unit| unit.failures >= most);
        let all_silent = all_lost && self.units.iter().all(|unit| unit.problem == Some(Problem::Silent));
        if all_silent && self.units.len() > 1 {
            self.line_lost(at, &Problem::AllSilent);
            return;
        }
        let some_answer = self.units.iter().any(|unit| unit.failures == 0 && unit.up == Some(true));
        for (plan, unit) in self.plan.units.iter().zip(&mut self.units) {
            let Some(problem) = unit.problem.as_ref().filter(|_| unit.failures >= most) else { continue };
            if unit.up == Some(false) || !(some_answer || all_lost) {
                continue;
            }
            unit.up = Some(false);
            let text = problem.told(&format!("{} ({} #{})", plan.name, self.stats.place, plan.address));
            tracing::warn!(line = %self.plan.name, unit = %plan.name, "unit down: {text}");
            self.out.push(at.seen(&plan.name, at.now, What::Link(Link::Down(text))));
        }
    }

    /// The line's device name.
    #[must_use]
    pub fn plan(&self) -> &LinePlan {
        &self.plan
    }
}

impl Source for Poller {
    fn name(&self) -> &Slug {
        &self.plan.name
    }

    fn has_batch(&self) -> bool {
        self.out.has_batch()
    }

    fn take_batch(&mut self) -> Option<(Vec<Observation>, Vec<u8>)> {
        let (observations, is_all) = self.out.take()?;
        if is_all {
            let of_unit = |(plan, unit): (&'_ UnitPlan, &'_ Unit)| -> Vec<_> {
                unit.levels.iter().map(|(n, levels)| (name_of(plan, *n).clone(), levels.clone())).collect()
            };
            let all: Vec<_> = self.plan.units.iter().zip(&self.units).flat_map(of_unit).collect();
            self.cursor = told_bytes(all.iter().map(|(name, levels)| (name, levels)));
        }
        self.stats.observed += observations.len() as u64;
        Some((observations, self.cursor.clone()))
    }

    fn committed(&mut self) {
        self.out.committed();
    }

    fn failed(&mut self) {
        self.out.failed();
        self.stats.refused += 1;
    }

    fn stats(&mut self) -> &SensorStats {
        self.stats.merged = self.out.merged();
        &self.stats
    }
}

impl Unit {
    fn new(
        plan: &UnitPlan,
        told: &mut BTreeMap<gengfu_contract::slug::Slug, crate::sensors::levels::Told>,
        at: Moment,
    ) -> Self {
        let cell = plan.profile.battery_mv_at;
        let mut levels = BTreeMap::from([(0, Levels::new(None, cell, told.remove(&plan.name).unwrap_or_default()))]);
        for (channel, (device, _)) in &plan.devices {
            let told = told.remove(&device.name).unwrap_or_default();
            let mut its = Levels::new(Some(device.class), cell, told);
            its.wait_for_smoke(smoke_sources(plan, *channel));
            levels.insert(*channel, its);
        }
        let reads = map(plan).map_or(0, |map| map.reads.len());
        let (due_at, fresh) = (vec![at.uptime; reads], vec![true; reads]);
        Self { due_at, failures: 0, up: None, problem: None, heartbeat_at: None, levels, fresh }
    }

    /// Nobody knows what happened meanwhile: everything is read now, and told again.
    fn begin_anew(&mut self, at: Moment) {
        self.due_at.iter_mut().for_each(|due| *due = at.uptime);
        self.fresh.iter_mut().for_each(|fresh| *fresh = true);
        self.levels.values_mut().for_each(Levels::forget_told_levels);
    }
}

fn map(plan: &UnitPlan) -> Option<&ModbusMap> {
    match &plan.profile.map {
        Map::Modbus(map) => Some(map),
        Map::Mqtt(_) => None,
    }
}

/// The values of a channel that speak of smoke.
fn smoke_sources(plan: &UnitPlan, channel: u8) -> BTreeSet<u16> {
    let points = map(plan).map_or(&[][..], |map| &map.points);
    let says_smoke = |fact: &Fact| matches!(fact, Fact::Level(Facet::Smoke, _) | Fact::Contact(_));
    let of_smoke =
        points.iter().enumerate().filter(|(_, p)| p.channel == channel && p.meaning.possible().iter().any(says_smoke));
    of_smoke.filter_map(|(n, _)| u16::try_from(n).ok()).collect()
}

fn name_of(plan: &UnitPlan, channel: u8) -> &gengfu_contract::slug::Slug {
    plan.devices.get(&channel).map_or(&plan.name, |(device, _)| &device.name)
}

/// A reading in the words of its device; `None` when the device cannot say such a thing.
fn meant(reading: &Reading, device: Option<&(crate::config::Device, bool)>) -> Option<Reading> {
    let class: Option<DeviceClass> = device.map(|(device, _)| device.class);
    let fact = match (&reading.fact, device) {
        (Fact::Contact(closed), Some((device, inverted))) => contact(device.class, *closed, *inverted),
        (fact, _) => fact.clone(),
    };
    fits(class, &fact).then_some(Reading { source: reading.source, fact })
}

/// In step with the schedule, but never in a burst of what was missed.
fn next_due(was_due: SignedDuration, every: SignedDuration, now: SignedDuration) -> SignedDuration {
    let due = was_due.saturating_add(every);
    if due <= now { now.saturating_add(every) } else { due }
}

#[cfg(test)]
mod tests;
