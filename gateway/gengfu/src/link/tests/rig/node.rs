//! A real node with pins that the test moves, and what it truly accepted.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use gengfu_node_linux::node::battery::{Limits, NoGauge};
use gengfu_node_linux::node::bus::BusAddress;
use gengfu_node_linux::node::contact::Contact;
use gengfu_node_linux::node::heat::NoThermometer;
use gengfu_node_linux::node::input::Input;
use gengfu_node_linux::node::smoke::{Lines, Smoke};
use gengfu_node_linux::node::sos::Sos;
use gengfu_node_linux::node::{Board, Identity, Node, Parts, Sensor, Timing, Watch, Wiring};
use gengfu_node_linux::pins::{SimPin, SimSounder};
use gengfu_wire::{Event, EventKind, FirmwareVersion, Uid};
use rand::rngs::StdRng;

use super::air::{Air, Faults};
use super::uid;

/// Everything nodes ever accepted: by boot, in order, with the true time in microseconds.
#[derive(Default)]
pub struct Truth {
    pub boots: BTreeMap<u32, Vec<(EventKind, u64)>>,
    /// What each boot was acknowledged for.
    pub acked: BTreeMap<u32, u32>,
    pub acked_news: Vec<(u32, u32)>,
}

pub struct Onlooker {
    truth: Rc<RefCell<Truth>>,
    clock: Rc<Cell<u64>>,
}

impl Watch for Onlooker {
    fn accepted(&mut self, event: &Event) {
        let mut truth = self.truth.borrow_mut();
        let boot = truth.boots.entry(event.boot).or_default();
        assert_eq!(event.sequence as usize, boot.len() + 1);
        boot.push((event.kind, self.clock.get()));
    }

    fn acked(&mut self, boot: u32, through: u32) {
        let mut truth = self.truth.borrow_mut();
        truth.acked.insert(boot, through);
        truth.acked_news.push((boot, through));
    }
}

pub struct SimBoard;

impl Board for SimBoard {
    type Pin = SimPin;
    type Gauge = NoGauge;
    type Output = SimSounder;
    type Thermometer = NoThermometer;
    type Watch = Onlooker;
}

pub struct SimNode {
    pub index: usize,
    pub uid: Uid,
    pub wiring: Wiring,
    pub door: SimPin,
    pub smoke: SimPin,
    pub sos: SimPin,
    pub sounder: SimSounder,
    /// Milliseconds between heartbeats at boot.
    pub heartbeat_ms: u32,
    /// How long its processor takes before it answers.
    pub think_us: u64,
    pub drift_ppm: i64,
    /// It has no power.
    pub is_off: bool,
    pub boots: u32,
    node: Node<SimBoard>,
    booted_us: u64,
    due_us: u64,
    truth: Rc<RefCell<Truth>>,
    clock: Rc<Cell<u64>>,
}

impl SimNode {
    pub fn new(index: usize, address: u8, truth: &Rc<RefCell<Truth>>, clock: &Rc<Cell<u64>>) -> SimNode {
        let wiring = if address == 0 { Wiring::PointToPoint } else { Wiring::Bus(BusAddress::new(address)) };
        let [door, smoke, sos] = std::array::from_fn(|_| SimPin::default());
        let sounder = SimSounder::default();
        let (truth, clock) = (Rc::clone(truth), Rc::clone(clock));
        let node = build(uid(index), boot_id(index, 1), wiring, [&door, &smoke, &sos], &sounder, 2_000, &truth, &clock);
        SimNode {
            index,
            uid: uid(index),
            wiring,
            door,
            smoke,
            sos,
            sounder,
            heartbeat_ms: 2_000,
            think_us: 1_000,
            drift_ppm: 0,
            is_off: false,
            boots: 1,
            node,
            booted_us: clock.get(),
            due_us: clock.get(),
            truth,
            clock,
        }
    }

    /// Power off and on. What the board keeps is its address.
    pub fn reboot(&mut self) {
        self.boots += 1;
        self.is_off = false;
        let pins = [&self.door, &self.smoke, &self.sos];
        let boot = boot_id(self.index, self.boots);
        let (truth, clock) = (&self.truth, &self.clock);
        self.node = build(self.uid, boot, self.wiring, pins, &self.sounder, self.heartbeat_ms, truth, clock);
        self.booted_us = self.clock.get();
        self.due_us = self.booted_us;
    }

    pub fn kept(&self) -> usize {
        self.node.stats().kept_events
    }

    /// The gateway's time as the node knows it, in milliseconds since 1970.
    pub fn time(&self, now_us: u64) -> Option<u64> {
        self.node.time(self.uptime_ms(now_us))
    }

    pub fn due_us(&self) -> u64 {
        if self.is_off { u64::MAX } else { self.due_us }
    }

    /// A pin was moved: the node's interrupt wakes it.
    pub fn wake(&mut self) {
        self.due_us = self.due_us.min(self.clock.get());
    }

    fn uptime_ms(&self, now_us: u64) -> u64 {
        let passed = i64::try_from(now_us - self.booted_us).unwrap();
        u64::try_from((passed + passed / 1_000_000 * self.drift_ppm) / 1_000).unwrap()
    }

    pub fn on_bytes(&mut self, now_us: u64, bytes: &[u8]) {
        if !self.is_off {
            self.node.on_bytes(self.uptime_ms(now_us), bytes);
            self.due_us = self.due_us.min(now_us + self.think_us);
        }
    }

    pub fn poll(&mut self, now_us: u64, random: &mut StdRng, faults: Faults, air: &mut Air) {
        let uptime_ms = self.uptime_ms(now_us);
        let from = self.index_on_wire() + 1;
        self.node.poll(uptime_ms, &mut |frame: &[u8]| {
            air.send(random, faults, now_us, from, frame);
            true
        });
        if let Some(address) = self.node.take_assigned() {
            self.wiring = Wiring::Bus(Some(address));
        }
        let wait_ms = self.node.due_at_ms(uptime_ms).saturating_sub(uptime_ms).clamp(1, 3_600_000);
        self.due_us = now_us + wait_ms * 1_000;
    }

    /// Nodes are numbered on the wire by their index, which tests keep different.
    fn index_on_wire(&self) -> usize {
        self.index
    }
}

/// Different for all nodes and all their boots.
pub fn boot_id(index: usize, boots: u32) -> u32 {
    u32::try_from(index + 1).unwrap() * 10_000 + boots
}

#[expect(clippy::too_many_arguments, reason = "what a node is made of")]
fn build(
    uid: Uid,
    boot: u32,
    wiring: Wiring,
    pins: [&SimPin; 3],
    sounder: &SimSounder,
    heartbeat_ms: u32,
    truth: &Rc<RefCell<Truth>>,
    clock: &Rc<Cell<u64>>,
) -> Node<SimBoard> {
    let [door, smoke, sos] = pins.map(|pin| Input::active_high(pin.clone()));
    let sensors = [
        (1, Sensor::Contact(Contact::new(door, 20))),
        (2, Sensor::Smoke(Smoke::new(Lines { alarm: smoke, fault: None, test: None, hush: None }))),
        (3, Sensor::Sos(Sos::new(sos))),
    ];
    let parts = Parts {
        identity: Identity { uid, boot, firmware: FirmwareVersion { major: 0, minor: 1, patch: 0 }, wiring },
        timing: Timing { heartbeat_ms, battery: Limits::default() },
        sensors: sensors.into_iter().collect(),
        gauge: None,
        sounder: Some(sounder.clone()),
        watch: Onlooker { truth: Rc::clone(truth), clock: Rc::clone(clock) },
    };
    Node::new(parts).unwrap()
}
