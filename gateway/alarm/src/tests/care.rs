//! Homes whose door is not opened, nights, pauses. Scripts begin at 16:00 local time (UTC+8) on a Sunday.

use gengfu_contract::words::{CareLevel, Severity, Urgency};

use super::silence::watched;
use super::*;
use crate::policy::{CareRule, NightRule, NotOpened, RiskTier};
use crate::{Pause, PauseKind};

fn homes(rule: CareRule) -> Rules {
    let mut rules = watched();
    // A node with nothing but doors: S2, so that heartbeats every half hour keep it.
    rules.devices.retain(|name, _| matches!(name.as_str(), "node" | "door" | "radio-a"));
    rules.devices.get_mut(&slug("door")).unwrap().left_open_after = None;
    rules.devices.get_mut(&slug("radio-a")).unwrap().parent = None;
    // Doors that stand open have tests of their own.
    rules.timing.care.homes.insert(slug("door"), CareRule { left_open: None, ..rule });
    rules.timing.supervision.devices.remove(&slug("radio-a"));
    rules.devices.remove(&slug("radio-a"));
    rules
}

fn by_day() -> Rules {
    homes(CareRule { night: None, ..CareRule::default() })
}

fn state(player: &Player, hours: f64) -> crate::CareState {
    player.engine.care_state(at(hours * 3600.0), &slug("door")).unwrap()
}

#[test]
fn one_alarm_rises_from_yellow_to_red_and_asks_again_when_it_was_acknowledged() {
    let player = check_under(
        by_day(),
        "0     door open
         60    door close
         24h   node beats
         24.02h node heartbeat       => raised not_opened@door ACTIVE_UNACK
         30h   node beats
         30h   ack not_opened@door   => done, acknowledged not_opened@door ACTIVE_ACK
         36h   node beats
         36.02h node heartbeat       => raised not_opened@door ACTIVE_UNACK
         48h   node beats
         48.02h node heartbeat       => updated not_opened@door ACTIVE_UNACK
         60h   node beats
         60h   door open             => cleared not_opened@door CLEARED_UNACK
         60.1h ack not_opened@door   => done, over not_opened@door NORMAL",
    );
    let told = |n: usize| {
        let alarm = &player.events[n].alarm;
        let input = |name: &str| alarm.explanation.inputs[name].clone();
        (input("level"), input("coverage_percent"), alarm.cap.urgency, alarm.cap.severity, alarm.rev)
    };
    assert_eq!(told(0), ("yellow".into(), 100.into(), Urgency::Future, Severity::Minor, 1));
    assert_eq!(told(2), ("orange".into(), 100.into(), Urgency::Expected, Severity::Moderate, 3));
    assert_eq!(told(3), ("red".into(), 100.into(), Urgency::Immediate, Severity::Severe, 4));
    let alarm = &player.events[0].alarm;
    assert!(alarm.explanation.text.zh.contains("未开门") && !alarm.explanation.text.zh.contains("未出门"));
    assert_eq!((alarm.since, alarm.subject_ref.as_deref()), (at(60.0), Some("s-17")));
}

#[test]
fn the_limit_is_reached_to_the_millisecond_of_covered_time() {
    check_under(
        by_day(),
        "0 door open\n10 door close\n23.5h node beats\n86409.999 node heartbeat\n86410 node heartbeat => raised not_opened@door ACTIVE_UNACK",
    );
}

#[test]
fn tiers_and_a_persons_own_limits_decide() {
    let rule = |tier| CareRule { tier, night: None, ..CareRule::default() };
    let yellow_at = |rules: Rules, hours: &str| {
        let script = format!("0 door close\n{hours}h node beats => raised not_opened@door ACTIVE_UNACK");
        check_under(rules, &script);
    };
    yellow_at(homes(rule(RiskTier::High)), "18");
    yellow_at(homes(rule(RiskTier::Low)), "36");
    let hour = Duration::from_secs(3600);
    let own = NotOpened { yellow: 5 * hour, orange: 6 * hour, red: 7 * hour, longest_first: 6 * hour };
    yellow_at(homes(CareRule { limits: Some(own), night: None, ..CareRule::default() }), "5");
}

#[test]
fn a_dead_sensor_stops_the_clock_and_is_a_trouble_of_its_own() {
    let player = check_under(
        by_day(),
        "0    door close
         10h  node beats
         12h  => raised sensor_lost@node ACTIVE_UNACK
         72h
         100h node heartbeat     => cleared sensor_lost@node CLEARED_UNACK
         113.5h node beats
         114h node beats         => raised not_opened@door ACTIVE_UNACK",
    );
    let inputs = &player.last("not_opened@door").explanation.inputs;
    assert_eq!(inputs["covered_ms"], 24 * 3_600_000);
    assert_eq!(inputs["elapsed_ms"], 114 * 3_600_000);
    assert_eq!(inputs["coverage_percent"], 21);
}

#[test]
fn nothing_is_covered_after_the_last_sign_of_life() {
    check_under(
        by_day(),
        "0 door close\n23h node beats\n24.5h\n24.9h node heartbeat => raised not_opened@door ACTIVE_UNACK",
    );
    let player = check_under(by_day(), "0 door close\n23h node beats\n24.9h");
    assert_eq!(state(&player, 24.9).covered_ms, 23 * 3_600_000);
}

#[test]
fn an_open_alarm_is_unknown_while_its_sensor_is_lost() {
    let player = check_under(
        by_day(),
        "0   door close
         24h node beats          => raised not_opened@door ACTIVE_UNACK
         26h => raised sensor_lost@node ACTIVE_UNACK, updated not_opened@door UNKNOWN
         40h
         60h node heartbeat      => cleared sensor_lost@node CLEARED_UNACK, updated not_opened@door ACTIVE_UNACK
         60h door open           => cleared not_opened@door CLEARED_UNACK",
    );
    assert_eq!(player.events[0].alarm.explanation.inputs["level"], "yellow");
}

#[test]
fn late_news_moves_the_clock_to_the_true_time_and_a_straggler_does_not() {
    let player = check_under(
        by_day(),
        "0     door open seq=1
         60    door close seq=2
         24.1h node beats                       => raised not_opened@door ACTIVE_UNACK
         24.2h door open sensed=20h seq=3       => cleared not_opened@door CLEARED_UNACK
         24.2h door close sensed=20.1h seq=4
         24.3h door open sensed=23h seq=3
         24.3h door close sensed=23h seq=4",
    );
    assert_eq!(state(&player, 24.3).since, at(20.1 * 3600.0));
    assert_eq!(player.events[1].sensed_at, at(20.0 * 3600.0));
}

#[test]
fn late_news_that_leaves_a_lower_level_lowers_it() {
    let player = check_under(
        by_day(),
        "0     door close seq=1
         36h   node beats => raised not_opened@door ACTIVE_UNACK, updated not_opened@door ACTIVE_UNACK
         36.1h door open sensed=0.5h seq=2 => cleared not_opened@door CLEARED_UNACK
         36.1h door close sensed=1h seq=3  => raised not_opened@door ACTIVE_UNACK",
    );
    assert_eq!(player.last("not_opened@door").explanation.inputs["level"], "yellow");
}

#[test]
fn a_door_that_stands_open_hides_who_passes() {
    let player = check_under(by_day(), "0 door close\n1h door open\n40h node beats\n40h door close\n63.5h node beats");
    assert_eq!(state(&player, 63.5).covered_ms, 23_500 * 3600);
}

#[test]
fn lost_events_and_a_torn_off_sensor_prove_nothing() {
    check_under(
        by_day(),
        "0   door close
         20h node beats
         20h node lost 3 1     => raised events_lost@node ACTIVE_UNACK
         43.5h node beats
         44h node beats        => raised not_opened@door ACTIVE_UNACK",
    );
    check_under(
        by_day(),
        "0   door close
         20h node beats
         20h node tamper on    => raised tamper@node ACTIVE_UNACK
         50h node beats
         50h node tamper off   => cleared tamper@node CLEARED_UNACK
         53.9h node beats
         54.6h node beats      => raised not_opened@door ACTIVE_UNACK",
    );
}

#[test]
fn clock_jumps_never_raise_early() {
    // Forward and untold: a hole. Back and untold: late. Told: exact.
    check_under(
        by_day(),
        "0 door close\n20h node beats\n50h node heartbeat\n53.9h node beats\n54.1h node beats => raised not_opened@door ACTIVE_UNACK",
    );
    check_under(
        by_day(),
        "50h door close\n60h node beats\n10h node heartbeat\n33.9h node beats\n34h node beats => raised not_opened@door ACTIVE_UNACK",
    );
    check_under(
        by_day(),
        "0 door close\n20h node beats\n120h stepped 360000\n123.9h node beats\n124h node beats => raised not_opened@door ACTIVE_UNACK",
    );
}

fn pause(player: &mut Player, hours: f64, kind: PauseKind, until: f64) -> (Outcome, usize) {
    let pause = Pause { kind, until: at(until * 3600.0), operator: "op".into() };
    let answer = player.engine.pause_care(at(hours * 3600.0), &slug("door"), &pause);
    (answer.outcome, player.tell(answer.outputs).len())
}

#[test]
fn pauses_clear_stop_the_clock_and_end_by_themselves() {
    let mut player = Player::new(by_day());
    player.restart_always = true;
    player.play("0 door close\n24h node beats => raised not_opened@door ACTIVE_UNACK");
    assert_eq!(pause(&mut player, 24.0, PauseKind::Absence, 100.0), (Outcome::Done, 1));
    assert_eq!(state(&player, 24.0).pause.unwrap().kind, PauseKind::Absence);
    player.restart();
    player.play("90h door open\n90h door close\n100h node beats\n123.9h node beats\n124h node beats => raised not_opened@door ACTIVE_UNACK");
}

#[test]
fn a_call_or_visit_sets_the_clock_to_nought_and_an_early_return_ends_an_absence() {
    let mut player = Player::new(by_day());
    player.play("0 door close\n20h node beats");
    assert_eq!(pause(&mut player, 20.0, PauseKind::Call, 20.0), (Outcome::Done, 0));
    player.play("43.9h node beats");
    assert_eq!(pause(&mut player, 43.9, PauseKind::Visit, 48.0), (Outcome::Done, 0));
    player.play("71.9h node beats\n72h node beats => raised not_opened@door ACTIVE_UNACK");
    assert_eq!(pause(&mut player, 72.0, PauseKind::Absence, 500.0).0, Outcome::Done);
    player.play("80h node beats");
    assert_eq!(player.engine.resume_care(at(80.0 * 3600.0), &slug("door")).outcome, Outcome::Done);
    player.play("103.9h node beats");
    assert_eq!(state(&player, 103.9).covered_ms, 86_040_000);
}

#[test]
fn pauses_without_a_sane_end_or_a_home_are_refused_with_a_reason() {
    let mut player = Player::new(by_day());
    player.play("1h door close");
    assert_eq!(pause(&mut player, 2.0, PauseKind::Visit, 1.0).0, Outcome::Refused);
    assert_eq!(pause(&mut player, 2.0, PauseKind::Visit, 26.1).0, Outcome::Refused);
    assert_eq!(pause(&mut player, 2.0, PauseKind::Absence, 2.0 + 91.0 * 24.0).0, Outcome::Refused);
    let answer = player.engine.resume_care(at(7200.0), &slug("node"));
    assert!(answer.outcome == Outcome::Refused && answer.reason.unwrap().en.contains("no care rule"));
}

#[test]
fn a_regular_home_is_asked_after_sooner_and_one_that_is_often_quiet_later() {
    let script = |hours: &[f64], days: u32| {
        let mut script = String::from("0 node heartbeat\n");
        for day in 0..days {
            for hour in hours {
                let time = f64::from(day) * 24.0 * (if hours.len() == 1 { 1.4 } else { 1.0 }) + hour;
                script.push_str(&format!("{time}h node beats\n{time}h door open\n{}h door close\n", time + 0.01));
            }
        }
        script
    };
    let mut player = Player::new(by_day());
    player.play(&script(&[0.0, 4.0, 16.0], 16));
    let since = state(&player, 400.0);
    assert!(since.learned && since.first_ms < 25 * 3_600_000, "{since:?}");
    // 33.6 h between openings: without learning a call every time.
    let mut quiet = Player::new(by_day());
    let text = script(&[1.0], 16).replace("node beats\n", "node beats ?\n");
    for line in text.lines() {
        let (time, action) = line.split_once(' ').unwrap();
        quiet.step(super::seconds(time).unwrap(), action.trim_end_matches(" ?"));
    }
    let told =
        quiet.events.iter().filter(|event| event.alarm.rev == 1 || event.event_type == EventType::AlarmRaised).count();
    assert!((1..=6).contains(&told), "{told} calls while it learned: what was seen puts the next one later");
    let state = state(&quiet, 520.0);
    assert!(state.learned && state.first_ms > 40 * 3_600_000, "{state:?}");
    assert!(state.level.is_none() || state.level == Some(CareLevel::Yellow));
}

#[test]
fn a_gap_through_an_answered_call_is_learned_whole() {
    let mut player = Player::new(by_day());
    for day in 0..16 {
        let hour = f64::from(day) * 30.0;
        let script = format!("{hour}h door open\n{}h door close\n{}h node beats", hour + 0.1, hour + 20.0);
        player.play(&script);
        pause(&mut player, hour + 20.0, PauseKind::Call, hour + 20.0);
        player.play(&format!("{}h node beats", hour + 30.0));
    }
    let state = state(&player, 480.0);
    assert!(state.learned && state.first_ms > 37 * 3_600_000, "30 h × 1.25: {state:?}");
}

fn nights() -> Rules {
    homes(CareRule::default())
}

#[test]
fn a_door_opened_at_night_and_not_again_is_told_and_says_what_a_magnet_cannot() {
    // 8 h after the start is midnight.
    let player = check_under(
        nights(),
        "0      door close
         8h     node beats
         8h     door open
         28860  door close
         30659  node heartbeat
         30660  node heartbeat => raised night_exit@door ACTIVE_UNACK
         9h     door open      => cleared night_exit@door CLEARED_UNACK
         9.01h  door close
         12h    node beats",
    );
    let text = &player.events[0].alarm.explanation.text;
    assert!(text.zh.contains("不能区分出门与进门") && text.en.contains("00:00"), "{text:?}");
}

#[test]
fn a_return_in_time_a_day_and_an_unwatched_half_hour_are_no_night_exit() {
    check_under(
        nights(),
        "0 door close\n8h node beats\n8h door open\n8.01h door close\n8.4h door open\n8.41h door close\n12h node beats",
    );
    check_under(nights(), "0 door close\n6.9h node beats\n6.9h door open\n6.91h door close\n12h node beats");
    check_under(
        nights(),
        "0 door close\n8h node beats\n8h door open\n8.01h door close\n8.02h\n10.5h node heartbeat\n12h node beats",
    );
}

#[test]
fn the_night_begins_and_ends_by_local_time() {
    let (zone, rule) = (jiff::tz::TimeZone::fixed(jiff::tz::offset(8)), NightRule::default());
    let night = |text: &str| rule.night_of(&zone, text.parse().unwrap()).map(|date| date.to_string());
    assert_eq!(night("2026-11-22T22:59:59.999+08:00"), None);
    assert_eq!(night("2026-11-22T23:00:00+08:00").as_deref(), Some("2026-11-22"));
    assert_eq!(night("2026-11-23T04:59:59.999+08:00").as_deref(), Some("2026-11-22"));
    assert_eq!(night("2026-11-23T05:00:00+08:00"), None);
}

#[test]
fn many_openings_in_one_night_are_told_when_nights_are_known_to_be_quiet() {
    let mut script = String::from("0 door close\n");
    for night in 0..15 {
        script.push_str(&format!("{}h node beats\n", f64::from(night) * 24.0 + 15.0));
        script.push_str(&format!("{0}h door open\n{0}h door close\n", f64::from(night) * 24.0 + 15.5));
    }
    let midnight = 15.0 * 24.0 + 8.0;
    script.push_str(&format!("{midnight}h node beats\n"));
    for n in 0..4 {
        let expected = if n == 3 { "=> raised night_frequency@door ACTIVE_UNACK" } else { "" };
        let time = midnight + f64::from(n) * 0.2;
        script.push_str(&format!("{time}h door open {expected}\n{}h door close\n", time + 0.01));
    }
    script.push_str(&format!("{}h node beats => cleared night_frequency@door CLEARED_UNACK\n", midnight + 5.5));
    let player = check_under(nights(), &script);
    assert_eq!(player.last("night_frequency@door").explanation.inputs["openings"], 4);
}

#[test]
fn an_alarm_of_a_home_without_a_rule_any_more_ends() {
    let mut player = Player::new(by_day());
    player.play("0 door close\n24h node beats => raised not_opened@door ACTIVE_UNACK");
    keep(&mut player.engine, &mut player.store);
    let mut without = by_day();
    without.timing.care.homes.clear();
    player.restart_under(without);
    player.play("24.1h tick => over not_opened@door NORMAL");
}

fn left_open() -> Rules {
    let mut rules = homes(CareRule { night: None, ..CareRule::default() });
    rules.timing.care.homes.get_mut(&slug("door")).unwrap().left_open = Some(crate::LeftOpen::default());
    rules
}

#[test]
fn a_homes_door_may_stand_open_15_min_by_day_and_5_min_at_night() {
    // 6 h after the start is 22:00; 23:00 begins the night.
    let player = check_under(
        left_open(),
        "0      door open
         899.9
         900    => raised door_left_open@door ACTIVE_UNACK
         1000   door close => cleared door_left_open@door CLEARED_UNACK
         # 22:50: five minutes are over when the night begins.
         6.8h   node beats
         24600  door open
         25199.9
         25200  => raised door_left_open@door ACTIVE_UNACK
         25300  door close => cleared door_left_open@door CLEARED_UNACK
         # 04:58: the night ends before five minutes are over.
         46680  node beats
         46680  door open
         47579.9
         47580  => raised door_left_open@door ACTIVE_UNACK
         47600  door close => cleared door_left_open@door CLEARED_UNACK",
    );
    let limits: Vec<_> = player.events.iter().filter(|event| event.event_type == EventType::AlarmRaised).collect();
    let limits: Vec<_> = limits.iter().map(|event| event.alarm.explanation.inputs["limit_ms"].clone()).collect();
    assert_eq!(limits, [900_000, 600_000, 900_000]);
    let mut midnight = left_open();
    // Its own limit goes before that of its home.
    midnight.devices.get_mut(&slug("door")).unwrap().left_open_after = Some(Duration::from_secs(60));
    check_under(midnight, "8h door open\n28860 => raised door_left_open@door ACTIVE_UNACK");
    check_under(left_open(), "8h door open\n29099.9\n29100 => raised door_left_open@door ACTIVE_UNACK");
}

#[test]
fn nights_and_limits_follow_a_zone_that_changes_its_clocks() {
    // Central Europe 2026: 29 March 02:00 becomes 03:00, 25 October 03:00 becomes 02:00.
    let zone = jiff::tz::TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
    let rule = NightRule::default();
    let night = |text: &str| rule.night_of(&zone, text.parse().unwrap()).map(|date| date.to_string());
    assert_eq!(night("2026-03-29T00:30:00Z").as_deref(), Some("2026-03-28"), "01:30");
    assert_eq!(night("2026-03-29T02:59:59Z").as_deref(), Some("2026-03-28"), "04:59, summer time");
    assert_eq!(night("2026-03-29T03:00:00Z"), None, "05:00");
    assert_eq!(night("2026-10-25T03:59:59Z").as_deref(), Some("2026-10-24"), "04:59, winter time");
    assert_eq!(night("2026-10-25T04:00:00Z"), None);
    let limit = |text: &str| crate::LeftOpen::default().limit(&zone, &rule, text.parse().unwrap()).as_secs() / 60;
    assert_eq!(limit("2026-03-29T20:50:00Z"), 10, "22:50 in summer time");
    assert_eq!(limit("2026-10-25T21:50:00Z"), 10, "22:50 in winter time");
    assert_eq!((limit("2026-10-25T20:50:00Z"), limit("2026-03-29T00:50:00Z")), (15, 5));
    // A night that begins in the hour that does not exist.
    let odd = NightRule { begins: jiff::civil::Time::constant(2, 30, 0, 0), ..rule.clone() };
    assert_eq!(crate::LeftOpen::default().limit(&zone, &odd, "2026-03-29T00:50:00Z".parse().unwrap()).as_secs(), 900);
}

#[test]
fn a_night_that_crosses_the_change_of_clocks_is_one_night_and_is_learned_once() {
    let mut rules = nights();
    rules.timing.care.zone = jiff::tz::TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
    let mut engine = Engine::new(rules);
    let mut told = 0;
    // From 20 October, an opening at 02:30 by the wall's clock, every half hour a heartbeat.
    let start: Timestamp = "2026-10-20T10:00:00Z".parse().unwrap();
    for half_hours in 0..(16 * 48) {
        let now = start + SignedDuration::from_mins(30 * half_hours);
        let see = |device: &str, what| Observation {
            device: slug(device),
            sensed_at: now,
            clock: ClockQuality::Synced,
            origin: None,
            what,
        };
        let zone = engine.rules().timing.care.zone.clone();
        let local = zone.to_datetime(now).time();
        if (local.hour(), local.minute()) == (2, 30) {
            for (open, seconds) in [(true, -30), (false, -20)] {
                let then = now + SignedDuration::from_secs(seconds);
                let passage = Observation { sensed_at: then, ..see("door", What::Door { open, repaired: false }) };
                told += engine.observe(then, &passage).len();
            }
        }
        told += engine.observe(now, &see("node", What::Heartbeat)).len();
    }
    let rhythm = &engine.homes.rhythms[&slug("door")];
    assert_eq!(rhythm.nights_learned(), 16);
    // 02:30 came twice on the 25th, and the second was the return; every night is told once and cleared by the next opening.
    assert!((30..=33).contains(&told), "{told}");
}

#[test]
fn replayed_and_disordered_frames_leave_the_clock_where_the_true_ones_put_it() {
    use rand::rngs::StdRng;
    use rand::seq::SliceRandom;
    use rand::{Rng, SeedableRng};
    for seed in 0..200 {
        let mut rng = StdRng::seed_from_u64(seed);
        // Ten passages; the node sends in order, and its link repeats, and repeats old ones late.
        let mut frames = Vec::new();
        for n in 0..10u32 {
            let opened = f64::from(n) * 3600.0 + rng.random_range(0.0..3000.0);
            frames.push((opened, 2 * n + 1, true));
            frames.push((opened + 20.0, 2 * n + 2, false));
        }
        let last_closed = frames.last().unwrap().0;
        let mut straight = Player::new(by_day());
        let mut noisy = Player::new(by_day());
        let feed = |player: &mut Player, now: f64, (sensed, sequence, open): (f64, u32, bool)| {
            let seen = Observation {
                device: slug("door"),
                sensed_at: at(sensed),
                clock: ClockQuality::Synced,
                origin: Some(Origin { node: "ab".into(), boot: 1, sequence }),
                what: What::Door { open, repaired: false },
            };
            let outputs = player.engine.observe(at(now), &seen);
            player.tell(outputs)
        };
        for (n, frame) in frames.iter().enumerate() {
            feed(&mut straight, frame.0, *frame);
            feed(&mut noisy, frame.0, *frame);
            let mut again = frames[..=n].to_vec();
            again.shuffle(&mut rng);
            for old in again.into_iter().take(rng.random_range(0..4)) {
                feed(&mut noisy, frame.0 + 1.0, old);
            }
            if rng.random_bool(0.2) {
                noisy.restart();
            }
        }
        let hours = last_closed / 3600.0 + 1.0;
        let (straight, noisy) = (state(&straight, hours), state(&noisy, hours));
        assert_eq!((straight.since, noisy.since), (at(last_closed), at(last_closed)), "seed {seed}");
        assert_eq!((straight.level, straight.learned_days), (noisy.level, noisy.learned_days), "seed {seed}");
    }
}

#[test]
fn the_covered_share_of_the_week_is_in_the_state_of_the_device() {
    let player = check_under(
        by_day(),
        "0 door close\n12h node beats\n14h => raised sensor_lost@node ACTIVE_UNACK\n24h node heartbeat => cleared sensor_lost@node CLEARED_UNACK\n35.9h node beats",
    );
    let device = player.engine.device_state(&slug("door"));
    assert_eq!((device.coverage_percent, device.supervision.as_deref()), (Some(66), Some("S2")));
    assert_eq!(state(&player, 35.9).coverage_percent, Some(66));
    assert_eq!(player.engine.device_state(&slug("node")).coverage_percent, None, "only homes have one");
}
