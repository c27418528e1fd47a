//! A node's uptime in the gateway's time (W24).
//!
//! Owns the estimate of one boot's offset: the gateway's time at which the node's uptime was zero. Every frame that says when it was
//! sent bounds it from above, by the delay it had; the least bound of the last minutes is the best. Refuses to believe a future.
//!
//! The estimate falls at once (a shorter delay is always better knowledge) and rises at most by [`DRIFT_MAX_PPM`] (a node's clock
//! that runs fast or slow), unless three frames in a row agree that it must jump: then the gateway's own clock was set.

use jiff::Timestamp;

/// How far a node's clock may run wrong: an RC oscillator after calibration; a crystal has a tenth of it.
pub const DRIFT_MAX_PPM: i64 = 1_000;
/// The least bound is taken over one to two of these, in milliseconds of uptime.
const WINDOW_MS: u64 = 600_000;
/// A rise above this, in microseconds, is no drift.
const STEP_US: i64 = 5_000_000;
/// Frames that agree on a step agree within this, in microseconds. Frames that were held up together do not: the later one was
/// sent, the less it was delayed.
const STEP_SPREAD_US: i64 = 1_000_000;
/// So many frames must agree.
const STEP_FRAMES: usize = 3;

/// Estimates the offset of one boot.
#[derive(Debug, Clone, Default)]
pub struct NodeClock {
    /// In microseconds since 1970.
    offset_us: Option<i64>,
    /// Uptime at the last change of the estimate, in milliseconds.
    estimated_at_ms: u64,
    window_from_ms: u64,
    least_now_us: Option<i64>,
    least_before_us: Option<i64>,
    higher_us: Vec<i64>,
}

impl NodeClock {
    /// Takes a frame that was sent at `uptime_ms` and arrived at `arrival`.
    pub fn sent(&mut self, arrival: Timestamp, uptime_ms: u64) {
        let bound = bound_us(arrival, uptime_ms);
        if uptime_ms.saturating_sub(self.window_from_ms) >= WINDOW_MS {
            self.least_before_us = self.least_now_us.take();
            self.window_from_ms = uptime_ms;
        }
        self.least_now_us = Some(self.least_now_us.map_or(bound, |least| least.min(bound)));
        let least =
            self.least_before_us.map_or(bound, |before| before.min(bound)).min(self.least_now_us.unwrap_or(bound));
        let Some(offset) = self.offset_us else {
            self.set(bound, uptime_ms);
            return;
        };
        if bound > offset.saturating_add(STEP_US) {
            self.consider_step(bound, uptime_ms);
        } else {
            self.higher_us.clear();
        }
        let offset = self.offset_us.unwrap_or(offset);
        let passed_us =
            i64::try_from(uptime_ms.saturating_sub(self.estimated_at_ms)).unwrap_or(i64::MAX).saturating_mul(1_000);
        let risen = offset
            .saturating_add(passed_us / 1_000_000 * DRIFT_MAX_PPM + passed_us % 1_000_000 * DRIFT_MAX_PPM / 1_000_000);
        self.set(least.min(risen).min(bound), uptime_ms);
    }

    /// Takes an event that happened at `uptime_ms` and was told at `arrival`, perhaps much later: it can only bring the estimate down.
    pub fn happened(&mut self, arrival: Timestamp, uptime_ms: u64) {
        let bound = bound_us(arrival, uptime_ms);
        if self.offset_us.is_none_or(|offset| bound < offset) {
            self.offset_us = Some(bound);
            self.least_now_us = self.least_now_us.map(|least| least.min(bound));
        }
    }

    /// The gateway's time at `uptime_ms`; never after `now`.
    #[must_use]
    pub fn time_at(&self, uptime_ms: u64, now: Timestamp) -> Timestamp {
        let uptime_us = i64::try_from(uptime_ms).unwrap_or(i64::MAX).saturating_mul(1_000);
        let time = self.offset_us.and_then(|offset| Timestamp::from_microsecond(offset.checked_add(uptime_us)?).ok());
        time.map_or(now, |time| time.min(now))
    }

    fn set(&mut self, offset_us: i64, uptime_ms: u64) {
        self.offset_us = Some(offset_us);
        self.estimated_at_ms = uptime_ms;
    }

    fn consider_step(&mut self, bound: i64, uptime_ms: u64) {
        if self.higher_us.iter().any(|other| other.abs_diff(bound) > STEP_SPREAD_US.unsigned_abs()) {
            self.higher_us.clear();
        }
        self.higher_us.push(bound);
        if self.higher_us.len() >= STEP_FRAMES {
            let least = self.higher_us.drain(..).min().unwrap_or(bound);
            self.least_now_us = Some(least);
            self.least_before_us = None;
            self.window_from_ms = uptime_ms;
            self.set(least, uptime_ms);
        }
    }
}

fn bound_us(arrival: Timestamp, uptime_ms: u64) -> i64 {
    arrival.as_microsecond().saturating_sub(i64::try_from(uptime_ms).unwrap_or(i64::MAX).saturating_mul(1_000))
}
