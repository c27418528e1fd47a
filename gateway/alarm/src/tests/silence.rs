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

/// A line with three devices of other makers, each with the class its profile names.
fn line(own: Option<SupervisionClass>) -> Rules {
    let mut rules = watched();
    rules.devices.clear();
    rules.timing.supervision.devices.clear();
    rules
        .devices
        .insert(slug("line"), DeviceRule { class: DeviceClass::Bus, supervision: own, ..DeviceRule::default() });
    let on_line =
        |class, supervision| DeviceRule { class, supervision, parent: Some(slug("line")), ..DeviceRule::default() };
    rules.devices.insert(slug("head"), on_line(DeviceClass::Smoke, None));
    rules.devices.insert(slug("gate"), on_line(DeviceClass::Door, Some(SupervisionClass::S1)));
    rules.devices.insert(slug("shed"), on_line(DeviceClass::Door, Some(SupervisionClass::S3)));
    rules
}

#[test]
fn what_hangs_on_a_bus_must_be_heard_itself_each_by_the_class_of_its_profile() {
    check_under(
        line(None),
        "0     head clear
         0     gate close
         0     shed close
         299   head heartbeat
         300   => raised sensor_lost@gate ACTIVE_UNACK
         599   => raised sensor_lost@head ACTIVE_UNACK
         600   gate heartbeat => cleared sensor_lost@gate CLEARED_UNACK
         700   gate heartbeat
         1000  => raised sensor_lost@gate ACTIVE_UNACK
         24.9h
         25h   => raised sensor_lost@shed ACTIVE_UNACK",
    );
    let engine = Engine::new(line(None));
    let class = |name: &str| engine.device_state(&slug(name)).supervision;
    assert_eq!((class("gate").as_deref(), class("shed").as_deref(), class("line")), (Some("S1"), Some("S3"), None));
}

#[test]
fn a_bus_that_is_down_is_one_trouble_and_its_devices_get_a_whole_interval_when_it_is_back() {
    let player = check_under(
        line(None),
        "0     head clear
         0     gate close
         0     shed close
         # The devices fail first, one by one, as a poller finds them; then the line is known to be what is out.
         100   head down
         102   gate down
         104   line down      => raised bus_down@line ACTIVE_UNACK
         130
         200
         5h
         30h
         30h   line up        => cleared bus_down@line CLEARED_UNACK
         30h   head up
         30h   gate up
         108299 gate heartbeat
         108299 shed heartbeat
         108299.9
         108300 => raised sensor_lost@head ACTIVE_UNACK",
    );
    let inputs = &player.events[0].alarm.explanation.inputs;
    assert_eq!(inputs["devices"], serde_json::json!(["gate", "head", "shed"]));
    assert_eq!(player.engine.device_state(&slug("line")).state, "up");
}

#[test]
fn a_device_that_alone_is_down_on_its_bus_is_told_after_a_moment_and_one_still_down_after_its_bus_too() {
    check_under(
        line(None),
        "0     gate down
         9.9
         10    => raised sensor_lost@gate ACTIVE_UNACK
         20    gate up   => cleared sensor_lost@gate CLEARED_UNACK
         30    line down => raised bus_down@line ACTIVE_UNACK
         31    gate down
         100
         200   line up   => cleared bus_down@line CLEARED_UNACK
         211   => raised sensor_lost@gate ACTIVE_UNACK",
    );
}

#[test]
fn a_bus_on_which_nothing_is_heard_is_one_trouble_when_it_has_a_class() {
    let player = check_under(
        line(Some(SupervisionClass::S1)),
        "0     head clear
         0     gate close
         0     shed close
         200   gate heartbeat
         299   head heartbeat
         500   => raised sensor_lost@gate ACTIVE_UNACK
         599   => raised bus_down@line ACTIVE_UNACK
         2h
         3h    shed heartbeat => cleared bus_down@line CLEARED_UNACK
         11099 head heartbeat
         11101",
    );
    let state = |name: &str| player.engine.device_state(&slug(name)).troubles;
    assert_eq!(state("gate"), [AlarmKind::SensorLost], "told before the bus was");
    assert_eq!(state("shed"), []);
}

#[test]
fn a_bus_reported_down_explains_lists_and_lets_go() {
    let mut rules = line(None);
    rules.timing.care.homes.insert(slug("gate"), crate::CareRule { night: None, ..crate::CareRule::default() });
    let mut player = Player::new(rules);
    player.play("0 gate close");
    for n in 1..=289 {
        let expected = if n * 299 >= 86_400 { " => raised not_opened@gate ACTIVE_UNACK" } else { "" };
        player.play(&format!("{0} head heartbeat\n{0} shed heartbeat\n{0} gate heartbeat{expected}", n * 299));
        if n * 299 >= 86_400 {
            break;
        }
    }
    let text = Text { zh: "线路无应答".into(), en: "the line does not answer".into() };
    let mut report = |seconds: f64, present| {
        let told = player.engine.report(at(seconds), &slug("line"), Trouble::BusDown, present, &text);
        player.tell(told)
    };
    let told = report(86_500.0, true);
    assert_eq!(told, ["raised bus_down@line ACTIVE_UNACK", "updated not_opened@gate UNKNOWN"], "nobody can tell");
    assert_eq!(report(86_501.0, true), Vec::<String>::new());
    player.play("90000");
    assert_eq!(player.last("bus_down@line").explanation.inputs["devices"].as_array().unwrap().len(), 3);
    let told = player.engine.report(at(90_000.0), &slug("line"), Trouble::BusDown, false, &text);
    assert_eq!(player.tell(told), ["cleared bus_down@line CLEARED_UNACK"]);
    player.play("90299.9\n90300 => raised sensor_lost@gate ACTIVE_UNACK, raised sensor_lost@head ACTIVE_UNACK");
}

#[test]
fn the_gateways_own_clock_trouble_survives_a_restart() {
    let mut player = Player::new(watched());
    let text = Text { zh: "时钟未同步".into(), en: "the clock is not synchronised".into() };
    let told = player.engine.report(at(0.0), &slug("gw-1"), Trouble::Clock, true, &text);
    assert_eq!(player.tell(told).len(), 1);
    player.restart();
    player.play("1");
    assert_eq!(player.notes, []);
    let told = player.engine.report(at(2.0), &slug("gw-1"), Trouble::Clock, false, &text);
    assert_eq!(player.tell(told), ["cleared clock_trouble@gw-1 CLEARED_UNACK"]);
}

#[test]
fn a_certificate_near_its_end_is_one_trouble_that_worsens_and_is_over_when_it_is_renewed() {
    use gengfu_contract::words::{Severity, Urgency};
    let mut player = Player::new(watched());
    let text = |en: &str| Text { zh: "证书".into(), en: en.into() };
    let gateway = slug("gw-1");
    assert_eq!(player.engine.report_certificate(at(0.0), &gateway, None, &text("good")), []);
    let month = Some((Urgency::Future, Severity::Minor));
    let told = player.engine.report_certificate(at(1.0), &gateway, month, &text("a month"));
    assert_eq!(player.tell(told), ["raised certificate_expiring@gw-1 ACTIVE_UNACK"]);
    assert_eq!(player.engine.report_certificate(at(2.0), &gateway, month, &text("a month")), []);
    player.restart();
    let over = Some((Urgency::Immediate, Severity::Severe));
    let told = player.engine.report_certificate(at(3.0), &gateway, over, &text("over"));
    let [Output::Alarm(one)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((one.alarm.cap.urgency, one.alarm.cap.severity), (Urgency::Immediate, Severity::Severe));
    assert_eq!(one.alarm.rev, 2);
    assert_eq!(player.tell(told), ["updated certificate_expiring@gw-1 ACTIVE_UNACK"]);
    let told = player.engine.report_certificate(at(4.0), &gateway, None, &text("renewed"));
    assert_eq!(player.tell(told), ["cleared certificate_expiring@gw-1 CLEARED_UNACK"]);
}

#[test]
fn end_of_life_and_contamination_are_troubles_with_a_life_of_their_own_beside_the_smoke() {
    let mut player = Player::new(watched());
    let text = Text { zh: "说明".into(), en: "it is so".into() };
    player.play("0 node heartbeat\n0 smoke alarm => raised smoke@smoke ACTIVE_UNACK");
    for (n, trouble) in [Trouble::EndOfLife, Trouble::Contaminated].into_iter().enumerate() {
        let told = player.engine.report(at(1.0 + n as f64), &slug("smoke"), trouble, true, &text);
        assert_eq!(player.tell(told).len(), 1);
    }
    player.restart();
    player.play(
        "5 smoke clear => cleared smoke@smoke CLEARED_UNACK
         6 smoke fault on => raised device_fault@smoke ACTIVE_UNACK
         7 reset smoke@smoke => done, over smoke@smoke NORMAL
         8 ack end_of_life@smoke => done, acknowledged end_of_life@smoke ACTIVE_ACK
         9 smoke alarm => raised smoke@smoke ACTIVE_UNACK",
    );
    let open = player.engine.device_state(&slug("smoke")).troubles;
    assert_eq!(
        open,
        [AlarmKind::DeviceFault, AlarmKind::EndOfLife, AlarmKind::Contaminated],
        "a faulty head is believed"
    );
    let told = player.engine.report(at(10.0), &slug("smoke"), Trouble::EndOfLife, false, &text);
    assert_eq!(player.tell(told), ["over end_of_life@smoke NORMAL"], "it was replaced");
}
