//! The emergency button.
//!
//! Owns when it counts as pressed: once for each press, however long. Refuses a level: a call for help does not end because
//! the hand let go. A button that is down at boot counts as pressed.

use embedded_hal::digital::InputPin;
use gengfu_wire::EventKind;

use crate::input::{Input, Watched};

/// Short, so that a weak hand's tap counts, in milliseconds.
pub const DEBOUNCE_MS: u32 = 30;

/// An emergency button.
#[derive(Debug)]
pub struct Sos<P>(Watched<P>);

impl<P: InputPin> Sos<P> {
    /// `input` is active while the button is down.
    pub fn new(input: Input<P>) -> Self {
        Self(Watched::at_rest(input, DEBOUNCE_MS))
    }

    /// Looks at the pin; gives at most one event a call.
    pub fn poll(&mut self, now_ms: u64) -> Option<EventKind> {
        self.0.poll(now_ms, |down, _| down.then_some(EventKind::SosPressed))
    }

    /// The line behind it.
    pub(crate) fn watched(&self) -> &Watched<P> {
        &self.0
    }
}
