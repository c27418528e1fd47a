//! The emergency button.
//!
//! Owns when it counts as pressed: once for each press, however long. Refuses a level: a call for help does not end because
//! the hand let go. A button that is down at boot counts as pressed.

use embedded_hal::digital::InputPin;
use gengfu_wire::EventKind;

use crate::contact::earliest;
use crate::input::{Debounce, FaultWatch, Input};

/// Short, so that a weak hand's tap counts, in milliseconds.
pub const DEBOUNCE_MS: u32 = 30;

/// An emergency button.
#[derive(Debug)]
pub struct Sos<P> {
    input: Input<P>,
    pressed: Debounce,
    fault: FaultWatch,
}

impl<P: InputPin> Sos<P> {
    /// `input` is active while the button is down.
    pub fn new(input: Input<P>) -> Self {
        Self { input, pressed: Debounce::from(false, DEBOUNCE_MS), fault: FaultWatch::default() }
    }

    /// Looks at the pin; gives at most one event a call.
    pub fn poll(&mut self, now_ms: u64) -> Option<EventKind> {
        let active = self.input.is_active();
        let settled = active.and_then(|down| self.pressed.look(now_ms, down));
        let press = settled.filter(|down| *down).map(|_| EventKind::SosPressed);
        press.or_else(|| self.fault.look(now_ms, active.is_none()))
    }

    /// Whether the button cannot be read.
    #[must_use]
    pub fn is_faulty(&self) -> bool {
        self.fault.is_faulty()
    }

    /// When to look again at the latest, if nothing changes.
    #[must_use]
    pub fn due_at_ms(&self) -> Option<u64> {
        earliest(self.pressed.due_at_ms(), self.fault.due_at_ms())
    }
}
