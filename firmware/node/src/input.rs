//! One digital input and the judgement that it stands still.
//!
//! Owns polarity and debouncing; refuses meaning (door, smoke): that is the sensors'. A level counts when it was the same at
//! every look for `debounce_ms`; each other look starts the time anew, so a bouncing switch is never an event.

use embedded_hal::digital::InputPin;
use gengfu_wire::EventKind;

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
    pub fn look(&mut self, now_ms: u64, faulty: bool) -> Option<EventKind> {
        let event = |faulty| if faulty { EventKind::FaultRaised } else { EventKind::FaultCleared };
        self.debounce.look(now_ms, faulty).map(event)
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

/// One line whose settled level is a sensor's, and whether it can be read at all. A door, a lid and a button differ only in what its edges mean.
#[derive(Debug)]
pub struct Watched<P> {
    input: Input<P>,
    level: Debounce,
    fault: FaultWatch,
}

impl<P: InputPin> Watched<P> {
    /// A line of which nothing is known yet.
    pub fn unknown(input: Input<P>, debounce_ms: u32) -> Self {
        Self { input, level: Debounce::unknown(debounce_ms), fault: FaultWatch::default() }
    }

    /// A line that is taken for inactive until it is seen otherwise.
    pub fn at_rest(input: Input<P>, debounce_ms: u32) -> Self {
        Self { level: Debounce::from(false, debounce_ms), ..Self::unknown(input, debounce_ms) }
    }

    /// Looks at the pin; gives at most one event a call. `event` says what a level that has just settled means, and is told whether one was
    /// known before.
    pub fn poll(&mut self, now_ms: u64, event: impl FnOnce(bool, bool) -> Option<EventKind>) -> Option<EventKind> {
        let active = self.input.is_active();
        let was_known = self.level.level().is_some();
        let settled = active.and_then(|active| self.level.look(now_ms, active));
        let edge = settled.and_then(|active| event(active, was_known));
        edge.or_else(|| self.fault.look(now_ms, active.is_none()))
    }

    /// The settled level, once there is one.
    #[must_use]
    pub fn level(&self) -> Option<bool> {
        self.level.level()
    }

    /// Whether the line cannot be read.
    #[must_use]
    pub fn is_faulty(&self) -> bool {
        self.fault.is_faulty()
    }

    /// When to look again at the latest, if nothing changes.
    #[must_use]
    pub fn due_at_ms(&self) -> Option<u64> {
        earliest(self.level.due_at_ms(), self.fault.due_at_ms())
    }

    /// Another stillness from now on.
    pub fn set_debounce_ms(&mut self, debounce_ms: u32) {
        self.level.set_debounce_ms(debounce_ms);
    }
}

/// The earlier of two times, where there is one.
pub(crate) fn earliest(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    a.into_iter().chain(b).min()
}
