//! A year of one gateway's homes, run through the real engine.
//!
//! Owns the equipment (heartbeats, dead batteries, cut links, gateway outages with a restart from what was written down) and the
//! centre's part (calls, visits). What the engine decides is counted in `figures`. Assumptions: a heartbeat every 50 min; per year,
//! a home's battery dies with p = 0.08 and is replaced 6 h to 5 days later, what happens meanwhile is lost; its link is cut 3
//! times for 5 min to 12 h and a gateway is away 5 times (one in five for 2 to 36 h, else 5 to 60 min), and the node
//! keeps its events and tells them afterwards. An automatic call is made 5 min after yellow, one by staff 5 min after orange, between 7:30 and 21:30; a
//! well person answers it at home in 85 of 100 cases, elsewhere in 45. Red sends somebody within the hour, who finds the
//! person, or learns from neighbours until when he is away.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use gengfu_alarm::observation::What;
use gengfu_alarm::{
    Care, CareRule, CodeTable, DeviceClass, DeviceRule, Engine, NotOpened, Observation, Output, Pause, PauseKind,
    RiskTier, Rules, Supervision, Timing,
};
use gengfu_contract::event::ClockQuality;
use gengfu_contract::slug::Slug;
use gengfu_contract::words::{AlarmKind, CareLevel, Condition};
use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::figures::{Fall, Figures};
use crate::household::{Away, DAY, DAYS, HOUR, Household, Kind, MINUTE, SECOND, Who};

/// As common door magnets send them.
const HEARTBEAT: i64 = 50 * MINUTE;

/// What differs between two runs of the same year.
#[derive(Debug, Clone, Copy)]
pub struct Variant {
    pub adaptive: bool,
    pub calls_answered: bool,
    /// Rubbish is carried down on its own.
    pub rubbish: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Heartbeat,
    /// Number of the episode.
    Opens(usize),
    Closes(usize),
    /// The node's power or link: true is up.
    Power(bool),
    Link(bool),
    Fall(usize),
    Call(u32, bool),
    Visit(u32),
    /// The centre learns of an absence.
    Told(usize),
}

struct Home {
    door: Slug,
    node: Slug,
    people: Household,
    powered: bool,
    linked: bool,
    /// What the node keeps while nobody hears it.
    kept: Vec<(i64, bool)>,
    open: bool,
    /// Number of the fall, while the person lies.
    lying: Option<usize>,
    /// Not back before: in hospital after a fall.
    back_at: i64,
    /// Counts the gaps told, so that a call about an older one is not made.
    gap: u32,
    fell_covered_ms: i64,
    /// What was told last of the running gap.
    level: Option<CareLevel>,
}

/// One gateway and its homes.
pub struct Year {
    engine: Engine,
    rules: Rules,
    store: BTreeMap<Vec<u8>, Vec<u8>>,
    homes: Vec<Home>,
    by_door: BTreeMap<Slug, usize>,
    queue: BinaryHeap<Reverse<(i64, usize, Event)>>,
    outages: Vec<(i64, i64)>,
    rng: StdRng,
    variant: Variant,
    figures: Figures,
}

fn at(ms: i64) -> Timestamp {
    // 1 January 2026, 00:00 in UTC+8.
    Timestamp::from_second(1_767_196_800).unwrap_or_default() + SignedDuration::from_millis(ms)
}

fn slug(name: &str) -> Slug {
    Slug::new(name).expect("the names below are slugs")
}

impl Year {
    /// Homes `first..first + count` of the district that `seed` makes.
    pub fn new(seed: u64, first: u64, count: u64, weather: &[bool], variant: Variant) -> Self {
        let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9).wrapping_add(first) ^ 0xd157);
        let mut devices = BTreeMap::new();
        let mut care = Care::default();
        let mut homes = Vec::new();
        for n in first..first + count {
            let people = Household::new(seed.wrapping_mul(1_000_003).wrapping_add(n), weather, variant.rubbish);
            let (door, node) = (slug(&format!("door-{n}")), slug(&format!("node-{n}")));
            devices.insert(node.clone(), DeviceRule::default());
            let rule = DeviceRule { class: DeviceClass::Door, parent: Some(node.clone()), ..DeviceRule::default() };
            devices.insert(door.clone(), rule);
            let tier = tier_of(people.kind);
            care.homes.insert(door.clone(), CareRule { tier, adaptive: variant.adaptive, ..CareRule::default() });
            homes.push(Home {
                door,
                node,
                people,
                powered: true,
                linked: true,
                kept: Vec::new(),
                open: false,
                lying: None,
                back_at: i64::MIN,
                gap: 0,
                fell_covered_ms: 0,
                level: None,
            });
        }
        let rules = Rules {
            gateway: slug("gw"),
            devices,
            zones: BTreeMap::new(),
            codes: CodeTable::default(),
            timing: Timing { care, supervision: Supervision::default(), ..Timing::default() },
        };
        let by_door = homes.iter().enumerate().map(|(n, home)| (home.door.clone(), n)).collect();
        let mut outages: Vec<(i64, i64)> = (0..5)
            .map(|_| {
                let from = rng.random_range(0..DAYS * DAY);
                let long = rng.random_bool(0.2);
                let lasts =
                    if long { rng.random_range(2 * HOUR..36 * HOUR) } else { rng.random_range(5 * MINUTE..HOUR) };
                (from, from + lasts)
            })
            .collect();
        outages.sort_unstable();
        let mut year = Self {
            engine: Engine::new(rules.clone()),
            rules,
            store: BTreeMap::new(),
            homes,
            by_door,
            queue: BinaryHeap::new(),
            outages,
            rng,
            variant,
            figures: Figures { homes: count, ..Figures::default() },
        };
        for n in 0..year.homes.len() {
            year.figures.by_kind[year.homes[n].people.kind as usize].0 += 1;
            year.plan(n);
        }
        year
    }

    /// Puts a home's year into the queue.
    fn plan(&mut self, n: usize) {
        let mut planned = vec![(self.rng.random_range(0..HEARTBEAT), Event::Heartbeat)];
        let people = &self.homes[n].people;
        planned.extend(people.episodes.first().map(|episode| (episode.at, Event::Opens(0))));
        planned.extend(people.falls.iter().enumerate().map(|(fall, at)| (*at, Event::Fall(fall))));
        let told =
            people.absences.iter().enumerate().filter_map(|(k, absence)| Some((absence.told_at?, Event::Told(k))));
        planned.extend(told);
        for _ in 0..3 {
            let from = self.rng.random_range(0..DAYS * DAY);
            let to = from + self.rng.random_range(5 * MINUTE..12 * HOUR);
            planned.extend([(from, Event::Link(false)), (to, Event::Link(true))]);
        }
        if self.rng.random_bool(0.08) {
            let from = self.rng.random_range(0..DAYS * DAY);
            let to = from + self.rng.random_range(6 * HOUR..5 * DAY);
            planned.extend([(from, Event::Power(false)), (to, Event::Power(true))]);
        }
        self.queue.extend(planned.into_iter().map(|(at, event)| Reverse((at, n, event))));
    }

    /// Runs the year out.
    pub fn run(mut self) -> Figures {
        let mut outage = 0;
        while let Some(Reverse((now, n, event))) = self.queue.pop() {
            if now >= DAYS * DAY {
                break;
            }
            while self.outages.get(outage).is_some_and(|(_, to)| *to <= now) {
                self.restart();
                outage += 1;
            }
            let away = self.outages.get(outage).is_some_and(|(from, _)| *from <= now);
            self.step(now, n, event, away);
        }
        for home in &self.homes {
            let state = self.engine.care_state(at(DAYS * DAY), &home.door);
            self.figures.learned_homes += u64::from(state.is_some_and(|state| state.learned));
        }
        self.figures
    }

    fn restart(&mut self) {
        let saved = std::mem::take(&mut self.store);
        let (engine, notes) = Engine::restore(self.rules.clone(), saved.clone());
        assert!(notes.is_empty(), "{notes:?}");
        (self.engine, self.store) = (engine, saved);
        self.figures.restarts += 1;
    }

    fn step(&mut self, now: i64, n: usize, event: Event, away: bool) {
        match event {
            Event::Heartbeat => {
                let next = now + HEARTBEAT + self.rng.random_range(-20 * SECOND..20 * SECOND);
                self.queue.push(Reverse((next, n, Event::Heartbeat)));
                self.figures.heartbeats += 1;
                if self.homes[n].powered && self.homes[n].linked && !away {
                    self.figures.heartbeats_heard += 1;
                    self.deliver(now, n);
                    let node = self.homes[n].node.clone();
                    self.observe(now, now, node, What::Heartbeat);
                }
            }
            Event::Opens(k) => {
                let episode = self.homes[n].people.episodes[k];
                self.queue.push(Reverse((now + episode.lasts, n, Event::Closes(k))));
                self.opened(now, n, episode.who, away);
            }
            Event::Closes(k) => {
                if let Some(next) = self.homes[n].people.episodes.get(k + 1) {
                    self.queue.push(Reverse((next.at.max(now + SECOND), n, Event::Opens(k + 1))));
                }
                if self.homes[n].open {
                    self.contact(now, n, false, away);
                }
            }
            Event::Power(up) => {
                self.homes[n].powered = up;
                self.homes[n].kept.clear();
            }
            Event::Link(up) => self.homes[n].linked = up,
            Event::Fall(k) => self.fall(now, n, k),
            Event::Call(gap, automatic) => self.call(now, n, gap, automatic, away),
            Event::Visit(gap) => self.visit(now, n, gap, away),
            Event::Told(k) => {
                let absence = self.homes[n].people.absences[k];
                if self.homes[n].lying.is_none() && now >= self.homes[n].back_at {
                    self.pause(now, n, PauseKind::Absence, absence.to, away);
                }
            }
        }
    }

    fn opened(&mut self, now: i64, n: usize, who: Who, away: bool) {
        let home = &mut self.homes[n];
        if now < home.back_at {
            return;
        }
        if home.lying.is_some() {
            if who == Who::Helper {
                self.contact(now, n, true, away);
                self.rescue(now, n, true, away);
            }
            return;
        }
        self.contact(now, n, true, away);
    }

    /// The magnet's edge: told at once, kept by the node, or lost with its power.
    fn contact(&mut self, now: i64, n: usize, open: bool, away: bool) {
        let home = &mut self.homes[n];
        home.open = open;
        if !home.powered {
            return;
        }
        home.kept.push((now, open));
        if home.linked && !away {
            self.deliver(now, n);
        }
    }

    fn deliver(&mut self, now: i64, n: usize) {
        for (sensed, open) in std::mem::take(&mut self.homes[n].kept) {
            let door = self.homes[n].door.clone();
            self.observe(now, sensed, door, What::Door { open, repaired: false });
        }
    }

    fn observe(&mut self, now: i64, sensed: i64, device: Slug, what: What) {
        let mut outputs = if what == What::Heartbeat && self.engine.next_due().is_some_and(|due| due <= at(now)) {
            self.engine.tick(at(now))
        } else {
            Vec::new()
        };
        let clock = ClockQuality::Synced;
        let seen = Observation { device, sensed_at: at(sensed), clock, origin: None, what };
        outputs.extend(self.engine.observe(at(now), &seen));
        self.take(now, outputs);
    }

    fn take(&mut self, now: i64, outputs: Vec<Output>) {
        for change in self.engine.take_changes() {
            match change.value {
                Some(value) => self.store.insert(change.key, value),
                None => self.store.remove(&change.key),
            };
        }
        for output in outputs {
            let Output::Alarm(transition) = output else { continue };
            let alarm = transition.alarm;
            let Some(&n) = self.by_door.get(&alarm.device) else {
                self.figures.sensor_losses +=
                    u64::from(alarm.kind == AlarmKind::SensorLost && alarm.condition == Condition::ActiveUnack);
                continue;
            };
            let input = |name: &str| alarm.explanation.inputs.get(name);
            let began = alarm.condition == Condition::ActiveUnack;
            match alarm.kind {
                AlarmKind::NightExit if began => self.figures.night_exits += 1,
                AlarmKind::NightFrequency if began => self.figures.busy_nights += 1,
                AlarmKind::NotOpened if began && alarm.explanation.rule == "care.not_opened" => {
                    let level = input("level").and_then(|level| level.as_str()).and_then(level_of);
                    let covered_ms = input("covered_ms").and_then(serde_json::Value::as_i64).unwrap_or(0);
                    // An alarm that was unknown for a while is known again: nobody acts twice.
                    if std::mem::replace(&mut self.homes[n].level, level) != level {
                        self.told(now, n, level.unwrap_or(CareLevel::Yellow), covered_ms);
                    }
                }
                AlarmKind::NotOpened if !began && alarm.condition != Condition::Unknown => self.homes[n].level = None,
                _ => {}
            }
        }
    }

    /// A level was told about a home: the centre acts.
    fn told(&mut self, now: i64, n: usize, level: CareLevel, covered_ms: i64) {
        let home = &mut self.homes[n];
        if let Some(fall) = home.lying {
            let before = covered_ms.min(home.fell_covered_ms);
            self.figures.found(n, fall, now - home.people.falls[fall], covered_ms - before, level);
        }
        if level == CareLevel::Yellow {
            home.gap += 1;
        }
        let gap = home.gap;
        if level == CareLevel::Red {
            if home.lying.is_none() {
                self.figures.by_kind[home.people.kind as usize].2 += 1;
                self.figures.false_visits_away += u64::from(home.people.away(now).is_some());
            }
            let at = now + self.rng.random_range(20 * MINUTE..HOUR);
            self.queue.push(Reverse((at, n, Event::Visit(gap))));
        } else {
            let time = now + 5 * MINUTE;
            let day = time.div_euclid(DAY) * DAY;
            let (first, last) = (7 * HOUR + 30 * MINUTE, 21 * HOUR + 30 * MINUTE);
            let at = match time - day {
                early if early < first => day + first,
                late if late > last => day + DAY + first,
                _ => time,
            };
            self.queue.push(Reverse((at, n, Event::Call(gap, level == CareLevel::Yellow))));
        }
    }

    fn is_told(&self, now: i64, n: usize) -> bool {
        self.engine.care_state(at(now), &self.homes[n].door).is_some_and(|state| state.level.is_some())
    }

    fn call(&mut self, now: i64, n: usize, gap: u32, automatic: bool, away: bool) {
        if self.homes[n].gap != gap || !self.is_told(now, n) {
            return;
        }
        let home = &self.homes[n];
        let absence = home.people.away(now).copied();
        if home.lying.is_none() {
            let kind = home.people.kind as usize;
            if automatic {
                self.figures.by_kind[kind].1 += 1;
            } else {
                self.figures.staff_calls += 1;
            }
        }
        let chance = if absence.is_some() { 0.45 } else { 0.85 };
        let hears = self.rng.random_bool(chance) && self.variant.calls_answered && self.homes[n].lying.is_none();
        if !hears {
            return;
        }
        match absence.filter(|absence| absence.why != Away::Outing) {
            Some(absence) => self.pause(now, n, PauseKind::Absence, absence.to, away),
            None => self.pause(now, n, PauseKind::Call, now, away),
        }
    }

    fn visit(&mut self, now: i64, n: usize, gap: u32, away: bool) {
        if self.homes[n].gap != gap || !self.is_told(now, n) {
            return;
        }
        if self.homes[n].lying.is_some() {
            self.contact(now, n, true, away);
            self.contact(now + 30 * SECOND, n, false, away);
            self.rescue(now + MINUTE, n, false, away);
            return;
        }
        match self.homes[n].people.away(now).copied() {
            Some(absence) => self.pause(now, n, PauseKind::Absence, absence.to, away),
            None => {
                self.contact(now, n, true, away);
                self.contact(now + 20 * SECOND, n, false, away);
                self.pause(now + MINUTE, n, PauseKind::Visit, now + MINUTE, away);
            }
        }
    }

    fn pause(&mut self, now: i64, n: usize, kind: PauseKind, until: i64, away: bool) {
        // A command to a gateway that is away waits at the broker; here it is lost, which can only add alarms.
        if away || until < now {
            return;
        }
        let pause = Pause { kind, until: at(until), operator: "centre".into() };
        let door = self.homes[n].door.clone();
        let outputs = self.engine.pause_care(at(now), &door, &pause).outputs;
        self.take(now, outputs);
    }

    fn fall(&mut self, now: i64, n: usize, fall: usize) {
        let home = &mut self.homes[n];
        if home.lying.is_some() || now < home.back_at || home.open {
            return;
        }
        home.lying = Some(fall);
        let state = self.engine.care_state(at(now), &home.door);
        home.fell_covered_ms = state.map_or(0, |state| state.covered_ms);
        let policy_ms = i64::try_from(NotOpened::of(tier_of(home.people.kind)).red.as_millis()).unwrap_or(i64::MAX);
        self.figures.falls.insert((n, fall), Fall { policy_ms, ..Fall::default() });
    }

    /// Found: ten days in hospital, and the centre knows.
    fn rescue(&mut self, now: i64, n: usize, by_helper: bool, away: bool) {
        let home = &mut self.homes[n];
        let Some(fall) = home.lying.take() else { return };
        home.back_at = now + 10 * DAY;
        if let Some(told) = self.figures.falls.get_mut(&(n, fall)) {
            told.by_helper = by_helper;
            told.rescued_ms = Some(now - self.homes[n].people.falls[fall]);
        }
        self.pause(now, n, PauseKind::Absence, now + 10 * DAY, away);
    }
}

/// What a care service would choose, who knows the person.
fn tier_of(kind: Kind) -> RiskTier {
    match kind {
        Kind::Frail => RiskTier::High,
        Kind::Active | Kind::Regular => RiskTier::Standard,
        Kind::Homebody => RiskTier::Low,
    }
}

fn level_of(word: &str) -> Option<CareLevel> {
    CareLevel::ALL.iter().copied().find(|level| level.as_str() == word)
}
