//! Vehicles that stand where they must not: one alarm each, as long as they stand, and for nobody else.

use gengfu_contract::words::{AlarmKind, Certainty};

use super::*;

/// A car that stands at `a` until its alarm is raised at 60 s.
const RAISED: &str = "
    0     cam see car1:a:0
    20    cam see car1:a:0
    40    cam see car1:a:0
    60    cam see car1:a:0   => still of track 1
    60.5  cam still taken    => raised illegal_parking@cam ACTIVE_UNACK
";

fn raised() -> Player {
    check_scene(RAISED)
}

/// Pictures every 2 s from `from` to `to`, each with `tracks`, none of which brings an event.
fn watch(player: &mut Player, from: i32, to: i32, tracks: &str) {
    for time in (from..=to).step_by(2) {
        player.play(&format!("{time} cam see {tracks}"));
    }
}

#[test]
fn a_vehicle_over_its_limit_is_raised_with_its_picture_and_not_a_millisecond_before() {
    let player = check_scene(
        "0      cam see car1:a:0
         59.999 cam see car1:a:0
         60     cam see car1:a:0  => still of track 1
         60.2   cam see car1:a:0
         60.5   cam still taken   => raised illegal_parking@cam ACTIVE_UNACK
         61     cam still taken
         62     cam see car1:a:0
         62.5",
    );
    let alarm = player.last("illegal_parking@cam");
    assert_eq!((alarm.since, alarm.evidence.len(), alarm.zone.as_ref()), (at(0.0), 1, Some(&slug("east"))));
    assert_eq!((alarm.confidence, alarm.cap.certainty), (Some(0.9), Certainty::Likely));
    assert_eq!(player.events[0].sensed_at, at(60.0));
    let why = &alarm.explanation;
    assert_eq!((why.inputs["standing_ms"].as_i64(), why.inputs["limit_ms"].as_i64()), (Some(60_000), Some(60_000)));
    assert_eq!((&why.inputs["still"], &why.inputs["vehicle"]), (&"attached".into(), &"car".into()));
    assert_eq!(player.stills[0].alarm_id, alarm.alarm_id);
    assert_eq!(player.stills[0].deadline, at(62.0));
}

#[test]
fn an_alarm_never_waits_longer_than_its_picture_may_take() {
    let mut player = check_scene(
        "0      cam see car1:a:0
         60     cam see car1:a:0 => still of track 1
         61.999
         62                      => raised illegal_parking@cam ACTIVE_UNACK
         63     cam still taken  => updated illegal_parking@cam ACTIVE_UNACK
         64     cam still taken",
    );
    assert!(player.events[0].alarm.explanation.inputs["still"].as_str().unwrap().starts_with("missing"));
    assert_eq!(player.events[1].alarm.evidence, [picture(2, 63.0)]);
    let failed = player.play("70 cam see car1:a:0 car2:b:0 => still of track 2\n71 cam still failed => raised illegal_parking@cam ACTIVE_UNACK");
    assert_eq!(failed.last("illegal_parking@cam").explanation.inputs["still"], "missing: the disk is full");
}

#[test]
fn two_vehicles_make_two_alarms_and_a_fire_lane_is_its_own() {
    let player = check_scene(
        "0  cam see car1:a:0 truck2:b:0 car3:l:0
         30 cam see car1:a:0 truck2:b:0 car3:l:0 => still of track 3
         31 cam still taken                      => raised fire_lane_blocked@cam ACTIVE_UNACK
         60 cam see car1:a:0 truck2:b:0 car3:l:0 => still of track 1, still of track 2
         62                                      => raised illegal_parking@cam ACTIVE_UNACK, raised illegal_parking@cam ACTIVE_UNACK",
    );
    assert_eq!(player.engine.open_alarms().count(), 3);
    assert_eq!(player.last("fire_lane_blocked@cam").kind, AlarmKind::FireLaneBlocked);
}

#[test]
fn people_bicycles_moving_and_outside_vehicles_are_nobodys_alarm() {
    check_scene(
        "0   cam see person1:a:0 bicycle2:b:0 car3:c:- car4:out:0
         60  cam see person1:a:0 bicycle2:b:0 car3:c:- car4:out:0
         300 cam see person1:a:0 bicycle2:b:0 car3:c:- car4:out:0
         400",
    );
}

#[test]
fn a_class_the_zone_does_not_name_is_not_judged() {
    let mut rules = rules();
    rules.zones.get_mut(&(slug("cam"), slug("east"))).unwrap().classes = vec![TrackKind::Truck, TrackKind::Person];
    Player::new(rules).play(
        "0 cam see car1:a:0 person2:b:0\n45 cam see\n90 cam see car1:a:0 person2:b:0 truck3:c:30 => still of track 3",
    );
}

#[test]
fn the_alarm_stays_open_while_the_vehicle_stands_and_clears_when_it_has_left() {
    let mut player = raised();
    watch(&mut player, 62, 600, "car1:a:0");
    player.play("602 cam see").play("614 cam see");
    watch(&mut player, 616, 622, "");
    player.play("624 cam see => cleared illegal_parking@cam CLEARED_UNACK\n700 ack illegal_parking@cam => done, over illegal_parking@cam NORMAL");
    let alarm = player.last("illegal_parking@cam");
    // Watched absence: 2 s, 4 s of the gap of 12 s, and five times 2 s.
    assert_eq!(alarm.explanation.inputs["standing_ms"], 608_000);
}

#[test]
fn absence_must_last_its_time_in_watched_pictures() {
    let mut player = raised();
    watch(&mut player, 62, 62, "car1:a:0");
    watch(&mut player, 64, 76, "");
    player.play("76.999 cam see\n77 cam see => cleared illegal_parking@cam CLEARED_UNACK");
}

#[test]
fn ten_seconds_of_occlusion_are_survived_hidden_or_lost() {
    let mut player = raised();
    watch(&mut player, 62, 70, "car1:a:0");
    watch(&mut player, 72, 80, "car1:a:0:70");
    watch(&mut player, 82, 90, "car1:a:0");
    // The track is lost and found again under a new number.
    watch(&mut player, 92, 100, "");
    watch(&mut player, 102, 200, "car9:a':102");
    assert_eq!(player.engine.open_alarms().count(), 1);
    assert_eq!(player.events.len(), 1);
}

#[test]
fn a_vehicle_driven_away_clears_soon() {
    let mut player = raised();
    player.play(
        "61   cam see car1:a:0
         62   cam see car1:c:-
         63   cam see car1:out:-
         64   cam see car1:out:-  => cleared illegal_parking@cam CLEARED_UNACK",
    );
    assert!(player.last("illegal_parking@cam").explanation.text.en.contains("driven away"));
}

#[test]
fn a_vehicle_that_moves_within_the_zone_is_the_same_case() {
    let mut player = raised();
    player.play(
        "62   cam see car1:a:0
         63   cam see car1:b:-
         64   cam see car1:c:64
         90   cam see car1:c:64
         140  cam see car1:c:64
         200  cam see car1:c:64",
    );
    watch(&mut player, 202, 214, "");
    player.play("216 cam see => cleared illegal_parking@cam CLEARED_UNACK");
    assert_eq!(player.last("illegal_parking@cam").explanation.inputs["standing_ms"], 200_000);
}

#[test]
fn flicker_of_box_class_and_stillness_neither_resets_the_time_nor_makes_a_second_case() {
    let mut player = check_scene(
        "0 cam see car1:a:0\n60.1 cam see car1:a:0 => still of track 1\n60.5 cam still taken => raised illegal_parking@cam ACTIVE_UNACK",
    );
    for (n, tracks) in ["truck1:a':61", "car1:a:-", "car1:a/:62", "car1:a:0 truck7:a':62", "car7:a':62", ""]
        .iter()
        .cycle()
        .take(120)
        .enumerate()
    {
        player.play(&format!("{} cam see {tracks}", 62 + n));
    }
    assert_eq!(player.engine.open_alarms().count(), 1);
    let mut waiting = Player::new(rules());
    waiting.play("0 cam see car1:a:0\n20 cam see car1:a':-\n30 cam see car1:a:30\n59 cam see car2:a':58\n60 cam see car1:a:30 => still of track 1");
}

#[test]
fn a_hidden_vehicle_is_never_raised_and_a_waiting_one_is_dropped_in_time() {
    let mut player = check_scene("0 cam see car1:a:0\n58 cam see car1:a:0");
    watch(&mut player, 60, 70, "car1:a:0:58");
    player.play("72 cam see car1:a:0 => still of track 1");
    let mut gone = check_scene("0 cam see car1:a:0\n20 cam see car1:a:0");
    watch(&mut gone, 22, 34, "");
    gone.play("36 cam see => discard track 1");
    watch(&mut gone, 38, 40, "");
    watch(&mut gone, 42, 100, "car9:a:42");
    gone.play("102 cam see car9:a:42 => still of track 9");
}

#[test]
fn a_queue_that_moves_up_is_no_parking() {
    let mut player = Player::new(rules());
    // Each car stands 20 s at each place, then moves up: its follower takes the place.
    for (n, start) in (0..=10).zip((0..).step_by(20)) {
        for time in (start..start + 20).step_by(2) {
            let standing = |stop: i32| if time < stop + 2 { "-".to_owned() } else { (stop + 2).to_string() };
            let line = [("a", n), ("b", n + 1), ("c", n + 2)]
                .map(|(place, car)| format!("car{}:{place}:{}", car + 1, standing(start)));
            let told = player.step(f64::from(time), &format!("cam see {}", line.join(" ")));
            assert!(told.iter().all(|told| told.starts_with("discard")), "{time} s: {told:?}");
        }
    }
    assert_eq!((player.engine.open_alarms().count(), player.stills.len()), (0, 0));
}

#[test]
fn a_worker_that_restarts_with_new_numbers_continues_the_same_case() {
    let mut player = raised();
    player
        .play("62 cam see car1:a:0\n90 newworker\n90 cam see\n92 cam see car2:a:92\n94 cam see car1:out:-  car2:a:92");
    watch(&mut player, 96, 300, "car2:a':92 car1:c:-");
    assert_eq!(player.engine.open_alarms().count(), 1);
    assert_eq!(player.last("illegal_parking@cam").since, at(0.0));
}

#[test]
fn time_already_stood_survives_a_worker_restart_and_a_gateway_restart() {
    check_scene(
        "0 cam see car1:a:0\n40 cam see car1:a:0\n41 newworker\n55 cam see car1:a:54\n60 cam see car1:a:54 => still of track 1",
    );
    check_scene(
        "0 cam see car1:a:0
         40 cam see car1:a:0
         41 restart
         41 newworker
         55 cam see car1:a:54
         60 cam see car1:a:54 => still of track 1
         60.5 restart
         61.9
         62 => raised illegal_parking@cam ACTIVE_UNACK
         63 restart
         63 newworker
         70 cam see
         74 cam see car5:a':74
         90 restart
         1000 cam see car5:a':74
         1002 cam see car5:a':74",
    );
}

#[test]
fn a_long_limit_is_counted_through_restarts_late_in_it() {
    let mut rules = rules();
    rules.zones.get_mut(&(slug("cam"), slug("east"))).unwrap().limit = Duration::from_secs(300);
    let mut player = Player::new(rules);
    watch(&mut player, 0, 250, "car1:a:0");
    player.restart();
    player.play("250 newworker");
    watch(&mut player, 270, 298, "car1:a':270");
    player.play("300 cam see car1:a':270 => still of track 1");
}

#[test]
fn a_vehicle_found_after_a_long_blindness_begins_at_nought_unless_it_is_over_its_limit_already() {
    check_scene(
        "0   cam see car1:a:0
         40  cam see car1:a:0
         140 cam see car1:a:0 => discard track 1
         199 cam see car1:a:0
         200 cam see car1:a:0 => still of track 1",
    );
    let mut player = raised();
    player.play("3600 cam see car1:a:0\n3602 cam see car1:a:0");
    assert_eq!(player.events.len(), 1);
}

#[test]
fn hidden_too_long_and_there_again_is_the_same_case() {
    let mut player = raised();
    watch(&mut player, 62, 74, "");
    player.play("76 cam see => cleared illegal_parking@cam CLEARED_UNACK\n80 cam see car2:a:80 => raised illegal_parking@cam ACTIVE_UNACK");
    assert_eq!(player.events[0].alarm.alarm_id, player.events[2].alarm.alarm_id);
    assert_eq!(player.last("illegal_parking@cam").since, at(0.0));
}

#[test]
fn another_vehicle_that_drives_to_the_place_is_another_case() {
    let mut player = raised();
    watch(&mut player, 62, 74, "");
    player.play(
        "76  cam see          => cleared illegal_parking@cam CLEARED_UNACK
         78  cam see car2:c:-
         80  cam see car2:a:80
         139 cam see car2:a:80
         140 cam see car2:a:80 => still of track 2
         142                   => raised illegal_parking@cam ACTIVE_UNACK",
    );
    let ids: Vec<_> = player.engine.open_alarms().map(|alarm| alarm.alarm_id.clone()).collect();
    assert_eq!(ids.len(), 2, "the first waits for a human, the second stands");
}

#[test]
fn after_a_minute_the_place_is_free_for_a_new_case() {
    let mut player = raised();
    watch(&mut player, 62, 74, "");
    player.play(
        "76  cam see => cleared illegal_parking@cam CLEARED_UNACK
         106 cam see car2:a:106
         166 cam see car2:a:106 => still of track 2",
    );
}

#[test]
fn while_the_camera_is_blind_open_alarms_are_unknown() {
    let mut player = raised();
    player.play(
        "62  cam see car1:a:0
         63  ack illegal_parking@cam => done, acknowledged illegal_parking@cam ACTIVE_ACK
         64  cam blind no_frames
         70  cam see
         73.999
         74                          => raised camera_fault@cam ACTIVE_UNACK, updated illegal_parking@cam UNKNOWN
         80  cam see
         100 cam streaming           => cleared camera_fault@cam CLEARED_UNACK
         101 cam see car5:a':101     => updated illegal_parking@cam ACTIVE_ACK
         110 cam blind dark
         120                         => raised camera_fault@cam ACTIVE_UNACK, updated illegal_parking@cam UNKNOWN
         130 cam streaming           => cleared camera_fault@cam CLEARED_UNACK
         131 cam see",
    );
    watch(&mut player, 133, 145, "");
    player.play("147 cam see => over illegal_parking@cam NORMAL");
}

#[test]
fn an_unknown_alarm_can_be_acknowledged_and_keeps_it() {
    let mut player = raised();
    player.play(
        "64 cam blind frozen
         74                          => raised camera_fault@cam ACTIVE_UNACK, updated illegal_parking@cam UNKNOWN
         75 ack illegal_parking@cam  => done, acknowledged illegal_parking@cam UNKNOWN
         80 cam streaming            => cleared camera_fault@cam CLEARED_UNACK
         81 cam see car1:a:0         => updated illegal_parking@cam ACTIVE_ACK",
    );
}

#[test]
fn late_and_repeated_pictures_change_nothing() {
    check_scene(
        "0    cam see car1:a:0
         59   cam see car1:a:0
         59   cam see
         59.5 cam see car1:a:0 sensed=58
         60   cam see car1:a:0 => still of track 1",
    );
}

#[test]
fn a_clock_set_back_or_forward_wins_no_time_for_a_standing_vehicle() {
    check_scene(
        "5000 cam see car1:a:5000
         5040 cam see car1:a:5000
         1000 cam see car1:a:960
         1019 cam see car1:a:960
         1020 cam see car1:a:960 => still of track 1",
    );
    check_scene(
        "0    cam see car1:a:0
         40   cam see car1:a:0
         9000 cam see car1:a:0 => discard track 1
         9059 cam see car1:a:0
         9060 cam see car1:a:0 => still of track 1",
    );
}

#[test]
fn an_unsure_detector_makes_a_possible_parking_alarm() {
    let mut player = Player::new(rules());
    for time in [0.0, 60.0] {
        let mut seen = player.observation(time, "cam", &["see", "car1:a:0"]);
        if let What::Scene(scene) = &mut seen.what {
            scene.tracks[0].score = 0.79;
        }
        player.engine.observe(at(time), &seen);
    }
    player.play("62 => raised illegal_parking@cam ACTIVE_UNACK");
    assert_eq!(player.last("illegal_parking@cam").cap.certainty, Certainty::Possible);
}
