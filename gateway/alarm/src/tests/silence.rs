//! Supervision: what is lost when, what explains what, and what a restart or a set clock does to a silence.

use gengfu_contract::words::{AlarmKind, Text};

use super::*;
use crate::Trouble;
use crate::policy::{Supervised, SupervisionClass};

/// As [`rules`], with supervision on, and two radio door magnets behind a coordinator.
pub(super) fn watched() -> Rules {
    let mut rules = rules();
    rules.timing.supervision.enabled = true;
    rules.devices.insert(slug("hub"), DeviceRule::default());
    for name in ["radio-a", "radio-b"] {
        let rule = DeviceRule { class: DeviceClass::Door, parent: Some(slug("hub")), ..DeviceRule::default() };
        rules.devices.insert(slug(name), rule);
        let own = Supervised { by_itself: true, ..Supervised::default() };
        rules.timing.supervision.devices.insert(slug(name), own);
    }
    rules
}

#[test]
fn a_node_with_smoke_heads_is_lost_after_300_s_and_not_a_millisecond_before() {
    let player = check_under(
        watched(),
        "0       node heartbeat
         299.999
         300     => raised sensor_lost@node ACTIVE_UNACK
         301
         400     node heartbeat => cleared sensor_lost@node CLEARED_UNACK
         401     ack sensor_lost@node => done, over sensor_lost@node NORMAL
         700     => raised sensor_lost@node ACTIVE_UNACK",
    );
    let alarm = &player.events[0].alarm;
    assert_eq!(alarm.explanation.inputs["class"], "S1");
    assert_eq!(
        alarm.explanation.inputs["devices"],
        serde_json::json!(["door", "smoke", "smoke-b", "smoke-c", "sos"]),
        "one trouble for all it carries"
    );
    assert_eq!((alarm.since, alarm.cap.category), (at(0.0), gengfu_contract::words::Category::Infra));
    assert_eq!(player.engine.device_state(&slug("smoke")).troubles, [AlarmKind::SensorLost]);
}

#[test]
fn any_channel_speaks_for_its_node() {
    check_under(
        watched(),
        "0 node heartbeat\n200 door close\n400 sos press => raised sos@sos ACTIVE_UNACK\n699.9\n700 => raised sensor_lost@node ACTIVE_UNACK",
    );
}

#[test]
fn what_was_never_heard_is_lost_one_interval_after_the_start() {
    let player = check_under(watched(), "50\n349.9\n350 => raised sensor_lost@node ACTIVE_UNACK");
    assert_eq!(player.events[0].alarm.explanation.inputs["ever_heard"], false);
}

#[test]
fn each_class_has_its_own_interval() {
    let mut rules = watched();
    rules.devices.retain(|name, _| !name.as_str().starts_with("smoke"));
    check_under(
        rules,
        "0      node heartbeat
         0      hub heartbeat
         0      radio-a close
         0      radio-b close
         1.99h  node heartbeat
         1.999h
         2h     hub heartbeat => 
         2h     tick => raised sensor_lost@radio-a ACTIVE_UNACK, raised sensor_lost@radio-b ACTIVE_UNACK
         3.98h
         3.991h => raised sensor_lost@node ACTIVE_UNACK
         26.9h
         27h    => raised sensor_lost@hub ACTIVE_UNACK",
    );
}

#[test]
fn a_lost_carrier_explains_what_it_carries_and_leaves_it_time_when_it_is_back() {
    let mut rules = watched();
    rules.devices.retain(|name, _| name.as_str() == "hub" || name.as_str().starts_with("radio"));
    let special = Supervised { class: Some(SupervisionClass::S1), by_itself: false };
    rules.timing.supervision.devices.insert(slug("hub"), special);
    check_under(
        rules,
        "0     hub heartbeat
         0     radio-a close
         0     radio-b close
         300   => raised sensor_lost@hub ACTIVE_UNACK
         2h
         5h
         8h    hub heartbeat => cleared sensor_lost@hub CLEARED_UNACK
         8h    radio-a close
         8.06h hub heartbeat
         8.13h hub heartbeat
         9.9h  hub heartbeat
         9.96h hub heartbeat
         9.999h hub heartbeat
         10h   => raised sensor_lost@radio-a ACTIVE_UNACK, raised sensor_lost@radio-b ACTIVE_UNACK",
    );
}

#[test]
fn a_gateway_that_was_away_does_not_blame_the_sensors() {
    let mut player = Player::new(watched());
    player.play("0 node heartbeat\n200 node heartbeat\n210 restart\n5000\n5200\n5289.9\n5400 => raised sensor_lost@node ACTIVE_UNACK");
    assert_eq!(player.notes, []);
}

#[test]
fn restarts_do_not_keep_a_dead_sensor_alive() {
    // The hub speaks on; the gateway restarts every minute and is away for a second.
    let mut script = String::from("0 node heartbeat\n0 hub heartbeat\n");
    for second in [60, 120, 180, 240] {
        script.push_str(&format!("{second} hub heartbeat\n{second} restart\n{} hub heartbeat\n", second + 1));
    }
    script.push_str("303.9\n304 => raised sensor_lost@node ACTIVE_UNACK");
    Player::new(watched()).play(&script);
}

#[test]
fn the_gateways_own_life_is_noted_although_nobody_speaks() {
    let mut player = Player::new(watched());
    player.play("0 node heartbeat");
    keep(&mut player.engine, &mut player.store);
    assert_eq!(player.engine.next_due(), Some(at(60.0)));
    player.play("60\n120\n180\n240\n240 restart\n250\n309.9\n310 => raised sensor_lost@node ACTIVE_UNACK");
}

#[test]
fn a_clock_that_is_set_makes_nobody_silent() {
    check_under(
        watched(),
        "5000 node heartbeat
         8700 stepped 3600
         8700
         8899.9
         8900 => raised sensor_lost@node ACTIVE_UNACK",
    );
    // Back and untold: late by at most an interval, never early.
    check_under(watched(), "5000 node heartbeat\n1000\n1299.9\n1300 => raised sensor_lost@node ACTIVE_UNACK");
}

#[test]
fn a_link_that_is_down_and_a_silence_are_one_trouble() {
    check_under(
        watched(),
        "0   node heartbeat
         100 node down      => raised sensor_lost@node ACTIVE_UNACK
         400
         500 door close
         600 node up        => cleared sensor_lost@node CLEARED_UNACK
         900                => raised sensor_lost@node ACTIVE_UNACK",
    );
}

#[test]
fn a_head_that_is_heard_and_never_triggers_is_a_hint_until_its_test() {
    let mut rules = watched();
    rules.devices.retain(|name, _| matches!(name.as_str(), "node" | "smoke"));
    rules.timing.supervision.head_never_triggered = Some(Duration::from_secs(3600));
    let special = Supervised { class: Some(SupervisionClass::S3), by_itself: false };
    rules.timing.supervision.devices.insert(slug("smoke"), special);
    let player = check_under(
        rules,
        "0     node heartbeat
         1000  smoke clear
         3599  node heartbeat
         3600  node heartbeat => raised never_triggered@smoke ACTIVE_UNACK
         4000  node heartbeat
         4500  smoke test     => raised test:smoke@smoke ACTIVE_UNACK, cleared never_triggered@smoke CLEARED_UNACK
         4501  ack never_triggered@smoke => done, over never_triggered@smoke NORMAL
         4502  smoke clear    => over test:smoke@smoke NORMAL
         8099  node heartbeat
         8100  node heartbeat => raised never_triggered@smoke ACTIVE_UNACK",
    );
    assert!(player.events[0].alarm.kind.is_trouble());
}

#[test]
fn troubles_that_no_sensor_event_carries_are_told_once_and_clear() {
    let mut engine = Engine::new(watched());
    let text = |en: &str| Text { zh: "说明".into(), en: en.into() };
    for trouble in [Trouble::EndOfLife, Trouble::Contaminated, Trouble::BusDown, Trouble::Clock] {
        let told = engine.report(at(0.0), &slug("smoke"), trouble, true, &text("it is so"));
        assert!(matches!(told.as_slice(), [Output::Alarm(one)] if one.alarm.kind == trouble.kind()
            && one.lane == gengfu_contract::words::Lane::Trouble && one.alarm.code.is_some()));
        assert_eq!(engine.report(at(1.0), &slug("smoke"), trouble, true, &text("still")), []);
        assert_eq!(engine.report(at(2.0), &slug("smoke"), trouble, false, &text("gone")).len(), 1);
    }
    assert_eq!(engine.device_state(&slug("smoke")).troubles.len(), 4, "cleared and not acknowledged");
}
