//! One digital input and the judgement that it stands still.
//!
//! Owns polarity and debouncing; refuses meaning (door, smoke): that is the sensors'. A level counts when it was the same at
//! every look for `debounce_ms`; each other look starts the time anew, so a bouncing switch is never an event.

use embedded_hal::digital::InputPin;

/// An input pin and which of its levels means "so" (open, smoke, pressed).
#[derive(Debug)]
pub struct Input<P> {
    pin: P,
    active_low: bool,
}

impl<P: InputPin> Input<P> {
    /// High means so: a reed switch to ground with a pull-up, where an open door lets the level rise.
    pub fn active_high(pin: P) -> Self {
        Self { pin, active_low: false }
    }

    /// Low means so: a relay or an open-collector output to ground.
    pub fn active_low(pin: P) -> Self {
        Self { pin, active_low: true }
    }

    /// Whether it is so now; `None` when the pin cannot be read (an expander that does not answer).
    pub fn is_active(&mut self) -> Option<bool> {
        self.pin.is_high().ok().map(|high| high != self.active_low)
    }
}

/// Waits until a level is stable.
#[derive(Debug, Clone)]
pub struct Debounce {
    stable: Option<bool>,
    candidate: Option<(bool, u64)>,
    debounce_ms: u32,
}

impl Debounce {
    /// Nothing is known yet.
    #[must_use]
    pub fn unknown(debounce_ms: u32) -> Self {
        Self { stable: None, candidate: None, debounce_ms }
    }

    /// Starts from a level taken for granted.
    #[must_use]
    pub fn from(level: bool, debounce_ms: u32) -> Self {
        Self { stable: Some(level), candidate: None, debounce_ms }
    }

    /// Takes a look at `now_ms`. Gives the level when it has just become stable and differs from the one before.
    pub fn look(&mut self, now_ms: u64, level: bool) -> Option<bool> {
        if self.stable == Some(level) {
            self.candidate = None;
            return None;
        }
        let since_ms = match self.candidate {
            Some((candidate, since_ms)) if candidate == level => since_ms,
            _ => now_ms,
        };
        self.candidate = Some((level, since_ms));
        if now_ms.saturating_sub(since_ms) < u64::from(self.debounce_ms) {
            return None;
        }
        self.candidate = None;
        self.stable = Some(level);
        Some(level)
    }

    /// The stable level, once there is one.
    #[must_use]
    pub fn level(&self) -> Option<bool> {
        self.stable
    }

    /// When the present level will be stable if it stays; `None` when nothing is pending.
    #[must_use]
    pub fn due_at_ms(&self) -> Option<u64> {
        self.candidate.map(|(_, since_ms)| since_ms.saturating_add(u64::from(self.debounce_ms)))
    }

    /// Another stillness from now on.
    pub fn set_debounce_ms(&mut self, debounce_ms: u32) {
        self.debounce_ms = debounce_ms;
    }
}

/// A fault must stand this long, in milliseconds: one unanswered read of a bus expander is no fault.
pub const FAULT_DEBOUNCE_MS: u32 = 1_000;

/// Whether a sensor is broken, and whether that was told.
#[derive(Debug, Clone)]
pub struct FaultWatch {
    debounce: Debounce,
}

impl Default for FaultWatch {
    fn default() -> Self {
        Self { debounce: Debounce::from(false, FAULT_DEBOUNCE_MS) }
    }
}

impl FaultWatch {
    /// Takes a look; gives the event when the fault has come or gone.
    pub fn look(&mut self, now_ms: u64, faulty: bool) -> Option<gengfu_wire::EventKind> {
        use gengfu_wire::EventKind::{FaultCleared, FaultRaised};
        self.debounce.look(now_ms, faulty).map(|faulty| if faulty { FaultRaised } else { FaultCleared })
    }

    /// Whether the sensor is broken.
    #[must_use]
    pub fn is_faulty(&self) -> bool {
        self.debounce.level() == Some(true)
    }

    /// As [`Debounce::due_at_ms`].
    #[must_use]
    pub fn due_at_ms(&self) -> Option<u64> {
        self.debounce.due_at_ms()
    }
}
