//! The three pictures of a vehicle's alarm, and those that are nobody's evidence; pictures that prove no absence.

use super::*;

fn watch(player: &mut Player, from: i32, to: i32, tracks: &str) {
    for time in (from..=to).step_by(2) {
        player.play(&format!("{time} cam see {tracks}"));
    }
}

/// (role, number) of the pictures asked for quietly.
fn quiet(player: &Player) -> Vec<(StillRole, u32)> {
    player.quiet_stills.iter().map(|still| (still.role, still.n)).collect()
}

#[test]
fn an_alarm_carries_arrival_past_the_limit_and_overview() {
    let mut player = Player::new(rules());
    watch(&mut player, 0, 8, "car1:a:0");
    assert_eq!(quiet(&player), [], "a stop at a light is worth no picture");
    watch(&mut player, 10, 10, "car1:a:0");
    assert_eq!(quiet(&player), [(StillRole::Arrival, 1)]);
    player.play("10.4 cam quiet taken");
    player.restart();
    watch(&mut player, 12, 58, "car1:a:0");
    player.play(
        "60 cam see car1:a:0 => still of track 1\n60.3 cam still taken => raised illegal_parking@cam ACTIVE_UNACK",
    );
    assert_eq!(quiet(&player), [(StillRole::Arrival, 1), (StillRole::Overview, 3)]);
    assert_eq!(player.last("illegal_parking@cam").evidence, [picture(1, 10.4), picture(2, 60.3)]);
    player.play("60.6 cam quiet taken => updated illegal_parking@cam ACTIVE_UNACK\n60.7 cam quiet taken");
    let alarm = player.last("illegal_parking@cam");
    assert_eq!(alarm.evidence.iter().map(|e| e.n).collect::<Vec<_>>(), [1, 2, 3]);
    let ids: std::collections::BTreeSet<_> =
        player.quiet_stills.iter().chain(&player.stills).map(|still| still.alarm_id.as_str()).collect();
    assert_eq!(ids.into_iter().collect::<Vec<_>>(), [alarm.alarm_id.as_str()]);
    assert_eq!(alarm.explanation.inputs["still"], "attached");
}

#[test]
fn pictures_of_a_vehicle_that_leaves_in_time_are_discarded_also_when_they_come_late() {
    let mut player = Player::new(rules());
    watch(&mut player, 0, 10, "car1:a:0");
    player.play(
        "10.5 cam quiet taken
         12   cam see car1:a:0
         14   cam see car1:c:- => discard track 1
         15   cam quiet taken  => discard track 1
         16   cam quiet failed",
    );
    assert_eq!(player.events.len(), 0);
}

#[test]
fn a_failed_first_picture_does_not_hurry_or_hold_the_alarm() {
    let mut player = Player::new(rules());
    watch(&mut player, 0, 10, "car1:a:0");
    player.play("10.5 cam quiet failed");
    watch(&mut player, 12, 58, "car1:a:0");
    player.play("60 cam see car1:a:0 => still of track 1\n62 => raised illegal_parking@cam ACTIVE_UNACK");
    assert_eq!(player.last("illegal_parking@cam").evidence, []);
}

#[test]
fn candidates_of_a_zone_that_is_no_longer_configured_are_discarded() {
    let mut player = Player::new(rules());
    watch(&mut player, 0, 10, "car1:a:0");
    keep(&mut player.engine, &mut player.store);
    let mut fewer = rules();
    fewer.zones.remove(&(slug("cam"), slug("east")));
    player.restart_under(fewer);
    player.play("20 => discard track 1\n21");
}

#[test]
fn headlights_and_downpours_prove_no_absence() {
    let mut player = Player::new(rules());
    watch(&mut player, 0, 58, "car1:a:0");
    player
        .play("60 cam see car1:a:0 => still of track 1\n61 cam still taken => raised illegal_parking@cam ACTIVE_UNACK");
    for time in (62..=120).step_by(2) {
        player.play(&format!("{time} cam dazzled"));
    }
    watch(&mut player, 122, 200, "car1:a:0");
    assert_eq!(player.events.len(), 1);
    // A disturbed picture that shows the vehicle shows it.
    for time in (202..=260).step_by(2) {
        player.play(&format!("{time} cam dazzled car1:a:0"));
    }
    watch(&mut player, 262, 274, "");
    player.play("276 cam see => cleared illegal_parking@cam CLEARED_UNACK");
}

#[test]
fn a_shaken_camera_neither_ends_a_case_nor_makes_a_second_one() {
    let mut player = Player::new(rules());
    watch(&mut player, 0, 58, "car1:a:0");
    player
        .play("60 cam see car1:a:0 => still of track 1\n61 cam still taken => raised illegal_parking@cam ACTIVE_UNACK");
    // Boxes jump by up to a third of their size and tracks are lost and found.
    for (n, time) in (62..400).step_by(2).enumerate() {
        let tracks = ["car1:a:0", "car1:a':-", "car7:a':62", "car1:a/:-", "car8:a:70 car1:a':0", ""][n % 6];
        player.play(&format!("{time} cam see {tracks}"));
    }
    assert_eq!((player.events.len(), player.engine.open_alarms().count()), (1, 1));
}
