//! How long life-safety events take from sensed to the centre's receipt.
//!
//! Owns the last figures, and what the gateway's clock did meanwhile: both ends are read from the time of day, which somebody may set in between. A step
//! is seen against the steady clock and taken out of every figure that spans it. What cannot be known is said to be unknown and left out: events journaled before this start
//! (who knows how the clock was set while nothing ran), and those journaled so near a step that it cannot be told on which side. Refuses to read a clock.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::status::Latency;

/// Latencies kept for the percentiles.
const LATENCIES_KEPT: usize = 256;
/// A clock that moves by less against the steady one is drifting, not set.
const STEP_MIN: SignedDuration = SignedDuration::from_millis(500);
/// Steps remembered; what was journaled before an older one is of unknown latency.
const STEPS_KEPT: usize = 16;

/// The clock was set while the journal stood between two sequences.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// Events up to here were certainly journaled before it.
    before: u64,
    /// Events behind this were certainly journaled after it.
    after: u64,
    by: SignedDuration,
    /// When it was seen, as the clock is since.
    at: Timestamp,
}

/// What the time of day did since the start.
#[derive(Debug, Clone, Default)]
pub(super) struct ClockSteps {
    /// Of events up to this sequence nothing is known.
    unknown_to: u64,
    /// Time of day less steady time, and the journal's end, when last read.
    read: Option<(SignedDuration, u64)>,
    steps: VecDeque<Step>,
}

impl ClockSteps {
    /// Of events up to `sequence` nothing is known: they were journaled by an earlier start.
    pub fn since(sequence: u64) -> Self {
        Self { unknown_to: sequence, ..Self::default() }
    }

    /// Both clocks now, and the journal's end. To be told often: what is journaled between two readings with a step in between is of unknown latency.
    pub fn read(&mut self, now: Timestamp, uptime: SignedDuration, sequence: u64) {
        let offset = now.as_duration() - uptime;
        if let Some((old, before)) = self.read
            && (offset - old).abs() >= STEP_MIN
        {
            self.steps.push_back(Step { before, after: sequence, by: offset - old, at: now });
            if self.steps.len() > STEPS_KEPT
                && let Some(oldest) = self.steps.pop_front()
            {
                self.unknown_to = self.unknown_to.max(oldest.after);
            }
        }
        self.read = Some((offset, sequence));
    }

    /// Time from when event `sequence` was sensed until `now`; absent where it is unknown.
    pub fn latency(&self, sequence: u64, sensed_at: Timestamp, now: Timestamp) -> Option<Duration> {
        if sequence <= self.unknown_to {
            return None;
        }
        let mut latency = now.duration_since(sensed_at);
        // A node's clock is learnt anew after a step: what it sensed meanwhile is still stamped as the clock was before.
        let last = self.steps.iter().rev().find(|step| step.after < sequence);
        if last.is_some_and(|step| step.by.is_positive() && sensed_at < step.at) {
            return None;
        }
        for step in self.steps.iter().filter(|step| sequence <= step.after) {
            if sequence > step.before {
                return None;
            }
            latency -= step.by;
        }
        // A node may have stamped it a little ahead of our clock; with a clock that was set back since, far ahead.
        if latency < -STEP_MIN {
            return None;
        }
        Some(Duration::try_from(latency).unwrap_or(Duration::ZERO))
    }
}

/// The last latencies of life-safety items.
#[derive(Debug, Default)]
pub(super) struct Latencies(VecDeque<u64>);

impl Latencies {
    pub(super) fn add(&mut self, latency: Duration) {
        if self.0.len() == LATENCIES_KEPT {
            self.0.pop_front();
        }
        self.0.push_back(u64::try_from(latency.as_millis()).unwrap_or(u64::MAX));
    }

    pub(super) fn figures(&self) -> Option<Latency> {
        let mut sorted: Vec<u64> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        let rank = |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        Some(Latency { count: sorted.len(), p50_ms: rank(50)?, p99_ms: rank(99)? })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::at;
    use super::*;

    const DAY: i64 = 86_400;

    fn up(seconds: i64) -> SignedDuration {
        SignedDuration::from_secs(seconds)
    }

    #[test]
    fn a_clock_set_by_a_day_between_sensed_and_receipt_is_taken_out() {
        let mut steps = ClockSteps::default();
        steps.read(at(0), up(100), 5);
        steps.read(at(DAY + 1), up(101), 5);
        assert_eq!(steps.latency(5, at(0), at(DAY + 2)), Some(Duration::from_secs(2)), "journaled before it");
        assert_eq!(steps.latency(6, at(DAY + 1), at(DAY + 2)), Some(Duration::from_secs(1)), "and after it");
        steps.read(at(DAY + 1), up(101), 6);
        steps.read(at(2), up(102), 6);
        assert_eq!(steps.latency(5, at(0), at(3)), Some(Duration::from_secs(3)), "set back again");
        assert_eq!(steps.latency(6, at(DAY + 1), at(3)), Some(Duration::from_secs(2)));
    }

    #[test]
    fn what_was_journaled_about_the_time_of_the_step_is_unknown() {
        let mut steps = ClockSteps::default();
        steps.read(at(0), up(100), 5);
        steps.read(at(DAY), up(100), 8);
        assert_eq!(steps.latency(6, at(0), at(DAY)), None);
        assert_eq!(steps.latency(8, at(0), at(DAY)), None);
        assert!(steps.latency(5, at(0), at(DAY)).is_some() && steps.latency(9, at(DAY), at(DAY)).is_some());
    }

    #[test]
    fn what_is_stamped_as_the_clock_was_before_a_step_is_unknown() {
        let mut steps = ClockSteps::default();
        steps.read(at(0), up(100), 5);
        steps.read(at(DAY), up(100), 5);
        assert_eq!(
            steps.latency(6, at(2), at(DAY + 3)),
            None,
            "sensed by a node whose clock is still that of yesterday"
        );
        assert_eq!(steps.latency(7, at(DAY + 2), at(DAY + 3)), Some(Duration::from_secs(1)));
        steps.read(at(4), up(104), 7);
        assert_eq!(steps.latency(8, at(DAY + 5), at(6)), None, "set back");
        assert_eq!(steps.latency(9, at(5), at(6)), Some(Duration::from_secs(1)));
    }

    #[test]
    fn what_was_journaled_before_this_start_is_unknown() {
        let steps = ClockSteps::since(7);
        assert_eq!(steps.latency(7, at(0), at(1)), None);
        assert_eq!(steps.latency(8, at(0), at(1)), Some(Duration::from_secs(1)));
    }

    #[test]
    fn a_clock_that_drifts_is_not_set_and_only_the_last_steps_are_remembered() {
        let mut steps = ClockSteps::default();
        for n in 0..100_u64 {
            let now = i64::try_from(n).unwrap();
            steps.read(at(now) + SignedDuration::from_millis(400 * now), up(now), n);
        }
        assert!(steps.steps.is_empty());
        for n in 0..20_u64 {
            steps.read(at(i64::try_from(n).unwrap() * DAY), up(0), 100 + n);
        }
        assert_eq!((steps.steps.len(), steps.latency(102, at(0), at(0))), (STEPS_KEPT, None));
    }

    #[test]
    fn percentiles_are_by_nearest_rank_over_the_last_256() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.figures(), None);
        for ms in 1..=1000 {
            latencies.add(Duration::from_millis(ms));
        }
        assert_eq!(latencies.figures(), Some(Latency { count: 256, p50_ms: 872, p99_ms: 998 }));
    }
}
