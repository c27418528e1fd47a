//! One life: nodes, wires, a gateway that loses its power, brokers, a centre, and everything that goes wrong with them.
//!
//! Owns time, which jumps to the next thing that happens, and mischief, all of it decided by one seed. Refuses to judge; it lets `oracle` look at every step.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use gengfu_alarm::rules::{DeviceClass, DeviceRule, Rules};
use gengfu_contract::event::ClockQuality;
use gengfu_outbox::SimDisk;
use gengfu_outbox::sim::{Fault, Kept};
use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::config::Protocol;
use crate::link::PortConfig;
use crate::link::tests::rig::air::{Air, Faults, Flight};
use crate::link::tests::rig::node::{SimNode, Truth};
use crate::link::tests::rig::{at_us, bus_of, disk::rules, frames, node_config};
use crate::uplink::simulated;

use super::Plant;
use super::broker::{Manner, Net, NetFaults};
use super::centre::{Centre, CentreFaults, Say};
use super::gateway::{Build, Gateway, SimClock, TICK_US};
use super::oracle::Oracle;
use super::trail::{self, note};

const BAUD: u32 = 115_200;
/// While nothing goes wrong any more, time alone is looked at less often: sessions want it every second.
const REST_TICK_US: u64 = 1_000_000;

/// What is mended later.
enum Fix {
    GatewayStarts,
    Disk,
    Slow,
    Clock,
    BrokerStarts(usize),
    BrokerReached(usize),
    CentreStarts,
    CentreConnects(usize),
}

/// How often what happened.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    pub cuts: u64,
    pub kills: u64,
    pub starts: u64,
    pub disk_faults: u64,
    pub clock_steps: u64,
    pub broker_deaths: u64,
    pub broker_faults: u64,
    pub centre_deaths: u64,
    pub node_reboots: u64,
    pub wire_cuts: u64,
    pub orders: u64,
}

pub struct World {
    pub random: StdRng,
    pub now_us: u64,
    pub nodes: Vec<SimNode>,
    pub disk: SimDisk,
    pub gateway: Option<Gateway>,
    pub build: Build,
    pub net: Net,
    pub centre: Centre,
    pub oracle: Oracle,
    pub truth: Rc<RefCell<Truth>>,
    pub tally: Tally,
    /// By node: its port.
    node_port: Vec<usize>,
    airs: Vec<Air>,
    faults: Faults,
    clock: Rc<Cell<u64>>,
    offset_us: i64,
    quality: ClockQuality,
    /// The clock was set while the gateway was off.
    is_set_while_off: bool,
    /// The clock was set and the gateway has not looked since: if it dies now, it never knows.
    is_step_unseen: bool,
    /// The same, until the disk has it.
    is_step_unstored: bool,
    /// In its last turn the gateway knew the centre to be away.
    was_away: bool,
    fixes: BTreeMap<(u64, u64), Fix>,
    fix_count: u64,
    /// The mean time between two misfortunes.
    bustle_us: u64,
    /// How often each kind of misfortune happens, in thousandths.
    dose: [u32; 12],
    is_healed: bool,
    doors: Vec<String>,
    node_names: Vec<String>,
}

fn ports(seed: u64) -> Vec<PortConfig> {
    let count = usize::try_from(seed / 3 % 3 + 1).unwrap();
    if seed % 8 == 5 {
        return vec![bus_of(
            (0..count).map(|index| node_config(index, u8::try_from(index + 1).unwrap())).collect(),
            25,
        )];
    }
    let alone = |index| PortConfig::point_to_point(format!("/dev/ttyS{index}").into(), BAUD, node_config(index, 0));
    (0..count).map(alone).collect()
}

fn rules_of(ports: &[PortConfig], random: &mut StdRng) -> Rules {
    let mut all = rules(&ports[0]);
    for port in &ports[1..] {
        all.devices.extend(rules(port).devices);
    }
    let in_one_dwelling = random.random::<bool>();
    for rule in all.devices.values_mut() {
        let rule: &mut DeviceRule = rule;
        match rule.class {
            DeviceClass::Door => rule.left_open_after = Some(Duration::from_secs(random.random_range(3..60))),
            DeviceClass::Smoke if in_one_dwelling => rule.dwelling = Some("dwelling".into()),
            _ => {}
        }
    }
    let pause = Duration::from_secs(random.random_range(10..70));
    (all.timing.escalation.fire, all.timing.escalation.emergency) = (pause, pause);
    all.timing.escalation.care = Some(pause);
    all
}

impl World {
    pub fn new(seed: u64, plant: Plant) -> World {
        simulated::begin();
        let mut random = StdRng::seed_from_u64(seed);
        let (truth, clock): (Rc<RefCell<Truth>>, Rc<Cell<u64>>) = (Rc::default(), Rc::default());
        let ports = ports(seed);
        let (mut nodes, mut node_port) = (vec![], vec![]);
        for (at, port) in ports.iter().enumerate() {
            for node in port.nodes() {
                nodes.push(SimNode::new(nodes.len(), node.address, &truth, &clock));
                node_port.push(at);
            }
        }
        let airs = ports.iter().map(|port| Air::new(port.as_bus().is_some(), BAUD)).collect();
        let names = |of: fn(&crate::link::NodeConfig) -> String| {
            ports.iter().flat_map(|port| port.nodes()).map(of).collect::<Vec<String>>()
        };
        let (doors, node_names) = (names(|node| node.channels[&1].0.to_string()), names(|node| node.node.to_string()));
        let build = Build {
            rules: rules_of(&ports, &mut random),
            ports,
            protocol: if random.random_ratio(2, 3) { Protocol::Mqtt5 } else { Protocol::Mqtt311 },
            two_brokers: random.random_ratio(1, 3),
            plant,
            clock: Arc::new(SimClock::new()),
        };
        let mut world = World {
            disk: SimDisk::new(seed),
            random,
            now_us: 0,
            nodes,
            gateway: None,
            build,
            net: Net::new(),
            centre: Centre::new(),
            oracle: Oracle::default(),
            truth,
            tally: Tally::default(),
            node_port,
            airs,
            faults: Faults::default(),
            clock,
            offset_us: 0,
            quality: ClockQuality::Synced,
            is_set_while_off: false,
            is_step_unseen: false,
            is_step_unstored: false,
            was_away: false,
            fixes: BTreeMap::new(),
            fix_count: 0,
            bustle_us: 0,
            dose: [0; 12],
            is_healed: false,
            doors,
            node_names,
        };
        world.choose();
        world
    }

    /// How hard this life is, and in what.
    fn choose(&mut self) {
        let random = &mut self.random;
        let bad = random.random_range(0..200);
        let mut upto = |most: u32| random.random_range(0..=most);
        self.faults = Faults {
            drop: upto(bad),
            flip: upto(bad),
            double: upto(bad),
            slip: upto(bad / 2),
            bit_errors: 0,
            delay_us: 30_000,
        };
        let worst = upto(100);
        self.net.faults = NetFaults {
            puback_lost: upto(worst / 3),
            puback_late: upto(worst),
            puback_twice: upto(worst),
            centre_twice: upto(worst),
            latency_us: u64::from(upto(200_000)),
        };
        self.centre.faults = CentreFaults {
            receipt_lost: upto(2 * worst),
            receipt_late: upto(2 * worst),
            receipt_twice: upto(worst),
            slow_us: u64::from(upto(2_000_000)),
        };
        // Many lives have few kinds of misfortune, so that each is seen alone too.
        for dose in &mut self.dose {
            *dose = if random.random() { random.random_range(0..1_000) } else { 0 };
        }
        self.bustle_us = random.random_range(150_000..2_000_000);
        for broker in 0..2 {
            self.centre_connects(broker);
        }
        self.start_gateway();
    }

    fn later(&mut self, seconds: std::ops::Range<u64>, fix: Fix) {
        let at_us = self.now_us + self.random.random_range(seconds.start * 1_000_000..seconds.end * 1_000_000);
        self.fix_count += 1;
        self.fixes.insert((at_us, self.fix_count), fix);
    }

    pub fn at(&self) -> Timestamp {
        at_us(self.now_us)
    }

    fn set_clock(&self) {
        self.clock.set(self.now_us);
        self.build.clock.set(self.now_us, self.offset_us, self.quality);
    }

    fn start_gateway(&mut self) {
        if self.gateway.is_some() {
            return;
        }
        self.set_clock();
        let cuts = self.disk.counts().cuts;
        let started = Gateway::start(&self.build, &self.disk, self.now_us);
        let started = started.filter(|_| self.disk.counts().cuts == cuts);
        let _ = self.disk.take_spent_ms();
        let Some(gateway) = started else {
            note(|| "the gateway cannot start: its disk does not let it".into());
            return self.later(1..2, Fix::GatewayStarts);
        };
        note(|| format!("the gateway starts, boot {}", gateway.decider.boot()));
        self.tally.starts += 1;
        self.oracle.started(&gateway.outbox);
        self.oracle.read(self.now_us, &gateway.outbox, &self.truth.borrow(), &self.centre.given, None);
        // After reading: a call that was being written when the power went is known only now.
        if std::mem::take(&mut self.is_set_while_off) {
            self.oracle.clock_was_set();
        }
        if std::mem::take(&mut self.was_away) {
            self.oracle.was_away();
        }
        self.gateway = Some(gateway);
    }

    /// The gateway is off. It starts again by itself.
    fn gateway_is_off(&mut self, why: &str) {
        note(|| format!("the gateway is off: {why}"));
        self.gateway = None;
        self.oracle.is_unseen(self.now_us);
        self.is_step_unseen = false;
        self.is_set_while_off |= std::mem::take(&mut self.is_step_unstored);
        self.airs.iter_mut().for_each(Air::forget_uplinks);
        // What it wrote at last is on its way, and nobody's order any more.
        self.net.collect(&mut self.random, self.now_us);
        self.net.published.clear();
        self.net.in_vain.clear();
        if self.random.random_ratio(1, 8) {
            self.offset_us += self.random.random_range(-600_000_000..600_000_000);
            self.is_set_while_off = true;
            self.tally.clock_steps += 1;
        }
        self.later(0..20, Fix::GatewayStarts);
    }

    fn next_us(&self) -> u64 {
        let nodes = self.nodes.iter().map(SimNode::due_us).min().unwrap_or(u64::MAX);
        let airs = self.airs.iter().map(Air::due_us).min().unwrap_or(u64::MAX);
        let gateway = self.gateway.as_ref().map_or(u64::MAX, Gateway::due_us);
        let fix = self.fixes.first_key_value().map_or(u64::MAX, |((at, _), _)| *at);
        let centre = if self.centre.is_up { self.centre.due_us() } else { u64::MAX };
        [nodes, airs, gateway, fix, centre, self.net.due_us()].into_iter().min().unwrap_or(u64::MAX).max(self.now_us)
    }

    pub fn run_us(&mut self, us: u64) {
        let end_us = self.now_us + us;
        while self.next_us() <= end_us {
            self.step();
        }
        self.now_us = end_us;
        self.set_clock();
    }

    fn step(&mut self) {
        self.now_us = self.next_us();
        trail::now(self.now_us);
        self.set_clock();
        while let Some(entry) = self.fixes.first_entry().filter(|entry| entry.key().0 <= self.now_us) {
            let fix = entry.remove();
            self.fix(fix);
        }
        for port in 0..self.airs.len() {
            while let Some(flight) = self.airs[port].arrived(self.now_us) {
                self.deliver(port, &flight);
            }
        }
        for (index, node) in self.nodes.iter_mut().enumerate() {
            if node.due_us() <= self.now_us {
                node.poll(self.now_us, &mut self.random, self.faults, &mut self.airs[self.node_port[index]]);
            }
        }
        self.run_centre();
        self.run_gateway();
        self.check_acks();
    }

    fn deliver(&mut self, port: usize, flight: &Flight) {
        if flight.from != 0
            && let Some(gateway) = &mut self.gateway
        {
            // In two portions: a frame's bytes need not come together.
            let (a, b) = flight.bytes.split_at(self.random.random_range(0..=flight.bytes.len()));
            for bytes in [a, b].into_iter().filter(|bytes| !bytes.is_empty()) {
                gateway.on_bytes(self.now_us, port, bytes);
            }
        }
        let is_shared = self.airs[port].is_shared;
        for (index, node) in self.nodes.iter_mut().enumerate().filter(|(index, _)| self.node_port[*index] == port) {
            if flight.from == 0 || (is_shared && flight.from != index + 1) {
                node.on_bytes(self.now_us, &flight.bytes);
            }
        }
    }

    fn run_centre(&mut self) {
        let arrived = self.net.run(&mut self.random, self.now_us);
        for came in arrived {
            if self.centre.is_up {
                self.oracle.heard(&came, &self.centre.stored);
                self.centre.take(&mut self.random, self.now_us, at_us(self.now_us), &came);
            }
        }
        while self.centre.is_up
            && let Some(say) = self.centre.say(self.now_us)
        {
            let broker = self.centre.broker;
            if self.net.brokers[broker].centre_connected {
                self.say(broker, &say, false);
            }
        }
    }

    fn say(&mut self, broker: usize, say: &Say, retain: bool) {
        note(|| format!("centre → {}", say.topic));
        self.net.route(&mut self.random, self.now_us, broker, None, &say.topic, &say.payload, retain);
    }

    fn run_gateway(&mut self) {
        let Some(mut gateway) = self.gateway.take() else { return };
        let cuts = self.disk.counts().cuts;
        let now_us = self.now_us;
        let tick = now_us >= gateway.tick_us;
        if tick {
            gateway.tick_us = now_us + if self.is_healed { REST_TICK_US } else { TICK_US };
        }
        gateway.run_lines(now_us, tick);
        let loses_orders = self.random.random_ratio(1, 20);
        gateway.finish(now_us, loses_orders);
        self.oracle.receipts(&gateway.outbox, &self.centre.stored);
        let turn = gateway.decide(now_us, &self.disk);
        self.is_step_unseen &= gateway.is_step_unseen();
        self.was_away = turn.as_ref().map_or(self.was_away, |turn| turn.away);
        if self.disk.counts().cuts == cuts
            && let Some(turn) = turn
        {
            let judged_at = (self.quality == ClockQuality::Synced).then_some(turn.at);
            self.oracle.read(now_us, &gateway.outbox, &self.truth.borrow(), &self.centre.given, judged_at);
            self.oracle.receipts(&gateway.outbox, &self.centre.stored);
            if !turn.is_healthy && self.is_step_unstored {
                self.oracle.step_was_not_stored();
            }
            self.is_step_unstored &= self.is_step_unseen || !turn.is_healthy;
            self.oracle.turn(now_us, &turn, &self.centre.given);
            gateway.finish(now_us, loses_orders);
        }
        if self.disk.counts().cuts == cuts {
            self.run_uplink(&mut gateway, tick);
        }
        // A step of what the housekeeping's thread does; a failure of it the decider finds.
        if self.disk.counts().cuts == cuts && tick && gateway.decider.is_housekeeping_due() {
            let _ = gateway.outbox.upkeep();
        }
        if self.disk.counts().cuts == cuts {
            self.say_on_wires(&mut gateway);
        }
        if self.disk.counts().cuts != cuts {
            self.tally.cuts += 1;
            drop(gateway);
            return self.gateway_is_off("its power was cut while it wrote");
        }
        self.gateway = Some(gateway);
    }

    fn run_uplink(&mut self, gateway: &mut Gateway, tick: bool) {
        let cuts = self.disk.counts().cuts;
        gateway.run_uplink(self.now_us, tick);
        while self.disk.counts().cuts == cuts && self.net.collect(&mut self.random, self.now_us) {
            std::mem::take(&mut self.net.in_vain).into_iter().for_each(|sequence| self.oracle.sent_in_vain(sequence));
            for (conn, topic, payload) in std::mem::take(&mut self.net.published) {
                if self.build.plant == Plant::PubackIsDelivery && topic.ends_with("/event") {
                    let id = self.oracle.events[usize::try_from(super::oracle::sequence_of(&payload)).unwrap() - 1]
                        .id
                        .clone();
                    let _ = gateway.outbox.received(&[&id], 0);
                }
                self.oracle.published(conn, &topic, &payload, &self.net.receipts_told, &self.net.refused_events);
            }
            gateway.run_uplink(self.now_us, false);
        }
    }

    fn say_on_wires(&mut self, gateway: &mut Gateway) {
        gateway.run_lines(self.now_us, false);
        let moment = gateway.moment(self.now_us);
        for (port, out) in gateway.outs.iter_mut().enumerate() {
            if out.is_empty() {
                continue;
            }
            for frame in frames(out) {
                self.airs[port].send(&mut self.random, self.faults, self.now_us, 0, frame);
            }
            out.clear();
            gateway.lines[port].written(moment);
        }
    }

    /// Nodes were acknowledged only for what the journal has.
    fn check_acks(&mut self) {
        let news = std::mem::take(&mut self.truth.borrow_mut().acked_news);
        for (boot, through) in news {
            let has = self.oracle.taken.get(&boot).copied().unwrap_or(0);
            assert!(has >= through, "boot {boot} was acknowledged {through}, the journal has {has}");
        }
    }

    fn centre_connects(&mut self, broker: usize) {
        if !self.centre.is_up || self.net.brokers[broker].is_down {
            return;
        }
        self.net.centre_connects(&mut self.random, self.now_us, broker);
        let say = self.centre.presence(true, self.at());
        self.say(broker, &say, true);
    }

    fn fix(&mut self, fix: Fix) {
        match fix {
            Fix::GatewayStarts => self.start_gateway(),
            Fix::Disk => self.disk.set_fault(None),
            Fix::Slow => self.disk.set_sync_ms(0),
            Fix::Clock => {
                if self.offset_us != 0 {
                    self.clock_differs();
                }
                (self.offset_us, self.quality) = (0, ClockQuality::Synced);
            }
            Fix::BrokerStarts(broker) => {
                self.net.brokers[broker].is_down = false;
                self.later(0..3, Fix::CentreConnects(broker));
            }
            Fix::BrokerReached(broker) => self.net.brokers[broker].is_cut_off = false,
            Fix::CentreStarts => {
                if !self.centre.is_up {
                    self.centre.starts();
                }
                for broker in 0..2 {
                    self.centre_connects(broker);
                }
            }
            Fix::CentreConnects(broker) => self.centre_connects(broker),
        }
        self.set_clock();
    }

    /// Something happens in the building, and perhaps something goes wrong.
    fn mischief(&mut self) {
        let index = self.random.random_range(0..self.nodes.len());
        let node = &mut self.nodes[index];
        match self.random.random_range(0..10) {
            0..6 => node.door.set(!node.door.get()),
            6 => node.smoke.set(!node.smoke.get()),
            7 => node.sos.set(!node.sos.get()),
            _ => {
                self.tally.orders += 1;
                if self.centre.is_up {
                    let at = at_us(self.now_us);
                    self.centre.act(&mut self.random, self.now_us, at, &self.doors, &self.node_names);
                }
            }
        }
        self.nodes[index].wake();
        let kind = self.random.random_range(0..self.dose.len());
        if self.random.random_range(0..1_000) < self.dose[kind] {
            self.misfortune(kind, index);
        }
    }

    fn misfortune(&mut self, kind: usize, index: usize) {
        let broker = self.net.current().unwrap_or(0);
        match kind {
            0 | 1 => self.power_goes(),
            2 => self.disk_fails(),
            3 => {
                self.tally.wire_cuts += 1;
                let until_us = self.now_us + self.random.random_range(100_000..20_000_000);
                let down = self.random.random();
                let air = &mut self.airs[self.node_port[index]];
                air.up_cut_until_us = until_us;
                if down {
                    air.down_cut_until_us = until_us;
                }
            }
            4 => {
                self.tally.node_reboots += 1;
                note(|| format!("node {index} reboots"));
                self.nodes[index].reboot();
            }
            5 => self.clock_is_set(),
            6 => {
                self.tally.broker_deaths += 1;
                let empty = self.random.random();
                note(|| format!("broker {broker} dies, empty: {empty}"));
                self.net.broker_dies(&mut self.random, self.now_us, broker, empty);
                self.later(0..30, Fix::BrokerStarts(broker));
            }
            7 => {
                self.tally.broker_faults += 1;
                self.net.cut_broker(&mut self.random, self.now_us, broker);
                if self.random.random() {
                    self.net.brokers[broker].is_cut_off = true;
                    self.later(1..60, Fix::BrokerReached(broker));
                }
            }
            8 => {
                self.tally.broker_faults += 1;
                self.net.brokers[broker].stalled_until_us = self.now_us + self.random.random_range(500_000..20_000_000);
            }
            9 => {
                self.tally.broker_faults += 1;
                let manner = if self.random.random() { Manner::Told } else { Manner::HangsUp };
                let until_us = self.now_us + self.random.random_range(1_000_000..15_000_000);
                self.net.brokers[broker].refuses = Some((until_us, manner));
            }
            10 => {
                self.tally.broker_faults += 1;
                self.net.forget_gateway(&mut self.random, self.now_us, broker);
            }
            _ => self.centre_dies(),
        }
    }

    fn power_goes(&mut self) {
        let kept = match self.random.random_range(0..4) {
            0 => Kept::Nothing,
            1 => Kept::Everything,
            2 => Kept::First(self.random.random_range(0..6)),
            _ => Kept::Random,
        };
        if self.gateway.is_some() && self.random.random() {
            // Just before one of the next things it writes.
            return self.disk.cut_power_in(self.random.random_range(1..12), kept);
        }
        self.disk.cut_power(kept);
        if self.gateway.is_some() {
            if kept == Kept::Everything {
                self.tally.kills += 1
            } else {
                self.tally.cuts += 1
            }
            self.gateway_is_off("its power is gone");
        }
    }

    fn disk_fails(&mut self) {
        self.tally.disk_faults += 1;
        if self.random.random_ratio(1, 4) {
            self.disk.set_sync_ms(self.random.random_range(50..3_000));
            return self.later(1..10, Fix::Slow);
        }
        let fault = [Fault::Full, Fault::ReadOnly, Fault::WriteError, Fault::SyncError][self.random.random_range(0..4)];
        note(|| format!("the disk: {fault:?}"));
        if self.random.random() {
            self.disk.set_fault(Some(fault))
        } else {
            self.disk.set_fault_in(self.random.random_range(1..8), fault)
        }
        self.later(0..25, Fix::Disk);
    }

    fn clock_is_set(&mut self) {
        self.tally.clock_steps += 1;
        self.offset_us += self.random.random_range(-3_600_000_000..3_600_000_000);
        if self.random.random() {
            self.quality = ClockQuality::Unsynced;
        }
        self.clock_differs();
        note(|| format!("the clock is {} s off", self.offset_us / 1_000_000));
        self.later(1..60, Fix::Clock);
    }

    /// The clock was set by hand or by NTP: a gateway that runs notices, one that is off cannot.
    fn clock_differs(&mut self) {
        match self.gateway {
            Some(_) => (self.is_step_unseen, self.is_step_unstored) = (true, true),
            None => self.is_set_while_off = true,
        }
    }

    fn centre_dies(&mut self) {
        if !self.centre.is_up {
            return;
        }
        self.tally.centre_deaths += 1;
        note(|| "the centre dies".into());
        self.centre.dies();
        let forgets = self.random.random_ratio(1, 4);
        let say = self.centre.presence(false, self.at());
        for broker in 0..2 {
            self.net.centre_leaves(broker, forgets);
            self.say(broker, &say, true);
        }
        self.later(0..40, Fix::CentreStarts);
    }

    /// From its first trouble to its last.
    pub fn live(&mut self) {
        let end_us = self.random.random_range(20_000_000..120_000_000);
        while self.now_us < end_us {
            let wait_us = self.random.random_range(1..=2 * self.bustle_us);
            self.run_us(wait_us);
            self.mischief();
        }
        self.heal();
    }

    /// Everything works again.
    fn heal(&mut self) {
        note(|| "everything works again".into());
        self.is_healed = true;
        self.faults = Faults { delay_us: 2_000, ..Faults::default() };
        self.net.faults = NetFaults { latency_us: 20_000, ..NetFaults::default() };
        self.centre.faults = CentreFaults { slow_us: 50_000, ..CentreFaults::default() };
        // What was planned for the disk is not to come.
        self.disk.cut_power_in(u64::MAX, Kept::Everything);
        for air in &mut self.airs {
            (air.up_cut_until_us, air.down_cut_until_us) = (0, 0);
        }
        for broker in 0..2 {
            let there = &mut self.net.brokers[broker];
            (there.stalled_until_us, there.refuses, there.is_cut_off) = (0, None, false);
        }
        for fix in [
            Fix::Disk,
            Fix::Slow,
            Fix::Clock,
            Fix::BrokerStarts(0),
            Fix::BrokerStarts(1),
            Fix::CentreStarts,
            Fix::GatewayStarts,
        ] {
            self.fix(fix);
        }
    }
}
