//! The ladder in simulated time: a load a second, and where it stands.

use super::*;

const QUIET: Load = Load { lag_ms: 50, shed_share: 0.0, cpu_share: 0.2 };
const LATE: Load = Load { lag_ms: 4000, shed_share: 0.0, cpu_share: 0.3 };
const BETWEEN: Load = Load { lag_ms: 1000, shed_share: 0.15, cpu_share: 0.5 };

/// Runs `load(second)` for so many seconds; returns (second, level) of every change.
fn run(ladder: &mut Ladder, from: u64, seconds: u64, load: impl Fn(u64) -> Load) -> Vec<(u64, u8)> {
    let step = |s| ladder.measured(Duration::from_secs(s), &load(s)).map(|(rung, _)| (s, rung.level()));
    (from..from + seconds).filter_map(step).collect()
}

#[test]
fn overload_climbs_rung_by_rung_in_the_documented_order_and_stops_at_the_top() {
    let changes = run(&mut Ladder::new(Limits::default()), 0, 120, |_| LATE);
    assert_eq!(changes.iter().map(|c| c.1).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(changes[0].0 >= 10 && changes.windows(2).all(|w| w[1].0 - w[0].0 >= 10), "{changes:?}");
    assert_eq!(
        Rung::ALL,
        [Rung::Whole, Rung::LitterSeldom, Rung::KeyFrames, Rung::ParkingSeldom, Rung::InTurn],
        "the order in the documents"
    );
}

#[test]
fn each_sign_of_overload_counts_and_says_what_it_saw() {
    let loads = [
        (LATE, "4000 ms"),
        (Load { shed_share: 0.5, ..QUIET }, "50 %"),
        (Load { cpu_share: 0.9, ..QUIET }, "90 % of the processors"),
    ];
    for (load, word) in loads {
        let mut ladder = Ladder::new(Limits::default());
        let changes: Vec<_> = (0..12).filter_map(|s| ladder.measured(Duration::from_secs(s), &load)).collect();
        assert!(changes.len() == 1 && changes[0].1.contains(word), "{changes:?}");
    }
}

#[test]
fn a_short_peak_and_a_load_between_the_limits_change_nothing() {
    let peaks = |s: u64| if s % 10 < 9 { LATE } else { QUIET };
    assert_eq!(run(&mut Ladder::new(Limits::default()), 0, 600, peaks), []);
    let mut ladder = Ladder::new(Limits::default());
    run(&mut ladder, 0, 25, |_| LATE);
    assert_eq!(run(&mut ladder, 25, 3600, |_| BETWEEN), [], "hysteresis: neither up nor down");
}

#[test]
fn quiet_leads_down_one_rung_a_minute() {
    let mut ladder = Ladder::new(Limits::default());
    run(&mut ladder, 0, 60, |_| LATE);
    let changes = run(&mut ladder, 60, 400, |_| QUIET);
    assert_eq!(changes.iter().map(|c| c.1).collect::<Vec<_>>(), [3, 2, 1, 0]);
    assert!(changes.windows(2).all(|w| w[1].0 - w[0].0 >= 60), "{changes:?}");
}

/// A box that is overloaded on every rung below the second, for an hour: without patience it would swing 40 times.
#[test]
fn a_rung_that_is_needed_is_left_later_and_later() {
    let mut ladder = Ladder::new(Limits::default());
    let mut changes = 0;
    for s in 0..7200 {
        let load = if ladder.rung < Rung::KeyFrames { LATE } else { QUIET };
        changes += u32::from(ladder.measured(Duration::from_secs(s), &load).is_some());
    }
    assert!(changes <= 24, "{changes} changes in two hours");
}

#[test]
fn what_is_given_up_follows_the_rungs() {
    let at = |rung, duty| effort(rung, duty, 0, 16);
    for duty in [Duty::Parking, Duty::Litter] {
        assert_eq!(at(Rung::Whole, duty), Effort::default());
        let every: Vec<u64> = Rung::ALL.iter().map(|&rung| at(rung, duty).every_ms).collect();
        assert!(every.windows(2).all(|w| w[0] <= w[1]), "no rung gives back: {every:?}");
    }
    assert_eq!(
        (at(Rung::LitterSeldom, Duty::Litter).every_ms, at(Rung::LitterSeldom, Duty::Parking).every_ms),
        (10_000, 0)
    );
    assert!(
        !at(Rung::LitterSeldom, Duty::Litter).key_frames_only && at(Rung::KeyFrames, Duty::Parking).key_frames_only
    );
    assert_eq!(at(Rung::ParkingSeldom, Duty::Parking).every_ms, 6_000);
    // A vehicle that may stand 60 s is still noticed on the last rung: three looks fit into the limit.
    for of in [1, 16, 200] {
        assert!((10_000..=20_000).contains(&effort(Rung::InTurn, Duty::Parking, 0, of).every_ms));
    }
    let turns: Vec<u64> = (0..4).map(|place| effort(Rung::InTurn, Duty::Parking, place, 4).first_after_ms).collect();
    assert_eq!(turns, [0, 2500, 5000, 7500]);
}
