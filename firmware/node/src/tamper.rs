//! The switch under the case's lid.
//!
//! Owns when a case counts as opened. Refuses to latch: the gateway does that, and a person resets it there.

use embedded_hal::digital::InputPin;
use gengfu_wire::{EventKind, Level};

use crate::contact::earliest;
use crate::input::{Debounce, FaultWatch, Input};

/// A lid is opened by hand, which takes longer than this, in milliseconds.
pub const DEBOUNCE_MS: u32 = 100;

/// A tamper switch.
#[derive(Debug)]
pub struct Tamper<P> {
    input: Input<P>,
    open: Debounce,
    fault: FaultWatch,
}

impl<P: InputPin> Tamper<P> {
    /// `input` is active when the case is open.
    pub fn new(input: Input<P>) -> Self {
        Self { input, open: Debounce::unknown(DEBOUNCE_MS), fault: FaultWatch::default() }
    }

    /// Looks at the pin; gives at most one event a call. A case that is open at boot is an event: someone may have cut the power first.
    pub fn poll(&mut self, now_ms: u64) -> Option<EventKind> {
        let active = self.input.is_active();
        let known_before = self.open.level().is_some();
        let settled = active.and_then(|open| self.open.look(now_ms, open)).filter(|open| known_before || *open);
        let edge = settled.map(|open| if open { EventKind::TamperOpened } else { EventKind::TamperClosed });
        edge.or_else(|| self.fault.look(now_ms, active.is_none()))
    }

    /// The settled level.
    #[must_use]
    pub fn level(&self) -> Option<Level> {
        self.open.level().map(|open| if open { Level::TamperOpen } else { Level::TamperClosed })
    }

    /// Whether the switch cannot be read.
    #[must_use]
    pub fn is_faulty(&self) -> bool {
        self.fault.is_faulty()
    }

    /// When to look again at the latest, if nothing changes.
    #[must_use]
    pub fn due_at_ms(&self) -> Option<u64> {
        earliest(self.open.due_at_ms(), self.fault.due_at_ms())
    }
}
