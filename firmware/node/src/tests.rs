//! Goal: what a node promises on its own (W11 to W18), before any gateway is there.
//! Method: simulated pins, simulated time, and the frames it hands to the wire.
extern crate std;

mod bus;
mod heads;
mod time;

use core::cell::Cell;
use core::convert::Infallible;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::vec;
use std::vec::Vec;

use embedded_hal::digital::{ErrorType, InputPin, OutputPin};
use gengfu_wire::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::battery::{BatteryGauge, Limits};
use crate::contact::Contact;
use crate::heat::{Heat, Thermometer};
use crate::input::Input;
use crate::outbox::{EVENTS_MAX, Entry, Outbox};
use crate::smoke::{Lines, Smoke, TEST_HOLD_MS};
use crate::sos::Sos;
use crate::tamper::Tamper;
use crate::uplink::{RESEND_FIRST_MS, RESEND_MAX_MS};
use crate::{Board, BusAddress, Identity, Node, Parts, Sensor, SetupError, Timing, Watch, Wiring};

/// A pin: high, low, or not readable.
#[derive(Clone, Default, Debug)]
struct Pin(Rc<Cell<Option<bool>>>);

#[derive(Debug)]
struct Unreadable;
impl embedded_hal::digital::Error for Unreadable {
    fn kind(&self) -> embedded_hal::digital::ErrorKind {
        embedded_hal::digital::ErrorKind::Other
    }
}
impl ErrorType for Pin {
    type Error = Unreadable;
}
impl InputPin for Pin {
    fn is_high(&mut self) -> Result<bool, Unreadable> {
        self.0.get().ok_or(Unreadable)
    }
    fn is_low(&mut self) -> Result<bool, Unreadable> {
        self.is_high().map(|high| !high)
    }
}
impl Pin {
    fn set(&self, high: bool) {
        self.0.set(Some(high));
    }
    fn low() -> Pin {
        let pin = Pin::default();
        pin.set(false);
        pin
    }
}

#[derive(Clone, Default)]
struct Horn(Rc<Cell<bool>>);
impl ErrorType for Horn {
    type Error = Infallible;
}
impl OutputPin for Horn {
    fn set_low(&mut self) -> Result<(), Infallible> {
        self.0.set(false);
        Ok(())
    }
    fn set_high(&mut self) -> Result<(), Infallible> {
        self.0.set(true);
        Ok(())
    }
}

#[derive(Clone, Default)]
struct Cell2(Rc<Cell<Option<u16>>>);
impl BatteryGauge for Cell2 {
    fn millivolts(&mut self) -> Option<u16> {
        self.0.get()
    }
}

/// Thousandths of a degree, or no answer.
#[derive(Clone, Default)]
struct Glass(Rc<Cell<Option<i32>>>);
impl Thermometer for Glass {
    fn millicelsius(&mut self) -> Option<i32> {
        self.0.get()
    }
}

#[derive(Default, Clone)]
struct Seen(Rc<std::cell::RefCell<Vec<u32>>>);
impl Watch for Seen {
    fn lost(&mut self, event: &Event) {
        self.0.borrow_mut().push(event.sequence);
    }
}

struct Bench;
impl Board for Bench {
    type Pin = Pin;
    type Gauge = Cell2;
    type Output = Horn;
    type Thermometer = Glass;
    type Watch = Seen;
}

/// A node on the bench: a door (1), a head (2), a button (3), the lid (0).
struct Rig {
    node: Node<Bench>,
    now_ms: u64,
    door: Pin,
    smoke: Pin,
    test: Pin,
    hush: Pin,
    fault: Pin,
    sos: Pin,
    lid: Pin,
    cell: Cell2,
    horn: Horn,
    lost: Seen,
    sent: Vec<Uplink>,
    wire_is_full: bool,
}

const BOOT: u32 = 77;

fn parts(rig_pins: [&Pin; 7], cell: &Cell2, horn: &Horn, lost: &Seen) -> Parts<Bench> {
    let [door, smoke, test, hush, fault, sos, lid] = rig_pins.map(Clone::clone);
    let lines = Lines {
        alarm: Input::active_high(smoke),
        fault: Some(Input::active_high(fault)),
        test: Some(Input::active_high(test)),
        hush: Some(Input::active_high(hush)),
    };
    let mut sensors = heapless::Vec::new();
    let all = [
        (1, Sensor::Contact(Contact::new(Input::active_high(door), 50))),
        (2, Sensor::Smoke(Smoke::new(lines))),
        (3, Sensor::Sos(Sos::new(Input::active_high(sos)))),
        (0, Sensor::Tamper(Tamper::new(Input::active_high(lid)))),
    ];
    for sensor in all {
        sensors.push(sensor).unwrap();
    }
    Parts {
        identity: Identity {
            uid: Uid([9; 8]),
            boot: BOOT,
            firmware: FirmwareVersion { major: 0, minor: 1, patch: 0 },
            wiring: Wiring::PointToPoint,
        },
        timing: Timing { heartbeat_ms: 10_000, battery: Limits::default() },
        sensors,
        gauge: Some(cell.clone()),
        sounder: Some(horn.clone()),
        watch: lost.clone(),
    }
}

impl Rig {
    fn new() -> Rig {
        Rig::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Parts<Bench>)) -> Rig {
        let [door, smoke, test, hush, fault, sos, lid] = core::array::from_fn(|_| Pin::low());
        let (cell, horn, lost) = (Cell2::default(), Horn::default(), Seen::default());
        cell.0.set(Some(3_000));
        let mut parts = parts([&door, &smoke, &test, &hush, &fault, &sos, &lid], &cell, &horn, &lost);
        change(&mut parts);
        let node = Node::new(parts).unwrap();
        Rig {
            node,
            now_ms: 0,
            door,
            smoke,
            test,
            hush,
            fault,
            sos,
            lid,
            cell,
            horn,
            lost,
            sent: vec![],
            wire_is_full: false,
        }
    }

    fn poll(&mut self) {
        let (sent, full) = (&mut self.sent, self.wire_is_full);
        let mut tx = |bytes: &[u8]| {
            if full {
                return false;
            }
            for frame in Decoder::new().feed(bytes) {
                match frame.unwrap().message {
                    Message::Up(uplink) => sent.push(uplink),
                    Message::Down(downlink) => panic!("a node never sends {downlink:?}"),
                }
            }
            true
        };
        self.node.poll(self.now_ms, &mut tx);
    }

    /// Lets time pass, polling only when the node itself says so: this proves `due_at_ms` too.
    fn run(&mut self, for_ms: u64) {
        let end = self.now_ms + for_ms;
        self.poll();
        let mut guard = 0;
        loop {
            let due = self.node.due_at_ms(self.now_ms);
            if due > end {
                break;
            }
            guard = if due == self.now_ms { guard + 1 } else { 0 };
            assert!(guard < 5, "the node asks to be polled at {due} for ever");
            self.now_ms = due;
            self.poll();
        }
        self.now_ms = end;
    }

    fn down(&mut self, downlink: Downlink) {
        self.down_to(0, downlink);
    }

    fn down_to(&mut self, address: u8, downlink: Downlink) {
        let mut buffer = [0; FRAME_BYTES_MAX];
        self.node.on_bytes(self.now_ms, encode(&Frame::down(address, downlink), &mut buffer).unwrap());
    }

    fn ack(&mut self, through: u32) {
        self.down(Downlink::Ack(Ack { boot: BOOT, through }));
    }

    fn take_events(&mut self) -> Vec<(u32, u8, EventKind)> {
        let sent = core::mem::take(&mut self.sent);
        let event =
            |it| if let Uplink::Event(event) = it { Some((event.sequence, event.channel, event.kind)) } else { None };
        sent.into_iter().filter_map(event).collect()
    }

    /// What was sent, without what was sent again.
    fn new_kinds(&mut self) -> Vec<EventKind> {
        let mut seen = BTreeSet::new();
        self.take_events().into_iter().filter(|it| seen.insert(it.0)).map(|it| it.2).collect()
    }

    fn kinds(&mut self) -> Vec<EventKind> {
        self.take_events().into_iter().map(|(_, _, kind)| kind).collect()
    }

    fn settled() -> Rig {
        let mut rig = Rig::new();
        rig.run(1_000);
        rig.sent.clear();
        rig
    }

    fn last_heartbeat(&self) -> &Heartbeat {
        let heartbeats = self.sent.iter().rev();
        heartbeats.filter_map(|it| if let Uplink::Heartbeat(it) = it { Some(it) } else { None }).next().unwrap()
    }
}

#[test]
fn a_door_is_open_when_its_contact_was_still_for_the_whole_time() {
    let mut rig = Rig::settled();
    for _ in 0..20 {
        rig.door.set(true);
        rig.run(30);
        rig.door.set(false);
        rig.run(30);
    }
    assert_eq!(rig.kinds(), []);
    rig.door.set(true);
    rig.run(49);
    assert_eq!(rig.kinds(), []);
    rig.run(1);
    assert_eq!(rig.take_events(), [(1, 1, EventKind::ContactOpened)]);
    rig.ack(1);
    rig.door.set(false);
    rig.run(50);
    assert_eq!(rig.take_events(), [(2, 1, EventKind::ContactClosed)]);
}

#[test]
fn a_sensor_that_cannot_be_read_is_a_fault_after_a_second() {
    let mut rig = Rig::settled();
    rig.door.0.set(None);
    rig.run(999);
    assert_eq!(rig.kinds(), []);
    rig.run(1);
    assert_eq!(rig.kinds(), [EventKind::FaultRaised]);
    rig.ack(1);
    rig.door.set(false);
    rig.run(1_000);
    assert_eq!(rig.kinds(), [EventKind::FaultCleared]);
}

#[test]
fn smoke_is_told_and_cleared_and_hush_never_hides_it() {
    let mut rig = Rig::settled();
    rig.smoke.set(true);
    rig.run(100);
    rig.ack(1);
    rig.smoke.set(false);
    rig.hush.set(true);
    rig.run(100);
    rig.ack(3);
    rig.smoke.set(true);
    rig.run(100);
    let kinds = rig.kinds();
    assert_eq!((kinds[0], *kinds.last().unwrap()), (EventKind::SmokeAlarm, EventKind::SmokeAlarm));
    assert!(kinds.contains(&EventKind::SmokeHushed), "{kinds:?}");
}

#[test]
fn a_test_is_no_alarm_unless_it_does_not_end() {
    let mut rig = Rig::settled();
    rig.test.set(true);
    rig.run(200);
    rig.smoke.set(true);
    rig.run(2_000);
    rig.test.set(false);
    rig.run(1_000);
    rig.smoke.set(false);
    rig.run(1_000);
    rig.ack(2);
    assert_eq!(rig.new_kinds(), [EventKind::SmokeTest, EventKind::SmokeClear]);

    rig.test.set(true);
    rig.smoke.set(true);
    rig.run(200);
    rig.test.set(false);
    rig.run(TEST_HOLD_MS + 200);
    rig.ack(4);
    assert_eq!(rig.node.outbox().next_sequence(), 5);
    assert!(rig.kinds().ends_with(&[EventKind::SmokeAlarm]));
}

#[test]
fn the_gateway_can_test_the_road_from_the_head_on() {
    let mut rig = Rig::settled();
    rig.down(Downlink::Test { channel: 2 });
    rig.run(10);
    assert_eq!(rig.take_events(), [(1, 2, EventKind::SmokeTest)]);
    rig.ack(1);
    rig.run(TEST_HOLD_MS);
    assert_eq!(rig.take_events(), [(2, 2, EventKind::SmokeClear)]);
    rig.down(Downlink::Test { channel: 1 });
    assert_eq!(rig.node.stats().ignored_frames, 1, "a door has no test");
}

#[test]
fn smoke_a_pressed_button_and_an_open_lid_at_boot_are_events() {
    let mut rig = Rig::new();
    rig.smoke.set(true);
    rig.sos.set(true);
    rig.lid.set(true);
    rig.door.set(true);
    rig.run(200);
    let kinds: Vec<_> = rig.kinds();
    assert_eq!(kinds, [EventKind::SosPressed, EventKind::SmokeAlarm, EventKind::TamperOpened]);
}

#[test]
fn one_press_is_one_call_for_help_however_long() {
    let mut rig = Rig::settled();
    rig.sos.set(true);
    rig.run(5_000);
    rig.ack(1);
    rig.sos.set(false);
    rig.run(500);
    rig.sos.set(true);
    rig.run(100);
    let numbers: BTreeSet<_> = rig.take_events().into_iter().map(|it| it.0).collect();
    assert_eq!(numbers, BTreeSet::from([1, 2]));
}

#[test]
fn a_battery_at_its_limit_does_not_flicker() {
    let mut rig = Rig::settled();
    for (millivolts, low) in [(2_599, Some(true)), (2_700, None), (2_599, None), (2_750, Some(false)), (2_600, None)] {
        rig.cell.0.set(Some(millivolts));
        rig.node.measure_battery_now();
        rig.run(10);
        let expected: Vec<_> = low.map(|low| EventKind::Battery(Battery { millivolts, low })).into_iter().collect();
        assert_eq!(rig.kinds(), expected, "{millivolts} mV");
        let through = rig.node.outbox().next_sequence() - 1;
        rig.ack(through);
    }
}

#[test]
fn a_heads_own_fault_is_told() {
    let mut rig = Rig::settled();
    rig.fault.set(true);
    rig.run(1_100);
    assert_eq!(rig.take_events()[0], (1, 2, EventKind::FaultRaised));
    rig.ack(1);
    rig.run(10_000);
    assert!(rig.last_heartbeat().levels.iter().any(|it| it.channel == 2 && it.fault));
}

#[test]
fn the_sounder_sounds_as_long_as_asked_and_stops_when_told() {
    let mut rig = Rig::settled();
    rig.down(Downlink::Sounder(Sounder { for_ms: 2_000 }));
    rig.run(1_999);
    assert!(rig.horn.0.get());
    rig.run(1);
    assert!(!rig.horn.0.get());
    rig.down(Downlink::Sounder(Sounder { for_ms: 60_000 }));
    rig.run(10);
    rig.down(Downlink::Sounder(Sounder { for_ms: 0 }));
    rig.run(10);
    assert!(!rig.horn.0.get());
}

#[test]
fn two_sensors_on_one_channel_are_refused() {
    let pin = Pin::low();
    let build = |channels: [u8; 2]| {
        let mut parts = parts([&pin; 7], &Cell2::default(), &Horn::default(), &Seen::default());
        parts.sensors[0].0 = channels[0];
        parts.sensors[1].0 = channels[1];
        Node::<Bench>::new(parts).err()
    };
    assert_eq!(build([3, 3]), Some(SetupError::ChannelTwice(3)));
    assert_eq!(build([33, 2]), Some(SetupError::ChannelRange(33)));
}

#[test]
fn w10_uplinks_other_addresses_and_noise_change_nothing() {
    let mut rig = Rig::settled();
    rig.door.set(true);
    rig.run(50);
    let mut buffer = [0; FRAME_BYTES_MAX];
    let ack = Ack { boot: BOOT, through: 1 };
    let other = encode(&Frame::down(5, Downlink::Ack(ack)), &mut buffer).unwrap().to_vec();
    rig.node.on_bytes(rig.now_ms, &other);
    let pong = Uplink::Pong(Pong { boot: 1, uptime_ms: 1, nonce: 1 });
    let echo = encode(&Frame::up(0, pong), &mut buffer).unwrap().to_vec();
    rig.node.on_bytes(rig.now_ms, &echo);
    rig.node.on_bytes(rig.now_ms, &[0, 9, 9, 9, 0]);
    let stats = rig.node.stats();
    assert_eq!((stats.ignored_frames, stats.broken_frames, stats.kept_events), (2, 1, 1));
}

#[test]
fn w11_every_frame_carries_the_boot_the_board_gave() {
    let mut rig = Rig::new();
    rig.door.set(true);
    rig.run(100);
    rig.door.set(false);
    rig.run(11_000);
    assert!(rig.sent.len() > 4);
    assert!(rig.sent.iter().all(|uplink| uplink.boot() == BOOT));
}

#[test]
fn w12_events_are_numbered_from_1_without_a_gap() {
    let mut outbox = Outbox::new(BOOT);
    for sequence in 1..=200 {
        assert_eq!(outbox.accept(0, 1, EventKind::ContactOpened).0.sequence, sequence);
    }
}

#[test]
fn w13_an_event_is_kept_until_an_ack_of_this_boot_reaches_it() {
    let mut rig = Rig::settled();
    for open in [true, false, true] {
        rig.door.set(open);
        rig.run(60);
    }
    rig.down(Downlink::Ack(Ack { boot: BOOT + 1, through: 3 }));
    rig.ack(4);
    assert_eq!(rig.node.stats().kept_events, 3, "another boot's Ack and one for the future are ignored");
    rig.ack(2);
    assert_eq!(rig.node.stats().kept_events, 1);
    rig.ack(1);
    assert_eq!(rig.node.stats().kept_events, 1, "an old Ack changes nothing");
    rig.ack(3);
    assert_eq!(rig.node.stats().kept_events, 0);
}

#[test]
fn w13_an_ack_for_what_was_kept_but_never_sent_is_ignored() {
    let mut rig = Rig::settled();
    rig.wire_is_full = true;
    rig.door.set(true);
    rig.run(100);
    rig.ack(1);
    assert_eq!(rig.node.stats().kept_events, 1);
    rig.wire_is_full = false;
    rig.run(100);
    rig.ack(1);
    assert_eq!(rig.node.stats().kept_events, 0);
}

#[test]
fn w14_life_safety_goes_last_and_the_oldest_of_the_rest_first() {
    let mut outbox = Outbox::new(BOOT);
    outbox.accept(0, 2, EventKind::SmokeAlarm);
    for _ in 2..=EVENTS_MAX {
        assert_eq!(outbox.accept(0, 1, EventKind::ContactOpened).1, None);
    }
    let battery = EventKind::Battery(Battery { millivolts: 1, low: true });
    let (event, given_up) = outbox.accept(0, 0, battery);
    assert_eq!(given_up, Some(event), "nothing goes for what is less urgent than all of it");
    assert_eq!(outbox.accept(0, 1, EventKind::ContactClosed).1.unwrap().sequence, 2);
    for _ in 0..EVENTS_MAX - 1 {
        let given_up = outbox.accept(0, 2, EventKind::SosPressed).1.unwrap();
        assert!(!given_up.kind.is_life_safety(), "{given_up:?}");
    }
    let (event, given_up) = outbox.accept(0, 2, EventKind::SmokeAlarm);
    assert_eq!(given_up, Some(event), "the first calls for help stay");
    assert_eq!(
        outbox.entry_from(1),
        Some(Entry::Event(Event { boot: BOOT, sequence: 1, uptime_ms: 0, channel: 2, kind: EventKind::SmokeAlarm }))
    );
}

#[test]
fn w15_a_loss_stands_where_the_lost_numbers_stood_until_acknowledged() {
    let mut rig = Rig::settled();
    rig.wire_is_full = true;
    let total = EVENTS_MAX as u32 + 10;
    for n in 0..total {
        rig.door.set(n % 2 == 0);
        rig.run(60);
    }
    assert_eq!(*rig.lost.0.borrow(), (1..=10).collect::<Vec<_>>());
    rig.wire_is_full = false;
    for _ in 0..2 {
        rig.run(10);
        assert_eq!(rig.sent[0], Uplink::Loss(Loss { boot: BOOT, first: 1, count: 10 }));
        assert!(matches!(rig.sent[1], Uplink::Event(Event { sequence: 11, .. })), "{:?}", rig.sent[1]);
        rig.run(RESEND_FIRST_MS - 20);
        rig.sent.clear();
    }
    rig.run(1_000);
    rig.ack(10);
    rig.sent.clear();
    rig.run(RESEND_MAX_MS);
    assert!(!rig.sent.iter().any(|it| matches!(it, Uplink::Loss(_))));
}

/// The stream, read from the first number on, always covers every number once, whatever was accepted, given up and acknowledged.
#[test]
fn w15_events_and_losses_together_cover_every_number_once() {
    for seed in 0..300_u64 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut outbox = Outbox::new(BOOT);
        for _ in 0..400 {
            let kind =
                [EventKind::ContactOpened, EventKind::SmokeAlarm, EventKind::SmokeClear, EventKind::FaultCleared]
                    [random.random_range(0..4)];
            outbox.accept(0, 1, kind);
            if random.random_ratio(1, 40) {
                outbox.release(random.random_range(0..outbox.next_sequence() + 3));
            }
            let mut number = outbox.unacked_from();
            while let Some(entry) = outbox.entry_from(number) {
                let first = match entry {
                    Entry::Event(event) => event.sequence,
                    Entry::Loss(loss) => loss.first,
                };
                assert_eq!(first, number, "seed {seed}");
                number = entry.last() + 1;
            }
            assert_eq!(number, outbox.next_sequence(), "seed {seed}");
        }
    }
}

#[test]
fn w16_at_most_a_window_is_sent_ahead_and_in_order() {
    let mut rig = Rig::settled();
    for n in 0..20 {
        rig.door.set(n % 2 == 0);
        rig.run(60);
    }
    rig.sent.clear();
    rig.run(10_000);
    let numbers: Vec<_> = rig.take_events().into_iter().map(|it| it.0).collect();
    assert!(numbers.chunks(WINDOW).all(|it| it == &[1, 2, 3, 4, 5, 6, 7, 8][..it.len()]), "{numbers:?}");
    rig.ack(5);
    rig.run(10);
    let numbers: Vec<_> = rig.take_events().into_iter().map(|it| it.0).collect();
    assert_eq!(numbers, [9, 10, 11, 12, 13]);
}

#[test]
fn w16_the_wait_doubles_to_its_bound_and_never_ends() {
    let mut rig = Rig::settled();
    rig.door.set(true);
    let mut at = vec![];
    for _ in 0..60_000 {
        rig.run(1);
        at.extend(rig.take_events().iter().map(|_| rig.now_ms));
    }
    let waits: Vec<_> = at.windows(2).map(|it| it[1] - it[0]).collect();
    assert_eq!(&waits[..5], &[300, 600, 1_200, 2_400, 4_800]);
    assert!(waits.len() > 10 && waits[5..].iter().all(|wait| *wait == RESEND_MAX_MS), "{waits:?}");
}

#[test]
fn w17_hello_comes_first_and_when_asked() {
    let mut rig = Rig::new();
    rig.smoke.set(true);
    rig.run(100);
    assert!(matches!(rig.sent[0], Uplink::Hello(Hello { boot: BOOT, unacked_from: 1, .. })));
    rig.sent.clear();
    rig.down(Downlink::Identify);
    rig.run(1);
    assert!(matches!(rig.sent[0], Uplink::Hello(Hello { next_sequence: 2, .. })), "{:?}", rig.sent);
    assert!(matches!(rig.sent[1], Uplink::Event(_)), "what is unacknowledged follows at once");
    assert!(matches!(rig.sent[2], Uplink::Heartbeat(_)), "and the levels");
}

#[test]
fn w18_a_heartbeat_tells_settled_levels_in_every_interval_and_at_once_after_boot() {
    let mut rig = Rig::new();
    rig.door.set(true);
    rig.run(110);
    let levels: Vec<_> = rig.last_heartbeat().levels.iter().map(|it| (it.channel, it.level)).collect();
    assert_eq!(levels, [(1, Level::ContactOpen), (2, Level::SmokeClear), (0, Level::TamperClosed)]);
    rig.sent.clear();
    rig.run(100_000);
    assert_eq!(rig.sent.len(), 10);
    rig.down(Downlink::Configure(Configure { heartbeat_ms: 1_000, debounce_ms: 10 }));
    rig.sent.clear();
    rig.run(10_000);
    assert_eq!(rig.sent.len(), 11, "{:?}", rig.sent);
}

#[test]
fn a_ping_is_answered_with_its_number() {
    let mut rig = Rig::settled();
    rig.down(Downlink::Ping(Ping { nonce: 4711 }));
    rig.run(1);
    assert_eq!(rig.sent, [Uplink::Pong(Pong { boot: BOOT, uptime_ms: 1_000, nonce: 4711 })]);
}
