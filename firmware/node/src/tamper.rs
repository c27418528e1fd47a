//! The switch under the case's lid.
//!
//! Owns when a case counts as opened. Refuses to latch: the gateway does that, and a person resets it there.

use embedded_hal::digital::InputPin;
use gengfu_wire::{EventKind, Level};

use crate::input::{Input, Watched};

/// A lid is opened by hand, which takes longer than this, in milliseconds.
pub const DEBOUNCE_MS: u32 = 100;

/// A tamper switch.
#[derive(Debug)]
pub struct Tamper<P>(Watched<P>);

impl<P: InputPin> Tamper<P> {
    /// `input` is active when the case is open.
    pub fn new(input: Input<P>) -> Self {
        Self(Watched::unknown(input, DEBOUNCE_MS))
    }

    /// Looks at the pin; gives at most one event a call. A case that is open at boot is an event: someone may have cut the power first.
    pub fn poll(&mut self, now_ms: u64) -> Option<EventKind> {
        let edge = |open| if open { EventKind::TamperOpened } else { EventKind::TamperClosed };
        self.0.poll(now_ms, |open, was_known| (was_known || open).then(|| edge(open)))
    }

    /// The settled level.
    #[must_use]
    pub fn level(&self) -> Option<Level> {
        self.0.level().map(|open| if open { Level::TamperOpen } else { Level::TamperClosed })
    }

    /// The line behind it.
    pub(crate) fn watched(&self) -> &Watched<P> {
        &self.0
    }
}
