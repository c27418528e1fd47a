//! Tests of the whole engine, as scripts.
//!
//! Goal: each rule is promised in a few readable lines. Method: a line is `TIME ACTION => EVENTS`; the player feeds
//! the engine, checks
//! on every event what must hold for all alarms (revisions without gap, nothing after the end), and compares with what the
//! line expects. Scripts about sensors are played twice: straight through, and with a restart before every line.

use std::collections::BTreeMap;
use std::time::Duration;

use gengfu_contract::case::RejectReason;
use gengfu_contract::command::{AlarmCommand, CaseCommand, Outcome};
use gengfu_contract::event::{AlarmData, ClockQuality, EventType, EvidenceRef, Location, Origin, SideState};
use gengfu_contract::slug::Slug;
use gengfu_contract::words::{AlarmKind, CapStatus, Condition};
use jiff::{SignedDuration, Timestamp};

use crate::observation::{Camera, Link, Scene, Smoke, Track, TrackKind, What};
use crate::output::{NeedStill, StillRole, Transition};
use crate::{
    CodeTable, DeviceClass, DeviceRule, Engine, Observation, Output, RestoreNote, Rules, Service, Shelf, Supervision,
    Terms, Timing, ZoneKind, ZoneRule,
};

mod annunciate;
mod care;
mod hours;
mod litter;
mod people;
mod random;
mod restore;
mod scenes;
mod sensors;
mod silence;
mod stills;

pub(super) fn slug(name: &str) -> Slug {
    Slug::new(name).unwrap()
}

pub(super) fn at(seconds: f64) -> Timestamp {
    let start: Timestamp = "2026-11-22T08:00:00Z".parse().unwrap();
    start + SignedDuration::from_micros((seconds * 1e6).round() as i64)
}

/// One node with a door (limit 60 s), two smoke heads in one home and one elsewhere, a button; a camera with a
/// no-stopping zone (60 s) and a fire lane (30 s).
pub(super) fn rules() -> Rules {
    let device = |class, dwelling: Option<&str>| DeviceRule {
        class,
        parent: Some(slug("node")),
        location: Some(Location { division: Some("310112".into()), ..Location::default() }),
        subject_ref: Some("s-17".into()),
        dwelling: dwelling.map(str::to_owned),
        left_open_after: (class == DeviceClass::Door).then_some(Duration::from_secs(60)),
        ..DeviceRule::default()
    };
    let top = |class| DeviceRule { class, ..DeviceRule::default() };
    Rules {
        gateway: slug("gw-1"),
        devices: [
            (slug("node"), top(DeviceClass::Node)),
            (slug("door"), device(DeviceClass::Door, None)),
            (slug("smoke"), device(DeviceClass::Smoke, Some("7-1"))),
            (slug("smoke-b"), device(DeviceClass::Smoke, Some("7-1"))),
            (slug("smoke-c"), device(DeviceClass::Smoke, Some("7-2"))),
            (slug("sos"), device(DeviceClass::Sos, None)),
            (slug("cam"), top(DeviceClass::Camera)),
        ]
        .into(),
        zones: [
            ((slug("cam"), slug("east")), ZoneRule::new(ZoneKind::IllegalParking, Duration::from_secs(60))),
            ((slug("cam"), slug("lane")), ZoneRule::new(ZoneKind::FireLaneBlocked, Duration::from_secs(30))),
        ]
        .into(),
        codes: CodeTable::new(vec![toml::from_str(include_str!("../../../../config/codes/gengfu.toml")).unwrap()])
            .unwrap(),
        // Scripts are short and name every observation; a silence means nothing in them. Supervision has its own.
        timing: Timing { supervision: Supervision { enabled: false, ..Supervision::default() }, ..Timing::default() },
    }
}

/// The store beside the engine: what was written down.
pub(super) type Store = BTreeMap<Vec<u8>, Vec<u8>>;

pub(super) fn keep(engine: &mut Engine, store: &mut Store) {
    for change in engine.take_changes() {
        match change.value {
            Some(value) => store.insert(change.key, value),
            None => store.remove(&change.key),
        };
    }
}

/// What must hold for the events of all alarms, whatever happens.
#[derive(Default)]
pub(super) struct Law {
    /// Last revision per alarm; `None` once it is over.
    alarms: BTreeMap<String, Option<u32>>,
    /// Last escalation per alarm.
    escalations: BTreeMap<String, u32>,
}

impl Law {
    pub fn hold(&mut self, transition: &Transition) {
        let alarm = &transition.alarm;
        let id = &alarm.alarm_id;
        match self.alarms.get(id) {
            None => {
                let begins = matches!(transition.event_type, EventType::AlarmRaised | EventType::AlarmShelved);
                assert!(begins && alarm.rev == 1, "{id} begins with its raise, or out of sight: {transition:?}");
            }
            Some(None) => panic!("{id} is over and is heard of again: {transition:?}"),
            Some(Some(rev)) => assert_eq!(alarm.rev, rev + 1, "{id}: revisions have no gap"),
        }
        assert_eq!(
            transition.event_type == EventType::AlarmOver,
            alarm.condition == Condition::Normal,
            "{transition:?}"
        );
        assert_eq!(transition.lane, alarm.kind.lane());
        self.hold_people(transition);
        assert!(
            !alarm.explanation.rule.is_empty()
                && !alarm.explanation.text.zh.is_empty()
                && !alarm.explanation.text.en.is_empty()
        );
        assert!(alarm.code.is_some());
        let open = alarm.condition.is_open().then_some(alarm.rev);
        self.alarms.insert(id.clone(), open);
    }
}

impl Law {
    /// Escalation rises by one with its own event and never falls; shelving never hides a life; what is quiet is not raised.
    fn hold_people(&mut self, transition: &Transition) {
        let alarm = &transition.alarm;
        let before = self.escalations.insert(alarm.alarm_id.clone(), alarm.escalation).unwrap_or(0);
        let step = u32::from(transition.event_type == EventType::AlarmEscalated);
        assert_eq!(alarm.escalation, before + step, "{transition:?}");
        let side = alarm.side.as_ref().map(|side| side.state);
        if alarm.kind.lane().is_life_safety() || alarm.kind == AlarmKind::TxOverdue {
            assert_ne!(side, Some(SideState::Shelved), "{transition:?}");
        }
        let calls = matches!(transition.event_type, EventType::AlarmRaised | EventType::AlarmEscalated);
        let quiet = matches!(side, Some(SideState::Shelved | SideState::OutOfService));
        assert!(!(calls && quiet), "{transition:?}");
        assert!(transition.event_type != EventType::AlarmShelved || quiet, "{transition:?}");
        assert!(side != Some(SideState::Test) || alarm.cap.status == CapStatus::Test, "{transition:?}");
        assert!(step == 0 || alarm.cap.status == CapStatus::Actual, "a test asks for nobody: {transition:?}");
    }
}

/// Plays a script.
pub(super) struct Player {
    pub engine: Engine,
    pub store: Store,
    pub notes: Vec<RestoreNote>,
    pub restart_always: bool,
    law: Law,
    /// Every event so far.
    pub events: Vec<Transition>,
    /// Pictures past the limit and after clearing that were asked for; first ones and overviews are in `quiet_stills`.
    pub stills: Vec<NeedStill>,
    pub quiet_stills: Vec<NeedStill>,
    births: BTreeMap<u64, f64>,
    /// Time of the last line.
    clock: f64,
}

/// Seconds of a time in a script: `90`, `1.5h` or `3d`.
fn seconds(text: &str) -> Option<f64> {
    let (number, unit) = match text.strip_suffix('h') {
        Some(number) => (number, 3600.0),
        None => text.strip_suffix('d').map_or((text, 1.0), |number| (number, 86_400.0)),
    };
    number.parse::<f64>().ok().map(|number| number * unit)
}

/// Where things are in the picture, and in which zones.
fn place(name: &str) -> ([f32; 4], Vec<Slug>) {
    let (bbox, zone) = match name {
        "a" => ([0.10, 0.4, 0.2, 0.1], "east"),
        // As `a`, wavering.
        "a'" => ([0.11, 0.39, 0.2, 0.11], "east"),
        // As `a`, half hidden.
        "a/" => ([0.10, 0.41, 0.11, 0.09], "east"),
        "b" => ([0.32, 0.4, 0.2, 0.1], "east"),
        "c" => ([0.54, 0.4, 0.2, 0.1], "east"),
        "l" => ([0.10, 0.8, 0.2, 0.1], "lane"),
        "out" => ([0.80, 0.1, 0.1, 0.05], ""),
        // Litter: a heap, the same wavering, a bag beside it, the heap grown, a heap elsewhere, one that lies between.
        "p" => ([0.50, 0.70, 0.06, 0.05], "corner"),
        "p'" => ([0.505, 0.705, 0.055, 0.045], "corner"),
        "p+" => ([0.565, 0.71, 0.04, 0.04], "corner"),
        "P" => ([0.48, 0.69, 0.10, 0.07], "corner"),
        "q" => ([0.70, 0.70, 0.06, 0.05], "corner"),
        // A person beside `p`, one far off, a bus that stands before `p`.
        "p-by" => ([0.44, 0.58, 0.05, 0.18], ""),
        "far" => ([0.10, 0.58, 0.05, 0.18], ""),
        "before-p" => ([0.35, 0.45, 0.40, 0.40], ""),
        other => panic!("no place {other}"),
    };
    (bbox, if zone.is_empty() { Vec::new() } else { vec![slug(zone)] })
}

impl Player {
    pub fn new(rules: Rules) -> Self {
        Self {
            engine: Engine::new(rules),
            store: Store::new(),
            notes: Vec::new(),
            restart_always: false,
            law: Law::default(),
            events: Vec::new(),
            stills: Vec::new(),
            quiet_stills: Vec::new(),
            births: BTreeMap::new(),
            clock: 0.0,
        }
    }

    /// Plays a script and compares every line.
    pub fn play(&mut self, script: &str) -> &mut Self {
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (input, expected) = line.split_once("=>").unwrap_or((line, ""));
            let (time, action) = input.trim().split_once(char::is_whitespace).unwrap_or((input.trim(), "tick"));
            let time = seconds(time).unwrap_or_else(|| panic!("time in {line:?}"));
            if self.restart_always {
                self.restart_alive_until(time);
            }
            let got = self.step(time, action.trim());
            assert_eq!(got.join(", "), expected.trim(), "line {line:?}, restarts: {}", self.restart_always);
            keep(&mut self.engine, &mut self.store);
        }
        self
    }

    pub fn restart(&mut self) {
        keep(&mut self.engine, &mut self.store);
        self.restart_under(self.engine.rules().clone());
    }

    /// A restart at `time`, up to which the gateway ran and had nothing else to note.
    fn restart_alive_until(&mut self, time: f64) {
        keep(&mut self.engine, &mut self.store);
        if let Some(alive) = self.store.get_mut(b"alive".as_slice()) {
            *alive = serde_json::to_vec(&at(time)).unwrap();
        }
        self.restart();
    }

    pub fn restart_under(&mut self, rules: Rules) {
        let (engine, notes) = Engine::restore(rules, self.store.clone());
        self.engine = engine;
        self.notes.extend(notes);
    }

    /// The newest alarm data of a kind on a device, as `kind@device`.
    pub fn last(&self, what: &str) -> &AlarmData {
        let found = self.events.iter().rev().find(|event| named(&event.alarm) == what);
        &found.unwrap_or_else(|| panic!("no event of {what}")).alarm
    }

    fn step(&mut self, time: f64, action: &str) -> Vec<String> {
        let now = at(time);
        let began = std::mem::replace(&mut self.clock, time);
        let words: Vec<&str> = action.split_whitespace().collect();
        let outputs = match words.as_slice() {
            ["tick"] => self.engine.tick(now),
            [device, "beats"] => self.beats(began, time, device),
            ["restart"] => {
                self.restart();
                return Vec::new();
            }
            ["newworker"] => {
                self.births.clear();
                return Vec::new();
            }
            ["stepped", by] => {
                self.engine.clock_stepped(SignedDuration::from_secs(by.parse().unwrap()));
                return Vec::new();
            }
            [verb @ ("received" | "shelve" | "unshelve" | "out" | "testing" | "back" | "case"), words @ ..] => {
                return self.order(now, verb, words);
            }
            [verb @ ("ack" | "reset"), what] => return self.wish(now, verb, what),
            [device, what @ ..] => {
                let seen = self.observation(time, device, what);
                self.engine.observe(now, &seen)
            }
            [] => Vec::new(),
        };
        self.tell(outputs)
    }

    /// Heartbeats every half hour, from the last line's time to this one's, with the ticks between.
    fn beats(&mut self, began: f64, until: f64, device: &str) -> Vec<Output> {
        let mut outputs = Vec::new();
        let mut time = began;
        while time < until {
            time = (time + 1800.0).min(until);
            let seen = self.observation(time, device, &["heartbeat"]);
            outputs.extend(self.engine.tick(at(time)));
            outputs.extend(self.engine.observe(at(time), &seen));
        }
        outputs
    }

    fn wish(&mut self, now: Timestamp, verb: &str, what: &str) -> Vec<String> {
        let alarm_id = self
            .events
            .iter()
            .rev()
            .find(|e| named(&e.alarm) == what)
            .map_or(what.to_owned(), |e| e.alarm.alarm_id.clone());
        let command = AlarmCommand { alarm_id, operator: "op-3".into(), issued_at: now, expires_at: None };
        let answer =
            if verb == "ack" { self.engine.acknowledge(now, &command) } else { self.engine.reset(now, &command) };
        assert_eq!(answer.reason.is_some(), matches!(answer.outcome, Outcome::Refused | Outcome::Conflict));
        let mut told = vec![serde_json::to_value(answer.outcome).unwrap().as_str().unwrap().to_owned()];
        told.extend(self.tell(answer.outputs));
        told
    }

    /// `received KIND@DEVICE`, `shelve DEVICE KIND MINUTES`, `unshelve DEVICE KIND`, `out|testing DEVICE MINUTES`, `back DEVICE`,
    /// `case KIND@DEVICE STAGE [REASON]`.
    fn order(&mut self, now: Timestamp, verb: &str, words: &[&str]) -> Vec<String> {
        let terms = |minutes: &str| Terms {
            until: now + SignedDuration::from_secs((minutes.parse::<f64>().unwrap() * 60.0) as i64),
            reason: "painting".into(),
            who: "op-3".into(),
        };
        let id = |what: &str| self.last(what).alarm_id.clone();
        let shelf = |device: &str, kind: &str| Shelf {
            device: slug(device),
            kind: AlarmKind::known(kind).unwrap(),
            zone: None,
        };
        let answer = match (verb, words) {
            ("received", [what]) => {
                let id = id(what);
                self.engine.received(now, &id, u32::MAX, now);
                return Vec::new();
            }
            ("shelve", [device, kind, minutes]) => self.engine.shelve(now, &shelf(device, kind), &terms(minutes)),
            ("unshelve", [device, kind]) => self.engine.unshelve(now, &shelf(device, kind)),
            ("out", [device, minutes]) => self.engine.serve(now, &slug(device), Service::Out, &terms(minutes)),
            ("testing", [device, minutes]) => self.engine.serve(now, &slug(device), Service::Test, &terms(minutes)),
            ("back", [device]) => self.engine.end_service(now, &slug(device)),
            ("case", [what, stage, reason @ ..]) => {
                let order = CaseCommand {
                    alarm_id: id(what),
                    case_id: "C-1".into(),
                    stage: serde_json::from_value(serde_json::json!(stage)).unwrap(),
                    reason: reason.first().and_then(|reason| RejectReason::known(reason)),
                    note: None,
                    due_at: None,
                    operator: "op-3".into(),
                    issued_at: now,
                    expires_at: None,
                };
                self.engine.case(now, &order)
            }
            other => panic!("no such order: {other:?}"),
        };
        assert_eq!(answer.reason.is_some(), matches!(answer.outcome, Outcome::Refused | Outcome::Conflict));
        let mut told = vec![serde_json::to_value(answer.outcome).unwrap().as_str().unwrap().to_owned()];
        told.extend(self.tell(answer.outputs));
        told
    }

    fn tell(&mut self, outputs: Vec<Output>) -> Vec<String> {
        let mut told = Vec::new();
        for output in outputs {
            match output {
                Output::Alarm(transition) => {
                    self.law.hold(&transition);
                    told.push(describe(&transition));
                    self.events.push(transition);
                }
                Output::NeedStill(still) => match still.role {
                    StillRole::Arrival | StillRole::Overview => self.quiet_stills.push(still),
                    StillRole::PastLimit => {
                        told.push(format!("still of track {}", still.track));
                        self.stills.push(still);
                    }
                    StillRole::Cleared => {
                        told.push(format!("still {} of the clean place", still.n));
                        self.stills.push(still);
                    }
                },
                Output::DiscardStills(discard) => {
                    assert!(
                        self.engine.book.get(&discard.alarm_id).is_none(),
                        "evidence of an open alarm: {discard:?}"
                    );
                    told.push(format!("discard {}", self.name_of(&discard.alarm_id)));
                }
                Output::Warning(warning) => told.push(format!("warn {}@{}", warning.zone, warning.camera)),
            }
        }
        told
    }

    /// The track whose first picture was taken under this id.
    fn name_of(&self, alarm_id: &str) -> String {
        let asked = self.quiet_stills.iter().chain(&self.stills).find(|still| still.alarm_id == alarm_id);
        asked.map_or("a stranger".to_owned(), |still| format!("track {}", still.track))
    }

    /// `DEVICE WHAT… [sensed=S] [seq=N]`; a camera's picture is `see TRACK…` with TRACK = `car1:PLACE:SINCE`, SINCE a
    /// time or `-` for moving, and
    /// a last `:T` when it was last seen at T and is hidden now.
    fn observation(&mut self, time: f64, device: &str, words: &[&str]) -> Observation {
        let option =
            |name: &str| words.iter().find_map(|word| word.strip_prefix(name)).map(|text| seconds(text).unwrap());
        let words: Vec<&str> = words.iter().copied().filter(|word| !word.contains('=')).collect();
        let sensed = option("sensed=").unwrap_or(time);
        let origin = option("seq=").map(|seq| Origin { node: "ab".into(), boot: 1, sequence: seq as u32 });
        let what = match words.as_slice() {
            ["open"] => What::Door { open: true, repaired: false },
            ["open", "repaired"] => What::Door { open: true, repaired: true },
            ["close"] => What::Door { open: false, repaired: false },
            ["alarm"] => What::Smoke(Smoke::Alarm),
            ["clear"] => What::Smoke(Smoke::Clear),
            ["test"] => What::Smoke(Smoke::Test),
            ["hushed"] => What::Smoke(Smoke::Hushed),
            ["press"] => What::SosPressed,
            ["tamper", state] => What::Tamper(*state == "on"),
            ["dirty", state @ ("on" | "off")] => What::Contaminated(*state == "on"),
            ["worn", state @ ("on" | "off")] => What::EndOfLife(*state == "on"),
            ["fault", state @ ("on" | "off")] => What::DeviceFault(*state == "on"),
            ["battery", mv] => What::Battery { millivolts: mv.parse().unwrap(), low: false },
            ["battery", mv, "low"] => What::Battery { millivolts: mv.parse().unwrap(), low: true },
            ["lost", first, count] => What::EventsLost { first: first.parse().unwrap(), count: count.parse().unwrap() },
            ["heartbeat"] => What::Heartbeat,
            ["up"] => What::Link(Link::Up),
            ["down"] => What::Link(Link::Down("no frame for 5 s: check the cable".into())),
            ["streaming"] => What::Camera(Camera::Streaming),
            ["blind", reason] => {
                What::Camera(Camera::Fault { reason: (*reason).into(), detail: "check its power".into() })
            }
            [verb @ ("see" | "dazzled"), tracks @ ..] => What::Scene(Scene {
                tracks: tracks.iter().map(|track| self.track(sensed, track)).collect(),
                is_unclear: *verb == "dazzled",
            }),
            [which @ ("still" | "quiet"), state] => {
                let asked = if *which == "still" { &self.stills } else { &self.quiet_stills };
                let still = asked.last().expect("a picture was asked for");
                let result =
                    if *state == "taken" { Ok(picture(still.n, sensed)) } else { Err("the disk is full".into()) };
                What::Still { alarm_id: still.alarm_id.clone(), result }
            }
            other => panic!("no such observation: {other:?}"),
        };
        Observation { device: slug(device), sensed_at: at(sensed), clock: ClockQuality::Synced, origin, what }
    }

    fn track(&mut self, time: f64, text: &str) -> Track {
        let parts: Vec<&str> = text.split(':').collect();
        let (name, number) = parts[0].split_at(parts[0].find(|c: char| c.is_ascii_digit()).unwrap());
        let kind = match name {
            "car" => TrackKind::Car,
            "truck" => TrackKind::Truck,
            "bicycle" => TrackKind::Bicycle,
            "person" => TrackKind::Person,
            "motorcycle" => TrackKind::Motorcycle,
            "bus" => TrackKind::Bus,
            "garbage" => TrackKind::Garbage,
            "bin" => TrackKind::GarbageBin,
            "overflow" => TrackKind::Overflow,
            other => panic!("no kind {other}"),
        };
        let id = number.parse().unwrap();
        let (bbox, zones) = place(parts[1]);
        let last_seen = parts.get(3).map_or(time, |text| text.parse().unwrap());
        let born = *self.births.entry(id).or_insert(time);
        let standing: Option<f64> = parts[2].parse().ok();
        let first_seen_at = at(born.min(standing.unwrap_or(born)));
        Track {
            id,
            kind,
            score: 0.9,
            bbox,
            zones,
            first_seen_at,
            stationary_since: standing.map(at),
            last_seen_at: at(last_seen),
        }
    }
}

pub(super) fn picture(n: u32, taken: f64) -> EvidenceRef {
    EvidenceRef {
        n,
        sha256: "0".repeat(64),
        bytes: 1000,
        media_type: "image/jpeg".into(),
        taken_at: at(taken),
        caption: "past the limit".into(),
    }
}

/// `kind@device`, with `test` for tests.
fn named(alarm: &AlarmData) -> String {
    let test = if alarm.cap.status == CapStatus::Test { "test:" } else { "" };
    format!("{test}{}@{}", alarm.kind, alarm.device)
}

fn describe(transition: &Transition) -> String {
    let name = serde_json::to_value(transition.event_type).unwrap();
    let verb = name.as_str().unwrap().trim_start_matches("gengfu.alarm.").trim_end_matches(".v1").to_owned();
    format!("{verb} {} {}", named(&transition.alarm), transition.alarm.condition)
}

/// Plays a script about sensors straight through, and with a restart before every line.
pub(super) fn check(script: &str) -> Player {
    check_under(rules(), script)
}

/// The same under other rules.
pub(super) fn check_under(rules: Rules, script: &str) -> Player {
    let mut restarted = Player::new(rules.clone());
    restarted.restart_always = true;
    restarted.play(script);
    assert_eq!(restarted.notes, []);
    let mut straight = Player::new(rules);
    straight.play(script);
    straight
}

/// Plays a script about pictures, where a restart interrupts what was watched.
pub(super) fn check_scene(script: &str) -> Player {
    let mut player = Player::new(rules());
    player.play(script);
    player
}
