//! Thousands of random steps, seeded.
//!
//! Goal: whatever the sensors, cameras, people and the clock do, the laws of alarms hold, the same input gives the
//! same output, and
//! a restart at any point changes nothing that comes after. Method: two engines get the same steps; one is
//! restarted from its store at random points, the other only loses at these points what a restart cannot keep (what cameras
//! were showing). Both must say the same from then on. The seed stands in every failure.

use std::collections::BTreeSet;

use gengfu_contract::case::CaseStage;
use gengfu_contract::words::Text;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::*;
use crate::Trouble;
use crate::policy::{CareRule, NotOpened, SupervisionClass};

/// A small street: vehicles that come, stand, hide and go; sensors that do anything.
struct Street {
    rng: StdRng,
    /// The gateway's clock, which may be set.
    time: f64,
    /// The time that truly passes: what a vehicle's times are in. A worker tells them relative to its picture.
    true_time: f64,
    vehicles: Vec<Vehicle>,
    next_track: u64,
    sequence: u32,
    asked: Vec<NeedStill>,
    is_unclear: bool,
}

#[derive(Clone)]
struct Vehicle {
    track: u64,
    kind: TrackKind,
    place: &'static str,
    first_seen: f64,
    standing: Option<f64>,
    last_seen: f64,
}

impl Street {
    fn new(seed: u64) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        Self {
            rng,
            time: 10_000.0,
            true_time: 0.0,
            vehicles: Vec::new(),
            next_track: 1,
            sequence: 1,
            asked: Vec::new(),
            is_unclear: false,
        }
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        *from.choose(&mut self.rng).unwrap()
    }

    fn drive(&mut self) {
        let (time, next) = (self.true_time, self.next_track);
        match self.rng.random_range(0..12) {
            0 | 1 if self.vehicles.len() < 5 => {
                let kind = self.pick(&[
                    TrackKind::Car,
                    TrackKind::Car,
                    TrackKind::Truck,
                    TrackKind::Person,
                    TrackKind::Bicycle,
                    TrackKind::Garbage,
                    TrackKind::Overflow,
                ]);
                let place = match kind {
                    TrackKind::Garbage | TrackKind::Overflow => self.pick(&["p", "q", "p'"]),
                    TrackKind::Person => self.pick(&["a", "p-by", "far", "out"]),
                    _ => self.pick(&["a", "b", "c", "l", "out", "before-p"]),
                };
                self.next_track += 1;
                self.vehicles.push(Vehicle {
                    track: next,
                    kind,
                    place,
                    first_seen: time,
                    standing: None,
                    last_seen: time,
                });
            }
            2 => {
                let place = self.pick(&["a", "b", "c", "l", "out", "a'", "a/"]);
                // Litter lies where it lies.
                if let Some(vehicle) = self.vehicles.first_mut().filter(|vehicle| !vehicle.kind.is_waste()) {
                    (vehicle.place, vehicle.standing) = (place, None);
                    self.vehicles.rotate_left(1);
                }
            }
            3 => {
                self.vehicles.pop();
            }
            // Lost and found under a new number; sometimes all at once, as with a new worker.
            4 => {
                let all = self.rng.random_bool(0.3);
                for vehicle in self.vehicles.iter_mut().take(if all { 9 } else { 1 }) {
                    (vehicle.track, vehicle.first_seen, vehicle.standing) = (self.next_track, time, None);
                    self.next_track += 1;
                }
            }
            _ => {}
        }
        let mut rng = self.rng.clone();
        for vehicle in &mut self.vehicles {
            if vehicle.standing.is_none() && rng.random_bool(0.6) {
                vehicle.standing = Some(time);
            }
            if rng.random_bool(0.85) {
                vehicle.last_seen = time;
            }
        }
        self.rng = rng;
    }

    fn scene(&mut self) -> What {
        self.drive();
        self.is_unclear = self.rng.random_bool(0.05);
        self.picture()
    }

    fn picture(&self) -> What {
        let wall = |time: f64| at(self.time - (self.true_time - time));
        let tracks = self.vehicles.iter().map(|vehicle| {
            let (bbox, zones) = place(vehicle.place);
            Track {
                id: vehicle.track,
                kind: vehicle.kind,
                score: if vehicle.track % 7 == 0 { f32::NAN } else { 0.85 },
                bbox: if vehicle.track % 11 == 0 { [f32::NAN, 0.0, 0.1, 0.1] } else { bbox },
                zones,
                first_seen_at: wall(vehicle.first_seen),
                stationary_since: vehicle.standing.map(wall),
                last_seen_at: wall(vehicle.last_seen),
            }
        });
        What::Scene(Scene { tracks: tracks.collect(), is_unclear: self.is_unclear })
    }

    fn still(&mut self) -> What {
        let known =
            self.asked.choose(&mut self.rng).map_or(("01ARZ".to_owned(), 1), |still| (still.alarm_id.clone(), still.n));
        let result = if self.rng.random_bool(0.7) { Ok(picture(known.1, self.time)) } else { Err("no picture".into()) };
        What::Still { alarm_id: known.0, result }
    }

    fn observation(&mut self) -> Observation {
        let yes = self.rng.random_bool(0.5);
        let (device, what) = match self.rng.random_range(0..45) {
            0..22 => ("cam", self.scene()),
            22 | 23 => ("cam", self.still()),
            24 => ("cam", What::Camera(Camera::Streaming)),
            25 => (
                "cam",
                What::Camera(Camera::Fault { reason: self.pick(&["dark", "frozen"]).into(), detail: "d".into() }),
            ),
            26..29 => ("door", What::Door { open: yes, repaired: self.rng.random_bool(0.2) }),
            29..32 => {
                let reading = self.pick(&[Smoke::Alarm, Smoke::Clear, Smoke::Clear, Smoke::Test, Smoke::Hushed]);
                (self.pick(&["smoke", "smoke-b", "smoke-c"]), What::Smoke(reading))
            }
            32 => ("sos", What::SosPressed),
            33 => ("node", What::Tamper(yes)),
            34 => ("node", What::Battery { millivolts: self.rng.random_range(2300..3100), low: yes }),
            35 => ("node", What::EventsLost { first: self.rng.random_range(0..3), count: self.rng.random_range(0..3) }),
            36 => {
                let what = self.pick(&[What::DeviceFault as fn(bool) -> What, What::Contaminated, What::EndOfLife]);
                ("smoke", what(yes))
            }
            37 => ("node", What::Link(if yes { Link::Up } else { Link::Down("cable".into()) })),
            38 => ("node", What::Heartbeat),
            39 => ("line", What::Link(if yes { Link::Up } else { Link::Down("no answer".into()) })),
            40 => (
                self.pick(&["head-x", "gate-x"]),
                What::Link(if yes { Link::Up } else { Link::Down("no answer".into()) }),
            ),
            41 => (self.pick(&["head-x", "gate-x"]), What::Heartbeat),
            42 => ("gate-x", What::Door { open: yes, repaired: false }),
            43 => ("head-x", What::Smoke(self.pick(&[Smoke::Alarm, Smoke::Clear, Smoke::Clear]))),
            _ => ("stranger", What::Door { open: yes, repaired: false }),
        };
        self.sequence += 1;
        let sequence = if self.rng.random_bool(0.05) { self.sequence.saturating_sub(3) } else { self.sequence };
        let origin =
            (device != "cam" && self.rng.random_bool(0.8)).then(|| Origin { node: "ab".into(), boot: 1, sequence });
        let late = if device != "cam" && self.rng.random_bool(0.1) { self.rng.random_range(0.0..200.0) } else { 0.0 };
        let clock = if self.rng.random_bool(0.9) { ClockQuality::Synced } else { ClockQuality::Unsynced };
        Observation { device: slug(device), sensed_at: at(self.time - late), clock, origin, what }
    }

    fn pass_time(&mut self) {
        let (passed, set) = match self.rng.random_range(0..200) {
            0 => (0.1, -self.rng.random_range(0.0..5_000.0)),
            1 => (0.1, self.rng.random_range(0.0..5_000.0)),
            2 => (self.rng.random_range(0.0..5_000.0), 0.0),
            3..7 => (self.rng.random_range(0.0..70.0), 0.0),
            7..20 => (0.0, 0.0),
            _ => (self.rng.random_range(0.1..3.0), 0.0),
        };
        self.true_time += passed;
        self.time += passed + set;
    }
}

/// One step on one engine.
enum Step {
    Observe(Box<Observation>),
    Tick,
    Stepped(i64),
    Report {
        trouble: Trouble,
        present: bool,
    },
    Wish {
        reset: bool,
        command: AlarmCommand,
    },
    /// The centre has the event that asks, of one of the alarms that ask.
    Received(usize),
    Shelve {
        shelf: Shelf,
        minutes: i64,
    },
    Unshelve(Shelf),
    Serve {
        device: &'static str,
        service: Service,
        minutes: i64,
    },
    Back(&'static str),
    Case(Box<CaseCommand>),
    Drill {
        begins: bool,
    },
}

impl Street {
    fn step(&mut self, open: &[String]) -> Step {
        self.pass_time();
        match self.rng.random_range(0..100) {
            0..70 => Step::Observe(Box::new(self.observation())),
            70..90 => Step::Tick,
            90 => Step::Stepped(self.rng.random_range(-100..100)),
            91 => Step::Report {
                trouble: self.pick(&[
                    Trouble::BusDown,
                    Trouble::Clock,
                    Trouble::TxOverdue,
                    Trouble::EndOfLife,
                    Trouble::Contaminated,
                    Trouble::Certificate,
                ]),
                present: self.rng.random_bool(0.5),
            },
            92..95 => Step::Received(self.rng.random_range(0..3)),
            95 | 96 => self.people(open),
            _ => {
                let alarm_id = open.choose(&mut self.rng).cloned().unwrap_or_else(|| "01ARZ".into());
                let issued_at = at(self.time);
                Step::Wish {
                    reset: self.rng.random_bool(0.4),
                    command: AlarmCommand { alarm_id, operator: "op".into(), issued_at, expires_at: None },
                }
            }
        }
    }
}

impl Street {
    /// What people order, also beyond what is allowed.
    fn people(&mut self, open: &[String]) -> Step {
        let kinds = [
            AlarmKind::Smoke,
            AlarmKind::Sos,
            AlarmKind::DoorLeftOpen,
            AlarmKind::IllegalParking,
            AlarmKind::FireLaneBlocked,
            AlarmKind::SensorLost,
            AlarmKind::NotOpened,
            AlarmKind::TxOverdue,
        ];
        let shelf = Shelf {
            device: slug(self.pick(&["door", "cam", "smoke", "sos", "node", "gate-x", "gw-1"])),
            kind: self.pick(&kinds),
            zone: self.rng.random_bool(0.2).then(|| slug("east")),
        };
        let device = self.pick(&["door", "smoke", "sos", "node", "cam", "head-x"]);
        let minutes = self.rng.random_range(-1..12);
        match self.rng.random_range(0..10) {
            0..4 => Step::Shelve { shelf, minutes },
            4 => Step::Unshelve(shelf),
            5 => Step::Serve { device, service: Service::Out, minutes },
            6 => Step::Serve { device, service: Service::Test, minutes },
            7 => Step::Back(device),
            8 => Step::Drill { begins: self.rng.random_bool(0.5) },
            _ => {
                let stages = [
                    CaseStage::Reported,
                    CaseStage::Filed,
                    CaseStage::Rejected,
                    CaseStage::Dispatched,
                    CaseStage::Closed,
                ];
                let order = CaseCommand {
                    alarm_id: open.choose(&mut self.rng).cloned().unwrap_or_else(|| "01ARZ".into()),
                    case_id: "C-1".into(),
                    stage: self.pick(&stages),
                    reason: self.rng.random_bool(0.7).then_some(RejectReason::Steam),
                    note: None,
                    due_at: None,
                    operator: "op".into(),
                    issued_at: at(self.time),
                    expires_at: None,
                };
                Step::Case(Box::new(order))
            }
        }
    }
}

fn apply(engine: &mut Engine, now: Timestamp, step: &Step) -> Vec<Output> {
    match step {
        Step::Observe(seen) => engine.observe(now, seen),
        Step::Tick => engine.tick(now),
        Step::Stepped(seconds) => {
            engine.clock_stepped(SignedDuration::from_secs(*seconds));
            Vec::new()
        }
        Step::Report { trouble, present } => {
            let device = match trouble {
                Trouble::BusDown => "line",
                Trouble::Clock | Trouble::TxOverdue | Trouble::Drill | Trouble::Certificate => "gw-1",
                Trouble::EndOfLife | Trouble::Contaminated => "head-x",
            };
            let text = Text { zh: "说明".into(), en: "it is so".into() };
            engine.report(now, &slug(device), *trouble, *present, &text)
        }
        Step::Received(n) => {
            let asking = engine.asking().nth(*n).map(|asking| (asking.alarm_id.to_owned(), asking.rev));
            if let Some((alarm_id, rev)) = asking {
                engine.received(now, &alarm_id, rev, now);
            }
            Vec::new()
        }
        Step::Shelve { shelf, minutes } => engine.shelve(now, shelf, &terms(now, *minutes)).outputs,
        Step::Unshelve(shelf) => engine.unshelve(now, shelf).outputs,
        Step::Serve { device, service, minutes } => {
            engine.serve(now, &slug(device), *service, &terms(now, *minutes)).outputs
        }
        Step::Back(device) => engine.end_service(now, &slug(device)).outputs,
        Step::Case(order) => engine.case(now, order).outputs,
        Step::Drill { begins: true } => engine.begin_drill(now, ClockQuality::Synced, true),
        Step::Drill { begins: false } => engine.end_drill(now, ClockQuality::Synced, None),
        Step::Wish { reset: true, command } => engine.reset(now, command).outputs,
        Step::Wish { reset: false, command } => engine.acknowledge(now, command).outputs,
    }
}

fn terms(now: Timestamp, minutes: i64) -> Terms {
    Terms { until: now + SignedDuration::from_mins(minutes), reason: "works".into(), who: "op".into() }
}

/// At most one open alarm per subject, and no picture asked for twice.
fn one_of_each(engine: &Engine, seed: u64) {
    let mut subjects = BTreeSet::new();
    for alarm in engine.book.iter() {
        assert!(subjects.insert(&alarm.subject), "seed {seed}: two alarms about {:?}", alarm.subject);
        assert!(alarm.machine.condition().is_open(), "seed {seed}: {:?} is over and still kept", alarm.subject);
    }
    let mut live: Vec<_> = engine.heaps.iter().filter(|heap| heap.is_live()).collect();
    live.sort_by_key(|heap| heap.serial);
    for (n, heap) in live.iter().enumerate() {
        let raised = |heap: &crate::heap::Heap| matches!(heap.stage, crate::heap::HeapStage::Raised { .. });
        let same = |other: &&&crate::heap::Heap| crate::place::is_same(heap.origin, other.origin);
        let twice = live[..n].iter().filter(|other| raised(other) && raised(heap)).find(same);
        assert!(twice.is_none(), "seed {seed}: one pile, two cases: {heap:?} and {twice:?}");
    }
    for spot in engine.spots.iter() {
        assert!(spot.absent_ms >= 0 && crate::place::is_usable(spot.bbox), "seed {seed}: {spot:?}");
    }
}

impl Street {
    /// The street comes to rest, one vehicle at a place, in full view for four minutes. Returns how many stand where
    /// they must not.
    fn rest(&mut self, engine: &mut Engine, law: &mut Law) -> usize {
        let mut places = BTreeSet::new();
        self.vehicles.retain(|vehicle| places.insert(vehicle.place.trim_end_matches(['\'', '/'])));
        let streaming = Observation {
            device: slug("cam"),
            sensed_at: at(self.time),
            clock: ClockQuality::Synced,
            origin: None,
            what: What::Camera(Camera::Streaming),
        };
        let mut hold = |outputs: Vec<Output>| {
            for output in outputs {
                if let Output::Alarm(transition) = output {
                    law.hold(&transition);
                }
            }
        };
        hold(engine.observe(at(self.time), &streaming));
        self.is_unclear = false;
        for _ in 0..240 {
            self.time += 2.0;
            self.true_time += 2.0;
            for vehicle in &mut self.vehicles {
                vehicle.last_seen = self.true_time;
                vehicle.standing.get_or_insert(self.true_time);
            }
            let scene = Observation { sensed_at: at(self.time), what: self.picture(), ..streaming.clone() };
            hold(engine.observe(at(self.time), &scene));
            hold(engine.tick(at(self.time)));
        }
        let What::Scene(scene) = self.picture() else { return 0 };
        let litter_is_hidden = self.vehicles.iter().any(|vehicle| ["before-p", "p-by"].contains(&vehicle.place));
        let counts = |track: &&Track| {
            let told = track.kind.is_motor_vehicle() || (track.kind.is_waste() && !litter_is_hidden);
            told && !track.zones.is_empty() && track.bbox[0].is_finite()
        };
        scene.tracks.iter().filter(counts).count()
    }
}

fn raises_what_hangs_on_the_line(output: &Output, active_before: &BTreeSet<String>) -> bool {
    matches!(output, Output::Alarm(one) if one.event_type == EventType::AlarmRaised
        && one.alarm.kind == AlarmKind::SensorLost && ["head-x", "gate-x"].contains(&one.alarm.device.as_str())
        && !active_before.contains(&one.alarm.alarm_id))
}

/// The street's site, supervised, with a home whose limits are minutes.
fn site() -> Rules {
    let mut rules = rules();
    let mut waste = ZoneRule::new(ZoneKind::Waste, Duration::from_secs(60));
    (waste.overflow_limit, waste.clear_after) = (Duration::from_secs(120), Duration::from_secs(30));
    rules.zones.insert((slug("cam"), slug("corner")), waste);
    rules.timing.supervision.enabled = true;
    // A line of another maker's devices, with a class of its own.
    let bus = DeviceRule { class: DeviceClass::Bus, supervision: Some(SupervisionClass::S1), ..DeviceRule::default() };
    rules.devices.insert(slug("line"), bus);
    for (name, class) in [("head-x", DeviceClass::Smoke), ("gate-x", DeviceClass::Door)] {
        let parent = Some(slug("line"));
        let supervision = Some(SupervisionClass::S1);
        rules.devices.insert(slug(name), DeviceRule { class, parent, supervision, ..DeviceRule::default() });
    }
    let minutes = |n: u64| Duration::from_secs(n * 60);
    let limits = NotOpened { yellow: minutes(3), orange: minutes(6), red: minutes(12), longest_first: minutes(10) };
    for door in ["door", "gate-x"] {
        rules.timing.care.homes.insert(slug(door), CareRule { limits: Some(limits), ..CareRule::default() });
    }
    rules
}

/// Plays a seed; restarts with the given probability at each step. Returns every output.
fn run(seed: u64, steps: usize, restarts: f64) -> Vec<Output> {
    let mut street = Street::new(seed);
    let mut cuts = StdRng::seed_from_u64(seed ^ 0x5eed);
    let site = site();
    let (mut straight, mut restarted) = (Engine::new(site.clone()), Engine::new(site.clone()));
    let (mut law, mut store, mut all) = (Law::default(), Store::new(), Vec::new());
    for n in 0..steps {
        let open: Vec<String> = straight.open_alarms().map(|alarm| alarm.alarm_id.clone()).collect();
        let step = street.step(&open);
        let now = at(street.time);
        let bus = crate::book::Subject::of(&slug("line"), AlarmKind::BusDown);
        let down_before = straight.book.is_active(&bus);
        let active = |engine: &Engine| -> BTreeSet<String> {
            let active = engine.book.iter().filter(|alarm| alarm.machine.is_active());
            active.map(|alarm| alarm.data.alarm_id.clone()).collect()
        };
        let active_before = active(&straight);
        let out = apply(&mut straight, now, &step);
        if down_before && straight.book.is_active(&bus) {
            assert!(
                // What was told before the bus went down may count again when people give the device back.
                !out.iter().any(|one| raises_what_hangs_on_the_line(one, &active_before)),
                "seed {seed}, step {n}: the bus explains it: {out:?}"
            );
        }
        assert_eq!(out, apply(&mut restarted, now, &step), "seed {seed}, step {n}: a restart changed what came after");
        assert_eq!(straight.next_due(), restarted.next_due(), "seed {seed}, step {n}: timers differ after a restart");
        for output in &out {
            match output {
                Output::Alarm(transition) => law.hold(transition),
                Output::NeedStill(still) => street.asked.push(still.clone()),
                Output::DiscardStills(discard) => {
                    let is_open = straight.book.get(&discard.alarm_id).is_some();
                    assert!(!is_open, "seed {seed}, step {n}: evidence of an open alarm is discarded: {discard:?}");
                }
                Output::Warning(_) => {}
            }
        }
        one_of_each(&straight, seed);
        all.extend(out);
        keep(&mut restarted, &mut store);
        straight.take_changes();
        if cuts.random_bool(restarts) {
            let (again, notes) = Engine::restore(site.clone(), store.clone());
            // A device that was never configured is forgotten on purpose.
            assert!(notes.iter().all(|note| note.to_string().contains("stranger")), "seed {seed}, step {n}: {notes:?}");
            restarted = again;
            straight.forget_unwritten();
            straight.devices.remove("stranger");
        }
    }
    let standing = street.rest(&mut straight, &mut law);
    // Litter that somebody or something hides may be an alarm from before, or none yet.
    let hidden = street.vehicles.iter().any(|vehicle| ["before-p", "p-by"].contains(&vehicle.place));
    let counts = |alarm: &&crate::book::Alarm| {
        let is_litter = matches!(alarm.subject.kind, AlarmKind::Litter | AlarmKind::BinOverflow);
        alarm.subject.spot.is_some() && alarm.machine.is_active() && !(is_litter && hidden)
    };
    let raised: Vec<_> = straight.book.iter().filter(counts).map(|alarm| &alarm.subject).collect();
    let there: Vec<_> = street.vehicles.iter().map(|vehicle| (vehicle.kind, vehicle.place, vehicle.track)).collect();
    assert_eq!(
        raised.len(),
        standing,
        "seed {seed}: {raised:?} where one for each of {there:?} and no other should be"
    );
    all
}

#[test]
fn whatever_happens_the_laws_hold_and_the_same_input_gives_the_same_output() {
    let mut kinds = BTreeSet::new();
    for seed in 0..60 {
        let once = run(seed, 600, 0.0);
        assert_eq!(once, run(seed, 600, 0.0), "seed {seed}");
        kinds.extend(once.iter().filter_map(|output| match output {
            Output::Alarm(transition) => Some((transition.alarm.kind, transition.event_type)),
            Output::NeedStill(_) | Output::DiscardStills(_) | Output::Warning(_) => None,
        }));
    }
    assert!(kinds.len() > 40, "the street is too quiet to prove anything: {kinds:?}");
}

#[test]
fn a_restart_at_any_point_changes_nothing_that_comes_after() {
    for seed in 1000..1060 {
        run(seed, 600, 0.1);
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 48, ..Default::default() })]

    /// Any seed and any restart rate; a failing one is written down and replayed first.
    #[test]
    fn any_seed_holds(seed: u64, restarts in 0.0..1.0f64) {
        run(seed, 250, restarts);
    }
}
