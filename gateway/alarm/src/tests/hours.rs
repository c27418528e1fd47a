//! Zones that forbid something only at certain hours. 2026-11-22 is a Sunday; scripts begin at 16:00 in China.

use jiff::civil::{Weekday, time};

use super::*;
use crate::{Hours, Window};

/// The no-stopping zone forbids from 16:10 to 16:20, on Sundays.
fn ten_minutes() -> Rules {
    let mut rules = rules();
    let window = Window { days: vec![Weekday::Sunday], begins: time(16, 10, 0, 0), ends: time(16, 20, 0, 0) };
    rules.zones.get_mut(&(slug("cam"), slug("east"))).unwrap().hours = Hours::of(vec![window]);
    rules
}

fn watch(player: &mut Player, from: i32, to: i32, tracks: &str) {
    for time in (from..=to).step_by(2) {
        player.play(&format!("{time} cam see {tracks}"));
    }
}

#[test]
fn who_stood_there_before_the_hours_has_his_whole_limit_from_their_first_instant() {
    let mut player = Player::new(ten_minutes());
    watch(&mut player, 0, 658, "car1:a:0");
    player.play("659.999 cam see car1:a:0\n660 cam see car1:a:0 => still of track 1\n661 cam still taken => raised illegal_parking@cam ACTIVE_UNACK");
    assert_eq!(player.last("illegal_parking@cam").since, at(600.0));
}

#[test]
fn the_end_of_the_hours_ends_the_alarm_and_the_next_hours_begin_another_case() {
    let mut player = Player::new(ten_minutes());
    watch(&mut player, 600, 658, "car1:a:600");
    player.play(
        "660 cam see car1:a:600 => still of track 1\n661 cam still taken => raised illegal_parking@cam ACTIVE_UNACK",
    );
    watch(&mut player, 662, 1198, "car1:a:600");
    player.play("1199.9 cam see car1:a:600\n1200 cam see car1:a:600 => cleared illegal_parking@cam CLEARED_UNACK");
    assert_eq!(player.last("illegal_parking@cam").explanation.rule, "zone.hours");
    watch(&mut player, 1202, 1300, "car1:a:600");
    // A week later, the same car at the same place, unseen in between.
    let week = 7 * 86_400;
    watch(&mut player, week + 590, week + 658, "car1:a:600");
    player.play(&format!("{} cam see car1:a:600 => still of track 1", week + 660));
    assert_eq!(player.engine.open_alarms().count(), 1, "the first waits for a human");
}

#[test]
fn hours_that_ended_and_began_again_unseen_are_not_one() {
    let mut player = Player::new(ten_minutes());
    watch(&mut player, 600, 658, "car1:a:600");
    player.play(
        "660 cam see car1:a:600 => still of track 1\n661 cam still taken => raised illegal_parking@cam ACTIVE_UNACK",
    );
    let week = 7 * 86_400;
    player.play(&format!("{} cam see car1:a:600 => cleared illegal_parking@cam CLEARED_UNACK", week + 610));
}

#[test]
fn a_candidate_of_closed_hours_is_let_go_with_its_picture() {
    let mut player = Player::new(ten_minutes());
    watch(&mut player, 1150, 1198, "car1:a:1150");
    assert_eq!(player.quiet_stills.len(), 1, "its first picture was taken");
    player.play("1200 cam see car1:a:1150 => discard track 1\n1210 cam see car1:a:1150");
}

#[test]
fn no_stopping_warns_before_it_reports() {
    let mut rules = rules();
    let zone = rules.zones.get_mut(&(slug("cam"), slug("east"))).unwrap();
    (zone.limit, zone.warn_after) = (Duration::from_secs(180), Some(Duration::from_secs(60)));
    let mut player = Player::new(rules);
    watch(&mut player, 0, 58, "car1:a:0");
    player.play("60 cam see car1:a:0 => warn east@cam");
    watch(&mut player, 62, 178, "car1:a:0");
    player.play("179 restart\n180 cam see car1:a:0 => still of track 1");
    let mut gone = Player::new(player.engine.rules().clone());
    watch(&mut gone, 0, 58, "car1:a:0");
    gone.play("60 cam see car1:a:0 => warn east@cam\n62 cam see car1:out:- => discard track 1");
}

#[test]
fn bicycles_have_zones_of_their_own_and_may_not_block_a_fire_lane_that_names_them() {
    let mut rules = rules();
    let cycles = ZoneRule::new(ZoneKind::CycleParking, Duration::from_secs(60));
    rules.zones.insert((slug("cam"), slug("east")), cycles);
    rules.zones.get_mut(&(slug("cam"), slug("lane"))).unwrap().classes.push(TrackKind::Bicycle);
    let mut player = Player::new(rules);
    watch(&mut player, 0, 28, "bicycle1:a:0 motorcycle2:b:0 car3:c:0 bicycle4:l:0");
    player.play("30 cam see bicycle1:a:0 motorcycle2:b:0 car3:c:0 bicycle4:l:0 => still of track 4\n31 cam still taken => raised fire_lane_blocked@cam ACTIVE_UNACK");
    watch(&mut player, 32, 58, "bicycle1:a:0 motorcycle2:b:0 car3:c:0 bicycle4:l:0");
    player.play(
        "60 cam see bicycle1:a:0 motorcycle2:b:0 car3:c:0 bicycle4:l:0 => still of track 1, still of track 2
         62 => raised cycle_parking@cam ACTIVE_UNACK, raised cycle_parking@cam ACTIVE_UNACK",
    );
}

/// The fire lane lies inside the no-stopping zone: place `a` is in both.
fn overlapping(lane_limit: u64) -> Player {
    let mut rules = rules();
    rules.zones.get_mut(&(slug("cam"), slug("lane"))).unwrap().limit = Duration::from_secs(lane_limit);
    Player::new(rules)
}

fn both(player: &mut Player, time: f64, since: &str) -> Vec<String> {
    let mut seen = player.observation(time, "cam", &["see", &format!("car1:a:{since}")]);
    if let What::Scene(scene) = &mut seen.what {
        scene.tracks[0].zones = vec![slug("east"), slug("lane")];
    }
    let outputs = player.engine.observe(at(time), &seen);
    player.tell(outputs)
}

#[test]
fn where_zones_overlap_one_alarm_tells_the_vehicle_and_it_is_the_graver_one() {
    for (lane_limit, expected) in [
        (30, vec!["still of track 1", "raised fire_lane_blocked@cam ACTIVE_UNACK"]),
        (
            120,
            vec![
                "still of track 1",
                "raised illegal_parking@cam ACTIVE_UNACK",
                "still of track 1",
                "raised fire_lane_blocked@cam ACTIVE_UNACK",
                "cleared illegal_parking@cam CLEARED_UNACK",
            ],
        ),
    ] {
        let mut player = overlapping(lane_limit);
        let mut told = Vec::new();
        for time in (0..300).step_by(2) {
            told.extend(both(&mut player, f64::from(time), "0"));
            let outputs = player.engine.tick(at(f64::from(time)));
            told.extend(player.tell(outputs));
        }
        assert_eq!(told, expected, "fire lane after {lane_limit} s");
    }
}

#[test]
fn a_bicycle_that_is_put_where_a_car_stood_does_not_carry_on_the_cars_case() {
    let mut player = Player::new(rules());
    watch(&mut player, 0, 28, "car1:l:0");
    player.play(
        "30 cam see car1:l:0 => still of track 1\n31 cam still taken => raised fire_lane_blocked@cam ACTIVE_UNACK",
    );
    watch(&mut player, 32, 44, "bicycle2:l:32");
    player.play("46 cam see bicycle2:l:32 => cleared fire_lane_blocked@cam CLEARED_UNACK");
    watch(&mut player, 48, 200, "bicycle2:l:32");
}
