//! Goal: a node on a bus speaks only when it is polled, obeys what is said to everyone and answers none of it, and takes its address
//! from the gateway. Method: as in the parent; each poll is a frame, and whatever is sent without one is a fault.

use super::*;
use crate::bus::TURN_MS_MAX;

const OWN: u8 = 7;

fn on_bus(address: Option<u8>) -> Rig {
    let mut rig = Rig::with(|parts| {
        parts.identity.wiring = Wiring::Bus(address.map(|address| BusAddress::new(address).unwrap()));
    });
    rig.run(1_000);
    assert_eq!(rig.sent, [], "nobody has polled");
    rig
}

/// What a poll brings: everything before the `Done`, and what that says.
fn polled(rig: &mut Rig, frames: u8) -> (Vec<Uplink>, bool) {
    polled_at(OWN, rig, frames)
}

fn polled_at(address: u8, rig: &mut Rig, frames: u8) -> (Vec<Uplink>, bool) {
    rig.sent.clear();
    rig.down_to(address, Downlink::Poll(Poll { frames }));
    rig.run(5);
    let mut sent = core::mem::take(&mut rig.sent);
    match sent.pop() {
        Some(Uplink::Done(Done { boot: BOOT, more })) => (sent, more),
        other => panic!("no Done at the end: {sent:?} {other:?}"),
    }
}

fn numbers(sent: &[Uplink]) -> Vec<u32> {
    sent.iter().filter_map(|it| if let Uplink::Event(event) = it { Some(event.sequence) } else { None }).collect()
}

#[test]
fn w30_a_node_on_a_bus_speaks_only_when_polled_and_ends_with_done() {
    let mut rig = on_bus(Some(OWN));
    rig.smoke.set(true);
    rig.run(60_000);
    assert_eq!(rig.sent, [], "no smoke, no heartbeat, no time makes it speak");
    let (sent, more) = polled(&mut rig, 8);
    assert!(matches!(sent[0], Uplink::Hello(_)), "{sent:?}");
    assert!(matches!(sent[1], Uplink::Event(Event { kind: EventKind::SmokeAlarm, .. })), "{sent:?}");
    assert!(matches!(sent[2], Uplink::Heartbeat(_)), "{sent:?}");
    assert_eq!((sent.len(), more), (3, false));
    rig.run(60_000);
    assert_eq!(rig.sent, [], "the wait for the Ack is over, and still it waits for a poll");
    let (sent, _) = polled(&mut rig, 8);
    assert_eq!(numbers(&sent), [1], "then it sends again");
    rig.down_to(OWN, Downlink::Ack(Ack { boot: BOOT, through: 1 }));
    let (sent, more) = polled(&mut rig, 8);
    assert_eq!((sent.as_slice(), more), (&[][..], false), "nothing new, and the heartbeat was just told");
}

#[test]
fn w30_never_more_frames_than_the_poll_allows_and_more_says_whether_something_waits() {
    for frames in 0..=Poll::FRAMES_MAX {
        let mut rig = on_bus(Some(OWN));
        for n in 0..20 {
            rig.door.set(n % 2 == 0);
            rig.run(60);
        }
        let (sent, more) = polled(&mut rig, frames);
        assert_eq!((sent.len(), more), (usize::from(frames), true), "{sent:?}");
    }
    // Polled again and again, with the Acks a gateway gives, all of it comes: in order, once.
    let mut rig = on_bus(Some(OWN));
    for n in 0..20 {
        rig.door.set(n % 2 == 0);
        rig.run(60);
    }
    let (mut all, mut polls) = (Vec::new(), 0);
    loop {
        let (sent, more) = polled(&mut rig, 3);
        all.extend(numbers(&sent));
        if let Some(through) = all.last() {
            rig.down_to(OWN, Downlink::Ack(Ack { boot: BOOT, through: *through }));
        }
        polls += 1;
        assert!(polls < 20, "it never ends: {all:?}");
        if !more {
            break;
        }
    }
    assert_eq!(all, (1..=20).collect::<Vec<_>>());
}

#[test]
fn w30_more_is_said_for_each_thing_that_waits_and_for_nothing_else() {
    let mut rig = on_bus(Some(OWN));
    polled(&mut rig, 8);
    assert_eq!(polled(&mut rig, 0), (vec![], false), "nothing waits");
    rig.door.set(true);
    rig.run(60);
    assert_eq!(polled(&mut rig, 0), (vec![], true), "an event waits");
    assert_eq!(numbers(&polled(&mut rig, 8).0), [1]);
    assert_eq!(polled(&mut rig, 0), (vec![], false), "it is sent, and its Ack may still come");
    rig.run(RESEND_FIRST_MS);
    assert_eq!(polled(&mut rig, 0), (vec![], true), "no Ack came: it is to be sent again");
    rig.down_to(OWN, Downlink::Ack(Ack { boot: BOOT, through: 1 }));
    assert_eq!(polled(&mut rig, 0), (vec![], false));
    rig.down_to(OWN, Downlink::Ping(Ping { nonce: 1 }));
    assert_eq!(polled(&mut rig, 0), (vec![], true), "an answer waits");
    polled(&mut rig, 8);
    assert!(rig.node.log(Severity::Info, Text::new()));
    assert_eq!(polled(&mut rig, 0), (vec![], true), "a line waits");
    polled(&mut rig, 8);
    rig.run(10_000);
    assert_eq!(polled(&mut rig, 0), (vec![], true), "a heartbeat waits");
    assert!(matches!(polled(&mut rig, 8), (sent, false) if matches!(sent[..], [Uplink::Heartbeat(_)])));
}

#[test]
fn w30_an_answer_that_is_not_whole_ends_when_the_gateway_goes_on() {
    let mut rig = on_bus(Some(OWN));
    rig.door.set(true);
    rig.run(100);
    for other in [Downlink::Poll(Poll { frames: 8 }), Downlink::Ack(Ack { boot: 1, through: 1 })] {
        rig.wire_is_full = true;
        rig.down_to(OWN, Downlink::Poll(Poll { frames: 8 }));
        rig.poll();
        rig.down_to(OWN + 1, other);
        rig.wire_is_full = false;
        rig.run(1_000);
        assert_eq!(rig.sent, [], "the turn is another's");
    }
    rig.wire_is_full = true;
    rig.down_to(OWN, Downlink::Poll(Poll { frames: 8 }));
    rig.run(TURN_MS_MAX);
    rig.wire_is_full = false;
    rig.run(1_000);
    assert_eq!(rig.sent, [], "and a turn ends by itself");
    rig.wire_is_full = true;
    rig.down_to(OWN, Downlink::Poll(Poll { frames: 8 }));
    rig.run(TURN_MS_MAX / 2);
    rig.wire_is_full = false;
    rig.run(100);
    assert!(matches!(rig.sent.last(), Some(Uplink::Done(_))), "a wire that was full for a moment costs nothing");
    assert_eq!(rig.sent.len(), 4, "{:?}", rig.sent);
}

/// Random polls of random length, acknowledgements that are lost, a wire that is full at times: between a poll and its `Done` never
/// more frames than allowed, and outside nothing; in the end each number has come.
#[test]
fn w30_holds_for_any_order_of_polls_events_and_lost_acks() {
    for seed in 0..300_u64 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut rig = on_bus(Some(OWN));
        let mut taken = 0;
        for _ in 0..200 {
            if random.random_ratio(1, 3) {
                rig.door.set(random.random());
            }
            rig.wire_is_full = random.random_ratio(1, 10);
            rig.run(random.random_range(0..400));
            assert_eq!(rig.sent, [], "seed {seed}: it spoke unasked");
            let frames = random.random_range(0..=Poll::FRAMES_MAX);
            rig.down_to(OWN, Downlink::Poll(Poll { frames }));
            rig.poll();
            let sent = core::mem::take(&mut rig.sent);
            assert!(sent.len() <= usize::from(frames) + 1, "seed {seed}: {frames} allowed, {sent:?}");
            assert_eq!(sent.iter().filter(|it| matches!(it, Uplink::Done(_))).count(), usize::from(!sent.is_empty()));
            assert!(matches!(sent.last(), None | Some(Uplink::Done(_))), "seed {seed}: {sent:?}");
            for number in numbers(&sent) {
                taken = if number == taken + 1 { number } else { taken };
            }
            // The gateway has spoken to another node meanwhile: what a full wire kept back is over.
            rig.down_to(OWN + 1, Downlink::Poll(Poll { frames: 0 }));
            if random.random_ratio(1, 2) {
                rig.down_to(OWN, Downlink::Ack(Ack { boot: BOOT, through: taken }));
            }
        }
        rig.wire_is_full = false;
        while rig.node.stats().kept_events > 0 {
            let (sent, _) = polled(&mut rig, 8);
            for number in numbers(&sent) {
                taken = if number == taken + 1 { number } else { taken };
            }
            rig.down_to(OWN, Downlink::Ack(Ack { boot: BOOT, through: taken }));
            rig.run(RESEND_MAX_MS);
        }
        assert_eq!(taken + 1, rig.node.outbox().next_sequence(), "seed {seed}");
    }
}

#[test]
fn w33_what_is_said_to_everyone_is_obeyed_and_not_answered() {
    let mut rig = on_bus(Some(OWN));
    polled(&mut rig, 8);
    rig.down(Downlink::Sounder(Sounder { for_ms: 2_000 }));
    rig.down(Downlink::Time(Time { unix_ms: 1_800_000_000_000, synced: true }));
    rig.down(Downlink::Configure(Configure { heartbeat_ms: 60_000, debounce_ms: 10 }));
    rig.down(Downlink::Test { channel: 2 });
    rig.down(Downlink::Identify);
    rig.down(Downlink::Ping(Ping { nonce: 1 }));
    rig.down(Downlink::Poll(Poll { frames: 8 }));
    rig.run(100);
    assert_eq!(rig.sent, [], "nobody answers what is for everyone");
    assert!(rig.horn.0.get() && rig.node.time(rig.now_ms) == Some(1_800_000_000_100));
    let (sent, _) = polled(&mut rig, 8);
    assert!(matches!(sent[0], Uplink::Hello(Hello { heartbeat_ms: 60_000, .. })), "{sent:?}");
    assert!(matches!(sent[1], Uplink::Event(Event { kind: EventKind::SmokeTest, .. })), "{sent:?}");
    assert!(!sent.iter().any(|it| matches!(it, Uplink::Pong(_))), "{sent:?}");
    // An Ack speaks of one node: to everyone it would release another's event, were two boot ids ever alike.
    rig.down(Downlink::Ack(Ack { boot: BOOT, through: 1 }));
    assert_eq!(rig.node.stats().kept_events, 1);
    rig.down_to(OWN, Downlink::Ping(Ping { nonce: 4 }));
    let (sent, _) = polled(&mut rig, 8);
    assert!(sent.iter().any(|it| matches!(it, Uplink::Pong(Pong { nonce: 4, .. }))), "{sent:?}");
}

#[test]
fn w34_an_address_is_taken_by_the_node_of_its_uid_only_and_given_to_the_board_once() {
    let mut rig = on_bus(None);
    let assign = |uid, address| Downlink::Assign(Assign { uid: Uid([uid; 8]), address });
    rig.down(assign(8, OWN));
    assert_eq!((rig.node.take_assigned(), rig.node.identity().wiring), (None, Wiring::Bus(None)));
    rig.down(assign(9, OWN));
    let own = BusAddress::new(OWN);
    assert_eq!((rig.node.take_assigned(), rig.node.take_assigned()), (own, None));
    let (sent, _) = polled(&mut rig, 8);
    assert!(matches!(sent[0], Uplink::Hello(_)), "it says who has come: {sent:?}");
    rig.down(assign(9, OWN));
    assert_eq!(rig.node.take_assigned(), None, "the same again is no news: the board's memory wears");
    rig.down_to(OWN, assign(9, 200));
    assert_eq!(rig.node.take_assigned(), BusAddress::new(200), "it can be moved by its old address, too");
    rig.sent.clear();
    rig.down_to(OWN, Downlink::Poll(Poll { frames: 8 }));
    rig.run(100);
    assert_eq!(rig.sent, [], "the old address is another's now");
    let (sent, _) = polled_at(200, &mut rig, 8);
    assert!(matches!(sent[0], Uplink::Hello(_)), "at a new address it says who has come: {sent:?}");
}

#[test]
fn w34_a_node_without_an_address_obeys_nothing_but_its_assign() {
    let mut rig = on_bus(None);
    for address in [0, 1, OWN, ADDRESS_MAX] {
        for downlink in [
            Downlink::Poll(Poll { frames: 8 }),
            Downlink::Sounder(Sounder { for_ms: 9_000 }),
            Downlink::Identify,
            Downlink::Test { channel: 2 },
            Downlink::Ping(Ping { nonce: 1 }),
            Downlink::Time(Time { unix_ms: 1_800_000_000_000, synced: true }),
        ] {
            rig.down_to(address, downlink);
            rig.run(100);
        }
    }
    assert_eq!((rig.sent.as_slice(), rig.horn.0.get(), rig.node.time(rig.now_ms)), (&[][..], false, None));
    assert_eq!(rig.node.outbox().next_sequence(), 1, "no test began");
}

#[test]
fn w34_a_node_on_a_wire_of_its_own_takes_no_address() {
    let mut rig = Rig::settled();
    rig.down(Downlink::Assign(Assign { uid: Uid([9; 8]), address: 5 }));
    assert_eq!((rig.node.take_assigned(), rig.node.identity().wiring), (None, Wiring::PointToPoint));
}

#[test]
fn a_bus_address_is_1_to_247() {
    let valid: Vec<u8> = (0..=255).filter(|address| BusAddress::new(*address).is_some()).collect();
    assert_eq!(valid, (1..=247).collect::<Vec<_>>());
}
