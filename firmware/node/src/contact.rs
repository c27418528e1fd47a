//! A door contact (reed switch and magnet).
//!
//! Owns when a door counts as opened or closed. Refuses to say whether anyone passed, or which way: one magnet cannot know.
//! The level found at boot is no event; it goes out with the first heartbeat, where the gateway sees an edge that was missed.

use embedded_hal::digital::InputPin;
use gengfu_wire::{EventKind, Level};

use crate::input::{Debounce, FaultWatch, Input};

/// A level that lasts this long is a door's, not a bounce's, in milliseconds.
pub const DEBOUNCE_MS: u32 = 50;

/// A door contact.
#[derive(Debug)]
pub struct Contact<P> {
    input: Input<P>,
    open: Debounce,
    fault: FaultWatch,
}

impl<P: InputPin> Contact<P> {
    /// `input` is active when the door is open.
    pub fn new(input: Input<P>, debounce_ms: u32) -> Self {
        Self { input, open: Debounce::unknown(debounce_ms), fault: FaultWatch::default() }
    }

    /// Looks at the pin; gives at most one event a call.
    pub fn poll(&mut self, now_ms: u64) -> Option<EventKind> {
        let active = self.input.is_active();
        let known_before = self.open.level().is_some();
        let settled = active.and_then(|open| self.open.look(now_ms, open)).filter(|_| known_before);
        let edge = settled.map(|open| if open { EventKind::ContactOpened } else { EventKind::ContactClosed });
        edge.or_else(|| self.fault.look(now_ms, active.is_none()))
    }

    /// The settled level.
    #[must_use]
    pub fn level(&self) -> Option<Level> {
        self.open.level().map(|open| if open { Level::ContactOpen } else { Level::ContactClosed })
    }

    /// Whether the contact cannot be read.
    #[must_use]
    pub fn is_faulty(&self) -> bool {
        self.fault.is_faulty()
    }

    /// When to look again at the latest, if nothing changes.
    #[must_use]
    pub fn due_at_ms(&self) -> Option<u64> {
        earliest(self.open.due_at_ms(), self.fault.due_at_ms())
    }

    /// Another stillness from now on.
    pub fn set_debounce_ms(&mut self, debounce_ms: u32) {
        self.open.set_debounce_ms(debounce_ms);
    }
}

/// The earlier of two times, where there is one.
pub(crate) fn earliest(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    a.into_iter().chain(b).min()
}
