//! A door contact (reed switch and magnet).
//!
//! Owns when a door counts as opened or closed. Refuses to say whether anyone passed, or which way: one magnet cannot know.
//! The level found at boot is no event; it goes out with the first heartbeat, where the gateway sees an edge that was missed.

use embedded_hal::digital::InputPin;
use gengfu_wire::{EventKind, Level};

use crate::input::{Input, Watched};

/// A level that lasts this long is a door's, not a bounce's, in milliseconds.
pub const DEBOUNCE_MS: u32 = 50;

/// A door contact.
#[derive(Debug)]
pub struct Contact<P>(Watched<P>);

impl<P: InputPin> Contact<P> {
    /// `input` is active when the door is open.
    pub fn new(input: Input<P>, debounce_ms: u32) -> Self {
        Self(Watched::unknown(input, debounce_ms))
    }

    /// Looks at the pin; gives at most one event a call.
    pub fn poll(&mut self, now_ms: u64) -> Option<EventKind> {
        let edge = |open| if open { EventKind::ContactOpened } else { EventKind::ContactClosed };
        self.0.poll(now_ms, |open, was_known| was_known.then(|| edge(open)))
    }

    /// The settled level.
    #[must_use]
    pub fn level(&self) -> Option<Level> {
        self.0.level().map(|open| if open { Level::ContactOpen } else { Level::ContactClosed })
    }

    /// The line behind it.
    pub(crate) fn watched(&self) -> &Watched<P> {
        &self.0
    }

    /// Another stillness from now on.
    pub fn set_debounce_ms(&mut self, debounce_ms: u32) {
        self.0.set_debounce_ms(debounce_ms);
    }
}
