//! Litter and overflowing bins: one alarm per pile and place, none for what passes, never cleared by blindness. Zone `corner` watches both: litter 300 s, bins
//! 600 s, gone after 120 s.

use gengfu_contract::words::Certainty;

use super::*;

fn corner(kind: ZoneKind) -> Rules {
    let mut rules = rules();
    rules.zones.insert((slug("cam"), slug("corner")), ZoneRule::new(kind, Duration::from_secs(300)));
    rules
}

fn player() -> Player {
    Player::new(corner(ZoneKind::Waste))
}

/// Pictures every 2 s from `from` to `to`, none of which brings an event.
fn watch(player: &mut Player, from: i32, to: i32, tracks: &str) {
    for time in (from..=to).step_by(2) {
        player.play(&format!("{time} cam see {tracks}"));
    }
}

fn raised() -> Player {
    let mut player = player();
    watch(&mut player, 0, 298, "garbage1:p:0");
    player
        .play("300 cam see garbage1:p:0 => still of track 1\n300.5 cam still taken => raised litter@cam ACTIVE_UNACK");
    player
}

#[test]
fn litter_is_raised_when_it_has_lain_for_its_limit_with_its_pictures() {
    let player = raised();
    let alarm = player.last("litter@cam");
    assert_eq!(
        (alarm.since, alarm.zone.as_ref(), alarm.cap.certainty),
        (at(0.0), Some(&slug("corner")), Certainty::Likely)
    );
    let why = &alarm.explanation.inputs;
    assert_eq!(
        (why["looked_ms"].as_i64(), why["seen_ms"].as_i64(), why["limit_ms"].as_i64()),
        (Some(300_000), Some(300_000), Some(300_000))
    );
    let roles: Vec<_> = player.quiet_stills.iter().map(|still| still.role).collect();
    assert_eq!(roles, [StillRole::Arrival, StillRole::Overview]);
}

#[test]
fn a_bin_that_overflows_has_longer_and_a_bin_as_it_should_be_is_nobodys_alarm() {
    let mut player = player();
    watch(&mut player, 0, 598, "overflow1:p:0 bin2:q:0");
    player.play("600 cam see overflow1:p:0 bin2:q:0 => still of track 1\n602 => raised bin_overflow@cam ACTIVE_UNACK");
    watch(&mut player, 604, 2000, "overflow1:p:0 bin2:q:0");
    assert_eq!(player.engine.open_alarms().count(), 1);
}

#[test]
fn nothing_begins_and_no_time_passes_while_somebody_is_near() {
    let mut player = player();
    watch(&mut player, 0, 400, "garbage1:p:0 person2:p-by:-");
    // He goes away at 400 s and comes back from 500 s to 600 s.
    watch(&mut player, 402, 500, "garbage1:p:0 person2:far:-");
    watch(&mut player, 502, 600, "garbage1:p:0 person2:p-by:0");
    watch(&mut player, 602, 800, "garbage1:p:0");
    player.play("802 cam see garbage1:p:0 => still of track 1");
}

#[test]
fn nobody_is_there_when_it_is_raised() {
    let mut player = player();
    watch(&mut player, 0, 298, "garbage1:p:0");
    watch(&mut player, 300, 340, "garbage1:p:0 person2:p-by:-");
    player.play("342 cam see garbage1:p:0 => still of track 1");
}

#[test]
fn what_is_carried_or_blown_by_is_no_litter() {
    let mut player = player();
    for (n, time) in (0..2000).step_by(2).enumerate() {
        let track = n / 20 + 1;
        player.play(&format!("{time} cam see garbage{track}:p:-"));
    }
    assert_eq!((player.events.len(), player.engine.heaps.iter().count()), (0, 0));
}

#[test]
fn a_detector_that_flickers_does_not_hinder_and_one_that_dreams_does_not_raise() {
    let mut steady = player();
    for (n, time) in (0..=400).step_by(2).enumerate() {
        let seen = if n % 10 == 3 || n % 10 == 6 || n % 10 == 7 {
            String::new()
        } else {
            format!("garbage{}:p':0", n / 7 + 1)
        };
        let told = steady.step(f64::from(time), &format!("cam see {seen}"));
        assert_eq!(told.len(), usize::from(time == 300), "{time}: {told:?}");
    }
    let mut dreaming = player();
    for (n, time) in (0..4000).step_by(2).enumerate() {
        let seen = if n % 10 < 4 { format!("garbage{}:p:{}", n / 10 + 1, time / 20 * 20) } else { String::new() };
        dreaming.step(f64::from(time), &format!("cam see {seen}"));
    }
    assert_eq!((dreaming.events.len(), dreaming.stills.len()), (0, 0), "four looks in ten are no litter");
}

#[test]
fn it_clears_with_a_picture_of_the_clean_place_when_it_is_gone_and_nobody_works_there() {
    let mut player = raised();
    watch(&mut player, 302, 400, "garbage1:p:0");
    watch(&mut player, 402, 460, "person2:p-by:-");
    watch(&mut player, 462, 578, "");
    player.play(
        "580   cam see         => still 4 of the clean place
         580.5 cam still taken => cleared litter@cam CLEARED_UNACK",
    );
    let alarm = player.last("litter@cam");
    assert_eq!(alarm.evidence.last(), Some(&picture(4, 580.5)));
    assert_eq!(alarm.explanation.inputs["after_picture"], "attached");
    let mut without = raised();
    watch(&mut without, 302, 418, "");
    without.play("420 cam see => still 4 of the clean place\n421.9\n422 => cleared litter@cam CLEARED_UNACK");
}

#[test]
fn blindness_and_what_stands_before_it_clear_nothing() {
    let mut player = raised();
    watch(&mut player, 302, 900, "bus2:before-p:300");
    for time in (902..1500).step_by(2) {
        player.play(&format!("{time} cam dazzled"));
    }
    player.play(
        "1500 cam blind no_frames
         1510                 => raised camera_fault@cam ACTIVE_UNACK, updated litter@cam UNKNOWN
         9000 cam streaming   => cleared camera_fault@cam CLEARED_UNACK
         9002 cam see garbage1:p:0 => updated litter@cam ACTIVE_UNACK",
    );
    assert_eq!(player.engine.open_alarms().filter(|alarm| alarm.kind == AlarmKind::Litter).count(), 1);
}

#[test]
fn a_pile_that_grows_and_a_bag_beside_it_are_one_case_and_a_pile_elsewhere_is_another() {
    let mut player = raised();
    watch(&mut player, 302, 700, "garbage1:p:0 garbage3:p+:302");
    watch(&mut player, 702, 1100, "garbage7:P:702");
    assert_eq!(player.engine.open_alarms().count(), 1);
    watch(&mut player, 1102, 1400, "garbage7:P:702 garbage9:q:1102");
    player.play(
        "1402 cam see garbage7:P:702 garbage9:q:1102 => still of track 9\n1404 => raised litter@cam ACTIVE_UNACK",
    );
}

#[test]
fn bags_at_an_overflowing_bin_are_the_bins_case() {
    let mut player = player();
    watch(&mut player, 0, 598, "overflow1:p:0 garbage2:p+:0");
    player.play(
        "600 cam see overflow1:p:0 garbage2:p+:0 => still of track 1\n602 => raised bin_overflow@cam ACTIVE_UNACK",
    );
    assert_eq!(player.engine.open_alarms().count(), 1);
    // Two zones over the same ground: litter that is no alarm yet gives way.
    let mut rules = corner(ZoneKind::Litter);
    rules.zones.insert((slug("cam"), slug("yard")), ZoneRule::new(ZoneKind::BinOverflow, Duration::from_secs(400)));
    let mut player = Player::new(rules);
    for time in (0..=700).step_by(2) {
        let tracks = if time < 100 { vec!["garbage1:p:0"] } else { vec!["overflow2:p':100", "garbage1:p+:0"] };
        let mut seen = player.observation(f64::from(time), "cam", &[vec!["see"], tracks].concat());
        if let What::Scene(scene) = &mut seen.what {
            scene.tracks.iter_mut().for_each(|track| track.zones = vec![slug("corner"), slug("yard")]);
        }
        let outputs = player.engine.observe(at(f64::from(time)), &seen);
        player.tell(outputs);
    }
    player.play("702 => raised bin_overflow@cam ACTIVE_UNACK");
    assert_eq!(player.events.iter().map(|e| e.alarm.kind).collect::<Vec<_>>(), [AlarmKind::BinOverflow]);
}

#[test]
fn what_was_only_hidden_comes_back_as_the_same_case() {
    let mut player = raised();
    watch(&mut player, 302, 418, "");
    player.play("420 cam see => still 4 of the clean place\n421 cam still taken => cleared litter@cam CLEARED_UNACK");
    watch(&mut player, 422, 478, "garbage9:p':422");
    player.play("480 cam see garbage9:p':422 => raised litter@cam ACTIVE_UNACK");
    let ids: std::collections::BTreeSet<_> = player.events.iter().map(|e| e.alarm.alarm_id.as_str()).collect();
    assert_eq!(ids.len(), 1);
    // It is cleaned again: a second after-picture beside the first.
    watch(&mut player, 482, 598, "");
    player.play("600 cam see => still 5 of the clean place\n601 cam still taken => cleared litter@cam CLEARED_UNACK");
}

#[test]
fn what_is_seen_again_before_the_after_picture_was_never_gone() {
    let mut player = raised();
    watch(&mut player, 302, 418, "");
    player.play("420 cam see => still 4 of the clean place\n421 cam see garbage1:p:0\n421.5 cam still taken");
    watch(&mut player, 424, 800, "garbage1:p:0");
    assert_eq!(player.events.len(), 1);
}

#[test]
fn an_unsure_detector_makes_a_possible_alarm() {
    let mut player = player();
    for time in (0..=300).step_by(2) {
        let mut seen = player.observation(f64::from(time), "cam", &["see", "garbage1:p:0"]);
        if let What::Scene(scene) = &mut seen.what {
            scene.tracks[0].score = 0.79;
        }
        player.engine.observe(at(f64::from(time)), &seen);
    }
    player.play("302 => raised litter@cam ACTIVE_UNACK");
    assert_eq!(player.last("litter@cam").cap.certainty, Certainty::Possible);
}

#[test]
fn accumulated_waste_is_litter_with_another_name_and_limit() {
    let mut rules = corner(ZoneKind::AccumulatedWaste);
    rules.zones.get_mut(&(slug("cam"), slug("corner"))).unwrap().limit = Duration::from_secs(7200);
    let mut player = Player::new(rules);
    for time in (0..7200).step_by(15) {
        player.play(&format!("{time} cam see garbage1:p:0"));
    }
    player.play("7200 cam see garbage1:p:0 => still of track 1\n7202 => raised accumulated_waste@cam ACTIVE_UNACK");
}

/// A day of a corner: bags come, hide, grow, are taken away, with people and buses about.
const DAY: [(i32, &str); 11] = [
    (0, "garbage1:p:0"),
    (120, "garbage1:p:0 person2:p-by:-"),
    (160, "garbage3:p':0"),
    (300, "bus4:before-p:-"),
    (330, "garbage3:p':0 garbage5:p+:330"),
    (700, "person6:p-by:-"),
    (760, ""),
    (900, "garbage8:p:900 overflow9:q:900"),
    (1300, "garbage8:p:900 overflow9:q:900 person6:far:-"),
    (1600, "overflow9:q:900"),
    (1900, ""),
];

fn scene_at(time: i32) -> &'static str {
    DAY.iter().rev().find(|(from, _)| *from <= time).map_or("", |(_, tracks)| tracks)
}

#[test]
fn a_restart_at_every_step_changes_nothing_that_follows_it() {
    for every in [1, 3, 7] {
        let (mut straight, mut restarted) = (player(), player());
        for (n, time) in (0..2200).step_by(10).enumerate() {
            let action = format!("cam see {}", scene_at(time));
            let told = straight.step(f64::from(time), &action);
            assert_eq!(restarted.step(f64::from(time), &action), told, "at {time} s");
            let told = straight.step(f64::from(time) + 3.0, "tick");
            assert_eq!(restarted.step(f64::from(time) + 3.0, "tick"), told, "at {time} s");
            if n % every == 0 {
                restarted.restart();
                straight.engine.forget_unwritten();
                assert_eq!(restarted.notes, []);
            }
        }
        let kinds: Vec<_> = straight.events.iter().map(|e| (e.alarm.kind, e.alarm.condition)).collect();
        assert!(every == 1 || kinds.iter().any(|(kind, _)| *kind == AlarmKind::Litter), "{kinds:?}");
    }
}
