//! Goal: what people decide about alarms holds, within its limits, and loses nothing. Method: scripts, each played straight through and with a
//! restart before every line.

use gengfu_contract::case::CaseStage;

use super::*;
use crate::rules::Timing;

/// The centre gets everything at once: `received` is said for what asks.
#[test]
fn a_fire_that_nobody_acknowledges_is_the_same_alarm_again_and_the_pause_doubles() {
    let player = check(
        "0 smoke alarm => raised smoke@smoke ACTIVE_UNACK
         100 tick
         # The time runs from when the centre has it, not from the raise.
         100 received smoke@smoke
         159.9 tick
         160 tick => escalated smoke@smoke ACTIVE_UNACK
         400 tick
         400 received smoke@smoke
         519 tick
         520 tick => escalated smoke@smoke ACTIVE_UNACK
         520 received smoke@smoke
         # Also when the smoke is gone: that nobody looked is itself the fault.
         600 smoke clear => cleared smoke@smoke CLEARED_UNACK
         760 tick => escalated smoke@smoke CLEARED_UNACK
         760 received smoke@smoke
         761 ack smoke@smoke => done, acknowledged smoke@smoke CLEARED_LATCHED
         5000 tick
         5001 smoke alarm => raised smoke@smoke ACTIVE_UNACK
         5001 received smoke@smoke
         5061 tick => escalated smoke@smoke ACTIVE_UNACK",
    );
    let ids: std::collections::BTreeSet<&str> =
        player.events.iter().map(|event| event.alarm.alarm_id.as_str()).collect();
    assert_eq!(ids.len(), 1, "never a new alarm");
    assert_eq!(player.last("smoke@smoke").escalation, 4);
}

#[test]
fn city_and_care_stop_asking_when_the_cause_goes_and_trouble_asks_once() {
    check(
        "0 door open
         60 tick => raised door_left_open@door ACTIVE_UNACK
         60 received door_left_open@door
         240 tick => escalated door_left_open@door ACTIVE_UNACK
         240 received door_left_open@door
         300 door close => cleared door_left_open@door CLEARED_UNACK
         9000 tick
         9001 node battery 2300 low => raised low_battery@node ACTIVE_UNACK
         9001 received low_battery@node
         99999 tick",
    );
    let mut rules = rules();
    rules.timing =
        Timing { escalation: crate::Escalation { care: None, ..crate::Escalation::default() }, ..rules.timing };
    check_under(
        rules,
        "0 door open
         60 tick => raised door_left_open@door ACTIVE_UNACK
         60 received door_left_open@door
         99999 tick",
    );
}

#[test]
fn what_is_shelved_is_tracked_and_raised_when_the_shelving_ends() {
    let player = check(
        "0 door open
         60 tick => raised door_left_open@door ACTIVE_UNACK
         60 received door_left_open@door
         61 shelve door door_left_open 60 => done, shelved door_left_open@door ACTIVE_UNACK
         9h tick => raised door_left_open@door ACTIVE_UNACK",
    );
    assert_eq!(player.last("door_left_open@door").side, None);
    let player = check(
        "0 shelve door door_left_open 60 => done
         1 door open
         61 tick => shelved door_left_open@door ACTIVE_UNACK
         # Nobody was asked, so nobody has to look.
         70 door close => over door_left_open@door NORMAL
         100 door open
         160 tick => shelved door_left_open@door ACTIVE_UNACK
         200 unshelve door door_left_open => done, raised door_left_open@door ACTIVE_UNACK
         200 received door_left_open@door
         201 unshelve door door_left_open => done
         380 tick => escalated door_left_open@door ACTIVE_UNACK
         400 door close => cleared door_left_open@door CLEARED_UNACK",
    );
    let shelved = player.events.iter().find(|event| event.event_type == EventType::AlarmShelved).unwrap();
    let side = shelved.alarm.side.clone().unwrap();
    assert_eq!((side.state, side.until, side.reason.as_str()), (SideState::Shelved, at(3600.0), "painting"));
}

#[test]
fn what_saves_lives_is_never_shelved_and_limits_are_told() {
    let mut player = Player::new(rules());
    player.play(
        "0 shelve smoke smoke 60 => refused
         0 shelve sos sos 60 => refused
         0 shelve node tx_overdue 60 => refused
         0 shelve door door_left_open 481 => refused
         0 shelve door door_left_open -1 => refused
         0 shelve nobody door_left_open 60 => refused
         0 out door 241 => refused
         0 testing smoke 31 => refused
         0 out nobody 10 => refused
         0 back nobody => refused
         0 shelve door door_left_open 480 => done
         1 smoke alarm => raised smoke@smoke ACTIVE_UNACK
         2 testing smoke 10 => refused",
    );
    let terms = Terms { until: at(60.0), reason: " ".into(), who: "op".into() };
    let shelf = Shelf { device: slug("door"), kind: AlarmKind::DoorLeftOpen, zone: None };
    assert!(player.engine.shelve(at(0.0), &shelf, &terms).reason.unwrap().en.contains("reason"));
    let shelf = Shelf { zone: Some(slug("west")), device: slug("cam"), kind: AlarmKind::IllegalParking };
    let terms = Terms { reason: "works".into(), ..terms };
    assert!(player.engine.shelve(at(0.0), &shelf, &terms).reason.unwrap().en.contains("no zone west"));
}

#[test]
fn a_device_out_of_service_is_visible_and_what_is_still_so_is_raised_at_the_end() {
    let player = check(
        "0 out smoke 120 => done
         10 smoke alarm => shelved smoke@smoke ACTIVE_UNACK
         20 smoke clear => over smoke@smoke NORMAL
         30 smoke alarm => shelved smoke@smoke ACTIVE_UNACK
         # Another head of the home is in service.
         40 smoke-b alarm => raised smoke@smoke-b ACTIVE_UNACK, updated smoke@smoke ACTIVE_UNACK, updated smoke@smoke-b ACTIVE_UNACK
         2h tick => raised smoke@smoke ACTIVE_UNACK
         7300 smoke clear => cleared smoke@smoke CLEARED_UNACK",
    );
    assert_eq!(player.engine.services().count(), 0);
    let mut player = Player::new(rules());
    player.play("0 out node 10 => done");
    let side = player.engine.device_state(&slug("smoke")).side.unwrap();
    assert_eq!(
        (side.state, side.who.as_str()),
        (SideState::OutOfService, "op-3"),
        "a node takes all it carries with it"
    );
    player.play("1 back node => done");
    assert_eq!(player.engine.device_state(&slug("smoke")).side, None);
}

#[test]
fn a_walk_test_makes_tests_and_what_still_burns_after_it_is_a_fire() {
    let player = check(
        "0 testing node 10 => done
         5 smoke alarm => raised test:smoke@smoke ACTIVE_UNACK
         9 smoke clear => over test:smoke@smoke NORMAL
         12 sos press => raised test:sos@sos ACTIVE_UNACK
         20 smoke-b alarm => raised test:smoke@smoke-b ACTIVE_UNACK
         500 received test:smoke@smoke-b
         # Nobody takes a button's press back: it was the test itself.
         600 tick => raised smoke@smoke-b ACTIVE_UNACK, over test:sos@sos NORMAL",
    );
    assert_eq!(player.last("smoke@smoke-b").cap.status, CapStatus::Actual);
}

#[test]
fn a_case_follows_its_stages_and_is_not_closed_while_the_cause_is_there() {
    let player = check(
        "0 door open
         60 tick => raised door_left_open@door ACTIVE_UNACK
         61 ack door_left_open@door => done, acknowledged door_left_open@door ACTIVE_ACK
         62 case door_left_open@door DISPATCHED => conflict
         63 case door_left_open@door FILED => done, updated door_left_open@door ACTIVE_ACK
         64 case door_left_open@door FILED => done
         65 case door_left_open@door DISPATCHED => done, updated door_left_open@door ACTIVE_ACK
         66 case door_left_open@door FILED => conflict
         67 case door_left_open@door ACCEPTED => done, updated door_left_open@door ACTIVE_ACK
         68 case door_left_open@door IN_PROGRESS => done, updated door_left_open@door ACTIVE_ACK
         69 case door_left_open@door FEEDBACK => done, updated door_left_open@door ACTIVE_ACK
         70 case door_left_open@door VERIFYING => done, updated door_left_open@door ACTIVE_ACK
         71 case door_left_open@door CLOSED => conflict, raised door_left_open@door ACTIVE_UNACK
         72 ack door_left_open@door => done, acknowledged door_left_open@door ACTIVE_ACK
         73 door close => over door_left_open@door NORMAL
         # The case outlives the alarm.
         74 case door_left_open@door CLOSED => done
         75 case door_left_open@door CLOSED => done
         76 case door_left_open@door RATED => done
         77 case door_left_open@door FILED => conflict",
    );
    let case = player.last("door_left_open@door").case.clone().unwrap();
    assert_eq!((case.case_id.as_str(), case.stage), ("C-1", CaseStage::Verifying));
}

#[test]
fn rejections_are_counted_by_device_kind_and_reason_and_change_no_condition() {
    let mut player = check(
        "0 smoke alarm => raised smoke@smoke ACTIVE_UNACK
         1 case smoke@smoke REJECTED => refused
         2 case smoke@smoke REJECTED steam => done, updated smoke@smoke ACTIVE_UNACK
         3 case smoke@smoke REJECTED steam => done
         4 smoke clear => cleared smoke@smoke CLEARED_UNACK
         5 reset smoke@smoke => done, over smoke@smoke NORMAL
         6 smoke alarm => raised smoke@smoke ACTIVE_UNACK
         7 case smoke@smoke REJECTED burnt_food => done, updated smoke@smoke ACTIVE_UNACK",
    );
    player.restart();
    let counted: Vec<_> = player.engine.rejected().cloned().collect();
    let one = counted.first().unwrap();
    assert_eq!((counted.len(), one.device.as_str(), one.kind), (1, "smoke", AlarmKind::Smoke));
    assert_eq!(one.reasons, [(RejectReason::BurntFood, 1), (RejectReason::Steam, 1)].into());
}

#[test]
fn a_drill_is_a_test_in_the_fire_lane_that_asks_for_nobody() {
    let mut player = Player::new(rules());
    let told = player.engine.begin_drill(at(0.0), ClockQuality::Synced, true);
    let Some(Output::Alarm(raised)) = told.first() else { panic!("{told:?}") };
    assert_eq!(
        (raised.event_type, raised.lane, raised.alarm.rev),
        (EventType::AlarmRaised, AlarmKind::Smoke.lane(), 1)
    );
    assert_eq!((raised.alarm.cap.status, raised.alarm.device.as_str()), (CapStatus::Test, "gw-1"));
    assert_eq!(player.engine.begin_drill(at(1.0), ClockQuality::Synced, true), [], "one at a time");
    assert_eq!(player.engine.asking().count(), 0);
    player.restart();
    assert_eq!(player.notes, []);
    let told = player.engine.end_drill(at(2.0), ClockQuality::Synced, Some(120));
    let Some(Output::Alarm(over)) = told.first() else { panic!("{told:?}") };
    assert_eq!((over.event_type, over.alarm.rev), (EventType::AlarmOver, 2));
    assert_eq!(over.alarm.explanation.inputs["latency_ms"], 120);
}
