//! A building in one thread: real nodes, the real line of a port, a wire with byte times and collisions, and a decider with a disk that may refuse.
//! Time is simulated and jumps to the next thing that happens; one seed decides everything.

pub mod air;
pub mod disk;
pub mod node;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use gengfu_contract::event::ClockQuality;
use gengfu_wire::Uid;
use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::bus::Moment;
use super::super::line::Line;
use super::super::{BusConfig, NodeConfig, PortConfig};
use super::{config, slug, start};
use air::{Air, Faults};
use disk::Disk;
use node::{SimNode, Truth};

pub const TICK_US: u64 = 250_000;
const BAUD: u32 = 115_200;

pub struct Rig {
    pub random: StdRng,
    pub faults: Faults,
    pub now_us: u64,
    pub nodes: Vec<SimNode>,
    pub air: Air,
    pub port: PortConfig,
    pub line: Line,
    pub disk: Disk,
    pub truth: Rc<RefCell<Truth>>,
    clock: Rc<Cell<u64>>,
    out: Vec<u8>,
    tick_us: u64,
}

pub fn at_us(us: u64) -> Timestamp {
    start() + SignedDuration::from_micros(i64::try_from(us).unwrap())
}

/// Node `index` with its devices, as configured at the gateway.
pub fn node_config(index: usize, address: u8) -> NodeConfig {
    let channels = config().channels.into_iter();
    let channels = channels.map(|(channel, (name, class))| (channel, (slug(&format!("{name}-{index}")), class)));
    NodeConfig { node: slug(&format!("node-{index}")), address, channels: channels.collect(), ..config() }
}

pub fn uid(index: usize) -> Uid {
    Uid([2, 0, 0, 0, 0, 0, 0, u8::try_from(index).unwrap()])
}

pub fn uid_number(index: usize) -> u64 {
    u64::from_be_bytes(uid(index).0)
}

/// A bus of nodes at addresses 1 and up, without expected unique ids.
pub fn bus(nodes: usize, turnaround_ms: u64) -> PortConfig {
    let nodes = (0..nodes).map(|index| node_config(index, u8::try_from(index + 1).unwrap())).collect();
    bus_of(nodes, turnaround_ms)
}

pub fn bus_of(nodes: Vec<NodeConfig>, turnaround_ms: u64) -> PortConfig {
    let settings = BusConfig { name: slug("bus"), turnaround: Duration::from_millis(turnaround_ms) };
    PortConfig::bus("/dev/ttyS9".into(), BAUD, settings, nodes).unwrap()
}

impl Rig {
    /// A port with its nodes, each at its configured address.
    pub fn new(seed: u64, port: PortConfig) -> Rig {
        let (truth, clock): (Rc<RefCell<Truth>>, Rc<Cell<u64>>) = (Rc::default(), Rc::default());
        let addresses = port.nodes().iter().map(|node| node.address).enumerate();
        let nodes = addresses.map(|(index, address)| SimNode::new(index, address, &truth, &clock)).collect();
        let mut rig = Rig {
            random: StdRng::seed_from_u64(seed),
            faults: Faults::default(),
            now_us: 0,
            nodes,
            air: Air::new(port.as_bus().is_some(), BAUD),
            line: Line::new(&port, vec![], moment(0)),
            disk: Disk::new(&port),
            truth,
            clock,
            out: vec![],
            tick_us: 0,
            port,
        };
        rig.line.port_opened(moment(0));
        rig
    }

    /// Another node on the wire, which the gateway may or may not know.
    pub fn add_node(&mut self, index: usize, address: u8) -> usize {
        self.nodes.push(SimNode::new(index, address, &self.truth, &self.clock));
        self.nodes.len() - 1
    }

    pub fn now(&self) -> Moment {
        moment(self.now_us)
    }

    pub fn run_ms(&mut self, ms: u64) {
        let end_us = self.now_us + ms * 1_000;
        while self.next_us() <= end_us {
            self.step();
        }
        self.now_us = end_us;
        self.clock.set(end_us);
    }

    fn next_us(&self) -> u64 {
        let line = self.line.due_at().filter(|_| self.out.is_empty());
        let line = line.map_or(u64::MAX, |due| u64::try_from(due.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX));
        let nodes = self.nodes.iter().map(SimNode::due_us).min().unwrap_or(u64::MAX);
        let disk = self.disk.due_us(&self.line, self.now_us);
        [self.tick_us, line, nodes, disk, self.air.due_us()].into_iter().min().unwrap_or(u64::MAX).max(self.now_us)
    }

    /// Does the next thing that is due.
    pub fn step(&mut self) {
        self.now_us = self.next_us();
        self.clock.set(self.now_us);
        let now = self.now();
        while let Some(flight) = self.air.arrived(self.now_us) {
            self.deliver(&flight);
        }
        for node in &mut self.nodes {
            if node.due_us() <= self.now_us {
                node.poll(self.now_us, &mut self.random, self.faults, &mut self.air);
            }
        }
        let tick = self.now_us >= self.tick_us;
        if tick {
            self.tick_us = self.now_us + TICK_US;
            self.line.tick(now);
        }
        self.line.on_due(now);
        self.disk.step(self.now_us, tick, &mut self.random, &mut self.line);
        self.line.fill(now, &mut self.out);
        if !self.out.is_empty() {
            for frame in frames(&self.out) {
                self.air.send(&mut self.random, self.faults, self.now_us, 0, frame);
            }
            self.out.clear();
            self.line.written(now);
        }
        self.check_acks();
    }

    fn deliver(&mut self, flight: &air::Flight) {
        let now = self.now();
        if flight.from != 0 || self.air.echoes {
            // In two portions: a frame's bytes need not come together.
            let (a, b) = flight.bytes.split_at(self.random.random_range(0..=flight.bytes.len()));
            for bytes in [a, b].into_iter().filter(|bytes| !bytes.is_empty()) {
                self.line.on_bytes(now, bytes);
            }
        }
        for (index, node) in self.nodes.iter_mut().enumerate() {
            let is_for_it = flight.from == 0 || (self.air.is_shared && flight.from != index + 1);
            if is_for_it {
                node.on_bytes(self.now_us, &flight.bytes);
            }
        }
    }

    /// Nodes were acknowledged only for what the disk has (W19).
    fn check_acks(&mut self) {
        let news = std::mem::take(&mut self.truth.borrow_mut().acked_news);
        for (boot, through) in news {
            let has = self.disk.through(boot);
            assert!(has.is_some_and(|has| has >= through), "boot {boot} acknowledged {through}, the disk has {has:?}");
        }
    }

    /// The gateway's process dies and starts again with what the disk has. A write on its way may have reached it or not.
    pub fn gateway_dies(&mut self) {
        let reached = self.random.random();
        self.disk.dies(self.now_us, reached);
        self.air.forget_uplinks();
        let saved = self.port.nodes().iter().map(|node| self.disk.state.get(&node.cursor_key()).cloned()).collect();
        self.line = Line::new(&self.port, saved, self.now());
        self.line.port_opened(self.now());
    }

    pub fn stats(&self, node: usize) -> &super::super::LinkStats {
        self.line.sessions()[node].stats()
    }
}

pub fn moment(us: u64) -> Moment {
    Moment { at: at_us(us), quality: ClockQuality::Synced, uptime: Duration::from_micros(us) }
}

/// Cuts what is written into its frames.
pub fn frames(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes
        .split_inclusive(|byte| *byte == 0)
        .collect::<Vec<_>>()
        .into_iter()
        .scan(0_usize, move |at, piece| {
            let from = *at;
            *at += piece.len();
            Some(if piece.len() == 1 { None } else { Some(&bytes[from.saturating_sub(1)..from + piece.len()]) })
        })
        .flatten()
}
