//! Goal: W24, a node's uptime becomes the gateway's time.
//! Method: a true clock, a node's clock that runs wrong, delays, and the gateway's clock being set.

use jiff::SignedDuration;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::node_clock::NodeClock;
use super::{after_ms, start};

/// Wrong by so much, in milliseconds; positive is late.
fn error_ms(clock: &NodeClock, uptime_ms: u64, true_ms: u64, now_ms: u64) -> i64 {
    let told = clock.time_at(uptime_ms, after_ms(now_ms));
    i64::try_from(told.duration_since(after_ms(true_ms)).as_millis()).unwrap()
}

#[test]
fn w24_the_least_delay_gives_the_time() {
    let mut clock = NodeClock::default();
    for (uptime_ms, delay_ms) in [(0, 900), (10_000, 40), (20_000, 700), (30_000, 300)] {
        clock.sent(after_ms(uptime_ms + delay_ms), uptime_ms);
    }
    assert!((40..60).contains(&error_ms(&clock, 25_000, 25_000, 40_000)));
}

#[test]
fn w24_an_event_told_late_keeps_its_time_and_never_lies_in_the_future() {
    let mut clock = NodeClock::default();
    clock.sent(after_ms(20), 0);
    clock.happened(after_ms(3_600_000), 5_000);
    assert_eq!(error_ms(&clock, 5_000, 5_000, 3_600_000), 20);
    assert_eq!(clock.time_at(u64::MAX, after_ms(7)), after_ms(7));
    assert_eq!(NodeClock::default().time_at(5, after_ms(7)), after_ms(7), "nothing is known yet");
}

#[test]
fn w24_a_clock_that_runs_wrong_is_followed_within_its_window() {
    for drift_ppm in [-500_i64, -50, 0, 50, 500] {
        let mut random = StdRng::seed_from_u64(drift_ppm.unsigned_abs());
        let mut clock = NodeClock::default();
        let day_ms = 24 * 3_600_000_u64;
        for true_ms in (0..day_ms).step_by(10_000) {
            let uptime_ms = true_ms.saturating_add_signed(i64::try_from(true_ms).unwrap() * drift_ppm / 1_000_000);
            clock.sent(after_ms(true_ms + random.random_range(2..120)), uptime_ms);
            let error = error_ms(&clock, uptime_ms, true_ms, true_ms + 200);
            // At most 20 minutes of window at 500 ppm, and the delay.
            assert!((-650..=250).contains(&error), "{drift_ppm} ppm: wrong by {error} ms after {true_ms} ms");
        }
    }
}

#[test]
fn w24_a_gateway_clock_that_is_set_is_followed_after_three_frames() {
    for jump_s in [-86_400_i64, 86_400, 1_700_000_000] {
        let mut clock = NodeClock::default();
        let mut at = start();
        for n in 0..20_u64 {
            if n == 10 {
                at += SignedDuration::from_secs(jump_s);
            }
            at += SignedDuration::from_secs(10);
            clock.sent(at, n * 10_000);
        }
        assert_eq!(clock.time_at(185_000, at), at - SignedDuration::from_secs(5), "jump of {jump_s} s");
    }
}

#[test]
fn w24_frames_that_were_held_up_together_are_no_step() {
    let mut clock = NodeClock::default();
    clock.sent(after_ms(10), 0);
    // A minute's frames arrive at once: each later one had less delay.
    for uptime_ms in (10_000..60_000).step_by(10_000) {
        clock.sent(after_ms(60_000), uptime_ms);
    }
    let error = error_ms(&clock, 30_000, 30_000, 60_000);
    assert!((0..=70).contains(&error), "wrong by {error} ms");
}
