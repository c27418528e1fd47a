//! Goal: a node knows the gateway's time within a frame's way and the clocks' drift, or knows that it does not. Method: a true clock, a
//! node's that drifts, and words that arrive late.

use super::*;
use crate::time::{DRIFT_PPM, GatewayTime, JUMP_MS, STALE_MS};

const NOON_MS: u64 = 1_800_000_000_000;

#[test]
fn a_time_that_is_not_synced_is_ignored_and_a_day_of_silence_forgets_it() {
    let mut time = GatewayTime::default();
    time.on_time(5, Time { unix_ms: NOON_MS, synced: false });
    assert_eq!(time.at(5), None);
    time.on_time(10, Time { unix_ms: NOON_MS, synced: true });
    assert_eq!(time.at(1_010), Some(NOON_MS + 1_000));
    assert_eq!(time.at(10 + STALE_MS), None);
}

#[test]
fn late_words_and_a_drifting_clock_leave_an_error_within_the_bound() {
    for seed in 0..200_u64 {
        let mut random = StdRng::seed_from_u64(seed);
        let drift_ppm = random.random_range(-900..=900_i64);
        let mut time = GatewayTime::default();
        for minute in 0..600_u64 {
            let late_ms = if random.random_ratio(1, 3) { 2 } else { random.random_range(2..2_000) };
            let true_ms = minute * 60_000;
            let heard_at_ms = true_ms + late_ms;
            let uptime_ms = u64::try_from(heard_at_ms as i64 + heard_at_ms as i64 * drift_ppm / 1_000_000).unwrap();
            time.on_time(uptime_ms, Time { unix_ms: NOON_MS + true_ms, synced: true });
            let error_ms = (NOON_MS + heard_at_ms) as i64 - time.at(uptime_ms).unwrap() as i64;
            // One in three words is prompt: twenty minutes without one are hardly seen, and 20 min of drift are 1.2 s.
            if minute > 20 {
                assert!((-2_500..2_000).contains(&error_ms), "seed {seed}, minute {minute}: {error_ms} ms");
            }
        }
    }
    assert_eq!(DRIFT_PPM, 1_000, "the bound above is computed from it");
}

#[test]
fn a_gateway_whose_clock_was_set_is_believed_at_once() {
    for set in [3_600_000_i64, -3_600_000] {
        let mut time = GatewayTime::default();
        time.on_time(0, Time { unix_ms: NOON_MS, synced: true });
        let unix_ms = (NOON_MS as i64 + set) as u64;
        time.on_time(1_000, Time { unix_ms, synced: true });
        assert_eq!(time.at(1_000), Some(unix_ms));
    }
    let mut time = GatewayTime::default();
    time.on_time(0, Time { unix_ms: NOON_MS, synced: true });
    time.on_time(60_000, Time { unix_ms: NOON_MS + 60_000 - JUMP_MS / 2, synced: true });
    assert_eq!(time.at(60_000), Some(NOON_MS + 60_000), "a word that was only late is not");
}
