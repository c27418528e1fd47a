//! Where time comes from.
//!
//! Owns the one place of the gateway that reads the operating system's clock. Everything else takes `now` or a [`Clock`].
#![expect(clippy::disallowed_methods, reason = "this is the edge that reads the clock")]

use std::sync::Mutex;

use gengfu_contract::event::ClockQuality;
use jiff::{SignedDuration, Timestamp};

/// A source of time.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Timestamp;
    /// Whether that can be trusted.
    fn quality(&self) -> ClockQuality;
    /// Time since some fixed moment, sleep included; nobody sets it. Against it a step of [`Clock::now`] shows.
    fn uptime(&self) -> SignedDuration;
}

/// The operating system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn quality(&self) -> ClockQuality {
        if kernel_says_synchronised() { ClockQuality::Synced } else { ClockQuality::Unsynced }
    }

    fn uptime(&self) -> SignedDuration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        SignedDuration::new(time.tv_sec, i32::try_from(time.tv_nsec).unwrap_or(0))
    }
}

/// A difference between wall time and uptime that is no slewing (at most 500 ppm) and no scheduling: somebody set the clock.
const STEP: SignedDuration = SignedDuration::from_secs(1);

/// Notices that a clock was set. What is smaller than a second it follows in silence, look by look, so that it does not come on top of the
/// next step: timers that began after it would be moved by what they never saw.
#[derive(Debug)]
pub struct StepWatch {
    offset: SignedDuration,
}

impl StepWatch {
    /// Watches from now on.
    #[must_use]
    pub fn new(clock: &dyn Clock) -> Self {
        Self { offset: offset(clock) }
    }

    /// By how much the clock was set since the last look, if it was.
    pub fn look(&mut self, clock: &dyn Clock) -> Option<SignedDuration> {
        let step = self.unseen(clock);
        self.offset = offset(clock);
        step
    }

    /// What the next look would tell.
    #[must_use]
    pub fn unseen(&self, clock: &dyn Clock) -> Option<SignedDuration> {
        let step = offset(clock) - self.offset;
        (step.abs() >= STEP).then_some(step)
    }
}

fn offset(clock: &dyn Clock) -> SignedDuration {
    clock.now().as_duration() - clock.uptime()
}

/// adjtimex(2): the kernel knows whether a time daemon disciplines the clock (`STA_UNSYNC`).
fn kernel_says_synchronised() -> bool {
    // SAFETY: `timex` is plain data for which all zeros is valid; `modes = 0` makes the call read-only.
    unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        libc::adjtimex(&raw mut timex) >= 0 && timex.status & libc::STA_UNSYNC == 0
    }
}

/// A clock that only moves when told: simulated time for tests and replay.
#[derive(Debug)]
pub struct ManualClock {
    start: Timestamp,
    now: Mutex<Timestamp>,
}

impl ManualClock {
    /// A clock that stands at `start`.
    #[must_use]
    pub fn at(start: Timestamp) -> Self {
        Self { start, now: Mutex::new(start) }
    }

    /// Moves it forward.
    pub fn advance(&self, by: SignedDuration) {
        let mut now = self.now.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *now = now.saturating_add(by).unwrap_or(*now);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.now.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn quality(&self) -> ClockQuality {
        ClockQuality::Synced
    }

    fn uptime(&self) -> SignedDuration {
        self.now().duration_since(self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wall time and uptime, each set by hand.
    struct Hands(Mutex<(i64, i64)>);

    impl Clock for Hands {
        fn now(&self) -> Timestamp {
            Timestamp::from_millisecond(1_767_225_600_000 + self.0.lock().unwrap().0).unwrap()
        }

        fn quality(&self) -> ClockQuality {
            ClockQuality::Unsynced
        }

        fn uptime(&self) -> SignedDuration {
            SignedDuration::from_millis(self.0.lock().unwrap().1)
        }
    }

    #[test]
    fn a_step_is_told_once_and_without_the_small_ones_before_it() {
        let clock = Hands(Mutex::new((0, 0)));
        let mut steps = StepWatch::new(&clock);
        let mut pass = |wall_ms: i64, up_ms: i64| {
            let mut hands = clock.0.lock().unwrap();
            *hands = (hands.0 + wall_ms, hands.1 + up_ms);
            drop(hands);
            steps.look(&clock)
        };
        assert_eq!(pass(200, 200), None);
        assert_eq!(pass(-500, 200), None, "700 ms back are followed");
        assert_eq!(pass(-57_000, 200), Some(SignedDuration::from_millis(-57_200)));
        assert_eq!(pass(200, 200), None, "told once");
        assert_eq!(pass(3_600_000, 0), Some(SignedDuration::from_hours(1)));
    }
}
