//! Goal: whatever happens to the line, the node, the gateway and its disk, each event that a node accepted is observed exactly once and in
//! order, or a Loss says which was not; and in the end the gateway knows how every door stands.
//! Method: the real node and the real session in one thread, simulated time, a seeded line that drops, flips, doubles, delays and is cut, a
//! disk that is slow and refuses, a gateway that dies, a node that reboots. `GENGFU_SEEDS=5000` runs more; a failure names its seed.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use gengfu_alarm::observation::{Observation, What};
use gengfu_contract::event::ClockQuality;
use gengfu_node_linux::node::battery::{Limits, NoGauge};
use gengfu_node_linux::node::contact::Contact;
use gengfu_node_linux::node::heat::NoThermometer;
use gengfu_node_linux::node::input::Input;
use gengfu_node_linux::node::smoke::{Lines, Smoke};
use gengfu_node_linux::node::sos::Sos;
use gengfu_node_linux::node::{Board, Identity, Node, Parts, Sensor, Timing, Watch, Wiring};
use gengfu_node_linux::pins::{SimPin, SimSounder};
use gengfu_wire::{Event, EventKind, FRAME_BYTES_MAX, FirmwareVersion, Uid, encode};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::session::{Batch, Session};
use super::{after_ms, alone, config, slug};

const STEP_MS: u64 = 10;

/// What the line does to frames, in thousandths, and for how long it delays them.
#[derive(Debug, Clone, Copy)]
struct Faults {
    drop: u32,
    flip: u32,
    double: u32,
    delay_ms: u64,
}

/// One direction of the wire: first in, first out, as wires are.
#[derive(Default)]
struct Line {
    bytes: VecDeque<(u64, Vec<u8>)>,
    cut_until_ms: u64,
}

impl Line {
    fn send(&mut self, random: &mut StdRng, faults: Faults, now_ms: u64, frame: &[u8]) {
        let hits = |random: &mut StdRng, thousandths| random.random_ratio(thousandths, 1_000);
        if now_ms < self.cut_until_ms || hits(random, faults.drop) {
            return;
        }
        let mut frame = frame.to_vec();
        if hits(random, faults.flip) {
            for _ in 0..random.random_range(1..8) {
                let bit = random.random_range(0..frame.len() * 8);
                frame[bit / 8] ^= 1 << (bit % 8);
            }
        }
        let last = self.bytes.back().map_or(0, |(at, _)| *at);
        let at = last.max(now_ms + random.random_range(0..=faults.delay_ms));
        let copies = if hits(random, faults.double) { 2 } else { 1 };
        for _ in 0..copies {
            self.bytes.push_back((at, frame.clone()));
        }
    }

    fn arrived(&mut self, now_ms: u64) -> Option<Vec<u8>> {
        let due = self.bytes.front().is_some_and(|(at, _)| *at <= now_ms);
        if due { self.bytes.pop_front().map(|(_, bytes)| bytes) } else { None }
    }
}

/// Everything a node ever accepted: by boot, in order, with the true time.
#[derive(Default)]
struct Truth {
    boots: BTreeMap<u32, Vec<(EventKind, u64)>>,
    /// What each boot was acknowledged for.
    acked: BTreeMap<u32, u32>,
}

struct Onlooker {
    truth: Rc<RefCell<Truth>>,
    now_ms: Rc<RefCell<u64>>,
}

impl Watch for Onlooker {
    fn accepted(&mut self, event: &Event) {
        let mut truth = self.truth.borrow_mut();
        let boot = truth.boots.entry(event.boot).or_default();
        assert_eq!(event.sequence as usize, boot.len() + 1);
        boot.push((event.kind, *self.now_ms.borrow()));
    }

    fn acked(&mut self, boot: u32, through: u32) {
        self.truth.borrow_mut().acked.insert(boot, through);
    }
}

struct SimBoard;
impl Board for SimBoard {
    type Pin = SimPin;
    type Gauge = NoGauge;
    type Output = SimSounder;
    type Thermometer = NoThermometer;
    type Watch = Onlooker;
}

struct World {
    seed: u64,
    random: StdRng,
    faults: Faults,
    now_ms: u64,
    shared_now_ms: Rc<RefCell<u64>>,
    truth: Rc<RefCell<Truth>>,
    door: SimPin,
    smoke: SimPin,
    sos: SimPin,
    node: Node<SimBoard>,
    booted_ms: u64,
    drift_ppm: i64,
    boots: u32,
    up: Line,
    down: Line,
    session: Session,
    stored_cursor: Vec<u8>,
    stored: Vec<Observation>,
    writing: Option<(u64, Batch)>,
    /// How fast things happen: one in so many steps.
    bustle: u32,
}

fn node(boot: u32, pins: [&SimPin; 3], truth: &Rc<RefCell<Truth>>, now_ms: &Rc<RefCell<u64>>) -> Node<SimBoard> {
    let [door, smoke, sos] = pins.map(|pin| Input::active_high(pin.clone()));
    let sensors = [
        (1, Sensor::Contact(Contact::new(door, 20))),
        (2, Sensor::Smoke(Smoke::new(Lines { alarm: smoke, fault: None, test: None, hush: None }))),
        (3, Sensor::Sos(Sos::new(sos))),
    ];
    let firmware = FirmwareVersion { major: 0, minor: 1, patch: 0 };
    let parts = Parts {
        identity: Identity { uid: Uid([7; 8]), boot, firmware, wiring: Wiring::PointToPoint },
        timing: Timing { heartbeat_ms: 2_000, battery: Limits::default() },
        sensors: sensors.into_iter().collect(),
        gauge: None,
        sounder: None,
        watch: Onlooker { truth: Rc::clone(truth), now_ms: Rc::clone(now_ms) },
    };
    Node::new(parts).unwrap()
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = StdRng::seed_from_u64(seed);
        let bad = random.random_range(0..300);
        let faults = Faults {
            drop: random.random_range(0..=bad),
            flip: random.random_range(0..=bad),
            double: random.random_range(0..=bad),
            delay_ms: random.random_range(0..200),
        };
        let (truth, shared_now_ms) = (Rc::default(), Rc::default());
        let [door, smoke, sos] = std::array::from_fn(|_| SimPin::default());
        let mut session = Session::new(&alone(config()), config(), None, after_ms(0));
        session.port_opened(after_ms(0));
        World {
            seed,
            faults,
            now_ms: 0,
            node: node(1, [&door, &smoke, &sos], &truth, &shared_now_ms),
            shared_now_ms,
            truth,
            door,
            smoke,
            sos,
            booted_ms: 0,
            drift_ppm: random.random_range(-200..200),
            boots: 1,
            up: Line::default(),
            down: Line::default(),
            session,
            stored_cursor: vec![],
            stored: vec![],
            writing: None,
            bustle: random.random_range(5..100),
            random,
        }
    }

    fn uptime_ms(&self) -> u64 {
        let passed = i64::try_from(self.now_ms - self.booted_ms).unwrap();
        u64::try_from(passed + passed * self.drift_ppm / 1_000_000).unwrap()
    }

    fn step(&mut self) {
        self.now_ms += STEP_MS;
        *self.shared_now_ms.borrow_mut() = self.now_ms;
        let uptime_ms = self.uptime_ms();
        while let Some(bytes) = self.down.arrived(self.now_ms) {
            self.node.on_bytes(uptime_ms, &bytes);
        }
        let (random, faults, now_ms, up) = (&mut self.random, self.faults, self.now_ms, &mut self.up);
        self.node.poll(uptime_ms, &mut |frame: &[u8]| {
            up.send(random, faults, now_ms, frame);
            true
        });
        let now = after_ms(self.now_ms);
        while let Some(bytes) = self.up.arrived(self.now_ms) {
            self.session.on_bytes(now, ClockQuality::Synced, &bytes);
        }
        if self.now_ms.is_multiple_of(250) {
            self.session.tick(now, ClockQuality::Synced);
        }
        self.disk();
        let mut buffer = [0; FRAME_BYTES_MAX];
        while let Some(frame) = self.session.take_send(now) {
            let bytes = encode(&frame, &mut buffer).unwrap();
            self.down.send(&mut self.random, self.faults, self.now_ms, bytes);
        }
        for seen in &self.stored {
            assert!(seen.sensed_at <= now, "seed {}: seen in the future: {seen:?}", self.seed);
        }
        self.check_acks();
    }

    /// The node was acknowledged only for what the disk has (W19).
    fn check_acks(&self) {
        let truth = self.truth.borrow();
        let Some((boot, through)) = truth.acked.last_key_value() else { return };
        let cursor = super::super::cursor::Cursor::from_bytes(&self.stored_cursor).unwrap();
        assert!(
            cursor.through(*boot).is_some_and(|stored| stored >= *through),
            "seed {}: acknowledged too early",
            self.seed
        );
    }

    fn disk(&mut self) {
        if self.writing.is_none()
            && let Some(batch) = self.session.take_batch()
        {
            self.writing = Some((self.now_ms + self.random.random_range(0..300), batch));
        }
        if let Some((_, batch)) = self.writing.take_if(|(at, _)| *at <= self.now_ms) {
            if self.faults.drop > 0 && self.random.random_ratio(1, 20) {
                self.session.failed();
            } else {
                self.keep(batch);
                self.session.committed();
            }
        }
    }

    fn keep(&mut self, batch: Batch) {
        self.stored_cursor = batch.cursor.to_bytes();
        self.stored.extend(batch.observations);
    }

    fn mischief(&mut self) {
        let odds = |random: &mut StdRng, one_in| random.random_ratio(1, one_in);
        if odds(&mut self.random, self.bustle) {
            self.door.set(!self.door.get());
        }
        if odds(&mut self.random, self.bustle * 8) {
            self.smoke.set(!self.smoke.get());
        }
        if odds(&mut self.random, self.bustle * 8) {
            self.sos.set(!self.sos.get());
        }
        if odds(&mut self.random, 2_000) {
            let until = self.now_ms + self.random.random_range(100..40_000);
            self.up.cut_until_ms = until;
            if self.random.random() {
                self.down.cut_until_ms = until;
            }
        }
        if odds(&mut self.random, 2_500) {
            self.gateway_dies();
        }
        if odds(&mut self.random, 6_000) {
            self.node_reboots();
        }
    }

    fn gateway_dies(&mut self) {
        // The write on its way may have reached the disk or not; the session never learns.
        if let Some((_, batch)) = self.writing.take()
            && self.random.random()
        {
            self.keep(batch);
        }
        self.up.bytes.clear();
        self.session = Session::new(
            &alone(config()),
            config(),
            Some(&self.stored_cursor).filter(|it| !it.is_empty()).map(Vec::as_slice),
            after_ms(self.now_ms),
        );
        self.session.port_opened(after_ms(self.now_ms));
    }

    fn node_reboots(&mut self) {
        self.boots += 1;
        self.booted_ms = self.now_ms;
        self.node = node(self.boots, [&self.door, &self.smoke, &self.sos], &self.truth, &self.shared_now_ms);
    }

    /// Everything works again; long enough for all that is kept to be delivered and all levels to be told.
    fn heal(&mut self) {
        self.faults = Faults { drop: 0, flip: 0, double: 0, delay_ms: 20 };
        self.up.cut_until_ms = 0;
        self.down.cut_until_ms = 0;
        let end = self.now_ms + 60_000;
        while self.now_ms < end {
            self.step();
        }
        assert!(self.node.outbox().is_empty(), "seed {}: still kept: {:?}", self.seed, self.node.outbox());
    }

    fn judge(&self) {
        let seed = self.seed;
        let truth = self.truth.borrow();
        let mut taken: BTreeMap<u32, u32> = BTreeMap::new();
        for seen in &self.stored {
            let Some(origin) = &seen.origin else { continue };
            let through = taken.entry(origin.boot).or_default();
            assert_eq!(origin.sequence, *through + 1, "seed {seed}: boot {} out of order: {seen:?}", origin.boot);
            if let What::EventsLost { first, count } = seen.what {
                assert_eq!(first, origin.sequence, "seed {seed}");
                *through += count;
                continue;
            }
            *through += 1;
            let (kind, at_ms) = truth.boots[&origin.boot][origin.sequence as usize - 1];
            assert_eq!(seen.what, super::super::mapping::event(kind), "seed {seed}: {seen:?}");
            let error_ms = seen.sensed_at.duration_since(after_ms(at_ms)).as_millis();
            assert!((-300..=300).contains(&error_ms), "seed {seed}: wrong by {error_ms} ms: {seen:?}");
        }
        for (boot, events) in &truth.boots {
            let accepted = u32::try_from(events.len()).unwrap();
            let through = taken.get(boot).copied().unwrap_or_default();
            // A rebooted node forgot its last events; of these the gateway tells as lost what it had heard of.
            assert!(through <= accepted, "seed {seed}: boot {boot}: more taken than accepted");
            assert!(*boot < self.boots || through == accepted, "seed {seed}: {through} of {accepted} taken");
            let acked = truth.acked.get(boot).copied().unwrap_or_default();
            assert!(through >= acked, "seed {seed}: boot {boot}: acknowledged {acked}, taken {through}");
        }
        let last_door = self.stored.iter().rev().find_map(|it| match it.what {
            What::Door { open, .. } if it.device == slug("door") => Some(open),
            _ => None,
        });
        assert_eq!(last_door, Some(self.door.get()), "seed {seed}: the door's level");
    }
}

fn live(seed: u64) -> World {
    let mut world = World::new(seed);
    let calm = world.random.random_range(500..12_000);
    for _ in 0..calm {
        world.mischief();
        world.step();
    }
    world.heal();
    world.judge();
    world
}

#[test]
fn w20_every_accepted_event_is_observed_once_and_in_order_or_its_loss_is_told() {
    let seeds = std::env::var("GENGFU_SEEDS").ok().and_then(|it| it.parse().ok()).unwrap_or(300);
    let (mut events, mut losses, mut repaired, mut boots) = (0_usize, 0_usize, 0_usize, 0_u32);
    for seed in 0..seeds {
        let world = live(seed);
        events += world.stored.iter().filter(|it| it.origin.is_some()).count();
        losses += world.stored.iter().filter(|it| matches!(it.what, What::EventsLost { .. })).count();
        repaired += world.stored.iter().filter(|it| matches!(it.what, What::Door { repaired: true, .. })).count();
        boots += world.boots;
    }
    println!("{seeds} seeds: {events} events taken, {losses} losses told, {repaired} levels repaired, {boots} boots");
    assert!(
        losses > 0 && repaired > 0 && events > 10 * seeds as usize,
        "the simulation no longer reaches what it is for"
    );
}

#[test]
fn a_seed_gives_the_same_life_twice() {
    let told = |seed| live(seed).stored;
    assert_eq!(told(4), told(4));
    assert_ne!(told(4), told(5));
}
