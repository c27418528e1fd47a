//! Goal: the gateway's rules W19 to W29, each as a small script.
//! Method: uplinks in at a simulated time, a disk that stores when told; then what was observed and what was sent.

use gengfu_alarm::observation::{Link, Observation, Smoke, What};
use gengfu_contract::event::ClockQuality;
use gengfu_wire::*;

use super::super::cursor::Cursor;
use super::super::problem::Problem;
use super::super::session::Session;
use super::super::stats::Discard;
use super::super::{NodeConfig, twins};
use super::{after_ms, alone, config, slug};
use crate::config::DeviceClass;

const UID: Uid = Uid([0xab; 8]);

struct Bench {
    session: Session,
    now_ms: u64,
    stored: Vec<u8>,
    config: NodeConfig,
}

impl Bench {
    fn with(config: NodeConfig) -> Bench {
        let mut session = Session::new(&alone(config.clone()), config.clone(), None, after_ms(0));
        session.port_opened(after_ms(0));
        Bench { session, now_ms: 0, stored: Cursor::default().to_bytes(), config }
    }

    /// A link that is up, its node in boot 1, the first observations stored.
    fn up() -> Bench {
        let mut bench = Bench::with(config());
        bench.hello(1, 1, 1);
        bench.store();
        bench.sent();
        bench
    }

    fn hears(&mut self, uplink: Uplink) {
        let mut buffer = [0; FRAME_BYTES_MAX];
        let bytes = encode(&Frame::up(0, uplink), &mut buffer).unwrap();
        self.session.on_bytes(after_ms(self.now_ms), ClockQuality::Synced, bytes);
    }

    fn hello(&mut self, boot: u32, unacked_from: u32, next_sequence: u32) {
        self.hello_of(UID, boot, unacked_from, next_sequence);
    }

    fn hello_of(&mut self, uid: Uid, boot: u32, unacked_from: u32, next_sequence: u32) {
        self.hears(Uplink::Hello(Hello {
            uid,
            boot,
            firmware: FirmwareVersion { major: 1, minor: 2, patch: 3 },
            capabilities: Capabilities::default(),
            uptime_ms: self.now_ms,
            unacked_from,
            next_sequence,
            heartbeat_ms: 10_000,
        }));
    }

    fn event(&mut self, boot: u32, sequence: u32, channel: u8, kind: EventKind) {
        self.hears(Uplink::Event(Event { boot, sequence, uptime_ms: self.now_ms, channel, kind }));
    }

    fn door(&mut self, boot: u32, sequence: u32) {
        let kind = if sequence % 2 == 1 { EventKind::ContactOpened } else { EventKind::ContactClosed };
        self.event(boot, sequence, 1, kind);
    }

    fn heartbeat(&mut self, boot: u32, next_sequence: u32, levels: &[(u8, Level)]) {
        let levels =
            levels.iter().map(|(channel, level)| ChannelLevel { channel: *channel, level: *level, fault: false });
        let levels = levels.collect();
        let uptime_ms = self.now_ms;
        self.hears(Uplink::Heartbeat(Heartbeat { boot, uptime_ms, next_sequence, levels, battery: None }));
    }

    /// Stores what waits; gives what was stored.
    fn store(&mut self) -> Vec<Observation> {
        let Some(batch) = self.session.take_batch() else { return vec![] };
        self.stored = batch.cursor.to_bytes();
        self.session.committed();
        batch.observations
    }

    fn stored_whats(&mut self) -> Vec<What> {
        self.store().into_iter().map(|it| it.what).collect()
    }

    /// Numbers stored.
    fn numbers(&mut self) -> Vec<u32> {
        self.store().into_iter().filter_map(|it| Some(it.origin?.sequence)).collect()
    }

    /// What was sent, but for the time, which goes out at each Hello.
    fn sent(&mut self) -> Vec<Downlink> {
        self.sent_all().into_iter().filter(|it| !matches!(it, Downlink::Time(_))).collect()
    }

    fn sent_all(&mut self) -> Vec<Downlink> {
        let now = after_ms(self.now_ms);
        let frames = std::iter::from_fn(|| self.session.take_send(now));
        frames
            .map(|frame| match frame.message {
                Message::Down(downlink) => downlink,
                Message::Up(uplink) => panic!("a gateway never sends {uplink:?}"),
            })
            .collect()
    }

    fn passes(&mut self, ms: u64) {
        for _ in 0..ms / 1_000 {
            self.now_ms += 1_000;
            self.session.tick(after_ms(self.now_ms), ClockQuality::Synced);
        }
    }

    /// The gateway's process dies and starts again with what the disk has.
    fn restarts(&mut self) {
        self.session =
            Session::new(&alone(self.config.clone()), self.config.clone(), Some(&self.stored), after_ms(self.now_ms));
        self.session.port_opened(after_ms(self.now_ms));
    }
}

const fn ack(boot: u32, through: u32) -> Downlink {
    Downlink::Ack(Ack { boot, through })
}

#[test]
fn a_door_is_seen_by_its_name_with_its_origin_and_time() {
    let mut bench = Bench::up();
    bench.now_ms = 5_000;
    bench.door(1, 1);
    let seen = bench.store().remove(0);
    assert_eq!((seen.device, seen.sensed_at), (slug("door"), after_ms(5_000)));
    assert_eq!(seen.what, What::Door { open: true, repaired: false });
    let origin = seen.origin.unwrap();
    assert_eq!((origin.node.as_str(), origin.boot, origin.sequence), ("abababababababab", 1, 1));
}

#[test]
fn w10_downlinks_and_other_addresses_are_discarded() {
    let mut bench = Bench::up();
    let mut buffer = [0; FRAME_BYTES_MAX];
    for frame in [Frame::down(0, ack(1, 5)), Frame::up(9, Uplink::Pong(Pong { boot: 1, uptime_ms: 0, nonce: 1 }))] {
        let bytes = encode(&frame, &mut buffer).unwrap().to_vec();
        bench.session.on_bytes(after_ms(0), ClockQuality::Synced, &bytes);
    }
    assert_eq!(bench.session.stats().discarded(Discard::Direction), 1);
    assert_eq!(bench.session.stats().discarded(Discard::Address), 1);
}

#[test]
fn w19_an_ack_goes_only_after_the_disk_has_it() {
    let mut bench = Bench::up();
    bench.door(1, 1);
    bench.door(1, 2);
    assert_eq!(bench.sent(), []);
    let batch = bench.session.take_batch().unwrap();
    assert_eq!((batch.observations.len(), batch.cursor.through(1)), (2, Some(2)));
    bench.door(1, 3);
    assert_eq!(bench.sent(), [], "on its way is not there");
    assert_eq!(bench.session.take_batch(), None, "one batch at a time");
    bench.session.committed();
    assert_eq!(bench.sent(), [ack(1, 2)], "what came meanwhile is not covered");
    assert_eq!(bench.numbers(), [3]);
    assert_eq!(bench.sent(), [ack(1, 3)]);
}

#[test]
fn w19_when_the_disk_refuses_nothing_is_acknowledged_and_all_is_taken_again() {
    let mut bench = Bench::up();
    bench.door(1, 1);
    bench.numbers();
    bench.sent();
    bench.door(1, 2);
    bench.session.take_batch().unwrap();
    bench.door(1, 3);
    bench.session.failed();
    assert_eq!(bench.sent(), [Downlink::Identify]);
    bench.hello(1, 2, 4);
    bench.door(1, 2);
    bench.door(1, 3);
    assert_eq!(bench.numbers(), [2, 3]);
    assert_eq!(bench.sent(), [ack(1, 3)]);
    assert_eq!(bench.session.stats().refused, 1);
}

#[test]
fn w20_a_duplicate_is_taken_once_and_its_lost_ack_repeated() {
    let mut bench = Bench::up();
    bench.door(1, 1);
    bench.door(1, 1);
    assert_eq!(bench.numbers(), [1]);
    assert_eq!(bench.sent(), [ack(1, 1)]);
    bench.door(1, 1);
    assert_eq!(bench.store(), []);
    assert_eq!(bench.sent(), [ack(1, 1)]);
    assert_eq!(bench.session.stats().discarded(Discard::Duplicate), 2);
}

#[test]
fn w20_a_restarted_gateway_takes_nothing_twice() {
    let mut bench = Bench::up();
    bench.door(1, 1);
    bench.door(1, 2);
    assert_eq!(bench.numbers(), [1, 2]);
    bench.restarts();
    bench.hello(1, 1, 4);
    for sequence in 1..=3 {
        bench.door(1, sequence);
    }
    assert_eq!(bench.numbers(), [3]);
}

#[test]
fn w21_nothing_past_a_gap_is_taken_and_the_last_ack_is_repeated_at_once() {
    let mut bench = Bench::up();
    bench.door(1, 1);
    bench.numbers();
    bench.sent();
    bench.door(1, 3);
    assert_eq!(bench.store(), []);
    assert_eq!(bench.sent(), [ack(1, 1)]);
    bench.door(1, 2);
    bench.door(1, 3);
    assert_eq!(bench.numbers(), [2, 3]);
    assert_eq!(bench.session.stats().discarded(Discard::Gap), 1);
}

#[test]
fn w21_a_gap_before_the_first_ack_asks_for_the_beginning() {
    let mut bench = Bench::up();
    bench.door(1, 2);
    assert_eq!(bench.sent(), [ack(1, 0)]);
}

#[test]
fn w22_an_unknown_boot_is_asked_to_identify_itself_and_not_acknowledged() {
    let mut bench = Bench::with(config());
    assert_eq!(bench.sent(), [Downlink::Identify], "at opening");
    bench.now_ms = 500;
    bench.event(7, 1, 2, EventKind::SmokeAlarm);
    bench.event(7, 2, 2, EventKind::SmokeClear);
    assert_eq!((bench.store(), bench.sent()), (vec![], vec![Downlink::Identify]));
    bench.hello(7, 1, 3);
    bench.event(7, 1, 2, EventKind::SmokeAlarm);
    assert_eq!(bench.stored_whats(), [What::Link(Link::Up), What::Smoke(Smoke::Alarm)]);
    assert_eq!(bench.sent(), [ack(7, 1)]);
    assert_eq!(bench.session.stats().discarded(Discard::UnknownBoot), 2);
}

#[test]
fn w22_a_silent_line_is_asked_again() {
    let mut bench = Bench::with(config());
    bench.sent();
    bench.passes(10_000);
    assert!(bench.sent().contains(&Downlink::Identify));
}

#[test]
fn w23_a_new_boot_counts_afresh_and_what_the_old_one_kept_is_told_lost() {
    let mut bench = Bench::up();
    bench.door(1, 1);
    bench.numbers();
    bench.heartbeat(1, 5, &[]);
    bench.store();
    bench.hello(2, 1, 1);
    let seen = bench.store();
    assert_eq!(seen[0].what, What::EventsLost { first: 2, count: 3 });
    assert_eq!(seen[0].origin.as_ref().map(|it| (it.boot, it.sequence)), Some((1, 2)));
    bench.door(2, 1);
    assert_eq!(bench.numbers(), [1]);
    assert_eq!(bench.sent().last(), Some(&ack(2, 1)));
    bench.restarts();
    bench.hello(2, 1, 2);
    bench.door(2, 1);
    assert_eq!(bench.numbers(), [] as [u32; 0]);
}

#[test]
fn w23_a_boot_that_another_gateway_served_goes_on_where_it_stands() {
    let mut bench = Bench::with(config());
    bench.hello(1, 40, 42);
    bench.door(1, 40);
    bench.door(1, 41);
    assert_eq!(bench.numbers(), [40, 41]);
}

#[test]
fn w23_a_disk_that_was_set_back_is_told_as_a_loss() {
    let mut bench = Bench::up();
    bench.door(1, 1);
    bench.numbers();
    bench.hello(1, 5, 6);
    assert_eq!(bench.stored_whats(), [What::EventsLost { first: 2, count: 3 }]);
    bench.door(1, 5);
    assert_eq!(bench.numbers(), [5]);
}

#[test]
fn w15_a_loss_is_passed_on_once_and_counting_goes_on_behind_it() {
    let mut bench = Bench::up();
    bench.door(1, 1);
    bench.numbers();
    let loss = |first, count| Uplink::Loss(Loss { boot: 1, first, count });
    bench.hears(loss(3, 2));
    assert_eq!(bench.store(), [], "a loss behind a gap waits like an event");
    for _ in 0..2 {
        bench.hears(loss(1, 4));
    }
    bench.door(1, 5);
    assert_eq!(
        bench.stored_whats(),
        [What::EventsLost { first: 2, count: 3 }, What::Door { open: true, repaired: false }]
    );
    assert_eq!(bench.session.stats().events_lost, 3);
}

#[test]
fn w24_an_event_told_late_carries_its_own_time() {
    let mut bench = Bench::up();
    bench.now_ms = 600_000;
    let event = Event { boot: 1, sequence: 1, uptime_ms: 4_000, channel: 2, kind: EventKind::SmokeAlarm };
    bench.hears(Uplink::Event(event));
    let smoke = bench.store().remove(0);
    assert_eq!(smoke.sensed_at, after_ms(4_000));
    let future = Event { sequence: 2, uptime_ms: 900_000_000, kind: EventKind::SmokeClear, ..event };
    bench.hears(Uplink::Event(future));
    assert_eq!(bench.store().remove(0).sensed_at, after_ms(600_000), "never in the future");
}

#[test]
fn w25_a_lost_edge_is_repaired_and_said_to_be_so() {
    let mut bench = Bench::up();
    bench.heartbeat(1, 1, &[(1, Level::ContactClosed), (2, Level::SmokeClear)]);
    bench.store();
    bench.hears(Uplink::Loss(Loss { boot: 1, first: 1, count: 2 }));
    bench.store();
    bench.heartbeat(1, 3, &[(1, Level::ContactOpen), (2, Level::SmokeAlarm)]);
    assert_eq!(bench.stored_whats(), [What::Door { open: true, repaired: true }, What::Smoke(Smoke::Alarm)]);
    bench.heartbeat(1, 3, &[(1, Level::ContactOpen), (2, Level::SmokeAlarm)]);
    assert_eq!(bench.store(), [], "once");
    assert_eq!(bench.session.stats().repaired, 2);
}

#[test]
fn w25_a_level_is_not_news_when_its_edge_was_taken_or_is_still_to_come() {
    let mut bench = Bench::up();
    bench.heartbeat(1, 1, &[(1, Level::ContactClosed)]);
    bench.store();
    bench.heartbeat(1, 2, &[(1, Level::ContactOpen)]);
    assert_eq!(bench.store(), [], "number 1 is still to come");
    bench.door(1, 1);
    bench.heartbeat(1, 2, &[(1, Level::ContactOpen)]);
    assert_eq!(bench.stored_whats(), [What::Door { open: true, repaired: false }]);
}

#[test]
fn w25_a_door_moved_while_the_node_was_off_is_repaired_also_over_a_restart() {
    let mut bench = Bench::up();
    bench.door(1, 1);
    bench.store();
    bench.restarts();
    bench.hello(2, 1, 1);
    bench.heartbeat(2, 1, &[(1, Level::ContactClosed)]);
    let whats = bench.stored_whats();
    assert!(whats.contains(&What::Door { open: false, repaired: true }), "{whats:?}");
    bench.restarts();
    bench.hello(2, 1, 1);
    bench.heartbeat(2, 1, &[(1, Level::ContactClosed)]);
    assert!(!bench.stored_whats().iter().any(|it| matches!(it, What::Door { .. })), "the disk remembers it");
}

#[test]
fn w25_after_a_failed_batch_that_the_disk_kept_all_the_same_the_next_boots_levels_are_told_also_where_nothing_seems_new()
 {
    let mut bench = Bench::up();
    bench.heartbeat(1, 1, &[(1, Level::ContactClosed)]);
    bench.store();
    // The disk says that it failed, and has "open" in the journal; then the node loses its power, and somebody closes the door.
    bench.door(1, 1);
    assert!(bench.session.take_batch().is_some());
    bench.session.failed();
    bench.hello(2, 1, 1);
    bench.heartbeat(2, 1, &[(1, Level::ContactClosed)]);
    let whats = bench.stored_whats();
    assert!(whats.contains(&What::Door { open: false, repaired: true }), "{whats:?}");
    bench.heartbeat(2, 1, &[(1, Level::ContactClosed)]);
    assert!(!bench.stored_whats().iter().any(|it| matches!(it, What::Door { .. })), "once it is durable it is known");
}

#[test]
fn w26_silence_is_told_once_and_its_end_too() {
    let mut bench = Bench::up();
    bench.passes(29_000);
    assert_eq!(bench.store(), []);
    assert!(bench.sent().iter().any(|it| matches!(it, Downlink::Ping(_))), "it was asked before");
    bench.passes(60_000);
    let whats = bench.stored_whats();
    assert!(
        matches!(&whats[..], [What::Link(Link::Down(text))] if text.contains("收不到") && text.contains("power")),
        "{whats:?}"
    );
    assert!(!bench.session.stats().is_up());
    bench.heartbeat(1, 1, &[]);
    assert_eq!(bench.stored_whats()[0], What::Link(Link::Up));
    assert!(bench.session.stats().is_up());
}

#[test]
fn w26_a_gateway_that_stood_still_or_was_set_did_not_hear_silence() {
    let mut bench = Bench::up();
    bench.now_ms += 86_400_000;
    bench.session.tick(after_ms(bench.now_ms), ClockQuality::Synced);
    bench.session.tick(after_ms(0), ClockQuality::Unsynced);
    assert_eq!(bench.store(), []);
    assert!(bench.session.stats().is_up());
}

#[test]
fn w26_a_node_never_heard_and_a_port_that_is_missing_are_told_with_their_cause() {
    let mut bench = Bench::with(config());
    bench.session.port_lost(after_ms(0), Problem::NoPort);
    assert!(bench.session.stats().remedy.contains("/dev/serial/by-path"));
    bench.passes(29_000);
    assert_eq!(bench.store(), [], "a blink is no trouble");
    bench.passes(1_000);
    let whats = bench.stored_whats();
    assert!(
        matches!(&whats[..], [What::Link(Link::Down(text))] if text.contains("/dev/ttyS9: the port does not exist")),
        "{whats:?}"
    );
}

#[test]
fn w27_noise_is_counted_and_the_state_says_what_to_do() {
    let mut bench = Bench::with(config());
    bench.session.on_bytes(after_ms(0), ClockQuality::Synced, &[0, 3, 7, 9, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0]);
    let stats = bench.session.stats();
    assert_eq!(stats.discarded(Discard::Broken), stats.broken.values().sum::<u64>());
    assert_eq!(stats.discarded(Discard::Broken), 2);
    assert!(!stats.is_up() && !stats.remedy.is_empty());
    let json = serde_json::to_value(stats).unwrap();
    assert_eq!(json["discards"]["broken"], 2);
}

#[test]
fn w06_an_old_node_is_told_as_such() {
    let mut bench = Bench::with(config());
    bench.session.on_bytes(after_ms(0), ClockQuality::Synced, &frame_of_version_9(0));
    let stats = bench.session.stats();
    assert_eq!(stats.discarded(Discard::Version), 1, "{stats:?}");
    assert!(stats.state.contains("version 9") && stats.remedy.contains("update"), "{}", stats.state);
}

/// A frame of version 9 with a right checksum, made by hand from one of ours.
pub(super) fn frame_of_version_9(address: u8) -> Vec<u8> {
    let mut buffer = [0; FRAME_BYTES_MAX];
    let pong = Frame::up(address, Uplink::Pong(Pong { boot: 1, uptime_ms: 1, nonce: 1 }));
    let bytes = encode(&pong, &mut buffer).unwrap();
    let mut raw = vec![];
    let mut code = usize::from(bytes[1]);
    for byte in &bytes[2..bytes.len() - 1] {
        code -= 1;
        raw.push(if code == 0 {
            code = usize::from(*byte);
            0
        } else {
            *byte
        });
    }
    raw.truncate(raw.len() - 4);
    raw[0] = 9;
    raw.extend(crc32c(&raw).to_le_bytes());
    let mut stuffed = vec![0];
    for run in raw.split(|byte| *byte == 0) {
        stuffed.push(u8::try_from(run.len() + 1).unwrap());
        stuffed.extend(run);
    }
    stuffed.push(0);
    stuffed
}

#[test]
fn bytes_that_never_make_a_frame_are_another_speed_and_told_with_the_remedy() {
    let mut bench = Bench::with(config());
    let noise: Vec<u8> = (0..40_u8).map(|n| n.wrapping_mul(37) & 0xfe).collect();
    bench.session.on_bytes(after_ms(0), ClockQuality::Synced, &noise);
    assert!(bench.session.stats().state.contains("nothing is heard"), "40 bytes may be an accident");
    bench.session.on_bytes(after_ms(1_000), ClockQuality::Synced, &noise);
    let stats = bench.session.stats();
    assert!(stats.state.contains("none make a frame at 115200 bit/s"), "{stats:?}");
    assert!(stats.remedy.contains("same speed") && stats.remedy_zh.contains("波特率"), "{stats:?}");
    bench.passes(31_000);
    let whats = bench.stored_whats();
    assert!(matches!(&whats[..], [What::Link(Link::Down(text))] if text.contains("115200")), "{whats:?}");
    bench.hello(1, 1, 1);
    assert!(bench.session.stats().is_up());
    bench.session.on_bytes(after_ms(bench.now_ms), ClockQuality::Synced, &noise);
    bench.session.on_bytes(after_ms(bench.now_ms), ClockQuality::Synced, &noise);
    assert!(bench.session.stats().is_up(), "noise beside frames is noise");
}

#[test]
fn a_node_that_was_exchanged_is_told_and_what_the_old_one_kept_is_lost() {
    let mut bench = Bench::up();
    bench.door(1, 1);
    bench.store();
    bench.heartbeat(1, 3, &[]);
    bench.store();
    bench.now_ms += 60_000;
    bench.hello_of(Uid([9; 8]), 77, 1, 1);
    let seen = bench.store();
    assert_eq!(seen[0].what, What::EventsLost { first: 2, count: 1 });
    assert_eq!(seen[0].origin.as_ref().map(|it| it.node.as_str()), Some("abababababababab"), "the old one's");
    let warning = &bench.session.stats().warnings[0];
    assert!(warning.text.contains("0909090909090909") && warning.text.contains("abababababababab"), "{warning:?}");
    assert!(warning.text_zh.contains("更换") && warning.remedy.contains("uid"), "{warning:?}");
    bench.restarts();
    bench.hello_of(Uid([9; 8]), 77, 1, 1);
    assert!(bench.session.stats().warnings.is_empty(), "once it is known it is the node");
}

#[test]
fn the_time_is_told_at_hello_and_every_ten_minutes() {
    let times = |sent: Vec<Downlink>| {
        sent.into_iter().filter_map(|it| if let Downlink::Time(time) = it { Some(time) } else { None })
    };
    let mut bench = Bench::with(config());
    assert_eq!(times(bench.sent_all()).count(), 0, "nobody is there");
    bench.hello(1, 1, 1);
    let unix_ms = u64::try_from(after_ms(0).as_millisecond()).unwrap();
    assert_eq!(times(bench.sent_all()).collect::<Vec<_>>(), [Time { unix_ms, synced: true }]);
    bench.passes(599_000);
    assert_eq!(times(bench.sent_all()).count(), 0);
    bench.passes(2_000);
    assert_eq!(times(bench.sent_all()).count(), 1);
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}

#[test]
fn another_node_than_the_configured_one_is_not_believed() {
    let mut bench = Bench::with(NodeConfig { expected_uid: Some(0x0102_0304_0506_0708), ..config() });
    bench.hello(1, 1, 1);
    bench.door(1, 1);
    assert_eq!(bench.store(), []);
    let stats = bench.session.stats();
    assert!(stats.state.contains("abababababababab") && stats.state.contains("0102030405060708"), "{}", stats.state);
    bench.hello_of(Uid([1, 2, 3, 4, 5, 6, 7, 8]), 1, 1, 1);
    assert!(bench.session.stats().is_up());
}

#[test]
fn a_replaced_node_begins_anew() {
    let mut bench = Bench::up();
    bench.door(1, 1);
    bench.store();
    bench.hello_of(Uid([1; 8]), 1, 1, 2);
    bench.door(1, 1);
    let seen = bench.store();
    assert_eq!(seen.last().and_then(|it| it.origin.clone()).map(|it| it.node), Some("0101010101010101".into()));
}

#[test]
fn w28_two_nodes_with_one_uid_on_one_wire_are_told_and_both_served() {
    let mut bench = Bench::up();
    bench.door(1, 1);
    bench.hello(2, 1, 1);
    bench.door(2, 1);
    bench.hello(1, 2, 2);
    bench.door(1, 2);
    bench.hello(2, 2, 2);
    bench.door(2, 2);
    let seen: Vec<_> = bench.store().into_iter().filter_map(|it| it.origin).map(|it| (it.boot, it.sequence)).collect();
    assert_eq!(seen, [(1, 1), (2, 1), (1, 2), (2, 2)]);
    assert!(bench.session.stats().warnings[0].text.contains("two nodes"));
}

#[test]
fn w28_two_nodes_with_one_uid_on_two_wires_are_found() {
    let (mut a, mut b) = (Bench::up(), Bench::with(NodeConfig { node: slug("other"), ..config() }));
    assert_eq!(twins([a.session.stats(), b.session.stats()]), []);
    b.hello(9, 1, 1);
    let found = twins([a.session.stats(), b.session.stats()]);
    assert!(found[0].to_string().starts_with("node and other both say"), "{}", found[0]);
    a.door(1, 1);
    b.door(9, 1);
    assert_eq!((a.numbers(), b.numbers()), (vec![1], vec![1]));
    assert_ne!(a.config.cursor_key(), b.config.cursor_key());
}

#[test]
fn w11_a_boot_id_used_again_is_told_and_its_events_are_taken() {
    let mut bench = Bench::up();
    bench.door(1, 1);
    bench.door(1, 2);
    bench.store();
    bench.hello(1, 1, 1);
    bench.door(1, 1);
    assert_eq!(bench.numbers(), [1]);
    assert!(bench.session.stats().warnings[0].text.contains("boot id again"));
}

#[test]
fn w29_what_no_device_can_have_said_is_acknowledged_counted_and_if_it_is_life_safety_told() {
    let mut bench = Bench::up();
    bench.event(1, 1, 9, EventKind::ContactOpened);
    bench.event(1, 2, 1, EventKind::SmokeAlarm);
    assert_eq!(bench.stored_whats(), [What::EventsLost { first: 2, count: 1 }]);
    assert_eq!(bench.sent(), [ack(1, 2)]);
    let stats = bench.session.stats();
    assert_eq!((stats.discarded(Discard::UnknownChannel), stats.discarded(Discard::WrongClass)), (1, 1));
    assert!(stats.warnings.iter().any(|it| it.text.contains("channel 9, which is not configured")));
    assert!(stats.warnings.iter().any(|it| it.text.contains("channel 1 is door")));
}

#[test]
fn every_kind_of_event_reaches_its_device() {
    let battery = Battery { millivolts: 2_500, low: true };
    let script = [
        (1, EventKind::ContactOpened, "door", What::Door { open: true, repaired: false }),
        (1, EventKind::ContactClosed, "door", What::Door { open: false, repaired: false }),
        (2, EventKind::SmokeAlarm, "smoke", What::Smoke(Smoke::Alarm)),
        (2, EventKind::SmokeHushed, "smoke", What::Smoke(Smoke::Hushed)),
        (2, EventKind::SmokeTest, "smoke", What::Smoke(Smoke::Test)),
        (2, EventKind::SmokeClear, "smoke", What::Smoke(Smoke::Clear)),
        (2, EventKind::FaultRaised, "smoke", What::DeviceFault(true)),
        (2, EventKind::FaultCleared, "smoke", What::DeviceFault(false)),
        (3, EventKind::SosPressed, "sos", What::SosPressed),
        (0, EventKind::TamperOpened, "node", What::Tamper(true)),
        (0, EventKind::TamperClosed, "node", What::Tamper(false)),
        (0, EventKind::Battery(battery), "node", What::Battery { millivolts: 2_500, low: true }),
    ];
    let mut bench = Bench::up();
    for (sequence, (channel, kind, device, what)) in (1..).zip(script) {
        bench.event(1, sequence, channel, kind);
        let seen = bench.store().remove(0);
        assert_eq!((seen.device, seen.what), (slug(device), what));
    }
    assert_eq!(bench.config.channels[&2].1, DeviceClass::Smoke);
}

#[test]
fn heartbeats_are_passed_on_once_a_minute_and_the_battery_when_it_changes() {
    let mut bench = Bench::up();
    let mut passed = vec![];
    for n in 0..13_u16 {
        let battery = Some(Battery { millivolts: 3_000 - 10 * n, low: false });
        let uptime_ms = bench.now_ms;
        let levels = Levels::new();
        bench.hears(Uplink::Heartbeat(Heartbeat { boot: 1, uptime_ms, next_sequence: 1, levels, battery }));
        bench.passes(10_000);
        passed.extend(bench.stored_whats());
    }
    assert_eq!(passed.iter().filter(|it| **it == What::Heartbeat).count(), 3);
    assert_eq!(passed.iter().filter(|it| matches!(it, What::Battery { .. })).count(), 3);
}

#[test]
fn a_backlog_is_bounded_and_comes_again() {
    let mut bench = Bench::up();
    bench.session.take_batch();
    for sequence in 1..=300 {
        bench.door(1, sequence);
    }
    let taken = bench.numbers();
    assert_eq!(taken, (1..=256).collect::<Vec<_>>());
    assert!(bench.session.stats().discarded(Discard::Backlog) > 0);
    for sequence in 257..=300 {
        bench.door(1, sequence);
    }
    assert_eq!(bench.numbers(), (257..=300).collect::<Vec<_>>());
}

#[test]
fn a_stored_cursor_comes_back_as_it_was_and_a_broken_one_is_told() {
    let mut cursor = Cursor::default();
    cursor.uid = Some(UID);
    for boot in 1..=6 {
        cursor.set(boot, boot * 10);
    }
    cursor.levels.extend([(1, Level::ContactOpen), (2, Level::TamperClosed)]);
    cursor.faults.extend([(2, true), (3, false)]);
    let bytes = cursor.to_bytes();
    assert_eq!(Cursor::from_bytes(&bytes).as_ref(), Ok(&cursor));
    assert_eq!((cursor.through(2), cursor.through(3), cursor.latest_boot()), (None, Some(30), Some(6)));
    for length in 0..bytes.len() {
        assert!(Cursor::from_bytes(&bytes[..length]).is_err(), "{length} bytes");
    }
    assert!(Cursor::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
    let session = Session::new(&alone(config()), config(), Some(&[9, 9, 9]), after_ms(0));
    assert!(session.stats().warnings[0].text.contains("begun anew"));
}
