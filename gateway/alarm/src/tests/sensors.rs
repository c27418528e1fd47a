//! Rules about sensors and equipment, each with its happy path, its boundary, copies, stragglers and late news.

use gengfu_contract::command::{AlarmCommand, Outcome};
use gengfu_contract::words::{AlarmKind, CapStatus, Certainty, Lane};

use super::*;

#[test]
fn smoke_raises_at_once_latches_and_ends_by_reset() {
    let player = check(
        "0    smoke alarm         => raised smoke@smoke ACTIVE_UNACK
         1    smoke alarm
         2    reset smoke@smoke   => conflict
         3    ack smoke@smoke     => done, acknowledged smoke@smoke ACTIVE_ACK
         3.1  ack smoke@smoke     => done
         60   smoke clear         => cleared smoke@smoke CLEARED_LATCHED
         61   smoke clear
         70   smoke alarm         => raised smoke@smoke ACTIVE_UNACK
         80   smoke clear         => cleared smoke@smoke CLEARED_UNACK
         90   reset smoke@smoke   => done, over smoke@smoke NORMAL
         91   reset smoke@smoke   => done
         92   ack smoke@smoke     => done",
    );
    let alarm = player.last("smoke@smoke");
    assert_eq!(player.events[0].lane, Lane::Fire);
    assert_eq!(alarm.cap.certainty, Certainty::Likely);
    assert_eq!(
        (alarm.since, alarm.operator.as_deref(), alarm.subject_ref.as_deref()),
        (at(0.0), Some("op-3"), Some("s-17"))
    );
    assert_eq!(alarm.code.as_ref().unwrap().code, "fire.smoke");
    assert_eq!(alarm.explanation.inputs["lasted_ms"], 80_000);
    assert_eq!(player.engine.open_alarms().count(), 0);
}

#[test]
fn a_hushed_head_is_still_in_alarm() {
    check(
        "0 smoke alarm  => raised smoke@smoke ACTIVE_UNACK
         1 smoke hushed => updated smoke@smoke ACTIVE_UNACK
         2 smoke hushed
         3 smoke clear  => cleared smoke@smoke CLEARED_UNACK
         4 smoke hushed => raised smoke@smoke ACTIVE_UNACK",
    );
}

#[test]
fn smoke_that_sounds_again_after_a_hush_asks_whoever_had_acknowledged_it() {
    check(
        "0 smoke hushed => raised smoke@smoke ACTIVE_UNACK
         1 ack smoke@smoke => done, acknowledged smoke@smoke ACTIVE_ACK
         2 smoke alarm  => raised smoke@smoke ACTIVE_UNACK
         3 smoke hushed => updated smoke@smoke ACTIVE_UNACK",
    );
}

#[test]
fn no_test_is_longer_than_thirty_minutes_whatever_is_configured_and_none_is_a_fire_case() {
    let mut long = rules();
    long.timing.smoke_test_max = Duration::from_secs(24 * 3600);
    let player = check_under(
        long,
        "0      smoke test   => raised test:smoke@smoke ACTIVE_UNACK
         1      smoke-b test => raised test:smoke@smoke-b ACTIVE_UNACK
         2      smoke fault on => raised device_fault@smoke ACTIVE_UNACK
         1799.9
         1800   => over test:smoke@smoke NORMAL
         1801   => over test:smoke@smoke-b NORMAL",
    );
    let tests = player.events.iter().filter(|event| event.alarm.kind == AlarmKind::Smoke);
    assert!(tests.clone().count() == 4 && tests.clone().all(|event| event.alarm.cap.status == CapStatus::Test));
    assert!(tests.clone().all(|event| event.alarm.cap.certainty == Certainty::Likely), "two tests are no certain fire");
}

#[test]
fn a_test_is_an_alarm_of_its_own_that_ends_by_itself() {
    let player = check(
        "0       smoke test  => raised test:smoke@smoke ACTIVE_UNACK
         1       smoke test
         5       smoke clear => over test:smoke@smoke NORMAL
         10      smoke test  => raised test:smoke@smoke ACTIVE_UNACK
         1809.999
         1810                => over test:smoke@smoke NORMAL
         1900    smoke test  => raised test:smoke@smoke ACTIVE_UNACK
         1901    smoke alarm => raised smoke@smoke ACTIVE_UNACK, over test:smoke@smoke NORMAL
         1902    smoke test  => raised test:smoke@smoke ACTIVE_UNACK
         1903    smoke clear => over test:smoke@smoke NORMAL, cleared smoke@smoke CLEARED_UNACK",
    );
    assert!(
        player
            .events
            .iter()
            .filter(|e| e.alarm.explanation.rule == "smoke.test")
            .all(|e| e.alarm.cap.status == CapStatus::Test)
    );
}

#[test]
fn two_heads_of_one_dwelling_make_smoke_certain_and_other_homes_do_not() {
    let player = check(
        "0 smoke alarm   => raised smoke@smoke ACTIVE_UNACK
         1 smoke-c alarm => raised smoke@smoke-c ACTIVE_UNACK
         2 smoke-b test  => raised test:smoke@smoke-b ACTIVE_UNACK
         3 smoke-b alarm => raised smoke@smoke-b ACTIVE_UNACK, updated smoke@smoke ACTIVE_UNACK, updated smoke@smoke-b ACTIVE_UNACK, over test:smoke@smoke-b NORMAL",
    );
    let certainty = |what| player.last(what).cap.certainty;
    assert_eq!(certainty("smoke@smoke"), Certainty::Observed);
    assert_eq!(certainty("smoke@smoke-b"), Certainty::Observed);
    assert_eq!(certainty("smoke@smoke-c"), Certainty::Likely);
}

#[test]
fn a_head_that_cleared_confirms_nothing() {
    let player = check(
        "0 smoke alarm   => raised smoke@smoke ACTIVE_UNACK
         1 smoke clear   => cleared smoke@smoke CLEARED_UNACK
         2 smoke-b alarm => raised smoke@smoke-b ACTIVE_UNACK",
    );
    assert_eq!(player.last("smoke@smoke-b").cap.certainty, Certainty::Likely);
}

#[test]
fn an_sos_stays_until_reset_and_a_press_after_the_acknowledgement_asks_again() {
    check(
        "0 sos press seq=1 => raised sos@sos ACTIVE_UNACK
         1 sos press seq=2
         2 ack sos@sos     => done, acknowledged sos@sos ACTIVE_ACK
         3 sos press seq=2
         4 sos press seq=3 => raised sos@sos ACTIVE_UNACK
         5 reset sos@sos   => done, over sos@sos NORMAL
         6 sos press seq=4 => raised sos@sos ACTIVE_UNACK",
    );
}

#[test]
fn tamper_latches_and_faults_do_not() {
    check(
        "0 node tamper on   => raised tamper@node ACTIVE_UNACK
         1 node tamper on
         2 node tamper off  => cleared tamper@node CLEARED_UNACK
         3 ack tamper@node  => done, acknowledged tamper@node CLEARED_LATCHED
         4 reset tamper@node => done, over tamper@node NORMAL
         5 node fault on    => raised device_fault@node ACTIVE_UNACK
         6 reset device_fault@node => refused
         7 ack device_fault@node   => done, acknowledged device_fault@node ACTIVE_ACK
         8 node fault off   => over device_fault@node NORMAL",
    );
}

#[test]
fn a_dirty_chamber_and_an_old_head_are_troubles_of_their_own() {
    check(
        "0 smoke dirty on  => raised contaminated@smoke ACTIVE_UNACK
         1 smoke worn on   => raised end_of_life@smoke ACTIVE_UNACK
         2 smoke dirty on
         3 smoke dirty off => cleared contaminated@smoke CLEARED_UNACK
         4 ack contaminated@smoke => done, over contaminated@smoke NORMAL
         5 ack end_of_life@smoke  => done, acknowledged end_of_life@smoke ACTIVE_ACK
         6 smoke worn off  => over end_of_life@smoke NORMAL",
    );
}

#[test]
fn a_battery_is_good_again_only_well_above_its_lowest_voltage() {
    check(
        "0 node battery 3000
         1 node battery 2500 low => raised low_battery@node ACTIVE_UNACK
         2 node battery 2450 low
         3 node battery 2549
         4 node battery 2550     => cleared low_battery@node CLEARED_UNACK
         5 ack low_battery@node  => done, over low_battery@node NORMAL",
    );
}

#[test]
fn lost_events_add_up_and_end_when_acknowledged() {
    let player = check(
        "0 node lost 5 3        => raised events_lost@node ACTIVE_UNACK
         1 node lost 5 3
         2 node lost 9 2        => updated events_lost@node ACTIVE_UNACK
         3 node lost 20 0
         4 ack events_lost@node => done, over events_lost@node NORMAL
         5 node lost 30 1       => raised events_lost@node ACTIVE_UNACK",
    );
    assert_eq!(player.events[1].alarm.explanation.inputs["lost_events"], 5);
    assert_eq!(player.last("events_lost@node").explanation.inputs["lost_events"], 1);
}

#[test]
fn a_door_is_left_open_at_its_limit_and_not_a_millisecond_before() {
    let player = check(
        "0      door open seq=1
         1      door open seq=2
         59.999
         60                     => raised door_left_open@door ACTIVE_UNACK
         61
         200    door close      => cleared door_left_open@door CLEARED_UNACK
         201    ack door_left_open@door => done, over door_left_open@door NORMAL",
    );
    let raised = &player.events[0];
    assert_eq!((raised.sensed_at, raised.alarm.since), (at(60.0), at(0.0)));
    assert_eq!(raised.alarm.origin.as_ref().unwrap().sequence, 1);
    assert_eq!(player.last("door_left_open@door").explanation.inputs["open_ms"], 200_000);
    assert!(player.events[1].alarm.explanation.text.en.contains("3 min 20 s"));
}

#[test]
fn a_door_closed_in_time_is_no_alarm_and_its_next_opening_begins_at_nought() {
    check(
        "0     door open
         59.9  door close
         60    door open
         119.9
         119.99 door close
         300",
    );
}

#[test]
fn a_door_opening_read_from_a_heartbeat_says_so() {
    let player = check("0 door open repaired\n60 => raised door_left_open@door ACTIVE_UNACK");
    assert_eq!(player.last("door_left_open@door").explanation.inputs["opening_repaired"], true);
}

#[test]
fn late_news_of_a_short_opening_is_no_alarm() {
    check(
        "1000 door open sensed=100 seq=1
         1000.5
         1001 door close sensed=110 seq=2
         1100",
    );
}

#[test]
fn late_news_of_a_long_opening_is_told_with_its_true_times() {
    let player = check(
        "1000 door open sensed=100 seq=1
         1001 door close sensed=400 seq=2 => raised door_left_open@door ACTIVE_UNACK, cleared door_left_open@door CLEARED_UNACK
         1002 door open sensed=500 seq=3
         1004.9
         1005 => raised door_left_open@door ACTIVE_UNACK",
    );
    assert_eq!((player.events[0].sensed_at, player.events[0].alarm.since), (at(160.0), at(100.0)));
    assert_eq!(player.events[1].sensed_at, at(400.0));
}

#[test]
fn the_closing_decides_by_its_own_time_when_the_tick_comes_late() {
    check("0 door open\n65 door close sensed=59.9\n66");
    check(
        "0 door open\n65 door close sensed=60 => raised door_left_open@door ACTIVE_UNACK, cleared door_left_open@door CLEARED_UNACK",
    );
}

#[test]
fn stragglers_change_nothing_but_smoke_is_always_believed() {
    check(
        "0 door open seq=5
         1 door close seq=4
         2 smoke clear seq=9
         3 smoke alarm seq=8 => raised smoke@smoke ACTIVE_UNACK
         4 smoke clear seq=7
         5 smoke clear seq=10 => cleared smoke@smoke CLEARED_UNACK
         60 => raised door_left_open@door ACTIVE_UNACK",
    );
}

#[test]
fn a_dead_link_is_one_trouble_that_names_all_it_carries() {
    let player = check(
        "0  node up
         10 node down => raised sensor_lost@node ACTIVE_UNACK
         11 node down
         75 node up   => cleared sensor_lost@node CLEARED_UNACK
         80 node down => raised sensor_lost@node ACTIVE_UNACK",
    );
    let devices = &player.events[0].alarm.explanation.inputs["devices"];
    assert_eq!(*devices, serde_json::json!(["door", "smoke", "smoke-b", "smoke-c", "sos"]));
    assert_eq!(player.events[1].alarm.explanation.inputs["lost_ms"], 65_000);
    let door = player.engine.device_state(&slug("door"));
    assert_eq!(door.troubles, [AlarmKind::SensorLost]);
    assert_eq!(player.engine.device_state(&slug("node")).state, "down");
}

#[test]
fn a_link_that_blinks_within_its_hold_is_no_trouble() {
    let mut rules = rules();
    rules.timing.link_down_hold = Duration::from_secs(5);
    Player::new(rules).play(
        "0 node down
         4.9 node up
         9
         10 node down
         14.999
         15 => raised sensor_lost@node ACTIVE_UNACK",
    );
}

#[test]
fn a_camera_fault_is_a_trouble_after_its_hold() {
    let player = check(
        "0    cam streaming
         1    cam blind no_frames
         5    cam streaming
         10   cam blind no_frames
         12   cam blind no_frames
         19.999
         20   => raised camera_fault@cam ACTIVE_UNACK
         21   cam blind dark => updated camera_fault@cam ACTIVE_UNACK
         22   cam blind dark
         30   cam streaming  => cleared camera_fault@cam CLEARED_UNACK
         31   ack camera_fault@cam => done, over camera_fault@cam NORMAL",
    );
    assert_eq!(player.events[0].alarm.since, at(10.0));
    assert_eq!(player.events[1].alarm.explanation.inputs["reason"], "dark");
    assert_eq!(player.last("camera_fault@cam").explanation.inputs["lasted_ms"], 20_000);
}

#[test]
fn a_clock_set_back_never_raises_early_and_delays_by_at_most_one_length() {
    check(
        "5000 door open
         5030
         1000
         1059.999
         1060 => raised door_left_open@door ACTIVE_UNACK
         900 door close => cleared door_left_open@door CLEARED_UNACK",
    );
}

#[test]
fn a_clock_step_that_is_told_moves_the_timers_both_ways() {
    check(
        "0 door open
         30 tick
         3630 stepped 3600
         3630
         3659.999
         3660 => raised door_left_open@door ACTIVE_UNACK",
    );
    check(
        "5000 door open
         5030 tick
         1030 stepped -4000
         1030
         1059.999
         1060 => raised door_left_open@door ACTIVE_UNACK",
    );
}

#[test]
fn a_device_that_is_not_configured_is_heard_all_the_same() {
    let mut player = Player::new(rules());
    player.play("0 stranger alarm => raised smoke@stranger ACTIVE_UNACK");
    assert!(player.engine.devices().iter().any(|device| device.device == slug("stranger")));
    assert_eq!(player.last("smoke@stranger").location, None);
}

#[test]
fn commands_about_nothing_are_refused_with_a_reason() {
    let mut player = Player::new(rules());
    player.play("0 smoke alarm => raised smoke@smoke ACTIVE_UNACK\n1 ack 01ARZ3NDEKTSV4RRFFQ69G5FAV => refused");
    let alarm_id = "01ARZ3NDEKTSV4RRFFQ69G5FAV".to_owned();
    let nothing = AlarmCommand { alarm_id, operator: "op".into(), issued_at: at(1.0), expires_at: None };
    let answer = player.engine.reset(at(2.0), &nothing);
    assert_eq!((answer.outcome, answer.outputs.len()), (Outcome::Refused, 0));
    assert!(answer.reason.unwrap().en.contains("not open here"));
}

#[test]
fn the_state_of_devices_is_what_was_heard_last() {
    let player = check(
        "0 door open
         1 smoke clear
         2 node battery 2950
         3 sos press => raised sos@sos ACTIVE_UNACK
         4 node heartbeat
         5 cam blind frozen",
    );
    let state = |name: &str| player.engine.device_state(&slug(name));
    assert_eq!((state("door").state.as_str(), state("door").class.as_str()), ("open", "door"));
    assert_eq!(state("door").last_heard_at, Some(at(4.0)), "its node was heard");
    assert_eq!(state("smoke").state, "clear");
    assert_eq!(state("sos").state, "pressed");
    assert_eq!(state("node").battery_mv, Some(2950));
    assert_eq!((state("cam").state.as_str(), state("cam").last_heard_at), ("fault: frozen", None));
    assert_eq!(player.engine.devices().len(), 7);
}
