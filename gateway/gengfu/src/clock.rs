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
