//! Goal: the gateway's rules of a bus (W31, W32, W34), and what it says when the wires or the nodes are wrong.
//! Method: real nodes on a simulated shared pair with byte times, where two who speak at once garble each other.

use std::time::Duration;

use gengfu_alarm::observation::{Link, What};
use gengfu_node_linux::node::{Wiring, bus::BusAddress};
use gengfu_wire::*;

use super::super::bus::schedule::{Answer, DEAD_AFTER, DEAD_EVERY, IDLE_EVERY, Schedule};
use super::super::stats::Discard;
use super::super::{BusConfig, NodeConfig, PortConfig, PortConfigError, twins};
use super::rig::{Rig, bus, bus_of, moment, node_config, uid, uid_number};
use super::slug;

fn known(index: usize, address: u8) -> NodeConfig {
    NodeConfig { expected_uid: Some(uid_number(index)), ..node_config(index, address) }
}

fn toggle(rig: &mut Rig, node: usize) {
    rig.nodes[node].door.set(!rig.nodes[node].door.get());
    rig.nodes[node].wake();
}

/// A line of a bus without nodes: what it writes, and frames put in by hand.
struct Hand {
    rig: Rig,
    us: u64,
}

impl Hand {
    fn new(nodes: usize) -> Hand {
        Hand { rig: Rig::new(1, bus(nodes, 25)), us: 0 }
    }

    fn asks(&mut self) -> Vec<Frame> {
        let mut out = vec![];
        self.rig.line.on_due(moment(self.us));
        self.rig.line.fill(moment(self.us), &mut out);
        if !out.is_empty() {
            self.rig.line.written(moment(self.us));
        }
        Decoder::new().feed(&out).map(Result::unwrap).collect()
    }

    fn hears(&mut self, address: u8, uplink: Uplink) {
        let mut buffer = [0; FRAME_BYTES_MAX];
        let bytes = encode(&Frame::up(address, uplink), &mut buffer).unwrap().to_vec();
        self.rig.line.on_bytes(moment(self.us), &bytes);
    }

    fn done(&mut self, address: u8) {
        self.hears(address, Uplink::Done(Done { boot: 1, more: false }));
    }
}

fn polled(frames: &[Frame]) -> u8 {
    let last = frames.last().unwrap();
    assert!(matches!(last.message, Message::Down(Downlink::Poll(_))), "{frames:?}");
    last.address
}

#[test]
fn w31_nothing_is_sent_between_a_poll_and_its_done_or_the_end_of_its_time() {
    let mut hand = Hand::new(3);
    let first = hand.asks();
    assert!(matches!(first[0].message, Message::Down(Downlink::Time(_))), "{first:?}");
    assert_eq!((first[0].address, polled(&first)), (ADDRESS_EVERYONE, 1));
    for _ in 0..20 {
        hand.us += 1_000;
        assert_eq!(hand.asks(), [], "{} us", hand.us);
    }
    hand.done(1);
    hand.us += 1_000;
    assert_eq!(polled(&hand.asks()), 2, "and the third waits");
    let waits_us = (0..).step_by(500).find(|_| {
        hand.us += 500;
        !hand.asks().is_empty()
    });
    let waits_us = waits_us.unwrap();
    assert!((25_000..32_000).contains(&waits_us), "the turnaround, and the time of its own bytes: {waits_us} us");
}

#[test]
fn w31_an_answer_that_has_begun_is_heard_to_its_end() {
    let mut hand = Hand::new(2);
    assert_eq!(polled(&hand.asks()), 1);
    for _ in 0..4 {
        hand.us += 20_000;
        assert_eq!(hand.asks(), []);
        hand.hears(1, Uplink::Pong(Pong { boot: 1, uptime_ms: 1, nonce: 1 }));
    }
    hand.done(1);
    hand.us += 1_000;
    assert_eq!(polled(&hand.asks()), 2);
}

#[test]
fn w31_an_answer_that_the_gateway_reads_late_is_an_answer() {
    let mut hand = Hand::new(2);
    assert_eq!(polled(&hand.asks()), 1);
    hand.us += 400_000;
    hand.done(1);
    assert_eq!(
        (hand.rig.stats(0).polls, hand.rig.stats(0).unanswered),
        (1, 0),
        "its program stood still, not the node"
    );
}

#[test]
fn w31_a_babbler_does_not_keep_the_bus() {
    let mut hand = Hand::new(2);
    assert_eq!(polled(&hand.asks()), 1);
    let babbles = (0..1_000).take_while(|_| {
        hand.us += 1_000;
        hand.rig.line.on_bytes(moment(hand.us), &[0x55]);
        hand.asks().is_empty()
    });
    assert!(babbles.count() < 200, "five frames of the longest take 109 ms");
}

#[test]
fn w32_each_node_has_its_turn_and_one_that_has_more_waits_for_the_others() {
    let mut schedule = Schedule::new(3);
    let mut now = Duration::ZERO;
    let mut order = vec![];
    for _ in 0..9 {
        let node = schedule.next(now, |_| false).unwrap();
        order.push(node);
        schedule.asked(now, node);
        now += Duration::from_millis(100);
        schedule.answered(now - Duration::from_millis(100), now, node, Answer::Done { more: node == 0 });
        now += Duration::from_millis(1);
    }
    assert_eq!(order, [0, 1, 2, 0, 1, 2, 0, 1, 2]);
}

#[test]
fn w32_a_living_node_waits_for_one_dead_one_and_each_dead_one_is_asked_every_two_seconds() {
    for dead in [1_usize, 5, 20, 31] {
        let mut schedule = Schedule::new(32);
        let (mut now, exchange) = (Duration::ZERO, Duration::from_millis(4));
        let mut asked = vec![Duration::ZERO; 32];
        let (mut longest, mut dead_between) = ([Duration::ZERO; 2], vec![0; 32]);
        while now < Duration::from_secs(60) {
            let Some(node) = schedule.next(now, |_| false) else {
                now = schedule.due_at(|_| false).max(now + Duration::from_micros(100));
                continue;
            };
            let is_dead = node < dead;
            if now > Duration::from_secs(10) {
                let kind = usize::from(is_dead);
                longest[kind] = longest[kind].max(now - asked[node]);
                let waited_for = if is_dead || dead > 6 { 0 } else { dead_between[node] };
                assert!(waited_for <= 1, "{dead} dead: a living node waited for {waited_for} of them in a round");
            }
            if is_dead {
                dead_between.iter_mut().for_each(|count| *count += 1);
            }
            (asked[node], dead_between[node]) = (now, 0);
            schedule.asked(now, node);
            let took = if is_dead { Duration::from_millis(26) } else { exchange };
            let answer = if is_dead { Answer::Nothing } else { Answer::Done { more: false } };
            schedule.answered(now, now + took, node, answer);
            now += took;
        }
        let slack = Duration::from_millis(60);
        assert!(longest[1] <= DEAD_EVERY, "{dead} dead: asked every {:?}", longest[1]);
        assert!(longest[0] <= IDLE_EVERY + slack, "{dead} dead: the living every {:?}", longest[0]);
    }
}

#[test]
fn w32_a_node_that_returns_is_known_within_two_seconds() {
    let mut rig = Rig::new(3, bus(8, 25));
    rig.nodes[4].is_off = true;
    rig.run_ms(30_000);
    assert!(!rig.stats(4).is_up());
    rig.nodes[4].reboot();
    rig.run_ms(2_300);
    assert!(rig.stats(4).is_up(), "{:?}", rig.stats(4));
}

#[test]
fn a_decider_that_takes_nothing_stops_no_node_and_nothing_is_acknowledged() {
    let mut rig = Rig::new(3, bus(4, 25));
    rig.run_ms(3_000);
    rig.disk.stuck_until_us = rig.now_us + 30_000_000;
    for _ in 0..5 {
        (0..4).for_each(|node| toggle(&mut rig, node));
        rig.run_ms(100);
    }
    let polls = rig.stats(0).polls;
    rig.run_ms(10_000);
    assert!((0..4).all(|node| rig.nodes[node].kept() == 5 && rig.stats(node).is_up()));
    let polls = rig.stats(0).polls - polls;
    assert!((30..=80).contains(&polls), "{polls} polls in 10 s: neither stopped nor pressed for more");
    rig.run_ms(30_000);
    assert!((0..4).all(|node| rig.nodes[node].kept() == 0));
}

#[test]
fn w34_a_node_without_or_with_a_wrong_address_gets_the_configured_one_by_its_uid() {
    let mut rig = Rig::new(3, bus_of(vec![known(0, 1), known(1, 2), known(2, 3)], 25));
    rig.nodes[0].wiring = Wiring::Bus(None);
    // Node 1 has the place of node 2, and node 2 that of node 1.
    rig.nodes[1].wiring = Wiring::Bus(BusAddress::new(3));
    rig.nodes[2].wiring = Wiring::Bus(BusAddress::new(2));
    rig.nodes.iter_mut().for_each(|node| node.reboot());
    rig.run_ms(40_000);
    for (index, address) in [(0, 1), (1, 2), (2, 3)] {
        assert_eq!(rig.nodes[index].wiring, Wiring::Bus(BusAddress::new(address)), "node {index}");
        assert!(rig.stats(index).is_up(), "{:?}", rig.stats(index));
    }
}

#[test]
fn two_nodes_at_one_address_are_told_as_such_also_when_they_never_make_a_frame() {
    let mut rig = Rig::new(3, bus(3, 25));
    rig.run_ms(5_000);
    // A fourth node was set to address 2.
    rig.add_node(7, 2);
    rig.run_ms(20_000);
    let stats = rig.stats(1);
    assert!(stats.state.contains("several nodes answer at address 2"), "{stats:?}");
    assert!(stats.remedy.contains("own address") && stats.state_zh.contains("地址 2"), "{stats:?}");
    assert!(rig.stats(0).is_up() && rig.stats(2).is_up(), "the others are served");
    rig.nodes[3].is_off = true;
    rig.run_ms(80_000);
    assert!(rig.stats(1).is_up(), "{:?}", rig.stats(1));
}

#[test]
fn two_nodes_that_answer_in_turn_at_one_address_are_told_too() {
    let mut hand = Hand::new(2);
    for n in 0..6_u8 {
        let address = polled(&hand.asks());
        let hello = Hello {
            uid: if address == 1 { Uid([n / 2 % 2; 8]) } else { uid(5) },
            boot: if address == 1 { u32::from(n / 2 % 2) + 1 } else { 9 },
            firmware: FirmwareVersion { major: 1, minor: 0, patch: 0 },
            capabilities: Capabilities::default(),
            uptime_ms: 1,
            unacked_from: 1,
            next_sequence: 1,
            heartbeat_ms: 1_000,
        };
        hand.hears(address, Uplink::Hello(hello));
        hand.done(address);
        hand.us += 125_500;
        hand.rig.line.tick(moment(hand.us));
    }
    assert!(hand.rig.stats(0).state.contains("several nodes"), "{:?}", hand.rig.stats(0));
    assert!(hand.rig.stats(1).is_up(), "{:?}", hand.rig.stats(1));
}

#[test]
fn one_dead_node_a_dead_bus_and_a_lost_port_are_different_states() {
    let mut rig = Rig::new(3, bus(3, 25));
    rig.run_ms(5_000);
    rig.nodes[1].is_off = true;
    rig.run_ms(35_000);
    assert!(rig.stats(1).state.contains("nobody answers at address 2 of the bus; others do"), "{:?}", rig.stats(1));
    let told = |rig: &Rig, device: &str, up: bool| {
        let it = rig.disk.journal.iter().filter(|(_, it)| it.device == slug(device));
        it.filter(|(_, it)| matches!(&it.what, What::Link(link) if (*link == Link::Up) == up)).count()
    };
    assert_eq!((told(&rig, "bus", true), told(&rig, "bus", false)), (1, 0), "the bus works");
    rig.nodes.iter_mut().for_each(|node| node.is_off = true);
    rig.run_ms(16_000);
    assert_eq!((told(&rig, "bus", false), told(&rig, "node-0", false)), (1, 0), "the bus is missed before its nodes");
    rig.run_ms(120_000);
    assert!(rig.stats(0).state.contains("nobody answers on the whole bus"), "{:?}", rig.stats(0));
    assert!(rig.stats(0).remedy.contains("A and B") && rig.stats(0).remedy_zh.contains("A/B"));
    let names: Vec<_> = rig.disk.engine.open_alarms().map(|it| it.device.as_str()).collect();
    assert!(names.contains(&"bus") && !names.contains(&"node-0") && !names.contains(&"node-2"), "{names:?}");
    rig.nodes.iter_mut().for_each(|node| node.reboot());
    rig.run_ms(10_000);
    assert!((0..3).all(|node| rig.stats(node).is_up()));
    assert_eq!(told(&rig, "bus", true), 2);
}

#[test]
fn a_frame_of_a_node_that_was_not_asked_is_counted_and_not_taken() {
    let mut hand = Hand::new(2);
    assert_eq!(polled(&hand.asks()), 1);
    hand.hears(2, Uplink::Pong(Pong { boot: 1, uptime_ms: 1, nonce: 1 }));
    hand.hears(77, Uplink::Pong(Pong { boot: 1, uptime_ms: 1, nonce: 1 }));
    assert_eq!(hand.rig.stats(1).discarded(Discard::Unasked), 1);
    assert_eq!(hand.rig.stats(0).discarded(Discard::Address), 1);
    assert_eq!(hand.asks(), [], "it is no end of the answer");
}

#[test]
fn w06_an_old_node_on_a_bus_is_told_as_such() {
    let mut hand = Hand::new(2);
    assert_eq!(polled(&hand.asks()), 1);
    hand.rig.line.on_bytes(moment(hand.us), &super::session::frame_of_version_9(1));
    let stats = hand.rig.stats(0);
    assert!(stats.state.contains("version 9") && stats.state_zh.contains("版本是 9"), "{stats:?}");
    assert!(!hand.rig.stats(1).state.contains("version"), "the other one is not meant");
}

#[test]
fn everyone_is_told_the_time_each_minute() {
    let mut rig = Rig::new(3, bus(2, 25));
    rig.run_ms(1_000);
    let told = |rig: &Rig| rig.nodes[1].time(rig.now_us);
    let early = told(&rig).unwrap();
    rig.run_ms(61_000);
    let late = told(&rig).unwrap();
    assert!((60_900..=61_100).contains(&(late - early)), "{early} {late}");
    assert_eq!(rig.stats(0).discarded(Discard::Broken), 0, "and nobody answers it");
}

#[test]
fn an_adapter_that_is_slower_than_configured_is_waited_for_and_told() {
    let mut rig = Rig::new(3, bus(3, 8));
    rig.air.adapter_us = 16_000;
    rig.run_ms(20_000);
    assert!((0..3).all(|node| rig.stats(node).is_up()), "{:?}", rig.stats(0));
    let warned = (0..3).flat_map(|node| &rig.stats(node).warnings).any(|it| it.remedy.contains("turnaround"));
    assert!(warned);
    toggle(&mut rig, 2);
    rig.run_ms(2_000);
    assert_eq!(rig.nodes[2].kept(), 0);
}

#[test]
fn an_adapter_that_hears_itself_changes_nothing() {
    let mut rig = Rig::new(3, bus(3, 25));
    rig.air.echoes = true;
    rig.nodes[0].is_off = true;
    rig.run_ms(60_000);
    assert!(rig.stats(1).is_up() && rig.stats(2).is_up());
    assert!(rig.stats(0).state.contains("nobody answers at address 1"), "{:?}", rig.stats(0));
    assert!(rig.stats(1).discarded(Discard::Direction) > 0);
}

#[test]
fn w28_two_nodes_with_one_uid_on_one_bus_are_found_and_both_served() {
    let mut rig = Rig::new(3, bus(2, 25));
    rig.nodes[1].uid = uid(0);
    rig.nodes[1].reboot();
    rig.run_ms(5_000);
    let found = twins([rig.stats(0), rig.stats(1)]);
    assert_eq!(found.len(), 1);
    (0..2).for_each(|node| toggle(&mut rig, node));
    rig.run_ms(2_000);
    assert!((0..2).all(|node| rig.nodes[node].kept() == 0 && rig.stats(node).is_up()));
}

#[test]
fn nodes_that_cannot_share_a_port_are_refused_with_the_remedy() {
    let make = |nodes: Vec<NodeConfig>, turnaround_ms| {
        let settings = BusConfig { name: slug("bus"), turnaround: Duration::from_millis(turnaround_ms) };
        PortConfig::bus("/dev/ttyS9".into(), 115_200, settings, nodes)
    };
    assert!(matches!(make(vec![], 25), Err(PortConfigError::Empty { .. })));
    assert!(matches!(make(vec![node_config(0, 0)], 25), Err(PortConfigError::Address { address: 0, .. })));
    assert!(matches!(make(vec![node_config(0, 248)], 25), Err(PortConfigError::Address { .. })));
    let twice = make(vec![node_config(0, 5), node_config(1, 5)], 25).unwrap_err();
    assert!(twice.to_string().contains("node-0 and node-1 both have address 5"), "{twice}");
    assert!(matches!(make(vec![node_config(0, 1)], 501), Err(PortConfigError::Turnaround { .. })));
    assert_eq!(DEAD_AFTER, 3);
}
