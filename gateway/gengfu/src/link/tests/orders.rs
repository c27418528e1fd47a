//! Goal: what is asked of a node reaches it, is repeated where it must not be lost, and is refused with a reason where it cannot be done.
//! Method: real nodes on a simulated wire; orders at the session, then what the node does.

use std::time::Duration;

use gengfu_alarm::observation::{Smoke, What};
use gengfu_wire::Configure;

use super::super::{NodeConfig, Order, PortConfig, Refusal};
use super::rig::{Rig, bus, node_config};

fn alone() -> Rig {
    let mut rig = Rig::new(1, PortConfig::point_to_point("/dev/ttyS9".into(), 115_200, node_config(0, 0)));
    rig.run_ms(2_000);
    rig
}

fn order(rig: &mut Rig, node: usize, order: &Order) -> Result<(), Refusal> {
    rig.line.sessions_mut()[node].order(order)
}

fn sound(seconds: u64) -> Order {
    Order::Sounder { sound_for: Duration::from_secs(seconds) }
}

#[test]
fn a_sounder_sounds_for_as_long_as_it_is_wanted_and_falls_silent_when_it_is_not() {
    for mut rig in [alone(), Rig::new(1, bus(3, 25))] {
        rig.run_ms(2_000);
        assert_eq!(order(&mut rig, 0, &sound(60)), Ok(()));
        rig.run_ms(500);
        for second in 0..58 {
            assert!(rig.nodes[0].sounder.is_on(), "second {second}");
            rig.run_ms(1_000);
        }
        rig.run_ms(4_000);
        assert!(!rig.nodes[0].sounder.is_on(), "after its time");
        order(&mut rig, 0, &sound(600)).unwrap();
        rig.run_ms(1_000);
        order(&mut rig, 0, &sound(0)).unwrap();
        rig.run_ms(1_000);
        assert!(!rig.nodes[0].sounder.is_on(), "withdrawn");
    }
}

#[test]
fn a_wanted_sounder_survives_lost_frames_a_reboot_and_the_loss_of_its_last_word() {
    let mut rig = alone();
    rig.faults.drop = 400;
    order(&mut rig, 0, &sound(120)).unwrap();
    rig.run_ms(5_000);
    let on = (0..100).filter(|_| {
        rig.run_ms(1_000);
        rig.nodes[0].sounder.is_on()
    });
    assert!(on.count() >= 90, "four in ten frames lost");
    rig.faults.drop = 0;
    order(&mut rig, 0, &sound(120)).unwrap();
    rig.nodes[0].reboot();
    rig.run_ms(1_000);
    assert!(rig.nodes[0].sounder.is_on(), "told again at its Hello");
    // The gateway's process dies: nobody wants it any more, and the node falls silent by itself.
    rig.gateway_dies();
    rig.run_ms(7_000);
    assert!(!rig.nodes[0].sounder.is_on());
}

#[test]
fn a_test_is_a_test_and_never_a_fire() {
    let mut rig = alone();
    order(&mut rig, 0, &Order::Test { channel: 2 }).unwrap();
    rig.run_ms(2_000);
    let seen = |what: &What| rig.disk.journal.iter().any(|(_, seen)| seen.what == *what);
    assert!(seen(&What::Smoke(Smoke::Test)) && !seen(&What::Smoke(Smoke::Alarm)), "{:?}", rig.disk.journal);
}

#[test]
fn timing_is_told_at_each_hello() {
    let node = NodeConfig { heartbeat_ms: Some(30_000), debounce_ms: Some(500), ..node_config(0, 0) };
    let mut rig = Rig::new(1, PortConfig::point_to_point("/dev/ttyS9".into(), 115_200, node));
    for _ in 0..2 {
        rig.run_ms(5_000);
        let events = |rig: &Rig| rig.disk.journal.iter().filter(|(_, it)| it.origin.is_some()).count();
        let before = events(&rig);
        for _ in 0..2 {
            rig.nodes[0].door.set(!rig.nodes[0].door.get());
            rig.nodes[0].wake();
            rig.run_ms(300);
        }
        rig.run_ms(1_000);
        assert_eq!(events(&rig), before, "300 ms are less than 500 ms of stillness");
        rig.nodes[0].reboot();
    }
    rig.run_ms(5_000);
    let frames = rig.stats(0).frames;
    rig.run_ms(90_000);
    let frames = rig.stats(0).frames - frames;
    assert!((3..=10).contains(&frames), "three heartbeats in 90 s, and answers to the gateway's pings: {frames}");
}

#[test]
fn what_cannot_be_done_is_refused_with_the_reason_in_both_languages() {
    let mut rig = alone();
    assert_eq!(order(&mut rig, 0, &Order::Test { channel: 1 }), Err(Refusal::NoHead(1)));
    assert!(matches!(order(&mut rig, 0, &sound(3_601)), Err(Refusal::Value(_))));
    let bad = Configure { heartbeat_ms: 10, debounce_ms: 50 };
    assert!(matches!(order(&mut rig, 0, &Order::Configure(bad)), Err(Refusal::Value(_))));
    for _ in 0..8 {
        order(&mut rig, 0, &Order::Test { channel: 2 }).unwrap();
    }
    assert_eq!(order(&mut rig, 0, &Order::Test { channel: 2 }), Err(Refusal::Busy));
    rig.nodes[0].is_off = true;
    rig.run_ms(60_000);
    let down = order(&mut rig, 0, &sound(10)).unwrap_err();
    assert!(matches!(&down, Refusal::LinkDown(why) if why.contains("nothing is heard")), "{down:?}");
    for refusal in
        [down, Refusal::UnknownNode, Refusal::NoSounder, Refusal::NoHead(2), Refusal::Value("x"), Refusal::Busy]
    {
        let text = refusal.text();
        assert!(!text.en.is_empty() && text.zh.chars().any(|it| it > '\u{2e80}'), "{text:?}");
    }
}
